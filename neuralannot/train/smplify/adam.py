"""Adam of many functions at once (Kingma and Ba, 2015): each row stops by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuralannot.train.smplify.minimum import Energy, Minimum, with_gradient

_MEAN, _SQUARE, _LEAST = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class AdamOptions:
    """`iterations`: limit of a row; `rate`: a step's size; `gtol`: the largest part of the gradient; `ftol`:
    the value's relative change over `window` iterations."""

    iterations: int = 1000
    rate: float = 0.01
    gtol: float = 1e-5
    ftol: float = 1e-9
    window: int = 30

    def __post_init__(self) -> None:
        for name in ("iterations", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if not self.rate > 0:
            raise ValueError(f"rate must be positive, got {self.rate}")


def minimise_adam(energy: Energy, start: Tensor, options: AdamOptions | None = None) -> Minimum:
    """Lower B functions from `start` (B, N); the best point that a row met is its result.

    `energy` as of `minimise_lbfgs`. Rows are done where their value changes no more, where their gradient is
    zero, or where it is no number.
    """
    options = options or AdamOptions()
    with torch.no_grad():
        of = torch.arange(len(start), device=start.device)
        x = start.detach().clone()
        f, g = with_gradient(energy, x, of)
        done = ~torch.isfinite(f)
        result = Minimum(
            x.clone(), f.clone(), torch.zeros_like(of), torch.ones_like(of), done.clone() & False
        )
        mean, square, earlier = torch.zeros_like(x), torch.zeros_like(x), f.clone()
        for number in range(1, options.iterations + 1):
            flat = g.abs().sum(1) <= 0 if not x.shape[1] else g.abs().amax(1) <= options.gtol
            result.converged[of[flat & ~done]] = True
            keep = (~(flat | done)).nonzero()[:, 0]
            of, x, g, mean, square, earlier = (v[keep] for v in (of, x, g, mean, square, earlier))
            if not len(of):
                break
            mean = _MEAN * mean + (1 - _MEAN) * g
            square = _SQUARE * square + (1 - _SQUARE) * g.square()
            spread = (square / (1 - _SQUARE**number)).sqrt() + _LEAST
            x = x - options.rate * mean / (1 - _MEAN**number) / spread
            f, g = with_gradient(energy, x, of)
            better = f < result.value[of]
            result.x[of[better]], result.value[of[better]] = x[better], f[better]
            result.iterations[of] = number
            result.evaluations[of] = number + 1
            done = ~torch.isfinite(f)
            if number % options.window == 0:
                size = torch.maximum(earlier.abs(), f.abs()).clamp_min(1)
                still = (earlier - f).abs() / size <= options.ftol
                result.converged[of[still]] = True
                done |= still
                earlier = f.clone()
        return result
