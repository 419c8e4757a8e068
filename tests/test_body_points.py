"""Parts of a body model against the whole, and the whole as the module it is: shapes fixed, autocast, copies,
threads, and what one body or one layout of the input must not do to the others.
"""

from __future__ import annotations

import copy
import functools
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from layer_twins import (
    DOUBLE,
    MODELS,
    RIGHT,
    check,
    check_gradients,
    gradients,
    mano,
    random_bodies,
    without_betas,
)
from torch import Tensor

from neuralannot.body_models import JointRegressor, load_body_model

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
BONES = {"smpl": 24, "smplx": 55, "mano": 16, "flame": 5}


# --- a part is the whole's


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (DOUBLE, 1e-12)])
@pytest.mark.parametrize(
    ("name", "side", "n"),
    [(*model, n) for model in MODELS for n in (1, 60) if n == 1 or model[0] in ("smpl", "mano")],
)
def test_joints_and_points_are_the_mesh_s(name, side, n, dtype, atol):
    model, bodies = load_body_model(name, side=side, dtype=dtype), random_bodies(name, n, 1, dtype, far=0.3)
    whole = model(**bodies)
    close = functools.partial(torch.testing.assert_close, rtol=0, atol=atol)
    close(model.joints(**bodies), whole.joints)
    close(model.skeleton(**bodies), whole.joints[:, : BONES[name]])
    rng, last = np.random.default_rng(2), model.num_vertices - 1
    for chosen in ([last, 0, 5, 0, 0, last, 3], [7], np.arange(last, 0, -3), rng.integers(0, last, 2000)):
        points = model.points(chosen)
        assert len(points) == len(chosen)
        close(points(**bodies), whole.vertices[:, torch.tensor(chosen)])
    few = np.zeros((4, last + 1))
    few[[0, 1, 1, 3], [last, 0, 7, 5]] = [1, 0.25, 0.75, -2]  # and one row of zeros
    dense = rng.dirichlet(np.ones(last + 1), 3)
    for weights in (few, dense):
        points = model.points(JointRegressor(weights, tuple("abcd"[: len(weights)])))
        assert len(points) == len(weights)
        close(points(**bodies), torch.tensor(weights.astype(np.float32)).to(dtype) @ whole.vertices)


@pytest.mark.parametrize(("name", "side"), RIGHT)
def test_gradients_of_parts_are_the_mesh_s(name, side):
    model, bodies = load_body_model(name, side=side, dtype=DOUBLE), random_bodies(name, 3, 3, DOUBLE)
    expected = gradients(lambda given: model(**given).joints, bodies)
    check_gradients(gradients(lambda given: model.joints(**given), bodies), expected, 1e-10)
    chosen, weights = [600, 2, 77, 2], np.random.default_rng(4).dirichlet(np.ones(model.num_vertices), 2)
    expected = gradients(lambda given: model(**given).vertices[:, chosen], bodies)
    points = model.points(chosen)
    check_gradients(gradients(lambda given: points(**given), bodies), expected, 1e-10)
    weights = weights.astype(np.float32)
    expected = gradients(lambda given: torch.tensor(weights).double() @ model(**given).vertices, bodies)
    points = model.points(JointRegressor(weights, ("a", "b")))
    check_gradients(gradients(lambda given: points(**given), bodies), expected, 1e-10)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("of", [[], np.zeros(0, int), JointRegressor(np.zeros((2, 778)), ("a", "b"))])
def test_points_that_no_vertex_moves(of, trained):
    bodies = {key: value.requires_grad_(trained) for key, value in random_bodies("mano", 3).items()}
    points = mano().points(of)
    out = points(**bodies)
    assert out.shape == (3, len(points), 3)
    assert not out.any()


def test_points_that_are_not_there():
    model = mano()
    for vertices, wrong in (([0, 778], 778), ([-1], -1), ([3, 10**9], 10**9)):
        with pytest.raises(IndexError, match=f"vertex {wrong}: mano has 778"):
            model.points(vertices)
    for width in (777, 6890):
        with pytest.raises(ValueError, match=re.escape(f"must be (K, 778), got (1, {width})")):
            model.points(JointRegressor(np.ones((1, width)), ("a",)))
    for strange in ([0.5], [[1, 2]], np.ones(778, bool), np.ones((2, 778), np.float32), 3):
        with pytest.raises(ValueError, match="vertices must be a list of numbers, got "):
            model.points(strange)
    with pytest.raises(ValueError, match="mano has no body_pose; it has global_orient, hand_pose"):
        model.points([1])(body_pose=torch.zeros(1, 63))


# --- one shape


@pytest.mark.parametrize(
    ("name", "side", "dtype", "atol"),
    [*((*model, DOUBLE, 1e-12) for model in MODELS), ("smpl", None, torch.float32, 2e-6)],
)
def test_a_shape_once_is_the_shape_every_time(name, side, dtype, atol):
    model, bodies = load_body_model(name, side=side, dtype=dtype), random_bodies(name, 3, 5, dtype, far=0.3)
    betas = bodies["betas"][1]
    before = model(**bodies)
    shaped, rest = model.with_shape(betas), without_betas(bodies)
    same = rest | {"betas": betas.expand(3, 10)}
    check(shaped(**rest), model(**same), atol)
    close = functools.partial(torch.testing.assert_close, rtol=0, atol=atol)
    close(shaped.joints(**rest), model.joints(**same))
    close(shaped.skeleton(**rest), model.skeleton(**same))
    for of in ([5, 700, 5], JointRegressor(np.eye(2, model.num_vertices), ("a", "b"))):
        close(shaped.points(of)(**rest), model.points(of)(**same))
    close(shaped.v_template, model.v_template + model.shapedirs[:, :, :10] @ betas)
    assert shaped.shapedirs.shape == (model.num_vertices, 3, model.shapedirs.shape[2] - 10)
    for kept in ("model", "side", "gender", "source", "joint_names", "is_open", "num_vertices"):
        assert getattr(shaped, kept) == getattr(model, kept)
    # (1, 10) is one shape too; the model itself is as it was.
    check(model.with_shape(betas[None])(**rest), shaped(**rest), 0)
    check(model(**bodies), before, 0)


@pytest.mark.parametrize(("name", "side"), RIGHT)
def test_gradients_under_one_shape(name, side):
    model, bodies = load_body_model(name, side=side, dtype=DOUBLE), random_bodies(name, 2, 6, DOUBLE)
    betas = bodies["betas"][:1].requires_grad_()
    shaped = model.with_shape(betas)
    expected = gradients(lambda given: model(**given, betas=betas.expand(2, 10)), without_betas(bodies))
    betas.grad = None
    check_gradients(gradients(lambda given: shaped(**given), without_betas(bodies)), expected, 1e-10)
    assert betas.grad is None
    assert not any(value.requires_grad for value in shaped.buffers())
    assert not list(shaped.parameters())


def test_a_shape_is_given_once():
    model, betas = mano(), torch.ones(10)
    shaped = model.with_shape(betas)
    for of in (shaped, shaped.joints, shaped.skeleton, shaped.points([1])):
        with pytest.raises(ValueError, match="betas are part of a model with_shape made"):
            of(betas=betas[None], transl=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="has a shape already"):
        shaped.with_shape(betas)
    for wrong in (torch.zeros(2, 10), torch.zeros(11), torch.zeros(()), torch.zeros(1, 1, 10)):
        with pytest.raises(ValueError, match=r"betas must be \(10,\), one person's, got"):
            model.with_shape(wrong)
    betas.zero_()  # the model has numbers of its own
    assert (shaped(transl=torch.zeros(1, 3)).vertices - model(betas=betas[None]).vertices).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "side"), RIGHT)
def test_rest_root_under_one_shape(name, side):
    model, bodies = load_body_model(name, side=side), random_bodies(name, 3)
    with pytest.raises(ValueError, match="has a shape already; ask the one that it was made from"):
        model.with_shape(bodies["betas"][0]).rest_root(bodies["betas"])


def test_a_shape_is_on_its_model_s_device():
    """Seen without an accelerator: new buffers follow the model's, whatever the default device is."""
    model = mano()
    with torch.device("meta"):
        shaped = model.with_shape(torch.zeros(10, device="cpu"))
    assert {value.device.type for value in shaped.buffers()} == {"cpu"}


def test_a_shape_made_in_inference_mode_can_be_trained_with():
    with torch.inference_mode():
        shaped = mano().with_shape(torch.ones(10))
    bodies = {"hand_pose": torch.full((1, 15, 3), 0.1)}
    found, expected = (
        gradients(lambda leaves, of=of: of(**leaves), bodies)
        for of in (shaped, mano().with_shape(torch.ones(10)))
    )
    check_gradients(found, expected, rtol=0)


# --- precision


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "side"), RIGHT)
def test_autocast_changes_nothing(name, side, half):
    model = load_body_model(name, side=side)
    dense = JointRegressor(np.random.default_rng(0).dirichlet(np.ones(model.num_vertices), 2), ("a", "b"))
    for n in (2, 60):
        bodies = random_bodies(name, n)
        for of in (model, model.joints, model.skeleton, model.points([1, 2, 3]), model.points(dense)):
            expected = of(**bodies)
            with torch.autocast("cpu", dtype=half):
                out = of(**bodies)
            if isinstance(out, Tensor):
                assert out.dtype == torch.float32
                assert torch.equal(out, expected)
            else:
                check(out, expected, 0)
    leaves = random_bodies(name, 2)
    expected = gradients(lambda given: model(**given), leaves)

    def cast(given):
        with torch.autocast("cpu", dtype=half):
            return model(**given)

    check_gradients(gradients(cast, leaves), expected, 0)


@pytest.mark.parametrize(("name", "side"), [("smpl", None), ("mano", "right")])
def test_backward_within_autocast(name, side):
    """torch advises against it, many do it: at the least it runs, at the surface in full precision."""
    model, bodies = load_body_model(name, side=side), random_bodies(name, 2)
    features, transforms, _ = (value.detach() for value in model._skeleton(model._skeleton.check(bodies)))

    def of(given):
        return model._surface(**given)

    inputs = {"features": features, "transforms": transforms, "shift": bodies["transl"]}
    expected = gradients(of, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients(of, inputs)
    check_gradients(found, expected, 1e-5)


def test_a_shape_under_autocast():
    betas = random_bodies("mano", 1)["betas"][0]
    expected = mano().with_shape(betas).v_template
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mano().with_shape(betas).v_template, expected)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_rest_root_is_in_the_model_s_precision(dtype):
    betas = random_bodies("mano", 2)["betas"]
    expected = mano().rest_root(betas)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mano().rest_root(betas.to(dtype)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, DOUBLE, torch.int64])
def test_parameters_are_taken_in_the_model_s_dtype(dtype):
    bodies = {key: value.to(dtype) for key, value in random_bodies("mano", 2).items()}
    for kind in (torch.float32, DOUBLE):
        model = mano(kind)
        out, expected = model(**bodies), model(**{key: value.to(kind) for key, value in bodies.items()})
        assert out.vertices.dtype == out.joints.dtype == kind
        check(out, expected, 0)


# --- a module among others


@pytest.mark.parametrize("way", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_the_model(way):
    model, bodies = load_body_model("flame"), random_bodies("flame", 3)
    expected, points = model(**bodies), model.points([9, 8])
    twin, less = way(model), way(points)
    check(twin(**bodies), expected, 0)
    assert torch.equal(less(**bodies), points(**bodies))
    shaped = model.with_shape(bodies["betas"][0])
    check(way(shaped)(**without_betas(bodies)), shaped(**without_betas(bodies)), 0)
    check_gradients(
        gradients(lambda given: twin(**given), bodies), gradients(lambda given: model(**given), bodies), 0
    )
    for value in twin.buffers():
        value.zero_()
    check(model(**bodies), expected, 0)
    check(load_body_model("flame")(**bodies), expected, 0)  # nor is what was read from the file changed


@pytest.mark.parametrize(("name", "side"), RIGHT)
def test_double_is_the_model(name, side):
    model, bodies = load_body_model(name, side=side), random_bodies(name, 2, dtype=DOUBLE, far=0.3)
    out = copy.deepcopy(model).double()(**bodies)
    assert out.vertices.dtype == out.joints.dtype == DOUBLE
    exact = load_body_model(name, side=side, dtype=DOUBLE)(**bodies)
    check(out, exact, 1e-6)


def test_shapes_alone():
    model = mano().to("meta")
    out = model(transl=torch.zeros(5, 3, device="meta"))
    assert (out.vertices.shape, out.vertices.device.type) == ((5, 778, 3), "meta")


@pytest.mark.parametrize("moved", ["points", "model"])
def test_parts_move_alone(moved):
    model, bodies = mano(), random_bodies("mano", 2, far=0.3)
    modules = {"points": model.points([5, 700]), "model": model}
    expected = modules["points"](**bodies)
    modules[moved].double()
    torch.testing.assert_close(modules["points"](**bodies).float(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(model(**bodies).vertices[:, [5, 700]].float(), expected, rtol=0, atol=1e-6)


def test_threads_do_not_meet():
    model = load_body_model("smpl", dtype=DOUBLE)
    batches = [random_bodies("smpl", 1 + k % 5, k, DOUBLE) for k in range(12)]

    def one(bodies):
        return model(**bodies), model.joints(**bodies), gradients(lambda given: model(**given), bodies)

    expected = [one(bodies) for bodies in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, batches))
    for (out, joints, grads), (want, want_joints, want_grads) in zip(found, expected, strict=True):
        check(out, want, 1e-12)
        torch.testing.assert_close(joints, want_joints, rtol=0, atol=1e-12)
        check_gradients(grads, want_grads, 1e-12)


@pytest.mark.parametrize("n", [5, 60])
@pytest.mark.parametrize("key", ["body_pose", "betas", "transl"])
def test_nan_stays_in_its_body(key, n):
    model, bodies = load_body_model("smpl"), random_bodies("smpl", n)
    others = [row for row in range(n) if row != 2]
    spoilt = bodies | {key: bodies[key].clone()}
    spoilt[key][2] = torch.nan
    out, expected = model(**spoilt), model(**bodies)
    for name in ("vertices", "joints"):
        assert torch.equal(getattr(out, name)[others], getattr(expected, name)[others])
        assert getattr(out, name)[2].isnan().any()
    found = gradients(lambda given: model(**given).vertices[others], spoilt)
    expected = gradients(lambda given: model(**given).vertices[others], bodies)
    for name, grad in found.items():
        assert grad[others].isfinite().all()
        torch.testing.assert_close(grad[others], expected[name][others], rtol=0, atol=0)


@pytest.mark.parametrize("n", [4, 60])
def test_inputs_in_any_layout(n):
    model, bodies = load_body_model("smpl"), random_bodies("smpl", n)
    bodies["betas"], bodies["transl"] = bodies["betas"][:1].expand(n, 10), torch.ones(1, 1).expand(n, 3)
    plain = {key: value.contiguous() for key, value in bodies.items()}
    expected = model(**plain)
    pose = bodies["body_pose"]
    wide = torch.stack([pose, pose + 1], 1).flatten(0, 1)
    for strange in (
        pose.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        wide[::2],
        torch.cat([pose, pose], 2)[:, :, :3],
        pose.flatten(1).T.contiguous().T,
    ):
        assert not strange.is_contiguous()
        given = bodies | {"body_pose": strange}
        before = {key: value.clone() for key, value in given.items()}
        check(model(**given), expected, 0)
        assert torch.equal(model.joints(**given), model.joints(**plain))
        assert all(torch.equal(given[key], before[key]) for key in given)  # arguments are left alone
    one = torch.zeros(1, 10, requires_grad=True)
    weigh = torch.rand(3, 6890, n).permute(2, 1, 0)
    (model(**(plain | {"betas": one.expand(n, 10)})).vertices * weigh).sum().backward()
    many = torch.zeros(n, 10, requires_grad=True)
    (model(**(plain | {"betas": many})).vertices * weigh.contiguous()).sum().backward()
    torch.testing.assert_close(one.grad, many.grad.sum(0, keepdim=True), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(half):
    for module in (mano().to(half), mano().points([3]).to(half)):
        with pytest.raises(TypeError, match="off by millimetres; keep it in float32"):
            module(transl=torch.zeros(1, 3))


def test_what_is_made_in_inference_mode_can_be_trained_with():
    with torch.inference_mode():
        made = mano(), mano().points([5, 700]), mano().points(JointRegressor(np.ones((2, 778)), ("a", "b")))
    for module in made:
        pose = torch.zeros(1, 15, 3, requires_grad=True)
        out = module(hand_pose=pose)
        (out if isinstance(out, torch.Tensor) else out.vertices).sum().backward()
        assert pose.grad.abs().max() > 0


def test_a_regressor_is_what_it_was_made_of():
    weights = np.ones((2, 778), np.float32)
    regressor = JointRegressor(weights, ("a", "b"))
    weights[:] = 0
    assert regressor == JointRegressor(np.ones((2, 778)), ("a", "b"))
    assert regressor != JointRegressor(weights, ("a", "b"))
    with pytest.raises(ValueError, match="read-only"):
        regressor.weights[0, 0] = 2


def test_parameters_may_be_leaves_of_a_module():
    model = mano()
    transl = torch.nn.Parameter(torch.ones(2, 3))
    model(transl=transl).vertices.sum().backward()
    torch.testing.assert_close(transl.grad, torch.full((2, 3), 778.0))
