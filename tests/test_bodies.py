"""`PseudoGT.forward`: selection, order, batches, joints and regressors, spaces, refusals."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from layouts import dump, write_release
from smplx_layers import open_arrays

from neuralannot import JointRegressor, load_pseudo_gt
from neuralannot.bodies import _model_on
from neuralannot.body_models import load_body_model

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
TIPS = {"thumb": 745, "index": 317, "middle": 445, "ring": 556, "pinky": 673}


@pytest.fixture(scope="module")
def load(released):
    return lambda name, **options: load_pseudo_gt(released(name).path, **options)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A folder like the official ones: the library must take these vertices for the official topology."""
    folder = tmp_path_factory.mktemp("human_model_files")
    for model, part in (("smpl", "neutral"), ("mano", "right"), ("mano", "left")):
        path = folder / model / f"{model}_{part}.pkl".upper().replace("PKL", "pkl")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(open_arrays(model, part)))
    return folder


# --- what comes out


@pytest.mark.parametrize(
    ("name", "vertices", "joints"),
    [
        ("mscoco-smpl", 6890, 45),
        ("mscoco-smplx", 10475, 127),
        ("mscoco-mano", 778, 16),
        ("mscoco-flame", 5023, 56),
    ],
)
def test_shapes_names_and_faces(name, vertices, joints, load):
    gt = load(name)
    bodies = gt.forward()
    assert bodies.vertices.shape == (len(gt), vertices, 3)
    assert bodies.joints.shape == (len(gt), joints, 3)
    assert bodies.vertices.dtype == bodies.joints.dtype == torch.float32
    assert len(bodies) == len(gt)
    assert len(bodies.joint_names) == len(set(bodies.joint_names)) == joints
    assert bodies.project().shape == (len(gt), joints, 2)
    assert bodies.project("vertices").shape == (len(gt), vertices, 2)
    for row in range(len(gt)):
        faces = bodies.faces_of(row)
        assert faces.shape[1] == 3
        assert faces.dtype == np.int64
        assert faces.max() == vertices - 1


@pytest.mark.parametrize("name", ["mscoco-smpl", "interhand26m-mano"])
def test_joints_alone_are_those_of_the_mesh(name, load):
    gt = load(name)
    mesh, alone = gt.forward(), gt.forward(want="joints")
    assert alone.vertices is None
    assert alone.joint_names == mesh.joint_names
    torch.testing.assert_close(alone.joints, mesh.joints, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"no vertices to project: forward with want='mesh'"):
        alone.project("vertices")


def test_hands_of_both_sides_have_their_own_faces_and_common_names(load):
    gt = load("mscoco-mano")
    bodies = gt.forward()
    assert set(bodies.faces) == {"right", "left"}
    for row, side in enumerate(gt.side):
        np.testing.assert_array_equal(bodies.faces_of(row), load_body_model("mano", side=side).faces)
    assert bodies.joint_names[:2] == ("wrist", "index1")
    lefts = gt.rows(gt.side == "left").forward()
    assert lefts.joint_names[:2] == ("left_wrist", "left_index1")
    np.testing.assert_array_equal(lefts.faces, load_body_model("mano", side="left").faces)


@pytest.mark.parametrize("name", ["mscoco-smpl", "mscoco-mano", "interhand26m-mano", "human36m-smpl"])
def test_batch_size_does_not_matter(name, load):
    gt = load(name).rows(np.tile(np.arange(4), 2))
    whole = gt.forward(batch_size=256)
    for size in (1, 7):
        other = gt.forward(batch_size=size)
        torch.testing.assert_close(other.vertices, whole.vertices, rtol=0, atol=2e-6)
        torch.testing.assert_close(other.joints, whole.joints, rtol=0, atol=2e-6)
        assert other.joint_names == whole.joint_names
        np.testing.assert_array_equal(other.camera.t, whole.camera.t)
        torch.testing.assert_close(other.project(), whole.project(), rtol=0, atol=2e-3)
        for row in range(len(gt)):
            np.testing.assert_array_equal(other.faces_of(row), whole.faces_of(row))
    parts = list(gt.forward_batches(batch_size=3))
    assert [len(part) for part in parts] == [3, 3, 2]
    joined = torch.cat([part.vertices for part in parts])
    torch.testing.assert_close(joined, whole.vertices, rtol=0, atol=2e-6)
    joined = torch.cat([part.project() for part in parts])
    torch.testing.assert_close(joined, whole.project(), rtol=0, atol=2e-3)


def test_rows_come_in_the_order_asked(load):
    gt = load("interhand26m-mano")
    whole = gt.forward()
    ids = [int(gt.ids[6]), int(gt.ids[0]), int(gt.ids[6])]
    rows = [6, 7, 0, 1, 6, 7]  # two hands each
    assert gt.rows_of(ids).tolist() == rows
    torch.testing.assert_close(gt.forward(ids).vertices, whole.vertices[rows], rtol=0, atol=2e-6)
    assert gt.forward(ids).sides.tolist() == gt.side[rows].tolist()
    keys = [(0, 18, "left"), (3, 69148)]
    torch.testing.assert_close(gt.forward(keys).joints, whole.joints[[7, 4]], rtol=0, atol=2e-6)
    for one in (ids[0], np.int64(ids[0]), torch.tensor(ids[0]), np.array(ids[:1]), (ids[0],)):
        torch.testing.assert_close(gt.forward(one).joints, whole.joints[6:], rtol=0, atol=2e-6)


def test_genders_are_grouped_and_put_back(tmp_path):
    written = write_release(tmp_path, "mscoco-smpl", genders=True)
    gt = load_pseudo_gt(written.path)
    assert len(set(gt.gender)) == 3
    order = [4, 0, 5, 2, 1, 3]
    mixed = gt.forward(gt.ids[order])
    plain = gt.forward()
    torch.testing.assert_close(mixed.vertices, plain.vertices[order], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["mscoco-smpl", "interhand26m-mano"])
def test_an_empty_selection_gives_no_bodies(name, load):
    gt = load(name)
    assert len(gt.forward([])) == 0
    bodies = gt.rows([]).forward()
    whole = gt.forward()
    assert bodies.vertices.shape == (0, *whole.vertices.shape[1:])
    assert bodies.joints.shape == (0, *whole.joints.shape[1:])
    assert bodies.project().shape == (0, bodies.joints.shape[1], 2)
    assert list(gt.forward_batches([])) == []
    assert len(gt.to_camera_space().rows([]).to_camera_space()) == 0


def test_only_valid_zeroes_what_is_flagged(load):
    gt = load("mscoco-smplx")
    flagged = np.flatnonzero(~gt.valid["left_hand"])
    assert len(flagged)
    assert np.abs(gt.params["left_hand_pose"][flagged]).max() > 0  # as stored, whatever the flag
    params = {name: torch.tensor(gt.params[name]) for name in gt.params}
    zeroed = dict(params)
    for part, names in (
        ("left_hand", ["left_hand_pose"]),
        ("right_hand", ["right_hand_pose"]),
        ("face", ["jaw_pose", "expression"]),
    ):
        for name in names:
            zeroed[name] = params[name].clone()
            zeroed[name][torch.tensor(~gt.valid[part])] = 0
    model = load_body_model("smplx")
    torch.testing.assert_close(gt.forward().vertices, model(**params).vertices)
    torch.testing.assert_close(gt.forward(only_valid=True).vertices, model(**zeroed).vertices)
    assert (model(**params).vertices - model(**zeroed).vertices).abs().max() > 1e-3


# --- regressors


@pytest.mark.parametrize(
    ("name", "regressor", "count"),
    [
        ("mscoco-smpl", "human36m-17", 17),
        ("mscoco-smplx", "human36m-17", 17),
        ("mscoco-smpl", "coco-17", 17),
        ("mscoco-smplx", "coco-17", 17),
        ("mscoco-smpl", "mpi-inf-3dhp-17", 17),
        ("interhand26m-mano", "interhand-21", 21),
    ],
)
def test_regressors_of_the_open_body(name, regressor, count, load):
    gt = load(name)
    bodies = gt.forward(regressor=regressor)
    assert bodies.joints.shape == (len(gt), count, 3)
    assert len(bodies.joint_names) == count
    folder = load_body_model(gt.model, side="right" if gt.side is not None else None).source.parents[1]
    with np.load(folder / "regressors.npz") as shipped:
        for row in range(len(gt)):
            key = f"{regressor}{'' if gt.side is None else f'-{gt.side[row]}'}/{gt.model}"
            expected = shipped[key].astype(float) @ bodies.vertices[row].numpy()
            np.testing.assert_allclose(bodies.joints[row].numpy(), expected, atol=2e-5)
    alone = gt.forward(regressor=regressor, want="joints")
    torch.testing.assert_close(alone.joints, bodies.joints, rtol=0, atol=0)
    assert gt.rows([]).forward(regressor=regressor).joints.shape == (0, count, 3)


def test_official_regressors_are_refused_on_the_open_body(load, tmp_path):
    gt = load("mscoco-smpl")
    weights = np.full((17, 6890), 1 / 6890, np.float32)
    np.save(tmp_path / "J_regressor_h36m_smpl.npy", weights)
    official = JointRegressor(weights, tuple("abcdefghijklmnopq"))
    for regressor in (weights, tmp_path / "J_regressor_h36m_smpl.npy", official):
        with pytest.raises(ValueError, match=r"garbage on the open body.* use one of human36m-17"):
            gt.forward(regressor=regressor)
    made_for_it = JointRegressor(weights, official.names, body="open")
    joints = gt.forward(regressor=made_for_it, want="joints")
    assert joints.joint_names == official.names
    mean = gt.forward().vertices.double().mean(1)
    np.testing.assert_allclose(joints.joints[:, 3].numpy(), mean.numpy(), atol=3e-5)  # a sum of 6890 float32


def test_official_regressors_on_official_files(load, official, tmp_path):
    gt = load("mscoco-smpl")
    weights = np.random.default_rng(0).dirichlet(np.full(6890, 0.01), 17).astype(np.float32)
    np.save(tmp_path / "J_regressor.npy", weights)
    for regressor in (weights, tmp_path / "J_regressor.npy", str(tmp_path / "J_regressor.npy")):
        bodies = gt.forward(body_models=official, regressor=regressor)
        expected = np.einsum("kv,bvc->bkc", weights.astype(float), bodies.vertices.numpy())
        np.testing.assert_allclose(bodies.joints.numpy(), expected, atol=2e-5)
    open_one = JointRegressor(weights, tuple(map(str, range(17))), body="open")
    with pytest.raises(ValueError, match=r"regressor of the open body is garbage on .*SMPL_NEUTRAL.pkl"):
        gt.forward(body_models=official, regressor=open_one)
    with pytest.raises(ValueError, match=r"no human36m-17 regressor ships for official smpl; .*6890"):
        gt.forward(body_models=official, regressor="human36m-17")
    with pytest.raises(ValueError, match=r"regressor for smpl must be \(K, 6890\), got \(17, 10475\)"):
        gt.forward(body_models=official, regressor=np.zeros((17, 10475)))
    with pytest.raises(ValueError, match=r"a regressor must be \(K, 6890\), got \(6890,\)"):
        gt.forward(body_models=official, regressor=np.zeros(6890))


def test_interhand_tips_on_official_mano(load, official):
    gt = load("interhand26m-mano")
    for side in ("right", "left"):
        rows = gt.rows(gt.side == side)
        bodies = rows.forward(body_models=official, regressor="interhand-21")
        model = load_body_model("mano", folder=official, side=side)
        for finger, vertex in TIPS.items():
            tip = bodies.joints[:, bodies.joint_names.index(f"{side}_{finger}")]
            torch.testing.assert_close(tip, bodies.vertices[:, vertex])
        wrist = torch.einsum("v,bvc->bc", model.J_regressor[0], bodies.vertices)
        found = bodies.joints[:, bodies.joint_names.index(f"{side}_wrist")]
        torch.testing.assert_close(found, wrist, rtol=0, atol=2e-6)
    both = gt.forward(body_models=official, regressor="interhand-21")
    assert both.joint_names[:2] == ("thumb", "thumb3")


# --- spaces, cameras, devices


def test_world_fits_without_cameras_name_the_companions(tmp_path):
    written = write_release(tmp_path, "human36m-smpl")
    gt = load_pseudo_gt(written.path, annotations=False)
    message = r"Human36M_subject1_data.json .*and Human36M_subject1_camera.json"
    with pytest.raises(ValueError, match=message):
        gt.forward()
    with pytest.raises(ValueError, match=message):
        gt.to_camera_space()
    with pytest.raises(ValueError, match=r"no camera to project with: .*" + message):
        gt.forward(space="world", want="joints").project()
    written.cameras.unlink()
    with pytest.raises(ValueError, match=r"no camera file; put Human36M_subject1_camera.json beside"):
        load_pseudo_gt(written.path).forward()


def test_camera_space_fits_have_no_world(load):
    with pytest.raises(ValueError, match=r"mscoco-smpl: its fits are in the camera's space"):
        load("mscoco-smpl").forward(space="world")
    gt = load("mscoco-smpl")
    assert gt.to_camera_space() is gt


def test_to_camera_space_keeps_everything_else(load):
    gt = load("human36m-smpl")
    moved = gt.to_camera_space()
    assert (gt.space, moved.space) == ("world", "camera")
    assert moved.ids.tolist() == gt.ids.tolist()
    for name in ("body_pose", "betas"):
        np.testing.assert_array_equal(moved.params[name], gt.params[name])
    np.testing.assert_array_equal(moved.camera.R, np.tile(np.eye(3), (len(gt), 1, 1)))
    assert not moved.camera.t.any()
    np.testing.assert_array_equal(moved.camera.focal, gt.camera.focal)
    some = gt.rows([3, 1]).to_camera_space()
    np.testing.assert_allclose(some.params["transl"], moved.params["transl"][[3, 1]], atol=1e-6)
    assert some[int(gt.ids[1])].ids.tolist() == [int(gt.ids[1])]


def test_devices(load):
    gt = load("mscoco-smpl")
    plain = gt.forward(want="joints")
    for device in ("cpu", torch.device("cpu")):
        joints = gt.forward(want="joints", device=device).joints
        assert joints.device.type == "cpu"
        torch.testing.assert_close(joints, plain.joints, rtol=0, atol=0)
    # A model moved elsewhere leaves those on the CPU where they are.
    assert _model_on("smpl", None, "neutral", None, "meta", None).v_template.is_meta
    assert not _model_on("smpl", None, "neutral", None, "cpu", None).v_template.is_meta
    assert not load_body_model("smpl").v_template.is_meta


def test_points_behind_the_camera_are_nan(tmp_path):
    written = write_release(tmp_path, "mscoco-smpl")
    content = written.fits
    first = next(iter(content.values()))["smpl_param"]
    first["trans"][2] = -5.0
    dump(written.path, content)
    bodies = load_pseudo_gt(written.path).forward()
    for what in ("joints", "vertices"):
        pixels = bodies.project(what)
        assert pixels[0].isnan().all()
        assert pixels[1:].isfinite().all()
    assert bodies.joints.isfinite().all()


# --- refusals


def test_more_than_four_gigabytes_is_refused_before_it_is_made(load):
    gt = load("mscoco-smpl").rows(np.zeros(60_000, int))
    with pytest.raises(
        ValueError, match=r"60000 bodies of smpl take 5\.0 GB, more than 4; use forward_batches"
    ):
        gt.forward()
    first = next(gt.forward_batches(batch_size=2))
    assert len(first) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"want": "meshes"}, r"want must be 'mesh' or 'joints', got 'meshes'"),
        ({"space": "image"}, r"space must be 'camera' or 'world', got 'image'"),
        ({"batch_size": 0}, r"batch_size must be positive, got 0"),
    ],
)
def test_options_that_do_not_exist(options, message, load):
    for rows in (slice(None), slice(0, 0)):
        with pytest.raises(ValueError, match=message):
            load("mscoco-smpl")[rows].forward(**options)
        with pytest.raises(ValueError, match=message):
            list(load("mscoco-smpl")[rows].forward_batches(**options))
    with pytest.raises(ValueError, match=r"project takes 'joints' or 'vertices', got 'mesh'"):
        load("mscoco-smpl").forward(want="joints").project("mesh")


def test_missing_ids_and_missing_files(load, official, tmp_path):
    gt = load("mscoco-smpl")
    with pytest.raises(KeyError, match=r"id 5: unknown to mscoco-smpl"):
        gt.forward([int(gt.ids[0]), 5])
    with pytest.raises(FileNotFoundError, match=r"SMPL_NEUTRAL.pkl \(or .npz\) not in .*register at"):
        gt.forward(body_models=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"SMPLX_NEUTRAL.pkl \(or .npz\) not in .*register at"):
        load("mscoco-smplx").forward(body_models=official)
    with pytest.raises(FileNotFoundError, match=r"body model folder .*nowhere does not exist"):
        gt.forward(body_models=tmp_path / "nowhere")


def test_a_missing_gender_is_named(tmp_path, official):
    written = write_release(tmp_path, "mscoco-smpl", genders=True)
    with pytest.raises(FileNotFoundError, match=r"SMPL_MALE.pkl .*neutral is there"):
        load_pseudo_gt(written.path).forward(body_models=official)


def test_the_environment_names_a_default_folder(load, official, monkeypatch):
    monkeypatch.setenv("NEURALANNOT_BODY_MODELS", str(official))
    gt = load("mscoco-smpl")
    weights = np.full((1, 6890), 1 / 6890, np.float32)
    bodies = gt.forward(regressor=weights)  # refused on the open body
    torch.testing.assert_close(bodies.joints[:, 0], bodies.vertices.mean(1), rtol=0, atol=1e-4)


@pytest.mark.usefixtures("forget_models")
def test_the_open_body_says_so_once(load, recwarn):
    gt = load("mscoco-smpl")
    gt.forward(want="joints")
    gt.forward(want="joints", batch_size=2)
    load_body_model("flame")
    said = [w for w in recwarn if "shape and expression codes do not" in str(w.message)]
    assert len(said) == 1


def test_unjoined_camera_fits_forward_and_project(load):
    gt, bare = load("mscoco-smpl"), load("mscoco-smpl", annotations=False)
    torch.testing.assert_close(bare.forward().project(), gt.forward().project(), rtol=0, atol=0)


def test_wrong_options_are_errors_before_the_first_batch(released):
    gt = load_pseudo_gt(released("mscoco-smpl").path)
    with pytest.raises(ValueError, match="want must be 'mesh' or 'joints', got 'meshes'"):
        gt.forward_batches(want="meshes")
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        gt.forward_batches(batch_size=0)


def test_a_device_that_is_none(load):
    with pytest.raises(ValueError, match="device 'tpu' cannot be used"):
        load("mscoco-smpl").forward(device="tpu")


def test_a_regressor_that_is_replaced_is_read_again(tmp_path, load):
    model = load_body_model("mano", side="right")
    from neuralannot.body_models.joints import _from_file, _stamped

    path = tmp_path / "regressor.npy"
    for value in (0.0, 1.0):
        np.save(path, np.full((1 + int(value), model.num_vertices), value))
        assert _from_file(*_stamped(path)).weights.max() == value
    with pytest.raises(
        FileNotFoundError, match="no such regressor file; nor is it one of the names human36m-17"
    ):
        load("mscoco-mano").forward(regressor="human3.6m")
