"""What crops are trained towards, as tensors: joints in the crop and in space, a first stage's parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from neuralannot.train.crops import Crops
from neuralannot.train.samples import Samples


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets of N crops of one or more data sets, each data set's joints in columns of their own.

    `joints_2d` (N, K, 2) px of 256 px crops with `valid_2d` (N, K) bool; `joints_cam` (N, K, 3) metres in the
    camera's frame, mirrored where the crop is, with `valid_cam` (N, K) bool. What is not valid is zero.
    `parameters`: a first stage's, name -> (N, ...), mirrored likewise, where `valid_parameters` (N,) says so;
    empty without a first stage.
    """

    joints_2d: Tensor
    valid_2d: Tensor
    joints_cam: Tensor
    valid_cam: Tensor
    parameters: Mapping[str, Tensor]
    valid_parameters: Tensor

    def __len__(self) -> int:
        return len(self.joints_2d)

    @property
    def num_joints(self) -> int:
        return self.joints_2d.shape[1]

    def rows(self, index: Tensor) -> Targets:
        """The targets at these row numbers, (B,) int64."""
        return self._each(lambda value: value.index_select(0, index))

    def to(self, device: torch.device | str) -> Targets:
        """The same on another device."""
        return self._each(lambda value: value.to(device, non_blocking=True))

    def _each(self, change) -> Targets:  # type: ignore[no-untyped-def]
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed = {n: change(v) for n, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **changed, parameters={n: change(v) for n, v in self.parameters.items()})


def targets_of(
    samples: Sequence[Samples],
    crops: Sequence[Crops],
    *,
    weak_2d: bool,
    first_stage: Sequence[Mapping[str, np.ndarray] | None] | None = None,
) -> Targets:
    """The targets of several data sets' crops, one after another.

    `weak_2d`: whether MoCap samples have 2D targets too; in the wild they have no others. `first_stage`: of
    each data set the parameters (camera space, smplx's names) of its rows, a row of NaN where there is none.
    """
    total = sum(len(s.joint_set) for s in samples)
    count = sum(map(len, samples))
    joints_2d, joints_cam = np.zeros((count, total, 2), np.float32), np.zeros((count, total, 3), np.float32)
    valid_2d, valid_cam = np.zeros((count, total), bool), np.zeros((count, total), bool)
    row = column = 0
    for some, cut in zip(samples, crops, strict=True):
        rows, columns = slice(row, row + len(some)), slice(column, column + len(some.joint_set))
        if weak_2d or not some.is_mocap:
            pixels = cut.to_crop(some.joints_2d)
            valid_2d[rows, columns] = np.isfinite(pixels).all(-1)
            joints_2d[rows, columns] = np.nan_to_num(pixels)
        if some.joints_cam is not None:
            points = cut.mirror_cam(some.joints_cam)
            valid_cam[rows, columns] = np.isfinite(points).all(-1)
            joints_cam[rows, columns] = np.nan_to_num(points)
        row, column = rows.stop, columns.stop
    parameters, valid = _first_stage(samples, first_stage)
    return Targets(
        torch.from_numpy(joints_2d),
        torch.from_numpy(valid_2d),
        torch.from_numpy(joints_cam),
        torch.from_numpy(valid_cam),
        parameters,
        valid,
    )


def _first_stage(
    samples: Sequence[Samples], given: Sequence[Mapping[str, np.ndarray] | None] | None
) -> tuple[dict[str, Tensor], Tensor]:
    """Parameters of all rows, those of data sets without a first stage zero and not valid."""
    count = sum(map(len, samples))
    known = [p for p in given or () if p is not None]
    if not known:
        return {}, torch.zeros(count, dtype=torch.bool)
    values = {n: np.full((count, *v.shape[1:]), np.nan, np.float32) for n, v in known[0].items()}
    row = 0
    for some, params in zip(samples, given or (), strict=True):
        for name, value in (params or {}).items():
            values[name][row : row + len(some)] = value
        row += len(some)
    valid = np.ones(count, bool)
    for value in values.values():
        valid &= np.isfinite(value).reshape(count, -1).all(1)
    return {n: torch.from_numpy(np.nan_to_num(v)) for n, v in values.items()}, torch.from_numpy(valid)
