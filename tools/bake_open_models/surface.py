"""Points and normals on triangle meshes."""

from __future__ import annotations

import numpy as np


def closest_on_triangles(point: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(n, 3) barycentric weights of the point of each triangle, (n, 3, 3), that lies nearest to `point`
    (3,)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = np.cross(b - a, c - a)
    area = (normal**2).sum(1) + 1e-30
    inside = np.stack(
        [
            (np.cross(c - b, point - b) * normal).sum(1) / area,
            (np.cross(a - c, point - c) * normal).sum(1) / area,
            (np.cross(b - a, point - a) * normal).sum(1) / area,
        ],
        1,
    )
    best = np.where(np.all(inside >= 0, axis=1)[:, None], inside, np.nan)
    # Outside the triangle the nearest point lies on an edge.
    candidates = []
    for start, end in ((0, 1), (1, 2), (2, 0)):
        edge = corners[:, end] - corners[:, start]
        along = ((point - corners[:, start]) * edge).sum(1) / ((edge**2).sum(1) + 1e-30)
        along = along.clip(0, 1)
        weights = np.zeros((len(corners), 3))
        weights[:, start], weights[:, end] = 1 - along, along
        candidates.append(weights)
    stacked = np.stack(candidates)
    apart = ((stacked[..., None] * corners).sum(2) - point) ** 2
    on_edge = stacked[apart.sum(2).argmin(0), np.arange(len(corners))]
    return np.where(np.isnan(best), on_edge, best)
