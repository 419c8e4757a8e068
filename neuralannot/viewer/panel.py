"""The controls beside the scene: finding, stepping, what is drawn, the timeline, the list."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from neuralannot.viewer.listing import FILE_ORDER
from neuralannot.viewer.turns import Turns
from neuralannot.viewer.wish import COLOURS, LAYOUTS, VIEWS
from neuralannot.web_page import plain

if TYPE_CHECKING:
    import viser

    from neuralannot.viewer.viewer import Viewer

__all__ = ["PAGE_SIZE", "Panel"]

PAGE_SIZE = 12
_TOGGLES = {
    "mesh": "the bodies",
    "joints": "the model's joints, and bones between them",
    "errors": "annotated joints in the colours of their errors, lines to the fit's",
    "overlay": "the projected bodies drawn on the image",
    "image": "the image on its plane",
}


class Panel:
    """The controls of a viewer. What a user does with them is noted at once and done when its turn comes."""

    def __init__(self, viewer: Viewer, server: viser.ViserServer) -> None:
        self._viewer, self._gui = viewer, server.gui
        server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="large")
        server.gui.main_panel.dock_right()
        self._page = 0
        self._listed: list[int] = []  # the rows on its buttons
        self._playing: threading.Event | None = None
        self._turns = Turns(self._say)
        gui = self._gui
        self._steps(gui)
        self._facts = gui.add_html("")
        self._legend = gui.add_html("")
        tabs = gui.add_tab_group()
        with tabs.add_tab("Show"):
            self._switches(gui)
            self._time(gui)
        with tabs.add_tab("List"):
            self._list(gui)

    # --- made once

    def _steps(self, gui: Any) -> None:
        viewer = self._viewer
        self._place = gui.add_html("")
        step = gui.add_button_group("", ("Previous", "Next"))
        step.on_click(self._heard(lambda e: partial(viewer.step, -1 if e.target.value == "Previous" else 1)))
        hint = "476384, 476384/right, or a frame key such as 1/2/1/0"
        self._wanted = gui.add_text("Find", "", hint=hint)
        find = gui.add_button("Show this annotation")
        find.on_click(self._heard(lambda event: partial(viewer.find, self._wanted.value)))
        self._found = gui.add_html("")

    def _switches(self, gui: Any) -> None:
        wish = self._viewer.wish
        views = VIEWS if self._viewer.gt.space == "world" else VIEWS[:-1]
        self._view = gui.add_dropdown("Look from", views, initial_value=_one_of(views, wish.view))
        self._view.on_update(self._moved("view"))
        again = gui.add_button("Look from there again")
        again.on_click(self._heard(lambda event: partial(self._viewer.show, move_eye=True)))
        self._toggles = {}
        for name, hint in _TOGGLES.items():
            box = gui.add_checkbox(name.capitalize(), getattr(wish, name), hint=hint)
            box.on_update(self._moved(name))
            self._toggles[name] = box
        self._opacity = gui.add_slider("Opacity", 0.0, 1.0, 0.05, wish.opacity)
        self._opacity.on_update(self._moved("opacity"))
        hint = "where the colours of errors end, mm or px; 0: 100 mm, 20 mm of hands and faces, 20 px"
        self._limit = gui.add_number("Colours end at", float(wish.limit or 0), min=0.0, hint=hint)
        self._limit.on_update(
            self._heard(lambda event: partial(self._viewer.show, limit=event.target.value or None), "limit")
        )
        if self._viewer.other is None:
            return
        self._layout = gui.add_dropdown("Two files", LAYOUTS, initial_value=wish.layout)
        self._layout.on_update(self._moved("layout"))
        self._colours = gui.add_dropdown("Meshes' colours", COLOURS, initial_value=wish.colours)
        self._colours.on_update(self._moved("colours"))

    def _time(self, gui: Any) -> None:
        self._sequence = gui.add_html("", visible=False)
        self._frame = gui.add_slider("Frame", 0, 1, 1, 0, visible=False)
        to_frame = self._viewer.to_frame
        self._frame.on_update(self._heard(lambda event: partial(to_frame, int(event.target.value)), "frame"))
        self._play = gui.add_button("Play", visible=False)
        self._play.on_click(self._heard(lambda event: self._toggle_play))
        self._speed = gui.add_slider("Frames a second", 1, 30, 1, 10, visible=False)

    def _list(self, gui: Any) -> None:
        orders = self._viewer.listing.orders
        self._order = gui.add_dropdown("Sort", orders, initial_value=FILE_ORDER)
        sort = self._viewer.sort
        self._order.on_update(self._heard(lambda event: partial(sort, event.target.value), "order"))
        if len(orders) == 1:
            gui.add_html(_small("To sort by quality, measure it once: neuralannot quality FILE"))
        self._rows = []
        for k in range(PAGE_SIZE):
            button = gui.add_button("", visible=False)
            button.on_click(self._heard(partial(self._pick, k)))
            self._rows.append(button)
        turn = gui.add_button_group("", ("Page before", "Next page"))
        turn.on_click(
            self._heard(lambda event: partial(self._turn, -1 if event.target.value == "Page before" else 1))
        )
        self._number = gui.add_html("")

    # --- what the user does

    def _heard(
        self, ask: Callable[[Any], Callable[[], object]], control: str | None = None
    ) -> Callable[[Any], Coroutine[Any, Any, None]]:
        """What a user changes is asked for; what the program changes is not. `control`: one whose last value
        alone counts."""

        async def callback(event: Any) -> None:  # on viser's loop: before anything else changes the value
            if event.client is not None:
                self._turns.ask(ask(event), control)

        return callback

    def _moved(self, name: str) -> Callable[[Any], Coroutine[Any, Any, None]]:
        """A control of the field `name` of `Wish`."""
        return self._heard(lambda event: partial(self._viewer.show, **{name: event.target.value}), name)

    def _say(self, text: str) -> None:
        self._found.content = _small(text, colour="#b00020") if text else ""

    def _turn(self, by: int) -> None:
        pages = self._viewer.listing.pages(PAGE_SIZE)
        self._page = min(max(self._page + by, 0), pages - 1)
        self._fill_list()

    def _pick(self, k: int, event: Any) -> Callable[[], object]:
        row = self._listed[k] if k < len(self._listed) else self._viewer.wish.row  # a button that just went
        return partial(self._viewer.show, row=row, move_eye=True)

    def _toggle_play(self) -> None:
        if self._playing is not None:
            self._end_playing()
            return
        self._playing, self._play.label = threading.Event(), "Pause"
        threading.Thread(target=self._run, args=(self._playing,), daemon=True).start()

    def _run(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            begun = time.monotonic()
            self._turns.ask(partial(self._advance, stopped)).wait()
            stopped.wait(max(0.0, 1 / self._speed.value - (time.monotonic() - begun)))

    def _advance(self, stopped: threading.Event) -> None:
        """The next frame, in turn with what users do; where there is none, or none to be shown, it ends."""
        goes_on = False
        try:
            goes_on = stopped.is_set() or self._viewer.advance()
        finally:
            if not goes_on:
                self._end_playing()

    def _end_playing(self) -> None:
        if self._playing is not None:
            self._playing.set()
            self._playing, self._play.label = None, "Play"

    def stop(self) -> None:
        """Do nothing more."""
        self._turns.stop()
        self._end_playing()

    # --- what is shown

    def refresh(self, *, to_page: bool) -> None:
        """Say what the viewer shows. `to_page`: turn the list to the row's page."""
        viewer = self._viewer
        place = viewer.listing.place(viewer.wish.row)
        self._place.content = _small(f"{place + 1} of {len(viewer.listing)}, {viewer.listing.sorted_by}")
        self._facts.content, self._legend.content = viewer.content.facts, viewer.content.legend
        for name, box in self._toggles.items():
            self._set(name, box, getattr(viewer.wish, name))
        self._set("view", self._view, _one_of(self._view.options, viewer.wish.view))
        if viewer.other is not None:
            self._set("layout", self._layout, viewer.wish.layout)
            self._set("colours", self._colours, viewer.wish.colours)
        self._set("opacity", self._opacity, viewer.wish.opacity)
        self._set("limit", self._limit, float(viewer.wish.limit or 0))
        self._set("order", self._order, viewer.listing.sorted_by)
        self._refresh_time()
        if to_page:
            self._page = place // PAGE_SIZE
        self._fill_list()

    def _set(self, name: str, control: Any, value: object) -> None:
        """Let a control say what is shown, but not one that a user has moved on meanwhile."""
        if not self._turns.awaits(name):
            control.value = value

    def _refresh_time(self) -> None:
        timeline = self._viewer.timeline
        there = timeline is not None and len(timeline) > 1
        for handle in (self._sequence, self._frame, self._play, self._speed):
            handle.visible = there
        if timeline is None or not there:
            return
        at = self._viewer.frame_place
        self._frame.max = len(timeline) - 1
        self._set("frame", self._frame, at)
        said = f"{timeline.name}: frame {timeline.frames[at]}, {at + 1} of {len(timeline)}"
        self._sequence.content = _small(said)

    def _fill_list(self) -> None:
        listing = self._viewer.listing
        rows = listing.page(self._page, PAGE_SIZE)
        names, self._listed = listing.names(rows), rows.tolist()
        for k, button in enumerate(self._rows):
            button.visible = k < len(rows)
            if k < len(rows):
                button.label = names[k]
                button.color = "blue" if rows[k] == self._viewer.wish.row else "gray"
        self._number.content = _small(f"page {self._page + 1} of {listing.pages(PAGE_SIZE)}")


def _one_of(views: Sequence[str], view: str) -> str:
    """The view, or what is shown for that of the world where there is none."""
    return view if view in views else "around"


def _small(text: str, *, colour: str = "inherit") -> str:
    return f'<div style="font-size:.8em;padding:0 .75em;color:{colour}">{plain(text)}</div>'
