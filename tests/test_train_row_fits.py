"""Fits of rows, and what they share, on bodies that no file holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from neuralannot.body_models import load_body_model
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.synthetic.motions import load_poses
from neuralannot.train import preparation
from neuralannot.train.fitting.adaptation import adapted
from neuralannot.train.fitting.charts import Chart, State
from neuralannot.train.fitting.gaussians import open_gaussian
from neuralannot.train.joint_points import joint_points
from neuralannot.train.method_options import RefineOptions
from neuralannot.train.picture_cameras import PictureCameras, seen_through, virtual_cameras
from neuralannot.train.preparation import prepare
from neuralannot.train.row_fits import RowFits, Shared
from neuralannot.train.smplify.placing import Torso
from neuralannot.train.targets import Targets

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
COUNT = 12
WHO = np.array([5, -1, 9, 5, 2, 9, 9, 5, -1, 2, 5, 7])  # 7 is seen once


@pytest.fixture(scope="module")
def people() -> Any:
    """Chart, moments, torso, known joints and the true bodies, each person's with one shape."""
    body, joint_set = load_body_model("smpl"), JOINT_SETS["human36m-17"]
    chart, points = Chart(body), joint_points(body, [joint_set])
    moments = points.moments()
    rng = np.random.default_rng(0)
    poses = load_poses()
    chosen = rng.choice(np.flatnonzero(poses.clip == 2), COUNT)
    headings = Rotation.from_euler("y", np.linspace(0, 2 * np.pi, COUNT, endpoint=False)[:, None])
    upright = Rotation.from_euler("x", np.pi)
    codes = rng.normal(0, 1, (10, 10))
    true = State(
        torch.tensor((upright * headings).as_matrix(), dtype=torch.float32),
        torch.tensor(poses.body_pose[chosen]).view(COUNT, -1, 3),
        torch.tensor(
            np.where(WHO[:, None] < 0, rng.normal(0, 1, (COUNT, 10)), codes[WHO]), dtype=torch.float32
        ),
        torch.tensor(rng.normal([0, 0, 4], 0.3, (COUNT, 3)), dtype=torch.float32),
    )
    names = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")
    chosen = torch.tensor([joint_set.joints.index(name) for name in names])
    rest = chart.rest(1, torch.zeros(1))
    torso = Torso.of(chosen, moments(chart.rotations(rest), rest.codes)[0, chosen].detach())
    return chart, moments, torso, points.known, true


def row_fits(people: Any, *, picture: bool = False, missing: float = 0.0, **shared: Any) -> RowFits:
    chart, moments, torso, known, true = people
    with torch.no_grad():
        joints = moments(chart.rotations(true), true.codes) + true.transl[:, None]
    drawn = torch.rand(joints.shape[:2], generator=torch.Generator().manual_seed(0))
    valid = drawn >= missing
    cameras = None
    if picture:
        rng = np.random.default_rng(1)
        focal = np.repeat(rng.uniform(400, 700, (COUNT, 1)), 2, 1).astype(np.float32)
        cameras = PictureCameras(focal, rng.uniform(50, 200, (COUNT, 2)).astype(np.float32))
    pixels = joints[..., :2]
    if cameras is not None:
        lens, middle = (torch.from_numpy(v)[:, None] for v in (cameras.focal, cameras.princpt))
        pixels = joints[..., :2] / joints[..., 2:] * lens + middle
    given = {
        "noise": 0.5 if picture else 0.001,
        "followed": 1.0,
        "off": 0.0,
        "prior": open_gaussian(),
        "shapes": torch.zeros(0, 10),
        "of": np.full(COUNT, -1),
    }
    return RowFits(
        chart=chart,
        moments=moments,
        known=known,
        torso=torso,
        targets=Targets(
            pixels,
            valid,
            torch.where(valid[..., None], joints, torch.zeros(())),
            valid,
            {},
            torch.zeros(COUNT, dtype=torch.bool),
        ),
        cameras=cameras,
        near=None,
        codes_weight=torch.ones(10),
        shared=Shared(**(given | shared)),
    )


def columns(chart: Chart, state: State) -> dict[str, np.ndarray]:
    """As a network's estimates."""
    found = {name: value.numpy() for name, value in chart.parameters(state).items()}
    return found | {"error": np.zeros(len(state), np.float32)}


# --- what a network says of joints


def best_share(worse: float) -> float:
    """Of the second of two estimates, `worse` times as wrong, in the mean of least variance (errors that go
    together by half), by trying all."""
    shares = np.linspace(0, 1, 100_001)
    variance = (1 - shares) ** 2 + (worse * shares) ** 2 + shares * (1 - shares) * worse
    return float(shares[variance.argmin()])


@pytest.mark.parametrize(("off", "worse"), [(0.004, 1.0), (0.01 * 2**0.5, 2**0.5), (0.05, 2.0)])
@pytest.mark.parametrize("noise", [0.001, 0.01])
def test_evidence_filled_is_two_measurements_of_each_joint(people, off, worse, noise):
    """`worse`: so many times the error of a fit to the noisy joints, 7.07 mm, is the network's, at most 2."""
    fits = row_fits(people, missing=0.3, noise=noise, off=off, followed=0.5)
    rows = np.array([7, 2, 4])
    known = fits.known.clone()
    known[3] = False
    fits = replace(fits, known=known)
    evidence = replace(fits.exact(fits.evidence(rows)), scale=1e3)  # plain squares
    evidence.valid[2] = False  # nobody knows where this one is
    made = torch.Generator().manual_seed(1)
    shape = evidence.joints.shape
    fill = evidence.joints + 0.02 * torch.randn(shape, generator=made)
    filled = fits.filled(evidence, fill, noise)
    assert not filled.valid[2].any()
    assert not filled.valid[:, 3].any()
    assert (filled.valid[:2] == known).all()

    def slow(posed):
        """Each measurement's squares over twice its variance, one after another."""
        total = np.zeros(3)
        for body in range(2):
            for joint in np.flatnonzero(known):
                given, said = evidence.joints[body, joint], fill[body, joint]
                if evidence.valid[body, joint]:
                    total[body] += float((posed[body, joint] - given).square().sum()) / (2 * noise**2)
                    if noise > 0.002:
                        share = best_share(worse)
                        variance = noise**2 * (1 - share) / max(share, 1e-9)
                        total[body] += float((posed[body, joint] - said).square().sum()) / (2 * variance)
                else:
                    sd = max(2 * max(off, noise), noise)
                    total[body] += float((posed[body, joint] - said).square().sum()) / (2 * sd**2)
        return total

    one, two = (evidence.joints + 0.1 * torch.randn(shape, generator=made) for _ in range(2))
    found = filled.energy(one) - filled.energy(two)
    np.testing.assert_allclose(found, slow(one) - slow(two), rtol=1e-4, atol=1e-2)
    # Loosely, a joint that is guessed is as good as one that is seen.
    loose = fits.filled(evidence, fill, 1.0)
    assert (loose.confidence[:2][~evidence.valid[:2]] == 1).all()
    torch.testing.assert_close(loose.joints, filled.joints)
    assert fits.filled(evidence, None, noise) is evidence


def test_a_network_is_asked_for_joints_only_where_it_is_known_how_far_it_is_off(people):
    chart, true = people[0], people[4]
    start, rows = columns(chart, true), np.arange(COUNT)
    assert row_fits(people).fill(rows, start) is None
    assert row_fits(people, off=0.01).fill(rows, None) is None
    fits = row_fits(people, off=0.01)
    torch.testing.assert_close(fits.fill(rows, start), fits.evidence(rows).joints, rtol=0, atol=1e-5)


def test_evidence_is_never_more_exact_than_the_joints(people):
    for picture, loose, wide, scale in ((False, 0.03, 0.3, 0.1), (True, 6.0, 60.0, 20.0)):
        for noise in (loose / 60, 10 * loose):
            fits = row_fits(people, picture=picture, noise=noise)
            fits = replace(fits, known=fits.known & (torch.arange(17) != 3))
            first = fits.evidence(np.arange(3))
            assert (first.valid == fits.known).all()  # what the body has not is not there
            exact = fits.exact(first)
            assert first.weight == pytest.approx(1 / (2 * max(loose, noise) ** 2))
            assert first.scale == pytest.approx(max(wide, 5 * noise))
            assert exact.weight == pytest.approx(1 / (2 * noise**2))
            assert exact.scale == pytest.approx(max(scale, 5 * noise))


def test_a_network_s_estimates_are_seen_as_its_own_camera_shows_them(people):
    chart, moments, _, _, true = people
    rows = np.array([4, 0, 9])
    fits = row_fits(people, picture=True)
    wanted = true.rows(torch.from_numpy(rows))
    far = seen_through(wanted, chart, moments, fits.cameras.rows(rows), virtual_cameras(3))
    back = fits.of_network(rows, columns(chart, far))
    torch.testing.assert_close(back.transl, wanted.transl, rtol=0, atol=2e-3)
    torch.testing.assert_close(back.root, wanted.root, rtol=0, atol=1e-4)
    lost = columns(chart, far)
    lost["transl"][1] = np.nan
    assert row_fits(people).of_network(rows, lost).transl.isfinite().all()


# --- starts


@pytest.mark.parametrize(("picture", "starts"), [(False, 1), (True, 4)])
@pytest.mark.parametrize("has_network", [False, True])
def test_each_row_has_the_likeliest_of_its_fits(people, monkeypatch, picture, starts, has_network):
    """Of a network's estimate and of rest in all headings, whatever their energies are."""
    fits = row_fits(people, picture=picture)
    rows = np.array([8, 3, 5, 0, 11, 2])
    energies = torch.tensor(np.random.default_rng(3).permuted(np.tile(np.arange(5.0), (6, 1)), axis=1))
    begun = []

    def ended(self, state, at, evidence, fill, *, from_rest):
        number = len(begun)
        begun.append((state, from_rest))
        return replace(state, pose=torch.full_like(state.pose, number)), energies[:, number]

    monkeypatch.setattr(RowFits, "_from", ended)
    start = columns(people[0], people[4].rows(torch.from_numpy(rows))) if has_network else None
    found = fits.fitted(rows, start)
    assert [from_rest for _, from_rest in begun] == [False] * has_network + [True] * starts
    best = energies[:, : len(begun)].argmin(1)
    np.testing.assert_array_equal(found.pose[:, 0, 0], best)
    for row, number in enumerate(best.tolist()):
        torch.testing.assert_close(found.root[row], begun[number][0].root[row])
        torch.testing.assert_close(found.transl[row], begun[number][0].transl[row])
    # A fit that stays about the network's rotations begins there alone.
    begun.clear()
    near = replace(fits, near=0.2).fitted(rows, start)
    assert len(begun) == (1 if has_network else starts)
    if has_network:
        assert (near.pose == 0).all()


def test_bodies_in_pictures_begin_upright_in_every_heading(people):
    """One of them faces as the body does, whichever way that is, and all look as long as it does."""
    fits, rows = row_fits(people, picture=True), np.arange(COUNT)
    true = people[4]
    begun = fits.likeliest(fits.evidence(rows))
    turns = torch.stack([state.root.transpose(1, 2) @ true.root for state in begun])
    angle = Rotation.from_matrix(turns.flatten(0, 1).numpy()).magnitude().reshape(4, COUNT)
    assert (angle.min(0) < np.pi / 4 + 0.3).all()
    assert len(set(angle.argmin(0))) == 4
    for state in begun:
        np.testing.assert_array_less(
            (state.transl[:, 2] / true.transl[:, 2]).log().abs().numpy(), np.log(1.5)
        )


def test_a_fit_that_stays_near_the_network_s_does(people):
    fits, rows = replace(row_fits(people), near=1e-4), np.arange(4)
    wrong = people[4].rows(slice(0, 4))
    wrong = replace(wrong, pose=torch.full_like(wrong.pose, 1.0))
    found = fits.fitted(rows, columns(people[0], wrong))
    assert (found.pose - wrong.pose).abs().max() < 0.05
    loose = replace(fits, near=3.0).fitted(rows, columns(people[0], wrong))
    assert (loose.pose - wrong.pose).abs().max() > 0.3


def test_a_fit_that_is_no_number_is_never_the_better_one(people):
    fits = row_fits(people)
    rows = np.arange(3)
    start = columns(people[0], people[4].rows(slice(0, 3)))
    start["body_pose"][1] = np.nan
    found = fits.fitted(rows, start)
    assert found.pose.isfinite().all()
    assert (fits.error(fits.evidence(rows), found) < 0.01).all()


@pytest.mark.parametrize("picture", [False, True])
def test_bodies_of_known_and_own_shapes_are_fitted_row_by_row(people, picture):
    """Together as each alone, in whatever order; known shapes stay as they are."""
    true = people[4]
    of = np.array([1, -1, 0, 1, -1, 0, 0, 1, -1, -1, 1, -1])
    shapes = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    off = 0.0 if picture else 0.02
    fits = row_fits(people, picture=picture, missing=0.2, shapes=shapes, of=of, off=off)
    rows = np.array([10, 1, 7, 2, 4])
    state = true.rows(torch.from_numpy(rows))
    state = replace(state, pose=state.pose + 0.1)
    fill = None if picture else fits.posed(state)
    evidence = fits.evidence(rows)
    together, energy = fits._from(state, rows, evidence, fill, from_rest=False)
    for at, row in enumerate(rows):
        one = slice(at, at + 1)
        part = None if fill is None else fill[one]
        alone, its = fits._from(state.rows(one), rows[one], evidence.rows(one), part, from_rest=False)
        torch.testing.assert_close(its[0], energy[at], rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(alone.pose[0], together.pose[at], rtol=0, atol=2e-2)
        if of[row] >= 0:
            torch.testing.assert_close(together.codes[at], shapes[of[row]])
        else:
            assert (together.codes[at] - state.codes[at]).abs().max() > 1e-4


# --- what rows tell


def test_each_person_s_shape_is_that_of_their_frames(people, monkeypatch):
    true = people[4]
    fits = row_fits(people)
    options = RefineOptions(noise=0.001, adapt=False)
    rows = np.array([11, 4, 0, 9, 3, 1, 7, 2, 5, 8])  # of 9 two, of 5 three, of 2 two frames
    found = prepare(fits, options, rows, None, WHO).shared
    number = {who: at for at, who in enumerate(np.unique(WHO))}
    seen = {5, 9, 2}
    assert found.of.tolist() == [number[who] if who in seen else -1 for who in WHO]  # rows not asked too
    shapes = {who: found.shapes[number[who]] for who in seen}
    truth = {who: true.codes[int(np.flatnonzero(who == WHO)[0])] for who in seen}
    for who in seen:
        off = {other: float((shapes[who] - truth[other]).norm()) for other in seen}
        assert min(off, key=lambda other: off[other]) == who
    # However many persons are fitted at once.
    monkeypatch.setattr(preparation, "_BATCH", 1)
    again = prepare(fits, options, rows, None, WHO).shared
    np.testing.assert_array_equal(again.of, found.of)
    torch.testing.assert_close(again.shapes, found.shapes, rtol=0, atol=0.05)
    # Nobody to share with.
    for given, person in ((options, None), (replace(options, share_shape=False), WHO)):
        assert (prepare(fits, given, rows, None, person).shared.of == -1).all()


def test_how_far_a_network_is_off_is_all_that_counts_of_it_with_joints_in_space(people):
    chart, true = people[0], people[4]
    fits = row_fits(people)
    rows = np.array([11, 4, 0, 9, 3, 7])
    some = true.rows(torch.from_numpy(rows))
    shift = torch.linspace(0.01, 0.06, 6)
    start = columns(chart, replace(some, transl=some.transl + shift[:, None] * torch.tensor([0.6, 0.0, 0.8])))
    start["error"][5], start["transl"][5] = np.nan, np.nan
    options = RefineOptions(adapt=False)
    with_it, without = (prepare(fits, options, rows, said, WHO).shared for said in (start, None))
    assert with_it.off == pytest.approx(float(shift[:5].square().mean().div(3).sqrt()), rel=1e-3)
    assert without.off == 0
    assert with_it.noise == without.noise
    torch.testing.assert_close(with_it.shapes, without.shapes)
    lost = {name: np.full_like(value, np.nan) for name, value in start.items()}
    assert prepare(fits, options, rows, lost, None).shared.off == 0


def noisy(fits: RowFits, noise: float) -> RowFits:
    """With noise on all joints."""
    name = "joints_cam" if fits.is_mocap else "joints_2d"
    joints = getattr(fits.targets, name)
    joints = joints + noise * torch.randn(joints.shape, generator=torch.Generator().manual_seed(0))
    return replace(fits, targets=replace(fits.targets, **{name: joints}))


@pytest.mark.parametrize("picture", [False, True])
def test_the_noise_is_what_fits_leave_over(people, monkeypatch, picture):
    noise = 3.0 if picture else 0.015
    fits = noisy(row_fits(people, picture=picture), noise)
    monkeypatch.setattr(RowFits, "fitted", lambda _, rows, start: people[4].rows(torch.from_numpy(rows)))
    found = prepare(fits, RefineOptions(share_shape=False), np.arange(COUNT), None, None).shared
    assert found.noise == pytest.approx(noise, rel=0.25)
    assert found.prior is fits.shared.prior  # a dozen tell nothing of how people move


def test_poses_are_learnt_each_round_from_the_prior_given_and_what_is_said_is_not_measured(
    people, monkeypatch
):
    fits, rows = noisy(row_fits(people), 0.015), np.arange(5, COUNT)
    monkeypatch.setattr(RowFits, "fitted", lambda _, rows, start: people[4].rows(torch.from_numpy(rows)))
    monkeypatch.setattr(preparation, "_FEW", len(rows))
    taken, made = [], []

    def recorded(prior, poses, covariances):
        taken.append(prior)
        assert len(poses) == len(rows)
        made.append(adapted(prior, poses, covariances))
        return made[-1]

    monkeypatch.setattr(preparation, "adapted", recorded)
    options = RefineOptions(noise=0.02, share_shape=False)
    found = prepare(fits, options, rows, None, WHO).shared
    assert len(taken) == 3
    assert all(prior is fits.shared.prior for prior in taken)
    assert found.prior is made[-1]
    assert found.noise == fits.shared.noise  # which the options say when the fits are made
    assert prepare(fits, replace(options, adapt=False), rows, None, WHO).shared.prior is fits.shared.prior
    assert len(taken) == 3


def test_missing_joints_go_where_the_network_has_them(people):
    chart, true = people[0], people[4]
    fits, rows = row_fits(people, missing=0.4), np.arange(4)
    start = columns(chart, true.rows(slice(0, 4)))
    hidden = ~fits.evidence(rows).valid
    clean = fits.posed(true.rows(slice(0, 4)))
    off = {}
    for name, given in (("with", fits.under(off=0.002)), ("without", fits)):
        found = given.posed(given.fitted(rows, {**start, "body_pose": start["body_pose"] + 0.01}))
        off[name] = (found - clean).norm(dim=2)[hidden].mean()
    assert off["with"] < 0.02
    assert off["with"] < 0.7 * off["without"]


def test_in_pictures_only_estimates_that_are_numbers_tell_of_others(people, monkeypatch):
    fits, rows = row_fits(people, picture=True), np.array([9, 2, 4, 7])
    start = columns(people[0], people[4].rows(torch.from_numpy(rows)))
    start["error"][1] = np.nan
    told = []

    def recorded(given, options, among, places, begun, person):
        told.append(places.tolist())
        return given

    monkeypatch.setattr(preparation, "_told", recorded)
    prepare(fits, RefineOptions(), rows, start, None)
    prepare(fits, RefineOptions(), rows, None, None)
    assert told == [[0, 2, 3], [0, 1, 2, 3]]


def test_samples_are_fitted_from_their_own_estimates(people, monkeypatch):
    fits, rows = row_fits(people, picture=True), np.array([9, 2, 4, 7, 0])
    start = columns(people[0], people[4].rows(torch.from_numpy(rows)))
    start["error"][1] = np.nan

    class FittedError(Exception):
        pass

    def recorded(_, among, begun):
        assert among.tolist() == [9, 7, 0]  # at most three, evenly, of those that are numbers
        np.testing.assert_array_equal(begun["transl"], start["transl"][[0, 3, 4]])
        raise FittedError

    monkeypatch.setattr(RowFits, "fitted", recorded)
    monkeypatch.setattr(preparation, "_SAMPLES", 3)
    with pytest.raises(FittedError):
        prepare(fits, RefineOptions(), rows, start, None)
