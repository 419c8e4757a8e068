"""How fits are spread: shape codes, joints' angles, where they are before the camera."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from neuralannot.joint_sets import JOINT_SETS
from neuralannot.parameters import PART_PARAMETERS, SIDES, human_model
from neuralannot.pseudo_gt import PseudoGT

__all__ = ["Angles", "Places", "Shapes", "joint_angles", "places", "shapes"]

_BLOCK = 1 << 15  # rows at once
# Where the joints of a parameter begin in the model's joint set.
_FIRST_JOINT: Mapping[tuple[str, str], str] = {
    ("smpl", "body_pose"): "left_hip",
    ("smplx", "body_pose"): "left_hip",
    ("smplx", "left_hand_pose"): "left_index1",
    ("smplx", "right_hand_pose"): "right_index1",
    ("smplx", "jaw_pose"): "jaw",
    ("flame", "jaw_pose"): "jaw",
}


@dataclass(frozen=True, eq=False)
class Angles:
    """How far J joints are turned from the model's rest pose, degrees (F, J) float32 of F fits.

    NaN where the joint's part is not valid.
    """

    title: str
    joints: tuple[str, ...]
    degrees: np.ndarray


@dataclass(frozen=True, eq=False)
class Shapes:
    """Codes (F, K) float32 of F fits, in standard deviations of the model's shapes; NaN where not valid."""

    title: str
    names: tuple[str, ...]
    codes: np.ndarray


@dataclass(frozen=True, eq=False)
class Places:
    """Root joints (N, 3) float32 metres of N rows in `space`: `camera` (x right, y down, z away) or
    `world`."""

    space: str
    root: np.ndarray


def joint_angles(fits: PseudoGT) -> list[Angles]:
    """The angles of all joints: the body's or the face's, each hand's of SMPL-X; of MANO each side's."""
    model = human_model(fits.model)
    turned = {n: _angles(fits, n) for n in model.shapes if n == "global_orient" or n.endswith("_pose")}
    if fits.side is not None:
        both = np.concatenate(list(turned.values()), axis=1)
        found = []
        for side in SIDES:
            mine = both[fits.side == side]
            names = [name for parameter in turned for name in _joint_names("mano", parameter, side)]
            found.append(Angles(f"{side} hands", tuple(names), mine))
        return [angles for angles in found if len(angles.degrees)]
    hands = [name for name in turned if name.endswith("hand_pose")]
    rest = [name for name in turned if name not in hands]
    groups = {"face" if fits.model == "flame" else "body": rest}
    groups |= {name.removesuffix("_pose").replace("_", " "): [name] for name in hands}
    return [
        Angles(
            title,
            tuple(joint for name in names for joint in _joint_names(fits.model, name, None)),
            np.concatenate([turned[name] for name in names], axis=1),
        )
        for title, names in groups.items()
    ]


def shapes(fits: PseudoGT) -> list[Shapes]:
    """`betas` and, where the model has it, `expression`."""
    found = []
    for name, title in (("betas", "shape"), ("expression", "expression")):
        if name in fits.params:
            codes = _masked(fits, name, np.array(fits.params[name], np.float32))
            found.append(Shapes(title, tuple(f"{title} {k + 1}" for k in range(codes.shape[1])), codes))
    return found


def places(gt: PseudoGT, *, body_models: str | os.PathLike[str] | None = None) -> list[Places]:
    """Root joints of all rows, before their cameras where there are any, and in the world where fits are.

    No mesh is posed. The root of a body is its model's rest root moved by `transl`.
    """
    camera = np.full((len(gt), 3), np.nan, np.float32)
    stored = np.full((len(gt), 3), np.nan, np.float32)
    has_camera = gt.space == "camera" or gt.camera is not None
    for first, rows in _blocks(gt):
        root = rows.rest_root(body_models) + rows.params["transl"]
        stored[first : first + len(rows)] = root
        if gt.space == "world" and has_camera:
            root = rows.require_camera().world_to_camera(root[:, None])[:, 0]
        camera[first : first + len(rows)] = root
    found = [Places("camera", camera)] if has_camera else []
    return [*found, Places("world", stored)] if gt.space == "world" else found


def _blocks(gt: PseudoGT) -> Iterator[tuple[int, PseudoGT]]:
    for first in range(0, len(gt), _BLOCK):
        yield first, gt[first : first + _BLOCK]


def _angles(fits: PseudoGT, parameter: str) -> np.ndarray:
    shape = human_model(fits.model).shapes[parameter]
    degrees = np.zeros((len(fits), shape[0] if len(shape) == 2 else 1), np.float32)
    for first, rows in _blocks(fits):
        turned = np.linalg.norm(rows.params[parameter].reshape(len(rows), -1, 3), axis=-1)
        # A turn by more than half is one the other way round.
        turned = np.abs((turned + np.pi) % (2 * np.pi) - np.pi)
        degrees[first : first + len(rows)] = _masked(rows, parameter, np.degrees(turned))
    return degrees


def _masked(rows: PseudoGT, parameter: str, values: np.ndarray) -> np.ndarray:
    """The values (N, K), NaN where the part that the parameter belongs to is not valid."""
    part = next((p for p, names in PART_PARAMETERS.items() if parameter in names), None)
    if part is None or part not in rows.valid or rows.model == "mano":
        return values
    return np.where(rows.valid[part][:, None], values, np.float32(np.nan))


def _joint_names(model: str, parameter: str, side: str | None) -> tuple[str, ...]:
    if parameter == "global_orient":
        return ("root",)
    joints = JOINT_SETS[model if side is None else f"mano-{side}"].joints
    if side is not None:
        return tuple(name.removeprefix(f"{side}_") for name in joints[1:16])
    first = joints.index(_FIRST_JOINT[model, parameter])
    shape = human_model(model).shapes[parameter]
    return joints[first : first + (shape[0] if len(shape) == 2 else 1)]
