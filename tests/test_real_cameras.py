"""Real cameras and joints of the data sets: projected through the library, they land on the annotated pixels.

The fits are made up, the cameras, joints and 2D joints are the data sets' own, from NEURALANNOT_TEST_DATA.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import dump, leaf

from neuralannot import PseudoGT, load_pseudo_gt


def made_release(folder: Path, data: Path, files: dict[str, str], name: str, fits: dict) -> Path:
    """The data sets' companions, copied under their released names, beside a file of made fits."""
    for released, file in files.items():
        shutil.copy(data / file, folder / released)
    return dump(folder / name, fits)


def annotated(path: Path) -> np.ndarray:
    """(N, 17, 2) px: the data set's own 2D joints, in the file's order."""
    return np.array([ann["keypoints_real_2d"] for ann in json.loads(path.read_text())["annotations"]])


def human36m(folder: Path, data: Path, subject: int) -> PseudoGT:
    stem = f"Human36M_subject{subject}"
    files = {
        f"{stem}_{k}.json": f"human36m/annotations/{stem}_{k}.json" for k in ("data", "camera", "joint_3d")
    }
    images = json.loads((data / files[f"{stem}_data.json"]).read_text())["images"]
    fits: dict = {}
    for image in images:
        frame = fits.setdefault(str(image["action_idx"]), {}).setdefault(str(image["subaction_idx"]), {})
        frame[str(image["frame_idx"])] = leaf(np.random.default_rng(0), "human36m-smpl")
    return load_pseudo_gt(made_release(folder, data, files, f"{stem}_SMPL_NeuralAnnot.json", fits))


def through_the_lens(points_cam: np.ndarray, gt: PseudoGT, data: Path) -> np.ndarray:
    """(N, K, 3) metres -> px with the calibration's distortion, by Human3.6M's own formula.

    Its tangential terms are half of OpenCV's; with those 0.07 px would be left.
    """
    intrinsics = json.loads((data / "human36m/camera-parameters.json").read_text())["intrinsics"]
    out = []
    for row, points in enumerate(points_cam):
        # The calibration belongs to the camera whose focal length the release repeats.
        found = [
            np.array(entry["distortion"])
            for entry in intrinsics.values()
            if np.allclose(np.diag(entry["calibration_matrix"])[:2], gt.camera.focal[row], atol=1e-3)
        ]
        assert len(found) == 1
        k1, k2, p1, p2, k3 = found[0]
        x, y = (points[:, :2] / points[:, 2:]).T
        r2 = x**2 + y**2
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        bent = points[:, :2] / points[:, 2:] * (radial + p1 * y + p2 * x)[:, None] + np.outer(r2, [p2, p1])
        out.append(bent * gt.camera.focal[row] + gt.camera.princpt[row])
    return np.stack(out)


@pytest.mark.parametrize("subject", [1, 5])
def test_human36m_joints_land_on_their_pixels(subject, test_data, tmp_path):
    gt = human36m(tmp_path, test_data, subject)
    expected = annotated(tmp_path / f"Human36M_subject{subject}_data.json")
    assert len(gt) == len(expected) >= 1
    points = gt.camera.world_to_camera(gt.joints_world)
    error = np.linalg.norm(gt.camera.project(points) - expected, axis=-1)
    assert error.mean() < 0.7
    assert error.max() < 1.6
    # What is left is the lens, which the released cameras leave out.
    bent = np.linalg.norm(through_the_lens(points.astype(float), gt, test_data) - expected, axis=-1)
    assert bent.max() < 0.0005


def test_human36m_cameras_are_the_published_ones(test_data, tmp_path):
    gt = human36m(tmp_path, test_data, 1)
    published = json.loads((test_data / "human36m/camera-parameters.json").read_text())["extrinsics"]["S1"]
    t = np.array([np.ravel(camera["t"]) for camera in published.values()]) / 1000
    assert np.abs(t - gt.camera.t[0]).max(axis=1).min() < 1e-6


def test_several_human36m_subjects_at_once(test_data, tmp_path):
    for subject in (1, 5):
        human36m(tmp_path, test_data, subject)
    notes = {s: json.loads((tmp_path / f"Human36M_subject{s}_data.json").read_text()) for s in (1, 5)}
    for image in notes[5]["images"]:  # the two frames of the sample bear one id
        image["id"] += 1000
    for ann in notes[5]["annotations"]:
        ann["id"], ann["image_id"] = ann["id"] + 1000, ann["image_id"] + 1000
    dump(tmp_path / "Human36M_subject5_data.json", notes[5])
    gt = load_pseudo_gt(tmp_path)
    assert [key[0] for key in gt.keys] == [1] * len(notes[1]["annotations"]) + [5] * len(
        notes[5]["annotations"]
    )
    expected = np.concatenate([annotated(tmp_path / f"Human36M_subject{s}_data.json") for s in (1, 5)])
    pixels = gt.camera.project(gt.camera.world_to_camera(gt.joints_world))
    assert np.linalg.norm(pixels - expected, axis=-1).mean() < 0.7


@pytest.fixture
def mpi_inf_3dhp(test_data, tmp_path) -> PseudoGT:
    files = {
        "MPI-INF-3DHP_2048.json": "mpi_inf_3dhp/MPI-INF-3DHP_2048.json",
        "MPI-INF-3DHP_camera_2048.json": "mpi_inf_3dhp/MPI-INF-3DHP_camera_2048.json",
        "MPI-INF-3DHP_joint_3d.json": "mpi_inf_3dhp/MPI-INF-3DHP_joint_3d.json",
    }
    fits = {"4": {"2": {"1033": leaf(np.random.default_rng(0), "mpi-inf-3dhp-smpl")}}}
    path = made_release(tmp_path, test_data, files, "MPI-INF-3DHP_SMPL_NeuralAnnot.json", fits)
    return load_pseudo_gt(
        path,
        annotations=tmp_path / "MPI-INF-3DHP_2048.json",
        cameras=tmp_path / "MPI-INF-3DHP_camera_2048.json",
    )


def test_mpi_inf_3dhp_joints_land_on_their_pixels(mpi_inf_3dhp, tmp_path):
    gt = mpi_inf_3dhp
    expected = annotated(tmp_path / "MPI-INF-3DHP_2048.json")
    points = gt.camera.world_to_camera(gt.joints_world)
    assert np.linalg.norm(gt.camera.project(points) - expected, axis=-1).mean() < 0.5
    # The same on images of half the size.
    half = gt.camera.resized((1024, 1024))
    assert np.linalg.norm(half.project(points) - expected / 2, axis=-1).mean() < 0.25


def test_interhand_joints_lie_in_the_hand_boxes(test_data, tmp_path):
    stem = "InterHand2.6M_test"
    files = {f"{stem}_{k}.json": f"interhand26m/{stem}_{k}.json" for k in ("data", "camera", "joint_3d")}
    rng = np.random.default_rng(0)
    hands = {side: leaf(rng, "interhand26m-mano") for side in ("right", "left")}
    fits = {"3": {"69148": hands}, "4": {"2017": hands | {"left": None}}}
    gt = load_pseudo_gt(made_release(tmp_path, test_data, files, f"{stem}_MANO_NeuralAnnot.json", fits))
    assert gt.keys == [(3, 69148), (3, 69148), (4, 2017)]
    assert gt.side.tolist() == ["right", "left", "right"]
    boxes = {
        ann["id"]: ann["bbox"]
        for ann in json.loads((tmp_path / f"{stem}_data.json").read_text())["annotations"]
    }
    pixels = gt.camera.project(gt.camera.world_to_camera(gt.joints_world))
    assert gt.joints_world_valid.sum() == 63
    for id_ in np.unique(gt.ids):
        x, y, w, h = boxes[id_]
        seen = pixels[gt.ids == id_][gt.joints_world_valid[gt.ids == id_]]
        assert (seen >= [x, y]).all()
        assert (seen <= [x + w, y + h]).all()
        # The box is the joints' own, with a margin: they fill a good part of it.
        assert (np.ptp(seen, axis=0) > 0.5 * np.array([w, h])).all()
    # The library's own boxes hold every joint; that of the one-handed frame is about as annotated.
    raw = gt.box_xywh
    for row in range(len(gt)):
        seen = pixels[row][gt.joints_world_valid[row]]
        assert (seen >= raw[row, :2]).all()
        assert (seen <= raw[row, :2] + raw[row, 2:]).all()
    x, y, w, h = boxes[int(gt.ids[2])]
    middle = raw[2, :2] + raw[2, 2:] / 2
    assert np.abs(middle - [x + w / 2, y + h / 2]).max() < 0.15 * max(w, h)
