"""A stage's priors as sums of squares, for damped least squares."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralannot.train.fitting.gaussians import PoseGaussians
from neuralannot.train.fitting.levenberg import Beliefs
from neuralannot.train.smplify.settings import Stage
from neuralannot.train.smplify.unknowns import Unknowns


def beliefs_of(unknowns: Unknowns, stage: Stage, gaussians: PoseGaussians | None, *, like: Tensor) -> Beliefs:
    """The same energy as `Objective.priors`, without bending: one normal distribution about rest or, with
    `gaussians` of the body's pose, each of theirs beside rest for hands and jaw. In `like`'s dtype."""
    weights = {name: _weights(name, count, stage) for name, count in unknowns.parts.items()}
    rest = torch.cat([like.new_tensor([2.0 * w**2 for w in some]) for some in weights.values()])
    if gaussians is None:
        zero = like.new_zeros(1, len(rest))
        prior = PoseGaussians(zero, torch.diag(rest)[None], like.new_zeros(1))
        return Beliefs(prior=prior, codes_weight=2 * stage.shape**2)
    main = len(weights["body_pose"])
    given = gaussians.to(like)
    precisions = torch.diag(rest).repeat(len(given.means), 1, 1)
    precisions[:, :main, :main] = stage.pose**2 * given.precisions
    means = torch.cat([given.means, like.new_zeros(len(given.means), len(rest) - main)], 1)
    prior = PoseGaussians(means, precisions, stage.pose**2 * given.offsets)
    return Beliefs(prior=prior, codes_weight=2 * stage.shape**2)


def _weights(name: str, count: int, stage: Stage) -> list[float]:
    if name == "jaw_pose":
        return list(stage.jaw)
    main = name == "body_pose"
    return [stage.pose if main else stage.hand] * (3 * count)
