"""A web server on this machine that has one file, and whatever faults a test asks of it."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HTML = b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head></html>"


@dataclass
class FileServer:
    """What is served, and how. Lists are used up, an entry a request; `asked` grows with (path, Range)."""

    files: dict[str, bytes]
    url: str = ""
    etag: str | None = '"one"'
    date: str | None = None
    ranges: bool = True
    honest: bool = True  # False: takes no notice of If-Range
    length: int | None = 0  # added to the true Content-Length; None leaves it out
    chunked: bool = False
    kind: str = "application/json"
    encoding: str | None = None
    pace: float = 0.0  # seconds between blocks
    block: int = 1 << 16
    drops: list[int] = field(default_factory=list)  # bytes of body before the line goes
    stalls: list[int] = field(default_factory=list)  # bytes of body before nothing comes for a second
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@contextlib.contextmanager
def serving(files: dict[str, bytes], **settings: object) -> Iterator[FileServer]:
    """A server of `files` (by name) for as long as the block lasts."""
    served = FileServer(files, **settings)  # type: ignore[arg-type]

    class Handler(_Handler):
        server_of_files = served

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_of_files: FileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        served = self.server_of_files
        wanted = self.headers.get("Range")
        served.asked.append((self.path, wanted))
        self.close_connection = True
        if served.statuses:
            code, headers = served.statuses.pop(0)
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = served.files.get(self.path.lstrip("/"))
        if body is None:
            self.send_error(404)
            return
        start = 0
        found = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        current = self.headers.get("If-Range") in (None, served.etag, served.date)
        if found and served.ranges and (current or not served.honest):
            start = int(found[1])
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self._send(body, start)

    def _send(self, body: bytes, start: int) -> None:
        served = self.server_of_files
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", served.kind)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if served.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif served.length is not None:
            self.send_header("Content-Length", str(len(body) - start + served.length))
        for name, value in (
            ("ETag", served.etag),
            ("Last-Modified", served.date),
            ("Content-Encoding", served.encoding),
        ):
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        rest = body[start:]
        drop = served.drops.pop(0) if served.drops else None
        stall = served.stalls.pop(0) if served.stalls else None
        rest = rest if drop is None else rest[:drop]
        with contextlib.suppress(OSError):  # whoever asked may be gone
            for begin in range(0, len(rest), served.block):
                if stall is not None and begin >= stall:
                    time.sleep(1)
                    return
                piece = rest[begin : begin + served.block]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if served.chunked else piece)
                time.sleep(served.pace)
            if served.chunked and drop is None:
                self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        pass
