"""Columns on disk: named arrays in one safetensors file that is mapped, not read, and shared by processes."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import mmap
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from neuralannot.atomic import whole_file

FORMAT = "neuralannot-columns"
VERSION = "2"  # goes up whenever the columns made from a file change
SUFFIX = ".columns.safetensors"
CACHE_VARIABLE = "NEURALANNOT_CACHE"

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "I64": np.int64,
    "I32": np.int32,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16
_STALE_SECONDS = 3600.0


class StoreError(ValueError):
    """A columns file that is not whole, not ours, or of another version."""


@dataclass(frozen=True, eq=False)
class Table:
    """Named read-only arrays and text metadata. From a file, it pickles as the file's path: workers map it.

    `columns`: name -> array; `meta`: str -> str; `path`: the mapped file, None for arrays in memory.
    """

    columns: Mapping[str, np.ndarray]
    meta: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __reduce__(self) -> tuple[Callable[..., Table], tuple[object, ...]]:
        if self.path is None:
            return Table, (dict(self.columns), dict(self.meta))
        return _reopen, (str(self.path), self.meta["build"])


def _reopen(path: str, build: str) -> Table:
    table = open_table(path)
    if table.meta.get("build") != build:
        raise ValueError(f"{path}: rewritten since it was opened; load the pseudo ground truth again")
    return table


def open_table(path: str | Path) -> Table:
    """Map a columns file. Raises StoreError where it is cut short or not one of ours, FileNotFoundError."""
    path = Path(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise StoreError(f"{path}: not a columns file: {size} bytes")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    length = int.from_bytes(mapped[:8], "little")
    if not 2 <= length <= size - 8:
        raise StoreError(f"{path}: not a columns file: header of {length} bytes in a file of {size}")
    try:
        header = json.loads(mapped[8 : 8 + length])
        meta = header.pop("__metadata__", {})
        if meta.get("format") != FORMAT or meta.get("version") != VERSION:
            raise StoreError(
                f"{path}: written as {meta.get('format')} version {meta.get('version')}; "
                f"expected {FORMAT} version {VERSION}"
            )
        columns = {name: _column(mapped, 8 + length, entry) for name, entry in header.items()}
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (KeyError, TypeError, IndexError, AttributeError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path}: not a whole columns file: {error}") from None
    if end != size:
        raise StoreError(f"{path}: cut short: expected {end} bytes, got {size}")
    # Absolute, since a worker that maps it again may run in another folder.
    return Table(MappingProxyType(columns), MappingProxyType(meta), Path(os.path.abspath(path)))


def _column(mapped: mmap.mmap, start: int, entry: dict[str, Any]) -> np.ndarray:
    first, last = entry["data_offsets"]
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    shape = tuple(entry["shape"])
    count = int(np.prod(shape, dtype=np.int64))
    if not 0 <= first <= last or count * dtype.itemsize != last - first:
        raise ValueError(f"a column of shape {shape} in {last - first} bytes")
    if count == 0:
        empty = np.zeros(shape, dtype)
        empty.flags.writeable = False
        return empty
    return np.frombuffer(mapped, dtype, count, start + first).reshape(shape)


def write_table(path: str | Path, columns: Mapping[str, np.ndarray], meta: Mapping[str, str]) -> None:
    """Write columns to `path` in one step: readers see the old file or the whole new one.

    The file is what the safetensors library reads. Its own writer is not used: its temporary file cannot be
    told from others' once a writer was killed, and only the owner may read what it wrote.

    Raises OSError where the folder cannot be written; nothing is left behind then. TypeError for arrays of a
    type that no column has.
    """
    path = Path(path)
    stamped = {**meta, "format": FORMAT, "version": VERSION, "build": _build(columns, meta)}
    with whole_file(path) as part, part.open("wb") as file:
        _write_columns(file, columns, stamped)
    _sweep(path)


def _build(columns: Mapping[str, np.ndarray], meta: Mapping[str, str]) -> str:
    """What tells these columns from others: where they came from or, for saved ones, what is in them.

    The same from whichever process: what one of ten wrote last is what the other nine have mapped.
    """
    digest = hashlib.blake2b(json.dumps(dict(meta), sort_keys=True).encode(), digest_size=16)
    for name in sorted(columns):
        digest.update(f"{name}{columns[name].dtype}{columns[name].shape}".encode())
        if "source" not in meta:
            digest.update(np.ascontiguousarray(columns[name]).data)
    return digest.hexdigest()


def _write_columns(file: BinaryIO, columns: Mapping[str, np.ndarray], meta: Mapping[str, str]) -> None:
    """The safetensors format: the header's length, a JSON header, the arrays one after another."""
    header: dict[str, object] = {"__metadata__": dict(meta)}
    end = 0
    # The widest numbers first: every array is then aligned to its own.
    ordered = sorted(columns.items(), key=lambda item: -item[1].dtype.itemsize)
    for name, values in ordered:
        code = _CODES.get(values.dtype)
        if code is None:
            raise TypeError(
                f"column {name!r} is of {values.dtype}; expected one of {', '.join(map(str, _CODES))}"
            )
        header[name] = {"dtype": code, "shape": values.shape, "data_offsets": (end, end + values.nbytes)}
        end += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, values in ordered:
        file.write(np.ascontiguousarray(values).data)


def _sweep(path: Path) -> None:
    """Remove what writers that were killed left beside `path`."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()


def fingerprint(path: Path) -> str:
    """What says that a file is unchanged: size, times, inode, and a hash of blocks sampled over it."""
    with path.open("rb") as file:
        stat = os.fstat(file.fileno())
        digest = hashlib.blake2b(digest_size=16)
        last = max(stat.st_size - _SAMPLE_BYTES, 0)
        for k in range(_SAMPLES):
            file.seek(last * k // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}-{stat.st_ino}-{digest.hexdigest()}"


def cache_folder() -> Path:
    """Where columns go when the data folder cannot be written: $NEURALANNOT_CACHE or the user's cache."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuralannot"


def cached_table(
    source: Path,
    read: Callable[[], tuple[Mapping[str, np.ndarray], Mapping[str, str]]],
    *,
    key: str,
    cache: bool = True,
) -> Table:
    """The columns of `source`, mapped from the cache while the file is unchanged, otherwise read and cached.

    `read()` gives columns and metadata; `key` says what was read from the file (the release's name, say), so
    that one file read two ways has two caches. The cache stands beside `source`, or in `cache_folder()` where
    that folder cannot be written; where neither can, the columns stay in memory and a warning says so.
    """
    if not cache:
        columns, meta = read()
        return Table(_read_only(columns), meta)
    before = fingerprint(source)
    places = [source.with_name(f"{source.name}.{key}{SUFFIX}"), _away(source, key)]
    for place in places:
        table = _open_if_current(place, before)
        if table is not None:
            return table
    columns, meta = read()
    if fingerprint(source) != before:
        raise ValueError(f"{source}: changed while it was being read; load again when it is written")
    failures = []
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_table(place, columns, {**meta, "source": before})
            return open_table(place)
        except (OSError, StoreError) as error:
            failures.append(str(error))
    warnings.warn(
        f"{source}: columns are kept in memory, every process its own: no cache could be written "
        f"({'; '.join(failures)}); set {CACHE_VARIABLE} to a folder that can be",
        stacklevel=2,
    )
    return Table(_read_only(columns), meta)


def _read_only(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Views that cannot be written to, as mapped columns cannot: callers see no difference."""
    views = {name: values.view() for name, values in columns.items()}
    for values in views.values():
        values.flags.writeable = False
    return views


def _away(source: Path, key: str) -> Path:
    where = hashlib.blake2b(str(source.resolve()).encode(), digest_size=8).hexdigest()
    return cache_folder() / f"{source.name}.{key}.{where}{SUFFIX}"


def _open_if_current(place: Path, source: str) -> Table | None:
    try:
        table = open_table(place)
    except (OSError, StoreError):
        return None  # absent, cut short or of another version: read the source again
    return table if table.meta.get("source") == source else None


def derived_table(
    place: Path, source: str, make: Callable[[], Mapping[str, np.ndarray]], *, away: bool = False
) -> Table:
    """Columns made from other tables, kept at `place` while `source`, which names what they came from, holds.

    With `away`, in `cache_folder()` where `place` cannot be written. In memory where nothing can.
    """
    places = [place, _away(place, "derived")] if away else [place]
    for kept in places:
        table = _open_if_current(kept, source)
        if table is not None:
            return table
    columns = make()
    for kept in places:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_table(kept, columns, {"source": source})
            return open_table(kept)
        except (OSError, StoreError):
            continue
    return Table(_read_only(columns))
