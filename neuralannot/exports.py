"""Bodies -> files: a mesh each, or joints and parameters of all as npz."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from neuralannot.atomic import whole_file
from neuralannot.bodies import Bodies
from neuralannot.pseudo_gt import PseudoGT

__all__ = ["MESH_FORMATS", "export_joints", "export_meshes", "row_names", "write_npz"]

MESH_FORMATS = ("obj", "ply", "glb")


def row_names(gt: PseudoGT) -> list[str]:
    """A file name stem for each row: its id, or its frame key joined by dashes, and a hand's side."""
    keys: Sequence[object] = gt.ids.tolist() if gt.joined or "id" in gt.view else gt.keys
    names = ["-".join(map(str, k)) if isinstance(k, tuple) else str(k) for k in keys]
    if gt.side is not None:
        names = [f"{name}-{side}" for name, side in zip(names, gt.side, strict=True)]
    return names


def export_meshes(
    gt: PseudoGT,
    folder: str | os.PathLike[str],
    *,
    suffix: str = "obj",
    body_models: str | os.PathLike[str] | None = None,
    space: str = "camera",
    batch_size: int = 64,
    progress: bool = False,
) -> list[Path]:
    """Write the mesh of every row to `folder/<id>.<suffix>`, metres; returns the paths.

    `suffix`: `obj`, `ply` or `glb`. The folder is made if it is not there. Raises as `PseudoGT.forward`.
    """
    from tqdm import tqdm

    from neuralannot.meshes import save_mesh

    if suffix not in MESH_FORMATS:
        raise ValueError(f"unknown mesh format {suffix!r}; expected one of {', '.join(MESH_FORMATS)}")
    folder = Path(folder)
    names = row_names(gt)
    if len(set(names)) != len(names):
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise ValueError(f"{twice}: asked for more than once; every mesh has a file of its own")
    paths: list[Path] = []
    batches = gt.forward_batches(body_models=body_models, space=space, batch_size=batch_size)
    with tqdm(total=len(gt), unit="mesh", disable=not progress) as bar:
        for bodies in batches:
            assert bodies.vertices is not None
            folder.mkdir(parents=True, exist_ok=True)
            for row in range(len(bodies)):
                path = folder / f"{names[len(paths)]}.{suffix}"
                save_mesh(path, bodies.vertices[row].numpy(), bodies.faces_of(row))
                paths.append(path)
                bar.update()
    return paths


def export_joints(
    gt: PseudoGT,
    path: str | os.PathLike[str],
    *,
    body_models: str | os.PathLike[str] | None = None,
    space: str = "camera",
    regressor: object = None,
    batch_size: int = 256,
    progress: bool = False,
) -> Path:
    """Write joints and parameters of every row to one npz, in one step.

    Arrays: `joints` (N, J, 3) metres in `space`, `joint_names` (J,), `joints_2d` (N, J, 2) px where there are
    cameras, `names` (N,) as the meshes are called, `param_<name>` as stored (`PseudoGT.params`),
    `valid_<part>`, `gender`, `focal`, `princpt`. No object arrays: `np.load` reads it without pickles.
    """
    from tqdm import tqdm

    batches = gt.forward_batches(
        want="joints", body_models=body_models, space=space, regressor=regressor, batch_size=batch_size
    )
    parts: list[Bodies] = []
    with tqdm(total=len(gt), unit="body", disable=not progress) as bar:
        for bodies in batches:
            parts.append(bodies)
            bar.update(len(bodies))
    names = np.array(parts[0].joint_names if parts else [], str)
    arrays = {
        "joints": np.concatenate(
            [np.zeros((0, len(names), 3), np.float32), *(p.joints.numpy() for p in parts)]
        ),
        "joint_names": names,
        "names": np.array(row_names(gt), str),
        "gender": gt.gender,
        "space": np.array(space),
    }
    if gt.camera is not None:
        projected = [np.zeros((0, len(names), 2), np.float32), *(p.project().numpy() for p in parts)]
        arrays |= {"joints_2d": np.concatenate(projected)}
        arrays |= {"focal": gt.camera.focal, "princpt": gt.camera.princpt}
    arrays |= {f"param_{name}": values for name, values in gt.params.items()}
    arrays |= {f"valid_{part}": values for part, values in gt.valid.items()}
    return write_npz(path, arrays)


def write_npz(path: str | os.PathLike[str], arrays: dict[str, np.ndarray]) -> Path:
    """Write arrays to a compressed npz in one step; the folder is made if it is not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return path
