"""EFT's rule (Joo et al., 2021): the network itself is tuned to one sample, answers for it, and is put back.

One of the annotators that the paper compares with (Table 7). The exemplar's answer stays near what a network
trained on many samples says, since a few small steps of all weights do not lead far.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from neuralannot.train.config import TrainConfig
from neuralannot.train.crop_cache import CropCache
from neuralannot.train.estimates import columns_of
from neuralannot.train.feed import decoded
from neuralannot.train.fit import network_inputs
from neuralannot.train.losses import sample_losses, total_loss
from neuralannot.train.method_options import EftOptions
from neuralannot.train.run import Machinery, TrainingData

__all__ = ["exemplar_estimates"]


def exemplar_estimates(
    machinery: Machinery,
    config: TrainConfig,
    data: TrainingData,
    chunks: Sequence[np.ndarray],
    options: EftOptions | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """As `estimates`, of a network tuned to each row alone, by the losses that it was trained with.

    Batch normalisation keeps its statistics; precision is float32. The machinery's network is as before when
    a chunk is done.
    """
    options = options or EftOptions()
    for rows in chunks:
        found = [
            _exemplar(machinery, data, rows[n : n + 1], _image(data.caches, rows[n : n + 1]), options)
            for n in range(len(rows))
        ]
        yield {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def _image(caches: Sequence[CropCache], row: np.ndarray) -> Tensor | None:
    return decoded(caches, row) if caches else None


def _exemplar(
    machinery: Machinery, data: TrainingData, row: np.ndarray, image: Tensor | None, options: EftOptions
) -> dict[str, np.ndarray]:
    network, device = machinery.network, machinery.body.J_regressor.device
    targets = data.targets.rows(torch.from_numpy(row)).to(device)
    given = network_inputs(None if image is None else image.to(device), targets, machinery)
    known = machinery.points.known
    network.eval()
    weights = {n: p.detach().clone().requires_grad_(p.requires_grad) for n, p in network.named_parameters()}
    optimiser = torch.optim.Adam([w for w in weights.values() if w.requires_grad], lr=options.lr)
    with torch.enable_grad():
        for _ in range(options.steps):
            out = torch.func.functional_call(network, weights, given)
            losses = sample_losses(
                out, machinery.points, known, machinery.rest_root, targets, weak=machinery.weak
            )
            loss = total_loss(losses, machinery.weights).sum()
            if float(loss.detach()) < options.enough:
                break
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_([w for w in weights.values() if w.requires_grad], 1.0)
            optimiser.step()
    with torch.inference_mode():
        out = torch.func.functional_call(network, weights, given)
        return columns_of(out, machinery, targets, is_mocap=data.samples[0].is_mocap)
