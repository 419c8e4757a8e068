"""What the command line decides for every benchmark."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value")
MODELS = ("smpl", "smplx", "mano", "flame")


@dataclass(frozen=True)
class Options:
    """`None` stands for a benchmark's own default. `quick`: tiny sizes that finish in seconds."""

    quick: bool = False
    repeats: int | None = None
    batch: tuple[int, ...] | None = None
    count: int | None = None
    workers: int | None = None
    models: tuple[str, ...] | None = None
    device: str | None = None

    def repeated(self, default: int) -> int:
        """How many times every side runs."""
        return self.of(self.repeats, default, 2)

    def batches(self, default: tuple[int, ...], quick: tuple[int, ...] = (2,)) -> tuple[int, ...]:
        """The batch sizes."""
        return self.of(self.batch, default, quick)

    def chosen(self, models: tuple[str, ...] = MODELS) -> tuple[str, ...]:
        """The human models, of those that the benchmark knows."""
        return tuple(m for m in models if self.models is None or m in self.models)

    def of(self, given: Value | None, default: Value, quick: Value) -> Value:
        """What was given, or else the default."""
        if given is not None:
            return given
        return quick if self.quick else default


def say(text: str) -> None:
    """A line of progress, apart from the results."""
    print(f"... {text}", file=sys.stderr, flush=True)
