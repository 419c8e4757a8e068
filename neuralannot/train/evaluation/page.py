"""One HTML page of an evaluation: tables, plots, and the worst annotations on their images.

It needs nothing else: pictures are embedded, plots are SVG, and there is no script.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuralannot.train.evaluation.measured import Measured
from neuralannot.train.evaluation.overlays import Picture, pictures
from neuralannot.train.evaluation.plots import bars, histogram
from neuralannot.train.evaluation.report import Evaluation, Worst
from neuralannot.web_page import Section, check_page_name, document, image_tag, plain, write_document

__all__ = ["page_html", "write_page"]


def write_page(
    path: str | os.PathLike[str],
    evaluation: Evaluation,
    *,
    title: str = "",
    notes: Sequence[str] = (),
    worst: int = 12,
    images: str | os.PathLike[str] | None = None,
    body_models: str | os.PathLike[str] | None = None,
) -> Path:
    """Write one `.html` that holds all: tables, plots, the `worst` annotations over their images.

    `title`, `notes`: text to put at its head; all text is escaped. `images`: see `pictures`; an image that is
    missing is said in its place. The folder is made if it is not there; the file appears whole or not at all.
    Raises ValueError for another suffix than `.html` and a negative `worst`.
    """
    path = Path(path)
    check_page_name(path)
    chosen = evaluation.worst(worst)
    drawn = pictures(evaluation, [w.row for w in chosen], images=images, body_models=body_models)
    text = page_html(evaluation, list(zip(chosen, drawn, strict=True)), title=title, notes=notes)
    return write_document(path, text)


def page_html(
    evaluation: Evaluation,
    worst: Sequence[tuple[Worst, Picture]],
    *,
    title: str = "",
    notes: Sequence[str] = (),
) -> str:
    """The page as text; see `write_page`."""
    title = title or f"{evaluation.gt.release}: errors of {len(evaluation.gt)} annotations"
    tables = evaluation.tables()
    sections = []
    for number, measured in enumerate(evaluation.measured, 1):
        name = f"Against {measured.title}"
        own = [t for t in tables if t.title == name or t.title.startswith(f"{name}, by ")]
        body = [f"<p>{plain(measured.note)}</p>", f'<div class="scroll">{own[0].html()}</div>']
        body += [_plots(measured), *(f'<div class="scroll">{table.html()}</div>' for table in own[1:])]
        sections.append(Section(f"truth-{number}", name, "\n".join(body)))
    if worst:
        cards = "".join(_card(w, picture) for w, picture in worst)
        name = f"The {len(worst)} largest errors ({worst[0][0].measure})"
        sections.append(Section("worst", name, f'<div class="cards wide">{cards}</div>'))
    return document(title, "".join(f"<p>{plain(note)}</p>" for note in notes), sections)


def _plots(measured: Measured) -> str:
    drawn = [
        histogram(column.values, title=column.name, unit=column.unit)
        for column in measured.columns
        if not np.isnan(column.values).all()
    ]
    drawn += [
        bars(measured.joints, column.per_joint, title=f"{column.name}, by joint", unit=column.unit)
        for column in measured.columns
        if column.per_joint is not None and len(measured.joints)
    ]
    return f'<div class="plots">{"".join(drawn)}</div>'


def _card(worst: Worst, picture: Picture) -> str:
    said = f"<b>{plain(worst.name)}</b>: {plain(worst.measure)} {worst.value:.2f} {plain(worst.unit)}"
    shown = f'<p class="problem">{plain(picture.problem)}</p>'
    if picture.pixels is not None:
        shown = image_tag(picture.pixels, ", ".join(picture.tiles))
        said += f"<br>left to right: {plain(', '.join(picture.tiles))}"
    if picture.image:
        said += f'<br><span class="path">{plain(picture.image)}</span>'
    return f"<figure>{shown}<figcaption>{said}</figcaption></figure>\n"
