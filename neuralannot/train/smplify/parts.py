"""Which joints show where a body is, and which are SMPL-X's hands' and face's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralannot.joint_sets import JOINT_SETS
from neuralannot.parameters import human_model

__all__ = ["Parts", "parts_of"]

_TRUNK = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")
_PALM = tuple(f"right_{joint}" for joint in ("wrist", "index1", "middle1", "ring1", "pinky1"))
_TORSO = {"smpl": _TRUNK, "smplx": _TRUNK, "mano": _PALM, "flame": ()}
_FACE = frozenset(JOINT_SETS["coco-wholebody-face-68"].joints) | {"jaw"}
_HANDS = frozenset(
    name for side in ("left", "right") for name in JOINT_SETS[f"coco-wholebody-hand-21-{side}"].joints
)


@dataclass(frozen=True, eq=False)
class Parts:
    """Numbers of joints, int64: `torso` (P,); `hands` and `face` (P,), None where there are none to fit."""

    torso: Tensor
    hands: Tensor | None = None
    face: Tensor | None = None


def parts_of(model: str, names: Sequence[str], known: Tensor | None = None) -> Parts:
    """The parts among K joints by their names; `known` (K,) bool: which of them the body has (all).

    Hips and shoulders are a body's torso, the wrist and four knuckles a right hand's (the paper's
    supplementary, B), a face has none. Only SMPL-X has hands and a face beside its body.
    """
    human_model(model)
    is_known = [True] * len(names) if known is None else known.tolist()
    there = [name if given else "" for name, given in zip(names, is_known, strict=True)]
    wrists = {"right_hand_root": "right_wrist"} if model == "mano" and "right_wrist" not in there else {}
    torso = [at for at, name in enumerate(there) if wrists.get(name, name) in _TORSO[model]]
    found = [torch.tensor(torso, dtype=torch.int64)]
    for part in (_HANDS, _FACE):
        joints = [at for at, name in enumerate(there) if name in part] if model == "smplx" else []
        found.append(torch.tensor(joints, dtype=torch.int64))
    return Parts(found[0], found[1] if len(found[1]) else None, found[2] if len(found[2]) else None)
