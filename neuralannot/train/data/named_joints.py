"""Joint sets that only training needs, and the sets of the user's own data, made from names.

Names are those of `neuralannot.joint_sets`, whose text says what each of them means. Necks do not map, so
OpenPose's has a name of its own.
"""

from __future__ import annotations

import difflib
import functools
import itertools
from collections.abc import Sequence

from neuralannot.joint_sets import JOINT_SETS, JointSet

__all__ = [
    "COCO_BODY_FEET",
    "FREIHAND",
    "INSTA_VARIETY",
    "SMPL_24",
    "known_joints",
    "named_joint_set",
    "part_of",
]


def part_of(joint_set: JointSet, first: int, last: int, name: str) -> JointSet:
    """The joints `first` to `last` (not included) of a set as a set of their own."""

    def inside(pairs: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        return tuple((a - first, b - first) for a, b in pairs if first <= min(a, b) and max(a, b) < last)

    return JointSet(
        name, joint_set.joints[first:last], inside(joint_set.skeleton), inside(joint_set.flip_pairs)
    )


def _mirrored(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    at = {joint: index for index, joint in enumerate(joints)}
    pairs = [(i, at.get(joint.replace("left_", "right_", 1), -1)) for joint, i in at.items()]
    return tuple((i, j) for i, j in pairs if j >= 0 and joints[i].startswith("left_"))


def _set(name: str, joints: Sequence[str], edges: Sequence[tuple[str, str]]) -> JointSet:
    at = {joint: index for index, joint in enumerate(joints)}
    return JointSet(name, tuple(joints), tuple((at[a], at[b]) for a, b in edges), _mirrored(joints))


def _limbs(*chains: str) -> list[tuple[str, str]]:
    """Edges along chains of names, "left shoulder elbow" and the like, on both sides."""
    edges = []
    for chain in chains:
        for side in ("left", "right"):
            names = [f"{side}_{n}" if not n.startswith("=") else n[1:] for n in chain.split()]
            edges += list(itertools.pairwise(names))
    return edges


def _both(*names: str) -> list[str]:
    return [f"{side}_{name}" for name in names for side in ("left", "right")]


#: 3DPW: the 24 joints of SMPL's skeleton.
SMPL_24 = part_of(JOINT_SETS["smpl"], 0, 24, "smpl-24")
#: COCO-WholeBody's body and feet.
COCO_BODY_FEET = part_of(JOINT_SETS["coco-wholebody-133"], 0, 23, "coco-wholebody-body-23")
#: FreiHAND's 21: the wrist, then each finger from the palm to its tip. Right hands only.
FREIHAND = JointSet(
    "freihand-21-right",
    (
        "right_wrist",
        *(f"right_{f}{i}" for f in ("thumb", "index", "middle", "ring", "pinky") for i in (1, 2, 3, "")),
    ),
    tuple((0 if k % 4 == 1 else k - 1, k) for k in range(1, 21)),
)
#: InstaVariety's 25, detected by OpenPose but for the crown.
INSTA_VARIETY = _set(
    "instavariety-25",
    [
        *("right_heel", "right_knee", "right_hip", "left_hip", "left_knee", "left_heel"),
        *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
        *("neck_openpose", "head_top", "nose", "left_eye", "right_eye", "left_ear", "right_ear"),
        *_both("big_toe", "small_toe", "ankle"),
    ],
    [
        *_limbs("=neck_openpose shoulder elbow wrist", "hip knee ankle heel", "=nose eye ear"),
        *_limbs("ankle big_toe small_toe", "shoulder hip"),
        ("left_hip", "right_hip"),
        ("neck_openpose", "nose"),
        ("neck_openpose", "head_top"),
    ],
)
_OWN = (FREIHAND, INSTA_VARIETY)


@functools.cache
def known_joints() -> tuple[str, ...]:
    """Every joint name of the library, once, in the order of the sets that have it."""
    return tuple(dict.fromkeys(j for s in (*JOINT_SETS.values(), *_OWN) for j in s.joints))


@functools.cache
def _known_edges() -> tuple[tuple[str, str], ...]:
    sets = (*JOINT_SETS.values(), *_OWN)
    return tuple(dict.fromkeys((s.joints[a], s.joints[b]) for s in sets for a, b in s.skeleton))


def named_joint_set(
    name: str, joints: Sequence[str], *, where: str, skeleton: Sequence[tuple[int, int]] = ()
) -> JointSet:
    """The joint set of a file that names its joints, for instance a COCO category's `keypoints`.

    Capitals, blanks and hyphens in names do not matter. The joints of a set of the library give that set.
    `skeleton`: pairs of indices from 0; without it, the edges of the library's sets between joints that are
    there. Raises ValueError that names `where`, the
    unknown names, the nearest known ones, and the sets, where a name is not of the library's vocabulary.
    """
    spelled = [str(j).strip().lower().replace(" ", "_").replace("-", "_") for j in joints]
    known = known_joints()
    unknown = [(given, name) for given, name in zip(joints, spelled, strict=True) if name not in known]
    if unknown:
        shown = "; ".join(f"{given!r} (nearest: {_nearest(one)})" for given, one in unknown[:8])
        more = f"; and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        body = ", ".join(dict.fromkeys((*JOINT_SETS["coco-17"].joints, *SMPL_24.joints)))
        raise ValueError(
            f"{where}: unknown joint names: {shown}{more}. A name says which point of the body is meant. "
            f"Known are, for bodies, {body}; for the others see the joints of {', '.join(JOINT_SETS)}; "
            "or pass joint_set= with one of these names or a JointSet"
        )
    for same in (*JOINT_SETS.values(), COCO_BODY_FEET, *_OWN):
        if same.joints == tuple(spelled):
            return same  # under its own name: there are regressors that go by it
    if not skeleton:
        at = {joint: index for index, joint in enumerate(spelled)}
        skeleton = [(at[a], at[b]) for a, b in _known_edges() if a in at and b in at]
    try:
        return JointSet(name, tuple(spelled), tuple(skeleton), _mirrored(spelled))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _nearest(name: str) -> str:
    # "l_knee" and "lknee" are near "left_knee", which difflib alone would not see.
    for short, side in (("l_", "left_"), ("r_", "right_"), ("l", "left_"), ("r", "right_")):
        longer = side + name.removeprefix(short)
        if name.startswith(short) and longer in known_joints():
            return repr(longer)
    close = difflib.get_close_matches(name, known_joints(), n=3, cutoff=0.5)
    return ", ".join(map(repr, close)) or "none"
