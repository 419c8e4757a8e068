"""Placing: translations by least squares, world and camera as inverses, mirrored hands by projection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from neuralannot import load_pseudo_gt
from neuralannot.body_models import load_body_model
from neuralannot.boxes import apply_affine, crop_affine, process_boxes, virtual_camera
from neuralannot.cameras import Camera
from neuralannot.demo import SAMPLE
from neuralannot.joint_sets import JOINT_SETS, JointSet
from neuralannot.train.placing import (
    camera_to_world,
    place_by_joints,
    pose_joints,
    rest_roots,
    translation_from_joints,
    unflip_hands,
)
from neuralannot.train.released import pseudo_gt_of
from neuralannot.transforms import rigid_parameters

H36M = JOINT_SETS["human36m-17"]
pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


def hand_params(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    params = {
        "global_orient": Rotation.random(count, random_state=rng).as_rotvec(),
        "hand_pose": rng.normal(0, 0.3, (count, 15, 3)),
        "betas": rng.normal(0, 1, (count, 10)),
        "transl": rng.uniform(-0.1, 0.1, (count, 3)) + np.array([0, 0, 9]),
    }
    return {name: values.astype(np.float32) for name, values in params.items()}


def body_params(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    params = {
        "global_orient": Rotation.random(count, random_state=rng).as_rotvec(),
        "body_pose": rng.normal(0, 0.3, (count, 23, 3)),
        "betas": rng.normal(0, 1, (count, 10)),
        "transl": rng.uniform(-2, 2, (count, 3)),
    }
    return {name: values.astype(np.float32) for name, values in params.items()}


def cameras(rng: np.random.Generator, count: int) -> Camera:
    R = Rotation.random(count, random_state=rng).as_matrix()
    return Camera(np.full((count, 2), 1100.0), np.full((count, 2), 500.0), R, rng.uniform(-4, 4, (count, 3)))


def posed(model, params: dict[str, np.ndarray]):  # type: ignore[no-untyped-def]
    with torch.no_grad():
        return model(**{name: torch.tensor(values) for name, values in params.items()})


# --- translations


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), joints=st.integers(1, 21), count=st.integers(0, 4))
def test_translation_is_the_least_squares_one(seed: int, joints: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    start, target = rng.normal(size=(2, count, joints, 3))
    valid = rng.random((count, joints)) < 0.7
    target[~valid] = np.nan
    found = translation_from_joints(start, target, valid)
    assert found.shape == (count, 3)
    assert found.dtype == np.float32
    for row in range(count):
        use = valid[row]
        if not use.any():
            assert np.isnan(found[row]).all()
            continue
        design = np.tile(np.eye(3), (use.sum(), 1))
        wanted, *_ = np.linalg.lstsq(design, (target[row, use] - start[row, use]).reshape(-1), rcond=None)
        np.testing.assert_allclose(found[row], wanted, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_translation_moves_with_the_target_and_turns_with_both(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start, target = rng.normal(size=(2, 3, 17, 3))
    shift, R = rng.normal(size=(3, 1, 3)), Rotation.random(random_state=rng).as_matrix()
    before = translation_from_joints(start, target)
    np.testing.assert_allclose(
        translation_from_joints(start, target + shift), before + shift[:, 0], atol=1e-6
    )
    np.testing.assert_allclose(translation_from_joints(start @ R.T, target @ R.T), before @ R.T, atol=1e-6)
    np.testing.assert_allclose(translation_from_joints(start, start + shift), shift[:, 0], atol=1e-6)


def test_far_from_the_origin_nothing_is_lost() -> None:
    start = np.random.default_rng(0).normal(size=(1, 17, 3))
    far = np.array([1e5, -1e5, 1e5])
    np.testing.assert_allclose(translation_from_joints(start + far, start + far + 0.001), 0.001, atol=1e-8)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"posed and target must both be \(N, J, 3\), got \(1, 2, 3\) and"):
        translation_from_joints(np.zeros((1, 2, 3)), np.zeros((1, 3, 3)))
    with pytest.raises(ValueError, match=r"valid must be \(1, 2\) like the joints, got \(2,\)"):
        translation_from_joints(np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), np.ones(2))


def test_true_parameters_are_placed_where_they_were() -> None:
    rng = np.random.default_rng(1)
    truth = body_params(rng, 5)

    def joints(params, rows):  # type: ignore[no-untyped-def]
        return pose_joints("smpl", params, H36M, batch_size=2)

    target = joints(truth, np.arange(5))
    valid = rng.random((5, 17)) < 0.6
    valid[2] = False
    target[~valid] = np.nan
    placed, error = place_by_joints({**truth, "transl": truth["transl"] * 0}, target, valid, joints)
    some = np.array([0, 1, 3, 4])
    np.testing.assert_allclose(placed["transl"][some], truth["transl"][some], atol=2e-6)
    assert error[some].max() < 2e-6
    assert np.isnan(placed["transl"][2]).all()
    assert np.isnan(error[2])


# --- joints


def test_joints_are_those_of_forward() -> None:
    rng = np.random.default_rng(2)
    params = hand_params(rng, 7)
    side = np.array(["right", "left", "left", "right", "left", "right", "right"])
    found = pose_joints("mano", params, JOINT_SETS["interhand-21-right"], side=side, batch_size=2)
    camera = {"focal": np.full((7, 2), 1e3), "princpt": np.zeros((7, 2))}
    gt = pseudo_gt_of("mscoco-mano", params, ids=np.arange(7), side=side, **camera)
    wanted = gt.forward(regressor="interhand-21", want="joints").joints
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    none = {name: values[:0] for name, values in params.items()}
    assert pose_joints("mano", none, JOINT_SETS["interhand-21-right"], side=side[:0]).shape == (0, 21, 3)


def test_joints_that_a_body_does_not_have_are_nan() -> None:
    """And do not count where bodies are placed."""
    rng = np.random.default_rng(2)
    truth = body_params(rng, 2)
    mixed = JointSet("mine", ("left_knee", "tail_tip", "right_wrist"))

    def joints(params, rows):  # type: ignore[no-untyped-def]
        return pose_joints("smpl", params, mixed, gender=np.array(["male", "female"])[rows])

    found = joints(truth, np.arange(2))
    assert np.isnan(found).any(axis=(0, 2)).tolist() == [False, True, False]
    target = np.nan_to_num(found, nan=7)
    placed, error = place_by_joints(truth, target, None, joints)
    np.testing.assert_allclose(placed["transl"], truth["transl"], atol=1e-6)
    assert error.max() < 1e-6


def test_what_joints_need() -> None:
    params, one = hand_params(np.random.default_rng(0), 2), JOINT_SETS["interhand-21-right"]
    with pytest.raises(ValueError, match=r"^side must be \(N,\) of right, left for mano"):
        pose_joints("mano", params, one)
    with pytest.raises(ValueError, match=r"^side must be \(2,\) of right, left, got"):
        pose_joints("mano", params, one, side=np.array(["right", "both"]))
    with pytest.raises(ValueError, match=r"^gender must be \(2,\) of neutral, male, female"):
        pose_joints("mano", params, one, side=np.array(["right"] * 2), gender=np.array(["x"]))
    with pytest.raises(ValueError, match=r"^params must all have the same number of rows"):
        pose_joints("mano", {**params, "betas": params["betas"][:1]}, one, side=np.array(["left"]))


# --- the world


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 4))
def test_world_and_back(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    params, camera = body_params(rng, count), cameras(rng, count)
    rest = rng.normal(size=(count, 3)).astype(np.float32)
    world = camera_to_world(params, camera, rest)
    root, transl = rigid_parameters(world["global_orient"], world["transl"], rest, camera.R, camera.t)
    a, b = (
        Rotation.from_rotvec(root.reshape(-1, 3)),
        Rotation.from_rotvec(params["global_orient"].reshape(-1, 3)),
    )
    assert (a.inv() * b).magnitude().max(initial=0) < 2e-6
    np.testing.assert_allclose(transl, params["transl"], atol=2e-6)
    assert world["body_pose"] is params["body_pose"]


def test_world_meshes_are_the_camera_meshes_moved() -> None:
    rng = np.random.default_rng(3)
    params, camera = body_params(rng, 3), cameras(rng, 3)
    model = load_body_model("smpl")
    rest = model.rest_root(torch.tensor(params["betas"])).numpy()
    here = posed(model, params).vertices.numpy()
    there = posed(model, camera_to_world(params, camera, rest)).vertices.numpy()
    np.testing.assert_allclose(camera.world_to_camera(there), here, atol=5e-6)


def test_inverse_of_to_camera_space_on_the_shipped_sample() -> None:
    gt = load_pseudo_gt(SAMPLE / "human36m", cache=False)
    moved = gt.to_camera_space()
    back = camera_to_world(dict(moved.params), gt.require_camera(), gt.rest_root())
    np.testing.assert_allclose(back["transl"], gt.params["transl"], atol=3e-6)
    turned = Rotation.from_rotvec(back["global_orient"]).inv() * Rotation.from_rotvec(
        gt.params["global_orient"]
    )
    assert turned.magnitude().max() < 3e-6


def test_rest_roots_are_those_of_the_fits() -> None:
    rng = np.random.default_rng(6)
    hands, side = hand_params(rng, 3), np.array(["left", "right", "left"])
    camera = {"focal": np.ones((3, 2)), "princpt": np.zeros((3, 2))}
    gt = pseudo_gt_of("mscoco-mano", hands, ids=np.arange(3), side=side, **camera)
    np.testing.assert_array_equal(rest_roots("mano", hands, side=side), gt.rest_root())
    face = {name: hands[name] for name in ("global_orient", "betas")}
    face |= {"jaw_pose": face["global_orient"], "expression": hands["betas"][::-1].copy()}
    gt = pseudo_gt_of("ffhq-flame", face, ids=np.arange(3), **camera)
    np.testing.assert_array_equal(rest_roots("flame", face), gt.rest_root())


# --- left hands


def test_left_hands_are_the_mirror_image() -> None:
    rng = np.random.default_rng(4)
    params = hand_params(rng, 4)
    side = np.array(["left", "right", "left", "right"])
    flipped = unflip_hands(params, side)
    right, left = (
        posed(load_body_model("mano", side=s), p) for s, p in (("right", params), ("left", flipped))
    )
    mirror = np.array([-1, 1, 1], np.float32)
    rows = [0, 2]
    np.testing.assert_allclose(left.vertices[rows], right.vertices[rows].numpy() * mirror, atol=1e-6)
    np.testing.assert_allclose(left.joints[rows], right.joints[rows].numpy() * mirror, atol=1e-6)
    for name, values in params.items():
        np.testing.assert_array_equal(flipped[name][[1, 3]], values[[1, 3]])
        assert flipped[name].dtype == np.float32
        np.testing.assert_array_equal(unflip_hands(flipped, side)[name], values)
    # The release's own rule.
    pose = np.concatenate([params["global_orient"][:, None], params["hand_pose"]], 1).reshape(4, -1, 3)
    pose[..., 1:3] *= -1
    np.testing.assert_array_equal(flipped["hand_pose"][rows], pose[rows, 1:])
    np.testing.assert_array_equal(flipped["global_orient"][rows], pose[rows, 0])
    np.testing.assert_array_equal(flipped["transl"][rows], params["transl"][rows] * mirror)


def test_what_flipping_needs() -> None:
    params = hand_params(np.random.default_rng(0), 2)
    with pytest.raises(ValueError, match=r"^side must be \(2,\) of right, left, got"):
        unflip_hands(params, np.array(["right", "Left"]))
    del params["hand_pose"]
    with pytest.raises(
        ValueError, match=r"^these are not a hand's parameters: global_orient, betas, transl$"
    ):
        unflip_hands(params, np.array(["right", "left"]))


# --- in the wild: from the crop to the image, through the file


def test_projections_land_where_the_crop_had_them(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """A crop pixel and its image pixel, left hands' crops mirrored, after writing and loading."""
    rng = np.random.default_rng(5)
    count = 6
    params = hand_params(rng, count)
    params["transl"][:, 2] = 4
    side = np.array(["right", "left"] * 3)
    boxes, valid = process_boxes(rng.uniform(40, 90, (count, 4)), (640, 480))
    assert valid.all()
    crop = Camera.from_intrinsics(np.full((count, 2), 5000.0), np.full((count, 2), 128.0))
    seen = posed(load_body_model("mano", side="right"), params).vertices.numpy()
    to_crop = crop_affine(boxes, (256, 256), flip=side == "left")

    focal, princpt = virtual_camera(boxes)
    ids = np.array([7, 7, 5, 5, 9, 9])
    gt = pseudo_gt_of(
        "mscoco-mano", unflip_hands(params, side), ids=ids, side=side, focal=focal, princpt=princpt
    )
    path = tmp_path / "MSCOCO_train_MANO_NeuralAnnot.json"
    gt.save(path)
    back = load_pseudo_gt(path, annotations=False, cache=False)
    on_image = back.forward().project("vertices").numpy()
    order = np.array(
        [int(np.flatnonzero((ids == i) & (side == s))[0]) for i, s in zip(back.ids, back.side, strict=True)]
    )
    np.testing.assert_allclose(apply_affine(to_crop[order], on_image), crop.project(seen)[order], atol=0.02)
