"""What is said of the row that is shown."""

from __future__ import annotations

import numpy as np

from neuralannot.viewer.listing import name_of, number_text, quality_text
from neuralannot.viewer.source import Source
from neuralannot.viewer.truth import Truth
from neuralannot.web_page import plain

__all__ = ["Distance", "distance", "error_facts", "facts_html", "row_facts"]

Facts = list[tuple[str, str]]


class Distance:
    """How far two bodies of one topology are from each other, vertex by vertex.

    `placed`: (V,) metres, as they are placed before the camera; `aligned`: with the root joints moved onto
    each other.
    """

    def __init__(self, first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> None:
        (one, one_root), (other, other_root) = first, second
        self.placed = np.linalg.norm(one - other, axis=-1)
        self.aligned = np.linalg.norm((one - one_root) - (other - other_root), axis=-1)


def distance(first: Source, row: int, second: Source, other_row: int) -> Distance | str:
    """The distance of a row's body in two files; a sentence where bodies cannot be compared."""
    bodies = []
    for source, at in ((first, row), (second, other_row)):
        bodies.append(source.bodies(np.array([at]))[0])
    if bodies[0].vertices.shape != bodies[1].vertices.shape:
        return (
            f"no distances: {first.gt.model} and {second.gt.model} have different vertices; "
            "`neuralannot convert` makes one of the other"
        )
    same_world = first.gt.space == second.gt.space == "world"
    pairs = []
    for (source, at), body in zip(((first, row), (second, other_row)), bodies, strict=True):
        points = np.concatenate([body.vertices, body.joints[:1]])
        if not same_world:
            try:
                points = source.in_camera(points, at)
            except ValueError as error:
                return f"no distances: {error}"
        pairs.append((points[:-1], points[-1]))
    return Distance(*pairs)


def row_facts(source: Source, row: int, people: np.ndarray) -> Facts:
    """A row's id, release, space, image, camera, valid parts and kept quality."""
    gt, one = source.gt, source.gt.rows([row])
    facts = [("annotation", name_of(gt, row))]
    if "key" in one.view:
        names = gt.catalogued.key_names
        numbers = one.view.column("key")[0].tolist()
        facts.append(("frame", ", ".join(f"{n} {v}" for n, v in zip(names, numbers, strict=True))))
    facts += [("file", source.name), ("release", gt.release), ("model", f"{gt.model}, {one.gender[0]}")]
    facts.append(("space", gt.space))
    if source.shots.image_path(row):
        facts.append(("image", source.shots.image_path(row)))
    if len(people) > 1:
        facts.append(("on this image", f"{len(people)} annotations"))
    camera = one.camera
    if camera is not None:
        kind = "the annotation's own" if gt.catalogued.camera == "leaf" else "the data set's"
        number = source.shots.camera_name(row)
        focal, princpt = (
            ", ".join(f"{v:.0f}" for v in values[0]) for values in (camera.focal, camera.princpt)
        )
        said = f"{number + ', ' if number else ''}{kind}, focal {focal} px, centre {princpt} px"
        facts.append(("camera", said))
    parts = [part.replace("_", " ") for part in one.valid if one.valid[part][0]]
    facts.append(("valid", ", ".join(parts) or "nothing"))
    return facts + [
        (name.replace("_", " "), quality_text(name, values[0])) for name, values in one.quality.items()
    ]


def error_facts(truth: Truth | None) -> Facts:
    """Joint errors of the row."""
    if truth is None or np.isnan(truth.errors).all():
        return []
    errors = truth.shown_errors
    what = "to the 3D joints" if truth.in_world else "to the keypoints"
    mean, largest = (number_text(round(float(v), 2)) for v in (np.nanmean(errors), np.nanmax(errors)))
    said = f"mean {mean}, largest {largest} {truth.unit}"
    return [(what, f"{said} ({int((~np.isnan(errors)).sum())} joints)")]


def distance_facts(name: str, found: Distance) -> Facts:
    """How far the body is from that of another file."""
    placed, aligned = (number_text(round(1000 * float(v.mean()), 2)) for v in (found.placed, found.aligned))
    return [(f"to {name}", f"vertices {placed} mm, roots aligned {aligned} mm")]


def facts_html(facts: Facts, missing: list[str]) -> str:
    """A table of facts, and below it what is missing, as HTML that holds no markup of theirs."""
    rows = "".join(
        f'<tr><td style="opacity:.65;padding-right:.8em;vertical-align:top">{plain(name)}</td>'
        f'<td style="overflow-wrap:anywhere">{plain(value)}</td></tr>'
        for name, value in facts
    )
    lines = "".join(f"<li>{plain(text)}</li>" for text in missing)
    said = ""
    if lines:
        said = (
            '<div style="margin-top:.5em;color:#b35900"><b>Not shown</b>'
            f'<ul style="margin:.2em 0;padding-left:1.2em;overflow-wrap:anywhere">{lines}</ul></div>'
        )
    return (
        f'<div style="font-size:.8em;line-height:1.35;padding:0 .75em"><table class="facts">{rows}</table>'
        f"{said}</div>"
    )
