"""Boxes: the release's arithmetic from an annotated box to a square crop and its virtual camera.

A box is ``xywh``: its left and top edge, width and height, in pixels (x right, y down). Edges lie on the same
axes as the joints, where the release counts pixel centres as whole numbers; the last column of an image of
width W is ``W - 1``. Functions take numpy arrays of any batch shape, N = 0 included, compute in float64 and
return float32. A box that does not exist is NaN and marked False in the mask, never zero.

The formulas are those of the release's demos and of the loaders that its README names (``process_bbox``,
``gen_trans_from_patch_cv``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "apply_affine",
    "boxes_from_joints",
    "crop_affine",
    "expand_boxes",
    "invert_affine",
    "process_boxes",
    "sanitize_boxes",
    "virtual_camera",
]


def sanitize_boxes(xywh: ArrayLike, image_size: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Clip boxes to their images.

    ``xywh`` (…, 4) px; ``image_size`` (…, 2) width and height px, or (2,) for all. Per axis,
    ``x1 = max(0, x)``, ``x2 = min(W - 1, x1 + max(0, w - 1))``, width ``x2 - x1``. Note that a box loses one
    pixel of its size each time, and that one that starts left of the image is moved, not cut: the released
    boxes were made so.

    Returns boxes (…, 4) float32 and their validity (…,) bool: False, and the box NaN, where ``w * h <= 0``,
    where nothing is left inside the image, and where a number is not finite. Raises ValueError for wrong
    shapes.
    """
    box = _boxes(xywh)
    size = np.asarray(image_size, dtype=np.float64)
    if size.ndim == 0 or size.shape[-1] != 2 or not _fits(size.shape[:-1], box.shape[:-1]):
        raise ValueError(
            f"image_size must be (2,) or {(*box.shape[:-1], 2)} as width and height, got {size.shape}"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        corner, extent = box[..., :2], box[..., 2:]
        low = np.maximum(0, corner)
        high = np.minimum(size - 1, low + np.maximum(0, extent - 1))
        clipped = np.concatenate([low, high - low], axis=-1)
        # An extent above one pixel on both axes implies the formula's w * h > 0.
        valid = np.asarray((high > low).all(-1))
    valid &= np.isfinite(box).all(-1) & np.isfinite(size).all(-1)
    return _masked(clipped, valid), valid


def expand_boxes(xywh: ArrayLike, *, aspect: float = 1.0, scale: float = 1.25) -> np.ndarray:
    """Widen boxes to an aspect ratio, then scale them about their centre.

    ``xywh`` (…, 4) px; ``aspect`` is width / height: the side that is too short grows until it holds. The
    release uses 1.0 for 256 x 256 inputs; Pose2Pose uses 192 / 256 for bodies and faces. Returns (…, 4)
    float32; the boxes may reach beyond the image, and NaN boxes stay NaN. Raises ValueError for a wrong shape
    or an aspect or scale that is not positive.
    """
    box = _boxes(xywh)
    for name, value in (("aspect", aspect), ("scale", scale)):
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number, got {value}")
    width, height = box[..., 2], box[..., 3]
    centre = box[..., :2] + box[..., 2:] / 2
    extent = (
        np.stack([np.maximum(width, height * aspect), np.maximum(height, width / aspect)], axis=-1) * scale
    )
    return np.concatenate([centre - extent / 2, extent], axis=-1).astype(np.float32)


def process_boxes(
    xywh: ArrayLike, image_size: ArrayLike, *, aspect: float = 1.0, scale: float = 1.25
) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes that the release crops: ``sanitize_boxes``, then ``expand_boxes``.

    Boxes (…, 4) float32, NaN where not valid, and their validity (…,) bool.
    """
    boxes, valid = sanitize_boxes(xywh, image_size)
    return expand_boxes(boxes, aspect=aspect, scale=scale), valid


def boxes_from_joints(
    joints: ArrayLike, valid: ArrayLike | None = None, *, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tightest boxes around 2D joints, scaled about their centre.

    ``joints`` (…, K, 2) px; ``valid`` (…, K) bool, all when None. Joints that are not finite count as
    invalid. InterHand2.6M's boxes are its valid joints' scaled by 1.5.

    Returns boxes (…, 4) float32 and their validity (…,) bool: False, and the box NaN, where the valid joints
    span no area: none, one, or all on a horizontal or vertical line. Raises ValueError for wrong shapes and a
    scale that is not positive.
    """
    points = np.asarray(joints, dtype=np.float64)
    if points.ndim < 2 or points.shape[-1] != 2:
        raise ValueError(f"joints must be (…, K, 2), got {points.shape}; pass x and y only")
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be a positive number, got {scale}")
    use = np.isfinite(points[..., 0]) & np.isfinite(points[..., 1])
    if valid is not None:
        mask = np.asarray(valid, dtype=bool)
        if mask.shape != use.shape:
            raise ValueError(f"valid must be {use.shape} like the joints, got {mask.shape}")
        use &= mask
    low = np.where(use[..., None], points, np.inf).min(axis=-2, initial=np.inf)
    high = np.where(use[..., None], points, -np.inf).max(axis=-2, initial=-np.inf)
    has_area = np.greater(high, low).all(axis=-1, keepdims=True)
    # Infinite bounds of an empty set would warn in the subtraction.
    low, high = np.where(has_area, low, np.nan), np.where(has_area, high, np.nan)
    extent = (high - low) * scale
    boxes = np.concatenate([(low + high) / 2 - extent / 2, extent], axis=-1)
    return boxes.astype(np.float32), has_area[..., 0]


def crop_affine(
    xywh: ArrayLike,
    out_size: tuple[int, int],
    *,
    rotation: ArrayLike = 0.0,
    flip: ArrayLike = False,
) -> np.ndarray:
    """Return the affine maps from image pixels to crop pixels.

    ``xywh`` (…, 4) px, the box that fills the crop; ``out_size`` (width, height) of the crop in pixels;
    ``rotation`` in radians and ``flip``, one for all or (…,) each. Without them the box's left edge goes to
    0, its right edge to the crop's width, and its centre to ``out_size / 2``, as in the release, whose crops
    follow from giving this matrix to ``cv2.warpAffine``. ``flip`` mirrors the image first (the box's right
    edge goes to 0); ``rotation`` then turns the box about its centre from x towards y, so that the picture in
    the crop turns the other way.

    Returns (…, 2, 3) float32, for ``apply_affine``; NaN for NaN boxes. Raises ValueError for wrong shapes, an
    empty crop, or a box without area (drop those that ``sanitize_boxes`` marks).
    """
    box = _boxes(xywh)
    crop = np.asarray(out_size, dtype=np.float64)
    if crop.shape != (2,) or not (crop > 0).all():
        raise ValueError(f"out_size must be a positive (width, height), got {out_size}")
    extent = box[..., 2:]
    if (extent <= 0).any():
        empty = int((extent <= 0).any(-1).sum())
        raise ValueError(f"{empty} boxes have no area; pass only boxes that sanitize_boxes marks valid")
    angle, mirrored = np.asarray(rotation, dtype=np.float64), np.asarray(flip, dtype=bool)
    for name, value in (("rotation", angle), ("flip", mirrored)):
        if not _fits(value.shape, box.shape[:-1]):
            raise ValueError(f"{name} must be one value or {box.shape[:-1]}, got {value.shape}")
    angle, mirrored = np.broadcast_to(angle, box.shape[:-1]), np.broadcast_to(mirrored, box.shape[:-1])
    cos, sin = np.cos(angle), np.sin(angle)
    sign = np.where(mirrored, -1.0, 1.0)
    turned = np.stack([np.stack([cos * sign, sin], -1), np.stack([-sin * sign, cos], -1)], axis=-2)
    linear = (crop / extent)[..., None] * turned
    centre = box[..., :2] + extent / 2
    shift = crop / 2 - (linear @ centre[..., None])[..., 0]
    return np.concatenate([linear, shift[..., None]], axis=-1).astype(np.float32)


def invert_affine(affine: ArrayLike) -> np.ndarray:
    """Return the inverse (…, 2, 3) float32 of affine maps (…, 2, 3), crop pixels back to image pixels.

    NaN for NaN maps. Raises ValueError for a wrong shape and for a map that is not invertible.
    """
    matrix = _affines(affine)
    (a, b), (c, d) = (np.moveaxis(matrix[..., row, :2], -1, 0) for row in (0, 1))
    determinant = a * d - b * c
    if (determinant == 0).any():
        raise ValueError("affine has a zero determinant and no inverse; it must come from a box with an area")
    adjugate = np.stack([np.stack([d, -b], -1), np.stack([-c, a], -1)], axis=-2)
    linear = adjugate / determinant[..., None, None]
    return np.concatenate([linear, -linear @ matrix[..., 2:]], axis=-1).astype(np.float32)


def apply_affine(affine: ArrayLike, points: ArrayLike) -> np.ndarray:
    """Map points (…, K, 2) by affine maps (…, 2, 3), or by one (2, 3) for all; (…, K, 2) float32 px."""
    matrix = _affines(affine)
    values = np.asarray(points, dtype=np.float64)
    if values.ndim < 2 or values.shape[-1] != 2 or not _fits(matrix.shape[:-2], values.shape[:-2]):
        raise ValueError(f"points must be (…, K, 2) for affines {matrix.shape}, got {values.shape}")
    mapped = values @ matrix[..., :2].swapaxes(-1, -2) + matrix[..., None, :, 2]
    moved: np.ndarray = mapped.astype(np.float32)
    return moved


def virtual_camera(
    xywh: ArrayLike, *, crop_size: float | tuple[float, float] = 256.0, focal: float = 5000.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the virtual camera that the release gives to a person in the wild.

    The network sees a crop of ``crop_size`` px (one number, or width and height) through a camera of
    ``focal`` px with its principal point in the middle. Mapped back to the image: ``focal / crop_size *
    box_wh``, and the box's centre. ``xywh`` (…, 4) px is the processed box, the one that was cropped. Only
    for writing new annotations: those released store their own values.

    Returns the focal lengths (…, 2) and principal points (…, 2), float32 px of the whole image; NaN for NaN
    boxes. Raises ValueError for a wrong shape or sizes that are not positive.
    """
    box = _boxes(xywh)
    size = np.asarray(crop_size, dtype=np.float64)
    if size.shape not in ((), (2,)) or not (size > 0).all():
        raise ValueError(f"crop_size must be a positive number or (width, height), got {crop_size}")
    if not focal > 0:
        raise ValueError(f"focal must be positive, got {focal}")
    princpt = box[..., :2] + box[..., 2:] / 2
    return (focal / size * box[..., 2:]).astype(np.float32), princpt.astype(np.float32)


def _boxes(xywh: ArrayLike) -> np.ndarray:
    box = np.asarray(xywh, dtype=np.float64)
    if box.ndim == 0 or box.shape[-1] != 4:
        raise ValueError(f"xywh must be (…, 4) as x, y, width, height, got {box.shape}; N boxes are (N, 4)")
    return box


def _affines(affine: ArrayLike) -> np.ndarray:
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.ndim < 2 or matrix.shape[-2:] != (2, 3):
        raise ValueError(f"affine must be (…, 2, 3), got {matrix.shape}")
    return matrix


def _fits(shape: tuple[int, ...], batch: tuple[int, ...]) -> bool:
    """One value for all, or exactly one each: numpy's wider broadcasting would hide a mistaken shape."""
    return shape in ((), batch)


def _masked(boxes: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.where(valid[..., None], boxes, np.nan).astype(np.float32)
