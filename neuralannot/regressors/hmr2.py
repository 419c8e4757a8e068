"""`Hmr2Dataset`: the samples of 4D-Humans' `ImageDataset`, of its npz and of its tar files.

Conventions of github.com/shubham-goel/4D-Humans (Goel et al., ICCV 2023).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.formats.hmr import BOX_SCALE
from neuralannot.formats.keypoint_orders import OPENPOSE_COUNT, SPIN_COUNT, reordered
from neuralannot.formats.pictured import keypoints_of, pictured_rows, require_model
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.regressors.augmentation import Augmentation, Draw, draw_hmr2
from neuralannot.regressors.crop import cut_crop, turned
from neuralannot.regressors.own_joints import own_joints, require_named_keypoints
from neuralannot.regressors.pose2pose import PICTURE_FIELDS, checked_split, turned_parameters
from neuralannot.regressors.rows import RegressorRows, require_picture_size

__all__ = ["IMAGE_MEAN", "IMAGE_SIZE", "IMAGE_STD", "Hmr2Dataset"]

IMAGE_SIZE = 256
#: ImageNet's, RGB, of values from 0 to 1.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
_EXTRA_COUNT = 19  # the first of SPIN's 24: the face's five are among OpenPose's 25
_OPENPOSE_MIRROR = (0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11, 16, 15, 18, 17, 22, 23, 24, 19, 20, 21)
_SPIN_MIRROR = (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13, 14, 15, 16, 17, 18)
_MIRROR = np.array([*_OPENPOSE_MIRROR, *(25 + k for k in _SPIN_MIRROR)])


class Hmr2Dataset(RegressorRows):
    """SMPL annotations as 4D-Humans' training takes them.

    `layout`: the keys of its npz reader (`npz`) or of its tar reader (`tar`), which it trains from.
    `bbox_shape`: its `MODEL.BBOX_SHAPE`, width and height that boxes are brought to before they are made
    square; None for boxes as they are. `box_scale`: what boxes grow by, as `write_hmr2` does. `max_beta`: its
    `SUPPRESS_BETAS_THRESH`, beyond which in any code a shape is marked invalid, 0 for none. `whole_fits`: its
    `POSES_BETAS_SIMULTANEOUS`: with the shape the pose is invalid. `mean_betas`: its `BETAS_REG`: the mean
    shape is the target, and valid, where the own one is not. `antialias`: its `USE_SKIMAGE_ANTIALIAS`.
    `images`, `split`, `body_models`, `joints`, `augment`, `drop_incomplete`, `seed`: as `Pose2PoseDataset`.

    A sample is one dict; docs/regressors.md lists the keys. Raises as `Pose2PoseDataset`, and for bodies that
    are not neutral, which 4D-Humans does not know.
    """

    def __init__(
        self,
        gt: PseudoGT,
        *,
        images: str | os.PathLike[str],
        split: str = "train",
        layout: str = "npz",
        bbox_shape: tuple[int, int] | None = (192, 256),
        box_scale: float = BOX_SCALE,
        max_beta: float = 0.0,
        whole_fits: bool = False,
        mean_betas: bool = False,
        antialias: bool = False,
        body_models: str | os.PathLike[str] | None = None,
        joints: bool = True,
        augment: Draw | None = None,
        drop_incomplete: bool = False,
        seed: int | None = None,
        cache: bool = True,
    ) -> None:
        require_model(gt, ("smpl",), "HMR2")
        if layout not in ("npz", "tar"):
            raise ValueError(f"layout must be 'npz' or 'tar', got {layout!r}")
        if not box_scale > 0:
            raise ValueError(f"box_scale must be positive, got {box_scale}")
        self.layout, self.images = layout, str(images)
        self.split, self._augment = checked_split(split, augment, draw_hmr2)
        self._bbox_shape, self._box_scale = bbox_shape, box_scale
        self._max_beta, self._antialias = max_beta, antialias
        self._whole_fits, self._mean_betas = whole_fits, mean_betas
        gt, box = pictured_rows(gt, "HMR2", drop_incomplete=drop_incomplete)
        if (gt.gender != "neutral").any():
            first = int(np.flatnonzero(gt.gender != "neutral")[0])
            raise ValueError(
                f"{gt.release}: HMR2 has neutral bodies alone, {gt.ids[first]} is {gt.gender[first]}; select "
                "rows with gt.rows(gt.gender == 'neutral')"
            )
        points, solid = _keypoints(gt) if joints else _no_keypoints(len(gt))
        super().__init__(
            gt,
            images=images,
            fields=PICTURE_FIELDS,
            body_models=body_models,
            beside={"box": box, "keypoints_2d": points, "keypoints_3d": solid},
            seed=seed,
            cache=cache,
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self._sample(index)
        require_picture_size(sample)
        augmentation = self._augment(self._generator(index))
        centre, scale, size = self._box(sample["box"])
        square = np.array([*(centre - size / 2), size, size])
        image = sample["image"]
        if self._antialias:
            image = _blurred(image, IMAGE_SIZE / (size * augmentation.scale))
        crop = cut_crop(image, square, (IMAGE_SIZE, IMAGE_SIZE), augmentation)
        points, solid = sample["keypoints_2d"].copy(), sample["keypoints_3d"].copy()
        points[:, :2] = crop.at(points[:, :2])
        if augmentation.flip:
            points, solid = points[_MIRROR], solid[_MIRROR]
            solid[:, 0] *= -1
        points[:, :2] = points[:, :2] / IMAGE_SIZE - 0.5
        points[points[:, 2] == 0] = 0
        solid[:, :3] = turned(solid[:, :3], augmentation.rotation)
        height, width = sample["image"].shape[:2]
        item: dict[str, Any] = {
            "img": _normalised(crop.picture, augmentation),
            "keypoints_2d": points,
            "keypoints_3d": solid,
            "orig_keypoints_2d": sample["keypoints_2d"],
            "box_center": centre,
            "box_size": size,
            "img_size": np.array([width, height], np.float64),
            **self._parameters(sample, augmentation),
            "_scale": scale / 200,
        }
        if self.layout == "tar":
            mask = _inside(sample["image"], square, augmentation)
            name = str(Path(sample["image_path"]).with_suffix(""))
            return {**item, "mask": mask, "_trans": crop.affine.astype(np.float64), "imgname": name}
        return {
            **item,
            "bbox_expand_factor": size / scale.max(),
            "imgname": os.path.join(self.images, sample["image_path"]),
            "imgname_rel": sample["image_path"],
            "personid": 0,
            "extra_info": {},
            "idx": sample["index"],
        }

    def _box(self, box: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Its centre and its width and height, grown, px; the side of the square that is cut."""
        x, y, width, height = np.asarray(box, np.float64)
        extent = np.array([width, height]) * self._box_scale
        wide, tall = extent
        if self._bbox_shape is not None:
            aspect = self._bbox_shape[0] / self._bbox_shape[1]
            wide, tall = max(wide, tall * aspect), max(tall, wide / aspect)
        return np.array([x + width / 2, y + height / 2]), extent, float(max(wide, tall))

    def _parameters(self, sample: dict[str, Any], augmentation: Augmentation) -> dict[str, Any]:
        params = turned_parameters(sample["params"], augmentation)
        codes = params["betas"]
        fitted = betas = np.float32(sample["valid"]["body"])
        if self._max_beta > 0 and (np.abs(codes) > self._max_beta).any():
            betas = np.float32(0)
        if self._whole_fits:
            fitted = betas
        if self._mean_betas and not betas:
            codes, betas = np.zeros_like(codes), np.float32(1)
        return {
            "smpl_params": {
                "global_orient": params["global_orient"],
                "body_pose": params["body_pose"].reshape(-1),
                "betas": codes,
            },
            "has_smpl_params": {"global_orient": fitted, "body_pose": fitted, "betas": betas},
            "smpl_params_is_axis_angle": {"global_orient": True, "body_pose": True, "betas": False},
        }


def _keypoints(gt: PseudoGT) -> tuple[np.ndarray, np.ndarray]:
    """(N, 44, 3) px and 1 or 0, (N, 44, 4) metres about the pelvis and 1 or 0: OpenPose's 25, SPIN's 19.

    MoCap data sets annotate no pixels: those are where the cameras see their 3D joints.
    """
    _, solid = _no_keypoints(len(gt))
    if gt.joint_set_world is None:
        require_named_keypoints(gt)
        points, valid, joint_set = keypoints_of(gt)
        body = reordered(points, valid, "openpose", joint_set, OPENPOSE_COUNT)
        extra = reordered(points, valid, "spin", joint_set, SPIN_COUNT)[:, :_EXTRA_COUNT]
        return np.concatenate([body, extra], axis=1), solid
    own = own_joints(gt, JOINT_SETS[gt.joint_set_world].joints, "pelvis")
    assert own.relative is not None
    flat, _ = _no_keypoints(len(gt))
    for out, points in ((flat, own.image), (solid, own.relative)):
        found = reordered(points, own.valid, "spin", gt.joint_set_world, SPIN_COUNT)
        out[:, OPENPOSE_COUNT:] = found[:, :_EXTRA_COUNT]
    return flat, solid


def _no_keypoints(rows: int) -> tuple[np.ndarray, np.ndarray]:
    count = OPENPOSE_COUNT + _EXTRA_COUNT
    return np.zeros((rows, count, 3), np.float32), np.zeros((rows, count, 4), np.float32)


def _normalised(picture: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """(h, w, 3) RGB -> (3, h, w) float32, colours scaled, by ImageNet's mean and deviation."""
    pixels = np.clip(picture.astype(np.float32) * np.array(augmentation.color, np.float32), 0, 255)
    mean, std = (255 * np.array(values, np.float32) for values in (IMAGE_MEAN, IMAGE_STD))
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1), np.float32)


def _inside(image: np.ndarray, square: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """(256, 256) float32 from 0 to 1: what of the crop's pixels is image; all where none is."""
    all_of_it = np.broadcast_to(np.uint8(255), (*image.shape[:2], 3))
    seen = cut_crop(all_of_it, square, (IMAGE_SIZE, IMAGE_SIZE), augmentation).picture[..., 0]
    mask = np.asarray(seen, np.float32) / 255
    return mask if (mask >= 0.5).any() else np.ones_like(mask)


def _blurred(image: np.ndarray, factor: float) -> np.ndarray:
    """Blurred as 4D-Humans does where `factor`, crop pixels an image pixel, is above 1.1."""
    if factor <= 1.1:
        return image
    from scipy.ndimage import gaussian_filter

    sigma = (factor - 1) / 2
    found: np.ndarray = gaussian_filter(
        image.astype(np.float64), (sigma, sigma, 0), truncate=3.0, mode="nearest"
    )
    return found
