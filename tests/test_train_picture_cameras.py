"""The cameras that pictures are fitted through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from neuralannot.body_models import load_body_model
from neuralannot.boxes import virtual_camera
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.train.crops import Crops, crops_of
from neuralannot.train.fitting.charts import Chart, State
from neuralannot.train.joint_points import joint_points
from neuralannot.train.picture_cameras import PictureCameras, image_cameras, seen_through, virtual_cameras
from neuralannot.train.rotations import rotation_between

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


@dataclass
class Boxes:
    box_xywh: np.ndarray
    image_size: np.ndarray
    side: np.ndarray | None = None


def crops(count: int = 6, *, hands: bool = False, seed: int = 0) -> Crops:
    rng = np.random.default_rng(seed)
    size = rng.integers(200, 900, (count, 2))
    corner = size * rng.uniform(0, 0.4, (count, 2))
    boxes = np.column_stack([corner, size * rng.uniform(0.2, 0.5, (count, 2))]).astype(np.float32)
    side = np.where(np.arange(count) % 2, "left", "right") if hands else None
    return crops_of(Boxes(boxes, size, side))


def project(points: np.ndarray, focal: np.ndarray, princpt: np.ndarray) -> np.ndarray:
    return points[..., :2] / points[..., 2:] * focal[:, None] + princpt[:, None]


@pytest.mark.parametrize("focal", [None, 700.0])
@pytest.mark.parametrize("hands", [False, True])
def test_a_crop_shows_what_the_whole_image_shows_there(focal, hands):
    some = crops(hands=hands)
    found = image_cameras(some, focal=focal)
    length = np.hypot(*some.image_size.T) if focal is None else np.full(len(some), focal)
    points = np.random.default_rng(1).uniform([-1, -1, 2], [1, 1, 6], (len(some), 8, 3))
    whole = project(points, np.column_stack([length, length]), some.image_size / 2)
    mirrored = some.mirror_cam(points)  # left hands are shown mirrored
    np.testing.assert_allclose(
        project(mirrored, found.focal, found.princpt), some.to_crop(whole.astype(np.float32)), atol=2e-2
    )
    back_focal, back_princpt = found.in_images(some)
    np.testing.assert_allclose(back_focal, np.column_stack([length, length]), rtol=1e-5)
    np.testing.assert_allclose(back_princpt, some.image_size / 2, atol=1e-2)


def test_the_virtual_camera_is_the_release_s():
    for hands in (False, True):
        some = crops(hands=hands)
        for found, wanted in zip(
            virtual_cameras(len(some)).in_images(some), virtual_camera(some.box_xywh), strict=True
        ):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-2)


def test_images_of_unknown_size_and_crops_that_are_none_have_the_virtual_camera():
    one = crops(5)
    size, valid = one.image_size.copy(), one.valid.copy()
    size[1], size[4, 0], valid[2] = 0, 0, False
    found = image_cameras(Crops(one.size, one.box_xywh, size, one.flip, valid))
    np.testing.assert_array_equal(found.focal[[1, 2, 4]], 5000)
    np.testing.assert_array_equal(found.princpt[[1, 2, 4]], 128)
    assert (found.focal[[0, 3]] < 4000).all()
    with pytest.raises(ValueError, match="focal must be positive, got 0"):
        image_cameras(one, focal=0.0)


@pytest.fixture(scope="module")
def posed() -> Any:
    body = load_body_model("smpl")
    chart = Chart(body)
    moments = joint_points(body, [JOINT_SETS["human36m-17"]]).moments()
    rng = np.random.default_rng(2)
    count = 6
    state = State(
        torch.tensor(Rotation.random(count, rng).as_matrix(), dtype=torch.float32),
        torch.tensor(rng.normal(0, 0.3, (count, 21, 3)), dtype=torch.float32),
        torch.tensor(rng.normal(0, 1, (count, 10)), dtype=torch.float32),
        torch.tensor(rng.uniform([-1, -1, 30], [1, 1, 60], (count, 3)), dtype=torch.float32),
    )
    return chart, moments, state


def test_bodies_look_alike_through_another_camera(posed):
    chart, moments, state = posed
    before, after = virtual_cameras(6), image_cameras(crops(6))
    moved = seen_through(state, chart, moments, before, after)

    def joints(one: State) -> np.ndarray:
        return (moments(chart.rotations(one), one.codes) + one.transl[:, None]).detach().numpy()

    old, new = joints(state), joints(moved)
    centres = [
        project(j.mean(1, keepdims=True), c.focal, c.princpt) for j, c in ((old, before), (new, after))
    ]
    np.testing.assert_allclose(centres[0], centres[1], atol=0.1)
    # As large: depth in focal lengths; as turned: to the ray, not to the axis.
    np.testing.assert_allclose(
        old.mean(1)[:, 2] / before.focal[:, 0], new.mean(1)[:, 2] / after.focal[:, 0], rtol=1e-4
    )
    along = []
    for joints_of_one in (old, new):
        centre = joints_of_one.mean(1)
        ray = centre / np.linalg.norm(centre, axis=1, keepdims=True)
        along.append(np.einsum("nkc,nc->nk", joints_of_one - centre[:, None], ray))
    np.testing.assert_allclose(*along, atol=1e-4)
    np.testing.assert_array_equal(moved.pose, state.pose)
    back = seen_through(moved, chart, moments, after, before)
    np.testing.assert_allclose(back.transl, state.transl, atol=2e-3)
    np.testing.assert_allclose(back.root, state.root, atol=1e-4)


def test_the_same_camera_moves_nothing(posed):
    chart, moments, state = posed
    same = PictureCameras(np.full((6, 2), 800, np.float32), np.full((6, 2), 100, np.float32))
    moved = seen_through(state, chart, moments, same, same)
    np.testing.assert_allclose(moved.transl, state.transl, atol=2e-4)
    np.testing.assert_allclose(moved.root, state.root, atol=1e-5)


_NUMBER = st.floats(-3, 3).filter(lambda v: abs(v) > 0.05)


@settings(max_examples=50, deadline=None)
@given(one=st.tuples(_NUMBER, _NUMBER, _NUMBER), other=st.tuples(_NUMBER, _NUMBER, st.floats(0.1, 3)))
def test_the_least_rotation_between_directions(one, other):
    one, other = (one[0], one[1], abs(one[2])), other  # as rays of cameras are: never opposite
    a, b = (torch.tensor(v, dtype=torch.float64) for v in (one, other))
    found = rotation_between(a, b).numpy()
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(found @ (a / a.norm()).numpy(), (b / b.norm()).numpy(), atol=1e-9)
    angle = np.arccos(np.clip(float(a @ b / a.norm() / b.norm()), -1, 1))
    np.testing.assert_allclose(Rotation.from_matrix(found).magnitude(), angle, atol=1e-6)
