"""The paper's tables: studies hold what they say of the truth, runs go on, tables show what there is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.paper import annotators
from benchmarks.paper.annotators import SIZES, Size, make_setup
from benchmarks.paper.commands import write_tables
from benchmarks.paper.studies import Study, make_base, true_params
from benchmarks.paper.tables import TABLES, plan

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
CPU = torch.device("cpu")
SMALL = Size(images=28, samples=8, joint_steps=5, image_steps=3, seeds=(0,))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def bases(out):
    return {who: make_base(who, 0, out / "tiny", images=28, workers=1) for who in ("body", "hand")}


def setup_of(study, bases, out):
    return make_setup(study, bases[study.who], out, SMALL, CPU)


def joints_and_truth(setup):
    rows = setup.rows
    samples, crops = setup.data.samples[0].rows(rows), setup.data.crops[0].rows(rows)
    truth = true_params(setup.base, samples, crops.flip)
    given = {n: torch.tensor(np.asarray(v, np.float32)) for n, v in truth.items()}
    with torch.no_grad():
        posed = setup.machinery.points(**given).numpy()
    return setup.data.targets.rows(torch.from_numpy(rows)), posed, truth


@pytest.mark.parametrize(
    "study", [Study("body", 17, "clean", 0), Study("body", 24, "clean", 0), Study("hand", 21, "clean", 0)]
)
def test_the_truth_poses_the_joints_that_were_written(study, bases, out):
    setup = setup_of(study, bases, out)
    targets, posed, truth = joints_and_truth(setup)
    assert targets.valid_cam.all()
    np.testing.assert_allclose(posed, targets.joints_cam.numpy(), atol=2e-6 if study.who == "hand" else 2e-5)
    judged = {n: v[setup.judged] for n, v in truth.items()}
    found = setup.measured(judged, seconds=1.0)
    assert max(found.mpjpe, found.mpvpe, found.pa_mpjpe) < 1e-2
    assert np.isnan(found.hidden)


def test_noise_and_missing_joints_are_as_asked_and_the_same_in_all_views(bases, out):
    setup = setup_of(Study("body", 17, "noise", 0), bases, out)
    targets, posed, _ = joints_and_truth(setup)
    assert 0.008 < (targets.joints_cam.numpy() - posed).std() < 0.012
    setup = setup_of(Study("body", 24, "missing", 0), bases, out)
    targets, posed, _ = joints_and_truth(setup)
    valid = targets.valid_cam.numpy()
    assert 0.1 < (~valid).mean() < 0.3
    np.testing.assert_allclose(
        np.where(valid[..., None], targets.joints_cam, 0), np.where(valid[..., None], posed, 0), atol=2e-5
    )
    keys = setup.data.samples[0].keys[setup.rows]
    for key in np.unique(keys, axis=0):
        assert len(np.unique(valid[(keys == key).all(axis=1)], axis=0)) == 1


def test_keypoints_alone_have_a_truth_of_each_annotation_and_hand(bases, out):
    for study in (Study("body", 17, "2d", 0), Study("body", 24, "2d", 0), Study("hand", 21, "2d", 0)):
        setup = setup_of(study, bases, out)
        assert not setup.data.samples[0].is_mocap
        targets, posed, truth = joints_and_truth(setup)
        assert len(truth["betas"]) == len(setup.rows)
        # About a virtual camera of another view they are not where the real one has them, but nearly so.
        at_root = posed[..., :2] - posed[:, :1, :2]
        pixels = targets.joints_2d.numpy() - targets.joints_2d.numpy()[:, :1]
        scale = (at_root * pixels).sum((1, 2)) / (at_root**2).sum((1, 2))
        left = np.linalg.norm(pixels - scale[:, None, None] * at_root, axis=2).mean()
        assert left < 0.15 * np.linalg.norm(pixels, axis=2).mean()


def test_every_answer_must_be_a_number(bases, out):
    setup = setup_of(Study("body", 17, "clean", 0), bases, out)
    _, _, truth = joints_and_truth(setup)
    judged = {n: np.array(v[setup.judged]) for n, v in truth.items()}
    judged["betas"][0, 0] = np.nan
    with pytest.raises(ValueError, match="body-17-clean-seed0: betas are not all numbers"):
        setup.measured(judged, seconds=1.0)


@pytest.mark.slow
def test_a_run_goes_on_and_its_tables_show_what_is_there(bases, out, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(annotators.SIZES, "tiny", SMALL)
    given = ["tables", "--size", "tiny", "--out", str(out), "--tables", "4", "--studies", "body-17-missing"]
    assert main([*given, "--rows", "fitted", "network-joints", "--device", "cpu"]) == 0
    first = capsys.readouterr().out
    assert first.count("body-17-missing-seed0  ") == 2
    files = {p: p.stat().st_mtime_ns for p in (out / "tiny").rglob("results/*.json")}
    assert len(files) == 2
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tables -->\nold\n<!-- end of tables -->\nafter\n")
    assert (
        main([*given, "--rows", "fitted", "refined-joints", "--markdown", str(page), "--device", "cpu"]) == 0
    )
    second = capsys.readouterr().out
    assert second.count("body-17-missing-seed0  ") == 1  # the network was trained, the fits were made
    assert {p: p.stat().st_mtime_ns for p in files} == files
    assert "17 joints, missing" in second
    text = page.read_text()
    assert text.startswith("before\n<!-- tables -->\n**Table 4")
    assert text.endswith("<!-- end of tables -->\nafter\n")
    assert "| network, joints, refined |" in text
    assert "old" not in text
    assert main([*given, "--show"]) == 0
    assert "seed0  " not in capsys.readouterr().out


def test_every_row_of_every_table_is_planned_once():
    planned = plan([2, 3, 4, 5], SIZES["small"].seeds)
    for seed in SIZES["small"].seeds:
        for table in TABLES:
            for study in table.studies(seed):
                keys = [row.key for row in planned[study]]
                assert len(keys) == len(set(keys))
                assert {row.key for row in table.rows_of(study)} <= set(keys)


def test_a_page_without_marks_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match=r"page\.md: expected the marks"):
        write_tables(page, [])
    assert page.read_text() == "nothing\n"
