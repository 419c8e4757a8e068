"""Which rows belong together: the people of an image, the cameras of a frame, the frames of a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from neuralannot.cameras import Camera
from neuralannot.columns import RowView
from neuralannot.key_index import KeyIndex
from neuralannot.pseudo_gt import PseudoGT

__all__ = ["Shots", "Timeline"]

_BLOCK = 1 << 16  # rows whose image paths are read at once
_FOLDERS_ARE_SEQUENCES = ("3DPW",)


@dataclass(frozen=True, eq=False)
class Timeline:
    """A sequence as one camera sees it: `rows` (F,), one of each frame, and `frames` (F,), their numbers."""

    name: str
    rows: np.ndarray
    frames: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, frame: int) -> int:
        """Where a frame is; the one before it where it is not there."""
        return max(int(np.searchsorted(self.frames, frame, "right")) - 1, 0)


class Shots:
    """Rows that are shown together. What it sorts for that is a few numbers a row, made when first asked."""

    def __init__(self, gt: PseudoGT) -> None:
        self._gt = gt
        self._timeline: Timeline | None = None
        self._captures: dict[tuple[int, ...], tuple[Camera, tuple[str, ...]]] = {}

    @property
    def has_frames(self) -> bool:
        """Whether rows are frames of motion capture, by their keys."""
        return "key" in self._gt.view

    # --- of one image

    def people(self, row: int) -> np.ndarray:
        """(M,) rows on the image of `row`, itself among them; without images those of its id or frame."""
        path = self.image_path(row)
        if path:
            return self._images.rows(self._gt, row)
        rows = self._frame(row) if self.has_frames else self._same_id(row)
        return rows if row in rows else np.append(rows, row)

    def _same_id(self, row: int) -> np.ndarray:
        return self._gt.rows_of(int(self._gt.rows([row]).ids[0]))

    def _frame(self, row: int) -> np.ndarray:
        return self._gt.rows_of(tuple(self._gt.rows([row]).view.column("key")[0].tolist()))

    def image_path(self, row: int) -> str:
        """Its image, relative to the image folder; empty where none is known."""
        one = self._gt.rows([row])
        return str(one.image_path[0]) if one.joined and "ann/image_path" in one.view else ""

    @cached_property
    def _images(self) -> _SameBytes:
        return _SameBytes(self._gt.view, "ann/image_path")

    # --- of one frame

    def views(self, row: int) -> np.ndarray:
        """(C,) a row of every image of the frame of `row`, one a camera; without frames `row` alone."""
        if not self.has_frames or "ann/camera_key" not in self._gt.view:
            return np.array([row])
        rows = self._frame(row)
        cameras = self._gt.rows(rows).view.column("ann/camera_key")
        _, first = np.unique(cameras, axis=0, return_index=True)
        return rows[np.sort(first)]

    def cameras(self, row: int) -> tuple[Camera | None, tuple[str, ...]]:
        """Every camera of the capture of `row`, whether it saw this frame or not, and their names.

        None where there are no cameras. Cameras know no image size.
        """
        one = self._gt.rows([row])
        camera = one.camera
        if camera is None:
            return None, ()
        stack = next((part.stack for part in one.view.parts if "cam/key" in part.stack), None)
        if stack is None:
            return camera, ("",)
        capture = tuple(one.view.column("cam/key")[0, :-1].tolist())
        if capture not in self._captures:
            keys = stack.gather("cam/key")  # of cameras; in columns that were saved, of every row
            rows = np.flatnonzero((keys[:, :-1] == capture).all(axis=1))
            numbers, first = np.unique(keys[rows, -1], return_index=True)
            values = (stack.gather(f"cam/{n}", rows[first]) for n in ("focal", "princpt", "R", "t"))
            self._captures[capture] = Camera(*values), tuple(map(str, numbers.tolist()))
        return self._captures[capture]

    def camera_name(self, row: int) -> str:
        """The number of the row's camera among those of its capture; empty where it has none."""
        one = self._gt.rows([row])
        return str(one.view.column("cam/key")[0, -1]) if "cam/key" in one.view else ""

    # --- of one sequence

    def timeline(self, row: int) -> Timeline | None:
        """The sequence of `row` through the camera of `row`; None where rows are no frames.

        The last one is kept: frames of a sequence share it.
        """
        if self._timeline is not None and row in self._timeline.rows:
            return self._timeline
        found = self._by_key(row) if self.has_frames else self._by_folder(row)
        self._timeline = found
        return found

    @cached_property
    def _sequences(self) -> KeyIndex:
        return KeyIndex(self._gt.view.column("key")[:, :-1])

    def _by_key(self, row: int) -> Timeline:
        key = self._gt.rows([row]).view.column("key")
        rows, _ = self._sequences.all(key[:, :-1])
        some = self._gt.rows(rows)
        same = np.ones(len(rows), bool)
        if "ann/camera_key" in some.view:
            cameras = some.view.column("ann/camera_key")
            same &= (cameras == cameras[rows == row][0]).all(axis=1)
        names = self._gt.catalogued.key_names[:-1]
        name = ", ".join(f"{n} {v}" for n, v in zip(names, key[0, :-1].tolist(), strict=True))
        rows = rows[same]
        sides = np.zeros(len(rows), bool) if some.side is None else some.side[same]
        return _timeline(name, rows, some.view.column("key")[same, -1], row, sides == sides[rows == row][0])

    def _by_folder(self, row: int) -> Timeline | None:
        path = self.image_path(row)
        if self._gt.catalogued.data_set not in _FOLDERS_ARE_SEQUENCES or not path:
            return None
        rows = self._folders.rows(self._gt, row)
        names = self._gt.rows(rows).image_path
        _, frames = np.unique(names, return_inverse=True)
        # Nothing says who is who; files have people in one order in all images.
        order = np.lexsort((rows, frames))
        number = np.empty(len(rows), np.int64)
        number[order] = np.arange(len(rows)) - np.searchsorted(frames[order], frames[order])
        return _timeline(path.rpartition("/")[0], rows, frames, row, number == number[rows == row][0])

    @cached_property
    def _folders(self) -> _SameBytes:
        return _SameBytes(self._gt.view, "ann/image_path", folder=True)


def _timeline(name: str, rows: np.ndarray, frames: np.ndarray, row: int, alike: np.ndarray) -> Timeline:
    """One row of each frame: `row` of its own, of the others one that is `alike` (N,) where there is one."""
    rank = np.where(alike, 0, 1)
    rank[rows == row] = -1
    order = np.lexsort((rows, rank, frames))
    first = np.ones(len(order), bool)
    first[1:] = np.diff(frames[order]) != 0
    return Timeline(name, rows[order][first], frames[order][first])


class _SameBytes:
    """Rows whose texts are the same, or lie in the same folder: hashes of them, sorted, two numbers a row."""

    def __init__(self, view: RowView, column: str, *, folder: bool = False) -> None:
        self._column, self._folder = column, folder
        hashes = np.zeros(len(view), np.uint64)
        for first in range(0, len(view), _BLOCK):
            rows = np.arange(first, min(first + _BLOCK, len(view)))
            hashes[rows] = _hashed(self._texts(view.take(rows)))
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def rows(self, gt: PseudoGT, row: int) -> np.ndarray:
        """(M,) rows with the text of `row`, in the file's order."""
        own = self._texts(gt.rows([row]).view)
        span = [np.searchsorted(self._sorted, _hashed(own)[0], side) for side in ("left", "right")]
        rows = np.sort(self._order[span[0] : span[1]])
        # Texts of the same hash are the same but for a chance of one in billions.
        found: np.ndarray = rows[(self._texts(gt.rows(rows).view) == own).all(axis=1)]
        return found

    def _texts(self, view: RowView) -> np.ndarray:
        """(M, W) uint8, padded with zeros; of folders only what stands before the last slash."""
        texts = view.column(self._column)
        if not self._folder or not len(texts):
            return texts
        slash = texts == ord("/")
        last = np.where(slash.any(axis=1), texts.shape[1] - 1 - slash[:, ::-1].argmax(axis=1), 0)
        return np.where(np.arange(texts.shape[1]) < last[:, None], texts, np.uint8(0))


def _hashed(texts: np.ndarray) -> np.ndarray:
    """(M, W) uint8 -> (M,) uint64; the width a column happens to have does not matter."""
    total = np.zeros(len(texts), np.uint64)
    prime = np.uint64(0x100000001B3)
    for column in range(texts.shape[1]):
        byte = texts[:, column].astype(np.uint64)
        total = np.where(byte > 0, (total ^ byte) * prime + np.uint64(column), total)
    return total
