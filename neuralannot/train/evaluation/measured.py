"""`Measured`: errors of annotations by one kind of truth, in columns that tables and plots are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralannot.metrics import align_similarity, auc
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.evaluation.errors import AnnotationErrors
from neuralannot.train.evaluation.joints import JointErrors, joints_of
from neuralannot.train.evaluation.matching import AUC_LIMIT, match_samples, root_of
from neuralannot.train.evaluation.scans import ScanErrors
from neuralannot.train.evaluation.spread import mean_of
from neuralannot.train.samples import Samples

__all__ = ["Column", "Measured", "measured_joints", "measured_parameters", "measured_scans", "visibility"]

_POINTS = 1 << 20  # at once, of a measure's points


@dataclass(frozen=True, eq=False)
class Column:
    """One measure of M annotations.

    `name`, `unit` (mm, px or %); `values` (M,) float64, NaN where there is none; `per_joint` (M, J), the
    distances that a value is the mean of, NaN where a joint does not count, None for other measures;
    `areas` (M,): of measures of vertices, the area under the curve of each annotation; `auc_limit`: mm up to
    which that area is taken, None where none is.
    """

    name: str
    unit: str
    values: np.ndarray
    per_joint: np.ndarray | None = None
    areas: np.ndarray | None = None
    auc_limit: float | None = None

    def auc(self, rows: np.ndarray | slice = slice(None), joint: int | None = None) -> float | None:
        """The area from 0 to 1 under the curve of correct points of these rows, all points pooled.

        Of one joint where `joint` says so. None where the measure has no such area, or no point.
        """
        if self.auc_limit is None:
            return None
        if self.areas is not None:
            area = mean_of(self.areas[rows])
            return None if np.isnan(area) else area
        if self.per_joint is None:
            return None
        points = self.per_joint[rows] if joint is None else self.per_joint[rows, joint]
        points = np.asarray(points, np.float64).ravel()
        points = points[~np.isnan(points)]
        if not len(points):
            return None
        total = 0.0
        for first in range(0, len(points), _POINTS):
            some = points[first : first + _POINTS]
            line = np.zeros((len(some), 3))
            line[:, 0] = some
            total += len(some) * float(auc(line, np.zeros_like(line), high=self.auc_limit))
        return total / len(points)


@dataclass(frozen=True, eq=False)
class Measured:
    """`title`: against what; `note`: how many, and which joints; `rows` (M,) of the annotations; `joints`: J
    names; `columns`, of which the first says which annotations are worst."""

    title: str
    note: str
    rows: np.ndarray
    joints: tuple[str, ...]
    columns: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.rows)


def measured_parameters(errors: AnnotationErrors, *, title: str = "true parameters") -> Measured:
    """Of errors against parameters or meshes."""
    limit = errors.auc_limit
    columns = (
        Column("MPVPE", "mm", errors.mpvpe, None, errors.auc.get("mpvpe"), limit),
        Column("PA-MPVPE", "mm", errors.pa_mpvpe, None, errors.auc.get("pa_mpvpe"), limit),
        Column("MPJPE", "mm", errors.mpjpe, errors.per_joint, None, limit),
        Column("PA-MPJPE", "mm", errors.pa_mpjpe, errors.pa_per_joint, None, limit),
        Column("root error", "mm", errors.root),
    )
    note = (
        f"{len(errors)} annotations, {len(errors.missing)} missing, {len(errors.extra)} without a truth; "
        f"joints: {errors.joints}"
    )
    return Measured(title, note, errors.rows[:, 0], errors.joint_names, columns)


def measured_joints(errors: JointErrors, model: str, *, title: str = "joints of the data set") -> Measured:
    """Of errors against the joints that a data set gives; 3D measures where it gives 3D joints."""
    limit = AUC_LIMIT.get(model)
    mm = None if limit is None else 1000 * limit
    flat = (
        Column("reprojection", "px", errors.reprojection, errors.per_joint_px),
        Column("reprojection", "%", errors.percent),
    )
    solid: tuple[Column, ...] = ()
    if np.isfinite(errors.mpjpe).any():
        has_root = np.isfinite(errors.mpjpe_root).any()
        about = Column("MPJPE", "mm", errors.mpjpe_root, errors.per_joint, None, mm)
        solid = (
            *([about] if has_root else []),
            Column("PA-MPJPE", "mm", errors.pa_mpjpe, errors.pa_per_joint, None, mm),
            Column("MPJPE, not aligned", "mm", errors.mpjpe, None if has_root else errors.per_joint),
            *([Column("root error", "mm", errors.root)] if has_root else []),
        )
    note = f"{len(errors)} annotations, {errors.missing} samples without one; {len(errors.joints)} joints"
    return Measured(title, note, errors.rows[:, 0], _sideless(model, errors.joints), (*solid, *flat))


def measured_scans(errors: ScanErrors, *, title: str = "3D scans") -> Measured:
    """Of distances to scans: each scan's median, mean and standard deviation."""
    columns = tuple(
        Column(f"3D surface error, {name}", "mm", getattr(errors, name)) for name in ("mean", "median", "std")
    )
    pooled = ", ".join(f"{name} {value:.2f}" for name, value in errors.pooled.items())
    note = (
        f"{len(errors)} scans, alignment {errors.align}; over all points: {pooled} mm; {errors.missing} "
        f"annotations without a scan, {len(errors.extra)} scans without an annotation"
    )
    return Measured(title, note, errors.rows, (), columns)


def visibility(
    gt: PseudoGT,
    truth: PseudoGT,
    samples: Samples,
    *,
    regressors: Mapping[str, Any] | None = None,
    body_models: Any = None,
    device: Any = None,
) -> Measured:
    """Errors at the joints that the samples give, and at those that they miss but the truth knows.

    Both files are posed at the joints of the samples' set (`joint_points`). Bodies are aligned at the set's
    pelvis or wrist as the truth has it, given or not, else at the skeleton's root; a value is the mean over
    the given, or the missing, joints of an annotation. PA: one similarity over all joints.

    Raises ValueError for files of different models, or that cannot be matched with the samples.
    """
    if gt.model != truth.model:
        raise ValueError(
            f"the annotations are {gt.model}'s, the truth is {truth.model}'s; a set's joints are compared of "
            "one model: convert one of the files"
        )
    if gt.space != truth.space:
        gt, truth = (g.to_camera_space(body_models) for g in (gt, truth))
    mine, other = match_samples(gt, samples), match_samples(truth, samples)
    both = np.flatnonzero((mine >= 0) & (other >= 0))
    pair = [g.rows(rows[both]) for g, rows in ((gt, mine), (truth, other))]
    options = {"regressors": regressors, "body_models": body_models, "device": device}
    posed = [joints_of(g, samples, **options).astype(np.float64) for g in pair]
    names = samples.joint_set.joints
    at = root_of(gt.model, names)
    if at is None or any(np.isnan(points[:, at]).any() for points in posed):
        roots = [_skeleton_roots(g, body_models, device) for g in pair]
    else:
        roots = [points[:, at] for points in posed]
    a: np.ndarray = posed[0] - roots[0][:, None]
    b: np.ndarray = posed[1] - roots[1][:, None]
    known: np.ndarray = np.isfinite(a).all(axis=-1) & np.isfinite(b).all(axis=-1)
    moved = align_similarity(a, b, valid=known)
    given = samples.rows(both).valid
    counted = np.asarray(known.any(axis=0))
    limit = AUC_LIMIT.get(gt.model)
    columns = []
    for label, points in (("MPJPE", a), ("PA-MPJPE", moved)):
        away = 1000 * np.linalg.norm(points - b, axis=-1)
        for kind, mask in (("given joints", given), ("missing joints", ~given)):
            kept = np.where(mask & known, away, np.nan)[:, counted]
            count = (~np.isnan(kept)).sum(axis=1)
            mean = np.where(count > 0, np.nansum(kept, axis=1) / np.maximum(count, 1), np.nan)
            mm = None if limit is None else 1000 * limit
            columns.append(Column(f"{label}, {kind}", "mm", mean, kept, None, mm))
    share = float((~given & known).sum() / max(1, known.sum()))
    note = (
        f"{len(both)} samples, {100 * share:.1f}% of their joints missing; joints: {samples.joint_set.name}"
    )
    joints = _sideless(gt.model, tuple(n for n, k in zip(names, counted, strict=True) if k))
    return Measured("true parameters, given and missing joints", note, mine[both], joints, tuple(columns))


def _sideless(model: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The samples of hands have the right one's names whatever the side."""
    return tuple(n.removeprefix("right_") for n in names) if model == "mano" else names


def _skeleton_roots(gt: PseudoGT, body_models: Any, device: Any) -> np.ndarray:
    """(N, 3) float64 metres in the fits' own space."""
    batches = gt.forward_batches(want="joints", body_models=body_models, space=gt.space, device=device)
    return np.concatenate([np.zeros((0, 3)), *(b.joints[:, 0].double().cpu().numpy() for b in batches)])
