"""`Samples`: what an annotator is trained on and what it annotates, whatever data set it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.cameras import Camera, stack_cameras
from neuralannot.joint_sets import JointSet
from neuralannot.parameters import SIDES

__all__ = ["REASONS", "Samples", "Skip", "concatenate"]

#: Why an annotation cannot be used: the whole vocabulary of `Skip.reason`.
REASONS = (
    "crowd",  # the annotation is of a group of people
    "no box",  # the data set marks the box, the hand or the face as not there, or gives none
    "box empty",  # no width or height, or not a number
    "box outside",  # nothing of it inside the image
    "no joints",  # no valid joint
    "few joints",  # fewer than asked for
    "no 3D joints",  # the joints file does not hold the frame
    "no camera",  # the camera file does not hold the camera
    "behind camera",  # every valid joint is at or behind the camera
    "no truth",  # 3DPW: the annotation holds no fitted parameters
)


@dataclass(frozen=True)
class Skip:
    """An annotation that cannot be used: its `id`, why (one of `REASONS`), and what exactly."""

    id: int
    reason: str
    detail: str = ""

    def __post_init__(self) -> None:
        if self.reason not in REASONS:
            raise ValueError(f"unknown reason {self.reason!r}; expected one of {', '.join(REASONS)}")


@dataclass(frozen=True, eq=False)
class Samples:
    """N crops to annotate, of one data set.

    Fields
    ------
    data_set: its name as in `catalog.py` ("Human3.6M"), or the user's.
    images: the image folder.
    image_path: (N,) str, relative to `images`.
    image_size: (N, 2) int64 width and height px, 0 where unknown.
    box_xywh: (N, 4) float32 px, as annotated; of hands the hand's, of faces the face's.
    ids: (N,) int64 annotation ids; the two hands of one annotation share theirs.
    keys: (N, K) int64, the key that the fit gets in the released layout; in flat layouts the id alone.
    joint_set: of the joints below; for hands the RIGHT hand's names whatever the side, in the same order.
    joints_2d: (N, J, 2) float32 px of the whole image, NaN = invalid. MoCap: `joints_cam` projected.
    joints_cam: (N, J, 3) float32 metres in the camera's frame, NaN = invalid; None in the wild.
    camera: N cameras of the whole images (MoCap): intrinsics, and world to camera; None in the wild.
    side: (N,) str "right" or "left" for hands, None otherwise.
    gender: (N,) str where the data set says it (3DPW), None otherwise.
    person: (N,) int64, whose body it is (a subject's number, say), -1 where that is not known; None where the
        data set does not say it.
    release: the release that the annotations are written as, e.g. "human36m-smpl"; "" for a layout of none.
    groups: the `{subject}` or `{split}` in the file names; rows carry the subject in `keys`.
    skipped: what could not be used.

    Raises ValueError where shapes do not fit together.
    """

    data_set: str
    images: Path
    image_path: np.ndarray
    image_size: np.ndarray
    box_xywh: np.ndarray
    ids: np.ndarray
    keys: np.ndarray
    joint_set: JointSet
    joints_2d: np.ndarray
    joints_cam: np.ndarray | None
    camera: Camera | None
    side: np.ndarray | None
    gender: np.ndarray | None = None
    person: np.ndarray | None = None
    release: str = ""
    groups: tuple[dict[str, str], ...] = ()
    skipped: tuple[Skip, ...] = ()

    def __post_init__(self) -> None:
        n, j = len(self.ids), len(self.joint_set)
        object.__setattr__(self, "images", Path(self.images))
        shapes: dict[str, tuple[int | None, ...]] = {
            "image_path": (n,),
            "image_size": (n, 2),
            "box_xywh": (n, 4),
            "ids": (n,),
            "keys": (n, None),
            "joints_2d": (n, j, 2),
            "joints_cam": (n, j, 3),
            "side": (n,),
            "gender": (n,),
            "person": (n,),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None and name in ("joints_cam", "side", "gender", "person"):
                continue
            got = np.shape(value)
            if len(got) != len(shape) or any(
                e is not None and e != g for e, g in zip(shape, got, strict=True)
            ):
                expected = tuple("K" if e is None else e for e in shape)
                raise ValueError(f"samples of {self.data_set}: {name} must be {expected}, got {got}")
        if self.camera is not None and len(self.camera) != n:
            raise ValueError(f"samples of {self.data_set}: {n} rows with {len(self.camera)} cameras")
        if (self.camera is None) != (self.joints_cam is None):
            raise ValueError(
                f"samples of {self.data_set}: joints_cam and camera go together; give both or none"
            )
        if self.side is not None and not np.isin(self.side, SIDES).all():
            raise ValueError(f"samples of {self.data_set}: side must be 'right' or 'left'")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_mocap(self) -> bool:
        """Whether rows have 3D joints and a calibrated camera."""
        return self.joints_cam is not None

    @property
    def valid(self) -> np.ndarray:
        """(N, J) bool: which joints are annotated."""
        valid: np.ndarray = np.isfinite(self.joints_2d if self.joints_cam is None else self.joints_cam).all(
            axis=-1
        )
        return valid

    def rows(self, index: np.ndarray | slice | Sequence[int]) -> Samples:
        """The samples at these rows (numbers, a slice or a mask), in that order; `skipped` stays whole."""
        if not isinstance(index, slice):
            index = np.asarray(index)
            if index.size == 0:
                index = index.astype(np.int64)
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                changed[field.name] = value[index]
            elif isinstance(value, Camera):
                changed[field.name] = value.rows(index)
        return replace(self, **changed)

    def skipped_by_reason(self) -> dict[str, int]:
        """How many annotations were left out, for each reason there was, in the order of `REASONS`."""
        counts = Counter(skip.reason for skip in self.skipped)
        return {reason: counts[reason] for reason in REASONS if reason in counts}


def concatenate(parts: Sequence[Samples]) -> Samples:
    """Rows of several parts of one data set, its subjects say, as one.

    Raises ValueError where there is no part, or where they are of different data sets, folders or joints.
    """
    if not parts:
        raise ValueError("no samples to put together")
    first = parts[0]
    for part in parts[1:]:
        for name in ("data_set", "images", "joint_set", "release", "is_mocap"):
            one, other = getattr(first, name), getattr(part, name)
            if one != other:
                raise ValueError(f"samples of different {name} cannot be one: {one!r:.80} and {other!r:.80}")
    if len(parts) == 1:
        return first
    changed: dict[str, Any] = {}
    for field in fields(first):
        values = [getattr(part, field.name) for part in parts]
        if all(isinstance(v, np.ndarray) for v in values):
            changed[field.name] = np.concatenate(values)
        elif all(isinstance(v, Camera) for v in values):
            camera = stack_cameras(values)
            sizes = [v.image_size for v in values]
            if all(s is not None for s in sizes):
                camera = replace(camera, image_size=np.concatenate([s for s in sizes if s is not None]))
            changed[field.name] = camera
        elif field.name in ("groups", "skipped"):
            changed[field.name] = tuple(x for v in values for x in v)
        elif any(isinstance(v, np.ndarray) for v in values):
            raise ValueError(f"samples of {first.data_set}: some parts have {field.name}, some have not")
    return replace(first, **changed)
