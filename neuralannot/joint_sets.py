"""Named joint sets of the body models and data sets, and the maps between them.

All sets share one vocabulary, the spelling of smplx's joint names (``left_hip``, ``right_index1``,
``left_big_toe``, ``right_eye_brow1``), so two sets map by name. A name means one definition:

- Hips, knees, ankles, shoulders, elbows, wrists and ``pelvis`` are the same anatomical joint everywhere, and
  map. They still differ by centimetres (COCO's hips are clicked on the image, SMPL's lie in the skeleton);
  where that matters, regress the data set's joints from the mesh instead.
- Torso, neck and head joints do not map: each data set puts them elsewhere. SMPL's ``neck`` and ``head`` are
  rotation centres of its skeleton, Human3.6M's neck is a motion-capture joint (``neck_h36m``), MPII has an
  upper neck at the base of the skull (``neck_mpii``) and a ``thorax_mpii`` below it, MPI-INF-3DHP has a
  ``neck_3dhp``, CrowdPose a ``neck_crowdpose``. The same goes for ``torso_h36m``, ``spine_3dhp``,
  ``head_3dhp`` and ``nose_h36m``, which lies in the jaw. No smplx joint is the crown, ``head_top`` of MPII,
  CrowdPose and MPI-INF-3DHP; Human3.6M's lies several centimetres below that, and is ``head_top_h36m``.
- FLAME's first two joints are ``root_flame`` and ``neck_flame``; its jaw and eyeballs are those of SMPL-X.
- Fingers count from the palm: ``right_index1`` is the knuckle (MCP), 2 and 3 follow, ``right_index`` is the
  tip; ``right_thumb1`` is the thumb's base (CMC). COCO-WholeBody and InterHand2.6M number that tip 4.
- COCO-WholeBody has two left wrists, one clicked with the body, one with the hand; the second is
  ``left_hand_root`` and stands in for ``left_wrist`` where the exact name is absent, and the other way round.
  It is not SMPL's ``left_hand``, which lies in the palm.
- Face landmarks 18 to 68 of the 68-point scheme are SMPL-X's and FLAME's 51; the first 17 are the contour.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = [
    "JOINT_SETS",
    "JointMap",
    "JointSet",
    "convert_joints",
    "get_joint_set",
    "map_joints",
    "mirror_index",
]

ArrayT = TypeVar("ArrayT", np.ndarray, "torch.Tensor")


@dataclass(frozen=True)
class JointSet:
    """An ordered list of named joints.

    ``joints``: K unique names. ``skeleton``: edges as pairs of indices into ``joints``, for drawing.
    ``flip_pairs``: (left, right) index pairs that swap when a person is mirrored; joints on the middle line
    are in none. Raises ValueError for a repeated name or an index outside the set.
    """

    name: str
    joints: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        repeated = sorted({joint for joint in self.joints if self.joints.count(joint) > 1})
        if repeated:
            raise ValueError(
                f"joint set {self.name!r} names {', '.join(repeated)} more than once; rename one"
            )
        for field, pairs in (("skeleton", self.skeleton), ("flip_pairs", self.flip_pairs)):
            for pair in pairs:
                if not all(0 <= index < len(self.joints) for index in pair):
                    bounds = f"indices must be in [0, {len(self.joints)})"
                    raise ValueError(f"{field} of joint set {self.name!r} has {pair}; {bounds}")

    def __len__(self) -> int:
        return len(self.joints)

    def index(self, joint: str) -> int:
        """Return the position of a joint; ValueError with the nearest name when the set does not have it."""
        if joint not in self.joints:
            raise ValueError(f"joint set {self.name!r} has no joint {joint!r}{_nearest(joint, self.joints)}")
        return self.joints.index(joint)


@dataclass(frozen=True, eq=False)
class JointMap:
    """Where the joints of a destination set are in a source set.

    ``index`` (K_dst,) int64 into the source, -1 where the source has no such joint; ``valid`` (K_dst,) bool
    is ``index >= 0``. Both are read-only. A source mask follows as ``mask[..., m.index] & m.valid``.
    """

    index: np.ndarray
    valid: np.ndarray


def get_joint_set(name: str | JointSet) -> JointSet:
    """Return a set of ``JOINT_SETS`` by name (a JointSet passes); ValueError lists the names when unknown."""
    if isinstance(name, JointSet):
        return name
    if name not in JOINT_SETS:
        names = ", ".join(JOINT_SETS)
        raise ValueError(f"unknown joint set {name!r}{_nearest(str(name), JOINT_SETS)}; known sets: {names}")
    return JOINT_SETS[name]


def map_joints(src: str | JointSet, dst: str | JointSet) -> JointMap:
    """Return where each joint of ``dst`` is in ``src``, by name; see the module's text for what a name means.

    Sets without a common joint give a map that is invalid throughout. Raises ValueError for an unknown set.
    """
    return _map_sets(get_joint_set(src), get_joint_set(dst))


def convert_joints(
    joints: ArrayT, src: str | JointSet, dst: str | JointSet, *, fill: float = float("nan")
) -> tuple[ArrayT, ArrayT]:
    """Reorder joints of one set into another.

    ``joints`` (…, K_src, C) is a numpy array or a torch tensor of a floating dtype, in any unit. Returns
    ``(…, K_dst, C)`` of the same kind, dtype and device, ``fill`` where ``src`` has no such joint, and the
    validity (K_dst,) bool of the same kind. Gradients flow. Raises ValueError for a wrong shape or an unknown
    set, TypeError for an integer dtype, which cannot hold NaN.
    """
    source = get_joint_set(src)
    joint_map = map_joints(source, dst)
    if joints.ndim < 2 or joints.shape[-2] != len(source):
        raise ValueError(
            f"joints of {source.name!r} must be (…, {len(source)}, C), got {tuple(joints.shape)}; "
            f"check that they are in the order of {source.name!r}"
        )
    torch = sys.modules.get("torch")
    xp: Any = np
    values: Any = joints
    index: Any = joint_map.index
    valid: Any = joint_map.valid
    if torch is not None and isinstance(values, torch.Tensor):
        xp = torch
        # The arrays of a JointMap are read-only, which torch.from_numpy does not support.
        index = torch.tensor(index.tolist(), dtype=torch.int64, device=values.device)
        valid = torch.tensor(valid.tolist(), dtype=torch.bool, device=values.device)
        is_floating = values.is_floating_point()
    else:
        values, valid = np.asarray(values), valid.copy()
        is_floating = np.issubdtype(values.dtype, np.floating)
    if not is_floating:
        raise TypeError(f"joints must be of a floating dtype, got {values.dtype}; convert them to float32")
    # An index of -1 picks the last joint, which the mask then replaces.
    filler = xp.full_like(values[..., :1, :1], fill)
    return xp.where(valid[:, None], values[..., index, :], filler), valid


def mirror_index(joint_set: str | JointSet) -> np.ndarray:
    """Return (K,) int64 that swaps left and right: ``joints[..., mirror_index(s), :]``; its own inverse.

    Only the names swap: the caller negates the coordinate. A set of one hand is left as it is: mirrored, its
    joints are those of the other hand's set in the same order.
    """
    joint_set = get_joint_set(joint_set)
    index = np.arange(len(joint_set), dtype=np.int64)
    for left, right in joint_set.flip_pairs:
        index[left], index[right] = right, left
    return index


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


# One joint under two names of the same set: the exact name is preferred, either serves.
_SAME_JOINT = {"left_hand_root": "left_wrist", "right_hand_root": "right_wrist"}


@functools.lru_cache(maxsize=256)
def _map_sets(src: JointSet, dst: JointSet) -> JointMap:
    exact = {joint: i for i, joint in enumerate(src.joints)}
    same = {_SAME_JOINT.get(joint, joint): i for i, joint in enumerate(src.joints)}
    found = [exact.get(joint, same.get(_SAME_JOINT.get(joint, joint), -1)) for joint in dst.joints]
    index = np.array(found, dtype=np.int64)
    valid = index >= 0
    index.flags.writeable = valid.flags.writeable = False
    return JointMap(index=index, valid=valid)


Edges = list[tuple[str, str]]
_FINGERS = ("thumb", "index", "middle", "ring", "pinky")
_MODEL_FINGERS = ("index", "middle", "pinky", "ring", "thumb")  # the order of MANO, kept by SMPL-X

# The 68-point face scheme: contour, then brows, nose, eyes, mouth and lips, from the person's right to left.
_CONTOUR = (
    *(f"right_contour_{i}" for i in range(1, 9)),
    "contour_middle",
    *(f"left_contour_{i}" for i in range(8, 0, -1)),
)
_BROWS = (*(f"right_eye_brow{i}" for i in range(1, 6)), *(f"left_eye_brow{i}" for i in range(5, 0, -1)))
_NOSE_RIDGE = ("nose1", "nose2", "nose3", "nose4")
_NOSTRILS = ("right_nose_2", "right_nose_1", "nose_middle", "left_nose_1", "left_nose_2")
_RIGHT_EYE = tuple(f"right_eye{i}" for i in range(1, 7))
# Both eyes are walked clockwise in the image, so the left one starts at its inner corner.
_LEFT_EYE = tuple(f"left_eye{i}" for i in (4, 3, 2, 1, 6, 5))
_MOUTH = (
    *("right_mouth_1", "right_mouth_2", "right_mouth_3", "mouth_top"),
    *("left_mouth_3", "left_mouth_2", "left_mouth_1", "left_mouth_5", "left_mouth_4"),
    *("mouth_bottom", "right_mouth_4", "right_mouth_5"),
)
_LIPS = (
    *("right_lip_1", "right_lip_2", "lip_top", "left_lip_2", "left_lip_1"),
    *("left_lip_3", "lip_bottom", "right_lip_3"),
)
_LANDMARKS = (*_BROWS, *_NOSE_RIDGE, *_NOSTRILS, *_RIGHT_EYE, *_LEFT_EYE, *_MOUTH, *_LIPS)


def _chain(*joints: str) -> Edges:
    return list(itertools.pairwise(joints))


def _both(edges: Edges) -> Edges:
    """The edges of the left side, then those of the right."""
    swap = [tuple(joint.replace("left_", "right_") for joint in edge) for edge in edges]
    return edges + [(a, b) for a, b in swap]


def _joint_set(name: str, joints: Iterable[str], edges: Edges) -> JointSet:
    joints = tuple(joints)
    at = {joint: i for i, joint in enumerate(joints)}
    pairs = [(j, j.replace("left_", "right_", 1)) for j in joints if j.startswith("left_")]
    return JointSet(
        name=name,
        joints=joints,
        skeleton=tuple((at[a], at[b]) for a, b in edges),
        flip_pairs=tuple((at[left], at[right]) for left, right in pairs if right in at),
    )


def _model_fingers(side: str) -> list[str]:
    return [f"{side}_{finger}{i}" for finger in _MODEL_FINGERS for i in (1, 2, 3)]


def _finger_edges(side: str, root: str, *, tips: bool = True) -> Edges:
    edges: Edges = []
    for finger in _FINGERS:
        bones = [f"{side}_{finger}{i}" for i in (1, 2, 3)] + [f"{side}_{finger}"] * tips
        edges += _chain(root, *bones)
    return edges


_TRUNK = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle"),
    *("right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
)
# What smplx appends from mesh vertices: face, feet, fingertips.
_VERTEX_JOINTS = (
    *("nose", "right_eye", "left_eye", "right_ear", "left_ear"),
    *("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel"),
    *(f"{side}_{finger}" for side in ("left", "right") for finger in _FINGERS),
)
_FEET_EDGES = _both(
    [("left_ankle", "left_big_toe"), ("left_ankle", "left_small_toe"), ("left_ankle", "left_heel")]
)
_TRUNK_EDGES = [
    *_chain("pelvis", "spine1", "spine2", "spine3", "neck", "head", "nose"),
    *_both(_chain("pelvis", "left_hip", "left_knee", "left_ankle", "left_foot")),
    *_both(_chain("spine3", "left_collar", "left_shoulder", "left_elbow", "left_wrist")),
    *_both(_chain("nose", "left_eye", "left_ear")),
    *_FEET_EDGES,
]
_LANDMARK_EDGES = [
    *_chain(*_BROWS[:5]),
    *_chain(*_BROWS[5:]),
    *_chain(*_NOSE_RIDGE),
    *_chain(*_NOSTRILS),
    *(edge for loop in (_RIGHT_EYE, _LEFT_EYE, _MOUTH, _LIPS) for edge in _chain(*loop, loop[0])),
]


def _smpl() -> JointSet:
    joints = (*_TRUNK, "left_hand", "right_hand", *_VERTEX_JOINTS)
    tips = [("left_hand", f"left_{finger}") for finger in _FINGERS]
    return _joint_set("smpl", joints, _TRUNK_EDGES + _both([("left_wrist", "left_hand"), *tips]))


def _smplx() -> JointSet:
    fingers = (*_model_fingers("left"), *_model_fingers("right"))
    joints = (*_TRUNK, "jaw", "left_eye_smplhf", "right_eye_smplhf", *fingers, *_VERTEX_JOINTS, *_LANDMARKS)
    face = [("head", "jaw"), *_both([("head", "left_eye_smplhf")]), *_LANDMARK_EDGES]
    return _joint_set("smplx", joints, _TRUNK_EDGES + _both(_finger_edges("left", "left_wrist")) + face)


def _mano(side: str) -> JointSet:
    joints = (f"{side}_wrist", *_model_fingers(side))
    return _joint_set(f"mano-{side}", joints, _finger_edges(side, f"{side}_wrist", tips=False))


def _flame() -> JointSet:
    joints = ("root_flame", "neck_flame", "jaw", "left_eye_smplhf", "right_eye_smplhf", *_LANDMARKS)
    edges = [*_chain("root_flame", "neck_flame", "jaw"), *_both([("neck_flame", "left_eye_smplhf")])]
    return _joint_set("flame", joints, edges + _LANDMARK_EDGES)


_COCO = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)
# The edges of COCO's own category entry, in its order.
_COCO_EDGES = [
    *_chain("left_ankle", "left_knee", "left_hip"),
    *_chain("right_ankle", "right_knee", "right_hip"),
    *_chain("left_hip", "right_hip"),
    *[("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"), ("left_shoulder", "right_shoulder")],
    *[("left_shoulder", "left_elbow"), ("right_shoulder", "right_elbow")],
    *[("left_elbow", "left_wrist"), ("right_elbow", "right_wrist")],
    *[("left_eye", "right_eye"), ("nose", "left_eye"), ("nose", "right_eye")],
    *[("left_eye", "left_ear"), ("right_eye", "right_ear")],
    *[("left_ear", "left_shoulder"), ("right_ear", "right_shoulder")],
]


def _wholebody_hand(side: str) -> tuple[str, ...]:
    fingers = [(f"{side}_{f}1", f"{side}_{f}2", f"{side}_{f}3", f"{side}_{f}") for f in _FINGERS]
    return (f"{side}_hand_root", *(joint for finger in fingers for joint in finger))


def _coco_wholebody() -> tuple[JointSet, ...]:
    """All of COCO-WholeBody, and its face and hands alone."""
    hands = {side: _wholebody_hand(side) for side in ("left", "right")}
    face, face_edges = (*_CONTOUR, *_LANDMARKS), _chain(*_CONTOUR) + _LANDMARK_EDGES
    joints = (*_COCO, *_VERTEX_JOINTS[5:11], *face, *hands["left"], *hands["right"])
    hand_edges = _both([("left_wrist", "left_hand_root"), *_finger_edges("left", "left_hand_root")])
    return (
        _joint_set("coco-wholebody-133", joints, _COCO_EDGES + _FEET_EDGES + hand_edges + face_edges),
        _joint_set("coco-wholebody-face-68", face, face_edges),
        *(
            _joint_set(f"coco-wholebody-hand-21-{s}", names, _finger_edges(s, f"{s}_hand_root"))
            for s, names in hands.items()
        ),
    )


def _body(name: str, *joints: str, spine: tuple[str, ...], arms_at: str) -> JointSet:
    legs = _both(_chain("pelvis", "left_hip", "left_knee", "left_ankle"))
    arms = _both(_chain(arms_at, "left_shoulder", "left_elbow", "left_wrist"))
    return _joint_set(name, joints, [*_chain("pelvis", *spine), *legs, *arms])


_HUMAN36M = _body(
    "human36m-17",
    *("pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("torso_h36m", "neck_h36m", "nose_h36m", "head_top_h36m"),
    *("left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist"),
    spine=("torso_h36m", "neck_h36m", "nose_h36m", "head_top_h36m"),
    arms_at="neck_h36m",
)
_MPI_INF_3DHP = _body(
    "mpi-inf-3dhp-17",
    *("head_top", "neck_3dhp", "right_shoulder", "right_elbow", "right_wrist"),
    *("left_shoulder", "left_elbow", "left_wrist", "right_hip", "right_knee", "right_ankle"),
    *("left_hip", "left_knee", "left_ankle", "pelvis", "spine_3dhp", "head_3dhp"),
    spine=("spine_3dhp", "neck_3dhp", "head_3dhp", "head_top"),
    arms_at="neck_3dhp",
)
_MPII = _body(
    "mpii-16",
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("pelvis", "thorax_mpii", "neck_mpii", "head_top"),
    *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    spine=("thorax_mpii", "neck_mpii", "head_top"),
    arms_at="thorax_mpii",
)
_CROWDPOSE = _joint_set(
    "crowdpose-14",
    (
        *(
            f"{s}_{j}"
            for j in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
            for s in ("left", "right")
        ),
        *("head_top", "neck_crowdpose"),
    ),
    [
        *_both(_chain("neck_crowdpose", "left_shoulder", "left_elbow", "left_wrist")),
        *_both(_chain("left_shoulder", "left_hip", "left_knee", "left_ankle")),
        *_chain("left_hip", "right_hip"),
        *_chain("neck_crowdpose", "head_top"),
    ],
)


def _interhand(name: str, *sides: str) -> JointSet:
    joints: list[str] = []
    for side in sides:
        # Tip to base, then the wrist; the data set's own "4" is the tip.
        joints += [f"{side}_{finger}{i}" for finger in _FINGERS for i in ("", 3, 2, 1)] + [f"{side}_wrist"]
    return _joint_set(name, joints, [e for side in sides for e in _finger_edges(side, f"{side}_wrist")])


#: The known sets by name. Models: smplx's own order and count, without face contour. Data sets: the order of
#: the released annotation files; ``interhand-42`` is the order of ``world_coord`` there, right hand first.
JOINT_SETS: Mapping[str, JointSet] = MappingProxyType(
    {
        joint_set.name: joint_set
        for joint_set in (
            _smpl(),
            _smplx(),
            _mano("right"),
            _mano("left"),
            _flame(),
            _joint_set("coco-17", _COCO, _COCO_EDGES),
            *_coco_wholebody(),
            _HUMAN36M,
            _MPI_INF_3DHP,
            _MPII,
            _CROWDPOSE,
            _interhand("interhand-21-right", "right"),
            _interhand("interhand-21-left", "left"),
            _interhand("interhand-42", "right", "left"),
        )
    }
)
