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

Sample = dict[str, Any]


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Samples -> one batch, the `collate_fn` of a DataLoader.

    The samples' keys, nested ones nested: `model(**batch["params"])` works. Arrays and tensors become
    (B, ...) tensors of their type, or a list of B tensors where their shapes differ, as images' do; bools
    (B,) bool, integers (B,) int64, floats (B,) float32, frame keys (B, K) int64; text and anything else a
    list of B. Raises ValueError for no samples, and where not all have the same keys.
    """
    if not samples:
        raise ValueError("there are no samples to collate")
    names = samples[0].keys()
    for number, sample in enumerate(samples):
        if sample.keys() != names:
            odd = ", ".join(sorted(map(str, names ^ sample.keys())))
            raise ValueError(f"samples 0 and {number} of a batch: only one of them has {odd}")
    batch = {name: _collated([sample[name] for sample in samples]) for name in names}
    return batch if get_worker_info() is None else _Parcel(batch)


def _collated(values: list[Any]) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        return dict(collate(values))
    if isinstance(first, torch.Tensor):
        return torch.stack(values) if _same_shapes(values) else values
    if isinstance(first, np.ndarray):
        if first.dtype.kind not in "biuf":
            return values
        if _same_shapes(values):
            return torch.from_numpy(np.array(values))  # half the time of np.stack
        return [torch.from_numpy(np.array(value)) for value in values]
    if isinstance(first, (bool, np.bool_)):
        return torch.tensor(values, dtype=torch.bool)
    if isinstance(first, (int, np.integer)):
        return torch.tensor(values, dtype=torch.int64)
    if isinstance(first, (float, np.floating)):
        return torch.tensor(values, dtype=torch.float32)
    if isinstance(first, tuple) and all(isinstance(value, int) for value in first):
        return torch.tensor(values, dtype=torch.int64)
    return values


def _same_shapes(values: list[Any]) -> bool:
    return len({value.shape for value in values}) == 1


# --- from worker to reader


class _Parcel(dict[str, Any]):
    """A batch that pickles as one piece of memory and becomes a dict of tensors again."""

    def __reduce__(self) -> tuple[Callable[..., dict[str, Any]], tuple[Any, bytearray]]:
        memory = bytearray()
        return _unpacked, (_packed(dict(self), memory), memory)


@dataclass(frozen=True)
class _Place:
    """Where in the parcel a tensor is."""

    first: int
    last: int
    dtype: torch.dtype
    shape: tuple[int, ...]


def _packed(value: Any, memory: bytearray) -> Any:
    """`value` with its small tensors moved to `memory`."""
    if isinstance(value, dict):
        return {name: _packed(each, memory) for name, each in value.items()}
    if not isinstance(value, torch.Tensor) or value.device.type != "cpu" or value.layout != torch.strided:
        return value
    if value.nbytes > _SMALL_BYTES or value.requires_grad:
        return value
    first = len(memory)
    memory += value.contiguous().view(-1).view(torch.uint8).numpy().data
    last = len(memory)
    memory += bytes(-last % _ALIGNMENT)
    return _Place(first, last, value.dtype, tuple(value.shape))


def _unpacked(value: Any, memory: bytearray) -> Any:
    """What `_packed` was given; the tensors share `memory`."""
    if isinstance(value, dict):
        return {name: _unpacked(each, memory) for name, each in value.items()}
    if not isinstance(value, _Place):
        return value
    if value.first == value.last:
        return torch.empty(value.shape, dtype=value.dtype)
    count = (value.last - value.first) // value.dtype.itemsize
    flat = torch.frombuffer(memory, dtype=value.dtype, count=count, offset=value.first)
    return flat.view(value.shape)
