"""viser's server: on loopback, on a free port, quiet, and never shared."""

from __future__ import annotations

import contextlib
import functools
import io
import ipaddress
import os
import re
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import viser

__all__ = ["LOOPBACK", "close_server", "is_loopback", "open_server", "require_viser"]

LOOPBACK = "127.0.0.1"
# Pages that may talk to a server on loopback: its own, also through a tunnel to another port of this machine.
_OWN_PAGES = re.compile(r"https?://(127(\.\d+){3}|localhost|\[::1\])(:\d+)?")
_PORT_VARIABLE = "_VISER_PORT_OVERRIDE"


def require_viser() -> Any:
    """The module viser. Raises ImportError that names the extra where it is not installed."""
    try:
        import viser
    except ImportError:
        raise ImportError('the viewer needs viser: pip install "neuralannot[view]", and run again') from None
    return viser


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_server(host: str, port: int) -> viser.ViserServer:
    """A running server; `port` 0 is one that is free.

    Raises ImportError that names the extra, ValueError for a port that is none, OSError where host or port
    cannot be used.
    """
    module = require_viser()
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be from 0 (any that is free) to 65535, got {port}")
    _check_free(host, port)

    class Server(module.ViserServer):  # type: ignore[name-defined, misc]  # imported late
        """viser can publish what it shows through a server of its makers; this one does not."""

        def request_share_url(self, verbose: bool = True) -> str | None:
            return None

    kept = os.environ.pop(_PORT_VARIABLE, None)
    try:
        # Its banner would come between our lines; the command prints where to look.
        with contextlib.redirect_stdout(io.StringIO()), _only_for_own_pages(host):
            return Server(host=host, port=port, label="neuralannot", verbose=False)
    finally:
        if kept is not None:
            os.environ[_PORT_VARIABLE] = kept


@contextlib.contextmanager
def _only_for_own_pages(host: str) -> Iterator[None]:
    """Servers that start meanwhile refuse other sites' pages, which a browser would let connect to loopback.

    viser has no option for it. Where others may come anyway (`host` is no loopback), all may.
    """
    if not is_loopback(host):
        yield
        return
    from websockets.asyncio import server as rooms

    serve: Any = rooms.serve
    rooms.serve = functools.partial(serve, origins=[None, _OWN_PAGES])  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        rooms.serve = serve  # type: ignore[misc]


def close_server(server: viser.ViserServer) -> None:
    """Stop a server, which would say so on stdout."""
    with contextlib.redirect_stdout(io.StringIO()):
        server.stop()


def _check_free(host: str, port: int) -> None:
    """viser takes the next port where one is used, and never ends where the host is none of this machine."""
    try:
        (family, kind, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        where = f"port {port} of {host}" if port else host
        raise OSError(
            f"cannot listen on {where}: {error.strerror or error}; leave --port out for one that is free"
        ) from None
