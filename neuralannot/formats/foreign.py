"""Other people's fits as annotations: ids found by image and box, crops' cameras, columns in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from neuralannot.annotations import load_annotations
from neuralannot.catalog import release_named
from neuralannot.columns import Part, RowView, TableStack, bytes_to_texts
from neuralannot.companions import Companions
from neuralannot.parameters import human_model
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.store import Table

#: The crop that SPIN and EFT see: its side in px, its focal length in px.
CROP, FOCAL = 224.0, 5000.0
_PIXELS = 200.0  # of a `scale` of 1


def crop_camera(center: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Crops' `center` (N, 2) px and `scale` (N,) -> focal lengths and principal points (N, 2), image px."""
    focal = FOCAL / CROP * _PIXELS * np.asarray(scale, np.float64)
    return np.tile(focal[:, None], (1, 2)).astype(np.float32), np.asarray(center, np.float32)


def in_memory(
    release: str,
    params: Mapping[str, np.ndarray],
    *,
    ids: np.ndarray,
    focal: np.ndarray,
    princpt: np.ndarray,
) -> PseudoGT:
    """Neutral SMPL fits as rows of a release that is keyed by annotation id, not joined with annotations."""
    entry = release_named(release)
    if entry.model != "smpl" or entry.key_names != ("id",) or entry.space != "camera":
        raise ValueError(
            f"{release}: these are SMPL fits of single images; give mscoco-smpl, mpii-smpl, crowdpose-smpl "
            "or instavariety-smpl as release"
        )
    count = len(ids)
    columns: dict[str, np.ndarray] = {
        "id": np.asarray(ids, np.int64),
        "gender": np.zeros(count, np.uint8),
        "focal": np.asarray(focal, np.float32),
        "princpt": np.asarray(princpt, np.float32),
        "valid/body": np.ones(count, bool),
    }
    for name, shape in human_model("smpl").shapes.items():
        columns[f"param/{name}"] = np.asarray(params[name], np.float32).reshape(count, *shape)
    for values in columns.values():
        values.flags.writeable = False
    stack = TableStack((Table(columns),), "param/betas")
    companions = Companions((), (), entry.annotations, entry.cameras, entry.joints)
    return PseudoGT(RowView(count, (Part(stack),)), release, space="camera", companions=companions)


def find_annotations(
    names: np.ndarray, centers: np.ndarray, annotations: Any, release: str, *, within: float
) -> np.ndarray:
    """(N,) int64 annotation ids of crops, -1 where there is none.

    `names` (N,) image files, of which the base name counts, COCO 2014's without its prefix; `centers` (N, 2)
    px. A crop and an annotation belong together where each is the nearest to the other in its image and the
    box's centre is no farther than `within` times the box's longer side.
    """
    table = load_annotations(annotations, release_named(release), {})
    ids, box = table["ann/id"], np.asarray(table["ann/box"], np.float64)
    middle, side = box[:, :2] + box[:, 2:] / 2, box[:, 2:].max(axis=1, initial=0)
    by_image: dict[str, list[int]] = {}
    for row, path in enumerate(bytes_to_texts(table["ann/image_path"]).tolist()):
        by_image.setdefault(image_name(path), []).append(row)
    crops: dict[str, list[int]] = {}
    for row, name in enumerate(np.asarray(names).tolist()):
        crops.setdefault(image_name(str(name)), []).append(row)
    found = np.full(len(names), -1, np.int64)
    for name, mine in crops.items():
        theirs = np.array(by_image.get(name, ()), np.int64)
        theirs = theirs[np.isfinite(middle[theirs]).all(axis=1)]
        if not len(theirs):
            continue
        rows = np.array(mine)
        gap = np.linalg.norm(np.asarray(centers, np.float64)[rows][:, None] - middle[theirs], axis=-1)
        nearest = gap.argmin(axis=1)
        mutual = gap.argmin(axis=0)[nearest] == np.arange(len(rows))
        close = gap[np.arange(len(rows)), nearest] <= within * side[theirs[nearest]]
        hit = mutual & close
        found[rows[hit]] = ids[theirs[nearest[hit]]]
    return found


def image_name(path: str) -> str:
    """The base name that COCO's 2014 and 2017 releases have in common."""
    name = PurePosixPath(path).name
    for prefix in ("COCO_train2014_", "COCO_val2014_"):
        name = name.removeprefix(prefix)
    return name
