"""The studio: what it writes is what it says, to the pixel; the same settings give the same bytes."""

import hashlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from neuralannot import load_pseudo_gt
from neuralannot.cameras import read_cameras
from neuralannot.images import read_image
from neuralannot.joints_gt import read_joints
from neuralannot.raycast import render_layers
from neuralannot.synthetic import LAYOUTS, make_studio
from neuralannot.synthetic import studio as studio_module
from neuralannot.synthetic.studio import MARKER

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

SMALL = {"human36m": (8, 160), "mscoco": (6, 192), "interhand26m": (24, 96), "ffhq": (4, 128)}
MM = 1000.0


def made(folder, layout, **options):
    count, size = SMALL[layout]
    return make_studio(folder, layout=layout, **{"count": count, "image_size": size, "workers": 1, **options})


@pytest.fixture(scope="module")
def studios(tmp_path_factory):
    """Layout -> its studio, made once. Do not change them."""
    kept = {}

    def get(layout):
        if layout not in kept:
            kept[layout] = made(tmp_path_factory.mktemp(layout) / "studio", layout)
        return kept[layout]

    return get


def load(report, truth=""):
    """The truth (of human36m all subjects', else the file that has `truth` in its name) as users load it."""
    if report.layout == "human36m":
        path, annotations = report.truth, report.annotations
    else:
        path, annotations = next(p for p in report.truth if truth in p.name), report.annotations[0]
    return load_pseudo_gt(path, annotations=annotations, cameras=report.cameras or None, cache=False)


def whole_body(report):
    content = json.loads(report.annotations[0].read_text())
    fields = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
    points = [np.concatenate([np.reshape(a[f], (-1, 3)) for f in fields]) for a in content["annotations"]]
    return content, np.array(points)


# --- the truth is the truth


def test_human36m_truth_gives_the_written_joints_and_boxes(studios):
    report = studios("human36m")
    gt = load(report)
    assert len(gt) == report.annotation_count == report.image_count == 8
    joints = gt.forward(space="world", want="joints", regressor="human36m-17").joints.numpy()
    written = {}
    for file in report.joints:
        subject = int(file.name.split("subject")[1].split("_")[0])
        read = read_joints(file, "Human3.6M", subject)
        written |= {tuple(k): j for k, j in zip(read["joint/key"].tolist(), read["joint/world"], strict=True)}
    assert np.abs(joints - [written[tuple(key)] for key in gt.keys]).max() * MM < 0.01
    assert len({key[0] for key in gt.keys}) == 2  # subjects
    # The boxes are those of the bodies in the cameras that were written.
    pixels = gt.forward().project("vertices").numpy()
    low, high = pixels.min(1).clip(0, 159), pixels.max(1).clip(0, 159)
    assert np.abs(np.concatenate([low, high - low], 1) - gt.box_xywh).max() < 0.05


def test_human36m_feet_are_on_the_floor_and_hands_are_straight(studios):
    gt = load(studios("human36m"))
    lowest = gt.forward(space="world").vertices.numpy()[..., 2].min(1)
    assert np.abs(lowest).max() < 1e-4
    assert (gt.params["body_pose"][:, 21:] == 0).all()


def test_human36m_headings_and_bodies_differ_between_frames(studios):
    gt = load(studios("human36m"))
    frames = gt.params["global_orient"][::4]
    assert len(np.unique(frames.round(3), axis=0)) == len(frames) == 2
    assert np.abs(gt.params["betas"]).max() <= 2.5
    assert len(np.unique(gt.params["betas"], axis=0)) == 2


def test_a_subject_is_one_person_and_motions_are_those_asked_for(tmp_path):
    from neuralannot.synthetic.motions import load_poses

    report = made(tmp_path / "studio", "human36m", count=24, views=1, image_size=32, clips=["03_02"])
    gt = load(report)
    subjects = [key[0] for key in gt.keys]
    shapes = {tuple(np.round(row, 6)) for row in gt.params["betas"]}
    assert len(shapes) == len(set(subjects)) == 6
    poses = load_poses()
    knees = poses.body_pose[poses.clip == poses.names.index("03_02")][:, 3:5, 0].ravel()
    # A knee's bend is the same mirrored, and no knee of another clip.
    apart = np.abs(gt.params["body_pose"][:, 3:5, 0].ravel()[:, None] - knees).min(axis=1)
    assert apart.max() < 1e-5


def test_mscoco_truth_projects_to_the_written_keypoints(studios):
    report = studios("mscoco")
    _, points = whole_body(report)
    gt = load(report, "SMPLX_all")
    assert len(gt) == len(points) == report.annotation_count
    body = gt.forward(want="joints", regressor="coco-17").project().numpy()
    seen = points[:, :17, 2] > 0
    assert np.abs(body - points[:, :17, :2])[seen].max() < 0.01
    from neuralannot.joint_sets import convert_joints

    model = gt.forward(want="joints").project().numpy()
    converted, there = convert_joints(model, "smplx", "coco-wholebody-133")
    use = (points[..., 2] > 0) & there
    use[:, :17] = False
    assert use.sum() > 50
    assert np.abs(converted - points[..., :2])[use].max() < 0.01


def test_mscoco_hands_and_faces_are_the_same_bodies_in_other_models(studios):
    from neuralannot.synthetic.kinship import kin_of

    report = studios("mscoco")
    whole = load(report, "SMPLX_all")
    vertices = dict(zip(whole.ids.tolist(), whole.forward().vertices.numpy(), strict=True))
    checked = 0
    for name, model in (("_MANO_", "mano"), ("_FLAME_", "flame")):
        gt = load(report, name)
        posed = gt.forward()
        for row, id_ in enumerate(gt.ids.tolist()):
            side = None if gt.side is None else str(gt.side[row])
            kin = kin_of(model, side)
            own = posed.vertices[row].numpy()
            off = np.linalg.norm(own - vertices[id_][kin.vertices], axis=-1)[kin.rigid]
            assert off.mean() * MM < 0.5
            assert off.max() * MM < 3
            checked += 1
    assert checked >= 4


def test_mscoco_flags_follow_what_the_picture_shows(studios):
    report = studios("mscoco")
    content, points = whole_body(report)
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    flags = points[..., 2]
    assert set(np.unique(flags)) == {0, 1, 2}
    assert (points[flags == 0] == 0).all()
    for ann, own in zip(content["annotations"], points, strict=True):
        labelled = own[own[:, 2] > 0, :2]
        assert (labelled >= 0).all()
        assert (labelled <= np.array(sizes[ann["image_id"]]) - 1).all()
        assert ann["num_keypoints"] == (own[:17, 2] > 0).sum()
        for part, rows in (("face", slice(23, 91)), ("lefthand", slice(91, 112))):
            assert ann[f"{part}_valid"] == bool((own[rows, 2] > 0).any())
            assert ann[f"{part}_valid"] == (ann[f"{part}_box"] != [0, 0, 0, 0])


def test_the_two_mscoco_files_agree(studios):
    report = studios("mscoco")
    whole, body = (json.loads(path.read_text()) for path in report.annotations)
    assert [p.name for p in report.annotations] == [
        "coco_wholebody_train_v1.0.json",
        "person_keypoints_train2017.json",
    ]
    for a, b in zip(whole["annotations"], body["annotations"], strict=True):
        assert {k: a[k] for k in b} == b
        assert "face_kpts" not in b


def test_interhand_truth_gives_the_written_joints(studios):
    report = studios("interhand26m")
    gt = load(report)
    written = read_joints(report.joints[0], "InterHand2.6M", None)
    index = {tuple(k): j for k, j in zip(written["joint/key"].tolist(), written["joint/world"], strict=True)}
    kinds = set()
    for side in ("right", "left"):
        rows = gt.rows(np.flatnonzero(gt.side == side))
        joints = rows.forward(space="world", want="joints", regressor="interhand-21").joints.numpy()
        half = slice(0, 21) if side == "right" else slice(21, 42)
        given = np.array([index[tuple(int(k) for k in key[:2])][half] for key in rows.keys])
        assert np.abs(joints - given).max() * MM < 0.01
        kinds.add(side)
    assert kinds == {"right", "left"}
    # A hand that is not there is not valid, and has no fit.
    content = json.loads(report.truth[0].read_text())
    for (capture, frame), joints in index.items():
        entry = content[str(capture)][str(frame)]
        assert np.isfinite(joints[:21]).all() == (entry["right"] is not None)
        assert np.isfinite(joints[21:]).all() == (entry["left"] is not None)


def test_interhand_cameras_look_at_the_hands(studios):
    report = studios("interhand26m")
    cameras = read_cameras(report.cameras[0], "InterHand2.6M")
    assert len({cam for _, cam in cameras}) == 4
    for camera in cameras.values():
        pixels = camera.project(camera.world_to_camera(np.zeros((1, 1, 3), np.float32)))[0, 0]
        assert np.abs(pixels - 48).max() < 12


def test_ffhq_truth_projects_to_the_written_keypoints(studios):
    report = studios("ffhq")
    content = json.loads(report.annotations[0].read_text())
    gt = load_pseudo_gt(report.truth[0], annotations=False, cache=False)
    pixels = gt.forward(want="joints").project().numpy()
    for ann, id_, own in zip(content["annotations"], gt.ids.tolist(), pixels, strict=True):
        assert ann["id"] == id_
        points, valid = np.reshape(ann["keypoints"], (-1, 2)), np.array(ann["keypoints_valid"], bool)
        assert points.shape == (73, 2)
        assert not valid[:5].any()
        assert valid[5:].sum() > 60
        assert np.abs(points[5:56] - own[5:])[valid[5:56]].max() < 0.01
        x, y, w, h = ann["bbox"]
        inside = (points >= (x - 0.02, y - 0.02)) & (points <= (x + w + 0.02, y + h + 0.02))
        assert inside[valid].all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_with_its_annotations_and_images(studios, layout):
    report = studios(layout)
    for truth in report.truth:
        gt = load(report, truth.name)
        assert len(gt)
        assert gt.missing == [] or layout in ("interhand26m", "mscoco")
        assert np.isfinite(gt.box_xywh).all()
        for path, size in zip(gt.image_path, gt.image_size, strict=True):
            assert read_image(report.images / str(path)).shape[1::-1] == tuple(size)
    assert len(list(report.images.rglob("*.jpg"))) == report.image_count


def test_truth_finds_its_companions_alone(studios):
    report = studios("human36m")
    alone, named = load_pseudo_gt(report.truth, cache=False), load(report)
    assert alone.ids.tolist() == named.ids.tolist()
    assert np.array_equal(alone.joints_world, named.joints_world)
    joints = alone.forward(space="world", want="joints", regressor="human36m-17").joints.numpy()
    assert np.abs(joints - alone.joints_world).max() * MM < 0.01


# --- the picture shows the truth


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bodies_cover_the_pixels_that_were_painted(tmp_path, monkeypatch, layout):
    from neuralannot.synthetic import painting

    module, pictures = studio_module._room(layout), []

    def painted(*arguments):
        picture = painting.paint(*arguments)
        pictures.append(picture)
        return picture

    monkeypatch.setattr(module, "paint", painted)
    size = SMALL[layout][1]
    report = made(tmp_path / "s", layout, count=4, image_size=2 * size)
    gt = load(report, "SMPLX_all" if layout == "mscoco" else "")
    bodies = gt.forward()
    names = dict.fromkeys(image["file_name"] for path in report.annotations for image in images_of(path))
    row_images = [str(path) for path in gt.image_path]
    overlaps = []
    for number, (name, picture) in enumerate(zip(names, pictures[-len(names) :], strict=True)):
        rows = [r for r, path in enumerate(row_images) if path.endswith(name)]
        assert rows, (number, name)
        height, width = picture.owner.shape
        layers = render_layers(
            [bodies.vertices[r].numpy() for r in rows],
            [bodies.faces_of(r) for r in rows],
            gt.camera.focal[rows],
            gt.camera.princpt[rows],
            (width, height),
        )
        union = np.zeros((height, width), bool)
        for layer in layers:
            x0, y0, x1, y1 = layer.box
            union[y0:y1, x0:x1] |= layer.mask
        shown = picture.owner >= 0
        # What stands before a person hides it: all that is painted as a person is a body, not always v.v.
        assert (shown & ~union).sum() <= 0.004 * shown.sum() + 2
        overlaps.append((shown & union).sum() / union.sum())
    assert np.median(overlaps) > (0.995 if layout in ("human36m", "mscoco") else 0.9)


def images_of(path):
    return json.loads(path.read_text())["images"]


def test_the_written_image_is_the_painted_one(tmp_path, monkeypatch):
    from neuralannot.synthetic import human36m

    kept = []

    def finished(image, rng):
        kept.append(np.clip(np.rint(image * 255), 0, 255).astype(np.uint8))
        return kept[-1]

    monkeypatch.setattr(human36m, "finish", finished)
    report = made(tmp_path / "s", "human36m", count=4)
    for image, path in zip(kept, sorted(report.images.rglob("*.jpg")), strict=True):
        assert np.abs(read_image(path).astype(int) - image).mean() < 4


# --- the same settings, the same bytes


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.slow
def test_workers_do_not_change_a_byte(tmp_path, studios):
    made(tmp_path / "two", "mscoco", workers=2)
    assert digest(tmp_path / "two") == digest(studios("mscoco").out)


def test_seeds_change_everything_and_noise_changes_joints_alone(tmp_path, studios):
    other = made(tmp_path / "other", "ffhq", seed=1)
    noisy = made(tmp_path / "noisy", "ffhq", noise_px=3.0)
    first, second, third = (digest(r.out) for r in (studios("ffhq"), other, noisy))
    jpegs = [name for name in first if name.endswith(".jpg")]
    assert all(first[name] != second[name] for name in jpegs)
    assert all(first[name] == third[name] for name in (*jpegs, "truth/FFHQ_FLAME_NeuralAnnot.json"))
    assert first["annotations/FFHQ.json"] != third["annotations/FFHQ.json"]


# --- noise and missing joints


def test_noise_in_millimetres_is_as_asked(tmp_path, studios):
    noisy = made(tmp_path / "s", "interhand26m", noise_mm=7.0)
    clean = read_joints(studios("interhand26m").joints[0], "InterHand2.6M", None)["joint/world"]
    given = read_joints(noisy.joints[0], "InterHand2.6M", None)["joint/world"]
    off = (given - clean)[np.isfinite(clean)] * MM
    assert abs(off.std() - 7) < 7 * 4 / np.sqrt(2 * len(off))
    assert abs(off.mean()) < 7 * 4 / np.sqrt(len(off))
    assert json.loads(noisy.truth[0].read_text()) == json.loads(studios("interhand26m").truth[0].read_text())


def test_noise_in_pixels_is_as_asked(tmp_path, studios):
    noisy = made(tmp_path / "s", "mscoco", noise_px=4.0)
    (_, clean), (_, given) = whole_body(studios("mscoco")), whole_body(noisy)
    assert (clean[..., 2] == given[..., 2]).all()
    off = (given - clean)[..., :2][clean[..., 2] > 0].ravel()
    assert abs(off.std() - 4) < 4 * 4 / np.sqrt(2 * len(off))


def test_missing_joints_are_marked_in_both_files(tmp_path, studios):
    lacking = made(tmp_path / "s", "interhand26m", missing=0.3)
    full = read_joints(studios("interhand26m").joints[0], "InterHand2.6M", None)["joint/world"]
    given = read_joints(lacking.joints[0], "InterHand2.6M", None)["joint/world"]
    there, kept = np.isfinite(full).all(-1), np.isfinite(given).all(-1)
    assert not (kept & ~there).any()
    share = 1 - kept.sum() / there.sum()
    assert abs(share - 0.3) < 4 * np.sqrt(0.21 / there.sum())
    raw = json.loads(lacking.joints[0].read_text())
    gt = load(lacking)
    noted = {ann["image_id"]: ann for ann in json.loads(lacking.annotations[0].read_text())["annotations"]}
    for image in images_of(lacking.annotations[0]):
        entry = raw[str(image["capture"])][str(image["frame_idx"])]
        flags = [[int(flag[0])] for flag in entry["joint_valid"]]
        assert noted[image["id"]]["joint_valid"] == flags
        dummies = np.array(entry["world_coord"])[np.array(flags)[:, 0] == 0]
        assert (dummies == 1).all()
    assert len(gt)


def test_missing_keypoints_have_no_place(tmp_path, studios):
    lacking = made(tmp_path / "s", "mscoco", missing=0.5)
    (_, full), (content, given) = whole_body(studios("mscoco")), whole_body(lacking)
    gone = (full[..., 2] > 0) & (given[..., 2] == 0)
    share = gone.sum() / (full[..., 2] > 0).sum()
    assert abs(share - 0.5) < 4 * np.sqrt(0.25 / (full[..., 2] > 0).sum())
    assert (given[gone] == 0).all()
    assert (given[~gone] == full[~gone]).all()
    for ann, own in zip(content["annotations"], given, strict=True):
        assert ann["num_keypoints"] == (own[:17, 2] > 0).sum()


def test_missing_faces_are_flagged(tmp_path):
    report = made(tmp_path / "s", "ffhq", missing=0.5, count=8)
    for ann in json.loads(report.annotations[0].read_text())["annotations"]:
        valid = np.array(ann["keypoints_valid"], bool)
        assert 10 < valid.sum() < 60
        assert (np.reshape(ann["keypoints"], (-1, 2))[~valid] == 0).all()


# --- options


def test_smplx_people_views_and_sizes(tmp_path):
    report = make_studio(
        tmp_path / "s",
        layout="human36m",
        count=3,
        views=3,
        model="smplx",
        image_size=(120, 90),
        workers=1,
        noise_mm=2,
    )
    gt = load(report)
    assert (gt.model, len(gt), len(report.cameras)) == ("smplx", 3, 1)
    assert set(map(tuple, gt.image_size.tolist())) == {(120, 90)}
    joints = gt.forward(space="world", want="joints", regressor="human36m-17").joints.numpy()
    written = read_joints(report.joints[0], "Human3.6M", 1)["joint/world"]
    assert 0.5 < (np.abs(joints[:1] - written) * MM).mean() < 4


def test_default_sizes_are_the_data_sets(tmp_path):
    report = make_studio(tmp_path / "s", layout="interhand26m", count=1, views=1, workers=1)
    assert read_image(next(report.images.rglob("*.jpg"))).shape == (512, 334, 3)
    assert LAYOUTS["human36m"].image_size == (1000, 1000)


def test_progress_is_shown_where_asked(tmp_path, capfd):
    made(tmp_path / "a", "ffhq", count=1, progress=True)
    assert "ffhq" in capfd.readouterr().err
    made(tmp_path / "b", "ffhq", count=1)
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "coco"}, "unknown layout 'coco'; expected one of human36m, mscoco"),
        ({"count": 0}, "count must be a number of images of at least 1, got 0"),
        ({"count": 2.0}, "count must be a number"),
        ({"count": 9}, "multiple of the 4 views.*got 9, the next are 8 and 12"),
        ({"count": 3}, "the next are 4"),
        ({"clips": ["99_99"]}, "unknown clip '99_99'; the motions are 01_01, 02_01, 03_02"),
        ({"layout": "ffhq", "clips": ["01_01"]}, "no bodies that move"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"views": 0}, "views must be 1 to 16"),
        ({"layout": "ffhq", "views": 4}, "a camera of its own; leave views out"),
        ({"noise_px": 1.0}, "joints are in mm; use noise_mm instead of noise_px"),
        ({"layout": "mscoco", "noise_mm": 1.0}, "use noise_px"),
        ({"noise_mm": -1.0}, "noise_mm must be at least 0"),
        ({"noise_mm": float("nan")}, "noise_mm must be at least 0"),
        ({"missing": 0.1}, "no place to say that a joint is missing"),
        ({"layout": "ffhq", "missing": 1.0}, "a share of the joints"),
        ({"model": "mano"}, "smpl or smplx, not of 'mano'"),
        ({"image_size": (10, 10)}, "32 to 8192"),
        ({"image_size": "large"}, "one number or"),
        ({"regressor": "J.npy"}, "the open body has its own"),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_studio(tmp_path / "s", **{"layout": "human36m", "count": 4, "image_size": 64, **options})
    assert not list(tmp_path.rglob("*.jpg"))


def test_models_that_are_not_there_are_named_before_anything_is_written(tmp_path):
    (tmp_path / "models").mkdir()
    with pytest.raises(FileNotFoundError, match=r"SMPL_NEUTRAL\.pkl"):
        made(tmp_path / "s", "human36m", body_models=tmp_path / "models")
    assert not (tmp_path / "s").exists()


def test_official_files_serve_as_they_are(tmp_path):
    """Copies of the open files stand for official ones: a folder of the user's is taken to hold those."""
    from neuralannot.body_models.model import OPEN_FOLDER

    models = shutil.copytree(OPEN_FOLDER, tmp_path / "models")
    report = made(tmp_path / "s", "mscoco", count=2, body_models=models)
    assert [p.name for p in report.truth] == ["MSCOCO_train_SMPLX_all_NeuralAnnot.json"]
    assert "MANO and FLAME truth" in report.left_out[0]
    with pytest.raises(ValueError, match=r"no human36m-17 regressor ships for official smpl.*regressor="):
        made(tmp_path / "h", "human36m", body_models=models)
    assert not (tmp_path / "h").exists()
    weights = np.zeros((17, 6890), np.float32)
    weights[:, :100] = 0.01
    np.save(tmp_path / "own.npy", weights)
    made(tmp_path / "h", "human36m", count=4, body_models=models, regressor=tmp_path / "own.npy")
    joints = read_joints(tmp_path / "h/annotations/Human36M_subject1_joint_3d.json", "Human3.6M", 1)
    assert np.ptp(joints["joint/world"], axis=1).max() == 0


# --- the folder


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="something that is no studio"):
        made(tmp_path, "ffhq")
    with pytest.raises(FileExistsError, match="a file; give a folder"):
        made(tmp_path / "mine.txt", "ffhq")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_studio_that_is_there_is_reported_and_another_refused(tmp_path, studios):
    report = studios("ffhq")
    before = digest(report.out)
    again = made(report.out, "ffhq")
    assert again.seconds == 0
    assert (again.truth, again.annotation_count) == (report.truth, report.annotation_count)
    with pytest.raises(FileExistsError, match=r"other settings: seed=0 \(asked: 5\)"):
        made(report.out, "ffhq", seed=5)
    assert digest(report.out) == before
    (tmp_path / MARKER).write_text("{")
    with pytest.raises(FileExistsError, match="not a studio's"):
        made(tmp_path, "ffhq")


@pytest.mark.slow
def test_a_killed_studio_has_no_annotations_and_is_made_again(tmp_path):
    folder = tmp_path / "s"
    settings = {"layout": "human36m", "count": 60, "image_size": 64, "workers": 1}
    code = f"from neuralannot.synthetic import make_studio; make_studio({str(folder)!r}, **{settings!r})"
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code])
    deadline = time.monotonic() + 60
    while not any(folder.rglob("*.jpg")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert {p.name for p in folder.rglob("*.json")} == {MARKER}
    with pytest.raises(FileExistsError, match=r"other settings: count=60 \(asked: 4\)"):
        make_studio(folder, **{**settings, "count": 4})
    report = make_studio(folder, **settings)
    assert len(load(report)) == 60


def test_a_disk_that_is_full_is_said_with_the_file(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write an image: .*00000\.jpg"):
            made(tmp_path / "s", "ffhq")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p.name for p in (tmp_path / "s").rglob("*.json")} == {MARKER}


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write the studio.*file/s"):
        made(tmp_path / "file" / "s", "ffhq")


def test_a_worker_that_dies_is_said(tmp_path):
    killer = (
        "import os, signal, threading, time\n"
        "import multiprocessing\n"
        "from neuralannot.synthetic import make_studio\n"
        "def kill():\n"
        "    while len(multiprocessing.active_children()) < 2:\n"
        "        time.sleep(0.01)\n"
        "    time.sleep(0.5)\n"  # all work is handed out: Python's pool may hang on a death before
        "    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)\n"
        "if __name__ == '__main__':\n"
        "    threading.Thread(target=kill, daemon=True).start()\n"
        f"    make_studio({str(tmp_path / 's')!r}, layout='ffhq', count=8, image_size=64, workers=2)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(killer)
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "a worker process died" in run.stderr
