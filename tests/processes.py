"""Python as a user starts it, forked from a process that has imported what takes seconds to import.

The process forked from runs nothing else, so that each one begins as a fresh one does: its own memory,
folder, environment, exit status and output. What a variable says to an import is said already.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

_IMPORTED = ["cv2", "embreex", "trimesh", "neuralannot.cli", "neuralannot.train.fit", "torch.utils.data"]


@functools.cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    return context


class Process:
    """`python *arguments`: a script, `-m module` or `-c code`, and what follows it."""

    def __init__(
        self, *arguments: object, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._written = tempfile.TemporaryDirectory(prefix="process-")
        self._files = [Path(self._written.name) / name for name in ("out", "err")]
        given = (
            [str(a) for a in arguments],
            str(cwd or Path.cwd()),
            dict(os.environ) | dict(environment or {}),
            self._files,
        )
        self._process = _server().Process(target=_main, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """As of `subprocess`: None while it runs, below 0 the signal that ended it."""
        return self._process.exitcode

    def ended(self, timeout: float = 240) -> Process:
        """Itself, when it has ended. Killed where that takes too long."""
        self._process.join(timeout)
        if self.returncode is None:
            self._process.kill()
            self._process.join()
            raise TimeoutError(f"not ended after {timeout} s: {self.stderr[-2000:]}")
        return self

    @property
    def stdout(self) -> str:
        return self._files[0].read_text()

    @property
    def stderr(self) -> str:
        return self._files[1].read_text()


def _main(arguments: list[str], folder: str, environment: dict[str, str], written: list[Path]) -> None:
    for number, path in enumerate(written, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    first, rest = arguments[0], arguments[1:]
    sys.path.insert(0, "" if first in ("-m", "-c") else str(Path(first).resolve().parent))
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(rest[0], "<string>", "exec"), names)
    else:
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")
