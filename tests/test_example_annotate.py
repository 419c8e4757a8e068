"""The example that annotates the user's own data: run as a user runs it, its file and picture measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from processes import Process

from neuralannot import load_pseudo_gt
from neuralannot.images import read_image
from neuralannot.synthetic import make_studio
from neuralannot.train.data import read_samples

SCRIPT = Path(__file__).parents[1] / "examples" / "annotate_your_own.py"

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


def run(*arguments: object, cwd: Path) -> str:
    done = Process(SCRIPT, *arguments, cwd=cwd).ended()
    assert done.returncode == 0, done.stderr
    return done.stdout


def covered(overlay: Path, image: Path, vertices: np.ndarray) -> tuple[float, float]:
    """Of (V, 2) px the share on drawn pixels; and how far, px, drawn ones are from any vertex at most."""
    drawn, plain = read_image(overlay), read_image(image)
    changed = (drawn != plain).any(axis=-1)
    height, width = changed.shape
    inside = np.isfinite(vertices).all(axis=1) & ((vertices >= 0) & (vertices < (width - 1, height - 1))).all(
        1
    )
    x, y = np.rint(vertices[inside]).astype(int).T
    pixels = np.argwhere(changed)[:, ::-1]
    few = pixels[:: max(1, len(pixels) // 300)]
    nearest = np.linalg.norm(few[:, None] - vertices[inside][None], axis=-1).min(axis=1)
    return float(changed[y, x].mean()), float(nearest.max())


def test_a_studio_of_its_own(tmp_path):
    """Motion capture in the user's own layout: the fits are where the joints are, in every camera."""
    said = run("--steps", 2, cwd=tmp_path)
    out = tmp_path / "annotated"
    assert "16 samples, 16 usable" in said
    assert "2 steps, 4 fits" in said
    assert (out / "check.jpg").stat().st_size > 10_000
    folder = out / "studio" / "annotations"
    gt = load_pseudo_gt(
        sorted((out / "annotations").glob("Human36M_subject*_SMPL_NeuralAnnot.json")),
        annotations=sorted(folder.glob("*_data.json")),
        cameras=sorted(folder.glob("*_camera.json")),
    )
    samples = read_samples("MoCap-format", out / "studio", model="smpl")
    assert gt.ids.tolist() == samples.ids.tolist()
    bodies = gt.forward(regressor="human36m-17")
    # However little was learnt: where a body is follows from its joints, in every camera of its frame.
    where, wanted = bodies.joints.numpy().mean(axis=1), samples.joints_cam.mean(axis=1)
    np.testing.assert_allclose(where, wanted, atol=2e-3)
    # And the picture shows the fit that it names.
    shown = next(line for line in said.splitlines() if "overlay.png: " in line).rpartition(" on ")[2]
    (row,) = np.flatnonzero(samples.image_path == shown)
    pixels = bodies.project("vertices").numpy()[row]
    share, farthest = covered(out / "overlay.png", out / "studio" / "images" / shown, pixels)
    assert share > 0.97
    assert farthest < 6


def test_keypoints_of_ones_own(tmp_path):
    """A COCO-format file: fits by annotation id, each with a camera of its own on the whole image."""
    studio = make_studio(tmp_path / "studio", layout="ffhq", count=4, image_size=128, workers=1)
    samples = read_samples("ffhq", studio.out, model="flame")
    names = list(samples.joint_set.joints)
    content = json.loads(studio.annotations[0].read_text())
    content["categories"] = [{"id": 1, "name": "face", "keypoints": names}]
    for annotation, points in zip(content["annotations"], samples.joints_2d, strict=True):
        annotation.pop("keypoints_valid", None)
        there = np.isfinite(points).all(axis=1, keepdims=True)
        annotation["keypoints"] = np.hstack([np.where(there, points, 0), 2.0 * there]).ravel().tolist()
        annotation["id"] += 70
    (tmp_path / "faces.json").write_text(json.dumps(content))
    said = run(
        *("faces.json", "--images", studio.images, "--model", "flame", "--steps", 2, "--out", "out"),
        cwd=tmp_path,
    )
    assert "4 samples, 4 usable" in said
    (file,) = (tmp_path / "out" / "annotations").glob("*_NeuralAnnot.json")
    gt = load_pseudo_gt(file, release="ffhq-flame", annotations=False)
    assert sorted(gt.ids.tolist()) == [71, 72, 73, 74]
    # The camera is the crop's on the whole image: the face, about the crop's centre, is in the face's box.
    centre = gt.forward(want="joints").project().numpy()[:, 5:].mean(axis=1)
    order = np.argsort(gt.ids)
    boxes = samples.box_xywh[np.argsort(samples.ids)]
    off = (centre[order] - boxes[:, :2]) / boxes[:, 2:]
    assert ((off > 0.1) & (off < 0.9)).all()
    shown = said.splitlines()[-1].rpartition(" on ")[2]
    row = gt.rows_of([int(samples.ids[samples.image_path == shown][0]) + 70])
    pixels = gt.rows(row).forward().project("vertices").numpy()[0]
    share, farthest = covered(tmp_path / "out" / "overlay.png", studio.images / shown, pixels)
    assert share > 0.97
    assert farthest < 6
