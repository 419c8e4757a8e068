"""The page of results: a section a benchmark, each replaced when it is measured anew."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import NAMES
from benchmarks.grids import Table

INTRODUCTION = """\
# Benchmarks

What the library costs beside what it takes the place of. This page is written by the program that
measures:

```sh
make bench                                               # installs the peers, measures, prints
python -m benchmarks all --markdown docs/benchmarks.md   # writes this page
python -m benchmarks mesh --models smpl --batch 1 64     # some of it; --help lists what can be chosen
python -m benchmarks gpu --models smpl                   # on a GPU
```

Only ratios carry over to another machine. All sides of a row run in turns in one process (reading files
and worker processes: each run in a process of its own, in turns), after a warm-up, on the same numbers,
and only once their results agree. A cell is the median of the runs with the least and the most; ratios
are taken pair by pair, of runs that were neighbours, and then summed up the same way. *Goal* is the ratio
that was aimed at.

The body models are the open body's arrays, in two variants. Official model files are licensed and cannot
be used here; their pose correctives move every vertex, while the open body's are sparse, which this
library makes use of. *Dense* correctives are noise on every vertex, as dense as any file can be, and the
figures to judge by. *Open* is the body that ships; tables dated before 22 November 2026 measured it as it
was first baked ([open_body.md](open_body.md)). Skinning weights are the open body's in both, some two
joints a vertex.

Peers are measured where they are installed: [smplx](https://github.com/vchoutas/smplx),
[body-models](https://github.com/abcamiletto/body-models),
[smplfitter](https://github.com/isarandi/smplfitter), [orjson](https://github.com/ijl/orjson). A row says
why a side is not there.
"""
_NOT_YET = "*Not measured yet.*"


def write_sections(path: Path, measured: Mapping[str, Sequence[Table]]) -> None:
    """Write the page at `path`: sections just measured, the others as they were there."""
    before = path.read_text() if path.is_file() else ""
    parts = [INTRODUCTION]
    for name in NAMES:
        body = tables_as_markdown(measured[name]) if name in measured else _kept(before, name)
        module = importlib.import_module(f"benchmarks.{name}")
        parts.append(
            f"## {module.TITLE}\n\n{module.TEXT}\n\n`python -m benchmarks {name}`\n\n"
            f"<!-- {name} -->\n{body}\n<!-- end of {name} -->\n"
        )
    path.write_text("\n".join(parts))


def tables_as_markdown(tables: Sequence[Table]) -> str:
    """One after another."""
    return "\n\n".join(table.markdown() for table in tables) or _NOT_YET


def _kept(page: str, name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end of {name} -->", page, re.S)
    return found.group(1) if found else _NOT_YET
