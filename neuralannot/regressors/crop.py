"""`Crop`: the part of a picture that a regressor sees, and where points of the picture are in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuralannot.boxes import apply_affine, crop_affine
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
    image: np.ndarray, box_xywh: np.ndarray, shape: tuple[int, int], augmentation: Augmentation
) -> Crop:
    """Cut `box_xywh` (4,) px, changed as `augmentation` says, out of an image; `shape` height, width px.

    As these regressors cut: `cv2.warpAffine`, bilinear, of the mirrored image where it is mirrored, in the
    image's own type, black where there is no image; colours are left to the caller.
    """
    import cv2

    height, width = shape
    box = np.asarray(box_xywh, np.float64)
    centre = box[:2] + box[2:] / 2 + box[2:] * augmentation.shift
    image_width = image.shape[1]
    if augmentation.flip:
        image = image[:, ::-1]
        centre[0] = image_width - 1 - centre[0]
    extent = box[2:] * augmentation.scale
    grown = np.concatenate([centre - extent / 2, extent])
    affine = crop_affine(grown, (width, height), rotation=np.deg2rad(augmentation.rotation))
    picture = cv2.warpAffine(np.ascontiguousarray(image), affine, (width, height), flags=cv2.INTER_LINEAR)
    return Crop(picture, affine, image_width, augmentation.flip)


def turned(points: np.ndarray, rotation: float) -> np.ndarray:
    """Points of the camera's space (..., 3) as the crop of a box turned by `rotation` degrees shows them."""
    return (points @ _turn(rotation).T).astype(np.float32)


def turned_root(root: np.ndarray, rotation: float) -> np.ndarray:
    """The same of a body's root rotation: axis-angle (3,) -> (3,) float32."""
    if rotation == 0:
        return np.asarray(root, np.float32)
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_matrix(_turn(rotation))
    return (turn * Rotation.from_rotvec(np.asarray(root, np.float64))).as_rotvec().astype(np.float32)


def _turn(rotation: float) -> np.ndarray:
    """About the camera's z, against the box's turn: the picture's own."""
    angle = -np.deg2rad(rotation)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
