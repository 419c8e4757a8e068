"""Columns -> files: the released JSON layouts, and the columns themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from neuralannot.atomic import whole_file
from neuralannot.catalog import identify
from neuralannot.parameters import SIDES, VALIDITY_FIELDS, human_model
from neuralannot.quality_columns import save_quality
from neuralannot.store import write_table

if TYPE_CHECKING:
    from neuralannot.cameras import Camera
    from neuralannot.pseudo_gt import PseudoGT


def save_pseudo_gt(gt: PseudoGT, path: Path) -> None:
    """See `PseudoGT.save`."""
    if path.suffix in (".json", ".safetensors") and not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}; make it first")
    if path.suffix == ".safetensors":
        from neuralannot.loading import saved_meta

        columns = {name: gt.view.column(name) for name in gt.view.names() if not name.startswith("all/")}
        write_table(path, columns, saved_meta(gt))
    elif path.suffix == ".json":
        _write_json(gt, path)
        if len(gt.quality):
            save_quality(gt, path)  # the layout has no place for it
    else:
        raise ValueError(f"{path}: cannot tell what to write; expected a .json or .safetensors name")


def _write_json(gt: PseudoGT, path: Path) -> None:
    keys = _checked_keys(gt)
    _check_name(gt, path)
    with whole_file(path) as part, part.open("w", encoding="ascii") as file:
        _write_nested(file, _hand_entries(gt, keys), keys, _leaves(gt))


def _check_name(gt: PseudoGT, path: Path) -> None:
    """Human3.6M's subject is in the file's name alone: a wrong one would make the fits another's."""
    found = identify(path)
    if gt.catalogued.data_set != "Human3.6M" or not len(gt) or found is None or "subject" not in found[1]:
        return
    subject = int(gt.view.column("key")[0, 0])
    if int(found[1]["subject"]) != subject:
        raise ValueError(
            f"{path}: named as subject {found[1]['subject']}'s, but the fits are subject {subject}'s"
        )


def _checked_keys(gt: PseudoGT) -> list[tuple[str, ...]]:
    """The nested keys of every row, or why the layout cannot hold them."""
    release = gt.catalogued
    # 3DPW's fits are world-space where its images' cameras have extrinsics, which stay with the rows.
    of_world = "ann/world" in gt.view and bool(gt.view.column("ann/world").any())
    if gt.space == "camera" and (release.space == "world" or of_world):
        raise ValueError(
            f"{gt.release}: its layout holds world-space fits; these were moved into camera space, each "
            "by its own camera: save .safetensors"
        )
    numbers = gt.ids.reshape(-1, 1) if release.key_names == ("id",) else gt.view.column("key")
    if release.data_set == "Human3.6M":
        subjects = np.unique(numbers[:, 0])
        if len(subjects) > 1:
            raise ValueError(
                f"{gt.release}: its layout holds one subject a file, got subjects "
                f"{', '.join(map(str, subjects))}; save each alone"
            )
        numbers = numbers[:, 1:]
    keys = [tuple(map(str, key)) for key in numbers.tolist()]
    if gt.side is not None:
        keys = [(*key, str(side)) for key, side in zip(keys, gt.side, strict=True)]
    seen: set[tuple[str, ...]] = set()
    for key in keys:
        if key in seen:
            raise ValueError(
                f"{gt.release}: {'/'.join(key)} stands in more than one row; its layout holds one (load with "
                "annotations=False to save the fits)"
            )
        seen.add(key)
    return keys


def _leaves(gt: PseudoGT) -> Iterator[dict[str, Any]]:
    release, camera = gt.catalogued, gt.camera
    for row, leaf in enumerate(parameter_leaves(gt)):
        if release.leaf_key is not None:
            assert camera is not None
            leaf = {release.leaf_key: leaf, "cam_param": camera_leaf(camera, row)}
        yield leaf


def camera_leaf(camera: Camera, row: int) -> dict[str, list[float]]:
    """A row's `cam_param`, px."""
    return {"focal": _short(camera.focal[row]), "princpt": _short(camera.princpt[row])}


def parameter_leaves(gt: PseudoGT) -> Iterator[dict[str, Any]]:
    """Each row's parameters as the released files spell them, with its parts' flags and, if any, gender."""
    model = human_model(gt.model)
    params = {n: values.reshape(len(gt), model.width(n)) for n, values in gt.params.items()}
    valid = {part: gt.valid[part] for part in gt.valid}
    genders = gt.gender
    has_transl = gt.view.column("valid/transl") if "valid/transl" in gt.view else np.ones(len(gt), bool)
    for row in range(len(gt)):
        leaf: dict[str, Any] = {}
        for field in model.fields:
            if field.part == "transl" and not has_transl[row]:
                continue
            values = np.concatenate([params[p][row] for p in field.parameters])
            optional = not field.required and field.part in valid
            if optional and not valid[field.part][row] and not any(values.tobytes()):
                continue  # absent, as the release leaves parts out
            leaf[field.name] = _short(values)
        if gt.model == "smplx":
            for flag, part in VALIDITY_FIELDS.items():
                if any(f.name in leaf for f in model.fields if f.part == part):
                    leaf[flag] = bool(valid[part][row])  # said both ways: loaders ask for it
        if genders[row] != "neutral":
            leaf["gender"] = str(genders[row])
        yield leaf


def _short(values: np.ndarray) -> list[float]:
    """Nine digits each: as many as tell any two float32 apart."""
    return [float(f"{value:.9g}") for value in values.tolist()]


def _hand_entries(gt: PseudoGT, keys: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The ids or frames that a hand file holds, those without a fit too where all of the file is written."""
    if gt.side is None:
        return []
    fits = next(p for p in gt.view.parts if "param/betas" in p.stack)
    if gt.view.index is None and fits.rows is None and "all/entry" in fits.stack:
        return [tuple(map(str, entry)) for entry in fits.stack.gather("all/entry").tolist()]
    return list(dict.fromkeys(key[:-1] for key in keys))


def _write_nested(
    file: TextIO,
    entries: list[tuple[str, ...]],
    keys: list[tuple[str, ...]],
    leaves: Iterator[dict[str, Any]],
) -> None:
    """One object, nested by key. Rows of a key need not stand together."""
    if not entries and all(len(key) == 1 for key in keys):  # by id: leaf by leaf, nothing is held
        file.write("{")
        for place, (key, leaf) in enumerate(zip(keys, leaves, strict=True)):
            file.write(f'{", " if place else ""}"{key[0]}": {json.dumps(leaf)}')
        file.write("}")
        return
    root: dict[str, Any] = {}
    for entry in entries:
        _place(root, entry, dict.fromkeys(SIDES))
    for key, leaf in zip(keys, leaves, strict=True):
        _place(root, key, leaf)
    json.dump(root, file)


def _place(nested: dict[str, Any], key: tuple[str, ...], value: Any) -> None:
    for part in key[:-1]:
        nested = nested.setdefault(part, {})
    nested[key[-1]] = value
