"""What annotations give a `PseudoGT`: images, boxes, keypoints, GT joints; and files that are not right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from layouts import FILE_NAMES, MOCAP, Row, dump, joints_of, write_release
from row_checks import check_rows
from training_runs import studio

from neuralannot import RELEASES, load_pseudo_gt


@pytest.fixture(scope="session")
def load(released):
    return lambda name, **options: load_pseudo_gt(released(name).path, **options)


def _image_path(name: str, row: Row) -> str:
    image = row.image
    return {
        "MSCOCO": f"train2017/{image['file_name']}",
        "3DPW": f"{image.get('sequence')}/{image['file_name']}",
        "MPI-INF-3DHP": f"S{image.get('subject_idx')}/Seq{image.get('seq_idx')}/imageSequence/"
        f"{image['file_name']}",
        "InterHand2.6M": f"test/Capture{image.get('capture')}/{image.get('seq_name')}/"
        f"cam{image.get('camera')}/{image['file_name']}",
    }.get(RELEASES[name].data_set, image["file_name"])


@pytest.mark.parametrize("name", FILE_NAMES)
def test_images(name, released):
    written = released(name)
    gt = load_pseudo_gt(written.path)
    assert gt.image_path.tolist() == [_image_path(name, row) for row in written.rows]
    assert gt.image_path.dtype.kind == "U"
    sizes = [[row.image["width"], row.image["height"]] for row in written.rows]
    np.testing.assert_array_equal(gt.image_size, sizes)
    np.testing.assert_array_equal(gt.camera.image_size, sizes)
    gt.rows([0]).camera.check_image(*sizes[0])
    with pytest.raises(ValueError, match=r"the image is 7x7 px, its camera belongs to"):
        gt.camera.check_image(7, 7)


def _box(name: str, row: Row) -> list[float]:
    ann = row.annotation
    if name == "mscoco-mano":
        part = f"{row.side}hand"
        return ann[f"{part}_box"] if ann[f"{part}_valid"] else [np.nan] * 4
    return ann["face_box"] if name == "mscoco-flame" else ann["bbox"]


@pytest.mark.parametrize("name", [name for name in FILE_NAMES if name != "interhand26m-mano"])
def test_boxes(name, released):
    written = released(name)
    gt = load_pseudo_gt(written.path)
    expected = np.array([_box(name, row) for row in written.rows], np.float32)
    np.testing.assert_array_equal(gt.box_xywh, expected)
    assert gt.box_xywh.dtype == np.float32
    assert np.isnan(gt.box_xywh).any() == (name == "mscoco-mano")


@pytest.mark.parametrize("name", MOCAP)
def test_joints_in_the_world(name, released):
    written = released(name)
    gt = load_pseudo_gt(written.path)
    expected = np.stack([joints_of(written, row) for row in written.rows])
    np.testing.assert_allclose(gt.joints_world, expected, atol=1e-6)
    np.testing.assert_array_equal(gt.joints_world_valid, np.isfinite(expected).all(axis=-1))
    assert gt.joint_set_world is not None
    some = gt.rows([3, 1])
    np.testing.assert_allclose(some.joints_world, expected[[3, 1]], atol=1e-6)
    bare = load_pseudo_gt(written.path, annotations=False)
    first = (
        bare[written.rows[0].key] if gt.side is None else bare[(*written.rows[0].key, written.rows[0].side)]
    )
    np.testing.assert_allclose(first.joints_world, expected[:1], atol=1e-6)


def test_interhand_boxes_by_a_slow_twin(released):
    written = released("interhand26m-mano")
    gt = load_pseudo_gt(written.path)
    for found, row in zip(gt.box_xywh, written.rows, strict=True):
        view = row.camera
        seen = []
        for point in joints_of(written, row):
            if np.isfinite(point).all():
                x, y, z = np.array(view.R) @ point + np.array(view.t) / 1000
                if z > 0:
                    seen.append(
                        [x / z * view.focal[0] + view.princpt[0], y / z * view.focal[1] + view.princpt[1]]
                    )
        low, high = np.min(seen, axis=0), np.max(seen, axis=0)
        middle, extent = (low + high) / 2, 1.5 * (high - low)
        np.testing.assert_allclose(found, [*(middle - extent / 2), *extent], atol=0.01)


def test_joint_validity_of_the_annotation_counts_too(tmp_path):
    written = write_release(tmp_path, "interhand26m-mano")
    content = json.loads(written.annotations.read_text())
    for ann in content["annotations"]:
        ann["joint_valid"] = [[0]] * 30 + [[1]] * 12
    dump(written.annotations, content)
    gt = load_pseudo_gt(written.path)
    assert not gt.joints_world_valid[gt.side == "right"].any()
    assert not gt.joints_world_valid[gt.side == "left"][:, :9].any()
    assert gt.joints_world_valid[gt.side == "left"][:, 9:].any()
    assert np.isnan(gt.rows(gt.side == "right").box_xywh).all()  # no joint, no box


def test_joint_files_with_numbers_for_flags(tmp_path):
    written = write_release(tmp_path, "interhand26m-mano")
    expected = load_pseudo_gt(written.path).joints_world
    content = json.loads(written.joints.read_text())
    for frames in content.values():
        for entry in frames.values():
            entry["joint_valid"] = [int(flag[0]) for flag in entry["joint_valid"]]
    dump(written.joints, content)
    np.testing.assert_array_equal(load_pseudo_gt(written.path).joints_world, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda e: e["2"]["1"].update({"0": [[1, 2, 3]] * 16}),
            r"joint_3d.json: frame 2/1/0: expected 17 joint",
        ),
        (
            lambda e: e["2"]["1"].update({"0": [["a"] * 3] * 17}),
            r"frame 2/1/0: expected 17 joints of 3 number",
        ),
        (lambda e: e["2"]["1"].update({"0": None}), r"frame 2/1/0: expected 17 joints of 3 numbers"),
        (lambda e: e["2"]["1"].update({"x": [[1, 2, 3]] * 17}), r"key '2/1/x' is not a frame's numbers"),
    ],
)
def test_bad_joint_files(change, message, tmp_path):
    written = write_release(tmp_path, "human36m-smpl")
    content = json.loads(written.joints.read_text())
    change(content)
    dump(written.joints, content)
    with pytest.raises(ValueError, match=message):
        _ = load_pseudo_gt(written.path).joints_world


def test_frames_without_joints_are_nan(tmp_path):
    written = write_release(tmp_path, "human36m-smpl")
    content = json.loads(written.joints.read_text())
    del content["2"]["1"]["0"]
    dump(written.joints, content)
    gt = load_pseudo_gt(written.path)
    absent = np.array([key == (1, 2, 1, 0) for key in gt.keys])
    np.testing.assert_array_equal(gt.joints_world_valid, np.tile(~absent[:, None], 17))


def test_releases_without_joints_say_so(load):
    with pytest.raises(ValueError, match=r"mpii-smpl: MPII has no 3D joint file"):
        _ = load("mpii-smpl").joints_world
    assert load("mpii-smpl").joint_set_world is None


@pytest.mark.parametrize(
    ("name", "fields", "joint_set"),
    [
        ("mscoco-smpl", ["keypoints"], "coco-17"),
        ("3dpw-smplx", ["keypoints"], "coco-17"),
        (
            "mscoco-smplx",
            ["keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts"],
            "coco-wholebody-133",
        ),
        ("mscoco-flame", ["face_kpts"], "coco-wholebody-face-68"),
        ("mscoco-mano", ["{side}hand_kpts"], "coco-wholebody-hand-21-right"),
    ],
)
def test_joints_in_the_image(name, fields, joint_set, released):
    written = released(name)
    gt = load_pseudo_gt(written.path)
    for number, row in enumerate(written.rows):
        values = [v for field in fields for v in row.annotation[field.format(side=row.side)]]
        expected = np.array(values, np.float32).reshape(-1, 3)
        np.testing.assert_array_equal(gt.joints_2d[number], expected[:, :2])
        np.testing.assert_array_equal(gt.joints_2d_valid[number], expected[:, 2] > 0)
    assert gt.joint_set_2d == joint_set


def _give_faces(path: Path, style: str, count: int = 73) -> tuple[np.ndarray, np.ndarray]:
    """FFHQ's keypoints as pairs or triples, flags beside them; the (A, K, 2) points and (A, K) flags."""
    rng = np.random.default_rng(2)
    content = json.loads(path.read_text())
    points = rng.uniform(0, 300, (len(content["annotations"]), count, 2)).astype(np.float32)
    seen = rng.random(points.shape[:2]) > 0.4
    for ann, some, flags in zip(content["annotations"], points, seen, strict=True):
        third = {"pairs": np.zeros((count, 0)), "triples": flags[:, None], "both": np.ones((count, 1))}
        ann["keypoints"] = np.column_stack([some, third[style]]).ravel().tolist()
        ann.pop("keypoints_valid", None)
        if style != "triples":
            ann["keypoints_valid"] = [[float(f)] for f in flags] if style == "both" else flags.tolist()
    dump(path, content)
    return points, seen


@pytest.mark.parametrize("style", ["pairs", "triples", "both"])
@pytest.mark.parametrize("count", [68, 72, 73])  # 72 pairs are as many numbers as 48 triples
def test_keypoints_with_flags_beside_them(count, style, tmp_path):
    written = write_release(tmp_path, "ffhq-flame")
    points, seen = _give_faces(written.annotations, style, count)
    for _ in range(2):  # from the file, and from its columns
        gt = load_pseudo_gt(written.path)
        content = json.loads(written.annotations.read_text())
        at = {ann["id"]: row for row, ann in enumerate(content["annotations"])}
        rows = [at[i] for i in gt.ids.tolist()]
        order = np.r_[56:73, 5:56] if count == 73 else np.arange(count)  # FLAME's joints as the face's 68
        np.testing.assert_array_equal(gt.joints_2d, points[rows][:, order])
        np.testing.assert_array_equal(gt.joints_2d_valid, seen[rows][:, order])
    in_memory = load_pseudo_gt(written.path, annotations=content, cache=False)
    np.testing.assert_array_equal(in_memory.joints_2d_valid, gt.joints_2d_valid)
    assert gt.joint_set_2d == ("coco-wholebody-face-68" if count != 72 else None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a: a["keypoints_valid"].pop(),
            "146 numbers in 'keypoints' for 72 in 'keypoints_valid'; expected tw",
        ),
        (lambda a: a["keypoints"].append(3.0), "147 numbers in 'keypoints' for 73"),
        (lambda a: a.update(keypoints_valid=["x"] * 73), "could not convert string to float"),
        (lambda a: a.pop("keypoints_valid"), "cannot reshape array of size 146"),
        (lambda a: a.update(keypoints=[], keypoints_valid=[]), "0 keypoints; those before it have 73"),
    ],
)
def test_flags_that_do_not_fit(change, message, tmp_path):
    written = write_release(tmp_path, "ffhq-flame")
    _give_faces(written.annotations, "pairs")
    content = json.loads(written.annotations.read_text())
    change(content["annotations"][1])
    dump(written.annotations, content)
    said = f"FFHQ.json: annotation {content['annotations'][1]['id']}: (keypoints: )?{message}"
    with pytest.raises(ValueError, match=said):
        load_pseudo_gt(written.path)


def test_annotations_need_no_category(tmp_path):
    written = write_release(tmp_path, "ffhq-flame")
    content = json.loads(written.annotations.read_text())
    content["categories"] = [{"id": 1, "name": "face"}]
    for ann in content["annotations"]:
        ann.pop("category_id", None)
    dump(written.annotations, content)
    check_rows(load_pseudo_gt(written.path), written.rows)


def test_annotations_without_what_is_asked(tmp_path, load):
    written = write_release(tmp_path, "mscoco-mano")
    content = json.loads(written.annotations.read_text())
    for ann in content["annotations"]:
        for name in [k for k in ann if k.endswith(("_box", "_kpts", "keypoints"))]:
            del ann[name]
    dump(written.annotations, content)
    gt = load_pseudo_gt(written.path)
    with pytest.raises(
        ValueError, match=r"the annotation file has no 'righthand_box' and 'lefthand_box'; use co"
    ):
        _ = gt.box_xywh
    assert gt.joints_2d is None
    assert gt.joints_2d_valid is None
    assert gt.joint_set_2d is None
    with pytest.raises(
        ValueError, match=r"mscoco-smpl: no image sizes without annotations; load with annotatio"
    ):
        _ = load("mscoco-smpl", annotations=False).image_size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), r"not a COCO-format annotation file"),
        (lambda c: c["annotations"][0].update(image_id=-5), r"annotation \d+: no image -5 in the file"),
        (
            lambda c: c["annotations"][0].update(bbox=[1, 2]),
            r"annotation \d+: 'bbox' must hold 4 numbers, got 2",
        ),
        (
            lambda c: c["annotations"][1].update(id=c["annotations"][0]["id"]),
            r"annotation \d+: in the file 2 times; expected once",
        ),
        (lambda c: c["annotations"][1].update(keypoints=[1, 2]), r"annotation \d+: keypoints: "),
        (
            lambda c: c["annotations"][1].update(keypoints=[1, 2, 0]),
            r"annotation \d+: 1 keypoints; those before",
        ),
        (lambda c: c["images"][0].pop("file_name"), r"image 70\d\d: no 'file_name'"),
        (
            lambda c: c["annotations"][0].pop("image_id"),
            r"not a COCO-format annotation file: an entry has no 'image_id'",
        ),
    ],
)
def test_bad_annotations_are_named(change, message, tmp_path):
    written = write_release(tmp_path, "mscoco-smpl")
    content = json.loads(written.annotations.read_text())
    change(content)
    dump(written.annotations, content)
    with pytest.raises(ValueError, match=rf"person_keypoints_train2017.json: .*{message}"):
        load_pseudo_gt(written.path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("human36m-smpl", lambda i: i.pop("cam_idx"), r"no 'cam_idx'; expected subject, cam_idx"),
        ("human36m-smpl", lambda i: i.update(frame_idx="x"), r"'frame_idx' must be a number, got 'x'"),
        ("3dpw-smplx", lambda i: i.pop("cam_param"), r"no 'cam_param'; expected focal, princpt"),
        ("3dpw-smplx", lambda i: i["cam_param"].pop("t"), r"no 't', got focal, princpt, R"),
    ],
)
def test_bad_images_are_named(name, change, message, tmp_path):
    written = write_release(tmp_path, name)
    content = json.loads(written.annotations.read_text())
    change(content["images"][0])
    dump(written.annotations, content)
    with pytest.raises(
        ValueError, match=rf"{written.annotations.name}: .*image {content['images'][0]['id']}.*{message}"
    ):
        load_pseudo_gt(written.path)


def test_3dpw_without_extrinsics_is_camera_space(tmp_path):
    written = write_release(tmp_path, "3dpw-smplx", world=False)
    gt = load_pseudo_gt(written.path)
    assert gt.space == "camera"
    check_rows(gt, written.rows)


def test_insta_variety_s_database_is_not_run(tmp_path, released):
    import joblib

    written = write_release(tmp_path, "instavariety-smpl")

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    joblib.dump({"ann_id": Trap()}, written.annotations)
    with pytest.raises(ValueError, match=r"insta_train_db.pt"):
        load_pseudo_gt(written.path)
    assert not (tmp_path / "ran").exists()
    joblib.dump({"ann_id": np.arange(3), "file_name": np.array(["a"])}, written.annotations)
    with pytest.raises(ValueError, match=r"not InstaVariety's database: no img_shape, bbox"):
        load_pseudo_gt(written.path)
    whole = {
        "ann_id": np.arange(3),
        "file_name": np.array(["a"] * 3),
        "img_shape": np.ones((3, 2)),
        "bbox": np.ones((3, 4)),
    }
    for change, message in (
        ({"file_name": np.array(["a"])}, "columns of different lengths: 3 ids, 1 file names"),
        ({"bbox": np.ones((3, 5))}, "not InstaVariety's database: cannot reshape"),
        ({"ann_id": np.array(["one"] * 3)}, "not InstaVariety's database: invalid literal"),
    ):
        joblib.dump(whole | change, written.annotations)
        with pytest.raises(ValueError, match=message):
            load_pseudo_gt(written.path)


@pytest.mark.filterwarnings("ignore:no official body models")
def test_hands_have_the_same_boxes_in_their_cameras_space():
    """InterHand2.6M's come from its 3D joints, which stay in the world."""
    folder = studio("interhand26m")
    (truth,) = (folder / "truth").glob("*_MANO_*.json")
    gt = load_pseudo_gt(truth, annotations=folder / "annotations" / "InterHand2.6M_train_data.json")
    boxes = gt.box_xywh
    assert np.isfinite(boxes).all()
    np.testing.assert_array_equal(gt.to_camera_space().box_xywh, boxes)
