"""The commands of training as a user meets them: what they print and write, and one line for a mistake."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import a_run, studio

from neuralannot import cli, load_pseudo_gt
from neuralannot.images import read_image
from neuralannot.synthetic import make_studio
from neuralannot.train.checkpoint import load_checkpoint
from neuralannot.train.commands import _changes
from neuralannot.train.config import TrainConfig, config_with, field_types, preset

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
# As `training_runs.a_run` has them, on the command line.
SMALL = (
    *("--image-size", 32, "--batch", 6, "--head-width", 64, "--joint-width", 32, "--workers", 0),
    *("--max-steps", 2, "--window", 4, "--log-every", 1, "--checkpoint-every", 2, "--device", "cpu"),
)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEURALANNOT_BODY_MODELS", raising=False)

    def call(*arguments: Any) -> tuple[int, str, str]:
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return call


def refused(found: tuple[int, str, str], text: str) -> None:
    """Exit status 2, and the mistake as the last line, without a traceback."""
    status, out, err = found
    assert (status, out) == (2, ""), err
    assert text in err.splitlines()[-1]
    assert "Traceback" not in err
    notes = [line for line in err.splitlines()[:-1] if not line.startswith("neuralannot: note: ")]
    assert [line for line in notes if "%|" not in line and line.strip()] == []  # bars are no lines of text


# --- synth


def test_synth_makes_what_make_studio_makes(run, tmp_path):
    given = ("synth", "made", "--layout", "human36m", "--count", 4, "--image-size", 64, "--workers", 1)
    more = ("--seed", 3, "--noise", 5, "--views", 2, "--model", "smplx")
    status, out, err = run(*given, *more)
    assert status == 0, err
    assert out.splitlines()[0] == "4 images, 4 annotations: made"
    assert any(line.startswith("true parameters: made/") for line in out.splitlines())
    other = make_studio(
        tmp_path / "other",
        layout="human36m",
        count=4,
        image_size=64,
        seed=3,
        noise_mm=5,
        views=2,
        model="smplx",
        workers=1,
    )
    files = sorted(path.relative_to(other.out) for path in other.out.rglob("*") if path.is_file())
    assert len(files) > 4
    assert all((tmp_path / "made" / f).read_bytes() == (other.out / f).read_bytes() for f in files)
    assert run(*given, *more)[0] == 0  # it is there already
    refused(run(*given, "--seed", 4), "made")


def test_what_synth_refuses(run, tmp_path):
    given = ("synth", "other", "--layout")
    refused(run(*given, "ffhq", "--count", 4, "--model", "smplx"), "ffhq has people of flame, not of 'smplx'")
    refused(run(*given, "human36m", "--missing", 0.1), "no place to say that a joint is missing")
    refused(run(*given, "mpii"), "invalid choice: 'mpii'")
    refused(run(*given, "ffhq", "--count", 0), "count")
    refused(run(*given, "ffhq", "--colour", "red"), "unrecognized arguments: --colour red")
    refused(run(*given, "ffhq", "--mising", 0.1), "did you mean --missing?")
    refused(run("synth", "--layout", "ffhq"), "the following arguments are required: out")
    assert not (tmp_path / "other").exists()


def test_python_m_is_the_command():
    """`torchrun -m neuralannot` starts processes this way."""
    done = subprocess.run(
        [sys.executable, "-m", "neuralannot", "releases", "ffhq"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ffhq-flame")


# --- train check


def test_check_counts_and_draws(run, tmp_path):
    folder = studio("human36m")
    given = ("train", "check", "human36m", "--data", folder, "--model", "smpl", "--out", "sheet.png")
    status, out, err = run(*given)
    assert status == 0, err
    assert "Human3.6M: 12 samples, 12 usable" in out
    assert out.splitlines()[-1] == "sheet.png"
    assert read_image(tmp_path / "sheet.png").std() > 10
    one = run(*given, "--views", 1, "--count", 2)[1]
    assert "3 samples, 3 usable" in one
    assert "contact sheet of 2" in one
    two = run(*given, "--views", 1, 3)[1]
    assert "6 samples, 6 usable" in two
    files = sorted((folder / "annotations").glob("Human36M_subject*_data.json"))
    subject = files[0].name.removeprefix("Human36M_subject").removesuffix("_data.json")
    some = len(json.loads(files[0].read_text())["annotations"])
    assert f"Human3.6M: {some} samples, {some} usable" in run(*given, "--subjects", subject)[1]
    few = run(*given, "--min-joints", 18)[1]
    assert "0 usable" in few
    assert "few joints" in few


def test_check_reads_the_user_s_own(run, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(studio("ffhq"), folder, ignore=shutil.ignore_patterns("*.safetensors", "truth"))
    source = folder / "annotations" / "FFHQ.json"
    content = json.loads(source.read_text())
    content["categories"] = []
    for annotation in content["annotations"]:
        points = np.array(annotation["keypoints"]).reshape(73, 2)
        flags = annotation.pop("keypoints_valid")
        whole = np.column_stack([points, flags])[np.r_[56:73, 5:56]]
        annotation["keypoints"] = whole.ravel().tolist()
    source.with_name("faces.json").write_text(json.dumps(content))
    given = ("train", "check", "coco-format", "--data", folder, "--model", "flame", "--out", "sheet.jpg")
    refused(run(*given), "expected one *.json")
    named = (*given, "--annotations", source.with_name("faces.json"))
    refused(run(*named), "or pass joint_set=")
    status, out, err = run(*named, "--joint-set", "coco-wholebody-face-68", "--name", "Portraits")
    assert status == 0, err
    assert "Portraits: 12 samples, 12 usable" in out
    assert "coco-wholebody-face-68 (68, 2D, in the wild)" in out


def test_what_check_refuses(run):
    folder = studio("human36m")
    given = ("train", "check", "human36m", "--data", folder, "--model", "smpl", "--out", "sheet.jpg")
    refused(run("train", "check", "humn36m", *given[3:]), "did you mean 'Human3.6M'?")
    refused(run("train", "check", "human36m", "--data", "nowhere", *given[5:]), "nowhere: no such folder")
    refused(run(*given[:-1], "sheet.gif"), "a contact sheet is written as .jpg or .png")
    refused(run(*given, "--joint-set", "coco-17"), "Human3.6M has no joint_set")
    refused(run(*given, "--subjects", 99), "99")
    refused(run(*given, "--views", "front"), "argument --views: invalid int value: 'front'")
    refused(run(*given, "--min-joints", 0), "min_joints must be a whole number from 1, got 0")
    refused(run(*given, "--scale", 2), "unrecognized arguments: --scale 2")
    refused(run("train", "check", "human36m"), "the following arguments are required: --data, --model, --out")
    refused(run("train"), "the following arguments are required: COMMAND")


# --- train fit, annotate


def test_fit_and_annotate_from_nothing_to_a_file(run, tmp_path):
    folder = studio("interhand26m")
    fit = ("train", "fit", "tiny-interhand-mano", "--data", folder, "--out", "run", *SMALL)
    status, out, err = run(*fit, "--no-canonical-joints", "--joints-3d-weight", 2, "--lr", "1e-3")
    assert status == 0, err
    said, path = out.splitlines()[-2:]
    assert said.startswith("2 steps: ")
    assert "total " in said
    assert path == str(Path("run") / "checkpoint.pt")
    config = load_checkpoint(tmp_path / "run" / "checkpoint.pt").config
    wanted = a_run(
        "interhand26m", max_steps=2, canonical_joints=False, joints_3d_weight=2.0, lr=1e-3, workers=0
    )
    assert config == wanted
    more = run(*fit, "--no-canonical-joints", "--joints-3d-weight", 2, "--lr", "1e-3", "--max-steps", 3)
    assert "\n3 steps: " in "\n" + more[1]
    refused(run(*fit), "is of another configuration: canonical_joints False there, True here")

    status, out, err = run("annotate", "run/checkpoint.pt", "--out", "fits")
    assert status == 0, err
    name = "InterHand2.6M_train_MANO_NeuralAnnot.json"
    assert out.splitlines()[-1] == str(Path("fits") / name)
    best = load_pseudo_gt(tmp_path / "fits" / name, annotations=False)
    assert f"{len(best)} fits of " in out
    assert " mm:" in out
    assert "without a fit" not in out
    status, out, err = run("annotate", "run/checkpoint.pt", "--out", "fused", "--views", "fuse", "--batch", 5)
    assert status == 0, err
    fused = load_pseudo_gt(tmp_path / "fused" / name, annotations=False)
    assert fused.keys == best.keys
    assert not np.array_equal(fused.params["hand_pose"], best.params["hand_pose"])


def test_annotate_says_what_has_no_fit(run, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(studio("ffhq"), folder, ignore=shutil.ignore_patterns("*.safetensors", "truth"))
    gone = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))[4]
    gone.unlink()
    status, out, err = run(
        "train", "fit", "tiny-ffhq-flame", "--data", folder, "--out", "run", *SMALL, "--inputs", "image"
    )
    assert status == 0, err
    status, out, err = run("annotate", "run/checkpoint.pt", "--out", "fits")
    assert status == 0, err
    first, second, third, last = out.splitlines()
    assert first == "without a fit: 1 (image missing)"
    assert second == f"listed in {Path('fits') / 'unusable.csv'}"
    assert gone.name in (tmp_path / "fits" / "unusable.csv").read_text()
    assert third.startswith("11 fits of 11 samples, joint error ")
    assert third.endswith(" px of 256 px crops:")
    assert last.endswith("FFHQ_FLAME_NeuralAnnot.json")


def test_what_fit_refuses(run):
    given = ("train", "fit", "tiny-human36m-smpl", "--data", studio("human36m"), "--out", "run")
    refused(run("train", "fit", "human36m", *given[3:]), "argument PRESET: invalid choice: 'human36m'")
    refused(run(*given, "--learning-rate", 1), "unrecognized arguments: --learning-rate 1")
    refused(
        run(*given, "--lrr", 1), "neuralannot train fit: unrecognized arguments: --lrr 1; did you mean --lr?"
    )
    refused(run(*given, "--betas", 1), "unrecognized arguments: --betas 1")  # betas_weight is another
    refused(run(*given, "--batch", "many"), "argument --batch: invalid int value: 'many'")
    refused(run(*given, "--lr", 0), "lr must be positive, got 0.0")
    refused(run(*given, "--mode", "both"), "mode must be one of mocap, wild, two-stage, got 'both'")
    refused(run(*given, "--precision", "fp16", "--device", "cpu", *SMALL), "precision fp16 needs a GPU")
    refused(run(*given[:3], "--out", "run"), "where is human36m? give data=")
    refused(run(*given[:5]), "the following arguments are required: --out")


def test_what_annotate_refuses(run, tmp_path):
    refused(run("annotate", "none.pt", "--out", "fits"), "none.pt: no such checkpoint")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    refused(run("annotate", "text.pt", "--out", "fits"), "text.pt: not a checkpoint")
    refused(run("annotate", "none.pt", "--out", "fits", "--views", "all"), "invalid choice: 'all'")
    refused(run("annotate", "none.pt", "--out", "fits", "--lr", 1), "unrecognized arguments: --lr 1")
    refused(run("annotate", "none.pt"), "the following arguments are required: --out")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--focal", 0), "focal must be positive, got 0"),
        (("--method", "smplify", "--camera", "image", "--focal", -1), "focal must be positive, got -1"),
        (("--method", "smplify", "--focal", 500), "the camera 'crop' has its own"),
        (("--method", "spin", "--camera", "image"), "whose camera is the crop's"),
        (
            ("--method", "network", "--camera", "image"),
            "the method network sees pictures through the release",
        ),
        (("--method", "eft", "--focal", 500), "leave --focal out"),
    ],
)
def test_cameras_that_annotate_refuses(run, given, message):
    refused(run("annotate", "none.pt", "--out", "fits", *given), message)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("fitted", "--focal", 500), "focal is for pictures; Human3.6M has GT 3D joints"),
        (("fitted", "--camera", "crop"), "fitted in space: leave camera='crop' out"),
        (("smplify", "--camera", "image"), "camera is for pictures"),
    ],
)
def test_joints_in_space_have_no_camera(run, given, message):
    data = ("--data", studio("human36m"))
    refused(run("annotate", "human36m-smpl", "--out", "fits", *data, "--method", *given), message)


@pytest.mark.parametrize("name", ["human36m-smpl", "mscoco-mano"])
def test_every_field_is_an_option(name, run):
    """What is given replaces the preset's value, whatever its kind; what is not stays."""
    given: dict[str, Any] = {
        "model": "smplx", "mode": "wild", "precision": "bf16", "data_set": ("mpii",), "outputs": "rotation6d",
        "backbone": "resnet34", "inputs": "joints",
        "data": ("a b",), "images": ("c",), "annotations": ("d",), "pseudo_gt": ("e",), "subjects": (1, 5),
    }  # fmt: skip
    for field, kind in field_types().items():
        was = getattr(preset(name), field)
        if field in given:
            continue
        if kind is bool:
            given[field] = not was
        elif kind in (int, float):
            given[field] = kind(was + 3) if field != "joint_dropout" else 0.5
        else:
            several = (3, 4) if kind == tuple[int, ...] else ("x=y",)
            given[field] = f"some {field}" if kind is str else several
    arguments = ["train", "fit", name, "--out", "there"]
    for field, value in given.items():
        option = field.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{option}" if value else f"--no-{option}")
        else:
            many = value if isinstance(value, tuple) else (value,)
            arguments += [f"--{option}", *map(str, many)]
    options = cli._parser().parse_args(arguments)
    assert config_with(preset(name), _changes(options)) == TrainConfig(**given)
    bare = cli._parser().parse_args(["train", "fit", name, "--out", "there"])
    assert _changes(bare) == {}
    status, out, _ = run("train", "fit", "--help")
    assert status == 0
    assert all(f"--{field.replace('_', '-')}" in out for field in given)


# --- merge-whole-body


def test_merge_puts_three_files_together(run, tmp_path):
    truth = studio("mscoco") / "truth"
    whole = load_pseudo_gt(truth / "MSCOCO_train_SMPLX_all_NeuralAnnot.json", annotations=False)
    files = [truth / f"MSCOCO_train_{part}_NeuralAnnot.json" for part in ("SMPLX_all", "MANO", "FLAME")]
    given = ("merge-whole-body", "--body", files[0], "--hands", files[1], "--face", files[2])
    status, out, err = run(*given, "--out", "all.json")
    assert status == 0, err
    assert out.strip().endswith("all.json")
    merged = load_pseudo_gt(tmp_path / "all.json", release="mscoco-smplx", annotations=False)
    assert merged.ids.tolist() == whole.ids.tolist()
    assert merged.valid["face"].any()
    status, out, err = run("merge-whole-body", "--body", files[0], "--out", "body.json")
    assert status == 0, err
    refused(run("merge-whole-body", "--body", "none.json", "--out", "a.json"), "none.json: no such file")
    refused(run("merge-whole-body", "--body", files[1], "--out", "a.json"), "MANO")
    refused(run(*given, "--out", "all.json", "--feet", "x"), "unrecognized arguments: --feet x")
    refused(run("merge-whole-body", "--out", "a.json"), "the following arguments are required: --body")
    assert not (tmp_path / "a.json").exists()
