"""The same random leaves through smplx by the release demos' own steps, and through the library."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from layouts import FILE_NAMES, Row, write_release
from smplx_layers import arguments_of, layer_of, open_arrays, open_layer, plain_forward

from neuralannot import RELEASES, load_pseudo_gt
from neuralannot.body_models import load_body_model

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
METRES, PIXELS = 1e-5, 0.01


@dataclass(frozen=True)
class Demo:
    """What the demos' steps give, row by row: camera-space points in metres and their pixels, float64."""

    vertices: np.ndarray
    joints: np.ndarray
    pixels: np.ndarray
    vertex_pixels: np.ndarray


def demo(model: str, rows: list[Row], layer_for=open_layer) -> Demo:
    """Row after row, as the demos do it: the mesh rotated with its root, forwarded, recentred, moved by t."""
    vertices, joints, pixels, vertex_pixels = [], [], [], []
    for row in rows:
        arguments = arguments_of(model, [row.leaf])
        view = row.camera
        if view.R is not None:
            R = np.array(view.R)
            rotation, _ = cv2.Rodrigues(arguments["global_orient"][0])
            arguments["global_orient"] = cv2.Rodrigues(R @ rotation)[0].reshape(1, 3)
        mesh, points = (v[0] for v in plain_forward(layer_for(row), arguments))
        if view.R is not None:
            root = points[0]
            move = -root + R @ root + np.array(view.t) / view.unit
            mesh, points = mesh + move, points + move
        vertices.append(mesh)
        joints.append(points)
        for out, moved in ((pixels, points), (vertex_pixels, mesh)):
            with np.errstate(divide="ignore", invalid="ignore"):
                seen = moved[:, :2] / moved[:, 2:] * view.focal + view.princpt
            out.append(np.where(moved[:, 2:] > 0, seen, np.nan))
    return Demo(*(np.stack(v) for v in (vertices, joints, pixels, vertex_pixels)))


def differences(gt, expected: Demo, body_models: Path | None = None) -> dict[str, float]:
    """The largest differences between `gt.forward` and the demos' steps, metres and pixels."""
    bodies = gt.forward(body_models=body_models)
    moved = gt.to_camera_space(body_models).forward(body_models=body_models)
    found = {
        "vertices": np.abs(bodies.vertices.numpy() - expected.vertices).max(),
        "joints": np.abs(bodies.joints.numpy() - expected.joints).max(),
        "vertices of to_camera_space": np.abs(moved.vertices.numpy() - expected.vertices).max(),
        "joints of to_camera_space": np.abs(moved.joints.numpy() - expected.joints).max(),
    }
    for name, points, pixels in (
        ("joints", expected.joints, expected.pixels),
        ("vertices", expected.vertices, expected.vertex_pixels),
    ):
        far = points[..., 2] > 0.1  # nearer, a pixel is less than float32 can hold
        assert far.mean() > 0.8
        for prefix, of in (("", bodies), ("moved ", moved)):
            found[f"{prefix}{name} px"] = np.abs(of.project(name).numpy() - pixels)[far].max()
    return found


def check(found: dict[str, float]) -> None:
    for name, value in found.items():
        assert value <= (PIXELS if name.endswith("px") else METRES), f"{name}: {value}"


def layer_for_side(model: str):
    return lambda row: open_layer(model, row.side)


def parity(gt, rows: list[Row]) -> dict[str, float]:
    return differences(gt, demo(gt.model, rows, layer_for_side(gt.model)))


def test_every_release_has_a_layout_here():
    assert set(FILE_NAMES) == set(RELEASES)


@pytest.mark.parametrize("name", FILE_NAMES)
def test_parity_with_the_demos(name, released):
    written = released(name)
    gt = load_pseudo_gt(written.path)
    assert gt.ids.tolist() == [row.id for row in written.rows]
    check(parity(gt, written.rows))


def test_parity_of_3dpw_without_extrinsics(tmp_path):
    written = write_release(tmp_path, "3dpw-smplx", world=False)
    gt = load_pseudo_gt(written.path)
    assert gt.space == "camera"
    check(parity(gt, written.rows))


@pytest.mark.parametrize("name", ["human36m-smpl", "mpi-inf-3dhp-smplx", "interhand26m-mano"])
def test_world_space_is_a_plain_forward(name, released):
    written = released(name)
    gt = load_pseudo_gt(written.path)
    bodies = gt.forward(space="world")
    for k, row in enumerate(written.rows):
        vertices, joints = plain_forward(open_layer(gt.model, row.side), arguments_of(gt.model, [row.leaf]))
        np.testing.assert_allclose(bodies.vertices[k].numpy(), vertices[0], atol=METRES)
        np.testing.assert_allclose(bodies.joints[k].numpy(), joints[0], atol=METRES)
    seen = gt.forward().project("vertices").numpy()
    np.testing.assert_allclose(bodies.project("vertices").numpy(), seen, atol=PIXELS)


# --- official-like folders: genders, and MANO's left hand


def perturbed(arrays: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shift = rng.normal(0, 0.002, arrays["v_template"].shape)
    scale = 1 + 0.1 * rng.normal(size=arrays["shapedirs"].shape[2])
    changed = {"v_template": arrays["v_template"] + shift, "shapedirs": arrays["shapedirs"] * scale}
    return arrays | {name: value.astype(np.float32) for name, value in changed.items()}


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> tuple[Path, dict[str, dict]]:
    """A folder like the official ones: SMPL of three genders, and MANO with the left hand's sign bug."""
    folder = tmp_path_factory.mktemp("human_model_files")
    files = {f"SMPL_{g.upper()}": perturbed(open_arrays("smpl"), k)
             for k, g in enumerate(("neutral", "male", "female"))}  # fmt: skip
    right, left = (perturbed(open_arrays("mano", side), 7) for side in ("right", "left"))
    left["shapedirs"][:, 0] = right["shapedirs"][:, 0]
    files |= {"MANO_RIGHT": right, "MANO_LEFT": left}
    for name, arrays in files.items():
        place = folder / name.split("_")[0].lower() / f"{name}.pkl"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(pickle.dumps(arrays))
    return folder, files


def test_genders_select_their_models(official, tmp_path):
    folder, files = official
    written = write_release(tmp_path, "human36m-smpl", genders=True)
    gt = load_pseudo_gt(written.path)
    assert gt.gender.tolist() == [row.leaf["gender"] for row in written.rows]
    assert set(gt.gender) == {"neutral", "male", "female"}
    layers = {g: layer_of("smpl", files[f"SMPL_{g.upper()}"]) for g in set(gt.gender)}
    expected = demo("smpl", written.rows, lambda row: layers[row.leaf["gender"]])
    check(differences(gt, expected, folder))
    neutral = demo("smpl", written.rows, lambda row: layers["neutral"])
    assert np.abs(neutral.vertices - expected.vertices).max() > 1e-3  # the models do differ


@pytest.mark.parametrize("name", ["interhand26m-mano", "mscoco-mano"])
def test_the_left_hand_is_put_right(name, official, released):
    folder, files = official
    written = released(name)
    gt = load_pseudo_gt(written.path)
    layers = {s: layer_of("mano", files[f"MANO_{s.upper()}"], s) for s in ("right", "left")}
    as_it_is = demo("mano", written.rows, lambda row: layers[row.side])
    assert (layers["left"].shapedirs[:, 0] - layers["right"].shapedirs[:, 0]).abs().sum() < 1
    layers["left"].shapedirs[:, 0, :] *= -1  # the loaders' own line
    expected = demo("mano", written.rows, lambda row: layers[row.side])
    check(differences(gt, expected, folder))
    lefts = gt.side == "left"
    assert np.abs(as_it_is.vertices - expected.vertices)[lefts].max() > 1e-3
    np.testing.assert_array_equal(as_it_is.vertices[~lefts], expected.vertices[~lefts])


def test_the_left_hand_is_put_right_once(official, tmp_path):
    folder, files = official
    first, again = (load_body_model("mano", folder=folder, side="left") for _ in range(2))
    right = load_body_model("mano", folder=folder, side="right")
    expected = files["MANO_LEFT"]["shapedirs"] * np.array([-1, 1, 1], np.float32)[:, None]
    for model in (first, again):
        np.testing.assert_array_equal(model.shapedirs.numpy(), expected)
    np.testing.assert_array_equal(right.shapedirs.numpy(), files["MANO_RIGHT"]["shapedirs"])
    # A file that someone has put right already stays as it is.
    fixed = tmp_path / "mano"
    fixed.mkdir()
    (fixed / "MANO_LEFT.pkl").write_bytes(pickle.dumps(files["MANO_LEFT"] | {"shapedirs": expected}))
    (fixed / "MANO_RIGHT.pkl").write_bytes(pickle.dumps(files["MANO_RIGHT"]))
    whole = load_body_model("mano", folder=tmp_path, side="left")
    np.testing.assert_array_equal(whole.shapedirs.numpy(), expected)


def test_the_root_about_which_bodies_turn(released):
    """A regressor on the posed mesh, which one loader takes as root, gives another point."""
    gt = load_pseudo_gt(released("human36m-smpl").path)
    bodies = gt.forward(space="world")
    model = load_body_model("smpl")
    posed = torch.einsum("v,bvc->bc", model.J_regressor[0], bodies.vertices)
    assert (posed - bodies.joints[:, 0]).norm(dim=1).max() > 100 * METRES
