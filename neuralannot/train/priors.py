"""Pose priors: a few numbers, normally distributed, decoded to the rotations of a model's joints.

In-the-wild annotation estimates such latents instead of rotations. Three kinds share one interface: the
user's own VPoser, MANO's PCA from its model file, and the open prior that ships, a small VAE with VPoser's
interface.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuralannot.body_models.files import find_model_file, read_model_file
from neuralannot.body_models.model import FOLDER_VARIABLE, OPEN_FOLDER
from neuralannot.body_models.precision import full_precision
from neuralannot.safe_pickle import load_npz
from neuralannot.train.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from neuralannot.train.vposer import read_vposer

__all__ = ["PcaPrior", "PosePrior", "VaePrior", "load_prior", "load_vposer", "mano_prior", "open_prior"]

_OPEN_PRIOR = Path(__file__).parent / "open_prior.npz"
_OPEN_LAYERS = 3  # of its encoder, and of its decoder
_OPEN_SLOPE = 0.2
_BODIES = ("smpl", "smplx")
_SPECS = "'open', 'vposer:PATH', 'mano-pca' or 'mano-pca:COMPONENTS'"
# Added to a length before dividing by it: no NaN where a network's output is zero
_SHORTEST = 1e-8


class PosePrior(nn.Module):
    """A pose prior, frozen: no parameters to train, and nothing of it goes into a `state_dict`.

    So the weights of a user's licensed file do not get into checkpoints: a checkpoint names the prior, and
    `fingerprint` tells whether it is the same one again. `name`: what it is, for messages and files;
    `latent` L; `num_joints` J: SMPL's 21 body joints after the root (the two hands excepted), MANO's 15
    fingers' joints.

    Latents of any batch (B, L) decode in float32, or in float64 where the latents are, whatever autocast and
    TF32 settings are around it; gradients reach the latents.
    """

    name: str
    latent: int
    num_joints: int

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, L) -> rotation matrices (B, J, 3, 3). Raises ValueError for another shape."""
        raise NotImplementedError

    def decode_axis_angle(self, z: Tensor) -> Tensor:
        """Latents (B, L) -> axis-angle (B, J, 3), radians, as body models take it."""
        return matrix_to_axis_angle(self.decode(z))

    def encode(self, pose: Tensor) -> Tensor:
        """Axis-angle (B, J, 3), radians -> the latents' means (B, L).

        Raises ValueError for another shape.
        """
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """A hash of the weights, 16 hexadecimal digits: equal for equal priors."""
        digest = hashlib.sha256(f"{type(self).__name__} {self.latent} {self.num_joints}".encode())
        for name, tensor in sorted(self.named_buffers()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _latents(self, z: Tensor) -> Tensor:
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"latents of {self.name} must be (B, {self.latent}), got {tuple(z.shape)}")
        return _wide(z)

    def _pose(self, pose: Tensor) -> Tensor:
        if pose.ndim != 3 or pose.shape[1:] != (self.num_joints, 3):
            raise ValueError(
                f"pose of {self.name} must be (B, {self.num_joints}, 3), got {tuple(pose.shape)}; "
                f"reshape to (-1, {self.num_joints}, 3)"
            )
        return _wide(pose)


class VaePrior(PosePrior):
    """The mean paths of a VAE: layers (weight (out, in), bias (out,)), leaky ReLU of a slope after each.

    `encoder` takes the flat pose: axis-angle (3 J), or where `rotation6d` the first two columns of the
    joints' matrices as (J, 3, 2) (6 J). `decoder` gives (J, 3, 2), columns that are made orthonormal.
    """

    def __init__(
        self,
        name: str,
        *,
        encoder: Sequence[tuple[Tensor, Tensor]],
        encoder_slopes: Sequence[float],
        decoder: Sequence[tuple[Tensor, Tensor]],
        slope: float,
        rotation6d: bool = False,
    ) -> None:
        super().__init__()
        self.name, self.rotation6d = name, rotation6d
        self.latent = decoder[0][0].shape[1]
        self.num_joints = decoder[-1][0].shape[0] // 6
        self._encoder = nn.ModuleList(map(_Affine, encoder, encoder_slopes))
        slopes = [slope] * (len(decoder) - 1) + [1.0]
        self._decoder = nn.ModuleList(map(_Affine, decoder, slopes))

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, L) -> rotation matrices (B, J, 3, 3). Raises ValueError for another shape."""
        values = self._latents(z)
        with full_precision(z.device.type):
            for layer in self._decoder:
                values = layer(values)
            return _orthonormal(values.reshape(-1, self.num_joints, 3, 2))

    def encode(self, pose: Tensor) -> Tensor:
        """Axis-angle (B, J, 3), radians -> the latents' means (B, L). Raises ValueError for another shape."""
        values = self._pose(pose)
        with full_precision(pose.device.type):
            if self.rotation6d:
                values = axis_angle_to_matrix(values)[..., :2]
            values = values.flatten(1)
            for layer in self._encoder:
                values = layer(values)
            return values


class PcaPrior(PosePrior):
    """Poses that are sums of principal components, as smplx's `use_pca=True`: MANO's hands.

    `components` (L, 3 J) radians per unit, one a row. The pose is relative to the model's mean hand, which
    the body model adds: an open, relaxed hand at zero latents.
    """

    components: Tensor
    _inverse: Tensor

    def __init__(self, name: str, components: np.ndarray) -> None:
        super().__init__()
        self.name = name
        self.latent, self.num_joints = components.shape[0], components.shape[1] // 3
        inverse = np.linalg.pinv(np.asarray(components, np.float64))
        self.register_buffer("components", torch.tensor(components, dtype=torch.float32), persistent=False)
        self.register_buffer("_inverse", torch.tensor(inverse, dtype=torch.float32), persistent=False)

    def decode_axis_angle(self, z: Tensor) -> Tensor:
        """Latents (B, L) -> axis-angle (B, J, 3) radians, relative to the mean hand: linear, of any length.

        Raises ValueError for another shape.
        """
        values = self._latents(z)
        with full_precision(z.device.type):
            return (values @ self.components.to(values.dtype)).reshape(-1, self.num_joints, 3)

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, L) -> the matrices (B, J, 3, 3) of `decode_axis_angle`.

        The mean hand is added to the axis-angle, not multiplied: give a body model that, not these matrices.
        """
        with full_precision(z.device.type):
            return axis_angle_to_matrix(self.decode_axis_angle(z))

    def encode(self, pose: Tensor) -> Tensor:
        """Axis-angle (B, J, 3) relative to the mean hand, radians -> the latents (B, L) nearest to it.

        Raises ValueError for another shape.
        """
        values = self._pose(pose)
        with full_precision(pose.device.type):
            return values.flatten(1) @ self._inverse.to(values.dtype)


class _Affine(nn.Module):
    """A frozen linear layer and its leaky ReLU (slope 1: none)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: tuple[Tensor, Tensor], slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.register_buffer("weight", layer[0].detach().float().clone(), persistent=False)
        self.register_buffer("bias", layer[1].detach().float().clone(), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        values = functional.linear(values, self.weight.to(values.dtype), self.bias.to(values.dtype))
        return values if self.slope == 1 else functional.leaky_relu(values, self.slope)


def load_prior(
    spec: str, model: str, *, body_models: str | os.PathLike[str] | None = None, side: str = "right"
) -> PosePrior:
    """The prior `spec` for the pose of `model`.

    `spec`: 'open' or 'vposer:PATH' for the bodies of `smpl` and `smplx`, 'mano-pca' (all 45 components) or
    'mano-pca:N' for `mano`, of the hand `side` and from the model file in the folder `body_models`; without,
    from the folder that NEURALANNOT_BODY_MODELS names, else the open body's.

    Raises ValueError for another spec or one that does not fit the model, and as `load_vposer` and
    `mano_prior`.
    """
    kind, colon, rest = spec.partition(":")
    if kind not in ("open", "vposer", "mano-pca") or (kind == "open" and colon) or (colon and not rest):
        raise ValueError(f"unknown pose prior {spec!r}; expected {_SPECS}")
    if kind == "vposer" and not rest:
        raise ValueError("the prior 'vposer' needs its folder or file: 'vposer:PATH'")
    fits = ("mano",) if kind == "mano-pca" else _BODIES
    if model not in fits:
        raise ValueError(f"the pose prior {spec!r} is one for {' and '.join(fits)}, not for {model!r}")
    if kind == "open":
        return open_prior()
    if kind == "vposer":
        return load_vposer(rest)
    if rest and not rest.isdecimal():
        raise ValueError(f"components of 'mano-pca:N' must be a number from 1 to 45, got {rest!r}")
    folder = body_models or os.environ.get(FOLDER_VARIABLE) or OPEN_FOLDER
    return mano_prior(folder, side, components=int(rest) if rest else 45)


def load_vposer(path: str | os.PathLike[str]) -> VaePrior:
    """The user's own VPoser, version 1 or 2: its folder (`vposer_v1_0`, `V02_05`) or the checkpoint in it.

    Raises FileNotFoundError where there is none; ValueError where it is not one, is damaged, or cannot be
    read without running code from it.
    """
    weights = read_vposer(path)
    return VaePrior(
        f"VPoser v{weights.version}",
        encoder=weights.encoder,
        encoder_slopes=weights.encoder_slopes,
        decoder=weights.decoder,
        slope=weights.slope,
    )


def mano_prior(path: str | os.PathLike[str], side: str, *, components: int = 45) -> PcaPrior:
    """The first `components` (1 to 45) of MANO's PCA, from a model file or the folder that holds it.

    Raises FileNotFoundError where there is no file for `side` ('right' or 'left'), ValueError where it is not
    a MANO file or `components` is out of range.
    """
    file = Path(path)
    if not file.is_file():
        file = find_model_file(file, "mano", side=side)
    rows = read_model_file(file, "mano", side=side).hand_components[side]
    if not 1 <= components <= len(rows):
        raise ValueError(f"components must be 1 to {len(rows)}, got {components}")
    return PcaPrior(f"MANO PCA ({side}, {components})", rows[:components])


def open_prior() -> VaePrior:
    """The prior that ships: 32 latents, SMPL's 21 body joints; what it was trained on is in docs/prior.md."""
    layers = {
        part: tuple((arrays[f"{part}.{n}.weight"], arrays[f"{part}.{n}.bias"]) for n in range(_OPEN_LAYERS))
        for arrays in [_open_arrays()]
        for part in ("encoder", "decoder")
    }
    return VaePrior(
        "open prior",
        encoder=layers["encoder"],
        encoder_slopes=(_OPEN_SLOPE, _OPEN_SLOPE, 1.0),
        decoder=layers["decoder"],
        slope=_OPEN_SLOPE,
        rotation6d=True,
    )


@functools.lru_cache(maxsize=1)
def _open_arrays() -> dict[str, Tensor]:
    return {name: torch.from_numpy(array).float() for name, array in load_npz(_OPEN_PRIOR).items()}


def _wide(values: Tensor) -> Tensor:
    """In float32, or float64 where it is so."""
    return values if values.dtype == torch.float64 else values.float()


def _orthonormal(columns: Tensor) -> Tensor:
    """Two columns (…, 3, 2) -> (…, 3, 3) rotation matrices: Gram and Schmidt, the cross product last."""
    first, second = columns.unbind(-1)
    first = functional.normalize(first, dim=-1, eps=_SHORTEST)
    along = (first * second).sum(-1, keepdim=True)
    second = functional.normalize(second - along * first, dim=-1, eps=_SHORTEST)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)
