"""Whether a file is what its release says: whole, JSON all through, with the parameters of its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuralannot.catalog import Release
from neuralannot.downloads.trouble import DownloadError, looks_like_html
from neuralannot.json_chunks import explain_bad_chunk, json_chunks

__all__ = ["check_release_file"]

_FIELD = {"smpl": "pose", "smplx": "body_pose", "mano": "pose", "flame": "root_pose"}


def check_release_file(path: Path, release: Release) -> None:
    """Read a file once, from its first brace to its last.

    Raises DownloadError where it is a web page, cut off, no JSON, or another release's.
    """
    import simdjson  # with numpy below it; only a check pays for it

    with path.open("rb") as file:
        head = file.read(1024)
    if looks_like_html(head):
        raise DownloadError(
            f"{path}: a web page, not {release.name}; a browser saved the page instead of the file",
            kind="page",
        )
    depth = len(release.key_names) - ("{subject}" in release.files)
    leaf = None
    try:
        for chunk in json_chunks(path, depth):
            try:
                document = simdjson.Parser().parse(chunk.text)
            except (ValueError, RuntimeError, UnicodeDecodeError):
                raise explain_bad_chunk(path, chunk) from None
            leaf = leaf or _first_leaf(document, release)
    except ValueError as error:
        raise DownloadError(f"{error}: not a whole file of {release.name}", kind="broken") from None
    field = release.leaf_key or _FIELD[release.model]
    if leaf is None or field not in leaf:
        found = "nothing" if leaf is None else ", ".join(leaf)
        raise DownloadError(
            f"{path}: not {release.name}: its first fit holds {found}, expected {field!r} there",
            kind="broken",
        )


def _first_leaf(document: Any, release: Release) -> list[str] | None:
    """The keys of the first fit among the entries of a chunk; None where they are all null."""
    for entry in document.values():
        found = [entry]
        if release.layout in ("hands", "hand-frames") and hasattr(entry, "values"):
            found = list(entry.values())
        for leaf in found:
            if leaf is not None:
                return list(leaf.keys()) if hasattr(leaf, "keys") else [type(leaf).__name__]
    return None
