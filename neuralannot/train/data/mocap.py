"""What the readers of MoCap data sets share: rows with a box, a camera and 3D joints."""

from __future__ import annotations

import numpy as np

from neuralannot.cameras import Camera
from neuralannot.joint_sets import JointSet
from neuralannot.store import Table
from neuralannot.train.data.columns import paths_of
from neuralannot.train.data.frames import Frames, see_joints, wanted_frames
from neuralannot.train.data.request import Request
from neuralannot.train.data.sieve import Unusable, usable
from neuralannot.train.samples import Samples


def mocap_samples(
    request: Request,
    table: Table,
    cameras: dict[tuple[int, ...], Camera],
    joints: Table | dict[str, np.ndarray],
    joint_set: JointSet,
    *,
    release: str,
    groups: tuple[dict[str, str], ...] = (),
) -> Samples:
    """The annotations of a file as samples, those of the frames, views and subjects that are asked for."""
    rows = wanted_frames(
        table["ann/key"],
        table["ann/camera_key"],
        every=request.every,
        views=request.views,
        subjects=request.subjects,
    )
    keys, sizes = table["ann/key"][rows], table["ann/image_size"][rows]
    frames = see_joints(joints, cameras, keys, table["ann/camera_key"][rows], sizes)
    return frame_samples(request, table, rows, frames, joint_set, release=release, groups=groups)


def frame_samples(
    request: Request,
    table: Table,
    rows: np.ndarray,
    frames: Frames,
    joint_set: JointSet,
    *,
    release: str,
    groups: tuple[dict[str, str], ...] = (),
    gender: np.ndarray | None = None,
    person: np.ndarray | None = None,
) -> Samples:
    """The annotations at `rows` with their joints and cameras, as samples.

    `gender`, `person` (A,): of all annotations; where keys are a frame's, the first of them is the person.
    """
    keys = table["ann/key"][rows] if "ann/key" in table else table["ann/id"][rows][:, None]
    if person is None and keys.shape[1] > 1:
        person = table["ann/key"][:, 0]
    paths = paths_of(table, rows)
    samples = Samples(
        data_set=request.name or request.data_set,
        images=request.image_root(paths),
        image_path=paths,
        image_size=table["ann/image_size"][rows],
        box_xywh=table["ann/box"][rows],
        ids=table["ann/id"][rows],
        keys=keys,
        joint_set=joint_set,
        joints_2d=frames.joints_2d,
        joints_cam=frames.joints_cam,
        camera=frames.camera,
        side=None,
        gender=None if gender is None else gender[rows],
        person=None if person is None else person[rows].astype(np.int64),
        release=release,
        groups=groups,
    )
    crowd = Unusable(table["ann/crowd"][rows], "crowd")
    return usable(samples, min_joints=request.min_joints, known=[crowd, *frames.unusable])
