"""`Refinement`: a network's estimates, or nothing, made to fit the joints by damped least squares.

A network is within centimetres of the joints that it was given; after a few damped Gauss-Newton steps a fit
is within their noise, and what the joints do not say (twists about bones, joints that are missing) comes from
the pose's normal distribution and from the one shape that all frames of a person share. Not in the paper.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neuralannot.train.fitting.charts import Chart, State, with_codes
from neuralannot.train.fitting.evidence import Evidence
from neuralannot.train.fitting.gaussians import PoseGaussians, open_gaussian
from neuralannot.train.fitting.joint_fits import placed
from neuralannot.train.fitting.levenberg import Beliefs, Solution, evidence_noise, levenberg_marquardt
from neuralannot.train.method_options import RefineOptions
from neuralannot.train.network import CROP, FOCAL
from neuralannot.train.run import Machinery, TrainingData
from neuralannot.train.sequences import neighbours

__all__ = ["Refinement", "prepare_refinement"]

_BODIES = ("smpl", "smplx")
# One standard deviation of a rotation, radians, of models without a learnt distribution.
_SPREAD = {"mano": 0.5, "flame": 0.2}
_PINNED = 1e6  # weight of codes that joints say nothing of
_BATCH = 512
# How many frames tell a person's shape, and how many samples their joints' noise.
_FRAMES, _NOISY = 48, 192
_LOOSE, _EXACT = 6, 12  # steps
_FROM_REST = (10, 15)
_NOISE_ROUNDS, _SETTLED = 5, 0.1
_SMOOTHED = (4, 5)  # rounds, and steps of each
# A network is so many times as far off where it sees no joint as where it sees one.
_BLIND = 2.0
_NOTICED = 2.0  # times the least noise: below, joints need no second opinion
_OUTLYING = 5.0  # times the noise: a joint farther off counts less


@dataclass(frozen=True)
class _Unit:
    """What joints in space (metres) and in crops (px of 256) differ in. `first`, `least`: noise, at the start
    and at least; `loose`, `wide`: noise and Geman-McClure scale of the first steps; `outlying`: least scale
    of the others."""

    first: float
    least: float
    loose: float
    wide: float
    outlying: float


_SPACE = _Unit(first=0.01, least=0.001, loose=0.03, wide=0.3, outlying=0.1)
_PICTURE = _Unit(first=3.0, least=0.5, loose=6.0, wide=60.0, outlying=20.0)


class Refinement:
    """Refines rows of a data set, after `prepare` or `take`; `prepare_refinement` makes one.

    `noise`: the standard deviation that joints are taken to have, metres or px; `shapes` (P, S) codes of P
    persons; `of` (N,): whose shape each row has, -1 for one of its own. Raises ValueError for several data
    sets, whose noise is not one.
    """

    def __init__(
        self,
        machinery: Machinery,
        data: TrainingData,
        options: RefineOptions,
        prior: PoseGaussians | None = None,
    ) -> None:
        if len(data.samples) != 1:
            raise ValueError(f"one data set is refined at a time, got {len(data.samples)}")
        body = machinery.body
        self.device = body.J_regressor.device
        self.options, self.data = options, data
        self.chart = Chart(body)
        self.moments = machinery.points.moments().to(self.device)
        self.known = machinery.points.known
        self.torso = machinery.network.torso.to(self.device)
        self.is_mocap = data.samples[0].is_mocap
        self.unit = _SPACE if self.is_mocap else _PICTURE
        if prior is None and body.model in _BODIES:
            prior = open_gaussian()
        self.prior = prior
        weight = torch.ones(self.chart.num_codes, device=self.device)
        if body.model == "smplx":
            weight[10:] = _PINNED  # no joint of a body tells an expression
        self.beliefs = Beliefs(
            prior=None if prior is None else prior.to(weight),
            pose_weight=0.0 if prior is not None else 1 / _SPREAD[body.model] ** 2,
            codes_weight=weight,
        )
        self.noise = options.noise or self.unit.first
        self.shapes = torch.zeros(0, self.chart.num_codes, device=self.device)
        self.of = np.full(len(data.usable), -1)
        self.off = 0.0

    @property
    def digest(self) -> str:
        """What tells this refinement's results from another's."""
        digest = hashlib.blake2b(digest_size=16)
        prior = "" if self.prior is None else self.prior.fingerprint
        digest.update(repr((self.options, prior)).encode())
        person = self.data.samples[0].person
        for value in (*self.prepared.values(), *([] if person is None else [person])):
            digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    @property
    def prepared(self) -> dict[str, np.ndarray]:
        """What `prepare` found, for another process to `take`."""
        noise = np.array([self.noise], np.float64)
        off = np.array([self.off], np.float64)
        shapes = self.shapes.cpu().numpy()
        return {"noise": noise, "off": off, "shapes": shapes, "of": self.of.astype(np.int64)}

    def take(self, prepared: Mapping[str, np.ndarray]) -> None:
        """Use what `prepare` found, here or elsewhere."""
        self.noise, self.off = float(prepared["noise"][0]), float(prepared["off"][0])
        self.shapes = torch.tensor(np.array(prepared["shapes"]), device=self.device)
        self.of = np.array(prepared["of"])

    def __call__(
        self, rows: np.ndarray, start: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """Parameters of rows (M,) in their crops' cameras' frames, as `estimates` gives them, `transl` and
        `error` among them. `start`: a network's, by the same names, whose other entries are passed on; None
        begins at the likeliest pose, turned by hips and shoulders (3D joints alone). Frames are smoothed
        among these rows alone."""
        if not len(rows):
            return {} if start is None else dict(start)
        pieces = [slice(n, n + _BATCH) for n in range(0, len(rows), _BATCH)]
        starts = [None if start is None else _rows(start, piece) for piece in pieces]
        states = [self._fitted(rows[piece], begin) for piece, begin in zip(pieces, starts, strict=True)]
        if self.options.smooth is not None:
            fills = [self._fill(begin) for begin in starts]
            states = self._smoothed(rows, states, pieces, fills, self.options.smooth)
        found = [
            self._columns(rows[piece], state, begin)
            for piece, state, begin in zip(pieces, states, starts, strict=True)
        ]
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def _fitted(self, rows: np.ndarray, start: Mapping[str, np.ndarray] | None) -> State:
        evidence = self._evidence(rows)
        fill = self._fill(start)
        if start is None:
            return self._from(self._start(evidence, None), rows, evidence, fill, from_rest=True)[0]
        state, energy = self._from(self._of_network(start), rows, evidence, fill, from_rest=False)
        if not self.is_mocap or self.options.near is not None:
            return state
        # Where the network is far off, the likeliest pose is the better start.
        rested = self._start(self._filled(evidence, fill, self.noise), None)
        other, its = self._from(rested, rows, evidence, fill, from_rest=True)
        return state.where(energy <= its, other)

    def _from(
        self, state: State, rows: np.ndarray, evidence: Evidence, fill: Tensor | None, *, from_rest: bool
    ) -> tuple[State, Tensor]:
        """Fits of a batch from one start, and their energies (B,)."""
        energy = torch.zeros(len(state), device=self.device)
        whose = torch.from_numpy(self.of[rows]).to(self.device)
        for shared in (True, False):
            some = torch.nonzero((whose >= 0) == shared)[:, 0]
            if not len(some):
                continue
            begin = state.rows(some)
            if shared:
                begin = with_codes(begin, self.shapes[whose[some]])
            part = None if fill is None else fill[some]
            solved = self._solve(evidence.rows(some), begin, fill=part, fixed=shared, from_rest=from_rest)
            state = _put(state, some, solved.state)
            energy[some] = solved.energy.to(energy)
        return state, energy

    def _fill(self, start: Mapping[str, np.ndarray] | None) -> Tensor | None:
        """(B, K, 3) where a network has the joints, for those that are missing; None where nobody knows."""
        if start is None or not self.off:
            return None
        state = self._of_network(start)
        with torch.no_grad():
            return self.moments(self.chart.rotations(state), state.codes) + state.transl[:, None]

    def _smoothed(
        self,
        rows: np.ndarray,
        states: list[State],
        pieces: list[slice],
        fills: list[Tensor | None],
        spread: float,
    ) -> list[State]:
        """Fit again, each about the mean of the frames before and after as they were last; shapes stay."""
        beside = torch.from_numpy(neighbours(self.data.samples[0], rows)).to(self.device)
        there = beside >= 0
        count = there.sum(1)
        for _ in range(_SMOOTHED[0]):
            poses = torch.cat([state.pose for state in states])
            around = (poses[beside.clamp_min(0)] * there[:, :, None, None]).sum(1)
            around = around / count.clamp_min(1)[:, None, None]
            for number, piece in enumerate(pieces):
                beliefs = replace(self.beliefs, near=around[piece], near_weight=count[piece] / spread**2)
                states[number] = levenberg_marquardt(
                    self.chart,
                    self.moments,
                    self._filled(
                        self._exact(self._evidence(rows[piece]), self.noise), fills[number], self.noise
                    ),
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
        evidence = self._evidence(rows)
        made = {name: value.cpu().numpy() for name, value in self.chart.parameters(state).items()}
        if self.chart.model == "smplx":
            del made["expression"]  # pinned to nothing, and no release has one without a jaw
        error = self._error(evidence, state)
        if start is None:
            return made | {"error": error}
        lost = ~np.isfinite(error) | ~np.isfinite(start["error"])
        kept = {}
        for name, value in start.items():
            new = {**made, "error": error}.get(name, value)
            kept[name] = np.where(lost.reshape(-1, *[1] * (value.ndim - 1)), value, new).astype(value.dtype)
        return kept

    # --- what the fits share

    def prepare(self, rows: np.ndarray, start: Mapping[str, np.ndarray] | None) -> None:
        """Measure the noise, and the shape of every person with more than one frame, on some of `rows`.

        `start`: of the same rows, as `__call__` takes it. With 3D joints only how far it is off counts.
        """
        said = start
        if self.is_mocap:
            start = None
        good = self._enough(rows)
        if start is not None:
            good &= np.isfinite(start["error"])
        places = np.flatnonzero(good)
        if self.options.noise is None and len(places):
            self.noise = self._measured(rows, _spread(places, _NOISY), start)
        if self.is_mocap and said is not None:
            self.off = self._off_by(rows, said)
        person = self.data.samples[0].person
        # A face's codes are its expression too, which no two frames share.
        if not self.options.share_shape or person is None or self.chart.model == "flame":
            return
        numbers, of = np.unique(person, return_inverse=True)
        of = np.where(person < 0, -1, of)
        places = places[of[rows[places]] >= 0]
        frames = {
            int(n): _spread(places[of[rows[places]] == n], _FRAMES) for n in np.unique(of[rows[places]])
        }
        frames = {number: some for number, some in frames.items() if len(some) > 1}
        if not frames:
            return
        shapes = torch.zeros(len(numbers), self.chart.num_codes, device=self.device)
        for group in _groups(frames):
            at = np.concatenate([frames[number] for number in group])
            whose = np.repeat(np.arange(len(group)), [len(frames[number]) for number in group])
            evidence = self._evidence(rows[at])
            begin = self._start(evidence, None if start is None else _rows(start, at))
            persons = torch.from_numpy(whose).to(self.device)
            solved = self._solve(evidence, begin, persons=persons, from_rest=start is None)
            first = np.unique(whose, return_index=True)[1]
            shapes[torch.tensor(group, device=self.device)] = solved.state.codes[torch.from_numpy(first)]
        self.shapes = shapes
        self.of = np.where(np.isin(of, list(frames)), of, -1)

    def _measured(
        self, rows: np.ndarray, places: np.ndarray, start: Mapping[str, np.ndarray] | None
    ) -> float:
        """The noise under which fits leave just that noise over."""
        evidence = self._evidence(rows[places])
        state = self._start(evidence, None if start is None else _rows(start, places))
        state = self._solve(evidence, state, from_rest=start is None).state
        noise = self.noise
        for _ in range(_NOISE_ROUNDS):
            exact = self._exact(evidence, noise)
            left = evidence_noise(self.chart, self.moments, exact, self.beliefs, state)
            if not np.isfinite(left):
                return noise
            before, noise = noise, max(left, self.unit.least)
            if abs(noise - before) < _SETTLED * noise:
                break
            exact = self._exact(evidence, noise)
            state = levenberg_marquardt(
                self.chart, self.moments, exact, self.beliefs, state, steps=_EXACT
            ).state
        return float(noise)

    def _off_by(self, rows: np.ndarray, start: Mapping[str, np.ndarray]) -> float:
        """How far a network is from a coordinate of the joints that it was given, metres."""
        places = _spread(np.flatnonzero(np.isfinite(start["error"])), _NOISY)
        evidence = self._evidence(rows[places])
        if not bool(evidence.valid.any()):
            return 0.0
        state = self._of_network(_rows(start, places))
        with torch.no_grad():
            posed = self.moments(self.chart.rotations(state), state.codes) + state.transl[:, None]
        off = evidence.residuals(posed)[evidence.valid]
        return float(off.square().mean().sqrt())

    def _enough(self, rows: np.ndarray) -> np.ndarray:
        """(M,) bool: rows with joints enough to say something of a shape."""
        valid = self.data.targets.valid_cam if self.is_mocap else self.data.targets.valid_2d
        seen = valid[torch.from_numpy(rows)] & self.known.cpu()
        return (2 * seen.sum(1) > self.known.sum().cpu()).numpy()

    # --- one batch

    def _evidence(self, rows: np.ndarray) -> Evidence:
        targets = self.data.targets.rows(torch.from_numpy(rows)).to(self.device)
        # Never more exactly than the joints are.
        loose = 1 / (2 * max(self.unit.loose, self.noise) ** 2)
        wide = max(self.unit.wide, _OUTLYING * self.noise)
        if self.is_mocap:
            return Evidence(targets.joints_cam, targets.valid_cam & self.known, loose, wide)
        full = torch.ones(len(rows), 2, device=self.device)
        valid = targets.valid_2d & self.known
        return Evidence(targets.joints_2d, valid, loose, wide, focal=FOCAL * full, princpt=CROP / 2 * full)

    def _start(self, evidence: Evidence, start: Mapping[str, np.ndarray] | None) -> State:
        if start is not None:
            return self._of_network(start)
        if not self.is_mocap:
            raise ValueError("without 3D joints a fit needs a network's estimate to start from")
        args = (self.chart, self.moments, evidence.joints, evidence.valid)
        return placed(*args, torso=self.torso, prior=self.beliefs.prior)

    def _of_network(self, start: Mapping[str, np.ndarray]) -> State:
        given = {n: torch.from_numpy(np.ascontiguousarray(v)).to(self.device) for n, v in start.items()}
        transl = torch.nan_to_num(given["transl"])  # no joint to place the body by
        return self.chart.state({**given, "transl": transl})

    def _filled(self, evidence: Evidence, fill: Tensor | None, noise: float) -> Evidence:
        """Evidence of noise `noise` with what the network says of the same joints.

        Of missing ones it is all there is. Of noisy ones it is a second measurement, never a better one: it
        was trained on many frames' noise and shows less of each one's.
        """
        if fill is None:
            return evidence
        there, known = evidence.valid, self.known.expand_as(evidence.valid)
        less = (noise / max(_BLIND * max(self.off, self.noise), noise)) ** 2
        more = 0.0
        if self.noise > _NOTICED * self.unit.least:
            own = max(self.off**2 - self.noise**2, self.noise**2)
            more = self.noise**2 / own
        both = (evidence.joints + more * fill) / (1 + more)
        return replace(
            evidence,
            joints=torch.where(there[..., None], both, fill),
            valid=known & there.any(1, keepdim=True),
            confidence=torch.where(there, 1.0 + more, less),
        )

    def _exact(self, evidence: Evidence, noise: float) -> Evidence:
        return replace(evidence, weight=1 / (2 * noise**2), scale=max(self.unit.outlying, _OUTLYING * noise))

    def _solve(
        self,
        evidence: Evidence,
        start: State,
        *,
        persons: Tensor | None = None,
        fill: Tensor | None = None,
        fixed: bool = False,
        from_rest: bool = False,
    ) -> Solution:
        """Loosely first, then as exactly as the joints are."""
        beliefs = self.beliefs
        exact = self._filled(self._exact(evidence, self.noise), fill, self.noise)
        loose = self._filled(evidence, fill, max(self.unit.loose, self.noise))
        if self.options.near is not None and not from_rest:
            beliefs = replace(beliefs, near=start.pose, near_weight=1 / self.options.near**2)
        steps = _FROM_REST if from_rest else (_LOOSE, _EXACT)
        first = levenberg_marquardt(
            self.chart, self.moments, loose, beliefs, start, steps=steps[0], fixed_codes=fixed
        )
        return levenberg_marquardt(
            self.chart,
            self.moments,
            exact,
            beliefs,
            first.state,
            steps=steps[1],
            persons=persons,
            fixed_codes=fixed,
        )

    def _error(self, evidence: Evidence, state: State) -> np.ndarray:
        """(B,) mean distance over the valid joints, metres or px; NaN without any."""
        with torch.no_grad():
            posed = self.moments(self.chart.rotations(state), state.codes) + state.transl[:, None]
            distance = evidence.residuals(posed).norm(dim=2)
        return (distance.sum(1) / evidence.valid.sum(1)).cpu().numpy().astype(np.float32)


def prepare_refinement(
    machinery: Machinery,
    data: TrainingData,
    rows: np.ndarray,
    start: Mapping[str, np.ndarray] | None,
    options: RefineOptions | None = None,
    *,
    prior: PoseGaussians | None = None,
) -> Refinement:
    """A refinement of the data set of `data`, with its noise and its persons' shapes.

    `rows` (M,): those that will be refined; `start`: the network's estimates of them (`estimates`), or None
    to fit without. `prior`: of body poses, the one that ships by default; hands and faces have spreads.
    """
    refinement = Refinement(machinery, data, options or RefineOptions(), prior)
    refinement.prepare(rows, start)
    return refinement


def _spread(places: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of them, evenly."""
    if len(places) <= count:
        return places
    return places[np.linspace(0, len(places) - 1, count).round().astype(int)]


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


def _rows(values: Mapping[str, np.ndarray], index: slice | np.ndarray) -> dict[str, np.ndarray]:
    return {name: value[index] for name, value in values.items()}


def _put(state: State, rows: Tensor, some: State) -> State:
    """The state with some rows replaced."""

    def put(whole: Tensor, part: Tensor) -> Tensor:
        return whole.index_copy(0, rows, part.to(whole.dtype))

    return State(
        put(state.root, some.root),
        put(state.pose, some.pose),
        put(state.codes, some.codes),
        put(state.transl, some.transl),
    )
