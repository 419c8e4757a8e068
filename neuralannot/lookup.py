"""From what a user names to rows: ids, `(id, side)`, frame keys."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from neuralannot.catalog import Release
from neuralannot.columns import RowView
from neuralannot.companions import Companions
from neuralannot.key_index import KeyIndex
from neuralannot.parameters import SIDES

Id = int | tuple[int | str, ...]


class Lookup:
    """The rows of a view by id and key. What it sorts for that, it sorts when first asked.

    `id_column`: the view's column of annotation ids, None where there is none.
    """

    def __init__(
        self, view: RowView, release: Release, companions: Companions, id_column: str | None
    ) -> None:
        self._view, self._release, self._companions = view, release, companions
        self._id_column = id_column

    @cached_property
    def _ids(self) -> KeyIndex:
        assert self._id_column is not None
        return KeyIndex(self._view.column(self._id_column).reshape(-1, 1))

    @cached_property
    def _keys(self) -> KeyIndex:
        return KeyIndex(self._view.column("key"))

    def rows(self, ids: Any) -> np.ndarray:
        """See `PseudoGT.rows_of`."""
        if hasattr(ids, "tolist") and np.ndim(ids) == 0:
            ids = ids.tolist()  # a number of numpy's or torch's
        if isinstance(ids, (list, np.ndarray, range)) or hasattr(ids, "tolist"):
            wanted = np.asarray(ids) if not isinstance(ids, list) else None
            if wanted is None and all(isinstance(i, (int, np.integer)) for i in ids):
                wanted = np.asarray(ids, np.int64)
            if wanted is not None and wanted.ndim == 1:
                return self._of_ids(as_integers(wanted))
            found = [self.one(tuple(i) if isinstance(i, (list, np.ndarray)) else i) for i in ids]
            return np.concatenate([np.zeros(0, np.int64), *found])
        return self.one(ids)

    def one(self, key: Id) -> np.ndarray:
        """The rows of one id or key; at least one. Raises KeyError, TypeError as `PseudoGT.rows_of`."""
        if isinstance(key, (int, np.integer)):
            return self._of_ids(np.array([key], np.int64))
        if not isinstance(key, tuple):
            raise TypeError(f"an id is an int, a key a tuple of {self._form()}; got {key!r}")
        side = key[-1] if key and isinstance(key[-1], str) else None
        numbers = key if side is None else key[:-1]
        if side is not None and (self._release.model != "mano" or side not in SIDES):
            raise KeyError(f"{key}: {self._release.name} has no side {side!r}")
        if len(numbers) == 1 and self._id_column is not None:
            rows = self._of_ids(np.array(numbers, np.int64))
        elif self._release.key_names != ("id",) and len(numbers) == len(self._release.key_names):
            rows, _ = self._keys.all(np.array([numbers], np.int64))
        else:
            raise KeyError(f"{key}: not a key of {self._release.name}; its keys are {self._form()}")
        if side is not None:
            rows = rows[self._view.column("side")[rows] == SIDES.index(side)]
        if not len(rows):
            raise KeyError(self._companions.absence(self._view, self._release, key))
        return rows

    def _of_ids(self, ids: np.ndarray) -> np.ndarray:
        if self._id_column is None:
            raise ValueError(self._companions.no_ids(self._release))
        rows, count = self._ids.all(ids.reshape(-1, 1))
        absent = np.flatnonzero(count == 0)
        if len(absent):
            raise KeyError(self._companions.absence(self._view, self._release, int(ids[absent[0]])))
        return rows

    def _form(self) -> str:
        names = self._release.key_names
        form = "id" if names == ("id",) else f"({', '.join(names)})"
        return f"{form} or (…, side)" if self._release.model == "mano" else form


def as_integers(values: np.ndarray) -> np.ndarray:
    """As int64; TypeError for what is not whole numbers. An empty list has no type: it is none."""
    return values.astype(np.int64, casting="same_kind" if values.size else "unsafe")
