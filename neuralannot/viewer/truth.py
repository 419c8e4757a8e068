"""What the data set annotates of a row, and how far its fit is off, joint by joint."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

import numpy as np

from neuralannot.cameras import Camera
from neuralannot.joint_sets import JointSet
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.quality.joints import JointTargets, joint_targets
from neuralannot.train.placing import pose_joints

__all__ = ["Truth", "Truths"]


@dataclass(frozen=True, eq=False)
class Truth:
    """The annotated joints of a row.

    Fields
    ------
    in_world: whether `points` are (K, 3) metres in the world, rather than (K, 2) px of the image.
    points: NaN where a joint is not annotated.
    posed: (K, 3) the fit's joints of the same names, in the space of its file, metres; NaN where it has none.
    errors: (K,) metres, or px; NaN where either is missing.
    pixels: (K, 2) `posed` in the image, px; NaN without a camera.
    joint_set: the joints' names and bones.
    """

    in_world: bool
    points: np.ndarray
    posed: np.ndarray
    errors: np.ndarray
    pixels: np.ndarray
    joint_set: JointSet

    @property
    def unit(self) -> str:
        """`mm` or `px`."""
        return "mm" if self.in_world else "px"

    @property
    def shown_errors(self) -> np.ndarray:
        """(K,) `errors` in `unit`."""
        return self.errors * (1000 if self.in_world else 1)


class Truths:
    """The annotated joints of a file's rows; `problem` says why there are none, or is empty."""

    def __init__(self, gt: PseudoGT, body_models: str | os.PathLike[str] | None = None) -> None:
        self._gt, self._body_models = gt, body_models
        found = joint_targets(gt)
        self.problem = found if isinstance(found, str) else ""
        self._targets: JointTargets | None = None if isinstance(found, str) else found

    def of(self, row: int) -> Truth | None:
        """The joints of a row; None where the file has none (`problem`)."""
        targets = self._targets
        if targets is None:
            return None
        one = self._gt.rows([row])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of body models: said on the page
            posed = pose_joints(
                one.model,
                {name: one.params[name] for name in one.params},
                targets.joint_set,
                side=one.side,
                gender=one.gender,
                body_models=self._body_models,
            )[0]
        pixels = np.full((len(posed), 2), np.nan, np.float32)
        camera = one.camera
        if camera is not None:
            seen = posed[None] if one.space == "camera" else camera.world_to_camera(posed[None])
            pixels = camera.project(seen)[0]
        if targets.in_world:
            points = one.joints_world[0]
            errors = np.linalg.norm(posed - points, axis=-1)
        else:
            keypoints, valid = one.joints_2d, one.joints_2d_valid
            assert keypoints is not None
            assert valid is not None
            points = np.where(valid[0][:, None], keypoints[0], np.nan)
            errors = np.linalg.norm(pixels - points, axis=-1)
        return Truth(targets.in_world, points, posed, errors, pixels, targets.joint_set)


def in_image(truth: Truth, camera: Camera | None) -> np.ndarray:
    """(K, 2) px of the annotated joints, NaN where they have none; `camera`: the row's, from the world."""
    if not truth.in_world:
        return truth.points
    if camera is None:
        return np.full((len(truth.points), 2), np.nan)
    found: np.ndarray = camera.project(camera.world_to_camera(truth.points[None]))[0]
    return found
