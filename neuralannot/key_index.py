"""From ids or frame keys to rows, for millions of rows, without a dictionary."""

from __future__ import annotations

from math import prod

import numpy as np


class KeyIndex:
    """The rows of integer keys (N, K). Keys may repeat.

    Keys are packed into one integer each and sorted once; look-ups are binary searches.
    """

    def __init__(self, keys: np.ndarray) -> None:
        keys = np.asarray(keys, np.int64)
        self._width = keys.shape[1]
        self._low = keys.min(axis=0) if len(keys) else np.zeros(self._width, np.int64)
        self._high = keys.max(axis=0) if len(keys) else self._low
        # In Python's integers, which do not overflow.
        span = [h - low + 1 for low, h in zip(self._low.tolist(), self._high.tolist(), strict=True)]
        if prod(span) >= 2**63:
            raise ValueError(f"keys range too widely to be indexed: {span}")
        self._span = span
        packed = self._pack(keys)
        self._order = np.argsort(packed, kind="stable")
        self._sorted = packed[self._order]

    def _pack(self, keys: np.ndarray) -> np.ndarray:
        """One integer a key; -1 for keys outside the range of those indexed."""
        inside = np.all((keys >= self._low) & (keys <= self._high), axis=1)
        shifted = np.where(inside[:, None], keys, self._low) - self._low
        packed = np.zeros(len(keys), np.int64)
        for column in range(self._width):
            packed = packed * self._span[column] + shifted[:, column]
        return np.where(inside, packed, -1)

    def first(self, keys: np.ndarray) -> np.ndarray:
        """(M, K) keys -> (M,) the first row of each, -1 where there is none."""
        packed = self._pack(np.asarray(keys, np.int64).reshape(-1, self._width))
        if not len(self._sorted):
            return np.full(len(packed), -1, np.int64)
        position = np.minimum(np.searchsorted(self._sorted, packed), len(self._sorted) - 1)
        return np.where(self._sorted[position] == packed, self._order[position], -1)

    def all(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M, K) keys -> the rows of all of them, key by key, each key's in order; (M,) how many each has."""
        packed = self._pack(np.asarray(keys, np.int64).reshape(-1, self._width))
        begin = np.searchsorted(self._sorted, packed, "left")
        count = np.searchsorted(self._sorted, packed, "right") - begin
        ends = np.cumsum(count)
        within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - count, count)
        return self._order[np.repeat(begin, count) + within], count
