"""Annotations against true meshes of the same topology."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.parameters import SIDES, human_model
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.evaluation.errors import AnnotationErrors, annotation_errors_of, pair_errors
from neuralannot.train.evaluation.matching import (
    AUC_LIMIT,
    has_ids,
    has_repeats,
    pair_keys,
    root_of,
    with_side,
)
from neuralannot.train.evaluation.regressed import body_of, called, joints_of_vertices
from neuralannot.train.evaluation.units import UNITS, metres_per

__all__ = ["TrueMeshes", "mesh_errors", "read_meshes"]

_NAMES = ("vertices", "ids", "keys", "side", "space", "unit")


@dataclass(frozen=True, eq=False)
class TrueMeshes:
    """N meshes that are known to be true.

    Fields
    ------
    source: where they are from, for messages.
    vertices: (N, V, 3), as stored (an `.npy` stays mapped); a mesh with NaN is unknown.
    metres: what one unit of `vertices` is.
    keys: (N, K) int64, annotation ids (K = 1) or frame keys; None where the meshes are in the order of the
        annotations' rows.
    side: (N,) str "right" or "left" for hands, None otherwise.
    space: `camera` or `world`; None where it is not said, and taken as that of the annotations.

    Raises ValueError where shapes do not fit together.
    """

    source: str
    vertices: np.ndarray
    metres: float = 1.0
    keys: np.ndarray | None = None
    side: np.ndarray | None = None
    space: str | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.vertices)
        if len(shape) != 3 or shape[2] != 3 or not np.issubdtype(self.vertices.dtype, np.floating):
            raise ValueError(
                f"{self.source}: vertices must be (N, V, 3) floats, got {self.vertices.dtype} {shape}"
            )
        count = shape[0]
        if self.keys is not None and (
            self.keys.ndim != 2 or len(self.keys) != count or not np.issubdtype(self.keys.dtype, np.integer)
        ):
            raise ValueError(
                f"{self.source}: keys must be ({count}, K) integers and ids ({count},), one for each mesh, "
                f"got {self.keys.dtype} {self.keys.shape}"
            )
        if self.side is not None and (self.side.shape != (count,) or not np.isin(self.side, SIDES).all()):
            raise ValueError(f"{self.source}: side must be ({count},) of {', '.join(SIDES)}")
        if self.space not in (None, "camera", "world"):
            raise ValueError(f"{self.source}: space must be camera or world, got {self.space!r}")

    def __len__(self) -> int:
        return len(self.vertices)


def read_meshes(path: str | os.PathLike[str], *, unit: str | None = None) -> TrueMeshes:
    """Read true meshes from an `.npz` or `.npy`.

    `.npz`: `vertices` (N, V, 3) and one of `ids` (N,) and `keys` (N, K), of hands `side` (N,) of "right" and
    "left" too; optional `unit` ("m", "mm") and `space` ("camera", "world"). `.npy`: (N, V, 3), in the order
    of the annotations' rows. `unit`: of the coordinates, where the file does not say; metres where neither
    does.

    No pickles are read. Raises FileNotFoundError, and ValueError for another file, for arrays that are not
    these, and for a unit that is not the file's.
    """
    path = Path(path)
    if unit is not None:
        metres_per(unit)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of meshes")
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".npy"):
        raise ValueError(f"{path}: meshes are read from .npz and .npy, got {path.suffix or 'no suffix'!r}")
    arrays: dict[str, np.ndarray] = {}
    try:
        if suffix == ".npy":
            arrays["vertices"] = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in _NAMES if name in file}
                found = sorted(file.files)
    except Exception as error:  # whatever a broken archive does to its reader
        raise ValueError(f"{path}: not a whole {suffix} without pickles: {error!r:.160}") from None
    if "vertices" not in arrays:
        raise ValueError(f"{path}: no 'vertices' (N, V, 3) in it, only {', '.join(found) or 'nothing'}")
    if suffix == ".npz" and ("ids" in arrays) == ("keys" in arrays):
        raise ValueError(
            f"{path}: expected one of 'ids' (N,) and 'keys' (N, K), which say whose meshes they are"
        )
    said = str(arrays["unit"]) if "unit" in arrays else None
    if said is not None and said not in UNITS:
        raise ValueError(f"{path}: its unit must be one of {', '.join(UNITS)}, got {said!r}")
    if None not in (said, unit) and said != unit:
        raise ValueError(f"{path}: its unit is {said}, asked for was {unit}; leave unit out")
    keys = arrays["ids"].reshape(-1, 1) if "ids" in arrays else arrays.get("keys")
    return TrueMeshes(
        str(path),
        arrays["vertices"],
        metres_per(said or unit or "m"),
        keys,
        arrays.get("side"),
        str(arrays["space"]) if "space" in arrays else None,
    )


def mesh_errors(
    gt: PseudoGT,
    meshes: TrueMeshes,
    *,
    regressor: Any = None,
    body_models: str | os.PathLike[str] | None = None,
    device: Any = None,
    batch_size: int = 256,
) -> AnnotationErrors:
    """Compare annotations with true meshes, vertex by vertex.

    Joints of both are regressed from the vertices: by `regressor` (as of `PseudoGT.forward`), else by the
    model's own regressor, which is made for bodies at rest and so gives joints near, but not at, those that
    bones meet in; both sides alike. Bodies are aligned at the regressor's pelvis or wrist, else at the
    model's root. `rows` holds the rows of the annotations and of `meshes`. Meshes with NaN give NaN.

    Raises ValueError for meshes of another number of vertices, of another space than the fits can be posed
    in, that cannot be matched, or that are a thousand times as large; and as `PseudoGT.forward`.
    """
    vertices = human_model(gt.model).num_vertices
    if meshes.vertices.shape[1] != vertices:
        raise ValueError(
            f"{meshes.source}: meshes of {meshes.vertices.shape[1]} vertices, {gt.model} has {vertices}; "
            "meshes are compared vertex by vertex, so bring them to this topology first"
        )
    space = meshes.space or gt.space
    rows, missing, extra = _match(gt, meshes, space)
    part = gt.rows(rows[:, 0])
    body = body_of(gt.model, body_models, is_hand=gt.side is not None)
    names, linear = joints_of_vertices(body, regressor)
    at = root_of(gt.model, names)
    own = linear if regressor is None else joints_of_vertices(body)[1]
    batches = part.forward_batches(
        want="mesh", body_models=body_models, space=space, device=device, batch_size=batch_size
    )

    def pairs() -> Iterator[Any]:
        import torch

        done = 0
        for bodies in batches:
            fitted = bodies.vertices
            assert fitted is not None
            stored = np.asarray(meshes.vertices[rows[done : done + len(bodies), 1]], np.float32)
            true = torch.tensor(stored * np.float32(meshes.metres)).to(fitted)
            if not done:
                _check_size(true, fitted, meshes)
            done += len(bodies)
            weights, roots = (w.to(fitted) for w in (linear, own))
            joints = [weights @ mesh for mesh in (fitted, true)]
            if at is None:
                # The first of the model's own: what its bodies turn about.
                origin = [(roots[0] @ mesh) for mesh in (fitted, true)]
            else:
                origin = [j[:, at] for j in joints]
            yield (*joints, fitted, true, *origin)

    found = pair_errors(pairs(), auc_limit=AUC_LIMIT.get(gt.model))
    what = "the skeleton's, regressed from the vertices" if regressor is None else called(regressor)
    return annotation_errors_of(found, gt.model, rows, names, missing=missing, extra=extra, joints=what)


def _match(gt: PseudoGT, meshes: TrueMeshes, space: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `match_files`."""
    if meshes.keys is None:
        if len(meshes) != len(gt):
            raise ValueError(
                f"{meshes.source}: {len(meshes)} meshes without ids for {len(gt)} annotations; give as many, "
                "or an .npz with ids or keys"
            )
        rows = np.arange(len(gt))
        none = np.zeros((0, 1), np.int64)
        return np.stack([rows, rows], axis=1), none, none
    if gt.side is not None and meshes.side is None:
        raise ValueError(
            f"{meshes.source}: {gt.release} holds hands; side (N,) must say which meshes are whose"
        )
    by_id = has_ids(gt) and meshes.keys.shape[1] == 1
    if not by_id and ("key" not in gt.view or gt.view.column("key").shape[1] != meshes.keys.shape[1]):
        raise ValueError(
            f"{meshes.source}: keys of {meshes.keys.shape[1]} numbers; {gt.release} is keyed by "
            f"({', '.join(gt.catalogued.key_names)})"
        )
    mine = with_side(gt.ids[:, None] if by_id else gt.view.column("key"), gt.side)
    other = with_side(meshes.keys, meshes.side if gt.side is not None else None)
    # In the world a frame's fit is the same for all of its cameras.
    if has_repeats(other) or (space == "camera" and has_repeats(mine)):
        source = meshes.source if has_repeats(other) else gt.release
        raise ValueError(f"{source}: a key stands in several rows; meshes are matched one to one, by ids say")
    return pair_keys(mine, other)


def _check_size(true: Any, fitted: Any, meshes: TrueMeshes) -> None:
    """A unit that was not said shows: people are not a kilometre high."""
    sizes = [float((m.amax(dim=1) - m.amin(dim=1)).amax(dim=-1).nanmedian()) for m in (true, fitted)]
    if np.isfinite(sizes).all() and not sizes[1] / 100 < sizes[0] < sizes[1] * 100:
        raise ValueError(
            f"{meshes.source}: meshes of {sizes[0]:.4g} m, the fits are of {sizes[1]:.4g} m; are they in "
            "mm or m? say unit"
        )
