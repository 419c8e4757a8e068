"""The optimiser and SPIN's rule as ways to annotate, from their options to the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_runs import a_run, studio

from neuralannot import load_pseudo_gt
from neuralannot.store import open_table
from neuralannot.train.annotate import annotate
from neuralannot.train.evaluation import annotation_errors
from neuralannot.train.fit import fit
from neuralannot.train.method_options import (
    EftOptions,
    MethodOptions,
    RefineOptions,
    SmplifyOptions,
    check_options,
)
from neuralannot.train.optimisation import lower_error

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
TUNED = MethodOptions(smplify=SmplifyOptions("tuned"))


def of(files):
    return load_pseudo_gt([str(path) for path in files], annotations=False)


def test_the_optimiser_annotates_mocap_without_network_and_image(tmp_path):
    folder = studio("human36m")
    kept = {"data": [str(folder)], "images": ["nowhere"], "every": 1, "only_views": [1]}
    made = annotate("human36m-smpl", tmp_path, method="smplify", options=TUNED, **kept)
    assert made.count > 0
    assert made.error < 0.001
    truth = of(sorted((folder / "truth").glob("Human36M_subject[15678]_*.json")))
    assert annotation_errors(of(made.files), truth).means["mpvpe"] < 30


@pytest.mark.slow
def test_hands_in_pictures_by_the_optimiser_and_by_least_squares(tmp_path):
    folder = studio("mscoco", 6)
    found = {
        method: annotate("mscoco-mano", tmp_path, method=method, options=options, data=[str(folder)])
        for method, options in (("smplify", TUNED), ("fitted", None))
    }
    assert found["smplify"].count == found["fitted"].count > 0
    assert found["smplify"].error < 3  # px of 256
    assert found["fitted"].error < 1
    names = {path.name for path in tmp_path.iterdir()}
    assert {"parts-smplify", "parts-fitted"} <= names


def test_spin_s_rule_keeps_the_nearer_of_both_fits_of_each_sample(tmp_path):
    checkpoint = fit(a_run("interhand26m"), tmp_path / "run").checkpoint
    options = MethodOptions(smplify=SmplifyOptions("tuned"))
    made = annotate(checkpoint, tmp_path, method="spin", options=options)
    tables = [open_table(tmp_path / f"parts-{n}" / "00000.safetensors") for n in ("smplify", "spin")]
    stored, begun = ({name: table[name] for name in table} for table in tables)
    errors = np.stack([stored["error"], begun["error"]])
    assert made.count > 0
    assert (errors[0] != errors[1]).any()  # from elsewhere, to elsewhere
    kept = lower_error(begun, stored)
    np.testing.assert_array_equal(kept["error"], errors.min(axis=0))


def test_the_lower_error_is_kept_row_by_row_and_no_number_never():
    first = {"betas": np.zeros((4, 2)), "error": np.array([1.0, 3.0, np.nan, np.nan])}
    second = {"betas": np.ones((4, 2)), "error": np.array([2.0, 2.0, 5.0, np.nan])}
    kept = lower_error(first, second)
    np.testing.assert_array_equal(kept["error"], [1, 2, 5, np.nan])
    np.testing.assert_array_equal(kept["betas"][:, 0], [0, 1, 1, 0])


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("best", {}, "method must be one of refined, network, fitted, smplify, spin, eft, got 'best'"),
        ("network", {"refine": RefineOptions(smooth=0.1)}, "the method network refines nothing"),
        ("fitted", {"refine": RefineOptions(near=0.1)}, "near is for .*; fitted has no network"),
        ("eft", {"smplify": SmplifyOptions("tuned")}, "eft does not optimise"),
        ("refined", {"eft": EftOptions(steps=3)}, "refined tunes no network"),
    ],
)
def test_methods_and_options_that_do_not_go_together_are_refused(method, options, message):
    with pytest.raises(ValueError, match=message):
        check_options(method, MethodOptions(**options))


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="setting must be one of published, tuned, got 'best'"):
        SmplifyOptions("best")
    with pytest.raises(ValueError, match="joints must be one of clean, noisy, missing, got 'few'"):
        SmplifyOptions(joints="few")


def test_a_checkpoint_s_data_set_goes_without_its_network(tmp_path):
    checkpoint = fit(a_run("interhand26m"), tmp_path / "run").checkpoint
    made = annotate(checkpoint, tmp_path / "out", method="smplify", options=TUNED)
    assert made.error < 0.002
    assert not (Path(tmp_path) / "out" / "parts").exists()
