"""`Chart`: a body's free rotations and codes as the unknowns of a fit, and back to a body model's
parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralannot.body_models.model import BodyModel
from neuralannot.body_models.moments import CROSS
from neuralannot.parameters import human_model
from neuralannot.train.rotations import axis_angle_to_matrix, matrix_to_axis_angle

#: Model -> the rotations that its fits have, as the paper's networks put them out.
FITTED = {
    "smpl": ("body_pose",),
    "smplx": ("body_pose",),
    "mano": ("hand_pose",),
    "flame": ("jaw_pose",),
}
# SMPL's own hands, which no data set's joints turn.
_NEVER = {"smpl": (22, 23)}
_CODES = ("betas", "expression")
_SMALL = 1e-4


@dataclass(frozen=True, eq=False)
class State:
    """B bodies on the way of a fit: `root` (B, 3, 3) global rotations; `pose` (B, F, 3) radians, axis-angle
    of the chart's free joints; `codes` (B, S) betas and expression; `transl` (B, 3) metres."""

    root: Tensor
    pose: Tensor
    codes: Tensor
    transl: Tensor

    def __len__(self) -> int:
        return len(self.pose)

    def rows(self, index: Tensor | slice) -> State:
        return State(self.root[index], self.pose[index], self.codes[index], self.transl[index])

    def to(self, kind: torch.dtype) -> State:
        return State(self.root.to(kind), self.pose.to(kind), self.codes.to(kind), self.transl.to(kind))

    def moved(self, step: Tensor) -> State:
        """The state after a step (B, 3 + 3 F + S + 3): the root turns by exp(step) from the left, the rest
        adds."""
        turn, pose, codes, transl = step.split([3, 3 * self.pose.shape[1], self.codes.shape[1], 3], 1)
        return State(
            axis_angle_to_matrix(turn) @ self.root,
            self.pose + pose.view_as(self.pose),
            self.codes + codes,
            self.transl + transl,
        )

    def where(self, keep: Tensor, other: State) -> State:
        """This state's rows where `keep` (B,), the other's elsewhere."""
        return State(
            torch.where(keep[:, None, None], self.root, other.root),
            torch.where(keep[:, None, None], self.pose, other.pose),
            torch.where(keep[:, None], self.codes, other.codes),
            torch.where(keep[:, None], self.transl, other.transl),
        )


class Chart:
    """The unknowns of one model: which joints turn, which codes there are.

    `names`: parameters whose rotations are free (`FITTED[model]` by default); the others keep their rest,
    hands their mean. `joints` (F,): the numbers of the free joints; `mean` (J, 3) radians that the model
    adds to the pose.
    """

    def __init__(self, body: BodyModel, names: Sequence[str] | None = None) -> None:
        self.model = body.model
        shapes = human_model(body.model).shapes
        self.names = tuple(FITTED[body.model] if names is None else names)
        strange = [name for name in self.names if name not in body.joints_of_parameters()]
        if strange:
            raise ValueError(f"{body.model} has no rotations {', '.join(strange)}")
        places = body.joints_of_parameters()
        self._places = {name: places[name] for name in self.names}
        never = _NEVER.get(body.model, ())
        self.joints = [joint for name in self.names for joint in self._places[name] if joint not in never]
        self.mean = body.pose_mean
        self.code_names = tuple(name for name in _CODES if name in shapes)
        self.num_codes = sum(shapes[name][0] for name in self.code_names)
        self._shapes = shapes

    def __len__(self) -> int:
        """The number of unknowns."""
        return 6 + 3 * len(self.joints) + self.num_codes

    def rotations(self, state: State) -> Tensor:
        """(B, J, 3, 3): every joint's rotation relative to its parent."""
        mean = self.mean.to(state.pose)
        full = mean.expand(len(state), -1, -1).clone()
        full[:, self.joints] = full[:, self.joints] + state.pose
        matrices = axis_angle_to_matrix(full)
        return torch.cat([state.root[:, None], matrices[:, 1:]], 1)

    def left_jacobians(self, state: State) -> Tensor:
        """(B, F, 3, 3): d w / d pose, where a change of axis-angle is exp(w) from the left."""
        return left_jacobian(state.pose + self.mean.to(state.pose)[self.joints])

    def parameters(self, state: State) -> dict[str, Tensor]:
        """smplx's names -> (B, ...), what `BodyModel` takes."""
        given = {"global_orient": matrix_to_axis_angle(state.root)}
        at = {joint: number for number, joint in enumerate(self.joints)}
        for name, places in self._places.items():
            zero = torch.zeros_like(state.pose[:, 0])
            given[name] = torch.stack([state.pose[:, at[j]] if j in at else zero for j in places], 1)
            given[name] = given[name].view(len(state), *self._shapes[name])
        sizes = [self._shapes[name][0] for name in self.code_names]
        given |= dict(zip(self.code_names, state.codes.split(sizes, 1), strict=True))
        return {**given, "transl": state.transl}

    def state(self, parameters: Mapping[str, Tensor]) -> State:
        """The state of parameters by smplx's names; what is not given is zero, what is not free left out."""
        root = axis_angle_to_matrix(parameters["global_orient"])
        count = len(root)
        given = {
            n: parameters[n].reshape(count, len(self._places[n]), 3) for n in self.names if n in parameters
        }
        pose = root.new_zeros(count, len(self.joints), 3)
        at = {joint: number for number, joint in enumerate(self.joints)}
        for name, values in given.items():
            for number, joint in enumerate(self._places[name]):
                if joint in at:
                    pose[:, at[joint]] = values[:, number]
        sizes = {name: self._shapes[name][0] for name in self.code_names}
        codes = [parameters.get(n, root.new_zeros(count, size)) for n, size in sizes.items()]
        transl = parameters.get("transl", root.new_zeros(count, 3))
        return State(root, pose, torch.cat(codes, 1).to(root), transl.to(root))

    def rest(self, count: int, like: Tensor) -> State:
        """Bodies at rest, of mean shape, at the origin."""
        return State(
            torch.eye(3).to(like).expand(count, 3, 3).clone(),
            like.new_zeros(count, len(self.joints), 3),
            like.new_zeros(count, self.num_codes),
            like.new_zeros(count, 3),
        )


def with_codes(state: State, codes: Tensor) -> State:
    """The state with other codes (B, S)."""
    return replace(state, codes=codes)


def put(state: State, rows: Tensor, some: State) -> State:
    """The state with `rows` (M,) int64 replaced by those of `some`."""

    def one(whole: Tensor, part: Tensor) -> Tensor:
        return whole.index_copy(0, rows, part.to(whole.dtype))

    return State(
        one(state.root, some.root),
        one(state.pose, some.pose),
        one(state.codes, some.codes),
        one(state.transl, some.transl),
    )


def left_jacobian(rotvec: Tensor) -> Tensor:
    """(..., 3) axis-angle, radians -> (..., 3, 3): exp(r + d) = exp(J d) exp(r) to first order."""
    angle = rotvec.norm(dim=-1)[..., None, None]
    cross = torch.einsum("...d,dce->...ce", rotvec, torch.tensor(CROSS).to(rotvec))
    small = angle < _SMALL
    safe = torch.where(small, torch.ones_like(angle), angle)
    first = torch.where(small, 0.5 - angle**2 / 24, (1 - safe.cos()) / safe**2)
    second = torch.where(small, 1 / 6 - angle**2 / 120, (safe - safe.sin()) / safe**3)
    return torch.eye(3).to(rotvec) + first * cross + second * (cross @ cross)
