"""Splitting JSON files: whatever the windows' borders, all entries, in order, or an error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuralannot import json_chunks as module
from neuralannot.json_chunks import Chunk, explain_bad_chunk, json_chunks

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

numbers = st.lists(
    st.one_of(st.integers(-9, 999), st.floats(allow_nan=False, allow_infinity=False)), max_size=3
)
leaves = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(["pose", "shape", "smpl_param", "right"]), numbers, max_size=3),
    st.fixed_dictionaries({"smpl_param": st.fixed_dictionaries({"pose": numbers}), "cam_param": st.just({})}),
)
objects = st.dictionaries(st.integers(-5, 10**7).map(str), leaves, max_size=6)


def nested(depth: int) -> st.SearchStrategy:
    inner = objects
    for _ in range(depth - 1):
        inner = st.dictionaries(st.integers(0, 99).map(str), inner, max_size=4)
    return inner


@st.composite
def dumped(draw: st.DrawFn, depth: int) -> tuple[dict, str]:
    """A document and one of its texts: compact, indented, or with any white space around the punctuation."""
    content = draw(nested(depth))
    style = draw(st.sampled_from(["default", "compact", "indent", "wild"]))
    if style == "indent":
        return content, json.dumps(content, indent=draw(st.sampled_from([0, 1, 4])))
    text = json.dumps(content, separators=(",", ":") if style != "default" else (", ", ": "))
    if style == "wild":
        blank = st.text(" \t\r\n", max_size=6)
        text = re.sub(r"[{}\[\]:,]", lambda m: draw(blank) + m.group() + draw(blank), text)
    return content, text


def entries(path: Path, depth: int) -> list[tuple[tuple[str, ...], str, Any]]:
    """(prefix, key, value) of every entry of every chunk, each chunk parsed by the standard library."""
    return list(iterate(path, depth))


def iterate(path: Path, depth: int) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    for chunk in json_chunks(path, depth):
        for key, value in json.loads(chunk.text).items():
            yield chunk.prefix, key, value


def expected(content: dict, depth: int, prefix: tuple[str, ...] = ()) -> list:
    if depth == 1:
        return [(prefix, key, value) for key, value in content.items()]
    return [e for key, inner in content.items() for e in expected(inner, depth - 1, (*prefix, key))]


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 7, 64, 1 << 19])
def test_chunks_together_are_the_file(
    depth: int, window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", window)

    @settings(QUICK, max_examples=25)
    @given(dumped(depth), st.booleans())
    def check(document: tuple[dict, str], bom: bool) -> None:
        content, text = document
        path = tmp_path / "file.json"
        path.write_bytes(b"\xef\xbb\xbf" * bom + text.encode())
        assert entries(path, depth) == expected(content, depth)

    check()


def test_every_window_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Borders fall on every byte: in keys, numbers, separators, and between them."""
    content = {str(k): {"smpl_param": {"pose": [k, 0.5]}, "cam_param": {"focal": [1, 2]}} for k in range(4)}
    for text in (
        json.dumps(content),
        json.dumps(content, indent=2),
        json.dumps(content, separators=(",", ":")),
    ):
        path = tmp_path / "file.json"
        path.write_text(f"{text}\n\n")
        for window in range(1, 90):
            monkeypatch.setattr(module, "CHUNK_BYTES", window)
            assert entries(path, 1) == expected(content, 1), window


def test_offset_is_where_the_text_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 30)
    content = {"7": {"1": {str(k): {"pose": [k, k]} for k in range(9)}}, "8": {"1": {"0": {}, "2": {}}}}
    path = tmp_path / "file.json"
    for depth, chunked in ((1, content["7"]["1"]), (3, content)):
        path.write_text(json.dumps(chunked, indent=1))
        whole = path.read_bytes()
        chunks = list(json_chunks(path, depth))
        assert len(chunks) > 3
        for chunk in chunks:
            inner = chunk.text[1:-1]
            assert whole[chunk.offset + 1 : chunk.offset + 1 + len(inner)] == inner


def test_chunks_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    leaf = {"pose": list(range(20))}
    path = tmp_path / "file.json"
    for depth, content in (
        (1, {str(k): leaf for k in range(200)}),
        (2, {"3": {str(k): leaf for k in range(200)}}),
    ):
        path.write_text(json.dumps(content))
        assert max(len(c.text) for c in json_chunks(path, depth)) < 1200


def test_one_entry_wider_than_any_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 16)
    content = {"1": {"pose": list(range(3000))}, "2": None, "3": {"pose": list(range(2000))}, "4": {}}
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content))
    assert entries(path, 1) == expected(content, 1)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 20, 1 << 19])
def test_cut_at_every_byte(depth: int, window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that ends too early is an error wherever it ends, and what came before it is right."""
    monkeypatch.setattr(module, "CHUNK_BYTES", window)
    content: dict = {"10": {"pose": [1.5, -2e-3]}, "2": None, "33": {"pose": [], "cam": {"focal": [1, 2]}}}
    for _ in range(depth - 1):
        content = {"7": content, "8": {}}
    for text in (json.dumps(content).encode(), json.dumps(content, indent=1).encode()):
        whole = expected(content, depth)
        path = tmp_path / "file.json"
        for length in range(len(text)):
            path.write_bytes(text[:length])
            found: list = []
            with pytest.raises(ValueError, match=re.escape(str(path))):
                found.extend(iterate(path, depth))
            assert found == whole[: len(found)]
        path.write_bytes(text)
        assert entries(path, depth) == whole


LEAF = '{"pose": [1]}'
BROKEN = {
    "empty": ("", "the file is empty; expected a JSON object, download it again"),
    "blank": ("  \n ", "not a JSON object: it begins with ''; expected '{'"),
    "a list": ("[1, 2]", r"not a JSON object: it begins with '\[1, 2\]'; expected '{'"),
    "html": ("<!DOCTYPE html><html>", "not a JSON object: it begins with '<!DOCTYPE html><html'"),
    "zip": ("PK\x03\x04abc", "not a JSON object: it begins with 'PK"),
    "truncated": (
        '{"1": {"1": {"5": {"pose": [1, ',
        "not whole JSON: it ends at byte 31 after key '5' with braces",
    ),
    "after the end": ('{"1": {"1": {"5": {}}}} more', "more text after the JSON object's end, from byte 23"),
    "a brace too many": ('{"1": {"1": {"5": {}}}}}', "more text after the JSON object's end, from byte 23"),
    "two objects": (
        '{"1": {"1": {"5": {}}}}\n{}',
        "more text after the JSON object's end, from byte 23|not valid",
    ),
}


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("window", [4, 1 << 19])
@pytest.mark.parametrize("case", BROKEN)
def test_not_a_json_object(
    case: str, window: int, depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", window)
    text, message = BROKEN[case]
    path = tmp_path / "file.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: ({message})") as caught:
        parse_all(path, depth)
    assert "\n" not in str(caught.value)


def parse_all(path: Path, depth: int) -> None:
    """As the readers do: a chunk that does not parse is explained."""
    for chunk in json_chunks(path, depth):
        try:
            json.loads(chunk.text)
        except ValueError:
            raise explain_bad_chunk(path, chunk) from None


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 12, 20, 1 << 19])
@pytest.mark.parametrize("between", ["", ",,", ", ,", ";", ", {},", "}, {"])
def test_what_stands_between_entries_is_one_comma(
    between: str, window: int, depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a window's border too, where no parser sees it."""
    monkeypatch.setattr(module, "CHUNK_BYTES", window)
    text = f'{{"1": {LEAF}{between} "2": {LEAF}, "3": {LEAF}}}'
    for _ in range(depth - 1):
        text = f'{{"9": {text}}}'
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"file\.json: (not valid JSON|not the layout|more text|not whole)"):
        parse_all(path, depth)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 12, 1 << 19])
@pytest.mark.parametrize(
    "text", [f'{{"1": {LEAF},}}', f'{{"1": {LEAF}, }}', f'{{,"1": {LEAF}}}', f'{{"1": {LEAF}, 2}}']
)
def test_stray_commas(
    text: str, window: int, depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", window)
    path = tmp_path / "file.json"
    for wrap in ('{"9": %s}', '{"9": {"1": {}}, "8": %s}'):
        whole = text
        for _ in range(depth - 1):
            whole = wrap % whole
        path.write_text(whole)
        with pytest.raises(ValueError, match=r"file\.json: (not valid JSON at byte|not the layout)"):
            parse_all(path, depth)


@pytest.mark.parametrize(
    "text",
    [
        '{"2": {"1": null}}',
        '{"2": null}',
        '{"2": {"1": {"0": {}}, "3": 5}}',
        '{"2": {"1": {"0": {}}}, "3": [1]}',
        '{"3": "none", "2": {"1": {"0": {}}}}',
        '{"2": [{"1": {"0": {}}}]}',
        '{"2": {"1": {"0": {}}},, "4": {"1": {"0": {}}}}',
        '{"2": {"1": {"0": {}}} "4": {"1": {"0": {}}}}',
        '{"2": {"1": {"0": {}}},}',
    ],
)
def test_nothing_above_the_entries_is_passed_over(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=r"file.json: not the layout expected at byte \d+: expected a key and an"
    ):
        list(json_chunks(path, 3))


@pytest.mark.parametrize("window", [1, 25, 1 << 19])
@pytest.mark.parametrize(
    "content",
    [
        {"1": {"note": "}", "pose": [1]}, "2": {"note": "{", "pose": [2]}},
        {"1": {"note": "}{", "pose": [1]}, "2": {"pose": [2]}},
        {"1": {"note": '"}, "9": {"pose": [5]', "pose": [1]}, "2": {"pose": [2]}},
    ],
)
def test_strings_that_hold_braces_never_give_wrong_entries(
    content: dict, window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", window)
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content))
    try:
        assert entries(path, 1) == expected(content, 1)
    except ValueError:
        return


# --- why a chunk does not parse


def explained(tmp_path: Path, text: str, prefix: tuple[str, ...] = ()) -> str:
    return str(explain_bad_chunk(tmp_path / "f.json", Chunk(prefix, text.encode(), 100)))


def test_explains_the_place_of_a_fault(tmp_path: Path) -> None:
    message = explained(tmp_path, '{"5": {"pose": [1]}, "6": {"pose": [1 2]}}', ("3", "1"))
    assert re.search(r"f.json: not valid JSON at byte 138, key 3/1/6: Expecting ',' delimiter after", message)


@pytest.mark.parametrize(
    ("value", "said"),
    [("NaN", "nan"), ("-Infinity", "-inf"), ("1e400", "inf"), ("1" * 60, "the integer 1{30}")],
)
def test_explains_numbers_that_json_or_doubles_lack(value: str, said: str, tmp_path: Path) -> None:
    message = explained(
        tmp_path, f'{{"5": {{"pose": [1]}}, "6": {{"p": {{"pose": [[0, {value}]]}}}}}}', ("3",)
    )
    assert re.fullmatch(rf".*f.json: key 3/6: p/pose holds {said}; expected finite numbers", message)


def test_explains_bytes_that_are_not_text(tmp_path: Path) -> None:
    error = explain_bad_chunk(tmp_path / "f.json", Chunk((), b'{"5\xff": 1}', 100))
    assert str(error).endswith("f.json: not UTF-8 at byte 103")


def test_explains_deep_nesting(tmp_path: Path) -> None:
    message = explained(tmp_path, '{"5": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert message.endswith("f.json: nested too deeply near byte 100; expected lists of numbers")
