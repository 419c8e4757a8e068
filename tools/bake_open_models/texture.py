"""UV coordinates: MakeHuman's own layout, so that its skins fit the open body.

A vertex on a seam has several places in the layout. Decimation has made triangles that reach across seams,
which the source's own never do: such a triangle is laid on the side where its middle lies, and its corners
from the other side are drawn in to the seam.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy.spatial import cKDTree

from tools.bake_open_models.source import Source
from tools.bake_open_models.surface import closest_on_triangles
from tools.bake_open_models.vertices import Layout

# A triangle that is so many times larger in the layout than one of its size can be lies across a seam.
_STRETCH = 1.7
_NEAR = 48  # source triangles among which the nearest point is looked for


@dataclass(frozen=True, eq=False)
class Texture:
    """`uv` (T, 2) in 0..1, v up, and `faces` (F, 3) into it, one for each of the mesh's triangles."""

    uv: np.ndarray
    faces: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        return {"vt": self.uv, "ft": self.faces.astype(np.uint32)}


@dataclass(frozen=True, eq=False)
class _Skin:
    """The source's surface with its layout; `chart` (F,) of each triangle."""

    source: Source

    @cached_property
    def middles(self) -> cKDTree:
        return cKDTree(self.source.mean[self.source.faces].mean(1))

    @cached_property
    def chart(self) -> np.ndarray:
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        faces, count = self.source.uv_faces, len(self.source.uv)
        edges = np.concatenate([faces[:, :2], faces[:, 1:]])
        graph = coo_matrix((np.ones(len(edges)), edges.T), (count, count))
        chart: np.ndarray = connected_components(graph, directed=False)[1][faces[:, 0]]
        return chart

    @cached_property
    def uv_middles(self) -> np.ndarray:
        middles: np.ndarray = self.source.uv[self.source.uv_faces].mean(1)
        return middles

    @cached_property
    def scale(self) -> np.ndarray:
        """(N,): the most that an edge of a vertex's triangles is in the layout, of its length in metres."""
        source, most = self.source, np.zeros(len(self.source.template))
        for k in range(3):
            pair = source.faces[:, [k, (k + 1) % 3]]
            ends = source.uv[source.uv_faces[:, [k, (k + 1) % 3]]]
            length = np.linalg.norm(source.mean[pair[:, 0]] - source.mean[pair[:, 1]], axis=1)
            ratio = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1) / length
            for end in range(2):
                np.maximum.at(most, pair[:, end], ratio)
        return most

    @cached_property
    def of_vertex(self) -> list[np.ndarray]:
        """Source vertex -> the places in the layout that it has."""
        pairs = np.unique(np.stack([self.source.faces.ravel(), self.source.uv_faces.ravel()], 1), axis=0)
        starts = np.searchsorted(pairs[:, 0], np.arange(len(self.source.template) + 1))
        return [pairs[a:b, 1] for a, b in pairwise(starts)]

    def nearest(self, place: np.ndarray, among: np.ndarray) -> tuple[int, np.ndarray]:
        """Which of these triangles lies nearest to a point, and where on it, barycentric (3,)."""
        corners = self.source.mean[self.source.faces[among]]
        weights = closest_on_triangles(place, corners)
        apart = (weights[:, :, None] * corners).sum(1) - place
        best = int(np.argmin(np.round((apart**2).sum(1), 12)))
        return int(among[best]), weights[best]

    def uv_at(self, face: int, weights: np.ndarray) -> np.ndarray:
        uv: np.ndarray = weights @ self.source.uv[self.source.uv_faces[face]]
        return uv


def lay_out(source: Source, layout: Layout) -> Texture:
    """The texture of a model's mesh."""
    skin = _Skin(source)
    places = layout.place(source.mean)
    places_of: list[np.ndarray] = []
    scale = np.zeros(len(layout))
    for row, vertex in enumerate(layout.origin):
        if not layout.moved[row]:
            places_of.append(source.uv[skin.of_vertex[vertex]])
            scale[row] = skin.scale[vertex]
        else:
            face, weights = skin.nearest(places[row], _around(skin, places[row]))
            places_of.append(skin.uv_at(face, weights)[None])
            scale[row] = skin.scale[source.faces[face]].max()
    corners = np.empty((len(layout.faces), 3, 2))
    for number, face in enumerate(layout.faces):
        chosen = _most_compact([places_of[v] for v in face])
        longest = max(np.linalg.norm(places[face[k]] - places[face[k - 1]]) for k in range(3))
        reach = _STRETCH * scale[face].max() * longest
        if _spread(chosen) > reach:
            chosen = _on_one_side(skin, places[face], [places_of[v] for v in face], reach)
        corners[number] = chosen
    flat = corners.reshape(-1, 2)
    uv, inverse = np.unique(np.round(flat, 7), axis=0, return_inverse=True)
    return Texture(uv, inverse.reshape(-1, 3))


def _around(skin: _Skin, place: np.ndarray) -> np.ndarray:
    return np.sort(skin.middles.query(place, _NEAR)[1])


def _spread(corners: np.ndarray) -> float:
    return float(max(np.linalg.norm(corners[k] - corners[k - 1]) for k in range(3)))


def _most_compact(options: list[np.ndarray]) -> np.ndarray:
    """(3, 2): of the places that each corner has, those that lie nearest together."""
    best, least = None, np.inf
    for a in options[0]:
        for b in options[1]:
            for c in options[2]:
                corners = np.stack([a, b, c])
                spread = _spread(corners)
                if spread < least:
                    best, least = corners, spread
    assert best is not None
    return best


def _on_one_side(skin: _Skin, corners: np.ndarray, options: list[np.ndarray], reach: float) -> np.ndarray:
    """(3, 2) of a triangle across a seam, laid on the side of its middle, all within `reach` of that."""
    middle = corners.mean(0)
    near = np.sort(skin.middles.query(middle, 4 * _NEAR)[1])
    home, weights = skin.nearest(middle, near)
    centre = skin.uv_at(home, weights)
    apart = np.linalg.norm(skin.uv_middles[near] - centre, axis=1)
    side = near[(skin.chart[near] == skin.chart[home]) & (apart < reach)]
    chosen = []
    for corner, places in zip(corners, options, strict=True):
        distance = np.linalg.norm(places - centre, axis=1)
        if distance.min() < reach:
            chosen.append(places[distance.argmin()])
        else:
            face, weights = skin.nearest(corner, side)
            chosen.append(skin.uv_at(face, weights))
    return np.stack(chosen)


def signed_areas(uv: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F,) of each triangle in the layout, of its side squared; below 0 where it lies face down."""
    a, b, c = (uv[faces[:, k]].astype(np.float64) for k in range(3))
    (ux, uy), (vx, vy) = (b - a).T, (c - a).T
    areas: np.ndarray = (ux * vy - uy * vx) / 2
    return areas


def overlap(uv: np.ndarray, faces: np.ndarray, size: int = 1024) -> float:
    """The share of the covered pixels' middles, of size x size, that lie inside more than one triangle."""
    covered = np.zeros((size, size), np.uint16)
    corners = uv[faces].astype(np.float64) * size - 0.5
    for triangle in corners:
        low = np.ceil(triangle.min(0)).astype(int).clip(0, size - 1)
        high = np.floor(triangle.max(0)).astype(int).clip(0, size - 1)
        if (high < low).any():
            continue
        x, y = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
        sides = []
        for k in range(3):
            p, q = triangle[k], triangle[(k + 1) % 3]
            sides.append((q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]))
        inside = np.all(np.array(sides) > 1e-6, 0) | np.all(np.array(sides) < -1e-6, 0)
        covered[y[inside], x[inside]] += 1
    return float((covered > 1).sum() / max(1, (covered > 0).sum()))
