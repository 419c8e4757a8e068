"""BEDLAM's npz: camera and world poses, cameras, projected joints."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection
from pathlib import Path

import numpy as np

from neuralannot.exports import write_npz
from neuralannot.formats.hand_means import flat_hand_poses
from neuralannot.formats.hmr import BOX_SCALE, npz_path
from neuralannot.formats.lost import check_leave_out, without_expression
from neuralannot.formats.pictured import body_valid, box_centre, pictured, require_model
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.transforms import rigid_parameters

__all__ = ["write_bedlam"]


def write_bedlam(
    gt: PseudoGT,
    path: str | os.PathLike[str],
    *,
    body_models: str | os.PathLike[str] | None = None,
    box_scale: float = BOX_SCALE,
    leave_out: Collection[str] = (),
    drop_incomplete: bool = False,
    batch_size: int = 256,
) -> Path:
    """Write SMPL-X (or SMPL) annotations as BEDLAM's processed labels; returns the path.

    `pose_cam`, `pose_world` (N, 165): root, 21 of the body, jaw, both eyes (zero), left hand, right hand
    about the *flat* hand; SMPL's are (N, 72). `trans_cam`, `trans_world` (N, 3); `cam_ext` (N, 4, 4). As in
    BEDLAM a body stands at `model(pose_cam, trans_cam) + cam_ext[:3, 3]`: `trans_cam` is turned into the
    camera, not moved there. `cam_int` (N, 3, 3), `shape` (N, 10), `gender`, `center`, `scale` (over 200 px),
    `imgname`; `gtkps` (N, J, 3): smplx's joints projected, px and 1, zeros behind the camera; J is 127, or
    SMPL's 45. `left_hand`, `right_hand` (N,) bool: the hands that were fitted. Beyond its keys `face_valid`
    (N,) and `annotation_id` (N,). Where there is no world, the camera is it.

    Raises ValueError for other models, for rows without image, box or fitted body (see `drop_incomplete`),
    and for expressions, unless `leave_out` names them: `pose_cam` has no place for them.
    """
    check_leave_out(leave_out)
    target = "BEDLAM's npz"
    require_model(gt, ("smplx", "smpl"), target)
    gt = without_expression(gt, target, leave_out)
    fitted = body_valid(gt)
    if not fitted.all():
        said = f"{gt.release}: {int((~fitted).sum())} rows have no fitted body"
        if not drop_incomplete:
            raise ValueError(
                f"{said}, which {target} cannot mark; leave them out with --drop-incomplete "
                "(drop_incomplete=True)"
            )
        warnings.warn(f"{said}; left out", stacklevel=2)
        gt = gt.rows(fitted)
    moved, box = pictured(gt, target, body_models=body_models, drop_incomplete=drop_incomplete)
    own = gt.rows(gt.rows_of(moved.ids)) if len(moved) != len(gt) else gt
    R, t = _extrinsics(own)
    pose = _poses(own, body_models)
    turned = own.params["global_orient"], own.params["transl"]
    if own.space == "world":
        turned = rigid_parameters(*turned, own.rest_root(body_models), R, np.zeros_like(t))
    extrinsic = np.tile(np.eye(4, dtype=np.float32), (len(own), 1, 1))
    extrinsic[:, :3, :3], extrinsic[:, :3, 3] = R, t
    arrays = {
        "imgname": moved.image_path,
        "center": box_centre(box),
        "scale": np.asarray(box[:, 2:], np.float64).max(axis=1, initial=0) * box_scale / 200,
        "pose_cam": np.concatenate([turned[0], pose[:, 3:]], axis=1),
        "pose_world": pose,
        "shape": own.params["betas"],
        "trans_cam": turned[1],
        "trans_world": own.params["transl"],
        "gtkps": _projected(moved, body_models, batch_size),
        "cam_int": moved.require_camera().K,
        "cam_ext": extrinsic,
        "gender": own.gender,
        "annotation_id": own.ids,
    }
    if own.model == "smplx":
        arrays |= {f"{side}_hand": own.valid[f"{side}_hand"] for side in ("left", "right")}
        arrays["face_valid"] = own.valid["face"]
    return write_npz(npz_path(path), arrays)


def _extrinsics(gt: PseudoGT) -> tuple[np.ndarray, np.ndarray]:
    camera = gt.require_camera()
    if gt.space == "world":
        return camera.R, camera.t
    return np.tile(np.eye(3, dtype=np.float32), (len(gt), 1, 1)), np.zeros((len(gt), 3), np.float32)


def _poses(gt: PseudoGT, body_models: str | os.PathLike[str] | None) -> np.ndarray:
    """(N, 72) or (N, 165), the root as stored."""
    n, params = len(gt), gt.params
    body = [params["global_orient"], params["body_pose"].reshape(n, 69 if gt.model == "smpl" else 63)]
    if gt.model == "smpl":
        return np.concatenate(body, axis=1)
    hands = flat_hand_poses(gt, body_models)
    eyes = np.zeros((n, 6), np.float32)
    return np.concatenate([*body, params["jaw_pose"], eyes, hands["left"], hands["right"]], axis=1)


def _projected(gt: PseudoGT, body_models: str | os.PathLike[str] | None, batch_size: int) -> np.ndarray:
    parts = []
    for bodies in gt.forward_batches(want="joints", body_models=body_models, batch_size=batch_size):
        pixels = bodies.project().numpy()
        seen = np.isfinite(pixels).all(axis=-1, keepdims=True)
        parts.append(np.concatenate([np.where(seen, pixels, 0), seen], axis=-1).astype(np.float32))
    joints = 127 if gt.model == "smplx" else 45
    return np.concatenate([np.zeros((0, joints, 3), np.float32), *parts])
