"""EFT's rule: the network tuned to one sample answers for it and is as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import a_run, studio

from neuralannot.train.annotate import annotate, restored
from neuralannot.train.checkpoint import load_checkpoint
from neuralannot.train.distributed import World
from neuralannot.train.eft import exemplar_estimates
from neuralannot.train.estimates import estimates
from neuralannot.train.fit import fit
from neuralannot.train.method_options import EftOptions, MethodOptions
from neuralannot.train.run import read_data

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return fit(a_run("interhand26m"), tmp_path_factory.mktemp("run")).checkpoint


@pytest.fixture(scope="module")
def run(checkpoint):
    found = load_checkpoint(checkpoint)
    device = torch.device("cpu")
    data = read_data(found.config, checkpoint.parent / "crops", World(0, 1, device))
    return restored(found, found.config, data, device), found.config, data


@pytest.mark.slow
def test_steps_that_lead_nowhere_leave_the_network_s_answers(run):
    machinery, config, data = run
    rows = np.flatnonzero(data.usable)[:3]
    wanted = next(estimates(machinery, config, data, [rows]))
    found = next(exemplar_estimates(machinery, config, data, [rows], EftOptions(steps=1, lr=1e-12)))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)


def test_tuning_brings_each_sample_nearer_to_its_joints_and_the_network_is_put_back(run):
    machinery, config, data = run
    rows = np.flatnonzero(data.usable)[:3]
    before = {n: p.clone() for n, p in machinery.network.state_dict().items()}
    said = next(estimates(machinery, config, data, [rows]))["error"]
    options = EftOptions(steps=10, lr=2e-3)
    tuned = next(exemplar_estimates(machinery, config, data, [rows], options))
    assert (tuned["error"] < 0.9 * said).all()
    for name, value in machinery.network.state_dict().items():
        assert torch.equal(value, before[name])
    # Each is tuned alone: in whatever order, among whichever others.
    alone = next(exemplar_estimates(machinery, config, data, [rows[2:3]], options))
    for name, value in alone.items():
        np.testing.assert_allclose(value[0], tuned[name][2], atol=1e-5)


def test_a_sample_that_is_good_enough_is_left_alone(run):
    machinery, config, data = run
    rows = np.flatnonzero(data.usable)[:2]
    said = next(estimates(machinery, config, data, [rows]))
    found = next(exemplar_estimates(machinery, config, data, [rows], EftOptions(lr=1e-2, enough=1e6)))
    np.testing.assert_allclose(found["hand_pose"], said["hand_pose"], atol=1e-5)


@pytest.mark.slow
def test_annotate_by_eft(checkpoint, tmp_path):
    said = annotate(checkpoint, tmp_path / "network", method="network")
    tuned = annotate(
        checkpoint, tmp_path / "eft", method="eft", options=MethodOptions(eft=EftOptions(steps=3, lr=1e-3))
    )
    assert tuned.count == said.count
    assert tuned.error < said.error


@pytest.mark.slow
def test_in_pictures_alone(tmp_path):
    checkpoint = fit(a_run("ffhq", data=[str(studio("ffhq", 4))]), tmp_path / "run").checkpoint
    said = annotate(checkpoint, tmp_path / "network", method="network")
    tuned = annotate(
        checkpoint, tmp_path / "eft", method="eft", options=MethodOptions(eft=EftOptions(steps=3, lr=1e-3))
    )
    assert tuned.error < said.error


@pytest.mark.parametrize("bad", [{"steps": 0}, {"lr": 0.0}, {"enough": -1.0}])
def test_options_that_mean_nothing_are_refused(bad):
    with pytest.raises(ValueError, match="steps must be at least 1, lr positive"):
        EftOptions(**bad)
