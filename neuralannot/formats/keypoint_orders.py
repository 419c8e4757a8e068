"""The keypoint orders of other people's files, and where a data set's joints are in them.

SPIN's 24 and OpenPose's 25 are what HMR-style regressors train on; HumanData's 190 are MMHuman3D's. Where a
data set's joint is another than the skeleton's of the same name (COCO's hips, Human3.6M's neck) it goes where
the other side's own preparation of that data set puts it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from neuralannot.joint_sets import JOINT_SETS

SPIN_COUNT, OPENPOSE_COUNT, HUMANDATA_COUNT = 24, 25, 190

_LIMBS = (
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
)
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_SPIN: Mapping[str, int] = MappingProxyType(
    {name: k for k, name in enumerate(_LIMBS)}
    | {"neck_mpii": 12, "head_top": 13, "pelvis": 14, "thorax_mpii": 15}
    | {"torso_h36m": 16, "neck_h36m": 12, "nose_h36m": 17, "head_top_h36m": 18}
    | {"spine_3dhp": 16, "neck_3dhp": 12, "head_3dhp": 17}
    | {name: 19 + k for k, name in enumerate(_FACE)}
)
_OPENPOSE: Mapping[str, int] = MappingProxyType(
    {"nose": 0, "right_eye": 15, "left_eye": 16, "right_ear": 17, "left_ear": 18}
    | {"left_big_toe": 19, "left_small_toe": 20, "left_heel": 21}
    | {"right_big_toe": 22, "right_small_toe": 23, "right_heel": 24}
)
#: OpenPose's 25 as smplx's joints of SMPL (the set `smpl`); its neck and hips are none of them exactly.
OPENPOSE_OF_SMPL: Mapping[int, str] = MappingProxyType(
    {2: "right_shoulder", 3: "right_elbow", 4: "right_wrist", 5: "left_shoulder", 6: "left_elbow"}
    | {7: "left_wrist", 10: "right_knee", 11: "right_ankle", 13: "left_knee", 14: "left_ankle"}
    | {place: name for name, place in _OPENPOSE.items()}
)
#: SPIN's 24 as smplx's joints of SMPL, where they are the same joints.
SPIN_OF_SMPL: Mapping[int, str] = MappingProxyType(
    {k: name for name, k in _SPIN.items() if name in (*_LIMBS, *_FACE) and not name.endswith("hip")}
)
# After smplx's 127 joints and the face's contour, HumanData's own.
_HUMANDATA_EXTRA = (
    {"right_hip": 144, "left_hip": 145, "neck_mpii": 146, "neck_h36m": 146, "neck_3dhp": 146}
    | {"head_top": 147, "head_top_h36m": 147, "pelvis": 148, "thorax_mpii": 149}
    | {"torso_h36m": 150, "spine_3dhp": 150, "nose_h36m": 152, "head_3dhp": 152}
)
_NOT_IN_HUMANDATA = ("left_hand_root", "right_hand_root")


@functools.lru_cache(maxsize=32)
def places(order: str, joint_set: str) -> tuple[np.ndarray, np.ndarray]:
    """Where the joints of `joint_set` are in `order` (`spin`, `openpose`, `humandata`).

    Returns (M,) int64 numbers in the set and (M,) in the order, of the joints that both have.
    """
    joints = JOINT_SETS[joint_set].joints
    if order == "humandata":
        where: Mapping[str, int] = _humandata()
    else:
        where = _SPIN if order == "spin" else _OPENPOSE
        if order == "spin" and joint_set == "mpi-inf-3dhp-17":
            where = {**where, "head_top": 18}
    pairs = [(k, where[name]) for k, name in enumerate(joints) if name in where]
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _humandata() -> dict[str, int]:
    face = JOINT_SETS["coco-wholebody-face-68"].joints
    contour = face[: len(face) - 51]
    names = (*JOINT_SETS["smplx"].joints, *contour)
    where = {name: k for k, name in enumerate(names)} | _HUMANDATA_EXTRA
    return {name: k for name, k in where.items() if name not in _NOT_IN_HUMANDATA}


def reordered(
    points: np.ndarray, valid: np.ndarray, order: str, joint_set: str | None, count: int
) -> np.ndarray:
    """Points (N, K, C) of a set in another order: (N, count, C + 1) float32, the last column 1 where valid.

    What is not valid is zero throughout, as these files have it; all of it where `joint_set` has no name.
    """
    out = np.zeros((len(points), count, points.shape[-1] + 1), np.float32)
    if joint_set is None:
        return out
    source, target = places(order, joint_set)
    seen = valid[:, source] & np.isfinite(points[:, source]).all(axis=-1)
    out[:, target, :-1] = np.where(seen[..., None], points[:, source], 0)
    out[:, target, -1] = seen
    return out
