"""Crops in batches: `crop_loader`, whose order follows from seed and epoch, and `CropDataset`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from neuralannot.train.crop_cache import CropCache

__all__ = ["CropDataset", "CropLoader", "crop_loader"]

Batch = tuple[torch.Tensor, torch.Tensor]


class CropDataset(Dataset[tuple[int, torch.Tensor]]):
    """Crops of a cache for any `DataLoader`: sample k is (row, (3, size, size) uint8 RGB tensor).

    `rows` (M,) of the cache, None for all that are usable. Raises ValueError for rows without a crop.
    """

    def __init__(self, cache: CropCache, rows: Sequence[int] | np.ndarray | None = None) -> None:
        self.cache, self.rows = cache, _usable(cache, rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        row = int(self.rows[index])
        return row, torch.from_numpy(self.cache[row]).permute(2, 0, 1)


class CropLoader:
    """Batches (rows (B,) int64, images (B, 3, size, size) uint8, channels last in memory) of one epoch after
    another.

    See `crop_loader`. Iterating gives the epoch's batches from `skip` on; `len(loader)` is how many these
    are, `loader.batches` how many an epoch has. `set_epoch` says which epoch comes next.
    """

    def __init__(self, order: _Order, loader: DataLoader[Batch]) -> None:
        self._order, self._loader = order, loader

    @property
    def batches(self) -> int:
        """How many batches an epoch has, the same on every rank."""
        return self._order.batches

    @property
    def epoch(self) -> int:
        """The epoch whose order the next iteration has."""
        return self._order.epoch

    def set_epoch(self, epoch: int, *, skip: int = 0) -> None:
        """The next iteration is of this epoch, without its first `skip` batches, which are not read."""
        self._order.set(epoch, skip)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader)


def crop_loader(
    cache: CropCache,
    rows: Sequence[int] | np.ndarray | None,
    batch_size: int,
    *,
    workers: int = 0,
    seed: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
    rank: int = 0,
    world: int = 1,
    epoch: int = 0,
    skip: int = 0,
    pin_memory: bool = False,
    context: str | None = None,
) -> CropLoader:
    """Batches of crops for training, the same for every number of processes.

    `rows` (M,) of the cache, None for all usable ones. `batch_size`: of all ranks together; each of `world`
    ranks gets an equal part of every batch, contiguous, rank 0 the first, so that the parts joined are the
    batch of a single process. The last batch of an epoch may be smaller and its parts unequal, empty even,
    unless `drop_last`: weight losses by the number of rows. The order follows from `seed` and epoch alone;
    without `shuffle` it is that of `rows`. `epoch` and `skip`: where to begin (`CropLoader.set_epoch`).
    `workers`: processes of this rank that decode, 0 for none; `context`: how they start, "fork" or "spawn".

    Raises ValueError for rows without a crop, a batch that does not divide by `world`, a rank outside of it,
    and numbers out of range.
    """
    order = _Order(
        _usable(cache, rows),
        batch_size,
        seed=seed,
        shuffle=shuffle,
        drop_last=drop_last,
        rank=rank,
        world=world,
    )
    order.set(epoch, skip)
    loader: DataLoader[Any] = DataLoader(
        _Batches(cache),
        batch_size=None,  # a sample is a batch
        sampler=order,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        multiprocessing_context=context if workers else None,
    )
    return CropLoader(order, loader)


class _Order(Sampler[np.ndarray]):
    """This rank's rows of each batch of an epoch."""

    def __init__(
        self,
        rows: np.ndarray,
        batch: int,
        *,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        rank: int,
        world: int,
    ) -> None:
        if batch < 1 or world < 1 or batch % world:
            raise ValueError(f"batch_size must be a multiple of the {world} processes, got {batch}")
        if not 0 <= rank < world:
            raise ValueError(f"rank must be from 0 to {world - 1}, got {rank}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self._rows, self._batch, self._seed, self._shuffle = rows, batch, seed, shuffle
        self._rank, self._world = rank, world
        self.batches = len(rows) // batch if drop_last else -(-len(rows) // batch)
        self.epoch = self._skip = 0

    def set(self, epoch: int, skip: int) -> None:
        if epoch < 0 or not 0 <= skip <= self.batches:
            raise ValueError(
                f"epoch must not be negative and skip from 0 to {self.batches}, got {epoch} and {skip}"
            )
        self.epoch, self._skip = epoch, skip

    def __len__(self) -> int:
        return self.batches - self._skip

    def __iter__(self) -> Iterator[np.ndarray]:
        order = np.arange(len(self._rows))
        if self._shuffle:
            order = np.random.default_rng((self._seed, self.epoch)).permutation(len(self._rows))
        for number in range(self._skip, self.batches):
            batch = order[number * self._batch : (number + 1) * self._batch]
            first, last = (len(batch) * k // self._world for k in (self._rank, self._rank + 1))
            yield self._rows[batch[first:last]]


class _Batches(Dataset[Batch]):
    """Rows -> their batch."""

    def __init__(self, cache: CropCache) -> None:
        self._cache = cache

    def __getitem__(self, rows: np.ndarray) -> Batch:
        return torch.from_numpy(rows), self._cache.batch(rows)


def _usable(cache: CropCache, rows: Sequence[int] | np.ndarray | None) -> np.ndarray:
    """(M,) int64 rows, found to have crops."""
    if rows is None:
        return np.flatnonzero(cache.usable)
    found = np.asarray(rows, np.int64)
    if found.ndim != 1:
        raise ValueError(f"rows must be (M,) row numbers, got {found.shape}")
    if len(found) and not (found.min() >= 0 and found.max() < len(cache)):
        raise ValueError(f"rows must be from 0 to {len(cache) - 1}, got {found.min()} to {found.max()}")
    without = found[~cache.usable[found]]
    if len(without):
        raise ValueError(
            f"{len(without)} rows have no crop, row {without[0]} first; leave out rows where cache.usable "
            "is False"
        )
    return found


def _as_it_is(batch: Any) -> Any:
    return batch
