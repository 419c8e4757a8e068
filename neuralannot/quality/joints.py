"""A release's own joints to judge its fits by: keypoints on images, motion capture's joints in the world."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralannot.boxes import process_boxes
from neuralannot.joint_sets import JOINT_SETS, JointSet
from neuralannot.metrics import mpjpe, projected_error
from neuralannot.train.placing import pose_joints

if TYPE_CHECKING:
    from neuralannot.pseudo_gt import PseudoGT

__all__ = ["JointTargets", "joint_columns", "joint_targets"]

_ROOTS = ("pelvis", "wrist", "right_wrist", "root_flame")
# Where the face and the hands are among COCO-WholeBody's 133.
_PARTS = {"face": slice(23, 91), "left_hand": slice(91, 112), "right_hand": slice(112, 133)}
_NO_EDGE = 1 << 30  # boxes of images of unknown size are not clipped


@dataclass(frozen=True, eq=False)
class JointTargets:
    """What a release's fits are compared with.

    `joint_set`: names, the right hand's for hands; `in_world`: whether they are 3D joints in the world, seen
    through the rows' cameras, rather than keypoints; `columns`: what can be measured; `left_out`: what not.
    """

    joint_set: JointSet
    in_world: bool
    columns: tuple[str, ...]
    left_out: Mapping[str, str]


def joint_targets(gt: PseudoGT) -> JointTargets | str:
    """What to compare the fits of a release with, or why there is nothing."""
    problem = ""
    name = gt[:0].joint_set_world
    if name is not None:
        if gt.space != "world":
            problem = "its 3D joints are in the world, these fits were moved into camera space"
        else:
            try:
                _ = gt[:1].joints_world
            except (FileNotFoundError, ValueError) as error:
                problem = str(error)
            else:
                return _targets(gt, _right(name), in_world=True)
    keypoints = gt[:0].joints_2d
    if keypoints is None:
        why = "the annotations have no keypoints" if gt.joined else _not_joined(gt)
        return f"{problem}; {why}" if problem else why
    count = keypoints.shape[1]
    name = gt[:0].joint_set_2d
    found = None if name is None else _right(name)
    if found is None:
        return f"the annotations have {count} keypoints, of which no set is known"
    part = {"flame": "face", "mano": "hand"}.get(gt.model)
    if part is not None and part not in found.name:
        return f"the annotations have keypoints of {found.name}, none of the {part}"
    return _targets(gt, found, in_world=False)


def _not_joined(gt: PseudoGT) -> str:
    return (
        f"the fits are not joined with annotations; load with annotations={gt.companions.annotation_name()!r}"
    )


def _right(name: str) -> JointSet:
    return JOINT_SETS[name.removesuffix("-left") + "-right" if name.endswith("-left") else name]


def _targets(gt: PseudoGT, joint_set: JointSet, *, in_world: bool) -> JointTargets:
    left_out = {}
    columns: list[str] = []
    if gt[:0].camera is None:
        left_out["reprojection"] = gt.camera_problem
    else:
        columns.append("reprojection")
        try:
            _ = gt[:0].box_xywh
            columns.append("reprojection_percent")
        except (ValueError, FileNotFoundError) as error:
            left_out["reprojection_percent"] = str(error)
    if in_world:
        columns.append("error")
        if any(root in joint_set.joints for root in _ROOTS):
            columns.append("error_root")
    else:
        left_out["error"] = f"{gt.catalogued.data_set} has no 3D joints"
    return JointTargets(joint_set, in_world, tuple(columns), left_out)


def joint_columns(
    targets: JointTargets,
    fits: PseudoGT,
    rows: PseudoGT,
    owner: np.ndarray,
    *,
    regressors: Mapping[str, Any] | None = None,
    body_models: str | os.PathLike[str] | None = None,
    device: Any = None,
) -> dict[str, np.ndarray]:
    """(M,) columns of `rows`, of which row m has the fit `owner[m]` of `fits`. See `measure_quality`."""
    posed = pose_joints(
        fits.model,
        {name: fits.params[name] for name in fits.params},
        targets.joint_set,
        regressors=regressors,
        side=fits.side,
        gender=fits.gender,
        body_models=body_models,
        device=device,
    )[owner]
    placed = rows.view.column("valid/transl") if "valid/transl" in rows.view else np.ones(len(rows), bool)
    known = np.isfinite(posed).all(axis=-1) & placed[:, None]
    found: dict[str, np.ndarray] = {}
    joints: np.ndarray | None = None
    if targets.in_world:
        joints = rows.joints_world
        valid = known & np.isfinite(joints).all(axis=-1)
        pair = (posed.astype(np.float64), joints.astype(np.float64))
        found["error"] = mpjpe(*pair, valid=valid)
        if "error_root" in targets.columns:
            root = next(k for k, name in enumerate(targets.joint_set.joints) if name in _ROOTS)
            found["error_root"] = mpjpe(*pair, valid=valid, root=root)
    else:
        valid = known & _counted(rows)
    if "reprojection" in targets.columns:
        camera = rows.require_camera()
        if rows.space == "world":
            posed = camera.world_to_camera(posed)
        if joints is not None:
            wanted = camera.project(camera.world_to_camera(joints))
            valid = valid & np.isfinite(wanted).all(axis=-1)
        else:
            assert rows.joints_2d is not None
            wanted = rows.joints_2d
        pixels = (camera.project(posed).astype(np.float64), wanted.astype(np.float64))
        found["reprojection"] = projected_error(*pixels, valid=valid)
    if "reprojection_percent" in targets.columns:
        size = np.where(rows.image_size > 0, rows.image_size, _NO_EDGE)
        box, good = process_boxes(rows.box_xywh, size)
        side = np.where(good, box[:, 2:].max(axis=1, initial=0), np.nan).astype(np.float64)
        found["reprojection_percent"] = 100 * found["reprojection"] / side
    return found


def _counted(rows: PseudoGT) -> np.ndarray:
    """(M, K) bool: annotated keypoints, but none of a part whose fit is flagged invalid."""
    valid = np.array(rows.joints_2d_valid)
    if rows.model == "smplx" and valid.shape[1] == 133:
        for part, where in _PARTS.items():
            valid[:, where] &= rows.valid[part][:, None]
    return valid
