"""Checkpoints: everything that a run is, in one file that is there whole or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuralannot.atomic import whole_file
from neuralannot.train.config import TrainConfig, config_from_dict
from neuralannot.train.network import NetworkSpec

_FORMAT = "neuralannot-checkpoint"
_VERSION = 2


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a run is made of.

    `network`, `optimiser`: state dicts; `step`: steps done; `config`, `spec`: the run's, its network's;
    `surroundings`: what the weights rely on outside the network (image steps, prior), plain values;
    `joint_sets`: name -> joint names, in the order of the network's joints; `progress`: the plateau's state
    and the random state, plain values and tensors.
    """

    network: dict[str, Tensor]
    optimiser: dict[str, Any]
    step: int
    config: TrainConfig
    spec: NetworkSpec
    surroundings: dict[str, Any]
    joint_sets: dict[str, list[str]]
    progress: dict[str, Any]


def save_checkpoint(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Write it, in place of the file that was there. Raises OSError on a full disk; the old one stays."""
    path = Path(path)
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "network": checkpoint.network,
        "optimiser": checkpoint.optimiser,
        "step": checkpoint.step,
        "config": checkpoint.config.as_dict(),
        "spec": checkpoint.spec.as_dict(),
        "surroundings": checkpoint.surroundings,
        "joint_sets": checkpoint.joint_sets,
        "progress": checkpoint.progress,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole_file(path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())  # a machine that goes down must not leave a name without content
    except RuntimeError as error:  # torch's writer does not say OSError
        raise OSError(
            f"{path}: the checkpoint could not be written: {str(error).splitlines()[0]:.120}"
        ) from None


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read it; no code in the file can run. Raises FileNotFoundError; ValueError for any other file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; all mean that this is no checkpoint of ours
        raise ValueError(f"{path}: not a checkpoint: {str(error).splitlines()[0]:.160}") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{path}: not a checkpoint of `neuralannot train`")
    if content["version"] != _VERSION:
        raise ValueError(f"{path}: written as version {content['version']}; expected {_VERSION}")
    try:
        return Checkpoint(
            content["network"],
            content["optimiser"],
            content["step"],
            config_from_dict(content["config"]),
            NetworkSpec(**content["spec"]),
            content["surroundings"],
            content["joint_sets"],
            content["progress"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: a checkpoint of another version of the program: {error}") from None
