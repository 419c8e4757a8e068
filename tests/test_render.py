"""Overlays: coverage, depth order with one and with several focal lengths, colours, and joints."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralannot.bodies import Bodies
from neuralannot.cameras import Camera
from neuralannot.raycast import render_layers
from neuralannot.render import PALETTE, draw_joints, render_bodies, render_overlay

WIDTH, HEIGHT = 64, 48
RED, GREEN = (250, 0, 0), (0, 250, 0)
QUAD_FACES = np.array([[0, 1, 2], [0, 2, 3]])
SPHERE = trimesh.creation.icosphere(subdivisions=3, radius=0.5)


@pytest.fixture
def image():
    return np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def quad(x0: float, y0: float, x1: float, y1: float, depth: float, focal: float = 100.0) -> np.ndarray:
    """A quad that projects to a rectangle of pixels under `focal` and the principal point (32, 24)."""
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)
    return np.concatenate([(corners - [32, 24]) / focal * depth, np.full((4, 1), depth)], axis=1)


def ball(centre) -> np.ndarray:
    return np.add(SPHERE.vertices, centre)


def overlay(image, meshes, focals=(100.0, 100.0), **options):
    focal = np.repeat(np.array(focals)[: len(meshes), None], 2, axis=1)
    return render_overlay(image, meshes, QUAD_FACES, focal, (32.0, 24.0), **options)


def front_color(image, meshes, focals=(100.0, 100.0)) -> str:
    """Which of a red and a green mesh shows in the middle of the picture."""
    pixel = overlay(image, meshes, focals, colors=[RED, GREEN], opacity=1.0)[24, 32].astype(int)
    assert abs(pixel[0] - pixel[1]) > 100
    return "red" if pixel[0] > pixel[1] else "green"


def test_draws_the_pixels_of_the_mesh_and_no_others(image):
    before = image.copy()
    drawn = overlay(image, [quad(9.5, 19.5, 20.5, 24.5, 2.0)], colors=[RED], opacity=1.0)
    inside = np.zeros((HEIGHT, WIDTH), dtype=bool)
    inside[20:25, 10:21] = True
    assert drawn.dtype == np.uint8
    assert drawn.shape == image.shape
    assert (drawn[~inside] == image[~inside]).all()
    assert (drawn[inside][:, 0] > 150).all()
    assert (drawn[inside][:, 1:] == 0).all()
    assert (image == before).all()
    assert not np.shares_memory(drawn, image)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_smooth_edge_is_the_part_of_the_pixel_that_is_covered(samples):
    black = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    drawn = overlay(black, [quad(10.1, 9.5, 20.5, 30.5, 2.0)], colors=[RED], opacity=1.0, samples=samples)
    offsets = (np.arange(samples) + 0.5) / samples - 0.5
    part = (offsets > 0.1).mean()
    assert drawn[20, 10, 0] / drawn[20, 15, 0] == pytest.approx(part, abs=0.02)
    white = overlay(
        255 - black, [quad(10.1, 9.5, 20.5, 30.5, 2.0)], colors=[RED], opacity=1.0, samples=samples
    )
    assert white[20, 10, 2] == pytest.approx(255 * (1 - part), abs=1)
    assert (drawn[20, :10] == 0).all()
    assert (drawn[20, 11:21, 0] > 150).all()


def test_coverage_is_that_of_the_layers_with_off_centre_cameras_and_unequal_focals(image):
    vertices = [ball([0.2, -0.1, 3.0]), ball([-0.4, 0.3, 2.0])]
    focal, princpt = [[90.0, 130.0], [60.0, 40.0]], [[12.3, 40.9], [55.5, 3.2]]
    layers = render_layers(vertices, SPHERE.faces, focal, princpt, (WIDTH, HEIGHT))
    drawn = render_overlay(image, vertices, SPHERE.faces, focal, princpt, samples=1, colors=[(9, 9, 9)] * 2)
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for layer in layers:
        x0, y0, x1, y1 = layer.box
        assert layer.mask.sum() > 50
        expected[y0:y1, x0:x1] |= layer.mask
    changed = (drawn != image).any(axis=2)
    assert not (changed & ~expected).any()
    assert (changed | (image.max(axis=2) < 16))[expected].all()


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1))
def test_opacity_mixes_between_the_image_and_the_opaque_drawing(opacity):
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    mesh = [quad(5, 5, 50, 40, 2.0)]
    opaque = overlay(image, mesh, opacity=1.0, samples=1).astype(float)
    mixed = overlay(image, mesh, opacity=opacity, samples=1)
    assert np.abs(mixed - (opacity * opaque + (1 - opacity) * image)).max() <= 1.01


def test_the_nearer_of_two_is_in_front_in_either_order_of_the_list(image):
    near, far = quad(10, 10, 50, 40, 2.0), quad(20, 5, 60, 45, 2.5)
    assert front_color(image, [near, far]) == "red"
    assert front_color(image, [far, near]) == "green"
    # Swapped in depth, each still over its own pixels.
    assert front_color(image, [near * 1.5, far * 0.5]) == "green"


def test_meshes_that_pass_through_each_other_are_cut_where_they_meet(image):
    left_near = quad(10, 10, 50, 40, 2.0)
    left_near[:, 2] = [1.9, 2.1, 2.1, 1.9]
    left_near[:, :2] = (
        (np.array([[10, 10], [50, 10], [50, 40], [10, 40]]) - [32, 24]) / 100 * left_near[:, 2:]
    )
    drawn = overlay(image, [left_near, quad(10, 10, 50, 40, 2.0)], colors=[RED, GREEN], opacity=1.0)
    red = drawn[24, 11:50, 0] > drawn[24, 11:50, 1]
    assert red[:15].all()
    assert not red[-15:].any()


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0, 8.0])
def test_depth_order_goes_by_apparent_depth_when_focal_lengths_differ(image, scale):
    near, far = quad(10, 10, 50, 40, 2.0), quad(20, 5, 60, 45, 3.0)
    # The same look under another focal length: flat meshes just move away or closer.
    other_near, other_far = near * [1, 1, scale], far * [1, 1, scale]
    for red, green, focals, front in (
        (near, other_far, (100, 100 * scale), "red"),
        (other_near, far, (100 * scale, 100), "red"),
        (other_far, near, (100 * scale, 100), "green"),
        (far, other_near, (100, 100 * scale), "green"),
    ):
        assert front_color(image, [red, green], focals) == front


def test_thickness_is_not_scaled_with_the_focal_length(image):
    # F is 250 for focal lengths of 400 and 100: the ball's centre moves from 16 to 10 m, the wall from 3.84
    # to 9.6 m. What of the ball is nearer than 15.6 m stands out of the wall; with scaled depths none would.
    meshes = [ball([0, 0, 16.0]), quad(-1, -1, 65, 49, 3.84)]
    faces, focal = [SPHERE.faces, QUAD_FACES], [[400.0, 400.0], [100.0, 100.0]]
    drawn = render_overlay(image, meshes, faces, focal, (32, 24), colors=[RED, GREEN], opacity=1.0, samples=1)
    red = drawn[..., 0] > drawn[..., 1]
    (layer,) = render_layers(meshes[:1], faces[:1], focal[:1], (32, 24), (WIDTH, HEIGHT))
    x0, y0, x1, y1 = layer.box
    assert (red[y0:y1, x0:x1] == (layer.depth < 15.6)).all()
    assert 100 < red.sum() == (layer.depth < 15.6).sum() < layer.mask.sum()


@pytest.mark.parametrize(
    "moved",
    [lambda q: -q, lambda q: np.add(q, [9, 0, 0]), lambda q: q * np.nan, lambda q: q * [1, 1, 0]],
    ids=["behind", "outside", "nan", "flat at the camera"],
)
def test_what_is_out_of_view_leaves_the_image_and_the_others_alone(image, moved):
    seen = quad(10, 10, 50, 40, 2.0)
    assert (overlay(image, [moved(seen)]) == image).all()
    both = overlay(image, [moved(seen), seen], (700.0, 100.0), colors=[RED, GREEN])
    assert (both == overlay(image, [seen], colors=[GREEN])).all()


def test_no_meshes_give_a_copy(image):
    drawn = render_overlay(image, [], [], np.zeros((0, 2)), np.zeros((0, 2)))
    assert (drawn == image).all()
    assert not np.shares_memory(drawn, image)
    assert (render_overlay(image, [], QUAD_FACES, [], [], colors=[]) == image).all()
    empty = np.zeros((0, 5, 3), dtype=np.uint8)
    assert overlay(empty, [quad(1, 1, 9, 9, 1.0)]).shape == (0, 5, 3)


def test_large_pictures_are_drawn_in_bands_without_seams():
    black = np.zeros((500, 700, 3), dtype=np.uint8)
    wall = np.array([[-9, -9, 2], [9, -9, 2], [9, 9, 2], [-9, 9, 2]], dtype=float)
    drawn = render_overlay(black, [wall], [QUAD_FACES], [[500, 500]], [[350, 250]], opacity=1.0).astype(int)
    assert drawn.min() > 40
    assert np.abs(np.diff(drawn, axis=0)).max() <= 1


def test_light_comes_from_the_camera_and_a_little_from_above(image):
    drawn = render_overlay(image, [ball([0, 0, 3])], [SPHERE.faces], (100, 100), (32, 24),
                           colors=(200, 200, 200), opacity=1.0)[..., 0].astype(int)  # fmt: skip
    assert drawn[24, 32] > drawn[24, 46] + 20
    assert drawn[12, 32] > drawn[36, 32] + 10


def test_the_palette_keeps_neighbours_apart(image):
    steps = np.abs(np.diff(np.concatenate([PALETTE, PALETTE[:1]]).astype(int), axis=0)).max(axis=1)
    assert steps.min() >= 40
    left, right = quad(2, 10, 20, 40, 2.0), quad(40, 10, 60, 40, 2.0)
    drawn = overlay(image, [left, right], opacity=1.0)
    given = overlay(image, [left, right], opacity=1.0, colors=PALETTE[:2])
    assert (drawn == given).all()
    assert (drawn[24, 10] != drawn[24, 50]).any()


def test_threads_draw_what_one_thread_draws(image):
    def draw(shift: float) -> np.ndarray:
        vertices = [ball([shift, 0, 3]), ball([0, shift, 2.5])]
        return render_overlay(image, vertices, SPHERE.faces, (80, 80), (32, 24))

    shifts = np.linspace(-0.5, 0.5, 12)
    with ThreadPoolExecutor(4) as pool:
        for drawn, shift in zip(pool.map(draw, shifts), shifts, strict=True):
            assert (drawn == draw(shift)).all()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"image": np.zeros((4, 4, 3))}, TypeError, "image must be uint8 from 0 to 255, got float64"),
        ({"image": np.zeros((4, 4), np.uint8)}, ValueError, r"image must be \(H, W, 3\) RGB, got \(4, 4\)"),
        (
            {"image": np.zeros((4, 4, 4), np.uint8)},
            ValueError,
            r"image must be \(H, W, 3\) RGB, got \(4, 4, 4\)",
        ),
        ({"opacity": 1.5}, ValueError, "opacity must be from 0 to 1, got 1.5"),
        ({"samples": 0}, ValueError, "samples must be a whole number from 1 to 8, got 0"),
        ({"samples": 2.0}, ValueError, "samples must be a whole number from 1 to 8, got 2.0"),
        ({"colors": [RED, RED]}, ValueError, r"colors must be \(1, 3\).*got \(2, 3\)"),
        ({"colors": (0, 0, 256)}, ValueError, "colors must be from 0 to 255, got 0.0 to 256.0"),
        ({"focal": (-1, 1)}, ValueError, "focal must be above 0 pixels, got -1.0"),
        ({"faces": [QUAD_FACES + 9]}, ValueError, r"faces\[0\] must hold indices from 0 to 3"),
    ],
)
def test_wrong_arguments_are_named(image, changes, error, message):
    arguments = {
        "image": image,
        "vertices": [quad(1, 1, 9, 9, 2.0)],
        "faces": [QUAD_FACES],
        "focal": (100, 100),
        "princpt": (32, 24),
    }
    with pytest.raises(error, match=message):
        render_overlay(**(arguments | changes))


class TestRenderBodies:
    """Bodies as `PseudoGT.forward` gives them, here without a file or a body model."""

    R = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    T = np.array([0.1, -0.2, 0.3])

    def bodies(self, space="camera", **changes):
        torch = pytest.importorskip("torch")
        points = np.stack([ball([0.2, 0, 3.0]), ball([-0.3, 0.1, 2.5])])
        if space == "world":
            points = (points - self.T) @ self.R
        vertices = torch.tensor(points, dtype=torch.float32)
        camera = Camera([[80, 90], [60, 60]], [[32, 24], [20, 30]], [self.R] * 2, [self.T] * 2)
        faces = np.asarray(SPHERE.faces)
        return replace(Bodies(vertices, vertices[:, :1], ("root",), faces, space, camera), **changes)

    def test_is_the_overlay_through_each_bodys_own_camera(self, image):
        bodies = self.bodies()
        expected = render_overlay(
            image, bodies.vertices, SPHERE.faces, [[80, 90], [60, 60]], [[32, 24], [20, 30]], opacity=0.5
        )
        assert (expected != image).any()
        assert (render_bodies(image, bodies, opacity=0.5) == expected).all()
        colored = render_bodies(image, bodies, colors=[RED, GREEN], opacity=1.0, samples=1)
        assert ((colored[..., 2] == 0) & (image[..., 2] > 0)).sum() > 500

    def test_world_space_passes_through_the_extrinsics(self, image):
        drawn = render_bodies(image, self.bodies("world"))
        assert np.abs(drawn.astype(int) - render_bodies(image, self.bodies())).mean() < 0.1

    def test_hands_of_both_sides_have_their_own_faces(self, image):
        faces = np.asarray(SPHERE.faces)
        none = np.zeros((0, 3), dtype=np.int64)
        hands = self.bodies(faces={"right": faces, "left": none}, sides=np.array(["left", "right"]))
        vertices, camera = hands.vertices[1:], hands.camera.rows([1])
        expected = render_overlay(image, vertices, faces, camera.focal, camera.princpt, colors=GREEN)
        assert (render_bodies(image, hands, colors=[RED, GREEN]) == expected).all()

    def test_what_cannot_be_drawn_is_named(self, image):
        with pytest.raises(ValueError, match="no vertices to draw: forward with want='mesh'"):
            render_bodies(image, self.bodies(vertices=None))
        with pytest.raises(ValueError, match="no camera to draw through"):
            render_bodies(image, self.bodies(camera=None))
        camera = replace(self.bodies().camera, image_size=np.array([[128, 96]] * 2))
        with pytest.raises(ValueError, match="the image is 64x48 px, its camera belongs to 128x96"):
            render_bodies(image, self.bodies(camera=camera))
        with pytest.raises(TypeError, match="image must be uint8"):
            render_bodies(image / 255, self.bodies())


class TestDrawJoints:
    def test_a_dot_is_centred_on_its_joint_and_the_rest_is_untouched(self, image):
        before = image.copy()
        drawn = draw_joints(image, [[20.0, 30.0]], color=RED, radius=3)
        rows, columns = np.nonzero((drawn != image).any(axis=2))
        assert (drawn[30, 20] == RED).all()
        assert abs(rows.mean() - 30) < 0.3
        assert abs(columns.mean() - 20) < 0.3
        assert max(np.abs(rows - 30).max(), np.abs(columns - 20).max()) <= 6
        assert (image == before).all()

    def test_positions_between_pixels_count(self):
        black = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        bright = draw_joints(black, [[20.5, 30.0]], color=(255, 255, 255), radius=3)[..., 0].astype(float)
        assert (bright * np.arange(WIDTH)).sum() / bright.sum() == pytest.approx(20.5, abs=0.1)

    def test_bones_join_their_joints(self, image):
        joints = [[5, 24], [55, 24]]
        drawn = draw_joints(image, joints, edges=[[0, 1]], color=GREEN, radius=5)
        assert (drawn[24, 14:47] == GREEN).all()
        assert (draw_joints(image, joints, color=GREEN, radius=5)[24, 14:47] == image[24, 14:47]).all()

    @pytest.mark.parametrize("missing", [np.nan, np.inf, -2e6, 1e30])
    def test_missing_joints_are_left_out_with_their_bones(self, image, missing):
        joints = np.array([[10.0, 10.0], [missing, 20.0], [40.0, 30.0]])
        drawn = draw_joints(image, joints, edges=[[0, 1], [1, 2]])
        assert (drawn == draw_joints(image, joints[[0, 2]])).all()
        assert (draw_joints(image, joints[1:2]) == image).all()

    def test_flags_choose_the_joints(self, image):
        joints = np.array([[10.0, 10.0], [20, 20], [40.0, 30.0]])
        drawn = draw_joints(image, joints, edges=[[0, 1], [0, 2]], valid=[True, False, True])
        assert (drawn == draw_joints(image, joints[[0, 2]], edges=[[0, 1]])).all()
        assert (draw_joints(image, joints, valid=np.zeros(3)) == image).all()

    def test_joints_outside_the_image_and_none_at_all(self, image):
        assert (draw_joints(image, [[-900.0, 5.0], [900.0, 900.0]]) == image).all()
        assert (draw_joints(image, np.zeros((0, 2)), edges=[]) == image).all()
        across = draw_joints(image, [[-9e5, 24.0], [9e5, 24.0]], edges=[[0, 1]], color=RED, radius=5)
        assert (across[24] == RED).all()
        assert draw_joints(image[:0], [[1.0, 1.0]]).shape == (0, WIDTH, 3)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"joints_2d": np.zeros((2, 3))}, ValueError, r"joints_2d must be \(K, 2\), got \(2, 3\)"),
            ({"edges": [[0, 2]]}, ValueError, "edges must hold indices from 0 to 1, got 0 to 2"),
            ({"edges": [[0.0, 1.0]]}, TypeError, "edges must hold integers, got float64"),
            ({"edges": [[0, 1, 1]]}, ValueError, r"edges must be \(n, 2\), got \(1, 3\)"),
            ({"valid": [True]}, ValueError, r"valid must be \(2,\), one flag per joint, got \(1,\)"),
            ({"color": (0, 0, 300)}, ValueError, "colors must be from 0 to 255, got 0.0 to 300.0"),
            ({"radius": 0}, ValueError, "radius must be at least 1 pixel, got 0"),
            ({"image": np.zeros((4, 4, 3))}, TypeError, "image must be uint8"),
        ],
    )
    def test_wrong_arguments_are_named(self, image, options, error, message):
        arguments = {"image": image, "joints_2d": np.zeros((2, 2))} | options
        with pytest.raises(error, match=message):
            draw_joints(arguments.pop("image"), arguments.pop("joints_2d"), **arguments)
