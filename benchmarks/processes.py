"""Processes of their own: what they take, and the memory that is theirs alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path


def private_memory() -> float:
    """MB of this process that it shares with no other (Linux)."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private")) / 1024


def private_peak(act: Callable[[], object]) -> float:
    """The most private memory that `act()` adds, MB (sampled every 2 ms)."""
    before, peak, done = private_memory(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], private_memory() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        kept = act()
        peak[0] = max(peak[0], private_memory() - before)
    finally:
        done.set()
        watcher.join()
    del kept
    return peak[0]


def seconds_of(act: Callable[[], object]) -> float:
    """Seconds that `act()` takes, without freeing what it makes."""
    begin = time.perf_counter()
    kept = act()
    seconds = time.perf_counter() - begin
    del kept
    return seconds


def number_from(code: str) -> float:
    """The number that the last line of this Python code's output is, run in a new process.

    Raises RuntimeError with what the process said where it fails.
    """
    root = str(Path(__file__).resolve().parents[1])
    paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if run.returncode:
        raise RuntimeError(f"a process of the benchmark failed:\n{run.stderr[-2000:]}")
    return float(run.stdout.strip().splitlines()[-1])
