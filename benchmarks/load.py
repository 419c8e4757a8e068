"""From a released JSON to finished float32 columns: time and memory; and opening the same file again."""

from __future__ import annotations

import importlib.util
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.grids import NOTHING, OURS, Table
from benchmarks.made import write_coco_like
from benchmarks.options import Options, say
from benchmarks.processes import number_from, private_peak, seconds_of
from benchmarks.timing import duration, machine, spread, times_faster, version_of

TITLE = "File to columns"
TEXT = """\
A JSON in the layout of MSCOCO's SMPL release to finished float32 columns: `load_pseudo_gt`, the columns
file written too, beside `json.load` and orjson followed by one NumPy array a field. Every run is a
process of its own, what it imports not counted; memory is the most private memory that reading adds.
*Second open*: the same call when the columns file is there, and one number of its middle touched."""

NAME = "MSCOCO_train_SMPL_NeuralAnnot.json"
JSON, ORJSON, ALONE, SECOND = (
    "json.load + NumPy",
    "orjson + NumPy",
    "json.load alone",
    "neuralannot, second open",
)
_FIELDS = (
    ("smpl_param", "pose"),
    ("smpl_param", "shape"),
    ("smpl_param", "trans"),
    ("cam_param", "focal"),
    ("cam_param", "princpt"),
)


def columns_of(content: dict[str, Any]) -> dict[str, np.ndarray]:
    """Every leaf a dict, then one array a field."""
    columns = {"id": np.array([int(k) for k in content], np.int64)}
    for group, field in _FIELDS:
        columns[field] = np.array([leaf[group][field] for leaf in content.values()], np.float32)
    return columns


def read_with_json(path: Path) -> dict[str, np.ndarray]:
    """The plain way."""
    with path.open() as file:
        return columns_of(json.load(file))


def read_with_orjson(path: Path) -> dict[str, np.ndarray]:
    """The plain way with the fastest parser that gives Python objects."""
    import orjson

    return columns_of(orjson.loads(path.read_bytes()))


def read_with_ours(path: Path) -> Any:
    """First load, or a second one where the columns file is there."""
    from neuralannot import load_pseudo_gt

    gt = load_pseudo_gt(path, annotations=False)
    float(gt.params["transl"][len(gt) // 2, 2])
    return gt


def _read_json_alone(path: Path) -> Any:
    with path.open() as file:
        return json.load(file)


WAYS: dict[str, Callable[[Path], Any]] = {
    OURS: read_with_ours,
    JSON: read_with_json,
    ORJSON: read_with_orjson,
    SECOND: read_with_ours,
    ALONE: _read_json_alone,
}


def child(way: str, path: str, memory: bool) -> None:
    """What a process of its own does: print seconds, or MB with `memory`."""
    import neuralannot.loading  # noqa: F401  (what a process pays once is not what is measured)

    if importlib.util.find_spec("orjson"):
        import orjson  # noqa: F401
    measure = private_peak if memory else seconds_of
    print(measure(lambda: WAYS[way](Path(path))))


def measured(way: str, path: Path, *, memory: bool = False) -> float:
    """One run of a way, in a process of its own."""
    columns = list(path.parent.glob("*.columns.safetensors"))
    if way == OURS:
        for old in columns:
            old.unlink()
    elif way == SECOND and not columns:
        measured(OURS, path)
    code = f"from benchmarks.load import child; child({way!r}, {str(path)!r}, {memory})"
    return number_from(code)


def run(options: Options) -> Iterator[Table]:
    """A table of first loads, and one of second opens."""
    count, repeats = options.of(options.count, 200_000, 300), options.repeated(5)
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder))
        path = Path(folder) / NAME
        say(f"{TITLE}: writing {count} annotations")
        write_coco_like(path, count)
        size = f"{count} annotations, {path.stat().st_size / 1e6:.0f} MB of JSON"
        yield _first(path, size, repeats)
        yield _second(path, size, repeats)


def check(folder: Path, count: int = 50) -> None:
    """Raise ValueError where a way reads other numbers than ours from a small file."""
    path = folder / NAME
    write_coco_like(path, count)
    gt = read_with_ours(path)
    ours = {"id": gt.ids, "shape": gt.params["betas"], "trans": gt.params["transl"]}
    ours["pose"] = np.concatenate([gt.params["global_orient"][:, None], gt.params["body_pose"]], 1)
    ours |= {"focal": gt.camera.focal, "princpt": gt.camera.princpt}
    for way, read in ((JSON, read_with_json), (ORJSON, read_with_orjson)):
        if way == ORJSON and not version_of("orjson"):
            continue
        for name, column in read(path).items():
            if not np.array_equal(column, ours[name].reshape(column.shape)):
                raise ValueError(f"{way} reads another {name} than neuralannot")


def _first(path: Path, size: str, repeats: int) -> Table:
    ways = [way for way in (OURS, JSON, ORJSON) if way != ORJSON or version_of("orjson")]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    memory: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats):
        say(f"{TITLE}: run {turn + 1} of {repeats}")
        for way in ways:
            seconds[way].append(measured(way, path))
    for _ in range(min(repeats, 3)):
        for way in ways:
            memory[way].append(measured(way, path, memory=True))
    columns = (
        "",
        "time",
        "neuralannot is faster",
        "peak private memory, MB",
        "neuralannot's share of it",
        "goal",
    )
    table = Table(f"{TITLE}, {size}", columns, machine())
    for way in (OURS, JSON, ORJSON):
        if way not in ways:
            table.add(way, "not installed", *[NOTHING] * 4)
            continue
        ratios = [theirs / ours for theirs, ours in zip(seconds[way], seconds[OURS], strict=True)]
        share = statistics.median(memory[OURS]) / statistics.median(memory[way])
        compared = (NOTHING, NOTHING) if way == OURS else (times_faster(ratios), f"{share:.2f}")
        goal = "4, under 0.50" if way == JSON else NOTHING
        table.add(way, duration(seconds[way]), compared[0], spread(memory[way], 0), compared[1], goal)
    return table


def _second(path: Path, size: str, repeats: int) -> Table:
    say(f"{TITLE}: second opens")
    alone, opened = [], []
    for _ in range(repeats):
        alone.append(measured(ALONE, path))
        opened.append(measured(SECOND, path))
    ratios = [theirs / ours for theirs, ours in zip(alone, opened, strict=True)]
    table = Table(f"Second open, {size}", ("", "time", "neuralannot is faster", "goal"), machine())
    table.add(SECOND, duration(opened), NOTHING, NOTHING)
    table.add(ALONE, duration(alone), times_faster(ratios), "500")
    return table
