"""The face's outline: the 17 points of the 68-point scheme that slide over the cheek as the head turns."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from neuralannot.safe_pickle import load_npz
from neuralannot.synthetic.actors import Actor

_FIELDS = ("dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords")
_MOST_TURNED = 39  # degrees; smplx's tables have a row for each degree to either side


def contour_points(actor: Actor, head: np.ndarray, camera_position: np.ndarray) -> np.ndarray | None:
    """(17, 3) metres on the posed mesh: the outline from a camera's side, from the person's right to left.

    `head` (3, 3): the head's rotation; `camera_position` (3,) metres; both in the body's space. None where
    the model file holds no tables.
    """
    tables = _tables(actor.body.source)
    if tables is None:
        return None
    faces_of, weights_of = tables
    middle = actor.vertices[actor.body.faces[faces_of[0]].ravel()].mean(axis=0)
    towards = head.T @ (camera_position - middle)
    degrees = int(
        np.clip(np.rint(np.degrees(np.arctan2(towards[0], towards[2]))), -_MOST_TURNED, _MOST_TURNED)
    )
    row = degrees if degrees >= 0 else _MOST_TURNED - degrees
    corners = actor.vertices[actor.body.faces[faces_of[row]]]
    points: np.ndarray = (corners * weights_of[row][..., None]).sum(axis=1).astype(np.float32)
    return points


@functools.lru_cache(maxsize=4)
def _tables(source: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """(79, 17) face numbers and (79, 17, 3) weights."""
    if source.suffix != ".npz":
        return None
    content = load_npz(source)
    if not all(name in content for name in _FIELDS):
        return None
    faces, weights = (np.asarray(content[name]) for name in _FIELDS)
    if faces.shape != (79, 17) or weights.shape != (79, 17, 3):
        return None
    return faces.astype(np.int64), weights.astype(np.float32)
