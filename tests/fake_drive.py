"""gdown's two functions, with its names and habits, over files in memory: what the adapter meets."""

from __future__ import annotations

import io
import types
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

Listed = namedtuple("Listed", ("id", "path", "local_path"))


class FileURLRetrievalError(Exception):
    """As gdown's: the page has no link to the file."""


QUOTA = FileURLRetrievalError(
    "Failed to retrieve file url: Too many users have viewed or downloaded this file recently. Please try "
    "accessing the file again later."
)


class FakeDrive(types.ModuleType):
    """`files` by id, `folders` by id as (file id, path) pairs; an exception in a file's place is raised."""

    def __init__(self) -> None:
        super().__init__("gdown")
        self.files: dict[str, bytes | Exception] = {}
        self.folders: dict[str, list[tuple[str, str]] | Exception] = {}
        self.dies_after: int | None = None
        self.calls: list[str] = []
        self.starts: list[int] = []

    def download(
        self,
        url: str | None = None,
        output: str | io.BytesIO | None = None,
        quiet: bool = False,
        use_cookies: bool = True,
        id: str | None = None,
        resume: bool = False,
        progress: Callable[[int, int | None], None] | None = None,
        timeout: float | None = None,
        retries: int = 0,
    ) -> Any:
        assert id is not None
        assert isinstance(output, str)
        assert quiet
        assert not use_cookies
        assert resume
        self.calls.append(id)
        body = self.files.get(id, FileURLRetrievalError("Cannot retrieve the public link of the file."))
        if isinstance(body, Exception):
            raise body
        target = Path(output)
        parts = [p for p in target.parent.iterdir() if p.name.startswith("file") and p.suffix == ".part"]
        part = parts[0] if parts else target.with_name("fileabcd1234.part")
        with part.open("ab") as file:
            start = file.tell()
            self.starts.append(start)
            end = len(body) if self.dies_after is None else start + self.dies_after
            for begin in range(start, end, 1000):
                file.write(body[begin : min(begin + 1000, end)])
                file.flush()
                if progress is not None:
                    progress(min(begin + 1000, end), len(body))
        if end < len(body):
            raise ConnectionError(f"Download is incomplete: received {end} bytes")
        part.rename(target)
        return output

    def download_folder(
        self,
        url: str | None = None,
        id: str | None = None,
        output: str | None = None,
        quiet: bool = False,
        use_cookies: bool = True,
        skip_download: bool = False,
        timeout: float | None = None,
    ) -> list[Listed]:
        assert id is not None
        assert skip_download
        assert quiet
        self.calls.append(f"folder {id}")
        found = self.folders.get(id, FileURLRetrievalError("(status code 404)"))
        if isinstance(found, Exception):
            raise found
        return [Listed(file_id, path, path) for file_id, path in found]
