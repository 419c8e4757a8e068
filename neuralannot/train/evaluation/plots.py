"""Plots as inline SVG: no library, sharp at any size, text that can be searched.

Colours are attributes, for a file of its own, and classes, by which a page's style has others in the dark.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuralannot.web_page import plain

__all__ = ["bars", "histogram", "spans"]

_WIDTH, _HEIGHT = 560, 240  # px of a histogram
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 16, 30, 40  # margins
_ROW, _LABEL = 17, 150  # px of a bar's line, and of its name
_FILL, _INK, _PALE, _MARK = "#5b8fc7", "#333", "#ddd", "#b5482a"
_CLASSES = {_FILL: "fill", _INK: "ink", _PALE: "pale", _MARK: "mark"}
_BINS = (8, 40)
_LEAST = 1e-6  # where the scale ends at least: errors of the truth itself are rounding
_QUANTILES = ("1%", "25%", "50%", "75%", "99%")
_SHOWN = 0.99  # of the values lie on the scale; the rest is counted beside it


def histogram(
    values: np.ndarray, *, title: str, unit: str, from_zero: bool = True, noun: str = "annotations"
) -> str:
    """An `<svg>` of how many of `values` (N,) lie where, with their mean and median.

    NaN is left out. The scale runs from 0, or without `from_zero` from the 1st percentile, to the 99th, so
    that a few outliers leave something to see: how many lie beyond is said, infinite ones among them. `noun`:
    what is counted. Without a value the plot says so.
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    finite = values[np.isfinite(values)]
    title = f"{title}, {unit}" if unit else title
    parts = [_text(_LEFT, 18, title, weight="bold")]
    if not len(finite):
        parts.append(_text(_WIDTH / 2, _HEIGHT / 2, "no values", anchor="middle"))
        return _svg(_WIDTH, _HEIGHT, title, parts)
    start, end, step = _scale(finite, from_zero)
    bins = int(np.clip(np.ceil(2 * np.sqrt(len(finite))), *_BINS))
    count, _ = np.histogram(finite[(finite >= start) & (finite <= end)], bins=bins, range=(start, end))
    tallest = max(1, int(count.max()))
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    floor = _HEIGHT - _BOTTOM

    def across(value: float) -> float:
        return _LEFT + (value - start) / (end - start) * wide

    rise = max(1, int(_nice(float(tallest))))
    for number in range(0, tallest + 1, rise):
        y = floor - number / tallest * high
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, _PALE))
        parts.append(_text(_LEFT - 6, y + 4, str(number), anchor="end"))
    edges = start + (end - start) * np.arange(bins + 1) / bins
    for low, up, number in zip(edges[:-1].tolist(), edges[1:].tolist(), count.tolist(), strict=True):
        top = number / tallest * high
        tip = f"{low:.4g} to {up:.4g} {unit}: {number}"
        parts.append(_bar(across(low), floor - top, wide / bins - 1, top, tip))
    for k in range(round((end - start) / step) + 1):
        at = start + k * step
        parts.append(_text(across(at), floor + 16, _tick(at, step), anchor="middle"))
    parts.append(_line(_LEFT, floor, _WIDTH - _RIGHT, floor, _INK))
    mean, median = float(values.mean()), float(np.median(values))
    for at, dashed in ((mean, False), (median, True)):
        if start <= at <= end:
            parts.append(_line(across(at), _TOP, across(at), floor, _MARK, dashed=dashed))
    said = f"line: mean {mean:.3g}, dashed: median {median:.3g}"
    parts.append(_text(_WIDTH - _RIGHT, 18, said, anchor="end", color=_MARK))
    beyond = int(((values > end) | (values < start)).sum())
    said = f"{end:.4g} {unit}" if from_zero else f"{_tick(start, step)} to {_tick(end, step)} {unit}"
    note = f"{len(values)} {noun}" + (f", {beyond} beyond {said.strip()}" if beyond else "")
    parts.append(_text(_LEFT + wide / 2, _HEIGHT - 8, note, anchor="middle"))
    return _svg(_WIDTH, _HEIGHT, title, parts)


def _scale(finite: np.ndarray, from_zero: bool) -> tuple[float, float, float]:
    """Where a scale begins and ends, and its step, of what is not empty."""
    low, high = (float(p) for p in np.percentile(finite, (100 * (1 - _SHOWN), 100 * _SHOWN)))
    if from_zero:
        reach = max(high, _LEAST)
        step = _nice(reach)
        return 0.0, step * max(1, int(np.ceil(reach / step))), step
    step = _nice(max(high - low, _LEAST, 1e-6 * abs(high)))
    first = float(np.floor(low / step))
    return first * step, max(float(np.ceil(high / step)), first + 1) * step, step


def _tick(value: float, step: float) -> str:
    """A scale's number, whose rounding to nothing is 0."""
    return f"{0.0 if abs(value) < step / 1000 else value:.4g}"


def bars(names: Sequence[str], values: np.ndarray, *, title: str, unit: str) -> str:
    """An `<svg>` of a horizontal bar for each name: the mean of `values` (N, K), K names; a tick at 95%.

    NaN is left out; a name without a finite value has no bar and a dash.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ValueError(f"values must be (N, {len(names)}), a column for each name, got {values.shape}")
    means, highs = [], []
    for column in values.T:
        finite = column[np.isfinite(column)]
        means.append(float(finite.mean()) if len(finite) else float("nan"))
        highs.append(float(np.percentile(finite, 95)) if len(finite) else float("nan"))
    largest = max((h for h in (*highs, *means) if not np.isnan(h)), default=1.0) or 1.0
    height = _TOP + _ROW * len(names) + _BOTTOM
    wide = _WIDTH - _LABEL - _RIGHT - 50
    parts = [_text(8, 18, title, weight="bold")]
    for k, (name, mean, high) in enumerate(zip(names, means, highs, strict=True)):
        top = _TOP + k * _ROW
        parts.append(_text(_LABEL - 6, top + 12, name, anchor="end"))
        if np.isnan(mean):
            parts.append(_text(_LABEL, top + 12, "-"))
            continue
        parts.append(_bar(_LABEL, top + 2, mean / largest * wide, _ROW - 4, f"{name}: {mean:.4g} {unit}"))
        x = _LABEL + high / largest * wide
        parts.append(_line(x, top + 2, x, top + _ROW - 2, _MARK))
        parts.append(_text(_LABEL + wide + 8, top + 12, f"{mean:.2f}"))
    floor = height - _BOTTOM
    parts.append(_line(_LABEL, _TOP, _LABEL, floor, _INK))
    parts.append(_text(_LABEL, floor + 18, f"bar: mean, {unit}; tick: 95% of the annotations lie below"))
    return _svg(_WIDTH, height, title, parts)


def spans(names: Sequence[str], values: np.ndarray, *, title: str, unit: str) -> str:
    """An `<svg>` of a line for each name: where `values` (N, K), K names, lie.

    A thin line from the 1st to the 99th percentile, a thick one from the 25th to the 75th, a tick at the
    median. What is not finite is left out; a name without a value has a dash.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ValueError(f"values must be (N, {len(names)}), a column for each name, got {values.shape}")
    found = [_quantiles(column) for column in values.T]
    known = [q for q in found if q is not None]
    ends = np.array([(q[0], q[-1]) for q in known]) if known else np.array([[0.0, 1.0]])
    low, high = min(0.0, float(ends.min())), max(0.0, float(ends.max()))
    step = _nice(max(high - low, _LEAST))
    start, end = step * float(np.floor(low / step + 1e-9)), step * float(np.ceil(high / step - 1e-9))
    end = max(end, start + step)
    wide = _WIDTH - _LABEL - _RIGHT - 50
    height = _TOP + _ROW * len(names) + _BOTTOM
    floor = height - _BOTTOM

    def across(value: float) -> float:
        return _LABEL + (value - start) / (end - start) * wide

    parts = [_text(8, 18, f"{title}, {unit}" if unit else title, weight="bold")]
    for k in range(round((end - start) / step) + 1):
        at = start + k * step
        parts.append(_line(across(at), _TOP, across(at), floor, _PALE))
        parts.append(_text(across(at), floor + 14, _tick(at, step), anchor="middle"))
    for k, (name, some) in enumerate(zip(names, found, strict=True)):
        middle = _TOP + k * _ROW + _ROW / 2
        parts.append(_text(_LABEL - 6, middle + 4, name, anchor="end"))
        if some is None:
            parts.append(_text(_LABEL, middle + 4, "-"))
            continue
        parts.append(_line(across(some[0]), middle, across(some[4]), middle, _FILL))
        left, right = across(some[1]), across(some[3])
        tip = f"{name}: " + ", ".join(f"{s} {v:.4g}" for s, v in zip(_QUANTILES, some, strict=True))
        parts.append(_bar(left, middle - 4, max(right - left, 1.0), 8, f"{tip} {unit}".rstrip()))
        parts.append(_line(across(some[2]), middle - 6, across(some[2]), middle + 6, _MARK, width=2))
        parts.append(_text(_LABEL + wide + 8, middle + 4, f"{some[2]:.2f}"))
    parts.append(_line(across(0.0), _TOP, across(0.0), floor, _INK))
    parts.append(_text(_LABEL, floor + 32, "tick and number: median; bar: 25 to 75%; line: 1 to 99%"))
    return _svg(_WIDTH, height, title, parts)


def _quantiles(column: np.ndarray) -> list[float] | None:
    finite = column[np.isfinite(column)]
    if not len(finite):
        return None
    return [float(q) for q in np.percentile(finite, [float(name.rstrip("%")) for name in _QUANTILES])]


def _nice(span: float) -> float:
    """A step of 1, 2 or 5 times a power of ten: five or so to the span."""
    raw = span / 5
    power = 10.0 ** np.floor(np.log10(raw))
    return float(next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999))


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg role="img" aria-label="{plain(title)}" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" font-family="sans-serif" font-size="11">'
    )
    return "\n".join((head, *parts, "</svg>"))


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal", color: str = _INK
) -> str:
    return (
        f'<text class="{_CLASSES[color]}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'font-weight="{weight}" fill="{color}">'
        f"{plain(words)}</text>"
    )


def _line(
    x0: float, y0: float, x1: float, y1: float, color: str, *, dashed: bool = False, width: float = 1
) -> str:
    more = ' stroke-dasharray="4 3"' if dashed else ""
    more += f' stroke-width="{width:g}"' if width != 1 else ""
    return (
        f'<line class="{_CLASSES[color]}" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" '
        f'stroke="{color}"{more}/>'
    )


def _bar(x: float, y: float, width: float, height: float, tip: str) -> str:
    return (
        f'<rect class="fill" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" '
        f'height="{max(height, 0):.1f}" fill="{_FILL}"><title>{plain(tip)}</title></rect>'
    )
