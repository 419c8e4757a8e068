"""`neuralannot evaluate` and `evaluate`, on studios whose truth is known: tables, groups, page, mistakes."""

from __future__ import annotations

import base64
import csv
import functools
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_evaluate_tables import Cells
from test_train_data_mocap import write_3dpw
from test_train_evaluation import people, wild
from training_runs import studio

from neuralannot import cli, load_pseudo_gt
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.data import pw3d_truth, read_samples
from neuralannot.train.evaluation import annotation_errors, evaluate, joint_errors, write_page
from neuralannot.train.evaluation.breakdown import group_labels
from neuralannot.train.evaluation.measured import visibility
from neuralannot.train.evaluation.overlays import pictures
from neuralannot.train.released import pseudo_gt_of, save_release

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

NAMES = {
    "human36m": "*_SMPL_NeuralAnnot.json",
    "interhand26m": "*_MANO_NeuralAnnot.json",
    "mscoco": "*_SMPLX_all_NeuralAnnot.json",
}


@functools.cache
def made(layout: str) -> tuple[Path, list[Path], list[Path]]:
    """A studio, the files of the truth, and files of the same with errors."""
    more: dict[str, Any] = {"missing": 0.3, "views": 2} if layout == "interhand26m" else {}
    folder = studio(layout, **more)
    truth = sorted((folder / "truth").glob(NAMES[layout]))
    true = load_pseudo_gt(truth, annotations=False)
    rng = np.random.default_rng(0)
    fits = {
        n: (v + rng.normal(0, 0.02 if n == "transl" else 0.06, v.shape)).astype(np.float32)
        for n, v in true.params.items()
    }
    by_id = true.catalogued.key_names == ("id",)
    given: dict[str, Any] = {"ids": true.ids} if by_id else {"keys": true.view.column("key")}
    if true.camera is not None:
        given |= {"focal": true.camera.focal, "princpt": true.camera.princpt}
    if true.side is not None:
        given |= {"side": true.side}
    gt = pseudo_gt_of(true.release, fits, **given)
    name = None if layout == "human36m" else truth[0].name
    return folder, truth, save_release(gt, folder.parent / "fits", name=name)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: Any) -> tuple[int, str, str]:
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as stop:
            status = int(stop.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return call


def refused(found: tuple[int, str, str], text: str) -> None:
    status, out, err = found
    assert (status, out) == (2, ""), err
    assert text in err.splitlines()[-1]
    assert "Traceback" not in err


# --- the command


def test_everything_of_human36m(run, tmp_path) -> None:
    """Parameters and joints, by joint, sequence and subject, in every form: the functions' own numbers."""
    folder, truth, fits = made("human36m")
    notes = folder / "annotations"
    given = (
        "--annotations",
        *sorted(notes.glob("*_data.json")),
        "--cameras",
        *sorted(notes.glob("*_camera.json")),
    )
    status, out, err = run(
        *("evaluate", *fits, *given, "--truth", *truth, "--data-set", "human36m", "--data", folder),
        *("--regressor", "human36m-17", "--by", "joint", "sequence", "subject"),
        *("--csv", "out/t.csv", "--markdown", "t.md", "--page", "p.html", "--worst", 2),
    )
    assert status == 0, err
    assert out.splitlines()[-3:] == ["written: out/t.csv", "written: t.md", "written: p.html"]
    gt = load_pseudo_gt(fits, annotations=given[1 : given.index("--cameras")],
                        cameras=given[given.index("--cameras") + 1 :])  # fmt: skip
    true = load_pseudo_gt(truth)
    wanted = annotation_errors(gt, true, regressor="human36m-17")
    with (tmp_path / "out" / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    tables = list(dict.fromkeys(row["table"] for row in rows))
    assert tables == [
        f"Against {what}{by}"
        for what in ("true parameters", "the joints of Human3.6M")
        for by in ("", ", by joint", ", by sequence", ", by subject")
    ]
    found = {(r["table"], r["group"], r["measure"], r["unit"]): r for r in rows}
    all_of = {
        m: found["Against true parameters", "all", m, "mm"]
        for m in ("MPVPE", "PA-MPVPE", "MPJPE", "PA-MPJPE")
    }
    for name, row in all_of.items():
        values = getattr(wanted, name.lower().replace("-", "_"))
        assert float(row["mean"]) == pytest.approx(values.mean(), rel=1e-5)
        assert float(row["largest"]) == pytest.approx(values.max(), rel=1e-5)
        assert int(row["count"]) == len(values)
    knee = found["Against true parameters, by joint", "left_knee", "MPJPE", "mm"]
    at = wanted.joint_names.index("left_knee")
    assert float(knee["mean"]) == pytest.approx(wanted.per_joint[:, at].mean(), rel=1e-5)
    assert 0 < float(knee["AUC 0-150 mm"]) < 1
    subject = next(row["group"] for row in rows if row["table"].endswith("by subject"))
    number = int(subject.removeprefix("subject "))
    own = [row for row, key in enumerate(gt.keys) if key[0] == number]
    mean = wanted.mpjpe[np.isin(wanted.rows[:, 0], own)].mean()
    row = found["Against true parameters, by subject", subject, "MPJPE", "mm"]
    assert float(row["mean"]) == pytest.approx(mean, rel=1e-5)
    # Clean joints are the true parameters': both comparisons give one number.
    joints = found["Against the joints of Human3.6M", "all", "MPJPE", "mm"]
    assert float(joints["mean"]) == pytest.approx(float(all_of["MPJPE"]["mean"]), abs=0.01)
    assert ("Against the joints of Human3.6M", "all", "reprojection", "px") in found
    text = (tmp_path / "t.md").read_text()
    assert text.count("**Against ") == 8
    # Four cameras see each fit; the worst one shows it.
    shown = [int(n) for n in re.findall(r"<figcaption><b>(\d+)</b>", (tmp_path / "p.html").read_text())]
    assert len({gt.keys[gt.ids.tolist().index(n)] for n in shown}) == 2
    assert "Against true parameters: 12 annotations, 0 missing, 0 without a truth; joints: human36m-17" in out


def test_hands_with_missing_joints(run) -> None:
    """What the joints do not say is measured apart; sides; frames that several cameras see."""
    folder, truth, fits = made("interhand26m")
    status, out, err = run(
        *("evaluate", *fits, "--truth", *truth, "--data-set", "interhand26m", "--data", folder),
        *("--by", "subject", "--page", "p.html", "--worst", 3),
    )
    assert status == 0, err
    assert "AUC 0-50 mm" in out
    assert "MPJPE, missing joints" in out
    assert "capture 0 " in out
    assert Path("p.html").read_text().count("data:image/jpeg;base64,") == 3
    # A fit is of all cameras: the sequence is the folder that holds theirs.
    gt = load_pseudo_gt(fits, annotations=False)
    sequences = group_labels(gt, "sequence", samples=read_samples("interhand26m", folder, model="mano"))
    named = [f"train/Capture{capture}/0000_neutral_relaxed" for capture, _ in gt.keys]
    assert sequences.tolist() == named


def test_visible_and_missing_joints_apart() -> None:
    """Against a slow twin, by regressed joints."""
    folder, truth, fits = made("interhand26m")
    gt, true = (load_pseudo_gt(f, annotations=False) for f in (fits, truth))
    samples = read_samples("interhand26m", folder, model="mano")
    missing = ~samples.valid
    assert 0.2 < missing.mean() < 0.4
    found = visibility(gt, true, samples)
    given, lost = found.columns[0], found.columns[1]
    assert [c.name for c in found.columns[:2]] == ["MPJPE, given joints", "MPJPE, missing joints"]
    posed = {}
    for name, g in (("gt", gt), ("true", true)):
        bodies = g.forward(space="world", regressor="interhand-21", want="joints")
        keys = [(*key, side) for key, side in zip(g.keys, g.side, strict=True)]
        posed[name] = dict(zip(keys, bodies.joints.numpy().astype(float), strict=True))
    wrist = samples.joint_set.index("right_wrist")
    assert len(found) == len(samples)
    for row in range(len(samples)):
        key = (*samples.keys[row].tolist(), samples.side[row])
        a, b = posed["gt"][key], posed["true"][key]
        away = 1000 * np.linalg.norm((a - a[wrist]) - (b - b[wrist]), axis=1)
        for column, mask in ((given, ~missing[row]), (lost, missing[row])):
            wanted = away[mask].mean() if mask.any() else np.nan
            assert column.values[row] == pytest.approx(wanted, abs=5e-3, nan_ok=True)
    assert f"{100 * missing.mean():.1f}% of their joints missing" in found.note


def test_whole_bodies_in_the_wild(run) -> None:
    """Joined files alone: images by `--images`, sequences by folder, an annotation's own box."""
    folder, truth, fits = made("mscoco")
    notes = folder / "annotations" / "coco_wholebody_train_v1.0.json"
    given = ("evaluate", *fits, "--annotations", notes, "--truth", *truth, "--regressor", "coco-17")
    status, out, err = run(
        *given, "--images", folder / "images", "--page", "p.html", "--worst", 4, "--by", "sequence"
    )
    assert status == 0, err
    assert "train2017  MPVPE" in out
    assert Path("p.html").read_text().count("data:image/jpeg;base64,") == 4
    refused(run(*given, "--by", "subject"), "its keys (id) name no subject; try by='sequence'")


def test_meshes_and_scans(run, tmp_path) -> None:
    _, truth, fits = made("interhand26m")
    true = load_pseudo_gt(truth, annotations=False)
    bodies = true.forward(space="world")
    vertices = bodies.vertices.numpy()
    np.savez("m.npz", vertices=1000 * vertices, keys=np.array(true.keys), side=true.side)
    (tmp_path / "scans").mkdir()
    capture, frame = true.keys[0]
    name = f"{capture}-{frame}-{true.side[0]}"
    np.save(tmp_path / "scans" / f"{name}.npy", 1000 * vertices[0])
    bare = ("evaluate", *fits, "--no-annotations")
    status, out, err = run(*bare, "--meshes", "m.npz", "--scans", "scans", "--unit", "mm", "--by", "joint")
    assert status == 0, err
    assert "Against true meshes: " in out
    assert "joints: the skeleton's, regressed from the vertices" in out
    assert "Against true meshes, by joint" in out
    assert "3D surface error, median" in out
    assert "Against 3D scans, by joint" not in out
    refused(run(*bare, "--meshes", "m.npz"), "m.npz: meshes of ")
    refused(run(*bare, "--meshes", "m.npz", "--by", "sequence"), "without image paths there are no sequences")


def test_3dpw_has_its_own_truth(run, tmp_path) -> None:
    """`--data-set 3dpw` alone compares SMPL's vertices with the true parameters."""
    write_3dpw(tmp_path)
    truth = pw3d_truth(tmp_path)
    n = len(truth)
    shifted = {**truth.parameters, "transl": truth.parameters["transl"] + np.float32([0.03, 0, 0.04])}
    camera = {"focal": np.full((n, 2), 1960.0), "princpt": np.full((n, 2), 500.0)}
    gt = pseudo_gt_of("mpii-smpl", shifted, ids=truth.ids, gender=truth.gender, **camera)
    fits = save_release(gt, tmp_path / "fits", name="mine.json")
    given = (
        "evaluate",
        *fits,
        "--release",
        "mpii-smpl",
        "--no-annotations",
        "--data-set",
        "3dpw",
        "--data",
        tmp_path,
    )
    status, _out, err = run(*given, "--split", "test", "--csv", "t.csv")
    assert status == 0, err
    with open("t.csv", newline="") as file:
        rows = {(r["table"], r["measure"]): r for r in csv.DictReader(file)}
    assert float(rows["Against true parameters", "root error"]["mean"]) == pytest.approx(50, abs=0.01)
    assert float(rows["Against true parameters", "MPVPE"]["mean"]) < 0.01
    assert float(rows["Against the joints of 3DPW", "MPJPE, not aligned"]["mean"]) == pytest.approx(
        50, abs=0.01
    )


def test_what_the_command_refuses(run, tmp_path) -> None:
    folder, truth, fits = made("interhand26m")
    bare = ("evaluate", *fits, "--no-annotations")
    refused(run(*bare), "nothing to compare with: give --truth, --meshes, --scans or --data-set")
    refused(run(*bare, "--truth", "none.json"), "none.json: no such file")
    refused(run(*bare, "--data-set", "interhand26m"), "--data-set NAME and --data DIR go together")
    refused(run(*bare, "--truth", *truth, "--split", "test"), "--split is for --data-set")
    refused(run(*bare, "--truth", *truth, "--every", 5), "--every is for --data-set")
    refused(run(*bare, "--truth", *truth, "--unit", "mm"), "--unit is for --meshes and --scans")
    refused(run(*bare, "--truth", *truth, "--align", "none"), "--align is for --scans")
    refused(run(*bare, "--truth", *truth, "--worst", -1), "--worst must be from 0, got -1")
    refused(run(*bare, "--truth", *truth, "--page", "p.pdf"), "--page: p.pdf: a page is written as .html")
    refused(run(*bare, "--truth", *truth, "--by", "day"), "argument --by: invalid choice: 'day'")
    refused(run(*bare, "--scans", "nowhere"), "nowhere: no such folder of scans")
    refused(run(*bare, "--meshes", "no.npz"), "no.npz: no such file of meshes")
    refused(run(*bare, "--truht", *truth), "did you mean --truth?")
    refused(
        run(*bare, "--data-set", "interhand26m", "--data", folder, "--joint-regressor", "a"),
        "--joint-regressor takes SET=FILE, got 'a'",
    )
    body = made("mscoco")[1]
    refused(
        run(*bare, "--truth", *body),
        "the annotations are mano's, the truth is smplx's; compare one model, or SMPL and SMPL-X",
    )
    refused(
        run(*bare, "--data-set", "interhand26m", "--data", folder, "--truth-release", "mpii-smpl"),
        "--truth-release is for --truth",
    )
    assert not list(tmp_path.iterdir())


# --- evaluate


def two_files() -> tuple[PseudoGT, PseudoGT]:
    rng = np.random.default_rng(0)
    truth = people(rng, 5)
    turn = Rotation.from_rotvec(np.outer(np.arange(5) * 0.1, [0, 0, 1]))
    root = (turn * Rotation.from_rotvec(truth["global_orient"])).as_rotvec().astype(np.float32)
    return wild({**truth, "global_orient": root}, range(5)), wild(truth, range(5))


def test_the_worst_are_the_worst() -> None:
    gt, truth = two_files()
    found = evaluate(gt, truth=truth)
    assert [w.row for w in found.worst(3)] == [4, 3, 2]
    first = found.worst(1)[0]
    assert (first.name, first.measure, first.unit) == ("4", "MPVPE", "mm")
    assert first.value == pytest.approx(annotation_errors(gt, truth).mpvpe.max())
    assert len(found.worst(99)) == 5
    assert found.worst(0) == []
    with pytest.raises(ValueError, match=r"^count must be from 0, got -1$"):
        found.worst(-1)
    assert str(found).splitlines()[0] == "<PseudoGT mpii-smpl: 5 annotations, smpl, camera space>"
    with pytest.raises(ValueError, match=r"^nothing to compare with: give truth, meshes, scans or samples$"):
        evaluate(gt)
    with pytest.raises(ValueError, match=r"^by must be of joint, sequence, subject, got 'frame'$"):
        evaluate(gt, truth=truth, by=["frame"])
    with pytest.raises(
        ValueError, match=r"^mpii-smpl: no annotation is matched with true parameters; are they"
    ):
        evaluate(gt, truth=wild({n: truth.params[n] for n in truth.params}, range(10, 15)))
    with pytest.raises(ValueError, match=r"^annotations are grouped by sequence or subject, got 'joint'$"):
        group_labels(gt, "joint")


def test_joint_errors_joint_by_joint() -> None:
    """The columns of joints have the rows' means, and NaN where a joint is not given."""
    folder, _, fits = made("interhand26m")
    gt = load_pseudo_gt(fits, annotations=False)
    samples = read_samples("interhand26m", folder, model="mano")
    errors = joint_errors(gt, samples)
    valid = samples.rows(errors.rows[:, 1]).valid
    assert np.array_equal(np.isfinite(errors.per_joint_px), valid)
    np.testing.assert_allclose(np.nanmean(errors.per_joint_px, axis=1), errors.reprojection, rtol=1e-5)
    np.testing.assert_allclose(np.nanmean(errors.pa_per_joint, axis=1), errors.pa_mpjpe, rtol=1e-5)
    rooted = np.isfinite(errors.mpjpe_root)
    assert 0 < rooted.sum() < len(errors)
    np.testing.assert_allclose(
        np.nanmean(errors.per_joint[rooted], axis=1), errors.mpjpe_root[rooted], rtol=1e-5
    )
    assert np.isnan(errors.root[~rooted]).all()
    assert (errors.pa_mpjpe < errors.mpjpe).all()


# --- the page


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data


def test_one_page_that_needs_nothing_else(tmp_path: Path) -> None:
    folder, truth, fits = made("mscoco")
    notes = folder / "annotations" / "coco_wholebody_train_v1.0.json"
    gt, true = (load_pseudo_gt(f, annotations=notes) for f in (fits, truth))
    found = evaluate(gt, truth=true, by=["joint"], regressor="coco-17")
    hostile = "<script>alert(1)</script>&"
    path = write_page(
        tmp_path / "new" / "p.html", found, title=hostile, notes=[hostile], worst=3, images=folder / "images"
    )
    text = path.read_text()
    page = Page(text)
    kinds = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object"} & set(kinds)
    assert kinds.count("img") == 3
    assert kinds.count("svg") == 5 + 2
    assert all(str(at["src"]).startswith("data:image/jpeg;base64,") for tag, at in page.tags if tag == "img")
    assert not re.search(r"(?:src|href)=[\"'](?!data:)|url\(|https?://", text)
    assert page.words.count(hostile) == 3  # title, heading, note
    for table, html in zip(found.tables(), re.findall(r"<table>.*?</table>", text, re.S), strict=True):
        assert Cells(html).rows[1][0] == table.rows[0][0]
    for data in re.findall(r'base64,([^"]+)"', text):
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        tiles = np.split(pixels.astype(float), 3, axis=1)
        # The fit and the truth are drawn, and not at one place.
        assert (
            min(
                abs(a - b).max()
                for a, b in ((tiles[0], tiles[1]), (tiles[0], tiles[2]), (tiles[1], tiles[2]))
            )
            > 60
        )
    with pytest.raises(ValueError, match=r"p\.txt: a page is written as \.html, got '\.txt'$"):
        write_page(tmp_path / "p.txt", found)


def test_missing_images_are_said_and_the_rest_shown(tmp_path: Path) -> None:
    folder, truth, fits = made("mscoco")
    notes = folder / "annotations" / "coco_wholebody_train_v1.0.json"
    gt, true = (load_pseudo_gt(f, annotations=notes) for f in (fits, truth))
    found = evaluate(gt, truth=true)
    images = tmp_path / "images"
    shutil.copytree(folder / "images", images)
    worst = found.worst(7)
    paths = [str(gt.image_path[w.row]) for w in worst]
    (images / paths[0]).unlink()
    other = next(p for p in paths if p != paths[0])
    (images / other).write_bytes((images / other).read_bytes()[:200])
    drawn = pictures(found, [w.row for w in worst], images=images)
    for path, picture in zip(paths, drawn, strict=True):
        assert picture.image == path
        assert (picture.pixels is None) == (path in (paths[0], other))
    assert "no image file at " in drawn[0].problem
    text = write_page(tmp_path / "p.html", found, worst=7, images=images).read_text()
    assert text.count("no image file at ") == paths.count(paths[0])
    assert text.count("<img ") == sum(p.pixels is not None for p in drawn)
    assert "where images are is not known" in pictures(found, [0])[0].problem
    plain = evaluate(*two_files()[:1], truth=two_files()[1])
    assert "no image is known" in pictures(plain, [0])[0].problem


def test_the_truth_is_drawn_where_it_is() -> None:
    """The true body covers the person of the picture: the studio knows no other place."""
    folder, truth, _ = made("human36m")
    notes = folder / "annotations"
    more = {"annotations": sorted(notes.glob("*_data.json")), "cameras": sorted(notes.glob("*_camera.json"))}
    true = load_pseudo_gt(truth, **more)
    samples = read_samples("human36m", folder, model="smpl")
    found = evaluate(true, truth=true, samples=samples)
    for picture in pictures(found, range(0, len(true), 5)):
        assert picture.tiles == ("image, joints of the data set", "annotation", "truth")
        assert picture.pixels is not None
        first, fit, real = (t.astype(int) for t in np.split(picture.pixels, 3, axis=1))
        body = abs(fit - real).sum(axis=2) > 20  # two colours of one body at one place
        assert 0.02 < body.mean() < 0.6
        # The joints' yellow dots lie within it.
        dots = (abs(first - [255, 214, 64]).sum(axis=2) < 40).nonzero()
        grown = cv2.dilate(body.astype(np.uint8), np.ones((15, 15), np.uint8))
        assert len(dots[0]) > 20
        assert grown[dots].mean() > 0.9


def test_rooms_open_when_asked() -> None:
    from neuralannot.train import evaluation

    assert all(callable(getattr(evaluation, name)) and name in dir(evaluation) for name in evaluation.__all__)
    assert sorted(evaluation._ROOMS) == sorted(evaluation.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'evaluat'"):
        _ = evaluation.evaluat
