"""Metrics: invariances, scipy as an independent twin, masks as subsets, degenerate samples, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from neuralannot.metrics import (
    align_root,
    align_similarity,
    auc,
    fit_similarity,
    mpjpe,
    mpvpe,
    pa_mpjpe,
    pa_mpvpe,
    pck,
    projected_error,
    reprojection_error,
)

seeds = st.integers(0, 2**32 - 1)


def points(seed, *shape, scale=0.3):
    return np.random.default_rng(seed).normal(scale=scale, size=shape)


def random_similarity(seed):
    rng = np.random.default_rng(seed)
    return (
        np.exp(rng.uniform(-2, 2)),
        Rotation.from_quat(rng.normal(size=4)).as_matrix(),
        rng.normal(scale=3, size=3),
    )


def distance(a, b):
    return np.sqrt(((a - b) ** 2).sum(-1))


# --- alignment


@given(seeds, st.integers(4, 30))
def test_fit_recovers_a_known_similarity(seed, count):
    pred = points(seed, count, 3)
    scale, rotation, translation = random_similarity(seed)
    found = fit_similarity(pred, scale * pred @ rotation.T + translation)
    for value, expected in zip(found, (scale, rotation, translation), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-8 * max(1, scale))


@given(seeds, st.integers(3, 12))
def test_rotation_equals_scipy_align_vectors(seed, count):
    pred, target = points(seed, 2, count, 3)
    _, rotation, translation = fit_similarity(pred, target)
    twin, _ = Rotation.align_vectors(target - target.mean(0), pred - pred.mean(0))
    np.testing.assert_allclose(rotation, twin.as_matrix(), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-9)
    assert translation.shape == (3,)


@given(seeds, st.integers(4, 12))
def test_residual_equals_scipy_procrustes_where_that_uses_no_reflection(seed, count):
    pred, target = points(seed, 2, count, 3)
    rotated = align_similarity(pred, target)
    # scipy scales both to unit size and allows reflections; the disparity is then the relative residual.
    _, _, disparity = procrustes(target, pred)
    residual = ((rotated - target) ** 2).sum() / ((target - target.mean(0)) ** 2).sum()
    covariance = (pred - pred.mean(0)).T @ (target - target.mean(0))
    if np.linalg.det(covariance) > 0:
        np.testing.assert_allclose(residual, disparity, atol=1e-9)
    else:
        assert residual > disparity - 1e-9


@given(seeds)
def test_no_nearby_similarity_is_better(seed):
    pred, target = points(seed, 2, 8, 3)
    scale, rotation, translation = fit_similarity(pred, target)
    best = ((align_similarity(pred, target) - target) ** 2).sum()
    rng = np.random.default_rng(seed)
    for _ in range(5):
        other = Rotation.from_rotvec(rng.normal(scale=0.05, size=3)).as_matrix() @ rotation
        moved = scale * rng.uniform(0.9, 1.1) * pred @ other.T + translation + rng.normal(scale=0.01, size=3)
        assert ((moved - target) ** 2).sum() >= best - 1e-12


@given(seeds, st.integers(4, 20))
def test_pa_error_is_invariant_to_a_similarity_of_the_prediction(seed, count):
    pred, target = points(seed, 2, 3, count, 3)
    scale, rotation, translation = random_similarity(seed)
    moved = scale * pred @ rotation.T + translation
    np.testing.assert_allclose(pa_mpjpe(moved, target), pa_mpjpe(pred, target), rtol=1e-6)
    np.testing.assert_allclose(pa_mpjpe(target * scale, target), 0, atol=1e-9)


@given(seeds)
def test_a_mirrored_body_is_not_aligned_away(seed):
    target = points(seed, 12, 3)
    mirrored = target * [-1, 1, 1]
    assert pa_mpjpe(mirrored, target) > 1e-3
    _, rotation, _ = fit_similarity(mirrored, target)
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-9)


def test_planar_points_align_exactly():
    # A flat set is its own mirror image: the third singular value is zero and its sign is free.
    target = points(0, 9, 3) * [1, 1, 0]
    scale, rotation, translation = random_similarity(1)
    np.testing.assert_allclose(pa_mpjpe(scale * target @ rotation.T + translation, target), 0, atol=1e-9)


def test_align_root_by_index_and_by_position():
    joints = points(2, 4, 5, 3)
    moved = align_root(joints, 2)
    np.testing.assert_array_equal(moved[:, 2], 0)
    np.testing.assert_allclose(np.diff(moved, axis=1), np.diff(joints, axis=1), atol=1e-12)
    np.testing.assert_array_equal(align_root(joints, joints[:, 2]), moved)
    np.testing.assert_array_equal(align_root(joints, -3), moved)


# --- errors of joints and vertices


@given(seeds, st.integers(1, 6), st.integers(1, 8))
def test_mpjpe_equals_the_loop_over_valid_joints(seed, batch, count):
    pred, target = points(seed, 2, batch, count, 3)
    valid = np.random.default_rng(seed).random((batch, count)) < 0.6
    out = mpjpe(pred, target, valid=valid)
    assert out.shape == (batch,)
    for row in range(batch):
        errors = [distance(pred[row, k], target[row, k]) for k in range(count) if valid[row, k]]
        np.testing.assert_allclose(out[row], np.mean(errors) if errors else np.nan)


@given(seeds, st.integers(2, 6))
def test_root_alignment_ignores_translation_and_only_that(seed, count):
    pred, target = points(seed, 2, count, 3)
    aligned = mpjpe(pred + np.array([10, -3, 2]), target, root=1)
    np.testing.assert_allclose(aligned, mpjpe(pred - pred[1], target - target[1]), rtol=1e-9)
    np.testing.assert_allclose(mpjpe(target + np.array([0, 3, 4]), target), 5, rtol=1e-9)


@given(seeds, st.booleans())
def test_order_of_joints_and_samples_does_not_matter(seed, use_torch):
    pred, target = points(seed, 2, 4, 7, 3)
    valid = np.random.default_rng(seed).random((4, 7)) < 0.8
    rng = np.random.default_rng(seed + 1)
    joint, sample = rng.permutation(7), rng.permutation(4)
    arrays = (pred, target, valid)
    shuffled = tuple(a[sample][:, joint] for a in arrays)
    if use_torch:
        arrays = tuple(map(torch.from_numpy, arrays))
        shuffled = tuple(map(torch.from_numpy, shuffled))
    for metric in (mpjpe, pa_mpjpe):
        straight = np.asarray(metric(*arrays[:2], valid=arrays[2]))
        np.testing.assert_allclose(np.asarray(metric(*shuffled[:2], valid=shuffled[2])), straight[sample])


@pytest.mark.parametrize("metric", [mpjpe, pa_mpjpe, mpvpe, pa_mpvpe])
@given(seed=seeds)
def test_a_mask_equals_the_subset_and_hides_any_value(metric, seed):
    pred, target = points(seed, 2, 9, 3)
    valid = np.array([1, 1, 0, 1, 1, 0, 1, 0, 1], dtype=bool)
    subset = metric(pred[valid], target[valid])
    for hidden in (np.nan, np.inf, 1e30):
        dirty_pred, dirty_target = pred.copy(), target.copy()
        dirty_pred[~valid], dirty_target[~valid] = hidden, -hidden
        with np.errstate(invalid="ignore", over="ignore"):
            np.testing.assert_allclose(metric(dirty_pred, dirty_target, valid=valid), subset, rtol=1e-9)


def test_invalid_root_gives_nan():
    pred, target = points(3, 2, 2, 4, 3)
    valid = np.array([[False, True, True, True], [True, True, True, False]])
    out = mpjpe(pred, target, valid=valid, root=0)
    assert np.isnan(out[0])
    np.testing.assert_allclose(out[1], distance(align_root(pred, 0), align_root(target, 0))[1, :3].mean())


def test_mpvpe_is_mpjpe_of_vertices_after_its_own_roots():
    pred, target = points(4, 2, 2, 50, 3)
    pred_root, target_root = points(5, 2, 2, 3)
    expected = distance(pred - pred_root[:, None], target - target_root[:, None]).mean(-1)
    np.testing.assert_allclose(mpvpe(pred, target, roots=(pred_root, target_root)), expected)
    np.testing.assert_allclose(mpvpe(pred, target), distance(pred, target).mean(-1))
    np.testing.assert_array_equal(pa_mpvpe(pred, target), pa_mpjpe(pred, target))


def test_reprojection_error_is_in_pixels():
    target = np.array([[[10, 20], [30, 40], [0, 0]]], dtype=np.float32)
    pred = target + np.array([3, 4], dtype=np.float32)
    assert reprojection_error(pred, target) == pytest.approx(5)
    pred[0, 2] = np.nan
    assert reprojection_error(pred, target, valid=np.array([[1, 1, 0]], dtype=bool)) == pytest.approx(5)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_a_valid_joint_behind_the_camera_is_an_infinite_error(kind):
    target = np.zeros((4, 3, 2))
    pixels = target + np.array([3.0, 4.0])
    pixels[1, 2] = pixels[2, 0] = np.nan
    valid = np.ones((4, 3), bool)
    valid[2, 0] = valid[3] = False
    found = projected_error(kind(pixels), kind(target), valid=kind(valid))
    np.testing.assert_array_equal(np.asarray(found), [5, np.inf, 5, np.nan])


# --- degenerate samples


def test_without_a_valid_point_everything_is_nan_and_others_are_not():
    pred, target = points(6, 2, 2, 5, 3).astype(np.float32)
    valid = np.array([[False] * 5, [True] * 5])
    for metric in (mpjpe, pa_mpjpe, mpvpe, pa_mpvpe, auc, lambda *a, **k: pck(*a, threshold=1.0, **k)):
        out = metric(pred, target, valid=valid)
        assert out.dtype == np.float32
        assert np.isnan(out).tolist() == [True, False]
        assert np.isfinite(np.nanmean(out))
        assert metric(pred[:0], target[:0]).shape == (0,)
        assert np.isnan(metric(pred[:, :0], target[:, :0])).all()


@pytest.mark.parametrize("far", [0.0, 5.0, 1000.0])
@pytest.mark.parametrize("kind", ["one point", "two points", "a line", "a rounded line", "coincident"])
def test_pa_is_nan_where_the_target_determines_no_rotation(kind, far):
    pred, target = points(7, 2, 6, 3).astype(np.float32)
    valid = np.ones(6, dtype=bool)
    if kind == "one point":
        valid[1:] = False
    elif kind == "two points":
        valid[2:] = False
    elif kind == "coincident":
        target[:] = target[0]
    else:
        direction = [1, 0, 0] if kind == "a line" else [0.3, -0.7, 0.1]
        target = (np.linspace(-1, 1, 6)[:, None] * np.array(direction)).astype(np.float32)
    target = target + np.array([far, far / 3, -far], dtype=np.float32)
    assert np.isnan(pa_mpjpe(pred, target, valid=valid))
    assert np.isnan(align_similarity(pred, target, valid=valid)).all()
    assert all(np.isnan(part).all() for part in fit_similarity(pred, target, valid=valid))


@pytest.mark.parametrize("far", [0.0, 5.0])
def test_three_points_that_span_a_plane_are_enough(far):
    target = np.array([[0, 0, 0], [0.1, 0, 0], [0.05, 0.002, 0]], dtype=np.float32) + np.float32(far)
    np.testing.assert_allclose(pa_mpjpe(2 * target + 1, target), 0, atol=1e-6)


@pytest.mark.parametrize("far", [0.0, 0.1, 7.3])
def test_a_collapsed_prediction_is_counted_not_dropped(far):
    target = points(8, 6, 3).astype(np.float32)
    spread = distance(target, target.mean(0)).mean()
    point = np.full((6, 3), far, dtype=np.float32)
    np.testing.assert_allclose(pa_mpjpe(point, target), spread, rtol=1e-5)
    line = (np.linspace(-1, 1, 6)[:, None] * np.ones(3)).astype(np.float32) + np.float32(far)
    error = ((align_similarity(line, target) - target) ** 2).sum()
    # The best line is a regression on the position along it: any direction and any length are in reach.
    along = np.linspace(-1, 1, 6)
    slope = along @ target / (along @ along)
    expected = ((target - target.mean(0) - along[:, None] * slope) ** 2).sum()
    np.testing.assert_allclose(error, expected, rtol=1e-4)


def test_nan_at_a_valid_point_gives_nan_for_its_sample_only():
    pred, target = points(9, 2, 3, 6, 3)
    pred[0, 1, 2] = np.nan
    target[2, 0, 0] = np.nan
    for metric in (mpjpe, pa_mpjpe, auc, lambda a, b: pck(a, b, threshold=0.1)):
        assert np.isnan(metric(pred, target)).tolist() == [True, False, True]


# --- PCK and AUC


@given(seeds, st.booleans())
def test_pck_counts_points_within_the_threshold(seed, per_sample):
    pred, target = points(seed, 2, 3, 8, 2)
    valid = np.random.default_rng(seed).random((3, 8)) < 0.7
    threshold = np.array([0.1, 0.4, 1.0]) if per_sample else 0.4
    out = pck(pred, target, threshold=threshold, valid=valid)
    for row in range(3):
        limit = threshold[row] if per_sample else threshold
        hits = [distance(pred[row, k], target[row, k]) <= limit for k in range(8) if valid[row, k]]
        np.testing.assert_allclose(out[row], np.mean(hits) if hits else np.nan)


def test_pck_threshold_is_inclusive():
    assert pck(np.array([[3.0, 4.0]]), np.zeros((1, 2)), threshold=5.0) == 1
    assert pck(np.array([[3.0, 4.0]]), np.zeros((1, 2)), threshold=4.999) == 0


@given(seeds, st.integers(2, 120), st.sampled_from([(0.0, 0.05), (0.02, 0.3)]), st.booleans())
def test_auc_equals_the_trapezoid_over_pck(seed, steps, bounds, use_torch):
    pred, target = points(seed, 2, 2, 21, 3, scale=0.03)
    valid = np.random.default_rng(seed).random((2, 21)) < 0.8
    low, high = bounds
    thresholds = np.linspace(low, high, steps)
    curve = np.stack([pck(pred, target, threshold=float(t), valid=valid) for t in thresholds])
    area = ((curve[1:] + curve[:-1]) / 2 * np.diff(thresholds)[:, None]).sum(0) / (high - low)
    arrays = [pred, target, valid]
    if use_torch:
        arrays = [torch.from_numpy(a) for a in arrays]
    out = auc(arrays[0], arrays[1], valid=arrays[2], low=low, high=high, steps=steps)
    np.testing.assert_allclose(np.asarray(out), area, atol=1e-12)


def test_auc_bounds():
    target = np.zeros((1, 21, 3))
    assert auc(target, target) == 1
    assert auc(target + 1, target) == 0
    # Off by half the range: the upper half of the thresholds is passed.
    assert auc(target + np.array([0.025, 0, 0]), target) == pytest.approx(0.5, abs=0.01)


# --- torch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_torch_equals_numpy_and_keeps_the_dtype(dtype, shape):
    pred, target = (torch.from_numpy(p).to(dtype) for p in points(10, 2, *shape, 14, 3))
    valid = torch.from_numpy(np.random.default_rng(1).random((*shape, 14)) < 0.8)
    for metric in (
        mpjpe,
        pa_mpjpe,
        mpvpe,
        pa_mpvpe,
        auc,
        align_similarity,
        lambda *a, **k: mpjpe(*a, root=0, **k),
        lambda *a, **k: pck(*a, threshold=0.4, **k),
    ):
        out = metric(pred, target, valid=valid)
        twin = metric(pred.numpy(), target.numpy(), valid=valid.numpy())
        assert out.dtype == dtype
        assert out.shape == np.shape(twin)
        np.testing.assert_allclose(out.numpy(), twin, rtol=1e-5, atol=1e-7)


def test_gradcheck():
    pred, target = (torch.from_numpy(p).requires_grad_() for p in points(11, 2, 2, 5, 3))
    valid = torch.tensor([[True] * 5, [True, True, False, True, True]])
    functions = [
        lambda a, b: mpjpe(a, b, valid=valid, root=1),
        lambda a, b: pa_mpjpe(a, b, valid=valid),
        lambda a, b: align_similarity(a, b, valid=valid),
        lambda a, b: reprojection_error(a[..., :2], b[..., :2], valid=valid),
        lambda a, b: mpvpe(a, b, roots=(a[:, 0], b[:, 1])),
    ]
    for function in functions:
        assert torch.autograd.gradcheck(function, (pred, target))


@pytest.mark.parametrize("metric", [mpjpe, pa_mpjpe])
def test_missing_points_and_undetermined_samples_do_not_reach_gradients(metric):
    pred, target = (torch.from_numpy(p) for p in points(12, 2, 3, 5, 3))
    valid = torch.ones(3, 5, dtype=torch.bool)
    valid[0, 1] = False
    pred[0, 1], target[0, 1] = torch.nan, torch.nan
    valid[1, 1:] = False
    target[1, 1:] = torch.nan
    valid[2] = False
    pred.requires_grad_()
    torch.nanmean(metric(pred, target, valid=valid)).backward()
    assert torch.isfinite(pred.grad).all()
    assert (pred.grad[~valid] == 0).all()
    assert (pred.grad[0, 0] != 0).any()


def test_inputs_are_not_touched():
    pred, target = points(13, 2, 2, 6, 3)
    before = pred.copy(), target.copy()
    valid = np.ones((2, 6), dtype=bool)
    pa_mpjpe(pred, target, valid=valid)
    mpjpe(pred, target, valid=valid, root=0)
    auc(pred, target, valid=valid)
    np.testing.assert_array_equal(pred, before[0])
    np.testing.assert_array_equal(target, before[1])
    assert valid.all()


# --- errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: mpjpe(x[..., :2], x[..., :2]),
            ValueError,
            r"points must be \(…, K, 3\), got \(2, 4, 2\)",
        ),
        (lambda x: reprojection_error(x, x), ValueError, r"points must be \(…, K, 2\), got \(2, 4, 3\)"),
        (
            lambda x: pck(x[0, 0], x[0, 0], threshold=1),
            ValueError,
            r"points must be \(…, K, 2 or 3\), got \(3,\)",
        ),
        (
            lambda x: mpjpe(x, x[:, :3]),
            ValueError,
            r"pred \(2, 4, 3\) and target \(2, 3, 3\) must have one shape",
        ),
        (
            lambda x: mpjpe(x, x, valid=x[0, :, 0]),
            ValueError,
            r"valid must be \(2, 4\) like the points, got \(4,\)",
        ),
        (lambda x: mpjpe(x, x, root=4), ValueError, "root must be an index of 4 points, got 4"),
        (
            lambda x: align_root(x, x[0]),
            ValueError,
            r"root must be an index or a position \(2, 3\), got \(4, 3\)",
        ),
        (
            lambda x: pck(x, x, threshold=x[0, :3, 0]),
            ValueError,
            r"threshold must be a number or \(2,\), got \(3,\)",
        ),
        (lambda x: auc(x, x, low=1, high=1), ValueError, "auc needs low < high and steps >= 2, got low=1"),
        (lambda x: auc(x, x, steps=1), ValueError, "got .*steps=1"),
    ],
)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_errors_say_what_was_expected(call, error, message, kind):
    x = np.zeros((2, 4, 3)) if kind == "numpy" else torch.zeros(2, 4, 3)
    with pytest.raises(error, match=message):
        call(x)


def test_kinds_and_dtypes_are_not_mixed_silently():
    x = np.zeros((2, 4, 3))
    with pytest.raises(TypeError, match="all numpy or all torch, got pred torch, target numpy; convert"):
        mpjpe(torch.zeros(2, 4, 3), x)
    with pytest.raises(TypeError, match="pred numpy, target numpy, valid torch"):
        pa_mpjpe(x, x, valid=torch.ones(2, 4))
    for integers in (x.astype(int), torch.zeros(2, 4, 3, dtype=torch.int64)):
        with pytest.raises(TypeError, match=r"points must be of a floating dtype, got .*int64"):
            mpjpe(integers, integers)
