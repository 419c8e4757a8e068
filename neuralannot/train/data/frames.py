"""MoCap: the 3D joints and the camera of each annotation, from the frame and camera keys of its image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuralannot.cameras import Camera, stack_cameras
from neuralannot.joints_gt import read_joints
from neuralannot.key_index import KeyIndex
from neuralannot.store import Table, cached_table
from neuralannot.train.data.sieve import Unusable


@dataclass(frozen=True, eq=False)
class Frames:
    """N annotations' world joints seen by their cameras.

    `joints_cam` (N, J, 3) metres, `joints_2d` (N, J, 2) px, NaN where invalid; `unusable`: the rows whose
    camera or frame is in no file. Their cameras stand in for none.
    """

    joints_cam: np.ndarray
    joints_2d: np.ndarray
    camera: Camera
    unusable: tuple[Unusable, ...]


def world_joints(path: Path, data_set: str, subject: int | None, *, cache: bool = True) -> Table:
    """`read_joints`, kept beside the file as the core keeps it."""
    return cached_table(path, lambda: (read_joints(path, data_set, subject), {}), key="joints", cache=cache)


def see_joints(
    joints: Mapping[str, np.ndarray] | Table,
    cameras: Mapping[tuple[int, ...], Camera],
    keys: np.ndarray,
    camera_keys: np.ndarray,
    image_size: np.ndarray,
) -> Frames:
    """The joints of each row's frame in its camera's frame and in its image.

    `joints`: columns `joint/key` (F, K) and `joint/world` (F, J, 3) metres; `cameras`: by key, a row each;
    `keys` (N, K), `camera_keys` (N, C): the frame and the camera of each row.
    """
    world, rows = joints["joint/world"], KeyIndex(joints["joint/key"]).first(keys)
    taken = world[rows] if len(world) else np.zeros((len(keys), *world.shape[1:]), np.float32)
    points = np.where((rows >= 0)[:, None, None], taken, np.float32(np.nan))
    camera, found = _cameras_of(cameras, camera_keys, image_size)
    points = camera.world_to_camera(points.astype(np.float32))
    points[~found] = np.nan
    unusable = (
        Unusable(~found, "no camera", lambda row: f"camera {_spelled(camera_keys[row])}"),
        Unusable(rows < 0, "no 3D joints", lambda row: f"frame {_spelled(keys[row])}"),
    )
    return Frames(points, camera.project(points), camera, unusable)


def _cameras_of(
    cameras: Mapping[tuple[int, ...], Camera], keys: np.ndarray, image_size: np.ndarray
) -> tuple[Camera, np.ndarray]:
    """The camera of each row, and whether there is one."""
    width = keys.shape[1]
    known = np.array(list(cameras), np.int64).reshape(-1, width)
    rows = KeyIndex(known).first(keys)
    # A camera at the origin stands in for one that is not there; its rows are taken out afterwards.
    none = Camera.from_intrinsics(np.ones((1, 2)), np.ones((1, 2)))
    stack = stack_cameras([*cameras.values(), none])
    camera = stack.rows(rows)
    return Camera(camera.focal, camera.princpt, camera.R, camera.t, np.array(image_size)), rows >= 0


def _spelled(key: np.ndarray) -> str:
    return "/".join(map(str, key.tolist()))


def wanted_frames(
    keys: np.ndarray,
    camera_keys: np.ndarray,
    *,
    every: int = 1,
    views: tuple[int, ...] | None = None,
    subjects: tuple[int, ...] | None = None,
) -> np.ndarray:
    """The rows (M,) of every so many frames, counted by the frame's number, of these cameras and subjects."""
    wanted = keys[:, -1] % every == 0
    if views is not None:
        wanted &= np.isin(camera_keys[:, -1], views)
    if subjects is not None:
        wanted &= np.isin(keys[:, 0], subjects)
    return np.flatnonzero(wanted)
