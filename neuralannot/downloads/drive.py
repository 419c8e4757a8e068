"""Google Drive, through `gdown`: an optional extra, imported when a file of Drive is asked for.

gdown knows Drive's pages of warning and quota, and resumes a part file. What it does not do is done here: a
part of another file, or of one that changed its size, is dropped; a page in a file's place is refused.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuralannot.downloads.http import Patience, discard, room_for
from neuralannot.downloads.trouble import DownloadError, is_full, looks_like_html

__all__ = ["DriveFile", "fetch_drive_file", "list_drive_folder"]

_STATE = "state.json"


@dataclass(frozen=True)
class DriveFile:
    """A file in a folder of Drive: its id, and its name there."""

    id: str
    name: str


class _Changed(Exception):
    """The file on Drive has another size than the one whose part is here."""


def list_drive_folder(folder_id: str, *, patience: Patience | None = None) -> list[DriveFile]:
    """The files in a shared folder and in those below it. Raises DownloadError."""
    gdown, patience = _gdown(), patience or Patience()
    try:
        found = _call(
            gdown.download_folder,
            id=folder_id,
            quiet=True,
            use_cookies=False,
            skip_download=True,
            timeout=patience.timeout,
        )
    except Exception as error:
        raise _trouble(error, f"https://drive.google.com/drive/folders/{folder_id}") from error
    return [
        DriveFile(str(entry.id), str(entry.path).replace("\\", "/").rsplit("/", 1)[-1]) for entry in found
    ]


def fetch_drive_file(
    file_id: str,
    part: str | Path,
    *,
    patience: Patience | None = None,
    report: Callable[[int, int | None], None] | None = None,
) -> int:
    """Fetch a file of Drive to `part`, going on where an earlier call ended. Returns its size in bytes.

    What is under way stands in the folder `<part>.drive`. Raises DownloadError: `extra` where gdown lacks.
    """
    gdown, patience, part = _gdown(), patience or Patience(), Path(part)
    try:
        _fetch(gdown, file_id, part, patience, report)
    except _Changed:
        shutil.rmtree(_folder(part), ignore_errors=True)
        _fetch(gdown, file_id, part, patience, report)
    return part.stat().st_size


def _fetch(
    gdown: Any,
    file_id: str,
    part: Path,
    patience: Patience,
    report: Callable[[int, int | None], None] | None,
) -> None:
    folder = _folder(part)
    state = _state(folder, file_id)
    target = folder / "file"
    url = f"https://drive.google.com/file/d/{file_id}/view"
    began = False

    def progress(have: int, total: int | None) -> None:
        nonlocal began
        if not began:
            began = True
            if total is not None and state["total"] not in (None, total):
                raise _Changed
            if total is not None:
                state["total"] = total
                (folder / _STATE).write_text(json.dumps(state), encoding="utf-8")
                room_for(folder, total - have)
        if report is not None:
            report(have, total)

    try:
        _call(
            gdown.download,
            id=file_id,
            output=str(target),
            quiet=True,
            use_cookies=False,
            resume=True,
            progress=progress,
            timeout=patience.timeout,
            retries=patience.attempts - 1,
        )
    except (_Changed, DownloadError):
        raise
    except Exception as error:
        raise _trouble(error, url) from error
    if not target.is_file():
        raise DownloadError(f"{url}: gdown wrote no file", kind="broken")
    with target.open("rb") as file:
        page = looks_like_html(file.read(1024))
    if page:
        shutil.rmtree(folder, ignore_errors=True)
        raise DownloadError(f"{url}: a web page came instead of the file", kind="quota")
    discard(part)  # with what is known of a part that came over https
    target.replace(part)
    shutil.rmtree(folder, ignore_errors=True)


def _folder(part: Path) -> Path:
    return part.with_name(part.name + ".drive")


def _state(folder: Path, file_id: str) -> dict[str, Any]:
    """What is known of the part in a folder, which is emptied where that is another file's, or several."""
    state: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    parts = list(folder.glob("file*")) if folder.is_dir() else []
    if state.get("id") != file_id or len(parts) > 1:
        shutil.rmtree(folder, ignore_errors=True)
        state = {"id": file_id, "total": None}
    folder.mkdir(exist_ok=True)
    (folder / _STATE).write_text(json.dumps(state), encoding="utf-8")
    return state


def _gdown() -> Any:
    try:
        import gdown
    except ImportError:
        raise DownloadError(
            'Google Drive needs gdown: pip install "neuralannot[download]", and run again', kind="extra"
        ) from None
    return gdown


def _call(function: Callable[..., Any], **arguments: Any) -> Any:
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise DownloadError(
            f'this gdown is too old ({error}): pip install -U "neuralannot[download]"', kind="extra"
        ) from None
    return function(**arguments)


def _trouble(error: Exception, url: str) -> DownloadError:
    """gdown's errors, requests' (which are OSErrors) and the disk's, as one kind."""
    if isinstance(error, DownloadError):
        return error
    said = " ".join(str(error).split()) or type(error).__name__
    inner = re.search(r"Caused by \w+\((.*)\)\)", said)  # urllib3 tells the address twice before the reason
    said = inner[1].strip("\"'") if inner else said
    lower = said.lower()
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OSError) and is_full(error):
        return DownloadError(f"{url}: no room on the disk: {said}; make room and run again", kind="disk")
    if status in (404, 410) or "status code 404" in lower:
        kind = "gone"
    elif any(text in lower for text in ("too many", "quota", "many accesses", "public link")):
        kind = "quota"
    elif status in (401, 403) or "status code 40" in lower or "permission" in lower:
        kind = "denied"
    elif isinstance(error, OSError) or "incomplete" in lower or "retries" in lower:
        kind = "network"
    else:
        kind = "broken"
    return DownloadError(f"{url}: {said}", kind=kind)
