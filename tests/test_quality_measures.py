"""Each measure against something else: scipy's rotations, cv2's projection, winding numbers, known moves."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import FILE_NAMES, write_release
from scipy.spatial.transform import Rotation

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.bodies import model_on
from neuralannot.body_models.model import BodyModel
from neuralannot.boxes import process_boxes
from neuralannot.quality import Quality, measure_quality, quality_summary
from neuralannot.quality.bends import RANGES, bend_excess, joint_limits, swing_twist
from neuralannot.quality.ground import floor_heights, foot_skate, sole_vertices
from neuralannot.quality.penetration import body_balls, named_pairs, penetration_test
from neuralannot.quality_columns import MEASURES
from neuralannot.synthetic.motions import load_poses
from neuralannot.train.priors import open_prior
from neuralannot.train.released import pseudo_gt_of

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


def body(name: str, side: str | None = None) -> BodyModel:
    """The model that measuring uses too: what is made of it once is made once."""
    return model_on(name, None, "neutral", side)


def joined(released, name: str) -> PseudoGT:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_pseudo_gt(released(name).path, cache=False)


def real_poses(count: int) -> np.ndarray:
    """(N, 23, 3) of motion capture."""
    poses = load_poses().body_pose
    some = poses[np.linspace(0, len(poses) - 1, count).astype(int)]
    return np.concatenate([some, np.zeros((count, 2, 3), np.float32)], 1)


# --- every release


@pytest.mark.parametrize("name", FILE_NAMES)
def test_every_release_is_measured(name: str, released) -> None:
    gt = joined(released, name)
    quality = measure_quality(gt, batch_size=3)
    assert isinstance(quality, Quality)
    assert list(quality) == [m for m in MEASURES if m in quality]
    assert {"shape", "bend", "implausible_bend"} <= set(quality)
    for column, values in quality.items():
        assert values.shape == (len(gt),)
        assert values.dtype == (bool if column in ("implausible_bend", "self_penetration") else np.float32)
        assert not (values < 0).any()
    assert all(quality.left_out.values())
    for measure in ("prior", "penetration", "reprojection", "error"):
        assert (measure in quality) != (measure in quality.left_out)
    assert ("prior" in quality) == (gt.model != "flame")
    assert ("error" in quality) == (gt.space == "world" and name != "3dpw-smplx")
    assert ("foot_float" in quality) == (gt.catalogued.data_set in ("Human3.6M", "MPI-INF-3DHP"))
    # In whatever batches, and as columns of the rows.
    whole = measure_quality(gt)
    rated = gt.with_quality(whole)
    for column, values in whole.items():
        # float32 joints of bodies metres away from the origin
        np.testing.assert_allclose(quality[column], values, rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(rated.quality[column], values)
    assert all(name in quality_summary(whole, left_out=whole.left_out) for name in whole)


@pytest.mark.parametrize("name", ["mscoco-smplx", "human36m-smpl", "mscoco-mano", "ffhq-flame"])
def test_no_rows(name: str, released) -> None:
    gt = joined(released, name)
    quality = measure_quality(gt[:0])
    assert list(quality) == list(measure_quality(gt[:1]))
    assert all(len(values) == 0 for values in quality.values())
    assert "0 of 0 rows" in quality_summary(quality)


def test_of_fits_without_annotations(released) -> None:
    gt = load_pseudo_gt(released("human36m-smpl").path, annotations=False, cache=False)
    quality = measure_quality(gt)
    assert "reprojection" not in quality
    assert "the cameras of its fits are not loaded" in quality.left_out["reprojection"]
    assert {"error", "foot_float", "prior"} <= set(quality)
    rows = joined(released, "human36m-smpl")
    shared = measure_quality(rows)
    place = [gt.keys.index(key) for key in rows.keys]
    for column in ("error", "prior", "bend", "penetration"):
        np.testing.assert_allclose(shared[column], quality[column][place], rtol=1e-4, atol=1e-6)


def test_moved_into_camera_space(released) -> None:
    """The data set's joints are in the world: nothing to compare these with; the pose is what it was."""
    gt = joined(released, "human36m-smpl")
    moved = measure_quality(gt.to_camera_space())
    assert "moved into camera space" in moved.left_out["error"]
    assert "floor" in moved.left_out["foot_float"]
    np.testing.assert_allclose(moved["penetration"], measure_quality(gt)["penetration"], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be positive, got 0"),
        ({"bend_tolerance": -1.0}, "bend_tolerance must be a number of at least 0"),
        ({"penetration_tolerance": float("nan")}, "penetration_tolerance must be a number of at least 0"),
        ({"prior": "best"}, "unknown pose prior 'best'"),
        ({"prior": "mano-pca"}, "not for 'smpl'"),
    ],
)
def test_options_that_cannot_be(options: dict, message: str, released) -> None:
    with pytest.raises(ValueError, match=message):
        measure_quality(joined(released, "mscoco-smpl"), **options)


def test_faces_have_no_prior(released) -> None:
    gt = joined(released, "mscoco-flame")
    with pytest.raises(ValueError, match="'open' is none for flame"):
        measure_quality(gt, prior="open")
    assert measure_quality(gt, prior="none").left_out["prior"] == "not asked for"


# --- joints


def test_reprojection_by_hand(released) -> None:
    """COCO's keypoints: the regressor's joints through cv2, and the box as the release crops it."""
    gt = joined(released, "mscoco-smpl")
    quality = measure_quality(gt)
    joints = gt.forward(regressor="coco-17").joints.double().numpy()
    seen, valid = gt.joints_2d, gt.joints_2d_valid
    assert seen is not None
    assert valid is not None
    camera = gt.camera
    assert camera is not None
    box, _ = process_boxes(gt.box_xywh, gt.image_size)
    for row in range(len(gt)):
        pixels, _ = cv2.projectPoints(
            joints[row], np.zeros(3), np.zeros(3), camera.K[row].astype(float), np.zeros(4)
        )
        error = np.linalg.norm(pixels[:, 0] - seen[row], axis=1)[valid[row]].mean()
        assert quality["reprojection"][row] == pytest.approx(error, rel=1e-4)
        assert quality["reprojection_percent"][row] == pytest.approx(
            100 * error / max(box[row, 2:]), rel=1e-4
        )


def test_mocap_errors_by_hand(released) -> None:
    gt = joined(released, "human36m-smpl")
    quality = measure_quality(gt)
    joints = gt.forward(regressor="human36m-17", space="world").joints.double().numpy()
    wanted = gt.joints_world.astype(float)
    off = np.linalg.norm(joints - wanted, axis=-1)
    np.testing.assert_allclose(quality["error"], off.mean(1), rtol=1e-5)
    rooted = (joints - joints[:, :1]) - (wanted - wanted[:, :1])
    np.testing.assert_allclose(quality["error_root"], np.linalg.norm(rooted, axis=-1).mean(1), rtol=1e-4)
    camera = gt.require_camera()
    ours, theirs = (camera.project(camera.world_to_camera(points)) for points in (joints, wanted))
    seen = np.isfinite(theirs).all(-1)
    for row in range(len(gt)):
        found = np.linalg.norm(ours[row] - theirs[row], axis=-1)[seen[row]]
        expected = np.inf if np.isnan(found).any() else found.mean() if len(found) else np.nan
        assert quality["reprojection"][row] == pytest.approx(expected, rel=1e-3, nan_ok=True)


def test_hands_of_both_sides_by_hand(released) -> None:
    """InterHand2.6M: each hand against the joints of its side; hands without joints have no error."""
    gt = joined(released, "interhand26m-mano")
    quality = measure_quality(gt)
    wanted = gt.joints_world
    for row in range(len(gt)):
        joints = gt.rows([row]).forward(regressor="interhand-21", space="world").joints[0].numpy()
        off = np.linalg.norm(joints - wanted[row], axis=-1)
        expected = np.nanmean(off) if np.isfinite(off).any() else np.nan
        assert quality["error"][row] == pytest.approx(expected, rel=1e-4, nan_ok=True)
    assert set(gt.side.tolist()) == {"right", "left"}


def test_keypoints_of_parts_flagged_invalid_do_not_count(released) -> None:
    gt = joined(released, "mscoco-smplx")
    quality = measure_quality(gt)
    valid = gt.joints_2d_valid
    assert valid is not None
    if valid.shape[1] != 133:
        pytest.skip("body keypoints alone")
    lacks = ~gt.valid["left_hand"]
    assert lacks.any()
    moved = np.array(gt.view.column("ann/keypoints"))
    moved[:, 91:112, :2] += 1000
    other = PseudoGT(
        gt.view.overlaid({"ann/keypoints": moved}), gt.release, space=gt.space, companions=gt.companions
    )
    again = measure_quality(other)
    same = again["reprojection"] == quality["reprojection"]
    np.testing.assert_array_equal(same, lacks | ~valid[:, 91:112].any(1))


def test_nothing_to_compare_with_is_nan_and_behind_is_infinite() -> None:
    count = 3
    params = {
        "global_orient": np.zeros((count, 3)),
        "body_pose": np.zeros((count, 23, 3)),
        "betas": np.zeros((count, 10)),
        "transl": np.tile([0, 0, 5.0], (count, 1)),
    }
    params["transl"][2, 2] = -5
    camera = {"focal": np.full((count, 2), 500.0), "princpt": np.full((count, 2), 100.0)}
    gt = pseudo_gt_of("mscoco-smpl", params, ids=np.arange(count), **camera)
    keypoints = np.zeros((count, 17, 3), np.float32)
    keypoints[[0, 2], :, 2] = 2
    ann = {
        "ann/id": np.arange(count),
        "ann/keypoints": keypoints,
        "ann/box": np.array([[0, 0, 50, 80], [0, 0, 50, 80], [np.nan] * 4], np.float32),
        "ann/image_size": np.zeros((count, 2), np.int64),
    }
    gt = PseudoGT(gt.view.overlaid(ann), gt.release, space=gt.space, companions=gt.companions)
    quality = measure_quality(gt)
    assert np.isfinite(quality["reprojection"][0])
    assert np.isnan(quality["reprojection"][1])
    assert quality["reprojection"][2] == np.inf
    assert np.isnan(quality["reprojection_percent"][1:]).all()
    # 80 px, 1.25 times, square: what one per cent is of; the box's last pixel is not counted
    assert quality["reprojection_percent"][0] == pytest.approx(
        100 * quality["reprojection"][0] / (79 * 1.25), rel=1e-4
    )


# --- pose prior and shape


def test_prior_by_hand(released) -> None:
    gt = joined(released, "mscoco-smpl")
    quality = measure_quality(gt)
    prior = open_prior()
    pose = gt.params["body_pose"][:, :21]
    z = prior.encode(torch.tensor(pose))
    decoded = prior.decode(z).double().numpy()
    for row in range(len(gt)):
        away = Rotation.from_matrix(decoded[row]).inv() * Rotation.from_rotvec(pose[row].astype(float))
        assert quality["prior"][row] == pytest.approx(away.magnitude().mean(), rel=1e-4)
        assert quality["prior_norm"][row] == pytest.approx(float(z[row].square().mean().sqrt()), rel=1e-5)


def test_real_poses_are_nearer_to_the_prior_than_noisy_ones() -> None:
    pose = real_poses(40)
    noisy = pose + np.random.default_rng(0).normal(0, 0.3, pose.shape)
    real, worse = (measure_quality(bodies(p)) for p in (pose, noisy))
    assert (real["prior"] < worse["prior"]).all()
    assert (real["prior_norm"] < worse["prior_norm"]).mean() > 0.9
    assert (real["bend"] <= worse["bend"]).all()


def bodies(pose: np.ndarray, **more: np.ndarray) -> PseudoGT:
    count = len(pose)
    params = {
        "global_orient": np.zeros((count, 3)),
        "body_pose": pose,
        "betas": np.zeros((count, 10)),
        "transl": np.zeros((count, 3)),
    }
    camera = {"focal": np.full((count, 2), 500.0), "princpt": np.full((count, 2), 100.0)}
    return pseudo_gt_of("mpii-smpl", params | more, ids=np.arange(count), **camera)


def test_shape_is_the_largest_code() -> None:
    betas = np.zeros((3, 10))
    betas[1, 4], betas[2] = -3.5, np.linspace(-1, 2, 10)
    assert measure_quality(bodies(np.zeros((3, 23, 3)), betas=betas))["shape"].tolist() == [0, 3.5, 2]


def test_parts_flagged_invalid_are_left_at_rest(tmp_path: Path) -> None:
    written = write_release(tmp_path, "mscoco-smplx")
    gt = load_pseudo_gt(written.path, cache=False)
    wild = np.array(gt.params["left_hand_pose"])
    wild[~gt.valid["left_hand"]] = 2.0
    face = np.array(gt.params["expression"])
    face[~gt.valid["face"]] = 50.0
    over = gt.view.overlaid({"param/left_hand_pose": wild, "param/expression": face})
    other = measure_quality(PseudoGT(over, gt.release, space=gt.space, companions=gt.companions))
    quality = measure_quality(gt)
    assert (~gt.valid["left_hand"]).any()
    assert (~gt.valid["face"]).any()
    for name in ("bend", "shape", "penetration"):
        np.testing.assert_array_equal(other[name], quality[name])


# --- bends

_ANGLE = st.floats(-3.0, 3.0)


@given(_ANGLE, st.floats(-2.1, 2.1), st.floats(-2.1, 2.1), st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_swing_and_twist_come_back(twist: float, u: float, v: float, seed: int) -> None:
    axes = Rotation.random(random_state=seed).as_matrix()
    swing = Rotation.from_rotvec(u * axes[1] + v * axes[2])
    whole = swing * Rotation.from_rotvec(twist * axes[0])
    found = swing_twist(whole.as_rotvec(), axes)
    np.testing.assert_allclose(found, [twist, u, v], atol=1e-6)


def test_half_a_turn_of_swing_has_no_twist() -> None:
    angles = swing_twist(np.array([[0, np.pi, 0], [0, 0, 0], [np.pi, 0, 0]]), np.eye(3))
    assert np.isfinite(angles).all()
    np.testing.assert_allclose(np.abs(angles), [[0, np.pi, 0], [0, 0, 0], [np.pi, 0, 0]], atol=1e-9)


def bent(name: str, *rotvec_degrees: float) -> np.ndarray:
    pose = np.zeros((1, 23, 3))
    names = joint_limits(body("smpl")).names
    pose[0, names.index(name)] = np.radians(rotvec_degrees)
    return pose


@pytest.mark.parametrize(
    ("joint", "rotvec", "excess"),
    [
        ("left_knee", (100, 0, 0), 0),  # the heel towards the seat
        ("left_knee", (-50, 0, 0), 40),
        ("right_knee", (-50, 0, 0), 40),
        ("left_elbow", (0, -140, 0), 0),  # the hand forward
        ("left_elbow", (0, 60, 0), 50),
        ("right_elbow", (0, 140, 0), 0),
        ("right_elbow", (0, -60, 0), 50),
        ("left_shoulder", (0, 0, -85), 0),  # the arm down
        ("left_hip", (-110, 0, 0), 0),  # sitting
        ("left_hip", (90, 0, 0), 60),
        ("right_hip", (0, 0, -60), 0),  # the leg out, to its own side
        ("right_hip", (0, 0, 60), 25),
        ("head", (0, 120, 0), 60),  # looking backwards
        ("spine2", (70, 0, 0), 20),
    ],
)
def test_bends_by_hand(joint: str, rotvec: tuple, excess: float) -> None:
    limits = joint_limits(body("smpl"))
    found = np.degrees(bend_excess({"body_pose": bent(joint, *rotvec)}, limits)[0])
    assert found[limits.names.index(joint)] == pytest.approx(excess, abs=1e-6)
    assert found.sum() == pytest.approx(excess, abs=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_flexing_takes_fingertips_to_the_palm(side: str) -> None:
    """A positive flexion of the limits' axes, by the body model itself: from a flat hand, tips go down."""
    model = body("mano", side)
    limits = joint_limits(model)
    flat = -limits.mean[None]
    bend = flat.copy()
    for finger in range(12):  # the thumb flexes across the palm
        turn = Rotation.from_rotvec(np.radians(50) * limits.axes[finger, 1])
        bend[0, finger] = turn.as_rotvec() - limits.mean[finger]
    tips = [model.joint_names.index(f"{side}_{f}3") for f in ("index", "middle", "ring", "pinky")]
    at = [model.joints(hand_pose=torch.tensor(p).float())[0, tips] for p in (flat, bend)]
    assert (at[1] - at[0])[:, 1].max() < -0.015
    assert bend_excess({"hand_pose": bend}, limits).max() < 1e-9
    backwards = np.where(np.arange(15)[:, None] < 12, 0, flat) + np.zeros((1, 15, 3))
    for finger in range(12):
        backwards[0, finger] = np.radians(-60) * limits.axes[finger, 1] - limits.mean[finger]
    found = np.degrees(bend_excess({"hand_pose": backwards}, limits)[0])
    expected = [-RANGES[f"finger{place % 3 + 1}"][1][0] for place in range(12)]
    np.testing.assert_allclose(found[:12], 60 - np.array(expected), atol=1e-6)


def test_bends_of_a_mirrored_body_are_mirrored() -> None:
    limits = joint_limits(body("smplx"))
    rng = np.random.default_rng(0)
    pose = rng.normal(0, 0.7, (20, 21, 3))
    hands = rng.normal(0, 0.7, (2, 20, 15, 3))
    flip = np.array([1, -1, -1])
    swapped = [
        n.replace("left", "#").replace("right", "left").replace("#", "right") for n in limits.names[:21]
    ]
    other = [limits.names.index(n) for n in swapped]
    one = bend_excess({"body_pose": pose, "left_hand_pose": hands[0], "right_hand_pose": hands[1]}, limits)
    two = bend_excess(
        {
            "body_pose": pose[:, other] * flip,
            "left_hand_pose": hands[1] * flip,
            "right_hand_pose": hands[0] * flip,
        },
        limits,
    )
    np.testing.assert_allclose(one[:, :21], two[:, other], atol=1e-9)
    np.testing.assert_allclose(one[:, 22:37], two[:, 37:52], atol=1e-4)


def test_real_poses_are_hardly_ever_flagged() -> None:
    quality = measure_quality(bodies(real_poses(400)), prior="none")
    assert quality["implausible_bend"].mean() < 0.01


# --- penetration


def winding(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """How often a closed surface goes round each point: 1 inside, 2 where parts of it are in each other."""
    a, b, c = (vertices[faces[:, k]][None] - points[:, None] for k in range(3))
    la, lb, lc = (np.linalg.norm(x, axis=-1) for x in (a, b, c))
    volume = np.einsum("pfi,pfi->pf", a, np.cross(b, c))
    flat = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return np.arctan2(volume, flat).sum(1) / (2 * np.pi)


def test_balls_lie_in_the_flesh() -> None:
    """Points all around each ball, at nine tenths of its radius, are inside the mesh: as trimesh has it."""
    model = body("smpl")
    balls = body_balls(model)
    rest = model.v_template.double().numpy()
    centre = np.einsum("km,kmc->kc", balls.weights, rest[balls.vertices][balls.hangers])
    around = trimesh.creation.icosphere(subdivisions=1).vertices
    points = centre[:, None] + 0.9 * balls.radius[:, None, None] * around
    inside = trimesh.Trimesh(rest, model.faces, process=False).contains(points.reshape(-1, 3))
    assert inside.mean() > 0.9995
    # Every limb has some, and they fill most of the body.
    assert set(balls.part.tolist()) == set(range(len(balls.parts)))


def test_overlapping_balls_are_flesh_in_flesh() -> None:
    """Where the test sees parts in each other, the posed surface itself goes round twice."""
    model = body("smpl")
    test = penetration_test(model)
    rng = np.random.default_rng(0)
    pose = real_poses(60) + rng.normal(0, 0.35, (60, 23, 3)).astype(np.float32)
    given_ = {"body_pose": torch.tensor(pose), "betas": torch.tensor(rng.normal(0, 1.5, (60, 10))).float()}
    with torch.no_grad():
        depth, pair = (x.numpy() for x in test(**given_))
        centre, radius = (x.double().numpy() for x in test.placed(**given_))
        skin = model(**given_).vertices.double().numpy()
    deep = np.flatnonzero(depth > 0.01)[:12]
    assert len(deep) == 12
    for row in deep:
        one, other = test.balls.pairs[pair[row]]
        apart = centre[row, other] - centre[row, one]
        length = np.linalg.norm(apart)
        assert radius[row, one] + radius[row, other] - length == pytest.approx(depth[row], abs=1e-5)
        # The middle of the lens that both balls have in common.
        low = max(-radius[row, one], length - radius[row, other])
        high = min(radius[row, one], length + radius[row, other])
        middle = centre[row, one] + apart / length * (low + high) / 2
        assert winding(middle[None], skin[row], model.faces)[0] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    ("name", "side"), [("smpl", None), ("smplx", None), ("mano", "right"), ("mano", "left")]
)
def test_rest_is_free_and_a_move_changes_nothing(name: str, side: str | None) -> None:
    model = body(name, side)
    test = penetration_test(model)
    rng = np.random.default_rng(0)
    part = "hand_pose" if name == "mano" else "body_pose"
    shape = (6, {"smpl": 23, "smplx": 21, "mano": 15}[name], 3)
    pose = torch.tensor(rng.normal(0, 0.5, shape)).float()
    pose[0] = 0
    with torch.no_grad():
        depth, pair = test(**{part: pose})
        moved, _ = test(**{part: pose, "global_orient": torch.randn(6, 3), "transl": 5 * torch.randn(6, 3)})
    assert depth[0] == 0
    assert pair[0] == -1
    assert (depth[1:] > 0).any()
    torch.testing.assert_close(depth, moved, atol=2e-5, rtol=0)
    assert [bool(n) for n in named_pairs(test, pair.numpy())] == (depth > 0).tolist()


def test_a_hand_put_into_the_belly_is_found_and_grows_deeper() -> None:
    model = body("smpl")
    names = joint_limits(model).names
    pose = np.zeros((12, 23, 3), np.float32)
    pose[:, names.index("left_shoulder")] = [0, 0, np.radians(-75)]
    pose[:, names.index("left_elbow"), 1] = np.radians(-90)  # the forearm forward
    pose[:, names.index("left_shoulder"), 1] = 0
    # Turning the upper arm about itself brings the forearm in front of the belly, then into it.
    turn = np.radians(np.linspace(0, 130, 12))
    for row, angle in enumerate(turn):
        down = Rotation.from_rotvec([0, 0, np.radians(-75)])
        pose[row, names.index("left_shoulder")] = (down * Rotation.from_rotvec([angle, 0, 0])).as_rotvec()
    test = penetration_test(model)
    signs = []
    for sign in (1, -1):
        turned = pose.copy()
        turned[:, names.index("left_shoulder")] = [
            (
                Rotation.from_rotvec([0, 0, np.radians(-75)]) * Rotation.from_rotvec([sign * a, 0, 0])
            ).as_rotvec()
            for a in turn
        ]
        with torch.no_grad():
            depth, pair = test(body_pose=torch.tensor(turned))
        signs.append((depth.numpy(), named_pairs(test, pair.numpy())))
    depth, pairs = max(signs, key=lambda found: found[0].max())
    assert depth[0] < 0.01
    assert depth.max() > 0.04
    worst = pairs[int(depth.argmax())]
    assert "trunk" in worst
    assert "left_" in worst


def test_a_head_has_no_parts() -> None:
    with pytest.raises(ValueError, match="a head alone"):
        body_balls(body("flame"))


# --- feet


def standing(places: np.ndarray, frames: np.ndarray, model: BodyModel) -> PseudoGT:
    """A body upright in Human3.6M's world, z up, its soles at z = 0 when `places` (N, 3) metres are 0."""
    count = len(places)
    up = np.tile([np.pi / 2, 0, 0], (count, 1))
    with torch.no_grad():
        rest = model(global_orient=torch.tensor(up[:1]).float()).vertices[0].numpy()
    params = {
        "global_orient": up,
        "body_pose": np.zeros((count, 23, 3)),
        "betas": np.zeros((count, 10)),
        "transl": places - [0, 0, rest[:, 2].min()],
    }
    keys = np.column_stack([np.ones(count), np.full(count, 2), np.ones(count), frames]).astype(int)
    return pseudo_gt_of("human36m-smpl", params, keys=keys)


def test_feet_by_hand() -> None:
    model = body("smpl")
    places = np.zeros((9, 3))
    places[:, 0] = [0, 0, 0.02, 0.04, 0.04, 0.04, 0.04, 0.3, 0.9]  # slides 2 cm a frame, twice; then leaps
    places[5, 2] = 0.10
    places[6, 2] = -0.04
    frames = np.array([0, 1, 2, 3, 4, 5, 6, 7, 50])
    quality = measure_quality(standing(places, frames, model), prior="none", batch_size=2)
    np.testing.assert_allclose(quality["foot_float"], [0, 0, 0, 0, 0, 0.10, 0, 0, 0], atol=1e-5)
    np.testing.assert_allclose(quality["foot_sink"], [0, 0, 0, 0, 0, 0, 0.04, 0, 0], atol=1e-5)
    # In the air at 5, no foot slides from 4 to 5 nor from 5 to 6; 50 is too far from 7.
    wanted = [0, 0.02, 0.02, 0.02, 0, 0, 0.26, 0.26, np.nan]
    np.testing.assert_allclose(quality["foot_skate"], wanted, atol=1e-5)
    higher = places + np.array([0, 0, 0.5])
    known = measure_quality(standing(higher, frames, model), prior="none", floor=0.0)
    np.testing.assert_allclose(known["foot_float"][:5], 0.5, atol=1e-5)
    assert measure_quality(standing(higher, frames, model))["foot_float"][:5].max() < 1e-5


def test_a_foot_that_rolls_does_not_slide() -> None:
    soles = np.zeros((2, 2, 3, 3))
    soles[:, :, :, 0] = [0, 0.1, 0.2]
    soles[1, :, 0] += [0.03, 0, 0.04]  # the heel lifts and moves, the ball stays
    keys = np.array([[1, 0], [1, 4]])
    assert foot_skate(lambda rows: soles[rows], keys, np.zeros(2), 2).tolist() == [0, 0]
    soles[1, 1] += [0.08, 0, 0]  # the right one slides, within four frames
    np.testing.assert_allclose(foot_skate(lambda rows: soles[rows], keys, np.zeros(2), 2), 0.02)


def test_floors_are_each_subjects_own() -> None:
    keys = np.array([[1, 2, 1, 0], [1, 3, 1, 0], [5, 2, 1, 0], [1, 3, 1, 5]])
    lowest = np.array([0.1, 0.3, 7.0, 0.2])
    assert floor_heights(lowest, keys, "Human3.6M").tolist() == [0.2, 0.2, 7.0, 0.2]
    assert floor_heights(lowest, keys[:, 1:], "MPI-INF-3DHP").tolist() == pytest.approx(
        [3.55, 0.25, 3.55, 0.25]
    )


@pytest.mark.parametrize("name", ["smpl", "smplx"])
def test_soles_are_under_the_feet(name: str) -> None:
    model = body(name)
    soles = model.v_template.numpy()[sole_vertices(model)]
    assert (soles[0, :, 0] > 0).all()
    assert (soles[1, :, 0] < 0).all()
    assert np.ptp(soles[..., 1]) < 0.031
    assert (np.ptp(soles[..., 2], axis=1) > 0.15).all()  # heel to toe


# --- in words


def test_summary_by_hand() -> None:
    values = np.concatenate([np.arange(1, 101) / 100, [np.nan, np.inf]]).astype(np.float32)
    text = quality_summary(
        {"error": values, "self_penetration": values > 0.9, "mine": np.full(102, np.nan)},
        left_out={"prior": "not asked for"},
    )
    lines = text.splitlines()
    assert lines[0].split() == ["rows", "mean", "median", "90%", "95%", "99%", "largest"]
    assert lines[1].split()[:8] == ["error,", "m", "101", "inf", "0.51", "0.91", "0.96", "1"]
    assert lines[1].split()[8] == "inf"
    assert lines[1].endswith("| 0.99")
    assert lines[2].split() == ["mine", "0", "-", "-", "-", "-", "-", "-"]
    assert lines[3] == "self_penetration: 11 of 102 rows (10.8 %)"
    assert lines[4] == "not measured: prior: not asked for"
