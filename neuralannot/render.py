"""Overlays: meshes and joints drawn over their image (`raycast` says where pixels are)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from neuralannot.raycast import Layer, bands, checked_indices, make_views, render_layers, to_numpy

if TYPE_CHECKING:
    from neuralannot.bodies import Bodies

__all__ = ["PALETTE", "Layer", "draw_joints", "render_bodies", "render_layers", "render_overlay"]

# Calm, light colours (RGB). Each stands off from the next: people listed together often stand together.
PALETTE = np.array(
    [
        (142, 182, 226),
        (238, 160, 132),
        (152, 204, 152),
        (190, 166, 222),
        (238, 208, 128),
        (120, 196, 196),
        (230, 162, 190),
        (184, 212, 112),
    ],
    dtype=np.uint8,
)

_AMBIENT, _HEADLIGHT, _SKYLIGHT = 0.22, 0.66, 0.26
_SKY_DIRECTION = np.array([-0.30, -0.86, -0.413], dtype=np.float32)
# opencv draws with fixed-point coordinates: 4 fractional bits, and far beyond this an int32 overflows.
_FRACTION_BITS = 4
_FARTHEST_PX = 1e6


def render_bodies(
    image: np.ndarray,
    bodies: Bodies,
    *,
    colors: ArrayLike | None = None,
    opacity: float = 0.85,
    samples: int = 2,
) -> np.ndarray:
    """Draw the people of one image over it, each through its own camera: `render_overlay` for `Bodies`.

    Args:
        image: (H, W, 3) uint8 RGB, the image that the annotations belong to.
        bodies: B bodies with vertices and cameras, as from `PseudoGT.forward`. Those in world space pass
            through their cameras' extrinsics.
        colors, opacity, samples: as for `render_overlay`.

    Returns:
        (H, W, 3) uint8 RGB, a new image. Without bodies equal to `image`.

    Raises:
        TypeError: `image` is not uint8.
        ValueError: the bodies lack vertices or cameras, the cameras belong to images of another size, or as
            `render_overlay`.
    """
    if bodies.vertices is None:
        raise ValueError("there are no vertices to draw: forward with want='mesh'")
    if bodies.camera is None:
        raise ValueError(f"there is no camera to draw through: {bodies.camera_problem}")
    height, width = _checked_image(image).shape[:2]
    bodies.camera.check_image(width, height)
    vertices = bodies.vertices
    if bodies.space == "world":
        vertices = bodies.camera.world_to_camera(vertices)
    return render_overlay(
        image,
        list(vertices),
        [bodies.faces_of(row) for row in range(len(bodies))],
        bodies.camera.focal,
        bodies.camera.princpt,
        colors=colors,
        opacity=opacity,
        samples=samples,
    )


def render_overlay(
    image: np.ndarray,
    vertices: Sequence[ArrayLike],
    faces: Sequence[ArrayLike] | np.ndarray,
    focal: ArrayLike,
    princpt: ArrayLike,
    *,
    colors: ArrayLike | None = None,
    opacity: float = 0.85,
    samples: int = 2,
) -> np.ndarray:
    """Draw N meshes over an image, each through its own camera, nearer ones in front; returns a new image.

    In-the-wild annotations come with one virtual camera per person, so the depths of two people are not
    comparable as they are: under focal length `f` a body at depth `z` looks as large as one at `z F / f`
    under `F`. To order them, every mesh is shifted to a common focal length `F` (the mean over the meshes
    in view): its depths become `(z - z_ref) + z_ref F / f`, with `z_ref` the mean depth of its vertices
    and `f = sqrt(fx fy)`. The mesh moves as a whole because a body does not get thicker with the focal
    length. With equal focal lengths nothing changes.

    Args:
        image: (H, W, 3) uint8 RGB.
        vertices: N arrays (V_i, 3), camera space, metres: numpy arrays or torch tensors, or one (N, V, 3)
            of either. Faces with a NaN or infinite vertex are left out; what is behind the camera is not
            seen.
        faces: N integer arrays (F_i, 3) of vertex indices, or one (F, 3) array for all meshes. Both sides
            of a face are drawn.
        focal: (N, 2) pixels, or (2,) for all meshes.
        princpt: (N, 2) pixels, or (2,) for all meshes.
        colors: (N, 3) RGB from 0 to 255, or (3,) for all meshes; None takes a palette in turn.
        opacity: 0 (only the image) to 1 (the image does not shine through). Meshes never shine through
            one another.
        samples: rays per pixel along x and along y, 1 to 8; 1 draws hard edges, 2 smooth ones.

    Returns:
        (H, W, 3) uint8 RGB. Without meshes, or where all are out of view, equal to `image`.

    Raises:
        TypeError: `image` is not uint8, or faces are not integers.
        ValueError: a shape, length, index, focal length, colour, opacity or sample count is not as above.
    """
    image = _checked_image(image)
    height, width = image.shape[:2]
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be from 0 to 1, got {opacity}")
    if not (isinstance(samples, int | np.integer) and 1 <= samples <= 8):
        raise ValueError(f"samples must be a whole number from 1 to 8, got {samples!r}")
    views = make_views(vertices, faces, focal, princpt, (width, height))
    paints = _checked_colors(colors, len(views))
    seen = [(view, paint) for view, paint in zip(views, paints, strict=True) if view.in_view]
    result = image.copy()
    if not seen:
        return result

    common_focal = float(np.mean([view.mean_focal for view, _ in seen]))
    boxes = np.array([view.box for view, _ in seen])
    left, right = int(boxes[:, 0].min()), int(boxes[:, 2].max())
    for top, bottom in bands(int(boxes[:, 1].min()), int(boxes[:, 3].max()), (right - left) * samples**2):
        shape = ((bottom - top) * samples, (right - left) * samples)
        nearest = np.full(shape, np.inf, dtype=np.float32)
        painted = np.zeros((*shape, 3), dtype=np.float32)
        for view, paint in seen:
            x0, y0, x1, y1 = view.box
            y0, y1 = max(y0, top), min(y1, bottom)
            if y0 >= y1:
                continue
            hits = view.cast((x0, x1), (y0, y1), samples)
            rows = hits.rows + (y0 - top) * samples
            columns = hits.columns + (x0 - left) * samples
            depth = hits.depth + np.float32(view.mean_depth * (common_focal / view.mean_focal - 1))
            light = _light(hits.normals, hits.rays)
            front = np.flatnonzero(depth < nearest[rows, columns])
            rows, columns = rows[front], columns[front]
            nearest[rows, columns] = depth[front]
            painted[rows, columns] = np.minimum(light[front, None] * paint, 255)
        cover = _pixel_means(np.isfinite(nearest)[..., None], samples)
        drawn = _pixel_means(painted, samples)
        under = image[top:bottom, left:right]
        result[top:bottom, left:right] = np.rint(under * (1 - opacity * cover) + opacity * drawn)
    return result


def draw_joints(
    image: np.ndarray,
    joints_2d: ArrayLike,
    *,
    edges: ArrayLike | None = None,
    valid: ArrayLike | None = None,
    color: tuple[int, int, int] = (255, 214, 64),
    radius: int | None = None,
) -> np.ndarray:
    """Draw 2D joints, and the bones between them, over an image; returns a new image.

    Args:
        image: (H, W, 3) uint8 RGB.
        joints_2d: (K, 2) pixels. A joint that is NaN, or over a million pixels away, is left out with its
            bones.
        edges: (E, 2) integer pairs of joints to join by lines; None draws none.
        valid: (K,) bool, the joints to draw; None draws all.
        color: RGB from 0 to 255.
        radius: of a joint's dot, pixels; None suits the size of the image. Lines are half as wide.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        TypeError: `image` is not uint8, or `edges` are not integers.
        ValueError: a shape, index, colour or radius is not as above.
    """
    import cv2

    image = _checked_image(image)
    points = to_numpy(joints_2d).astype(np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"joints_2d must be (K, 2), got {points.shape}")
    # False for NaN too.
    shown = np.asarray((np.abs(points) <= _FARTHEST_PX).all(axis=1))
    if valid is not None:
        flags = to_numpy(valid)
        if flags.shape != (len(points),):
            raise ValueError(f"valid must be ({len(points)},), one flag per joint, got {flags.shape}")
        shown = shown & flags.astype(bool)
    pairs = (
        np.zeros((0, 2), dtype=np.int64) if edges is None else checked_indices("edges", edges, len(points), 2)
    )
    paint = tuple(int(channel) for channel in _checked_colors(color, 1)[0])
    if radius is None:
        radius = max(2, round(min(image.shape[:2]) / 160))
    elif radius < 1:
        raise ValueError(f"radius must be at least 1 pixel, got {radius}")

    result = image.copy()
    if result.size == 0:
        return result
    fixed = np.zeros(points.shape, dtype=np.int64)
    fixed[shown] = np.rint(points[shown] * (1 << _FRACTION_BITS))
    for start, end in pairs.tolist():
        if shown[start] and shown[end]:
            ends = tuple(fixed[start].tolist()), tuple(fixed[end].tolist())
            cv2.line(result, *ends, paint, (radius + 1) // 2, cv2.LINE_AA, _FRACTION_BITS)
    for centre in fixed[shown].tolist():
        # A dark rim keeps a dot readable on a background of its own colour.
        for size, tone in ((radius + 1, (30, 30, 30)), (radius, paint)):
            cv2.circle(result, tuple(centre), size << _FRACTION_BITS, tone, -1, cv2.LINE_AA, _FRACTION_BITS)
    return result


def _light(normals: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Brightness (n,) of surface points: some everywhere, most from the camera, a little from above."""
    cosine = -np.einsum("ni,ni->n", normals, rays) / np.sqrt(np.einsum("ni,ni->n", rays, rays))
    toward_camera = np.maximum(cosine, 0)
    toward_sky = np.maximum(normals @ _SKY_DIRECTION, 0)
    light: np.ndarray = _AMBIENT + _HEADLIGHT * toward_camera + _SKYLIGHT * toward_sky
    return light


def _pixel_means(values: np.ndarray, samples: int) -> np.ndarray:
    """Means over the samples of each pixel: (h * samples, w * samples, C) -> (h, w, C) float32."""
    total = np.zeros(
        (values.shape[0] // samples, values.shape[1] // samples, values.shape[2]), dtype=np.float32
    )
    for i in range(samples):
        for j in range(samples):
            total += values[i::samples, j::samples]
    return total / np.float32(samples**2)


def _checked_image(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise TypeError(
            f"image must be uint8 from 0 to 255, got {image.dtype}; convert it with astype(np.uint8)"
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image must be (H, W, 3) RGB, got {image.shape}")
    return image


def _checked_colors(colors: ArrayLike | None, count: int) -> np.ndarray:
    if colors is None:
        return PALETTE[np.arange(count) % len(PALETTE)].astype(np.float32)
    paints = np.asarray(colors, dtype=np.float64)
    if paints.size == 0 and count == 0:
        return np.zeros((0, 3))
    if paints.shape not in ((3,), (count, 3)):
        raise ValueError(f"colors must be ({count}, 3), one RGB per mesh, or (3,), got {paints.shape}")
    if not ((paints >= 0) & (paints <= 255)).all():
        raise ValueError(f"colors must be from 0 to 255, got {paints.min()} to {paints.max()}")
    return np.broadcast_to(paints.astype(np.float32), (count, 3))
