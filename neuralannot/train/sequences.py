"""Which samples show the same body right before and after one another."""

from __future__ import annotations

import os

import numpy as np

from neuralannot.train.samples import Samples

__all__ = ["neighbours"]


def neighbours(samples: Samples, rows: np.ndarray) -> np.ndarray:
    """(M, 2) int64: of each of `rows` (M,) the place in `rows` of the frame before and after, -1 for none.

    Frames are those of one camera whose keys, their last number apart, are equal (subject, action, ...): of
    one folder of images, of one hand. Two frames are neighbours where they are as far apart as a sequence's
    nearest ones are; a gap in the data is a gap. Data sets that are keyed by annotation id say nothing of
    frames: all -1.
    """
    found = np.full((len(rows), 2), -1, np.int64)
    keys = samples.keys[rows]
    if keys.shape[1] < 2 or not len(rows):
        return found
    folders = np.unique([os.path.dirname(path) for path in samples.image_path[rows]], return_inverse=True)[1]
    parts = [folders.reshape(-1, 1), keys[:, :-1]]
    if samples.side is not None:
        parts.append((samples.side[rows] == "left").reshape(-1, 1))
    sequence = np.unique(np.column_stack(parts), axis=0, return_inverse=True)[1].ravel()
    frame = keys[:, -1]
    order = np.lexsort((frame, sequence))
    same = sequence[order[1:]] == sequence[order[:-1]]
    gap = frame[order[1:]] - frame[order[:-1]]
    least = np.full(int(sequence.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(least, sequence[order[1:]][same & (gap > 0)], gap[same & (gap > 0)])
    joined = same & (gap == least[sequence[order[1:]]])
    found[order[1:][joined], 0] = order[:-1][joined]
    found[order[:-1][joined], 1] = order[1:][joined]
    return found
