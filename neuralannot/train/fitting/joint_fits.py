"""`fit_joints`: parameters of bodies from their 3D joints alone, by damped least squares and a prior."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralannot.body_models.moments import JointMoments
from neuralannot.train.fitting.charts import Chart, State
from neuralannot.train.fitting.evidence import Evidence
from neuralannot.train.fitting.gaussians import PoseGaussians
from neuralannot.train.fitting.levenberg import Beliefs, levenberg_marquardt
from neuralannot.train.rotations import aligning_rotation

# First loosely, then as exactly as the joints are: a wide valley before a narrow one.
_LOOSE = 0.03
_LOOSE_SCALE = 0.3
_LEAST_NOISE = 1e-3
# Radians: how far rotations are from rest where no prior says.
_SPREAD = 0.5
# Joints farther off than so many times their noise count less, but nothing below a decimetre does.
_OUTLYING, _LEAST_SCALE = 5.0, 0.1


@dataclass(frozen=True, eq=False)
class JointFits:
    """`state`: of each body; `joints` (B, K, 3) metres where it has them; `error` (B,) metres, the mean
    distance to the valid joints, NaN where there is none; `energy` (B,)."""

    state: State
    joints: Tensor
    error: Tensor
    energy: Tensor


def fit_joints(
    chart: Chart,
    moments: JointMoments,
    joints: Tensor,
    valid: Tensor,
    *,
    torso: Tensor,
    prior: PoseGaussians | None = None,
    noise: float = _LEAST_NOISE,
    start: State | None = None,
    persons: Tensor | None = None,
    steps: tuple[int, int] = (10, 15),
) -> JointFits:
    """Fit bodies to 3D joints in the camera's frame.

    `joints` (B, K, 3) metres, `valid` (B, K) bool; `torso` (P,) joints by which the heading shows, hips and
    shoulders say (the paper's supplementary, B). `prior`: how likely poses are; without one, every rotation
    is half a radian at one standard deviation. `noise`: standard deviation of a coordinate, metres. `start`:
    a network's estimates, say; by default the prior's mean, turned and moved onto the joints. `persons` (B,)
    int64 from 0: frames with the same number share one shape. `steps`: of the loose and of the exact part.

    Raises ValueError for joints of another shape, and for noise that is not positive.
    """
    if joints.ndim != 3 or joints.shape[1:] != (len(moments), 3):
        raise ValueError(f"joints must be (B, {len(moments)}, 3), got {tuple(joints.shape)}")
    if valid.shape != joints.shape[:2] or valid.dtype != torch.bool:
        raise ValueError(
            f"valid must be {tuple(joints.shape[:2])} bool, got {tuple(valid.shape)} {valid.dtype}"
        )
    if not noise > 0:
        raise ValueError(f"noise must be positive, got {noise}")
    joints = torch.where(valid[..., None], joints, torch.zeros_like(joints))
    state = placed(chart, moments, joints, valid, torso=torso, prior=prior) if start is None else start
    beliefs = Beliefs(prior=prior, pose_weight=0.0 if prior is not None else 1 / _SPREAD**2)
    loose = Evidence(joints, valid, 1 / (2 * max(_LOOSE, noise) ** 2), _LOOSE_SCALE)
    exact = replace(loose, weight=1 / (2 * noise**2), scale=max(_LEAST_SCALE, _OUTLYING * noise))
    first = levenberg_marquardt(chart, moments, loose, beliefs, state, steps=steps[0])
    found = levenberg_marquardt(chart, moments, exact, beliefs, first.state, steps=steps[1], persons=persons)
    posed = moments(chart.rotations(found.state), found.state.codes) + found.state.transl[:, None]
    distance = (posed - joints).norm(dim=2).masked_fill(~valid, 0)
    error = distance.sum(1) / valid.sum(1)  # none valid: 0 / 0, NaN
    return JointFits(found.state, posed, error, found.energy)


def placed(
    chart: Chart,
    moments: JointMoments,
    joints: Tensor,
    valid: Tensor,
    *,
    torso: Tensor,
    prior: PoseGaussians | None = None,
) -> State:
    """Bodies at the prior's mean (at rest without one), turned by `torso`, moved onto their valid joints."""
    rest = chart.rest(len(joints), joints)
    if prior is not None:
        mean = prior.means[int(prior.offsets.argmin())].to(joints)
        rest = replace(rest, pose=mean.view(1, -1, 3).expand(len(joints), -1, -1).clone())
    at_rest = moments(chart.rotations(rest), rest.codes)
    turned = replace(rest, root=aligning_rotation(at_rest[:, torso], joints[:, torso], valid[:, torso]))
    posed = moments(chart.rotations(turned), turned.codes)
    mask = valid[..., None].to(joints)
    shift = ((joints - posed) * mask).sum(1) / mask.sum(1).clamp_min(1)
    return replace(turned, transl=shift)
