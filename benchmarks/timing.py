"""Timing sides against each other: alternately, in one process, after a warm-up; and on what machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

# A run of a side that takes less is made of several calls.
_SECONDS_A_RUN = 0.1
_PACKAGES = ("numpy", "smplx", "body-models", "smplfitter", "orjson", "warp-lang")


@dataclass(frozen=True)
class Times:
    """Seconds a call of each side, one entry a run; the sides' runs of the same number are neighbours."""

    seconds: Mapping[str, list[float]]

    def ratios(self, over: str, under: str) -> list[float]:
        """How many times as long as `under` the side `over` took, pair by pair."""
        return [a / b for a, b in zip(self.seconds[over], self.seconds[under], strict=True)]


def alternate(
    sides: Mapping[str, Callable[[], object]], *, repeats: int, warmup: int = 2, device: str = "cpu"
) -> Times:
    """Time `sides` in turns: each round runs every side once, each round beginning with the next side.

    After `warmup` calls a side's run is as many calls as take a tenth of a second, one at least. On CUDA the
    device is idle when a run begins, and a run ends when the device has done it.
    """
    calls = {}
    for name, side in sides.items():
        for _ in range(max(1, warmup)):
            seconds = _seconds(side, 1, device)
        calls[name] = min(1000, max(1, round(_SECONDS_A_RUN / max(seconds, 1e-9))))
    order = list(sides)
    seconds_of: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name in order:
            seconds_of[name].append(_seconds(sides[name], calls[name], device))
        order = order[1:] + order[:1]
    return Times(seconds_of)


def _seconds(side: Callable[[], object], calls: int, device: str) -> float:
    _synchronize(device)
    begin = time.perf_counter()
    for _ in range(calls):
        side()
    _synchronize(device)
    return (time.perf_counter() - begin) / calls


def _synchronize(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def spread(values: list[float], digits: int) -> str:
    """The median (least … most)."""
    # Adding zero makes -0.0 plain 0.0.
    low, middle, high = (
        round(value, digits) + 0.0 for value in (min(values), statistics.median(values), max(values))
    )
    return f"{middle:.{digits}f} ({low:.{digits}f} … {high:.{digits}f})"


def duration(seconds: list[float]) -> str:
    """The median (least … most) in the unit that suits it, three digits of it."""
    middle = statistics.median(seconds)
    units = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
    unit, size = next(((u, s) for u, s in units if middle >= s), ("ns", 1e-9))
    scaled = [value / size for value in seconds]
    return spread(scaled, digits_of(middle / size)).replace(" (", f" {unit} (")


def times_faster(ratios: list[float]) -> str:
    """The median (least … most) of ratios, two or three digits of it."""
    return spread(ratios, digits_of(statistics.median(ratios)))


def digits_of(value: float) -> int:
    """Digits after the point that leave some three in all."""
    return 2 if value < 1 else 1 if value < 100 else 0


def version_of(package: str) -> str | None:
    """The installed version; None where the package is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine(device: str = "cpu") -> str:
    """What the figures were measured on: processor, threads, versions, day."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [f"{_processor()}, {cores} cores, {platform.machine()} {platform.system()}"]
    if device.startswith("cuda"):
        parts.append(f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, TF32 off")
    parts.append(f"Python {platform.python_version()}")
    parts.append(f"torch {torch.__version__} with {torch.get_num_threads()} threads")
    versions = ((name, version_of(name)) for name in _PACKAGES)
    parts.append(", ".join(f"{name} {version or 'not installed'}" for name, version in versions))
    parts.append(time.strftime("%Y-%m-%d"))
    return "; ".join(parts)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown processor"
