"""The four human models as torch modules: exact to smplx, only what is asked for computed."""

from __future__ import annotations

import copy
import functools
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralannot.body_models.files import ModelData, find_model_file, read_model_file
from neuralannot.body_models.landmarks import Landmarks, landmarks_of
from neuralannot.body_models.moments import JointMoments, joined, moments_of_bones, moments_of_vertices
from neuralannot.body_models.precision import full_precision
from neuralannot.body_models.skeleton import Skeleton, joints_of_parameters, levels_first, resting_joints
from neuralannot.body_models.surface import Surface
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.parameters import GENDERS, human_model

if TYPE_CHECKING:
    from neuralannot.body_models.joints import JointRegressor

FOLDER_VARIABLE = "NEURALANNOT_BODY_MODELS"
OPEN_FOLDER = Path(__file__).parent / "open"

# MANO's left-hand model has the sign of `shapedirs[:, 0]` wrong; where left and right agree in it, it is
# that file.
_LEFT_HAND_BUG = 1.0


@dataclass(frozen=True)
class BodyOutput:
    """`vertices` (B, V, 3) and `joints` (B, J, 3), metres."""

    vertices: Tensor
    joints: Tensor


@dataclass(frozen=True, eq=False)
class BodyInfo:
    """What a body model is: see `BodyModel`."""

    model: str
    gender: str
    side: str | None
    is_open: bool
    source: Path
    faces: np.ndarray
    joint_names: tuple[str, ...]


class BodyModel(nn.Module):
    """One human model: SMPL, SMPL-X, MANO (one side) or FLAME.

    Made by `load_body_model`. Rotations are axis-angle in radians; hand poses are relative to the mean hand,
    as in the release (`use_pca=False, flat_hand_mean=False`). `faces`: (F, 3) int64 numpy; `joint_names`: as
    many as joints; `is_open`: whether it is the shipped open body, on which official regressors are garbage.

    Calls, `joints` and `skeleton` take the same parameters, any batch; what is not given is zero in every
    row, what is given for one body holds for all. Shapes: `global_orient`, `jaw_pose`, `transl` (B, 3);
    `body_pose` (B, 23, 3) for SMPL or (B, 21, 3) for SMPL-X; `hand_pose`, `left_hand_pose`,
    `right_hand_pose` (B, 15, 3); `betas`, `expression` (B, 10); rotations also flat. They are taken in the
    model's dtype and computed in it under autocast too. Results are differentiable in every one, twice if
    need be. All raise ValueError for a parameter that the model does not have, a wrong shape, batches of
    different sizes, or no parameter at all; TypeError for what is no tensor.
    """

    J_regressor: Tensor
    if TYPE_CHECKING:  # torch says Any of its modules

        def __call__(self, **parameters: Tensor) -> BodyOutput: ...

    def __init__(
        self, info: BodyInfo, skeleton: Skeleton, surface: Surface, landmarks: Landmarks, J_regressor: Tensor
    ):
        super().__init__()
        self.model, self.gender, self.side, self.is_open = info.model, info.gender, info.side, info.is_open
        self.source, self.faces, self.joint_names = info.source, info.faces, info.joint_names
        self._info = info
        self._skeleton, self._surface, self._landmarks = skeleton, surface, landmarks
        self.register_buffer("J_regressor", J_regressor, persistent=False)

    @property
    def num_vertices(self) -> int:
        return self._surface.num_vertices

    @property
    def vertex_joints(self) -> Tensor:
        """(E,) int64: the vertices that are joints, those after the skeleton's in `joint_names`, smplx's."""
        return self._landmarks.vertices

    @property
    def parents(self) -> Tensor:
        """(J,) int64: each joint's parent, -1 for the root's."""
        return torch.tensor(self._skeleton.parents)

    @property
    def v_template(self) -> Tensor:
        """(V, 3) metres, the mesh at rest and of mean shape; put together at each access."""
        return self._surface.dense()[0][0].T.contiguous()

    @property
    def shapedirs(self) -> Tensor:
        """(V, 3, S) metres a unit of shape, then expression; put together at each access."""
        count = len(self._skeleton.shapes)
        return self._surface.dense()[0][1 : 1 + count].permute(2, 1, 0).contiguous()

    @property
    def lbs_weights(self) -> Tensor:
        """(V, J) skinning weights; put together at each access."""
        weights = self._surface.dense()[1].index_select(0, self._skeleton.natural)
        return weights.T.contiguous()

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
        """Pose the whole mesh; see the class for parameters and errors."""
        values = self._skeleton.check(
            {
                "global_orient": global_orient,
                "body_pose": body_pose,
                "hand_pose": hand_pose,
                "left_hand_pose": left_hand_pose,
                "right_hand_pose": right_hand_pose,
                "jaw_pose": jaw_pose,
                "expression": expression,
                "betas": betas,
                "transl": transl,
            }
        )
        with full_precision(self.J_regressor.device.type):
            shift = values["transl"]
            features, transforms, joints = self._skeleton(values)
            vertices = self._surface(features, transforms, shift)
            joints = joints + shift[:, None]
            if len(self._landmarks):
                joints = torch.cat([joints, self._landmarks.on_mesh(vertices, shift)], 1)
        return BodyOutput(vertices, joints)

    def joints(self, **parameters: Tensor) -> Tensor:
        """(B, J, 3) metres: the joints of a call, of the mesh only the vertices that are joints posed."""
        values = self._skeleton.check(parameters)
        with full_precision(self.J_regressor.device.type):
            shift = values["transl"]
            features, transforms, own = self._skeleton(values)
            joints: Tensor = own + shift[:, None]
            if len(self._landmarks):
                joints = torch.cat([joints, self._landmarks(features, transforms, shift)], 1)
        return joints

    def skeleton(self, **parameters: Tensor) -> Tensor:
        """(B, J, 3) metres: the first of the joints, those that bones meet in; no vertex is posed."""
        values = self._skeleton.check(parameters)
        with full_precision(self.J_regressor.device.type):
            return self._skeleton.joints(values) + values["transl"][:, None]

    def rest_root(self, betas: Tensor, expression: Tensor | None = None) -> Tensor:
        """(B, 10) shapes (and, where the model has them, (B, 10) expressions) -> (B, 3) rest root J0, metres.

        The joint about which the root rotates, before `transl`: SMPL's pelvis, MANO's wrist, FLAME's base.
        """
        if "betas" not in self._skeleton.parameters_of_row:
            raise ValueError("this model has a shape already; ask the one that it was made from")
        codes = [betas]
        if "expression" in self._skeleton.parameters_of_row:
            codes.append(torch.zeros_like(betas) if expression is None else expression)
        with full_precision(self.J_regressor.device.type):
            return self._skeleton.rest_joints(*(code.to(self.J_regressor) for code in codes))[:, 0]

    def with_shape(self, betas: Tensor) -> BodyModel:
        """The model of one person: `betas` (10,) are part of it and no parameter any more.

        For sequences, and wherever the shape is known: what depends on it alone is computed once, here. No
        gradient flows to `betas`. Raises ValueError for another shape.
        """
        if betas.shape not in ((10,), (1, 10)):
            raise ValueError(f"betas must be (10,), one person's, got {tuple(betas.shape)}")
        if "betas" not in self._skeleton.parameters_of_row:
            raise ValueError("this model has a shape already; take with_shape of the one it was made from")
        # What is made for inference only could not be trained with later.
        with torch.inference_mode(False), torch.no_grad(), full_precision(self.J_regressor.device.type):
            codes = betas.detach().clone().reshape(10).to(self.J_regressor)
            return BodyModel(
                self._info,
                self._skeleton.with_betas(codes),
                self._surface.with_features(codes),
                self._landmarks.with_features(codes),
                self.J_regressor,
            ).train(self.training)

    @property
    def pose_mean(self) -> Tensor:
        """(J, 3) radians that are added to the pose: the mean hands, zero elsewhere."""
        return self._skeleton.mean[:, 0].index_select(0, self._skeleton.natural)

    def joints_of_parameters(self) -> dict[str, list[int]]:
        """Rotation parameter -> the numbers of the joints that it turns."""
        return joints_of_parameters(self.model)

    def moments(self) -> JointMoments:
        """All joints, with their derivatives: see `JointMoments`."""
        skeleton, surface = self._skeleton, self._landmarks.surface
        rest = skeleton.rest_directions()
        parts = [moments_of_bones(skeleton.parents, rest, range(len(rest)))]
        if len(self._landmarks):
            parts.append(_moments(skeleton, surface, self._landmarks.weights_of_vertices()))
        return joined(parts)

    def points(self, of: JointRegressor | Sequence[int] | np.ndarray) -> BodyPoints:
        """The module that poses these points alone: the joints of a regressor, or vertices by number.

        Posed are the vertices that the regressor has weights for (some 100 of SMPL's 6890 for Human3.6M's).
        Raises ValueError for a regressor of other vertices, IndexError for a vertex that is not there.
        """
        weights = getattr(of, "weights", None)
        if weights is None:
            vertices = np.asarray(of)
            if vertices.ndim != 1 or (vertices.dtype.kind not in "iu" and len(vertices)):
                raise ValueError(f"vertices must be a list of numbers, got {vertices.dtype} {vertices.shape}")
            outside = vertices[(vertices < 0) | (vertices >= self.num_vertices)]
            if len(outside):
                raise IndexError(f"vertex {outside[0]}: {self.model} has {self.num_vertices}")
        else:
            if weights.shape[1] != self.num_vertices:
                raise ValueError(f"a regressor must be (K, {self.num_vertices}), got {weights.shape}")
            vertices = np.flatnonzero((weights != 0).any(0))
        with torch.inference_mode(False), torch.no_grad():
            if weights is not None:
                weights = torch.tensor(weights[:, vertices]).to(self.J_regressor)
            chosen = torch.tensor(vertices.astype(np.int64), device=self.J_regressor.device)
            skeleton = copy.deepcopy(self._skeleton)  # moving the one to another device leaves the other
            return BodyPoints(skeleton, self._surface.take(chosen), weights).train(self.training)


class BodyPoints(nn.Module):
    """Some points of a `BodyModel`, made by its `points`: light to keep, to pickle and to call."""

    weights: Tensor | None

    def __init__(self, skeleton: Skeleton, surface: Surface, weights: Tensor | None) -> None:
        super().__init__()
        self._skeleton, self._surface = skeleton, surface
        self.register_buffer("weights", weights, persistent=False)

    def __len__(self) -> int:
        return self._surface.num_vertices if self.weights is None else len(self.weights)

    def moments(self) -> JointMoments:
        """The same points, with their derivatives: see `JointMoments`."""
        weights = self.weights
        if weights is None:
            weights = torch.eye(len(self)).to(self._skeleton.template)
        return _moments(self._skeleton, self._surface, weights)

    def forward(self, **parameters: Tensor) -> Tensor:
        """(B, K, 3) metres; parameters and errors as of `BodyModel`."""
        values = self._skeleton.check(parameters)
        with full_precision(self._skeleton.template.device.type):
            features, transforms, _ = self._skeleton(values)
            posed = self._surface(features, transforms, values["transl"])
            return posed if self.weights is None else torch.matmul(self.weights, posed)


def _moments(skeleton: Skeleton, surface: Surface, weights: Tensor) -> JointMoments:
    """Of (K, V) weights of a surface's vertices; bones and features in the model files' order."""
    directions, skinning = surface.dense()
    return moments_of_vertices(
        skeleton.parents,
        skeleton.rest_directions(),
        skeleton.in_files_order(directions),
        skinning.index_select(0, skeleton.natural),
        weights.to(directions),
    )


def body_model(
    data: ModelData, *, gender: str, side: str | None, is_open: bool, dtype: torch.dtype
) -> BodyModel:
    """The model of a file's arrays, in `dtype`."""
    joints, resting = len(data.parents), resting_joints(data.model)
    shapedirs = (
        data.shapedirs if data.exprdirs is None else np.concatenate([data.shapedirs, data.exprdirs], 2)
    )
    correctives = np.array(data.posedirs.transpose(2, 1, 0).reshape(joints - 1, 9, 3, -1))
    mean, order = _pose_mean(data, side), levels_first(data.parents)
    for joint in resting:
        if not mean[joint].any():
            correctives[joint - 1] = 0  # never used: not worth the product
    correctives = correctives[order[1:] - 1]
    directions = np.concatenate(
        [
            data.v_template.T[None],
            shapedirs.transpose(2, 1, 0),
            correctives.reshape(-1, 3, len(data.v_template)),
        ]
    )
    # The joints at rest follow from the codes alone; in double precision, since they are made once.
    regressor = data.J_regressor.astype(np.float64)
    skeleton = Skeleton(
        data.model,
        torch.tensor(regressor @ data.v_template).to(dtype),
        torch.tensor(np.einsum("jv,vcs->sjc", regressor, shapedirs, optimize=True)).to(dtype),
        data.parents,
        torch.tensor(mean).to(dtype),
    )
    surface = Surface(torch.tensor(directions).to(dtype), torch.tensor(data.weights.T[order]).to(dtype))
    names = JOINT_SETS[f"mano-{side}" if data.model == "mano" else data.model].joints
    info = BodyInfo(data.model, gender, side, is_open, data.source, data.faces, names)
    regressor_tensor = torch.tensor(data.J_regressor).to(dtype)
    return BodyModel(info, skeleton, surface, landmarks_of(data, surface), regressor_tensor).eval()


def _pose_mean(data: ModelData, side: str | None) -> np.ndarray:
    """(J, 3) radians."""
    mean = np.zeros((len(data.parents), 3), data.v_template.dtype)
    if data.model == "smplx":
        mean[25:40] = data.hand_mean["left"].reshape(15, 3)
        mean[40:55] = data.hand_mean["right"].reshape(15, 3)
    elif data.model == "mano" and side is not None:
        mean[1:] = data.hand_mean[side].reshape(15, 3)
    return mean


def load_body_model(
    model: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    gender: str = "neutral",
    side: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> BodyModel:
    """The model `smpl`, `smplx`, `mano` or `flame` from `folder`, which holds the official files.

    Without `folder`, the one that the environment variable NEURALANNOT_BODY_MODELS names; with neither, the
    open body that ships with this package, of any gender: rotations carry over to it, shape codes do not,
    and a warning says so once. `side` (`right`, `left`) is MANO's. `dtype`: float32 or float64, to which
    the file's numbers are kept; `.double()` later keeps float32's. A file is read once a process and
    its arrays are kept (SMPL-X: some 100 MB; of the last eight files), every call gives a model of its own.
    MANO's left-hand sign bug is fixed here, where both files are at hand.

    Raises FileNotFoundError that names the file, the folder and the site to register at; ValueError for an
    unknown model, gender or side, or a file that is not such a model.
    """
    human_model(model)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
    if (side in ("right", "left")) != (model == "mano"):
        raise ValueError(f"side must be 'right' or 'left' for mano and None for the others, got {side!r}")
    if gender not in GENDERS:
        raise ValueError(f"unknown gender {gender!r}; expected one of {', '.join(GENDERS)}")
    folder = folder or os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        warn_open_body()
        folder = OPEN_FOLDER
    is_open = Path(folder).resolve() == OPEN_FOLDER.resolve()
    place = str(Path(folder).resolve())
    data = _read(place, model, gender, side, dtype, file_stamp(place, model, gender, side))
    with torch.inference_mode(False):  # what is made for inference only could not be trained with later
        return body_model(data, gender=gender, side=side, is_open=is_open, dtype=dtype)


def file_stamp(folder: str, model: str, gender: str, side: str | None) -> tuple[tuple[str, int, int], ...]:
    """What says that the files a model is read from are the same: paths, times and sizes.

    A left hand is put right by way of the right one; FLAME has its landmarks in a file of their own. Raises
    as `load_body_model`.
    """
    paths = [find_model_file(folder, model, gender=gender, side=side)]
    if side == "left":
        paths.append(find_model_file(folder, model, gender=gender, side="right"))
    if model == "flame":
        beside = sorted(paths[0].parent.iterdir())
        paths += [path for path in beside if path.name.lower() == "flame_static_embedding.pkl"]
    stats = [(path, path.stat()) for path in paths]
    return tuple((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in stats)


@functools.lru_cache(maxsize=8)
def _read(
    folder: str, model: str, gender: str, side: str | None, dtype: torch.dtype, stamp: object
) -> ModelData:
    kind = np.float64 if dtype == torch.float64 else np.float32
    data = read_model_file(find_model_file(folder, model, gender=gender, side=side), model, dtype=kind)
    if side == "left":
        path = find_model_file(folder, model, gender=gender, side="right")
        right = read_model_file(path, model, dtype=kind)
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
    sign = np.array([-1, 1, 1], left.shapedirs.dtype)[:, None]
    return replace(left, shapedirs=left.shapedirs * sign)


@functools.cache
def warn_open_body() -> None:
    """Warn, once a process, that no official body models were given."""
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
