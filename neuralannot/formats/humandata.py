"""MMHuman3D's HumanData npz.

Its parameters and `meta` are dicts inside the npz, which numpy can only write as pickles: that is the format,
and its own reader asks for `allow_pickle`. They hold plain arrays and lists, nothing that runs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.exports import write_npz
from neuralannot.formats.hmr import npz_path
from neuralannot.formats.keypoint_orders import HUMANDATA_COUNT, places, reordered
from neuralannot.formats.pictured import body_valid, camera_joints, keypoints_of, pictured, require_model
from neuralannot.pseudo_gt import PseudoGT

__all__ = ["write_humandata"]

_LETTERS = {"male": "m", "female": "f", "neutral": "n"}


def write_humandata(
    gt: PseudoGT,
    path: str | os.PathLike[str],
    *,
    body_models: str | os.PathLike[str] | None = None,
    drop_incomplete: bool = False,
) -> Path:
    """Write SMPL or SMPL-X annotations as a HumanData file of MMHuman3D; returns the path.

    `image_path` N texts, `bbox_xywh` (N, 5) px and confidence 1, `smpl` (`body_pose` (N, 23, 3),
    `global_orient` (N, 3), `betas` (N, 10), `transl` (N, 3)) or `smplx` with SMPL-X's, hands about the mean
    hand, and the validity of hands and face; `has_smpl` or `has_smplx` (N,). `keypoints2d` (N, M, 3) px and 1
    or 0, `keypoints3d` (N, M, 4) metres about the pelvis where the data set has them, both compressed by
    their `_mask` (190,) in the convention `human_data`. `meta`: `gender` (`m`, `f`, `n`), `focal_length`,
    `principal_point`, `height`, `width`, `annotation_id`. Parameters are in camera space.

    Raises ValueError for hands and faces alone, and for rows without image or box (see `drop_incomplete`).
    """
    require_model(gt, ("smpl", "smplx"), "HumanData")
    rows, boxes = pictured(gt, "HumanData", body_models=body_models, drop_incomplete=drop_incomplete)
    camera, size = rows.require_camera(), rows.image_size
    params: dict[str, Any] = {name: np.array(rows.params[name]) for name in rows.params}
    if rows.model == "smplx":
        params |= {f"{part}_valid": np.array(rows.valid[part]) for part in rows.valid if part != "body"}
    meta = {
        "gender": [_LETTERS[g] for g in rows.gender.tolist()],
        "focal_length": camera.focal.tolist(),
        "principal_point": camera.princpt.tolist(),
        "height": size[:, 1].tolist(),
        "width": size[:, 0].tolist(),
        "annotation_id": rows.ids.tolist(),
    }
    box = np.concatenate([boxes, np.ones((len(rows), 1), np.float32)], axis=1)
    arrays: dict[str, Any] = {
        "__key_strict__": np.array(False),
        "__temporal_len__": np.array(len(rows)),
        "__keypoints_compressed__": np.array(True),
        "image_path": np.array(rows.image_path.tolist(), str),
        "bbox_xywh": box,
        rows.model: _pickled(params),
        f"has_{rows.model}": body_valid(rows).astype(np.uint8),
        "meta": _pickled(meta),
        "config": np.array(f"neuralannot_{rows.release}"),
    }
    points, valid, joint_set = keypoints_of(rows)
    if joint_set is not None:
        arrays |= _keypoints("keypoints2d", points, valid, joint_set)
    solid = camera_joints(rows)
    if solid is not None:
        arrays |= _keypoints("keypoints3d", *solid)
    return write_npz(npz_path(path), arrays)


def _keypoints(name: str, points: np.ndarray, valid: np.ndarray, joint_set: str) -> dict[str, np.ndarray]:
    """Only the places that the data set's joints are in, and the mask that says which those are."""
    mask = np.zeros(HUMANDATA_COUNT, np.uint8)
    mask[places("humandata", joint_set)[1]] = 1
    full = reordered(points, valid, "humandata", joint_set, HUMANDATA_COUNT)
    return {
        name: full[:, mask == 1],
        f"{name}_mask": mask,
        f"{name}_convention": np.array("human_data"),
    }


def _pickled(value: dict[str, Any]) -> np.ndarray:
    out = np.empty((), object)
    out[()] = value
    return out
