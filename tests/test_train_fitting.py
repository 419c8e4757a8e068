"""Fitting bodies to joints: damped least squares, the pose's distributions, charts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from scipy.stats import multivariate_normal

from neuralannot.body_models import load_body_model
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.parameters import human_model
from neuralannot.synthetic.motions import load_poses
from neuralannot.train.fitting import levenberg
from neuralannot.train.fitting.charts import Chart, State, left_jacobian, with_codes
from neuralannot.train.fitting.evidence import Evidence
from neuralannot.train.fitting.gaussians import learn_gaussians, nearness, open_gaussian
from neuralannot.train.fitting.joint_fits import fit_joints
from neuralannot.train.fitting.levenberg import Beliefs, _Solver, levenberg_marquardt
from neuralannot.train.joint_points import joint_points

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

TORSO = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")


@pytest.fixture(scope="module")
def smpl():
    body = load_body_model("smpl")
    joint_set = JOINT_SETS["human36m-17"]
    torso = torch.tensor([joint_set.joints.index(name) for name in TORSO])
    return body, Chart(body), joint_points(body, [joint_set]).moments(), torso


def people(chart: Chart, count: int, *, persons: int = 3, clip: int = 2) -> tuple[State, torch.Tensor]:
    """Bodies of the clip in any heading, and whose shape each has."""
    rng = np.random.default_rng(0)
    poses = load_poses()
    pose = poses.body_pose[rng.choice(np.flatnonzero(poses.clip == clip), count)]
    who = np.arange(count) % persons
    state = State(
        torch.tensor(Rotation.random(count, random_state=1).as_matrix(), dtype=torch.float32),
        torch.tensor(pose),
        torch.tensor(rng.normal(0, 1, (persons, 10))[who], dtype=torch.float32),
        torch.tensor(rng.normal([0, 0, 4], 1, (count, 3)), dtype=torch.float32),
    )
    return state, torch.tensor(who)


def joints_of(chart, moments, state) -> torch.Tensor:
    return moments(chart.rotations(state), state.codes) + state.transl[:, None]


def other_clips() -> np.ndarray:
    poses = load_poses()
    return poses.body_pose[poses.clip != 2].reshape(-1, 63)


# --- charts


@pytest.mark.parametrize("model", ["smpl", "smplx", "mano", "flame"])
def test_a_state_and_its_parameters_are_the_same_body(model):
    body = load_body_model(model, side="right" if model == "mano" else None)
    chart = Chart(body)
    made = torch.Generator().manual_seed(0)
    shapes = human_model(model).shapes
    names = ("global_orient", *chart.names, *chart.code_names, "transl")
    given = {n: 0.4 * torch.randn(5, *shapes[n], generator=made) for n in names}
    if model == "smpl":
        given["body_pose"][:, 21:] = 0  # no data set's joints turn SMPL's own hands
    state = chart.state(given)
    back = chart.parameters(state)
    assert set(back) == set(given)
    for name, value in given.items():
        torch.testing.assert_close(back[name], value, rtol=0, atol=2e-6)
    posed = body.moments()(chart.rotations(state), state.codes) + state.transl[:, None]
    torch.testing.assert_close(posed, body(**given).joints, rtol=0, atol=2e-6)
    with pytest.raises(ValueError, match=f"{model} has no rotations tail_pose"):
        Chart(body, ["tail_pose"])


@pytest.mark.parametrize("angle", [0.0, 1e-6, 1e-3, 1.0, 3.1])
def test_the_left_jacobian_is_that_of_scipy_s_rotations(angle):
    axis = np.array([0.6, -0.64, 0.48])
    vector = angle * axis
    found = left_jacobian(torch.tensor(vector)).numpy()
    step = 1e-6
    slow = [
        (Rotation.from_rotvec(vector + d) * Rotation.from_rotvec(vector - d).inv()).as_rotvec() / (2 * step)
        for d in step * np.eye(3)
    ]
    np.testing.assert_allclose(found, np.transpose(slow), atol=1e-8)


# --- distributions


def test_one_distribution_is_the_poses_mean_and_spread():
    poses = np.random.default_rng(0).normal([1, 2, 3], [0.3, 0.1, 0.5], (4000, 3))
    found = learn_gaussians(poses, floor=0.01)
    np.testing.assert_allclose(found.means[0], poses.mean(0), atol=1e-6)
    covariance = np.cov(poses.T, bias=True) + 1e-4 * np.eye(3)
    np.testing.assert_allclose(np.linalg.inv(found.precisions[0].double()), covariance, atol=1e-5)
    some = torch.tensor(poses[:50], dtype=torch.float32)
    logs = multivariate_normal(poses.mean(0), covariance).logpdf(poses[:50])
    off = found.energy(some).numpy() + logs
    np.testing.assert_allclose(off, off[0], atol=1e-3)  # minus the logarithm, up to a constant


def test_two_heaps_become_two_distributions():
    rng = np.random.default_rng(1)
    poses = np.concatenate([rng.normal(-1, 0.1, (300, 6)), rng.normal(1, 0.2, (100, 6))])
    found = learn_gaussians(poses, count=2, floor=0.01)
    low, high = sorted(range(2), key=lambda n: float(found.means[n, 0]))
    np.testing.assert_allclose(found.means[low], -1, atol=0.05)
    np.testing.assert_allclose(found.means[high], 1, atol=0.1)
    nearest = found.nearest(torch.tensor(poses, dtype=torch.float32))
    assert (nearest[:300] == low).all()
    assert (nearest[300:] == high).all()
    with pytest.raises(ValueError, match="3 poses cannot make 4"):
        learn_gaussians(poses[:3], count=4)


# --- fits


def test_joints_without_noise_are_met_within_a_millimetre(smpl):
    _, chart, moments, torso = smpl
    true, persons = people(chart, 24)
    joints = joints_of(chart, moments, true)
    valid = torch.ones(joints.shape[:2], dtype=torch.bool)
    prior = learn_gaussians(other_clips(), floor=0.1)
    for given in ({}, {"prior": prior}, {"prior": prior, "persons": persons}):
        found = fit_joints(chart, moments, joints, valid, torso=torso, **given)
        assert found.error.mean() < 1.5e-3, given
        torch.testing.assert_close(found.joints, joints_of(chart, moments, found.state))
        if "persons" in given:
            for person in range(3):
                codes = found.state.codes[persons == person]
                torch.testing.assert_close(codes, codes[:1].expand_as(codes))


def test_what_is_known_of_poses_finds_missing_joints(smpl):
    """A prior of other motions than those fitted, and one shape a person, against neither."""
    _, chart, moments, torso = smpl
    true, persons = people(chart, 40)
    joints = joints_of(chart, moments, true)
    valid = torch.rand(joints.shape[:2], generator=torch.Generator().manual_seed(0)) > 0.2
    given = torch.where(valid[..., None], joints, torch.nan)
    prior = learn_gaussians(other_clips(), floor=0.1)
    plain = fit_joints(chart, moments, given, valid, torso=torso)
    better = fit_joints(chart, moments, given, valid, torso=torso, prior=prior, persons=persons)
    off = [(fits.joints - joints).norm(dim=2)[~valid].mean() for fits in (plain, better)]
    assert off[1] < 0.6 * off[0]


def test_a_fit_does_not_depend_on_its_neighbours_nor_on_the_frame(smpl):
    _, chart, moments, torso = smpl
    true, _ = people(chart, 6)
    joints = joints_of(chart, moments, true)
    joints = joints + 0.01 * torch.randn(joints.shape, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(joints.shape[:2], dtype=torch.bool)
    prior = learn_gaussians(other_clips(), floor=0.1)

    def fitted(some):
        return fit_joints(chart, moments, some, valid[: len(some)], torso=torso, prior=prior, noise=0.01)

    together, alone = fitted(joints), fitted(joints[2:3])
    torch.testing.assert_close(together.state.pose[2:3], alone.state.pose, rtol=0, atol=1e-3)
    turn = torch.tensor(Rotation.from_euler("xyz", [0.5, -1, 2]).as_matrix(), dtype=torch.float32)
    turned = fitted(joints @ turn.T + torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(turned.state.pose, together.state.pose, rtol=0, atol=2e-3)
    torch.testing.assert_close(turned.state.root, turn @ together.state.root, rtol=0, atol=2e-3)


@pytest.mark.slow
def test_the_energy_ends_where_scipy_s_does(smpl):
    """The same sum of squares, solved by scipy from the same start."""
    _, chart, moments, _ = smpl
    true, _ = people(chart, 1)
    wide = moments.double()
    try:
        true = true.to(torch.float64)
        joints = joints_of(chart, wide, true)
        valid = torch.ones(joints.shape[:2], dtype=torch.bool)
        evidence = Evidence(joints, valid, weight=5e3, scale=1e3)  # so wide a scale is plain squares
        start = State(true.root, 0 * true.pose, 0 * true.codes, true.transl)
        found = levenberg_marquardt(chart, wide, evidence, Beliefs(pose_weight=4.0), start, steps=60)

        def residuals(step):
            state = start.moved(torch.tensor(step)[None])
            off = (joints_of(chart, wide, state) - joints).flatten().numpy() * np.sqrt(2 * 5e3)
            return np.concatenate([off, 2 * state.pose.flatten().numpy(), state.codes[0].numpy()])

        slow = least_squares(residuals, np.zeros(len(chart)), method="lm", max_nfev=20000)
        assert float(found.energy) <= slow.cost * 1.001
    finally:
        moments.float()


def test_pictures_are_fitted_through_their_camera(smpl):
    _, chart, moments, _ = smpl
    true, _ = people(chart, 8)
    joints = joints_of(chart, moments, true)
    joints = joints + torch.tensor([0.0, 0.0, 36.0])
    true = State(true.root, true.pose, true.codes, true.transl + torch.tensor([0.0, 0.0, 36.0]))
    focal, princpt = torch.full((8, 2), 5000.0), torch.full((8, 2), 128.0)
    pixels = joints[..., :2] / joints[..., 2:] * 5000 + 128
    valid = torch.ones(joints.shape[:2], dtype=torch.bool)
    evidence = Evidence(pixels, valid, weight=0.5, scale=100.0, focal=focal, princpt=princpt)
    made = torch.Generator().manual_seed(0)
    near = true.pose + 0.2 * torch.randn(true.pose.shape, generator=made)
    start = State(true.root, near, 0 * true.codes, true.transl + 0.1)
    found = levenberg_marquardt(chart, moments, evidence, Beliefs(pose_weight=1.0), start, steps=25)
    seen = joints_of(chart, moments, found.state)
    seen = seen[..., :2] / seen[..., 2:] * 5000 + 128
    assert (seen - pixels).norm(dim=2).mean() < 2


def test_bodies_without_joints_and_no_bodies(smpl):
    _, chart, moments, torso = smpl
    prior = learn_gaussians(other_clips(), floor=0.1)
    none = torch.zeros(2, 17, dtype=torch.bool)
    found = fit_joints(chart, moments, torch.full((2, 17, 3), torch.nan), none, torso=torso, prior=prior)
    assert torch.isnan(found.error).all()
    mean = prior.means.view(1, -1, 3).expand(2, -1, -1)
    torch.testing.assert_close(found.state.pose, mean, rtol=0, atol=1e-3)
    empty = fit_joints(chart, moments, torch.zeros(0, 17, 3), none[:0], torso=torso, prior=prior)
    assert len(empty.state) == len(empty.error) == 0


@pytest.mark.parametrize(
    ("weight", "shared"), [("a number", False), ("one a body", False), ("one a body", True), ("none", True)]
)
def test_bodies_left_alone_end_where_they_would_have_anyway(smpl, monkeypatch, weight, shared):
    """Some begin where they end, the others far off: with and without computing the first ones further."""
    _, chart, moments, _ = smpl
    true, _ = people(chart, 9)
    who = torch.tensor([1, 0, 2, 2, 0, 3, 1, 3, 0]) if shared else torch.arange(9)  # not one after another
    true = with_codes(true, true.codes[who])
    joints = joints_of(chart, moments, true)
    joints = joints + 0.01 * torch.randn(joints.shape, generator=torch.Generator().manual_seed(0))
    evidence = Evidence(joints, torch.ones(9, 17, dtype=torch.bool), weight=5e3, scale=0.1)
    near = {"none": 0.0, "a number": 25.0, "one a body": torch.linspace(5, 45, 9)}[weight]
    about = None if weight == "none" else true.pose
    beliefs = Beliefs(pose_weight=4.0, near=about, near_weight=near)

    def lowered(start, steps):
        persons = who if shared else None
        return levenberg_marquardt(chart, moments, evidence, beliefs, start, steps=steps, persons=persons)

    there = lowered(true, 40).state
    far = true.pose + 0.3 * torch.randn(true.pose.shape, generator=torch.Generator().manual_seed(1))
    begin = there.where((who == 0) | (who == 2), replace(there, pose=far, transl=there.transl + 0.2))
    sizes, of_groups = [], _Solver.of_groups

    def counted(self, keep, rows):
        sizes.append(len(rows))
        return of_groups(self, keep, rows)

    with monkeypatch.context() as patch:
        patch.setattr(_Solver, "of_groups", counted)
        found = lowered(begin, 40)
    assert sizes[0] < 9
    assert sizes == sorted(sizes, reverse=True)
    monkeypatch.setattr(levenberg, "_CALM", 1000)
    all_the_way = lowered(begin, 40)
    torch.testing.assert_close(found.energy, all_the_way.energy, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.state.pose, all_the_way.state.pose, rtol=0, atol=2e-2)
    # Energies are those of the states that come back, row by row.
    stayed = lowered(found.state, 0)
    torch.testing.assert_close(stayed.energy, found.energy, rtol=1e-4, atol=1e-4)
    for person in range(4 if shared else 9):
        codes = found.state.codes[who == person]
        torch.testing.assert_close(codes, codes[:1].expand_as(codes))


def test_what_is_refused(smpl):
    _, chart, moments, torso = smpl
    joints, valid = torch.zeros(2, 17, 3), torch.ones(2, 17, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"joints must be \(B, 17, 3\), got \(2, 16, 3\)"):
        fit_joints(chart, moments, joints[:, :16], valid, torso=torso)
    with pytest.raises(ValueError, match=r"valid must be \(2, 17\) bool, got \(2, 17\) torch.float32"):
        fit_joints(chart, moments, joints, valid.float(), torso=torso)
    with pytest.raises(ValueError, match="noise must be positive, got 0"):
        fit_joints(chart, moments, joints, valid, torso=torso, noise=0)


# --- the distribution that ships


def test_near_joints_are_believed_to_go_together_and_far_ones_less():
    factors = nearness([-1, 0, 1, 0], [1, 2, 3], reach=2.0)
    assert factors.shape == (9, 9)
    np.testing.assert_allclose(factors[::3, ::3], np.exp(-np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0]]) / 2))
    assert np.linalg.eigvalsh(factors).min() > -1e-12  # so that a covariance stays one


def test_the_distribution_that_ships_is_one_and_knows_people_from_contortions():
    prior = open_gaussian()
    assert prior.means.shape == (1, 63)
    assert torch.linalg.eigvalsh(prior.precisions[0].double()).min() > 0
    poses = load_poses()
    held = torch.tensor(poses.body_pose[poses.clip == 2]).flatten(1)  # not learnt from
    knees = held.clone()
    knees[:, [9, 12]] *= -1  # bent the wrong way, rows 3 and 4 about x
    knees[:, [9, 12]] -= 0.5
    assert prior.energy(held).median() < 0.5 * prior.energy(knees).median()
    assert len(prior.fingerprint) == 16


def test_the_distribution_that_ships_finds_missing_joints_better_than_none(smpl):
    _, chart, moments, torso = smpl
    truth, persons = people(chart, 40)
    joints = joints_of(chart, moments, truth)
    valid = torch.rand(joints.shape[:2], generator=torch.Generator().manual_seed(1)) > 0.2
    given = {"torso": torso, "persons": persons}
    error = {}
    for name, prior in (("shipped", open_gaussian()), ("none", None)):
        fits = fit_joints(chart, moments, joints, valid, prior=prior, **given)
        error[name] = (fits.joints - joints).norm(dim=2)[~valid].mean().item()
    assert error["shipped"] < 0.6 * error["none"]
