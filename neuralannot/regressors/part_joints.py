"""The joints that Pose2Pose and Hand4Whole supervise, and how they come from body models."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from neuralannot.bodies import model_on
from neuralannot.body_models import JointRegressor
from neuralannot.body_models.model import BodyModel
from neuralannot.joint_sets import JOINT_SETS, JointSet

__all__ = ["BODY", "FACE", "HAND", "WHOLE_BODY", "body_regressor"]

_FINGERS = ("thumb", "index", "middle", "ring", "pinky")
_KNUCKLES = ("index1", "middle1", "ring1", "pinky1")
_LANDMARKS = JOINT_SETS["flame"].joints[5:]
_CONTOUR = JOINT_SETS["coco-wholebody-face-68"].joints[:17]


def _joint_set(name: str, joints: Sequence[str]) -> JointSet:
    names = list(joints)
    pairs = [
        (k, names.index(j.replace("left_", "right_", 1))) for k, j in enumerate(names) if j[:5] == "left_"
    ]
    return JointSet(name, tuple(joints), flip_pairs=tuple(pairs))


def _fingers(prefix: str) -> list[str]:
    """Thumb to little finger, each from the palm to the tip."""
    return [f"{prefix}{finger}{k}" for finger in _FINGERS for k in (1, 2, 3, "")]


_LIMBS = (
    *("pelvis", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "neck"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
)
_FEET = (
    *("left_big_toe", "left_small_toe", "left_heel"),
    *("right_big_toe", "right_small_toe", "right_heel"),
)
#: Pose2Pose's 33 of the body.
BODY = _joint_set(
    "pose2pose-body-33",
    (
        *_LIMBS,
        *(f"{side}_{knuckle}" for side in ("left", "right") for knuckle in _KNUCKLES),
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
        *_FEET,
    ),
)
#: Its 21 of a hand, whichever it is.
HAND = JointSet("pose2pose-hand-21", ("wrist", *_fingers("")))
#: Its 73 of a face: FLAME's joints and landmarks, then the contour.
FACE = _joint_set("pose2pose-face-73", (*JOINT_SETS["flame"].joints, *_CONTOUR))
# Hand4Whole counts the eyes twice: seen from outside with the body, as the face's eyeballs again.
_AGAIN = ("left_eye_again", "right_eye_again")
#: Hand4Whole's 137: body 25, hands 20 each, face 72.
WHOLE_BODY = _joint_set(
    "hand4whole-137",
    (
        *_LIMBS,
        *_FEET,
        *("left_ear", "right_ear", "left_eye", "right_eye", "nose"),
        *_fingers("left_"),
        *_fingers("right_"),
        *("jaw", "head"),
        *_AGAIN,
        *_LANDMARKS,
        *_CONTOUR,
    ),
)

# SMPL's vertices that Pose2Pose takes for joints; smplx's own are others.
_SMPL_VERTICES = {
    "left_index1": 2274,
    "left_middle1": 2270,
    "left_ring1": 2293,
    "left_pinky1": 2173,
    "right_index1": 5595,
    "right_middle1": 5675,
    "right_ring1": 5636,
    "right_pinky1": 5655,
    "nose": 331,
    "left_eye": 2802,
    "right_eye": 6262,
    "left_ear": 3489,
    "right_ear": 3990,
    "left_big_toe": 3292,
    "left_small_toe": 3313,
    "left_heel": 3468,
    "right_big_toe": 6691,
    "right_small_toe": 6713,
    "right_heel": 6858,
}


def body_regressor(folder: str | os.PathLike[str] | None) -> tuple[JointRegressor, np.ndarray]:
    """Pose2Pose's 33 joints of a posed SMPL mesh, and which of them there are, (33,) bool.

    Joints of the skeleton by the neutral model's own regressor on the posed mesh; the others are vertices of
    the official topology. On the open body they are smplx's vertices of these names; it has no knuckles,
    which are not there: their weights are zero.
    """
    model = model_on("smpl", None if folder is None else os.fspath(folder), "neutral", None)
    own = model.J_regressor.cpu().numpy()
    skeleton = model.joint_names[: len(own)]
    vertices = _smplx_vertices(model) if model.is_open else _SMPL_VERTICES
    weights = np.zeros((len(BODY), model.num_vertices), np.float32)
    there = np.ones(len(BODY), bool)
    for row, name in enumerate(BODY.joints):
        if name in skeleton:
            weights[row] = own[skeleton.index(name)]
        elif name in vertices:
            weights[row, vertices[name]] = 1
        else:
            there[row] = False
    return JointRegressor(weights, BODY.joints, "open" if model.is_open else "official"), there


def _smplx_vertices(model: BodyModel) -> dict[str, int]:
    names = model.joint_names[len(model.J_regressor) :]
    return dict(zip(names, model.vertex_joints.tolist(), strict=True))
