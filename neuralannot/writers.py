"""Columns -> files: the released JSON layouts, and the columns themselves."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralannot.parameters import SIDES, VALIDITY_FIELDS, human_model
from neuralannot.store import write_table

if TYPE_CHECKING:
    from neuralannot.pseudo_gt import PseudoGT


def save_pseudo_gt(gt: PseudoGT, path: Path) -> None:
    """See `PseudoGT.save`."""
    if path.suffix == ".safetensors":
        from neuralannot.loading import saved_meta

        columns = {name: gt.view.column(name) for name in gt.view.names() if not name.startswith("all/")}
        write_table(path, columns, saved_meta(gt))
    elif path.suffix == ".json":
        _write_json(gt, path)
    else:
        raise ValueError(f"{path}: cannot tell what to write; expected a .json or .safetensors name")


def _write_json(gt: PseudoGT, path: Path) -> None:
    keys = _checked_keys(gt)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("w", encoding="ascii") as file:
            _write_nested(file, keys, list(_leaves(gt)))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _checked_keys(gt: PseudoGT) -> list[tuple[str, ...]]:
    """The nested keys of every row, or why the layout cannot hold them."""
    release = gt.catalogued
    if release.space == "world" and gt.space == "camera":
        raise ValueError(
            f"{gt.release}: its layout holds world-space fits, one a frame; these are in camera space, one a "
            "camera: save .safetensors"
        )
    if "valid/transl" in gt.view and not gt.view.column("valid/transl").all():
        pass  # FLAME without trans: written without
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
    model, release = human_model(gt.model), gt.catalogued
    params = {name: values.reshape(len(gt), -1) for name, values in gt.params.items()}
    valid = {part: gt.valid[part] for part in gt.valid}
    genders = gt.gender
    has_transl = gt.view.column("valid/transl") if "valid/transl" in gt.view else np.ones(len(gt), bool)
    camera = gt.camera
    for row in range(len(gt)):
        leaf: dict[str, Any] = {}
        for field in model.fields:
            if field.part == "transl" and not has_transl[row]:
                continue
            values = [v for p in field.parameters for v in params[p][row]]
            if not field.required and field.part in valid and not valid[field.part][row] and not any(values):
                continue  # absent, as the release leaves parts out
            leaf[field.name] = [_shortest(v) for v in values]
        if gt.model == "smplx":
            for flag, part in VALIDITY_FIELDS.items():
                if not valid[part][row] and any(f.name in leaf for f in model.fields if f.part == part):
                    leaf[flag] = False
        if genders[row] != "neutral":
            leaf["gender"] = str(genders[row])
        if release.leaf_key is not None:
            assert camera is not None
            leaf = {
                release.leaf_key: leaf,
                "cam_param": {
                    "focal": [_shortest(v) for v in camera.focal[row]],
                    "princpt": [_shortest(v) for v in camera.princpt[row]],
                },
            }
        yield leaf


def _shortest(value: np.float32) -> float:
    """The shortest decimal that reads back as the same float32."""
    return float(str(value))


def _write_nested(file: Any, keys: list[tuple[str, ...]], leaves: list[dict[str, Any]]) -> None:
    """One object, nested by key. Rows of a key need not stand together."""
    root: dict[str, Any] = {}
    for key, leaf in zip(keys, leaves, strict=True):
        place = root
        for part in key[:-1]:
            place = place.setdefault(part, {})
        place[key[-1]] = leaf
    for hands in _hand_entries(root, keys):
        for side in SIDES:
            hands.setdefault(side, None)
    json.dump(root, file)


def _hand_entries(root: dict[str, Any], keys: list[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
    for key in keys:
        if key[-1] not in SIDES:
            return
        place = root
        for part in key[:-1]:
            place = place[part]
        yield place
