"""The distribution of quality columns, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neuralannot.quality_columns import MEASURES

__all__ = ["quality_summary"]

_PERCENTILES = (50, 90, 95, 99)
_HEADS = ("", "rows", "mean", *("median" if p == 50 else f"{p}%" for p in _PERCENTILES), "largest")
_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 24
_TAIL = 99  # percentile at which histograms end; the last bar holds what lies beyond


def quality_summary(quality: Mapping[str, np.ndarray], *, left_out: Mapping[str, str] | None = None) -> str:
    """A table of (N,) columns: how many rows have a value, mean, percentiles, and a histogram of each.

    Numbers are in the columns' units, those of `PseudoGT.filter`. A histogram runs from 0 to the 99th
    percentile, its last bar holds the rest; bars are as high as the share of rows, the highest full. Flags:
    how many rows have them. `left_out`: name -> why it was not measured, added as lines.
    """
    numbers = {name: np.asarray(values) for name, values in quality.items()}
    table = [_HEADS]
    drawn = [""]
    flags = []
    for name, values in numbers.items():
        unit = MEASURES[name].unit if name in MEASURES else ""
        if values.dtype == bool:
            share = 100 * values.mean() if len(values) else 0.0
            flags.append(f"{name}: {int(values.sum())} of {len(values)} rows ({share:.1f} %)")
            continue
        known = values[~np.isnan(values)].astype(np.float64)
        label = f"{name}, {unit}" if unit else name
        table.append((label, str(len(known)), *_numbers(known)))
        drawn.append(_histogram(known))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row, bars in zip(table, drawn, strict=True):
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join([*cells, bars]).rstrip())
    lines += flags
    lines += [f"not measured: {name}: {why}" for name, why in (left_out or {}).items()]
    return "\n".join(lines)


def _numbers(known: np.ndarray) -> tuple[str, ...]:
    if not len(known):
        return ("-",) * (2 + len(_PERCENTILES))
    # Infinite ones have no place between others.
    some = np.percentile(known, _PERCENTILES, method="nearest")
    return tuple(_short(value) for value in (known.mean(), *some, known.max()))


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _histogram(known: np.ndarray) -> str:
    finite = known[np.isfinite(known)]
    if not len(finite) or finite.max() <= 0:
        return ""
    end = float(np.percentile(finite, _TAIL)) or float(finite.max())
    counts, _ = np.histogram(np.minimum(known, end), bins=_BINS, range=(0, end))
    heights = np.ceil(counts / counts.max() * (len(_BARS) - 1)).astype(int)
    return f"0 |{''.join(_BARS[h] for h in heights)}| {_short(end)}"
