"""Crops: where they lie, that pictures and joints agree at every size, that reduced pictures do not alias."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralannot.boxes import apply_affine, crop_affine, process_boxes, virtual_camera
from neuralannot.train.crops import (
    IMAGE_MEAN,
    IMAGE_STD,
    Crops,
    crops_of,
    cut,
    denormalise,
    normalise,
)


def boxed(boxes, *, size=(640, 480), side=None):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    sides = None if side is None else np.array(side)
    return SimpleNamespace(box_xywh=boxes, image_size=np.tile(np.int64(size), (len(boxes), 1)), side=sides)


BOXES = [[100, 50, 200, 260], [300.5, 200.25, 33, 20], [-40, 10, 90, 90], [600, 400, 200, 200]]


# --- geometry


@given(
    x=st.floats(-50, 600),
    y=st.floats(-50, 440),
    w=st.floats(8, 900),
    h=st.floats(8, 900),
    left=st.booleans(),
    size=st.sampled_from([64, 100, 128, 256]),
)
@settings(max_examples=60, deadline=None)
def test_to_image_undoes_to_crop_and_the_affine_is_the_same_map(x, y, w, h, left, size):
    crops = crops_of(boxed([x, y, w, h], side=["left" if left else "right"]), size=size)
    if not crops.valid[0]:
        assert np.isnan(crops.to_crop(np.zeros((1, 1, 2)))).all()
        return
    box = crops.box_xywh[0]
    points = box[:2] + np.random.default_rng(0).uniform(-0.2, 1.2, (1, 9, 2)) * box[2:]
    units = crops.to_crop(points)
    assert crops.to_image(units) == pytest.approx(points, abs=2e-3)
    assert apply_affine(crops.affine, points) == pytest.approx(units * size / 256, abs=2e-2)
    assert apply_affine(crops.inverse, units * size / 256) == pytest.approx(points, abs=2e-2)


def test_boxes_are_the_release_s_and_the_virtual_camera_s_centre_is_the_crop_s():
    crops = crops_of(boxed(BOXES, side=["right", "left", "left", "right"]))
    expected, valid = process_boxes(BOXES, (640, 480))
    assert np.array_equal(crops.box_xywh, expected, equal_nan=True)
    assert np.array_equal(crops.valid, valid)
    focal, princpt = virtual_camera(crops.box_xywh)
    assert crops.to_crop(princpt[:, None]) == pytest.approx(128, abs=1e-3)
    # A point at 1/5000 of the depth beside the axis is a unit beside the centre, mirrored or not.
    beside = crops.to_crop((princpt + focal / 5000 * [1, 0])[:, None])[:, 0, 0]
    assert beside == pytest.approx(128 + np.where(crops.flip, -1, 1), abs=1e-3)


def test_mirrored_points_project_to_mirrored_crops():
    crops = crops_of(boxed(BOXES, side=["right", "left", "left", "right"]))
    focal, princpt = (values[:, None] for values in virtual_camera(crops.box_xywh))
    joints = np.random.default_rng(0).normal([0, 0, 40], 0.3, (4, 21, 3)).astype(np.float32)
    pixels = joints[..., :2] / joints[..., 2:] * focal + princpt
    mirrored = crops.mirror_cam(joints)
    seen = mirrored[..., :2] / mirrored[..., 2:] * 5000 + 128
    assert crops.to_crop(pixels) == pytest.approx(seen, abs=1e-2)
    assert np.array_equal(crops.mirror_cam(mirrored), joints)
    assert np.array_equal(mirrored[~crops.flip], joints[~crops.flip])


def test_an_image_of_unknown_size_cuts_boxes_at_the_left_and_top_alone():
    box = [-40, 700, 900, 90]
    known, unknown = (crops_of(boxed(box, size=size)).box_xywh[0] for size in ((1000, 1000), (0, 0)))
    assert np.array_equal(known, unknown)
    assert not crops_of(boxed(box, size=(640, 480))).valid[0]


@pytest.mark.parametrize(
    "box", [[np.nan] * 4, [10, 10, 0, 5], [10, 10, -3, 5], [700, 10, 20, 20], [1, 1, np.inf, 2]]
)
def test_boxes_that_cannot_be_cut_are_marked_and_not_zero(box):
    crops = crops_of(boxed([box, BOXES[0]]))
    assert crops.valid.tolist() == [False, True]
    assert np.isnan(crops.box_xywh[0]).all()
    assert np.isnan(crops.affine[0]).all()
    assert np.isfinite(crops.inverse[1]).all()


def test_rows_and_none():
    crops = crops_of(boxed(BOXES, side=["right", "left", "left", "right"]), size=64)
    some = crops.rows([3, 1])
    assert (len(some), some.size) == (2, 64)
    assert np.array_equal(some.affine, crops.affine[[3, 1]])
    assert some.flip.tolist() == [False, True]
    assert len(crops.rows([])) == len(crops_of(boxed([]))) == 0
    assert crops.rows(slice(0, 0)).to_crop(np.zeros((0, 5, 2))).shape == (0, 5, 2)
    assert "2 mirrored" in repr(crops)


def test_nan_joints_stay_nan():
    crops = crops_of(boxed(BOXES[:1]))
    points = np.array([[[120.0, 90.0], [np.nan, np.nan]]])
    assert np.isnan(crops.to_crop(points)).tolist() == [[[False, False], [True, True]]]


def test_what_crops_refuse():
    with pytest.raises(ValueError, match=r'side must be "right" or "left", got \'both\''):
        crops_of(boxed(BOXES[:1], side=["both"]))
    with pytest.raises(ValueError, match="size must be a positive number of pixels, got 0"):
        crops_of(boxed(BOXES), size=0)
    with pytest.raises(ValueError, match=r"points must be \(4, J, 2\), a row per crop, got \(4, 2\)"):
        crops_of(boxed(BOXES)).to_crop(np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"flip must be \(1,\) for 1 crops, got \(2,\)"):
        Crops(8, np.zeros((1, 4)), np.zeros((1, 2)), np.zeros(2, bool), np.zeros(1, bool))


# --- pictures


def spot(at, *, width=480, height=360, spread=6.0):
    """A picture of one soft spot."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    bright = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * spread**2))
    return np.round(255 * bright).astype(np.uint8)


def centroid(crop):
    y, x = np.indices(crop.shape)
    return np.array([(crop * x).sum(), (crop * y).sum()]) / crop.sum()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("extent", [40, 150, 300])
def test_a_joint_is_where_the_crop_shows_it_at_every_size(side, extent):
    at = np.array([210.3, 141.8])
    for size in (32, 64, 128, 256):
        samples = boxed([at[0] - 0.6 * extent, at[1] - 0.45 * extent, extent, extent], side=[side])
        samples.image_size[:] = 480, 360
        crops = crops_of(samples, size=size, scale=1.0)
        crop = cut(spot(at, spread=extent / 25), crops.affine[0], size)
        expected = crops.to_crop(at[None, None])[0, 0]
        assert centroid(crop.astype(float)) * 256 / size == pytest.approx(expected, abs=0.15), size


def slow_cut(image, affine, size, samples=16):
    """The mean of many interpolated samples over the square that each crop pixel covers."""
    back = np.linalg.inv(np.vstack([affine, [0, 0, 1]]).astype(float))
    at = (np.arange(size * samples) + 0.5) / samples - 0.5
    x, y = np.meshgrid(at, at)
    x, y = (back[k, 0] * x + back[k, 1] * y + back[k, 2] for k in (0, 1))
    values = cv2.remap(
        image.astype(np.float32), x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
    )  # fmt: skip
    return values.reshape(size, samples, size, samples, -1).mean((1, 3))


@pytest.mark.parametrize("step", [1.0, 1.3, 2.0, 2.6, 4.0, 7.3, 11.0, 23.0])
@pytest.mark.parametrize("flip", [False, True])
def test_reduced_pictures_are_means_over_what_a_pixel_covers(step, flip):
    rng = np.random.default_rng(1)
    image = cv2.resize(rng.integers(0, 256, (90, 100, 3), np.uint8), (500, 450))
    image = np.clip(image + rng.normal(0, 40, image.shape), 0, 255).astype(np.uint8)
    # Larger ones reach beyond the image: black counts, too.
    affine = crop_affine([20.3, 31.7, 16 * step, 16 * step], (16, 16), flip=flip)
    ours, exact = cut(image, affine, 16).astype(float), slow_cut(image, affine, 16)
    assert np.abs(ours - exact).mean() < (20 if step == 1 else 3)
    if step >= 2:
        assert (
            np.abs(ours - exact).mean() < np.abs(cv2.warpAffine(image, affine, (16, 16)) - exact).mean() / 4
        )


def test_a_fine_pattern_becomes_grey():
    image = np.zeros((600, 600), np.uint8)
    image[:, ::2] = 255
    affine = crop_affine([50, 50, 500, 500], (100, 100))
    assert cv2.warpAffine(image, affine, (100, 100)).std() > 50
    assert np.abs(cut(image, affine, 100) - 127.5).max() <= 27  # five columns: two or three are bright


def test_enlarged_pictures_are_opencv_s():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    for box in ([3, 4, 30, 30], [-10, -12, 60, 60]):
        affine = crop_affine(box, (64, 64))
        expected = cv2.warpAffine(image, affine, (64, 64))
        # opencv counts 32 steps between two pixels, from another corner.
        assert np.abs(cut(image, affine, 64).astype(int) - expected).max() <= 16


def test_outside_the_image_is_black():
    image = np.full((40, 50, 3), 200, np.uint8)
    assert not cut(image, crop_affine([500, 500, 20, 20], (16, 16)), 16).any()
    assert not cut(image, crop_affine([-5000, 10, 20, 2000], (16, 16)), 16).any()
    half = cut(image, crop_affine([-20, 10, 40, 20], (32, 32)), 32)
    assert not half[:, :15].any()
    assert (half[:, 17:] == 200).all()


def test_images_larger_than_opencv_warps_are_cut():
    image = np.zeros((4, 40_000), np.uint8)
    image[:, 39_000:] = 250
    assert (cut(image, crop_affine([39_500, 0, 4, 4], (8, 8)), 8)[:6] == 250).all()
    assert cut(image, crop_affine([0, 0, 40_000, 40_000], (8, 8)), 8).shape == (8, 8)


def test_what_cut_refuses():
    image, affine = np.zeros((4, 4, 3), np.uint8), crop_affine([0, 0, 4, 4], (8, 8))
    with pytest.raises(TypeError, match="image must be uint8 from 0 to 255, got float32"):
        cut(image.astype(np.float32), affine, 8)
    with pytest.raises(ValueError, match="at least one pixel, got \\(0, 4, 3\\)"):
        cut(image[:0], affine, 8)
    with pytest.raises(ValueError, match="crops that are not valid have none"):
        cut(image, affine * np.nan, 8)
    with pytest.raises(ValueError, match="affine must be invertible"):
        cut(image, affine * 0, 8)


# --- tensors


def test_normalise_is_torchvision_s_formula_and_denormalise_its_inverse():
    values = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    images = values.contiguous(memory_format=torch.channels_last)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
    done = normalise(images)
    assert torch.allclose(done, (images / 255 - mean) / std, atol=1e-6)
    assert done.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(denormalise(done), images)
    assert normalise(images, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert denormalise(torch.full((1, 3, 1, 1), 99.0)).unique().tolist() == [255]
    assert normalise(images[:0]).shape == (0, 3, 16, 16)


def test_what_normalise_refuses():
    with pytest.raises(TypeError, match=r"images must be uint8 .* got torch.float32; normalise them once"):
        normalise(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"images must be \(B, 3, S, S\) RGB, got \(1, 4, 4, 3\)"):
        normalise(torch.zeros(1, 4, 4, 3, dtype=torch.uint8))
