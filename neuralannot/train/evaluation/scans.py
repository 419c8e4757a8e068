"""Annotations against 3D scans: from every point of a scan to the surface of the fitted mesh.

The protocol is that of the face benchmarks NoW (Sanyal et al., CVPR 2019) and Stirling (Feng et al., FG
2018):

1. the mesh is brought to the scan by named landmarks where the scan has some (NoW: corners of the eyes and
   the mouth, bottom of the nose), else it starts from where the fit put it;
2. then by the rigid motion that makes the squares of the scan-to-mesh distances least; with `similarity` by
   size too, which is what both benchmarks do for methods that do not know it, with `rigid` not (NoW's
   metrical evaluation), with `none` step 1 is left out as well;
3. the error is the distance from each of the scan's points to the nearest place of the mesh's triangles (not
   to its nearest vertex): median, mean and standard deviation over all points of all scans, in millimetres.

Which part of a scan counts is decided by the file: crop it as your benchmark says (Stirling: a ball about the
face's centre). Differences to NoW's own code: distances are squared without a robust function, and the motion
is found by Levenberg-Marquardt on distances to the surface instead of a dogleg on chumpy's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.exports import row_names
from neuralannot.metrics import fit_similarity
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.evaluation.spread import mean_of, spread_text
from neuralannot.train.evaluation.surface import Surface
from neuralannot.train.evaluation.units import metres_per

__all__ = ["ALIGNMENTS", "Scan", "ScanErrors", "align_to_scan", "read_scan", "scan_errors", "scan_files"]

#: How a mesh may be moved before it is measured.
ALIGNMENTS = ("none", "rigid", "similarity")

_SUFFIXES = (".ply", ".obj", ".stl", ".npy", ".npz")
_POINTS = 2000  # of a scan that decide the alignment; all are measured
_STEPS = 60
_GAIN = 1e-6  # relative; less is no step worth taking


@dataclass(frozen=True, eq=False)
class Scan:
    """`points` (P, 3) float32 metres; `landmarks`: a joint's name -> (3,) metres on the scan."""

    points: np.ndarray
    landmarks: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class ScanErrors:
    """Distances of M scans to the meshes fitted to them, millimetres.

    Fields
    ------
    rows: (M,) int64, the row of the annotations.
    distances: M arrays (P,) float32, of every point of the scan.
    median, mean, std: (M,) float64, over the points of a scan.
    scale: (M,) how much larger the mesh was made; 1 but for `similarity`.
    missing: number of annotations without a scan; extra: names of files without an annotation.
    align: one of `ALIGNMENTS`.
    """

    rows: np.ndarray
    distances: tuple[np.ndarray, ...]
    median: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    scale: np.ndarray
    missing: int
    extra: tuple[str, ...]
    align: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def pooled(self) -> dict[str, float]:
        """`median`, `mean`, `std` over all points of all scans, as the benchmarks report; NaN for none."""
        everything = np.concatenate([np.zeros(0), *self.distances])
        if not len(everything):
            return dict.fromkeys(("median", "mean", "std"), float("nan"))
        return {
            "median": float(np.median(everything)),
            "mean": float(everything.mean()),
            "std": float(everything.std()),
        }

    @property
    def means(self) -> dict[str, float]:
        """`median`, `mean`, `std`: the mean over the scans of each scan's."""
        return {name: mean_of(getattr(self, name)) for name in ("median", "mean", "std")}

    def __str__(self) -> str:
        pooled = ", ".join(f"{name} {value:.2f}" for name, value in self.pooled.items())
        table = spread_text("mm", {"median": self.median, "mean": self.mean, "std": self.std})
        return (
            f"{len(self)} scans, alignment {self.align}, {self.missing} annotations without one, "
            f"{len(self.extra)} scans without an annotation\nall points: {pooled} mm\n{table}"
        )


def scan_errors(
    gt: PseudoGT,
    folder: str | os.PathLike[str],
    *,
    unit: str = "m",
    align: str = "rigid",
    body_models: str | os.PathLike[str] | None = None,
    device: Any = None,
    batch_size: int = 64,
    progress: bool = False,
) -> ScanErrors:
    """Compare annotations with the scans in `folder`, by the protocol of this module.

    A scan is called as its row (`exports.row_names`: `476384.ply`, `476384-left.ply`, `1-2-1-0.npz`), see
    `read_scan`. Fits stay in their own space, the camera's or the world's: scans in another frame need
    landmarks. `unit`: of the scans' coordinates, `m` or `mm`; `align`: one of `ALIGNMENTS`.

    Raises ValueError for an unknown alignment or unit, a scan that cannot be read, or one that is a thousand
    times as large as its mesh; FileNotFoundError where there is no such folder, or no scan of a row in it.
    """
    from tqdm import tqdm

    if align not in ALIGNMENTS:
        raise ValueError(f"align must be one of {', '.join(ALIGNMENTS)}, got {align!r}")
    metres_per(unit)
    files, extra = scan_files(gt, folder)
    rows = np.array(sorted(files), np.int64)
    part = gt.rows(rows)
    batches = part.forward_batches(
        want="mesh", body_models=body_models, space=gt.space, device=device, batch_size=batch_size
    )
    distances: list[np.ndarray] = []
    scales: list[float] = []
    with tqdm(total=len(rows), unit="scan", disable=not progress) as bar:
        for bodies in batches:
            assert bodies.vertices is not None
            vertices, joints = (x.double().cpu().numpy() for x in (bodies.vertices, bodies.joints))
            for row in range(len(bodies)):
                path = files[int(rows[len(distances)])]
                scan = read_scan(path, unit=unit)
                _check_size(scan.points, vertices[row], path, unit)
                surface = Surface(vertices[row], bodies.faces_of(row))
                named = dict(zip(bodies.joint_names, joints[row], strict=True))
                try:
                    scale, away = measure_scan(surface, scan, named, align=align)
                except ValueError as error:
                    raise ValueError(f"{path}: {error}") from None
                distances.append((1000 * away).astype(np.float32))
                scales.append(scale)
                bar.update()
    of_scans = {
        "median": np.array([np.median(d) for d in distances], np.float64),
        "mean": np.array([d.mean(dtype=np.float64) for d in distances], np.float64),
        "std": np.array([d.std(dtype=np.float64) for d in distances], np.float64),
    }
    return ScanErrors(
        rows,
        tuple(distances),
        scale=np.array(scales, np.float64),
        missing=len(gt) - len(rows),
        extra=extra,
        align=align,
        **of_scans,
    )


def measure_scan(
    surface: Surface, scan: Scan, named: Mapping[str, np.ndarray], *, align: str
) -> tuple[float, np.ndarray]:
    """Scale of the mesh and the distances (P,) of a scan's points to it, metres of the scan.

    `named`: the mesh's joints and landmarks, name -> (3,). Raises ValueError for landmarks of other names.
    """
    if align == "none":
        return 1.0, surface.nearest(scan.points)[0]
    unknown = sorted(set(scan.landmarks) - set(named))
    if unknown:
        raise ValueError(f"the mesh has no landmark {unknown[0]!r}; its are {', '.join(sorted(named))}")
    start = None
    if scan.landmarks:
        pair = [np.array([where[n] for n in scan.landmarks], np.float64) for where in (named, scan.landmarks)]
        start = (pair[0], pair[1])
    scale, rotation, shift = align_to_scan(surface, scan.points, landmarks=start, scale=align == "similarity")
    back = (scan.points - shift) @ rotation / scale
    return scale, scale * surface.nearest(back)[0]


def align_to_scan(
    surface: Surface,
    points: np.ndarray,
    *,
    landmarks: tuple[np.ndarray, np.ndarray] | None = None,
    scale: bool = False,
) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation (3, 3) and shift (3,): `s R x + t` brings the mesh to the scan's points (P, 3).

    They make the sum of the squared distances from the points to the moved surface least, from a start by
    `landmarks` ((L, 3) of the mesh, (L, 3) of the scan, at least three) or from where both are; without
    `scale` it stays 1. A local minimum near the start: scans in another frame need landmarks. Of many points
    2,000, evenly spread over the file's order, decide. Levenberg-Marquardt on the distances, which are
    differentiable where the nearest place is unique.

    Raises ValueError for fewer than three points or landmarks, and landmarks on one line.
    """
    points = np.asarray(points, np.float64)
    if len(points) < 3:
        raise ValueError(f"a scan needs at least three points, got {len(points)}")
    if len(points) > _POINTS:
        points = points[np.linspace(0, len(points) - 1, _POINTS).astype(int)]
    # The scan moves to the mesh, whose trees are made once: q = g Q p + u, the inverse of what is asked for.
    g, rotation, shift = 1.0, np.eye(3), np.zeros(3)
    if landmarks is not None:
        g, rotation, shift = _by_landmarks(landmarks[1], landmarks[0], scale=scale)
    damping = 1e-3
    residual, jacobian = _linearised(surface, points, g, rotation, shift, scale=scale)
    for _ in range(_STEPS):
        cost = residual @ residual
        normal, gradient = jacobian.T @ jacobian, jacobian.T @ residual
        taken = False
        while damping < 1e6 and not taken:
            size = np.diag(normal) + 1e-12 * max(np.trace(normal), 1e-30)
            step = -np.linalg.solve(normal + damping * np.diag(size), gradient)
            moved = _stepped(points, g, rotation, shift, step)
            after, other = _linearised(surface, points, *moved, scale=scale)
            taken = after @ after <= cost
            damping = max(damping / 5, 1e-9) if taken else damping * 8
        if not taken:
            break
        (g, rotation, shift), residual, jacobian = moved, after, other
        if cost - after @ after <= _GAIN * cost:
            break
    back = rotation.T / g
    return 1 / g, rotation.T, -back @ shift


def _linearised(
    surface: Surface, points: np.ndarray, g: float, rotation: np.ndarray, shift: np.ndarray, *, scale: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Distances in the scan's size (P,), and their derivatives (P, 6 or 7) by turn, shift and log scale.

    The turn is about the scan's middle.
    """
    moved = g * points @ rotation.T + shift
    away, place, face = surface.nearest(moved)
    off = moved - place
    # On the surface the distance has no direction but that of its normal.
    small = away < 1e-9
    direction = off / np.where(small, 1, away)[:, None]
    direction[small] = surface.normals(face[small])
    arm = moved - moved.mean(axis=0)
    columns = [np.cross(arm, direction), direction]
    if scale:
        # d/dlog(g) of away / g, about the middle: the points spread, and all distances shrink.
        columns.append(((arm * direction).sum(axis=1) - away)[:, None])
    return away / g, np.concatenate(columns, axis=1) / g


def _stepped(
    points: np.ndarray, g: float, rotation: np.ndarray, shift: np.ndarray, step: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """The motion after a turn, a shift and a change of size about the scan's middle."""
    from scipy.spatial.transform import Rotation

    middle = g * points.mean(axis=0) @ rotation.T + shift
    turn = Rotation.from_rotvec(step[:3]).as_matrix()
    factor = float(np.exp(np.clip(step[6], -0.5, 0.5))) if len(step) > 6 else 1.0
    return g * factor, turn @ rotation, factor * turn @ (shift - middle) + middle + step[3:6]


def _by_landmarks(
    source: np.ndarray, target: np.ndarray, *, scale: bool
) -> tuple[float, np.ndarray, np.ndarray]:
    """What brings the landmarks of a scan to the mesh's in the least squares."""
    source, target = (np.asarray(x, np.float64) for x in (source, target))
    if len(source) < 3:
        raise ValueError(f"three landmarks or more align a scan, got {len(source)}")
    size, rotation, _ = fit_similarity(source, target)
    if not np.isfinite(rotation).all():
        raise ValueError("the landmarks lie on one line or hold NaN: they determine no rotation")
    g = float(size) if scale else 1.0
    return g, rotation, target.mean(axis=0) - g * rotation @ source.mean(axis=0)


# --- files


def scan_files(gt: PseudoGT, folder: str | os.PathLike[str]) -> tuple[dict[int, Path], tuple[str, ...]]:
    """Row -> its scan's file; the names of files that belong to no row.

    Raises FileNotFoundError for no such folder or no scan of any row, ValueError for two files of one row.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of scans")
    there: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in _SUFFIXES or not path.is_file():
            continue
        if path.stem in there:
            raise ValueError(f"{folder}: {there[path.stem].name} and {path.name} are of one row; keep one")
        there[path.stem] = path
    names = row_names(gt)
    found = {row: there[name] for row, name in enumerate(names) if name in there}
    if not found:
        wanted = f"{names[0]}.ply" if names else "files"
        raise FileNotFoundError(
            f"{folder}: no scan of any annotation; expected names like {wanted} ({', '.join(_SUFFIXES)}), "
            f"got {', '.join(list(there)[:3]) or 'none'}"
        )
    return found, tuple(sorted(set(there) - {names[row] for row in found}))


def read_scan(path: str | os.PathLike[str], *, unit: str = "m") -> Scan:
    """Read a scan: `.ply`, `.obj`, `.stl` (their vertices), `.npy` (P, 3), or `.npz` with `points` (P, 3).

    An `.npz` may hold `landmarks` (L, 3) and `landmark_names` (L,), names of the model's joints (FLAME's have
    51 landmarks among them); those that are NaN are left out. `unit`: `m` or `mm`. Points that are not finite
    are left out. Nothing in a file is executed. Raises ValueError, with the file, for anything else.
    """
    path, factor = Path(path), metres_per(unit)
    landmarks: dict[str, np.ndarray] = {}
    try:
        if path.suffix.lower() == ".npy":
            points = np.load(path, allow_pickle=False)
        elif path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as file:
                points = file["points"]
                if "landmarks" in file:
                    values = np.asarray(file["landmarks"], np.float64).reshape(-1, 3) * factor
                    names = [str(name) for name in np.atleast_1d(file["landmark_names"])]
                    pairs = zip(names, values, strict=True)
                    landmarks = {name: value for name, value in pairs if np.isfinite(value).all()}
        else:
            points = _mesh_points(path)
        points = np.asarray(points, np.float32)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever a broken file does to its reader
        raise ValueError(f"{path}: not a scan that can be read: {error!r:.160}") from None
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"{path}: points must be (P, 3), got {points.shape}")
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) < 3:
        raise ValueError(f"{path}: a scan needs at least three points, got {len(points)}")
    return Scan(points * np.float32(factor), landmarks)


def _mesh_points(path: Path) -> np.ndarray:
    import trimesh

    # Process and materials would merge vertices and look for more files.
    loaded = trimesh.load(path, process=False, maintain_order=True, skip_materials=True)
    parts: list[Any] = list(loaded.geometry.values()) if isinstance(loaded, trimesh.Scene) else [loaded]
    return np.concatenate([np.asarray(part.vertices) for part in parts])


def _check_size(points: np.ndarray, vertices: np.ndarray, path: Path, unit: str) -> None:
    """A unit that was not said shows: heads are not 200 metres high."""
    scan, mesh = (float(np.ptp(x, axis=0).max()) for x in (points, vertices))
    if not mesh / 100 < scan < mesh * 100:
        raise ValueError(
            f"{path}: the scan is {scan:.4g} m large, the mesh {mesh:.4g} m; is unit={unit!r} right? "
            "It is m or mm"
        )
