"""`neuralannot view`: what is shown and where, decided without a browser; the server and the command."""

from __future__ import annotations

import functools
import io
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
import viser
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import FILE_NAMES, Written
from processes import Process
from scipy.spatial.transform import Rotation
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from neuralannot import PseudoGT, cli, load_pseudo_gt
from neuralannot.cameras import Camera
from neuralannot.demo import SAMPLE
from neuralannot.images import write_image
from neuralannot.render import render_overlay
from neuralannot.viewer import Content, Listing, Viewer, Wish, decide
from neuralannot.viewer.colours import UNKNOWN, error_colours, legend
from neuralannot.viewer.facts import facts_html
from neuralannot.viewer.photos import Drawn, Photo, Photos, overlay
from neuralannot.viewer.planes import eye_through, frustum, into_camera, turned_beside
from neuralannot.viewer.posing import Posing
from neuralannot.viewer.scene import coloured_glb
from neuralannot.viewer.server import LOOPBACK, close_server, is_loopback, open_server
from neuralannot.viewer.shots import Shots
from neuralannot.viewer.source import Source
from neuralannot.viewer.things import Mesh
from neuralannot.viewer.wish import COLOURS, LAYOUTS, VIEWS

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

HOSTILE = "<script>alert('1')</script>\" onerror=\"x&amp;"


@pytest.fixture(scope="module")
def walk() -> PseudoGT:
    return load_pseudo_gt(SAMPLE / "human36m", cache=False)


@pytest.fixture(scope="module")
def astronaut() -> PseudoGT:
    return load_pseudo_gt(SAMPLE / "mscoco", release="mscoco-smpl", cache=False)


def camera_of(numbers: Any) -> Camera:
    """A camera from random numbers, anything but square and centred."""
    rng = np.random.default_rng(numbers)
    focal, princpt = rng.uniform(200, 3000, (1, 2)), rng.uniform(-100, 900, (1, 2))
    R = Rotation.random(1, rng=rng).as_matrix() if numbers else np.eye(3)[None]
    return Camera(focal, princpt, R, rng.normal(size=(1, 3)))


def shown(*files: PseudoGT, row: int = 0, images: Path | None = None, **wish: Any) -> Content:
    """What is decided for a row of one or two files."""
    sources = tuple(Source(gt, name) for gt, name in zip(files, ("first", "second"), strict=False))
    return decide(sources, Photos(images), Wish(row, **wish))


def changed(gt: PseudoGT, **params: np.ndarray) -> PseudoGT:
    """The same rows with other parameters."""
    columns = {f"param/{name}": np.asarray(values, np.float32) for name, values in params.items()}
    return PseudoGT(gt.view.overlaid(columns), gt.release, space=gt.space, companions=gt.companions)


# --- cameras


@given(st.integers(0, 10_000), st.floats(0.1, 50), st.tuples(*[st.floats(1, 800)] * 4))
@settings(max_examples=20)
def test_a_planes_corners_are_the_images(seed: int, depth: float, box: tuple[float, ...]) -> None:
    camera = camera_of(seed)
    shape = frustum(camera, np.array(box), depth)
    at = camera.world_to_camera(shape.corners[None])
    x, y, w, h = box
    corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]]) - 0.5
    np.testing.assert_allclose(camera.project(at)[0], corners, atol=2e-2)
    np.testing.assert_allclose(at[0, :, 2], depth, rtol=1e-3)
    np.testing.assert_allclose(shape.corners.mean(axis=0), shape.centre, atol=1e-4)
    # The image's own axes lead from one corner to the next.
    across, down = shape.corners[1] - shape.corners[0], shape.corners[3] - shape.corners[0]
    np.testing.assert_allclose(across, shape.width * shape.R[:, 0], atol=1e-4)
    np.testing.assert_allclose(down, shape.height * shape.R[:, 1], atol=1e-4)
    assert shape.lines.shape == (8, 2, 3)


@given(st.integers(0, 10_000), st.integers(0, 10_000))
@settings(max_examples=20)
def test_moved_into_another_camera_a_body_covers_the_same_pixels(one: int, other: int) -> None:
    cameras = [Camera.from_intrinsics(c.focal, c.princpt) for c in (camera_of(one), camera_of(other))]
    points = np.random.default_rng(one).normal(size=(50, 3)) * 0.4 + [0, 0, 30]
    moved = into_camera(points, *cameras)
    np.testing.assert_allclose(cameras[1].project(moved[None]), cameras[0].project(points[None]), atol=1e-2)
    # Not thicker, and as far as it looks as large as it is.
    np.testing.assert_allclose(np.ptp(moved[:, 2]), np.ptp(points[:, 2]), rtol=1e-6)
    f, F = (float(np.sqrt(c.focal.astype(float).prod())) for c in cameras)
    assert moved[:, 2].mean() / points[:, 2].mean() == pytest.approx(F / f)
    assert into_camera(points, cameras[0], cameras[0]) is points
    behind = into_camera(np.array([[0.0, 0, -1], [0, 0, 20]]), *cameras)
    if one != other:
        assert np.isnan(behind[0]).any()


@given(st.integers(0, 10_000), st.floats(0.3, 3))
@settings(max_examples=20)
def test_the_eye_in_a_camera_sees_the_box_and_nothing_comes_before_it(seed: int, aspect: float) -> None:
    camera = camera_of(seed)
    box = np.array([0.0, 0, 640, 480])
    eye = eye_through(camera, box, 0.3)
    shape = frustum(camera, box, 2.0)
    np.testing.assert_allclose(eye.position, shape.apex)
    ahead = eye.target - eye.position
    right = np.cross(ahead, eye.up)
    right /= np.linalg.norm(right)
    up = np.cross(right, ahead)
    rays = shape.corners - eye.position
    tangents = np.stack([rays @ right, rays @ up], 1) / (rays @ ahead)[:, None]
    limit = np.tan(eye.fov(aspect) / 2)
    steep = (rays @ ahead) < np.cos(np.radians(74)) * np.linalg.norm(rays, axis=1)
    assert (np.abs(tangents[~steep]) <= np.array([limit * aspect, limit])).all()


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_files_beside_each_other_do_not_overlap_and_look_as_before(seed: int) -> None:
    camera, box = camera_of(seed), np.array([100.0, 50, 200, 300])
    placed = [turned_beside(camera, box, side) for side in (-1, 1)]
    shape = frustum(camera, box, 3.0)
    for move in placed:
        np.testing.assert_allclose(move.R @ move.R.T, np.eye(3), atol=1e-5)
        np.testing.assert_allclose(move(shape.apex), shape.apex, atol=1e-5)  # seen from there, nothing shifts
    sides = [(move(shape.corners) - shape.apex) @ shape.R for move in placed]
    left, right = (np.arctan2(corners[:, 0], corners[:, 2]) for corners in sides)
    assert left.max() < right.min() < left.max() + 0.1 * np.ptp(left)


# --- colours, texts


def test_colours_of_errors() -> None:
    colours = error_colours(np.array([0, 50, 100, 1e9, np.inf, np.nan]), 100)
    assert colours.dtype == np.uint8
    assert colours[0, 2] > colours[0, 0]
    assert colours[2, 0] > colours[2, 2]
    assert (colours[2:5] == colours[2]).all()
    assert tuple(colours[5]) == UNKNOWN
    many = error_colours(np.linspace(0, 1, 50), 1).astype(int)
    assert len(np.unique(many, axis=0)) > 40
    assert error_colours(np.zeros(0), 1).shape == (0, 3)
    for limit in (0, -1, np.nan):
        with pytest.raises(ValueError, match="limit of the colours must be positive"):
            error_colours(np.zeros(1), limit)
    assert "100 mm" in legend("joint error", 100, "mm")


def test_texts_from_files_are_text(astronaut: PseudoGT) -> None:
    assert HOSTILE not in facts_html([("image", HOSTILE)], [HOSTILE])
    assert "<script" not in facts_html([(HOSTILE, HOSTILE)], [HOSTILE])
    content = decide((Source(astronaut, HOSTILE),), Photos(None), Wish(0))
    assert "<script" not in content.facts


def test_wishes_are_checked() -> None:
    for field, values in (("view", VIEWS), ("layout", LAYOUTS), ("colours", COLOURS)):
        with pytest.raises(ValueError, match=f"{field} must be one of"):
            Wish(0, **{field: "none"})
        for value in values:
            Wish(0, **{field: value})


# --- the list


def test_pages_hold_every_row_once_in_the_order_asked(walk: PseudoGT) -> None:
    values = np.random.default_rng(0).normal(size=len(walk)).astype(np.float32)
    values[[3, 50]] = np.nan
    values[[10, 20]] = 0.5
    gt = walk.with_quality({"error": values, "implausible_bend": values > 1})
    listing = Listing(gt)
    assert listing.orders[:3] == ("as in the file", "error, worst first", "error, best first")
    for by in listing.orders:
        listing.sort(by)
        rows = np.concatenate([listing.page(k, 7) for k in range(listing.pages(7))])
        assert sorted(rows.tolist()) == list(range(len(gt)))
        assert all(listing.row(k) == rows[k] and listing.place(int(rows[k])) == k for k in range(len(gt)))
        assert len(listing.names(rows[:7])) == 7
        if by.startswith("error"):
            ranked = values[rows[:-2]]
            assert (np.diff(ranked) <= 0 if "worst" in by else np.diff(ranked) >= 0).all()
            assert rows[-2:].tolist() == [3, 50]
            assert "not measured" in listing.names(rows[-1:])[0]
        if by == "implausible bend, worst first":
            assert gt.quality["implausible_bend"][rows[: (values > 1).sum()]].all()
    assert listing.row(-5) == listing.row(0)
    assert listing.row(10**9) == listing.row(len(gt) - 1)
    assert len(listing.page(10**6, 7)) == 0
    with pytest.raises(ValueError, match="no order is called 'size'; there are 'as in the file'"):
        listing.sort("size")


def test_annotations_are_found_by_id_and_frame(walk: PseudoGT) -> None:
    listing = Listing(walk)
    assert int(walk.ids[listing.find(" 7 ")]) == 7
    frame = walk.keys[40]
    assert walk.keys[listing.find("/".join(map(str, frame)))] == frame
    with pytest.raises(KeyError, match="97"):
        listing.find("97")
    with pytest.raises(ValueError, match="neither an id"):
        listing.find("seven")
    with pytest.raises(ValueError, match="has no rows"):
        Listing(walk[:0]).row(0)
    assert Listing(walk[:0]).pages(12) == 1


# --- rows that belong together


@pytest.mark.parametrize("name", FILE_NAMES)
def test_people_views_and_frames_are_those_that_a_slow_search_finds(
    name: str, released: Callable[[str], Written]
) -> None:
    written = released(name)
    gt = load_pseudo_gt(written.path, annotations=written.annotations)
    gt = gt.rows(np.random.default_rng(0).permutation(np.tile(np.arange(len(gt)), 2)))
    shots = Shots(gt)
    paths = gt.image_path
    keys = np.array(gt.keys) if shots.has_frames else None
    cameras = gt.view.column("ann/camera_key") if "ann/camera_key" in gt.view else None
    for row in range(len(gt)):
        same = np.flatnonzero(paths == paths[row]) if paths[row] else np.flatnonzero(gt.ids == gt.ids[row])
        assert shots.people(row).tolist() == same.tolist()
        timeline = shots.timeline(row)
        if keys is None or cameras is None:
            assert shots.views(row).tolist() == [row]
            if name.startswith("3dpw"):
                assert timeline is not None
                folder = paths[row].rpartition("/")[0]
                wanted = {p for p in paths.tolist() if p.rpartition("/")[0] == folder}
                assert paths[timeline.rows].tolist() == sorted(wanted)
            else:
                assert timeline is None
            continue
        frame = np.flatnonzero((keys == keys[row]).all(axis=1))
        assert {*map(tuple, cameras[shots.views(row)].tolist())} == {*map(tuple, cameras[frame].tolist())}
        assert len(shots.views(row)) == len(np.unique(cameras[frame], axis=0))
        assert timeline is not None
        assert row in timeline.rows
        through = (keys[:, :-1] == keys[row, :-1]).all(axis=1) & (cameras == cameras[row]).all(axis=1)
        assert timeline.frames.tolist() == sorted(set(keys[through, -1].tolist()))
        assert through[timeline.rows].all()
        assert keys[timeline.rows, -1].tolist() == timeline.frames.tolist()
        all_cameras, names = shots.cameras(row)
        assert all_cameras is not None
        assert shots.camera_name(row) in names


def test_fits_without_annotations_are_shown_by_frame(released: Callable[[str], Written]) -> None:
    gt = load_pseudo_gt(released("interhand26m-mano").path, annotations=False)
    shots = Shots(gt)
    keys = np.array(gt.keys)
    for row in range(len(gt)):
        assert shots.people(row).tolist() == np.flatnonzero((keys == keys[row]).all(axis=1)).tolist()
        assert shots.cameras(row) == (None, ())
        timeline = shots.timeline(row)
        assert timeline is not None
        assert timeline.place(int(keys[row, -1])) == timeline.rows.tolist().index(row)
    content = shown(gt, view="camera")
    assert any("the cameras of its fits are not loaded" in text for text in content.missing)
    assert len(content.groups[0].meshes) == len(shots.people(0))
    assert not content.groups[0].planes


def test_a_capture_has_each_of_its_cameras_once_in_saved_columns_too(walk: PseudoGT, tmp_path: Path) -> None:
    walk.save(tmp_path / "walk.safetensors")
    saved = load_pseudo_gt(tmp_path / "walk.safetensors")
    for gt in (walk, saved):
        cameras, names = Shots(gt).cameras(5)
        assert names == ("1", "2", "3", "4")
        assert cameras is not None
        for k, name in enumerate(names):
            row = next(r for r in range(4 * 24) if Shots(gt).camera_name(r) == name)
            own = gt.rows([row]).require_camera()
            np.testing.assert_array_equal(cameras.R[k], own.R[0])
            np.testing.assert_array_equal(cameras.t[k], own.t[0])


# --- posing


def test_bodies_are_those_of_forward_and_few_are_kept(
    walk: PseudoGT, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuralannot.viewer import posing

    monkeypatch.setattr(posing, "_KEPT", 5)
    made = Posing(walk)
    truth = walk.rows(range(12)).forward(space="world", only_valid=True)
    assert truth.vertices is not None
    for rows in ([3], [3, 4, 3], list(range(12)), [0]):
        bodies = made.bodies(np.array(rows), ahead=np.arange(4, 12))
        assert [b.vertices.tobytes() for b in bodies] == [truth.vertices[r].numpy().tobytes() for r in rows]
        assert len(made._kept) <= max(5, len(rows))
    assert made.bodies(np.array([0]))[0] is made.bodies(np.array([0]))[0]
    assert made.bodies(np.zeros(0, int)) == []


# --- what is shown


@pytest.mark.parametrize("name", FILE_NAMES)
def test_bodies_lie_over_the_pixels_that_they_project_to(
    name: str, released: Callable[[str], Written]
) -> None:
    written = released(name)
    gt = load_pseudo_gt(written.path, annotations=written.annotations)
    for row in (0, len(gt) - 1):
        one = gt.rows([row])
        content = shown(gt, row=row, joints=True, errors=True)
        group = content.groups[0]
        people = [row, *(r for r in Shots(gt).people(row).tolist() if r != row)]
        behind = [name for name in content.missing if "reaches behind its camera" in name]
        people = [r for r in people if not any(name.startswith(f"{gt.ids[r]} of") for name in behind)]
        assert len(behind) < 2
        assert len(group.meshes) == len(people) == len(group.texts)
        camera = one.require_camera()
        for mesh, other in zip(group.meshes, people, strict=True):
            wanted = gt.rows([other]).forward(only_valid=True).project("vertices")[0].numpy()
            found = camera.project(camera.world_to_camera(mesh.vertices[None]))[0]
            seen = np.isfinite(wanted).all(axis=1)
            np.testing.assert_allclose(found[seen], wanted[seen], atol=0.05, rtol=1e-4)
        (plane,) = group.planes
        farther = camera.world_to_camera(plane.frustum.corners[None].astype(np.float32))[0, :, 2]
        depths = [camera.world_to_camera(m.vertices[None])[0, :, 2].max() for m in group.meshes]
        assert (farther > max(depths)).all()  # nothing is hidden by the image
        assert content.eye.position == pytest.approx(plane.frustum.apex)
        for view in VIEWS:
            there = shown(gt, row=row, view=view)
            eye = there.eye
            assert all(np.isfinite(v).all() for v in (eye.position, eye.target, eye.up, eye.half))
            assert 0 < eye.near < np.linalg.norm(eye.position - there.groups[0].meshes[0].vertices.mean(0))
            assert eye.fov(1.5) > 0


def test_motion_capture_stands_upright_on_its_floor_among_all_its_cameras(walk: PseudoGT) -> None:
    content = shown(walk, row=10, view="world")
    assert content.up.tolist() == [0, 0, 1]
    assert content.floor is not None
    assert content.floor.height == pytest.approx(0, abs=0.01)
    assert content.floor.axis == 2
    planes = content.groups[0].planes
    own = Shots(walk).camera_name(10)
    assert planes[0].text == f"camera {own}, no image"
    assert {p.text for p in planes[1:]} == {f"camera {k}" for k in "1234" if k != own}
    (mesh,) = content.groups[0].meshes
    middle = mesh.vertices.mean(axis=0)
    for plane in planes:  # every camera looks at the person
        ahead = plane.frustum.centre - plane.frustum.apex
        to = middle - plane.frustum.apex
        assert ahead @ to / np.linalg.norm(ahead) / np.linalg.norm(to) > 0.9
        assert np.linalg.norm(ahead) < np.linalg.norm(to) / 3
        # Pictures stand upright: down is down.
        assert plane.frustum.R[2, 1] < -0.9
    assert content.eye.position[2] > middle[2]
    assert shown(walk, view="camera").floor is None


def test_joints_in_the_colours_of_their_errors(walk: PseudoGT, astronaut: PseudoGT) -> None:
    turned = changed(walk, body_pose=np.asarray(walk.params["body_pose"]) + 0.1)
    group = shown(turned, row=5, errors=True).groups[0]
    (dots,) = group.dots
    np.testing.assert_allclose(dots.points, walk.joints_world[5], atol=1e-6)
    posed = turned.rows([5]).forward(space="world", regressor="human36m-17").joints[0].numpy()
    errors = 1000 * np.linalg.norm(posed - walk.joints_world[5], axis=-1)
    np.testing.assert_array_equal(dots.colours, error_colours(errors, 100))
    lines = next(s for s in group.strokes if s.name == "errors")
    np.testing.assert_allclose(lines.ends[:, 1], posed, atol=1e-5)
    other = shown(turned, row=5, errors=True, limit=1.0).groups[0].dots[0]
    assert (other.colours[errors > 1] == error_colours(np.array([1.0]), 1)).all()
    assert group.meshes[0].opacity < 1  # joints are in the flesh
    pixels = shown(astronaut, errors=True)
    valid = astronaut.joints_2d_valid
    assert valid is not None
    assert len(pixels.groups[0].dots[0].points) == valid[0].sum()
    assert "20 px" in pixels.legend
    assert not shown(astronaut).legend


def test_two_files_beside_and_on_each_other(walk: PseudoGT) -> None:
    pose = np.asarray(walk.params["body_pose"]).copy()
    pose[:, 15] += 0.5
    aside = np.array([0.1, 0, 0])
    own = changed(walk, body_pose=pose, transl=walk.params["transl"] + aside)
    same = shown(walk, walk, row=3, colours=COLOURS[1], layout=LAYOUTS[1])
    blue = error_colours(np.zeros(1), 100)
    assert all((g.meshes[0].colours == blue).all() for g in same.groups)
    both = shown(walk, own, row=3, colours=COLOURS[2], layout=LAYOUTS[1])
    first, second = (g.meshes[0] for g in both.groups)
    distance = np.linalg.norm(first.vertices - second.vertices + aside, axis=-1)
    np.testing.assert_array_equal(second.colours, error_colours(1000 * distance, 100))
    assert "to second" in both.facts
    assert len(both.groups[0].planes) == 1
    assert not both.groups[1].planes
    beside = shown(walk, own, row=3)
    assert all(len(g.planes) == 1 for g in beside.groups)
    assert not np.allclose(beside.groups[0].placed.R, beside.groups[1].placed.R)
    room = shown(walk, own, row=3, view="world")
    boxes = [g.placed(g.meshes[0].vertices) for g in room.groups]
    across = room.groups[1].placed.t
    assert (boxes[0] @ across).max() < (boxes[1] @ across).min() + 0.2 * np.linalg.norm(across) ** 2
    assert len(room.groups[0].planes) == 4
    assert shown(walk, colours=COLOURS[1]).missing[-1].startswith("vertex distances: there is no second")


def test_what_the_other_file_lacks_is_said(walk: PseudoGT, astronaut: PseudoGT) -> None:
    content = shown(walk, walk.rows(range(5)), row=8)
    assert any("is not in second" in text for text in content.missing)
    assert len(content.groups) == 1
    whole = load_pseudo_gt(SAMPLE / "mscoco", release="mscoco-smplx", cache=False)
    other = shown(astronaut, whole, colours=COLOURS[1])
    assert any("smpl and smplx have different vertices" in text for text in other.missing)
    assert len(other.groups) == 2


def test_a_world_and_a_camera_file_are_compared(walk: PseudoGT) -> None:
    moved = walk.to_camera_space()
    for files in ((walk, moved), (moved, walk)):
        content = shown(*files, row=30, layout=LAYOUTS[1], colours=COLOURS[1])
        first, second = (g.meshes[0].vertices for g in content.groups)
        np.testing.assert_allclose(first, second, atol=1e-4)
        assert (content.groups[1].meshes[0].colours == error_colours(np.zeros(1), 100)).all()


def test_bodies_that_are_no_numbers_are_said_and_the_rest_is_shown(walk: PseudoGT) -> None:
    pose = np.asarray(walk.params["transl"]).copy()
    pose[4] = np.nan
    content = shown(changed(walk, transl=pose), row=4, joints=True, errors=True)
    assert not content.groups[0].meshes
    assert any("no numbers" in text for text in content.missing)
    assert np.isfinite(content.eye.position).all()
    assert len(content.groups[0].planes) == 1


# --- images


def test_missing_and_broken_images_are_said_and_the_rest_is_shown(
    astronaut: PseudoGT, tmp_path: Path
) -> None:
    good = shown(astronaut, images=SAMPLE / "mscoco")
    assert not good.missing
    plane = good.groups[0].planes[0]
    assert plane.pixels is not None
    assert plane.pixels.shape == (512, 512, 3)

    def problem(folder: Path | None) -> str:
        content = shown(astronaut, images=folder, overlay=True, errors=True)
        assert len(content.groups[0].meshes) == 1
        assert content.groups[0].planes[0].pixels is None
        assert content.groups[0].planes[0].text == "no image"
        np.testing.assert_allclose(content.groups[0].planes[0].frustum.corners, plane.frustum.corners)
        (said,) = content.missing
        assert str(tmp_path) not in said
        return said

    assert "no image folder was given" in problem(None)
    assert "not in the image folder" in problem(tmp_path)
    place = tmp_path / "train2017" / "astronaut.png"
    write_image(place, np.zeros((40, 30, 3), np.uint8))
    assert "30x40 px, annotated as 512x512" in problem(tmp_path)
    place.write_bytes(b"no image")
    assert "not an image that opencv can read" in problem(tmp_path)


@pytest.mark.parametrize("path", ["../secret.png", "/etc/secret.png", "a/../../secret.png", "a\0b.png"])
def test_no_file_outside_the_folder_is_shown(path: str, tmp_path: Path) -> None:
    write_image(tmp_path / "secret.png", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "images").mkdir()
    photo = Photos(tmp_path / "images").photo(path, np.zeros(2))
    assert photo.pixels is None
    assert "leads out of the image folder" in photo.problem


def test_parts_of_an_image_are_where_they_say(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (600, 3000, 3), np.uint8)
    write_image(tmp_path / "a.png", image)
    photo = Photos(tmp_path).photo("a.png", np.array([3000, 600]))
    assert photo.pixels is not None
    assert photo.pixels.shape == (205, 1024, 3)
    for box in ([0, 0, 3000, 600], [10, 20, 500, 300], [2990, 590, 500, 500], [5, 5, 0.1, 0.1]):
        whole = photo.snapped(np.array(box, float))
        cut = photo.cut(whole)
        assert cut is not None
        again = photo.snapped(whole)
        np.testing.assert_allclose(again[:2], whole[:2], atol=3.1)
        low, high = whole[:2], whole[:2] + whole[2:]
        assert (low <= np.array(box[:2]) + 1e-6).all()
        assert (high >= np.minimum(np.add(box[:2], box[2:]), [3000, 600]) - 1e-6).all()


def test_overlays_are_what_render_draws(astronaut: PseudoGT) -> None:
    photo = Photos(SAMPLE / "mscoco").photo("train2017/astronaut.png", np.array([512, 512]))
    body = astronaut.forward()
    camera = astronaut.require_camera()
    assert body.vertices is not None
    one = Drawn(body.vertices[0].numpy(), body.faces_of(0), camera, (200, 40, 40))
    drawn = overlay(photo, [one], mesh=True, joints=False)
    assert drawn is not None
    assert drawn.shape == (1024, 1024, 3)
    plain = render_overlay(
        photo.pixels, body.vertices, body.faces_of(0), camera.focal, camera.princpt, colors=(200, 40, 40)
    )
    changed_here = (np.abs(drawn[::2, ::2].astype(int) - photo.pixels) > 25).any(axis=-1)
    changed_there = (np.abs(plain.astype(int) - photo.pixels) > 25).any(axis=-1)
    assert (changed_here & changed_there).sum() / (changed_here | changed_there).sum() > 0.9
    # Joints that are not there, or far away, are not drawn.
    points = np.array([[np.nan, 3], [100, 100], [1e9, 5], [50, 60]], np.float32)
    tones = np.tile(np.array([255, 0, 0], np.uint8), (4, 1))
    dots = overlay(
        photo, [Drawn(*_no_mesh(), camera, (0, 0, 0), points, points, tones)], mesh=False, joints=True
    )
    assert dots is not None
    red = (dots == [255, 0, 0]).all(axis=-1)
    assert red[200, 200]
    assert red[120, 100]
    assert red.sum() < 1000
    assert overlay(Photo("", None, np.zeros(2)), [], mesh=True, joints=True) is None


def _no_mesh() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((0, 3), np.float32), np.zeros((0, 3), int)


def test_a_coloured_mesh_keeps_its_vertices_and_colours() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.5]], np.float32)
    tones = np.array([[255, 0, 0], [0, 255, 0], [128, 128, 128]], np.uint8)
    data = coloured_glb(Mesh("a", vertices, np.array([[0, 1, 2]]), tones, 0.5))
    (read,) = trimesh.load(io.BytesIO(data), file_type="glb").geometry.values()
    np.testing.assert_allclose(read.vertices, vertices)
    light = np.asarray(read.visual.vertex_attributes["color"])
    assert light[:2, :3].tolist() == [[255, 0, 0], [0, 255, 0]]
    assert light[2, 0] == pytest.approx(255 * 0.2158, abs=1)  # glTF's colours are light's, not the screen's
    assert (light[:, 3] == 128).all()


# --- the server


def test_a_viewer_is_driven_from_python(walk: PseudoGT) -> None:
    gt = walk.with_quality({"error": np.arange(len(walk))[::-1].astype(np.float32)})
    with Viewer(gt) as viewer:
        assert viewer.url == f"http://127.0.0.1:{viewer.port}"
        with socket.create_connection(("127.0.0.1", viewer.port)) as asked:
            asked.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert asked.recv(15) == b"HTTP/1.1 200 OK"
        viewer.step(1)
        assert viewer.wish.row == 1
        viewer.step(-5)
        assert viewer.wish.row == 0
        viewer.find("14")
        assert int(gt.ids[viewer.wish.row]) == 14
        viewer.sort("error, best first")
        assert viewer.wish.row == len(gt) - 1
        timeline = viewer.timeline
        assert timeline is not None
        viewer.to_frame(len(timeline) - 1)
        assert viewer.advance()
        assert viewer.wish.row == timeline.rows[0]
        viewer.show(view="world", joints=True, errors=True, overlay=True)
        viewer.show(mesh=False, opacity=0.4)
        kept = viewer.content
        for changes in ({"row": len(gt)}, {"row": -1}):
            with pytest.raises(IndexError, match=f"there are {len(gt)} rows"):
                viewer.show(**changes)
        with pytest.raises(ValueError, match="view must be one of"):
            viewer.show(view="above")
        with pytest.raises(TypeError, match="colour"):
            viewer.show(colour="red")
        assert viewer.content is kept
        with pytest.raises(OSError, match=f"cannot listen on port {viewer.port} of 127.0.0.1"):
            Viewer(gt, port=viewer.port)
    assert not viewer.advance()


def test_mistakes_are_said_before_anything_listens(walk: PseudoGT, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no rows to show"):
        Viewer(walk[:0])
    with pytest.raises(IndexError, match="row 96"):
        Viewer(walk, row=96)
    with pytest.raises(FileNotFoundError, match="no such image folder"):
        Viewer(walk, images=tmp_path / "none")
    with pytest.raises(ValueError, match="port must be from 0"):
        Viewer(walk, port=70000)
    with (
        pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1"),
        pytest.warns(UserWarning, match="whoever"),
    ):
        Viewer(walk, host="192.0.2.1")  # of no machine


def test_only_this_machine_may_look_unless_it_is_said(walk: PseudoGT) -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.5.5.5", "localhost", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "192.168.1.2", "::", "example.org", "")))
    with (
        pytest.warns(UserWarning, match=r"whoever reaches this machine can see"),
        Viewer(walk, host="0.0.0.0") as v,
    ):
        assert v.url == f"http://localhost:{v.port}"


def test_nothing_is_shared_with_a_server_elsewhere(walk: PseudoGT) -> None:
    with Viewer(walk) as viewer:
        assert viewer._server.request_share_url() is None
        assert viewer._server._share_tunnel is None


# --- the command


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    file = shutil.copytree(SAMPLE / "mscoco", tmp_path / "mscoco") / "MSCOCO_train_SMPL_NeuralAnnot.json"
    run = Process("-m", "neuralannot", "view", file, file, "--images", file.parent, "--from", "person")
    try:
        end = time.monotonic() + 120
        while run.returncode is None and time.monotonic() < end:
            time.sleep(0.1)
            said = run.stdout if run._files[0].exists() else ""
            if "Ctrl-C ends it" in said:
                break
        port = int(said.split("open http://127.0.0.1:")[1].split()[0])
        socket.create_connection(("127.0.0.1", port)).close()
        os.kill(run.pid, signal.SIGINT)
        assert run.ended(60).returncode == 130, run.stderr
    finally:
        if run.returncode is None:
            os.kill(run.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--images", "none"], "--images: none: no such folder"),
        (["--id", "5"], "5"),
        (["--id", "five"], "neither an id"),
        (["--port", "99999"], "port must be from 0"),
        (["none.json"], "none.json"),
    ],
)
def test_mistakes_take_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shutil.copytree(SAMPLE / "mscoco", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["view", "MSCOCO_train_SMPL_NeuralAnnot.json", *arguments]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert said in errors[-1]
    assert errors[-1].startswith("neuralannot: ")


def test_without_viser_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    assert cli.main(["view", str(SAMPLE / "mscoco")]) == 2
    assert 'pip install "neuralannot[view]"' in capsys.readouterr().err


def test_importing_the_viewer_does_not_pay_for_viser() -> None:
    code = (
        "import sys, neuralannot.viewer, neuralannot.viewer.viewer, neuralannot.cli\n"
        "assert 'viser' not in sys.modules"
    )
    assert Process("-c", code).ended().returncode == 0


@pytest.mark.parametrize(
    ("origin", "is_let_in"),
    [
        (None, True),  # a program
        ("http://127.0.0.1:8080", True),
        ("http://localhost:9000", True),
        ("https://example.org", False),
        ("http://127.0.0.1.example.org", False),
        ("null", False),  # a file, or a frame that is fenced in
    ],
)
def test_pages_of_other_sites_are_not_let_in(origin, is_let_in) -> None:
    """A browser lets any page connect to loopback; the server must look where it comes from."""
    server = open_server(LOOPBACK, 0)
    try:
        client = functools.partial(
            connect,
            f"ws://{LOOPBACK}:{server.get_port()}",
            origin=origin,
            subprotocols=[f"viser-v{viser.__version__}"],
        )
        if is_let_in:
            with client() as connection:
                assert connection.recv(timeout=10)
        else:
            with pytest.raises(InvalidStatus, match="403"):
                client()
    finally:
        close_server(server)
