"""One HTML page that needs nothing else: its frame, its style, its pictures.

There is no script, no link to anything outside, and the page's own policy forbids both. Light or dark as the
reader's system is. All text that comes from elsewhere goes through `plain`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from neuralannot.atomic import whole_file

__all__ = ["Section", "check_page_name", "document", "image_tag", "plain", "write_document"]

_JPEG_QUALITY = 85
# What no page may hold, and what turns the text around it: control characters, surrogates, bidi overrides.
_ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfc; --card: #fff; --ink: #22252a; --soft: #62676f;
  --line: #e2e3e1; --pale: #e4e5e3; --head: #f3f3f0; --fill: #6f9bc8; --mark: #b5482a; --link: #2c5f95;
  --warn: #8a4b12; --warn-paper: #fbf3e4; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --card: #1d2024; --ink: #dfe1e4;
  --soft: #9aa0a8; --line: #31353a; --pale: #33373c; --head: #24282d; --fill: #5f8fc0; --mark: #e58a68;
  --link: #8db8e4; --warn: #e6bd84; --warn-paper: #2b241a; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1240px; padding: 2.5rem 1.5rem 4rem; color: var(--ink);
  background: var(--paper); font: 15px/1.55 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, "Noto Sans", "Liberation Sans", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em;
  overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 3rem 0 .6rem; padding-bottom: .35rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
p { margin: .5rem 0 .9rem; max-width: 74ch; }
a { color: var(--link); }
code, .path { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
  font-size: .88em; overflow-wrap: anywhere; unicode-bidi: isolate; }
.soft { color: var(--soft); }
.with-contents { display: grid; grid-template-columns: 11rem minmax(0, 1fr); gap: 0 3rem; }
.with-contents > header { grid-column: 1 / -1; }
nav { position: sticky; top: 1.5rem; align-self: start; margin-top: 3rem; font-size: .92rem; }
nav ul { list-style: none; margin: 0; padding: 0; border-left: 1px solid var(--line); }
nav li { padding: .18rem 0 .18rem .9rem; }
nav a { text-decoration: none; color: var(--soft); }
nav a:hover, nav a:focus { color: var(--link); text-decoration: underline; }
.scroll { overflow: auto; max-height: 40em; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
caption { text-align: left; font-weight: 600; padding: .3em 0; }
th, td { padding: .3em .9em .3em 0; border-bottom: 1px solid var(--line); text-align: left;
  white-space: nowrap; vertical-align: top; }
th { position: sticky; top: 0; background: var(--paper); color: var(--soft); font-weight: 600; }
tbody th { position: static; color: var(--ink); font-weight: 400; }
td.text { white-space: normal; min-width: 16rem; max-width: 44rem; overflow-wrap: anywhere; }
.tables { display: flex; flex-wrap: wrap; gap: 0 3.5rem; align-items: flex-start; }
.number { text-align: right; }
td.number:last-child, th.number:last-child { padding-right: .3em; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .8rem;
  margin: 1.4rem 0 .5rem; padding: 0; }
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .7rem .9rem; }
.figures dt { color: var(--soft); font-size: .85rem; }
.figures dd { margin: 0; font-size: 1.4rem; font-weight: 600; font-variant-numeric: tabular-nums;
  letter-spacing: -.01em; }
.plots { columns: 24rem; column-gap: 1rem; margin: 1rem 0; }
.plots svg { display: block; margin-bottom: 1rem; break-inside: avoid; }
svg { width: 100%; height: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
svg { font-family: inherit; } svg text { font-size: 12px; }
details { margin: 1.2rem 0; } summary { cursor: pointer; color: var(--link); }
svg text.ink { fill: var(--ink); } svg text.mark { fill: var(--mark); } svg text.soft { fill: var(--soft); }
svg line.ink { stroke: var(--ink); } svg line.pale { stroke: var(--pale); }
svg line.mark { stroke: var(--mark); }
svg line.fill { stroke: var(--fill); } svg rect.fill { fill: var(--fill); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: 1rem;
  margin: 1rem 0; }
.cards.wide { grid-template-columns: repeat(auto-fill, minmax(min(30rem, 100%), 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  overflow: hidden; }
figure img { display: block; width: 100%; height: auto; }
figcaption { padding: .55rem .75rem .65rem; font-size: .88rem; line-height: 1.45; overflow-wrap: anywhere; }
.problem { color: var(--warn); margin: 0; padding: .75rem; font-size: .9rem; overflow-wrap: anywhere; }
.note { background: var(--warn-paper); color: var(--warn); border-radius: 8px; padding: .7rem .9rem;
  max-width: none; }
@media (max-width: 860px) { body { padding: 1.5rem 1rem 3rem; } .with-contents { display: block; }
  nav { position: static; margin-top: 1.5rem; } }
@media print { body { max-width: none; } nav { display: none; } .with-contents { display: block; }
  .scroll { max-height: none; } figure, svg { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page: `anchor`, letters and dashes; `title`, text; `body`, HTML."""

    anchor: str
    title: str
    body: str


def plain(words: object) -> str:
    """Any text as HTML that shows it: escaped, and what a page may not hold replaced."""
    return escape(_ODD.sub("\ufffd", str(words)))


def image_tag(pixels: np.ndarray, alt: str) -> str:
    """An `<img>` that holds the picture, (H, W, 3) uint8 RGB, as a JPEG."""
    data = base64.b64encode(_jpeg(pixels)).decode("ascii")
    height, width = pixels.shape[:2]
    return (
        f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{plain(alt)}" '
        'loading="lazy">'
    )


def document(title: str, head: str, sections: Sequence[Section], *, contents: bool = False) -> str:
    """The whole page. `head`: HTML below the title; `contents`: whether the sections are listed."""
    parts = [
        f'<section id="{plain(s.anchor)}">\n<h2>{plain(s.title)}</h2>\n{s.body}\n</section>' for s in sections
    ]
    listed = "".join(f'<li><a href="#{plain(s.anchor)}">{plain(s.title)}</a></li>' for s in sections)
    nav = f'<nav aria-label="Contents"><ul>{listed}</ul></nav>\n' if contents else ""
    layout = ' class="with-contents"' if contents else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{plain(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body{layout}>\n"
        f"<header><h1>{plain(title)}</h1>\n{head}</header>\n{nav}<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body></html>\n"
    )


def check_page_name(path: Path) -> None:
    """Raises ValueError for a name that browsers would not open as a page."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path}: a page is written as .html, got {path.suffix or 'no suffix'!r}")


def write_document(path: Path, text: str) -> Path:
    """Write a page whole or not at all; the folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _jpeg(pixels: np.ndarray) -> bytes:
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), options)
    assert done
    return data.tobytes()
