"""The body models on a GPU against themselves on the CPU; skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from layer_twins import DOUBLE, MODELS, random_bodies

from neuralannot.body_models import load_body_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:no official body models"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]


@pytest.mark.parametrize(("name", "side"), MODELS)
@pytest.mark.parametrize("tf32", [False, True])
def test_a_gpu_gives_the_cpu_s_bodies(name, side, tf32):
    model, bodies = load_body_model(name, side=side), random_bodies(name, 300)
    expected = model(**bodies)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        on_gpu = model.to("cuda")
        with torch.autocast("cuda", torch.bfloat16):
            found = on_gpu(**{key: value.cuda() for key, value in bodies.items()})
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    torch.testing.assert_close(found.vertices.cpu(), expected.vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.joints.cpu(), expected.joints, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "side"), MODELS)
def test_a_gpu_gives_the_cpu_s_gradients(name, side):
    found = []
    for device in ("cpu", "cuda"):
        model = load_body_model(name, side=side, dtype=DOUBLE).to(device)
        bodies = random_bodies(name, 5, 1, DOUBLE)
        leaves = {key: value.to(device).requires_grad_() for key, value in bodies.items()}
        out = model(**leaves)
        loss = out.vertices.square().sum() + out.joints.sin().sum()
        found.append([value.cpu() for value in torch.autograd.grad(loss, list(leaves.values()))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
