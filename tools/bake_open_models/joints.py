"""Joint regressors: joints as convex combinations of few vertices near them."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from tools.bake_open_models.shapes import ShapeSpace
from tools.bake_open_models.trees import Tree

_CANDIDATES = 220


def joint_regressor(space: ShapeSpace, weights: np.ndarray, tree: Tree) -> np.ndarray:
    """(J, V), rows >= 0 that sum to 1: non-negative least squares, on the mean body and its shape directions.

    Candidates are the nearest vertices that a joint, or its parent, moves.
    """
    regressor = np.zeros((len(tree.joints), len(space.template)))
    for joint, place in enumerate(space.joints):
        parent = max(tree.parents[joint], 0) if joint else 0
        (moved,) = np.nonzero((weights[:, joint] > 0.02) | (weights[:, parent] > 0.02))
        distance = np.linalg.norm(space.template[moved] - place, axis=1)
        near = moved[np.argsort(distance)[:_CANDIDATES]]
        count = len(near)
        along = space.directions[near].transpose(2, 1, 0).reshape(-1, count)
        system = [np.full((1, count), 30.0), (space.template[near] - place).T * 10, along * 10]
        goal = [np.array([30.0]), np.zeros(3), space.joint_directions[joint].T.reshape(-1) * 10]
        # A small ridge spreads the weights.
        a = np.vstack([*system, np.eye(count) * 2e-3])
        b = np.concatenate([*goal, np.zeros(count)])
        row, _ = nnls(a, b, maxiter=20000)
        row[row < 1e-4] = 0
        regressor[joint, near] = row / row.sum()
    return regressor
