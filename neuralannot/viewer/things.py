"""What a scene is made of, in numpy: metres, and RGB from 0 to 255."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuralannot.viewer.planes import Frustum, Placed

__all__ = ["Dots", "Floor", "Group", "Mesh", "Plane", "Strokes"]


@dataclass(frozen=True, eq=False)
class Mesh:
    """`vertices` (V, 3) metres, `faces` (F, 3), `colours`: (3,) or (V, 3) uint8 RGB."""

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray
    opacity: float


@dataclass(frozen=True, eq=False)
class Dots:
    """Balls: `points` (N, 3) metres, `colours` (N, 3) uint8 RGB, `sizes` (N,), radii in metres."""

    name: str
    points: np.ndarray
    colours: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True, eq=False)
class Strokes:
    """`ends` (N, 2, 3) metres, `colours` (N, 2, 3) uint8 RGB, `size` metres."""

    name: str
    ends: np.ndarray
    colours: np.ndarray
    size: float


@dataclass(frozen=True, eq=False)
class Plane:
    """A camera's frustum, the `pixels` on its plane (None: only its outline), and its `text`."""

    name: str
    frustum: Frustum
    pixels: np.ndarray | None
    text: str
    colour: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Group:
    """Things of one file, moved together by `placed`."""

    name: str
    placed: Placed
    meshes: tuple[Mesh, ...] = ()
    dots: tuple[Dots, ...] = ()
    strokes: tuple[Strokes, ...] = ()
    planes: tuple[Plane, ...] = ()
    texts: tuple[tuple[str, np.ndarray], ...] = ()


@dataclass(frozen=True, eq=False)
class Floor:
    """The plane where the coordinate `axis` is `height`, metres, drawn about `centre` (3,)."""

    axis: int
    height: float
    centre: np.ndarray
