"""Feet and the floor, for motion capture: whether they float, sink in, or slide while they stand.

World space alone has a floor. Where its height is not known, a person's feet say it: they stand most of the
time, so the median of their lowest points is taken, for each subject (and, of MPI-INF-3DHP, each sequence).
What all of a person's fits have in common, floating by the same height, is then not seen. A jump floats and a
step off the floor is no error: these are measures, no flags.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np

from neuralannot.body_models.model import BodyModel

__all__ = ["SOLE_POINTS", "UP", "floor_heights", "foot_heights", "foot_skate", "sole_vertices"]

# The world's axis that points up, by data set.
UP: Mapping[str, int] = {"Human3.6M": 2, "MPI-INF-3DHP": 1}
# How many of a frame's key numbers say whose floor it is.
_FLOOR_KEYS = {"Human3.6M": 1, "MPI-INF-3DHP": 2}
_FEET = ("ankle", "foot")
_SOLE = 0.03  # metres above the lowest point of a foot at rest
SOLE_POINTS = 40  # of a sole
_CONTACT = 0.03  # metres above the floor, at most, of what stands on it
_LARGEST_STEP = 10  # frames: those farther apart say nothing of sliding


@functools.lru_cache(maxsize=8)
def sole_vertices(model: BodyModel) -> np.ndarray:
    """(2, 40) vertices of the left and right sole, at rest within 3 cm of the lowest, which comes last."""
    vertices = model.v_template.detach().cpu().numpy()
    owner = model.lbs_weights.detach().cpu().numpy().argmax(1)
    soles = []
    for side in ("left", "right"):
        joints = [model.joint_names.index(f"{side}_{name}") for name in _FEET]
        foot = np.flatnonzero(np.isin(owner, joints))
        sole = foot[vertices[foot, 1] <= vertices[foot, 1].min() + _SOLE]
        # Evenly from heel to toe.
        sole = sole[np.argsort(vertices[sole, 2], kind="stable")]
        spread = sole[np.linspace(0, len(sole) - 1, SOLE_POINTS - 1).round().astype(int)]
        soles.append(np.append(spread, sole[vertices[sole, 1].argmin()]))
    return np.stack(soles)


def foot_heights(soles: np.ndarray, up: int) -> np.ndarray:
    """Soles (N, 2, S, 3) in the world, metres -> (N,) height of the lowest point."""
    lowest: np.ndarray = soles[..., up].min(axis=(1, 2))
    return lowest


def floor_heights(lowest: np.ndarray, keys: np.ndarray, data_set: str) -> np.ndarray:
    """(N,) metres: the floor under each frame, the median of the lowest points of all that share it.

    `lowest` (N,) metres, `keys` (N, K) frame keys.
    """
    floors = np.full(len(lowest), np.nan)
    _, group = np.unique(keys[:, : _FLOOR_KEYS[data_set]], axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(rows):
            floors[rows] = np.median(lowest[rows])
    return floors


def foot_skate(
    soles: Callable[[np.ndarray], np.ndarray],
    keys: np.ndarray,
    floor: np.ndarray,
    up: int,
    *,
    batch_size: int = 1024,
) -> np.ndarray:
    """(N,) metres a frame: how far a foot that stands slides, to the frame before or after, the larger.

    `soles`: row numbers (M,) -> soles (M, 2, S, 3) in the world; `keys` (N, K), the last number the frame's;
    `floor` (N,) metres. A foot slides by what that point of its sole moves along the floor that moves least,
    of those that lie within 3 cm of it in both frames: a foot that rolls over its ball does not slide. 0
    where no foot stands. Frames up to 10 apart are compared, and the way divided by how many; NaN without
    such a neighbour.
    """
    order = np.lexsort(keys.T[::-1])
    ordered = keys[order]
    step = np.diff(ordered[:, -1])
    follows = (np.diff(ordered[:, :-1], axis=0) == 0).all(axis=1) & (step > 0) & (step <= _LARGEST_STEP)
    pairs = np.flatnonzero(follows)
    along = [axis for axis in range(3) if axis != up]
    skate = np.full(len(keys), np.nan)
    for first in range(0, len(pairs), batch_size):
        chosen = pairs[first : first + batch_size]
        rows = np.unique(np.concatenate([chosen, chosen + 1]))
        posed = soles(order[rows])
        before, after = np.searchsorted(rows, chosen), np.searchsorted(rows, chosen + 1)
        stands = posed[..., up] - floor[order[rows]][:, None, None] <= _CONTACT
        moved = np.linalg.norm(posed[after][..., along] - posed[before][..., along], axis=-1)
        moved = np.where(stands[before] & stands[after], moved, np.inf).min(axis=2)
        slide = np.where(np.isfinite(moved), moved, 0).max(axis=1) / step[chosen]
        for frame in (order[chosen], order[chosen + 1]):
            skate[frame] = np.fmax(skate[frame], slide)
    return skate
