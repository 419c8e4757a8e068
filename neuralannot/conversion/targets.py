"""Where converted annotations go: the release whose layout holds them, their columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from neuralannot.catalog import RELEASES, Release
from neuralannot.columns import Part, RowView, TableStack
from neuralannot.companions import Companions
from neuralannot.parameters import human_model
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.store import Table

# The layouts in which own data is written.
_OWN = {"smpl": "mpii-smpl", "smplx": "mpii-smplx"}
_OF_THE_FIT = ("param/", "valid/", "quality/")
_OF_ALL = "all/"


def release_as(release: Release, model: str) -> tuple[Release, bool]:
    """The release that has `model` for the same data set, and True; else own data's, and False."""
    for other in RELEASES.values():
        alike = (other.data_set, other.layout, other.key_names) == (
            release.data_set,
            release.layout,
            release.key_names,
        )
        if alike and other.model == model:
            return other, True
    return RELEASES[_OWN[model]], False


def distinct_fits(gt: PseudoGT) -> tuple[np.ndarray, np.ndarray]:
    """(M,) rows, one of each fit that the rows of `gt` have, and (N,) which of them each row has."""
    view, number = gt.view, np.zeros(len(gt), np.int64)
    for part in view.parts:
        rows = part.at(view.index)
        if any(name.startswith("param/") for name in part.stack.names()):
            own = np.arange(len(gt)) if rows is None else rows
            # Parameters may be spread over parts: as many numbers as there are pairs of their rows.
            number = np.unique(np.stack([number, own], 1), axis=0, return_inverse=True)[1].reshape(-1)
    _, first, again = np.unique(number, return_index=True, return_inverse=True)
    return first, again.reshape(-1)


def pseudo_gt_as(gt: PseudoGT, model: str, params: Mapping[str, np.ndarray]) -> PseudoGT:
    """The rows of `gt` with another model's parameters, (N, ...) each: ids, cameras, annotations stay.

    Of a whole body only the body is valid. Raises ValueError where `gt` has that model already, or no layout
    holds the rows: world-space fits of a data set that has no release of the model.
    """
    if gt.model == model:
        raise ValueError(f"nothing to convert: {gt.release} has {model}'s parameters")
    if model not in _OWN or gt.model not in _OWN:
        raise ValueError(f"{gt.release}: there is no conversion of {gt.model} annotations to {model}")
    entry, same = release_as(gt.catalogued, model)
    if not same and (gt.space != "camera" or gt.camera is None):
        raise ValueError(
            f"{gt.release}: there is no {model} release of {gt.catalogued.data_set}, and the layout of own "
            "data holds camera-space fits with cameras: load it with its annotations and convert "
            "gt.to_camera_space()"
        )
    columns = {
        name: gt.view.column(name)
        for name in gt.view.names()
        if not name.startswith((*_OF_THE_FIT, _OF_ALL)) and (same or not name.startswith(("ann/", "cam/")))
    }
    if not same:
        camera = gt.require_camera()
        columns = {n: v for n, v in columns.items() if n not in ("R", "t")}
        columns |= {"focal": camera.focal, "princpt": camera.princpt}
    body = gt.valid["body"] if "body" in gt.valid else np.ones(len(gt), bool)
    for part in human_model(model).parts:
        columns[f"valid/{part}"] = np.array(body if part == "body" else np.zeros(len(gt), bool))
    columns |= {f"param/{name}": np.asarray(value, np.float32) for name, value in params.items()}
    stack = TableStack((Table(columns),), "param/betas")
    companions = replace(
        gt.companions if same else Companions(groups=()),
        annotations=entry.annotations,
        cameras=entry.cameras,
        joints=entry.joints,
    )
    return PseudoGT(RowView(len(gt), (Part(stack),)), entry.name, space=gt.space, companions=companions)
