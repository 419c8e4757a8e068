"""How good annotations are: a written file against the true parameters, and against the data set's joints.

All of it goes through `load_pseudo_gt` and the body models, as for a user of the file, through no network.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralannot.boxes import process_boxes
from neuralannot.cameras import Camera
from neuralannot.key_index import KeyIndex
from neuralannot.metrics import mpjpe, mpvpe, pa_mpjpe, pa_mpvpe, reprojection_error
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.placing import pose_joints
from neuralannot.train.samples import Samples

__all__ = ["AnnotationErrors", "JointErrors", "annotation_errors", "joint_errors"]

# A regressor's joint that bodies are aligned at, if it has it; else the skeleton's own root is.
_ROOTS = {
    "smpl": ("pelvis",),
    "smplx": ("pelvis",),
    "mano": ("wrist", "right_wrist", "left_wrist"),
    "flame": ("root_flame",),
}
# Where the size of an image is not known its boxes are not clipped.
_NO_EDGE = 1 << 30


@dataclass(frozen=True, eq=False)
class AnnotationErrors:
    """Errors of M annotations against the truth, millimetres, float64.

    Fields
    ------
    rows: (M, 2) int64, the row of the annotations and of the truth.
    mpjpe, mpvpe: (M,) mean distance of joints and of vertices, root joints aligned.
    pa_mpjpe, pa_mpvpe: (M,) the same after the best similarity.
    root: (M,) distance of the root joints, NaN where either has no place (faces).
    missing: (K, C) int64, ids or keys (hands: and the side, 0 right, 1 left) that have a truth and no
        annotation; extra: the other way round.
    joints: what the joints are.
    """

    rows: np.ndarray
    mpjpe: np.ndarray
    pa_mpjpe: np.ndarray
    mpvpe: np.ndarray
    pa_mpvpe: np.ndarray
    root: np.ndarray
    missing: np.ndarray
    extra: np.ndarray
    joints: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def means(self) -> dict[str, float]:
        """Name -> mean over the rows, millimetres; NaN where there are none."""
        return {name: _mean(getattr(self, name)) for name in _MEASURES}

    def __str__(self) -> str:
        heads = ("mm", "mean", "median", "95%", "largest")
        table: list[tuple[str, ...]] = [heads]
        table += [(label, *_spread(getattr(self, name))) for name, label in _MEASURES.items()]
        counts = f"{len(self)} annotations, {len(self.missing)} missing, {len(self.extra)} without a truth"
        return f"{counts}; joints: {self.joints}\n{_table(table)}"


_MEASURES = {
    "mpjpe": "MPJPE",
    "pa_mpjpe": "PA-MPJPE",
    "mpvpe": "MPVPE",
    "pa_mpvpe": "PA-MPVPE",
    "root": "root",
}


@dataclass(frozen=True, eq=False)
class JointErrors:
    """Errors of M annotations against the joints that the data set gives, float64.

    Fields
    ------
    rows: (M, 2) int64, the row of the annotations and of the samples.
    reprojection: (M,) mean distance in px of the whole image; percent: the same in percent of the longer side
        of the processed box (`process_boxes`, 1.25 times the annotated one), the crop that a network sees.
    mpjpe: (M,) millimetres, mean distance to the 3D joints in the camera's frame as they are; mpjpe_root:
        both relative to the root joint (pelvis, wrist; NaN where it is not valid or the set has none). All
        NaN where the samples have no 3D joints.
    missing: number of samples without an annotation.
    joints: names of the joints that count, those that the samples and the body have.
    """

    rows: np.ndarray
    reprojection: np.ndarray
    percent: np.ndarray
    mpjpe: np.ndarray
    mpjpe_root: np.ndarray
    missing: int
    joints: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def means(self) -> dict[str, float]:
        """Name -> mean over the rows that have a value; NaN where none has."""
        return {
            name: _mean(getattr(self, name)) for name in ("reprojection", "percent", "mpjpe", "mpjpe_root")
        }

    def __str__(self) -> str:
        table: list[tuple[str, ...]] = [("", "mean", "median", "95%", "largest")]
        table += [("reprojection, px", *_spread(self.reprojection)), ("% of the box", *_spread(self.percent))]
        if np.isfinite(self.mpjpe).any():
            table += [("3D joints, mm", *_spread(self.mpjpe)), ("root-aligned", *_spread(self.mpjpe_root))]
        return (
            f"{len(self)} annotations, {self.missing} samples without one; {len(self.joints)} joints\n"
            f"{_table(table)}"
        )


def annotation_errors(
    gt: PseudoGT,
    truth: PseudoGT,
    *,
    regressor: Any = None,
    body_models: str | os.PathLike | None = None,
    device: Any = None,
    batch_size: int = 256,
) -> AnnotationErrors:
    """Compare annotations with the true parameters, both as loaded from their files.

    Rows are matched by annotation id where both have ids, else by frame key, hands by side too. Both are
    posed in world space where both are, else in camera space; for that a world release needs its cameras.
    `regressor` as of `PseudoGT.forward`: whose joints are compared; None for the skeleton's. Bodies are
    aligned at the regressor's pelvis or wrist, else at the skeleton's root.

    Raises ValueError for files of different models, without ids or keys in common to match by, and where a
    frame key says too little because each of its rows stands in a camera of its own; and as
    `PseudoGT.forward`.
    """
    import torch

    if gt.model != truth.model:
        raise ValueError(f"the annotations are {gt.model}'s, the truth is {truth.model}'s; compare one model")
    space = "world" if gt.space == truth.space == "world" else "camera"
    rows, missing, extra = _match(gt, truth, space)
    options: dict[str, Any] = {
        "body_models": body_models,
        "space": space,
        "device": device,
        "batch_size": batch_size,
    }
    pair = [g.rows(chosen) for g, chosen in zip((gt, truth), rows.T, strict=True)]
    placed = [
        g.view.column("valid/transl") if "valid/transl" in g.view else np.ones(len(rows), bool) for g in pair
    ]
    meshes = [g.forward_batches(want="mesh", regressor=regressor, **options) for g in pair]
    # The skeletons, where a regressor's joints have taken their place and hold no root.
    bones = [g.forward_batches(want="joints", **options) for g in pair]
    found: dict[str, list[np.ndarray]] = {name: [] for name in _MEASURES}
    count = _skeleton_size(gt.model)
    with torch.no_grad():
        for mine, other in zip(*meshes, strict=True):
            at = None
            if regressor is not None:
                at = next(
                    (mine.joint_names.index(n) for n in _ROOTS[gt.model] if n in mine.joint_names), None
                )
            joints = [b.joints[:, :count] if regressor is None else b.joints for b in (mine, other)]
            if regressor is not None and at is None:
                roots = [next(b).joints[:, 0] for b in bones]
            else:
                roots = [b.joints[:, at or 0] for b in (mine, other)]
            a, b = (j - r[:, None] for j, r in zip(joints, roots, strict=True))
            surfaces = [bodies.vertices for bodies in (mine, other)]
            assert surfaces[0] is not None
            assert surfaces[1] is not None
            measured = {
                "mpjpe": mpjpe(a, b),
                "pa_mpjpe": pa_mpjpe(a, b),
                "mpvpe": mpvpe(surfaces[0], surfaces[1], roots=(roots[0], roots[1])),
                # About their roots: far from the origin float32 is coarse.
                "pa_mpvpe": pa_mpvpe(surfaces[0] - roots[0][:, None], surfaces[1] - roots[1][:, None]),
                "root": torch.linalg.vector_norm(roots[0] - roots[1], dim=-1),
            }
            for name, values in measured.items():
                found[name].append(values.double().cpu().numpy() * 1000)
    errors = {name: np.concatenate([np.zeros(0), *values]) for name, values in found.items()}
    errors["root"] = np.where(placed[0] & placed[1], errors["root"], np.nan)
    what = "the skeleton's" if regressor is None else regressor if isinstance(regressor, str) else "regressed"
    return AnnotationErrors(rows, **errors, missing=missing, extra=extra, joints=what)


def joint_errors(
    gt: PseudoGT,
    samples: Samples,
    *,
    regressors: Mapping[str, Any] | None = None,
    body_models: str | os.PathLike | None = None,
    device: Any = None,
    batch_size: int = 1024,
) -> JointErrors:
    """Compare annotations with the joints of the samples that they were made for, in the image and in 3D.

    Rows are matched by annotation id, or, where `gt` has none, by frame key; hands by side too. World-space
    fits pass through the samples' cameras, camera-space ones are projected by their own (or, where they have
    none, the samples'). Joints are those of training: see `joint_points`, `regressors` too.
    Raises ValueError where there is nothing to match by, and for world-space fits of samples without cameras.
    """
    hands = samples.side if gt.side is not None else None
    if gt.side is not None and hands is None:
        raise ValueError(f"{gt.release} holds hands, the samples of {samples.data_set} have no sides")
    by_id = "id" in gt.view or gt.joined
    own = _with_side(gt.ids[:, None] if by_id else gt.view.column("key"), gt.side)
    wanted = _with_side(samples.ids[:, None] if by_id else samples.keys, hands)
    if own.shape[1] != wanted.shape[1]:
        raise ValueError(
            f"{gt.release} is keyed by ({', '.join(gt.catalogued.key_names)}), the samples of "
            f"{samples.data_set} have keys of {samples.keys.shape[1]} numbers; load with annotations="
        )
    row = KeyIndex(own).first(wanted)
    rows = np.stack([row, np.arange(len(row))], axis=1)[row >= 0]
    part, chosen = gt.rows(rows[:, 0]), samples.rows(rows[:, 1])
    joints = pose_joints(
        gt.model,
        {name: part.params[name] for name in part.params},
        samples.joint_set,
        regressors=regressors,
        side=part.side,
        gender=part.gender,
        body_models=body_models,
        device=device,
        batch_size=batch_size,
    )
    known = np.isfinite(joints).all(axis=(0, 2)) if len(joints) else np.zeros(len(samples.joint_set), bool)
    valid = chosen.valid & known
    camera = _viewer(part, chosen)
    if gt.space == "world":
        joints = camera.world_to_camera(joints)
    off = _reprojection(camera.project(joints), chosen.joints_2d, valid)
    size = np.where(chosen.image_size > 0, chosen.image_size, _NO_EDGE)
    box, _ = process_boxes(chosen.box_xywh, size)
    nan = np.full(len(rows), np.nan)
    in_space = {"mpjpe": nan, "mpjpe_root": nan}
    if chosen.joints_cam is not None:
        root = next((k for k, n in enumerate(samples.joint_set.joints) if n in _ROOTS[gt.model]), None)
        points = (joints.astype(np.float64), chosen.joints_cam.astype(np.float64))
        in_space["mpjpe"] = 1000 * mpjpe(*points, valid=valid)
        if root is not None:
            in_space["mpjpe_root"] = 1000 * mpjpe(*points, valid=valid, root=root)
    names = tuple(n for n, k in zip(samples.joint_set.joints, known, strict=True) if k)
    percent = 100 * off / box[:, 2:].max(axis=1, initial=0).astype(np.float64) if len(box) else nan
    return JointErrors(rows, off, percent, **in_space, missing=int((row < 0).sum()), joints=names)


def _reprojection(found: np.ndarray, wanted: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(N,) float64 px. A joint behind the camera has no pixel, and the row no error that means much: inf."""
    behind = (valid & ~np.isfinite(found).all(axis=-1)).any(axis=1)
    mask = valid & ~behind[:, None]
    error = reprojection_error(found.astype(np.float64), wanted.astype(np.float64), valid=mask)
    return np.where(behind, np.inf, error)


def _viewer(gt: PseudoGT, samples: Samples) -> Camera:
    camera = gt.camera if gt.space == "camera" else None
    camera = samples.camera if camera is None else camera
    if camera is None:
        raise ValueError(
            f"neither the {gt.space}-space fits of {gt.release} nor the samples of {samples.data_set} have "
            "cameras"
        )
    return camera


def _match(gt: PseudoGT, truth: PseudoGT, space: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(M, 2) rows of both, in the truth's order; the keys that are the truth's or the annotations' alone."""
    by_id = all("id" in g.view or g.joined for g in (gt, truth))
    if not by_id and not all("key" in g.view for g in (gt, truth)):
        raise ValueError(
            f"{gt.release} and {truth.release} have neither annotation ids nor frame keys in common; "
            "load both joined with annotations"
        )
    mine, other = (_with_side(g.ids[:, None] if by_id else g.view.column("key"), g.side) for g in (gt, truth))
    if mine.shape[1] != other.shape[1]:
        raise ValueError(
            f"{gt.release} and {truth.release} have keys of {mine.shape[1]} and {other.shape[1]}"
        )
    first, last = (np.sort(np.unique(k, axis=0, return_index=True)[1]) for k in (mine, other))
    if space == "camera" and (len(first) < len(mine) or len(last) < len(other)):
        raise ValueError(
            f"{gt.release}: a key stands in several rows, each in its own camera's space; load both files "
            "joined with annotations, so that rows have ids"
        )
    found = KeyIndex(mine).first(other[last])
    rows = np.stack([found, last], axis=1)[found >= 0]
    extra = first[KeyIndex(other).first(mine[first]) < 0]
    return rows, other[last[found < 0]], mine[extra]


def _with_side(keys: np.ndarray, side: np.ndarray | None) -> np.ndarray:
    keys = np.asarray(keys, np.int64)
    return keys if side is None else np.column_stack([keys, np.asarray(side) == "left"])


def _skeleton_size(model: str) -> int:
    return {"smpl": 24, "smplx": 55, "mano": 16, "flame": 5}[model]


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _spread(values: np.ndarray) -> tuple[str, ...]:
    values = values[~np.isnan(values)]
    if not len(values):
        return ("-",) * 4
    # Infinite ones have no place between others.
    some = np.percentile(values, (50, 95), method="nearest")
    return tuple(f"{v:.2f}" for v in (values.mean(), *some, values.max()))


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        numbers = (text.rjust(width) for text, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join((first.ljust(widths[0]), *numbers)))
    return "\n".join(lines)
