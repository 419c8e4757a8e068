"""What every worker process of a data loader costs in memory, the annotations being the same for all."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.grids import OURS, Table
from benchmarks.layers import quietly
from benchmarks.made import write_coco_annotations, write_coco_like
from benchmarks.options import Options, say
from benchmarks.plain import PlainCoco, check_samples
from benchmarks.processes import number_from, private_memory
from benchmarks.timing import machine, spread

TITLE = "Memory of a worker"
TEXT = """\
Private memory (USS, Linux) of a worker process, forked or spawned, that has handed out every sample of
its share of the annotations, less that of a worker that has nothing to do: `PseudoGTDataset`, whose
workers share one mapped file, beside a data set that holds the list of dicts of `json.load`. Workers'
shares interleave, as a shuffled loader's do, and all are measured when all have finished."""

FITS, ANNOTATIONS = "MSCOCO_train_SMPL_NeuralAnnot.json", "person_keypoints_train2017.json"
PLAIN, NOTHING_TO_DO = "list of dicts", "nothing"
METHODS = ("fork", "spawn")


def data_set(way: str, folder: Path) -> Any:
    """What the workers are given."""
    if way == PLAIN:
        return PlainCoco(folder / FITS, folder / ANNOTATIONS)
    if way == NOTHING_TO_DO:
        return []
    from neuralannot import load_pseudo_gt
    from neuralannot.dataset import PseudoGTDataset

    return PseudoGTDataset(load_pseudo_gt(folder / FITS))


def work_through(dataset: Any, number: int, workers: int, together: Any, results: Any) -> None:
    """A worker: its share of the samples, then how much memory is its own."""
    _import_all()
    for row in range(number, len(dataset), workers):
        dataset[row]
    together.wait()
    results.put(private_memory())
    together.wait()


def child(way: str, folder: str, method: str, workers: int) -> None:
    """The process that has the data set and starts the workers: print the mean of their memory, MB."""
    _import_all()
    context: Any = multiprocessing.get_context(method)  # typeshed's base has no Process
    dataset = data_set(way, Path(folder))
    together, results = context.Barrier(workers), context.Queue()
    started = [
        context.Process(target=work_through, args=(dataset, number, workers, together, results))
        for number in range(workers)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
        if process.exitcode:
            raise SystemExit(f"a worker ended with {process.exitcode}")
    print(statistics.mean(results.get() for _ in started))


def _import_all() -> None:
    """What any of the ways imports, in all of them: modules are not what is measured."""
    import cv2  # noqa: F401
    import scipy.spatial.transform  # noqa: F401
    import torch  # noqa: F401

    import neuralannot.dataset
    import neuralannot.loading  # noqa: F401


def measured(way: str, folder: Path, method: str, workers: int) -> float:
    """MB of a worker, the mean of `workers` of them."""
    return number_from(
        f"from benchmarks.workers import child; child({way!r}, {str(folder)!r}, {method!r}, {workers})"
    )


def run(options: Options) -> Iterator[Table]:
    """One table."""
    count, workers = options.of(options.count, 200_000, 300), options.of(options.workers, 2, 2)
    with tempfile.TemporaryDirectory() as name, quietly():
        folder = Path(name)
        say(f"{TITLE}: writing {count} annotations")
        write_coco_like(folder / FITS, count)
        write_coco_annotations(folder / ANNOTATIONS, count)
        ours = data_set(OURS, folder)  # writes the columns, too
        if options.quick:
            check_samples(ours, data_set(PLAIN, folder), [0, count // 2, count - 1])
        title = f"{TITLE}, {count} annotations, {workers} workers"
        table = Table(title, ("workers", f"{OURS}, MB", f"{PLAIN}, MB", "goal"), machine())
        for method in METHODS:
            gained: dict[str, list[float]] = {OURS: [], PLAIN: []}
            for turn in range(options.repeated(2)):
                say(f"{TITLE}: {method}, run {turn + 1}")
                idle = measured(NOTHING_TO_DO, folder, method, workers)
                for way, values in gained.items():
                    values.append(measured(way, folder, method, workers) - idle)
            table.add(method, spread(gained[OURS], 1), spread(gained[PLAIN], 1), "under 5")
    yield table
