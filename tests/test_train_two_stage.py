"""The second stage: a first stage's files as full supervision, several data sets at once."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import a_run, studio

from neuralannot.train.distributed import World
from neuralannot.train.fit import fit
from neuralannot.train.run import build_machinery, read_data

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


ALONE = World(0, 1, torch.device("cpu"))


def first_stage(layout: str, folder: Path, pattern: str) -> str:
    """The studio's true parameters as if a first stage had written them: a file, or a folder of several."""
    files = sorted((studio(layout) / "truth").glob(pattern))
    if len(files) == 1:
        return str(files[0])
    for file in files:
        shutil.copy(file, folder / file.name)
    return str(folder)


def about_mean(points: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    mask = valid[..., None].float()
    return (points - (points * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)) * mask


@pytest.mark.parametrize(
    ("layout", "pattern"),
    [("human36m", "*_SMPL_NeuralAnnot.json"), ("interhand26m", "*_MANO_NeuralAnnot.json")],
)
def test_a_first_stage_s_parameters_give_the_joints_of_the_crops(layout, pattern, tmp_path):
    config = a_run(
        layout, mode="two-stage", inputs="image", pseudo_gt=[first_stage(layout, tmp_path, pattern)]
    )
    data = read_data(config, tmp_path / "crops", ALONE)
    targets = data.targets
    assert targets.valid_parameters.all()
    assert "transl" not in targets.parameters
    machinery = build_machinery(config, data.joint_sets, ALONE.device)
    posed = machinery.points(**targets.parameters)
    valid = targets.valid_cam & machinery.points.known
    off = about_mean(posed, valid) - about_mean(targets.joints_cam, valid)
    assert float(off.norm(dim=2)[valid].max()) < 5e-3  # mirrored hands: the regressors differ by a little


@pytest.mark.slow
def test_several_data_sets_train_together_each_with_its_joints(tmp_path):
    bodies = first_stage("human36m", tmp_path, "*_SMPL_NeuralAnnot.json")
    config = a_run(
        "human36m",
        name="tiny-mscoco-smpl",
        mode="two-stage",
        outputs="rotation6d",
        data_set=["human36m", "mscoco"],
        data=[str(studio("human36m")), str(studio("mscoco"))],
        pseudo_gt=[bodies, str(tmp_path / "nothing.json")],
        max_steps=16,
        batch=12,
    )
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        read_data(config, tmp_path / "crops", ALONE)
    # In the wild there may be no first stage: an empty name stands for none.
    config = replace(config, pseudo_gt=(bodies, ""))
    data = read_data(config, tmp_path / "crops", ALONE)
    first, second = map(len, data.samples)
    targets = data.targets
    assert targets.num_joints == 17 + 17
    assert not targets.valid_cam[first:].any()
    assert not targets.valid_2d[:first, 17:].any()
    assert not targets.valid_2d[first:, :17].any()
    np.testing.assert_array_equal(targets.valid_parameters.numpy(), np.arange(first + second) < first)
    fit(config, tmp_path / "run")
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"joints_3d", "joints_2d", "parameters"} <= set(rows[0])
    totals = [float(row["total"]) for row in rows]
    assert np.isfinite(totals).all()
    assert np.mean(totals[-5:]) < np.mean(totals[:5])


def test_parameters_of_another_model_are_refused(tmp_path):
    path = first_stage("mscoco", tmp_path, "*_SMPLX_all_NeuralAnnot.json")
    config = a_run("mscoco", "tiny-mscoco-smpl", mode="two-stage", pseudo_gt=[path])
    with pytest.raises(ValueError, match=r"smpl_param|parameters of smplx; the run is of smpl"):
        read_data(config, tmp_path / "crops", ALONE)
