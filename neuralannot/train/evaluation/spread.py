"""How errors are spread: the statistics that every table of them has."""

from __future__ import annotations

import numpy as np

from neuralannot.train.evaluation.tables import Table

#: The columns of `spread`.
SPREAD = ("mean", "median", "75%", "95%", "largest")


def mean_of(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN where nothing is."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def spread(values: np.ndarray) -> tuple[float | None, ...]:
    """Mean, median, 75th and 95th percentile and maximum of what is not NaN; None where nothing is.

    Where some are infinite, percentiles are values that occur: nothing lies between those and the others.
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return (None,) * len(SPREAD)
    shares = (50, 75, 95)
    is_finite = np.isfinite(values).all()
    some = np.percentile(values, shares) if is_finite else np.percentile(values, shares, method="nearest")
    return tuple(float(v) for v in (values.mean(), *some, values.max()))


def spread_text(unit: str, values: dict[str, np.ndarray]) -> str:
    """A line for each name: mean, median, 95th percentile, maximum."""
    rows = tuple((name, *(spread(v)[k] for k in (0, 1, 3, 4))) for name, v in values.items())
    return Table("", (unit, *(SPREAD[k] for k in (0, 1, 3, 4))), rows).text()
