"""Skinning weights of a model: MakeHuman's bones put together, the jaw's from how the mouth opens."""

from __future__ import annotations

import numpy as np

from tools.bake_open_models.source import Source
from tools.bake_open_models.tpose import X, rotation
from tools.bake_open_models.trees import TREES, joint_of_bones
from tools.bake_open_models.vertices import Layout

MOST_JOINTS = 4
_LEAST = 1e-3
_OPEN = np.deg2rad(14)  # how far `jawOpen` turns the jaw


def skinning_weights(kind: str, source: Source, layout: Layout) -> np.ndarray:
    """(V, J), rows summing to 1, at most four weights a vertex."""
    weights = layout.place(_of_source(kind, source))
    weights[weights < _LEAST] = 0
    fifth = np.sort(weights, axis=1)[:, -MOST_JOINTS - 1 : -MOST_JOINTS]
    weights[weights <= fifth] = 0
    shares: np.ndarray = weights / weights.sum(1, keepdims=True)
    return shares


def _of_source(kind: str, source: Source) -> np.ndarray:
    """(N, J)."""
    joints = TREES[kind].joints
    merged = np.eye(len(joints))[joint_of_bones(kind, source)]
    weights = source.weights.astype(np.float64) @ merged
    if "jaw" in joints:
        jaw, skull = joints.index("jaw"), joints.index("head" if "head" in joints else "neck")
        both = weights[:, jaw] + weights[:, skull]
        share = np.where(both > 0.02, jaw_share(source), 0)
        tongue = source.vertices_of("tongue")
        share[tongue] = weights[tongue, jaw]
        weights[:, jaw], weights[:, skull] = both * share, both * (1 - share)
    shares: np.ndarray = weights / weights.sum(1, keepdims=True)
    return shares


def below_jaw(source: Source) -> np.ndarray:
    """(N,): the weight of the jaw bone and all that hangs on it."""
    hangs = {source.bone("jaw")}
    for bone, parent in enumerate(source.parents):
        if parent in hangs:
            hangs.add(bone)
    below: np.ndarray = source.weights[:, sorted(hangs)].astype(np.float64).sum(1)
    return below


def jaw_share(source: Source) -> np.ndarray:
    """(N,) in 0..1: how much of a rigid turn of the jaw each vertex follows when the mouth opens.

    MakeHuman's rig moves the lips with bones of their own, which no model here has; its facial action
    `jawOpen` says where they go.
    """
    opened = source.actions["jawOpen"].astype(np.float64)
    rigid = (source.template - source.heads[source.bone("jaw")]) @ (rotation(X, _OPEN) - np.eye(3)).T
    of_bone = below_jaw(source)
    core = of_bone > 0.9
    scale = (opened[core] * rigid[core]).sum() / (rigid[core] ** 2).sum()
    follows = np.clip((opened * rigid).sum(1) / (scale * (rigid**2).sum(1) + 1e-9), 0, 1)
    return np.where(of_bone > 0.98, 1.0, np.clip(follows * 1.05 - 0.02, 0, 1))
