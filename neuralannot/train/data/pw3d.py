"""3DPW: `3DPW_{split}.json`, which holds its true, gendered SMPL parameters in camera space."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralannot.cameras import Camera
from neuralannot.catalog import release_named
from neuralannot.key_index import KeyIndex
from neuralannot.parameters import GENDERS, HUMAN_MODELS
from neuralannot.store import Table
from neuralannot.train.data.columns import read_annotations
from neuralannot.train.data.frames import Frames
from neuralannot.train.data.mocap import frame_samples
from neuralannot.train.data.named_joints import SMPL_24
from neuralannot.train.data.request import BODIES, Request
from neuralannot.train.data.sieve import Unusable
from neuralannot.train.samples import Samples

NAME, MODELS = "3DPW", BODIES
TAKES = frozenset({"split", "annotations"})
_FIELDS = {"pose": 72, "shape": 10, "trans": 3}
_GENDERS = {**{g: i for i, g in enumerate(GENDERS)}, "m": GENDERS.index("male"), "f": GENDERS.index("female")}
_BATCH = 4096


@dataclass(frozen=True, eq=False)
class Truth:
    """3DPW's ground truth of N annotations, in camera space.

    `ids` (N,) int64; `parameters`: SMPL's by smplx's names, `global_orient` (N, 3), `body_pose` (N, 23, 3),
    `betas` (N, 10), `transl` (N, 3), float32, radians and metres; `gender` (N,) str, whose model they are of.
    """

    ids: np.ndarray
    parameters: dict[str, np.ndarray]
    gender: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def joints(self, *, body_models: str | os.PathLike[str] | None = None) -> np.ndarray:
        """(N, 24, 3) metres in camera space: SMPL's joints of each row's own gender.

        Without official files the open body poses them, which has shape codes of its own.
        """
        import torch

        from neuralannot.body_models import load_body_model

        joints = np.full((len(self), len(SMPL_24), 3), np.nan, np.float32)
        for gender in np.unique(self.gender).tolist():
            model = load_body_model("smpl", folder=body_models, gender=gender)
            rows = np.flatnonzero(self.gender == gender)
            for first in range(0, len(rows), _BATCH):
                batch = rows[first : first + _BATCH]
                values = {name: torch.tensor(value[batch]) for name, value in self.parameters.items()}
                with torch.no_grad():
                    joints[batch] = model.skeleton(**values).numpy()
        return joints


def pw3d_truth(
    folder: str | os.PathLike[str],
    *,
    split: str = "test",
    annotations: str | os.PathLike[str] | None = None,
    ids: Sequence[int] | np.ndarray | None = None,
    cache: bool = True,
) -> Truth:
    """The true parameters of `3DPW_{split}.json`: what the paper's MPVPE on 3DPW compares with.

    `ids`: annotation ids, in the order wanted; without them all annotations that have parameters. Raises
    FileNotFoundError, and ValueError for a file that is not such a one or an id without parameters.
    """
    from neuralannot.train.data import request_for

    request = request_for(NAME, folder, model="smpl", split=split, annotations=annotations, cache=cache)
    table, _ = _table(request)
    rows = np.flatnonzero(table["train/has_truth"])
    if ids is not None:
        wanted = np.asarray(ids, np.int64).reshape(-1, 1)
        found = KeyIndex(table["ann/id"][rows][:, None]).first(wanted)
        if (found < 0).any():
            lost = int(wanted[found < 0][0, 0])
            raise ValueError(f"{NAME} {split}: annotation {lost} is not there or has no 'smpl_param'")
        rows = rows[found]
    return _truth(table, rows)


def read(request: Request) -> Samples:
    """Joints are the 24 of SMPL, posed with the true parameters by the model of the annotation's gender.

    Annotations with a `person_id` know whose body they are, within their sequence.
    """
    table, groups = _table(request)
    there = table["train/has_truth"]
    joints = np.full((len(there), len(SMPL_24), 3), np.nan, np.float32)
    if there.any():
        truth = _truth(table, np.flatnonzero(there))
        joints[there] = truth.joints(body_models=request.body_models)
    fields = [np.array(table[f"ann/{name}"]) for name in ("focal", "princpt", "R", "t", "image_size")]
    camera = Camera(*fields)
    lost = Unusable(~there, "no truth", lambda row: "no 'smpl_param'")
    frames = Frames(joints, camera.project(joints), camera, (lost,))
    rows = np.arange(len(there))
    release = "3dpw-smplx" if request.model == "smplx" else ""
    person = table["train/person"]
    return frame_samples(
        request,
        table,
        rows,
        frames,
        SMPL_24,
        release=release,
        groups=(groups,),
        gender=np.array(GENDERS)[table["train/gender"]],
        person=person if (person >= 0).any() else None,
    )


def _table(request: Request) -> tuple[Table, dict[str, str]]:
    groups = {"split": request.split or "train"}
    name = f"3DPW_{groups['split']}.json"
    path = request.find(name, what="annotations", given=request.annotations)
    release = release_named("3dpw-smplx")
    return read_annotations(path, release, groups, extra=_parameters, cache=request.cache), groups


def _parameters(name: str, content: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
    annotations = content["annotations"]
    columns = {f"train/{f}": np.full((len(annotations), w), np.nan, np.float32) for f, w in _FIELDS.items()}
    there = np.zeros(len(annotations), bool)
    gender = np.zeros(len(annotations), np.int64)
    for row, annotation in enumerate(annotations):
        entry = annotation.get("smpl_param")
        if entry is None:
            continue
        try:
            for field, width in _FIELDS.items():
                columns[f"train/{field}"][row] = np.asarray(entry[field], np.float32).reshape(width)
            gender[row] = _GENDERS[str(entry["gender"]).lower()]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{name}: annotation {annotation['id']}: 'smpl_param' must hold pose (72), shape (10), "
                f"trans (3) and gender, one of {', '.join(GENDERS)}: {error!r}"
            ) from None
        there[row] = all(np.isfinite(columns[f"train/{f}"][row]).all() for f in _FIELDS)
    person = _persons(content)
    return {**columns, "train/gender": gender, "train/person": person, "train/has_truth": there}


def _persons(content: Mapping[str, Any]) -> np.ndarray:
    """(A,) int64: a number for each `person_id` of each sequence, in which alone it is the same person; -1
    where there is none."""
    sequences = {image["id"]: image["sequence"] for image in content["images"]}
    numbers: dict[tuple[str, str], int] = {}
    found = []
    for annotation in content["annotations"]:
        who = annotation.get("person_id")
        key = (str(sequences[annotation["image_id"]]), str(who))
        found.append(-1 if who is None else numbers.setdefault(key, len(numbers)))
    return np.array(found, np.int64)


def _truth(table: Table, rows: np.ndarray) -> Truth:
    model = HUMAN_MODELS["smpl"]
    parameters = {}
    for field in model.fields:
        values = table[f"train/{field.name}"][rows]
        first = 0
        for name in field.parameters:
            width = model.width(name)
            parameters[name] = values[:, first : first + width].reshape(-1, *model.shapes[name])
            first += width
    return Truth(table["ann/id"][rows], parameters, np.array(GENDERS)[table["train/gender"][rows]])
