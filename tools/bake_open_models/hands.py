"""Finger poses: invented, from how far fingers bend, not measured on anybody."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.bake_open_models.source import Source
from tools.bake_open_models.trees import FINGER_NUMBER, FINGERS

_POSES, _SHOWN = 4000, 200
MIRROR_AXES = np.tile([1.0, -1.0, -1.0], 15)  # an axis-angle vector keeps x under x -> -x


@dataclass(frozen=True, eq=False)
class HandPoses:
    """Principal `components` (45, 45, rows) of finger poses about their `mean` (45,), axis-angle in radians,
    and the `codes` (200, 45) of some of them."""

    components: np.ndarray
    mean: np.ndarray
    codes: np.ndarray

    def mirrored(self) -> HandPoses:
        return HandPoses(self.components * MIRROR_AXES, self.mean * MIRROR_AXES, self.codes)


def right_hand_poses(source: Source) -> HandPoses:
    """Of 4000 random right hands, more or less closed, each finger a little on its own.

    Rows of `components` beyond what such hands do are any directions square to the others, always the same.
    """
    poses = _draw_poses(source)
    mean = poses.mean(0)
    _, singular, rows = np.linalg.svd(poses - mean, full_matrices=False)
    rows = rows[singular > 1e-9 * singular[0]]
    rows = rows * np.where(rows @ mean < 0, -1.0, 1.0)[:, None]  # a positive code closes the hand
    components = completed(rows)
    return HandPoses(components, mean, ((poses - mean) @ components.T)[:_SHOWN])


def completed(rows: np.ndarray) -> np.ndarray:
    """(n, n) orthonormal: `rows` (r, n), then unit vectors made square to all before, the most independent
    first.

    Written out, because where a decomposition puts the null space hangs on the machine.
    """
    count = rows.shape[1]
    basis = list(rows)
    rest = np.eye(count) - rows.T @ rows
    while len(basis) < count:
        lengths = np.round(np.linalg.norm(rest, axis=1), 6)
        row = rest[np.argmax(lengths)]
        for _ in range(2):
            for other in basis:
                row = row - (row @ other) * other
        row = row / np.linalg.norm(row)
        basis.append(row)
        rest = rest - np.outer(rest @ row, row)
    return np.array(basis)


def _draw_poses(source: Source) -> np.ndarray:
    """(4000, 45)."""
    rng = np.random.default_rng(2)
    poses = np.zeros((_POSES, 15, 3))
    grip = rng.beta(1.3, 2.2, _POSES)

    def bones(finger: str) -> np.ndarray:
        return np.stack(
            [source.mean_heads[source.bone(f"finger{FINGER_NUMBER[finger]}-{k}.R")] for k in (1, 2, 3)]
        )

    def unit(vector: np.ndarray) -> np.ndarray:
        direction: np.ndarray = vector / np.linalg.norm(vector)
        return direction

    def bend(amount: np.ndarray, degrees: float) -> np.ndarray:
        angles: np.ndarray = (amount * np.deg2rad(degrees))[:, None]
        return angles

    for finger in ("index", "middle", "ring", "pinky"):
        first = FINGERS.index(f"{finger}1")
        heads = bones(finger)
        axis = unit(np.cross(unit(heads[2] - heads[0]), [0, -1, 0]))  # towards the palm
        own = np.clip(grip + rng.normal(0, 0.18, _POSES), -0.08, 1.05)
        sideways = np.array([0, 1, 0]) * rng.normal(0, 0.06, _POSES)[:, None]
        poses[:, first] = axis * bend(own, 80) + sideways
        for joint, degrees in ((1, 95), (2, 60)):
            poses[:, first + joint] = axis * bend(np.clip(own + rng.normal(0, 0.1, _POSES), 0, 1.1), degrees)
    heads = bones("thumb")
    across = source.mean_heads[source.bone("finger4-1.R")] - heads[1]
    axis = unit(np.cross(unit(heads[2] - heads[1]), across))
    own = np.clip(0.7 * grip + rng.normal(0, 0.2, _POSES), -0.1, 1)
    first = FINGERS.index("thumb1")
    poses[:, first] = axis * bend(own, 35) + rng.normal(0, 0.08, (_POSES, 3))
    poses[:, first + 1] = axis * bend(own, 40)
    poses[:, first + 2] = axis * bend(own, 60)
    return poses.reshape(_POSES, 45)
