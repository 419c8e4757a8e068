"""What is shown for a row: meshes, joints, cameras, texts, where to look from; without a browser."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from neuralannot.quality.ground import UP
from neuralannot.viewer.backdrops import annotated_size, planes_of
from neuralannot.viewer.cast import Cast, cast_of
from neuralannot.viewer.colours import FIT, OTHER, error_colours, legend
from neuralannot.viewer.eyes import apart, eye_of
from neuralannot.viewer.facts import (
    Distance,
    distance,
    distance_facts,
    error_facts,
    facts_html,
    row_facts,
)
from neuralannot.viewer.figures import people_of
from neuralannot.viewer.listing import name_of
from neuralannot.viewer.photos import Photos
from neuralannot.viewer.planes import Eye
from neuralannot.viewer.source import Source, Stage, stage_of
from neuralannot.viewer.take import Take, take_of
from neuralannot.viewer.things import Floor, Group
from neuralannot.viewer.wish import ALIGNED, COLOURS, Wish

__all__ = ["Content", "decide"]


@dataclass(frozen=True, eq=False)
class Content:
    """All that is shown: `groups`, one a file; `facts` and `legend` as HTML; `missing`, sentences."""

    groups: tuple[Group, ...]
    eye: Eye
    up: np.ndarray
    floor: Floor | None
    facts: str
    legend: str
    missing: tuple[str, ...]


def decide(sources: tuple[Source, ...], photos: Photos, wish: Wish) -> Content:
    """What is shown of one file, or of two that are compared, the row being the first's.

    What cannot be shown is left out and said in `missing`. Raises IndexError for a row that is not there.
    """
    missing: list[str] = []
    first, row = sources[0], wish.row
    stage = stage_of(first, row)
    casts = [cast_of(first, row, stage, FIT, missing)]
    if len(sources) > 1:
        other = sources[1].same_row(first, row)
        if other is None:
            missing.append(_absence(first, row, sources[1]))
        else:
            casts.append(cast_of(sources[1], other, stage, OTHER, missing))
    view = _view(wish, stage, first, missing)
    photo = photos.photo(first.shots.image_path(row), annotated_size(first, row))
    if photo.problem:
        missing.append(f"image: {photo.problem}")
    for cast in casts:
        cast.truth = cast.source.truths.of(cast.rows[0])
        if cast.source.truths.problem:
            missing.append(f"joint errors of {cast.source.name}: {cast.source.truths.problem}")
    facts = row_facts(first, row, np.array(casts[0].rows)) + error_facts(casts[0].truth)
    if len(casts) > 1:
        facts += [(f"{casts[1].source.name} {what}", said) for what, said in error_facts(casts[1].truth)]
    facts += _distances(casts, wish, missing)
    take = take_of(wish, view, stage, tuple(casts), photo)
    groups = []
    for k in range(len(casts)):
        group = replace(people_of(take, k), planes=planes_of(take, k, photos, missing))
        groups.append(replace(group, placed=apart(take, 2 * k - 1)) if take.is_beside else group)
    return Content(
        tuple(groups),
        eye_of(take, groups),
        stage.up,
        _floor(take) if view in ("around", "world") else None,
        facts_html(facts, missing),
        _legend(wish, casts),
        tuple(missing),
    )


def _absence(source: Source, row: int, other: Source) -> str:
    """Why the other file does not have a row."""
    one, two = (s.gt.catalogued.data_set for s in (source, other))
    if one != two:
        return f"{other.name}: its rows are of {two}, those of {source.name} of {one}: nothing to compare"
    return f"{name_of(source.gt, row)} is not in {other.name}"


def _view(wish: Wish, stage: Stage, source: Source, missing: list[str]) -> str:
    """The view that is wished, or the one nearest to it that there is."""
    if stage.camera is None:
        missing.append(f"cameras: {source.gt.camera_problem}")
        return "around"
    return "around" if wish.view == "world" and stage.space == "camera" else wish.view


def _distances(casts: list[Cast], wish: Wish, missing: list[str]) -> list[tuple[str, str]]:
    """Colours of both files' meshes by their distance, and what is said of it."""
    if len(casts) < 2:
        if wish.colours != COLOURS[0]:
            missing.append("vertex distances: there is no second file to compare with")
        return []
    first, second = casts
    facts: list[tuple[str, str]] = []
    problem = ""
    for k, row in enumerate(first.rows):
        other = second.source.same_row(first.source, row)
        if other is None or other not in second.rows:
            continue
        found = distance(first.source, row, second.source, other)
        if not isinstance(found, Distance):
            problem = found
            continue
        if not np.isfinite(found.placed).all():
            continue  # a body that is no numbers: said already
        if k == 0:
            facts = distance_facts(second.source.name, found)
        if wish.colours != COLOURS[0]:
            values = found.aligned if wish.colours == ALIGNED else found.placed
            tones = error_colours(1000 * values, first.limit(wish, "mm"))
            first.tones[row] = second.tones[other] = tones
    if problem:
        missing.append(problem)
    return facts


def _legend(wish: Wish, casts: list[Cast]) -> str:
    strips = []
    if wish.colours != COLOURS[0] and casts[0].tones:
        strips.append(legend(wish.colours, casts[0].limit(wish, "mm"), "mm"))
    truth = casts[0].truth
    if wish.errors and truth is not None:
        strips.append(legend("joint error", casts[0].limit(wish, truth.unit), truth.unit))
    return f'<div style="font-size:.8em;padding:0 .75em">{"".join(strips)}</div>' if strips else ""


def _floor(take: Take) -> Floor | None:
    height = take.source.floor(take.row)
    if height is None:
        return None
    axis = UP[take.source.gt.catalogued.data_set]
    centre = np.round(take.points.mean(axis=0).astype(float))  # so that the grid stays where people move
    centre[axis] = height
    return Floor(axis, height, centre)
