"""Numbers for the places where the open body has looked least like a body.

    python -m tools.bake_open_models.weak_spots FOLDER [FOLDER]

prints them for one or more folders of files, such as those before and after a change; the last one needs
textures.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from tools.bake_open_models.models import Arrays
from tools.bake_open_models.mouth import ordered_loop
from tools.bake_open_models.packing import FILES, read_npz
from tools.bake_open_models.trees import TREES

_NO_PARENT = 2**31


def posed(model: Arrays, turns: Mapping[int, tuple[float, float, float]]) -> np.ndarray:
    """(V, 3) of the mean body with some joints turned by axis-angle vectors in degrees; float64, plainly
    written."""
    parents = model["kintree_table"][0].astype(np.int64)
    template, weights = model["v_template"].astype(np.float64), model["weights"].astype(np.float64)
    joints = model["J_regressor"].astype(np.float64) @ template
    matrices = np.tile(np.eye(3), (len(parents), 1, 1))
    for joint, degrees in turns.items():
        matrices[joint] = Rotation.from_rotvec(np.deg2rad(degrees)).as_matrix()
    template = template + model["posedirs"].astype(np.float64) @ (matrices[1:] - np.eye(3)).ravel()
    world, places = matrices.copy(), joints.copy()
    for joint, parent in enumerate(parents):
        if 0 <= parent < _NO_PARENT and joint:
            world[joint] = world[parent] @ matrices[joint]
            places[joint] = places[parent] + world[parent] @ (joints[joint] - joints[parent])
    shift = places - np.einsum("jab,jb->ja", world, joints)
    blended = np.einsum("vj,jab->vab", weights, world)
    posed_template: np.ndarray = np.einsum("vab,vb->va", blended, template) + weights @ shift
    return posed_template


def shoulder_slope(model: Arrays, kind: str = "smpl", degrees: float = 60) -> tuple[float, float]:
    """Of the outline over the shoulders with the arms down by so many degrees: how steeply it falls between
    the neck and the shoulder joint, and its sharpest turn within 6 cm, both in degrees."""
    joints = TREES[kind].joints
    left, right, neck = (joints.index(name) for name in ("L_shoulder", "R_shoulder", "neck"))
    places = posed(model, {left: (0, 0, -degrees), right: (0, 0, degrees)})
    outline = _outline(places, model["f"].astype(np.int64))
    joint = model["J"][left].astype(np.float64)
    start = model["J"][neck, 0] + 0.09  # beside the neck
    slope = np.rad2deg(np.arctan2(outline(start) - outline(joint[0]), joint[0] - start))
    # Along the outline from beside the neck to where the arm falls.
    x = np.linspace(start, joint[0] + 0.05, 120)
    line = np.stack([x, [outline(value) for value in x]], 1)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.arange(0, length[-1], 0.002)
    even = np.stack([np.interp(at, length, line[:, k]) for k in range(2)], 1)
    step = 15  # 3 cm
    before, after = even[step:-step] - even[: -2 * step], even[2 * step :] - even[step:-step]
    turn = np.arctan2(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0], (before * after).sum(1))
    return float(slope), float(np.rad2deg(-turn).max())


class _outline:
    """The upper outline of a mesh seen from the front, as a function of x."""

    def __init__(self, places: np.ndarray, faces: np.ndarray) -> None:
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        self._start, self._end = places[edges[:, 0], :2], places[edges[:, 1], :2]

    def __call__(self, x: float) -> float:
        over = (self._start[:, 0] <= x) & (self._end[:, 0] >= x)
        start, end = self._start[over], self._end[over]
        share = (x - start[:, 0]) / (end[:, 0] - start[:, 0] + 1e-12)
        return float((start[:, 1] + share * (end[:, 1] - start[:, 1])).max())


def mouth_rim(flame: Arrays) -> np.ndarray:
    """The loop of vertices around the mouth: the seam of its own in the texture, where the cavity begins."""
    faces, uv = flame["f"].astype(np.int64), flame["vt"][flame["ft"].astype(np.int64)]
    in_cavity = uv.mean(1)[:, 1] < 0.14  # which lies alone at the foot of the texture
    return ordered_loop(faces, np.intersect1d(faces[in_cavity], faces[~in_cavity]))


def mouth_roundness(flame: Arrays, loop: np.ndarray, degrees: float = 25) -> float:
    """The share of its bounding box that the open mouth fills, seen from the front: a diamond 0.5, an ellipse
    0.785. `loop`: its rim."""
    places = posed(flame, {TREES["flame"].joints.index("jaw"): (degrees, 0, 0)})
    x, y = places[loop, 0], places[loop, 1]
    area = abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2
    return float(area / np.ptp(x) / np.ptp(y))


def wrist_depth(hand: Arrays) -> float:
    """How far the wrist joint lies inside the plane of the cut, metres; below 0 it lies outside."""
    faces, template = hand["f"].astype(np.int64), hand["v_template"].astype(np.float64)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    open_edges, counts = np.unique(edges, axis=0, return_counts=True)
    loop = template[ordered_loop(faces, np.unique(open_edges[counts == 1]))]
    middle = loop.mean(0)
    normal = np.linalg.svd(loop - middle)[2][2]
    normal *= np.sign(normal @ (template.mean(0) - middle))
    nearest = ((hand["J"][0].astype(np.float64) - loop) @ normal).min()
    return float(nearest)


def wrist_bulk(hand: Arrays) -> float:
    """How uneven the cut is: how far its vertices lie from their plane at most, metres."""
    faces, template = hand["f"].astype(np.int64), hand["v_template"].astype(np.float64)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    open_edges, counts = np.unique(edges, axis=0, return_counts=True)
    loop = template[np.unique(open_edges[counts == 1])]
    normal = np.linalg.svd(loop - loop.mean(0))[2][2]
    return float(np.abs((loop - loop.mean(0)) @ normal).max())


def measure(folder: Path, rim: np.ndarray | None = None) -> dict[str, float]:
    """All numbers of the files below a folder; `rim`: the mouth's, for files without textures."""
    smpl, hand, flame = (
        read_npz(folder / FILES[kind, "neutral"]) for kind in ("smpl", "mano_right", "flame")
    )
    numbers = {}
    for degrees in (45, 60, 75):
        slope, turn = shoulder_slope(smpl, degrees=degrees)
        numbers[f"shoulder, arms {degrees} down: fall of the outline, degrees"] = slope
        numbers[f"shoulder, arms {degrees} down: sharpest turn, degrees"] = turn
    rim = mouth_rim(flame) if rim is None else rim
    for degrees in (10, 25):
        numbers[f"mouth open by {degrees}: share of its box"] = mouth_roundness(flame, rim, degrees)
    numbers["wrist joint inside the cut, mm"] = wrist_depth(hand) * 1000
    numbers["cut off its plane, mm"] = wrist_bulk(hand) * 1000
    return numbers


def main(folders: list[str]) -> None:
    rim = mouth_rim(read_npz(Path(folders[-1]) / FILES["flame", "neutral"]))
    measured = [measure(Path(folder), rim) for folder in folders]
    for name in measured[0]:
        print(f"{name:60s}" + "".join(f"{numbers[name]:9.3f}" for numbers in measured))


if __name__ == "__main__":
    main(sys.argv[1:])
