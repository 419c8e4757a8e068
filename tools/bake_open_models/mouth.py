"""The open mouth.

With skinning alone it opens to a diamond: the lips' weights fall from the middle to the corners in straight
lines. A corrective of the jaw brings the rim to an ellipse of the same width and height; lips and cheeks go
with it.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from tools.bake_open_models.correctives import quaternion_goal, rest_offset
from tools.bake_open_models.rigid import cotangents

_OPEN = np.deg2rad(25)
_FOLLOWS = 0.035  # metres from the rim within which the face goes with it


def ordered_loop(faces: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """The vertices, which lie on one closed loop of edges, one after another."""
    members = set(vertices.tolist())
    beside: dict[int, set[int]] = {vertex: set() for vertex in members}
    for k in range(3):
        for a, b in faces[:, [k, (k + 1) % 3]].tolist():
            if a in members and b in members:
                beside[a].add(b)
                beside[b].add(a)
    if any(len(others) != 2 for others in beside.values()):
        raise ValueError(f"the {len(members)} vertices must lie on one loop of edges")
    loop = [min(members)]
    last = -1
    while True:
        ahead = min(beside[loop[-1]] - {last})
        last = loop[-1]
        if ahead == loop[0]:
            break
        loop.append(ahead)
    if len(loop) != len(members):
        raise ValueError(f"the {len(members)} vertices must lie on one loop of edges, got one of {len(loop)}")
    return np.array(loop)


def on_ellipse(points: np.ndarray) -> np.ndarray:
    """(n, 3): a closed line of points around the middle of the face brought to half-ellipses over and under
    its corners, in x and y, at the same shares of its length; z stays."""
    left, right = int(np.argmin(points[:, 0])), int(np.argmax(points[:, 0]))
    count = len(points)
    moved = points.copy()
    corner = (points[left] + points[right]) / 2
    half_width = (points[right, 0] - points[left, 0]) / 2
    for start, end in ((left, right), (right, left)):
        side = np.arange(start, end + (count if end <= start else 0) + 1) % count
        line = points[side, :2]
        length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
        angle = np.pi * length / length[-1]
        sign = 1.0 if start == left else -1.0
        chord = np.interp(line[:, 0], points[[left, right], 0], points[[left, right], 1])
        away = line[:, 1] - chord
        height = away[np.argmax(np.abs(away))]
        moved[side, 0] = corner[0] - sign * half_width * np.cos(angle)
        level = np.interp(moved[side, 0], points[[left, right], 0], points[[left, right], 1])
        moved[side, 1] = level + height * np.sin(angle)
    return moved


def mouth_directions(
    template: np.ndarray, faces: np.ndarray, rim: np.ndarray, center: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """(V, 3, 9) correctives of the jaw at `center` (3,), which moves vertices by `share` (V,), to add to
    those that it has; `rim` (n,): the loop of the mouth."""
    loop = ordered_loop(faces, rim)
    vector = np.array([_OPEN, 0, 0])
    opened = quaternion_goal(template - center, share, vector)
    shift = on_ellipse(opened[loop]) - opened[loop]
    distance = np.linalg.norm(template[:, None] - template[loop], axis=2).min(1)
    follows = np.flatnonzero(distance < _FOLLOWS)
    free = np.setdiff1d(follows, loop)
    mesh = np.unique(faces)
    laplacian = _laplacian(template, faces)
    moved = np.zeros((len(template), 3))
    moved[loop] = shift
    # Each vertex is the mean of its neighbours, the rim and what is far away being given.
    moved[free] = spsolve(laplacian[free][:, free].tocsc(), -(laplacian[free][:, loop] @ shift))
    matrix = Rotation.from_rotvec(vector).as_matrix()
    rows = np.intersect1d(follows, mesh)
    offsets = rest_offset(template[rows] - center, share[rows], matrix, opened[rows] + moved[rows])
    offsets -= rest_offset(template[rows] - center, share[rows], matrix, opened[rows])
    # In the sine of the jaw's turn about x, which is what its rotation matrix has below and above the
    # diagonal.
    directions = np.zeros((len(template), 3, 9))
    directions[rows, :, 7] = offsets / (2 * np.sin(_OPEN))
    directions[rows, :, 5] = -directions[rows, :, 7]
    return directions


def _laplacian(places: np.ndarray, faces: np.ndarray) -> sp.csr_matrix:
    weights = cotangents(places, faces)
    return (sp.diags(np.asarray(weights.sum(1)).ravel()) - weights).tocsr()
