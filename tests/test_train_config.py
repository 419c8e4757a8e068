"""Configurations: presets, what is refused, the plateau that ends a run."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralannot.cli import main
from neuralannot.train.config import PRESETS, TrainConfig, config_from_dict, field_types, preset
from neuralannot.train.plateau import Plateau

NAMED = {
    *("human36m-smpl", "mpi-inf-3dhp-smplx", "3dpw-smplx", "interhand-mano", "freihand-mano"),
    *("mscoco-smpl", "mscoco-mano", "mscoco-flame", "mscoco-smplx-body", "mpii-smpl", "crowdpose-smpl"),
    "ffhq-flame",
}


def test_presets_are_the_papers_runs():
    assert set(PRESETS) >= NAMED
    assert sum(name.startswith("tiny-") for name in PRESETS) >= 4
    for name, config in PRESETS.items():
        if name.startswith("tiny-"):
            continue
        paper = (config.backbone, config.image_size, config.batch, config.lr)
        assert paper == ("resnet50", 256, 192, 1e-4), name
        assert config.inputs == ("image+joints" if config.mode == "mocap" else "image"), name
        latent = config.mode == "wild" and config.model != "flame"
        assert config.outputs == ("latent" if latent else "rotation6d"), name
        assert config.head_layers == 0, name


@pytest.mark.parametrize("name", PRESETS)
def test_configurations_come_back_from_plain_values(name):
    assert config_from_dict(json.loads(json.dumps(PRESETS[name].as_dict()))) == PRESETS[name]


def test_every_field_has_help_and_an_option(capsys):
    with pytest.raises(SystemExit):
        main(["train", "fit", "--help"])
    text = capsys.readouterr().out
    for entry in fields(TrainConfig):
        assert entry.metadata["help"]
        assert f"--{entry.name.replace('_', '-')}" in text, entry.name


def test_unknown_things_are_refused_with_the_nearest_name(capsys):
    with pytest.raises(ValueError, match="unknown preset 'human36-smpl'; did you mean 'human36m-smpl'"):
        preset("human36-smpl")
    with pytest.raises(ValueError, match="unknown field 'bacth'; did you mean 'batch'"):
        preset("human36m-smpl", bacth=3)
    with pytest.raises(SystemExit):
        main(["train", "fit", "human36m-smpl", "--out", "x", "--bacth", "3"])
    assert "--bacth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": "3"}, "batch must be a whole number, got '3'"),
        ({"batch": True}, "batch must be a whole number, got True"),
        ({"batch": 0}, "batch must be positive, got 0"),
        ({"lr": "small"}, "lr must be a number"),
        ({"data": "folder"}, "data must be a list of texts, got 'folder'"),
        ({"subjects": ["S1"]}, "subjects must be a list of whole numbers"),
        ({"mode": "studio"}, "mode must be one of mocap, wild, two-stage, got 'studio'"),
        ({"model": "smplh"}, "model must be one of smpl, smplx, mano, flame, got 'smplh'"),
        ({"clip": -1.0}, "clip must not be negative, got -1.0"),
        ({"head_layers": -1}, "head_layers must not be negative"),
        ({"backbone": "resnet5"}, "backbone must be one of resnet18, resnet34, resnet50, resnet101"),
        ({"inputs": "img"}, "inputs must be one of image, joints, image"),
        ({"outputs": "rot"}, "outputs must be one of rotation6d, latent"),
        ({"joint_dropout": 1.0}, "joint_dropout must be from 0 to below 1"),
        ({"pose_weight": -1.0}, "pose_weight must not be negative"),
        ({"data_set": ["mscoco", "mpii"]}, "mode mocap takes one data set; two-stage takes several"),
        ({"data_set": []}, "data_set must name one data set at least"),
        ({"data": ["a", "b"]}, "data must be one, or one for each of human36m, got 2"),
    ],
)
def test_values_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        preset("human36m-smpl", **changes)


def test_several_data_sets_share_or_have_their_own():
    config = preset(
        "mscoco-smpl", mode="two-stage", data_set=["mscoco", "mpii"], data=["a", "b"], images=["c"]
    )
    assert [config.of("data", n) for n in (0, 1)] == ["a", "b"]
    assert [config.of("images", n) for n in (0, 1)] == ["c", "c"]
    assert config.of("pseudo_gt", 1) == ""
    assert field_types()["subjects"] == tuple[int, ...]


def run(plateau: Plateau, losses) -> list[float]:
    rates = []
    for step, loss in enumerate(losses, 1):
        if plateau.is_over(step - 1):
            break
        rates.append(plateau.lr_at(step - 1))
        plateau.add(loss, step)
    return rates


def a_plateau(**changes) -> Plateau:
    values = {"lr": 1.0, "window": 2, "patience": 2, "gain": 0.1, "drops": 1, "max_steps": 0} | changes
    return Plateau(**values)


def test_the_rate_falls_when_the_loss_has_converged_and_then_the_run_ends():
    plateau = a_plateau()
    # The first window sets the least; two more without gain drop the rate, two more end the run.
    assert run(plateau, [5.0] * 30) == [1.0] * 6 + [0.1] * 4
    assert plateau.has_converged


def test_a_loss_that_keeps_falling_goes_on_to_the_last_step():
    plateau = a_plateau(max_steps=20)
    assert run(plateau, [2.0 ** -(n // 2) for n in range(99)]) == [1.0] * 20
    assert not plateau.has_converged


def test_the_rate_falls_at_named_steps_if_it_has_not_by_itself():
    plateau = a_plateau(max_steps=8, drops=2, drop_steps=(3, 6, 7))
    expected = [1.0] * 3 + [0.1] * 3 + [0.01] * 2  # as often as `drops` has it
    np.testing.assert_allclose(run(plateau, [2.0**-n for n in range(9)]), expected)
    # By itself after 6 steps: what is named at 9 has been done.
    plateau = a_plateau(max_steps=10, drops=2, drop_steps=(9,))
    np.testing.assert_allclose(run(plateau, [5.0] * 20), [1.0] * 6 + [0.1] * 4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=60), st.integers(0, 59))
def test_going_on_from_a_state_is_as_if_never_stopped(losses, cut):
    whole, first, second = a_plateau(), a_plateau(), a_plateau()
    expected = run(whole, losses)
    cut = min(cut, len(expected))
    for step, loss in enumerate(losses[:cut], 1):
        first.add(loss, step)
    second.load(first.state())
    rates = expected[:cut]
    for step, loss in enumerate(losses[cut:], cut + 1):
        if second.is_over(step - 1):
            break
        rates.append(second.lr_at(step - 1))
        second.add(loss, step)
    assert rates == expected
    assert second.state() == whole.state()


def test_a_window_is_an_epoch_at_least():
    config = preset("human36m-smpl", batch=10, window=3)
    assert Plateau.of(config, 95).window == 10
    assert Plateau.of(config, 5).window == 3
