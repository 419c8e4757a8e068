"""SMPL-H: its file, the open body in its layout, and how AMASS writes its parameters.

SMPL-H is SMPL's mesh with MANO's hands: 22 body joints and 15 of each hand, no face. `BodyModel` does not
know it; conversion does. Parameters have SMPL-X's names, hand poses relative to the mean hand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.body_models.files import ModelData
from neuralannot.conversion.correspondence import Correspondence
from neuralannot.safe_pickle import load_npz, load_pickle

SITE = "https://mano.is.tue.mpg.de (Extended SMPL+H model)"
SHAPES: Mapping[str, tuple[int, ...]] = {
    "global_orient": (3,),
    "body_pose": (21, 3),
    "left_hand_pose": (15, 3),
    "right_hand_pose": (15, 3),
    "betas": (10,),
    "transl": (3,),
}
_VERTICES, _JOINTS = 6890, 52
_FACE = (22, 23, 24)  # SMPL-X's jaw and eyes
_HEAD = 15


def find_smplh_file(folder: str | os.PathLike[str], gender: str) -> Path:
    """`smplh/SMPLH_MALE.pkl` (or `.npz`) or `smplh/male/model.npz` in `folder`, which may be `smplh` itself.

    Raises FileNotFoundError that names the file and the site.
    """
    root = Path(folder)
    for place in (root / "smplh", root / "SMPLH", root):
        for name in (f"SMPLH_{gender.upper()}.npz", f"SMPLH_{gender.upper()}.pkl", f"{gender}/model.npz"):
            if (place / name).is_file():
                return place / name
    raise FileNotFoundError(
        f"SMPLH_{gender.upper()}.pkl (or .npz, or {gender}/model.npz) not in {root} or {root / 'smplh'}; "
        f"register at {SITE}"
    )


def read_smplh(path: str | os.PathLike[str], dtype: type[np.floating] = np.float32) -> ModelData:
    """The arrays of a SMPL-H file, its shapes checked; `model` is `smplh`, shapes are the first 10.

    Raises ValueError that names the field where one is missing or of another shape, `RefusedPickleError`
    where the file asks for code to be run.
    """
    path = Path(path)
    members = load_npz(path) if path.suffix.lower() == ".npz" else load_pickle(path)
    if not isinstance(members, dict):
        raise ValueError(f"{path} holds a {type(members).__name__}, not a dict of arrays")
    parents = _array(path, members, "kintree_table", 2, _JOINTS)[0].astype(np.int64)
    parents[0] = -1  # files have the largest uint32
    if not (parents[1:] < np.arange(1, _JOINTS)).all() or parents[1:].min() < 0:
        raise ValueError(f"{path}: kintree_table must name each joint's parent before the joint")
    faces = _array(path, members, "f", None, 3).astype(np.int64)
    if not 0 <= faces.min() <= faces.max() < _VERTICES:
        raise ValueError(f"{path}: f must lie in 0..{_VERTICES - 1}")
    shapes = _array(path, members, "shapedirs", _VERTICES, 3, None)[:, :, :10]
    if shapes.shape[2] < 10:
        raise ValueError(f"{path}: shapedirs must have at least 10 columns, got {shapes.shape[2]}")
    return ModelData(
        "smplh",
        path,
        _array(path, members, "v_template", _VERTICES, 3).astype(dtype),
        shapes.astype(dtype),
        _array(path, members, "posedirs", _VERTICES, 3, 9 * (_JOINTS - 1)).astype(dtype),
        _array(path, members, "J_regressor", _JOINTS, _VERTICES).astype(dtype),
        _array(path, members, "weights", _VERTICES, _JOINTS).astype(dtype),
        parents,
        faces,
        hand_mean={
            side: _array(path, members, f"hands_mean{side[0]}", 45).astype(dtype)
            for side in ("left", "right")
        },
    )


def _array(path: Path, members: Mapping[Any, Any], key: str, *shape: int | None) -> np.ndarray:
    if key not in members:
        there = ", ".join(sorted(map(str, members))[:20])
        raise ValueError(f"{path} has no {key!r}, as SMPL-H files have; it has {there or 'nothing'}")
    value = members[key]
    array = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
    if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{path}: {key} must be ({wanted}), got {array.shape}")
    if array.dtype.kind not in "biuf" or not np.isfinite(array.astype(np.float64)).all():
        raise ValueError(f"{path}: {key} must hold finite numbers")
    return array


def open_smplh(smplx: ModelData, smpl: ModelData, to_smpl: Correspondence) -> ModelData:
    """The open body in SMPL-H's layout: the open SMPL-X on SMPL's vertices, its jaw and eyes the head's.

    Its shape codes are the open SMPL-X's.
    """
    kept = np.delete(np.arange(len(smplx.parents)), _FACE)
    number = np.full(len(smplx.parents), -1)
    number[kept] = np.arange(len(kept))
    matrix = to_smpl.matrix

    def mapped(values: np.ndarray) -> np.ndarray:
        turned: np.ndarray = (
            (matrix @ values.reshape(len(values), -1)).reshape(-1, *values.shape[1:]).astype(values.dtype)
        )
        return turned

    weights = mapped(smplx.weights)
    weights[:, _HEAD] += weights[:, list(_FACE)].sum(1)
    correctives = mapped(smplx.posedirs).reshape(len(weights), 3, -1, 9)[:, :, kept[1:] - 1]
    template, shapes = mapped(smplx.v_template), mapped(smplx.shapedirs)
    # SMPL-X's joints for every shape there is; some of the vertices it has them from are not SMPL's.
    whole = _linear(smplx.v_template, smplx.shapedirs)
    joints = smplx.J_regressor[kept].astype(np.float64) @ whole
    regressor = joints @ np.linalg.pinv(_linear(template, shapes))
    return replace(
        smplx,
        model="smplh",
        v_template=template,
        shapedirs=shapes,
        posedirs=correctives.reshape(len(weights), 3, -1),
        J_regressor=regressor,
        weights=weights[:, kept],
        parents=np.where(smplx.parents[kept] < 0, -1, number[smplx.parents[kept]]),
        faces=smpl.faces,
        exprdirs=None,
        lmk_faces_idx=None,
        lmk_bary_coords=None,
    )


def _linear(template: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """(V, 34): all that a regressor sees of a body: 1, its template, its shapes."""
    count = len(template)
    return np.concatenate([np.ones((count, 1)), template, shapes.reshape(count, -1)], 1).astype(np.float64)


def smplh_to_amass(params: Mapping[str, np.ndarray], hand_mean: Mapping[str, np.ndarray]) -> np.ndarray:
    """SMPL-H's parameters -> (N, 156) `poses` as AMASS has them: 52 rotations, the mean hand part of them.

    `hand_mean`: `left` and `right`, (45,) radians each, of the SMPL-H (or MANO) files.
    """
    n = len(params["global_orient"])
    parts = [params["global_orient"].reshape(n, 3), params["body_pose"].reshape(n, 63)]
    for side in ("left", "right"):
        parts.append(params[f"{side}_hand_pose"].reshape(n, 45) + hand_mean[side].reshape(45))
    return np.concatenate(parts, 1).astype(np.float32)


def smplh_from_amass(poses: np.ndarray, hand_mean: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `smplh_to_amass`: `global_orient`, `body_pose`, `left_hand_pose`, `right_hand_pose`.

    Raises ValueError for another shape than (N, 156).
    """
    if poses.ndim != 2 or poses.shape[1] != 3 * _JOINTS:
        raise ValueError(f"poses must be (N, {3 * _JOINTS}), as AMASS has SMPL-H's, got {poses.shape}")
    hands = {
        f"{side}_hand_pose": (poses[:, first : first + 45] - hand_mean[side].reshape(45))
        .reshape(-1, 15, 3)
        .astype(np.float32)
        for side, first in (("left", 66), ("right", 111))
    }
    return {
        "global_orient": poses[:, :3].astype(np.float32),
        "body_pose": poses[:, 3:66].reshape(-1, 21, 3).astype(np.float32),
        **hands,
    }
