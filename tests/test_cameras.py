"""Cameras: extrinsics, projection, resizing and cropping; the released camera files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from neuralannot.cameras import Camera, camera_of_image, read_cameras, stack_cameras


def cameras(n: int, seed: int = 0, image_size: tuple[int, int] | None = (640, 480)) -> Camera:
    rng = np.random.default_rng(seed)
    size = None if image_size is None else np.tile(image_size, (n, 1))
    return Camera(
        rng.uniform(500, 1500, (n, 2)),
        rng.uniform(100, 500, (n, 2)),
        Rotation.random(n, random_state=seed).as_matrix().reshape(n, 3, 3),
        rng.normal(0, 2, (n, 3)),
        size,
    )


def points(n: int, count: int = 9, seed: int = 1) -> np.ndarray:
    """In front of the camera, float64."""
    return np.random.default_rng(seed).uniform([-1, -1, 2], [1, 1, 6], (n, count, 3))


seeds = st.integers(0, 10_000)


@given(seeds)
def test_camera_to_world_is_the_inverse(seed):
    camera, world = cameras(4, seed), points(4, seed=seed)
    there = camera.world_to_camera(world)
    np.testing.assert_allclose(camera.camera_to_world(there), world, atol=1e-5)
    np.testing.assert_allclose(camera.world_to_camera(camera.camera_to_world(world)), world, atol=1e-5)


def test_projection_is_the_matrices_product():
    camera, world = cameras(3), points(3)
    world = camera.camera_to_world(world)
    for k in range(3):
        P = camera.K[k].astype(float) @ np.c_[camera.R[k], camera.t[k]]
        for point, pixel in zip(world[k], camera.project(camera.world_to_camera(world))[k], strict=True):
            x, y, w = P @ [*point, 1]
            np.testing.assert_allclose(pixel, [x / w, y / w], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("method", ["world_to_camera", "camera_to_world", "project"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpy_and_torch_agree(method, dtype):
    camera = cameras(3)
    given_points = points(3).astype(dtype)
    by_numpy = getattr(camera, method)(given_points)
    by_torch = getattr(camera, method)(torch.tensor(given_points))
    assert by_numpy.dtype == given_points.dtype
    assert by_torch.dtype == getattr(torch, dtype)
    tolerance = 1e-3 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(by_numpy, by_torch.numpy(), rtol=0, atol=tolerance)


def test_gradients_flow_through_projection_and_stay_finite():
    behind = torch.tensor(points(2, 3), dtype=torch.float32)
    behind[0, 0, 2] = -1.0
    behind.requires_grad_()
    pixels = cameras(2).project(behind)
    pixels[pixels.isfinite()].sum().backward()
    assert behind.grad[1].isfinite().all()
    assert behind.grad[1].abs().sum() > 0


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_points_at_or_behind_the_camera_are_nan(kind):
    camera = Camera.from_intrinsics(np.full((1, 2), 1000.0), np.full((1, 2), 320.0))
    seen = np.asarray(camera.project(kind([[[0.1, 0.2, 2.0], [0, 0, 0], [0.1, 0.2, -2.0], [0, 0, np.nan]]])))
    np.testing.assert_allclose(seen[0, 0], [370, 420])
    assert np.isnan(seen[0, 1:]).all()


def test_no_cameras_and_no_points():
    none = cameras(0)
    assert len(none) == 0
    assert none.project(np.zeros((0, 5, 3))).shape == (0, 5, 2)
    assert none.world_to_camera(torch.zeros(0, 5, 3)).shape == (0, 5, 3)
    assert cameras(2).project(np.zeros((2, 0, 3))).shape == (2, 0, 2)
    assert len(stack_cameras([])) == 0


@pytest.mark.parametrize("shape", [(9, 3), (2, 9, 3), (3, 9, 2), (3, 9, 4), (3, 3)])
def test_points_of_the_wrong_shape(shape):
    for method in ("world_to_camera", "camera_to_world", "project"):
        with pytest.raises(ValueError, match=r"points must be \(3, P, 3\), got"):
            getattr(cameras(3), method)(np.zeros(shape))


def test_rows_and_stacking():
    camera = cameras(4)
    for index in (np.array([2, 0, 2]), slice(1, 3), [3], np.array([True, False, True, False])):
        rows = camera.rows(index)
        for name in ("focal", "princpt", "R", "t", "image_size"):
            np.testing.assert_array_equal(getattr(rows, name), getattr(camera, name)[index])
    both = stack_cameras([camera.rows([0]), camera.rows([2, 3])])
    np.testing.assert_array_equal(both.t, camera.t[[0, 2, 3]])


# --- images of another size


@given(seeds, st.integers(1, 4000), st.integers(1, 4000))
def test_resized_projects_to_the_resized_image(seed, width, height):
    camera, seen = cameras(3, seed), points(3, seed=seed)
    resized = camera.resized((width, height))
    np.testing.assert_array_equal(resized.image_size, [[width, height]] * 3)
    expected = camera.project(seen) * [width / 640, height / 480]
    np.testing.assert_allclose(resized.project(seen), expected, rtol=1e-5, atol=1e-3)
    back = resized.resized((640, 480))
    np.testing.assert_allclose(back.focal, camera.focal, rtol=1e-5)
    np.testing.assert_allclose(back.princpt, camera.princpt, rtol=1e-5)


@given(seeds, st.floats(0.1, 5), st.floats(0.1, 5))
def test_scaled_projects_to_scaled_pixels(seed, x, y):
    camera, seen = cameras(3, seed), points(3, seed=seed)
    for factor in (x, (x, y), np.tile([x, y], (3, 1))):
        expected = camera.project(seen) * np.broadcast_to(factor, (3, 2))[:, None]
        np.testing.assert_allclose(camera.scaled(factor).project(seen), expected, rtol=1e-5, atol=1e-3)
    assert cameras(2, image_size=None).scaled(x).image_size is None


@given(seeds, st.floats(-500, 500), st.floats(-500, 500), st.integers(1, 500))
def test_cropped_projects_into_the_crop(seed, x, y, side):
    camera, seen = cameras(3, seed), points(3, seed=seed)
    crop = camera.cropped(np.array([x, y, side, 2 * side]))
    np.testing.assert_allclose(crop.project(seen), camera.project(seen) - [x, y], rtol=1e-5, atol=2e-3)
    np.testing.assert_array_equal(crop.image_size, [[side, 2 * side]] * 3)
    np.testing.assert_array_equal(crop.R, camera.R)


def test_a_crop_a_row_and_its_resizing():
    camera, seen = cameras(2), points(2)
    boxes = np.array([[10, 20, 100, 100], [-30, 5, 200, 50]], np.float32)
    net = camera.cropped(boxes).resized((256, 256))
    expected = (camera.project(seen) - boxes[:, None, :2]) * (256 / boxes[:, None, 2:])
    np.testing.assert_allclose(net.project(seen), expected, rtol=1e-5, atol=1e-3)
    before = camera.princpt.copy()
    assert (net.image_size == 256).all()
    np.testing.assert_array_equal(camera.princpt, before)  # a new camera, the old one as it was


def test_cameras_that_do_not_know_their_image():
    camera = cameras(2, image_size=None)
    with pytest.raises(ValueError, match=r"cameras without image_size cannot be resized; give Camera\("):
        camera.resized((256, 256))
    camera.check_image(1, 1)  # nothing to hold against it


def test_check_image():
    camera = cameras(2)
    camera.check_image(640, 480)
    with pytest.raises(
        ValueError, match=r"image is 2048x2048 px, its camera belongs to 640x480; use the cam"
    ):
        camera.check_image(2048, 2048)
    with pytest.raises(ValueError, match=r"image is 480x640 px"):
        camera.check_image(480, 640)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("princpt", np.zeros((3, 2)), r"camera princpt must be \(2, 2\), got \(3, 2\)"),
        ("R", np.zeros((2, 9)), r"camera R must be \(2, 3, 3\), got \(2, 9\)"),
        ("t", np.zeros((2, 3, 1)), r"camera t must be \(2, 3\), got \(2, 3, 1\)"),
        ("image_size", np.ones(2), r"camera image_size must be \(2, 2\), got \(2,\)"),
        ("focal", np.array([[1, 1], [0, 1.0]]), r"camera focal must be positive, got 0"),
        ("focal", np.array([[1, 1], [np.nan, 1]]), r"camera focal must be positive, got nan"),
    ],
)
def test_cameras_that_are_none(name, value, message):
    good = cameras(2)
    values = {n: getattr(good, n) for n in ("focal", "princpt", "R", "t", "image_size")}
    with pytest.raises(ValueError, match=message):
        Camera(**values | {name: value})


# --- files

R = Rotation.from_euler("xyz", [0.3, 0.2, 0.1]).as_matrix().tolist()
H36M = {"R": R, "t": [1000.0, -250.0, 5500.0], "f": [1145.0, 1143.0], "c": [512.0, 515.0]}
MPI = {"R": R, "t": H36M["t"], "focal": H36M["f"], "princpt": H36M["c"]}
INTERHAND = {"campos": {"400026": [100.0, 200.0, 300.0]}, "camrot": {"400026": R}}
INTERHAND |= {"focal": {"400026": H36M["f"]}, "princpt": {"400026": H36M["c"]}}


def read(tmp_path, content, data_set="Human3.6M", subject=5):
    path = tmp_path / "camera.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_cameras(path, data_set, subject)


def test_human36m_files_are_in_millimetres(tmp_path):
    found = read(tmp_path, {"1": H36M, "4": H36M})
    assert list(found) == [(5, 1), (5, 4)]
    camera = found[5, 4]
    np.testing.assert_allclose(camera.t, [[1.0, -0.25, 5.5]])
    np.testing.assert_allclose(camera.R[0], R, rtol=1e-6)
    np.testing.assert_array_equal(camera.focal, [[1145, 1143]])
    np.testing.assert_array_equal(camera.princpt, [[512, 515]])


def test_mpi_inf_3dhp_files(tmp_path):
    found = read(tmp_path, {"4": {"2": {"0": MPI, "8": MPI}}}, "MPI-INF-3DHP", None)
    assert list(found) == [(4, 2, 0), (4, 2, 8)]
    np.testing.assert_allclose(found[4, 2, 8].t, [[1.0, -0.25, 5.5]])


def test_interhand_files_give_positions(tmp_path):
    camera = read(tmp_path, {"3": INTERHAND}, "InterHand2.6M", None)[3, 400026]
    centre = camera.world_to_camera(np.array([[[0.1, 0.2, 0.3]]]))
    np.testing.assert_allclose(centre, 0, atol=1e-7)


def test_shapes_that_are_seen_too(tmp_path):
    column = H36M | {"t": [[v] for v in H36M["t"]], "R": [v for row in R for v in row]}
    found, expected = read(tmp_path, {"1": column})[5, 1], read(tmp_path, {"1": H36M})[5, 1]
    np.testing.assert_array_equal(found.t, expected.t)
    np.testing.assert_array_equal(found.R, expected.R)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"R": None}, r"camera.json: camera 4: no 'R', got R, t, f, c"),
        ({"R": [[1, 0], [0, 1]]}, r"camera 4: 'R' must be \(3, 3\) of finite numbers"),
        ({"t": [1, 2]}, r"camera 4: 't' must be \(3,\) of finite numbers, got \[1, 2\]"),
        ({"t": [1, 2, float("nan")]}, r"camera 4: 't' must be \(3,\) of finite numbers"),
        ({"f": [1e3, float("inf")]}, r"camera 4: 'f' must be \(2,\) of finite numbers"),
        ({"c": ["a", "b"]}, r"camera 4: 'c' must hold numbers"),
        ({"c": [[1], [2, 3]]}, r"camera 4: 'c' must hold numbers"),
        ({"f": [-1, 1]}, r"camera 4: .*focal must be positive, got -1"),
    ],
)
def test_bad_cameras_are_named(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, {"1": H36M, "4": H36M | change})


def test_a_camera_without_r(tmp_path):
    without = {k: v for k, v in H36M.items() if k != "R"}
    with pytest.raises(ValueError, match=r"camera 4: no 'R', got t, f, c"):
        read(tmp_path, {"4": without})
    with pytest.raises(ValueError, match=r"camera 4/2/0: no 'R'"):
        read(tmp_path, {"4": {"2": {"0": {"t": [1, 2, 3], **MPI, "R": None}}}}, "MPI-INF-3DHP", None)
    broken = INTERHAND | {"camrot": {}}
    with pytest.raises(ValueError, match=r"camera 3/400026: no 'camrot'"):
        read(tmp_path, {"3": broken}, "InterHand2.6M", None)
    with pytest.raises(ValueError, match=r"camera 3: no 'focal'"):
        read(tmp_path, {"3": {k: v for k, v in INTERHAND.items() if k != "focal"}}, "InterHand2.6M", None)


@pytest.mark.parametrize(
    ("content", "data_set", "message"),
    [
        ("[1, 2]", "Human3.6M", r"not a camera file: expected an object, got list"),
        ("{", "Human3.6M", r"camera.json: not a camera file: Expecting"),
        ({"left": H36M}, "Human3.6M", r"key 'left' is not a camera's number"),
        ({"1": 3}, "Human3.6M", r"camera 1: no 't', got 3"),
        ({"4": 3}, "MPI-INF-3DHP", r"not a camera file: expected an object, got int"),
        ({"4": 3}, "InterHand2.6M", r"camera 4: no 'campos', got 3"),
        ({"4": INTERHAND | {"campos": [1]}}, "InterHand2.6M", r"camera 4: 'campos' must be an object"),
        ({"4": INTERHAND | {"focal": [1]}}, "InterHand2.6M", r"camera 4: 'focal' must be an object"),
        ({}, "MSCOCO", r"MSCOCO has no camera file; its cameras are in the annotations"),
    ],
)
def test_files_that_are_none(content, data_set, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content, data_set)


def test_a_human36m_file_belongs_to_a_subject(tmp_path):
    with pytest.raises(ValueError, match=r"holds one subject's; say which with subject="):
        read(tmp_path, {"1": H36M}, subject=None)
    with pytest.raises(FileNotFoundError):
        read_cameras(tmp_path / "nowhere.json", "Human3.6M", 1)


def test_cameras_of_3dpw_images_are_in_metres():
    entry = {"focal": [1960.0, 1960.0], "princpt": [540.0, 960.0]}
    camera = camera_of_image("3DPW_test.json", {"id": 7, "cam_param": entry})
    np.testing.assert_array_equal(camera.R, [np.eye(3)])
    np.testing.assert_array_equal(camera.t, [[0, 0, 0]])
    camera = camera_of_image("3DPW_test.json", {"id": 7, "cam_param": entry | {"R": R, "t": [0.5, 1, 4]}})
    np.testing.assert_array_equal(camera.t, [[0.5, 1, 4]])
    with pytest.raises(
        ValueError, match=r"3DPW_test.json: camera image 7/cam_param: no 'R', got focal, princ"
    ):
        camera_of_image("3DPW_test.json", {"id": 7, "cam_param": entry | {"t": [0.5, 1, 4]}})
    with pytest.raises(ValueError, match=r"3DPW_test.json: image 7: no 'cam_param'; expected focal, princpt"):
        camera_of_image("3DPW_test.json", {"id": 7})


def test_a_matrix_that_is_no_rotation_names_its_camera(tmp_path):
    camera = {"R": [[1, 0, 0], [0, 1, 0], [0, 0, -1]], "t": [0, 0, 0], "f": [1, 1], "c": [0, 0]}
    path = tmp_path / "Human36M_subject1_camera.json"
    path.write_text(json.dumps({"3": camera}))
    with pytest.raises(ValueError, match="camera 3: 'R' must be a rotation, got"):
        read_cameras(path, "Human3.6M", 1)
