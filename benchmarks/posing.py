"""The comparisons that pose bodies, on either device: what they time, and the tables they fill."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.floors import Rates, Work, measured_rates
from benchmarks.grids import NOTHING, OURS, Comparison, Table
from benchmarks.layers import (
    LIBRARIES,
    SMPLX,
    TITLES,
    Layer,
    agreeing,
    layers_of,
    quietly,
    random_parameters,
    write_model,
)
from benchmarks.options import MODELS, Options, say
from benchmarks.timing import machine

COMPILED, GRAPH, WARP = "compiled", "CUDA graph", "body-models, Warp"
Arrays = Mapping[str, np.ndarray]
Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """One row of a table. `side`: a library's layer and its arguments -> what is timed, or why it cannot be;
    `work`: a batch size -> what must be done; `goal`: batch size -> what is meant to be reached.
    """

    name: str
    side: Callable[[Layer, dict[str, Any]], Callable[[], Any] | str]
    work: Callable[[int], Work]
    goal: Mapping[int, str]


@dataclass(frozen=True)
class Task:
    """A subject: `cases` of a model, given its name and arrays; `look`: of a library's arguments and result,
    what must agree with ours, all of the result for None.
    """

    title: str
    cases: Callable[[str, Arrays], list[Case]]
    batches: tuple[int, ...]
    variants: Sequence[str]
    models: tuple[str, ...] = MODELS
    with_gradients: bool = False
    look: Callable[[Arguments, Any], Tensor] | None = None
    tolerance: Mapping[str, float] | None = None
    against: Sequence[str] = LIBRARIES[1:]


def run_task(task: Task, options: Options, *, extras: bool = False) -> Iterator[Table]:
    """One table a variant. `extras`: ours compiled and as a CUDA graph, and body-models with Warp, too."""
    device = options.device or "cpu"
    if not options.chosen(task.models):
        say(f"{task.title}: of the models asked for it has none")
        return
    rates = measured_rates(device, quick=options.quick)
    for variant in task.variants:
        own = (COMPILED, GRAPH) if extras else ()
        comparison = Comparison(
            f"{task.title}, {variant} correctives{'' if device == 'cpu' else f', {device}'}",
            (OURS, *own, *LIBRARIES[1:], *((WARP,) if extras else ())),
            (SMPLX, *(name for name in task.against if name != SMPLX)),
            machine(device),
            goal=not device.startswith("cuda"),
            extra=("floor",),
        )
        comparison.table.notes.append(f"Floors from what the device does in this run: {rates}.")
        for model in options.chosen(task.models):
            say(f"{task.title}: {TITLES[model]}, {variant}, {device}")
            with tempfile.TemporaryDirectory() as folder, quietly():
                arrays = write_model(Path(folder), model, variant)
                layers = layers_of(Path(folder), model, arrays, device)
                if extras:
                    layers[WARP] = _with_warp(Path(folder), model, arrays, device)
            for case in task.cases(model, arrays):
                for batch in options.batches(task.batches):
                    _add(comparison, task, case, model, batch, layers, rates, options, extras)
        yield comparison.table


def _add(
    comparison: Comparison,
    task: Task,
    case: Case,
    model: str,
    batch: int,
    layers: Mapping[str, Layer | str],
    rates: Rates,
    options: Options,
    extras: bool,
) -> None:
    device = options.device or "cpu"
    name = ", ".join(filter(None, (TITLES[model], case.name, f"batch {batch}")))
    values = random_parameters(model, batch, device)
    sides: dict[str, Any] = {}
    looks = {}
    with torch.set_grad_enabled(task.with_gradients):
        for library, layer in layers.items():
            if isinstance(layer, str):
                sides[library] = layer
                continue
            arguments = _leaves(layer.arguments(values), task.with_gradients)
            sides[library] = case.side(layer, arguments)
            if task.look is not None:
                looks[library] = functools.partial(task.look, arguments)
            if extras and library == OURS:
                if task.look is not None:
                    looks[COMPILED] = looks[GRAPH] = looks[OURS]
                sides[COMPILED] = _compiled(case.side(_compiled_layer(layer), arguments))
                sides[GRAPH] = _graph(sides[OURS], device)
        sides = agreeing(sides, looks, **({} if task.tolerance is None else {"tolerance": task.tolerance}))
        comparison.add(
            name,
            sides,
            repeats=options.repeated(9),
            device=device,
            goal=case.goal.get(batch, NOTHING),
            extra=(rates.floor(case.work(batch)),),
        )
    if device.startswith("cuda"):
        del sides, looks  # graphs hold the memory of what they compute
        torch.cuda.empty_cache()


def _leaves(arguments: dict[str, Any], with_gradients: bool) -> dict[str, Any]:
    """The arguments as tensors of their own; with gradients, but for those of joints that stay at rest."""
    return {
        name: value.detach().clone().requires_grad_(with_gradients and bool(value.any()))
        for name, value in arguments.items()
    }


def _compiled_layer(layer: Layer) -> Layer:
    """The layer with its functions compiled, each for the shapes of its first call."""
    torch._dynamo.reset()  # compilers stop at some number of variants of one function
    compiled = functools.partial(torch.compile, dynamic=False)
    assert layer.skeleton is not None
    assert layer.joints is not None
    assert layer.points is not None
    points = layer.points
    return replace(
        layer,
        mesh=compiled(layer.mesh),
        skeleton=compiled(layer.skeleton),
        joints=compiled(layer.joints),
        points=lambda weights: compiled(points(weights)),
    )


def _compiled(side: Callable[[], Any] | str) -> Callable[[], Any] | str:
    """The side, compiled by a first call; or why that does not work."""
    if isinstance(side, str):
        return side
    try:
        side()
    except Exception as error:  # whatever a compiler raises: the other sides are of interest all the same
        say(f"compiling: {error}")
        return f"fails: {type(error).__name__}"
    return side


def _graph(side: Callable[[], Any] | str, device: str) -> Callable[[], Any] | str:
    """The side recorded once and replayed, its results in the same memory every time; or why it cannot be."""
    if isinstance(side, str) or not device.startswith("cuda"):
        return side if isinstance(side, str) else "CUDA only"
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                side()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = side()
    except RuntimeError as error:
        say(f"CUDA graph: {error}")
        return f"fails: {type(error).__name__}"

    def replay() -> Any:
        graph.replay()
        return result

    return replay


def _with_warp(folder: Path, model: str, arrays: Arrays, device: str) -> Layer | str:
    """body-models with its kernels in Warp, where that is installed."""
    import importlib.util

    from benchmarks.layers import body_models_layer

    if importlib.util.find_spec("warp") is None:
        return "not installed"
    try:
        return body_models_layer(folder, model, arrays, device, kernel_backend="warp")
    except ImportError as error:
        return f"not installed: {error.name}"
