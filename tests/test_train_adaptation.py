"""A pose prior adapted to a data set, and how uncertain fits are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from neuralannot.body_models import load_body_model
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.train.fitting.adaptation import adapted
from neuralannot.train.fitting.charts import Chart, State
from neuralannot.train.fitting.evidence import Evidence
from neuralannot.train.fitting.gaussians import PoseGaussians, isotropic, learn_gaussians
from neuralannot.train.fitting.levenberg import Beliefs, pose_covariance
from neuralannot.train.joint_points import joint_points

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


def covariance(prior: PoseGaussians) -> torch.Tensor:
    return torch.linalg.inv(prior.precisions[0].double())


def some_prior(size: int, seed: int = 0) -> PoseGaussians:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(size, size))
    spread = mixed @ mixed.T / size + 0.2 * np.eye(size)
    return PoseGaussians(
        torch.tensor(rng.normal(size=(1, size))),
        torch.tensor(np.linalg.inv(spread))[None],
        torch.zeros(1, dtype=torch.float64),
    )


def test_poses_that_are_known_exactly_are_counted():
    poses = torch.randn(500, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = adapted(some_prior(6), poses, torch.zeros(500, 6, 6), believed=1e-9)
    np.testing.assert_allclose(found.means[0], poses.mean(0), atol=1e-8)
    np.testing.assert_allclose(covariance(found), np.cov(poses.numpy().T, bias=True), atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 40), believed=st.floats(0.5, 1e3), seed=st.integers(0, 5))
def test_fits_that_joints_say_nothing_of_change_nothing(count, believed, seed):
    """They are at the prior's mean, as uncertain as it is: seen often, that is no evidence for narrowness."""
    prior = some_prior(4, seed)
    poses = prior.means.expand(count, 4)
    found = adapted(prior, poses, covariance(prior).expand(count, 4, 4), believed=believed)
    np.testing.assert_allclose(found.means, prior.means, atol=1e-9)
    np.testing.assert_allclose(found.precisions, prior.precisions, rtol=1e-7, atol=1e-8)


def test_every_round_makes_what_was_measured_likelier():
    """Measurements of parts of a pose, whose likelihood is known in closed form."""
    rng = np.random.default_rng(1)
    true, first = some_prior(3, seed=7), some_prior(3, seed=8)
    x = rng.multivariate_normal(true.means[0].numpy(), covariance(true).numpy(), size=300)
    looks = rng.normal(size=(300, 2, 3))  # two numbers of each, never the same
    noise = 0.05 * np.eye(2)
    seen = np.einsum("nij,nj->ni", looks, x) + rng.multivariate_normal([0, 0], noise, size=300)
    prior, likelihoods = first, []
    for _ in range(30):
        mean, spread = prior.means[0].numpy(), covariance(prior).numpy()
        likelihoods.append(
            sum(
                multivariate_normal(a @ mean, a @ spread @ a.T + noise).logpdf(y)
                for a, y in zip(looks, seen, strict=True)
            )
        )
        inner = np.einsum("nij,nik->njk", looks, looks) / 0.05 + np.linalg.inv(spread)
        after = np.linalg.inv(inner)
        right = np.einsum("nij,ni->nj", looks, seen) / 0.05 + np.linalg.inv(spread) @ mean
        poses = np.einsum("nij,nj->ni", after, right)
        prior = adapted(first, torch.tensor(poses), torch.tensor(after), believed=1e-9)
    gains = np.diff(likelihoods)
    assert (gains > -1e-6).all()
    assert likelihoods[-1] > likelihoods[0] + 100
    np.testing.assert_allclose(prior.means[0], true.means[0], atol=0.25)
    np.testing.assert_allclose(covariance(prior), covariance(true), atol=0.3)


def test_a_prior_that_is_believed_stays():
    prior = some_prior(3)
    poses, spread = torch.ones(10, 3), torch.eye(3).expand(10, 3, 3)
    found = adapted(prior, poses, spread, believed=1e9)
    np.testing.assert_allclose(found.precisions, prior.precisions, rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_is_refused():
    prior, poses, spread = some_prior(3), torch.zeros(5, 3), torch.zeros(5, 3, 3)
    with pytest.raises(ValueError, match="one distribution can be adapted, the prior has 2"):
        adapted(learn_gaussians(np.random.default_rng(0).normal(size=(40, 3)), count=2), poses, spread)
    with pytest.raises(ValueError, match=r"poses must be \(N, 3\) and covariances \(N, 3, 3\)"):
        adapted(prior, poses, spread[:4])
    with pytest.raises(ValueError, match=r"poses must be \(N, 3\)"):
        adapted(prior, torch.zeros(5, 4), spread)


@pytest.mark.parametrize("picture", [False, True])
def test_the_uncertainty_of_a_fit_is_the_inverse_of_its_energy_s_curvature(picture):
    """By differences, where nothing is left over and Gauss and Newton's matrix is exact."""
    body, joint_set = load_body_model("smpl"), JOINT_SETS["human36m-17"]
    chart, moments = Chart(body), joint_points(body, [joint_set]).moments().double()
    rng = np.random.default_rng(3)
    state = chart.rest(1, torch.zeros(1, dtype=torch.float64))
    pose = torch.tensor(rng.normal(0, 0.3, state.pose.shape))
    state = replace(state, pose=pose, transl=torch.tensor([[0.1, 0.2, 5.0]], dtype=torch.float64))
    joints = moments(chart.rotations(state), state.codes) + state.transl[:, None]
    camera = {}
    if picture:
        camera = {"focal": torch.full((1, 2), 600.0).double(), "princpt": torch.full((1, 2), 128.0).double()}
        joints = joints[..., :2] / joints[..., 2:] * 600 + 128
    noise = 1.0 if picture else 0.01
    evidence = Evidence(
        joints, torch.ones(1, 17, dtype=torch.bool), 1 / (2 * noise**2), 1e6 * noise, **camera
    )
    prior = isotropic(pose[0].numel(), 0.5)
    beliefs = Beliefs(prior=PoseGaussians(pose.flatten(1), prior.precisions.double(), prior.offsets))
    found = pose_covariance(chart, moments, evidence, beliefs, state)

    steps = 1e-5 * torch.eye(len(chart), dtype=torch.float64)
    sides = []
    for sign in (1, -1):
        moved = State(*(v.expand(len(chart), *v.shape[1:]) for v in vars(state).values())).moved(sign * steps)
        seen = moments(chart.rotations(moved), moved.codes) + moved.transl[:, None]
        if picture:
            seen = seen[..., :2] / seen[..., 2:] * 600 + 128
        parts = seen.flatten(1) / noise, moved.pose.flatten(1) / 0.5, moved.codes
        sides.append(torch.cat(parts, 1).numpy())
    slopes = (sides[0] - sides[1]) / 2e-5  # (unknowns, residuals)
    curvature = slopes @ slopes.T
    inverse = np.linalg.inv(curvature)
    np.testing.assert_allclose(found[0], inverse[3:66, 3:66], atol=1e-6)
