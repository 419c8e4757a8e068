"""What a loaded file holds, in a few lines: counts, coverage, ranges, what is missing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from neuralannot.parameters import GENDERS
from neuralannot.pseudo_gt import PseudoGT

_MOST = 8  # examples of a long list


def summarize(gt: PseudoGT) -> str:
    """A table of lines, `name  value`, about all rows of `gt`. Units are in the text."""
    return "\n".join(f"{name:<18}{value}" for name, value in _lines(gt))


def _lines(gt: PseudoGT) -> Iterator[tuple[str, str]]:
    entry = gt.catalogued
    yield "release", f"{gt.release}: {entry.data_set}, {gt.model.upper()}, {gt.space} space"
    what = "annotations with a fit" if gt.joined else "fits"
    yield "rows", f"{len(gt)} {what}"
    if not len(gt):
        return
    if gt.joined:
        paths = gt.view.column("ann/image_path")
        yield "images", str(len(np.unique(paths, axis=0)))
    else:
        yield "annotations", f"not joined ({gt.companions.annotation_name()} is not beside the file)"
    missing = gt.missing
    examples = ", ".join(map(str, missing[:_MOST])) + (", …" if len(missing) > _MOST else "")
    yield "missing", f"{len(missing)} without a fit{': ' + examples if missing else ''}"
    for part, valid in gt.valid.items():
        yield f"{part}", f"{valid.sum()} valid ({100 * valid.mean():.1f} %)"
    counts = {g: int((gt.view.column("gender") == code).sum()) for code, g in enumerate(GENDERS)}
    yield "gender", ", ".join(f"{g} {n}" for g, n in counts.items() if n)
    for name, values in gt.params.items():
        yield name, _range(name, values)
    camera = gt.camera
    if camera is None:
        yield "cameras", "none loaded"
    else:
        yield "focal", _spread(camera.focal[:, 0], "px")
        yield "cameras", f"{len(np.unique(np.c_[camera.focal, camera.princpt], axis=0))} different"


def _range(name: str, values: np.ndarray) -> str:
    if name == "transl":
        axes = (f"{axis} {values[:, k].min():.2f} … {values[:, k].max():.2f}" for k, axis in enumerate("xyz"))
        return f"{', '.join(axes)} m"
    if name in ("betas", "expression"):
        return (
            f"{values.min():.2f} … {values.max():.2f}, mean norm {np.linalg.norm(values, axis=1).mean():.2f}"
        )
    angles = np.linalg.norm(values.reshape(len(values), -1, 3), axis=-1)
    return f"angles up to {np.degrees(angles.max()):.0f}°, mean {np.degrees(angles.mean()):.0f}°"


def _spread(values: np.ndarray, unit: str) -> str:
    low, middle, high = np.percentile(values, (0, 50, 100))
    return f"{low:.0f} … {high:.0f} {unit}, median {middle:.0f}"
