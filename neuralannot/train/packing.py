"""`packed`: the fits of a data set's rows as a release's annotations: one a frame, in its space, with its
cameras and its hands' own sides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from neuralannot.boxes import virtual_camera
from neuralannot.catalog import release_named
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.config import TrainConfig
from neuralannot.train.crops import Crops
from neuralannot.train.placing import camera_to_world, rest_roots, unflip_hands
from neuralannot.train.released import own_release, pseudo_gt_of
from neuralannot.train.run import Machinery, TrainingData
from neuralannot.train.samples import Samples
from neuralannot.train.views import best_view, fuse_views, group_views

_CHUNK = 2048
_SAYS_NOTHING = 1e3  # metres: any other view is better


def packed(
    columns: dict[str, np.ndarray],
    error: np.ndarray,
    config: TrainConfig,
    data: TrainingData,
    machinery: Machinery,
    views: str,
) -> tuple[PseudoGT, np.ndarray]:
    """The fits of all rows as a release's, and their errors."""
    good = np.isfinite(error)
    columns, error = {name: value[good] for name, value in columns.items()}, error[good]
    rows = columns.pop("row")
    cameras = {name: columns.pop(name) for name in ("focal", "princpt") if name in columns}
    samples, crops = data.samples[0].rows(rows), data.crops[0].rows(rows)
    params = columns if samples.side is None else unflip_hands(columns, samples.side)
    entry = release_named(_release_of(config.model, samples))
    space = _space_of(entry.space, samples)
    if space == "world":
        assert samples.camera is not None
        roots = rest_roots(config.model, params, side=samples.side, body_models=config.body_models or None)
        params = camera_to_world(params, samples.camera, roots)
    kept, by_id = np.arange(len(rows)), entry.key_names == ("id",)
    if not by_id:
        params, kept, error = _one_a_frame(params, error, samples, machinery, views)
    given: dict[str, Any] = {"groups": samples.groups}
    if entry.camera == "leaf":
        given |= {n: v[kept] for n, v in (cameras or _cameras(samples, crops)).items()}
    if entry.space == "image":
        given["space"] = space
    if samples.side is not None:
        given["side"] = samples.side[kept]
    keys = samples.ids[:, None] if by_id else samples.keys
    return pseudo_gt_of(entry.name, params, keys=keys[kept], **given), error


def _release_of(model: str, samples: Samples) -> str:
    """The release whose layout the fits take."""
    if samples.release:
        return samples.release
    # The user's own MoCap comes in Human3.6M's layout, by frames that several cameras see.
    is_frames = samples.is_mocap and samples.keys.shape[1] == 4 and samples.side is None
    return f"human36m-{model}" if is_frames and model in ("smpl", "smplx") else own_release(model)


def own_name(samples: Samples, gt: PseudoGT) -> str | None:
    """The file's name where the data set is of no release; None for the release's own."""
    if samples.release or gt.catalogued.data_set == "Human3.6M":
        return None
    data_set = re.sub(r"[^\w.-]+", "_", samples.data_set)
    return f"{data_set}_{gt.model.upper()}_NeuralAnnot.json"


def _space_of(space: str, samples: Samples) -> str:
    if space != "image" or samples.camera is None:
        return space
    moved = (
        not np.array_equal(samples.camera.R, np.broadcast_to(np.eye(3), samples.camera.R.shape))
        or (samples.camera.t != 0).any()
    )
    return "world" if moved else "camera"


def _cameras(samples: Samples, crops: Crops) -> dict[str, np.ndarray]:
    """The leaf's camera: the real one where there is one, in the wild the crop's on the whole image."""
    if samples.camera is not None:
        return {"focal": samples.camera.focal, "princpt": samples.camera.princpt}
    focal, princpt = virtual_camera(crops.box_xywh)
    return {"focal": focal, "princpt": princpt}


def _one_a_frame(
    params: dict[str, np.ndarray],
    error: np.ndarray,
    samples: Samples,
    machinery: Machinery,
    views: str,
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Of the fits of one frame, seen by several cameras, one: its parameters, a row of it, its error."""
    groups = group_views(samples.keys, samples.side)
    known = machinery.points.known.cpu().numpy()
    judged = _judged(error, (samples.valid & known).sum(1), len(known))
    if views == "best":
        rows = best_view(groups, judged)
        rows = rows[rows >= 0]
        return {name: value[rows] for name, value in params.items()}, rows, error[rows]
    assert samples.camera is not None
    assert samples.joints_cam is not None
    joints = samples.camera.camera_to_world(samples.joints_cam)

    def joints_of(given: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Joints in the world; a left hand's by the mirrored right one, which is its mirror image."""
        mirrored = dict(given) if samples.side is None else unflip_hands(given, samples.side[rows])
        device = machinery.body.J_regressor.device
        found = np.zeros((len(rows), len(machinery.points), 3), np.float32)
        for first in range(0, len(rows), _CHUNK):
            some = slice(first, first + _CHUNK)
            with torch.inference_mode():
                posed = machinery.points(
                    **{n: torch.tensor(v[some], device=device) for n, v in mirrored.items()}
                )
            found[some] = posed.cpu().numpy()
        if samples.side is not None:
            found[samples.side[rows] == "left", :, 0] *= -1
        return found

    joints = np.where(known[:, None], joints, np.nan)
    fused = fuse_views(params, groups, judged, joints_world=joints, joints_of=joints_of)
    there = fused.rows >= 0
    return {n: v[there] for n, v in fused.params.items()}, fused.rows[there], fused.error[there]


def _judged(error: np.ndarray, count: np.ndarray, joints: int) -> np.ndarray:
    """Errors by which views are compared: the fewer joints, the better a placed body can seem to fit.

    `count` (N,): the joints that each error is the mean of; with a single one it says nothing.
    """
    fair = error * np.sqrt(joints / np.maximum(count - 1, 1))
    return np.where(count > 1, fair, np.where(np.isfinite(error), _SAYS_NOTHING, error))
