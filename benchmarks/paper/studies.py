"""`Study`: one data set that all annotators get, its joints as asked for, and what is true of it.

Made from a studio: its images, cameras and boxes stay, its joints are written anew from the true parameters,
clean, noisy, partly missing, or in the pictures alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralannot import load_pseudo_gt
from neuralannot.bodies import model_on
from neuralannot.joint_sets import JOINT_SETS, JointSet
from neuralannot.key_index import KeyIndex
from neuralannot.synthetic import make_studio
from neuralannot.train.config import TrainConfig, preset
from neuralannot.train.data import read_samples
from neuralannot.train.fitting.charts import Chart, State
from neuralannot.train.joint_points import joint_points
from neuralannot.train.placing import unflip_hands
from neuralannot.train.samples import Samples
from neuralannot.transforms import rigid_parameters

CONDITIONS = ("clean", "noise", "missing", "2d")
#: The motion that no prior which ships was learnt from.
HELD_OUT = "03_02"
MISSING = 0.2
_NOISE = {"body": 0.010, "hand": 0.002}  # metres, of each coordinate
_LAYOUT = {"body": "human36m", "hand": "interhand26m"}
_MODEL = {"body": "smpl", "hand": "mano"}
_SUBJECTS = (1, 5, 6, 7, 8, 9, 11)
_BATCH = 512


@dataclass(frozen=True)
class Study:
    """`who`: body or hand; `joints`: 17 (Human3.6M's), 24 (SMPL's skeleton) or 21 (a hand's); `condition`: of
    `CONDITIONS`; `seed`: of the studio, the noise and the networks."""

    who: str
    joints: int
    condition: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.who}-{self.joints}-{self.condition}-seed{self.seed}"

    @property
    def model(self) -> str:
        return _MODEL[self.who]

    @property
    def is_mocap(self) -> bool:
        return self.condition != "2d"

    @property
    def joint_set(self) -> JointSet:
        if self.joints == 24:
            return JointSet("MoCap-format", JOINT_SETS["smpl"].joints[:24])
        return JOINT_SETS["human36m-17" if self.who == "body" else "interhand-21-right"]


@dataclass(frozen=True, eq=False)
class Base:
    """A studio: its samples with clean joints, one row an annotation or hand, and their true parameters in
    their cameras' frames, of their own sides."""

    folder: Path
    samples: Samples
    params: Mapping[str, np.ndarray]

    @cached_property
    def index(self) -> KeyIndex:
        return KeyIndex(_keys(self.samples.ids, self.samples.side))


def make_base(who: str, seed: int, out: Path, *, images: int, workers: int | None = None) -> Base:
    """The studio of `images` images in `out`, made where it is not there yet."""
    layout, model = _LAYOUT[who], _MODEL[who]
    clips = [HELD_OUT] if who == "body" else []
    made = make_studio(
        out / f"studio-{who}-seed{seed}",
        layout=layout,
        count=images,
        seed=seed,
        image_size=400 if who == "body" else None,
        clips=clips,
        workers=workers,
    )
    options: dict[str, Any] = {"subjects": _there(made.out)} if who == "body" else {}
    samples = read_samples(layout, made.out, model=model, images=made.images, **options)
    truth = load_pseudo_gt(made.truth, annotations=False)
    keys, wanted = np.array(truth.keys, np.int64), samples.keys
    if samples.side is not None:
        keys = np.column_stack([keys, np.asarray(truth.side) == "left"])
        wanted = np.column_stack([wanted, samples.side == "left"])
    rows = KeyIndex(keys).first(wanted)
    params = {name: np.asarray(truth.params[name])[rows] for name in truth.params}
    roots = _rest_roots(model, params["betas"], samples.side)
    camera = samples.camera
    assert camera is not None
    root, transl = rigid_parameters(params["global_orient"], params["transl"], roots, camera.R, camera.t)
    return Base(made.out, samples, {**params, "global_orient": root, "transl": transl})


def _there(folder: Path) -> tuple[int, ...]:
    return tuple(
        s for s in _SUBJECTS if (folder / "annotations" / f"Human36M_subject{s}_data.json").is_file()
    )


def _rest_roots(model: str, betas: np.ndarray, side: np.ndarray | None) -> np.ndarray:
    from neuralannot.train.placing import rest_roots

    return rest_roots(model, {"betas": betas}, side=side)


def _keys(ids: np.ndarray, side: np.ndarray | None) -> np.ndarray:
    left = np.zeros(len(ids), np.int64) if side is None else (np.asarray(side) == "left").astype(np.int64)
    return np.column_stack([ids, left])


def true_params(base: Base, samples: Samples, flip: np.ndarray) -> dict[str, np.ndarray]:
    """The truth of a study's samples (N, ...) as their crops show them: left hands mirrored (`flip`)."""
    ids, side = samples.ids, samples.side
    if side is not None and samples.camera is None:
        ids = ids // 2  # see `_write_keypoints`
    rows = base.index.first(_keys(ids, side))
    if (rows < 0).any():
        raise ValueError(f"{base.folder}: no truth of annotation {int(ids[rows < 0][0])}")
    params = {name: value[rows] for name, value in base.params.items()}
    if side is None:
        return params
    return unflip_hands(params, np.where(flip, "left", "right"))  # its own inverse


class Poser:
    """True parameters -> joints and vertices of a study's body, by its moments and its mesh."""

    def __init__(self, study: Study) -> None:
        self.body = model_on(study.model, None, "neutral", "right" if study.model == "mano" else None, "cpu")
        self.chart = Chart(self.body)
        self.moments = joint_points(self.body, [study.joint_set]).moments()

    def state(self, params: Mapping[str, np.ndarray]) -> State:
        return self.chart.state({n: torch.tensor(np.asarray(v, np.float32)) for n, v in params.items()})

    def joints(self, params: Mapping[str, np.ndarray]) -> np.ndarray:
        """(N, K, 3) metres."""
        state = self.state(params)
        found = [
            self.moments(self.chart.rotations(some), some.codes) + some.transl[:, None]
            for some in (state.rows(slice(n, n + _BATCH)) for n in range(0, len(state), _BATCH))
        ]
        return torch.cat(found).numpy()

    def vertices(self, params: Mapping[str, np.ndarray]) -> Tensor:
        """(N, V, 3) metres."""
        given = self.chart.parameters(self.state(params))
        with torch.no_grad():
            vertices: Tensor = self.body(**given).vertices
            return vertices


def write_study(study: Study, base: Base, out: Path) -> TrainConfig:
    """Write the study's annotation files into `out`; the configuration that reads them (no run's options)."""
    folder = out / study.name / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    joints = _joints(study, base)
    images = str(base.folder / "images" if (base.folder / "images").is_dir() else base.folder)
    # The skeleton's own joints are no data set's: by their names.
    named: dict[str, Any] = {} if study.joints == 24 else {"joint_set": study.joint_set.name}
    if study.condition == "2d":
        _write_keypoints(study, base, joints, folder)
        config = preset("tiny-mscoco-smpl" if study.who == "body" else "tiny-mscoco-mano")
        named["name"] = study.name
        return replace(config, data_set=("coco-format",), data=(str(folder),), images=(images,), **named)
    if study.who == "body":
        _write_bodies(study, base, joints, folder)
        config = replace(preset("tiny-human36m-smpl"), data_set=("mocap-format",), name=study.name, **named)
    else:
        _write_hands(study, base, joints, folder)
        config = preset("tiny-interhand-mano")
        images = str(base.samples.images)
    return replace(config, data=(str(folder),), images=(images,))


def _joints(study: Study, base: Base) -> np.ndarray:
    """(N, K, 3) metres of the base's rows in the world, for pictures in the camera's frame; NaN missing."""
    samples, camera = base.samples, base.samples.camera
    assert camera is not None
    poser = Poser(study)
    if samples.side is None:
        seen = poser.joints(base.params)
    else:
        left = samples.side == "left"
        mirrored = unflip_hands(base.params, samples.side)
        seen = poser.joints(mirrored) * np.where(left[:, None, None], [-1, 1, 1], 1)
    if study.condition == "2d":
        return seen.astype(np.float32)
    world = camera.camera_to_world(seen.astype(np.float32)).astype(np.float64)
    # All views of a frame, of a hand, have its joints and its noise.
    whole = samples.keys if samples.side is None else np.column_stack([samples.keys, samples.side == "left"])
    _, first, of = np.unique(whole, axis=0, return_index=True, return_inverse=True)
    found = world[first]
    rng = np.random.default_rng([study.seed, CONDITIONS.index(study.condition), study.joints])
    if study.condition == "noise":
        found = found + rng.normal(0, _NOISE[study.who], found.shape)
    if study.condition == "missing":
        gone = rng.random(found.shape[:2]) < MISSING
        gone[gone.all(axis=1)] = False
        found[gone] = np.nan
    return found[of.ravel()]


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def _numbers(points: np.ndarray) -> list[Any]:
    """(K, 3) metres -> lists of millimetres, null for what is missing."""
    return [None if np.isnan(p).any() else [round(float(v), 4) for v in 1000 * p] for p in points]


def _write_bodies(study: Study, base: Base, joints: np.ndarray, folder: Path) -> None:
    for subject in _there(base.folder):
        stem = f"Human36M_subject{subject}"
        source = base.folder / "annotations"
        content = json.loads((source / f"{stem}_data.json").read_text())
        names = list(study.joint_set.joints)
        content["categories"] = [{"id": 1, "name": "person", "keypoints": names}]
        for annotation in content["annotations"]:
            annotation["category_id"] = 1
        nested: dict[str, Any] = {}
        for row in np.flatnonzero(base.samples.keys[:, 0] == subject):
            _, action, subaction, frame = map(str, base.samples.keys[row])
            nested.setdefault(action, {}).setdefault(subaction, {})[frame] = _numbers(joints[row])
        _write(folder / f"subject{subject}_data.json", content)
        camera = (source / f"{stem}_camera.json").read_text()
        (folder / f"subject{subject}_camera.json").write_text(camera)
        _write(folder / f"subject{subject}_joint_3d.json", nested)


def _write_hands(study: Study, base: Base, joints: np.ndarray, folder: Path) -> None:
    source = next(base.folder.rglob("InterHand2.6M_train_data.json")).parent
    for name in ("data", "camera"):
        file = f"InterHand2.6M_train_{name}.json"
        (folder / file).write_text((source / file).read_text())
    content = json.loads((source / "InterHand2.6M_train_joint_3d.json").read_text())
    for row, (capture, frame) in enumerate(base.samples.keys.tolist()):
        assert base.samples.side is not None
        first = 21 if base.samples.side[row] == "left" else 0
        entry = content[str(capture)][str(frame)]
        for number, point in enumerate(joints[row]):
            is_there = bool(np.isfinite(point).all())
            entry["joint_valid"][first + number] = [is_there]
            if is_there:
                entry["world_coord"][first + number] = [round(float(v), 5) for v in 1000 * point]
    _write(folder / "InterHand2.6M_train_joint_3d.json", content)


def _write_keypoints(study: Study, base: Base, joints: np.ndarray, folder: Path) -> None:
    samples, camera = base.samples, base.samples.camera
    assert camera is not None
    pixels = camera.project(joints)
    paths, number = np.unique(samples.image_path, return_inverse=True)
    sizes = {int(n): samples.image_size[row] for row, n in enumerate(number)}
    images = [
        {"id": n + 1, "file_name": str(path), "width": int(sizes[n][0]), "height": int(sizes[n][1])}
        for n, path in enumerate(paths)
    ]
    annotations: list[dict[str, Any]] = []
    for row in range(len(samples)):
        points = np.column_stack([pixels[row], np.full(len(pixels[row]), 2.0)])
        annotation: dict[str, Any] = {
            "id": int(samples.ids[row]),
            "image_id": int(number[row]) + 1,
            "category_id": 1,
            "bbox": [round(float(v), 3) for v in samples.box_xywh[row]],
            "keypoints": [round(float(v), 4) for v in points.ravel()],
            "num_keypoints": len(points),
            "iscrowd": 0,
        }
        if samples.side is not None:  # both hands of an annotation: two annotations
            side = str(samples.side[row])
            annotation |= {"id": 2 * annotation["id"] + (side == "left"), "hand_type": side}
        annotations.append(annotation)
    names = list(study.joint_set.joints)
    categories = [{"id": 1, "name": study.who, "keypoints": names}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    _write(folder / "keypoints.json", content)
