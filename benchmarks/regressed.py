"""Parameters to the joints of a regressor, which is what networks are trained and compared on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.floors import mesh_work
from benchmarks.grids import NOTHING, Table
from benchmarks.layers import SMPLX, Layer, quietly
from benchmarks.options import Options
from benchmarks.posing import Arrays, Case, Task, run_task

TITLE = "Regressed joints"
TEXT = """\
Human3.6M's 17 joints as weighted sums of posed vertices: `model.points(regressor)` beside smplx's forward
and a product with the whole regressor, and body-models' `forward_points`. The regressor is the open
body's own `human36m-17`; a row says how many vertices it has weights for (the usual one for official
SMPL: 101)."""

REGRESSOR = "human36m-17"


def weights_of(model: str) -> np.ndarray:
    """(17, V) float32 of the open body."""
    from neuralannot import load_body_model
    from neuralannot.body_models import joint_regressor

    with quietly():
        return joint_regressor(REGRESSOR, load_body_model(model)).weights


def cases(model: str, arrays: Arrays) -> list[Case]:
    """The one row of a model and batch."""
    weights = weights_of(model)
    touched = np.flatnonzero((weights != 0).any(0))

    def side(layer: Layer, arguments: dict[str, Any]) -> Callable[[], Any] | str:
        if layer.points is None:
            return NOTHING
        return functools.partial(layer.points(weights), **arguments)

    work = functools.partial(mesh_work, arrays, vertices=touched)
    return [Case(f"{len(touched)} vertices", side, work, {256: "25"})]


TASK = Task(TITLE, cases, (256,), ("dense",), models=("smpl", "smplx"), against=(SMPLX, "body-models"))


def run(options: Options) -> Iterator[Table]:
    """One table, with dense correctives."""
    yield from run_task(TASK, options)
