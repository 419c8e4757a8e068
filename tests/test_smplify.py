"""SMPLify-X: its energy, what it finds from 3D joints and from pictures, and what it says where it cannot."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from neuralannot.body_models import load_body_model
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.parameters import human_model
from neuralannot.synthetic.motions import load_poses
from neuralannot.train.fitting.charts import Chart
from neuralannot.train.fitting.evidence import Evidence
from neuralannot.train.fitting.gaussians import learn_gaussians
from neuralannot.train.joint_points import joint_points
from neuralannot.train.priors import load_prior
from neuralannot.train.smplify.adam import AdamOptions
from neuralannot.train.smplify.curvature import Rescaled, curvature
from neuralannot.train.smplify.fits import fit_smplify
from neuralannot.train.smplify.lbfgs import LbfgsOptions
from neuralannot.train.smplify.minimum import with_gradient
from neuralannot.train.smplify.objective import Objective, weighed
from neuralannot.train.smplify.parts import parts_of
from neuralannot.train.smplify.placing import Torso, placed_in_picture
from neuralannot.train.smplify.settings import Stage, published, tuned
from neuralannot.train.smplify.unknowns import Unknowns

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

FOCAL, MIDDLE = 5000.0, 128.0
FACING = Rotation.from_euler("x", math.pi)  # y up to y down, towards the camera
STAGE = Stage(4.0, 3.0, 2.0, 1.5, (1.0, 10.0, 10.0), 5.0)


class Model:
    """A body with the joints of a set, and bodies made with it."""

    def __init__(self, model: str, joint_set: str) -> None:
        self.body = load_body_model(model, side="right" if model == "mano" else None)
        self.set = JOINT_SETS[joint_set]
        self.points = joint_points(self.body, [self.set])
        self.parts = parts_of(model, self.set.joints, self.points.known)

    def joints(self, parameters):
        return self.points(**parameters)

    def people(self, count, *, turned=0.3, seed=0):
        """Parameters in front of the camera of a 256 px crop, and their joints in the camera's frame."""
        rng = np.random.default_rng(seed)
        shapes = human_model(self.body.model).shapes
        given = {"betas": torch.tensor(rng.normal(0, 0.7, (count, 10)), dtype=torch.float32)}
        if "body_pose" in shapes:
            poses = load_poses()
            rows = rng.choice(np.flatnonzero(poses.clip == 2), count)
            given["body_pose"] = torch.zeros(count, *shapes["body_pose"])
            given["body_pose"][:, :21] = torch.tensor(poses.body_pose[rows])
        for name, spread in (("hand_pose", 0.25), ("left_hand_pose", 0.15), ("right_hand_pose", 0.15)):
            if name in shapes:
                given[name] = torch.tensor(rng.normal(0, spread, (count, *shapes[name])), dtype=torch.float32)
        if "expression" in shapes:
            given["expression"] = torch.tensor(rng.normal(0, 0.7, (count, 10)), dtype=torch.float32)
            given["jaw_pose"] = torch.tensor(
                rng.uniform(0, [0.3, 0.02, 0.02], (count, 3)), dtype=torch.float32
            )
        root = FACING * Rotation.from_rotvec(rng.normal(0, turned, (count, 3)))
        given["global_orient"] = torch.tensor(root.as_rotvec(), dtype=torch.float32)
        given["transl"] = torch.zeros(count, 3)
        joints = self.joints(given)[:, self.points.known]
        centre, size = joints.mean(1), (joints - joints.mean(1)[:, None]).abs().amax((1, 2))
        depth = FOCAL * size / 100
        given["transl"] = torch.stack([0 * depth, 0 * depth, depth], 1) - centre
        return given, self.joints(given)

    def seen(self, joints, valid=None):
        """The joints' evidence in a picture."""
        valid = torch.ones(joints.shape[:2], dtype=torch.bool) if valid is None else valid
        pixels = joints[..., :2] / joints[..., 2:].clamp_min(0.1) * FOCAL + MIDDLE
        count = len(joints)
        return Evidence(
            pixels, valid, 1, 1, None, torch.full((count, 2), FOCAL), torch.full((count, 2), MIDDLE)
        )

    def fit(self, evidence, setting, **options):
        return fit_smplify(
            self.body,
            self.points,
            evidence,
            setting=setting,
            **{"torso": self.parts.torso, "hands": self.parts.hands, "face": self.parts.face} | options,
        )


def in_space(joints, valid=None):
    return Evidence(joints, torch.ones(joints.shape[:2], dtype=torch.bool) if valid is None else valid, 1, 1)


def off(found, joints):
    """Millimetres, in place."""
    return 1000 * (found - joints).norm(dim=2)


def about_root(found, joints):
    return off(found - found[:, :1], joints - joints[:, :1])


def brief(model, *, picture=False, iterations=40):
    """The tuned setting, its last stage once."""
    setting = tuned(model, picture=picture)
    options = LbfgsOptions(iterations=iterations, history=20, ftol=1e-5, window=10)
    return replace(setting, stages=(setting.stages[0], setting.stages[-1]), optimiser=options)


@pytest.fixture(scope="module")
def smpl():
    return Model("smpl", "human36m-17")


@pytest.fixture(scope="module")
def prior():
    return load_prior("open", "smpl")


@pytest.fixture(scope="module")
def few():
    return brief("smpl", iterations=12)


# --- the energy


def objective_of(model, joints, *, priors=None, picture=False, gaussians=None, stage=STAGE):
    chart = Chart(model.body)
    unknowns = Unknowns(chart, priors or {})
    evidence = model.seen(joints) if picture else in_space(joints)
    evidence = replace(
        evidence,
        joints=evidence.joints.double(),
        weight=3e3,
        scale=0.2,
        confidence=torch.linspace(0.2, 1, joints.shape[1], dtype=torch.float64).expand(len(joints), -1),
        focal=None if evidence.focal is None else evidence.focal.double(),
        princpt=None if evidence.princpt is None else evidence.princpt.double(),
    )
    moments = model.points.moments().double()
    root = torch.tensor(FACING.as_matrix()).expand(len(joints), 3, 3)
    return Objective(unknowns, moments, weighed(evidence, stage, None, None), stage, root, gaussians)


@pytest.mark.parametrize("picture", [False, True])
def test_the_energy_is_the_sum_that_the_page_has(smpl, picture):
    _, joints = smpl.people(3)
    objective = objective_of(smpl, joints, picture=picture)
    x = 0.2 * torch.randn(3, len(objective.unknowns), dtype=torch.float64)
    x[:, -1] += 4 if not picture else 40
    found = objective(x, torch.arange(3))
    evidence = objective.evidence
    for row, values in enumerate(x.numpy()):
        turn, pose, betas, transl = np.split(values, [3, 66, 76])
        root = (Rotation.from_rotvec(turn) * FACING).as_rotvec()
        given = {"global_orient": root, "body_pose": [*pose, *np.zeros(6)], "betas": betas, "transl": transl}
        shapes = human_model("smpl").shapes
        posed = smpl.joints(
            {n: torch.tensor(np.array(v), dtype=torch.float32).view(1, *shapes[n]) for n, v in given.items()}
        )[0].double()
        if picture:
            posed = posed[:, :2] / posed[:, 2:] * FOCAL + MIDDLE
        total = 0.0
        for k, (one, wanted) in enumerate(zip(posed.numpy(), evidence.joints[row].numpy(), strict=True)):
            square = ((one - wanted) ** 2).sum()
            weight = np.linspace(0.2, 1, len(posed))[k] ** 2
            total += 3e3 * weight * 0.04 * square / (0.04 + square)
        total += 16 * (pose**2).sum() + 9 * (betas**2).sum()
        bends = pose[51 + 1], -pose[54 + 1], -pose[9], -pose[12]  # elbows about y, knees about x
        total += 5 * sum(np.exp(bend) ** 2 for bend in bends)
        assert float(found[row]) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("kind", ["rotations", "latents", "gaussians", "mano", "flame"])
def test_the_curvature_is_the_hessian_where_the_joints_fit(smpl, prior, kind):
    """Gauss and Newton leave out what residuals bend, which is nothing at the truth."""
    model = {"mano": "interhand-21-right", "flame": "coco-wholebody-face-68"}
    made = Model(kind, model[kind]) if kind in model else smpl
    given, joints = made.people(2)
    gaussians = None
    if kind == "gaussians":
        gaussians = learn_gaussians(load_poses().body_pose[:400].reshape(400, -1)).to(torch.zeros(1).double())
    objective = objective_of(
        made, joints, priors={"body_pose": prior} if kind == "latents" else None, gaussians=gaussians
    )
    unknowns = objective.unknowns
    state = unknowns.chart.state({n: v.double() for n, v in given.items()})
    objective = replace(objective, root=state.root)
    x = unknowns.of(state)
    posed = objective.joints(unknowns.state(x, state.root)).detach()
    objective = replace(objective, evidence=replace(objective.evidence, joints=posed))
    found = curvature(objective, x)
    for row in range(2):
        twin, mine = hessian(objective, x[row], row), found[row].numpy()
        if kind == "latents":  # how the decoder bends is left out
            assert np.abs(twin - mine).max() < 0.05 * np.abs(twin).max()
        else:
            np.testing.assert_allclose(mine, twin, rtol=1e-4, atol=1e-6 * np.abs(twin).max())
    rescaled = Rescaled(objective, x)
    zero = torch.zeros_like(x)
    torch.testing.assert_close(rescaled(zero, torch.arange(2)), objective(x, torch.arange(2)))
    if kind != "latents":
        np.testing.assert_allclose(hessian(rescaled, zero[0], 0), np.eye(x.shape[1]), atol=0.01)


def hessian(energy, x, row, step=1e-5):
    """Differences of gradients."""
    count = len(x)
    steps = step * torch.eye(count, dtype=x.dtype)
    rows = torch.full((2 * count,), row)
    _, gradients = with_gradient(energy, torch.cat([x + steps, x - steps]), rows)
    return ((gradients[:count] - gradients[count:]) / (2 * step)).numpy()


@pytest.mark.slow
def test_a_stage_ends_where_scipy_ends(smpl):
    """The whole way through `fit_smplify` to the minimum that L-BFGS-B finds from the same start."""
    _, joints = smpl.people(1)
    stage = STAGE
    setting = replace(
        published("smpl", picture=False),
        stages=(stage,),
        data_weight=3e4,
        scale=0.2,
        optimiser=LbfgsOptions(iterations=300, ftol=1e-7),
    )
    slow = smpl.fit(in_space(joints), setting)
    quick = smpl.fit(in_space(joints), replace(setting, rescaled=True))
    torch.testing.assert_close(slow.energy, quick.energy, rtol=2e-3, atol=0)
    assert (quick.iterations < slow.iterations).all()
    objective = objective_of(smpl, joints, stage=stage)
    objective = replace(
        objective, evidence=replace(objective.evidence, weight=3e4, confidence=torch.ones(1, 17).double())
    )
    state = objective.unknowns.chart.state({n: v.double() for n, v in slow.parameters.items()})
    objective = replace(objective, root=state.root)
    start = objective.unknowns.of(state).numpy()
    start[:, 3:-3] = 0  # at rest, where the fit ended up

    def energy(x, row):
        x = torch.tensor(x)[None].requires_grad_()
        value = objective(x, torch.tensor([row]))[0]
        value.backward()
        return float(value.detach()), x.grad[0].numpy()

    for row in range(1):
        twin = minimize(energy, start[row], (row,), jac=True, method="L-BFGS-B", options={"maxiter": 400})
        assert float(slow.energy[row]) == pytest.approx(twin.fun, rel=5e-3)


# --- 3D joints


def test_clean_joints_are_met_within_a_millimetre(smpl):
    _, joints = smpl.people(6, turned=2.0)
    found = smpl.fit(in_space(joints), tuned("smpl", picture=False))
    assert off(found.joints, joints).mean() < 0.3
    assert found.error.max() < 1e-3
    assert found.valid.all()
    assert set(found.parameters) == set(human_model("smpl").shapes)
    torch.testing.assert_close(smpl.joints(dict(found.parameters)), found.joints, rtol=0, atol=2e-5)
    assert all(value.dtype == torch.float32 for value in found.parameters.values())
    official = replace(published("smpl", picture=False), optimiser=LbfgsOptions(iterations=60))
    assert off(smpl.fit(in_space(joints[:2]), official).joints, joints[:2]).mean() < 8


@pytest.mark.parametrize(
    ("model", "joint_set", "most"),
    [("mano", "interhand-21-right", 0.7), ("flame", "coco-wholebody-face-68", 0.5)],
)
def test_hands_and_faces(model, joint_set, most):
    made = Model(model, joint_set)
    _, joints = made.people(4)
    found = made.fit(in_space(joints), brief(model))
    known = made.points.known
    assert off(found.joints, joints)[:, known].mean() < most
    assert found.joints[:, ~known].isnan().all()
    assert set(found.parameters) == set(human_model(model).shapes)


def test_smplx_s_hands_and_face_come_after_the_body():
    made = Model("smplx", "coco-wholebody-133")
    assert made.parts.hands is not None
    assert made.parts.face is not None
    _, joints = made.people(2)
    known = made.points.known
    found = made.fit(in_space(joints), brief("smplx"))
    assert {"left_hand_pose", "jaw_pose", "expression"} <= set(found.parameters)
    assert off(found.joints, joints)[:, known].mean() < 2
    # Before the last of the official stages, neither hands nor face say anything.
    stages = published("smplx", picture=False).stages
    assert [(s.hand_joints, s.face_joints) for s in stages] == [(0, 0), (0, 0), (0, 0), (0.1, 0), (2, 2)]
    only = replace(tuned("smplx", picture=False), stages=stages[:1], optimiser=LbfgsOptions(iterations=5))
    moved = joints.clone()
    moved[:, made.parts.hands] += 0.3
    moved[:, made.parts.face] += 0.3
    whole_body = replace(only, whole_body=False)
    one, other = (made.fit(in_space(some), whole_body) for some in (joints, moved))
    torch.testing.assert_close(one.joints[:, :17], other.joints[:, :17], rtol=0, atol=1e-5)
    alone = made.fit(in_space(joints), only, hands=None, face=None)
    assert "left_hand_pose" not in alone.parameters


def test_joints_that_are_not_valid_count_for_nothing(smpl, few):
    _, joints = smpl.people(3)
    valid = torch.ones(3, 17, dtype=torch.bool)
    valid[0, [3, 13]] = False
    valid[2] = False
    spoilt = torch.where(valid[..., None], joints, torch.tensor(torch.nan))
    odd = torch.where(valid[..., None], joints, torch.tensor(1e3))
    one, other = (smpl.fit(in_space(some, valid), few) for some in (spoilt, odd))
    assert one.valid.tolist() == [True, True, False]
    for name, value in one.parameters.items():
        assert torch.isfinite(value[:2]).all()
        assert value[2].isnan().all(), name
        torch.testing.assert_close(value[:2], other.parameters[name][:2])
    assert one.error[2].isnan()
    assert one.energy[2].isnan()
    assert one.joints[2].isnan().all()
    assert one.iterations[2] == 0
    blind = replace(in_space(joints), confidence=torch.zeros(3, 17))
    assert not smpl.fit(blind, few).valid.any()


def test_a_batch_is_its_rows_alone(smpl, few):
    _, joints = smpl.people(4, turned=1.5)
    whole = smpl.fit(in_space(joints), few)
    for some in (smpl.fit(in_space(joints), few, batch=3), smpl.fit(in_space(joints[2:3]), few)):
        rows = slice(2, 3) if len(some.energy) == 1 else slice(None)
        torch.testing.assert_close(some.joints, whole.joints[rows], rtol=0, atol=1e-4)
    none = smpl.fit(in_space(joints[:0]), few)
    assert none.joints.shape == (0, 17, 3)
    assert none.parameters["body_pose"].shape == (0, 23, 3)


def test_turned_joints_give_turned_bodies(smpl):
    few = brief("smpl", iterations=60)
    _, joints = smpl.people(2)
    turn = torch.tensor(Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix(), dtype=torch.float32)
    shift = torch.tensor([0.3, -0.2, 1.0])
    here, there = smpl.fit(in_space(joints), few), smpl.fit(in_space(joints @ turn.T + shift), few)
    torch.testing.assert_close(here.joints @ turn.T + shift, there.joints, rtol=0, atol=1e-3)
    torch.testing.assert_close(here.error, there.error, rtol=0, atol=1e-3)


def test_a_start_is_kept_where_it_is_good(smpl, few):
    given, joints = smpl.people(3)
    found = smpl.fit(in_space(joints), replace(few, optimiser=LbfgsOptions(iterations=1)), start=given)
    assert off(found.joints, joints).mean() < 2
    assert (found.iterations == 1).all()  # the last stage alone
    with pytest.raises(ValueError, match="the start must be 3 bodies of 21 free joints, got 2"):
        smpl.fit(in_space(joints), few, start={n: v[:2] for n, v in given.items()})


def test_a_torso_that_says_nothing_leaves_the_turn_to_all_joints(smpl):
    _, joints = smpl.people(3, turned=2.0)
    valid = torch.ones(3, 17, dtype=torch.bool)
    valid[:, smpl.parts.torso[:2]] = False
    found = smpl.fit(in_space(joints, valid), brief("smpl"))
    assert off(found.joints, joints)[valid].mean() < 2


@pytest.mark.slow
def test_a_learnt_prior_bends_what_joints_do_not_say(smpl):
    poses = load_poses()
    gaussians = learn_gaussians(poses.body_pose[poses.clip != 2].reshape(-1, 63))
    given, joints = smpl.people(6)
    setting = replace(
        tuned("smpl", picture=False),
        stages=(replace(STAGE, pose=1.0, shape=0.3, expression=0.3, bending=0.0),) * 3,
    )
    truth = smpl.body(**given).vertices - smpl.body(**given).joints[:, :1]
    wrong = []
    for prior in (None, gaussians):
        fits = smpl.fit(in_space(joints), setting, prior=prior)
        posed = smpl.body(**fits.parameters)
        wrong.append(float((posed.vertices - posed.joints[:, :1] - truth).norm(dim=2).mean()))
        assert fits.error.max() < 5e-3
    assert wrong[1] < wrong[0]


@pytest.mark.slow
def test_adam_gets_there_too(smpl):
    _, joints = smpl.people(2)
    setting = tuned("smpl", picture=False)
    setting = replace(setting, optimiser=AdamOptions(iterations=80, rate=0.2, ftol=0))
    assert off(smpl.fit(in_space(joints), setting).joints, joints).mean() < 10


# --- pictures


def test_the_torso_s_length_gives_the_distance(smpl):
    """A body at rest that faces the camera is found at its place, wherever it is."""
    chart, moments = Chart(smpl.body), smpl.points.moments().double()
    rest = chart.rest(3, torch.zeros(1, dtype=torch.float64))
    rest = replace(rest, root=torch.tensor(FACING.as_matrix()) @ rest.root)
    at_rest = moments(chart.rotations(rest), rest.codes)
    torso = Torso.of(smpl.parts.torso, at_rest[0, smpl.parts.torso])
    names = [[smpl.set.joints[j] for j in edge] for edge in torso.edges.tolist()]
    assert sorted(map(sorted, names)) == [["left_hip", "left_shoulder"], ["right_hip", "right_shoulder"]]
    places = torch.tensor([[0.0, 0, 40], [0.3, -0.2, 60], [-1, 0.1, 35]], dtype=torch.float64)
    evidence = smpl.seen(at_rest + places[:, None])
    found = placed_in_picture(chart, moments, rest, evidence, torso)
    torch.testing.assert_close(found.transl, places, rtol=1e-2, atol=1e-2)
    one_side = replace(evidence, valid=evidence.valid.clone())
    one_side.valid[:, torso.edges[0]] = False
    found = placed_in_picture(chart, moments, rest, one_side, torso)
    torch.testing.assert_close(found.transl[:, 2], places[:, 2], rtol=2e-2, atol=0)
    faceless = Torso.of(smpl.parts.torso[:0], at_rest[0, :0])
    found = placed_in_picture(chart, moments, rest, evidence, faceless)
    torch.testing.assert_close(found.transl, places, rtol=1e-2, atol=1e-2)
    assert torch.isinf(faceless.width(evidence)).all()
    assert {smpl.set.joints[j] for j in torso.across.tolist()} in (
        {"left_hip", "right_hip"},
        {"left_shoulder", "right_shoulder"},
    )


@pytest.mark.slow
def test_pictures_are_met_within_two_pixels(smpl, prior):
    given, joints = smpl.people(3)
    evidence = smpl.seen(joints)
    setting = brief("smpl", picture=True, iterations=15)
    found = smpl.fit(evidence, setting, prior=prior)
    assert found.error.max() < 2
    pixels = smpl.seen(found.joints).joints
    torch.testing.assert_close((pixels - evidence.joints).norm(dim=2).mean(1), found.error)
    assert about_root(found.joints, joints).mean() < 120
    near = {n: v + 0.05 * torch.randn(v.shape) for n, v in given.items() if n != "transl"}
    good = smpl.fit(evidence, setting, prior=prior, start=near | {"transl": given["transl"]})
    assert good.error.mean() < 2
    rotations = replace(setting, pose="rotations")
    assert smpl.fit(evidence, rotations).error.mean() < 2


def test_the_published_camera_is_found_once_and_kept(smpl, prior):
    _, joints = smpl.people(3)
    setting = replace(
        published("smpl", picture=True),
        optimiser=LbfgsOptions(iterations=25),
        upright=True,
        headings=(0.0,),
        side_view=None,
    )
    first = smpl.fit(smpl.seen(joints), replace(setting, stages=setting.stages[:1]), prior=prior)
    last = smpl.fit(smpl.seen(joints), setting, prior=prior)
    torch.testing.assert_close(first.parameters["transl"], last.parameters["transl"])
    assert last.error.mean() < first.error.mean()
    # Similar triangles: a foreshortened torso looks farther away than it is, by little here.
    depth = joints[..., 2].mean(1)
    assert ((last.joints[..., 2].mean(1) - depth).abs() < 0.15 * depth).all()


@pytest.mark.slow
def test_both_sides_are_tried_where_the_shoulders_are_close(smpl, prior):
    """A body seen from behind, begun from the front: only another heading gets it right."""
    given, _ = smpl.people(3, turned=0.0)
    back = FACING * Rotation.from_euler("y", math.pi)
    given["global_orient"] = torch.tensor(back.as_rotvec(), dtype=torch.float32).repeat(3, 1)
    joints = smpl.joints(given)
    two = replace(brief("smpl", picture=True, iterations=20), headings=(0.0, math.pi))
    fits = {
        len(setting.headings): smpl.fit(smpl.seen(joints), setting, prior=prior)
        for setting in (replace(two, headings=(0.0,)), two)
    }
    assert (fits[2].energy <= fits[1].energy + 1e-3).all()
    assert about_root(fits[2].joints, joints).mean() < 120
    never = replace(two, side_view=0.0, rolled=False)
    always = replace(two, side_view=1e4, rolled=False)
    one, both = (smpl.fit(smpl.seen(joints), s, prior=prior) for s in (never, always))
    assert (both.iterations > one.iterations).all()
    assert (both.energy <= one.energy + 1e-3).all()


@pytest.mark.parametrize("model", ["mano", "flame"])
def test_hands_and_faces_in_pictures(model):
    made = Model(model, "interhand-21-right" if model == "mano" else "coco-wholebody-face-68")
    _, joints = made.people(3, turned=0.2)
    valid = torch.ones(joints.shape[:2], dtype=torch.bool) & made.points.known
    some = load_prior("mano-pca", "mano") if model == "mano" else None
    found = made.fit(made.seen(joints, valid), brief(model, picture=True), prior=some)
    assert found.error.mean() < 2
    assert (found.parameters["transl"][:, 2] > 0).all()


# --- what is asked wrongly


def test_what_does_not_fit_is_said(smpl, prior, few):
    _, joints = smpl.people(2)
    evidence = in_space(joints)
    with pytest.raises(ValueError, match=r"joints must be \(B, 17, 3\), got \(2, 16, 3\)"):
        smpl.fit(in_space(joints[:, :16]), few)
    with pytest.raises(ValueError, match=r"valid must be \(2, 17\) bool"):
        smpl.fit(in_space(joints, torch.ones(2, 17)), few)
    with pytest.raises(ValueError, match="torso must be numbers of joints"):
        smpl.fit(evidence, few, torso=torch.tensor([40]))
    with pytest.raises(ValueError, match="smpl has no hands and face"):
        smpl.fit(evidence, few, hands=torch.tensor([1]))
    with pytest.raises(ValueError, match="fits rotations, not latents"):
        smpl.fit(evidence, few, prior=prior)
    with pytest.raises(ValueError, match="fits latents of smpl's pose; pass prior=load_prior"):
        smpl.fit(smpl.seen(joints), tuned("smpl", picture=True))
    with pytest.raises(ValueError, match="hand_priors without hands="):
        smpl.fit(evidence, few, hand_priors=(prior, prior))
    with pytest.raises(ValueError, match="is of 15 joints; body_pose of smpl has 21"):
        smpl.fit(smpl.seen(joints), tuned("smpl", picture=True), prior=load_prior("mano-pca", "mano"))
    with pytest.raises(ValueError, match="a prior for tail, which is not fitted; fitted: body_pose"):
        Unknowns(Chart(smpl.body), {"tail": prior})
    made = Model("flame", "coco-wholebody-face-68")
    with pytest.raises(ValueError, match="PoseGaussians are of bodies; of flame pass prior=None"):
        made.fit(
            in_space(torch.zeros(1, 68, 3)), tuned("flame", picture=False), prior=learn_gaussians(np.eye(9))
        )


def test_settings_say_what_does_not_fit():
    good = tuned("smpl", picture=False)
    for change, message in (
        ({"stages": ()}, "a setting needs a stage"),
        ({"pose": "angles"}, "pose must be one of rotations, latents, got 'angles'"),
        ({"headings": ()}, "headings are empty"),
        ({"scale": 0.0}, "scale must be positive, got 0.0"),
        ({"data_weight": -1.0}, "data_weight must be positive"),
        ({"moves": False}, "rescaled needs moves=True"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(good, **change)
    with pytest.raises(ValueError, match="joints must be one of clean, noisy, missing, got 'dirty'"):
        tuned("smpl", picture=False, joints="dirty")
    for make in (published, tuned):
        with pytest.raises(ValueError, match="unknown model 'cat'"):
            make("cat", picture=True)


def test_the_published_weights_are_the_official_ones():
    stages = published("smplx", picture=True).stages
    assert [stage.pose for stage in stages] == [404, 404, 57.4, 4.78, 4.78]
    assert [stage.hand for stage in stages] == [404, 404, 57.4, 4.78, 4.78]
    assert [stage.shape for stage in stages] == [100, 50, 10, 5, 5]
    assert [stage.expression for stage in stages] == [100, 50, 10, 5, 5]
    assert [stage.jaw[0] for stage in stages] == [4040, 4040, 574, 47.8, 47.8]
    assert all(stage.jaw[1] == stage.jaw[2] == pytest.approx(10 * stage.jaw[0]) for stage in stages)
    assert all(stage.bending == pytest.approx(3.17 * stage.pose) for stage in stages)
    picture = published("smpl", picture=True)
    assert (picture.data_weight, picture.scale) == ((1000 / 256) ** 2, 100)
    assert picture.stages == stages[:4]


def test_parts_are_found_by_name():
    names = JOINT_SETS["coco-wholebody-133"].joints
    parts = parts_of("smplx", names)
    assert [names[j] for j in parts.torso] == ["left_shoulder", "right_shoulder", "left_hip", "right_hip"]
    assert (len(parts.hands), len(parts.face)) == (42, 68)
    assert parts_of("smpl", names).hands is None
    known = torch.ones(133, dtype=torch.bool)
    known[5] = False
    assert len(parts_of("smplx", names, known).torso) == 3
    hand = JOINT_SETS["coco-wholebody-hand-21-right"].joints
    assert [hand[j] for j in parts_of("mano", hand).torso] == [
        "right_hand_root",
        *(f"right_{finger}1" for finger in ("index", "middle", "ring", "pinky")),
    ]
    assert len(parts_of("flame", JOINT_SETS["coco-wholebody-face-68"].joints).torso) == 0
