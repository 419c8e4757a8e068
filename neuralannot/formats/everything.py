"""All that rows say, as plain columns: what formats without a fixed set of fields are filled with."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from neuralannot.pseudo_gt import PseudoGT


def all_columns(
    gt: PseudoGT, *, space: str = "camera", body_models: str | os.PathLike[str] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Columns (N, ...) and what holds for all rows: `release`, `model`, `space`, `keypoint_set`, `parts`.

    `annotation_id`, `frame_key` (N, K), `side`, `gender`, `image_path`, `image_size` (N, 2), `box_xywh`
    (N, 4), `keypoints` (N, K, 3), `param_<name>`, `valid_<part>`, `focal`, `princpt` (N, 2), in world space
    `cam_R` (N, 3, 3) and `cam_t` (N, 3), `quality_<measure>`: those that there are. `space`: `camera` or
    `world`, as `PseudoGT.forward`. Raises ValueError as it does.
    """
    if space not in ("camera", "world"):
        raise ValueError(f"space must be 'camera' or 'world', got {space!r}")
    if gt.space == "camera" and space == "world":
        raise ValueError(f"{gt.release}: its fits are in the camera's space; use --space camera")
    columns: dict[str, np.ndarray] = {}
    if "id" in gt.view or gt.joined:
        columns["annotation_id"] = gt.ids
    if "key" in gt.view:
        columns["frame_key"] = gt.view.column("key")
    if gt.side is not None:
        columns["side"] = gt.side
    columns["gender"] = gt.gender
    if gt.joined:
        columns |= {"image_path": gt.image_path, "image_size": gt.image_size, **_boxes(gt)}
    points = gt.joints_2d
    if points is not None and gt.joints_2d_valid is not None:
        seen = gt.joints_2d_valid[..., None]
        columns["keypoints"] = np.concatenate([np.where(seen, points, 0), seen], -1).astype(np.float32)
    keypoint_set = gt.joint_set_2d
    quality = {f"quality_{name}": np.asarray(gt.quality[name]) for name in gt.quality}
    camera = gt.camera
    if space == "camera":
        gt = gt.to_camera_space(body_models)
        camera = gt.camera
    columns |= {f"param_{name}": gt.params[name] for name in gt.params}
    columns |= {f"valid_{part}": gt.valid[part] for part in gt.valid}
    if "valid/transl" in gt.view:
        columns["valid_transl"] = gt.view.column("valid/transl")
    if camera is not None:
        columns |= {"focal": camera.focal, "princpt": camera.princpt}
        if space == "world":
            columns |= {"cam_R": camera.R, "cam_t": camera.t}
    about = {
        "release": gt.release,
        "model": gt.model,
        "space": space,
        "keypoint_set": keypoint_set,
        "units": "metres, radians, pixels",
    }
    return columns | quality, about


def _boxes(gt: PseudoGT) -> dict[str, np.ndarray]:
    try:
        return {"box_xywh": gt.box_xywh}
    except (ValueError, FileNotFoundError):
        return {}  # annotations without boxes: nothing is lost
