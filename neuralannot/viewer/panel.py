"""The controls beside the scene: finding, stepping, what is drawn, the timeline, the list."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from neuralannot.viewer.listing import FILE_ORDER
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
    """The controls of a viewer. Callbacks come from viser's threads; the viewer takes one at a time."""

    def __init__(self, viewer: Viewer, server: viser.ViserServer) -> None:
        self._viewer, self._gui = viewer, server.gui
        server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="large")
        server.gui.main_panel.dock_right()
        self._page = 0
        self._playing: threading.Event | None = None
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
        self._place = gui.add_html("")
        step = gui.add_button_group("", ("Previous", "Next"))
        step.on_click(self._heard(self._step))
        hint = "476384, 476384/right, or a frame key such as 1/2/1/0"
        self._wanted = gui.add_text("Find", "", hint=hint)
        find = gui.add_button("Show this annotation")
        find.on_click(self._heard(lambda event: self._viewer.find(self._wanted.value)))
        self._found = gui.add_html("")

    def _switches(self, gui: Any) -> None:
        wish = self._viewer.wish
        views = VIEWS if self._viewer.gt.space == "world" else VIEWS[:-1]
        self._view = gui.add_dropdown("Look from", views, initial_value=_one_of(views, wish.view))
        self._view.on_update(self._heard(lambda event: self._viewer.show(view=self._view.value)))
        again = gui.add_button("Look from there again")
        again.on_click(self._heard(lambda event: self._viewer.show(move_eye=True)))
        self._toggles = {}
        for name, hint in _TOGGLES.items():
            box = gui.add_checkbox(name.capitalize(), getattr(wish, name), hint=hint)
            box.on_update(self._heard(partial(self._toggle, name)))
            self._toggles[name] = box
        self._opacity = gui.add_slider("Opacity", 0.0, 1.0, 0.05, wish.opacity)
        self._opacity.on_update(self._heard(lambda event: self._viewer.show(opacity=self._opacity.value)))
        hint = "where the colours of errors end, mm or px; 0: 100 mm, 20 mm of hands and faces, 20 px"
        self._limit = gui.add_number("Colours end at", float(wish.limit or 0), min=0.0, hint=hint)
        self._limit.on_update(self._heard(lambda event: self._viewer.show(limit=self._limit.value or None)))
        if self._viewer.other is None:
            return
        self._layout = gui.add_dropdown("Two files", LAYOUTS, initial_value=wish.layout)
        self._layout.on_update(self._heard(lambda event: self._viewer.show(layout=self._layout.value)))
        self._colours = gui.add_dropdown("Meshes' colours", COLOURS, initial_value=wish.colours)
        self._colours.on_update(self._heard(lambda event: self._viewer.show(colours=self._colours.value)))

    def _time(self, gui: Any) -> None:
        self._sequence = gui.add_html("", visible=False)
        self._frame = gui.add_slider("Frame", 0, 1, 1, 0, visible=False)
        self._frame.on_update(self._heard(lambda event: self._viewer.to_frame(int(self._frame.value))))
        self._play = gui.add_button("Play", visible=False)
        self._play.on_click(self._heard(lambda event: self._toggle_play()))
        self._speed = gui.add_slider("Frames a second", 1, 30, 1, 10, visible=False)

    def _list(self, gui: Any) -> None:
        orders = self._viewer.listing.orders
        self._order = gui.add_dropdown("Sort", orders, initial_value=FILE_ORDER)
        self._order.on_update(self._heard(lambda event: self._viewer.sort(self._order.value)))
        if len(orders) == 1:
            gui.add_html(_small("To sort by quality, measure it once: neuralannot quality FILE"))
        self._rows = []
        for k in range(PAGE_SIZE):
            button = gui.add_button("", visible=False)
            button.on_click(self._heard(partial(self._pick, k)))
            self._rows.append(button)
        turn = gui.add_button_group("", ("Page before", "Next page"))
        turn.on_click(self._heard(self._turn))
        self._number = gui.add_html("")

    # --- what the user does

    def _heard(self, act: Callable[[Any], object]) -> Callable[[Any], None]:
        """What a user changes acts; what the program changes does not, and mistakes are said in the panel."""

        def callback(event: Any) -> None:
            if event.client is None:
                return
            try:
                act(event)
                said = ""
            except (ValueError, KeyError, IndexError, OSError, TypeError) as error:
                text = error.args[0] if isinstance(error, KeyError) and error.args else error
                said = _small(str(text), colour="#b00020")
            self._found.content = said

        return callback

    def _step(self, event: Any) -> None:
        self._viewer.step(-1 if event.target.value == "Previous" else 1)

    def _toggle(self, name: str, event: Any) -> None:
        self._viewer.show(**{name: event.target.value})

    def _turn(self, event: Any) -> None:
        by = -1 if event.target.value == "Page before" else 1
        pages = self._viewer.listing.pages(PAGE_SIZE)
        self._page = min(max(self._page + by, 0), pages - 1)
        self._fill_list()

    def _pick(self, k: int, event: Any) -> None:
        rows = self._viewer.listing.page(self._page, PAGE_SIZE)
        if k < len(rows):
            self._viewer.show(row=int(rows[k]), move_eye=True)

    def _toggle_play(self) -> None:
        if self._playing is not None:
            self.stop()
            return
        self._playing, self._play.label = threading.Event(), "Pause"
        threading.Thread(target=self._run, args=(self._playing,), daemon=True).start()

    def _run(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            begun = time.monotonic()
            if not self._viewer.advance():
                break
            stopped.wait(max(0.0, 1 / self._speed.value - (time.monotonic() - begun)))
        if self._playing is stopped:
            self.stop()

    def stop(self) -> None:
        """Stop playing."""
        if self._playing is not None:
            self._playing.set()
            self._playing, self._play.label = None, "Play"

    # --- what is shown

    def refresh(self, *, to_page: bool) -> None:
        """Say what the viewer shows. `to_page`: turn the list to the row's page."""
        viewer = self._viewer
        place = viewer.listing.place(viewer.wish.row)
        self._place.content = _small(f"{place + 1} of {len(viewer.listing)}, {viewer.listing.sorted_by}")
        self._facts.content, self._legend.content = viewer.content.facts, viewer.content.legend
        for name, box in self._toggles.items():
            box.value = getattr(viewer.wish, name)
        self._view.value = _one_of(self._view.options, viewer.wish.view)
        if viewer.other is not None:
            self._layout.value, self._colours.value = viewer.wish.layout, viewer.wish.colours
        self._opacity.value, self._limit.value = viewer.wish.opacity, float(viewer.wish.limit or 0)
        self._order.value = viewer.listing.sorted_by
        self._refresh_time()
        if to_page:
            self._page = place // PAGE_SIZE
        self._fill_list()

    def _refresh_time(self) -> None:
        timeline = self._viewer.timeline
        there = timeline is not None and len(timeline) > 1
        for handle in (self._sequence, self._frame, self._play, self._speed):
            handle.visible = there
        if timeline is None or not there:
            return
        at = self._viewer.frame_place
        self._frame.max = len(timeline) - 1
        self._frame.value = at
        said = f"{timeline.name}: frame {timeline.frames[at]}, {at + 1} of {len(timeline)}"
        self._sequence.content = _small(said)

    def _fill_list(self) -> None:
        listing = self._viewer.listing
        rows = listing.page(self._page, PAGE_SIZE)
        names = listing.names(rows)
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
