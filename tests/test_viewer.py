"""`neuralannot view`: what is shown and where, decided without a browser; the server and the command."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
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
from viser._messages import GuiUpdateMessage
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from neuralannot import PseudoGT, cli, load_pseudo_gt
from neuralannot.cameras import Camera
from neuralannot.demo import SAMPLE
from neuralannot.images import read_image, write_image
from neuralannot.quality.ground import UP
from neuralannot.render import render_overlay
from neuralannot.viewer import Content, Listing, Viewer, Wish, decide
from neuralannot.viewer.colours import UNKNOWN, error_colours, legend
from neuralannot.viewer.facts import facts_html
from neuralannot.viewer.listing import quality_text
from neuralannot.viewer.photos import Drawn, Photo, Photos, overlay
from neuralannot.viewer.planes import eye_through, frustum, into_camera, turned_beside
from neuralannot.viewer.posing import Posing
from neuralannot.viewer.scene import coloured_glb
from neuralannot.viewer.server import LOOPBACK, close_server, is_loopback, open_server
from neuralannot.viewer.shots import Shots
from neuralannot.viewer.source import Source, stage_of
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


def through_another_camera(gt: PseudoGT, factor: float) -> PseudoGT:
    """The same rows before virtual cameras with focal lengths, and from distances, times `factor`."""
    far = changed(gt, transl=np.asarray(gt.params["transl"]) * [1, 1, factor])
    view = far.view.overlaid({"focal": gt.require_camera().focal * np.float32(factor)})
    return PseudoGT(view, far.release, space=far.space, companions=far.companions)


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
    # Nothing ends up behind the camera, or mirrored before it.
    flat = points * [1, 1, 0.4 / 30 * f / F]
    close = into_camera(np.concatenate([flat, flat[:1] * [1, 1, 30]]), *cameras, middle=0.2 * f / F)
    seen = np.isfinite(close).all(axis=1)
    if one != other:
        assert (close[seen, 2] > 0).all()


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
    # The image's top is up, and its right is right.
    assert eye.up @ (shape.corners[0] - shape.corners[3]) > 0
    assert right @ (shape.corners[1] - shape.corners[0]) > 0


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
    for limit in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="limit must be a positive number, mm or px, or None"):
            Wish(0, limit=limit)
    for opacity in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="opacity must be from 0 to 1"):
            Wish(0, opacity=opacity)
    assert (Wish(0, limit=5).limit, Wish(0, opacity=0).opacity) == (5, 0)


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


@pytest.mark.parametrize(
    ("metres", "said"),
    [
        (1.2345, "1234 mm"),
        (0.0123, "12.3 mm"),
        (6.7e-8, "6.7e-05 mm"),
        (np.nan, "not measured"),
        (np.inf, "inf mm"),
    ],
)
def test_values_of_the_list_are_read_at_a_glance(metres: float, said: str) -> None:
    assert quality_text("error", metres) == said


def test_errors_are_said_in_digits_that_mean_something(walk: PseudoGT) -> None:
    """Metres off, as failed fits are, and less than float32 can tell."""
    far = changed(walk, transl=walk.params["transl"] + np.array([3, 0, 4]))
    facts = shown(walk, far, row=5).facts
    assert "vertices 5000 mm, roots aligned 0 mm" in facts
    assert len(re.findall(r"mean \d+(\.\d+)?, largest \d+(\.\d+)? mm", facts)) == 2
    assert "vertices 0 mm, roots aligned 0 mm" in shown(walk, walk, row=5).facts


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


@pytest.mark.parametrize("image_by_image", [True, False])
def test_a_sequence_of_several_people_stays_with_one(
    image_by_image: bool, released: Callable[[str], Written]
) -> None:
    written = released("3dpw-smplx")
    gt = load_pseudo_gt(written.path, annotations=written.annotations)

    def timelines(images: list[int]) -> list[list[int]]:
        """The rows of each row's timeline, where rows are of these images of one folder."""
        names = np.array([f"walk/{k}.jpg".encode() for k in images])
        paths = names.view(np.uint8).reshape(len(images), -1)
        view = gt.rows(np.arange(len(images))).view.overlaid({"ann/image_path": paths})
        shots = Shots(PseudoGT(view, gt.release, space=gt.space, companions=gt.companions))
        found = [shots.timeline(row) for row in range(len(images))]
        return [[] if timeline is None else timeline.rows.tolist() for timeline in found]

    if image_by_image:
        assert timelines([0, 0, 1, 1, 2, 2]) == [[0, 2, 4], [1, 3, 5]] * 3
    else:
        assert timelines([0, 1, 2, 0, 1, 2]) == [[0, 1, 2]] * 3 + [[3, 4, 5]] * 3
    # Where somebody is alone it is they; going on from there is going on with the second.
    assert timelines([0, 0, 1, 2]) == [[0, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]]


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
        cameras, _ = Shots(gt).cameras(row)
        if cameras is not None and gt.catalogued.data_set not in UP:
            assert (cameras.R[:, 1] @ content.up).mean() < 0  # down in images is down
        for view in VIEWS:
            there = shown(gt, row=row, view=view)
            eye = there.eye
            assert all(np.isfinite(v).all() for v in (eye.position, eye.target, eye.up, eye.half))
            shapes = [m.vertices for m in there.groups[0].meshes]
            shapes += [p.frustum.corners for p in there.groups[0].planes]
            assert eye.far > np.linalg.norm(np.concatenate(shapes) - eye.position, axis=1).max()
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


def test_a_person_is_looked_at_from_near_and_whole(walk: PseudoGT) -> None:
    far = shown(walk, row=40).eye
    for row in (0, 40, 95):
        content = shown(walk, row=row, view="person")
        eye, (mesh,) = content.eye, content.groups[0].meshes
        ahead = eye.target - eye.position
        right = np.cross(ahead, eye.up)
        rays = mesh.vertices - eye.position
        seen = np.stack([rays @ right, rays @ np.cross(right, ahead)], 1) / (rays @ ahead)[:, None]
        filled = np.abs(seen).max(axis=0) / eye.half
        assert (filled < 0.95).all()
        assert filled.max() > 0.7
        # Beside each other each file has as much of the image, around its person.
        for group in shown(walk, walk, row=row, view="person").groups:
            corners, body = (
                group.placed(group.planes[0].frustum.corners),
                group.placed(group.meshes[0].vertices),
            )
            low, high = (
                (points - eye.position) / np.linalg.norm(points - eye.position, axis=1)[:, None] @ eye.up
                for points in (corners[2:], corners[:2])
            )
            heights = (body - eye.position) / np.linalg.norm(body - eye.position, axis=1)[:, None] @ eye.up
            assert low.max() < heights.min() < heights.max() < high.min()
            assert (heights.max() - heights.min()) / (high.min() - low.max()) > 0.6
    assert eye.half.prod() < far.half.prod() / 2


@pytest.mark.parametrize("view", ["around", "world"])
def test_from_around_people_are_seen_from_their_cameras_side(
    view: str, walk: PseudoGT, astronaut: PseudoGT
) -> None:
    for gt, row in ((walk, 0), (walk, 41), (astronaut, 0)):
        content = shown(gt, row=row, view=view)
        middle = content.groups[0].meshes[0].vertices.mean(axis=0)
        apex = content.groups[0].planes[0].frustum.apex
        level = np.eye(3) - np.outer(content.up, content.up)
        to_eye, to_camera = (level @ (there - middle) for there in (content.eye.position, apex))
        angle = np.degrees(np.arccos(to_eye @ to_camera / np.linalg.norm(to_eye) / np.linalg.norm(to_camera)))
        assert 15 < angle < 75 or view == "world"  # off the camera, and not behind
        assert (content.eye.position - middle) @ content.up > 0  # from above
        assert content.eye.up @ content.up > 0.7
        assert content.groups[0].planes[0].frustum.R[:, 1] @ content.up < -0.7  # its image is upright


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
    off = np.linalg.norm(
        astronaut.forward(regressor="coco-17").project("joints")[0].numpy() - astronaut.joints_2d[0], axis=-1
    )[valid[0]]
    np.testing.assert_array_equal(pixels.groups[0].dots[0].colours, error_colours(off, 20))
    assert f"mean {off.mean():.3g}, largest {off.max():.3g} px ({len(off)} joints)" in pixels.facts
    assert not shown(astronaut).legend


def test_hands_and_faces_have_their_own_scale(released: Callable[[str], Written]) -> None:
    for name in ("interhand26m-mano", "mscoco-flame"):
        written = released(name)
        gt = load_pseudo_gt(written.path, annotations=written.annotations)
        assert "20 mm" in shown(gt, gt, colours=COLOURS[1]).legend
    written = released("interhand26m-mano")
    gt = load_pseudo_gt(written.path, annotations=written.annotations)
    assert "20 mm" in shown(gt, errors=True).legend


def test_hands_are_compared_with_those_of_their_side(released: Callable[[str], Written]) -> None:
    written = released("mscoco-mano")
    gt = load_pseudo_gt(written.path, annotations=written.annotations)
    other = gt.rows(np.arange(len(gt))[::-1])
    first, second = Source(gt, "first"), Source(other, "second")
    assert gt.side is not None
    assert other.side is not None
    for row in range(len(gt)):
        found = second.same_row(first, row)
        assert found is not None
        assert (other.ids[found], other.side[found]) == (gt.ids[row], gt.side[row])


def test_what_each_file_is_off_is_said_of_it(walk: PseudoGT) -> None:
    far = changed(walk, transl=walk.params["transl"] + np.array([0, 3, 4]))
    facts = shown(walk, far, row=5).facts
    own, others = re.findall(r"mean (\d+)", facts)
    assert int(own) < 100
    assert abs(int(others) - 5000) < 100
    assert "second to the 3D joints" in facts


def test_names_stand_above_people_and_the_floor_below(walk: PseudoGT, astronaut: PseudoGT) -> None:
    for gt in (walk, astronaut):
        content = shown(gt, view="world", row=len(gt) - 1)
        for (_, place), mesh in zip(content.groups[0].texts, content.groups[0].meshes, strict=True):
            assert place @ content.up > (mesh.vertices @ content.up).max()
    floor = shown(walk, view="world", row=20).floor
    assert floor is not None
    assert floor.centre[floor.axis] == floor.height
    middle = shown(walk, view="world", row=20).groups[0].meshes[0].vertices.mean(axis=0)
    assert (np.abs(floor.centre - middle)[:2] <= 0.5).all()


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


@pytest.mark.parametrize("view", VIEWS)
def test_the_second_file_is_on_the_right_and_both_are_seen(view: str, walk: PseudoGT) -> None:
    content = shown(walk, walk, row=3, view=view)
    eye = content.eye
    ahead = (eye.target - eye.position) / np.linalg.norm(eye.target - eye.position)
    right = np.cross(ahead, eye.up) / np.linalg.norm(np.cross(ahead, eye.up))
    places = []
    for group in content.groups:
        points = [group.placed(group.meshes[0].vertices)]
        if view != "around":
            points += [group.placed(plane.frustum.corners) for plane in group.planes]
        rays = np.concatenate(points) - eye.position
        seen = np.stack([rays @ right, rays @ np.cross(right, ahead)], 1) / (rays @ ahead)[:, None]
        assert (np.abs(seen) <= eye.half).all()
        places.append(seen[: len(group.meshes[0].vertices), 0])
    assert places[0].mean() < places[1].mean()
    assert len(content.groups[0].planes) >= len(content.groups[1].planes)


def test_what_the_other_file_lacks_is_said(walk: PseudoGT, astronaut: PseudoGT) -> None:
    content = shown(walk, walk.rows(range(5)), row=8)
    assert any("is not in second" in text for text in content.missing)
    assert len(content.groups) == 1
    content = shown(walk, astronaut)  # both have an annotation 1
    assert "second: its rows are of MSCOCO, those of first of Human3.6M" in content.missing[0]
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


def test_joints_stay_in_the_body_that_is_moved_before_another_camera(astronaut: PseudoGT) -> None:
    """Two fits of one person, each before a virtual camera of its own, as two methods give them."""
    own = through_another_camera(astronaut, 0.2)
    body = own.forward(only_valid=True)
    assert body.vertices is not None
    middle = body.vertices[0, :, 2].mean()
    _, group = shown(astronaut, own, joints=True, errors=True, layout=LAYOUTS[1]).groups
    found = group.meshes[0].vertices[:, 2].mean(dtype=np.float64)
    assert abs(found - float(middle)) > 1  # it was moved
    balls = {dots.name: dots.points for dots in group.dots}
    inside = balls["joints0"][:, 2] - found
    np.testing.assert_allclose(inside, body.joints[0, :, 2] - middle, atol=2e-3)
    assert np.abs(balls["errors"][:, 2] - found).max() < 0.4  # those of a sitting person's half
    # A joint that the body does not have takes none of the others with it.
    source = Source(own, "own")
    stage = stage_of(Source(astronaut, "first"), 0)
    points = body.joints[0].numpy().copy()
    points[3] = np.nan
    placed = source.staged(points, 0, stage, body=body.vertices[0].numpy())
    assert np.isfinite(placed).all(axis=1).tolist() == [k != 3 for k in range(len(points))]


def test_people_and_images_far_from_a_virtual_camera_are_not_cut_off(astronaut: PseudoGT) -> None:
    """A crop of 20 px among crops of 400: its camera, or what stands before it, is a kilometre away."""
    far = through_another_camera(astronaut, 100)
    for files in ((far,), (far, astronaut), (astronaut, far)):
        content = shown(*files)
        for group in content.groups:
            points = np.concatenate([group.meshes[0].vertices, group.planes[0].frustum.corners])
            depth = np.linalg.norm(points - content.eye.position, axis=1)
            assert content.eye.near < depth.min() < depth.max() < content.eye.far


def test_bodies_that_are_no_numbers_are_said_and_the_rest_is_shown(walk: PseudoGT) -> None:
    pose = np.asarray(walk.params["transl"]).copy()
    pose[4] = np.nan
    content = shown(changed(walk, transl=pose), row=4, joints=True, errors=True)
    assert not content.groups[0].meshes
    assert any("no numbers" in text for text in content.missing)
    assert np.isfinite(content.eye.position).all()
    assert len(content.groups[0].planes) == 1


def test_a_body_that_is_no_numbers_has_no_distance(walk: PseudoGT) -> None:
    transl = np.asarray(walk.params["transl"]).copy()
    transl[4] = np.nan
    for files in ((changed(walk, transl=transl), walk), (walk, changed(walk, transl=transl))):
        content = shown(*files, row=4, colours=COLOURS[1])
        assert "nan" not in content.facts
        assert sum(len(group.meshes) for group in content.groups) == 1
        assert sum("no numbers" in text for text in content.missing) == 1
    assert "to second" in shown(*files, row=5).facts


def test_the_floor_does_not_go_with_bodies_that_are_no_numbers(walk: PseudoGT) -> None:
    where = shown(walk, row=10, view="world").floor
    assert where is not None
    transl = np.asarray(walk.params["transl"]).copy()
    transl[:4] = np.nan  # the first frame through all its cameras
    floor = shown(changed(walk, transl=transl), row=10, view="world").floor
    assert floor is not None
    assert floor.height == pytest.approx(where.height, abs=0.02)
    assert np.isfinite(floor.centre).all()
    assert shown(changed(walk, transl=transl * np.nan), row=10, view="world").floor is None


# --- images


def test_every_camera_of_the_room_shows_what_it_saw(walk: PseudoGT, tmp_path: Path) -> None:
    shots = Shots(walk)
    rows = shots.views(40).tolist()
    grey = {}
    for k, row in enumerate(rows):
        grey[shots.camera_name(row)] = 40 + 40 * k
        size = walk.rows([row]).image_size[0].tolist()
        write_image(tmp_path / shots.image_path(row), np.full((size[1], size[0], 3), 40 + 40 * k, np.uint8))
    content = shown(walk, row=40, images=tmp_path, view="world")
    planes = content.groups[0].planes
    assert len(planes) == 4
    assert not content.missing
    for plane in planes:
        assert plane.pixels is not None
        assert abs(float(plane.pixels.mean()) - grey[plane.text.split()[1].rstrip(",")]) < 2
        aspect = plane.pixels.shape[1] / plane.pixels.shape[0]
        assert aspect == pytest.approx(plane.frustum.width / plane.frustum.height, rel=0.02)
    assert all(
        p.pixels is None
        for p in shown(walk, row=40, images=tmp_path, view="world", image=False).groups[0].planes
    )
    own = shots.camera_name(40)
    lost = [row for row in rows if row != 40][1]
    (tmp_path / shots.image_path(lost)).unlink()
    content = shown(walk, row=40, images=tmp_path, view="world")
    assert content.missing == (
        f"images of cameras {shots.camera_name(lost)}: not in the image folder, or broken",
    )
    assert sum(p.pixels is not None for p in content.groups[0].planes) == 3
    assert own not in content.missing[0].split(":")[0].split()[3:]


def test_each_file_is_drawn_on_its_own_copy_of_the_image(walk: PseudoGT, tmp_path: Path) -> None:
    size = walk.rows([5]).image_size[0].tolist()
    write_image(tmp_path / Shots(walk).image_path(5), np.full((size[1], size[0], 3), 128, np.uint8))
    for layout, tones in ((LAYOUTS[0], [1, -1]), (LAYOUTS[1], [0])):
        content = shown(walk, walk, row=5, images=tmp_path, view="person", overlay=True, layout=layout)
        for group, tone in zip(content.groups, tones, strict=False):
            pixels = group.planes[0].pixels
            assert pixels is not None
            bluer = pixels[..., 2].astype(int) - pixels[..., 0]
            drawn = bluer[np.ptp(pixels.astype(int), axis=-1) > 10]
            assert len(drawn) > 2000
            if tone:
                assert (np.sign(drawn) == tone).mean() > 0.95  # blue is the first, orange the second


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
    boxes = np.random.default_rng(0).uniform(0, [2990, 590, 3000, 600], (200, 4)).tolist()
    for box in ([0, 0, 3000, 600], [10, 20, 500, 300], [2990, 590, 500, 500], [5, 5, 0.1, 0.1], *boxes):
        whole = photo.snapped(np.array(box, float))
        cut = photo.cut(whole)
        assert cut is not None
        np.testing.assert_allclose(photo.snapped(whole), whole)
        np.testing.assert_allclose(cut.shape[1::-1] / whole[2:], [1024 / 3000, 205 / 600])
        low, high = whole[:2], whole[:2] + whole[2:]
        assert (low <= np.array(box[:2]) + 1e-6).all()
        assert (high >= np.minimum(np.add(box[:2], box[2:]), [3000, 600]) - 1e-6).all()


def test_images_of_many_cameras_are_read_once_and_few_large_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuralannot.viewer import photos

    read: list[str] = []

    def counted(path: Path) -> np.ndarray:
        read.append(path.name)
        return read_image(path)

    monkeypatch.setattr(photos, "read_image", counted)
    monkeypatch.setattr(photos, "_KEPT", 5 * 32 * 32 * 3)
    for k in range(6):
        write_image(tmp_path / f"{k}.png", np.full((32, 32, 3), k, np.uint8))
    kept = Photos(tmp_path)

    def ask(*numbers: int, **options: int) -> list[str]:
        read.clear()
        for k in numbers:
            pixels = kept.photo(f"{k}.png", np.zeros(2), **options).pixels
            assert pixels is not None
            assert (pixels == k).all()
        return list(read)

    assert len(ask(0, 1, 2, 3, 4)) == 5
    assert ask(0, 1, 2, 3, 4) == []
    assert ask(5) == ["5.png"]
    assert ask(4, 3, 2, 1) == []
    assert ask(0, 5) == ["0.png", "5.png"]  # those not asked for the longest went
    assert ask(0, largest=8) == ["0.png"]
    assert kept._bytes == sum(p.pixels.nbytes for p in kept._kept.values() if p.pixels is not None)
    # An image that comes later, from a download that goes on, is found.
    assert "not in the image folder" in kept.photo("late.png", np.zeros(2)).problem
    write_image(tmp_path / "late.png", np.zeros((4, 4, 3), np.uint8))
    assert kept.photo("late.png", np.zeros(2)).pixels is not None


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


def test_overlays_on_small_images_lie_where_the_fit_projects_to(tmp_path: Path) -> None:
    """A hand's or face's crop of 16 px is enlarged 64 times: half a pixel of it is 32."""
    write_image(tmp_path / "small.png", np.full((16, 16, 3), 255, np.uint8))
    photo = Photos(tmp_path).photo("small.png", np.array([16, 16]))
    camera = Camera.from_intrinsics(np.full((1, 2), 20.0), np.full((1, 2), 7.5))
    # A square over the pixels 4 to 11, whose edges are at 3.5 and 11.5.
    corners = np.array([[-4, -4, 20], [4, -4, 20], [4, 4, 20], [-4, 4, 20]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    point = np.array([[8.0, 4.0]], np.float32)
    dot = (point, point, np.array([[255, 0, 0]], np.uint8))
    square = overlay(photo, [Drawn(corners, faces, camera, (0, 0, 0))], mesh=True, joints=False)
    dots = overlay(photo, [Drawn(*_no_mesh(), camera, (0, 0, 0), *dot)], mesh=False, joints=True)
    assert square is not None
    assert dots is not None
    assert square.shape == (1024, 1024, 3)
    rows, columns = np.nonzero((square < 200).any(axis=-1))
    assert [rows.min(), rows.max(), columns.min(), columns.max()] == pytest.approx([256, 767] * 2, abs=1.5)
    rows, columns = np.nonzero((dots == [255, 0, 0]).all(axis=-1))
    assert [columns.mean(), rows.mean()] == pytest.approx([8.5 * 64 - 0.5, 4.5 * 64 - 0.5], abs=1)


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


def test_the_panel_says_what_is_shown_whoever_asked_for_it(walk: PseudoGT) -> None:
    error = np.random.default_rng(0).normal(size=len(walk)).astype(np.float32)
    gt = walk.with_quality({"error": error})
    with Viewer(gt, walk, limit=7, opacity=0.05) as viewer:

        def said() -> dict[str, Any]:
            panel = viewer._panel
            names = ("view", "opacity", "limit", "layout", "colours", "frame", "order")
            found = {name: getattr(panel, f"_{name}").value for name in names}
            return found | {name: box.value for name, box in panel._toggles.items()}

        assert (said()["limit"], said()["opacity"]) == (7, 0.05)
        wish = {"view": "world", "opacity": 0.5, "limit": 2.5, "layout": LAYOUTS[1], "colours": COLOURS[2]}
        wish |= {"mesh": False, "joints": True, "errors": True, "overlay": True, "image": False}
        viewer.show(row=5, **wish)
        viewer.sort("error, worst first")
        expected = {**wish, "frame": viewer.frame_place, "order": "error, worst first"}
        assert said() == expected
        viewer.show(limit=None)
        assert said() == {**expected, "limit": 0}


@contextlib.contextmanager
def a_user(viewer: Viewer) -> Iterator[Callable[..., None]]:
    """Someone who moves controls (`panel._frame`, 3) and presses buttons, as viser hears of it."""
    server = viewer._server
    server._connected_clients[7] = SimpleNamespace(client_id=7)
    server.get_clients = dict  # it has no window to be moved

    def act(control: Any, value: object = True) -> None:
        message = GuiUpdateMessage(control._impl.uuid, {"value": value})
        heard = server.gui._handle_gui_updates(7, message)
        asyncio.run_coroutine_threadsafe(heard, server._event_loop).result(timeout=20)

    try:
        yield act
    finally:
        del server._connected_clients[7]


def until(is_so: Callable[[], bool], *, seconds: float = 20) -> bool:
    """Whether it becomes so."""
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
    return is_so()


@contextlib.contextmanager
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Nothing is decided until the end; the rows that were then, as they come."""
    gate, rows = threading.Event(), []

    def decided(sources: Any, photos: Any, wish: Wish) -> Content:
        gate.wait(20)
        rows.append(wish.row)
        return decide(sources, photos, wish)

    monkeypatch.setattr("neuralannot.viewer.viewer.decide", decided)
    try:
        yield rows
    finally:
        gate.set()


def test_a_slider_that_is_dragged_is_followed_to_where_it_is_left(
    walk: PseudoGT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames come later than a hand moves: 40 places of a drag, while the first is not shown yet."""
    with Viewer(walk) as viewer, a_user(viewer) as moves:
        panel, timeline = viewer._panel, viewer.timeline
        assert timeline is not None
        with slow(monkeypatch) as rows:
            for place in [*range(1, 24), *range(22, 5, -1)]:
                moves(panel._frame, place)
        assert until(lambda: viewer.frame_place == 6 and not panel._turns.awaits("frame"))
        time.sleep(0.1)
        assert (viewer.frame_place, panel._frame.value) == (6, 6)
        assert len(rows) <= 2  # one that had begun and the last, not the whole drag, late
        assert rows[-1] == timeline.rows[6]


def test_clicks_are_done_in_their_order_and_none_is_lost(
    walk: PseudoGT, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Viewer(walk) as viewer, a_user(viewer) as does:
        panel = viewer._panel
        with slow(monkeypatch):
            does(panel._opacity, 0.5)
            does(panel._toggles["joints"], True)
            does(panel._view, "person")
            does(panel._toggles["mesh"], False)
            does(panel._limit, -5.0)  # of which the panel says that it is none
            does(panel._rows[9])
            does(panel._toggles["mesh"], True)
        assert until(lambda: viewer.wish.row == 9 and not panel._turns.awaits("mesh"))
        assert until(lambda: "limit must be a positive number" not in panel._found.content)
        wish = viewer.wish
        assert (wish.opacity, wish.joints, wish.view, wish.mesh, wish.limit) == (
            0.5,
            True,
            "person",
            True,
            None,
        )
        assert (panel._toggles["joints"].value, panel._toggles["mesh"].value, panel._limit.value) == (1, 1, 0)
        does(panel._wanted, "97")
        does(panel._rows[3])
        find = next(
            h for h in viewer._server.gui._gui_input_handle_from_uuid.values() if "Show this" in str(h.label)
        )
        does(find)
        assert until(lambda: "97: unknown to human36m-smpl" in panel._found.content)
        assert viewer.wish.row == 3


def test_playing_ends_where_a_frame_cannot_be_shown_and_says_why(
    walk: PseudoGT, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Viewer(walk) as viewer, a_user(viewer) as does:
        panel = viewer._panel
        panel._speed.value = 30
        does(panel._play)
        assert until(lambda: viewer.frame_place > 1)
        assert panel._play.label == "Pause"

        def broken(*_: object) -> Content:
            raise OSError("the disk is gone")

        monkeypatch.setattr("neuralannot.viewer.viewer.decide", broken)
        assert until(lambda: panel._play.label == "Play")
        assert until(lambda: "the disk is gone" in panel._found.content)
        monkeypatch.undo()
        does(panel._play)
        shown_then = viewer.frame_place
        assert until(lambda: viewer.frame_place != shown_then)
        does(panel._play)
        assert until(lambda: panel._play.label == "Play")


def test_what_nobody_foresaw_is_said_and_the_page_goes_on(
    walk: PseudoGT, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    with Viewer(walk) as viewer, a_user(viewer) as does:

        def broken(*_: object) -> Content:
            raise MemoryError("90 GB")

        monkeypatch.setattr("neuralannot.viewer.viewer.decide", broken)
        does(viewer._panel._rows[3])
        assert until(lambda: "MemoryError: 90 GB" in viewer._panel._found.content)
        assert "Traceback" in capfd.readouterr().err
        monkeypatch.undo()
        does(viewer._panel._rows[3])
        assert until(lambda: viewer.wish.row == 3 and not viewer._panel._found.content)


def test_closing_waits_for_what_is_being_shown_and_leaves_nothing_behind(
    walk: PseudoGT, monkeypatch: pytest.MonkeyPatch, capfd: Any, recwarn: pytest.WarningsRecorder
) -> None:
    before = threading.active_count()
    for _ in range(3):
        viewer = Viewer(walk)
        with a_user(viewer) as does:
            viewer._panel._speed.value = 30
            does(viewer._panel._play)
            assert until(lambda viewer=viewer: viewer.frame_place > 1)
            for k in (3, 5, 7):
                does(viewer._panel._rows[k])
        viewer.stop()
        viewer.stop()
        with pytest.raises(RuntimeError, match="the viewer was stopped"):
            viewer.show(row=1)
        assert not viewer.advance()
    assert until(lambda: threading.active_count() <= before + 1)
    assert capfd.readouterr().err == ""
    assert not [w for w in recwarn.list if "closed connection" in str(w.message)]


def test_nodes_are_what_was_decided_and_nothing_else(walk: PseudoGT, tmp_path: Path) -> None:
    """What viser holds after each step, whatever was there before and changed in place."""
    size = walk.rows([0]).image_size[0].tolist()
    for row, path in enumerate(walk.image_path.tolist()[:12]):
        write_image(tmp_path / path, np.full((size[1], size[0], 3), 20 * row, np.uint8))
    with Viewer(walk, walk, images=tmp_path, layout=LAYOUTS[1]) as viewer:
        for wish in (
            {"row": 1},
            {"row": 6, "view": "world"},
            {"row": 7, "joints": True, "errors": True},
            {"mesh": False},
            {"mesh": True, "joints": False, "errors": False, "view": "person", "layout": LAYOUTS[0]},
            {"row": 9, "colours": COLOURS[1]},
            {"row": 10, "colours": COLOURS[0], "image": False},
            {"image": True, "view": "around"},
        ):
            viewer.show(**wish)
            nodes, content = viewer._scene._nodes, viewer.content
            expected = {"/floor"} if content.floor is not None else set()
            for group in content.groups:
                lead = f"/{group.name}"
                expected |= {lead, *(f"{lead}/text{k}" for k in range(len(group.texts)))}
                expected |= {f"{lead}/{m.name}" for m in (*group.meshes, *group.dots)}
                expected |= {f"{lead}/{s.name}_lines" for s in group.strokes}
                np.testing.assert_allclose(nodes[lead].position, group.placed.t, atol=1e-6)
                np.testing.assert_allclose(rotation(nodes[lead].wxyz), group.placed.R, atol=1e-5)
                for plane in group.planes:
                    expected |= {f"{lead}/{plane.name}_lines"}
                    expected |= {f"{lead}/{plane.name}_text"} if plane.text else set()
                    if plane.pixels is not None:
                        node = nodes[f"{lead}/{plane.name}_pixels"]
                        expected.add(node.name)
                        assert node.image.shape == plane.pixels.shape
                        assert abs(float(node.image.mean()) - plane.pixels.mean()) < 1
                        assert node.render_width == pytest.approx(plane.frustum.width)
                        np.testing.assert_allclose(rotation(node.wxyz), plane.frustum.R, atol=1e-5)
                        np.testing.assert_allclose(node.position, plane.frustum.centre, atol=1e-5)
                if wish.get("colours") != COLOURS[1]:
                    for mesh in group.meshes:
                        np.testing.assert_array_equal(nodes[f"{lead}/{mesh.name}"].vertices, mesh.vertices)
            assert set(nodes) == expected
            if content.floor is not None:
                assert nodes["/floor"].plane == "xy"  # the world's z is up


def rotation(wxyz: np.ndarray) -> np.ndarray:
    """(3, 3), by the quaternion's definition."""
    w, x, y, z = wxyz
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def test_buttons_step_through_the_list_and_its_pages(walk: PseudoGT) -> None:
    with Viewer(walk) as viewer, a_user(viewer) as does:
        groups = [
            handle
            for handle in viewer._server.gui._gui_input_handle_from_uuid.values()
            if isinstance(handle, viser.GuiButtonGroupHandle)
        ]
        step, turn = groups
        for pressed, row in (("Next", 1), ("Next", 2), ("Previous", 1)):
            does(step, pressed)
            assert until(lambda row=row: viewer.wish.row == row)
        for pressed, first in (("Next page", 12), ("Next page", 24), ("Page before", 12)):
            does(turn, pressed)
            assert until(lambda first=first: viewer._panel._listed[:1] == [first])
        assert viewer.wish.row == 1
        does(viewer._panel._rows[2])
        assert until(lambda: viewer.wish.row == 14)


def test_a_world_view_is_asked_of_a_file_without_a_world(astronaut: PseudoGT) -> None:
    """`neuralannot view FILE --from world`, FILE being in camera space."""
    with Viewer(astronaut, view="world") as viewer:
        assert viewer._panel._view.value == "around"  # what is shown
        viewer.show(view="camera")
        assert viewer._panel._view.value == "camera"


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


def test_the_command_hands_on_what_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    given: list[Any] = []

    class Seen(contextlib.nullcontext[Any]):
        url = "http://127.0.0.1:1"

        def __init__(self, *files: Any, **options: Any) -> None:
            super().__init__(self)
            given[:] = [files, options]

        def wait(self) -> None:
            pass

    monkeypatch.setattr("neuralannot.viewer.viewer.Viewer", Seen)
    folders = [shutil.copytree(SAMPLE / "mscoco", tmp_path / name) for name in ("released", "own")]
    files = [str(folder / "MSCOCO_train_SMPL_NeuralAnnot.json") for folder in folders]
    options = ["--images", str(tmp_path), "--id", "1", "--from", "around", "--port", "8123"]
    assert cli.main(["view", *files, *options]) == 0
    (gt, other), found = given
    assert gt.joined
    assert other.joined
    assert found["names"] == tuple(f"{k}/MSCOCO_train_SMPL_NeuralAnnot.json" for k in ("released", "own"))
    assert (found["images"], found["row"], found["view"]) == (str(tmp_path), 0, "around")
    assert (found["port"], found["host"]) == (8123, "127.0.0.1")
    assert "open http://127.0.0.1:1 in a browser" in capsys.readouterr().out
    assert cli.main(["view", *files, "--no-annotations"]) == 0
    assert not any(file.joined for file in given[0])
    assert cli.main(["view", files[0]]) == 0
    assert given[0][1] is None


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
