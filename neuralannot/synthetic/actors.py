"""Bodies posed for a picture: body models kept for a process, parameters of one body in, meshes out."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralannot.body_models import BodyModel, joint_regressor, load_body_model
from neuralannot.transforms import rigid_parameters


@functools.lru_cache(maxsize=8)
def model_of(model: str, folder: str | None, side: str | None = None) -> BodyModel:
    """The body model, loaded once a process. Raises as `load_body_model`."""
    with warnings.catch_warnings():
        # `make_studio` has said so once; workers would each repeat it.
        warnings.filterwarnings("ignore", "no official body models given", UserWarning)
        return load_body_model(model, folder=folder, side=side)


@dataclass(frozen=True, eq=False)
class Actor:
    """One body in one pose: `params` in smplx's names, float32 of one row each, as they will be written;
    `vertices` (V, 3) and `joints` (J, 3) float32 metres in the space of the parameters.
    """

    model: str
    side: str | None
    folder: str | None
    params: Mapping[str, np.ndarray]
    vertices: np.ndarray
    joints: np.ndarray

    @property
    def body(self) -> BodyModel:
        return model_of(self.model, self.folder, self.side)

    def regressed(self, regressor: str) -> np.ndarray:
        """(K, 3) metres: a data set's joints, from the mesh."""
        vertices, weights = _regressor(regressor, self.model, self.folder, self.side)
        joints: np.ndarray = (weights @ self.vertices[vertices].astype(np.float64)).astype(np.float32)
        return joints


@functools.lru_cache(maxsize=8)
def _regressor(name: str, model: str, folder: str | None, side: str | None) -> tuple[np.ndarray, np.ndarray]:
    """The vertices that a regressor uses, and their weights (K, used) float64."""
    weights = joint_regressor(name, model_of(model, folder, side)).weights
    vertices = np.flatnonzero((weights != 0).any(axis=0))
    return vertices, weights[:, vertices].astype(np.float64)


def posed(
    model: str, params: Mapping[str, np.ndarray], *, folder: str | None, side: str | None = None
) -> Actor:
    """The body with these parameters (of one row each)."""
    import torch

    kept = {name: np.ascontiguousarray(value, np.float32) for name, value in params.items()}
    with torch.no_grad():
        out = model_of(model, folder, side)(**{name: torch.tensor(v)[None] for name, v in kept.items()})
    return Actor(model, side, folder, kept, out.vertices[0].numpy(), out.joints[0].numpy())


def moved(actor: Actor, R: np.ndarray, t: np.ndarray) -> Actor:
    """The body moved by `X' = R X + t`, posed again from the parameters that say so."""
    root, transl = rigid_parameters(
        actor.params["global_orient"][None],
        actor.params["transl"][None],
        rest_root(actor)[None],
        np.asarray(R)[None],
        np.asarray(t)[None],
    )
    params = {**actor.params, "global_orient": root[0], "transl": transl[0]}
    return posed(actor.model, params, folder=actor.folder, side=actor.side)


def shifted(actor: Actor, shift: np.ndarray) -> Actor:
    """The body moved by `shift` (3,) metres."""
    transl = (actor.params["transl"] + shift).astype(np.float32)
    by = transl - actor.params["transl"]
    params = {**actor.params, "transl": transl}
    return Actor(actor.model, actor.side, actor.folder, params, actor.vertices + by, actor.joints + by)


def rest_root(actor: Actor) -> np.ndarray:
    """(3,) metres: J0, about which the root turns."""
    import torch

    codes = [actor.params["betas"]]
    if "expression" in actor.params:
        codes.append(actor.params["expression"])
    with torch.no_grad():
        root: Any = actor.body.rest_root(*(torch.tensor(code)[None] for code in codes))
    place: np.ndarray = root[0].numpy()
    return place
