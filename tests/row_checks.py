"""What the rows of a loaded release must hold, from the leaves as they were written."""

from __future__ import annotations

import numpy as np
from layouts import SIDES, Row

from neuralannot import PseudoGT
from neuralannot.parameters import human_model


def expected_params(model: str, leaf: dict) -> dict[str, np.ndarray]:
    """One leaf's numbers under smplx's names, absent parts zero."""
    if model in ("smpl", "mano"):
        pose = "body_pose" if model == "smpl" else "hand_pose"
        values = {"global_orient": leaf["pose"][:3], pose: leaf["pose"][3:]}
    else:
        names = {"root_pose": "global_orient", "body_pose": "body_pose", "lhand_pose": "left_hand_pose"}
        names |= {"rhand_pose": "right_hand_pose", "jaw_pose": "jaw_pose", "expr": "expression"}
        values = {names[name]: value for name, value in leaf.items() if name in names}
    values |= {"betas": leaf["shape"], "transl": leaf.get("trans", [0, 0, 0])}
    shapes = human_model(model).shapes
    return {
        name: np.array(values.get(name, np.zeros(shape)), np.float32).reshape(shape)
        for name, shape in shapes.items()
    }


def expected_valid(model: str, row: Row) -> dict[str, bool]:
    if model == "mano":
        return {f"{side}_hand": row.side == side for side in SIDES}
    if model == "smplx":
        parts = {"left_hand": ("lhand_pose", "lhand_valid"), "right_hand": ("rhand_pose", "rhand_valid")}
        parts |= {"face": ("jaw_pose", "face_valid")}
        valid = {p: pose in row.leaf and row.leaf.get(flag, True) for p, (pose, flag) in parts.items()}
        return {"body": True, **valid}
    return {"body" if model == "smpl" else "face": True}


def check_rows(gt: PseudoGT, rows: list[Row]) -> None:
    """Every column of every row is what the files say."""
    assert len(gt) == len(rows)
    assert gt.ids.tolist() == [row.id for row in rows]
    assert gt.ids.dtype == np.int64
    if rows and rows[0].key is not None:
        assert gt.keys == [row.key for row in rows]
    assert (gt.side is None) == (gt.model != "mano")
    camera = gt.camera
    assert set(gt.params) == set(human_model(gt.model).shapes)
    for number, row in enumerate(rows):
        if gt.side is not None:
            assert gt.side[number] == row.side
        for name, value in expected_params(gt.model, row.leaf).items():
            column = gt.params[name]
            assert column.dtype == np.float32
            np.testing.assert_array_equal(column[number], value)
        assert {part: bool(gt.valid[part][number]) for part in gt.valid} == expected_valid(gt.model, row)
        assert gt.gender[number] == row.leaf.get("gender", "neutral")
        np.testing.assert_allclose(camera.focal[number], row.camera.focal, rtol=1e-6)
        np.testing.assert_allclose(camera.princpt[number], row.camera.princpt, rtol=1e-6)
        R, t = row.camera.R or np.eye(3), row.camera.t or np.zeros(3)
        np.testing.assert_allclose(camera.R[number], R, atol=1e-6)
        np.testing.assert_allclose(camera.t[number], np.array(t) / row.camera.unit, atol=1e-5)
