"""MANO hands and FLAME faces of SMPL-X bodies, and the other way: exactly."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
import torch
from test_conversion import smplx_parameters

from neuralannot import load_body_model
from neuralannot.body_models.model import OPEN_FOLDER
from neuralannot.conversion import face_of_body, hand_of_body, with_face, with_hand

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


def posed(model: str, params, side: str | None = None) -> torch.Tensor:
    with torch.no_grad():
        layer = load_body_model(model, side=side)
        return layer(**{name: torch.tensor(value) for name, value in params.items()}).vertices


@pytest.mark.parametrize("side", ["left", "right"])
def test_hands_of_bodies_lie_where_the_bodies_have_them(side):
    params = smplx_parameters(8)
    hand = hand_of_body(params, side=side)
    assert (hand.model, hand.side, len(hand)) == ("mano", side, 8)
    assert hand.exact == ("global_orient", "hand_pose")
    assert hand.not_carried == ()
    assert (hand.params["hand_pose"] == params[f"{side}_hand_pose"]).all()
    with np.load(OPEN_FOLDER / "correspondence.npz") as archive:
        shared = archive[f"smplx_mano_{side}"]
    off = (posed("mano", hand.params, side) - posed("smplx", params)[:, shared]).norm(dim=2)
    assert off.median() < 2e-4
    assert hand.error.max() < 5e-4
    # And back: fingers and wrist are what they were, whatever the wrist was in between.
    blank = {**params, f"{side}_hand_pose": np.zeros((8, 15, 3), np.float32)}
    blank["body_pose"] = params["body_pose"].copy()
    blank["body_pose"][:, 19 if side == "left" else 20] = 0.3
    back = with_hand(blank, {n: hand.params[n] for n in hand.exact}, side=side)
    for name, value in params.items():
        assert back[name] == pytest.approx(value, abs=1e-5), name
    assert blank["body_pose"][0, 20 if side == "right" else 19, 0] == pytest.approx(0.3)  # not changed


def test_faces_of_bodies_lie_where_the_bodies_have_them():
    params = smplx_parameters(8)
    face = face_of_body(params)
    assert face.exact == ("global_orient", "jaw_pose", "expression")
    assert face.error.max() < 5e-4
    assert (face.params["expression"] == params["expression"]).all()
    with np.load(OPEN_FOLDER / "correspondence.npz") as archive:
        shared = archive["smplx_flame"]
    off = (posed("flame", face.params) - posed("smplx", params)[:, shared]).norm(dim=2)
    assert off.median() < 3e-4
    blank = {n: v for n, v in params.items() if n not in ("jaw_pose", "expression")}
    blank["body_pose"] = params["body_pose"].copy()
    blank["body_pose"][:, 14] = 0.2
    back = with_face(blank, {n: face.params[n] for n in face.exact}, turn_head=True)
    for name, value in params.items():
        assert back[name] == pytest.approx(value, abs=1e-5), name
    kept = with_face(blank, {n: face.params[n] for n in ("jaw_pose", "expression")})
    assert (kept["body_pose"] == blank["body_pose"]).all()


def test_far_away_hands_are_as_exact():
    params = smplx_parameters(2)
    near = hand_of_body(params, side="left")
    params["transl"] = params["transl"] + np.float32(64)
    far = hand_of_body(params, side="left")
    assert far.params["transl"] == pytest.approx(near.params["transl"] + 64, abs=2e-5)
    assert far.error == pytest.approx(near.error, abs=1e-6)


def test_nan_stays_in_its_row_and_none_is_none():
    params = smplx_parameters(3)
    params["body_pose"][1, 2] = np.nan
    hand = hand_of_body(params, side="right")
    assert np.isnan(hand.error).tolist() == [False, True, False]
    assert np.isnan(hand.params["transl"][1]).all()
    back = with_hand(params, {"global_orient": hand.params["global_orient"]}, side="right")
    assert np.isfinite(back["body_pose"][[0, 2]]).all()
    none = hand_of_body({name: value[:0] for name, value in params.items()}, side="right")
    assert len(none) == 0
    assert none.params["hand_pose"].shape == (0, 15, 3)
    assert len(face_of_body({"betas": np.zeros((0, 10))})) == 0


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """The open bodies as if they were official files: MANO's mean hand is another."""
    folder = tmp_path_factory.mktemp("models")
    for model in ("smplx", "mano", "flame"):
        shutil.copytree(OPEN_FOLDER / model, folder / model)
    path = folder / "mano" / "MANO_RIGHT.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["hands_mean"] = arrays["hands_mean"] + np.linspace(-0.3, 0.3, 45, dtype=np.float32)
    np.savez(path, **arrays)
    return folder


def test_without_shared_vertices_shapes_are_not_carried_and_wrists_meet(official):
    params = smplx_parameters(3)
    hand = hand_of_body(params, side="left", body_models=official)
    assert hand.not_carried == ("betas",)
    assert np.isnan(hand.error).all()
    assert not hand.params["betas"].any()
    with torch.no_grad():
        given = {name: torch.tensor(value) for name, value in params.items()}
        wrist = load_body_model("smplx").skeleton(**given)[:, 20]
        own = {name: torch.tensor(value) for name, value in hand.params.items()}
        root = load_body_model("mano", side="left").skeleton(**own)[:, 0]
    assert torch.allclose(wrist, root, atol=1e-5)


def test_official_vertex_numbers_are_read_and_mean_hands_told_apart(official, tmp_path):
    with np.load(OPEN_FOLDER / "correspondence.npz") as archive:
        hands = {f"{side}_hand": archive[f"smplx_mano_{side}"] for side in ("left", "right")}
        np.save(tmp_path / "SMPL-X__FLAME_vertex_ids.npy", archive["smplx_flame"])
    (tmp_path / "MANO_SMPLX_vertex_ids.pkl").write_bytes(pickle.dumps(hands, protocol=2))
    params = smplx_parameters(3)
    face = face_of_body(params, body_models=official, transfer=tmp_path)
    assert face.params["transl"] == pytest.approx(face_of_body(params).params["transl"], abs=1e-6)
    hand = hand_of_body(params, side="right", body_models=official, transfer=tmp_path)
    assert hand.error.max() < 5e-4
    assert np.abs(hand.params["hand_pose"] - params["right_hand_pose"]).max() > 0.2
    back = with_hand(params, {"hand_pose": hand.params["hand_pose"]}, side="right", body_models=official)
    assert back["right_hand_pose"] == pytest.approx(params["right_hand_pose"], abs=1e-6)
    (tmp_path / "MANO_SMPLX_vertex_ids.pkl").write_bytes(pickle.dumps({"left_hand": np.arange(5)}))
    with pytest.raises(ValueError, match="expected 778 vertex numbers of SMPL-X, got int64"):
        hand_of_body(params, side="left", body_models=official, transfer=tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: hand_of_body(b, side="up"), "side must be 'left' or 'right'"),
        (lambda b: hand_of_body(b, side="left", gender="x"), "unknown gender"),
        (
            lambda b: with_hand(b, {"betas": np.zeros((2, 10))}, side="left"),
            "betas of MANO cannot be carried",
        ),
        (
            lambda b: with_hand(b, {"hand_pose": np.zeros((3, 45))}, side="left"),
            r"must be \(2, 15, 3\), one a",
        ),
        (lambda b: with_face(b, {"transl": np.zeros((2, 3))}), "transl of FLAME cannot be carried"),
        (lambda b: with_face(b, {"global_orient": np.zeros((2, 3))}), "global_orient of FLAME cannot"),
        (lambda b: with_face(b, {}, turn_head=True), "turn_head needs"),
        (lambda b: face_of_body({"hand_pose": np.zeros((2, 45))}), "smplx has no hand_pose"),
    ],
)
def test_what_would_be_lost_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call(smplx_parameters(2))
