"""The comparisons that pose bodies once more, on a GPU and at its batch sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks import backward, joints, mesh, regressed
from benchmarks.grids import Table
from benchmarks.options import Options, say
from benchmarks.posing import run_task

TITLE = "GPU"
TEXT = """\
Mesh, gradients, joints and regressed joints on a GPU with dense correctives, beside smplx and body-models
(with its Warp kernels too where warp-lang is installed) and beside two more variants of ours: compiled by
`torch.compile`, and recorded as a CUDA graph. TF32 is off: results must agree as on the processor. The
floors are what the bytes and the products that cannot be left out take at the rates of the same device,
measured in the same run."""

BATCHES = (1024, 4096, 16384)


def run(options: Options) -> Iterator[Table]:
    """One table a task; a single line where there is no GPU."""
    import torch

    device = options.device or "cuda"
    if device.startswith("cuda") and not torch.cuda.is_available():
        table = Table(TITLE, ("not measured: torch sees no GPU here",), "`python -m benchmarks gpu` on one")
        say("gpu: torch sees no GPU here, nothing is measured")
        yield table
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    chosen = replace(options, device=device, batch=options.batches(BATCHES))
    for module in (mesh, backward, joints, regressed):
        yield from run_task(replace(module.TASK, variants=("dense",)), chosen, extras=True)
