"""What a configuration stands for: its samples, crops and targets; its network, body and joints."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from neuralannot.bodies import model_on
from neuralannot.body_models.model import BodyModel
from neuralannot.joint_sets import JointSet
from neuralannot.key_index import KeyIndex
from neuralannot.loading import load_pseudo_gt
from neuralannot.train.config import TrainConfig
from neuralannot.train.crop_cache import CropCache, build_crop_cache
from neuralannot.train.crops import IMAGE_MEAN, IMAGE_STD, Crops, crops_of
from neuralannot.train.data import options_of, read_samples
from neuralannot.train.distributed import World
from neuralannot.train.joint_points import JointPoints, joint_points
from neuralannot.train.losses import LossWeights
from neuralannot.train.network import CROP, FOCAL, Annotator, NetworkSpec
from neuralannot.train.priors import load_prior
from neuralannot.train.released import own_release
from neuralannot.train.resnet import load_backbone_weights
from neuralannot.train.samples import Samples
from neuralannot.train.targets import Targets, targets_of

# The joints by which a body's heading shows, of whichever a joint set has.
_TORSO = {
    "smpl": ("left_hip", "right_hip", "left_shoulder", "right_shoulder"),
    "smplx": ("left_hip", "right_hip", "left_shoulder", "right_shoulder"),
    "mano": tuple(f"right_{j}" for j in ("wrist", "index1", "middle1", "ring1", "pinky1")),
    "flame": (),
}


@dataclass(frozen=True, eq=False)
class TrainingData:
    """N crops of one or more data sets, one after another, and what they are trained towards.

    `samples`, `crops`, `caches`: of each data set (no caches where the network sees no image); `usable`: (N,)
    bool, rows that have a crop and a valid target; `unusable`: why the others have not, counted.
    """

    samples: tuple[Samples, ...]
    crops: tuple[Crops, ...]
    caches: tuple[CropCache, ...]
    targets: Targets
    usable: np.ndarray
    unusable: Mapping[str, int]

    @property
    def joint_sets(self) -> list[JointSet]:
        return [s.joint_set for s in self.samples]

    @property
    def joint_names(self) -> dict[str, list[str]]:
        """The joint sets in plain values, as a checkpoint has them."""
        return {s.name: list(s.joints) for s in self.joint_sets}

    @cached_property
    def digest(self) -> str:
        """What tells these samples and targets from others, wherever their files are."""
        digest = hashlib.blake2b(digest_size=16)
        for some, crops in zip(self.samples, self.crops, strict=True):
            for array in (some.ids, some.keys, crops.box_xywh, crops.flip):
                digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(self.usable.tobytes())
        targets = self.targets
        for value in (targets.joints_2d, targets.valid_2d, targets.joints_cam, targets.valid_cam):
            digest.update(value.numpy().tobytes())
        for name in sorted(targets.parameters):
            digest.update(targets.parameters[name].numpy().tobytes())
        return digest.hexdigest()

    def name_of(self, row: int) -> str:
        """What a row is, for messages: data set, annotation and image."""
        for some in self.samples:
            if row < len(some):
                side = "" if some.side is None else f", {some.side[row]} hand"
                return f"{some.data_set} annotation {some.ids[row]}{side} ({some.image_path[row]})"
            row -= len(some)
        raise IndexError(f"there is no row {row}")


def read_data(config: TrainConfig, crops: Path, world: World, *, progress: bool = False) -> TrainingData:
    """The samples of a configuration's data sets, with crops cached in the folder `crops`.

    The first process builds the crops, the others wait and map them. Raises ValueError where nothing can be
    used, saying why; and as the data readers, the crop cache and `load_pseudo_gt` do.
    """
    samples = tuple(_read(config, number) for number in range(len(config.data_set)))
    cut = tuple(crops_of(s, size=config.image_size, scale=config.crop_scale) for s in samples)
    caches: tuple[CropCache, ...] = ()
    if config.inputs != "joints":
        if world.is_first:
            caches = _caches(config, crops, samples, cut, progress=progress)
        world.barrier()
        if not world.is_first:
            caches = _caches(config, crops, samples, cut, progress=False)
    first_stage = [
        _first_stage(config, number, s, c) for number, (s, c) in enumerate(zip(samples, cut, strict=True))
    ]
    targets = targets_of(samples, cut, weak_2d=config.has_camera, first_stage=first_stage)
    reasons = {f"{r} (annotation)": 0 for s in samples for r in s.skipped_by_reason()}
    for some in samples:
        for reason, count in some.skipped_by_reason().items():
            reasons[f"{reason} (annotation)"] += count
    usable = np.concatenate([c.valid for c in cut])
    reasons["box without a crop"] = int((~usable).sum())
    if caches:
        readable = np.concatenate([c.usable for c in caches])
        reasons["image missing or unreadable"] = int((usable & ~readable).sum())
        usable &= readable
    weak = targets.valid_2d.any(1) if config.has_camera else torch.zeros(len(targets), dtype=torch.bool)
    aimed = (weak | targets.valid_cam.any(1) | targets.valid_parameters).numpy()
    reasons["no valid joint"] = int((usable & ~aimed).sum())
    usable &= aimed
    reasons = {reason: count for reason, count in reasons.items() if count}
    if not usable.any():
        listed = (
            ", ".join(f"{reason}: {count}" for reason, count in reasons.items()) or "no annotation at all"
        )
        raise ValueError(f"nothing to train on in {', '.join(config.data_set)}: {listed}")
    return TrainingData(samples, cut, caches, targets, usable, reasons)


def _read(config: TrainConfig, number: int) -> Samples:
    folder = config.of("data", number)
    if not folder:
        raise ValueError(
            f"where is {config.data_set[number]}? give data= (--data), the folder with its annotations"
        )
    name = config.data_set[number]
    # What is said of several data sets at once holds for those that have such a thing.
    takes = options_of(name) if len(config.data_set) > 1 else None
    some: dict[str, Any] = {
        "split": config.split or None,
        "subjects": config.subjects or None,
        "views": config.only_views or None,
        "every": config.every,
        "joint_set": config.joint_set or None,
        "cameras": config.of("cameras", number) or None,
        "joints": config.of("joints", number) or None,
        "name": config.name or None,
    }
    return read_samples(
        name,
        folder,
        model=config.model,
        images=config.of("images", number) or None,
        annotations=config.of("annotations", number) or None,
        min_joints=config.min_joints,
        body_models=config.body_models or None,
        **{option: value for option, value in some.items() if takes is None or option in takes},
    )


def _caches(
    config: TrainConfig, folder: Path, samples: Sequence[Samples], cut: Sequence[Crops], *, progress: bool
) -> tuple[CropCache, ...]:
    return tuple(
        build_crop_cache(
            folder / f"{number}-{some.data_set}-{config.model}",
            images=some.images,
            image_path=some.image_path,
            crops=crops,
            quality=config.crop_quality,
            workers=config.workers,
            progress=progress,
        )
        for number, (some, crops) in enumerate(zip(samples, cut, strict=True))
    )


def _first_stage(
    config: TrainConfig, number: int, samples: Samples, crops: Crops
) -> dict[str, np.ndarray] | None:
    """A first stage's parameters, in camera space, mirrored where the crop is; NaN without a fit."""
    path = config.of("pseudo_gt", number)
    if config.mode != "two-stage" or not path:
        return None
    gt = load_pseudo_gt(path, release=samples.release or own_release(config.model), annotations=False)
    if gt.model != config.model:
        raise ValueError(f"{path}: parameters of {gt.model}; the run is of {config.model}")
    entry = gt.catalogued
    keys = gt.ids[:, None] if entry.key_names == ("id",) else np.array(gt.keys, np.int64)
    wanted = samples.keys
    if samples.side is not None and gt.side is not None:
        keys = np.column_stack([keys, gt.side == "left"])
        wanted = np.column_stack([wanted, samples.side == "left"])
    rows = KeyIndex(keys.reshape(len(keys), wanted.shape[1])).first(wanted)
    there = rows >= 0
    values = {}
    for name in gt.params:
        if name == "transl":
            continue  # of a camera of its own
        given = gt.params[name]
        column = np.full((len(samples), *given.shape[1:]), np.nan, np.float32)
        column[there] = given[rows[there]]
        if name == "global_orient" and entry.space != "camera" and samples.camera is not None:
            turned = Rotation.from_matrix(samples.camera.R[there]) * Rotation.from_rotvec(column[there])
            column[there] = turned.as_rotvec()
        if name not in ("betas", "expression"):
            column[crops.flip] *= np.array([1, -1, -1], np.float32)
        values[name] = column
    return values


# --- the network


@dataclass(frozen=True, eq=False)
class Machinery:
    """The network of a run and what its losses take: body, joints, weights."""

    network: Annotator
    body: BodyModel
    points: JointPoints
    weights: LossWeights
    weak: frozenset[str]

    def rest_root(self, betas: Tensor, expression: Tensor | None = None) -> Tensor:
        """(B, 10) codes -> (B, 3) metres: the root joint at rest."""
        return self.body.rest_root(betas, expression)


def build_machinery(
    config: TrainConfig, joint_sets: Sequence[JointSet], device: torch.device, *, pretrained: bool = True
) -> Machinery:
    """The network of a configuration, its weights made from the seed (or `backbone_weights`), on a device.

    Raises ValueError and FileNotFoundError as the parts do: body models, regressors, priors, checkpoints.
    """
    side = "right" if config.model == "mano" else None
    body = model_on(config.model, config.body_models or None, "neutral", side, str(device))
    points = joint_points(body, joint_sets, _regressors(config)).to(device)
    prior = None
    if config.outputs == "latent":
        prior = load_prior(config.prior, config.model, body_models=config.body_models or None)
    spec = NetworkSpec(
        model=config.model,
        num_joints=sum(map(len, joint_sets)),
        backbone=config.backbone,
        inputs=config.inputs,
        outputs=config.outputs,
        camera=config.has_camera,
        latent=0 if prior is None else prior.latent,
        map_size=config.image_size // 4,
        canonical_joints=config.canonical_joints,
        joint_width=config.joint_width,
        head_width=config.head_width,
        head_layers=config.head_layers,
    )
    torso = _torso(config.model, joint_sets, points)
    with torch.no_grad():
        rest = points(betas=torch.zeros(1, 10, device=device))[0, torso.to(device)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = Annotator(spec, prior=prior, torso=torso, rest_torso=rest.cpu())
    if config.backbone_weights and pretrained:
        if network.backbone is None:
            raise ValueError("backbone_weights for a network that sees no image; leave them out")
        load_backbone_weights(network.backbone, config.backbone_weights)
    weights = LossWeights(
        **{name: getattr(config, f"{name}_weight") for name in LossWeights.__dataclass_fields__}
    )
    weak = {"mocap": {"joints_3d"}, "wild": {"joints_2d"}, "two-stage": {"joints_2d", "joints_3d"}}
    return Machinery(network.to(device), body, points, weights, frozenset(weak[config.mode]))


def surroundings(config: TrainConfig, network: Annotator, body: BodyModel) -> dict[str, Any]:
    """What a network's weights rely on, outside of it: kept in checkpoints, and checked."""
    prior = network.prior
    return {
        "prior": "" if prior is None else prior.fingerprint,
        "body model": hashlib.blake2b(body.v_template.cpu().numpy().tobytes(), digest_size=8).hexdigest(),
        "image_size": config.image_size,
        "crop_scale": config.crop_scale,
        "mean": list(IMAGE_MEAN),
        "std": list(IMAGE_STD),
        "focal": FOCAL,
        "crop": CROP,
    }


def _regressors(config: TrainConfig) -> dict[str, str]:
    given = {}
    for entry in config.joint_regressor:
        name, _, path = entry.partition("=")
        if not (name and path):
            raise ValueError(f"joint_regressor must be JOINT_SET=FILE.npy, got {entry!r}")
        given[name] = path
    return given


def _torso(model: str, joint_sets: Sequence[JointSet], points: JointPoints) -> Tensor:
    """(P,) places, among all sets' joints, of those by which the heading shows."""
    names = [name.replace("hand_root", "wrist") for s in joint_sets for name in s.joints]
    known = points.known.tolist()
    return torch.tensor(
        [at for at, name in enumerate(names) if name in _TORSO[model] and known[at]], dtype=torch.int64
    )
