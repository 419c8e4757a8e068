"""Boxes: a scalar twin from the formula, crops against OpenCV, inverses, and what is no box."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralannot.boxes import (
    apply_affine,
    boxes_from_joints,
    crop_affine,
    expand_boxes,
    invert_affine,
    process_boxes,
    sanitize_boxes,
    virtual_camera,
)

pixels = st.floats(-300, 900, width=32)
boxes = st.tuples(pixels, pixels, st.floats(-20, 900, width=32), st.floats(-20, 900, width=32))
sizes = st.tuples(st.integers(1, 700), st.integers(1, 700))
good_boxes = st.tuples(pixels, pixels, st.floats(2, 900, width=32), st.floats(2, 900, width=32))


def twin_sanitize(box, size):
    x, y, w, h = box
    x1, y1 = max(0, x), max(0, y)
    x2, y2 = min(size[0] - 1, x1 + max(0, w - 1)), min(size[1] - 1, y1 + max(0, h - 1))
    if w * h <= 0 or x2 - x1 <= 0 or y2 - y1 <= 0:
        return None
    return x1, y1, x2 - x1, y2 - y1


def twin_expand(box, aspect, scale):
    x, y, w, h = box
    cx, cy = x + w / 2, y + h / 2
    if w > aspect * h:
        h = w / aspect
    else:
        w = aspect * h
    return cx - w * scale / 2, cy - h * scale / 2, w * scale, h * scale


# --- sanitize, expand, process


@given(st.lists(st.tuples(boxes, sizes), max_size=8))
def test_sanitize_equals_the_scalar_twin(rows):
    xywh = np.array([box for box, _ in rows], dtype=np.float32).reshape(-1, 4)
    size = np.array([size for _, size in rows], dtype=np.int64).reshape(-1, 2)
    out, valid = sanitize_boxes(xywh, size)
    assert out.dtype == np.float32
    assert out.shape == (len(rows), 4)
    assert valid.shape == (len(rows),)
    for row, (box, size_) in enumerate(rows):
        expected = twin_sanitize(box, size_)
        assert valid[row] == (expected is not None)
        np.testing.assert_allclose(out[row], expected or [np.nan] * 4, rtol=1e-6, atol=1e-4)


@given(boxes, sizes)
def test_a_sane_box_lies_inside_its_image_and_has_an_area(box, size):
    out, valid = sanitize_boxes(box, size)
    assert valid.shape == ()
    if valid:
        assert (out[:2] >= 0).all()
        assert (out[2:] > 0).all()
        assert (out[:2] + out[2:] <= np.array(size) - 1 + 1e-3).all()


@given(good_boxes, st.floats(0.2, 5), st.floats(0.2, 5))
def test_expand_equals_the_scalar_twin_and_keeps_centre_and_aspect(box, aspect, scale):
    out = expand_boxes([box], aspect=aspect, scale=scale)[0].astype(np.float64)
    np.testing.assert_allclose(out, twin_expand(box, aspect, scale), rtol=1e-5, atol=2e-3)
    np.testing.assert_allclose(out[2] / out[3], aspect, rtol=1e-5)
    np.testing.assert_allclose(out[:2] + out[2:] / 2, np.add(box[:2], np.array(box[2:]) / 2), atol=2e-3)
    assert (out[2:] >= np.array(box[2:]) * scale * (1 - 1e-5)).all()


@given(boxes, sizes, st.sampled_from([1.0, 192 / 256]))
def test_process_is_sanitize_then_expand(box, size, aspect):
    out, valid = process_boxes([box], [size], aspect=aspect)
    expected = twin_sanitize(box, size)
    assert valid[0] == (expected is not None)
    expected = [np.nan] * 4 if expected is None else twin_expand(expected, aspect, 1.25)
    np.testing.assert_allclose(out[0], expected, rtol=1e-5, atol=2e-3)


def test_hand_computed_box():
    # A 101 x 51 box in the upper left corner: 100 x 50 after the lost pixel, 100 x 100 widened, x 1.25.
    out, valid = process_boxes([[-10, 20, 101, 51]], (640, 480))
    assert valid.all()
    np.testing.assert_allclose(out, [[-12.5, 45 - 62.5, 125, 125]])


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((10, 10, 0, 20), id="zero width"),
        pytest.param((10, 10, 20, 0), id="zero height"),
        pytest.param((10, 10, -5, 20), id="negative width"),
        pytest.param((10, 10, -5, -5), id="both negative, their product positive"),
        pytest.param((10, 10, 1, 20), id="one pixel wide"),
        pytest.param((100, 10, 20, 20), id="right of the image"),
        pytest.param((10, 480, 20, 20), id="below the image"),
        pytest.param((99, 10, 20, 20), id="on the last column"),
        pytest.param((math.nan, 10, 20, 20), id="nan x"),
        pytest.param((10, 10, 20, math.nan), id="nan height"),
        pytest.param((10, 10, math.inf, 20), id="infinite width"),
        pytest.param((-math.inf, 10, 20, 20), id="infinite x"),
    ],
)
def test_no_box_is_nan_and_invalid_beside_a_good_one(box):
    out, valid = process_boxes([box, (10, 10, 20, 20)], (100, 100))
    assert valid.tolist() == [False, True]
    assert np.isnan(out[0]).all()
    assert np.isfinite(out[1]).all()


def test_unknown_image_size_is_invalid():
    _, valid = sanitize_boxes([[10, 10, 20, 20]] * 3, [[np.nan, 100], [100, np.inf], [100, 100]])
    assert valid.tolist() == [False, False, True]


def test_invalid_stays_invalid_when_sanitised_again():
    once, valid = sanitize_boxes([[0, 0, 0, 9], [0, 0, 9, 9]], (50, 50))
    twice, still = sanitize_boxes(once, (50, 50))
    assert valid.tolist() == still.tolist() == [False, True]
    np.testing.assert_array_equal(twice[1], [0, 0, 7, 7])


def test_empty_inputs_and_inputs_are_not_touched():
    none = np.zeros((0, 4))
    out, valid = process_boxes(none, np.zeros((0, 2)))
    assert out.shape == (0, 4)
    assert out.dtype == np.float32
    assert valid.shape == (0,)
    assert valid.dtype == bool
    assert crop_affine(none, (256, 256)).shape == (0, 2, 3)
    assert invert_affine(np.zeros((0, 2, 3))).shape == (0, 2, 3)
    assert apply_affine(np.zeros((0, 2, 3)), np.zeros((0, 5, 2))).shape == (0, 5, 2)
    assert [x.shape for x in virtual_camera(none)] == [(0, 2), (0, 2)]
    assert [x.shape for x in boxes_from_joints(np.zeros((0, 17, 2)))] == [(0, 4), (0,)]
    box = np.array([[-5.0, 3, 30, 20]])
    process_boxes(box, (10, 10))
    crop_affine(box, (8, 8), flip=True)
    np.testing.assert_array_equal(box, [[-5.0, 3, 30, 20]])


# --- crops


def corners(box):
    x, y, w, h = box
    return np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], dtype=np.float64)


@given(good_boxes, st.tuples(st.integers(1, 512), st.integers(1, 512)))
def test_box_corners_go_to_crop_corners_and_flip_swaps_left_and_right(box, out_size):
    width, height = out_size
    straight = np.array([(0, 0), (width, 0), (width, height), (0, height)])
    out = apply_affine(crop_affine([box], out_size), [corners(box)])[0]
    np.testing.assert_allclose(out, straight, atol=2e-2)
    flipped = apply_affine(crop_affine([box], out_size, flip=True), [corners(box)])[0]
    np.testing.assert_allclose(flipped, straight[[1, 0, 3, 2]], atol=2e-2)


@given(good_boxes, st.floats(-7, 7), st.booleans())
def test_affine_equals_the_three_points_of_the_release(box, rotation, flip):
    # The release maps centre, centre + down, centre + right of the turned box in the (mirrored) image.
    crop = np.array([192, 256])
    cos, sin = math.cos(rotation), math.sin(rotation)
    turn = np.array([[cos, -sin], [sin, cos]])
    mirror = np.diag([-1.0 if flip else 1.0, 1.0])
    centre = np.array(box[:2]) + np.array(box[2:]) / 2
    offsets = np.array([[0, 0], [0, box[3] / 2], [box[2] / 2, 0]]) @ turn.T
    source = centre + offsets @ mirror
    target = crop / 2 + np.array([[0, 0], [0, crop[1] / 2], [crop[0] / 2, 0]])
    out = apply_affine(crop_affine([box], (192, 256), rotation=rotation, flip=flip), source[None])[0]
    np.testing.assert_allclose(out, target, atol=5e-2)


@given(good_boxes, st.floats(-7, 7), st.booleans())
def test_inverse_brings_points_back(box, rotation, flip):
    affine = crop_affine([box], (256, 256), rotation=rotation, flip=flip)
    points = np.concatenate([corners(box), corners(box).mean(0, keepdims=True)])[None]
    back = apply_affine(invert_affine(affine), apply_affine(affine, points))
    scale = max(box[2:]) / 256
    np.testing.assert_allclose(back, points, atol=2e-2 + 1e-2 * scale)


def test_rotation_turns_the_box_from_x_to_y():
    # A quarter turn of the box: its right axis now points down in the image.
    affine = crop_affine([[0, 0, 10, 10]], (10, 10), rotation=np.pi / 2)
    np.testing.assert_allclose(apply_affine(affine, [[[5, 9]]]), [[[9, 5]]], atol=1e-5)


def test_rotation_and_flip_per_box_equal_one_at_a_time():
    box = np.array([[0, 0, 10, 20], [5, -5, 30, 20], [1, 2, 3, 4]], dtype=np.float32)
    rotation, flip = np.array([0.1, -2.0, 3.0]), np.array([True, False, True])
    together = crop_affine(box, (64, 48), rotation=rotation, flip=flip)
    for i in range(3):
        alone = crop_affine(box[i], (64, 48), rotation=rotation[i], flip=bool(flip[i]))
        np.testing.assert_array_equal(alone, together[i])


def test_affine_crops_with_opencv_where_it_says():
    cv2 = pytest.importorskip("cv2")
    image = np.zeros((40, 60), dtype=np.float32)
    image[12, 23] = 1.0
    # Twice enlarged: pixel (23, 12) is at (2 * (23 - 20), 2 * (12 - 10)) of the crop.
    affine = crop_affine([[20, 10, 16, 16]], (32, 32))[0]
    crop = cv2.warpAffine(image, affine, (32, 32), flags=cv2.INTER_LINEAR)
    assert np.unravel_index(crop.argmax(), crop.shape) == (4, 6)
    # A turn and a mirror later the brightest pixel is still where apply_affine says.
    affine = crop_affine([[15, 5, 16, 16]], (32, 32), rotation=0.5, flip=True)[0]
    crop = cv2.warpAffine(image, affine, (32, 32), flags=cv2.INTER_LINEAR)
    x, y = apply_affine(affine, [[23, 12]])[0]
    row, column = np.unravel_index(crop.argmax(), crop.shape)
    assert abs(column - x) <= 0.5 + 1e-4
    assert abs(row - y) <= 0.5 + 1e-4


def test_nan_boxes_give_nan_crops_and_cameras():
    box = [[np.nan] * 4, [0, 0, 8, 8]]
    for out in (crop_affine(box, (8, 8)), *virtual_camera(box), expand_boxes(box)):
        assert np.isnan(out[0]).all()
        assert np.isfinite(out[1]).all()


# --- the virtual camera


@given(good_boxes, st.tuples(st.integers(32, 512), st.integers(32, 512)))
def test_virtual_camera_projects_as_the_crop_camera_does(box, crop_size):
    # A point seen by the crop's camera, mapped back to the image, is where the virtual camera sees it.
    point = np.array([0.01, -0.02])
    in_crop = 5000.0 * point + np.array(crop_size) / 2
    back = invert_affine(crop_affine([box], crop_size))
    focal, princpt = virtual_camera([box], crop_size=crop_size)
    np.testing.assert_allclose(
        focal[0] * point + princpt[0], apply_affine(back, [[in_crop]])[0, 0], atol=2e-2
    )


def test_virtual_camera_defaults_are_the_release_ones():
    focal, princpt = virtual_camera([[10, 20, 256, 128]])
    np.testing.assert_allclose(focal, [[5000, 2500]])
    np.testing.assert_allclose(princpt, [[138, 84]])
    assert focal.dtype == princpt.dtype == np.float32


# --- boxes from joints


@given(
    st.lists(st.tuples(pixels, pixels, st.booleans()), max_size=10),
    st.floats(0.1, 3),
)
def test_box_from_joints_equals_the_scalar_twin(rows, scale):
    joints = np.array([row[:2] for row in rows], dtype=np.float32).reshape(-1, 2)
    valid = np.array([row[2] for row in rows], dtype=bool)
    box, has_box = boxes_from_joints(joints[None], valid[None], scale=scale)
    kept = [row for row in rows if row[2]]
    xs, ys = [row[0] for row in kept], [row[1] for row in kept]
    if not kept or max(xs) == min(xs) or max(ys) == min(ys):
        assert not has_box[0]
        assert np.isnan(box).all()
        return
    width, height = (max(xs) - min(xs)) * scale, (max(ys) - min(ys)) * scale
    expected = (max(xs) + min(xs) - width) / 2, (max(ys) + min(ys) - height) / 2, width, height
    assert has_box[0]
    np.testing.assert_allclose(box[0], expected, rtol=1e-6, atol=1e-4)


def test_box_from_joints_ignores_what_is_not_finite():
    joints = np.array([[[0, 0], [10, 20], [np.nan, 5], [np.inf, 5]], [[np.nan] * 2] * 4])
    box, valid = boxes_from_joints(joints)
    assert valid.tolist() == [True, False]
    np.testing.assert_array_equal(box[0], [0, 0, 10, 20])
    assert np.isnan(box[1]).all()
    assert boxes_from_joints(joints[0])[1].shape == ()


# --- errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: sanitize_boxes(np.zeros((2, 3)), (5, 5)),
            r"xywh must be \(…, 4\) as x, y, width, height, got \(2, 3\)",
        ),
        (
            lambda: sanitize_boxes(np.zeros((2, 4)), (5, 5, 3)),
            r"image_size must be \(2,\) or \(2, 2\).* got \(3,\)",
        ),
        (lambda: sanitize_boxes(np.zeros((2, 4)), np.ones((1, 2))), r"image_size must be .*, got \(1, 2\)"),
        (lambda: expand_boxes(np.zeros((2, 4)), aspect=0), "aspect must be a positive number, got 0"),
        (lambda: expand_boxes(np.zeros((2, 4)), scale=np.nan), "scale must be a positive number, got nan"),
        (
            lambda: crop_affine(np.ones((2, 4)), (0, 5)),
            r"out_size must be a positive \(width, height\), got \(0, 5\)",
        ),
        (lambda: crop_affine([[0, 0, 1, 1], [0, 0, 0, 1]], (5, 5)), "1 boxes have no area; pass only boxes"),
        (
            lambda: crop_affine(np.ones((2, 4)), (5, 5), rotation=[0.0]),
            r"rotation must be one value or \(2,\), got \(1,\)",
        ),
        (
            lambda: crop_affine(np.ones((2, 4)), (5, 5), flip=[True] * 3),
            r"flip must be one value or \(2,\), got \(3,\)",
        ),
        (lambda: invert_affine(np.zeros((3, 3))), r"affine must be \(…, 2, 3\), got \(3, 3\)"),
        (lambda: invert_affine(np.zeros((1, 2, 3))), "zero determinant and no inverse"),
        (
            lambda: apply_affine(np.zeros((4, 2, 3)), np.zeros((4, 2))),
            r"points must be \(…, K, 2\) for affines \(4, 2, 3\), got \(4, 2\)",
        ),
        (
            lambda: virtual_camera(np.ones(4), crop_size=0),
            r"crop_size must be a positive number or .*, got 0",
        ),
        (lambda: virtual_camera(np.ones(4), focal=-1), "focal must be positive, got -1"),
        (
            lambda: boxes_from_joints(np.zeros((4, 3))),
            r"joints must be \(…, K, 2\), got \(4, 3\); pass x and y only",
        ),
        (
            lambda: boxes_from_joints(np.zeros((1, 4, 2)), np.ones(4)),
            r"valid must be \(1, 4\) like the joints, got \(4,\)",
        ),
        (lambda: boxes_from_joints(np.zeros((4, 2)), scale=0), "scale must be a positive number, got 0"),
    ],
)
def test_errors_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
