"""Joint moments: the mesh's joints without the mesh, and their derivatives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralannot.body_models import load_body_model
from neuralannot.body_models.moments import chosen, joined
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.parameters import human_model
from neuralannot.train.joint_points import joint_points

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

SETS = {
    "smpl": ("human36m-17", "smpl"),
    "smplx": ("human36m-17", "coco-17"),
    "mano": ("interhand-21-right",),
    "flame": ("coco-wholebody-face-68",),
}


def a_body(model: str):
    return load_body_model(model, side="right" if model == "mano" else None, dtype=torch.float64)


def some_parameters(model: str, count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    shapes = human_model(model).shapes
    return {
        n: torch.randn(count, *s, dtype=torch.float64, generator=made) * 0.5
        for n, s in shapes.items()
        if n != "transl"
    }


def matrices(body, parameters) -> torch.Tensor:
    """Every joint's rotation in the model files' order, by torch's own exponential of matrices."""
    pose = body.pose_mean.expand(len(parameters["global_orient"]), -1, -1).clone()
    for name, joints in body.joints_of_parameters().items():
        pose[:, joints] += parameters[name].reshape(len(pose), -1, 3)
    x, y, z = pose.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [torch.stack(r, -1) for r in ((zero, -z, y), (z, zero, -x), (-y, x, zero))]
    return torch.linalg.matrix_exp(torch.stack(rows, -2))


def codes_of(parameters) -> torch.Tensor:
    return torch.cat([parameters[n] for n in ("betas", "expression") if n in parameters], 1)


@pytest.mark.parametrize("model", SETS)
def test_they_are_the_mesh_s_joints(model):
    body = a_body(model)
    points = joint_points(body, [JOINT_SETS[name] for name in SETS[model]])
    parameters = some_parameters(model, 4)
    with torch.no_grad():
        wanted, own = points(**parameters), body(**parameters).joints
    rotations, codes = matrices(body, parameters), codes_of(parameters)
    found = points.moments()(rotations, codes)
    torch.testing.assert_close(found[:, points.known], wanted[:, points.known], rtol=0, atol=1e-7)
    torch.testing.assert_close(body.moments()(rotations, codes), own, rtol=0, atol=1e-7)


@pytest.mark.parametrize("model", SETS)
def test_derivatives_are_those_of_autograd(model):
    body = a_body(model)
    moments = chosen(joint_points(body, [JOINT_SETS[SETS[model][0]]]).moments(), torch.tensor([3, 0, 9]))
    parameters = some_parameters(model, 2)
    rotations, codes = matrices(body, parameters), codes_of(parameters)
    joints, by_rotation, by_code = moments.linearise(rotations, codes)
    torch.testing.assert_close(joints, moments(rotations, codes))

    def of(turn, code):
        skew = torch.einsum("bjd,dce->bjce", turn, moments.cross)
        return moments(rotations + skew @ rotations, code)  # the same as the exponential, to first order

    still = torch.zeros(*rotations.shape[:2], 3, dtype=torch.float64)
    slow = torch.autograd.functional.jacobian(of, (still, codes))
    for body_number in range(2):
        torch.testing.assert_close(by_rotation[body_number], slow[0][body_number][:, :, body_number])
        torch.testing.assert_close(by_code[body_number], slow[1][body_number][:, :, body_number])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 23), max_size=6))
def test_joints_by_number_are_those_joints(numbers):
    moments = a_body("smpl").moments()
    parameters = some_parameters("smpl", 2, seed=1)
    rotations, codes = matrices(a_body("smpl"), parameters), codes_of(parameters)
    some = chosen(moments, torch.tensor(numbers, dtype=torch.int64))
    torch.testing.assert_close(some(rotations, codes), moments(rotations, codes)[:, numbers])
    if numbers:
        twice = joined([some, moments])
        assert len(twice) == len(numbers) + len(moments)
        torch.testing.assert_close(
            twice(rotations, codes), torch.cat([some(rotations, codes), moments(rotations, codes)], 1)
        )


def test_no_body_and_no_part():
    moments = a_body("smpl").moments()
    none = moments(torch.zeros(0, 24, 3, 3, dtype=torch.float64), torch.zeros(0, 10, dtype=torch.float64))
    assert none.shape == (0, len(moments), 3)
    with pytest.raises(ValueError, match="no joints to join"):
        joined([])
