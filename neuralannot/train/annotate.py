"""`annotate`: a trained annotator over a data set, and its annotations in the released layout.

The network's outputs on its training set are the pseudo ground truth (section 3.2). With GT 3D joints the
translation follows in closed form and fits of world-space releases are turned to the world; in the wild every
fit gets the camera of its crop, mapped back to the whole image.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from neuralannot.atomic import whole_file
from neuralannot.boxes import virtual_camera
from neuralannot.catalog import release_named
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.store import open_table, write_table
from neuralannot.train.checkpoint import Checkpoint, load_checkpoint
from neuralannot.train.config import ANNOTATING, TrainConfig, config_with
from neuralannot.train.crop_building import INDEX
from neuralannot.train.crops import Crops
from neuralannot.train.distributed import join_world
from neuralannot.train.estimates import estimates
from neuralannot.train.placing import camera_to_world, rest_roots, unflip_hands
from neuralannot.train.released import own_release, pseudo_gt_of, save_release
from neuralannot.train.run import Machinery, TrainingData, build_machinery, read_data, surroundings
from neuralannot.train.samples import Samples
from neuralannot.train.views import best_view, fuse_views, group_views

VIEWS = ("best", "fuse")
UNUSABLE = "unusable.csv"
_CHUNK = 2048
_SAYS_NOTHING = 1e3  # metres: any other view is better
# The fields that say which samples there are. Those of the first row are each data set's own.
_FILES = ("images", "annotations", "cameras", "joints")
_OF_DATA_SET = ("data", *_FILES, "name", "split", "subjects", "only_views", "every", "joint_set")
_OF_SAMPLES = (*_OF_DATA_SET, "data_set", "min_joints")


@dataclass(frozen=True)
class AnnotateResult:
    """`files`: what was written; `count` fits of `samples` usable samples; `unusable`: why others have none,
    counted (`listed`: the file that lists them); `error`: the fits' mean joint error, metres with GT 3D
    joints (`is_mocap`) and pixels of 256 px crops in the wild."""

    files: tuple[Path, ...]
    count: int
    samples: int
    unusable: Mapping[str, int]
    listed: Path
    error: float
    is_mocap: bool


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
    may differ from the run's: `ANNOTATING`. With another `data_set` those that belong to a data set start
    from their defaults, with other `data` the image folder and file names do. Crops of other samples than the
    run's are kept in `out`/crops, where `crops` names no folder.

    Started by `torchrun`, processes share the work; what is done is kept in `out`/parts and not done again,
    so a run that was killed goes on. Samples without a fit are listed in `out`/unusable.csv with the reason.
    Bodies of the user's own MoCap are written as Human3.6M's, other data of no release as `own_release` has
    it.

    Raises ValueError for a checkpoint of another kind of network than the data needs, naming what differs;
    and as `load_checkpoint`, the data readers and `PseudoGT.save` do.
    """
    if views not in VIEWS:
        raise ValueError(f"views must be one of {', '.join(VIEWS)}, got {views!r}")
    strange = sorted(set(changes) - set(ANNOTATING))
    if strange:
        raise ValueError(f"{strange[0]} is the checkpoint's; of a run may change {', '.join(ANNOTATING)}")
    found = load_checkpoint(checkpoint)
    config = _config(found.config, changes)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    world = join_world(config.device)
    is_other = _is_other(found.config, config)
    if is_other:  # before images are opened: with no image to see, none is
        looked_at = replace(config, mode="two-stage", inputs="joints")
        _check(found, config, read_data(looked_at, out, world))
    crops = out / "crops" if is_other else Path(checkpoint).parent / "crops"
    data = read_data(config, Path(config.crops) if config.crops else crops, world, progress=progress)
    machinery = restored(found, config, data, world.device)
    stamp = _stamp(found, config, data, machinery)
    rows = np.flatnonzero(data.usable)
    chunks = [rows[first : first + _CHUNK] for first in range(0, len(rows), _CHUNK)]
    todo = [n for n in range(world.rank, len(chunks), world.size) if not _is_done(_part(out, n), stamp)]
    _part(out, 0).parent.mkdir(exist_ok=True)
    made = estimates(machinery, config, data, [chunks[number] for number in todo])
    for number in tqdm(todo, unit="part", disable=not (progress and world.is_first)):
        write_table(_part(out, number), {"row": chunks[number], **next(made)}, {"stamp": stamp})
    world.barrier()
    parts = [open_table(_part(out, number)) for number in range(len(chunks))]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    error = columns.pop("error")
    lost = _unusable(data, rows[~np.isfinite(error)])
    gt, kept = _pseudo_gt(columns, error, config, data, machinery, views)
    files = []
    if world.is_first:
        files = save_release(gt, out, name=_own_name(data.samples[0], gt))
        _write_unusable(lost, out / UNUSABLE)
    world.barrier()
    counts = Counter(row["reason"] for row in lost)
    mean = float(np.mean(kept)) if len(kept) else float("nan")
    return AnnotateResult(
        files=tuple(files),
        count=len(gt),
        samples=len(rows),
        unusable=dict(counts),
        listed=out / UNUSABLE,
        error=mean,
        is_mocap=data.samples[0].is_mocap,
    )


def _config(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """The run's configuration with changes, for one data set."""
    asked = tuple(changes.get("data_set", config.data_set))
    if len(asked) != 1:
        raise ValueError(
            f"annotate one data set at a time, not {' and '.join(asked)}: data_set={asked[0]}, data=..."
        )
    kept: dict[str, Any] = {"data_set": asked, "pseudo_gt": ()}
    if asked[0] in config.data_set:
        number = config.data_set.index(asked[0])
        for name in ("data", *_FILES):
            value = config.of(name, number)
            kept[name] = (value,) if value else ()
    else:
        kept |= {f.name: f.default for f in fields(config) if f.name in _OF_DATA_SET}
    if tuple(changes.get("data", kept["data"])) != kept["data"]:
        kept |= dict.fromkeys(_FILES, ())
    made = config_with(replace(config, **kept), changes)
    # The run's crops are of its samples.
    return replace(made, crops="") if _is_other(config, made) and "crops" not in changes else made


def _is_other(config: TrainConfig, other: TrainConfig) -> bool:
    """Whether the samples are others than the run's."""
    return any(getattr(config, name) != getattr(other, name) for name in _OF_SAMPLES)


def restored(
    checkpoint: Checkpoint, config: TrainConfig, data: TrainingData, device: torch.device
) -> Machinery:
    """The network of a checkpoint, ready to annotate. Raises ValueError where it does not fit."""
    _check(checkpoint, config, data)
    machinery = build_machinery(config, data.joint_sets, device, pretrained=False)
    network = machinery.network
    now, then = surroundings(config, network, machinery.body), checkpoint.surroundings
    other = [name for name in now if then.get(name) != now[name]]
    if other:
        raise ValueError(
            f"the checkpoint's network was trained with another {other[0]}: {then.get(other[0])!r} there, "
            f"{now[other[0]]!r} here"
        )
    weights = dict(checkpoint.network)
    if checkpoint.joint_sets == data.joint_names:
        rest, here = weights["rest_torso"], network.rest_torso.cpu()
        if rest.shape != here.shape or not torch.allclose(rest, here, atol=1e-4):
            raise ValueError(
                "the checkpoint's network was trained with another body model or joint regressor; pass the "
                "body_models and joint_regressor of its run"
            )
    else:  # an image alone: the joints' buffers are of no use to it, and of another size
        weights |= {"torso": network.torso, "rest_torso": network.rest_torso}
    network.load_state_dict(weights)
    if config.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval()
    return machinery


def _check(checkpoint: Checkpoint, config: TrainConfig, data: TrainingData) -> None:
    """That the network fits the data: its joints, and what images go through."""
    if not checkpoint.spec.camera and not data.samples[0].is_mocap:
        raise ValueError(
            f"the checkpoint was trained with GT 3D joints, which {config.data_set[0]} has not: without them "
            "nobody knows where a body is; train in mode wild"
        )
    wanted = data.joint_names
    if checkpoint.joint_sets != wanted and checkpoint.spec.sees_joints:
        raise ValueError(
            f"the checkpoint's network takes the joints of {', '.join(checkpoint.joint_sets)}; those of "
            f"{config.data_set[0]} are {', '.join(wanted)}: train one on this data set"
        )


def _stamp(checkpoint: Checkpoint, config: TrainConfig, data: TrainingData, machinery: Machinery) -> str:
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
    for cache in data.caches:
        digest.update(open_table(cache.folder / INDEX)["crc32"].tobytes())
    # At rest, a body model and its joints show whose they are.
    body = machinery.body
    with torch.no_grad():
        at_rest = machinery.points(betas=torch.full((1, 10), 0.5, device=body.J_regressor.device))
    digest.update(at_rest.cpu().numpy().tobytes() + body.v_template.cpu().numpy().tobytes())
    digest.update(repr((config.precision, config.model)).encode())
    return digest.hexdigest()


def _part(out: Path, number: int) -> Path:
    return out / "parts" / f"{number:05d}.safetensors"


def _is_done(path: Path, stamp: str) -> bool:
    try:
        return open_table(path).meta.get("stamp") == stamp
    except (FileNotFoundError, ValueError):
        return False


def _pseudo_gt(
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
        given |= _cameras(samples.rows(kept), crops.rows(kept))
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


def _own_name(samples: Samples, gt: PseudoGT) -> str | None:
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


# --- what has no fit


def _unusable(data: TrainingData, placeless: np.ndarray) -> list[dict[str, Any]]:
    """The samples without a fit, one after another: annotation, side, image, reason and detail.

    `placeless`: row numbers of those that have no joint which the body has too.
    """
    samples, crops = data.samples[0], data.crops[0]
    reasons: dict[int, tuple[str, str]] = {int(row): ("no joint that the body has", "") for row in placeless}
    for row in np.flatnonzero(~data.usable).tolist():
        reasons[row] = ("no valid joint", "") if crops.valid[row] else ("box without a crop", "")
    for cache in data.caches:
        reasons |= {skip.row: (skip.reason, skip.detail) for skip in cache.skipped if crops.valid[skip.row]}
    listed = [
        {"annotation": skip.id, "side": "", "image": "", "reason": skip.reason, "detail": skip.detail}
        for skip in samples.skipped
    ]
    for row, (reason, detail) in sorted(reasons.items()):
        side = "" if samples.side is None else str(samples.side[row])
        image = str(samples.image_path[row])
        listed.append(
            {
                "annotation": int(samples.ids[row]),
                "side": side,
                "image": image,
                "reason": reason,
                "detail": detail,
            }
        )
    return listed


def _write_unusable(listed: Sequence[Mapping[str, Any]], path: Path) -> None:
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("annotation", "side", "image", "reason", "detail"))
        writer.writeheader()
        writer.writerows(listed)
