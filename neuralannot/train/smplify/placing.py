"""Where a body is before its pose is known: by the torso's joints in space, by its length in a picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralannot.body_models.moments import JointMoments
from neuralannot.train.fitting.charts import Chart, State
from neuralannot.train.fitting.evidence import Evidence
from neuralannot.train.rotations import aligning_rotation, axis_angle_to_matrix

#: The axis that a body is long along at rest: about it the near and the far side change places.
LONG = {"smpl": (0.0, 1.0, 0.0), "smplx": (0.0, 1.0, 0.0), "mano": (1.0, 0.0, 0.0), "flame": (0.0, 1.0, 0.0)}
# Pixels: what a picture without an extent, of a single joint say, is taken to span.
_LEAST_PX = 1.0


def placed_in_space(
    chart: Chart, moments: JointMoments, rest: State, evidence: Evidence, torso: Tensor, *, whole: bool
) -> State:
    """`rest` turned and moved onto 3D joints by the valid ones of `torso` (P,).

    Where these do not say, being fewer than three or on a line, the body keeps its rotation, or with `whole`
    is turned by all its joints. It is moved by the torso's joints, or by all where none of them is valid.
    """
    joints, valid = evidence.joints, evidence.valid
    posed = moments(chart.rotations(rest), rest.codes)
    turn = aligning_rotation(posed[:, torso], joints[:, torso], valid[:, torso])
    if whole:
        every = aligning_rotation(posed, joints, valid)
        unsaid = (turn - torch.eye(3).to(turn)).abs().amax((1, 2)) == 0
        turn = torch.where(unsaid[:, None, None], every, turn)
    turned = replace(rest, root=turn @ rest.root)
    posed = moments(chart.rotations(turned), turned.codes)
    mask = _torso_mask(valid, torso)[..., None].to(joints)
    shift = ((joints - posed) * mask).sum(1) / mask.sum(1).clamp_min(1)
    return replace(turned, transl=shift)


def _torso_mask(valid: Tensor, torso: Tensor, *, least: int = 1) -> Tensor:
    """(B, K): the valid joints of the torso, or all valid ones where there are fewer than `least`."""
    chosen = torch.zeros_like(valid)
    chosen[:, torso] = valid[:, torso]
    return torch.where(chosen.sum(1, keepdim=True) >= least, chosen, valid)


@dataclass(frozen=True, eq=False)
class Torso:
    """A torso as its joints at rest show it: `edges` (E, 2), its long sides, joints of it; `across` (2,), the
    two at its upper end that are farthest apart (a body's shoulders)."""

    joints: Tensor
    edges: Tensor
    across: Tensor

    @staticmethod
    def of(joints: Tensor, at_rest: Tensor) -> Torso:
        """`joints` (P,), and (P, 3) metres where they are at rest.

        Its two ends are what lies before and behind the middle of its longest axis; each joint of the larger
        end makes a side with the one of the other that is nearest across the axis.
        """
        none = joints.new_zeros(0, 2)
        if len(joints) < 2:
            return Torso(joints, none, none.flatten())
        centred = (at_rest - at_rest.mean(0)).double()
        axis = torch.linalg.eigh(centred.T @ centred)[1][:, -1]
        axis = axis if axis[axis.abs().argmax()] > 0 else -axis
        along = centred @ axis
        upper, lower = joints[along > 0], joints[along <= 0]
        large, small = (upper, lower) if len(upper) >= len(lower) else (lower, upper)
        place = {int(joint): number for number, joint in enumerate(joints)}
        flat = centred - along[:, None] * axis
        edges = []
        for joint in large.tolist():
            off = [(float((flat[place[joint]] - flat[place[o]]).norm()), o) for o in small.tolist()]
            edges.append((joint, min(off)[1]))
        pairs = [(a, b) for a in upper.tolist() for b in upper.tolist() if a < b]
        widest = max(pairs, key=lambda p: float((flat[place[p[0]]] - flat[place[p[1]]]).norm()), default=())
        return Torso(joints, joints.new_tensor(edges).view(-1, 2), joints.new_tensor(widest))

    def width(self, evidence: Evidence) -> Tensor:
        """(B,) px between the shoulders, infinite where they are not both seen."""
        if not len(self.across):
            return evidence.joints.new_full((len(evidence.joints),), torch.inf)
        one, two = self.across
        found = (evidence.joints[:, one] - evidence.joints[:, two]).norm(dim=1)
        lengths: Tensor = found.masked_fill(~(evidence.valid[:, one] & evidence.valid[:, two]), torch.inf)
        return lengths


def placed_in_picture(
    chart: Chart, moments: JointMoments, rest: State, evidence: Evidence, torso: Torso
) -> State:
    """`rest` moved to where its torso looks as long as in the picture, its joints' centre on theirs.

    By similar triangles from the torso's sides, those with two valid ends; without one, from how far all
    valid joints are spread.
    """
    assert evidence.focal is not None
    assert evidence.princpt is not None
    posed = moments(chart.rotations(rest), rest.codes)
    seen, valid = evidence.joints, evidence.valid
    focal = evidence.focal.mean(1)
    one, two = torso.edges.unbind(1)
    there = (valid[:, one] & valid[:, two]).to(seen)
    length = (posed[:, one] - posed[:, two]).norm(dim=2) * there
    length_px = (seen[:, one] - seen[:, two]).norm(dim=2) * there
    spread, centre = _spread(posed, valid)
    spread_px, centre_px = _spread(seen, valid)
    by_sides = there.sum(1) > 0
    size = torch.where(by_sides, length.sum(1), spread)
    size_px = torch.where(by_sides, length_px.sum(1), spread_px).clamp_min(_LEAST_PX)
    depth = focal * size / size_px
    across = (centre_px - evidence.princpt) / evidence.focal * depth[:, None]
    return replace(rest, transl=torch.cat([across, depth[:, None]], 1) - centre)


def turned(state: State, model: str, angle: float) -> State:
    """Bodies turned about their own long axis by `angle` radians."""
    if not angle:
        return state
    turn = axis_angle_to_matrix(state.root.new_tensor([angle * part for part in LONG[model]]))
    return replace(state, root=state.root @ turn)


def upright(state: State, model: str) -> State:
    """Bodies and faces at rest, turned to face the camera the right way up; hands as they are."""
    if model == "mano":
        return state
    return replace(state, root=torch.diag(state.root.new_tensor([1.0, -1.0, -1.0])) @ state.root)


def rolled(chart: Chart, moments: JointMoments, rest: State, evidence: Evidence, torso: Torso) -> State:
    """`rest` turned about the camera's axis so that its torso, or where fewer than two of its joints are
    seen all that are, lies as in the picture."""
    posed = moments(chart.rotations(rest), rest.codes)[..., :2]
    mask = _torso_mask(evidence.valid, torso.joints, least=2)
    flat, seen = (
        torch.where(mask[..., None], points - _spread(points, mask)[1][:, None], 0)
        for points in (posed, evidence.joints)
    )
    along = (flat * seen).sum((1, 2))
    aside = (flat[..., 0] * seen[..., 1] - flat[..., 1] * seen[..., 0]).sum(1)
    angle = torch.atan2(aside, along)
    turn = axis_angle_to_matrix(torch.stack([torch.zeros_like(angle), torch.zeros_like(angle), angle], 1))
    return replace(rest, root=turn @ rest.root)


def _spread(points: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) how far from their centre the valid points (B, K, D) are, and (B, D) the centre."""
    mask = valid[..., None].to(points)
    count = mask.sum(1).clamp_min(1)
    centre = (torch.where(mask > 0, points, 0)).sum(1) / count
    off = torch.where(mask > 0, points - centre[:, None], 0)[..., :2]
    return (off.square().sum((1, 2)) / count[:, 0]).sqrt(), centre


@dataclass(frozen=True, eq=False)
class CameraObjective:
    """What the camera's stage lowers over (b, 6) turns and translations: the torso's squared distances in
    the picture (pixels times `data_weight`, squared) and the depth's from its first guess."""

    chart: Chart
    moments: JointMoments
    evidence: Evidence
    start: State
    used: Tensor
    data_weight: float
    depth_weight: float

    @staticmethod
    def of(
        chart: Chart,
        moments: JointMoments,
        evidence: Evidence,
        start: State,
        torso: Torso,
        *,
        data_weight: float,
        depth_weight: float,
    ) -> CameraObjective:
        used = _torso_mask(evidence.valid, torso.joints, least=2)
        return CameraObjective(chart, moments, evidence, start, used, data_weight, depth_weight)

    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        start, evidence = self.start.rows(rows), self.evidence.rows(rows)
        state = self.state(x, start)
        posed = self.moments(self.chart.rotations(state), state.codes) + state.transl[:, None]
        off = evidence.residuals(posed).square().sum(2)
        depth = (state.transl[:, 2] - start.transl[:, 2]).square()
        return self.data_weight * (off * self.used[rows]).sum(1) + self.depth_weight**2 * depth

    @staticmethod
    def state(x: Tensor, start: State) -> State:
        turn, shift = x.split([3, 3], 1)
        return replace(start, root=axis_angle_to_matrix(turn) @ start.root, transl=start.transl + shift)
