"""One body model as each library poses it, all of them on the same arrays: ours, smplx's, the peers'.

The arrays are the open body's. Official files are licensed and cannot be here, and differ in one way that
matters for speed: their pose correctives are dense. So there are two variants, `open` as it ships and
`dense`, whose correctives are replaced by noise on every vertex.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.grids import OURS

SMPLX, BODY_MODELS, SMPLFITTER = "smplx", "body-models", "smplfitter"
LIBRARIES = (OURS, SMPLX, BODY_MODELS, SMPLFITTER)
VARIANTS = ("dense", "open")
TITLES = {"smpl": "SMPL", "smplx": "SMPL-X", "mano": "MANO", "flame": "FLAME"}
# Metres by which results may differ: smplx computes as we do, the others in an order of their own.
TOLERANCE = {SMPLX: 1e-5, BODY_MODELS: 1e-4, SMPLFITTER: 1e-4}
_NOISE = 1e-3  # metres: some of an official file's correctives
_OPEN = {
    "smpl": "smpl/SMPL_NEUTRAL.npz",
    "smplx": "smplx/SMPLX_NEUTRAL.npz",
    "mano": "mano/MANO_RIGHT.npz",
    "flame": "flame/FLAME_NEUTRAL.npz",
}
_SHAPES, _EXPRESSIONS = 300, 100  # columns of official SMPL-X and FLAME files

Parameters = Mapping[str, Tensor]


class DisagreementError(Exception):
    """A side gives other points than ours does: what it takes is of no interest."""


@dataclass(frozen=True)
class Layer:
    """One library's model; what the library has no function for is None.

    `arguments`: our parameters -> its own, which the others take: `mesh` gives (B, V, 3), `skeleton`
    (B, J, 3), `joints` all of smplx's. `points`: (K, V) weights -> a callable that gives (B, K, 3).
    `shaped`: one person's (10,) betas -> a mesh callable for arguments made without betas.
    """

    library: str
    arguments: Callable[[Parameters], dict[str, Any]]
    mesh: Callable[..., Tensor]
    skeleton: Callable[..., Tensor] | None = None
    joints: Callable[..., Tensor] | None = None
    points: Callable[[np.ndarray], Callable[..., Tensor]] | None = None
    shaped: Callable[[Tensor], Callable[..., Tensor]] | None = None


def open_arrays(model: str) -> dict[str, np.ndarray]:
    """The arrays of the open body's file."""
    import neuralannot

    folder = Path(neuralannot.__file__).parent / "body_models" / "open"
    with np.load(folder / _OPEN[model]) as file:
        return dict(file)


def write_model(folder: Path, model: str, variant: str) -> dict[str, np.ndarray]:
    """Write the model's file, in the layout of the official download, below `folder`; return its arrays.

    SMPL-X's and FLAME's hold 400 columns of shape and expression, those that the open body lacks being zero.
    """
    arrays = open_arrays(model)
    if variant == "dense":
        shape = arrays["posedirs"].shape
        arrays["posedirs"] = np.random.default_rng(0).normal(0, _NOISE, shape).astype(np.float32)
    if model in ("smplx", "flame"):
        codes = arrays["shapedirs"]
        arrays["shapedirs"] = np.zeros((len(codes), 3, _SHAPES + _EXPRESSIONS), np.float32)
        arrays["shapedirs"][:, :, :10] = codes[:, :, :10]
        arrays["shapedirs"][:, :, _SHAPES : _SHAPES + 10] = codes[:, :, 10:20]
    path = folder / _OPEN[model]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, **arrays)
    return arrays


def random_parameters(model: str, batch: int, device: str = "cpu", seed: int = 0) -> dict[str, Tensor]:
    """Float32 parameters of `batch` bodies some metres away, by our names."""
    from neuralannot.parameters import human_model

    generator = torch.Generator().manual_seed(seed)
    spreads = {"transl": 0.5, "betas": 1.0, "expression": 1.0}
    values = {
        name: spreads.get(name, 0.3) * torch.randn(batch, *shape, generator=generator)
        for name, shape in human_model(model).shapes.items()
    }
    values["transl"][:, 2] += 3
    return {name: value.to(device) for name, value in values.items()}


def layers_of(
    folder: Path, model: str, arrays: Mapping[str, np.ndarray], device: str
) -> dict[str, Layer | str]:
    """Library -> its layer on these arrays, which lie in `folder` too; a text says why there is none."""
    made: dict[str, Layer | str] = {}
    for library, make in _MAKERS.items():
        try:
            made[library] = make(folder, model, arrays, device)
        except ModuleNotFoundError as error:
            if library in (OURS, SMPLX):
                raise
            missing = (error.name or "").partition(".")[0]
            own = library.replace("-", "_") == missing
            made[library] = "not installed" if own else f"not installed: {missing}"
        except _NoSuchModelError:
            made[library] = "no such model"
    return made


class _NoSuchModelError(Exception):
    pass


def _ours(folder: Path, model: str, arrays: Mapping[str, np.ndarray], device: str) -> Layer:
    from neuralannot import JointRegressor, load_body_model

    layer = load_body_model(model, folder=folder, side="right" if model == "mano" else None).to(device)

    def points(weights: np.ndarray) -> Callable[..., Tensor]:
        return layer.points(JointRegressor(weights, tuple(map(str, range(len(weights))))))

    def shaped(betas: Tensor) -> Callable[..., Tensor]:
        person = layer.with_shape(betas)
        return lambda **values: person(**values).vertices

    return Layer(
        OURS,
        dict,
        lambda **values: layer(**values).vertices,
        layer.skeleton,
        layer.joints,
        points,
        shaped,
    )


def _smplx(folder: Path, model: str, arrays: Mapping[str, np.ndarray], device: str) -> Layer:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints about the number of shape codes
        layer = _smplx_layer(folder, model, arrays).eval().to(device)
    bones = len(arrays["weights"][0])

    def arguments(values: Parameters) -> dict[str, Any]:
        some = next(iter(values.values()))
        resting = {"smplx": ("leye_pose", "reye_pose"), "flame": ("neck_pose", "leye_pose", "reye_pose")}
        given = {name: value.flatten(1) for name, value in values.items()}
        return given | {name: some.new_zeros(len(some), 3) for name in resting.get(model, ())}

    def points(weights: np.ndarray) -> Callable[..., Tensor]:
        regressor = torch.tensor(weights, device=device)
        return lambda **values: torch.matmul(regressor, layer(**values).vertices)

    def shaped(betas: Tensor) -> Callable[..., Tensor]:
        def mesh(**values: Tensor) -> Tensor:
            count = len(values["global_orient"])
            vertices: Tensor = layer(betas=betas.expand(count, -1), **values).vertices
            return vertices

        return mesh

    return Layer(
        SMPLX,
        arguments,
        lambda **values: layer(**values).vertices,
        lambda **values: layer(**values).joints[:, :bones],
        lambda **values: layer(**values).joints,
        points,
        shaped,
    )


def _smplx_layer(folder: Path, model: str, arrays: Mapping[str, np.ndarray]) -> Any:
    import smplx
    from smplx.utils import Struct

    hands = {"use_pca": False, "flat_hand_mean": False}
    if model == "smpl":
        return smplx.SMPL("", data_struct=Struct(**arrays))
    if model == "mano":
        return smplx.MANO("", data_struct=Struct(**arrays), is_rhand=True, **hands)
    if model == "smplx":
        return smplx.SMPLX(str(folder / _OPEN["smplx"]), use_face_contour=False, **hands)
    own = folder / "flame-for-smplx"
    own.mkdir(exist_ok=True)
    landmarks = {"lmk_face_idx": arrays["lmk_faces_idx"], "lmk_b_coords": arrays["lmk_bary_coords"]}
    (own / "FLAME_NEUTRAL.pkl").write_bytes(pickle.dumps(dict(arrays)))
    (own / "flame_static_embedding.pkl").write_bytes(pickle.dumps(landmarks))
    return smplx.FLAME(str(own), use_face_contour=False)


# body-models' name of the root's rotation, and of the other rotations with what they are made of here; a
# number is so many joints at rest.
_ROOTS = {
    "smpl": "pelvis_rotation",
    "smplx": "pelvis_rotation",
    "mano": "wrist_rotation",
    "flame": "head_rotation",
}
_POSES: Mapping[str, Mapping[str, tuple[str | int, ...]]] = {
    "smpl": {"body_pose": ("body_pose",)},
    "smplx": {
        "body_pose": ("body_pose",),
        "head_pose": ("jaw_pose", 2),
        "hand_pose": ("left_hand_pose", "right_hand_pose"),
    },
    "mano": {"hand_pose": ("hand_pose",)},
    "flame": {"head_pose": (1, "jaw_pose", 2)},
}


def body_models_layer(
    folder: Path, model: str, arrays: Mapping[str, np.ndarray], device: str, **options: Any
) -> Layer:
    layers = importlib.import_module(f"body_models.{model}.torch")
    path = folder / _OPEN[model]
    if model == "smplx":  # it wants the joints' names
        path = folder / "smplx-for-body-models.npz"
        bones = len(arrays["weights"][0])
        np.savez(
            path, joint2num=np.array({f"joint_{k}": k for k in range(bones)}), allow_pickle=True, **arrays
        )
    layer = getattr(layers, model.upper())(model_path=path, **options).to(device)

    def arguments(values: Parameters) -> dict[str, Any]:
        given = {_ROOTS[model]: values["global_orient"], "global_translation": values["transl"]}
        given |= {name: _stacked(values, parts) for name, parts in _POSES[model].items()}
        given |= {"shape": values["betas"]} if "betas" in values else {}
        return given | ({"expression": values["expression"]} if "expression" in values else {})

    def points(weights: np.ndarray) -> Callable[..., Tensor]:
        regressor = layer.prepare_point_regressor(torch.tensor(weights, device=device))
        return functools.partial(layer.forward_points, point_regressor=regressor)

    def shaped(betas: Tensor) -> Callable[..., Tensor]:
        identity = layer.prepare_identity(betas)
        return functools.partial(layer.forward_vertices, identity=identity)

    return Layer(
        BODY_MODELS,
        arguments,
        layer.forward_vertices,
        lambda **values: layer.forward_skeleton(**values)[..., :3, 3],
        None,
        points,
        # An expression is part of its identity: no person's shape alone.
        shaped if model in ("smpl", "mano") else None,
    )


def _stacked(values: Parameters, parts: tuple[str | int, ...]) -> Tensor:
    """(B, J, 3) rotations one after another."""
    some = values["global_orient"]
    return torch.cat(
        [
            some.new_zeros(len(some), part, 3)
            if isinstance(part, int)
            else values[part].view(len(some), -1, 3)
            for part in parts
        ],
        1,
    )


# The order of smplfitter's rotations.
_FITTER_POSES: Mapping[str, tuple[str | int, ...]] = {
    "smpl": ("global_orient", "body_pose"),
    "smplx": ("global_orient", "body_pose", "jaw_pose", 2, "left_hand_pose", "right_hand_pose"),
    "mano": ("global_orient", "hand_pose"),
}


def _smplfitter(folder: Path, model: str, arrays: Mapping[str, np.ndarray], device: str) -> Layer:
    from smplfitter.pt import BodyModel

    if model not in _FITTER_POSES:
        raise _NoSuchModelError
    own = folder / f"{model}-for-smplfitter"
    own.mkdir(exist_ok=True)
    mean = np.zeros(3 * len(arrays["weights"][0]), np.float32)
    changed = dict(arrays)
    if model == "smplx":  # it knows shapes only: expressions are further ones
        mean[75:120], mean[120:165] = arrays["hands_meanl"], arrays["hands_meanr"]
        codes = arrays["shapedirs"]
        changed["shapedirs"] = np.concatenate([codes[:, :, :10], codes[:, :, _SHAPES : _SHAPES + 10]], axis=2)
        np.savez(own / "SMPLX_NEUTRAL.npz", allow_pickle=False, **changed)
    elif model == "mano":
        mean[3:] = arrays["hands_mean"]
        (own / "MANO_RIGHT.pkl").write_bytes(pickle.dumps(changed))
    else:
        (own / "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl").write_bytes(pickle.dumps(changed))
    np.save(own / "kid_template.npy", np.zeros_like(arrays["v_template"]))
    layer = BodyModel(model, "neutral", model_root=str(own)).eval().to(device)
    resting = torch.tensor(mean, device=device)

    def arguments(values: Parameters) -> dict[str, Any]:
        pose = _stacked(values, _FITTER_POSES[model]).flatten(1) + resting
        codes = [values[name] for name in ("betas", "expression") if name in values]
        given = {"pose_rotvecs": pose, "trans": values["transl"]}
        return given | ({"shape_betas": torch.cat(codes, 1)} if codes else {})

    return Layer(
        SMPLFITTER,
        arguments,
        lambda **values: layer(**values)["vertices"],
        lambda **values: layer(return_vertices=False, **values)["joints"],
    )


_MAKERS: Mapping[str, Callable[..., Layer]] = {
    OURS: _ours,
    SMPLX: _smplx,
    BODY_MODELS: body_models_layer,
    SMPLFITTER: _smplfitter,
}


def agreeing(
    sides: Mapping[str, Callable[[], Any] | str],
    looks: Mapping[str, Callable[[Any], Tensor]] | None = None,
    *,
    tolerance: Mapping[str, float] = TOLERANCE,
) -> dict[str, Callable[[], Any] | str]:
    """The sides, those whose results are not ours replaced by how far off they are, failing ones by why.

    `looks`: side -> what to compare of its result, all of it where nothing is said. Raises DisagreementError
    where smplx's is not ours: ours is wrong then.
    """
    kept: dict[str, Callable[[], Any] | str] = {}
    expected = None
    for name, side in sides.items():
        kept[name] = side
        if isinstance(side, str):
            continue
        try:
            result = side()
        except RuntimeError as error:
            if name == OURS and not _is_out_of_memory(error):
                raise
            kept[name] = "out of memory" if _is_out_of_memory(error) else f"fails: {error!s:.60}"
            continue
        found = (looks or {}).get(name, torch.Tensor.detach)(result).clone()
        if expected is None:
            expected = found
            continue
        off = float((found - expected).abs().max())
        limit = tolerance.get(name.partition(",")[0], min(tolerance.values()))
        if not off <= limit:
            if name == SMPLX:
                raise DisagreementError(f"smplx's points are {off:.1e} m off ours; expected at most {limit}")
            kept[name] = f"differs by {off:.1e} m"
    return kept


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.cuda.OutOfMemoryError) or "allocate memory" in str(error)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Nothing said about the open body serving in place of official files."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="no official body models")
        yield
