"""What goes wrong when a file is fetched: one kind of error, and what to do about it by hand."""

from __future__ import annotations

import errno

__all__ = ["KINDS", "DownloadError", "is_full", "looks_like_html"]

KINDS = {
    "gone": "the link is dead",
    "denied": "the server refuses it",
    "quota": "Google Drive's quota for it is used up, or it is not shared any more",
    "busy": "the server is busy",
    "network": "the connection does not work",
    "page": "a web page came instead of the file",
    "broken": "what came is not the file",
    "insecure": "the link is not safe to follow",
    "disk": "the disk cannot take it",
    "changed": "the file is not the one that was recorded",
    "extra": "gdown is not there",
    "manual": "there is no direct link",
}
_FULL = {errno.ENOSPC, errno.EFBIG, *(getattr(errno, name) for name in ("EDQUOT",) if hasattr(errno, name))}


class DownloadError(OSError):
    """A file was not had, or is not what it was. `kind` is one of `KINDS`; the message says what to do."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def is_full(error: OSError) -> bool:
    """Whether an error of writing means that there is no room: disk, quota or the largest file allowed."""
    return error.errno in _FULL


def looks_like_html(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a web page (an error or quota page)."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    return text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--"))
