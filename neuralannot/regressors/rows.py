"""`RegressorRows`: what the data sets of all regressors share: rows of annotations, seeds, bodies."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from neuralannot.bodies import model_on
from neuralannot.body_models.model import BodyOutput
from neuralannot.dataset import PseudoGTDataset
from neuralannot.precomputed import Precomputed, precomputed_table
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.regressors.augmentation import SampleSeeds
from neuralannot.row_reader import Entry, RowReader, lay_out

__all__ = ["RegressorRows", "require_picture_size"]


class RegressorRows(Dataset[Any]):
    """Rows of a `PseudoGT` with columns beside them, for a data set class to make samples of.

    `gt`: the rows, in order; `fields`, `images`, `regressor`, `joints`, `body_models`, `only_valid`, `cache`:
    of `PseudoGTDataset`. `beside`: name -> (N, ...) column that samples carry too. `seed`: see `SampleSeeds`.
    What workers get is paths of files; `gt` stays behind.
    """

    def __init__(
        self,
        gt: PseudoGT,
        *,
        fields: Iterable[str],
        beside: Mapping[str, np.ndarray],
        images: str | os.PathLike[str] | None = None,
        regressor: Any = None,
        joints: bool = False,
        body_models: str | os.PathLike[str] | None = None,
        only_valid: bool = False,
        seed: int | None = None,
        cache: bool = True,
    ) -> None:
        self._gt: PseudoGT | None = gt
        self._model, self._body_models = gt.model, None if body_models is None else os.fspath(body_models)
        self._rows = PseudoGTDataset(
            gt,
            images=images,
            fields=tuple(fields),
            joints=joints,
            regressor=regressor,
            body_models=body_models,
            only_valid=only_valid,
            cache=cache,
        )
        self._beside = None
        if beside:
            view = gt.view.overlaid({f"beside/{name}": values for name, values in beside.items()})
            named = PseudoGT(view, gt.release, space=gt.space, companions=gt.companions)
            layout = lay_out(view, [Entry(name, f"beside/{name}") for name in beside])
            kept = precomputed_table(named, layout.memory, Precomputed(()), cache=cache)
            self._beside = RowReader(layout, kept)
        self._seeds = SampleSeeds(seed)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_gt": None}

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def gt(self) -> PseudoGT:
        """The rows that the samples are of, in their order: `dataset.gt.ids[index]` is a sample's annotation.

        Raises ValueError in a worker, which does not get them.
        """
        if self._gt is None:
            raise ValueError("the rows stay in the process that made the data set; ask there, by index")
        return self._gt

    def set_epoch(self, epoch: int) -> None:
        """With `seed=`, say which epoch random numbers are drawn for; workers that are running hear of it."""
        self._seeds.set_epoch(epoch)

    def _sample(self, index: int) -> dict[str, Any]:
        sample: dict[str, Any] = self._rows[index]  # raises for what is no row
        if self._beside is not None:
            sample |= self._beside(sample["index"])
        return sample

    def _generator(self, index: int) -> np.random.Generator:
        row = operator.index(index)
        return self._seeds.generator(row + len(self) if row < 0 else row)

    def _posed(self, params: Mapping[str, np.ndarray], gender: str, side: str | None = None) -> BodyOutput:
        """One body in camera space, (1, V, 3) and (1, J, 3)."""
        model = model_on(self._model, self._body_models, gender, side)
        with torch.no_grad():
            return model(**{name: torch.from_numpy(value)[None] for name, value in params.items()})


def require_picture_size(sample: Mapping[str, Any]) -> None:
    """Raise ValueError where a sample's image is not of the size that was annotated."""
    width, height = sample["image_size"].tolist()
    found = sample["image"].shape[1::-1]
    if width > 0 and tuple(found) != (width, height):
        raise ValueError(
            f"row {sample['index']}: {sample['image_path']} is {found[0]}x{found[1]} px, annotated was "
            f"{width}x{height}; its boxes, joints and camera belong to that size: give the original images"
        )
