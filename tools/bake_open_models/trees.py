"""Kinematic trees of SMPL, SMPL-X, MANO and FLAME, and what of MakeHuman's skeleton makes each joint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tools.bake_open_models.source import Source

KINDS = ("smpl", "smplx", "mano_right", "mano_left", "flame")
FINGERS = tuple(f"{finger}{k}" for finger in ("index", "middle", "pinky", "ring", "thumb") for k in (1, 2, 3))
FINGER_NUMBER = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "pinky": 5}
_BODY = {
    "pelvis": -1,
    "L_hip": 0,
    "R_hip": 0,
    "spine1": 0,
    "L_knee": 1,
    "R_knee": 2,
    "spine2": 3,
    "L_ankle": 4,
    "R_ankle": 5,
    "spine3": 6,
    "L_foot": 7,
    "R_foot": 8,
    "neck": 9,
    "L_collar": 9,
    "R_collar": 9,
    "head": 12,
    "L_shoulder": 13,
    "R_shoulder": 14,
    "L_elbow": 16,
    "R_elbow": 17,
    "L_wrist": 18,
    "R_wrist": 19,
}
_FACE = {"jaw": 15, "L_eye": 15, "R_eye": 15}


@dataclass(frozen=True)
class Tree:
    """`joints` with their `parents`, -1 for the root; `bones`: MakeHuman's bone -> the joint that moves what
    it moves. Bones not named here go with their nearest ancestor that is."""

    joints: tuple[str, ...]
    parents: tuple[int, ...]
    bones: Mapping[str, str]


def _finger_bones(side: str) -> dict[str, str]:
    return {f"finger{FINGER_NUMBER[f[:-1]]}-{f[-1]}.{side}": f"{side}_{f}" for f in FINGERS}


def _fingers(side: str, first: int, wrist: int) -> dict[str, int]:
    """Joints of the fingers with their parents, when they are numbered from `first` on."""
    return {f"{side}_{f}": wrist if k % 3 == 0 else first + k - 1 for k, f in enumerate(FINGERS)}


def _body_bones() -> dict[str, str]:
    bones = {
        "root": "pelvis",
        "spine05": "pelvis",
        "spine04": "spine1",
        "spine03": "spine1",
        "spine02": "spine2",
    }
    bones |= {"spine01": "spine3", "neck01": "neck", "neck02": "neck", "neck03": "neck", "head": "head"}
    parts = {"upperleg01": "hip", "lowerleg01": "knee", "foot": "ankle", "clavicle": "collar"}
    parts |= {"upperarm01": "shoulder", "lowerarm01": "elbow", "wrist": "wrist"}
    parts |= {f"toe{k}-1": "foot" for k in range(1, 6)}
    for side in "LR":
        bones[f"pelvis.{side}"] = "pelvis"
        bones |= {f"{bone}.{side}": f"{side}_{joint}" for bone, joint in parts.items()}
    return bones


_FACE_BONES = {"jaw": "jaw", "eye.L": "L_eye", "eye.R": "R_eye"}


def _tree(parents: Mapping[str, int], bones: Mapping[str, str]) -> Tree:
    return Tree(tuple(parents), tuple(parents.values()), bones)


def _hand(side: str) -> Tree:
    bones = {"root": f"{side}_wrist", **_finger_bones(side)}
    return _tree({f"{side}_wrist": -1, **_fingers(side, 1, 0)}, bones)


TREES: Mapping[str, Tree] = {
    "smpl": _tree(
        {**_BODY, "L_hand": 20, "R_hand": 21},
        {**_body_bones(), **{f"finger{k}-1.{side}": f"{side}_hand" for k in range(1, 6) for side in "LR"}},
    ),
    "smplx": _tree(
        {**_BODY, **_FACE, **_fingers("L", 25, 20), **_fingers("R", 40, 21)},
        {**_body_bones(), **_FACE_BONES, **_finger_bones("L"), **_finger_bones("R")},
    ),
    "mano_right": _hand("R"),
    "mano_left": _hand("L"),
    "flame": _tree(
        {"base": -1, "neck": 0, "jaw": 1, "L_eye": 1, "R_eye": 1},
        {"root": "base", "neck03": "neck", **_FACE_BONES},
    ),
}


def _joint_places() -> dict[str, dict[str, float]]:
    """Joint -> bones whose heads, so weighted, are its place."""
    places = {
        "pelvis": {"spine04": 0.55, "upperleg01.L": 0.225, "upperleg01.R": 0.225},
        "spine1": {"spine04": 0.75, "spine03": 0.25},
        "spine2": {"spine02": 1.0},
        "spine3": {"spine01": 1.0},
        "neck": {"neck01": 1.0},
        "head": {"head": 1.0},
        "jaw": {"jaw": 1.0},
        "base": {"neck02": 0.6, "neck03": 0.4},
    }
    limbs = {"hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot", "collar": "clavicle"}
    limbs |= {"shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist", "eye": "eye"}
    for side in "LR":
        places |= {f"{side}_{joint}": {f"{bone}.{side}": 1.0} for joint, bone in limbs.items()}
        places |= {joint: {bone: 1.0} for bone, joint in _finger_bones(side).items()}
        places[f"{side}_foot"] = {f"toe{k}-1.{side}": 0.2 for k in range(1, 6)}
        places[f"{side}_hand"] = {f"finger3-1.{side}": 0.7, f"finger4-1.{side}": 0.3}
    return places


_PLACES = _joint_places()
_FLAME_NECK = {"head": 0.6, "neck03": 0.4}


def joint_places(kind: str, source: Source, heads: np.ndarray) -> np.ndarray:
    """(..., J, 3): a model's joints from the heads (..., B, 3) of the source's bones; linear in them."""
    joints = []
    for joint in TREES[kind].joints:
        parts = _FLAME_NECK if (kind, joint) == ("flame", "neck") else _PLACES[joint]
        joints.append(sum(weight * heads[..., source.bone(bone), :] for bone, weight in parts.items()))
    return np.stack(joints, axis=-2)


def joint_of_bones(kind: str, source: Source) -> np.ndarray:
    """(B,): the joint of `kind` that each of the source's bones goes with."""
    tree = TREES[kind]
    numbers = np.zeros(len(source.bones), int)
    for bone, name in enumerate(source.bones):
        parent = source.parents[bone]
        numbers[bone] = tree.joints.index(tree.bones[name]) if name in tree.bones else numbers[parent]
    return numbers
