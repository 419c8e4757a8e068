"""`PoseGaussians`: how likely a pose is, as the likeliest of a few normal distributions of its rotations.

SMPLify's form (Bogo et al., 2016): a sum of logarithms would not be a sum of squares, the largest term is.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuralannot.safe_pickle import load_npz

_OPEN_GAUSSIAN = Path(__file__).parent / "open_gaussian.npz"


@dataclass(frozen=True, eq=False)
class PoseGaussians:
    """M normal distributions of a pose, axis-angle of D / 3 joints one after another, radians.

    `means` (M, D); `precisions` (M, D, D), inverse covariances; `offsets` (M,): the share's and the spread's
    part of minus the logarithm, least 0.
    """

    means: Tensor
    precisions: Tensor
    offsets: Tensor

    def to(self, like: Tensor) -> PoseGaussians:
        return PoseGaussians(self.means.to(like), self.precisions.to(like), self.offsets.to(like))

    def nearest(self, pose: Tensor) -> Tensor:
        """(B, D) -> (B,) int64: the distribution in which each pose is likeliest."""
        return self._each(pose).argmin(1)

    def energy(self, pose: Tensor) -> Tensor:
        """(B, D) -> (B,): minus the logarithm of the density, up to a constant."""
        return self._each(pose).amin(1)

    @property
    def fingerprint(self) -> str:
        """A hash of the numbers, 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for tensor in (self.means, self.precisions, self.offsets):
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _each(self, pose: Tensor) -> Tensor:
        off = pose[:, None] - self.means
        return 0.5 * torch.einsum("bmd,mde,bme->bm", off, self.precisions, off) + self.offsets


def learn_gaussians(
    poses: np.ndarray, *, count: int = 1, floor: float = 0.05, seed: int = 0, rounds: int = 100
) -> PoseGaussians:
    """From poses (N, D) radians: expectation and maximisation, every spread at least `floor` radians.

    One distribution has full covariance at once. Raises ValueError for fewer poses than distributions.
    """
    poses = np.asarray(poses, np.float64)
    if len(poses) < count or count < 1:
        raise ValueError(f"{len(poses)} poses cannot make {count} distributions")
    rng = np.random.default_rng(seed)
    size = poses.shape[1]
    centres = poses[rng.choice(len(poses), count, replace=False)]
    shares = np.exp(-0.5 * ((poses[:, None] - centres) ** 2).sum(2) / max(poses.var(0).sum(), 1e-12))
    for number in range(rounds if count > 1 else 1):
        shares = shares / shares.sum(1, keepdims=True)
        weight = shares.sum(0) + 1e-9
        means = shares.T @ poses / weight[:, None]
        covariances = np.stack(
            [
                ((poses - m) * s[:, None]).T @ (poses - m) / w + floor**2 * np.eye(size)
                for m, s, w in zip(means, shares.T, weight, strict=True)
            ]
        )
        logs = np.stack(
            [
                np.log(w / len(poses))
                - 0.5 * np.linalg.slogdet(c)[1]
                - 0.5 * np.einsum("nd,de,ne->n", poses - m, np.linalg.inv(c), poses - m)
                for m, c, w in zip(means, covariances, weight, strict=True)
            ],
            1,
        )
        if number + 1 < rounds:
            shares = np.exp(logs - logs.max(1, keepdims=True))
    spread = np.array([0.5 * np.linalg.slogdet(c)[1] for c in covariances])
    offsets = spread - np.log(weight / len(poses))
    return PoseGaussians(
        torch.tensor(means, dtype=torch.float32),
        torch.tensor(np.linalg.inv(covariances), dtype=torch.float32),
        torch.tensor(offsets - offsets.min(), dtype=torch.float32),
    )


def isotropic(size: int, spread: float) -> PoseGaussians:
    """One distribution of `size` numbers about rest, each `spread` radians at one standard deviation."""
    return PoseGaussians(torch.zeros(1, size), torch.eye(size)[None] / spread**2, torch.zeros(1))


@functools.lru_cache(maxsize=1)
def open_gaussian() -> PoseGaussians:
    """The normal distribution that ships, of SMPL's 21 body joints; docs/prior.md says what it was learnt
    from."""
    arrays = load_npz(_OPEN_GAUSSIAN)
    mean, covariance = (torch.as_tensor(arrays[name]).double() for name in ("mean", "covariance"))
    return PoseGaussians(mean[None].float(), torch.linalg.inv(covariance)[None].float(), torch.zeros(1))


def nearness(parents: Sequence[int], joints: Sequence[int], *, reach: float = 4.0) -> np.ndarray:
    """(3 F, 3 F): by how much to believe what few motions say of two rotations' covariance.

    exp(-d / reach), d the bones on the way between the two joints: that an ankle goes with its knee holds for
    all that people do, that it goes with the other side's elbow for walking. `parents` (J,), -1 for the root;
    `joints` (F,) numbers of those whose rotations are meant.
    """
    ways = []
    for joint in joints:
        way = {joint}
        while (joint := parents[joint]) >= 0:
            way.add(joint)
        ways.append(way)
    apart = np.array([[len(one ^ other) for other in ways] for one in ways])
    return np.kron(np.exp(-apart / reach), np.ones((3, 3)))
