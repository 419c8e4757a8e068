"""`compare`: several annotation files against one truth, over the annotations that all have, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuralannot.key_index import KeyIndex
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.evaluation.matching import has_ids, with_side
from neuralannot.train.evaluation.report import Evaluation, evaluate
from neuralannot.train.evaluation.spread import mean_of
from neuralannot.train.evaluation.tables import Cell, Table

__all__ = ["compare"]


def compare(gts: Mapping[str, PseudoGT], **truths: Any) -> Table:
    """A row for each of `gts` (its name first), a column for each measure: its mean.

    Only annotations that all files have count, and of those only what every file has a value for; `count`
    says how many. By annotation id where all have ids, else by frame key; hands by side too. `truths` and all
    else as of `evaluate`. Measures that some file lacks are empty there.

    Raises ValueError for fewer than two files, hands beside bodies, and where nothing is common; as
    `evaluate`.

    """
    if len(gts) < 2:
        raise ValueError(f"compare takes two files or more, got {len(gts)}; use evaluate for one")
    chosen = _common(gts)
    found = {name: evaluate(gt, **truths) for name, gt in chosen.items()}
    titles = list(dict.fromkeys(m.title for e in found.values() for m in e.measured))
    shared = {title: _shared_keys(found, title) for title in titles}
    heads: list[str] = []
    rows: list[dict[str, Cell]] = []
    for name, evaluation in found.items():
        row: dict[str, Cell] = {"file": name}
        for measured in evaluation.measured:
            keys = _keys(evaluation.gt, measured.rows, by_id=_by_id(found))
            mine = KeyIndex(shared[measured.title]).first(keys) >= 0
            before = f"{measured.title}: " if len(titles) > 1 else ""
            row[f"{before}count"] = len(np.unique(keys[mine], axis=0))
            for column in measured.columns:
                mean = mean_of(np.asarray(column.values, np.float64)[mine])
                row[f"{before}{column.name} {column.unit}"] = None if np.isnan(mean) else mean
        heads += [head for head in row if head not in heads]
        rows.append(row)
    title = f"Means against {' and '.join(titles)}"
    return Table(title, tuple(heads), tuple(tuple(row.get(head) for head in heads) for row in rows))


def _common(gts: Mapping[str, PseudoGT]) -> dict[str, PseudoGT]:
    """The rows whose annotation every file has."""
    if len({gt.side is None for gt in gts.values()}) > 1:
        raise ValueError("hands do not compare with bodies and faces; give files of one kind")
    by_id = all(has_ids(gt) for gt in gts.values())
    if not by_id and not all("key" in gt.view for gt in gts.values()):
        raise ValueError("the files have neither annotation ids nor frame keys in common; load them joined")
    keys = {name: _keys(gt, np.arange(len(gt)), by_id=by_id) for name, gt in gts.items()}
    if len({k.shape[1] for k in keys.values()}) > 1:
        raise ValueError("the files have keys of different data sets: nothing to compare")
    common = _intersected(list(keys.values()))
    if not len(common):
        raise ValueError(f"no annotation is in all of {', '.join(gts)}; are they of the same data?")
    index = KeyIndex(common)
    return {name: gt.rows(index.first(keys[name]) >= 0) for name, gt in gts.items()}


def _shared_keys(found: Mapping[str, Evaluation], title: str) -> np.ndarray:
    """(K, C) the annotations that every file has a value for, by kind of truth."""
    by_id = _by_id(found)
    groups = []
    for evaluation in found.values():
        for measured in evaluation.measured:
            if measured.title == title:
                first = np.asarray(measured.columns[0].values, np.float64)
                groups.append(_keys(evaluation.gt, measured.rows[~np.isnan(first)], by_id=by_id))
    return _intersected(groups)


def _intersected(groups: list[np.ndarray]) -> np.ndarray:
    common = np.unique(groups[0], axis=0)
    for keys in groups[1:]:
        common = common[KeyIndex(keys).first(common) >= 0]
    return common


def _by_id(found: Mapping[str, Evaluation]) -> bool:
    return all(has_ids(e.gt) for e in found.values())


def _keys(gt: PseudoGT, rows: np.ndarray, *, by_id: bool) -> np.ndarray:
    keys = gt.ids[:, None] if by_id else gt.view.column("key")
    chosen: np.ndarray = with_side(keys, gt.side)[rows]
    return chosen
