"""MPII: `train.json` in COCO format, 16 joints."""

from __future__ import annotations

from neuralannot.catalog import release_named
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.train.data.columns import keypoints_of, read_annotations
from neuralannot.train.data.in_the_wild import wild_samples
from neuralannot.train.data.request import BODIES, Request
from neuralannot.train.samples import Samples

NAME, MODELS = "MPII", BODIES
TAKES = frozenset({"split", "annotations"})


def read(request: Request) -> Samples:
    """People with a box and at least one joint."""
    release = release_named(f"mpii-{request.model}")
    split = request.split or "train"
    path = request.find(f"{split}.json", what="annotations", given=request.annotations)
    table = read_annotations(path, release, {"split": split}, cache=request.cache)
    points = keypoints_of(table, path, 16)
    written = release.name if split == "train" else ""
    return wild_samples(request, table, points, JOINT_SETS["mpii-16"], release=written)
