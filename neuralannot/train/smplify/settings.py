"""`SmplifySetting`: stages, weights and limits of a fit, as published and tuned."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from neuralannot.train.smplify.adam import AdamOptions
from neuralannot.train.smplify.lbfgs import LbfgsOptions

_POSES = ("rotations", "latents")
# SMPLify-X's own: of the bending term, in times of the pose's weight.
_BENDING = 3.17


@dataclass(frozen=True)
class Stage:
    """Weights of one stage; each but `bending` is squared, as SMPLify-X has it.

    `pose`: of the latents, or of the rotations where those are fitted, radians; `shape` of betas;
    `expression`; `hand` of the hands' rotations; `jaw` of the jaw's three axes; `bending`: of elbows and
    knees bent the wrong way. `hand_joints` and `face_joints`: of SMPL-X's joints there, beside 1 of the
    body's. `scale`: times of the setting's.
    """

    pose: float
    shape: float
    expression: float
    hand: float
    jaw: tuple[float, float, float]
    bending: float
    hand_joints: float = 1.0
    face_joints: float = 1.0
    scale: float = 1.0


Optimiser = LbfgsOptions | AdamOptions


@dataclass(frozen=True)
class SmplifySetting:
    """How bodies are fitted.

    `stages`: one after another, each from where the last ended; with a start given only the last is run.
    `data_weight`: of the sum of all joints' robust squares (not squared again); `scale`: Geman and McClure's
    sigma, in metres or pixels. `pose`: what is unknown of a body or a MANO hand, `rotations` or a prior's
    `latents`. `optimiser`: which, and when a stage ends. `moves`: whether the translation stays free once
    the camera is found, in pictures.

    `headings`: turns about the body's long axis, radians, from each of which it is fitted, the fit of least
    energy kept; `side_view`: px between the shoulders, below which headings after the first are tried (None:
    always). Of pictures: `depth_weight`: of the depth's distance from that by similar triangles, metres,
    squared as the stages' weights are; `upright`: whether the first guess faces the camera, not along the
    camera's axes; `rolled`: whether each heading's guess is turned in the picture until its torso lies as
    seen, and finds a camera of its own. In space: `whole_body`: whether all joints say how the body is turned
    where the torso's do not.

    Raises ValueError where fields do not fit.
    """

    stages: tuple[Stage, ...]
    data_weight: float
    scale: float
    pose: str
    optimiser: Optimiser
    moves: bool = True
    headings: tuple[float, ...] = (0.0,)
    side_view: float | None = None
    depth_weight: float = 100.0
    upright: bool = True
    rolled: bool = True
    rescaled: bool = True
    whole_body: bool = True

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a setting needs a stage")
        if self.pose not in _POSES:
            raise ValueError(f"pose must be one of {', '.join(_POSES)}, got {self.pose!r}")
        if not self.headings:
            raise ValueError("headings are empty; (0.0,) is the first guess alone")
        for name in ("data_weight", "scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


def _published_stages() -> tuple[Stage, ...]:
    """The official configuration, `fit_smplx.yaml`."""
    rows = (
        # pose and hand, shape and expression, jaw, hand joints, face joints
        (404.0, 100.0, (4040.0, 40400.0, 40400.0), 0.0, 0.0),
        (404.0, 50.0, (4040.0, 40400.0, 40400.0), 0.0, 0.0),
        (57.4, 10.0, (574.0, 5740.0, 5740.0), 0.0, 0.0),
        (4.78, 5.0, (47.8, 478.0, 478.0), 0.1, 0.0),
        (4.78, 5.0, (47.8, 478.0, 478.0), 2.0, 2.0),
    )
    return tuple(
        Stage(pose, shape, shape, pose, jaw, _BENDING * pose, hand, face)
        for pose, shape, jaw, hand, face in rows
    )


# `maxiters: 30` is the number of steps and the iterations of each; a step ends after 37 evaluations too.
_PUBLISHED_LIMITS = LbfgsOptions(iterations=30 * 30, evaluations=30 * 37, searches=30)

#: SMPLify-X in pictures, px of 256 px crops: the official stages, weights and limits.
PUBLISHED_2D = SmplifySetting(
    stages=_published_stages(),
    data_weight=(1000 / 256) ** 2,
    scale=100.0,
    pose="latents",
    optimiser=_PUBLISHED_LIMITS,
    moves=False,
    headings=(0.0, math.pi),
    side_view=25.0,
    upright=False,
    rolled=False,
    rescaled=False,
    whole_body=False,
)
#: SMPLify-X on 3D joints, by the paper's supplementary (B).
PUBLISHED_3D = replace(
    PUBLISHED_2D, data_weight=1e6, scale=0.1, pose="rotations", moves=True, headings=(0.0,), side_view=None
)
