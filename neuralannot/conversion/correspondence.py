"""Which vertices of two topologies are the same point of a body.

The official transfer matrices give each vertex of one body as a mean of the other's
(`smpl2smplx_deftrafo_setup.pkl` and its like, of SMPL-X's site: "Model correspondences"). The open bodies
share their vertices: all but one of SMPL's are vertices of SMPL-X, and what SMPL-X has beside them lies
near SMPL's surface. SMPL-H has SMPL's vertices.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix, identity, issparse
from torch import Tensor

from neuralannot.body_models.files import ModelData
from neuralannot.safe_pickle import load_npy, load_pickle

TOPOLOGY = {"smpl": "smpl", "smplh": "smpl", "smplx": "smplx"}
_COUNT = {"smpl": 6890, "smplx": 10475}
_FILES = {
    ("smpl", "smplx"): ("smpl2smplx_deftrafo_setup.pkl", "smplh2smplx_deftrafo_setup.pkl"),
    ("smplx", "smpl"): ("smplx2smpl_deftrafo_setup.pkl", "smplx2smplh_deftrafo_setup.pkl"),
}
_MASK = "smplx_mask_ids.npy"
SITE = "https://smpl-x.is.tue.mpg.de (Download, Model correspondences)"
_EXACT = 1e-4  # metres: closer than this two vertices are one
_COMMON_JOINTS = 22


@dataclass(frozen=True, eq=False)
class Correspondence:
    """A map of meshes: `matrix` (V target, V source) sparse, its rows adding up to 1; `same` (V target,)
    bool: the vertices that have a counterpart, where others are only near one (eyeballs, a mouth's inside).
    """

    matrix: csr_matrix
    same: np.ndarray

    def __call__(self, vertices: Tensor) -> Tensor:
        """(B, V source, 3) -> (B, V target, 3). Raises ValueError for another number of vertices."""
        if vertices.ndim != 3 or vertices.shape[1:] != (self.matrix.shape[1], 3):
            raise ValueError(f"vertices must be (B, {self.matrix.shape[1]}, 3), got {tuple(vertices.shape)}")
        index, weights = self._rows
        index, weights = index.to(vertices.device), weights.to(vertices)
        if index.shape[1] == 1:
            return vertices[:, index[:, 0]]
        mapped = vertices[:, index[:, 0]] * weights[:, :1]
        for column in range(1, index.shape[1]):
            mapped += vertices[:, index[:, column]] * weights[:, column, None]
        return mapped

    @functools.cached_property
    def _rows(self) -> tuple[Tensor, Tensor]:
        """(V, K) which source vertices, and (V, K) their weights, zero where a row has fewer."""
        counts = np.diff(self.matrix.indptr)
        width = max(1, int(counts.max(initial=1)))
        index, weights = np.zeros((len(counts), width), np.int64), np.zeros((len(counts), width))
        row = np.repeat(np.arange(len(counts)), counts)
        place = np.arange(len(row)) - np.repeat(self.matrix.indptr[:-1], counts)
        index[row, place], weights[row, place] = self.matrix.indices, self.matrix.data
        return torch.tensor(index), torch.tensor(weights)


def same_topology(count: int) -> Correspondence:
    """The map of a mesh of `count` vertices to itself."""
    return Correspondence(identity(count, format="csr"), np.ones(count, bool))


def read_transfer(folder: str | os.PathLike[str], source: str, target: str) -> Correspondence:
    """The official map between `smpl` and `smplx`, whichever way, from `folder` or `transfer_data` in it.

    The files are dicts with `mtx` (V target, V source or twice that; sparse or not; the second half, for
    normals, is not used) or `matrix`. SMPL-H's files serve too. `smplx_mask_ids.npy` beside it says which of
    SMPL-X's vertices SMPL has; without it, those with a row that adds up to 1.

    Raises FileNotFoundError that names the file and the site; ValueError for a file that holds no such
    matrix, `RefusedPickleError` where it asks for code to be run.
    """
    names = _FILES[source, target]
    places = [Path(folder) / "transfer_data", Path(folder)]
    path = next((p / name for p in places for name in names if (p / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"{names[0]} not in {folder} or {Path(folder) / 'transfer_data'}; "
            f"get it from {SITE} and give its folder as transfer="
        )
    rows, columns = _COUNT[target], _COUNT[source]
    held = load_pickle(path)
    matrix = next((held[k] for k in ("mtx", "matrix") if isinstance(held, dict) and k in held), None)
    shape = getattr(matrix, "shape", None)
    if matrix is None or shape not in ((rows, columns), (rows, 2 * columns)):
        raise ValueError(
            f"{path}: expected a dict with 'mtx' ({rows}, {columns}) or ({rows}, {2 * columns}), got "
            f"{'none' if matrix is None else shape}; get it again from {SITE}"
        )
    if matrix.dtype.kind not in "biuf":
        raise ValueError(f"{path}: mtx must hold numbers, got {matrix.dtype}; get it again from {SITE}")
    # scipy knows no half precision
    kind = np.float32 if matrix.dtype == np.float16 else matrix.dtype
    whole = csr_matrix(matrix.astype(kind) if issparse(matrix) else np.asarray(matrix, kind))
    sparse = whole[:, :columns].astype(np.float64)
    if not np.isfinite(sparse.data).all():
        raise ValueError(f"{path}: mtx holds values that are not finite; get it again from {SITE}")
    sparse.eliminate_zeros()
    same = np.abs(np.asarray(sparse.sum(1))[:, 0] - 1) < 1e-3
    mask = next((p / _MASK for p in (path.parent, *places) if (p / _MASK).is_file()), None)
    if target == "smplx" and mask is not None:
        named = np.asarray(load_npy(mask)).reshape(-1)
        if named.dtype.kind not in "iu" or (len(named) and not 0 <= named.min() <= named.max() < rows):
            raise ValueError(f"{mask}: expected vertex numbers of SMPL-X, 0..{rows - 1}")
        only = np.zeros(rows, bool)
        only[named] = True
        same &= only
    return Correspondence(sparse, same)


def open_correspondence(source: ModelData, target: ModelData) -> Correspondence:
    """The map between the open SMPL and SMPL-X, from how they lie over each other at rest.

    A vertex that both have is itself; another is the nearest point of the source's surface.
    """
    from scipy.spatial import cKDTree

    joints = [m.J_regressor[:_COMMON_JOINTS].astype(np.float64) @ m.v_template for m in (source, target)]
    there = source.v_template.astype(np.float64)
    goal = target.v_template.astype(np.float64) + (joints[0] - joints[1]).mean(axis=0)
    distance, nearest = cKDTree(there).query(goal)
    same = distance < _EXACT
    index = np.repeat(nearest[:, None], 3, 1)
    weights = np.tile([1.0, 0.0, 0.0], (len(goal), 1))
    rest = np.flatnonzero(~same)
    if len(rest):
        index[rest], weights[rest] = nearest_on_surface(goal[rest], there, source.faces)
    rows = np.repeat(np.arange(len(goal)), 3)
    matrix = csr_matrix((weights.ravel(), (rows, index.ravel())), shape=(len(goal), len(there)))
    matrix.eliminate_zeros()
    return Correspondence(matrix, same)


def nearest_on_surface(
    points: np.ndarray, vertices: np.ndarray, faces: np.ndarray, *, among: int = 24
) -> tuple[np.ndarray, np.ndarray]:
    """(P, 3) points -> the nearest points of a surface: (P, 3) vertex numbers, (P, 3) their weights.

    Searched are the `among` faces whose centres are nearest, which for faces of about one size is all.
    """
    from scipy.spatial import cKDTree

    corners = vertices[faces]  # (F, 3, 3)
    among = min(among, len(faces))
    _, near = cKDTree(corners.mean(axis=1)).query(points, k=among)
    near = near.reshape(len(points), among)
    weights = _nearest_weights(points[:, None], corners[near])
    places = np.einsum("pkc,pkcd->pkd", weights, corners[near])
    best = np.linalg.norm(places - points[:, None], axis=2).argmin(axis=1)
    row = np.arange(len(points))
    return faces[near[row, best]], weights[row, best]


def _nearest_weights(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(..., 3) points, (..., 3, 3) triangles -> (..., 3) barycentric weights of the nearest point."""
    a, b, c = np.moveaxis(corners, -2, 0)
    ab, ac, ap = b - a, c - a, points - a
    d11, d12, d22 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d1, d2 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    area = np.maximum(d11 * d22 - d12**2, 1e-30)
    v, w = (d22 * d1 - d12 * d2) / area, (d11 * d2 - d12 * d1) / area
    inside = np.stack([1 - v - w, v, w], -1)
    found, least = inside, np.where((inside >= 0).all(-1), 0.0, np.inf)
    # Beyond the triangle it is the nearest point of one of the edges.
    for one, other in ((0, 1), (1, 2), (2, 0)):
        p, q = corners[..., one, :], corners[..., other, :]
        edge = q - p
        t = (((points - p) * edge).sum(-1) / np.maximum((edge * edge).sum(-1), 1e-30)).clip(0, 1)
        distance = np.linalg.norm(p + t[..., None] * edge - points, axis=-1)
        on_edge = np.zeros_like(inside)
        on_edge[..., one], on_edge[..., other] = 1 - t, t
        nearer = distance < least
        found, least = np.where(nearer[..., None], on_edge, found), np.where(nearer, distance, least)
    return found
