"""`Pair`: two bodies, ready for parameters of the one to become the other's."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuralannot.body_models.files import ModelData, find_model_file, read_model_file
from neuralannot.body_models.model import (
    FOLDER_VARIABLE,
    OPEN_FOLDER,
    BodyModel,
    load_body_model,
    warn_open_body,
)
from neuralannot.conversion.correspondence import (
    TOPOLOGY,
    Correspondence,
    open_correspondence,
    read_transfer,
    same_topology,
)
from neuralannot.conversion.fitting import Fitter, Pose
from neuralannot.conversion.rig import NUM_COMMON, ROTATIONS, Rig, rig_of
from neuralannot.conversion.smplh import SHAPES, find_smplh_file, open_smplh, read_smplh
from neuralannot.parameters import GENDERS, human_model

MODELS = ("smpl", "smplx", "smplh")
PARTS = ("body", "hands", "head")
_HANDS, _HEAD = 1, 2
_JOINTS_OF_HEAD = (12, 15, 22, 23, 24)  # neck, head and, in SMPL-X, jaw and eyes
# Vertices that a target cannot follow count this little: its one joint of all fingers is turned by them, and
# nothing else.
_STIFF = 1e-2
# Of a head those vertices are fitted to that expressions move less, metres a unit, and at least this share.
_STILL, _SHARE = 2e-4, 0.2
# How many vertices of each joint are fitted to: one in ten. All of them take a hundredth off the error.
_AT_LEAST, _EVERY = 12, 10


@dataclass(frozen=True, eq=False)
class Body:
    """A body: its file's arrays, the rig of all its vertices and, but for SMPL-H, the library's layer."""

    data: ModelData
    rig: Rig
    layer: BodyModel | None

    @property
    def model(self) -> str:
        return self.data.model

    def on(self, device: torch.device) -> Body:
        """A copy on a device."""
        layer = None if self.layer is None else copy.deepcopy(self.layer).to(device)
        return Body(self.data, self.rig.to(device), layer)

    def vertices(self, params: Mapping[str, Tensor]) -> Tensor:
        """Parameters (B, ...) -> (B, V, 3) metres."""
        return self.rig.vertices(params) if self.layer is None else self.layer(**params).vertices

    @functools.cached_property
    def part(self) -> np.ndarray:
        """(V,) which of `PARTS` a vertex is of: by the joint that moves it most."""
        joint = self.data.weights.argmax(axis=1)
        fingers = 25 if self.model == "smplx" else 22
        part = np.where(joint >= fingers, _HANDS, 0)
        heads = _JOINTS_OF_HEAD if self.model == "smplx" else _JOINTS_OF_HEAD[:2]
        return np.where(np.isin(joint, heads), _HEAD, part)


@dataclass(frozen=True, eq=False)
class Pair:
    """A source and a target body with what carries the one over to the other.

    `to_target`: the source's mesh in the target's topology; `fitter`; `codes` (10, 11): the target's betas
    that look most like the source's at rest, of the source's betas and 1.
    """

    source: Body
    target: Body
    to_target: Correspondence
    fitter: Fitter
    codes: Tensor

    @functools.cached_property
    def same(self) -> Tensor:
        """(M,) int64: the target's vertices that errors are measured at."""
        return torch.tensor(np.flatnonzero(self.to_target.same), device=self.codes.device)

    @functools.cached_property
    def part_shares(self) -> Tensor:
        """(V, parts): times distances of vertices, each part's mean."""
        inside = (self.target.part[:, None] == np.arange(len(PARTS))) & self.to_target.same[:, None]
        shares = inside / np.maximum(inside.sum(axis=0), 1)
        return torch.tensor(shares, dtype=torch.float32, device=self.codes.device)

    def on(self, device: torch.device) -> Pair:
        """A copy on a device."""
        return Pair(
            self.source.on(device),
            self.target.on(device),
            self.to_target,
            copy.copy(self.fitter).to(device),
            self.codes.to(device),
        )

    def start(self, params: Mapping[str, Tensor]) -> Pose:
        """The target's pose where rotations carry over: what fitting begins with."""
        source, target = self.source.rig, self.target.rig
        rotations = source.rotations(params)
        batch = len(rotations)
        begin = torch.eye(3).to(rotations).expand(batch, target.num_joints, 3, 3).clone()
        begin[:, :NUM_COMMON] = rotations[:, :NUM_COMMON]
        for side in ("left_hand_pose", "right_hand_pose"):
            if side in ROTATIONS[source.model] and side in ROTATIONS[target.model]:
                begin[:, ROTATIONS[target.model][side]] = rotations[:, ROTATIONS[source.model][side]]
        own = params["betas"]
        betas = torch.cat([own, torch.ones_like(own[:, :1])], 1) @ self.codes.T.to(own)
        transl = source.rest_joints(own)[:, 0] - target.rest_joints(betas)[:, 0]
        return Pose(begin, betas, transl)


def make_pair(
    source: str,
    target: str,
    *,
    gender: str = "neutral",
    body_models: str | os.PathLike[str] | None = None,
    transfer: str | os.PathLike[str] | None = None,
) -> Pair:
    """The pair of two of `smpl`, `smplx`, `smplh`, kept for as long as the process lives.

    `body_models`: the folder of official files; for None the environment variable NEURALANNOT_BODY_MODELS, or
    else the open bodies. `transfer`: the folder of the official transfer matrices; for None `body_models`
    and `transfer_data` in it. The open bodies need none.

    Raises ValueError for unknown or equal models, FileNotFoundError for a file that is not there.
    """
    for name in (source, target):
        if name not in MODELS:
            raise ValueError(
                f"there is no conversion of {name!r}; expected two of {', '.join(MODELS)} (hands and faces: "
                "hand_of_body, face_of_body and their like)"
            )
    if source == target:
        raise ValueError(f"nothing to convert: source and target are both {source}")
    if gender not in GENDERS:
        raise ValueError(f"unknown gender {gender!r}; expected one of {', '.join(GENDERS)}")
    place = folder_of(body_models)
    return _pair(source, target, gender, place, None if transfer is None else Path(transfer).resolve())


def make_map(
    source: str,
    target: str,
    *,
    body_models: str | os.PathLike[str] | None = None,
    transfer: str | os.PathLike[str] | None = None,
) -> Correspondence:
    """The map of meshes alone, for which no official model file is needed; raises as `make_pair`."""
    where = None if transfer is None else Path(transfer).resolve()
    return correspondence_of(source, target, "neutral", folder_of(body_models), where)


def folder_of(body_models: str | os.PathLike[str] | None) -> Path:
    """The folder of model files that serves; a warning where it is the open bodies'."""
    folder = body_models or os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        warn_open_body()
        folder = OPEN_FOLDER
    return Path(folder).resolve()


@functools.lru_cache(maxsize=8)
def _pair(source: str, target: str, gender: str, folder: Path, transfer: Path | None) -> Pair:
    one, other = body_of(source, gender, folder), body_of(target, gender, folder)
    to_target = correspondence_of(source, target, gender, folder, transfer)
    return Pair(one, other, to_target, _fitter(one, other, to_target), _codes(one, other, to_target))


@functools.lru_cache(maxsize=6)
def body_of(model: str, gender: str, folder: Path) -> Body:
    """The body of a folder's file."""
    is_open = folder == OPEN_FOLDER.resolve()
    if model == "smplh" and is_open:
        smplx, smpl = (body_of(m, gender, folder).data for m in ("smplx", "smpl"))
        data = open_smplh(smplx, smpl, correspondence_of("smplx", "smpl", gender, folder, None))
    elif model == "smplh":
        data = read_smplh(find_smplh_file(folder, gender))
    else:
        data = read_model_file(find_model_file(folder, model, gender=gender), model)
    layer = None if model == "smplh" else load_body_model(model, folder=folder, gender=gender)
    return Body(data, rig_of(data), layer)


@functools.lru_cache(maxsize=4)
def correspondence_of(
    source: str, target: str, gender: str, folder: Path, transfer: Path | None
) -> Correspondence:
    """The map of `source`'s meshes to `target`'s topology: of the open bodies, or by the official file."""
    one, other = TOPOLOGY[source], TOPOLOGY[target]
    if one == other:
        return same_topology(human_model(one).num_vertices)
    if folder == OPEN_FOLDER.resolve():
        return open_correspondence(body_of(one, gender, folder).data, body_of(other, gender, folder).data)
    return read_transfer(transfer or folder, one, other)


def _fitter(source: Body, target: Body, to_target: Correspondence) -> Fitter:
    """Which vertices the target is fitted to: of every joint some, those that the target can follow."""
    turning = ROTATIONS[target.model]
    free = [j for name, s in turning.items() if name != "jaw_pose" for j in range(s.start, s.stop)]
    count = to_target.same.astype(np.float64)
    if source.data.exprdirs is not None:
        far = np.linalg.norm(source.data.exprdirs, axis=1).max(axis=1)
        moved = far > max(_STILL, np.quantile(far[source.part == _HEAD], _SHARE))
        moved |= source.data.weights[:, ROTATIONS["smplx"]["jaw_pose"]].sum(axis=1) > 1e-3
        count[to_target.matrix @ moved > 1e-3] = 0
    if "left_hand_pose" in ROTATIONS[source.model] and "left_hand_pose" not in turning:
        # As much as a vertex is skinned to the joints that stand for all fingers.
        count *= _STIFF ** target.data.weights[:, NUM_COMMON:].sum(axis=1)
    chosen, stand_for = _spread(target.data.v_template, target.data.weights.argmax(axis=1), count > 0)
    return Fitter(target.rig, chosen, stand_for * count[chosen], free)


def _spread(points: np.ndarray, groups: np.ndarray, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices well spread over each group, and how many each of them stands for."""
    chosen, stand_for = [], []
    for group in np.unique(groups[usable]):
        members = np.flatnonzero(usable & (groups == group))
        wanted = min(len(members), max(_AT_LEAST, len(members) // _EVERY))
        first = int(np.linalg.norm(points[members] - points[members].mean(axis=0), axis=1).argmax())
        picked, distance = [first], np.full(len(members), np.inf)
        owner = np.zeros(len(members), np.int64)
        while True:
            new = np.linalg.norm(points[members] - points[members[picked[-1]]], axis=1)
            nearer = new < distance
            owner[nearer], distance = len(picked) - 1, np.minimum(new, distance)
            if len(picked) == wanted:
                break
            picked.append(int(distance.argmax()))
        chosen.append(members[picked])
        stand_for.append(np.bincount(owner, minlength=len(picked)))
    return np.concatenate(chosen), np.concatenate(stand_for).astype(np.float64)


def _codes(source: Body, target: Body, to_target: Correspondence) -> Tensor:
    rows = to_target.same
    there = to_target.matrix[rows] @ np.concatenate(
        [source.data.shapedirs[:, :, :10].reshape(len(source.data.weights), -1), source.data.v_template], 1
    ).astype(np.float64)
    moves = there[:, :-3].reshape(-1, 10)  # (3 V, 10)
    own = target.data.shapedirs[rows][:, :, :10].reshape(-1, 10).astype(np.float64)
    rest = (there[:, -3:] - target.data.v_template[rows]).reshape(-1, 1)
    # Where the bodies stand is their translation's affair.
    columns = np.concatenate([own, np.tile(np.eye(3), (len(own) // 3, 1))], 1)
    found = np.linalg.lstsq(columns, np.concatenate([moves, rest], 1), rcond=None)[0]
    return torch.tensor(found[:10], dtype=torch.float32)


def shapes_of(model: str) -> Mapping[str, tuple[int, ...]]:
    """Parameter -> shape of one row, for SMPL, SMPL-X and SMPL-H."""
    return SHAPES if model == "smplh" else human_model(model).shapes
