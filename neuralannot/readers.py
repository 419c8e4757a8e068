"""Released JSON files -> columns. One pass over the file, no Python object per number.

Columns (N fits): `param/<name>` float32 in smplx's names, `valid/<part>` bool, `gender` uint8 (index into
GENDERS), `focal` and `princpt` (N, 2) float32 px where leaves hold cameras, `id` (N,) int64 for layouts keyed
by annotation id or `key` (N, K) int64 for those keyed by frame, `side` uint8 (index into SIDES) for hands.
Hand files, where a side may be null, also give `all/entry` (M, 1 or K): every id or frame in the file.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import simdjson
from tqdm import tqdm

from neuralannot.catalog import Release
from neuralannot.json_chunks import Chunk, explain_bad_chunk, json_chunks
from neuralannot.parameters import GENDERS, SIDES, VALIDITY_FIELDS, Field, HumanModel, human_model

_ZEROS = bytes(8 * 128)  # stands for an absent optional field; the widest has 45 numbers
_LONG_BYTES = 50_000_000
_CAMERA_FIELDS = ("focal", "princpt")
_INTEGER = re.compile(r"-?[0-9]{1,18}")


@dataclass
class _Leaves:
    """What has been read so far: the raw doubles of this chunk, and the float32 arrays of those before."""

    numbers: dict[str, list[Any]]
    arrays: dict[str, list[np.ndarray]]
    present: dict[str, bytearray]
    flags: dict[str, bytearray]
    gender: bytearray = field(default_factory=bytearray)
    keys: list[tuple[int, ...]] = field(default_factory=list)
    sides: bytearray = field(default_factory=bytearray)
    entries: list[tuple[int, ...]] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)  # of this chunk's leaves, for errors


class _LeafReader:
    """Appends one leaf after another; knows what a leaf of the release must look like."""

    def __init__(self, path: Path, release: Release) -> None:
        self.path, self.release = path, release
        self.kind = "id" if release.key_names == ("id",) else "frame"
        self.model: HumanModel = human_model(release.model)
        self.widths = {f.name: 8 * self.model.field_width(f) for f in self.model.fields}
        self.flags = VALIDITY_FIELDS if release.model == "smplx" else {}
        camera = _CAMERA_FIELDS if release.camera == "leaf" else ()
        self.leaves = _Leaves(
            numbers={name: [] for name in (*self.widths, *camera)},
            arrays={name: [] for name in (*self.widths, *camera)},
            present={f.name: bytearray() for f in self.model.fields if not f.required},
            flags={name: bytearray() for name in self.flags},
        )

    def append(self, leaf: Any, name: str) -> None:
        """Read one leaf. `name` is its key, for errors: `476384`, `2/1/0`, `3/69148/right`."""
        release, params, known = self.release, leaf, 0
        if release.leaf_key is not None:
            params = self._object(leaf, release.leaf_key, name)
            camera = self._object(leaf, "cam_param", name)
            for field_name in _CAMERA_FIELDS:
                self._numbers(camera, field_name, 16, name)
            if len(leaf) != 2:
                self._others(leaf, (release.leaf_key, "cam_param"), name)
            if len(camera) != 2:
                self._others(camera, _CAMERA_FIELDS, name)
        elif not isinstance(leaf, simdjson.Object):
            raise self._error(name, f"expected an object of {self._expected()}, got {_kind(leaf)}")
        for spec in self.model.fields:
            known += self._field(params, spec, name)
        self.leaves.names.append(name)
        if known == len(params):  # the most frequent: no flags, no gender, and nothing to look for
            for flag in self.flags:
                self.leaves.flags[flag].append(1)
            self.leaves.gender.append(0)
            return
        for flag in self.flags:
            known += self._flag(params, flag, name)
        known += self._gender(params, name)
        if known != len(params):
            self._others(params, (*self.widths, *self.flags, "gender"), name)

    def _others(self, holder: Any, known: tuple[str, ...], name: str) -> None:
        """Note the fields that are not known; refuse one that is there twice: either may be meant."""
        fields = _keys(holder)
        twice = next((f for f in fields if fields.count(f) > 1), None)
        if twice is not None:
            raise self._error(name, f"{twice!r} is there {fields.count(twice)} times; expected once")
        self.leaves.ignored.update(f for f in fields if f not in known)

    def flush(self) -> None:
        """Turn the chunk's doubles into float32: half the memory."""
        for name, buffers in self.leaves.numbers.items():
            values = np.frombuffer(b"".join(buffers), np.float64).reshape(len(buffers), -1 if buffers else 1)
            with np.errstate(over="ignore"):
                narrow = values.astype(np.float32)
            bad = np.argwhere(~np.isfinite(narrow))
            if len(bad):
                row, column = bad[0]
                what = f"{name!r} holds {values[row, column]}, beyond what float32 holds"
                raise self._error(self.leaves.names[row], what)
            if name == "focal" and not (narrow > 0).all():
                row = int(np.flatnonzero((narrow <= 0).any(axis=1))[0])
                what = f"'focal' must be positive, got {values[row].tolist()}"
                raise self._error(self.leaves.names[row], what)
            if buffers:
                self.leaves.arrays[name].append(narrow)
            buffers.clear()
        self.leaves.names.clear()

    def column(self, name: str) -> np.ndarray:
        """The whole column of a field, (N, width) float32."""
        arrays = self.leaves.arrays.pop(name)
        return np.concatenate(arrays) if arrays else np.zeros((0, self.widths.get(name, 16) // 8), np.float32)

    def _field(self, params: Any, spec: Field, name: str) -> int:
        if spec.required or spec.name in params:
            self._numbers(params, spec.name, self.widths[spec.name], name)
            if not spec.required:
                self.leaves.present[spec.name].append(1)
            return 1
        self.leaves.numbers[spec.name].append(_ZEROS[: self.widths[spec.name]])
        self.leaves.present[spec.name].append(0)
        return 0

    def _numbers(self, holder: Any, field_name: str, expected: int, name: str) -> None:
        try:
            buffer = holder[field_name].as_buffer(of_type="d")
        except KeyError:
            found = ", ".join(_keys(holder)) or "nothing"
            wanted = ", ".join(_CAMERA_FIELDS) if field_name in _CAMERA_FIELDS else self._expected()
            raise self._error(name, f"no {field_name!r}; expected {wanted}, got {found}") from None
        except (AttributeError, TypeError):
            raise self._error(
                name, f"{field_name!r} must hold {expected // 8} numbers, got {_kind(holder[field_name])}"
            ) from None
        if buffer.size != expected:
            raise self._error(
                name, f"{field_name!r} must hold {expected // 8} numbers, got {buffer.size // 8}"
            )
        self.leaves.numbers[field_name].append(buffer)

    def _flag(self, params: Any, flag: str, name: str) -> int:
        try:
            value = params[flag]
        except KeyError:
            self.leaves.flags[flag].append(1)
            return 0
        if not isinstance(value, (bool, int, float)):
            raise self._error(name, f"{flag!r} must be true or false, got {_kind(value)}")
        self.leaves.flags[flag].append(bool(value))
        return 1

    def _gender(self, params: Any, name: str) -> int:
        try:
            value = params["gender"]
        except KeyError:
            self.leaves.gender.append(0)
            return 0
        if value not in GENDERS:
            raise self._error(name, f"'gender' must be one of {', '.join(GENDERS)}, got {_kind(value)}")
        self.leaves.gender.append(GENDERS.index(value))
        return 1

    def _object(self, leaf: Any, key: str, name: str) -> Any:
        if not isinstance(leaf, simdjson.Object):
            hint = "; only hand files may hold null" if leaf is None else ""
            raise self._error(
                name, f"expected an object with {self.release.leaf_key!r}, got {_kind(leaf)}{hint}"
            )
        try:
            value = leaf[key]
        except KeyError:
            found = ", ".join(_keys(leaf)) or "nothing"
            raise self._error(name, f"no {key!r}, got {found}; is this file a {self.release.name}?") from None
        if not isinstance(value, simdjson.Object):
            raise self._error(name, f"{key!r} must be an object, got {_kind(value)}")
        return value

    def _expected(self) -> str:
        return ", ".join(f.name for f in self.model.fields if f.required)

    def _error(self, name: str, what: str) -> ValueError:
        return ValueError(f"{self.path}: {self.kind} {name}: {what}")


def read_fits(path: Path, release: Release, groups: dict[str, str]) -> dict[str, np.ndarray]:
    """All fits of one released file as columns (see the module's text).

    `groups` is what `catalog.identify` found in the file's name: Human3.6M's subject is in no other place.
    Raises ValueError that names the file and the id for anything that the layout does not allow: not JSON,
    truncated, a list of the wrong length, strings, NaN or infinity, a duplicate key, a null leaf outside the
    hand files. Fields that the model does not know are left out with a warning that names them.
    """
    reader = _LeafReader(path, release)
    lead = (int(groups["subject"]),) if release.data_set == "Human3.6M" else ()
    hands = release.layout in ("hands", "hand-frames")
    depth = len(release.key_names) - len(lead)
    for chunk, document in _documents(path, depth, reader.kind):
        outer = tuple(_integer(path, k, release) for k in chunk.prefix)
        for text in document:
            key = (*lead, *outer, _integer(path, text, release))
            name = "/".join((*chunk.prefix, text))
            entry = document[text]
            if hands:
                _append_hands(reader, entry, key, name)
            else:
                reader.append(entry, name)
                reader.leaves.keys.append(key)
        reader.flush()
    _warn_of_ignored(path, release, reader.leaves.ignored)
    return _columns(path, release, reader)


def _documents(path: Path, depth: int, kind: str) -> Iterator[tuple[Chunk, Any]]:
    size = path.stat().st_size
    # A bar for files that take a second or more; None: on terminals only.
    hidden = None if size > _LONG_BYTES else True
    with tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=hidden, leave=False) as bar:
        for chunk in json_chunks(path, depth):
            try:
                # A parser is not reused while what it parsed is alive, and its caller may hold on to that.
                document = simdjson.Parser().parse(chunk.text)
            except (ValueError, RuntimeError, UnicodeDecodeError):
                raise explain_bad_chunk(path, chunk, kind) from None
            yield chunk, document
            bar.update(len(chunk.text))


def _append_hands(reader: _LeafReader, entry: Any, key: tuple[int, ...], name: str) -> None:
    leaves = reader.leaves
    leaves.entries.append(key)
    if entry is None:
        return
    if not isinstance(entry, simdjson.Object):
        raise reader._error(name, f"expected an object with 'right' and 'left', got {_kind(entry)}")
    sides = _keys(entry)
    if not set(sides) <= set(SIDES) or len(sides) != len(set(sides)):
        raise reader._error(name, f"expected the keys 'right' and 'left', once each, got {', '.join(sides)}")
    for code, side in enumerate(SIDES):
        leaf = entry.get(side)
        if leaf is not None:
            reader.append(leaf, f"{name}/{side}")
            leaves.keys.append(key)
            leaves.sides.append(code)


def _columns(path: Path, release: Release, reader: _LeafReader) -> dict[str, np.ndarray]:
    leaves, model = reader.leaves, reader.model
    keys = np.array(leaves.keys, np.int64).reshape(len(leaves.keys), len(release.key_names))
    sides = np.frombuffer(bytes(leaves.sides), np.uint8) if leaves.sides else np.zeros(0, np.uint8)
    hands = release.layout in ("hands", "hand-frames")
    _check_duplicates(path, release, np.array(leaves.entries, np.int64) if hands else keys)
    frames = release.layout.endswith("frames")
    columns: dict[str, np.ndarray] = {"key": keys} if frames else {"id": keys[:, 0].copy()}
    if hands:
        columns["side"] = sides
        columns["all/entry"] = np.array(leaves.entries, np.int64).reshape(-1, len(release.key_names))
    count = len(keys)
    for spec in model.fields:
        values = reader.column(spec.name)
        first = 0
        for parameter in spec.parameters:
            width = model.width(parameter)
            columns[f"param/{parameter}"] = np.ascontiguousarray(values[:, first : first + width]).reshape(
                count, *model.shapes[parameter]
            )
            first += width
    for name in _CAMERA_FIELDS if release.camera == "leaf" else ():
        columns[name] = reader.column(name)
    columns["gender"] = np.frombuffer(bytes(leaves.gender), np.uint8)
    columns.update(_validity(leaves, model, sides, count))
    return columns


def _validity(leaves: _Leaves, model: HumanModel, sides: np.ndarray, count: int) -> dict[str, np.ndarray]:
    if model.name == "mano":
        return {f"valid/{side}_hand": sides == code for code, side in enumerate(SIDES)}
    valid = {f"valid/{part}": np.ones(count, bool) for part in model.parts}
    for spec in model.fields:
        if not spec.required:
            # FLAME's translation is no part of its own: a face without one has no place, and says so here.
            present = np.frombuffer(bytes(leaves.present[spec.name]), np.uint8).astype(bool)
            valid[f"valid/{spec.part}"] = valid.get(f"valid/{spec.part}", np.ones(count, bool)) & present
    for flag, part in VALIDITY_FIELDS.items():
        if flag in leaves.flags:
            valid[f"valid/{part}"] &= np.frombuffer(bytes(leaves.flags[flag]), np.uint8).astype(bool)
    return valid


def _check_duplicates(path: Path, release: Release, keys: np.ndarray) -> None:
    if len(keys) < 2:
        return
    unique, counts = np.unique(keys, axis=0, return_counts=True)
    twice = unique[counts > 1]
    if len(twice):
        kind = "id" if release.key_names == ("id",) else "frame"
        name = "/".join(map(str, twice[0]))
        raise ValueError(
            f"{path}: {kind} {name}: in the file {counts[counts > 1][0]} times; expected once "
            f"({len(twice)} such in all)"
        )


def _integer(path: Path, text: str, release: Release) -> int:
    # int() takes "1_0" and " 1" too, and more digits than a column holds.
    if _INTEGER.fullmatch(text) is None:
        raise ValueError(
            f"{path}: key {text!r} is not a number; expected [{']['.join(release.key_names)}] keys "
            f"of a {release.name} file"
        )
    return int(text)


def _keys(holder: Any) -> list[str]:
    return list(holder)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, simdjson.Object):
        return "an object"
    if isinstance(value, simdjson.Array):
        strange = [
            v for v in _flat(value.as_list()) if isinstance(v, bool) or not isinstance(v, (int, float))
        ]
        return f"a list that holds {_kind(strange[0])}" if strange else f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)


def _flat(values: list[Any]) -> Iterator[object]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value


def _warn_of_ignored(path: Path, release: Release, ignored: set[str]) -> None:
    if ignored:
        warnings.warn(
            f"{path}: leaves hold {', '.join(sorted(ignored))}, which {release.name} files are not known to "
            "have; left out",
            stacklevel=2,
        )
