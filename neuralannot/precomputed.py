"""What a data set makes of its rows once and keeps: camera-space parameters, joints, the boxes of hands."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from neuralannot.bodies import model_groups, model_on, regressor_for, zero_invalid
from neuralannot.body_models.model import FOLDER_VARIABLE, OPEN_FOLDER, file_stamp, warn_open_body
from neuralannot.columns import texts_to_bytes
from neuralannot.parameters import GENDERS, SIDES
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.store import SUFFIX, Table, derived_table

_CHUNK = 1 << 16  # rows at a time
_LONG = 50_000  # rows


@dataclass(frozen=True)
class Precomputed:
    """What is computed: `columns`, some of `box_xywh`, `joints`, `param/global_orient` and `param/transl`
    (these two in camera space), of which bodies (options of `PseudoGT.forward`)."""

    columns: tuple[str, ...]
    body_models: str | os.PathLike[str] | None = None
    regressor: Any = None
    only_valid: bool = False


def precomputed_table(
    gt: PseudoGT, memory: Mapping[str, np.ndarray], wanted: Precomputed, *, cache: bool
) -> Table | None:
    """What is to be computed of the N rows, and `memory`, columns that are in no file, as one table.

    (N, ...) `wanted.columns`, with joints `joint_names` as text; and `memory` as it is. Kept in a file beside
    the fits' columns, named for the rows and the options so that several stand side by side, and made again
    where the rows' tables, a body model's file or the regressor have changed; in memory where the fits are,
    and with `cache=False`. None where there is nothing to keep.
    """
    if not memory and not wanted.columns:
        return None

    def make() -> dict[str, np.ndarray]:
        return {**memory, **_computed(gt, wanted)}

    first = next(p.stack for p in gt.view.parts if "param/betas" in p.stack).tables[0].path
    if not cache or first is None:
        return Table(make())
    names = [*_rows_named(gt), *sorted(memory), *wanted.columns]
    sources = [table.meta["build"] for table in _tables(gt) if table.path is not None]
    if {"joints", "param/transl"} & set(wanted.columns):
        folder = wanted.body_models or os.environ.get(FOLDER_VARIABLE)
        if folder is None:
            warn_open_body()
        names += [str(Path(folder or OPEN_FOLDER).resolve()), str(wanted.only_valid)]
        sources += _model_stamps(gt, folder)
    if "joints" in wanted.columns and wanted.regressor is not None:
        names.append(_regressor_digest(gt, wanted))
    if "box_xywh" in wanted.columns:
        sources += [_stamp(file) for file in joint_files(gt)]
    name = f"{first.name.removesuffix(SUFFIX)}.dataset-{_digest(*names)[:12]}{SUFFIX}"
    return derived_table(first.with_name(name), _digest(*names, *sources), make, away=True)


def joint_files(gt: PseudoGT) -> list[Path]:
    """The data set's files of GT joints; none where they are not all there."""
    return gt.companions.find(gt.companions.joints or "") or []


def _computed(gt: PseudoGT, wanted: Precomputed) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    pieces = [gt[first : first + _CHUNK] for first in range(0, max(len(gt), 1), _CHUNK)]
    if "box_xywh" in wanted.columns:
        columns["box_xywh"] = np.concatenate([piece.box_xywh for piece in pieces])
    if "param/transl" in wanted.columns:
        moved = [_moved(piece, wanted) for piece in pieces]
        for name in ("global_orient", "transl"):
            columns[f"param/{name}"] = np.concatenate([params[name] for params in moved])
    if "joints" in wanted.columns:
        columns["joints"], joint_names = _joints(gt, wanted)
        columns["joint_names"] = texts_to_bytes(list(joint_names))
    return columns


def _moved(gt: PseudoGT, wanted: Precomputed) -> Mapping[str, np.ndarray]:
    """The parameters of `PseudoGT.to_camera_space`."""
    if wanted.only_valid and "expression" in gt.params:
        # The root at rest depends on the expression, of which invalid faces have none.
        face = zero_invalid({"expression": gt.params["expression"]}, {"face": gt.valid["face"]})
        view = gt.view.overlaid({"param/expression": face["expression"]})
        gt = PseudoGT(view, gt.release, space=gt.space, companions=gt.companions)
    return gt.to_camera_space(wanted.body_models).params


def _joints(gt: PseudoGT, wanted: Precomputed) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N, J, 3) float32 metres in camera space, and J names."""
    options = {"want": "joints", "body_models": wanted.body_models, "regressor": wanted.regressor}
    # One row of each side has the names that all rows have.
    sides = gt.view.column("side") if "side" in gt.view else np.zeros(len(gt))
    names = gt.rows(np.unique(sides, return_index=True)[1]).forward(**options).joint_names
    joints = np.empty((len(gt), len(names), 3), np.float32)
    first = 0
    # A bar for what takes some seconds; None: on terminals only.
    hidden = None if len(gt) > _LONG else True
    with tqdm(total=len(gt), desc="joints", unit="row", disable=hidden, leave=False) as bar:
        for batch in gt.forward_batches(only_valid=wanted.only_valid, **options):
            joints[first : first + len(batch)] = batch.joints.numpy()
            first += len(batch)
            bar.update(len(batch))
    return joints, names


def _rows_named(gt: PseudoGT) -> list[str]:
    """Which files the rows are of and which of their rows; of what is in no file, what is in it."""
    named = [gt.release, gt.space]
    for table in _tables(gt):
        named.append(str(table.path) if table.path is not None else _content(table))
    for part in gt.view.parts:
        if part.rows is not None and part.reference is None:
            named.append(_digest(part.rows))
    return named if gt.view.index is None else [*named, _digest(gt.view.index)]


def _tables(gt: PseudoGT) -> list[Table]:
    """The tables of the view, those of row numbers too."""
    joins = [part.reference[0] for part in gt.view.parts if part.reference is not None]
    return [*(table for part in gt.view.parts for table in part.stack.tables), *joins]


def _content(table: Table) -> str:
    return _digest(*(part for name in sorted(table) for part in (name, table[name])))


def _model_stamps(gt: PseudoGT, folder: str | os.PathLike[str] | None) -> list[str]:
    """What says that the files of the body models that the rows need are the same."""
    genders = ["neutral"]
    if gt.model != "mano":
        genders = [GENDERS[code] for code in np.unique(gt.view.column("gender"))]
    sides: Sequence[str | None] = (None,)
    if gt.model == "mano":
        sides = [SIDES[code] for code in np.unique(gt.view.column("side"))]
    place = str(folder or OPEN_FOLDER)
    return [str(file_stamp(place, gt.model, gender, side)) for gender in genders for side in sides]


def _stamp(file: Path) -> str:
    stat = file.stat()
    return str((str(file), stat.st_mtime_ns, stat.st_size))


def _regressor_digest(gt: PseudoGT, wanted: Precomputed) -> str:
    """What a regressor's weights and names are, on every body model that the rows need."""
    found: list[str | np.ndarray] = []
    for gender, side, _ in model_groups(gt):
        model = model_on(gt.model, wanted.body_models, gender, side)
        regressor = regressor_for(model, wanted.regressor)
        found += [*regressor.names, regressor.weights]
    return _digest(*found)


def _digest(*parts: str | np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, str):
            data = part.encode("utf-8", "surrogateescape")
            digest.update(b"%d;" % len(data) + data)
        else:
            digest.update(f"{part.dtype}{part.shape};".encode())
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
