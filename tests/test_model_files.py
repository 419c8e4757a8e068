"""Model files in every form that users have: found, read as smplx reads them, checked, converted."""

from __future__ import annotations

import contextlib
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from neuralannot.body_models.files import (
    ModelData,
    check_models,
    convert_model,
    find_model_file,
    read_model_file,
)
from neuralannot.safe_pickle import RefusedPickleError

SIZES = {
    "smpl": (6890, 24, 13776),
    "smplx": (10475, 55, 20908),
    "mano": (778, 16, 1538),
    "flame": (5023, 5, 9976),
}
COLUMNS = {"smpl": (10, 300), "smplx": (20, 400), "mano": (10,), "flame": (20, 400)}
NAMES = {"smpl": "SMPL_NEUTRAL", "smplx": "SMPLX_NEUTRAL", "mano": "MANO_RIGHT", "flame": "FLAME_NEUTRAL"}


def made_up(model: str, columns: int, dtype: str = "f4") -> dict:
    """A file's members: sizes and keys of the official ones, small random values."""
    rng = np.random.default_rng(columns)
    vertices, joints, faces = SIZES[model]

    def floats(*shape: int) -> np.ndarray:
        return rng.integers(-999, 999, shape, dtype=np.int16).astype(dtype) / np.array(7, dtype)

    regressor = np.zeros((joints, vertices), dtype)
    regressor[np.arange(joints), rng.integers(0, vertices, joints)] = 1
    parents = np.array([2**32 - 1, *(rng.integers(0, i) for i in range(1, joints))])
    members = {
        "v_template": floats(vertices, 3),
        "shapedirs": floats(vertices, 3, columns),
        "posedirs": floats(vertices, 3, 9 * (joints - 1)),
        "J_regressor": regressor,
        "weights": floats(vertices, joints),
        "kintree_table": np.stack([parents, np.arange(joints)]),
        "f": rng.integers(0, vertices, (faces, 3)).astype(np.uint32),
    }
    if model == "smplx":
        for hand in "lr":
            members[f"hands_mean{hand}"], members[f"hands_components{hand}"] = floats(45), floats(45, 45)
        members["lmk_faces_idx"] = rng.integers(0, faces, 51)
        members["lmk_bary_coords"] = floats(51, 3)
    if model == "mano":
        members["hands_mean"], members["hands_components"] = floats(45), floats(45, 45)
    return members


def embedding() -> dict:
    rng = np.random.default_rng(0)
    return {"lmk_face_idx": rng.integers(0, 9976, 51).astype(np.uint32), "lmk_b_coords": rng.random((51, 3))}


def write_pickle(path: Path, members: object, protocol: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(members, protocol))
    return path


def write_npz(path: Path, members: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **members)
    return path


def write_official(path: Path, members: dict) -> Path:
    """As the downloads are: shapedirs in chumpy, J_regressor sparse, under Python 2's module names."""
    chumpy, ch, reordering = (types.ModuleType(n) for n in ("chumpy", "chumpy.ch", "chumpy.reordering"))
    ch.Ch = type("Ch", (), {"__module__": "chumpy.ch"})
    reordering.Select = type("Select", (), {"__module__": "chumpy.reordering"})
    modules = {"chumpy": chumpy, "chumpy.ch": ch, "chumpy.reordering": reordering}
    array, select, template = ch.Ch(), reordering.Select(), ch.Ch()
    shapedirs = members["shapedirs"]
    array.x = np.concatenate([shapedirs, shapedirs[:, :, :1] + 1], 2)  # one column more than is selected
    array._dirty_vars = {"x"}
    select.a = array
    select.idxs = np.arange(array.x.size).reshape(array.x.shape)[:, :, :-1].ravel()
    select.preferred_shape = shapedirs.shape
    template.x = members["v_template"]
    official = {
        **members,
        "shapedirs": select,
        "v_template": template,
        "bs_type": "lrotmin",
        "bs_style": "lbs",
    }
    official["J_regressor"] = sparse.csc_matrix(members["J_regressor"])
    with contextlib.ExitStack() as stack:
        for name, module in modules.items():
            assert name not in sys.modules
            sys.modules[name] = module
            stack.callback(sys.modules.pop, name)
        write_pickle(path, official)
    data = path.read_bytes().replace(b"scipy.sparse._csc\n", b"scipy.sparse.csc\n")
    path.write_bytes(data.replace(b"numpy._core.", b"numpy.core."))
    return path


def assert_equal(got: ModelData, want: ModelData) -> None:
    def items(data: ModelData) -> dict[str, np.ndarray]:
        found = {name: value for name, value in vars(data).items() if isinstance(value, np.ndarray)}
        for name in ("hand_mean", "hand_components"):
            found |= {f"{name} {side}": value for side, value in getattr(data, name).items()}
        return found

    assert got.model == want.model
    assert items(got).keys() == items(want).keys()
    for name, array in items(got).items():
        assert array.dtype == items(want)[name].dtype
        np.testing.assert_array_equal(array, items(want)[name], err_msg=name)


def smplx_buffers(model: str, path: Path, members: dict) -> dict[str, np.ndarray]:
    """What smplx 0.1.28 makes of a file (of its members, where it reads pickles only)."""
    import smplx
    from smplx.utils import Struct

    if model == "smpl":
        layer = smplx.SMPL(path, data_struct=Struct(**members))
    elif model == "mano":
        layer = smplx.MANO(str(path), data_struct=Struct(**members), use_pca=True, num_pca_comps=44)
    elif model == "smplx":
        layer = smplx.SMPLX(path, ext=path.suffix[1:], use_pca=True, num_pca_comps=45)
    else:
        layer = smplx.FLAME(path.parent, ext=path.suffix[1:])
    return {name: buffer.numpy() for name, buffer in layer.named_buffers()}


def assert_as_in_smplx(data: ModelData, buffers: dict[str, np.ndarray]) -> None:
    want = {
        "v_template": data.v_template,
        "shapedirs": data.shapedirs,
        "posedirs": data.posedirs.reshape(len(data.v_template) * 3, -1).T,
        "J_regressor": data.J_regressor,
        "lbs_weights": data.weights,
        "parents": data.parents,
        "faces_tensor": data.faces,
        "expr_dirs": data.exprdirs,
        "lmk_faces_idx": data.lmk_faces_idx,
        "lmk_bary_coords": data.lmk_bary_coords,
    }
    want = {name: array for name, array in want.items() if array is not None}
    if data.model == "smplx":
        for side in ("left", "right"):
            want[f"{side}_hand_mean"] = data.hand_mean[side]
            want[f"{side}_hand_components"] = data.hand_components[side]
    if data.model == "mano":
        want["hand_mean"] = data.hand_mean["right"]
        want["hand_components"] = data.hand_components["right"][:44]
    assert set(buffers) - set(want) <= {"pose_mean", "vertex_joint_selector.extra_joints_idxs"}
    for name, array in want.items():
        assert buffers[name].dtype == array.dtype
        np.testing.assert_array_equal(array, buffers[name], err_msg=name)


# -- reading


@pytest.mark.parametrize(("model", "columns"), [(m, c) for m in COLUMNS for c in COLUMNS[m]])
def test_buffers_are_smplx_own(tmp_path, model, columns) -> None:
    members = made_up(model, columns)
    path = write_npz(tmp_path / model / f"{NAMES[model]}.npz", members)
    if model == "flame":
        write_pickle(path.parent / "flame_static_embedding.pkl", embedding())
    data = read_model_file(path, model)
    assert_as_in_smplx(data, smplx_buffers(model, path, members))
    assert data.source == path
    if data.exprdirs is not None:
        first = 300 if columns == 400 else 10
        np.testing.assert_array_equal(data.exprdirs, members["shapedirs"][:, :, first : first + 10])


@pytest.mark.parametrize("model", ["smpl", "mano", "flame"])
def test_every_form_gives_the_same_arrays(tmp_path, model) -> None:
    columns = COLUMNS[model][-1] if model == "flame" else 10
    members = made_up(model, columns, "f8")
    name = NAMES[model]
    if model == "flame":
        for folder in "abcde":
            write_pickle(tmp_path / folder / "flame_static_embedding.pkl", embedding())
    want = read_model_file(write_npz(tmp_path / "a" / f"{name}.npz", members), model)
    assert {array.dtype for array in vars(want).values() if isinstance(array, np.ndarray)} <= {
        np.dtype("f4"),
        np.dtype("i8"),
    }
    single = {k: v.astype("f4") if v.dtype == "f8" else v for k, v in members.items()}
    fortran = {key: np.asfortranarray(value) for key, value in members.items()}
    forms = [
        write_official(tmp_path / "b" / f"{name}.pkl", members),
        write_pickle(tmp_path / "c" / f"{name}.pkl", single, 4),
        write_pickle(tmp_path / "d" / f"{name}.pkl", {key.encode(): v for key, v in members.items()}, 3),
        write_npz(tmp_path / "e" / f"{name}.npz", {**fortran, "joint2num": np.array({"Pelvis": 0})}),
        convert_model(tmp_path / "b" / f"{name}.pkl", tmp_path / "e" / f"{name}_of_b.npz"),
    ]
    for path in forms:
        assert_equal(read_model_file(path, model), want)


def test_half_floats_are_widened(tmp_path) -> None:
    members = made_up("mano", 10)
    half = {k: v.astype("f2") if k in ("posedirs", "shapedirs") else v for k, v in members.items()}
    data = read_model_file(write_npz(tmp_path / "MANO_LEFT.npz", half), "mano")
    assert data.posedirs.dtype == np.float32
    np.testing.assert_array_equal(data.posedirs, half["posedirs"].astype("f4"))
    assert list(data.hand_mean) == list(data.hand_components) == ["left"]


def test_side_of_a_mano_file_is_in_its_name_or_given(tmp_path) -> None:
    path = write_npz(tmp_path / "hand.npz", made_up("mano", 10))
    assert list(read_model_file(path, "mano", side="left").hand_mean) == ["left"]
    with pytest.raises(
        ValueError, match=r"hand\.npz does not say left or right in its name; pass side='left'"
    ):
        read_model_file(path, "mano")


def test_flame_landmarks_beside_the_file_or_inside(tmp_path) -> None:
    members, beside = made_up("flame", 20), embedding()
    path = write_npz(tmp_path / "FLAME_NEUTRAL.npz", members)
    with pytest.raises(
        FileNotFoundError,
        match=r"flame_static_embedding\.pkl not in .*, and no lmk_faces_idx in FLAME_NEUTRAL.*flame\.is",
    ):
        read_model_file(path, "flame")
    inside = {"lmk_faces_idx": np.arange(51), "lmk_bary_coords": np.ones((51, 3))}
    write_npz(path, {**members, **inside})
    np.testing.assert_array_equal(read_model_file(path, "flame").lmk_faces_idx, np.arange(51))
    write_pickle(tmp_path / "FLAME_static_embedding.pkl", beside, 0)
    data = read_model_file(path, "flame")
    np.testing.assert_array_equal(data.lmk_faces_idx, beside["lmk_face_idx"])
    np.testing.assert_array_equal(data.lmk_bary_coords, beside["lmk_b_coords"].astype("f4"))


BAD = {
    "v_template": (lambda m: m["v_template"][:-1], r"v_template must be \(778, 3\), got \(777, 3\)"),
    "shapedirs": (lambda m: m["shapedirs"][:, :, 0], r"shapedirs must be \(778, 3, any\), got \(778, 3\)"),
    "shapedirs columns": (
        lambda m: m["shapedirs"][:, :, :9],
        "shapedirs must have at least 10 columns, got 9",
    ),
    "posedirs": (lambda m: m["posedirs"][:, :, 1:], r"posedirs must be \(778, 3, 135\), got \(778, 3, 134\)"),
    "J_regressor": (
        lambda m: np.array(sparse.csc_matrix(m["J_regressor"][1:]), object),
        r"J_regressor must be \(16, 778\), got \(15, 778\)",
    ),
    "weights": (lambda m: m["weights"].T, r"weights must be \(778, 16\), got \(16, 778\)"),
    "weights text": (lambda m: m["weights"].astype("U3"), "weights must hold numbers, got <U3"),
    "weights NaN": (lambda m: m["weights"] * np.nan, "weights holds values that are not finite"),
    "weights inf": (lambda m: m["weights"] + 1e300, "weights holds values that are not finite in float32"),
    "f": (lambda m: m["f"][:-1], r"f must be \(1538, 3\), got \(1537, 3\)"),
    "f range": (lambda m: m["f"] + 1, r"f must lie in 0\.\.777, got"),
    "f fractions": (lambda m: m["f"] + 0.5, "f must hold whole numbers"),
    "kintree_table": (lambda m: m["kintree_table"][:1], r"kintree_table must be \(2, 16\), got \(1, 16\)"),
    "kintree_table order": (
        lambda m: m["kintree_table"][:, ::-1],
        "kintree_table must name an earlier joint as every joint's parent",
    ),
    "hands_mean": (lambda m: m["hands_mean"][:6], r"hands_mean must be \(45\), got \(6,\)"),
    "hands_components": (
        lambda m: m["hands_components"][:6],
        r"hands_components must be \(45, 45\), got \(6, 45\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_fields_are_named(tmp_path, name) -> None:
    change, message = BAD[name]
    members = made_up("mano", 10, "f8")
    path = tmp_path / "MANO_RIGHT.npz"
    write_npz(path, {**members, name.split()[0]: change(members)})
    with pytest.raises(ValueError, match=rf"MANO_RIGHT\.npz: {message}"):
        read_model_file(path, "mano")


@pytest.mark.parametrize("key", made_up("mano", 10))
def test_missing_fields_are_named(tmp_path, key) -> None:
    members = made_up("mano", 10)
    del members[key]
    with pytest.raises(ValueError, match=rf"MANO_RIGHT\.npz has no '{key}'; it has .*"):
        read_model_file(write_npz(tmp_path / "MANO_RIGHT.npz", members), "mano")


def test_files_that_are_no_models(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"MANO_RIGHT\.pkl holds a list, not a dict of arrays"):
        read_model_file(write_pickle(tmp_path / "MANO_RIGHT.pkl", [1]), "mano")
    with pytest.raises(ValueError, match=r"MANO_RIGHT\.ply must be a \.npz or \.pkl file"):
        read_model_file(tmp_path / "MANO_RIGHT.ply", "mano")
    with pytest.raises(FileNotFoundError, match=r"MANO_LEFT\.npz"):
        read_model_file(tmp_path / "MANO_LEFT.npz", "mano")
    with pytest.raises(ValueError, match="unknown model 'smplh'"):
        read_model_file(tmp_path / "SMPLH_MALE.npz", "smplh")
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil/SMPL_MALE.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(RefusedPickleError, match=r"SMPL_MALE\.pkl asks for os\.system"):
        read_model_file(tmp_path / "evil/SMPL_MALE.pkl", "smpl")
    ragged = {**made_up("mano", 10), "weights": [[1.0], [1.0, 2.0]]}
    with pytest.raises(ValueError, match=r"MANO_RIGHT\.pkl: weights must be \(778, 16\), got \(\)"):
        read_model_file(write_pickle(tmp_path / "MANO_RIGHT.pkl", ragged), "mano")


# -- finding


@pytest.mark.parametrize("below", ["", "human_model_files", "models", "Human_Model_Files"])
@pytest.mark.parametrize(
    ("file", "model", "gender", "side"),
    [
        ("smpl/SMPL_NEUTRAL.pkl", "smpl", "neutral", None),
        ("smpl/SMPL_MALE.npz", "smpl", "male", None),
        ("SMPL/smpl_female.PKL", "smpl", "female", None),
        ("smpl/basicModel_neutral_lbs_10_207_0_v1.0.0.pkl", "smpl", "neutral", None),
        ("smpl/basicmodel_m_lbs_10_207_0_v1.1.0.pkl", "smpl", "male", None),
        ("smpl/models/basicModel_f_lbs_10_207_0_v1.0.0.pkl", "smpl", "female", None),
        ("smplx/SMPLX_NEUTRAL.npz", "smplx", "neutral", None),
        ("mano/MANO_RIGHT.pkl", "mano", "male", "right"),
        ("mano/MANO_LEFT.pkl", "mano", "neutral", "left"),
        ("flame/FLAME_FEMALE.pkl", "flame", "female", None),
        ("flame/generic_model.pkl", "flame", "neutral", None),
        ("flame/male_model.pkl", "flame", "male", None),
    ],
)
def test_files_are_found_where_users_have_them(tmp_path, below, file, model, gender, side) -> None:
    path = tmp_path / below / file
    path.parent.mkdir(parents=True)
    path.touch()
    (tmp_path / below / "other").mkdir()
    assert find_model_file(tmp_path, model, gender=gender, side=side).samefile(path)
    assert find_model_file(str(path.parent), model, gender=gender, side=side).samefile(path)


def test_neighbours_of_a_models_own_folder_are_found(tmp_path) -> None:
    for name in ("smpl/SMPL_NEUTRAL.pkl", "mano/MANO_RIGHT.pkl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert find_model_file(tmp_path / "smpl", "mano", side="right") == tmp_path / "mano/MANO_RIGHT.pkl"


def test_the_layout_of_smplx_and_npz_go_first(tmp_path) -> None:
    names = ["basicmodel_m_lbs_10_207_0_v1.1.0.pkl", "SMPL_MALE.pkl", "SMPL_MALE.npz", "smpl/SMPL_MALE.pkl"]
    (tmp_path / "smpl").mkdir()
    for name in names:
        (tmp_path / name).touch()
        assert find_model_file(tmp_path, "smpl", gender="male") == tmp_path / name


def test_missing_files_say_what_where_and_whence(tmp_path) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=rf"^SMPL_NEUTRAL\.pkl \(or \.npz\) not in {tmp_path} or {tmp_path}/smpl; "
        r"register at https://smpl\.is\.tue\.mpg\.de$",
    ):
        find_model_file(tmp_path, "smpl")
    for name in ("male", "FEMALE"):
        (tmp_path / f"SMPLX_{name}.npz").touch()
    with pytest.raises(
        FileNotFoundError,
        match=r"SMPLX_NEUTRAL\.pkl .*; male and female are there; register at https://smpl-x\.is",
    ):
        find_model_file(tmp_path, "smplx")
    (tmp_path / "MANO_RIGHT.pkl").touch()
    with pytest.raises(
        FileNotFoundError, match=r"MANO_LEFT\.pkl .*; right is there; register at https://mano\.is"
    ):
        find_model_file(tmp_path, "mano", side="left")
    with pytest.raises(
        FileNotFoundError, match=r"folder .*nowhere does not exist; .* flame/FLAME_MALE\.pkl, register"
    ):
        find_model_file(tmp_path / "nowhere", "flame", gender="male")
    with pytest.raises(
        FileNotFoundError, match=r"MANO_RIGHT\.pkl is a file, not a folder; give the folder that holds"
    ):
        find_model_file(tmp_path / "MANO_RIGHT.pkl", "mano", side="right")


def test_unknown_models_genders_and_sides(tmp_path) -> None:
    with pytest.raises(ValueError, match="unknown model 'SMPL'; expected one of smpl, smplx, mano, flame"):
        find_model_file(tmp_path, "SMPL")
    with pytest.raises(ValueError, match="unknown gender 'f'; expected one of neutral, male, female"):
        find_model_file(tmp_path, "smpl", gender="f")
    with pytest.raises(ValueError, match="side must be 'right' or 'left' for mano, got None"):
        find_model_file(tmp_path, "mano")
    with pytest.raises(ValueError, match="side is MANO's, smpl has none; got 'left'"):
        find_model_file(tmp_path, "smpl", side="left")


# -- checking


def test_check_of_a_folder(tmp_path) -> None:
    write_official(tmp_path / "mano/MANO_RIGHT.pkl", made_up("mano", 10, "f8"))
    (tmp_path / "mano/MANO_LEFT.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    (tmp_path / "smpl").mkdir()
    (tmp_path / "smpl/SMPL_MALE.pkl").write_bytes(b"version https://git-lfs")
    write_npz(tmp_path / "flame/FLAME_NEUTRAL.npz", made_up("flame", 20))
    status = {(s.model, s.part): s for s in check_models(tmp_path)}
    assert len(status) == 13
    right = status["mano", "right"]
    assert (right.path, right.problem) == (tmp_path / "mano/MANO_RIGHT.pkl", None)
    assert "MANO_LEFT.pkl asks for os.system" in (status["mano", "left"].problem or "")
    assert "SMPL_MALE.pkl cannot be read as a pickle" in (status["smpl", "male"].problem or "")
    female = status["smpl", "female"]
    assert (female.path, female.problem) == (None, "SMPL_FEMALE.pkl (or .npz) not found")
    assert female.register_at == "https://smpl.is.tue.mpg.de"
    assert "flame_static_embedding.pkl not in" in (status["flame", "neutral"].problem or "")
    assert status["flame", "static embedding"].problem == "flame_static_embedding.pkl not found"
    assert status["flame", "dynamic embedding"].problem is None  # nothing needs it

    write_pickle(tmp_path / "flame/flame_static_embedding.pkl", embedding())
    contour = {"lmk_face_idx": np.zeros((79, 17), int), "lmk_b_coords": np.zeros((79, 17, 2))}
    np.save(tmp_path / "flame/flame_dynamic_embedding.npy", np.array(contour, object))
    status = {(s.model, s.part): s for s in check_models(tmp_path)}
    assert status["flame", "neutral"].problem is None
    assert status["flame", "static embedding"].path == tmp_path / "flame/flame_static_embedding.pkl"
    problem = status["flame", "dynamic embedding"].problem or ""
    assert problem.endswith("lmk_b_coords must be (any, any, 3), got (79, 17, 2)")

    (tmp_path / "flame/flame_static_embedding.pkl").unlink()
    inside = {"lmk_faces_idx": np.arange(51), "lmk_bary_coords": np.ones((51, 3))}
    write_npz(tmp_path / "flame/FLAME_NEUTRAL.npz", {**made_up("flame", 20), **inside})
    (tmp_path / "flame/flame_dynamic_embedding.npy").unlink()
    status = {(s.model, s.part): s for s in check_models(tmp_path)}
    assert status["flame", "static embedding"].problem is None  # the file has its landmarks inside


def test_check_of_no_folder(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist or is not a folder"):
        check_models(tmp_path / "nowhere")


# -- converting


@pytest.mark.parametrize(("model", "columns"), [("smplx", 400), ("smpl", 300), ("mano", 10), ("flame", 400)])
def test_converted_files_fill_the_same_buffers(tmp_path, model, columns) -> None:
    members = made_up(model, columns, "f8" if model in ("mano", "flame") else "f4")
    extra = {**members, "joint2num": {"Pelvis": 0}}
    if model == "smplx":  # its downloads are .npz, with objects inside
        path = write_npz(tmp_path / "SMPLX_MALE.npz", {**extra, "bs_type": np.array("lrotmin", object)})
    else:
        path = write_official(tmp_path / f"{NAMES[model]}.pkl", extra)
    if model == "flame":
        write_pickle(tmp_path / "flame_static_embedding.pkl", embedding())
    want = read_model_file(path, model)
    out = convert_model(path, tmp_path / f"{NAMES[model]}.npz")
    assert out == tmp_path / f"{NAMES[model]}.npz"
    assert_equal(read_model_file(out, model), want)
    with np.load(out, allow_pickle=False) as archive:
        converted = dict(archive)
    for key, array in members.items():  # every column and all the precision of the file
        assert converted[key].dtype == array.dtype
        np.testing.assert_array_equal(converted[key], array)
    assert converted["bs_type"] == "lrotmin"
    assert "joint2num" not in converted
    assert_as_in_smplx(want, smplx_buffers(model, out, converted))


def test_converted_flame_has_its_landmarks_inside(tmp_path) -> None:
    path = write_official(tmp_path / "in/generic_model.pkl", made_up("flame", 20))
    write_pickle(tmp_path / "in/flame_static_embedding.pkl", embedding())
    contour = {"lmk_face_idx": np.ones((79, 17), int), "lmk_b_coords": np.ones((79, 17, 3))}
    np.save(tmp_path / "in/flame_dynamic_embedding.npy", np.array(contour, object))
    (tmp_path / "out").mkdir()
    out = convert_model(path, tmp_path / "out/FLAME_NEUTRAL.npz", model="flame")
    assert_equal(read_model_file(out, "flame"), read_model_file(path, "flame"))
    with np.load(out, allow_pickle=False) as archive:
        assert archive["dynamic_lmk_faces_idx"].shape == (79, 17)
        assert archive["dynamic_lmk_bary_coords"].shape == (79, 17, 3)


def test_conversion_refuses_and_leaves_nothing_behind(tmp_path, monkeypatch) -> None:
    path = write_npz(tmp_path / "MANO_RIGHT.npz", made_up("mano", 10))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"out_path is the input .*MANO_RIGHT\.npz; write to another file"):
        convert_model(path, tmp_path / "../" / tmp_path.name / "MANO_RIGHT.npz")
    with pytest.raises(ValueError, match=r"out_path must end in \.npz, got .*out\.pkl"):
        convert_model(path, tmp_path / "out.pkl")
    with pytest.raises(
        ValueError, match=r"MANO_RIGHT\.npz: shapedirs must be \(6890, 3, any\), got \(778, 3, 10\)"
    ):
        convert_model(path, tmp_path / "out.npz", model="smpl")
    with pytest.raises(
        ValueError, match=r"a\.npz is no body model: v_template must have rows as of smpl 6890, .* got 0"
    ):
        convert_model(write_npz(tmp_path / "a.npz", {"x": np.zeros(3)}), tmp_path / "out.npz")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        convert_model(tmp_path / "nowhere.npz", tmp_path / "out.npz")

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    (tmp_path / "old.npz").write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"):
        convert_model(path, tmp_path / "old.npz")
    assert (tmp_path / "old.npz").read_bytes() == b"old"
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["MANO_RIGHT.npz", "a.npz", "old.npz"]
