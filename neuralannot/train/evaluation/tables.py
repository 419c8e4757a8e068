"""`Table`: rows of names and numbers, as text, Markdown, CSV and HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from neuralannot.web_page import plain

__all__ = ["Cell", "Table", "tables_csv", "tables_markdown"]

#: A name, a count, or a measured value; None where there is none.
Cell = str | int | float | None

_LONG = 48  # characters of a text that a page may break


@dataclass(frozen=True)
class Table:
    """`title`; `head`: a name for each column; `rows`: as many cells each.

    Raises ValueError for a row of another length.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"{self.title}: a row must have {len(self.head)} cells, got {row}")

    def __len__(self) -> int:
        return len(self.rows)

    def text(self) -> str:
        """Aligned columns, names to the left and numbers to the right, below the title where there is one."""
        lines = _aligned([self.head, *self._shown()], self._is_number())
        return "\n".join(([self.title] if self.title else []) + lines)

    def markdown(self) -> str:
        """A table of Markdown (GitHub's) below its title in bold."""
        rules = tuple("---:" if number else "---" for number in self._is_number())
        named = [tuple(map(_plain, row)) for row in (self.head, *self._shown())]
        lines = ["| " + " | ".join(row) + " |" for row in (named[0], rules, *named[1:])]
        return "\n".join(([f"**{_plain(self.title)}**", ""] if self.title else []) + lines)

    def csv(self) -> str:
        """RFC 4180 with a header; numbers to six digits, empty where there is none, `inf` where infinite."""
        return tables_csv([self], titled=False)

    def html(self) -> str:
        """A `<table>`; all text is escaped."""
        numbers = self._is_number()
        longest = [max((len(str(row[k])) for row in self.rows), default=0) for k in range(len(self.head))]
        places = [
            ' class="number"' if number else ' class="text"' if length > _LONG else ""
            for number, length in zip(numbers, longest, strict=True)
        ]
        head = "".join(f"<th{p}>{plain(h)}</th>" for p, h in zip(places, self.head, strict=True))
        body = "".join(
            "<tr>" + "".join(f"<td{p}>{plain(c)}</td>" for p, c in zip(places, row, strict=True)) + "</tr>\n"
            for row in self._shown()
        )
        caption = f"<caption>{plain(self.title)}</caption>" if self.title else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>"

    def _shown(self) -> list[tuple[str, ...]]:
        return [tuple(shown(c, h) for c, h in zip(row, self.head, strict=True)) for row in self.rows]

    def _is_number(self) -> list[bool]:
        """Which columns hold numbers: those without a text."""
        return [not any(isinstance(row[k], str) for row in self.rows) for k in range(len(self.head))]


def tables_csv(tables: Sequence[Table], *, titled: bool = True) -> str:
    """Several tables of one head as one CSV, the table's title before each row.

    Raises ValueError for none, and for heads that differ: they are no one table.
    """
    if not tables:
        raise ValueError("no table to write")
    head = tables[0].head
    for table in tables[1:]:
        if table.head != head:
            raise ValueError(f"tables of different columns are no one CSV: {head} and {table.head}")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow((["table"] if titled else []) + list(head))
    for table in tables:
        for row in table.rows:
            writer.writerow(([table.title] if titled else []) + [_exact(cell) for cell in row])
    return file.getvalue()


def tables_markdown(tables: Sequence[Table]) -> str:
    """Several tables below each other."""
    return "\n\n".join(table.markdown() for table in tables) + "\n"


def shown(cell: Cell, head: str = "") -> str:
    """A cell as people read it: two decimals, three for shares (AUC), a dash where there is none."""
    if cell is None or cell != cell:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.3f}" if head.startswith("AUC") else f"{cell:.2f}"
    return str(cell)


def _exact(cell: Cell) -> str:
    if cell is None or cell != cell:
        return ""
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def _plain(text: str) -> str:
    """Text that stays in its cell and is no markup."""
    text = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\|`*_<[" else c for c in text)


def _aligned(rows: list[tuple[str, ...]], is_number: Sequence[bool]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, is_number, strict=True)
        lines.append("  ".join(t.rjust(w) if number else t.ljust(w) for t, w, number in cells).rstrip())
    return lines
