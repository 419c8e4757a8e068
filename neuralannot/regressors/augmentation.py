"""`Augmentation`: how one sample is changed, what the regressors' own code draws, and seeds of samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["Augmentation", "Draw", "SampleSeeds", "draw_hmr2", "draw_nothing", "draw_pose2pose"]


@dataclass(frozen=True)
class Augmentation:
    """How one sample is changed.

    Fields
    ------
    scale: the box grows by this factor about its centre.
    rotation: degrees by which the box turns from x towards y, so that the picture turns the other way.
    flip: the picture is mirrored first. Hands do not ask: left ones are, right ones are not.
    color: factors of red, green and blue.
    shift: the box's centre moves by this part of its width and height.

    Raises ValueError for a scale that is not positive.
    """

    scale: float = 1.0
    rotation: float = 0.0
    flip: bool = False
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"an augmentation's scale must be positive, got {self.scale}")


Draw = Callable[[np.random.Generator], Augmentation]


def draw_nothing(rng: np.random.Generator) -> Augmentation:
    """No change."""
    return Augmentation()


def draw_pose2pose(rng: np.random.Generator) -> Augmentation:
    """As Pose2Pose and Hand4Whole draw: scale 1 +- 0.25, 30 degrees, colours +- 0.2, half mirrored.

    In 4 of 10 nothing is turned. Scale and rotation are normal, cut at one and at two deviations.
    """
    scale, rotation = _scale_and_rotation(rng, 0.25)
    return Augmentation(scale, rotation, bool(rng.random() <= 0.5), _color(rng))


def draw_hmr2(rng: np.random.Generator) -> Augmentation:
    """As 4D-Humans draws with its published settings, extreme crops left out.

    Scale 1 +- 0.3, 30 degrees in 6 of 10, colours +- 0.2, half mirrored, the centre moved by 0.02 of the box.
    """
    scale, rotation = _scale_and_rotation(rng, 0.3)
    shift = np.clip(rng.normal(size=2), -1, 1) * 0.02
    flip = bool(rng.random() <= 0.5)
    return Augmentation(scale, rotation, flip, _color(rng), (float(shift[0]), float(shift[1])))


def _scale_and_rotation(rng: np.random.Generator, scale: float) -> tuple[float, float]:
    grown = 1 + scale * float(np.clip(rng.normal(), -1, 1))
    turned = 30 * float(np.clip(rng.normal(), -2, 2))
    return grown, turned if rng.random() <= 0.6 else 0.0


def _color(rng: np.random.Generator) -> tuple[float, float, float]:
    red, green, blue = rng.uniform(0.8, 1.2, 3).tolist()
    return red, green, blue


class SampleSeeds:
    """The generator of each sample. `seed`: numbers that follow from it, the epoch and the row; for None they
    come from torch's generator, which workers and epochs have different ones of (`torch.manual_seed`)."""

    def __init__(self, seed: int | None) -> None:
        if seed is not None and seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self._seed = seed
        # In shared memory: workers that stay from epoch to epoch see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._epoch.share_memory_()  # a copy's own workers hear of its epochs too

    def set_epoch(self, epoch: int) -> None:
        if epoch < 0:
            raise ValueError(f"epoch must not be negative, got {epoch}")
        self._epoch.fill_(epoch)

    def generator(self, row: int) -> np.random.Generator:
        if self._seed is None:
            return np.random.default_rng(int(torch.randint(1 << 62, ())))
        return np.random.default_rng((self._seed, int(self._epoch), row))
