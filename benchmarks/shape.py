"""One person's shape over a sequence: what it costs to pass the same shape codes with every pose."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.grids import NOTHING, OURS, Comparison, Table
from benchmarks.layers import (
    BODY_MODELS,
    SMPLX,
    TITLES,
    Layer,
    agreeing,
    layers_of,
    quietly,
    random_parameters,
    write_model,
)
from benchmarks.options import Options, say
from benchmarks.timing import machine

TITLE = "A fixed shape"
TEXT = """\
Meshes of one person in many poses: `model.with_shape(betas)`, made once, beside the same model given
`betas` with every pose, smplx's layer, and body-models with its `prepare_identity` made once (it counts
expressions as part of the identity, so only for models without)."""

PASSED = "betas passed"


def run(options: Options) -> Iterator[Table]:
    """One table, with dense correctives."""
    device = options.device or "cpu"
    comparison = Comparison(
        f"{TITLE}, dense correctives",
        (OURS, PASSED, SMPLX, BODY_MODELS),
        (PASSED, SMPLX, BODY_MODELS),
        machine(device),
        goal=False,
    )
    for model in options.chosen():
        say(f"{TITLE}: {TITLES[model]}")
        with tempfile.TemporaryDirectory() as folder, quietly():
            arrays = write_model(Path(folder), model, "dense")
            layers = layers_of(Path(folder), model, arrays, device)
        for batch in options.batches((1, 256)):
            with torch.no_grad():
                sides = agreeing(sides_of(layers, model, batch, device))
                case = f"{TITLES[model]}, batch {batch}"
                comparison.add(case, sides, repeats=options.repeated(9), device=device)
    yield comparison.table


def sides_of(layers: dict[str, Layer | str], model: str, batch: int, device: str) -> dict[str, Any]:
    """Each library's mesh of one person in `batch` poses."""
    posed = random_parameters(model, batch, device)
    betas = posed.pop("betas")[0].clone()
    sides: dict[str, Any] = {}
    for library in (OURS, SMPLX, BODY_MODELS):
        layer = layers[library]
        if isinstance(layer, str):
            sides[library] = layer
        elif layer.shaped is None:
            sides[library] = NOTHING
        else:
            sides[library] = functools.partial(layer.shaped(betas), **layer.arguments(posed))
    ours = layers[OURS]
    assert isinstance(ours, Layer)
    sides[PASSED] = functools.partial(ours.mesh, **posed, betas=betas.expand(batch, -1).contiguous())
    return sides
