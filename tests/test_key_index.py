"""Look-ups of keys against a dictionary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuralannot.key_index import KeyIndex

QUICK = settings(max_examples=80, deadline=None)


@st.composite
def keys_and_queries(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    width = draw(st.integers(1, 4))
    # As wide a range as a packed key allows, so that its ends are met, and a narrow one, so that keys repeat.
    bound = draw(st.sampled_from([2, 2 ** (62 // width - 1)]))
    numbers = st.integers(-bound, bound - 1)
    keys = draw(hnp.arrays(np.int64, (draw(st.integers(0, 12)), width), elements=numbers))
    anything = st.one_of(numbers, st.integers(-(2**63), 2**63 - 1))
    queries = draw(hnp.arrays(np.int64, (draw(st.integers(0, 8)), width), elements=anything))
    if len(keys):
        known = draw(st.lists(st.integers(0, len(keys) - 1), max_size=6))
        queries = np.concatenate([queries, keys[known]])
    return keys, queries


def twin(keys: np.ndarray) -> dict[tuple[int, ...], list[int]]:
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, key in enumerate(keys.tolist()):
        rows.setdefault(tuple(key), []).append(row)
    return rows


@QUICK
@given(keys_and_queries())
def test_first_and_all_are_a_dictionarys(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    keys, queries = drawn
    index, rows = KeyIndex(keys), twin(keys)
    wanted = [rows.get(tuple(q), []) for q in queries.tolist()]
    first = index.first(queries)
    assert first.dtype == np.int64
    assert first.tolist() == [w[0] if w else -1 for w in wanted]
    found, count = index.all(queries)
    assert found.tolist() == [row for w in wanted for row in w]
    assert count.tolist() == [len(w) for w in wanted]


@QUICK
@given(keys_and_queries())
def test_every_key_finds_its_row(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    keys, _ = drawn
    first = KeyIndex(keys).first(keys)
    assert (keys[first] == keys).all()
    assert (first <= np.arange(len(keys))).all()


def test_queries_do_not_wrap_into_the_range() -> None:
    """2^63 - 1 minus a negative lowest key overflows; it must not land on a key."""
    ends = np.array([[2**63 - 1], [-(2**63)], [2**62]])
    assert KeyIndex(np.array([[-5], [0], [4]])).first(ends).tolist() == [-1, -1, -1]
    assert KeyIndex(np.array([[2**63 - 2], [2**63 - 1]])).first(ends).tolist() == [1, -1, -1]
    assert KeyIndex(np.array([[-(2**63)], [3 - 2**63]])).first(ends).tolist() == [-1, 0, -1]


@pytest.mark.parametrize(
    "keys", [[[-(2**63)], [2**63 - 1]], [[0, 0], [2**40, 2**40]], [[0, 0, 0], [2**21, 2**21, 2**21]]]
)
def test_keys_too_wide_are_refused(keys: list) -> None:
    with pytest.raises(ValueError, match=r"keys range too widely to be indexed: \[\d+"):
        KeyIndex(np.array(keys))


def test_empty_index() -> None:
    index = KeyIndex(np.zeros((0, 3), np.int64))
    assert index.first(np.array([[1, 2, 3], [0, 0, 0]])).tolist() == [-1, -1]
    rows, count = index.all(np.array([[0, 0, 0]]))
    assert (rows.tolist(), count.tolist()) == ([], [0])
    rows, count = index.all(np.zeros((0, 3), np.int64))
    assert (len(rows), len(count)) == (0, 0)
    assert rows.dtype.kind == "i"
