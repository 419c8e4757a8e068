"""What the regressors' data sets mark as not there: no root, behind the camera, not fitted; mirrors."""

from __future__ import annotations

import numpy as np
import pytest
import regressor_twins as twins
from own_sample import SAMPLE

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.images import write_image
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.regressors import (
    Augmentation,
    Hand4WholeDataset,
    Hmr2Dataset,
    Pose2MeshDataset,
    Pose2PoseDataset,
    pose2mesh,
)
from neuralannot.regressors.own_joints import BODY_ALIASES, own_joints
from neuralannot.regressors.part_joints import BODY, HAND
from neuralannot.regressors.pose2pose import shape_target

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

FLIPPED = Augmentation(flip=True)


@pytest.fixture(scope="module")
def walk() -> PseudoGT:
    return load_pseudo_gt(SAMPLE / "human36m")


@pytest.fixture(scope="module")
def photograph() -> PseudoGT:
    return load_pseudo_gt(SAMPLE / "mscoco" / "MSCOCO_train_SMPL_NeuralAnnot.json")


@pytest.fixture
def whole(released, tmp_path) -> tuple[PseudoGT, object]:
    """SMPL-X fits, hands and faces all valid, and a folder of black images."""
    gt = load_pseudo_gt(released("mscoco-smplx").path)[:2]
    for path in gt.image_path:
        write_image(tmp_path / path, np.zeros((480, 640, 3), np.uint8))
    parts = {f"valid__{part}": np.ones(len(gt), bool) for part in gt.valid}
    return with_columns(gt, **parts), tmp_path


def with_columns(gt: PseudoGT, **columns) -> PseudoGT:
    named = {name.replace("__", "/"): np.asarray(value) for name, value in columns.items()}
    return PseudoGT(gt.view.overlaid(named), gt.release, space=gt.space, companions=gt.companions)


def bodies_own(gt: PseudoGT):
    return own_joints(gt, BODY.joints, "pelvis", BODY_ALIASES)


def test_coco_s_pelvis_needs_both_hips(photograph):
    """Between the hips where both are clicked; of one alone nothing follows."""
    names, pelvis = JOINT_SETS["coco-17"].joints, BODY.index("pelvis")
    points = np.ones((1, 17, 3), np.float32)
    points[0, :, 0] = 10 * np.arange(17)
    left, right = names.index("left_hip"), names.index("right_hip")
    own = bodies_own(with_columns(photograph, ann__keypoints=points))
    assert own.valid[0, pelvis]
    assert (own.image[0, pelvis] == [5 * (left + right), 1]).all()
    for hidden in (left, right):
        one = points.copy()
        one[0, hidden, 2] = 0
        own = bodies_own(with_columns(photograph, ann__keypoints=one))
        assert not own.valid[0, pelvis]
        assert not own.image[0, pelvis].any()
        assert own.valid[0, BODY.index("left_hip")] == (hidden != left)


def test_hands_without_a_wrist_have_no_joints(released):
    """What is about the root is nowhere where the root is not known: InterHand2.6M's own rule."""
    gt = load_pseudo_gt(released("interhand26m-mano").path, release="interhand26m-mano")
    wrist = JOINT_SETS["interhand-21-right"].index("right_wrist")
    flags = np.ones((len(gt), 42), bool)
    flags[:, wrist if gt.side[0] == "right" else 21 + wrist] = False
    own = own_joints(with_columns(gt, ann__joint_valid=flags), HAND.joints, "wrist")
    lost = gt.side == gt.side[0]
    assert 0 < lost.sum() < len(gt)
    assert not own.valid[lost].any()
    assert not own.relative[lost].any()
    assert not own.image[lost].any()
    assert own.valid[~lost].any(axis=1).all()


def test_mocap_joints_behind_the_camera_are_none(walk):
    """The camera moved into the pelvis: half of the joints are before it."""
    gt = walk[:4]
    camera = gt.camera
    seen = camera.world_to_camera(gt.joints_world)
    t = np.array(camera.t)
    t[:, 2] -= seen[:, 0, 2] + 0.001
    own = own_joints(with_columns(gt, cam__t=t), JOINT_SETS["human36m-17"].joints, "pelvis")
    ahead = seen[..., 2] - seen[:, :1, 2] - 0.001 > 0
    assert 0 < ahead.sum() < ahead.size
    assert (own.valid == ahead).all()
    assert np.isfinite(own.image).all()


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("human36m-smpl", "neck_h36m"), ("mpi-inf-3dhp-smpl", "neck_3dhp"), ("mpii-smpl", "neck_mpii")],
)
def test_necks_of_data_sets_go_to_smpl_s(name, theirs, released):
    """As Pose2Pose's classes do; other joints of the trunk and the head have no place there."""
    gt = load_pseudo_gt(released(name).path, release=name)
    set_name = gt.joint_set_world or "mpii-16"
    names = JOINT_SETS[set_name].joints
    if gt.joint_set_world is None:
        points = np.random.default_rng(0).uniform(1, 300, (len(gt), 16, 3)).astype(np.float32)
        gt = with_columns(gt, ann__keypoints=points)
        pixels = points[..., :2]
    else:
        pixels = gt.camera.project(gt.camera.world_to_camera(gt.joints_world))
    own = bodies_own(gt)
    places = {joint: "neck" if joint == theirs else joint for joint in names}
    known = {joint: BODY.index(place) for joint, place in places.items() if place in BODY.joints}
    for joint, place in known.items():
        seen = np.isfinite(pixels[:, names.index(joint)]).all(axis=1)
        assert seen.any()
        assert (own.valid[:, place] == seen).all(), joint
        np.testing.assert_allclose(own.image[seen, place], pixels[seen, names.index(joint)], rtol=1e-5)
    others = np.setdiff1d(np.arange(len(BODY)), list(known.values()))
    assert not own.valid[:, others].any()
    assert not own.valid[:, BODY.index("nose")].any()
    assert len(known) == 14  # pelvis, neck, three joints of each limb


def test_a_fit_behind_the_camera_is_marked(photograph):
    behind = np.array(photograph.params["transl"])
    behind[:, 2] = -4
    images = SAMPLE / "mscoco"
    _, targets, meta = Pose2PoseDataset(with_columns(photograph, param__transl=behind), images=images)[0]
    for name in ("smpl_joint_img", "smpl_joint_cam"):
        assert not targets[name].any()
    assert not meta["smpl_joint_valid"].any()
    assert not meta["smpl_joint_trunc"].any()
    assert (meta["smpl_pose_valid"] == 1).all()  # how it turns is known all the same


def test_shapes_beyond_three_give_the_mean_one():
    for code, kept in ((3.0, True), (-3.0, True), (3.01, False), (-3.01, False)):
        betas = np.array([0.5, *[0.0] * 8, code], np.float32)
        assert (shape_target(betas) == betas * kept).all()


@pytest.mark.parametrize("lost", ["body", "left_hand", "right_hand", "face"])
def test_whole_bodies_parts_are_marked_alone(lost, whole):
    """Each part that is not fitted takes its joints, turns and codes along; a body takes all."""
    gt, images = whole
    gt = with_columns(gt, **{f"valid__{lost}": np.zeros(len(gt), bool)})
    joints = {"left_hand": slice(25, 45), "right_hand": slice(45, 65), "face": slice(65, 137)}
    turns = {"left_hand": slice(66, 111), "right_hand": slice(111, 156), "face": slice(156, 159)}
    for flip in (False, True):
        swap = {"left_hand": "right_hand", "right_hand": "left_hand"} if flip else {}
        drawn = FLIPPED if flip else Augmentation()
        _, targets, meta = Hand4WholeDataset(gt, images=images, augment=lambda rng, drawn=drawn: drawn)[0]
        part = swap.get(lost, lost)
        expected_joints, expected_turns = np.ones(137, bool), np.ones(159, bool)
        expected_joints[120:] = False  # the contour
        expected_joints[joints.get(part, slice(None))] = False
        expected_turns[turns.get(part, slice(None))] = False
        assert (meta["smplx_joint_valid"][:, 0] == expected_joints).all()
        assert (meta["smplx_pose_valid"] == expected_turns).all()
        assert not targets["smplx_pose"][~expected_turns].any()
        assert not targets["smplx_joint_img"][~expected_joints].any()
        assert meta["smplx_shape_valid"] == float(lost != "body")
        assert meta["smplx_expr_valid"] == float(lost not in ("body", "face"))
        assert targets["smplx_shape"].any() == (lost != "body")
        assert targets["smplx_expr"].any() == (lost not in ("body", "face"))


def test_boxes_of_parts_without_area_are_none(whole):
    """COCO-WholeBody has boxes of no width; mirrored, a box is the other hand's."""
    gt, images = whole
    boxes = np.tile(np.array([[100, 80, 20, 30]], np.float32), (len(gt), 1))
    flat = boxes * np.array([1, 1, 0, 1], np.float32)
    gt = with_columns(gt, ann__box_left_hand=flat, ann__box_right_hand=boxes, ann__box_face=boxes * np.nan)
    for drawn, there in ((Augmentation(), "rhand"), (FLIPPED, "lhand")):
        _, targets, meta = Hand4WholeDataset(gt, images=images, augment=lambda rng, drawn=drawn: drawn)[0]
        for part in ("lhand", "rhand", "face"):
            assert meta[f"{part}_bbox_valid"] == float(part == there)
            assert targets[f"{part}_bbox_size"].any() == (part == there)
        width, height = gt.image_size[0]
        box = twins.processed_box(gt.box_xywh[0], width, height, 0.75)
        size = boxes[0, 2:] * (384, 512) / box[2:] / (384, 512) * (6, 8)
        np.testing.assert_allclose(targets[f"{there}_bbox_size"], size, rtol=1e-4)


def test_pose2mesh_s_own_joints_stand_without_a_fit(walk):
    """Human3.6M's joints are what they are; mesh and COCO's joints come of the fit alone."""
    lost = with_columns(walk[:2], valid__body=np.zeros(2, bool))
    own = walk[:2].camera.world_to_camera(walk[:2].joints_world)[0]
    for input_joints in ("coco", "human36"):
        _, targets, meta = Pose2MeshDataset(lost, input_joints=input_joints)[0]
        np.testing.assert_allclose(targets["reg_pose3d"], (own - own[0]) * 1000, atol=0.05)
        assert (meta["reg_pose3d_valid"] == 1).all()
        assert not meta["mesh_valid"].any()
        assert not targets["mesh"].any()
        measured = input_joints == "human36"
        assert (meta["lift_pose3d_valid"] == measured).all()
        assert targets["lift_pose3d"].any() == measured
        bare = Pose2MeshDataset(lost, input_joints=input_joints, joints=False)[0]
        for values in (*bare[1].values(), *bare[2].values()):
            assert not values.any()


def test_hmr2_turns_and_mirrors_mocap_joints(walk, tmp_path):
    """Left joints become right ones at -x, and both 2D and 3D turn with the picture."""
    for path, (width, height) in zip(walk.image_path[:1], walk.image_size[:1], strict=True):
        write_image(tmp_path / path, np.zeros((height, width, 3), np.uint8))

    def item(drawn: Augmentation):
        return Hmr2Dataset(walk[:1], images=tmp_path, augment=lambda rng: drawn)[0]

    # SPIN's limbs by name: right ankle to left ankle, right wrist to left wrist; the others have no side.
    swap = np.array([25 + k for k in (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, *range(12, 19))])
    plain, mirrored = item(Augmentation()), item(FLIPPED)
    seen = np.flatnonzero(plain["keypoints_3d"][:, 3]) - 25
    assert len(seen) == 17
    for keys, sign in (("keypoints_3d", [-1, 1, 1, 1]), ("keypoints_2d", [-1, 1, 1])):
        expected = plain[keys][swap] * sign
        # Pixels are mirrored about their centres: one crop pixel's width at most.
        np.testing.assert_allclose(mirrored[keys][25:], expected, atol=0.02 if keys[-2:] == "2d" else 1e-6)
    for drawn in (Augmentation(rotation=35), Augmentation(rotation=-60, flip=True)):
        turned, still = item(drawn), mirrored if drawn.flip else plain
        turn = twins.in_plane(drawn.rotation)
        np.testing.assert_allclose(
            turned["keypoints_3d"][:, :3], still["keypoints_3d"][:, :3] @ turn.T, atol=1e-6
        )
        there = turned["keypoints_2d"][:, 2] > 0
        flat = still["keypoints_2d"][there, :2] @ turn[:2, :2].T
        np.testing.assert_allclose(turned["keypoints_2d"][there, :2], flat, atol=1e-4)


def test_hmr2_s_shapes_that_are_far_out(photograph):
    """4D-Humans' settings together: beyond the limit on either side, with the pose, the mean instead."""
    far = {"images": SAMPLE / "mscoco", "max_beta": 3.0, "split": "test"}
    for code in (3.5, -3.5):
        codes = np.array(photograph.params["betas"])
        codes[0, 2] = code
        gt = with_columns(photograph, param__betas=codes)
        has = {
            options: Hmr2Dataset(gt, **far, whole_fits="w" in options, mean_betas="m" in options)[0]
            for options in ("", "w", "m", "wm")
        }
        for options, sample in has.items():
            valid = sample["has_smpl_params"]
            assert valid["body_pose"] == valid["global_orient"] == ("w" not in options), options
            assert valid["betas"] == ("m" in options), options
            assert sample["smpl_params"]["betas"].any() == ("m" not in options), options
            assert all(type(flag) is np.float32 for flag in valid.values())
    near = Hmr2Dataset(photograph, **far, whole_fits=True, mean_betas=True)[0]
    assert near["has_smpl_params"] == {"global_orient": 1, "body_pose": 1, "betas": 1}
    assert (near["smpl_params"]["betas"] == photograph.params["betas"][0]).all()


def test_pose2mesh_takes_the_fit_s_joints_where_its_own_are_not_all_seen(walk):
    """A camera that some of Human3.6M's joints are behind: those left would be no pose."""
    gt = walk[:1]
    t = np.array(gt.camera.t)
    t[:, 2] -= gt.camera.world_to_camera(gt.joints_world)[:, 0, 2]
    fit = gt.forward(want="joints", regressor="human36m-17").joints[0].numpy()
    moved = with_columns(gt.to_camera_space(), cam__t=t)  # the fits stay where they are
    _, targets, meta = Pose2MeshDataset(moved, input_joints="human36")[0]
    np.testing.assert_allclose(targets["reg_pose3d"], (fit - fit[0]) * 1000, atol=0.05)
    assert all((flags == 1).all() for flags in meta.values())


def test_pose2mesh_s_errors_grow_with_the_crop(walk, monkeypatch):
    """PoseFix's distances follow from the person's area, which is all of the crop of 288 x 384."""
    asked = []

    def errors(points, area, rng):
        asked.append((np.ptp(points, axis=0).max(), area))
        return points

    monkeypatch.setattr(pose2mesh, "coco_errors", errors)
    _ = Pose2MeshDataset(walk[:1], noise=True, seed=0)[0]
    ((extent, area),) = asked
    assert area == 288 * 384
    assert 250 < extent < 400  # in the crop's pixels, not the image's


def test_pose2mesh_s_box_is_a_pixel_less_than_the_joints():
    """As COCO counts edges: from the first joint's pixel, one less wide, then brought to the aspect."""
    points = np.array([[10.0, 20], [110, 60], [50, 30]])
    x, y, w, h = pose2mesh._tight_box(points, 1.0)
    assert (x, w, h) == (10, 99, 99)
    assert y + h / 2 == 20 + 39 / 2
