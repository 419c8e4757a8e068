"""A frame seen by several cameras: several estimates, one fit.

Both rules judge an estimate by its 3D joint error, the mean distance of its posed joints to the GT joints
after `place_by_joints`. `best_view` keeps the estimate of one view; `fuse_views` averages all of them in the
world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neuralannot.parameters import SIDES
from neuralannot.train.placing import PosedJoints, place_by_joints

__all__ = ["FusedViews", "KeyGroups", "best_view", "fuse_views", "group_views"]

_CHUNK = 1 << 14  # frames at a time: the work is in float64
_CODES = ("betas", "expression")


@dataclass(frozen=True, eq=False)
class KeyGroups:
    """N estimates by the G fits that they are views of.

    `keys` (G, K) int64, in ascending order, each once; `side` (G,) for hands, right before left of one key,
    None otherwise; `of_row` (N,) int64: the group of each estimate.
    """

    keys: np.ndarray
    side: np.ndarray | None
    of_row: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, eq=False)
class FusedViews:
    """One fit for each of G groups.

    `params`: name -> (G, ...) float32 in the world; `error` (G,) float32 metres, the joint error of the fused
    fit, NaN where no view could be used (its parameters are NaN too); `rows` (G,) int64: the best view's
    estimate, -1 where there is none; `used` (G,) int64: how many views were averaged.
    """

    params: dict[str, np.ndarray]
    error: np.ndarray
    rows: np.ndarray
    used: np.ndarray


def group_views(keys: np.ndarray, side: np.ndarray | None = None) -> KeyGroups:
    """(N, K) integer frame keys, and (N,) sides of hands, -> which estimates are views of one fit.

    Raises ValueError where shapes do not fit.
    """
    keys = np.asarray(keys)
    if keys.ndim != 2 or (keys.dtype.kind not in "iu" and keys.size):
        raise ValueError(f"keys must be (N, K) integers, got {keys.dtype} {keys.shape}")
    whole = np.array(keys, np.int64)
    if side is not None:
        side = np.asarray(side)
        if side.shape != (len(keys),) or not np.isin(side, SIDES).all():
            raise ValueError(f"side must be ({len(keys)},) of {', '.join(SIDES)}, got {side!r:.80}")
        whole = np.column_stack([whole, side == "left"])
    order = np.lexsort(whole.T[::-1])
    ordered = whole[order]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    of_row = np.empty(len(order), np.int64)
    of_row[order] = np.cumsum(is_new) - 1
    unique = ordered[is_new]
    if side is None:
        return KeyGroups(unique, None, of_row)
    return KeyGroups(unique[:, :-1].copy(), np.where(unique[:, -1] == 1, "left", "right"), of_row)


def best_view(groups: KeyGroups, error: np.ndarray, camera: np.ndarray | None = None) -> np.ndarray:
    """(G,) int64: of each group the estimate to keep, -1 where none has an error.

    The rule: the lowest 3D joint error; where two are equal the lower camera number, then the earlier row.
    `error` (N,) metres, not a number where an estimate could not be judged: such a one is never chosen.
    `camera` (N,) integers; None takes the order of rows. Raises ValueError where shapes do not fit.
    """
    error = _errors(groups, error)
    number = np.zeros(len(error), np.int64) if camera is None else np.asarray(camera)
    if number.shape != error.shape:
        raise ValueError(f"camera must be {error.shape} like the errors, got {number.shape}")
    usable = np.flatnonzero(np.isfinite(error))
    order = usable[np.lexsort([number[usable], error[usable], groups.of_row[usable]])]
    chosen, first = np.unique(groups.of_row[order], return_index=True)
    rows = np.full(len(groups), -1, np.int64)
    rows[chosen] = order[first]
    return rows


def fuse_views(
    params: Mapping[str, np.ndarray],
    groups: KeyGroups,
    error: np.ndarray,
    *,
    joints_world: np.ndarray,
    joints_of: PosedJoints,
    camera: np.ndarray | None = None,
    floor: float = 0.001,
) -> FusedViews:
    """One fit for each group, from all of its views.

    The rule: a view's weight is the inverse square of its 3D joint error, no error counting as less than
    `floor` metres, and none where the error is not a number. Each rotation is the weighted chordal mean: the
    rotation nearest to the mean of the views' matrices, of every joint in its parent's frame and of the root
    in the world's. Where the views leave it open (two that are half a turn apart) the best view's is taken.
    Shape and expression are weighted means; the translation follows once more from the joints.

    `params`: name -> (N, ...) in the world; `error` (N,) metres; `joints_world` (N, J, 3) GT joints, NaN =
    invalid: a group's are the means over its views; `joints_of`: poses M fits, told the rows of their best
    views (for side and gender); `camera` (N,): see `best_view`. Raises ValueError where shapes do not fit.
    """
    error = _errors(groups, error)
    if not floor > 0:
        raise ValueError(f"floor must be a positive number of metres, got {floor}")
    for name, values in {**params, "joints_world": joints_world}.items():
        if len(values) != len(error):
            raise ValueError(f"{name} must have {len(error)} rows like the errors, got {len(values)}")
    best = best_view(groups, error, camera)
    usable = np.flatnonzero(np.isfinite(error))
    weight = 1 / np.maximum(error[usable], floor) ** 2
    order = np.argsort(groups.of_row[usable], kind="stable")
    rows, weight = usable[order], weight[order]
    present, begin, used = np.unique(groups.of_row[rows], return_index=True, return_counts=True)
    total = np.add.reduceat(weight, begin) if len(begin) else np.zeros(0)
    weight = weight / np.repeat(total, used)
    fused: dict[str, np.ndarray] = {}
    for name, values in params.items():
        if name == "transl":
            continue
        found = np.empty((len(present), *values.shape[1:]), np.float32)
        for first in range(0, len(present), _CHUNK):
            here = slice(first, first + _CHUNK)
            start = begin[here]
            end = begin[first + _CHUNK] if first + _CHUNK < len(begin) else len(rows)
            mine = slice(int(start[0]), int(end))
            mean = _mean_codes if name in _CODES else _mean_rotations
            found[here] = mean(values, rows[mine], weight[mine], start - start[0], best[present[here]])
        fused[name] = found
    target = _mean_joints(joints_world, groups)[present]
    valid = np.isfinite(target).all(axis=-1)
    chosen = best[present]
    placed, left = place_by_joints(fused, target, valid, lambda given, row: joints_of(given, chosen[row]))
    return FusedViews(
        {name: _spread(values, present, len(groups)) for name, values in placed.items()},
        _spread(left, present, len(groups)),
        best,
        np.bincount(groups.of_row[rows], minlength=len(groups)),
    )


def _errors(groups: KeyGroups, error: np.ndarray) -> np.ndarray:
    error = np.asarray(error, np.float64)
    if error.shape != groups.of_row.shape:
        raise ValueError(f"error must be {groups.of_row.shape}, one an estimate, got {error.shape}")
    if (error < 0).any():
        raise ValueError(f"errors are distances, got {error.min()}")
    return error


def _spread(values: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """(P, ...) -> (count, ...) with NaN elsewhere."""
    out = np.full((count, *values.shape[1:]), np.nan, np.float32)
    out[places] = values
    return out


def _mean_codes(
    values: np.ndarray, rows: np.ndarray, weight: np.ndarray, begin: np.ndarray, best: np.ndarray
) -> np.ndarray:
    """(G, ...) weighted means. `begin` (G,): where in `rows` each group starts."""
    scaled = values[rows].astype(np.float64) * weight.reshape(-1, *[1] * (values.ndim - 1))
    return np.add.reduceat(scaled, begin, axis=0)


def _mean_rotations(
    values: np.ndarray, rows: np.ndarray, weight: np.ndarray, begin: np.ndarray, best: np.ndarray
) -> np.ndarray:
    """(G, ..., 3) axis-angle: weighted chordal means; the best view's where that is not determined."""
    from scipy.spatial.transform import Rotation

    vectors = values[rows].reshape(len(rows), -1, 3).astype(np.float64)
    joints = vectors.shape[1]
    matrices = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(len(rows), joints, 3, 3)
    mean = np.add.reduceat(matrices * weight[:, None, None, None], begin, axis=0)
    u, singular, vh = np.linalg.svd(mean)
    sign = np.where(np.linalg.det(u @ vh) < 0, -1.0, 1.0)
    u[..., 2] *= sign[..., None]
    found = Rotation.from_matrix((u @ vh).reshape(-1, 3, 3)).as_rotvec().reshape(-1, joints, 3)
    # The weights add up to one, and so the singular values to at most three.
    is_open = singular[..., 1] + sign * singular[..., 2] < 1e-6
    of_best = values[best].reshape(found.shape)
    fused: np.ndarray = np.where(is_open[..., None], of_best, found).reshape(-1, *values.shape[1:])
    return fused


def _mean_joints(joints: np.ndarray, groups: KeyGroups) -> np.ndarray:
    """(G, J, 3) the mean of each joint over the views in which it is valid, NaN where in none."""
    joints = np.asarray(joints)
    valid = np.isfinite(joints).all(axis=-1)
    order = np.argsort(groups.of_row, kind="stable")
    begin = np.searchsorted(groups.of_row[order], np.arange(len(groups)))
    if not len(groups):
        return np.zeros((0, *joints.shape[1:]))
    known = np.where(valid[..., None], joints, 0)[order].astype(np.float64)
    count = np.add.reduceat(valid[order].astype(np.int64), begin, axis=0)[..., None]
    total = np.add.reduceat(known, begin, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
