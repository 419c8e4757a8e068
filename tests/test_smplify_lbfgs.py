"""Minimisers of many functions at once: L-BFGS and Adam, row by row beside torch's and scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from neuralannot.train.smplify.adam import AdamOptions, minimise_adam
from neuralannot.train.smplify.lbfgs import LbfgsOptions, minimise_lbfgs

TIGHT = LbfgsOptions(iterations=400, gtol=1e-8, xtol=1e-14, atol=1e-14, ftol=0, window=1000)


def rosenbrock(x, rows):
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(1)


def starts(count=3, size=6):
    return 2 * torch.randn(count, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def quadratics(count, size, *, condition, seed=0):
    """`count` functions with known minima (count, size), and an energy that picks them by row."""
    rng = np.random.default_rng(seed)
    turns = np.linalg.qr(rng.normal(size=(count, size, size)))[0]
    spread = np.geomspace(1, condition, size)
    matrices = torch.tensor(turns @ (spread[:, None] * np.swapaxes(turns, 1, 2)))
    least = torch.tensor(rng.normal(size=(count, size)))

    def energy(x, rows):
        off = x - least[rows]
        return 0.5 * torch.einsum("bi,bij,bj->b", off, matrices[rows], off)

    return energy, least


def of_torch(energy, start, history):
    """What torch's optimiser makes of one row: point, value, evaluations."""
    x = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [x],
        max_iter=400,
        max_eval=100_000,
        tolerance_grad=1e-8,
        tolerance_change=1e-14,
        history_size=history,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimiser.zero_grad()
        value = energy(x[None]).sum()
        value.backward()
        return value

    optimiser.step(closure)
    return x.detach(), float(energy(x.detach()[None])), optimiser.state[x]["func_evals"]


@pytest.mark.parametrize("history", [3, 100])
def test_rosenbrock_takes_the_steps_that_torch_takes(history):
    start = starts()
    found = minimise_lbfgs(rosenbrock, start, LbfgsOptions(**{**vars(TIGHT), "history": history}))
    assert found.converged.all()
    for row, one in enumerate(start):
        x, value, evaluations = of_torch(lambda x: rosenbrock(x, None), one, history)
        np.testing.assert_allclose(found.x[row], x, atol=1e-5)
        assert float(found.value[row]) == pytest.approx(value, abs=1e-10)
        # Rounding grows along the way, so that the last few steps may differ.
        assert abs(int(found.evaluations[row]) - evaluations) <= 0.1 * evaluations


def test_rosenbrock_ends_where_scipy_s_does():
    start = starts(count=4, size=2)
    found = minimise_lbfgs(rosenbrock, start, TIGHT)
    for row, one in enumerate(start):
        twin = minimize(
            lambda x: float(rosenbrock(torch.tensor(x)[None], None)[0]),
            one.numpy(),
            method="L-BFGS-B",
            options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
        )
        np.testing.assert_allclose(found.x[row], twin.x, atol=1e-3)
        assert float(found.value[row]) <= twin.fun + 1e-9


def test_a_batch_is_its_rows_alone():
    start = starts(count=3)
    together = minimise_lbfgs(rosenbrock, start, TIGHT)
    for row in range(3):
        alone = minimise_lbfgs(rosenbrock, start[row : row + 1], TIGHT)
        np.testing.assert_allclose(together.x[row], alone.x[0], atol=1e-6)
        assert float(together.value[row]) == pytest.approx(float(alone.value[0]), abs=1e-10)


@settings(max_examples=8, deadline=None)
@given(
    count=st.integers(1, 4),
    size=st.integers(1, 12),
    history=st.integers(3, 20),
    condition=st.sampled_from([1.0, 30.0, 300.0]),
    seed=st.integers(0, 99),
)
def test_quadratics_find_their_minima(count, size, history, condition, seed):
    energy, least = quadratics(count, size, condition=condition, seed=seed)
    options = LbfgsOptions(
        iterations=2000, history=history, gtol=1e-8, xtol=1e-15, atol=1e-18, ftol=0, window=10_000
    )
    found = minimise_lbfgs(energy, torch.zeros(count, size, dtype=torch.float64), options)
    np.testing.assert_allclose(found.x, least, atol=1e-5)
    assert (found.iterations <= found.evaluations).all()


def test_rows_that_are_done_cost_nothing_more():
    energy, least = quadratics(4, 6, condition=1e3)
    asked = []

    def counted(x, rows):
        asked.append(rows.clone())
        return energy(x, rows)

    start = least.clone()
    start[3] += 1  # only the last has a way to go
    found = minimise_lbfgs(counted, start, LbfgsOptions(iterations=50))
    assert found.iterations[:3].tolist() == [0, 0, 0]
    assert all(rows.tolist() == [3] for rows in asked[1:])
    np.testing.assert_allclose(found.x, least, atol=1e-3)


def test_what_is_no_number_is_walked_around():
    def energy(x, rows):  # defined for positive numbers; the first step leads out of them
        return (x - 1e-3 * x.log()).sum(1) + 0 * x.sqrt().sum(1)

    start = torch.tensor([[1.0, 0.5], [2.0, 3.0], [-1.0, 1.0]], dtype=torch.float64)
    found = minimise_lbfgs(energy, start, LbfgsOptions(iterations=200))
    np.testing.assert_allclose(found.x[:2], 1e-3, rtol=1e-3)
    assert found.x[2].tolist() == [-1.0, 1.0]  # begins with none: it stays
    assert not found.converged[2]
    assert torch.isinf(found.value[2])


def test_limits_hold():
    start = starts()
    few = minimise_lbfgs(rosenbrock, start, LbfgsOptions(iterations=3))
    assert (few.iterations == 3).all()
    assert not few.converged.any()
    less = minimise_lbfgs(rosenbrock, start, LbfgsOptions(evaluations=5))
    assert (less.evaluations <= 5 + 25).all()  # a line search is brought to its end
    assert (few.value < rosenbrock(start, None)).all()
    for name in ("iterations", "evaluations", "history", "window", "searches"):
        with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
            LbfgsOptions(**{name: 0})


@pytest.mark.parametrize("minimise", [minimise_lbfgs, minimise_adam])
def test_no_rows_are_no_rows(minimise):
    found = minimise(rosenbrock, torch.zeros(0, 4, dtype=torch.float64))
    assert (found.x.shape, found.value.shape) == ((0, 4), (0,))


def test_adam_finds_minima_and_rows_stop_alone():
    energy, least = quadratics(5, 4, condition=10)
    start = torch.zeros(5, 4, dtype=torch.float64)
    start[0] = least[0]
    options = AdamOptions(iterations=3000, rate=0.05, gtol=1e-6)
    found = minimise_adam(energy, start, options)
    np.testing.assert_allclose(found.x, least, atol=1e-3)
    assert found.iterations[0] == 0
    assert found.converged.all()
    alone = minimise_adam(lambda x, rows: energy(x, rows + 2), start[2:3], options)
    np.testing.assert_allclose(found.x[2], alone.x[0], atol=1e-9)
    with pytest.raises(ValueError, match="rate must be positive"):
        AdamOptions(rate=0)
    with pytest.raises(ValueError, match="window must be 1 or more"):
        AdamOptions(window=0)
