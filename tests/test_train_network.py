"""The network: its ablations, what its outputs are, what it is blind to; its joints and losses."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from neuralannot.body_models import load_body_model
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.train.joint_points import joint_points
from neuralannot.train.losses import LossWeights, sample_losses, total_loss
from neuralannot.train.network import Annotator, NetworkSpec, heatmaps, parameter_widths, project
from neuralannot.train.priors import load_prior
from neuralannot.train.rotations import axis_angle_to_matrix
from neuralannot.train.targets import Targets

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
TORSO = torch.tensor([1, 4, 11, 14])  # hips and shoulders of human36m-17


@functools.cache
def the_body(model: str):
    return load_body_model(model, side="right" if model == "mano" else None)


def a_network(**changes) -> Annotator:
    torch.manual_seed(0)
    values = {"model": "smpl", "num_joints": 17, "backbone": "resnet18"} | changes
    spec = NetworkSpec(**values)
    prior = None
    if spec.outputs == "latent":
        prior = load_prior("mano-pca:12" if spec.model == "mano" else "open", spec.model)
    torso = rest = None
    if spec.model == "smpl":
        points = joint_points(the_body("smpl"), [JOINT_SETS["human36m-17"]])
        torso, rest = TORSO, points(betas=torch.zeros(1, 10))[0, TORSO]
    return Annotator(spec, prior=prior, torso=torso, rest_torso=rest).eval()


def given(count: int = 4, joints: int = 17, size: int = 32):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, 3, size, size, generator=generator)
    return images, torch.randn(count, joints, 3, generator=generator), torch.ones(count, joints, dtype=bool)


SHAPES = {
    "smpl": {"global_orient": (4, 3), "body_pose": (4, 23, 3), "betas": (4, 10)},
    "smplx": {"global_orient": (4, 3), "body_pose": (4, 21, 3), "betas": (4, 10)},
    "mano": {"global_orient": (4, 3), "hand_pose": (4, 15, 3), "betas": (4, 10)},
    "flame": {"global_orient": (4, 3), "jaw_pose": (4, 3), "expression": (4, 10), "betas": (4, 10)},
}


@pytest.mark.parametrize("model", SHAPES)
@pytest.mark.parametrize("inputs", ["image", "joints", "image+joints"])
@pytest.mark.parametrize("outputs", ["rotation6d", "latent"])
@pytest.mark.parametrize("camera", [False, True])
def test_every_ablation_gives_the_model_s_parameters(model, inputs, outputs, camera):
    if model == "flame" and outputs == "latent":
        with pytest.raises(ValueError, match="latent outputs need a pose prior; flame"):
            NetworkSpec("flame", 17, outputs="latent", latent=3)
        return
    latent = {"mano": 12}.get(model, 32) if outputs == "latent" else 0
    network = a_network(model=model, inputs=inputs, outputs=outputs, camera=camera, latent=latent)
    images, joints, valid = given()
    joints = joints[..., :2] * 40 + 128 if camera else joints
    out = network(images if "image" in inputs else None, joints, valid)
    expected = dict(SHAPES[model])
    expected |= {"latent": (4, latent)} if latent else {}
    expected |= {"root": (4, 3)} if camera else {}
    assert {name: tuple(value.shape) for name, value in out.items()} == expected
    assert all(value.dtype == torch.float32 for value in out.values())
    if model == "smpl":
        assert not out["body_pose"][:, 21:].any()  # hands stay at rest
    if camera:
        assert (out["root"][:, 2] > 0).all()
    trained = [p for p in network.parameters() if p.requires_grad]
    sum(value.sum() for value in out.values()).backward()
    assert all(p.grad is not None for p in trained), "a weight that no output depends on"
    the_body(model).skeleton(**{n: v for n, v in out.items() if n not in ("latent", "root")})


def test_widths_are_the_papers():
    assert parameter_widths(NetworkSpec("smpl", 17)) == {"global_orient": 6, "body_pose": 126, "betas": 10}
    wild = NetworkSpec("smplx", 17, inputs="image", outputs="latent", latent=32, camera=True)
    assert parameter_widths(wild) == {"global_orient": 6, "latent": 32, "betas": 10, "camera": 3}
    assert sum(parameter_widths(NetworkSpec("flame", 68)).values()) == 32


def test_what_is_not_valid_is_not_seen():
    network = a_network()
    images, joints, valid = given()
    valid[:, [2, 5, 14]] = False
    first = network(images, joints, valid)
    other = joints.clone()
    other[:, [2, 5, 14]] = torch.nan
    for name, value in network(images, other, valid).items():
        torch.testing.assert_close(value, first[name], atol=0, rtol=0)
    maps = heatmaps(other[..., :2], valid, 64)
    assert maps.isfinite().all()
    assert not maps[:, [2, 5, 14]].any()


def test_where_a_body_is_does_not_matter_and_its_heading_turns_the_root():
    network = a_network(inputs="joints")
    _, joints, valid = given()
    out = network(None, joints, valid)
    moved = network(None, joints + torch.tensor([1.0, -2.0, 5.0]), valid)
    turn = torch.from_numpy(Rotation.random(4, rng=np.random.default_rng(0)).as_matrix()).float()
    turned = network(None, joints @ turn.transpose(1, 2), valid)
    for name in ("body_pose", "betas"):
        torch.testing.assert_close(moved[name], out[name], atol=1e-4, rtol=1e-3)
    expected = turn @ axis_angle_to_matrix(out["global_orient"])
    # The rotation that was taken out is told to the network, so that an image can be understood beside it;
    # at the start it counts for little.
    angle = Rotation.from_matrix(
        (axis_angle_to_matrix(turned["global_orient"]) @ expected.transpose(1, 2)).detach().numpy()
    ).magnitude()
    assert angle.max() < 0.2
    plain = a_network(inputs="joints", canonical_joints=False)
    out, turned = plain(None, joints, valid), plain(None, joints @ turn.transpose(1, 2), valid)
    off = axis_angle_to_matrix(out["global_orient"]) - axis_angle_to_matrix(turned["global_orient"])
    assert off.abs().max() < 0.2  # it does not know of the turn beforehand


def test_autocast_gives_full_precision_parameters():
    network = a_network(inputs="image", outputs="latent", latent=32, camera=True)
    images, _, _ = given()
    with torch.autocast("cpu", torch.bfloat16):
        out = network(images)
    assert all(value.dtype == torch.float32 for value in out.values())


def test_a_network_begins_upright_in_front_of_the_camera():
    network = a_network(inputs="image", camera=True)
    torch.nn.init.zeros_(network.head[-1].weight)
    out = network(given()[0])
    body = load_body_model("smpl")
    vertices = body(**{n: v for n, v in out.items() if n != "root"}, transl=out["root"]).vertices
    seen = project(vertices)
    low, high = seen.amin(1), seen.amax(1)
    assert (low > 0).all()
    assert (high < 256).all()
    nose, toes = 332, 3216  # smplx's vertex numbers
    assert (seen[:, nose, 1] < seen[:, toes, 1]).all()  # the head is up
    assert (vertices[:, nose, 2] < vertices[:, :, 2].mean(1)).all()  # and looks at us


def test_heatmaps_peak_at_their_joints():
    joints = torch.tensor([[[64.0, 128.0], [200.0, 20.0]]])
    maps = heatmaps(joints, torch.ones(1, 2, dtype=bool), 64)
    flat = maps.flatten(2).argmax(2)
    assert torch.stack([flat % 64, flat // 64], -1).tolist() == [[[16, 32], [50, 5]]]
    torch.testing.assert_close(maps.amax((2, 3)), torch.ones(1, 2))


# --- joints


@pytest.mark.parametrize(
    ("model", "side", "name", "missing"),
    [
        ("smpl", None, "human36m-17", 0),
        ("smpl", None, "mpii-16", 2),
        ("smplx", None, "coco-wholebody-133", 17),
        ("mano", "right", "coco-wholebody-hand-21-right", 0),
        ("flame", None, "coco-wholebody-face-68", 17),
    ],
)
def test_joints_are_the_regressor_s_or_the_model_s(model, side, name, missing):
    body = load_body_model(model, side=side)
    joint_set = JOINT_SETS[name]
    points = joint_points(body, [joint_set])
    assert int((~points.known).sum()) == missing
    generator = torch.Generator().manual_seed(0)
    pose = {"smpl": (23, 3), "smplx": (21, 3), "mano": (15, 3)}.get(model)
    given = {"betas": torch.randn(5, 10, generator=generator)}
    given["global_orient"] = torch.randn(5, 3, generator=generator)
    if pose:
        given["hand_pose" if model == "mano" else "body_pose"] = 0.2 * torch.randn(
            5, *pose, generator=generator
        )
    found = points(**given)
    out = body(**given)
    for at, joint in enumerate(joint_set.joints):
        if not points.known[at]:
            assert not found[:, at].any()
        elif (
            name == "coco-wholebody-133"
            and joint in body.joint_names
            and joint not in JOINT_SETS["coco-17"].joints
        ):
            torch.testing.assert_close(found[:, at], out.joints[:, body.joint_names.index(joint)])
    if name == "human36m-17":
        from neuralannot.body_models.joints import joint_regressor

        weights = torch.tensor(joint_regressor(name, body).weights)
        torch.testing.assert_close(found, torch.matmul(weights, out.vertices), atol=1e-5, rtol=0)


def test_several_sets_come_one_after_another():
    body = load_body_model("smpl")
    sets = [JOINT_SETS["coco-17"], JOINT_SETS["human36m-17"]]
    both = joint_points(body, sets)(betas=torch.ones(2, 10))
    apart = [joint_points(body, [s])(betas=torch.ones(2, 10)) for s in sets]
    torch.testing.assert_close(both, torch.cat(apart, 1))


def test_a_set_that_a_model_knows_nothing_of_is_refused():
    with pytest.raises(ValueError, match="flame has none of the joints of mpii-16"):
        joint_points(load_body_model("flame"), [JOINT_SETS["mpii-16"]])
    with pytest.raises(ValueError, match="official topology are garbage on the open body"):
        joint_points(
            load_body_model("smpl"), [JOINT_SETS["mpii-16"]], {"mpii-16": np.zeros((16, 6890), np.float32)}
        )


# --- losses


def the_losses(out, targets, weak, model="smpl"):
    body = load_body_model(model)
    points = joint_points(body, [JOINT_SETS["human36m-17"]])
    return sample_losses(out, points, points.known, body.rest_root, targets, weak=weak)


def true_ones(count: int = 3):
    """Parameters, and the targets that they give in front of the virtual camera."""
    generator = torch.Generator().manual_seed(5)
    out = {
        "global_orient": torch.randn(count, 3, generator=generator),
        "body_pose": 0.2 * torch.randn(count, 23, 3, generator=generator),
        "betas": torch.randn(count, 10, generator=generator),
        "root": torch.tensor([[0.1, -0.2, 40.0]]).repeat(count, 1),
    }
    body = load_body_model("smpl")
    points = joint_points(body, [JOINT_SETS["human36m-17"]])
    parameters = {n: v for n, v in out.items() if n != "root"}
    joints = points(**parameters, transl=out["root"] - body.rest_root(out["betas"]))
    valid = torch.rand(count, 17, generator=generator) > 0.3
    targets = Targets(project(joints), valid, joints, valid, {}, torch.zeros(count, dtype=bool))
    return out, targets


def test_the_truth_has_no_loss_and_a_shift_of_the_whole_body_none_in_3d():
    out, targets = true_ones()
    losses = the_losses(out, targets, {"joints_2d", "joints_3d"})
    assert losses["joints_3d"].max() < 3e-6  # float32 some metres away is no finer than half a micrometre
    assert losses["joints_2d"].max() < 1e-6
    losses = the_losses(out | {"root": out["root"] + 0.1}, targets, {"joints_2d", "joints_3d"})
    assert losses["joints_3d"].max() < 3e-6
    assert losses["joints_2d"].min() > 1e-3


def test_losses_are_means_of_absolute_differences_over_what_is_valid():
    out, targets = true_ones()
    wrong = {n: v + (0.3 if n == "body_pose" else 0) for n, v in out.items()}
    found = the_losses(wrong, targets, {"joints_2d", "joints_3d"})
    body = load_body_model("smpl")
    points = joint_points(body, [JOINT_SETS["human36m-17"]])
    joints = points(
        **{n: v for n, v in wrong.items() if n != "root"}, transl=out["root"] - body.rest_root(out["betas"])
    )
    for row in range(3):
        valid = targets.valid_cam[row].numpy()
        a, b = joints[row].numpy()[valid], targets.joints_cam[row].numpy()[valid]
        expected = np.abs((a - a.mean(0)) - (b - b.mean(0))).mean()
        assert float(found["joints_3d"][row]) == pytest.approx(expected, rel=1e-4)
        a, b = project(joints)[row].numpy()[valid], targets.joints_2d[row].numpy()[valid]
        assert float(found["joints_2d"][row]) == pytest.approx(np.abs(a - b).mean() / 256, rel=1e-4)
    torch.testing.assert_close(found["pose"], wrong["body_pose"].square().mean((1, 2)))
    torch.testing.assert_close(found["betas"], wrong["betas"].square().mean(1))
    weights = LossWeights(joints_3d=2.0, joints_2d=0.0, pose=0.5, betas=0.25)
    expected = 2 * found["joints_3d"] + 0.5 * found["pose"] + 0.25 * found["betas"]
    torch.testing.assert_close(total_loss(found, weights), expected)


def test_what_is_not_valid_moves_nothing():
    out, targets = true_ones()
    out = {n: v.clone().requires_grad_() for n, v in out.items()}
    none = torch.zeros_like(targets.valid_2d)
    blind = Targets(targets.joints_2d * 9, none, targets.joints_cam * 9, none, {}, targets.valid_parameters)
    losses = the_losses(out, blind, {"joints_2d", "joints_3d"})
    (losses["joints_2d"] + losses["joints_3d"]).sum().backward()
    assert not any(v.grad.any() for v in out.values() if v.grad is not None)


def test_first_stage_parameters_are_compared_as_rotations():
    out, targets = true_ones()
    around = out["global_orient"] * (1 - 2 * np.pi / out["global_orient"].norm(dim=1, keepdim=True))
    first = {"global_orient": around, "body_pose": out["body_pose"], "betas": out["betas"]}
    full = Targets(
        *(targets.joints_2d, targets.valid_2d, targets.joints_cam, targets.valid_cam),
        first,
        torch.tensor([True, True, False]),
    )
    assert the_losses(out, full, {"joints_2d"})["parameters"].max() < 1e-5
    off = the_losses(out | {"betas": out["betas"] + 1}, full, {"joints_2d"})["parameters"]
    assert off[:2].min() > 0.3
    assert off[2] == 0


def test_official_bodies_without_a_regressor_are_warned_of(monkeypatch):
    from neuralannot.train import joint_points as room

    body = load_body_model("smpl")
    monkeypatch.setattr(body, "is_open", False)  # official files are licensed: these stand in for them
    monkeypatch.setattr(room, "_regressor", lambda *_: None)
    with pytest.warns(UserWarning, match=r"no human36m-17 regressor for official smpl was given: 17 of its"):
        joint_points(body, [JOINT_SETS["human36m-17"]])


def test_half_precision_leaves_the_joints_their_millimetres():
    network = a_network(inputs="joints")
    _, joints, valid = given()
    plain = network(None, joints, valid)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(None, joints, valid)
    for name, value in plain.items():
        torch.testing.assert_close(half[name], value)
