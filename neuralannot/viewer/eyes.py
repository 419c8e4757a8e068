"""Where to look from, and how far two files are moved apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from neuralannot.viewer.planes import FAR, Eye, Placed, eye_through, frustum, moved, seeing, turned_beside
from neuralannot.viewer.take import Take
from neuralannot.viewer.things import Group

__all__ = ["apart", "eye_of"]

_HALF = np.tan(np.radians(20))  # of the angle that is seen from around
_BEYOND = 4.0  # times as far as the farthest person is what may be seen, the image behind them too
_OFF, _ABOVE, _HIGH_ABOVE = np.radians(32), np.radians(14), np.radians(32)


def apart(take: Take, side: int) -> Placed:
    """What moves a file's people and planes to the left (-1) or right (1) of the other's."""
    if take.stage.camera is not None and not take.is_room:
        return turned_beside(take.stage.camera, take.box, side)
    if side < 0:  # the first file stays among its cameras
        return Placed.still()
    right = np.cross(-_outward(take, _ABOVE), take.stage.up)
    return moved(right, 1.15 * float(np.ptp(take.points @ right) / np.linalg.norm(right)))


def eye_of(take: Take, groups: Sequence[Group]) -> Eye:
    """Where to look from: the row's camera, or off it and a little above what is shown."""
    if take.view in ("camera", "person"):
        assert take.stage.camera is not None
        eye = eye_through(take.stage.camera, take.box, 0.5 * take.depths[0])
        eye = replace(eye, far=max(FAR, _BEYOND * take.depths[1]))  # virtual cameras are far from people
        if not take.is_beside:
            return eye
        return seeing(eye, np.concatenate([g.placed(p.frustum.corners) for g in groups for p in g.planes]))
    points = [g.placed(m.vertices) for g in groups for m in g.meshes] or [take.points]
    outward = _outward(take, _ABOVE)
    if take.view == "world":
        planes = [(g, p.frustum) for g in groups for p in g.planes]
        points += [g.placed(np.vstack([shape.corners, shape.apex])) for g, shape in planes]
        outward = _outward(take, _HIGH_ABOVE)
    return _around(np.concatenate(points).astype(float), outward, take.stage.up)


def _around(points: np.ndarray, outward: np.ndarray, up: np.ndarray) -> Eye:
    """The nearest eye in a direction from the points' middle that sees all of them."""
    target = (points.min(axis=0) + points.max(axis=0)) / 2
    right = np.cross(up, outward)
    right = right / np.linalg.norm(right)
    over = np.cross(outward, right)
    from_target = points - target
    aside = np.maximum(np.abs(from_target @ right), np.abs(from_target @ over))
    away = max(1.1 * float((aside / _HALF + from_target @ outward).max()), 1e-2)
    return Eye(
        target + outward * away, target, up, np.array([_HALF, _HALF]), 0.02 * away, max(FAR, 10 * away)
    )


def _outward(take: Take, above: float) -> np.ndarray:
    """(3,) unit: from the people to where one looks from, aside of the camera and `above` it, radians."""
    up = take.stage.up
    toward = np.array([0.3, -1.0, 0.2])
    if take.stage.camera is not None:
        apex = frustum(take.stage.camera, take.box, 1.0).apex
        toward = apex - take.points.mean(axis=0)
    toward = toward - toward @ up * up
    if np.linalg.norm(toward) < 1e-3:  # the camera looks straight down
        toward = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    toward = toward / np.linalg.norm(toward)
    level = toward * np.cos(_OFF) + np.cross(up, toward) * np.sin(_OFF)
    found: np.ndarray = level * np.cos(above) + up * np.sin(above)
    return found
