"""Looks through the built site: nothing is loaded from elsewhere, and the reference has every public name.

python tools/site/check.py site
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import neuralannot

# What a browser fetches by itself; links that a reader clicks are not among it.
_LOADING = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "video": ("src", "poster"),
}
# A link element that is only a statement about the page.
_STATEMENTS = {"canonical", "prev", "next", "alternate"}


class _Loads(HTMLParser):
    """Collects what a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in _STATEMENTS:
            return
        self.found += [value for name in _LOADING.get(tag, ()) if (value := given.get(name))]


def loaded_from_elsewhere(site: Path) -> list[str]:
    """`page: address` of whatever pages and style sheets fetch from another place than the site itself."""
    found = []
    for page in sorted(site.rglob("*.html")):
        loads = _Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        found += [
            f"{page.relative_to(site)}: {x}" for x in loads.found if x.startswith(("http:", "https:", "//"))
        ]
    for sheet in sorted(site.rglob("*.css")):
        text = sheet.read_text(encoding="utf-8")
        found += [
            f"{sheet.relative_to(site)}: {x}" for x in ("url(http", 'url("http', "@import") if x in text
        ]
    return found


def public_packages() -> Iterator[str]:
    """Packages of the library that say what is public in them."""
    yield "neuralannot"
    for module in pkgutil.walk_packages(neuralannot.__path__, "neuralannot."):
        if module.ispkg and hasattr(importlib.import_module(module.name), "__all__"):
            yield module.name


def public_names() -> dict[str, set[str]]:
    """All that packages list in `__all__`, `neuralannot.quality.Quality` say: with its other path."""
    names: dict[str, set[str]] = {}
    for package in public_packages():
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            home = f"{getattr(value, '__module__', package)}.{getattr(value, '__qualname__', name)}"
            names[f"{package}.{name}"] = {f"{package}.{name}", home}
    return names


def documented_names(site: Path) -> set[str]:
    """What the reference has an entry for, from the inventory that mkdocstrings writes."""
    data = (site / "objects.inv").read_bytes()
    for _ in range(4):  # lines before the compressed part
        data = data[data.index(b"\n") + 1 :]
    return {line.split()[0] for line in zlib.decompress(data).decode().splitlines()}


def main(site: Path) -> int:
    """Says what is wrong. Returns the exit status."""
    documented = documented_names(site)
    trouble = [f"loaded from elsewhere: {line}" for line in loaded_from_elsewhere(site)]
    trouble += [
        f"not in the reference: {name}; give it a docstring, and its package a page in docs/reference"
        for name, paths in sorted(public_names().items())
        if not paths & documented
    ]
    print("\n".join(trouble) if trouble else f"{site}: nothing from elsewhere, every public name is there")
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
