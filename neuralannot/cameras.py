"""Cameras: world to camera, camera to pixels, resizing and cropping; and the camera files of the releases.

`X_cam = R X_world + t`; the camera looks along +z, x to the right, y down. Pixel coordinates are those of
the data sets' annotations and of OpenCV: the centre of the top left pixel is (0, 0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")


@dataclass(frozen=True, eq=False)
class Camera:
    """N pinhole cameras.

    `focal`, `princpt`: (N, 2) px; `R`: (N, 3, 3); `t`: (N, 3) metres; all float32. `image_size`: (N, 2) width
    and height px of the images that the intrinsics belong to, None where that is not known.
    Raises ValueError where shapes do not fit together or a focal length is not positive.
    """

    focal: np.ndarray
    princpt: np.ndarray
    R: np.ndarray
    t: np.ndarray
    image_size: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.focal)
        shapes = {"focal": (n, 2), "princpt": (n, 2), "R": (n, 3, 3), "t": (n, 3)}
        for name, shape in shapes.items():
            value = np.asarray(getattr(self, name), np.float32)
            if value.shape != shape:
                raise ValueError(f"camera {name} must be {shape}, got {value.shape}")
            object.__setattr__(self, name, value)
        if self.image_size is not None and np.shape(self.image_size) != (n, 2):
            raise ValueError(f"camera image_size must be {(n, 2)}, got {np.shape(self.image_size)}")
        if not (self.focal > 0).all():
            raise ValueError(f"camera focal must be positive, got {self.focal.min()}")

    @classmethod
    def from_intrinsics(
        cls, focal: np.ndarray, princpt: np.ndarray, image_size: np.ndarray | None = None
    ) -> Camera:
        """Cameras at the origin: `focal`, `princpt` (N, 2) px."""
        n = len(focal)
        R = np.tile(np.eye(3, dtype=np.float32), (n, 1, 1))
        return cls(np.asarray(focal), np.asarray(princpt), R, np.zeros((n, 3), np.float32), image_size)

    def __len__(self) -> int:
        return len(self.focal)

    @property
    def K(self) -> np.ndarray:
        """(N, 3, 3) intrinsic matrices."""
        K = np.zeros((len(self), 3, 3), np.float32)
        K[:, 0, 0], K[:, 1, 1], K[:, 2, 2] = self.focal[:, 0], self.focal[:, 1], 1
        K[:, :2, 2] = self.princpt
        return K

    def rows(self, index: np.ndarray | slice | Sequence[int]) -> Camera:
        """The cameras at these rows."""
        size = None if self.image_size is None else self.image_size[index]
        return Camera(self.focal[index], self.princpt[index], self.R[index], self.t[index], size)

    def world_to_camera(self, points: Array) -> Array:
        """(N, P, 3) points in the world -> in the cameras' frames, metres; numpy or torch as given."""
        self._check_points(points, 3)
        R, t = _like(self.R, points), _like(self.t, points)
        moved: Array = points @ R.swapaxes(-1, -2) + t[:, None]
        return moved

    def camera_to_world(self, points: Array) -> Array:
        """The inverse of `world_to_camera`."""
        self._check_points(points, 3)
        R, t = _like(self.R, points), _like(self.t, points)
        moved: Array = (points - t[:, None]) @ R
        return moved

    def project(self, points_cam: Array) -> Array:
        """(N, P, 3) camera-space points, metres -> (N, P, 2) px. Points at or behind the camera are NaN."""
        self._check_points(points_cam, 3)
        focal, princpt = _like(self.focal, points_cam), _like(self.princpt, points_cam)
        depth = points_cam[..., 2:]
        nan = float("nan")
        if isinstance(points_cam, np.ndarray):
            depth = np.where(depth > 0, depth, np.asarray(nan, points_cam.dtype))
        else:
            depth = depth.where(depth > 0, depth.new_tensor(nan))
        pixels: Array = points_cam[..., :2] / depth * focal[:, None] + princpt[:, None]
        return pixels

    def resized(self, image_size: Sequence[int] | np.ndarray) -> Camera:
        """The same cameras for images resized to `image_size` (2,) or (N, 2) width and height px.

        Raises ValueError where the cameras do not know the size they belong to.
        """
        if self.image_size is None:
            raise ValueError("cameras without image_size cannot be resized; give Camera(..., image_size=)")
        size = np.broadcast_to(np.asarray(image_size), self.image_size.shape)
        return replace(self.scaled(size / self.image_size), image_size=np.array(size, np.int64))

    def scaled(self, factor: float | np.ndarray) -> Camera:
        """Intrinsics times `factor`: a number, (2,) for x and y, or (N, 2).

        Pixel coordinates scale with the image, `princpt * factor`, as the data sets' own resized cameras do.
        """
        factor = np.broadcast_to(np.asarray(factor, np.float64), self.focal.shape)
        size = None if self.image_size is None else np.rint(self.image_size * factor).astype(np.int64)
        return replace(self, focal=self.focal * factor, princpt=self.princpt * factor, image_size=size)

    def cropped(self, box_xywh: np.ndarray) -> Camera:
        """The cameras of crops: `box_xywh` (4,) or (N, 4) px; the box's corner pixel becomes pixel (0, 0)."""
        box = np.broadcast_to(np.asarray(box_xywh, np.float32), (len(self), 4))
        size = np.rint(box[:, 2:]).astype(np.int64)
        return replace(self, princpt=self.princpt - box[:, :2], image_size=size)

    def check_image(self, width: int, height: int) -> None:
        """Raise ValueError where an image is not of the size that the intrinsics belong to."""
        if self.image_size is None:
            return
        known = (self.image_size > 0).all(axis=1)
        wrong = np.flatnonzero(known & (self.image_size != [width, height]).any(axis=1))
        if len(wrong):
            w, h = self.image_size[wrong[0]]
            raise ValueError(
                f"the image is {width}x{height} px, its camera belongs to {w}x{h}; "
                f"use the camera's resized(({width}, {height})), or the image that was annotated"
            )

    def _check_points(self, points: Any, last: int) -> None:
        if points.ndim != 3 or points.shape[0] != len(self) or points.shape[2] != last:
            raise ValueError(f"points must be ({len(self)}, P, {last}), got {tuple(points.shape)}")


def _like(values: np.ndarray, points: Any) -> Any:
    """`values` as the kind of array, dtype and device that `points` has."""
    if isinstance(points, np.ndarray):
        return values.astype(points.dtype, copy=False)
    import torch

    return torch.tensor(values).to(points)  # copies: mapped columns are read-only, which torch warns about


def read_cameras(
    path: str | Path, data_set: str, subject: int | None = None
) -> dict[tuple[int, ...], Camera]:
    """A released camera file -> camera by its keys, one row each. Files hold millimetres; cameras metres.

    Human3.6M (`[cam]`: R, t, f, c) gives `(subject, cam)`; MPI-INF-3DHP (`[subject][seq][cam]`: R, t, focal,
    princpt) `(subject, seq, cam)`; InterHand2.6M (`[capture]`: campos, camrot, focal, princpt, each `[cam]`;
    t = -R campos) `(capture, cam)`. Raises ValueError that names file, camera and field for what is missing
    or of the wrong shape, FileNotFoundError.
    """
    import json

    path = Path(path)
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not a camera file: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a camera file: expected an object, got {type(content).__name__}")
    cameras: dict[tuple[int, ...], Camera] = {}
    if data_set == "Human3.6M":
        if subject is None:
            raise ValueError(f"{path}: a Human3.6M camera file holds one subject's; say which with subject=")
        for cam, entry in content.items():
            cameras[subject, _number(path, cam)] = _camera(path, (cam,), entry, "f", "c")
    elif data_set == "MPI-INF-3DHP":
        for s, seq, cam, entry in _nested(path, content, 3):
            key = (_number(path, s), _number(path, seq), _number(path, cam))
            cameras[key] = _camera(path, (s, seq, cam), entry, "focal", "princpt")
    elif data_set == "InterHand2.6M":
        for capture, entry in content.items():
            fields = {name: _need(path, (capture,), entry, name) for name in _INTERHAND_FIELDS}
            for name, by_camera in fields.items():
                if not isinstance(by_camera, Mapping):
                    raise ValueError(
                        f"{path}: camera {capture}: {name!r} must be an object, got {by_camera!r:.60}"
                    )
            for cam in fields["campos"]:
                one = {name: by_camera.get(cam) for name, by_camera in fields.items()}
                R = _rotation(path, (capture, cam), one, "camrot")
                one |= {"R": R, "t": -R @ _array(path, (capture, cam), one, "campos", (3,))}
                cameras[_number(path, capture), _number(path, cam)] = _camera(
                    path, (capture, cam), one, "focal", "princpt"
                )
    else:
        raise ValueError(f"{data_set} has no camera file; its cameras are in the annotations")
    return cameras


_ROTATION_TOLERANCE = 1e-2
_INTERHAND_FIELDS = ("campos", "camrot", "focal", "princpt")


def camera_of_image(path: str, image: Mapping[str, Any]) -> Camera:
    """3DPW: the `cam_param` of an annotation file's image: `focal`, `princpt` px; `R`, `t` (m) if there."""
    entry = image.get("cam_param")
    name = (f"image {image.get('id')}", "cam_param")
    if not isinstance(entry, Mapping):
        raise ValueError(f"{path}: {name[0]}: no 'cam_param'; expected focal, princpt and, if any, R, t")
    focal = _array(path, name, entry, "focal", (2,))
    princpt = _array(path, name, entry, "princpt", (2,))
    R, t = np.eye(3), np.zeros(3)
    if "R" in entry or "t" in entry:
        R, t = _rotation(path, name, entry, "R"), _array(path, name, entry, "t", (3,))
    return Camera(focal[None], princpt[None], R[None], t[None])


def stack_cameras(cameras: Sequence[Camera]) -> Camera:
    """All rows of several cameras as one, `image_size` left out."""
    if not cameras:
        return Camera.from_intrinsics(np.ones((0, 2)), np.ones((0, 2)))
    names = ("focal", "princpt", "R", "t")
    return Camera(*(np.concatenate([getattr(c, name) for c in cameras]) for name in names))


def _nested(path: Path, content: Any, depth: int) -> list[tuple[Any, ...]]:
    if depth == 0:
        return [(content,)]
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a camera file: expected an object, got {type(content).__name__}")
    return [(k, *rest) for k, value in content.items() for rest in _nested(path, value, depth - 1)]


def _camera(path: Path, name: tuple[str, ...], entry: Any, focal: str, princpt: str) -> Camera:
    t = _array(path, name, entry, "t", (3,)) / 1000  # file: mm -> m
    intrinsics = [_array(path, name, entry, field, (2,)) for field in (focal, princpt)]
    R = _rotation(path, name, entry, "R")
    try:
        return Camera(*(value[None] for value in (*intrinsics, R, t)))
    except ValueError as error:
        raise ValueError(f"{path}: camera {'/'.join(name)}: {error}") from None


def _need(path: str | Path, name: tuple[str, ...], entry: Any, field: str) -> Any:
    if not isinstance(entry, Mapping) or entry.get(field) is None:
        found = ", ".join(map(str, entry)) if isinstance(entry, Mapping) else repr(entry)
        raise ValueError(f"{path}: camera {'/'.join(name)}: no {field!r}, got {found:.60}")
    return entry[field]


def _array(
    path: str | Path, name: tuple[str, ...], entry: Any, field: str, shape: tuple[int, ...]
) -> np.ndarray:
    value = _need(path, name, entry, field)
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{path}: camera {'/'.join(name)}: {field!r} must hold numbers") from None
    if array.shape != shape and array.size == int(np.prod(shape)):
        array = array.reshape(shape)  # t as (3, 1) and R as 9 numbers are seen too
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(
            f"{path}: camera {'/'.join(name)}: {field!r} must be {shape} of finite numbers, got {value!r:.60}"
        )
    return array


def _rotation(path: str | Path, name: tuple[str, ...], entry: Any, field: str) -> np.ndarray:
    R = _array(path, name, entry, field, (3, 3))
    if np.abs(R @ R.T - np.eye(3)).max() > _ROTATION_TOLERANCE or np.linalg.det(R) < 0:
        raise ValueError(
            f"{path}: camera {'/'.join(name)}: {field!r} must be a rotation, got {R.round(3).tolist()}"
        )
    return R


def _number(path: Path, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{path}: key {text!r} is not a camera's number") from None
