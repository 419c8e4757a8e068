"""Errors of annotation files: none for the truth itself, known ones for known changes, and a slow twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from layouts import write_release
from scipy.spatial.transform import Rotation

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.body_models import load_body_model
from neuralannot.body_models.joints import joint_regressor
from neuralannot.boxes import process_boxes
from neuralannot.cameras import Camera
from neuralannot.joint_sets import JOINT_SETS, JointSet
from neuralannot.train.evaluation import annotation_errors, joint_errors
from neuralannot.train.placing import pose_joints
from neuralannot.train.released import pseudo_gt_of, save_release
from neuralannot.train.samples import Samples

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

MEASURES = ("mpjpe", "pa_mpjpe", "mpvpe", "pa_mpvpe", "root")


def people(rng: np.random.Generator, count: int, model: str = "smpl") -> dict[str, np.ndarray]:
    pose = {"smpl": ("body_pose", 23), "mano": ("hand_pose", 15)}[model]
    params = {
        "global_orient": Rotation.random(count, random_state=rng).as_rotvec().reshape(count, 3),
        pose[0]: rng.normal(0, 0.3, (count, pose[1], 3)),
        "betas": rng.normal(0, 1, (count, 10)),
        "transl": rng.uniform(-0.2, 0.2, (count, 3)) + np.array([0, 0, 8]),
    }
    return {name: values.astype(np.float32) for name, values in params.items()}


def wild(params: dict[str, np.ndarray], ids: Any, **more: Any) -> PseudoGT:
    n = len(params["transl"])
    release = "mscoco-mano" if "hand_pose" in params else "mpii-smpl"
    camera = {"focal": np.full((n, 2), 4000.0), "princpt": np.full((n, 2), 200.0)}
    return pseudo_gt_of(release, params, ids=np.array(ids, int), **(camera | more))


def changed(params: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {n: (v + rng.normal(0, 0.1, v.shape)).astype(np.float32) for n, v in params.items()}


# --- against the truth


@pytest.mark.parametrize("release", ["mscoco-smplx", "mscoco-mano", "ffhq-flame", "human36m-smpl"])
def test_the_truth_has_no_error(release: str, tmp_path: Path) -> None:
    """Written, loaded and compared, of every model."""
    written = write_release(tmp_path / "data", release)
    truth = load_pseudo_gt(written.path, annotations=False, cache=False)
    back = load_pseudo_gt(save_release(truth, tmp_path / "out"), annotations=False, cache=False)
    errors = annotation_errors(back, truth)
    assert len(errors.missing) == len(errors.extra) == 0
    assert len(errors) == len(back)
    for name in MEASURES:
        values = getattr(errors, name)
        assert values.dtype == np.float64
        # Aligning what is the same costs rounding.
        assert np.nanmax(values) < (1e-3 if name.startswith("pa_") else 1e-9)
    assert np.isnan(errors.root).any() == (release == "ffhq-flame")


def test_against_a_slow_twin() -> None:
    rng = np.random.default_rng(0)
    truth = people(rng, 5)
    fits = changed(truth, rng)
    errors = annotation_errors(wild(fits, range(5)), wild(truth, range(5)), batch_size=2)
    named = annotation_errors(wild(fits, range(5)), wild(truth, range(5)), regressor="human36m-17")
    coco = annotation_errors(wild(fits, range(5)), wild(truth, range(5)), regressor="coco-17")
    assert [e.joints for e in (errors, named, coco)] == ["the skeleton's", "human36m-17", "coco-17"]
    model = load_body_model("smpl")
    for row in range(5):
        out = [
            model(**{n: torch.tensor(v[row : row + 1]).reshape(1, *v.shape[1:]) for n, v in p.items()})
            for p in (fits, truth)
        ]
        mesh = [o.vertices[0].numpy().astype(float) for o in out]
        bones = [o.joints[0, :24].numpy().astype(float) for o in out]

        def distance(a: np.ndarray, b: np.ndarray) -> float:
            return 1000 * float(np.linalg.norm(a - b, axis=1).mean())

        shift = bones[0][0] - bones[1][0]
        assert errors.root[row] == pytest.approx(1000 * np.linalg.norm(shift), abs=2e-3)
        assert errors.mpjpe[row] == pytest.approx(distance(bones[0] - shift, bones[1]), abs=2e-3)
        assert errors.mpvpe[row] == pytest.approx(distance(mesh[0] - shift, mesh[1]), abs=2e-3)
        assert errors.pa_mpvpe[row] == pytest.approx(procrustes(mesh[0], mesh[1]), abs=5e-3)
        assert errors.pa_mpjpe[row] == pytest.approx(procrustes(bones[0], bones[1]), abs=5e-3)
        weights = joint_regressor("human36m-17", model).weights
        joints = [weights @ m for m in mesh]
        shift17 = joints[0][0] - joints[1][0]
        assert named.mpjpe[row] == pytest.approx(distance(joints[0] - shift17, joints[1]), abs=2e-3)
        assert named.mpvpe[row] == pytest.approx(distance(mesh[0] - shift17, mesh[1]), abs=2e-3)
        weights = joint_regressor("coco-17", model).weights  # no pelvis: the skeleton's
        joints = [weights @ m for m in mesh]
        assert coco.mpjpe[row] == pytest.approx(distance(joints[0] - shift, joints[1]), abs=2e-3)


def procrustes(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(0), b - b.mean(0)
    u, s, vt = np.linalg.svd(a.T @ b)
    d = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    moved = (s * np.diag(d)).sum() / (a * a).sum() * a @ u @ d @ vt
    return 1000 * float(np.linalg.norm(moved - b, axis=1).mean())


def test_known_changes() -> None:
    """A shift is the root's alone; a turn about the root leaves what is aligned by a similarity."""
    rng = np.random.default_rng(1)
    truth = people(rng, 3)
    moved = {**truth, "transl": truth["transl"] + np.array([0.03, 0, -0.04], np.float32)}
    errors = annotation_errors(wild(moved, [1, 2, 3]), wild(truth, [1, 2, 3]))
    np.testing.assert_allclose(errors.root, 50, atol=2e-3)
    assert max(errors.mpjpe.max(), errors.mpvpe.max(), errors.pa_mpvpe.max()) < 5e-3
    turn = Rotation.from_rotvec([0, 0.5, 0])
    root = (turn * Rotation.from_rotvec(truth["global_orient"])).as_rotvec()
    errors = annotation_errors(wild({**truth, "global_orient": root}, [1, 2, 3]), wild(truth, [1, 2, 3]))
    assert errors.mpjpe.min() > 20
    assert max(errors.pa_mpjpe.max(), errors.pa_mpvpe.max(), errors.root.max()) < 5e-3


def test_rows_are_matched() -> None:
    """By id and side, in the truth's order; what is alone on either side is listed."""
    rng = np.random.default_rng(2)
    params = people(rng, 5, "mano")
    side = np.array(["right", "left", "left", "right", "left"])
    truth = wild(params, [4, 4, 2, 9, 9], side=side)
    pick = [3, 1, 2]
    fits = {n: np.concatenate([v[pick], v[:1]]) for n, v in params.items()}
    gt = wild(fits, [9, 4, 2, 2], side=np.array(["right", "left", "left", "right"]))
    errors = annotation_errors(gt, truth)
    assert errors.mpvpe.max() < 1e-9
    names = [(i, s) for i, s in zip(truth.ids.tolist(), truth.side.tolist(), strict=True)]
    assert [names[row] for row in errors.rows[:, 1]] == [(4, "left"), (2, "left"), (9, "right")]
    mine = gt.rows(errors.rows[:, 0])
    assert mine.ids.tolist() == [4, 2, 9]
    assert errors.missing.tolist() == [[4, 0], [9, 1]]
    assert errors.extra.tolist() == [[2, 0]]
    assert str(errors).startswith("3 annotations, 2 missing, 1 without a truth; joints: the skeleton's\nmm ")
    assert set(errors.means) == set(MEASURES)


def test_nothing_in_common() -> None:
    truth = people(np.random.default_rng(3), 2)
    errors = annotation_errors(wild(truth, [1, 2]), wild(truth, [3, 4]))
    assert (len(errors), errors.missing.tolist(), errors.extra.tolist()) == (0, [[3], [4]], [[1], [2]])
    assert np.isnan(errors.means["mpvpe"])
    assert "MPVPE        -" in str(errors)


def test_world_and_camera_space(tmp_path: Path) -> None:
    """A world release against itself: by frame in the world, by annotation in the cameras' spaces."""
    written = write_release(tmp_path, "human36m-smpl")
    gt = load_pseudo_gt(written.path, cache=False)
    bare = load_pseudo_gt(written.path, annotations=False, cache=False)
    frames = len(set(gt.keys))
    assert frames < len(gt)  # two cameras
    errors = annotation_errors(bare, gt)
    assert (len(errors), errors.extra.tolist()) == (frames, [[1, 2, 1, 5]])  # a fit without an annotation
    assert errors.mpvpe.max() < 1e-9
    moved = gt.to_camera_space()
    errors = annotation_errors(gt, moved)
    assert len(errors) == len(gt)
    assert max(errors.mpvpe.max(), errors.root.max()) < 0.02  # to float32's precision, 5 m away
    with pytest.raises(
        ValueError, match=r"^human36m-smpl: a key stands in several rows, each in its own cam"
    ):
        annotation_errors(
            moved, PseudoGT(bare.view, bare.release, space="camera", companions=bare.companions)
        )


def test_what_cannot_be_compared() -> None:
    rng = np.random.default_rng(4)
    body = wild(people(rng, 1), [1])
    hand = wild(people(rng, 1, "mano"), [1], side=np.array(["left"]))
    with pytest.raises(
        ValueError,
        match=r"^the annotations are mano's, the truth is smpl's; compare one model, or SMPL and SMPL-X$",
    ):
        annotation_errors(hand, body)
    frames = pseudo_gt_of("mpi-inf-3dhp-smpl", people(rng, 1), keys=[[1, 1, 0]])
    with pytest.raises(ValueError, match=r"^mpii-smpl and mpi-inf-3dhp-smpl have neither annotation ids nor"):
        annotation_errors(body, frames)
    other = pseudo_gt_of("human36m-smpl", people(rng, 1), keys=[[1, 1, 1, 0]])
    with pytest.raises(ValueError, match=r"^human36m-smpl and mpi-inf-3dhp-smpl have keys of 4 and 3$"):
        annotation_errors(other, frames)


# --- against the joints of the samples


def samples_of(
    joints_2d: np.ndarray, ids: Any, joint_set: JointSet = JOINT_SETS["human36m-17"], **more: Any
) -> Samples:
    n = len(joints_2d)
    fields: dict[str, Any] = {
        "data_set": "MPII",
        "images": Path("images"),
        "image_path": np.array(["a.jpg"] * n),
        "image_size": np.full((n, 2), 400),
        "box_xywh": np.tile(np.array([100, 80, 120, 200], np.float32), (n, 1)),
        "ids": np.array(ids, np.int64),
        "keys": np.array(ids, np.int64)[:, None],
        "joint_set": joint_set,
        "joints_2d": joints_2d.astype(np.float32),
        "joints_cam": None,
        "camera": None,
        "side": None,
    }
    return Samples(**(fields | more))


def test_reprojection_through_the_file(tmp_path: Path) -> None:
    """Three px to the side, four down: five px, of a box that is 199 px high and a quarter larger."""
    rng = np.random.default_rng(5)
    params = people(rng, 4)
    gt = wild(params, [7, 3, 8, 5])
    path = save_release(gt, tmp_path)[0]
    back = load_pseudo_gt(path, annotations=False, cache=False)
    pixels = back.forward(regressor="human36m-17", want="joints").project().numpy()
    pixels[1, 4] = np.nan
    pixels[2] = np.nan
    order = [2, 0, 1, 3]
    samples = samples_of(pixels[order] + [3, 4], [8, 7, 3, 99])
    errors = joint_errors(back, samples)
    assert errors.rows.tolist() == [[2, 0], [0, 1], [1, 2]]
    assert errors.missing == 1
    assert np.isnan(errors.reprojection[0])  # no joint is annotated
    np.testing.assert_allclose(errors.reprojection[1:], 5, atol=1e-3)
    box, _ = process_boxes(samples.box_xywh[0], (400, 400))
    assert box[2] == box[3] == pytest.approx(199 * 1.25)
    np.testing.assert_allclose(errors.percent[1:], 500 / box[3], atol=1e-3)
    assert np.isnan(errors.mpjpe).all()
    assert errors.joints == JOINT_SETS["human36m-17"].joints
    assert errors.means["reprojection"] == pytest.approx(5, abs=1e-3)
    assert str(errors).splitlines()[0] == "3 annotations, 1 samples without one; 17 joints"
    unknown = samples_of(pixels[order] + [3, 4], [8, 7, 3, 99], image_size=np.zeros((4, 2), int))
    np.testing.assert_allclose(joint_errors(back, unknown).percent, errors.percent)


def test_hands_of_both_sides() -> None:
    rng = np.random.default_rng(6)
    params, side = people(rng, 4, "mano"), np.array(["right", "left", "left", "right"])
    gt = wild(params, [1, 1, 2, 3], side=side)
    pixels = gt.forward(regressor="interhand-21", want="joints").project().numpy()
    more = {"joint_set": JOINT_SETS["interhand-21-right"], "side": gt.side}
    errors = joint_errors(gt, samples_of(pixels, gt.ids, **more))
    assert errors.reprojection.max() < 0.01
    swapped = np.where(gt.side == "left", "right", "left")
    errors = joint_errors(gt, samples_of(pixels, gt.ids, **(more | {"side": swapped})))
    assert (len(errors), errors.missing) == (2, 2)
    with pytest.raises(ValueError, match=r"^mscoco-mano holds hands, the samples of MPII have no sides$"):
        joint_errors(gt, samples_of(pixels, gt.ids, more["joint_set"]))


def test_mocap_frames_in_their_cameras() -> None:
    """World-space fits keyed by frame, seen by two cameras each; 3D errors as they are and root-aligned."""
    rng = np.random.default_rng(7)
    params = people(rng, 2)
    keys = np.array([[1, 1, 0], [1, 1, 9]])
    gt = pseudo_gt_of("mpi-inf-3dhp-smpl", params, keys=keys)
    joint_set = JOINT_SETS["human36m-17"]
    world = pose_joints("smpl", params, joint_set)[[0, 0, 1, 1]]
    R = Rotation.from_rotvec(rng.normal(0, 0.05, (4, 3))).as_matrix()
    camera = Camera(np.full((4, 2), 1000.0), np.full((4, 2), 500.0), R, rng.normal(0, 0.1, (4, 3)))
    here = camera.world_to_camera(world)
    pixels = camera.project(here)
    here[:, 3] = np.nan
    here[:, :, 0] += 0.02
    more = {"joints_cam": here, "camera": camera, "keys": keys[[0, 0, 1, 1]], "data_set": "MPI-INF-3DHP"}
    errors = joint_errors(gt, samples_of(pixels, range(4), joint_set, **more))
    assert errors.rows[:, 0].tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(errors.mpjpe, 20, atol=1e-3)
    assert errors.mpjpe_root.max() < 5e-3
    assert errors.reprojection.max() < 0.01
    assert "3D joints, mm" in str(errors)
    with pytest.raises(ValueError, match=r"have keys of 1 numbers; load with annotations=$"):
        joint_errors(gt, samples_of(pixels, range(4), joint_set))
    no_camera = samples_of(pixels, range(4), joint_set, keys=keys[[0, 0, 1, 1]])
    with pytest.raises(
        ValueError, match=r"neither the world-space fits of mpi-inf-3dhp-smpl nor the samples of MPII have"
    ):
        joint_errors(gt, no_camera)


def test_behind_the_camera_is_no_small_error() -> None:
    params = people(np.random.default_rng(8), 1)
    params["transl"][:, 2] = -5
    errors = joint_errors(wild(params, [1]), samples_of(np.zeros((1, 17, 2)), [1]))
    assert np.isinf(errors.reprojection).all()
    assert np.isinf(errors.means["percent"])
    assert "inf" in str(errors)
