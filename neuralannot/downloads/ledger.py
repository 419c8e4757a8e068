"""`downloads.json`: what was fetched from where, its size and hash, and which terms were accepted."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuralannot.atomic import whole_file
from neuralannot.downloads.locks import locked

__all__ = ["LEDGER", "Ledger", "Record", "now", "read_ledger", "sha256_of", "update_ledger"]

LEDGER = "downloads.json"
_FORMAT = 1
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Record:
    """One file: its release, the `url` it came from (None: put there by hand), bytes, hash and time."""

    release: str
    url: str | None
    bytes: int
    sha256: str
    time: str


@dataclass(frozen=True)
class Ledger:
    """The records by file name, and by release the terms that were accepted: `{"text": ..., "time": ...}`."""

    files: dict[str, Record]
    licences: dict[str, dict[str, str]]


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def read_ledger(folder: str | Path) -> Ledger:
    """What `downloads.json` in a folder says; empty where there is none.

    Raises ValueError where it is not what `download` writes.
    """
    path = Path(folder) / LEDGER
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Ledger({}, {})
    try:
        return _ledger(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not the record of downloads that this program writes ({error}); move it away and run "
            "again: files that are there are then checked and recorded anew"
        ) from None


def update_ledger(folder: Path, change: Callable[[Ledger], None]) -> None:
    """Let `change` alter the ledger of a folder: read, changed and written while no other process does."""
    path = folder / LEDGER
    with locked(path):
        ledger = read_ledger(folder)
        change(ledger)
        document = {
            "format": _FORMAT,
            "files": {name: dataclasses.asdict(record) for name, record in sorted(ledger.files.items())},
            "licences": dict(sorted(ledger.licences.items())),
        }
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _ledger(document: Any) -> Ledger:
    if document["format"] != _FORMAT:
        raise ValueError(f"format {document['format']}, expected {_FORMAT}")
    files = {name: Record(**record) for name, record in document["files"].items()}
    for name, record in files.items():
        if not (
            isinstance(record.bytes, int) and isinstance(record.sha256, str) and len(record.sha256) == 64
        ):
            raise ValueError(f"no size and hash for {name}")
    licences = {
        name: {"text": kept["text"], "time": kept["time"]} for name, kept in document["licences"].items()
    }
    return Ledger(files, licences)
