"""The command line as a user meets it: what it prints, what it writes, and one line for a mistake."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import trimesh

from neuralannot import RELEASES, cli, load_pseudo_gt
from neuralannot.demo import FILES, SAMPLE, main, missing_files
from neuralannot.images import read_image

COCO = "MSCOCO_train_SMPL_NeuralAnnot.json"
WALK = "human36m/Human36M_subject1_SMPL_NeuralAnnot.json"


@pytest.fixture
def data(tmp_path, monkeypatch):
    shutil.copytree(SAMPLE / "mscoco", tmp_path, dirs_exist_ok=True)
    shutil.copytree(SAMPLE / "human36m", tmp_path / "human36m")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEURALANNOT_BODY_MODELS", raising=False)
    return tmp_path


@pytest.fixture
def run(data, capsys):
    def call(*arguments):
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_demo_writes_every_file(run, data):
    status, out, _ = run("demo", "--out", "demo_out")
    assert status == 0
    assert missing_files("demo_out") == []
    assert all(name in out for name in FILES)
    assert str((data / "demo_out").resolve()) in out
    original = read_image(SAMPLE / "mscoco/train2017/astronaut.png")
    for model in ("smpl", "smplx", "flame"):
        picture = read_image(f"demo_out/astronaut/overlay_{model}.png")
        assert picture.shape == original.shape
        changed = (picture != original).any(axis=2)
        assert 0.02 < changed.mean() < 0.6  # a body on it, and the background untouched
    saved = load_pseudo_gt("demo_out/walk/camera_space.safetensors")
    assert (len(saved), saved.space) == (96, "camera")


def test_demo_check_tells_what_is_missing(data, capsys):
    assert main(["--check", "nowhere"]) == 1
    assert f"nowhere/{FILES[0]}: not written" in capsys.readouterr().err


def test_releases_prints_every_release_with_its_companions(run):
    status, out, _ = run("releases")
    assert status == 0
    for release in RELEASES.values():
        assert release.name in out
        assert release.page in out
    assert "MPI-INF-3DHP_camera_1k.json" in out
    assert run("releases", "interhand")[1].count("file  ") == 1


def test_info_counts_what_the_file_holds(run):
    status, out, _ = run("info", WALK)
    assert status == 0
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["release"].startswith("human36m-smpl: Human3.6M, SMPL, world")
    assert lines["rows"].startswith("96 ")
    assert lines["images"] == "96"
    assert lines["missing"].startswith("0 ")
    assert lines["cameras"].startswith("4 ")
    assert lines["body"] == "96 valid (100.0 %)"


def test_info_of_a_file_without_companions(run, data):
    (data / "alone").mkdir()
    shutil.copy(WALK, data / "alone")
    out = run("info", data / "alone" / WALK.split("/")[1])[1]
    assert "24 fits" in out
    assert "Human36M_subject1_data.json" in out
    assert "none loaded" in out


@pytest.mark.parametrize("suffix", ["obj", "ply", "glb"])
def test_export_writes_the_meshes_that_forward_gives(run, suffix):
    status, _, _ = run("export", COCO, "--ids", "1", "--to", suffix, "--out", "meshes")
    assert status == 0
    mesh = trimesh.load_mesh(f"meshes/1.{suffix}", process=False)
    expected = load_pseudo_gt(COCO).forward([1])
    assert len(mesh.vertices) == 6890
    ours = np.sort(np.linalg.norm(expected.vertices[0].numpy(), axis=1))
    assert np.allclose(np.sort(np.linalg.norm(mesh.vertices, axis=1)), ours, atol=1e-4)


def test_export_npz_by_frame_key_and_regressor(run):
    arguments = ("--ids", "1/14/1/0", "--to", "npz", "--out", "out/joints.npz", "--regressor", "human36m-17")
    status, _, err = run("export", WALK, *arguments)
    assert status == 0, err
    with np.load("out/joints.npz", allow_pickle=False) as archive:
        gt = load_pseudo_gt(WALK)
        rows = gt.rows_of((1, 14, 1, 0))
        joints = gt.rows(rows).forward(regressor="human36m-17", want="joints")
        assert archive["joints"].shape == (4, 17, 3)
        assert np.allclose(archive["joints"], joints.joints.numpy(), atol=1e-6)
        assert np.allclose(archive["joints_2d"], joints.project().numpy(), atol=1e-3)
        assert archive["names"].tolist() == [str(i) for i in gt.ids[rows]]
        assert np.array_equal(archive["param_betas"], gt.rows(rows).params["betas"])


def test_render_finds_the_people_of_the_image(run):
    status, out, _ = run("render", COCO, "--image", "train2017/astronaut.png", "--out", "overlay.png")
    assert status == 0
    assert out.startswith("1 bodies on")
    picture = read_image("overlay.png")
    image = read_image("train2017/astronaut.png")
    assert np.array_equal(picture, load_pseudo_gt(COCO).forward().overlay(image))


def test_models_check_and_convert(run, data):
    from neuralannot.body_models.model import OPEN_FOLDER

    status, out, _ = run("models", "check", OPEN_FOLDER)
    assert status == 0
    assert out.count("ok ") == 11
    assert "SMPL_MALE" in out
    assert "register at https://flame.is.tue.mpg.de" in out
    shutil.copytree(OPEN_FOLDER / "mano", data / "some" / "mano")
    status, out, _ = run("models", "check", "some")
    assert out.count("ok ") == 2
    assert "SMPL_MALE" in out
    assert "register at https://smpl.is.tue.mpg.de" in out
    source = OPEN_FOLDER / "mano" / "MANO_RIGHT.npz"
    assert run("models", "convert", source, "MANO_RIGHT.npz")[0] == 0
    with np.load("MANO_RIGHT.npz", allow_pickle=False) as copy, np.load(source) as original:
        assert np.array_equal(copy["v_template"], original["v_template"])


MISTAKES = {
    "no file": (("info", "absent.json"), "absent.json: no such file"),
    "another name": (("info", "person_keypoints_train2017.json"), "not a released file name; pass release="),
    "unknown release": (("info", COCO, "--release", "coco-smpl"), "did you mean 'mscoco-smpl'?"),
    "unknown id": (
        ("export", COCO, "--ids", "5", "--to", "obj", "--out", "x"),
        "id 5: unknown to mscoco-smpl",
    ),
    "not an id": (("export", COCO, "--ids", "five", "--to", "obj", "--out", "x"), "--ids: 'five' is neither"),
    "no space": (
        ("export", COCO, "--to", "obj", "--out", "x", "--space", "world"),
        "fits are in the camera's space",
    ),
    "official regressor": (
        ("export", COCO, "--to", "npz", "--out", "x", "--regressor", "regressor.npy"),
        "garbage on the open body",
    ),
    "no model folder": (
        ("export", COCO, "--to", "obj", "--out", "x", "--body-models", "nowhere"),
        "nowhere",
    ),
    "another image": (("render", COCO, "--image", "wrong.png", "--out", "o.png"), "called wrong.png"),
    "no argument": (("render", COCO), "--image, --out"),
    "no command": ((), "COMMAND"),
    "bad choice": (("export", COCO, "--to", "fbx", "--out", "x"), "fbx"),
}


@pytest.mark.filterwarnings("ignore:no official body models")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_take_one_line_and_exit_status_2(mistake, run, data):
    np.save(data / "regressor.npy", np.zeros((17, 6890), np.float32))
    arguments, expected = MISTAKES[mistake]
    status, out, err = run(*arguments)
    assert status == 2
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("neuralannot: note:")]
    assert len(lines) == 1
    assert expected in lines[0]
    assert "Traceback" not in err
    assert not os.path.exists("x") or not os.listdir("x")


def test_an_image_of_another_size_is_refused(run, data):
    from neuralannot.images import write_image

    (data / "small").mkdir()
    write_image("small/astronaut.png", read_image("train2017/astronaut.png")[::2, ::2])
    status, _, err = run("render", COCO, "--image", "small/astronaut.png", "--out", "o.png")
    assert status == 2
    assert "the image is 256x256 px, its camera belongs to 512x512" in err
    assert not os.path.exists("o.png")


@pytest.mark.parametrize("command", ["demo", "releases", "info", "export", "render", "report", "models"])
def test_help_shows_an_example(command, run):
    status, out, _ = run(command, "--help")
    assert status == 0
    assert f"example: neuralannot {command}" in " ".join(out.split())


def test_a_reader_who_stops_reading_is_no_error(data):
    process = subprocess.Popen(
        [sys.executable, "-m", "neuralannot.cli", "releases"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait()
