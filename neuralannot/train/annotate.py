"""`annotate`: a trained annotator over a data set, and its annotations in the released layout.

The network's outputs on its training set are the pseudo ground truth (section 3.2). With GT 3D joints the
translation follows in closed form and fits of world-space releases are turned to the world; in the wild every
fit gets the camera of its crop, mapped back to the whole image.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from neuralannot.boxes import virtual_camera
from neuralannot.catalog import release_named
from neuralannot.metrics import mpjpe
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.store import open_table, write_table
from neuralannot.train.checkpoint import Checkpoint, load_checkpoint
from neuralannot.train.config import ANNOTATING, TrainConfig, config_with
from neuralannot.train.crops import Crops
from neuralannot.train.distributed import join_world
from neuralannot.train.feed import decoded
from neuralannot.train.fit import Precision, network_inputs
from neuralannot.train.network import project
from neuralannot.train.placing import camera_to_world, rest_roots, translation_from_joints, unflip_hands
from neuralannot.train.released import own_release, pseudo_gt_of, save_release
from neuralannot.train.run import Machinery, TrainingData, build_machinery, read_data, surroundings
from neuralannot.train.samples import Samples
from neuralannot.train.views import best_view, fuse_views, group_views

VIEWS = ("best", "fuse")
_CHUNK = 2048


@dataclass(frozen=True)
class AnnotateResult:
    """`files`: what was written; `count` fits of `samples` samples; `unusable`: why others have none;
    `error`: the fits' mean joint error, metres with GT 3D joints and pixels of 256 px crops in the wild."""

    files: tuple[Path, ...]
    count: int
    samples: int
    unusable: Mapping[str, int]
    error: float


def annotate(
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    *,
    views: str = "best",
    progress: bool = False,
    **changes: Any,
) -> AnnotateResult:
    """Annotate the data set that `checkpoint` was trained on, or another by `changes`, into the folder `out`.

    `views`: of a frame seen by several cameras, `best` keeps the view with the least joint error, as the
    release has one view a frame; `fuse` averages them (`fuse_views`). `changes`: fields of `TrainConfig` that
    may differ from the run's: `data_set`, `data`, `images`, `split`, `every`, `body_models`,
    `joint_regressor`, `crops`, `batch`, `device`, `workers`, `precision`. Started by `torchrun`, processes
    share the work; what is done is kept in `out`/parts and not done again, so a run that was killed goes on.

    Raises ValueError for a checkpoint of another kind of network than the data needs, naming what differs;
    and as `load_checkpoint`, the data readers and `PseudoGT.save` do.
    """
    if views not in VIEWS:
        raise ValueError(f"views must be one of {', '.join(VIEWS)}, got {views!r}")
    strange = sorted(set(changes) - set(ANNOTATING))
    if strange:
        raise ValueError(f"{strange[0]} is the checkpoint's; of a run may change {', '.join(ANNOTATING)}")
    found = load_checkpoint(checkpoint)
    config = config_with(found.config, changes)
    if len(config.data_set) != 1:
        raise ValueError(f"annotate one data set at a time: data_set={config.data_set[0]}, data=...")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    world = join_world(config.device)
    cache = Path(config.crops) if config.crops else Path(checkpoint).parent / "crops"
    data = read_data(replace(config, pseudo_gt=()), cache, world, progress=progress)
    _check(found, config, data)
    machinery = restored(found, config, data, world.device)
    stamp = _stamp(found, config, data)
    rows = np.flatnonzero(data.usable)
    chunks = [rows[first : first + _CHUNK] for first in range(0, len(rows), _CHUNK)]
    mine = range(world.rank, len(chunks), world.size)
    for number in tqdm(mine, unit="part", disable=not (progress and world.is_first)):
        path = out / "parts" / f"{number:05d}.safetensors"
        if not _is_done(path, stamp):
            made = _estimates(machinery, config, data, chunks[number])
            path.parent.mkdir(exist_ok=True)
            write_table(path, {"row": chunks[number], **made}, {"stamp": stamp})
    world.barrier()
    parts = [open_table(out / "parts" / f"{number:05d}.safetensors") for number in range(len(chunks))]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    error = columns.pop("error")
    gt, kept = _pseudo_gt(columns, error, config, data, machinery, views)
    files = save_release(gt, out) if world.is_first else []
    world.barrier()
    return AnnotateResult(tuple(files), len(gt), len(rows), data.unusable, float(np.nanmean(kept)))


def restored(
    checkpoint: Checkpoint, config: TrainConfig, data: TrainingData, device: torch.device
) -> Machinery:
    """The network of a checkpoint, ready to annotate."""
    machinery = build_machinery(config, data.joint_sets, device, pretrained=False)
    now, then = surroundings(config, machinery.network), checkpoint.surroundings
    other = [name for name in now if then.get(name) != now[name]]
    if other:
        raise ValueError(
            f"the checkpoint's network was trained with another {other[0]}: {then.get(other[0])!r} there, "
            f"{now[other[0]]!r} here"
        )
    machinery.network.load_state_dict(checkpoint.network)
    machinery.network.eval()
    return machinery


def _check(checkpoint: Checkpoint, config: TrainConfig, data: TrainingData) -> None:
    """That the network fits the data: its joints, and what images go through."""
    wanted = {s.name: list(s.joints) for s in data.joint_sets}
    if checkpoint.joint_sets != wanted and checkpoint.spec.sees_joints:
        raise ValueError(
            f"the checkpoint's network takes the joints of {', '.join(checkpoint.joint_sets)}; those of "
            f"{config.data_set[0]} are {', '.join(wanted)}: train one on this data set"
        )
    if checkpoint.spec.camera != config.has_camera:
        raise ValueError(f"the checkpoint is of another mode than {config.mode}")
    if not checkpoint.spec.camera and not data.samples[0].is_mocap:
        raise ValueError(
            f"the checkpoint was trained with GT 3D joints, which {config.data_set[0]} has not: without them "
            "nobody knows where a body is; train in mode wild"
        )


def _stamp(checkpoint: Checkpoint, config: TrainConfig, data: TrainingData) -> str:
    """What says that parts of an earlier run are of the same network and samples."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in checkpoint.network.items():
        digest.update(name.encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    samples, crops = data.samples[0], data.crops[0]
    for array in (samples.ids, samples.keys, crops.box_xywh, crops.flip, data.usable):
        digest.update(np.ascontiguousarray(array).tobytes())
    for tensor in (data.targets.joints_cam, data.targets.joints_2d):
        digest.update(tensor.numpy().tobytes())
    digest.update(repr((config.precision, config.body_models, config.joint_regressor)).encode())
    return digest.hexdigest()


def _is_done(path: Path, stamp: str) -> bool:
    try:
        return open_table(path).meta.get("stamp") == stamp
    except (FileNotFoundError, ValueError):
        return False


@torch.inference_mode()
def _estimates(
    machinery: Machinery, config: TrainConfig, data: TrainingData, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Parameters (M, ...) of these rows in their crops' cameras' frames; `transl`, `error` among them."""
    device = machinery.body.J_regressor.device
    precision = Precision.of(config.precision, device)
    found: list[dict[str, np.ndarray]] = []
    for first in range(0, len(rows), config.batch):
        some = rows[first : first + config.batch]
        images = decoded(data.caches, some).to(device) if data.caches else None
        targets = data.targets.rows(torch.from_numpy(some)).to(device)
        with precision.autocast():
            out = machinery.network(*network_inputs(images, targets, machinery))
        root = out.pop("root", None)
        out.pop("latent", None)
        posed = machinery.points(**out)
        known = machinery.points.known
        if root is not None:
            codes = {n: out[n] for n in ("betas", "expression") if n in out}
            transl = root - machinery.rest_root(**codes)
            seen = project(posed + transl[:, None])
            error = _mean_distance(seen, targets.joints_2d, targets.valid_2d & known)
        else:
            valid = (targets.valid_cam & known).cpu().numpy()
            wanted = targets.joints_cam.cpu().numpy()
            placed = translation_from_joints(posed.cpu().numpy(), wanted, valid)
            moved = posed.cpu().numpy() + placed[:, None]
            error = mpjpe(moved, wanted, valid=valid)
            transl = torch.from_numpy(placed)
        found.append(
            {n: v.float().cpu().numpy() for n, v in {**out, "transl": transl}.items()}
            | {"error": np.asarray(error, np.float32)}
        )
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def _mean_distance(seen: Tensor, wanted: Tensor, valid: Tensor) -> np.ndarray:
    """(B,) px; NaN where no joint is valid."""
    distance = (seen - wanted).norm(dim=2).masked_fill(~valid, 0)
    return (distance.sum(1) / valid.sum(1)).cpu().numpy()


def _pseudo_gt(
    columns: dict[str, np.ndarray],
    error: np.ndarray,
    config: TrainConfig,
    data: TrainingData,
    machinery: Machinery,
    views: str,
) -> tuple[PseudoGT, np.ndarray]:
    """The fits of all rows as a release's, and their errors."""
    rows = columns.pop("row")
    samples, crops = data.samples[0].rows(rows), data.crops[0].rows(rows)
    params = columns if samples.side is None else unflip_hands(columns, samples.side)
    entry = release_named(samples.release or own_release(config.model))
    space = _space_of(entry.space, samples)
    if space == "world":
        assert samples.camera is not None
        roots = rest_roots(config.model, params, side=samples.side, body_models=config.body_models or None)
        params = camera_to_world(params, samples.camera, roots)
    kept = np.arange(len(rows))
    if entry.key_names != ("id",):
        params, kept, error = _one_a_frame(params, error, samples, config, machinery, views)
    good = np.isfinite(params["transl"]).all(1)
    params = {name: value[good] for name, value in params.items()}
    kept, error = kept[good], error[good]
    given: dict[str, Any] = {"groups": samples.groups}
    if entry.camera == "leaf":
        given |= _cameras(samples.rows(kept), crops.rows(kept))
    if entry.space == "image":
        given["space"] = space
    if samples.side is not None:
        given["side"] = samples.side[kept]
    made = pseudo_gt_of(entry.name, params, keys=samples.keys[kept], **given)
    return made, error


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
    config: TrainConfig,
    machinery: Machinery,
    views: str,
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Of the fits of one frame, seen by several cameras, one: its parameters, a row of it, its error."""
    groups = group_views(samples.keys, samples.side)
    if views == "best":
        rows = best_view(groups, error)
        rows = rows[rows >= 0]
        return {name: value[rows] for name, value in params.items()}, rows, error[rows]
    assert samples.camera is not None
    assert samples.joints_cam is not None
    joints = samples.camera.camera_to_world(samples.joints_cam)

    def joints_of(given: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
        """Joints in the world; a left hand's by the mirrored right one, which is its mirror image."""
        mirrored = dict(given) if samples.side is None else unflip_hands(given, samples.side[rows])
        device = machinery.body.J_regressor.device
        with torch.inference_mode():
            posed = machinery.points(**{n: torch.tensor(v, device=device) for n, v in mirrored.items()})
        found = posed.cpu().numpy()
        if samples.side is not None:
            found[samples.side[rows] == "left", :, 0] *= -1
        return found

    joints = np.where(machinery.points.known.cpu().numpy()[:, None], joints, np.nan)
    fused = fuse_views(params, groups, error, joints_world=joints, joints_of=joints_of)
    there = fused.rows >= 0
    return {n: v[there] for n, v in fused.params.items()}, fused.rows[there], fused.error[there]
