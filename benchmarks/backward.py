"""Parameters to vertices, and the gradients of a loss on these back to every parameter."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.floors import mesh_work
from benchmarks.grids import Table
from benchmarks.layers import BODY_MODELS, SMPLFITTER, SMPLX, VARIANTS, Layer
from benchmarks.options import Options
from benchmarks.posing import Arguments, Arrays, Case, Task, run_task

TITLE = "Forward and backward"
TEXT = """\
The mesh as above, then the gradients of a weighted sum of all vertices with respect to every parameter,
each library's in the form that it takes them. Before anything is timed the gradients of root rotation,
shape and translation must agree."""

# What each library calls root rotation (its first three numbers), shape (its first ten) and translation.
_COMMON = {
    "global_orient": ("global_orient", "pelvis_rotation", "wrist_rotation", "head_rotation", "pose_rotvecs"),
    "betas": ("betas", "shape", "shape_betas"),
    "transl": ("transl", "global_translation", "trans"),
}


def cases(model: str, arrays: Arrays) -> list[Case]:
    """The one row of a model and batch."""
    generator = torch.Generator().manual_seed(1)
    count = len(arrays["v_template"])

    def side(layer: Layer, arguments: dict[str, Any]) -> Callable[[], Any]:
        leaves = [value for value in arguments.values() if value.requires_grad]
        batch, device = len(leaves[0]), leaves[0].device
        weights = torch.randn(batch, count, 3, generator=generator.manual_seed(1)).to(device) / count**0.5
        return lambda: torch.autograd.grad(layer.mesh(**arguments), leaves, weights)

    return [Case("", side, functools.partial(mesh_work, arrays, backward=True), {64: "3"})]


def common_gradients(arguments: Arguments, gradients: tuple[Tensor, ...]) -> Tensor:
    """(B, 16): of root rotation, shape and translation, whatever the library calls them."""
    leaves = [name for name, value in arguments.items() if value.requires_grad]
    found = dict(zip(leaves, gradients, strict=True))
    widths = {"global_orient": 3, "betas": 10, "transl": 3}
    return torch.cat(
        [
            next(found[n] for n in names if n in found).flatten(1)[:, : widths[common]]
            for common, names in _COMMON.items()
        ],
        1,
    )


TASK = Task(
    TITLE,
    cases,
    (64,),
    VARIANTS,
    with_gradients=True,
    look=common_gradients,
    tolerance={SMPLX: 1e-4, BODY_MODELS: 1e-3, SMPLFITTER: 1e-3},
)


def run(options: Options) -> Iterator[Table]:
    """One table with dense correctives, one with those of the open body."""
    yield from run_task(TASK, options)
