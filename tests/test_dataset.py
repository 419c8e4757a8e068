"""`PseudoGTDataset` against `PseudoGT`, row by row; fields, joints, images, workers; `collate`."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from layouts import FILE_NAMES, MOCAP, dump, write_release
from sample_checks import expected, same
from scipy.spatial.transform import Rotation
from torch.utils.data import DataLoader, RandomSampler, Subset

from neuralannot import (
    PseudoGTDataset,
    collate,
    load_body_model,
    load_pseudo_gt,
    precomputed,
)
from neuralannot.dataset import FIELDS
from neuralannot.images import write_image
from neuralannot.parameters import human_model
from neuralannot.pseudo_gt import PseudoGT

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
STORED = FIELDS[:-2]


@pytest.fixture(scope="module")
def load(released):
    return lambda name, **options: load_pseudo_gt(released(name).path, **options)


# --- what a sample holds


@pytest.mark.parametrize("name", FILE_NAMES)
def test_samples_are_the_rows(name, load):
    gt = load(name)
    mixed = np.random.default_rng(0).permutation(np.tile(np.arange(len(gt)), 2))[: len(gt) + 2]
    for rows in (gt, gt.rows(mixed), gt[1:-1]):
        dataset = PseudoGTDataset(rows)
        assert len(dataset) == len(rows)
        for row in range(len(rows)):
            assert same(dataset[row], expected(rows, row))


@pytest.mark.parametrize("name", sorted(set(FILE_NAMES) - set(MOCAP) - {"3dpw-smplx"}))
def test_samples_of_fits_alone(name, load):
    gt = load(name, annotations=False)
    dataset = PseudoGTDataset(gt)
    assert not {"image_path", "image_size", "box_xywh"} & set(dataset.fields)
    for row in range(len(gt)):
        assert same(dataset[row], expected(gt, row))


@pytest.mark.parametrize("name", MOCAP)
def test_frames_that_are_not_joined_have_their_keys(name, load):
    gt = load(name, annotations=False)
    dataset = PseudoGTDataset(gt, fields=("id", "gender"))
    samples = [dataset[row] for row in range(len(gt))]
    assert [sample["key"] for sample in samples] == gt.keys
    assert torch.equal(collate(samples)["key"], torch.tensor(gt.keys))
    with pytest.raises(ValueError, match=r"cameras of its fits are not loaded; put .* beside the file"):
        PseudoGTDataset(gt)


def test_several_subjects_are_found_in_their_own_files(tmp_path):
    for subject in (1, 5, 7):
        write_release(tmp_path, "human36m-smpl", subject=subject)
    gt = load_pseudo_gt(tmp_path)
    assert len(gt.view.parts[0].stack.tables) == 3
    for rows in (gt, gt.rows(np.arange(len(gt))[::-1])):
        dataset = PseudoGTDataset(rows, joints=True)
        joints = rows.forward(want="joints").joints.numpy()
        for row in range(len(rows)):
            assert same(dataset[row], {**expected(rows, row), "joints": joints[row]})
        assert len(pickle.dumps(dataset)) < 20_000


@pytest.mark.parametrize("name", ["human36m-smplx", "mpi-inf-3dhp-smpl", "3dpw-smplx", "interhand26m-mano"])
def test_camera_space_is_that_of_the_row_alone(name, load):
    """Batched or one by one: to the last digit but one, which the order of a sum decides."""
    gt = load(name)
    assert gt.space == "world"
    dataset = PseudoGTDataset(gt, fields=["params"])
    for row in range(len(gt)):
        alone = gt.rows([row]).to_camera_space().params
        for parameter, values in dataset[row]["params"].items():
            np.testing.assert_allclose(values, alone[parameter][0], rtol=0, atol=1e-6)


def test_rows_without_an_annotation(tmp_path):
    written = write_release(tmp_path, "mscoco-smpl")
    noted = json.loads(written.annotations.read_text())
    lost = [written.rows[1].id, written.rows[4].id]
    noted["annotations"] = [ann for ann in noted["annotations"] if ann["id"] not in lost]
    dump(written.annotations, noted)
    gt = load_pseudo_gt(written.path)
    for rows in (gt, gt.rows([4, 0, 1])):
        dataset = PseudoGTDataset(rows)
        for row in range(len(rows)):
            assert same(dataset[row], expected(rows, row))
    sample = PseudoGTDataset(gt)[4]
    assert sample["image_path"] == ""
    assert np.isnan(sample["box_xywh"]).all()
    assert sample["image_size"].tolist() == [0, 0]
    sample["box_xywh"][:] = 0  # its own, too
    assert np.isnan(PseudoGTDataset(gt)[4]["box_xywh"]).all()
    with pytest.raises(FileNotFoundError, match=r"row 1: its annotation is not in .*gt.image_path != ''"):
        _ = PseudoGTDataset(gt, images=tmp_path)[1]


def test_a_samples_arrays_are_its_own(load):
    gt = load("human36m-smpl")
    for options in ({"cache": True}, {"cache": False}):
        dataset = PseudoGTDataset(gt, joints=True, **options)
        before, sample = dataset[2], dataset[2]
        arrays = [*sample["params"].values(), *(v for v in sample.values() if isinstance(v, np.ndarray))]
        assert len(arrays) == 9
        for values in arrays:
            values[...] = -1
        assert same(dataset[2], before)


def test_fields_are_what_is_asked_for(load):
    gt = load("mscoco-mano")
    dataset = PseudoGTDataset(gt, fields=("valid", "id", "joints"))
    assert dataset.fields == ("id", "valid", "joints")
    assert set(dataset[0]) == {"index", "id", "valid", "joints"}
    assert set(PseudoGTDataset(gt, fields=(), joints=True)[0]) == {"index", "joints"}
    assert set(PseudoGTDataset(gt, fields=())[0]) == {"index"}
    everything = PseudoGTDataset(gt, joints=True)
    assert everything.fields == (*STORED, "joints")
    for field in STORED:
        alone = PseudoGTDataset(gt, fields=[field])[3]
        assert same(alone, {k: v for k, v in everything[3].items() if k in alone})
        assert len(alone) == (3 if field == "camera" else 2)
    assert "side" not in PseudoGTDataset(load("mscoco-smpl")).fields
    assert repr(dataset) == f"<PseudoGTDataset mscoco-mano: {len(gt)} samples of id, valid, joints>"


def test_parts_that_are_invalid_are_zero_where_asked(load):
    gt = load("mscoco-smplx")
    assert {part: gt.valid[part].all() for part in gt.valid} == {
        "body": True,
        "left_hand": False,
        "right_hand": False,
        "face": False,
    }
    plain = PseudoGTDataset(gt, joints=True)
    zeroed = PseudoGTDataset(gt, joints=True, only_valid=True)
    lean = PseudoGTDataset(gt, fields=["params"], only_valid=True)
    assert "valid" not in lean[0]
    model = load_body_model("smplx")
    for row, joints in enumerate(gt.forward(want="joints", only_valid=True).joints.numpy()):
        one, other = plain[row], zeroed[row]
        for part, names in (("face", ("jaw_pose", "expression")), ("left_hand", ("left_hand_pose",))):
            for name in names:
                kept = one["params"][name] * np.float32(one["valid"][part])
                np.testing.assert_array_equal(other["params"][name], kept)
        assert same(other["joints"], joints)
        assert same(lean[row]["params"], other["params"])
        posed = model.joints(**{k: torch.tensor(v)[None] for k, v in other["params"].items()})
        np.testing.assert_allclose(posed[0], joints, atol=1e-5)


def test_an_invalid_face_moves_no_root(tmp_path, monkeypatch):
    """Where the root at rest depends on the expression, invalid faces have none there either."""
    written = write_release(tmp_path, "human36m-smplx")
    fits = json.loads(written.path.read_text())
    for action in fits.values():
        for frames in action.values():
            for leaf in frames.values():
                leaf |= {"jaw_pose": [0.1] * 3, "expr": [0.5] * 10, "face_valid": False}
    dump(written.path, fits)
    monkeypatch.setattr(PseudoGT, "rest_root", lambda gt, _: gt.params["expression"][:, :3] + np.float32(0.1))
    gt = load_pseudo_gt(written.path)
    turned = Rotation.from_rotvec(gt.params["global_orient"])
    for only_valid, root in ((True, 0.1), (False, 0.6)):
        dataset = PseudoGTDataset(gt, fields=("params",), only_valid=only_valid)
        for row, (R, t) in enumerate(zip(gt.camera.R, gt.camera.t, strict=True)):
            params = dataset[row]["params"]
            np.testing.assert_allclose(
                params["transl"], R @ (gt.params["transl"][row] + root) + t - root, atol=1e-5
            )
            assert params["expression"].any() != only_valid
            there = (Rotation.from_matrix(R) * turned[row]).as_matrix()
            np.testing.assert_allclose(
                Rotation.from_rotvec(params["global_orient"]).as_matrix(), there, atol=1e-5
            )


# --- joints


@pytest.mark.parametrize("name", FILE_NAMES)
def test_joints_are_those_of_a_forward(name, load):
    gt = load(name)
    bodies = gt.forward(want="joints")
    pixels = bodies.project().numpy()
    dataset = PseudoGTDataset(gt, joints=True)
    assert dataset.joint_names == bodies.joint_names
    batch = collate([dataset[row] for row in range(len(gt))])
    assert same(batch["joints"], bodies.joints)
    xy = batch["joints"][..., :2] / batch["joints"][..., 2:] * batch["focal"][:, None]
    front = np.isfinite(pixels).all(-1)
    assert front.mean() > 0.9
    np.testing.assert_allclose((xy + batch["princpt"][:, None]).numpy()[front], pixels[front], atol=1e-2)
    # The parameters beside them pose the same joints.
    for side in set(batch.get("side", ("",))):
        rows = np.array([side == "" or s == side for s in batch.get("side", [""] * len(gt))])
        params = {k: v[rows] for k, v in batch["params"].items()}
        posed = load_body_model(gt.model, side=side or None).joints(**params)
        torch.testing.assert_close(posed, batch["joints"][rows], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "regressor"), [("human36m-smpl", "human36m-17"), ("mscoco-mano", "interhand-21")]
)
def test_joints_of_a_data_sets_regressor(name, regressor, load):
    gt = load(name)
    bodies = gt.forward(want="joints", regressor=regressor)
    for cache in (True, True, False):
        dataset = PseudoGTDataset(gt, regressor=regressor, cache=cache)
        assert dataset.joint_names == bodies.joint_names
        assert same(collate([dataset[row] for row in range(len(gt))])["joints"], bodies.joints)


def test_joints_of_many_batches_lie_in_their_rows(load):
    gt = load("mscoco-mano").rows(np.random.default_rng(3).integers(0, 6, 600))
    dataset = PseudoGTDataset(gt, joints=True, cache=False)
    joints = gt.forward(want="joints").joints.numpy()
    for row in (0, 255, 256, 511, 512, 599):
        assert same(dataset[row]["joints"], joints[row])


def test_rows_gone_through_in_pieces(load, monkeypatch):
    gt = load("interhand26m-mano")
    whole = PseudoGTDataset(gt, cache=False)
    monkeypatch.setattr(precomputed, "_CHUNK", 3)
    pieces = PseudoGTDataset(gt, cache=False)
    for row in range(len(gt)):
        one, other = whole[row], pieces[row]
        np.testing.assert_array_equal(other["box_xywh"], one["box_xywh"])
        np.testing.assert_allclose(other["params"]["transl"], one["params"]["transl"], rtol=0, atol=1e-6)


def test_no_rows(load):
    for name in ("mscoco-smpl", "human36m-smpl", "interhand26m-mano"):
        gt = load(name)
        for cache in (True, False):
            dataset = PseudoGTDataset(gt[:0], joints=True, cache=cache)
            assert len(dataset) == len(list(DataLoader(dataset, collate_fn=collate))) == 0
            assert dataset.joint_names == gt[:0].forward(want="joints").joint_names
            with pytest.raises(IndexError, match="row 0: there are 0 rows"):
                _ = dataset[0]


# --- images


@pytest.fixture
def pictures(tmp_path):
    """MSCOCO with its images, two of another size, and without the last row's."""
    gt = load_pseudo_gt(write_release(tmp_path, "mscoco-smpl").path)
    images = {}
    for number, path in enumerate(dict.fromkeys(gt.image_path[:-1].tolist())):
        size = (5, 7) if number else (4, 6)
        images[path] = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        write_image((tmp_path / "images" / path).with_suffix(".png"), images[path])
        (tmp_path / "images" / path).with_suffix(".png").rename(tmp_path / "images" / path)
    return gt, tmp_path / "images", images


def test_images(pictures):
    gt, folder, images = pictures
    dataset = PseudoGTDataset(gt, images=folder)
    assert dataset.fields[-1] == "image"
    for row in range(4):
        sample = dataset[row]
        assert same(sample["image"], images[sample["image_path"]])
    alone = PseudoGTDataset(gt, images=str(folder), fields=())
    assert set(alone[0]) == {"index", "image"}
    assert same(alone[2]["image"], dataset[2]["image"])
    last = str(gt.image_path[-1])
    (folder / last).unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match=f"no image file at {folder / last}"):
        _ = dataset[-1]
    rows = [0, 2]
    assert [dataset[row]["image"].shape for row in rows] == [(4, 6, 3), (5, 7, 3)]
    loader = DataLoader(dataset, batch_size=2, sampler=rows, collate_fn=collate, num_workers=1)
    (batch,) = loader
    assert [image.shape for image in batch["image"]] == [(4, 6, 3), (5, 7, 3)]
    assert collate([dataset[2], dataset[3]])["image"].shape == (2, 5, 7, 3)


# --- what is refused


def test_fields_that_are_not_there(load, released, tmp_path):
    gt = load("mscoco-smpl")
    with pytest.raises(ValueError, match=r"unknown field 'boxes'; expected some of id, side, .*, image"):
        PseudoGTDataset(gt, fields=("params", "boxes"))
    with pytest.raises(TypeError, match=r"fields are several names, got 'params'; pass \('params',\)"):
        PseudoGTDataset(gt, fields="params")
    with pytest.raises(ValueError, match=r"no image without a folder to read it from: pass images="):
        PseudoGTDataset(gt, fields=("image",))
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder of images"):
        PseudoGTDataset(gt, images=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"mscoco-smpl: smpl is no hand, its fits have no side"):
        PseudoGTDataset(gt, fields=("side",))
    with pytest.raises(ValueError, match=r"seed must not be negative, got -1"):
        PseudoGTDataset(gt, seed=-1)
    with pytest.raises(FileNotFoundError, match=r"body model folder .*nothing does not exist"):
        PseudoGTDataset(gt, joints=True, body_models=tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"regressors of the official topology are garbage on the open body"):
        PseudoGTDataset(gt, regressor=np.zeros((3, 6890)))
    fits = load("mscoco-smpl", annotations=False)
    for field in ("image_path", "image_size", "box_xywh"):
        with pytest.raises(ValueError, match=r"without annotations; load with annotations='person_keypoints"):
            PseudoGTDataset(fits, fields=(field,))
    with pytest.raises(ValueError, match=r"no image paths without annotations; load with annotations="):
        PseudoGTDataset(fits, images=tmp_path)
    bodies = load_pseudo_gt(released("mscoco-flame").path)
    assert "box_xywh" in PseudoGTDataset(bodies).fields


def test_boxes_that_the_annotations_do_not_have(tmp_path):
    faces = write_release(tmp_path, "mscoco-flame")
    noted = json.loads(faces.annotations.read_text())
    for ann in noted["annotations"]:
        del ann["face_box"]
    dump(faces.annotations, noted)
    gt = load_pseudo_gt(faces.path)
    assert PseudoGTDataset(gt).fields == tuple(f for f in STORED if f not in ("side", "box_xywh"))
    with pytest.raises(ValueError, match=r"no 'face_box'; use coco_wholebody_train_v1.0.json"):
        PseudoGTDataset(gt, fields=("box_xywh",))


def test_row_numbers(load):
    dataset = PseudoGTDataset(load("mscoco-smpl"))
    count = len(dataset)
    for index in (np.int64(1), np.uint8(1), torch.tensor(1), 1 - count, True):
        assert same(dataset[index], dataset[1])
    assert dataset[-1]["index"] == count - 1
    for index in (count, -count - 1, 10**30):
        with pytest.raises(IndexError, match=rf"row {index}: there are {count} rows"):
            _ = dataset[index]
    for index in (slice(0, 2), [0, 1], 1.0, "0", None, np.arange(2)):
        with pytest.raises(TypeError, match=r"takes one row number, .*PseudoGTDataset\(gt.rows\(...\)\)"):
            _ = dataset[index]
    assert [sample["index"] for sample in dataset] == list(range(count))
    assert same(Subset(dataset, [3, 1])[1], dataset[1])


# --- transforms and workers


def jitter(sample: dict, rng: np.random.Generator) -> dict:
    sample["params"]["transl"] += rng.normal(size=3).astype(np.float32)
    return {**sample, "noise": rng.random(), "flip": bool(rng.random() < 0.5)}


def test_random_numbers_follow_from_seed_epoch_and_row(load):
    gt = load("mscoco-smpl")
    dataset = PseudoGTDataset(gt, transform=jitter, seed=3)

    def noise(*, seed: int = 3, epoch: int = 0, row: int = 0) -> float:
        made = PseudoGTDataset(gt, transform=jitter, seed=seed)
        made.set_epoch(epoch)
        return made[row]["noise"]

    assert noise() == dataset[0]["noise"] == dataset[-len(gt)]["noise"]
    drawn = {noise(seed=s, epoch=e, row=r) for s in (3, 4) for e in (0, 1, 2) for r in (0, 1)}
    assert len(drawn) == 12
    dataset.set_epoch(2)
    assert dataset[1]["noise"] == noise(epoch=2, row=1)
    assert pickle.loads(pickle.dumps(dataset))[1]["noise"] == noise(epoch=2, row=1)
    with pytest.raises(ValueError, match="epoch must not be negative, got -1"):
        dataset.set_epoch(-1)
    with pytest.raises(TypeError):
        dataset.set_epoch(0.5)


def epochs(loader: DataLoader, dataset: PseudoGTDataset) -> list:
    batches = []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        batches.append(list(loader))
    return batches


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_give_the_batches_of_one_process(start, load):
    gt = load("human36m-smpl")
    dataset = PseudoGTDataset(gt.rows(np.arange(len(gt))[::-1]), joints=True, transform=jitter, seed=1)

    def loader(**options) -> DataLoader:
        order = RandomSampler(dataset, generator=torch.Generator().manual_seed(0))
        return DataLoader(dataset, batch_size=3, sampler=order, collate_fn=collate, **options)

    alone = epochs(loader(), dataset)
    workers = loader(num_workers=2, multiprocessing_context=start, persistent_workers=True)
    assert same(epochs(workers, dataset), alone)
    noise = [torch.cat([batch["noise"] for batch in batches]).tolist() for batches in alone]
    assert len({value for values in noise for value in values}) == 3 * len(gt)


# --- batches


def test_a_batch_is_what_regressors_take(load):
    gt = load("mscoco-mano")
    dataset = PseudoGTDataset(gt, joints=True)
    samples = [dataset[row] for row in (4, 0, 2)]
    batch = collate(samples)
    assert set(batch) == set(samples[0])
    shapes = human_model("mano").shapes
    assert {k: tuple(v.shape) for k, v in batch["params"].items()} == {k: (3, *s) for k, s in shapes.items()}
    floats = [*batch["params"].values(), *(batch[k] for k in ("box_xywh", "focal", "princpt", "joints"))]
    assert {v.dtype for v in floats} == {torch.float32}
    assert {v.dtype for v in batch["valid"].values()} == {torch.bool}
    assert {batch[k].dtype for k in ("index", "id", "image_size")} == {torch.int64}
    assert batch["index"].tolist() == [4, 0, 2]
    assert batch["id"].tolist() == gt.ids[[4, 0, 2]].tolist()
    assert batch["image_path"] == gt.image_path[[4, 0, 2]].tolist()
    assert batch["side"] == gt.side[[4, 0, 2]].tolist()
    for place, sample in enumerate(samples):
        for name, values in sample["params"].items():
            assert same(batch["params"][name][place].numpy(), values)
        assert {part: bool(flags[place]) for part, flags in batch["valid"].items()} == sample["valid"]


def test_collate_of_other_things():
    one = {
        "tensor": torch.ones(2),
        "array": np.ones((2, 0), np.uint8),
        "point": np.array(3.0),
        "view": np.arange(6)[::-2],
        "number": 1.5,
        "flag": np.bool_(True),
        "words": np.array(["a"]),
        "none": None,
        "nested": {"deep": {"x": 1}},
        "pair": (1, "a"),
    }
    batch = collate([one, one])
    assert batch["tensor"].shape == (2, 2)
    assert (batch["array"].shape, batch["array"].dtype) == ((2, 2, 0), torch.uint8)
    assert (batch["point"].tolist(), batch["point"].dtype) == ([3, 3], torch.float64)
    assert batch["view"].tolist() == [[5, 3, 1]] * 2
    assert (batch["number"].dtype, batch["flag"].dtype) == (torch.float32, torch.bool)
    assert batch["words"] == [one["words"]] * 2
    assert batch["none"] == [None, None]
    assert batch["nested"]["deep"]["x"].tolist() == [1, 1]
    assert batch["pair"] == [(1, "a")] * 2
    ragged = collate([{"x": np.zeros((k, 2))[::-1], "t": torch.zeros(k)} for k in (1, 3)])
    assert [tuple(x.shape) for x in ragged["x"]] == [(1, 2), (3, 2)]
    assert all(isinstance(x, torch.Tensor) for x in (*ragged["x"], *ragged["t"]))
    with pytest.raises(ValueError, match="there are no samples to collate"):
        collate([])
    with pytest.raises(ValueError, match="samples 0 and 2 of a batch: only one of them has b, c"):
        collate([{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 1, "c": 1}])
