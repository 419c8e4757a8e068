"""Where cameras stand. Worlds have z up and the floor at z = 0; cameras have x right, y down, z forward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Viewpoint:
    """One pinhole camera: `R` (3, 3), `t` (3,) metres, `X_cam = R X + t`; `focal`, `princpt` (2,) px of an
    image of `size` (width, height). float64, as they are written.
    """

    R: np.ndarray
    t: np.ndarray
    focal: np.ndarray
    princpt: np.ndarray
    size: tuple[int, int]

    @property
    def position(self) -> np.ndarray:
        """(3,) metres, where the camera stands."""
        centre: np.ndarray = -self.R.T @ self.t
        return centre

    def see(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points of the world -> of the camera, metres."""
        points_cam: np.ndarray = points @ self.R.T.astype(points.dtype) + self.t.astype(points.dtype)
        return points_cam

    def project(self, points_cam: np.ndarray) -> np.ndarray:
        """(..., 3) points of the camera, metres -> (..., 2) px; NaN at or behind the camera."""
        depth = np.where(points_cam[..., 2:] > 0, points_cam[..., 2:], np.nan)
        pixels: np.ndarray = points_cam[..., :2] / depth * self.focal + self.princpt
        return pixels


def look_at(position: np.ndarray, target: np.ndarray, *, roll: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """`R` (3, 3), `t` (3,) of a camera at `position` that has `target` in the middle; `roll` radians.

    Positions are (3,) metres. Raises ValueError where it would look straight up or down.
    """
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-6:
        raise ValueError("a camera cannot look straight up or down: which way is right is not defined")
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    cos, sin = np.cos(roll), np.sin(roll)
    R = np.stack([cos * right + sin * down, cos * down - sin * right, forward])
    return R, -R @ position


def ring_of_cameras(rng: np.random.Generator, count: int, size: tuple[int, int]) -> list[Viewpoint]:
    """Cameras in the corners of a motion capture room some five metres from its middle, as Human3.6M's."""
    cameras = []
    scale = min(size) / 1000
    for number in range(count):
        angle = 2 * np.pi * (number + 0.5) / count + rng.normal(0, 0.12)
        radius, height = rng.uniform(4.9, 5.7), rng.uniform(1.4, 1.75)
        position = np.array([radius * np.cos(angle), radius * np.sin(angle), height])
        target = np.array([*rng.normal(0, 0.12, 2), rng.uniform(0.85, 1.0)])
        R, t = look_at(position, target, roll=rng.normal(0, 0.01))
        focal = rng.normal(1147, 2.5) * scale + rng.normal(0, 1.0, 2) * scale
        princpt = np.array(size) / 2 + rng.normal(6, 6, 2) * scale
        cameras.append(Viewpoint(R, t, focal, princpt, size))
    return cameras


def dome_of_cameras(rng: np.random.Generator, count: int, size: tuple[int, int]) -> list[Viewpoint]:
    """Cameras all round and above a hand at the origin, some one metre away, as InterHand2.6M's."""
    cameras = []
    scale = min(size) / 334
    start = rng.uniform(0, 2 * np.pi)
    for number in range(count):
        azimuth = start + 2 * np.pi * number / count + rng.normal(0, 0.25)
        elevation = rng.uniform(-0.5, 1.0)
        direction = np.array(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
        )
        R, t = look_at(
            direction * rng.uniform(0.95, 1.25), rng.normal(0, 0.01, 3), roll=rng.uniform(-0.4, 0.4)
        )
        focal = np.full(2, rng.normal(1265, 12)) * scale + rng.normal(0, 0.5, 2) * scale
        princpt = np.array(size) / 2 + rng.normal(0, 6, 2) * scale
        cameras.append(Viewpoint(R, t, focal, princpt, size))
    return cameras
