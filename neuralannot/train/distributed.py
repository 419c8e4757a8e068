"""One process or many: who this one is, and what they do together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class World:
    """This process among those that `torchrun` started, or alone. `device`: where it computes."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            dist.barrier()

    def sum(self, values: Tensor) -> Tensor:
        """The sums over all processes; the tensor itself is left as it is."""
        if self.size == 1:
            return values
        total = values.detach().clone()
        dist.all_reduce(total)
        return total


def join_world(device: str = "") -> World:
    """The world that the environment describes (RANK, WORLD_SIZE, LOCAL_RANK: `torchrun` sets them).

    `device`: `cpu`, `cuda`, `cuda:1`; for "" a GPU where torch sees one. Several processes talk through nccl
    on GPUs and through gloo on CPUs. Raises ValueError for a device that is not there.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")) if size > 1 else None)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size > 1 and not dist.is_initialized():
        # The first process cuts a data set's crops, which may take hours, while the others wait.
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(days=2))
    return World(rank, size, chosen)


def leave_world() -> None:
    """Part from the others, where there are others."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _device(name: str, local_rank: int | None) -> torch.device:
    if not name:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if local_rank is not None and device.index is not None:
            raise ValueError(f"device {name!r} is one for several processes; say cuda, each takes its own")
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", local_rank if local_rank is not None else 0)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used: {reason:.120}") from None
    return device


def synchronise_batch_norm(network: nn.Module, world: World) -> nn.Module:
    """The network with statistics of whole batches, whatever share of them a process has."""
    if world.size == 1:
        return network
    if world.device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return converted
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, _SharedBatchNorm2d.of(child))
    return network


class _Sum(torch.autograd.Function):
    """The sum over all processes, and of its gradients: what each does with the sum counts."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]  # torch's
    return total


class _SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over all processes on CPUs, for which torch's own is not made."""

    @classmethod
    def of(cls, layer: nn.BatchNorm2d) -> _SharedBatchNorm2d:
        made = cls(layer.num_features, layer.eps, layer.momentum)
        made.load_state_dict(layer.state_dict())
        for given, own in zip(layer.parameters(), made.parameters(), strict=True):
            own.requires_grad_(given.requires_grad)
        return made.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        kind, x = x.dtype, x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        count = x.new_tensor([x.numel() / x.shape[1]])
        own = torch.cat([x.sum((0, 2, 3)), count])
        total = _sum(own)
        mean = total[:-1] / total[-1]
        centred = x - mean[:, None, None]
        variance = _sum(centred.square().sum((0, 2, 3))) / total[-1].detach()
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            unbiased = variance * total[-1] / (total[-1] - 1)
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(unbiased, momentum)
        scale = (self.weight * torch.rsqrt(variance + self.eps))[:, None, None]
        normalised: Tensor = (centred * scale + self.bias[:, None, None]).to(kind)
        return normalised
