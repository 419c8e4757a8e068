"""`evaluate`: one annotation file against all that is known to be true of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralannot.exports import row_names
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.evaluation.breakdown import GROUPS, by_group, by_joint, group_labels, overall
from neuralannot.train.evaluation.errors import annotation_errors
from neuralannot.train.evaluation.joints import joint_errors
from neuralannot.train.evaluation.matching import with_side
from neuralannot.train.evaluation.measured import (
    Measured,
    measured_joints,
    measured_parameters,
    measured_scans,
    visibility,
)
from neuralannot.train.evaluation.meshes import TrueMeshes, mesh_errors
from neuralannot.train.evaluation.scans import scan_errors
from neuralannot.train.evaluation.tables import Table, tables_csv, tables_markdown
from neuralannot.train.samples import Samples

__all__ = ["Evaluation", "Worst", "evaluate", "ordered"]


@dataclass(frozen=True)
class Worst:
    """An annotation among the worst: its row, what it is called (`row_names`), by what measure, how bad."""

    row: int
    name: str
    measure: str
    unit: str
    value: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    Fields
    ------
    gt: the annotations.
    measured: a `Measured` for each kind of truth; the first decides which annotations are the worst.
    labels: what errors are taken apart by, in order: `sequence`, `subject` -> (N,) str, `joint` -> None.
    truth, samples: as given to `evaluate`, for pictures.
    """

    gt: PseudoGT
    measured: tuple[Measured, ...]
    labels: Mapping[str, np.ndarray | None]
    truth: PseudoGT | None = None
    samples: Samples | None = None

    def tables(self) -> list[Table]:
        """Of each kind of truth the table over all, then one for each of `labels`."""
        tables = []
        for measured in self.measured:
            tables.append(overall(measured, self.gt.model))
            for by, labels in self.labels.items():
                if labels is not None:
                    tables.append(by_group(measured, self.gt.model, labels, by=by))
                elif measured.joints:
                    tables.append(by_joint(measured, self.gt.model))
        return tables

    def worst(self, count: int) -> list[Worst]:
        """The `count` annotations of the largest error, the first column of the first truth, worst first.

        Infinite errors are the worst; annotations without a value are not among them. Of the cameras that see
        one fit of the world, the worst one stands for all.
        """
        if count < 0:
            raise ValueError(f"count must be from 0, got {count}")
        measured = self.measured[0]
        column = next((c for c in measured.columns if not np.isnan(c.values).all()), measured.columns[0])
        fits = None
        if self.gt.space == "world" and "key" in self.gt.view:
            fits = with_side(self.gt.view.column("key"), self.gt.side)[measured.rows]
        order = ordered(column.values, fits, largest_first=True)[:count]
        rows = measured.rows[order]
        names = row_names(self.gt.rows(rows))
        values = column.values[order].tolist()
        return [
            Worst(row, name, column.name, column.unit, value)
            for row, name, value in zip(rows.tolist(), names, values, strict=True)
        ]

    def csv(self) -> str:
        """All tables as one CSV: the table's title, then its columns."""
        return tables_csv(self.tables())

    def markdown(self) -> str:
        """All tables as Markdown."""
        return tables_markdown(self.tables())

    def __str__(self) -> str:
        """All tables as text, each kind of truth with its note."""
        notes = {f"Against {m.title}": m.note for m in self.measured}
        lines = [f"{self.gt}"]
        for table in self.tables():
            note = notes.get(table.title)
            lines += ["", table.text() if note is None else f"{table.title}: {note}\n{_untitled(table)}"]
        return "\n".join(lines)


def ordered(values: np.ndarray, fits: np.ndarray | None = None, *, largest_first: bool) -> np.ndarray:
    """(M,) row numbers of `values` (N,) in their order, equal ones as they stand; NaN is left out.

    `fits`: (N,) or (N, K), which rows show the same fit: the first of them in the order stands for all.
    """
    values = np.asarray(values, np.float64)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(-values[known] if largest_first else values[known], kind="stable")]
    if fits is None:
        return order
    return order[np.sort(np.unique(fits[order], axis=0, return_index=True)[1])]


def _untitled(table: Table) -> str:
    return Table("", table.head, table.rows).text()


def evaluate(
    gt: PseudoGT,
    *,
    truth: PseudoGT | None = None,
    samples: Samples | None = None,
    meshes: TrueMeshes | None = None,
    scans: str | os.PathLike[str] | None = None,
    scan_unit: str = "m",
    scan_align: str = "rigid",
    by: Sequence[str] = (),
    regressor: Any = None,
    regressors: Mapping[str, Any] | None = None,
    body_models: str | os.PathLike[str] | None = None,
    transfer: str | os.PathLike[str] | None = None,
    device: Any = None,
    progress: bool = False,
) -> Evaluation:
    """The direct error of annotations against each truth that is given, at least one.

    truth: the true parameters, of the same model or SMPL's of SMPL-X and the reverse (`annotation_errors`).
    meshes: true meshes of the same topology (`mesh_errors`, `read_meshes`).
    scans, scan_unit, scan_align: a folder of 3D scans (`scan_errors`).
    samples: the data set's joints, in the image and in 3D (`joint_errors`). Where they miss joints and
        `truth` of the same model is given too, the missing ones are measured apart (`visibility`).
    by: any of `joint`, `sequence`, `subject`: more tables (`group_labels`).
    regressor: whose joints are compared with `truth` and `meshes`; None for the skeleton's.
    regressors: joint set's name -> regressor, for `samples` (`joint_points`).
    body_models, device: as of `PseudoGT.forward`; transfer: as of `annotation_errors`. progress: bars, where
        there is much to do.

    Raises ValueError where nothing true is given, for an unknown `by`, where no annotation has a truth, and
    as the functions named; FileNotFoundError for folders and files.
    """
    for name in by:
        if name not in GROUPS:
            raise ValueError(f"by must be of {', '.join(GROUPS)}, got {name!r}")
    if all(given is None for given in (truth, samples, meshes, scans)):
        raise ValueError("nothing to compare with: give truth, meshes, scans or samples")
    labels = {
        name: None if name == "joint" else group_labels(gt, name, samples=samples)
        for name in dict.fromkeys(by)
    }
    options: dict[str, Any] = {"body_models": body_models, "device": device}
    found: list[Measured] = []
    if truth is not None:
        of_truth = annotation_errors(gt, truth, regressor=regressor, transfer=transfer, **options)
        title = "true parameters" if truth.model == gt.model else f"true parameters of {truth.model}"
        found.append(measured_parameters(of_truth, title=title))
    if meshes is not None:
        errors = mesh_errors(gt, meshes, regressor=regressor, **options)
        found.append(measured_parameters(errors, title="true meshes"))
    if scans is not None:
        distances = scan_errors(gt, scans, unit=scan_unit, align=scan_align, progress=progress, **options)
        found.append(measured_scans(distances))
    if samples is not None:
        of_joints = joint_errors(gt, samples, regressors=regressors, **options)
        title = f"the joints of {samples.data_set}"
        found.append(measured_joints(of_joints, gt.model, title=title))
        if truth is not None and truth.model == gt.model and not samples.valid.all():
            found.append(visibility(gt, truth, samples, regressors=regressors, **options))
    empty = [m.title for m in found if not len(m)]
    if empty:
        raise ValueError(
            f"{gt.release}: no annotation is matched with {empty[0]}; are they of the same data?"
        )
    return Evaluation(gt, tuple(found), labels, truth, samples)
