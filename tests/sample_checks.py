"""What the samples of a `PseudoGTDataset` must be, from `PseudoGT` a row at a time; releases grown long."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from neuralannot.columns import Part, RowView, TableStack
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.store import SUFFIX, Table, open_table, write_table


def derived(folder: Path) -> list[str]:
    """The files that data sets keep in a folder."""
    return sorted(name for name in os.listdir(folder) if ".dataset-" in name)


def same(one, other) -> bool:
    """The same keys in every dict, the same types, the same values bit by bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (np.ndarray, torch.Tensor)):
        return type(one) is type(other) and one.dtype == other.dtype and bytes_of(one) == bytes_of(other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def bytes_of(values) -> tuple:
    return tuple(values.shape), np.asarray(values).tobytes()


def grown(gt: PseudoGT, times: int, folder: Path) -> PseudoGT:
    """The same rows over and over, in tables and joins that are so much longer, mapped as loaded ones are."""
    folder.mkdir()

    def mapped(name: str, columns: dict[str, np.ndarray]) -> Table:
        write_table(folder / f"{name}{SUFFIX}", columns, {"source": f"{folder} {name}"})
        return open_table(folder / f"{name}{SUFFIX}")

    parts = []
    for number, part in enumerate(gt.view.parts):
        stack, rows, reference = part.stack, None, None
        longer = stack.tables[0].path is not None  # cameras, in memory, are as many as before
        if part.rows is not None:
            rows = np.concatenate([part.rows + longer * len(stack) * k for k in range(times)])
            reference = (mapped(f"rows{number}", {"rows": rows}), "rows")
            rows = reference[0]["rows"]
        if longer:
            columns = {n: np.concatenate([stack.gather(n)] * times) for n in stack.names() if n[:4] != "all/"}
            stack = TableStack((mapped(f"table{number}", columns),), stack.key)
        parts.append(Part(stack, rows, reference))
    view = RowView(len(gt) * times, tuple(parts))
    return PseudoGT(view, gt.release, space=gt.space, companions=gt.companions)


def expected(gt: PseudoGT, row: int) -> dict:
    """The slow twin: a `PseudoGT` of one row, asked for everything; parameters as all rows' are moved."""
    one, moved = gt.rows([row]), gt.to_camera_space()
    sample = {"index": row}
    if one.joined or one.catalogued.key_names == ("id",):
        sample["id"] = int(one.ids[0])
    else:
        sample["key"] = one.keys[0]
    if one.side is not None:
        sample["side"] = str(one.side[0])
    sample["gender"] = str(one.gender[0])
    if one.joined:
        sample["image_path"] = str(one.image_path[0])
        sample["image_size"] = one.image_size[0]
        sample["box_xywh"] = one.box_xywh[0]
    sample["params"] = {name: moved.params[name][row] for name in moved.params}
    sample["valid"] = {part: bool(one.valid[part][0]) for part in one.valid}
    camera = one.camera
    if camera is not None:
        sample |= {"focal": camera.focal[0], "princpt": camera.princpt[0]}
    return sample
