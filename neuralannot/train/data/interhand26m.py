"""InterHand2.6M: `InterHand2.6M_{split}_data.json`, `_camera.json` and `_joint_3d.json`; rows are hands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuralannot.boxes import boxes_from_joints
from neuralannot.cameras import read_cameras
from neuralannot.catalog import release_named
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.train.data.columns import paths_of, read_annotations
from neuralannot.train.data.frames import see_joints, wanted_frames, world_joints
from neuralannot.train.data.request import Request
from neuralannot.train.data.sieve import Unusable, usable
from neuralannot.train.samples import Samples

NAME, MODELS = "InterHand2.6M", ("mano",)
TAKES = frozenset({"split", "views", "every", "annotations", "cameras", "joints"})
_BOX_SCALE = 1.5  # the data set's own loaders: the valid joints' box, half as large again
_HAND_TYPES = {"right": (True, False), "left": (False, True), "interacting": (True, True)}


def read(request: Request) -> Samples:
    """The hands that `hand_type` says are annotated, right before left.

    A joint is valid where both the annotation's `joint_valid` and the frame's say so. The box is that of the
    hand's valid joints in the image, scaled by 1.5.
    """
    split = request.split or "train"
    release, groups = release_named("interhand26m-mano"), {"split": split}
    stem = f"{NAME}_{split}"
    data = request.find(f"{stem}_data.json", what="annotations", given=request.annotations)
    camera = request.find(f"{stem}_camera.json", what="cameras", given=request.cameras)
    joints = request.find(f"{stem}_joint_3d.json", what="joints", given=request.joints)
    table = read_annotations(data, release, groups, extra=_hand_types, cache=request.cache)

    wanted = wanted_frames(
        table["ann/key"], table["ann/camera_key"], every=request.every, views=request.views
    )
    sizes = table["ann/image_size"][wanted]
    frames = see_joints(
        world_joints(joints, NAME, None, cache=request.cache),
        read_cameras(camera, NAME),
        table["ann/key"][wanted],
        table["ann/camera_key"][wanted],
        sizes,
    )
    flags = table["ann/joint_valid"][wanted][..., None]
    # (N, 42, C) of both hands -> (N, 2, 21, C), of which the annotated hands are rows.
    points = np.where(flags, frames.joints_cam, np.float32(np.nan)).reshape(-1, 2, 21, 3)
    pixels = np.where(flags, frames.joints_2d, np.float32(np.nan)).reshape(-1, 2, 21, 2)
    at, hand = np.nonzero(table["train/hands"][wanted])
    rows, points, pixels = wanted[at], points[at, hand], pixels[at, hand]
    boxes, has_area = boxes_from_joints(pixels, scale=_BOX_SCALE)

    paths = paths_of(table, rows)
    samples = Samples(
        data_set=NAME,
        images=request.image_root(paths),
        image_path=paths,
        image_size=table["ann/image_size"][rows],
        box_xywh=boxes,
        ids=table["ann/id"][rows],
        keys=table["ann/key"][rows],
        joint_set=JOINT_SETS["interhand-21-right"],
        joints_2d=pixels,
        joints_cam=points,
        camera=frames.camera.rows(at),
        side=np.array(["right", "left"])[hand],
        person=table["ann/key"][rows][:, 0].astype(np.int64),
        release=release.name,
        groups=(groups,),
    )
    known = [u.of_rows(at) for u in frames.unusable]
    known.append(Unusable(np.asarray(samples.valid.sum(axis=1) == 0), "no joints"))
    seen = np.asarray(np.isfinite(pixels).all(axis=-1)).any(axis=1)
    known.append(
        Unusable(
            np.logical_and(seen, ~has_area), "box empty", lambda row: "its joints in the image span no area"
        )
    )
    return usable(samples, min_joints=request.min_joints, known=known)


def _hand_types(name: str, content: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    hands = []
    for annotation in content["annotations"]:
        kind = annotation.get("hand_type")
        if kind not in _HAND_TYPES:
            raise ValueError(
                f"{name}: annotation {annotation['id']}: 'hand_type' must be "
                f"{', '.join(_HAND_TYPES)}, got {kind!r}"
            )
        hands.append(_HAND_TYPES[kind])
    return {"train/hands": np.array(hands, bool).reshape(-1, 2)}
