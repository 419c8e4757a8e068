"""A conversion's errors as a table, one line an annotation."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from neuralannot.atomic import whole_file
from neuralannot.conversion.converting import Conversion
from neuralannot.exports import row_names


def check_table(path: str | os.PathLike[str]) -> Path:
    """The path of a table. Raises ValueError for another suffix than `.csv`."""
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise ValueError(f"{path}: errors are written as .csv, got {path.suffix or 'no suffix'!r}")
    return path


def write_errors(found: Conversion, path: str | os.PathLike[str]) -> Path:
    """Write a line for each annotation, in one step: who it is, errors in millimetres, what is lost.

    Columns: `name` (the id, or the frame key joined by dashes; the row's number where parameters alone were
    converted), `error_mm`, `worst_mm`, one of each part, `lost` (parameters, spaces between them). Where the
    parameters are NaN, errors are empty. The folder is made if it is not there. Raises ValueError for another
    suffix than `.csv`.
    """
    path = check_table(path)
    names = list(map(str, range(len(found)))) if found.gt is None else row_names(found.gt)
    columns = {"error_mm": found.error, "worst_mm": found.worst}
    columns |= {f"{part}_mm": error for part, error in found.part_error.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["name", *columns, "lost"])
        for row, name in enumerate(names):
            errors = [_millimetres(values[row]) for values in columns.values()]
            lost = " ".join(parameter for parameter, rows in found.lost.items() if rows[row])
            lines.writerow([name, *errors, lost])
    return path


def _millimetres(metres: float) -> str:
    return f"{1000 * metres:.4f}" if metres == metres else ""
