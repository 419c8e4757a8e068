"""Synthetic releases: every file of the catalogue in its layout, with its companions, small and random.

`write_release(folder, name)` writes the files and returns a `Written`, whose rows say, from the raw numbers
and by no code of the library, what loading must give: which rows, in which order, with which camera.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from neuralannot.catalog import RELEASES

FILE_NAMES = {
    "human36m-smpl": "Human36M_subject1_SMPL_NeuralAnnot.json",
    "human36m-smplx": "Human36M_subject1_SMPLX_NeuralAnnot.json",
    "mpi-inf-3dhp-smpl": "MPI-INF-3DHP_SMPL_NeuralAnnot.json",
    "mpi-inf-3dhp-smplx": "MPI-INF-3DHP_SMPLX_NeuralAnnot.json",
    "mscoco-smpl": "MSCOCO_train_SMPL_NeuralAnnot.json",
    "mscoco-smplx": "MSCOCO_train_SMPLX_all_NeuralAnnot.json",
    "mscoco-mano": "MSCOCO_train_MANO_NeuralAnnot.json",
    "mscoco-flame": "MSCOCO_train_FLAME_NeuralAnnot.json",
    "mscoco-smpl-three-recipes": "MSCOCO_train_SMPL_Three_Recipes.json",
    "mscoco-smpl-two-recipes": "MSCOCO_train_SMPL_Two_Recipes.json",
    "mpii-smpl": "MPII_train_SMPL_NeuralAnnot.json",
    "mpii-smplx": "MPII_train_SMPLX_NeuralAnnot.json",
    "3dpw-smplx": "3DPW_train_SMPLX_NeuralAnnot.json",
    "crowdpose-smpl": "CrowdPose_train_SMPL_NeuralAnnot.json",
    "ffhq-flame": "FFHQ_FLAME_NeuralAnnot.json",
    "instavariety-smpl": "InstaVariety_train_SMPL_NeuralAnnot.json",
    "interhand26m-mano": "InterHand2.6M_test_MANO_NeuralAnnot.json",
}
MOCAP = ["human36m-smpl", "human36m-smplx", "mpi-inf-3dhp-smpl", "mpi-inf-3dhp-smplx", "interhand26m-mano"]
SIDES = ("right", "left")
_ANNOTATIONS = {
    "mscoco-smpl": "person_keypoints_train2017.json",
    "mscoco-smpl-three-recipes": "person_keypoints_train2017.json",
    "mscoco-smpl-two-recipes": "person_keypoints_train2017.json",
    "mscoco-smplx": "coco_wholebody_train_v1.0.json",
    "mscoco-mano": "coco_wholebody_train_v1.0.json",
    "mscoco-flame": "coco_wholebody_train_v1.0.json",
    "mpii-smpl": "train.json",
    "mpii-smplx": "train.json",
    "3dpw-smplx": "3DPW_train.json",
    "crowdpose-smpl": "crowdpose_train.json",
    "ffhq-flame": "FFHQ.json",
    "instavariety-smpl": "insta_train_db.pt",
    "mpi-inf-3dhp-smpl": "MPI-INF-3DHP_1k.json",
    "mpi-inf-3dhp-smplx": "MPI-INF-3DHP_1k.json",
    "interhand26m-mano": "InterHand2.6M_test_data.json",
}


@dataclass(frozen=True)
class View:
    """A camera as the files have it: `R` (3, 3), `t` (3,) and `unit`, how many of its units make a metre."""

    focal: list[float]
    princpt: list[float]
    R: list | None = None
    t: list | None = None
    unit: float = 1000.0


@dataclass(frozen=True)
class Row:
    """What one row of the loaded release must be: its leaf as in the file, its camera, its annotation."""

    id: int
    leaf: dict
    camera: View
    key: tuple[int, ...] | None = None
    side: str | None = None
    image: dict = field(default_factory=dict)
    annotation: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """The files, what their rows must be in order, and which annotations have no fit."""

    release: str
    path: Path
    annotations: Path
    cameras: Path | None
    joints: Path | None
    rows: list[Row]
    missing: list
    fits: Any  # the content of the JSON


def leaf(rng: np.random.Generator, release: str, *, row: int = 0, genders: bool = False) -> dict:
    """Random parameters of one fit: any root, moderate poses; in front of the camera in camera space."""
    entry = RELEASES[release]
    near = {"smpl": 4.0, "smplx": 4.0, "mano": 0.9, "flame": 1.2}[entry.model]
    spread = near / 10
    trans = rng.uniform(-spread, spread, 3)
    if entry.space == "camera":
        trans[2] += near * rng.uniform(0.9, 1.3)

    def pose(joints: int, sigma: float = 0.3) -> np.ndarray:
        return rng.normal(0, sigma, 3 * joints)

    root, shape = Rotation.random(random_state=rng).as_rotvec(), rng.normal(0, 1, 10)
    values: dict[str, Any]
    if entry.model in ("smpl", "mano"):
        joints = 23 if entry.model == "smpl" else 15
        values = {"pose": np.concatenate([root, pose(joints)]), "shape": shape, "trans": trans}
    elif entry.model == "flame":
        values = {"root_pose": root, "jaw_pose": pose(1, 0.1), "shape": shape, "expr": rng.normal(0, 1, 10)}
        if row % 5 != 4 or entry.data_set != "FFHQ":
            values["trans"] = trans
    else:
        values = {"root_pose": root, "body_pose": pose(21), "shape": shape, "trans": trans}
        if release == "mscoco-smplx":
            values |= {"lhand_pose": pose(15), "rhand_pose": pose(15), "jaw_pose": pose(1, 0.1)}
            values |= {"expr": rng.normal(0, 1, 10), "lhand_valid": True, "rhand_valid": True}
            values["face_valid"] = row % 2 == 0
            if row % 3 == 1:
                values["lhand_valid"] = False
            if row % 3 == 2:
                for name in ("rhand_pose", "rhand_valid"):
                    del values[name]
    out = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}
    if genders and entry.model in ("smpl", "smplx"):
        out["gender"] = ("neutral", "female", "male")[row // 2 % 3]
    return out


def studio_view(rng: np.random.Generator, distance: float, focal: float, size: tuple[int, int]) -> View:
    """A calibrated camera `distance` metres away that looks at the origin, somewhat rolled; millimetres."""
    forward = rng.normal(size=3)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, rng.normal(size=3))
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    position = -forward * distance * rng.uniform(0.9, 1.2)
    return View(
        [focal * rng.uniform(0.98, 1.02) for _ in range(2)],
        [length * rng.uniform(0.48, 0.52) for length in size],
        R.tolist(),
        (-R @ position * 1000).tolist(),
    )


def wild_view(rng: np.random.Generator) -> View:
    """A virtual camera of one person, as the release's in-the-wild leaves hold it."""
    box = rng.uniform(100, 400, 2)
    return View((5000 / 256 * box).tolist(), rng.uniform(100, 400, 2).tolist())


def write_release(
    folder: Path, name: str, *, seed: int = 0, genders: bool = False, world: bool = True, subject: int = 1
) -> Written:
    """Write the release `name` and its companions to `folder`.

    `genders`: leaves of bodies say `gender`; `world`: whether 3DPW's images carry R and t; `subject`: of
    Human3.6M, whose annotation ids begin at 1000 times that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, subject, *name.encode()])
    entry = RELEASES[name]
    if entry.layout == "flat":
        return _write_flat(folder, name, rng, genders=genders, world=world)
    if entry.layout == "hands":
        return _write_hands(folder, name, rng)
    if entry.layout == "hand-frames":
        return _write_interhand(folder, name, rng)
    return _write_frames(folder, name, rng, genders=genders, subject=subject)


def dump(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def _annotation(rng: np.random.Generator, id_: int, image: dict, kind: str) -> dict:
    """A person's annotation: ids, box, keypoints; hands and face with `kind="wholebody"`."""
    box = [*rng.uniform(5, 100, 2).tolist(), *rng.uniform(30, 200, 2).tolist()]
    ann = {"id": id_, "image_id": image["id"], "category_id": 1, "iscrowd": 0, "bbox": box}

    def points(count: int) -> list:
        return [v for _ in range(count) for v in (*rng.uniform(0, 300, 2).tolist(), int(rng.integers(0, 3)))]

    if kind in ("body", "wholebody"):
        ann["keypoints"] = points(17)
    if kind == "wholebody":
        ann |= {"foot_kpts": points(6), "face_kpts": points(68)}
        ann |= {"lefthand_kpts": points(21), "righthand_kpts": points(21)}
        for part in ("lefthand", "righthand", "face"):
            ann[f"{part}_box"] = rng.uniform(10, 60, 4).tolist()
            ann[f"{part}_valid"] = True
    return ann


def _write_flat(folder: Path, name: str, rng: np.random.Generator, *, genders: bool, world: bool) -> Written:
    entry = RELEASES[name]
    ids = [int(i) for i in rng.choice(900_000, 6, replace=False) + 1]  # the file's order, not sorted
    fits, images, annotations, rows = {}, [], [], []
    kind = {"MSCOCO": "wholebody" if "wholebody" in _ANNOTATIONS[name] else "body", "MPII": "none"}
    for number, id_ in enumerate(ids):
        image: dict[str, Any] = {"id": 7000 + number // 2, "width": 640, "height": 480}
        image["file_name"] = f"{image['id']:012d}.jpg"
        view = wild_view(rng)
        if entry.data_set == "3DPW":
            at = studio_view(np.random.default_rng(image["id"]), 4.0, 1960.0, (640, 480))
            view = View(at.focal, at.princpt, at.R, (np.array(at.t) / 1000).tolist(), unit=1.0)
            view = view if world else View(at.focal, at.princpt)
            extrinsics = {"R": view.R, "t": view.t} if world else {}
            image |= {"sequence": f"outdoors_{image['id']}"}
            image["cam_param"] = {"focal": view.focal, "princpt": view.princpt, **extrinsics}
        one = leaf(rng, name, row=number, genders=genders)
        if entry.data_set == "3DPW" and not world:
            one["trans"][2] += 4.0
        cam_param = {"focal": view.focal, "princpt": view.princpt}
        fits[str(id_)] = one if entry.leaf_key is None else {entry.leaf_key: one, "cam_param": cam_param}
        ann = _annotation(rng, id_, image, kind.get(entry.data_set, "body"))
        if image not in images:
            images.append(image)
        annotations.append(ann)
        rows.append(Row(id_, one, view, image=image, annotation=ann))
    unfitted = [max(ids) + 1, max(ids) + 2]
    annotations += [_annotation(rng, i, images[0], kind.get(entry.data_set, "body")) for i in unfitted]
    order = rng.permutation(len(annotations))
    annotations = [annotations[i] for i in order]
    noted = folder / _ANNOTATIONS[name]
    if noted.suffix == ".pt":
        _write_insta_variety(noted, annotations, {image["id"]: image for image in images})
    else:
        dump(noted, {"images": images, "annotations": annotations, "categories": []})
    missing = [ann["id"] for ann in annotations if ann["id"] in unfitted]
    path = dump(folder / FILE_NAMES[name], fits)
    return Written(name, path, noted, None, None, rows, missing, fits)


def _write_insta_variety(path: Path, annotations: list[dict], images: dict[int, dict]) -> None:
    import joblib

    owners = [images[ann["image_id"]] for ann in annotations]
    database = {
        "ann_id": np.array([ann["id"] for ann in annotations]),
        "file_name": np.array([image["file_name"] for image in owners]),
        "img_shape": np.array([(image["height"], image["width"]) for image in owners]),
        "bbox": np.array([ann["bbox"] for ann in annotations]),
    }
    joblib.dump(database, path)


def _write_hands(folder: Path, name: str, rng: np.random.Generator) -> Written:
    """COCO's hands: both, one with the other null, and an annotation whose hands are both null."""
    fits: dict[str, Any] = {}
    images, annotations, rows, missing = [], [], [], []
    there = {81: SIDES, 23: ("right",), 57: ("left",), 40: (), 92: SIDES}
    for id_, sides in there.items():
        image = {"id": id_ // 2, "width": 640, "height": 480, "file_name": f"{id_ // 2:012d}.jpg"}
        ann = _annotation(rng, id_, image, "wholebody")
        if id_ == 92:
            ann |= {"lefthand_box": [0.0] * 4, "lefthand_valid": False}
        entry: dict[str, Any] = {"left": None, "right": None}
        for side in SIDES:
            if side in sides:
                one, view = leaf(rng, name), wild_view(rng)
                cam_param = {"focal": view.focal, "princpt": view.princpt}
                entry[side] = {"mano_param": one, "cam_param": cam_param}
                rows.append(Row(id_, one, view, side=side, image=image, annotation=ann))
        fits[str(id_)] = entry
        images.append(image)
        annotations.append(ann)
    annotations = annotations[::-1]
    for ann in annotations:
        missing += [(ann["id"], side) for side in SIDES if side not in there[ann["id"]]]
    noted = dump(folder / _ANNOTATIONS[name], {"images": images, "annotations": annotations})
    return Written(name, dump(folder / FILE_NAMES[name], fits), noted, None, None, rows, missing, fits)


def _write_frames(
    folder: Path, name: str, rng: np.random.Generator, *, genders: bool, subject: int
) -> Written:
    """Human3.6M and MPI-INF-3DHP: frames of two sequences, cameras, and an annotation a frame and camera."""
    h36m = RELEASES[name].data_set == "Human3.6M"
    size = (1000, 1002) if h36m else (1024, 1024)
    if h36m:
        sequences, cams = [(subject, 2, 1), (subject, 11, 2)], (1, 3)
    else:
        sequences, cams = [(1, 1), (4, 2)], (0, 8)
    frames = (0, 5, 100)
    fits, joints, rows, images, annotations = {}, {}, [], [], []
    views = {}
    for sequence in [sequences[0]] if h36m else sequences:
        for cam in cams:
            views[(subject, cam) if h36m else (*sequence, cam)] = studio_view(
                rng, 4.5 if h36m else 3.6, 1145.0 if h36m else 749.0, size
            )
    leaves = {}
    for number, (sequence, frame) in enumerate((s, f) for s in sequences for f in frames):
        key = (*sequence, frame)
        path = key[1:] if h36m else key
        _place(joints, path, (rng.uniform(-0.8, 0.8, (17, 3)) * 1000).tolist())
        if number != 4:  # no fit
            leaves[key] = leaf(rng, name, row=number, genders=genders)
            _place(fits, path, leaves[key])
    wanted = [(s, f, c) for s in sequences for f in frames for c in cams if (s, f) != (sequences[0], 5)]
    missing = []
    for number in rng.permutation(len(wanted)):  # frame 5 of the first sequence has a fit, no annotation
        sequence, frame, cam = wanted[number]
        id_ = 1000 * subject + int(number)
        image = {"id": id_, "width": size[0], "height": size[1], "cam_idx": cam, "frame_idx": frame}
        names = ("subject", "action_idx", "subaction_idx") if h36m else ("subject_idx", "seq_idx")
        image |= dict(zip(names, sequence, strict=True))
        image["file_name"] = f"s_{id_}.jpg" if not h36m else f"S{subject}/s_{id_}.jpg"
        ann = _annotation(rng, id_, image, "none")
        images.append(image)
        annotations.append(ann)
        key = (*sequence, frame)
        if key in leaves:
            view = views[(subject, cam) if h36m else (*sequence, cam)]
            rows.append(Row(id_, leaves[key], view, key=key, image=image, annotation=ann))
        else:
            missing.append(id_)
    stem = f"Human36M_subject{subject}" if h36m else "MPI-INF-3DHP"
    cameras: dict[str, Any] = {}
    for key, view in views.items():
        intrinsics = ("f", "c") if h36m else ("focal", "princpt")
        entry = {"R": view.R, "t": view.t, intrinsics[0]: view.focal, intrinsics[1]: view.princpt}
        _place(cameras, key[1:] if h36m else key, entry)
    noted = f"{stem}_data.json" if h36m else f"{stem}_1k.json"
    file_name = FILE_NAMES[name].replace("subject1", f"subject{subject}")
    return Written(
        name,
        dump(folder / file_name, fits),
        dump(folder / noted, {"images": images, "annotations": annotations}),
        dump(folder / (f"{stem}_camera.json" if h36m else f"{stem}_camera_1k.json"), cameras),
        dump(folder / f"{stem}_joint_3d.json", joints),
        rows,
        missing,
        fits,
    )


def _write_interhand(folder: Path, name: str, rng: np.random.Generator) -> Written:
    """Both hands, one null, one key missing, a frame without a hand; two cameras; dummies among GT joints."""
    frames = {(0, 18): SIDES, (0, 3): ("right",), (3, 69148): ("left",), (3, 7): (), (3, 1): SIDES}
    fits: dict[str, Any] = {}
    joints: dict[str, Any] = {}
    cameras: dict[str, Any] = {}
    views = {}
    for capture in (0, 3):
        for cam in (400026, 410028):
            view = views[capture, cam] = studio_view(rng, 1.0, 1261.0, (334, 512))
            campos = -np.array(view.R).T @ np.array(view.t)
            values = {"campos": campos.tolist(), "camrot": view.R}
            values |= {"focal": view.focal, "princpt": view.princpt}
            for field_name, value in values.items():
                _place(cameras, (capture, field_name, cam), value)
    leaves = {}
    for number, (frame, sides) in enumerate(frames.items()):
        entry: dict[str, Any] = dict.fromkeys(SIDES) if number % 2 else {}
        for side in sides:
            entry[side] = leaves[(*frame, side)] = leaf(rng, name)
        _place(fits, frame, entry)
        valid = rng.random((42, 1)) > 0.2
        valid[21 if number == 1 else 42 :] = False  # a hand that is not annotated
        world = np.where(valid, rng.uniform(-0.1, 0.1, (42, 3)) * 1000, 1.0)
        flags = valid.tolist()  # as the released file has them; the annotations have 0 and 1
        _place(joints, frame, {"world_coord": world.tolist(), "joint_valid": flags, "hand_type": "right"})
    images, annotations, rows, missing = [], [], [], []
    for number, ((capture, frame), sides) in enumerate(reversed(frames.items())):
        for cam in (410028, 400026) if number == 0 else (400026,):
            id_ = 326750 - 10 * number - (cam == 410028)
            image = {"id": id_, "width": 334, "height": 512, "capture": capture, "frame_idx": frame}
            image |= {"camera": str(cam), "seq_name": f"00{number}_fist", "file_name": f"image{frame}.jpg"}
            ann = _annotation(rng, id_, image, "none")
            flags = joints[str(capture)][str(frame)]["joint_valid"]
            flags = [[int(flag[0])] for flag in flags]
            ann |= {"hand_type": "right", "joint_valid": flags}  # a fit is kept whatever it says
            images.append(image)
            annotations.append(ann)
            for side in SIDES:
                if side in sides:
                    one = leaves[capture, frame, side]
                    view = views[capture, cam]
                    rows.append(Row(id_, one, view, (capture, frame), side, image, ann))
                else:
                    missing.append((id_, side))
    return Written(
        name,
        dump(folder / FILE_NAMES[name], fits),
        dump(folder / "InterHand2.6M_test_data.json", {"images": images, "annotations": annotations}),
        dump(folder / "InterHand2.6M_test_camera.json", cameras),
        dump(folder / "InterHand2.6M_test_joint_3d.json", joints),
        rows,
        missing,
        fits,
    )


def _place(nested: dict, keys: tuple, value: Any) -> None:
    for key in keys[:-1]:
        nested = nested.setdefault(str(key), {})
    nested[str(keys[-1])] = value


def joints_of(written: Written, row: Row) -> np.ndarray:
    """A row's GT joints in metres, by the slow way; NaN where not valid."""
    entry = json.loads(written.joints.read_text())
    for key in row.key[1:] if written.release.startswith("human36m") else row.key:
        entry = entry[str(key)]
    if isinstance(entry, list):
        return np.array(entry) / 1000
    world = np.array(entry["world_coord"]) / 1000
    world[~np.array(entry["joint_valid"], bool)[:, 0]] = np.nan
    return world[:21] if row.side == "right" else world[21:]
