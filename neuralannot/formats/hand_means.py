"""Hands about the flat hand, as AMASS and BEDLAM have them, and about the mean hand, as the releases do."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np

from neuralannot.pseudo_gt import PseudoGT

HANDS = ("left", "right")


def flat_hand_poses(gt: PseudoGT, body_models: str | os.PathLike[str] | None) -> dict[str, np.ndarray]:
    """`left` and `right` (N, 45) float32: SMPL-X's hand poses plus the mean hand of each row's model."""
    from neuralannot.bodies import model_groups, model_on

    poses = {side: gt.params[f"{side}_hand_pose"].reshape(len(gt), 45).copy() for side in HANDS}
    for gender, _, rows in model_groups(gt):
        source = model_on("smplx", body_models, gender, None).source
        for side in HANDS:
            poses[side][rows] += mean_hand(Path(source), side)
    return poses


@functools.lru_cache(maxsize=8)
def mean_hand(source: Path, side: str) -> np.ndarray:
    """(45,) float32 radians, of an SMPL-X file."""
    from neuralannot.body_models.files import read_model_file

    return read_model_file(source, "smplx").hand_mean[side].reshape(45).astype(np.float32)
