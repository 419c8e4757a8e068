"""FFHQ: `FFHQ.json`, faces with 68 landmarks."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuralannot.catalog import release_named
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.train.data.columns import keypoints_of, read_annotations
from neuralannot.train.data.in_the_wild import wild_samples
from neuralannot.train.data.request import Request
from neuralannot.train.samples import Samples

NAME, MODELS = "FFHQ", ("flame",)
TAKES = frozenset({"annotations"})
# The released file has FLAME's order: 5 joints of the skeleton, 51 landmarks, then the contour's 17.
_FLAME_COUNT, _FACE_COUNT = 73, 68
_FACE_OF_FLAME = np.r_[56:73, 5:56]


def read(request: Request) -> Samples:
    """Keypoints are x, y pairs with `keypoints_valid` beside them, or x, y, visibility; 73 or 68 of them."""
    release = release_named("ffhq-flame")
    path = request.find("FFHQ.json", what="annotations", given=request.annotations)
    table = read_annotations(path, release, {}, prepare=_as_triples, cache=request.cache)
    points = keypoints_of(table, path, (_FACE_COUNT, _FLAME_COUNT))
    if points.shape[1] == _FLAME_COUNT:
        points = points[:, _FACE_OF_FLAME]
    return wild_samples(request, table, points, JOINT_SETS["coco-wholebody-face-68"], release=release.name)


def _as_triples(name: str, content: dict[str, Any]) -> None:
    """x, y pairs and their flags -> COCO's x, y, visibility."""
    for annotation in content["annotations"]:
        values, flags = annotation.get("keypoints"), annotation.get("keypoints_valid")
        if values is None or flags is None:
            continue
        seen = np.ravel(np.asarray(flags, float))
        points = np.ravel(np.asarray(values, float))
        if len(points) == 3 * len(seen):
            points = points.reshape(-1, 3)[:, :2]
        elif len(points) != 2 * len(seen):
            raise ValueError(
                f"{name}: annotation {annotation.get('id')}: {len(points)} numbers in 'keypoints' for "
                f"{len(seen)} in 'keypoints_valid'; expected two or three a landmark"
            )
        annotation["keypoints"] = np.column_stack([points.reshape(-1, 2), seen > 0])
