"""`fit`: a configuration in, a trained annotator out.

Single process, or one of several that `torchrun` started: the batches, the hidden joints and the gradient are
the same for any number of processes. A run that was stopped, or killed, goes on from its last checkpoint with
the same numbers as if it had not been.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from neuralannot.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from neuralannot.train.config import TrainConfig
from neuralannot.train.crops import normalise
from neuralannot.train.distributed import World, join_world, synchronise_batch_norm
from neuralannot.train.feed import Batch, batches
from neuralannot.train.log import Log
from neuralannot.train.losses import sample_losses, total_loss
from neuralannot.train.plateau import Plateau
from neuralannot.train.priors import load_prior
from neuralannot.train.run import Machinery, TrainingData, build_machinery, read_data, surroundings
from neuralannot.train.targets import Targets

__all__ = ["FitResult", "fit"]

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class FitResult:
    """`checkpoint`: the file; `steps` done; `losses`: means of the last window; `converged`: whether the loss
    had stopped falling, rather than `max_steps` being over."""

    checkpoint: Path
    steps: int
    losses: dict[str, float]
    converged: bool


def fit(config: TrainConfig, out: str | os.PathLike[str], *, progress: bool = False) -> FitResult:
    """Train the annotator of `config` in the folder `out`: checkpoint.pt, log.csv, crops/.

    Adam, its rate divided by 10 each time the training loss has converged: an annotator is meant to fit its
    training set (section 3.2). If `out` holds a checkpoint of the same configuration the run goes on from it.
    Raises ValueError where that is of another configuration; where a loss is not finite, naming the sample,
    with the last good checkpoint left in place; and as the data readers do.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    _check_before(config, out / CHECKPOINT)
    world = join_world(config.device)
    data = read_data(config, Path(config.crops) if config.crops else out / "crops", world, progress=progress)
    machinery = build_machinery(config, data.joint_sets, world.device)
    network = synchronise_batch_norm(machinery.network, world)
    if config.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=config.lr, fused=True)
    precision = Precision.of(config.precision, world.device)
    plateau = Plateau.of(config, int(data.usable.sum()))
    step = _resume(config, out / CHECKPOINT, data, machinery, network, optimiser, precision, plateau)
    called = _several(network, config, world)

    with Log(out, config, data, world, first_step=step, progress=progress) as log:
        feed = batches(data, config, world, first_step=step)
        while not plateau.is_over(step):
            batch = next(feed).to(world.device)
            for group in optimiser.param_groups:
                group["lr"] = plateau.lr_at(step)
            losses = sample_terms(called, machinery, batch, precision)
            each = total_loss(losses, machinery.weights)
            # A share of the whole batch's mean: processes' gradients are averaged.
            precision.scale(each.sum() * (world.size / batch.whole)).backward()
            precision.unscale(optimiser)
            norm = nn.utils.clip_grad_norm_(trained, config.clip or float("inf"))
            means, is_good = _look(losses, each, norm, batch, world)
            if not is_good:
                _complain(each, batch, data, out, precision, world)
            precision.step(optimiser)
            optimiser.zero_grad(set_to_none=True)
            step += 1
            plateau.add(means["total"], step)
            log.add(step, means, plateau.lr, batch.whole)
            if step % config.checkpoint_every == 0 or plateau.is_over(step):
                _save(config, out, world, data, machinery, network, optimiser, precision, plateau, step)
        if not (out / CHECKPOINT).is_file():
            _save(config, out, world, data, machinery, network, optimiser, precision, plateau, step)
    world.barrier()
    return FitResult(out / CHECKPOINT, step, log.last_means, plateau.has_converged)


def sample_terms(
    network: nn.Module, machinery: Machinery, batch: Batch, precision: Precision
) -> dict[str, Tensor]:
    """Term of the loss -> (B,) of each sample of this process's share of a batch."""
    targets = batch.targets
    with precision.autocast():
        given = network(*network_inputs(batch.images, targets, machinery, hidden=batch.hidden))
    return sample_losses(
        given, machinery.points, machinery.points.known, machinery.rest_root, targets, weak=machinery.weak
    )


def network_inputs(
    images: Tensor | None, targets: Targets, machinery: Machinery, *, hidden: Tensor | None = None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """What the network is called with: normalised images, joints and their validity.

    `images` (B, 3, S, S) uint8; `hidden` (B, K) bool: joints that are not to be seen.
    """
    spec = machinery.network.spec
    seen = None
    if images is not None:
        seen = normalise(images)
        if images.is_contiguous(memory_format=torch.channels_last):
            seen = seen.contiguous(memory_format=torch.channels_last)
    if not spec.sees_joints:
        return seen, None, None
    joints, valid = (
        (targets.joints_2d, targets.valid_2d) if spec.camera else (targets.joints_cam, targets.valid_cam)
    )
    return seen, joints, valid if hidden is None else valid & ~hidden


def _look(
    losses: dict[str, Tensor], each: Tensor, norm: Tensor, batch: Batch, world: World
) -> tuple[dict[str, float], bool]:
    """Means over the whole batch, of every term and of their weighted sum; whether all numbers are finite.

    All that the step tells comes over from the device at once: each time costs the device a pause.
    """
    names = [*losses, "total"]
    sums = torch.stack([value.detach().sum() for value in (*losses.values(), each)])
    finite = torch.isfinite(each.detach()).all() & torch.isfinite(norm)
    # One process's trouble is everyone's: all stop, rather than wait for each other.
    *totals, troubled = world.sum(torch.cat([sums, (~finite)[None].to(sums)])).tolist()
    return {n: value / batch.whole for n, value in zip(names, totals, strict=True)}, troubled == 0


def _complain(
    each: Tensor, batch: Batch, data: TrainingData, out: Path, precision: Precision, world: World
) -> None:
    """Stop at a loss that is no number, before it reaches the weights."""
    bad = ~torch.isfinite(each.detach())
    anywhere = float(world.sum(bad.sum().float()[None])[0])
    if precision.scaler is not None and not anywhere:
        return  # fp16's scaler skips a step whose gradient overflowed
    path = out / CHECKPOINT
    kept = f"the last good checkpoint is {path}" if path.is_file() else "no checkpoint was written yet"
    if anywhere and not bad.any():
        raise ValueError(f"a loss is not finite, another process names the sample; {kept}")
    if not anywhere:
        raise ValueError(f"the gradient is not finite though every loss is; {kept}; try a lower lr or fp32")
    row = int(batch.rows[int(bad.nonzero()[0, 0])])
    value = float(each.detach()[bad][0])
    raise ValueError(
        f"the loss of {data.name_of(row)} is {value} ({int(bad.sum())} of {len(each)} samples of the step); "
        f"{kept}; look at the sample with `neuralannot train check`, or lower lr"
    )


def _several(network: nn.Module, config: TrainConfig, world: World) -> nn.Module:
    """The network compiled where asked for, its gradients averaged over all processes."""
    if config.compile:
        network.compile()
    if world.size == 1:
        return network
    devices = [world.device.index] if world.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)


class Precision:
    """In what numbers the network computes: `kind` fp32, bf16 or fp16. fp16 scales its loss."""

    def __init__(self, kind: str, device: torch.device) -> None:
        self.kind, self.device = kind, device
        self.scaler = torch.amp.GradScaler(device.type) if kind == "fp16" else None

    @classmethod
    def of(cls, name: str, device: torch.device) -> Precision:
        """`auto`: bf16 on a GPU that has it, else fp32."""
        if name == "auto":
            has_it = device.type == "cuda" and torch.cuda.is_bf16_supported()
            name = "bf16" if has_it else "fp32"
        if name == "fp16" and device.type == "cpu":
            raise ValueError("precision fp16 needs a GPU; use bf16 or fp32 on a CPU")
        return cls(name, device)

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        if self.kind == "fp32":
            return contextlib.nullcontext()
        kind = torch.bfloat16 if self.kind == "bf16" else torch.float16
        return torch.autocast(self.device.type, kind)

    def scale(self, loss: Tensor) -> Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)

    def unscale(self, optimiser: torch.optim.Optimizer) -> None:
        if self.scaler is not None:
            self.scaler.unscale_(optimiser)

    def step(self, optimiser: torch.optim.Optimizer) -> None:
        if self.scaler is None:
            optimiser.step()
        else:
            self.scaler.step(optimiser)
            self.scaler.update()


# --- checkpoints


def _save(
    config: TrainConfig,
    out: Path,
    world: World,
    data: TrainingData,
    machinery: Machinery,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    precision: Precision,
    plateau: Plateau,
    step: int,
) -> None:
    if not world.is_first:
        return
    progress = {
        "plateau": plateau.state(),
        "rng": torch.get_rng_state(),
        "samples": data.digest,
        "precision": precision.kind,
    }
    if precision.scaler is not None:
        progress["scaler"] = precision.scaler.state_dict()
    made = Checkpoint(
        network.state_dict(),
        optimiser.state_dict(),
        step,
        config,
        machinery.network.spec,
        surroundings(config, machinery.network, machinery.body),
        data.joint_names,
        progress,
    )
    save_checkpoint(made, out / CHECKPOINT)


# What may differ between the run that wrote a checkpoint and the one that goes on from it: where files are
# does not matter, what is in them is compared by itself, as is the precision that came of `auto`.
_FREE = (
    *("device", "workers", "max_steps", "log_every", "checkpoint_every", "tensorboard", "crops", "compile"),
    *("data", "images", "annotations", "cameras", "joints", "body_models", "joint_regressor"),
    *("backbone_weights", "pseudo_gt", "precision", "lr_drop_steps"),
)


def _check_before(config: TrainConfig, path: Path) -> None:
    """What can be known to be wrong before crops are cut, which takes hours."""
    if config.outputs == "latent":
        load_prior(config.prior, config.model, body_models=config.body_models or None)
    if config.backbone_weights and not Path(config.backbone_weights).is_file():
        raise FileNotFoundError(f"{config.backbone_weights}: no such checkpoint (backbone_weights)")
    if not path.is_file():
        return
    was, now = load_checkpoint(path).config.as_dict(), config.as_dict()
    other = [n for n in now if n not in _FREE and was[n] != now[n]]
    if other:
        listed = ", ".join(f"{n} {was[n]!r} there, {now[n]!r} here" for n in other)
        raise ValueError(f"{path} is of another configuration: {listed}; choose another folder, or remove it")


def _resume(
    config: TrainConfig,
    path: Path,
    data: TrainingData,
    machinery: Machinery,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    precision: Precision,
    plateau: Plateau,
) -> int:
    """Go on from a checkpoint, if there is one; the steps done."""
    if not path.is_file():
        return 0
    found = load_checkpoint(path)
    here = surroundings(config, machinery.network, machinery.body)
    other = [name for name in here if found.surroundings.get(name) != here[name]]
    if found.joint_sets != data.joint_names:
        other.append("joint set")
    elif not torch.allclose(found.network["rest_torso"], machinery.network.rest_torso.cpu(), atol=1e-4):
        other.append("joint regressor")
    if found.progress.get("samples") != data.digest:
        other.append("set of samples or joints")
    if found.progress["precision"] != precision.kind:
        other.append(f"precision ({found.progress['precision']} there, {precision.kind} here)")
    if other:
        raise ValueError(f"{path} was trained with another {other[0]}; choose another folder, or remove it")
    network.load_state_dict(found.network)
    optimiser.load_state_dict(found.optimiser)
    plateau.load(found.progress["plateau"])
    if precision.scaler is not None and "scaler" in found.progress:
        precision.scaler.load_state_dict(found.progress["scaler"])
    torch.set_rng_state(found.progress["rng"])
    return found.step
