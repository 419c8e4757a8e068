"""MANO hands and FLAME faces of SMPL-X bodies, and the other way: what carries over exactly, what does not.

Exactly: finger rotations (of files whose mean hands differ, too), the jaw, the expression, and a hand's or
head's rotation, which is global in MANO and FLAME and relative to the forearm or neck in SMPL-X. Shapes do
not: MANO's and FLAME's codes describe a hand or a head, SMPL-X's a whole body. A body's codes become a part's
by least squares over the vertices that both have, with an error; a part's say nothing of a body's.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from torch import Tensor

from neuralannot.body_models.files import find_model_file, read_model_file
from neuralannot.body_models.model import OPEN_FOLDER, BodyModel, load_body_model
from neuralannot.conversion.converting import checked_parameters
from neuralannot.conversion.correspondence import SITE
from neuralannot.conversion.pairs import folder_of
from neuralannot.parameters import GENDERS
from neuralannot.safe_pickle import load_npy, load_npz, load_pickle

_WRISTS = {"left": 20, "right": 21}
_HEAD = 15
# SMPL-X's body joints: each one's parent.
_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
_OPEN = "correspondence.npz"
_HANDS, _FACE = "MANO_SMPLX_vertex_ids.pkl", "SMPL-X__FLAME_vertex_ids.npy"
_RIGID = 0.99  # of a vertex's weights are the part's own joints'
_COUNT = {"mano": 778, "flame": 5023}


@dataclass(frozen=True, eq=False)
class PartOfBody:
    """N hands or faces of bodies.

    Fields
    ------
    model, side: `mano` and its side, or `flame` and None.
    params: smplx's names -> (N, ...) float32; a plain forward puts the part where the body has it.
    error: (N,) float32 metres: the mean distance of the vertices that the part alone moves, from the body's;
        NaN where the files do not say which vertices they share.
    exact: the parameters that carried over exactly. `betas` never do; where the files do not say which
        vertices are shared they are zero, the mean shape, and `not_carried` names them.
    not_carried: the parameters that nothing could be found for.
    """

    model: str
    side: str | None
    params: Mapping[str, np.ndarray]
    error: np.ndarray
    exact: tuple[str, ...]
    not_carried: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.error)


@dataclass(frozen=True, eq=False)
class _Kin:
    """How a part lies in SMPL-X: `codes` (10, 20) the part's betas of a body's betas and expressions;
    `offset` (3, 21) metres from the part at rest to the body's, of these and 1; `vertices` (V,) the body's
    numbers of the part's vertices, None where not known; `rigid` (V,) bool: those that the part alone moves.
    """

    codes: np.ndarray
    offset: np.ndarray
    vertices: np.ndarray | None
    rigid: np.ndarray


def hand_of_body(
    params: Mapping[str, np.ndarray],
    *,
    side: str,
    gender: str = "neutral",
    body_models: str | os.PathLike[str] | None = None,
    transfer: str | os.PathLike[str] | None = None,
) -> PartOfBody:
    """The MANO hands (`side`: `left` or `right`) of SMPL-X bodies, in the bodies' space.

    `params`: SMPL-X's, (N, ...), zero where not given. `hand_pose` and `global_orient` are exact, `transl`
    puts the hand where the body has it, `betas` fit the body's hand at rest. `transfer`: the folder of
    `MANO_SMPLX_vertex_ids.pkl`, for None `body_models`; without the file, shapes are the mean one and wrists
    meet. `body_models`: see `convert_parameters`.

    Raises ValueError for another side or parameters, FileNotFoundError for model files.
    """
    _check_side(side)
    values = checked_parameters(params, "smplx")
    folder, gender = _place(body_models, gender)
    own = {"hand_pose": values[f"{side}_hand_pose"] + _mean_difference(side, gender, folder)}
    return _part_of(values, "mano", side, _WRISTS[side], own, gender, folder, transfer)


def face_of_body(
    params: Mapping[str, np.ndarray],
    *,
    gender: str = "neutral",
    body_models: str | os.PathLike[str] | None = None,
    transfer: str | os.PathLike[str] | None = None,
) -> PartOfBody:
    """The FLAME heads of SMPL-X bodies, in the bodies' space, necks straight.

    `jaw_pose`, `expression` and `global_orient` are exact. `transfer`: the folder of
    `SMPL-X__FLAME_vertex_ids.npy`. All else as in `hand_of_body`.
    """
    values = checked_parameters(params, "smplx")
    own = {name: values[name] for name in ("jaw_pose", "expression")}
    folder, gender = _place(body_models, gender)
    return _part_of(values, "flame", None, _HEAD, own, gender, folder, transfer)


def with_hand(
    body: Mapping[str, np.ndarray],
    hand: Mapping[str, np.ndarray],
    *,
    side: str,
    gender: str = "neutral",
    body_models: str | os.PathLike[str] | None = None,
) -> dict[str, np.ndarray]:
    """SMPL-X bodies with the finger and wrist rotations of MANO hands: row by row, exactly.

    `body`: SMPL-X's parameters (N, ...); `hand`: MANO's `hand_pose` and `global_orient`, (N, ...), in the
    body's space. Hands without a `global_orient` leave wrists as they are. A hand's `betas` and `transl` are
    no parameters of a body: given, they are an error, since they would be lost. Returns all of SMPL-X's
    parameters. Raises ValueError for these, other shapes and counts.
    """
    _check_side(side)
    values = checked_parameters(body, "smplx")
    given = _checked_part(hand, {"hand_pose": (15, 3), "global_orient": (3,)}, len(values["betas"]), "MANO")
    folder, gender = _place(body_models, gender)
    if "hand_pose" in given:
        values[f"{side}_hand_pose"] = given["hand_pose"] - _mean_difference(side, gender, folder)
    if "global_orient" in given:
        _turn_to(values, _WRISTS[side], given["global_orient"])
    return values


def with_face(
    body: Mapping[str, np.ndarray], face: Mapping[str, np.ndarray], *, turn_head: bool = False
) -> dict[str, np.ndarray]:
    """SMPL-X bodies with the jaw and the expression of FLAME faces: row by row, exactly.

    `body`: SMPL-X's parameters (N, ...); `face`: FLAME's `jaw_pose`, `expression` and, with `turn_head`,
    which turns the head as the face is, `global_orient`, (N, ...). A face's `betas` and `transl` are no
    parameters of a body: given, they are an error, since they would be lost. Returns all of SMPL-X's
    parameters. Raises ValueError for these, other shapes and counts.
    """
    values = checked_parameters(body, "smplx")
    shapes: dict[str, tuple[int, ...]] = {"jaw_pose": (3,), "expression": (10,)}
    if turn_head:
        shapes["global_orient"] = (3,)
    given = _checked_part(face, shapes, len(values["betas"]), "FLAME")
    for name in ("jaw_pose", "expression"):
        values[name] = given.get(name, values[name])
    if turn_head:
        if "global_orient" not in given:
            raise ValueError("turn_head needs the faces' global_orient")
        _turn_to(values, _HEAD, given["global_orient"])
    return values


def _check_side(side: str) -> None:
    if side not in _WRISTS:
        raise ValueError(f"side must be 'left' or 'right', got {side!r}")


def _checked_part(
    given: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], count: int, model: str
) -> dict[str, np.ndarray]:
    lost = [name for name in given if name not in shapes]
    if lost:
        raise ValueError(
            f"{', '.join(lost)} of {model} cannot be carried over to SMPL-X exactly; leave "
            f"{'it' if len(lost) == 1 else 'them'} out: {', '.join(shapes)} can"
        )
    values = {}
    for name, value in given.items():
        value = np.asarray(value)
        if value.shape not in ((count, *shapes[name]), (count, int(np.prod(shapes[name])))):
            raise ValueError(f"{name} must be {(count, *shapes[name])}, one a body, got {value.shape}")
        values[name] = value.reshape(count, *shapes[name]).astype(np.float32)
    return values


def _turned(values: Mapping[str, np.ndarray], joint: int) -> Tensor:
    """(N, 3, 3) float64: the global rotations of a joint of SMPL-X's body."""
    turned = _matrix(values["global_orient"])
    on_the_way = []
    while joint > 0:
        on_the_way.append(joint)
        joint = _PARENTS[joint]
    for below in reversed(on_the_way):
        turned = turned @ _matrix(values["body_pose"][:, below - 1])
    return turned


def _matrix(rotvec: np.ndarray) -> Tensor:
    matrices: Tensor = roma.rotvec_to_rotmat(torch.tensor(rotvec, dtype=torch.float64))
    return matrices


def _turn_to(values: dict[str, np.ndarray], joint: int, orient: np.ndarray) -> None:
    """Give a joint the local rotation that makes its global one `orient` (N, 3)."""
    local = _turned(values, _PARENTS[joint]).transpose(1, 2) @ _matrix(orient)
    values["body_pose"][:, joint - 1] = roma.rotmat_to_rotvec(local).numpy()


def _part_of(
    values: Mapping[str, np.ndarray],
    model: str,
    side: str | None,
    joint: int,
    own: dict[str, np.ndarray],
    gender: str,
    folder: Path,
    transfer: str | os.PathLike[str] | None,
) -> PartOfBody:
    place = None if transfer is None else Path(transfer).resolve()
    kin = _kin(model, side, gender, folder, place)
    whole, part = (_layer(m, s, gender, folder) for m, s in (("smplx", None), (model, side)))
    count = len(values["betas"])
    orient = _turned(values, joint)
    codes = np.concatenate([values["betas"], values["expression"]], 1).astype(np.float64)
    betas = (codes @ kin.codes.T).astype(np.float32)
    params = {
        "global_orient": roma.rotmat_to_rotvec(orient).float().numpy(),
        **own,
        "betas": betas,
        "transl": np.zeros((count, 3), np.float32),
    }
    error = np.full(count, np.nan, np.float32)
    if count:
        with torch.no_grad():
            given = {name: torch.tensor(value) for name, value in values.items()}
            still = {**given, "transl": torch.zeros_like(given["transl"])}
            shaped = {name: given[name] for name in ("betas", "expression")}
            at_rest = whole.skeleton(**shaped)[:, joint].numpy().astype(np.float64)
            posed = whole.skeleton(**still)[:, joint].numpy().astype(np.float64)
            shape = torch.tensor(betas)
            expression = torch.tensor(own["expression"]) if model == "flame" else None
            root = part.rest_root(shape, expression).numpy().astype(np.float64)
        if kin.vertices is None:
            offset = at_rest - root  # the joints meet
        else:
            offset = np.concatenate([codes, np.ones((count, 1))], 1) @ kin.offset.T
        # A vertex at p of the part at rest is at p + offset of the body's.
        near = np.einsum("nij,nj->ni", orient.numpy(), root + offset - at_rest) + posed - root
        params["transl"] = (near + values["transl"]).astype(np.float32)
        if kin.vertices is not None:
            with torch.no_grad():
                there = whole(**still).vertices[:, kin.vertices[kin.rigid]]
                mine = {**params, "transl": near.astype(np.float32)}
                here = part(**{n: torch.tensor(v) for n, v in mine.items()}).vertices[:, kin.rigid]
                error = (here - there).norm(dim=2).mean(1).numpy()
    exact = ("global_orient", *own)
    return PartOfBody(model, side, params, error, exact, ("betas",) if kin.vertices is None else ())


@functools.lru_cache(maxsize=8)
def _layer(model: str, side: str | None, gender: str, folder: Path) -> BodyModel:
    gender = "neutral" if model == "mano" else gender
    return load_body_model(model, folder=folder, gender=gender, side=side)


@functools.lru_cache(maxsize=8)
def _mean_difference(side: str, gender: str, folder: Path) -> np.ndarray:
    """(15, 3) radians to add to SMPL-X's hand poses for MANO's: zero where both files have one mean hand."""
    means = []
    for model in ("smplx", "mano"):
        path = find_model_file(folder, model, gender=gender, side=side if model == "mano" else None)
        means.append(read_model_file(path, model).hand_mean[side].reshape(15, 3))
    apart: np.ndarray = means[0] - means[1]
    return apart


def _place(body_models: str | os.PathLike[str] | None, gender: str) -> tuple[Path, str]:
    """The folder of model files, and whose they are."""
    if gender not in GENDERS:
        raise ValueError(f"unknown gender {gender!r}; expected one of {', '.join(GENDERS)}")
    return folder_of(body_models), gender


@functools.lru_cache(maxsize=8)
def _kin(model: str, side: str | None, gender: str, folder: Path, transfer: Path | None) -> _Kin:
    whole, part = (_layer(m, s, gender, folder) for m, s in (("smplx", None), (model, side)))
    count = part.num_vertices
    vertices = _shared(model, side, folder, transfer)
    if vertices is None:
        return _Kin(np.zeros((10, 20)), np.zeros((3, 21)), None, np.zeros(count, bool))
    moves = whole.shapedirs.numpy()[vertices].reshape(3 * count, 20).astype(np.float64)
    own = part.shapedirs.numpy().reshape(3 * count, -1).astype(np.float64)
    if model == "flame":
        moves[:, 10:] -= own[:, 10:]  # expressions are the same: what of them is left
    rest = (whole.v_template.numpy()[vertices] - part.v_template.numpy()).reshape(-1, 1)
    # Where the part stands is its translation's affair.
    columns = np.concatenate([own[:, :10], np.tile(np.eye(3), (count, 1))], 1)
    found = np.linalg.lstsq(columns, moves, rcond=None)[0]
    offset = np.concatenate([found[10:], rest.reshape(-1, 3).mean(axis=0)[:, None]], 1)
    weights = whole.lbs_weights.numpy()[vertices]
    hands = {"left": range(25, 40), "right": range(40, 55)}
    inside = [_WRISTS[side], *hands[side]] if side else [_HEAD, 22, 23, 24]
    return _Kin(found[:10], offset, vertices, weights[:, inside].sum(axis=1) > _RIGID)


def _shared(model: str, side: str | None, folder: Path, transfer: Path | None) -> np.ndarray | None:
    """(V,) SMPL-X's numbers of the part's vertices, None where no file says."""
    if folder == OPEN_FOLDER.resolve():
        shared: np.ndarray = load_npz(folder / _OPEN)[f"smplx_mano_{side}" if side else "smplx_flame"]
        return shared
    name = _HANDS if side else _FACE
    places = (p for p in (transfer, folder, folder / "transfer_data", folder / "smplx") if p is not None)
    path = next((p / name for p in places if (p / name).is_file()), None)
    if path is None:
        return None
    held = load_pickle(path) if side else load_npy(path)
    numbers = held.get(f"{side}_hand") if side and isinstance(held, dict) else held
    array = np.asarray(numbers)
    if (
        array.shape != (_COUNT[model],)
        or array.dtype.kind not in "iu"
        or not 0 <= array.min() <= array.max() < 10475
    ):
        raise ValueError(
            f"{path}: expected {_COUNT[model]} vertex numbers of SMPL-X, got {array.dtype} {array.shape}; "
            f"get it again from {SITE}"
        )
    return array.astype(np.int64)
