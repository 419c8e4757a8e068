"""HMR-style npz: SPIN's keys, which most regressors since read, and HMR2's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from neuralannot.exports import write_npz
from neuralannot.formats.keypoint_orders import OPENPOSE_COUNT, SPIN_COUNT, reordered
from neuralannot.formats.pictured import (
    body_valid,
    box_centre,
    camera_joints,
    keypoints_of,
    pictured,
    require_model,
)
from neuralannot.pseudo_gt import PseudoGT

__all__ = ["BOX_SCALE", "write_hmr", "write_hmr2"]

#: What SPIN's preparation of COCO and MPI-INF-3DHP enlarges boxes by.
BOX_SCALE = 1.2
_PIXELS = 200.0  # a `scale` of 1
_HMR2_EXTRA = 19  # the first of SPIN's 24: HMR2 has the face's among OpenPose's


def write_hmr(
    gt: PseudoGT,
    path: str | os.PathLike[str],
    *,
    body_models: str | os.PathLike[str] | None = None,
    box_scale: float = BOX_SCALE,
    drop_incomplete: bool = False,
) -> Path:
    """Write SMPL annotations as a training file of SPIN; returns the path.

    Arrays: `imgname` (N,) below the data set's image folder, `center` (N, 2) px, `scale` (N,) the box's
    longer side times `box_scale` over 200 px, `pose` (N, 72) and `shape` (N, 10) float32 in camera space,
    `has_smpl` (N,) float64, 0 where no body was fitted, `part` (N, 24, 3) and `openpose` (N, 25, 3) px and 1
    or 0, `part` of MoCap data sets where the cameras see their joints, `S` (N, 24, 4) metres about the pelvis
    where the data set has 3D joints, `gender` (`m`, `f`) where no body is neutral. Beyond SPIN's keys, which
    its reader passes over: `trans_cam` (N, 3), `cam_int` (N, 3, 3), `annotation_id` (N,).

    Raises ValueError for other models, rows without image or box (see `drop_incomplete`), and neutral bodies
    among others, since SPIN takes all that is not `m` for female.
    """
    rows, box = _rows(gt, "SPIN's npz", body_models, box_scale, drop_incomplete=drop_incomplete)
    points, valid, joint_set = keypoints_of(rows)
    arrays = _common(rows, box, box_scale, two_sides=False)
    arrays |= {
        "pose": _pose(rows),
        "shape": rows.params["betas"],
        "has_smpl": body_valid(rows).astype(np.float64),
        "part": reordered(points, valid, "spin", joint_set, SPIN_COUNT),
        "openpose": _feet(points, valid, joint_set),
        **_gender(rows),
    }
    solid = camera_joints(rows)
    if solid is not None:
        arrays["S"] = reordered(solid[0], solid[1], "spin", solid[2], SPIN_COUNT)
    return write_npz(npz_path(path), arrays)


def write_hmr2(
    gt: PseudoGT,
    path: str | os.PathLike[str],
    *,
    body_models: str | os.PathLike[str] | None = None,
    box_scale: float = BOX_SCALE,
    drop_incomplete: bool = False,
) -> Path:
    """Write SMPL annotations as HMR2's (4D-Humans') data set class reads them; returns the path.

    Arrays: `imgname`, `center` as `write_hmr`; `scale` (N, 2) width and height in px times `box_scale`: its
    reader divides by 200; `body_pose` (N, 72) float32 with the root in camera space first, `betas` (N, 10),
    `has_body_pose` and `has_betas` (N,) float32; `body_keypoints_2d` (N, 25, 3), OpenPose's, with the face
    and feet, `extra_keypoints_2d` (N, 19, 3), SPIN's, with the limbs; `body_keypoints_3d` (N, 25, 4) and
    `extra_keypoints_3d` (N, 19, 4) metres about the pelvis. Beyond its keys those of `write_hmr`.

    Raises as `write_hmr`, and for bodies that are not neutral: HMR2 has no others.
    """
    rows, box = _rows(gt, "HMR2's npz", body_models, box_scale, drop_incomplete=drop_incomplete)
    _require_neutral(rows)
    points, valid, joint_set = keypoints_of(rows)
    there = body_valid(rows).astype(np.float32)
    arrays = _common(rows, box, box_scale, two_sides=True)
    arrays |= {
        "body_pose": _pose(rows),
        "betas": rows.params["betas"],
        "has_body_pose": there,
        "has_betas": there,
        "body_keypoints_2d": reordered(points, valid, "openpose", joint_set, OPENPOSE_COUNT),
        "extra_keypoints_2d": reordered(points, valid, "spin", joint_set, SPIN_COUNT)[:, :_HMR2_EXTRA],
        "body_keypoints_3d": np.zeros((len(rows), OPENPOSE_COUNT, 4), np.float32),
        "extra_keypoints_3d": np.zeros((len(rows), _HMR2_EXTRA, 4), np.float32),
    }
    solid = camera_joints(rows)
    if solid is not None:
        all_joints = reordered(solid[0], solid[1], "spin", solid[2], SPIN_COUNT)
        arrays["extra_keypoints_3d"] = all_joints[:, :_HMR2_EXTRA]
    return write_npz(npz_path(path), arrays)


def _rows(
    gt: PseudoGT,
    target: str,
    body_models: str | os.PathLike[str] | None,
    box_scale: float,
    *,
    drop_incomplete: bool,
) -> tuple[PseudoGT, np.ndarray]:
    if not box_scale > 0:
        raise ValueError(f"box_scale must be positive, got {box_scale}")
    require_model(gt, ("smpl",), target)
    return pictured(gt, target, body_models=body_models, drop_incomplete=drop_incomplete)


def _common(rows: PseudoGT, box: np.ndarray, box_scale: float, *, two_sides: bool) -> dict[str, np.ndarray]:
    sides = np.asarray(box[:, 2:], np.float64) * box_scale
    return {
        "imgname": rows.image_path,
        "center": box_centre(box),
        "scale": sides if two_sides else sides.max(axis=1) / _PIXELS,
        "trans_cam": rows.params["transl"],
        "cam_int": rows.require_camera().K,
        "annotation_id": rows.ids,
    }


def _pose(rows: PseudoGT) -> np.ndarray:
    return np.concatenate(
        [rows.params["global_orient"], rows.params["body_pose"].reshape(len(rows), 69)], axis=1
    )


def _feet(points: np.ndarray, valid: np.ndarray, joint_set: str | None) -> np.ndarray:
    """OpenPose's places hold detections, of which there are none, and the feet, which SPIN's 24 have not."""
    found = reordered(points, valid, "openpose", joint_set, OPENPOSE_COUNT)
    found[:, :19] = 0
    return found


def _gender(rows: PseudoGT) -> dict[str, np.ndarray]:
    gender = rows.gender
    neutral = gender == "neutral"
    if neutral.all():
        return {}
    if neutral.any():
        raise ValueError(
            f"{rows.release}: {int(neutral.sum())} of {len(rows)} bodies are neutral, which SPIN's npz would "
            "give to readers as female; export them apart from the others"
        )
    return {"gender": np.where(gender == "male", "m", "f")}


def _require_neutral(rows: PseudoGT) -> None:
    other = rows.gender != "neutral"
    if other.any():
        raise ValueError(
            f"{rows.release}: {int(other.sum())} bodies are male or female; HMR2's npz holds neutral ones "
            "alone; use --to hmr, bedlam or humandata, which say the gender"
        )


def npz_path(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path if path.suffix == ".npz" else path / "annotations.npz"
