"""The people of one file on the stage."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from neuralannot.viewer.listing import name_of
from neuralannot.viewer.posing import Body
from neuralannot.viewer.source import Source, Stage
from neuralannot.viewer.truth import Truth
from neuralannot.viewer.wish import Wish

__all__ = ["Cast", "cast_of"]

_AHEAD = 8


@dataclass(eq=False)
class Cast:
    """The people of one file on the stage, the one who is shown first.

    Fields
    ------
    source: the file. colour: RGB of its bodies.
    rows: of the file. bodies: as they are posed. vertices: (V, 3) each, on the stage, metres; none of a body
        that cannot be placed.
    truth: the annotated joints of the first.
    tones: row -> (V, 3) RGB where vertices have colours of their own.
    """

    source: Source
    colour: tuple[int, int, int]
    rows: list[int] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    vertices: list[np.ndarray] = field(default_factory=list)
    truth: Truth | None = None
    tones: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def extent(self) -> float:
        """How large the first is, metres."""
        return max(float(np.ptp(self.vertices[0], axis=0).max()), 1e-3) if len(self.vertices[0]) else 1e-3

    def limit(self, wish: Wish, unit: str) -> float:
        """Where the colours of errors in `unit` (`mm`, `px`) end."""
        if wish.limit is not None:
            return wish.limit
        return 20.0 if unit == "px" or self.source.gt.model in ("mano", "flame") else 100.0


def cast_of(source: Source, row: int, stage: Stage, colour: tuple[int, int, int], missing: list[str]) -> Cast:
    """`row` and the others of its image, those that can be placed."""
    people = [row, *(int(r) for r in source.shots.people(row) if r != row)]
    timeline = source.shots.timeline(row)
    ahead = None
    if timeline is not None:
        at = np.flatnonzero(timeline.rows == row)
        ahead = timeline.rows[at[0] + 1 : at[0] + 1 + _AHEAD] if len(at) else None
    found = Cast(source, colour)
    for r, body in zip(people, source.bodies(np.array(people), ahead), strict=True):
        try:
            vertices = source.staged(body.vertices, r, stage)
        except ValueError as error:
            missing.append(f"{name_of(source.gt, r)} of {source.name}: {error}")
            continue
        if not np.isfinite(vertices).all():
            why = "its parameters are no numbers"
            if np.isfinite(body.vertices).all():
                why = "it reaches behind its camera or that of the row, and has no place there"
            missing.append(f"{name_of(source.gt, r)} of {source.name}: {why}")
            continue
        found.rows.append(r)
        found.bodies.append(body)
        found.vertices.append(vertices)
    if not found.rows or found.rows[0] != row:
        found.rows.insert(0, row)
        found.bodies.insert(0, source.bodies(np.array([row]))[0])
        found.vertices.insert(0, np.zeros((0, 3), np.float32))
    return found
