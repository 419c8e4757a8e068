"""L-BFGS of many functions at once: each row has its own history, line search and end."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from neuralannot.train.smplify.minimum import Energy, Minimum, with_gradient
from neuralannot.train.smplify.wolfe import Searches

# A pair of a step and its gradient's change that curves less says nothing.
_LEAST_CURVATURE = 1e-10
# Rows that are done leave when they are so large a share of the batch.
_LEAVING = 0.125


@dataclass(frozen=True)
class LbfgsOptions:
    """When a row ends, and how much it remembers.

    `iterations`, `evaluations`: limits of a row; `history`: pairs; `gtol`: the largest part of the gradient;
    `xtol`, also the line search's: the largest part of a step; `atol`: the value's change by a step and along
    its direction; `ftol`: the value's relative change over `window` iterations. `searches`: evaluations of
    one line search.
    """

    iterations: int = 100
    evaluations: int = 1_000_000
    history: int = 100
    gtol: float = 1e-5
    xtol: float = 1e-9
    atol: float = 1e-9
    ftol: float = 1e-9
    window: int = 30
    searches: int = 25

    def __post_init__(self) -> None:
        for name in ("iterations", "evaluations", "history", "window", "searches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")


def minimise_lbfgs(energy: Energy, start: Tensor, options: LbfgsOptions | None = None) -> Minimum:
    """Lower B functions from `start` (B, N).

    `energy(x, rows)` gives the values of the rows (b,) at x (b, N); a row's value must not depend on others.
    Directions are those of L-BFGS in its compact form (Byrd, Nocedal and Schnabel, 1994), which are the same
    as two loops'; steps satisfy the strong Wolfe conditions. A value that is no number counts as infinite; a
    row that begins with one stays where it is.
    """
    options = options or LbfgsOptions()
    with torch.no_grad():
        return _run(energy, start.detach(), options)


@dataclass(eq=False)
class _Rows:
    """The rows in work. Last points, values, gradients and directions; histories; searches; counts."""

    of: Tensor
    x: Tensor
    f: Tensor
    g: Tensor
    d: Tensor
    history: _History
    search: Searches
    earlier: Tensor  # the value one window ago
    iterations: Tensor
    evaluations: Tensor
    done: Tensor
    converged: Tensor

    def rows(self, index: Tensor) -> _Rows:
        found: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            found[field.name] = value[index] if isinstance(value, Tensor) else value.rows(index)
        return replace(self, **found)


@dataclass(eq=False)
class _History:
    """`steps` and `changes` (b, m, N), the oldest first; `cross` (b, m, m) steps by changes, `square` (b, m,
    m) changes by changes; `count` (b,) of pairs; `scale` (b,) of the first inverse Hessian."""

    steps: Tensor
    changes: Tensor
    cross: Tensor
    square: Tensor
    count: Tensor
    scale: Tensor

    @staticmethod
    def empty(x: Tensor, size: int) -> _History:
        pairs = x.new_zeros(len(x), size, x.shape[1])
        products = x.new_zeros(len(x), size, size)
        count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        eye = torch.eye(size, dtype=x.dtype, device=x.device)  # so that it can be solved by
        return _History(
            pairs, pairs.clone(), eye.expand_as(products).clone(), products, count, x.new_ones(len(x))
        )

    def rows(self, index: Tensor) -> _History:
        return _History(*(getattr(self, f.name)[index] for f in fields(self)))

    def add(self, taken: Tensor, step: Tensor, change: Tensor) -> None:
        """Remember pairs (b, N) of the rows `taken` (b,) where they curve enough."""
        curve = (step * change).sum(1)
        index = (taken & (curve > _LEAST_CURVATURE)).nonzero()[:, 0]
        if not len(index):
            return
        size = self.steps.shape[1]
        full = index[self.count[index] == size]
        if len(full):
            self._forget(full)
        slot = self.count[index]
        self.steps[index, slot], self.changes[index, slot] = step[index], change[index]
        used = int(slot.max()) + 1
        # All rows at once, those not taken for nothing: picking rows would copy the history.
        by_step = (self.steps[:, :used] @ change[..., None])[index, :, 0]
        by_change = (self.changes[:, :used] @ change[..., None])[index, :, 0]
        self.cross[index, :used, slot] = by_step
        self.square[index, :used, slot] = by_change
        self.square[index, slot, :used] = by_change
        self.count[index] = slot + 1
        self.scale[index] = curve[index] / change[index].square().sum(1)

    def _forget(self, index: Tensor) -> None:
        """The oldest pair of rows."""
        for pairs in (self.steps, self.changes):
            pairs[index] = torch.cat([pairs[index, 1:], torch.zeros_like(pairs[index, :1])], 1)
        for products in (self.cross, self.square):
            moved = torch.zeros_like(products[index])
            moved[:, :-1, :-1] = products[index, 1:, 1:]
            products[index] = moved
        self.cross[index, -1, -1] = 1
        self.count[index] -= 1

    def directions(self, g: Tensor) -> Tensor:
        """(b, N): minus the inverse Hessians' products with gradients (b, N)."""
        used = int(self.count.max())
        scale = self.scale[:, None]
        if not used:
            return -scale * g
        steps, changes = self.steps[:, :used], self.changes[:, :used]
        cross, square = self.cross[:, :used, :used], self.square[:, :used, :used]
        scale = scale[..., None]
        solved = torch.linalg.solve_triangular(cross, steps @ g[..., None], upper=True)
        right = cross.diagonal(dim1=1, dim2=2)[..., None] * solved
        right += scale * (square @ solved - changes @ g[..., None])
        top = torch.linalg.solve_triangular(cross.transpose(1, 2), right, upper=False)
        found = steps.transpose(1, 2) @ top - scale * (changes.transpose(1, 2) @ solved)
        direction: Tensor = -(self.scale[:, None] * g + found[..., 0])
        return direction


def _run(energy: Energy, start: Tensor, options: LbfgsOptions) -> Minimum:
    count = len(start)
    of = torch.arange(count, device=start.device)
    f, g = with_gradient(energy, start, of)
    result = Minimum(start.clone(), f.clone(), torch.zeros_like(of), torch.ones_like(of), f != f)
    trial = (1 / g.abs().sum(1)).clamp_max(1)
    ended = (g.abs().amax(1) <= options.gtol) if start.shape[1] else torch.ones_like(f, dtype=torch.bool)
    rows = _Rows(
        of=of,
        x=start.clone(),
        f=f,
        g=g,
        d=-g,
        history=_History.empty(start, options.history),
        search=Searches.begin(f, g, -g, trial),
        earlier=f.clone(),
        iterations=torch.zeros_like(of),
        evaluations=torch.ones_like(of),
        done=ended | ~torch.isfinite(f),
        converged=ended & torch.isfinite(f),
    )
    while True:
        left = int((~rows.done).sum())
        if len(rows.of) - left >= max(1, _LEAVING * len(rows.of)) or not left:
            _keep(result, rows)
            if not left:
                return result
            rows = rows.rows((~rows.done).nonzero()[:, 0])
        _advance(energy, rows, options)


def _advance(energy: Energy, rows: _Rows, options: LbfgsOptions) -> None:
    """One evaluation of every row; those whose line search is over take their step and get a direction."""
    new_f, new_g = with_gradient(energy, rows.x + rows.search.trial[:, None] * rows.d, rows.of)
    rows.evaluations = rows.evaluations + ~rows.done
    slope = (new_g * rows.d).sum(1)
    over = rows.search.step(new_f, new_g, slope, smallest=options.xtol, most=options.searches)
    taken = over & ~rows.done
    at = taken.nonzero()[:, 0]
    if not len(at):
        return
    steps = rows.search.low.t[:, None] * rows.d
    rows.history.add(taken, steps, rows.search.low.g - rows.g)
    found, step = rows.search.low.rows(at), steps[at]
    change = (rows.f[at] - found.f).abs()
    rows.x[at] += step
    rows.f[at], rows.g[at] = found.f, found.g
    rows.iterations[at] += 1
    rows.d[at] = rows.history.directions(rows.g)[at]
    slope = (found.g * rows.d[at]).sum(1)
    converged = (
        (found.g.abs().amax(1) <= options.gtol)
        | (step.abs().amax(1) <= options.xtol)
        | (change < options.atol)
        | (slope > -options.atol)
    )
    judged = rows.iterations[at] % options.window == 0
    size = torch.maximum(rows.earlier[at].abs(), found.f.abs()).clamp_min(1)
    converged |= judged & ((rows.earlier[at] - found.f) / size <= options.ftol)
    rows.earlier[at] = torch.where(judged, found.f, rows.earlier[at])
    limit = (rows.iterations[at] >= options.iterations) | (rows.evaluations[at] >= options.evaluations)
    rows.converged[at] = converged
    rows.done[at] = converged | limit
    fresh = Searches.begin(rows.f, rows.g, rows.d, torch.ones_like(rows.f))
    rows.search = fresh.where(over, rows.search)


def _keep(result: Minimum, rows: _Rows) -> None:
    at = rows.of[rows.done]
    result.x[at], result.value[at] = rows.x[rows.done], rows.f[rows.done]
    result.iterations[at], result.evaluations[at] = rows.iterations[rows.done], rows.evaluations[rows.done]
    result.converged[at] = rows.converged[rows.done]
