"""What a file covers, counted: annotations, fits, images, parts, and what is missing and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuralannot.columns import Part, RowView, TableStack
from neuralannot.key_index import KeyIndex
from neuralannot.parameters import GENDERS, SIDES
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.quality.measure import shared_fits
from neuralannot.report.image_files import ImageFiles, image_files
from neuralannot.store import Table

__all__ = ["Coverage", "Gap", "coverage"]

_NAMED = 5  # of a long list


@dataclass(frozen=True)
class Gap:
    """Something that is not there. `count`: how many, None for a file; `first`: a few of them by name."""

    what: str
    count: int | None
    why: str
    first: tuple[str, ...] = ()


@dataclass(frozen=True)
class Coverage:
    """Counts of a `PseudoGT`.

    Fields
    ------
    rows: annotations with a fit, or fits where they are not joined with annotations.
    fits: different fits of these rows: cameras that see one frame share it.
    images: different images that the rows name, None where they name none; most: rows of one image, at most.
    cameras: different intrinsics, None where there are no cameras.
    valid: part -> rows whose part is valid. genders, sides: -> rows; sides of hands, else empty.
    gaps: what is missing.
    """

    rows: int
    fits: int
    images: int | None
    most: int
    cameras: int | None
    valid: Mapping[str, int]
    genders: Mapping[str, int]
    sides: Mapping[str, int]
    gaps: tuple[Gap, ...]


def coverage(
    gt: PseudoGT, *, images: ImageFiles | None = None, left_out: Mapping[str, str] | None = None
) -> Coverage:
    """Count what is there. `images`: what `image_files` found; `left_out`: measure -> why it was not made."""
    found = image_files(gt, None) if images is None else images
    camera = gt.camera
    genders = np.bincount(gt.view.column("gender"), minlength=len(GENDERS)).tolist()
    sides = {} if gt.side is None else {side: int((gt.side == side).sum()) for side in SIDES}
    return Coverage(
        rows=len(gt),
        fits=len(shared_fits(gt)[0]) if len(gt) else 0,
        images=found.count if gt.joined else None,
        most=found.most,
        cameras=None if camera is None else len(np.unique(np.c_[camera.focal, camera.princpt], axis=0)),
        valid={part: int(valid.sum()) for part, valid in gt.valid.items()},
        genders={name: count for name, count in zip(GENDERS, genders, strict=True) if count},
        sides=sides,
        gaps=tuple(_gaps(gt, found, left_out or {})),
    )


def _gaps(gt: PseudoGT, images: ImageFiles, left_out: Mapping[str, str]) -> Iterator[Gap]:
    companions, release = gt.companions, gt.catalogued
    if not gt.joined:
        name = companions.annotation_name()
        yield Gap("annotation file", None, f"{name} is not beside the file, nor given: no images, no boxes")
    yield from _without_fit(gt)
    unused = _fits_without_annotation(gt)
    if unused:
        yield Gap("fits without an annotation", len(unused), "no annotation has their key", _few(unused))
    if gt.joined:
        nowhere = np.flatnonzero(~images.named)
        if len(nowhere):
            ids = gt.rows(nowhere[:_NAMED]).ids.tolist()
            why = "their ids are not in the annotation file"
            yield Gap("annotations without an image", len(nowhere), why, _few(ids, len(nowhere)))
    if images.missing:
        rows = int((images.named & ~images.there).sum())
        why = f"not in the image folder; {rows} annotations of theirs are measured, but not drawn"
        yield Gap("image files", len(images.missing), why, _few(images.missing))
    for part, valid in gt.valid.items():
        lacking = len(gt) - int(valid.sum())
        if lacking and gt.model != "mano":  # there a row is one hand
            yield Gap(f"valid {part.replace('_', ' ')}", lacking, "the file flags it, or has no fit of it")
    if gt.camera is None and gt.joined:
        yield Gap("cameras", None, companions.camera_problem(release, joined=gt.joined))
    for why in dict.fromkeys(left_out.values()):
        names = [name.replace("_", " ") for name, reason in left_out.items() if reason == why]
        yield Gap(f"not measured: {', '.join(names)}", None, why)


def _without_fit(gt: PseudoGT) -> Iterator[Gap]:
    """Annotations, or hands, without a fit, by what their annotation says of them."""
    missing = gt.missing
    if not missing:
        return
    what = "hands without a fit" if gt.model == "mano" else "annotations without a fit"
    reasons = _reasons(gt, missing)
    for why in sorted(set(reasons), key=lambda w: (-reasons.count(w), w)):
        some = [m for m, reason in zip(missing, reasons, strict=True) if reason == why]
        yield Gap(what, len(some), why, _few(some))


def _reasons(gt: PseudoGT, missing: Sequence[object]) -> list[str]:
    noted = next((p.stack for p in gt.view.parts if "ann/id" in p.stack), None)
    if noted is None:
        return ["null in the file"] * len(missing)
    sided = [m if isinstance(m, tuple) else (m, None) for m in missing]
    ids = np.array([m[0] for m in sided], np.int64).reshape(-1, 1)
    parts = [Part(noted, KeyIndex(noted.gather("ann/id").reshape(-1, 1)).first(ids))]
    if gt.model == "mano":
        codes = np.array([SIDES.index(str(m[1])) for m in sided], np.uint8)
        parts.append(Part(TableStack((Table({"side": codes}),), "side")))
    # Of rows without a fit there are the annotations all the same.
    rows = PseudoGT(RowView(len(missing), tuple(parts)), gt.release, space=gt.space, companions=gt.companions)
    seen = rows.joints_2d_valid
    if "ann/joint_valid" in rows.view and rows.side is not None:
        of_side = np.where(
            (rows.side == "right")[:, None],
            rows.view.column("ann/joint_valid")[:, :21],
            rows.view.column("ann/joint_valid")[:, 21:],
        )
        seen = of_side
    box = {"mano": None, "flame": "ann/box_face"}.get(gt.model, "ann/box")
    flat = np.zeros(len(rows), bool)
    if gt.model == "mano" and "ann/box_right_hand" in rows.view and "ann/box_left_hand" in rows.view:
        flat = ~_has_area(rows.box_xywh)
    elif box is not None and box in rows.view:
        flat = ~_has_area(rows.view.column(box))
    blind = np.zeros(len(rows), bool) if seen is None else ~seen.any(axis=1)
    texts = np.select(
        [blind & flat, blind, flat],
        [
            "neither a joint nor a box is annotated",
            "no joint is annotated",
            "no box is annotated",
        ],
        "the file has none; its annotation does not say why",
    )
    return [str(text) for text in texts]


def _has_area(box: np.ndarray) -> np.ndarray:
    usable: np.ndarray = np.isfinite(box).all(axis=1) & (box[:, 2:] > 0).all(axis=1)
    return usable


def _fits_without_annotation(gt: PseudoGT) -> list[tuple[int, ...]]:
    """Keys of fits in the files that no annotation has; of hands each side's."""
    if not gt.joined or "key" not in gt.view or "ann/key" not in gt.view:
        return []
    fits = next(p.stack for p in gt.view.parts if "param/betas" in p.stack)
    noted = next(p.stack for p in gt.view.parts if "ann/id" in p.stack)
    if fits is noted:  # columns that were saved hold what had an annotation
        return []
    keys = fits.gather("key")
    return [tuple(key) for key in keys[KeyIndex(noted.gather("ann/key")).first(keys) < 0].tolist()]


def _few(names: Sequence[object], count: int | None = None) -> tuple[str, ...]:
    shown = tuple("/".join(map(str, n)) if isinstance(n, tuple) else str(n) for n in names[:_NAMED])
    return shown + (("…",) if (len(names) if count is None else count) > _NAMED else ())
