"""`Surface`: the exact distance from points to a triangle mesh."""

from __future__ import annotations

import numpy as np

from neuralannot.raycast import checked_indices

__all__ = ["Surface"]

# Point-triangle pairs at once: they stay in the processor's cache.
_PAIRS = 1 << 18
_FIRST = 8  # triangles that a point is compared with before it asks for more
# Triangles far smaller than the largest are searched as if they were this much smaller.
_CLASSES = 12


class Surface:
    """A triangle mesh that points find their nearest place on.

    `vertices` (V, 3), any unit; `faces` (F, 3) integers, at least one. Not watertight or degenerate meshes
    are as good as others: the surface is the union of the triangles.

    A point's nearest triangle is among those whose bounding sphere is near enough: the nearest centroids are
    looked up (k-d tree) until the next cannot hold a nearer point. Triangles are searched by size, so that a
    few large ones do not make all look near. The result is exact, not sampled.

    Raises ValueError for shapes and indices that are not as above, and vertices that are not finite.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        from scipy.spatial import cKDTree

        points = np.asarray(vertices, np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(f"vertices must be (V, 3), got {points.shape}; pass one body at a time")
        if not np.isfinite(points).all():
            raise ValueError("vertices must be finite; leave out bodies that are NaN")
        triangles = checked_indices("faces", faces, len(points), 3)
        if not len(triangles):
            raise ValueError("a surface needs at least one face")
        self._corners = points[triangles]
        centroids = self._corners.mean(axis=1)
        radius = np.linalg.norm(self._corners - centroids[:, None], axis=-1).max(axis=1)
        with np.errstate(divide="ignore"):
            size = np.log2(radius / max(radius.max(), np.finfo(float).tiny))
        order = np.clip(np.floor(size), -_CLASSES, 0).astype(int)
        # The class of most triangles first: the others then have little left to find.
        classes = sorted(np.unique(order).tolist(), key=lambda c: -int((order == c).sum()))
        members = [np.flatnonzero(order == c) for c in classes]
        self._searched = [(cKDTree(centroids[m]), m, radius[m]) for m in members]

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points (P, 3) -> distance (P,), nearest place (P, 3), its triangle (P,) int64; all exact.

        float64, in the unit of the mesh. Raises ValueError for another shape, or points that are not finite.
        """
        points = np.asarray(points, np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
            raise ValueError(f"points must be (P, 3) and finite, got {points.shape}")
        best = np.full(len(points), np.inf)
        place = np.full(points.shape, np.nan)
        face = np.full(len(points), -1, np.int64)

        def compare(rows: np.ndarray, triangles: np.ndarray) -> None:
            """Take what is nearer of pairs of a point and a triangle; a point may stand in several."""
            on = nearest_on_triangles(points[rows], self._corners[triangles])
            gap = np.linalg.norm(on - points[rows], axis=-1)
            order = np.lexsort((gap, rows))
            order = order[np.unique(rows[order], return_index=True)[1]]  # of each point the nearest
            order = order[gap[order] < best[rows[order]]]
            won = rows[order]
            best[won], place[won], face[won] = gap[order], on[order], triangles[order]

        for tree, members, radius in self._searched:
            count, left = min(_FIRST, len(members)), np.arange(len(points))
            while len(left):
                kept = [left[:0]]
                step = max(1, _PAIRS // count)
                for first in range(0, len(left), step):
                    rows = left[first : first + step]
                    away, near = tree.query(points[rows], k=np.arange(1, count + 1))
                    compare(rows, members[near[:, 0]])
                    # A triangle has no point nearer than its centroid less its radius.
                    line, column = np.nonzero(away[:, 1:] - radius[near[:, 1:]] < best[rows, None])
                    compare(rows[line], members[near[line, column + 1]])
                    kept.append(rows[away[:, -1] - radius.max() < best[rows]])
                if count == len(members):
                    break
                left, count = np.concatenate(kept), min(4 * count, len(members))
        return best, place, face

    def normals(self, face: np.ndarray) -> np.ndarray:
        """(P, 3) unit normals of triangles (P,); zero of those without area."""
        a, b, c = np.moveaxis(self._corners[face], 1, 0)
        normal = np.cross(b - a, c - a)
        length = np.linalg.norm(normal, axis=-1, keepdims=True)
        return normal / np.where(length > 0, length, 1)


def nearest_on_triangles(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The nearest place (…, 3) of triangles (…, 3, 3), corners along the last axis but one, to points (…, 3).

    The foot of the perpendicular where it lies inside, else the nearest of the three edges' nearest places.
    """
    a, b, c = (corners[..., k, :] for k in range(3))
    best = _nearest_on_edge(points, a, b)
    gap = _squared(points - best)
    for start, end in ((b, c), (c, a)):
        place = _nearest_on_edge(points, start, end)
        other = _squared(points - place)
        best = np.where((other < gap)[..., None], place, best)
        gap = np.minimum(gap, other)
    ab, ac, ap = b - a, c - a, points - a
    normal = np.cross(ab, ac)
    area = _squared(normal)
    safe = np.where(area > 0, area, 1)
    v = (np.cross(ap, ac) * normal).sum(axis=-1) / safe
    w = (np.cross(ab, ap) * normal).sum(axis=-1) / safe
    foot = a + v[..., None] * ab + w[..., None] * ac
    inside = (area > 0) & (v >= 0) & (w >= 0) & (v + w <= 1) & (_squared(points - foot) < gap)
    return np.where(inside[..., None], foot, best)


def _nearest_on_edge(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    edge = end - start
    length = _squared(edge)
    share = ((points - start) * edge).sum(axis=-1) / np.where(length > 0, length, 1)
    nearest: np.ndarray = start + np.clip(share, 0, 1)[..., None] * edge
    return nearest


def _squared(vectors: np.ndarray) -> np.ndarray:
    squares: np.ndarray = np.einsum("...i,...i->...", vectors, vectors)
    return squares
