"""Rows over tables against concatenation and fancy indexing."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralannot.columns import (
    ColumnGroup,
    Part,
    RowView,
    TableStack,
    bytes_to_texts,
    texts_to_bytes,
)
from neuralannot.store import Table, open_table, write_table

QUICK = settings(max_examples=80, deadline=None)
DTYPES = {"f": np.float32, "i": np.int64, "u": np.uint8, "b": bool}


def columns_of(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, count])
    return {
        "f": rng.normal(size=(count, 3, 2)).astype(np.float32),
        "i": rng.integers(-9, 9, count),
        "u": rng.integers(0, 255, (count, 4), np.uint8),
        "b": rng.random(count) > 0.5,
    }


def stack_of(counts: list[int]) -> tuple[TableStack, dict[str, np.ndarray]]:
    """Tables of these lengths, and their columns put together by numpy."""
    parts = [columns_of(count, seed) for seed, count in enumerate(counts)]
    whole = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    return TableStack(tuple(Table(p) for p in parts), "i"), whole


def picked(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The slow twin: row by row; -1 is a row that is not there."""
    absent = np.nan if values.dtype.kind == "f" else 0
    out = [values[r] if r >= 0 else np.full(values.shape[1:], absent, values.dtype) for r in rows]
    return np.array(out, values.dtype).reshape(len(rows), *values.shape[1:])


counts_lists = st.lists(st.integers(0, 5), min_size=1, max_size=4)


@QUICK
@given(counts_lists, st.data())
def test_gather_is_fancy_indexing(counts: list[int], data: st.DataObject) -> None:
    stack, whole = stack_of(counts)
    assert len(stack) == sum(counts)
    rows = np.array(data.draw(st.lists(st.integers(-1, sum(counts) - 1), max_size=8)), np.int64)
    for name, dtype in DTYPES.items():
        np.testing.assert_array_equal(stack.gather(name), whole[name])
        values = stack.gather(name, rows)
        assert values.dtype == dtype
        np.testing.assert_array_equal(values, picked(whole[name], rows))


@QUICK
@given(counts_lists.filter(any), st.data())
def test_take_of_take_and_overlay(counts: list[int], data: st.DataObject) -> None:
    """Any run of takes and overlays is the same run of fancy indexing on plain arrays."""
    stack, whole = stack_of(counts)
    first = np.array(data.draw(st.lists(st.integers(-1, sum(counts) - 1), min_size=1, max_size=8)), np.int64)
    bare = data.draw(st.booleans())
    view = RowView(len(stack), (Part(stack),)) if bare else RowView(len(first), (Part(stack, first),))
    twin = {name: whole[name] if bare else picked(whole[name], first) for name in whole}
    for step in data.draw(st.lists(st.sampled_from(["take", "overlay", "pickle"]), max_size=5)):
        if step == "take":
            numbers = st.lists(st.integers(0, len(view) - 1), min_size=1, max_size=8)
            rows = np.array(data.draw(numbers), np.int64)
            view, twin = view.take(rows), {name: values[rows] for name, values in twin.items()}
        elif step == "overlay":
            new = np.arange(len(view) * 2, dtype=np.float32).reshape(-1, 2) + len(twin)
            view, twin = view.overlaid({"f": new, "new": new + 1}), {**twin, "f": new, "new": new + 1}
        else:
            view = pickle.loads(pickle.dumps(view))
        assert set(view.names()) == set(twin)
        for name, values in twin.items():
            assert name in view
            assert len(view) == len(values)
            np.testing.assert_array_equal(view.column(name), values)


def test_rows_that_are_not_there_in_a_table_without_rows() -> None:
    for counts in ([0], [0, 0]):
        stack, _ = stack_of(counts)
        assert np.isnan(stack.gather("f", np.array([-1, -1]))).all()
        assert stack.gather("b", np.array([-1])).tolist() == [False]
        assert stack.gather("i", np.zeros(0, np.int64)).shape == (0,)


def test_the_first_part_that_has_a_column_counts() -> None:
    upper, lower = Table({"a": np.array([1, 2])}), Table({"a": np.array([3, 4]), "b": np.array([5, 6])})
    view = RowView(2, (Part(TableStack((upper,), "a")), Part(TableStack((lower,), "a"), np.array([1, -1]))))
    assert view.column("a").tolist() == [1, 2]
    assert view.column("b").tolist() == [6, 0]
    assert list(view.names()) == ["a", "b"]
    with pytest.raises(KeyError, match="'c'"):
        view.column("c")


def test_a_column_counts_where_every_table_has_it() -> None:
    stack = TableStack((Table({"i": np.zeros(1), "x": np.zeros(1)}), Table({"i": np.zeros(2)})), "i")
    assert "x" not in stack
    assert stack.names() == ["i"]


def test_nothing_is_copied_from_the_file(tmp_path: Path) -> None:
    write_table(tmp_path / "t", columns_of(5), {})
    table = open_table(tmp_path / "t")
    view = RowView(5, (Part(TableStack((table,), "i")),))
    assert view.column("f") is table["f"]
    assert not view.column("f").flags.writeable
    taken = view.take(np.array([1])).column("f")
    taken[:] = 0  # a copy: the caller's own


def test_overlaying_leaves_the_view_as_it_was() -> None:
    stack, whole = stack_of([4])
    view = RowView(4, (Part(stack),)).take(np.array([2, 0]))
    view.overlaid({"f": np.zeros((2, 3, 2), np.float32)})
    np.testing.assert_array_equal(view.column("f"), whole["f"][[2, 0]])


def test_rows_with_a_reference_pickle_as_the_reference(tmp_path: Path) -> None:
    """The join of millions of rows does not travel to each worker."""
    count = 50_000
    write_table(tmp_path / "fits", {"i": np.arange(count)}, {})
    write_table(tmp_path / "join", {"row": np.arange(count)[::-1]}, {})
    fits, join = open_table(tmp_path / "fits"), open_table(tmp_path / "join")
    view = RowView(count, (Part(TableStack((fits,), "i"), join["row"], (join, "row")),))
    sent = pickle.dumps(view)
    assert len(sent) < 2000
    back = pickle.loads(sent)
    np.testing.assert_array_equal(back.column("i"), np.arange(count)[::-1])
    taken = pickle.loads(pickle.dumps(view.take(np.array([3, 1]))))
    assert taken.column("i").tolist() == [count - 4, count - 2]


def test_text_of_different_widths_stands_together() -> None:
    texts = [["a.jpg", "longer/name.jpg"], ["x"], ["ü/é.png", ""]]
    tables = tuple(Table({"ann/image_path": texts_to_bytes(t)}) for t in texts)
    stack = TableStack(tables, "ann/image_path")
    assert bytes_to_texts(stack.gather("ann/image_path")).tolist() == [t for some in texts for t in some]
    some = stack.gather("ann/image_path", np.array([4, 2, -1, 0]))
    assert bytes_to_texts(some).tolist() == ["", "x", "", "a.jpg"]


@QUICK
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)))
def test_texts_and_bytes_are_inverse(texts: list[str]) -> None:
    values = texts_to_bytes(texts)
    assert values.dtype == np.uint8
    assert bytes_to_texts(values).tolist() == texts
    assert bytes_to_texts(values[::-1]).tolist() == texts[::-1]


def test_group_of_columns() -> None:
    view = RowView(2, (Part(TableStack((Table({"param/a": np.array([1, 2])}),), "param/a")),))
    group = ColumnGroup(view, "param", ("a",))
    assert list(group) == ["a"]
    assert len(group) == 1
    assert group["a"].tolist() == [1, 2]
    assert group.get("b") is None
    assert repr(group) == "{a} of 2 rows"
    with pytest.raises(KeyError, match="'b'; there are a"):
        group["b"]


def test_a_few_rows_of_many_do_not_copy_the_rest():
    """Texts of two tables are padded to one width row by row, not column by column."""
    import tracemalloc

    count = 100_000
    tables = tuple(
        Table({"k": np.arange(count), "ann/image_path": np.full((count, width), 65, np.uint8)})
        for width in (4, 6)
    )
    for stack, rows in ((TableStack(tables, "k"), [3, count + 5, -1]), (TableStack(tables[:1], "k"), [3])):
        tracemalloc.start()
        values = stack.gather("ann/image_path", np.array(rows))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        expected = [b"" if r < 0 else b"A" * (4 if r < count else 6) for r in rows]
        assert [bytes(v).rstrip(b"\0") for v in values] == expected
        assert peak < count
