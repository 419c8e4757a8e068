"""Images of rows as they are shown: found in the folder, shrunk, with the fit drawn over them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from neuralannot.cameras import Camera
from neuralannot.images import leads_out, read_image

__all__ = ["Drawn", "Photo", "Photos", "overlay"]

_KEPT = 64 << 20  # bytes of pixels: a frame of 140 small cameras, or 20 images
LARGEST = 1024  # px of the longer side, as shown
OF_OTHER_CAMERAS = 320
_ROUNDING = 1e-6  # px


@dataclass(frozen=True, eq=False)
class Photo:
    """An image: `pixels` (h, w, 3) uint8 RGB, shrunk, or None, and then `problem` says why; `size` (2,) width
    and height px of the file, or what the annotation says of it, 0 where neither is known."""

    path: str
    pixels: np.ndarray | None
    size: np.ndarray
    problem: str = ""

    @property
    def box(self) -> np.ndarray:
        """(4,) xywh px, all of it."""
        return np.array([0, 0, *self.size], float)

    def cut(self, box_xywh: np.ndarray) -> np.ndarray | None:
        """The pixels of a part of it, whole pixels as shown; None without pixels."""
        if self.pixels is None:
            return None
        x0, y0, x1, y1 = self._shown(box_xywh)
        return self.pixels[y0:y1, x0:x1]

    def snapped(self, box_xywh: np.ndarray) -> np.ndarray:
        """(4,) the box that `cut` gives, px of the file: at least a pixel as shown, within the image."""
        if self.pixels is None:
            return np.asarray(box_xywh, float)
        x0, y0, x1, y1 = self._shown(box_xywh)
        scale = self.size / np.array(self.pixels.shape[1::-1])
        found: np.ndarray = np.array([x0, y0, x1 - x0, y1 - y0]) * np.tile(scale, 2)
        return found

    def _shown(self, box_xywh: np.ndarray) -> tuple[int, int, int, int]:
        assert self.pixels is not None
        h, w = self.pixels.shape[:2]
        scale = np.array([w, h]) / self.size
        box = np.asarray(box_xywh, float)
        # A box that was snapped stays what it is: its edges are whole pixels but for rounding.
        low = np.clip(np.floor(box[:2] * scale + _ROUNDING), 0, [w - 1, h - 1]).astype(int)
        high = np.clip(np.ceil((box[:2] + box[2:]) * scale - _ROUNDING), low + 1, [w, h]).astype(int)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])


class Photos:
    """The images of a folder; the last few are kept. What could not be shown is looked for again."""

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self._folder = None if folder is None else Path(folder)
        self._kept: OrderedDict[tuple[str, int], Photo] = OrderedDict()
        self._bytes = 0

    def photo(self, path: str, annotated_size: np.ndarray, *, largest: int = LARGEST) -> Photo:
        """The image at `path`, relative to the folder. What is missing, broken, or of another size than
        annotated (2,) is said in `problem`."""
        kept = self._kept.get((path, largest))
        if kept is not None:
            self._kept.move_to_end((path, largest))
            return kept
        found = self._read(path, np.asarray(annotated_size, float), largest)
        if found.pixels is None:
            return found
        self._kept[path, largest] = found
        self._bytes += found.pixels.nbytes
        while self._bytes > _KEPT and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= 0 if oldest.pixels is None else oldest.pixels.nbytes
        return found

    def _read(self, path: str, size: np.ndarray, largest: int) -> Photo:
        import cv2

        def without(problem: str) -> Photo:
            return Photo(path, None, size, problem)

        if not path:
            return without("no image is known for this row: load the file joined with annotations")
        if self._folder is None:
            return without(f"{path}: no image folder was given (--images)")
        if leads_out(path):
            return without(f"{path}: leads out of the image folder, not shown")
        try:
            pixels = read_image(self._folder / path)
        except FileNotFoundError:
            return without(f"{path}: not in the image folder")
        except (ValueError, OSError) as error:
            return without(str(error).replace(f"{self._folder}{os.sep}", ""))
        own = np.array(pixels.shape[1::-1], float)
        if (size > 0).all() and (own != size).any():
            return without(
                f"{path}: {own[0]:.0f}x{own[1]:.0f} px, annotated as {size[0]:.0f}x{size[1]:.0f}: not the "
                "image that the camera belongs to"
            )
        factor = largest / own.max()
        if factor < 1:
            small = np.maximum(np.rint(own * factor), 1).astype(int).tolist()
            pixels = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
        return Photo(path, pixels, own)


@dataclass(frozen=True, eq=False)
class Drawn:
    """What `overlay` draws of one person.

    `vertices` (V, 3), metres before `camera`, a row; `faces` (F, 3); `colour` RGB. `joints` (K, 2) px of the
    fit and `annotated` (K, 2) px, either NaN or None where there is none; `tones` (K, 3) RGB of the joints.
    """

    vertices: np.ndarray
    faces: np.ndarray
    camera: Camera
    colour: tuple[int, int, int]
    joints: np.ndarray | None = None
    annotated: np.ndarray | None = None
    tones: np.ndarray | None = None


def overlay(photo: Photo, people: Sequence[Drawn], *, mesh: bool, joints: bool) -> np.ndarray | None:
    """The image, enlarged where it is small, with people's meshes drawn over it and a line from each joint of
    their fits to where it is annotated; None without pixels.
    """
    import cv2

    from neuralannot.render import render_overlay

    pixels = photo.pixels
    if pixels is None:
        return None
    larger = max(1, LARGEST // max(pixels.shape))  # what is drawn on a small image is still fine
    if larger > 1:
        pixels = cv2.resize(pixels, None, fx=larger, fy=larger, interpolation=cv2.INTER_LINEAR)
    scale = np.array(pixels.shape[1::-1]) / photo.size

    def as_shown(points: np.ndarray) -> np.ndarray:  # pixels' centres are whole numbers, before and after
        found: np.ndarray = (points + 0.5) * scale - 0.5
        return found

    if mesh and people:
        cameras = [replace(one.camera.scaled(scale), princpt=as_shown(one.camera.princpt)) for one in people]
        pixels = render_overlay(
            pixels,
            [one.vertices for one in people],
            [one.faces for one in people],
            np.concatenate([c.focal for c in cameras]),
            np.concatenate([c.princpt for c in cameras]),
            colors=[one.colour for one in people],
            opacity=0.7,
        )
    if not joints:
        return pixels
    pixels = pixels.copy()
    size = max(2, round(min(pixels.shape[:2]) / 140))
    for one in people:
        if one.joints is None or one.annotated is None or one.tones is None:
            continue
        ends = [as_shown(points) for points in (one.joints, one.annotated)]
        for fit, true, tone in zip(*ends, one.tones.tolist(), strict=True):
            if not _near(true, pixels):
                continue
            if _near(fit, pixels):
                cv2.line(pixels, _whole(fit), _whole(true), tone, max(1, size // 2), cv2.LINE_AA)
                cv2.circle(pixels, _whole(fit), max(1, size // 2), tone, -1, cv2.LINE_AA)
            cv2.circle(pixels, _whole(true), size + 1, (30, 30, 30), -1, cv2.LINE_AA)
            cv2.circle(pixels, _whole(true), size, tone, -1, cv2.LINE_AA)
    return pixels


def _near(point: np.ndarray, pixels: np.ndarray) -> bool:
    """Whether a point is one, and not far outside: opencv's coordinates end somewhere. False for NaN."""
    return bool((np.abs(point) < 10 * max(pixels.shape)).all())


def _whole(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))
