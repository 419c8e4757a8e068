"""`Unknowns`: a fit's numbers, one row a body, and the bodies that they stand for."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from neuralannot.body_models.skeleton import joints_of_parameters
from neuralannot.train.fitting.charts import Chart, State
from neuralannot.train.priors import PosePrior
from neuralannot.train.rotations import axis_angle_to_matrix


class Unknowns:
    """How rows (B, N) of numbers stand for bodies: `turn` (3) of the root from where it began, radians; each
    rotation parameter of the chart, as rotations or, where `priors` has one for it, as its latents; `codes`;
    `transl` (3).

    Raises ValueError for a prior of a parameter that is not fitted, or of other joints than it has.
    """

    def __init__(self, chart: Chart, priors: Mapping[str, PosePrior] | None = None) -> None:
        self.chart, self.priors = chart, dict(priors or {})
        places, free = joints_of_parameters(chart.model), set(chart.joints)
        #: rotation parameter -> how many of its joints are free; they follow one another in the chart's pose.
        self.parts = {name: len(free & set(places[name])) for name in chart.names}
        for name, prior in self.priors.items():
            if name not in self.parts:
                raise ValueError(f"a prior for {name}, which is not fitted; fitted: {', '.join(self.parts)}")
            if prior.num_joints != self.parts[name]:
                raise ValueError(
                    f"the prior {prior.name} is of {prior.num_joints} joints; {name} of {chart.model} has "
                    f"{self.parts[name]}"
                )
        self._widths = [
            self.priors[n].latent if n in self.priors else 3 * count for n, count in self.parts.items()
        ]

    def __len__(self) -> int:
        return 6 + sum(self._widths) + self.chart.num_codes

    def of(self, state: State) -> Tensor:
        """(B, N) the numbers of bodies, without a turn: poses as the priors encode them, which is not
        exact."""
        pieces = [torch.zeros_like(state.transl)]
        for name, pose in self._apart(state.pose).items():
            pieces.append(self.priors[name].encode(pose) if name in self.priors else pose.flatten(1))
        return torch.cat([*pieces, state.codes, state.transl], 1)

    def split(self, x: Tensor) -> dict[str, Tensor]:
        """(B, N) -> the parts by name, each (B, its numbers)."""
        names = ("turn", *self.parts, "codes", "transl")
        return dict(zip(names, x.split([3, *self._widths, self.chart.num_codes, 3], 1), strict=True))

    def state(self, x: Tensor, root: Tensor) -> State:
        """The bodies of (B, N) numbers, turned from `root` (B, 3, 3)."""
        given = self.split(x)
        some = [
            self.priors[name].decode_axis_angle(given[name])
            if name in self.priors
            else given[name].view(len(x), count, 3)
            for name, count in self.parts.items()
        ]
        turned = axis_angle_to_matrix(given["turn"]) @ root
        return State(turned, torch.cat(some, 1), given["codes"], given["transl"])

    def poses(self, state: State) -> dict[str, Tensor]:
        """Each rotation parameter's free joints (B, its joints, 3), radians."""
        return self._apart(state.pose)

    def _apart(self, pose: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.parts, pose.split(list(self.parts.values()), 1), strict=True))
