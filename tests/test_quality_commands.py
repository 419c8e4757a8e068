"""`neuralannot quality`, and what filtering is for: without its spoilt rows a file is nearer to the truth."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import write_release
from scipy.spatial.transform import Rotation

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.cli import main
from neuralannot.quality import measure_quality
from neuralannot.quality.commands import write_filtered
from neuralannot.synthetic import StudioReport, make_studio
from neuralannot.train.released import save_release

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


# --- a studio, spoilt


@pytest.fixture(scope="module", params=["mscoco", "human36m"])
def studio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StudioReport:
    count, missing = {"mscoco": (10, 0.1), "human36m": (48, 0.0)}[request.param]
    folder = tmp_path_factory.mktemp("studio")
    return make_studio(folder, layout=request.param, count=count, image_size=64, missing=missing, workers=1)


def spoilt(gt: PseudoGT, seed: int) -> tuple[PseudoGT, np.ndarray]:
    """A random fifth of the rows with noise on the pose or turned round; (N,) bool which."""
    rng = np.random.default_rng(seed)
    bad = np.zeros(len(gt), bool)
    bad[rng.permutation(len(gt))[: len(gt) // 5]] = True
    noisy = bad & (np.arange(len(gt)) % 2 == 0)
    turned = bad & ~noisy
    pose, root = gt.params["body_pose"].copy(), gt.params["global_orient"].copy()
    pose[noisy] += rng.normal(0, 0.4, pose[noisy].shape)
    turns = Rotation.from_rotvec(rng.normal(0, 0.5, (turned.sum(), 3)))
    root[turned] = (turns * Rotation.from_rotvec(root[turned])).as_rotvec()
    columns = {"param/body_pose": pose.astype(np.float32), "param/global_orient": root.astype(np.float32)}
    return PseudoGT(gt.view.overlaid(columns), gt.release, space=gt.space, companions=gt.companions), bad


def mpjpe_mm(gt: PseudoGT, truth: PseudoGT) -> np.ndarray:
    """(N,) root-aligned mean joint error against the true parameters, millimetres."""
    rows = truth.rows_of(gt.ids if gt.catalogued.key_names == ("id",) else gt.keys)
    pair = [g.forward(want="joints", space=gt.space).joints.numpy() for g in (gt, truth.rows(rows))]
    ours, theirs = (joints - joints[:, :1] for joints in pair)
    return 1000 * np.linalg.norm(ours - theirs, axis=-1).mean(1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_filtered_file_beats_the_unfiltered_one(studio: StudioReport, seed: int, tmp_path: Path) -> None:
    """Measured on a written file, filtered by one command, compared with the true parameters."""
    mocap = studio.layout == "human36m"
    paths = [p for p in studio.truth if "SMPL" in p.name]
    truth = load_pseudo_gt(paths if mocap else paths[0], annotations=False, cache=False)
    worse, bad = spoilt(truth, seed)
    assert bad.any()
    files = save_release(worse, tmp_path / "made")
    for companion in (*studio.annotations, *studio.cameras, *studio.joints):
        shutil.copy(companion, tmp_path / "made")
    limit = ["--max-error", "0.03"] if mocap else ["--max-reprojection-percent", "1.5"]
    out = tmp_path / "good" if mocap or len(files) > 1 else tmp_path / "good.json"
    assert main(["quality", *map(str, files), *limit, "--out", str(out)]) == 0
    if not mocap:
        good = load_pseudo_gt(out, release=truth.release, annotations=False, cache=False)
    else:
        written = sorted(out.glob("*.json"))
        good = load_pseudo_gt(written, annotations=False, cache=False)
    before, after = mpjpe_mm(worse, truth), mpjpe_mm(good, truth)
    assert before.mean() > 5
    assert after.mean() < (0.05 if mocap else 0.3) * before.mean()
    # Hardly anything that was right is lost, hardly anything that was wrong is kept.
    assert len(good) >= 0.97 * (~bad).sum()
    assert (after > 1).mean() < (0.03 if mocap else 0.1)


def test_flags_and_prior_point_at_spoilt_poses(studio: StudioReport) -> None:
    """Without any joint to compare with."""
    paths = [p for p in studio.truth if "SMPL" in p.name]
    truth = load_pseudo_gt(paths if studio.layout == "human36m" else paths[0], annotations=False, cache=False)
    pose = np.random.default_rng(0).normal(0, 0.4, truth.params["body_pose"].shape)
    pose = (truth.params["body_pose"] + pose).astype(np.float32)
    noisy = PseudoGT(
        truth.view.overlaid({"param/body_pose": pose}),
        truth.release,
        space=truth.space,
        companions=truth.companions,
    )
    good, bad = measure_quality(truth), measure_quality(noisy)
    assert bad["prior"].min() > np.percentile(good["prior"], 90)
    assert bad["implausible_bend"].mean() > 0.5 > 10 * good["implausible_bend"].mean()
    assert bad["self_penetration"].mean() >= good["self_penetration"].mean()


# --- the command


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], str]:
    status = main(["quality", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err


def test_measured_once_filtered_often(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_release(tmp_path, "mscoco-smpl").path
    place = path.with_name("MSCOCO_train_SMPL_NeuralAnnot.quality.safetensors")
    status, lines, _ = run(capsys, path)
    assert status == 0
    assert lines[0] == f"written: {place}"
    assert any(line.startswith("reprojection, px") for line in lines)
    assert "not measured: error: MSCOCO has no 3D joints" in lines
    first = load_pseudo_gt(path).quality
    status, lines, _ = run(capsys, path, "--max-reprojection", np.median(first["reprojection"]))
    assert status == 0
    assert lines[0] == f"columns measured before, of {place.name}; --again measures anew"
    assert lines[-1] == "kept 3 of 6 rows"
    assert run(capsys, path, "--again")[1][0] == f"written: {place}"


def test_columns_of_ones_own_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_release(tmp_path, "mscoco-mano").path
    mine = tmp_path / "else" / "mine.quality.safetensors"
    mine.parent.mkdir()
    assert run(capsys, path, "--columns", mine)[1][0] == f"written: {mine}"
    assert len(load_pseudo_gt(path).quality) == 0
    assert run(capsys, path, "--columns", mine)[1][0].startswith("columns measured before, of mine.quality")


def test_columns_into_saved_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gt = load_pseudo_gt(write_release(tmp_path, "3dpw-smplx").path, cache=False)
    rows = tmp_path / "rows.safetensors"
    gt.save(rows)
    assert run(capsys, rows)[0] == 0
    back = load_pseudo_gt(rows)
    assert {"prior", "bend"} <= set(back.quality)
    out = tmp_path / "kept.safetensors"
    assert (
        run(capsys, rows, "--max-bend", np.median(back.quality["bend"]), "--out", out)[1][-1]
        == f"written: {out}, {np.sum(back.quality['bend'] <= np.median(back.quality['bend']))} rows"
    )
    assert len(load_pseudo_gt(out)) == np.sum(back.quality["bend"] <= np.median(back.quality["bend"]))


def test_a_frame_is_written_if_all_its_rows_are_kept(tmp_path: Path) -> None:
    gt = load_pseudo_gt(write_release(tmp_path / "a", "human36m-smpl").path, cache=False)
    keys = gt.view.column("key")
    _, counts = np.unique(keys, axis=0, return_counts=True)
    assert counts.max() > 1
    lost = int(np.flatnonzero((keys == keys[0]).all(1))[-1])
    values = np.zeros(len(gt))
    values[lost] = 1
    rated = gt.with_quality({"reprojection": values})
    kept = rated.filter(max_reprojection=0.5)
    assert len(kept) == len(gt) - 1
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    out = tmp_path / "b" / "Human36M_subject1_SMPL_NeuralAnnot.json"
    columns = out.with_name(out.stem + ".quality.safetensors")
    fits = len(np.unique(keys, axis=0)) - 1
    assert write_filtered(rated, kept, out) == {out: fits, columns: (keys != keys[0]).any(1).sum()}
    back = load_pseudo_gt(out, cache=False)
    assert (back.view.column("key") != keys[0]).any(1).all()
    wanted = rated.rows((keys != keys[0]).any(1))
    np.testing.assert_array_equal(back.ids, wanted.ids)
    np.testing.assert_array_equal(back.quality["reprojection"], wanted.quality["reprojection"])
    with pytest.raises(ValueError, match="no row of human36m-smpl is within the limits"):
        write_filtered(rated, rated[:0], out)
    with pytest.raises(ValueError, match="no frame of human36m-smpl has all of its rows"):
        write_filtered(rated, rated.rows([int(np.flatnonzero((keys == keys[0]).all(1))[0])]), out)


def test_help_and_names_that_could_not_be_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["quality", "--help"])
    assert stop.value.code == 0
    assert "box, %" in " ".join(capsys.readouterr().out.split())
    path = write_release(tmp_path, "human36m-smpl").path
    status, lines, err = run(capsys, path, "--plausible", "--out", tmp_path / "mine.json")
    assert (status, lines) == (2, [])
    assert "mine.json: the subject is in no other place than the file's name; call it Human36M_sub" in err
    assert not list(tmp_path.glob("*.quality.safetensors"))


def test_mistakes_take_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_release(tmp_path, "mscoco-smpl").path
    status, _, err = run(capsys, path, "--out", tmp_path / "x.json")
    assert status == 2
    assert "give a limit (--max-error, ...) or --plausible" in err
    status, _, err = run(capsys, path, "--max-error", 1)
    assert status == 2
    assert "max_error needs the quality column 'error'; there are reprojection" in err
    status, _, err = run(capsys, path, "--max-shape", 0, "--out", tmp_path / "x.json")
    assert status == 2
    assert "nothing to write to" in err
    assert not (tmp_path / "x.json").exists()
    status, _, err = run(capsys, tmp_path / "no.json")
    assert status == 2
    assert "no such file" in err
