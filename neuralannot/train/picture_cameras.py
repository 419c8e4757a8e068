"""`PictureCameras`: through which camera a crop is seen, in crop units; bodies moved from one to another.

The release's virtual camera looks along the middle of each crop from very far (focal length 5000 for 256
units). A real one stands nearer and sees a person beside its axis turned, what is near to it larger. Where
nobody knows the camera, a focal length as long as the image's diagonal (a field of view of 53 degrees) and a
principal point in its middle are nearer to the truth (Kissos et al., 2020; CLIFF, Li et al., 2022).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neuralannot.body_models.moments import JointMoments
from neuralannot.train.crops import CROP_UNITS, Crops
from neuralannot.train.fitting.charts import Chart, State
from neuralannot.train.network import CROP, FOCAL
from neuralannot.train.rotations import rotation_between

__all__ = ["PictureCameras", "image_cameras", "seen_through", "virtual_cameras"]


@dataclass(frozen=True, eq=False)
class PictureCameras:
    """`focal`, `princpt` (N, 2) float32, crop units: of N crops; of mirrored ones the mirrored camera's."""

    focal: np.ndarray
    princpt: np.ndarray

    def __len__(self) -> int:
        return len(self.focal)

    def rows(self, index: np.ndarray | slice) -> PictureCameras:
        return PictureCameras(self.focal[index], self.princpt[index])

    def in_images(self, crops: Crops) -> tuple[np.ndarray, np.ndarray]:
        """Focal lengths and principal points (N, 2) float32, px of the whole, unmirrored images."""
        princpt = crops.to_image(self.princpt[:, None].astype(np.float32))[:, 0]
        return (self.focal * crops.box_xywh[:, 2:] / CROP_UNITS).astype(np.float32), princpt


def virtual_cameras(count: int) -> PictureCameras:
    """The release's, the same for all crops."""
    return PictureCameras(np.full((count, 2), FOCAL, np.float32), np.full((count, 2), CROP / 2, np.float32))


def image_cameras(crops: Crops, *, focal: float | None = None) -> PictureCameras:
    """Cameras of whole images, their principal points in the middle, as the crops see them.

    `focal`: px of the whole images; None: each image's diagonal. Crops of images whose size is not known, and
    those that are not valid, have the virtual camera. Raises ValueError for a focal length that is not
    positive.
    """
    if focal is not None and not focal > 0:
        raise ValueError(f"focal must be positive, got {focal}")
    size = crops.image_size.astype(np.float64)
    length = np.linalg.norm(size, axis=1) if focal is None else np.full(len(crops), float(focal))
    in_units = length[:, None] * CROP_UNITS / crops.box_xywh[:, 2:].astype(np.float64)
    middle = crops.to_crop((size[:, None] / 2).astype(np.float32))[:, 0]
    known = (crops.image_size > 0).all(axis=1) & crops.valid
    virtual = virtual_cameras(len(crops))
    return PictureCameras(
        np.where(known[:, None], in_units, virtual.focal).astype(np.float32),
        np.where(known[:, None], middle, virtual.princpt).astype(np.float32),
    )


def seen_through(
    state: State, chart: Chart, moments: JointMoments, before: PictureCameras, after: PictureCameras
) -> State:
    """Bodies of one camera's frame in another's, so that they look alike: their joints' centre at the same
    place of the crop and as large, and turned to the ray that it is seen by as before."""
    device = state.pose.device

    def tensors(cameras: PictureCameras) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(cameras.focal).to(device), torch.from_numpy(cameras.princpt).to(device)

    (focal, princpt), (new_focal, new_princpt) = tensors(before), tensors(after)
    with torch.no_grad():
        centre = moments(chart.rotations(state), state.codes).mean(1) + state.transl
        pixel = centre[:, :2] / centre[:, 2:] * focal + princpt
        depth = centre[:, 2:] * (new_focal / focal).mean(1, keepdim=True)
        moved = torch.cat([(pixel - new_princpt) / new_focal * depth, depth], 1)
        turned = replace(state, root=rotation_between(centre, moved) @ state.root)
        shift = moved - moments(chart.rotations(turned), turned.codes).mean(1)
    return replace(turned, transl=shift)
