"""One process at a time: a lock beside a file, given up by the system when its holder dies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows: two downloads of one file at once are then the user's to avoid
    fcntl = None  # type: ignore[assignment]

__all__ = ["locked"]


@contextlib.contextmanager
def locked(path: Path, *, waits: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold `.<name>.lock` beside `path`. `waits` is called once where another process holds it.

    The lock file goes when its holder is done; one that a killed process leaves does not lock.
    """
    if fcntl is None:
        yield
        return
    name = path.with_name(f".{path.name}.lock")
    descriptor = _taken(name, waits)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            name.unlink()  # before it is let go: whoever waits for this one sees that it is another's now
        os.close(descriptor)


def _taken(name: Path, waits: Callable[[], None] | None) -> int:
    while True:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waits is not None:
                    waits()
                    waits = None
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(descriptor).st_ino == os.stat(name).st_ino:
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder removed it in the meantime
