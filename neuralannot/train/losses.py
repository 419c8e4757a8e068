"""The paper's losses: (1) for data sets with GT 3D joints, (2) for those with GT 2D joints.

Each is a mean of absolute differences over a sample's valid joints, plus mean squares of the parameters with
weights of their own. All terms are given per sample, so that a bad one can be named and processes can share
a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralannot.train.network import CROP, project
from neuralannot.train.rotations import axis_angle_to_matrix
from neuralannot.train.targets import Targets

#: The regularised outputs, by the field of `LossWeights` that weighs them.
_REGULARISED = {
    "pose": ("body_pose", "hand_pose"),
    "latent": ("latent",),
    "jaw": ("jaw_pose",),
    "betas": ("betas",),
    "expression": ("expression",),
}
_ROTATIONS = ("global_orient", "body_pose", "hand_pose", "jaw_pose")


@dataclass(frozen=True)
class LossWeights:
    """What each term counts. `joints_3d`: of metres; `joints_2d`: of the crop's side; the others: of the mean
    square of radians (`pose`, `jaw`) or of the codes' units; `parameters`: of a first stage's parameters.
    Where a pose prior decodes, its latent is regularised and the pose is not.
    """

    joints_3d: float = 1.0
    joints_2d: float = 1.0
    pose: float = 3e-4
    latent: float = 1e-3
    jaw: float = 3e-4
    betas: float = 3e-5
    expression: float = 3e-5
    parameters: float = 1.0


def sample_losses(
    out: Mapping[str, Tensor],
    points: Callable[..., Tensor],
    known: Tensor,
    rest_root: Callable[..., Tensor],
    targets: Targets,
    *,
    weak: Collection[str],
) -> dict[str, Tensor]:
    """Term -> (B,) of each sample, not weighed.

    `out`: what the network gave; `points`: parameters -> (B, K, 3) joints, of which `known` (K,) are to be
    counted; `rest_root`: codes -> (B, 3) the root joint at rest; `weak`: which of `joints_3d` and `joints_2d`
    the data sets allow. `joints_3d` in metres, both sets of joints
    about the mean of those valid, since a place is not predicted but follows in closed form; `joints_2d` as a
    share of the crop's side.
    """
    parameters = {n: v for n, v in out.items() if n not in ("latent", "root")}
    joints = points(**parameters)
    losses = {}
    if "joints_3d" in weak:
        valid = targets.valid_cam & known
        off = _about_mean(joints, valid) - _about_mean(targets.joints_cam, valid)
        losses["joints_3d"] = _mean_over(off.abs().mean(2), valid)
    if "joints_2d" in weak:
        codes = {n: out[n] for n in ("betas", "expression") if n in out}
        shift = out["root"] - rest_root(**codes)
        seen = project(joints + shift[:, None])
        losses["joints_2d"] = _mean_over(
            (seen - targets.joints_2d).abs().mean(2) / CROP, targets.valid_2d & known
        )
    for term, names in _REGULARISED.items():
        if term == "pose" and "latent" in out:
            continue
        for name in names:
            if name in out:
                losses[term] = out[name].flatten(1).square().mean(1)
    if targets.parameters:
        losses["parameters"] = _parameter_loss(out, targets)
    return losses


def total_loss(losses: Mapping[str, Tensor], weights: LossWeights) -> Tensor:
    """(B,) weighted sums of the terms."""
    return torch.stack([getattr(weights, term) * value for term, value in losses.items()]).sum(0)


def _parameter_loss(out: Mapping[str, Tensor], targets: Targets) -> Tensor:
    """(B,) mean absolute differences to the first stage's parameters, zero for samples without.

    Rotations are compared as matrices, which do not wrap around.
    """
    parts = []
    for name, wanted in targets.parameters.items():
        if name not in out:
            continue
        given, value = out[name], wanted
        if name in _ROTATIONS:
            given = axis_angle_to_matrix(given.reshape(len(given), -1, 3))
            value = axis_angle_to_matrix(value.reshape(len(value), -1, 3))
        parts.append((given - value).abs().flatten(1).mean(1))
    together = torch.stack(parts).mean(0)
    return torch.where(targets.valid_parameters, together, torch.zeros_like(together))


def _about_mean(points: Tensor, valid: Tensor) -> Tensor:
    mask = valid[..., None].to(points)
    return points - (points * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp_min(1)


def _mean_over(values: Tensor, valid: Tensor) -> Tensor:
    """(B, K) -> (B,): over those valid, zero where none is."""
    mask = valid.to(values)
    return torch.where(valid, values, torch.zeros_like(values)).sum(1) / mask.sum(1).clamp_min(1)
