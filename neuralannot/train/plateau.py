"""When the training loss has converged: its mean over windows of steps, and what becomes of the rate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from neuralannot.train.config import TrainConfig

_FACTOR = 10.0


@dataclass
class Plateau:
    """The learning rate of a run, and whether it is over.

    The loss is averaged over windows of `window` steps. After `patience` windows in a row whose mean is not
    below the least so far by a share `gain`, the rate is divided by 10; after `drops` of these, the next
    time, the run has converged. `max_steps` (0: none) ends it in any case; at `drop_steps` the rate has
    fallen as often as steps are named, at the latest.
    """

    lr: float
    window: int
    patience: int
    gain: float
    drops: int
    max_steps: int
    drop_steps: tuple[int, ...] = ()
    least: float = float("inf")
    stale: int = 0
    dropped: int = 0
    total: float = 0.0
    has_converged: bool = False

    @classmethod
    def of(cls, config: TrainConfig, samples: int) -> Plateau:
        """The plateau of a run on so many samples: a window is an epoch at least."""
        epoch = -(-samples // config.batch)
        window = max(config.window, epoch)
        return cls(
            config.lr,
            window,
            config.patience,
            config.gain,
            config.lr_drops,
            config.max_steps,
            config.lr_drop_steps,
        )

    def is_over(self, step: int) -> bool:
        """Whether the run ends after `step` steps."""
        return self.has_converged or bool(self.max_steps and step >= self.max_steps)

    def lr_at(self, step: int) -> float:
        """The rate of the step after `step` steps; ask for it before each."""
        while self.dropped < min(self.drops, sum(step >= at for at in self.drop_steps)):
            self._drop()
        return self.lr

    def add(self, loss: float, step: int) -> None:
        """The loss of step number `step`, counted from 1."""
        self.total += loss
        if step % self.window:
            return
        mean, self.total = self.total / self.window, 0.0
        if mean < self.least * (1 - self.gain):
            self.least, self.stale = mean, 0
            return
        self.stale += 1
        if self.stale < self.patience:
            return
        self.stale = 0
        if self.dropped < self.drops:
            self._drop()
        else:
            self.has_converged = True

    def _drop(self) -> None:
        self.dropped += 1
        self.stale = 0
        self.lr /= _FACTOR

    def state(self) -> dict[str, Any]:
        """Plain values that `load` takes."""
        names = ("lr", "least", "stale", "dropped", "total", "has_converged")
        return {n: v for n, v in asdict(self).items() if n in names}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name, value in state.items():
            setattr(self, name, value)
