"""`Crop`: the part of a picture that a regressor sees, and where points of the picture are in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuralannot.boxes import apply_affine, crop_affine, invert_affine
from neuralannot.regressors.augmentation import Augmentation

__all__ = ["Crop", "cut_crop", "turned", "turned_root"]


@dataclass(frozen=True, eq=False)
class Crop:
    """`picture` (h, w, 3) of the image's type; `affine` (2, 3) float32 from the image's pixels, mirrored ones
    where `flip`, to the crop's; `width` px of the image."""

    picture: np.ndarray
    affine: np.ndarray
    width: int
    flip: bool

    def at(self, points: np.ndarray) -> np.ndarray:
        """Points of the image (J, 2) px -> px of the crop, float32; left and right keep their places."""
        seen = np.array(points, np.float64)
        if self.flip:
            seen[:, 0] = self.width - 1 - seen[:, 0]
        return apply_affine(self.affine, seen)


def cut_crop(
    image: np.ndarray,
    box_xywh: np.ndarray,
    shape: tuple[int, int],
    augmentation: Augmentation,
    *,
    dtype: type[np.generic] | None = None,
) -> Crop:
    """Cut `box_xywh` (4,) px, changed as `augmentation` says, out of an image; `shape` height, width px.

    As these regressors cut: `cv2.warpAffine`, bilinear, of the mirrored image where it is mirrored, black
    where there is no image; in the image's own type, or in `dtype`. Colours are left to the caller.
    """
    height, width = shape
    box = np.asarray(box_xywh, np.float64)
    centre = box[:2] + box[2:] / 2 + box[2:] * augmentation.shift
    image_width = image.shape[1]
    if augmentation.flip:
        centre[0] = image_width - 1 - centre[0]
    extent = box[2:] * augmentation.scale
    grown = np.concatenate([centre - extent / 2, extent])
    affine = crop_affine(grown, (width, height), rotation=np.deg2rad(augmentation.rotation))
    picture = _warped(image, affine, shape, flip=augmentation.flip, dtype=dtype or image.dtype.type)
    return Crop(picture, affine, image_width, augmentation.flip)


def _warped(
    image: np.ndarray, affine: np.ndarray, shape: tuple[int, int], *, flip: bool, dtype: type[np.generic]
) -> np.ndarray:
    """`cv2.warpAffine`, of the part of the image that the crop shows."""
    import cv2

    height, width = shape
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]])
    seen = apply_affine(invert_affine(affine), corners)
    limit = np.array(image.shape[1::-1])
    low = np.clip(np.floor(seen.min(axis=0)) - 2, 0, limit).astype(int)
    high = np.clip(np.ceil(seen.max(axis=0)) + 3, low, limit).astype(int)
    if (low == high).any():
        return np.zeros((height, width, image.shape[2]), dtype)
    (x, y), (end, bottom) = low, high
    part = image[y:bottom, limit[0] - end : limit[0] - x][:, ::-1] if flip else image[y:bottom, x:end]
    moved = affine.astype(np.float64)
    moved[:, 2] += moved[:, :2] @ low
    return cv2.warpAffine(np.ascontiguousarray(part, dtype), moved, (width, height), flags=cv2.INTER_LINEAR)


def turned(points: np.ndarray, rotation: float) -> np.ndarray:
    """Points of the camera's space (..., 3) as the crop of a box turned by `rotation` degrees shows them."""
    found: np.ndarray = (points @ _turn(rotation).T).astype(np.float32)
    return found


def turned_root(root: np.ndarray, rotation: float) -> np.ndarray:
    """The same of a body's root rotation: axis-angle (3,) -> (3,) float32."""
    if rotation == 0:
        return np.asarray(root, np.float32)
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_matrix(_turn(rotation))
    found: np.ndarray = (
        (turn * Rotation.from_rotvec(np.asarray(root, np.float64))).as_rotvec().astype(np.float32)
    )
    return found


def _turn(rotation: float) -> np.ndarray:
    """About the camera's z, against the box's turn: the picture's own."""
    angle = -np.deg2rad(rotation)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
