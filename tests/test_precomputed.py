"""What data sets compute: found again, made again when what it depends on changed, and apart from others."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import dump, write_release
from sample_checks import derived, same
from smplx_layers import open_arrays

from neuralannot import (
    JointRegressor,
    PseudoGTDataset,
    load_pseudo_gt,
    precomputed,
    store,
)
from neuralannot.pseudo_gt import PseudoGT

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


def test_what_was_computed_is_found_again(tmp_path, monkeypatch):
    written = write_release(tmp_path, "human36m-smpl")
    first = PseudoGTDataset(load_pseudo_gt(written.path), joints=True)
    samples = [first[row] for row in range(len(first))]
    assert len(derived(tmp_path)) == 1

    def refuse(*_, **__):
        raise AssertionError("computed again")

    for name in ("to_camera_space", "forward_batches", "forward"):
        monkeypatch.setattr(PseudoGT, name, refuse)
    again = PseudoGTDataset(load_pseudo_gt(written.path), joints=True)
    assert same([again[row] for row in range(len(again))], samples)
    assert again.joint_names == first.joint_names
    with pytest.raises(AssertionError, match="computed again"):
        PseudoGTDataset(load_pseudo_gt(written.path), joints=True, cache=False)
    monkeypatch.undo()
    in_memory = PseudoGTDataset(load_pseudo_gt(written.path), joints=True, cache=False)
    assert same([in_memory[row] for row in range(len(again))], samples)
    assert len(derived(tmp_path)) == 1


def test_data_sets_of_one_release_stand_side_by_side(tmp_path):
    """Training and validation rows, several regressors: one does not push another out."""
    gt = load_pseudo_gt(write_release(tmp_path, "human36m-smpl").path)
    weights = np.zeros((2, 6890), np.float32)
    weights[:, 7] = 1, 2
    ways = [
        lambda: PseudoGTDataset(gt),
        lambda: PseudoGTDataset(gt, joints=True),
        lambda: PseudoGTDataset(gt[:3], joints=True),
        lambda: PseudoGTDataset(gt[3:], joints=True),
        lambda: PseudoGTDataset(gt, regressor="human36m-17"),
        lambda: PseudoGTDataset(gt, regressor="coco-17"),
        lambda: PseudoGTDataset(gt, regressor=JointRegressor(weights, ("a", "b"), body="open")),
        lambda: PseudoGTDataset(gt, regressor=JointRegressor(weights[::-1], ("a", "b"), body="open")),
        lambda: PseudoGTDataset(gt, regressor=JointRegressor(weights, ("a", "c"), body="open")),
        lambda: PseudoGTDataset(gt[:3].to_camera_space(), joints=True),
        lambda: PseudoGTDataset(gt[3:].to_camera_space(), joints=True),
    ]
    datasets = [make() for make in ways]
    assert len(derived(tmp_path)) == len(ways)
    for dataset, make in zip(datasets, ways, strict=True):
        sent, again = pickle.loads(pickle.dumps(dataset)), make()
        assert same(dataset[1], sent[1])
        assert same(dataset[1], again[1])
    assert len(derived(tmp_path)) == len(ways)


@pytest.fixture
def official(tmp_path):
    folder = tmp_path / "human_model_files"
    for model, part in (("smpl", "neutral"), ("smpl", "male"), ("mano", "right"), ("mano", "left")):
        path = folder / model / f"{model}_{part}.npz".upper().replace("NPZ", "npz")
        path.parent.mkdir(exist_ok=True, parents=True)
        np.savez(path, **open_arrays(model, part if model == "mano" else "neutral"))
    return folder


@pytest.mark.usefixtures("forget_models")
def test_another_body_model_file_is_another_body(tmp_path, official):
    gt = load_pseudo_gt(write_release(tmp_path / "data", "human36m-smpl").path)
    path = official / "smpl" / "SMPL_NEUTRAL.npz"

    def made() -> tuple[np.ndarray, np.ndarray]:
        sample = PseudoGTDataset(gt, joints=True, body_models=official)[0]
        return sample["params"]["transl"], sample["joints"]

    before = made()
    with np.load(path) as file:
        arrays = dict(file)
    arrays["v_template"] = arrays["v_template"] * 2
    np.savez(path, **arrays)
    os.utime(path, ns=(1, 1))
    after = made()
    one = gt.rows([0])
    np.testing.assert_allclose(
        after[1], one.forward(want="joints", body_models=official).joints[0], atol=1e-6
    )
    for old, new in zip(before, after, strict=True):
        assert np.abs(old - new).max() > 0.05
    assert len(derived(tmp_path / "data")) == 1
    os.utime(official / "smpl" / "SMPL_MALE.npz", ns=(1, 1))  # nobody's body
    (official / "smpl" / "SMPL_MALE.npz").unlink()
    assert same(made(), after)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"SMPL_NEUTRAL.pkl \(or .npz\) not in"):
        made()


@pytest.mark.usefixtures("forget_models")
def test_a_left_hand_depends_on_the_right_ones_file_too(tmp_path, official):
    gt = load_pseudo_gt(write_release(tmp_path / "data", "mscoco-mano").path)
    left, right = gt.rows(gt.side == "left"), gt.rows(gt.side == "right")
    stamps = precomputed._model_stamps
    before = stamps(left, official), stamps(right, official)
    os.utime(official / "mano" / "MANO_LEFT.npz", ns=(1, 1))
    assert stamps(left, official) != before[0]
    assert stamps(right, official) == before[1]
    before = stamps(left, official), stamps(right, official)
    os.utime(official / "mano" / "MANO_RIGHT.npz", ns=(1, 1))
    assert stamps(left, official) != before[0]
    assert stamps(right, official) != before[1]
    (official / "mano" / "MANO_LEFT.npz").unlink()
    assert PseudoGTDataset(right, joints=True, body_models=official)[0]["joints"].shape == (16, 3)
    with pytest.raises(FileNotFoundError, match=r"MANO_LEFT"):
        PseudoGTDataset(left, joints=True, body_models=official)


def test_genders_have_files_of_their_own(tmp_path, official):
    gt = load_pseudo_gt(write_release(tmp_path / "data", "mscoco-smpl", genders=True).path)
    stamps = precomputed._model_stamps
    assert len(stamps(gt.rows(gt.gender != "female"), official)) == 2
    assert len(stamps(gt, None)) == 3  # the open body has them all
    with pytest.raises(FileNotFoundError, match="SMPL_FEMALE"):
        PseudoGTDataset(gt, joints=True, body_models=official)


def test_flame_depends_on_its_landmarks_file(tmp_path):
    gt = load_pseudo_gt(write_release(tmp_path / "data", "mscoco-flame").path)
    folder = tmp_path / "flame"
    folder.mkdir()
    np.savez(folder / "FLAME_NEUTRAL.npz", **open_arrays("flame"))
    landmarks = folder / "flame_static_embedding.pkl"
    landmarks.write_bytes(b"1")
    before = precomputed._model_stamps(gt, folder)
    landmarks.write_bytes(b"22")
    assert precomputed._model_stamps(gt, folder) != before


def test_boxes_of_hands_are_made_again_with_their_joints(tmp_path):
    written = write_release(tmp_path, "interhand26m-mano")
    before = PseudoGTDataset(load_pseudo_gt(written.path))[0]["box_xywh"]
    joints = json.loads(written.joints.read_text())
    for frames in joints.values():
        for entry in frames.values():
            entry["world_coord"] = (np.array(entry["world_coord"]) * 1.1).tolist()
    dump(written.joints, joints)
    gt = load_pseudo_gt(written.path)
    after = PseudoGTDataset(gt)[0]["box_xywh"]
    np.testing.assert_array_equal(after, gt.box_xywh[0])
    assert (after != before).all()
    assert len(derived(tmp_path)) == 1


@pytest.mark.parametrize("changed", ["path", "cameras", "annotations"])
def test_a_changed_release_is_another(changed, tmp_path):
    written = write_release(tmp_path, "human36m-smpl")
    before = PseudoGTDataset(load_pseudo_gt(written.path), joints=True)[0]
    other = write_release(tmp_path / "other", "human36m-smpl", seed=1)
    shutil.copy(getattr(other, changed), getattr(written, changed))
    gt = load_pseudo_gt(written.path)
    after = PseudoGTDataset(gt, joints=True)[0]
    assert same(after["joints"], gt.forward(want="joints").joints[0].numpy())
    assert not same(after["joints"], before["joints"])


def test_rows_that_differ_in_nothing_computed(tmp_path):
    """Rows that a view composed, whose selection is in no index, are told apart as well."""
    gt = load_pseudo_gt(write_release(tmp_path, "mscoco-smpl").path)
    datasets = []
    for some in (gt[:3], gt[1:4]):
        view = some.view.overlaid({"gender": np.zeros(3, np.uint8)})
        over = PseudoGT(view, gt.release, space=gt.space, companions=gt.companions)
        datasets.append(PseudoGTDataset(over))
    assert len(derived(tmp_path)) == 2
    for dataset, first in zip(datasets, (0, 1), strict=True):
        ids = [pickle.loads(pickle.dumps(dataset))[row]["id"] for row in range(3)]
        assert ids == gt.ids[first : first + 3].tolist()


def test_columns_that_were_saved(tmp_path):
    gt = load_pseudo_gt(write_release(tmp_path, "mpi-inf-3dhp-smpl").path)
    gt.rows([3, 1, 2]).save(tmp_path / "some.safetensors")
    saved = load_pseudo_gt(tmp_path / "some.safetensors")
    one, other = PseudoGTDataset(gt.rows([3, 1, 2]), joints=True), PseudoGTDataset(saved, joints=True)
    assert same([other[k] for k in range(3)], [one[k] for k in range(3)])
    assert len(pickle.dumps(other)) < 20_000


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    """Columns that someone else made beside the data: what is computed goes into one's own cache."""
    written = write_release(tmp_path / "data", "human36m-smpl")
    gt = load_pseudo_gt(written.path)
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path / "mine"))
    refused = {written.path.parent}
    write = store._write_columns

    def refusing(file, columns, meta):
        if Path(file.name).parent in refused:
            raise PermissionError("no right to write")
        write(file, columns, meta)

    monkeypatch.setattr(store, "_write_columns", refusing)
    samples, forward = [], PseudoGT.forward_batches
    for again in (False, True):
        if again:
            monkeypatch.setattr(PseudoGT, "forward_batches", None)  # found there, not computed
        dataset = PseudoGTDataset(gt[1:], joints=True)
        samples.append(dataset[0])
        assert not derived(written.path.parent)
        assert len(derived(tmp_path / "mine")) == 1
        assert len(pickle.dumps(dataset)) < 20_000
    assert same(*samples)
    monkeypatch.setattr(PseudoGT, "forward_batches", forward)
    refused.add(tmp_path / "mine")
    shutil.rmtree(tmp_path / "mine")
    assert same(PseudoGTDataset(gt[1:], joints=True)[0], samples[0])  # in memory
    assert not derived(tmp_path / "mine")
