"""Reading pickles, `.npy`, `.npz` and joblib files without running what they ask for.

A pickle is a program: it may name any function and have it called. Model files are pickles all the same,
many written by Python 2 with chumpy, which no longer installs. The unpickler here knows numpy arrays, scipy
sparse matrices and chumpy arrays by the shape of their records alone: it imports nothing that a file names,
calls nothing, and builds plain arrays from the records after checking their sizes. Everything else is refused
by name.
"""

from __future__ import annotations

import bz2
import lzma
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO, ClassVar

import numpy as np

from neuralannot.pickle_records import (
    SPARSE_FORMATS,
    Builder,
    Name,
    Record,
    Stream,
    as_dtype,
    as_shape,
    checked_key,
)

__all__ = ["RefusedPickleError", "load_joblib", "load_npy", "load_npz", "load_pickle"]

# Compressed files may unpack to any size. The largest official model file holds less than 1 GB.
_MAX_UNPACKED = 4 << 30

_NAMES: dict[str, str] = {
    "numpy.ndarray": "ndarray",
    "numpy.matrix": "ndarray",
    "numpy.matrixlib.defmatrix.matrix": "ndarray",
    "numpy.memmap": "ndarray",
    "numpy.core.memmap.memmap": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
    "collections.OrderedDict": "ordered_dict",
    "chumpy.ch.Ch": "ch",
    "chumpy.reordering.Select": "select",
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray._reconstruct"] = "reconstruct"
    _NAMES[f"{_core}.multiarray.scalar"] = "scalar"
    _NAMES[f"{_core}.numeric._frombuffer"] = "frombuffer"
for _format in SPARSE_FORMATS:
    for _module in (f"scipy.sparse.{_format}", f"scipy.sparse._{_format}"):
        _NAMES[f"{_module}.{_format}_matrix"] = _NAMES[f"{_module}.{_format}_array"] = _format
    _NAMES[f"scipy.sparse._arrays.{_format}_array"] = _format  # SciPy 1.8 to 1.10
for _builtins in ("builtins", "__builtin__"):
    _NAMES[f"{_builtins}.object"] = "object"
    _NAMES[f"{_builtins}.set"] = _NAMES[f"{_builtins}.frozenset"] = "set"
    _NAMES[f"{_builtins}.bytes"] = "bytes"
for _copyreg in ("copyreg", "copy_reg"):
    _NAMES[f"{_copyreg}._reconstructor"] = "reconstructor"
_JOBLIB_NAMES = {
    **_NAMES,
    "joblib.numpy_pickle.NumpyArrayWrapper": "wrapper",
    "sklearn.externals.joblib.numpy_pickle.NumpyArrayWrapper": "wrapper",
}
# What a pickle may call, and what it may make empty and then give a state.
_CALLED = {"reconstruct", "frombuffer", "scalar", "dtype"}
_MADE = {*SPARSE_FORMATS, "ch", "select", "wrapper"}


class RefusedPickleError(ValueError):
    """A file asks for something that is not read, and nothing of it was run.

    `path` names the file, `name` the function or class that it asks for.
    """

    def __init__(self, path: str, name: str) -> None:
        super().__init__(path, name)
        self.path = path
        self.name = name

    def __str__(self) -> str:
        return (
            f"{self.path} asks for {self.name}; only numpy arrays, scipy sparse matrices and chumpy arrays "
            "are read; get the file from its official site, or save its arrays with numpy.savez"
        )


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """What the pickle `path` holds (protocols 0 to 5, of Python 2 or 3), read without running anything.

    numpy arrays come back as writable arrays in native byte order, numpy scalars as numpy scalars, sparse
    matrices as scipy's `csc_matrix`, `csr_matrix` or `coo_matrix`, chumpy arrays (`Ch`, and `Select` of one)
    as numpy arrays, ordered dicts as dicts. Python 2 strings are decoded as latin-1; bytes that
    are keys of dicts become str.

    Raises `RefusedPickleError` where the file asks for anything else, ValueError where it is cut short or
    inconsistent, FileNotFoundError where it is not there.
    """
    with open(path, "rb") as file, _reading(path, "pickle"):
        return _Unpickler(Stream(file, _size(file)), os.fspath(path)).load()


def load_npy(path: str | os.PathLike[str]) -> Any:
    """The array of the `.npy` file `path`; object arrays are read as by `load_pickle`.

    A 0-d object array, such as FLAME's `flame_dynamic_embedding.npy`, gives the object itself, there a dict.
    Raises as `load_pickle` does.
    """
    with open(path, "rb") as file, _reading(path, ".npy file"):
        return _read_npy(Stream(file, _size(file)), os.fspath(path))


def load_npz(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Name -> array of the `.npz` archive `path`; object members are read as by `load_npy`.

    Raises as `load_pickle` does; ValueError too where the members unpack to more than 4 GiB.
    """
    with open(path, "rb") as file, _reading(path, ".npz archive"), zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
        if sum(member.file_size for member in members) > _MAX_UNPACKED:
            raise ValueError(f"it unpacks to more than {_MAX_UNPACKED >> 30} GiB")
        arrays = {}
        for member in members:
            with archive.open(member) as opened:
                where = f"{os.fspath(path)} ({member.filename})"
                arrays[member.filename[: -len(".npy")]] = _read_npy(Stream(opened, member.file_size), where)
        return arrays


def load_joblib(path: str | os.PathLike[str]) -> Any:
    """What `joblib.dump` (0.10 or newer) wrote to `path`, plain or compressed by zlib, gzip, bz2, lzma or xz.

    InstaVariety's `insta_train_db.pt` is such a file, a dict of arrays. joblib itself is not needed. Values
    and errors are those of `load_pickle`; ValueError too where a compressed file unpacks to more than 4 GiB.
    """
    with open(path, "rb") as file, _reading(path, "joblib file"):
        start = file.read(6)
        file.seek(0)
        decompressor: Any = None
        if start[:1] == b"\x78" or start[:2] == b"\x1f\x8b":
            decompressor = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)
        elif start[:2] == b"BZ":
            decompressor = bz2.BZ2Decompressor()
        elif start == b"\xfd7zXZ\x00" or start[:2] == b"\x5d\x00":
            decompressor = lzma.LZMADecompressor()
        elif start[:4] == b"\x04\x22\x4d\x18":
            raise ValueError(
                "lz4 compression is not read; write it again with joblib.dump(..., compress='zlib')"
            )
        stream = Stream(file, _size(file)) if decompressor is None else _unpack(file, decompressor)
        return _Unpickler(stream, os.fspath(path), _JOBLIB_NAMES).load()


@contextmanager
def _reading(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """Turn whatever a broken file trips over into a ValueError that names the file."""
    inconsistent = (
        EOFError,
        OSError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        struct.error,
    )
    try:
        yield
    except RefusedPickleError:
        raise
    except inconsistent as error:
        raise ValueError(f"{os.fspath(path)} cannot be read as a {kind}: {error}") from error
    except (pickle.UnpicklingError, LookupError, AttributeError, TypeError, AssertionError) as error:
        raise ValueError(
            f"{os.fspath(path)} cannot be read as a {kind}: it is damaged or not one ({error})"
        ) from error
    except (ArithmeticError, MemoryError, RuntimeError) as error:  # RecursionError is a RuntimeError
        reason = f"{type(error).__name__} {error}".strip()
        raise ValueError(f"{os.fspath(path)} cannot be read as a {kind}: {reason}") from error


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _unpack(file: BinaryIO, decompressor: Any) -> Stream:
    unpacked = BytesIO()
    while not decompressor.eof:
        piece = file.read(4096)  # small, because 4 KiB of bz2 can hold 90 MB
        if not piece:
            raise EOFError("the compressed data is cut short")
        unpacked.write(decompressor.decompress(piece))
        if unpacked.tell() > _MAX_UNPACKED:
            raise ValueError(f"it unpacks to more than {_MAX_UNPACKED >> 30} GiB")
    size = unpacked.tell()
    unpacked.seek(0)
    return Stream(unpacked, size)


def _read_npy(stream: Stream, where: str) -> Any:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{where}: .npy version {version} is not read, save it again with numpy.save")
    read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
    shape, fortran, dtype = read_header(stream)
    shape = as_shape(shape)
    if dtype.kind not in "biufcSUO":
        raise ValueError(f"{where}: arrays of {dtype} are not read, only numbers, strings and objects")
    if not dtype.hasobject:
        return stream.read_array(dtype, shape, "F" if fortran else "C")
    array = _Unpickler(stream, where).load()
    if not (isinstance(array, np.ndarray) and array.dtype.hasobject and array.shape == shape):
        raise ValueError(
            f"{where}: the pickle inside is not the object array of shape {shape} that the header names"
        )
    return array[()] if shape == () else array


# The pure Python unpickler of the standard library: its position in the file is exact, which joblib's raw
# arrays need; its memo grows by use, where the C one allocates for any index; and every instruction can be
# replaced.
_PythonUnpickler: Any = pickle._Unpickler


class _Unpickler(_PythonUnpickler):  # type: ignore[misc]  # typeshed does not know the base
    """Runs the instructions of a pickle with names and records in place of functions and objects."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_PythonUnpickler.dispatch)

    def __init__(self, stream: Stream, where: str, names: dict[str, str] = _NAMES) -> None:
        super().__init__(stream, encoding="latin1")
        self._stream = stream
        self._where = where
        self._names = names
        self._builder = Builder(budget=4 * stream.size + (1 << 20))

    def load(self) -> Any:
        return self._builder.build(super().load())

    def find_class(self, module: str, name: str) -> Name:
        full = f"{module}.{name}"
        if "." in name or full not in self._names:
            raise RefusedPickleError(self._where, full)
        return Name(full, self._names[full])

    # -- instructions that make objects

    def _reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def _call(self, called: Any, args: Any) -> Any:
        if not isinstance(called, Name):
            raise RefusedPickleError(self._where, f"a call of a {type(called).__name__}")
        if not isinstance(args, tuple):
            raise ValueError(f"{called.name} is called with a {type(args).__name__}, not with a tuple")
        if called.role in _CALLED:
            return Record(called.role, args)
        if called.role == "encode":
            return self._builder.encoded(*args)
        if called.role == "reconstructor" and len(args) == 3:
            made, base, state = args
            if isinstance(base, Name) and base.role == "object" and state is None:
                return self._make(made, ())
        if called.role == "set" and len(args) <= 1 and all(isinstance(arg, (list, tuple)) for arg in args):
            return {checked_key(item) for arg in args for item in arg}
        if called.role == "ordered_dict" and len(args) <= 1 and all(isinstance(arg, list) for arg in args):
            return {checked_key(key): value for arg in args for key, value in arg}
        if called.role == "bytes" and not args:
            return b""
        raise RefusedPickleError(self._where, f"a call of {called.name}")

    def _new(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], args)

    def _make(self, made: Any, args: Any) -> Record:
        if isinstance(made, Name) and made.role in _MADE and args == ():
            return Record(made.role)
        name = made.name if isinstance(made, Name) else f"a {type(made).__name__}"
        raise RefusedPickleError(self._where, f"an instance of {name}")

    def _set_state(self) -> None:
        state = self.stack.pop()
        record = self.stack[-1]
        if not isinstance(record, Record) or record.state is not None:
            raise ValueError(f"a state is set on a {type(record).__name__}")
        record.state = state
        if record.role == "wrapper":
            record.array = self._read_wrapped(state)

    def _read_wrapped(self, state: Any) -> np.ndarray:
        """The array that follows a joblib wrapper in the file: padding and raw bytes, or a pickle."""
        subclass = state["subclass"]
        if not (isinstance(subclass, Name) and subclass.role == "ndarray"):
            raise ValueError("a wrapped array is of another class than numpy.ndarray")
        dtype, shape = as_dtype(state["dtype"]), as_shape(state["shape"])
        if dtype.hasobject:
            array = _Unpickler(self._stream, self._where).load()
            if not (isinstance(array, np.ndarray) and array.shape == shape):
                raise ValueError(f"an object array of shape {shape} is not where its wrapper says")
            return array
        if state.get("numpy_array_alignment_bytes") is not None:  # joblib 1.2 and newer
            self._stream.read(self._stream.read(1)[0])
        return self._stream.read_array(dtype, shape, state["order"])

    def _refuse(self) -> None:
        raise RefusedPickleError(
            self._where, "something outside the file (a pickle instruction models never use)"
        )

    # -- instructions that fill containers: the standard ones call methods of whatever lies on the stack

    def _append_one(self) -> None:
        value = self.stack.pop()
        self._top(list).append(value)

    def _append_many(self) -> None:
        values = self.pop_mark()
        self._top(list).extend(values)

    def _set_one(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._top(dict)[checked_key(key)] = value

    def _set_many(self) -> None:
        items = self.pop_mark()
        self._top(dict).update(_pairs(items))

    def _make_dict(self) -> None:
        items = self.pop_mark()
        self.append(_pairs(items))

    def _add_many(self) -> None:
        items = self.pop_mark()
        self._top(set).update(checked_key(item) for item in items)

    def _make_frozenset(self) -> None:
        items = self.pop_mark()
        self.append({checked_key(item) for item in items})

    def _make_bytearray(self) -> None:
        (count,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(count))

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise ValueError(
                f"items are put into a {type(self.stack[-1]).__name__} as if it were a {kind.__name__}"
            )
        return self.stack[-1]

    dispatch.update(
        {
            pickle.REDUCE[0]: _reduce,
            pickle.NEWOBJ[0]: _new,
            pickle.BUILD[0]: _set_state,
            pickle.APPEND[0]: _append_one,
            pickle.APPENDS[0]: _append_many,
            pickle.SETITEM[0]: _set_one,
            pickle.SETITEMS[0]: _set_many,
            pickle.DICT[0]: _make_dict,
            pickle.ADDITEMS[0]: _add_many,
            pickle.FROZENSET[0]: _make_frozenset,
            pickle.BYTEARRAY8[0]: _make_bytearray,
        }
    )
    for _code in ("OBJ", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"):
        dispatch[getattr(pickle, _code)[0]] = _refuse


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("a dict has a key without a value")
    return {checked_key(items[i]): items[i + 1] for i in range(0, len(items), 2)}
