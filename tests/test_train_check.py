"""`check_samples`: images of no use, what is counted, the sheet of crops; and studio data read back."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from neuralannot.demo import SAMPLE
from neuralannot.images import read_image, write_image
from neuralannot.train.check import check_samples
from neuralannot.train.data import DATA_SETS, read_samples
from neuralannot.train.samples import Samples

NAMES = ["left_shoulder", "right_shoulder", "left_hip", "right_hip"]
SIZES = [(120, 90), (90, 120), (64, 64), (200, 100), (100, 100), (80, 80)]


def write_people(folder: Path, **more) -> Samples:
    """An image a size with two people each, corners of a box the joints."""
    rng = np.random.default_rng(0)
    images, anns = [], []
    for number, (w, h) in enumerate(SIZES):
        suffix = ("jpg", "png")[number % 2]
        write_image(folder / f"{number}.{suffix}", rng.integers(0, 255, (h, w, 3), dtype=np.uint8))
        images.append({"id": number, "file_name": f"{number}.{suffix}", "width": w, "height": h})
        for person in range(2):
            x, y = 10 + 5 * person, 12
            points = [x + 30, y, 2, x, y, 2, x + 30, y + 40, 2, x, y + 40, 2 if person else 0]
            box = [x, y, 30, 40]
            ids = {"id": 2 * number + person, "image_id": number, "category_id": 1}
            anns.append({**ids, "bbox": box, "keypoints": points, **more})
    categories = [{"id": 1, "name": "person", "keypoints": NAMES}]
    content = {"images": images, "annotations": anns, "categories": categories}
    (folder / "people.json").write_text(json.dumps(content))
    return read_samples("coco-format", folder, model="smpl")


def test_all_is_well(tmp_path):
    samples = write_people(tmp_path)
    report = check_samples(samples, tmp_path / "sheet" / "all.png")
    assert (report.count, report.image_count, report.usable.all()) == (12, 6, True)
    assert (report.troubles, report.rows_by_reason, report.skipped) == ((), {}, ())
    assert report.joint_rate.tolist() == [1, 1, 1, 0.5]
    assert (report.outside_image, report.outside_crop) == (0, 0)
    assert report.shown.tolist() == list(range(12))
    sheet = read_image(report.sheet)
    assert sheet.shape == (2 * 228 + 4, 8 * 228 + 4, 3)
    lines = str(report).splitlines()
    assert lines[0] == "COCO-format: 12 samples, 12 usable"
    assert f"  images in {tmp_path}: 6, 0 of no use" in lines
    assert any("least often right_hip 50%" in line for line in lines)


def test_images_that_are_of_no_use(tmp_path):
    """Missing, a folder, no picture, cut short (JPEG and PNG), another size: each found, each listed."""
    samples = write_people(tmp_path)
    (tmp_path / "0.jpg").unlink()
    (tmp_path / "1.png").write_bytes(b"not a picture")
    whole = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    whole = (tmp_path / "3.png").read_bytes()
    (tmp_path / "3.png").write_bytes(whole[: len(whole) * 2 // 3])
    write_image(tmp_path / "4.jpg", np.zeros((100, 101, 3), np.uint8))
    report = check_samples(samples, tmp_path / "sheet.jpg", workers=3)
    assert [(t.path, t.reason) for t in report.troubles] == [
        ("0.jpg", "missing"),
        ("1.png", "unreadable"),
        ("2.jpg", "unreadable"),
        ("3.png", "unreadable"),
        ("4.jpg", "another size"),
    ]
    assert report.troubles[2].detail == "the file is cut short"
    assert report.troubles[4].detail == "101x100 px, annotated as 100x100"
    assert report.rows_by_reason == {"missing": 2, "unreadable": 6, "another size": 2}
    assert samples.image_path[report.usable].tolist() == ["5.png", "5.png"]
    assert report.shown.tolist() == [10, 11]
    text = str(report)
    for part in (
        "12 samples, 2 usable",
        "5 of no use",
        "image missing",
        "1 image, first 0.jpg",
        "3 images, first 1.png",
    ):
        assert part in text


@pytest.mark.parametrize("progressive", [0, 1])
def test_whole_jpegs_are_not_called_cut_short(tmp_path, progressive):
    """With what cameras add: a preview with an end of its own, and bytes after the end."""
    samples = write_people(tmp_path)
    image = read_image(tmp_path / "2.jpg")
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
    data = cv2.imencode(".jpg", image, options)[1].tobytes()
    preview = cv2.imencode(".jpg", image[:8, :8])[1].tobytes()
    comment = b"\xff\xe1" + (len(preview) + 2).to_bytes(2, "big") + preview
    with_preview = data[:2] + comment + data[2:]
    cut = {}
    for name, content in {
        "whole": with_preview,
        "trailing": with_preview + b"MPF" + bytes(2000),
        "cut": with_preview[:-40],
    }.items():
        (tmp_path / "2.jpg").write_bytes(content)
        cut[name] = [t.reason for t in check_samples(samples, tmp_path / "sheet.jpg").troubles]
    assert cut == {"whole": [], "trailing": [], "cut": ["unreadable"]}


def test_joints_are_drawn_where_they_are(tmp_path):
    """On black images, what is drawn of a left joint lies where the crop puts it, and is blue."""
    samples = write_people(tmp_path)
    for name, (w, h) in zip(np.unique(samples.image_path), SIZES, strict=True):
        write_image(tmp_path / str(name), np.zeros((h, w, 3), np.uint8))
    sheet = read_image(check_samples(samples, tmp_path / "sheet.png", count=100).sheet).astype(int)
    for row in range(len(samples)):
        top, left = 4 + row // 8 * 228, 4 + row % 8 * 228
        tile = sheet[top : top + 224, left : left + 224]
        # The box is 31 px less one wide and 40 less one high: the square about its middle is 39 * 1.25 px.
        box = samples.box_xywh[row]
        centre = box[:2] + (box[2:] - 1) / 2
        points = (samples.joints_2d[row] - centre) * 224 / (39 * 1.25) + 112
        for joint, (x, y) in enumerate(points):
            if np.isnan(x):
                continue
            patch = tile[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4]
            blue, red = (patch[..., 2] - patch[..., 0]).max(), (patch[..., 0] - patch[..., 2]).max()
            assert (blue if NAMES[joint].startswith("left") else red) > 100
        assert (tile[:, :, 2] - tile[:, :, 0]).max() > 100


def test_left_hands_are_shown_as_right_ones(tmp_path):
    """Mirroring the image and calling the hand right gives the same crop."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 255, (101, 101, 3), dtype=np.uint8)
    sheets = {}
    for side in ("left", "right"):
        folder = tmp_path / side
        write_image(folder / "a.png", image if side == "left" else image[:, ::-1])
        points, x = np.array([[20.0, 30], [40, 35], [50, 60]]), 15
        if side == "right":
            points[:, 0], x = 100 - points[:, 0], 100 - 15 - 45
        keypoints = np.column_stack([points, [2, 2, 2]]).ravel().tolist()
        # Boxes lose a pixel on the right when they are clipped: the mirrored one starts a pixel farther.
        ann = {"id": 1, "image_id": 1, "bbox": [x + (side == "right"), 20, 45, 50], "keypoints": keypoints}
        images = [{"id": 1, "file_name": "a.png", "width": 101, "height": 101}]
        names = [f"{side}_{n}" for n in ("wrist", "index1", "index")]
        categories = [{"id": 1, "name": "hand", "keypoints": names}]
        content = {"images": images, "annotations": [ann], "categories": categories}
        (folder / "hands.json").write_text(json.dumps(content))
        samples = read_samples("coco-format", folder, model="mano")
        sheet = read_image(check_samples(samples, folder / "sheet.png").sheet)
        sheets[side] = sheet[:210].astype(int)  # the label says which side it was
    assert np.abs(sheets["left"] - sheets["right"]).mean() < 2


def test_shares_outside(tmp_path):
    samples = write_people(tmp_path)
    samples.joints_2d[0, 0] = [-5, 20]
    samples.joints_2d[1, 1] = [119, 89]  # the last pixel
    report = check_samples(samples, tmp_path / "sheet.jpg", count=1)
    there = samples.valid.sum()
    assert report.outside_image == pytest.approx(1 / there)
    assert report.outside_crop == pytest.approx(2 / there)


def test_the_seed_decides_what_is_shown(tmp_path):
    samples = write_people(tmp_path)
    shown = [check_samples(samples, tmp_path / "s.jpg", count=4, seed=s).shown.tolist() for s in (1, 1, 2)]
    assert shown[0] == shown[1] != shown[2]
    assert len(set(shown[0])) == 4


def test_nothing_to_show(tmp_path):
    samples = write_people(tmp_path)
    none = check_samples(samples.rows([]), tmp_path / "none.jpg")
    assert (none.sheet, none.count, len(none.usable)) == (None, 0, 0)
    assert "no contact sheet: nothing to show" in str(none)
    assert not (tmp_path / "none.jpg").exists()
    mocap = read_samples("human36m", SAMPLE / "human36m", model="smpl", cache=False)
    report = check_samples(mocap, tmp_path / "none.jpg")  # the sample has no images
    assert (report.usable.any(), report.rows_by_reason) == (False, {"missing": 96})
    assert "3D, calibrated cameras" in str(report)
    assert check_samples(samples, tmp_path / "none.jpg", count=0).sheet is None


def test_what_the_reader_left_out_is_counted(tmp_path):
    samples = write_people(tmp_path, iscrowd=1)
    text = str(check_samples(samples, tmp_path / "none.jpg"))
    assert "12 samples, 0 usable" in text
    assert "      12  crowd                first annotation 0" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": -1}, "count must not be negative"),
        ({"workers": 0}, "workers must be a positive number"),
        ({"out": "sheet.gif"}, "a contact sheet is written as .jpg or .png, got '.gif'"),
    ],
)
def test_options_that_are_refused_before_images_are_read(tmp_path, options, message):
    samples = write_people(tmp_path)
    with pytest.raises(ValueError, match=message):
        check_samples(samples, **({"out": tmp_path / "sheet.jpg"} | options))


def test_a_sheet_that_cannot_be_written(tmp_path):
    samples = write_people(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        check_samples(samples, tmp_path / "file" / "sheet.jpg")


STUDIO = {"human36m": 8, "mscoco": 4, "interhand26m": 8, "ffhq": 2}


@pytest.mark.filterwarnings("ignore:no official body models")
@pytest.mark.parametrize("layout", STUDIO)
def test_studio_data_is_read_whole(tmp_path_factory, layout):
    """Every image is usable, every joint in its crop: boxes, joints, cameras and images belong together."""
    from neuralannot.synthetic import make_studio

    folder = tmp_path_factory.mktemp(layout)
    make_studio(folder, layout=layout, count=STUDIO[layout], workers=1)
    models = next(models for name, models in DATA_SETS.items() if layout in name.lower().replace(".", ""))
    for model in models:
        samples = read_samples(layout, folder, model=model)
        report = check_samples(samples, folder / f"{model}.jpg", workers=2)
        assert report.usable.all()
        assert report.troubles == ()
        assert len(samples) or model in ("mano", "flame")
        assert report.outside_image < 0.3
        assert report.outside_crop < 0.1
