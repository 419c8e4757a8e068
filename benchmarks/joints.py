"""Parameters to joints alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.floors import Work, mesh_work, skeleton_work
from benchmarks.grids import NOTHING, Table
from benchmarks.layers import BODY_MODELS, SMPLX, Layer
from benchmarks.options import Options
from benchmarks.posing import Arrays, Case, Task, run_task

TITLE = "Joints only"
TEXT = """\
*Skeleton*: the joints that bones meet in, `model.skeleton(**parameters)`, beside smplx's forward, which
has no way to leave out the mesh, body-models' `forward_skeleton` and smplfitter with
`return_vertices=False`. *All joints*: smplx's own, vertices and landmarks that it counts among them
included, `model.joints(**parameters)`."""

_GOAL = {256: "50, 2"}


def cases(model: str, arrays: Arrays) -> list[Case]:
    """The skeleton, and all joints."""

    def skeleton(layer: Layer, arguments: dict[str, Any]) -> Callable[[], Any] | str:
        return NOTHING if layer.skeleton is None else functools.partial(layer.skeleton, **arguments)

    def joints(layer: Layer, arguments: dict[str, Any]) -> Callable[[], Any] | str:
        return NOTHING if layer.joints is None else functools.partial(layer.joints, **arguments)

    def all_work(batch: int) -> Work:
        bones, points = (
            skeleton_work(arrays, batch),
            mesh_work(arrays, batch, vertices=_landmarks(model, arrays)),
        )
        return Work(bones.bytes + points.bytes, bones.flops + points.flops)

    rows = [Case("skeleton", skeleton, functools.partial(skeleton_work, arrays), _GOAL)]
    if model != "mano":  # smplx's joints are the skeleton's
        rows.append(Case("all joints", joints, all_work, {}))
    return rows


def _landmarks(model: str, arrays: Arrays) -> np.ndarray:
    """As many vertices as smplx's joints beside the skeleton's are made of; any cost the same."""
    corners = 3 * len(arrays["lmk_faces_idx"]) if "lmk_faces_idx" in arrays else 0
    return np.arange({"smpl": 21, "smplx": 21, "flame": 0}[model] + corners)


TASK = Task(TITLE, cases, (256,), ("dense",), against=(SMPLX, BODY_MODELS))


def run(options: Options) -> Iterator[Table]:
    """One table, with dense correctives."""
    yield from run_task(TASK, options)
