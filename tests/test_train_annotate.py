"""Annotating: what is written against what the network said, resumed, shared, of other data, refused."""

from __future__ import annotations

import csv
import functools
import json
import shutil
import signal
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import Process
from training_runs import _KEPT, a_run, finish, free_port, one_of, studio

from neuralannot import load_pseudo_gt
from neuralannot.body_models import load_body_model
from neuralannot.images import write_image
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.train import annotate as room
from neuralannot.train import packing, parts
from neuralannot.train.annotate import AnnotateResult, restored
from neuralannot.train.checkpoint import load_checkpoint, save_checkpoint
from neuralannot.train.distributed import World
from neuralannot.train.estimates import estimates as network_estimates
from neuralannot.train.fit import fit
from neuralannot.train.network import project
from neuralannot.train.run import read_data
from neuralannot.train.views import group_views

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
ALONE = World(0, 1, torch.device("cpu"))
MOCAP = [
    ("human36m", "tiny-human36m-smpl", "Human36M_subject*", {"inputs": "joints"}),
    pytest.param("human36m", "tiny-human36m-smplx", "Human36M_subject*", {}, marks=pytest.mark.slow),
    ("interhand26m", "tiny-interhand-mano", "InterHand2.6M_train", {}),
]
WILD = [
    ("mscoco", "tiny-mscoco-smpl", "MSCOCO_train_SMPL_", {"inputs": "image+joints"}),
    pytest.param("mscoco", "tiny-mscoco-smplx-body", "MSCOCO_train_SMPLX_all_", {}, marks=pytest.mark.slow),
    ("mscoco", "tiny-mscoco-mano", "MSCOCO_train_MANO_", {}),
    pytest.param("mscoco", "tiny-mscoco-flame", "MSCOCO_train_FLAME_", {}, marks=pytest.mark.slow),
    pytest.param("ffhq", "tiny-ffhq-flame", "FFHQ_FLAME_", {}, marks=pytest.mark.slow),
]


def annotate(checkpoint: Path, out: Path, **options: Any) -> AnnotateResult:
    """What the network itself says; refining it has tests of its own."""
    return room.annotate(checkpoint, out, **{"method": "network", **options})


@functools.cache
def trained(layout: str, name: str | None = None, **changes: Any) -> Path:
    """The checkpoint of a run of a step, kept as long as the process: whatever the network says serves."""
    made = tempfile.TemporaryDirectory(prefix="run-")
    _KEPT.append(made)
    return fit(a_run(layout, name, max_steps=1, **changes), made.name).checkpoint


@functools.cache
def estimates(checkpoint: Path) -> dict[str, Any]:
    """What the network says of every usable sample, with its joints where they belong in the camera's frame.

    Posed here by the right hand's model and mirrored, not by what `annotate` wrote.
    """
    found = load_checkpoint(checkpoint)
    data = read_data(found.config, checkpoint.parent / "crops", ALONE)
    machinery = restored(found, found.config, data, ALONE.device)
    rows = np.flatnonzero(data.usable)
    said = next(network_estimates(machinery, found.config, data, [rows]))
    given = {n: torch.tensor(v) for n, v in said.items() if n != "error"}
    with torch.inference_mode():
        joints = machinery.body.joints(**given)
    samples, crops = data.samples[0].rows(rows), data.crops[0].rows(rows)
    return {
        "error": said["error"],
        "samples": samples,
        "joints": crops.mirror_cam(joints.numpy()),
        "pixels": crops.to_image(project(joints).numpy()),
        "transl": said["transl"],
        "orient": said["global_orient"],
    }


def annotated(checkpoint: Path, out: Path, **options: Any) -> tuple[AnnotateResult, Any]:
    """The result, and the files as they load, joined with their data set's annotations."""
    result = annotate(checkpoint, out, **options)
    return result, loaded(result, Path(load_checkpoint(checkpoint).config.data[0]))


def loaded(result: AnnotateResult, folder: Path) -> Any:
    noted = folder / "annotations"
    names = sorted(
        path for name in ("*_data.json", "coco_wholebody*.json", "FFHQ.json") for path in noted.rglob(name)
    )
    cameras = sorted(noted.rglob("*_camera.json")) or None
    return load_pseudo_gt(list(result.files), annotations=names, cameras=cameras, cache=False)


def whole(result: AnnotateResult) -> list[bytes]:
    return [path.read_bytes() for path in result.files]


def sides(samples: Any) -> np.ndarray:
    return np.full(len(samples), "") if samples.side is None else samples.side


def names_of(ids: np.ndarray, side: np.ndarray | None) -> list[tuple[int, str]]:
    side = np.full(len(ids), "") if side is None else side
    return list(zip(ids.tolist(), side.tolist(), strict=True))


# --- what is written is what the network said


@pytest.mark.parametrize(("layout", "name", "file", "changes"), MOCAP)
def test_a_body_stands_where_the_network_s_best_view_has_it(layout, name, file, changes, tmp_path):
    checkpoint = trained(layout, name, **changes)
    result, gt = annotated(checkpoint, tmp_path)
    assert all(path.match(f"{file}*_NeuralAnnot.json") for path in result.files)
    said = estimates(checkpoint)
    samples, error = said["samples"], said["error"]
    groups = group_views(samples.keys, samples.side)
    best = [int(min(np.flatnonzero(groups.of_row == g), key=lambda r: error[r])) for g in range(len(groups))]
    assert result.count == len(groups) < len(samples) == result.samples
    assert result.error == pytest.approx(error[best].mean(), rel=1e-5)
    assert gt.space == "world"
    assert not np.array_equal(samples.camera.R, np.broadcast_to(np.eye(3), samples.camera.R.shape))

    # Loaded, there is a row an annotation: those of the best views are to be found by id and side.
    at = {key: row for row, key in enumerate(names_of(gt.ids, gt.side))}
    rows = [at[key] for key in names_of(samples.ids[best], sides(samples)[best])]
    posed = gt.rows(rows).forward(want="joints", space="camera").joints.numpy()
    np.testing.assert_allclose(posed, said["joints"][best], atol=2e-5)

    # The other views of a frame see the same body, turned as the cameras are and not at all.
    all_rows = [at[key] for key in names_of(samples.ids, sides(samples))]
    in_world = gt.rows(all_rows).forward(want="joints", space="world").joints.numpy()
    turned = samples.camera.rows(best).camera_to_world(said["joints"][best])
    np.testing.assert_allclose(in_world, turned[groups.of_row], atol=2e-5)


def test_hands_of_both_sides_are_there_and_left_ones_are_right_ones_mirrored(tmp_path):
    checkpoint = trained("interhand26m", "tiny-interhand-mano")
    _, gt = annotated(checkpoint, tmp_path)
    said = estimates(checkpoint)
    assert set(gt.side) == {"right", "left"}
    samples = said["samples"]
    left = np.flatnonzero(samples.side == "left")
    # A hand that is mirrored is where its joints are, on the side of the image where they are.
    centre = said["joints"].mean(1)[left]
    wanted = np.nanmean(samples.joints_cam[left], 1)
    assert np.linalg.norm(centre - wanted, axis=1).max() < 0.1
    fits = load_pseudo_gt(tmp_path, annotations=False, cache=False)
    fits = fits.rows(fits.side == "left")
    params = {name: torch.tensor(values) for name, values in fits.params.items()}
    own = load_body_model("mano", side="left")(**params).vertices
    for name in ("global_orient", "hand_pose"):
        params[name] = params[name] * torch.tensor([1.0, -1.0, -1.0])
    params["transl"] = params["transl"] * torch.tensor([-1.0, 1.0, 1.0])
    right = load_body_model("mano", side="right")(**params).vertices
    torch.testing.assert_close(own, right * torch.tensor([-1.0, 1.0, 1.0]), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("layout", "name", "file", "changes"), WILD)
def test_a_fit_lands_on_the_image_where_the_network_saw_it(layout, name, file, changes, tmp_path):
    checkpoint = trained(layout, name, **changes)
    result, gt = annotated(checkpoint, tmp_path)
    assert [path.name for path in result.files] == [f"{file}NeuralAnnot.json"]
    said = estimates(checkpoint)
    samples = said["samples"]
    assert result.count == result.samples == len(samples) == len(gt) > 4
    assert result.error == pytest.approx(said["error"].mean(), rel=1e-5)
    rows = {key: row for row, key in enumerate(names_of(gt.ids, gt.side))}
    gt = gt.rows([rows[key] for key in names_of(samples.ids, sides(samples))])
    if samples.side is not None:
        assert set(samples.side) == {"right", "left"}
    np.testing.assert_allclose(gt.forward(want="joints").project().numpy(), said["pixels"], atol=0.02)
    np.testing.assert_allclose(gt.forward(want="joints").joints.numpy(), said["joints"], atol=2e-5)
    assert gt.image_path.tolist() == [str(p) for p in samples.image_path]
    np.testing.assert_array_equal(gt.image_size, samples.image_size)


def test_fused_views_are_one_fit_a_frame_and_say_their_error(tmp_path):
    checkpoint = trained("interhand26m", "tiny-interhand-mano")
    best, _ = annotated(checkpoint, tmp_path / "best")
    fused, gt = annotated(checkpoint, tmp_path / "fuse", views="fuse")
    assert fused.count == best.count
    assert whole(fused) != whole(best)
    samples = estimates(checkpoint)["samples"]
    assert gt.keys == [tuple(k) for k in gt.keys]
    assert len({(k, s) for k, s in zip(gt.keys, gt.side, strict=True)}) == fused.count
    # The error is that of the file's bodies: joints of the data set, in the world.
    rows = {key: row for row, key in enumerate(names_of(gt.ids, gt.side))}
    gt = gt.rows([rows[key] for key in names_of(samples.ids, samples.side)])
    posed = gt.forward(want="joints", space="camera", regressor="interhand-21").joints.numpy()
    apart = np.nanmean(np.linalg.norm(posed - samples.joints_cam, axis=2), axis=1)
    groups = group_views(samples.keys, samples.side)
    each = [apart[groups.of_row == g].mean() for g in range(len(groups))]
    assert fused.error == pytest.approx(np.mean(each), abs=2e-4)


def test_a_network_with_a_camera_of_its_own_is_placed_by_3d_joints_where_there_are_some(tmp_path):
    both = {
        "mode": "two-stage",
        "data_set": ["human36m", "mscoco"],
        "data": [str(studio("human36m")), str(studio("mscoco"))],
        "inputs": "image",
        "outputs": "rotation6d",
    }
    run = tmp_path / "run"
    checkpoint = fit(a_run("human36m", "tiny-human36m-smpl", **both), run).checkpoint
    with pytest.raises(ValueError, match="annotate one data set at a time, not human36m and mscoco"):
        annotate(checkpoint, tmp_path / "out")
    result = annotate(checkpoint, tmp_path / "mocap", data_set=["human36m"])
    gt = loaded(result, studio("human36m"))
    config = replace(load_checkpoint(checkpoint).config, data_set=("human36m",), data=(both["data"][0],))
    data = read_data(config, tmp_path / "mocap" / "crops", ALONE)
    samples = data.samples[0]
    rows = {int(i): row for row, i in enumerate(gt.ids)}
    gt = gt.rows([rows[int(i)] for i in samples.ids])
    posed = gt.forward(want="joints", space="camera", regressor="human36m-17").joints.numpy()
    np.testing.assert_allclose(posed.mean(1), samples.joints_cam.mean(1), atol=0.15)
    wild = annotate(checkpoint, tmp_path / "wild", data_set=["mscoco"])
    assert [p.name for p in wild.files] == ["MSCOCO_train_SMPL_NeuralAnnot.json"]
    assert not list(run.rglob("wild*"))


# --- the user's own data


def test_the_user_s_own_mocap_is_written_frame_by_frame(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(studio("human36m"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    for path in list((folder / "annotations").glob("Human36M_subject*")):
        path.rename(path.with_name(path.name.replace("Human36M_subject", "actor")))
    for path in folder.glob("annotations/*_data.json"):
        content = json.loads(path.read_text())
        content["categories"] = [
            {"id": 1, "name": "person", "keypoints": list(JOINT_SETS["human36m-17"].joints)}
        ]
        path.write_text(json.dumps(content))
    config = a_run("human36m", data_set=["mocap-format"], data=[str(folder)], inputs="joints")
    checkpoint = fit(config, tmp_path / "run").checkpoint
    result = annotate(checkpoint, tmp_path / "out")
    assert all(path.match("Human36M_subject*_SMPL_NeuralAnnot.json") for path in result.files)
    gt = loaded(result, folder)
    assert result.count == len(set(gt.keys)) == 3
    said = estimates(checkpoint)
    rows = {int(i): row for row, i in enumerate(gt.ids)}
    posed = gt.rows([rows[int(i)] for i in said["samples"].ids]).forward(want="joints", space="camera")
    apart = np.linalg.norm(posed.joints.numpy() - said["joints"], axis=2).max(1)
    assert (apart < 2e-5).sum() >= 3  # the best views


def test_the_user_s_own_files_may_have_any_name(tmp_path):
    """`cameras`, `joints` and `name` reach the reader from the run, and from the annotating after it."""
    given, stem = tmp_path / "given", "Human36M_subject1_"
    given.mkdir()
    source = studio("human36m") / "annotations"
    content = json.loads((source / f"{stem}data.json").read_text())
    names = list(JOINT_SETS["human36m-17"].joints)
    content["categories"] = [{"id": 1, "name": "person", "keypoints": names}]
    (given / "people.json").write_text(json.dumps(content))
    shutil.copy(source / f"{stem}camera.json", given / "rig.json")
    shutil.copy(source / f"{stem}joint_3d.json", given / "solved.json")
    files = {
        "annotations": [str(given / "people.json")],
        "cameras": [str(given / "rig.json")],
        "joints": [str(given / "solved.json")],
    }
    config = a_run(
        "human36m", data_set=["mocap-format"], data=[str(given)], inputs="joints", name="Ann's", **files
    )
    checkpoint = fit(config, tmp_path / "run").checkpoint
    said = estimates(checkpoint)["samples"]
    assert said.data_set == "Ann's"
    assert len(said) == len(content["annotations"])
    assert annotate(checkpoint, tmp_path / "out").count > 0
    # Elsewhere, under the usual names, without the options of the run.
    usual = tmp_path / "usual"
    usual.mkdir()
    for old, kind in (("people", "data"), ("rig", "camera"), ("solved", "joint_3d")):
        shutil.copy(given / f"{old}.json", usual / f"ann_{kind}.json")
    assert annotate(checkpoint, tmp_path / "again", data=[str(usual)]).count > 0
    with pytest.raises(ValueError, match=r"Human3\.6M has no name"):
        annotate(checkpoint, tmp_path / "x", data_set=["human36m"], data=[str(source.parent)], name="Ann's")


def test_the_user_s_own_pictures_get_a_file_name_of_their_own(tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(studio("ffhq"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    source = folder / "annotations" / "FFHQ.json"
    content = json.loads(source.read_text())
    names = JOINT_SETS["coco-wholebody-face-68"].joints
    content["categories"] = [{"id": 1, "name": "face", "keypoints": list(names)}]
    for annotation in content["annotations"]:
        annotation["category_id"] = 1
        points = np.array(annotation["keypoints"], float)
        count = len(annotation["keypoints_valid"]) if "keypoints_valid" in annotation else len(points) // 3
        points = points.reshape(count, -1)[:, :2]
        points = points[np.r_[56:73, 5:56]] if count == 73 else points
        annotation["keypoints"] = np.column_stack([points, np.full(len(points), 2)]).ravel().tolist()
        annotation.pop("keypoints_valid", None)
    source.with_name("faces.json").write_text(json.dumps(content))
    source.unlink()
    config = a_run(
        "ffhq",
        data_set=["coco-format"],
        data=[str(folder)],
        annotations=[str(source.with_name("faces.json"))],
    )
    checkpoint = fit(config, tmp_path / "run").checkpoint
    result = annotate(checkpoint, tmp_path / "out")
    assert [path.name for path in result.files] == ["COCO-format_FLAME_NeuralAnnot.json"]
    gt = load_pseudo_gt(
        result.files[0], release="ffhq-flame", annotations=source.with_name("faces.json"), cache=False
    )
    said = estimates(checkpoint)
    rows = gt.rows_of(said["samples"].ids.tolist())
    found = gt.rows(rows).forward(want="joints").project().numpy()
    np.testing.assert_allclose(found, said["pixels"], atol=0.02)
    assert gt.rows(rows).image_path.tolist() == said["samples"].image_path.tolist()


# --- stopped, killed, shared


SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from neuralannot.train import annotate as room
from neuralannot.train import parts
from neuralannot.train.distributed import leave_world
parts.CHUNK = 2
{before}
room.annotate(sys.argv[1], sys.argv[2])
leave_world()
"""


# The third part is being written.
DIES = """
import os, signal
calls, real = [], parts.write_table
def write(path, *content):
    calls.append(path)
    if len(calls) == 3:
        path.with_name(f".{path.name}.1-1.tmp").write_bytes(b"half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, *content)
parts.write_table = write
"""


def start(
    checkpoint: Path, out: Path, *, before: str = "", rank: int = 0, size: int = 1, port: int = 0
) -> Process:
    script = SCRIPT.replace("{before}", before)
    return Process("-c", script, checkpoint, out, environment=one_of(rank, size, port))


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "CHUNK", 2)


def parts_of(out: Path) -> dict[str, tuple[int, bytes]]:
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted((out / "parts").iterdir())}


def test_parts_that_are_there_are_not_made_again_and_those_that_are_not_are(tmp_path, small_parts):
    checkpoint = trained("interhand26m", "tiny-interhand-mano")
    result = annotate(checkpoint, tmp_path)
    written, before = whole(result), parts_of(tmp_path)
    assert len(before) > 4
    names = list(before)
    (tmp_path / "parts" / names[1]).unlink()
    (tmp_path / "parts" / names[3]).write_bytes(before[names[3]][1][:-5])
    (tmp_path / "parts" / names[4]).write_bytes(b"")
    for path in result.files:
        path.unlink()
    again = annotate(checkpoint, tmp_path)
    assert (whole(again), again) == (written, result)
    after = parts_of(tmp_path)
    assert {n: content for n, (_, content) in after.items()} == {n: c for n, (_, c) in before.items()}
    assert [n for n in names if after[n][0] != before[n][0]] == [names[1], names[3], names[4]]


@pytest.mark.slow
def test_annotating_that_was_killed_ends_as_if_it_had_not(tmp_path, small_parts):
    checkpoint = trained("human36m", "tiny-human36m-smpl", inputs="joints")
    wanted = room.annotate(checkpoint, tmp_path / "whole")
    killed = start(checkpoint, tmp_path / "killed", before=DIES)
    killed.ended()
    assert killed.returncode == -signal.SIGKILL
    there = parts_of(tmp_path / "killed")
    assert [name for name in there if name.endswith(".safetensors")] == [
        "00000.safetensors",
        "00001.safetensors",
    ]
    assert not list((tmp_path / "killed").glob("*.json"))
    found = room.annotate(checkpoint, tmp_path / "killed")
    assert [path.name for path in found.files] == [path.name for path in wanted.files]
    assert whole(found) == whole(wanted)
    after = parts_of(tmp_path / "killed")
    assert all(after[name] == there[name] for name in there)  # those that were whole stayed


@pytest.mark.slow
def test_two_processes_write_the_file_of_one(tmp_path, small_parts):
    checkpoint = trained("mscoco", "tiny-mscoco-mano")
    wanted = room.annotate(checkpoint, tmp_path / "one")
    port = free_port()
    pair = [start(checkpoint, tmp_path / "two", rank=rank, size=2, port=port) for rank in (0, 1)]
    for process in pair:
        finish(process)
    assert [(tmp_path / "two" / p.name).read_bytes() for p in wanted.files] == whole(wanted)
    one, two = parts_of(tmp_path / "one"), parts_of(tmp_path / "two")
    assert {n: c for n, (_, c) in one.items()} == {n: c for n, (_, c) in two.items()}


def test_workers_change_nothing(tmp_path, small_parts):
    checkpoint = trained("interhand26m", "tiny-interhand-mano")
    alone, helped = (annotate(checkpoint, tmp_path / str(n), workers=n) for n in (0, 2))
    assert whole(alone) == whole(helped)


@pytest.mark.slow
def test_parts_of_another_checkpoint_or_of_other_pictures_are_not_taken(tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(studio("interhand26m"), folder)
    config = a_run("interhand26m", folder=folder)
    for seed in (0, 1):
        fit(replace(config, seed=seed, max_steps=1), tmp_path / f"run{seed}")
    first, other = (tmp_path / f"run{seed}" / "checkpoint.pt" for seed in (0, 1))
    annotate(first, tmp_path / "out")
    before = parts_of(tmp_path / "out")
    again = whole(annotate(other, tmp_path / "out"))
    assert parts_of(tmp_path / "out") != before
    assert again == whole(annotate(other, tmp_path / "alone"))
    # Pictures that were changed are seen anew.
    samples = read_data(config, tmp_path / "run1" / "crops", ALONE).samples[0]
    width, height = samples.image_size[0]
    for path in np.unique(samples.image_path):
        write_image(samples.images / str(path), np.full((height, width, 3), 200, np.uint8))
    assert whole(annotate(other, tmp_path / "out")) == whole(annotate(other, tmp_path / "anew"))
    assert whole(annotate(other, tmp_path / "out")) != again


# --- what has no fit


def test_samples_without_a_fit_are_counted_and_listed_and_the_others_annotated(tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(studio("ffhq"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    path = folder / "annotations" / "FFHQ.json"
    content = json.loads(path.read_text())
    boxless = content["annotations"][3]
    boxless["bbox"] = [-900.0, -900.0, 10.0, 10.0]
    path.write_text(json.dumps(content))
    checkpoint = trained("ffhq", "tiny-ffhq-flame")
    whole_set = annotate(checkpoint, tmp_path / "whole")
    before = estimates(checkpoint)["samples"]
    gone, broken = (before.ids.tolist().index(content["annotations"][n]["id"]) for n in (0, 1))
    root = read_data(a_run("ffhq", folder=folder), tmp_path / "look", ALONE).samples[0].images
    (root / str(before.image_path[gone])).unlink()
    data = (root / str(before.image_path[broken])).read_bytes()
    (root / str(before.image_path[broken])).write_bytes(data[: len(data) // 2])
    result = annotate(checkpoint, tmp_path / "out", data=[str(folder)])
    assert result.unusable == {"box outside": 1, "image missing": 1, "image unreadable": 1}
    assert result.count == whole_set.count - 3 == result.samples
    with result.listed.open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [(int(row["annotation"]), row["reason"]) for row in listed] == [
        (boxless["id"], "box outside"),
        (int(before.ids[gone]), "image missing"),
        (int(before.ids[broken]), "image unreadable"),
    ]
    assert listed[1]["image"] == str(before.image_path[gone])
    kept = loaded(result, folder)
    assert not {boxless["id"], int(before.ids[gone]), int(before.ids[broken])} & set(kept.ids.tolist())
    whole_gt = loaded(whole_set, studio("ffhq")).rows_of(kept.ids.tolist())
    np.testing.assert_allclose(
        kept.params["betas"], loaded(whole_set, studio("ffhq")).params["betas"][whole_gt], atol=1e-5
    )
    assert whole_set.unusable == {}
    assert whole_set.listed.read_text().splitlines() == ["annotation,side,image,reason,detail"]


# --- other data than the run's


def test_another_part_of_the_data_has_crops_of_its_own_and_leaves_the_run_s(tmp_path):
    checkpoint = trained("human36m", "tiny-human36m-smplx")
    crops = {p: p.stat().st_mtime_ns for p in checkpoint.parent.rglob("crops/*/*")}
    result = annotate(checkpoint, tmp_path, only_views=[1])
    assert (tmp_path / "crops").is_dir()
    assert {p: p.stat().st_mtime_ns for p in checkpoint.parent.rglob("crops/*/*")} == crops
    assert result.count == result.samples == 3
    # One view alone is the best one.
    assert result.error >= annotate(checkpoint, tmp_path / "all").error
    # `crops` names a folder, of the same or of other samples.
    other = annotate(checkpoint, tmp_path / "named", only_views=[1], crops=str(tmp_path / "crops"))
    assert whole(other) == whole(result)
    assert not (tmp_path / "named" / "crops").exists()


def test_a_network_that_sees_an_image_alone_takes_data_of_other_joints(tmp_path):
    checkpoint = trained("mscoco", "tiny-mscoco-flame")
    result = annotate(checkpoint, tmp_path, data_set=["ffhq"], data=[str(studio("ffhq"))])
    assert [path.name for path in result.files] == ["FFHQ_FLAME_NeuralAnnot.json"]
    with pytest.raises(ValueError, match=r"where is ffhq\? give data="):
        annotate(checkpoint, tmp_path, data_set=["ffhq"])
    image_alone = trained("human36m", "tiny-human36m-smpl", inputs="image")
    folder = studio("human36m")
    named = tmp_path / "named"
    shutil.copytree(folder, named, ignore=shutil.ignore_patterns("*.safetensors"))
    for path in named.glob("annotations/*_data.json"):
        content = json.loads(path.read_text())
        names = list(JOINT_SETS["human36m-17"].joints)
        content["categories"] = [{"id": 1, "name": "person", "keypoints": names[:9]}]
        path.write_text(json.dumps(content))
    for path in named.glob("annotations/*_joint_3d.json"):
        content = json.loads(path.read_text())
        cut = {
            a: {s: {f: points[:9] for f, points in frames.items()} for s, frames in subs.items()}
            for a, subs in content.items()
        }
        path.write_text(json.dumps(cut))
    result = annotate(image_alone, tmp_path / "out", data_set=["mocap-format"], data=[str(named)])
    assert result.count == 3


# --- what is refused


def test_data_of_another_kind_than_the_network_takes(tmp_path):
    seeing = trained("human36m", "tiny-human36m-smpl", inputs="joints")
    wild = {"data_set": ["mscoco"], "data": [str(studio("mscoco"))]}
    with pytest.raises(ValueError, match=r"trained with GT 3D joints, which mscoco has not.*mode wild"):
        annotate(seeing, tmp_path, **wild)
    with pytest.raises(ValueError, match="trained with GT 3D joints, which mscoco has not"):
        annotate(trained("human36m", "tiny-human36m-smpl", inputs="image"), tmp_path, **wild)
    assert not (tmp_path / "crops").exists()
    hands = trained("interhand26m", "tiny-interhand-mano")
    with pytest.raises(ValueError, match=r"Human3\.6M can be read for smpl, smplx, got model='mano'"):
        annotate(hands, tmp_path, data_set=["human36m"], data=[str(studio("human36m"))])
    found = load_checkpoint(trained("mscoco", "tiny-mscoco-smpl", inputs="image+joints"))
    save_checkpoint(replace(found, joint_sets={"others": ["nose"]}), tmp_path / "checkpoint.pt")
    with pytest.raises(
        ValueError, match="takes the joints of others; those of mscoco are coco-17: train one on"
    ):
        annotate(tmp_path / "checkpoint.pt", tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("image_size", 64), ("prior", "another"), ("crop_scale", 2.0), ("body model", "other")],
)
def test_a_network_that_was_trained_on_other_pictures(name, value, tmp_path):
    found = load_checkpoint(trained("ffhq", "tiny-ffhq-flame"))
    other = replace(found, surroundings=found.surroundings | {name: value})
    save_checkpoint(other, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=rf"was trained with another {name}: .* there, .* here"):
        annotate(tmp_path / "checkpoint.pt", tmp_path)


def test_a_network_that_was_trained_on_another_body(tmp_path):
    found = load_checkpoint(trained("human36m", "tiny-human36m-smpl", inputs="joints"))
    found.network["rest_torso"][0] += 0.01
    save_checkpoint(found, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="trained with another body model or joint regressor; pass"):
        annotate(tmp_path / "checkpoint.pt", tmp_path)


def test_arguments_that_are_none(tmp_path):
    checkpoint = trained("ffhq", "tiny-ffhq-flame")
    with pytest.raises(ValueError, match="views must be one of best, fuse, got 'all'"):
        annotate(checkpoint, tmp_path, views="all")
    with pytest.raises(ValueError, match="image_size is the checkpoint's; of a run may change data_s"):
        annotate(checkpoint, tmp_path, image_size=64)
    with pytest.raises(ValueError, match="split must be a text, got 3"):
        annotate(checkpoint, tmp_path, split=3)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        annotate(tmp_path / "nothing.pt", tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder of FFHQ"):
        annotate(checkpoint, tmp_path, data=[str(tmp_path / "nowhere")])
    assert sorted(p.name for p in tmp_path.iterdir()) == []


def test_a_view_with_few_joints_is_not_the_best_for_that():
    error = np.array([0.0, 0.009, 0.002, np.nan])
    judged = packing._judged(error, np.array([1, 21, 3, 0]), 21)
    assert judged.argsort()[0] in (1, 2)
    assert judged[0] > 100
    assert judged[1] == pytest.approx(0.009 * np.sqrt(21 / 20))
    assert judged[2] == pytest.approx(0.002 * np.sqrt(21 / 2))
    assert np.isnan(judged[3])
