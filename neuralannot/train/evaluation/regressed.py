"""Joints that are regressed from vertices, where vertices are all that is known of a body."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralannot.bodies import model_on, regressor_for

if TYPE_CHECKING:
    import torch

    from neuralannot.body_models.model import BodyModel

__all__ = ["body_of", "called", "joints_of_vertices"]


def called(regressor: Any) -> str:
    """What a regressor's joints are called in a report."""
    return regressor if isinstance(regressor, str) else "regressed"


def body_of(
    model: str, body_models: str | os.PathLike[str] | None, *, is_hand: bool, gender: str = "neutral"
) -> BodyModel:
    """The body whose vertices they are. Both hands have the same joints: they are mirror images."""
    return model_on(model, body_models, gender, "right" if is_hand else None)


def joints_of_vertices(body: BodyModel, regressor: Any = None) -> tuple[tuple[str, ...], torch.Tensor]:
    """Names and (J, V) float32 weights: of `regressor`, else of the model's own, which is made for bodies at
    rest. Raises as `joint_regressor`."""
    import torch

    if regressor is not None:
        found = regressor_for(body, regressor)
        return found.names, torch.tensor(np.asarray(found.weights), dtype=torch.float32)
    weights = body.J_regressor.detach().cpu().float()
    names = body.joint_names[: len(weights)]
    return tuple(n.removeprefix("right_") if body.side else n for n in names), weights
