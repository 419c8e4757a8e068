"""A body's joints as the data sets define them: by their regressors where there are any, else by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralannot.body_models.joints import JointRegressor, joint_regressor
from neuralannot.body_models.model import BodyModel, BodyPoints
from neuralannot.body_models.moments import JointMoments, chosen, joined
from neuralannot.joint_sets import JOINT_SETS, JointSet, map_joints

__all__ = ["JointPoints", "joint_points"]

# Where to look for a joint that neither the set's regressor nor the model has, by its name.
_FALLBACKS = ("coco-17", "human36m-17", "mpi-inf-3dhp-17", "interhand-21-right")


class JointPoints(nn.Module):
    """Parameters -> the joints of one or more joint sets, one set after another, (B, K, 3) metres.

    `known` (K,) bool: the joints that the body can give; the others are zero and must be masked. Made by
    `joint_points`.
    """

    known: Tensor
    own: Tensor
    places: Tensor

    def __init__(
        self, model: BodyModel, regressed: BodyPoints | None, own: Sequence[int], places: np.ndarray
    ):
        super().__init__()
        self._regressed = regressed
        self._model = model if len(own) else None
        # Joints that bones meet in need no vertex.
        self._bare = all(joint < len(model.parents) for joint in own)
        self.register_buffer("own", torch.tensor(list(own), dtype=torch.int64), persistent=False)
        self.register_buffer("places", torch.tensor(np.maximum(places, 0)), persistent=False)
        self.register_buffer("known", torch.tensor(places >= 0), persistent=False)

    def __len__(self) -> int:
        return len(self.known)

    def moments(self) -> JointMoments:
        """The same joints with their derivatives; those that are not `known` are some other's."""
        parts = [] if self._regressed is None else [self._regressed.moments()]
        if self._model is not None:
            parts.append(chosen(self._model.moments(), self.own))
        return chosen(joined(parts), self.places)

    def forward(self, **parameters: Tensor) -> Tensor:
        """(B, K, 3) metres; parameters and errors as of `BodyModel`."""
        parts = []
        if self._regressed is not None:
            parts.append(self._regressed(**parameters))
        if self._model is not None:
            posed = self._model.skeleton if self._bare else self._model.joints
            parts.append(posed(**parameters).index_select(1, self.own))
        found = torch.cat(parts, 1).index_select(1, self.places)
        return torch.where(self.known[:, None], found, torch.zeros((), device=found.device))


def joint_points(
    model: BodyModel, joint_sets: Sequence[JointSet], regressors: Mapping[str, Any] | None = None
) -> JointPoints:
    """What poses the joints of `joint_sets` on `model`.

    Of each set, in this order: the regressor in `regressors` (joint set's name -> what `joint_regressor`
    takes: the data set's own (K, V) file, say); the one that the library has for the set; the model's own
    joints of that name; the same name of another set's regressor. Raises ValueError for a set without a
    single joint that the model can give, and as `joint_regressor`.
    """
    weights: list[np.ndarray] = []
    names: dict[tuple[str, str], int] = {}  # (set, joint) -> its row among the weights
    for wanted in dict.fromkeys([*(s.name for s in joint_sets), *_FALLBACKS]):
        found = _regressor(wanted, model, (regressors or {}).get(wanted))
        if found is None:
            continue
        joints = _names_of(wanted, joint_sets)
        if joints is not None and len(joints) == len(found.weights):
            for joint, row in zip(joints, found.weights, strict=True):
                names[wanted, joint] = len(weights)
                weights.append(row)
        elif (regressors or {}).get(wanted) is not None:
            raise ValueError(
                f"the regressor given for {wanted} has {len(found.weights)} joints, the set "
                f"{len(joints or ())}: {', '.join(joints or ())}"
            )
    sources: list[tuple[str, int]] = []  # of each joint asked for: where from, and which
    for joint_set in joint_sets:
        some = [_source(joint_set, joint, model, names) for joint in joint_set.joints]
        if all(kind == "none" for kind, _ in some):
            raise ValueError(
                f"{model.model} has none of the joints of {joint_set.name} ({', '.join(joint_set.joints)}); "
                f"pass a regressor for it"
            )
        sources += some
        if not model.is_open and joint_set.name in _FALLBACKS and joint_set.name not in (regressors or {}):
            _warn_of_names(joint_set, model, names)
    rows = sorted({number for kind, number in sources if kind == "regressor"})
    own = sorted({number for kind, number in sources if kind == "model"})
    place = {("regressor", row): at for at, row in enumerate(rows)}
    place |= {("model", joint): len(rows) + at for at, joint in enumerate(own)}
    regressed = None
    if rows:
        chosen = np.stack([weights[row] for row in rows])
        body = "open" if model.is_open else "official"
        regressed = model.points(JointRegressor(chosen, tuple(map(str, rows)), body=body))
    return JointPoints(model, regressed, own, np.array([place.get(s, -1) for s in sources], np.int64))


def _warn_of_names(joint_set: JointSet, model: BodyModel, names: Mapping[tuple[str, str], int]) -> None:
    """Say what is lost without the data set's own regressor."""
    lacking = [joint for joint in joint_set.joints if (joint_set.name, joint) not in names]
    if lacking:
        warnings.warn(
            f"no {joint_set.name} regressor for official {model.model} was given: {len(lacking)} of its "
            "joints are taken by name or left out, centimetres from the data set's; pass "
            f"joint_regressor {joint_set.name}=FILE.npy",
            stacklevel=3,
        )


def _names_of(name: str, joint_sets: Sequence[JointSet]) -> tuple[str, ...] | None:
    given = next((s.joints for s in joint_sets if s.name == name), None)
    return given if given is not None else JOINT_SETS[name].joints if name in JOINT_SETS else None


def _regressor(name: str, model: BodyModel, given: Any) -> JointRegressor | None:
    if given is not None:
        return joint_regressor(given, model)
    # The fitted hands are right ones, whichever side was annotated.
    name = "interhand-21" if name.startswith("interhand-21") else name
    if (name == "interhand-21") != (model.model == "mano"):
        return None
    try:
        return joint_regressor(name, model)
    except (ValueError, FileNotFoundError):
        return None  # none ships for this set and model


def _source(
    joint_set: JointSet, joint: str, model: BodyModel, names: Mapping[tuple[str, str], int]
) -> tuple[str, int]:
    if (joint_set.name, joint) in names:
        return "regressor", names[joint_set.name, joint]
    one = JointSet("one", (joint,))
    at = int(map_joints(JointSet("model", model.joint_names), one).index[0])
    if at >= 0:
        return "model", at
    for other in _FALLBACKS:
        if (other, joint) in names:
            return "regressor", names[other, joint]
        if other in JOINT_SETS:
            at = int(map_joints(JOINT_SETS[other], one).index[0])
            if at >= 0 and (other, JOINT_SETS[other].joints[at]) in names:
                return "regressor", names[other, JOINT_SETS[other].joints[at]]
    return "none", -1
