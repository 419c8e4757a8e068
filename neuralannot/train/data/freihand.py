"""FreiHAND: `freihand_train_coco.json` (boxes) and `freihand_train_data.json` (cameras, 3D joints)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.cameras import Camera
from neuralannot.catalog import release_named
from neuralannot.key_index import KeyIndex
from neuralannot.store import cached_table
from neuralannot.train.data.columns import paths_of, read_annotations
from neuralannot.train.data.named_joints import FREIHAND
from neuralannot.train.data.request import Request
from neuralannot.train.data.sieve import Unusable, usable
from neuralannot.train.samples import Samples

NAME, MODELS = "FreiHAND", ("mano",)
TAKES = frozenset({"split", "annotations", "joints"})
# FreiHAND was not released with fits: its files are read as those of a flat release.
_RELEASE = replace(release_named("mscoco-mano"), name="", data_set=NAME, image_folder="", camera="leaf")
# The wrist to the farthest fingertip: more than this in metres, or the file holds millimetres.
_LARGEST_HAND, _SMALLEST_HAND = 0.5, 0.02


def read(request: Request) -> Samples:
    """Right hands; joints in the camera's frame. Of the evaluation split the joints are not released.

    Joints are in metres, as in the data set's own files; where they are a thousand times as large as a hand
    in metres, they are taken for millimetres.
    """
    split = request.split or "train"
    path = request.find(f"freihand_{split}_coco.json", what="annotations", given=request.annotations)
    data = request.find(f"freihand_{split}_data.json", what="joints", given=request.joints)
    table = read_annotations(path, _RELEASE, {"split": split}, extra=_entries, cache=request.cache)
    of = cached_table(data, lambda: (_read_data(data), {}), key="train", cache=request.cache)

    wanted = table["train/entry"]
    rows = KeyIndex(of["entry"][:, None]).first(wanted[:, None])
    there, n = rows >= 0, len(wanted)

    def gather(name: str, fill: float) -> np.ndarray:
        values = of[name]
        picked = values[rows] if len(values) else np.zeros((n, *values.shape[1:]), np.float32)
        return np.where(there.reshape(-1, *[1] * (picked.ndim - 1)), picked, np.float32(fill))

    joints = gather("joints", np.nan)
    focal, princpt = gather("focal", 1), gather("princpt", 0)
    camera = Camera.from_intrinsics(focal, princpt, np.array(table["ann/image_size"]))
    paths, ids = paths_of(table), table["ann/id"]
    samples = Samples(
        data_set=NAME,
        images=request.image_root(paths),
        image_path=paths,
        image_size=table["ann/image_size"],
        box_xywh=table["ann/box"],
        ids=ids,
        keys=ids[:, None],
        joint_set=FREIHAND,
        joints_2d=camera.project(joints),
        joints_cam=joints,
        camera=camera,
        side=np.full(len(ids), "right"),
    )
    lost = ~np.isfinite(joints).any(axis=(1, 2))
    known = [
        Unusable(table["ann/crowd"], "crowd"),
        Unusable(~there, "no camera", lambda row: f"entry {wanted[row]} is not in {data.name}"),
        Unusable(lost, "no 3D joints", lambda row: f"entry {wanted[row]} has no 'joint_3d'"),
    ]
    return usable(samples, min_joints=request.min_joints, known=known)


def _entries(name: str, content: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    """The entry of the data file that each annotation's image names."""
    by_image = {image.get("id"): image for image in content["images"]}
    entries = []
    for annotation in content["annotations"]:
        image = by_image[annotation["image_id"]]
        try:
            entries.append(int(image["db_idx"]))
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{name}: image {image.get('id')}: no number 'db_idx'") from None
    return {"train/entry": np.array(entries, np.int64)}


def _read_data(path: Path) -> dict[str, np.ndarray]:
    try:
        content = json.loads(path.read_bytes())
        items = [(int(key), entry) for key, entry in content.items()]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not FreiHAND's data file: {error}") from None
    focal, princpt, joints = [], [], []
    for key, entry in items:
        try:
            camera = entry["cam_param"]
            focal.append(np.asarray(camera["focal"], np.float32).reshape(2))
            princpt.append(np.asarray(camera["princpt"], np.float32).reshape(2))
            points = entry.get("joint_3d")
            empty = np.full((21, 3), np.nan, np.float32)
            joints.append(empty if points is None else np.asarray(points, np.float32).reshape(21, 3))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path}: entry {key}: expected 'cam_param' with focal and princpt of 2 numbers, and "
                f"'joint_3d' of 21x3: {error!r}"
            ) from None
    n = len(items)
    return {
        "entry": np.array([key for key, _ in items], np.int64),
        "focal": np.array(focal, np.float32).reshape(n, 2),
        "princpt": np.array(princpt, np.float32).reshape(n, 2),
        "joints": _metres(path, np.array(joints, np.float32).reshape(n, 21, 3)),
    }


def _metres(path: Path, joints: np.ndarray) -> np.ndarray:
    reach = np.linalg.norm(joints - joints[:, :1], axis=-1)
    reach = reach[np.isfinite(reach).all(axis=1)].max(axis=1)
    if not len(reach):
        return joints
    size = float(np.median(reach))
    for scale in (1, 1000):
        if _SMALLEST_HAND < size / scale < _LARGEST_HAND:
            return joints / np.float32(scale)
    raise ValueError(f"{path}: hands of {size:g} from wrist to fingertip: neither metres nor millimetres")
