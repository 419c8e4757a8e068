"""Image files: read to and written from (H, W, 3) uint8 RGB."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from neuralannot.atomic import whole_file

__all__ = ["read_image", "write_image"]

_JPEG_QUALITY = 95
_SUFFIXES = (".jpg", ".jpeg", ".png")


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image file that opencv knows (JPEG, PNG, WebP, TIFF, BMP, ...) as its pixels are stored.

    The EXIF orientation is not applied: annotations refer to the stored pixels. Grey images get three equal
    channels, an alpha channel is dropped without blending, of 16-bit values the high byte is kept.

    Returns:
        (H, W, 3) uint8 RGB, contiguous.

    Raises:
        FileNotFoundError: no file at `path`.
        ValueError: the file is not an image, or is broken.
    """
    import cv2

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image file at {path}")
    # Decoding from memory reads file names in any script on every system; cv2.imread does not.
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ValueError(f"{path} is not an image that opencv can read ({data.size} bytes)")
    return np.ascontiguousarray(pixels[..., ::-1])


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write an image as `.jpg` / `.jpeg` (quality 95) or `.png` (exact), by the suffix of `path`.

    The folder is created if need be. The file appears whole or not at all: it is written aside and renamed.

    Args:
        path: the file to write or replace.
        image: (H, W, 3) uint8 RGB with at least one pixel.

    Raises:
        TypeError: `image` is not uint8.
        ValueError: `image` is not (H, W, 3), or the suffix is another.
    """
    import cv2

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ValueError(
            f"{path}: images are written as {', '.join(_SUFFIXES)}, got {suffix or 'no suffix'!r}"
        )
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise TypeError(
            f"image must be uint8 from 0 to 255, got {image.dtype}; convert it with astype(np.uint8)"
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image must be (H, W, 3) RGB with at least one pixel, got {image.shape}")
    options = [] if suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    done, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]), options)
    if not done:
        raise ValueError(f"opencv could not encode {path.name} of shape {image.shape}")

    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_bytes(data.tobytes())
