"""The report as one HTML page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from neuralannot.exports import row_names
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.quality.measure import shared_fits
from neuralannot.quality_columns import MEASURES
from neuralannot.report.counts import Coverage, coverage
from neuralannot.report.distributions import joint_angles, places, shapes
from neuralannot.report.errors import Errors, errors_of, for_people
from neuralannot.report.image_files import ImageFiles, image_files
from neuralannot.report.sheets import Card, Sheet, contact_sheets, said_of
from neuralannot.train.evaluation.plots import histogram, spans
from neuralannot.train.evaluation.spread import SPREAD, spread
from neuralannot.train.evaluation.tables import Table
from neuralannot.web_page import Section, check_page_name, document, image_tag, plain, write_document

__all__ = ["write_report"]

_LISTED = 30  # annotations in a list
_SPACES = {
    "camera": ("Before the camera", ("x, to the right", "y, downwards", "z, away")),
    "world": ("In the world", ("x", "y", "z")),
}
_SHEETS = {"worst": "The worst", "best": "The best", "random": "At random"}


def write_report(
    gt: PseudoGT,
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    title: str = "",
    files: Sequence[str] = (),
    count: int = 12,
    seed: int = 0,
    by: str | None = None,
    again: bool = False,
    body_models: str | os.PathLike[str] | None = None,
    prior: str = "default",
    device: str | None = None,
    batch_size: int = 1024,
    progress: bool = False,
) -> Path:
    """Write one `.html` that holds all: counts, what is missing, errors, pictures, how fits are spread.

    `images`: the image folder, None for no pictures. `title`, `files`: text for its head. `count`:
    annotations on each contact sheet, 0 for none; `seed` chooses the random ones. `by`: the quality column
    that says which are the worst; None for the first there is of `report.errors.RANKED_BY`. Quality columns
    that `gt` has are shown, else they are measured, with `body_models`, `prior`, `device` and `batch_size` as
    `measure_quality` takes them; `again` measures anew.

    Images that are not there are counted and named on the page, and the rest is shown. The same input gives
    the same bytes. Of memory: `batch_size` bodies, the columns, and the pictures of the page. The folder is
    made if it is not there; the file appears whole or not at all.

    Raises ValueError for another suffix than `.html`, a negative `count`, and a `by` that no row has;
    FileNotFoundError for an image folder that is not there; and as `measure_quality`.
    """
    path = Path(path)
    check_page_name(path)
    if count < 0:
        raise ValueError(f"count must be from 0, got {count}")
    found = image_files(gt, images)
    errors = errors_of(
        gt,
        by=by,
        again=again,
        body_models=body_models,
        prior=prior,
        device=device,
        batch_size=batch_size,
        progress=progress,
    )
    counted = coverage(gt, images=found, left_out=_said(gt, errors))
    sheets = contact_sheets(gt, errors, found, count=count, seed=seed, body_models=body_models)
    sections = [
        Section("coverage", "Coverage", _coverage(gt, counted)),
        Section("errors", "Errors", "\n".join(_errors(gt, errors, body_models))),
        *_sheets(gt, errors, found, sheets, count),
        *_distributions(gt, body_models),
        Section("reading", "How to read this", _reading(gt, seed)),
    ]
    return write_document(
        path, document(title or f"{gt.release}", _head(gt, counted, files), sections, contents=True)
    )


def _said(gt: PseudoGT, errors: Errors) -> dict[str, str]:
    """Why measures were left out, without where files are on this machine."""
    said = {}
    for name, why in errors.left_out.items():
        for folder in gt.companions.folders:
            why = why.replace(str(folder), folder.name)
        said[name] = why
    return said


def _head(gt: PseudoGT, counted: Coverage, files: Sequence[str]) -> str:
    entry = gt.catalogued
    what = {"smpl": "bodies", "smplx": "whole bodies", "mano": "hands", "flame": "faces"}[gt.model]
    said = (
        f"{entry.data_set}: {what} of {gt.model.upper()}, "
        f"in {'the world' if gt.space == 'world' else 'camera space'}"
    )
    names = ", ".join(f'<span class="path">{plain(Path(f).name)}</span>' for f in files)
    figures: dict[str, int | None] = {
        "annotations" if gt.joined else "fits": counted.rows,
        "images": counted.images,
    }
    if counted.fits != counted.rows:
        figures["different fits"] = counted.fits
    figures |= {"cameras": counted.cameras}
    missing = [g.count or 0 for g in counted.gaps if g.what.endswith("without a fit")]
    figures["without a fit"] = sum(missing)
    gone = next((g.count for g in counted.gaps if g.what == "image files"), None)
    if gone:
        figures["image files missing"] = gone
    tiles = "".join(
        f"<div><dt>{plain(name)}</dt><dd>{'-' if n is None else f'{n:,}'}</dd></div>"
        for name, n in figures.items()
    )
    said = plain(said) + (f": {names}" if names else "")
    return f'<p class="soft">{said}</p>\n<dl class="figures">{tiles}</dl>'


def _coverage(gt: PseudoGT, counted: Coverage) -> str:
    rows: list[tuple[str, int | None]] = [
        ("annotations with a fit" if gt.joined else "fits", counted.rows),
        ("different fits", counted.fits),
        ("images", counted.images),
        ("annotations on one image, at most", counted.most if counted.images else None),
        ("different cameras", counted.cameras),
        *((f"gender {name}", n) for name, n in counted.genders.items()),
        *((f"{name} hands", n) for name, n in counted.sides.items()),
    ]
    valid = [
        (part.replace("_", " "), n, counted.rows, 100 * n / counted.rows if counted.rows else None)
        for part, n in counted.valid.items()
    ]
    tables = (
        Table("Counts", ("what", "count"), tuple(rows)),
        Table("Valid parts", ("part", "rows", "of", "%"), tuple(valid)),
    )
    parts = [
        f'<div class="tables">{"".join(map(_scrolled, tables))}</div>',
        "<h3>What is missing, and why</h3>",
    ]
    if not counted.gaps:
        return "\n".join([*parts, "<p>Nothing that the file, its companions and the images should have.</p>"])
    gaps = tuple((g.what, g.count, g.why, ", ".join(g.first) or "-") for g in counted.gaps)
    return "\n".join([*parts, _scrolled(Table("", ("what", "count", "why", "the first"), gaps))])


def _errors(gt: PseudoGT, errors: Errors, body_models: str | os.PathLike[str] | None) -> Iterator[str]:
    from neuralannot.body_models.model import FOLDER_VARIABLE

    if not len(gt):
        yield "<p>There is no row to measure.</p>"
        return
    if errors.kept:
        yield "<p>Measured before, and kept beside the file.</p>"
    if body_models is None and not os.environ.get(FOLDER_VARIABLE):
        yield (
            '<p class="note">No official body models were given, so that the open body serves. Of files that '
            "were fitted with official models, errors, reprojection and pictures have the pose, but not the "
            "build.</p>"
        )
    rows: list[tuple[str | int | float | None, ...]] = []
    plots = []
    flags = []
    for name, values in errors.columns.items():
        text = MEASURES[name].text if name in MEASURES else ""
        label = name.replace("_", " ")
        if values.dtype == bool:
            flags.append((label, int(values.sum()), 100 * float(values.mean()), text))
            continue
        unit, shown = for_people(name, values)
        rows.append((label, unit, int((~np.isnan(values)).sum()), *spread(shown), text))
        if not np.isnan(shown).all():
            plots.append(histogram(shown, title=label, unit=unit))
    yield _scrolled(Table("", ("measure", "unit", "rows", *SPREAD, "what it is"), tuple(rows)))
    if flags:
        yield _scrolled(Table("", ("flag", "rows", "%", "what it is"), tuple(flags)))
    yield f'<div class="plots">{"".join(plots)}</div>'
    if errors.ranked_by is not None:
        worst = errors.ranked(worst_first=True)[:_LISTED].tolist()
        rest = f"The {len(worst)} worst by {errors.ranked_by.replace('_', ' ')}"
        yield f"<details><summary>{plain(rest)}, as a list</summary>{_list(gt, errors, worst)}</details>"


def _list(gt: PseudoGT, errors: Errors, rows: list[int]) -> str:
    some = gt.rows(rows)
    paths = some.image_path.tolist() if gt.joined else [""] * len(rows)
    lines = tuple(
        (name, said_of(errors, row), path or "-")
        for name, row, path in zip(row_names(some), rows, paths, strict=True)
    )
    return _scrolled(Table("", ("annotation", "measured", "image"), lines))


def _sheets(
    gt: PseudoGT, errors: Errors, images: ImageFiles, sheets: Sequence[Sheet], count: int
) -> list[Section]:
    if not sheets:
        why = _no_pictures(gt, images, count)
        return [Section("pictures", "Pictures", f'<p class="note">{plain(why)}</p>')]
    return [
        Section(
            sheet.kind,
            _SHEETS[sheet.kind],
            f'<p>{plain(sheet.note)}</p>\n<div class="cards">{"".join(map(_card, sheet.cards))}</div>',
        )
        for sheet in sheets
    ]


def _no_pictures(gt: PseudoGT, images: ImageFiles, count: int) -> str:
    if not len(gt):
        return "There is no annotation to draw."
    if not count:
        return "No pictures were asked for."
    if not gt.joined:
        return "No pictures: without the annotation file no images are known."
    if images.folder is None:
        return "No pictures: no image folder was given (--images)."
    if gt.camera is None:
        return f"No pictures: {gt.camera_problem}"
    return "No pictures: none of the images is in the folder that was given; see what is missing."


def _card(card: Card) -> str:
    shown = f'<p class="problem">{plain(card.picture.problem)}</p>'
    if card.picture.pixels is not None:
        alt = f"{card.name}: left the image, right the same with the fit"
        shown = image_tag(card.picture.pixels, alt)
    return (
        f"<figure>{shown}<figcaption><b>{plain(card.name)}</b> {plain(card.said)}<br>"
        f'<span class="path soft">{plain(card.picture.image)}</span></figcaption></figure>\n'
    )


def _distributions(gt: PseudoGT, body_models: str | os.PathLike[str] | None) -> Iterator[Section]:
    if not len(gt):
        return
    fits = gt.rows(shared_fits(gt)[0])
    noun = "fits"
    drawn = []
    for shape in shapes(fits):
        drawn.append(spans(shape.names, shape.codes, title=f"{shape.title} codes", unit="sd"))
        norm = np.linalg.norm(shape.codes, axis=1)
        drawn.append(histogram(norm, title=f"length of the {shape.title} code", unit="sd", noun=noun))
    text = "<p>Codes of the model's shape space, in standard deviations: 0 is the mean.</p>"
    yield Section("shape", "Shape", f'{text}\n<div class="plots">{"".join(drawn)}</div>')
    drawn = [
        spans(
            [joint.replace("_", " ") for joint in angles.joints],
            angles.degrees,
            title=f"{angles.title}: angle from rest",
            unit="°",
        )
        for angles in joint_angles(fits)
    ]
    text = (
        "<p>How far each joint is turned from the model's rest pose, in any direction; parts that are not "
        "valid are left out. Hands' rest is what their parameters of zero give, the mean hand of official "
        "models.</p>"
    )
    yield Section("pose", "Pose", f'{text}\n<div class="plots">{"".join(drawn)}</div>')
    yield Section("depth", "Depth and translation", "\n".join(_places(gt, body_models)))


def _places(gt: PseudoGT, body_models: str | os.PathLike[str] | None) -> Iterator[str]:
    found = places(gt, body_models=body_models)
    if all(place.space == "world" for place in found):
        yield f'<p class="note">{plain(f"No depth: {gt.camera_problem}")}</p>'
    for place in found:
        name, axes = _SPACES[place.space]
        plots = [spans(axes, place.root, title=f"{name}: root joint", unit="m")]
        if place.space == "camera":
            text = "Where the root joints are in their cameras' frames."
            if gt.space == "camera":
                text += (
                    " In the wild a camera is virtual, a person's own: depths go with its focal length and "
                    "are no distances that can be compared."
                )
            yield f"<p>{plain(text)}</p>"
            plots.append(histogram(place.root[:, 2], title="depth", unit="m", from_zero=False))
            camera = gt.require_camera()
            plots.append(
                histogram(np.asarray(camera.focal)[:, 0], title="focal length", unit="px", from_zero=False)
            )
        yield f'<div class="plots">{"".join(plots)}</div>'


def _reading(gt: PseudoGT, seed: int) -> str:
    text = (
        "Rows are annotations that have a fit; where several cameras see one fit it counts once among shapes "
        "and poses, and its worst view stands for it among the worst. Means, percentiles and histograms "
        "leave out rows without a value; a joint behind its camera has an error of infinity. In pictures, "
        "the image is left, the fit over it right, cut at 1.4 times the annotated box, or that of the body "
        "where none is annotated. Limits of gt.filter and neuralannot quality are in metres and radians: "
        "1 mm is 0.001, 1° is 0.0175."
    )
    source = f"Made by neuralannot; release {gt.release}, random annotations by seed {seed}."
    return f'<p>{plain(text)}</p>\n<p class="soft">{plain(source)}</p>'


def _scrolled(table: Table) -> str:
    return f'<div class="scroll">{table.html()}</div>'
