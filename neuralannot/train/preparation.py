"""What the fits of a data set have in common: its joints' noise, its people's poses, each person's shape."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from neuralannot.train.fitting.adaptation import adapted
from neuralannot.train.fitting.charts import State
from neuralannot.train.fitting.evidence import Evidence
from neuralannot.train.fitting.levenberg import evidence_noise, pose_covariance
from neuralannot.train.method_options import RefineOptions
from neuralannot.train.row_fits import RowFits

__all__ = ["prepare"]

_BATCH = 512
# How many frames tell a person's shape, and how many samples the joints' noise and the poses.
_FRAMES, _SAMPLES = 48, 256
_NOISE_ROUNDS, _SETTLED = 5, 0.1
_POSE_ROUNDS, _FEW = 3, 32


def prepare(
    fits: RowFits,
    options: RefineOptions,
    rows: np.ndarray,
    start: Mapping[str, np.ndarray] | None,
    person: np.ndarray | None,
) -> RowFits:
    """The fits under what some of `rows` (M,) tell: the noise of the joints, the prior of the poses, and the
    shape of every person with more than one frame.

    `start`: a network's estimates of the same rows, as `RowFits.fitted` takes them; with 3D joints only how
    far it is off counts, lest its own mistakes look like the data's. `person` (N,) of the data set, -1
    unknown; None where nobody is known. Raises ValueError for a prior of several distributions that is to be
    adapted.
    """
    said = start
    if fits.is_mocap:
        start = None
    good = _enough(fits, rows)
    if start is not None:
        good &= np.isfinite(start["error"])
    places = np.flatnonzero(good)
    some = _spread(places, _SAMPLES)
    if len(some):
        fits = _told(fits, options, rows, some, start, person)
    if fits.is_mocap and said is not None:
        fits = fits.under(off=_off_by(fits, rows, said))
    # A face's codes are its expression too, which no two frames share.
    if not options.share_shape or person is None or fits.chart.model == "flame":
        return fits
    return _with_shapes(fits, rows, places, start, person)


def _told(
    fits: RowFits,
    options: RefineOptions,
    rows: np.ndarray,
    some: np.ndarray,
    start: Mapping[str, np.ndarray] | None,
    person: np.ndarray | None,
) -> RowFits:
    """Noise and prior, from the samples at `some` places of `rows`."""
    adapts = options.adapt and len(some) >= _FEW
    if options.noise is not None and not adapts:
        return fits
    here, first = rows[some], fits.shared.prior
    begin = None if start is None else _at(start, some)
    persons = None
    if options.share_shape and person is not None and fits.chart.model != "flame":
        alone = person.max(initial=0) + 1 + np.arange(len(here))
        numbers = np.unique(np.where(person[here] < 0, alone, person[here]), return_inverse=True)[1]
        persons = torch.from_numpy(numbers).to(fits.known.device)
    for _ in range(_POSE_ROUNDS if adapts else 1):
        evidence = fits.evidence(here)
        state = fits.settled(evidence, fits.fitted(here, begin), persons)
        if options.noise is None:
            fits, state = _measured(fits, evidence, state, persons)
        if adapts:
            exact = fits.exact(evidence)
            spread = pose_covariance(fits.chart, fits.moments, exact, fits.beliefs, state)
            fits = fits.under(prior=adapted(first, state.pose.flatten(1), spread))
    return fits


def _measured(
    fits: RowFits, evidence: Evidence, state: State, persons: Tensor | None
) -> tuple[RowFits, State]:
    """The noise under which fits leave just that noise over."""
    for _ in range(_NOISE_ROUNDS):
        left, followed = evidence_noise(fits.chart, fits.moments, fits.exact(evidence), fits.beliefs, state)
        if not np.isfinite(left):
            break
        before = fits.shared.noise
        fits = fits.under(noise=float(max(left, fits.unit.least)), followed=followed)
        if abs(fits.shared.noise - before) < _SETTLED * fits.shared.noise:
            break
        state = fits.settled(evidence, state, persons)
    return fits, state


def _off_by(fits: RowFits, rows: np.ndarray, start: Mapping[str, np.ndarray]) -> float:
    """How far a network is from a coordinate of the joints that it was given, metres."""
    places = _spread(np.flatnonzero(np.isfinite(start["error"])), _SAMPLES)
    evidence = fits.evidence(rows[places])
    if not bool(evidence.valid.any()):
        return 0.0
    posed = fits.posed(fits.of_network(rows[places], _at(start, places)))
    off = evidence.residuals(posed)[evidence.valid]
    return float(off.square().mean().sqrt())


def _enough(fits: RowFits, rows: np.ndarray) -> np.ndarray:
    """(M,) bool: rows with joints enough to say something of a shape."""
    valid = fits.targets.valid_cam if fits.is_mocap else fits.targets.valid_2d
    seen = valid[torch.from_numpy(rows)] & fits.known.cpu()
    return (2 * seen.sum(1) > fits.known.sum().cpu()).numpy()


# --- persons


def _with_shapes(
    fits: RowFits,
    rows: np.ndarray,
    places: np.ndarray,
    start: Mapping[str, np.ndarray] | None,
    person: np.ndarray,
) -> RowFits:
    """With the shape of every person who is seen more than once at `places` of `rows`."""
    numbers, of = np.unique(person, return_inverse=True)
    of = np.where(person < 0, -1, of)
    places = places[of[rows[places]] >= 0]
    frames = {int(n): _spread(places[of[rows[places]] == n], _FRAMES) for n in np.unique(of[rows[places]])}
    frames = {number: some for number, some in frames.items() if len(some) > 1}
    if not frames:
        return fits
    device = fits.known.device
    shapes = torch.zeros(len(numbers), fits.chart.num_codes, device=device)
    for group in _groups(frames):
        at = np.concatenate([frames[number] for number in group])
        whose = np.repeat(np.arange(len(group)), [len(frames[number]) for number in group])
        state = fits.fitted(rows[at], None if start is None else _at(start, at))
        state = fits.settled(fits.evidence(rows[at]), state, torch.from_numpy(whose).to(device))
        first = np.unique(whose, return_index=True)[1]
        shapes[torch.tensor(group, device=device)] = state.codes[torch.from_numpy(first)]
    return fits.under(shapes=shapes, of=np.where(np.isin(of, list(frames)), of, -1))


def _groups(frames: Mapping[int, np.ndarray]) -> list[list[int]]:
    """Persons, in order, so many at a time as a batch holds."""
    groups: list[list[int]] = [[]]
    size = 0
    for number, some in frames.items():
        if size + len(some) > _BATCH and groups[-1]:
            groups.append([])
            size = 0
        groups[-1].append(number)
        size += len(some)
    return groups


def _spread(places: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of them, evenly."""
    if len(places) <= count:
        return places
    spread: np.ndarray = places[np.linspace(0, len(places) - 1, count).round().astype(int)]
    return spread


def _at(values: Mapping[str, np.ndarray], places: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value[places] for name, value in values.items()}
