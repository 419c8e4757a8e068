"""Refining a network's estimates by damped least squares, and fitting without a network."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from training_runs import _KEPT, a_run, studio

from neuralannot import load_pseudo_gt
from neuralannot.quality import measure_quality
from neuralannot.train.annotate import _stamp as stamp_of
from neuralannot.train.annotate import annotate
from neuralannot.train.config import PRESETS, config_with
from neuralannot.train.distributed import World
from neuralannot.train.evaluation import annotation_errors
from neuralannot.train.fit import fit
from neuralannot.train.fitting.gaussians import learn_gaussians, open_gaussian
from neuralannot.train.method_options import CAMERAS, MethodOptions, RefineOptions, SmplifyOptions
from neuralannot.train.optimisation import Optimisation
from neuralannot.train.refinement import Refinement, prepare_refinement
from neuralannot.train.run import Machinery, TrainingData, build_machinery, read_data
from neuralannot.train.sequences import neighbours

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
KNOWN = RefineOptions(noise=0.001, adapt=False)  # what is measured takes longer than a fit
ALONE = World(0, 1, torch.device("cpu"))


@functools.cache
def trained(layout: str, name: str | None = None, **changes: Any) -> Path:
    """The checkpoint of a network that has seen its data once, if that."""
    changes = {"inputs": "joints", "max_steps": 1} | changes
    made = tempfile.TemporaryDirectory(prefix="run-")
    _KEPT.append(made)
    return fit(a_run(layout, name, **changes), made.name).checkpoint


@functools.cache
def mocap(layout: str = "human36m", preset: str = "human36m-smpl", **options: Any) -> Any:
    """Data and body without a network, of a studio."""
    folder = studio(layout, **options)
    config = config_with(PRESETS[preset], {"data": [str(folder)], "every": 1, "inputs": "joints"})
    data = read_data(config, folder / "crops", ALONE)
    return data, build_machinery(config, data.joint_sets, ALONE.device, pretrained=False)


def of(files, **options):
    return load_pseudo_gt([str(path) for path in files], annotations=False, **options)


def truth_of(folder: Path, pattern: str):
    return of(sorted((folder / "truth").glob(pattern)))


# --- with a network


def test_refined_annotations_fit_the_joints_and_the_truth_better_than_the_network(tmp_path):
    checkpoint = trained("human36m")
    found = {m: annotate(checkpoint, tmp_path / m, method=m) for m in ("network", "refined")}
    assert found["refined"].count == found["network"].count > 0
    assert found["refined"].error < 0.002 < 0.05 < found["network"].error
    truth = truth_of(studio("human36m"), "Human36M_subject[15678]_*.json")
    errors = {m: annotation_errors(of(result.files), truth).means for m, result in found.items()}
    assert errors["refined"]["mpvpe"] < 0.3 * errors["network"]["mpvpe"]
    # The default is the better one.
    assert annotate(checkpoint, tmp_path / "refined").files == found["refined"].files


@pytest.mark.slow
def test_all_frames_of_a_person_have_one_shape_unless_each_shall_have_its_own(tmp_path):
    folder = studio("human36m", count=32)
    kept = {"method": "fitted", "data": [str(folder)], "every": 1}
    for refine, shared in ((RefineOptions(), True), (RefineOptions(share_shape=False), False)):
        made = annotate("human36m-smpl", tmp_path / str(shared), options=MethodOptions(refine=refine), **kept)
        gt = of(made.files)
        subjects = np.array([key[0] for key in gt.keys])
        frames = np.bincount(subjects)
        assert frames.max() > 1
        shapes = {s: len(np.unique(gt.params["betas"][subjects == s], axis=0)) for s in set(subjects)}
        assert all((count == 1) == (shared or frames[s] == 1) for s, count in shapes.items())


def test_near_keeps_the_network_s_rotations():
    checkpoint = trained("human36m")
    gts = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, refine in (
            ("none", RefineOptions()),
            ("near", RefineOptions(near=0.01)),
            ("far", RefineOptions(near=9.0)),
        ):
            gts[name] = of(
                annotate(
                    checkpoint, Path(folder) / name, options=MethodOptions(refine=refine), views="best"
                ).files
            )
        said = of(annotate(checkpoint, Path(folder) / "network", method="network").files)

    def apart(one, other):
        return np.abs(one.params["body_pose"] - other.params["body_pose"]).mean()

    # Of a frame's views another may be the best one; rotations do not differ between the tiny network's.
    assert apart(gts["near"], said) < 0.5 * apart(gts["none"], said)
    assert apart(gts["far"], gts["none"]) < 0.05


@pytest.mark.slow
def test_refining_in_the_wild_brings_the_joints_onto_the_keypoints(tmp_path):
    for layout, name in (("mscoco", "tiny-mscoco-smpl"), ("mscoco", "tiny-mscoco-mano")):
        checkpoint = trained(layout, name)
        found = {m: annotate(checkpoint, tmp_path / name / m, method=m) for m in ("network", "refined")}
        assert not found["refined"].is_mocap
        assert found["refined"].error < 0.3 * found["network"].error
        before, after = (of(found[m].files) for m in ("network", "refined"))
        np.testing.assert_array_equal(before.ids, after.ids)
        assert (after.params["transl"][:, 2] > 0.5).all()  # in front of its camera


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("tiny-mscoco-smpl", "person_keypoints_train2017.json"),
        ("tiny-mscoco-mano", "coco_wholebody_train_v1.0.json"),
    ],
)
def test_files_have_the_cameras_that_pictures_were_fitted_through(tmp_path, name, file):
    """Whoever projects the written parameters through the written cameras sees the error that was said."""
    folder = studio("mscoco")
    for camera in CAMERAS:
        options = MethodOptions(refine=replace(KNOWN, noise=1.0, camera=camera))
        made = annotate(trained("mscoco", name), tmp_path / camera, options=options)
        gt = load_pseudo_gt(str(made.files[0]), annotations=str(folder / "annotations" / file))
        shown = measure_quality(gt, prior="none")["reprojection_percent"]
        np.testing.assert_allclose(np.mean(shown) / 100 * 256, made.error, rtol=2e-3)
        assert gt.camera is not None
        if camera == "image":
            np.testing.assert_allclose(gt.camera.focal, np.hypot(160, 160), rtol=1e-5)
            np.testing.assert_allclose(gt.camera.princpt, 80, atol=0.01)
        else:
            assert (np.abs(gt.camera.focal - np.hypot(160, 160)) > 10).all()


def test_faces_keep_their_expression_among_what_is_refined(tmp_path):
    checkpoint = trained("ffhq")
    found = {m: annotate(checkpoint, tmp_path / m, method=m) for m in ("network", "refined")}
    assert found["refined"].error < 0.5 * found["network"].error
    assert np.abs(of(found["refined"].files).params["expression"]).max() > 0.05


def test_other_options_do_not_take_the_parts_of_these(tmp_path):
    checkpoint = trained("interhand26m")
    first = annotate(checkpoint, tmp_path)
    before = first.files[0].read_bytes()
    parts = {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").iterdir()}
    other = annotate(checkpoint, tmp_path, options=MethodOptions(refine=RefineOptions(noise=0.05)))
    assert other.files[0].read_bytes() != before
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").iterdir()} == parts  # the network's are
    again = annotate(checkpoint, tmp_path)
    assert again.files[0].read_bytes() == before


# --- without one


def test_least_squares_alone_need_no_checkpoint_and_no_image(tmp_path):
    folder = studio("human36m")
    made = annotate(
        "human36m-smpl", tmp_path, method="fitted", data=[str(folder)], images=["nowhere"], every=1
    )
    assert made.error < 0.002
    errors = annotation_errors(of(made.files), truth_of(folder, "Human36M_subject[15678]_*.json"))
    assert errors.means["mpvpe"] < 25
    with pytest.raises(
        ValueError, match="method must be one of refined, network, fitted, smplify, spin, eft, got 'best'"
    ):
        annotate("human36m-smpl", tmp_path, method="best")


@pytest.mark.parametrize(
    ("noise_mm", "low", "high"), [(0.0, 1.0, 2.0), (10.0, 8.0, 12.0), (30.0, 25.0, 34.0)]
)
def test_the_noise_of_the_joints_is_measured(noise_mm, low, high):
    data, machinery = mocap(count=32)
    joints = data.targets.joints_cam
    off = torch.randn(joints.shape, generator=torch.Generator().manual_seed(0)) * noise_mm / 1000
    noisy = replace(data, targets=replace(data.targets, joints_cam=joints + off))
    rows = np.flatnonzero(data.usable)
    found = prepare_refinement(machinery, noisy, rows, None, RefineOptions(share_shape=False))
    assert low <= 1000 * found.shared.noise <= high


def test_noise_that_is_said_is_not_measured():
    data, machinery = mocap(count=32)
    options = RefineOptions(noise=0.004, share_shape=False)
    assert (
        prepare_refinement(machinery, data, np.flatnonzero(data.usable), None, options).shared.noise == 0.004
    )


def with_persons(data: TrainingData, person: np.ndarray | None) -> TrainingData:
    return replace(data, samples=(replace(data.samples[0], person=person),))


def test_persons_that_are_not_known_or_seen_once_have_their_own_shapes():
    data, machinery = mocap(count=32)
    rows = np.flatnonzero(data.usable)[:12]
    person = np.full(len(data.samples[0]), -1)
    person[rows[:6]], person[rows[6]] = 7, 9
    refinement = prepare_refinement(machinery, with_persons(data, person), rows, None, KNOWN)
    found = refinement(rows)
    assert (
        refinement.shared.of[rows] == [*[refinement.shared.of[rows[0]]] * 6, *[-1] * (len(rows) - 6)]
    ).all()
    shapes = found["betas"]
    assert (shapes[:6] == shapes[0]).all()
    assert len(np.unique(shapes[5:], axis=0)) == len(rows) - 5
    unknown = prepare_refinement(machinery, with_persons(data, None), rows, None, KNOWN)
    assert len(unknown.shared.shapes) == 0
    assert refinement.digest != unknown.digest


def test_a_shape_is_of_all_of_a_persons_frames():
    """Whichever of them comes first; and none of them alone would give it."""
    data, machinery = mocap(count=32)
    rows = np.flatnonzero(data.usable)[:8]
    one = with_persons(data, np.zeros(len(data.samples[0]), np.int64))
    joints = data.targets.joints_cam
    off = 0.02 * torch.randn(joints.shape, generator=torch.Generator().manual_seed(1))
    one = replace(one, targets=replace(one.targets, joints_cam=joints + off))
    known = RefineOptions(noise=0.02)
    shape, turned = (
        prepare_refinement(machinery, one, r, None, known).shared.shapes[0] for r in (rows, rows[::-1].copy())
    )
    torch.testing.assert_close(shape, turned, rtol=0, atol=0.02)
    own = prepare_refinement(machinery, one, rows, None, replace(known, share_shape=False))(rows)["betas"]
    assert np.abs(own - shape.numpy()).max(axis=1).min() > 0.1


def test_a_joint_that_is_far_off_does_not_pull_the_others():
    data, machinery = mocap(count=32)
    rows = np.flatnonzero(data.usable)[:6]
    joints = data.targets.joints_cam.clone()
    wrist = data.samples[0].joint_set.index("left_wrist")
    joints[torch.from_numpy(rows), wrist] += torch.tensor([0.0, 0.0, 1.5])
    wrong = replace(data, targets=replace(data.targets, joints_cam=joints))
    found = prepare_refinement(machinery, wrong, rows, None, replace(KNOWN, share_shape=False))(rows)
    with torch.no_grad():
        posed = machinery.points(**{n: torch.tensor(v) for n, v in found.items() if n != "error"})
    distance = (posed - data.targets.joints_cam[torch.from_numpy(rows)]).norm(dim=2)
    others = np.delete(distance.numpy(), wrist, axis=1)
    assert others.mean() < 0.01


def test_rows_alone_are_as_among_others():
    data, machinery = mocap(count=32)
    rows = np.flatnonzero(data.usable)
    refinement = prepare_refinement(machinery, data, rows, None, KNOWN)
    together, alone = refinement(rows[:8]), refinement(rows[3:4])
    for name, value in alone.items():
        np.testing.assert_allclose(value[0], together[name][3], atol=2e-4)
    assert refinement(rows[:0]) == {}


def hidden(machinery: Machinery, data: TrainingData, rows: np.ndarray) -> TrainingData:
    valid = data.targets.valid_cam.clone()
    valid[torch.from_numpy(rows)] = False
    return replace(data, targets=replace(data.targets, valid_cam=valid))


def test_rows_without_a_joint_stay_as_they_were_and_say_so():
    data, machinery = mocap(count=32)
    rows = np.flatnonzero(data.usable)[:6]
    blind = hidden(machinery, data, rows[:2])
    given = prepare_refinement(machinery, data, rows, None, KNOWN)(rows)
    given["error"][:2] = np.nan  # as a network's that could not be placed
    refined = prepare_refinement(machinery, blind, rows, given, KNOWN)(rows, given)
    for name, value in refined.items():
        np.testing.assert_array_equal(value[:2], given[name][:2])
    assert np.isnan(refined["error"][:2]).all()
    assert np.isfinite(refined["error"][2:]).all()
    # Nobody told where these are: not zero, and not a number.
    fitted = prepare_refinement(machinery, blind, rows, None, KNOWN)(rows)
    assert np.isnan(fitted["error"][:2]).all()


def test_smplx_bodies_without_a_network_have_no_face(tmp_path):
    folder = studio("human36m", model="smplx")
    made = annotate(
        "human36m-smplx",
        tmp_path,
        method="fitted",
        options=MethodOptions(refine=KNOWN),
        data=[str(folder)],
        every=1,
    )
    gt = of(made.files)
    assert made.error < 0.002
    assert not gt.valid["face"].any()
    assert not gt.params["expression"].any()
    errors = annotation_errors(gt, truth_of(folder, "*_SMPLX_*.json"), regressor="human36m-17")
    assert errors.means["mpvpe"] < 25


def test_faces_have_each_their_own_codes_whoever_they_are():
    """What all frames of a person share is a shape; of a face codes are its expression too."""
    data, machinery = mocap("ffhq", "ffhq-flame")
    rows = np.flatnonzero(data.usable)[:4]
    known = with_persons(data, np.zeros(len(data.samples[0]), np.int64))
    zero = {
        name: np.zeros((len(rows), size), np.float32)
        for name, size in (("global_orient", 3), ("jaw_pose", 3), ("betas", 10), ("expression", 10))
    }
    start = {
        **zero,
        "transl": np.tile(np.float32([0, 0, 6]), (len(rows), 1)),
        "error": np.full(len(rows), 50, np.float32),
    }
    refinement = prepare_refinement(machinery, known, rows, start, RefineOptions(noise=1.0))
    found = refinement(rows, start)
    assert (refinement.shared.of == -1).all()
    assert len(np.unique(found["expression"], axis=0)) == len(rows)
    assert (found["error"] < 10).all()


def test_fits_of_smplx_bodies_have_nothing_in_their_faces():
    data, machinery = mocap("human36m", "human36m-smplx", model="smplx")
    rows = np.flatnonzero(data.usable)[:4]
    start = prepare_refinement(machinery, data, rows, None, KNOWN)(rows)
    assert "expression" not in start
    # No part of the fit is in what is not written.
    posed = machinery.points(**{n: torch.tensor(v) for n, v in start.items() if n != "error"})
    targets = data.targets.rows(torch.from_numpy(rows))
    distance = (posed - targets.joints_cam).norm(dim=2)[:, machinery.points.known]
    np.testing.assert_allclose(distance.mean(1), start["error"], atol=1e-6)


def test_joints_of_which_nothing_is_believed_leave_the_likeliest_body():
    data, machinery = mocap(count=32)
    rows = np.flatnonzero(data.usable)[:4]
    options = RefineOptions(noise=50.0, share_shape=False)
    refinement = prepare_refinement(machinery, data, rows, None, options)
    assert np.abs(refinement(rows)["betas"]).max() < 0.01
    mean = refinement.shared.prior.means[0].numpy().reshape(-1, 3)
    np.testing.assert_allclose(refinement(rows)["body_pose"][:, :21], np.tile(mean, (4, 1, 1)), atol=0.05)


def test_what_was_prepared_is_taken_and_not_prepared_again(tmp_path, monkeypatch):
    data, machinery = mocap(count=32)
    rows = np.flatnonzero(data.usable)[:12]
    one = prepare_refinement(machinery, data, rows, None, KNOWN)
    other = Refinement(machinery, data, KNOWN)
    assert other.digest != one.digest
    assert other.digest != Refinement(machinery, data, replace(KNOWN, near=0.1)).digest
    other.take(one.prepared)
    assert other.digest == one.digest
    for name, value in one(rows).items():
        np.testing.assert_array_equal(other(rows)[name], value)
    # So does a run that goes on; other options are prepared anew.
    kept = {"method": "fitted", "data": [str(studio("human36m"))], "every": 1}
    first = annotate("human36m-smpl", tmp_path, options=MethodOptions(refine=KNOWN), **kept)
    before = first.files[0].read_bytes()

    def never(*_):
        raise AssertionError("prepared again")

    with monkeypatch.context() as patch:
        patch.setattr(Refinement, "prepare", never)
        assert (
            annotate("human36m-smpl", tmp_path, options=MethodOptions(refine=KNOWN), **kept)
            .files[0]
            .read_bytes()
            == before
        )
        with pytest.raises(AssertionError, match="prepared again"):
            annotate(
                "human36m-smpl", tmp_path, options=MethodOptions(refine=RefineOptions(noise=0.02)), **kept
            )


def test_options_that_a_method_has_no_use_of_are_refused(tmp_path):
    with pytest.raises(ValueError, match="near is for rotations near the network's; fitted has no network"):
        annotate(
            "human36m-smpl", tmp_path, method="fitted", options=MethodOptions(refine=RefineOptions(near=0.1))
        )
    with pytest.raises(ValueError, match="the method network refines nothing"):
        annotate("x.pt", tmp_path, method="network", options=MethodOptions(refine=KNOWN))
    data, machinery = mocap(count=32)
    with pytest.raises(ValueError, match="one data set is refined at a time, got 2"):
        prepare_refinement(machinery, replace(data, samples=data.samples * 2), np.arange(2), None)


def test_a_folder_of_a_preset_s_name_is_no_checkpoint(tmp_path, monkeypatch):
    """As `make studio` leaves one."""
    monkeypatch.chdir(tmp_path)
    Path("human36m-smpl").mkdir()
    kept = {"method": "fitted", "data": [str(studio("human36m"))], "every": 1}
    assert annotate("human36m-smpl", "out", options=MethodOptions(refine=KNOWN), **kept).count > 0


def test_noise_and_shapes_are_of_rows_that_say_something():
    """Neither estimates that are no numbers nor bodies with a few joints tell of the others."""
    data, machinery = mocap(count=32)
    rows = np.flatnonzero(data.usable)[:16]
    person = np.full(len(data.samples[0]), -1)
    person[rows[:4]], person[rows[4:8]], person[rows[8:]] = 0, 1, 2
    data = with_persons(data, person)
    start = prepare_refinement(machinery, data, rows, None, KNOWN)(rows)
    lost = {name: value.copy() for name, value in start.items()}
    for value in lost.values():
        value[:2] = np.nan
    found = prepare_refinement(machinery, data, rows, lost, RefineOptions())
    assert np.isfinite(found.shared.noise)
    assert found.shared.shapes.isfinite().all()
    refined = found(rows, lost)
    assert np.isfinite(refined["error"][2:]).all()
    # A person of whom two joints are seen in every frame has no shape to share.
    valid = data.targets.valid_cam.clone()
    valid[torch.from_numpy(rows[4:8]), 2:] = False
    few = replace(data, targets=replace(data.targets, valid_cam=valid))
    found = prepare_refinement(machinery, few, rows, None, KNOWN)
    assert (found.shared.of[rows[4:8]] == -1).all()
    assert (found.shared.of[rows[:4]] >= 0).all()
    assert np.isfinite(found(rows)["error"]).all()


@pytest.mark.parametrize("bad", [{"noise": 0.0}, {"noise": -1.0}, {"near": 0.0}])
def test_options_that_mean_nothing_are_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be positive"):
        RefineOptions(**bad)


# --- the data set's own poses


@functools.cache
def one_motion(missing: float = 0.3) -> tuple[TrainingData, Any, np.ndarray]:
    """Frames of one clip that the prior which ships has not seen, some joints hidden; the clean ones."""
    data, machinery = mocap(count=40, clips=("03_02",))
    clean = data.targets.joints_cam
    hidden_ones = torch.rand(clean.shape[:2], generator=torch.Generator().manual_seed(4)) < missing
    valid = data.targets.valid_cam & ~hidden_ones
    return replace(data, targets=replace(data.targets, valid_cam=valid)), machinery, clean.numpy()


@pytest.mark.slow
def test_a_data_set_s_own_poses_say_where_missing_joints_are():
    data, machinery, clean = one_motion()
    rows = np.flatnonzero(data.usable)
    off, priors = {}, {}
    for adapt in (False, True):
        refinement = prepare_refinement(machinery, data, rows, None, replace(KNOWN, adapt=adapt))
        found, priors[adapt] = refinement(rows), refinement.shared.prior
        given = {n: torch.tensor(v) for n, v in found.items() if n != "error"}
        with torch.no_grad():
            off[adapt] = np.linalg.norm(machinery.points(**given).numpy() - clean[rows], axis=2).mean()
    assert off[True] < 0.9 * off[False]
    assert priors[False].fingerprint == open_gaussian().fingerprint != priors[True].fingerprint
    # Too few samples tell nothing of a data set.
    few = prepare_refinement(machinery, data, rows[:20], None, replace(KNOWN, adapt=True))
    assert few.shared.prior.fingerprint == open_gaussian().fingerprint


def test_several_distributions_are_not_adapted():
    data, machinery, _ = one_motion()
    rows = np.flatnonzero(data.usable)
    two = learn_gaussians(np.random.default_rng(0).normal(0, 0.3, (200, 63)), count=2, rounds=3)
    with pytest.raises(ValueError, match="one distribution can be adapted, the prior has 2"):
        prepare_refinement(machinery, data, rows, None, replace(KNOWN, adapt=True), prior=two)
    assert prepare_refinement(machinery, data, rows, None, KNOWN, prior=two).shared.prior is not None


# --- pictures


@functools.cache
def pictured() -> tuple[TrainingData, Any, Any]:
    """Bodies of one clip in pictures, without a network; their true parameters."""
    folder = studio("mscoco", 16, clips=("03_02",))
    changes = {"data": [str(folder)], "inputs": "joints", "outputs": "rotation6d"}
    config = config_with(PRESETS["mscoco-smplx-body"], changes)
    data = read_data(config, folder / "crops", ALONE)
    machinery = build_machinery(config, data.joint_sets, ALONE.device, pretrained=False)
    return data, machinery, truth_of(folder, "*_SMPLX_*.json")


@pytest.mark.slow
def test_the_image_s_camera_shows_how_bodies_are_turned():
    data, machinery, truth = pictured()
    rows = np.flatnonzero(data.usable)
    at = {int(n): k for k, n in enumerate(truth.ids)}
    true = truth.params["global_orient"][[at[int(n)] for n in data.samples[0].ids[rows]]]
    off = {}
    for camera in CAMERAS:
        options = replace(KNOWN, noise=0.5, camera=camera)
        found = prepare_refinement(machinery, data, rows, None, options)(rows)
        assert np.nanmean(found["error"]) < 1
        turns = Rotation.from_rotvec(found["global_orient"]).inv() * Rotation.from_rotvec(true)
        off[camera] = np.median(turns.magnitude())
    assert off["image"] < 0.9 * off["crop"]


def test_what_changes_an_answer_changes_its_stamp():
    """Parts of an earlier run are not taken for those of other images' sizes or another prior."""
    data, machinery, _ = pictured()
    config = PRESETS["mscoco-smplx-body"]
    crops = data.crops[0]
    larger = replace(data, crops=(replace(crops, image_size=crops.image_size + 1),))
    assert stamp_of({}, config, data, machinery) != stamp_of({}, config, larger, machinery)
    one, other = (Optimisation(machinery, data, SmplifyOptions("tuned", camera="image")) for _ in range(2))
    assert one.stamp == other.stamp
    assert one.prior is not None
    next(one.prior.buffers()).add_(0.1)
    assert one.stamp != other.stamp
    assert other.stamp != Optimisation(machinery, data, SmplifyOptions("tuned")).stamp


def test_a_focal_length_that_is_said_is_the_file_s():
    data, machinery, _ = pictured()
    rows = np.flatnonzero(data.usable)[:3]
    options = replace(KNOWN, noise=0.5, focal=300.0)
    found = prepare_refinement(machinery, data, rows, None, options)(rows)
    np.testing.assert_allclose(found["focal"], 300, rtol=1e-5)
    np.testing.assert_allclose(found["princpt"], 80, atol=0.01)
    assert (found["error"] < 2).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"camera": "phone"}, "camera must be one of image, crop, got 'phone'"),
        ({"camera": "crop", "focal": 500.0}, "the camera 'crop' has its own"),
        ({"focal": -1.0}, "focal must be positive"),
    ],
)
def test_cameras_that_there_are_not_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RefineOptions(**options)


# --- consecutive frames


@functools.cache
def walk(noise: float = 0.0, missing: float = 0.0) -> tuple[TrainingData, Any, dict[str, np.ndarray]]:
    """The sample's walk of one camera, its joints with noise or some of them hidden; the clean joints."""
    import neuralannot

    folder = Path(neuralannot.__file__).parent / "sample" / "human36m"
    changes = {"data": [str(folder)], "subjects": [1], "only_views": [1], "every": 1, "inputs": "joints"}
    config = config_with(PRESETS["human36m-smpl"], changes)
    data = read_data(config, folder, ALONE)
    clean = data.targets.joints_cam.clone()
    made = torch.Generator().manual_seed(3)
    given = clean + noise * torch.randn(clean.shape, generator=made)
    valid = data.targets.valid_cam & (torch.rand(clean.shape[:2], generator=made) >= missing)
    data = replace(data, targets=replace(data.targets, joints_cam=given, valid_cam=valid))
    return data, build_machinery(config, data.joint_sets, ALONE.device, pretrained=False), clean.numpy()


def off_by(options: RefineOptions, **conditions: float) -> float:
    data, machinery, clean = walk(**conditions)
    rows = np.flatnonzero(data.usable)
    found = prepare_refinement(machinery, data, rows, None, options)(rows)
    given = {name: torch.tensor(value) for name, value in found.items() if name != "error"}
    with torch.no_grad():
        off = machinery.points(**given).numpy() - clean[rows]
    return float(np.linalg.norm(off - off[:, :1], axis=2).mean())  # about the pelvis


def test_frames_before_and_after_say_where_missing_and_noisy_joints_are():
    for conditions, least in (({"missing": 0.3}, 0.6), ({"noise": 0.02}, 1.0)):
        alone = off_by(RefineOptions(noise=max(conditions.get("noise", 0), 0.001)), **conditions)
        smooth = off_by(RefineOptions(noise=max(conditions.get("noise", 0), 0.001), smooth=0.1), **conditions)
        assert smooth < least * alone


def test_neighbours_are_the_frames_before_and_after_of_one_camera():
    data, _, _ = walk()
    samples = data.samples[0]
    rows = np.random.default_rng(0).permutation(len(samples))
    frames = samples.keys[rows][:, -1]
    found = neighbours(samples, rows)
    assert (frames[found[found[:, 0] >= 0, 0]] == frames[found[:, 0] >= 0] - 5).all()
    assert (frames[found[found[:, 1] >= 0, 1]] == frames[found[:, 1] >= 0] + 5).all()
    assert (found < 0).sum() == 2  # the first and the last
    gapped = neighbours(samples, np.array([0, 1, 2, 4, 5]))
    assert gapped.tolist() == [[-1, 1], [0, 2], [1, -1], [-1, 4], [3, -1]]
    assert neighbours(samples, np.zeros(0, np.int64)).shape == (0, 2)


def test_other_cameras_and_annotation_ids_are_no_neighbours():
    data, _ = mocap(count=48)
    samples = data.samples[0]
    found = neighbours(samples, np.arange(len(samples)))
    for row, (before, after) in enumerate(found):
        for other in (before, after):
            if other >= 0:
                assert Path(samples.image_path[other]).parent == Path(samples.image_path[row]).parent
                assert (samples.keys[other][:-1] == samples.keys[row][:-1]).all()
    by_id = replace(samples, keys=samples.ids[:, None])
    assert (neighbours(by_id, np.arange(len(samples))) == -1).all()


# --- what a network adds


@functools.cache
def known_walk() -> dict[str, np.ndarray]:
    """The walk's bodies as a good network may say them: from clean joints, shaken by some millimetres."""
    data, machinery, _ = walk()
    rows = np.flatnonzero(data.usable)
    found = prepare_refinement(machinery, data, rows, None, RefineOptions(noise=0.001))(rows)
    shaken = np.random.default_rng(0).normal(0, 0.02, found["body_pose"].shape)
    return {**found, "body_pose": (found["body_pose"] + shaken).astype(np.float32)}


@pytest.mark.parametrize(("conditions", "least"), [({"missing": 0.4}, 0.5), ({"noise": 0.02}, 0.9)])
def test_a_network_says_where_missing_joints_are_and_is_a_second_measurement_of_noisy_ones(conditions, least):
    data, machinery, clean = walk(**conditions)
    rows = np.flatnonzero(data.usable)
    options = RefineOptions(noise=max(conditions.get("noise", 0), 0.001))
    error = {}
    for name, start in (("none", None), ("network", known_walk())):
        found = prepare_refinement(machinery, data, rows, start, options)(rows, start)
        given = {n: torch.tensor(v) for n, v in found.items() if n != "error"}
        with torch.no_grad():
            error[name] = np.linalg.norm(machinery.points(**given).numpy() - clean[rows], axis=2).mean()
    assert error["network"] < least * error["none"]


def test_a_network_far_off_is_no_worse_than_none():
    data, machinery, clean = walk(missing=0.3)
    rows = np.flatnonzero(data.usable)
    wrong = known_walk()
    turned = np.random.default_rng(1).normal(0, 1.0, wrong["body_pose"].shape)
    wrong = {**wrong, "body_pose": turned.astype(np.float32), "error": wrong["error"] + 0.5}
    options = RefineOptions(noise=0.001)
    seen = data.targets.valid_cam[rows].numpy()
    for start in (None, wrong):
        found = prepare_refinement(machinery, data, rows, start, options)(rows, start)
        given = {n: torch.tensor(v) for n, v in found.items() if n != "error"}
        with torch.no_grad():
            off = np.linalg.norm(machinery.points(**given).numpy() - clean[rows], axis=2)
        assert off[seen].mean() < 0.005


def test_clean_joints_need_no_second_opinion():
    data, machinery, _ = walk()
    rows = np.flatnonzero(data.usable)
    said, options = known_walk(), RefineOptions(noise=0.001)
    refined = prepare_refinement(machinery, data, rows, said, options)(rows, said)
    fitted = prepare_refinement(machinery, data, rows, None, options)(rows)
    np.testing.assert_allclose(refined["error"], fitted["error"], atol=3e-4)
