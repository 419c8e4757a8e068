"""`annotate`: a trained annotator over a data set, and its annotations in the released layout.

The network's outputs on its training set are the paper's pseudo ground truth (section 3.2); here they are
refined by default, since a few damped steps on the same joints make them better. With GT 3D joints the
translation follows in closed form and fits of world-space releases are turned to the world; in the wild every
fit gets the camera of its crop, mapped back to the whole image.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralannot.atomic import whole_file
from neuralannot.store import open_table
from neuralannot.train.checkpoint import Checkpoint, load_checkpoint
from neuralannot.train.config import ANNOTATING, PRESETS, TrainConfig, config_with
from neuralannot.train.crop_building import INDEX
from neuralannot.train.distributed import World, join_world
from neuralannot.train.method_options import WITHOUT_NETWORK, MethodOptions, check_options
from neuralannot.train.methods import answers
from neuralannot.train.packing import own_name, packed
from neuralannot.train.parts import Parts
from neuralannot.train.released import save_release
from neuralannot.train.run import Machinery, TrainingData, build_machinery, read_data, surroundings

__all__ = ["VIEWS", "AnnotateResult", "annotate"]

VIEWS = ("best", "fuse")
UNUSABLE = "unusable.csv"
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


@dataclass(frozen=True, eq=False)
class _Annotator:
    """What a run annotates, and with what; `stamp`: tells its parts from another run's."""

    config: TrainConfig
    data: TrainingData
    machinery: Machinery
    stamp: str


def annotate(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    method: str = "refined",
    options: MethodOptions | None = None,
    views: str = "best",
    progress: bool = False,
    **changes: Any,
) -> AnnotateResult:
    """Annotate the data set that `checkpoint` was trained on, or another by `changes`, into the folder `out`.

    `method`: one of `METHODS`; for `fitted` and `smplify` a preset's name does in place of a checkpoint.
    `options`: those of the methods. `views`: of a frame seen by several cameras,
    `best` keeps the view with the least joint error, as the release has one view a frame; `fuse` averages
    them (`fuse_views`). `changes`: fields of `TrainConfig` that may differ from the run's: `ANNOTATING`. With
    another `data_set` those that belong to a data set start from their defaults, with other `data` the image
    folder and file names do. Crops of other samples than the run's are kept in `out`/crops, where `crops`
    names no folder.

    Started by `torchrun`, processes share the work; what is done is kept in `out`/parts and the
    methods' own `out`/parts-X and not done again, so a run that was killed goes on. Samples without a
    fit are listed in `out`/unusable.csv with the reason. Bodies of the user's own MoCap are written as
    Human3.6M's, other data of no release as `own_release` has it.

    Raises ValueError for options that the method has no use of, for a checkpoint of another kind of network
    than the data needs, naming what differs; and as `load_checkpoint`, the data readers and `PseudoGT.save`
    do.
    """
    if views not in VIEWS:
        raise ValueError(f"views must be one of {', '.join(VIEWS)}, got {views!r}")
    options = options or MethodOptions()
    check_options(method, options)
    strange = sorted(set(changes) - set(ANNOTATING))
    if strange:
        raise ValueError(f"{strange[0]} is the checkpoint's; of a run may change {', '.join(ANNOTATING)}")
    out = Path(out)
    if method in WITHOUT_NETWORK:
        run, world = _without_network(checkpoint, out, changes)
    else:
        run, world = _with_network(checkpoint, out, changes, progress=progress)
    config, data, machinery = run.config, run.data, run.machinery
    rows = np.flatnonzero(data.usable)
    parts = Parts(rows, world, run.stamp, progress)
    columns = answers(method, options, config, data, machinery, parts, out)
    error = columns.pop("error")
    lost = _unusable(data, rows[~np.isfinite(error)])
    gt, kept = packed({"row": rows, **columns}, error, config, data, machinery, views)
    files = []
    if world.is_first:
        files = save_release(gt, out, name=own_name(data.samples[0], gt))
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


def _with_network(
    checkpoint: str | os.PathLike[str], out: Path, changes: Mapping[str, Any], *, progress: bool
) -> tuple[_Annotator, World]:
    found = load_checkpoint(checkpoint)
    config = _config(found.config, changes)
    out.mkdir(parents=True, exist_ok=True)
    world = join_world(config.device)
    is_other = _is_other(found.config, config)
    if is_other:  # before images are opened: with no image to see, none is
        looked_at = replace(config, mode="two-stage", inputs="joints")
        _check(found, config, read_data(looked_at, out, world))
    crops = out / "crops" if is_other else Path(checkpoint).parent / "crops"
    data = read_data(config, Path(config.crops) if config.crops else crops, world, progress=progress)
    machinery = restored(found, config, data, world.device)
    return _Annotator(config, data, machinery, _stamp(found.network, config, data, machinery)), world


def _without_network(
    source: str | os.PathLike[str], out: Path, changes: Mapping[str, Any]
) -> tuple[_Annotator, World]:
    """By a preset's name or a checkpoint: what is annotated counts, no image is opened."""
    named = str(source) in PRESETS and not Path(source).is_file()
    base = PRESETS[str(source)] if named else load_checkpoint(source).config
    config = replace(config_with(base, changes) if named else _config(base, changes), inputs="joints")
    # A network of no use, as small as can be.
    config = replace(config, outputs="rotation6d", head_layers=0, joint_width=1)
    out.mkdir(parents=True, exist_ok=True)
    world = join_world(config.device)
    data = read_data(config, out / "crops", world)
    machinery = build_machinery(config, data.joint_sets, world.device, pretrained=False)
    return _Annotator(config, data, machinery, _stamp({}, config, data, machinery)), world


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


def _stamp(
    network: Mapping[str, Tensor], config: TrainConfig, data: TrainingData, machinery: Machinery
) -> str:
    """What says that parts of an earlier run are of the same network and samples."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in network.items():
        digest.update(name.encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    samples, crops = data.samples[0], data.crops[0]
    for array in (samples.ids, samples.keys, crops.box_xywh, crops.image_size, crops.flip, data.usable):
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
