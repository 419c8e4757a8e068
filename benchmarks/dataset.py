"""Samples for training, one after another on one core, and in batches from a data loader."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.grids import NOTHING, OURS, Table
from benchmarks.layers import quietly
from benchmarks.made import write_coco_annotations, write_coco_like, write_human36m_like
from benchmarks.options import Options, say
from benchmarks.plain import PlainCoco, PlainHuman36M, check_samples
from benchmarks.timing import Times, alternate, machine, times_faster
from benchmarks.workers import ANNOTATIONS, FITS, PLAIN

TITLE = "Samples for training"
TEXT = """\
Samples without images: `PseudoGTDataset` beside a data set in the way of the release's loaders, which
holds the list of dicts of `json.load` and makes arrays of them sample by sample, with two calls of
`cv2.Rodrigues` where fits are in world space. Both hand out the same samples, in a random order. *A
core*: `dataset[row]` in a loop; *loader*: torch's `DataLoader` in its second and later epochs, with
`neuralannot.collate` or torch's own collation."""

_BATCH = 64


def run(options: Options) -> Iterator[Table]:
    """A table of samples a core, and one of a data loader."""
    count = options.of(options.count, 20_000, 100)
    with tempfile.TemporaryDirectory() as folder, quietly():
        say(f"{TITLE}: writing {count} annotations")
        cases = cases_of(Path(folder), count)
        yield _on_a_core(cases, count, options)
        yield _from_loaders(cases, count, options)


def cases_of(folder: Path, count: int) -> dict[str, tuple[Any, Any]]:
    """Name -> our data set, and the plain one; None where there is no plain way worth the name."""
    from neuralannot import load_pseudo_gt
    from neuralannot.dataset import PseudoGTDataset

    write_coco_like(folder / FITS, count)
    write_coco_annotations(folder / ANNOTATIONS, count)
    coco = load_pseudo_gt(folder / FITS)
    walk_path = write_human36m_like(folder, count)
    walk = load_pseudo_gt(walk_path)
    cases = {
        "MSCOCO, all that is stored": (PseudoGTDataset(coco), PlainCoco(folder / FITS, folder / ANNOTATIONS)),
        "MSCOCO, parameters": (PseudoGTDataset(coco, fields=("params",)), None),
        "MSCOCO, parameters and camera": (PseudoGTDataset(coco, fields=("params", "camera")), None),
        "Human3.6M, all, world to camera": (
            PseudoGTDataset(walk),
            PlainHuman36M(walk_path, walk.rest_root()),
        ),
        "Human3.6M, all and 17 joints": (PseudoGTDataset(walk, regressor="human36m-17"), None),
    }
    for ours, plain in cases.values():
        if plain is not None:
            check_samples(ours, plain, [0, count // 2, count - 1])
    return cases


def _on_a_core(cases: dict[str, tuple[Any, Any]], count: int, options: Options) -> Table:
    order = np.random.default_rng(0).permutation(count)[:5000].tolist()

    def through(dataset: Any) -> Callable[[], None]:
        def read() -> None:
            for row in order:
                dataset[row]

        return read

    table = _table(f"{TITLE}, a core, {count} annotations, samples a second", goal=True)
    for name, (ours, plain) in cases.items():
        say(f"{TITLE}: {name}")
        sides = {OURS: through(ours)} | ({} if plain is None else {PLAIN: through(plain)})
        _add(table, name, alternate(sides, repeats=options.repeated(7)), len(order), "50,000")
    return table


def _from_loaders(cases: dict[str, tuple[Any, Any]], count: int, options: Options) -> Table:
    from torch.utils.data import DataLoader

    from neuralannot.batches import collate

    workers = options.of(options.workers, 2, 1)
    batch = options.batches((_BATCH,))[0]
    table = _table(f"{TITLE}, loader, {workers} workers, batches of {batch}, samples a second", goal=False)

    def loader(dataset: Any, own: bool) -> Callable[[], None]:
        batches = DataLoader(
            dataset,
            batch_size=batch,
            shuffle=True,
            num_workers=workers,
            persistent_workers=True,
            collate_fn=collate if own else None,
        )

        def read() -> None:
            for _ in batches:
                pass

        return read

    for name, (ours, plain) in cases.items():
        if plain is None:
            continue
        say(f"{TITLE}: loaders, {name}")
        sides = {OURS: loader(ours, True), PLAIN: loader(plain, False)}
        times = alternate(sides, repeats=options.repeated(5), warmup=1)
        _add(table, name, times, count, NOTHING)
    return table


def _table(title: str, *, goal: bool) -> Table:
    columns = ("", OURS, PLAIN, "neuralannot is faster", "goal")
    return Table(title, columns if goal else columns[:-1], machine())


def _add(table: Table, name: str, times: Times, samples: int, goal: str) -> None:
    rates = {side: [samples / s for s in seconds] for side, seconds in times.seconds.items()}
    cells = [_grouped(rates[OURS]), NOTHING, NOTHING]
    if PLAIN in rates:
        cells[1:] = [_grouped(rates[PLAIN]), times_faster(times.ratios(PLAIN, OURS))]
    table.add(name, *cells, *([goal] if len(table.columns) == 5 else []))


def _grouped(rates: list[float]) -> str:
    """The median (least … most), thousands apart."""
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} … {max(rates):,.0f})"
