"""From a released JSON to finished float32 columns, beside `json.load` and numpy: time and memory."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

NAME = "MSCOCO_train_SMPL_NeuralAnnot.json"


def read_with_json(path: Path) -> dict[str, np.ndarray]:
    """The plain way: every leaf a dict, then one array a field."""
    with path.open() as file:
        content = json.load(file)
    columns = {"id": np.array([int(k) for k in content], np.int64)}
    for group, field in (
        ("smpl_param", "pose"),
        ("smpl_param", "shape"),
        ("smpl_param", "trans"),
        ("cam_param", "focal"),
        ("cam_param", "princpt"),
    ):
        columns[field] = np.array([leaf[group][field] for leaf in content.values()], np.float32)
    return columns


def read_with_ours(path: Path) -> None:
    """First load, the columns file written too."""
    from neuralannot import load_pseudo_gt

    load_pseudo_gt(path, annotations=False)


WAYS = {"json.load + numpy": read_with_json, "neuralannot": read_with_ours}


def private_peak(act) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Seconds that `act()` takes and the most private memory it adds, MB (sampled every 2 ms)."""

    def private() -> float:
        text = Path("/proc/self/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private")) / 1024

    before, peak, done = private(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], private() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    kept = act()
    seconds = time.perf_counter() - begin
    peak[0] = max(peak[0], private() - before)
    done.set()
    watcher.join()
    del kept
    return seconds, peak[0]


def _child(way: str, path: str, memory: bool) -> None:
    import neuralannot.loading  # noqa: F401  (what a process pays once is not what is measured)

    if memory:
        print(private_peak(lambda: WAYS[way](Path(path)))[1])
        return
    begin = time.perf_counter()
    kept = WAYS[way](Path(path))
    print(time.perf_counter() - begin)
    del kept


def _in_a_process(way: str, path: Path, memory: bool) -> float:
    for old in path.parent.glob("*.columns.safetensors"):
        old.unlink()
    code = f"from benchmarks.load import _child; _child({way!r}, {str(path)!r}, {memory})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(run.stdout)


def second_open(path: Path) -> float:
    """Seconds of `load_pseudo_gt` on a file whose columns are there, and of touching one row."""
    from neuralannot import load_pseudo_gt

    load_pseudo_gt(path, annotations=False)
    begin = time.perf_counter()
    gt = load_pseudo_gt(path, annotations=False)
    float(gt.params["transl"][len(gt) // 2, 2])
    return time.perf_counter() - begin


def run(count: int, repeats: int) -> None:
    """Print the table: medians (least … most) of alternating runs, every run a process of its own."""
    from benchmarks.made import write_coco_like

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        write_coco_like(path, count)
        print(f"{count} annotations, {path.stat().st_size / 1e6:.0f} MB of JSON")
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        memory: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(repeats):
            for way in WAYS:
                seconds[way].append(_in_a_process(way, path, memory=False))
        for _ in range(min(repeats, 3)):
            for way in WAYS:
                memory[way].append(_in_a_process(way, path, memory=True))
        print(f"{'':<22}{'seconds':>26}{'peak private MB':>26}")
        for way in WAYS:
            print(f"{way:<22}{_spread(seconds[way], 2):>26}{_spread(memory[way], 0):>26}")
        theirs, ours = WAYS
        pairs = [a / b for a, b in zip(seconds[theirs], seconds[ours], strict=True)]
        print(f"\nfaster, pair by pair: {_spread(pairs, 1)} times")
        share = statistics.median(memory[ours]) / statistics.median(memory[theirs])
        print(f"memory: {share:.2f} of the other's")
        opens = [1000 * second_open(path) for _ in range(20)]
        print(f"second open: {_spread(opens, 1)} ms")


def _spread(values: list[float], digits: int) -> str:
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return f"{statistics.median(values):.{digits}f} ({low} … {high})"
