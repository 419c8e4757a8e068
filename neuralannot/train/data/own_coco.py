"""The user's own images: a COCO-format file with boxes and keypoints whose names it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.catalog import release_named
from neuralannot.joint_sets import JointSet, get_joint_set
from neuralannot.parameters import SIDES
from neuralannot.store import Table
from neuralannot.train.data.columns import keypoints_of, read_annotations
from neuralannot.train.data.in_the_wild import wild_samples
from neuralannot.train.data.mscoco import MODELS, whole_body_samples
from neuralannot.train.data.named_joints import known_joints, named_joint_set
from neuralannot.train.data.request import Request
from neuralannot.train.samples import Samples

__all__ = ["MODELS", "NAME", "TAKES", "joints_of", "read"]

NAME = "COCO-format"
TAKES = frozenset({"annotations", "joint_set", "name"})
_RELEASE = replace(release_named("mscoco-smpl"), name="", data_set=NAME, image_folder="")
_WHOLE_BODY = 133


def read(request: Request) -> Samples:
    """Each annotation's `bbox` and `keypoints`; names from `categories` or `joint_set`.

    Image paths are the images' `file_name`. A hand's side is its `hand_type`, or in its joints' names. A file
    with COCO-WholeBody's parts is read as that.
    """
    path = request.annotations or only_file(request, ".json", but=("_camera.json", "_joint_3d.json"))
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such annotation file")
    table = read_annotations(path, _RELEASE, {}, extra=_hands, cache=request.cache)
    if request.joint_set is None and "ann/keypoints" in table:
        count = table["ann/keypoints"].shape[1]
        if count == _WHOLE_BODY:
            return whole_body_samples(request, table, path)
    joint_set, named = joints_of(request, table, path)
    points = keypoints_of(table, path, len(joint_set))
    if request.model != "mano":
        return wild_samples(request, table, points, joint_set)
    codes = table["train/side"]
    if named is not None:
        codes = np.where(codes < 0, SIDES.index(named), codes)
    if (codes < 0).any():
        lost = int(table["ann/id"][codes < 0][0])
        raise ValueError(
            f"{path}: annotation {lost}: which hand is it? Add 'hand_type' ('right' or 'left') to it, or "
            "begin the joints' names with right_ or left_"
        )
    return wild_samples(request, table, points, joint_set, side=np.array(SIDES)[codes])


def only_file(request: Request, suffix: str, *, but: tuple[str, ...] = ()) -> Path:
    """The one file in the folder (or its `annotations`) that ends in `suffix`."""
    found = [
        path
        for folder in (request.folder, request.folder / "annotations")
        for path in sorted(folder.glob(f"*{suffix}"))
        if not path.name.endswith(but)
    ]
    if len(found) != 1:
        names = ", ".join(p.name for p in found) or "none"
        raise FileNotFoundError(
            f"{request.data_set}: expected one *{suffix} in {request.folder} or its annotations, got "
            f"{names}; "
            "pass annotations="
        )
    return found[0]


def joints_of(request: Request, table: Table, path: Path) -> tuple[JointSet, str | None]:
    """The joints that `joint_set` or the file's categories name; of hands, by the right one's names.

    And the side that hands' names begin with, None where they do not say. Raises ValueError where nothing
    names joints, for unknown names, where categories name different ones, and for hands whose joints are not
    all of one.
    """
    if request.joint_set is not None:
        joint_set = get_joint_set(request.joint_set)
        return (joint_set, None) if request.model != "mano" else _of_one_hand(joint_set, str(path))
    categories = json.loads(table.meta["categories"])
    named = [c for c in categories if isinstance(c, dict) and c.get("keypoints")]
    if not named:
        raise ValueError(
            f"{path}: no category says what its keypoints are called; add a list 'keypoints' of names to the "
            "entry in 'categories', or pass joint_set="
        )
    first = named[0]
    for other in named[1:]:
        if other["keypoints"] != first["keypoints"]:
            raise ValueError(
                f"{path}: categories {first.get('name')!r} and {other.get('name')!r} name different "
                "keypoints; keep one category a file"
            )
    where = f"{path}: category {first.get('name')!r}"
    names = [str(n) for n in first["keypoints"]]
    bare = request.model == "mano" and all(f"right_{n}" in known_joints() for n in names)
    if bare:
        names = [f"right_{n}" for n in names]
    try:  # COCO counts the skeleton's joints from 1
        edges = [(int(a) - 1, int(b) - 1) for a, b in first.get("skeleton") or []]
    except (TypeError, ValueError):
        raise ValueError(f"{where}: 'skeleton' must hold pairs of joint numbers from 1") from None
    joint_set = named_joint_set(request.name or NAME, names, where=where, skeleton=edges)
    if request.model != "mano":
        return joint_set, None
    joint_set, side = _of_one_hand(joint_set, where)
    return joint_set, None if bare else side


def _of_one_hand(joint_set: JointSet, where: str) -> tuple[JointSet, str]:
    """The set with the right hand's names, and the side that it named."""
    sides = {next((s for s in SIDES if joint.startswith(f"{s}_")), None) for joint in joint_set.joints}
    if len(sides) != 1 or None in sides:
        raise ValueError(f"{where}: joints must all be of one hand, got {', '.join(joint_set.joints)}")
    if sides == {"right"}:
        return joint_set, "right"
    joints = tuple("right_" + joint.removeprefix("left_") for joint in joint_set.joints)
    return JointSet(joint_set.name, joints, joint_set.skeleton), "left"


def _hands(name: str, content: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """Which hand each annotation is of: SIDES' number, -1 where it does not say."""
    codes = np.full(len(content["annotations"]), -1, np.int64)
    for row, annotation in enumerate(content["annotations"]):
        side = annotation.get("hand_type")
        if side is None:
            continue
        if side not in SIDES:
            raise ValueError(
                f"{name}: annotation {annotation['id']}: 'hand_type' must be 'right' or 'left', got {side!r}"
            )
        codes[row] = SIDES.index(side)
    return {"train/side": codes}
