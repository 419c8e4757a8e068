"""Cameras as things to look at and through: frusta, image planes, one camera's bodies before another.

Frames are OpenCV's: x right, y down, z forward. Pixels are those of the annotated image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from neuralannot.cameras import Camera

__all__ = [
    "Eye",
    "Frustum",
    "Placed",
    "eye_through",
    "frustum",
    "into_camera",
    "moved",
    "seeing",
    "turned_beside",
]

FAR = 1000.0  # metres: what is drawn, at least
_FLATTEST = np.cos(np.radians(75))
_EDGE = 0.5  # of a pixel: an image begins half a pixel before the centre of its first


@dataclass(frozen=True, eq=False)
class Placed:
    """A rigid motion `R x + t`, metres: `R` (3, 3), `t` (3,)."""

    R: np.ndarray
    t: np.ndarray

    @classmethod
    def still(cls) -> Placed:
        """Nothing moves."""
        return cls(np.eye(3), np.zeros(3))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points moved."""
        found: np.ndarray = points @ self.R.T + self.t
        return found


@dataclass(frozen=True, eq=False)
class Frustum:
    """A camera's pyramid as far as its image plane, in the space that the camera's extrinsics start from.

    Fields
    ------
    apex: (3,) metres. corners: (4, 3) of the image: top left, top right, bottom right, bottom left.
    centre: (3,) of the image. width, height: of the image, metres.
    R: (3, 3) the image's axes as columns: right, down, away.
    """

    apex: np.ndarray
    corners: np.ndarray
    centre: np.ndarray
    width: float
    height: float
    R: np.ndarray

    @property
    def lines(self) -> np.ndarray:
        """(8, 2, 3): four edges from the apex, four around the image."""
        ends = [(self.apex, corner) for corner in self.corners]
        around = [(self.corners[k], self.corners[(k + 1) % 4]) for k in range(4)]
        return np.array([*ends, *around], np.float32)


@dataclass(frozen=True, eq=False)
class Eye:
    """Where to look from: `position`, `target` (3,) metres, `up` (3,), and what must be seen.

    `half`: (2,) tangents of half the angle that must be seen to the side and upward; a window of another
    form shows more. `near`, `far`: metres, nothing closer or farther is drawn.
    """

    position: np.ndarray
    target: np.ndarray
    up: np.ndarray
    half: np.ndarray
    near: float
    far: float = FAR

    def fov(self, aspect: float) -> float:
        """The vertical field of view, radians, of a window `aspect` times as wide as high."""
        return 2 * float(np.arctan(max(self.half[1], self.half[0] / aspect)))


def frustum(camera: Camera, box_xywh: np.ndarray, depth: float) -> Frustum:
    """The pyramid of a camera, a row, whose image plane is `depth` metres away, around a part of its image.

    `box_xywh`: (4,) px, `(0, 0, width, height)` for all of it. Focal lengths may differ and the principal
    point may lie anywhere.
    """
    focal, princpt = camera.focal[0].astype(float), camera.princpt[0].astype(float)
    box = np.asarray(box_xywh, float)
    low, high = ((edge - _EDGE - princpt) / focal * depth for edge in (box[:2], box[:2] + box[2:]))
    in_camera = np.array(
        [[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]], (low + high) / 2]
    )
    in_camera = np.c_[in_camera, np.full(5, depth)]
    R, t = camera.R[0].astype(float), camera.t[0].astype(float)
    points = (in_camera - t) @ R
    width, height = (high - low).tolist()
    return Frustum(-t @ R, points[:4], points[4], width, height, R.T)


def into_camera(points: np.ndarray, own: Camera, other: Camera, *, middle: float | None = None) -> np.ndarray:
    """Points (P, 3) of one camera's space -> another's, so that they project to the same pixels.

    Both are rows and belong to one image. Their depths become `(z - m) + m F / f` with the mean depth `m` and
    the focal lengths `f` and `F`, as `render_overlay` orders bodies of several virtual cameras: a body does
    not get thicker with the focal length. `middle`: `m`, metres, where points are not all of a body: they
    move with it. Nothing changes where the cameras are the same. Points at or behind either camera become
    NaN.
    """
    same = np.array_equal(own.focal, other.focal) and np.array_equal(own.princpt, other.princpt)
    if same:
        return points
    f, F = (float(np.sqrt(c.focal[0].astype(float).prod())) for c in (own, other))
    wide = points.astype(np.float64)
    pixels = own.project(wide[None])[0]
    if middle is None:
        middle = float(wide[:, 2].mean())
    depth = wide[:, 2] - middle + middle * F / f
    depth = np.where(depth > 0, depth, np.nan)
    rays = (pixels - other.princpt[0]) / other.focal[0]
    found: np.ndarray = np.c_[rays * depth[:, None], depth].astype(points.dtype)
    return found


def eye_through(camera: Camera, box_xywh: np.ndarray, near: float, *, margin: float = 1.06) -> Eye:
    """The eye in a camera, a row, that sees a part of its image; what it sees lies over the image exactly.

    `box_xywh`: (4,) px; `near`: metres, less than the nearest thing's depth.
    """
    shown = frustum(camera, box_xywh, 1.0)
    ahead = shown.centre - shown.apex
    ahead = ahead / np.linalg.norm(ahead)
    up = -shown.R[:, 1]
    eye = Eye(shown.apex, shown.apex + ahead, up, np.zeros(2), near)
    return seeing(eye, shown.corners, margin=margin)


def seeing(eye: Eye, points: np.ndarray, *, margin: float = 1.06) -> Eye:
    """The same eye where points (P, 3) must be seen, and nothing else."""
    ahead = (eye.target - eye.position) / np.linalg.norm(eye.target - eye.position)
    right = np.cross(ahead, eye.up)
    right = right / np.linalg.norm(right)
    rays = points - eye.position
    # What is far off the middle would need more than any window shows.
    depth = np.maximum(rays @ ahead, _FLATTEST * np.linalg.norm(rays, axis=1))
    half = np.abs(np.stack([rays @ right, rays @ np.cross(right, ahead)]) / depth).max(axis=1)
    return replace(eye, half=half * margin)


def turned_beside(camera: Camera, box_xywh: np.ndarray, side: int, *, gap: float = 1.04) -> Placed:
    """What turns a camera's frustum about its apex so that another fits beside it, each to be looked at from
    there: side -1 left, 1 right.

    Seen from the apex a picture and what stands before it stay one on the other.
    """
    shown = frustum(camera, box_xywh, 1.0)
    ends = np.vstack([shown.corners, shown.centre]) - shown.apex
    in_camera = ends @ shown.R
    angles = np.arctan2(in_camera[:, 0], in_camera[:, 2])  # about the camera's y, the same along a side
    angle = gap * (angles[4] - angles[1] if side < 0 else angles[4] - angles[0])
    c, s = np.cos(angle), np.sin(angle)
    about_y = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    R = shown.R @ about_y @ shown.R.T
    return Placed(R, shown.apex - R @ shown.apex)


def moved(along: np.ndarray, distance: float) -> Placed:
    """What moves things along a direction (3,), metres."""
    return Placed(np.eye(3), distance * along / np.linalg.norm(along))
