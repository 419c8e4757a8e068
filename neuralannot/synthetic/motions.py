"""Poses: bodies as motion capture has them, fingers that bend as fingers do, faces that speak."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from neuralannot.transforms import mirror_parameters

_POSES_FILE = Path(__file__).parent / "poses.npz"
_Y_UP_TO_Z_UP = Rotation.from_euler("x", 90, degrees=True)
# How far a mean hand's fingers are bent at their three joints, radians.
_MEAN_FLEXION = np.array([0.5, 0.6, 0.4])
_MIRROR = np.array([1, -1, -1], np.float32)
_WRISTS = (19, 20)  # in SMPL-X's body_pose


@dataclass(frozen=True, eq=False)
class Poses:
    """P poses of SMPL's and SMPL-X's body: `global_orient` (P, 3), y up and facing +z; `body_pose`
    (P, 21, 3); radians, float32. `clip` (P,) the motion each is of, by its number in `names`.
    """

    global_orient: np.ndarray
    body_pose: np.ndarray
    clip: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.clip)


@functools.lru_cache(maxsize=2)
def load_poses(path: Path = _POSES_FILE) -> Poses:
    """The poses that ship. Raises FileNotFoundError, and ValueError where arrays do not fit together."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of poses; is the package installed whole?")
    with np.load(path, allow_pickle=False) as archive:
        try:
            values = [archive[name] for name in ("global_orient", "body_pose", "clip")]
            names = tuple(archive["names"].tolist())
        except KeyError as error:
            raise ValueError(f"{path}: {error}") from None
    orient, pose, clip = values[0].astype(np.float32), values[1].astype(np.float32), values[2]
    n = len(clip)
    if not n or orient.shape != (n, 3) or pose.shape != (n, 21, 3):
        raise ValueError(
            f"{path}: expected global_orient (P, 3), body_pose (P, 21, 3) and clip (P,), got {orient.shape}, "
            f"{pose.shape} and {clip.shape}"
        )
    return Poses(orient, pose, clip, names)


def body_pose(
    rng: np.random.Generator, *, clips: Sequence[str] = (), wrists: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """A root rotation (3,) in a world with z up, any heading, and the 21 rotations (21, 3) of a body.

    Half of the bodies are mirrored. `clips`: names of the motions to draw from, all where empty.
    `wrists`: radians by which wrists are turned at random, since motion capture leaves them straight.
    """
    poses = load_poses()
    numbers = [poses.names.index(name) for name in clips] if clips else np.unique(poses.clip)
    # Any clip as likely as any other: long ones would crowd out the rest.
    row = rng.choice(np.flatnonzero(poses.clip == rng.choice(numbers)))
    root, pose = poses.global_orient[row], poses.body_pose[row].copy()
    if rng.random() < 0.5:
        mirrored = mirror_parameters(
            {"global_orient": root[None], "body_pose": pose[None]}, np.zeros((1, 3), np.float32)
        )
        root, pose = mirrored["global_orient"][0], mirrored["body_pose"][0]
    pose[list(_WRISTS)] += rng.normal(0, wrists, (2, 3)).clip(-2.5 * wrists, 2.5 * wrists)
    heading = Rotation.from_euler("z", rng.uniform(-np.pi, np.pi))
    turned = (heading * _Y_UP_TO_Z_UP * Rotation.from_rotvec(root)).as_rotvec()
    return turned.astype(np.float32), pose.astype(np.float32)


def hand_pose(rng: np.random.Generator, side: str) -> np.ndarray:
    """(15, 3) radians relative to the mean hand: fingers bent more or less together; some hands at rest."""
    pose = np.zeros((15, 3))
    if rng.random() < 0.08:
        return pose.astype(np.float32)  # the mean hand
    grip = rng.beta(0.8, 1.1)
    spread = rng.normal(0, 0.08)
    for finger, fan in enumerate((1.0, 0.2, -1.4, -0.6)):  # MANO's order: index, middle, pinky, ring
        curl = np.clip(grip + rng.normal(0, 0.2), 0, 1)
        knuckle = -0.15 + 1.35 * curl + rng.normal(0, 0.12)
        middle = 0.05 + 1.5 * curl * rng.uniform(0.7, 1.0)
        flexion = np.array([knuckle, middle, rng.uniform(0.5, 0.75) * middle])
        bones = pose[3 * finger : 3 * finger + 3]
        bones[:, 2] = flexion - _MEAN_FLEXION
        bones[0, 0] = rng.normal(0, 0.05)
        # A fist has no room for spread fingers.
        bones[0, 1] = (fan * spread + rng.normal(0, 0.05)) * (1 - 0.7 * curl)
    pose[12:] = rng.normal(0, [[0.18], [0.12], [0.12]], (3, 3))
    pose[13:, 1] -= rng.uniform(-0.15, 0.5) * (0.3 + 0.7 * grip)
    if side == "left":
        pose = pose * _MIRROR
    return pose.astype(np.float32)


def jaw_pose(rng: np.random.Generator) -> np.ndarray:
    """(3,) radians: shut or nearly so half of the time, open by up to 25 degrees otherwise."""
    opening = abs(rng.normal(0, 0.02)) if rng.random() < 0.5 else rng.beta(1.2, 2.0) * 0.44
    return np.array([opening, rng.normal(0, 0.02), rng.normal(0, 0.01)], np.float32)


def codes(rng: np.random.Generator, *, limit: float = 2.0) -> np.ndarray:
    """(10,) shape or expression codes: normal, none beyond `limit`."""
    return rng.normal(0, 1, 10).clip(-limit, limit).astype(np.float32)


def any_rotation(rng: np.random.Generator) -> np.ndarray:
    """(3,) radians: a rotation vector, all rotations as likely."""
    rotvec: np.ndarray = Rotation.random(random_state=rng).as_rotvec().astype(np.float32)
    return rotvec
