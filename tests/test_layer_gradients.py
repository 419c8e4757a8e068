"""Gradients of the body models, by autograd and by function transforms, and the models compiled."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from layer_twins import (
    DOUBLE,
    MODELS,
    RIGHT,
    by_smplx,
    check,
    check_gradients,
    gradients,
    mano,
    open_twin,
    random_bodies,
    turned_by,
    weighed,
    without_betas,
)
from torch import Tensor

from neuralannot.body_models import load_body_model, surface
from neuralannot.body_models.surface import Surface

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

# --- gradients


@pytest.mark.parametrize(
    ("name", "side", "n"), [*((name, side, 2) for name, side in MODELS), ("mano", "right", 50)]
)
def test_gradients_are_smplx_s(name, side, n):
    model, bodies = load_body_model(name, side=side, dtype=DOUBLE), random_bodies(name, n, 6, DOUBLE)
    layer = open_twin(name, side, DOUBLE)
    expected = gradients(lambda given: by_smplx(layer, name, given), bodies)
    assert expected.keys() == bodies.keys()
    check_gradients(gradients(lambda given: model(**given), bodies), expected, 1e-8)
    # In single precision too, as far as it goes.
    single = load_body_model(name, side=side)
    found = gradients(lambda given: single(**given), {k: v.float() for k, v in bodies.items()})
    check_gradients({k: v.double() for k, v in found.items()}, expected, 1e-4)


@pytest.mark.parametrize(("name", "side"), RIGHT)
def test_gradients_of_one_parameter_alone(name, side):
    model, bodies = load_body_model(name, side=side, dtype=DOUBLE), random_bodies(name, 2, 7, DOUBLE)
    for call in (lambda given: model(**given), lambda given: model.joints(**given)):
        whole = gradients(call, bodies)
        for key in bodies:
            check_gradients(gradients(call, bodies, only=key), {key: whole[key]}, 1e-12)


ANGLES = [0.0, 1e-7, 0.9, np.pi - 1e-3, np.pi, np.pi + 1e-3]


def ways(model) -> dict[str, Any]:
    """What can be asked of a model, as functions to a few numbers."""
    make = torch.Generator().manual_seed(0)
    points = model.points([5, 100, 700, 100])

    def few(of):
        shape = of(transl=torch.zeros(1, 3, dtype=DOUBLE)).shape
        mix = torch.randn(3, shape[1] * 3, dtype=DOUBLE, generator=make)
        return lambda **given: of(**given).flatten(1) @ mix.T

    return {
        "vertices": few(lambda **given: model(**given).vertices),
        "joints": few(model.joints),
        "skeleton": few(model.skeleton),
        "points": few(points),
    }


@pytest.mark.parametrize(
    ("name", "side", "angle"),
    [
        (*model, angle)
        for model in RIGHT
        for angle in (ANGLES if model[0] in ("mano", "flame") else ANGLES[::2])
    ],
)
def test_gradcheck(name, side, angle):
    model, bodies = load_body_model(name, side=side, dtype=DOUBLE), turned_by(name, angle)
    names = list(bodies)
    inputs = [bodies[key].requires_grad_() for key in names]
    for way in ways(model).values():
        assert torch.autograd.gradcheck(
            lambda *given, way=way: way(**dict(zip(names, given, strict=True))),
            inputs,
            fast_mode=name != "mano",
            atol=1e-5,
            rtol=1e-5,
        )


@pytest.mark.parametrize(
    "needs", [(True,) * 3, (True, False, False), (False, True, False), (False, True, True)]
)
def test_gradients_of_gradients(needs, monkeypatch):
    monkeypatch.setattr(surface, "_ALIGNED", 1)  # two blocks
    make = torch.Generator().manual_seed(3)
    shapes = ((3, 3, 8), (2, 8), (2, 3), (2, 2, 4, 4), (2, 3))
    directions, weights, *inputs = (torch.randn(*s, dtype=DOUBLE, generator=make) for s in shapes)
    directions[1, :, :4] = weights[0, 4:] = 0
    of = Surface(directions, weights, block=4)
    inputs = [value.requires_grad_(need) for value, need in zip(inputs, needs, strict=True)]
    assert len(of.blocks) == 2
    every = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(of, inputs, **every)
    assert torch.autograd.gradgradcheck(of, inputs, check_fwd_over_rev=True, check_rev_over_rev=True)


def test_second_derivatives_are_smplx_s():
    bodies = random_bodies("mano", 3, 8, DOUBLE)
    model, layer = load_body_model("mano", side="left", dtype=DOUBLE), open_twin("mano", "left", DOUBLE)

    def curvature(of) -> dict[str, Tensor]:
        leaves = {key: value.clone().requires_grad_() for key, value in bodies.items()}
        out = of(leaves)
        loss = weighed(out.vertices.square(), out.joints.square())
        first = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), list(leaves.values()))
        return dict(zip(leaves, second, strict=True))

    expected = curvature(lambda given: by_smplx(layer, "mano", given))
    check_gradients(curvature(lambda given: model(**given)), expected, 1e-8)


# --- transforms and compilers


@pytest.mark.parametrize("key", ["global_orient", "hand_pose", "betas", "transl"])
def test_function_transforms_are_autograd_s(key):
    model, bodies = mano(DOUBLE), random_bodies("mano", 1, 7, DOUBLE)
    points = model.points([5, 700])

    def of(value: Tensor) -> Tensor:
        given = bodies | {key: value}
        return torch.cat([model(**given).vertices[0, :2], model.joints(**given)[0, 5:7], points(**given)[0]])

    expected = torch.autograd.functional.jacobian(of, bodies[key])
    assert expected.abs().max() > 1e-3
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(transform(of)(bodies[key]), expected, rtol=0, atol=1e-12)
    curved = torch.autograd.functional.hessian(lambda value: of(value).square().sum(), bodies[key])
    found = torch.func.hessian(lambda value: of(value).square().sum())(bodies[key])
    torch.testing.assert_close(found, curved, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("key", ["global_orient", "hand_pose", "betas", "transl"])
def test_vmap_over_one_parameter(key):
    model, bodies = mano(DOUBLE), random_bodies("mano", 4, 8, DOUBLE)
    fixed = {name: value[:1] for name, value in bodies.items()}
    found = torch.func.vmap(lambda value: model(**(fixed | {key: value[None]})).vertices[0])(bodies[key])
    spread = {name: value.expand(4, *value.shape[1:]) for name, value in fixed.items()} | {key: bodies[key]}
    torch.testing.assert_close(found, model(**spread).vertices, rtol=0, atol=1e-12)


def test_vmap_over_bodies():
    model, bodies = mano(DOUBLE), random_bodies("mano", 4, 8, DOUBLE)
    found = torch.func.vmap(lambda given: model.joints(**{k: v[None] for k, v in given.items()})[0])(bodies)
    torch.testing.assert_close(found, model.joints(**bodies), rtol=0, atol=1e-12)


@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
def test_vectorized_jacobians(strategy):
    """torch.autograd's own transforms, which do not say that they are at work."""
    model, pose = mano(DOUBLE), random_bodies("mano", 1, 9, DOUBLE)["hand_pose"]
    expected = torch.autograd.functional.jacobian(lambda x: model(hand_pose=x).vertices[0, :3], pose)
    found = torch.autograd.functional.jacobian(
        lambda x: model(hand_pose=x).vertices[0, :3], pose, vectorize=True, strategy=strategy
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_without_gradients():
    model, bodies = mano(), {key: value.requires_grad_() for key, value in random_bodies("mano", 3).items()}
    expected = model(**bodies)
    assert expected.vertices.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            out = model(**bodies)
            assert not out.vertices.requires_grad
            assert not model.joints(**bodies).requires_grad
            check(out, expected, 1e-6)


@pytest.fixture
def compiler():
    torch._dynamo.reset()
    yield functools.partial(torch.compile, fullgraph=True)  # a graph break is an error
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("name", "side", "backend"),
    [
        ("smpl", None, "eager"),
        ("smplx", None, "eager"),
        ("mano", "right", "aot_eager"),
        ("flame", None, "aot_eager"),
    ],
)
def test_a_compiled_model_is_the_model(name, side, backend, compiler):
    model, bodies = load_body_model(name, side=side, dtype=DOUBLE), random_bodies(name, 7, 10, DOUBLE)
    compiled = compiler(model, backend=backend, dynamic=False)
    outputs = []

    def keep(given):
        outputs.append(compiled(**given))
        return outputs[0]

    check_gradients(gradients(keep, bodies), gradients(lambda given: model(**given), bodies), 1e-9)
    check(outputs[0], model(**bodies), 1e-12)


def test_a_batch_of_another_size_is_not_compiled_again(compiler):
    model = mano(DOUBLE)
    shaped, points = model.with_shape(torch.ones(10)), model.points([3, 600, 3])
    for of in (model.joints, points, shaped):
        torch._dynamo.reset()
        compiled = compiler(of, backend="eager", dynamic=True)
        for n, again in ((7, True), (12, False), (31, False)):
            bodies = random_bodies("mano", n, n, DOUBLE)
            bodies = without_betas(bodies) if of is shaped else bodies
            with torch._dynamo.config.patch(error_on_recompile=not again):
                got = compiled(**bodies)
            want = of(**bodies)
            pairs = [(got, want)] if isinstance(got, Tensor) else [(got.vertices, want.vertices)]
            for one, other in pairs:
                torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_compiled_under_autocast(compiler):
    model, bodies = mano(), random_bodies("mano", 7)
    compiled = compiler(model, backend="eager", dynamic=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check(compiled(**bodies), model(**bodies), 1e-6)
