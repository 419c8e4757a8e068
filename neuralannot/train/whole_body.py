"""Body, hands and face of the same people merged into SMPL-X fits, as NeuralAnnot's section 4 does.

Hand poses, jaw and expression are compatible with SMPL-X and taken over. A hand's global rotation becomes the
wrist's: `inverse(elbow's global rotation) @ hand's global rotation`. Root, body pose, shape, translation and
camera stay the body's. Every part has a virtual camera of its own; their axes are taken as parallel, as in
the release (the axes of a person's crops differ by two degrees at most).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.key_index import KeyIndex
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.released import pseudo_gt_of

__all__ = ["WholeBodies", "local_wrists", "merge_whole_body"]

# SMPL-X's joints from the first after the root down to the elbow, and the wrist, as in body_pose: joint k is
# row k - 1.
_TO_ELBOW = {"left": (2, 5, 8, 12, 15, 17), "right": (2, 5, 8, 13, 16, 18)}
_WRIST = {"left": 19, "right": 20}
_HANDS = ("left", "right")


@dataclass(frozen=True, eq=False)
class WholeBodies:
    """N merged fits, and what was merged.

    Fields
    ------
    gt: the fits, a row a body, in the bodies' order; `valid` says which parts were there.
    wrist_angle: (N, 2) float32 radians: how far the left and the right wrist are turned from rest, NaN where
        the body has no hand.
    limit: the angle in radians above which a wrist is counted as implausible. It is kept, as the paper does.
    hands_without_body: (M, 2) int64 annotation id and side (0 left, 1 right) of hands that are in no row.
    faces_without_body: (M,) int64 annotation ids of faces that are in no row.
    """

    gt: PseudoGT
    wrist_angle: np.ndarray
    limit: float
    hands_without_body: np.ndarray
    faces_without_body: np.ndarray

    def __len__(self) -> int:
        return len(self.gt)

    @property
    def implausible(self) -> np.ndarray:
        """(N, 2) bool: the left and right wrists that are turned further than `limit`."""
        with np.errstate(invalid="ignore"):
            return self.wrist_angle > self.limit

    def save(self, path: str | Path) -> None:
        """Write the `MSCOCO_train_SMPLX_all_NeuralAnnot.json` layout; see `PseudoGT.save`."""
        self.gt.save(path)

    def __str__(self) -> str:
        left, right, face = (int(self.gt.valid[p].sum()) for p in ("left_hand", "right_hand", "face"))
        wrists, degrees = self.implausible.sum(axis=0), np.degrees(self.limit)
        return "\n".join(
            (
                f"{len(self)} bodies: {left} with a left hand, {right} with a right one, {face} with a face",
                f"wrists turned more than {degrees:.0f} degrees, kept: {wrists[0]} left, {wrists[1]} right",
                f"left out, no body of their id: {len(self.hands_without_body)} hands, "
                f"{len(self.faces_without_body)} faces",
            )
        )


def local_wrists(
    global_orient: np.ndarray, body_pose: np.ndarray, hand_orient: np.ndarray, side: str
) -> np.ndarray:
    """(N, 3) float32 axis-angle: the wrists' `body_pose` that gives hands these global rotations.

    `global_orient` (N, 3) and `body_pose` (N, 21, 3): SMPL-X's; `hand_orient` (N, 3): the hands' global
    rotations, in the frame of the body's; `side`: `left` or `right`. Raises ValueError for another side.
    """
    from scipy.spatial.transform import Rotation

    if side not in _TO_ELBOW:
        raise ValueError(f"side must be 'left' or 'right', got {side!r}")
    elbow = _rotation(Rotation, global_orient)
    for joint in _TO_ELBOW[side]:
        elbow = elbow * _rotation(Rotation, body_pose[:, joint])
    wrists: np.ndarray = (
        (elbow.inv() * _rotation(Rotation, hand_orient)).as_rotvec().astype(np.float32).reshape(-1, 3)
    )
    return wrists


def merge_whole_body(
    body: PseudoGT,
    hands: PseudoGT | None = None,
    face: PseudoGT | None = None,
    *,
    release: str | None = None,
    limit: float = np.pi / 2,
) -> WholeBodies:
    """SMPL-X bodies with the MANO hands and FLAME faces of the same annotation ids.

    Bodies without a hand or face keep their wrist, and have that part zero and not valid; so have those whose
    hand or face is marked not valid. Hands and faces of the body's own file are not used. Hands and faces
    whose id has no body are left out and listed. `release`: the layout to write, `body.release` where None
    (`mscoco-smplx` and `mpii-smplx` write the same leaves).

    Raises ValueError for another model, fits that are in world space or without annotation ids, or an id (and
    side) that is there twice.
    """
    for gt, model, name in ((body, "smplx", "body"), (hands, "mano", "hands"), (face, "flame", "face")):
        if gt is not None:
            _check(gt, model, name)
    ids = body.ids
    params = {name: np.array(values) for name, values in body.params.items()}
    valid = {}
    angle = np.full((len(ids), 2), np.nan, np.float32)
    lost_hands = []
    for column, side in enumerate(_HANDS):
        params[f"{side}_hand_pose"][:] = 0
        rows, of_hand, lost = _partners(ids, hands, side)
        valid[f"{side}_hand"] = np.isin(np.arange(len(ids)), rows)
        lost_hands.append(np.column_stack([lost, np.full(len(lost), column)]))
        if hands is None or not len(rows):
            continue
        params[f"{side}_hand_pose"][rows] = hands.params["hand_pose"][of_hand]
        wrist = local_wrists(
            params["global_orient"][rows],
            params["body_pose"][rows],
            hands.params["global_orient"][of_hand],
            side,
        )
        params["body_pose"][rows, _WRIST[side]] = wrist
        angle[rows, column] = np.linalg.norm(wrist, axis=1)
    for name in ("jaw_pose", "expression"):
        params[name][:] = 0
    rows, of_face, lost_faces = _partners(ids, face, None)
    valid["face"] = np.isin(np.arange(len(ids)), rows)
    if face is not None and len(rows):
        for name in ("jaw_pose", "expression"):
            params[name][rows] = face.params[name][of_face]
    camera = body.require_camera() if body.catalogued.camera == "leaf" else None
    gt = pseudo_gt_of(
        release or body.release,
        params,
        ids=ids,
        gender=body.gender,
        focal=None if camera is None else camera.focal,
        princpt=None if camera is None else camera.princpt,
        valid=valid,
        groups=body.companions.groups,
        space="camera",
    )
    return WholeBodies(gt, angle, float(limit), np.concatenate(lost_hands).astype(np.int64), lost_faces)


def _rotation(kind: Any, values: np.ndarray) -> Any:
    return kind.from_rotvec(np.asarray(values, np.float64).reshape(-1, 3))


def _check(gt: PseudoGT, model: str, name: str) -> None:
    if gt.model != model:
        raise ValueError(f"{name} must be {model} fits, got {gt.release}, which are {gt.model}'s")
    if gt.space != "camera":
        raise ValueError(
            f"{name}: {gt.release} is in {gt.space} space; only fits of one image, in their cameras' space, "
            "are merged (to_camera_space() moves them)"
        )
    keys = gt.ids[:, None]  # raises where there are none
    if gt.side is not None:
        keys = np.column_stack([keys, gt.side == "left"])
    unique, count = np.unique(keys, axis=0, return_counts=True)
    if (count > 1).any():
        raise ValueError(
            f"{name}: annotation {unique[count > 1][0][0]} is in more than one row; merge one fit"
        )


def _partners(
    ids: np.ndarray, part: PseudoGT | None, side: str | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of bodies that have a valid part, the part's rows, and the ids of parts without a body."""
    none = np.zeros(0, np.int64)
    if part is None:
        return none, none, none
    usable = part.valid["face" if side is None else f"{side}_hand"]
    of_part = np.flatnonzero(usable if side is None or part.side is None else usable & (part.side == side))
    part_ids = part.ids[of_part]
    rows = KeyIndex(ids[:, None]).first(part_ids[:, None])
    return rows[rows >= 0], of_part[rows >= 0], np.array(part_ids[rows < 0], np.int64)
