"""InstaVariety: `insta_train_db.pt`, a joblib file that is read without running what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neuralannot.annotations import load_annotations
from neuralannot.catalog import release_named
from neuralannot.store import cached_table
from neuralannot.train.data.in_the_wild import wild_samples
from neuralannot.train.data.named_joints import INSTA_VARIETY
from neuralannot.train.data.request import BODIES, Request
from neuralannot.train.samples import Samples

NAME, MODELS = "InstaVariety", BODIES
TAKES = frozenset({"split", "annotations"})
_JOINT_FIELDS = ("joints2D", "joints_2d", "keypoints", "kp_2d")


def read(request: Request) -> Samples:
    """People with a box; the 25 joints are detections, in pixels of the image."""
    release, split = release_named("instavariety-smpl"), request.split or "train"
    path = request.find(f"insta_{split}_db.pt", what="annotations", given=request.annotations)

    def columns() -> tuple[Mapping[str, np.ndarray], Mapping[str, str]]:
        known = dict(load_annotations(path, release, {}, cache=False).columns)
        known["ann/keypoints"] = _keypoints(path, len(known["ann/id"]))
        known["ann/crowd"] = np.zeros(len(known["ann/id"]), bool)
        return known, {}

    table = cached_table(path, columns, key=f"train-{NAME}", cache=request.cache)
    written = release.name if request.model == "smpl" and split == "train" else ""
    return wild_samples(request, table, table["ann/keypoints"], INSTA_VARIETY, release=written)


def _keypoints(path: Path, rows: int) -> np.ndarray:
    """(A, 25, 3) x, y px and confidence."""
    from neuralannot.safe_pickle import load_joblib

    content = load_joblib(path)
    field = next((f for f in _JOINT_FIELDS if f in content), None)
    if field is None:
        raise ValueError(
            f"{path}: no 2D joints: none of {', '.join(_JOINT_FIELDS)} among {', '.join(map(str, content))}"
        )
    points = np.asarray(content[field], np.float32)
    if points.shape != (rows, len(INSTA_VARIETY), 3):
        raise ValueError(
            f"{path}: {field!r} must be {(rows, len(INSTA_VARIETY), 3)}: x, y and confidence of "
            f"{INSTA_VARIETY.name}, got {points.shape}"
        )
    seen = points[points[..., 2] > 0][:, :2]
    if len(seen) and np.abs(seen).max() <= 2:
        raise ValueError(f"{path}: {field!r} is normalised to -1..1, not in pixels of the image")
    return points
