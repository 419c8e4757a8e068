"""Shards of a crop cache: which crops go into which, and how a worker process makes one.

A shard is a file of JPEGs one after another, `NNNNN.jpegs`, and, until the cache's index is written, its
columns beside it, `NNNNN.columns.safetensors`: a shard whose columns are there is finished. What is in a
shard follows from the crops and the images alone, not from who made it or when. Nothing here needs torch.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neuralannot.atomic import whole_file
from neuralannot.columns import texts_to_bytes
from neuralannot.images import is_cut_short
from neuralannot.store import SUFFIX, write_table
from neuralannot.train.crops import Crops, cut

__all__ = ["REASONS", "BuildStoppedError", "ShardTask", "make_shard", "shard_name", "shards_of", "state_of"]

#: Why a row has no crop: the whole vocabulary, numbered from 1 in the columns.
REASONS = (
    "no box",  # the annotated box is empty, outside the image or not a number
    "image missing",  # no such file
    "image unreadable",  # not an image, damaged, cut short, or may not be read
    "image size",  # not the width and height that the annotation says
)
NO_BOX, MISSING, UNREADABLE, OTHER_SIZE = range(1, len(REASONS) + 1)

#: Of an image that is not there: its size and time.
ABSENT = (-1, -1)

#: Columns with an entry per crop. `row`: its number; `shard`, `offset`, `length`, `crc32`: where its JPEG is,
#: in bytes, and its check sum; `reason`: 0, or why there is none; `image_bytes`, `image_mtime_ns`: the image
#: it is of.
PER_ROW = {
    "shard": np.int32,
    "offset": np.int64,
    "length": np.int32,
    "crc32": np.int64,
    "reason": np.uint8,
    "image_bytes": np.int64,
    "image_mtime_ns": np.int64,
}


class BuildStoppedError(Exception):
    """The build was given up elsewhere; this shard is not finished."""


@dataclass(frozen=True)
class ShardTask:
    """What a worker needs to make one shard. `rows` (n,) int64; crops of one image are neighbours."""

    folder: Path
    number: int
    images: Path
    rows: np.ndarray
    image_path: Sequence[str]
    crops: Crops
    quality: int
    strict: bool
    fingerprint: str

    @property
    def data(self) -> Path:
        """The file of JPEGs."""
        return self.folder / shard_name(self.number)

    @property
    def columns(self) -> Path:
        """The file that says where they are."""
        return self.folder / f"{self.number:05d}{SUFFIX}"


def shard_name(number: int) -> str:
    """The file name of a shard's JPEGs."""
    return f"{number:05d}.jpegs"


def shards_of(image_path: Sequence[str], shard: int) -> list[np.ndarray]:
    """Rows of each shard, some `shard` in all but the last; those of one image are neighbours in one shard.

    Images come in the order of their first rows, an image's rows in their own. Shards are larger where an
    image has many rows.
    """
    first: dict[str, int] = {}
    image = np.array([first.setdefault(path, len(first)) for path in image_path], dtype=np.int64)
    order = np.argsort(image, kind="stable")
    counts = np.bincount(image, minlength=len(first))
    before = np.cumsum(counts) - counts  # crops of earlier images
    number = np.repeat(before // shard, counts)
    return np.split(order, np.flatnonzero(np.diff(number)) + 1) if len(order) else []


def state_of(path: Path) -> tuple[int, int]:
    """What says that an image is unchanged: bytes and time of writing; `ABSENT` where it is not there."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return ABSENT
    return stat.st_size, stat.st_mtime_ns


def make_shard(
    task: ShardTask, *, report: Callable[[int], None] | None = None, stopped: Callable[[], bool] | None = None
) -> None:
    """Cut and encode the crops of a shard and write it, the columns last.

    `report(n)` is told of n crops more; `stopped()` is asked before each image. Images are decoded one at a
    time, each once; JPEGs go to the file as they are made. Raises OSError where the shard cannot be written
    and where an image is there but the disk fails; ValueError for a row without a crop where the task is
    strict; BuildStoppedError. No unfinished file is left then.
    """
    found = _Found(task)
    # What an earlier build said of this shard no longer holds once its JPEGs are replaced.
    task.columns.unlink(missing_ok=True)
    with whole_file(task.data) as part, part.open("wb") as file:
        begin = 0
        while begin < len(task.rows):
            if stopped is not None and stopped():
                raise BuildStoppedError
            end = begin + 1
            while end < len(task.rows) and task.image_path[end] == task.image_path[begin]:
                end += 1
            for place, jpeg in zip(range(begin, end), _jpegs(task, found, range(begin, end)), strict=True):
                found.add(place, jpeg)
                file.write(jpeg)
            if report is not None:
                report(end - begin)
            begin = end
    write_table(task.columns, found.columns(), {"fingerprint": task.fingerprint})


@dataclass
class _Found:
    """What becomes of the crops of a shard."""

    task: ShardTask
    end: int = 0
    skipped: list[int] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.task.rows)
        self.values = {name: np.zeros(n, dtype) for name, dtype in PER_ROW.items()}
        self.values["shard"][:] = self.task.number

    def state(self, places: range, state: tuple[int, int]) -> None:
        for name, value in zip(("image_bytes", "image_mtime_ns"), state, strict=True):
            self.values[name][places.start : places.stop] = value

    def add(self, place: int, jpeg: bytes) -> None:
        self.values["offset"][place] = self.end
        self.values["length"][place] = len(jpeg)
        self.values["crc32"][place] = zlib.crc32(jpeg)
        self.end += len(jpeg)

    def skip(self, place: int, reason: int, detail: str) -> bytes:
        """Note that there is no crop: no bytes."""
        row = int(self.task.rows[place])
        if self.task.strict:
            raise ValueError(f"row {row}: {REASONS[reason - 1]}: {detail}")
        self.values["reason"][place] = reason
        self.skipped.append(row)
        self.details.append(detail)
        return b""

    def columns(self) -> dict[str, np.ndarray]:
        return {
            **self.values,
            "shard_bytes": np.array([self.end], np.int64),
            "skip_row": np.array(self.skipped, np.int64),
            "skip_detail": texts_to_bytes(self.details),
        }


def _jpegs(task: ShardTask, found: _Found, places: range) -> list[bytes]:
    """The crops of one image, encoded; empty for those that cannot be had."""
    import cv2

    path = task.images / task.image_path[places.start]
    state = state_of(path)
    found.state(places, state)
    image, reason, problem = (None, MISSING, str(path)) if state == ABSENT else _decoded(path)
    jpegs = []
    for place in places:
        if not task.crops.valid[place]:
            jpegs.append(
                found.skip(place, NO_BOX, "the annotated box is empty, outside the image or not a number")
            )
            continue
        if image is None:
            jpegs.append(found.skip(place, reason, problem))
            continue
        expected, size = tuple(task.crops.image_size[place].tolist()), image.shape[1::-1]
        if all(expected) and expected != size:
            detail = f"{path}: {size[0]} x {size[1]} px, the annotation says {expected[0]} x {expected[1]}"
            jpegs.append(found.skip(place, OTHER_SIZE, detail))
            continue
        options = [cv2.IMWRITE_JPEG_QUALITY, task.quality]
        # Full colour resolution: hands and faces are small, and networks look at edges of colour too.
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        done, jpeg = cv2.imencode(".jpg", cut(image, task.crops.affine[place], task.crops.size), options)
        if not done:
            raise ValueError(
                f"row {task.rows[place]}: opencv could not encode a crop of {task.crops.size} px"
            )
        jpegs.append(jpeg.tobytes())
    return jpegs


def _decoded(path: Path) -> tuple[np.ndarray | None, int, str]:
    """The image as BGR, its stored pixels without the EXIF orientation; or None, why not, and the details."""
    import cv2

    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return None, MISSING, str(path)
    except PermissionError as error:
        return None, UNREADABLE, f"{path}: {error.strerror}"
    if is_cut_short(data):
        return None, UNREADABLE, f"{path}: cut short, {len(data)} bytes"
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        image = None
    if image is None:
        return None, UNREADABLE, f"{path}: not an image that opencv can read, {len(data)} bytes"
    return image, 0, ""


def usable_cores() -> int:
    """How many processes can run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
