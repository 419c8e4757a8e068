"""What went into a bake and what came out, as `manifest.json` beside the files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

MANIFEST = "manifest.json"


def make_manifest(
    folder: Path, requirement: str, wheel: str, members: Mapping[str, str]
) -> dict[str, object]:
    """Hashes of the wheel, of all its members that were read as one, and of each file below `folder`.

    `members`: name -> SHA-256. One hash stands for the 500 of them: of lines `<sha256>  <name>`, sorted.
    """
    lines = "".join(f"{sha}  {name}\n" for name, sha in sorted(members.items()))
    files = sorted(path for path in folder.rglob("*.npz"))
    return {
        "made_by": "tools/bake_open_models",
        "from": {
            "wheel": requirement,
            "sha256": wheel,
            "members": len(members),
            "members_sha256": hashlib.sha256(lines.encode()).hexdigest(),
        },
        "files": {path.relative_to(folder).as_posix(): sha256(path) for path in files},
    }


def broken_manifest(folder: Path, files: Iterable[str]) -> list[str]:
    """Of `files` below `folder`: which are not those that its manifest tells of, a sentence each."""
    try:
        told = dict(json.loads((folder / MANIFEST).read_text())["files"])
    except (ValueError, KeyError, TypeError) as error:
        return [f"{MANIFEST} cannot be read ({type(error).__name__}: {error}); bake anew"]
    return [
        f"{file} is not the file that {MANIFEST} tells of: it is of another bake, or was changed; bake anew"
        for file in files
        if told.get(file) != sha256(folder / file)
    ]


def write_manifest(folder: Path, manifest: Mapping[str, object]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
