"""The models' vertices as combinations of the source's, under the numbers that smplx has for those it
names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from smplx.vertex_ids import vertex_ids

from tools.bake_open_models.source import Source
from tools.bake_open_models.splitting import Row
from tools.bake_open_models.topology import EYEBALL, HEAD, LEFT_HAND, RIGHT_HAND, Topology
from tools.bake_open_models.wrists import slide_cuts


@dataclass(frozen=True, eq=False)
class Layout:
    """V `rows` of a model, each a combination of the source's N vertices, and its triangles `faces` (F, 3).

    `origin` (V,): the source vertex that a row is in the topology, -1 for those of the eyeballs. `moved` (V,)
    bool: rows that have left its place on the skin, and so its place in the texture.
    """

    rows: tuple[Row, ...]
    faces: np.ndarray
    num_source: int
    origin: np.ndarray
    moved: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def matrix(self) -> sp.csr_matrix:
        """(V, N)."""
        lengths = [len(row) for row in self.rows]
        numbers = np.repeat(np.arange(len(self.rows)), lengths)
        columns = np.concatenate([list(row) for row in self.rows]).astype(int)
        values = np.concatenate([list(row.values()) for row in self.rows])
        return sp.csr_matrix((values, (numbers, columns)), shape=(len(self.rows), self.num_source))

    def place(self, of_source: np.ndarray) -> np.ndarray:
        """(V, ...) of what the source's vertices (N, ...) have."""
        flat: np.ndarray = self.matrix @ of_source.reshape(self.num_source, -1)
        return flat.reshape(len(self), *of_source.shape[1:])

    def spread(self, of_source: np.ndarray) -> np.ndarray:
        """(K, V, 3) of directions (K, N, 3)."""
        return self.place(of_source.transpose(1, 0, 2)).transpose(1, 0, 2)

    def of_source(self) -> np.ndarray:
        """(V,): the one source vertex that a row is, -1 where it is a mixture."""
        return np.array([next(iter(row)) if len(row) == 1 else -1 for row in self.rows])

    def renumbered(self, order: np.ndarray) -> Layout:
        """The same mesh with row i being what row `order[i]` was."""
        place = np.argsort(order)
        rows = tuple(self.rows[i] for i in order)
        return Layout(rows, place[self.faces], self.num_source, self.origin[order], self.moved[order])


@dataclass(frozen=True, eq=False)
class Layouts:
    """`of_kind`: model -> layout; `subsets`: `smplx_flame`, `smplx_mano_left`, `smplx_mano_right` -> the
    SMPL-X vertex that each vertex of that model is."""

    of_kind: dict[str, Layout]
    subsets: dict[str, np.ndarray]


def make_layouts(source: Source, topology: Topology) -> Layouts:
    """All five models' vertices, numbered."""
    slid = slide_cuts(source, topology)
    smplx, part = _smplx(source, topology, slid)
    kinds = {
        "smpl": _smpl(source, topology, slid),
        "smplx": smplx,
        "flame": _cut(smplx, np.isin(part, (HEAD, EYEBALL))),
        "mano_right": _cut(smplx, part == RIGHT_HAND),
        "mano_left": _cut(smplx, part == LEFT_HAND),
    }
    named = _with_pupils(source, topology)
    wanted = {"smpl": vertex_ids["smplh"], "smplx": vertex_ids["smplx"]}
    wanted["mano_right"] = {f"r{finger}": number for finger, number in vertex_ids["mano"].items()}
    orders = {kind: np.arange(len(layout)) for kind, layout in kinds.items()}
    for kind, numbers in wanted.items():
        places = {nearest_row(source, kinds[kind], named[name]): number for name, number in numbers.items()}
        if len(places) != len(numbers):
            raise RuntimeError(f"two of smplx's named vertices are one vertex of {kind}")
        orders[kind] = numbered(places, len(kinds[kind]))
    # Vertex i of the left hand mirrors vertex i of the right one.
    left = {int(vertex): row for row, vertex in enumerate(kinds["mano_left"].origin)}
    right = kinds["mano_right"].origin
    orders["mano_left"] = np.array([left[int(topology.mirror[right[row]])] for row in orders["mano_right"]])

    place = np.argsort(orders["smplx"])
    parts = {"flame": (HEAD, EYEBALL), "mano_left": (LEFT_HAND,), "mano_right": (RIGHT_HAND,)}
    subsets = {
        f"smplx_{kind}": place[np.flatnonzero(np.isin(part, parts[kind]))][orders[kind]] for kind in parts
    }
    return Layouts({kind: layout.renumbered(orders[kind]) for kind, layout in kinds.items()}, subsets)


def _smplx(source: Source, topology: Topology, slid: dict[int, Row]) -> tuple[Layout, np.ndarray]:
    used = np.unique(topology.skin)
    rows: list[Row] = [{int(vertex): 1.0} for vertex in used]
    faces = [np.searchsorted(used, topology.skin)]
    part = [topology.part[used]]
    for eye_rows, eye_faces in topology.eyes:
        faces.append(eye_faces + len(rows))
        rows += eye_rows
        part.append(np.full(len(eye_rows), EYEBALL))
    origin = np.concatenate([used, np.full(len(rows) - len(used), -1)])
    for row, vertex in enumerate(used):
        rows[row] = slid.get(int(vertex), rows[row])
    moved = (origin < 0) | np.isin(origin, list(slid))
    layout = Layout(tuple(rows), np.concatenate(faces), len(source.template), origin, moved)
    return layout, np.concatenate(part)


def _cut(layout: Layout, kept: np.ndarray) -> Layout:
    place = np.cumsum(kept) - 1
    faces = place[layout.faces[kept[layout.faces].all(1)]]
    (rows,) = np.nonzero(kept)
    of_rows = tuple(layout.rows[i] for i in rows)
    return Layout(of_rows, faces, layout.num_source, layout.origin[rows], layout.moved[rows])


def _smpl(source: Source, topology: Topology, slid: dict[int, Row]) -> Layout:
    """The mouth's one vertex is the mean of its neighbours; those of a socket lie on the eyeball.

    SMPL has no cut at the wrists; its skin slides there all the same, so that its vertices stay SMPL-X's.
    """
    used = np.unique(topology.smpl)
    faces = np.searchsorted(used, topology.smpl)
    rows: list[Row] = [slid.get(int(vertex), {int(vertex): 1.0}) for vertex in used]
    for cavity, vertices in topology.membranes.items():
        for vertex in vertices:
            row = int(np.searchsorted(used, vertex))
            around = np.setdiff1d(used[np.unique(faces[(faces == row).any(1)])], vertices)
            if cavity == "mouth_cavity":
                rows[row] = {int(other): 1 / len(around) for other in around}
            else:
                eyeball = source.vertices_of(f"eye_front.{cavity[-1]}")
                aside = source.mean[eyeball] - source.mean[around].mean(0)
                rows[row] = {int(eyeball[np.argmin((aside[:, :2] ** 2).sum(1))]): 1.0}
    return Layout(tuple(rows), faces, len(source.template), used, np.isin(used, list(slid)))


def _with_pupils(source: Source, topology: Topology) -> dict[str, int]:
    named = dict(topology.named)
    for name, side in (("leye", "L"), ("reye", "R")):
        eyeball = source.vertices_of(f"eye_front.{side}")
        named[name] = int(eyeball[np.argmax(source.mean[eyeball, 2])])
    return named


def nearest_row(source: Source, layout: Layout, vertex: int) -> int:
    """The row that is a source vertex, or else the nearest to it."""
    (same,) = np.nonzero(layout.of_source() == vertex)
    if len(same):
        return int(same[0])
    return int(np.argmin(((layout.place(source.mean) - source.mean[vertex]) ** 2).sum(1)))


def numbered(places: dict[int, int], count: int) -> np.ndarray:
    """(count,) order that puts row a at number b for each a: b, by swaps, and leaves the others where they
    are."""
    order = np.arange(count)
    place = {row: row for row in range(count)}
    for row, number in places.items():
        here, other = place[row], int(order[number])
        order[here], order[number] = other, row
        place[other], place[row] = here, number
    return order
