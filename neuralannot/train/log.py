"""What a run tells: a progress bar, log.csv, and TensorBoard where it is asked for."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from neuralannot.atomic import whole_file
from neuralannot.train.config import TrainConfig
from neuralannot.train.distributed import World
from neuralannot.train.run import TrainingData


class Log:
    """The log of a run in the folder `out`; only the first process writes.

    Losses are means over the steps since the last line. A run that goes on from a checkpoint drops the lines
    after it. `last_means`: of the last line.
    """

    def __init__(
        self,
        out: Path,
        config: TrainConfig,
        data: TrainingData,
        world: World,
        *,
        first_step: int,
        progress: bool,
    ) -> None:
        self._path, self._config, self._world = out / "log.csv", config, world
        self._data, self._first, self._shows = data, first_step, progress and world.is_first
        self.last_means: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self._steps, self._images = 0, 0
        self._board: Any = None

    def __enter__(self) -> Log:
        self._start = time.perf_counter()
        self._bar = None
        if not self._world.is_first:
            return self
        with whole_file(self._path.with_name("config.json")) as temporary:
            temporary.write_text(json.dumps(self._config.as_dict(), indent=1) + "\n")
        self._keep_lines()
        if self._config.tensorboard:
            self._board = _board(self._path.parent)
        total = self._config.max_steps or None
        self._bar = tqdm(total=total, initial=self._first, unit="step", disable=not self._shows)
        if self._shows:
            count = int(self._data.usable.sum())
            tqdm.write(
                f"{count} of {len(self._data.usable)} samples"
                + "".join(f"; {reason}: {n}" for reason, n in self._data.unusable.items()),
                file=sys.stderr,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._steps:
            self._write(self._at, self._lr)
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()

    def add(self, step: int, means: dict[str, float], lr: float, images: int) -> None:
        """Step number `step` is done: its losses, rate and number of images."""
        for name, value in means.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps, self._images, self._at, self._lr = self._steps + 1, self._images + images, step, lr
        if self._bar is not None:
            self._bar.update()
        if step % self._config.log_every == 0:
            self._write(step, lr)

    def _write(self, step: int, lr: float) -> None:
        self.last_means = {name: value / self._steps for name, value in self._sums.items()}
        now = time.perf_counter()
        speed = self._images / max(now - self._start, 1e-9)
        self._sums, self._steps, self._images, self._start = {}, 0, 0, now
        if not self._world.is_first:
            return
        row = {"step": step, "lr": lr, "images_per_second": round(speed, 1), **self.last_means}
        is_new = not self._path.is_file()
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if is_new:
                writer.writeheader()
            writer.writerow(row)
        if self._bar is not None:
            shown = {n: f"{v:.4g}" for n, v in self.last_means.items()}
            self._bar.set_postfix(shown | {"images/s": f"{speed:.0f}", "lr": f"{lr:.0e}"}, refresh=False)
        if self._board is not None:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, step)

    def _keep_lines(self) -> None:
        """Drop what was logged after the checkpoint that the run goes on from."""
        if not self._path.is_file():
            return
        with self._path.open(newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        kept = [row for row in rows if row and row[0].isdigit() and int(row[0]) <= self._first]
        with whole_file(self._path) as temporary, temporary.open("w", newline="") as file:
            if header and kept:
                csv.writer(file).writerows([header, *kept])
        if not kept:
            self._path.unlink()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "tensorboard is not installed; `pip install neuralannot[train]`, or leave it out"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"))
