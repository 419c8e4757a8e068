"""Rotations of the network against scipy's, and their gradients where they are hardest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from neuralannot.train.rotations import (
    aligning_rotation,
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_rotation6d,
    rotation6d_to_matrix,
)

DOUBLE = torch.float64


def random_matrices(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(Rotation.random(count, rng=np.random.default_rng(seed)).as_matrix())


def test_six_numbers_and_back():
    matrices = random_matrices(200).reshape(20, 10, 3, 3)
    six = matrix_to_rotation6d(matrices)
    assert six.shape == (20, 10, 6)
    torch.testing.assert_close(rotation6d_to_matrix(six), matrices)
    # Columns of any length and not quite square to each other give the same rotation.
    loose = torch.cat([3 * six[..., :3], 0.2 * six[..., 3:] + 1.5 * six[..., :3]], -1)
    torch.testing.assert_close(rotation6d_to_matrix(loose), matrices)


def test_axis_angles_are_scipy_s():
    rotations = Rotation.random(300, rng=np.random.default_rng(1))
    matrices, vectors = torch.from_numpy(rotations.as_matrix()), torch.from_numpy(rotations.as_rotvec())
    torch.testing.assert_close(matrix_to_axis_angle(matrices), vectors)
    torch.testing.assert_close(axis_angle_to_matrix(vectors), matrices)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1e-3), st.integers(0, 1000))
def test_gradients_are_finite_and_right_at_rest_and_half_a_turn(offset, seed):
    axis = np.random.default_rng(seed).normal(size=3)
    axis /= np.linalg.norm(axis)
    for angle in (offset, np.pi - 1e-2 - offset):
        matrix = torch.from_numpy(Rotation.from_rotvec(angle * axis).as_matrix())[None]
        six = matrix_to_rotation6d(matrix).requires_grad_()
        there_and_back = lambda x: axis_angle_to_matrix(matrix_to_axis_angle(rotation6d_to_matrix(x)))  # noqa: E731
        assert torch.autograd.gradcheck(there_and_back, (six,), atol=1e-4, rtol=1e-3)


def test_exactly_at_rest_and_half_a_turn_gradients_are_finite():
    for diagonal in ([1.0, 1, 1], [1.0, -1, -1], [-1.0, 1, -1], [-1.0, -1, 1]):
        six = matrix_to_rotation6d(torch.diag(torch.tensor(diagonal)))[None].requires_grad_()
        matrix_to_axis_angle(rotation6d_to_matrix(six)).sum().backward()
        assert six.grad.isfinite().all()


def test_aligning_rotation_finds_the_turn_and_ignores_what_is_hidden():
    turn = random_matrices(50, 2)
    source = torch.randn(50, 5, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    target = source @ turn.transpose(1, 2) + torch.randn(50, 1, 3, dtype=DOUBLE)
    valid = torch.ones(50, 5, dtype=torch.bool)
    torch.testing.assert_close(aligning_rotation(source, target, valid), turn)
    valid[:, 4] = False
    target[:, 4] = torch.nan
    found = aligning_rotation(source, target, valid)
    torch.testing.assert_close(found, turn)
    expected = [
        Rotation.align_vectors(b[:4] - b[:4].mean(0), a[:4] - a[:4].mean(0))[0].as_matrix()
        for a, b in zip(source.numpy(), target.numpy(), strict=True)
    ]
    torch.testing.assert_close(found, torch.from_numpy(np.stack(expected)))


def test_aligning_rotation_is_the_identity_where_nothing_tells():
    points = torch.randn(3, 4, 3, dtype=DOUBLE)
    points[2] = torch.arange(4.0)[:, None] * torch.tensor([1.0, 2, 3])  # on a line
    valid = torch.ones(3, 4, dtype=torch.bool)
    valid[0, 2:] = False
    valid[1] = False
    found = aligning_rotation(points, -points, valid)
    torch.testing.assert_close(found, torch.eye(3, dtype=DOUBLE).expand(3, 3, 3))
    assert aligning_rotation(points[:0], points[:0], valid[:0]).shape == (0, 3, 3)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"rotations must be \(…, 6\), got \(4, 9\)"):
        rotation6d_to_matrix(torch.zeros(4, 9))
    with pytest.raises(ValueError, match=r"rotations must be \(…, 3\), got \(\)"):
        axis_angle_to_matrix(torch.tensor(1.0))
