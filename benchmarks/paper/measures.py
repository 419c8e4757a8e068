"""How far annotations are from the truth: root-aligned millimetres, visible and missing joints apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.paper.studies import Poser, Study

_BATCH = 64
_ROOTS = ("pelvis", "right_wrist", "wrist", "right_hand_root")


@dataclass(frozen=True)
class Measured:
    """Means over `count` samples, mm: `mpjpe` over all joints, also those that are missing, and `mpvpe`, root
    joints aligned; `seen` and `hidden`: over joints that were given and that were not (NaN without any);
    `pa_mpjpe` after the best similarity. `seconds`: a sample; `training`: seconds of training, in
    all."""

    count: int
    mpjpe: float
    mpvpe: float
    pa_mpjpe: float
    seen: float
    hidden: float
    seconds: float
    training: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    study: Study,
    params: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    valid: np.ndarray,
    *,
    seconds: float,
    training: float = 0.0,
) -> Measured:
    """`params`, `truth`: (M, ...) in the crops' cameras' frames; `valid` (M, K): which joints were given.

    Raises ValueError where a parameter is not a number: every annotator answers for every sample.
    """
    lost = {n for n, v in params.items() if n not in ("error", "energy") and not np.isfinite(v).all()}
    if lost:
        raise ValueError(f"{study.name}: {', '.join(sorted(lost))} are not all numbers")
    from neuralannot.metrics import pa_mpjpe

    poser = Poser(study)
    mine, true = poser.joints(params), poser.joints(truth)
    names = study.joint_set.joints
    root = next(names.index(name) for name in _ROOTS if name in names)
    off = 1000 * np.linalg.norm((mine - mine[:, root, None]) - (true - true[:, root, None]), axis=2)
    meshes = []
    for first in range(0, len(mine), _BATCH):
        some = slice(first, first + _BATCH)
        one = poser.vertices({n: v[some] for n, v in params.items()}) - torch.tensor(mine[some, root, None])
        two = poser.vertices({n: v[some] for n, v in truth.items()}) - torch.tensor(true[some, root, None])
        meshes.append(1000 * (one - two).norm(dim=2).mean(1).numpy())
    return Measured(
        count=len(mine),
        mpjpe=float(off.mean()),
        mpvpe=float(np.concatenate(meshes).mean()),
        pa_mpjpe=1000 * float(np.mean(pa_mpjpe(mine, true))),
        seen=float(off[valid].mean()) if valid.any() else float("nan"),
        hidden=float(off[~valid].mean()) if (~valid).any() else float("nan"),
        seconds=seconds,
        training=training,
    )
