"""Meshes out to trimesh and to files that mesh viewers open."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from neuralannot.atomic import whole_file
from neuralannot.raycast import checked_indices, to_numpy

if TYPE_CHECKING:
    import trimesh

__all__ = ["save_mesh", "save_meshes", "to_trimesh"]

_SUFFIXES = (".obj", ".ply", ".glb")
# glTF is y up and z towards the viewer; camera space is y down and z away: half a turn about x.
_CAMERA_TO_GLTF = np.diag([1.0, -1.0, -1.0, 1.0])


def to_trimesh(vertices: ArrayLike, faces: ArrayLike) -> trimesh.Trimesh:
    """A `trimesh.Trimesh` with the same vertices in the same order: nothing is merged or dropped.

    Args:
        vertices: (V, 3) metres, a numpy array or torch tensor.
        faces: (F, 3) integer vertex indices.

    Raises:
        TypeError: `faces` are not integers.
        ValueError: a shape or index is not as above, or a vertex is NaN or infinite.
    """
    import trimesh

    points = to_numpy(vertices)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"vertices must be (V, 3), got {points.shape}; pass one body at a time")
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        raise ValueError(f"vertices must be finite, got {(~finite).sum()} of {len(points)} that are not")
    triangles = checked_indices("faces", faces, len(points), 3)
    # trimesh keeps a reference to what it is given.
    return trimesh.Trimesh(points.astype(np.float64), triangles, process=False, validate=False)


def save_mesh(path: str | os.PathLike[str], vertices: ArrayLike, faces: ArrayLike) -> None:
    """Write a mesh as `.obj`, `.ply` or `.glb`, by the suffix of `path`.

    Coordinates are stored as they are given (float32 in PLY and GLB, eight decimals in OBJ): in camera space,
    y down. By the definition of glTF y is up, so the *node* of a GLB carries half a turn about x, by which
    viewers show the person upright, as the camera does; the vertices in the file are still those given.

    The folder is created if need be. The file appears whole or not at all: written aside, then renamed.

    Args:
        path: the file to write or replace.
        vertices: (V, 3) metres, at least one.
        faces: (F, 3) integer vertex indices, at least one.

    Raises:
        TypeError: `faces` are not integers.
        ValueError: as `to_trimesh`, or an empty mesh, or another suffix.
    """
    import trimesh
    from trimesh.exchange.gltf import export_glb
    from trimesh.exchange.obj import export_obj
    from trimesh.exchange.ply import export_ply

    path = Path(path)
    suffix = _checked_suffix(path.suffix, path)
    mesh = to_trimesh(vertices, faces)
    if len(mesh.faces) == 0:
        raise ValueError(
            f"{path.name}: a mesh without faces cannot be written, got {len(mesh.vertices)} vertices"
        )
    if suffix == ".glb":
        scene = trimesh.Scene()
        scene.add_geometry(mesh, geom_name=path.stem, node_name=path.stem, transform=_CAMERA_TO_GLTF)
        # Without normals in the file, viewers show every triangle flat.
        data = export_glb(scene, include_normals=True)
    elif suffix == ".ply":
        data = export_ply(mesh, vertex_normal=False)
    else:
        data = export_obj(mesh, digits=8, include_normals=False, header=None).encode()

    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_bytes(data)


def save_meshes(
    folder: str | os.PathLike[str],
    names: Sequence[str | int],
    vertices: Sequence[ArrayLike],
    faces: Sequence[ArrayLike] | np.ndarray,
    *,
    suffix: str = ".obj",
) -> list[Path]:
    """Write N meshes as `folder/name.suffix`, see `save_mesh`; returns the paths in that order.

    Args:
        folder: created if need be.
        names: N different file names without suffix, for instance annotation ids.
        vertices: N arrays (V_i, 3), or one (N, V, 3), metres.
        faces: N integer arrays (F_i, 3), or one (F, 3) array for all meshes.
        suffix: `".obj"`, `".ply"` or `".glb"`.

    Raises:
        TypeError, ValueError: as `save_mesh`; also names that repeat, are empty or hold a folder, and lengths
            that differ. Names and lengths are checked before anything is written.
    """
    suffix = _checked_suffix(suffix, "suffix")
    stems = [str(name) for name in names]
    for stem in stems:
        if stem in ("", ".", "..") or "/" in stem or "\\" in stem:
            raise ValueError(f"names must be plain file names without a folder, got {stem!r}")
    if len(set(stems)) < len(stems):
        raise ValueError(f"names must differ, got {next(s for s in stems if stems.count(s) > 1)!r} twice")
    shared = to_numpy(faces) if hasattr(faces, "ndim") else None
    per_mesh = [shared] * len(stems) if shared is not None and shared.ndim == 2 else faces
    if not len(stems) == len(vertices) == len(per_mesh):
        raise ValueError(
            f"names, vertices, faces must be as many, got {len(stems)}, {len(vertices)} and {len(per_mesh)}"
        )
    paths = [Path(folder) / f"{stem}{suffix}" for stem in stems]
    for path, points, corners in zip(paths, vertices, per_mesh, strict=True):
        save_mesh(path, points, corners)
    return paths


def _checked_suffix(suffix: str, where: object) -> str:
    if suffix.lower() not in _SUFFIXES:
        raise ValueError(
            f"{where}: meshes are written as {', '.join(_SUFFIXES)}, got {suffix or 'no suffix'!r}"
        )
    return suffix.lower()
