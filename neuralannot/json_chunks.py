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

_BLANK = b" \t\r\n"  # what JSON calls white space
_START = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*")
_BRACE = re.compile(rb"[{}]")
# Between the brace before and the one that opens an object: a comma unless it is the first, and its key.
_KEY_BETWEEN = re.compile(rb'([ \t\r\n,]*)"((?:[^"\\]|\\.)*)"[ \t\r\n]*:[ \t\r\n]*')


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
    are not expected in released files; where they break the split, parsing the chunk fails: what lies between
    two chunks is one comma, so that chunks that are all valid make a valid file, and nothing is left out.

    Raises ValueError where the file is empty, not an object, ends before its last brace or goes on after it,
    or holds something else than objects above the entries.
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
    size, window, first = path.stat().st_size, CHUNK_BYTES, True
    while True:
        file.seek(start)
        piece = file.read(window)
        level = 1 + piece.count(b"{") - piece.count(b"}")
        if start + len(piece) >= size:
            body = piece.rstrip(_BLANK)
            if level > 0:
                raise _truncated(path, size, piece)
            if level < 0 or not body.endswith(b"}"):
                raise _trailing(path, start + _end_of_object(body))
            if first or body.lstrip(_BLANK) != b"}":
                lead = 0 if first else _after_comma(path, body[:-1], start)
                yield Chunk((), b"{" + body[lead:], start + lead - 1)
            return
        cut = _last_border(piece, level)
        if cut == 0:
            window *= 2  # one entry fills the window
            continue
        lead = 0 if first else _after_comma(path, piece[:cut], start)
        yield Chunk((), b"{" + piece[lead:cut] + b"}", start + lead - 1)
        start, window, first = start + cut, CHUNK_BYTES, False


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


def _end_of_object(piece: bytes) -> int:
    """Where in `piece`, which begins inside of the file's object, that object ends."""
    level = 1
    for brace in _BRACE.finditer(piece):
        level += 1 if brace.group() == b"{" else -1
        if level == 0:
            return brace.end()
    return len(piece)


def _split_deep(path: Path, text: mmap.mmap, start: int, depth: int) -> Iterator[Chunk]:
    level, last, prefix = (
        0,
        start,
        [],
    )  # `last`: the end of the brace before; at `depth`, where the chunk begins
    leading = False  # whether the chunk begins after another of the same object
    for brace in _BRACE.finditer(text, start):
        here = brace.start()
        if brace.group() == b"{":
            level += 1
            if level <= depth:
                if level > 1:
                    prefix.append(_key_between(path, text, last, here))
                last, leading = brace.end(), False
            continue
        level -= 1
        if level == depth:
            if brace.end() - last >= CHUNK_BYTES:
                yield _deep_chunk(path, tuple(prefix), text, last, brace.end(), leading)
                last, leading = brace.end(), True
        elif level < depth:
            if level == depth - 1:
                if text[last:here].strip(_BLANK):
                    yield _deep_chunk(path, tuple(prefix), text, last, here, leading)
            elif text[last:here].strip(_BLANK):
                raise _not_an_object(path, text, last)
            if level == 0:
                rest = text[brace.end() :]
                if rest.strip(_BLANK):
                    raise _trailing(path, brace.end())
                return
            last = brace.end()
            prefix = prefix[: level - 1]
    raise _truncated(path, len(text), text[max(len(text) - 4096, 0) :])


def _deep_chunk(
    path: Path, prefix: tuple[str, ...], text: mmap.mmap, first: int, end: int, leading: bool
) -> Chunk:
    body = text[first:end]
    lead = _after_comma(path, body, first) if leading else 0
    return Chunk(prefix, b"{" + body[lead:] + b"}", first + lead - 1)


def _after_comma(path: Path, text: bytes, start: int) -> int:
    """Where in `text` the entry after its comma begins. `start`: where `text` begins in the file."""
    comma = len(text) - len(text.lstrip(_BLANK))
    rest = text[comma + 1 :].lstrip(_BLANK)
    if text[comma : comma + 1] != b"," or not rest:
        found = text[comma : comma + 20].decode("utf-8", "replace")
        raise ValueError(
            f"{path}: not valid JSON at byte {start + comma}: expected a comma and an entry, got {found!r}"
        )
    return comma + 1


def _key_between(path: Path, text: mmap.mmap, last: int, brace: int) -> str:
    """The key of the object that opens at `brace`: all there may be since the brace before, at `last`."""
    between = text[last:brace]
    found = _KEY_BETWEEN.fullmatch(between)
    comma = b"," if text[last - 1 : last] == b"}" else b""
    if found is None or found.group(1).strip(_BLANK) != comma:
        raise _not_an_object(path, text, last)
    return found.group(2).decode("utf-8", "replace")


def _not_an_object(path: Path, text: mmap.mmap, position: int) -> ValueError:
    found = text[position : position + 40].decode("utf-8", "replace")
    return ValueError(
        f"{path}: not the layout expected at byte {position}: expected a key and an object, got {found!r}"
    )


def _trailing(path: Path, position: int) -> ValueError:
    return ValueError(
        f"{path}: more text after the JSON object's end, from byte {position}; download it again"
    )


def _truncated(path: Path, size: int, tail: bytes) -> ValueError:
    keys = re.findall(rb'"(-?\d+)"\s*:', tail)
    where = f" after key {keys[-1].decode()!r}" if keys else ""
    return ValueError(
        f"{path}: not whole JSON: it ends at byte {size}{where} with braces left open; download it again"
    )


def explain_bad_chunk(path: Path, chunk: Chunk, kind: str = "key") -> ValueError:
    """Why a chunk did not parse: where in the file, or a number that JSON does not have (of a `kind`)."""
    try:
        content = json.loads(chunk.text)
        for key, entry in content.items():
            fault = _bad_number(entry, ())
            if fault:
                trail, value = fault
                where = f"{kind} {'/'.join((*chunk.prefix, key))}: {'/'.join(trail) or 'the leaf'}"
                return ValueError(f"{path}: {where} holds {value}; expected finite numbers")
    except UnicodeDecodeError as error:
        return ValueError(f"{path}: not UTF-8 at byte {chunk.offset + error.start}")
    except json.JSONDecodeError as error:
        near = error.doc[max(error.pos - 60, 0) : error.pos]
        keys = re.findall(r'"(-?\d+)"\s*:', error.doc[: error.pos])
        where = f", {kind} {'/'.join((*chunk.prefix, keys[-1]))}" if keys else ""
        byte = chunk.offset + len(error.doc[: error.pos].encode())
        return ValueError(f"{path}: not valid JSON at byte {byte}{where}: {error.msg} after {near[-30:]!r}")
    except RecursionError:
        return ValueError(f"{path}: nested too deeply near byte {chunk.offset}; expected lists of numbers")
    return ValueError(f"{path}: not valid JSON near byte {chunk.offset}")


def _bad_number(entry: object, trail: tuple[str, ...]) -> tuple[tuple[str, ...], object] | None:
    if isinstance(entry, dict):
        found = (_bad_number(value, (*trail, key)) for key, value in entry.items())
    elif isinstance(entry, list):
        found = (_bad_number(value, trail) for value in entry)
    elif isinstance(entry, float) and entry - entry != 0:
        return trail, entry
    elif isinstance(entry, int) and not -(2**63) <= entry < 2**64:
        return trail, f"the integer {str(entry)[:30]}"  # float32 would hold some, but no file should
    else:
        return None
    return next((f for f in found if f), None)
