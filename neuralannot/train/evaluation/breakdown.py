"""Errors taken apart: over all, joint by joint, by sequence or subject."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.evaluation.matching import AUC_LIMIT, match_samples
from neuralannot.train.evaluation.measured import Measured
from neuralannot.train.evaluation.spread import SPREAD, spread
from neuralannot.train.evaluation.tables import Cell, Table
from neuralannot.train.samples import Samples

__all__ = ["GROUPS", "by_group", "by_joint", "group_labels", "head_of", "image_paths", "overall"]

#: What errors can be taken apart by.
GROUPS = ("joint", "sequence", "subject")
_UNKNOWN = "unknown"


def head_of(model: str) -> tuple[str, ...]:
    """The columns of every table of a model's errors. Percentiles are over annotations."""
    limit = AUC_LIMIT.get(model)
    area = "AUC" if limit is None else f"AUC 0-{1000 * limit:.0f} mm"
    return ("group", "measure", "unit", "count", *SPREAD, area)


def overall(measured: Measured, model: str) -> Table:
    """A row for each measure. `count`: annotations that have a value."""
    return Table(f"Against {measured.title}", head_of(model), tuple(_rows(measured, "all", slice(None))))


def by_joint(measured: Measured, model: str) -> Table:
    """A row for each joint and measure of joints: the distances of that joint over the annotations."""
    rows: list[tuple[Cell, ...]] = []
    for k, joint in enumerate(measured.joints):
        for column in measured.columns:
            if column.per_joint is not None:
                values = column.per_joint[:, k]
                area = column.auc(joint=k)
                rows.append((joint, column.name, column.unit, _count(values), *spread(values), area))
    return Table(f"Against {measured.title}, by joint", head_of(model), tuple(rows))


def by_group(measured: Measured, model: str, labels: np.ndarray, *, by: str) -> Table:
    """A row for each group and measure. `labels` (N,) str of all of the annotations' rows, by `group_labels`.

    Groups are in the labels' order, numbers in them by size.
    """
    own = labels[measured.rows]
    rows: list[tuple[Cell, ...]] = []
    for label in sorted(set(own.tolist()), key=_natural):
        rows += _rows(measured, label, np.flatnonzero(own == label))
    return Table(f"Against {measured.title}, by {by}", head_of(model), tuple(rows))


def group_labels(gt: PseudoGT, by: str, *, samples: Samples | None = None) -> np.ndarray:
    """(N,) str, the group of each annotation; `unknown` where nothing says it.

    `sequence`: the frame key without its frame ("subject 1, action 2, subaction 1"), else the folder of the
    image, of the annotations or of `samples`; of InterHand2.6M the folder that its cameras' are in.
    `subject`: the key's subject, or InterHand2.6M's capture. Raises ValueError where nothing says it of any
    annotation, and for another `by`.
    """
    names = gt.catalogued.key_names
    framed = "key" in gt.view and names != ("id",)
    if by == "subject":
        name = next((n for n in names if n in ("subject", "capture")), None)
        if name is None or not framed:
            raise ValueError(
                f"{gt.release}: its keys ({', '.join(names)}) name no subject; try by='sequence'"
            )
        return np.array([f"{name} {n}" for n in gt.view.column("key")[:, names.index(name)].tolist()], str)
    if by != "sequence":
        raise ValueError(f"annotations are grouped by {' or '.join(GROUPS[1:])}, got {by!r}")
    if framed and len(names) > 2:
        keys = gt.view.column("key")[:, :-1].tolist()
        return np.array(
            [", ".join(f"{n} {v}" for n, v in zip(names, key, strict=False)) for key in keys], str
        )
    paths = image_paths(gt, samples)
    if paths is None:
        raise ValueError(
            f"{gt.release}: without image paths there are no sequences; load it joined with annotations, or "
            "give the data set's samples"
        )
    # A world fit is of all cameras, whose folders lie in the sequence's.
    level = 1 if gt.catalogued.data_set == "InterHand2.6M" else 0
    return np.array([_folder(p, level) for p in paths.tolist()], str)


def image_paths(gt: PseudoGT, samples: Samples | None) -> np.ndarray | None:
    """(N,) str, empty where not known; None where none is."""
    if gt.joined:
        return gt.image_path
    if samples is None:
        return None
    row = match_samples(gt, samples)
    there = np.flatnonzero(row >= 0)[::-1]  # of a frame's views the first
    paths = np.full(len(gt), "", samples.image_path.dtype)
    paths[row[there]] = samples.image_path[there]
    return paths


def _folder(path: str, level: int) -> str:
    parents = PurePosixPath(path).parents
    return str(parents[min(level, len(parents) - 1)]) if path else _UNKNOWN


def _rows(measured: Measured, group: str, rows: np.ndarray | slice) -> list[tuple[Cell, ...]]:
    return [
        (group, c.name, c.unit, _count(c.values[rows]), *spread(c.values[rows]), c.auc(rows))
        for c in measured.columns
    ]


def _count(values: np.ndarray) -> int:
    return int((~np.isnan(values)).sum())


def _natural(label: str) -> list[tuple[int, int, str]]:
    """Numbers in a label by their size: action 2 before action 11."""
    words = label.replace(",", " ").replace("/", " ").split()
    return [(0, int(word), "") if word.isdecimal() else (1, 0, word) for word in words]
