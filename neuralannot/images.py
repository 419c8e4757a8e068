"""Image files: read to and written from (H, W, 3) uint8 RGB."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

import numpy as np

from neuralannot.atomic import whole_file

__all__ = ["is_cut_short", "leads_out", "read_image", "write_image"]

_JPEG_QUALITY = 95
_SUFFIXES = (".jpg", ".jpeg", ".png")
# A marker that is none of those within a scan's data: FF 00 is a byte of it, FF D0 to FF D7 begin it anew.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)


def leads_out(path: str) -> bool:
    """Whether an image path of an annotation file leads out of the image folder that it is below.

    What is made to be handed on shows no files that its maker did not mean: absolute paths, `..`, NUL.
    """
    parts = PurePosixPath(path.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or "\0" in path


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image file that opencv knows (JPEG, PNG, WebP, TIFF, BMP, ...) as its pixels are stored.

    The EXIF orientation is not applied: annotations refer to the stored pixels. Grey images get three equal
    channels, an alpha channel is dropped without blending, of 16-bit values the high byte is kept.

    Returns:
        (H, W, 3) uint8 RGB, contiguous.

    Raises:
        FileNotFoundError: no file at `path`.
        ValueError: the file is not an image, is broken, or is a JPEG or PNG that was cut short.
    """
    import cv2

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no image file at {path}")
    # Decoding from memory reads file names in any script on every system; cv2.imread does not.
    data = path.read_bytes()
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags) if data else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ValueError(f"{path} is not an image that opencv can read ({len(data)} bytes)")
    if is_cut_short(data):
        raise ValueError(f"{path} is cut short: {len(data)} bytes, and its end is not among them")
    return np.ascontiguousarray(pixels[..., ::-1])


def is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG file, by its content, lacks its end; of other files False.

    Decoders fill up what is missing, with grey say, and do not tell. Bytes after the end do not matter.
    """
    if data.startswith(b"\xff\xd8"):
        return not _jpeg_has_end(data)
    return data.startswith(b"\x89PNG\r\n\x1a\n") and not _png_has_end(data)


def _jpeg_has_end(data: bytes) -> bool:
    """Segments, each as long as it says, and scans, whose data ends where a marker comes: one is the end."""
    place = 2
    while (found := _JPEG_MARKER.search(data, place)) is not None:
        after = found.end()
        if data[after - 1] == 0xD9:
            return True
        place = after + int.from_bytes(data[after : after + 2], "big")
    return False


def _png_has_end(data: bytes) -> bool:
    """Chunks of a length, a name, as many bytes and a check sum: the last is IEND."""
    place = 8
    while place + 8 <= len(data):
        if data[place + 4 : place + 8] == b"IEND":
            return True
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return False


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
