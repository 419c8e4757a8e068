"""Annotations against the joints that a data set gives, in the image and in 3D."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralannot.boxes import process_boxes
from neuralannot.cameras import Camera
from neuralannot.metrics import align_similarity, mpjpe, projected_error
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.evaluation.matching import match_samples, root_of
from neuralannot.train.evaluation.spread import mean_of, spread_text
from neuralannot.train.placing import pose_joints
from neuralannot.train.samples import Samples

__all__ = ["JointErrors", "joint_errors"]

# Where the size of an image is not known its boxes are not clipped.
_NO_EDGE = 1 << 30


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
    pa_mpjpe: (M,) millimetres, after the best similarity over the valid joints.
    root: (M,) millimetres, distance of the root joints.
    per_joint_px: (M, J) float32, the distances in the image of the J joints that count, NaN where a joint is
        not annotated; per_joint, pa_per_joint: (M, J) millimetres, about the root where the set has one (else
        as they are) and after the best similarity.
    """

    rows: np.ndarray
    reprojection: np.ndarray
    percent: np.ndarray
    mpjpe: np.ndarray
    mpjpe_root: np.ndarray
    missing: int
    joints: tuple[str, ...]
    pa_mpjpe: np.ndarray
    root: np.ndarray
    per_joint_px: np.ndarray
    per_joint: np.ndarray
    pa_per_joint: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def means(self) -> dict[str, float]:
        """Name -> mean over the rows that have a value; NaN where none has."""
        return {
            name: mean_of(getattr(self, name)) for name in ("reprojection", "percent", "mpjpe", "mpjpe_root")
        }

    def __str__(self) -> str:
        shown = {"reprojection, px": self.reprojection, "% of the box": self.percent}
        if np.isfinite(self.mpjpe).any():
            shown |= {"3D joints, mm": self.mpjpe, "root-aligned": self.mpjpe_root}
        return (
            f"{len(self)} annotations, {self.missing} samples without one; {len(self.joints)} joints\n"
            f"{spread_text('', shown)}"
        )


def joint_errors(
    gt: PseudoGT,
    samples: Samples,
    *,
    regressors: Mapping[str, Any] | None = None,
    body_models: str | os.PathLike[str] | None = None,
    device: Any = None,
    batch_size: int = 1024,
) -> JointErrors:
    """Compare annotations with the joints of the samples that they were made for, in the image and in 3D.

    Rows are matched by annotation id, or, where `gt` has none, by frame key; hands by side too. World-space
    fits pass through the samples' cameras, camera-space ones are projected by their own (or, where they have
    none, the samples'). Joints are those of training: see `joint_points`, `regressors` too.
    Raises ValueError where there is nothing to match by, and for world-space fits of samples without cameras.
    """
    row = match_samples(gt, samples)
    rows = np.stack([row, np.arange(len(row))], axis=1)[row >= 0]
    part, chosen = gt.rows(rows[:, 0]), samples.rows(rows[:, 1])
    joints = joints_of(
        part,
        samples,
        regressors=regressors,
        body_models=body_models,
        device=device,
        batch_size=batch_size,
    )
    known = np.isfinite(joints).all(axis=(0, 2)) if len(joints) else np.zeros(len(samples.joint_set), bool)
    valid = chosen.valid & known
    camera = _viewer(part, chosen)
    if gt.space == "world":
        joints = camera.world_to_camera(joints)
    pixels = camera.project(joints).astype(np.float64)
    off = projected_error(pixels, chosen.joints_2d.astype(np.float64), valid=valid)
    size = np.where(chosen.image_size > 0, chosen.image_size, _NO_EDGE)
    box, _ = process_boxes(chosen.box_xywh, size)
    away = np.where(np.isfinite(pixels).all(axis=-1), _distance(pixels, chosen.joints_2d), np.inf)
    nan = np.full(len(rows), np.nan)
    measured = dict.fromkeys(("mpjpe", "mpjpe_root", "pa_mpjpe", "root"), nan)
    per_joint = {name: np.full(valid.shape, np.nan) for name in ("per_joint", "pa_per_joint")}
    names = samples.joint_set.joints
    if chosen.joints_cam is not None:
        root = root_of(gt.model, names)
        a, b = (joints.astype(np.float64), chosen.joints_cam.astype(np.float64))
        moved = align_similarity(a, b, valid=valid)
        measured["mpjpe"] = 1000 * mpjpe(a, b, valid=valid)
        measured["pa_mpjpe"] = 1000 * mpjpe(moved, b, valid=valid)
        per_joint["pa_per_joint"] = 1000 * _distance(moved, b)
        per_joint["per_joint"] = 1000 * _distance(a, b)
        if root is not None:
            measured["mpjpe_root"] = 1000 * mpjpe(a, b, valid=valid, root=root)
            measured["root"] = np.where(valid[:, root], per_joint["per_joint"][:, root], np.nan)
            per_joint["per_joint"] = 1000 * _distance(a - a[:, root, None], b - b[:, root, None])
    per_joint["per_joint_px"] = away
    columns = {n: np.where(valid, v, np.nan)[:, known].astype(np.float32) for n, v in per_joint.items()}
    percent = 100 * off / box[:, 2:].max(axis=1, initial=0).astype(np.float64) if len(box) else nan
    counted = tuple(n for n, k in zip(names, known, strict=True) if k)
    missing = int((row < 0).sum())
    return JointErrors(rows, off, percent, **measured, missing=missing, joints=counted, **columns)


def joints_of(
    gt: PseudoGT,
    samples: Samples,
    *,
    regressors: Mapping[str, Any] | None = None,
    body_models: str | os.PathLike[str] | None = None,
    device: Any = None,
    batch_size: int = 1024,
) -> np.ndarray:
    """(N, J, 3) float32 metres: joints of the samples' set where the fits put them; see `pose_joints`."""
    return pose_joints(
        gt.model,
        {name: gt.params[name] for name in gt.params},
        samples.joint_set,
        regressors=regressors,
        side=gt.side,
        gender=gt.gender,
        body_models=body_models,
        device=device,
        batch_size=batch_size,
    )


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    distances: np.ndarray = np.linalg.norm(a - b.astype(np.float64), axis=-1)
    return distances


def _viewer(gt: PseudoGT, samples: Samples) -> Camera:
    camera = gt.camera if gt.space == "camera" else None
    camera = samples.camera if camera is None else camera
    if camera is None:
        raise ValueError(
            f"neither the {gt.space}-space fits of {gt.release} nor the samples of {samples.data_set} have "
            "cameras"
        )
    return camera
