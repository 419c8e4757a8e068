"""A few steps of training and annotating on a GPU; skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_runs import a_run

from neuralannot import load_pseudo_gt
from neuralannot.train.annotate import annotate
from neuralannot.train.fit import fit

pytestmark = [
    pytest.mark.filterwarnings("ignore:no official body models"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("layout", "name", "changes"),
    [
        ("human36m", None, {"joint_dropout": 0.2}),
        ("interhand26m", None, {}),
        ("mscoco", "tiny-mscoco-smpl", {}),
        ("mscoco", "tiny-mscoco-smpl", {"inputs": "image+joints", "outputs": "rotation6d"}),
        ("mscoco", "tiny-mscoco-flame", {}),
    ],
)
def test_a_gpu_trains_goes_on_and_annotates(layout, name, changes, precision, tmp_path):
    config = a_run(layout, name, device="cuda", precision=precision, workers=2, **changes)
    assert fit(config, tmp_path / "run").steps == 4
    longer = a_run(layout, name, device="cuda", precision=precision, workers=2, max_steps=6, **changes)
    result = fit(longer, tmp_path / "run")
    assert result.steps == 6
    assert all(np.isfinite(value) for value in result.losses.values())
    made = annotate(result.checkpoint, tmp_path / "fits")
    assert made.count > 0
    assert np.isfinite(made.error)
    gt = load_pseudo_gt([str(path) for path in made.files], annotations=False)
    assert len(gt) == made.count
