"""`Request`: what is asked of a reader, and where the files of a data set are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuralannot.companions import find_beside
from neuralannot.joint_sets import JointSet

BODIES = ("smpl", "smplx")
# Where data sets keep their images below their folder, and their annotations.
_IMAGE_FOLDERS = ("images", "imageFiles", "images_1k", "data", ".")
_ANNOTATION_FOLDERS = (".", "annotations", "annotation", "json", "data")


@dataclass(frozen=True)
class Request:
    """The arguments of `read_samples`, checked for their kinds; see there for what they mean."""

    data_set: str
    folder: Path
    model: str
    images: Path | None = None
    split: str | None = None
    annotations: Path | None = None
    cameras: Path | None = None
    joints: Path | None = None
    subjects: tuple[int, ...] | None = None
    views: tuple[int, ...] | None = None
    every: int = 1
    min_joints: int = 1
    joint_set: str | JointSet | None = None
    name: str | None = None
    body_models: Path | None = None
    cache: bool = True

    def find(self, *names: str, what: str, given: Path | None = None) -> Path:
        """The file `given`, or the first of `names` that is in the folder or one of its usual subfolders.

        Raises FileNotFoundError that says which names were looked for and where.
        """
        if given is not None:
            if not given.is_file():
                raise FileNotFoundError(f"{given}: no such file for {self.data_set}'s {what}")
            return given
        for name in names:
            found = self._search(name)
            if found is not None:
                return found
        raise FileNotFoundError(
            f"{self.data_set}: no {what}: expected {' or '.join(names)} in {self.folder} or its "
            f"{', '.join(_ANNOTATION_FOLDERS[1:])}; put it there or pass {what}="
        )

    def has(self, name: str) -> bool:
        """Whether the file is in the folder or one of its usual subfolders."""
        return self._search(name) is not None

    def _search(self, name: str) -> Path | None:
        places = [self.folder / place for place in _ANNOTATION_FOLDERS]
        if self.split is not None:  # InterHand2.6M keeps each split's in a folder of its own
            places += [self.folder / place / self.split for place in _ANNOTATION_FOLDERS]
        return find_beside(tuple(places), name)

    def image_root(self, paths: np.ndarray) -> Path:
        """The image folder: `images`, or the usual subfolder in which the first of `paths` is.

        Where the image is in none of them, the first subfolder that is there, else the folder itself: the
        images may not be on this machine; `check_samples` says which are missing.
        """
        if self.images is not None:
            return self.images
        roots = [self.folder / place if place != "." else self.folder for place in _IMAGE_FOLDERS]
        if len(paths):
            for root in roots:
                if (root / str(paths[0])).is_file():
                    return root
        return next((root for root in roots[:3] if root.is_dir()), self.folder)


def number_tuple(name: str, values: Sequence[int] | int | None) -> tuple[int, ...] | None:
    """Numbers as a tuple. Raises ValueError for something else, and where there are none."""
    if values is None:
        return None
    numbers = (values,) if isinstance(values, (int, np.integer)) else tuple(values)
    if not numbers or not all(isinstance(v, (int, np.integer)) for v in numbers):
        raise ValueError(f"{name} must be one number or several, got {values!r}")
    return tuple(int(v) for v in numbers)
