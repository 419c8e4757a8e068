"""A line search for the strong Wolfe conditions, of many lines at once, each at its own point of the search.

The steps are those of Nocedal and Wright (algorithms 3.5 and 3.6) with cubic interpolation, in the order and
with the constants that minFunc and PyTorch's `LBFGS` have: a bracket is grown until it holds a good point,
then narrowed. One evaluation moves every line on by one step, whatever phase it is in.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

_DESCENT, _FLATNESS = 1e-4, 0.9  # c1 and c2
_GROW_LEAST, _GROW_MOST = 0.01, 10.0
_MARGIN = 0.1  # of the bracket: nearer to its ends a trial is moved away


@dataclass(eq=False)
class Points:
    """Points of lines: `t` (b,), how far along; `f` (b,) value; `slope` (b,); `g` (b, N) gradient."""

    t: Tensor
    f: Tensor
    slope: Tensor
    g: Tensor

    def where(self, keep: Tensor, other: Points) -> Points:
        return Points(
            torch.where(keep, self.t, other.t),
            torch.where(keep, self.f, other.f),
            torch.where(keep, self.slope, other.slope),
            torch.where(keep[:, None], self.g, other.g),
        )

    def rows(self, index: Tensor) -> Points:
        return Points(self.t[index], self.f[index], self.slope[index], self.g[index])


@dataclass(eq=False)
class Searches:
    """b searches: `first`, where each line begins; `previous`, the last point while the bracket grows; `low`
    and `high`, its ends, the lower first; `trial` (b,), how far along to evaluate next; `narrowing` (b,)
    whether the bracket holds a good point; `stuck` (b,) whether the last trial was close to an end; `tries`
    (b,) evaluations; `reach` (b,) the direction's largest part."""

    first: Points
    previous: Points
    low: Points
    high: Points
    trial: Tensor
    narrowing: Tensor
    stuck: Tensor
    tries: Tensor
    reach: Tensor

    @staticmethod
    def begin(f: Tensor, g: Tensor, direction: Tensor, trial: Tensor) -> Searches:
        first = Points(torch.zeros_like(f), f, (g * direction).sum(1), g)
        no = torch.zeros_like(f, dtype=torch.bool)
        reach = direction.abs().amax(1)
        return Searches(first, first, first, first, trial, no, no, no.long(), reach)

    def rows(self, index: Tensor) -> Searches:
        found: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            found[field.name] = value.rows(index) if isinstance(value, Points) else value[index]
        return replace(self, **found)

    def where(self, keep: Tensor, other: Searches) -> Searches:
        found: dict[str, Any] = {}
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            is_point = isinstance(mine, Points)
            found[field.name] = mine.where(keep, theirs) if is_point else torch.where(keep, mine, theirs)
        return replace(self, **found)

    def step(self, f: Tensor, g: Tensor, slope: Tensor, *, smallest: float, most: int) -> Tensor:
        """Take in the trials' values; (b,) bool says which searches are over: their point is `low`.

        `smallest`: a bracket that moves no unknown farther than that is narrow enough; `most` evaluations.
        """
        new = Points(self.trial, f, slope, g)
        enough = f <= self.first.f + _DESCENT * self.trial * self.first.slope
        flat = slope.abs() <= -_FLATNESS * self.first.slope
        grown, growing_over = self._grow(new, enough, flat)
        narrowed, narrowing_over = self._narrow(new, enough, flat, smallest)
        self.tries = self.tries + 1
        over = torch.where(self.narrowing, narrowing_over, growing_over)
        was_narrowing = self.narrowing
        self.previous = grown.previous.where(~was_narrowing, self.previous)
        self.low = narrowed.low.where(was_narrowing, grown.low)
        self.high = narrowed.high.where(was_narrowing, grown.high)
        self.narrowing = was_narrowing | grown.narrowing
        # Too many: the best of the bracket, or of where it began and the last trial.
        late = self.tries >= most
        unbracketed = late & ~self.narrowing & ~over
        better = (new.f < self.first.f) & unbracketed
        self.low = new.where(better, self.first.where(unbracketed, self.low))
        trial, stuck = self._between()
        self.stuck = torch.where(self.narrowing, stuck, self.stuck)
        self.trial = torch.where(self.narrowing, trial, grown.trial)
        return over | late

    def _grow(self, new: Points, enough: Tensor, flat: Tensor) -> tuple[_Grown, Tensor]:
        rises = ~enough | ((self.tries > 1) & (new.f >= self.previous.f))
        accept = ~rises & flat
        bracket = rises | (~accept & (new.slope >= 0))
        lower = new.f < self.previous.f
        low, high = new.where(lower | accept, self.previous), self.previous.where(lower, new)
        span = new.t - self.previous.t
        trial = _cubic(self.previous, new, new.t + _GROW_LEAST * span, new.t * _GROW_MOST)
        return _Grown(new, low, high, trial, bracket), accept

    def _narrow(self, new: Points, enough: Tensor, flat: Tensor, smallest: float) -> tuple[_Narrowed, Tensor]:
        worse = ~enough | (new.f >= self.low.f)
        turn = ~worse & ~flat & (new.slope * (self.high.t - self.low.t) >= 0)
        high = new.where(worse, self.low.where(turn, self.high))
        low = self.low.where(worse, new)
        # A new high end may still be the lower one where neither descends enough.
        swap = worse & (high.f < low.f)
        low, high = high.where(swap, low), low.where(swap, high)
        small = (high.t - low.t).abs() * self.reach < smallest
        return _Narrowed(low, high), (~worse & flat) | small

    def _between(self) -> tuple[Tensor, Tensor]:
        """The next trial in the bracket, and whether it was close to an end."""
        left, right = torch.minimum(self.low.t, self.high.t), torch.maximum(self.low.t, self.high.t)
        trial = _cubic(self.low, self.high, left, right)
        margin = _MARGIN * (right - left)
        close = torch.minimum(right - trial, trial - left) < margin
        push = close & (self.stuck | (trial >= right) | (trial <= left))
        away = torch.where((trial - right).abs() < (trial - left).abs(), right - margin, left + margin)
        return torch.where(push, away, trial), close & ~push


@dataclass(eq=False)
class _Grown:
    previous: Points
    low: Points
    high: Points
    trial: Tensor
    narrowing: Tensor


@dataclass(eq=False)
class _Narrowed:
    low: Points
    high: Points


def _cubic(a: Points, b: Points, least: Tensor, most: Tensor) -> Tensor:
    """(b,): where the cubic through two values and slopes is least, between bounds; else the middle."""
    swap = a.t > b.t
    one, two = b.where(swap, a), a.where(swap, b)
    first = one.slope + two.slope - 3 * (one.f - two.f) / (one.t - two.t)
    square = first**2 - one.slope * two.slope
    second = square.clamp_min(0).sqrt()
    place = two.t - (two.t - one.t) * (two.slope + second - first) / (two.slope - one.slope + 2 * second)
    good = (square >= 0) & torch.isfinite(place)
    return torch.where(good, torch.minimum(torch.maximum(place, least), most), (least + most) / 2)
