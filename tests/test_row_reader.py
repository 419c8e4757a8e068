"""Reading row by row: what a view says, nothing copied, nothing more than asked, next to nothing sent."""

from __future__ import annotations

import json
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import write_release
from sample_checks import derived, expected, grown, same

from neuralannot import (
    PseudoGTDataset,
    load_pseudo_gt,
)
from neuralannot.columns import Part, RowView, TableStack, bytes_to_texts, texts_to_bytes
from neuralannot.dataset import FIELDS
from neuralannot.parameters import human_model
from neuralannot.row_reader import Entry, RowReader, copied, lay_out, scalar, text
from neuralannot.store import Table, open_table, write_table

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")
STORED = FIELDS[:-2]


@pytest.fixture(scope="module")
def load(released):
    return lambda name, **options: load_pseudo_gt(released(name).path, **options)


def test_reads_nothing_that_it_does_not_return(tmp_path, monkeypatch):
    names = {}
    for name in ("mscoco-smplx", "human36m-smpl", "interhand26m-mano", "mscoco-mano"):
        names[name] = load_pseudo_gt(write_release(tmp_path / name, name).path)
    read = set()
    real = Table.__getitem__

    def spy(table, column):
        read.add(column)
        return real(table, column)

    monkeypatch.setattr(Table, "__getitem__", spy)
    keys = {"param/betas", "ann/id", "cam/key"}  # by which tables know how long they are
    rows = {"rows", "ann_row", "fit_row", "camera_row"}
    wanted = {
        ("image_path",): {"ann/image_path"},
        ("valid",): {f"valid/{part}" for part in human_model("smplx").parts},
        ("image_size", "gender"): {"ann/image_size", "gender"},
        (): set(),
    }
    for name, gt in names.items():
        for fields, columns in wanted.items():
            if "valid" in fields and name != "mscoco-smplx":
                continue
            for some in (gt, gt[1:4]):
                read.clear()
                dataset = PseudoGTDataset(some, fields=fields, body_models=tmp_path / "nothing")
                _ = dataset[1]
                in_memory = {c for c in read if c[:5] == "table" or c[:4] == "cam/"}
                assert columns <= read <= columns | keys | rows | in_memory
    read.clear()
    dataset = PseudoGTDataset(names["human36m-smpl"], fields=("id", "params"), cache=False)
    read.clear()
    _ = dataset[1]
    assert not read  # arrays are found once


def test_companions_that_are_not_asked_for_may_be_missing(tmp_path):
    written = write_release(tmp_path, "interhand26m-mano")
    written.joints.unlink()
    gt = load_pseudo_gt(written.path)
    assert set(PseudoGTDataset(gt, fields=("image_path", "id"))[0]) == {"index", "id", "image_path"}
    assert PseudoGTDataset(gt).fields == tuple(f for f in STORED if f != "box_xywh")
    with pytest.raises(FileNotFoundError, match=r"InterHand2.6M_test_joint_3d.json: not in"):
        PseudoGTDataset(gt, fields=("box_xywh",))
    written.cameras.unlink()
    gt = load_pseudo_gt(written.path)
    assert PseudoGTDataset(gt, fields=("image_path", "valid")).fields == ("image_path", "valid")
    for options in ({}, {"fields": ["params"]}, {"fields": ["camera"]}, {"fields": [], "joints": True}):
        with pytest.raises(ValueError, match=r"no camera file; put InterHand2.6M_test_camera.json beside"):
            PseudoGTDataset(gt, **options)


def test_nothing_is_copied_or_made_for_each_row(tmp_path, load):
    """A release of 60,000 rows, 30 MB: what its data set takes would fit in a picture's corner."""
    gt = grown(load("mscoco-smpl"), 10_000, tmp_path / "grown")
    PseudoGTDataset(gt[:0])  # what is imported and kept on first use does not count
    tracemalloc.start()
    dataset = PseudoGTDataset(gt)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
    arrays = [array for *_, columns, _ in dataset._reader._readers for array in columns[:-1]]
    mapped = [table[name] for table in (p.stack.tables[0] for p in gt.view.parts) for name in table]
    for array in arrays:
        assert any(np.shares_memory(array, column) for column in mapped)


@pytest.mark.parametrize("name", ["mscoco-smplx", "human36m-smpl", "mscoco-mano"])
def test_what_is_sent_to_a_worker_does_not_grow(name, tmp_path, load):
    sizes = []
    for times in (200, 2000):
        gt = grown(load(name), times, tmp_path / str(times))
        shuffled = np.random.default_rng(0).permutation(len(gt))
        ways = (gt, gt.rows(shuffled), gt.rows(shuffled).to_camera_space())
        datasets = [PseudoGTDataset(rows) for rows in ways]
        if times == 200:
            datasets.append(PseudoGTDataset(gt.rows(shuffled), joints=True))
        for dataset in datasets:
            sent = pickle.dumps(dataset)
            assert len(sent) < 10_000
            assert same(pickle.loads(sent)[len(gt) // 2], dataset[len(gt) // 2])
        sizes.append([len(pickle.dumps(dataset)) for dataset in datasets[:3]])
    np.testing.assert_allclose(*sizes, atol=64)  # longer numbers, longer names of folders


def test_annotations_in_memory_are_shared_too(tmp_path):
    written = write_release(tmp_path, "mscoco-smpl")
    noted = json.loads(written.annotations.read_text())
    gt = load_pseudo_gt(written.path, annotations=noted)
    dataset = PseudoGTDataset(gt)
    for row in range(len(gt)):
        assert same(dataset[row], expected(gt, row))
    kept = open_table(tmp_path / derived(tmp_path)[0])
    assert any(name.endswith("ann/image_path") for name in kept)
    assert not any(name.endswith("ann/keypoints") for name in kept)  # nobody asked for them
    # Others under the same names are others.
    noted["images"][0]["file_name"] = "another.jpg"
    other = load_pseudo_gt(written.path, annotations=noted)
    assert {PseudoGTDataset(other)[row]["image_path"] for row in range(len(gt))} == set(other.image_path)
    assert same(pickle.loads(pickle.dumps(dataset))[0], dataset[0])


@pytest.mark.parametrize("name", ["mscoco-smpl", "human36m-smpl", "interhand26m-mano"])
def test_without_columns_files(name, tmp_path):
    written = write_release(tmp_path, name)
    gt = load_pseudo_gt(written.path, cache=False)
    before = set(os.listdir(tmp_path))
    dataset = PseudoGTDataset(gt[1:], joints=True)
    joints = gt[1:].forward(want="joints").joints.numpy()
    sent = pickle.loads(pickle.dumps(dataset))
    for row in range(len(dataset)):
        assert same(dataset[row], {**expected(gt[1:], row), "joints": joints[row]})
        assert same(sent[row], dataset[row])
    assert set(os.listdir(tmp_path)) == before


def test_a_file_that_was_made_anew_is_not_taken_for_the_old(tmp_path):
    gt = load_pseudo_gt(write_release(tmp_path, "human36m-smpl").path)
    sent = pickle.dumps(PseudoGTDataset(gt))
    (place,) = (tmp_path / name for name in derived(tmp_path))
    kept = open_table(place)
    write_table(place, dict(kept.columns), {"source": "another"})
    with pytest.raises(ValueError, match="rewritten since it was opened"):
        pickle.loads(sent)


counts_lists = st.lists(st.integers(0, 4), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None)
@given(counts_lists, counts_lists, st.data())
def test_a_row_reader_is_a_view_of_one_row(fits, notes, data):
    """Any number of tables of any length, rows that are missing or selected, texts of any width."""
    rng = np.random.default_rng(sum(fits))

    def stack(counts: list[int], prefix: str) -> TableStack:
        tables = []
        for count in counts:
            texts = ["é" * int(k) for k in rng.integers(0, 5, count)]
            columns = {f"{prefix}f": rng.normal(size=(count, 2, 3)), f"{prefix}i": rng.integers(-9, 9, count)}
            tables.append(Table({**columns, f"{prefix}t": texts_to_bytes(texts)}))
        return TableStack(tuple(tables), f"{prefix}i")

    one, other = stack(fits, "a"), stack(notes, "b")
    rows = data.draw(st.lists(st.integers(-1, len(other) - 1), min_size=len(one), max_size=len(one)))
    view = RowView(len(one), (Part(one), Part(other, np.array(rows, np.int64))))
    if data.draw(st.booleans()):
        chosen = data.draw(st.lists(st.integers(0, len(one) - 1), max_size=6)) if len(one) else []
        view = view.take(np.array(chosen, np.int64))
    reads = {"f": copied, "i": scalar, "t": text}
    entries = [Entry(f"{p}{kind}", f"{p}{kind}", read) for p in "ab" for kind, read in reads.items()]
    layout = lay_out(view, entries)
    reader = RowReader(layout, Table(layout.memory))
    for row in range(len(view)):
        values = reader(row)
        for prefix in "ab":
            np.testing.assert_array_equal(values[f"{prefix}f"], view.column(f"{prefix}f")[row])
            assert values[f"{prefix}i"] == view.column(f"{prefix}i")[row]
            assert values[f"{prefix}t"] == bytes_to_texts(view.column(f"{prefix}t"))[row]
    with pytest.raises(KeyError, match="cf"):
        lay_out(view, [Entry("c", "cf")])
