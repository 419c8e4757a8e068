"""The command that makes a studio: `synth`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from neuralannot.file_arguments import add_body_models_argument
from neuralannot.synthetic.settings import LAYOUTS


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `synth` to the program's commands; `command` makes one."""
    synth = command(
        "synth",
        _synth,
        "make a data set with known parameters, in a released layout",
        "neuralannot synth studio --layout human36m --count 400",
    )
    synth.add_argument("out", help="folder to make")
    synth.add_argument("--layout", required=True, choices=LAYOUTS)
    synth.add_argument("--count", type=int, default=400, help="images (default: %(default)s)")
    synth.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    synth.add_argument("--image-size", type=int, help="side of an image, px (default: the layout's)")
    synth.add_argument("--views", type=int, help="cameras a frame (default: the layout's)")
    synth.add_argument("--noise", type=float, default=0.0, help="of GT joints: mm in 3D, px in 2D")
    synth.add_argument("--missing", type=float, default=0.0, help="share of GT joints that are missing")
    synth.add_argument("--model", choices=("smpl", "smplx"), help="of human36m's bodies (default: smpl)")
    add_body_models_argument(synth)
    synth.add_argument("--regressor", metavar="FILE", help="official bodies: the data set's joints, .npy")
    synth.add_argument("--clips", nargs="+", metavar="CLIP", help="motions of bodies (default: all)")
    synth.add_argument("--workers", type=int, help="processes (default: one a core)")


def _synth(options: argparse.Namespace) -> None:
    from neuralannot.synthetic import make_studio

    in_space = options.layout in ("human36m", "interhand26m")
    given = {
        "noise_mm" if in_space else "noise_px": options.noise,
        "missing": options.missing,
        "model": options.model,
        "body_models": options.body_models,
    }
    report = make_studio(
        options.out,
        layout=options.layout,
        count=options.count,
        seed=options.seed,
        image_size=options.image_size,
        views=options.views,
        regressor=options.regressor,
        clips=options.clips or (),
        workers=options.workers,
        progress=sys.stderr.isatty(),
        **given,
    )
    _say(f"{report.image_count} images, {report.annotation_count} annotations: {report.out}")
    for path in report.truth:
        _say(f"true parameters: {path}")
    for text in report.left_out:
        _say(f"left out: {text}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
