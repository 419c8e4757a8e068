"""`PseudoGTDataset`: the rows of a `PseudoGT` as samples for training."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from neuralannot import row_reader
from neuralannot.columns import bytes_to_texts
from neuralannot.images import read_image
from neuralannot.parameters import PART_PARAMETERS
from neuralannot.precomputed import Precomputed, joint_files, precomputed_table
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.row_reader import Entry, RowReader, lay_out

__all__ = ["FIELDS", "PseudoGTDataset"]

# What a sample may carry. The last two are computed and read from images: they come only when asked for.
_STORED = ("id", "side", "gender", "image_path", "image_size", "box_xywh", "params", "valid", "camera")
FIELDS = (*_STORED, "joints", "image")

Sample = dict[str, Any]


class PseudoGTDataset(Dataset[Any]):
    """The rows of a `PseudoGT` as samples for `torch.utils.data.DataLoader(..., collate_fn=collate)`.

    `gt`: whole, sliced or `gt.rows(...)`, joined with annotations or not. `fields`: what samples carry, of
    `neuralannot.dataset.FIELDS`; for None all that `gt` has but joints and image. `joints`: its model's
    joints too; `regressor`, as in `PseudoGT.forward`: that regressor's instead. `images`: the data set's
    image folder; the pictures then too. `body_models`: as in `PseudoGT.forward`, for joints and for world
    releases. `only_valid`: parts flagged invalid are zero in the parameters, and so in the joints. `cache`:
    what is computed, and which rows were selected, is kept in a file beside the fits' columns, found again by
    later runs and shared by all workers; without, each worker has its own. `transform(sample, rng)` returns
    what is handed out in the sample's place; `rng`, a `numpy.random.Generator`, follows from `seed`, the
    epoch and the row, whichever worker asks.

    A sample is a dict. Its arrays are its own and may be written to.

    - `index`: its row; `id`: the annotation's (`key`, a tuple, for frames that are not joined with
      annotations); `side`, of hands; `gender`
    - `image_path`: relative to the image folder, `""` where unknown; `image_size`: (2,) int64 width, height
      px, 0 where unknown; `box_xywh`: (4,) float32 px as annotated, NaN where there is none
    - `params`: smplx's names -> float32, in *camera space* for every release; `valid`: part -> bool
    - `focal`, `princpt`, with `camera` among the fields: (2,) float32 px of the original image
    - `joints`: (J, 3) float32 metres in camera space, named by `joint_names` of the data set
    - `image`: (H, W, 3) uint8 RGB

    Raises ValueError for an unknown field and for one that `gt` does not have, naming the companion file to
    give; FileNotFoundError for a folder of images, a body model or a file of joints that is not there.
    """

    def __init__(
        self,
        gt: PseudoGT,
        *,
        images: str | os.PathLike[str] | None = None,
        fields: Iterable[str] | None = None,
        joints: bool = False,
        regressor: Any = None,
        body_models: str | os.PathLike[str] | None = None,
        only_valid: bool = False,
        cache: bool = True,
        transform: Callable[[Sample, np.random.Generator], Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.release, self.model = gt.release, gt.model
        self._images = None if images is None else Path(images)
        if self._images is not None and not self._images.is_dir():
            raise FileNotFoundError(f"{images}: no such folder of images")
        entries = _entries(gt, fields, joints=joints or regressor is not None, image=images is not None)
        self.fields = tuple(entries)
        # What is read to make something else of it, and not handed out.
        self._zeroes_invalid = only_valid and "params" in entries
        needed = {"image_path": images is not None, "valid": self._zeroes_invalid}
        self._hidden = tuple(field for field in needed if needed[field] and field not in entries)
        read = [entry for part in entries.values() for entry in part]
        read += [entry for field in self._hidden for entry in _entries_of(gt, field)]
        layout = lay_out(gt.view, read)
        wanted = Precomputed(
            tuple(sorted(entry.column for entry in read if entry.kept)), body_models, regressor, only_valid
        )
        kept = precomputed_table(gt, layout.memory, wanted, cache=cache)
        self._reader, self._length = RowReader(layout, kept), len(gt)
        self.joint_names: tuple[str, ...] = ()  # of the J joints of a sample; none where it carries none
        if kept is not None and "joint_names" in kept:
            self.joint_names = tuple(bytes_to_texts(kept["joint_names"]).tolist())
        self._transform, self._seed = transform, _natural("seed", seed)
        # In shared memory: workers that stay from epoch to epoch see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._epoch.share_memory_()  # a copy's own workers hear of its epochs too

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"<PseudoGTDataset {self.release}: {len(self)} samples of {', '.join(self.fields)}>"

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch transforms draw their random numbers for; workers that are running hear of it too.

        To be called between epochs, not while batches are being loaded.
        """
        self._epoch.fill_(_natural("epoch", epoch))

    def __getitem__(self, index: int) -> Any:
        """The sample of a row, negative ones from the end; see the class.

        Raises IndexError for a row that is not there, TypeError for what is no row number, FileNotFoundError
        for an image that is not there.
        """
        row = self._row(index)
        sample = self._reader(row)
        sample["index"] = row
        if self._zeroes_invalid:
            _zero_invalid(sample)
        if self._images is not None:
            sample["image"] = _image(self._images, sample["image_path"], row)
        for field in self._hidden:
            del sample[field]
        if self._transform is None:
            return sample
        return self._transform(sample, np.random.default_rng((self._seed, int(self._epoch), row)))

    def _row(self, index: int) -> int:
        try:
            row = operator.index(index)
        except TypeError:
            raise TypeError(
                f"dataset[...] takes one row number, got {index!r:.60}; select rows with "
                "PseudoGTDataset(gt.rows(...)) or torch.utils.data.Subset"
            ) from None
        if not -self._length <= row < self._length:
            raise IndexError(f"row {row}: there are {self._length} rows")
        return row + self._length if row < 0 else row


def _natural(name: str, value: int) -> int:
    number = operator.index(value)
    if number < 0:
        raise ValueError(f"{name} must not be negative, got {number}")
    return number


def _zero_invalid(sample: Sample) -> None:
    """As `neuralannot.bodies.zero_invalid`, of one row and in place."""
    for part, names in PART_PARAMETERS.items():
        if not sample["valid"].get(part, True):
            for name in names:
                if name in sample["params"]:
                    sample["params"][name][...] = 0


def _image(folder: Path, path: str, row: int) -> np.ndarray:
    if not path:
        raise FileNotFoundError(
            f"row {row}: its annotation is not in the annotation file, so its image is not known; leave such "
            "rows out with gt.rows(gt.image_path != '')"
        )
    return read_image(folder / path)


# --- what a sample carries


def _entries(
    gt: PseudoGT, fields: Iterable[str] | None, *, joints: bool, image: bool
) -> dict[str, list[Entry]]:
    """What samples carry, in the order of `FIELDS`, and where `gt` has it."""
    if isinstance(fields, str):
        raise TypeError(f"fields are several names, got {fields!r}; pass ({fields!r},)")
    asked = set(_STORED if fields is None else fields)
    unknown = sorted(map(str, asked - set(FIELDS)))
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; expected some of {', '.join(FIELDS)}")
    if "image" in asked and not image:
        raise ValueError("samples carry no image without a folder to read it from: pass images=")
    asked |= {field for field, wanted in (("joints", joints), ("image", image)) if wanted}
    entries = {}
    for field in FIELDS:
        if field in asked:
            try:
                entries[field] = _entries_of(gt, field)
            except (ValueError, FileNotFoundError):
                # All that there is was asked for; parameters, which must be moved, cannot be left out.
                if fields is not None or field not in _STORED or field == "params":
                    raise
    return entries


def _entries_of(gt: PseudoGT, field: str) -> list[Entry]:
    """What a field is read from. Where `gt` does not have it, raises what `PseudoGT` does."""
    none = gt[:0]  # asked for no rows it reads none, and raises all the same
    if field == "id":
        column = "id" if "id" in gt.view else "ann/id"
        if column in gt.view:
            return [Entry("id", column, row_reader.scalar)]
        return [Entry("key", "key", row_reader.numbers)]
    if field == "side":
        if "side" not in gt.view:
            raise ValueError(f"{gt.release}: {gt.model} is no hand, its fits have no side")
        return [Entry("side", "side", row_reader.side)]
    if field == "gender":
        return [Entry("gender", "gender", row_reader.gender)]
    if field == "image_path":
        _ = none.image_path
        return [Entry("image_path", "ann/image_path", row_reader.text)]
    if field == "image_size":
        _ = none.image_size
        return [Entry("image_size", "ann/image_size")]
    if field == "box_xywh":
        return [_box_entry(gt)]
    if field == "valid":
        return [Entry(part, f"valid/{part}", row_reader.scalar, "valid") for part in gt.valid]
    if field == "camera":
        none.require_camera()
        prefix = next(p for p in ("", "cam/", "ann/") if f"{p}focal" in gt.view)
        return [Entry(name, f"{prefix}{name}") for name in ("focal", "princpt")]
    if field == "image":
        _ = none.image_path
        return []
    moved: tuple[str, ...] = ()
    if gt.space == "world":
        none.require_camera()
        moved = ("global_orient", "transl")
    if field == "joints":
        return [Entry("joints", "joints", kept=True)]
    return [Entry(name, f"param/{name}", group="params", kept=name in moved) for name in gt.params]


def _box_entry(gt: PseudoGT) -> Entry:
    if gt.catalogued.data_set == "InterHand2.6M" and gt.joined and joint_files(gt):
        gt[:0].require_camera()
        return Entry("box_xywh", "box_xywh", kept=True)  # around GT joints, whose file is not read before
    _ = gt[:0].box_xywh
    if gt.model == "mano":
        return Entry("box_xywh", "box_xywh", kept=True)  # the right or the left hand's
    face = gt.catalogued.data_set == "MSCOCO" and gt.model == "flame"
    return Entry("box_xywh", "ann/box_face" if face else "ann/box")
