"""Forwarding annotations through body models: parameters in, vertices and joints in metres out."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from neuralannot.cameras import Camera
from neuralannot.parameters import GENDERS, PART_PARAMETERS, SIDES, human_model

if TYPE_CHECKING:
    import torch

    from neuralannot.body_models.joints import JointRegressor
    from neuralannot.body_models.model import BodyModel, BodyPoints
    from neuralannot.pseudo_gt import PseudoGT

MAX_BYTES = 4_000_000_000


@dataclass(frozen=True, eq=False)
class Bodies:
    """B posed bodies.

    `vertices`: (B, V, 3) float32 metres, None where only joints were asked for; `joints`: (B, J, 3) float32
    metres; `joint_names`: J names, for hands of both sides without `right_` and `left_`; `faces`: (F, 3)
    int64, for hands of both sides a dict side -> (F, 3); `space`: `camera` or `world`; `camera`: B cameras,
    at the origin where the bodies are in camera space, None where there are none, and `camera_problem` says
    why; `sides`: (B,) of hands.
    """

    vertices: torch.Tensor | None
    joints: torch.Tensor
    joint_names: tuple[str, ...]
    faces: np.ndarray | dict[str, np.ndarray]
    space: str
    camera: Camera | None
    sides: np.ndarray | None = None
    camera_problem: str = ""

    def __len__(self) -> int:
        return len(self.joints)

    def faces_of(self, row: int) -> np.ndarray:
        """(F, 3) faces of one body, whatever its side."""
        if isinstance(self.faces, dict):
            assert self.sides is not None
            return self.faces[str(self.sides[row])]
        return self.faces

    def project(self, what: Literal["joints", "vertices"] = "joints") -> torch.Tensor:
        """(B, J, 2) px of the joints, or (B, V, 2) with `what="vertices"`; NaN behind the camera.

        In the pixels of the original image. Bodies in world space pass through their cameras' extrinsics.
        Raises ValueError where there is no camera, or no vertices were asked for.
        """
        if what not in ("joints", "vertices"):
            raise ValueError(f"project takes 'joints' or 'vertices', got {what!r}")
        points = self.joints if what == "joints" else self.vertices
        if points is None:
            raise ValueError("there are no vertices to project: forward with want='mesh'")
        if self.camera is None:
            raise ValueError(f"there is no camera to project with: {self.camera_problem}")
        if self.space == "world":
            points = self.camera.world_to_camera(points)
        return self.camera.project(points)

    def overlay(self, image: np.ndarray, *, colors: Any = None, opacity: float = 0.85) -> np.ndarray:
        """The bodies drawn over their image, each with its own camera, nearer ones in front.

        `image`: (H, W, 3) uint8 RGB, the original image that all of the bodies are annotated in. Returns a
        new (H, W, 3) uint8 RGB. `colors`, `opacity`, what is raised: see `neuralannot.render.render_bodies`.
        """
        from neuralannot.render import render_bodies

        return render_bodies(image, self, colors=colors, opacity=opacity)


def forward_batches(
    gt: PseudoGT,
    *,
    want: str,
    body_models: str | os.PathLike[str] | None,
    space: str,
    regressor: Any,
    only_valid: bool,
    device: Any,
    batch_size: int,
) -> Iterator[Bodies]:
    """The bodies of all rows of `gt`, `batch_size` at a time; see `PseudoGT.forward`."""
    if want not in ("mesh", "joints"):
        raise ValueError(f"want must be 'mesh' or 'joints', got {want!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    _check_device(device)
    _check_space(gt, space)
    # A generator checks nothing until it is asked for its first batch: the checks above come before it.
    return (
        _forward(gt[first : first + batch_size], want, body_models, space, regressor, only_valid, device)
        for first in range(0, len(gt), batch_size)
    )


def forward(gt: PseudoGT, **options: Any) -> Bodies:
    """The bodies of all rows of `gt` at once; see `PseudoGT.forward`."""
    import torch

    model = human_model(gt.model)
    points = model.num_joints + (model.num_vertices if options["want"] == "mesh" else 0)
    size = 12 * points * len(gt)
    if size > MAX_BYTES:
        raise ValueError(
            f"{len(gt)} bodies of {gt.model} take {size / 1e9:.1f} GB, more than {MAX_BYTES / 1e9:.0f}; "
            "use forward_batches(...), or want='joints'"
        )
    parts = list(forward_batches(gt, **options))
    if not parts:
        return _no_bodies(gt, options)
    if len(parts) == 1:
        return parts[0]
    meshes = [p.vertices for p in parts if p.vertices is not None]
    vertices = torch.cat(meshes) if meshes else None
    joints = torch.cat([p.joints for p in parts])
    faces: dict[str, np.ndarray] = {}
    for part in parts:
        if isinstance(part.faces, dict):
            faces |= part.faces
        elif part.sides is not None:
            faces[str(part.sides[0])] = part.faces
    names = functools.reduce(_common_names, (p.joint_names for p in parts))
    return _bodies(gt, vertices, joints, names, parts[0].faces if len(faces) < 2 else faces, parts[0].space)


def _check_device(device: Any) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used: {reason:.120}") from None


def _check_space(gt: PseudoGT, space: str) -> None:
    if space not in ("camera", "world"):
        raise ValueError(f"space must be 'camera' or 'world', got {space!r}")
    if gt.space == "camera" and space == "world":
        raise ValueError(f"{gt.release}: its fits are in the camera's space, there is no world to forward to")
    if gt.space == "world" and space == "camera":
        gt.require_camera()


def _forward(
    gt: PseudoGT,
    want: str,
    body_models: str | os.PathLike[str] | None,
    space: str,
    regressor: Any,
    only_valid: bool,
    device: Any,
) -> Bodies:
    """One batch: rows of one gender and side go through their model together, then back to their places."""
    import torch

    params = {name: gt.params[name] for name in gt.params}
    if only_valid:
        params = zero_invalid(params, {part: gt.valid[part] for part in gt.valid})
    vertices: torch.Tensor | None = None
    joints: torch.Tensor | None = None
    names: tuple[str, ...] = ()
    faces: dict[str, np.ndarray] = {}
    for gender, side, rows in model_groups(gt):
        model = model_on(gt.model, body_models, gender, side, str(device or "cpu"))
        where = model.J_regressor.device
        with torch.no_grad():
            given = {name: torch.tensor(v[rows], device=where) for name, v in params.items()}
            mesh, posed, own = _pose(model, given, want, regressor)
        names = _common_names(names or own, own)
        if len(rows) == len(gt):
            vertices, joints = mesh, posed
        else:
            if joints is None:
                joints = posed.new_empty(len(gt), *posed.shape[1:])
                vertices = None if mesh is None else mesh.new_empty(len(gt), *mesh.shape[1:])
            index = torch.tensor(rows, device=where)
            joints[index] = posed
            if vertices is not None and mesh is not None:
                vertices[index] = mesh
        faces[side or ""] = model.faces
    assert joints is not None
    if gt.space == "world" and space == "camera":
        camera = gt.require_camera()
        joints = camera.world_to_camera(joints)
        vertices = None if vertices is None else camera.world_to_camera(vertices)
    only = next(iter(faces.values())) if len(faces) == 1 else faces
    return _bodies(gt, vertices, joints, names, only, space)


def _pose(
    model: BodyModel, given: dict[str, torch.Tensor], want: str, regressor: Any
) -> tuple[torch.Tensor | None, torch.Tensor, tuple[str, ...]]:
    """Vertices where they are wanted, joints, and the joints' names."""
    if regressor is not None:
        fitting = regressor_for(model, regressor)
        mesh = model(**given).vertices if want == "mesh" else None
        return mesh, _points_on(model, fitting)(**given), fitting.names
    if want == "joints":
        return None, model.joints(**given), model.joint_names
    out = model(**given)
    return out.vertices, out.joints, model.joint_names


@functools.lru_cache(maxsize=32)
def _points_on(model: BodyModel, regressor: JointRegressor) -> BodyPoints:
    return model.points(regressor)


def _bodies(
    gt: PseudoGT,
    vertices: torch.Tensor | None,
    joints: torch.Tensor,
    names: tuple[str, ...],
    faces: np.ndarray | dict[str, np.ndarray],
    space: str,
) -> Bodies:
    camera = _camera_in(gt, space)
    problem = "" if camera is not None else gt.camera_problem
    return Bodies(vertices, joints, names, faces, space, camera, gt.side, problem)


def _camera_in(gt: PseudoGT, space: str) -> Camera | None:
    """The rows' cameras for bodies in `space`: in camera space they stand at the origin."""
    camera = gt.camera
    if camera is None or space == "world":
        return camera
    return Camera.from_intrinsics(camera.focal, camera.princpt, camera.image_size)


def _common_names(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """The names of joints that are both: those of a right and a left hand lose their side."""
    if one == other:
        return one
    return tuple(name.removeprefix("right_").removeprefix("left_") for name in one)


def zero_invalid(params: dict[str, np.ndarray], valid: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters with those of parts flagged invalid set to zero, as the release's loaders do."""
    out = dict(params)
    for part, names in PART_PARAMETERS.items():
        for name in names:
            if part in valid and name in out:
                keep = valid[part].reshape(-1, *[1] * (out[name].ndim - 1))
                out[name] = np.where(keep, out[name], np.float32(0))
    return out


def model_groups(gt: PseudoGT) -> Iterator[tuple[str, str | None, np.ndarray]]:
    """Rows by gender and, for hands, side: (gender, side, (M,) row numbers), none of them empty."""
    genders, sides = gt.gender, gt.side
    for gender in GENDERS:
        for side in SIDES if sides is not None else (None,):
            mask = genders == gender
            if side is not None and sides is not None:
                mask = mask & (sides == side)
            rows = np.flatnonzero(mask)
            if len(rows):
                yield gender, side, rows


@functools.lru_cache(maxsize=16)
def _model_on(
    model: str, folder: str | None, gender: str, side: str | None, device: str, stamp: object
) -> BodyModel:
    from neuralannot.body_models import load_body_model

    return load_body_model(model, folder=folder, gender=gender, side=side).to(device)


def model_on(
    model: str, folder: str | os.PathLike[str] | None, gender: str, side: str | None, device: str = "cpu"
) -> BodyModel:
    """The body model on a device, kept while its file stays. MANO has no gender."""
    from neuralannot.body_models.model import FOLDER_VARIABLE, file_stamp

    folder = folder or os.environ.get(FOLDER_VARIABLE)
    gender = "neutral" if model == "mano" else gender
    if folder is None:
        return _model_on(model, None, gender, side, device, None)
    place = str(Path(folder).resolve())
    return _model_on(model, place, gender, side, device, file_stamp(place, model, gender, side))


def rest_roots(gt: PseudoGT, body_models: str | os.PathLike[str] | None) -> np.ndarray:
    """(N, 3) float32 metres; see `PseudoGT.rest_root`."""
    import torch

    roots = np.zeros((len(gt), 3), np.float32)
    betas, expression = gt.params["betas"], gt.params.get("expression")
    for gender, side, rows in model_groups(gt):
        model = model_on(gt.model, body_models, gender, side)
        codes = None if expression is None else torch.tensor(expression[rows])
        roots[rows] = model.rest_root(torch.tensor(betas[rows]), codes).numpy()
    return roots


def regressor_for(model: BodyModel, regressor: Any) -> JointRegressor:
    """The regressor asked for (name, array, file or `JointRegressor`), checked against the model."""
    from neuralannot.body_models.joints import joint_regressor

    return joint_regressor(regressor, model)


def _no_bodies(gt: PseudoGT, options: dict[str, Any]) -> Bodies:
    import torch

    side = None if gt.side is None else "right"
    model = model_on(gt.model, options["body_models"], "neutral", side)
    names, joints = model.joint_names, len(model.joint_names)
    if options["regressor"] is not None:
        names = regressor_for(model, options["regressor"]).names
        joints = len(names)
    vertices = torch.zeros(0, model.num_vertices, 3) if options["want"] == "mesh" else None
    empty = torch.zeros(0, joints, 3)
    return _bodies(gt, vertices, empty, names, model.faces, options["space"])
