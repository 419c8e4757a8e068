"""Tiny runs for the tests of training: studios made once a process, configurations that take seconds."""

from __future__ import annotations

import functools
import json
import socket
import tempfile
from pathlib import Path
from typing import Any

from processes import Process

from neuralannot.synthetic import make_studio
from neuralannot.train.config import TrainConfig, preset

PRESET_OF = {
    "human36m": "tiny-human36m-smpl",
    "interhand26m": "tiny-interhand-mano",
    "ffhq": "tiny-ffhq-flame",
}
SCRIPT = """
import sys, json, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from neuralannot.train.config import config_from_dict
from neuralannot.train.distributed import leave_world
from neuralannot.train.fit import fit
fit(config_from_dict(json.loads(sys.argv[1])), sys.argv[2])
leave_world()
"""


@functools.cache
def studio(layout: str, count: int = 12, **options: Any) -> Path:
    """A data set of `count` images, kept as long as the process."""
    made = tempfile.TemporaryDirectory(prefix=f"{layout}-")
    _KEPT.append(made)
    folder = Path(made.name) / "studio"
    make_studio(folder, layout=layout, count=count, image_size=160, workers=1, **options)
    return folder


_KEPT: list[tempfile.TemporaryDirectory] = []


def a_run(
    layout: str = "human36m", name: str | None = None, /, folder: Path | None = None, **changes: Any
) -> TrainConfig:
    """A configuration of a few small steps on a studio."""
    values = {
        "data": [str(folder or studio(layout))],
        "image_size": 32,
        "batch": 6,
        "head_width": 64,
        "joint_width": 32,
        "max_steps": 4,
        "log_every": 1,
        "checkpoint_every": 2,
        "workers": 0,
        "window": 4,
        "device": "cpu",
    }
    return preset(name or PRESET_OF[layout], **(values | changes))


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def one_of(rank: int, size: int, port: int) -> dict[str, str]:
    """The environment that `torchrun` gives to one of `size` processes; none for one alone."""
    if size == 1:
        return {}
    numbers = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1"} | {name: str(number) for name, number in numbers.items()}


def start(config: TrainConfig, out: Path, *, rank: int = 0, size: int = 1, port: int = 0) -> Process:
    """A process that fits, one of `size`."""
    return Process("-c", SCRIPT, json.dumps(config.as_dict()), out, environment=one_of(rank, size, port))


def finish(process: Process) -> None:
    assert process.ended().returncode == 0, process.stderr[-2000:]
