"""The four human models as torch modules: buffers from `files.py`, the forward pass by smplx's functions."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from smplx.lbs import lbs, vertices2landmarks
from smplx.vertex_ids import vertex_ids
from torch import Tensor, nn

from neuralannot.body_models.files import ModelData, find_model_file, read_model_file
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.parameters import GENDERS, HUMAN_MODELS, human_model

FOLDER_VARIABLE = "NEURALANNOT_BODY_MODELS"
OPEN_FOLDER = Path(__file__).parent / "open"

# MANO's left-hand model has the sign of `shapedirs[:, 0]` wrong; where left and right agree in it, it is
# that file.
_LEFT_HAND_BUG = 1.0

# The order in which smplx stacks rotations into the full pose; None stands for joints that stay at rest.
_POSE_ORDER: Mapping[str, tuple[tuple[str | None, int], ...]] = {
    "smpl": (("global_orient", 1), ("body_pose", 23)),
    "smplx": (
        ("global_orient", 1),
        ("body_pose", 21),
        ("jaw_pose", 1),
        (None, 2),  # the eyes
        ("left_hand_pose", 15),
        ("right_hand_pose", 15),
    ),
    "mano": (("global_orient", 1), ("hand_pose", 15)),
    "flame": (("global_orient", 1), (None, 1), ("jaw_pose", 1), (None, 2)),  # neck and eyes
}
_NAMES = frozenset(name for model in HUMAN_MODELS.values() for name in model.shapes)
_EXTRA_FACE = ("nose", "reye", "leye", "rear", "lear")
_EXTRA_FEET = ("LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel")
_EXTRA_TIPS = tuple(f"{s}{f}" for s in "lr" for f in ("thumb", "index", "middle", "ring", "pinky"))


@dataclass(frozen=True)
class BodyOutput:
    """`vertices` (B, V, 3) and `joints` (B, J, 3), metres."""

    vertices: Tensor
    joints: Tensor


class BodyModel(nn.Module):
    """One human model: SMPL, SMPL-X, MANO (one side) or FLAME.

    Made by `load_body_model`. Rotations are axis-angle in radians; hand poses are relative to the mean hand,
    as in the release (`use_pca=False, flat_hand_mean=False`). `faces`: (F, 3) int64 numpy; `joint_names`: as
    many as joints; `is_open`: whether it is the shipped open body, on which official regressors are garbage.
    """

    v_template: Tensor
    shapedirs: Tensor
    posedirs: Tensor
    J_regressor: Tensor
    lbs_weights: Tensor
    parents: Tensor
    pose_mean: Tensor
    extra_vertices: Tensor
    lmk_vertices: Tensor
    lmk_faces_idx: Tensor
    lmk_bary_coords: Tensor
    root_template: Tensor
    root_shapedirs: Tensor

    def __init__(self, data: ModelData, *, gender: str, side: str | None, is_open: bool) -> None:
        super().__init__()
        self.model, self.gender, self.side, self.is_open = data.model, gender, side, is_open
        self.source = data.source
        self.faces = data.faces
        self.joint_names = JOINT_SETS[f"mano-{side}" if data.model == "mano" else data.model].joints
        shapedirs = data.shapedirs
        if data.exprdirs is not None:
            shapedirs = np.concatenate([shapedirs, data.exprdirs], 2)
        vertices = len(data.v_template)
        buffers = {
            "v_template": data.v_template,
            "shapedirs": shapedirs,
            "posedirs": np.ascontiguousarray(data.posedirs.reshape(vertices * 3, -1).T),
            "J_regressor": data.J_regressor,
            "lbs_weights": data.weights,
            "pose_mean": _pose_mean(data, side),
            # J0 = root_template + root_shapedirs (betas, expression): the rest root without the mesh.
            "root_template": data.J_regressor[0] @ data.v_template,
            "root_shapedirs": np.einsum("v,vcs->cs", data.J_regressor[0], shapedirs),
        }
        for name, value in buffers.items():
            self.register_buffer(name, torch.tensor(np.asarray(value, np.float32)), persistent=False)
        self.register_buffer("parents", torch.tensor(data.parents), persistent=False)
        self._register_landmarks(data)

    def _register_landmarks(self, data: ModelData) -> None:
        extra: list[int] = []
        if data.model in ("smpl", "smplx"):
            ids = vertex_ids["smplh" if data.model == "smpl" else "smplx"]
            extra = [ids[name] for name in (*_EXTRA_FACE, *_EXTRA_FEET, *_EXTRA_TIPS)]
        self.register_buffer("extra_vertices", torch.tensor(extra, dtype=torch.long), persistent=False)
        faces, weights = np.zeros(0, np.int64), np.zeros((0, 3), np.float32)
        if data.lmk_faces_idx is not None and data.lmk_bary_coords is not None:
            faces, weights = data.lmk_faces_idx, data.lmk_bary_coords
        self.register_buffer("lmk_faces_idx", torch.tensor(faces, dtype=torch.long), persistent=False)
        self.register_buffer("lmk_bary_coords", torch.tensor(weights, dtype=torch.float32), persistent=False)
        self.register_buffer("lmk_vertices", torch.tensor(data.faces, dtype=torch.long), persistent=False)

    @property
    def num_vertices(self) -> int:
        return self.v_template.shape[0]

    def forward(
        self,
        *,
        global_orient: Tensor | None = None,
        body_pose: Tensor | None = None,
        hand_pose: Tensor | None = None,
        left_hand_pose: Tensor | None = None,
        right_hand_pose: Tensor | None = None,
        jaw_pose: Tensor | None = None,
        expression: Tensor | None = None,
        betas: Tensor | None = None,
        transl: Tensor | None = None,
    ) -> BodyOutput:
        """Pose the model. Parameters that the model has and that are not given are zero, in every row.

        Shapes: `global_orient`, `jaw_pose`, `transl` (B, 3); `body_pose` (B, 23, 3) for SMPL or (B, 21, 3)
        for SMPL-X; `hand_pose`, `left_hand_pose`, `right_hand_pose` (B, 15, 3); `betas`, `expression` (B,
        10); rotations also flat. Raises ValueError for a parameter that the model does not have, a wrong
        shape, batches of different sizes, or no parameter at all; TypeError for what is no tensor.
        """
        given = {name: value for name, value in locals().items() if name in _NAMES and value is not None}
        values = self._check(given)
        batch = len(values["transl"])
        if batch == 0:  # which smplx's functions do not take
            empty = values["transl"]
            return BodyOutput(
                empty.new_zeros(0, self.num_vertices, 3), empty.new_zeros(0, len(self.joint_names), 3)
            )
        betas = torch.cat([values[n] for n in ("betas", "expression") if n in values], 1)
        pose = torch.cat([self._rotations(values, *part, batch) for part in _POSE_ORDER[self.model]], 1)
        vertices, joints = lbs(
            betas,
            pose.reshape(batch, -1) + self.pose_mean,
            self.v_template,
            self.shapedirs,
            self.posedirs,
            self.J_regressor,
            self.parents,
            self.lbs_weights,
            pose2rot=True,
        )
        joints = [joints, vertices[:, self.extra_vertices]]
        if len(self.lmk_faces_idx):
            joints.append(
                vertices2landmarks(
                    vertices,
                    self.lmk_vertices,
                    self.lmk_faces_idx.expand(batch, -1).contiguous(),
                    self.lmk_bary_coords.expand(batch, -1, -1).contiguous(),
                )
            )
        transl = values["transl"][:, None]
        return BodyOutput(vertices + transl, torch.cat(joints, 1) + transl)

    def rest_root(self, betas: Tensor, expression: Tensor | None = None) -> Tensor:
        """(B, 10) shapes (and, where the model has them, (B, 10) expressions) -> (B, 3) rest root J0, metres.

        The joint about which the root rotates, before `transl`: SMPL's pelvis, MANO's wrist, FLAME's base.
        """
        codes = betas
        if self.root_shapedirs.shape[1] > betas.shape[1]:
            codes = torch.cat([betas, torch.zeros_like(betas) if expression is None else expression], 1)
        return self.root_template + codes @ self.root_shapedirs.T

    def _check(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        shapes = human_model(self.model).shapes
        strange = [name for name in given if name not in shapes]
        if strange:
            raise ValueError(f"{self.model} has no {', '.join(strange)}; it has {', '.join(shapes)}")
        if not given:
            raise ValueError("no parameter given; pass at least one, its batch size is the bodies'")
        for name, one in given.items():
            if not isinstance(one, Tensor):
                raise TypeError(f"{name} must be a torch tensor, got {type(one).__name__}")
        first = next(iter(given.values()))
        batch = len(first) if first.ndim else 1
        values = {}
        for name, shape in shapes.items():
            value = given.get(name)
            if value is None:
                value = self.v_template.new_zeros(batch, *shape)
            if value.shape == (batch, int(np.prod(shape))):
                value = value.reshape(batch, *shape)
            if value.shape != (batch, *shape):
                raise ValueError(f"{name} must be {(batch, *shape)}, got {tuple(value.shape)}")
            values[name] = value.to(self.v_template)
        return values

    def _rotations(self, values: Mapping[str, Tensor], name: str | None, count: int, batch: int) -> Tensor:
        if name is None:
            return self.v_template.new_zeros(batch, count, 3)
        return values[name].reshape(batch, count, 3)


def _pose_mean(data: ModelData, side: str | None) -> np.ndarray:
    mean = np.zeros((len(data.parents), 3), np.float32)
    if data.model == "smplx":
        mean[25:40] = data.hand_mean["left"].reshape(15, 3)
        mean[40:55] = data.hand_mean["right"].reshape(15, 3)
    elif data.model == "mano" and side is not None:
        mean[1:] = data.hand_mean[side].reshape(15, 3)
    return mean.reshape(-1)


def load_body_model(
    model: str, *, folder: str | os.PathLike | None = None, gender: str = "neutral", side: str | None = None
) -> BodyModel:
    """The model `smpl`, `smplx`, `mano` or `flame` from `folder`, which holds the official files.

    Without `folder`, the one that the environment variable NEURALANNOT_BODY_MODELS names; with neither, the
    open body that ships with this package, whatever the gender: rotations carry over to it, shape codes do
    not, and a warning says so once. `side` (`right`, `left`) is MANO's. A file is read once a process, every
    call gives a model of its own. MANO's left-hand sign bug is fixed here, where both files are at hand.

    Raises FileNotFoundError that names the file, the folder and the site to register at; ValueError for an
    unknown model, gender or side, or a file that is not such a model.
    """
    human_model(model)
    if (side in ("right", "left")) != (model == "mano"):
        raise ValueError(f"side must be 'right' or 'left' for mano and None for the others, got {side!r}")
    if gender not in GENDERS:
        raise ValueError(f"unknown gender {gender!r}; expected one of {', '.join(GENDERS)}")
    folder = folder or os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        _warn_open_body()
        folder = OPEN_FOLDER
    is_open = Path(folder).resolve() == OPEN_FOLDER.resolve()
    if is_open:
        gender = "neutral"
    place = str(Path(folder).resolve())
    data = _read(place, model, gender, side, file_stamp(place, model, gender, side))
    return BodyModel(data, gender=gender, side=side, is_open=is_open).eval()


def file_stamp(folder: str, model: str, gender: str, side: str | None) -> tuple[str, int, int]:
    """What says that a model's file is the same: its path, time and size. Raises as `load_body_model`."""
    path = find_model_file(folder, model, gender=gender, side=side)
    stat = path.stat()
    return str(path), stat.st_mtime_ns, stat.st_size


@functools.lru_cache(maxsize=8)
def _read(folder: str, model: str, gender: str, side: str | None, stamp: object) -> ModelData:
    data = read_model_file(find_model_file(folder, model, gender=gender, side=side), model)
    if side == "left":
        right = read_model_file(find_model_file(folder, model, gender=gender, side="right"), model)
        data = fix_left_hand(data, right)
    return data


def fix_left_hand(left: ModelData, right: ModelData) -> ModelData:
    """The left MANO with the sign of `shapedirs[:, 0, :]` put right, where the file has it wrong.

    The official left-hand file repeats the right hand's values there instead of mirroring them
    (https://github.com/vchoutas/smplx/issues/48); where the two agree (summed absolute difference below 1)
    they are negated, once. A file without the bug is returned as it is.
    """
    from dataclasses import replace

    difference = np.abs(left.shapedirs[:, 0] - right.shapedirs[:, 0]).sum()
    if difference >= _LEFT_HAND_BUG:
        return left
    sign = np.array([-1, 1, 1], np.float32)[:, None]
    return replace(left, shapedirs=left.shapedirs * sign)


@functools.cache
def _warn_open_body() -> None:
    warnings.warn(
        "no official body models given: the open SMPL-layout body serves. Rotations carry over to it, shape "
        "and expression codes do not, so bodies have the pose but not the build of the annotation. Give the "
        f"folder of official files as body_models= or in {FOLDER_VARIABLE}",
        **_CALLER,
    )


# The warning names the user's line where Python can (3.12), not one of ours.
_CALLER: dict[str, Any] = (
    {"skip_file_prefixes": (str(Path(__file__).parent.parent),)}
    if sys.version_info >= (3, 12)
    else {"stacklevel": 2}
)
