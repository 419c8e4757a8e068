"""Which rows can be used, and why the others cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from neuralannot.boxes import sanitize_boxes
from neuralannot.train.samples import Samples, Skip


@dataclass(frozen=True, eq=False)
class Unusable:
    """Rows that a reader knows to be of no use: `rows` (N,) bool, why, and what to say of each."""

    rows: np.ndarray
    reason: str
    detail: Callable[[int], str] = lambda row: ""

    def of_rows(self, index: np.ndarray) -> Unusable:
        """The same of the rows at `index` (M,)."""
        return Unusable(self.rows[index], self.reason, lambda row: self.detail(int(index[row])))


def usable(samples: Samples, *, min_joints: int = 1, known: Sequence[Unusable] = ()) -> Samples:
    """The rows that can be used, the others in `skipped`, each with the first reason that holds.

    Reasons that the reader knows come first, then boxes that are not there, then joints, then boxes. A box is
    outside where no part of it lies in the image; one that the box code would move there, as it does at the
    left and upper edges, would show something else than what was annotated. Raises ValueError where the size
    of an image is not known.
    """
    _check_sizes(samples)
    count = samples.valid.sum(axis=1)
    seen = np.isfinite(samples.joints_2d).all(axis=-1).any(axis=1)
    box = samples.box_xywh.astype(np.float64)
    with np.errstate(invalid="ignore"):
        x, y, w, h = box.T
        width, height = samples.image_size.T
        flat = ~np.isfinite(box).all(axis=1) | (w <= 0) | (h <= 0)
        outside = (x + w <= 0) | (y + h <= 0) | (x >= width) | (y >= height)
    _, clipped = sanitize_boxes(samples.box_xywh, samples.image_size)

    def numbers(row: int) -> str:
        w, h = samples.image_size[row]
        return f"box {[round(float(v), 2) for v in box[row]]} in an image of {w}x{h}"

    checks = [
        *known,
        Unusable(np.asarray(np.isnan(box).all(axis=1)), "no box"),
        Unusable(np.asarray(count == 0), "no joints"),
        Unusable(count < min_joints, "few joints", lambda row: f"{count[row]} of {min_joints}"),
        Unusable(~seen, "behind camera"),
        Unusable(flat, "box empty", numbers),
        Unusable(outside, "box outside", numbers),
        Unusable(~clipped, "box empty", numbers),  # a pixel or less is left of it
    ]
    left = np.ones(len(samples), bool)
    skips: list[tuple[int, Skip]] = []
    for check in checks:
        for row in np.flatnonzero(left & check.rows).tolist():
            detail = check.detail(row)
            if samples.side is not None:
                detail = f"{samples.side[row]} hand" + (f": {detail}" if detail else "")
            skips.append((row, Skip(int(samples.ids[row]), check.reason, detail)))
        left &= ~check.rows
    skips.sort(key=lambda pair: pair[0])
    kept = samples if left.all() else samples.rows(left)
    return replace(kept, skipped=(*samples.skipped, *(skip for _, skip in skips)))


def _check_sizes(samples: Samples) -> None:
    unknown = np.flatnonzero((samples.image_size <= 0).any(axis=1))
    if len(unknown):
        raise ValueError(
            f"{samples.data_set}: {len(unknown)} annotations are of images without 'width' and 'height', "
            f"first {samples.image_path[unknown[0]]}; write them into the annotation file's images"
        )
