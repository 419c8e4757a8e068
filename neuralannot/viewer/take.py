"""All that is known when it is decided what is drawn and from where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuralannot.viewer.cast import Cast
from neuralannot.viewer.photos import Photo
from neuralannot.viewer.source import Source, Stage
from neuralannot.viewer.wish import Wish

__all__ = ["Take", "take_of"]

_MARGIN = 0.12  # around a person, of the larger side


@dataclass(frozen=True, eq=False)
class Take:
    """One row, as it is to be shown.

    Fields
    ------
    wish: what is asked for. view: of `VIEWS`, one that there is.
    stage: the space that all is placed in. casts: the files' people, the first file's first.
    photo: the image. box: (4,) xywh px, the part of it that is looked at.
    """

    wish: Wish
    view: str
    stage: Stage
    casts: tuple[Cast, ...]
    photo: Photo
    box: np.ndarray

    @property
    def source(self) -> Source:
        """The first file."""
        return self.casts[0].source

    @property
    def row(self) -> int:
        """The row of the first file."""
        return self.casts[0].rows[0]

    @property
    def is_beside(self) -> bool:
        """Whether two files are shown beside each other."""
        return len(self.casts) > 1 and self.wish.is_beside

    @property
    def is_room(self) -> bool:
        """Whether one looks at a room with its cameras, rather than at an image."""
        return self.stage.space == "world" and self.view in ("around", "world")

    @property
    def points(self) -> np.ndarray:
        """(P, 3) every vertex of every body, or the origin."""
        points = np.concatenate([v for cast in self.casts for v in cast.vertices])
        return points if len(points) else np.zeros((1, 3), np.float32)

    def before(self, points: np.ndarray) -> np.ndarray:
        """Points (P, 3) of the stage in its camera's frame."""
        assert self.stage.camera is not None
        found: np.ndarray = self.stage.camera.world_to_camera(points[None])[0]
        return found

    @property
    def depths(self) -> tuple[float, float]:
        """The nearest and the farthest of the people before the camera, metres."""
        depth = self.before(self.points)[:, 2]
        depth = depth[depth > 0]
        return (float(depth.min()), float(depth.max())) if len(depth) else (1.0, 2.0)


def take_of(wish: Wish, view: str, stage: Stage, casts: tuple[Cast, ...], photo: Photo) -> Take:
    """The take whose box is all of the image, or the person and what is around it."""
    whole = _whole(stage, photo)
    take = Take(wish, view, stage, casts, photo, whole)
    if stage.camera is None or wish.view == "camera":
        return take
    seen = [take.before(cast.vertices[0]) for cast in casts if len(cast.vertices[0])]
    pixels = stage.camera.project(np.concatenate(seen)[None])[0] if seen else np.zeros((0, 2))
    pixels = pixels[np.isfinite(pixels).all(axis=1)]
    if not len(pixels):
        return take
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    margin = _MARGIN * (high - low).max()
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, whole[2:])
    if (high - low < 2).any():  # outside the image
        return take
    return Take(wish, view, stage, casts, photo, photo.snapped(np.array([*low, *(high - low)], float)))


def _whole(stage: Stage, photo: Photo) -> np.ndarray:
    """(4,) px of all of the image; where its size is not known its middle is the principal point."""
    if (photo.size > 0).all():
        return photo.box
    if stage.camera is None:
        return np.array([0.0, 0, 1, 1])
    return np.array([0, 0, *np.maximum(2 * stage.camera.princpt[0].astype(float), 1)])
