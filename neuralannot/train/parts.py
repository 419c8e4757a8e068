"""`Parts`: what is made of many rows, chunk by chunk, shared by processes and kept for a run that goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from neuralannot.store import open_table, write_table
from neuralannot.train.distributed import World

Columns = dict[str, np.ndarray]
CHUNK = 2048


@dataclass(frozen=True, eq=False)
class Parts:
    """Of `rows` (M,), in ascending order, for the processes of `world`; `stamp`: tells what is made from
    what other samples, networks or options would make."""

    rows: np.ndarray
    world: World
    stamp: str
    progress: bool = False

    def made(
        self,
        folder: Path,
        compute: Callable[[Sequence[np.ndarray]], Iterable[Columns]],
        *,
        stamp: str = "",
    ) -> Columns:
        """Columns (M, ...) of all rows: what `compute` yields for chunks of them, or what is in `folder`
        already under this stamp (and `stamp`)."""
        stamp = self.stamp + stamp
        chunks = [self.rows[first : first + CHUNK] for first in range(0, len(self.rows), CHUNK)]
        todo = [
            number
            for number in range(self.world.rank, len(chunks), self.world.size)
            if not is_done(_file(folder, number), stamp)
        ]
        folder.mkdir(exist_ok=True)
        made = iter(compute([chunks[number] for number in todo]))
        for number in tqdm(todo, unit="part", disable=not (self.progress and self.world.is_first)):
            write_table(_file(folder, number), {"row": chunks[number], **next(made)}, {"stamp": stamp})
        self.world.barrier()
        parts = [open_table(_file(folder, number)) for number in range(len(chunks))]
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0] if name != "row"}

    def once(self, path: Path, make: Callable[[], Mapping[str, np.ndarray]], *, stamp: str) -> Columns:
        """Columns that the first process makes for all, kept in a file of their own: made again they might
        differ by rounding, and so would every part that rests on them."""
        stamp = self.stamp + stamp
        if self.world.is_first and not is_done(path, stamp):
            path.parent.mkdir(exist_ok=True)
            write_table(path, dict(make()), {"stamp": stamp})
        self.world.barrier()
        table = open_table(path)
        return {name: table[name] for name in table}

    def places(self, chunk: np.ndarray) -> np.ndarray:
        """Where in `rows` the rows of a chunk are."""
        return np.searchsorted(self.rows, chunk)


def is_done(path: Path, stamp: str) -> bool:
    """Whether a whole file of this stamp is there."""
    try:
        return open_table(path).meta.get("stamp") == stamp
    except (FileNotFoundError, ValueError):
        return False


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.safetensors"
