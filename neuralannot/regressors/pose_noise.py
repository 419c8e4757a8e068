"""Errors of 2D pose estimators, made up: what Pose2Mesh puts on the 2D poses that it learns from.

COCO's 17 keypoints err as PoseFix (Moon et al., CVPR 2019) counted it on COCO: near the joint (`good`,
`jitter`), far from it (`miss`) or near its other side (`inversion`), distances by COCO's similarity of
keypoints. Human3.6M's 17 err by a normal distribution a joint, whose numbers come with Pose2Mesh's code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralannot.joint_sets import JOINT_SETS, mirror_index

__all__ = ["COCO_SIGMAS", "NormalErrors", "coco_errors"]

#: COCO's constants of keypoint similarity.
COCO_SIGMAS = np.array(
    [26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89], np.float64
) / np.float64(1000)
_MIRROR = mirror_index("coco-17")
_TRIES = 256  # candidates that a place is picked from


def _by_group(**rates: float) -> np.ndarray:
    """(17,) of the groups of COCO's keypoints: nose, face, shoulders, arms, hips, knees, ankles."""
    groups = ["nose"] + ["face"] * 4 + ["shoulders"] * 2 + ["arms"] * 4
    groups += ["hips"] * 2 + ["knees"] * 2 + ["ankles"] * 2
    return np.array([rates[group] for group in groups])


# How often each kind happens, of joints that are all visible.
_JITTER = _by_group(nose=0.10, face=0.15, shoulders=0.15, arms=0.15, hips=0.20, knees=0.10, ankles=0.10)
_MISS = _by_group(nose=0.02, face=0.02, shoulders=0.05, arms=0.10, hips=0.10, knees=0.10, ankles=0.05)
_INVERSION = _by_group(nose=0.01, face=0.01, shoulders=0.03, arms=0.03, hips=0.06, knees=0.06, ankles=0.06)


def coco_errors(points: np.ndarray, area: float, rng: np.random.Generator) -> np.ndarray:
    """(17, 2) px of COCO's keypoints with errors, float32. `area`: the person's, px^2, by which they grow.

    Joint after joint: which kind of error, then a place of that kind, uniform in angle and distance. A place
    that lies nearer to the joint's other side than to the joint itself (or, of an inversion, the other way
    round) is not of its kind; a kind without any place does not happen.
    """
    found = np.array(points, np.float64)
    # Distances at which the similarity falls to 0.85, 0.5 and 0.1.
    near, middle, far = (np.sqrt(-2 * area * (2 * COCO_SIGMAS) ** 2 * np.log(s)) for s in (0.85, 0.5, 0.1))
    for joint in range(len(found)):
        own, other = found[joint].copy(), None
        if _MIRROR[joint] != joint:
            other = found[_MIRROR[joint]].copy()
        rates = np.array([0.0, _JITTER[joint], _MISS[joint], _INVERSION[joint]])
        rates[0] = 1 - rates.sum()
        while rates.sum() > 0:
            kind = rng.choice(4, p=rates / rates.sum())
            if kind == 0:
                places = _ring(rng, own, 0, near[joint], other)
            elif kind == 1:
                places = _ring(rng, own, near[joint], middle[joint], other)
            elif kind == 2:
                places = _missed(rng, own, other, middle[joint], far[joint])
            else:
                places = np.zeros((0, 2)) if other is None else _ring(rng, other, 0, middle[joint], own)
            if len(places):
                found[joint] = places[rng.integers(len(places))]
                break
            rates[kind] = 0
    return found.astype(np.float32)


def _ring(
    rng: np.random.Generator, centre: np.ndarray, low: float, high: float, away: np.ndarray | None
) -> np.ndarray:
    """(M, 2) places around `centre`, none of them nearer to `away` than to it."""
    distance, places = _around(rng, centre, low, high, _TRIES)
    if away is None:
        return places
    found: np.ndarray = places[np.linalg.norm(places - away, axis=1) > distance]
    return found


def _missed(
    rng: np.random.Generator, own: np.ndarray, other: np.ndarray | None, low: float, high: float
) -> np.ndarray:
    """(M, 2) places far from the joint and from its other side, one in five around the latter."""
    _, places = _around(rng, own, low, high, 4 * _TRIES)
    if other is None:
        return places
    places = places[np.linalg.norm(places - other, axis=1) > low]
    _, beyond = _around(rng, other, low, high, 4 * _TRIES)
    beyond = beyond[np.linalg.norm(beyond - own, axis=1) > low]
    return np.concatenate([places, beyond[: len(beyond) // 4]])


def _around(
    rng: np.random.Generator, centre: np.ndarray, low: float, high: float, count: int
) -> tuple[np.ndarray, np.ndarray]:
    angle, distance = rng.uniform(0, 2 * np.pi, count), rng.uniform(low, high, count)
    return distance, centre + distance[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])


@dataclass(frozen=True, eq=False)
class NormalErrors:
    """Normal errors of Human3.6M's 17 joints, in pixels of a crop of 256: `mean`, `std` (17, 2), and `weight`
    (17,), how often there is one."""

    mean: np.ndarray
    std: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, table: Sequence[Mapping[str, Any]]) -> NormalErrors:
        """Of Pose2Mesh's `error_distribution` (data/Human36M/noise_stats.py): a dict for each joint with
        `Joint`, `mean`, `std`, `weight`. Raises ValueError for a joint that is not there."""
        named = {str(entry.get("Joint")): entry for entry in table}
        lacking = [name for name in HUMAN36M_NAMES if name not in named]
        if lacking:
            raise ValueError(f"noise: no statistics of {lacking[0]}; there are {', '.join(named) or 'none'}")
        rows = [named[name] for name in HUMAN36M_NAMES]
        mean, std = (np.array([row[key] for row in rows], np.float64) for key in ("mean", "std"))
        return cls(mean, std, np.array([row["weight"] for row in rows], np.float64))

    def __call__(self, points: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """(17, 2) px of a crop of `shape` height, width -> the same with errors, float32."""
        error = rng.normal(self.mean, self.std) * (self.weight > rng.random(len(self.weight)))[:, None]
        return (points + error / 256 * (shape[1], shape[0])).astype(np.float32)


#: Human3.6M's 17 as Pose2Mesh spells them, in the order of `human36m-17`.
HUMAN36M_NAMES = (
    *("Pelvis", "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Torso", "Neck", "Nose", "Head"),
    *("L_Shoulder", "L_Elbow", "L_Wrist", "R_Shoulder", "R_Elbow", "R_Wrist"),
)
assert len(HUMAN36M_NAMES) == len(JOINT_SETS["human36m-17"])
