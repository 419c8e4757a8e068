"""`Crops`: the square crops that a network sees, where they lie in their images, and how they are cut.

A crop is described in *crop units* whatever its size in pixels: the box that it shows is 256 units wide, as
the virtual camera of the release has it (focal length 5000, principal point 128). Pixel k of a crop of S
pixels lies at k * 256 / S units, as `neuralannot.boxes.crop_affine` and the release count, so crops of 64,
128 and 256 pixels show the same thing at the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from neuralannot.boxes import apply_affine, crop_affine, invert_affine, process_boxes

if TYPE_CHECKING:
    import torch

__all__ = [
    "CROP_UNITS",
    "IMAGE_MEAN",
    "IMAGE_STD",
    "Boxed",
    "Crops",
    "crops_of",
    "cut",
    "denormalise",
    "normalise",
]

#: The width of every crop in the units of the virtual camera.
CROP_UNITS = 256
#: ImageNet's, RGB, of values from 0 to 1: what torchvision's backbones were trained with.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

# An image of unknown size: its boxes are not cut at its right and bottom edge. Exact in double precision.
_UNKNOWN_SIZE = 1 << 40
# A picture is shrunk by whole pixels first where it would be sampled more often than this a crop pixel.
_MOST_SAMPLES = 8


class Boxed(Protocol):
    """What crops are made from; `neuralannot.train.samples.Samples` is such a thing.

    `box_xywh` (N, 4) px as annotated; `image_size` (N, 2) width and height px, 0 where unknown; `side` (N,)
    str "right" or "left" for hands, None otherwise.
    """

    @property
    def box_xywh(self) -> np.ndarray: ...
    @property
    def image_size(self) -> np.ndarray: ...
    @property
    def side(self) -> np.ndarray | None: ...


@dataclass(frozen=True, eq=False)
class Crops:
    """N crops, `size` pixels wide and high.

    Fields
    ------
    size: pixels of a crop.
    box_xywh: (N, 4) float32 px, the square that a crop shows; NaN where there is none.
    image_size: (N, 2) int64 width and height px of the images, 0 where unknown.
    flip: (N,) bool, crops that are mirrored: left hands, so that all hands are right ones.
    valid: (N,) bool, whether there is a crop.

    Raises ValueError where shapes do not fit together.
    """

    size: int
    box_xywh: np.ndarray
    image_size: np.ndarray
    flip: np.ndarray
    valid: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.box_xywh)
        _check_size(self.size)
        shapes = {"box_xywh": (n, 4), "image_size": (n, 2), "flip": (n,), "valid": (n,)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must be {shape} for {n} crops, got {getattr(self, name).shape}")

    def __len__(self) -> int:
        return len(self.box_xywh)

    def __repr__(self) -> str:
        return f"<Crops: {len(self)} of {self.size} px, {int(self.flip.sum())} mirrored>"

    @cached_property
    def affine(self) -> np.ndarray:
        """(N, 2, 3) float32, image pixels to crop pixels; NaN where there is no crop."""
        return crop_affine(self.box_xywh, (self.size, self.size), flip=self.flip)

    @cached_property
    def inverse(self) -> np.ndarray:
        """(N, 2, 3) float32, crop pixels to image pixels; NaN where there is no crop."""
        return invert_affine(self.affine)

    def rows(self, index: np.ndarray | slice | Sequence[int]) -> Crops:
        """Some of the crops, in the order asked."""
        columns = (self.box_xywh, self.image_size, self.flip, self.valid)
        # An empty list of rows would be an array of floats.
        rows = index if isinstance(index, slice) else np.asarray(index, None if len(index) else np.intp)
        return Crops(self.size, *(column[rows] for column in columns))

    def to_crop(self, points: np.ndarray) -> np.ndarray:
        """Image pixels (N, J, 2) -> crop units (N, J, 2) float32, 0 to 256 inside; NaN stays NaN."""
        self._check("points", points, 2)
        return apply_affine(self._to_units(), points)

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """The inverse of `to_crop`: crop units (N, J, 2) -> image pixels (N, J, 2) float32."""
        self._check("points", points, 2)
        return apply_affine(invert_affine(self._to_units()), points)

    def mirror_cam(self, joints_cam: np.ndarray) -> np.ndarray:
        """Points of the camera's space (N, J, 3) as the crops show them: x negated where mirrored.

        Mirroring twice gives back what was given. Returns a new array of the same type.
        """
        self._check("joints_cam", joints_cam, 3)
        mirrored = np.array(joints_cam)
        mirrored[self.flip, :, 0] *= -1
        return mirrored

    def _to_units(self) -> np.ndarray:
        return crop_affine(self.box_xywh, (CROP_UNITS, CROP_UNITS), flip=self.flip)

    def _check(self, name: str, points: np.ndarray, width: int) -> None:
        if points.ndim != 3 or points.shape[::2] != (len(self), width):
            raise ValueError(f"{name} must be ({len(self)}, J, {width}), a row per crop, got {points.shape}")


def crops_of(samples: Boxed, *, size: int = 256, scale: float = 1.25) -> Crops:
    """The crops of annotated boxes: clipped to the image, made square, widened by `scale` (`process_boxes`).

    Of images whose size is not known, boxes are clipped at the left and top alone. Left hands are mirrored.
    Boxes that are NaN, empty or outside their image give crops that are not valid. Raises ValueError for a
    side that is neither "right" nor "left", a size or scale that is not positive, and shapes that do not fit.
    """
    image_size = np.asarray(samples.image_size, dtype=np.int64)
    known = np.where(image_size > 0, image_size, _UNKNOWN_SIZE)
    boxes, valid = process_boxes(samples.box_xywh, known, scale=scale)
    flip = np.zeros(len(boxes), bool)
    if samples.side is not None:
        side = np.asarray(samples.side)
        unknown = sorted(set(side.tolist()) - {"right", "left"})
        if unknown:
            raise ValueError(f'side must be "right" or "left", got {unknown[0]!r}')
        flip = side == "left"
    return Crops(size, boxes, image_size, flip, valid)


def cut(image: np.ndarray, affine: np.ndarray, size: int) -> np.ndarray:
    """Cut one crop out of an image.

    `image` (H, W, C) or (H, W) uint8; `affine` (2, 3), image pixels to crop pixels; `size` px. Returns
    (size, size, C) uint8 or (size, size), black where there is no image. Enlarged pictures are interpolated
    (bilinear, `cv2.warpAffine`). Of reduced ones a crop pixel is the mean over the square that it covers, so
    that fine patterns become grey and not other patterns.

    Raises ValueError for other shapes and for an affine that is not finite or not invertible, TypeError for
    an image that is not uint8.
    """
    import cv2

    _check_size(size)
    if image.dtype != np.uint8:
        raise TypeError(f"image must be uint8 from 0 to 255, got {image.dtype}")
    if image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"image must be (H, W, C) or (H, W) with at least one pixel, got {image.shape}")
    if np.shape(affine) != (2, 3) or not np.isfinite(affine).all():
        raise ValueError(
            f"affine must be (2, 3) and finite, got {affine}; crops that are not valid have none"
        )

    back = np.vstack([np.asarray(affine, np.float64), [0, 0, 1]])
    if np.linalg.det(back) == 0:
        raise ValueError(f"affine must be invertible, got {affine}")
    back = np.linalg.inv(back)
    # How many image pixels a step of one crop pixel is.
    step = float(np.linalg.norm(back[:2, :2], axis=0).max())
    image, origin = _region(image, back, size, round(step) + 2)
    if image.size == 0:
        return np.zeros((size, size, *image.shape[2:]), np.uint8)
    shrink = max(1, int(step / (_MOST_SAMPLES / 2))) if step > _MOST_SAMPLES else 1
    if shrink > 1:
        height, width = (-(-length // shrink) for length in image.shape[:2])
        below, beside = height * shrink - image.shape[0], width * shrink - image.shape[1]
        padded = cv2.copyMakeBorder(image, 0, below, 0, beside, cv2.BORDER_CONSTANT)
        image = cv2.resize(padded, (width, height), interpolation=cv2.INTER_AREA)
    # A crop pixel is the mean of samples at most a pixel apart, centred on where the pixel lies.
    samples = max(1, int(np.ceil(step / shrink)))
    to_samples = _scaling(samples, (samples - 1) / 2)
    to_shrunk = np.linalg.inv(_scaling(shrink, (shrink - 1) / 2)) @ _scaling(1, -origin)
    whole = to_shrunk @ back @ np.linalg.inv(to_samples)
    many = cv2.warpAffine(
        image,
        whole[:2],
        (size * samples, size * samples),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    return many if samples == 1 else cv2.resize(many, (size, size), interpolation=cv2.INTER_AREA)


def normalise(images: torch.Tensor, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    """(B, 3, S, S) uint8 RGB -> what backbones expect, (value / 255 - IMAGE_MEAN) / IMAGE_STD.

    On the images' device and in their memory format; float32, or `dtype`. Raises TypeError for images that
    are not uint8, ValueError for another shape.
    """
    import torch

    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8 from 0 to 255, got {images.dtype}; normalise them once")
    mean, std = _statistics(images)
    # One product and one sum a value; in single precision whatever the result's type is.
    return (images.float() * (1 / (255 * std)) - mean / std).to(dtype or torch.float32)


def denormalise(images: torch.Tensor) -> torch.Tensor:
    """The inverse of `normalise`, for drawing: (B, 3, S, S) floats -> uint8, rounded and cut to 0 to 255."""
    import torch

    mean, std = _statistics(images)
    return ((images.float() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def _statistics(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be (B, 3, S, S) RGB, got {tuple(images.shape)}")
    return tuple(  # type: ignore[return-value]
        torch.tensor(values, device=images.device).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD)
    )


def _region(image: np.ndarray, back: np.ndarray, size: int, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of the image that the crop shows, and its top left pixel (x, y); empty where it shows none."""
    corners = back[:2] @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]])
    limits = np.array(image.shape[1::-1])
    low = np.clip(np.floor(corners.min(1)) - margin, 0, limits).astype(int)
    high = np.clip(np.ceil(corners.max(1)) + margin + 1, low, limits).astype(int)
    return image[low[1] : high[1], low[0] : high[0]], low


def _scaling(factor: float, shift: float | np.ndarray) -> np.ndarray:
    """The (3, 3) matrix of x -> factor * x + shift."""
    matrix = np.diag([factor, factor, 1.0])
    matrix[:2, 2] = shift
    return matrix


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size must be a positive number of pixels, got {size}")
