"""The body models against smplx, parameter by parameter, and what they refuse."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch
from layouts import leaf
from smplx_layers import OPEN_FOLDER, arguments_of, open_arrays, open_layer, plain_forward

from neuralannot.body_models import load_body_model
from neuralannot.body_models.files import read_model_file
from neuralannot.body_models.model import fix_left_hand
from neuralannot.parameters import human_model

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
MODELS = [("smpl", None), ("smplx", None), ("mano", "right"), ("mano", "left"), ("flame", None)]
JOINTS = {"smpl": 45, "smplx": 127, "mano": 16, "flame": 56}
RELEASE = {"smpl": "mscoco-smpl", "smplx": "mscoco-smplx", "mano": "mscoco-mano", "flame": "mscoco-flame"}


def leaves_of(model: str, n: int) -> list[dict]:
    rng = np.random.default_rng(5)
    return [leaf(rng, RELEASE[model], row=row) for row in range(n)]


def parameters_of(model: str, leaves: list[dict]) -> dict[str, torch.Tensor]:
    """smplx's arguments in the library's shapes."""
    shapes = human_model(model).shapes
    arguments = arguments_of(model, leaves)
    return {
        name: torch.tensor(arguments[name], dtype=torch.float32).reshape(-1, *shape)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(("name", "side"), MODELS)
def test_parity_with_smplx_on_100_bodies(name, side):
    leaves = leaves_of(name, 100)
    model, layer = load_body_model(name, side=side), open_layer(name, side)
    for first in range(0, 100, 25):
        some = leaves[first : first + 25]
        vertices, joints = plain_forward(layer, arguments_of(name, some))
        out = model(**parameters_of(name, some))
        np.testing.assert_allclose(out.vertices.numpy(), vertices, rtol=0, atol=1e-5)
        np.testing.assert_allclose(out.joints.numpy(), joints, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "side"), MODELS)
def test_buffers_are_those_of_smplx(name, side):
    model, layer = load_body_model(name, side=side), open_layer(name, side)
    for buffer in ("v_template", "J_regressor", "lbs_weights", "parents"):
        np.testing.assert_array_equal(getattr(model, buffer).numpy(), getattr(layer, buffer).numpy())
    np.testing.assert_array_equal(model.faces, np.asarray(layer.faces, np.int64))
    assert model.faces.dtype == np.int64
    assert model.is_open
    assert (model.model, model.side, model.num_vertices) == (name, side, human_model(name).num_vertices)
    assert len(model.joint_names) == JOINTS[name] == human_model(name).num_joints
    assert len(set(model.joint_names)) == JOINTS[name]


@pytest.mark.parametrize(("name", "side"), MODELS)
def test_one_body_is_the_batch_s(name, side):
    model, parameters = load_body_model(name, side=side), parameters_of(name, leaves_of(name, 3))
    whole = model(**parameters)
    for row in range(3):
        one = model(**{key: value[row : row + 1] for key, value in parameters.items()})
        torch.testing.assert_close(one.vertices[0], whole.vertices[row], rtol=0, atol=2e-6)
        torch.testing.assert_close(one.joints[0], whole.joints[row], rtol=0, atol=2e-6)


@pytest.mark.parametrize(("name", "side"), MODELS)
def test_no_bodies(name, side):
    model = load_body_model(name, side=side)
    out = model(transl=torch.zeros(0, 3))
    assert out.vertices.shape == (0, model.num_vertices, 3)
    assert out.joints.shape == (0, JOINTS[name], 3)


@pytest.mark.parametrize(("name", "side"), MODELS)
def test_what_is_not_given_is_zero_and_flat_rotations_do(name, side):
    model, parameters = load_body_model(name, side=side), parameters_of(name, leaves_of(name, 1))
    zeros = {key: torch.zeros_like(value) for key, value in parameters.items()}
    at_rest = model(**zeros)
    for key, value in parameters.items():
        alone, spelled = model(**{key: value}), model(**(zeros | {key: value}))
        torch.testing.assert_close(alone.vertices, spelled.vertices, rtol=0, atol=0)
        flat = model(**{key: value.reshape(1, -1)})
        torch.testing.assert_close(flat.joints, alone.joints, rtol=0, atol=0)
        # Each parameter does something: none is swallowed.
        assert (alone.vertices - at_rest.vertices).abs().max() > 1e-4, key


@pytest.mark.parametrize(("name", "side"), MODELS)
def test_rest_root_is_the_unposed_root(name, side):
    model, parameters = load_body_model(name, side=side), parameters_of(name, leaves_of(name, 4))
    codes = {key: parameters[key] for key in ("betas", "expression") if key in parameters}
    shaped = model(**codes, transl=parameters["transl"]).joints[:, 0] - parameters["transl"]
    torch.testing.assert_close(model.rest_root(*codes.values()), shaped, rtol=0, atol=2e-6)
    # Without an expression: none.
    plain = model(betas=parameters["betas"]).joints[:, 0]
    torch.testing.assert_close(model.rest_root(parameters["betas"]), plain, rtol=0, atol=2e-6)
    # The root rotates about it.
    turned = model(**codes, global_orient=parameters["global_orient"]).joints[:, 0]
    torch.testing.assert_close(turned, shaped, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("name", "side"), MODELS)
def test_gradients_flow_to_every_parameter(name, side):
    model, parameters = load_body_model(name, side=side), parameters_of(name, leaves_of(name, 2))
    for value in parameters.values():
        value.requires_grad_()
    out = model(**parameters)
    (out.vertices.square().sum() + out.joints.sum()).backward()
    for key, value in parameters.items():
        assert value.grad.isfinite().all(), key
        assert value.grad.abs().max() > 0, key


def test_gradients_are_finite_at_rest():
    pose = torch.zeros(1, 23, 3, requires_grad=True)
    load_body_model("smpl")(body_pose=pose).vertices.sum().backward()
    assert pose.grad.isfinite().all()


def test_a_model_moves_as_any_module():
    model = load_body_model("mano", side="right").double()
    pose = torch.full((2, 15, 3), 0.2, dtype=torch.float64)
    assert model(hand_pose=pose).vertices.dtype == torch.float64
    single = load_body_model("mano", side="right")
    assert single(hand_pose=pose).vertices.dtype == torch.float32  # the model's dtype counts
    np.testing.assert_allclose(
        model(hand_pose=pose).vertices.numpy(), single(hand_pose=pose).vertices.numpy(), atol=1e-6
    )


# --- refusals


@pytest.mark.parametrize(("name", "side"), MODELS)
def test_every_shape_is_checked(name, side):
    model = load_body_model(name, side=side)
    parameters = parameters_of(name, leaves_of(name, 4))
    for number, (key, shape) in enumerate(human_model(name).shapes.items()):
        expected = re.escape(f"{key} must be {(4, *shape)}, got ")
        for wrong in (
            torch.zeros(4, *shape[:-1], shape[-1] + 1),
            torch.zeros(4, *shape, 1),
            torch.zeros(4),
            torch.zeros(3 if number else 4, 1),  # the first given says how many bodies there are
        ):
            with pytest.raises(ValueError, match=expected):
                model(**(parameters | {key: wrong}))
        with pytest.raises(ValueError, match=rf"{key} must be \(., .*got \(\)"):
            model(**(parameters | {key: torch.zeros(())}))
    first, *others = human_model(name).shapes.items()
    with pytest.raises(ValueError, match=re.escape(f"{others[0][0]} must be {(2, *others[0][1])}, got (3, ")):
        model(**{first[0]: torch.zeros(2, *first[1]), others[0][0]: torch.zeros(3, *others[0][1])})


@pytest.mark.parametrize(
    ("name", "side", "strange"),
    [
        ("smpl", None, "hand_pose"),
        ("smpl", None, "expression"),
        ("smplx", None, "hand_pose"),
        ("mano", "left", "body_pose"),
        ("mano", "right", "left_hand_pose"),
        ("flame", None, "body_pose"),
    ],
)
def test_parameters_that_the_model_does_not_have(name, side, strange):
    model = load_body_model(name, side=side)
    has = ", ".join(human_model(name).shapes)
    with pytest.raises(ValueError, match=rf"{name} has no {strange}; it has {has}"):
        model(**{strange: torch.zeros(1, 15, 3)})
    with pytest.raises(TypeError):
        model(pose=torch.zeros(1, 72))
    with pytest.raises(ValueError, match=r"no parameter given; pass at least one"):
        model()


def test_parameters_are_tensors():
    with pytest.raises(TypeError, match=r"transl must be a torch tensor, got ndarray"):
        load_body_model("smpl")(transl=np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "star"}, r"unknown model 'star'; expected one of smpl, smplx, mano, flame"),
        ({"model": "mano"}, r"side must be 'right' or 'left' for mano and None for the others, got None"),
        ({"model": "mano", "side": "both"}, r"side must be 'right' or 'left' for mano .*got 'both'"),
        ({"model": "smpl", "side": "left"}, r"side must be .* None for the others, got 'left'"),
        (
            {"model": "smpl", "gender": "none"},
            r"unknown gender 'none'; expected one of neutral, male, female",
        ),
    ],
)
def test_models_that_do_not_exist(options, message):
    with pytest.raises(ValueError, match=message):
        load_body_model(options.pop("model"), **options)


def test_folders_that_lack_the_model(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"FLAME_NEUTRAL.pkl \(or .npz\) not in .*flame.is.tue.mpg.de"
    ):
        load_body_model("flame", folder=tmp_path)
    (tmp_path / "mano").mkdir()
    (tmp_path / "mano" / "MANO_LEFT.pkl").write_bytes(pickle.dumps(open_arrays("mano", "left")))
    with pytest.raises(FileNotFoundError, match=r"MANO_RIGHT.pkl .*left is there"):
        load_body_model("mano", folder=tmp_path, side="left")


@pytest.mark.parametrize("name", ["smpl", "smplx", "flame"])
def test_the_open_body_has_all_genders_wherever_it_is_named(name):
    neutral = load_body_model(name, folder=OPEN_FOLDER)
    for gender in ("male", "female"):
        models = [
            load_body_model(name, folder=f, gender=gender) for f in (None, OPEN_FOLDER, str(OPEN_FOLDER))
        ]
        for model in models:
            assert model.is_open
            assert model.gender == gender
            assert model.source.name == f"{name.upper()}_{gender.upper()}.npz"
            torch.testing.assert_close(model.v_template, models[0].v_template, rtol=0, atol=0)
        assert (models[0].v_template - neutral.v_template).abs().max() > 0.005
        torch.testing.assert_close(models[0].lbs_weights, neutral.lbs_weights, rtol=0, atol=0)


def test_the_open_hand_has_no_gender():
    hands = [load_body_model("mano", side="left", gender=gender) for gender in ("neutral", "female")]
    torch.testing.assert_close(hands[0].v_template, hands[1].v_template, rtol=0, atol=0)


def test_every_call_gives_a_model_of_its_own():
    model = load_body_model("smpl")
    for buffer in model.buffers():
        buffer.zero_()
    assert load_body_model("smpl")(transl=torch.zeros(1, 3)).vertices.abs().max() > 0
    assert model(transl=torch.zeros(1, 3)).vertices.abs().max() == 0


@pytest.mark.parametrize(("name", "side"), MODELS)
def test_one_body_s_parameter_is_every_body_s(name, side):
    model, parameters = load_body_model(name, side=side), parameters_of(name, leaves_of(name, 3))
    for key, value in parameters.items():
        spelled = model(**(parameters | {key: value[:1].expand_as(value)}))
        for one in (value[:1], value[:1].reshape(1, -1)):
            out = model(**(parameters | {key: one}))
            torch.testing.assert_close(out.vertices, spelled.vertices, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"transl must be \(3, 3\), got \(2, 3\)"):
        model(**(parameters | {"betas": parameters["betas"][:1], "transl": torch.zeros(2, 3)}))


def test_fix_left_hand_leaves_its_arguments_alone():
    right = read_model_file(OPEN_FOLDER / "mano" / "MANO_RIGHT.npz", "mano")
    left = read_model_file(OPEN_FOLDER / "mano" / "MANO_LEFT.npz", "mano")
    assert fix_left_hand(left, right) is left  # the open body's is right
    before = right.shapedirs.copy()
    fixed = fix_left_hand(right, right)
    np.testing.assert_array_equal(fixed.shapedirs[:, 0], -before[:, 0])
    np.testing.assert_array_equal(fixed.shapedirs[:, 1:], before[:, 1:])
    np.testing.assert_array_equal(right.shapedirs, before)
