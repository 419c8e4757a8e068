"""`RowFits`: bodies fitted to the joints of a data set's rows by damped least squares, from whatever starts
there are, the best kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neuralannot.body_models.moments import JointMoments
from neuralannot.train.fitting.charts import Chart, State, put, with_codes
from neuralannot.train.fitting.evidence import Evidence
from neuralannot.train.fitting.gaussians import PoseGaussians, isotropic, open_gaussian
from neuralannot.train.fitting.joint_fits import placed
from neuralannot.train.fitting.levenberg import Beliefs, Solution, levenberg_marquardt
from neuralannot.train.method_options import RefineOptions
from neuralannot.train.picture_cameras import PictureCameras, image_cameras, seen_through, virtual_cameras
from neuralannot.train.run import Machinery, TrainingData
from neuralannot.train.smplify.placing import Torso, placed_in_picture, rolled, turned, upright
from neuralannot.train.smplify.settings import HEADINGS
from neuralannot.train.targets import Targets

_BODIES = ("smpl", "smplx")
# One standard deviation of a rotation, radians, of models without a learnt distribution.
_SPREAD = {"mano": 0.5, "flame": 0.2}
_PINNED = 1e6  # weight of codes that joints say nothing of
_LOOSE, _EXACT = 6, 12  # steps
_FROM_REST = (10, 20)
# A network is so many times as far off where it sees no joint as where it sees one.
_BLIND = 2.0
_NOTICED = 2.0  # times the least noise: below, joints need no second opinion
_OUTLYING = 5.0  # times the noise: a joint farther off counts less
_ALIKE = 0.5  # how far a network's errors and a fit's go together: both come of one noise


@dataclass(frozen=True, eq=False)
class Unit:
    """What joints in space (metres) and in crops (px of 256) differ in. `first`, `least`: noise, at the start
    and at least; `loose`, `wide`: noise and Geman-McClure scale of the first steps; `outlying`: least scale
    of the others."""

    first: float
    least: float
    loose: float
    wide: float
    outlying: float


SPACE = Unit(first=0.01, least=0.001, loose=0.03, wide=0.3, outlying=0.1)
#: Hands and faces are a fifth as large; how far off a start may be is not.
SMALL = Unit(first=0.002, least=0.0002, loose=0.01, wide=0.3, outlying=0.1)
PICTURE = Unit(first=3.0, least=0.5, loose=6.0, wide=60.0, outlying=20.0)


@dataclass(frozen=True, eq=False)
class Shared:
    """What the fits of a data set have in common.

    `noise`: the standard deviation that a joint's coordinate is taken to have, metres or px; `followed`: how
    much of its square a fit follows, 0 to 1; `off`: how far a network is from a coordinate of the 3D joints
    that it was given, metres, 0 where there is none; `prior`: of the pose; `shapes` (P, S): codes of P
    persons; `of` (N,) int64: whose shape each row of the data set has, -1 for one of its own.
    """

    noise: float
    followed: float
    off: float
    prior: PoseGaussians
    shapes: Tensor
    of: np.ndarray

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """As arrays, for a file."""
        return {
            "noise": np.array([self.noise], np.float64),
            "followed": np.array([self.followed], np.float64),
            "off": np.array([self.off], np.float64),
            "means": self.prior.means.cpu().numpy(),
            "precisions": self.prior.precisions.cpu().numpy(),
            "offsets": self.prior.offsets.cpu().numpy(),
            "shapes": self.shapes.cpu().numpy(),
            "of": self.of.astype(np.int64),
        }

    @staticmethod
    def from_columns(columns: Mapping[str, np.ndarray], device: torch.device) -> Shared:
        def tensor(name: str) -> Tensor:
            return torch.tensor(np.array(columns[name]), device=device)

        prior = PoseGaussians(tensor("means"), tensor("precisions"), tensor("offsets"))
        noise, followed, off = (float(columns[name][0]) for name in ("noise", "followed", "off"))
        return Shared(noise, followed, off, prior, tensor("shapes"), np.array(columns["of"]))


@dataclass(frozen=True, eq=False)
class RowFits:
    """Fits of rows of one data set, under `shared`.

    `cameras`: of all rows' crops, None with 3D joints; `near`: as of `RefineOptions`; `codes_weight` (S,).
    `make_row_fits` makes them.
    """

    chart: Chart
    moments: JointMoments
    known: Tensor
    torso: Torso
    targets: Targets
    cameras: PictureCameras | None
    near: float | None
    codes_weight: Tensor
    shared: Shared

    @property
    def is_mocap(self) -> bool:
        return self.cameras is None

    @property
    def unit(self) -> Unit:
        if not self.is_mocap:
            return PICTURE
        return SPACE if self.chart.model in _BODIES else SMALL

    @property
    def beliefs(self) -> Beliefs:
        return Beliefs(prior=self.shared.prior, codes_weight=self.codes_weight)

    def under(self, **changes: object) -> RowFits:
        """The same with some fields of `shared` changed."""
        return replace(self, shared=replace(self.shared, **changes))  # type: ignore[arg-type]

    # --- what is known of rows

    def evidence(self, rows: np.ndarray) -> Evidence:
        """Of rows (B,), as loose as the first steps want it."""
        targets = self.targets.rows(torch.from_numpy(rows)).to(self.known.device)
        # Never more exactly than the joints are.
        loose = 1 / (2 * max(self.unit.loose, self.shared.noise) ** 2)
        wide = max(self.unit.wide, _OUTLYING * self.shared.noise)
        if self.cameras is None:
            return Evidence(targets.joints_cam, targets.valid_cam & self.known, loose, wide)
        cameras = self.cameras.rows(rows)
        focal, princpt = (torch.from_numpy(v).to(self.known.device) for v in (cameras.focal, cameras.princpt))
        valid = targets.valid_2d & self.known
        return Evidence(targets.joints_2d, valid, loose, wide, focal=focal, princpt=princpt)

    def exact(self, evidence: Evidence) -> Evidence:
        """The evidence as exact as the joints are."""
        noise = self.shared.noise
        return replace(evidence, weight=1 / (2 * noise**2), scale=max(self.unit.outlying, _OUTLYING * noise))

    def fill(self, rows: np.ndarray, start: Mapping[str, np.ndarray] | None) -> Tensor | None:
        """(B, K, 3) where a network has the joints, for those that are missing; None where nobody knows."""
        if start is None or not self.shared.off:
            return None
        return self.posed(self.of_network(rows, start))

    def filled(self, evidence: Evidence, fill: Tensor | None, noise: float) -> Evidence:
        """Evidence of noise `noise` with what the network says of the same joints.

        Of missing ones it is all there is. Of noisy ones it is a second measurement, never a better one: it
        was trained on many frames' noise and shows less of each one's. Where it is worse than a fit to the
        noisy joints is, it counts by what the best mean of two estimates gives whose errors go together.
        """
        if fill is None:
            return evidence
        least, off = self.shared.noise, self.shared.off
        there, known = evidence.valid, self.known.expand_as(evidence.valid)
        less = (noise / max(_BLIND * max(off, least), noise)) ** 2
        more = 0.0
        if least > _NOTICED * self.unit.least:
            own = max(off**2 - least**2, 0.0) ** 0.5
            worse = max(own / (self.shared.followed**0.5 * least), 1.0)
            more = max(1 - _ALIKE * worse, 0.0) / (worse**2 - _ALIKE * worse)
        both = (evidence.joints + more * fill) / (1 + more)
        return replace(
            evidence,
            joints=torch.where(there[..., None], both, fill),
            valid=known & there.any(1, keepdim=True),
            confidence=torch.where(there, 1.0 + more, less),
        )

    # --- starts

    def of_network(self, rows: np.ndarray, start: Mapping[str, np.ndarray]) -> State:
        """A network's estimates of rows, in the frames of the rows' cameras."""
        device = self.known.device
        given = {n: torch.from_numpy(np.ascontiguousarray(v)).to(device) for n, v in start.items()}
        transl = torch.nan_to_num(given["transl"])  # no joint to place the body by
        state = self.chart.state({**given, "transl": transl})
        if self.cameras is None:
            return state
        cameras = self.cameras.rows(rows)
        return seen_through(state, self.chart, self.moments, virtual_cameras(len(rows)), cameras)

    def likeliest(self, evidence: Evidence) -> list[State]:
        """The likeliest pose, turned onto 3D joints; in pictures upright, in a few headings."""
        args = self.chart, self.moments
        if not evidence.is_picture:
            joints, valid = evidence.joints, evidence.valid
            return [placed(*args, joints, valid, torso=self.torso.joints, prior=self.shared.prior)]
        model = self.chart.model
        rest = upright(self._rest(len(evidence.joints), evidence.joints), model)
        found = []
        for angle in HEADINGS[model]:
            state = turned(rest, model, angle)
            if model != "flame":
                state = rolled(*args, state, evidence, self.torso)
            found.append(placed_in_picture(*args, state, evidence, self.torso))
        return found

    def _rest(self, count: int, like: Tensor) -> State:
        rest = self.chart.rest(count, like)
        prior = self.shared.prior
        mean = prior.means[int(prior.offsets.argmin())].to(like)
        return replace(rest, pose=mean.view(1, -1, 3).expand(count, -1, -1).clone())

    # --- fits

    def fitted(self, rows: np.ndarray, start: Mapping[str, np.ndarray] | None) -> State:
        """The best fits of rows (B,) from a network's estimates (columns (B, ...)), and from rest."""
        evidence, fill = self.evidence(rows), self.fill(rows, start)
        best: tuple[State, Tensor] | None = None
        if start is not None:
            begun = self.of_network(rows, start)
            best = self._from(begun, rows, evidence, fill, from_rest=False)
            if self.near is not None:
                return best[0]
        # Where the network is far off, the likeliest pose is the better start.
        for state in self.likeliest(self.filled(evidence, fill, self.shared.noise)):
            other = self._from(state, rows, evidence, fill, from_rest=True)
            best = other if best is None else _lower(best, other)
        assert best is not None
        return best[0]

    def _from(
        self, state: State, rows: np.ndarray, evidence: Evidence, fill: Tensor | None, *, from_rest: bool
    ) -> tuple[State, Tensor]:
        """Fits of a batch from one start, and their energies (B,)."""
        energy = torch.zeros(len(state), device=self.known.device)
        whose = torch.from_numpy(self.shared.of[rows]).to(self.known.device)
        for is_known in (True, False):
            some = torch.nonzero((whose >= 0) == is_known)[:, 0]
            if not len(some):
                continue
            begin = state.rows(some)
            if is_known:
                begin = with_codes(begin, self.shared.shapes[whose[some]])
            part = None if fill is None else fill[some]
            solved = self._solve(evidence.rows(some), begin, fill=part, fixed=is_known, from_rest=from_rest)
            state = put(state, some, solved.state)
            energy[some] = solved.energy.to(energy)
        return state, energy

    def _solve(
        self, evidence: Evidence, start: State, *, fill: Tensor | None, fixed: bool, from_rest: bool
    ) -> Solution:
        """Loosely first, then as exactly as the joints are."""
        beliefs = self.beliefs
        exact = self.filled(self.exact(evidence), fill, self.shared.noise)
        loose = self.filled(evidence, fill, max(self.unit.loose, self.shared.noise))
        if self.near is not None and not from_rest:
            beliefs = replace(beliefs, near=start.pose, near_weight=1 / self.near**2)
        args, steps = (self.chart, self.moments), _FROM_REST if from_rest else (_LOOSE, _EXACT)
        first = levenberg_marquardt(*args, loose, beliefs, start, steps=steps[0], fixed_codes=fixed)
        return levenberg_marquardt(*args, exact, beliefs, first.state, steps=steps[1], fixed_codes=fixed)

    def settled(self, evidence: Evidence, state: State, persons: Tensor | None) -> State:
        """Fits lowered further, as exactly as the joints are; `persons`: as of `levenberg_marquardt`."""
        exact, args = self.exact(evidence), (self.chart, self.moments)
        return levenberg_marquardt(*args, exact, self.beliefs, state, steps=_EXACT, persons=persons).state

    def posed(self, state: State) -> Tensor:
        """(B, K, 3) metres: the joints in the camera's frame."""
        with torch.no_grad():
            joints: Tensor = self.moments(self.chart.rotations(state), state.codes) + state.transl[:, None]
            return joints

    def error(self, evidence: Evidence, state: State) -> np.ndarray:
        """(B,) mean distance over the valid joints, metres or px; NaN without any."""
        distance = evidence.residuals(self.posed(state)).norm(dim=2)
        error: np.ndarray = (distance.sum(1) / evidence.valid.sum(1)).cpu().numpy().astype(np.float32)
        return error


def make_row_fits(
    machinery: Machinery, data: TrainingData, options: RefineOptions, prior: PoseGaussians | None = None
) -> RowFits:
    """Of the data set of `data`, nothing measured yet; `prior`: of the pose, by default the open one of
    bodies, spreads for hands and faces. Raises ValueError for several data sets, whose noise is not one."""
    if len(data.samples) != 1:
        raise ValueError(f"one data set is refined at a time, got {len(data.samples)}")
    body, samples = machinery.body, data.samples[0]
    device = body.J_regressor.device
    chart = Chart(body)
    moments = machinery.points.moments().to(device)
    cameras = None
    if not samples.is_mocap:
        crops = data.crops[0]
        in_image = options.camera == "image"
        cameras = image_cameras(crops, focal=options.focal) if in_image else virtual_cameras(len(crops))
    unit = (SPACE if body.model in _BODIES else SMALL) if samples.is_mocap else PICTURE
    if prior is None:
        is_body = body.model in _BODIES
        prior = open_gaussian() if is_body else isotropic(3 * len(chart.joints), _SPREAD[body.model])
    weight = torch.ones(chart.num_codes, device=device)
    if body.model == "smplx":
        weight[10:] = _PINNED  # no joint of a body tells an expression
    shared = Shared(
        noise=options.noise or unit.first,
        followed=1.0,
        off=0.0,
        prior=prior.to(weight),
        shapes=torch.zeros(0, chart.num_codes, device=device),
        of=np.full(len(data.usable), -1),
    )
    torso = machinery.network.torso.to(device)
    with torch.no_grad():
        rest = chart.rest(1, weight)
        at_rest = moments(chart.rotations(rest), rest.codes)[0, torso]
    return RowFits(
        chart=chart,
        moments=moments,
        known=machinery.points.known,
        torso=Torso.of(torso, at_rest),
        targets=data.targets,
        cameras=cameras,
        near=options.near,
        codes_weight=weight,
        shared=shared,
    )


def _lower(one: tuple[State, Tensor], other: tuple[State, Tensor]) -> tuple[State, Tensor]:
    keep = one[1] <= other[1]
    return one[0].where(keep, other[0]), torch.where(keep, one[1], other[1])
