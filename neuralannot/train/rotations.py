"""Rotations as networks put them out: six numbers, made a matrix and then the axis-angle of the body models.

Matrices and rotation vectors convert by roma; all functions take any batch shape and keep gradients finite at
the identity.
"""

from __future__ import annotations

import roma
import torch
from torch import Tensor

# Below this length a column says nothing of a direction; far above what float32 rounds away.
_SHORTEST = 1e-8


def rotation6d_to_matrix(values: Tensor) -> Tensor:
    """(…, 6) -> (…, 3, 3) rotation matrices.

    `values[..., :3]` and `values[..., 3:]` are the first two columns before Gram and Schmidt (Zhou et al.,
    2019). Columns that are zero or parallel give no rotation.
    """
    _check(values, 6)
    matrix: Tensor = roma.special_gramschmidt(
        torch.stack([values[..., :3], values[..., 3:]], -1), epsilon=_SHORTEST
    )
    return matrix


def matrix_to_rotation6d(matrix: Tensor) -> Tensor:
    """(…, 3, 3) rotation matrices -> (…, 6): their first two columns."""
    return matrix[..., :2].transpose(-1, -2).flatten(-2)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """(…, 3, 3) rotation matrices -> (…, 3) axis-angle, radians, of length at most pi."""
    rotvec: Tensor = roma.rotmat_to_rotvec(matrix)
    return rotvec


def axis_angle_to_matrix(rotvec: Tensor) -> Tensor:
    """(…, 3) axis-angle, radians -> (…, 3, 3) rotation matrices."""
    _check(rotvec, 3)
    matrix: Tensor = roma.rotvec_to_rotmat(rotvec)
    return matrix


def aligning_rotation(source: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """(B, P, 3) points -> (B, 3, 3) rotations that turn `source` onto `target` best (Kabsch), no gradient.

    `valid` (B, P) bool: the points to count. Both sets are taken about their centre; the identity where fewer
    than three points count or they lie on a line, for there the turn about it would be arbitrary.
    """
    with torch.no_grad():
        mask = valid[..., None].to(source)
        count = mask.sum(1, keepdim=True).clamp_min(1)
        centred = [
            torch.where(mask > 0, p - (p * mask).sum(1, keepdim=True) / count, 0 * p)
            for p in (source.nan_to_num(), target.nan_to_num())
        ]
        U, spread, Vh = torch.linalg.svd(centred[1].transpose(1, 2) @ centred[0])
        sign = torch.ones_like(spread)
        sign[:, 2] = torch.where(torch.linalg.det(U @ Vh) < 0, -1.0, 1.0)
        rotation = (U * sign[:, None]) @ Vh
        clear = (valid.sum(1) >= 3) & (spread[:, 1] > 1e-4 * spread[:, 0])
        return torch.where(clear[:, None, None], rotation, torch.eye(3).to(rotation))


def rotation_between(source: Tensor, target: Tensor) -> Tensor:
    """(…, 3) directions -> (…, 3, 3): the least rotation that turns one onto the other.

    Lengths do not matter. Of opposite directions there is no least one: the result is no rotation.
    """
    _check(source, 3)
    one, two = (v / v.norm(dim=-1, keepdim=True) for v in (source, target))
    axis = torch.linalg.cross(one, two)
    zero = torch.zeros_like(axis[..., 0])
    x, y, z = axis.unbind(-1)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    share = 1 / (1 + (one * two).sum(-1))[..., None, None]
    turn: Tensor = torch.eye(3).to(cross) + cross + share * (cross @ cross)
    return turn


def _check(values: Tensor, last: int) -> None:
    if values.ndim == 0 or values.shape[-1] != last:
        raise ValueError(f"rotations must be (…, {last}), got {tuple(values.shape)}")
