"""`RowReader`: one row of a view at a time, straight from mapped columns; pickles as paths of files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralannot.columns import RowView
from neuralannot.parameters import GENDERS, SIDES
from neuralannot.store import Table

# A column where it lies; with None for the table, in the one that the reader is given to keep.
Place = tuple[Table | None, str]


def copied(column: np.ndarray, row: int) -> np.ndarray:
    values: np.ndarray = column[row].copy()
    return values


def scalar(column: np.ndarray, row: int) -> Any:
    return column.item(row)


def numbers(column: np.ndarray, row: int) -> tuple[int, ...]:
    return tuple(column[row].tolist())


def text(column: np.ndarray, row: int) -> str:
    text: str = column.item(row).decode()
    return text


def gender(column: np.ndarray, row: int) -> str:
    return GENDERS[column.item(row)]


def side(column: np.ndarray, row: int) -> str:
    return SIDES[column.item(row)]


@dataclass(frozen=True)
class Entry:
    """`name` in what is read, or in its dict `group`, is `read(column, row)` of the column `column`.

    `kept`: the view does not have the column (or another one of that name), the reader's own table has it.
    """

    name: str
    column: str
    read: Callable[[np.ndarray, int], Any] = copied
    group: str | None = None
    kept: bool = False

    def prepared(self, column: np.ndarray) -> np.ndarray:
        """The column as `read` takes it. Text: one bytes value a row, of which numpy drops the padding."""
        return column.view(f"S{column.shape[1]}")[:, 0] if self.read is text else column


@dataclass(frozen=True)
class _Rows:
    """Where the rows of a view are in a stack of tables.

    `steps`: columns of row numbers, looked up one after another; the last may say -1, for none. `starts`: the
    row of the stack at which each of its tables begins.
    """

    steps: tuple[Place, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where the entries of a view are, made by `lay_out`.

    `rows`: by what rows are found; `columns`: of each entry, which of those, and a column in every table;
    `memory`: the columns among these that are in no file, under the names that the table to keep must have.
    """

    rows: tuple[_Rows, ...]
    columns: tuple[tuple[Entry, int, tuple[Place, ...]], ...]
    memory: dict[str, np.ndarray]


def lay_out(view: RowView, entries: Iterable[Entry]) -> Layout:
    """Find the entries' columns in the view's tables. Copies nothing, reads nothing.

    Raises KeyError for a column that the view does not have.
    """
    memory: dict[str, np.ndarray] = {}

    def in_memory(name: str, values: np.ndarray) -> Place:
        memory[name] = values
        return None, name

    rows: dict[int, _Rows] = {}  # by the number of the view's part, -1 for what is kept
    columns: list[tuple[Entry, int, tuple[Place, ...]]] = []
    for entry in entries:
        if entry.kept:
            rows.setdefault(-1, _Rows((), (0,)))
            columns.append((entry, list(rows).index(-1), ((None, entry.column),)))
            continue
        number = next((n for n, part in enumerate(view.parts) if entry.column in part.stack), None)
        if number is None:
            raise KeyError(entry.column)
        part = view.parts[number]
        if number not in rows:
            steps = []
            if view.index is not None:
                steps.append(in_memory("rows", view.index))
            if part.rows is not None:
                steps.append(part.reference or in_memory(f"rows/{number}", part.rows))
            lengths = [len(table[part.stack.key]) for table in part.stack.tables]
            rows[number] = _Rows(tuple(steps), tuple(np.cumsum([0, *lengths[:-1]]).tolist()))
        places = tuple(
            in_memory(f"table/{number}.{k}/{entry.column}", table[entry.column])
            if table.path is None
            else (table, entry.column)
            for k, table in enumerate(part.stack.tables)
        )
        columns.append((entry, list(rows).index(number), places))
    return Layout(tuple(rows.values()), tuple(columns), memory)


class RowReader:
    """Reads the entries of a layout, a row at a time: a few look-ups in mapped arrays, no view of rows.

    `kept`: the table of `layout.memory` and of entries that are kept, (N, ...) for the N rows of the view;
    None where there are neither. Called with a row number within range, gives a dict with the dicts of
    groups in it; arrays are copies. Rows that are not there are NaN, 0, False and no text.
    """

    def __init__(self, layout: Layout, kept: Table | None) -> None:
        self._rows, self._columns, self._kept = layout.rows, layout.columns, kept
        self._locators = [(tuple(map(self._at, rows.steps)), rows.starts) for rows in layout.rows]
        self._readers = []
        for entry, rows, places in layout.columns:
            columns = [entry.prepared(self._at(place)) for place in places]
            columns.append(_absent(columns[0]))
            self._readers.append((entry.group, entry.name, rows, columns, entry.read))
        self._groups = tuple(dict.fromkeys(group for group, *_ in self._readers if group is not None))

    def __reduce__(self) -> tuple[type[RowReader], tuple[Layout, Table | None]]:
        # The tables pickle as their files' paths; the arrays are found in them again.
        return RowReader, (Layout(self._rows, self._columns, {}), self._kept)

    def _at(self, place: Place) -> np.ndarray:
        table = self._kept if place[0] is None else place[0]
        assert table is not None
        return table[place[1]]

    def __call__(self, row: int) -> dict[str, Any]:
        found = []
        for steps, starts in self._locators:
            at = row
            for step in steps:
                at = step.item(at)
            if at < 0:
                found.append((-1, 0))  # the last of a reader's columns is that of rows that are not there
            elif len(starts) == 1:
                found.append((0, at))
            else:
                table = bisect_right(starts, at) - 1
                found.append((table, at - starts[table]))
        values: dict[str, Any] = {group: {} for group in self._groups}
        for group, name, rows, columns, read in self._readers:
            table, at = found[rows]
            (values if group is None else values[group])[name] = read(columns[table], at)
        return values


def _absent(column: np.ndarray) -> np.ndarray:
    values = np.zeros((1, *column.shape[1:]), column.dtype)
    if column.dtype.kind == "f":
        values[:] = np.nan
    return values
