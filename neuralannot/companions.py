"""The files beside a release's: where they are, and what to say when one is needed and not there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.catalog import Release
from neuralannot.columns import RowView, TableStack
from neuralannot.key_index import KeyIndex
from neuralannot.parameters import SIDES


@dataclass(frozen=True)
class Companions:
    """What belongs to the fits that were loaded.

    `groups`: the subject or split in each file's name; `folders`: where companions are looked for;
    `annotations`, `cameras`, `joints`: the names expected, most preferred first.
    """

    folders: tuple[Path, ...] = ()
    groups: tuple[dict[str, str], ...] = ()
    annotations: tuple[str, ...] = ()
    cameras: str | None = None
    joints: str | None = None
    cache: bool = True  # whether columns of companions read later are kept on disk

    def named(self, template: str) -> list[str]:
        """The file names of a template, one for each subject or split."""
        return [_fill(template, groups) for groups in self.groups or ({},)]

    def find(self, template: str) -> list[Path] | None:
        """The files of a template, one for each subject or split; None unless all are there."""
        found = [(name, find_beside(self.folders, name)) for name in self.named(template)]
        there = [path for _, path in found if path is not None]
        return there if len(there) == len(found) else None

    def lacking(self, template: str) -> str:
        """The name of the first file of a template that is not there; of the first, where all are."""
        names = self.named(template)
        return next((name for name in names if find_beside(self.folders, name) is None), names[0])

    def annotation_name(self) -> str:
        """What the annotation file is called."""
        return self.lacking(self.annotations[0]) if self.annotations else "the COCO-format file"

    def no_ids(self, release: Release) -> str:
        """Why there are no annotation ids, and what to do."""
        return (
            f"{release.name} is keyed by ({', '.join(release.key_names)}), not by annotation id; "
            f"use gt.keys, or load with annotations={self.annotation_name()!r}"
        )

    def camera_problem(self, release: Release, *, joined: bool) -> str:
        """Why there are no cameras, and what to do."""
        name = self.lacking(self.cameras) if self.cameras else self.annotation_name()
        if not joined:
            need = self.annotation_name()
            need += f" (which camera took which frame) and {name}" if self.cameras else ""
            given = "annotations= and cameras=" if self.cameras else "annotations="
            return (
                f"{release.name}: the cameras of its fits are not loaded; put {need} beside the file, "
                f"or pass {given}"
            )
        return f"{release.name}: no camera file; put {name} beside the file, or pass cameras="

    def missing(self, view: RowView, release: Release) -> list[Any]:
        """See `PseudoGT.missing`."""
        fits, annotations = _stacks(view)
        hands = release.model == "mano"
        if annotations is None:
            return _null_sides(fits, release) if hands else []
        ids = annotations.gather("ann/id")
        wanted = ids.reshape(-1, 1) if release.key_names == ("id",) else annotations.gather("ann/key")
        if not hands:
            missing: list[Any] = ids[KeyIndex(_fit_keys(fits, release)).first(wanted) < 0].tolist()
            return missing
        lacks = ~_sides_there(fits, release, wanted)
        return [(int(ids[row]), SIDES[side]) for row, side in np.argwhere(lacks)]

    def absence(self, view: RowView, release: Release, key: int | tuple[Any, ...]) -> str:
        """Whether an id or key is unknown, or known and without a fit."""
        fits, annotations = _stacks(view)
        numbers = [k for k in (key if isinstance(key, tuple) else (key,)) if not isinstance(k, str)]
        name = f"id {key}" if not isinstance(key, tuple) else f"{key}"
        by_id = len(numbers) == 1
        rows = _fit_keys(fits, release)
        fitted = _holds(rows, numbers)
        if isinstance(key, tuple) and isinstance(key[-1], str):
            fitted = _holds(rows[fits.gather("side") == SIDES.index(key[-1])], numbers)
        known = fitted or _holds(rows, numbers)
        if not known and "all/entry" in fits:
            known = _holds(fits.gather("all/entry"), numbers)
        if not known and annotations is not None:
            known = _holds(annotations.gather("ann/id" if by_id else "ann/key"), numbers)
        if not known:
            return f"{name}: unknown to {release.name}"
        if fitted:
            return f"{name}: has a fit in {release.name}, but is not among these rows"
        if isinstance(key, tuple) and isinstance(key[-1], str):
            return f"{name}: known to {release.name}, but that hand has no fit"
        return f"{name}: known to {release.name}, but has no fit"


def _fill(template: str, groups: dict[str, str]) -> str:
    for name, value in groups.items():
        template = template.replace(f"{{{name}}}", value)
    return template.replace("{split}", "(train|val|test)")  # a file under another name does not tell


def find_beside(folders: tuple[Path, ...], name: str) -> Path | None:
    """The file `name` in one of the folders, or in `annotations` there."""
    for folder in folders:
        for path in (folder / name, folder / "annotations" / name):
            if path.is_file():
                return path
    return None


def _stacks(view: RowView) -> tuple[TableStack, TableStack | None]:
    """The whole stacks of fits and of annotations under a view, whatever rows it shows."""
    fits = next(p.stack for p in view.parts if "param/betas" in p.stack)
    return fits, next((p.stack for p in view.parts if "ann/id" in p.stack), None)


def _holds(keys: np.ndarray, numbers: list[int]) -> bool:
    """Whether the numbers are one of the (M, K) keys or (M,) ids."""
    keys = keys.reshape(len(keys), -1)
    return keys.shape[1] == len(numbers) and bool((keys == numbers).all(axis=1).any())


def _fit_keys(fits: TableStack, release: Release) -> np.ndarray:
    return fits.gather("id").reshape(-1, 1) if release.key_names == ("id",) else fits.gather("key")


def _sides_there(fits: TableStack, release: Release, wanted: np.ndarray) -> np.ndarray:
    """(M, K) ids or frame keys -> (M, 2) bool: whether the right and the left hand have a fit."""
    keys, sides = _fit_keys(fits, release), fits.gather("side")
    return np.stack([KeyIndex(keys[sides == code]).first(wanted) >= 0 for code in range(len(SIDES))], axis=1)


def _null_sides(fits: TableStack, release: Release) -> list[Any]:
    if "all/entry" not in fits:
        return []
    entries = fits.gather("all/entry")
    lacks = ~_sides_there(fits, release, entries)
    return [(*entries[row].tolist(), SIDES[side]) for row, side in np.argwhere(lacks)]
