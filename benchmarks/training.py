"""A step of training beside the bare backbone's forward and backward pass."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.grids import Table
from benchmarks.layers import quietly
from benchmarks.options import Options, say
from benchmarks.timing import alternate, duration, machine, spread
from neuralannot.train.config import TrainConfig, preset
from neuralannot.train.distributed import World
from neuralannot.train.feed import batches
from neuralannot.train.fit import Precision, network_inputs, sample_terms
from neuralannot.train.losses import total_loss
from neuralannot.train.run import build_machinery, read_data

TITLE = "Training step"
TEXT = """\
A step of `neuralannot train fit`: crops from the cache, network, body model, losses, backward pass, clipping
and Adam, beside the forward and backward pass of the bare ResNet on images that are there, at the same size,
batch and precision. *Share*: the backbone's time over the step's; the goal is 85%. Crops are decoded in the
step itself on a CPU (no worker beside the two cores), by workers on a GPU."""

# Preset, what is changed, and batch, image size on a CPU; a GPU runs the preset's own.
_RUNS = {
    "MoCap bodies, ResNet-50": ("human36m-smpl", "human36m", 16, 128),
    "bodies in the wild, ResNet-50": ("mscoco-smpl", "mscoco", 16, 128),
    "MoCap hands, ResNet-50": ("interhand-mano", "interhand26m", 16, 128),
    "MoCap bodies, ResNet-18, tiny": ("tiny-human36m-smpl", "human36m", 32, 64),
}


def run(options: Options) -> Iterator[Table]:
    """One table."""
    from neuralannot.synthetic import make_studio

    device = options.device or "cpu"
    on_gpu = device.startswith("cuda")
    table = Table(
        f"{TITLE}, {device}", ("", "step", "bare backbone", "share", "images/s", "goal"), machine(device)
    )
    for title, (name, layout, batch, size) in _RUNS.items():
        say(f"{TITLE}: {title}")
        with tempfile.TemporaryDirectory() as folder, quietly():
            count = options.of(options.count, 256 if on_gpu else 48, 8)
            made = make_studio(Path(folder) / "studio", layout=layout, count=count, image_size=256, workers=1)
            changes = {"data": [str(made.out)], "device": device, "every": 1}
            if not on_gpu:
                changes |= {"batch": options.of(None, batch, 4), "image_size": options.of(None, size, 32)}
                changes |= {"workers": 0, "precision": "fp32"}
            config = preset(name, **changes)
            sides = sides_of(config, Path(folder) / "crops", torch.device(device))
            times = alternate(sides, repeats=options.repeated(7), warmup=3, device=device)
        shares = [100 * ratio for ratio in times.ratios("bare backbone", "step")]
        speed = [min(config.batch, made.annotation_count) / seconds for seconds in times.seconds["step"]]
        cells = [duration(times.seconds[side]) for side in ("step", "bare backbone")]
        table.add(title, *cells, spread(shares, 0) + "%", spread(speed, 0), "85%")
    yield table


def sides_of(config: TrainConfig, crops: Path, device: torch.device) -> dict[str, Callable[[], object]]:
    """A whole step on the next batch, and the backbone alone on one batch's images."""
    world = World(0, 1, device)
    data = read_data(config, crops, world)
    machinery = build_machinery(config, data.joint_sets, device)
    network = machinery.network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=config.lr, fused=True)
    precision = Precision.of(config.precision, device)
    feed = batches(data, config, world)
    images, _, _ = network_inputs(next(feed).to(device).images, data.targets, machinery)
    assert images is not None

    def step() -> None:
        batch = next(feed).to(device)
        each = total_loss(sample_terms(network, machinery, batch, precision), machinery.weights)
        precision.scale(each.mean()).backward()
        precision.unscale(optimiser)
        torch.nn.utils.clip_grad_norm_(trained, config.clip)
        torch.isfinite(each).all().item()
        precision.step(optimiser)
        optimiser.zero_grad(set_to_none=True)

    def backbone() -> None:
        with precision.autocast():
            features = network.backbone(images)
        features.float().sum().backward()
        optimiser.zero_grad(set_to_none=True)

    return {"step": step, "bare backbone": backbone}
