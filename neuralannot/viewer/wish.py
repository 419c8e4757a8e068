"""What a user asks to see."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALIGNED", "COLOURS", "LAYOUTS", "VIEWS", "Wish"]

#: Where to look from: the camera of the row, the same and only the person, around it, the whole capture.
VIEWS = ("camera", "person", "around", "world")
#: Two files beside each other, or both in one place.
LAYOUTS = ("side by side", "on each other")
#: What meshes are coloured by: the file, or how far the two files' vertices are apart.
COLOURS = ("file", "vertex distance", "vertex distance, roots aligned")
ALIGNED = COLOURS[2]


@dataclass(frozen=True)
class Wish:
    """What a user asks to see.

    `row` of the first file; `view` of `VIEWS`; `mesh`, `joints`, `errors` (joint errors), `overlay` (the
    projection drawn on the image), `image`; `layout` of `LAYOUTS`; `colours` of `COLOURS`; `opacity` of
    meshes, from 0 to 1; `limit`: where the colours of errors end, mm or px, None for 100 mm (hands and faces
    20), 20 px. Raises ValueError for a view, layout or colours that are none, for another opacity, and for a
    limit that is no positive number.
    """

    row: int
    view: str = "camera"
    mesh: bool = True
    joints: bool = False
    errors: bool = False
    overlay: bool = False
    image: bool = True
    layout: str = LAYOUTS[0]
    colours: str = COLOURS[0]
    opacity: float = 1.0
    limit: float | None = None

    def __post_init__(self) -> None:
        for name, values in (("view", VIEWS), ("layout", LAYOUTS), ("colours", COLOURS)):
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {values}, got {getattr(self, name)!r}")
        if not 0 <= self.opacity <= 1:
            raise ValueError(f"opacity must be from 0 to 1, got {self.opacity!r}")
        if self.limit is not None and not 0 < self.limit < float("inf"):
            raise ValueError(f"limit must be a positive number, mm or px, or None, got {self.limit!r}")

    @property
    def is_beside(self) -> bool:
        """Whether two files are shown beside each other, rather than in one place."""
        return self.layout == LAYOUTS[0]
