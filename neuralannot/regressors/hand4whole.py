"""`Hand4WholeDataset`: the samples of Hand4Whole's data set classes: SMPL-X with the boxes of hands and face.

Conventions of github.com/mks0601/Hand4Whole_RELEASE (Moon et al., CVPRW 2022), and of OSX, which kept them.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from neuralannot.formats.pictured import require_model
from neuralannot.joint_sets import JOINT_SETS, mirror_index
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.regressors.augmentation import Augmentation, Draw, draw_pose2pose
from neuralannot.regressors.crop import cut_crop
from neuralannot.regressors.own_joints import BODY_ALIASES, OwnJoints, own_joints
from neuralannot.regressors.part_joints import WHOLE_BODY
from neuralannot.regressors.pose2pose import (
    PICTURE_FIELDS,
    Targets,
    Triple,
    checked_split,
    columns_of,
    cropped_rows,
    picture,
    shape_target,
    turned_parameters,
)
from neuralannot.regressors.rows import RegressorRows, require_picture_size

__all__ = ["HEATMAP_SHAPE", "INPUT_SHAPE", "Hand4WholeDataset"]

#: Height and width px of the picture; depth, height and width of the heatmap in whose units joints are.
INPUT_SHAPE, HEATMAP_SHAPE = (512, 384), (8, 8, 6)
_BODY_SIZE, _PART_SIZE = 2.0, 0.3  # metres that the heatmap is deep, of the body; of a hand, a face
_BOXES = ("lhand", "rhand", "face")
_MIRRORED = {"lhand": "rhand", "rhand": "lhand"}
_BOX_COLUMNS = {"lhand": "ann/box_left_hand", "rhand": "ann/box_right_hand", "face": "ann/box_face"}

_COUNT = len(WHOLE_BODY)
_LEFT, _RIGHT, _FACE = slice(25, 45), slice(45, 65), slice(65, _COUNT)
_FEET = slice(14, 20)
_DEPTH = np.where(np.arange(_COUNT) < 25, _BODY_SIZE, _PART_SIZE)
# Fingers are about their wrist, the face about the neck, the rest about the pelvis.
_ROOTS = np.zeros(_COUNT, np.int64)
_ROOTS[_LEFT], _ROOTS[_RIGHT] = WHOLE_BODY.index("left_wrist"), WHOLE_BODY.index("right_wrist")
_ROOTS[_FACE] = WHOLE_BODY.index("neck")
# The pose: root, 21 of the body, 15 of each hand, the jaw.
_POSE_LEFT, _POSE_RIGHT, _POSE_JAW, _POSE_COUNT = slice(22, 37), slice(37, 52), slice(52, 53), 53
# Data sets that annotate neither hands nor feet: how wrists and ankles turn and where the feet are is not
# learnt from their fits.
_NO_HANDS_OR_FEET = ("Human3.6M", "MPI-INF-3DHP", "MPII")
_UNSEEN_TURNS = [JOINT_SETS["smplx"].index(f"{s}_{j}") for s in ("left", "right") for j in ("ankle", "wrist")]


class Hand4WholeDataset(RegressorRows):
    """SMPL-X annotations as Hand4Whole takes them; arguments and errors as of `Pose2PoseDataset`.

    Parts flagged invalid (hands, face) are zero and marked so. Boxes of hands and face are the annotations';
    where there are none, as in the MoCap data sets, they are marked invalid.
    """

    def __init__(
        self,
        gt: PseudoGT,
        *,
        images: str | os.PathLike[str],
        split: str = "train",
        body_models: str | os.PathLike[str] | None = None,
        joints: bool = True,
        augment: Draw | None = None,
        drop_incomplete: bool = False,
        seed: int | None = None,
        cache: bool = True,
    ) -> None:
        require_model(gt, ("smplx",), "Hand4Whole")
        self.split, self._augment = checked_split(split, augment, draw_pose2pose)
        aspect = INPUT_SHAPE[1] / INPUT_SHAPE[0]
        gt, boxes = cropped_rows(gt, "Hand4Whole", aspect, drop_incomplete=drop_incomplete)
        self._solid, self._limbs_only = False, gt.catalogued.data_set in _NO_HANDS_OR_FEET
        beside = {"crop_box": boxes}
        if split == "train":
            own = _own(gt) if joints else None
            beside |= columns_of(own, len(gt), _COUNT)
            self._solid = own is not None and own.relative is not None
            beside |= {name: gt.view.column(c) for name, c in _BOX_COLUMNS.items() if c in gt.view}
        super().__init__(
            gt,
            images=images,
            fields=PICTURE_FIELDS,
            joints=split == "train",
            body_models=body_models,
            beside=beside,
            seed=seed,
            cache=cache,
            only_valid=True,
        )
        names = JOINT_SETS["smplx"].joints
        called = [name.removesuffix("_again") for name in WHOLE_BODY.joints]
        self._order = np.array([names.index(name) for name in called if name in names])
        self._mirror = mirror_index(WHOLE_BODY)

    def __getitem__(self, index: int) -> Triple:
        sample = self._sample(index)
        require_picture_size(sample)
        augmentation = self._augment(self._generator(index))
        crop = cut_crop(sample["image"], sample["crop_box"], INPUT_SHAPE, augmentation, dtype=np.float32)
        inputs = {"img": picture(crop, augmentation)}
        if self.split == "test":
            mesh = self._posed(sample["params"], sample["gender"]).vertices[0].numpy()
            return inputs, {"smplx_mesh_cam": mesh}, {}
        space = Targets(INPUT_SHAPE, HEATMAP_SHAPE, crop, augmentation, self._mirror)
        own = space.own_joints(sample, _DEPTH)
        joints = np.zeros((_COUNT, 3), np.float32)
        joints[: len(self._order)] = sample["joints"][self._order]
        fit = space.fit_joints(sample, joints, self._fitted(sample), root=_ROOTS, depth=_DEPTH)
        pose, turns, codes = _parameters(sample, augmentation, limbs_only=self._limbs_only)
        targets = {"joint_img": own.image, "joint_cam": own.relative}
        targets |= {
            "smplx_joint_img": fit.image,
            "smplx_joint_cam": fit.relative,
            "smplx_pose": pose,
            **codes,
        }
        meta = {"joint_valid": own.valid, "joint_trunc": own.inside, "is_3D": float(self._solid)}
        meta |= {"smplx_joint_valid": fit.valid, "smplx_joint_trunc": fit.inside, "smplx_pose_valid": turns}
        meta |= {"smplx_shape_valid": float(sample["valid"]["body"])}
        meta |= {"smplx_expr_valid": float(_face_fitted(sample))}
        for name, (centre, size, valid) in _part_boxes(sample, space, augmentation).items():
            targets |= {f"{name}_bbox_center": centre, f"{name}_bbox_size": size}
            meta[f"{name}_bbox_valid"] = float(valid)
        return inputs, targets, meta

    def _fitted(self, sample: dict[str, Any]) -> np.ndarray:
        """(137,) bool, before the picture is mirrored: joints of parts that were fitted."""
        valid = sample["valid"]
        fitted = np.full(_COUNT, valid["body"])
        for part, joints in (("left_hand", _LEFT), ("right_hand", _RIGHT), ("face", _FACE)):
            fitted[joints] = valid["body"] and valid[part]
        fitted[len(self._order) :] = False  # the contour depends on the view; the library leaves it out
        if self._limbs_only:
            fitted[_FEET] = False
        return fitted


def _own(gt: PseudoGT) -> OwnJoints:
    own = own_joints(gt, WHOLE_BODY.joints, "pelvis", BODY_ALIASES)
    nose, ridge = WHOLE_BODY.index("nose"), WHOLE_BODY.index("nose4")
    # As its own classes do: where no face is annotated the body's nose stands for the landmark. MoCap data
    # sets have neither.
    fill = own.valid[:, nose] & ~own.valid[:, ridge]
    own.image[fill, ridge], own.valid[fill, ridge] = own.image[fill, nose], True
    return own


def _face_fitted(sample: dict[str, Any]) -> bool:
    """A face is part of a body: where that was not fitted, it was not."""
    return bool(sample["valid"]["body"] and sample["valid"]["face"])


def _parameters(
    sample: dict[str, Any], augmentation: Augmentation, *, limbs_only: bool
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """The pose (159,), which numbers of it are valid (159,) 1 or 0, shape and expression."""
    params, valid = turned_parameters(sample["params"], augmentation), sample["valid"]
    rotations = ("body_pose", "left_hand_pose", "right_hand_pose")
    pose = np.concatenate(
        [params["global_orient"][None], *(params[name] for name in rotations), params["jaw_pose"][None]]
    )
    turns = np.full((_POSE_COUNT, 1), valid["body"])
    left, right = ("right_hand", "left_hand") if augmentation.flip else ("left_hand", "right_hand")
    for part, joints in ((left, _POSE_LEFT), (right, _POSE_RIGHT), ("face", _POSE_JAW)):
        turns[joints] &= valid[part]
    if limbs_only:
        turns[_UNSEEN_TURNS] = False
    body = np.float32(valid["body"])
    codes = {
        "smplx_shape": shape_target(params["betas"]) * body,
        "smplx_expr": params["expression"] * np.float32(_face_fitted(sample)),
    }
    flags = np.repeat(turns, 3, axis=1).reshape(-1).astype(np.float32)
    return pose.reshape(-1) * body, flags, codes


def _part_boxes(
    sample: dict[str, Any], space: Targets, augmentation: Augmentation
) -> dict[str, tuple[np.ndarray, np.ndarray, bool]]:
    """Centre (2,) and size (2,) in the heatmap's units, whether there is one, by `_BOXES`."""
    found = {}
    for name in _BOXES:
        source = _MIRRORED.get(name, name) if augmentation.flip else name
        box = sample.get(source)
        if box is None or not np.isfinite(box).all() or not (box[2:] > 0).all():
            found[name] = (np.zeros(2, np.float32), np.zeros(2, np.float32), False)
            continue
        x, y, width, height = box
        corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
        placed = space.to_heatmap(corners)
        low, high = placed.min(axis=0), placed.max(axis=0)
        found[name] = (((low + high) / 2).astype(np.float32), (high - low).astype(np.float32), True)
    return found
