"""MSCOCO: bodies of `person_keypoints_{split}2017.json`, all else of `coco_wholebody_{split}_v1.0.json`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from neuralannot.catalog import release_named
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.store import Table
from neuralannot.train.data.columns import keypoints_of, read_annotations
from neuralannot.train.data.in_the_wild import wild_hands, wild_samples
from neuralannot.train.data.named_joints import COCO_BODY_FEET
from neuralannot.train.data.request import BODIES, Request
from neuralannot.train.samples import Samples

NAME, MODELS = "MSCOCO", (*BODIES, "mano", "flame")
TAKES = frozenset({"split", "annotations"})
_BOXES = {
    "mano": {"ann/box_right_hand": "righthand_box", "ann/box_left_hand": "lefthand_box"},
    "flame": {"ann/box_face": "face_box"},
}
# COCO-WholeBody's 133: body, feet, face, left hand, right hand.
_BODY, _FEET, _FACE, _LEFT, _RIGHT = 17, 23, slice(23, 91), slice(91, 112), slice(112, 133)


def read(request: Request) -> Samples:
    """SMPL: COCO's 17 joints; SMPL-X: body and feet, or COCO's 17; MANO: both hands; FLAME: the face.

    Crowds are left out, and so are the hands and faces that COCO-WholeBody marks invalid.
    """
    split = request.split or "train"
    release = release_named(f"mscoco-{request.model}")
    names = [name.replace("train", split) for name in release.annotations]
    path = request.find(*names, what="annotations", given=request.annotations)
    release = replace(release, image_folder=f"{split}2017")
    table = read_annotations(path, release, {"split": split}, cache=request.cache)
    return whole_body_samples(request, table, path, release=release.name if split == "train" else "")


def whole_body_samples(request: Request, table: Table, path: Path, *, release: str = "") -> Samples:
    """The part of COCO's 17 or COCO-WholeBody's 133 keypoints that the model is about."""
    points = keypoints_of(table, path, (17, 133) if request.model in BODIES else 133)
    for column, field in _BOXES.get(request.model, {}).items():
        if column not in table:
            raise ValueError(f"{path}: no annotation has {field!r}; expected COCO-WholeBody's file")
    if request.model == "mano":
        joint_set = JOINT_SETS["coco-wholebody-hand-21-right"]
        keypoints = (points[:, _RIGHT], points[:, _LEFT])
        boxes = (table["ann/box_right_hand"], table["ann/box_left_hand"])
        return wild_hands(request, table, keypoints, boxes, joint_set, release=release)
    if request.model == "flame":
        joint_set = JOINT_SETS["coco-wholebody-face-68"]
        return wild_samples(
            request, table, points[:, _FACE], joint_set, release=release, boxes="ann/box_face"
        )
    if request.model == "smplx" and points.shape[1] >= _FEET:
        return wild_samples(request, table, points[:, :_FEET], COCO_BODY_FEET, release=release)
    return wild_samples(request, table, points[:, :_BODY], JOINT_SETS["coco-17"], release=release)
