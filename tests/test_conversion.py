"""Conversion between SMPL, SMPL-X and SMPL-H: round trips, official matrices, annotations, the command."""

from __future__ import annotations

import csv
import json
import pickle
import shutil

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from own_sample import SAMPLE
from scipy.spatial.transform import Rotation

from neuralannot import load_body_model, load_pseudo_gt
from neuralannot.body_models.model import OPEN_FOLDER
from neuralannot.cli import main
from neuralannot.conversion import (
    convert,
    convert_parameters,
    smplh_from_amass,
    smplh_to_amass,
    vertices_as,
    write_errors,
)
from neuralannot.conversion.correspondence import nearest_on_surface, read_transfer
from neuralannot.conversion.pairs import correspondence_of, make_pair
from neuralannot.metrics import mpvpe
from neuralannot.synthetic import motions

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

MSCOCO, H36M = SAMPLE / "mscoco", SAMPLE / "human36m"


def smpl_parameters(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = [motions.body_pose(rng) for _ in range(count)]
    hands = np.zeros((count, 2, 3), np.float32)
    return {
        "global_orient": np.stack([root for root, _ in found]),
        "body_pose": np.concatenate([np.stack([pose for _, pose in found]), hands], 1),
        "betas": np.stack([motions.codes(rng) for _ in range(count)]),
        "transl": rng.normal(0, 2, (count, 3)).astype(np.float32),
    }


def smplx_parameters(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    params = smpl_parameters(count, seed)
    params["body_pose"] = params["body_pose"][:, :21]
    for side in ("left", "right"):
        params[f"{side}_hand_pose"] = np.stack([motions.hand_pose(rng, side) for _ in range(count)])
    params["jaw_pose"] = np.stack([motions.jaw_pose(rng) for _ in range(count)])
    params["expression"] = np.stack([motions.codes(rng) for _ in range(count)])
    return params


def posed(model: str, params) -> torch.Tensor:
    with torch.no_grad():
        layer = load_body_model(model)
        return layer(**{name: torch.tensor(value) for name, value in params.items()}).vertices


def angles(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Degrees."""
    turns = [Rotation.from_rotvec(v.reshape(-1, 3)) for v in (one, other)]
    return np.degrees((turns[0].inv() * turns[1]).magnitude())


def test_smpl_to_smplx_and_back():
    params = smpl_parameters(8)
    there = convert_parameters(params, source="smpl", to="smplx")
    back = convert_parameters(there.params, source="smplx", to="smpl")
    off = (posed("smpl", params) - posed("smpl", back.params)).norm(dim=2)
    assert off.mean() < 1e-4
    assert off.max() < 1e-3
    assert angles(params["body_pose"], back.params["body_pose"]).max() < 1
    assert there.error.max() < 5e-4
    assert not there.lost
    assert back.worst.max() < 3e-3


def test_errors_are_those_of_the_posed_meshes():
    params = smplx_parameters(4)
    found = convert_parameters(params, source="smplx", to="smpl")
    pair = make_pair("smplx", "smpl")
    off = (posed("smpl", found.params) - pair.to_target(posed("smplx", params))).norm(dim=2).numpy()
    same = pair.to_target.same
    assert found.error == pytest.approx(off[:, same].mean(axis=1), abs=1e-6)
    assert found.worst == pytest.approx(off[:, same].max(axis=1), abs=1e-5)
    hands = same & (pair.target.part == 1)
    assert found.part_error["hands"] == pytest.approx(off[:, hands].mean(axis=1), abs=1e-6)


def test_what_smpl_has_not_is_said_and_leaves_the_body_alone():
    params = smplx_parameters(6)
    params["jaw_pose"][:3] = params["expression"][:3] = 0
    found = convert_parameters(params, source="smplx", to="smpl")
    assert sorted(found.lost) == ["expression", "jaw_pose", "left_hand_pose", "right_hand_pose"]
    assert found.lost["expression"].tolist() == [False] * 3 + [True] * 3
    assert found.part_error["body"].max() < 1e-3
    assert found.part_error["hands"].min() > 3e-3
    wrists = angles(params["body_pose"][:, 19:21], found.params["body_pose"][:, 19:21])
    assert wrists.max() < 5
    assert "expression: smpl has none; lost of 3 bodies" in str(found)


def test_smplh_has_smplx_s_hands():
    params = smplx_parameters(5)
    del params["jaw_pose"], params["expression"]
    there = convert_parameters(params, source="smplx", to="smplh")
    back = convert_parameters(there.params, source="smplh", to="smplx")
    assert there.error.max() < 2e-5
    assert back.error.max() < 2e-5
    for name in ("body_pose", "left_hand_pose", "right_hand_pose"):
        assert angles(params[name], back.params[name]).max() < 0.5
    assert np.abs(back.params["betas"] - params["betas"]).max() < 0.01
    assert not back.params["jaw_pose"].any()
    only = convert_parameters(smpl_parameters(2), source="smpl", to="smplh")
    assert only.error.max() < 5e-4


def test_amass_poses_are_smplh_s_with_the_mean_hand():
    mean = {side: np.linspace(-1, 1, 45) for side in ("left", "right")}
    poses = np.random.default_rng(0).normal(0, 0.5, (7, 156)).astype(np.float32)
    params = smplh_from_amass(poses, mean)
    assert params["left_hand_pose"].shape == (7, 15, 3)
    assert smplh_to_amass(params, mean) == pytest.approx(poses, abs=1e-6)
    assert params["right_hand_pose"].reshape(7, 45) == pytest.approx(poses[:, 111:] - mean["right"], abs=1e-6)
    with pytest.raises(ValueError, match=r"poses must be \(N, 156\)"):
        smplh_from_amass(poses[:, :72], mean)


@settings(max_examples=3, deadline=None)
@given(shift=st.tuples(*[st.floats(-50, 50, width=32)] * 3))
def test_where_a_body_stands_changes_its_translation_alone(shift):
    params = smpl_parameters(1, seed=5)
    one = convert_parameters(params, source="smpl", to="smplx")
    params["transl"] = params["transl"] + np.array([shift], np.float32)
    other = convert_parameters(params, source="smpl", to="smplx")
    moved = other.params["transl"] - one.params["transl"]
    assert moved == pytest.approx(np.array([shift]), abs=1e-5)
    for name in ("global_orient", "body_pose", "betas"):
        assert (other.params[name] == one.params[name]).all()


def test_rows_do_not_depend_on_the_batch_and_nan_stays_in_its_row():
    params = smpl_parameters(5)
    one = convert_parameters(params, source="smpl", to="smplx", batch_size=2)
    params["body_pose"][3, 0] = np.nan
    other = convert_parameters(params, source="smpl", to="smplx", batch_size=5)
    assert np.isnan(other.error).tolist() == [False, False, False, True, False]
    assert np.isnan(other.params["betas"][3]).all()
    assert np.isnan(other.params["jaw_pose"][3]).all()
    kept = [0, 1, 2, 4]
    assert other.params["body_pose"][kept] == pytest.approx(one.params["body_pose"][kept], abs=5e-3)
    assert "5 bodies" in str(other)


def test_half_turns_and_none_carry_over():
    angle = np.array([np.pi, np.pi - 1e-3, np.pi + 1e-3, np.pi - 1e-6, 0, 1e-6])[:, None]
    params = smpl_parameters(6, seed=3)
    axes = np.random.default_rng(0).normal(size=(6, 3))
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    axes[0] = 0, 0, 1  # upside down
    params["global_orient"] = (angle * axes).astype(np.float32)
    params["body_pose"][:, 15] = angle * np.array([0, 1, 0], np.float32)  # a shoulder
    there = convert_parameters(params, source="smpl", to="smplx")
    back = convert_parameters(there.params, source="smplx", to="smpl")
    assert (posed("smpl", params) - posed("smpl", back.params)).norm(dim=2).max() < 2e-3
    assert angles(params["global_orient"], back.params["global_orient"]).max() < 0.5


def test_poses_and_shapes_that_nobody_has_are_followed_too():
    rng = np.random.default_rng(1)
    axes = rng.normal(size=(12, 23, 3))
    axes *= rng.uniform(0, np.pi / 2, (12, 23, 1)) / np.linalg.norm(axes, axis=2, keepdims=True)
    axes[:, 21:] = 0
    params = {
        "global_orient": rng.normal(0, 2, (12, 3)),
        "body_pose": axes,
        "betas": rng.normal(0, 2, (12, 10)),
    }
    params = {name: value.astype(np.float32) for name, value in params.items()}
    few = convert_parameters(params, source="smpl", to="smplx", steps=3)
    found = convert_parameters(params, source="smpl", to="smplx")
    assert found.error.max() < 1e-3
    assert few.error == pytest.approx(found.error, abs=2e-5)  # the optimum, after three steps


def test_the_identity_through_smplh():
    params = smpl_parameters(4, seed=8)
    there = convert_parameters(params, source="smpl", to="smplh")
    back = convert_parameters(there.params, source="smplh", to="smpl")
    assert (posed("smpl", params) - posed("smpl", back.params)).norm(dim=2).max() < 1e-3


def test_one_body_alone_is_as_among_others():
    params = smpl_parameters(4)
    among = convert_parameters(params, source="smpl", to="smplx")
    alone = convert_parameters({n: v[1:2] for n, v in params.items()}, source="smpl", to="smplx")
    assert (len(alone), alone.params["body_pose"].shape) == (1, (1, 21, 3))
    assert alone.error == pytest.approx(among.error[1:2], abs=1e-5)
    assert alone.params["body_pose"] == pytest.approx(among.params["body_pose"][1:2], abs=5e-3)


def test_bodies_that_are_not_there_are_counted():
    params = {"betas": np.full((2, 10), np.nan, np.float32)}
    found = convert_parameters(params, source="smpl", to="smplx")
    assert np.isnan(found.worst).all()
    assert str(found) == "2 bodies as smplx\n2 of them NaN, as their parameters were"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_as_on_the_cpu():
    params = smplx_parameters(8)
    here = convert_parameters(params, source="smplx", to="smpl")
    there = convert_parameters(params, source="smplx", to="smpl", device="cuda")
    assert there.error == pytest.approx(here.error, abs=1e-5)


def test_none_at_all():
    found = convert_parameters({"betas": np.zeros((0, 10))}, source="smpl", to="smplx")
    assert len(found) == 0
    assert found.params["body_pose"].shape == (0, 21, 3)
    assert found.error.shape == (0,)
    assert str(found) == "0 bodies as smplx"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "mano"}, r"no conversion of 'mano'.*hand_of_body"),
        ({"to": "smpl"}, "nothing to convert: source and target are both smpl"),
        ({"gender": "x"}, "unknown gender 'x'"),
        ({"steps": -1}, "steps must be 0 or more"),
        ({"params": {}}, "no parameter given"),
        ({"params": {"jaw_pose": np.zeros((1, 3))}}, "smpl has no jaw_pose; it has global_orient"),
        (
            {"params": {"body_pose": np.zeros((1, 21, 3))}},
            r"body_pose must be \(1, 23, 3\), got \(1, 21, 3\)",
        ),
        ({"body_models": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_what_cannot_be_converted_is_said(change, message):
    given = {"params": {"betas": np.zeros((1, 10))}, "source": "smpl", "to": "smplx", **change}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        convert_parameters(given.pop("params"), **given)


# --- meshes


def test_smplx_meshes_compare_with_smpl_ones():
    params = smpl_parameters(3)
    there = convert_parameters(params, source="smpl", to="smplx")
    pair = make_pair("smplx", "smpl")
    off = mpvpe(pair.to_target(posed("smplx", there.params)), posed("smpl", params))
    assert off.max() < 5e-4


def test_vertices_of_annotations_as_the_other_topology():
    gt = load_pseudo_gt(MSCOCO / "MSCOCO_train_SMPLX_all_NeuralAnnot.json", cache=False)
    bodies = gt.forward()
    as_smpl = vertices_as(bodies, "smpl")
    assert as_smpl.shape == (len(gt), 6890, 3)
    assert vertices_as(bodies, "smplx") is bodies.vertices
    assert (vertices_as(bodies.vertices, "smpl") == as_smpl).all()
    assert vertices_as(bodies.vertices[:0], "smpl").shape == (0, 6890, 3)
    # A vertex that both have is the same one.
    pair = make_pair("smplx", "smpl")
    rows, columns = pair.to_target.matrix[pair.to_target.same].nonzero()
    assert (as_smpl[:, np.flatnonzero(pair.to_target.same)[rows]] == bodies.vertices[:, columns]).all()
    with pytest.raises(ValueError, match="topology must be 'smpl' or 'smplx'"):
        vertices_as(bodies, "mano")
    with pytest.raises(ValueError, match="want='mesh'"):
        vertices_as(gt.forward(want="joints"), "smpl")
    flame = load_pseudo_gt(MSCOCO / "MSCOCO_train_FLAME_NeuralAnnot.json", cache=False).forward()
    with pytest.raises(ValueError, match=r"got .*5023, 3"):
        vertices_as(flame, "smpl")
    with pytest.raises(ValueError, match=r"vertices must be \(B, 10475, 3\)"):
        pair.to_target(as_smpl)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_nearest_points_are_nearest(seed):
    rng = np.random.default_rng(seed)
    vertices, faces = rng.normal(0, 1, (6, 3)), np.array([[0, 1, 2], [2, 3, 4], [3, 4, 5]])
    points = rng.normal(0, 1.5, (5, 3))
    index, weights = nearest_on_surface(points, vertices, faces)
    assert (weights >= -1e-9).all()
    assert weights.sum(axis=1) == pytest.approx(1)
    found = np.linalg.norm(np.einsum("pk,pkc->pc", weights, vertices[index]) - points, axis=1)
    # Against many points of the surface.
    many = rng.dirichlet([1, 1, 1], 400)
    many = np.concatenate([many, np.eye(3), np.stack([many[:, 0], 1 - many[:, 0], 0 * many[:, 0]], 1)])
    tried = np.einsum("mk,fkc->fmc", many, vertices[faces]).reshape(-1, 3)
    nearest = np.linalg.norm(points[:, None] - tried, axis=2).min(axis=1)
    assert (found <= nearest + 1e-9).all()
    assert (found >= nearest - 0.3).all()


# --- official files: the open body under other names, with matrices in the official layout


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for model in ("smpl", "smplx"):
        shutil.copytree(OPEN_FOLDER / model, folder / model)
    (folder / "transfer_data").mkdir()
    here = OPEN_FOLDER.resolve()
    for source, target in (("smpl", "smplx"), ("smplx", "smpl")):
        own = correspondence_of(source, target, "neutral", here, None)
        both = scipy.sparse.hstack([own.matrix, scipy.sparse.csr_matrix(own.matrix.shape)])
        path = folder / "transfer_data" / f"{source}2{target}_deftrafo_setup.pkl"
        path.write_bytes(pickle.dumps({"mtx": both.tocsc()}, protocol=2))
        if target == "smplx":
            np.save(folder / "transfer_data" / "smplx_mask_ids.npy", np.flatnonzero(own.same))
    return folder


@pytest.mark.parametrize(("source", "target"), [("smpl", "smplx"), ("smplx", "smpl")])
def test_official_matrices_do_as_the_open_correspondence(official, source, target):
    params = smpl_parameters(3) if source == "smpl" else smplx_parameters(3)
    there = convert_parameters(params, source=source, to=target, body_models=official)
    here = convert_parameters(params, source=source, to=target)
    assert there.error == pytest.approx(here.error, abs=1e-4)
    assert angles(there.params["body_pose"], here.params["body_pose"]).max() < 1
    own = correspondence_of(source, target, "neutral", OPEN_FOLDER.resolve(), None)
    read = read_transfer(official, source, target)
    assert abs(read.matrix - own.matrix).max() < 1e-12
    assert read.same.sum() >= own.same.sum()


def test_dense_matrices_are_read(official, tmp_path):
    sparse = (read_transfer(official, "smplx", "smpl").matrix > 0.5).astype(np.uint8)
    path = tmp_path / "smplx2smpl_deftrafo_setup.pkl"
    path.write_bytes(pickle.dumps({"matrix": sparse.toarray()}, protocol=4))
    read = read_transfer(tmp_path, "smplx", "smpl")
    assert (read.matrix != sparse).nnz == 0
    assert read.same.tolist() == (np.asarray(sparse.sum(axis=1)).ravel() == 1).tolist()


def test_without_matrices_the_file_and_its_site_are_named(official, tmp_path):
    shutil.copytree(official / "smpl", tmp_path / "smpl")
    shutil.copytree(official / "smplx", tmp_path / "smplx")
    with pytest.raises(
        FileNotFoundError, match=r"smpl2smplx_deftrafo_setup.pkl not in .*Model correspondences"
    ):
        convert_parameters(smpl_parameters(1), source="smpl", to="smplx", body_models=tmp_path)
    # They may lie elsewhere.
    found = convert_parameters(
        smpl_parameters(1), source="smpl", to="smplx", body_models=tmp_path, transfer=official
    )
    assert found.error.max() < 1e-3
    with pytest.raises(FileNotFoundError, match=r"SMPLH_NEUTRAL.pkl .*mano.is.tue.mpg.de"):
        convert_parameters(smpl_parameters(1), source="smpl", to="smplh", body_models=tmp_path)


class _Asks:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"mtx": np.zeros((3, 4))}, r"expected a dict with 'mtx' \(6890, 10475\)"),
        ({"other": 1}, "got none"),
        ([1, 2], "got none"),
        ({"mtx": scipy.sparse.csr_matrix(([np.nan], ([0], [0])), (6890, 10475))}, "not finite"),
        (_Asks(), "asks for"),
    ],
)
def test_broken_matrices_are_refused(tmp_path, held, message, capsys):
    (tmp_path / "smplx2smpl_deftrafo_setup.pkl").write_bytes(pickle.dumps(held))
    with pytest.raises(ValueError, match=message):
        read_transfer(tmp_path, "smplx", "smpl")
    assert capsys.readouterr().out == ""


def test_a_truncated_matrix_is_refused(official, tmp_path):
    whole = (official / "transfer_data" / "smplx2smpl_deftrafo_setup.pkl").read_bytes()
    (tmp_path / "smplx2smpl_deftrafo_setup.pkl").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read as a pickle"):
        read_transfer(tmp_path, "smplx", "smpl")


def test_smplh_files_are_read(official, tmp_path):
    """The open SMPL-H written as a file: the same conversion."""
    data = make_pair("smplx", "smplh").target.data
    kintree = np.stack([np.where(data.parents < 0, 2**32 - 1, data.parents), np.arange(52)]).astype(np.uint32)
    arrays = {
        "v_template": data.v_template,
        "shapedirs": np.concatenate([data.shapedirs, np.zeros((6890, 3, 6))], 2),
        "posedirs": data.posedirs,
        "J_regressor": data.J_regressor,
        "weights": data.weights,
        "kintree_table": kintree,
        "f": data.faces.astype(np.uint32),
        "hands_meanl": data.hand_mean["left"],
        "hands_meanr": data.hand_mean["right"],
    }
    folder = tmp_path / "models"
    shutil.copytree(official, folder)
    (folder / "smplh" / "neutral").mkdir(parents=True)
    np.savez(folder / "smplh" / "neutral" / "model.npz", **arrays)
    params = smplx_parameters(2)
    there = convert_parameters(params, source="smplx", to="smplh", body_models=folder)
    here = convert_parameters(params, source="smplx", to="smplh")
    for name in here.params:
        assert there.params[name] == pytest.approx(here.params[name], abs=5e-3)
    for key, value, message in (
        ("weights", data.weights[:, :24], r"weights must be \(6890, 52\)"),
        ("hands_meanl", None, "has no 'hands_meanl'"),
        ("kintree_table", kintree[:, ::-1], "parent before the joint"),
        ("f", data.faces + 1, r"f must lie in 0..6889"),
        ("shapedirs", data.shapedirs[..., :8], "shapedirs must have at least 10 columns, got 8"),
        ("v_template", data.v_template * np.nan, "v_template must hold finite numbers"),
    ):
        wrong = {name: array for name, array in arrays.items() if name != key or value is not None}
        if value is not None:
            wrong[key] = value
        other = tmp_path / key
        other.mkdir()
        np.savez(other / "SMPLH_NEUTRAL.npz", **wrong)
        from neuralannot.conversion.smplh import read_smplh

        with pytest.raises(ValueError, match=message):
            read_smplh(other / "SMPLH_NEUTRAL.npz")


# --- annotations


def test_annotations_keep_all_but_their_model(tmp_path):
    gt = load_pseudo_gt(MSCOCO / "MSCOCO_train_SMPL_NeuralAnnot.json", cache=False)
    found = convert(gt, to="smplx")
    other = found.gt
    assert (other.model, other.release, other.space) == ("smplx", "mscoco-smplx", "camera")
    assert (other.ids == gt.ids).all()
    assert (other.image_path == gt.image_path).all()
    assert (other.camera.focal == gt.camera.focal).all()
    assert (other.box_xywh == gt.box_xywh).all()
    assert (other.gender == gt.gender).all()
    assert other.valid["body"].all()
    assert not other.valid["face"].any()
    assert not other.valid["left_hand"].any()
    off = mpvpe(vertices_as(other.forward(), "smpl"), gt.forward().vertices)
    assert off.numpy() == pytest.approx(found.error, abs=1e-4)
    for name in ("MSCOCO_train_SMPLX_all_NeuralAnnot.json", "x.safetensors"):
        other.save(tmp_path / name)
        again = load_pseudo_gt(tmp_path / name, cache=False)
        for parameter in other.params:
            assert again.params[parameter] == pytest.approx(other.params[parameter], abs=1e-6)
        assert (again.valid["left_hand"] == other.valid["left_hand"]).all()


def test_world_space_annotations_stay_in_the_world():
    gt = load_pseudo_gt(H36M / "Human36M_subject1_SMPL_NeuralAnnot.json", cache=False)
    found = convert(gt, to="smplx")
    other = found.gt
    assert (other.release, other.space) == ("human36m-smplx", "world")
    assert other.keys == gt.keys
    assert (other.camera.R == gt.camera.R).all()
    for space in ("world", "camera"):
        there = vertices_as(other.forward(space=space), "smpl")
        assert (there - gt.forward(space=space).vertices).norm(dim=2).mean() < 5e-4
    back = convert(other, to="smpl").gt
    assert back.release == gt.release
    assert angles(back.params["body_pose"], gt.params["body_pose"]).max() < 1
    assert back.params["transl"] == pytest.approx(gt.params["transl"], abs=1e-3)


def test_data_sets_without_a_release_of_the_model_take_own_data_s_layout(tmp_path):
    text = (MSCOCO / "MSCOCO_train_SMPL_NeuralAnnot.json").read_text()
    path = tmp_path / "CrowdPose_train_SMPL_NeuralAnnot.json"
    path.write_text(text)
    gt = load_pseudo_gt(path, cache=False)
    other = convert(gt, to="smplx").gt
    assert other.release == "mpii-smplx"
    assert (other.ids == gt.ids).all()
    other.save(tmp_path / "MPII_train_SMPLX_NeuralAnnot.json")
    held = json.loads((tmp_path / "MPII_train_SMPLX_NeuralAnnot.json").read_text())
    assert list(held) == [str(i) for i in gt.ids]


def test_no_rows_and_wrong_models():
    gt = load_pseudo_gt(MSCOCO / "MSCOCO_train_SMPL_NeuralAnnot.json", cache=False)
    empty = convert(gt[:0], to="smplx")
    assert (len(empty), len(empty.gt), empty.gt.model) == (0, 0, "smplx")
    with pytest.raises(ValueError, match="mscoco-smpl has smpl's parameters"):
        convert(gt, to="smpl")
    with pytest.raises(ValueError, match="for smplh use convert_parameters"):
        convert(gt, to="smplh")
    flame = load_pseudo_gt(MSCOCO / "MSCOCO_train_FLAME_NeuralAnnot.json", cache=False)
    with pytest.raises(ValueError, match="no conversion of flame annotations to smpl"):
        convert(flame, to="smpl")


def test_a_frame_that_several_cameras_saw_is_converted_once(monkeypatch):
    gt = load_pseudo_gt(H36M / "Human36M_subject1_SMPL_NeuralAnnot.json", cache=False)
    keys = gt.keys
    gt = gt.rows([row for key in sorted(set(keys))[:2] for row in range(len(gt)) if keys[row] == key])
    asked = []

    def counting(params, **options):
        asked.append(len(params["betas"]))
        return convert_parameters(params, **options)

    monkeypatch.setattr("neuralannot.conversion.converting.convert_parameters", counting)
    found = convert(gt, to="smplx")
    assert asked == [2]
    assert len(gt) == len(found) == 8
    first = {key: row for row, key in reversed(list(enumerate(gt.keys)))}
    same = [first[key] for key in gt.keys]
    assert (found.params["body_pose"] == found.params["body_pose"][same]).all()
    # Seen from a camera each row is a fit of its own.
    asked.clear()
    moved = convert(gt.to_camera_space(), to="smplx")
    assert asked == [8]
    assert (moved.gt.space, len(moved.gt)) == ("camera", 8)


def test_what_is_not_valid_is_not_lost():
    gt = load_pseudo_gt(MSCOCO / "MSCOCO_train_SMPL_NeuralAnnot.json", cache=False)
    there = convert(gt, to="smplx").gt  # hands are straight, not as the mean hand, and not valid
    found = convert(there, to="smpl")
    assert not any(rows.any() for rows in found.lost.values())


def test_errors_of_annotations_as_a_table(tmp_path):
    gt = load_pseudo_gt(MSCOCO / "MSCOCO_train_SMPLX_all_NeuralAnnot.json", cache=False)
    found = convert(gt, to="smpl")
    path = write_errors(found, tmp_path / "new" / "errors.csv")
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == [str(i) for i in gt.ids]
    assert [float(line["error_mm"]) for line in lines] == pytest.approx(1000 * found.error, abs=1e-3)
    assert [float(line["hands_mm"]) for line in lines] == pytest.approx(
        1000 * found.part_error["hands"], abs=1e-3
    )
    for row, line in enumerate(lines):
        assert line["lost"].split() == [name for name, rows in found.lost.items() if rows[row]]
    bare = convert_parameters({"betas": np.array([[0.0] * 10, [np.nan] * 10])}, source="smpl", to="smplx")
    text = write_errors(bare, tmp_path / "bare.csv").read_text().splitlines()
    assert text[0] == "name,error_mm,worst_mm,body_mm,hands_mm,head_mm,lost"
    assert text[2] == "1,,,,,,"
    with pytest.raises(ValueError, match=r"errors are written as .csv, got '.txt'"):
        write_errors(bare, tmp_path / "bare.txt")


def test_the_command(tmp_path, capsys):
    out, errors = tmp_path / "Human36M_subject1_SMPLX_NeuralAnnot.json", tmp_path / "errors.csv"
    path = H36M / "Human36M_subject1_SMPL_NeuralAnnot.json"
    assert main(["convert", str(path), "--to", "smplx", "--out", str(out), "--errors", str(errors)]) == 0
    assert "bodies as smplx" in capsys.readouterr().out
    written = load_pseudo_gt(out, annotations=False, cache=False)
    assert written.model == "smplx"
    assert len(errors.read_text().splitlines()) == 1 + len(written)
    assert main(["convert", str(out), "--to", "smplx", "--out", str(out)]) == 2
    assert "nothing to convert" in capsys.readouterr().err


def test_the_command_s_files_may_be_anywhere(tmp_path):
    """Named as the other commands name them; columns that are saved keep the cameras."""
    for folder, kind in (("fits", "SMPL_NeuralAnnot"), ("notes", "data"), ("rigs", "camera")):
        (tmp_path / folder).mkdir()
        shutil.copy(H36M / f"Human36M_subject1_{kind}.json", tmp_path / folder)
    path = tmp_path / "fits" / "Human36M_subject1_SMPL_NeuralAnnot.json"
    given = ["--annotations", str(tmp_path / "notes" / "Human36M_subject1_data.json")]
    given += ["--cameras", str(tmp_path / "rigs" / "Human36M_subject1_camera.json")]
    out = tmp_path / "smplx.safetensors"
    assert main(["convert", str(path), *given, "--to", "smplx", "--steps", "0", "--out", str(out)]) == 0
    written, gt = load_pseudo_gt(out), load_pseudo_gt(H36M, cache=False)
    assert (written.model, written.keys) == ("smplx", gt.keys)
    assert (written.camera.R == gt.camera.R).all()
    # Each frame once, without cameras.
    out = tmp_path / "Human36M_subject1_SMPLX_NeuralAnnot.json"
    assert main(["convert", str(path), *given, "--to", "smplx", "--steps", "0", "--out", str(out)]) == 0
    assert sorted(load_pseudo_gt(out, annotations=False, cache=False).keys) == sorted(set(gt.keys))


def test_torch_has_its_threads_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        convert_parameters(smpl_parameters(1), source="smpl", to="smplx", steps=1)
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="body_pose must be"):
            convert_parameters({"body_pose": np.zeros((1, 2))}, source="smpl", to="smplx")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
