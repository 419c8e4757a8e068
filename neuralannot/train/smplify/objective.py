"""`Objective`: what a stage of SMPLify-X lowers, of every body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralannot.body_models.moments import JointMoments
from neuralannot.parameters import human_model
from neuralannot.train.fitting.charts import State
from neuralannot.train.fitting.evidence import Evidence
from neuralannot.train.fitting.gaussians import PoseGaussians
from neuralannot.train.smplify.settings import Stage
from neuralannot.train.smplify.unknowns import Unknowns

#: SMPL's elbows and knees: the joint, the axis about which it bends, and the sign of bending the wrong way.
BENDS = ((18, 1, 1.0), (19, 1, -1.0), (4, 0, -1.0), (5, 0, -1.0))
_BODY = ("body_pose", "hand_pose")


@dataclass(frozen=True, eq=False)
class Objective:
    """Joints, priors and weights of one stage.

    `root` (B, 3, 3): from where the roots turn; `gaussians`: how likely the main pose is, instead of the
    sum of its squares.
    """

    unknowns: Unknowns
    moments: JointMoments
    evidence: Evidence
    stage: Stage
    root: Tensor
    gaussians: PoseGaussians | None = None

    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        """(b, N) numbers of the bodies `rows` (b,) -> (b,)."""
        state = self.unknowns.state(x, self.root[rows])
        return self.evidence.rows(rows).energy(self.joints(state)) + self.priors(x, state)

    def joints(self, state: State) -> Tensor:
        """(b, K, 3) metres."""
        joints: Tensor = (
            self.moments(self.unknowns.chart.rotations(state), state.codes) + state.transl[:, None]
        )
        return joints

    def priors(self, x: Tensor, state: State) -> Tensor:
        """(b,): all terms but the joints'."""
        stage, chart = self.stage, self.unknowns.chart
        given, poses = self.unknowns.split(x), self.unknowns.poses(state)
        total = torch.zeros_like(x[:, 0])
        for name, pose in poses.items():
            flat = pose.flatten(1)
            if name == "jaw_pose":
                total = total + (flat * flat.new_tensor(stage.jaw)).square().sum(1)
            elif name not in _BODY or chart.model == "mano":
                total = total + stage.hand**2 * flat.square().sum(1)
            elif self.gaussians is not None:
                total = total + stage.pose**2 * self.gaussians.energy(flat)
            else:  # latents, or the rotations themselves
                total = total + stage.pose**2 * given[name].square().sum(1)
        for name, codes in self._codes(state).items():
            weight = stage.expression if name == "expression" else stage.shape
            total = total + weight**2 * codes.square().sum(1)
        if "body_pose" in poses:
            total = total + stage.bending * self._bent(poses["body_pose"])
        return total

    def _codes(self, state: State) -> Mapping[str, Tensor]:
        shapes = human_model(self.unknowns.chart.model).shapes
        names = self.unknowns.chart.code_names
        return dict(zip(names, state.codes.split([shapes[name][0] for name in names], 1), strict=True))

    def _bent(self, pose: Tensor) -> Tensor:
        """(b,): exp(2 angle) of elbows and knees; grows where they bend the wrong way."""
        angles = torch.stack([sign * pose[:, joint - 1, axis] for joint, axis, sign in BENDS], 1)
        return (2 * angles).exp().sum(1)


def weighed(evidence: Evidence, stage: Stage, hands: Tensor | None, face: Tensor | None) -> Evidence:
    """The evidence with the joints' weights of a stage, squared, `hands` and `face` (P,) by theirs."""
    weights = torch.ones_like(evidence.joints[..., 0])
    if evidence.confidence is not None:
        weights = weights * evidence.confidence
    for index, weight in ((hands, stage.hand_joints), (face, stage.face_joints)):
        if index is not None:
            weights[:, index] *= weight
    return replace(evidence, confidence=weights.square(), scale=evidence.scale * stage.scale)
