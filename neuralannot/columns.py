"""Rows over mapped columns: selecting, slicing and joining without copying what lies in the files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from neuralannot.store import Table


@dataclass(frozen=True)
class TableStack:
    """Tables with the same columns, one after another: the subjects of Human3.6M, say. `key` names a column
    that has a value for each row."""

    tables: tuple[Table, ...]
    key: str

    def __post_init__(self) -> None:
        ends = np.cumsum([0] + [len(t[self.key]) for t in self.tables])
        object.__setattr__(self, "_ends", ends)

    def __len__(self) -> int:
        return int(self._ends[-1])  # type: ignore[attr-defined]

    def __contains__(self, name: object) -> bool:
        return bool(self.tables) and all(name in t for t in self.tables)

    def names(self) -> list[str]:
        """The columns that every table has."""
        return [name for name in self.tables[0] if name in self] if self.tables else []

    def gather(self, name: str, rows: np.ndarray | None = None) -> np.ndarray:
        """The column's values at `rows`; all of them, not copied where there is one table, for None.

        Rows of -1 are rows that are not there: NaN, 0 or False.
        """
        columns = [t[name] for t in self.tables]
        if rows is None:
            if len(columns) == 1:
                return columns[0]
            rows = np.arange(len(self))
        # Texts are as wide as their table's longest: the widest holds all, the rest of it zero.
        shape = tuple(np.max([c.shape[1:] for c in columns], axis=0, initial=0).astype(int))
        absent = rows < 0
        if len(columns) == 1 and not absent.any():
            return columns[0][rows]
        values = np.zeros((len(rows), *shape), columns[0].dtype)
        if values.dtype.kind == "f":
            values[absent] = np.nan
        ends = self._ends  # type: ignore[attr-defined]
        which = np.searchsorted(ends, rows, "right") - 1
        for k, column in enumerate(columns):
            here = np.flatnonzero(~absent & (which == k))
            inside: Any = (here, *map(slice, column.shape[1:]))
            values[inside] = column[rows[here] - ends[k]]
        return values


@dataclass(frozen=True)
class Part:
    """A stack of tables and which of its rows is meant at each row of the view.

    `rows`: (N,) int64, -1 for none; None where the view's rows are the stack's. `reference`: the mapped table
    and column that `rows` came from, so that pickling need not carry it.
    """

    stack: TableStack
    rows: np.ndarray | None = None
    reference: tuple[Table, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        rows = None if self.reference else self.rows
        return {"stack": self.stack, "rows": rows, "reference": self.reference}

    def __setstate__(self, state: dict[str, Any]) -> None:
        reference = state["reference"]
        rows = reference[0][reference[1]] if reference else state["rows"]
        for name, value in (("stack", state["stack"]), ("rows", rows), ("reference", reference)):
            object.__setattr__(self, name, value)

    def at(self, index: np.ndarray | None) -> np.ndarray | None:
        if self.rows is None:
            return index
        return self.rows if index is None else self.rows[index]


@dataclass(frozen=True)
class RowView:
    """N rows, their columns spread over parts; the first part that has a column counts."""

    length: int
    parts: tuple[Part, ...] = field(default_factory=tuple)
    index: np.ndarray | None = None

    def __len__(self) -> int:
        return self.length

    def __contains__(self, name: object) -> bool:
        return any(name in part.stack for part in self.parts)

    def column(self, name: str) -> np.ndarray:
        """(N, ...) values of a column. A view of the file where all its rows are meant, else a copy."""
        for part in self.parts:
            if name in part.stack:
                return part.stack.gather(name, part.at(self.index))
        raise KeyError(name)

    def take(self, rows: np.ndarray) -> RowView:
        """The view's rows at `rows`, (M,) int64 within range."""
        return RowView(len(rows), self.parts, rows if self.index is None else self.index[rows])

    def overlaid(self, columns: Mapping[str, np.ndarray]) -> RowView:
        """The same rows with these columns, (N, ...) each, in place of those of the same names."""
        return self.behind(Part(TableStack((Table(dict(columns)),), next(iter(columns)))))

    def behind(self, part: Part) -> RowView:
        """The same rows with the columns of `part`, whose rows are the view's, before all others."""
        below = self.parts
        if self.index is not None:
            index = self.index
            below = tuple(replace(p, rows=p.at(index), reference=None) for p in self.parts)
        return RowView(self.length, (part, *below))

    def names(self) -> Iterator[str]:
        """Every column's name, once."""
        seen: set[str] = set()
        for part in self.parts:
            for name in part.stack.names():
                if name not in seen:
                    seen.add(name)
                    yield name


class ColumnGroup(Mapping[str, np.ndarray]):
    """The columns `<prefix>/<name>` of a view as a read-only mapping name -> (N, ...) array."""

    def __init__(self, view: RowView, prefix: str, names: tuple[str, ...]) -> None:
        self._view, self._prefix, self._names = view, prefix, names

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(f"{name!r}; there are {', '.join(self._names)}")
        return self._view.column(f"{self._prefix}/{name}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"{{{', '.join(self._names)}}} of {len(self._view)} rows"


def texts_to_bytes(texts: list[str]) -> np.ndarray:
    """Strings -> (N, W) uint8, UTF-8, zero-padded: text that can be mapped and indexed by row."""
    encoded = [t.encode() for t in texts]
    width = max([1, *map(len, encoded)])
    return np.frombuffer(b"".join(e.ljust(width, b"\0") for e in encoded), np.uint8).reshape(
        len(texts), width
    )


def bytes_to_texts(values: np.ndarray) -> np.ndarray:
    """The inverse of `texts_to_bytes`: (N, W) uint8 -> (N,) str."""
    if not len(values):
        return np.zeros(0, "<U1")
    joined = np.ascontiguousarray(values).view(f"S{values.shape[1]}")[:, 0]
    return np.char.decode(joined, "utf-8")
