"""The list of annotations: in which order, which page, and finding one by what a user types."""

from __future__ import annotations

import numpy as np

from neuralannot.exports import row_names
from neuralannot.lookup import key_of_text
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.report.errors import for_people

__all__ = ["FILE_ORDER", "Listing"]

FILE_ORDER = "as in the file"
_LAST = ", best first"
_FIRST = ", worst first"


class Listing:
    """The rows of a file in an order, a page of them at a time.

    In memory there is at most one number a row, that of the order; names are made for the rows of a page.
    """

    def __init__(self, gt: PseudoGT) -> None:
        self._gt = gt
        self._order: np.ndarray | None = None
        self._sorted_by = FILE_ORDER

    def __len__(self) -> int:
        return len(self._gt)

    @property
    def orders(self) -> tuple[str, ...]:
        """What `sort` takes: the file's order, and each quality column from either end."""
        named = [name.replace("_", " ") + end for name in self._gt.quality for end in (_FIRST, _LAST)]
        return (FILE_ORDER, *named)

    @property
    def sorted_by(self) -> str:
        """The order that is used, one of `orders`."""
        return self._sorted_by

    def sort(self, by: str) -> None:
        """Use another order. Rows without a value come last, equal ones as in the file.

        Raises ValueError for one that is not among `orders`.
        """
        if by not in self.orders:
            raise ValueError(f"no order is called {by!r}; there are {', '.join(map(repr, self.orders))}")
        self._sorted_by, self._order = by, None
        if by == FILE_ORDER:
            return
        column = by.removesuffix(_FIRST).removesuffix(_LAST).replace(" ", "_")
        values = np.asarray(self._gt.quality[column]).astype(np.float32)
        if by.endswith(_FIRST):
            values = -values
        self._order = np.argsort(values, kind="stable")  # NaN comes last

    def row(self, place: int) -> int:
        """The row at a place of the list; beyond an end it is the end's. Raises ValueError without rows."""
        if not len(self):
            raise ValueError(f"{self._gt!r} has no rows to show")
        place = min(max(place, 0), len(self) - 1)
        return place if self._order is None else int(self._order[place])

    def place(self, row: int) -> int:
        """Where a row is in the list."""
        return row if self._order is None else int(np.flatnonzero(self._order == row)[0])

    def page(self, number: int, size: int) -> np.ndarray:
        """(M,) rows of a page, M at most `size`."""
        first = min(max(number, 0) * size, len(self))
        last = min(first + size, len(self))
        return np.arange(first, last) if self._order is None else self._order[first:last]

    def pages(self, size: int) -> int:
        """How many pages there are, at least 1."""
        return max(1, -(-len(self) // size))

    def find(self, text: str) -> int:
        """The first row of an id (`476384`), a hand (`476384/right`) or a frame key (`1/2/1/0`).

        Raises ValueError for what is neither, KeyError that says whether it is unknown or has no fit.
        """
        return int(self._gt.rows_of(key_of_text(text.strip()))[0])

    def names(self, rows: np.ndarray) -> list[str]:
        """What rows are called: what `find` takes for the first of them, and the value they are sorted by."""
        some = self._gt.rows(rows)
        found = [name_of(some, row) for row in range(len(some))]
        if self._order is None:
            return found
        column = self._sorted_by.removesuffix(_FIRST).removesuffix(_LAST).replace(" ", "_")
        values = some.quality[column].tolist()
        return [f"{name}   {quality_text(column, v)}" for name, v in zip(found, values, strict=True)]


def name_of(gt: PseudoGT, row: int) -> str:
    """A row's id, or its frame key, and a hand's side: `476384/right`, `1/2/1/0`."""
    one = gt.rows([row])
    return row_names(one)[0].replace("-", "/")


def quality_text(name: str, value: float | bool) -> str:
    """A measure's value for people: millimetres, degrees, yes and no."""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if np.isnan(value):
        return "not measured"
    unit, shown = for_people(name, np.array([value]))
    return f"{number_text(shown[0])} {unit}".rstrip()


def number_text(value: float) -> str:
    """A number as people read it: three digits, no powers of ten where none are needed."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
