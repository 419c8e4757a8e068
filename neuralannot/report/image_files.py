"""Which of the annotations' images are in the image folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from neuralannot.images import leads_out
from neuralannot.pseudo_gt import PseudoGT

__all__ = ["ImageFiles", "image_files"]


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The images of N rows.

    Fields
    ------
    folder: the image folder, None where none was given.
    count: different images that the rows name.
    most: rows of the image that has the most.
    missing: those that are not in the folder, in order; all are looked for, none where there is no folder.
    named: (N,) bool, rows that name an image. there: (N,) bool, rows whose image is in the folder.
    """

    folder: Path | None
    count: int
    most: int
    missing: tuple[str, ...]
    named: np.ndarray
    there: np.ndarray


def image_files(gt: PseudoGT, folder: str | os.PathLike[str] | None) -> ImageFiles:
    """Look for the images of all rows, a listing for each folder of them.

    A path that leads out of the folder counts as missing: a page that is handed on shows no other files.
    Raises FileNotFoundError, NotADirectoryError where `folder` is none.
    """
    place = None if folder is None else Path(folder)
    if place is not None and not place.is_dir():
        kind: type[OSError] = NotADirectoryError if place.exists() else FileNotFoundError
        raise kind(f"{place}: no such image folder; give the data set's, or leave it out for no pictures")
    if not gt.joined or "ann/image_path" not in gt.view or not len(gt):
        none = np.zeros(len(gt), bool)
        return ImageFiles(place, 0, 0, (), none, none)
    texts = np.ascontiguousarray(gt.view.column("ann/image_path"))  # UTF-8, padded with zeros
    unique, of_row, rows = np.unique(
        texts.view(f"S{texts.shape[1]}")[:, 0], return_inverse=True, return_counts=True
    )
    is_path = unique != b""
    there = np.zeros(len(unique), bool)
    if place is not None:
        there[:] = list(_found(place, unique))
    missing = [] if place is None else [p.decode() for p in unique[is_path & ~there].tolist()]
    return ImageFiles(
        place,
        int(is_path.sum()),
        int(rows[is_path].max(initial=0)),
        tuple(missing),
        is_path[of_row],
        there[of_row],
    )


def _found(folder: Path, paths: np.ndarray) -> Iterator[bool]:
    """Of each of the paths, sorted, whether it is there: neighbours mostly share a listing."""
    listed, names = None, frozenset[str]()
    for encoded in paths.tolist():
        path = PurePosixPath(encoded.decode())
        if not encoded or leads_out(str(path)):
            yield False
            continue
        if path.parent != listed:
            listed, names = path.parent, _names(folder / path.parent)
        yield path.name in names


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()
