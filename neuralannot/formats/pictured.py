"""What all formats of picture data sets need of annotations: an image, a box, a camera, one model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from neuralannot.cameras import Camera
from neuralannot.pseudo_gt import PseudoGT

_ADVICE = {
    ("smplx", "smpl"): "convert it first: neuralannot convert FILE --to smpl --out smpl.json",
    ("smpl", "smplx"): "convert it first: neuralannot convert FILE --to smplx --out smplx.json",
}
_NAMES = {"smpl": "SMPL", "smplx": "SMPL-X", "mano": "MANO", "flame": "FLAME"}
_ANY_MODEL = "use --to coco, webdataset or parquet, which hold every model"


def require_model(gt: PseudoGT, models: Sequence[str], target: str) -> None:
    """Raise ValueError that says what to do where a format does not hold the rows' body model."""
    if gt.model in models:
        return
    advice = next((_ADVICE[gt.model, m] for m in models if (gt.model, m) in _ADVICE), _ANY_MODEL)
    raise ValueError(
        f"{gt.release}: {target} holds {' and '.join(_NAMES[m] for m in models)} parameters, these are "
        f"{_NAMES[gt.model]}'s; {advice}"
    )


def pictured(
    gt: PseudoGT,
    target: str,
    *,
    body_models: str | os.PathLike[str] | None = None,
    drop_incomplete: bool = False,
    need_box: bool = True,
) -> tuple[PseudoGT, np.ndarray]:
    """The rows of `pictured_rows` in camera space, and their boxes (N, 4) px."""
    gt, box = pictured_rows(gt, target, drop_incomplete=drop_incomplete, need_box=need_box)
    return gt.to_camera_space(body_models), box


def pictured_rows(
    gt: PseudoGT, target: str, *, drop_incomplete: bool = False, need_box: bool = True
) -> tuple[PseudoGT, np.ndarray]:
    """The rows with a camera, an image and a box each, in their own space, and their boxes (N, 4) px.

    Boxes that are not there are NaN where `need_box` is false. Raises ValueError where there are no
    annotations or cameras, and for rows without an image or a box unless `drop_incomplete`, which leaves them
    out with a warning that counts them.
    """
    if not gt.joined:
        raise ValueError(
            f"{gt.release}: {target} needs images and boxes, these are bare fits; load with annotations= "
            f"({gt.companions.annotation_name()})"
        )
    gt.require_camera()
    box = gt.box_xywh
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(box).all(axis=1) & (box[:, 2:] > 0).all(axis=1)
    lacking = ~(whole | (not need_box)) | (gt.image_path == "")
    if lacking.any():
        first = int(np.flatnonzero(lacking)[0])
        what = "image" if gt.image_path[first] == "" else "box"
        said = f"{int(lacking.sum())} of {len(gt)} annotations have no image or no box"
        if not drop_incomplete:
            raise ValueError(
                f"{gt.release}: {said}, which {target} needs; the first is {gt.ids[first]}, without {what}; "
                "leave them out with --drop-incomplete (drop_incomplete=True)"
            )
        warnings.warn(f"{gt.release}: {said}; left out", stacklevel=3)
        gt, box = gt.rows(~lacking), box[~lacking]
    return gt, box


def box_centre(box_xywh: np.ndarray) -> np.ndarray:
    """(N, 4) boxes -> (N, 2) float64 centres px."""
    box = np.asarray(box_xywh, np.float64)
    return box[:, :2] + box[:, 2:] / 2


def keypoints_of(gt: PseudoGT) -> tuple[np.ndarray, np.ndarray, str | None]:
    """The annotated keypoints (N, K, 2) px, their validity (N, K), their set; K = 0 where there are none.

    MoCap data sets annotate no pixels: theirs are where the cameras see their 3D joints, if `camera_joints`
    has those. Warns where the file of these is not there, and where there are keypoints that nobody has
    named, since no order of another file can take them.
    """
    points, valid = gt.joints_2d, gt.joints_2d_valid
    if points is None or valid is None:
        try:
            mocap = _mocap_joints(gt)
        except FileNotFoundError as error:
            warnings.warn(f"{gt.release}: no joints of the data set are written: {error}", stacklevel=3)
            mocap = None
        if mocap is None:
            return np.zeros((len(gt), 0, 2), np.float32), np.zeros((len(gt), 0), bool), None
        joints, camera, joint_set = mocap
        pixels = camera.project(joints)
        return pixels, np.isfinite(pixels).all(axis=-1), joint_set
    name = gt.joint_set_2d
    if name is None:
        warnings.warn(
            f"{gt.release}: its {points.shape[1]} keypoints are of no known set and are not written",
            stacklevel=3,
        )
    return points, valid, name


def camera_joints(gt: PseudoGT) -> tuple[np.ndarray, np.ndarray, str] | None:
    """The data set's 3D joints (N, K, 3) metres in the cameras' frames, pelvis at the origin.

    With validity (N, K) and the set's name; None where the data set has none, or its file is not there.
    Rows whose pelvis is missing are not valid.
    """
    mocap = None
    with suppress(FileNotFoundError):  # which `keypoints_of` says
        mocap = _mocap_joints(gt)
    if mocap is None:
        return None
    from neuralannot.joint_sets import get_joint_set

    points, _, name = mocap
    joints = get_joint_set(name).joints
    root = joints.index("pelvis") if "pelvis" in joints else 0
    points = points - points[:, root : root + 1]
    return points, np.isfinite(points).all(axis=-1), name


def _mocap_joints(gt: PseudoGT) -> tuple[np.ndarray, Camera, str] | None:
    """(N, K, 3) metres in the cameras' frames, NaN where invalid; the cameras; the set. None where
    the data set has no such joints, FileNotFoundError where their file is not there."""
    name = gt.joint_set_world
    if name is None or "cam/R" not in gt.view:
        return None
    from neuralannot.joints_gt import world_camera

    camera = world_camera(gt)
    return camera.world_to_camera(np.asarray(gt.joints_world, np.float32)), camera, name


def body_valid(gt: PseudoGT) -> np.ndarray:
    """(N,) bool: whether the body of each row was fitted."""
    return np.asarray(gt.valid["body"], bool)
