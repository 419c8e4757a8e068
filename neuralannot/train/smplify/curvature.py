"""Unknowns in units in which an objective curves alike in all directions: fewer steps of L-BFGS."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralannot.parameters import human_model
from neuralannot.train.priors import PosePrior
from neuralannot.train.smplify.objective import BENDS, Objective

# Of the largest diagonal: directions that nothing speaks of are not made longer than that says.
_LEAST = 1e-9


class Rescaled:
    """An objective in rescaled unknowns y: x = x0 + M y, where M M^T is the inverse of Gauss and Newton's
    matrix at x0 (B, N)."""

    def __init__(self, objective: Objective, x0: Tensor) -> None:
        self.objective, self.x0 = objective, x0
        matrix = curvature(objective, x0)
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        diagonal += _LEAST * diagonal.amax(1, keepdim=True)
        factor = torch.linalg.cholesky_ex(matrix)[0]
        eye = torch.eye(x0.shape[1], dtype=x0.dtype, device=x0.device).expand_as(factor)
        self.inverse = torch.linalg.solve_triangular(factor, eye, upper=False).transpose(1, 2)
        bad = ~torch.isfinite(self.inverse).all(2).all(1)
        self.inverse = torch.where(bad[:, None, None], eye, self.inverse)
        self._rows, self._some = torch.empty(0), (x0, self.inverse)

    def __call__(self, y: Tensor, rows: Tensor) -> Tensor:
        return self.objective(self.back(y, rows), rows)

    def back(self, y: Tensor, rows: Tensor) -> Tensor:
        """(b, N) rescaled unknowns of the bodies `rows` -> (b, N) unknowns."""
        if rows is not self._rows:  # the same until bodies leave
            self._rows, self._some = rows, (self.x0[rows], self.inverse[rows])
        x0, inverse = self._some
        x: Tensor = x0 + (inverse @ y[..., None])[..., 0]
        return x


def curvature(objective: Objective, x: Tensor) -> Tensor:
    """(B, N, N): Gauss and Newton's matrix of an objective, the priors' part and a bent joint's among it."""
    unknowns, stage = objective.unknowns, objective.stage
    chart = unknowns.chart
    state = unknowns.state(x, objective.root)
    posed, by_rotation, by_code = objective.moments.linearise(chart.rotations(state), state.codes)
    posed = posed + state.transl[:, None]
    by_pose = by_rotation[:, :, :, chart.joints]
    by_pose = torch.einsum("bkcjd,bjde->bkcje", by_pose, chart.left_jacobians(state)).flatten(3)
    given, pieces, priors = unknowns.split(x), [], []
    first = 0
    for name, pose in unknowns.poses(state).items():
        some = slice(first, first + 3 * pose.shape[1])
        first = some.stop
        inner, outer = _of_pose(objective, name, pose), by_pose[..., some]
        if name in unknowns.priors:
            decoded = _decoded(unknowns.priors[name], given[name])
            inner, outer = decoded.transpose(1, 2) @ inner @ decoded, outer @ decoded[:, None]
            if name == "body_pose":
                inner.diagonal(dim1=1, dim2=2).add_(2 * stage.pose**2)
        pieces.append(outer)
        priors.append(inner)
    eye = torch.eye(3, dtype=x.dtype, device=x.device).expand(*posed.shape[:2], 3, 3)
    jacobian = torch.cat([by_rotation[:, :, :, 0], *pieces, by_code, eye], 3)
    matrix, _ = objective.evidence.normal(posed, jacobian)
    at = 3
    for inner in priors:
        size = inner.shape[1]
        matrix[:, at : at + size, at : at + size] += inner
        at += size
    for name in chart.code_names:
        size = human_model(chart.model).shapes[name][0]
        weight = stage.expression if name == "expression" else stage.shape
        matrix.diagonal(dim1=1, dim2=2)[:, at : at + size] += 2 * weight**2
        at += size
    return matrix


def _of_pose(objective: Objective, name: str, pose: Tensor) -> Tensor:
    """(B, D, D): the priors' second derivatives by a parameter's rotations (B, D / 3, 3), latents' left
    out."""
    stage, unknowns = objective.stage, objective.unknowns
    flat = pose.flatten(1)
    weight = stage.hand
    if name == "body_pose":
        weight = 0.0 if name in unknowns.priors else stage.pose
    diagonal = torch.full_like(flat, 2 * weight**2)
    if name == "jaw_pose":
        diagonal = (2 * flat.new_tensor(stage.jaw).square()).expand_as(flat)
    if name != "body_pose":
        return torch.diag_embed(diagonal)
    if objective.gaussians is not None:
        matrix = stage.pose**2 * objective.gaussians.precisions[objective.gaussians.nearest(flat)]
    else:
        matrix = torch.diag_embed(diagonal)
    for joint, axis, sign in BENDS:
        at = 3 * (joint - 1) + axis
        matrix[:, at, at] += 4 * stage.bending * (2 * sign * flat[:, at]).exp()
    return matrix


def _decoded(prior: PosePrior, latents: Tensor) -> Tensor:
    """(B, D, L): derivatives of a prior's rotations by its latents."""
    with torch.enable_grad():
        latents = latents.detach().requires_grad_()
        flat = prior.decode_axis_angle(latents).flatten(1)
        rows = [torch.autograd.grad(one.sum(), latents, retain_graph=True)[0] for one in flat.unbind(1)]
    return torch.stack(rows, 1)
