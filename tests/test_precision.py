"""Products keep their bits whatever is set around, and what was set is set again."""

from __future__ import annotations

import pytest
import torch

from neuralannot.body_models import load_body_model
from neuralannot.body_models.precision import full_precision
from neuralannot.body_models.surface import Surface

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
_NEWER = hasattr(torch.backends.cuda.matmul, "fp32_precision")


@pytest.fixture
def loose():
    """A training loop's setting, taken back afterwards."""
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


def settings() -> list:
    kinds = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    return [kind.fp32_precision for kind in kinds] if _NEWER else [torch.backends.cuda.matmul.allow_tf32]


def test_what_was_set_is_exact_inside_and_comes_back(loose):
    before = settings()
    with full_precision("cuda"):
        assert settings()[0] in ("ieee", False)
    assert settings() == before
    assert torch.get_float32_matmul_precision() == "medium"
    with pytest.raises(KeyError), full_precision("cuda"):
        raise KeyError
    assert settings() == before


@pytest.mark.skipif(not _NEWER, reason="the CPU has no such setting of its own in this torch")
def test_a_model_sets_it_for_its_products(loose, monkeypatch):
    seen = []
    plain = Surface.forward

    def spy(self, *inputs):
        seen.append(torch.backends.mkldnn.matmul.fp32_precision)
        return plain(self, *inputs)

    monkeypatch.setattr(Surface, "forward", spy)
    model, pose = load_body_model("mano", side="right"), torch.zeros(1, 15, 3)
    model(hand_pose=pose)
    model.points([3])(hand_pose=pose)
    assert seen == ["ieee", "ieee"]
    assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"


def test_nothing_is_touched_where_nothing_is_loose():
    before = settings()
    with full_precision("cpu"):
        assert settings() == before
        assert not torch.is_autocast_enabled("cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16), full_precision("cpu"):
        assert not torch.is_autocast_enabled("cpu")


def test_kinds_without_a_setting(loose):
    before = settings()
    with full_precision("meta"):
        assert settings() == before  # those of other kinds are left alone
    assert settings() == before
