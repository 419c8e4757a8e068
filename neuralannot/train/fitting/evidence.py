"""What joints are known of bodies, in 3D or in a picture, and how far a fit may be from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Evidence"]

# Nearer to the camera than this a projection means nothing, metres.
_NEAREST = 0.1


@dataclass(frozen=True, eq=False)
class Evidence:
    """K joints of each of B bodies.

    `joints` (B, K, 3) metres in the camera's frame, or (B, K, 2) pixels; `valid` (B, K) bool; `weight`: of
    the sum of all joints' robust squares, 1 / (2 s^2) for noise of standard deviation s; `scale`: Geman and
    McClure's sigma, in the joints' unit: a joint farther off than that counts less and less. `confidence`
    (B, K) or None: of each joint. Pictures have `focal` (B, 2) and `princpt` (B, 2), px.
    """

    joints: Tensor
    valid: Tensor
    weight: float
    scale: float
    confidence: Tensor | None = None
    focal: Tensor | None = None
    princpt: Tensor | None = None

    @property
    def is_picture(self) -> bool:
        return self.focal is not None

    def rows(self, index: Tensor | slice) -> Evidence:
        def some(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[index]

        return Evidence(
            self.joints[index],
            self.valid[index],
            self.weight,
            self.scale,
            some(self.confidence),
            some(self.focal),
            some(self.princpt),
        )

    def residuals(self, posed: Tensor) -> Tensor:
        """(B, K, 3) joints in the camera's frame -> (B, K, 2 or 3), zero where not valid."""
        seen = posed if self.focal is None else self._project(posed)
        return torch.where(self.valid[..., None], seen - self.joints, torch.zeros((), dtype=posed.dtype))

    def energy(self, posed: Tensor) -> Tensor:
        """(B,): the weighted sum of Geman and McClure's s^2 r^2 / (s^2 + r^2)."""
        square = self.residuals(posed).square().sum(2)
        each = self.scale**2 * square / (self.scale**2 + square)
        return self.weight * (each if self.confidence is None else each * self.confidence).sum(1)

    def trust(self, posed: Tensor) -> Tensor:
        """(B, K): how much of its weight each joint has where it is, from 1 on the spot to 0 far off."""
        square = self.residuals(posed).square().sum(2)
        share = (self.scale**2 / (self.scale**2 + square)) ** 2 * self.valid
        return share if self.confidence is None else share * self.confidence

    def normal(self, posed: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
        """Gauss and Newton's matrix (B, N, N) and gradient (B, N) of half the energy's double.

        `posed` (B, K, 3); `jacobian` (B, K, 3, N), its derivative by the unknowns.
        """
        off = self.residuals(posed)
        weight = 2 * self.weight * self.trust(posed)
        if self.focal is not None:
            jacobian = self._by_place(posed) @ jacobian
        flat = (jacobian * weight[..., None, None].sqrt()).flatten(1, 2)
        short = (off * weight[..., None].sqrt()).flatten(1)
        return flat.transpose(1, 2) @ flat, (flat.transpose(1, 2) @ short[..., None])[..., 0]

    def _project(self, posed: Tensor) -> Tensor:
        assert self.focal is not None
        assert self.princpt is not None
        depth = posed[..., 2:].clamp_min(_NEAREST)
        return posed[..., :2] / depth * self.focal[:, None] + self.princpt[:, None]

    def _by_place(self, posed: Tensor) -> Tensor:
        """(B, K, 2, 3): a pixel's change by a point's."""
        assert self.focal is not None
        depth = posed[..., 2].clamp_min(_NEAREST)
        found = posed.new_zeros(*posed.shape[:2], 2, 3)
        for axis in (0, 1):
            scale = self.focal[:, None, axis] / depth
            found[..., axis, axis] = scale
            found[..., axis, 2] = -scale * posed[..., axis] / depth
        return found
