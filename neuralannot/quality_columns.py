"""How good each row is, as columns: which there are, choosing rows by them, the file beside a release.

Measuring is `neuralannot.quality`'s; here are only columns `quality/<name>` of a `PseudoGT`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from neuralannot.columns import ColumnGroup, Part, RowView, TableStack
from neuralannot.key_index import KeyIndex
from neuralannot.parameters import human_model
from neuralannot.store import Table, open_table, write_table

if TYPE_CHECKING:
    from neuralannot.pseudo_gt import PseudoGT

SUFFIX = ".quality.safetensors"
UNMEASURED = ("keep", "drop")
_GROUP = "quality"
# Row names of the file; `all/`, so that saved columns of rows leave them out.
_KEY, _DIGEST = "all/quality/key", "all/quality/digest"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_BLOCK = 1 << 15  # rows hashed at once
_MEASURE = "measure them: `neuralannot quality FILE`, or gt.with_quality(measure_quality(gt))"


@dataclass(frozen=True)
class Measure:
    """A column that `neuralannot.quality.measure_quality` makes: its unit, `flag` for flags, and what it
    says."""

    unit: str
    text: str


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "reprojection": Measure("px", "mean distance of projected and annotated joints"),
        "reprojection_percent": Measure("%", "the same, of the longer side of the processed box"),
        "error": Measure("m", "mean distance to the data set's 3D joints"),
        "error_root": Measure("m", "the same, root joints aligned"),
        "prior": Measure("rad", "mean angle to what the prior makes of the pose"),
        "prior_norm": Measure("sd", "the pose's latents, root mean square"),
        "bend": Measure("rad", "how far the worst joint is bent beyond its range"),
        "penetration": Measure("m", "how deep parts of the body are in each other"),
        "shape": Measure("sd", "largest shape or expression code, by magnitude"),
        "foot_float": Measure("m", "lowest point of the feet above the floor"),
        "foot_sink": Measure("m", "lowest point of the feet below the floor"),
        "foot_skate": Measure("m/frame", "how far a foot on the floor slides"),
        "implausible_bend": Measure("flag", "bend beyond the tolerance"),
        "self_penetration": Measure("flag", "penetration beyond the tolerance"),
    }
)
#: Option of `PseudoGT.filter` -> the column that it bounds.
LIMITS: Mapping[str, str] = MappingProxyType({f"max_{n}": n for n, m in MEASURES.items() if m.unit != "flag"})
_FLAGS = tuple(name for name, measure in MEASURES.items() if measure.unit == "flag")


class Limits(TypedDict, total=False):
    """The options of `PseudoGT.filter` that bound columns, by name; None bounds nothing."""

    max_reprojection: float | None
    max_reprojection_percent: float | None
    max_error: float | None
    max_error_root: float | None
    max_prior: float | None
    max_prior_norm: float | None
    max_bend: float | None
    max_penetration: float | None
    max_shape: float | None
    max_foot_float: float | None
    max_foot_sink: float | None
    max_foot_skate: float | None


def quality_of(view: RowView) -> ColumnGroup:
    """The columns `quality/…` of a view by name; empty where none was attached."""
    lead = f"{_GROUP}/"
    names = {name.removeprefix(lead) for name in view.names() if name.startswith(lead)}
    known = [name for name in MEASURES if name in names]  # whatever order a file has them in
    return ColumnGroup(view, _GROUP, (*known, *sorted(names.difference(known))))


def checked_columns(columns: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
    """`quality/<name>` -> (N,) float32 or bool. Raises as `PseudoGT.with_quality`."""
    checked = {}
    for name, given in columns.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"a quality column's name must be small letters, digits and _, got {name!r}")
        values = np.asarray(given)
        if values.shape != (count,):
            raise ValueError(f"quality {name!r} must be ({count},), one value a row, got {values.shape}")
        if values.dtype.kind not in "biuf":
            raise TypeError(f"quality {name!r} must hold numbers or flags, got {values.dtype}")
        values = values.astype(bool if values.dtype == bool else np.float32)
        values.flags.writeable = False
        checked[f"{_GROUP}/{name}"] = values
    return checked


def passing(
    quality: Mapping[str, np.ndarray],
    count: int,
    limits: Mapping[str, Any],
    *,
    plausible: bool,
    unmeasured: str,
) -> np.ndarray:
    """(N,) bool: the rows within all limits (`max_error`, ...). See `PseudoGT.filter`."""
    if unmeasured not in UNMEASURED:
        raise ValueError(f"unmeasured must be {' or '.join(map(repr, UNMEASURED))}, got {unmeasured!r}")
    kept = np.ones(count, bool)
    for option, limit in limits.items():
        if option not in LIMITS:
            raise ValueError(f"no limit is called {option!r}; there are {', '.join(LIMITS)}")
        if limit is None:
            continue
        if not limit >= 0:
            raise ValueError(f"{option} must be a number of at least 0, got {limit!r}")
        values = _needed(quality, LIMITS[option], option)
        # NaN is no larger than anything: it is what was not measured.
        kept &= ~(values > limit)
        if unmeasured == "drop":
            kept &= ~np.isnan(values)
    if plausible:
        flags = [name for name in _FLAGS if name in quality]
        if not flags:
            _needed(quality, _FLAGS[0], "plausible=True")
        for name in flags:
            kept &= ~quality[name]
    return kept


def _needed(quality: Mapping[str, np.ndarray], name: str, option: str) -> np.ndarray:
    if name in quality:
        return quality[name]
    there = f"there are {', '.join(quality)}" if len(quality) else "there are none"
    raise ValueError(f"{option} needs the quality column {name!r}; {there}; {_MEASURE}")


# --- the file beside a release


def quality_file(path: str | Path) -> Path:
    """Where the quality of a JSON release stands: `X.quality.safetensors` beside `X.json`."""
    path = Path(path)
    return path if path.name.endswith(SUFFIX) else path.with_name(path.name.removesuffix(".json") + SUFFIX)


def save_quality(gt: PseudoGT, path: str | Path) -> Path:
    """Write the rows' quality beside the JSON `path`, or to `path` itself where it ends as such files do.

    With it go the rows' ids or keys and a hash of each row's parameters, so that the columns are found only
    for what was measured. Returns the file's path. Raises ValueError where `gt` has no quality, OSError.
    """
    if not len(gt.quality):
        raise ValueError(f"{gt!r} has no quality columns; {_MEASURE}")
    columns = {f"{_GROUP}/{name}": np.asarray(values) for name, values in gt.quality.items()}
    columns |= {_KEY: _row_keys(gt), _DIGEST: _row_digests(gt)}
    place = quality_file(path)
    write_table(place, columns, {"release": gt.release, "rows": _row_kind(gt)})
    return place


def load_quality(gt: PseudoGT, path: str | Path | Sequence[str | Path]) -> PseudoGT:
    """`gt` with the quality of a file that `save_quality` wrote, of several, or of those beside JSONs.

    The columns are mapped. Raises FileNotFoundError; ValueError that says which row does not fit where the
    file was not measured on these rows and parameters, or is no such file.
    """
    given = [path] if isinstance(path, (str, Path)) else list(path)
    places = [quality_file(one) for one in given]
    tables = [open_table(place) for place in places]
    name = ", ".join(place.name for place in places)
    return _with_part(gt, _matching(gt, tables, name)) if tables else gt


def load_quality_beside(gt: PseudoGT, files: Sequence[Path]) -> PseudoGT:
    """`gt` with the quality beside its JSON files, where that is there and fits; a warning where it does not.

    The fits are good without it, so nothing that is wrong with it is an error here.
    """
    there = [place for place in map(quality_file, files) if place.is_file()]
    if not there:
        return gt
    problem = f"{there[0]} is there, but not every file of {gt.release} that was loaded has one"
    if len(there) == len(files):
        try:
            return load_quality(gt, there)
        except (ValueError, OSError) as error:
            problem = str(error)
    warnings.warn(
        f"{problem}; loaded without quality columns: `neuralannot quality FILE` makes them again, or delete "
        "the file",
        stacklevel=3,
    )
    return gt


def _with_part(gt: PseudoGT, part: Part) -> PseudoGT:
    return type(gt)(gt.view.behind(part), gt.release, space=gt.space, companions=gt.companions)


def _row_kind(gt: PseudoGT) -> str:
    return "ids" if "id" in gt.view or gt.joined else "keys"


def _row_keys(gt: PseudoGT) -> np.ndarray:
    """(N, K) int64: what tells the rows of a file apart, hands by side too."""
    keys = gt.ids[:, None] if _row_kind(gt) == "ids" else gt.view.column("key")
    if gt.side is not None:
        keys = np.column_stack([keys, gt.side == "left"])
    return np.ascontiguousarray(keys, np.int64)


def _row_digests(gt: PseudoGT) -> np.ndarray:
    """(N,) int64, a hash of each row's parameters, gender and valid parts."""
    model = human_model(gt.model)
    names = [f"param/{n}" for n in model.shapes] + [f"valid/{p}" for p in model.parts] + ["gender"]
    view = gt.view
    # Rows that share a fit, one of each camera, are hashed once, where nothing lies over the fits.
    owners = [next(p for p in view.parts if name in p.stack) for name in names]
    if all(owner is owners[0] for owner in owners):
        fits = owners[0]
        rows = fits.at(view.index)
        count = len(fits.stack)
        if rows is None or len(rows) > count:
            hashed = _hashed(fits.stack.gather, names, count)
            return hashed if rows is None else hashed[rows]
    return _hashed(lambda name, rows: view.take(rows).column(name), names, len(view))


def _hashed(gather: Any, names: Sequence[str], count: int) -> np.ndarray:
    digests = np.zeros(count, np.uint64)
    for first in range(0, count, _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, count))
        place = 0
        for name in names:
            values = gather(name, rows).reshape(len(rows), -1)
            if values.dtype == np.float32:
                values = (values + np.float32(0)).view(np.uint32)  # no two zeros
            odd = _odd_numbers(place, values.shape[1])
            digests[rows] += (values.astype(np.uint64) * odd).sum(axis=1, dtype=np.uint64)
            place += values.shape[1]
    return digests.view(np.int64)


def _odd_numbers(first: int, count: int) -> np.ndarray:
    """(count,) uint64, odd, far from each other: those of splitmix64 after `first`."""
    state = (np.arange(first + 1, first + count + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (state ^ (state >> np.uint64(31))) | np.uint64(1)


def _matching(gt: PseudoGT, tables: list[Table], name: str) -> Part:
    """The tables' rows at the rows of `gt`; raises ValueError where they are not of these fits."""
    for table in tables:
        if _KEY not in table or _DIGEST not in table or "rows" not in table.meta:
            raise ValueError(f"{table.path}: not written by save_quality; measure again")
        if table.meta["rows"] != _row_kind(gt) or table[_KEY].shape[1] != _row_keys(gt[:0]).shape[1]:
            how = {"ids": "joined with annotations", "keys": "by frame key, not joined with annotations"}
            raise ValueError(
                f"{name}: its rows were measured {how.get(table.meta['rows'], 'otherwise')}, "
                f"{gt.release} was loaded {how[_row_kind(gt)]}"
            )
    stack = TableStack(tuple(tables), _KEY)
    keys = _row_keys(gt)
    rows = KeyIndex(stack.gather(_KEY)).first(keys)
    absent = np.flatnonzero(rows < 0)
    if len(absent):
        raise ValueError(f"{name}: stale: {_shown(gt, absent[0])} is not among the rows that were measured")
    changed = np.flatnonzero(stack.gather(_DIGEST, rows) != _row_digests(gt))
    if len(changed):
        raise ValueError(
            f"{name}: stale: the parameters of {_shown(gt, changed[0])} are not those that were measured "
            f"({len(changed)} of {len(gt)} rows differ)"
        )
    same = len(stack) == len(rows) and bool((rows == np.arange(len(rows))).all())
    return Part(stack, None if same else rows)


def _shown(gt: PseudoGT, row: int) -> str:
    numbers = _row_keys(gt.rows([row]))[0].tolist()
    side = "" if gt.side is None else f" {gt.side[row]}"
    numbers = numbers if gt.side is None else numbers[:-1]
    return f"{'id' if _row_kind(gt) == 'ids' else 'frame'} {'/'.join(map(str, numbers))}{side}"
