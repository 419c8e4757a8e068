"""smplx itself, as the release's demos call it: the slow and trusted twin of the library's body models."""

from __future__ import annotations

import functools
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import smplx
import torch
from smplx.utils import Struct

import neuralannot

OPEN_FOLDER = Path(neuralannot.__file__).parent / "body_models" / "open"

# The fields of released leaves -> smplx's arguments, and those that the demos leave at zero.
_ARGUMENTS = {
    "smpl": {"betas": "shape", "transl": "trans"},
    "smplx": {
        "global_orient": "root_pose",
        "body_pose": "body_pose",
        "left_hand_pose": "lhand_pose",
        "right_hand_pose": "rhand_pose",
        "jaw_pose": "jaw_pose",
        "expression": "expr",
        "betas": "shape",
        "transl": "trans",
    },
    "mano": {"betas": "shape", "transl": "trans"},
    "flame": {
        "global_orient": "root_pose",
        "jaw_pose": "jaw_pose",
        "expression": "expr",
        "betas": "shape",
        "transl": "trans",
    },
}
_WIDTHS = {"lhand_pose": 45, "rhand_pose": 45, "jaw_pose": 3, "expr": 10, "trans": 3}
_AT_REST = {"smplx": ("leye_pose", "reye_pose"), "flame": ("neck_pose", "leye_pose", "reye_pose")}


def open_arrays(model: str, part: str = "neutral") -> dict[str, np.ndarray]:
    """The arrays of a file of the open body."""
    with np.load(OPEN_FOLDER / model / f"{model}_{part}.npz".upper().replace("NPZ", "npz")) as file:
        return dict(file)


def layer_of(model: str, arrays: dict[str, Any], side: str | None = None) -> torch.nn.Module:
    """smplx's layer on these arrays, with the options of the release's demos."""
    if model == "smpl":
        return smplx.SMPL("", data_struct=Struct(**arrays))
    hands = {"use_pca": False, "flat_hand_mean": False}
    if model == "mano":
        return smplx.MANO("", data_struct=Struct(**arrays), is_rhand=side == "right", **hands)
    with tempfile.TemporaryDirectory() as folder:
        if model == "smplx":
            path = Path(folder) / "SMPLX_NEUTRAL.npz"
            np.savez(path, **arrays)
            return smplx.SMPLX(str(path), use_face_contour=False, **hands)
        embedding = {"lmk_face_idx": arrays["lmk_faces_idx"], "lmk_b_coords": arrays["lmk_bary_coords"]}
        (Path(folder) / "FLAME_NEUTRAL.pkl").write_bytes(pickle.dumps(arrays))
        (Path(folder) / "flame_static_embedding.pkl").write_bytes(pickle.dumps(embedding))
        return smplx.FLAME(folder, use_face_contour=False)


@functools.cache
def open_layer(model: str, side: str | None = None) -> torch.nn.Module:
    """smplx's layer on the open body."""
    return layer_of(model, open_arrays(model, side or "neutral"), side)


def arguments_of(model: str, leaves: list[dict]) -> dict[str, np.ndarray]:
    """Released leaves -> smplx's arguments, (B, width) float64; absent fields zero."""
    arguments = {}
    if model in ("smpl", "mano"):
        pose = np.array([leaf["pose"] for leaf in leaves])
        arguments = {"global_orient": pose[:, :3]}
        arguments["body_pose" if model == "smpl" else "hand_pose"] = pose[:, 3:]
    for argument, name in _ARGUMENTS[model].items():
        arguments[argument] = np.array([leaf.get(name, [0.0] * _WIDTHS.get(name, 0)) for leaf in leaves])
    for argument in _AT_REST.get(model, ()):
        arguments[argument] = np.zeros((len(leaves), 3))
    return arguments


def plain_forward(layer: torch.nn.Module, arguments: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(B, V, 3) vertices and (B, J, 3) joints by smplx, float64 for the arithmetic that follows."""
    with torch.no_grad():
        out = layer(**{k: torch.tensor(v, dtype=torch.float32) for k, v in arguments.items()})
    return out.vertices.numpy().astype(float), out.joints.numpy().astype(float)
