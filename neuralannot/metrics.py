"""Errors between predicted and true points, per sample.

Points are numpy arrays or torch tensors ``(…, K, C)``, prediction and target of one kind and shape; ``valid``
is ``(…, K)`` bool of the same kind, all True when None. Results are ``(…,)``, in the unit of the input
(metres in, metres out), its floating dtype and on its device. They are NaN for a sample without a valid
point: average with ``np.nanmean`` / ``torch.nanmean``, which weighs samples alike. Values at invalid points
never matter, NaN included; NaN at a valid point gives NaN, so mark what is missing. Gradients flow through
all but ``pck`` and ``auc``.

Alignment is a step of its own: ``mpjpe(align_root(pred, 0), align_root(target, 0))`` is what papers call
MPJPE, and ``mpjpe(pred, target, root=0)`` says the same.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = [
    "align_root",
    "align_similarity",
    "auc",
    "fit_similarity",
    "mpjpe",
    "mpvpe",
    "pa_mpjpe",
    "pa_mpvpe",
    "pck",
    "projected_error",
    "reprojection_error",
]

ArrayT = TypeVar("ArrayT", np.ndarray, "torch.Tensor")

# Relative variance that float32 coordinates have from rounding alone, (3e-7)^2.
_ROUNDING = 1e-13


def mpjpe(pred: ArrayT, target: ArrayT, *, valid: ArrayT | None = None, root: int | None = None) -> ArrayT:
    """Mean per-joint position error (…,) of joints (…, K, 3).

    ``root``: index of the joint that is moved to the origin in both first, as in published numbers (0 is the
    pelvis of the body models and the wrist of MANO); None compares the positions as they are. A sample whose
    root is not valid is NaN. Raises ValueError for wrong shapes or a root outside the joints.
    """
    xp, pred, target, mask = _inputs(pred, target, valid, width=3)
    if root is not None:
        pred, target = align_root(pred, root), align_root(target, root)
        mask = mask & mask[..., root, None]
    error: ArrayT = _masked_mean(xp, _distances(xp, pred, target, mask), mask)
    return error


def pa_mpjpe(pred: ArrayT, target: ArrayT, *, valid: ArrayT | None = None) -> ArrayT:
    """Procrustes-aligned MPJPE (…,): ``mpjpe`` after ``align_similarity``, both over the valid joints.

    NaN where the target's valid joints do not determine a rotation, see ``fit_similarity``.
    """
    xp, pred, target, mask = _inputs(pred, target, valid, width=3)
    # Invalid points leave before the alignment and undetermined samples after it, so that the NaN of either
    # does not reach the gradients.
    pred = xp.where(mask[..., None], pred, xp.zeros_like(pred))
    scale, rotation, translation, determined = _umeyama(xp, pred, target, mask)
    mask = mask & determined[..., None]
    error: ArrayT = _masked_mean(
        xp, _distances(xp, _move(pred, scale, rotation, translation), target, mask), mask
    )
    return error


def mpvpe(
    pred: ArrayT,
    target: ArrayT,
    *,
    valid: ArrayT | None = None,
    roots: tuple[ArrayT, ArrayT] | None = None,
) -> ArrayT:
    """Mean per-vertex position error (…,) of vertices (…, V, 3) of one topology.

    ``roots``: the root joint (…, 3) of prediction and target, each moved to the origin first, as in published
    numbers (vertices have no root of their own); None compares the positions as they are.
    """
    if roots is not None:
        pred, target = align_root(pred, roots[0]), align_root(target, roots[1])
    return mpjpe(pred, target, valid=valid)


def pa_mpvpe(pred: ArrayT, target: ArrayT, *, valid: ArrayT | None = None) -> ArrayT:
    """Procrustes-aligned MPVPE (…,), the alignment over the valid vertices; see ``pa_mpjpe``."""
    return pa_mpjpe(pred, target, valid=valid)


def reprojection_error(pred: ArrayT, target: ArrayT, *, valid: ArrayT | None = None) -> ArrayT:
    """Mean distance (…,) in pixels between projected and annotated joints (…, K, 2)."""
    xp, pred, target, mask = _inputs(pred, target, valid, width=2)
    error: ArrayT = _masked_mean(xp, _distances(xp, pred, target, mask), mask)
    return error


def projected_error(pixels: ArrayT, target: ArrayT, *, valid: ArrayT | None = None) -> ArrayT:
    """As `reprojection_error`, of joints that a camera projected: one behind it has no pixel (NaN).

    A sample with such a joint among its valid ones has no error that means much: it is infinite.
    """
    xp, pixels, target, mask = _inputs(pixels, target, valid, width=2)
    behind = (mask & ~xp.isfinite(pixels).all(-1)).any(-1)
    error = _masked_mean(xp, _distances(xp, pixels, target, mask & ~behind[..., None]), mask)
    found: ArrayT = xp.where(behind, xp.full_like(error, float("inf")), error)
    return found


def pck(pred: ArrayT, target: ArrayT, *, threshold: float | ArrayT, valid: ArrayT | None = None) -> ArrayT:
    """Share (…,) of valid points (…, K, 2 or 3) that lie within a threshold (inclusive) of the target.

    ``threshold`` is one number or one per sample (…,), in the unit of the points; for PCKh on MPII that is
    half the head segment. Align first if that is meant. NaN as everywhere in this module.
    """
    xp, pred, target, mask = _inputs(pred, target, valid, width=None)
    distances = _distances(xp, pred, target, mask)
    limit: Any = threshold
    if getattr(limit, "ndim", 0):
        if tuple(limit.shape) != tuple(distances.shape[:-1]):
            raise ValueError(
                f"threshold must be a number or {tuple(distances.shape[:-1])}, got {tuple(limit.shape)}"
            )
        limit = limit[..., None]
    hits = xp.where(distances <= limit, xp.ones_like(distances), xp.zeros_like(distances))
    share: ArrayT = _masked_mean(xp, xp.where(xp.isnan(distances), distances, hits), mask)
    return share


def auc(
    pred: ArrayT,
    target: ArrayT,
    *,
    valid: ArrayT | None = None,
    low: float = 0.0,
    high: float = 0.05,
    steps: int = 100,
) -> ArrayT:
    """Area (…,) in [0, 1] under the curve of PCK over the threshold.

    As FreiHAND evaluates hands, 0 to 50 mm in 100 steps: ``trapezoid(pck(t), t) / (high - low)`` over
    ``t = linspace(low, high, steps)``, in the unit of the points, so that the defaults are for metres. For
    the pooled number of a data set, reshape its points to (1, N * K, 3). Align first if that is meant. Raises
    ValueError unless ``low < high`` and ``steps >= 2``.
    """
    if not (low < high and steps >= 2):
        raise ValueError(f"auc needs low < high and steps >= 2, got low={low}, high={high}, steps={steps}")
    xp, pred, target, mask = _inputs(pred, target, valid, width=None)
    distances = _distances(xp, pred, target, mask)
    # The trapezoid sum is linear in PCK, so each point has an area of its own: that under the step which
    # rises at the first threshold it passes. The last entry is for points that pass none.
    thresholds = np.linspace(low, high, steps)
    areas = np.concatenate([[steps - 1.0], steps - 0.5 - np.arange(1, steps), [0.0]]) / (steps - 1)
    found: Any = _float64(distances)
    if xp is np:
        scores: Any = areas[np.searchsorted(thresholds, found)].astype(distances.dtype)
    else:
        found = found.detach().contiguous()
        first = xp.searchsorted(xp.as_tensor(thresholds, device=found.device), found)
        scores = xp.as_tensor(areas, dtype=distances.dtype, device=found.device)[first]
    area: ArrayT = _masked_mean(xp, xp.where(xp.isnan(distances), distances, scores), mask)
    return area


def align_root(points: ArrayT, root: int | ArrayT) -> ArrayT:
    """Return points (…, K, C) relative to one of them (an index) or to a position (…, C)."""
    if isinstance(root, int | np.integer):
        if not -points.shape[-2] <= root < points.shape[-2]:
            raise ValueError(f"root must be an index of {points.shape[-2]} points, got {root}")
        about: ArrayT = points - points[..., root, None, :]
        return about
    position: Any = root
    expected = (*points.shape[:-2], points.shape[-1])
    if tuple(position.shape) != expected:
        raise ValueError(f"root must be an index or a position {expected}, got {tuple(position.shape)}")
    moved: ArrayT = points - position[..., None, :]
    return moved


def align_similarity(pred: ArrayT, target: ArrayT, *, valid: ArrayT | None = None) -> ArrayT:
    """Return ``pred`` (…, K, 3) moved onto ``target`` by the best similarity, see ``fit_similarity``.

    The alignment is of the valid points and is applied to all. NaN where it is not determined.
    """
    moved: ArrayT = _move(pred, *fit_similarity(pred, target, valid=valid))
    return moved


def fit_similarity(
    pred: ArrayT, target: ArrayT, *, valid: ArrayT | None = None
) -> tuple[ArrayT, ArrayT, ArrayT]:
    """Return scale (…,), rotation (…, 3, 3) and translation (…, 3) that bring ``pred`` closest to ``target``.

    They minimise the sum over the valid points (…, K, 3) of ``|s R pred + t - target|^2`` with R a rotation,
    never a reflection (Umeyama, PAMI 1991), computed in float64 and returned so.

    Degenerate: NaN where fewer than three points are valid, or where the valid points of the *target* lie on
    one line or in one point. A *prediction* that collapsed to a line or a point still has its smallest error,
    which counts (the rotation is one of several equally good; the scale of a point is 0). Gradients are those
    of the SVD: exact, but undefined where the best rotation is not unique.
    """
    xp, pred, target, mask = _inputs(pred, target, valid, width=3)
    scale, rotation, translation, determined = _umeyama(xp, pred, target, mask)
    nan = xp.full_like(scale, float("nan"))
    return (
        xp.where(determined, scale, nan),
        xp.where(determined[..., None, None], rotation, nan[..., None, None]),
        xp.where(determined[..., None], translation, nan[..., None]),
    )


def _move(points: Any, scale: Any, rotation: Any, translation: Any) -> Any:
    """Apply a similarity in float64 and return the dtype of the points: far from the origin it matters."""
    rotated = _float64(points) @ rotation.swapaxes(-1, -2)
    return _cast(scale[..., None, None] * rotated + translation[..., None, :], points)


def _umeyama(xp: Any, pred: Any, target: Any, mask: Any) -> tuple[Any, Any, Any, Any]:
    """Scale, rotation, translation, and whether the sample determines them; without that, any finite ones."""
    weight = _float64(mask)[..., None]
    x, y = (_float64(points) for points in (pred, target))
    x, y = (xp.where(mask[..., None], points, xp.zeros_like(points)) for points in (x, y))
    count = weight.sum(-2)
    total = xp.where(count > 0, count, xp.ones_like(count))
    mean_x, mean_y = x.sum(-2) / total, y.sum(-2) / total
    centred_x, centred_y = (x - mean_x[..., None, :]) * weight, (y - mean_y[..., None, :]) * weight

    spread = centred_y.swapaxes(-1, -2) @ centred_y
    covariance = centred_x.swapaxes(-1, -2) @ centred_y
    determined = (count[..., 0] >= 3) & ~_is_line(spread, (y * y).sum((-1, -2)))
    determined = determined & xp.isfinite(covariance).all(-1).all(-1)
    # The SVD raises on NaN and has no gradient at zero; undetermined samples take any matrix that has one.
    stand_in: Any = np.diag((3.0, 2.0, 1.0))
    if xp is not np:
        stand_in = xp.as_tensor(stand_in, device=covariance.device)
    u, singular, vh = xp.linalg.svd(xp.where(determined[..., None, None], covariance, stand_in))
    v = vh.swapaxes(-1, -2)
    reflected = xp.linalg.det(v @ u.swapaxes(-1, -2)) < 0
    ones = xp.ones_like(singular[..., 0])
    signs = xp.stack([ones, ones, xp.where(reflected, -ones, ones)], -1)
    rotation = (v * signs[..., None, :]) @ u.swapaxes(-1, -2)
    variance = (centred_x * centred_x).sum((-1, -2))
    # A prediction of one point has only rounding errors to scale up.
    is_point = variance <= _ROUNDING * (x * x).sum((-1, -2))
    scale = (singular * signs).sum(-1) / xp.where(is_point, xp.ones_like(variance), variance)
    scale = xp.where(is_point, xp.zeros_like(scale), scale)
    translation = mean_y - scale[..., None] * (rotation @ mean_x[..., None])[..., 0]
    return scale, rotation, translation, determined


def _is_line(spread: Any, magnitude: Any) -> Any:
    """Whether a scatter matrix (…, 3, 3) has rank one or less, up to float32 rounding of its points.

    ``magnitude`` (…,) is the points' sum of squares about the origin, where their rounding errors come from.
    The sum of the products of eigenvalue pairs is zero exactly then, and needs no eigenvalues.
    """
    trace = spread[..., 0, 0] + spread[..., 1, 1] + spread[..., 2, 2]
    pairs = (trace * trace - (spread * spread).sum((-1, -2))) / 2
    return pairs <= trace * (1e-10 * trace + _ROUNDING * magnitude)


def _inputs(pred: Any, target: Any, valid: Any, *, width: int | None) -> tuple[Any, Any, Any, Any]:
    """Check the arrays; return their namespace (numpy or torch), the arrays, and a mask."""
    torch = sys.modules.get("torch")
    kinds = {
        name: torch is not None and isinstance(value, torch.Tensor)
        for name, value in (("pred", pred), ("target", target), ("valid", valid))
        if value is not None
    }
    if len(set(kinds.values())) > 1:
        text = ", ".join(f"{name} {'torch' if is_torch else 'numpy'}" for name, is_torch in kinds.items())
        raise TypeError(f"inputs must be all numpy or all torch, got {text}; convert one side")
    xp: Any = np
    if kinds["pred"]:
        xp = torch
        is_floating = pred.is_floating_point() and target.is_floating_point()
    else:
        pred, target = np.asarray(pred), np.asarray(target)
        is_floating = all(np.issubdtype(value.dtype, np.floating) for value in (pred, target))
    if not is_floating:
        raise TypeError(f"points must be of a floating dtype, got {pred.dtype} and {target.dtype}")
    widths = (2, 3) if width is None else (width,)
    if pred.ndim < 2 or pred.shape[-1] not in widths:
        expected = " or ".join(str(w) for w in widths)
        raise ValueError(f"points must be (…, K, {expected}), got {tuple(pred.shape)}")
    if pred.shape != target.shape:
        raise ValueError(
            f"pred {tuple(pred.shape)} and target {tuple(target.shape)} must have one shape; "
            "convert_joints brings joints to one set"
        )
    if valid is None:
        mask = xp.ones_like(pred[..., 0], dtype=bool if xp is np else xp.bool)
    else:
        mask = np.asarray(valid) if xp is np else valid
        if mask.shape != pred.shape[:-1]:
            raise ValueError(
                f"valid must be {tuple(pred.shape[:-1])} like the points, got {tuple(mask.shape)}"
            )
        mask = mask != 0
    return xp, pred, target, mask


def _distances(xp: Any, pred: Any, target: Any, mask: Any) -> Any:
    """Distances (…, K), zero at invalid points so that their NaN reaches neither sums nor gradients."""
    difference = pred - target
    difference = xp.where(mask[..., None], difference, xp.zeros_like(difference))
    return xp.linalg.norm(difference, None, -1)


def _masked_mean(xp: Any, values: Any, mask: Any) -> Any:
    values = xp.where(mask, values, xp.zeros_like(values))
    count = _cast(mask, values).sum(-1)
    some = count > 0
    mean = values.sum(-1) / xp.where(some, count, xp.ones_like(count))
    return xp.where(some, mean, xp.full_like(mean, float("nan")))


def _float64(values: Any) -> Any:
    return values.astype(np.float64) if isinstance(values, np.ndarray | np.generic) else values.double()


def _cast(values: Any, like: Any) -> Any:
    is_numpy = isinstance(values, np.ndarray | np.generic)
    return values.astype(like.dtype) if is_numpy else values.to(like.dtype)
