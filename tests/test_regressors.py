"""The data sets for Pose2Pose and Hand4Whole against slow twins and the annotations' own reprojection."""

from __future__ import annotations

import functools
import pickle
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import regressor_twins as twins
import torch
from smplx_layers import OPEN_FOLDER
from torch.utils.data import DataLoader, default_collate

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.demo import SAMPLE
from neuralannot.images import read_image
from neuralannot.regressors import (
    Augmentation,
    Hand4WholeDataset,
    Hmr2Dataset,
    Pose2MeshDataset,
    Pose2PoseDataset,
)
from neuralannot.regressors.augmentation import draw_hmr2, draw_pose2pose
from neuralannot.regressors.crop import cut_crop
from neuralannot.regressors.own_joints import own_joints
from neuralannot.regressors.part_joints import BODY, FACE, HAND, WHOLE_BODY, body_regressor

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

STILL = Augmentation()
MOVED = Augmentation(scale=1.15, rotation=23.0, flip=True, color=(0.9, 1.1, 1.3))
MOST = 4  # rows of a release that are looked at
_SLOW = pytest.mark.slow
TWINS = [("mscoco-smpl", STILL), ("mscoco-smpl", MOVED), ("human36m-smpl", MOVED)]
TWINS += [("mscoco-mano", MOVED), ("interhand26m-mano", MOVED), ("mscoco-flame", MOVED)]
TWINS += [
    pytest.param("mpi-inf-3dhp-smpl", MOVED, marks=_SLOW),
    pytest.param("mscoco-flame", STILL, marks=_SLOW),
    pytest.param("human36m-smpl", STILL, marks=_SLOW),
    pytest.param("crowdpose-smpl", MOVED, marks=_SLOW),
]
PARTS = {
    "smpl": ((256, 192), (8, 8, 6), 2.0),
    "mano": ((256, 256), (8, 8, 8), 0.3),
    "flame": ((256, 192), (8, 8, 6), 0.3),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, released):
    """Release -> its rows and a folder with an image of the annotated size at every path."""
    folder = tmp_path_factory.mktemp("pictures")

    @functools.cache
    def get(name: str):
        written = released(name)
        gt = load_pseudo_gt(written.path, release=name)
        rng = np.random.default_rng(0)
        for path, (width, height) in zip(gt.image_path.tolist(), gt.image_size.tolist(), strict=True):
            place = folder / name / path
            if not place.is_file():
                place.parent.mkdir(parents=True, exist_ok=True)
                small = rng.integers(0, 255, (12, 12, 3), np.uint8)
                cv2.imwrite(str(place), cv2.resize(small, (width or 640, height or 480)))
        return written, gt, folder / name

    return get


def close(ours, theirs, tolerance=2e-3) -> None:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=tolerance)


def with_columns(gt: PseudoGT, **columns) -> PseudoGT:
    named = {name.replace("__", "/"): np.asarray(value) for name, value in columns.items()}
    return PseudoGT(gt.view.overlaid(named), gt.release, space=gt.space, companions=gt.companions)


# --- Pose2Pose


@pytest.mark.parametrize(("name", "drawn"), TWINS)
def test_samples_are_those_of_the_slow_twin(name, drawn, pictures):
    written, gt, images = pictures(name)
    model = gt.model
    shape, heat, depth = PARTS[model]
    boxes = gt.box_xywh
    kept = np.isfinite(boxes).all(1)
    dataset = Pose2PoseDataset(gt.rows(kept), images=images, augment=lambda rng: drawn)
    for k, number in enumerate(np.flatnonzero(kept)[:MOST]):
        row = written.rows[number]
        assert dataset.gt.ids[k] == row.id
        applied = replace(drawn, flip=row.side == "left") if model == "mano" else drawn
        inputs, targets, meta = dataset[k]
        image = read_image(images / gt.image_path[number])
        height, width = image.shape[:2]
        box = twins.processed_box(boxes[number], width, height, shape[1] / shape[0])
        picture, affine = twins.crop(image.astype(np.float32), box, shape, applied)
        picture = np.clip(picture * np.float32(applied.color), 0, 255).transpose(2, 0, 1) / 255
        assert np.abs(inputs["img"].numpy() - picture).max() < 0.02
        assert np.abs(inputs["img"].numpy() - picture).mean() < 1e-3
        part = (shape, heat, depth)

        names, pixels, relative, valid, solid = twins.own_joints(written, row, model)
        target_names = {"smpl": twins.BODY, "mano": twins.HAND}.get(model, [f"Face_{j}" for j in range(73)])
        index = [names.index(n) if n in names else -1 for n in target_names]
        there = np.array([j >= 0 for j in index]) & valid[index]
        flips = {"smpl": twins.BODY_FLIPS, "flame": twins.FACE_FLIPS}.get(model, ())
        own = twins.heatmap(pixels[index], relative[index], there, affine, width, applied, flips, part)
        close(targets["joint_img"], own[0])
        close(targets["joint_cam"], own[1] if solid else np.zeros_like(own[1]), 1e-4)
        assert (meta["joint_valid"][:, 0] == own[2]).all()
        assert (meta["joint_trunc"][:, 0] == own[3]).all()
        assert meta["is_3D"] == float(solid)

        points, made = twins.part_joints(written, row, model)
        made = made & (points[:, 2] > 0)
        safe = np.where(made[:, None], points, 1.0)
        fit = twins.heatmap(
            twins.project(row, safe), safe - points[0], made, affine, width, applied, flips, part
        )
        prefix = {"smpl": "smpl", "mano": "mano", "flame": "flame"}[model]
        close(targets[f"{prefix}_joint_cam"], fit[1], 1e-4)
        assert (meta[f"{prefix}_joint_valid"][:, 0] == fit[2]).all()
        if model != "flame":
            close(targets[f"{prefix}_joint_img"], fit[0])
            assert (meta[f"{prefix}_joint_trunc"][:, 0] == fit[3]).all()
            pose = np.array(row.leaf["pose"]).reshape(-1, 3)
            pose[0] = twins.camera_root(row, pose[0])
            close(targets[f"{prefix}_pose"], twins.turned_pose(pose, applied, _pose_flips(model)), 1e-4)
            assert (meta[f"{prefix}_pose_valid"] == 1).all()
        else:
            leaf = row.leaf
            close(targets["flame_root_pose"], twins.turned_pose(leaf["root_pose"], applied, ()), 1e-4)
            jaw = np.array(leaf["jaw_pose"]) * ([1, -1, -1] if applied.flip else [1, 1, 1])
            close(targets["flame_jaw_pose"], jaw, 1e-5)
            close(targets["flame_expr"], leaf["expr"], 1e-5)
        shape_code = np.array(row.leaf["shape"])
        close(targets[f"{prefix}_shape"], shape_code * (np.abs(shape_code) <= 3).all(), 1e-5)
        assert meta[f"{prefix}_shape_valid"] == 1.0


def _pose_flips(model):
    return twins.BODY_POSE_FLIPS if model == "smpl" else ()


KEYS = {
    "mscoco-smpl": (
        "joint_img smpl_joint_img joint_cam smpl_joint_cam smpl_pose smpl_shape",
        "joint_valid joint_trunc smpl_joint_trunc smpl_joint_valid smpl_pose_valid smpl_shape_valid is_3D",
    ),
    "mscoco-mano": (
        "joint_img mano_joint_img joint_cam mano_joint_cam mano_pose mano_shape",
        "joint_valid joint_trunc mano_joint_trunc mano_joint_valid mano_pose_valid mano_shape_valid is_3D",
    ),
    "mscoco-flame": (
        "joint_img joint_cam flame_joint_cam flame_root_pose flame_jaw_pose flame_shape flame_expr",
        "joint_valid joint_trunc flame_joint_valid flame_root_pose_valid flame_jaw_pose_valid "
        "flame_shape_valid flame_expr_valid is_3D",
    ),
}
SHAPES = {
    "mscoco-smpl": {
        "smpl_pose": (72,),
        "smpl_shape": (10,),
        "smpl_joint_img": (33, 3),
        "joint_valid": (33, 1),
    },
    "mscoco-mano": {
        "mano_pose": (48,),
        "mano_shape": (10,),
        "mano_joint_img": (21, 3),
        "joint_trunc": (21, 1),
    },
    "mscoco-flame": {"flame_root_pose": (3,), "flame_expr": (10,), "joint_img": (73, 3)},
}


@pytest.mark.parametrize("name", KEYS)
def test_keys_shapes_and_types_are_theirs(name, pictures):
    _, gt, images = pictures(name)
    gt = gt.rows(np.isfinite(gt.box_xywh).all(1))
    inputs, targets, meta = Pose2PoseDataset(gt, images=images, seed=0)[0]
    assert set(inputs) == {"img"}
    assert set(targets) == set(KEYS[name][0].split())
    assert set(meta) == set(KEYS[name][1].split())
    everything = {**targets, **meta}
    for key, shape in SHAPES[name].items():
        assert everything[key].shape == shape
    for key, value in everything.items():
        assert isinstance(value, float) or value.dtype == np.float32, key
    assert inputs["img"].dtype == torch.float32
    assert inputs["img"].shape == (3, *PARTS[gt.model][0])
    assert 0 <= inputs["img"].min() <= inputs["img"].max() <= 1


def test_joint_sets_are_theirs():
    """Flip pairs as their own classes list them."""
    for ours, theirs in ((BODY, twins.BODY_FLIPS), (FACE, twins.FACE_FLIPS), (WHOLE_BODY, twins.WHOLE_FLIPS)):
        assert {tuple(sorted(pair)) for pair in ours.flip_pairs} == set(theirs)
    assert HAND.flip_pairs == ()
    assert (len(BODY), len(HAND), len(FACE), len(WHOLE_BODY)) == (33, 21, 73, 137)


@pytest.mark.parametrize("name", ["human36m-smpl", "mscoco-smpl"])
def test_targets_go_back_to_the_reprojected_joints(name, pictures):
    """From the heatmap through the crop's affine to the pixels that `Bodies.project` says."""
    _, gt, images = pictures(name)
    regressor, there = body_regressor(None)
    pixels = gt.forward(want="joints", regressor=regressor).project().numpy()
    drawn = Augmentation(scale=0.9, rotation=-31)
    dataset = Pose2PoseDataset(gt, images=images, augment=lambda rng: drawn)
    for k in range(len(gt)):
        _, targets, meta = dataset[k]
        width, height = gt.image_size[k]
        box = twins.processed_box(gt.box_xywh[k], width, height, 0.75)
        affine = twins.crop(np.zeros((height, width, 3), np.uint8), box, (256, 192), drawn)[1]
        place = targets["smpl_joint_img"][:, :2] / (6, 8) * (192, 256)
        back = (place - affine[:, 2]) @ np.linalg.inv(affine[:, :2]).T
        seen = meta["smpl_joint_valid"][:, 0] > 0
        assert (seen == there).all()
        np.testing.assert_allclose(back[seen], pixels[k][seen], rtol=1e-4, atol=0.02)


def test_mirroring_a_sample_mirrors_it(pictures):
    """The sample of the mirrored data set is the mirrored sample: picture, joints, depth."""
    _, gt, images = pictures("mscoco-smpl")
    plain = Pose2PoseDataset(gt, images=images, augment=lambda rng: STILL)
    flipped = Pose2PoseDataset(gt, images=images, augment=lambda rng: Augmentation(flip=True))
    swap = np.arange(33)
    for a, b in twins.BODY_FLIPS:
        swap[[a, b]] = b, a
    for k in range(len(gt)):
        (image, targets, meta), (mirrored, changed, info) = plain[k], flipped[k]
        # The crop's pixel k goes to its width less k: pixels count at their centres, boxes at their edges.
        assert torch.allclose(mirrored["img"][:, :, 1:], image["img"][:, :, 1:].flip(2), atol=0.02)
        for key in ("joint_img", "smpl_joint_img"):
            expected = targets[key][swap]
            valid = meta[key.replace("img", "valid")][swap]
            expected = np.where(valid, np.concatenate([6 - expected[:, :1], expected[:, 1:]], 1), 0)
            close(changed[key], expected)
        close(changed["smpl_joint_cam"], targets["smpl_joint_cam"][swap] * (-1, 1, 1), 1e-5)
        assert (info["joint_valid"] == meta["joint_valid"][swap]).all()


def test_a_turned_sample_s_pose_poses_the_turned_joints(pictures):
    """The pose target, forwarded, gives the joints of the target: rotations and points were turned alike."""
    from neuralannot import load_body_model

    _, gt, images = pictures("human36m-smpl")
    dataset = Pose2PoseDataset(gt, images=images, augment=lambda rng: Augmentation(rotation=40))
    regressor, there = body_regressor(None)
    points = load_body_model("smpl").points(regressor)
    for k in range(len(gt)):
        _, targets, _ = dataset[k]
        pose = torch.from_numpy(targets["smpl_pose"]).reshape(1, 24, 3)
        shape = torch.from_numpy(gt.params["betas"][k : k + 1].copy())
        joints = points(global_orient=pose[:, 0], body_pose=pose[:, 1:], betas=shape)[0].numpy()
        close(targets["smpl_joint_cam"][there], (joints - joints[0])[there], 1e-5)


def test_official_bodies_have_official_vertices(tmp_path, pictures):
    """A folder of files in the official layout: Pose2Pose's vertices, knuckles too."""
    _, gt, images = pictures("mscoco-smpl")
    shutil.copytree(OPEN_FOLDER, tmp_path / "files")
    regressor, there = body_regressor(tmp_path / "files")
    assert there.all()
    assert regressor.body == "official"
    assert regressor.weights[22, 331] == 1
    assert regressor.weights[15, 2270] == 1
    assert np.allclose(regressor.weights.sum(1), 1, atol=1e-3)
    dataset = Pose2PoseDataset(gt, images=images, body_models=tmp_path / "files", augment=lambda rng: STILL)
    _, targets, meta = dataset[0]
    assert (meta["smpl_joint_valid"] == 1).all()
    mesh = gt[:1].forward(body_models=tmp_path / "files").vertices[0].numpy()
    root = regressor.weights[0] @ mesh
    close(targets["smpl_joint_cam"][14], mesh[2274] - root, 1e-5)


def test_what_is_not_there_is_marked(pictures):
    _, gt, images = pictures("mscoco-smpl")
    fitted = np.ones(len(gt), bool)
    fitted[1] = False
    dataset = Pose2PoseDataset(with_columns(gt, valid__body=fitted), images=images, seed=0)
    for k, there in ((0, 1), (1, 0)):
        _, targets, meta = dataset[k]
        assert (meta["smpl_pose_valid"] == there).all()
        assert meta["smpl_shape_valid"] == there
        assert meta["smpl_joint_valid"].any() == bool(there)
        if not there:
            for name, values in targets.items():
                assert not values.any() or not name.startswith("smpl"), name
    # The knuckles and feet are annotated with the whole body, not with COCO's 17.
    assert not meta["joint_valid"][14:22].any()
    bare = Pose2PoseDataset(gt, images=images, joints=False, seed=0)[0]
    assert not bare[2]["joint_valid"].any()
    assert bare[2]["is_3D"] == 0.0


def test_the_whole_body_s_keypoints_reach_knuckles_and_feet():
    """The shipped photograph: 133 keypoints beside the body's fit."""
    gt = load_pseudo_gt(
        SAMPLE / "mscoco" / "MSCOCO_train_SMPL_NeuralAnnot.json",
        annotations=SAMPLE / "mscoco" / "coco_wholebody_train_v1.0.json",
    )
    points = np.array(gt.view.column("ann/keypoints"))
    points[0, :, 2] = 1
    points[0, :, :2] = np.random.default_rng(0).uniform(60, 450, (133, 2))
    gt = with_columns(gt, ann__keypoints=points)
    dataset = Pose2PoseDataset(gt, images=SAMPLE / "mscoco", augment=lambda rng: STILL)
    _, targets, meta = dataset[0]
    # COCO-WholeBody's numbers: feet 17 to 22, the left hand from 91, the right one from 112.
    where = {"L_Big_toe": 17, "R_Heel": 22, "L_Index_1": 96, "L_Pinky_1": 108, "R_Middle_1": 121, "Nose": 0}
    box = twins.processed_box(gt.box_xywh[0], 512, 512, 0.75)
    affine = twins.crop(np.zeros((512, 512, 3), np.uint8), box, (256, 192), STILL)[1]
    for name, number in where.items():
        place = (points[0, number, :2] @ affine[:, :2].T + affine[:, 2]) / (192, 256) * (6, 8)
        close(targets["joint_img"][twins.BODY.index(name), :2], place)
    assert meta["joint_valid"].sum() == 32
    assert meta["joint_valid"][twins.BODY.index("Neck")] == 0


def test_keypoints_that_nobody_has_named_are_refused(pictures):
    """They would be marked as not annotated without a word."""
    _, gt, images = pictures("crowdpose-smpl")
    points = np.ones((len(gt), 15, 3), np.float32)
    unnamed = with_columns(gt, ann__keypoints=points)
    said = (
        r"have 15 keypoints each, of no known set; known are 14 \(crowdpose-14\), 16 \(mpii-16\), "
        r"17 \(coco-17\).*joints=False"
    )
    for make in (Pose2PoseDataset, Hmr2Dataset):
        with pytest.raises(ValueError, match=said):
            make(unnamed, images=images)
        assert len(make(unnamed, images=images, joints=False)) == len(gt)
    with pytest.raises(ValueError, match=said):
        Pose2MeshDataset(unnamed)
    assert len(Pose2MeshDataset(unnamed, joints=False)) == len(gt)


def test_crowdpose_s_keypoints_are_known(pictures):
    """Its authors' order: shoulders, elbows, wrists, hips, knees, ankles, left before right, crown, neck."""
    _, gt, images = pictures("crowdpose-smpl")
    points = np.ones((len(gt), 14, 3), np.float32)
    points[:, :, :2] = gt.box_xywh[:, None, :2] + 4 + np.arange(14)[:, None] * [3.0, 2.0]
    gt = with_columns(gt, ann__keypoints=points)
    assert gt.joint_set_2d == "crowdpose-14"
    own = own_joints(
        gt, ["R_Wrist", "pelvis", "left_knee", "neck", "head_top"], "pelvis", {"right_wrist": "R_Wrist"}
    )
    np.testing.assert_allclose(own.image[:, 0], points[:, 5, :2])
    np.testing.assert_allclose(own.image[:, 1], (points[:, 6, :2] + points[:, 7, :2]) / 2)
    np.testing.assert_allclose(own.image[:, 2], points[:, 8, :2])
    assert own.valid.all(axis=0).tolist() == [True, True, True, False, True]
    _, _, meta = Pose2PoseDataset(gt, images=images, augment=lambda rng: STILL)[0]
    assert meta["joint_valid"][twins.BODY.index("L_Knee")] == 1
    assert meta["joint_valid"][twins.BODY.index("Neck")] == 0


def test_rows_that_cannot_be_cropped(pictures, released):
    _, gt, images = pictures("mscoco-mano")
    assert np.isnan(gt.box_xywh).any()
    with pytest.raises(
        ValueError, match=r"1 of \d+ annotations have no image or no box, which Pose2Pose needs"
    ):
        Pose2PoseDataset(gt, images=images)
    with pytest.warns(UserWarning, match="left out"):
        dataset = Pose2PoseDataset(gt, images=images, drop_incomplete=True)
    assert len(dataset) == len(dataset.gt) == len(gt) - 1
    _, body, images = pictures("mscoco-smpl")
    box = np.array(body.box_xywh)
    box[2] = [900, 10, 50, 50]
    outside = with_columns(body, ann__box=box)
    with pytest.raises(ValueError, match=r"1 of 6 boxes have no area within their image; the first is"):
        Pose2PoseDataset(outside, images=images)
    with pytest.warns(UserWarning, match="no area"):
        assert len(Pose2PoseDataset(outside, images=images, drop_incomplete=True)) == 5
    with pytest.raises(ValueError, match="needs images and boxes, these are bare fits"):
        Pose2PoseDataset(load_pseudo_gt(released("mscoco-smpl").path, annotations=False), images=images)


def test_bad_input_is_said(pictures, tmp_path):
    _, gt, images = pictures("mscoco-smpl")
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'val'"):
        Pose2PoseDataset(gt, images=images, split="val")
    with pytest.raises(FileNotFoundError, match="no such folder of images"):
        Pose2PoseDataset(gt, images=tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no image file at"):
        _ = Pose2PoseDataset(gt, images=tmp_path)[0]
    with pytest.raises(ValueError, match="seed must not be negative"):
        Pose2PoseDataset(gt, images=images, seed=-1)
    with pytest.raises(ValueError, match="scale must be positive"):
        Augmentation(scale=0)
    with pytest.raises(IndexError, match="row 6: there are 6 rows"):
        _ = Pose2PoseDataset(gt, images=images)[6]
    _, whole, _ = pictures("mscoco-smplx")
    with pytest.raises(ValueError, match="these are SMPL-X's; use Hand4WholeDataset"):
        Pose2PoseDataset(whole, images=images)
    resized = with_columns(gt, ann__image_size=gt.image_size * 2)
    with pytest.raises(ValueError, match=r"is 640x480 px, annotated was 1280x960.*give the original images"):
        _ = Pose2PoseDataset(resized, images=images)[0]


def test_joint_files_that_are_missing_are_named(tmp_path, released, pictures):
    written, _, images = pictures("human36m-smpl")
    for file in (written.path, written.annotations, written.cameras):
        shutil.copy(file, tmp_path)
    gt = load_pseudo_gt(tmp_path / written.path.name)
    with pytest.raises(FileNotFoundError, match=r"joint_3d\.json"):
        Pose2PoseDataset(gt, images=images)
    _, targets, meta = Pose2PoseDataset(gt, images=images, joints=False)[0]
    assert meta["is_3D"] == 0.0
    assert not meta["joint_valid"].any()
    assert targets["smpl_joint_cam"].any()


def test_the_test_split_gives_the_mesh(pictures):
    _, gt, images = pictures("human36m-smpl")
    dataset = Pose2PoseDataset(gt, images=images, split="test")
    mesh = gt.forward().vertices.numpy()
    inputs, targets, meta = dataset[3]
    assert set(targets) == {"smpl_mesh_cam"}
    close(targets["smpl_mesh_cam"], mesh[3], 1e-5)
    width, height = gt.image_size[3]
    box = twins.processed_box(gt.box_xywh[3], width, height, 0.75)
    close(meta["bbox"], box, 1e-3)
    picture, affine = twins.crop(read_image(images / gt.image_path[3]), box, (256, 192), STILL)
    close(np.vstack([meta["bb2img_trans"], [0, 0, 1]]), np.linalg.inv(np.vstack([affine, [0, 0, 1]])), 1e-2)
    assert np.abs(inputs["img"].numpy() * 255 - picture.transpose(2, 0, 1)).max() < 3
    _, hands, images = pictures("interhand26m-mano")
    left = int(np.flatnonzero(hands.side == "left")[0])
    target = Pose2PoseDataset(hands, images=images, split="test")[left][1]["mano_mesh_cam"]
    close(target, hands.forward().vertices[left].numpy() * (-1, 1, 1), 1e-5)


# --- workers, seeds


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_give_the_same_samples(context, pictures):
    _, gt, images = pictures("mscoco-smpl")
    dataset = Pose2PoseDataset(gt, images=images, seed=3)
    assert len(pickle.dumps(dataset)) < 30_000
    dataset.set_epoch(2)
    loader = DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context=context)
    batches = list(loader)
    assert [len(batch[0]["img"]) for batch in batches] == [4, 2]
    assert batches[0][2]["is_3D"].dtype == torch.float64
    for row in range(len(gt)):
        for ours, theirs in zip(dataset[row], batches[row // 4], strict=True):
            for name, value in ours.items():
                assert (torch.as_tensor(value) == theirs[name][row % 4]).all(), name


def test_seeds(pictures):
    _, gt, images = pictures("mscoco-smpl")
    dataset = Pose2PoseDataset(gt, images=images, seed=1)
    same = Pose2PoseDataset(gt, images=images, seed=1)
    first = dataset[2][0]["img"]
    assert (first == dataset[2][0]["img"]).all()
    assert (first == same[-4][0]["img"]).all()
    dataset.set_epoch(1)
    assert (first != dataset[2][0]["img"]).any()
    free = Pose2PoseDataset(gt, images=images)
    torch.manual_seed(5)
    one, two = free[2][0]["img"], free[2][0]["img"]
    assert (one != two).any()
    torch.manual_seed(5)
    assert (one == free[2][0]["img"]).all()


def test_a_copy_in_a_worker_has_no_rows(pictures):
    _, gt, images = pictures("mscoco-smpl")
    dataset = pickle.loads(pickle.dumps(Pose2PoseDataset(gt, images=images)))
    with pytest.raises(ValueError, match="the rows stay in the process"):
        _ = dataset.gt
    assert len(dataset) == 6


@pytest.mark.parametrize(
    ("draw", "spread", "shift"), [(draw_pose2pose, 0.25, 0.0), (draw_hmr2, 0.3, 0.02)], ids=["p2p", "hmr2"]
)
def test_what_is_drawn(draw, spread, shift):
    """Ranges, and shares within five deviations of what is published."""
    rng = np.random.default_rng(0)
    drawn = [draw(rng) for _ in range(4000)]
    scale = np.array([a.scale for a in drawn])
    turn = np.array([a.rotation for a in drawn])
    color = np.array([a.color for a in drawn])
    assert (np.abs(scale - 1) <= spread + 1e-9).all()
    # A standard normal is beyond one deviation in 31.7 %, beyond two in 4.55 %.
    assert abs((np.abs(scale - 1) > spread - 1e-9).mean() - 0.317) < 0.04
    assert abs((turn == 0).mean() - 0.4) < 0.04
    assert (np.abs(turn) <= 60).all()
    assert abs((np.abs(turn) == 60).mean() - 0.6 * 0.0455) < 0.015
    assert abs(np.mean([a.flip for a in drawn]) - 0.5) < 0.04
    assert color.min() >= 0.8
    assert color.max() <= 1.2
    assert np.abs(color.mean(0) - 1).max() < 0.01
    assert np.abs([a.shift for a in drawn]).max() == shift


# --- Hand4Whole


@pytest.mark.parametrize(
    ("name", "drawn"),
    [("mscoco-smplx", STILL), ("mscoco-smplx", MOVED), ("human36m-smplx", MOVED), ("mpii-smplx", MOVED)],
)
def test_whole_bodies_are_those_of_the_slow_twin(name, drawn, pictures):
    written, gt, images = pictures(name)
    shape, heat = (512, 384), (8, 8, 6)
    depth = np.where(np.arange(137) < 25, 2.0, 0.3)
    dataset = Hand4WholeDataset(gt, images=images, augment=lambda rng: drawn)
    limbs_only = name in ("human36m-smplx", "mpii-smplx")  # neither hands nor feet are annotated
    for k, row in enumerate(written.rows[:MOST]):
        inputs, targets, meta = dataset[k]
        image = read_image(images / gt.image_path[k])
        height, width = image.shape[:2]
        box = twins.processed_box(gt.box_xywh[k], width, height, 0.75)
        picture, affine = twins.crop(image.astype(np.float32), box, shape, drawn)
        picture = np.clip(picture * np.float32(drawn.color), 0, 255).transpose(2, 0, 1) / 255
        assert np.abs(inputs["img"].numpy() - picture).max() < 0.02

        leaf = dict(row.leaf)
        valid = {
            part: bool(leaf.get(f"{part}_pose") is not None and leaf.get(f"{part}_valid", True))
            for part in ("lhand", "rhand")
        }
        valid["face"] = bool("jaw_pose" in leaf and leaf.get("face_valid", True))
        for part, fields in (
            ("lhand", ["lhand_pose"]),
            ("rhand", ["rhand_pose"]),
            ("face", ["jaw_pose", "expr"]),
        ):
            for field in fields:
                if not valid[part]:
                    leaf.pop(field, None)
        _, joints = twins.bodies(written, replace(row, leaf=leaf), "smplx")
        points = np.concatenate([joints[twins.WHOLE_INDEX], np.ones((17, 3))])
        fitted = np.ones(137, bool)
        fitted[25:45], fitted[45:65], fitted[65:] = valid["lhand"], valid["rhand"], valid["face"]
        fitted[120:] = False
        if limbs_only:
            fitted[14:20] = False
        roots = np.zeros((137, 3)) + points[0]
        roots[25:45], roots[45:65], roots[65:] = points[12], points[13], points[7]
        # The depth of each part's own size: the twin is called for one size at a time.
        for size, of in ((2.0, slice(0, 25)), (0.3, slice(25, 137))):
            fit = twins.heatmap(
                twins.project(row, points),
                points - roots,
                fitted,
                affine,
                width,
                drawn,
                twins.WHOLE_FLIPS,
                (shape, heat, size),
            )
            close(targets["smplx_joint_img"][of], fit[0][of])
            close(targets["smplx_joint_cam"][of], fit[1][of], 1e-4)
            assert (meta["smplx_joint_valid"][of, 0] == fit[2][of]).all()
            assert (meta["smplx_joint_trunc"][of, 0] == fit[3][of]).all()
        assert (depth[:25] == 2).all()

        zero = np.zeros(45)
        pose = np.concatenate(
            [
                twins.camera_root(row, leaf["root_pose"]),
                leaf["body_pose"],
                leaf.get("lhand_pose", zero),
                leaf.get("rhand_pose", zero),
                leaf.get("jaw_pose", np.zeros(3)),
            ]
        )
        flips = (
            (1, 2),
            (4, 5),
            (7, 8),
            (10, 11),
            (13, 14),
            (16, 17),
            (18, 19),
            (20, 21),
            *((22 + j, 37 + j) for j in range(15)),
        )
        close(targets["smplx_pose"], twins.turned_pose(pose, drawn, flips), 1e-4)
        known = np.ones(53, bool)
        known[22:37], known[37:52], known[52] = valid["lhand"], valid["rhand"], valid["face"]
        if limbs_only:
            known[[7, 8, 20, 21]] = False
        if drawn.flip:
            known[22:37], known[37:52] = known[37:52].copy(), known[22:37].copy()
        assert (meta["smplx_pose_valid"] == np.repeat(known, 3)).all()
        close(targets["smplx_expr"], leaf.get("expr", np.zeros(10)), 1e-5)
        assert meta["smplx_expr_valid"] == float(valid["face"])

        for part, field in (("lhand", "lefthand_box"), ("rhand", "righthand_box"), ("face", "face_box")):
            if drawn.flip:
                field = {"lefthand_box": "righthand_box", "righthand_box": "lefthand_box"}.get(field, field)
            assert meta[f"{part}_bbox_valid"] == float(not limbs_only)
            if limbs_only:
                continue
            x, y, w, h = row.annotation[field]
            corners = np.array([[x, y], [x + w, y], [x, y + h], [x + w, y + h]])
            if drawn.flip:
                corners[:, 0] = width - 1 - corners[:, 0]
            corners = (corners @ affine[:, :2].T + affine[:, 2]) / (384, 512) * (6, 8)
            close(targets[f"{part}_bbox_center"], (corners.min(0) + corners.max(0)) / 2)
            close(targets[f"{part}_bbox_size"], corners.max(0) - corners.min(0))


def test_whole_body_keypoints(pictures):
    """Fingers, face and contour of COCO-WholeBody by their numbers; the nose stands for the bare landmark."""
    written, gt, images = pictures("mscoco-smplx")
    dataset = Hand4WholeDataset(gt, images=images, augment=lambda rng: STILL)
    for k, row in enumerate(written.rows):
        ann = row.annotation
        _, targets, meta = dataset[k]
        left, face = (np.array(ann[f]).reshape(-1, 3) for f in ("lefthand_kpts", "face_kpts"))
        assert (meta["joint_valid"][25:45, 0] == (left[1:, 2] > 0)).all()
        assert (meta["joint_valid"][120:, 0] == (face[:17, 2] > 0)).all()
        seen = face[17:, 2] > 0
        nose = np.array(ann["keypoints"]).reshape(-1, 3)[0]
        if not seen[13] and nose[2] > 0:
            seen[13], face[30] = True, nose
        assert (meta["joint_valid"][69:120, 0] == seen).all()
        width, height = gt.image_size[k]
        box = twins.processed_box(gt.box_xywh[k], width, height, 0.75)
        affine = twins.crop(np.zeros((height, width, 3), np.uint8), box, (512, 384), STILL)[1]
        place = (face[17:, :2] @ affine[:, :2].T + affine[:, 2]) / (384, 512) * (6, 8)
        close(targets["joint_img"][69:120, :2], place * seen[:, None])
        assert meta["is_3D"] == 0.0
    default_collate([dataset[0], dataset[1]])
    mesh = Hand4WholeDataset(gt, images=images, split="test")[1][1]["smplx_mesh_cam"]
    close(mesh, gt[1:2].forward(only_valid=True).vertices[0].numpy(), 1e-5)
    with pytest.raises(ValueError, match="Hand4Whole holds SMPL-X parameters, these are SMPL's"):
        Hand4WholeDataset(pictures("mscoco-smpl")[1], images=images)


# --- crops


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("flip", [False, True])
def test_crops_are_opencv_s_of_the_whole_image(kind, flip):
    """Only the part that a crop shows is read: the same pixels, black where there is no image."""
    image = np.random.default_rng(0).integers(0, 255, (90, 130, 3), np.uint8)
    boxes = ([20, 10, 40, 50], [-30, -20, 60, 70], [100, 60, 80, 90], [400, 400, 20, 20], [0, 0, 130, 90])
    for box in boxes:
        for rotation in (0.0, 33.0, -120.0):
            drawn = Augmentation(1.1, rotation, flip, shift=(0.05, -0.1))
            crop = cut_crop(image, np.array(box), (64, 48), drawn, dtype=kind)
            expected, affine = twins.crop(image.astype(kind), box, (64, 48), drawn)
            assert crop.picture.dtype == kind
            assert crop.picture.shape == (64, 48, 3)
            apart = np.abs(crop.picture.astype(float) - expected)
            # OpenCV rounds places to 1/32 pixel: where that falls the other way noise differs by up to 8.
            assert np.quantile(apart, 0.97) <= 8.5
            assert apart.mean() < 0.7
            close(crop.affine, affine, 1e-2)
