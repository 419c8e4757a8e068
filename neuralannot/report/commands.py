"""The command `report`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from neuralannot.file_arguments import add_body_models_argument, add_file_arguments, load_named
from neuralannot.web_page import check_page_name


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `report` to the program's commands; `command` makes one."""
    sub = command(
        "report",
        _report,
        "one HTML page about a file: counts, what is missing, errors, pictures, distributions",
        "neuralannot report MSCOCO_train_SMPL_NeuralAnnot.json --images coco --out report.html",
    )
    add_file_arguments(sub)
    add_body_models_argument(sub)
    sub.add_argument("--images", metavar="DIR", help="image folder (default: no pictures)")
    sub.add_argument("--out", default="report.html", help="the .html to write (default: %(default)s)")
    sub.add_argument("--title", default="", help="default: the release's name")
    sub.add_argument("--count", type=int, default=12, help="annotations a sheet (default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="of the random ones (default: %(default)s)")
    sub.add_argument(
        "--by", metavar="COLUMN", help="quality column that ranks (default: error or reprojection)"
    )
    sub.add_argument("--columns", metavar="FILE", help="quality columns of `neuralannot quality --columns`")
    sub.add_argument("--again", action="store_true", help="measure even where there are quality columns")
    sub.add_argument(
        "--prior", default="default", help="open, vposer:PATH, mano-pca:N, none (default: by the model)"
    )
    sub.add_argument("--batch-size", type=int, default=1024, help="bodies at once (default: %(default)s)")
    sub.add_argument("--device", help="where to measure (default: cpu)")


def _report(options: argparse.Namespace) -> None:
    from neuralannot.quality_columns import load_quality
    from neuralannot.report.page import write_report

    # Mistakes that need no file to be found, before minutes of work.
    check_page_name(Path(options.out))
    if options.count < 0:
        raise ValueError(f"--count must be from 0, got {options.count}")
    if options.images is not None and not Path(options.images).is_dir():
        raise FileNotFoundError(f"--images: {options.images}: no such folder")
    gt = load_named(options)
    if options.columns is not None:
        gt = load_quality(gt, options.columns)
    page = write_report(
        gt,
        options.out,
        images=options.images,
        title=options.title,
        files=options.file,
        count=options.count,
        seed=options.seed,
        by=options.by,
        again=options.again,
        body_models=options.body_models,
        prior=options.prior,
        device=options.device,
        batch_size=options.batch_size,
        progress=sys.stderr.isatty(),
    )
    sys.stdout.write(f"{gt!r}\nwritten: {page}, {page.stat().st_size / 1e6:.1f} MB\n")
