"""Runs: one process, two, stopped and gone on with, killed; what stops one."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import a_run, finish, free_port, start, studio

from neuralannot.train.checkpoint import load_checkpoint, save_checkpoint
from neuralannot.train.distributed import World, _SharedBatchNorm2d
from neuralannot.train.feed import _Schedule, batches
from neuralannot.train.fit import CHECKPOINT, fit
from neuralannot.train.run import build_machinery, read_data

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
ALONE = World(0, 1, torch.device("cpu"))


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(out / CHECKPOINT).network


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- what training does


@pytest.mark.parametrize(
    ("layout", "name", "steps", "changes"),
    [
        ("human36m", None, 8, {}),
        ("human36m", None, 14, {"inputs": "joints", "joint_dropout": 0.3}),
        pytest.param("human36m", "tiny-human36m-smplx", 8, {"inputs": "image"}, marks=pytest.mark.slow),
        ("interhand26m", None, 8, {}),
        pytest.param("mscoco", "tiny-mscoco-smpl", 14, {}, marks=pytest.mark.slow),
        ("mscoco", "tiny-mscoco-smplx-body", 14, {"inputs": "image+joints", "outputs": "rotation6d"}),
        pytest.param("mscoco", "tiny-mscoco-mano", 8, {}, marks=pytest.mark.slow),
        pytest.param("mscoco", "tiny-mscoco-flame", 8, {}, marks=pytest.mark.slow),
        pytest.param("ffhq", None, 14, {"inputs": "joints"}, marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_run_lowers_its_loss(layout, name, steps, changes, tmp_path):
    config = a_run(layout, name, max_steps=steps, checkpoint_every=100, **changes)
    result = fit(config, tmp_path)
    assert result.steps == steps
    found = [float(row["total"]) for row in rows_of(tmp_path)]
    assert np.isfinite(found).all()
    assert np.mean(found[-3:]) < 0.9 * np.mean(found[:2])
    assert {"lr", "images_per_second", "betas", "total"} <= set(rows_of(tmp_path)[0])
    assert result.losses["total"] == pytest.approx(found[-1])


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(a_run(seed=seed, max_steps=2), tmp_path / name)
    assert same(weights_of(tmp_path / "a"), weights_of(tmp_path / "b"))
    assert not same(weights_of(tmp_path / "a"), weights_of(tmp_path / "c"))


# --- stopped, killed, gone on with


@pytest.mark.parametrize(
    "changes", [{"joint_dropout": 0.3}, {"inputs": "joints", "window": 2, "patience": 1}]
)
def test_a_run_that_was_stopped_ends_bit_for_bit_as_if_it_had_not(changes, tmp_path):
    config = a_run(max_steps=7, **changes)
    fit(config, tmp_path / "whole")
    fit(replace(config, max_steps=3), tmp_path / "parts")
    fit(replace(config, max_steps=5), tmp_path / "parts")
    fit(config, tmp_path / "parts")
    one, other = (load_checkpoint(tmp_path / name / CHECKPOINT) for name in ("whole", "parts"))
    assert same(one.network, other.network)
    for key, state in one.optimiser["state"].items():
        assert all(torch.equal(state[n], other.optimiser["state"][key][n]) for n in state)
    assert one.step == other.step == 7
    assert one.progress["plateau"] == other.progress["plateau"]
    kept = [[row["step"], row["total"]] for row in rows_of(tmp_path / "whole")]
    assert [[row["step"], row["total"]] for row in rows_of(tmp_path / "parts")] == kept


@pytest.mark.slow
def test_a_run_that_was_killed_ends_bit_for_bit_as_if_it_had_not(tmp_path):
    config = a_run(
        max_steps=24,
        window=100,
        checkpoint_every=2,
        inputs="joints",
        joint_dropout=0.2,
        folder=studio("human36m"),
    )
    finish(start(config, tmp_path / "whole"))
    killed = start(config, tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / CHECKPOINT).is_file() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.ended()
    at = load_checkpoint(tmp_path / "killed" / CHECKPOINT).step
    assert 0 < at < 24
    finish(start(config, tmp_path / "killed"))
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed"))
    steps = [int(row["step"]) for row in rows_of(tmp_path / "killed")]
    assert steps == list(range(1, 25))


def test_a_checkpoint_of_another_configuration_is_not_gone_on_with(tmp_path):
    fit(a_run(inputs="joints"), tmp_path)
    with pytest.raises(ValueError, match=r"another configuration: lr 0.001 there, 0.5 here; choose another"):
        fit(a_run(inputs="joints", lr=0.5), tmp_path)
    fit(a_run(inputs="joints", max_steps=6), tmp_path)
    assert load_checkpoint(tmp_path / CHECKPOINT).step == 6


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("surroundings", "was trained with another mean"),
        ("joint_sets", "was trained with another joint set"),
        ("rest_torso", "was trained with another joint regressor"),
    ],
)
def test_a_checkpoint_of_another_body_is_not_gone_on_with(what, message, tmp_path):
    config = a_run(inputs="joints", max_steps=2)
    fit(config, tmp_path)
    found = load_checkpoint(tmp_path / CHECKPOINT)
    if what == "rest_torso":
        found.network["rest_torso"][0] += 0.01
    else:
        getattr(found, what)["mean" if what == "surroundings" else "other-3"] = ["a"]
    save_checkpoint(found, tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match=message):
        fit(replace(config, max_steps=4), tmp_path)


def test_joints_that_changed_end_a_run_and_files_that_moved_do_not(tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(studio("human36m"), moved, symlinks=True)
    config = a_run(inputs="joints", max_steps=2)
    fit(config, tmp_path / "run")
    there = replace(config, data=(str(moved),), max_steps=4)
    assert fit(there, tmp_path / "run").steps == 4
    path = moved / "annotations" / "Human36M_subject1_joint_3d.json"
    path.write_text(path.read_text().replace("1", "2"))
    with pytest.raises(ValueError, match="was trained with another set of samples or joints; choose"):
        fit(replace(there, max_steps=6), tmp_path / "run")


def test_numbers_of_another_precision_are_not_gone_on_with(tmp_path):
    """`auto` may stand for something else on another machine; asked for by name, it goes on."""
    config = a_run(inputs="joints", max_steps=2, precision="bf16", device="cpu")
    fit(config, tmp_path)
    with pytest.raises(ValueError, match=r"another precision \(bf16 there, fp32 here\)"):
        fit(replace(config, precision="auto", max_steps=4), tmp_path)
    assert fit(replace(config, max_steps=4), tmp_path).steps == 4


# --- two processes


@pytest.mark.parametrize("changes", [{"joint_dropout": 0.3}, {"inputs": "joints"}])
def test_two_processes_give_what_one_gives(changes, tmp_path):
    config = a_run(max_steps=3, clip=0.0, folder=studio("human36m"), **changes)
    fit(config, tmp_path / "one")
    port = free_port()
    pair = [start(config, tmp_path / "two", rank=rank, size=2, port=port) for rank in (0, 1)]
    for process in pair:
        finish(process)
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    begun = build_machinery(config, read_data(config, tmp_path / "x", ALONE).joint_sets, ALONE.device)
    start_from = begun.network.state_dict()
    moved = torch.cat([(one[n] - start_from[n]).flatten() for n in one if one[n].is_floating_point()])
    apart = torch.cat([(one[n] - two[n]).flatten() for n in one if one[n].is_floating_point()])
    assert float(apart.norm() / moved.norm()) < 0.02  # Adam's first steps make much of rounding
    # Adam does not mind the gradient's scale; its averages show it.
    alone, shared = (load_checkpoint(tmp_path / n / CHECKPOINT).optimiser["state"] for n in ("one", "two"))
    averages = [torch.cat([s["exp_avg"].flatten() for s in state.values()]) for state in (alone, shared)]
    assert float((averages[0] - averages[1]).norm() / averages[0].norm()) < 0.05
    for a, b in zip(rows_of(tmp_path / "one"), rows_of(tmp_path / "two"), strict=True):
        assert float(a["total"]) == pytest.approx(float(b["total"]), rel=1e-3)
    assert float(rows_of(tmp_path / "one")[0]["total"]) == pytest.approx(
        float(rows_of(tmp_path / "two")[0]["total"]), rel=1e-5
    )


def test_shared_batch_norm_takes_half_precision(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        plain = torch.nn.BatchNorm2d(5)
        shared = _SharedBatchNorm2d.of(plain)
        x = torch.randn(4, 5, 6, 7).bfloat16()
        found = shared(x)
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), plain(x.float()), atol=0.05, rtol=0.05)
        torch.testing.assert_close(shared.running_var, plain.running_var)
    finally:
        torch.distributed.destroy_process_group()


def test_batch_norm_over_one_process_is_torch_s(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        plain = torch.nn.BatchNorm2d(5).double()
        torch.nn.init.uniform_(plain.weight)
        shared = _SharedBatchNorm2d.of(plain).double()
        x = torch.randn(4, 5, 6, 7, dtype=torch.float64)
        for _ in range(3):
            given = [x.clone().requires_grad_() for _ in range(2)]
            found = [layer(value) for layer, value in zip((plain, shared), given, strict=True)]
            for value in found:
                value.sin().sum().backward()
            torch.testing.assert_close(*found)
            torch.testing.assert_close(given[0].grad, given[1].grad)
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(value, shared.state_dict()[name])
        torch.testing.assert_close(plain.eval()(x), shared.eval()(x))
    finally:
        torch.distributed.destroy_process_group()


# --- batches


def test_every_epoch_shows_every_sample_at_most_once_and_shares_make_up_the_batch():
    rows = np.arange(100, 123)
    schedule = iter(_Schedule(rows, 5, seed=3, first=0))
    epochs = [np.concatenate([next(schedule) for _ in range(4)]) for _ in range(3)]
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 20
        assert set(epoch.tolist()) <= set(rows.tolist())
    assert not np.array_equal(epochs[0], epochs[1])
    later = iter(_Schedule(rows, 5, seed=3, first=6))
    np.testing.assert_array_equal(next(later), epochs[1][10:15])
    config = a_run(inputs="joints", batch=7, joint_dropout=0.4)
    data = read_data(config, Path("unused"), ALONE)
    whole = next(batches(data, config, ALONE, first_step=9))
    shares = [next(batches(data, config, World(r, 3, ALONE.device), first_step=9)) for r in range(3)]
    assert [share.whole for share in shares] == [7, 7, 7]
    for r, share in enumerate(shares):
        assert torch.equal(share.rows, whole.rows[r::3])
        assert torch.equal(share.hidden, whole.hidden[r::3])
        assert torch.equal(share.targets.joints_cam, data.targets.joints_cam[share.rows])
    with pytest.raises(ValueError, match="a batch of 2 cannot be shared by 3 processes"):
        next(batches(data, replace(config, batch=2), World(0, 3, ALONE.device)))


def test_workers_deliver_what_the_main_process_would(tmp_path):
    config = a_run(batch=5)
    data = read_data(config, tmp_path, ALONE)
    alone = batches(data, config, ALONE)
    helped = batches(data, replace(config, workers=2), ALONE)
    for _ in range(5):
        one, other = next(alone), next(helped)
        assert torch.equal(one.rows, other.rows)
        assert torch.equal(one.images, other.images)


# --- what stops a run


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_sample(tmp_path, monkeypatch):
    from neuralannot.train import fit as room

    config = a_run(inputs="joints", max_steps=8)
    real = room.batches

    def poisoned(data, *args, **options):
        bad = int(np.flatnonzero(data.usable)[4])
        for step, batch in enumerate(real(data, *args, **options)):
            if step >= 3:
                batch.targets.joints_cam[batch.rows == bad] = torch.nan
            yield batch

    monkeypatch.setattr(room, "batches", poisoned)
    with pytest.raises(
        ValueError, match=r"the loss of Human3\.6M annotation \d+ \(S.*jpg\) is nan.*last good"
    ):
        fit(config, tmp_path)
    kept = load_checkpoint(tmp_path / CHECKPOINT)
    assert kept.step >= 2
    assert all(torch.isfinite(value).all() for value in kept.network.values())


def test_data_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"where is human36m\? give data="):
        fit(a_run(data=[]), tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        fit(a_run(data=[str(tmp_path / "nowhere")]), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"none of 12 crops can be made; row 0: image missing"):
        fit(a_run(images=[str(tmp_path / "empty")]), tmp_path / "run")
    with pytest.raises(ValueError, match="device 'cuda:77' cannot be used"):
        fit(a_run(device="cuda:77"), tmp_path)
    # What is wrong with the options is said before crops are cut.
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth: no such checkpoint \(backbone_weights\)"):
        fit(a_run(backbone_weights="nothing.pth", data=["nowhere"]), tmp_path)
    with pytest.raises(ValueError, match="unknown pose prior 'vpose'"):
        fit(a_run("mscoco", "tiny-mscoco-smpl", prior="vpose", data=["nowhere"]), tmp_path)
    with pytest.raises(ValueError, match="precision fp16 needs a GPU"):
        fit(a_run(inputs="joints", precision="fp16"), tmp_path)


def test_checkpoints_that_are_none_are_refused(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return print, ("this ran",)

    path = tmp_path / "checkpoint.pt"
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load_checkpoint(path)
    torch.save({"format": Evil()}, path)
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(path)
    assert "this ran" not in capsys.readouterr().out
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="not a checkpoint of `neuralannot train`"):
        load_checkpoint(path)
    path.unlink()
    fit(a_run(inputs="joints", max_steps=1), tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(path)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    fit(a_run(inputs="joints", max_steps=1), tmp_path)
    path = tmp_path / CHECKPOINT
    before, found = path.read_bytes(), load_checkpoint(path)

    def full(content, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(found, path)
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.glob("*.tmp")} == set()


def test_checkpoints_of_other_versions_are_named(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"format": "neuralannot-checkpoint", "version": 1}, path)
    with pytest.raises(ValueError, match=r"other.pt: written as version 1; expected \d"):
        load_checkpoint(path)
    fit(a_run(max_steps=1), tmp_path / "run")
    whole = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    for change, message in (
        ({"config": whole["config"] | {"headwidth": 3}}, "of another version of the program: .*headwidth"),
        ({"spec": whole["spec"] | {"depth": 3}}, "of another version of the program: .*depth"),
    ):
        torch.save(whole | change, path)
        with pytest.raises(ValueError, match=message):
            load_checkpoint(path)


@pytest.mark.parametrize("entry", ["coco-17.npy", "coco-17=", "=coco-17.npy"])
def test_a_joint_regressor_is_a_joint_set_and_a_file(entry, tmp_path):
    with pytest.raises(ValueError, match=rf"joint_regressor must be JOINT_SET=FILE.npy, got '{entry}'"):
        fit(a_run(joint_regressor=[entry]), tmp_path)
