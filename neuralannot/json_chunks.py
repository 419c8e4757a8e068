"""Splitting a large JSON file at the borders of its entries, so that only a chunk is parsed at a time."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 19  # some 250 leaves: lookups in a chunk are linear, and parsing stays in the cache

_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*")
_BRACE = re.compile(rb"[{}]")
_KEY_BEFORE = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:\s*$')
_SEPARATOR = re.compile(rb"[\s,]*")


@dataclass(frozen=True)
class Chunk:
    """Whole entries of one object: `text` is that object with these entries alone.

    `prefix`: the keys that lead to the object; `offset`: where `text` begins in the file, its brace left out.
    """

    prefix: tuple[str, ...]
    text: bytes
    offset: int


def json_chunks(path: Path, depth: int) -> Iterator[Chunk]:
    """The entries `depth` keys deep in the JSON object in `path`, some hundred at a time, in file order.

    With depth 1 the entries are the file's own; with depth 3 those of `[key][key]`. Strings that hold braces
    are not expected in released files; where they break the split, parsing the chunk fails.

    Raises ValueError where the file is empty, not an object, or ends before its last brace.
    """
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty; expected a JSON object, download it again")
    with path.open("rb") as file:
        begin = _START.match(file.read(4096))
        start = begin.end() if begin else 0
        file.seek(start)
        head = file.read(20)
        if head[:1] != b"{":
            shown = head.decode("utf-8", "replace")
            raise ValueError(f"{path}: not a JSON object: it begins with {shown!r}; expected '{{'")
        if depth == 1:
            yield from _split_top(path, file, start + 1)
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            yield from _split_deep(path, text, start, depth)


def _split_top(path: Path, file: BinaryIO, start: int) -> Iterator[Chunk]:
    """Split at depth 1 by counting braces, which costs next to nothing."""
    size, window = path.stat().st_size, CHUNK_BYTES
    while True:
        file.seek(start)
        piece = file.read(window)
        lead = _after_separator(piece, 0)
        start, piece = start + lead, piece[lead:]
        level = 1 + piece.count(b"{") - piece.count(b"}")
        if start + len(piece) == size:
            stripped = piece.rstrip()
            if level != 0 or not stripped.endswith(b"}"):
                raise _truncated(path, size, piece)
            yield Chunk((), b"{" + stripped, start - 1)
            return
        cut = _last_border(piece, level)
        if cut == 0:
            window *= 2  # one entry fills the window
            continue
        yield Chunk((), b"{" + piece[:cut] + b"}", start - 1)
        start += cut
        window = CHUNK_BYTES


def _last_border(piece: bytes, level: int) -> int:
    """Where the last whole entry of `piece` ends, given the depth of braces at its end; 0 where none does."""
    end = len(piece)
    while True:
        position = max(piece.rfind(b"}", 0, end), piece.rfind(b"{", 0, end))
        if position < 0:
            return 0
        if piece[position : position + 1] == b"}":
            if level == 1:
                return position + 1
            level += 1
        else:
            level -= 1
        end = position


def _split_deep(path: Path, text: mmap.mmap, start: int, depth: int) -> Iterator[Chunk]:
    level, first, prefix = 0, 0, []
    closed = -1
    for brace in _BRACE.finditer(text, start):
        if brace.group() == b"{":
            level += 1
            if 1 < level <= depth:
                prefix.append(_key_before(path, text, brace.start()))
            if level == depth:
                first = brace.end()
            continue
        level -= 1
        if level == depth and brace.end() - first >= CHUNK_BYTES:
            yield Chunk(tuple(prefix), b"{" + text[first : brace.end()] + b"}", first - 1)
            first = _after_separator(text, brace.end())
        elif level == depth - 1:
            body = text[first : brace.start()]
            if body.strip():
                yield Chunk(tuple(prefix), b"{" + body + b"}", first - 1)
        if level == 0:
            closed = brace.end()
            break
        if level < depth:
            prefix = prefix[: level - 1]
    if closed < 0:
        raise _truncated(path, len(text), text[max(len(text) - 4096, 0) :])
    if text[closed:].strip():
        raise ValueError(f"{path}: more text after the JSON object's end at byte {closed}")


def _after_separator(text: bytes | mmap.mmap, position: int) -> int:
    skipped = _SEPARATOR.match(text, position)
    return skipped.end() if skipped else position


def _key_before(path: Path, text: mmap.mmap, position: int) -> str:
    before = text[max(position - 512, 0) : position]
    key = _KEY_BEFORE.search(before)
    if key is None:
        raise ValueError(f"{path}: not the layout expected: no key before the brace at byte {position}")
    return key.group(1).decode()


def _truncated(path: Path, size: int, tail: bytes) -> ValueError:
    keys = re.findall(rb'"(-?\d+)"\s*:', tail)
    where = f" after key {keys[-1].decode()!r}" if keys else ""
    return ValueError(
        f"{path}: not whole JSON: it ends at byte {size}{where} with braces left open; download it again"
    )


def explain_bad_chunk(path: Path, chunk: Chunk) -> ValueError:
    """Why a chunk did not parse: the place of the fault in the file, or a number that JSON does not have."""
    try:
        content = json.loads(chunk.text)
    except UnicodeDecodeError as error:
        return ValueError(f"{path}: not UTF-8 at byte {chunk.offset + error.start}")
    except json.JSONDecodeError as error:
        near = error.doc[max(error.pos - 60, 0) : error.pos]
        keys = re.findall(r'"(-?\d+)"\s*:', error.doc[: error.pos])
        where = f", key {'/'.join((*chunk.prefix, keys[-1]))}" if keys else ""
        byte = chunk.offset + len(error.doc[: error.pos].encode())
        return ValueError(f"{path}: not valid JSON at byte {byte}{where}: {error.msg} after {near[-30:]!r}")
    for key, entry in content.items():
        fault = _bad_number(entry, ())
        if fault:
            trail, value = fault
            name = "/".join((*chunk.prefix, key))
            return ValueError(
                f"{path}: {name}: {'/'.join(trail) or 'the leaf'} holds {value}; expected finite numbers"
            )
    return ValueError(f"{path}: not valid JSON near byte {chunk.offset}")


def _bad_number(entry: object, trail: tuple[str, ...]) -> tuple[tuple[str, ...], object] | None:
    if isinstance(entry, dict):
        found = (_bad_number(value, (*trail, key)) for key, value in entry.items())
    elif isinstance(entry, list):
        found = (_bad_number(value, trail) for value in entry)
    elif isinstance(entry, float) and entry - entry != 0:
        return trail, entry
    else:
        return None
    return next((f for f in found if f), None)
