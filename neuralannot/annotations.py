"""COCO-format annotation files -> columns: what each annotation id is about, for the join with its fit.

Columns (A annotations, in the file's order): `ann/id`, `ann/image_path` (text), `ann/image_size` (A, 2) width
and height px, `ann/box` (A, 4) raw xywh px, `ann/box_right_hand`, `ann/box_left_hand`, `ann/box_face` where
the file has them, `ann/keypoints` (A, K, 3) x, y px and visibility, `ann/key` (A, K) the fit's frame key and
`ann/camera_key` for MoCap releases, `ann/focal`, `ann/princpt`, `ann/R`, `ann/t` where images carry cameras,
`ann/joint_valid` (A, 42) for InterHand2.6M. Absent boxes are NaN. Keypoints are COCO's triples or, where
`keypoints_valid` stands beside them, pairs or triples whose visibility that is (1 or 0); FFHQ's 73 are put in
the order of COCO-WholeBody's face.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.cameras import camera_of_image, stack_cameras
from neuralannot.catalog import Release
from neuralannot.columns import texts_to_bytes
from neuralannot.store import Table, cached_table

# Where each MoCap data set's images say which frame and which camera they are of.
_FRAME_FIELDS = {
    "Human3.6M": ("subject", "action_idx", "subaction_idx", "frame_idx"),
    "MPI-INF-3DHP": ("subject_idx", "seq_idx", "frame_idx"),
    "InterHand2.6M": ("capture", "frame_idx"),
}
_CAMERA_FIELDS = {
    "Human3.6M": ("subject", "cam_idx"),
    "MPI-INF-3DHP": ("subject_idx", "seq_idx", "cam_idx"),
    "InterHand2.6M": ("capture", "camera"),
}
_PART_BOXES = {"right_hand": "righthand_box", "left_hand": "lefthand_box", "face": "face_box"}
# FFHQ's keypoints are FLAME's: 5 joints of the skeleton, which nobody clicks, 51 landmarks, the contour's 17.
# They are given as COCO-WholeBody's 68, which have the contour first.
_FACE_OF_FLAME = np.r_[56:73, 5:56]
# COCO-WholeBody's lists, in the order of its 133 joints.
_WHOLE_BODY = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")


def load_annotations(
    source: Any, release: Release, groups: Mapping[str, str], *, cache: bool = True
) -> Table:
    """An annotation file, its path or a `pycocotools.coco.COCO`, as columns (see the module's text).

    A path is read through pycocotools once and its columns kept beside it as `load_pseudo_gt` keeps those of
    the fits. InstaVariety's `insta_train_db.pt` is read without running what is in it. Raises ValueError that
    names the file, the annotation and the field for what is missing, FileNotFoundError.
    """
    if isinstance(source, dict):
        source = _coco_of(source)
    if hasattr(source, "dataset") and hasattr(source, "imgs"):
        return Table(_read_coco("annotations", source, release, groups), {"file": ""})
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such annotation file")

    def read() -> tuple[Mapping[str, np.ndarray], Mapping[str, str]]:
        if path.suffix == ".pt":
            return _read_insta_variety(path), {"file": path.name}
        return _read_coco(str(path), _open_coco(path), release, groups), {"file": path.name}

    key = "-".join([release.data_set, *groups.values(), "annotations"])
    return cached_table(path, read, key=key, cache=cache)


def _coco_of(dataset: dict[str, Any]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _open_coco(path: Path) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    try:
        coco.dataset = json.loads(path.read_bytes())
        for ann in coco.dataset.get("annotations") or []:
            ann.setdefault("category_id", 0)  # pycocotools wants it where there are categories
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
    except KeyError as error:
        raise ValueError(f"{path}: not a COCO-format annotation file: an entry has no {error}") from None
    except (ValueError, AssertionError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a COCO-format annotation file: {error}") from None
    return coco


def _read_coco(name: str, coco: Any, release: Release, groups: Mapping[str, str]) -> dict[str, np.ndarray]:
    annotations = coco.dataset.get("annotations")
    if annotations is None or "images" not in coco.dataset:
        raise ValueError(f"{name}: not a COCO-format annotation file: no 'annotations' and 'images'")
    images = [_image_of(name, coco, ann) for ann in annotations]
    columns = {
        "ann/id": np.array([ann["id"] for ann in annotations], np.int64),
        "ann/image_path": texts_to_bytes([_image_path(name, img, release, groups) for img in images]),
        "ann/image_size": np.array(
            [(img.get("width", 0), img.get("height", 0)) for img in images], np.int64
        ).reshape(-1, 2),
        "ann/box": _boxes(name, annotations, "bbox"),
    }
    unique, counts = np.unique(columns["ann/id"], return_counts=True)
    if len(unique) != len(annotations):
        twice = unique[counts > 1][0]
        raise ValueError(f"{name}: annotation {twice}: in the file {counts.max()} times; expected once")
    for part, field in _PART_BOXES.items():
        if any(field in ann for ann in annotations):
            columns[f"ann/box_{part}"] = _boxes(name, annotations, field, of=f"{field[:-4]}_valid")
    keypoints = _keypoints(name, annotations)
    if keypoints is not None:
        is_flame = release.data_set == "FFHQ" and keypoints.shape[1] == 73
        columns["ann/keypoints"] = keypoints[:, _FACE_OF_FLAME] if is_flame else keypoints
    if release.data_set in _FRAME_FIELDS:
        for column, fields in (("ann/key", _FRAME_FIELDS), ("ann/camera_key", _CAMERA_FIELDS)):
            columns[column] = _integers(name, images, fields[release.data_set])
    if release.data_set == "InterHand2.6M":
        columns["ann/joint_valid"] = _joint_valid(name, annotations)
    if release.camera == "image":
        columns |= _image_cameras(name, coco, images)
    return columns


def _image_of(name: str, coco: Any, ann: Mapping[str, Any]) -> Mapping[str, Any]:
    if "id" not in ann or "image_id" not in ann:
        raise ValueError(f"{name}: an annotation without 'id' or 'image_id': {dict(list(ann.items())[:4])}")
    try:
        image: Mapping[str, Any] = coco.imgs[ann["image_id"]]
        return image
    except KeyError:
        raise ValueError(f"{name}: annotation {ann['id']}: no image {ann['image_id']} in the file") from None


def _image_path(name: str, image: Mapping[str, Any], release: Release, groups: Mapping[str, str]) -> str:
    """The image's path below the data set's image folder, as the release's own loaders build it."""
    try:
        file_name = str(image["file_name"])
        if release.data_set == "3DPW":
            return f"{image['sequence']}/{file_name}"
        if "/" in file_name and release.data_set != "InterHand2.6M":
            return file_name
        if release.data_set == "MPI-INF-3DHP":
            return f"S{image['subject_idx']}/Seq{image['seq_idx']}/imageSequence/{file_name}"
        if release.data_set == "InterHand2.6M":
            if "/" not in file_name:
                file_name = f"Capture{image['capture']}/{image['seq_name']}/cam{image['camera']}/{file_name}"
            return f"{groups['split']}/{file_name}" if "split" in groups else file_name
    except KeyError as error:
        raise ValueError(f"{name}: image {image.get('id')}: no {error}") from None
    return f"{release.image_folder}/{file_name}" if release.image_folder else file_name


def _boxes(name: str, annotations: list[Any], field: str, of: str | None = None) -> np.ndarray:
    """(A, 4) float32. COCO-WholeBody writes boxes of zeros where `<part>_valid` is false: NaN here."""
    boxes = np.full((len(annotations), 4), np.nan, np.float32)
    for row, ann in enumerate(annotations):
        box = ann.get(field)
        if box is None or (of is not None and not ann.get(of, True)):
            continue
        if len(box) != 4:
            raise ValueError(f"{name}: annotation {ann['id']}: {field!r} must hold 4 numbers, got {len(box)}")
        boxes[row] = box
    return boxes


def _keypoints(name: str, annotations: list[Any]) -> np.ndarray | None:
    first = next((a for a in annotations if "keypoints" in a), None)
    if first is None:
        return None
    fields = [f for f in _WHOLE_BODY if f in first]
    points: np.ndarray | None = None
    for row, ann in enumerate(annotations):
        if "keypoints" not in ann:
            continue
        try:
            joined = np.concatenate([_points(ann, f) for f in fields])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: annotation {ann['id']}: keypoints: {error}") from None
        if points is None:
            points = np.zeros((len(annotations), len(joined), 3), np.float32)
        if len(joined) != points.shape[1]:
            raise ValueError(
                f"{name}: annotation {ann['id']}: {len(joined)} keypoints; those before it have "
                f"{points.shape[1]}"
            )
        points[row] = joined
    return points


def _points(ann: Mapping[str, Any], field: str) -> np.ndarray:
    """(K, 3) float32 x, y px and visibility, of COCO's triples or, as FFHQ has them, pairs beside flags."""
    values = np.asarray(ann[field], np.float32).reshape(-1)
    flags = ann.get("keypoints_valid") if field == "keypoints" else None
    if flags is None:
        return values.reshape(-1, 3)
    seen = np.asarray(flags, np.float32).reshape(-1) > 0
    if len(values) not in (2 * len(seen), 3 * len(seen)):
        raise ValueError(
            f"{len(values)} numbers in 'keypoints' for {len(seen)} in 'keypoints_valid'; expected two or "
            "three a keypoint"
        )
    pairs = values.reshape(len(seen), -1 if len(seen) else 2)[:, :2]
    return np.column_stack([pairs, seen]).astype(np.float32)


def _integers(name: str, images: list[Any], fields: tuple[str, ...]) -> np.ndarray:
    values = np.zeros((len(images), len(fields)), np.int64)
    for row, image in enumerate(images):
        for column, field in enumerate(fields):
            try:
                values[row, column] = int(image[field])
            except KeyError:
                raise ValueError(
                    f"{name}: image {image.get('id')}: no {field!r}; expected {', '.join(fields)}"
                ) from None
            except (TypeError, ValueError):
                raise ValueError(
                    f"{name}: image {image.get('id')}: {field!r} must be a number, got {image[field]!r}"
                ) from None
    return values


def _joint_valid(name: str, annotations: list[Any]) -> np.ndarray:
    valid = np.zeros((len(annotations), 42), bool)
    for row, ann in enumerate(annotations):
        flags = np.asarray(ann.get("joint_valid", np.ones(42)), float).reshape(-1)
        if len(flags) != 42:
            raise ValueError(
                f"{name}: annotation {ann['id']}: 'joint_valid' must hold 42 flags, got {len(flags)}"
            )
        valid[row] = flags > 0
    return valid


def _image_cameras(name: str, coco: Any, images: list[Any]) -> dict[str, np.ndarray]:
    by_image = {i: camera_of_image(name, img) for i, img in coco.imgs.items()}
    camera = stack_cameras([by_image[img["id"]] for img in images])
    world = np.array(
        [bool({"R", "t"} & set(img["cam_param"])) for img in images], bool
    )  # where none has extrinsics, the fits are camera-space as they stand
    return {
        "ann/focal": camera.focal,
        "ann/princpt": camera.princpt,
        "ann/R": camera.R,
        "ann/t": camera.t,
        "ann/world": world,
    }


def _read_insta_variety(path: Path) -> dict[str, np.ndarray]:
    from neuralannot.safe_pickle import load_joblib

    content = load_joblib(path)
    fields = ("ann_id", "file_name", "img_shape", "bbox")
    missing = [f for f in fields if not isinstance(content, Mapping) or f not in content]
    if missing or not isinstance(content, Mapping):
        raise ValueError(f"{path}: not InstaVariety's database: no {', '.join(missing)}")
    try:
        ids = np.asarray(content["ann_id"]).astype(np.int64)
        shape = np.asarray(content["img_shape"]).astype(np.int64).reshape(len(ids), -1)
        boxes = np.asarray(content["bbox"]).astype(np.float32).reshape(len(ids), 4)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not InstaVariety's database: {error}") from None
    names = [n.decode() if isinstance(n, bytes) else str(n) for n in content["file_name"]]
    if not len(ids) == len(names) == len(shape) == len(boxes):
        raise ValueError(f"{path}: columns of different lengths: {len(ids)} ids, {len(names)} file names")
    return {
        "ann/id": ids,
        "ann/image_path": texts_to_bytes(names),
        "ann/image_size": shape[:, 1::-1].copy(),  # stored as height, width
        "ann/box": boxes,
    }
