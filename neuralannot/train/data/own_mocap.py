"""The user's own MoCap, in Human3.6M's layout with joints whose names it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.cameras import read_cameras
from neuralannot.catalog import release_named
from neuralannot.train.data.columns import read_annotations
from neuralannot.train.data.human36m import check_subject
from neuralannot.train.data.mocap import mocap_samples
from neuralannot.train.data.mscoco import MODELS
from neuralannot.train.data.own_coco import joints_of
from neuralannot.train.data.request import Request
from neuralannot.train.samples import Samples, concatenate

__all__ = ["MODELS", "NAME", "TAKES", "read"]

NAME = "MoCap-format"
TAKES = frozenset({"annotations", "cameras", "joints", "subjects", "views", "every", "joint_set", "name"})
_LAYOUT = "Human3.6M"
_DATA = "_data.json"


def read(request: Request) -> Samples:
    """Each `X_data.json` with `X_camera.json` and `X_joint_3d.json` beside it: one subject's annotations.

    `X_data.json`: COCO format, images with `subject`, `action_idx`, `subaction_idx`, `frame_idx`, `cam_idx`,
    joints' names in `categories`. Cameras: `[cam]` with `R`, `t` (mm), `f`, `c`. Joints:
    `[action][subaction][frame]`, a list of x, y, z in millimetres in the world, null for what is missing.
    """
    release = replace(release_named("human36m-smpl"), name="")
    parts: list[Samples] = []
    seen: dict[int, Path] = {}
    for data, camera, joints in _trios(request):
        table = read_annotations(data, release, {}, cache=request.cache)
        if not len(table["ann/id"]):
            raise ValueError(f"{data}: no annotations")
        subject = int(table["ann/key"][0, 0])
        check_subject(data, table, subject)
        if subject in seen:
            raise ValueError(f"{data}: subject {subject} is also in {seen[subject].name}; number them apart")
        seen[subject] = data
        if request.subjects is not None and subject not in request.subjects:
            continue
        joint_set, side = joints_of(request, table, data)
        if request.model == "mano" and side is None:
            raise ValueError(f"{data}: which hand is it? Begin the joints' names with right_ or left_")
        found = _named_joints(joints, len(joint_set), subject)
        cameras = read_cameras(camera, _LAYOUT, subject)
        part = mocap_samples(request, table, cameras, found, joint_set, release="")
        if side is not None:
            part = replace(part, side=np.full(len(part), side))
        parts.append(part)
    if not parts:
        raise ValueError(f"{request.folder}: no subject {request.subjects}; there are {list(seen)}")
    return concatenate(parts)


def _trios(request: Request) -> list[tuple[Path, Path, Path]]:
    if request.annotations is not None:
        found = [request.annotations]
    else:
        if request.cameras is not None or request.joints is not None:
            raise ValueError(f"{NAME}: cameras= and joints= belong to one file; pass it as annotations= too")
        folders = (request.folder, request.folder / "annotations")
        found = [path for folder in folders for path in sorted(folder.glob(f"*{_DATA}"))]
    if not found:
        raise FileNotFoundError(f"{NAME}: no *{_DATA} in {request.folder} or its annotations")
    trios = []
    for path in found:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such annotation file")
        stem = path.name.removesuffix(_DATA).removesuffix(".json")
        beside = replace(request, folder=path.parent)
        camera = beside.find(f"{stem}_camera.json", what="cameras", given=request.cameras)
        joints = beside.find(f"{stem}_joint_3d.json", what="joints", given=request.joints)
        trios.append((path, camera, joints))
    return trios


def _named_joints(path: Path, count: int, subject: int) -> dict[str, np.ndarray]:
    """`[action][subaction][frame]` -> `joint/key` (F, 4) and `joint/world` (F, count, 3) metres."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not a joints file: {error}") from None
    keys: list[tuple[int, ...]] = []
    arrays: list[np.ndarray] = []
    for names, entry in _leaves(path, content, ()):
        where = "/".join(names)
        try:
            keys.append((subject, *map(int, names)))
        except ValueError:
            raise ValueError(f"{path}: key {where!r} is not a frame's numbers") from None
        try:
            points = np.array([(np.nan,) * 3 if p is None else p for p in entry], np.float32)
        except (TypeError, ValueError):
            points = np.zeros(0, np.float32)
        if points.shape != (count, 3):
            raise ValueError(f"{path}: frame {where}: expected {count} joints of 3 numbers or null")
        arrays.append(points)
    return {
        "joint/key": np.array(keys, np.int64).reshape(len(keys), 4),
        "joint/world": np.array(arrays, np.float32).reshape(-1, count, 3) / np.float32(1000),  # file: mm
    }


def _leaves(path: Path, content: Any, names: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    if len(names) == 3:
        return [(names, content)]
    if not isinstance(content, Mapping):
        where = "/".join(names) or "the file"
        raise ValueError(f"{path}: {where}: expected [action][subaction][frame], got {content!r:.40}")
    return [leaf for name, value in content.items() for leaf in _leaves(path, value, (*names, name))]
