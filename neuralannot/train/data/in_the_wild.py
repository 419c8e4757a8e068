"""What the readers of in-the-wild data sets share: rows with a box and 2D joints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuralannot.joint_sets import JointSet
from neuralannot.store import Table
from neuralannot.train.data.columns import joints_of_keypoints, paths_of
from neuralannot.train.data.request import Request
from neuralannot.train.data.sieve import Unusable, usable
from neuralannot.train.samples import Samples


def wild_samples(
    request: Request,
    table: Table,
    keypoints: np.ndarray,
    joint_set: JointSet,
    *,
    release: str = "",
    groups: tuple[dict[str, str], ...] = (),
    boxes: str = "ann/box",
    side: np.ndarray | None = None,
) -> Samples:
    """The annotations of a file as samples: `keypoints` (A, K, 3) x, y px and visibility, `side` (A,)."""
    rows = np.arange(len(table["ann/id"]))
    return _samples(request, table, rows, keypoints, table[boxes], joint_set, side, release, groups)


def wild_hands(
    request: Request,
    table: Table,
    keypoints: Sequence[np.ndarray],
    boxes: Sequence[np.ndarray],
    joint_set: JointSet,
    *,
    release: str = "",
    groups: tuple[dict[str, str], ...] = (),
) -> Samples:
    """The hands of annotations, right before left: two (A, 21, 3) keypoints and (A, 4) boxes."""
    count = len(table["ann/id"])
    rows, side = np.repeat(np.arange(count), 2), np.tile(np.array(["right", "left"]), count)
    joined = np.stack(keypoints, 1).reshape(-1, *keypoints[0].shape[1:])
    both = np.stack(boxes, 1).reshape(-1, 4)
    return _samples(request, table, rows, joined, both, joint_set, side, release, groups)


def _samples(
    request: Request,
    table: Table,
    rows: np.ndarray,
    keypoints: np.ndarray,
    boxes: np.ndarray,
    joint_set: JointSet,
    side: np.ndarray | None,
    release: str,
    groups: tuple[dict[str, str], ...],
) -> Samples:
    ids, paths, crowd = table["ann/id"][rows], paths_of(table), table["ann/crowd"][rows]
    samples = Samples(
        data_set=request.name or request.data_set,
        images=request.image_root(paths),
        image_path=paths[rows],
        image_size=table["ann/image_size"][rows],
        box_xywh=boxes.astype(np.float32),
        ids=ids,
        keys=ids[:, None],
        joint_set=joint_set,
        joints_2d=joints_of_keypoints(keypoints),
        joints_cam=None,
        camera=None,
        side=side,
        release=release,
        groups=groups,
    )
    return usable(samples, min_joints=request.min_joints, known=[Unusable(crowd, "crowd")])
