"""What a call for the whole mesh is made of: each step alone, beside the whole call and smplx's."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.grids import NOTHING, Table
from benchmarks.layers import SMPLX, TITLES, Layer, layers_of, quietly, random_parameters, write_model
from benchmarks.options import Options, say
from benchmarks.timing import alternate, duration, machine, times_faster
from neuralannot.body_models import BodyModel, load_body_model, surface

TITLE = "What bounds the mesh"
TEXT = """\
The steps of one call, each timed alone on what the others made, with dense correctives. *Correctives*: the
products of features and directions, done by the linear algebra that torch comes with; *transforms*: those
of the joints' transforms and skinning weights; *applied*: three multiplications and additions a
coordinate; *written*: from coordinates apart to (B, V, 3). The last columns are what smplx's whole call
takes, and how many times as long as our two products alone: no way of calling torch for the same products
could be faster than that. Bodies innermost instead of vertices take the same time for the products, and
more for the rest. The second table adds the products of the gradients: to the unposed vertices, on to the
features, and to the transforms; multiplications between them, fresh memory and autograd's own are not in
it."""

STEPS = ("skeleton", "correctives", "transforms", "applied", "written")
PRODUCTS = ("correctives", "transforms")
BACK_STEPS = (
    "skeleton, both ways",
    *PRODUCTS,
    "to unposed",
    "to features",
    "to transforms",
)
BACK_PRODUCTS = BACK_STEPS[1:]


def run(options: Options) -> Iterator[Table]:
    """Two tables with dense correctives: vertices alone, and with the gradients."""
    device = options.device or "cpu"
    columns = ("", *STEPS, "whole call", SMPLX, "smplx over both products")
    back_columns = ("", *BACK_STEPS, "whole call", SMPLX, "smplx over all products")
    table = Table(f"{TITLE}, dense correctives", columns, machine(device))
    back = Table("What bounds forward and backward, dense correctives", back_columns, machine(device))
    for model in options.chosen():
        say(f"{TITLE}: {TITLES[model]}")
        with tempfile.TemporaryDirectory() as folder, quietly():
            layers = layers_of(Path(folder), model, write_model(Path(folder), model, "dense"), device)
            side = "right" if model == "mano" else None
            ours = load_body_model(model, folder=folder, side=side).to(device)
        other = layers[SMPLX]
        assert isinstance(other, Layer)
        for batch in options.batches((1, 256)):
            parameters = random_parameters(model, batch, device)
            with torch.no_grad():
                sides = steps_of(ours, parameters)
                sides["whole call"] = functools.partial(ours, **parameters)
                sides[SMPLX] = functools.partial(other.mesh, **other.arguments(parameters))
                seconds = alternate(sides, repeats=options.repeated(9), device=device).seconds
            _add(table, f"{TITLES[model]}, batch {batch}", seconds, PRODUCTS)
        for batch in options.batches((64,)):
            parameters = random_parameters(model, batch, device)
            sides = back_steps_of(ours, parameters)
            sides["whole call"] = functools.partial(_both_ways, ours, parameters)
            sides[SMPLX] = functools.partial(_both_ways, other.mesh, other.arguments(parameters))
            seconds = alternate(sides, repeats=options.repeated(9), device=device).seconds
            _add(back, f"{TITLES[model]}, batch {batch}", seconds, BACK_PRODUCTS)
    yield table
    yield back


def _add(table: Table, title: str, seconds: Mapping[str, list[float]], products: Sequence[str]) -> None:
    """A row of these times, the last cell smplx's over those of the products."""
    sums = [sum(some) for some in zip(*(seconds[name] for name in products), strict=True)]
    ratios = [a / b for a, b in zip(seconds[SMPLX], sums, strict=True)]
    cells = [duration(seconds[name]) if name in seconds else NOTHING for name in table.columns[1:-1]]
    table.add(title, *cells, times_faster(ratios))


def _both_ways(mesh: Callable[..., Any], parameters: Mapping[str, Tensor]) -> object:
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    made = mesh(**leaves)
    vertices = getattr(made, "vertices", made)
    return torch.autograd.grad(vertices.sum(), list(leaves.values()))


def back_steps_of(model: BodyModel, parameters: dict[str, Tensor]) -> dict[str, Callable[[], object]]:
    """The steps of `model(**parameters)` and of its gradients, the mesh's without what is in between."""
    skeleton, mesh = model._skeleton, model._surface
    with torch.no_grad():
        forward = steps_of(model, parameters)
        features, transforms, _ = skeleton(skeleton.check(parameters))
    batch, blocks = len(features), mesh.parts
    widest = max(block.weights.shape[1] for block in blocks)
    columns = surface._columns(transforms)
    turning = surface._pick(columns[:, :3].transpose(1, 2), 0, None).reshape(len(columns), -1)
    room = features.new_empty(12 * widest * batch).uniform_()

    def both_ways() -> object:
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        some, chained, _ = skeleton(skeleton.check(leaves))
        return torch.autograd.grad(some.sum() + chained.sum(), list(leaves.values()), allow_unused=True)

    def to_unposed() -> None:
        for block in blocks:
            moving = surface._pick(turning, 0, block.joints)
            torch.mm(
                moving.T, block.weights, out=room[: 9 * batch * block.weights.shape[1]].view(9 * batch, -1)
            )

    def to_features() -> None:
        for block in blocks:
            n = block.weights.shape[1]
            torch.mm(block.directions.flatten(1), room[: 3 * batch * n].view(batch, 3 * n).T)

    def to_transforms() -> None:
        for block in blocks:
            n = block.weights.shape[1]
            torch.mm(block.weights, room[: 12 * batch * n].view(12 * batch, n).T)

    steps = (
        both_ways,
        forward["correctives"],
        forward["transforms"],
        to_unposed,
        to_features,
        to_transforms,
    )
    return dict(zip(BACK_STEPS, steps, strict=True))


def steps_of(model: BodyModel, parameters: dict[str, Tensor]) -> dict[str, Callable[[], object]]:
    """Each step of `model(**parameters)` without gradients, block by block, on what the one before made."""
    skeleton, mesh = model._skeleton, model._surface
    values = skeleton.check(parameters)
    features, transforms, _ = skeleton(values)
    batch, blocks = len(features), mesh.parts
    picked = [surface._pick(features, 1, block.features) for block in blocks]
    rests = [surface._unposed(some, block.directions) for some, block in zip(picked, blocks, strict=True)]
    widest = max(block.weights.shape[1] for block in blocks)
    chunks = surface._some_at_a_time(surface._columns(transforms), max(1, surface._AT_ONCE // (12 * widest)))
    room = features.new_empty(12 * widest * chunks[0][1])
    out = features.new_empty(batch, mesh.num_vertices, 3)

    def pieces() -> Iterator[tuple[int, int, int, int]]:
        """Block, its first vertex, first body, bodies."""
        begin = 0
        for number, block in enumerate(blocks):
            for first, bodies, _ in chunks:
                yield number, begin, first, bodies
            begin += block.weights.shape[1]

    def correctives() -> None:
        for some, block in zip(picked, blocks, strict=True):
            surface._unposed(some, block.directions)

    def blended() -> None:
        for block in blocks:
            n = block.weights.shape[1]
            for _, bodies, columns in chunks:
                moving = surface._pick(columns, 0, block.joints)
                torch.mm(moving.T, block.weights, out=room[: 12 * bodies * n].view(-1, n))

    def applied() -> None:
        for number, _, first, bodies in pieces():
            n = rests[number].shape[2]
            surface._applied(room[: 12 * bodies * n].view(-1, n), rests[number].narrow(1, first, bodies))

    def written() -> None:
        for number, begin, first, bodies in pieces():
            n = rests[number].shape[2]
            made = room[: 3 * bodies * n].view(3, bodies, n).permute(1, 2, 0)
            out.narrow(0, first, bodies).narrow(1, begin, n).copy_(made)

    steps = (lambda: skeleton(values), correctives, blended, applied, written)
    return dict(zip(STEPS, steps, strict=True))
