"""A pose prior adapted to a data set: how its people move, learnt from the fits of its own joints."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralannot.train.fitting.gaussians import PoseGaussians


def adapted(
    prior: PoseGaussians, poses: Tensor, covariances: Tensor, *, believed: float = 50.0
) -> PoseGaussians:
    """One round of expectation and maximisation: the normal distribution of the fits and of the prior.

    `prior`: one distribution; `poses` (N, D) radians, fits; `covariances` (N, D, D): how uncertain each is
    (`pose_covariance`), without which what joints do not say would look as if nobody did it. `believed`: of
    how many fits the prior counts as. What the joints say of no fit keeps the spread that it had in the
    distribution under which they were made. Raises ValueError for several distributions, and for shapes that
    do not fit.
    """
    size = prior.means.shape[1]
    if len(prior.means) != 1:
        raise ValueError(f"one distribution can be adapted, the prior has {len(prior.means)}")
    if poses.ndim != 2 or poses.shape[1] != size or covariances.shape != (len(poses), size, size):
        raise ValueError(
            f"poses must be (N, {size}) and covariances (N, {size}, {size}), got {tuple(poses.shape)} and "
            f"{tuple(covariances.shape)}"
        )
    poses, covariances = poses.double(), covariances.double()
    before = prior.means[0].to(poses)
    spread = torch.linalg.inv(prior.precisions[0].to(poses))
    total = believed + len(poses)
    mean = (believed * before + poses.sum(0)) / total
    off, shift = poses - mean, before - mean
    moved = believed * (spread + torch.outer(shift, shift)) + off.T @ off + covariances.sum(0)
    precision = torch.linalg.inv(moved / total)
    precision = (precision + precision.T) / 2
    return PoseGaussians(
        mean[None].to(prior.means), precision[None].to(prior.precisions), torch.zeros_like(prior.offsets)
    )
