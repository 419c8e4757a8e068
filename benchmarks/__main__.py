"""`python -m benchmarks NAME ...`: measure, print tables, and put them into a page where asked."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from benchmarks import NAMES
from benchmarks.options import MODELS, Options

# What libraries below torch read when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="+", choices=(*NAMES, "all"), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs, not how fast")
    parser.add_argument("--repeats", type=_positive, help="runs of every side")
    parser.add_argument("--threads", type=_positive, help="of torch and numpy (default: the cores)")
    parser.add_argument("--batch", type=_positive, nargs="+", help="bodies a call, instead of each one's own")
    parser.add_argument("--count", type=_positive, help="annotations, where files are made")
    parser.add_argument("--workers", type=_positive, help="worker processes, where there are any")
    parser.add_argument("--models", nargs="+", choices=MODELS, help="instead of all four")
    parser.add_argument("--device", help="cpu or cuda, where bodies are posed")
    parser.add_argument("--markdown", type=Path, help="the page to put the tables into")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {value}")
    return value


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["tables"]:  # errors and not times: options of its own
        from benchmarks.paper.commands import main as show_tables

        return show_tables(arguments[1:])
    given = parser().parse_args(arguments)
    if given.threads:
        os.environ.update(dict.fromkeys(_THREADS, str(given.threads)))
        import torch

        torch.set_num_threads(given.threads)
    options = Options(
        quick=given.quick,
        repeats=given.repeats,
        batch=tuple(given.batch) if given.batch else None,
        count=given.count,
        workers=given.workers,
        models=tuple(given.models) if given.models else None,
        device=given.device,
    )
    from benchmarks.page import write_sections

    names = NAMES if "all" in given.names else tuple(dict.fromkeys(given.names))
    if (given.device or "").startswith("cuda") and names != ("gpu",):
        import torch

        if not torch.cuda.is_available():
            parser().error(f"--device {given.device}: torch sees no GPU here")
    for name in names:
        tables = []
        for table in importlib.import_module(f"benchmarks.{name}").run(options):
            print(f"\n{table.text()}", flush=True)
            tables.append(table)
        if given.markdown:  # one after the other: what was measured before something fails is kept
            write_sections(given.markdown, {name: tables})
    return 0


if __name__ == "__main__":
    sys.exit(main())
