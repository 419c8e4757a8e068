"""EFT's and SPIN's fits as annotations: their layouts, ids found by image and box, errors in one table."""

from __future__ import annotations

import csv
import json
import warnings

import numpy as np
import pytest
from foreign_readers import posed
from scipy.spatial.transform import Rotation
from smplx_layers import open_layer

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.cli import main
from neuralannot.formats import read_eft, read_spin, write_hmr
from neuralannot.formats.foreign import find_annotations, image_name

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


@pytest.fixture(scope="module")
def coco(released) -> PseudoGT:
    written = released("mscoco-smpl")
    return load_pseudo_gt(written.path, release="mscoco-smpl", annotations=written.annotations)


def eft_entries(gt: PseudoGT, rng: np.random.Generator) -> list[dict]:
    entries = []
    pose = np.concatenate([gt.params["global_orient"][:, None], gt.params["body_pose"]], 1)
    for row in range(len(gt)):
        box = gt.box_xywh[row].astype(float)
        entries.append(
            {
                "parm_pose": Rotation.from_rotvec(pose[row]).as_matrix().tolist(),
                "parm_shape": gt.params["betas"][row].tolist(),
                "parm_cam": [rng.uniform(0.6, 1.1), *rng.normal(0, 0.1, 2).tolist()],
                "bbox_scale": 1.2 * float(box[2:].max()) / 200,
                "bbox_center": (box[:2] + box[2:] / 2).tolist(),
                "joint_validity_openpose18": [True] * 18,
                "smpltype": "smpl",
                "annotId": int(gt.ids[row]),
                "imageName": "COCO_train2014_" + gt.image_path[row].split("/")[-1],
                "subjectId": None,
            }
        )
    return entries


@pytest.fixture
def eft_file(coco, tmp_path):
    entries = eft_entries(coco, np.random.default_rng(0))
    path = tmp_path / "COCO2014-All-ver01.json"
    path.write_text(json.dumps({"ver": 0.1, "data": entries}))
    return path, entries


# --- EFT


def test_eft_s_bodies_are_those_of_its_rotations(eft_file, coco):
    path, entries = eft_file
    gt = read_eft(path)
    assert (gt.model, gt.space, gt.ids.tolist()) == ("smpl", "camera", coco.ids.tolist())
    pose = np.array([e["parm_pose"] for e in entries], np.float32)
    with_matrices = posed_by_matrices(pose, np.array([e["parm_shape"] for e in entries], np.float32))
    own = gt.forward()
    ours = own.vertices.numpy() - gt.params["transl"][:, None]
    assert np.abs(ours - with_matrices[0]).max() < 1e-5
    assert (gt.params["betas"] == coco.params["betas"]).all()


def posed_by_matrices(pose: np.ndarray, betas: np.ndarray):
    """As EFT's viewer does: smplx with `pose2rot=False`."""
    import torch

    layer = open_layer("smpl")
    with torch.no_grad():
        out = layer(
            betas=torch.tensor(betas),
            body_pose=torch.tensor(pose[:, 1:]),
            global_orient=torch.tensor(pose[:, :1]),
            transl=torch.zeros(len(pose), 3),
            pose2rot=False,
        )
    return out.vertices.numpy(), out.joints.numpy()


def test_eft_s_camera_puts_bodies_where_its_weak_perspective_does(eft_file):
    path, entries = eft_file
    gt = read_eft(path)
    pose = np.array([e["parm_pose"] for e in entries], np.float32)
    _, joints = posed_by_matrices(pose, np.array([e["parm_shape"] for e in entries], np.float32))
    pixels = gt.forward(want="joints").project().numpy()
    for row, entry in enumerate(entries):
        s, shift = entry["parm_cam"][0], np.array(entry["parm_cam"][1:])
        crop = 112 * (s * joints[row, :, :2] + shift)  # about the crop's middle
        size = 200 * entry["bbox_scale"]
        weak = np.array(entry["bbox_center"]) + crop * size / 224
        # They differ by perspective alone: the body's depth over its distance.
        allowed = np.abs(joints[row, :, 2:]) / gt.params["transl"][row, 2] * size + 1e-2
        assert (np.abs(pixels[row] - weak) <= allowed).all()


def test_eft_by_image_and_box(eft_file, coco, released, tmp_path):
    path, entries = eft_file
    for entry in entries:
        entry["annotId"] = -1
    path.write_text(json.dumps({"ver": 0.1, "data": entries}))
    with pytest.raises(ValueError, match=r"have no annotation ids; give annotations="):
        read_eft(path)
    gt = read_eft(path, annotations=released("mscoco-smpl").annotations)
    assert gt.ids.tolist() == coco.ids.tolist()
    entries[1]["imageName"] = "elsewhere.jpg"
    path.write_text(json.dumps({"ver": 0.1, "data": entries}))
    with pytest.warns(UserWarning, match="of 6 fits 1 have no annotation"):
        gt = read_eft(path, annotations=released("mscoco-smpl").annotations)
    assert gt.ids.tolist() == np.delete(coco.ids, 1).tolist()


def test_of_fits_with_one_id_the_first_counts(eft_file, coco):
    path, entries = eft_file
    entries[3]["annotId"] = entries[0]["annotId"]
    path.write_text(json.dumps({"ver": 0.1, "data": entries}))
    with pytest.warns(UserWarning, match="1 a repeated id"):
        gt = read_eft(path)
    assert gt.ids.tolist() == np.delete(coco.ids, 3).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parm_pose": [[1.0]] * 24}, r"data\[2\]: 'parm_pose' must hold 216 finite numbers, got 24"),
        ({"parm_pose": (-np.eye(3)[None] * np.ones((24, 1, 1))).tolist()}, "joint 0 of fit 2 is no rotation"),
        ({"parm_cam": [0.0, 0, 0]}, "its scale must be positive"),
        ({"smpltype": "smplx"}, r"data\[2\]: smpltype is 'smplx'"),
        ({"bbox_scale": "wide"}, r"data\[2\]"),
        ({"parm_shape": None}, r"data\[2\]"),
    ],
)
def test_eft_files_that_are_none(eft_file, change, message):
    path, entries = eft_file
    entries[2] |= change
    path.write_text(json.dumps({"ver": 0.1, "data": entries}))
    with pytest.raises(ValueError, match=message):
        read_eft(path)


def test_eft_entries_that_lack_something(eft_file, tmp_path):
    path, entries = eft_file
    del entries[4]["bbox_center"]
    path.write_text(json.dumps({"ver": 0.1, "data": entries}))
    with pytest.raises(ValueError, match=r"data\[4\]: no .*bbox_center"):
        read_eft(path)
    path.write_text('{"ver": 0.1, "data": [')
    with pytest.raises(ValueError, match="not EFT's fits"):
        read_eft(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="not EFT's fits"):
        read_eft(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json: no such file"):
        read_eft(tmp_path / "nowhere.json")
    path.write_text(json.dumps({"ver": 0.1, "data": entries[:2]}))
    with pytest.raises(ValueError, match="these are SMPL fits of single images"):
        read_eft(path, release="mscoco-smplx")


# --- SPIN


def spin_files(gt: PseudoGT, folder, *, places: np.ndarray) -> tuple:
    """A training file and the final fits beside it, as SPIN released them: its crop, keypoints projected."""
    box = gt.box_xywh.astype(float)
    center, scale = box[:, :2] + box[:, 2:] / 2, 1.2 * box[:, 2:].max(1) / 200
    focal = 5000 / 224 * 200 * scale
    pose = np.concatenate([gt.params["global_orient"], gt.params["body_pose"].reshape(-1, 69)], 1)
    arrays = {"global_orient": pose[:, :3], "body_pose": pose[:, 3:], "betas": gt.params["betas"]}
    _, joints = posed(open_layer("smpl"), **arrays, transl=places)
    pixels = joints[..., :2] / joints[..., 2:] * focal[:, None, None] + center[:, None]
    from neuralannot.formats.keypoint_orders import OPENPOSE_OF_SMPL, SPIN_OF_SMPL
    from neuralannot.joint_sets import JOINT_SETS

    smpl = JOINT_SETS["smpl"].joints
    openpose, part = np.zeros((len(gt), 25, 3)), np.zeros((len(gt), 24, 3))
    for out, of in ((openpose, OPENPOSE_OF_SMPL), (part, SPIN_OF_SMPL)):
        for place, joint in of.items():
            out[:, place, :2], out[:, place, 2] = pixels[:, smpl.index(joint)], 0.5 + 0.5 * (out is part)
    names = [f"train2014/COCO_train2014_{p.split('/')[-1]}" for p in gt.image_path]
    training, fits = folder / "coco_2014_train.npz", folder / "coco.npz"
    np.savez(training, imgname=names, center=center, scale=scale, part=part, openpose=openpose)
    valid = np.arange(len(gt)) != 2
    np.savez(fits, pose=pose, betas=gt.params["betas"], valid_fit=valid)
    return training, fits


@pytest.fixture
def spin(coco, tmp_path):
    rng = np.random.default_rng(1)
    places = np.column_stack([rng.normal(0, 0.3, (len(coco), 2)), rng.uniform(30, 60, len(coco))])
    return (*spin_files(coco, tmp_path, places=places.astype(np.float32)), places)


def test_spin_s_fits_are_placed_by_their_keypoints(spin, coco, released):
    training, fits, places = spin
    with pytest.warns(UserWarning, match="of 6 fits 1 have no annotation"):
        gt = read_spin(fits, images=training, annotations=released("mscoco-smpl").annotations)
    kept = np.arange(6) != 2
    assert gt.ids.tolist() == coco.ids[kept].tolist()
    assert (gt.params["body_pose"] == coco.params["body_pose"][kept]).all()
    assert (gt.params["global_orient"] == coco.params["global_orient"][kept]).all()
    assert np.abs(gt.params["transl"] - places[kept]).max() < 2e-2  # of 45 m
    whole = read_spin(fits, images=training, annotations=released("mscoco-smpl").annotations, all_fits=True)
    assert whole.ids.tolist() == coco.ids.tolist()


def test_static_fits_and_fits_in_the_training_file(spin, coco, released, tmp_path):
    training, fits, _ = spin
    options = {"annotations": released("mscoco-smpl").annotations}
    with np.load(fits) as file:
        pose, betas = file["pose"], file["betas"]
    static = tmp_path / "coco_fits.npy"
    np.save(static, np.concatenate([pose, betas], 1))
    one = read_spin(static, images=training, **options)
    with np.load(training) as file:
        both = dict(file) | {"pose": pose, "shape": betas, "has_smpl": np.ones(6)}
    np.savez(tmp_path / "both.npz", **both)
    other = read_spin(tmp_path / "both.npz", **options)
    for name in one.params:
        assert (one.params[name] == other.params[name]).all()


def test_bodies_without_keypoints_are_placed_by_their_boxes(spin, released, tmp_path):
    training, fits, _ = spin
    with np.load(training) as file:
        arrays = dict(file)
    arrays["part"][0, :, 2] = arrays["openpose"][0, :, 2] = 0
    np.savez(training, **arrays)
    with pytest.warns(UserWarning, match="1 of 6 bodies are placed by their boxes"):
        gt = read_spin(fits, images=training, annotations=released("mscoco-smpl").annotations, all_fits=True)
    pixels = gt[:1].forward(want="joints").project().numpy()[0]
    size = 200 * arrays["scale"][0]
    assert np.abs(pixels.mean(0) - arrays["center"][0]).max() < size / 2
    assert 0.6 < np.ptp(pixels, axis=0).max() / (size / 1.2) < 1.1


def test_four_joints_place_a_body_and_three_do_not(spin, released, coco):
    training, fits, places = spin
    options = {"images": training, "annotations": released("mscoco-smpl").annotations, "all_fits": True}
    with np.load(training) as file:
        arrays = dict(file)
    arrays["openpose"][0, :, 2] = 0
    limbs = [0, 5, 6, 11, 8]  # ankles, wrists, a shoulder
    for count, warned in ((4, False), (3, True)):
        arrays["part"][0, :, 2] = np.isin(np.arange(24), limbs[:count])
        np.savez(training, **arrays)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            gt = read_spin(fits, **options)
        assert any("placed by their boxes" in str(w.message) for w in said) == warned
        apart = np.abs(gt.params["transl"][0] - places[0]).max()
        assert (apart > 0.1) == warned
        assert np.abs(gt.params["transl"][1:] - places[1:]).max() < 2e-2


def test_keypoints_upside_down_put_no_body_behind_the_camera(spin, released):
    """Turned by half about the middle, the nearest place is behind the camera: the box's is taken."""
    training, fits, _ = spin
    with np.load(training) as file:
        arrays = dict(file)
    for name in ("part", "openpose"):
        arrays[name][0, :, :2] = 2 * arrays["center"][0] - arrays[name][0, :, :2]
    np.savez(training, **arrays)
    with pytest.warns(UserWarning, match="1 of 6 bodies are placed by their boxes"):
        gt = read_spin(fits, images=training, annotations=released("mscoco-smpl").annotations, all_fits=True)
    assert (gt.forward(want="joints").joints[..., 2] > 0).all()


def test_what_write_hmr_wrote_comes_back(coco, tmp_path):
    gt = read_spin(write_hmr(coco, tmp_path / "x.npz"))
    assert gt.ids.tolist() == coco.ids.tolist()
    for name in coco.params:
        assert (gt.params[name] == coco.params[name]).all(), name
    assert np.abs(gt.camera.K - coco.camera.K).max() == 0


def test_spin_files_that_are_none(spin, released, tmp_path):
    training, fits, _ = spin
    annotations = released("mscoco-smpl").annotations
    with pytest.raises(ValueError, match=r"says no images; give images="):
        read_spin(fits, annotations=annotations)
    with pytest.raises(ValueError, match=r"no annotation ids; give annotations="):
        read_spin(fits, images=training)
    with np.load(training) as file:
        arrays = dict(file)
    np.savez(tmp_path / "short.npz", **{k: v[:3] for k, v in arrays.items()})
    with pytest.raises(ValueError, match="3 images for 6 fits"):
        read_spin(fits, images=tmp_path / "short.npz", annotations=annotations)
    np.savez(tmp_path / "bare.npz", imgname=arrays["imgname"], center=arrays["center"])
    with pytest.raises(ValueError, match="no 'scale'"):
        read_spin(fits, images=tmp_path / "bare.npz", annotations=annotations)
    np.savez(tmp_path / "odd.npz", pose=np.zeros((6, 63)), betas=np.zeros((6, 10)))
    with pytest.raises(ValueError, match=r"pose must be \(N, 72\) numbers, got \(6, 63\)"):
        read_spin(tmp_path / "odd.npz", images=training, annotations=annotations)
    np.savez(tmp_path / "nan.npz", pose=np.full((6, 72), np.nan), betas=np.zeros((6, 10)))
    with pytest.raises(ValueError, match="pose must be finite"):
        read_spin(tmp_path / "nan.npz", images=training, annotations=annotations)
    np.save(tmp_path / "odd.npy", np.zeros((6, 72)))
    with pytest.raises(ValueError, match=r"SPIN's fits are \(N, 82\)"):
        read_spin(tmp_path / "odd.npy", images=training, annotations=annotations)
    with pytest.raises(FileNotFoundError):
        read_spin(tmp_path / "nowhere.npz")


# --- ids by image and box


def test_neither_order_nor_image_alone_decides_who_is_who():
    images = [{"id": 1, "file_name": "000000000001.jpg", "width": 100, "height": 100}]
    boxes = {7: [0, 0, 20, 40], 8: [10, 0, 20, 40], 9: [60, 0, 20, 40]}
    annotations = {
        "images": images,
        "annotations": [
            {"id": id_, "image_id": 1, "bbox": box, "category_id": 1} for id_, box in boxes.items()
        ],
    }
    names = np.array(["train2014/COCO_train2014_000000000001.jpg"] * 4 + ["other.jpg"])
    centers = np.array([[20.2, 20], [70, 20], [10, 20.5], [40, 20], [10, 20]])
    found = find_annotations(names, centers, annotations, "mscoco-smpl", within=0.05)
    assert found.tolist() == [8, 9, 7, -1, -1]
    two = find_annotations(names[:2], np.array([[10, 20], [10.4, 20]]), annotations, "mscoco-smpl", within=1)
    assert two.tolist() == [7, -1]  # one annotation is one person's
    assert image_name("a/COCO_val2014_1.jpg") == "1.jpg"


# --- the command, and one table


def test_all_are_compared_in_one_table(eft_file, spin, coco, released, tmp_path, capsys):
    path, _ = eft_file
    training, fits, _ = spin
    truth = tmp_path / "truth.safetensors"
    coco.save(truth)
    annotations = str(released("mscoco-smpl").annotations)
    assert main(["import", str(path), "--from", "eft", "--out", str(tmp_path / "eft.safetensors")]) == 0
    arguments = ["--images-file", str(training), "--annotations", annotations, "--all-fits"]
    spin_out = str(tmp_path / "spin.json")
    assert main(["import", str(fits), "--from", "spin", *arguments, "--out", spin_out]) == 0
    assert "6 fits of spin as mscoco-smpl" in capsys.readouterr().out
    again = load_pseudo_gt(spin_out, release="mscoco-smpl", annotations=annotations)
    assert (again.params["betas"] == coco.params["betas"]).all()
    files = [str(truth), str(tmp_path / "eft.safetensors"), spin_out]
    command = ["compare", *files, "--release", "mscoco-smpl", "--truth", str(truth)]
    assert main([*command, "--csv", str(tmp_path / "table.csv")]) == 0, capsys.readouterr().err
    assert "PA-MPVPE mm" in capsys.readouterr().out
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["truth", "eft", "spin"]
    for row in rows:
        assert row["count"] == "6"
        assert float(row["PA-MPVPE mm"]) < 0.1  # the same bodies
        assert float(row["MPVPE mm"]) < 0.1
    assert float(rows[0]["root error mm"]) == 0 < float(rows[1]["root error mm"])


def test_import_s_mistakes(eft_file, tmp_path, capsys):
    path, _ = eft_file
    assert main(["import", str(path), "--from", "eft", "--out", "x.csv"]) == 2
    assert "give a .json or .safetensors name" in capsys.readouterr().err
    out = str(tmp_path / "x.json")
    assert main(["import", str(path), "--from", "eft", "--all-fits", "--out", out]) == 2
    assert "are for --from spin" in capsys.readouterr().err
