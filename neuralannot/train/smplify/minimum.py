"""What a minimiser is asked for and what it gives back: B functions of N numbers each, all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: (b, N) points and the numbers (b,) of their rows -> (b,) values, differentiable in the points.
Energy = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Minimum:
    """`x` (B, N); `value` (B,); `iterations` (B,) and `evaluations` (B,) int64; `converged` (B,) bool: False
    where a limit came first."""

    x: Tensor
    value: Tensor
    iterations: Tensor
    evaluations: Tensor
    converged: Tensor


def with_gradient(energy: Energy, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """(b,) values and (b, N) gradients. Values that are no number are infinite, their gradients zero."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = energy(x, rows)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    value = value.detach()
    good = torch.isfinite(value) & torch.isfinite(gradient).all(1)
    return torch.where(good, value, torch.inf), torch.where(good[:, None], gradient, 0)
