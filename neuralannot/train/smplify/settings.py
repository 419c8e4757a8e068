"""`SmplifySetting`: stages, weights and limits of a fit, as published and tuned."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from neuralannot.parameters import human_model
from neuralannot.train.smplify.adam import AdamOptions
from neuralannot.train.smplify.lbfgs import LbfgsOptions

__all__ = ["Optimiser", "SmplifySetting", "Stage", "published", "tuned"]

#: What joints are like, by which the tuned weights differ.
JOINTS = ("clean", "noisy", "missing")
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
    where the torso's do not. `rescaled`: whether each stage begins with unknowns in units by which the energy
    curves alike in all directions (`curvature.Rescaled`), and so needs far fewer iterations.

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
    whole_body: bool = True
    rescaled: bool = True

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
        if self.rescaled and not self.moves:
            raise ValueError("rescaled needs moves=True: the translation is among the unknowns")


def _official() -> tuple[Stage, ...]:
    """`fit_smplx.yaml`; the first four are `fit_smpl.yaml`'s."""
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


def _last(pose: float, shape: float, *, bending: float = 0.0, jaw: float = 1.0) -> Stage:
    return Stage(pose, shape, shape, pose, (jaw, 10 * jaw, 10 * jaw), bending)


_PUBLISHED = _official()
# `maxiters: 30` is the number of steps and of the iterations in each; a step ends after 37 evaluations too.
_PUBLISHED_LIMITS = LbfgsOptions(iterations=30 * 30, evaluations=30 * 37, searches=30)
# The unknowns are rescaled before each stage, the last of which is run three times.
_TUNED_LIMITS = LbfgsOptions(iterations=50, history=30, gtol=1e-6, ftol=1e-6, window=10)
# Before the last stage: at least such weights of the pose and of the codes.
_LOOSER = {"smpl": (15.0, 3.0), "smplx": (15.0, 3.0), "mano": (3.0, 1.0), "flame": (3.0, 1.0)}
_LOOSER_2D = {"smpl": (10.0, 10.0), "smplx": (10.0, 10.0), "mano": (10.0, 10.0), "flame": (3.0, 1.0)}
_BODY_2D = {"clean": _last(2.4, 2.5, bending=15.0), "noisy": _last(10.0, 6.0, bending=60.0, jaw=10.0)}
_HAND_2D = {"clean": _last(1.0, 1.0), "noisy": _last(6.0, 6.0)}
_FACE_2D = {"clean": _last(0.3, 0.3, jaw=3.0), "noisy": _last(10.0, 10.0, jaw=50.0)}
_TUNED_2D = {"smpl": _BODY_2D, "smplx": _BODY_2D, "mano": _HAND_2D, "flame": _FACE_2D}
_AROUND = tuple(quarter * math.pi / 2 for quarter in range(4))
HEADINGS = {"smpl": _AROUND, "smplx": _AROUND, "mano": (0.0, math.pi), "flame": (0.0,)}
_BODY = {
    "clean": _last(0.7, 0.1, bending=2.0),
    "noisy": _last(22.0, 12.0, bending=200.0, jaw=100.0),
    "missing": _last(5.0, 1.6, bending=50.0, jaw=10.0),
}
_HAND = {"clean": _last(0.3, 0.1), "noisy": _last(3.0, 3.0), "missing": _last(0.3, 0.1)}
_FACE = {"clean": _last(0.1, 0.1), "noisy": _last(3.0, 3.0, jaw=10.0), "missing": _last(0.1, 0.1)}
_TUNED_3D = {"smpl": _BODY, "smplx": _BODY, "mano": _HAND, "flame": _FACE}


def published(model: str, *, picture: bool) -> SmplifySetting:
    """SMPLify-X with the stages, weights and limits of its official configuration.

    `picture`: 2D joints, px of 256 px crops, latents and a camera that is found first and then kept; else 3D
    joints by the paper's supplementary (B): the torso aligned, rotations, metres, a weight of 1e6. What that
    does not say is taken in the optimiser's favour: the translation stays free, sigma is a decimetre. MANO
    and FLAME, which the official code has not, take the same weights; the hand's first guess is turned as it
    lies in the picture. Raises ValueError for an unknown model.
    """
    human_model(model)
    stages = _PUBLISHED if model == "smplx" else _PUBLISHED[:4]  # the fifth is the hands' and face's
    setting = SmplifySetting(
        stages=stages,
        data_weight=(1000 / 256) ** 2,
        scale=100.0,
        pose="rotations" if model == "flame" else "latents",
        optimiser=_PUBLISHED_LIMITS,
        moves=False,
        headings=(0.0, math.pi),
        side_view=25.0,
        upright=False,
        rolled=False,
        rescaled=False,
        whole_body=False,
    )
    if not picture:
        return replace(
            setting, data_weight=1e6, scale=0.1, pose="rotations", moves=True, headings=(0.0,), side_view=None
        )
    if model == "mano":
        return replace(setting, rolled=True, side_view=None)
    if model == "flame":
        return replace(setting, upright=True, headings=(0.0,), side_view=None)
    return setting


def tuned(model: str, *, picture: bool, joints: str = "clean") -> SmplifySetting:
    """What was found best on made data held out from those reported on (docs/smplify.md).

    `joints`: what the joints are like, `clean`, `noisy` (bodies by 10 mm, hands and faces by 3 mm, pictures
    by 2 px of the crop) or `missing` (a fifth of them; in pictures the weights are those of clean ones).
    Raises ValueError for another, or an unknown model.
    """
    human_model(model)
    if joints not in JOINTS:
        raise ValueError(f"joints must be one of {', '.join(JOINTS)}, got {joints!r}")
    if picture:
        final = _TUNED_2D[model]["noisy" if joints == "noisy" else "clean"]
    else:
        final = _TUNED_3D[model][joints]
    pose, codes = (_LOOSER_2D if picture else _LOOSER)[model]
    first = replace(
        final,
        pose=max(final.pose, pose),
        hand=max(final.hand, pose),
        shape=max(final.shape, codes),
        expression=max(final.expression, codes),
        bending=max(final.bending, _BENDING * pose) if final.bending else 0.0,
    )
    setting = published(model, picture=picture)
    return replace(
        setting,
        stages=(first, final, final, final),
        optimiser=_TUNED_LIMITS,
        moves=True,
        headings=HEADINGS[model] if picture else (0.0,),
        side_view=None,
        upright=True,
        rolled=picture and model != "flame",
        rescaled=True,
        whole_body=True,
    )
