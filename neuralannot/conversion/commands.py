"""The command `convert`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from neuralannot.file_arguments import add_body_models_argument, add_file_arguments, load_named, named_files


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `convert` to the program's commands: `command` makes one."""
    convert = command(
        "convert",
        _convert,
        "SMPL annotations as SMPL-X's, and SMPL-X's as SMPL's",
        "neuralannot convert MSCOCO_train_SMPL_NeuralAnnot.json --to smplx --out smplx.json",
    )
    add_file_arguments(convert)
    convert.add_argument("--to", choices=("smpl", "smplx"), required=True, help="the other model")
    convert.add_argument("--out", required=True, help="file to write (.json or .safetensors)")
    add_body_models_argument(convert)
    convert.add_argument(
        "--transfer", metavar="DIR", help="official transfer matrices (default: with the body models)"
    )
    convert.add_argument(
        "--errors",
        metavar="FILE",
        help=".csv: each annotation's error and what it lost",
    )
    convert.add_argument("--steps", type=int, default=6, help="at most (default: %(default)s)")
    convert.add_argument("--batch-size", type=int, default=32, help="bodies at a time (default: %(default)s)")
    convert.add_argument("--device", help="where to compute (default: cpu)")


def _convert(options: argparse.Namespace) -> None:
    from neuralannot.conversion import convert
    from neuralannot.conversion.reporting import check_table, write_errors
    from neuralannot.loading import load_pseudo_gt

    if options.errors is not None:
        check_table(options.errors)  # before the work
    gt = load_named(options)
    if gt.joined and gt.catalogued.key_names != ("id",) and options.out.endswith(".json"):
        # The layout holds each frame once, whatever number of cameras saw it.
        gt = load_pseudo_gt(named_files(options), release=options.release, annotations=False)
    found = convert(
        gt,
        to=options.to,
        body_models=options.body_models,
        transfer=options.transfer,
        steps=options.steps,
        batch_size=options.batch_size,
        device=options.device,
        progress=sys.stderr.isatty(),
    )
    assert found.gt is not None
    found.gt.save(options.out)
    sys.stdout.write(f"{found}\n{found.gt.release}: {options.out}\n")
    if options.errors is not None:
        sys.stdout.write(f"errors: {write_errors(found, options.errors)}\n")
