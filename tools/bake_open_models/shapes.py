"""Shape and expression directions: principal components of random adults and of random faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.bake_open_models.source import ACTIONS, Source
from tools.bake_open_models.trees import joint_places
from tools.bake_open_models.vertices import Layout

COMPONENTS = 10
_FACES = 4000
# Where each model's root joint lies, as in the official files; x is kept as it is but for hands.
_ROOT = {
    "smpl": (0, -0.225, 0.025),
    "smplx": (0, -0.35, 0.012),
    "mano_right": (0.0957, 0.0064, 0.0062),
    "mano_left": (-0.0957, 0.0064, 0.0062),
    "flame": (0, -0.15, -0.03),
}


@dataclass(frozen=True, eq=False)
class ShapeSpace:
    """The mean adult `template` (V, 3) with joints (J, 3), and what a unit of each of 10 codes moves:
    `directions` (V, 3, 10), `joint_directions` (J, 3, 10); metres. `kept`: the share of the variance that the
    codes keep."""

    template: np.ndarray
    joints: np.ndarray
    directions: np.ndarray
    joint_directions: np.ndarray
    kept: float


def shape_space(kind: str, source: Source, layout: Layout, gender: str) -> ShapeSpace:
    """Principal components of 1500 random adults' vertices, of unit variance, registered by the vertices'
    mean.

    A positive code makes the model taller.
    """
    people = source.people[gender]
    mean = people.mean(0)
    shapes = layout.spread(source.shapes)
    template = layout.place(source.template) + np.tensordot(mean, shapes, 1)
    joints = joint_places(kind, source, source.heads + np.tensordot(mean, source.head_shapes, 1))
    joint_shapes = joint_places(kind, source, source.head_shapes)
    # As in SMPL: bodies are laid over each other by the mean of their vertices, so the root moves with the
    # codes.
    middle = shapes.mean(1, keepdims=True)
    shapes, joint_shapes = shapes - middle, joint_shapes - middle

    # In the space of the coefficients, which is smaller than that of the vertices.
    centred = people - mean
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    used = singular > 1e-8 * singular[0]
    left, singular, right = left[:, used], singular[used], right[used]
    basis = (singular[:, None] * right) @ shapes.reshape(len(shapes), -1).astype(np.float64)
    values, vectors = _largest_first(basis @ basis.T)
    count = len(people) - 1
    codes = left @ vectors[:, :COMPONENTS] * np.sqrt(count)
    directions = (vectors[:, :COMPONENTS].T @ basis / np.sqrt(count)).reshape(COMPONENTS, -1, 3)
    of_coefficients = codes.T @ centred / count
    joint_directions = (of_coefficients @ joint_shapes.reshape(len(shapes), -1)).reshape(COMPONENTS, -1, 3)
    for code in range(COMPONENTS):
        up, down = (np.ptp(template[:, 1] + sign * directions[code, :, 1]) for sign in (2, -2))
        if up < down:
            directions[code] *= -1
            joint_directions[code] *= -1
    shift = np.array(_ROOT[kind]) - joints[0]
    if not kind.startswith("mano"):
        shift[0] = 0
    return ShapeSpace(
        template + shift,
        joints + shift,
        directions.transpose(1, 2, 0),
        joint_directions.transpose(1, 2, 0),
        float(values[:COMPONENTS].sum() / values.sum()),
    )


def expressions(source: Source, layout: Layout) -> np.ndarray:
    """(V, 3, 10) metres a unit of code: principal components of 4000 random mixtures of facial actions.

    Of the second moment, not the variance, so that zero codes are the neutral face. A positive code has more
    of the actions that are common in it than a negative one.
    """
    rng = np.random.default_rng(1)
    amounts = np.zeros((_FACES, len(ACTIONS)))
    for column, name in enumerate(ACTIONS):
        if name.endswith("Right"):
            continue
        shown = rng.random(_FACES) < 0.25
        amounts[:, column] = rng.beta(1.2, 1.6, _FACES) * shown
        if name.endswith("Left"):
            other = ACTIONS.index(f"{name[:-4]}Right")
            amounts[:, other] = np.clip(amounts[:, column] * rng.normal(1, 0.18, _FACES), 0, 1)
    actions = layout.spread(np.stack([source.actions[name] for name in ACTIONS])).reshape(len(ACTIONS), -1)
    moment = amounts.T @ amounts / _FACES + 1e-10 * np.eye(len(ACTIONS))
    basis = np.linalg.cholesky(moment).T @ actions.astype(np.float64)
    _, vectors = _largest_first(basis @ basis.T)
    directions = vectors[:, :COMPONENTS].T @ basis
    of_codes: np.ndarray = directions.reshape(COMPONENTS, -1, 3).transpose(1, 2, 0)
    return of_codes


def _largest_first(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, not below 0, and eigenvectors (columns) of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    order = np.argsort(-values)
    return values[order].clip(0), vectors[:, order]
