"""`CropCache`: every crop of a data set as a small JPEG, so that an epoch does not decode whole images.

A cache is a folder: shards of JPEGs (`neuralannot.train.crop_shards`) and `index.columns.safetensors`, which
says where each crop is, its check sum, what the crops were made from and which rows have none. Both are
mapped, not read: worker processes share them.
"""

from __future__ import annotations

import json
import math
import mmap
import operator
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuralannot.columns import bytes_to_texts
from neuralannot.store import StoreError, Table, open_table
from neuralannot.train.crop_building import INDEX, bring_up_to_date, differences, fingerprint_of
from neuralannot.train.crop_shards import REASONS, shard_name, state_of
from neuralannot.train.crops import Crops

if TYPE_CHECKING:
    import torch

__all__ = ["REASONS", "CropCache", "SkippedCrop", "build_crop_cache", "open_crop_cache"]

# Each is an open file of the process; a data set of a million crops has some 250 shards.
_MOST_OPEN = 512
_AGAIN = "build_crop_cache makes what is missing"


@dataclass(frozen=True)
class SkippedCrop:
    """A row without a crop: why (one of `REASONS`), and what exactly."""

    row: int
    reason: str
    detail: str


class CropCache:
    """N crops of `size` x `size` px; `cache[row]` is one, `cache.batch(rows)` several.

    From `build_crop_cache` or `open_crop_cache`. Pickles as its path: worker processes map the same files. A
    process that unpickles it when it was built anew raises ValueError.

    `folder`; `size` px; `quality` of the JPEGs; `usable` (N,) bool, rows that have a crop; `skipped`: the
    others.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(os.path.abspath(folder))
        self._table = _index_of(self.folder)
        self.made_from: dict[str, str] = json.loads(self._table.meta["fingerprint"])
        self.size, self.quality = int(self.made_from["size"]), int(self.made_from["quality"])
        self.usable = self._table["reason"] == 0
        self.usable.flags.writeable = False
        # The columns, looked up once: for every crop three numbers are read.
        self._shard, self._offset, self._length, self._crc32 = (
            self._table[name] for name in ("shard", "offset", "length", "crc32")
        )
        self._maps: dict[int, mmap.mmap] = {}

    def __len__(self) -> int:
        return len(self.usable)

    def __repr__(self) -> str:
        return f"<CropCache {self.folder}: {int(self.usable.sum())} of {len(self)} crops of {self.size} px>"

    def __reduce__(self) -> tuple[Callable[..., CropCache], tuple[str, str]]:
        return _reopened, (str(self.folder), self._table.meta["build"])

    @cached_property
    def skipped(self) -> tuple[SkippedCrop, ...]:
        """Rows without a crop, in order."""
        rows = self._table["skip_row"]
        details = bytes_to_texts(self._table["skip_detail"]).tolist()
        reasons = self._table["reason"][rows].tolist()
        return tuple(
            SkippedCrop(row, REASONS[reason - 1], detail)
            for row, reason, detail in zip(rows.tolist(), reasons, details, strict=True)
        )

    def jpeg(self, row: int) -> np.ndarray:
        """The crop's file (bytes,) uint8, mapped, its check sum found right; errors as for `cache[row]`."""
        row = self._row(row)
        if not self.usable[row]:
            found = next(skip for skip in self.skipped if skip.row == row)
            raise ValueError(
                f"row {row} has no crop: {found.reason}: {found.detail}; leave out rows where cache.usable "
                "is False"
            )
        shard, offset, length = int(self._shard[row]), int(self._offset[row]), int(self._length[row])
        data = np.frombuffer(self._mapped(shard), np.uint8, length, offset)
        if zlib.crc32(data.data) != self._crc32[row]:
            raise ValueError(
                f"{self.folder / shard_name(shard)} is damaged at row {row}, bytes {offset} to "
                f"{offset + length}: its check sum is not what was written; delete the file, {_AGAIN}"
            )
        return data

    def __getitem__(self, row: int) -> np.ndarray:
        """The crop of a row: (size, size, 3) uint8 RGB, an array of its own.

        Raises IndexError for a row that is not there, ValueError for one without a crop, and for a damaged
        shard, naming it.
        """
        return self._decode(row, None)

    def batch(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """The crops of rows, (B, 3, size, size) uint8 RGB, channels last in memory; errors as `cache[row]`.

        In a worker of a DataLoader, in memory that it shares: the batch is not copied on its way out.
        """
        import torch
        from torch.utils.data import get_worker_info

        shape = (len(rows), self.size, self.size, 3)
        if get_worker_info() is None or not len(rows):
            images = torch.empty(shape, dtype=torch.uint8)
        else:
            memory = torch.UntypedStorage._new_shared(math.prod(shape))
            images = torch.empty(0, dtype=torch.uint8).set_(memory).view(shape)
        for row, image in zip(rows, images.numpy(), strict=True):
            self._decode(row, image)
        return images.permute(0, 3, 1, 2)

    def _decode(self, row: int, image: np.ndarray | None) -> np.ndarray:
        import cv2

        # No other function of opencv: one that uses threads waits for ever in a process that was forked.
        as_rgb = getattr(cv2, "IMREAD_COLOR_RGB", None)  # since opencv 4.11
        pixels = cv2.imdecode(self.jpeg(row), cv2.IMREAD_COLOR if as_rgb is None else as_rgb)
        if pixels is None or pixels.shape != (self.size, self.size, 3):
            raise ValueError(
                f"{self.folder}: opencv cannot decode row {row} of shard {shard_name(int(self._shard[row]))}"
            )
        if as_rgb is None:
            pixels = np.ascontiguousarray(pixels[..., ::-1])
        if image is None:
            return pixels
        image[...] = pixels
        return image

    def _row(self, row: int) -> int:
        number = operator.index(row)
        if not -len(self) <= number < len(self):
            raise IndexError(f"row {number}: the cache has {len(self)}")
        return number + len(self) if number < 0 else number

    def _mapped(self, shard: int) -> mmap.mmap:
        mapped = self._maps.get(shard)
        if mapped is None:
            if len(self._maps) >= _MOST_OPEN:
                self._maps.clear()
            mapped = self._maps[shard] = self._map(shard)
        return mapped

    def _map(self, shard: int) -> mmap.mmap:
        path, expected = self.folder / shard_name(shard), int(self._table["shard_bytes"][shard])
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != expected:
                    raise ValueError(f"{path} is damaged: expected {expected} bytes, got {size}; {_AGAIN}")
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise FileNotFoundError(f"{path}: a shard of the crop cache is missing; {_AGAIN}") from None

    def check_files(self) -> None:
        """Raise FileNotFoundError for a shard that is missing, ValueError for one of another size."""
        for shard, expected in enumerate(self._table["shard_bytes"].tolist()):
            path = self.folder / shard_name(shard)
            size = path.stat().st_size if path.is_file() else None
            if size is None:
                raise FileNotFoundError(f"{path}: a shard of the crop cache is missing; {_AGAIN}")
            if size != expected:
                raise ValueError(f"{path} is damaged: expected {expected} bytes, got {size}; {_AGAIN}")

    def changed_images(self, images: str | os.PathLike[str], image_path: Sequence[str]) -> list[str]:
        """Those of the images, (N,) relative to `images`, whose size or time is not as when they were cut."""
        states = zip(self._table["image_bytes"].tolist(), self._table["image_mtime_ns"].tolist(), strict=True)
        made = dict(zip(map(str, image_path), states, strict=True))
        return [path for path, state in made.items() if state_of(Path(images) / path) != state]


def build_crop_cache(
    folder: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str],
    image_path: Sequence[str] | np.ndarray,
    crops: Crops,
    quality: int = 95,
    shard: int | None = None,
    workers: int | None = None,
    strict: bool = False,
    replace: bool = False,
    progress: bool = False,
) -> CropCache:
    """Cut all crops and keep them in `folder`; what is there already and still holds is not made again.

    `images`: the image folder; `image_path` (N,) relative to it; `crops`: where they lie. `quality` of the
    JPEGs, whose colours are not subsampled. `shard`: crops a file, None for 64 files of 64 to 4096.
    `workers`: processes, None for one a core where there is much to do, 0 or 1 for none but this; scripts
    that build with several begin under `if __name__ == "__main__":`. `progress`: a bar.

    An image is decoded once however many crops it has; what is made does not depend on `workers`. A build
    that was killed is taken up again where its last finished file ends, with the same bytes in the end.
    Processes that build in one folder take turns, and the later ones find the work done. Images that changed
    since are cut again.

    Images that are missing or unreadable or not as large as annotated, and crops that are not valid, are rows
    without a crop: `CropCache.skipped`, or with `strict` a ValueError at the first.

    Raises FileNotFoundError where `images` is no folder; ValueError where `folder` holds a cache made from
    other things (`replace` removes it instead) and where no row at all can be had; OSError where it cannot be
    written, a full disk say. Finished files are kept then.
    """
    bring_up_to_date(
        Path(folder),
        images=Path(images),
        image_path=image_path,  # type: ignore[arg-type]
        crops=crops,
        quality=quality,
        shard=shard,
        workers=workers,
        strict=strict,
        replace=replace,
        progress=progress,
    )
    return CropCache(folder)


def open_crop_cache(
    folder: str | os.PathLike[str],
    *,
    image_path: Sequence[str] | np.ndarray | None = None,
    crops: Crops | None = None,
    quality: int | None = None,
    images: str | os.PathLike[str] | None = None,
) -> CropCache:
    """Open a finished cache and check that it is of these crops.

    `image_path` (N,) and `crops`: what it must have been made from, None to take it as it is. `images`: also
    check that no image there changed since, which asks the file system for each. Crops themselves are checked
    when used.

    Raises FileNotFoundError where there is no finished cache, ValueError where it was made from other things
    (saying which), where its files are damaged and where images changed.
    """
    cache = CropCache(folder)
    if (image_path is None) != (crops is None):
        raise ValueError("image_path and crops say together what a cache is of; pass both or none")
    if image_path is not None and crops is not None:
        asked = fingerprint_of([str(path) for path in image_path], crops, quality=quality)
        other = differences(cache.made_from, asked)
        if other:
            raise ValueError(
                f"{cache.folder} holds a crop cache made from other things: {other}; build_crop_cache with "
                "replace=True makes it anew"
            )
    cache.check_files()
    if images is not None:
        if image_path is None:
            raise ValueError("images can be checked only with their image_path")
        changed = cache.changed_images(images, image_path)  # type: ignore[arg-type]
        if changed:
            raise ValueError(
                f"{len(changed)} images changed since they were cut, {changed[0]!r} first; {_AGAIN}"
            )
    return cache


def _index_of(folder: Path) -> Table:
    try:
        return open_table(folder / INDEX)
    except FileNotFoundError:
        begun = any(folder.glob("*.jpegs"))
        state = "a crop cache that is not finished" if begun else "no crop cache"
        raise FileNotFoundError(f"{folder}: {state}; {_AGAIN}") from None
    except StoreError as error:
        raise ValueError(f"{error}; {_AGAIN}") from None


def _reopened(folder: str, build: str) -> CropCache:
    cache = CropCache(folder)
    if cache._table.meta["build"] != build:
        raise ValueError(f"{folder}: the crop cache was built anew since it was opened; open it again")
    return cache
