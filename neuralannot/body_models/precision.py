"""Products of matrices in all of their bits, whatever the training loop around has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

_EXACT = ("ieee", "none")


def full_precision(kind: str) -> AbstractContextManager[Any]:
    """No autocast, TF32 or bfloat16 in products on devices of `kind` (`cpu`, `cuda`) inside.

    Ten bits of mantissa put a vertex a metre from the origin off by half a millimetre. The value that was
    found is set again afterwards; a compiler keeps what is set when it compiles. The settings are the
    process's: threads that pose with TF32 allowed should turn it off for good.
    """
    autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    if torch.compiler.is_compiling():
        return torch.autocast(kind, enabled=False) if autocast else nullcontext()
    settings = _inexact(kind)
    return _exact(kind, autocast, settings) if autocast or settings else nullcontext()


@contextmanager
def _exact(kind: str, autocast: bool, settings: list[tuple[Any, str, Any]]) -> Iterator[None]:
    for place, name, value in settings:
        setattr(place, name, "ieee" if isinstance(value, str) else False)
    try:
        if autocast:
            with torch.autocast(kind, enabled=False):
                yield
        else:
            yield
    finally:
        for place, name, value in settings:
            setattr(place, name, value)


def _inexact(kind: str) -> list[tuple[Any, str, Any]]:
    """Settings of `kind` that let products lose bits: (where, name, value)."""
    places = {"cuda": torch.backends.cuda.matmul, "cpu": getattr(torch.backends.mkldnn, "matmul", None)}
    place = places.get(kind)
    if place is None:
        return []
    # Either the newer of torch's two interfaces or the older one: it refuses to have them mixed.
    if hasattr(place, "fp32_precision"):
        value = place.fp32_precision
        return [] if value in _EXACT else [(place, "fp32_precision", value)]
    return [(place, "allow_tf32", True)] if getattr(place, "allow_tf32", False) else []
