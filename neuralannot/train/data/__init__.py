"""Readers of data sets to annotate: released layouts and the user's own -> `Samples`.

One module each; all give the same shape. A reader does not open images: `check_samples` does.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from neuralannot.joint_sets import JointSet
from neuralannot.train.data import (
    crowdpose,
    ffhq,
    freihand,
    human36m,
    instavariety,
    interhand26m,
    mpi_inf_3dhp,
    mpii,
    mscoco,
    own_coco,
    own_mocap,
    pw3d,
)
from neuralannot.train.data.pw3d import Truth, pw3d_truth
from neuralannot.train.data.request import Request, number_tuple
from neuralannot.train.samples import Samples

__all__ = ["DATA_SETS", "Truth", "options_of", "pw3d_truth", "read_samples", "request_for"]

_READERS = {
    reader.NAME: reader
    for reader in (
        human36m,
        mpi_inf_3dhp,
        pw3d,
        interhand26m,
        freihand,
        mscoco,
        mpii,
        crowdpose,
        ffhq,
        instavariety,
        own_coco,
        own_mocap,
    )
}
#: Data set -> the models that it can be read for.
DATA_SETS: dict[str, tuple[str, ...]] = {name: reader.MODELS for name, reader in _READERS.items()}


def read_samples(
    data_set: str,
    folder: str | os.PathLike[str],
    *,
    model: str,
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    annotations: str | os.PathLike[str] | None = None,
    cameras: str | os.PathLike[str] | None = None,
    joints: str | os.PathLike[str] | None = None,
    subjects: Sequence[int] | int | None = None,
    views: Sequence[int] | int | None = None,
    every: int = 1,
    min_joints: int = 1,
    joint_set: str | JointSet | None = None,
    name: str | None = None,
    body_models: str | os.PathLike[str] | None = None,
    cache: bool = True,
) -> Samples:
    """Read a data set in its released layout, or the user's own, as samples to annotate.

    data_set: one of `DATA_SETS`; `COCO-format` and `MoCap-format` are the user's own.
    folder: where its annotation files are, or in its `annotations`, `json`, `data`.
    model: `smpl`, `smplx`, `mano` or `flame`: decides whether rows are bodies, hands or faces.
    images: the image folder; found below `folder` if it is not given. Images are not opened.
    split: `train` (what is read without it), `val`, `validation`, `test`, as the data set calls them.
    annotations, cameras, joints: files under other names than the data set's. FreiHAND: `joints` is its
        `freihand_train_data.json`.
    subjects, views: MoCap, only these subjects and these camera numbers.
    every: MoCap, only frames whose number is a multiple: 5 is what training on Human3.6M uses, 3 on
        MPI-INF-3DHP, 64 and view 4 Human3.6M's tests.
    min_joints: rows with fewer valid joints are left out.
    joint_set: the user's own, what its keypoints are, where the file does not say.
    name: the user's own, what to call it.
    body_models: the folder of official model files; of use to 3DPW alone, whose true parameters they pose.
    cache: whether columns made from the files are kept beside them.

    What cannot be used is in `skipped`, each with its reason. Raises ValueError for an unknown data set, a
    model or option that it does not have, and for files that are not what they should be, with the file and
    the entry; FileNotFoundError for one that is not there.
    """
    request = request_for(
        data_set,
        folder,
        model=model,
        images=images,
        split=split,
        annotations=annotations,
        cameras=cameras,
        joints=joints,
        subjects=subjects,
        views=views,
        every=every,
        min_joints=min_joints,
        joint_set=joint_set,
        name=name,
        body_models=body_models,
        cache=cache,
    )
    samples: Samples = _READERS[request.data_set].read(request)
    return samples


def options_of(data_set: str) -> frozenset[str]:
    """The options of `read_samples` that a data set has, beside those that all have."""
    return frozenset(_READERS[_known_name(data_set)].TAKES)


def request_for(
    data_set: str,
    folder: str | os.PathLike[str],
    *,
    model: str,
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    annotations: str | os.PathLike[str] | None = None,
    cameras: str | os.PathLike[str] | None = None,
    joints: str | os.PathLike[str] | None = None,
    subjects: Sequence[int] | int | None = None,
    views: Sequence[int] | int | None = None,
    every: int = 1,
    min_joints: int = 1,
    joint_set: str | JointSet | None = None,
    name: str | None = None,
    body_models: str | os.PathLike[str] | None = None,
    cache: bool = True,
) -> Request:
    """The arguments of `read_samples`, checked. Raises as it does."""
    known = _known_name(data_set)
    models = DATA_SETS[known]
    if model not in models:
        raise ValueError(f"{known} can be read for {', '.join(models)}, got model={model!r}")
    for option, number in (("every", every), ("min_joints", min_joints)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{option} must be a whole number from 1, got {number!r}")
    folder = Path(folder)
    if folder.is_file() and annotations is None:
        folder, annotations = folder.parent, folder
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of {known}")
    given = {
        # A data set without splits is its own training set.
        "split": None if split == "train" else split,
        "annotations": annotations,
        "cameras": cameras,
        "joints": joints,
        "subjects": subjects,
        "views": views,
        "every": None if every == 1 else every,
        "joint_set": joint_set,
        "name": name,
    }
    takes = _READERS[known].TAKES
    for option, value in given.items():
        if value is not None and option not in takes:
            raise ValueError(f"{known} has no {option}; its options are {', '.join(sorted(takes))}")
    return Request(
        data_set=known,
        folder=folder,
        model=model,
        images=_path(images),
        split=split,
        annotations=_path(annotations),
        cameras=_path(cameras),
        joints=_path(joints),
        subjects=number_tuple("subjects", subjects),
        views=number_tuple("views", views),
        every=every,
        min_joints=min_joints,
        joint_set=joint_set,
        name=name,
        body_models=_path(body_models),
        cache=cache,
    )


def _path(value: str | os.PathLike[str] | None) -> Path | None:
    return None if value is None else Path(value)


def _known_name(data_set: str) -> str:
    """The data set's name as it spells it: capitals, dots and hyphens do not matter."""

    def plain(name: str) -> str:
        return "".join(c for c in name.lower() if c.isalnum())

    names = {plain(name): name for name in DATA_SETS}
    if plain(data_set) in names:
        return names[plain(data_set)]
    near = difflib.get_close_matches(plain(data_set), names, n=1)
    hint = f"did you mean {names[near[0]]!r}? " if near else ""
    raise ValueError(f"unknown data set {data_set!r}; {hint}expected one of {', '.join(DATA_SETS)}")
