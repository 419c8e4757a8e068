"""The body models' numbers and gradients against smplx, and their surfaces against a dense twin."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_twins import (
    DOUBLE,
    MODELS,
    by_smplx,
    check,
    open_twin,
    random_bodies,
    twin_of,
    weighed,
)
from smplx_layers import open_arrays
from torch import Tensor

from neuralannot.body_models import BodyOutput, load_body_model, surface
from neuralannot.body_models.surface import Surface

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


# --- smplx's numbers


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), MODELS)
def test_1000_bodies_are_smplx_s(name, side):
    model, bodies = load_body_model(name, side=side), random_bodies(name, 1000)
    for first in range(0, 1000, 250):
        some = {key: value[first : first + 250] for key, value in bodies.items()}
        torch.set_num_threads(2)
        out = model(**some)
        torch.set_num_threads(1)
        for begin in range(0, 250, 25):  # smplx is at its best with few
            few = slice(begin, begin + 25)
            expected = by_smplx(open_twin(name, side), name, {key: value[few] for key, value in some.items()})
            check(BodyOutput(out.vertices[few], out.joints[few]), expected, 1e-5)


@pytest.mark.parametrize(("name", "side"), MODELS)
def test_doubles_are_smplx_s(name, side):
    model, bodies = load_body_model(name, side=side, dtype=DOUBLE), random_bodies(name, 20, 1, DOUBLE)
    check(model(**bodies), by_smplx(open_twin(name, side, DOUBLE), name, bodies), 1e-10)


def altered(model: str, side: str | None, rng: np.random.Generator, dtype: type = np.float32) -> dict:
    """The open body with every corrective and weight in use, no hand flat, and numbers of `dtype`."""
    arrays = open_arrays(model, side or "neutral")
    for name in ("v_template", "shapedirs", "posedirs"):
        arrays[name] = (arrays[name] + rng.normal(0, 1e-3, arrays[name].shape)).astype(dtype)
    for name in arrays:
        if name.startswith("hands_mean"):
            arrays[name] = rng.normal(0, 0.5, arrays[name].shape).astype(dtype)
    # Weights that add up to 1 but nearly, as those of files that were rounded do.
    spread = rng.dirichlet(np.ones(arrays["weights"].shape[1]), len(arrays["weights"]))
    arrays["weights"] = (spread * 1.0000002).astype(dtype)
    if "lmk_bary_coords" in arrays:
        arrays["lmk_bary_coords"] = (rng.dirichlet(np.ones(3), 51) * 1.0000002).astype(dtype)
    return arrays


def write_model(folder: Path, model: str, side: str | None, arrays: dict[str, np.ndarray]) -> Path:
    place = folder / "files" / model
    place.mkdir(parents=True, exist_ok=True)
    np.savez(place / f"{model}_{side or 'neutral'}.npz".upper().replace("NPZ", "npz"), **arrays)
    if side == "left":  # the right hand says whether the left one's signs are wrong
        write_model(folder, model, "right", open_arrays("mano", "right"))
    return folder / "files"


@pytest.mark.parametrize(
    ("name", "side", "dtype"),
    [
        (*model, dtype)
        for model in MODELS
        for dtype in (torch.float32, DOUBLE)
        if model[0] != "smplx" or dtype == DOUBLE
    ],
)
def test_dense_models_are_smplx_s(name, side, dtype, tmp_path):
    """Every vertex moved by every joint and every corrective; in double precision, numbers that need it."""
    kind = np.float64 if dtype == DOUBLE and name != "smplx" else np.float32  # SMPL-X's would be 120 MB
    arrays = altered(name, side, np.random.default_rng(3), kind)
    model = load_body_model(name, folder=write_model(tmp_path, name, side, arrays), side=side, dtype=dtype)
    bodies = random_bodies(name, 5, 3, dtype)
    layer = twin_of(name, arrays, side, dtype, tmp_path)
    check(model(**bodies), by_smplx(layer, name, bodies), 1e-5 if dtype != DOUBLE else 1e-10)
    assert not model.is_open


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_tree_is_smplx_s(data, tmp_path_factory):
    """MANO with other bones: chains, stars and what is between."""
    folder = tmp_path_factory.mktemp("tree")
    parents = [
        0,
        *(data.draw(st.integers(0, joint - 1), label=f"parent of {joint}") for joint in range(1, 16)),
    ]
    arrays = altered("mano", "right", np.random.default_rng(data.draw(st.integers(0, 99))), np.float64)
    arrays["kintree_table"] = np.array([parents, range(16)])
    place = write_model(folder, "mano", "right", arrays)
    model = load_body_model("mano", folder=place, side="right", dtype=DOUBLE)
    bodies = random_bodies("mano", data.draw(st.integers(1, 3)), 4, DOUBLE)
    check(model(**bodies), by_smplx(twin_of("mano", arrays, "right", DOUBLE, folder), "mano", bodies), 1e-10)


@pytest.mark.parametrize(("name", "side"), [("smpl", None), ("mano", "left"), ("flame", None)])
def test_far_away_bodies_are_as_exact_as_float32(name, side):
    """A hundred metres away: no more off than the last place of the largest coordinate, as smplx is."""
    bodies = random_bodies(name, 4, 3, far=100)
    exact = by_smplx(
        open_twin(name, side, DOUBLE), name, {key: value.double() for key, value in bodies.items()}
    )
    last_place = float(np.spacing(exact.vertices.abs().max().float().numpy()))
    for out in (by_smplx(open_twin(name, side), name, bodies), load_body_model(name, side=side)(**bodies)):
        check(BodyOutput(out.vertices.double(), out.joints.double()), exact, last_place + 2e-6)


# --- batches, and the ways to compute them


@pytest.mark.parametrize("n", [0, 1, 2, 3, 31, 47, 48, 49, 300])
def test_a_row_of_a_batch_is_the_row_alone(n):
    model, bodies = load_body_model("mano", side="left"), random_bodies("mano", n)
    whole = model(**bodies)
    assert whole.vertices.shape == (n, 778, 3)
    assert whole.joints.shape == (n, 16, 3)
    for row in {*range(min(n, 50)), n // 2, n - 1} - {-1} if n else ():
        alone = model(**{key: value[row : row + 1] for key, value in bodies.items()})
        torch.testing.assert_close(alone.vertices[0], whole.vertices[row], rtol=0, atol=4e-6)
        torch.testing.assert_close(alone.joints[0], whole.joints[row], rtol=0, atol=4e-6)


@pytest.mark.parametrize("name", ["smpl", "smplx", "flame"])
def test_many_bodies_are_the_few(name):
    model, bodies = load_body_model(name, dtype=DOUBLE), random_bodies(name, 49, dtype=DOUBLE)
    whole = model(**bodies)
    for first, end in ((0, 1), (1, 4), (4, 49)):
        some = model(**{key: value[first:end] for key, value in bodies.items()})
        torch.testing.assert_close(some.vertices, whole.vertices[first:end], rtol=0, atol=1e-12)
        torch.testing.assert_close(some.joints, whole.joints[first:end], rtol=0, atol=1e-12)


def dense_twin(
    directions: Tensor, weights: Tensor, features: Tensor, transforms: Tensor, shift: Tensor
) -> Tensor:
    rest = torch.einsum("bf,fcv->bvc", features, directions)
    blended = torch.einsum("jv,bjrc->bvrc", weights, transforms)[:, :, :3]
    return (blended[..., :3] @ rest[..., None])[..., 0] + blended[..., 3] + shift[:, None]


def values_and_gradients(of, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    leaves = [value.detach().requires_grad_() for value in inputs]
    out = of(*leaves)
    return out.detach(), *torch.autograd.grad(weighed(out), leaves)


@st.composite
def surfaces(draw):
    """A surface whose blocks lack some features and joints, with its dense arrays and a batch to pose."""
    vertices, block = draw(st.integers(1, 60)), draw(st.integers(1, 20))
    features, joints, batch = draw(st.integers(1, 7)), draw(st.integers(1, 5)), draw(st.integers(1, 6))
    make = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    shapes = ((features, 3, vertices), (joints, vertices))
    directions, weights = (torch.randn(*s, dtype=DOUBLE, generator=make) for s in shapes)
    shapes = ((batch, features), (batch, joints, 4, 4), (batch, 3))
    inputs = [torch.randn(*s, dtype=DOUBLE, generator=make) for s in shapes]
    for rows in (directions, weights):  # each row moves only some neighbouring vertices, or none
        for row in rows:
            first, count = draw(st.integers(0, vertices)), draw(st.integers(0, vertices))
            row[..., :first] = 0
            row[..., first + count :] = 0
    inputs[1][:, :, 3] = torch.tensor([0.0, 0, 0, 1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surface, "_ALIGNED", draw(st.sampled_from([1, 16])))
        of = Surface(directions, weights, block=block)
    return of, directions, weights, inputs


@settings(max_examples=60, deadline=None)
@given(made=surfaces(), few=st.sampled_from([0, 2, 48]), at_once=st.sampled_from([1, 12 * 20, 12 * 131072]))
def test_surfaces_are_the_dense_twin_s(made, few, at_once):
    of, directions, weights, inputs = made
    expected = values_and_gradients(functools.partial(dense_twin, directions, weights), inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surface, "_FEW", few)
        patch.setattr(surface, "_AT_ONCE", at_once)
        found = values_and_gradients(of, inputs)
        torch.testing.assert_close(of(*inputs), expected[0], rtol=0, atol=1e-12)  # no gradient
        plain = surface._posed_plainly(*inputs, tuple(of.blocks))
    torch.testing.assert_close(plain, expected[0], rtol=0, atol=1e-12)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-11)
    for got, want in zip(of.dense(), (directions, weights), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


@settings(max_examples=30, deadline=None)
@given(made=surfaces(), data=st.data())
def test_parts_of_surfaces_are_the_dense_twin_s(made, data):
    of, directions, weights, (features, *inputs) = made
    expected = dense_twin(directions, weights, features, *inputs)
    chosen = data.draw(st.lists(st.integers(0, directions.shape[2] - 1), min_size=1, max_size=50))
    taken = of.take(torch.tensor(chosen))(features, *inputs)
    torch.testing.assert_close(taken, expected[:, chosen], rtol=0, atol=1e-12)
    # Features after the first, which is 1, made part of the surface.
    count = data.draw(st.integers(0, len(directions) - 1))
    fixed = torch.arange(count, dtype=DOUBLE) - 2
    features = features.clone()
    features[:, 0], features[:, 1 : 1 + count] = 1, fixed
    left = torch.cat([features[:, :1], features[:, 1 + count :]], 1)
    expected = dense_twin(directions, weights, features, *inputs)
    torch.testing.assert_close(of.with_features(fixed)(left, *inputs), expected, rtol=0, atol=1e-12)


def test_gradients_of_no_bodies():
    transl = torch.zeros(0, 3, requires_grad=True)
    betas = torch.zeros(0, 10, requires_grad=True)
    load_body_model("mano", side="right")(transl=transl, betas=betas).vertices.sum().backward()
    assert transl.grad.shape == (0, 3)
    assert betas.grad.shape == (0, 10)


def test_every_way_through_a_model_is_the_plain_one(monkeypatch):
    model, bodies = load_body_model("smpl", dtype=DOUBLE), random_bodies("smpl", 5, dtype=DOUBLE)
    features, transforms, _ = (value.detach() for value in model._skeleton(bodies))
    inputs, blocks = (features, transforms, bodies["transl"]), tuple(model._surface.blocks)
    assert len(blocks) > 1
    expected = values_and_gradients(lambda *given: surface._posed_plainly(*given, blocks), inputs)
    for few in (0, 5):
        for at_once in (1, 12 * 2000, 12 * 5 * 6890):
            monkeypatch.setattr(surface, "_FEW", few)
            monkeypatch.setattr(surface, "_AT_ONCE", at_once)
            torch.testing.assert_close(model._surface(*inputs), expected[0], rtol=0, atol=1e-12)
            found = values_and_gradients(model._surface, inputs)
            for got, want in zip(found, expected, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-9)
