"""`JointMoments`: joints that are sums of skinned vertices, without the vertices, and their derivatives.

Blend skinning is linear: a joint that a regressor takes from the posed mesh is a sum over the bones of each
bone's transform of one weighted mean of unposed vertices, its *moment*, which itself is linear in the shape
and expression codes and the pose correctives' rotations. So a few hundred numbers stand for the whole mesh,
exactly, and derivatives are a product of small matrices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from neuralannot.body_models.precision import full_precision


class JointMoments(nn.Module):
    """K joints of a body: rotation matrices and codes in, joints and their Jacobian out.

    Made by `BodyPoints.moments`, `BodyModel.moments` or joined by `joined`. In the model files' order of
    joints: `rest` (J, 3, 1 + S) metres, the skeleton at rest as a linear function of (1, codes); `parents`
    (J,), -1 for the root. The sum's P terms: `rows` (P,) the joint that a term belongs to, `bones` (P,) the
    bone that moves it, `weights` (P,) its share, `directions` (P, 3, 1 + S + 9 (J - 1)) its moment as a
    linear function of (1, codes, rotation matrices of all joints but the root less the identity, row by
    row).
    """

    rest: Tensor
    rows: Tensor
    bones: Tensor
    weights: Tensor
    directions: Tensor
    moved: Tensor
    moved_weights: Tensor
    sums: Tensor
    cross: Tensor

    def __init__(
        self,
        parents: np.ndarray,
        rest: Tensor,
        rows: Tensor,
        bones: Tensor,
        weights: Tensor,
        directions: Tensor,
        *,
        num_joints: int,
    ) -> None:
        super().__init__()
        self.parents = [int(parent) for parent in parents]
        self.num_joints, self.num_bones = num_joints, len(self.parents)
        self.num_codes = rest.shape[2] - 1
        descends = torch.tensor(_descends(self.parents), dtype=rest.dtype, device=rest.device)  # (J, J)
        sums = torch.zeros(num_joints, len(rows), dtype=rest.dtype, device=rest.device)
        sums[rows, torch.arange(len(rows), device=rest.device)] = 1
        # (P, K J): which terms of a joint a bone's rotation moves.
        moved = sums.T[:, :, None] * descends[bones][:, None, :]
        cross = torch.tensor(CROSS, dtype=rest.dtype, device=rest.device)
        for name, value in (
            ("rest", rest),
            ("rows", rows),
            ("bones", bones),
            ("weights", weights),
            ("directions", directions),
            ("sums", sums),
            ("moved", moved.flatten(1)),
            ("moved_weights", (weights[:, None, None] * moved).sum(0)),
            ("cross", cross),
        ):
            self.register_buffer(name, value.contiguous().clone(), persistent=False)

    def __len__(self) -> int:
        return self.num_joints

    def forward(self, rotations: Tensor, codes: Tensor) -> Tensor:
        """(B, J, 3, 3) matrices of each joint relative to its parent, (B, S) codes -> (B, K, 3) metres.

        Hand poses' mean is part of the matrices. Before `transl`. Differentiable in both.
        """
        with full_precision(self.rest.device.type):
            return self._posed(rotations, codes)[0]

    def linearise(self, rotations: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Joints (B, K, 3), and their derivatives by rotations (B, K, 3, J, 3) and by codes (B, K, 3, S).

        By rotations: by a vector w_j (3,) radians in the frame of the joint's parent, R_j <- exp(w_j) R_j.
        The pose correctives' share is in it. No gradient is kept.
        """
        with torch.no_grad(), full_precision(self.rest.device.type):
            joints, terms, globals_, places = self._posed(rotations, codes)
            return joints, self._by_rotation(rotations, terms, globals_, places), self._by_code(globals_)

    def _posed(self, rotations: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        """Joints (B, K, 3), terms (B, P, 3), bones' rotations (J of (B, 3, 3)), skeleton (B, J, 3)."""
        batch = len(rotations)
        eye = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        ones = codes.new_ones(batch, 1)
        deviations = (rotations[:, 1:] - eye).flatten(1)
        features = torch.cat([ones, codes, deviations], 1)
        moments = (features @ self.directions.flatten(0, 1).T).view(batch, len(self.rows), 3)
        rest = (torch.cat([ones, codes], 1) @ self.rest.flatten(0, 1).T).view(batch, self.num_bones, 3)
        globals_, places = self._chained(rotations, rest)
        stacked, shift = torch.stack(globals_, 1), torch.stack(places, 1)
        shift = shift - (stacked @ rest[..., None])[..., 0]
        terms = (stacked[:, self.bones] @ moments[..., None])[..., 0]
        terms = terms + shift[:, self.bones] * self.weights[:, None]
        return torch.einsum("kp,bpc->bkc", self.sums, terms), terms, globals_, torch.stack(places, 1)

    def _chained(self, rotations: Tensor, rest: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        globals_: list[Tensor] = []
        places: list[Tensor] = []
        for joint, parent in enumerate(self.parents):
            if parent < 0:
                globals_.append(rotations[:, joint])
                places.append(rest[:, joint])
                continue
            globals_.append(globals_[parent] @ rotations[:, joint])
            bone = rest[:, joint] - rest[:, parent]
            places.append(places[parent] + (globals_[parent] @ bone[..., None])[..., 0])
        return globals_, places

    def _by_rotation(
        self, rotations: Tensor, terms: Tensor, globals_: list[Tensor], places: Tensor
    ) -> Tensor:
        batch, joints, bones = len(rotations), self.num_joints, self.num_bones
        eye = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        above = torch.stack([eye.expand(batch, 3, 3) if p < 0 else globals_[p] for p in self.parents], 1)
        # All that hangs on a bone turns about its joint.
        arms = (terms.transpose(1, 2) @ self.moved).view(batch, 3, joints, bones)
        arms = arms.permute(0, 2, 3, 1) - self.moved_weights[..., None] * places[:, None]
        # w x arm = -[arm] w
        skew = -torch.einsum("bkjc,cde->bkjde", arms, self.cross)
        by_rotation = torch.einsum("bkjde,bjef->bkdjf", skew, above)
        # The correctives: a rotation's matrix changes by [w] R.
        turned = torch.einsum("ade,bjef->bjdfa", self.cross, rotations[:, 1:]).flatten(2, 3)
        correctives = self.directions[:, :, 1 + self.num_codes :].unflatten(2, (bones - 1, 9))
        moments = torch.einsum("pcjf,bjfa->bpcja", correctives, turned)
        stacked = torch.stack(globals_, 1)[:, self.bones]
        change = (stacked @ moments.flatten(3)).view(batch, len(self.rows), 3, bones - 1, 3)
        by_rotation[:, :, :, 1:] += torch.einsum("kp,bpcja->bkcja", self.sums, change)
        return by_rotation

    def _by_code(self, globals_: list[Tensor]) -> Tensor:
        batch = len(globals_[0])
        rest = self.rest[:, :, 1:]
        places: list[Tensor] = []
        for joint, parent in enumerate(self.parents):
            if parent < 0:
                places.append(rest[joint].expand(batch, -1, -1))
                continue
            places.append(places[parent] + globals_[parent] @ (rest[joint] - rest[parent]))
        stacked = torch.stack(globals_, 1)
        shift = torch.stack(places, 1) - stacked @ rest
        moments = stacked[:, self.bones] @ self.directions[:, :, 1 : 1 + self.num_codes]
        terms = moments + shift[:, self.bones] * self.weights[:, None, None]
        return torch.einsum("kp,bpcs->bkcs", self.sums, terms)


#: (axis, row, column): the matrices of e x (.) of the three axes.
CROSS = (
    ((0, 0, 0), (0, 0, -1), (0, 1, 0)),
    ((0, 0, 1), (0, 0, 0), (-1, 0, 0)),
    ((0, -1, 0), (1, 0, 0), (0, 0, 0)),
)


def joined(parts: Sequence[JointMoments]) -> JointMoments:
    """The joints of several, one after another. Raises ValueError for none."""
    if not parts:
        raise ValueError("no joints to join; give one JointMoments at least")
    first, offsets = parts[0], np.cumsum([0, *(len(part) for part in parts)])
    return JointMoments(
        np.array(first.parents),
        first.rest,
        torch.cat([part.rows + int(offset) for part, offset in zip(parts, offsets[:-1], strict=True)]),
        torch.cat([part.bones for part in parts]),
        torch.cat([part.weights for part in parts]),
        torch.cat([part.directions for part in parts]),
        num_joints=int(offsets[-1]),
    )


def chosen(moments: JointMoments, index: Tensor) -> JointMoments:
    """The joints (M,) by number, in this order; one may be asked for twice."""
    rows = [(moments.rows == int(one)).nonzero()[:, 0] for one in index]
    terms = torch.cat(rows) if rows else moments.rows[:0]
    new = [torch.full_like(some, number) for number, some in enumerate(rows)]
    return JointMoments(
        np.array(moments.parents),
        moments.rest,
        torch.cat(new) if new else moments.rows[:0],
        moments.bones[terms],
        moments.weights[terms],
        moments.directions[terms],
        num_joints=len(index),
    )


def moments_of_vertices(
    parents: np.ndarray, rest: Tensor, directions: Tensor, skinning: Tensor, weights: Tensor
) -> JointMoments:
    """Joints as `weights` (K, V) of vertices with `directions` (F, 3, V) and `skinning` (J, V)."""
    shares = torch.einsum("kv,jv->kjv", weights, skinning)
    rows, bones = (shares != 0).any(2).nonzero(as_tuple=True)
    shares = shares[rows, bones]
    return JointMoments(
        parents,
        rest,
        rows,
        bones,
        shares.sum(1),
        torch.einsum("pv,fcv->pcf", shares, directions),
        num_joints=len(weights),
    )


def moments_of_bones(parents: np.ndarray, rest: Tensor, joints: Sequence[int]) -> JointMoments:
    """The skeleton's own joints, by number."""
    bones = torch.tensor(list(joints), dtype=torch.int64, device=rest.device)
    directions = rest.new_zeros(len(bones), 3, rest.shape[2] + 9 * (len(rest) - 1))
    directions[:, :, : rest.shape[2]] = rest[bones]
    return JointMoments(
        parents,
        rest,
        torch.arange(len(bones), device=rest.device),
        bones,
        rest.new_ones(len(bones)),
        directions,
        num_joints=len(bones),
    )


def _descends(parents: Sequence[int]) -> list[list[bool]]:
    """[a][j]: whether bone a is j or hangs on it."""
    found = []
    for joint in range(len(parents)):
        above, at = set(), joint
        while at >= 0:
            above.add(at)
            at = parents[at]
        found.append([j in above for j in range(len(parents))])
    return found
