"""Finding, reading, checking and converting the official model files, which users register for and download.

Layouts that users have: `<folder>/smpl/SMPL_NEUTRAL.pkl`, `smplx/SMPLX_MALE.npz`, `mano/MANO_RIGHT.pkl`,
`flame/FLAME_NEUTRAL.pkl` beside `flame_static_embedding.pkl`, each as `.pkl` or `.npz`, under the names of
the downloads too. No file is ever run: see `neuralannot.safe_pickle`.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.parameters import GENDERS, HUMAN_MODELS, SIDES, human_model
from neuralannot.safe_pickle import load_npy, load_npz, load_pickle

_SITES: Mapping[str, str] = {
    "smpl": "https://smpl.is.tue.mpg.de",
    "smplx": "https://smpl-x.is.tue.mpg.de",
    "mano": "https://mano.is.tue.mpg.de",
    "flame": "https://flame.is.tue.mpg.de",
}
# Joints of the skeleton, and faces where every file of the model has the same number.
_SKELETON: Mapping[str, int] = {"smpl": 24, "smplx": 55, "mano": 16, "flame": 5}
_FACES: Mapping[str, int] = {"smpl": 13776, "mano": 1538}
_STATIC, _DYNAMIC = "flame_static_embedding.pkl", "flame_dynamic_embedding.npy"
_NUM_BETAS = _NUM_EXPRESSION = 10
# SMPL-X and FLAME files with all columns hold 300 of shape, then 100 of expression; the others 10 and 10.
_NUM_SHAPE, _NUM_ALL = 300, 400


@dataclass(frozen=True, eq=False)
class ModelData:
    """The arrays of a model file as smplx 0.1.28 takes them: numpy, float32 (metres, radians; float64 where
    that was asked for) and int64.

    `v_template` (V, 3); `shapedirs` (V, 3, 10); `exprdirs` (V, 3, 10) for SMPL-X and FLAME, else None;
    `posedirs` (V, 3, 9 (J - 1)); `J_regressor` (J, V), dense; `weights` (V, J); `parents` (J,), -1 for the
    root; `faces` (F, 3). `hand_mean` side -> (45,) and `hand_components` side -> (45, 45): both sides for
    SMPL-X, its own for MANO, else empty. `lmk_faces_idx` (51,) and `lmk_bary_coords` (51, 3), the face
    landmarks without contour, for SMPL-X and FLAME, else None. MANO's left-hand sign bug is as in the file.
    """

    model: str
    source: Path
    v_template: np.ndarray
    shapedirs: np.ndarray
    posedirs: np.ndarray
    J_regressor: np.ndarray
    weights: np.ndarray
    parents: np.ndarray
    faces: np.ndarray
    exprdirs: np.ndarray | None = None
    hand_mean: Mapping[str, np.ndarray] = field(default_factory=dict)
    hand_components: Mapping[str, np.ndarray] = field(default_factory=dict)
    lmk_faces_idx: np.ndarray | None = None
    lmk_bary_coords: np.ndarray | None = None


@dataclass(frozen=True)
class ModelStatus:
    """What `check_models` found out about one file.

    `part` is the gender, the side, or which of FLAME's embeddings; `path` is None where there is no file;
    `problem` is None where it is good, or where an embedding is missing that nothing needs.
    """

    model: str
    part: str
    path: Path | None
    problem: str | None
    register_at: str


def find_model_file(
    folder: str | os.PathLike[str], model: str, *, gender: str = "neutral", side: str | None = None
) -> Path:
    """The file of `model` in `folder`, whatever the case of its name; `.npz` goes before `.pkl`.

    Looks in `folder/<model>`, `folder` itself (so that it may be the model's own folder), and below
    `human_model_files` or `models` in it. The names of the downloads (`basicModel_m_lbs_10_207_0_v1.0.0.pkl`,
    `generic_model.pkl`) are known too. `side` is MANO's; MANO has no gender.

    Raises FileNotFoundError that names the file, the folder, what else is there and where to register;
    ValueError for an unknown model, gender or side.
    """
    part = _part(model, gender, side)
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise FileNotFoundError(
            f"body model folder {folder} {what}; give the folder that holds "
            f"{model}/{_name(model, part)}.pkl, register at {_SITES[model]}"
        )
    for found in _matches(folder, model, _file_names(model, part)):
        return found
    others = [other for other in (SIDES if model == "mano" else GENDERS) if other != part]
    there = [other for other in others if any(_matches(folder, model, _file_names(model, other)))]
    hint = f"{' and '.join(there)} {'is' if len(there) == 1 else 'are'} there; " if there else ""
    raise FileNotFoundError(
        f"{_name(model, part)}.pkl (or .npz) not in {folder} or {folder / model}; {hint}"
        f"register at {_SITES[model]}"
    )


def read_model_file(
    path: str | os.PathLike[str],
    model: str,
    *,
    side: str | None = None,
    dtype: type[np.floating] = np.float32,
) -> ModelData:
    """The arrays of the `.pkl` or `.npz` file `path` of `model`, its shapes checked.

    Columns are smplx's: `betas` are the first 10 of `shapedirs`; expressions are columns 300 to 309 of files
    with 400 or more, else 10 to 19. FLAME's landmarks come from `flame_static_embedding.pkl` beside the file,
    or from inside it. `side` of a MANO file is by default read from its name. `dtype`: float32, as smplx
    takes them, or float64.

    Raises FileNotFoundError where the file or the embedding is not there, ValueError that names the field
    where one is missing or of another shape, `RefusedPickleError` where the file asks for code to be run.
    """
    human_model(model)
    path = Path(path)
    if model == "mano" and side is None:
        named = [side for side in SIDES if side in path.stem.lower()]
        if len(named) != 1:
            raise ValueError(
                f"{path} does not say left or right in its name; pass side='left' or side='right'"
            )
        side = named[0]
    return _model_data(_load_members(path), path, model, side, dtype)


def check_models(folder: str | os.PathLike[str]) -> list[ModelStatus]:
    """Look for every model file in `folder`, read each, and say what is missing or broken.

    One entry per gender of SMPL, SMPL-X and FLAME, per side of MANO, and for FLAME's two embeddings; the
    dynamic one is not needed (it holds the face contour), the static one only by files without landmarks.
    Raises FileNotFoundError where `folder` is no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"body model folder {folder} does not exist or is not a folder")
    statuses = []
    for model in HUMAN_MODELS:
        for part in SIDES if model == "mano" else GENDERS:
            path = next(_matches(folder, model, _file_names(model, part)), None)
            if path is None:
                problem: str | None = f"{_name(model, part)}.pkl (or .npz) not found"
            else:
                problem = _problem(read_model_file, path, model, side=part if model == "mano" else None)
            statuses.append(ModelStatus(model, part, path, problem, _SITES[model]))
    needed = not any(status.model == "flame" and status.path and not status.problem for status in statuses)
    for part, name in (("static embedding", _STATIC), ("dynamic embedding", _DYNAMIC)):
        path = next(_matches(folder, "flame", (name,)), None)
        problem = f"{name} not found" if needed and name == _STATIC else None
        if path is not None:
            problem = _problem(_embedding, path, contour=name == _DYNAMIC)
        statuses.append(ModelStatus("flame", part, path, problem, _SITES["flame"]))
    return statuses


def _problem(read: Callable[..., object], path: Path, *args: str, **options: Any) -> str | None:
    try:
        read(path, *args, **options)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def convert_model(
    path: str | os.PathLike[str], out_path: str | os.PathLike[str], *, model: str | None = None
) -> Path:
    """Write the model file `path` as a plain `.npz` that `numpy.load` reads without pickles; return its path.

    Keys and values are the file's, all columns and the width of floats kept, so that smplx and this library
    fill identical buffers from it; sparse matrices become dense, entries that are no arrays are left out.
    FLAME's landmark embeddings beside the file are put in. `model` is by default told by the number of
    vertices. The file appears whole or not at all.

    Raises ValueError where `out_path` is not a `.npz` or is the input, or where the input is not such a
    model; FileNotFoundError where a file or folder is not there.
    """
    path, out_path = Path(path), Path(out_path)
    if out_path.suffix.lower() != ".npz":
        raise ValueError(f"out_path must end in .npz, got {out_path}")
    if out_path.exists() and path.exists() and out_path.samefile(path):
        raise ValueError(f"out_path is the input {path}; write to another file")
    members = _load_members(path)
    model = model or _guess(path, members)
    _model_data(members, path, model, "right")  # checks; the sides of MANO have the same fields
    if model == "flame":
        members |= _flame_landmarks(path, _STATIC) | _flame_landmarks(path, _DYNAMIC)
    plain = {key: _plain_array(value) for key, value in members.items() if key.isidentifier()}
    _write_npz(out_path, {key: array for key, array in plain.items() if array is not None})
    return out_path


def _guess(path: Path, members: Mapping[str, Any]) -> str:
    vertices = len(members["v_template"]) if isinstance(members.get("v_template"), np.ndarray) else 0
    for name, known in HUMAN_MODELS.items():
        if known.num_vertices == vertices:
            return name
    counts = ", ".join(f"{name} {known.num_vertices}" for name, known in HUMAN_MODELS.items())
    raise ValueError(f"{path} is no body model: v_template must have rows as of {counts}, got {vertices}")


def _part(model: str, gender: str, side: str | None) -> str:
    human_model(model)
    if gender not in GENDERS:
        raise ValueError(f"unknown gender {gender!r}; expected one of {', '.join(GENDERS)}")
    if model != "mano":
        if side is not None:
            raise ValueError(f"side is MANO's, {model} has none; got {side!r}")
        return gender
    if side not in SIDES:
        raise ValueError(f"side must be 'right' or 'left' for mano, got {side!r}")
    return side


def _name(model: str, part: str) -> str:
    return f"{model}_{part}".upper()


def _file_names(model: str, part: str) -> tuple[str, ...]:
    """What the file may be called, in lower case, the names that smplx wants first."""
    name = _name(model, part).lower()
    names: tuple[str, ...] = (f"{name}.npz", f"{name}.pkl")
    if model == "smpl":
        letter = part if part == "neutral" else part[0]
        names += tuple(f"basicmodel_{letter}_lbs_10_207_0_v{version}.pkl" for version in ("1.1.0", "1.0.0"))
    if model == "flame":
        names += ("generic_model.pkl" if part == "neutral" else f"{part}_model.pkl",)
    return names


def _matches(folder: Path, model: str, names: tuple[str, ...]) -> Iterator[Path]:
    roots = [folder, *_entries(folder, "human_model_files"), *_entries(folder, "models")]
    if folder.absolute().name.lower() in HUMAN_MODELS:  # another model's own folder: its neighbours
        roots.append(folder.absolute().parent)
    own = [sub for root in roots for sub in _entries(root, model)]
    downloads = [sub for root in own for sub in _entries(root, "models")]
    for place in (*own, *downloads, *roots):
        for name in names:
            yield from (path for path in _entries(place, name) if path.is_file())


def _entries(folder: Path, name: str) -> list[Path]:
    """The entry `name` (lower case) of `folder` in any case; there may be several, or none."""
    if not folder.is_dir():
        return []
    return [folder / entry for entry in sorted(os.listdir(folder)) if entry.lower() == name]


def _load_members(path: Path) -> dict[str, Any]:
    if path.suffix.lower() not in (".npz", ".pkl"):
        raise ValueError(f"{path} must be a .npz or .pkl file")
    members = load_npz(path) if path.suffix.lower() == ".npz" else load_pickle(path)
    if not isinstance(members, dict):
        raise ValueError(f"{path} holds a {type(members).__name__}, not a dict of arrays")
    return {key: value for key, value in members.items() if isinstance(key, str)}


class _Fields:
    """Members of one file as arrays of known type and shape; errors name file and field."""

    def __init__(self, path: Path, members: Mapping[str, Any], dtype: type[np.floating] = np.float32) -> None:
        self._path, self._members, self._dtype = path, members, dtype

    def floats(self, key: str, *shape: int | None) -> np.ndarray:
        array = self._array(key, shape)
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, self._dtype)
        if not np.isfinite(array).all():
            name = np.dtype(self._dtype).name
            raise ValueError(f"{self._path}: {key} holds values that are not finite in {name}")
        return array

    def ints(self, key: str, *shape: int | None, low: int, high: int) -> np.ndarray:
        array = self._array(key, shape)
        if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
            raise ValueError(f"{self._path}: {key} must hold whole numbers")
        array = np.ascontiguousarray(array, np.int64)
        if array.size and not low <= int(array.min()) <= int(array.max()) < high:
            got = f"{array.min()}..{array.max()}"
            raise ValueError(f"{self._path}: {key} must lie in {low}..{high - 1}, got {got}")
        return array

    def _array(self, key: str, shape: tuple[int | None, ...]) -> np.ndarray:
        if key not in self._members:
            there = ", ".join(sorted(map(str, self._members))[:20])
            raise ValueError(f"{self._path} has no {key!r}; it has {there or 'nothing'}")
        value = self._members[key]
        try:
            got = (value if hasattr(value, "toarray") else np.asarray(value)).shape
        except ValueError:  # ragged lists
            got = ()
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        if len(got) != len(shape) or any(n not in (None, m) for n, m in zip(shape, got, strict=True)):
            raise ValueError(f"{self._path}: {key} must be ({wanted}), got {got}")
        array = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{self._path}: {key} must hold numbers, got {array.dtype}")
        return array


def _model_data(
    members: Mapping[str, Any],
    path: Path,
    model: str,
    side: str | None,
    dtype: type[np.floating] = np.float32,
) -> ModelData:
    fields = _Fields(path, members, dtype)
    vertices, joints = human_model(model).num_vertices, _SKELETON[model]
    shapedirs = fields.floats("shapedirs", vertices, 3, None)
    has_face = model in ("smplx", "flame")
    columns, least = shapedirs.shape[2], _NUM_BETAS + (_NUM_EXPRESSION if has_face else 0)
    if columns < least:
        raise ValueError(f"{path}: shapedirs must have at least {least} columns, got {columns}")
    first = _NUM_SHAPE if columns >= _NUM_ALL else _NUM_BETAS
    faces = fields.ints("f", _FACES.get(model), 3, low=0, high=vertices)
    hands: dict[str, str] = {"left": "l", "right": "r"} if model == "smplx" else {}
    if model == "mano" and side is not None:
        hands = {side: ""}
    landmarks: dict[str, np.ndarray] = {}
    if has_face:
        source = fields
        if model == "flame":
            embedding = _flame_landmarks(path, _STATIC, dtype)
            source = _Fields(path.parent / _STATIC, embedding, dtype) if embedding else fields
            if source is fields and "lmk_faces_idx" not in members:
                raise FileNotFoundError(
                    f"{_STATIC} not in {path.parent}, and no lmk_faces_idx in {path.name}; "
                    f"FLAME's landmarks need it, register at {_SITES[model]}"
                )
        landmarks["lmk_faces_idx"] = source.ints("lmk_faces_idx", 51, low=0, high=len(faces))
        landmarks["lmk_bary_coords"] = source.floats("lmk_bary_coords", 51, 3)
    return ModelData(
        model=model,
        source=path,
        v_template=fields.floats("v_template", vertices, 3),
        shapedirs=np.ascontiguousarray(shapedirs[:, :, :_NUM_BETAS]),
        exprdirs=np.ascontiguousarray(shapedirs[:, :, first : first + _NUM_EXPRESSION]) if has_face else None,
        posedirs=fields.floats("posedirs", vertices, 3, 9 * (joints - 1)),
        J_regressor=fields.floats("J_regressor", joints, vertices),
        weights=fields.floats("weights", vertices, joints),
        parents=_parents(fields, path, joints),
        faces=faces,
        hand_mean={s: fields.floats(f"hands_mean{letter}", 45) for s, letter in hands.items()},
        hand_components={
            s: fields.floats(f"hands_components{letter}", 45, 45) for s, letter in hands.items()
        },
        **landmarks,
    )


def _parents(fields: _Fields, path: Path, joints: int) -> np.ndarray:
    # The root's parent is 2^32 - 1 in official files, -1 cast to unsigned.
    parents: np.ndarray = fields.ints("kintree_table", 2, joints, low=-1, high=2**32)[0].copy()
    parents[0] = -1
    if not ((parents[1:] >= 0) & (parents[1:] < np.arange(1, joints))).all():
        raise ValueError(f"{path}: kintree_table must name an earlier joint as every joint's parent")
    return parents


def _embedding(path: Path, *, contour: bool, dtype: type[np.floating] = np.float32) -> dict[str, np.ndarray]:
    """FLAME's landmarks on the mesh, under the names that SMPL-X files use for theirs."""
    loaded = load_npy(path) if path.suffix.lower() == ".npy" else load_pickle(path)
    if not isinstance(loaded, dict):
        raise ValueError(f"{path} holds a {type(loaded).__name__}, not a dict")
    fields = _Fields(path, loaded, dtype)
    shape, prefix = ((None, None), "dynamic_") if contour else ((51,), "")
    return {
        f"{prefix}lmk_faces_idx": fields.ints("lmk_face_idx", *shape, low=0, high=2**31),
        f"{prefix}lmk_bary_coords": fields.floats("lmk_b_coords", *shape, 3),
    }


def _flame_landmarks(path: Path, name: str, dtype: type[np.floating] = np.float32) -> dict[str, np.ndarray]:
    """What the embedding `name` beside the FLAME file `path` holds; nothing where there is none."""
    beside = _entries(path.parent, name)
    return _embedding(beside[0], contour=name == _DYNAMIC, dtype=dtype) if beside else {}


def _plain_array(value: Any) -> np.ndarray | None:
    """`value` as an array that needs no pickle, or None."""
    if hasattr(value, "toarray"):
        return np.asarray(value.toarray())
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    return array if array.dtype.kind in "biufSU" else None


def _write_npz(out_path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    temporary = out_path.with_name(f".{out_path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            for key, array in arrays.items():
                with archive.open(f"{key}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        os.replace(temporary, out_path)
    finally:
        temporary.unlink(missing_ok=True)
