"""What a training run is: one frozen dataclass, presets of the paper's runs, and their command line."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from neuralannot.parameters import HUMAN_MODELS

__all__ = ["PRESETS", "TrainConfig", "config_from_dict", "config_with", "preset"]

MODES = ("mocap", "wild", "two-stage")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")
INPUTS = ("image", "joints", "image+joints")
OUTPUTS = ("rotation6d", "latent")


def _about(default: Any, text: str) -> Any:
    """A field with its line of help."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """A training run. The defaults are the paper's (section 5.1) where it says them.

    Fields that list several values belong to several data sets, in the same order; one value stands for all.
    Raises ValueError for values that do not go together.
    """

    model: str = _about("smpl", "human model: smpl, smplx, mano or flame")
    mode: str = _about("mocap", "mocap (GT 3D joints), wild (GT 2D joints) or two-stage")

    data_set: tuple[str, ...] = _about(("human36m",), "data set(s); an unknown name lists them")
    data: tuple[str, ...] = _about((), "folder(s) with the annotation files")
    images: tuple[str, ...] = _about((), "image folder(s) (default: the data folder)")
    annotations: tuple[str, ...] = _about((), "annotation file(s), where they have other names")
    cameras: tuple[str, ...] = _about((), "camera file(s), where they have other names")
    joints: tuple[str, ...] = _about((), "GT joint file(s), where they have other names")
    name: str = _about("", "the user's own data: what to call it")
    split: str = _about("", "split of data sets that have several (default: train)")
    subjects: tuple[int, ...] = _about((), "MoCap: only these subjects")
    only_views: tuple[int, ...] = _about((), "MoCap: only these camera numbers")
    every: int = _about(1, "MoCap: every how many-th frame (Human3.6M: 5)")
    min_joints: int = _about(1, "leave out samples with fewer valid joints")
    joint_set: str = _about("", "the user's own data: its joint set, where the file does not say")
    joint_regressor: tuple[str, ...] = _about((), "JOINT_SET=FILE.npy for official body models")
    pseudo_gt: tuple[str, ...] = _about((), "two-stage: the first stage's annotation file of each data set")
    body_models: str = _about("", "folder of official body model files (default: as the library's)")

    image_size: int = _about(256, "side of a crop, px")
    crop_scale: float = _about(1.25, "side of a crop over that of the box")
    crop_quality: int = _about(95, "JPEG quality of the crop cache")
    crops: str = _about("", "folder of the crop cache (default: crops/ in the output folder)")

    backbone: str = _about("resnet50", "resnet18, resnet34, resnet50 or resnet101")
    backbone_weights: str = _about("", "torchvision checkpoint to start the backbone from, ImageNet's say")
    inputs: str = _about("image+joints", "image, joints or image+joints")
    outputs: str = _about("rotation6d", "rotation6d or latent")
    prior: str = _about("open", "for latent outputs: open, vposer:PATH, or mano-pca:N")
    canonical_joints: bool = _about(True, "3D joints enter as seen from the torso")
    joint_width: int = _about(512, "numbers made of the 3D joints")
    head_width: int = _about(1024, "width of hidden layers before the last")
    head_layers: int = _about(0, "how many of them; the paper has none")

    joints_3d_weight: float = _about(1.0, "of the 3D joints' L1, metres")
    joints_2d_weight: float = _about(1.0, "of the 2D joints' L1, as a share of the crop's side")
    pose_weight: float = _about(2e-3, "of the pose's mean square, radians")
    latent_weight: float = _about(1e-3, "of the pose latent's mean square")
    jaw_weight: float = _about(1e-3, "of the jaw's mean square, radians")
    betas_weight: float = _about(5e-4, "of the shape code's mean square")
    expression_weight: float = _about(5e-4, "of the expression code's mean square")
    parameters_weight: float = _about(1.0, "two-stage: of the first stage's parameters")
    joint_dropout: float = _about(0.0, "share of input joints hidden at random; the loss counts them all")

    lr: float = _about(1e-4, "Adam's learning rate at first")
    lr_drops: int = _about(1, "how often it is divided by 10 when the loss has converged")
    lr_drop_steps: tuple[int, ...] = _about((), "steps at which it is so in any case, of these times")
    patience: int = _about(3, "windows without gain after which the loss has converged")
    window: int = _about(500, "steps of a window at least; an epoch where that is longer")
    gain: float = _about(0.01, "what counts as gain: this share of the least loss so far")
    max_steps: int = _about(0, "stop after this many steps (0: when converged)")
    batch: int = _about(192, "samples of a step, all processes together")
    clip: float = _about(1.0, "largest norm of the gradient (0: no clipping)")
    precision: str = _about("auto", "auto (bf16 where the GPU has it), fp32, bf16 or fp16")
    channels_last: bool = _about(True, "convolutions with the channels innermost")
    compile: bool = _about(False, "torch.compile the network")
    device: str = _about("", "where to compute (default: a GPU where there is one)")
    workers: int = _about(4, "processes that decode crops")
    seed: int = _about(0, "of weights, order and hidden joints")
    checkpoint_every: int = _about(1000, "steps between checkpoints")
    log_every: int = _about(20, "steps between lines of the log")
    tensorboard: bool = _about(False, "write TensorBoard events too")

    def __post_init__(self) -> None:
        choices = {
            "model": tuple(HUMAN_MODELS),
            "mode": MODES,
            "precision": PRECISIONS,
            "backbone": BACKBONES,
            "inputs": INPUTS,
            "outputs": OUTPUTS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        positive = ("every", "image_size", "crop_scale", "batch", "lr", "patience", "window", "log_every")
        for name in (
            *positive,
            "checkpoint_every",
            "min_joints",
            "joint_width",
            "head_width",
            "crop_quality",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        least = ("clip", "head_layers", "lr_drops", "max_steps", "gain", "workers")
        for entry in fields(self):
            if (entry.name.endswith("_weight") or entry.name in least) and getattr(self, entry.name) < 0:
                raise ValueError(f"{entry.name} must not be negative, got {getattr(self, entry.name)}")
        if not 0 <= self.joint_dropout < 1:
            raise ValueError(f"joint_dropout must be from 0 to below 1, got {self.joint_dropout}")
        if not self.data_set:
            raise ValueError("data_set must name one data set at least")
        if self.mode != "two-stage" and len(self.data_set) > 1:
            raise ValueError(f"mode {self.mode} takes one data set; two-stage takes several")
        for name in ("data", "images", "annotations", "cameras", "joints", "pseudo_gt"):
            if len(getattr(self, name)) not in (0, 1, len(self.data_set)):
                raise ValueError(
                    f"{name} must be one, or one for each of {', '.join(self.data_set)}, got "
                    f"{len(getattr(self, name))}"
                )

    @property
    def has_camera(self) -> bool:
        """Whether a translation is predicted: wherever there are 2D targets."""
        return self.mode != "mocap"

    def of(self, name: str, number: int) -> str:
        """The value of a field for one of the data sets, "" where there is none."""
        values = getattr(self, name)
        if not values:
            return ""
        value: str = values[number] if len(values) == len(self.data_set) else values[0]
        return value

    def as_dict(self) -> dict[str, Any]:
        """Plain values: numbers, texts and lists."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}


# Weights hold for the losses' units: hands are a tenth of a body's size.
_MOCAP = TrainConfig()
_MOCAP_HAND = replace(_MOCAP, model="mano", pose_weight=3e-4, betas_weight=5e-5)
_WILD = replace(_MOCAP, mode="wild", inputs="image", outputs="latent")
_WILD_HAND = replace(_WILD, model="mano", prior="mano-pca:30")
_WILD_FACE = replace(_WILD, model="flame", outputs="rotation6d")
# On a CPU, in minutes: small crops and backbone, a wide head and a bold learning rate, which take to a small
# set most quickly.
_TINY = {
    "backbone": "resnet18",
    "image_size": 64,
    "batch": 32,
    "lr": 1e-3,
    "head_layers": 1,
    "head_width": 1024,
    "window": 200,
    "patience": 1,
    "lr_drops": 2,
    "workers": 1,
    "precision": "fp32",
    "checkpoint_every": 200,
}

_PRESETS = {
    "human36m-smpl": replace(_MOCAP, every=5),
    "human36m-smplx": replace(_MOCAP, model="smplx", every=5),
    "mpi-inf-3dhp-smpl": replace(_MOCAP, data_set=("mpi-inf-3dhp",), every=3),
    "mpi-inf-3dhp-smplx": replace(_MOCAP, model="smplx", data_set=("mpi-inf-3dhp",), every=3),
    "3dpw-smplx": replace(_MOCAP, model="smplx", data_set=("3dpw",)),
    "interhand-mano": replace(_MOCAP_HAND, data_set=("interhand26m",)),
    "freihand-mano": replace(_MOCAP_HAND, data_set=("freihand",)),
    "mscoco-smpl": replace(_WILD, data_set=("mscoco",)),
    "mscoco-smplx-body": replace(_WILD, model="smplx", data_set=("mscoco",)),
    "mscoco-mano": replace(_WILD_HAND, data_set=("mscoco",)),
    "mscoco-flame": replace(_WILD_FACE, data_set=("mscoco",)),
    "mpii-smpl": replace(_WILD, data_set=("mpii",)),
    "mpii-smplx-body": replace(_WILD, model="smplx", data_set=("mpii",)),
    "crowdpose-smpl": replace(_WILD, data_set=("crowdpose",)),
    "instavariety-smpl": replace(_WILD, data_set=("instavariety",)),
    "ffhq-flame": replace(_WILD_FACE, data_set=("ffhq",)),
}
_PRESETS |= {
    f"tiny-{name}": replace(_PRESETS[name], every=1, **_TINY)  # type: ignore[arg-type]
    for name in (
        *("human36m-smpl", "human36m-smplx", "interhand-mano"),
        *("mscoco-smpl", "mscoco-smplx-body", "mscoco-mano", "mscoco-flame", "ffhq-flame"),
    )
}

#: The fields that may differ between a run and the annotating with its checkpoint.
ANNOTATING = (
    *("data_set", "data", "images", "annotations", "cameras", "joints", "name", "split", "subjects"),
    *("only_views", "every", "min_joints", "joint_set", "body_models", "joint_regressor", "crops", "batch"),
    *("device", "workers", "precision"),
)

#: The runs that have a name.
PRESETS: Mapping[str, TrainConfig] = MappingProxyType(_PRESETS)


def preset(name: str, /, **changes: Any) -> TrainConfig:
    """The preset called `name` with some fields changed.

    Raises ValueError for an unknown preset, an unknown field (naming the nearest), or values that do not fit.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}{_nearest(name, PRESETS)}; presets: {', '.join(PRESETS)}")
    return config_with(PRESETS[name], changes)


def config_with(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """The configuration with some fields changed; lists may stand for tuples. See `preset`."""
    kinds = field_types()
    for name, value in changes.items():
        if name not in kinds:
            raise ValueError(f"unknown field {name!r}{_nearest(name, kinds)}")
        _check_type(name, value, kinds[name])
    values = {n: tuple(v) if isinstance(v, list) else v for n, v in changes.items()}
    return replace(config, **values)  # type: ignore[arg-type]


def config_from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration that `as_dict` gave; raises as `config_with`."""
    return config_with(TrainConfig(), values)


def field_types() -> dict[str, Any]:
    """Field -> int, float, str, bool, tuple[str, ...] or tuple[int, ...]."""
    return typing.get_type_hints(TrainConfig)


def _check_type(name: str, value: Any, kind: Any) -> None:
    if isinstance(kind, types.GenericAlias):
        item = typing.get_args(kind)[0]
        fits = isinstance(value, (list, tuple)) and all(type(v) is item for v in value)
        kind_name = "a list of texts" if item is str else "a list of whole numbers"
    elif kind is float:
        fits, kind_name = isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
    else:
        fits, kind_name = (
            type(value) is kind,
            {int: "a whole number", bool: "true or false"}.get(kind, "a text"),
        )
    if not fits:
        raise ValueError(f"{name} must be {kind_name}, got {value!r}")


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
