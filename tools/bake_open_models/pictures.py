"""Pictures of the open body before and after a change.

    python -m tools.bake_open_models.pictures BEFORE AFTER OUT.png

BEFORE and AFTER are folders of model files. Upper rows are of BEFORE. Drawn with the library's own renderer.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from neuralannot.render import render_overlay
from tools.bake_open_models.models import Arrays
from tools.bake_open_models.packing import FILES, read_npz
from tools.bake_open_models.trees import TREES
from tools.bake_open_models.weak_spots import posed

_SIZE, _FOCAL = 420, 3000.0
Turns = Mapping[str, tuple[float, float, float]]


def view(
    kind: str,
    model: Arrays,
    turns: Turns,
    *,
    middle: tuple[float, float, float],
    across: float,
    yaw: float = 0,
) -> np.ndarray:
    """(420, 420, 3) uint8 of a posed body from the front, turned by `yaw` degrees, `across` metres wide
    around `middle`, relative to the first joint."""
    joints = TREES[kind].joints
    places = posed(model, {joints.index(name): degrees for name, degrees in turns.items()})
    places = places - model["J"][0].astype(np.float64) - np.asarray(middle)
    places = places @ Rotation.from_euler("y", yaw, degrees=True).as_matrix().T
    distance = _FOCAL * across / _SIZE
    seen = (places * [1, -1, -1] + [0, 0, distance]).astype(np.float32)
    white = np.full((_SIZE, _SIZE, 3), 255, np.uint8)
    faces = model["f"].astype(np.int64)
    centre = (_SIZE / 2, _SIZE / 2)
    return render_overlay(white, [seen], [faces], (_FOCAL, _FOCAL), centre, opacity=1.0)


def row_of(folder: Path) -> np.ndarray:
    """The weak spots of the files below a folder, side by side."""
    smpl, flame, hand = (
        read_npz(folder / FILES[kind, "neutral"]) for kind in ("smpl", "flame", "mano_right")
    )
    down = {"L_shoulder": (0.0, 0.0, -65.0), "R_shoulder": (0.0, 0.0, 65.0)}
    open_mouth = {"jaw": (25.0, 0.0, 0.0)}
    chest, mouth = (0.0, 0.32, 0.0), (0.0, 0.02, 0.1)
    tiles = [
        view("smpl", smpl, down, middle=chest, across=0.75),
        view("smpl", smpl, down, middle=chest, across=0.75, yaw=180),
        view("flame", flame, open_mouth, middle=mouth, across=0.24),
        view("flame", flame, open_mouth, middle=mouth, across=0.24, yaw=-40),
        view("mano_right", hand, {"R_wrist": (90.0, 0.0, 0.0)}, middle=(-0.075, 0.0, 0.0), across=0.28),
    ]
    return np.concatenate(tiles, axis=1)


def people(folder: Path) -> np.ndarray:
    """Neutral, female and male bodies side by side."""
    models = {gender: read_npz(folder / FILES["smpl", gender]) for gender in ("neutral", "female", "male")}
    down = {"L_shoulder": (0.0, 0.0, -55.0), "R_shoulder": (0.0, 0.0, 55.0)}
    views = [(gender, yaw) for gender in models for yaw in (0.0, 50.0)]
    tiles = [
        view("smpl", models[gender], down, middle=(0.0, -0.1, 0.0), across=2.0, yaw=yaw)
        for gender, yaw in views
    ]
    return np.concatenate([tile[:, 90:-90] for tile in tiles], axis=1)


def main(before: str, after: str, out: str) -> None:
    rows = np.concatenate([row_of(Path(before)), row_of(Path(after))])
    cv2.imwrite(out, cv2.cvtColor(rows, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main(*sys.argv[1:])
