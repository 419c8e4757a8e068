"""Errors against true meshes: those of parameters where both are known, known changes, files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import write_release
from scipy.linalg import orthogonal_procrustes
from test_train_evaluation import changed, people, wild

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.metrics import auc
from neuralannot.train.evaluation import annotation_errors, mesh_errors, read_meshes
from neuralannot.train.evaluation.meshes import TrueMeshes

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

MEASURES = ("mpjpe", "pa_mpjpe", "mpvpe", "pa_mpvpe", "root")


def pair(count: int = 4, model: str = "smpl", **more: Any) -> tuple[PseudoGT, PseudoGT]:
    rng = np.random.default_rng(0)
    truth = people(rng, count, model)
    return wild(changed(truth, rng), range(count), **more), wild(truth, range(count), **more)


def test_the_same_errors_as_against_the_parameters(tmp_path: Path) -> None:
    """With a regressor joints are of the vertices in both comparisons. Millimetres, in another order."""
    gt, truth = pair()
    vertices = truth.forward().vertices.numpy()
    order = [2, 0, 3]
    np.savez(tmp_path / "m.npz", vertices=vertices[order] * 1000, ids=np.array([*order]), unit="mm")
    meshes = read_meshes(tmp_path / "m.npz")
    found = mesh_errors(gt, meshes, regressor="human36m-17", batch_size=2)
    wanted = annotation_errors(gt, truth, regressor="human36m-17")
    assert found.rows.tolist() == [[2, 0], [0, 1], [3, 2]]
    assert (found.missing.tolist(), found.extra.tolist()) == ([], [[1]])
    assert (found.joints, found.joint_names) == ("human36m-17", wanted.joint_names)
    for name in MEASURES:
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name)[order], atol=2e-3)
    np.testing.assert_allclose(found.per_joint, wanted.per_joint[order], atol=2e-3)
    for name in ("mpvpe", "pa_mpvpe"):
        np.testing.assert_allclose(found.auc[name], wanted.auc[name][order], atol=1e-4)
    # Without a pelvis of its own, and without a regressor, the model's rest regressor has the root.
    coco = mesh_errors(gt, meshes, regressor="coco-17")
    bare = mesh_errors(gt, meshes)
    np.testing.assert_allclose(coco.mpvpe, bare.mpvpe, atol=1e-4)
    np.testing.assert_allclose(coco.root, bare.root, atol=1e-4)
    assert bare.joint_names[0] == "pelvis"
    assert len(bare.joint_names) == 24


def test_against_scipy() -> None:
    """PA by scipy's orthogonal Procrustes, the mean by hand, joint by joint."""
    gt, truth = pair(3)
    errors = annotation_errors(gt, truth, regressor="human36m-17")
    posed = [g.forward(regressor="human36m-17") for g in (gt, truth)]
    for row in range(3):
        for what in ("joints", "vertices"):
            a, b = (getattr(p, what)[row].numpy().astype(float) for p in posed)
            a0, b0 = a - a.mean(0), b - b.mean(0)
            turn, size = orthogonal_procrustes(a0, b0)
            assert np.linalg.det(turn) > 0  # a rotation: scipy's may be a reflection
            away = 1000 * np.linalg.norm(size / (a0**2).sum() * a0 @ turn - b0, axis=1)
            name = "pa_mpjpe" if what == "joints" else "pa_mpvpe"
            assert getattr(errors, name)[row] == pytest.approx(away.mean(), abs=5e-3)
            if what == "joints":
                np.testing.assert_allclose(errors.pa_per_joint[row], away, atol=5e-3)
                by_hand = 1000 * np.linalg.norm((a - a[0]) - (b - b[0]), axis=1)
                np.testing.assert_allclose(errors.per_joint[row], by_hand, atol=5e-3)
                a0, b0 = a - a[0], b - b[0]
            else:
                roots = [p.joints[row, 0].numpy().astype(float) for p in posed]
                area = auc((a - roots[0])[None], (b - roots[1])[None], high=0.15)[0]
                assert errors.auc["mpvpe"][row] == pytest.approx(area, abs=1e-4)
    assert errors.auc_limit == 150
    np.testing.assert_allclose(errors.per_joint.mean(axis=1), errors.mpjpe, rtol=1e-5)
    np.testing.assert_allclose(errors.pa_per_joint.mean(axis=1), errors.pa_mpjpe, rtol=1e-5)


def test_the_truth_has_no_error_and_a_shift_is_the_roots() -> None:
    gt, _ = pair()
    vertices = gt.forward().vertices.numpy()
    errors = mesh_errors(gt, TrueMeshes("made", vertices))  # in the rows' order
    assert max(getattr(errors, n).max() for n in ("mpjpe", "mpvpe", "root")) < 1e-9
    vertices = vertices + np.array([0.03, 0, -0.04], np.float32)
    vertices[1, 7] = np.nan
    errors = mesh_errors(gt, TrueMeshes("made", vertices))
    assert np.isnan([getattr(errors, n)[1] for n in MEASURES]).all()
    np.testing.assert_allclose(errors.root[[0, 2, 3]], 50, atol=2e-3)
    assert np.nanmax(errors.mpvpe) < 5e-3


def test_hands_of_both_sides() -> None:
    side = np.array(["right", "left", "left", "right"])
    gt, truth = pair(4, "mano", side=side)
    vertices = truth.forward().vertices.numpy()
    ids, sides = truth.ids[:, None], np.array(truth.side)
    errors = mesh_errors(gt, TrueMeshes("made", vertices, keys=ids, side=sides), regressor="interhand-21")
    wanted = annotation_errors(gt, truth, regressor="interhand-21")
    for name in MEASURES:
        np.testing.assert_allclose(getattr(errors, name), getattr(wanted, name), atol=2e-3)
    assert errors.auc_limit == 50
    with pytest.raises(ValueError, match=r"^made: mscoco-mano holds hands; side \(N,\) must say which"):
        mesh_errors(gt, TrueMeshes("made", vertices, keys=ids))


def test_frames_in_the_world(tmp_path: Path) -> None:
    """A frame's mesh is that of all of its cameras; in camera space a key is not enough."""
    written = write_release(tmp_path, "human36m-smpl")
    gt = load_pseudo_gt(written.path, cache=False)
    bare = load_pseudo_gt(written.path, annotations=False, cache=False)
    meshes = TrueMeshes("made", bare.forward(space="world").vertices.numpy(), keys=np.array(bare.keys))
    errors = mesh_errors(gt, meshes)
    assert len(errors) == len(set(gt.keys))
    assert max(errors.mpvpe.max(), errors.root.max()) < 1e-3
    assert errors.missing.tolist() == [[1, 2, 1, 5]]  # a fit without an annotation
    in_camera = TrueMeshes("made", meshes.vertices, keys=meshes.keys, space="camera")
    with pytest.raises(ValueError, match=r"^human36m-smpl: a key stands in several rows; meshes are matched"):
        mesh_errors(gt, in_camera)
    by_id = TrueMeshes("made", gt.forward().vertices.numpy(), keys=gt.ids[:, None], space="camera")
    assert mesh_errors(gt, by_id).root.max() < 1e-3
    twice = TrueMeshes("made", meshes.vertices, keys=np.repeat(meshes.keys[:1], len(meshes), axis=0))
    with pytest.raises(ValueError, match=r"^made: a key stands in several rows"):
        mesh_errors(gt, twice)
    other = TrueMeshes("made", meshes.vertices, keys=meshes.keys[:, :3])
    with pytest.raises(
        ValueError, match=r"^made: keys of 3 numbers; human36m-smpl is keyed by \(subject, act"
    ):
        mesh_errors(gt, other)


def test_what_cannot_be_compared() -> None:
    gt, truth = pair(2)
    vertices = truth.forward().vertices.numpy()
    with pytest.raises(
        ValueError, match=r"^made: meshes of 10475 vertices, smpl has 6890; meshes are compared"
    ):
        mesh_errors(gt, TrueMeshes("made", np.zeros((2, 10475, 3), np.float32)))
    with pytest.raises(ValueError, match=r"^made: 1 meshes without ids for 2 annotations; give as many, or"):
        mesh_errors(gt, TrueMeshes("made", vertices[:1]))
    with pytest.raises(
        ValueError, match=r"^made: meshes of 1\d\d\d m, the fits are of 1.*; are they in mm or"
    ):
        mesh_errors(gt, TrueMeshes("made", vertices * 1000))
    with pytest.raises(ValueError, match=r"in the camera's space, there is no world to forward to"):
        mesh_errors(gt, TrueMeshes("made", vertices, space="world"))


# --- files


def test_reading(tmp_path: Path) -> None:
    vertices = np.random.default_rng(0).normal(0, 1, (3, 4, 3))
    np.save(tmp_path / "a.npy", vertices)
    meshes = read_meshes(tmp_path / "a.npy", unit="mm")
    assert (len(meshes), meshes.metres, meshes.keys, meshes.space) == (3, 0.001, None, None)
    assert isinstance(meshes.vertices, np.memmap)
    np.savez(
        tmp_path / "b.npz", vertices=vertices, keys=np.zeros((3, 2), int), side=["right"] * 3, space="world"
    )
    meshes = read_meshes(tmp_path / "b.npz")
    assert (meshes.metres, meshes.space, meshes.keys.shape) == (1.0, "world", (3, 2))
    assert meshes.side.tolist() == ["right"] * 3


def test_what_is_not_read(tmp_path: Path) -> None:
    vertices = np.zeros((3, 4, 3))

    def refuses(text: str, asked: str | None = None, **arrays: Any) -> None:
        path = tmp_path / "a.npz"
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=re.escape(f"{path}: ") + text):
            read_meshes(path, unit=asked)

    refuses(r"no 'vertices' \(N, V, 3\) in it, only ids, points", points=vertices, ids=np.arange(3))
    refuses(r"expected one of 'ids' \(N,\) and 'keys' \(N, K\)", vertices=vertices)
    refuses("its unit must be one of m, mm, got 'cm'", vertices=vertices, ids=np.arange(3), unit="cm")
    refuses("its unit is mm, asked for was m", "m", vertices=vertices, ids=np.arange(3), unit="mm")
    refuses(r"keys must be \(3, K\) integers and ids \(3,\)", vertices=vertices, ids=np.arange(2))
    refuses(r"keys must be \(3, K\) integers", vertices=vertices, ids=np.arange(3.0))
    refuses(r"side must be \(3,\) of right, left", vertices=vertices, ids=np.arange(3), side=["up"] * 3)
    refuses("space must be camera or world, got 'image'", vertices=vertices, ids=np.arange(3), space="image")
    refuses(
        r"vertices must be \(N, V, 3\) floats, got int64", vertices=vertices.astype(int), ids=np.arange(3)
    )
    refuses("not a whole .npz without pickles", vertices=np.array([{}], object), ids=np.arange(1))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"cut\.npz: not a whole \.npz without pickles"):
        read_meshes(tmp_path / "cut.npz")
    np.save(tmp_path / "b.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"b\.npy: not a whole \.npy without pickles"):
        read_meshes(tmp_path / "b.npy")
    with pytest.raises(FileNotFoundError, match=r"c\.npz: no such file of meshes$"):
        read_meshes(tmp_path / "c.npz")
    (tmp_path / "d.obj").write_text("")
    with pytest.raises(ValueError, match=r"d\.obj: meshes are read from \.npz and \.npy, got '\.obj'$"):
        read_meshes(tmp_path / "d.obj")
    with pytest.raises(ValueError, match=r"^unit must be one of m, mm, got 'cm'$"):
        read_meshes(tmp_path / "d.obj", unit="cm")
