"""A file that is looked at, and where its bodies stand before a camera."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from neuralannot.cameras import Camera
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.quality.ground import UP
from neuralannot.viewer.planes import into_camera
from neuralannot.viewer.posing import Body, Posing
from neuralannot.viewer.shots import Shots
from neuralannot.viewer.truth import Truths

__all__ = ["Source", "Stage", "stage_of"]

_FLOOR_FRAMES = 9


@dataclass(frozen=True, eq=False)
class Stage:
    """What everything is placed in: the space of the first file's row that is shown.

    `space`: `camera`, that of `camera` at the origin, or `world`. `camera`: the row's, None where it has
    none. `up`: (3,) unit vector.
    """

    space: str
    camera: Camera | None
    up: np.ndarray


@dataclass(frozen=True, eq=False)
class Source:
    """A file with what is made of it as it is asked for; `name`: what it is called on the page."""

    gt: PseudoGT
    name: str
    body_models: str | os.PathLike[str] | None = None
    shots: Shots = field(init=False)
    posing: Posing = field(init=False)
    _floors: dict[str, float | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shots", Shots(self.gt))
        object.__setattr__(self, "posing", Posing(self.gt, self.body_models))

    @cached_property
    def truths(self) -> Truths:
        """What the data set annotates."""
        return Truths(self.gt, self.body_models)

    def camera(self, row: int) -> Camera | None:
        """The camera of a row; identity extrinsics where the file's space is the camera's."""
        return self.gt.rows([row]).camera

    def in_camera(self, points: np.ndarray, row: int) -> np.ndarray:
        """Points (P, 3) of the file's space in that of the row's camera. Raises ValueError without one."""
        if self.gt.space == "camera":
            return points
        found: np.ndarray = self.gt.rows([row]).require_camera().world_to_camera(points[None])[0]
        return found

    def staged(
        self, points: np.ndarray, row: int, stage: Stage, *, body: np.ndarray | None = None
    ) -> np.ndarray:
        """Points (P, 3) of a row's body where they are on the stage: over the same pixels of the image.

        `body`: (V, 3) the vertices of the body that they are joints of; points of their own where None.
        Raises ValueError that names the companion where a camera is needed and missing.
        """
        if stage.space == "world" and self.gt.space == "world":
            return points
        own = self.camera(row)
        if own is None and stage.camera is None and stage.space == self.gt.space:
            return points  # of one camera that nobody knows
        own = self.gt.rows([row]).require_camera()
        if stage.camera is None:
            raise ValueError("the first file's row has no camera to place others before")
        middle = None if body is None else float(self.in_camera(body, row)[:, 2].mean(dtype=np.float64))
        placed = into_camera(self.in_camera(points, row), own, stage.camera, middle=middle)
        return placed if stage.space == "camera" else stage.camera.camera_to_world(placed[None])[0]

    def same_row(self, other: Source, row: int) -> int | None:
        """The row here that is a row of another file, by id or frame key, hands by side; None if none.

        The same number in another data set is another annotation.
        """
        if self.gt.catalogued.data_set != other.gt.catalogued.data_set:
            return None
        one = other.gt.rows([row])
        if all("id" in gt.view or gt.joined for gt in (self.gt, one)):
            key: tuple[int | str, ...] = (int(one.ids[0]),)
        elif all("key" in gt.view for gt in (self.gt, one)):
            key = tuple(one.view.column("key")[0].tolist())
        else:
            return None
        if one.side is not None and self.gt.side is not None:
            key = (*key, str(one.side[0]))
        try:
            return int(self.gt.rows_of(key)[0])
        except KeyError:
            return None

    def bodies(self, rows: np.ndarray, ahead: np.ndarray | None = None) -> list[Body]:
        """The posed bodies of rows."""
        return self.posing.bodies(rows, ahead=ahead)

    def floor(self, row: int) -> float | None:
        """How high the floor is, metres, in the worlds whose up is known: the median of the lowest points of
        frames of the sequence. None elsewhere, and where no body of those has a place."""
        axis = UP.get(self.gt.catalogued.data_set)
        timeline = self.shots.timeline(row) if axis is not None and self.gt.space == "world" else None
        if axis is None or timeline is None:
            return None
        if timeline.name not in self._floors:
            some = timeline.rows[np.linspace(0, len(timeline) - 1, _FLOOR_FRAMES).round().astype(int)]
            lowest = [body.vertices[:, axis].min() for body in self.bodies(np.unique(some))]
            known = np.array(lowest)[np.isfinite(lowest)]
            self._floors[timeline.name] = float(np.median(known)) if len(known) else None
        return self._floors[timeline.name]


def stage_of(source: Source, row: int) -> Stage:
    """The stage of a row. Up is the world's where the data set's is known, else what its cameras agree on."""
    camera = source.camera(row)
    if source.gt.space == "camera":
        return Stage("camera", camera, np.array([0.0, -1.0, 0.0]))
    axis = UP.get(source.gt.catalogued.data_set)
    if axis is not None:
        return Stage("world", camera, np.eye(3)[axis])
    cameras, _ = source.shots.cameras(row)
    ups = -cameras.R[:, 1].astype(float) if cameras is not None else np.array([[0.0, -1.0, 0.0]])
    up = ups.mean(axis=0)
    if np.linalg.norm(up) < 0.1:  # cameras all around agree on nothing
        up = ups[0]
    return Stage("world", camera, up / np.linalg.norm(up))
