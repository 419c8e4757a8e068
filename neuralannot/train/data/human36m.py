"""Human3.6M: `Human36M_subject{S}_data.json`, `_camera.json` and `_joint_3d.json`, a trio each subject."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuralannot.cameras import read_cameras
from neuralannot.catalog import release_named
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.store import Table
from neuralannot.train.data.columns import read_annotations
from neuralannot.train.data.frames import world_joints
from neuralannot.train.data.mocap import mocap_samples
from neuralannot.train.data.request import BODIES, Request
from neuralannot.train.samples import Samples, concatenate

NAME, MODELS = "Human3.6M", BODIES
TAKES = frozenset({"split", "subjects", "views", "every", "annotations", "cameras", "joints"})
_SUBJECTS = {"train": (1, 5, 6, 7, 8), "test": (9, 11)}


def read(request: Request) -> Samples:
    """Subjects 1, 5, 6, 7, 8 of the train split, 9 and 11 of the test split, those that are in the folder."""
    release = release_named(f"human36m-{request.model}")
    parts = []
    for subject in _subjects(request):
        groups = {"subject": str(subject)}
        stem = f"Human36M_subject{subject}"
        data = request.find(f"{stem}_data.json", what="annotations", given=request.annotations)
        camera = request.find(f"{stem}_camera.json", what="cameras", given=request.cameras)
        joints = request.find(f"{stem}_joint_3d.json", what="joints", given=request.joints)
        table = read_annotations(data, release, groups, cache=request.cache)
        check_subject(data, table, subject)
        part = mocap_samples(
            request,
            table,
            read_cameras(camera, NAME, subject),
            world_joints(joints, NAME, subject, cache=request.cache),
            JOINT_SETS["human36m-17"],
            release=release.name,
            groups=(groups,),
        )
        parts.append(part)
    return concatenate(parts)


def _subjects(request: Request) -> tuple[int, ...]:
    given = (request.annotations, request.cameras, request.joints)
    if any(given) and len(request.subjects or ()) != 1:
        raise ValueError(f"{NAME}: annotations=, cameras=, joints= are one subject's; say whose in subjects=")
    if request.subjects is not None:
        return request.subjects
    split = request.split or "train"
    if split not in _SUBJECTS:
        raise ValueError(f"{NAME} has no split {split!r}; expected {' or '.join(_SUBJECTS)}, or subjects=")
    there = [s for s in _SUBJECTS[split] if request.has(f"Human36M_subject{s}_data.json")]
    return tuple(there) or _SUBJECTS[split][:1]  # none: the error names the first


def check_subject(path: Path, table: Table, subject: int) -> None:
    """Raise ValueError where a file holds another subject's images."""
    others = np.unique(table["ann/key"][:, 0])
    if (others != subject).any():
        raise ValueError(f"{path}: images of subjects {others.tolist()}; expected those of {subject} alone")
