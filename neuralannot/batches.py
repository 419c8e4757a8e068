"""`collate`: samples as a batch, which comes from a worker in one piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

__all__ = ["collate"]

# Tensors up to this size are copied into one parcel. torch sends each tensor as a file descriptor of its own,
# which for the dozen small ones of a batch takes longer than making them.
_SMALL_BYTES = 1 << 20
_ALIGNMENT = 16
_OWN_BYTES = 1 << 16  # a tensor up to this size does not keep the parcel that it came in
_BOOLS = (bool, np.bool_)
_NUMBERS = (
    (_BOOLS, torch.bool),
    ((*_BOOLS, int, np.integer), torch.int64),
    ((*_BOOLS, int, np.integer, float, np.floating), torch.float32),
)

Sample = dict[str, Any]


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Samples -> one batch, the `collate_fn` of a DataLoader.

    The samples' keys, nested ones nested: `model(**batch["params"])` works. Arrays and tensors become
    (B, ...) tensors of their type, or a list of B tensors where their shapes differ, as images' do; bools
    (B,) bool, integers (B,) int64, numbers with a float among them (B,) float32, frame keys (B, K) int64;
    text and anything else a list of B. Raises ValueError for no samples, and where not all have the same
    keys; TypeError for a sample that is no dict.
    """
    if not samples:
        raise ValueError("there are no samples to collate")
    for sample in samples:
        if not isinstance(sample, Mapping):
            raise TypeError(
                f"samples must be dicts, got {type(sample).__name__}; drop samples in the sampler"
            )
    names = samples[0].keys()
    for number, sample in enumerate(samples):
        if sample.keys() != names:
            odd = ", ".join(sorted(map(str, names ^ sample.keys())))
            raise ValueError(f"samples 0 and {number} of a batch: only one of them has {odd}")
    batch = {name: _collated([sample[name] for sample in samples]) for name in names}
    return batch if get_worker_info() is None else _Parcel(batch)


def _collated(values: list[Any]) -> Any:
    first = values[0]
    if all(isinstance(value, Mapping) for value in values):
        return dict(collate(values))
    if all(isinstance(value, torch.Tensor) for value in values):
        return torch.stack(values) if _same_shapes(values) else values
    if all(isinstance(value, np.ndarray) and value.dtype.kind in "biuf" for value in values):
        if _same_shapes(values):
            return torch.from_numpy(np.array(values))
        return [torch.from_numpy(np.array(value)) for value in values]
    # Of numbers the widest kind that is among them decides, not the first: 1, 1.25 are floats.
    for kinds, dtype in _NUMBERS:
        if all(isinstance(value, kinds) for value in values):
            return torch.tensor(values, dtype=dtype)
    tuples = all(isinstance(value, tuple) and len(value) == len(first) for value in values)
    if tuples and all(isinstance(number, int) for value in values for number in value):
        return torch.tensor(values, dtype=torch.int64)
    return values


def _same_shapes(values: list[Any]) -> bool:
    return len({value.shape for value in values}) == 1


# --- from worker to reader


class _Parcel(dict[str, Any]):
    """A batch that pickles as one piece of memory and becomes a dict of tensors again."""

    def __reduce__(self) -> tuple[Callable[..., dict[str, Any]], tuple[Any, torch.Tensor | bytearray]]:
        if get_worker_info() is not None:
            # Pickled by a thread of its own, which knows nothing of the worker's being limited to one core;
            # in a process that was forked, OpenMP would wait for threads that are not there.
            torch.set_num_threads(1)
        load = _Load()
        tree = load.packed(dict(self), _SMALL_BYTES)
        memory = np.concatenate([np.zeros(0, np.uint8), *load.pieces])
        # A small one goes through the pipe, a large one as one tensor in shared memory.
        small = len(memory) <= _SMALL_BYTES
        return _opened, (tree, bytearray(memory) if small else torch.from_numpy(memory))


@dataclass(frozen=True)
class _Place:
    """Where in the parcel a tensor is: its first byte and the one after its last."""

    first: int
    last: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class _Load:
    """What goes into a parcel: `pieces`, uint8 arrays one after another."""

    def __init__(self) -> None:
        self.pieces: list[np.ndarray] = []
        self._end = 0

    def packed(self, value: Any, limit: float) -> Any:
        """`value` with the tensors of at most `limit` bytes, and any that are in lists, replaced by places.

        A list has a tensor for each sample: sent one by one, a loader with some workers and batches ahead
        would run out of file descriptors.
        """
        if isinstance(value, dict):
            return {name: self.packed(each, limit) for name, each in value.items()}
        if type(value) is list:
            return [self.packed(each, float("inf")) for each in value]
        if not isinstance(value, torch.Tensor) or value.device.type != "cpu" or value.layout != torch.strided:
            return value
        if value.nbytes > limit or value.requires_grad:
            return value
        try:
            raw = value.contiguous().view(-1).view(torch.uint8).numpy() if value.nbytes else None
        except (RuntimeError, TypeError):
            # Of a kind without bytes of its own. An error in this thread would leave the loader waiting.
            return value
        first = self._end
        if raw is None:
            return _Place(first, first, value.dtype, tuple(value.shape))
        self.pieces.append(raw)
        self.pieces.append(np.zeros(-value.nbytes % _ALIGNMENT, np.uint8))
        self._end += value.nbytes + len(self.pieces[-1])
        return _Place(first, first + value.nbytes, value.dtype, tuple(value.shape))


def _opened(tree: Any, memory: torch.Tensor | bytearray) -> Any:
    """What was packed; larger tensors share `memory`, the others have their own."""
    if isinstance(memory, bytearray):
        memory = torch.frombuffer(memory, dtype=torch.uint8) if memory else torch.zeros(0, dtype=torch.uint8)
    return _unpacked(tree, memory)


def _unpacked(value: Any, memory: torch.Tensor) -> Any:
    if isinstance(value, dict):
        return {name: _unpacked(each, memory) for name, each in value.items()}
    if type(value) is list:
        return [_unpacked(each, memory) for each in value]
    if not isinstance(value, _Place):
        return value
    if value.first == value.last:
        return torch.zeros(value.shape, dtype=value.dtype)
    flat = memory[value.first : value.last]
    # Own memory: who keeps the ids of all batches does not keep the batches.
    flat = flat.clone() if len(flat) <= _OWN_BYTES else flat
    return flat.view(value.dtype).view(value.shape)
