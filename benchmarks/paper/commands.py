"""`python -m benchmarks tables`: run what is not there yet, print the paper's tables beside its figures."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.grids import Table
from benchmarks.page import tables_as_markdown
from benchmarks.paper.annotators import SIZES, Size, make_setup
from benchmarks.paper.studies import Base, make_base
from benchmarks.paper.tables import TABLES, named, plan, result_file, tables

_FIRST, _LAST = "<!-- tables -->", "<!-- end of tables -->"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks tables", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("paper_tables"), help="what is done is kept there")
    numbers = sorted({table.number for table in TABLES})
    parser.add_argument("--tables", nargs="+", type=int, choices=numbers, default=numbers)
    parser.add_argument("--seeds", nargs="+", type=int, help="default: the size's")
    parser.add_argument(
        "--studies", nargs="+", metavar="TEXT", help="only studies whose name has one of these"
    )
    parser.add_argument("--rows", nargs="+", metavar="KEY", help="only these annotators")
    parser.add_argument("--device", default="", help="cpu or cuda (default: a GPU where there is one)")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--show", action="store_true", help="run nothing, print what is there")
    parser.add_argument("--markdown", type=Path, help="the page to put the tables into")
    return parser


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    from benchmarks.timing import machine

    if given.threads:
        torch.set_num_threads(given.threads)
    size = SIZES[given.size]
    seeds = tuple(given.seeds or size.seeds)
    device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    warnings.filterwarnings("ignore", "no official body models given", UserWarning)
    out = given.out / given.size
    if not given.show:
        _run(given, out, size, seeds, device)
    shown = [
        table
        for comparison in named(given.tables)
        for table in tables(out, comparison, size, seeds, machine(str(device)))
    ]
    for table in shown:
        sys.stdout.write(f"\n{table.text()}\n")
    if given.markdown:
        write_tables(given.markdown, shown)
    return 0


def write_tables(path: Path, shown: Sequence[Table]) -> None:
    """Put tables between the page's marks. Raises ValueError where it has none."""
    before, first, rest = path.read_text().partition(_FIRST)
    _, last, after = rest.partition(_LAST)
    if not (first and last):
        raise ValueError(f"{path}: expected the marks {_FIRST} and {_LAST}, which say where the tables go")
    path.write_text(f"{before}{_FIRST}\n{tables_as_markdown(shown)}\n{_LAST}{after}")


def _run(
    given: argparse.Namespace, out: Path, size: Size, seeds: Sequence[int], device: torch.device
) -> None:
    bases: dict[tuple[str, int], Base] = {}
    for study, rows in plan(given.tables, seeds).items():
        if given.studies and not any(text in study.name for text in given.studies):
            continue
        wanted = [row for row in rows if not given.rows or row.key in given.rows]
        todo = [row for row in wanted if not result_file(out, study, row).is_file()]
        if not todo:
            continue
        base = bases.get((study.who, study.seed))
        if base is None:
            base = bases[study.who, study.seed] = make_base(study.who, study.seed, out, images=size.images)
        setup = make_setup(study, base, out, size, device)
        for row in todo:
            started = time.perf_counter()
            found = row.annotate(setup)
            path = result_file(out, study, row)
            path.parent.mkdir(exist_ok=True)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(found.as_dict(), indent=1) + "\n")
            part.replace(path)  # a result is there whole or not at all
            sys.stdout.write(
                f"{study.name}  {row.key}: {found.mpjpe:.1f} / {found.mpvpe:.1f} mm "
                f"({time.perf_counter() - started:.0f} s)\n"
            )
            sys.stdout.flush()
