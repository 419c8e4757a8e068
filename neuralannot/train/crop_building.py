"""Building a crop cache: what is missing of it is made, by several processes, and then its index is
written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.columns import bytes_to_texts, texts_to_bytes
from neuralannot.store import SUFFIX, StoreError, Table, open_table, write_table
from neuralannot.train.crop_shards import (
    PER_ROW,
    REASONS,
    ShardTask,
    make_shard,
    shards_of,
    state_of,
    usable_cores,
)
from neuralannot.train.crops import Crops

try:
    import fcntl
except (
    ImportError
):  # not on Windows: builders of one folder then do the same work twice, with the same result
    fcntl = None  # type: ignore[assignment]

__all__ = ["INDEX", "LAYOUT", "bring_up_to_date", "differences", "fingerprint_of"]

INDEX = f"index{SUFFIX}"
_VERSION = "1"  # goes up whenever other JPEGs are made from the same crops
#: What is about the files of a cache and not about its crops.
LAYOUT = "crops a shard"
# Few crops are still spread over many processes; many make files of some 100 MB.
_SHARDS, _FEWEST, _MOST = 64, 64, 4096
_POLL_SECONDS = 0.2
_WORTH_PROCESSES = 2000  # crops; fewer are cut before processes have started


def fingerprint_of(
    image_path: Sequence[str], crops: Crops, *, quality: int | None = None, shard: int | None = None
) -> dict[str, str]:
    """What determines the crops, part by part; parts that are None are left out."""
    boxes = np.where(crops.valid[:, None], crops.box_xywh, 0)
    parts = {
        "version": _VERSION,
        "crops": str(len(crops)),
        "size": str(crops.size),
        "image paths": _digest("\0".join(image_path).encode()),
        "image sizes": _digest(np.ascontiguousarray(crops.image_size, np.int64)),
        "boxes": _digest(np.ascontiguousarray(boxes, np.float32), crops.valid),
        "mirrored": _digest(crops.flip),
    }
    optional = {"quality": quality, LAYOUT: shard}
    return parts | {name: str(value) for name, value in optional.items() if value is not None}


def differences(made: Mapping[str, str], asked: Mapping[str, str]) -> str:
    """In words, how what a cache was made from differs from what is asked, as far as that says; "" if not."""
    found = []
    for name, value in asked.items():
        if made.get(name) != value:
            digests = name in ("image paths", "image sizes", "boxes", "mirrored")
            found.append(f"other {name}" if digests else f"{name} {made.get(name)}, asked {value}")
    return "; ".join(found)


def bring_up_to_date(
    folder: Path,
    *,
    images: Path,
    image_path: Sequence[str],
    crops: Crops,
    quality: int,
    shard: int | None,
    workers: int | None,
    strict: bool,
    replace: bool,
    progress: bool,
) -> None:
    """Make what is not there yet or no longer holds; see `neuralannot.train.crop_cache.build_crop_cache`."""
    image_path = [str(path) for path in image_path]
    if len(image_path) != len(crops):
        raise ValueError(f"image_path must be {len(crops)}, one a crop, got {len(image_path)}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality must be from 1 to 100, got {quality}")
    for name, value, least in (("shard", shard, 1), ("workers", workers, 0)):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: no such folder of images")
    shard = shard or int(np.clip(-(-len(crops) // _SHARDS), _FEWEST, _MOST))
    parts = fingerprint_of(image_path, crops, quality=quality, shard=shard)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder) as alone:
        if alone:
            _sweep(folder)
        _check_or_clear(folder, parts, replace)
        tasks = [
            ShardTask(
                folder=folder,
                number=number,
                images=images,
                rows=rows,
                image_path=[image_path[row] for row in rows],
                crops=crops.rows(rows),
                quality=quality,
                strict=strict,
                fingerprint=json.dumps(parts),
            )
            for number, rows in enumerate(shards_of(image_path, shard))
        ]
        index = _opened(folder / INDEX)
        todo = [task for task in tasks if not _is_finished(task, index)]
        if todo or index is None:
            _make(todo, len(tasks), len(crops), workers=workers, progress=progress)
            _write_index(folder, tasks, index, len(crops), parts)
        for task in tasks:
            task.columns.unlink(missing_ok=True)


# --- what is there


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[bool]:
    """Wait until no other process builds in `folder`. False where the system or the disk has no locks.

    The lock ends with the process, however it ends.
    """
    with (folder / ".lock").open("w") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            alone = fcntl is not None
        except OSError:
            alone = False
        yield alone


def _sweep(folder: Path) -> None:
    """Remove what builders that were killed left: nobody else is building."""
    for left in (*folder.glob(".*.jpegs.*.tmp"), *folder.glob(f".*{SUFFIX}.*.tmp")):
        left.unlink(missing_ok=True)


def _check_or_clear(folder: Path, parts: Mapping[str, str], replace: bool) -> None:
    """Raise, or remove it all, where what is in the folder was made from other things."""
    for place in sorted(folder.glob(f"*{SUFFIX}"), reverse=True):  # the index, if there is one, first
        table = _opened(place)
        if table is None:
            place.unlink(missing_ok=True)  # damaged: what it described is made again
            continue
        try:
            other = differences(json.loads(table.meta["fingerprint"]), parts)
        except (KeyError, ValueError):
            raise ValueError(f"{place} is not of a crop cache; give the cache a folder of its own") from None
        if not other:
            return
        if not replace:
            raise ValueError(
                f"{folder} holds a crop cache made from other things: {other}; delete that folder, or give "
                "another (--crops; replace=True of build_crop_cache makes it anew)"
            )
        break
    else:
        return
    for pattern in (f"*{SUFFIX}", "*.jpegs"):  # first what says that the others are finished
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)


def _opened(path: Path) -> Table | None:
    try:
        return open_table(path)
    except (FileNotFoundError, StoreError):
        return None


def _is_finished(task: ShardTask, index: Table | None) -> bool:
    """Whether a shard is there, whole, and made from the images as they are now."""
    table = _opened(task.columns)
    if table is not None:
        length, states = int(table["shard_bytes"][0]), _states(table, slice(None))
    elif index is not None:
        length, states = int(index["shard_bytes"][task.number]), _states(index, task.rows)
    else:
        return False
    if not task.data.is_file() or task.data.stat().st_size != length:
        return False
    seen: dict[str, tuple[int, int]] = {}
    for path, state in zip(task.image_path, states, strict=True):
        if path not in seen:
            seen[path] = state_of(task.images / path)
        if seen[path] != state:
            return False
    return True


def _states(table: Table, rows: slice | np.ndarray) -> list[tuple[int, int]]:
    return list(zip(*(table[name][rows].tolist() for name in ("image_bytes", "image_mtime_ns")), strict=True))


def _write_index(
    folder: Path, tasks: Sequence[ShardTask], old: Table | None, count: int, parts: Mapping[str, str]
) -> None:
    """Put the shards' columns together, those that were made now and those that `old` has."""
    tables = {task.number: table for task in tasks if (table := _opened(task.columns)) is not None}
    columns = {name: np.zeros(count, dtype) for name, dtype in PER_ROW.items()}
    shard_bytes = np.zeros(len(tasks), np.int64)
    details: dict[int, str] = {}
    if old is not None:
        kept = _details(old).items()
        details = {row: detail for row, detail in kept if int(old["shard"][row]) not in tables}
    for task in tasks:
        table = tables.get(task.number)
        source, rows = (old, task.rows) if table is None else (table, slice(None))
        if source is None:
            raise FileNotFoundError(f"{task.columns}: gone since it was made; build the cache again")
        for name in PER_ROW:
            columns[name][task.rows] = source[name][rows]
        shard_bytes[task.number] = source["shard_bytes"][task.number if table is None else 0]
        details |= {} if table is None else _details(table)
    if count and columns["reason"].all():
        raise ValueError(
            f"none of {count} crops can be made; row 0: {REASONS[columns['reason'][0] - 1]}: {details[0]}"
        )
    skipped = sorted(details)
    columns |= {
        "shard_bytes": shard_bytes,
        "skip_row": np.array(skipped, np.int64),
        "skip_detail": texts_to_bytes([details[row] for row in skipped]),
    }
    write_table(folder / INDEX, columns, {"fingerprint": json.dumps(parts)})


def _details(table: Table) -> dict[int, str]:
    return dict(zip(table["skip_row"].tolist(), bytes_to_texts(table["skip_detail"]).tolist(), strict=True))


# --- processes


def _make(
    tasks: Sequence[ShardTask], shards: int, crops: int, *, workers: int | None, progress: bool
) -> None:
    """Make shards, in this process or by several. Those that are finished stay when something fails."""
    from tqdm import tqdm

    missing = sum(len(task.rows) for task in tasks)
    if workers is None:
        workers = usable_cores() if missing >= _WORTH_PROCESSES else 1
    workers = min(workers, len(tasks))
    with tqdm(
        total=crops, initial=crops - missing, desc="crops", unit="crop", smoothing=0.05, disable=not progress
    ) as bar:
        if workers > 1:
            _make_in_processes(tasks, shards, workers, bar)
            return
        for task in tasks:
            with _explained(task, shards):
                make_shard(task, report=bar.update)


def _make_in_processes(tasks: Sequence[ShardTask], shards: int, workers: int, bar: Any) -> None:
    # Started afresh: a process that was forked has locks of threads that it does not have.
    context = multiprocessing.get_context("spawn")
    made, stop = context.Value("q", 0), context.Event()
    pool = ProcessPoolExecutor(workers, context, _begin_worker, (made, stop))
    waiting = iter(tasks)
    running: dict[Future[None], ShardTask] = {}
    start = bar.n
    try:
        # Not all at once: a task has its part of the paths and boxes.
        for task in islice(waiting, 2 * workers):
            running[pool.submit(_make_in_worker, task)] = task
        while running:
            done, _ = wait(running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            bar.update(start + made.value - bar.n)
            for future in done:
                with _explained(running.pop(future), shards):
                    future.result()
                for task in islice(waiting, 1):
                    running[pool.submit(_make_in_worker, task)] = task
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _explained(task: ShardTask, shards: int) -> Iterator[None]:
    """Errors of one shard: which it is, and that the others need not be made again."""
    where = f"crop cache {task.folder}, shard {task.number + 1} of {shards}"
    advice = "finished shards are kept: build again when the cause is removed"
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{where}: {error}; {advice}") from error
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"{where}: a worker process ended: killed, out of memory, or started by a script that does not "
            f'begin its work under `if __name__ == "__main__":`; {advice}'
        ) from error


_made: Any = None  # of a worker process: how many crops all of them have made
_stop: Any = None  # and whether they are to give up


def _begin_worker(made: Any, stop: Any) -> None:
    import cv2

    global _made, _stop
    _made, _stop = made, stop
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's workers would wait for work for ever if the process that started them were killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make_in_worker(task: ShardTask) -> None:
    make_shard(task, report=_count, stopped=_stop.is_set)


def _count(crops: int) -> None:
    with _made.get_lock():
        _made.value += crops


def _digest(*values: bytes | np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        digest.update(value if isinstance(value, bytes) else np.ascontiguousarray(value).data)
    return digest.hexdigest()
