"""The records of arrays that a pickle holds, and the arrays built from them once their sizes are checked.

`safe_pickle` puts a `Record` wherever a pickle makes an object. What a record may be, its role, is one of
`reconstruct`, `frombuffer` (numpy arrays), `scalar`, `dtype`, `csc`, `csr`, `coo` (scipy), `ch`, `select`
(chumpy), `wrapper` (joblib).
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

SPARSE_FORMATS = ("csc", "csr", "coo")
_MAX_DEPTH = 64
_PLAIN = (str, bytes, int, float, complex, bool, type(None))


class Name:
    """A function or class that a pickle names and that is known here; never the thing itself."""

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self.role = role


class Record:
    """What an object was made from, and the state it was given."""

    def __init__(self, role: str, args: tuple[Any, ...] = ()) -> None:
        self.role = role
        self.args = args
        self.state: Any = None
        self.array: np.ndarray | None = None  # joblib's arrays follow their record in the file


class Stream:
    """A binary file whose end is known: nothing is allocated for bytes that are not there."""

    def __init__(self, file: Any, size: int) -> None:
        self._file = file
        self.size = size
        self.left = size

    def read(self, count: int = -1) -> bytes:
        count = self.left if count < 0 else count
        self._claim(count)
        data: bytes = self._file.read(count)
        if len(data) != count:
            raise EOFError("the file is cut short")
        return data

    def readline(self) -> bytes:
        line: bytes = self._file.readline()
        self.left -= len(line)
        return line

    def read_array(self, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> np.ndarray:
        """The next bytes as an array, read in place."""
        nbytes = math.prod(shape) * dtype.itemsize
        self._claim(nbytes)
        raw = np.empty(nbytes, np.uint8)
        view: Any = raw.data
        filled = 0
        while filled < nbytes:  # members of archives may give fewer bytes than asked for
            got = self._file.readinto(view[filled : filled + (64 << 20)])
            if not got:
                raise EOFError("the file is cut short")
            filled += got
        return shaped(raw, dtype, shape, order)

    def _claim(self, count: int) -> None:
        if count > self.left:
            raise EOFError(f"the file is cut short: {count} bytes are due where {self.left} are left")
        self.left -= count


class Builder:
    """Builds the values of one pickle: each record once, at most `budget` bytes, no deeper than 64 levels.

    A few bytes of a pickle can name the same data any number of times; real files build about as much as they
    hold.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._built: dict[int, Any] = {}
        self._open: set[int] = set()

    def build(self, value: Any) -> Any:
        """`value` with every record in it replaced by its array; ValueError where one is inconsistent."""
        if isinstance(value, _PLAIN):
            return value
        if id(value) in self._built:
            return self._built[id(value)]
        if id(value) in self._open:
            raise ValueError("the data contains itself")
        if len(self._open) >= _MAX_DEPTH:
            raise ValueError(f"the data is nested deeper than {_MAX_DEPTH} levels")
        self._open.add(id(value))
        self._built[id(value)] = built = self._build(value)
        self._open.discard(id(value))
        return built

    def _build(self, value: Any) -> Any:
        if isinstance(value, Record):
            return self._build_record(value)
        if isinstance(value, dict):
            named = {
                key.decode("latin-1") if isinstance(key, bytes) else key: item for key, item in value.items()
            }
            return {key: self.build(item) for key, item in named.items()}
        if isinstance(value, list):
            return [self.build(item) for item in value]
        if isinstance(value, tuple):
            return tuple(self.build(item) for item in value)
        if isinstance(value, set):
            return set(value)
        if isinstance(value, Name):
            raise ValueError(f"it holds {value.name} itself where a value is due")
        raise ValueError(f"it holds a {type(value).__name__} where a value is due")

    def _build_record(self, record: Record) -> Any:
        role = record.role
        if role == "reconstruct":
            return self._array(record)
        if role == "frombuffer":
            return self._from_buffer(*_exactly(record.args, 4, 5, "an array from a buffer"))
        if role == "scalar":
            dtype, data = _exactly(record.args, 2, 2, "a numpy scalar")
            return self.array_of(dtype, data, (), "C")[()]
        if role == "wrapper" and record.array is not None:
            return record.array
        if role in SPARSE_FORMATS:
            return self._sparse(role, self._state(record, role, "data"))
        if role == "ch":
            return np.asarray(self.build(self._state(record, "chumpy.Ch", "x")["x"]))
        if role == "select":
            return self._select(self._state(record, "chumpy.Select", "a", "idxs"))
        raise ValueError(f"it holds a {role} record where a value is due")

    def _state(self, record: Record, name: str, *keys: str) -> dict[str, Any]:
        if not isinstance(record.state, dict):
            raise ValueError(f"a {name} record has no state")
        state = {
            key.decode("latin-1") if isinstance(key, bytes) else key: v for key, v in record.state.items()
        }
        for key in keys:
            if key not in state:
                raise ValueError(f"a {name} record has no {key!r}, only {sorted(map(str, state))[:12]}")
        return state

    # -- numpy

    def _array(self, record: Record) -> np.ndarray:
        made, _, _ = _exactly(record.args, 3, 3, "an array")
        if not (isinstance(made, Name) and made.role == "ndarray"):
            raise ValueError("an array is reconstructed from something else than numpy.ndarray")
        _, shape, dtype, fortran, data = _exactly(record.state, 5, 5, "the state of an array")
        return self.array_of(dtype, data, shape, "F" if fortran else "C")

    def _from_buffer(self, data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
        if axes is None:
            return self.array_of(dtype, data, shape, order)
        array = self.array_of(dtype, data, shape, "C")
        return np.ascontiguousarray(array.transpose(as_shape(axes)))

    def array_of(self, dtype: Any, data: Any, shape: Any, order: Any) -> np.ndarray:
        """The native, writable array of `shape` that `data`, bytes or a list of objects, holds."""
        parsed, shape = as_dtype(dtype), as_shape(shape)
        if parsed.hasobject:
            if not isinstance(data, list) or math.prod(shape) != len(data):
                raise ValueError(
                    f"an object array of shape {shape} holds other than {math.prod(shape)} items"
                )
            objects = np.empty(len(data), object)
            for i, item in enumerate(data):
                objects[i] = self.build(item)
            return objects.reshape(shape)
        data = self.build(data)
        if isinstance(data, str):  # a Python 2 string; the unpickler decodes those as latin-1
            data = data.encode("latin-1")
        due = math.prod(shape) * parsed.itemsize
        if not isinstance(data, bytes) or len(data) != due:
            got = f"{len(data)} bytes" if isinstance(data, bytes) else f"a {type(data).__name__}"
            raise ValueError(f"an array of {parsed} and shape {shape} takes {due} bytes, got {got}")
        self._spend(due)
        return shaped(
            np.frombuffer(data, np.uint8).copy() if due else np.empty(0, np.uint8), parsed, shape, order
        )

    def encoded(self, text: Any, encoding: Any) -> bytes:
        """Bytes that protocols 0 to 2 write as text."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise ValueError("bytes are written as text in another encoding than latin-1")
        self._spend(len(text))
        return text.encode("latin-1")

    def _spend(self, nbytes: int) -> None:
        self._budget -= nbytes
        if self._budget < 0:
            raise ValueError("it builds several times more data than the file holds")

    # -- scipy and chumpy

    def _sparse(self, kind: str, state: dict[str, Any]) -> Any:
        from scipy import sparse

        shape = as_shape(self.build(state.get("_shape")))
        if len(shape) != 2:
            raise ValueError(f"a {kind} matrix has shape {shape}")
        data = self._vector(state["data"], kind, "data", "biufc")
        if kind == "coo":
            # SciPy 1.13 put both index arrays into one tuple.
            coords = state.get("coords", (state.get("row"), state.get("col")))
            row, col = (self._vector(part, kind, "coords", "iu") for part in _exactly(coords, 2, 2, "coords"))
            _check_indices(row, shape[0], len(data), kind)
            _check_indices(col, shape[1], len(data), kind)
            return sparse.coo_matrix((data, (row, col)), shape=shape)
        indices = self._vector(state.get("indices"), kind, "indices", "iu")
        indptr = self._vector(state.get("indptr"), kind, "indptr", "iu").astype(np.int64)
        major, minor = shape if kind == "csr" else shape[::-1]
        if (
            len(indptr) != major + 1
            or indptr[0] != 0
            or (np.diff(indptr) < 0).any()
            or indptr[-1] > len(data)
        ):
            raise ValueError(f"indptr of a {kind} matrix of shape {shape} does not fit its data")
        _check_indices(indices, minor, len(data), kind)
        made = sparse.csr_matrix if kind == "csr" else sparse.csc_matrix
        return made((data[: indptr[-1]], indices[: indptr[-1]], indptr), shape=shape)

    def _vector(self, value: Any, kind: str, name: str, kinds: str) -> np.ndarray:
        array = self.build(value)
        if not (isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in kinds):
            raise ValueError(f"{name} of a {kind} matrix is not a 1-D array of the right type")
        return array

    def _select(self, state: dict[str, Any]) -> np.ndarray:
        """chumpy's `Select`: entries `idxs` of the flattened `a`, in `preferred_shape` if it has one."""
        flat = np.asarray(self.build(state["a"])).ravel()
        idxs = np.asarray(self.build(state["idxs"]))
        if idxs.dtype.kind not in "iu" or (
            idxs.size and not 0 <= int(idxs.min()) <= int(idxs.max()) < flat.size
        ):
            raise ValueError(f"idxs of a chumpy.Select are not indices into its {flat.size} values")
        self._spend(idxs.size * flat.itemsize)
        chosen = flat[idxs]
        shape = self.build(state.get("preferred_shape"))
        shaped: np.ndarray = chosen if shape is None else chosen.reshape(as_shape(shape))
        return shaped


def as_shape(value: Any) -> tuple[int, ...]:
    """`value` as a tuple of counts, or ValueError."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = tuple(value)
    if not isinstance(value, (tuple, list)) or len(value) > 32:
        raise ValueError("a shape is not a tuple of counts")
    if not all(isinstance(n, (int, np.integer)) and n >= 0 for n in value):
        raise ValueError("a shape is not a tuple of counts")
    return tuple(int(n) for n in value)


def as_dtype(record: Any) -> np.dtype[Any]:
    """The dtype of a `dtype` record: numbers, strings or objects, in the byte order of the file."""
    if not (isinstance(record, Record) and record.role == "dtype" and record.args):
        raise ValueError("an array has no dtype")
    spec = record.args[0].decode("latin-1") if isinstance(record.args[0], bytes) else record.args[0]
    if not isinstance(spec, str) or not re.fullmatch(r"[<>|=]?([biufc]\d{1,2}|[SU]\d{1,9}|O\d?)", spec):
        raise ValueError(
            f"arrays of dtype {str(spec)[:20]!r} are not read, only numbers, strings and objects"
        )
    if "O" in spec:
        return np.dtype(object)
    dtype = np.dtype(spec)
    if record.state is None:
        return dtype
    state = record.state
    if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
        raise ValueError("arrays of records are not read, only numbers, strings and objects")
    order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
    if order not in ("<", ">", "|", "="):
        raise ValueError(f"{str(order)[:20]!r} is no byte order")
    return dtype.newbyteorder(order)  # type: ignore[arg-type]


def shaped(raw: np.ndarray, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> np.ndarray:
    """`raw` (n,) uint8, the right number of bytes, as a native array of `shape`."""
    if math.prod(shape) == 0:
        return np.empty(shape, dtype.newbyteorder("="))
    if dtype.itemsize == 0:
        raise ValueError(f"dtype {dtype} has no width")
    if dtype.kind == "b":  # any other byte than 0 and 1 is no bool to numpy's loops
        raw = (raw != 0).view(np.uint8)
    array = raw.view(dtype).reshape(shape, order="F" if order == "F" else "C")
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def checked_key(key: Any) -> Any:
    """`key` if it is text, bytes, a number or a flat tuple of those, or ValueError.

    Hashing a deep tuple would overrun the C stack.
    """
    if isinstance(key, _PLAIN) or (isinstance(key, tuple) and all(isinstance(part, _PLAIN) for part in key)):
        return key
    raise ValueError(f"a {type(key).__name__} is used as a key")


def _exactly(values: Any, least: int, most: int, what: str) -> tuple[Any, ...]:
    if not isinstance(values, tuple) or not least <= len(values) <= most:
        raise ValueError(
            f"{what} is made from {least} values, got {len(values) if isinstance(values, tuple) else 'none'}"
        )
    return values


def _check_indices(indices: np.ndarray, bound: int, count: int, kind: str) -> None:
    if len(indices) != count or (count and not 0 <= int(indices.min()) <= int(indices.max()) < bound):
        raise ValueError(f"indices of a {kind} matrix do not fit its shape and data")
