"""Parquet: a row an annotation, for `datasets`, pandas and databases. Written by pyarrow, an extra."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.atomic import whole_file
from neuralannot.formats.everything import all_columns
from neuralannot.pseudo_gt import PseudoGT

__all__ = ["write_parquet"]


def write_parquet(
    gt: PseudoGT,
    path: str | os.PathLike[str],
    *,
    space: str = "camera",
    body_models: str | os.PathLike[str] | None = None,
    rows_per_group: int = 10_000,
) -> Path:
    """Write annotations or fits of any model as one Parquet file; returns the path.

    Columns as `all_columns` names them, arrays as lists of fixed sizes, in the dtypes that the columns have;
    boxes that are not there are null. `release`, `model`, `space` and `keypoint_set` are columns too, and in
    the schema's metadata under `neuralannot`. Row groups (`rows_per_group`) can be read alone.

    Raises ImportError that names the extra where pyarrow is not installed; ValueError as `all_columns`.
    """
    arrow = _pyarrow()
    import pyarrow.parquet

    if rows_per_group < 1:
        raise ValueError(f"rows_per_group must be positive, got {rows_per_group}")
    columns, about = all_columns(gt, space=space, body_models=body_models)
    arrays = {name: _array(arrow, values) for name, values in columns.items()}
    for name in ("release", "model", "space", "keypoint_set"):
        said = np.full(len(gt), about[name] or "")
        arrays[name] = _array(arrow, said)
    table = arrow.table(arrays).replace_schema_metadata({"neuralannot": json.dumps(about)})
    path = Path(path)
    path = path if path.suffix == ".parquet" else path / "annotations.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        pyarrow.parquet.write_table(table, part, row_group_size=rows_per_group)
    return path


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise ImportError("Parquet needs pyarrow: pip install 'neuralannot[parquet]'") from None
    return pyarrow


def _array(arrow: Any, values: np.ndarray) -> Any:
    if values.dtype.kind == "U":
        return arrow.array(values.tolist(), arrow.string())
    if values.ndim == 1:
        return arrow.array(np.ascontiguousarray(values))
    lacking = np.isnan(values).any(axis=tuple(range(1, values.ndim))) if values.dtype.kind == "f" else None
    flat = arrow.array(np.ascontiguousarray(values).reshape(-1))
    for size in values.shape[:1:-1]:
        flat = arrow.FixedSizeListArray.from_arrays(flat, size)
    mask = arrow.array(lacking) if lacking is not None and lacking.any() else None
    return arrow.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=mask)
