"""Decimation by half-edge collapses, both sides of the body at once.

A collapse u -> v keeps v where it is. So the vertices that are left are vertices of the source, with all that
hangs on them: blend shapes, skinning weights, texture.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

_NO_LIMIT = 10**9


@dataclass(frozen=True)
class Limits:
    """What a triangle may become: cosine of the angle to its old normal, and twice its area by its longest
    edge squared, at least."""

    turn: float = 0.3
    thin: float = 0.06


def mirror_map(vertices: np.ndarray, tolerance: float = 2e-3) -> np.ndarray:
    """(V,) number of each vertex's mirror image under x -> -x, -1 where there is none of its own."""
    from scipy.spatial import cKDTree

    distance, nearest = cKDTree(vertices).query(vertices * [-1, 1, 1])
    found = (distance < tolerance) & (nearest[nearest] == np.arange(len(vertices)))
    return np.where(found, nearest, -1)


class Decimator:
    """A mesh that loses vertices until each region and each loop has as many as it should.

    `region` (V,): collapses stay inside one region, though v may lie on a loop at its edge. `border` (V,):
    loop or -1; vertices of a loop only collapse along it. `mirror` (V,): partners collapse together. `locked`
    stay. The cost is Garland and Heckbert's quadric error plus `spread` times the fourth power of the edge's
    length, times `density` (V,).
    """

    def __init__(
        self,
        vertices: np.ndarray,
        faces: np.ndarray,
        *,
        region: np.ndarray,
        border: np.ndarray,
        mirror: np.ndarray,
        locked: Iterable[int],
        spread: float,
        density: np.ndarray,
    ) -> None:
        self._vertices, self._mirror, self._spread = vertices, mirror, spread
        self.locked = set(map(int, locked))
        self.density = density
        self._faces = [tuple(map(int, face)) for face in faces]
        self._alive = [True] * len(faces)
        self._of_vertex: dict[int, set[int]] = {}
        for number, face in enumerate(self._faces):
            for vertex in face:
                self._of_vertex.setdefault(vertex, set()).add(number)
        self._quadrics = _quadrics(vertices, faces, border)
        self.regions(region, border)

    def regions(self, region: np.ndarray, border: np.ndarray) -> None:
        """Divide what is left anew."""
        self.region, self.border = region, border
        self.counts = Counter(int(region[v]) for v in self._of_vertex)
        self.loop_counts = Counter(int(border[v]) for v in self._of_vertex if border[v] >= 0)

    @property
    def vertices(self) -> list[int]:
        """Those that are left."""
        return list(self._of_vertex)

    def __contains__(self, vertex: int) -> bool:
        return vertex in self._of_vertex

    def faces(self) -> np.ndarray:
        """(F, 3): triangles that are left."""
        return np.array([face for face, alive in zip(self._faces, self._alive, strict=True) if alive])

    def run(
        self,
        regions: Mapping[int, int],
        *,
        loops: Mapping[int, int] | None = None,
        limits: Limits = Limits(),
        among: Iterable[int] | None = None,
    ) -> None:
        """Collapse the cheapest edges until these regions and loops have these numbers of vertices.

        Only vertices `among` these go, if given. Where limits forbid it, more are left.
        """
        loops = loops or {}
        pool = None if among is None else set(map(int, among))
        heap: list[tuple[float, int, int, int]] = []
        stamps: dict[int, int] = {}

        def wanted(u: int) -> bool:
            if self.border[u] >= 0:
                return self.loop_counts[self.border[u]] > loops.get(self.border[u], _NO_LIMIT)
            return self.counts[self.region[u]] > regions.get(self.region[u], _NO_LIMIT)

        def push(u: int) -> None:
            if (pool is not None and u not in pool) or u not in self:
                return
            stamps[u] = stamps.get(u, 0) + 1
            for v in self._neighbours(u):
                if self._allowed(u, v):
                    heapq.heappush(heap, (self._cost(u, v), stamps[u], u, v))

        for u in self.vertices:
            push(u)
        while heap:
            _, stamp, u, v = heapq.heappop(heap)
            if u not in self or v not in self or stamps.get(u) != stamp or not wanted(u):
                continue
            for w in self._collapse_both(u, v, regions, limits):
                push(w)

    def _collapse_both(self, u: int, v: int, regions: Mapping[int, int], limits: Limits) -> set[int]:
        """Collapse u -> v and its mirror image; the vertices whose edges changed, none where it cannot be."""
        mirrored, onto = int(self._mirror[u]), int(self._mirror[v])
        is_pair = mirrored >= 0 and mirrored != u
        if is_pair:
            if onto < 0 or mirrored not in self or onto not in self:
                return set()
            region = self.region[u]
            one_short = self.counts[region] - regions.get(region, 0) < 2
            if self.border[u] < 0 and self.region[mirrored] == region and one_short:
                return set()
            near = self._neighbours(u) | {u}
            if mirrored in near or len((self._neighbours(mirrored) | {mirrored}) & near) > 2:
                return set()
            if not self._valid(mirrored, onto, limits):
                return set()
        if not self._valid(u, v, limits):
            return set()
        self._collapse(u, v)
        touched = self._neighbours(v) | {v}
        if is_pair:
            if not self._valid(mirrored, onto, limits):
                raise RuntimeError(
                    f"collapsing {u} into {v} left its mirror image {mirrored} without a place"
                )
            self._collapse(mirrored, onto)
            touched |= self._neighbours(onto) | {onto}
        return touched

    def _neighbours(self, v: int) -> set[int]:
        around: set[int] = set()
        for number in self._of_vertex[v]:
            around.update(self._faces[number])
        around.discard(v)
        return around

    def _cost(self, u: int, v: int) -> float:
        point = np.append(self._vertices[v], 1.0)
        edge = self._vertices[u] - self._vertices[v]
        squared = edge @ edge
        error = point @ self._quadrics[u] @ point
        return float(error + self._spread * squared * squared * self.density[u])

    def _allowed(self, u: int, v: int) -> bool:
        if u in self.locked:
            return False
        if self.border[u] >= 0:
            return bool(self.border[v] == self.border[u])
        if self.region[u] != self.region[v] and self.border[v] < 0:
            return False
        mirrored = self._mirror[u]
        if mirrored == u and self._mirror[v] != v:  # the middle line stays on the middle
            return False
        return bool(mirrored != v)

    def _valid(self, u: int, v: int, limits: Limits) -> bool:
        """Whether the mesh stays a manifold, with no triangle turned over or squeezed flat."""
        of_u, of_v = self._neighbours(u), self._neighbours(v)
        if v not in of_u:
            return False
        opposite: set[int] = set()
        for number in self._of_vertex[u]:
            if v in self._faces[number]:
                opposite.update(self._faces[number])
        opposite -= {u, v}
        if (of_u & of_v) != opposite or any(len(self._of_vertex[w]) <= 3 for w in opposite):
            return False
        for number in self._of_vertex[u]:
            face = self._faces[number]
            if v in face:
                continue
            old = self._vertices[list(face)]
            new = self._vertices[[v if w == u else w for w in face]]
            before = np.cross(old[1] - old[0], old[2] - old[0])
            after = np.cross(new[1] - new[0], new[2] - new[0])
            size = np.linalg.norm(after)
            longest = max(((new[i] - new[i - 1]) ** 2).sum() for i in range(3))
            if size < 1e-14 or size < limits.thin * longest:
                return False
            if before @ after < limits.turn * np.linalg.norm(before) * size:
                return False
        return True

    def _collapse(self, u: int, v: int) -> None:
        for number in list(self._of_vertex[u]):
            face = self._faces[number]
            if v in face:
                self._alive[number] = False
                for w in face:
                    self._of_vertex[w].discard(number)
            else:
                self._faces[number] = tuple(v if w == u else w for w in face)
                self._of_vertex[v].add(number)
        del self._of_vertex[u]
        self._quadrics[v] += self._quadrics[u]
        self.counts[int(self.region[u])] -= 1
        if self.border[u] >= 0:
            self.loop_counts[int(self.border[u])] -= 1


def _quadrics(vertices: np.ndarray, faces: np.ndarray, border: np.ndarray) -> np.ndarray:
    """(V, 4, 4): squared distance to the planes of a vertex's faces, and to walls that stand on borders."""
    quadrics = np.zeros((len(vertices), 4, 4))
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1, keepdims=True)
    normal = normal / (area + 1e-15)
    plane = np.concatenate([normal, -(normal * corners[:, 0]).sum(1, keepdims=True)], 1)
    product = plane[:, :, None] * plane[:, None] * area[:, :, None]
    for k in range(3):
        np.add.at(quadrics, faces[:, k], product)
    edges: dict[tuple[int, int], list[np.ndarray]] = {}
    for face in faces:
        for k in range(3):
            a, b = int(face[k]), int(face[(k + 1) % 3])
            edges.setdefault((min(a, b), max(a, b)), []).append(face)
    for (a, b), of_edge in edges.items():
        if len(of_edge) > 1 and (border[a] < 0 or border[a] != border[b]):
            continue
        for face in of_edge:
            p, q, r = vertices[face]
            along = vertices[b] - vertices[a]
            wall = np.cross(along, np.cross(q - p, r - p))
            wall /= np.linalg.norm(wall) + 1e-15
            plane_of_wall = np.append(wall, -wall @ vertices[a])
            product = np.outer(plane_of_wall, plane_of_wall) * (along @ along) * 3
            quadrics[a] += product
            quadrics[b] += product
    return quadrics
