"""What a layout's modules hand to the studio, and the numbers of its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralannot.parameters import human_model
from neuralannot.synthetic.actors import Actor
from neuralannot.synthetic.viewpoints import Viewpoint


@dataclass(frozen=True)
class Take:
    """One job done: `jpegs` path in the image folder -> bytes; `record`: what its annotations are made of."""

    jpegs: Mapping[str, bytes]
    record: Any


@dataclass(frozen=True)
class Files:
    """The JSON files of a data set, by name, in the order they are written: what completes it comes last.

    `annotations`, `cameras`, `joints`, `truth`: which of the names are which. `left_out`: what the layout has
    and this studio does not, and why.
    """

    content: Mapping[str, Any]
    annotations: tuple[str, ...]
    truth: tuple[str, ...]
    cameras: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def numbers(values: Any) -> Any:
    """An array as nested lists; nine digits of a float32, all of a float64."""
    array = np.asarray(values)
    if array.ndim:
        return [numbers(row) for row in array]
    return float(f"{array:.9g}") if array.dtype == np.float32 else array.item()


def leaf(actor: Actor) -> dict[str, Any]:
    """A body's parameters as the released files have them; parts that were not posed are left out."""
    return {
        field.name: numbers(np.concatenate([actor.params[p].ravel() for p in field.parameters]))
        for field in human_model(actor.model).fields
        if field.required or field.parameters[0] in actor.params
    }


def leaf_with_camera(actor: Actor, camera: Viewpoint) -> dict[str, Any]:
    """As in the wild: the parameters, and the camera of the image."""
    cam_param = {"focal": numbers(camera.focal), "princpt": numbers(camera.princpt)}
    return {f"{actor.model}_param": leaf(actor), "cam_param": cam_param}


def place(nested: dict[str, Any], keys: tuple[Any, ...], value: Any) -> None:
    """`nested[k0][k1]... = value`, keys as text."""
    for key in keys[:-1]:
        nested = nested.setdefault(str(key), {})
    nested[str(keys[-1])] = value


def box_of_points(points: np.ndarray, size: tuple[int, int]) -> list[float]:
    """xywh px around (K, 2) points, clipped to the image; zeros where nothing of it is inside."""
    low = np.clip(points.min(axis=0), 0, np.array(size) - 1)
    high = np.clip(points.max(axis=0), 0, np.array(size) - 1)
    if (high <= low).any():
        return [0.0, 0.0, 0.0, 0.0]
    return [round(float(v), 2) for v in (*low, *(high - low))]


def box_of_mask(mask: np.ndarray) -> list[float]:
    """xywh px around the pixels that are set, as MSCOCO's boxes are: edges of pixels, not their middles."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return [0.0, 0.0, 0.0, 0.0]
    x, y = int(columns[0]), int(rows[0])
    return [float(v) for v in (x, y, columns[-1] + 1 - x, rows[-1] + 1 - y)]
