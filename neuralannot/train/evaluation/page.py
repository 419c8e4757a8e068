"""One HTML page of an evaluation: tables, plots, and the worst annotations on their images.

It needs nothing else: pictures are embedded, plots are SVG, and there is no script.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from neuralannot.atomic import whole_file
from neuralannot.train.evaluation.measured import Measured
from neuralannot.train.evaluation.overlays import Picture, pictures
from neuralannot.train.evaluation.plots import bars, histogram
from neuralannot.train.evaluation.report import Evaluation, Worst

__all__ = ["page_html", "write_page"]

_JPEG_QUALITY = 85
_STYLE = """
:root { color-scheme: light; }
body { font: 14px/1.45 sans-serif; color: #222; background: #fff; margin: 2em auto; max-width: 1180px;
  padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ccc; }
.scroll { overflow-x: auto; max-height: 36em; overflow-y: auto; margin: 1em 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: bold; padding: .3em 0; }
th, td { padding: .15em .7em; border-bottom: 1px solid #e4e4e4; text-align: left; white-space: nowrap; }
th { position: sticky; top: 0; background: #f4f4f4; }
.number { text-align: right; }
.plots { display: flex; flex-wrap: wrap; gap: 1em; align-items: flex-start; }
svg { max-width: 100%; height: auto; border: 1px solid #e4e4e4; }
.cards { display: flex; flex-wrap: wrap; gap: 1em; }
figure { margin: 0; border: 1px solid #ccc; padding: .5em; max-width: 100%; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { padding-top: .3em; overflow-wrap: anywhere; }
.problem { color: #8a2b12; max-width: 30em; }
"""


def write_page(
    path: str | os.PathLike,
    evaluation: Evaluation,
    *,
    title: str = "",
    notes: Sequence[str] = (),
    worst: int = 12,
    images: str | os.PathLike | None = None,
    body_models: str | os.PathLike | None = None,
) -> Path:
    """Write one `.html` that holds all: tables, plots, the `worst` annotations over their images.

    `title`, `notes`: text to put at its head; all text is escaped. `images`: see `pictures`; an image that is
    missing is said in its place. The folder is made if it is not there; the file appears whole or not at all.
    Raises ValueError for another suffix than `.html` and a negative `worst`.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path}: a page is written as .html, got {path.suffix or 'no suffix'!r}")
    chosen = evaluation.worst(worst)
    drawn = pictures(evaluation, [w.row for w in chosen], images=images, body_models=body_models)
    text = page_html(evaluation, list(zip(chosen, drawn, strict=True)), title=title, notes=notes)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


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
    body = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(note)}</p>" for note in notes)]
    for measured in evaluation.measured:
        name = f"Against {measured.title}"
        body += [f"<h2>{escape(name)}</h2>", f"<p>{escape(measured.note)}</p>"]
        own = [t for t in tables if t.title == name or t.title.startswith(f"{name}, by ")]
        body += [f'<div class="scroll">{own[0].html()}</div>', _plots(measured)]
        body += [f'<div class="scroll">{table.html()}</div>' for table in own[1:]]
    if worst:
        first = worst[0][0]
        body.append(f"<h2>The {len(worst)} largest errors ({escape(first.measure)})</h2>")
        body.append(f'<div class="cards">{"".join(_card(w, picture) for w, picture in worst)}</div>')
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


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
    said = f"<b>{escape(worst.name)}</b>: {escape(worst.measure)} {worst.value:.2f} {escape(worst.unit)}"
    shown = f'<p class="problem">{escape(picture.problem)}</p>'
    if picture.pixels is not None:
        data = base64.b64encode(_jpeg(picture.pixels)).decode("ascii")
        height, width = picture.pixels.shape[:2]
        shown = (
            f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" '
            f'alt="{escape(", ".join(picture.tiles))}">'
        )
        said += f"<br>left to right: {escape(', '.join(picture.tiles))}"
    if picture.image:
        said += f"<br>{escape(picture.image)}"
    return f"<figure>{shown}<figcaption>{said}</figcaption></figure>\n"


def _jpeg(pixels: np.ndarray) -> bytes:
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), options)
    assert done
    return data.tobytes()
