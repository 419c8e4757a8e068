"""Random bodies, and smplx's layers in single and double precision to compare what is made of them."""

from __future__ import annotations

import functools
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import smplx
import torch
from smplx.utils import Struct
from smplx_layers import open_arrays
from torch import Tensor

from neuralannot.body_models import BodyModel, load_body_model
from neuralannot.parameters import human_model

MODELS = [("smpl", None), ("smplx", None), ("mano", "right"), ("mano", "left"), ("flame", None)]
RIGHT = [(name, side) for name, side in MODELS if side != "left"]
AT_REST = {"smplx": ("leye_pose", "reye_pose"), "flame": ("neck_pose", "leye_pose", "reye_pose")}
DOUBLE = torch.float64


def random_bodies(
    model: str, n: int, seed: int = 0, dtype: torch.dtype = torch.float32, *, far: float = 3.0
) -> dict[str, Tensor]:
    """Rotations by any angle up to 1.2 turns, every eighth none at all; codes N(0, 2); `far` metres away."""
    rng, bodies = np.random.default_rng(seed), {}
    for name, shape in human_model(model).shapes.items():
        if name in ("betas", "expression"):
            value = rng.normal(0, 2, (n, *shape))
        elif name == "transl":
            value = rng.normal(0, far, (n, *shape))
        else:
            axis = rng.normal(size=(n, *shape))
            angle = rng.uniform(0, 2.4 * np.pi, (*axis.shape[:-1], 1))
            angle[rng.random(angle.shape) < 0.125] = 0
            value = axis / np.linalg.norm(axis, axis=-1, keepdims=True) * angle
        bodies[name] = torch.tensor(value, dtype=dtype)
    return bodies


def turned_by(model: str, angle: float, seed: int = 0) -> dict[str, Tensor]:
    """One body, every joint turned by just this angle, float64."""
    bodies = random_bodies(model, 1, seed, DOUBLE)
    for name, value in bodies.items():
        if name not in ("betas", "expression", "transl"):
            axis = torch.randn(value.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
            bodies[name] = axis / axis.norm(dim=-1, keepdim=True) * angle
    return bodies


def twin_of(
    model: str, arrays: dict[str, np.ndarray], side: str | None, dtype: torch.dtype, folder: Path
) -> torch.nn.Module:
    """smplx's layer built in `dtype`, with the arrays' own numbers: smplx rounds most to float32 first."""
    hands: dict[str, Any] = {"use_pca": False, "flat_hand_mean": False}
    if model == "smpl":
        layer = smplx.SMPL("", data_struct=Struct(**arrays), dtype=dtype)
    elif model == "mano":
        right = side == "right"
        layer = smplx.MANO("", data_struct=Struct(**arrays), is_rhand=right, dtype=dtype, **hands)
    elif model == "smplx":
        np.savez(folder / "SMPLX_NEUTRAL.npz", **arrays)
        layer = smplx.SMPLX(str(folder / "SMPLX_NEUTRAL.npz"), use_face_contour=False, dtype=dtype, **hands)
    else:
        embedding = {"lmk_face_idx": arrays["lmk_faces_idx"], "lmk_b_coords": arrays["lmk_bary_coords"]}
        (folder / "FLAME_NEUTRAL.pkl").write_bytes(pickle.dumps(arrays))
        (folder / "flame_static_embedding.pkl").write_bytes(pickle.dumps(embedding))
        layer = smplx.FLAME(str(folder), use_face_contour=False, dtype=dtype)
    own = {
        "v_template": arrays["v_template"],
        "shapedirs": arrays["shapedirs"][:, :, :10],
        "posedirs": arrays["posedirs"].reshape(-1, arrays["posedirs"].shape[2]).T,
        "J_regressor": arrays["J_regressor"],
        "lbs_weights": arrays["weights"],
    }
    if model in AT_REST:
        own |= {"expr_dirs": arrays["shapedirs"][:, :, 10:20], "lmk_bary_coords": arrays["lmk_bary_coords"]}
    for name, values in own.items():
        getattr(layer, name).copy_(torch.tensor(np.ascontiguousarray(values)))
        assert getattr(layer, name).dtype == dtype
    layer.parents.copy_(torch.tensor(arrays["kintree_table"][0].astype(np.int64)))
    layer.parents[0] = -1
    return layer.requires_grad_(False)


@functools.cache
def open_twin(model: str, side: str | None = None, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """smplx's layer on the open body."""
    with tempfile.TemporaryDirectory() as folder:
        return twin_of(model, open_arrays(model, side or "neutral"), side, dtype, Path(folder))


def by_smplx(layer: torch.nn.Module, model: str, bodies: dict[str, Tensor]) -> Any:
    flat = {name: value.flatten(1) for name, value in bodies.items()}
    rest = {name: torch.zeros_like(bodies["transl"]) for name in AT_REST.get(model, ())}
    return layer(**flat, **rest)


def check(out: Any, expected: Any, atol: float) -> None:
    for name in ("vertices", "joints"):
        got, want = getattr(out, name), getattr(expected, name)
        assert got.dtype == want.dtype
        torch.testing.assert_close(got, want, rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def weighed(*outputs: Tensor) -> Tensor:
    """A sum in which every number has a weight of its own."""
    flat = torch.cat([out.flatten(1) for out in outputs], 1)
    return (flat * torch.linspace(-1, 1, flat.numel(), dtype=flat.dtype).view(flat.shape).sin()).sum()


def gradients(of, bodies: dict[str, Tensor], only: str | None = None) -> dict[str, Tensor]:
    leaves = {k: v.detach().clone().requires_grad_(only in (None, k)) for k, v in bodies.items()}
    out = of(leaves)
    weighed(*([out] if isinstance(out, Tensor) else [out.vertices, out.joints])).backward()
    return {key: value.grad for key, value in leaves.items() if value.grad is not None}


def check_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float) -> None:
    """Within `rtol` of the largest number of each; what is zero is zero."""
    assert found.keys() == expected.keys()
    assert any(want.any() for want in expected.values())
    for key, want in expected.items():
        error, allowed = (found[key] - want).abs().max(), rtol * want.abs().max()
        assert error <= allowed, f"{key}: {error} of {want.abs().max()}"


def without_betas(bodies: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in bodies.items() if key != "betas"}


def mano(dtype: torch.dtype = torch.float32) -> BodyModel:
    return load_body_model("mano", side="right", dtype=dtype)
