"""Batches for training: the same ones, in the same order, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from neuralannot.train.config import TrainConfig
from neuralannot.train.crop_cache import CropCache
from neuralannot.train.distributed import World
from neuralannot.train.run import TrainingData
from neuralannot.train.targets import Targets

# What is drawn from the seed is drawn apart for each purpose.
_ORDER, _HIDDEN = 1, 2


@dataclass(frozen=True, eq=False)
class Batch:
    """This process's share of a batch of `whole` samples.

    `rows`: (B,) int64 of the training data; `images`: (B, 3, S, S) uint8, None where the network sees none;
    `targets`: theirs; `hidden`: (B, K) bool, joints not to be seen, None where none is hidden.
    """

    rows: Tensor
    images: Tensor | None
    targets: Targets
    hidden: Tensor | None
    whole: int

    def to(self, device: torch.device) -> Batch:
        """The same on another device; the row numbers stay."""
        if device.type == "cpu":
            return self
        images = None if self.images is None else self.images.to(device, non_blocking=True)
        hidden = None if self.hidden is None else self.hidden.to(device, non_blocking=True)
        return replace(self, images=images, targets=self.targets.to(device), hidden=hidden)


def batches(data: TrainingData, config: TrainConfig, world: World, *, first_step: int = 0) -> Iterator[Batch]:
    """Batch after batch without end, beginning with step number `first_step` of the run.

    Every epoch has an order of its own, made from the seed. The rows that do not fill a batch wait for
    another epoch's order; a set smaller than a batch is one batch. What is hidden follows from seed and step.
    """
    rows = np.flatnonzero(data.usable)
    whole = min(config.batch, len(rows))
    if whole < world.size:
        raise ValueError(f"a batch of {whole} cannot be shared by {world.size} processes")
    schedule = _Schedule(rows, whole, config.seed, first_step)
    share = slice(world.rank, None, world.size)
    loaded = _loaded(data.caches, schedule, share, config, world)
    for step, (number, images) in enumerate(loaded, first_step):
        hidden = None
        if config.joint_dropout:
            hidden = _hidden(config, step, whole, data.targets.num_joints)[share]
        yield Batch(number, images, data.targets.rows(number), hidden, whole)


class _Schedule:
    """(whole,) row numbers of each batch, from step `first` on, without end."""

    def __init__(self, rows: np.ndarray, whole: int, seed: int, first: int) -> None:
        self._rows, self._whole, self._seed, self._first = rows, whole, seed, first

    def __iter__(self) -> Iterator[np.ndarray]:
        each = len(self._rows) // self._whole
        step = self._first
        while True:
            epoch, batch = divmod(step, each)
            order = np.random.default_rng((_ORDER, self._seed, epoch)).permutation(self._rows)
            for number in range(batch, each):
                yield order[number * self._whole : (number + 1) * self._whole]
                step += 1


def _loaded(
    caches: Sequence[CropCache], schedule: _Schedule, share: slice, config: TrainConfig, world: World
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """This process's row numbers and crops of each batch."""
    if not caches:
        for rows in schedule:
            yield torch.from_numpy(rows[share].copy()), None
    loader: DataLoader[tuple[Tensor, Tensor | None]] = DataLoader(
        _Decoded(caches),
        sampler=_Shares(schedule, share),
        batch_size=None,
        num_workers=config.workers,
        pin_memory=world.device.type == "cuda",
        prefetch_factor=4 if config.workers else None,
    )
    yield from loader


class _Shares:
    """One process's rows of each batch of a schedule."""

    def __init__(self, schedule: _Schedule, share: slice) -> None:
        self._schedule, self._share = schedule, share

    def __iter__(self) -> Iterator[np.ndarray]:
        for rows in self._schedule:
            yield rows[self._share]


class _Decoded(Dataset[tuple[Tensor, Tensor]]):
    """(B,) row numbers -> the same and their crops, (B, 3, S, S) uint8: a worker decodes a batch."""

    def __init__(self, caches: Sequence[CropCache]) -> None:
        self._caches = tuple(caches)
        self._starts = np.cumsum([0, *map(len, caches)])

    def __getitem__(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(rows.copy()), self.decode(rows)

    def decode(self, rows: np.ndarray) -> Tensor:
        """(B, 3, S, S) uint8."""
        which = np.searchsorted(self._starts, rows, side="right") - 1
        if (which == which[:1]).all():
            images: Tensor = self._caches[which[0]].batch(rows - self._starts[which[0]])
            return images
        numbers = np.unique(which)
        parts = [self._caches[n].batch(rows[which == n] - self._starts[n]) for n in numbers]
        order = np.concatenate([np.flatnonzero(which == n) for n in numbers])
        return torch.cat(parts)[torch.from_numpy(np.argsort(order))]


def decoded(caches: Sequence[CropCache], rows: np.ndarray) -> Tensor:
    """The crops of some rows, (B, 3, S, S) uint8, without workers."""
    return _Decoded(caches).decode(rows)


def _hidden(config: TrainConfig, step: int, whole: int, joints: int) -> Tensor:
    """(whole, K) bool: the joints that a batch's samples do not show."""
    drawn = np.random.default_rng((_HIDDEN, config.seed, step)).random((whole, joints), np.float32)
    return torch.from_numpy(drawn < config.joint_dropout)
