"""Readers of in-the-wild data sets, against their files' raw numbers; and what `read_samples` refuses."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
import numpy as np
import pytest
from layouts import write_release

from neuralannot.boxes import process_boxes
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.train.data import DATA_SETS, read_samples
from neuralannot.train.samples import Samples

COCO = "coco_wholebody_train_v1.0.json"
# COCO-WholeBody's own fields of each part, by the model that is about it.
PARTS = {
    "smpl": [(None, "bbox", ("keypoints",))],
    "smplx": [(None, "bbox", ("keypoints", "foot_kpts"))],
    "flame": [(None, "face_box", ("face_kpts",))],
    "mano": [("right", "righthand_box", ("righthand_kpts",)), ("left", "lefthand_box", ("lefthand_kpts",))],
}


def change(path: Path, edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def raw_rows(path: Path, model: str, folder: str = "") -> list[dict]:
    """The rows of a COCO or COCO-WholeBody file that can be used, an annotation at a time."""
    content = json.loads(path.read_text())
    images = {image["id"]: image for image in content["images"]}
    rows = []
    for ann in content["annotations"]:
        image = images[ann["image_id"]]
        for side, box, fields in PARTS[model]:
            joints = np.concatenate([np.reshape(np.array(ann[f], float), (-1, 3)) for f in fields])
            there = joints[:, 2] > 0
            invalid = side is not None and ann[f"{side}hand_valid"] is False
            if ann["iscrowd"] or invalid or not there.any():
                continue
            if not process_boxes(ann[box], (image["width"], image["height"]))[1]:
                continue
            joints[~there] = np.nan
            rows.append(
                {
                    "id": ann["id"],
                    "side": side,
                    "box": ann[box],
                    "px": joints[:, :2],
                    "path": folder + image["file_name"],
                }
            )
    return rows


def check_rows(samples: Samples, want: list[dict]) -> None:
    assert samples.ids.tolist() == [w["id"] for w in want]
    assert samples.keys.tolist() == [[w["id"]] for w in want]
    assert samples.image_path.tolist() == [w["path"] for w in want]
    np.testing.assert_allclose(samples.box_xywh, [w["box"] for w in want], rtol=1e-6)
    np.testing.assert_allclose(samples.joints_2d, [w["px"] for w in want], rtol=1e-6)
    assert (None if samples.side is None else samples.side.tolist()) == (
        None if want[0]["side"] is None else [w["side"] for w in want]
    )
    assert (samples.joints_cam, samples.camera) == (None, None)
    assert not samples.is_mocap


@pytest.mark.parametrize("model", ["smpl", "smplx", "mano", "flame"])
def test_mscoco(tmp_path, model):
    path = write_release(tmp_path, "mscoco-mano").annotations
    samples = read_samples("MSCOCO", tmp_path, model=model)
    rows = raw_rows(path, model, "train2017/")
    check_rows(samples, rows)
    annotated = json.loads(path.read_text())["annotations"]
    assert len(samples) + len(samples.skipped) == len(annotated) * len(PARTS[model])
    assert samples.release == f"mscoco-{model}"
    joint_set = JOINT_SETS["coco-wholebody-133"].joints
    first = {"smpl": 0, "smplx": 0, "flame": 23, "mano": 112}[model]
    assert samples.joint_set.joints == joint_set[first : first + samples.joints_2d.shape[1]]


def test_mscoco_bodies_of_its_own_file(tmp_path):
    path = write_release(tmp_path, "mscoco-smpl").annotations
    assert path.name == "person_keypoints_train2017.json"
    for model in ("smpl", "smplx"):
        samples = read_samples("mscoco", tmp_path, model=model)
        check_rows(samples, raw_rows(path, "smpl", "train2017/"))
        assert samples.joint_set is JOINT_SETS["coco-17"]
    with pytest.raises(
        ValueError, match=r"person_keypoints_train2017\.json: 17 keypoints an annotation; expected 133"
    ):
        read_samples("mscoco", tmp_path, model="flame")


def test_mscoco_validation_split(tmp_path):
    path = write_release(tmp_path, "mscoco-mano").annotations
    path = path.rename(tmp_path / "coco_wholebody_val_v1.0.json")
    samples = read_samples("mscoco", tmp_path, model="mano", split="val")
    check_rows(samples, raw_rows(path, "mano", "val2017/"))
    assert samples.release == ""  # fits of the training images alone were released
    with pytest.raises(
        FileNotFoundError, match=r"expected coco_wholebody_train_v1\.0\.json or person_keypoints"
    ):
        read_samples("mscoco", tmp_path, model="mano")


def test_mscoco_lists_what_it_leaves_out(tmp_path):
    path = write_release(tmp_path, "mscoco-mano").annotations
    ids = [a["id"] for a in json.loads(path.read_text())["annotations"]]

    def spoil(content):
        one, two, three, four, five = content["annotations"]
        one["iscrowd"] = 1
        two["keypoints"] = [0] * 51
        three["bbox"] = [10, 10, 0.5, 60]
        four["bbox"] = [10, 481, 50, 60]
        five["keypoints"] = [100, 100, 2, *[0] * 48]

    change(path, spoil)
    samples = read_samples("mscoco", tmp_path, model="smpl")
    assert samples.ids.tolist() == ids[4:]
    assert [(s.id, s.reason) for s in samples.skipped] == [
        (ids[0], "crowd"),
        (ids[1], "no joints"),
        (ids[2], "box empty"),
        (ids[3], "box outside"),
    ]
    assert samples.skipped[2].detail == "box [10.0, 10.0, 0.5, 60.0] in an image of 640x480"
    samples = read_samples("mscoco", tmp_path, model="smpl", min_joints=2)
    assert len(samples) == 0
    assert (samples.skipped[4].reason, samples.skipped[4].detail) == ("few joints", "1 of 2")
    assert samples.joints_2d.shape == (0, 17, 2)


def test_coordinates_that_are_not_numbers_are_no_joints(tmp_path):
    path = write_release(tmp_path, "mscoco-smpl").annotations

    def spoil(content):
        content["annotations"][0]["keypoints"] = [float("nan"), 3, 2, float("inf"), 5, 2, 7, 8, 2, *[0] * 42]

    change(path, spoil)
    samples = read_samples("mscoco", tmp_path, model="smpl")
    assert np.flatnonzero(samples.valid[0]).tolist() == [2]


def test_hands_of_one_annotation_come_right_before_left(tmp_path):
    write_release(tmp_path, "mscoco-mano")
    samples = read_samples("mscoco", tmp_path, model="mano")
    pairs = list(zip(samples.ids.tolist(), samples.side.tolist(), strict=True))
    left_out = [(s.id, s.detail, s.reason) for s in samples.skipped]
    assert left_out == [(92, "left hand", "no box")]
    assert [side for id_, side in pairs if id_ == 81] == ["right", "left"]
    assert samples.joint_set.name == "coco-wholebody-hand-21-right"


def give_joints(path: Path, count: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)

    def give(content):
        for ann in content["annotations"]:
            points = np.column_stack([rng.uniform(0, 300, (count, 2)), rng.integers(0, 3, count)])
            ann["keypoints"] = points.ravel().tolist()

    change(path, give)


@pytest.mark.parametrize(
    ("data_set", "release", "model", "count", "groups"),
    [
        ("MPII", "mpii-smpl", "smpl", 16, ()),
        ("MPII", "mpii-smplx", "smplx", 16, ()),
        ("CrowdPose", "crowdpose-smpl", "smpl", 14, ({"split": "train"},)),
    ],
)
def test_mpii_and_crowdpose(tmp_path, data_set, release, model, count, groups):
    path = write_release(tmp_path, release).annotations
    give_joints(path, count)
    samples = read_samples(data_set, tmp_path, model=model)
    check_rows(samples, raw_rows(path, "smpl"))
    assert (samples.release, samples.groups, len(samples.joint_set)) == (release, groups, count)
    give_joints(path, 17)
    with pytest.raises(ValueError, match=f"17 keypoints an annotation; expected {count}"):
        read_samples(data_set, tmp_path, model=model)


def test_mpii_without_keypoints(tmp_path):
    write_release(tmp_path, "mpii-smpl")
    with pytest.raises(ValueError, match=r"train\.json: no annotation has 'keypoints'; expected 16 of x, y"):
        read_samples("mpii", tmp_path, model="smpl")


def test_crowdpose_is_named_as_its_authors_do():
    joint_set = JOINT_SETS["crowdpose-14"]
    limbs = [
        f"{side}_{name}"
        for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    ]
    assert joint_set.joints == (*limbs, "head_top", "neck_crowdpose")
    assert joint_set.flip_pairs == tuple((i, i + 1) for i in range(0, 12, 2))


def write_ffhq(path: Path, count: int, style: str, seed: int = 3) -> np.ndarray:
    """Faces in the ways that FFHQ.json is seen; (A, 68, 2) px, NaN where not valid."""
    rng = np.random.default_rng(seed)
    shown = []

    def give(content):
        for ann in content["annotations"]:
            points, seen = rng.uniform(0, 300, (count, 2)), rng.random(count) > 0.3
            if style == "triples":
                ann["keypoints"] = np.column_stack([points, seen]).ravel().tolist()
                ann.pop("keypoints_valid", None)
            else:
                ann["keypoints"] = points.ravel().tolist()
                ann["keypoints_valid"] = [[float(s)] for s in seen]
            named = np.where(seen[:, None], points, np.nan)
            # FLAME's order: 5 of the skeleton, 51 landmarks, the contour.
            shown.append(named if count == 68 else np.concatenate([named[56:], named[5:56]]))

    change(path, give)
    return np.array(shown)


@pytest.mark.parametrize(("count", "style"), [(68, "triples"), (68, "pairs"), (73, "triples"), (73, "pairs")])
def test_ffhq(tmp_path, count, style):
    path = write_release(tmp_path, "ffhq-flame").annotations
    shown = write_ffhq(path, count, style)
    samples = read_samples("FFHQ", tmp_path, model="flame")
    assert len(samples) == len(shown)
    np.testing.assert_allclose(samples.joints_2d, shown, rtol=1e-6)
    assert samples.joint_set is JOINT_SETS["coco-wholebody-face-68"]
    assert samples.release == "ffhq-flame"


def test_ffhq_flags_that_do_not_fit(tmp_path):
    path = write_release(tmp_path, "ffhq-flame").annotations
    write_ffhq(path, 68, "pairs")
    change(path, lambda c: c["annotations"][2]["keypoints_valid"].pop())
    with pytest.raises(ValueError, match="136 numbers in 'keypoints' for 67 in 'keypoints_valid'"):
        read_samples("ffhq", tmp_path, model="flame")


def give_insta_joints(path: Path, points: np.ndarray, field: str = "joints2D") -> None:
    joblib.dump({**joblib.load(path), field: points}, path)


def test_instavariety(tmp_path):
    path = write_release(tmp_path, "instavariety-smpl").annotations
    database = joblib.load(path)
    points = np.random.default_rng(0).uniform(0, 400, (len(database["ann_id"]), 25, 3))
    points[..., 2] = points[..., 2] > 150
    give_insta_joints(path, points)
    samples = read_samples("InstaVariety", tmp_path, model="smpl")
    assert samples.ids.tolist() == database["ann_id"].tolist()
    expected = np.where(points[..., 2:] > 0, points[..., :2], np.nan)
    np.testing.assert_allclose(samples.joints_2d, expected, rtol=1e-6)
    np.testing.assert_allclose(samples.box_xywh, database["bbox"], rtol=1e-6)
    assert samples.image_size.tolist() == [[640, 480]] * len(samples)
    assert samples.release == "instavariety-smpl"
    assert samples.joint_set.joints[:3] == ("right_heel", "right_knee", "right_hip")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.full((8, 17, 3), 50.0), r"'joints2D' must be \(8, 25, 3\)"),
        (np.full((8, 25, 3), 0.4), "normalised to -1..1, not in pixels"),
    ],
)
def test_instavariety_joints_of_another_kind(tmp_path, points, message):
    path = write_release(tmp_path, "instavariety-smpl").annotations
    give_insta_joints(path, points)
    with pytest.raises(ValueError, match=message):
        read_samples("instavariety", tmp_path, model="smpl")


def test_instavariety_without_joints(tmp_path):
    write_release(tmp_path, "instavariety-smpl")
    with pytest.raises(ValueError, match=r"no 2D joints: none of joints2D, .* among ann_id, file_name"):
        read_samples("instavariety", tmp_path, model="smpl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data_set": "MSCOKO"}, "unknown data set 'MSCOKO'; did you mean 'MSCOCO'"),
        ({"model": "flames"}, "MSCOCO can be read for smpl, smplx, mano, flame, got model='flames'"),
        ({"data_set": "FFHQ"}, "FFHQ can be read for flame"),
        (
            {"data_set": "FFHQ", "model": "flame", "split": "val"},
            "FFHQ has no split; its options are annotations",
        ),
        ({"views": 3}, "MSCOCO has no views"),
        ({"every": 5}, "MSCOCO has no every"),
        ({"joint_set": "coco-17"}, "MSCOCO has no joint_set"),
        ({"every": 0}, "every must be a whole number from 1, got 0"),
        ({"min_joints": 1.5}, "min_joints must be a whole number"),
        ({"data_set": "Human3.6M", "subjects": []}, "subjects must be one number or several"),
    ],
)
def test_requests_that_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        read_samples(**({"data_set": "MSCOCO", "folder": tmp_path, "model": "smpl"} | arguments))


def test_a_data_set_without_splits_is_its_training_set(tmp_path):
    write_ffhq(write_release(tmp_path, "ffhq-flame").annotations, 68, "pairs")
    assert len(read_samples("ffhq", tmp_path, model="flame", split="train")) == 8


@pytest.mark.parametrize("data_set", DATA_SETS)
def test_a_folder_without_the_files(tmp_path, data_set):
    with pytest.raises(FileNotFoundError, match=data_set):
        read_samples(data_set, tmp_path, model=DATA_SETS[data_set][0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a COCO-format annotation file"),
        ('{"images": [', "not a COCO-format annotation file"),
        ("[]", "no 'annotations' and 'images'"),
        ('{"images": [], "annotations": [3]}', "'annotations' must hold objects, got 3"),
        ('{"images": [], "annotations": [{"id": 1, "image_id": 2}]}', "annotation 1: no image 2"),
        (
            '{"images": [{"id": 2}], "annotations": [{"id": 1}]}',
            "not a COCO-format annotation file: .*image_id",
        ),
        (
            '{"images": [{"id": 2, "file_name": "a"}], '
            '"annotations": [{"id": 1, "image_id": 2, "bbox": [1]}]}',
            "annotation 1: 'bbox' must hold 4 numbers, got 1",
        ),
    ],
)
def test_files_that_are_not_annotations(tmp_path, text, message):
    path = tmp_path / "train.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_samples("mpii", tmp_path, model="smpl")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("folder", [".", "annotations", "json"])
def test_where_files_are_looked_for(tmp_path, folder):
    path = write_release(tmp_path / "made", "mscoco-smpl").annotations
    (tmp_path / "coco" / folder).mkdir(parents=True, exist_ok=True)
    path.rename(tmp_path / "coco" / folder / path.name)
    samples = read_samples("mscoco", tmp_path / "coco", model="smpl")
    assert samples.images == tmp_path / "coco"
    (tmp_path / "coco" / "images").mkdir()
    assert read_samples("mscoco", tmp_path / "coco", model="smpl").images == tmp_path / "coco" / "images"
    image = tmp_path / "coco" / str(samples.image_path[0])
    image.parent.mkdir()
    image.touch()
    assert read_samples("mscoco", tmp_path / "coco", model="smpl").images == tmp_path / "coco"
    given = read_samples("mscoco", tmp_path / "coco", model="smpl", images=tmp_path)
    assert given.images == tmp_path


def test_changed_files_are_read_again(tmp_path):
    path = write_release(tmp_path, "mscoco-smpl").annotations
    before = read_samples("mscoco", tmp_path, model="smpl")
    change(path, lambda c: c["annotations"].pop())
    after = read_samples("mscoco", tmp_path, model="smpl")
    assert len(after) + len(after.skipped) == len(before) + len(before.skipped) - 1
    assert len(read_samples("mscoco", tmp_path, model="smpl", cache=False)) == len(after)


def test_real_whole_bodies(test_data):
    path = test_data / "coco" / "coco_wholebody.json"
    for model in PARTS:
        samples = read_samples("COCO-format", path, model=model, cache=False)
        check_rows(samples, raw_rows(path, model))
