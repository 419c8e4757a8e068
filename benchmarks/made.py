"""Files of the released layouts, of any size, from random numbers."""

import json
from pathlib import Path

import numpy as np


def write_coco_like(path: Path, count: int, seed: int = 0) -> None:
    """`count` annotations in the layout of MSCOCO_train_SMPL_NeuralAnnot.json, ids in no order."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(1, 9 * count, 9))

    def numbers(size: int, spread: float = 1, centre: float = 0) -> list[float]:
        return [float(v) for v in rng.normal(centre, spread, size).astype(np.float32)]

    leaves = (
        {
            "smpl_param": {"pose": numbers(72), "shape": numbers(10), "trans": numbers(3)},
            "cam_param": {
                "focal": [abs(v) + 1 for v in numbers(2, 900, 5000)],
                "princpt": numbers(2, 99, 300),
            },
        }
        for _ in ids
    )
    with path.open("w") as file:
        file.write("{")
        for place, (id_, leaf) in enumerate(zip(ids, leaves, strict=True)):
            file.write(f'{", " if place else ""}"{id_}": {json.dumps(leaf)}')
        file.write("}")
