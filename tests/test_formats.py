"""Annotations written for SPIN, HMR2, MMHuman3D, BEDLAM and AMASS, read as their own classes read them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from foreign_readers import Bedlam, Hmr2, HumanData, Spin, flat_handed, posed, smpl_posed
from own_sample import SAMPLE
from scipy.spatial.transform import Rotation
from smplx_layers import open_layer

from neuralannot import JOINT_SETS, PseudoGT, load_pseudo_gt
from neuralannot.formats import write_amass, write_bedlam, write_hmr, write_hmr2, write_humandata
from neuralannot.formats.keypoint_orders import places, reordered
from neuralannot.safe_pickle import load_npz

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

COCO = SAMPLE / "mscoco"
TOLERANCE = 1e-5  # metres


@pytest.fixture(scope="module")
def walk() -> PseudoGT:
    return load_pseudo_gt(SAMPLE / "human36m")


@pytest.fixture(scope="module")
def photograph() -> PseudoGT:
    return load_pseudo_gt(COCO / "MSCOCO_train_SMPL_NeuralAnnot.json")


@pytest.fixture(scope="module")
def load(released):
    def get(name: str, **options) -> PseudoGT:
        written = released(name)
        if written.cameras is not None:
            options["cameras"] = written.cameras
        return load_pseudo_gt(written.path, release=name, annotations=written.annotations, **options)

    return get


def with_columns(gt: PseudoGT, **columns) -> PseudoGT:
    named = {name.replace("__", "/"): np.asarray(value) for name, value in columns.items()}
    return PseudoGT(gt.view.overlaid(named), gt.release, space=gt.space, companions=gt.companions)


def same_points(ours, theirs) -> None:
    assert np.abs(np.asarray(ours) - theirs).max() < TOLERANCE


# --- SPIN and HMR2


@pytest.mark.parametrize(
    "name", ["walk", "photograph", "human36m-smpl", "mpi-inf-3dhp-smpl", "crowdpose-smpl"]
)
def test_spin_reads_the_bodies(name, tmp_path, request, load):
    gt = request.getfixturevalue(name) if name in ("walk", "photograph") else load(name)
    read = Spin(write_hmr(gt, tmp_path / "spin.npz"))
    moved = gt.to_camera_space()
    assert read.imgname.tolist() == gt.image_path.tolist()
    assert (read.data["pose"][:, :3] == moved.params["global_orient"]).all()
    assert (read.data["pose"][:, 3:] == moved.params["body_pose"].reshape(len(gt), 69)).all()
    assert (read.data["shape"] == gt.params["betas"]).all()
    assert (read.data["trans_cam"] == moved.params["transl"]).all()
    assert (read.data["annotation_id"] == gt.ids).all()
    assert (read.has_smpl == 1).all()
    assert (read.gender == -1).all()
    vertices, joints = smpl_posed(read.pose, read.betas, read.data["trans_cam"])
    bodies = gt.forward()
    same_points(bodies.vertices, vertices)
    same_points(bodies.joints, joints)


def test_spin_s_box_is_the_square_of_200_px_scaled(photograph, tmp_path):
    read = Spin(write_hmr(photograph, tmp_path, box_scale=1.5))  # a folder takes annotations.npz
    x, y, w, h = photograph.box_xywh[0].astype(float)
    assert np.allclose(read.center[0], [x + w / 2, y + h / 2], atol=1e-6)
    assert np.isclose(200 * read.scale[0], 1.5 * max(w, h))


# SPIN's own preparation scripts: where each data set's joints go among its 24.
SPIN_PLACES = {
    "coco-17": [19, 20, 21, 22, 23, 9, 8, 10, 7, 11, 6, 3, 2, 4, 1, 5, 0],
    "mpii-16": [0, 1, 2, 3, 4, 5, 14, 15, 12, 13, 6, 7, 8, 9, 10, 11],
    "human36m-17": [14, 2, 1, 0, 3, 4, 5, 16, 12, 17, 18, 9, 10, 11, 8, 7, 6],
    "mpi-inf-3dhp-17": [18, 12, 8, 7, 6, 9, 10, 11, 2, 1, 0, 3, 4, 5, 14, 16, 17],
}


def test_keypoints_are_those_annotated(photograph, tmp_path):
    read = Spin(write_hmr(photograph, tmp_path / "spin.npz"))
    part = read.keypoints[0, 25:]
    seen = photograph.joints_2d_valid[0]
    expected = np.zeros((24, 3), np.float32)
    for k, place in enumerate(SPIN_PLACES["coco-17"]):
        if seen[k]:
            expected[place] = [*photograph.joints_2d[0, k], 1]
    assert (part == expected).all()
    assert not read.keypoints[0, :25].any()  # no OpenPose detections


def test_joints_in_space_are_the_data_set_s_about_the_pelvis(walk, tmp_path):
    read = Spin(write_hmr(walk, tmp_path / "spin.npz"))
    camera = walk.camera.world_to_camera(walk.joints_world.astype(np.float64))
    expected = camera - camera[:, :1]
    assert np.abs(read.pose_3d[:, SPIN_PLACES["human36m-17"], :3] - expected).max() < TOLERANCE
    assert (read.pose_3d[:, SPIN_PLACES["human36m-17"], 3] == 1).all()
    assert not np.delete(read.pose_3d, SPIN_PLACES["human36m-17"], axis=1).any()


def test_feet_are_where_openpose_has_them(photograph, tmp_path):
    """COCO-WholeBody's six of the feet: SPIN's 24 have no place for them, OpenPose's 19 to 24 do."""
    points = np.random.default_rng(0).uniform(1, 500, (1, 133, 3)).astype(np.float32)
    whole = with_columns(photograph, ann__keypoints=points)
    feet = slice(17, 23)  # big toe, small toe, heel, the left ones first, as OpenPose counts them
    spin = Spin(write_hmr(whole, tmp_path / "a.npz")).keypoints[0, :25]
    assert (spin[19:, :2] == points[0, feet, :2]).all()
    assert (spin[19:, 2] == 1).all()
    assert not spin[:19].any()
    hmr2 = Hmr2(write_hmr2(whole, tmp_path / "b.npz")).keypoints_2d[0, :25]
    assert (hmr2[19:, :2] == points[0, feet, :2]).all()


def test_mocap_joints_are_where_the_cameras_see_them(walk, tmp_path):
    """No pixels are annotated: the 3D joints through the files' own cameras, in each format's places."""
    pixels = walk.camera.project(walk.camera.world_to_camera(walk.joints_world)).astype(np.float64)
    spin = Spin(write_hmr(walk, tmp_path / "spin.npz")).keypoints[:, 25:]
    hmr2 = Hmr2(write_hmr2(walk, tmp_path / "hmr2.npz")).keypoints_2d[:, 25:]
    human = HumanData(write_humandata(walk, tmp_path / "human.npz")).whole("keypoints2d")
    spots = ((spin, "spin"), (hmr2, "spin"), (human, "humandata"))
    for found, order in spots:
        places_ = SPIN_PLACES["human36m-17"] if order == "spin" else HUMANDATA_PLACES["human36m-17"]
        assert np.abs(found[:, places_, :2] - pixels).max() < 1e-2
        assert (found[:, places_, 2] == 1).all()
        assert not np.delete(found, places_, axis=1).any()
    # Bodies stand where their joints are: a file whose camera was another's would be hundreds of pixels off.
    hips = walk.forward(want="joints").project().numpy()[:, 0]
    assert np.linalg.norm(hips - pixels[:, 0], axis=1).max() < 25


@pytest.mark.parametrize("write", [write_hmr, write_hmr2, write_humandata])
def test_a_file_of_joints_that_is_not_there_is_named(tmp_path, write):
    for file in (SAMPLE / "human36m").glob("*.json"):
        if "joint_3d" not in file.name:
            shutil.copy(file, tmp_path)
    gt = load_pseudo_gt(tmp_path / "Human36M_subject1_SMPL_NeuralAnnot.json")
    with pytest.warns(UserWarning, match=r"no joints of the data set are written: .*joint_3d\.json"):
        made = write(gt, tmp_path / "out.npz")
    with np.load(made) as file:
        kept = [file[name] for name in ("part", "body_keypoints_2d", "extra_keypoints_2d") if name in file]
        assert not any(points.any() for points in kept)
        assert "keypoints2d" not in file


def test_invalid_keypoints_are_zero_with_confidence_zero():
    points = np.full((2, 17, 2), 5.0, np.float32)
    points[0, 3] = np.nan
    valid = np.ones((2, 17), bool)
    valid[1, 0] = False
    out = reordered(points, valid, "spin", "coco-17", 24)
    assert not out[0, SPIN_PLACES["coco-17"][3]].any()
    assert not out[1, SPIN_PLACES["coco-17"][0]].any()
    assert np.isfinite(out).all()
    assert out[..., 2].sum() == 2 * 17 - 2


def test_hmr2_reads_the_bodies(walk, tmp_path):
    read = Hmr2(write_hmr2(walk, tmp_path / "hmr2.npz"))
    vertices, _ = smpl_posed(read.body_pose, read.betas, read.data["trans_cam"])
    same_points(walk.forward().vertices, vertices)
    box = walk.box_xywh.astype(float)
    assert np.allclose(200 * read.scale, 1.2 * box[:, 2:])
    assert (read.has_body_pose == 1).all()
    assert (read.has_betas == 1).all()
    assert read.keypoints_3d[:, 25:, 3].sum() == 17 * len(walk)


def test_hmr2_has_the_face_among_openpose_s(photograph, tmp_path):
    read = Hmr2(write_hmr2(photograph, tmp_path / "hmr2.npz"))
    names = JOINT_SETS["coco-17"].joints
    seen, points = photograph.joints_2d_valid[0], photograph.joints_2d[0]
    openpose = {"nose": 0, "right_eye": 15, "left_eye": 16, "right_ear": 17, "left_ear": 18}
    for k, name in enumerate(names):
        place = openpose.get(name, 25 + SPIN_PLACES["coco-17"][k])
        assert (read.keypoints_2d[0, place] == ([*points[k], 1] if seen[k] else [0, 0, 0])).all(), name
    assert (read.keypoints_2d[0, :, 2] > 0).sum() == seen.sum()


def test_bodies_that_were_not_fitted_have_no_smpl(walk, tmp_path):
    valid = np.arange(len(walk)) % 3 > 0
    some = with_columns(walk, valid__body=valid)
    assert (Spin(write_hmr(some, tmp_path / "a.npz")).has_smpl == valid).all()
    hmr2 = Hmr2(write_hmr2(some, tmp_path / "b.npz"))
    assert (hmr2.has_body_pose == valid).all()
    assert (hmr2.has_betas == valid).all()
    assert (HumanData(write_humandata(some, tmp_path / "c.npz"))["has_smpl"] == valid).all()
    with pytest.raises(ValueError, match="no fitted body"):
        write_bedlam(some, tmp_path / "d.npz")
    with pytest.warns(UserWarning, match=f"{(~valid).sum()} rows have no fitted body; left out"):
        read = Bedlam(write_bedlam(some, tmp_path / "d.npz", drop_incomplete=True))
    assert (read.data["annotation_id"] == some.ids[valid]).all()


def test_genders(walk, tmp_path):
    codes = np.arange(len(walk)) % 2 + 1  # male, female
    some = with_columns(walk, gender=codes.astype(np.uint8))
    assert (Spin(write_hmr(some, tmp_path / "a.npz")).gender == codes - 1).all()
    meta = HumanData(write_humandata(some, tmp_path / "b.npz"))["meta"]
    assert meta["gender"] == ["mf"[c - 1] for c in codes]
    with pytest.raises(ValueError, match="neutral ones alone"):
        write_hmr2(some, tmp_path / "c.npz")
    mixed = with_columns(walk, gender=(np.arange(len(walk)) % 3).astype(np.uint8))
    with pytest.raises(ValueError, match="are neutral, which SPIN"):
        write_hmr(mixed, tmp_path / "d.npz")


# --- what is refused


@pytest.mark.parametrize("write", [write_hmr, write_hmr2, write_humandata, write_bedlam])
def test_bare_fits_are_refused(write, tmp_path, released):
    gt = load_pseudo_gt(released("mscoco-smpl").path, annotations=False)
    with pytest.raises(ValueError, match=r"needs images and boxes.*load with annotations="):
        write(gt, tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [write_hmr, write_hmr2, write_humandata])
def test_rows_without_a_box_are_refused_or_dropped(write, tmp_path, load):
    gt = load("mscoco-smpl")
    box = np.array(gt.box_xywh)
    box[2] = np.nan
    some = with_columns(gt, ann__box=box)
    with pytest.raises(ValueError, match=f"1 of 6 annotations.*first is {gt.ids[2]}, without box"):
        write(some, tmp_path / "x.npz")
    with pytest.warns(UserWarning, match="1 of 6 annotations have no image or no box; left out"):
        path = write(some, tmp_path / "x.npz", drop_incomplete=True)
    with np.load(path, allow_pickle=True) as file:
        ids = file["annotation_id"] if "annotation_id" in file else file["meta"].item()["annotation_id"]
    assert list(ids) == np.delete(gt.ids, 2).tolist()


@pytest.mark.parametrize("name", ["mscoco-mano", "mscoco-flame", "mscoco-smplx"])
def test_models_that_spin_has_not_are_refused(name, tmp_path, load):
    advice = "--to smpl" if name == "mscoco-smplx" else "--to coco, webdataset or parquet"
    for write in (write_hmr, write_hmr2):
        with pytest.raises(ValueError, match=f"holds SMPL parameters.*{advice}"):
            write(load(name), tmp_path / "x.npz")


def test_world_fits_without_cameras_are_refused(tmp_path, released):
    written = released("human36m-smpl")
    alone = tmp_path / "alone"
    alone.mkdir()
    path = alone / written.path.name
    path.write_bytes(written.path.read_bytes())
    gt = load_pseudo_gt(path, annotations=written.annotations)
    with pytest.raises(ValueError, match=r"no camera file; put Human36M_subject1_camera.json"):
        write_hmr(gt, tmp_path / "x.npz")


# --- HumanData


@pytest.mark.parametrize("name", ["walk", "photograph", "3dpw-smplx", "mscoco-smplx", "human36m-smplx"])
def test_humandata_holds_the_bodies(name, tmp_path, request, load):
    gt = request.getfixturevalue(name) if name in ("walk", "photograph") else load(name)
    read = HumanData(write_humandata(gt, tmp_path / "human.npz"))
    moved, params = gt.to_camera_space(), read[gt.model]
    for name_, values in moved.params.items():
        assert (params[name_] == values).all(), name_
        assert params[name_].shape == values.shape
    assert (read[f"has_{gt.model}"] == 1).all()
    assert read["image_path"] == gt.image_path.tolist()
    assert (read["bbox_xywh"][:, :4] == gt.box_xywh).all()
    assert (read["bbox_xywh"][:, 4] == 1).all()
    assert np.allclose(read["meta"]["focal_length"], gt.camera.focal)
    flat = {k: v.reshape(len(gt), -1) for k, v in params.items() if not k.endswith("_valid")}
    if gt.model == "smplx":
        flat |= {f"{side}eye_pose": np.zeros((len(gt), 3)) for side in "lr"}
        for part in ("left_hand", "right_hand", "face"):
            assert (params[f"{part}_valid"] == gt.valid[part]).all()
    vertices, _ = posed(open_layer(gt.model), **flat)
    same_points(gt.forward().vertices, vertices)


# MMHuman3D's 190 by number: J_regressor_extra's nine begin at 144.
HUMANDATA_PLACES = {
    "coco-17": [55, 57, 56, 59, 58, 16, 17, 18, 19, 20, 21, 145, 144, 4, 5, 7, 8],
    "mpii-16": [8, 5, 144, 145, 4, 7, 148, 149, 146, 147, 21, 19, 17, 16, 18, 20],
    "human36m-17": [148, 144, 5, 8, 145, 4, 7, 150, 146, 152, 147, 16, 18, 20, 17, 19, 21],
    "mpi-inf-3dhp-17": [147, 146, 17, 19, 21, 16, 18, 20, 144, 5, 8, 145, 4, 7, 148, 150, 152],
}


@pytest.mark.parametrize(
    ("order", "name", "numbers"),
    [
        *(("spin", name, numbers) for name, numbers in SPIN_PLACES.items()),
        *(("humandata", name, numbers) for name, numbers in HUMANDATA_PLACES.items()),
    ],
)
def test_joints_are_where_the_format_has_them(order, name, numbers):
    source, target = places(order, name)
    assert source.tolist() == list(range(len(JOINT_SETS[name])))
    assert target.tolist() == numbers


def test_humandata_s_keypoints_and_masks(walk, photograph, load, tmp_path):
    flat = HumanData(write_humandata(photograph, tmp_path / "a.npz"))
    whole = flat.whole("keypoints2d")
    assert whole.shape == (1, 190, 3)
    seen = photograph.joints_2d_valid[0]
    found = whole[0, HUMANDATA_PLACES["coco-17"]]
    assert (found[seen, :2] == photograph.joints_2d[0][seen]).all()
    assert (found[:, 2] == seen).all()
    assert flat["keypoints2d_convention"] == "human_data"
    solid = HumanData(write_humandata(walk, tmp_path / "b.npz")).whole("keypoints3d")
    assert np.isfinite(solid).all()
    assert np.abs(solid[:, 148, :3]).max() == 0  # the pelvis
    bare = with_columns(photograph, ann__keypoints=np.zeros((1, 9, 3), np.float32))
    with pytest.warns(UserWarning, match="its 9 keypoints are of no known set"):
        assert "keypoints2d" not in HumanData(write_humandata(bare, tmp_path / "d.npz"))
    # COCO-WholeBody: all but the two hand roots, contour after the rest of the face.
    body = HumanData(write_humandata(load("mscoco-smplx"), tmp_path / "c.npz"))
    assert body["keypoints2d_mask"].sum() == 131
    source, target = places("humandata", "coco-wholebody-133")
    names = JOINT_SETS["coco-wholebody-133"].joints
    by_place = {int(t): names[s] for s, t in zip(source, target, strict=True)}
    assert by_place[127] == "right_contour_1"
    assert by_place[143] == "left_contour_1"
    assert by_place[76] == "right_eye_brow1"
    assert by_place[66] == "left_thumb"


def test_humandata_s_pickles_ask_for_nothing_but_arrays(photograph, tmp_path):
    content = load_npz(write_humandata(photograph, tmp_path / "human.npz"))  # refuses all else
    assert "smpl" in content


# --- BEDLAM


@pytest.mark.parametrize("name", ["walk", "photograph", "human36m-smplx", "3dpw-smplx"])
def test_bedlam_stands_where_the_bodies_do(name, tmp_path, request, load):
    gt = request.getfixturevalue(name) if name in ("walk", "photograph") else load(name)
    drop = ["expression"] if gt.model == "smplx" else []
    if gt.model == "smplx":
        full = gt
        gt = with_columns(gt, param__expression=np.zeros_like(gt.params["expression"]))
        without = dict(np.load(write_bedlam(full, tmp_path / "full.npz", leave_out=drop)))
    read = Bedlam(write_bedlam(gt, tmp_path / "bedlam.npz"))
    if drop:  # as if there had been none
        assert all((without[name] == read.data[name]).all() for name in read.data)
    vertices, joints = read.bodies(read.pose_cam, read.data["trans_cam"])
    shift = read.data["cam_ext"][:, None, :3, 3]
    bodies = gt.forward()
    same_points(bodies.vertices, vertices + shift)
    # In the world: the parameters as they are, and the camera takes them to its own.
    world, _ = read.bodies(read.data["pose_world"], read.data["trans_world"])
    if gt.space == "world":
        same_points(gt.forward(space="world").vertices, world)
    turned = np.einsum("nij,nvj->nvi", read.data["cam_ext"][:, :3, :3], world) + shift
    same_points(bodies.vertices, turned)
    # Joints are projected as its preparation does: K (p / z).
    points = joints + shift
    pixels = np.einsum("nij,nkj->nki", read.data["cam_int"], points / points[..., 2:])
    assert np.abs(read.data["gtkps"] - pixels).max() < 1e-2  # px
    assert np.allclose(read.focal, gt.camera.focal)


def test_bedlam_has_no_place_for_expressions(load, tmp_path):
    gt = load("mscoco-smplx")
    with pytest.raises(ValueError, match=r"have an expression.*--leave-out expression"):
        write_bedlam(gt, tmp_path / "x.npz")
    read = Bedlam(write_bedlam(gt, tmp_path / "x.npz", leave_out=["expression"]))
    assert (read.data["left_hand"] == gt.valid["left_hand"]).all()
    with pytest.raises(ValueError, match="leave_out takes expression"):
        write_bedlam(gt, tmp_path / "x.npz", leave_out=["expresion"])


def test_points_behind_the_camera_are_zero(photograph, tmp_path):
    behind = with_columns(photograph, param__transl=np.array([[0, 0, -3]], np.float32))
    read = Bedlam(write_bedlam(behind, tmp_path / "x.npz"))
    assert not read.data["gtkps"].any()


# --- AMASS


def amass_bodies(data) -> np.ndarray:
    """As AMASS's users do: SMPL-X by its parts, or the 22 joints that SMPL and SMPL-H share."""
    n = len(data["trans"])
    betas = np.tile(data["betas"][:10], (n, 1))
    if str(data["surface_model_type"]) == "smplx":
        return posed(
            flat_handed(),
            betas=betas,
            transl=data["trans"],
            global_orient=data["root_orient"],
            body_pose=data["pose_body"],
            jaw_pose=data["pose_jaw"],
            leye_pose=data["pose_eye"][:, :3],
            reye_pose=data["pose_eye"][:, 3:],
            left_hand_pose=data["pose_hand"][:, :45],
            right_hand_pose=data["pose_hand"][:, 45:],
            expression=np.zeros((n, 10)),
        )[0]
    pose = np.concatenate([data["poses"][:, :66], np.zeros((n, 6))], axis=1)
    return smpl_posed(pose, betas, data["trans"])[0]


def test_a_walk_as_amass_has_it(walk, tmp_path):
    (path,) = write_amass(walk, tmp_path)
    assert path.name == "1-14-1_poses.npz"
    data = np.load(path)  # no pickles
    assert data["poses"].shape == (24, 156)
    assert data["betas"].shape == (16,)
    assert float(data["mocap_framerate"]) == 10.0  # every fifth frame of 50 a second
    assert str(data["gender"]) == "neutral"
    fits = load_pseudo_gt(SAMPLE / "human36m", annotations=False)
    order = np.argsort([key[-1] for key in fits.keys])
    assert (data["frame"] == np.array(fits.keys)[order, -1]).all()
    assert (data["trans"] == fits.params["transl"][order]).all()
    assert (data["poses"][:, :3] == fits.params["global_orient"][order]).all()
    assert (data["poses"][:, 3:66] == fits.params["body_pose"][order, :21].reshape(-1, 63)).all()
    same_points(fits.forward(space="world").vertices[order], amass_bodies(data))
    lowest = amass_bodies(data)[..., 2].min()
    assert abs(lowest) < 0.03  # z up, on the floor


@pytest.mark.parametrize("name", ["human36m-smplx", "mpi-inf-3dhp-smplx"])
def test_smplx_as_amass_has_it(name, tmp_path, load):
    gt = load(name)
    zero = np.zeros_like(gt.params["expression"])
    one = np.tile(gt.params["betas"][:1], (len(gt), 1))
    gt = with_columns(gt, param__expression=zero, param__betas=one)
    paths = write_amass(gt, tmp_path, fps=25)
    keys = {tuple(key): k for k, key in enumerate(gt.keys)}
    count = 0
    for path in paths:
        data = np.load(path)
        parts = [int(p) for p in path.name.removesuffix("_poses.npz").split("-")]
        sequence = tuple(parts[: len(gt.keys[0]) - 1])
        rows = [keys[(*sequence, int(f))] for f in data["frame"]]
        world = gt.rows(rows).forward(space="world").vertices.numpy()
        if name.startswith("mpi"):  # y is up there
            world = world @ Rotation.from_euler("x", 90, degrees=True).as_matrix().T
        same_points(world, amass_bodies(data))
        assert np.allclose(data["poses"][:, 75:], data["pose_hand"])
        assert (data["left_hand_valid"] == gt.rows(rows).valid["left_hand"]).all()
        count += len(rows)
    assert count == len(set(keys))


def test_gaps_divide_a_sequence(walk, tmp_path):
    frames = np.array([key[-1] for key in walk.keys])
    middle = np.unique(frames)[10]
    paths = write_amass(walk.rows(frames != middle), tmp_path)
    assert sorted(len(np.load(p)["trans"]) for p in paths) == [10, 13]
    starts = {int(np.load(p)["frame"][0]) for p in paths}
    assert {int(p.name.split("-")[3].split("_")[0]) for p in paths} == starts


def test_a_shape_that_changes_is_refused_or_averaged(walk, tmp_path):
    betas = np.array(walk.params["betas"])
    betas[:, 0] += np.linspace(0, 1, len(betas), dtype=np.float32)
    some = with_columns(walk, param__betas=betas)
    with pytest.raises(ValueError, match=r"shape changes within a sequence.*--shape mean"):
        write_amass(some, tmp_path)
    (path,) = write_amass(some, tmp_path, shape="mean")
    data = np.load(path)
    # The pelvis stays where it was.
    fits = some.rows([some.keys.index((1, 14, 1, int(f))) for f in data["frame"]])
    _, joints = smpl_posed(
        np.pad(data["poses"][:, :66], ((0, 0), (0, 6))), np.tile(data["betas"][:10], (24, 1)), data["trans"]
    )
    same_points(fits.forward(space="world").joints[:, 0], joints[:, 0])


def test_what_amass_cannot_hold(walk, photograph, load, tmp_path):
    with pytest.raises(ValueError, match="MSCOCO's have no frame numbers"):
        write_amass(photograph, tmp_path)
    with pytest.raises(ValueError, match="moved into cameras"):
        write_amass(walk.to_camera_space(), tmp_path)
    with pytest.raises(ValueError, match=r"frames a second are needed.*--fps"):
        write_amass(load("mpi-inf-3dhp-smpl"), tmp_path)
    with pytest.raises(ValueError, match=r"turn SMPL's hand joints.*--leave-out hand-joints"):
        write_amass(load("human36m-smpl"), tmp_path)
    with pytest.raises(ValueError, match="frames a second are needed: got -1"):
        write_amass(walk, tmp_path, fps=-1)
    with pytest.raises(ValueError, match="shape must be 'same' or 'mean', got 'each'"):
        write_amass(walk, tmp_path, shape="each")
    with pytest.raises(ValueError, match="holds SMPL and SMPL-X parameters, these are MANO's"):
        write_amass(load("interhand26m-mano"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_rows(photograph, walk, tmp_path):
    assert len(Spin(write_hmr(photograph[:0], tmp_path / "a.npz")).imgname) == 0
    assert HumanData(write_humandata(photograph[:0], tmp_path / "c.npz")).count == 0
    assert len(Bedlam(write_bedlam(photograph[:0], tmp_path / "d.npz")).imgname) == 0
    assert write_amass(walk[:0], tmp_path / "e") == []
