"""`Refinement`: a network's estimates, or nothing, made to fit the joints by damped least squares.

A network is within centimetres of the joints that it was given; after a few damped Gauss-Newton steps a fit
is within their noise, and what the joints do not say (twists about bones, depths in pictures, joints that are
missing) comes from the distribution of the data set's poses and from the one shape that all frames of a
person share. Not in the paper.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from neuralannot.train.fitting.charts import State
from neuralannot.train.fitting.gaussians import PoseGaussians
from neuralannot.train.fitting.levenberg import levenberg_marquardt
from neuralannot.train.method_options import RefineOptions
from neuralannot.train.picture_cameras import virtual_cameras
from neuralannot.train.preparation import prepare
from neuralannot.train.row_fits import RowFits, Shared, make_row_fits
from neuralannot.train.run import Machinery, TrainingData
from neuralannot.train.sequences import neighbours

__all__ = ["Refinement", "prepare_refinement"]

_BATCH = 512
_SMOOTHED = (4, 5)  # rounds, and steps of each


class Refinement:
    """Refines rows of a data set, after `prepare` or `take`; `prepare_refinement` makes one.

    `fits`: those of single rows, with what they share (`fits.shared`). Raises ValueError for several data
    sets, whose noise is not one.
    """

    def __init__(
        self,
        machinery: Machinery,
        data: TrainingData,
        options: RefineOptions,
        prior: PoseGaussians | None = None,
    ) -> None:
        self.options, self.data = options, data
        self.fits: RowFits = make_row_fits(machinery, data, options, prior)

    @property
    def shared(self) -> Shared:
        return self.fits.shared

    @property
    def digest(self) -> str:
        """What tells this refinement's results from another's."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(repr(self.options).encode())
        person = self.data.samples[0].person
        for value in (*self.prepared.values(), *([] if person is None else [person])):
            digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    @property
    def prepared(self) -> dict[str, np.ndarray]:
        """What `prepare` found, for another process to `take`."""
        return self.shared.columns

    def take(self, prepared: Mapping[str, np.ndarray]) -> None:
        """Use what `prepare` found, here or elsewhere."""
        shared = Shared.from_columns(prepared, self.fits.known.device)
        self.fits = replace(self.fits, shared=shared)

    def prepare(self, rows: np.ndarray, start: Mapping[str, np.ndarray] | None) -> None:
        """Measure what fits share on some of `rows`; `start`: of the same rows, as `__call__` takes it."""
        self.fits = prepare(self.fits, self.options, rows, start, self.data.samples[0].person)

    def __call__(
        self, rows: np.ndarray, start: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Parameters of rows (M,) in their cameras' frames, as `estimates` gives them, `transl` and `error`
        among them. In pictures `focal` and `princpt` (M, 2), px of the whole images, say which cameras.

        `start`: a network's, by the same names, whose other entries are passed on; None begins at the
        likeliest pose, turned by hips and shoulders, in pictures in a few headings. Frames are smoothed among
        these rows alone."""
        if not len(rows):
            return {} if start is None else dict(start)
        pieces = [slice(n, n + _BATCH) for n in range(0, len(rows), _BATCH)]
        starts = [None if start is None else {n: v[piece] for n, v in start.items()} for piece in pieces]
        states = [self.fits.fitted(rows[p], begin) for p, begin in zip(pieces, starts, strict=True)]
        if self.options.smooth is not None:
            fills = [self.fits.fill(rows[p], begin) for p, begin in zip(pieces, starts, strict=True)]
            states = self._smoothed(rows, states, pieces, fills, self.options.smooth)
        found = [
            self._columns(rows[piece], state, begin)
            for piece, state, begin in zip(pieces, states, starts, strict=True)
        ]
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def _smoothed(
        self,
        rows: np.ndarray,
        states: list[State],
        pieces: list[slice],
        fills: list[Tensor | None],
        spread: float,
    ) -> list[State]:
        """Fit again, each about the mean of the frames before and after as they were last; shapes stay."""
        fits = self.fits
        beside = torch.from_numpy(neighbours(self.data.samples[0], rows)).to(fits.known.device)
        there = beside >= 0
        count = there.sum(1)
        for _ in range(_SMOOTHED[0]):
            poses = torch.cat([state.pose for state in states])
            around = (poses[beside.clamp_min(0)] * there[:, :, None, None]).sum(1)
            around = around / count.clamp_min(1)[:, None, None]
            for number, piece in enumerate(pieces):
                beliefs = replace(fits.beliefs, near=around[piece], near_weight=count[piece] / spread**2)
                exact = fits.exact(fits.evidence(rows[piece]))
                states[number] = levenberg_marquardt(
                    fits.chart,
                    fits.moments,
                    fits.filled(exact, fills[number], fits.shared.noise),
                    beliefs,
                    states[number],
                    steps=_SMOOTHED[1],
                    fixed_codes=True,
                ).state
        return states

    def _columns(
        self, rows: np.ndarray, state: State, start: Mapping[str, np.ndarray] | None
    ) -> dict[str, np.ndarray]:
        """Parameters of a batch; a row without a joint keeps its start."""
        fits = self.fits
        made = {name: value.cpu().numpy() for name, value in fits.chart.parameters(state).items()}
        if fits.chart.model == "smplx":
            del made["expression"]  # pinned to nothing, and no release has one without a jaw
        made["error"] = fits.error(fits.evidence(rows), state)
        passed = dict(start or {})
        if fits.cameras is not None:
            crops = self.data.crops[0].rows(rows)
            virtual = virtual_cameras(len(rows)).in_images(crops)
            passed |= dict(zip(("focal", "princpt"), virtual, strict=True))
            made |= dict(zip(("focal", "princpt"), fits.cameras.rows(rows).in_images(crops), strict=True))
        if start is None:
            return made
        lost = ~np.isfinite(made["error"]) | ~np.isfinite(passed["error"])
        kept = {}
        for name, value in passed.items():
            new = made.get(name, value)
            kept[name] = np.where(lost.reshape(-1, *[1] * (value.ndim - 1)), value, new).astype(value.dtype)
        return kept


def prepare_refinement(
    machinery: Machinery,
    data: TrainingData,
    rows: np.ndarray,
    start: Mapping[str, np.ndarray] | None,
    options: RefineOptions | None = None,
    *,
    prior: PoseGaussians | None = None,
) -> Refinement:
    """A refinement of the data set of `data`, with what its fits share.

    `rows` (M,): those that will be refined; `start`: the network's estimates of them (`estimates`), or None
    to fit without. `prior`: of poses, by default the one that ships for bodies, spreads for hands and faces.
    """
    refinement = Refinement(machinery, data, options or RefineOptions(), prior)
    refinement.prepare(rows, start)
    return refinement
