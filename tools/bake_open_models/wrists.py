"""Where the hands are cut off: far enough up the arm that the wrist joint lies inside the hand.

MakeHuman's hand ends in a slanted loop right at the joint. Here the loop, and the skin around it, slides up
the arm: topology and surface stay, and so do all vertices more than a few centimetres away.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from tools.bake_open_models.source import Source
from tools.bake_open_models.splitting import Row
from tools.bake_open_models.surface import closest_on_triangles
from tools.bake_open_models.topology import LEFT_HAND, Topology

_INSIDE = 0.008  # metres from the wrist joint up the arm to the cut
_REACH = 0.035  # metres from the cut in which the skin slides with it
_NEAR = 64


def slide_cuts(source: Source, topology: Topology) -> dict[int, Row]:
    """Vertex of the skin -> where it is to lie, a mixture of the corners of a source triangle; both
    wrists."""
    places = source.mean
    joint = source.mean_heads[source.bone("wrist.L")]
    skin = np.unique(topology.skin)
    loop = cut_loop(topology, LEFT_HAND)
    along = places - joint  # the arm runs along x
    # The loop's place along the arm, as a plane over the arm's section.
    section = np.column_stack([np.ones(len(loop)), along[loop, 1:]])
    plane, *_ = np.linalg.lstsq(section, along[loop, 0], rcond=None)
    of_plane = np.column_stack([np.ones(len(places)), along[:, 1:]]) @ plane
    away = along[:, 0] - of_plane
    shift = (-_INSIDE - of_plane) * np.cos(np.clip(away / _REACH, -1, 1) * np.pi / 2) ** 2
    shift[loop] = -_INSIDE - along[loop, 0]
    near = skin[(np.abs(away[skin]) < _REACH) & (np.linalg.norm(along[skin], axis=1) < 0.08)]

    hand = np.flatnonzero(
        ~source.in_region("eye_front.L", "eye_front.R", "eye_back.L", "eye_back.R", "tongue")
    )
    middles = cKDTree(places[source.faces[hand]].mean(1))
    rows: dict[int, Row] = {}
    for vertex in near:
        goal = places[vertex] + [shift[vertex], 0, 0]
        among = np.sort(hand[middles.query(goal, _NEAR)[1]])
        corners = places[source.faces[among]]
        weights = closest_on_triangles(goal, corners)
        apart = (((weights[:, :, None] * corners).sum(1) - goal) ** 2).sum(1)
        best = int(np.argmin(np.round(apart, 14)))
        row = {
            int(v): float(w)
            for v, w in zip(source.faces[among[best]], weights[best], strict=True)
            if w > 1e-9
        }
        rows[int(vertex)] = row
        rows[int(topology.mirror[vertex])] = {int(topology.mirror[v]): w for v, w in row.items()}
    return rows


def cut_loop(topology: Topology, part: int) -> np.ndarray:
    """Vertices of the loop around a part."""
    inside = (topology.part[topology.skin] == part).all(1)
    others = np.unique(topology.skin[~inside])
    return np.intersect1d(np.flatnonzero(topology.part == part), others)
