"""The quality of rows, kept beside the file or measured now, and which rows are the worst."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neuralannot.pseudo_gt import PseudoGT
from neuralannot.quality.measure import measure_quality, shared_fits
from neuralannot.quality_columns import MEASURES
from neuralannot.train.evaluation.report import ordered

__all__ = ["RANKED_BY", "Errors", "errors_of", "for_people"]

#: Measures that say which annotations are the worst, the first that there is.
RANKED_BY = ("error", "reprojection_percent", "reprojection", "bend", "prior", "penetration", "shape")
# Units of columns -> what people read, and how many of it one is.
_SHOWN_AS: Mapping[str, tuple[str, float]] = {
    "m": ("mm", 1000.0),
    "m/frame": ("mm/frame", 1000.0),
    "rad": ("°", 180 / np.pi),
}


@dataclass(frozen=True, eq=False)
class Errors:
    """Quality columns of N rows, in the units of `MEASURES`.

    `columns`: name -> (N,) float32 or bool; `left_out`: what was not measured, and why; `kept`: whether they
    stood beside the file; `ranked_by`: the measure that says which are the worst, None where none has a
    value; `owner`: (N,) int64, which fit each row shows.
    """

    columns: Mapping[str, np.ndarray]
    left_out: Mapping[str, str]
    kept: bool
    ranked_by: str | None
    owner: np.ndarray

    def ranked(self, *, worst_first: bool, among: np.ndarray | None = None) -> np.ndarray:
        """(M,) rows in order, those without a value left out. Of rows that show one fit the first stands for
        all. `among`: (N,) bool, only these rows."""
        if self.ranked_by is None:
            return np.zeros(0, np.int64)
        rows = np.arange(len(self.owner)) if among is None else np.flatnonzero(among)
        worst: np.ndarray = rows[
            ordered(self.columns[self.ranked_by][rows], self.owner[rows], largest_first=worst_first)
        ]
        return worst


def errors_of(
    gt: PseudoGT,
    *,
    by: str | None = None,
    again: bool = False,
    body_models: str | os.PathLike[str] | None = None,
    prior: str = "default",
    device: str | None = None,
    batch_size: int = 1024,
    progress: bool = False,
) -> Errors:
    """The quality columns that `gt` has, or new ones where it has none, or `again`.

    `by`: the measure that ranks, None for the first of `RANKED_BY`. Raises ValueError for a measure that is
    not there, that is a flag or that no row has a value of, and as `measure_quality`.
    """
    left_out: Mapping[str, str] = {}
    kept = bool(len(gt.quality)) and not again
    if kept or not len(gt):
        columns = {name: np.asarray(values) for name, values in gt.quality.items()}
    else:
        measured = measure_quality(
            gt, body_models=body_models, prior=prior, device=device, batch_size=batch_size, progress=progress
        )
        columns, left_out = dict(measured), measured.left_out
    numbers = [n for n, v in columns.items() if v.dtype != bool and not np.isnan(v).all()]
    if by is not None and by not in numbers and len(gt):
        why = left_out.get(by, "no row has a value" if by in columns else "it is not among the columns")
        raise ValueError(f"no ranking by {by!r}: {why}; there are {', '.join(numbers) or 'none'}")
    ranked_by = by if by in numbers else next((n for n in RANKED_BY if n in numbers), None)
    owner = shared_fits(gt)[1] if len(gt) else np.zeros(0, np.int64)
    return Errors(columns, left_out, kept, ranked_by, owner)


def for_people(name: str, values: np.ndarray) -> tuple[str, np.ndarray]:
    """The unit that a measure is shown in, and its values (N,) in that: millimetres, degrees."""
    unit = MEASURES[name].unit if name in MEASURES else ""
    shown, factor = _SHOWN_AS.get(unit, (unit, 1.0))
    return shown, np.asarray(values, np.float64) * factor
