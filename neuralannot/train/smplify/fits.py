"""`fit_smplify`: parameters of bodies from 2D or 3D joints, in stages, as SMPLify-X has them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralannot.body_models.model import BodyModel
from neuralannot.body_models.moments import JointMoments
from neuralannot.train.fitting.charts import Chart, State, put
from neuralannot.train.fitting.evidence import Evidence
from neuralannot.train.fitting.gaussians import PoseGaussians
from neuralannot.train.joint_points import JointPoints
from neuralannot.train.priors import PosePrior
from neuralannot.train.rotations import axis_angle_to_matrix
from neuralannot.train.smplify.adam import AdamOptions, minimise_adam
from neuralannot.train.smplify.curvature import Rescaled
from neuralannot.train.smplify.lbfgs import minimise_lbfgs
from neuralannot.train.smplify.minimum import Energy, Minimum
from neuralannot.train.smplify.objective import Objective, weighed
from neuralannot.train.smplify.placing import (
    CameraObjective,
    Torso,
    placed_in_picture,
    placed_in_space,
    rolled,
    turned,
    upright,
)
from neuralannot.train.smplify.settings import SmplifySetting
from neuralannot.train.smplify.unknowns import Unknowns

__all__ = ["SmplifyFits", "fit_smplify"]

_BATCH_CPU, _BATCH = 256, 2048
_MAIN = {"smpl": "body_pose", "smplx": "body_pose", "mano": "hand_pose"}
_HANDS, _FACE = ("left_hand_pose", "right_hand_pose"), ("jaw_pose",)


@dataclass(frozen=True, eq=False)
class SmplifyFits:
    """Fits of B bodies, in the camera's frame, float32.

    `parameters`: smplx's names -> (B, ...), `transl` among them; `joints` (B, K, 3) metres, NaN where the
    body has none; `energy` (B,) of the last stage; `error` (B,): the mean distance to the valid joints,
    metres or pixels; `valid` (B,) bool: whether there was a joint to fit. Where there was none everything is
    NaN. `iterations` (B,) int64, of all stages and headings; `converged` (B,) bool: of the last stage.
    """

    parameters: Mapping[str, Tensor]
    joints: Tensor
    energy: Tensor
    error: Tensor
    valid: Tensor
    iterations: Tensor
    converged: Tensor


def fit_smplify(
    body: BodyModel,
    points: JointPoints,
    evidence: Evidence,
    *,
    setting: SmplifySetting,
    torso: Tensor,
    prior: PosePrior | PoseGaussians | None = None,
    hand_priors: tuple[PosePrior, PosePrior] | None = None,
    hands: Tensor | None = None,
    face: Tensor | None = None,
    start: State | Mapping[str, Tensor] | None = None,
    batch: int | None = None,
) -> SmplifyFits:
    """Fit bodies to joints, `batch` at once (256 on a CPU, else 2,048), on the device of the joints.

    `points`: the body's K joints that the evidence is of; `evidence`: joints in the camera's frame or in the
    picture, whose weight and scale are the setting's, not its own. `torso` (P,): joints by which heading and
    distance show (hips and shoulders; wrist and four knuckles; none of a face). `prior`: of the body's pose,
    or of MANO's hand; a `PosePrior` where the setting fits latents, else `PoseGaussians` or none. SMPL-X's
    hands and face are fitted where `hands` and `face` (P,), joints that are theirs, are given; `hand_priors`:
    left and right, whose latents are then fitted. `start`: parameters, a network's say, instead of rest; only
    the last stage is run from there.

    Computed in float64. Body and `points` must be on the joints' device. Raises ValueError for shapes that do
    not fit, and for a prior that does not fit the setting.
    """
    fitter = _Fitter(body, points, evidence, setting, prior, hand_priors, hands, face, torso)
    count = len(evidence.joints)
    there = evidence.valid & fitter.known
    if evidence.confidence is not None:
        there = there & (evidence.confidence > 0)
    evidence, valid = replace(evidence, valid=there), there.any(1)
    rows = valid.nonzero()[:, 0]
    batch = batch or (_BATCH_CPU if valid.device.type == "cpu" else _BATCH)
    begun = None if start is None else fitter.begun(start, count)
    pieces = [
        fitter.fitted(evidence.rows(some), None if begun is None else begun.rows(some))
        for some in (rows.split(batch) if len(rows) else ())
    ]
    return _together(pieces, rows, valid, fitter, len(points))


@dataclass(frozen=True, eq=False)
class _Piece:
    parameters: Mapping[str, Tensor]
    joints: Tensor
    energy: Tensor
    error: Tensor
    iterations: Tensor
    converged: Tensor


class _Fitter:
    def __init__(
        self,
        body: BodyModel,
        points: JointPoints,
        evidence: Evidence,
        setting: SmplifySetting,
        prior: PosePrior | PoseGaussians | None,
        hand_priors: tuple[PosePrior, PosePrior] | None,
        hands: Tensor | None,
        face: Tensor | None,
        torso: Tensor,
    ) -> None:
        _check(points, evidence, torso, hands, face)
        device = evidence.joints.device
        names = [_MAIN[body.model]] if body.model in _MAIN else ["jaw_pose"]
        if body.model == "smplx":
            names += [*(_HANDS if hands is not None else ()), *(_FACE if face is not None else ())]
        elif hands is not None or face is not None:
            raise ValueError(f"{body.model} has no hands and face beside its own; leave hands= and face= out")
        self.setting, self.hands, self.face = setting, hands, face
        self.known = points.known.to(device)
        priors, self.gaussians = _priors(body.model, setting, prior, hand_priors, names)
        self.chart = Chart(body, names)
        self.unknowns = Unknowns(self.chart, {n: copy.deepcopy(p).to(device) for n, p in priors.items()})
        self.moments: JointMoments = copy.deepcopy(points.moments()).double().to(device)
        like = evidence.joints.new_zeros((), dtype=torch.float64)
        if self.gaussians is not None:
            self.gaussians = self.gaussians.to(like)
        # Latents at zero are a pose of their own: rest is what the priors say it is.
        empty = self.chart.rest(1, like.view(1))
        zero = torch.zeros(1, len(self.unknowns), dtype=like.dtype, device=device)
        self.rest = self.unknowns.state(zero, empty.root)
        at_rest = self.moments(self.chart.rotations(self.rest), self.rest.codes)[0]
        self.torso = Torso.of(torso.to(device), at_rest[torso.to(device)])

    def begun(self, start: State | Mapping[str, Tensor], count: int) -> State:
        state = start if isinstance(start, State) else self.chart.state(start)
        if len(state) != count or state.pose.shape[1] != len(self.chart.joints):
            raise ValueError(
                f"the start must be {count} bodies of {len(self.chart.joints)} free joints, got "
                f"{len(state)} of {state.pose.shape[1]}"
            )
        return state.to(torch.float64)

    def fitted(self, evidence: Evidence, start: State | None) -> _Piece:
        """Bodies that have a joint, all headings, the best kept."""
        evidence = _wide(evidence, self.setting)
        starts = [(start, None)] if start is not None else self._starts(evidence)
        best: _Run | None = None
        for state, tried in starts:
            run = self._staged(evidence, state, tried, is_begun=start is not None)
            best = run if best is None else best.better(run, tried)
        assert best is not None
        posed = self.moments(self.chart.rotations(best.state), best.state.codes) + best.state.transl[:, None]
        distance = evidence.residuals(posed).norm(dim=2)
        error = distance.sum(1) / evidence.valid.sum(1)
        return _Piece(
            self.chart.parameters(best.state.to(torch.float32)),
            torch.where(self.known[:, None], posed, torch.nan).float(),
            best.energy.float(),
            error.float(),
            best.iterations,
            best.converged,
        )

    def _starts(self, evidence: Evidence) -> list[tuple[State, Tensor | None]]:
        """First guesses, and of which bodies (b,) each is tried (None: all)."""
        count, setting = len(evidence.joints), self.setting
        rest = State(
            *(
                value.expand(count, *value.shape[1:]).clone()
                for value in (self.rest.root, self.rest.pose, self.rest.codes, self.rest.transl)
            )
        )
        if not evidence.is_picture:
            first = placed_in_space(
                self.chart, self.moments, rest, evidence, self.torso.joints, whole=setting.whole_body
            )
            return [(turned(first, self.chart.model, angle), None) for angle in setting.headings]
        if setting.upright:
            rest = upright(rest, self.chart.model)
        if setting.rolled:
            return [(self._camera(evidence, rest, angle), None) for angle in setting.headings]
        found = self._camera(evidence, rest, 0.0)
        sideways = None
        if setting.side_view is not None:
            sideways = (self.torso.width(evidence) < setting.side_view).nonzero()[:, 0]
        return [
            (turned(found, self.chart.model, angle), sideways if number else None)
            for number, angle in enumerate(setting.headings)
        ]

    def _camera(self, evidence: Evidence, rest: State, angle: float) -> State:
        """Bodies at rest, turned and moved to where the torso looks as in the picture."""
        setting = self.setting
        first = turned(rest, self.chart.model, angle)
        if setting.rolled:
            first = rolled(self.chart, self.moments, first, evidence, self.torso)
        first = placed_in_picture(self.chart, self.moments, first, evidence, self.torso)
        objective = CameraObjective.of(
            self.chart,
            self.moments,
            evidence,
            first,
            self.torso,
            data_weight=setting.data_weight,
            depth_weight=setting.depth_weight,
        )
        found = self._lowered(objective, first.transl.new_zeros(len(first), 6))
        return objective.state(found.x, first)

    def _staged(self, evidence: Evidence, state: State, tried: Tensor | None, *, is_begun: bool) -> _Run:
        if tried is not None:
            evidence, state = evidence.rows(tried), state.rows(tried)
        stages = self.setting.stages[-1:] if is_begun else self.setting.stages
        x = self.unknowns.of(state)
        if not is_begun:  # encoding is not exact; zero is
            x[:, 3 : len(self.unknowns) - self.chart.num_codes - 3] = 0
        root = state.root
        iterations = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        fixed = x[:, -3:].clone()
        for stage in stages:
            objective = Objective(
                self.unknowns,
                self.moments,
                weighed(evidence, stage, self.hands, self.face),
                stage,
                root,
                self.gaussians,
            )
            if self.setting.rescaled:
                rescaled = Rescaled(objective, x)
                found = self._lowered(rescaled, torch.zeros_like(x))
                x = rescaled.back(found.x, torch.arange(len(x), device=x.device))
            elif self.setting.moves or not evidence.is_picture:
                found = self._lowered(objective, x)
                x = found.x
            else:
                found = self._lowered(_Held(objective, fixed), x[:, :-3])
                x = torch.cat([found.x, fixed], 1)
            iterations += found.iterations
            root = axis_angle_to_matrix(x[:, :3]) @ root
            x = torch.cat([torch.zeros_like(x[:, :3]), x[:, 3:]], 1)
        return _Run(self.unknowns.state(x, root), found.value, iterations, found.converged)

    def _lowered(self, energy: Energy, x: Tensor) -> Minimum:
        options = self.setting.optimiser
        if isinstance(options, AdamOptions):
            return minimise_adam(energy, x, options)
        return minimise_lbfgs(energy, x, options)


@dataclass(frozen=True, eq=False)
class _Held:
    """An objective with its last three numbers, the translation, given."""

    objective: Objective
    transl: Tensor

    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        return self.objective(torch.cat([x, self.transl[rows]], 1), rows)


@dataclass(frozen=True, eq=False)
class _Run:
    state: State
    energy: Tensor
    iterations: Tensor
    converged: Tensor

    def better(self, other: _Run, rows: Tensor | None) -> _Run:
        """Row by row the lower of this run and of another, of the bodies `rows`."""
        if rows is None:
            rows = torch.arange(len(self.energy), device=self.energy.device)
        iterations = self.iterations.index_add(0, rows, other.iterations)
        lower = other.energy < self.energy[rows]
        at, won = rows[lower], other.state.rows(lower)
        return _Run(
            put(self.state, at, won),
            self.energy.index_copy(0, at, other.energy[lower]),
            iterations,
            self.converged.index_copy(0, at, other.converged[lower]),
        )


def _wide(evidence: Evidence, setting: SmplifySetting) -> Evidence:
    def wide(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.double()

    zero = torch.zeros((), dtype=evidence.joints.dtype, device=evidence.joints.device)
    return Evidence(
        torch.where(evidence.valid[..., None], evidence.joints, zero).double(),
        evidence.valid,
        setting.data_weight,
        setting.scale,
        wide(evidence.confidence),
        wide(evidence.focal),
        wide(evidence.princpt),
    )


def _priors(
    model: str,
    setting: SmplifySetting,
    prior: PosePrior | PoseGaussians | None,
    hand_priors: tuple[PosePrior, PosePrior] | None,
    names: list[str],
) -> tuple[dict[str, PosePrior], PoseGaussians | None]:
    """The priors whose latents are fitted, by parameter, and the distributions of the rotations."""
    found: dict[str, PosePrior] = {}
    gaussians = None
    if model in _MAIN and setting.pose == "latents":
        if not isinstance(prior, PosePrior):
            raise ValueError(
                f"the setting fits latents of {model}'s pose; pass prior=load_prior(...), got {prior!r}"
            )
        found[_MAIN[model]] = prior
    elif isinstance(prior, PosePrior):
        raise ValueError("the setting fits rotations, not latents; pass prior=None or PoseGaussians")
    elif prior is not None:
        if model not in ("smpl", "smplx"):
            raise ValueError(f"PoseGaussians are of bodies; of {model} pass prior=None")
        gaussians = prior
    if hand_priors is not None:
        if _HANDS[0] not in names:
            raise ValueError("hand_priors without hands=, the joints of SMPL-X's hands")
        found |= dict(zip(_HANDS, hand_priors, strict=True))
    return found, gaussians


def _check(
    points: JointPoints, evidence: Evidence, torso: Tensor, hands: Tensor | None, face: Tensor | None
) -> None:
    count, width = len(points), 2 if evidence.is_picture else 3
    joints, valid = evidence.joints, evidence.valid
    if joints.ndim != 3 or joints.shape[1:] != (count, width):
        raise ValueError(f"joints must be (B, {count}, {width}), got {tuple(joints.shape)}")
    if valid.shape != joints.shape[:2] or valid.dtype != torch.bool:
        raise ValueError(
            f"valid must be {tuple(joints.shape[:2])} bool, got {tuple(valid.shape)} {valid.dtype}"
        )
    for name, index in (("torso", torso), ("hands", hands), ("face", face)):
        if index is not None and (
            index.ndim != 1 or index.is_floating_point() or ((index < 0) | (index >= count)).any()
        ):
            raise ValueError(f"{name} must be numbers of joints, (P,) integers from 0 to {count - 1}")


def _together(pieces: list[_Piece], rows: Tensor, valid: Tensor, fitter: _Fitter, joints: int) -> SmplifyFits:
    """All rows, those without a joint NaN."""
    count = len(valid)

    def filled(values: list[Tensor], shape: tuple[int, ...]) -> Tensor:
        whole = torch.full((count, *shape), torch.nan, device=valid.device)
        return whole.index_copy(0, rows, torch.cat(values)) if values else whole

    rest = fitter.chart.parameters(fitter.rest.to(torch.float32))
    parameters = {
        name: filled([piece.parameters[name] for piece in pieces], tuple(value.shape[1:]))
        for name, value in rest.items()
    }
    iterations = torch.zeros(count, dtype=torch.int64, device=valid.device)
    converged = torch.zeros_like(valid)
    if pieces:
        iterations[rows] = torch.cat([piece.iterations for piece in pieces])
        converged[rows] = torch.cat([piece.converged for piece in pieces])
    return SmplifyFits(
        parameters,
        filled([piece.joints for piece in pieces], (joints, 3)),
        filled([piece.energy for piece in pieces], ()),
        filled([piece.error for piece in pieces], ()),
        valid,
        iterations,
        converged,
    )
