"""Batches that come from a worker: the same as made in the process, in one piece of memory."""

from __future__ import annotations

import copy
import pickle
import resource

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import write_release
from torch.utils.data import DataLoader, Dataset

from neuralannot import PseudoGTDataset, batches, load_pseudo_gt
from neuralannot.batches import collate

DTYPES = [torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.bfloat16]


def same(found, wanted) -> None:
    """Equal values, dtypes and shapes, throughout."""
    assert type(found) is type(wanted)
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for name in wanted:
            same(found[name], wanted[name])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
    elif isinstance(wanted, torch.Tensor):
        assert found.dtype == wanted.dtype
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    else:
        assert found == wanted


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=6),
    kinds=st.lists(st.sampled_from(DTYPES), min_size=6, max_size=6),
)
def test_what_is_unpacked_is_what_was_packed(shapes, kinds):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        str(number): (torch.rand(shape, generator=generator) * 9 - 4).to(kind)
        for number, (shape, kind) in enumerate(zip(shapes, kinds, strict=False))
    }
    batch = {"inner": tensors, "text": ["a", "b"], "turned": torch.arange(6.0).reshape(2, 3).T}
    found = pickle.loads(pickle.dumps(batches._Parcel(batch)))
    same(found, batch)
    for tensor in found["inner"].values():
        tensor.zero_()  # writable, and each its own: the others keep what they had
    same(found["turned"], batch["turned"])


def test_large_tensors_and_those_with_gradients_stay_as_they_are():
    large = torch.zeros(batches._SMALL_BYTES + 1, dtype=torch.uint8)
    tracked = torch.ones(3, requires_grad=True)
    load = batches._Load()
    tree = load.packed({"large": large, "tracked": tracked, "small": torch.ones(3)}, batches._SMALL_BYTES)
    assert tree["large"] is large
    assert tree["tracked"] is tracked
    assert load.pieces[0].tobytes() == np.ones(3, np.float32).tobytes()


def test_what_is_kept_of_a_batch_keeps_no_batch():
    batch = {"id": torch.arange(4), "rest": torch.zeros(200_000)}
    found = pickle.loads(pickle.dumps(batches._Parcel(batch)))
    assert found["id"].untyped_storage().nbytes() == 32


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([1, 1.25], torch.tensor([1, 1.25])),
        ([False, 3], torch.tensor([0, 3])),
        ([np.float32(2), 1], torch.tensor([2.0, 1])),
        ([True, np.bool_(False)], torch.tensor([True, False])),
        ([(1, 2), (3, 4)], torch.tensor([[1, 2], [3, 4]])),
        ([(1, 2), (3,)], [(1, 2), (3,)]),
        ([None, 1], [None, 1]),
        (["a", 1], ["a", 1]),
        ([[1.0], [2.0]], [[1.0], [2.0]]),
    ],
)
def test_no_value_is_cut_to_the_first_one_s_type(values, wanted):
    same(collate([{"x": value} for value in values])["x"], wanted)
    assert isinstance(collate([{"x": np.zeros(2)}, {"x": [0.0, 0.0]}])["x"], list)


def test_samples_are_dicts():
    with pytest.raises(TypeError, match="samples must be dicts, got NoneType"):
        collate([{"x": 1}, None])


def test_copies_of_a_data_set_share_their_epoch_with_their_workers(tmp_path):
    gt = load_pseudo_gt(write_release(tmp_path, "mscoco-smpl").path)
    dataset = PseudoGTDataset(gt, transform=lambda sample, rng: rng.integers(1 << 30))
    for one in (dataset, copy.deepcopy(dataset)):
        assert one._epoch.is_shared()
    plain = PseudoGTDataset(gt)
    assert pickle.loads(pickle.dumps(plain))._epoch.is_shared()


class Pictures(Dataset):
    """Of different sizes, as photographs are."""

    def __len__(self):
        return 300

    def __getitem__(self, row):
        return {"image": np.full((40 + row % 7, 200, 3), row % 251, np.uint8)}


def test_lists_of_tensors_take_no_file_descriptor_each():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        loader = DataLoader(
            Pictures(), batch_size=50, collate_fn=collate, num_workers=2, prefetch_factor=3, timeout=60
        )
        kept = [image for batch in loader for image in batch["image"]]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [int(image[0, 0, 0]) for image in kept] == [k % 251 for k in range(300)]


class Samples(Dataset):
    def __len__(self):
        return 11

    def __getitem__(self, row):
        return {
            "index": row,
            "params": {"betas": np.full(10, row, np.float32), "odd": np.zeros(row % 3, np.float32)},
            "image": np.full((600, 700, 3), row, np.uint8),
            "flag": row % 2 == 0,
            "path": str(row),
            "nothing": np.zeros((0, 3), np.float32),
        }


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_hand_out_the_batches_of_the_process(context):
    alone = list(DataLoader(Samples(), batch_size=4, collate_fn=collate))
    loader = DataLoader(
        Samples(),
        batch_size=4,
        collate_fn=collate,
        num_workers=2,
        timeout=60,
        multiprocessing_context=context,
    )
    for found, wanted in zip(loader, alone, strict=True):
        same(found, wanted)
        assert type(found) is dict
        assert type(found["params"]) is dict
        assert found["image"].is_shared()  # 5 MB: by shared memory, as torch sends tensors
        assert not found["params"]["betas"].is_shared()
        found["params"]["betas"] += 1
