"""Readers of MoCap data sets, against the raw numbers of their files taken the slow way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from layouts import write_release

from neuralannot.body_models import load_body_model
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.train.data import pw3d_truth, read_samples
from neuralannot.train.samples import Samples

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


def change(path: Path, edit) -> None:
    """The JSON in `path`, edited in place."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def seen_by(camera: dict, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(J, 3) millimetres in the world -> metres before the camera, pixels; a joint at a time."""
    if "campos" in camera:
        R = np.array(camera["camrot"])
        t = -R @ np.array(camera["campos"])
    else:
        R, t = np.array(camera["R"]), np.array(camera["t"])
    focal = np.array(camera.get("f", camera.get("focal")))
    princpt = np.array(camera.get("c", camera.get("princpt")))
    cam = np.array([R @ point + t for point in world])
    return cam / 1000, cam[:, :2] / cam[:, 2:] * focal + princpt


def check_rows(samples: Samples, want: list[dict]) -> None:
    assert samples.ids.tolist() == [w["id"] for w in want]
    assert samples.keys.tolist() == [list(w["key"]) for w in want]
    assert samples.image_path.tolist() == [w["path"] for w in want]
    np.testing.assert_allclose(samples.joints_cam, [w["cam"] for w in want], atol=2e-5)
    np.testing.assert_allclose(samples.joints_2d, [w["px"] for w in want], rtol=1e-4, atol=2e-2)
    # The camera that comes with each row sees the same.
    again = samples.camera.project(samples.joints_cam)
    np.testing.assert_array_equal(again, samples.joints_2d)


def raw(path: Path) -> list[tuple[dict, dict]]:
    content = json.loads(path.read_text())
    images = {image["id"]: image for image in content["images"]}
    return [(ann, images[ann["image_id"]]) for ann in content["annotations"]]


def human36m_rows(written) -> list[dict]:
    cameras, joints = json.loads(written.cameras.read_text()), json.loads(written.joints.read_text())
    rows = []
    for ann, image in raw(written.annotations):
        key = [image[k] for k in ("subject", "action_idx", "subaction_idx", "frame_idx")]
        world = np.array(joints[str(key[1])][str(key[2])][str(key[3])])
        cam, px = seen_by(cameras[str(image["cam_idx"])], world)
        rows.append({"id": ann["id"], "key": key, "path": image["file_name"], "cam": cam, "px": px})
    return rows


@pytest.fixture
def human36m(tmp_path):
    return write_release(tmp_path / "h36m", "human36m-smpl")


@pytest.mark.parametrize("model", ["smpl", "smplx"])
def test_human36m(human36m, model):
    samples = read_samples("Human3.6M", human36m.path.parent, model=model)
    check_rows(samples, human36m_rows(human36m))
    assert samples.joint_set is JOINT_SETS["human36m-17"]
    assert (samples.release, samples.groups) == (f"human36m-{model}", ({"subject": "1"},))
    assert samples.side is None
    assert samples.skipped == ()
    # Kept columns give the same again.
    again = read_samples("human36m", human36m.path.parent, model=model)
    np.testing.assert_array_equal(again.joints_2d, samples.joints_2d)


def test_human36m_frames_and_views(human36m):
    folder = human36m.path.parent
    whole = read_samples("human36m", folder, model="smpl")
    for every in (5, 7, 100):
        some = read_samples("human36m", folder, model="smpl", every=every)
        assert some.ids.tolist() == whole.ids[whole.keys[:, 3] % every == 0].tolist()
        assert some.skipped == ()
    views = {view: read_samples("human36m", folder, model="smpl", views=view) for view in (1, 3)}
    assert sorted(np.concatenate([v.ids for v in views.values()])) == sorted(whole.ids)
    assert read_samples("human36m", folder, model="smpl", views=(1, 3)).ids.tolist() == whole.ids.tolist()
    assert len(read_samples("human36m", folder, model="smpl", views=2)) == 0


def test_human36m_subjects_one_after_another(tmp_path):
    written = [write_release(tmp_path, "human36m-smpl", subject=s) for s in (5, 9, 1)]
    train = read_samples("human36m", tmp_path, model="smpl")
    assert train.groups == ({"subject": "1"}, {"subject": "5"})
    check_rows(train, human36m_rows(written[2]) + human36m_rows(written[0]))
    test = read_samples("human36m", tmp_path, model="smpl", split="test")
    check_rows(test, human36m_rows(written[1]))
    check_rows(read_samples("human36m", tmp_path, model="smpl", subjects=[9]), human36m_rows(written[1]))
    with pytest.raises(FileNotFoundError, match=r"expected Human36M_subject11_data\.json in .*annotations"):
        read_samples("human36m", tmp_path, model="smpl", subjects=[9, 11])
    with pytest.raises(ValueError, match="no split 'val'; expected train or test"):
        read_samples("human36m", tmp_path, model="smpl", split="val")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_samples("human36m", tmp_path / "nowhere", model="smpl")


def test_human36m_files_of_other_names(human36m, tmp_path):
    moved = {}
    for option, path in (
        ("annotations", human36m.annotations),
        ("cameras", human36m.cameras),
        ("joints", human36m.joints),
    ):
        moved[option] = path.rename(tmp_path / f"{option}.json")
    samples = read_samples("human36m", tmp_path, model="smpl", subjects=1, **moved)
    assert len(samples) == 10
    with pytest.raises(ValueError, match="say whose in subjects="):
        read_samples("human36m", tmp_path, model="smpl", **moved)
    with pytest.raises(ValueError, match=r"images of subjects \[1\]; expected those of 5 alone"):
        read_samples("human36m", tmp_path, model="smpl", subjects=5, **moved)
    with pytest.raises(FileNotFoundError, match=r"gone\.json: no such file for Human3\.6M's joints"):
        read_samples(
            "human36m", tmp_path, model="smpl", subjects=1, **moved | {"joints": tmp_path / "gone.json"}
        )


def test_what_the_mocap_files_lack_is_listed(human36m):
    """Joints of a frame, a camera, a box, the person: each annotation once, with the reason."""
    rows = human36m_rows(human36m)
    anns = {ann["id"]: (ann, image) for ann, image in raw(human36m.annotations)}
    lost = next(r for r in rows if anns[r["id"]][1]["cam_idx"] == 1)
    change(human36m.cameras, lambda c: c.pop("3"))
    _, action, subaction, frame = lost["key"]
    change(human36m.joints, lambda j: j[str(action)][str(subaction)].pop(str(frame)))
    left = [r for r in rows if anns[r["id"]][1]["cam_idx"] == 1 and r["key"] != lost["key"]]
    boxes = {
        left[0]["id"]: [5, 5, 0, 10],
        left[1]["id"]: [1500, 5, 20, 20],
        left[2]["id"]: [-300, 5, 250, 90],
    }

    def spoil(content):
        for ann in content["annotations"]:
            ann["bbox"] = boxes.get(ann["id"], ann["bbox"])

    change(human36m.annotations, spoil)
    samples = read_samples("human36m", human36m.path.parent, model="smpl")
    check_rows(samples, left[3:])
    reasons = {skip.id: (skip.reason, skip.detail) for skip in samples.skipped}
    assert len(reasons) == len(samples.skipped) == len(rows) - len(left) + 3
    assert reasons[lost["id"]] == ("no 3D joints", f"frame 1/{action}/{subaction}/{frame}")
    assert reasons[left[0]["id"]][0] == "box empty"
    assert reasons[left[1]["id"]][0] == "box outside"
    assert "in an image of 1000x1002" in reasons[left[1]["id"]][1]
    assert reasons[left[2]["id"]][0] == "box outside"  # the box code would move it into the image
    third = next(r["id"] for r in rows if anns[r["id"]][1]["cam_idx"] == 3)
    assert reasons[third] == ("no camera", "camera 1/3")


def test_no_cameras_or_no_joints_at_all(human36m):
    human36m.cameras.write_text("{}")
    samples = read_samples("human36m", human36m.path.parent, model="smpl")
    assert samples.skipped_by_reason() == {"no camera": 10}
    human36m.joints.write_text("{}")
    samples = read_samples("human36m", human36m.path.parent, model="smpl")
    assert (len(samples), samples.joints_cam.shape) == (0, (0, 17, 3))


def test_people_behind_the_camera_are_left_out(human36m):
    def turn(cameras):
        cameras["1"]["t"][2] -= 20_000

    change(human36m.cameras, turn)
    samples = read_samples("human36m", human36m.path.parent, model="smpl")
    assert samples.skipped_by_reason() == {"behind camera": 5}
    assert np.isfinite(samples.joints_2d).all()


def test_an_image_without_its_size(human36m):
    change(human36m.annotations, lambda c: c["images"][0].pop("width"))
    with pytest.raises(
        ValueError, match="1 annotations are of images without 'width' and 'height', first S1/"
    ):
        read_samples("human36m", human36m.path.parent, model="smpl")


def test_mpi_inf_3dhp(tmp_path):
    written = write_release(tmp_path, "mpi-inf-3dhp-smplx")
    cameras, joints = json.loads(written.cameras.read_text()), json.loads(written.joints.read_text())
    rows = []
    for ann, image in raw(written.annotations):
        key = [image[k] for k in ("subject_idx", "seq_idx", "frame_idx")]
        subject, seq, frame = map(str, key)
        cam, px = seen_by(cameras[subject][seq][str(image["cam_idx"])], np.array(joints[subject][seq][frame]))
        path = f"S{subject}/Seq{seq}/imageSequence/{image['file_name']}"
        rows.append({"id": ann["id"], "key": key, "path": path, "cam": cam, "px": px})
    samples = read_samples("MPI-INF-3DHP", tmp_path, model="smplx")
    check_rows(samples, rows)
    assert (samples.release, samples.joint_set.name) == ("mpi-inf-3dhp-smplx", "mpi-inf-3dhp-17")
    check_rows(
        read_samples("mpi_inf_3dhp", tmp_path, model="smpl", subjects=4, views=8),
        [
            r
            for r, (_, image) in zip(rows, raw(written.annotations), strict=True)
            if r["key"][0] == 4 and image["cam_idx"] == 8
        ],
    )


@pytest.fixture
def interhand(tmp_path):
    written = write_release(tmp_path, "interhand26m-mano")
    kinds = iter(["interacting", "right", "left", "interacting", "interacting", "interacting"])

    def name_hands(content):
        for ann in content["annotations"]:
            ann["hand_type"] = next(kinds)

    change(written.annotations, name_hands)
    return written


def test_interhand26m(interhand):
    cameras, joints = json.loads(interhand.cameras.read_text()), json.loads(interhand.joints.read_text())
    rows, boxes, sides = [], [], []
    for ann, image in raw(interhand.annotations):
        camera = {k: v[image["camera"]] for k, v in cameras[str(image["capture"])].items()}
        frame = joints[str(image["capture"])][str(image["frame_idx"])]
        cam, px = seen_by(camera, np.array(frame["world_coord"]))
        valid = np.array(frame["joint_valid"], bool)[:, 0]
        cam[~valid] = px[~valid] = np.nan
        for side, part in (("right", slice(21)), ("left", slice(21, 42))):
            if ann["hand_type"] not in (side, "interacting") or not valid[part].any():
                continue
            folder = f"test/Capture{image['capture']}/{image['seq_name']}/cam{image['camera']}"
            path = f"{folder}/{image['file_name']}"
            key = (image["capture"], image["frame_idx"])
            rows.append({"id": ann["id"], "key": key, "path": path, "cam": cam[part], "px": px[part]})
            low, high = np.nanmin(px[part], 0), np.nanmax(px[part], 0)
            boxes.append([*((low + high) / 2 - (high - low) * 0.75), *((high - low) * 1.5)])
            sides.append(side)
    samples = read_samples("InterHand2.6M", interhand.path.parent, model="mano", split="test")
    kept = [
        i
        for i, r in enumerate(rows)
        if r["id"] not in {s.id for s in samples.skipped if s.reason.startswith("box")}
    ]
    check_rows(samples, [rows[i] for i in kept])
    assert samples.side.tolist() == [sides[i] for i in kept]
    np.testing.assert_allclose(samples.box_xywh, [boxes[i] for i in kept], rtol=1e-3, atol=0.1)
    assert samples.joint_set is JOINT_SETS["interhand-21-right"]
    assert samples.release == "interhand26m-mano"
    assert samples.groups == ({"split": "test"},)
    listed = [(s.id, s.detail) for s in samples.skipped if s.reason == "no joints"]
    assert len(listed) == sum(
        2 if a["hand_type"] == "interacting" else 1 for a, _ in raw(interhand.annotations)
    ) - len(rows)
    assert all("hand" in detail for _, detail in listed)


def test_interhand_joints_that_the_annotation_calls_invalid(interhand):
    before = read_samples("interhand26m", interhand.path.parent, model="mano", split="test")
    row = int(before.valid.sum(1).argmax())
    joint = int(np.flatnonzero(before.valid[row])[0])
    index = joint + (21 if before.side[row] == "left" else 0)

    def hide(content):
        for ann in content["annotations"]:
            if ann["id"] == before.ids[row]:
                ann["joint_valid"][index] = [0]

    change(interhand.annotations, hide)
    after = read_samples("interhand26m", interhand.path.parent, model="mano", split="test")
    changed = before.valid != after.valid
    assert np.argwhere(changed).tolist() == [[row, joint]]


def test_interhand_hand_types(interhand):
    def spoil(content):
        content["annotations"][0]["hand_type"] = "both"

    change(interhand.annotations, spoil)
    with pytest.raises(ValueError, match="'hand_type' must be right, left, interacting, got 'both'"):
        read_samples("interhand26m", interhand.path.parent, model="mano", split="test")


HAND = np.array(
    [[0, 0, 0], *[[0.02 * f - 0.04, -0.05 - 0.03 * j, 0.01 * j] for f in range(5) for j in range(4)]]
)


def write_freihand(folder: Path, *, unit: float = 1.0) -> list[np.ndarray]:
    """Three images of two entries, one image of an entry that is not there."""
    rng = np.random.default_rng(1)
    hands = [HAND + rng.normal(0, 0.005, HAND.shape) + [0.02, 0.05, 0.7] for _ in range(2)]
    camera = {"focal": [480.0, 480.0], "princpt": [112.0, 112.0]}
    data = {str(k): {"cam_param": camera, "joint_3d": (h * unit).tolist()} for k, h in enumerate(hands)}
    images = [
        {"id": 10 + i, "db_idx": k, "file_name": f"training/rgb/{i:08d}.jpg", "width": 224, "height": 224}
        for i, k in enumerate((1, 0, 1, 5))
    ]
    anns = [
        {"id": 90 - i, "image_id": image["id"], "bbox": [50, 40, 120, 130]} for i, image in enumerate(images)
    ]
    (folder / "freihand_train_coco.json").write_text(json.dumps({"images": images, "annotations": anns}))
    (folder / "freihand_train_data.json").write_text(json.dumps(data))
    return [hands[1], hands[0], hands[1]]


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_freihand(tmp_path, unit):
    hands = write_freihand(tmp_path, unit=unit)
    samples = read_samples("FreiHAND", tmp_path, model="mano")
    assert samples.ids.tolist() == [90, 89, 88]
    assert samples.keys.tolist() == [[90], [89], [88]]
    np.testing.assert_allclose(samples.joints_cam, hands, atol=1e-6)
    pixels = [h[:, :2] / h[:, 2:] * 480 + 112 for h in hands]
    np.testing.assert_allclose(samples.joints_2d, pixels, atol=1e-2)
    assert samples.side.tolist() == ["right"] * 3
    assert [(s.id, s.reason, s.detail) for s in samples.skipped] == [
        (87, "no camera", "right hand: entry 5 is not in freihand_train_data.json")
    ]
    assert samples.joint_set.joints[:6] == (
        "right_wrist", "right_thumb1", "right_thumb2", "right_thumb3", "right_thumb", "right_index1"
    )  # fmt: skip


def test_freihand_that_is_not_what_it_should_be(tmp_path):
    write_freihand(tmp_path, unit=30.0)
    with pytest.raises(ValueError, match="neither metres nor millimetres"):
        read_samples("freihand", tmp_path, model="mano")
    write_freihand(tmp_path)
    data = tmp_path / "freihand_train_data.json"
    change(data, lambda d: d["0"].pop("joint_3d"))
    samples = read_samples("freihand", tmp_path, model="mano")
    assert [(s.id, s.reason) for s in samples.skipped] == [(89, "no 3D joints"), (87, "no camera")]
    change(data, lambda d: d["1"].update(joint_3d=[[0, 0, 1]]))
    with pytest.raises(ValueError, match=r"entry 1: expected 'cam_param'"):
        read_samples("freihand", tmp_path, model="mano")
    change(tmp_path / "freihand_train_coco.json", lambda c: c["images"][0].pop("db_idx"))
    with pytest.raises(ValueError, match="image 10: no number 'db_idx'"):
        read_samples("freihand", tmp_path, model="mano")


def write_3dpw(folder: Path, *, world: bool = True) -> dict:
    rng = np.random.default_rng(2)
    cam_param = {"focal": [1960.0, 1961.0], "princpt": [540.0, 960.0]}
    if world:
        cam_param |= {"R": [[0, -1, 0], [1, 0, 0], [0, 0, 1]], "t": [0.1, 0.2, 3.0]}
    images = [
        {"id": i, "sequence": "street_00", "file_name": f"image_{i:05d}.jpg", "width": 1080, "height": 1920,
         "cam_param": cam_param}
        for i in range(2)
    ]  # fmt: skip
    anns = []
    for number, gender in enumerate(("male", "f", "neutral", None)):
        ann = {"id": 40 - number, "image_id": number % 2, "bbox": [200, 300, 400, 900]}
        if gender:
            ann["smpl_param"] = {
                "pose": rng.normal(0, 0.3, 72).tolist(),
                "shape": rng.normal(0, 1, 10).tolist(),
                "trans": [0.1 * number, 0.1, 4.0],
                "gender": gender,
            }
        anns.append(ann)
    content = {"images": images, "annotations": anns}
    (folder / "3DPW_test.json").write_text(json.dumps(content))
    return content


@pytest.mark.parametrize("world", [True, False])
def test_3dpw(tmp_path, world):
    """Joints are those of the whole posed mesh's forward pass, in camera space whatever the extrinsics."""
    import torch

    content = write_3dpw(tmp_path, world=world)
    samples = read_samples("3DPW", tmp_path, model="smplx", split="test")
    for row, ann in enumerate(content["annotations"][:3]):
        model = load_body_model("smpl", gender=("male", "female", "neutral")[row])
        pose = torch.tensor(ann["smpl_param"]["pose"]).reshape(1, 24, 3)
        out = model(
            global_orient=pose[:, 0],
            body_pose=pose[:, 1:],
            betas=torch.tensor([ann["smpl_param"]["shape"]]),
            transl=torch.tensor([ann["smpl_param"]["trans"]]),
        )
        joints = out.joints[0, :24].numpy()
        np.testing.assert_allclose(samples.joints_cam[row], joints, atol=1e-5)
        pixels = joints[:, :2] / joints[:, 2:] * [1960, 1961] + [540, 960]
        np.testing.assert_allclose(samples.joints_2d[row], pixels, atol=0.02)
    assert samples.joint_set.joints == JOINT_SETS["smpl"].joints[:24]
    assert samples.gender.tolist() == ["male", "female", "neutral"]
    assert [(s.id, s.reason) for s in samples.skipped] == [(37, "no truth")]
    assert samples.image_path[0] == "street_00/image_00000.jpg"
    assert (samples.release, samples.groups) == ("3dpw-smplx", ({"split": "test"},))
    t = [0.1, 0.2, 3.0] if world else [0, 0, 0]
    np.testing.assert_allclose(samples.camera.t, [t] * 3, rtol=1e-6)


def test_3dpw_knows_persons_within_their_sequences(tmp_path):
    write_3dpw(tmp_path)
    assert read_samples("3DPW", tmp_path, model="smpl", split="test").person is None
    path = tmp_path / "3DPW_test.json"

    def say(content):
        content["images"].append({**content["images"][0], "id": 2, "sequence": "hall_01"})
        first = content["annotations"][0]
        # (image, person): of the two one is in two frames of a sequence, and the same number is another's in
        # the next.
        given = [(0, 0), (0, 1), (1, 0), (2, 0), (2, "0"), (1, None), (1, 1)]
        content["annotations"] = [
            {**first, "id": 50 + n, "image_id": image} | ({} if who is None else {"person_id": who})
            for n, (image, who) in enumerate(given)
        ]

    change(path, say)
    samples = read_samples("3DPW", tmp_path, model="smpl", split="test")
    assert samples.ids.tolist() == list(range(50, 57))
    assert samples.person.tolist() == [0, 1, 0, 2, 2, -1, 1]
    assert samples.person.dtype == np.int64
    one = json.loads(path.read_text())
    one["annotations"] = one["annotations"][::-1][:3]  # numbers are by who comes first
    path.write_text(json.dumps(one))
    assert read_samples("3DPW", tmp_path, model="smpl", split="test").person.tolist() == [0, -1, 1]


def test_3dpw_truth_is_the_files(tmp_path):
    content = write_3dpw(tmp_path)
    by_id = {ann["id"]: ann.get("smpl_param") for ann in content["annotations"]}
    truth = pw3d_truth(tmp_path)
    assert truth.ids.tolist() == [40, 39, 38]
    some = pw3d_truth(tmp_path, ids=[38, 40])
    assert some.gender.tolist() == ["neutral", "male"]
    for truth_of in (truth, some):
        for row, id_ in enumerate(truth_of.ids.tolist()):
            values = {name: value[row].ravel() for name, value in truth_of.parameters.items()}
            pose = np.concatenate([values["global_orient"], values["body_pose"]])
            np.testing.assert_allclose(pose, by_id[id_]["pose"], rtol=1e-6)
            np.testing.assert_allclose(values["betas"], by_id[id_]["shape"], rtol=1e-6)
            np.testing.assert_allclose(values["transl"], by_id[id_]["trans"], rtol=1e-6)
    with pytest.raises(ValueError, match="annotation 37 is not there or has no 'smpl_param'"):
        pw3d_truth(tmp_path, ids=[40, 37])


def test_3dpw_parameters_that_are_not(tmp_path):
    write_3dpw(tmp_path)
    change(tmp_path / "3DPW_test.json", lambda c: c["annotations"][1]["smpl_param"]["pose"].pop())
    with pytest.raises(ValueError, match=r"annotation 39: 'smpl_param' must hold pose \(72\)"):
        read_samples("3dpw", tmp_path, model="smpl", split="test")


def test_the_data_sets_own_2d_joints(test_data):
    """Where the data sets say where their joints are in the image, that is where they are: 2 px at most."""
    human36m, mpi = test_data / "human36m", test_data / "mpi_inf_3dhp"
    options = {
        "annotations": mpi / "MPI-INF-3DHP_2048.json",
        "cameras": mpi / "MPI-INF-3DHP_camera_2048.json",
    }
    sets = [
        (
            read_samples("human36m", human36m, model="smpl", cache=False),
            "human36m/annotations/Human36M_subject{}_data.json",
        ),
        (
            read_samples("mpi-inf-3dhp", mpi, model="smpl", cache=False, **options),
            "mpi_inf_3dhp/MPI-INF-3DHP_2048.json",
        ),
    ]
    for samples, name in sets:
        for row in range(len(samples)):
            content = json.loads((test_data / name.format(samples.keys[row, 0])).read_text())
            real = next(a for a in content["annotations"] if a["id"] == samples.ids[row])["keypoints_real_2d"]
            assert np.abs(samples.joints_2d[row] - real).max() < 2


def test_real_hands_lie_in_their_own_boxes(test_data):
    samples = read_samples(
        "interhand26m", test_data / "interhand26m", model="mano", split="test", cache=False
    )
    assert samples.side.tolist() == ["right", "left", "right"]
    low, size = samples.box_xywh[:, None, :2], samples.box_xywh[:, None, 2:]
    assert ((samples.joints_2d > low) & (samples.joints_2d < low + size)).all()
    span = np.linalg.norm(samples.joints_cam - samples.joints_cam[:, 20:], axis=-1).max(1)
    assert ((span > 0.05) & (span < 0.25)).all()
