"""A body's joints: rotations, rest positions and the transforms along the kinematic tree."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralannot.parameters import human_model

# The order in which smplx stacks rotations into the full pose; None stands for joints that stay at rest.
_POSE_ORDER: Mapping[str, tuple[tuple[str | None, int], ...]] = {
    "smpl": (("global_orient", 1), ("body_pose", 23)),
    "smplx": (
        ("global_orient", 1),
        ("body_pose", 21),
        ("jaw_pose", 1),
        (None, 2),  # the eyes
        ("left_hand_pose", 15),
        ("right_hand_pose", 15),
    ),
    "mano": (("global_orient", 1), ("hand_pose", 15)),
    "flame": (("global_orient", 1), (None, 1), ("jaw_pose", 1), (None, 2)),  # neck and eyes
}
# u -> the matrix of u x (.), row by row.
_CROSS = ((0, 0, 0, 0, 0, -1, 0, 1, 0), (0, 0, 1, 0, 0, 0, -1, 0, 0), (0, -1, 0, 1, 0, 0, 0, 0, 0))
_CODES = ("betas", "expression")


def resting_joints(model: str) -> list[int]:
    """The joints that no parameter turns: SMPL-X's eyes, FLAME's neck and eyes."""
    order = [name for name, count in _POSE_ORDER[model] for _ in range(count)]
    return [joint for joint, name in enumerate(order) if name is None]


class Skeleton(nn.Module):
    """The joints of one model: parameters in, the features and transforms of its surfaces out.

    `joint_template` (J, 3) metres; `joint_directions` (S, J, 3) metres a unit of shape and expression;
    `parents` (J,) int64, -1 for the root; `pose_mean` (J, 3) radians that are added to the pose;
    `has_betas`: whether shape codes are parameters, or already part of the template.
    """

    template: Tensor
    shapes: Tensor
    mean: Tensor
    cross: Tensor
    eye: Tensor
    last_row: Tensor

    def __init__(
        self,
        model: str,
        joint_template: Tensor,
        joint_directions: Tensor,
        parents: np.ndarray,
        pose_mean: Tensor,
        *,
        has_betas: bool = True,
    ) -> None:
        super().__init__()
        shapes = human_model(model).shapes
        self.model, self.parents = model, parents
        self.parameters_of_row = {n: s for n, s in shapes.items() if has_betas or n != "betas"}
        self.has_mean = bool((pose_mean != 0).any())
        kind, device = joint_template.dtype, joint_template.device
        # One joint more than the model's stands first: never moved, and above the root, it ends every chain.
        for name, value in (
            ("template", nn.functional.pad(joint_template, (0, 0, 1, 0)).flatten()),
            ("shapes", nn.functional.pad(joint_directions, (0, 0, 1, 0)).flatten(1)),
            ("mean", nn.functional.pad(pose_mean, (0, 0, 1, 0))),
            ("cross", torch.tensor(_CROSS, dtype=kind, device=device)),
            ("eye", torch.eye(3, dtype=kind, device=device)),
            ("last_row", torch.tensor([0, 0, 0, 1], dtype=kind, device=device)),
        ):
            self.register_buffer(name, value.clone(), persistent=False)
        # The joints before the first that has such an ancestor are where they belong already.
        self.ancestors: list[tuple[int, str]] = []
        for step, joints in enumerate(_ancestors(parents)):
            first = next(joint for joint, above in enumerate(joints) if above)
            self.register_buffer(
                f"ancestors_{step}", torch.tensor(joints[first:], device=device), persistent=False
            )
            self.ancestors.append((first, f"ancestors_{step}"))

    def forward(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Checked parameters -> features (B, F), transforms (B, J, 4, 4), joints (B, J, 3) metres.

        All before `transl`, which is added to what they give. Features: 1, the shape and expression codes,
        then the rotation matrices of all joints but the root less the identity, row by row, as the model
        files count their correctives.
        """
        batch = len(values["global_orient"])
        codes = [values[name] for name in _CODES if name in self.parameters_of_row]
        count = len(self.mean)
        turned = self._rotations(values, batch)
        rest = self._rest(codes, batch).transpose(0, 1).reshape(-1, 3, 1)
        shift = torch.bmm(turned, rest).neg_()  # J - R J
        upper = torch.cat([turned + self.eye, shift], 2)
        local = torch.cat([upper, self.last_row.expand(len(upper), 1, 4)], 1)
        # Every joint's transform after its ancestors' 1, 2, 4, ... above: whole chains in a few products.
        for first, name in self.ancestors:
            above = local.view(count, batch, 16).index_select(0, getattr(self, name)).view(-1, 4, 4)
            done, rising = local[: first * batch], local[first * batch :]
            local = torch.cat([done, torch.bmm(above, rising)])
        upper = local[:, :3]
        joints = torch.baddbmm(upper[:, :, 3:], upper[:, :, :3], rest).view(count, batch, 3)[1:]
        one = self.last_row[3:].expand(batch, 1)
        deviations = turned.view(count, batch, 9)[2:].transpose(0, 1).reshape(batch, 9 * count - 18)
        features = torch.cat([one, *codes, deviations], 1)
        transforms = local.view(count, batch, 4, 4)[1:].transpose(0, 1)
        return features, transforms, joints.transpose(0, 1).contiguous()

    def rest_joints(self, *codes: Tensor) -> Tensor:
        """(B, 10) codes, those that are parameters here -> (B, J, 3) metres: joints at rest, no `transl`."""
        return self._rest(list(codes), len(codes[0]))[:, 1:]

    def with_betas(self, betas: Tensor) -> Skeleton:
        """The skeleton of one shape, (10,), which is no parameter of it any more."""
        joints = self.shapes.reshape(len(self.shapes), -1, 3)[:, 1:]
        return Skeleton(
            self.model,
            self.template.reshape(-1, 3)[1:] + torch.tensordot(betas, joints[: len(betas)], 1),
            joints[len(betas) :],
            self.parents,
            self.mean[1:],
            has_betas=False,
        )

    def check(self, given: Mapping[str, Any]) -> dict[str, Tensor]:
        """All parameters, (B, *shape), in the skeleton's dtype; zero where not given. See `BodyModel`."""
        shapes = self.parameters_of_row
        given = {name: value for name, value in given.items() if value is not None}
        strange = [name for name in given if name not in shapes]
        if strange:
            what = f"{self.model} has no {', '.join(strange)}"
            if "betas" in strange and "betas" in human_model(self.model).shapes:
                what = "betas are part of a model with_shape made; make another for another shape"
            raise ValueError(f"{what}; it has {', '.join(shapes)}")
        if not given:
            raise ValueError("no parameter given; pass at least one, its batch size is the bodies'")
        for name, one in given.items():
            if not isinstance(one, Tensor):
                raise TypeError(f"{name} must be a torch tensor, got {type(one).__name__}")
        # As many bodies as the first says that does not speak of one: that one is all of them's.
        counts = [len(value) if value.ndim else 1 for value in given.values()]
        batch = next((count for count in counts if count != 1), 1)
        like = self.template
        values = {}
        for name, shape in shapes.items():
            value = given.get(name)
            if value is None:
                value = like.new_zeros(batch, *shape)
            elif value.shape != (batch, *shape):
                if value.shape not in ((batch, prod(shape)), (1, *shape), (1, prod(shape))):
                    raise ValueError(f"{name} must be {(batch, *shape)}, got {tuple(value.shape)}")
                value = value.reshape(-1 if len(value) else 0, *shape).expand(batch, *shape)
            values[name] = value.to(like)
        return values

    def _rotations(self, values: Mapping[str, Tensor], batch: int) -> Tensor:
        """((1 + J) B, 3, 3): each joint's rotation matrix less the identity, as smplx computes it.

        Its angle is |r + 1e-8|, which is what keeps the gradient finite at rest.
        """
        parts = [self.template.new_zeros(batch, 1, 3)]
        for name, count in _POSE_ORDER[self.model]:
            part = parts[0].expand(batch, count, 3) if name is None else values[name]
            parts.append(part.view(batch, count, 3))
        pose = torch.cat(parts, 1)
        if self.has_mean:
            pose = pose + self.mean
        pose = pose.transpose(0, 1).reshape(-1, 3)  # a joint of all bodies, then the next
        angle = torch.linalg.vector_norm(pose + 1e-8, dim=1, keepdim=True)
        cross = torch.mm(pose / angle, self.cross).view(len(pose), 3, 3)
        angle = angle[..., None]
        return torch.addcmul(angle.sin() * cross, 1 - angle.cos(), torch.bmm(cross, cross))

    def _rest(self, codes: list[Tensor], batch: int) -> Tensor:
        """(B, 1 + J, 3) joints at rest."""
        if not codes:
            return self.template.view(1, -1, 3).expand(batch, len(self.mean), 3)
        together = codes[0] if len(codes) == 1 else torch.cat(codes, 1)
        return torch.addmm(self.template, together, self.shapes).view(batch, len(self.mean), 3)


def _ancestors(parents: np.ndarray) -> list[list[int]]:
    """The ancestor 1, 2, 4, … above each joint, until none has one; 0 stands above the root, which is 1."""
    above = [0, *(int(p) + 1 for p in parents)]
    tables = []
    while any(above):
        tables.append(above)
        above = [above[joint] for joint in above]
    return tables
