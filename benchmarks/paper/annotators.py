"""The annotators that the tables compare: each takes a prepared study and answers for the same samples."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.paper.measures import Measured, measure
from benchmarks.paper.studies import Base, Study, true_params, write_study
from neuralannot.train.annotate import restored
from neuralannot.train.checkpoint import load_checkpoint
from neuralannot.train.config import TrainConfig
from neuralannot.train.distributed import World
from neuralannot.train.eft import exemplar_estimates
from neuralannot.train.estimates import estimates
from neuralannot.train.fit import fit
from neuralannot.train.fitting.gaussians import PoseGaussians, isotropic
from neuralannot.train.method_options import EftOptions, RefineOptions, SmplifyOptions
from neuralannot.train.optimisation import Optimisation, lower_error
from neuralannot.train.refinement import prepare_refinement
from neuralannot.train.run import Machinery, TrainingData, build_machinery, read_data

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Size:
    """`images` of a studio; `samples` that are measured; `steps`: of a network that sees joints alone, and of
    one that sees images; `seeds`."""

    images: int
    samples: int
    joint_steps: int
    image_steps: int
    seeds: tuple[int, ...]


SIZES: Mapping[str, Size] = {
    "tiny": Size(images=56, samples=16, joint_steps=30, image_steps=10, seeds=(0,)),
    "small": Size(images=2000, samples=200, joint_steps=4000, image_steps=1200, seeds=(0, 1, 2)),
    "full": Size(images=20000, samples=2000, joint_steps=20000, image_steps=20000, seeds=(0, 1, 2)),
}


@dataclass(frozen=True, eq=False)
class Setup:
    """A study that is written and read: what every annotator of it starts from."""

    study: Study
    base: Base
    out: Path
    size: Size
    device: torch.device
    config: TrainConfig

    @cached_property
    def data(self) -> TrainingData:
        """Without images."""
        return self._read(self.joints_config)

    @property
    def joints_config(self) -> TrainConfig:
        """A configuration that opens no image."""
        return replace(self.config, inputs="joints", outputs="rotation6d", joint_width=1, head_layers=0)

    def _read(self, config: TrainConfig) -> TrainingData:
        crops = self.out / f"crops-{self.study.who}-{self.study.condition == '2d'}-seed{self.study.seed}"
        return read_data(config, crops, World(0, 1, self.device))

    @cached_property
    def machinery(self) -> Machinery:
        return build_machinery(self.joints_config, self.data.joint_sets, self.device, pretrained=False)

    @cached_property
    def rows(self) -> np.ndarray:
        """All usable rows."""
        return np.flatnonzero(self.data.usable)

    @cached_property
    def judged(self) -> np.ndarray:
        """Places in `rows` of the samples that are measured, evenly spread."""
        count = min(self.size.samples, len(self.rows))
        return np.linspace(0, len(self.rows) - 1, count).round().astype(int)

    @cached_property
    def valid(self) -> np.ndarray:
        """(M, K) which joints the judged samples have."""
        targets = self.data.targets
        valid = targets.valid_cam if self.study.is_mocap else targets.valid_2d
        return valid[torch.from_numpy(self.rows[self.judged])].numpy()

    def measured(self, params: Mapping[str, np.ndarray], *, seconds: float, training: float = 0) -> Measured:
        """Parameters of the judged samples against their truth."""
        rows = self.rows[self.judged]
        samples, crops = self.data.samples[0].rows(rows), self.data.crops[0].rows(rows)
        truth = true_params(self.base, samples, crops.flip)
        known = {n: v for n, v in params.items() if n in truth}
        return measure(self.study, known, truth, self.valid, seconds=seconds, training=training)


def make_setup(study: Study, base: Base, out: Path, size: Size, device: torch.device) -> Setup:
    config = write_study(study, base, out)
    images = replace(config, seed=study.seed, device=str(device), workers=1)
    return Setup(study, base, out, size, device, images)


# --- optimisers


def optimised(setup: Setup, *, setting: str, camera: str = "crop") -> Measured:
    """SMPLify-X by a setting of `SmplifyOptions`, told what its joints are like."""
    optimisation = _optimisation(setup, setting, camera)
    started = time.perf_counter()
    found = optimisation(setup.rows[setup.judged])
    seconds = (time.perf_counter() - started) / len(setup.judged)
    return setup.measured(found, seconds=seconds)


def ruled(setup: Setup, *, start: Mapping[str, Any], setting: str) -> Measured:
    """SPIN's rule: the optimiser from a network's estimates and from rest, the nearer to the joints."""
    one = trained(setup, **start)
    optimisation = _optimisation(setup, setting)
    rows = setup.rows[setup.judged]
    started = time.perf_counter()
    begun = optimisation(rows, {n: v[setup.judged] for n, v in one.columns.items()})
    found = lower_error(begun, optimisation(rows))
    seconds = (time.perf_counter() - started) / len(rows) + one.seconds
    return setup.measured(found, seconds=seconds, training=one.training)


def _optimisation(setup: Setup, setting: str, camera: str = "crop") -> Optimisation:
    joints = {"noise": "noisy", "missing": "missing"}.get(setup.study.condition, "clean")
    return Optimisation(setup.machinery, setup.data, SmplifyOptions(setting, joints, camera=camera))


def exemplar(setup: Setup, *, start: Mapping[str, Any], options: EftOptions) -> Measured:
    """EFT's rule: the network tuned to each sample."""
    one = trained(setup, **start)
    data, machinery = reopened(setup, **start)
    started = time.perf_counter()
    chunk = setup.rows[setup.judged]
    found = next(exemplar_estimates(machinery, setup.config, data, [chunk], options))
    seconds = (time.perf_counter() - started) / len(chunk)
    return setup.measured(found, seconds=seconds, training=one.training)


# --- networks


@dataclass(frozen=True, eq=False)
class Trained:
    """`columns`: the network's estimates of all usable rows; `seconds`: a sample; `training`: in all."""

    columns: Columns
    seconds: float
    training: float


def trained(setup: Setup, **changes: Any) -> Trained:
    """A network with some fields of the configuration changed, trained once and kept."""
    config = replace(setup.config, **changes)
    sees = config.inputs != "joints" or config.has_camera
    steps = setup.size.image_steps if sees else setup.size.joint_steps
    # The paper's two layers; twice as wide ones and a bold rate take to a small set more quickly.
    wide: dict[str, Any] = (
        {"joint_width": 1024, "head_width": 1024, "head_layers": 2, "batch": 64} if not sees else {}
    )
    crops = setup.out / f"crops-{setup.study.who}-{setup.study.condition == '2d'}-seed{setup.study.seed}"
    # All the steps, whatever the loss does: a run that ends early on a plateau is a weaker opponent.
    schedule: dict[str, Any] = {"patience": steps, "lr_drop_steps": (3 * steps // 4, 9 * steps // 10)}
    config = replace(config, max_steps=steps, crops=str(crops), checkpoint_every=500, **schedule, **wide)
    folder = _folder(setup, changes)
    kept, clock = folder / "estimates.npz", folder / "seconds.txt"
    if not kept.is_file():
        started = time.perf_counter()
        fit(config, folder)
        training = time.perf_counter() - started
        data, machinery = reopened(setup, **changes)
        if not np.array_equal(np.flatnonzero(data.usable), setup.rows):
            raise ValueError(f"{folder}: images are missing; the rows would not be the same for all")
        started = time.perf_counter()
        columns = next(estimates(machinery, config, data, [setup.rows]))
        seconds = (time.perf_counter() - started) / len(setup.rows)
        clock.write_text(f"{training} {seconds}\n")
        np.savez(kept, allow_pickle=False, **columns)
    training, seconds = map(float, clock.read_text().split())
    with np.load(kept, allow_pickle=False) as file:
        return Trained(dict(file), seconds, training)


def reopened(setup: Setup, **changes: Any) -> tuple[TrainingData, Machinery]:
    """What `trained` trained, and the samples with its images."""
    found = load_checkpoint(_folder(setup, changes) / "checkpoint.pt")
    data = read_data(found.config, Path(found.config.crops), World(0, 1, setup.device))
    return data, restored(found, found.config, data, setup.device)


def _folder(setup: Setup, changes: Mapping[str, Any]) -> Path:
    name = "-".join(["network", *(f"{v}" for _, v in sorted(changes.items()))]).replace(":", "")
    return setup.out / setup.study.name / name


def network(setup: Setup, **changes: Any) -> Measured:
    """The paper's annotator: the outputs as they are."""
    one = trained(setup, **changes)
    judged = {n: v[setup.judged] for n, v in one.columns.items()}
    return setup.measured(judged, seconds=one.seconds, training=one.training)


# --- least squares


def refined(
    setup: Setup,
    *,
    start: Mapping[str, Any] | None = None,
    options: RefineOptions | None = None,
    prior: str = "open",
) -> Measured:
    """Damped least squares, from a network's estimates (`start`: its changes) or from none.

    `prior`: `open`, which ships; `rest`, half a radian about rest; what fits share comes from all usable
    rows, the time is that of the judged ones and their share of what all share.
    """
    one = None if start is None else trained(setup, **start)
    columns = None if one is None else one.columns
    started = time.perf_counter()
    given: PoseGaussians | None = None
    if prior == "rest":
        given = isotropic(63, 0.5)
    refinement = prepare_refinement(
        setup.machinery, setup.data, setup.rows, columns, options or RefineOptions(), prior=given
    )
    shared = (time.perf_counter() - started) / len(setup.rows)
    started = time.perf_counter()
    judged = None if columns is None else {n: v[setup.judged] for n, v in columns.items()}
    found = refinement(setup.rows[setup.judged], judged)
    seconds = (time.perf_counter() - started) / len(setup.judged) + shared
    seconds += 0.0 if one is None else one.seconds
    training = 0.0 if one is None else one.training
    return setup.measured(found, seconds=seconds, training=training)
