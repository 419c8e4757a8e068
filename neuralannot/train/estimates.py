"""What a trained network says of samples: parameters in the frames of their crops' cameras, and places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from neuralannot.metrics import mpjpe
from neuralannot.train.config import TrainConfig
from neuralannot.train.crop_cache import CropCache
from neuralannot.train.feed import decoded
from neuralannot.train.fit import Precision, network_inputs
from neuralannot.train.network import project
from neuralannot.train.placing import translation_from_joints
from neuralannot.train.run import Machinery, TrainingData
from neuralannot.train.targets import Targets


class CropBatches(Dataset[Tensor]):
    """The crops of some batches of rows, (B, 3, S, S) uint8: a worker decodes a batch."""

    def __init__(self, caches: Sequence[CropCache], batches: Sequence[np.ndarray]) -> None:
        self._caches, self._batches = caches, batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> Tensor:
        return decoded(self._caches, self._batches[number])


def estimates(
    machinery: Machinery, config: TrainConfig, data: TrainingData, chunks: Sequence[np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """Parameters (M, ...) of each chunk's rows in their crops' cameras' frames; `transl`, `error` among them.

    An error that is no number: there is no joint to place the body by, or to judge it.
    """
    pieces = [[c[first : first + config.batch] for first in range(0, len(c), config.batch)] for c in chunks]
    flat = [rows for some in pieces for rows in some]
    images: Iterator[Tensor | None] = iter([None] * len(flat))
    if data.caches:
        device = machinery.body.J_regressor.device
        workers = min(config.workers, len(flat) - 1)  # a single batch is not worth a process
        images = iter(
            DataLoader(
                CropBatches(data.caches, flat),
                batch_size=None,
                num_workers=max(0, workers),
                pin_memory=device.type == "cuda",
            )
        )
    for some in pieces:
        found = [_estimate(machinery, config, data, rows, next(images)) for rows in some]
        yield {name: np.concatenate([part[name] for part in found]) for name in found[0]}


@torch.inference_mode()
def _estimate(
    machinery: Machinery, config: TrainConfig, data: TrainingData, rows: np.ndarray, images: Tensor | None
) -> dict[str, np.ndarray]:
    """`estimates` of one batch."""
    device = machinery.body.J_regressor.device
    targets = data.targets.rows(torch.from_numpy(rows)).to(device)
    with Precision.of(config.precision, device).autocast():
        images = None if images is None else images.to(device, non_blocking=True)
        out = machinery.network(*network_inputs(images, targets, machinery))
    return columns_of(out, machinery, targets, is_mocap=data.samples[0].is_mocap)


def columns_of(
    outputs: Mapping[str, Tensor], machinery: Machinery, targets: Targets, *, is_mocap: bool
) -> dict[str, np.ndarray]:
    """What `estimates` gives, of a network's outputs for one batch: with GT 3D joints placed by these."""
    out = dict(outputs)
    root = out.pop("root", None)
    out.pop("latent", None)
    posed = machinery.points(**out)
    known = machinery.points.known
    if is_mocap:
        valid = (targets.valid_cam & known).cpu().numpy()
        wanted, at_origin = targets.joints_cam.cpu().numpy(), posed.cpu().numpy()
        placed = translation_from_joints(at_origin, wanted, valid)
        error = mpjpe(at_origin + placed[:, None], wanted, valid=valid)
        transl = torch.from_numpy(placed)
    else:
        codes = {n: out[n] for n in ("betas", "expression") if n in out}
        assert root is not None  # a network of pictures says where the root is
        transl = root - machinery.rest_root(**codes)
        seen = project(posed + transl[:, None])
        error = _mean_distance(seen, targets.joints_2d, targets.valid_2d & known)
    made = {name: value.float().cpu().numpy() for name, value in {**out, "transl": transl}.items()}
    return made | {"error": np.asarray(error, np.float32)}


def _mean_distance(seen: Tensor, wanted: Tensor, valid: Tensor) -> np.ndarray:
    """(B,) px; NaN where no joint is valid."""
    distance = (seen - wanted).norm(dim=2).masked_fill(~valid, 0)
    error: np.ndarray = (distance.sum(1) / valid.sum(1)).cpu().numpy()
    return error
