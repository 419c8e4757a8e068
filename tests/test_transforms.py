"""Bodies moved by their parameters: rigid motion, rotation about an axis, mirroring."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from neuralannot.body_models import load_body_model
from neuralannot.parameters import human_model
from neuralannot.transforms import mirror_parameters, rigid_parameters, rotation_about_axis

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
MODELS = [("smpl", None), ("smplx", None), ("mano", "right"), ("mano", "left"), ("flame", None)]


def random_params(model: str, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in human_model(model).shapes.items():
        scale = 1.0 if name in ("betas", "expression", "transl") else 0.3
        params[name] = rng.normal(0, scale, (n, *shape)).astype(np.float32)
    params["global_orient"] = Rotation.random(n, random_state=seed).as_rotvec().astype(np.float32)
    return params


def posed(model, params: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        out = model(**{name: torch.tensor(value) for name, value in params.items()})
    return out.vertices.numpy().astype(float), out.joints.numpy().astype(float)


def rest_root(model, params: dict[str, np.ndarray]) -> np.ndarray:
    codes = [torch.tensor(params[name]) for name in ("betas", "expression") if name in params]
    return model.rest_root(*codes).numpy()


def motions(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random rotations, angle 0 and angles at and near pi among them, and translations."""
    R = Rotation.random(n, random_state=seed).as_matrix()
    R[0] = np.eye(3)
    R[1] = np.diag([1.0, -1.0, -1.0])
    R[2] = Rotation.from_rotvec([0, np.pi - 1e-6, 0]).as_matrix()
    return R, np.random.default_rng(seed).normal(0, 3, (n, 3))


@pytest.mark.parametrize(("name", "side"), MODELS)
def test_the_moved_parameters_give_the_moved_mesh(name, side):
    model = load_body_model(name, side=side)
    params, (R, t) = random_params(name, 6), motions(6, 1)
    root, transl = rigid_parameters(params["global_orient"], params["transl"], rest_root(model, params), R, t)
    assert root.dtype == transl.dtype == np.float32
    before = posed(model, params)
    after = posed(model, params | {"global_orient": root, "transl": transl})
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new, np.einsum("nij,nvj->nvi", R, old) + t[:, None], atol=5e-6)


@given(st.integers(0, 10_000))
def test_there_and_back(seed):
    n = 8
    rng = np.random.default_rng(seed)
    root = Rotation.random(n, random_state=seed).as_rotvec()
    root[0] = 0
    transl, j0 = rng.normal(0, 2, (n, 3)), rng.normal(0, 0.3, (n, 3))
    R, t = motions(n, seed)
    moved = rigid_parameters(root, transl, j0, R, t)
    back_R = R.swapaxes(1, 2)
    back = rigid_parameters(*moved, j0, back_R, -np.einsum("nij,nj->ni", back_R, t))
    turned = Rotation.from_rotvec(back[0]) * Rotation.from_rotvec(root).inv()
    assert turned.magnitude().max() < 2e-6
    np.testing.assert_allclose(back[1], transl, atol=1e-5)


@given(st.integers(0, 10_000))
def test_two_motions_are_their_product(seed):
    n = 6
    rng = np.random.default_rng(seed)
    root, transl, j0 = (rng.normal(0, 1, (n, 3)) for _ in range(3))
    (R1, t1), (R2, t2) = motions(n, seed), motions(n, seed + 1)
    twice = rigid_parameters(*rigid_parameters(root, transl, j0, R1, t1), j0, R2, t2)
    once = rigid_parameters(root, transl, j0, R2 @ R1, np.einsum("nij,nj->ni", R2, t1) + t2)
    turned = Rotation.from_rotvec(twice[0]) * Rotation.from_rotvec(once[0]).inv()
    assert turned.magnitude().max() < 2e-6
    np.testing.assert_allclose(twice[1], once[1], atol=2e-5)


def test_no_motion_and_no_rows():
    rng = np.random.default_rng(0)
    root, transl, j0 = (rng.normal(0, 1, (3, 3)).astype(np.float32) for _ in range(3))
    same = rigid_parameters(root, transl, j0, np.tile(np.eye(3), (3, 1, 1)), np.zeros((3, 3)))
    np.testing.assert_allclose(same[0], root, atol=1e-6)
    np.testing.assert_allclose(same[1], transl, atol=1e-6)
    none = rigid_parameters(*(np.zeros((0, 3)),) * 3, np.zeros((0, 3, 3)), np.zeros((0, 3)))
    assert [value.shape for value in none] == [(0, 3), (0, 3)]


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [
        (1, (2, 3), r"transl must be \(4, 3\), got \(2, 3\)"),
        (2, (4,), r"rest_root must be \(4, 3\), got \(4,\)"),
        (3, (4, 9), r"R must be \(4, 3, 3\), got \(4, 9\)"),
        (4, (4, 3, 1), r"t must be \(4, 3\), got \(4, 3, 1\)"),
    ],
)
def test_shapes_that_do_not_fit(place, shape, message):
    values = [np.zeros((4, 3)), np.zeros((4, 3)), np.zeros((4, 3)), np.zeros((4, 3, 3)), np.zeros((4, 3))]
    values[place] = np.zeros(shape)
    with pytest.raises(ValueError, match=message):
        rigid_parameters(*values)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotation_about_an_axis(axis):
    angles = np.array([0.0, 0.3, -2.0, np.pi])
    expected = Rotation.from_rotvec(angles[:, None] * np.eye(3)[axis]).as_matrix()
    np.testing.assert_allclose(rotation_about_axis(angles, axis), expected, atol=1e-12)
    assert rotation_about_axis(0.3, axis).shape == (1, 3, 3)


def test_a_positive_angle_turns_the_picture_clockwise():
    # What is to the right (x) comes to lie below (y down).
    right = rotation_about_axis(np.pi / 2)[0] @ [1, 0, 5]
    np.testing.assert_allclose(right, [0, 1, 5], atol=1e-12)


# --- mirroring


@pytest.mark.parametrize("name", ["smpl", "smplx", "flame", "mano"])
def test_mirroring_twice_changes_nothing(name):
    params = random_params(name, 5)
    root = np.random.default_rng(1).normal(0, 0.2, (5, 3)).astype(np.float32)
    once = mirror_parameters(params, root)
    # The other hand's rest root is the mirrored one.
    other = root * np.array([-1, 1, 1], np.float32) if name == "mano" else root
    twice = mirror_parameters(once, other)
    assert list(twice) == list(params)
    for key in params:
        np.testing.assert_allclose(twice[key], params[key], atol=1e-6)
    assert any(np.abs(once[key] - params[key]).max() > 0.1 for key in params)


def mirrored_points(points: np.ndarray) -> np.ndarray:
    return points * [-1, 1, 1]


@pytest.mark.parametrize("name", ["smpl", "smplx", "flame"])
def test_the_mirrored_joints_are_the_mirrored_bodys(name):
    """The skeleton's joints, as far as the open body is symmetric: 7 mm at most on its mesh."""
    model = load_body_model(name)
    params = random_params(name, 4, seed=3)
    for code in ("betas", "expression"):
        if code in params:
            params[code] *= 0  # codes are not mirrored
    _, joints = posed(model, params)
    _, found = posed(model, mirror_parameters(params, rest_root(model, params)))
    skeleton = list(model.joint_names[: len(model.parents)])
    swapped = [skeleton.index(_other(joint)) for joint in skeleton]
    found = found[:, : len(skeleton)]
    error = np.linalg.norm(found - mirrored_points(joints)[:, swapped], axis=-1)
    assert error.mean() < 2e-3
    assert error.max() < 8e-3
    unmirrored = np.linalg.norm(found - joints[:, : len(skeleton)], axis=-1)
    assert unmirrored.max() > 0.1  # there was something to mirror


def _other(joint: str) -> str:
    for one, two in (("left", "right"), ("right", "left")):
        if joint.startswith(one):
            return two + joint[len(one) :]
    return joint


def test_a_mirrored_hand_is_the_other_hand():
    right, left = (load_body_model("mano", side=side) for side in ("right", "left"))
    params = random_params("mano", 6, seed=2)
    _, joints = posed(right, params)
    _, found = posed(left, mirror_parameters(params, rest_root(right, params)))
    error = np.linalg.norm(found - mirrored_points(joints), axis=-1)
    assert error.max() < 8e-3
    assert error.mean() < 2e-3


def test_arguments_stay_as_they_are():
    params = random_params("smplx", 2)
    copies = {name: value.copy() for name, value in params.items()}
    mirrored = mirror_parameters(params, np.zeros((2, 3), np.float32))
    for value in mirrored.values():
        value += 1
    for name in params:
        np.testing.assert_array_equal(params[name], copies[name])
