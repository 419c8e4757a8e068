"""Joints bent as no joint bends: each rotation split into twist and swing, compared with a range.

A rotation is a twist about the bone followed by a swing that moves the bone (the swing-twist decomposition of
quaternions). Three angles describe it: the twist, and the swing's rotation vector about two axes across the
bone. Each has a range; what counts is by how much the worst angle of the worst joint lies outside.

Ranges start from published ones, named beside each:

- AAOS: the American Academy of Orthopaedic Surgeons' (Greene and Heckman, "The clinical measurement of joint
  motion", 1994; "Joint motion", 1965), as textbooks of goniometry quote them;
- CDC: means of 674 healthy people aged 2 to 69 (Soucie et al., Haemophilia 17, 2011), those of the most
  mobile group;
- Hemmerich et al. (J. Orthop. Res. 24, 2006): squatting, kneeling, sitting cross-legged.

They are widened, which is a choice, where a model's joint does other work than the one in the books: SMPL's
shoulder turns about a collar bone that moves, its wrist and elbow share the forearm's pronation, its spine's
three joints, its neck and its head share what is measured as one, and people at rest are not at the books'
zero. Where nothing is named, nothing was found, and the range is a choice. They are boxes: a pose inside them
may be impossible all the same, a pose far outside is not one that a healthy joint takes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuralannot.body_models.files import read_model_file
from neuralannot.body_models.model import BodyModel
from neuralannot.joint_sets import JOINT_SETS

__all__ = ["RANGES", "JointLimits", "bend_excess", "joint_limits", "swing_twist"]

Range = tuple[float, float]

# Degrees: twist, then swing about the first and about the second axis. Axes are the body's at rest: x to its
# left, y up, z forward. Legs, trunk, neck and jaw twist about y, swing about x and z; arms twist about x,
# swing about y and z. Left joints; right ones are their mirror images.
_AXES_OF_TRUNK = ((0, 1, 0), (1, 0, 0), (0, 0, 1))
_AXES_OF_ARM = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
RANGES: Mapping[str, tuple[Range, Range, Range]] = {
    # x: extension positive, flexion negative; z: abduction positive. CDC: flexion 141, extension 28. AAOS:
    # turning 45, abduction 45, adduction 30.
    "hip": ((-50, 50), (-140, 30), (-35, 60)),
    # x: flexion positive. Hemmerich: 157 squatting; CDC: 153, extension 5.
    "knee": ((-40, 40), (-10, 160), (-20, 20)),
    # x: the toes down positive, up negative. AAOS: down 50, up 20; inversion 35, eversion 15. CDC: up 25.
    "ankle": ((-50, 50), (-45, 55), (-35, 35)),
    # All toes as one. Of the big one's base textbooks have 45 down, 70 up.
    "foot": ((-20, 20), (-70, 45), (-20, 20)),
    # x: forward positive. Textbooks: together 75 to 80 forward, 25 to 30 back, 35 sideways, turning 45.
    # Motion capture put on three joints bends one of them more than its third.
    "spine1": ((-35, 35), (-25, 50), (-30, 30)),
    "spine2": ((-35, 35), (-25, 50), (-30, 30)),
    "spine3": ((-35, 35), (-25, 50), (-30, 30)),
    # Together, by reviews of studies of the living: 64 forward, 63 back, 49 sideways, turning 60 to 80.
    "neck": ((-60, 60), (-45, 45), (-45, 45)),
    "head": ((-60, 60), (-45, 45), (-45, 45)),
    # y: forward negative; z: up positive. Textbooks, of the collar bone: 30 forward and back, 48 up, 15
    # down.
    "collar": ((-30, 30), (-40, 40), (-35, 45)),
    # From arms held out sideways. AAOS, collar bone and all: up by 90, down by 90 and behind the back,
    # turning 70 inwards and 90 outwards; textbooks: 130 to the front, 45 to the back.
    "shoulder": ((-110, 110), (-140, 60), (-115, 110)),
    # y: flexion negative. AAOS: 150, extension 0, the forearm turning 80 either way. z: where the upper arm's
    # twist is not the anatomical one, flexion shows here too.
    "elbow": ((-95, 95), (-155, 10), (-75, 75)),
    # AAOS: 80 flexion, 70 extension, 20 and 30 sideways; the twist is the forearm's.
    "wrist": ((-90, 90), (-40, 40), (-85, 85)),
    "hand": ((-45, 45), (-45, 45), (-100, 100)),
    # x: open positive.
    "jaw": ((-15, 15), (-10, 45), (-15, 15)),
    # Fingers: twist about the bone, flexion towards the palm positive, sideways. AAOS, joint by joint from
    # the palm: 90 and back 45, sideways 20; 100; 90. Other textbooks: 120 in the middle.
    "finger1": ((-35, 35), (-45, 100), (-35, 35)),
    "finger2": ((-25, 25), (-20, 125), (-25, 25)),
    "finger3": ((-25, 25), (-30, 100), (-25, 25)),
    # The thumb's base moves in a cone, AAOS: 70 away from the palm; then 50, back by 10; then 80, back 20.
    "thumb1": ((-60, 60), (-70, 70), (-70, 70)),
    "thumb2": ((-45, 45), (-45, 90), (-45, 45)),
    "thumb3": ((-35, 35), (-40, 100), (-35, 35)),
}


@dataclass(frozen=True, eq=False)
class JointLimits:
    """Ranges of J joints of a model.

    `names`: the joints; `parameter`: of each, which of the model's parameters holds it, `place` its number in
    that; `mean` (J, 3) radians that the model adds to it; `axes` (J, 3, 3): twist and swing axes, rows;
    `low`, `high` (J, 3) radians.
    """

    names: tuple[str, ...]
    parameter: tuple[str, ...]
    place: tuple[int, ...]
    mean: np.ndarray
    axes: np.ndarray
    low: np.ndarray
    high: np.ndarray


@functools.lru_cache(maxsize=16)
def joint_limits(model: BodyModel) -> JointLimits:
    """The ranges of a body model's joints; the root, which may be turned anyhow, and the eyes have none."""
    rows: list[tuple[str, str, int, np.ndarray, np.ndarray, str]] = []
    if model.model in ("smpl", "smplx"):
        count = {"smpl": 23, "smplx": 21}[model.model]
        for place, name in enumerate(JOINT_SETS[model.model].joints[1 : 1 + count]):
            rows.append((name, "body_pose", place, np.zeros(3), *_body_axes(name)))
    if model.model in ("smplx", "flame"):
        rows.append(("jaw", "jaw_pose", 0, np.zeros(3), *_body_axes("jaw")))
    sides = {"smplx": ("left", "right"), "mano": (model.side or "right",)}.get(model.model, ())
    for side in sides:
        parameter = "hand_pose" if model.model == "mano" else f"{side}_hand_pose"
        rows += _finger_rows(model, side, parameter)
    bounds = np.radians(np.array([RANGES[kind] for *_, kind in rows], np.float64).reshape(-1, 3, 2))
    return JointLimits(
        names=tuple(row[0] for row in rows),
        parameter=tuple(row[1] for row in rows),
        place=tuple(row[2] for row in rows),
        mean=np.array([row[3] for row in rows]).reshape(-1, 3),
        axes=np.array([row[4] for row in rows]).reshape(-1, 3, 3),
        low=bounds[..., 0],
        high=bounds[..., 1],
    )


def bend_excess(params: Mapping[str, np.ndarray], limits: JointLimits) -> np.ndarray:
    """(N, J) radians: how far each joint is bent beyond its range, 0 inside.

    `params`: the model's parameters, (N, ...) axis-angle, as `PseudoGT.params`; those not given are at rest.
    """
    count = len(next(iter(params.values())))
    pose = np.zeros((count, len(limits.names), 3))
    for joint, (parameter, place) in enumerate(zip(limits.parameter, limits.place, strict=True)):
        if parameter in params:
            pose[:, joint] = np.asarray(params[parameter]).reshape(count, -1, 3)[:, place]
    angles = swing_twist(pose + limits.mean, limits.axes)
    beyond: np.ndarray = np.maximum(np.maximum(limits.low - angles, angles - limits.high), 0).max(
        axis=-1, initial=0
    )
    return beyond


def swing_twist(rotvec: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Rotation vectors (..., 3) -> (..., 3) radians: the twist about the first of `axes` (..., 3, 3), rows,
    orthonormal, then the swing's rotation vector about the second and the third.

    The rotation is the swing after the twist. Degenerate: a swing of half a turn leaves the twist open, which
    is then 0.
    """
    local = np.einsum("...ij,...j->...i", axes, np.asarray(rotvec, np.float64))
    angle = np.linalg.norm(local, axis=-1, keepdims=True)
    safe = np.where(angle > 1e-12, angle, 1.0)
    vector = local / safe * np.sin(angle / 2)
    w = np.cos(angle[..., 0] / 2)
    x, y, z = np.moveaxis(vector, -1, 0)
    twist_norm = np.hypot(w, x)
    open_ = twist_norm < 1e-9
    norm = np.where(open_, 1.0, twist_norm)
    c, s = np.where(open_, 1.0, w / norm), np.where(open_, 0.0, x / norm)
    twist = 2 * np.arctan2(s, c)
    # swing = q * twist^-1, whose part along the first axis is 0
    swing_w, swing_y, swing_z = w * c + x * s, y * c - z * s, z * c + y * s
    sine = np.hypot(swing_y, swing_z)
    swing = 2 * np.arctan2(sine, swing_w)
    factor = np.where(sine > 1e-12, swing / np.where(sine > 1e-12, sine, 1.0), 2.0)
    twist = (twist + np.pi) % (2 * np.pi) - np.pi
    return np.stack([twist, swing_y * factor, swing_z * factor], axis=-1)


def _body_axes(name: str) -> tuple[np.ndarray, str]:
    side, _, kind = name.partition("_")
    if side not in ("left", "right"):
        return np.array(_AXES_OF_TRUNK, np.float64), name
    arm = kind in ("collar", "shoulder", "elbow", "wrist", "hand")
    axes = np.array(_AXES_OF_ARM if arm else _AXES_OF_TRUNK, np.float64)
    # Mirrored, a rotation vector keeps its x and turns its y and z round.
    return axes * ([1, -1, -1] if side == "right" else [1, 1, 1]), kind


def _finger_rows(
    model: BodyModel, side: str, parameter: str
) -> list[tuple[str, str, int, np.ndarray, np.ndarray, str]]:
    mean = _hand_mean(model.source, model.model, side)
    names = list(model.joint_names)
    rest = (model.J_regressor @ model.v_template).detach().cpu().double().numpy()  # the hand laid flat
    first = names.index(f"{side}_index1")
    rows = []
    for place in range(15):
        joint = first + place
        name = names[joint]
        finger, number = name.removeprefix(f"{side}_")[:-1], int(name[-1])
        # A bone leads to the next joint; the last goes on as the one before it.
        bone = rest[joint + 1] - rest[joint] if number < 3 else rest[joint] - rest[joint - 1]
        bone = bone / np.linalg.norm(bone)
        # The palm looks down: about this axis a positive turn takes the bone there.
        flex = np.cross(bone, (0.0, -1.0, 0.0))
        flex = flex / np.linalg.norm(flex)
        kind = f"{'thumb' if finger == 'thumb' else 'finger'}{number}"
        rows.append((name, parameter, place, mean[place], np.array([bone, flex, np.cross(bone, flex)]), kind))
    return rows


@functools.lru_cache(maxsize=8)
def _hand_mean(source: Path, model: str, side: str) -> np.ndarray:
    """(15, 3) radians that the model adds to the fingers' poses."""
    return read_model_file(source, model, side=side).hand_mean[side].reshape(15, 3).astype(np.float64)
