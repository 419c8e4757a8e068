"""Parameters to the vertices of the whole mesh."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.floors import mesh_work
from benchmarks.grids import Table
from benchmarks.layers import VARIANTS, Layer
from benchmarks.options import Options
from benchmarks.posing import Arrays, Case, Task, run_task

TITLE = "Full mesh"
TEXT = """\
Vertices of the whole mesh in float32, without gradients: `model(**parameters)` of `load_body_model`
beside smplx's layer, body-models' `forward_vertices` and smplfitter's `BodyModel`, all on the same arrays
and the same random parameters. Before anything is timed the vertices must agree with smplx's within 1e-5
m, the others' with ours within 1e-4 m. Ours and smplx's calls give the joints too."""

_GOALS = {"smpl": "5", "smplx": "4", "mano": "4", "flame": "4"}


def cases(model: str, arrays: Arrays) -> list[Case]:
    """The one row of a model and batch."""

    def side(layer: Layer, arguments: dict[str, Any]) -> Callable[[], Any]:
        return functools.partial(layer.mesh, **arguments)

    return [Case("", side, functools.partial(mesh_work, arrays), {256: _GOALS[model], 1: "3"})]


TASK = Task(TITLE, cases, (1, 256), VARIANTS)


def run(options: Options) -> Iterator[Table]:
    """One table with dense correctives, one with those of the open body."""
    yield from run_task(TASK, options)
