"""`convert`: annotations of SMPL, SMPL-X and SMPL-H as another of the three."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from neuralannot.bodies import Bodies, model_groups
from neuralannot.conversion.pairs import PARTS, Pair, make_map, make_pair, shapes_of
from neuralannot.conversion.rig import ROTATIONS
from neuralannot.conversion.targets import distinct_fits, pseudo_gt_as
from neuralannot.parameters import PART_PARAMETERS
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.threads import one_thread

if TYPE_CHECKING:
    from neuralannot.conversion.fitting import Pose

__all__ = ["Conversion", "convert", "convert_parameters", "vertices_as"]

_TOPOLOGIES = {6890: "smpl", 10475: "smplx"}
_TURNED = 0.02  # radians, about a degree, or units of expression: less is none


@dataclass(frozen=True, eq=False)
class Conversion:
    """N bodies as another model's, and how far from what they were.

    Fields
    ------
    model: whose parameters these are: `smpl`, `smplx` or `smplh`.
    params: smplx's names -> (N, ...) float32. SMPL-H's are SMPL-X's but for the face's.
    error: (N,) float32 metres: the mean distance of the vertices that both topologies have.
    worst: (N,) float32 metres: the largest distance of these.
    part_error: `body`, `hands`, `head` -> (N,) float32 metres: the mean over the part's vertices.
    lost: the source's parameters that the model has not -> (N,) bool: where they were not at rest, by
        more than a degree or 0.02 units.
    gt: the annotations, where annotations were converted.

    Rows whose parameters are NaN have NaN everywhere.
    """

    model: str
    params: Mapping[str, np.ndarray]
    error: np.ndarray
    worst: np.ndarray
    part_error: Mapping[str, np.ndarray]
    lost: Mapping[str, np.ndarray]
    gt: PseudoGT | None = None

    def __len__(self) -> int:
        return len(self.error)

    def __str__(self) -> str:
        if not len(self):
            return f"0 bodies as {self.model}"
        there = np.isfinite(self.error)
        mm = 1000 * self.error[there]
        lines = [f"{len(self)} bodies as {self.model}"]
        if not there.all():
            lines.append(f"{int((~there).sum())} of them NaN, as their parameters were")
        if not there.any():
            return "\n".join(lines)
        lines += [
            f"vertices off by {mm.mean():.2f} mm (median body {np.median(mm):.2f}, 95 of 100 below "
            f"{np.percentile(mm, 95):.2f}, worst {mm.max():.2f}; worst vertex "
            f"{1000 * self.worst[there].max():.1f})",
            ", ".join(f"{part} {1000 * e[there].mean():.2f} mm" for part, e in self.part_error.items()),
        ]
        lines += [
            f"{name}: {self.model} has none; lost of {int(rows.sum())} bodies"
            for name, rows in self.lost.items()
            if rows.any()
        ]
        return "\n".join(lines)


def convert(
    gt: PseudoGT,
    *,
    to: str,
    body_models: str | os.PathLike[str] | None = None,
    transfer: str | os.PathLike[str] | None = None,
    steps: int = 6,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Conversion:
    """SMPL annotations as SMPL-X's (`to="smplx"`), or SMPL-X annotations as SMPL's (`to="smpl"`).

    Every body is posed, its mesh mapped to the other topology, and the other model fitted to it: rotations,
    shape and translation, by at most `steps` Gauss-Newton steps from where rotations carry over. A fit that
    several rows share, a frame that several cameras saw, is converted once. Ids, keys, cameras, genders,
    space and annotations stay. Hands and faces that SMPL does not annotate are not valid in SMPL-X; their
    fingers are as SMPL's hand has them, straight. Bodies are posed as stored, whatever is valid; what is not
    is never `lost`. `body_models`, `transfer`: see `convert_parameters`. `batch_size`: bodies at a time, some
    hundreds on an accelerator.

    The annotations' release becomes the one of the same data set; where there is none, the layout in which
    own data is written (`mpii-smpl`, `mpii-smplx`), without the joined annotations.

    Raises ValueError for another `to` (SMPL-H has no released layout: `convert_parameters`), and for rows
    that no layout can hold; FileNotFoundError for model files and transfer matrices.
    """
    if to not in ("smpl", "smplx"):
        raise ValueError(
            f"annotations are converted to 'smpl' or 'smplx', got {to!r}; for smplh use convert_parameters"
        )
    pseudo_gt_as(gt[:0], to, _no_rows(to))  # before the work: a layout may not be able to hold the rows
    first, again = distinct_fits(gt)
    fits = gt.rows(first)
    params = dict(fits.params)
    groups = list(model_groups(fits)) or [("neutral", None, np.zeros(0, np.int64))]
    found = [
        convert_parameters(
            {name: values[rows] for name, values in params.items()},
            source=gt.model,
            to=to,
            gender=gender,
            body_models=body_models,
            transfer=transfer,
            steps=steps,
            batch_size=batch_size,
            device=device,
            progress=progress,
        )
        for gender, _, rows in groups
    ]
    place = np.argsort(np.concatenate([rows for _, _, rows in groups]))  # genders' rows back in their order
    whole = _at_rows(_mapped(np.concatenate, found), place)
    for part, names in PART_PARAMETERS.items():
        for name in set(names) & whole.lost.keys():
            whole.lost[name][~fits.valid[part]] = False  # nothing was said, nothing is lost
    whole = _at_rows(whole, again)
    return replace(whole, gt=pseudo_gt_as(gt, to, whole.params))


def convert_parameters(
    params: Mapping[str, np.ndarray],
    *,
    source: str,
    to: str,
    gender: str = "neutral",
    body_models: str | os.PathLike[str] | None = None,
    transfer: str | os.PathLike[str] | None = None,
    steps: int = 6,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Conversion:
    """Parameters of `source` as those of `to`: `smpl`, `smplx`, `smplh`, bodies of one gender.

    `params`: smplx's names -> (N, ...), rotations also flat; zero where not given. SMPL-H has SMPL-X's
    without `jaw_pose` and `expression`; `smplh_from_amass` makes them of AMASS's `poses`. `body_models`: the
    folder of official files (SMPL-H: `smplh/SMPLH_MALE.pkl` or `smplh/male/model.npz`); for None the
    environment variable NEURALANNOT_BODY_MODELS, or else the open bodies, which have a SMPL-H of their own.
    `transfer`: the folder of the official transfer matrices, needed between SMPL's and SMPL-X's topologies of
    official files; for None `body_models`. On the CPU one thread computes.

    Raises ValueError for unknown or equal models, parameters or shapes, FileNotFoundError for model files and
    transfer matrices.
    """
    pair = make_pair(source, to, gender=gender, body_models=body_models, transfer=transfer)
    if steps < 0 or batch_size < 1:
        raise ValueError(f"steps must be 0 or more and batch_size positive, got {steps} and {batch_size}")
    values = checked_parameters(params, source)
    where = torch.device(device or "cpu")
    pair = pair if where.type == "cpu" else pair.on(where)
    with one_thread() if where.type == "cpu" else nullcontext():
        parts = [_convert(pair, b, steps) for b in _batches(values, batch_size, where, progress=progress)]
    none = _no_rows(to)
    joined = {name: np.concatenate([none[name], *(p[0][name] for p in parts)]) for name in none}
    errors = np.concatenate([np.zeros((0, 2 + len(PARTS)), np.float32), *(p[1] for p in parts)])
    return Conversion(
        to,
        joined,
        errors[:, 0],
        errors[:, 1],
        {part: errors[:, 2 + k] for k, part in enumerate(PARTS)},
        _lost(pair, values),
    )


def vertices_as(
    bodies: Bodies | Tensor,
    topology: str,
    *,
    body_models: str | os.PathLike[str] | None = None,
    transfer: str | os.PathLike[str] | None = None,
) -> Tensor:
    """Bodies' vertices in another topology: (B, 6890, 3) for `smpl`, (B, 10475, 3) for `smplx`, their unit.

    So SMPL-X annotations compare with ground truth in SMPL, vertex by vertex:
    `mpvpe(vertices_as(gt.forward(), "smpl"), true_vertices)`. Nothing is fitted; joints of both follow from a
    regressor of that topology. `bodies`: posed ones, or their vertices (B, 6890 or 10475, 3), which come back
    themselves where the topology is theirs. `body_models` as the bodies were posed with, `transfer` as in
    `convert_parameters`. NaN gives NaN at the vertices that follow from it. Raises ValueError for bodies
    without vertices or of another model, FileNotFoundError for transfer matrices.
    """
    if topology not in _TOPOLOGIES.values():
        raise ValueError(f"topology must be 'smpl' or 'smplx', got {topology!r}")
    vertices = bodies if isinstance(bodies, Tensor) else bodies.vertices
    if vertices is None:
        raise ValueError("there are no vertices: forward with want='mesh'")
    if vertices.ndim != 3 or vertices.shape[1] not in _TOPOLOGIES or vertices.shape[2] != 3:
        raise ValueError(
            f"bodies must have SMPL's 6890 or SMPL-X's 10475 vertices, (B, V, 3), got {tuple(vertices.shape)}"
        )
    own = _TOPOLOGIES[vertices.shape[1]]
    if own == topology:
        return vertices
    return make_map(own, topology, body_models=body_models, transfer=transfer)(vertices)


def checked_parameters(params: Mapping[str, np.ndarray], model: str) -> dict[str, np.ndarray]:
    """All of a model's parameters, (N, ...) float32, zero where not given. Raises ValueError by name."""
    shapes = shapes_of(model)
    strange = [name for name in params if name not in shapes]
    if strange:
        raise ValueError(f"{model} has no {', '.join(strange)}; it has {', '.join(shapes)}")
    if not params:
        raise ValueError("no parameter given; pass at least one, it says how many bodies there are")
    count = len(next(iter(params.values())))
    values = {}
    for name, shape in shapes.items():
        value = np.asarray(params.get(name, np.zeros((count, *shape))))
        if value.shape not in ((count, *shape), (count, int(np.prod(shape)))):
            raise ValueError(f"{name} must be {(count, *shape)}, got {value.shape}")
        values[name] = value.reshape(count, *shape).astype(np.float32)
    return values


def _batches(
    values: dict[str, np.ndarray], size: int, device: torch.device, *, progress: bool
) -> Iterator[dict[str, Tensor]]:
    from tqdm import tqdm

    count = len(values["global_orient"])
    for first in tqdm(range(0, count, size), desc="convert", unit="batch", disable=not progress):
        yield {name: torch.tensor(v[first : first + size], device=device) for name, v in values.items()}


@torch.no_grad()
def _convert(pair: Pair, params: dict[str, Tensor], steps: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A batch's parameters, and (B, 2 + parts) metres: mean and largest distance, then each part's mean."""
    # Near the origin nothing is rounded; where the body stands is added last.
    place = params["transl"]
    params = {**params, "transl": torch.zeros_like(place)}
    goal = pair.to_target(pair.source.vertices(params))
    pose, _ = pair.fitter(goal[:, pair.fitter.vertices], pair.start(params), steps=steps)
    found = _parameters_of(pair, pose)
    off = (pair.target.vertices(found) - goal).norm(dim=2)
    errors = torch.stack([off[:, pair.same].mean(1), off[:, pair.same].amax(1)], 1)
    of_parts = torch.cat([errors, off @ pair.part_shares], 1)
    found["transl"] = (found["transl"].double() + place).float()
    lacking = of_parts.isnan().any(1)
    for name, value in found.items():
        found[name] = value.masked_fill(lacking.view(-1, *[1] * (value.ndim - 1)), float("nan"))
    of_parts[lacking] = float("nan")
    return {name: value.cpu().numpy() for name, value in found.items()}, of_parts.cpu().numpy()


def _parameters_of(pair: Pair, pose: Pose) -> dict[str, Tensor]:
    """The target's parameters, zero where it has some that the source says nothing of."""
    found = pair.target.rig.poses(pose.rotations)
    found |= {"betas": pose.betas, "transl": pose.transl}
    shapes = shapes_of(pair.target.model)
    for name in shapes.keys() - found.keys() | {"jaw_pose"} & shapes.keys():
        found[name] = pose.betas.new_zeros(len(pose.betas), *shapes[name])
    return {name: found[name] for name in shapes}


def _lost(pair: Pair, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which bodies had something that the target cannot say."""
    lost = {}
    for name in shapes_of(pair.source.model):
        if name in shapes_of(pair.target.model):
            continue
        value = values[name].reshape(len(values[name]), -1)
        if name.endswith("_hand_pose"):  # fingers that are not straight, as SMPL's are
            mean = pair.source.rig.mean[ROTATIONS[pair.source.model][name]].flatten()
            value = value + mean.cpu().numpy()
        lost[name] = (np.abs(value) > _TURNED).any(axis=1)
    return lost


def _no_rows(model: str) -> dict[str, np.ndarray]:
    return {name: np.zeros((0, *shape), np.float32) for name, shape in shapes_of(model).items()}


def _at_rows(one: Conversion, rows: np.ndarray) -> Conversion:
    return _mapped(lambda values: values[0][rows], [one])


def _mapped(of: Callable[[list[np.ndarray]], np.ndarray], found: Sequence[Conversion]) -> Conversion:
    """Every array of a conversion, made of those of the ones found."""

    def each(of_one: Callable[[Conversion], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: of([of_one(one)[name] for one in found]) for name in of_one(found[0])}

    return Conversion(
        found[0].model,
        each(lambda one: one.params),
        of([one.error for one in found]),
        of([one.worst for one in found]),
        each(lambda one: one.part_error),
        each(lambda one: one.lost),
    )
