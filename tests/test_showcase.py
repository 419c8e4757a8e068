"""The showcase: its numbers computed again from the files, its pictures measured, its time kept."""

from __future__ import annotations

import csv
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuralannot import load_pseudo_gt
from neuralannot import showcase as program
from neuralannot.images import read_image
from neuralannot.showcase import FILES, RUNS, main, showcase
from neuralannot.synthetic import LAYOUTS, StudioReport, make_studio
from neuralannot.train import pictures
from neuralannot.train.annotate import annotate
from neuralannot.train.checkpoint import load_checkpoint
from neuralannot.train.config import PRESETS, TrainConfig, preset
from neuralannot.train.crops import crops_of
from neuralannot.train.data import read_samples
from neuralannot.train.evaluation import annotation_errors, joint_errors
from neuralannot.train.fit import FitResult
from neuralannot.train.pictures import curve_picture, overlay_sheet

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

SMALL = {
    "batch": 4,
    "workers": 0,
    "image_size": 32,
    "head_width": 32,
    "joint_width": 32,
    "log_every": 2,
    "lr": 5e-4,
    "lr_drops": 1,
}
SIZES = {"count": 8, "image_size": 160, "workers": 1, "pictures": 3}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("showcase")


@pytest.fixture(scope="module")
def shown(out: Path) -> program.Showcase:
    return showcase(out, changes={**SMALL, "max_steps": 6}, **SIZES)


def step_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "train" / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- what comes out


def test_files_and_numbers(shown, out):
    assert (shown.folder, shown.steps, shown.converged) == (out / "human36m-smpl", 6, False)
    for name in FILES:
        assert (shown.folder / name).stat().st_size > 0, name
    studio = out / "studio-human36m-smpl-8"
    mine = load_pseudo_gt(shown.files, annotations=False)
    true = load_pseudo_gt(sorted((studio / "truth").glob("*.json")), annotations=False)
    assert mine.keys == true.keys
    # By hand: joints of the data set's regressor about the pelvis, and vertices about the same.
    a, b = (gt.forward(space="world", regressor="human36m-17") for gt in (mine, true))
    at = a.joint_names.index("pelvis")
    found, wanted = ((g.joints - g.joints[:, at, None]).double() for g in (a, b))
    errors = 1000 * (found - wanted).norm(dim=-1).mean(1)
    np.testing.assert_allclose(shown.errors.truth.mpjpe, errors, rtol=1e-3)
    found, wanted = ((g.vertices - g.joints[:, at, None]).double() for g in (a, b))
    errors = 1000 * (found - wanted).norm(dim=-1).mean(1)
    np.testing.assert_allclose(shown.errors.truth.mpvpe, errors, rtol=1e-3)
    assert len(shown.errors.joints) == 8
    # The network's own, as its method writes them into another folder.
    alone = annotate(shown.folder / "train" / "checkpoint.pt", out / "network", method="network", workers=0)
    own = annotation_errors(load_pseudo_gt(alone.files, annotations=False), true, regressor="human36m-17")
    np.testing.assert_array_equal(shown.network.truth.mpvpe, own.mpvpe)
    assert shown.errors.truth.means["mpvpe"] < shown.network.truth.means["mpvpe"]
    text = (shown.folder / "report.txt").read_text()
    refined, network = text[text.index("errors of these files, refined") :].split(
        "errors of the network's own"
    )
    for part, errors in ((refined, shown.errors), (network, shown.network)):
        assert f"{errors.truth.means['mpjpe']:.2f}" in part
        assert f"{errors.joints.means['percent']:.2f}" in part
    assert f"{shown.errors.truth.means['mpjpe']:.2f}" in text
    assert f"{shown.errors.truth.means['mpvpe']:.2f}" in text
    assert f"{shown.errors.joints.means['percent']:.2f}" in text
    assert "6 steps of 4 in" in text
    assert "batch=4" in text


@pytest.mark.slow
def test_going_on(shown, out):
    """Asked again, nothing is done twice; more steps are added to those that there are."""
    before = (shown.folder / "train" / "checkpoint.pt").read_bytes()
    again = showcase(out, changes={**SMALL, "max_steps": 6}, **SIZES)
    assert (shown.folder / "train" / "checkpoint.pt").read_bytes() == before
    assert again.errors.truth.means == shown.errors.truth.means
    # The rate falls where it is to, once, and the run goes on with it.
    more = showcase(out, changes={**SMALL, "max_steps": 8, "lr_drop_steps": [6, 7]}, **SIZES)
    assert more.steps == load_checkpoint(shown.folder / "train" / "checkpoint.pt").step == 8
    rates = [float(row["lr"]) for row in step_rows(shown.folder)]
    assert [int(row["step"]) for row in step_rows(shown.folder)] == [2, 4, 6, 8]
    np.testing.assert_allclose(rates, [5e-4, 5e-4, 5e-4, 5e-5])
    with pytest.raises(ValueError, match="another configuration: head_width 32 there, 16 here"):
        showcase(out, changes={**SMALL, "head_width": 16, "max_steps": 8}, **SIZES)


@pytest.mark.slow
def test_in_the_wild_by_the_command_line(tmp_path, capsys):
    given = ["--count", "4", "--workers", "1", "--image-size", "128", "--pictures", "2", "--layout", "ffhq"]
    changes = [f"--set={name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    assert main([str(tmp_path), *given, *changes, "--set", "max_steps=2", "--minutes", "0.5"]) == 0
    said = capsys.readouterr().out
    assert said == (tmp_path / "ffhq-flame" / "report.txt").read_text()
    assert "% of the box" in said
    assert "4 annotations, 0 missing" in said
    assert "cameras are virtual" in said
    # Reprojection by hand, through the cameras that the file has.
    gt = load_pseudo_gt(
        tmp_path / "ffhq-flame" / "annotations" / "FFHQ_FLAME_NeuralAnnot.json", annotations=False
    )
    samples = read_samples("ffhq", tmp_path / "studio-ffhq-4", model="flame")
    errors = joint_errors(gt, samples)
    bodies = gt.forward(want="joints")
    seen = dict(zip(bodies.joint_names, bodies.project().numpy().swapaxes(0, 1), strict=True))
    wanted = dict(zip(samples.joint_set.joints, samples.joints_2d.swapaxes(0, 1), strict=True))
    common = [name for name in errors.joints if name in seen]
    assert len(common) == 51
    off = np.stack([np.linalg.norm(seen[n] - wanted[n], axis=-1) for n in common], axis=1)
    np.testing.assert_allclose(errors.reprojection, np.nanmean(off, axis=1), rtol=1e-3)


def test_runs_have_presets_and_layouts():
    assert {layout for layout, _ in RUNS} == set(LAYOUTS)
    for (_, model), name in RUNS.items():
        assert PRESETS[name].model == model


# --- pictures


@pytest.fixture(scope="module")
def studios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StudioReport]:
    folder = tmp_path_factory.mktemp("studios")
    sizes = {"human36m": 160, "interhand26m": (120, 160), "ffhq": 128}
    return {
        layout: make_studio(folder / layout, layout=layout, count=4, image_size=size, workers=1)
        for layout, size in sizes.items()
    }


@pytest.mark.parametrize(
    ("layout", "model"), [("human36m", "smpl"), ("interhand26m", "mano"), ("ffhq", "flame")]
)
def test_true_fits_cover_their_people(layout, model, studios, tmp_path):
    """Each pair of tiles differs where the mesh is, and nowhere else."""
    studio = studios[layout]
    gt = program._loaded(studio.truth, studio)
    samples = read_samples(layout, studio.out, model=model)
    errors = joint_errors(gt, samples)
    assert errors.percent.max() < 0.1
    overlay_sheet(gt, samples, errors, tmp_path / "sheet.png", count=9, seed=0)
    sheet = read_image(tmp_path / "sheet.png").astype(int)
    count, tile, gap = len(errors), pictures._TILE, pictures._GAP
    columns = min(count, pictures._PAIRS)
    assert sheet.shape[1] == columns * (2 * tile + gap) + gap
    for at, (row, sample) in enumerate(errors.rows):
        left, top = gap + at % columns * (2 * tile + gap), gap + at // columns * (tile + gap)
        pair = sheet[top : top + tile, left : left + 2 * tile]
        changed = np.abs(pair[:, :tile] - pair[:, tile:]).max(axis=-1) > 6
        changed[-24:, :60] = False  # the id, and the error
        posed = gt.rows([row]).forward()
        vertices, camera = posed.vertices, posed.camera
        if posed.space == "world":
            vertices = camera.world_to_camera(vertices)
        pixels = camera.project(np.asarray(vertices))[0]
        crop = crops_of(replace(samples.rows(np.array([sample])), side=None), size=tile)
        points = pixels @ crop.affine[0, :, :2].T + crop.affine[0, :, 2]
        y, x = np.nonzero(changed)
        inside = points[((points > 0) & (points < tile - 1)).all(axis=1)]
        assert len(inside) > 100
        shown = np.rint(inside).astype(int)
        # Vertices' own pixels are drawn on, but for those at the border and those that look the same.
        assert changed[shown[:, 1], shown[:, 0]].mean() > 0.8
        few = np.stack([x, y], axis=1)[:: max(1, len(x) // 300)]
        nearest = np.linalg.norm(few[:, None] - points[None], axis=-1).min(axis=1)
        assert np.quantile(nearest, 0.99) < 0.08 * tile


def test_curve(tmp_path):
    """On a logarithmic scale a geometric fall is a straight line; the rate's fall is marked."""
    rows = ["step,lr,images_per_second,joints_3d,total"]
    rows += [f"{s},{1e-3 if s < 500 else 1e-4},90,nan,{10 ** (-2 * s / 1000)}" for s in range(0, 1001, 100)]
    (tmp_path / "log.csv").write_text("\n".join(rows) + "\n")
    curve_picture(tmp_path / "log.csv", tmp_path / "loss.png")
    picture = read_image(tmp_path / "loss.png").astype(int)
    edge, width, height = pictures._EDGE, pictures._WIDTH, pictures._HEIGHT
    for part in (0.1, 0.3, 0.62, 0.9):
        x, y = (round(edge + part * (side - 2 * edge)) for side in (width, height))
        assert (np.abs(picture[y - 1 : y + 2, x] - pictures._INK).max(axis=-1) < 60).any()
        assert (picture[y + 40, x] > 200).all()
    x = round(edge + 0.5 * (width - 2 * edge))
    assert (picture[edge + 40 : edge + 140, x] == 150).all()


def test_curve_of_nothing(tmp_path):
    curve_picture(tmp_path / "log.csv", tmp_path / "loss.png")
    assert read_image(tmp_path / "loss.png").shape == (pictures._HEIGHT, pictures._WIDTH, 3)


# --- time


class Clock:
    """A run whose steps take a known time: starting takes `start` seconds, a step `1 / speed`."""

    def __init__(self, speed: float, start: float, converges: int = 10**9) -> None:
        self.now, self.speed, self.start, self.converges = 0.0, speed, start, converges
        self.done, self.fits, self.falls = 0, 0, ()

    def fit(self, config: TrainConfig, out: Path, *, progress: bool = False) -> FitResult:
        goal = min(config.max_steps, self.converges)
        self.falls = config.lr_drop_steps
        self.now += self.start + max(0, goal - self.done) / self.speed
        self.done, self.fits = max(goal, self.done), self.fits + 1
        out.mkdir(parents=True, exist_ok=True)
        (out / "checkpoint.pt").touch()
        (out / "log.csv").write_text(f"step,images_per_second\n1,{self.speed * config.batch}\n")
        return FitResult(out / "checkpoint.pt", self.done, {}, self.done >= self.converges)


def use(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralannot.train.fit.fit", clock.fit)
    monkeypatch.setattr(program, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))


@pytest.mark.parametrize("speed", [0.3, 4.0, 100.0])
@pytest.mark.parametrize("start", [0.0, 15.0])
def test_time_is_kept(speed, start, tmp_path, monkeypatch):
    clock = Clock(speed, start)
    use(clock, monkeypatch)
    trained = program._train(preset("tiny-human36m-smpl"), tmp_path, 600, progress=False)
    assert trained.steps == clock.done
    assert trained.seconds == pytest.approx(clock.now)
    assert 560 < clock.now < 640
    # The rate fell after 3/4 and 9/10 of the time's steps: starting takes some of it.
    first, second = clock.falls
    assert first < second < clock.done
    assert 420 < 600 - (clock.done - first) / speed < 530
    assert 510 < 600 - (clock.done - second) / speed < 580
    assert clock.fits < 10
    again = program._train(preset("tiny-human36m-smpl"), tmp_path, 600, progress=False)
    assert again == trained
    more = program._train(preset("tiny-human36m-smpl"), tmp_path, 1200, progress=False)
    assert more.steps > trained.steps
    assert 1100 < clock.now < 1280


def test_the_end_before_the_time(tmp_path, monkeypatch):
    clock = Clock(10.0, 5.0, converges=300)
    use(clock, monkeypatch)
    trained = program._train(preset("tiny-human36m-smpl"), tmp_path, 600, progress=False)
    assert (trained.steps, trained.converged) == (300, True)
    clock = Clock(10.0, 5.0)
    use(clock, monkeypatch)
    config = preset("tiny-human36m-smpl", max_steps=90)
    assert program._train(config, tmp_path / "other", 600, progress=False).steps == 90
    assert not clock.falls


# --- what is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--set", "bacth=3"], "unknown field 'bacth'; did you mean 'batch'"),
        (["--set", "batch"], "--set takes FIELD=VALUE, got 'batch'"),
        (["--set", "batch=x"], "batch must be int, got 'x'"),
        (["--set", "compile=yes"], "compile must be true or false"),
        (["--model", "flame"], "no run of human36m flame; there are human36m smpl"),
        (["--minutes", "0"], "minutes must be positive"),
        (["--count", "7"], "count must be a multiple of the 4 views"),
    ],
)
def test_refusals(given, message, tmp_path, capsys):
    assert main([str(tmp_path / "out"), *given]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "human36m-smpl").exists()


def test_values_of_fields():
    from neuralannot.train.config import field_types

    parsed = dict(
        program._parsed(entry, field_types())
        for entry in ("batch=64", "lr=1e-3", "canonical-joints=false", "only_views=1,4", "prior=mano-pca:6")
    )
    assert parsed == {
        "batch": 64,
        "lr": 1e-3,
        "canonical_joints": False,
        "only_views": [1, 4],
        "prior": "mano-pca:6",
    }
    preset("tiny-human36m-smpl", **parsed)
