"""Mesh files: read back by trimesh with the same vertices in the same order, and upright in GLB viewers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neuralannot import load_pseudo_gt
from neuralannot.demo import SAMPLE
from neuralannot.exports import export_meshes
from neuralannot.meshes import save_mesh, save_meshes, to_trimesh

SPHERE = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
FACES = np.asarray(SPHERE.faces)
VERTICES = (np.asarray(SPHERE.vertices) * [1, 2, 0.7] + [0.1, -0.2, 3]).astype(np.float32)
TOLERANCE = {".obj": 1e-6, ".ply": 0, ".glb": 0}


def read_back(path) -> trimesh.Trimesh:
    """The geometry as stored in the file, without any node's transform."""
    # By default trimesh's OBJ reader drops vertices without faces.
    scene = trimesh.load_scene(path, process=False, maintain_order=True)
    (mesh,) = scene.geometry.values()
    return mesh


def test_to_trimesh_keeps_every_vertex_and_shares_no_memory():
    # Twins, a vertex without face, a face without area: all of which trimesh would tidy away.
    vertices = np.concatenate([VERTICES, VERTICES[:5], [[9, 9, 9]]]).astype(np.float64)
    faces = np.concatenate([FACES, [[0, 0, 1], [163, 164, 165]]])
    mesh = to_trimesh(vertices, faces)
    assert (mesh.vertices == vertices).all()
    assert (mesh.faces == faces).all()
    mesh.vertices[0] = 7
    mesh.faces[0] = 0
    assert (vertices[0] != 7).all()
    assert faces[0].any()


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb", ".PLY"])
def test_files_hold_the_same_vertices_and_faces(tmp_path, suffix):
    vertices = np.concatenate([VERTICES, VERTICES[:2], [[9, 9, 9]]])
    faces = np.concatenate([FACES, [[162, 163, 5]]])
    before = vertices.copy()
    save_mesh(tmp_path / f"body{suffix}", vertices, faces)
    mesh = read_back(tmp_path / f"body{suffix}")
    assert mesh.vertices.shape == vertices.shape
    assert np.abs(mesh.vertices - vertices).max() <= TOLERANCE[suffix.lower()]
    assert (mesh.faces == faces).all()
    assert (vertices == before).all()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", list(TOLERANCE))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(vertices=arrays(np.float32, (12, 3), elements=st.floats(-100, 100, width=32)))
def test_any_vertices_survive(tmp_path, suffix, vertices):
    faces = np.arange(12).reshape(4, 3)
    save_mesh(tmp_path / f"any{suffix}", vertices, faces)
    mesh = read_back(tmp_path / f"any{suffix}")
    assert np.abs(mesh.vertices - vertices).max() <= TOLERANCE[suffix]
    assert (mesh.faces == faces).all()


def test_glb_stands_upright_by_its_node_and_has_smooth_normals(tmp_path):
    save_mesh(tmp_path / "body.glb", VERTICES, FACES)
    shown = trimesh.load_scene(tmp_path / "body.glb", process=False).to_mesh()
    assert np.abs(shown.vertices - VERTICES * [1, -1, -1]).max() < 1e-6
    data = (tmp_path / "body.glb").read_bytes()
    content = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    assert "NORMAL" in content["meshes"][0]["primitives"][0]["attributes"]
    # A turn, not a reflection: the faces still show their outside.
    assert shown.volume == pytest.approx(to_trimesh(VERTICES, FACES).volume, rel=1e-5)
    assert shown.volume > 0


def test_saves_several_with_own_or_shared_faces(tmp_path):
    bodies = np.stack([VERTICES, VERTICES + 1])
    paths = save_meshes(tmp_path / "new" / "folder", [476384, "b.c"], bodies, FACES, suffix=".ply")
    assert [path.name for path in paths] == ["476384.ply", "b.c.ply"]
    assert sorted(paths) == sorted((tmp_path / "new" / "folder").iterdir())
    for path, vertices in zip(paths, bodies, strict=True):
        assert (read_back(path).vertices == vertices).all()
    own = save_meshes(tmp_path, ["a", "b"], [VERTICES, VERTICES[:3]], [FACES, [[0, 1, 2]]])
    assert [path.suffix for path in own] == [".obj", ".obj"]
    assert (read_back(own[1]).faces == [[0, 1, 2]]).all()
    assert save_meshes(tmp_path, [], [], []) == []


def test_torch_tensors(tmp_path):
    torch = pytest.importorskip("torch")
    vertices, faces = torch.tensor(VERTICES, requires_grad=True), torch.tensor(FACES)
    (path,) = save_meshes(tmp_path, ["a"], vertices[None], faces, suffix=".ply")
    assert (read_back(path).vertices == VERTICES).all()


def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    save_mesh(tmp_path / "a.ply", VERTICES, FACES)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_mesh(tmp_path / "a.ply", VERTICES + 1, FACES)
    assert (read_back(tmp_path / "a.ply").vertices == VERTICES).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]


@pytest.mark.parametrize(
    ("name", "vertices", "faces", "error", "message"),
    [
        ("a.stl", VERTICES, FACES, ValueError, r"meshes are written as \.obj, \.ply, \.glb, got '\.stl'"),
        ("a", VERTICES, FACES, ValueError, "got 'no suffix'"),
        (
            "a.obj",
            VERTICES[None],
            FACES,
            ValueError,
            r"vertices must be \(V, 3\), got \(1, 162, 3\); pass one body",
        ),
        (
            "a.obj",
            VERTICES * np.nan,
            FACES,
            ValueError,
            "vertices must be finite, got 162 of 162 that are not",
        ),
        ("a.obj", VERTICES, FACES[:, :2], ValueError, r"faces must be \(n, 3\), got \(320, 2\)"),
        ("a.obj", VERTICES, FACES + 1, ValueError, "faces must hold indices from 0 to 161, got 1 to 162"),
        ("a.obj", VERTICES, FACES * 1.0, TypeError, "faces must hold integers, got float64"),
        (
            "a.obj",
            VERTICES,
            FACES[:0],
            ValueError,
            "a mesh without faces cannot be written, got 162 vertices",
        ),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(tmp_path, name, vertices, faces, error, message):
    with pytest.raises(error, match=message):
        save_mesh(tmp_path / "new" / name, vertices, faces)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("names", "bodies", "options", "message"),
    [
        (["a", "a"], 2, {}, "names must differ, got 'a' twice"),
        ([1, "1"], 2, {}, "names must differ, got '1' twice"),
        (["../a"], 1, {}, "names must be plain file names without a folder, got '../a'"),
        ([r"b\a"], 1, {}, "names must be plain file names"),
        ([""], 1, {}, "names must be plain file names"),
        ([".."], 1, {}, "names must be plain file names"),
        (["a"], 2, {}, "names, vertices, faces must be as many, got 1, 2 and 1"),
        (["a"], 1, {"suffix": ".stl"}, r"suffix: meshes are written as \.obj, \.ply, \.glb, got '\.stl'"),
    ],
)
def test_wrong_names_and_lengths_are_named_and_nothing_is_written(tmp_path, names, bodies, options, message):
    with pytest.raises(ValueError, match=message):
        save_meshes(tmp_path / "new", names, [VERTICES] * bodies, FACES, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:no official body models")
def test_every_mesh_of_an_export_has_a_file_of_its_own(tmp_path):
    gt = load_pseudo_gt(SAMPLE / "mscoco" / "MSCOCO_train_SMPL_NeuralAnnot.json", cache=False)
    with pytest.raises(ValueError, match="unknown mesh format 'stl'; expected one of obj, ply, glb"):
        export_meshes(gt, tmp_path / "out", suffix="stl")
    with pytest.raises(ValueError, match="1: asked for more than once; every mesh has a file of its own"):
        export_meshes(gt.rows([0, 0]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export_meshes(gt[:0], tmp_path / "out") == []
