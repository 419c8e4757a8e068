"""The samples that ship, and the tools that made them."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import neuralannot
from neuralannot.body_models import load_body_model
from neuralannot.boxes import process_boxes, virtual_camera

PACKAGE = Path(neuralannot.__file__).parent
OPEN_BODIES = PACKAGE / "body_models" / "open"
SAMPLE = PACKAGE / "sample"
TOOLS = PACKAGE.parent / "tools"
DATA = os.environ.get("NEURALANNOT_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="NEURALANNOT_TEST_DATA is unset: no CMU clips, no cameras")


def read(name: str) -> dict:
    return json.loads((SAMPLE / name).read_text())


def tool(name: str):
    if str(TOOLS.parent) not in sys.path:
        sys.path.insert(0, str(TOOLS.parent))
    return import_module(f"tools.{name}")


def tensor(values, *shape: int) -> torch.Tensor:
    return torch.tensor(np.array(values), dtype=torch.float32).reshape(*shape)


@pytest.fixture(scope="module")
def walk() -> dict:
    """The walk's fits, by frame, with the vertices (24, 6890, 3) and joints (24, 45, 3) that they give."""
    fits = read("human36m/Human36M_subject1_SMPL_NeuralAnnot.json")["14"]["1"]
    pose = np.array([fit["pose"] for fit in fits.values()])
    out = load_body_model("smpl", folder=OPEN_BODIES)(
        global_orient=tensor(pose[:, :3], -1, 3),
        body_pose=tensor(pose[:, 3:], -1, 23, 3),
        betas=tensor([fit["shape"] for fit in fits.values()], -1, 10),
        transl=tensor([fit["trans"] for fit in fits.values()], -1, 3),
    )
    vertices, joints = (values.numpy().astype(float) for values in (out.vertices, out.joints))
    return {"fits": fits, "vertices": vertices, "skeleton": joints}


@pytest.fixture(scope="module")
def data() -> dict:
    return read("human36m/Human36M_subject1_data.json")


def project(points: np.ndarray, camera: dict) -> np.ndarray:
    """World points (V, 3) in millimetres to pixels (V, 2)."""
    seen = (np.array(camera["R"]) @ points.T + np.array(camera["t"])[:, None]).T
    return seen[:, :2] / seen[:, 2:] * camera["f"] + camera["c"]


def test_the_sample_is_small():
    files = [path for path in SAMPLE.rglob("*") if path.suffix in (".json", ".md")]
    assert len(files) == 10
    assert sum(path.stat().st_size for path in files) < 300_000


def test_walk_leaves_have_the_released_widths(walk):
    assert list(walk["fits"]) == [str(frame) for frame in range(0, 120, 5)]
    for fit in walk["fits"].values():
        assert {name: len(values) for name, values in fit.items()} == {"pose": 72, "shape": 10, "trans": 3}
        assert np.isfinite(fit["pose"] + fit["shape"] + fit["trans"]).all()


def test_walker_stands_on_the_floor_upright_and_walks(walk):
    vertices = walk["vertices"]
    assert np.abs(vertices[..., 2].min(1)).max() < 1e-4
    assert (vertices[..., 2].max(1) > 1.5).all()
    assert (vertices[..., 2].max(1) < 1.9).all()
    path = vertices.mean(1)[:, :2]
    speed = np.linalg.norm(np.diff(path, axis=0), axis=1) * 10
    assert (speed > 0.5).all()
    assert (speed < 2).all()


def test_walk_joints_are_the_regressed_ones(walk):
    with np.load(OPEN_BODIES / "regressors.npz") as regressors:
        expected = np.einsum("kv,fvc->fkc", regressors["human36m-17/smpl"], walk["vertices"]) * 1000
    stored = read("human36m/Human36M_subject1_joint_3d.json")["14"]["1"]
    assert list(stored) == list(walk["fits"])
    np.testing.assert_allclose(np.array(list(stored.values())), expected, atol=0.02)


def test_walk_joints_are_in_human36m_order(walk):
    """Pelvis, right leg, left leg, spine to head, left arm, right arm: near SMPL's, on the right side."""
    stored = np.array(list(read("human36m/Human36M_subject1_joint_3d.json")["14"]["1"].values())) / 1000
    same = {0: 0, 1: 2, 2: 5, 3: 8, 4: 1, 5: 4, 6: 7, 11: 16, 12: 18, 13: 20, 14: 17, 15: 19, 16: 21}
    mirrored = {1: 1, 2: 4, 3: 7, 4: 2, 5: 5, 6: 8, 11: 17, 12: 19, 13: 21, 14: 16, 15: 18, 16: 20}
    for joint, own in same.items():
        gap = np.linalg.norm(stored[:, joint] - walk["skeleton"][:, own], axis=-1)
        assert gap.max() < 0.1, joint  # Human3.6M's hips are further out than SMPL's
        if joint in mirrored:
            other = np.linalg.norm(stored[:, joint] - walk["skeleton"][:, mirrored[joint]], axis=-1)
            assert (gap < other).all(), joint
    assert (np.diff(stored[:, [0, 7, 8, 9, 10], 2], axis=1) > 0.02).all()


def test_cameras_are_rigid():
    cameras = read("human36m/Human36M_subject1_camera.json")
    assert list(cameras) == ["1", "2", "3", "4"]
    for camera in cameras.values():
        rotation = np.array(camera["R"])
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) > 0
        assert 3000 < np.linalg.norm(camera["t"]) < 8000


def test_boxes_hold_the_projected_body_and_lie_in_the_images(walk, data):
    cameras = read("human36m/Human36M_subject1_camera.json")
    rows = {int(frame): row for row, frame in enumerate(walk["fits"])}
    images = {image["id"]: image for image in data["images"]}
    assert len(data["annotations"]) == len(images) == 96
    for annotation in data["annotations"]:
        image = images[annotation["image_id"]]
        camera = cameras[str(image["cam_idx"])]
        pixels = project(walk["vertices"][rows[image["frame_idx"]]] * 1000, camera)
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= image["width"] - 1
        assert 0 <= y < y + height <= image["height"] - 1
        np.testing.assert_allclose(pixels.min(0), [x, y], atol=0.02)
        np.testing.assert_allclose(pixels.max(0), [x + width, y + height], atol=0.02)


def test_images_are_named_as_human36m_names_them(data):
    serials = {1: "54138969", 2: "55011271", 3: "58860488", 4: "60457274"}
    keys = [(image["cam_idx"], image["frame_idx"]) for image in data["images"]]
    assert sorted(set(keys)) == sorted(keys)
    assert {image["id"] for image in data["images"]} == {a["id"] for a in data["annotations"]}
    for image in data["images"]:
        folder = f"S1_Walking_1.{serials[image['cam_idx']]}"
        assert image["file_name"] == f"S1/{folder}/{folder}_{image['frame_idx'] + 1:06d}.jpg"
        assert (image["subject"], image["action_idx"], image["subaction_idx"]) == (1, 14, 1)


@pytest.fixture(scope="module")
def portrait() -> dict:
    return read("mscoco/person_keypoints_train2017.json")


def test_portrait_is_a_coco_file(portrait):
    from pycocotools.coco import COCO

    coco = COCO(str(SAMPLE / "mscoco" / "person_keypoints_train2017.json"))
    assert coco.getAnnIds(catIds=[1], iscrowd=False) == [1]
    annotation = portrait["annotations"][0]
    names, points = portrait["categories"][0]["keypoints"], np.array(annotation["keypoints"]).reshape(-1, 3)
    assert len(names) == len(points) == 17
    assert annotation["num_keypoints"] == (points[:, 2] > 0).sum()
    assert (points[points[:, 2] == 0] == 0).all()
    mask = coco.annToMask(annotation)
    assert mask.sum() == pytest.approx(annotation["area"], rel=0.02)
    rows, columns = np.nonzero(mask)
    x, y, width, height = annotation["bbox"]
    corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert corners == pytest.approx((x, y, x + width, y + height), abs=1.5)
    seen = points[points[:, 2] == 2]
    assert mask[seen[:, 1].astype(int), seen[:, 0].astype(int)].all()


def test_whole_body_file_repeats_the_person(portrait):
    annotation = read("mscoco/coco_wholebody_train_v1.0.json")["annotations"][0]
    assert {name: annotation[name] for name in portrait["annotations"][0]} == portrait["annotations"][0]
    face = np.array(annotation["face_kpts"]).reshape(68, 3)
    x, y, width, height = annotation["face_box"]
    named = face[face[:, 2] > 0, :2]
    assert len(named) == 52
    assert ((named >= [x, y]) & (named <= [x + width, y + height])).all()
    assert not annotation["lefthand_valid"]
    assert not annotation["righthand_valid"]


def test_picture_has_the_stated_size(portrait):
    import cv2

    picture = cv2.imread(str(SAMPLE / "mscoco" / "train2017" / portrait["images"][0]["file_name"]))
    assert picture.shape == (portrait["images"][0]["height"], portrait["images"][0]["width"], 3)


def portrait_parameters(model: str) -> tuple[dict, dict]:
    """The stored fit as the arguments of the body layer, and its camera."""
    name = {"smpl": "SMPL", "smplx": "SMPLX_all", "flame": "FLAME"}[model]
    leaf = read(f"mscoco/MSCOCO_train_{name}_NeuralAnnot.json")["1"]
    fit = leaf[f"{model}_param"]
    params = {"betas": tensor(fit["shape"], 1, 10), "transl": tensor(fit["trans"], 1, 3)}
    if model == "smpl":
        params["global_orient"] = tensor(fit["pose"][:3], 1, 3)
        params["body_pose"] = tensor(fit["pose"][3:], 1, 23, 3)
        return params, leaf["cam_param"]
    params["global_orient"] = tensor(fit["root_pose"], 1, 3)
    params["jaw_pose"], params["expression"] = tensor(fit["jaw_pose"], 1, 3), tensor(fit["expr"], 1, 10)
    if model == "smplx":
        params["body_pose"] = tensor(fit["body_pose"], 1, 21, 3)
        assert (len(fit["lhand_pose"]), len(fit["rhand_pose"])) == (45, 45)
        assert (fit["lhand_valid"], fit["rhand_valid"], fit["face_valid"]) == (False, False, True)
    return params, leaf["cam_param"]


@pytest.mark.parametrize(("model", "box"), [("smpl", "bbox"), ("smplx", "bbox"), ("flame", "face_box")])
def test_portrait_camera_is_the_virtual_camera_of_its_box(model, box):
    annotation = read("mscoco/coco_wholebody_train_v1.0.json")["annotations"][0]
    crop, valid = process_boxes(annotation[box], (512, 512))
    focal, princpt = virtual_camera(crop)
    camera = portrait_parameters(model)[1]
    assert valid
    np.testing.assert_allclose(camera["focal"], focal, rtol=1e-6)
    np.testing.assert_allclose(camera["princpt"], princpt, rtol=1e-6)


@pytest.mark.parametrize("model", ["smpl", "smplx"])
def test_portrait_fits_land_on_the_keypoints(model, portrait):
    params, camera = portrait_parameters(model)
    out = load_body_model(model, folder=OPEN_BODIES)(**params)
    nose = {"smpl": 24, "smplx": 55}[model]  # then right eye, left eye, right ear, left ear
    joints = [nose, nose + 2, nose + 1, nose + 4, nose + 3, 16, 17, 18, 19, 20, 21]
    points = out.joints[0, joints].numpy()
    pixels = points[:, :2] / points[:, 2:] * camera["focal"] + camera["princpt"]
    keypoints = np.array(portrait["annotations"][0]["keypoints"]).reshape(17, 3)[: len(joints)]
    gap = np.linalg.norm(pixels - keypoints[:, :2], axis=1)
    assert gap[:3].max() < 4
    assert gap[keypoints[:, 2] == 2].mean() < 4
    assert gap[keypoints[:, 2] > 0].max() < 12
    assert out.vertices[0, :, 2].min() > 10  # 5000 px at 256 px is a long lens: she is far from it
    assert out.joints[0, 12, 1] < out.joints[0, 0, 1]  # upright: the camera's y runs down


@pytest.mark.parametrize(("model", "first"), [("smplx", 76), ("flame", 5)])
def test_portrait_faces_land_on_the_face_points(model, first):
    params, camera = portrait_parameters(model)
    points = load_body_model(model, folder=OPEN_BODIES)(**params).joints[0, first : first + 51].numpy()
    pixels = points[:, :2] / points[:, 2:] * camera["focal"] + camera["princpt"]
    annotation = read("mscoco/coco_wholebody_train_v1.0.json")["annotations"][0]
    gap = np.linalg.norm(pixels - np.array(annotation["face_kpts"]).reshape(68, 3)[17:, :2], axis=1)
    assert gap.mean() < 3


@pytest.mark.parametrize(
    ("name", "model", "rows", "images"),
    [
        ("human36m/Human36M_subject1_SMPL_NeuralAnnot.json", "smpl", 96, "S1/S1_Walking_1."),
        ("mscoco/MSCOCO_train_SMPL_NeuralAnnot.json", "smpl", 1, "train2017/astronaut.png"),
        ("mscoco/MSCOCO_train_SMPLX_all_NeuralAnnot.json", "smplx", 1, "train2017/astronaut.png"),
        ("mscoco/MSCOCO_train_FLAME_NeuralAnnot.json", "flame", 1, "train2017/astronaut.png"),
    ],
)
def test_the_library_reads_the_sample_and_lands_in_the_boxes(name, model, rows, images):
    gt = neuralannot.load_pseudo_gt(SAMPLE / name, cache=False)
    assert (gt.model, len(gt)) == (model, rows)
    assert all(path.startswith(images) for path in gt.image_path)
    pixels = gt.forward(body_models=OPEN_BODIES).project("vertices").numpy()
    x, y, width, height = gt.box_xywh.T
    low, high = pixels.min(1).T, pixels.max(1).T
    if rows > 1:  # made from the body; the portrait's boxes are a hand's
        np.testing.assert_allclose(np.stack([*low, *(high - low)]), [x, y, width, height], atol=0.05)
    centre = (pixels.mean(1).T if model == "flame" else (low + high) / 2)[0]
    assert (abs(centre - x - width / 2) < width / 4).all()


directions = st.tuples(*[st.floats(-1, 1)] * 3).map(np.array).filter(lambda v: np.linalg.norm(v) > 0.1)


@given(directions, directions)
def test_least_rotation_is_the_smallest_that_aligns(start, end):
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    if start @ end < -0.999:
        return
    rotation = tool("retarget_cmu").least_rotation(start, end)
    np.testing.assert_allclose(rotation @ start, end, atol=1e-9)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    angle = np.arctan2(np.linalg.norm(np.cross(start, end)), start @ end)
    assert Rotation.from_matrix(rotation).magnitude() == pytest.approx(angle, abs=1e-6)


def test_least_rotation_refuses_opposite_directions():
    with pytest.raises(ValueError, match="opposite directions"):
        tool("retarget_cmu").least_rotation(np.array([1.0, 0, 0]), np.array([-2.0, 0, 0]))


ASF = """:version 1.10
:units
  length 0.45
  angle deg
:bonedata
  begin
    name upper
    direction 1 0 0
    length 2
    axis 0 0 0 XYZ
    dof rz
  end
  begin
    name lower
    direction 1 0 0
    length 1
    axis 90 0 0 XYZ
    dof ry
  end
:hierarchy
  begin
    root upper
    upper lower
  end
"""
AMC = "#!OML:ASF\n:DEGREES\n1\nroot 0 0 0 0 0 0\nupper 90\nlower 90\n2\nroot 9 0 0 0 90 0\nupper 0\nlower 0\n"


def test_skeleton_poses_two_bones_by_hand(tmp_path):
    """In inches / 0.45: two along the turned x axis, one about the lower bone's own, tilted, y axis."""
    cmu = tool("retarget_cmu")
    (tmp_path / "a.asf").write_text(ASF)
    (tmp_path / "a.amc").write_text(AMC)
    bones = cmu.read_asf(tmp_path / "a.asf")
    _, ends = cmu.pose_skeleton(bones, cmu.read_amc(tmp_path / "a.amc", bones))
    unit = 0.0254 / 0.45
    assert bones["upper"].length == pytest.approx(2 * unit)
    # frame 1: the upper bone points along y; the lower one's y axis is z after its tilt, so it turns on to -x
    np.testing.assert_allclose(ends["upper"][0] / unit, [0, 2, 0], atol=1e-9)
    np.testing.assert_allclose(ends["lower"][0] / unit, [-1, 2, 0], atol=1e-9)
    # frame 2: the root moved along x and turned about y, which takes x to -z
    np.testing.assert_allclose(ends["lower"][1] / unit, [9, 0, -3], atol=1e-9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [(":hierarchy", ":other", "no :hierarchy section"), ("angle deg", "angle rad", "must be in degrees")],
)
def test_unusable_skeletons_are_refused(tmp_path, old, new, message):
    (tmp_path / "a.asf").write_text(ASF.replace(old, new))
    with pytest.raises(ValueError, match=message):
        tool("retarget_cmu").read_asf(tmp_path / "a.asf")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("upper 90", "upper 90 3", "a.amc:5: upper with 2 values is not in the skeleton"),
        ("upper 90", "tail 90", "a.amc:5: tail with 1 values is not in the skeleton"),
        ("upper 0\n", "", "upper has 1 rows for 2 frames"),
    ],
)
def test_motions_that_do_not_fit_are_refused(tmp_path, old, new, message):
    cmu = tool("retarget_cmu")
    (tmp_path / "a.asf").write_text(ASF)
    (tmp_path / "a.amc").write_text(AMC.replace(old, new))
    with pytest.raises(ValueError, match=message):
        cmu.read_amc(tmp_path / "a.amc", cmu.read_asf(tmp_path / "a.asf"))


@needs_data
@pytest.mark.parametrize(("asf", "amc"), [("02", "02_01"), ("03", "03_02")])
def test_retargeted_limbs_point_where_the_skeleton_points(asf, amc):
    """Through the body's own forward pass, against the ASF skeleton's joint positions: below a degree."""
    cmu, folder = tool("retarget_cmu"), Path(DATA) / "cmu_mocap"
    body = load_body_model("smpl", folder=OPEN_BODIES)
    motion = cmu.retarget_files(folder / f"{asf}.asf", folder / f"{amc}.amc", body)
    rows = slice(0, None, 20)
    joints = body(
        global_orient=tensor(motion.global_orient[rows], -1, 3),
        body_pose=tensor(motion.body_pose[rows], -1, 23, 3),
        betas=tensor(motion.betas, 1, 10).repeat(len(motion.transl[rows]), 1),
        transl=tensor(motion.transl[rows], -1, 3),
    ).joints.numpy()
    bones = cmu.read_asf(folder / f"{asf}.asf")
    _, ends = cmu.pose_skeleton(bones, cmu.read_amc(folder / f"{amc}.amc", bones))
    for start, end in cmu.LIMB_END.items():
        name = cmu.SOURCE_BONE[start]
        expected = (ends[name] - ends[bones[name].parent])[rows]
        got = joints[:, end] - joints[:, start]
        cosine = (expected * got).sum(-1) / np.linalg.norm(expected, axis=-1) / np.linalg.norm(got, axis=-1)
        assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 1, name


@needs_data
def test_cameras_equal_the_data_sets_own():
    given = json.loads((Path(DATA) / "human36m/annotations/Human36M_subject1_camera.json").read_text())
    ours = read("human36m/Human36M_subject1_camera.json")
    assert given.keys() == ours.keys()
    for index, camera in given.items():
        for name, values in camera.items():
            np.testing.assert_allclose(ours[index][name], values, rtol=1e-12, err_msg=f"{index} {name}")


@needs_data
def test_the_tool_makes_the_same_walk_again(tmp_path, monkeypatch):
    make = tool("make_mocap_sample")
    monkeypatch.setattr(make, "FOLDER", tmp_path)
    monkeypatch.setattr(
        sys,
        "argv",
        ["make", str(Path(DATA) / "cmu_mocap"), str(Path(DATA) / "human36m/camera-parameters.json")],
    )
    make.main()

    def flat(value) -> list:
        if isinstance(value, dict):
            return [(name, *flat(part)) for name, part in value.items()]
        return [flat(part) for part in value] if isinstance(value, list) else [value]

    def leaves(value) -> list:
        return (
            [leaf for part in value for leaf in leaves(part)] if isinstance(value, list | tuple) else [value]
        )

    for path in sorted(tmp_path.iterdir()):
        again, stored = (
            leaves(flat(json.loads(path.read_text()))),
            leaves(flat(read(f"human36m/{path.name}"))),
        )
        assert len(again) == len(stored)
        for one, other in zip(again, stored, strict=True):
            assert one == (pytest.approx(other, abs=0.011, rel=1e-6) if isinstance(other, float) else other)
    assert len(list(tmp_path.iterdir())) == 4
