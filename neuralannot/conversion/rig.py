"""What fitting knows of a body: SMPL, SMPL-X or SMPL-H as plain tensors, some or all vertices of it.

A `Rig` is the same linear blend skinning as `BodyModel`, laid out for fitting: joints' rotations are matrices
and absolute (the mean hand is part of them), and vertices can be chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import roma
import torch
from torch import Tensor

from neuralannot.body_models.files import ModelData

# Parameter -> the joints it turns, in the order of the models' files.
ROTATIONS: Mapping[str, Mapping[str, slice]] = {
    "smpl": {"global_orient": slice(0, 1), "body_pose": slice(1, 24)},
    "smplx": {
        "global_orient": slice(0, 1),
        "body_pose": slice(1, 22),
        "jaw_pose": slice(22, 23),
        "left_hand_pose": slice(25, 40),
        "right_hand_pose": slice(40, 55),
    },
    "smplh": {
        "global_orient": slice(0, 1),
        "body_pose": slice(1, 22),
        "left_hand_pose": slice(22, 37),
        "right_hand_pose": slice(37, 52),
    },
}
NUM_BETAS = 10
NUM_COMMON = 22  # the joints that all three have, root first


@dataclass(frozen=True, eq=False)
class Rig:
    """A body, V vertices and J joints of it, float32 or float64.

    `parents` (J,), -1 for the root; `mean` (J, 3) radians, what a pose of zero is; `joint_template` (J, 3),
    `joint_shapes` (J, 3, 10); `template` (V, 3); `directions` (V, 3, 10 + 9 (J - 1)): shape, then pose
    correctives; `weights` (V, J). Metres.
    """

    model: str
    parents: tuple[int, ...]
    mean: Tensor
    joint_template: Tensor
    joint_shapes: Tensor
    template: Tensor
    directions: Tensor
    weights: Tensor

    @property
    def num_joints(self) -> int:
        return len(self.parents)

    @property
    def shapes(self) -> Tensor:
        """(V, 3, 10) metres a unit of shape."""
        return self.directions[:, :, :NUM_BETAS]

    def take(self, vertices: Tensor) -> Rig:
        """The rig with these vertices (M,) alone."""
        return replace(
            self,
            template=self.template[vertices],
            directions=self.directions[vertices].contiguous(),
            weights=self.weights[vertices].contiguous(),
        )

    def to(self, device: str | torch.device) -> Rig:
        """The rig on a device."""
        names = ("mean", "joint_template", "joint_shapes", "template", "directions", "weights")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def rest_joints(self, betas: Tensor) -> Tensor:
        """(B, 10) -> (B, J, 3) metres."""
        return self.joint_template + torch.einsum("jcs,bs->bjc", self.joint_shapes, betas)

    def rotations(self, params: Mapping[str, Tensor]) -> Tensor:
        """Parameters in smplx's names, (B, ...) -> (B, J, 3, 3) local rotations; at rest where not given."""
        batch = len(params["global_orient"])
        pose = self.mean.expand(batch, -1, 3).clone()
        for name, joints in ROTATIONS[self.model].items():
            if name in params:
                pose[:, joints] += params[name].reshape(batch, -1, 3)
        matrices: Tensor = roma.rotvec_to_rotmat(pose)
        return matrices

    def poses(self, rotations: Tensor) -> dict[str, Tensor]:
        """The inverse of `rotations`: name -> (B, 3) or (B, n, 3) radians."""
        pose = roma.rotmat_to_rotvec(rotations) - self.mean
        found = {name: pose[:, joints] for name, joints in ROTATIONS[self.model].items()}
        return {n: p[:, 0] if n in ("global_orient", "jaw_pose") else p for n, p in found.items()}

    def chain(self, rotations: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """(B, J, 3, 3) local rotations, (B, J, 3) rest joints -> global rotations and posed joints."""
        turned, placed = [rotations[:, 0]], [rest[:, 0]]
        for joint in range(1, self.num_joints):
            above = self.parents[joint]
            turned.append(turned[above] @ rotations[:, joint])
            bone = rest[:, joint] - rest[:, above]
            placed.append(placed[above] + (turned[above] @ bone[:, :, None])[:, :, 0])
        return torch.stack(turned, 1), torch.stack(placed, 1)

    def joint_moves(self, turned: Tensor) -> Tensor:
        """(B, J, 3, 3) global rotations -> (B, J, 3, 10): how posed joints move with a unit of shape."""
        above = list(self.parents)
        bones = self.joint_shapes - self.joint_shapes[above]
        moves = turned[:, above] @ bones
        moves[:, 0] = self.joint_shapes[0]
        for joint in range(1, self.num_joints):
            moves[:, joint] += moves[:, above[joint]]
        return moves

    def unposed(self, rotations: Tensor, betas: Tensor) -> Tensor:
        """(V, 3, B) metres: shaped and corrected vertices, before skinning."""
        eye = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        features = torch.cat([betas, (rotations[:, 1:] - eye).flatten(1)], 1)
        flat = self.directions.flatten(0, 1) @ features.T
        return flat.view(*self.template.shape, -1) + self.template[:, :, None]

    def blended(self, turned: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        """(B, J, 3, 3), (B, J, 3) -> each vertex's own: (V, 3, 3, B), (V, 3, B)."""
        transforms = torch.cat([turned.flatten(2), shift], 2).permute(1, 2, 0)  # (J, 12, B)
        mixed = (self.weights @ transforms.flatten(1)).view(len(self.weights), 12, -1)
        return mixed[:, :9].view(-1, 3, 3, mixed.shape[2]), mixed[:, 9:]

    def vertices(self, params: Mapping[str, Tensor]) -> Tensor:
        """Parameters (`betas` and `transl` too, zero where not given) -> (B, V, 3) metres."""
        rotations = self.rotations(params)
        zeros = rotations.new_zeros(len(rotations), NUM_BETAS)
        betas = params.get("betas", zeros)
        rest = self.rest_joints(betas)
        turned, placed = self.chain(rotations, rest)
        turning, shift = self.blended(turned, placed - (turned @ rest[..., None])[..., 0])
        posed = (turning * self.unposed(rotations, betas)[:, None]).sum(2) + shift
        return posed.permute(2, 0, 1) + params.get("transl", zeros[:, :3])[:, None]


def rig_of(data: ModelData, dtype: torch.dtype = torch.float32) -> Rig:
    """The rig of a model file's arrays (SMPL's or SMPL-X's), expressions left out."""
    mean = np.zeros((len(data.parents), 3))
    for side in data.hand_mean:
        mean[ROTATIONS[data.model][f"{side}_hand_pose"]] = data.hand_mean[side].reshape(15, 3)
    return make_rig(
        data.model,
        data.parents,
        mean,
        data.J_regressor,
        data.v_template,
        data.shapedirs[:, :, :NUM_BETAS],
        data.posedirs,
        data.weights,
        dtype=dtype,
    )


def make_rig(
    model: str,
    parents: np.ndarray,
    mean: np.ndarray,
    regressor: np.ndarray,
    template: np.ndarray,
    shapes: np.ndarray,
    correctives: np.ndarray,
    weights: np.ndarray,
    *,
    dtype: torch.dtype = torch.float32,
) -> Rig:
    """A rig of arrays as model files have them: `regressor` (J, V), `shapes` (V, 3, 10), `correctives`
    (V, 3, 9 (J - 1)), `weights` (V, J).
    """
    wide = regressor.astype(np.float64)  # made once, in double precision
    return Rig(
        model,
        tuple(int(parent) for parent in parents),
        torch.tensor(mean, dtype=dtype),
        torch.tensor(wide @ template, dtype=dtype),
        torch.tensor(np.einsum("jv,vcs->jcs", wide, shapes, optimize=True), dtype=dtype),
        torch.tensor(template, dtype=dtype),
        torch.tensor(np.concatenate([shapes, correctives], 2), dtype=dtype),
        torch.tensor(weights, dtype=dtype),
    )
