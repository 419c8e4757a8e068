"""Where a network's parameters belong: translations in closed form, the world's frame, the left hand.

A network sees a crop and gives parameters in a camera's frame. With 3D joints the translation needs no
network: it is a mean. In the wild the crop's virtual camera (focal 5000, principal point 128 of 256 px)
becomes a camera of the whole image by `boxes.virtual_camera(processed_box)`; the parameters stay as they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from neuralannot.cameras import Camera
from neuralannot.joint_sets import JointSet
from neuralannot.parameters import GENDERS, SIDES, human_model
from neuralannot.transforms import mirror_parameters, rigid_parameters

__all__ = [
    "PosedJoints",
    "camera_to_world",
    "place_by_joints",
    "pose_joints",
    "rest_roots",
    "translation_from_joints",
    "unflip_hands",
]

#: Parameters by smplx's names, (M, ...) each, and the rows (M,) that they are of -> (M, J, 3) joints, metres.
PosedJoints = Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]


def translation_from_joints(
    posed: np.ndarray, target: np.ndarray, valid: np.ndarray | None = None
) -> np.ndarray:
    """(N, 3) float32 metres: what to add to `posed` to come closest to `target`, in the least squares.

    `posed`, `target` (N, J, 3) metres in one frame, whichever; `valid` (N, J) bool, all where None. The mean
    of the differences over the valid joints, in float64; NaN where there is none. A valid joint that is not
    finite makes its row NaN: mark what is missing. Raises ValueError where shapes do not fit.
    """
    posed, target = np.asarray(posed), np.asarray(target)
    if posed.ndim != 3 or posed.shape[-1] != 3 or posed.shape != target.shape:
        raise ValueError(f"posed and target must both be (N, J, 3), got {posed.shape} and {target.shape}")
    mask = np.ones(posed.shape[:2], bool) if valid is None else np.asarray(valid, bool)
    if mask.shape != posed.shape[:2]:
        raise ValueError(f"valid must be {posed.shape[:2]} like the joints, got {mask.shape}")
    difference = np.where(mask[..., None], target.astype(np.float64) - posed, 0)
    count = mask.sum(axis=1, keepdims=True)
    mean = difference.sum(axis=1) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan).astype(np.float32)


def place_by_joints(
    params: Mapping[str, np.ndarray],
    target: np.ndarray,
    valid: np.ndarray | None,
    joints_of: PosedJoints,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The parameters with the translation that `translation_from_joints` gives, and the joint error left.

    `params`: name -> (N, ...); a `transl` among them is replaced. `target` (N, J, 3) metres in the frame of
    the parameters, `valid` (N, J); `joints_of`: see `PosedJoints` (`pose_joints` makes joints); those that it
    makes NaN count as not valid.
    Returns new parameters and the error (N,) float32 metres, the mean distance over the valid joints. Both
    are NaN where no joint is valid: such a row has no place, and must not be written.
    """
    from neuralannot.metrics import mpjpe

    at_origin = {**params, "transl": np.zeros((len(target), 3), np.float32)}
    posed = joints_of(at_origin, np.arange(len(target)))
    known = np.isfinite(posed).all(axis=-1)
    mask = np.asarray(known if valid is None else known & np.asarray(valid, bool))
    transl = translation_from_joints(posed, target, mask)
    moved = posed.astype(np.float32) + transl[:, None]
    error = mpjpe(moved, np.asarray(target, np.float32), valid=mask)
    return {**at_origin, "transl": transl}, error


def pose_joints(
    model: str,
    params: Mapping[str, np.ndarray],
    joint_set: JointSet,
    *,
    regressors: Mapping[str, Any] | None = None,
    side: np.ndarray | None = None,
    gender: np.ndarray | None = None,
    body_models: str | os.PathLike[str] | None = None,
    device: Any = None,
    batch_size: int = 1024,
) -> np.ndarray:
    """(N, J, 3) float32 metres: a joint set's joints of bodies, where their parameters put them.

    `model`: `smpl`, `smplx`, `mano` or `flame`; `params`: smplx's names -> (N, ...), those not given zero.
    `joint_set`, `regressors`: see `joint_points`, the joints that training sees; those that the body cannot
    give are NaN. `side` (N,) for hands, whose set has the right hand's names: left ones are posed as their
    mirror images. `gender` (N,), neutral where None; `body_models`, `device` as of `PseudoGT.forward`.
    Raises ValueError for hands without `side`, for an unknown parameter, side or gender, and as
    `joint_points`; FileNotFoundError for body model files.
    """
    import torch

    from neuralannot.bodies import model_on
    from neuralannot.train.joint_points import joint_points

    sizes = {name: len(values) for name, values in params.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"params must all have the same number of rows, got {sizes}")
    count = next(iter(sizes.values()))
    if side is not None and model == "mano":
        params = unflip_hands(params, side)  # left hands as right ones: the inverse is the same
    joints = np.full((count, len(joint_set), 3), np.nan, np.float32)
    for of_gender, rows in _genders(model, count, side, gender):
        one_side = "right" if model == "mano" else None
        body = model_on(model, body_models, of_gender, one_side, str(device or "cpu"))
        where = body.J_regressor.device
        points = joint_points(body, [joint_set], regressors).to(where)
        known = points.known.cpu().numpy()
        for first in range(0, len(rows), batch_size):
            batch = rows[first : first + batch_size]
            with torch.no_grad():
                given = {n: torch.tensor(np.asarray(v)[batch], device=where) for n, v in params.items()}
                posed = points(**given).cpu().numpy()
            joints[batch] = np.where(known[:, None], posed, np.float32(np.nan))
    if side is not None:
        joints[np.asarray(side) == "left"] *= np.array([-1, 1, 1], np.float32)
    return joints


def _genders(
    model: str, count: int, side: np.ndarray | None, gender: np.ndarray | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Rows that go through one body model together."""
    human_model(model)
    if (side is None) == (model == "mano"):
        raise ValueError(f"side must be (N,) of {', '.join(SIDES)} for mano and None for the others")
    genders = np.full(count, "neutral") if gender is None else np.asarray(gender)
    if genders.shape != (count,) or not np.isin(genders, GENDERS).all():
        raise ValueError(f"gender must be ({count},) of {', '.join(GENDERS)}, got {genders!r:.80}")
    for of_gender in np.unique(genders).tolist():
        yield of_gender, np.flatnonzero(genders == of_gender)


def rest_roots(
    model: str,
    params: Mapping[str, np.ndarray],
    *,
    side: np.ndarray | None = None,
    gender: np.ndarray | None = None,
    body_models: str | os.PathLike[str] | None = None,
) -> np.ndarray:
    """(N, 3) float32 metres: J0 of each shaped body (see `camera_to_world`), of hands on their own side.

    Arguments and errors as of `pose_joints`; of `params` only `betas` and, where there is one, `expression`.
    """
    import torch

    from neuralannot.bodies import model_on

    betas, expression = np.asarray(params["betas"], np.float32), params.get("expression")
    sides = np.full(len(betas), "") if side is None else np.asarray(side)
    if side is not None:
        _check_side(sides, len(betas))
    roots = np.zeros((len(betas), 3), np.float32)
    for of_gender, rows in _genders(model, len(betas), side, gender):
        for of_side in np.unique(sides[rows]).tolist():
            here = rows[sides[rows] == of_side]
            body = model_on(model, body_models, of_gender, of_side or None)
            codes = None if expression is None else torch.tensor(np.asarray(expression, np.float32)[here])
            roots[here] = body.rest_root(torch.tensor(betas[here]), codes).numpy()
    return roots


def camera_to_world(
    params: Mapping[str, np.ndarray], camera: Camera, rest_root: np.ndarray
) -> dict[str, np.ndarray]:
    """Camera-space parameters -> those of the same bodies in the world: the inverse of `to_camera_space`.

    `params`: name -> (N, ...) with `global_orient` and `transl` (N, 3); `camera`: N cameras with
    `X_cam = R X_world + t`; `rest_root` (N, 3) metres: J0, the shaped body's root joint at rest
    (`BodyModel.rest_root`), of the model of the row's own side and gender. Other parameters are passed on.
    Raises ValueError where shapes do not fit.
    """
    # The inverse and not the transpose: cameras of files are rotations to some six digits only.
    back = np.linalg.inv(camera.R.astype(np.float64)).reshape(-1, 3, 3)
    shift = -np.einsum("nij,nj->ni", back, camera.t.astype(np.float64))
    root, transl = rigid_parameters(
        np.asarray(params["global_orient"]), np.asarray(params["transl"]), np.asarray(rest_root), back, shift
    )
    return {**params, "global_orient": root, "transl": transl}


def unflip_hands(params: Mapping[str, np.ndarray], side: np.ndarray) -> dict[str, np.ndarray]:
    """Hands as a network saw them, all right ones, -> those of their own side.

    `params`: MANO's, name -> (N, ...): of the right hand in the mirrored crop where `side` (N,) is "left".
    Those rows are mirrored as the release's are: rotations keep x and negate y and z, `transl` negates x.
    Posed by the left model they are exactly the mirror image (x -> -x in the camera's frame), since that
    model is the mirror image of the right one, its rest root included. The crop's mirrored camera has its
    principal point in the middle too: `virtual_camera` of the same box projects onto the unmirrored image.
    Raises ValueError for a side that is neither, or as many as there are rows not.
    """
    side, count = np.asarray(side), len(params["global_orient"])
    _check_side(side, count)
    if "hand_pose" not in params:
        raise ValueError(f"these are not a hand's parameters: {', '.join(params)}")
    # J0 cancels: mirrored, it is the left model's.
    mirrored = mirror_parameters(params, np.zeros((count, 3), np.float32))
    left = side == "left"
    return {
        name: np.where(left.reshape(-1, *[1] * (np.ndim(values) - 1)), mirrored[name], values)
        for name, values in params.items()
    }


def _check_side(side: np.ndarray, count: int) -> None:
    if side.shape != (count,) or not np.isin(side, SIDES).all():
        raise ValueError(f"side must be ({count},) of {', '.join(SIDES)}, got {side!r:.80}")
