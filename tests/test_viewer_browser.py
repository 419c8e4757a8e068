"""`neuralannot view` in a real browser: what its canvas shows, and what its controls do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
import torch
from browser import Window, chromium, window

from neuralannot import load_pseudo_gt
from neuralannot.demo import SAMPLE
from neuralannot.images import read_image
from neuralannot.viewer import Viewer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:no official body models"),
]


@pytest.fixture(scope="module", autouse=True)
def _there_is_one() -> None:
    chromium()
    torch.set_num_threads(1)


@pytest.fixture
def walk() -> Iterator[Viewer]:
    gt = load_pseudo_gt(SAMPLE / "human36m", cache=False)
    with Viewer(gt, names=("walk", "")) as viewer:
        yield viewer


def on_screen(viewer: Viewer, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where points (P, 3) of the scene are on a canvas of (width, height), px: by the eye alone."""
    eye = viewer.content.eye
    ahead = (eye.target - eye.position) / np.linalg.norm(eye.target - eye.position)
    right = np.cross(ahead, eye.up) / np.linalg.norm(np.cross(ahead, eye.up))
    axes = np.stack([right, np.cross(ahead, right), ahead])
    seen = (points - eye.position) @ axes.T
    focal = size[1] / 2 / np.tan(eye.fov(size[0] / size[1]) / 2)
    return seen[:, :2] / seen[:, 2:] * focal + np.array(size) / 2


def silhouette(viewer: Viewer, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: where the first mesh must be."""
    (mesh,) = viewer.content.groups[0].meshes
    corners = on_screen(viewer, mesh.vertices.astype(float), size)[mesh.faces]
    mask = np.zeros(size[::-1], np.uint8)
    for corner in np.rint(corners * 16).astype(np.int32):
        cv2.fillConvexPoly(mask, corner, 1, cv2.LINE_8, 4)
    return mask.astype(bool)


def bluish(pixels: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels of a mesh in the first file's colour, rather than grey ones and thin lines."""
    r, b = (pixels[..., k].astype(int) for k in (0, 2))
    return cv2.morphologyEx((b - r > 8).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5))).astype(bool)


def until(seen: Window, is_so: Callable[[np.ndarray], bool], *, seconds: float = 60) -> np.ndarray:
    """The canvas as soon as it is so; a browser that draws on the processor takes its time."""
    end = time.monotonic() + seconds
    while True:
        pixels = seen.canvas()
        if is_so(pixels) or time.monotonic() > end:
            return pixels
        time.sleep(0.3)


def overlap(viewer: Viewer, pixels: np.ndarray) -> float:
    """Intersection over union of the mesh that is drawn and where it must be."""
    wanted, drawn = silhouette(viewer, pixels.shape[1::-1]), bluish(pixels)
    return float((wanted & drawn).sum() / max((wanted | drawn).sum(), 1))


def check_quiet(seen: Window, viewer: Viewer) -> None:
    """No error was said, and nothing was asked for but the page's own server."""
    assert not seen.errors
    address = viewer.url.removeprefix("http")
    for url in seen.requests:
        assert url.startswith((f"http{address}", f"ws{address}", "data:", "blob:")), url
    assert any(url.startswith("ws://127.0.0.1:") for url in seen.requests)


def test_a_mesh_is_where_it_must_be_and_controls_do_what_they_say(walk: Viewer) -> None:
    with window(walk.url) as seen:
        first = until(seen, lambda pixels: overlap(walk, pixels) > 0.93)
        assert overlap(walk, first) > 0.93
        assert silhouette(walk, first.shape[1::-1]).sum() > 1000

        seen.page.get_by_role("button", name="Next", exact=True).click()
        until(seen, lambda _: walk.wish.row == 1)
        assert walk.wish.row == 1
        second = until(seen, lambda pixels: overlap(walk, pixels) > 0.93)
        assert overlap(walk, second) > 0.93
        assert (bluish(first) != bluish(second)).sum() > 500

        seen.page.get_by_text("List", exact=True).click()
        names = walk.listing.names(walk.listing.page(0, 12))
        seen.page.get_by_role("button", name=names[7], exact=True).click()
        third = until(seen, lambda pixels: walk.wish.row == 7 and overlap(walk, pixels) > 0.93)
        assert overlap(walk, third) > 0.93

        seen.page.locator(".mantine-TextInput-input:visible").first.fill("96")
        seen.page.get_by_role("button", name="Show this annotation").click()
        until(seen, lambda _: walk.wish.row != 7)
        assert int(walk.gt.ids[walk.wish.row]) == 96
        seen.page.locator(".mantine-TextInput-input:visible").first.fill("97")
        seen.page.get_by_role("button", name="Show this annotation").click()
        seen.page.get_by_text("97: unknown to human36m-smpl", exact=False).wait_for()

        walk.show(view="around")
        around = until(seen, lambda pixels: overlap(walk, pixels) > 0.9)
        assert overlap(walk, around) > 0.9
        seen.page.get_by_text("Show", exact=True).click()
        before = walk.wish.row
        seen.page.get_by_role("button", name="Play").click()
        until(seen, lambda _: walk.wish.row != before)
        assert walk.wish.row != before
        seen.page.get_by_role("button", name="Pause").click()
        seen.page.get_by_role("button", name="Play").wait_for()
        seen.page.get_by_role("checkbox").first.click()
        gone = until(seen, lambda pixels: not bluish(pixels).sum() > 3000)
        assert not walk.wish.mesh
        assert bluish(gone).sum() < bluish(around).sum() / 3
        check_quiet(seen, walk)


def test_the_image_lies_on_its_plane_as_the_camera_saw_it() -> None:
    folder = SAMPLE / "mscoco"
    gt = load_pseudo_gt(folder, release="mscoco-smpl", cache=False)
    image = read_image(folder / "train2017" / "astronaut.png")
    own = gt.with_quality({"error": np.zeros(1)})
    with Viewer(gt, own, images=folder, names=("a", "b"), mesh=False, layout="on each other") as viewer:
        plane = viewer.content.groups[0].planes[0].frustum
        places = np.stack(np.meshgrid(np.arange(40, 480, 40), np.arange(40, 480, 40)), -1).reshape(-1, 2)
        across, down = ((places[:, k] + 0.5) / 512 for k in (0, 1))
        corner = plane.corners
        points = (
            corner[0] + across[:, None] * (corner[1] - corner[0]) + down[:, None] * (corner[3] - corner[0])
        )
        wanted = cv2.GaussianBlur(image, (9, 9), 0)[places[:, 1], places[:, 0]].astype(int)

        def off(pixels: np.ndarray) -> float:
            found = np.rint(on_screen(viewer, points, pixels.shape[1::-1])).astype(int)
            shown = cv2.GaussianBlur(pixels, (9, 9), 0)[found[:, 1], found[:, 0]].astype(int)
            return float(np.median(np.abs(shown - wanted)))

        with window(viewer.url) as seen:
            assert off(until(seen, lambda pixels: off(pixels) < 6)) < 6
            # Two files beside each other, and colours at vertices: other kinds of nodes, no complaint.
            viewer.show(mesh=True, layout="side by side", colours="vertex distance", errors=True, joints=True)
            until(seen, lambda pixels: bluish(pixels).sum() > 10_000)
            assert bluish(seen.canvas()).sum() > 10_000
            check_quiet(seen, viewer)
