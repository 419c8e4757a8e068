"""SMPL annotations against truths of SMPL-X and the reverse: by their meshes, in SMPL's topology."""

from __future__ import annotations

import csv
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from test_evaluate import refused, run  # noqa: F401  (a fixture)
from test_train_data_mocap import write_3dpw
from test_train_evaluation import people, procrustes, samples_of, wild
from training_runs import studio

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.body_models import load_body_model
from neuralannot.body_models.joints import JointRegressor, joint_regressor
from neuralannot.body_models.model import OPEN_FOLDER
from neuralannot.conversion import convert, vertices_as
from neuralannot.conversion.pairs import make_map
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.metrics import auc
from neuralannot.train.data import pw3d_truth
from neuralannot.train.evaluation import annotation_errors, evaluate
from neuralannot.train.evaluation.measured import visibility
from neuralannot.train.released import pseudo_gt_of, save_release

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


def whole_people(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    """SMPL-X parameters with hands and faces that are not at rest."""
    params = people(rng, count)
    params["body_pose"] = params["body_pose"][:, :21]
    for name, shape in (("left_hand_pose", (15, 3)), ("right_hand_pose", (15, 3)), ("jaw_pose", (3,))):
        params[name] = rng.normal(0, 0.3, (count, *shape)).astype(np.float32)
    params["expression"] = rng.normal(0, 1, (count, 10)).astype(np.float32)
    return params


def whole(params: dict[str, np.ndarray], ids: Any) -> PseudoGT:
    n = len(params["transl"])
    camera = {"focal": np.full((n, 2), 4000.0), "princpt": np.full((n, 2), 200.0)}
    return pseudo_gt_of("mpii-smplx", params, ids=np.array(ids, int), **camera)


def two_models(count: int = 4) -> tuple[PseudoGT, PseudoGT]:
    """The same people, a little differently: SMPL-X's, SMPL's."""
    rng = np.random.default_rng(0)
    params = whole_people(rng, count)
    other = {n: params[n] for n in ("global_orient", "betas", "transl")}
    body = np.concatenate([params["body_pose"], np.zeros((count, 2, 3), np.float32)], 1)
    other["body_pose"] = (body + rng.normal(0, 0.1, body.shape)).astype(np.float32)
    return whole(params, range(count)), wild(other, range(count))


def test_by_hand() -> None:
    """Five bodies' measures, each from its two meshes; and either of the two may be the truth."""
    gt, truth = two_models(5)
    errors = annotation_errors(gt, truth, batch_size=2)
    named = annotation_errors(gt, truth, regressor="coco-17")
    assert errors.joints == (
        "human36m-17, of both meshes in SMPL's topology; the skeletons' own are in no mesh"
    )
    assert named.joints == "coco-17, of both meshes in SMPL's topology"
    assert errors.joint_names == JOINT_SETS["human36m-17"].joints
    body = load_body_model("smpl")
    mine, true = vertices_as(gt.forward(), "smpl").double(), truth.forward().vertices.double()
    same = make_map("smplx", "smpl").same
    weights, coco = (
        torch.tensor(joint_regressor(n, body).weights, dtype=torch.float64)
        for n in ("human36m-17", "coco-17")
    )
    own = body.J_regressor[0].double()
    for row in range(5):
        a, b = mine[row], true[row]
        joints = [(weights @ m).numpy() for m in (a, b)]
        shift = joints[0][0] - joints[1][0]

        def distance(p, q):
            return 1000 * np.linalg.norm(np.asarray(p) - np.asarray(q), axis=1).mean()

        assert errors.root[row] == pytest.approx(1000 * np.linalg.norm(shift), abs=5e-3)
        assert errors.mpjpe[row] == pytest.approx(distance(joints[0] - shift, joints[1]), abs=5e-3)
        surfaces = [m.numpy()[same] for m in (a, b)]
        assert errors.mpvpe[row] == pytest.approx(distance(surfaces[0] - shift, surfaces[1]), abs=5e-3)
        assert errors.pa_mpvpe[row] == pytest.approx(procrustes(*surfaces), abs=1e-2)
        assert errors.pa_mpjpe[row] == pytest.approx(procrustes(*joints), abs=1e-2)
        area = auc(torch.tensor(surfaces[0] - shift)[None], torch.tensor(surfaces[1])[None], high=0.15)
        assert errors.auc["mpvpe"][row] == pytest.approx(float(area), abs=1e-3)
        # Without a pelvis among the joints bodies are aligned at SMPL's own, regressed.
        joints = [(coco @ m).numpy() for m in (a, b)]
        roots = [(own @ m).numpy() for m in (a, b)]
        assert named.mpjpe[row] == pytest.approx(
            distance(joints[0] - roots[0], joints[1] - roots[1]), abs=5e-3
        )
        assert named.mpvpe[row] == pytest.approx(
            distance(surfaces[0] - roots[0], surfaces[1] - roots[1]), abs=5e-3
        )
    assert errors.mpvpe.min() > 10
    back = annotation_errors(truth, gt)
    for name in ("mpjpe", "mpvpe", "root"):
        np.testing.assert_allclose(getattr(back, name), getattr(errors, name), rtol=1e-4, atol=1e-3)


def test_one_body_in_both_models_has_no_error() -> None:
    """At rest, of mean shape, SMPL's points are SMPL-X's: what is left is where the layers begin."""
    rng = np.random.default_rng(1)
    count = 3
    rest = {"global_orient": people(rng, count)["global_orient"], "betas": np.zeros((count, 10), np.float32)}
    rest["transl"] = people(rng, count)["transl"]
    flat = {
        **rest,
        "body_pose": np.zeros((count, 21, 3), np.float32),
        "left_hand_pose": np.zeros((count, 15, 3), np.float32),
        "right_hand_pose": np.zeros((count, 15, 3), np.float32),
        "jaw_pose": np.zeros((count, 3), np.float32),
        "expression": np.zeros((count, 10), np.float32),
    }
    hands = {}
    body = load_body_model("smplx")
    for side in ("left_hand_pose", "right_hand_pose"):  # straight, as SMPL's are
        joints = list(body.joints_of_parameters()[side])
        hands[side] = np.tile(-body.pose_mean[joints].numpy(), (count, 1, 1))
    gt = whole(flat | hands, range(count))
    truth = wild(rest | {"body_pose": np.zeros((count, 23, 3), np.float32)}, range(count))
    errors = annotation_errors(gt, truth)
    assert max(errors.mpvpe.max(), errors.mpjpe.max(), errors.pa_mpvpe.max()) < 0.02


def test_errors_of_converted_annotations_are_what_the_conversion_said() -> None:
    """A studio's SMPL-X bodies as SMPL's: the mean distance of shared vertices is `convert`'s own error, and
    aligning moves it by no more than the roots are apart."""
    folder = studio("human36m", model="smplx")
    gt = load_pseudo_gt(sorted((folder / "truth").glob("*_SMPLX_*.json")), annotations=False)
    found = convert(gt, to="smpl")
    truth = found.gt
    errors = annotation_errors(gt, truth)
    assert len(errors) == len(gt) > 0
    apart = vertices_as(gt.forward(space="world"), "smpl") - truth.forward(space="world").vertices
    same = torch.from_numpy(make_map("smplx", "smpl").same)
    np.testing.assert_allclose(apart[:, same].norm(dim=2).mean(1), found.error, atol=2e-6)
    rows = errors.rows[:, 0]
    assert (np.abs(errors.mpvpe - 1000 * found.error[rows]) <= errors.root + 1e-3).all()
    assert errors.root.max() < 1
    back = convert(truth, to="smplx")  # the reverse: of annotations in SMPL-X its shared vertices too
    errors = annotation_errors(truth, back.gt)
    assert (np.abs(errors.mpvpe - 1000 * back.error[errors.rows[:, 1]]) <= errors.root + 1e-3).all()


def test_visible_and_missing_joints_are_of_one_model() -> None:
    gt, truth = two_models(2)
    pixels = gt.forward(regressor="coco-17", want="joints").project().numpy()
    pixels[0, 3] = np.nan
    samples = samples_of(pixels, range(2), JOINT_SETS["coco-17"])
    found = evaluate(gt, truth=truth, samples=samples)
    assert [m.title for m in found.measured] == ["true parameters of smpl", "the joints of MPII"]
    with pytest.raises(
        ValueError, match=r"^the annotations are smplx's, the truth is smpl's; a set's joints"
    ):
        visibility(gt, truth, samples)


# --- official files: the open body under other names, with a matrix in the official layout


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for model in ("smpl", "smplx"):
        for file in (OPEN_FOLDER / model).iterdir():
            (folder / model).mkdir(exist_ok=True)
            for gender in ("NEUTRAL", "MALE", "FEMALE"):
                shutil.copy(file, folder / model / file.name.replace("NEUTRAL", gender))
    own = make_map("smplx", "smpl").matrix
    both = scipy.sparse.hstack([own, scipy.sparse.csr_matrix(own.shape)]).tocsc()
    (folder / "transfer").mkdir()
    path = folder / "transfer" / "smplx2smpl_deftrafo_setup.pkl"
    path.write_bytes(pickle.dumps({"mtx": both}, protocol=2))
    return folder


def test_official_bodies_need_a_regressor_and_the_matrices(official: Path, tmp_path: Path) -> None:
    gt, truth = two_models(2)
    weights = joint_regressor("human36m-17", load_body_model("smpl")).weights
    with pytest.raises(
        ValueError, match=r"no regressor ships for official bodies; pass regressor=, the data"
    ):
        annotation_errors(gt, truth, body_models=official)
    with pytest.raises(FileNotFoundError, match=r"smplx2smpl_deftrafo_setup.pkl not in .*Model corresponden"):
        annotation_errors(gt, truth, body_models=official, regressor=weights)
    with pytest.raises(ValueError, match=r"a regressor for smpl must be \(K, 6890\), got \(17, 10475\)"):
        annotation_errors(
            gt,
            truth,
            body_models=official,
            regressor=np.zeros((17, 10475)),
            transfer=official / "transfer",
        )
    options = {"body_models": official, "transfer": official / "transfer"}
    errors = annotation_errors(gt, truth, regressor=weights, **options)
    assert errors.joints == "regressed, of both meshes in SMPL's topology"
    # The names of the joints are not known, so the bodies are aligned at SMPL's own pelvis.
    names = tuple(f"joint_{k}" for k in range(17))
    here = annotation_errors(gt, truth, regressor=JointRegressor(weights, names, body="open"))
    for name in ("mpjpe", "mpvpe", "pa_mpvpe", "root"):
        np.testing.assert_allclose(getattr(errors, name), getattr(here, name), rtol=2e-3)
    found = evaluate(gt, truth=truth, regressor=weights, **options)
    assert found.measured[0].columns[0].values.tolist() == errors.mpvpe.tolist()


# --- the command


def rows_of(path: str) -> dict[tuple[str, str], dict[str, str]]:
    with open(path, newline="") as file:
        return {(r["table"], r["measure"]): r for r in csv.DictReader(file) if r["group"] == "all"}


def test_the_command_compares_smplx_with_smpl(run, tmp_path) -> None:  # noqa: F811
    """A studio's truth converted, as the truth of its own SMPL-X: by the name, or by what is said of it."""
    folder = studio("human36m", model="smplx")
    files = sorted((folder / "truth").glob("*_SMPLX_*.json"))[:2]
    gt = load_pseudo_gt(files, annotations=False)
    truth = save_release(convert(gt, to="smpl").gt, tmp_path / "true")
    wanted = annotation_errors(gt, load_pseudo_gt(truth, annotations=False)).means
    bare = ("evaluate", *files, "--no-annotations", "--by", "joint")
    status, out, err = run(*bare, "--truth", *truth, "--csv", "t.csv")
    assert status == 0, err
    assert "joints: human36m-17, of both meshes in SMPL's topology; the skeletons' own are in no mesh" in out
    found = rows_of("t.csv")
    for measure in ("MPVPE", "MPJPE", "PA-MPVPE"):
        mean = float(found["Against true parameters of smpl", measure]["mean"])
        assert mean == pytest.approx(wanted[measure.lower().replace("-", "_")], rel=1e-4)


def test_files_whose_names_say_nothing_have_their_releases_said(run, tmp_path) -> None:  # noqa: F811
    gt, truth = two_models(2)
    files = [save_release(g, tmp_path / n, name=f"{n}.json")[0] for n, g in (("mine", gt), ("true", truth))]
    given = ("evaluate", files[0], "--release", "mpii-smplx", "--no-annotations", "--truth", files[1])
    status, _, err = run(*given, "--truth-release", "mpii-smpl", "--csv", "t.csv")
    assert status == 0, err
    mean = float(rows_of("t.csv")["Against true parameters of smpl", "MPVPE"]["mean"])
    assert mean == pytest.approx(annotation_errors(gt, truth).means["mpvpe"], rel=1e-4)
    refused(run(*given), "true.json")


@pytest.fixture
def smplx_of_3dpw(tmp_path: Path) -> tuple[Any, ...]:
    """3DPW, and its truth as SMPL-X annotations 50 mm off."""
    write_3dpw(tmp_path)
    truth = pw3d_truth(tmp_path)
    n = len(truth)
    shifted = {**truth.parameters, "transl": truth.parameters["transl"] + np.float32([0.03, 0, 0.04])}
    camera = {"focal": np.full((n, 2), 1960.0), "princpt": np.full((n, 2), 500.0)}
    of_their_gender = pseudo_gt_of("mpii-smpl", shifted, ids=truth.ids, gender=truth.gender, **camera)
    gt = convert(of_their_gender, to="smplx").gt
    fits = save_release(gt, tmp_path / "fits", name="mine.json")
    given = ("evaluate", *fits, "--release", "mpii-smplx", "--no-annotations", "--split", "test")
    return (*given, "--data-set", "3dpw", "--data", tmp_path)


def test_3dpw_s_truth_compares_with_smplx(run, smplx_of_3dpw) -> None:  # noqa: F811
    status, out, err = run(*smplx_of_3dpw, "--csv", "t.csv", "--by", "joint")
    assert status == 0, err
    found = rows_of("t.csv")
    assert float(found["Against true parameters of smpl", "root error"]["mean"]) == pytest.approx(50, abs=0.5)
    assert float(found["Against true parameters of smpl", "MPVPE"]["mean"]) < 3
    assert "Against true parameters of smpl: 3 annotations, 0 missing" in out


def test_3dpw_without_what_official_bodies_need(run, smplx_of_3dpw, official) -> None:  # noqa: F811
    """What nobody asked for is left out with a warning; what was asked for is refused."""
    status, out, err = run(*smplx_of_3dpw, "--body-models", official)
    assert status == 0, err
    assert "3DPW's true parameters are left out: SMPL and SMPL-X are compared by their meshes" in err
    assert "Against the joints of 3DPW" in out
    assert "true parameters" not in out
    refused(
        run(*smplx_of_3dpw, "--body-models", official, "--transfer", official / "transfer"),
        "no regressor ships for official bodies",
    )
