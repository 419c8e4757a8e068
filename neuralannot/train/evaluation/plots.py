"""Plots as inline SVG: no library, sharp at any size, text that can be searched."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

__all__ = ["bars", "histogram"]

_WIDTH, _HEIGHT = 560, 240  # px of a histogram
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 16, 30, 40  # margins
_ROW, _LABEL = 17, 150  # px of a bar's line, and of its name
_FILL, _INK, _PALE, _MARK = "#5b8fc7", "#333", "#ddd", "#b5482a"
_BINS = (8, 40)
_LEAST = 1e-6  # where the scale ends at least: errors of the truth itself are rounding
_SHOWN = 0.99  # of the values lie on the scale; the rest is counted beside it


def histogram(values: np.ndarray, *, title: str, unit: str) -> str:
    """An `<svg>` of how many of `values` (N,) lie where, with their mean and median.

    NaN is left out. The scale ends at the 99th percentile, so that a few outliers leave something to see:
    how many lie beyond is said, infinite ones among them. Without a value the plot says so.
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    finite = values[np.isfinite(values)]
    title = f"{title}, {unit}"
    parts = [_text(_LEFT, 18, title, weight="bold")]
    if not len(finite):
        parts.append(_text(_WIDTH / 2, _HEIGHT / 2, "no values", anchor="middle"))
        return _svg(_WIDTH, _HEIGHT, title, parts)
    reach = max(float(np.percentile(finite, 100 * _SHOWN)), _LEAST)
    step = _nice(reach)
    end = step * max(1, int(np.ceil(reach / step)))
    bins = int(np.clip(np.ceil(2 * np.sqrt(len(finite))), *_BINS))
    count, _ = np.histogram(finite[finite <= end], bins=bins, range=(0, end))
    tallest = max(1, int(count.max()))
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    floor = _HEIGHT - _BOTTOM

    def across(value: float) -> float:
        return _LEFT + value / end * wide

    rise = max(1, int(_nice(float(tallest))))
    for number in range(0, tallest + 1, rise):
        y = floor - number / tallest * high
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y, _PALE))
        parts.append(_text(_LEFT - 6, y + 4, str(number), anchor="end"))
    for k, number in enumerate(count.tolist()):
        top = number / tallest * high
        x, width = across(end * k / bins), wide / bins - 1
        low, up = end * k / bins, end * (k + 1) / bins
        tip = f"{low:.4g} to {up:.4g} {unit}: {number}"
        parts.append(_bar(x, floor - top, width, top, tip))
    for k in range(round(end / step) + 1):
        parts.append(_text(across(k * step), floor + 16, f"{k * step:.4g}", anchor="middle"))
    parts.append(_line(_LEFT, floor, _WIDTH - _RIGHT, floor, _INK))
    mean, median = float(values.mean()), float(np.median(values))
    for at, dashed in ((mean, False), (median, True)):
        if at <= end:
            parts.append(_line(across(at), _TOP, across(at), floor, _MARK, dashed=dashed))
    said = f"line: mean {mean:.3g}, dashed: median {median:.3g}"
    parts.append(_text(_WIDTH - _RIGHT, 18, said, anchor="end", color=_MARK))
    beyond = int((values > end).sum())
    note = f"{len(values)} annotations" + (f", {beyond} beyond {end:.4g} {unit}" if beyond else "")
    parts.append(_text(_LEFT + wide / 2, _HEIGHT - 8, note, anchor="middle"))
    return _svg(_WIDTH, _HEIGHT, title, parts)


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


def _nice(span: float) -> float:
    """A step of 1, 2 or 5 times a power of ten: five or so to the span."""
    raw = span / 5
    power = 10.0 ** np.floor(np.log10(raw))
    return float(next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999))


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" font-family="sans-serif" font-size="11">'
    )
    return "\n".join((head, *parts, "</svg>"))


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal", color: str = _INK
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{color}">'
        f"{escape(words)}</text>"
    )


def _line(x0: float, y0: float, x1: float, y1: float, color: str, *, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{color}"{dashes}/>'


def _bar(x: float, y: float, width: float, height: float, tip: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}" '
        f'fill="{_FILL}"><title>{escape(tip)}</title></rect>'
    )
