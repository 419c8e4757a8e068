"""What people look like: skin, hair, faces and clothes as colours of the body model's vertices.

Regions follow from the mesh at rest (a T pose): who a vertex belongs to among the skinning joints, and where
it lies, so that sleeves and trouser legs end anywhere along a limb.
"""

from __future__ import annotations

import colorsys
import functools
from dataclasses import dataclass

import numpy as np

from neuralannot.body_models import BodyModel
from neuralannot.synthetic.actors import model_of

_HEAD = {"smpl": ("head",), "smplx": ("head", "jaw"), "flame": ()}
_EYES = ("left_eye_smplhf", "right_eye_smplhf")
_SKINS = ((0.94, 0.76, 0.65), (0.87, 0.67, 0.53), (0.76, 0.55, 0.41), (0.56, 0.38, 0.27), (0.34, 0.23, 0.17))
_HAIRS = ((0.09, 0.07, 0.06), (0.24, 0.15, 0.09), (0.42, 0.28, 0.16), (0.66, 0.5, 0.3), (0.55, 0.53, 0.51))


@dataclass(frozen=True, eq=False)
class _Figure:
    """A body at rest: `template` (V, 3) metres; `belongs` (V,) name of the joint that moves each vertex most;
    `joints` name -> (3,) metres.
    """

    template: np.ndarray
    belongs: np.ndarray
    joints: dict[str, np.ndarray]


@functools.lru_cache(maxsize=8)
def _figure(model: str, folder: str | None, side: str | None) -> _Figure:
    import torch

    body: BodyModel = model_of(model, folder, side)
    with torch.no_grad():
        joints = body.joints(transl=torch.zeros(1, 3))[0].numpy()
    named = dict(zip(body.joint_names, joints, strict=True))
    strongest = body.lbs_weights.numpy().argmax(axis=1)
    return _Figure(body.v_template.numpy(), np.array(body.joint_names)[strongest], named)


@dataclass(frozen=True, eq=False)
class Complexion:
    """`skin`, `hair` (3,) colours 0 to 1; `hairline`: how far up the forehead, metres above the eyes, or inf
    for none.
    """

    skin: np.ndarray
    hair: np.ndarray
    hairline: float
    beard: float


def random_complexion(rng: np.random.Generator) -> Complexion:
    """Anybody's."""
    place = rng.uniform(0, len(_SKINS) - 1)
    low = int(place)
    skin = np.array(_SKINS[low]) * (1 - place + low) + np.array(_SKINS[min(low + 1, 4)]) * (place - low)
    hair = np.array(_HAIRS[rng.integers(len(_HAIRS))])
    hairline = np.inf if rng.random() < 0.08 else rng.uniform(0.045, 0.075)
    beard = rng.uniform(0.2, 0.7) if rng.random() < 0.2 else 0.0
    return Complexion(
        np.clip(skin * rng.uniform(0.93, 1.05, 3), 0, 1), hair * rng.uniform(0.8, 1.2), hairline, beard
    )


def dressed(
    rng: np.random.Generator, model: str, complexion: Complexion, *, folder: str | None
) -> np.ndarray:
    """(V, 3) float32 colours 0 to 1 of an SMPL or SMPL-X body in shirt, trousers and shoes."""
    figure = _figure(model, folder, None)
    points, joints = figure.template, figure.joints
    colours = _skinned(rng, points, complexion)
    _paint_head(rng, figure, model, colours, complexion)
    arm = np.abs(points[:, 0])
    shoulder, wrist = abs(joints["left_shoulder"][0]), abs(joints["left_wrist"][0])
    long = rng.random() < 0.4
    cuff = wrist - 0.02 if long else rng.uniform(shoulder - 0.02, 0.8 * wrist + 0.2 * shoulder)
    waist = joints["spine1"][1] + rng.uniform(-0.12, 0.04)
    ankle, knee = joints["left_ankle"][1], joints["left_knee"][1]
    hem = ankle + 0.03 if rng.random() < 0.6 else rng.uniform(ankle + 0.1, knee + 0.2)
    head = np.isin(figure.belongs, ("head", "jaw", "neck", *_EYES))
    neckline = joints["neck"][1] - rng.uniform(-0.03, 0.05) + 0.6 * np.maximum(0, arm - 0.09)
    shirt = (points[:, 1] > waist) & (arm < cuff) & ~head & (points[:, 1] < neckline)
    trousers = (points[:, 1] <= waist) & (points[:, 1] > hem) & (arm < wrist - 0.1)
    shoes = points[:, 1] < ankle + rng.uniform(-0.015, 0.05)
    _dye(rng, colours, shirt, points, patterned=True)
    _dye(rng, colours, trousers, points, patterned=rng.random() < 0.15)
    _dye(rng, colours, shoes, points, patterned=False)
    clipped: np.ndarray = np.clip(colours, 0, 1).astype(np.float32)
    return clipped


def bare(
    rng: np.random.Generator, model: str, complexion: Complexion, *, folder: str | None, side: str | None
) -> np.ndarray:
    """(V, 3) float32 colours 0 to 1 of a hand (MANO) or a face (FLAME)."""
    figure = _figure(model, folder, side)
    colours = _skinned(rng, figure.template, complexion)
    if model == "flame":
        _paint_head(rng, figure, model, colours, complexion)
    else:
        tips = np.char.endswith(figure.belongs.astype(str), "3")
        colours[tips] *= (1.03, 0.95, 0.94)
        # Palms, below the hand at rest, are lighter than backs.
        low = figure.template[:, 1] < np.median(figure.template[:, 1])
        colours[low] = colours[low] * 0.75 + 0.25 * np.array([0.92, 0.72, 0.62])
    clipped: np.ndarray = np.clip(colours, 0, 1).astype(np.float32)
    return clipped


def sleeve_or_skin(
    rng: np.random.Generator, points: np.ndarray, complexion: Complexion, along: np.ndarray
) -> np.ndarray:
    """(V, 3) colours of a forearm: bare, or in a sleeve that begins anywhere. `along` (V,): metres from the
    wrist.
    """
    colours = _skinned(rng, points, complexion)
    if rng.random() < 0.6:
        _dye(rng, colours, along > rng.uniform(0.01, 0.15), points, patterned=True)
    clipped: np.ndarray = np.clip(colours, 0, 1).astype(np.float32)
    return clipped


def _skinned(rng: np.random.Generator, points: np.ndarray, complexion: Complexion) -> np.ndarray:
    blotches = 1 + 0.05 * _waves(rng, points, scale=0.05)
    return complexion.skin * blotches[:, None] * rng.uniform(0.985, 1.015, (len(points), 1))


def _paint_head(
    rng: np.random.Generator, figure: _Figure, model: str, colours: np.ndarray, complexion: Complexion
) -> None:
    """Hair, beard, brows, lips and eyes, in place. Where the eyes are says where everything is."""
    points, joints = figure.template, figure.joints
    is_head = np.isin(figure.belongs, _HEAD[model]) if _HEAD[model] else np.ones(len(points), bool)
    eyes = [joints[name] for name in (_EYES if model != "smpl" else ("left_eye", "right_eye"))]
    middle = np.mean(eyes, axis=0)
    front = middle[2] + (0.025 if model != "smpl" else 0.0)
    up, back = points[:, 1] - middle[1], front - points[:, 2]
    jagged = 0.006 * _waves(rng, points, scale=0.02)
    if complexion.beard:
        below = is_head & (up < -0.075) & (up > -0.16) & (back < 0.09)
        colours[below] = colours[below] * (1 - complexion.beard) + complexion.hair * complexion.beard
    # The hair's edge falls from the forehead to the nape.
    falls = rng.uniform(0.7, 1.0)
    hair = is_head & (up + jagged > complexion.hairline - falls * np.maximum(0, back - 0.02))
    shine = 1 + 0.25 * _waves(rng, points, scale=0.012)[:, None]
    colours[hair] = (complexion.hair * shine)[hair]
    if model == "smpl":
        for eye in eyes:
            colours[np.linalg.norm(points - eye, axis=1) < 0.012] = (0.15, 0.12, 0.1)
        return
    brows = np.array([joints[n] for n in joints if "eye_brow" in n])
    lips = np.array([joints[n] for n in joints if "mouth" in n or "lip" in n])
    if len(brows):
        _tint(colours, points, brows, 0.0035, complexion.hair * 0.8, 0.9)
    if len(lips):
        _tint(colours, points, lips, 0.0045, complexion.skin * (0.95, 0.62, 0.62), rng.uniform(0.4, 0.9))
    for name in _EYES:
        ball = figure.belongs == name
        if ball.any():
            forward = points[ball, 2]
            size = forward.max() - forward.min()
            iris = np.array(((0.2, 0.13, 0.08), (0.25, 0.35, 0.45), (0.25, 0.3, 0.18))[rng.integers(3)])
            white = np.full((ball.sum(), 3), 0.92)
            white[forward > forward.max() - 0.12 * size] = iris
            white[forward > forward.max() - 0.025 * size] = 0.03
            colours[ball] = white


def _tint(
    colours: np.ndarray, points: np.ndarray, at: np.ndarray, reach: float, colour: np.ndarray, strength: float
) -> None:
    margin = 1.6 * reach
    rows = np.flatnonzero(
        ((points > at.min(axis=0) - margin) & (points < at.max(axis=0) + margin)).all(axis=1)
    )
    distance = np.linalg.norm(points[rows, None] - at[None], axis=2).min(axis=1)
    near = strength * np.clip(1.6 - distance / reach, 0, 1)[:, None]
    colours[rows] = colours[rows] * (1 - near) + colour * near


def _dye(
    rng: np.random.Generator, colours: np.ndarray, where: np.ndarray, points: np.ndarray, *, patterned: bool
) -> None:
    """Cloth over some vertices: plain, striped, checked or blotched; in place."""
    base = random_colour(rng)
    cloth = np.tile(base, (int(where.sum()), 1))
    on = points[where]
    pattern = rng.integers(5) if patterned else 0
    if pattern in (1, 2, 3):
        other = random_colour(rng)
        width = rng.uniform(0.03, 0.1)
        stripes = np.sin(2 * np.pi * on[:, 1] / width)
        if pattern == 2:
            stripes = np.sin(2 * np.pi * on[:, 0] / width)
        if pattern == 3:
            stripes = stripes * np.sin(2 * np.pi * on[:, 0] / width)
        share = np.clip(0.5 + 3 * stripes, 0, 1)[:, None]
        cloth = cloth * (1 - share) + other * share
    elif pattern == 4:
        share = np.clip(0.5 + 2 * _waves(rng, on, scale=0.06), 0, 1)[:, None]
        cloth = cloth * (1 - share) + random_colour(rng) * share
    folds = 1 + 0.09 * _waves(rng, on, scale=0.04)[:, None]
    colours[where] = cloth * folds * rng.uniform(0.97, 1.03, (len(on), 1))


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """(3,) 0 to 1: greys and muted colours more often than loud ones."""
    saturation = rng.uniform(0, 0.25) if rng.random() < 0.4 else rng.uniform(0.25, 0.9)
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(0.12, 0.95)))


def _waves(rng: np.random.Generator, points: np.ndarray, *, scale: float) -> np.ndarray:
    """(V,) about -1 to 1: waves of some lengths about `scale` metres, in all directions."""
    directions = rng.normal(0, 1 / scale, (6, 3))
    phases = rng.uniform(0, 2 * np.pi, 6)
    waves: np.ndarray = np.sin(points @ directions.T + phases).sum(axis=1) / 3
    return waves
