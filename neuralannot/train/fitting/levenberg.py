"""Levenberg's and Marquardt's damped steps on bodies: joints, pose prior and shape prior together.

All bodies at once; each has a damping of its own, or each person where persons' frames share one shape.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralannot.body_models.moments import JointMoments
from neuralannot.train.fitting.charts import Chart, State, put, with_codes
from neuralannot.train.fitting.evidence import Evidence
from neuralannot.train.fitting.gaussians import PoseGaussians

_FIRST_DAMPING = 1e-3
_LEAST_DAMPING, _MOST_DAMPING = 1e-8, 1e8
_EASED, _RAISED = 0.3, 5.0
# A share of the energy (and of 1) below which a step counts as nothing, how many of them end a body's fit,
# and the share of bodies still going on below which the others are no longer computed.
_GAIN, _CALM, _NARROWED = 1e-6, 2, 0.8


@dataclass(frozen=True, eq=False)
class Beliefs:
    """What is known of bodies beside the joints, as sums of squares.

    `prior`: distributions of the pose, times `prior_weight`; `pose_weight`: of half the pose's sum of
    squares, radians; `codes_weight`: of half the codes' (of one person's, where frames share it), a number or
    (S,) for each code; `near` (B, F, 3): a pose, a network's say, about which `near_weight`, a number or (B,)
    one a body, counts half the squared distance.
    """

    prior: PoseGaussians | None = None
    prior_weight: float = 1.0
    pose_weight: float = 0.0
    codes_weight: float | Tensor = 1.0
    near: Tensor | None = None
    near_weight: float | Tensor = 0.0

    def rows(self, index: Tensor | slice) -> Beliefs:
        if self.near is None:
            return self
        weight = self.near_weight
        if isinstance(weight, Tensor) and weight.ndim:
            weight = weight[index]
        return replace(self, near=self.near[index], near_weight=weight)

    def energy(self, pose: Tensor) -> Tensor:
        """(B, F, 3) -> (B,), the codes' part left out."""
        flat = pose.flatten(1)
        total = 0.5 * self.pose_weight * flat.square().sum(1)
        if self.prior is not None:
            total = total + self.prior_weight * self.prior.energy(flat)
        if self.near is not None:
            total = total + 0.5 * self.near_weight * (flat - self.near.flatten(1)).square().sum(1)
        return total

    def normal(self, pose: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D, D) and (B, D): matrix and gradient by the pose."""
        flat = pose.flatten(1)
        eye = torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device)
        matrix = (self.pose_weight * eye).expand(len(flat), -1, -1)
        gradient = self.pose_weight * flat
        if self.prior is not None:
            which = self.prior.nearest(flat)
            precision = self.prior_weight * self.prior.precisions[which]
            matrix = matrix + precision
            gradient = gradient + (precision @ (flat - self.prior.means[which])[..., None])[..., 0]
        if self.near is not None:
            weight = torch.as_tensor(self.near_weight).to(flat).reshape(-1, 1)
            matrix = matrix + weight[..., None] * eye
            gradient = gradient + weight * (flat - self.near.flatten(1))
        return matrix, gradient


@dataclass(frozen=True, eq=False)
class Solution:
    """`state`; `energy` (B,) of each body, its part of the codes' included; `steps` taken."""

    state: State
    energy: Tensor
    steps: int


def levenberg_marquardt(
    chart: Chart,
    moments: JointMoments,
    evidence: Evidence,
    beliefs: Beliefs,
    start: State,
    *,
    steps: int = 10,
    persons: Tensor | None = None,
    fixed_codes: bool = False,
) -> Solution:
    """Lower the energy from `start` by at most `steps` damped steps; a step that raises it is not taken.

    Bodies that two steps in a row have hardly changed are left alone: there is no more to gain for them.

    `persons` (B,) int64 from 0: bodies with the same number share their codes, which begin at their mean;
    None: every body has its own. `fixed_codes`: codes stay as they are. Computed in float64; the state comes
    back in the start's dtype. Bodies without a valid joint come to rest at the priors' best.
    """
    kind = start.pose.dtype
    with torch.no_grad():
        solver = _Solver(chart, moments, evidence, beliefs, persons, fixed_codes)
        whole = state = solver.shared(start.to(torch.float64))
        rows = torch.arange(len(state), device=solver.of.device)
        energy = solver.energy(state)
        damping = torch.full_like(energy, _FIRST_DAMPING)
        calm = torch.zeros_like(energy)
        taken, narrow = 0, solver
        for _ in range(steps):
            going = calm < _CALM
            if not bool(going.any()):
                break
            if going.sum() < _NARROWED * len(going):
                whole = put(whole, rows, state)
                some = torch.nonzero(going[narrow.of])[:, 0]
                narrow, rows, state = narrow.of_groups(going, some), rows[some], state.rows(some)
                energy, damping, calm = energy[going], damping[going], calm[going]
            candidate = state.moved(narrow.step(state, damping))
            new = narrow.energy(candidate)
            better = torch.isfinite(new) & (new <= energy)
            calm = torch.where((new - energy).abs() <= _GAIN * (1 + energy), calm + 1, 0)
            state = candidate.where(better[narrow.of], state)
            energy = torch.where(better, new, energy)
            damping = torch.where(better, damping * _EASED, damping * _RAISED)
            damping = damping.clamp(_LEAST_DAMPING, _MOST_DAMPING)
            taken += 1
        whole = put(whole, rows, state)
        return Solution(whole.to(kind), solver.each(whole).to(kind), taken)


def evidence_noise(
    chart: Chart, moments: JointMoments, evidence: Evidence, beliefs: Beliefs, state: State
) -> tuple[float, float]:
    """The standard deviation of a coordinate, in the evidence's unit, that its residuals at a fit speak of,
    and how much of the noise's square the fit follows, 0 to 1.

    The sum of the weighted squares over the coordinates less those that the fit could follow: the trace of
    the share that the joints have in what determines each body (codes taken as known). NaN where nothing is
    left over.
    """
    with torch.no_grad():
        solver = _Solver(chart, moments, evidence, beliefs, None, fixed_codes=True)
        wide = state.to(torch.float64)
        posed, jacobian = solver.linearise(wide)
        free = len(chart) - chart.num_codes
        jacobian = jacobian[..., :free]
        seen, _ = solver.evidence.normal(posed, jacobian)
        prior, _ = solver.beliefs.normal(wide.pose)
        whole = seen.clone()
        whole[:, 3 : 3 + prior.shape[1], 3 : 3 + prior.shape[1]] += prior
        whole.diagonal(dim1=1, dim2=2)[:] += 1e-9 * whole.diagonal(dim1=1, dim2=2).amax(1, keepdim=True)
        factor = torch.linalg.cholesky_ex(whole)[0]
        followed = torch.cholesky_solve(seen, factor).diagonal(dim1=1, dim2=2).sum()
        share = solver.evidence.trust(posed)
        off = solver.evidence.residuals(posed)
        count = share.sum() * off.shape[2]
        left = count - followed
        if not left > 0:
            return float("nan"), 1.0
        return float((share * off.square().sum(2)).sum().div(left).sqrt()), float(followed / count)


def pose_covariance(
    chart: Chart,
    moments: JointMoments,
    evidence: Evidence,
    beliefs: Beliefs,
    state: State,
) -> Tensor:
    """(B, 3 F, 3 F) float64: how uncertain the pose of a fit is, radians squared.

    The pose's part of the inverse of Gauss and Newton's matrix, with the codes' own uncertainty in it
    (Laplace's approximation): wide where neither joints nor priors say anything.
    """
    with torch.no_grad():
        solver = _Solver(chart, moments, evidence, beliefs, None, fixed_codes=False)
        matrix, _ = solver.normal(state.to(torch.float64))
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        # Where there is no joint, a place says nothing and must not make the matrix singular.
        diagonal += 1e-12 * diagonal.amax(1, keepdim=True) + 1e-12
        whole = torch.cholesky_inverse(torch.linalg.cholesky_ex(matrix)[0])
        size = 3 * len(chart.joints)
        return whole[:, 3 : 3 + size, 3 : 3 + size]


class _Solver:
    def __init__(
        self,
        chart: Chart,
        moments: JointMoments,
        evidence: Evidence,
        beliefs: Beliefs,
        persons: Tensor | None,
        fixed_codes: bool,
    ) -> None:
        self.chart, self.beliefs, self.fixed = chart, beliefs, fixed_codes
        self.moments = copy.deepcopy(moments).double()  # `double` alone would change the caller's
        self.evidence = _wide(evidence)
        if beliefs.prior is not None:
            self.beliefs = replace(beliefs, prior=beliefs.prior.to(self.evidence.joints))
        if beliefs.near is not None:
            weight = torch.as_tensor(beliefs.near_weight).to(self.evidence.joints)
            self.beliefs = replace(self.beliefs, near=beliefs.near.double(), near_weight=weight)
        if isinstance(beliefs.codes_weight, Tensor):
            self.beliefs = replace(self.beliefs, codes_weight=beliefs.codes_weight.to(self.evidence.joints))
        count = len(evidence.joints)
        self.of = torch.arange(count, device=evidence.joints.device) if persons is None else persons
        self.groups = int(self.of.max()) + 1 if count else 0
        self.frames = torch.bincount(self.of, minlength=self.groups).double()

    def of_groups(self, keep: Tensor, rows: Tensor) -> _Solver:
        """The same for some persons (G,) bool alone, whose bodies are `rows`."""
        one = copy.copy(self)
        one.evidence, one.beliefs = self.evidence.rows(rows), self.beliefs.rows(rows)
        one.of = (torch.cumsum(keep, 0) - 1)[self.of[rows]]
        one.groups, one.frames = int(keep.sum()), self.frames[keep]
        return one

    def shared(self, state: State) -> State:
        """Each person's codes at their frames' mean."""
        if self.fixed:
            return state
        return with_codes(state, (self._sum(state.codes) / self.frames[:, None])[self.of])

    def energy(self, state: State) -> Tensor:
        """(G,) of each person."""
        return self._sum(self.each(state))

    def each(self, state: State) -> Tensor:
        posed = self.moments(self.chart.rotations(state), state.codes) + state.transl[:, None]
        codes = 0.5 * (self.beliefs.codes_weight * state.codes.square()).sum(1) / self.frames[self.of]
        return self.evidence.energy(posed) + self.beliefs.energy(state.pose) + codes

    def step(self, state: State, damping: Tensor) -> Tensor:
        """(B, N) the damped step of each body."""
        matrix, gradient = self.normal(state)
        size, free = self.chart.num_codes, len(self.chart) - self.chart.num_codes
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        # Unknowns that nothing speaks of must not make the matrix singular.
        least = 1e-9 * diagonal.amax(1, keepdim=True) + 1e-12
        diagonal += damping[self.of][:, None] * diagonal + least
        own, cross, codes = matrix[:, :free, :free], matrix[:, :free, free:], matrix[:, free:, free:]
        factor = torch.linalg.cholesky_ex(own)[0]
        right = torch.cat([gradient[:, :free, None], cross], 2)
        solved = torch.cholesky_solve(right, factor)
        if self.fixed or not size:
            step = -solved[..., 0]
            return torch.cat([step[:, :-3], step.new_zeros(len(step), size), step[:, -3:]], 1)
        # A person's codes: what is left of all frames' equations when the frames' own unknowns are gone.
        schur = self._sum(codes - cross.transpose(1, 2) @ solved[..., 1:])
        rest = self._sum(gradient[:, free:] - (cross.transpose(1, 2) @ solved[..., :1])[..., 0])
        shared = -torch.cholesky_solve(rest[..., None], torch.linalg.cholesky_ex(schur)[0])[self.of]
        step = -solved[..., 0] - (solved[..., 1:] @ shared)[..., 0]
        return torch.cat([step[:, :-3], shared[..., 0], step[:, -3:]], 1)

    def linearise(self, state: State) -> tuple[Tensor, Tensor]:
        """(B, K, 3) joints and (B, K, 3, N), their derivative by root, pose, translation and, last, codes."""
        chart = self.chart
        rotations = chart.rotations(state)
        posed, by_rotation, by_code = self.moments.linearise(rotations, state.codes)
        posed = posed + state.transl[:, None]
        by_pose = by_rotation[:, :, :, chart.joints]
        by_pose = torch.einsum("bkcjd,bjde->bkcje", by_pose, chart.left_jacobians(state)).flatten(3)
        eye = torch.eye(3, dtype=posed.dtype, device=posed.device).expand(*posed.shape[:2], 3, 3)
        return posed, torch.cat([by_rotation[:, :, :, 0], by_pose, eye, by_code], 3)

    def normal(self, state: State) -> tuple[Tensor, Tensor]:
        """Matrix and gradient by root, pose, translation and, last, the codes."""
        matrix, gradient = self.evidence.normal(*self.linearise(state))
        prior, pull = self.beliefs.normal(state.pose)
        matrix[:, 3 : 3 + prior.shape[1], 3 : 3 + prior.shape[1]] += prior
        gradient[:, 3 : 3 + prior.shape[1]] += pull
        size = self.chart.num_codes
        if size:
            weight = self.beliefs.codes_weight / self.frames[self.of][:, None]
            matrix.diagonal(dim1=1, dim2=2)[:, -size:] += weight
            gradient[:, -size:] += weight * state.codes
        return matrix, gradient

    def _sum(self, values: Tensor) -> Tensor:
        """Over each person's frames."""
        total = values.new_zeros(self.groups, *values.shape[1:])
        return total.index_add_(0, self.of, values)


def _wide(evidence: Evidence) -> Evidence:
    def wide(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.double()

    return replace(
        evidence,
        joints=torch.where(evidence.valid[..., None], evidence.joints, 0).double(),
        confidence=wide(evidence.confidence),
        focal=wide(evidence.focal),
        princpt=wide(evidence.princpt),
    )
