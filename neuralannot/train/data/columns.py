"""Annotation files -> columns, as `neuralannot.annotations` has them, with what training needs besides."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.annotations import load_annotations
from neuralannot.catalog import Release
from neuralannot.columns import bytes_to_texts
from neuralannot.store import Table, cached_table

# (the file's name, its content) -> more columns, a row each annotation.
Extra = Callable[[str, Mapping[str, Any]], Mapping[str, np.ndarray]]


def read_annotations(
    path: Path,
    release: Release,
    groups: Mapping[str, str],
    *,
    prepare: Callable[[str, dict[str, Any]], None] | None = None,
    extra: Extra | None = None,
    cache: bool = True,
) -> Table:
    """The columns of `load_annotations` and `ann/crowd` (A,) bool, of a file that is read once and kept.

    `prepare` changes the content before it is read, where a data set departs from the COCO format; `extra`
    adds columns. `meta["categories"]` holds the file's categories as JSON. Raises as `load_annotations`.
    """

    def read() -> tuple[Mapping[str, np.ndarray], Mapping[str, str]]:
        name = str(path)
        content = _content(path)
        if prepare is not None:
            prepare(name, content)
        try:
            columns = dict(load_annotations(content, release, groups).columns)
        except ValueError as error:
            raise ValueError(f"{path}: {str(error).removeprefix('annotations: ')}") from None
        except (AssertionError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not a COCO-format annotation file: {error!r}") from None
        annotations = content["annotations"]
        columns["ann/crowd"] = np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool)
        if extra is not None:
            columns |= extra(name, content)
        return columns, {"file": path.name, "categories": json.dumps(content.get("categories") or [])}

    key = "-".join(["train", release.data_set, *groups.values()])
    return cached_table(path, read, key=key, cache=cache)


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not a COCO-format annotation file: {error}") from None
    if not isinstance(content, dict) or not all(
        isinstance(content.get(k), list) for k in ("images", "annotations")
    ):
        raise ValueError(f"{path}: not a COCO-format annotation file: no 'annotations' and 'images'")
    for item in ("annotations", "images"):
        odd = next((x for x in content[item] if not isinstance(x, dict)), None)
        if odd is not None:
            raise ValueError(f"{path}: {item!r} must hold objects, got {odd!r:.60}")
    for annotation in content["annotations"]:
        annotation.setdefault("category_id", 0)  # nothing here goes by it, but pycocotools wants it
    return content


def paths_of(table: Table, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """(A,) str image paths, or those of some rows."""
    return bytes_to_texts(table["ann/image_path"][rows])


def keypoints_of(table: Table, path: Path, count: int | tuple[int, ...]) -> np.ndarray:
    """(A, K, 3) x, y px and visibility. Raises ValueError where there are none, or not `count` of them."""
    counts = (count,) if isinstance(count, int) else count
    expected = " or ".join(map(str, counts))
    if "ann/keypoints" not in table:
        raise ValueError(f"{path}: no annotation has 'keypoints'; expected {expected} of x, y, visibility")
    points = table["ann/keypoints"]
    if points.shape[1] not in counts:
        raise ValueError(f"{path}: {points.shape[1]} keypoints an annotation; expected {expected}")
    return points


def joints_of_keypoints(keypoints: np.ndarray) -> np.ndarray:
    """(A, K, 3) x, y px and visibility -> (A, K, 2) float32 px, NaN where the visibility is not above 0."""
    seen = (keypoints[..., 2:] > 0) & np.isfinite(keypoints).all(axis=-1, keepdims=True)
    return np.where(seen, keypoints[..., :2], np.float32(np.nan)).astype(np.float32)
