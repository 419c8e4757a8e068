"""What no implementation can go below: bytes to move and products to make, at the rates measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.timing import alternate, duration


@dataclass(frozen=True)
class Work:
    """Bytes that must be read or written, and floating-point operations that must be done."""

    bytes: float
    flops: float


@dataclass(frozen=True)
class Rates:
    """What the device does: bytes a second, read and written, of a copy; operations a second of a product."""

    copy: float
    product: float

    def floor(self, work: Work) -> str:
        """The shortest that `work` can take, and what bounds it."""
        moving, computing = work.bytes / self.copy, work.flops / self.product
        bound = "memory" if moving > computing else "arithmetic"
        return f"{duration([max(moving, computing)]).split(' (')[0]}, {bound}"

    def __str__(self) -> str:
        return f"copies {self.copy / 1e9:.0f} GB/s, float32 products {self.product / 1e9:.0f} GFLOP/s"


def measured_rates(device: str, *, quick: bool = False) -> Rates:
    """The rates of a large copy and a large float32 product, the best of alternating runs."""
    on_gpu = device.startswith("cuda")
    numbers = 2**20 if quick else 2**28 if on_gpu else 2**25
    size = 256 if quick else 8192 if on_gpu else 2048
    here, there = torch.zeros(numbers, device=device), torch.empty(numbers, device=device)
    one, two = torch.randn(2, size, size, device=device)
    out = torch.empty_like(one)
    times = alternate(
        {"copy": lambda: there.copy_(here), "product": lambda: torch.mm(one, two, out=out)},
        repeats=3 if quick else 7,
        device=device,
    )
    least = {name: min(seconds) for name, seconds in times.seconds.items()}
    return Rates(8 * numbers / least["copy"], 2 * size**3 / least["product"])


def mesh_work(
    arrays: Mapping[str, np.ndarray],
    batch: int,
    *,
    backward: bool = False,
    vertices: np.ndarray | None = None,
) -> Work:
    """Posing `batch` meshes, or these `vertices` of them, and with `backward` their gradients.

    Read once: parameters, the numbers of the model that are not zero; written: the points. The gradient reads
    those of the points. Multiplied: the features by the correctives that are not zero, the transforms by the
    weights that are not zero, the points by the transforms.
    """
    chosen = slice(None) if vertices is None else vertices
    points = len(arrays["v_template"][chosen])
    model = sum(int(np.count_nonzero(arrays[n][chosen])) for n in ("v_template", "shapedirs", "posedirs"))
    weights = int(np.count_nonzero(arrays["weights"][chosen]))
    parameters = 3 * arrays["weights"].shape[1] + 20
    times = 2 if backward else 1
    moved = 4 * (times * batch * (3 * points + parameters) + model + weights)
    forward = 2 * batch * (model + 12 * weights + 9 * points)
    # Each product once more for its gradient; the transforms' take the points and what pulls at them too.
    pulled = 2 * batch * (model + 12 * weights + 2 * 9 * points) if backward else 0
    return Work(moved, forward + pulled)


def skeleton_work(arrays: Mapping[str, np.ndarray], batch: int) -> Work:
    """Posing the joints alone: parameters in, joints out, one 3x4 product of transforms a joint."""
    joints = arrays["weights"].shape[1]
    return Work(4 * batch * (6 * joints + 20), 2 * batch * joints * 36)
