"""Contact sheets: the worst, the best and random annotations on their images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuralannot.exports import row_names
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.report.errors import Errors, for_people
from neuralannot.report.image_files import ImageFiles
from neuralannot.train.evaluation.overlays import Picture, picture_of

__all__ = ["Card", "Sheet", "contact_sheets"]

_SIDE = 240  # px of a tile


@dataclass(frozen=True, eq=False)
class Card:
    """An annotation: its row, what it is called, what is said of it, its picture."""

    row: int
    name: str
    said: str
    picture: Picture


@dataclass(frozen=True, eq=False)
class Sheet:
    """`kind`: `worst`, `best` or `random`; `note`: what it was chosen from."""

    kind: str
    note: str
    cards: tuple[Card, ...]


def contact_sheets(
    gt: PseudoGT,
    errors: Errors,
    images: ImageFiles,
    *,
    count: int,
    seed: int,
    body_models: str | os.PathLike[str] | None = None,
) -> list[Sheet]:
    """The worst, best and random `count` annotations whose image is there, drawn one at a time.

    No annotation is both among the worst and the best. `seed` chooses the random ones. An image that is
    broken is said on its card. No sheet where nothing can be drawn.
    """
    drawable = images.there if gt.camera is not None else np.zeros(len(gt), bool)
    if not drawable.any() or not count:
        return []

    def sheet(kind: str, note: str, rows: Sequence[int]) -> Sheet:
        return Sheet(kind, note, tuple(_card(gt, errors, images, row, body_models) for row in rows))

    found = []
    if errors.ranked_by is not None:
        name = errors.ranked_by.replace("_", " ")
        worst = errors.ranked(worst_first=True, among=drawable)
        worst = worst[: min(count, -(-len(worst) // 2))]
        if len(worst):
            found.append(sheet("worst", _worst_note(errors, drawable, worst), worst.tolist()))
        best = errors.ranked(worst_first=False, among=drawable)
        best = best[~np.isin(errors.owner[best], errors.owner[worst])][:count]
        if len(best):
            found.append(sheet("best", f"The smallest of {name}, best first.", best.tolist()))
    rows = np.flatnonzero(drawable)
    chosen = np.sort(np.random.default_rng(seed).choice(rows, min(count, len(rows)), replace=False))
    note = f"{len(chosen)} of the {len(rows)} annotations whose image is there, chosen with seed {seed}."
    found.append(sheet("random", note, chosen.tolist()))
    return found


def _worst_note(errors: Errors, drawable: np.ndarray, worst: np.ndarray) -> str:
    assert errors.ranked_by is not None
    values = errors.columns[errors.ranked_by]
    hidden = errors.ranked(worst_first=True, among=~drawable)
    worse = int((values[hidden] > values[worst[-1]]).sum())
    note = f"The largest of {errors.ranked_by.replace('_', ' ')}, worst first."
    return note + (f" {worse} as bad are left out: their images are not there." if worse else "")


def _card(
    gt: PseudoGT,
    errors: Errors,
    images: ImageFiles,
    row: int,
    body_models: str | os.PathLike[str] | None,
) -> Card:
    one = gt.rows([row])
    path = str(one.image_path[0])
    picture = picture_of(one, path, images.folder, body_models=body_models, only_valid=True, side=_SIDE)
    # Where the folder is on this machine is nobody's business, and not the same on the next.
    problem = picture.problem.replace(f"{images.folder}{os.sep}", "")
    return Card(
        row,
        row_names(one)[0],
        said_of(errors, row),
        Picture(path, picture.tiles, picture.pixels, problem),
    )


def said_of(errors: Errors, row: int) -> str:
    """The ranking measure of a row, and its flags."""
    said = []
    if errors.ranked_by is not None:
        unit, values = for_people(errors.ranked_by, errors.columns[errors.ranked_by][[row]])
        shown = "not measured" if np.isnan(values[0]) else f"{values[0]:.3g} {unit}".rstrip()
        said.append(f"{errors.ranked_by.replace('_', ' ')} {shown}")
    flags = [n for n, v in errors.columns.items() if v.dtype == bool and v[row]]
    return ", ".join([*said, *(name.replace("_", " ") for name in flags)])
