"""Rays against an analytic sphere, quads on pixel borders, opencv's polygons, and a slow rasteriser."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralannot.raycast import render_layers

SIZE = (80, 60)
FOCAL = np.array([[110.0, 90.0]])
PRINCPT = np.array([[37.3, 31.8]])
QUAD_FACES = np.array([[0, 1, 2], [0, 2, 3]])


def quad_at(x0: float, y0: float, x1: float, y1: float, depth: float) -> np.ndarray:
    """A quad that faces the camera and projects to the given rectangle of pixel coordinates."""
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    return np.concatenate([(corners - PRINCPT) / FOCAL * depth, np.full((4, 1), depth)], axis=1)


def project(vertices: np.ndarray) -> np.ndarray:
    return vertices[:, :2] / vertices[:, 2:] * FOCAL + PRINCPT


def whole(layer, values: np.ndarray, outside) -> np.ndarray:
    """A layer's array put into an array of the image's size."""
    x0, y0, x1, y1 = layer.box
    full = np.full((SIZE[1], SIZE[0], *values.shape[2:]), outside, dtype=values.dtype)
    full[y0:y1, x0:x1] = values
    return full


def one_layer(vertices, faces=QUAD_FACES):
    (layer,) = render_layers([vertices], [faces], FOCAL, PRINCPT, SIZE)
    return layer, whole(layer, layer.mask, False), whole(layer, layer.depth, np.float32(np.inf))


def rasterise(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slow twin: a z-buffer over all pixels and faces. Also which pixels lie clear of every edge."""
    points = project(vertices)
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    nearest = np.full(x.shape, np.inf)
    clear = np.ones(x.shape, dtype=bool)
    for face in faces:
        (ax, ay), (bx, by), (cx, cy) = points[face]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(area) < 1e-9:
            continue
        wa = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
        wb = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
        weights = np.stack([wa, wb, 1 - wa - wb])
        inside = (weights >= 0).all(axis=0)
        depth = 1 / np.tensordot(1 / vertices[face, 2], weights, axes=1)
        nearest = np.where(inside & (depth < nearest), depth, nearest)
        clear &= np.abs(weights).min(axis=0) > 1e-4
    return nearest, clear


@pytest.mark.parametrize("centre", [(0.0, 0.0, 3.0), (0.8, -0.5, 3.0), (-1.4, 0.6, 2.5)])
def test_agrees_with_a_slow_rasteriser(centre):
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=0.7)
    vertices = mesh.vertices * [1, 1.3, 0.8] + centre
    _, mask, depth = one_layer(vertices, mesh.faces)
    nearest, clear = rasterise(vertices, mesh.faces)
    assert clear.mean() > 0.95
    assert np.isfinite(nearest[clear]).sum() > 100
    assert (mask == np.isfinite(nearest))[clear].all()
    seen = clear & mask
    assert np.abs(depth[seen] - nearest[seen]).max() < 1e-4


def test_agrees_with_an_analytic_sphere():
    centre, radius = np.array([0.35, -0.2, 2.4]), 0.6
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    layer, mask, depth = one_layer(mesh.vertices + centre, mesh.faces)
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    rays = np.stack(
        [(x - PRINCPT[0, 0]) / FOCAL[0, 0], (y - PRINCPT[0, 1]) / FOCAL[0, 1], np.ones(x.shape)], -1
    )
    a, b = (rays**2).sum(-1), rays @ centre
    root = b**2 - a * (centre @ centre - radius**2)
    # Within a hair of the silhouette, 20,000 flat faces are not a sphere.
    sure = np.abs(root) > 0.01
    assert (mask == (root > 0))[sure].all()
    assert mask.sum() > 1500
    hit = mask & sure
    distance = (b[hit] - np.sqrt(root[hit])) / a[hit]
    assert np.abs(depth[hit] - distance).max() < 2e-3
    normals = whole(layer, layer.normals, 0)[hit]
    assert np.abs(normals - (rays[hit] * distance[:, None] - centre) / radius).max() < 0.02


def test_a_quad_covers_exactly_the_pixels_whose_centres_it_holds():
    layer, mask, depth = one_layer(quad_at(9.5, 19.5, 20.5, 24.5, depth=2.0))
    expected = np.zeros(mask.shape, dtype=bool)
    expected[20:25, 10:21] = True
    assert (mask == expected).all()
    assert np.abs(depth[expected] - 2).max() < 1e-6
    assert np.isinf(depth[~expected]).all()
    assert np.abs(layer.normals[layer.mask] - [0, 0, -1]).max() < 1e-6
    assert (layer.normals[~layer.mask] == 0).all()


def test_a_vertex_lies_in_the_pixel_that_it_projects_to():
    x, y = 41.0, 17.0
    for reach, count in ((0.49, 1), (0.51, 1), (1.01, 9)):
        _, mask, _ = one_layer(quad_at(x - reach, y - reach, x + reach, y + reach, depth=3.0))
        assert mask[17, 41]
        assert mask.sum() == count


def test_both_sides_of_a_face_are_seen_with_the_normal_towards_the_camera():
    quad = quad_at(10, 10, 40, 40, depth=2.0)
    front, _, _ = one_layer(quad)
    back, _, _ = one_layer(quad, QUAD_FACES[:, ::-1])
    assert front.mask.any()
    assert (front.mask == back.mask).all()
    assert np.allclose(front.normals, back.normals)


def test_the_rectangle_is_tight_and_clipped_to_the_image():
    assert one_layer(quad_at(9.6, 19.6, 20.4, 24.4, depth=2.0))[0].box == (10, 20, 21, 25)
    layer, mask, _ = one_layer(quad_at(-500, 30, 500, 900, depth=2.0))
    assert layer.box == (0, 30, 80, 60)
    assert mask[30:].all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-30, 110), st.floats(-30, 90), st.floats(0.5, 9)), min_size=3, max_size=3)
)
def test_a_triangle_covers_the_pixels_that_opencv_finds_inside_its_projection(corners):
    points, depth = np.array(corners)[:, :2], np.array(corners)[:, 2:]
    vertices = np.concatenate([(points - PRINCPT) / FOCAL * depth, depth], axis=1)
    _, mask, _ = one_layer(vertices, np.array([[0, 1, 2]]))
    outline = project(vertices).astype(np.float32)
    inside = np.array(
        [[cv2.pointPolygonTest(outline, (x, y), True) for x in range(SIZE[0])] for y in range(SIZE[1])]
    )
    # In pixels, from the border: far below the half pixel that a shifted convention would show.
    clear = np.abs(inside) > 0.01
    assert (mask == (inside > 0))[clear].all()


def test_what_is_out_of_view_has_an_empty_layer():
    quad = quad_at(10, 10, 40, 40, depth=2.0)
    cases = {
        "behind the camera": quad * -1,
        "in the camera's plane": quad * [1, 1, 0],
        "left of the image": np.subtract(quad, [5, 0, 0]),
        "below the image": np.add(quad, [0, 5, 0]),
        "nothing but NaN": quad * np.nan,
    }
    for name, vertices in cases.items():
        layer, mask, _ = one_layer(vertices)
        assert layer.box == (0, 0, 0, 0), name
        assert layer.mask.shape == layer.depth.shape == (0, 0), name
        assert not mask.any(), name
    layer, _, _ = one_layer(quad, np.zeros((0, 3), dtype=np.int64))
    assert layer.box == (0, 0, 0, 0)


def test_a_floor_that_passes_under_the_camera_is_seen_up_to_its_horizon():
    floor = np.array([[-50, 1, -50], [50, 1, -50], [50, 1, 50], [-50, 1, 50]], dtype=float)
    _, mask, depth = one_layer(floor)
    horizon = project(np.array([[0.0, 1.0, 50.0]]))[0, 1]
    assert not mask[: int(np.ceil(horizon))].any()
    rows = np.arange(int(np.ceil(horizon)), SIZE[1])
    assert mask[rows].all()
    assert np.allclose(depth[rows, 40], FOCAL[0, 1] / (rows - PRINCPT[0, 1]), rtol=1e-4)


def test_faces_with_a_nan_vertex_are_left_out_and_the_others_stay():
    quad = quad_at(9.5, 19.5, 20.5, 24.5, depth=2.0)
    broken = quad.copy()
    broken[3] = np.nan
    _, mask, depth = one_layer(broken)
    _, expected, _ = one_layer(quad, QUAD_FACES[:1])
    assert (mask == expected).all()
    assert 0 < mask.sum() < 55
    assert np.abs(depth[mask] - 2).max() < 1e-6
    stray = np.concatenate([quad, [[np.inf, 0, 1]]])
    assert one_layer(stray)[1].sum() == 55


def test_large_pictures_are_cast_in_bands_without_seams():
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=1.0)
    vertices = np.add(mesh.vertices, [0, 0, 2])
    (layer,) = render_layers([vertices], [mesh.faces], [[600, 600]], [[550, 350]], (1100, 700))
    x0, y0, x1, y1 = layer.box
    assert (x1 - x0) * (y1 - y0) > 5 * (1 << 16)
    # A convex body: every row of its mask is one run, without holes or gaps.
    starts = np.diff(layer.mask.astype(np.int8), axis=1, prepend=0) == 1
    assert (starts[1:-1].sum(axis=1) == 1).all()


def test_far_away_under_a_long_lens_the_mask_has_no_holes_and_the_depths_stay_right():
    # A crop focal length of 5000 at 256 pixels, put back on a large box, gives focal lengths like the second.
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    layers = []
    for focal, depth in ((3000, 50), (60000, 1000)):
        vertices = np.add(mesh.vertices, [0, 0, depth])
        (layer,) = render_layers([vertices], [mesh.faces], [[focal] * 2], [[40, 30]], SIZE)
        starts = np.diff(layer.mask.astype(np.int8), axis=1, prepend=0) == 1
        assert (starts[1:-1].sum(axis=1) == 1).all()
        layers.append((layer, layer.depth - depth))
    (near, near_depth), (far, far_depth) = layers
    assert near.box == far.box
    assert (near.mask != far.mask).mean() < 0.02
    both = (near.normals[..., 2] < -0.3) & far.mask
    assert both.sum() > 2000
    assert np.abs(near_depth[both] - far_depth[both]).max() < 0.02


def test_each_mesh_has_its_own_camera_and_faces_and_arrays_of_any_kind_are_the_same():
    torch = pytest.importorskip("torch")
    quads = np.stack([quad_at(9.5, 19.5, 20.5, 24.5, depth=2.0), quad_at(29.5, 29.5, 40.5, 34.5, depth=4.0)])
    focal, princpt = np.array([[110.0, 90.0], [220, 180]]), np.array([[37.3, 31.8], [30, 31.8]])
    expected = render_layers(list(quads), [QUAD_FACES, QUAD_FACES[:1]], focal, princpt, SIZE)
    assert expected[0].mask.sum() == 55
    assert expected[1].mask.sum() > 55
    single = [
        render_layers(
            [quads[i]], [[QUAD_FACES, QUAD_FACES[:1]][i]], focal[i : i + 1], princpt[i : i + 1], SIZE
        )[0]
        for i in range(2)
    ]
    for one, other in zip(expected, single, strict=True):
        assert one.box == other.box
        assert (one.depth == other.depth).all()
    shared = render_layers(quads, QUAD_FACES, FOCAL[0], PRINCPT[0], SIZE)
    tensors = render_layers(
        torch.tensor(quads, requires_grad=True),
        torch.tensor(QUAD_FACES),
        torch.tensor(FOCAL[0]),
        PRINCPT[0],
        SIZE,
    )
    for one, other in zip(shared, tensors, strict=True):
        assert one.mask.sum() in (55, 66)
        assert (one.depth == other.depth).all()


def test_no_meshes_and_no_pixels():
    assert render_layers([], [], np.zeros((0, 2)), np.zeros((0, 2)), SIZE) == []
    (layer,) = render_layers([quad_at(0, 0, 50, 50, 2.0)], [QUAD_FACES], FOCAL, PRINCPT, (0, 60))
    assert layer.mask.size == 0


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"vertices": [np.zeros((4, 2))]}, ValueError, r"vertices\[0\] must be \(V, 3\), got \(4, 2\)"),
        ({"faces": [QUAD_FACES + 1]}, ValueError, r"faces\[0\] must hold indices from 0 to 3, got 1 to 4"),
        ({"faces": [QUAD_FACES - 1]}, ValueError, r"faces\[0\] must hold indices from 0 to 3, got -1 to 2"),
        ({"faces": [QUAD_FACES * 1.0]}, TypeError, r"faces\[0\] must hold integers, got float64"),
        ({"faces": [QUAD_FACES[:, :2]]}, ValueError, r"faces\[0\] must be \(n, 3\), got \(2, 2\)"),
        ({"faces": [QUAD_FACES] * 2}, ValueError, r"faces must be 1 arrays \(F, 3\).*got 2"),
        ({"focal": [[100.0, 0.0]]}, ValueError, "focal must be above 0 pixels, got 0.0"),
        ({"focal": [100.0]}, ValueError, r"focal must be \(1, 2\).*got \(1,\)"),
        ({"princpt": np.zeros((3, 2))}, ValueError, r"princpt must be \(1, 2\).*got \(3, 2\)"),
        ({"princpt": [[np.nan, 0.0]]}, ValueError, "princpt must be finite, got nan"),
        ({"image_size": (80, -1)}, ValueError, r"image_size must be \(width, height\) of at least 0"),
    ],
)
def test_wrong_arguments_are_named(changes, error, message):
    arguments = {
        "vertices": [quad_at(0, 0, 9, 9, 2.0)],
        "faces": [QUAD_FACES],
        "focal": FOCAL,
        "princpt": PRINCPT,
        "image_size": SIZE,
    }
    with pytest.raises(error, match=message):
        render_layers(**(arguments | changes))
