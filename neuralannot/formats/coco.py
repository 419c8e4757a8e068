"""COCO-format JSON with the body models' parameters and the camera inside each annotation."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.atomic import whole_file
from neuralannot.formats.pictured import pictured
from neuralannot.joint_sets import JOINT_SETS, JointSet
from neuralannot.parameters import SIDES
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.writers import camera_leaf, parameter_leaves

__all__ = ["write_coco"]

_SETS = {17: "coco-17", 133: "coco-17", 16: "mpii-16", 68: "coco-wholebody-face-68"}
# COCO-WholeBody's lists and where they are among its 133.
_WHOLE_BODY = {
    "keypoints": slice(0, 17),
    "foot_kpts": slice(17, 23),
    "face_kpts": slice(23, 91),
    "lefthand_kpts": slice(91, 112),
    "righthand_kpts": slice(112, 133),
}


def write_coco(
    gt: PseudoGT,
    path: str | os.PathLike[str],
    *,
    body_models: str | os.PathLike[str] | None = None,
    drop_incomplete: bool = False,
) -> Path:
    """Write annotations of any model as one COCO-format file; returns the path.

    Beside COCO's fields each annotation has `smpl_param`, `smplx_param`, `mano_param` (`right`, `left`) or
    `flame_param`, in the released files' spelling and in camera space, and `cam_param` (`focal`, `princpt`
    px; of MANO `right` and `left` too, whose cameras differ): `neuralannot`'s leaf. Nine digits, which give
    the same float32. `keypoints` as annotated, invisible ones 0; COCO-WholeBody's lists where the annotations
    are its; `righthand_box`, `lefthand_box`, `face_box` with `_valid` for hands and faces; `body_valid` false
    where no body was fitted. Images count from 1.

    Raises ValueError for rows without an image, and bodies without a box (see `drop_incomplete`).
    """
    rows, boxes = pictured(
        gt,
        "COCO's JSON",
        body_models=body_models,
        drop_incomplete=drop_incomplete,
        need_box=gt.model not in ("mano", "flame"),
    )
    path = Path(path)
    path = path if path.suffix == ".json" else path / "annotations.json"
    files, image_of = np.unique(rows.image_path, return_inverse=True)
    size = np.zeros((len(files), 2), np.int64)
    size[image_of] = rows.image_size
    images = [
        {"id": k + 1, "file_name": str(name), "width": int(size[k, 0]), "height": int(size[k, 1])}
        for k, name in enumerate(files)
    ]
    keypoints = rows.view.column("ann/keypoints") if "ann/keypoints" in rows.view else None
    head = {
        "info": {
            "description": f"{rows.release}, {rows.model.upper()} parameters in camera space: metres, radians"
        },
        "licenses": [],
        "images": images,
        "categories": [_category(keypoints)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part, part.open("w", encoding="ascii") as file:
        file.write(json.dumps(head)[:-1] + ', "annotations": [')
        for place, entry in enumerate(_annotations(rows, boxes, image_of, keypoints)):
            file.write((",\n" if place else "\n") + json.dumps(entry))
        file.write("\n]}\n")
    return path


def _category(keypoints: np.ndarray | None) -> dict[str, Any]:
    found: JointSet | None = None
    if keypoints is not None and keypoints.shape[1] in _SETS:
        found = JOINT_SETS[_SETS[keypoints.shape[1]]]
    category: dict[str, Any] = {"id": 1, "name": "person", "supercategory": "person"}
    if found is not None:
        category["keypoints"] = list(found.joints)
        category["skeleton"] = [[a + 1, b + 1] for a, b in found.skeleton]
    return category


def _annotations(
    gt: PseudoGT, boxes: np.ndarray, image_of: np.ndarray, keypoints: np.ndarray | None
) -> Iterator[dict[str, Any]]:
    """An entry for each annotation id: both hands of one share it."""
    camera, ids = gt.require_camera(), gt.ids
    order = np.argsort(ids, kind="stable") if gt.side is not None else np.arange(len(gt))
    sides = gt.side
    leaves = parameter_leaves(gt.rows(order))
    persons = gt.view.column("ann/box")
    body = np.asarray(gt.valid["body"]) if "body" in gt.valid else None
    entry: dict[str, Any] = {}
    for row, leaf in zip(order.tolist(), leaves, strict=True):
        if entry and entry["id"] == int(ids[row]):  # the other hand
            assert sides is not None
            _add_hand(entry, str(sides[row]), leaf, camera_leaf(camera, row), boxes[row])
            continue
        if entry:
            yield entry
        box = persons[row] if np.isfinite(persons[row]).all() else boxes[row]
        entry = {"id": int(ids[row]), "image_id": int(image_of[row]) + 1, "category_id": 1, "iscrowd": 0}
        if np.isfinite(box).all():
            numbers = _numbers(box)
            entry |= {"bbox": numbers, "area": float(numbers[2] * numbers[3])}
        if keypoints is not None:
            entry |= _keypoint_lists(keypoints[row])
        if body is not None and not body[row]:
            entry["body_valid"] = False
        seen_by = camera_leaf(camera, row)
        entry["cam_param"] = seen_by
        if sides is not None:
            entry |= {"mano_param": dict.fromkeys(SIDES), "cam_param": dict.fromkeys(SIDES)}
            for side in SIDES:
                entry |= _part_box(f"{side}hand", np.full(4, np.nan))
            _add_hand(entry, str(sides[row]), leaf, seen_by, boxes[row])
            continue
        entry[f"{gt.model}_param"] = leaf
        if gt.model == "flame":
            entry |= _part_box("face", boxes[row])
    if entry:
        yield entry


def _part_box(part: str, box: np.ndarray) -> dict[str, Any]:
    """As COCO-WholeBody says it: zeros and false where there is none."""
    there = bool(np.isfinite(box).all())
    return {f"{part}_box": _numbers(box if there else np.zeros(4)), f"{part}_valid": there}


def _add_hand(
    entry: dict[str, Any], side: str, leaf: dict[str, Any], camera: dict[str, Any], box: np.ndarray
) -> None:
    entry["mano_param"][side], entry["cam_param"][side] = leaf, camera
    entry |= _part_box(f"{side}hand", box)


def _keypoint_lists(points: np.ndarray) -> dict[str, Any]:
    lists = _WHOLE_BODY if len(points) == 133 else {"keypoints": slice(None)}
    entry: dict[str, Any] = {}
    for name, where in lists.items():
        seen = np.where(points[where, 2:] > 0, points[where], 0)
        entry[name] = _numbers(np.nan_to_num(seen).reshape(-1))
    entry["num_keypoints"] = int((np.array(entry["keypoints"][2::3]) > 0).sum())
    return entry


def _numbers(values: np.ndarray) -> list[float]:
    return [float(f"{v:.9g}") for v in np.asarray(values, np.float64).tolist()]
