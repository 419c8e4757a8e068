"""Shoulders with the arms down.

In the T-pose MakeHuman's collar bones are lifted with the arms. A shoulder turned down alone leaves them
there, and the body looks as if it wore a box. MakeHuman's own body stands with its arms half down:
correctives are fitted that bring the skin around the shoulder to the shape that it has there, as rigidly as
possible between trunk and arm.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from tools.bake_open_models.correctives import fit_offsets, quaternion_goal, rest_offset
from tools.bake_open_models.rigid import RigidSolver

_FREE, _HELD = 0.15, 0.24  # metres from the joint: free up to the first, held from the second on
# Chest and armpit, all from a little over the joint on down, are held too, more the lower they lie: they look
# well as they are, and where the joint is is read off them.
_OVER, _UNDER = 0.01, 0.04
_STRENGTH = 1e2  # of a held vertex, in terms of an edge
_ROUNDS = 20
_RIDGE = 0.05
_TURNS = 60
_SHOULDER = ((-45, 0, 45), (-90, -10, 25), (-88, -60, 60))  # degrees about x, y, z: least, usual, most
_LOWERED = np.sin(np.deg2rad(50))


def shoulder_directions(
    template: np.ndarray,
    natural: np.ndarray,
    faces: np.ndarray,
    center: np.ndarray,
    share: np.ndarray,
) -> np.ndarray:
    """(V, 3, 9) correctives of the left shoulder at `center` (3,), which moves vertices by `share` (V,), of a
    body `template` (V, 3) that is `natural` (V, 3) with its arms half down.

    Where the arm is at the height of the T-pose or above, they do what those of the other joints do.
    """
    distance = np.linalg.norm(template - center, axis=1)
    mesh = faces[(distance < _HELD + 0.02)[faces].all(1)]
    rows = np.unique(mesh)
    away = np.clip((distance[rows] - _FREE) / (_HELD - _FREE), 0, 1)
    below = np.clip((center[1] + _OVER - template[rows, 1]) / _UNDER, 0, 1)
    solver = RigidSolver(natural[rows], np.searchsorted(rows, mesh), _STRENGTH * (away**4 + below**2))

    places, of_rows = template[rows] - center, share[rows]
    matrices, offsets = _turns(), []
    for matrix in matrices:
        goal = quaternion_goal(places, of_rows, Rotation.from_matrix(matrix).as_rotvec())
        down = np.clip(-matrix[1, 0] / _LOWERED, 0, 1)  # the arm lies along x
        if down > 0:
            goal = goal + down * (solver.solve(goal, _ROUNDS) - goal)
        offsets.append(rest_offset(places, of_rows, matrix, goal))
    directions = np.zeros((len(template), 3, 9))
    directions[rows] = fit_offsets(matrices, np.array(offsets), ridge=_RIDGE)
    return directions


def _turns() -> np.ndarray:
    """(60, 3, 3): of shoulders as people have them, most with the arm down."""
    rng = np.random.default_rng(0)
    degrees = np.stack([rng.triangular(*limits, size=_TURNS) for limits in _SHOULDER], axis=1)
    matrices: np.ndarray = Rotation.from_rotvec(np.deg2rad(degrees)).as_matrix()
    return matrices
