"""The benchmarks: that all sides of a row give the same results, and that tables say what was found."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1]))  # they are no part of the package that is installed

from benchmarks import NAMES, backward, camera, dataset, floors, joints, load, mesh, regressed, shape, workers
from benchmarks.grids import NOTHING, OURS, Comparison, Table
from benchmarks.layers import (
    LIBRARIES,
    SMPLFITTER,
    SMPLX,
    TOLERANCE,
    DisagreementError,
    agreeing,
    layers_of,
    random_parameters,
    write_model,
)
from benchmarks.options import MODELS, Options
from benchmarks.page import write_sections
from benchmarks.plain import check_samples
from benchmarks.timing import Times, alternate, duration, spread, times_faster

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("ignore:no official body models", "ignore:Sparse")
# Why a library may have nothing to show, here or for a model.
EXCUSES = re.compile(r"not installed.*|no such model|—")


@functools.cache
def made(model: str, variant: str, folder: Path):
    arrays = write_model(folder, model, variant)
    return arrays, layers_of(folder, model, arrays, "cpu")


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """model, variant -> its arrays and each library's layer; made once."""
    folder = tmp_path_factory.mktemp("models")
    yield lambda model, variant="dense": made(model, variant, folder / variant)
    made.cache_clear()


# --- sides agree


def sides_of(case, libraries, values, *, with_gradients=False):
    """Library -> its arguments and what it is timed on."""
    found = {}
    for library, layer in libraries.items():
        if isinstance(layer, str):
            assert EXCUSES.fullmatch(layer), f"{library}: {layer}"
            continue
        arguments = {k: v.clone().requires_grad_(with_gradients) for k, v in layer.arguments(values).items()}
        side = case.side(layer, arguments)
        if isinstance(side, str):
            assert EXCUSES.fullmatch(side), f"{library}: {side}"
            continue
        found[library] = arguments, side
    assert {OURS, SMPLX} <= found.keys()
    return found


@pytest.mark.parametrize(
    ("module", "model"),
    [(module, model) for module in (mesh, joints, regressed) for model in module.TASK.models],
    ids=lambda value: getattr(value, "TITLE", value),
)
@torch.no_grad()
def test_sides_that_pose_give_the_same_points(module, model, layers):
    arrays, libraries = layers(model)
    values = random_parameters(model, 3, seed=5)
    for case in module.cases(model, arrays):
        points = {name: side() for name, (_, side) in sides_of(case, libraries, values).items()}
        assert points[OURS].shape[0] == 3
        assert points[OURS].std() > 0.01
        for name, found in points.items():
            torch.testing.assert_close(found, points[OURS], atol=TOLERANCE.get(name, 0), rtol=0)


@pytest.mark.parametrize("model", MODELS)
def test_gradients_are_smplx_s(model, layers):
    arrays, libraries = layers(model)
    (case,) = backward.cases(model, arrays)
    found = sides_of(case, libraries, random_parameters(model, 2, seed=6), with_gradients=True)
    gradients = {name: dict(zip(arguments, side(), strict=True)) for name, (arguments, side) in found.items()}
    for name, value in gradients[OURS].items():
        torch.testing.assert_close(gradients[SMPLX][name], value.flatten(1), atol=1e-4, rtol=1e-4)
    common = {
        name: backward.common_gradients(arguments, tuple(gradients[name].values()))
        for name, (arguments, _) in found.items()
    }
    for value in common.values():
        assert value.shape == (2, 16)
        torch.testing.assert_close(value, common[OURS], atol=1e-3, rtol=0)


@pytest.mark.parametrize("model", ["smpl", "mano", "flame"])
@torch.no_grad()
def test_a_fixed_shape_gives_the_same_meshes(model, layers):
    sides = shape.sides_of(layers(model)[1], model, 3, "cpu")
    checked = agreeing(sides)
    assert all(EXCUSES.fullmatch(side) for side in checked.values() if isinstance(side, str))
    torch.testing.assert_close(sides[OURS](), sides[shape.PASSED](), atol=1e-5, rtol=0)


def test_variants_differ_in_the_density_of_their_correctives(tmp_path):
    dense, sparse = (write_model(tmp_path / v, "mano", v)["posedirs"] for v in ("dense", "open"))
    assert (dense != 0).mean() > 0.99
    assert (sparse != 0).mean() < 0.1


def test_a_side_with_other_points_is_not_timed():
    points = torch.zeros(2, 5, 3)
    right, wrong = lambda: points, lambda: points + 1e-3
    kept = agreeing({OURS: right, SMPLX: right, SMPLFITTER: wrong, "other": "not installed"})
    assert kept == {OURS: right, SMPLX: right, SMPLFITTER: "differs by 1.0e-03 m", "other": "not installed"}
    with pytest.raises(DisagreementError, match=r"1.0e-03 m off ours; expected at most 1e-05"):
        agreeing({OURS: right, SMPLX: wrong})
    with pytest.raises(DisagreementError):
        agreeing({OURS: right, SMPLX: lambda: points * float("nan")})


def test_a_side_that_fails_says_why_and_ours_must_not():
    def failing():
        raise RuntimeError("no kernel")

    points = lambda: torch.zeros(1, 3)  # noqa: E731
    assert agreeing({OURS: points, SMPLFITTER: failing})[SMPLFITTER] == "fails: no kernel"
    with pytest.raises(RuntimeError, match="no kernel"):
        agreeing({OURS: failing, SMPLX: points})


def test_world_to_camera_is_the_same_by_row_and_by_column(tmp_path):
    path = camera.write_human36m_like(tmp_path, 40)
    sides = camera.sides_of(path)
    camera.check(sides)
    turned, moved = sides[OURS]()
    assert turned.shape == moved.shape == (40, 3)
    assert moved[:, 2].min() > 3  # cameras stand five metres away
    sides[camera.LOOP] = lambda: (turned, moved + 1e-3)
    with pytest.raises(ValueError, match=r"cv2.Rodrigues is .* 1.0e-03 m off ours"):
        camera.check(sides)


def test_ways_of_reading_give_the_same_columns(tmp_path, monkeypatch):
    load.check(tmp_path)
    monkeypatch.setattr(load, "read_with_json", lambda path: {"shape": np.zeros((50, 10), np.float32)})
    with pytest.raises(ValueError, match=r"json.load.* reads another shape"):
        load.check(tmp_path)


def test_samples_are_the_same_as_the_plain_way_s(tmp_path):
    cases = dataset.cases_of(tmp_path, 24)
    for ours, plain in cases.values():
        assert len(ours) == 24
        if plain is None:
            continue
        check_samples(ours, plain, list(range(24)))
        plain.rows[7]["bbox"] = [1.0, 2.0, 3.0, 4.0]
        with pytest.raises(ValueError, match="row 7: box_xywh"):
            check_samples(ours, plain, [7])


def test_workers_share_every_row_and_no_row_twice():
    class Recorder(list):
        def wait(self):
            pass

        put = list.append

        def __getitem__(self, row):
            self.append(row)

        def __len__(self):
            return 11

    seen = []
    for number in range(3):
        recorder, results = Recorder(), Recorder()
        workers.work_through(recorder, number, 3, Recorder(), results)
        seen += list(recorder)
        assert results.pop() > 0  # MB of this process
    assert sorted(seen) == list(range(11))


def test_work_counts_what_is_not_zero():
    arrays = {
        "v_template": np.ones((2, 3)),
        "shapedirs": np.ones((2, 3, 10)),
        "posedirs": np.zeros((2, 3, 9)),
        "weights": np.array([[1.0, 0.0], [0.5, 0.5]]),
    }
    arrays["posedirs"][1, 2, 4] = 1
    found = floors.mesh_work(arrays, 5)
    model, weights, parameters = 6 + 60 + 1, 3, 3 * 2 + 20
    assert found.bytes == 4 * (5 * (2 * 3 + parameters) + model + weights)
    assert found.flops == 2 * 5 * (model + 12 * weights + 9 * 2)
    alone = floors.mesh_work(arrays, 5, vertices=np.array([0]))
    assert alone.flops == 2 * 5 * (33 + 12 * 1 + 9)
    assert floors.mesh_work(arrays, 5, backward=True).flops > 2 * found.flops
    rates = floors.Rates(copy=4 * found.bytes, product=found.flops / 2)
    assert rates.floor(found) == "2.0 s, arithmetic"
    assert floors.Rates(copy=found.bytes, product=2 * found.flops).floor(found) == "1.0 s, memory"


# --- timing and tables


def test_sides_run_in_turns_after_a_warm_up(monkeypatch):
    monkeypatch.setattr("benchmarks.timing._SECONDS_A_RUN", 0.0)
    calls = []
    sides = {name: functools.partial(calls.append, name) for name in "abc"}
    times = alternate(sides, repeats=4, warmup=2)
    assert "".join(calls) == "aabbcc" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(seconds) for name, seconds in times.seconds.items()} == {"a": 4, "b": 4, "c": 4}


def test_numbers_are_shown_with_their_spread():
    times = Times({OURS: [1.0, 2.0, 4.0], SMPLX: [3.0, 8.0, 8.0]})
    assert times.ratios(SMPLX, OURS) == [3.0, 4.0, 2.0]
    assert times_faster(times.ratios(SMPLX, OURS)) == "3.0 (2.0 … 4.0)"
    assert duration([0.0123, 0.0118, 0.5]) == "12.3 ms (11.8 … 500.0)"
    assert duration([2e-9]) == "2.0 ns (2.0 … 2.0)"
    assert spread([-0.01, 0.0], 1) == "0.0 (0.0 … 0.0)"


def test_a_comparison_has_a_cell_for_every_side_and_ratios_of_those_that_ran(monkeypatch):
    monkeypatch.setattr("benchmarks.timing._SECONDS_A_RUN", 0.0)
    comparison = Comparison("Mesh", LIBRARIES, LIBRARIES[1:], "a machine", extra=("floor",))
    sides = {OURS: lambda: None, SMPLX: lambda: None, "body-models": "not installed"}
    comparison.add("SMPL", sides, repeats=2, goal="5", extra=("1 s",))
    (row,) = comparison.table.rows
    cells = dict(zip(comparison.table.columns, row, strict=True))
    assert cells["body-models"] == "not installed"
    assert cells[SMPLFITTER] == cells["faster than body-models"] == NOTHING
    assert (cells["floor"], cells["goal"]) == ("1 s", "5")
    assert re.fullmatch(r"[\d.]+ \([\d.]+ … [\d.]+\)", cells["faster than smplx"])


def test_tables_keep_their_cells_as_text_and_as_markdown():
    table = Table("Mesh", ("", "one", "two"), "a machine", notes=["A note."])
    table.add("SMPL", "1 | 2", "not installed")
    with pytest.raises(ValueError, match="3 cells, got 2"):
        table.add("SMPL-X", "1")
    assert [line.split("  ") for line in table.text().splitlines()[2:3]] == [
        ["SMPL", "1 | 2", "not installed"]
    ]
    lines = table.markdown().splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert cells == [["", "one", "two"], ["---", "---:", "---:"], ["SMPL", "1 / 2", "not installed"]]
    for text in (table.text(), table.markdown()):
        assert (
            text.index("Mesh") < text.index("not installed") < text.index("A note.") < text.index("a machine")
        )


def test_the_page_keeps_sections_that_are_not_measured_anew(tmp_path):
    page = tmp_path / "page.md"
    first, second = (Table(title, ("", "x"), "a machine") for title in ("Before", "After"))
    write_sections(page, {"mesh": [first], "load": [first]})
    write_sections(page, {"load": [second, second]})
    text = page.read_text()
    assert [text.count(title) for title in ("**Before**", "**After**")] == [1, 2]
    assert text.count("Not measured yet") == len(NAMES) - 2
    places = [text.index(f"`python -m benchmarks {name}`") for name in NAMES]
    assert places == sorted(places)


def test_the_page_in_docs_is_the_program_s(tmp_path):
    copy = tmp_path / "benchmarks.md"
    copy.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    write_sections(copy, {})
    assert copy.read_text() == (ROOT / "docs" / "benchmarks.md").read_text()


# --- the command


@pytest.mark.slow
def test_quick_runs_print_tables_and_write_the_page(tmp_path):
    page = tmp_path / "page.md"
    names = ["mesh", "parts", "joints", "camera", "overlay", "gpu"]
    command = [sys.executable, "-m", "benchmarks", *names, "--quick", "--threads", "1", "--repeats", "1"]
    run = subprocess.run(
        [*command, "--models", "mano", "--markdown", str(page)], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "MANO, skeleton, batch 2" in run.stdout
    assert "torch 2" in run.stdout
    assert " with 1 threads" in run.stdout
    text = page.read_text()
    assert text.count("Not measured yet") == len(NAMES) - len(names)
    assert "| MANO, batch 2 |" in text
    assert torch.cuda.is_available() or "not measured: torch sees no GPU here" in text


def test_the_command_refuses_what_it_does_not_know(capsys):
    from benchmarks.__main__ import main

    for wrong in (["mush"], ["mesh", "--repeats", "0"], ["mesh", "--models", "anny"]):
        with pytest.raises(SystemExit):
            main(wrong)
    assert "anny" in capsys.readouterr().err


def test_options_give_way_to_what_was_asked():
    assert Options().repeated(9) == 9
    assert Options(quick=True).repeated(9) == 2
    assert Options(quick=True, repeats=5).repeated(9) == 5
    assert Options(batch=(7,)).batches((1, 256)) == (7,)
    assert Options(models=("mano", "smpl")).chosen(("smpl", "smplx")) == ("smpl",)
