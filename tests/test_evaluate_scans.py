"""Distances to a surface and errors against scans: brute force, known motions, files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from neuralannot import PseudoGT
from neuralannot.exports import row_names
from neuralannot.train.evaluation.scans import (
    Scan,
    _linearised,
    _stepped,
    align_to_scan,
    measure_scan,
    read_scan,
    scan_errors,
)
from neuralannot.train.evaluation.surface import Surface, nearest_on_triangles
from neuralannot.train.released import pseudo_gt_of

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


def soup(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Triangles of all sizes, some without area."""
    size = 10.0 ** rng.uniform(-4, 0, (count, 1, 1))
    corners = rng.normal(0, 1, (count, 1, 3)) + size * rng.normal(0, 1, (count, 3, 3))
    if count > 2:
        corners[1, 2] = corners[1, 1]
        corners[2] = corners[2, :1]
    return corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)


def ericson(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The closest point of one triangle, by its Voronoi regions (Real-Time Collision Detection, 5.1.5)."""
    ab, ac, ap, bp, cp = b - a, c - a, p - a, p - b, p - c
    d1, d2, d3, d4, d5, d6 = ab @ ap, ac @ ap, ab @ bp, ac @ bp, ab @ cp, ac @ cp
    if d1 <= 0 and d2 <= 0:
        return a
    if d3 >= 0 and d4 <= d3:
        return b
    if d6 >= 0 and d5 <= d6:
        return c
    vc, vb, va = d1 * d4 - d3 * d2, d5 * d2 - d1 * d6, d3 * d6 - d5 * d4
    if vc <= 0 and d1 >= 0 and d3 <= 0:
        return a + d1 / (d1 - d3) * ab
    if vb <= 0 and d2 >= 0 and d6 <= 0:
        return a + d2 / (d2 - d6) * ac
    if va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0:
        return b + (d4 - d3) / ((d4 - d3) + (d5 - d6)) * (c - b)
    return a + vb / (va + vb + vc) * ab + vc / (va + vb + vc) * ac


# --- surfaces


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_nearest_of_all_triangles(count: int, seed: int) -> None:
    """Against every triangle in turn, with Ericson's regions."""
    rng = np.random.default_rng(seed)
    vertices, faces = soup(rng, count)
    points = np.concatenate([rng.normal(0, 1.5, (8, 3)), vertices[:2]])
    away, place, face = Surface(vertices, faces).nearest(points)
    corners = vertices[faces]
    whole = corners[np.linalg.norm(np.cross(*np.diff(corners, axis=1).swapaxes(0, 1)), axis=1) > 0]
    for k, p in enumerate(points):
        by_hand = min((float(np.linalg.norm(p - ericson(p, *t))) for t in whole), default=np.inf)
        assert away[k] <= by_hand + 1e-9
        assert away[k] == pytest.approx(np.linalg.norm(place[k] - p), abs=1e-12)
        assert np.linalg.norm(nearest_on_triangles(place[k], corners[face[k]]) - place[k]) < 1e-9
        every = np.linalg.norm(nearest_on_triangles(p, corners) - p, axis=-1)
        assert away[k] == pytest.approx(every.min(), abs=1e-12)


def test_triangles_against_ericson() -> None:
    rng = np.random.default_rng(0)
    corners, points = rng.normal(0, 1, (2000, 3, 3)), rng.normal(0, 1.5, (2000, 3))
    found = nearest_on_triangles(points, corners)
    wanted = np.array([ericson(p, *t) for p, t in zip(points, corners, strict=True)])
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_a_sphere_from_inside_and_outside() -> None:
    """The middle of a sphere is as near to all triangles; trimesh's own search is the twin outside."""
    ball = trimesh.creation.icosphere(3)
    surface = Surface(ball.vertices, ball.faces)
    heights = np.linalg.norm(ball.triangles.mean(axis=1), axis=1)
    assert surface.nearest(np.zeros((3, 3)))[0] == pytest.approx(heights.min(), abs=1e-3)
    rng = np.random.default_rng(1)
    points = rng.normal(0, 1, (40, 3))
    away = surface.nearest(points)[0]
    twin = [
        np.linalg.norm(trimesh.triangles.closest_point(ball.triangles, np.tile(p, (len(ball.faces), 1))) - p,
                       axis=1).min()
        for p in points
    ]  # fmt: skip
    np.testing.assert_allclose(away, twin, atol=1e-9)
    normals = surface.normals(surface.nearest(points)[2])
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)


def test_what_is_no_surface() -> None:
    vertices, faces = soup(np.random.default_rng(0), 3)
    with pytest.raises(ValueError, match=r"^vertices must be finite; leave out bodies that are NaN$"):
        Surface(np.full((3, 3), np.nan), [[0, 1, 2]])
    with pytest.raises(ValueError, match=r"^vertices must be \(V, 3\), got \(1, 9, 3\); pass one body"):
        Surface(vertices[None], faces)
    with pytest.raises(ValueError, match=r"^a surface needs at least one face$"):
        Surface(vertices, np.zeros((0, 3), int))
    with pytest.raises(ValueError, match=r"^points must be \(P, 3\) and finite"):
        Surface(vertices, faces).nearest([[np.inf, 0, 0]])
    assert [len(a) for a in Surface(vertices, faces).nearest(np.zeros((0, 3)))] == [0, 0, 0]


# --- alignment


def egg() -> tuple[Surface, np.ndarray]:
    """A lumpy closed surface, no motion of which is itself, and 3,000 places on a part of it."""
    ball = trimesh.creation.icosphere(4)
    x, y, z = ball.vertices.T
    bumps = 1 + 0.25 * np.sin(3 * x + 1) * np.cos(2 * y) + 0.2 * x * z + 0.15 * y
    vertices = ball.vertices * bumps[:, None] * [0.08, 0.1, 0.12]
    rng = np.random.default_rng(2)
    corners = vertices[ball.faces][rng.integers(0, len(ball.faces), 3000)]
    points = (corners * rng.dirichlet([1, 1, 1], 3000)[..., None]).sum(axis=1)
    return Surface(vertices, ball.faces), points[points[:, 2] > -0.03]


@pytest.mark.parametrize("size", [1.0, 1.08])
def test_a_known_motion_is_found_and_undone(size: float) -> None:
    surface, points = egg()
    turn = Rotation.from_rotvec([0.1, -0.12, 0.08]).as_matrix()
    moved = size * points @ turn.T + [0.004, -0.006, 0.01]
    scale, rotation, shift = align_to_scan(surface, moved, scale=size != 1)
    assert scale == pytest.approx(size, abs=1e-5)
    np.testing.assert_allclose(rotation, turn, atol=1e-5)
    np.testing.assert_allclose(shift, [0.004, -0.006, 0.01], atol=1e-6)
    scan = Scan(moved, {})
    assert measure_scan(surface, scan, {}, align="similarity" if size != 1 else "rigid")[1].max() < 1e-6
    assert measure_scan(surface, scan, {}, align="none")[1].mean() > 1e-3
    if size != 1:  # what is left is in the scan's size
        rigid = measure_scan(surface, scan, {}, align="rigid")
        assert rigid[0] == 1
        assert rigid[1].mean() > 1e-3


def test_landmarks_bring_a_scan_of_another_frame() -> None:
    surface, points = egg()
    turn = Rotation.from_rotvec([2.0, 1.0, -0.7]).as_matrix()
    names = {f"mark{k}": points[k * 100] for k in range(5)}
    there = {name: place @ turn.T + [3, 4, 5] for name, place in names.items()}
    scan = Scan(points @ turn.T + [3, 4, 5], there)
    scale, away = measure_scan(surface, scan, names, align="rigid")
    assert scale == 1
    assert away.max() < 1e-6
    with pytest.raises(ValueError, match=r"^the mesh has no landmark 'nose'; its are mark0, mark1"):
        measure_scan(surface, Scan(scan.points, {"nose": np.zeros(3)}), names, align="rigid")
    few = dict(list(there.items())[:2])
    with pytest.raises(ValueError, match=r"^three landmarks or more align a scan, got 2$"):
        measure_scan(surface, Scan(scan.points, few), names, align="rigid")
    line = {name: np.arange(3) * float(k) for k, name in enumerate(names)}
    with pytest.raises(ValueError, match=r"^the landmarks lie on one line"):
        measure_scan(surface, Scan(scan.points, there), line, align="rigid")


def test_the_derivatives_are_those_of_the_distances() -> None:
    surface, points = egg()
    points = 1.1 * points[:300] + [0.01, 0.02, -0.01]
    motion = (0.95, Rotation.from_rotvec([0, 0.1, 0]).as_matrix(), np.array([0.01, 0, 0]))
    _, jacobian = _linearised(surface, points, *motion, scale=True)
    for k in range(7):
        step = np.zeros(7)
        step[k] = 1e-6
        ends = [
            _linearised(surface, points, *_stepped(points, *motion, s), scale=True)[0] for s in (step, -step)
        ]
        numbers = (ends[0] - ends[1]) / 2e-6
        # Where another triangle becomes the nearest, there is no derivative.
        assert np.quantile(abs(numbers - jacobian[:, k]), 0.9) < 1e-6


# --- files


def faces_of_two(rng: np.random.Generator) -> PseudoGT:
    params = {
        "global_orient": rng.normal(0, 0.1, (3, 3)),
        "betas": rng.normal(0, 1, (3, 10)),
        "expression": rng.normal(0, 1, (3, 10)),
        "jaw_pose": np.tile([0.1, 0, 0], (3, 1)),
        "transl": np.array([[0, 0, 0.8], [0.1, 0, 0.9], [0, 0.1, 1]]),
    }
    params = {name: value.astype(np.float32) for name, value in params.items()}
    camera = {"focal": np.full((3, 2), 900.0), "princpt": np.full((3, 2), 128.0)}
    return pseudo_gt_of("ffhq-flame", params, ids=np.array([3, 5, 9]), **camera)


def test_scans_of_faces(tmp_path: Path) -> None:
    """Points a known way off a mesh: every format, both units; one row without a scan, one scan without."""
    rng = np.random.default_rng(3)
    gt = faces_of_two(rng)
    assert row_names(gt) == ["3", "5", "9"]
    bodies = gt.forward()
    vertices, faces = bodies.vertices.numpy().astype(float), bodies.faces
    meshes = [trimesh.Trimesh(v, faces, process=False) for v in vertices]
    points, face = trimesh.sample.sample_surface(meshes[0], 2000, seed=0)
    (tmp_path / "scans").mkdir()
    points = points + 0.002 * meshes[0].face_normals[face]
    trimesh.PointCloud(points * 1000).export(tmp_path / "scans" / "3.ply")
    meshes[2].vertices = vertices[2] * 1000
    meshes[2].export(tmp_path / "scans" / "9.obj", digits=8)
    np.save(tmp_path / "scans" / "77.npy", points)
    (tmp_path / "scans" / "notes.txt").write_text("not a scan")
    errors = scan_errors(gt, tmp_path / "scans", unit="mm", align="none")
    assert errors.rows.tolist() == [0, 2]
    assert (errors.missing, errors.extra, errors.align) == (1, ("77",), "none")
    assert errors.median[0] == pytest.approx(2, abs=0.02)
    assert errors.mean[1] < 1e-3
    assert errors.scale.tolist() == [1, 1]
    assert len(errors.distances[0]) == 2000
    pooled = np.concatenate(errors.distances)
    assert errors.pooled["mean"] == pytest.approx(pooled.mean(), rel=1e-5)
    assert errors.pooled["std"] == pytest.approx(pooled.std(), rel=1e-4)
    assert str(errors).startswith(
        "2 scans, alignment none, 1 annotations without one, 1 scans without an ann"
    )
    moved = scan_errors(gt, tmp_path / "scans", unit="mm", align="rigid")
    assert moved.mean[0] < errors.mean[0] + 1e-6  # it was the best motion or there is a better
    with pytest.raises(ValueError, match=r"3\.ply: the scan is .* m large, the mesh .*; is unit='m' right"):
        scan_errors(gt, tmp_path / "scans", unit="m")


def test_a_scan_with_landmarks_in_a_frame_of_its_own(tmp_path: Path) -> None:
    gt = faces_of_two(np.random.default_rng(4)).rows([1])
    bodies = gt.forward()
    vertices = bodies.vertices[0].numpy().astype(float)
    turn = Rotation.from_rotvec([0, 2.5, 0.3]).as_matrix()
    eyes = ["right_eye1", "right_eye4", "left_eye4", "left_eye1"]
    names = [*eyes, "nose_middle", "right_mouth_1", "left_mouth_1"]  # NoW's seven
    marks = np.array([bodies.joints[0, bodies.joint_names.index(n)].numpy() for n in names])
    np.savez(
        tmp_path / "5.npz",
        points=vertices[::3] @ turn.T + 1,
        landmarks=np.concatenate([marks @ turn.T + 1, np.full((1, 3), np.nan)]),
        landmark_names=np.array([*names, "lost"]),
    )
    errors = scan_errors(gt, tmp_path)
    assert errors.mean[0] < 1e-2
    assert errors.means["median"] < 1e-2


def test_what_is_no_scan(tmp_path: Path) -> None:
    gt = faces_of_two(np.random.default_rng(5))

    def refuses(name: str, content: object, text: str) -> None:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif name.endswith(".npz"):
            np.savez(path, **content)  # type: ignore[arg-type]
        else:
            np.save(path, content, allow_pickle=True)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=re.escape(f"{path}: ") + text):
            read_scan(path)
        path.unlink()

    refuses("a.ply", b"ply\nformat", "not a scan that can be read: ")
    refuses("a.obj", b"", "")
    refuses("a.npy", np.array([{}, 1], object), "not a scan that can be read: ValueError")
    refuses("a.npz", {"vertices": np.zeros((3, 3))}, "not a scan that can be read: KeyError")
    refuses("a.npy", np.zeros((3, 4)), r"points must be \(P, 3\), got \(3, 4\)")
    refuses("a.npy", np.full((5, 3), np.nan), "a scan needs at least three points, got 0")
    refuses(
        "a.npz", {"points": np.zeros((4, 3)), "landmarks": np.zeros((2, 3)), "landmark_names": ["a"]}, "not a"
    )
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder of scans$"):
        scan_errors(gt, tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"expected names like 3\.ply \(.*\), got none$"):
        scan_errors(gt, tmp_path)
    with pytest.raises(ValueError, match=r"^align must be one of none, rigid, similarity, got 'best'$"):
        scan_errors(gt, tmp_path, align="best")
    with pytest.raises(ValueError, match=r"^unit must be one of m, mm, got 'cm'$"):
        scan_errors(gt, tmp_path, unit="cm")
    for suffix in (".npy", ".npz"):
        (tmp_path / f"3{suffix}").write_bytes(b"")
    with pytest.raises(ValueError, match=r"3\.npy and 3\.npz are of one row; keep one$"):
        scan_errors(gt, tmp_path)
