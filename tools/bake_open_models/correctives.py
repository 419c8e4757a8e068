"""Pose correctives: what linear blend skinning gets wrong, as linear functions of the joints' rotation
matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

_TURNS = 48
_MIRROR = np.array([-1.0, 1.0, 1.0])
_RIDGE = 0.5
LEAST = 2e-4  # metres: what is less is 0


def random_turns(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """48 rotations of 0.2 to 1.6 radians about any axis: vectors (48, 3), matrices (48, 3, 3)."""
    axes = rng.normal(size=(_TURNS, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    vectors = axes * rng.uniform(0.2, 1.6, (_TURNS, 1))
    return vectors, Rotation.from_rotvec(vectors).as_matrix()


def moved_by(joint: int, parents: Sequence[int]) -> list[int]:
    """The joint and all that hang on it."""
    below = [joint]
    for child in range(joint + 1, len(parents)):
        if parents[child] in below:
            below.append(child)
    return below


def pose_directions(
    template: np.ndarray, joints: np.ndarray, weights: np.ndarray, parents: Sequence[int]
) -> np.ndarray:
    """(V, 3, 9 (J - 1)) metres a unit of a joint's rotation matrix minus the identity, row by row.

    For each joint, over 48 random rotations: the difference between skinning by blended quaternions, which
    keeps volume at a bend, and by blended matrices, taken back to the rest pose, by ridge regression. Only
    vertices that the joint shares with its parent have any.
    """
    rng = np.random.default_rng(0)
    directions = np.zeros((len(template), 3, 9 * (len(parents) - 1)))
    for joint in range(1, len(parents)):
        share = weights[:, moved_by(joint, parents)].sum(1)
        (rows,) = np.nonzero((share > 0.02) & (share < 0.98))
        if not len(rows):
            continue
        vectors, matrices = random_turns(rng)
        places = template[rows] - joints[joint]
        offsets = []
        for vector, matrix in zip(vectors, matrices, strict=True):
            goal = quaternion_goal(places, share[rows], vector)
            offsets.append(rest_offset(places, share[rows], matrix, goal))
        directions[rows, :, 9 * (joint - 1) : 9 * joint] += fit_offsets(matrices, np.array(offsets))
    return directions


def mirrored(directions: np.ndarray, template: np.ndarray) -> np.ndarray:
    """(V, 3, 9) correctives of the joint on the other side, of a symmetric template (V, 3)."""
    partner = cKDTree(template).query(template * _MIRROR)[1]
    # A rotation matrix mirrors to M R M.
    other: np.ndarray = directions[partner] * _MIRROR[:, None] * np.outer(_MIRROR, _MIRROR).ravel()
    return other


def quaternion_goal(places: np.ndarray, share: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """(n, 3): where skinning by blended quaternions takes places (n, 3) relative to the joint, which turns
    them by `share` (n,) of the rotation vector (3,)."""
    angle = np.linalg.norm(vector)
    turned = np.array([np.cos(angle / 2), *(np.sin(angle / 2) * vector / angle)])
    blended = (1 - share)[:, None] * np.array([1.0, 0, 0, 0]) + share[:, None] * turned
    blended /= np.linalg.norm(blended, axis=1, keepdims=True)
    turned_places: np.ndarray = Rotation.from_quat(blended[:, [1, 2, 3, 0]]).apply(places)
    return turned_places


def rest_offset(places: np.ndarray, share: np.ndarray, matrix: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """(n, 3) to add at rest so that linear skinning, about the joint at the origin, ends at `goal` (n, 3)."""
    linear = (1 - share)[:, None, None] * np.eye(3) + share[:, None, None] * matrix
    ended = np.einsum("vij,vj->vi", linear, places)
    return np.linalg.solve(linear + 1e-3 * np.eye(3), (goal - ended)[..., None])[..., 0]


def fit_offsets(
    matrices: np.ndarray, offsets: np.ndarray, *, ridge: float = _RIDGE, counts: np.ndarray | None = None
) -> np.ndarray:
    """(n, 3, 9): offsets (R, n, 3) as linear functions of rotation matrices (R, 3, 3) minus the identity.

    `counts` (R,): how much each rotation counts.
    """
    features = (matrices - np.eye(3)).reshape(len(matrices), 9)
    weighed = features if counts is None else features * counts[:, None]
    normal = weighed.T @ features + ridge * np.eye(9)
    fitted = np.linalg.solve(normal, weighed.T @ offsets.reshape(len(offsets), -1))
    return fitted.reshape(9, *offsets.shape[1:]).transpose(1, 2, 0)
