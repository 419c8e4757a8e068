"""`OwnJoints`: what a data set itself annotates, in the order of a regressor's joints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from neuralannot.joint_sets import JOINT_SETS
from neuralannot.joints_gt import KEYPOINT_SETS, world_camera
from neuralannot.pseudo_gt import PseudoGT

__all__ = ["BODY_ALIASES", "OwnJoints", "own_joints", "require_named_keypoints"]

#: Where a data set's joint is another than the skeleton's of that name, it goes where Pose2Pose's own classes
#: put it.
BODY_ALIASES: Mapping[str, str] = MappingProxyType(
    {"neck_h36m": "neck", "neck_mpii": "neck", "neck_3dhp": "neck"}
)
_SIDES = ("left_", "right_")


@dataclass(frozen=True, eq=False)
class OwnJoints:
    """N rows of J joints.

    `image` (N, J, 2) float32 px; `relative` (N, J, 3) float32 metres in the camera's space about the root,
    None where the data set has no 3D joints; `valid` (N, J) bool. What is not valid is zero.
    """

    image: np.ndarray
    relative: np.ndarray | None
    valid: np.ndarray


def own_joints(
    gt: PseudoGT, names: Sequence[str], root: str, aliases: Mapping[str, str] | None = None
) -> OwnJoints:
    """The annotated joints of `gt` as joints called `names`; `root` among the data set's own.

    MoCap data sets' 3D joints through their cameras, or the keypoints of an image. A hand's are called
    without their side. `aliases`: a data set's name -> the name it goes by. Joints that the data set does not
    have are not valid; of MoCap rows without a root none is, and points behind the camera are not. COCO's
    pelvis lies between its hips.

    Raises FileNotFoundError that names the companion where the file of 3D joints is not there, ValueError as
    `require_named_keypoints`.
    """
    require_named_keypoints(gt)
    if gt.joint_set_world is not None:
        world = gt.joints_world
        there = np.isfinite(world).all(axis=-1)
        camera = world_camera(gt)
        points = camera.world_to_camera(np.asarray(world, np.float32))
        image = camera.project(points)
        called = _called(JOINT_SETS[gt.joint_set_world].joints, gt.model, aliases)
        origin = called.index(root)
        relative = points - points[:, origin : origin + 1]
        valid = there & there[:, origin : origin + 1] & np.isfinite(image).all(axis=-1)
        solid = np.concatenate([image, relative], axis=-1)
    elif gt.joints_2d is not None and gt.joints_2d_valid is not None and gt.joint_set_2d is not None:
        called = _called(JOINT_SETS[gt.joint_set_2d].joints, gt.model, aliases)
        solid, valid = np.asarray(gt.joints_2d, np.float32), np.asarray(gt.joints_2d_valid)
        if "pelvis" in names and "pelvis" not in called and "left_hip" in called:
            hips = [called.index("left_hip"), called.index("right_hip")]
            solid = np.concatenate([solid, solid[:, hips].mean(axis=1, keepdims=True)], axis=1)
            valid = np.concatenate([valid, valid[:, hips].all(axis=1, keepdims=True)], axis=1)
            called = [*called, "pelvis"]
    else:
        called, solid, valid = [], np.zeros((len(gt), 1, 2), np.float32), np.zeros((len(gt), 1), bool)
    index = np.array([called.index(name) if name in called else -1 for name in names])
    valid = valid[:, index] & (index >= 0)
    solid = np.where(valid[..., None], solid[:, index], 0).astype(np.float32)
    return OwnJoints(solid[..., :2], solid[..., 2:] if solid.shape[-1] > 2 else None, valid)


def require_named_keypoints(gt: PseudoGT) -> None:
    """Raise ValueError where the rows have keypoints and nothing says which joints those are."""
    points = None if gt.joint_set_world is not None else gt.joints_2d
    if points is None or gt.joint_set_2d is not None:
        return
    known = ", ".join(f"{count} ({name})" for count, name in sorted(KEYPOINT_SETS.items()))
    raise ValueError(
        f"{gt.release}: its annotations have {points.shape[1]} keypoints each, of no known set; known are "
        f"{known}; do without them: joints=False"
    )


def _called(joints: Sequence[str], model: str, aliases: Mapping[str, str] | None) -> list[str]:
    names = list(joints)
    if model == "mano":
        for side in _SIDES:
            names = [name.removeprefix(side) for name in names]
        aliases = {"hand_root": "wrist"}
    return [(aliases or {}).get(name, name) for name in names]
