"""Surfaces bent as rigidly as possible (Sorkine and Alexa 2007)."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu


def cotangents(places: np.ndarray, faces: np.ndarray) -> sp.csr_matrix:
    """(V, V) symmetric: half the sum of the cotangents of the angles opposite to each edge, at least 0."""
    rows, columns, values = [], [], []
    for k in range(3):
        a, b, c = faces[:, k], faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        u, v = places[a] - places[c], places[b] - places[c]
        half = (u * v).sum(1) / (np.linalg.norm(np.cross(u, v), axis=1) + 1e-12) / 2
        rows += [a, b]
        columns += [b, a]
        values += [half, half]
    shape = (len(places), len(places))
    pairs = (np.concatenate(rows), np.concatenate(columns))
    matrix = sp.coo_matrix((np.concatenate(values), pairs), shape).tocsr()
    matrix.data = matrix.data.clip(1e-3, 10)
    return matrix


class RigidSolver:
    """Bends a surface so that the neighbourhood of each vertex is turned, not stretched, from how it lies at
    rest.

    `rest` (V, 3), `faces` (F, 3); `held` (V,): how strongly each vertex is held where it is asked to be, in
    terms of an edge's weight.
    """

    def __init__(self, rest: np.ndarray, faces: np.ndarray, held: np.ndarray) -> None:
        weights = cotangents(rest, faces).tocoo()
        self._from, self._to, self._weights = weights.row, weights.col, weights.data
        self._edges = rest[self._from] - rest[self._to]
        self._held = held
        count = len(rest)
        laplacian = sp.diags(np.asarray(weights.sum(1)).ravel()) - weights.tocsr()
        self._sum = sp.csr_matrix(
            (np.ones(len(weights.row)), (weights.row, np.arange(len(weights.row)))), (count, len(weights.row))
        )
        self._factors = splu((laplacian + sp.diags(held)).tocsc())

    def solve(self, asked: np.ndarray, rounds: int) -> np.ndarray:
        """(V, 3) near `asked` (V, 3) where held, from there in so many rounds."""
        places = asked
        for _ in range(rounds):
            turned = places[self._from] - places[self._to]
            products = self._weights[:, None, None] * self._edges[:, :, None] * turned[:, None]
            spread = (self._sum @ products.reshape(len(products), 9)).reshape(-1, 3, 3)
            u, _, v = np.linalg.svd(spread)
            sign = np.sign(np.linalg.det(u @ v))
            u[:, :, 2] *= sign[:, None]
            turns = (u @ v).transpose(0, 2, 1)
            both = (turns[self._from] + turns[self._to]) / 2
            goal = self._weights[:, None] * np.einsum("eij,ej->ei", both, self._edges)
            places = self._factors.solve(self._sum @ goal + self._held[:, None] * asked)
        return places
