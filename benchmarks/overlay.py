"""A body drawn over a picture, for the whole body and for a close view."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks.grids import Table
from benchmarks.layers import quietly
from benchmarks.options import Options
from benchmarks.timing import alternate, duration, machine

TITLE = "Overlay"
TEXT = """\
`render_overlay` of one SMPL body over a picture of 512x512 pixels. There is no other side here: renderers
of the usual kind need OpenGL."""

SIZE = 512
_VIEWS = {"whole body": 2.2, "close view": 0.16}  # metres away


def run(options: Options) -> Iterator[Table]:
    """One table."""
    import torch

    from neuralannot import load_body_model, render_overlay

    size = options.of(None, SIZE, SIZE // 8)
    with quietly(), torch.no_grad():
        model = load_body_model("smpl")
        upright = torch.tensor([[np.pi, 0.0, 0.0]])
        bodies = {
            name: model(global_orient=upright, transl=torch.tensor([[0.0, 0.0, depth]])).vertices[0].numpy()
            for name, depth in _VIEWS.items()
        }
    image = np.full((size, size, 3), 128, np.uint8)
    focal, princpt = np.array([size * 0.98, size * 0.98]), np.array([size / 2, size / 2])

    def draw(name: str) -> np.ndarray:
        return render_overlay(image, [bodies[name]], model.faces, focal, princpt)

    times = alternate({name: partial(draw, name) for name in _VIEWS}, repeats=options.repeated(5), warmup=1)
    table = Table(TITLE, ("", "pixels drawn", "a picture"), machine())
    for name, seconds in times.seconds.items():
        drawn = (draw(name) != image).any(axis=2).mean()
        table.add(f"{size}x{size}, {name}", f"{100 * drawn:.0f} %", duration(seconds))
    yield table
