"""`measure_quality`: every row against its joints, a pose prior, joint ranges, itself and the floor."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from neuralannot.bodies import model_groups, model_on, zero_invalid
from neuralannot.body_models.model import BodyModel, BodyPoints
from neuralannot.key_index import KeyIndex
from neuralannot.quality.bends import bend_excess, joint_limits
from neuralannot.quality.ground import SOLE_POINTS, UP, floor_heights, foot_heights, foot_skate, sole_vertices
from neuralannot.quality.joints import JointTargets, joint_columns, joint_targets
from neuralannot.quality.penetration import penetration_test
from neuralannot.quality_columns import MEASURES
from neuralannot.train.priors import PosePrior, load_prior
from neuralannot.train.rotations import axis_angle_to_matrix

if TYPE_CHECKING:
    from neuralannot.pseudo_gt import PseudoGT

__all__ = ["BEND_TOLERANCE", "PENETRATION_TOLERANCE", "Quality", "measure_quality", "shared_fits"]

# Beyond its range a joint may be bent by so much before it is called implausible: ranges differ by person.
BEND_TOLERANCE = float(np.radians(15))
# Metres. Flesh gives way, and a hand at rest lies in the thigh of a body of another build: of motion capture
# 0.5% are over 3 cm, of the same with 0.1 rad of noise 21%.
PENETRATION_TOLERANCE: Mapping[str, float] = {"smpl": 0.03, "smplx": 0.03, "mano": 0.005}
_BODY_JOINTS = 21


@dataclass(frozen=True, eq=False)
class Quality(Mapping[str, np.ndarray]):
    """Columns of N rows by name, as `PseudoGT.with_quality` takes them: float32, NaN where a row cannot be
    measured, or bool flags. `neuralannot.quality_columns.MEASURES` says what they are.

    `left_out`: measures that could not be made at all, and why.
    """

    columns: Mapping[str, np.ndarray]
    left_out: Mapping[str, str]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


def measure_quality(
    gt: PseudoGT,
    *,
    body_models: str | os.PathLike[str] | None = None,
    prior: str = "default",
    regressors: Mapping[str, Any] | None = None,
    bend_tolerance: float = BEND_TOLERANCE,
    penetration_tolerance: float | None = None,
    floor: float | None = None,
    device: Any = None,
    batch_size: int = 1024,
    progress: bool = False,
) -> Quality:
    """Measure every row; of memory, `batch_size` bodies at a time and the columns.

    `body_models`, `device` as of `PseudoGT.forward`. `prior`: as `load_prior` takes it; `default` is the open
    prior for bodies and MANO's components for hands, `none` leaves the prior out; faces have none.
    `regressors`: joint set name -> the data set's regressor, where official body models are used (see
    `neuralannot.train.joint_points`). `bend_tolerance` radians, `penetration_tolerance` metres (None: 3 cm,
    for hands 5 mm): what flags start at. `floor`: its height in the world, metres, where it is known, for
    motion capture; None takes it from the feet. `progress`: a bar on stderr.

    Which columns there are depends on the release and its companions: reprojection where annotations have
    keypoints or 3D joints and there are cameras, errors where there are 3D joints, feet in the world space of
    motion capture. `left_out` of the result says what was not measured. Parts that are flagged invalid are
    left at rest and their keypoints not counted. Rows: reprojection and error are NaN without a valid joint,
    the percentage without a box, infinite where a joint lies behind the camera.

    Raises ValueError for a prior that does not fit the model, a negative tolerance, a batch size below 1;
    FileNotFoundError for body model files.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    tolerance = (
        PENETRATION_TOLERANCE.get(gt.model) if penetration_tolerance is None else penetration_tolerance
    )
    for name, value in (("bend_tolerance", bend_tolerance), ("penetration_tolerance", tolerance)):
        if value is not None and not value >= 0:
            raise ValueError(f"{name} must be a number of at least 0, got {value!r}")
    measured = _Measured(gt, body_models, prior, regressors, device)
    columns = measured.rows(batch_size, progress)
    if "bend" in columns:
        columns["implausible_bend"] = columns["bend"] > bend_tolerance
    if "penetration" in columns:
        assert tolerance is not None
        columns["self_penetration"] = columns["penetration"] > tolerance
    columns |= measured.feet(batch_size, floor, progress)
    ordered = {name: columns[name] for name in MEASURES if name in columns}
    return Quality(
        {n: v if v.dtype == bool else v.astype(np.float32) for n, v in ordered.items()}, measured.left_out
    )


class _Measured:
    """What one call looks at: the fits, which of them each row has, and what can be measured of them."""

    def __init__(
        self,
        gt: PseudoGT,
        body_models: str | os.PathLike[str] | None,
        prior: str,
        regressors: Mapping[str, Any] | None,
        device: Any,
    ) -> None:
        self.gt, self.body_models, self.device, self.regressors = gt, body_models, device, regressors
        self.left_out: dict[str, str] = {}
        self.fit_row, self.owner = shared_fits(gt)
        self.priors = self._priors(prior)
        self.targets: JointTargets | None = None
        targets = joint_targets(gt)
        if isinstance(targets, str):
            self.left_out |= dict.fromkeys(("reprojection", "error"), targets)
        else:
            self.targets = targets
            self.left_out |= targets.left_out

    def _priors(self, spec: str) -> dict[str | None, PosePrior]:
        """The prior of each side; none where there is none for the model."""
        model = self.gt.model
        if spec == "none":
            self.left_out["prior"] = "not asked for"
            return {}
        if model == "flame":
            if spec != "default":
                raise ValueError(f"the pose prior {spec!r} is none for flame; leave prior out")
            self.left_out["prior"] = "there is no pose prior of faces"
            return {}
        if spec == "default":
            spec = "mano-pca:12" if model == "mano" else "open"
        sides: tuple[str | None, ...] = ("right", "left") if model == "mano" else (None,)
        return {
            side: load_prior(spec, model, body_models=self.body_models, side=side or "right").to(
                self.device or "cpu"
            )
            for side in sides
        }

    # --- rows

    def rows(self, batch_size: int, progress: bool) -> dict[str, np.ndarray]:
        """Every column but the feet's."""
        count = len(self.gt)
        names = ["shape", "bend"] + ["prior", "prior_norm"] * bool(self.priors)
        if self.gt.model == "flame":
            self.left_out["penetration"] = "a head alone has no parts that could be in each other"
        else:
            names.append("penetration")
        if self.targets is not None:
            names += self.targets.columns
        columns = {name: np.full(count, np.nan) for name in names}
        by_owner = np.argsort(self.owner, kind="stable")
        ends = np.searchsorted(self.owner[by_owner], np.arange(len(self.fit_row) + 1))
        with tqdm(total=len(self.fit_row), desc="quality", unit="fit", disable=not progress) as bar:
            for first in range(0, len(self.fit_row), batch_size):
                last = min(first + batch_size, len(self.fit_row))
                rows = by_owner[ends[first] : ends[last]]
                fits = self.gt.rows(self.fit_row[first:last])
                local = self.owner[rows] - first
                for name, values in self._of_fits(fits).items():
                    columns[name][rows] = values[local]
                if self.targets is not None:
                    found = joint_columns(
                        self.targets,
                        fits,
                        self.gt.rows(rows),
                        local,
                        regressors=self.regressors,
                        body_models=self.body_models,
                        device=self.device,
                    )
                    for name, values in found.items():
                        columns[name][rows] = values
                bar.update(last - first)
        return columns

    def _of_fits(self, fits: PseudoGT) -> dict[str, np.ndarray]:
        """What depends on parameters alone."""
        params = _judged_params(fits)
        codes = [np.abs(params[name]) for name in ("betas", "expression") if name in params]
        found = {"shape": np.concatenate(codes, axis=1).max(axis=1, initial=0)}
        found["bend"] = np.full(len(fits), np.nan)
        if self.gt.model != "flame":
            found["penetration"] = np.full(len(fits), np.nan)
        if self.priors:
            found |= {name: np.full(len(fits), np.nan) for name in ("prior", "prior_norm")}
        for gender, side, rows in model_groups(fits):
            body = model_on(fits.model, self.body_models, gender, side, str(self.device or "cpu"))
            chosen = {name: values[rows] for name, values in params.items()}
            found["bend"][rows] = bend_excess(chosen, joint_limits(body)).max(axis=1)
            with torch.no_grad():
                if "penetration" in found:
                    # Where in the world and which way up is of no matter, and rounding is.
                    posed = {n: v for n, v in chosen.items() if n not in ("transl", "global_orient")}
                    given = {n: torch.tensor(v, device=body.J_regressor.device) for n, v in posed.items()}
                    found["penetration"][rows] = penetration_test(body)(**given)[0].cpu().numpy()
                if self.priors:
                    found["prior"][rows], found["prior_norm"][rows] = _prior_distance(
                        self.priors[side], chosen
                    )
        return found

    # --- feet

    def feet(self, batch_size: int, floor: float | None, progress: bool) -> dict[str, np.ndarray]:
        """`foot_float`, `foot_sink`, `foot_skate` of motion capture in the world, else nothing."""
        gt = self.gt
        data_set = gt.catalogued.data_set
        if data_set not in UP or gt.space != "world" or gt.model not in ("smpl", "smplx"):
            self.left_out["foot_float"] = "only motion capture in world space has a floor"
            return {}
        fits, up = gt.rows(self.fit_row), UP[data_set]
        keys = fits.view.column("key")
        lowest = np.full(len(fits), np.nan)
        soles = self._soles(fits)
        starts = range(0, len(fits), batch_size)
        for first in tqdm(starts, desc="feet", unit="batch", disable=not progress):
            rows = np.arange(first, min(first + batch_size, len(fits)))
            lowest[rows] = foot_heights(soles(rows), up)
        level = floor_heights(lowest, keys, data_set) if floor is None else np.full(len(fits), float(floor))
        above = lowest - level
        found = {
            "foot_float": np.maximum(above, 0),
            "foot_sink": np.maximum(-above, 0),
            "foot_skate": foot_skate(soles, keys, level, up, batch_size=batch_size),
        }
        return {name: values[self.owner] for name, values in found.items()}

    def _soles(self, fits: PseudoGT) -> Callable[[np.ndarray], np.ndarray]:
        def place(rows: np.ndarray) -> np.ndarray:
            some = fits.rows(rows)
            params = _judged_params(some)
            points = np.zeros((len(rows), 2, SOLE_POINTS, 3))
            for gender, _, chosen in model_groups(some):
                body = model_on(some.model, self.body_models, gender, None, str(self.device or "cpu"))
                given = {
                    n: torch.tensor(v[chosen], device=body.J_regressor.device) for n, v in params.items()
                }
                with torch.no_grad():
                    posed = _sole_points(body)(**given).cpu().numpy()
                points[chosen] = posed.reshape(-1, *points.shape[1:])
            return points

        return place


@functools.lru_cache(maxsize=8)
def _sole_points(body: BodyModel) -> BodyPoints:
    return body.points(sole_vertices(body).reshape(-1))


def shared_fits(gt: PseudoGT) -> tuple[np.ndarray, np.ndarray]:
    """A row of each fit, and (N,) which of those each row has: cameras of a frame share one."""
    count = len(gt)
    if "key" not in gt.view or not gt.joined or gt.space != "world":
        return np.arange(count), np.arange(count)
    keys = gt.view.column("key")
    if gt.side is not None:
        keys = np.column_stack([keys, gt.side == "left"])
    first = KeyIndex(keys).first(keys)
    fit_row, owner = np.unique(first, return_inverse=True)
    return fit_row, owner.reshape(-1)


def _judged_params(fits: PseudoGT) -> dict[str, np.ndarray]:
    params = {name: fits.params[name] for name in fits.params}
    return zero_invalid(params, {part: fits.valid[part] for part in fits.valid})


def _prior_distance(prior: PosePrior, params: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) radians, the mean angle between a pose's rotations and those it decodes to; (N,) its latents."""
    pose = params["hand_pose"] if "hand_pose" in params else params["body_pose"][:, :_BODY_JOINTS]
    where = next(iter(prior.buffers())).device
    given = torch.tensor(pose, device=where)
    latents = prior.encode(given)
    away = _angles(given, prior.decode_axis_angle(latents))
    return away.mean(1).cpu().numpy(), latents.square().mean(1).sqrt().cpu().numpy()


def _angles(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(N, J) radians between rotations (N, J, 3), axis-angle."""
    between = axis_angle_to_matrix(one.double()).mT @ axis_angle_to_matrix(other.double())
    # Of the chord: arccos is blind near 0.
    chord = (between - torch.eye(3, dtype=between.dtype, device=between.device)).flatten(-2).norm(dim=-1)
    return 2 * torch.asin((chord / 8**0.5).clamp(max=1))
