"""SMPL's T-pose: a fixed turn of each of MakeHuman's bones, so that all stays linear in the blend shapes."""

from __future__ import annotations

import numpy as np

X, Y, Z = np.eye(3)


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """(3, 3), about `axis` (3,) of any length by `angle` radians."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: np.ndarray = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return turn


def align(a: np.ndarray, b: np.ndarray, share: float = 1.0) -> np.ndarray:
    """(3, 3): `share` of the least rotation that takes direction `a` to direction `b`."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    sine = float(np.linalg.norm(axis))
    return np.eye(3) if sine < 1e-9 else rotation(axis, share * float(np.arctan2(sine, a @ b)))


class Posing:
    """Bones of a mean body being turned one after another, children with their parents.

    `heads` (B, 3) at rest; `turns` (B, 3, 3) of each bone in the world.
    """

    def __init__(self, names: tuple[str, ...], parents: tuple[int, ...], heads: np.ndarray) -> None:
        self._number = {name: i for i, name in enumerate(names)}
        self._parents, self._rest = parents, heads
        self.turns = np.tile(np.eye(3), (len(names), 1, 1))

    def turn(self, bone: str, by: np.ndarray) -> None:
        """Turn a bone, and all that hangs on it, by a rotation in the world."""
        below = {self._number[bone]}
        for child, parent in enumerate(self._parents):
            if parent in below:
                below.add(child)
        for child in below:
            self.turns[child] = by @ self.turns[child]

    def between(self, start: str, end: str) -> np.ndarray:
        """(3,) from the head of one bone to that of another, as posed so far."""
        heads = posed_heads(self._parents, self.turns, self._rest)
        along: np.ndarray = heads[self._number[end]] - heads[self._number[start]]
        return along


def posed_heads(parents: tuple[int, ...], turns: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Heads (..., B, 3) of the turned bones."""
    posed = np.empty_like(heads)
    for bone, parent in enumerate(parents):
        if parent < 0:
            posed[..., bone, :] = heads[..., bone, :]
        else:
            along = heads[..., bone, :] - heads[..., parent, :]
            posed[..., bone, :] = posed[..., parent, :] + along @ turns[parent].T
    return posed


def t_pose(names: tuple[str, ...], parents: tuple[int, ...], heads: np.ndarray) -> np.ndarray:
    """(B, 3, 3) turns that bring the body with these bone heads (B, 3) into the T-pose; both sides alike."""
    posing = Posing(names, parents, heads)
    _pose_leg(posing)
    _pose_arm(posing)
    _pose_fingers(posing)
    mirror = np.diag([-1.0, 1.0, 1.0])
    for bone, name in enumerate(names):
        if name.endswith(".R"):
            posing.turns[bone] = mirror @ posing.turns[names.index(f"{name[:-1]}L")] @ mirror
    return posing.turns


def _pose_leg(posing: Posing) -> None:
    """Straight down with a small spread, feet level and a little outwards, as in SMPL's template."""
    thigh = posing.between("upperleg01.L", "lowerleg01.L")
    slant = thigh[2] / -thigh[1] * 0.5
    posing.turn("upperleg01.L", align(thigh, np.array([0.045, -1, slant])))
    shin = posing.between("lowerleg01.L", "foot.L")
    posing.turn("lowerleg01.L", align(shin, np.array([0.035, -1, -0.05])))
    foot = posing.between("foot.L", "toe2-1.L")
    posing.turn("foot.L", align(foot * [1, 0, 1], np.array([0.12, 0, 1.0])))


def _pose_arm(posing: Posing) -> None:
    """Along x, the palm down; collar and shoulder carry 14 degrees of the lift."""
    for bone in ("clavicle", "shoulder01"):
        posing.turn(f"{bone}.L", rotation(Z, np.deg2rad(7)))
    # The lift is shared by the two halves of the upper arm, so that the deltoid is not folded in one place.
    arm = posing.between("upperarm01.L", "lowerarm01.L")
    posing.turn("upperarm01.L", align(arm, X, 0.5))
    posing.turn("upperarm02.L", align(posing.between("upperarm02.L", "lowerarm01.L"), X))
    posing.turn("upperarm01.L", align(posing.between("upperarm01.L", "lowerarm01.L"), X))
    posing.turn("lowerarm01.L", align(posing.between("lowerarm01.L", "wrist.L"), X))
    posing.turn("wrist.L", align(posing.between("wrist.L", "finger3-1.L"), X))
    index, pinky = (posing.between("wrist.L", f"finger{finger}-1.L") for finger in (2, 5))
    back = np.cross(index, pinky)
    twist = np.arctan2(np.cross(back * [0, 1, 1], Y)[0], back[1])
    shares = {"upperarm02": 0.25, "lowerarm01": 0.15, "lowerarm02": 0.35, "wrist": 0.25}
    for bone, share in shares.items():
        posing.turn(f"{bone}.L", rotation(X, twist * share))


def _pose_fingers(posing: Posing) -> None:
    """All but the thumb straight, in the plane of the palm; the last bone bends as far as the middle one."""
    for finger in (2, 3, 4, 5):
        bones = [f"finger{finger}-{k}.L" for k in (1, 2, 3)]
        along = posing.between(bones[0], bones[1])
        goal = np.array([along[0], 0.0, along[2] * 0.75])
        posing.turn(bones[0], align(along, goal))
        along = posing.between(bones[1], bones[2])
        posing.turn(bones[1], align(along, goal))
        posing.turn(bones[2], align(along, goal))
