"""Reading the user's own VPoser, versions 1 and 2 as published: checked, and nothing in the file is run.

VPoser (Pavlakos et al., "Expressive Body Capture", 2019) is a variational autoencoder of SMPL's 21 body
joints. Both versions decode 32 numbers by three linear layers with leaky ReLU between and read the 126
outputs as 21 times (3, 2), two columns per joint, which Gram and Schmidt complete to a rotation. They differ
in the slope, in the encoder and in the names of their tensors. The weights are under a licence of their own:
https://smpl-x.is.tue.mpg.de
"""

from __future__ import annotations

import os
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

NUM_JOINTS = 21
_SUFFIXES = (".pt", ".pth", ".ckpt")
_EPS = 1e-5  # of torch's batch normalisation
# Checkpoints name some modules as Python 2 does
_PYTHON3 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
# What torch.load trips over in a damaged or foreign file
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    OSError,
)


@dataclass(frozen=True, eq=False)
class VposerWeights:
    """Layers of a VPoser file, each a weight (out, in) and a bias (out,), float32 on the CPU.

    `encoder`: from the pose, 63 numbers of axis-angle, to the latent's mean, batch normalisation folded in;
    `encoder_slopes`: the leaky ReLU's slope after each layer, 1 for none. `decoder`: three layers, `slope`
    between them. `version`: 1 or 2.
    """

    version: int
    source: Path
    encoder: tuple[tuple[Tensor, Tensor], ...]
    encoder_slopes: tuple[float, ...]
    decoder: tuple[tuple[Tensor, Tensor], ...]
    slope: float


@dataclass(frozen=True)
class _Layout:
    """The names of a version's tensors: encoder layers with the normalisation before each, if any."""

    version: int
    slope: float
    encoder: tuple[tuple[str, str | None], ...]
    encoder_slopes: tuple[float, ...]
    decoder: tuple[str, str, str]


_VERSIONS = (
    _Layout(
        version=1,
        slope=0.2,
        encoder=(
            ("bodyprior_enc_fc1", "bodyprior_enc_bn1"),
            ("bodyprior_enc_fc2", "bodyprior_enc_bn2"),
            ("bodyprior_enc_mu", None),
        ),
        encoder_slopes=(0.2, 0.2, 1.0),
        decoder=("bodyprior_dec_fc1", "bodyprior_dec_fc2", "bodyprior_dec_out"),
    ),
    _Layout(
        version=2,
        slope=0.01,
        encoder=(
            ("encoder_net.2", "encoder_net.1"),
            ("encoder_net.6", "encoder_net.4"),
            ("encoder_net.7", None),
            ("encoder_net.8.mu", None),
        ),
        encoder_slopes=(0.01, 1.0, 1.0, 1.0),
        decoder=("decoder_net.0", "decoder_net.3", "decoder_net.5"),
    ),
)


def find_vposer(path: str | os.PathLike[str]) -> Path:
    """The checkpoint of a VPoser folder (`vposer_v1_0`, `V02_05`), or `path` itself where it is a file.

    It is the one `.pt` or `.ckpt` in the folder's `snapshots`, or in the folder. Raises FileNotFoundError
    where there is none, ValueError where there are several: pass the one that is meant.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(
            f"no VPoser at {path}; give the folder vposer_v1_0 or V02_05, or the checkpoint in its "
            "snapshots; register at https://smpl-x.is.tue.mpg.de"
        )
    for folder in (path / "snapshots", path):
        found = sorted(p for p in folder.glob("*") if p.suffix in _SUFFIXES and p.is_file())
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(p.name for p in found)
            raise ValueError(f"{folder} holds {len(found)} checkpoints ({names}); pass the path of one")
    raise FileNotFoundError(
        f"no {' or '.join(_SUFFIXES)} in {path / 'snapshots'} or {path}; give VPoser's folder as downloaded"
    )


def read_vposer(path: str | os.PathLike[str]) -> VposerWeights:
    """The layers of the VPoser in the folder or file `path`.

    Raises FileNotFoundError and ValueError as `find_vposer`; ValueError that names the file and the tensor
    where one is missing, of another shape or not finite, or where the file holds more than tensors in a way
    that cannot be read without running it.
    """
    file = find_vposer(path)
    tensors = _load_tensors(file)
    for layout in _VERSIONS:
        if f"{layout.decoder[0]}.weight" in tensors:
            return _weights(file, tensors, layout)
    keys = ", ".join(sorted(tensors)[:4]) or "none"
    raise ValueError(
        f"{file} is no VPoser: expected bodyprior_dec_fc1.weight (version 1) or decoder_net.0.weight "
        f"(version 2) among its tensors, got {keys}"
    )


def _weights(file: Path, tensors: Mapping[str, Tensor], layout: _Layout) -> VposerWeights:
    def take(name: str, *shape: int | None) -> Tensor:
        tensor = tensors.get(name)
        if tensor is None:
            raise ValueError(f"{file}: {name} is missing from this VPoser version {layout.version}")
        fits = tensor.ndim == len(shape) and all(
            want in (None, got) for want, got in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            want = "x".join("n" if size is None else str(size) for size in shape)
            raise ValueError(f"{file}: {name} must be {want}, got {'x'.join(map(str, tensor.shape))}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{file}: {name} holds values that are not finite")
        return tensor.double()

    def linear(name: str, inputs: int | None, outputs: int | None = None) -> tuple[Tensor, Tensor]:
        weight = take(f"{name}.weight", outputs, inputs)
        return weight, take(f"{name}.bias", weight.shape[0])

    def chain(names: tuple[str, ...], inputs: int | None, last: int | None) -> list[tuple[Tensor, Tensor]]:
        layers: list[tuple[Tensor, Tensor]] = []
        for name in names:
            layers.append(linear(name, inputs, last if name == names[-1] else None))
            inputs = layers[-1][0].shape[0]
        return layers

    decoder = chain(layout.decoder, None, 6 * NUM_JOINTS)
    latent = decoder[0][0].shape[1]
    encoder = chain(tuple(name for name, _ in layout.encoder), 3 * NUM_JOINTS, latent)
    for place, (_, norm) in enumerate(layout.encoder):
        if norm is None:
            continue
        weight, bias = encoder[place]
        width = weight.shape[1]
        # y = W (s (x - m) + b) + c: the statistics of training are fixed, so the two layers are one
        scale = take(f"{norm}.weight", width) / torch.sqrt(take(f"{norm}.running_var", width) + _EPS)
        shift = take(f"{norm}.bias", width) - scale * take(f"{norm}.running_mean", width)
        if not (torch.isfinite(scale).all() and torch.isfinite(shift).all()):
            raise ValueError(f"{file}: {norm}.running_var must not be negative")
        encoder[place] = (weight * scale, bias + weight @ shift)
    return VposerWeights(
        version=layout.version,
        source=file,
        encoder=tuple((weight.float(), bias.float()) for weight, bias in encoder),
        encoder_slopes=layout.encoder_slopes,
        decoder=tuple((weight.float(), bias.float()) for weight, bias in decoder),
        slope=layout.slope,
    )


class _Unread:
    """Stands where a checkpoint names a class that is neither torch's nor read here; keeps nothing."""

    def __new__(cls, *_args: object, **_options: object) -> _Unread:
        return object.__new__(cls)

    def __init__(self, *_args: object, **_options: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


def _load_tensors(file: Path) -> dict[str, Tensor]:
    """The file's tensors under VPoser's own names."""
    try:
        loaded = _load(file)
    except _UNREADABLE as error:
        # torch says what it refused after a screen of advice on how to run it all the same
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
        reason = reason.splitlines()[0].split(". ")[0]
        raise ValueError(
            f"{file} cannot be read as a checkpoint without running what is in it ({reason}); where it "
            "loads, torch.save(checkpoint['state_dict'], FILE) writes one that can be read"
        ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{file} holds a {type(loaded).__name__}, not the tensors of a VPoser by name")
    # Version 2's training kept the model as `vp_model`, beside a body model that is not needed here
    tensors = {key: value for key, value in loaded.items() if isinstance(key, str) and torch.is_tensor(value)}
    inner = {key[9:]: value for key, value in tensors.items() if key.startswith("vp_model.")}
    return inner or {key.removeprefix("module."): value for key, value in tensors.items()}


def _load(file: Path) -> Any:
    """`torch.load` of weights only. Lightning's checkpoints also name classes of callbacks and options: an
    empty stand-in takes the place of each, so that they are neither imported nor called."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not (hasattr(torch.serialization, "safe_globals") and zipfile.is_zipfile(file)):
            raise
    # Options are kept in kinds of dict, which are filled item by item: a plain one takes that
    stand_ins: list[Any] = [
        (OrderedDict if name.endswith("Dict") else _Unread, name) for name in _foreign_names(file)
    ]
    with torch.serialization.safe_globals(stand_ins):
        return torch.load(file, map_location="cpu", weights_only=True)


def _foreign_names(file: Path) -> list[str]:
    """Full names in the checkpoint's pickle that are not torch's; found by reading, nothing is looked up."""
    with zipfile.ZipFile(file) as archive:
        member = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
        if member is None:
            raise ValueError("it is a zip file without data.pkl")
        code = archive.read(member)
    named = [str(arg).split(" ") for opcode, arg, _ in pickletools.genops(code) if opcode.name == "GLOBAL"]
    full = {f"{_PYTHON3.get(module, module)}.{name}" for module, name in named}
    return sorted(name for name in full if name.split(".")[0] not in ("torch", "collections"))
