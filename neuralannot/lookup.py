"""From what a user names to rows: ids, `(id, side)`, frame keys."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from functools import cached_property
from itertools import takewhile
from pathlib import PurePath
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
        if _is_number(ids) or (isinstance(ids, tuple) and self._is_key(ids)):
            return self.one(ids)
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            raise TypeError(f"ids must be {self._form()}, or several; got {ids!r:.60}")
        wanted = ids if isinstance(ids, np.ndarray) else list(ids)
        if isinstance(wanted, np.ndarray) and wanted.dtype == bool:
            raise TypeError("a mask is no list of ids: select rows with gt.rows(mask)")
        if isinstance(wanted, list) and all(_is_number(i) for i in wanted):
            wanted = np.array([_number(i) for i in wanted], np.int64)
        if isinstance(wanted, np.ndarray) and wanted.ndim == 1:
            return self._of_ids(as_integers(wanted))
        found = [self.one(i if _is_number(i) else tuple(i)) for i in wanted]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def one(self, key: Any) -> np.ndarray:
        """The rows of one id or key; at least one. Raises KeyError, TypeError as `PseudoGT.rows_of`."""
        rows = self.find(key)
        if not len(rows):
            name = _number(key) if _is_number(key) else key
            raise KeyError(self._companions.absence(self._view, self._release, name))
        return rows

    def find(self, key: Any) -> np.ndarray:
        """The rows of one id or key, none where there is none."""
        if _is_number(key):
            key = (_number(key),)
        if not isinstance(key, tuple):
            raise TypeError(f"an id is an int, a key a tuple of {self._form()}; got {key!r:.60}")
        side = key[-1] if key and isinstance(key[-1], str) else None
        numbers = key if side is None else key[:-1]
        if side is not None and (self._release.model != "mano" or side not in SIDES):
            raise KeyError(f"{key}: {self._release.name} has no side {side!r}")
        if not self._is_key(key):
            raise KeyError(f"{key}: not a key of {self._release.name}; its keys are {self._form()}")
        wanted = np.array([[_number(n) for n in numbers]], np.int64)
        if len(numbers) == 1:
            rows, _ = self._need_ids().all(wanted)
        else:
            rows, _ = self._keys.all(wanted)
        return rows if side is None else rows[self._view.column("side")[rows] == SIDES.index(side)]

    def _is_key(self, key: tuple[Any, ...]) -> bool:
        """Whether a tuple has a key's form: an id, or as many numbers as frame keys, and maybe a side."""
        numbers = key[:-1] if key and isinstance(key[-1], str) else key
        names = self._release.key_names
        framed = names != ("id",) and len(numbers) == len(names)
        return all(_is_number(n) for n in numbers) and (len(numbers) == 1 or framed)

    def _need_ids(self) -> KeyIndex:
        if self._id_column is None:
            raise ValueError(self._companions.no_ids(self._release))
        return self._ids

    def _of_ids(self, ids: np.ndarray) -> np.ndarray:
        rows, count = self._need_ids().all(ids.reshape(-1, 1))
        absent = np.flatnonzero(count == 0)
        if len(absent):
            raise KeyError(self._companions.absence(self._view, self._release, int(ids[absent[0]])))
        return rows

    def _form(self) -> str:
        names = self._release.key_names
        form = "id" if names == ("id",) else f"({', '.join(names)})"
        return f"{form} or (…, side)" if self._release.model == "mano" else form


def key_of_text(text: str) -> int | tuple[int | str, ...]:
    """`476384`, `476384/right`, `1/2/1/0` (a frame key), as `rows_of` takes it. Raises ValueError."""
    parts = text.split("/")
    try:
        key = tuple(part if part in SIDES else int(part) for part in parts)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither an id (476384, 476384/right) nor a frame key (1/2/1/0)"
        ) from None
    return key[0] if len(key) == 1 and isinstance(key[0], int) else key


def rows_of_image(paths: np.ndarray, image: str | os.PathLike[str]) -> np.ndarray:
    """Rows whose image path (N,) is the file `image`: the longest end that the two have in common decides.

    Raises ValueError where no image is called so, or several are and the folders do not tell them apart.
    """
    wanted = PurePath(image).parts[::-1]
    unique, which = np.unique(paths, return_inverse=True)
    alike = [_shared_end(wanted, PurePath(path).parts[::-1]) for path in unique.tolist()]
    best = max(alike, default=0)
    found = [number for number, parts in enumerate(alike) if parts == best]
    if not best:
        raise ValueError(f"{image}: no annotation with a fit is of an image called {wanted[0]}")
    if len(found) > 1:
        shown = ", ".join(unique[found[:3]].tolist())
        raise ValueError(f"{image}: may be any of {len(found)} images: {shown}; name it with its folders")
    return np.flatnonzero(which == found[0])


def _shared_end(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    both = min(len(one), len(other))  # one path may have more folders than the other
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one[:both], other[:both], strict=True))
    return sum(1 for _ in same)


_LARGEST = np.iinfo(np.int64).max


def _is_number(value: Any) -> bool:
    """Whether it is a whole number of Python's, numpy's or torch's; bool is not."""
    if isinstance(value, (bool, np.bool_)) or getattr(value, "ndim", 0) != 0:
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return "bool" not in str(getattr(value, "dtype", ""))


def _number(value: Any) -> int:
    """As an int; what no file can hold becomes the largest, which no file does."""
    number = operator.index(value)
    return number if -_LARGEST <= number <= _LARGEST else _LARGEST


def as_integers(values: np.ndarray) -> np.ndarray:
    """As int64; TypeError for what is not whole numbers. An empty list has no type: it is none."""
    if values.dtype == bool:
        raise TypeError("a mask is no list of numbers")
    return values.astype(np.int64, casting="same_kind" if values.size else "unsafe")
