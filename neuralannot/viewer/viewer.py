"""`Viewer`: a page on this machine that shows annotations."""

from __future__ import annotations

import os
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from neuralannot.pseudo_gt import PseudoGT
from neuralannot.viewer.content import Content, decide
from neuralannot.viewer.listing import Listing
from neuralannot.viewer.photos import Photos
from neuralannot.viewer.server import LOOPBACK, close_server, is_loopback, open_server
from neuralannot.viewer.shots import Timeline
from neuralannot.viewer.source import Source
from neuralannot.viewer.wish import Wish

__all__ = ["Viewer"]


class Viewer:
    """Serves a page that shows the rows of `gt`, and beside them those of `other`, until it is stopped.

    All windows that are open on the page show the same.
    """

    def __init__(
        self,
        gt: PseudoGT,
        other: PseudoGT | None = None,
        *,
        images: str | os.PathLike[str] | None = None,
        names: tuple[str, str] = ("first", "second"),
        body_models: str | os.PathLike[str] | None = None,
        host: str = LOOPBACK,
        port: int = 0,
        row: int = 0,
        **wish: Any,
    ) -> None:
        """`images`: the data set's image folder; `names` of the files; `body_models` as of `forward`.

        `host`: who may look, this machine alone by default; a warning says where that is not so. `port`: 0
        for one that is free. `row`, `wish`: what is shown first, the fields of `Wish`.

        Raises ValueError where `gt` has no rows or a field of `wish` has no such value, TypeError for an
        unknown one, IndexError for a row that is not there, FileNotFoundError where `images` is no folder,
        ImportError that names the extra where viser is not installed, OSError for a host or port that cannot
        be used.
        """
        if images is not None and not Path(images).is_dir():
            raise FileNotFoundError(f"{images}: no such image folder; leave it out to look without images")
        self.gt, self.other = gt, other
        self.listing = Listing(gt)
        self.listing.row(0)  # raises without rows
        if not 0 <= row < len(gt):
            raise IndexError(f"row {row}: there are {len(gt)} rows")
        self._sources = tuple(
            Source(one, name, body_models)
            for one, name in zip((gt, other), names, strict=True)
            if one is not None
        )
        self._photos = Photos(images)
        self._wish = Wish(row, **wish)
        self._lock = threading.RLock()
        self._content = decide(self._sources, self._photos, self._wish)
        if not is_loopback(host):
            warnings.warn(
                f"the page is served on {host}: whoever reaches this machine can see these annotations and "
                "images, which may be under licence; nothing asks for a password",
                stacklevel=2,
            )
        self._stopped = threading.Event()
        self._server = open_server(host, port)
        try:
            self._open()
        except BaseException:
            self.stop()
            raise

    def _open(self) -> None:
        from neuralannot.viewer.panel import Panel
        from neuralannot.viewer.scene import Scene

        self._scene = Scene(self._server)
        self._panel = Panel(self, self._server)
        self._server.on_client_connect(self._scene.enter)
        self._server.on_client_disconnect(self._scene.leave)
        self._show(move_eye=True)

    # --- where it is

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.get_port())

    @property
    def url(self) -> str:
        """What to open in a browser on this machine."""
        host = self._server.get_host()
        shown = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.port}"

    def wait(self) -> None:
        """Wait until it is stopped, by `stop` or Ctrl-C."""
        while not self._stopped.wait(0.5):
            pass

    def stop(self) -> None:
        """Close the page, once what has begun is shown. Nothing where it was stopped before."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        panel = getattr(self, "_panel", None)
        if panel is not None:
            panel.stop()
        with self._lock:
            close_server(self._server)

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- what it shows

    @property
    def wish(self) -> Wish:
        """What is asked for."""
        return self._wish

    @property
    def content(self) -> Content:
        """What is shown."""
        return self._content

    @property
    def timeline(self) -> Timeline | None:
        """The sequence of the row that is shown; None where rows are no frames."""
        return self._sources[0].shots.timeline(self._wish.row)

    @property
    def frame_place(self) -> int:
        """Where the row that is shown is in its sequence."""
        timeline = self.timeline
        if timeline is None:
            return 0
        return int((timeline.rows == self._wish.row).argmax())

    def show(self, *, move_eye: bool | None = None, **changes: Any) -> None:
        """Show something else: fields of `Wish`. `move_eye`: look from there; None for a new row or view.

        Raises as making a `Viewer` does, RuntimeError after `stop`.
        """
        with self._lock:
            if self._stopped.is_set():
                raise RuntimeError("the viewer was stopped: nobody sees what it shows; make another")
            wish = replace(self._wish, **changes)
            if not 0 <= wish.row < len(self.gt):
                raise IndexError(f"row {wish.row}: there are {len(self.gt)} rows")
            moved = (wish.row, wish.view, wish.layout) != (
                self._wish.row,
                self._wish.view,
                self._wish.layout,
            )
            self._content = decide(self._sources, self._photos, wish)
            self._wish = wish
            self._show(move_eye=moved if move_eye is None else move_eye)

    def _show(self, *, move_eye: bool) -> None:
        self._scene.show(self._content, move_eye=move_eye)
        self._panel.refresh(to_page=move_eye)

    def step(self, by: int) -> None:
        """Show the row `by` places on in the list; at an end that of the end."""
        with self._lock:
            self.show(row=self.listing.row(self.listing.place(self._wish.row) + by))

    def find(self, text: str) -> None:
        """Show the row of an id or frame key. Raises as `Listing.find`."""
        self.show(row=self.listing.find(text), move_eye=True)

    def sort(self, by: str) -> None:
        """Sort the list, and show its first. Raises as `Listing.sort`."""
        with self._lock:
            self.listing.sort(by)
            self.show(row=self.listing.row(0), move_eye=True)

    def to_frame(self, place: int) -> None:
        """Show another frame of the sequence, from where one looks now. Nothing where there is none."""
        with self._lock:
            timeline = self.timeline
            if timeline is not None and 0 <= place < len(timeline):
                self.show(row=int(timeline.rows[place]), move_eye=False)

    def advance(self) -> bool:
        """Show the next frame, after the last the first; False where rows are no frames."""
        with self._lock:
            timeline = self.timeline
            if timeline is None or self._stopped.is_set():
                return False
            self.to_frame((self.frame_place + 1) % len(timeline))
            return True
