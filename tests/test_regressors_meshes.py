"""The data sets for Pose2Mesh and HMR2 against slow twins, smplx, OpenCV and what the exporter writes."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import regressor_twins as twins
import torch
from foreign_readers import Hmr2
from layouts import joints_of
from scipy.ndimage import gaussian_filter
from smplx_layers import OPEN_FOLDER, arguments_of, open_layer, plain_forward
from torch.utils.data import DataLoader, default_collate

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.body_models import JointRegressor
from neuralannot.demo import SAMPLE
from neuralannot.formats import write_hmr2
from neuralannot.formats.keypoint_orders import places
from neuralannot.images import read_image, write_image
from neuralannot.regressors import Augmentation, Hmr2Dataset, Pose2MeshDataset
from neuralannot.regressors import hmr2 as hmr2_module
from neuralannot.regressors.pose_noise import COCO_SIGMAS, HUMAN36M_NAMES, NormalErrors, coco_errors

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

COCO_FLIPS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))
H36M_FLIPS = ((1, 4), (2, 5), (3, 6), (14, 11), (15, 12), (16, 13))


@pytest.fixture(scope="module")
def walk() -> PseudoGT:
    return load_pseudo_gt(SAMPLE / "human36m")


@pytest.fixture(scope="module")
def photograph() -> PseudoGT:
    return load_pseudo_gt(SAMPLE / "mscoco" / "MSCOCO_train_SMPL_NeuralAnnot.json")


def with_columns(gt: PseudoGT, **columns) -> PseudoGT:
    named = {name.replace("__", "/"): np.asarray(value) for name, value in columns.items()}
    return PseudoGT(gt.view.overlaid(named), gt.release, space=gt.space, companions=gt.companions)


def close(ours, theirs, tolerance) -> None:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=tolerance)


# --- Pose2Mesh


def open_weights(name):
    with np.load(OPEN_FOLDER / "regressors.npz") as archive:
        return archive[name]


def tight_box(points, aspect):
    low, high = points.min(0), points.max(0)
    w, h = high - low - 1
    cx, cy = low[0] + w / 2, low[1] + h / 2
    if w > aspect * h:
        h = w / aspect
    else:
        w = h * aspect
    return cx, cy, w, h


def normalised(points, turn=0.0, flips=None):
    affine = twins.affine_of(*tight_box(points, 288 / 384), 288, 384, turn)
    points = points @ affine[:, :2].T + affine[:, 2]
    if flips:
        points[:, 0] = 288 - points[:, 0] - 1
        for a, b in flips:
            points[[a, b]] = points[[b, a]]
    points = points / (288, 384)
    return (points - points.mean(0)) / points.std(0)


def body_twin(written, row, own=None):
    """Mesh, COCO's 19 and Human3.6M's 17, millimetres in the camera's space."""
    leaf = dict(row.leaf)
    if (np.abs(leaf["shape"]) > 3).any():
        leaf["shape"] = [0.0] * 10
    mesh, _ = plain_forward(open_layer("smpl"), arguments_of("smpl", [leaf]))
    mesh = twins.to_camera(row, mesh[0]) * 1000
    coco = open_weights("coco-17/smpl") @ mesh
    coco = np.concatenate([coco, [coco[11:13].mean(0)], [coco[5:7].mean(0)]])
    return mesh, coco, open_weights("human36m-17/smpl") @ mesh if own is None else own


@pytest.mark.parametrize("input_joints", ["coco", "human36"])
@pytest.mark.parametrize("name", ["mscoco-smpl", "human36m-smpl", "crowdpose-smpl"])
def test_pose2mesh_samples_are_those_of_the_slow_twin(name, input_joints, released):
    written = released(name)
    gt = load_pseudo_gt(written.path, release=name)
    far = np.array(gt.params["betas"])
    far[1, 3] = 3.5
    gt = with_columns(gt, param__betas=far)
    dataset = Pose2MeshDataset(gt, input_joints=input_joints)
    for k, row in enumerate(written.rows[:4]):
        inputs, targets, meta = dataset[k]
        own = None
        if k == 1:  # what is far out gives the mean shape
            row = replace(row, leaf={**row.leaf, "shape": far[1].tolist()})
        if written.joints is not None:
            own = twins.to_camera(row, joints_of(written, row)) * 1000
        mesh, coco, human36 = body_twin(written, row, own)
        joints = coco if input_joints == "coco" else human36
        pixels = twins.project(row, joints)
        close(inputs["pose2d"], normalised(pixels), 1e-3)
        close(targets["mesh"], (mesh - human36[0]) / 1000, 1e-5)
        close(targets["reg_pose3d"], human36 - human36[0], 1e-2)
        close(targets["lift_pose3d"], joints - joints[17 if input_joints == "coco" else 0], 1e-2)
        # Fits that are random are far from joints that are random.
        assert not meta["mesh_valid"].any()
        mocap = written.joints is not None
        assert (meta["reg_pose3d_valid"] == mocap).all()
        assert (meta["lift_pose3d_valid"] == (mocap and input_joints == "human36")).all()
        for value, count in ((meta["mesh_valid"], 6890), (meta["reg_pose3d_valid"], 17)):
            assert value.shape == (count, 1)
            assert value.dtype == np.float32


def test_pose2mesh_keeps_fits_that_agree(walk, photograph, tmp_path):
    """A fit further than 25 mm from the data set's joints, means apart, is marked; the joints are not."""
    for gt in (walk, photograph):
        _, _, meta = Pose2MeshDataset(gt)[0]
        assert all((flags == 1).all() for flags in meta.values())
    fit = open_weights("human36m-17/smpl") @ walk[:1].forward().vertices[0].numpy()
    kept = set()
    for moved in (5, 20, 28, 60):
        shutil.copytree(SAMPLE / "human36m", tmp_path / str(moved))
        file = tmp_path / str(moved) / "Human36M_subject1_joint_3d.json"
        file.write_text(json.dumps(_zigzag(json.loads(file.read_text()), moved)))
        gt = load_pseudo_gt(file.parent)
        own = gt[:1].camera.world_to_camera(gt[:1].joints_world)[0]
        error = np.linalg.norm((fit - fit.mean(0)) - (own - own.mean(0)), axis=1).mean()
        _, targets, meta = Pose2MeshDataset(gt)[0]
        assert (meta["mesh_valid"] == (error <= 0.025)).all()
        assert (meta["lift_pose3d_valid"] == (error <= 0.025)).all()
        assert (meta["reg_pose3d_valid"] == 1).all()
        close(targets["reg_pose3d"], (own - own[0]) * 1000, 0.05)
        kept.add(bool(error <= 0.025))
    assert kept == {True, False}


def _zigzag(joints, millimetres):
    """Every other joint of 17 moved to one side, the others to the other."""
    if isinstance(joints, dict):
        return {key: _zigzag(value, millimetres) for key, value in joints.items()}
    return [[x + millimetres * (-1) ** k, y, z] for k, (x, y, z) in enumerate(joints)]


def test_pose2mesh_measures_the_fit_in_a_crop_of_64(photograph):
    """Keypoints moved until their mean distance, in the square box of the pose made 64 px, crosses 3."""
    coco = photograph.forward(want="joints", regressor="coco-17").project()[0].numpy()
    pose = np.concatenate([coco, [coco[11:13].mean(0)], [coco[5:7].mean(0)]])
    width = tight_box(pose, 1.0)[2]
    for pixels, kept in ((2.9, 1), (3.1, 0)):
        moved = np.zeros((1, 17, 3), np.float32)
        moved[0, :, :2] = np.add(coco, (0, pixels * width / 64))
        moved[0, :, 2] = 2
        moved[0, 3] = 0  # not annotated: does not count
        gt = with_columns(photograph, ann__keypoints=moved)
        assert (Pose2MeshDataset(gt)[0][2]["mesh_valid"] == kept).all()
        assert (Pose2MeshDataset(gt, network="posenet")[0][2] == kept).all()
        assert Pose2MeshDataset(gt, joints=False)[0][2]["mesh_valid"].all()


@pytest.mark.parametrize("input_joints", ["coco", "human36"])
def test_posenet_s_augmentation(input_joints, walk):
    """Pose and lifted joints turn and mirror together."""
    flips = COCO_FLIPS if input_joints == "coco" else H36M_FLIPS
    plain = Pose2MeshDataset(walk, input_joints=input_joints, network="posenet")
    dataset = Pose2MeshDataset(
        walk, input_joints=input_joints, network="posenet", flip=True, rotate_factor=20, seed=0
    )
    camera = walk[:1].camera
    solid = walk[:1].forward(want="joints", regressor="coco-17").joints[0].numpy()
    solid = np.concatenate([solid, [solid[11:13].mean(0)], [solid[5:7].mean(0)]])
    pixels = camera.project(solid[None])[0]
    if input_joints == "human36":
        pixels = camera.project(camera.world_to_camera(walk[:1].joints_world))[0]
    seen = set()
    for epoch in range(12):
        dataset.set_epoch(epoch)
        turn, flip = dataset._drawn(dataset._generator(0))
        seen.add((turn != 0, flip))
        pose, lifted, valid = dataset[0]
        close(pose, normalised(pixels, turn, flips if flip else None), 2e-3)
        expected = plain[0][1] @ twins.in_plane(turn).T
        if flip:
            expected[:, 0] *= -1
            for a, b in flips:
                expected[[a, b]] = expected[[b, a]]
        close(lifted, expected, 0.05)
        assert valid.shape == (len(lifted), 1)
        assert abs(turn) <= 40
    assert len(seen) == 4


@pytest.mark.parametrize("side", ["right", "left"])
def test_pose2mesh_hands(side, released):
    written = released("interhand26m-mano")
    gt = load_pseudo_gt(written.path, release="interhand26m-mano")
    number = int(np.flatnonzero(gt.side == side)[0])
    row = written.rows[number]
    inputs, targets, meta = Pose2MeshDataset(gt)[number]
    mesh, joints = plain_forward(open_layer("mano", side), arguments_of("mano", [row.leaf]))
    mesh, joints = twins.to_camera(row, mesh[0]), twins.to_camera(row, joints[0])
    tips = twins.interhand_weights(side) @ mesh
    wanted = []
    for name in twins.HAND:
        tip = name.endswith("_4")
        wanted.append(tips[twins.INTERHAND.index(name)] if tip else joints[twins.MANO_JOINTS.index(name)])
    wanted = np.array(wanted)
    mirror = np.array([-1 if side == "left" else 1, 1, 1])
    close(targets["mesh"], (mesh - wanted[0]) * mirror, 1e-5)
    close(targets["lift_pose3d"], (wanted - wanted[0]) * mirror * 1000, 1e-2)
    assert (targets["lift_pose3d"] == targets["reg_pose3d"]).all()
    close(inputs["pose2d"], normalised(twins.project(row, wanted)) * mirror[:2], 1e-3)
    assert meta["mesh_valid"].shape == (778, 1)
    assert meta["mesh_valid"].all()


def test_pose2mesh_official_tips(tmp_path, released):
    """manopth's fingertips on files in the official layout."""
    written = released("interhand26m-mano")
    gt = load_pseudo_gt(written.path, release="interhand26m-mano")
    shutil.copytree(OPEN_FOLDER, tmp_path / "files")
    _, targets, _ = Pose2MeshDataset(gt, body_models=tmp_path / "files")[0]
    tips = targets["mesh"][[745, 317, 444, 556, 673]] * 1000
    mirror = np.array([-1 if gt.side[0] == "left" else 1, 1, 1])
    close(targets["lift_pose3d"][[4, 8, 12, 16, 20]] * mirror, tips * mirror, 1e-2)
    walk = load_pseudo_gt(SAMPLE / "human36m")
    with pytest.raises(ValueError, match=r"human36=: no human36m-17 regressor ships for official smpl"):
        Pose2MeshDataset(walk, body_models=tmp_path / "files")
    np.save(tmp_path / "h36m.npy", open_weights("human36m-17/smpl"))
    np.save(tmp_path / "coco.npy", open_weights("coco-17/smpl"))
    given = Pose2MeshDataset(
        walk, body_models=tmp_path / "files", human36=tmp_path / "h36m.npy", coco=tmp_path / "coco.npy"
    )
    close(given[0][1]["lift_pose3d"], Pose2MeshDataset(walk)[0][1]["lift_pose3d"], 1e-2)


def test_pose2mesh_refuses_joints_of_another_set(walk, tmp_path):
    """Seventeen joints of another data set would be learnt as Human3.6M's."""
    said = r"human36= must give the 17 joints of human36m-17, in its order; got 17: nose, left_eye"
    with pytest.raises(ValueError, match=said):
        Pose2MeshDataset(walk, human36="coco-17")
    with pytest.raises(ValueError, match=r"coco= must give the 17 joints of coco-17.*got 17: pelvis"):
        Pose2MeshDataset(walk, coco="human36m-17")
    few = JointRegressor(np.ones((14, 6890)) / 6890, tuple(f"joint_{k}" for k in range(14)), body="open")
    with pytest.raises(ValueError, match=r"coco= must give the 17 joints of coco-17.*got 14: joint_0"):
        Pose2MeshDataset(walk, coco=few)
    with pytest.raises(FileNotFoundError, match=r"coco=: coco: no such regressor.*human36m-17, coco-17"):
        Pose2MeshDataset(walk, coco="coco")


def test_detections_take_the_place_of_the_fit_s_pose(walk):
    detections = np.random.default_rng(0).uniform(0, 900, (len(walk), 19, 2)).astype(np.float32)
    dataset = Pose2MeshDataset(walk, detections=detections)
    close(dataset[5][0]["pose2d"], normalised(detections[5].astype(float)), 1e-3)
    assert (dataset[5][1]["mesh"] == Pose2MeshDataset(walk)[5][1]["mesh"]).all()
    with pytest.raises(ValueError, match=r"detections must be \(\d+, 19, 2\) px, got \(1, 19, 2\)"):
        Pose2MeshDataset(walk, detections=detections[:1])
    detections[3, 2, 0] = np.nan
    with pytest.raises(ValueError, match=r"1 of \d+ detections are not finite, row 3 first"):
        Pose2MeshDataset(walk, detections=detections)


def test_made_up_errors_are_as_often_and_as_large_as_published():
    """Joints so far apart that kinds cannot be confused: shares of each kind, and their distances."""
    rng = np.random.default_rng(0)
    points = np.stack([np.arange(17) * 3000.0, np.zeros(17)], 1)
    area = 288 * 384
    near, middle, far = (np.sqrt(-2 * area * (2 * COCO_SIGMAS) ** 2 * np.log(s)) for s in (0.85, 0.5, 0.1))
    pairs = {a: b for pair in COCO_FLIPS for a, b in (pair, pair[::-1])}
    kinds = np.zeros((17, 4))
    runs = 120
    for _ in range(runs):
        moved = coco_errors(points, area, rng)
        for j in range(17):
            distance = np.linalg.norm(moved[j] - points[j])
            other = pairs.get(j)
            if distance <= near[j]:
                kinds[j, 0] += 1
            elif distance <= middle[j]:
                kinds[j, 1] += 1
            elif distance <= far[j] + 1e-3:
                kinds[j, 2] += 1
            else:
                # Near the other side, which may have moved itself: nowhere else.
                assert other is not None
                sides = np.linalg.norm(moved[j] - points[[j, other]], axis=1)
                assert sides.min() <= 3 * far[j]
                kinds[j, 3] += 1
    share = kinds / runs
    jitter = np.array([0.10, *[0.15] * 10, *[0.20] * 2, *[0.10] * 4])
    for group in (slice(1, 5), slice(5, 11), slice(11, 13), slice(13, 17)):
        count = runs * (group.stop - group.start)
        for expected, got in ((jitter[group].mean(), share[group, 1].mean()),):
            assert abs(got - expected) < 5 * np.sqrt(expected * (1 - expected) / count)
    # Ankles: 5 % missed, of which a fifth around the other side, and 6 % inverted.
    ankles = share[15:17]
    assert abs(ankles[:, 2].mean() - 0.04) < 0.05
    assert abs(ankles[:, 3].mean() - 0.07) < 0.06
    assert share[0, 3] == 0  # the nose has no other side
    assert (share[:, 0] > 0.5).all()


def test_noise_of_poses(walk):
    clean = Pose2MeshDataset(walk)[0]
    noisy = Pose2MeshDataset(walk, noise=True, seed=0)
    inputs, targets, _ = noisy[0]
    assert np.abs(inputs["pose2d"] - clean[0]["pose2d"]).max() > 0.01
    assert (targets["mesh"] == clean[1]["mesh"]).all()
    assert (inputs["pose2d"] == noisy[0][0]["pose2d"]).all()
    close(inputs["pose2d"].mean(0), [0, 0], 1e-5)
    close(inputs["pose2d"].std(0), [1, 1], 1e-5)
    table = [
        {"Joint": name, "mean": (2.0, -1.0), "std": (0.5, 0.25), "weight": 1.0} for name in HUMAN36M_NAMES
    ]
    errors = NormalErrors.of(table[::-1])
    points = np.zeros((17, 2))
    drawn = np.array([errors(points, (384, 288), np.random.default_rng(k)) for k in range(300)])
    close(drawn.mean((0, 1)), np.array([2.0, -1.0]) * (288, 384) / 256, 0.05)
    close(drawn.std((0, 1)), np.array([0.5, 0.25]) * (288, 384) / 256, 0.05)
    dataset = Pose2MeshDataset(walk, input_joints="human36", noise=table, seed=0)
    assert np.isfinite(dataset[0][0]["pose2d"]).all()
    with pytest.raises(ValueError, match=r"noise: no statistics of R_Wrist"):
        Pose2MeshDataset(walk, input_joints="human36", noise=table[:-1])
    with pytest.raises(ValueError, match=r"pass noise=error_distribution"):
        Pose2MeshDataset(walk, input_joints="human36", noise=True)


def test_pose2mesh_refuses(walk, released):
    with pytest.raises(ValueError, match="input_joints of smpl must be 'coco' or 'human36', got 'mano'"):
        Pose2MeshDataset(walk, input_joints="mano")
    with pytest.raises(ValueError, match="network must be"):
        Pose2MeshDataset(walk, network="meshnet")
    with pytest.raises(ValueError, match="but not the mesh: they are for network='posenet'"):
        Pose2MeshDataset(walk, flip=True)
    hands = load_pseudo_gt(released("mscoco-mano").path)
    with pytest.raises(ValueError, match="no made-up errors of hands"):
        Pose2MeshDataset(hands, noise=True)
    whole = load_pseudo_gt(released("mscoco-smplx").path)
    with pytest.raises(
        ValueError, match=r"Pose2Mesh holds SMPL and MANO parameters, these are SMPL-X's; convert"
    ):
        Pose2MeshDataset(whole)


def test_a_body_behind_the_camera_teaches_nothing(photograph):
    behind = np.array(photograph.params["transl"])
    behind[:, 2] = -4
    inputs, targets, meta = Pose2MeshDataset(with_columns(photograph, param__transl=behind))[0]
    for values in (*inputs.values(), *targets.values(), *meta.values()):
        assert not values.any()


def test_pose2mesh_needs_no_pictures_and_travels_light(released):
    gt = load_pseudo_gt(released("mscoco-smpl").path, annotations=False)
    dataset = Pose2MeshDataset(gt)
    assert len(pickle.dumps(dataset)) < 30_000
    batches = list(DataLoader(dataset, batch_size=3, num_workers=1))
    inputs, targets, meta = batches[1]
    assert inputs["pose2d"].shape == (3, 19, 2)
    assert targets["mesh"].dtype == torch.float32
    assert (targets["mesh"][0].numpy() == dataset[3][1]["mesh"]).all()
    assert meta["mesh_valid"].all()  # nothing to hold the fits against
    assert len(Pose2MeshDataset(gt[:0])) == 0


# --- HMR2


def example(image, box, keypoints_2d, keypoints_3d, drawn):
    """4D-Humans' get_example, without its colours' normalisation."""
    cx, cy, size = box
    square = (cx - size / 2, cy - size / 2, size, size)
    picture, affine = twins.crop(image, square, (256, 256), drawn)
    points, solid = keypoints_2d.astype(float), keypoints_3d.astype(float)
    body = [0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11, 16, 15, 18, 17, 22, 23, 24, 19, 20, 21]
    extra = [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13, 14, 15, 16, 17, 18]
    order = body + [25 + k for k in extra]
    if drawn.flip:
        points[:, 0] = image.shape[1] - points[:, 0] - 1
        solid[:, 0] = 1 - solid[:, 0] - 1
        points, solid = points[order], solid[order]
    solid[:, :3] = solid[:, :3] @ twins.in_plane(drawn.rotation).T
    points[:, :2] = (points[:, :2] @ affine[:, :2].T + affine[:, 2]) / 256 - 0.5
    return picture, points, solid


@pytest.mark.parametrize(
    "drawn",
    [Augmentation(), Augmentation(1.2, 35.0, True, (0.8, 1.0, 1.2), (0.02, -0.01))],
    ids=["still", "moved"],
)
def test_hmr2_samples_are_what_its_reader_makes_of_the_exported_file(drawn, photograph, tmp_path):
    file = Hmr2(write_hmr2(photograph, tmp_path / "hmr2.npz"))
    dataset = Hmr2Dataset(photograph, images=SAMPLE / "mscoco", augment=lambda rng: drawn)
    item = dataset[0]
    wide, tall = file.scale[0] * 200
    size = max(max(wide, tall * 192 / 256), max(tall, wide * 256 / 192))
    assert abs(item["box_size"] - size) < 1e-3
    assert abs(item["bbox_expand_factor"] - size / max(wide, tall)) < 1e-6
    close(item["box_center"], file.center[0], 1e-3)
    close(item["_scale"], file.scale[0], 1e-6)
    image = read_image(SAMPLE / "mscoco" / file.imgname[0])
    picture, points, solid = example(
        image, (*file.center[0], size), file.keypoints_2d[0], file.keypoints_3d[0], drawn
    )
    expected = np.clip(picture * np.array(drawn.color), 0, 255) / 255
    expected = ((expected - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)
    assert np.abs(item["img"] - expected).mean() < 2e-3
    assert np.abs(item["img"] - expected).max() < 0.15
    assert (item["keypoints_2d"][:, 2] == points[:, 2]).all()
    close(item["keypoints_2d"], points * (points[:, 2:] > 0), 1e-4)
    close(item["keypoints_3d"], solid, 1e-5)
    assert (item["orig_keypoints_2d"] == file.keypoints_2d[0]).all()
    pose = twins.turned_pose(file.body_pose[0], drawn, twins.BODY_POSE_FLIPS)
    close(item["smpl_params"]["global_orient"], pose[:3], 1e-5)
    close(item["smpl_params"]["body_pose"], pose[3:], 1e-5)
    close(item["smpl_params"]["betas"], file.betas[0], 1e-6)
    assert item["has_smpl_params"] == {"global_orient": 1, "body_pose": 1, "betas": 1}
    assert item["smpl_params_is_axis_angle"] == {"global_orient": True, "body_pose": True, "betas": False}
    assert (item["img_size"] == [image.shape[1], image.shape[0]]).all()
    assert item["imgname_rel"] == file.imgname[0]


def test_hmr2_keys_and_types(photograph):
    common = "img keypoints_2d keypoints_3d orig_keypoints_2d box_center box_size img_size smpl_params"
    common += " has_smpl_params smpl_params_is_axis_angle _scale imgname"
    npz = Hmr2Dataset(photograph, images=SAMPLE / "mscoco", seed=0)[0]
    assert set(npz) == {*common.split(), "bbox_expand_factor", "imgname_rel", "personid", "extra_info", "idx"}
    tar = Hmr2Dataset(photograph, images=SAMPLE / "mscoco", layout="tar", seed=0)[0]
    assert set(tar) == {*common.split(), "mask", "_trans"}
    assert (tar["img"] == npz["img"]).all()
    assert tar["mask"].shape == (256, 256)
    assert tar["mask"].dtype == np.float32
    assert tar["_trans"].shape == (2, 3)
    for key, shape in (("img", (3, 256, 256)), ("keypoints_2d", (44, 3)), ("keypoints_3d", (44, 4))):
        assert npz[key].shape == shape
        assert npz[key].dtype == np.float32
    batch = default_collate([npz, npz])
    assert batch["smpl_params"]["body_pose"].shape == (2, 69)
    assert batch["has_smpl_params"]["betas"].dtype == torch.float32
    assert not batch["smpl_params_is_axis_angle"]["betas"].any()


def test_hmr2_s_mask_is_where_the_image_is(photograph):
    """4D-Humans' own mask without segmentation: the image's edges, turned and mirrored with the crop."""
    corner = with_columns(photograph, ann__box=np.array([[440, 300, 60, 150]], np.float32))
    drawn = Augmentation(scale=1.6, rotation=25, flip=True)
    options = {"images": SAMPLE / "mscoco", "layout": "tar", "augment": lambda rng: drawn}
    item = Hmr2Dataset(corner, **options)[0]
    height, width = item["img_size"][::-1]
    y, x = np.mgrid[:256, :256]
    back = np.linalg.inv(np.vstack([item["_trans"], [0, 0, 1]]))
    place = np.stack([x, y, np.ones_like(x)], -1) @ back.T
    inside = np.minimum(place[..., 0], width - 1 - place[..., 0])
    inside = np.minimum(inside, np.minimum(place[..., 1], height - 1 - place[..., 1]))
    assert (item["mask"][inside > 1.5] == 1).all()
    assert (item["mask"][inside < -1.5] == 0).all()
    assert 0.1 < item["mask"].mean() < 0.9
    away = with_columns(photograph, ann__box=np.array([[4000, 4000, 60, 60]], np.float32))
    assert (Hmr2Dataset(away, **options)[0]["mask"] == 1).all()


def test_hmr2_s_mirror_swaps_sides():
    """Its permutation against the names: left joints of COCO and Human3.6M go where right ones are."""
    from neuralannot import JOINT_SETS

    mirror = hmr2_module._MIRROR
    assert (mirror[mirror] == np.arange(44)).all()
    for order, offset, limit in (("openpose", 0, 25), ("spin", 25, 19)):
        for name in ("coco-wholebody-133", "human36m-17"):
            joints = JOINT_SETS[name].joints
            source, target = places(order, name)
            at = {joints[s]: t for s, t in zip(source, target, strict=True) if t < limit}
            for joint, place in at.items():
                other = joint.replace("left_", "R_").replace("right_", "left_").replace("R_", "right_")
                assert mirror[offset + place] == offset + at[other], joint


def test_hmr2_s_mocap_joints(walk, tmp_path):
    """The 3D joints about the pelvis, and where the cameras see them, in SPIN's places."""
    for path, (width, height) in zip(walk.image_path[:2], walk.image_size[:2], strict=True):
        write_image(tmp_path / path, np.zeros((height, width, 3), np.uint8))
    gt = walk[:2]
    item = Hmr2Dataset(gt, images=tmp_path, split="test")[1]
    camera = gt.camera
    seen = camera.world_to_camera(gt.joints_world)
    pixels = camera.project(seen)
    # SPIN's: right ankle 0, left wrist 11, pelvis 14, top of the head (Human3.6M's) 18.
    for place, joint in ((0, 3), (11, 13), (14, 0), (18, 10)):
        close(item["orig_keypoints_2d"][25 + place], [*pixels[1, joint], 1], 0.01)
        close(item["keypoints_3d"][25 + place], [*(seen[1, joint] - seen[1, 0]), 1], 1e-5)
    assert not item["keypoints_2d"][:25].any()
    file = Hmr2(write_hmr2(gt, tmp_path / "hmr2.npz"))
    close(item["orig_keypoints_2d"], file.keypoints_2d[1], 0.01)
    close(item["keypoints_3d"], file.keypoints_3d[1], 1e-5)
    bare = Hmr2Dataset(gt, images=tmp_path, joints=False)[0]
    assert not bare["keypoints_2d"].any()
    assert not bare["keypoints_3d"].any()


def test_hmr2_s_options(photograph):
    images = SAMPLE / "mscoco"
    plain = Hmr2Dataset(photograph, images=images, split="test", bbox_shape=None, box_scale=1.0)[0]
    assert plain["box_size"] == pytest.approx(photograph.box_xywh[0, 2:].max(), abs=1e-3)
    codes = np.array(photograph.params["betas"])
    codes[0, 2] = 4
    far = with_columns(photograph, param__betas=codes)
    assert Hmr2Dataset(far, images=images)[0]["has_smpl_params"]["betas"] == 1
    item = Hmr2Dataset(far, images=images, max_beta=3.0)[0]
    assert item["has_smpl_params"] == {"global_orient": 1, "body_pose": 1, "betas": 0}
    lost = with_columns(photograph, valid__body=np.zeros(1, bool))
    assert not any(Hmr2Dataset(lost, images=images)[0]["has_smpl_params"].values())
    # 4D-Humans blurs crops that are enlarged.
    small = with_columns(photograph, ann__box=np.array([[200, 100, 60, 60]], np.float32))
    options = {"split": "test", "bbox_shape": None}
    blurred = Hmr2Dataset(small, images=images, antialias=True, **options)[0]
    image = read_image(images / photograph.image_path[0]).astype(float)
    sigma = (256 / blurred["box_size"] - 1) / 2
    softened = gaussian_filter(image, (sigma, sigma, 0), truncate=3.0, mode="nearest")
    cx, cy = blurred["box_center"]
    size = blurred["box_size"]
    picture, _ = twins.crop(softened, (cx - size / 2, cy - size / 2, size, size), (256, 256), Augmentation())
    expected = ((picture / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)
    assert np.abs(blurred["img"] - expected).max() < 0.02
    assert np.abs(blurred["img"] - Hmr2Dataset(small, images=images, **options)[0]["img"]).max() > 0.05


def test_hmr2_refuses(photograph, released):
    images = SAMPLE / "mscoco"
    with pytest.raises(ValueError, match="layout must be 'npz' or 'tar', got 'zip'"):
        Hmr2Dataset(photograph, images=images, layout="zip")
    with pytest.raises(ValueError, match="box_scale must be positive"):
        Hmr2Dataset(photograph, images=images, box_scale=0)
    female = with_columns(photograph, gender=np.full(1, 2, np.uint8))
    with pytest.raises(ValueError, match=r"HMR2 has neutral bodies alone, \d+ is female"):
        Hmr2Dataset(female, images=images)
    with pytest.raises(ValueError, match="HMR2 holds SMPL parameters, these are MANO's"):
        Hmr2Dataset(load_pseudo_gt(released("mscoco-mano").path), images=images)
