"""CrowdPose: `crowdpose_{split}.json`, 14 joints."""

from __future__ import annotations

from neuralannot.catalog import release_named
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.train.data.columns import keypoints_of, read_annotations
from neuralannot.train.data.in_the_wild import wild_samples
from neuralannot.train.data.request import BODIES, Request
from neuralannot.train.samples import Samples

NAME, MODELS = "CrowdPose", BODIES
TAKES = frozenset({"split", "annotations"})


def read(request: Request) -> Samples:
    """People with a box and at least one joint; its SMPL fits were released."""
    release, groups = release_named("crowdpose-smpl"), {"split": request.split or "train"}
    name = f"crowdpose_{groups['split']}.json"
    path = request.find(name, what="annotations", given=request.annotations)
    table = read_annotations(path, release, groups, cache=request.cache)
    points = keypoints_of(table, path, 14)
    written = release.name if request.model == "smpl" else ""
    return wild_samples(request, table, points, JOINT_SETS["crowdpose-14"], release=written, groups=(groups,))
