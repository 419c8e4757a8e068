"""`Pose2PoseDataset`: the samples of Pose2Pose's data set classes, for its body, hand and face networks.

Conventions of github.com/mks0601/Hand4Whole_RELEASE, branch Pose2Pose (Moon et al., CVPRW 2022).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from neuralannot.boxes import invert_affine, process_boxes
from neuralannot.formats.pictured import pictured_rows
from neuralannot.joint_sets import JointSet, mirror_index
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.regressors.augmentation import Augmentation, Draw, draw_nothing, draw_pose2pose
from neuralannot.regressors.crop import Crop, cut_crop, turned, turned_root
from neuralannot.regressors.own_joints import BODY_ALIASES, OwnJoints, own_joints
from neuralannot.regressors.part_joints import BODY, FACE, HAND, body_regressor
from neuralannot.regressors.rows import RegressorRows, require_picture_size
from neuralannot.transforms import mirror_parameters

__all__ = ["FAR_SHAPE", "PARTS", "Part", "Pose2PoseDataset", "Targets"]

Triple = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]

# What all of the samples' rows are read with.
PICTURE_FIELDS = ("gender", "image_path", "image_size", "params", "valid", "camera")
FAR_SHAPE = 3.0  # beyond it in any code a shape is taken for wrong, and the mean one is the target


@dataclass(frozen=True)
class Part:
    """What a network sees and gives: `input_shape` height, width px; `heatmap_shape` depth, height, width,
    in whose units joints are; `depth_size` metres that the heatmap is deep; `root` of the joints."""

    name: str
    joints: JointSet
    input_shape: tuple[int, int]
    heatmap_shape: tuple[int, int, int]
    depth_size: float
    root: str

    @property
    def aspect(self) -> float:
        return self.input_shape[1] / self.input_shape[0]


#: By the body model of the fits.
PARTS = {
    "smpl": Part("body", BODY, (256, 192), (8, 8, 6), 2.0, "pelvis"),
    "mano": Part("hand", HAND, (256, 256), (8, 8, 8), 0.3, "wrist"),
    "flame": Part("face", FACE, (256, 192), (8, 8, 6), 0.3, "root_flame"),
}


class Pose2PoseDataset(RegressorRows):
    """SMPL, MANO or FLAME annotations as Pose2Pose's body, hand or face network takes them.

    `gt`: SMPL for bodies, MANO for hands (left ones are mirrored), FLAME for faces, joined with annotations.
    `images`: the data set's image folder. `split`: `train`, or `test` for pictures that are not changed and,
    of bodies and hands, the mesh. `body_models`: as in `PseudoGT.forward`. `joints`: with the data set's own
    joints; without they are all marked invalid. `augment(rng)`: what is drawn in place of Pose2Pose's own.
    `drop_incomplete`: leaves out rows without image or box, which are an error otherwise. `seed`: for numbers
    that follow from it, the epoch (`set_epoch`) and the row; else from `torch.manual_seed`.

    A sample is `inputs, targets, meta_info`, dicts of arrays that torch's own collation takes;
    docs/regressors.md lists the keys. Raises ValueError for another model (what to convert), rows that cannot
    be cropped and images of another size than annotated; FileNotFoundError for images and files that are not
    there.
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
        if gt.model not in PARTS:
            raise ValueError(
                f"{gt.release}: Pose2Pose takes SMPL, MANO or FLAME fits, these are SMPL-X's; use "
                "Hand4WholeDataset, or convert them: neuralannot convert FILE --to smpl --out smpl.json"
            )
        self.part = PARTS[gt.model]
        self.split, self._augment = checked_split(split, augment, draw_pose2pose)
        gt, boxes = cropped_rows(gt, "Pose2Pose", self.part.aspect, drop_incomplete=drop_incomplete)
        regressor, self._there = _regressor(gt.model, body_models)
        beside = {"crop_box": boxes}
        self._solid = False
        if split == "train":
            own = _own(gt, self.part) if joints else None
            beside |= columns_of(own, len(gt), len(self.part.joints))
            self._solid = own is not None and own.relative is not None
        super().__init__(
            gt,
            images=images,
            fields=(*PICTURE_FIELDS, *(("side",) if gt.model == "mano" else ())),
            regressor=regressor if split == "train" else None,
            joints=split == "train",
            body_models=body_models,
            beside=beside,
            seed=seed,
            cache=cache,
        )
        self._mirror = mirror_index(self.part.joints)
        self._order = _order(self._rows.joint_names, self.part.joints) if split == "train" else None

    def __getitem__(self, index: int) -> Triple:
        sample = self._sample(index)
        require_picture_size(sample)
        augmentation = self._augment(self._generator(index))
        if "side" in sample:  # all hands are right ones
            augmentation = replace(augmentation, flip=sample["side"] == "left")
        crop = cut_crop(
            sample["image"], sample["crop_box"], self.part.input_shape, augmentation, dtype=np.float32
        )
        inputs = {"img": picture(crop, augmentation)}
        if self.split == "test":
            return inputs, *self._test_targets(sample, crop, augmentation)
        return inputs, *self._train_targets(sample, crop, augmentation)

    def _train_targets(
        self, sample: dict[str, Any], crop: Crop, augmentation: Augmentation
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        space = Targets(self.part.input_shape, self.part.heatmap_shape, crop, augmentation, self._mirror)
        depth = np.full(len(self.part.joints), self.part.depth_size)
        own = space.own_joints(sample, depth)
        fitted = sample["valid"][f"{sample['side']}_hand" if "side" in sample else self.part.name]
        joints, there = self._fit_joints(sample)
        fit = space.fit_joints(sample, joints, there & fitted, root=0, depth=depth)
        params = turned_parameters(sample["params"], augmentation)
        ok = np.float32(fitted)
        solid = float(self._solid)
        targets = {"joint_img": own.image, "joint_cam": own.relative}
        meta = {"joint_valid": own.valid, "joint_trunc": own.inside, "is_3D": solid}
        if self.part.name == "face":
            targets |= {
                "flame_joint_cam": fit.relative,
                "flame_root_pose": params["global_orient"] * ok,
                "flame_jaw_pose": params["jaw_pose"] * ok,
                "flame_shape": shape_target(params["betas"]) * ok,
                "flame_expr": params["expression"] * ok,
            }
            meta |= {"flame_joint_valid": fit.valid}
            meta |= {f"flame_{name}_valid": float(ok) for name in ("root_pose", "jaw_pose", "shape", "expr")}
            return targets, meta
        name = "smpl" if self.part.name == "body" else "mano"
        pose = np.concatenate([params["global_orient"][None], params[f"{self.part.name}_pose"]]).reshape(-1)
        targets |= {
            f"{name}_joint_img": fit.image,
            f"{name}_joint_cam": fit.relative,
            f"{name}_pose": pose * ok,
            f"{name}_shape": shape_target(params["betas"]) * ok,
        }
        meta |= {
            f"{name}_joint_trunc": fit.inside,
            f"{name}_joint_valid": fit.valid,
            f"{name}_pose_valid": np.full(len(pose), ok, np.float32),
            f"{name}_shape_valid": float(ok),
        }
        return targets, meta

    def _fit_joints(self, sample: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The fit's joints (J, 3) metres in the camera's space and which of them there are."""
        found = sample["joints"][self._order]
        if len(found) == len(self.part.joints):
            return found, self._there
        joints = np.zeros((len(self.part.joints), 3), np.float32)  # a face without its contour
        joints[: len(found)] = found
        return joints, self._there

    def _test_targets(
        self, sample: dict[str, Any], crop: Crop, augmentation: Augmentation
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        meta = {"bbox": sample["crop_box"], "bb2img_trans": invert_affine(crop.affine)}
        if self.part.name == "face":
            return {}, meta
        mesh = self._posed(sample["params"], sample["gender"], sample.get("side")).vertices[0].numpy()
        if augmentation.flip:
            mesh = mesh * np.array([-1, 1, 1], np.float32)
        return {"smpl_mesh_cam" if self.part.name == "body" else "mano_mesh_cam": mesh}, meta


# --- shared with Hand4Whole


@dataclass(frozen=True, eq=False)
class JointTargets:
    """J joints: `image` (J, 3) in the heatmap's units, `relative` (J, 3) metres about the root, `valid` and
    `inside` (J, 1), 1 or 0: inside the heatmap and valid. All float32; what is not valid is zero."""

    image: np.ndarray
    relative: np.ndarray
    valid: np.ndarray
    inside: np.ndarray


@dataclass(frozen=True, eq=False)
class Targets:
    """Joints of the image and the camera -> targets of one crop. `mirror`: (J,) where each joint's other side
    is."""

    input_shape: tuple[int, int]
    heatmap_shape: tuple[int, int, int]
    crop: Crop
    augmentation: Augmentation
    mirror: np.ndarray

    def own_joints(self, sample: dict[str, Any], depth: np.ndarray) -> JointTargets:
        """The data set's, from the columns of `columns_of`; `depth`: (J,) metres that the heatmap is deep."""
        relative = sample.get("own_relative", np.zeros((len(depth), 3), np.float32))
        return self._targets(sample["own_image"], relative, sample["own_valid"], depth)

    def fit_joints(
        self, sample: dict[str, Any], joints: np.ndarray, there: np.ndarray, *, root: Any, depth: np.ndarray
    ) -> JointTargets:
        """The fit's (J, 3) metres in the camera's space; `root`: one joint, or each joint's own (J,)."""
        ahead = joints[:, 2] > 0
        z = np.where(ahead, joints[:, 2], 1)[:, None]
        image = joints[:, :2] / z * sample["focal"] + sample["princpt"]
        return self._targets(image, joints - joints[root], there & ahead, depth)

    def to_heatmap(self, points: np.ndarray) -> np.ndarray:
        """Points of the image (K, 2) px -> (K, 2) in the heatmap's units."""
        height, width = self.input_shape
        return self.crop.at(points) / (width, height) * self.heatmap_shape[:0:-1]

    def _targets(
        self, image: np.ndarray, relative: np.ndarray, valid: np.ndarray, depth: np.ndarray
    ) -> JointTargets:
        levels, rows, columns = self.heatmap_shape
        place = self.to_heatmap(image)
        relative = np.array(relative, np.float64)
        if self.augmentation.flip:
            relative[:, 0] *= -1
            place, relative, valid = place[self.mirror], relative[self.mirror], valid[self.mirror]
        level = (relative[:, 2] / (depth / 2) + 1) / 2 * levels
        place = np.column_stack([place, level]).astype(np.float32)
        inside = valid & ((place >= 0) & (place < (columns, rows, levels))).all(axis=1)
        return JointTargets(
            np.where(valid[:, None], place, 0).astype(np.float32),
            np.where(valid[:, None], turned(relative, self.augmentation.rotation), 0).astype(np.float32),
            valid[:, None].astype(np.float32),
            inside[:, None].astype(np.float32),
        )


def checked_split(split: str, augment: Draw | None, draw: Draw) -> tuple[str, Draw]:
    """The split, and what is drawn for it."""
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    return split, augment or (draw if split == "train" else draw_nothing)


def cropped_rows(
    gt: PseudoGT, target: str, aspect: float, *, drop_incomplete: bool
) -> tuple[PseudoGT, np.ndarray]:
    """The rows that can be cropped, and their processed boxes (N, 4) px.

    Raises ValueError as `pictured_rows`, and for boxes that are not within their image.
    """
    import warnings

    gt, box = pictured_rows(gt, target, drop_incomplete=drop_incomplete)
    size = np.where(gt.image_size > 0, gt.image_size, 1 << 40)
    boxes, valid = process_boxes(box, size, aspect=aspect)
    if not valid.all():
        said = f"{int((~valid).sum())} of {len(gt)} boxes have no area within their image"
        if not drop_incomplete:
            row = int(np.flatnonzero(~valid)[0])
            raise ValueError(
                f"{gt.release}: {said}; the first is {gt.ids[row]}'s, {box[row].tolist()}; leave them out "
                "with drop_incomplete=True"
            )
        warnings.warn(f"{gt.release}: {said}; left out", stacklevel=3)
        gt, boxes = gt.rows(valid), boxes[valid]
    return gt, boxes


def columns_of(own: OwnJoints | None, rows: int, joints: int) -> dict[str, np.ndarray]:
    """A data set's joints as columns beside the rows; all invalid where there are none."""
    if own is None:
        own = OwnJoints(np.zeros((rows, joints, 2), np.float32), None, np.zeros((rows, joints), bool))
    columns = {"own_image": own.image, "own_valid": own.valid}
    return columns if own.relative is None else {**columns, "own_relative": own.relative}


def picture(crop: Crop, augmentation: Augmentation) -> torch.Tensor:
    """(3, h, w) float32 RGB from 0 to 1, its colours scaled."""
    pixels = np.clip(crop.picture * np.array(augmentation.color, np.float32), 0, 255)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)) / 255


def shape_target(betas: np.ndarray) -> np.ndarray:
    """The codes, or the mean shape's where one of them is far out."""
    return np.zeros_like(betas) if (np.abs(betas) > FAR_SHAPE).any() else betas


def turned_parameters(params: dict[str, np.ndarray], augmentation: Augmentation) -> dict[str, np.ndarray]:
    """A row's rotations as the crop shows the body; codes stay, the translation is left out."""
    given = {name: values[None] for name, values in params.items() if name != "transl"}
    if augmentation.flip:
        given = mirror_parameters(given, np.zeros((1, 3), np.float32))
    found = {name: values[0].astype(np.float32) for name, values in given.items()}
    found["global_orient"] = turned_root(found["global_orient"], augmentation.rotation)
    return found


def _own(gt: PseudoGT, part: Part) -> OwnJoints:
    return own_joints(gt, part.joints.joints, part.root, BODY_ALIASES if part.name == "body" else None)


def _regressor(model: str, body_models: str | os.PathLike[str] | None) -> tuple[Any, np.ndarray]:
    """What gives the part's joints, None for the model's own, and which of them there are."""
    if model == "smpl":
        return body_regressor(body_models)
    if model == "mano":
        return "interhand-21", np.ones(len(HAND), bool)
    there = np.zeros(len(FACE), bool)
    there[: len(FACE) - 17] = True  # the contour depends on the view; the library's FLAME leaves it out
    return None, there


def _order(names: tuple[str, ...], joints: JointSet) -> np.ndarray:
    """Where the part's joints are among those of the rows, as far as they have them."""
    if joints is HAND:
        names = tuple(name.removeprefix("right_").removeprefix("left_") for name in names)
    index = {name: k for k, name in enumerate(names)}
    return np.array([index[name] for name in joints.joints if name in index])
