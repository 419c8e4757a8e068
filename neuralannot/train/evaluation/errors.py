"""Annotations against the true parameters, both as loaded from their files.

All of it goes through `load_pseudo_gt` and the body models, as for a user of the file, through no network.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralannot.metrics import align_similarity, auc, mpjpe, mpvpe
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.train.evaluation.matching import AUC_LIMIT, SKELETON_SIZE, match_files, root_of
from neuralannot.train.evaluation.regressed import called
from neuralannot.train.evaluation.shared_mesh import SharedMesh, shared_mesh
from neuralannot.train.evaluation.spread import mean_of, spread_text

if TYPE_CHECKING:
    import torch

__all__ = ["AnnotationErrors", "annotation_errors"]

_MEASURES = {
    "mpjpe": "MPJPE",
    "pa_mpjpe": "PA-MPJPE",
    "mpvpe": "MPVPE",
    "pa_mpvpe": "PA-MPVPE",
    "root": "root",
}


@dataclass(frozen=True, eq=False)
class AnnotationErrors:
    """Errors of M annotations against the truth, millimetres, float64.

    Fields
    ------
    rows: (M, 2) int64, the row of the annotations and of the truth.
    mpjpe, mpvpe: (M,) mean distance of joints and of vertices, root joints aligned.
    pa_mpjpe, pa_mpvpe: (M,) the same after the best similarity.
    root: (M,) distance of the root joints, NaN where either has no place (faces).
    missing: (K, C) int64, ids or keys (hands: and the side, 0 right, 1 left) that have a truth and no
        annotation; extra: the other way round.
    joints: what the joints are.
    joint_names: J names; per_joint, pa_per_joint: (M, J) float32, the distances that `mpjpe` and `pa_mpjpe`
        are the means of.
    auc: `mpvpe`, `pa_mpvpe` -> (M,) the area under the curve of correct vertices, from 0 to `auc_limit` mm:
        50 for hands, 150 for bodies. Empty for faces, whose limit is None.
    """

    rows: np.ndarray
    mpjpe: np.ndarray
    pa_mpjpe: np.ndarray
    mpvpe: np.ndarray
    pa_mpvpe: np.ndarray
    root: np.ndarray
    missing: np.ndarray
    extra: np.ndarray
    joints: str
    joint_names: tuple[str, ...]
    per_joint: np.ndarray
    pa_per_joint: np.ndarray
    auc: dict[str, np.ndarray]
    auc_limit: float | None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def means(self) -> dict[str, float]:
        """Name -> mean over the rows, millimetres; NaN where there are none."""
        return {name: mean_of(getattr(self, name)) for name in _MEASURES}

    def __str__(self) -> str:
        counts = f"{len(self)} annotations, {len(self.missing)} missing, {len(self.extra)} without a truth"
        table = spread_text("mm", {label: getattr(self, name) for name, label in _MEASURES.items()})
        return f"{counts}; joints: {self.joints}\n{table}"


def annotation_errors(
    gt: PseudoGT,
    truth: PseudoGT,
    *,
    regressor: Any = None,
    body_models: str | os.PathLike[str] | None = None,
    transfer: str | os.PathLike[str] | None = None,
    device: Any = None,
    batch_size: int = 256,
) -> AnnotationErrors:
    """Compare annotations with the true parameters, both as loaded from their files.

    Rows are matched by annotation id where both have ids, else by frame key, hands by side too. Both are
    posed in world space where both are, else in camera space; for that a world release needs its cameras.
    `regressor` as of `PseudoGT.forward`: whose joints are compared; None for the skeleton's. Bodies are
    aligned at the regressor's pelvis or wrist, else at the skeleton's root.

    SMPL is compared with SMPL-X, whichever is the truth, by the meshes in SMPL's topology, at the vertices
    that both have. No skeleton is in a mesh: joints of both come from one regressor of SMPL's vertices, the
    open body's `human36m-17` by default; official bodies need `regressor`, and the transfer matrices of
    `transfer` (default: in `body_models`).

    Raises ValueError for files of other different models, without ids or keys in common to match by, and
    where a frame key says too little because each of its rows stands in a camera of its own; and as
    `PseudoGT.forward` and `shared_mesh`.
    """
    space = "world" if gt.space == truth.space == "world" else "camera"
    rows, missing, extra = match_files(gt, truth, space)
    options: dict[str, Any] = {
        "body_models": body_models,
        "space": space,
        "device": device,
        "batch_size": batch_size,
    }
    pair = [g.rows(chosen) for g, chosen in zip((gt, truth), rows.T, strict=True)]
    placed = [
        g.view.column("valid/transl") if "valid/transl" in g.view else np.ones(len(rows), bool) for g in pair
    ]
    if gt.model == truth.model:
        found, names = _of_one_model(pair, regressor, options)
        what = "the skeleton's" if regressor is None else called(regressor)
    else:
        mesh = shared_mesh(truth, regressor=regressor, body_models=body_models, transfer=transfer)
        found = _of_two_models(pair, mesh, options)
        names, what = mesh.names, mesh.joints
    if len(rows):
        found["root"] = np.where(placed[0] & placed[1], found["root"], np.nan)
    return annotation_errors_of(found, gt.model, rows, names, missing=missing, extra=extra, joints=what)


def _of_one_model(
    pair: Sequence[PseudoGT], regressor: Any, options: dict[str, Any]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """`pair_errors` of rows of the same bodies, and the names of the joints."""
    import torch

    model = pair[0].model
    meshes = [g.forward_batches(want="mesh", regressor=regressor, **options) for g in pair]
    # The skeletons, where a regressor's joints have taken their place and hold no root.
    bones = [g.forward_batches(want="joints", **options) for g in pair]
    names: tuple[str, ...] = ()
    count = SKELETON_SIZE[model]

    def pairs() -> Iterable[_Pair]:
        nonlocal names
        with torch.no_grad():
            for mine, other in zip(*meshes, strict=True):
                names = mine.joint_names if regressor is not None else mine.joint_names[:count]
                at = 0 if regressor is None else root_of(model, mine.joint_names)
                joints = [b.joints[:, :count] if regressor is None else b.joints for b in (mine, other)]
                if at is None:
                    roots = [next(b).joints[:, 0] for b in bones]
                else:
                    roots = [b.joints[:, at] for b in (mine, other)]
                assert mine.vertices is not None
                assert other.vertices is not None
                yield joints[0], joints[1], mine.vertices, other.vertices, roots[0], roots[1]

    return pair_errors(pairs(), auc_limit=AUC_LIMIT.get(model)), names


def _of_two_models(
    pair: Sequence[PseudoGT], mesh: SharedMesh, options: dict[str, Any]
) -> dict[str, np.ndarray]:
    """`pair_errors` of rows of the same bodies in SMPL and in SMPL-X."""
    batches = [g.forward_batches(want="mesh", **options) for g in pair]

    def pairs() -> Iterable[_Pair]:
        for bodies in zip(*batches, strict=True):
            mine, other = map(mesh, bodies)
            yield mine[0], other[0], mine[1], other[1], mine[2], other[2]

    return pair_errors(pairs(), auc_limit=AUC_LIMIT.get(pair[0].model))


#: Joints, vertices and root joints (B, …, 3) of the annotations and of the truth, in metres.
_Pair = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor"]


def pair_errors(pairs: Iterable[_Pair], *, auc_limit: float | None) -> dict[str, np.ndarray]:
    """The measures of batches of annotations and truths: name -> (M,), millimetres; `auc_limit` metres.

    Beside those of `AnnotationErrors`: `per_joint`, `pa_per_joint` (M, J), `auc/mpvpe`, `auc/pa_mpvpe`.
    """
    import torch

    found: dict[str, list[np.ndarray]] = {}
    with torch.no_grad():
        for joints_a, joints_b, mesh_a, mesh_b, root_a, root_b in pairs:
            a, b = joints_a - root_a[:, None], joints_b - root_b[:, None]
            # About their roots: far from the origin float32 is coarse.
            surface_a, surface_b = mesh_a - root_a[:, None], mesh_b - root_b[:, None]
            moved_a, moved_surface = align_similarity(a, b), align_similarity(surface_a, surface_b)
            measured = {
                "mpjpe": mpjpe(a, b),
                "pa_mpjpe": mpjpe(moved_a, b),
                "mpvpe": mpvpe(surface_a, surface_b),
                "pa_mpvpe": mpvpe(moved_surface, surface_b),
                "root": torch.linalg.vector_norm(root_a - root_b, dim=-1),
                "per_joint": torch.linalg.vector_norm(a - b, dim=-1),
                "pa_per_joint": torch.linalg.vector_norm(moved_a - b, dim=-1),
            }
            for name, values in measured.items():
                found.setdefault(name, []).append(values.double().cpu().numpy() * 1000)
            if auc_limit is not None:
                for name, points in (("mpvpe", surface_a), ("pa_mpvpe", moved_surface)):
                    area = auc(points, surface_b, high=auc_limit).double().cpu().numpy()
                    found.setdefault(f"auc/{name}", []).append(area)
    return {name: np.concatenate(values) for name, values in found.items()}


def annotation_errors_of(
    found: dict[str, np.ndarray],
    model: str,
    rows: np.ndarray,
    names: tuple[str, ...],
    *,
    missing: np.ndarray,
    extra: np.ndarray,
    joints: str,
) -> AnnotationErrors:
    """`AnnotationErrors` from what `pair_errors` gives; of no rows, empty ones."""
    empty = np.zeros(0)
    limit = AUC_LIMIT.get(model)
    no_joints = np.zeros((len(rows), len(names)), np.float32)
    return AnnotationErrors(
        rows,
        **{name: found.get(name, empty) for name in _MEASURES},
        missing=missing,
        extra=extra,
        joints=joints,
        joint_names=names,
        per_joint=found.get("per_joint", no_joints).astype(np.float32),
        pa_per_joint=found.get("pa_per_joint", no_joints).astype(np.float32),
        auc={name: found.get(f"auc/{name}", empty) for name in ("mpvpe", "pa_mpvpe") if limit is not None},
        auc_limit=None if limit is None else 1000 * limit,
    )
