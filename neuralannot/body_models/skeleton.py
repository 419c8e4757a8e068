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


def joints_of_parameters(model: str) -> dict[str, list[int]]:
    """Rotation parameter -> the joints that it turns, in its rows' order."""
    found: dict[str, list[int]] = {}
    joint = 0
    for name, count in _POSE_ORDER[model]:
        if name is not None:
            found[name] = list(range(joint, joint + count))
        joint += count
    return found


class Skeleton(nn.Module):
    """The joints of one model: parameters in, the features and transforms of its surfaces out.

    `joint_template` (J, 3) metres; `joint_directions` (S, J, 3) metres a unit of shape and expression;
    `parents` (J,) int64, -1 for the root; `pose_mean` (J, 3) radians that are added to the pose;
    `has_betas`: whether shape codes are parameters, or already part of the template. Inside, joints are in
    the order of `levels_first(parents)`, features and transforms too.
    """

    template: Tensor
    shapes: Tensor
    mean: Tensor
    cross: Tensor
    eye: Tensor
    last_row: Tensor
    order: Tensor
    natural: Tensor

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
        order = levels_first(parents)
        for name, value in (
            ("order", torch.tensor(order, device=device)),
            ("natural", torch.tensor(np.argsort(order), device=device)),
            ("template", joint_template[order].flatten()),
            ("shapes", joint_directions[:, order].flatten(1)),
            ("mean", pose_mean[order][:, None]),
            ("cross", torch.tensor(_CROSS, dtype=kind, device=device)),
            ("eye", torch.eye(3, dtype=kind, device=device)),
            ("last_row", torch.tensor([0, 0, 0, 1], dtype=kind, device=device)),
        ):
            self.register_buffer(name, value.clone(), persistent=False)
        # Of each level but the root's: its first joint, the one after its last, its parents' places.
        self.levels: list[tuple[int, int, str]] = []
        for number, (first, last, above) in enumerate(_levels(parents, order)):
            rows = torch.tensor(above, device=device)
            self.register_buffer(f"above_{number}", rows, persistent=False)
            self.levels.append((first, last, f"above_{number}"))

    def forward(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Checked parameters -> features (B, F), transforms (B, J, 4, 4), joints (B, J, 3) metres.

        All before `transl`, which is added to what they give. Features: 1, the shape and expression codes,
        then the rotation matrices of all joints but the root less the identity, row by row. Joints alone are
        in the model files' order.
        """
        batch, count = len(values["global_orient"]), len(self.mean)
        turned, codes, transforms, joints = self._chained(values)
        one = self.last_row[3:].expand(batch, 1)
        deviations = turned.view(count, batch, 9)[1:].transpose(0, 1).reshape(batch, 9 * count - 9)
        features = torch.cat([one, *codes, deviations], 1)
        return features, transforms.view(count, batch, 4, 4).transpose(0, 1), joints

    def joints(self, values: Mapping[str, Tensor]) -> Tensor:
        """Checked parameters -> joints (B, J, 3) metres, before `transl`."""
        return self._chained(values)[3]

    def _chained(self, values: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
        """Deviations (J B, 3, 3), codes, transforms (J B, 4, 4), joints (B, J, 3)."""
        batch, count = len(values["global_orient"]), len(self.mean)
        codes = [values[name] for name in _CODES if name in self.parameters_of_row]
        turned = self._rotations(values, batch)
        rest = self._rest(codes, batch).transpose(0, 1).reshape(-1, 3, 1)
        shift = torch.bmm(turned, rest).neg_()  # J - R J
        upper = torch.cat([turned + self.eye, shift], 2)
        local = torch.cat([upper, self.last_row.expand(len(upper), 1, 4)], 1)
        # From the root outwards, all joints as far from it in one product.
        level, size = local[:batch], 1
        levels = [level]
        for first, last, name in self.levels:
            above = level.view(size, batch, 16).index_select(0, getattr(self, name)).view(-1, 4, 4)
            level, size = torch.bmm(above, local[first * batch : last * batch]), last - first
            levels.append(level)
        transforms = torch.cat(levels)
        upper = transforms[:, :3]
        joints = torch.baddbmm(upper[:, :, 3:], upper[:, :, :3], rest).view(count, batch, 3)
        return turned, codes, transforms, joints.transpose(0, 1).index_select(1, self.natural)

    def rest_joints(self, *codes: Tensor) -> Tensor:
        """(B, 10) codes, those that are parameters here -> (B, J, 3) metres: joints at rest, no `transl`."""
        return self._rest(list(codes), len(codes[0])).index_select(1, self.natural)

    def rest_directions(self) -> Tensor:
        """(J, 3, 1 + S) metres: joints at rest, in the model files' order, of (1, codes)."""
        together = torch.cat([self.template[None], self.shapes]).view(1 + len(self.shapes), -1, 3)
        return together.index_select(1, self.natural).permute(1, 2, 0)

    def in_files_order(self, directions: Tensor) -> Tensor:
        """(F, ...) of features, as `forward` orders them -> the rotations' in the model files' order."""
        first = 1 + len(self.shapes)
        turned = directions[first:].unflatten(0, (len(self.mean) - 1, 9))
        turned = turned.index_select(0, self.natural[1:] - 1)  # the root is first in either order
        return torch.cat([directions[:first], turned.flatten(0, 1)])

    def with_betas(self, betas: Tensor) -> Skeleton:
        """The skeleton of one shape, (10,), which is no parameter of it any more."""
        joints = self.shapes.reshape(len(self.shapes), -1, 3).index_select(1, self.natural)
        template = self.template.reshape(-1, 3).index_select(0, self.natural)
        return Skeleton(
            self.model,
            template + torch.tensordot(betas, joints[: len(betas)], 1),
            joints[len(betas) :],
            self.parents,
            self.mean[:, 0].index_select(0, self.natural),
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
        if like.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"a body model in {like.dtype} is off by millimetres; keep it in float32 (autocast around it "
                "does no harm)"
            )
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
        """(J B, 3, 3): each joint's rotation matrix less the identity, as smplx computes it.

        Its angle is |r + 1e-8|, which is what keeps the gradient finite at rest.
        """
        parts = []
        for name, count in _POSE_ORDER[self.model]:
            part = self.template.new_zeros(1).expand(batch, count, 3) if name is None else values[name]
            parts.append(part.view(batch, count, 3))
        # A joint of all bodies, then the next.
        pose = torch.cat(parts, 1).transpose(0, 1).index_select(0, self.order)
        if self.has_mean:
            pose = pose + self.mean
        pose = pose.view(-1, 3)
        angle = torch.linalg.vector_norm(pose + 1e-8, dim=1, keepdim=True)
        cross = torch.mm(pose / angle, self.cross).view(len(pose), 3, 3)
        angle = angle[..., None]
        return torch.addcmul(angle.sin() * cross, 1 - angle.cos(), torch.bmm(cross, cross))

    def _rest(self, codes: list[Tensor], batch: int) -> Tensor:
        """(B, J, 3) joints at rest."""
        if not codes:
            return self.template.view(1, -1, 3).expand(batch, len(self.mean), 3)
        together = codes[0] if len(codes) == 1 else torch.cat(codes, 1)
        return torch.addmm(self.template, together, self.shapes).view(batch, len(self.mean), 3)


def levels_first(parents: np.ndarray) -> np.ndarray:
    """(J,) joints by how far from the root they are, those as far in the order they had."""
    return np.argsort(_depths(parents), kind="stable")


def _depths(parents: np.ndarray) -> list[int]:
    depths: list[int] = []
    for parent in parents.tolist():
        depths.append(0 if parent < 0 else depths[parent] + 1)
    return depths


def _levels(parents: np.ndarray, order: np.ndarray) -> list[tuple[int, int, list[int]]]:
    """Of each level after the root's: begin and end in `order`, its joints' parents in the level above."""
    depths = np.array(_depths(parents))[order]
    levels = []
    for depth in range(1, int(depths.max()) + 1):
        above = order[depths == depth - 1].tolist()
        joints = np.flatnonzero(depths == depth)
        parents_of = [above.index(int(parents[order[joint]])) for joint in joints]
        levels.append((int(joints[0]), int(joints[-1]) + 1, parents_of))
    return levels
