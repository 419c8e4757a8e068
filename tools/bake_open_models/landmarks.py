"""Points of the face: 51 of iBUG's 68, and the contour of 17 for each of 79 turns of the head.

Found from MakeHuman's own rims, of eye sockets and mouth, and from its mask of the lips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tools.bake_open_models.source import Source
from tools.bake_open_models.vertices import Layout

_POINTS, _BINS, _CONTOUR = 51, 79, 17
# Points that are vertices of the rims, rather than points on triangles: eyes, corners of the mouth, inner
# lips.
_ON_RIMS = (*range(19, 31), 31, 37, *range(43, 51))
_FAR = 99.0


@dataclass(frozen=True, eq=False)
class FaceLandmarks:
    """Triangles `faces` (51,) with barycentric `weights` (51, 3); likewise of the contour, (79, 17) and
    (79, 17, 3): bins 0 to 39 for turns of 0 to -39 degrees about y, 40 to 78 for 1 to 39."""

    faces: np.ndarray
    weights: np.ndarray
    contour_faces: np.ndarray
    contour_weights: np.ndarray

    def arrays(self) -> Mapping[str, np.ndarray]:
        """As SMPL-X's file names them."""
        return {
            "lmk_faces_idx": self.faces,
            "lmk_bary_coords": self.weights,
            "dynamic_lmk_faces_idx": self.contour_faces,
            "dynamic_lmk_bary_coords": self.contour_weights,
        }


def face_landmarks(source: Source, layout: Layout, ear: int) -> FaceLandmarks:
    """The landmarks of a model with a face; `ear`: the source vertex of the left ear."""
    targets = face_points(source)
    places = layout.place(source.mean)
    of_source = layout.of_source()
    outer = np.isin(of_source, source.vertices_of("head"))  # not the walls of the cavities
    (outer_faces,) = np.nonzero(outer[layout.faces].all(1))
    triangles = layout.faces[outer_faces]
    on_rim = np.isin(np.arange(_POINTS), _ON_RIMS)
    faces, weights = _embedded(np.where(outer[:, None], places, _FAR), triangles, targets, on_rim)
    candidates = _contour_candidates(source, layout, places, outer, source.mean[ear, 2])
    middle = np.array([0, targets[13, 1] + 0.012, 0])
    contour_faces, contour_weights = _contour(places, triangles, candidates, middle)
    return FaceLandmarks(outer_faces[faces], weights, outer_faces[contour_faces], contour_weights)


def _contour_candidates(
    source: Source, layout: Layout, places: np.ndarray, outer: np.ndarray, ear_depth: float
) -> np.ndarray:
    """Outer vertices moved by head or jaw, before the ears, not under the chin."""
    neck = [source.bone(name) for name in ("neck01", "neck02", "neck03", "spine01")]
    by_neck = layout.place(source.weights.astype(np.float64)[:, neck].sum(1))
    up = vertex_normals(places, layout.faces)[:, 1]
    return np.flatnonzero(outer & (by_neck < 0.15) & (places[:, 2] > ear_depth + 0.032) & (up > -0.75))


def vertex_normals(places: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, weighed by area."""
    corners = places[faces]
    of_face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(places)
    for k in range(3):
        np.add.at(normals, faces[:, k], of_face)
    units: np.ndarray = normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12)
    return units


def face_points(source: Source) -> np.ndarray:
    """(51, 3) on the mean adult; where z is 0 it is to be found on the face in front of (x, y)."""
    points = np.zeros((_POINTS, 3))
    eye_height, eye_width, inner, outer = _eyes(source, points)
    # Brows: an arch over each eye, the subject's right one first.
    along = np.array([-0.28, 0.05, 0.4, 0.75, 1.02])
    above = np.array([0.52, 0.78, 0.85, 0.78, 0.62])
    for k in range(5):
        x, y = outer - along[k] * (outer - inner), eye_height + above[k] * eye_width
        points[k], points[9 - k] = [-x, y, 0], [x, y, 0]
    _nose(source, points, eye_height)
    _mouth(source, points)
    return points


def _eyes(source: Source, points: np.ndarray) -> tuple[float, float, float, float]:
    """Fill in 19 to 30. Height of the left eye, its width, and |x| of its corners."""
    for side, first in (("R", 19), ("L", 25)):
        rim = Rim(source.mean, source.rim(f"eye_cavity.{side}"))
        points[first : first + 6] = [
            rim.start,
            rim.at(0.33, upper=True),
            rim.at(0.67, upper=True),
            rim.end,
            rim.at(0.67, upper=False),
            rim.at(0.33, upper=False),
        ]
    width = float(np.linalg.norm(rim.end - rim.start))
    return (rim.start[1] + rim.end[1]) / 2, width, abs(rim.start[0]), abs(rim.end[0])


def _nose(source: Source, points: np.ndarray, eye_height: float) -> None:
    """Fill in 10 to 18: the ridge down to the tip, then the nostrils."""
    places = source.mean
    head = source.vertices_of("head")
    middle = head[np.abs(places[head, 0]) < 2e-3]
    below = middle[(places[middle, 1] < eye_height) & (places[middle, 1] > eye_height - 0.07)]
    tip = places[below[np.argmax(places[below, 2])]]
    for k, share in enumerate((0, 0.36, 0.7, 1.0)):
        points[10 + k] = [0, eye_height + (tip[1] - eye_height) * share, 0]
    points[13] = tip
    mouth_height = places[source.rim("mouth_cavity"), 1].mean()
    # Under the nose: where the middle line lies farthest back between the tip and the upper lip.
    y, z = places[middle, 1], places[middle, 2]
    under = middle[(y < tip[1] - 0.004) & (y > mouth_height + 0.006) & (z > tip[2] - 0.05)]
    base = places[under[np.argmin(places[under, 2])], 1]
    x, y, z = places[head].T
    wings = (np.abs(y - tip[1] + 0.004) < 0.008) & (z > tip[2] - 0.022) & (np.abs(x) < 0.021)
    half_width = np.abs(x[wings]).max()
    for k, (share, raised) in enumerate(((-0.82, 4), (-0.42, 1), (0, 0), (0.42, 1), (0.82, 4))):
        points[14 + k] = [share * half_width, base + raised / 1000, 0]


def _mouth(source: Source, points: np.ndarray) -> None:
    """Fill in 31 to 50: the edge of the lips, then the mouth's rim."""
    places = source.mean
    rim = Rim(places, source.rim("mouth_cavity"))
    inner = [(0.28, True), (0.5, True), (0.72, True), (0.72, False), (0.5, False), (0.28, False)]
    of_rim = [rim.at(share, upper=upper) for share, upper in inner]
    points[43:51] = [rim.start, *of_rim[:3], rim.end, *of_rim[3:]]

    lips = lip_vertices(source)
    x = places[lips, 0]
    start, end = places[lips[np.argmin(x)]], places[lips[np.argmax(x)]]

    def edge(share: float, *, upper: bool) -> np.ndarray:
        wanted = 0.0 if share == 0.5 else start[0] + share * (end[0] - start[0])
        near = lips[np.abs(x - wanted) < 0.006]
        height = places[near, 1] if upper else -places[near, 1]
        found: np.ndarray = places[near[np.argmax(height)]].copy()
        found[0] = wanted
        return found

    over = [edge(share, upper=True) for share in (0.2, 0.4, 0.5, 0.6, 0.8)]
    under = [edge(share, upper=False) for share in (0.8, 0.6, 0.5, 0.4, 0.2)]
    points[31:43] = [start, *over, end, *under]


def lip_vertices(source: Source) -> np.ndarray:
    """Vertices of the head that MakeHuman's mask says are lip."""
    height, width = source.lips.shape
    u, v = source.uv[source.uv_faces][..., 0], source.uv[source.uv_faces][..., 1]
    column = (u * (width - 1)).astype(int).clip(0, width - 1)
    row = ((1 - v) * (height - 1)).astype(int).clip(0, height - 1)
    is_lip = np.zeros(len(source.template))
    np.maximum.at(is_lip, source.faces, source.lips[row, column])
    head = source.vertices_of("head")
    lips: np.ndarray = head[is_lip[head] > 0.5]
    return lips


class Rim:
    """The edge of a cavity seen from the front: `start` and `end` (3,) are its corners, at least and most
    x."""

    def __init__(self, places: np.ndarray, vertices: np.ndarray) -> None:
        self._points = places[vertices]
        x = self._points[:, 0]
        self.start, self.end = self._points[np.argmin(x)], self._points[np.argmax(x)]

    def at(self, share: float, *, upper: bool) -> np.ndarray:
        """(3,): the vertex nearest to this share of the way from start to end, over or under their chord."""
        x = self._points[:, 0]
        reach = self.end[0] - self.start[0]
        along = (x - self.start[0]) / (reach + 1e-9)
        chord = self.start[1] * (1 - along) + self.end[1] * along
        among = self._points[(self._points[:, 1] > chord) == upper]
        nearest: np.ndarray = among[np.argmin(np.abs(among[:, 0] - (self.start[0] + share * reach)))]
        return nearest


def _embedded(
    places: np.ndarray, faces: np.ndarray, points: np.ndarray, on_vertex: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Triangle and barycentric weights of each point: the foremost triangle in front of (x, y), or the
    nearest vertex where `on_vertex`. Of triangles that share the point, the first."""
    flat = places[faces][:, :, :2]
    least, most = flat.min(1), flat.max(1)
    numbers, weights = [], []
    for point, snap in zip(points, on_vertex, strict=True):
        if snap:
            vertex = int(np.argmin(((places - point) ** 2).sum(1)))
            number = int(np.flatnonzero((faces == vertex).any(1))[0])
            numbers.append(number)
            weights.append((faces[number] == vertex).astype(float))
            continue
        best: tuple[float, int, np.ndarray] | None = None
        for candidate in np.flatnonzero(((least <= point[:2]) & (most >= point[:2])).all(1)):
            a, b, c = flat[candidate]
            edges = np.stack([b - a, c - a], 1)
            if abs(np.linalg.det(edges)) < 1e-12:
                continue
            u, v = np.linalg.solve(edges, point[:2] - a)
            weight = np.array([1 - u - v, u, v])
            depth = float(weight @ places[faces[candidate], 2])
            if weight.min() >= -1e-6 and (best is None or depth > best[0] + 1e-9):
                best = (depth, int(candidate), weight)
        if best is None:
            raise RuntimeError(f"no triangle of the face lies in front of {point[:2]}")
        numbers.append(best[1])
        weights.append(best[2])
    return np.array(numbers), np.array(weights)


def _contour(
    places: np.ndarray, faces: np.ndarray, candidates: np.ndarray, middle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(79, 17) triangles and weights: for each turn and each direction from `middle`, the outermost
    vertex."""
    corner: dict[int, tuple[int, int]] = {}
    for row, face in enumerate(faces):
        for k, vertex in enumerate(face):
            corner.setdefault(int(vertex), (row, k))
    numbers, weights = np.zeros((_BINS, _CONTOUR), int), np.zeros((_BINS, _CONTOUR, 3))
    offsets = places[candidates] - middle
    wanted = np.deg2rad(np.linspace(176, 364, _CONTOUR))
    for column in range(_BINS):
        turn = np.deg2rad(-column if column < 40 else column - 39)
        across = np.cos(turn) * offsets[:, 0] + np.sin(turn) * offsets[:, 2]
        direction = np.arctan2(offsets[:, 1], across) % (2 * np.pi)
        radius = np.hypot(across, offsets[:, 1])
        for k in range(_CONTOUR):
            aside = np.abs((direction - wanted[k] + np.pi) % (2 * np.pi) - np.pi)
            (near,) = np.nonzero(aside < np.deg2rad(6.5))
            if not len(near):
                near = np.argsort(aside)[:4]
            best = near[np.argmax(radius[near] * (1 - 0.3 * aside[near]))]
            numbers[column, k], which = corner[int(candidates[best])]
            weights[column, k, which] = 1
    return numbers, weights
