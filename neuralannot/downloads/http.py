"""A file over https, in as many pieces as the connection allows.

`fetch` writes to a part file and keeps beside it what the server said of the file: its address, ETag, date
and length. Another call, after a dropped line or a killed process, asks for the rest of that very file; a
server that has another one by now, or cannot tell, sends it from the start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import http.client
import json
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from neuralannot.atomic import whole_file
from neuralannot.downloads.trouble import DownloadError, is_full, looks_like_html

__all__ = ["Patience", "checked_url", "discard", "fetch", "room_for"]

_BLOCK = 1 << 18
_AGENT = "neuralannot-download (https; resumes with Range)"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True)
class Patience:
    """How long to try: `attempts` in a row that bring nothing, waits of `first_wait` seconds doubled up to
    `longest_wait`, and `timeout` seconds for a server that says nothing."""

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    timeout: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.timeout <= 0 or min(self.first_wait, self.longest_wait) < 0:
            raise ValueError(f"attempts must be 1 or more, timeout above 0, waits 0 or more, got {self}")


@dataclass(frozen=True)
class _Remote:
    """What a server said of a file. `etag` and `date` are None where they cannot tell versions apart."""

    url: str
    etag: str | None
    date: str | None
    length: int | None

    @property
    def validator(self) -> str | None:
        """What `If-Range` may hold: a strong ETag, or the date of the last change."""
        return self.etag or self.date


class _Again(Exception):
    """This attempt brought no more; the next may. `wait`: seconds that the server asks for."""

    def __init__(self, error: DownloadError, wait: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


def fetch(
    url: str,
    part: str | Path,
    *,
    loopback: bool = False,
    patience: Patience | None = None,
    report: Callable[[int, int | None], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Fetch `url` into the file `part`, going on where an earlier call ended. Returns its size in bytes.

    `part` is whole when this returns, and then only; what is known of the file stands in `<part>.json` until
    `discard`. `loopback` also allows `http://` to this machine, for tests. `report` is called with the bytes
    that are there and the size, None where the server does not say it.

    Raises DownloadError: `kind` says which of `trouble.KINDS`.
    """
    part, patience = Path(part), patience or Patience()
    checked_url(url, loopback=loopback)
    opener = _opener(loopback)
    failures, seen = 0, -1
    while True:
        try:
            return _attempt(opener, url, part, patience, report)
        except _Again as again:
            have = _size(part)
            failures = 1 if have > seen >= 0 else failures + 1  # what came is not lost
            seen = max(seen, have)
            if failures >= patience.attempts:
                raise DownloadError(
                    f"{again.error}; attempts: {failures}; {have} bytes are kept for the next call",
                    kind=again.error.kind,
                ) from again.error
            wait = min(patience.first_wait * 2 ** (failures - 1), patience.longest_wait)
            if again.wait is not None:
                if again.wait > patience.longest_wait:
                    raise DownloadError(
                        f"{again.error}; the server asks to come back in {again.wait:.0f} s", kind="busy"
                    ) from again.error
                wait = max(wait, again.wait)
            sleep(wait)


def checked_url(url: str, *, loopback: bool = False) -> str:
    """`url`, where it is https, or http to this machine and `loopback`. Raises DownloadError for others."""
    try:
        pieces = urllib.parse.urlsplit(url)
        host = pieces.hostname or ""
        pieces.port  # noqa: B018 - raises where the port is no number
    except ValueError as error:
        raise DownloadError(f"{url}: not a URL ({error})", kind="insecure") from None
    if pieces.username is not None or pieces.password is not None:
        raise DownloadError(f"{host}: a URL with a password in it is not followed", kind="insecure")
    if host and (pieces.scheme == "https" or (loopback and pieces.scheme == "http" and host in _LOOPBACK)):
        return url
    raise DownloadError(
        f"{url}: only https:// is followed, got {pieces.scheme or 'no scheme'}", kind="insecure"
    )


def discard(part: str | Path) -> None:
    """Remove a part file and what is known of it."""
    for path in (Path(part), _state(Path(part))):
        path.unlink(missing_ok=True)


def room_for(folder: Path, needed: int) -> None:
    """Raises DownloadError where the disk of `folder` has no room for `needed` bytes more."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"{folder}: needs {needed:,} bytes more, and {free:,} are free; make room, or take another "
            "folder, and run again",
            kind="disk",
        )


# --- one attempt


def _attempt(
    opener: urllib.request.OpenerDirector,
    url: str,
    part: Path,
    patience: Patience,
    report: Callable[[int, int | None], None] | None,
) -> int:
    known = _known(part, url)
    have = _size(part) if known is not None else 0
    if known is not None and have and have == known.length:
        return have  # whole: the call before ended between the last byte and the rename
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    if have and known is not None and known.validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.validator}
    try:
        reply = opener.open(urllib.request.Request(url, headers=headers), timeout=patience.timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and known is not None:
            return _end(error, url, part, known, have)
        raise _status_trouble(url, error) from None
    except (OSError, http.client.HTTPException) as error:
        raise _connection_trouble(url, error) from error
    with reply:
        start = _start(reply, url, part, known, have)
        return _receive(reply, url, part, start, report)


def _end(reply: Any, url: str, part: Path, known: _Remote, have: int) -> int:
    """What a server means that has nothing after the bytes we have: they are all, or another file's."""
    found = re.fullmatch(r"bytes \*/(\d+)", reply.headers.get("Content-Range", "").strip())
    etag = _remote(reply, url).etag
    if found and int(found[1]) == have and known.length is None and etag in (None, known.etag):
        return have
    discard(part)
    has = f"has {found[1]} bytes" if found else "has less"
    raise _Again(
        DownloadError(f"{url}: {has}, announced were {known.length or 'more'}", kind="changed"), 0
    ) from None


def _start(reply: Any, url: str, part: Path, known: _Remote | None, have: int) -> int:
    """Where the body of a reply belongs. Parts of another file, or of one not known, are dropped."""
    encoding = reply.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise DownloadError(f"{url}: came encoded as {encoding}, asked for as it is", kind="broken")
    remote = _remote(reply, url)
    if reply.status == 206 and known is not None:
        found = _CONTENT_RANGE.fullmatch(reply.headers.get("Content-Range", "").strip())
        same = found is not None and int(found[1]) == have
        if same and found is not None:
            total = int(found[3]) if found[3] != "*" else known.length
            same = known.length in (None, total) and (remote.etag in (None, known.etag) or known.etag is None)
            if same and total != known.length:  # told only now
                _keep(part, dataclasses.replace(known, length=total))
        if not same:
            discard(part)
            raise _Again(DownloadError(f"{url}: the file changed meanwhile", kind="changed"), 0)
        return have
    if reply.status != 200:
        raise DownloadError(f"{url}: answered {reply.status}, expected 200 (a file)", kind="broken")
    kind = reply.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise DownloadError(f"{url}: a web page ({kind}) came instead of the file", kind="page")
    discard(part)
    _keep(part, remote)
    return 0


def _receive(
    reply: Any, url: str, part: Path, start: int, report: Callable[[int, int | None], None] | None
) -> int:
    known = _known(part, url)
    total = known.length if known is not None else None
    if total is not None:
        room_for(part.parent, total - start)
    have = start
    with part.open("r+b" if start else "wb", buffering=0) as file:
        file.seek(start)
        while True:
            if report is not None:
                report(have, total)
            try:
                block = reply.read1(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _connection_trouble(url, error) from error
            if not block:
                break
            if have == 0 and looks_like_html(block):
                file.truncate(0)
                raise DownloadError(f"{url}: a web page came instead of the file", kind="page")
            _write(file, block, part)
            have += len(block)
            if total is not None and have > total:
                file.truncate(0)
                raise DownloadError(f"{url}: more than the {total} bytes announced came", kind="broken")
    if total is not None and have < total:
        raise _Again(
            DownloadError(f"{url}: the connection ended after {have} of {total} bytes", kind="network")
        )
    if have == 0:
        raise DownloadError(f"{url}: an empty file came", kind="broken")
    return have


def _write(file: IO[bytes], block: bytes, part: Path) -> None:
    try:
        while block:
            block = block[file.write(block) :]
    except OSError as error:
        if not is_full(error):
            raise
        free = ""
        with contextlib.suppress(OSError):
            free = f" ({shutil.disk_usage(part.parent).free:,} bytes free)"
        raise DownloadError(
            f"{part}: no room for more{free}: {error.strerror}; make room and run again, what came is kept",
            kind="disk",
        ) from error


# --- what a server says


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows only to addresses that `checked_url` lets pass."""

    max_redirections = 8

    def __init__(self, loopback: bool) -> None:
        self.loopback = loopback

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            checked_url(newurl, loopback=self.loopback)
        except DownloadError as error:
            fp.close()
            raise DownloadError(f"{req.full_url}: redirects to {error}", kind="insecure") from None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(loopback: bool) -> urllib.request.OpenerDirector:
    handlers: list[Any] = [_Redirects(loopback)]
    if loopback:
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    opener.addheaders = []
    return opener


def _remote(reply: Any, url: str) -> _Remote:
    etag = (reply.headers.get("ETag") or "").strip()
    length = (reply.headers.get("Content-Length") or "").strip()
    return _Remote(
        url,
        etag if etag.startswith('"') else None,  # a weak one does not promise the same bytes
        (reply.headers.get("Last-Modified") or "").strip() or None,
        int(length) if length.isdecimal() else None,
    )


def _status_trouble(url: str, error: urllib.error.HTTPError) -> Exception:
    said = f"{url}: {error.code} {error.reason}"
    if 300 <= error.code < 400:
        return DownloadError(said, kind="insecure")
    if error.code in (404, 410):
        return DownloadError(f"{said}: the link is dead", kind="gone")
    if error.code in (401, 403, 451):
        return DownloadError(f"{said}: the server does not give it to this program", kind="denied")
    if error.code in _AGAIN:
        return _Again(DownloadError(said, kind="busy"), _retry_after(error.headers.get("Retry-After")))
    return DownloadError(said, kind="broken")


def _retry_after(text: str | None) -> float | None:
    """Seconds of a `Retry-After`, which is a number or a date; None where it is neither."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _connection_trouble(url: str, error: Exception) -> Exception:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, DownloadError):
        return reason
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadError(
            f"{url}: its certificate does not hold ({reason.verify_message}); check the date of this "
            "machine and its certificates",
            kind="insecure",
        )
    name = str(reason) or type(reason).__name__
    return _Again(DownloadError(f"{url}: {name}", kind="network"))


# --- the part file


def _state(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _keep(part: Path, remote: _Remote) -> None:
    with whole_file(_state(part)) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(remote)) + "\n", encoding="utf-8")


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _known(part: Path, url: str) -> _Remote | None:
    """What is known of the file in `part`; None where it is nothing, or another address."""
    try:
        known = _Remote(**json.loads(_state(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return known if known.url == url else None
