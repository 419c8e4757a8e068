"""The user's own data: names of joints, sides of hands, MoCap in Human3.6M's layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import write_release

from neuralannot.joint_sets import JOINT_SETS, JointSet
from neuralannot.train.data import read_samples
from neuralannot.train.data.named_joints import known_joints, named_joint_set

NAMES = ["nose", "left_hip", "right_hip", "left_knee", "right_knee"]
FINGERS = ["wrist", "thumb1", "thumb", "index1", "index"]


def write_coco(
    folder: Path, names: list[str] | None, *, count: int = 4, name: str = "mine.json", **more
) -> dict:
    rng = np.random.default_rng(0)
    joints = len(names or NAMES)
    anns = []
    for number in range(count):
        points = np.column_stack([rng.uniform(0, 90, (joints, 2)), np.arange(joints) % 3])
        points[1, 2] = 2
        anns.append(
            {"id": 5 + number, "image_id": number // 2, "category_id": 1, "bbox": [5, 6, 70, 80],
             "keypoints": points.ravel().tolist(), **{k: v[number] for k, v in more.items()}}
        )  # fmt: skip
    content = {
        "images": [
            {"id": i, "file_name": f"people/{i}.png", "width": 99, "height": 98} for i in range(count)
        ],
        "annotations": anns,
        "categories": [{"id": 1, "name": "person"} | ({} if names is None else {"keypoints": names})],
    }
    (folder / name).write_text(json.dumps(content))
    return content


def test_joints_are_those_that_the_category_names(tmp_path):
    content = write_coco(tmp_path, NAMES)
    for folder in (tmp_path, tmp_path / "mine.json"):
        samples = read_samples("COCO-format", folder, model="smpl", name="garden")
        points = np.array([a["keypoints"] for a in content["annotations"]]).reshape(-1, 5, 3)
        expected = np.where(points[..., 2:] > 0, points[..., :2], np.nan)
        np.testing.assert_allclose(samples.joints_2d, expected, rtol=1e-6)
        assert samples.joint_set.joints == tuple(NAMES)
        assert samples.joint_set.flip_pairs == ((1, 2), (3, 4))
        assert set(samples.joint_set.skeleton) >= {(1, 3), (2, 4)}
        assert samples.image_path.tolist() == ["people/0.png", "people/0.png", "people/1.png", "people/1.png"]
        assert (samples.data_set, samples.release, samples.images) == ("garden", "", tmp_path)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from(known_joints()), min_size=1, max_size=30, unique=True),
    st.sampled_from([str.title, str.upper, lambda s: s.replace("_", " "), lambda s: s.replace("_", "-")]),
)
def test_any_spelling_of_any_known_names(names, spell):
    found = named_joint_set("mine", [spell(n) for n in names], where="here")
    assert found.joints == tuple(names)
    for a, b in found.skeleton:
        assert a != b
    for left, right in found.flip_pairs:
        assert names[left].replace("left_", "right_", 1) == names[right]


@pytest.mark.parametrize("name", JOINT_SETS)
def test_the_joints_of_a_known_set_are_that_set(name):
    found = named_joint_set("mine", JOINT_SETS[name].joints, where="here")
    assert found.joints == JOINT_SETS[name].joints
    assert found.name in JOINT_SETS


def test_the_files_own_skeleton_counts_from_one(tmp_path):
    content = write_coco(tmp_path, NAMES)
    content["categories"][0]["skeleton"] = [[1, 2], [5, 3]]
    (tmp_path / "mine.json").write_text(json.dumps(content))
    assert read_samples("coco-format", tmp_path, model="smpl").joint_set.skeleton == ((0, 1), (4, 2))
    content["categories"][0]["skeleton"] = [[1, 6]]
    (tmp_path / "mine.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"category 'person': skeleton of joint set .* has \(0, 5\)"):
        read_samples("coco-format", tmp_path, model="smpl")
    content["categories"][0]["skeleton"] = [["a", 1]]
    (tmp_path / "mine.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="'skeleton' must hold pairs of joint numbers from 1"):
        read_samples("coco-format", tmp_path, model="smpl")


@pytest.mark.parametrize(
    ("given_name", "near"),
    [("left_kne", "'left_knee'"), ("l_knee", "'left_knee'"), ("rhip", "'right_hip'"), ("xyzzy", "none")],
)
def test_unknown_names_and_what_was_meant(tmp_path, given_name, near):
    write_coco(tmp_path, [*NAMES[:4], given_name])
    with pytest.raises(
        ValueError, match=f"unknown joint names: '{given_name}' \\(nearest: .*{near}"
    ) as caught:
        read_samples("coco-format", tmp_path, model="smpl")
    for part in ("mine.json: category 'person'", "joint_set=", "right_ankle", "coco-17"):
        assert part in str(caught.value)


def test_a_name_twice(tmp_path):
    write_coco(tmp_path, [*NAMES[:4], "Nose"])
    with pytest.raises(ValueError, match=r"category 'person': .* names nose more than once"):
        read_samples("coco-format", tmp_path, model="smpl")


def test_joints_that_no_category_names(tmp_path):
    write_coco(tmp_path, None)
    with pytest.raises(ValueError, match="no category says what its keypoints are called"):
        read_samples("coco-format", tmp_path, model="smpl")
    mine = JointSet("mine", ("top", "a", "b", "c", "d"))
    assert read_samples("coco-format", tmp_path, model="smpl", joint_set=mine).joint_set is mine
    with pytest.raises(ValueError, match="5 keypoints an annotation; expected 17"):
        read_samples("coco-format", tmp_path, model="smpl", joint_set="coco-17")
    with pytest.raises(ValueError, match="unknown joint set 'coco-71'; did you mean 'coco-17'"):
        read_samples("coco-format", tmp_path, model="smpl", joint_set="coco-71")


def test_categories_that_name_different_joints(tmp_path):
    content = write_coco(tmp_path, NAMES)
    content["categories"].append({"id": 2, "name": "dog", "keypoints": ["nose"]})
    (tmp_path / "mine.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="categories 'person' and 'dog' name different keypoints"):
        read_samples("coco-format", tmp_path, model="smpl")


def test_which_file(tmp_path):
    write_coco(tmp_path, NAMES)
    write_coco(tmp_path, NAMES, name="other.json", count=2)
    with pytest.raises(FileNotFoundError, match=r"expected one \*\.json .* got mine\.json, other\.json"):
        read_samples("coco-format", tmp_path, model="smpl")
    assert len(read_samples("coco-format", tmp_path, model="smpl", annotations=tmp_path / "other.json")) == 2
    with pytest.raises(FileNotFoundError, match=r"gone\.json: no such annotation file"):
        read_samples("coco-format", tmp_path, model="smpl", annotations=tmp_path / "gone.json")


def test_hands_by_the_names_of_their_joints(tmp_path):
    for side in ("left", "right"):
        write_coco(tmp_path, [f"{side}_{f}" for f in FINGERS])
        samples = read_samples("coco-format", tmp_path, model="mano")
        assert samples.side.tolist() == [side] * 4
        assert samples.joint_set.joints == tuple(f"right_{f}" for f in FINGERS)


@pytest.mark.parametrize("prefix", ["", "right_"])
def test_hands_by_hand_type(tmp_path, prefix):
    sides = ["left", "right", "right", "left"]
    write_coco(tmp_path, [prefix + f for f in FINGERS], hand_type=sides)
    samples = read_samples("coco-format", tmp_path, model="mano")
    assert samples.side.tolist() == sides
    assert samples.joint_set.joints == tuple(f"right_{f}" for f in FINGERS)


def test_hands_that_could_be_either(tmp_path):
    write_coco(tmp_path, FINGERS)
    with pytest.raises(ValueError, match="annotation 5: which hand is it"):
        read_samples("coco-format", tmp_path, model="mano")
    write_coco(tmp_path, FINGERS, hand_type=["left", "right", "both", "left"])
    with pytest.raises(ValueError, match="annotation 7: 'hand_type' must be 'right' or 'left', got 'both'"):
        read_samples("coco-format", tmp_path, model="mano")
    write_coco(tmp_path, NAMES)
    with pytest.raises(ValueError, match="joints must all be of one hand, got nose, left_hip"):
        read_samples("coco-format", tmp_path, model="mano")


@pytest.fixture
def mocap(tmp_path):
    """Two subjects of Human3.6M's layout under names of the user's."""
    for subject, name in ((1, "ann"), (7, "bob")):
        written = write_release(tmp_path / name, "human36m-smpl", subject=subject)
        content = json.loads(written.annotations.read_text())
        names = list(JOINT_SETS["human36m-17"].joints)
        content["categories"] = [{"id": 1, "name": "person", "keypoints": names}]
        (tmp_path / f"{name}_data.json").write_text(json.dumps(content))
        written.cameras.rename(tmp_path / f"{name}_camera.json")
        written.joints.rename(tmp_path / f"{name}_joint_3d.json")
        written.annotations.unlink()
        written.path.unlink()
    return tmp_path


def test_own_mocap_is_read_as_human36m_is(mocap, tmp_path_factory):
    samples = read_samples("MoCap-format", mocap, model="smplx", name="hall")
    theirs = tmp_path_factory.mktemp("h36m")
    for subject in (1, 7):
        write_release(theirs, "human36m-smpl", subject=subject)
    expected = read_samples("human36m", theirs, model="smplx")
    for field in ("ids", "keys", "image_path", "box_xywh", "joints_cam", "joints_2d"):
        np.testing.assert_array_equal(getattr(samples, field), getattr(expected, field))
    assert (samples.data_set, samples.release, samples.side) == ("hall", "", None)
    assert samples.joint_set is JOINT_SETS["human36m-17"]
    one = read_samples("mocap-format", mocap, model="smpl", subjects=7, every=100)
    assert set(map(tuple, one.keys[:, [0, 3]].tolist())) <= {(7, 0), (7, 100)}
    assert len(one)


def test_own_mocap_with_joints_missing(mocap):
    path = mocap / "ann_joint_3d.json"
    content = json.loads(path.read_text())
    before = read_samples("mocap-format", mocap, model="smpl", subjects=1)
    content["2"]["1"]["0"][3] = None
    content["2"]["1"]["0"][4] = [None, 1.0, 2.0]
    path.write_text(json.dumps(content))
    after = read_samples("mocap-format", mocap, model="smpl", subjects=1)
    lost = np.argwhere(before.valid & ~after.valid)
    rows = np.flatnonzero((before.keys == [1, 2, 1, 0]).all(1))
    assert lost.tolist() == [[r, j] for r in rows for j in (3, 4)]


def test_own_mocap_of_hands(mocap):
    for path in mocap.glob("*_data.json"):
        content = json.loads(path.read_text())
        names = [j.replace("right_", "left_") for j in JOINT_SETS["interhand-21-right"].joints[:17]]
        content["categories"][0]["keypoints"] = names
        path.write_text(json.dumps(content))
    samples = read_samples("mocap-format", mocap, model="mano")
    assert set(samples.side.tolist()) == {"left"}
    assert samples.joint_set.joints == JOINT_SETS["interhand-21-right"].joints[:17]


def test_own_mocap_of_hands_that_could_be_either(mocap):
    for path in mocap.glob("*_data.json"):
        content = json.loads(path.read_text())
        names = [j.removeprefix("right_") for j in JOINT_SETS["interhand-21-right"].joints[:17]]
        content["categories"][0]["keypoints"] = names
        path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"ann_data\.json: which hand is it"):
        read_samples("mocap-format", mocap, model="mano")


def spoil_joints(content):
    content["2"]["1"]["5"] = content["2"]["1"]["5"][:4]


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("ann_joint_3d.json", spoil_joints, "frame 2/1/5: expected 17 joints of 3 numbers or null"),
        (
            "ann_joint_3d.json",
            lambda c: c.update({"x": {"1": {"0": []}}}),
            "key 'x/1/0' is not a frame's numbers",
        ),
        (
            "ann_joint_3d.json",
            lambda c: c.update({"3": 5}),
            r"3: expected \[action\]\[subaction\]\[frame\], got 5",
        ),
        (
            "ann_data.json",
            lambda c: c["images"][0].update(subject=3),
            r"images of subjects \[1, 3\]; expected",
        ),
        ("ann_data.json", lambda c: c["images"][0].pop("cam_idx"), "no 'cam_idx'; expected subject, cam_idx"),
        ("ann_data.json", lambda c: c.update(annotations=[]), r"ann_data\.json: no annotations"),
        ("ann_camera.json", lambda c: c["1"].pop("f"), r"ann_camera\.json: camera 1: no 'f'"),
    ],
)
def test_own_mocap_files_that_are_not(mocap, name, edit, message):
    content = json.loads((mocap / name).read_text())
    edit(content)
    (mocap / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_samples("mocap-format", mocap, model="smpl")


def test_own_mocap_files_that_are_not_there(mocap):
    with pytest.raises(ValueError, match=r"no subject \(3,\); there are \[1, 7\]"):
        read_samples("mocap-format", mocap, model="smpl", subjects=3)
    (mocap / "bob_camera.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected bob_camera\.json"):
        read_samples("mocap-format", mocap, model="smpl")
    (mocap / "ann_data.json").rename(mocap / "again_data.json")
    (mocap / "bob_data.json").unlink()
    options = {"annotations": mocap / "again_data.json", "cameras": mocap / "ann_camera.json"}
    samples = read_samples("mocap-format", mocap, model="smpl", joints=mocap / "ann_joint_3d.json", **options)
    assert set(samples.keys[:, 0].tolist()) == {1}


def test_own_mocap_one_subject_twice(mocap):
    for kind in ("data", "camera", "joint_3d"):
        (mocap / f"zoe_{kind}.json").write_text((mocap / f"ann_{kind}.json").read_text())
    with pytest.raises(ValueError, match=r"zoe_data\.json: subject 1 is also in ann_data\.json"):
        read_samples("mocap-format", mocap, model="smpl")
