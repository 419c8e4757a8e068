"""Fitting a rig to a mesh of its own: exact, from nothing; its normal equations against a Jacobian."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import roma
import scipy.optimize
import torch

from neuralannot import load_body_model
from neuralannot.conversion.fitting import Fitter, Pose, _State
from neuralannot.conversion.pairs import Body, Pair, _codes, _fitter, make_pair
from neuralannot.conversion.rig import Rig, rig_of
from neuralannot.synthetic import motions

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


def random_parameters(model: str, count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    found = [motions.body_pose(rng) for _ in range(count)]
    pose = np.stack([p for _, p in found])
    params = {
        "global_orient": np.stack([r for r, _ in found]),
        "body_pose": np.concatenate([pose, rng.normal(0, 0.1, (count, 2, 3))], 1)
        if model == "smpl"
        else pose,
        "betas": np.stack([motions.codes(rng) for _ in range(count)]),
        "transl": rng.normal(0, 1, (count, 3)),
    }
    if model != "smpl":
        for side in ("left", "right"):
            params[f"{side}_hand_pose"] = np.stack([motions.hand_pose(rng, side) for _ in range(count)])
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in params.items()}


def in_double(rig: Rig) -> Rig:
    tensors = {name: value.double() for name, value in vars(rig).items() if isinstance(value, torch.Tensor)}
    return Rig(rig.model, rig.parents, **tensors)


@pytest.fixture(scope="module")
def pair():
    return make_pair("smplx", "smpl")


@pytest.mark.parametrize("model", ["smpl", "smplx"])
def test_a_rig_poses_as_the_body_model_does(model):
    other = "smplx" if model == "smpl" else "smpl"
    rig, layer = make_pair(model, other).source.rig, load_body_model(model)
    params = random_parameters(model, 3)
    with torch.no_grad():
        assert torch.allclose(rig.vertices(params), layer(**params).vertices, atol=3e-6)
    poses = rig.poses(rig.rotations(params))
    for name, value in poses.items():
        if name in params:
            again = roma.rotvec_to_rotmat(value.reshape(-1, 3))
            assert torch.allclose(again, roma.rotvec_to_rotmat(params[name].reshape(-1, 3)), atol=1e-5)


@pytest.mark.parametrize("target", ["smpl", "smplx", "smplh"])
def test_a_mesh_alone_gives_its_parameters_back(target):
    pair = make_pair("smplx" if target == "smpl" else "smpl", target)
    rig, fitter = pair.target.rig, pair.fitter
    params = random_parameters(target, 6, seed=1)
    with torch.no_grad():
        mesh = rig.vertices(params)[:, fitter.vertices]
        pose, cost = fitter(mesh, fitter.start(mesh), steps=10)
        again = rig.vertices({**rig.poses(pose.rotations), "betas": pose.betas, "transl": pose.transl})
    assert cost.sqrt().max() < 1e-5
    assert (again - rig.vertices(params)).norm(dim=2).max() < 1e-4
    assert (pose.betas - params["betas"]).abs().max() < 0.02
    angle = roma.rotmat_geodesic_distance(pose.rotations, rig.rotations(params))
    assert angle.max() < 0.02


def test_the_normal_equations_are_those_of_the_jacobian(pair):
    """Against a Jacobian by automatic differentiation, of a rig without pose correctives."""
    kept = np.arange(0, len(pair.fitter.vertices), 6)
    rig = in_double(pair.target.rig)
    fitter = Fitter(rig, pair.fitter.vertices[kept].numpy(), np.linspace(1, 2, len(kept)), list(range(24)))
    params = {name: value.double() for name, value in random_parameters("smpl", 1, seed=2).items()}
    goal = fitter.rig.vertices(params).permute(1, 2, 0) + 0.01
    pose = Pose(rig.rotations(params), params["betas"], params["transl"])
    plain = replace(fitter.rig, directions=fitter.rig.directions.clone())
    plain.directions[:, :, 10:] = 0
    fitter.rig = plain
    state = _State(plain, pose, goal)
    matrix, right = fitter._normal_equations(state, params["betas"])

    def posed(unknown: torch.Tensor) -> torch.Tensor:
        turn, grow, move = unknown.split([72, 10, 3])
        small = roma.rotvec_to_rotmat(turn.view(24, 3))
        above = state.turned[0, [max(p, 0) for p in rig.parents]].clone()
        above[0] = torch.eye(3, dtype=torch.float64)
        rotations = above.transpose(1, 2) @ small @ above @ pose.rotations[0]
        moved = Pose(rotations[None], pose.betas + grow, pose.transl + move)
        off = goal - _State(plain, moved, goal).off
        return (off[..., 0] * fitter._u.sqrt()[:, None]).flatten()

    zero = torch.zeros(85, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(posed, zero)
    hold = 1e-10 * torch.diag(torch.cat([torch.zeros(72), torch.ones(10), torch.zeros(3)]))
    assert torch.allclose(matrix[0], jacobian.T @ jacobian + hold, atol=1e-10)
    off = (goal[..., 0] * fitter._u.sqrt()[:, None]).flatten() - posed(zero)
    assert torch.allclose(right[0], jacobian.T @ off, atol=1e-12)


def other_build(pair: Pair) -> Pair:
    """A target with its arms lower and legs apart at rest: as official SMPL and SMPL-X differ."""
    data, rig = pair.target.data, pair.target.rig
    rest = torch.zeros(1, 23, 3)
    rest[0, 15, 2], rest[0, 16, 2], rest[0, 0, 2], rest[0, 1, 2] = -0.3, 0.3, 0.15, -0.15
    template = rig.vertices({"global_orient": torch.zeros(1, 3), "body_pose": rest})[0].numpy()
    other = replace(data, v_template=template)
    body = Body(other, rig_of(other), None)
    fitter = _fitter(pair.source, body, pair.to_target)
    return Pair(pair.source, body, pair.to_target, fitter, _codes(pair.source, body, pair.to_target))


def test_what_is_found_is_what_a_slow_optimiser_finds(pair):
    """scipy's, from the fit, with a Jacobian by automatic differentiation, pose correctives in it."""
    alike = other_build(pair)
    kept = np.arange(0, len(alike.fitter.vertices), 4)
    free = list(range(22))
    fitter = Fitter(
        in_double(alike.target.rig), alike.fitter.vertices[kept].numpy(), np.ones(len(kept)), free
    )
    params = random_parameters("smplx", 1, seed=7)
    params["transl"] = torch.zeros(1, 3)
    with torch.no_grad():
        goal = alike.to_target(alike.source.vertices(params))[:, fitter.vertices].double()
        begin = alike.start(params)
        begin = Pose(begin.rotations.double(), begin.betas.double(), begin.transl.double())
        pose, cost = fitter(goal, begin, steps=10)

    def off(unknown: torch.Tensor) -> torch.Tensor:
        turn, grow, move = unknown.split([66, 10, 3])
        small = roma.rotvec_to_rotmat(torch.cat([turn, turn.new_zeros(6)]).view(1, 24, 3))
        moved = Pose(pose.rotations @ small, pose.betas + grow, pose.transl + move)
        away = _State(fitter.rig, moved, goal.permute(1, 2, 0)).off[..., 0]
        return (away * fitter._u.sqrt()[:, None]).flatten()

    found = scipy.optimize.least_squares(
        lambda x: off(torch.tensor(x)).numpy(),
        np.zeros(79),
        lambda x: torch.func.jacfwd(off)(torch.tensor(x)).numpy(),
        max_nfev=15,
    )
    least = np.linalg.norm(found.fun)
    assert least > 5e-4  # builds differ: there is something left
    assert cost.sqrt().item() == pytest.approx(
        np.linalg.norm(off(torch.zeros(79, dtype=torch.float64)).numpy())
    )
    assert cost.sqrt().item() < 1.01 * least


def test_a_head_that_moves_whole_with_expressions_is_fitted_all_the_same(pair):
    data = pair.source.data
    lively = Body(replace(data, exprdirs=data.exprdirs + 1e-3), pair.source.rig, None)
    fitter = _fitter(lively, pair.target, pair.to_target)
    joint = pair.target.data.weights.argmax(axis=1)[fitter.vertices.numpy()]
    assert (joint == 15).sum() >= 12


def test_moving_the_mesh_moves_the_body_and_nothing_else(pair):
    params = random_parameters("smpl", 3, seed=3)
    turn = roma.rotvec_to_rotmat(torch.tensor([0.3, -1.1, 0.4]))
    with torch.no_grad():
        mesh = pair.target.rig.vertices(params)[:, pair.fitter.vertices]
        one, _ = pair.fitter(mesh, pair.fitter.start(mesh), steps=8)
        moved = mesh @ turn.T + torch.tensor([0.2, -0.1, 0.3])
        other, _ = pair.fitter(moved, pair.fitter.start(moved), steps=8)
    assert torch.allclose(one.betas, other.betas, atol=2e-3)
    assert torch.allclose(one.rotations[:, 1:], other.rotations[:, 1:], atol=2e-3)
    assert torch.allclose(turn @ one.rotations[:, 0], other.rotations[:, 0], atol=1e-3)


def test_a_body_that_is_not_there_leaves_the_others_alone(pair):
    params = random_parameters("smpl", 3, seed=4)
    with torch.no_grad():
        mesh = pair.target.rig.vertices(params)[:, pair.fitter.vertices]
        alone, _ = pair.fitter(mesh[[0, 2]], pair.fitter.start(mesh[[0, 2]]), steps=6)
        mesh[1] = float("nan")
        pose, cost = pair.fitter(mesh, pair.fitter.start(mesh), steps=6)
    assert cost.isnan().tolist() == [False, True, False]
    assert torch.allclose(pose.betas[[0, 2]], alone.betas, atol=1e-3)


def test_a_body_of_another_build_is_followed_where_copied_parameters_are_not(pair):
    alike = other_build(pair)
    body = alike.target
    params = random_parameters("smplx", 4, seed=6)
    for side, joints in (("left", slice(25, 40)), ("right", slice(40, 55))):
        params[f"{side}_hand_pose"] = -pair.source.rig.mean[joints].expand(4, 15, 3)
    params["transl"] = torch.zeros(4, 3)
    same = torch.tensor(pair.to_target.same)
    found = {}
    with torch.no_grad():
        mesh = pair.to_target(pair.source.vertices(params))
        for steps in (0, 6):
            pose, _ = alike.fitter(mesh[:, alike.fitter.vertices], alike.start(params), steps=steps)
            given = {**body.rig.poses(pose.rotations), "betas": pose.betas, "transl": pose.transl}
            found[steps] = (body.rig.vertices(given) - mesh)[:, same].norm(dim=2).mean(1)
    assert found[0].min() > 0.03
    assert found[6].max() < 0.004
