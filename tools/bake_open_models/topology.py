"""Meshes with the published numbers of vertices.

SMPL-X's 10475 are a head of 5023 (3931 of skin and two eyeballs of 546), two hands of 778 and 3896 others.
FLAME is the head, MANO a hand, which ends in a loop of 16 edges and so has 1538 faces. SMPL's 6890 are what
is left when the skin is decimated further, eye sockets and mouth closed by thin membranes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tools.bake_open_models.decimation import Decimator, Limits, mirror_map
from tools.bake_open_models.source import Source
from tools.bake_open_models.splitting import Row, split_longest

OTHER, HEAD, LEFT_HAND, RIGHT_HAND, EYEBALL = range(5)
CAVITIES = ("eye_cavity.L", "eye_cavity.R", "mouth_cavity")
_SKIN = {OTHER: 3896, HEAD: 3931, LEFT_HAND: 778, RIGHT_HAND: 778}
_WRIST_EDGES, _EYE_VERTICES, _SMPL_VERTICES = 16, 546, 6890
_MEMBRANES = {"eye_cavity.L": 3, "eye_cavity.R": 3, "mouth_cavity": 1}


@dataclass(frozen=True, eq=False)
class Topology:
    """Meshes of source vertices.

    `skin` (F, 3): SMPL-X's without eyeballs; `part` (N,): which of OTHER, HEAD, LEFT_HAND, RIGHT_HAND a
    source vertex of the skin is; `eyes`: of the left and right eyeball, rows and faces; `smpl` (F, 3);
    `membranes`: cavity -> the source vertices that are left of it in `smpl`; `named`: smplx's names of
    vertices -> source vertex; `mirror` (N,).
    """

    skin: np.ndarray
    part: np.ndarray
    eyes: tuple[tuple[list[Row], np.ndarray], tuple[list[Row], np.ndarray]]
    smpl: np.ndarray
    membranes: Mapping[str, tuple[int, ...]]
    named: Mapping[str, int]
    mirror: np.ndarray


def make_topology(source: Source) -> Topology:
    """Decimate the skin twice and split the eyeballs."""
    vertices = source.mean
    is_eye = source.in_region("eye_front.L", "eye_front.R", "eye_back.L", "eye_back.R")
    is_skin = ~is_eye & ~source.in_region("tongue")
    skin = source.faces[is_skin]
    part, border = _parts(source, is_skin)
    mirror = mirror_map(vertices)
    if (mirror[np.unique(skin)] < 0).any():
        raise RuntimeError("the source's skin is not symmetric: some vertices have no mirror image")
    named = name_vertices(source, np.unique(skin), mirror)

    inside = {name: np.setdiff1d(source.vertices_of(name), source.vertices_of("head")) for name in CAVITIES}
    density = np.ones(len(vertices))
    density[part == HEAD] = 30.0
    density[np.concatenate(list(inside.values()))] = 0.2
    decimator = Decimator(
        vertices,
        skin,
        region=part,
        border=border,
        mirror=mirror,
        locked=named.values(),
        spread=2.0,
        density=density,
    )
    decimator.run({}, loops={LEFT_HAND: _WRIST_EDGES, RIGHT_HAND: _WRIST_EDGES})
    decimator.run(_SKIN)
    counts = {region: decimator.counts[region] for region in _SKIN}
    if counts != _SKIN:
        raise RuntimeError(f"the skin was to be decimated to {_SKIN} vertices, got {counts}")
    smplx = decimator.faces()
    membranes = _close_cavities(decimator, source, inside)
    _decimate_to_smpl(decimator, part, membranes)
    return Topology(smplx, part, _eyeballs(source), decimator.faces(), membranes, named, mirror)


def _parts(source: Source, is_skin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) part of each vertex, -1 off the skin, and (N,) loop it lies on; loops belong to head and hands."""
    of_part = (
        is_skin & ~source.in_region("head", *CAVITIES, "hand.L", "hand.R"),
        is_skin & source.in_region("head", *CAVITIES),
        is_skin & source.in_region("hand.L"),
        is_skin & source.in_region("hand.R"),
    )
    part, border = np.full(len(source.template), -1), np.full(len(source.template), -1)
    others = np.unique(source.faces[of_part[OTHER]])
    part[others] = OTHER
    for number in (HEAD, LEFT_HAND, RIGHT_HAND):
        own = np.unique(source.faces[of_part[number]])
        part[own] = number
        border[np.intersect1d(own, others)] = number
    return part, border


def name_vertices(source: Source, skin: np.ndarray, mirror: np.ndarray) -> dict[str, int]:
    """The source's vertices that smplx names (`lthumb`, `LBigToe`, ...): the outermost of each part."""
    vertices, heads = source.mean, source.mean_heads

    def farthest(among: np.ndarray, direction: np.ndarray | tuple[float, ...]) -> int:
        return int(among[np.argmax(vertices[among] @ np.asarray(direction, float))])

    def moved_by(bone: str) -> np.ndarray:
        return np.intersect1d(np.flatnonzero(source.weights[:, source.bone(bone)] > 0.5), skin)

    head = source.vertices_of("head")
    middle = head[np.abs(vertices[head, 0]) < 2e-3]
    eye_height = vertices[source.vertices_of("eye_front.L"), 1].mean()
    below = (vertices[middle, 1] < eye_height) & (vertices[middle, 1] > eye_height - 0.07)
    named = {"nose": farthest(middle[below], (0, 0, 1)), "lear": farthest(head, (1, 0, -0.15))}
    for number, finger in enumerate(("thumb", "index", "middle", "ring", "pinky"), start=1):
        last = f"finger{number}-3.L"
        along = heads[source.bone(last)] - heads[source.bone(f"finger{number}-2.L")]
        named[f"l{finger}"] = farthest(moved_by(last), along)
    named["LBigToe"] = farthest(moved_by("toe1-2.L"), (0, 0, 1))
    named["LSmallToe"] = farthest(moved_by("toe5-3.L"), (0.5, 0, 1))
    named["LHeel"] = farthest(moved_by("foot.L"), (0, -0.35, -1))
    for name, vertex in list(named.items()):
        if name[0] in "lL":
            named[("r" if name[0] == "l" else "R") + name[1:]] = int(mirror[vertex])
    return named


def _eyeballs(source: Source) -> tuple[tuple[list[Row], np.ndarray], tuple[list[Row], np.ndarray]]:
    def split(side: str) -> tuple[list[Row], np.ndarray]:
        faces = source.faces[source.in_region(f"eye_front.{side}", f"eye_back.{side}")]
        used = np.unique(faces)
        rows: list[Row] = [{int(vertex): 1.0} for vertex in used]
        return split_longest(rows, np.searchsorted(used, faces), source.mean[used], _EYE_VERTICES)

    return split("L"), split("R")


def _close_cavities(
    decimator: Decimator, source: Source, inside: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, ...]]:
    """Shrink sockets and mouth to a few vertices each, the rims as they are; what is left of each."""
    numbers = {name: 9 + i for i, name in enumerate(CAVITIES)}
    region = np.where(decimator.region >= 0, 0, -1)
    border = np.full(len(region), -1)
    for name in CAVITIES:
        region[inside[name]] = numbers[name]
        border[source.rim(name)] = 99
    decimator.regions(region, border)
    decimator.run(
        {numbers[name]: count for name, count in _MEMBRANES.items()},
        limits=Limits(turn=-2, thin=1e-7),  # a membrane may fold
        among=np.concatenate(list(inside.values())),
    )
    left = {name: tuple(int(v) for v in inside[name] if int(v) in decimator) for name in CAVITIES}
    if {name: len(vertices) for name, vertices in left.items()} != _MEMBRANES:
        raise RuntimeError(f"cavities were to keep {_MEMBRANES} vertices, got {left}")
    return left


def _decimate_to_smpl(
    decimator: Decimator, part: np.ndarray, membranes: Mapping[str, tuple[int, ...]]
) -> None:
    decimator.regions(decimator.region, np.full(len(part), -1))
    kept = [vertex for vertices in membranes.values() for vertex in vertices]
    decimator.locked |= set(kept)
    decimator.density = np.where(part == HEAD, 4.0, 1.0)
    decimator.run({0: _SMPL_VERTICES - len(kept)}, limits=Limits(turn=0.2))
    if len(decimator.vertices) != _SMPL_VERTICES:
        raise RuntimeError(f"SMPL was to have {_SMPL_VERTICES} vertices, got {len(decimator.vertices)}")
