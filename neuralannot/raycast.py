"""Meshes seen by pinhole cameras, by ray casting on the CPU (embree): no OpenGL, no display, no global state.

Pixel convention: the centre of the pixel in column `i`, row `j` is the point `(i, j)`, as in opencv's
drawing. A vertex that projects to `(i, j)` lies in the middle of that pixel, and the image covers `-0.5
.. width - 0.5`.
Camera space is x right, y down, z forward, in metres; a camera is the pinhole `u = fx x / z + cx`, `v =
fy y / z + cy`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Hits", "Layer", "View", "bands", "checked_indices", "make_views", "render_layers", "to_numpy"]

# Samples in flight at once: few enough to stay in the processor's cache, whatever the size of the picture.
_BAND_SAMPLES = 1 << 16


@dataclass(frozen=True, eq=False)
class Layer:
    """One mesh as its camera sees it, over the mesh's own rectangle of the image.

    `box`: `(x0, y0, x1, y1)` pixels, `x1` and `y1` excluded; `(0, 0, 0, 0)` where nothing of the mesh is
    in view.
    `mask`: (h, w) bool, where the ray through the pixel's centre meets the mesh; `h = y1 - y0`, `w = x1 -
    x0`.
    `depth`: (h, w) float32 metres, the z of the nearest surface; inf outside the mask.
    `normals`: (h, w, 3) float32 unit vectors in camera space, interpolated between the vertices and
    turned to the side of the surface that the camera sees; zero outside the mask.
    """

    box: tuple[int, int, int, int]
    mask: np.ndarray
    depth: np.ndarray
    normals: np.ndarray


def render_layers(
    vertices: Sequence[ArrayLike],
    faces: Sequence[ArrayLike] | np.ndarray,
    focal: ArrayLike,
    princpt: ArrayLike,
    image_size: tuple[int, int],
) -> list[Layer]:
    """Mask, depth and normals of each of N meshes, seen by its own camera as if it were alone.

    Args:
        vertices, faces, focal, princpt: as for `render_overlay`.
        image_size: (width, height) of the image, pixels.

    Returns:
        N `Layer`s, from one ray through each pixel's centre. Depths are those of the mesh's own camera:
        `render_overlay` says how the depths of two cameras compare.

    Raises:
        TypeError, ValueError: as `render_overlay`.
    """
    width, height = (int(side) for side in image_size)
    if width < 0 or height < 0:
        raise ValueError(f"image_size must be (width, height) of at least 0, got {tuple(image_size)}")
    layers = []
    for view in make_views(vertices, faces, focal, princpt, (width, height)):
        x0, y0, x1, y1 = view.box
        depth = np.full((y1 - y0, x1 - x0), np.inf, dtype=np.float32)
        normals = np.zeros((y1 - y0, x1 - x0, 3), dtype=np.float32)
        for top, bottom in bands(y0, y1, x1 - x0):
            hits = view.cast((x0, x1), (top, bottom), 1)
            rows = hits.rows + top - y0
            depth[rows, hits.columns] = hits.depth
            normals[rows, hits.columns] = hits.normals
        layers.append(Layer(view.box, np.isfinite(depth), depth, normals))
    return layers


@dataclass(frozen=True, eq=False)
class Hits:
    """Where n rays of a block met a mesh.

    `rows`, `columns`: (n,) int, counted in samples from the block's corner. `depth`: (n,) metres.
    `normals`: (n, 3) unit vectors on the camera's side. `rays`: (n, 3) directions with z = 1.
    """

    rows: np.ndarray
    columns: np.ndarray
    depth: np.ndarray
    normals: np.ndarray
    rays: np.ndarray


class View:
    """One mesh, its camera, and its ray-tracing scene. Rays start at the camera and have z = 1.

    `box`: as in `Layer`. `in_view`: whether the box holds a pixel. `mean_focal`: pixels.
    `mean_depth`: metres.
    """

    def __init__(
        self,
        vertices: np.ndarray,
        faces: np.ndarray,
        focal: np.ndarray,
        princpt: np.ndarray,
        image_size: tuple[int, int],
    ) -> None:
        faces = faces[np.isfinite(vertices).all(axis=1)[faces].all(axis=1)]
        self._focal, self._princpt = focal, princpt
        self.mean_focal = float(np.sqrt(focal[0] * focal[1]))
        self.mean_depth = 0.0
        self.box = (0, 0, 0, 0)
        if len(faces) == 0:
            return
        used, numbers = np.unique(faces, return_inverse=True)
        self._faces = numbers.reshape(-1, 3)
        vertices = vertices[used]
        self.mean_depth = float(vertices[:, 2].mean(dtype=np.float64))
        self.box = self._find_box(vertices.astype(np.float64), image_size)
        if self.in_view:
            self._trace_setup(vertices)

    @property
    def in_view(self) -> bool:
        return self.box[0] < self.box[2] and self.box[1] < self.box[3]

    def _find_box(self, vertices: np.ndarray, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The pixels that the projected mesh can touch: all, where it reaches through the camera's plane."""
        size = np.array(image_size)
        depth = vertices[:, 2:]
        if (depth <= 0).all():
            return 0, 0, 0, 0
        if (depth <= 0).any():
            return 0, 0, image_size[0], image_size[1]
        points = vertices[:, :2] / depth * self._focal + self._princpt
        low = np.clip(np.floor(points.min(axis=0) + 0.5), 0, size)
        high = np.clip(np.floor(points.max(axis=0) + 1.5), 0, size)
        if (low >= high).any():
            return 0, 0, 0, 0
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])

    def _trace_setup(self, vertices: np.ndarray) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self._scene = EmbreeScene()
        self._geometry = TriangleMesh(
            self._scene, vertices, np.ascontiguousarray(self._faces, dtype=np.int32)
        )
        corners = vertices[self._faces].astype(np.float64)
        face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        numbers = self._faces.T.ravel()
        sums = [np.bincount(numbers, np.tile(face_normals[:, k], 3), len(vertices)) for k in range(3)]
        normals = _unit(np.stack(sums, axis=1).astype(np.float32))
        # All rays come from one point, so a face shows them one side only: turn its normals to that side.
        away = (face_normals * corners[:, 0]).sum(axis=1) > 0
        self._corner_normals = normals[self._faces]
        self._corner_normals[away] *= -1

    def cast(self, columns: tuple[int, int], rows: tuple[int, int], samples: int) -> Hits:
        """Cast `samples` x `samples` rays through each pixel of a block of half-open ranges."""
        x = (_sample_points(*columns, samples) - self._princpt[0]) / self._focal[0]
        y = (_sample_points(*rows, samples) - self._princpt[1]) / self._focal[1]
        block = np.ones((len(y), len(x), 3), dtype=np.float32)
        block[..., 0] = x
        block[..., 1] = y[:, None]
        rays = block.reshape(-1, 3)
        found = self._scene.run(np.zeros_like(rays), rays, output=True)
        hit = np.flatnonzero(found["primID"] >= 0)
        u, v = found["u"][hit, None], found["v"][hit, None]
        corners = self._corner_normals[found["primID"][hit]]
        normals = _unit(corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v)
        # With rays of z = 1 the distance along one, in units of its length, is the depth.
        return Hits(hit // len(x), hit % len(x), found["tfar"][hit], normals, rays[hit])


def make_views(
    vertices: Sequence[ArrayLike],
    faces: Sequence[ArrayLike] | np.ndarray,
    focal: ArrayLike,
    princpt: ArrayLike,
    image_size: tuple[int, int],
) -> list[View]:
    """A `View` of each mesh; the arguments of `render_layers`, checked."""
    count = len(vertices)
    if isinstance(faces, np.ndarray) or hasattr(faces, "detach"):
        faces = to_numpy(faces)
        if faces.ndim == 2:
            faces = np.broadcast_to(faces, (count, *faces.shape))
    if len(faces) != count:
        raise ValueError(
            f"faces must be {count} arrays (F, 3), one per mesh, or one array for all; got {len(faces)}"
        )
    focals, princpts = _checked_pairs("focal", focal, count), _checked_pairs("princpt", princpt, count)
    if not (focals > 0).all():
        raise ValueError(f"focal must be above 0 pixels, got {focals.min()}")
    views = []
    for i in range(count):
        points = to_numpy(vertices[i])
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(f"vertices[{i}] must be (V, 3), got {points.shape}")
        # Beyond float32 means as good as infinite.
        with np.errstate(over="ignore"):
            points = points.astype(np.float32)
        triangles = checked_indices(f"faces[{i}]", faces[i], len(points), 3)
        views.append(View(points, triangles, focals[i], princpts[i], image_size))
    return views


def bands(top: int, bottom: int, samples_per_row: int) -> Iterator[tuple[int, int]]:
    """Split rows into bands of a bounded number of samples."""
    step = max(1, _BAND_SAMPLES // max(1, samples_per_row))
    for start in range(top, bottom, step):
        yield start, min(start + step, bottom)


def to_numpy(array: Any) -> np.ndarray:
    """A numpy view or copy of an array, list or torch tensor."""
    # A tensor may need gradients or live on a GPU; duck typing spares the import of torch.
    return np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)


def checked_indices(name: str, values: ArrayLike, count: int, width: int) -> np.ndarray:
    """(n, width) int64 indices below `count`; an index out of range would crash embree."""
    indices = to_numpy(values)
    if indices.size == 0:
        return np.zeros((0, width), dtype=np.int64)
    if not np.issubdtype(indices.dtype, np.integer):
        raise TypeError(f"{name} must hold integers, got {indices.dtype}")
    if indices.ndim != 2 or indices.shape[1] != width:
        raise ValueError(f"{name} must be (n, {width}), got {indices.shape}")
    if indices.min() < 0 or indices.max() >= count:
        raise ValueError(
            f"{name} must hold indices from 0 to {count - 1}, got {indices.min()} to {indices.max()}"
        )
    return indices.astype(np.int64)


def _checked_pairs(name: str, values: ArrayLike, count: int) -> np.ndarray:
    pairs = to_numpy(values).astype(np.float64)
    if pairs.size == 0 and count == 0:
        return np.zeros((0, 2))
    if pairs.shape not in ((2,), (count, 2)):
        raise ValueError(f"{name} must be ({count}, 2), one pair per mesh, or (2,), got {pairs.shape}")
    if not np.isfinite(pairs).all():
        raise ValueError(f"{name} must be finite, got {pairs[~np.isfinite(pairs)][0]}")
    return np.broadcast_to(pairs, (count, 2))


def _sample_points(start: int, stop: int, samples: int) -> np.ndarray:
    """Coordinates of evenly spread samples of the pixels `start .. stop - 1`."""
    return start - 0.5 + (np.arange((stop - start) * samples) + 0.5) / samples


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.sqrt(np.einsum("ni,ni->n", vectors, vectors))[:, None]
    return vectors / np.where(lengths > 0, lengths, 1)
