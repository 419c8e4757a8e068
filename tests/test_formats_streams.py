"""COCO's JSON, WebDataset shards and Parquet: read by pycocotools, webdataset and datasets themselves."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from own_sample import SAMPLE

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.formats import write_coco, write_parquet, write_shards
from neuralannot.formats.shards import INDEX
from neuralannot.parameters import human_model
from neuralannot.readers import read_fits
from neuralannot.train.evaluation.overlays import picture_of

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

PHOTOGRAPH = SAMPLE / "mscoco"
MODELS = ["mscoco-smpl", "human36m-smplx", "3dpw-smplx", "mscoco-mano", "interhand26m-mano", "ffhq-flame"]


@pytest.fixture(scope="module")
def load(released):
    def get(name: str) -> PseudoGT:
        written = released(name)
        options = {} if written.cameras is None else {"cameras": written.cameras}
        return load_pseudo_gt(written.path, release=name, annotations=written.annotations, **options)

    return get


@pytest.fixture(scope="module")
def walk() -> PseudoGT:
    return load_pseudo_gt(SAMPLE / "human36m")


# --- COCO


def coco_of(path: Path, capsys):
    from pycocotools.coco import COCO

    coco = COCO(str(path))
    capsys.readouterr()
    return coco


@pytest.mark.parametrize("name", MODELS)
def test_pycocotools_reads_the_parameters(name, tmp_path, load, capsys):
    gt = load(name)
    coco = coco_of(write_coco(gt, tmp_path / "out.json"), capsys)
    moved, model = gt.to_camera_space(), human_model(gt.model)
    boxes = gt.box_xywh  # of the rows that were not moved
    assert sorted(coco.getAnnIds()) == sorted(set(gt.ids.tolist()))
    for row in range(len(gt)):
        (ann,) = coco.loadAnns([int(gt.ids[row])])
        (image,) = coco.loadImgs([ann["image_id"]])
        assert image["file_name"] == gt.image_path[row]
        assert [image["width"], image["height"]] == gt.image_size[row].tolist()
        leaf = ann[f"{gt.model}_param"]
        if gt.side is not None:
            side = str(gt.side[row])
            leaf = leaf[side]
            there = bool(np.isfinite(boxes[row]).all())
            assert ann[f"{side}hand_valid"] == there
            assert np.allclose(ann[f"{side}hand_box"], boxes[row] if there else 0)
        for field in model.fields:
            expected = np.concatenate([moved.params[p][row].reshape(-1) for p in field.parameters])
            found = np.array(leaf.get(field.name, np.zeros(len(expected))), np.float32)
            assert (found == expected).all(), field.name
        seen_by = ann["cam_param"] if gt.side is None else ann["cam_param"][str(gt.side[row])]
        assert np.allclose(seen_by["focal"], gt.camera.focal[row])
        assert np.allclose(seen_by["princpt"], gt.camera.princpt[row])
        if "bbox" in ann and gt.side is None and gt.model != "flame":
            assert np.allclose(ann["bbox"], boxes[row])
        if "keypoints" in ann:
            assert ann["num_keypoints"] == (np.array(ann["keypoints"][2::3]) > 0).sum()
    assert coco.getCatIds(catNms=["person"]) == [1]


def test_coco_s_leaves_are_the_released_files(tmp_path, load):
    """What it wrote is a release again: the reader of the released files takes the leaves."""
    gt = load("mscoco-smplx")
    annotations = json.loads(write_coco(gt, tmp_path / "out.json").read_text())["annotations"]
    again = {
        str(a["id"]): {"smplx_param": a["smplx_param"], "cam_param": a["cam_param"]} for a in annotations
    }
    path = tmp_path / "MSCOCO_train_SMPLX_all_NeuralAnnot.json"
    path.write_text(json.dumps(again))
    columns = read_fits(path, gt.catalogued, {})
    for name in gt.params:
        assert (columns[f"param/{name}"] == gt.params[name]).all(), name
    for part in gt.valid:
        assert (columns[f"valid/{part}"] == gt.valid[part]).all(), part


def test_coco_s_keypoints_and_whole_body_lists(tmp_path, load):
    gt = load("mscoco-smplx")
    content = json.loads(write_coco(gt, tmp_path / "out.json").read_text())
    points = gt.view.column("ann/keypoints")
    lists = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
    for row, ann in enumerate(content["annotations"]):
        found = np.concatenate([np.array(ann[name]).reshape(-1, 3) for name in lists])
        seen = points[row, :, 2] > 0
        assert np.allclose(found[seen], points[row][seen])
        assert not found[~seen].any()
    assert content["categories"][0]["keypoints"][0] == "nose"
    edges = np.array(content["categories"][0]["skeleton"])
    assert edges.min() >= 1
    assert edges.max() <= 17


def test_coco_s_boxes_of_hands_are_beside_the_persons(tmp_path, load):
    """`bbox` is the person's as annotated; a hand's or a face's own has a field of its own."""
    for name in ("mscoco-mano", "mscoco-flame"):
        gt = load(name)
        persons = gt.view.column("ann/box")
        content = json.loads(write_coco(gt, tmp_path / f"{name}.json").read_text())
        by_id = {ann["id"]: ann for ann in content["annotations"]}
        assert np.isfinite(persons).all()
        for id_, person, part in zip(gt.ids.tolist(), persons, gt.box_xywh, strict=True):
            assert np.allclose(by_id[id_]["bbox"], person)
            assert not np.allclose(person, part)
            assert np.isclose(by_id[id_]["area"], person[2] * person[3])


def test_coco_says_which_bodies_were_not_fitted(tmp_path, load):
    gt = load("mscoco-smpl")
    fitted = np.arange(len(gt)) != 2
    view = gt.view.overlaid({"valid/body": fitted})
    some = PseudoGT(view, gt.release, space=gt.space, companions=gt.companions)
    annotations = json.loads(write_coco(some, tmp_path / "x.json").read_text())["annotations"]
    said = {ann["id"]: ann.get("body_valid", True) for ann in annotations}
    assert said == dict(zip(gt.ids.tolist(), fitted.tolist(), strict=True))


def test_coco_needs_boxes_of_bodies(tmp_path, load):
    gt = load("mscoco-smpl")
    box = np.array(gt.box_xywh)
    box[0] = np.nan
    view = gt.view.overlaid({"ann/box": box})
    some = PseudoGT(view, gt.release, space=gt.space, companions=gt.companions)
    with pytest.raises(ValueError, match="1 of 6 annotations have no image or no box"):
        write_coco(some, tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


# --- Parquet


@pytest.mark.parametrize("name", MODELS)
def test_datasets_reads_the_parquet(name, tmp_path, load, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    gt = load(name)
    path = write_parquet(gt, tmp_path / "rows.parquet", rows_per_group=4)
    table = datasets.load_dataset(
        "parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(table) == len(gt)
    rows = table.with_format("numpy")
    moved = gt.to_camera_space()
    for parameter, values in moved.params.items():
        found = np.asarray(rows[f"param_{parameter}"][:])
        assert found.dtype == np.float32
        assert (found == values).all(), parameter
        assert found.shape == values.shape
    for part, values in gt.valid.items():
        assert (np.asarray(table[f"valid_{part}"][:]) == values).all()
    assert list(table["annotation_id"]) == gt.ids.tolist()
    assert list(table["image_path"]) == gt.image_path.tolist()
    assert list(table["gender"]) == gt.gender.tolist()
    assert set(table["space"]) == {"camera"}
    for found, box in zip(table["box_xywh"], gt.box_xywh, strict=True):
        assert found is None if np.isnan(box).any() else np.allclose(found, box)
    streamed = datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
    assert next(iter(streamed))["annotation_id"] == gt.ids[0]


def test_parquet_of_the_world(tmp_path, walk):
    import pyarrow.parquet as pq

    path = write_parquet(walk, tmp_path, space="world")
    assert path.name == "annotations.parquet"
    file = pq.ParquetFile(path)
    about = json.loads(file.schema_arrow.metadata[b"neuralannot"])
    assert (about["release"], about["space"]) == ("human36m-smpl", "world")
    table = file.read()
    transl = np.array(table["param_transl"].to_pylist(), np.float32)
    assert (transl == walk.params["transl"]).all()
    R = np.array(table["cam_R"].to_pylist(), np.float32)
    assert (R == walk.camera.R).all()
    assert table["frame_key"].to_pylist() == [list(key) for key in walk.keys]


def test_parquet_of_bare_fits_and_of_none(tmp_path, released, walk):
    import pyarrow.parquet as pq

    fits = load_pseudo_gt(released("human36m-smpl").path, annotations=False)
    with pytest.raises(ValueError, match="cameras of its fits are not loaded"):
        write_parquet(fits, tmp_path / "x.parquet")
    found = pq.read_table(write_parquet(fits, tmp_path / "x.parquet", space="world"))
    assert found["param_betas"].to_pylist() == fits.params["betas"].tolist()
    assert "image_path" not in found.column_names
    assert pq.read_table(write_parquet(walk[:0], tmp_path / "none.parquet")).num_rows == 0
    with pytest.raises(ValueError, match="in the camera's space"):
        write_parquet(walk.to_camera_space(), tmp_path / "y.parquet", space="world")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, walk, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'neuralannot\[parquet\]'"):
        write_parquet(walk, tmp_path / "x.parquet")
    assert not list(tmp_path.iterdir())


# --- WebDataset


def samples_of(paths) -> list[dict]:
    """By the `webdataset` package, decoded: no pickles among the suffixes."""
    wds = pytest.importorskip("webdataset")
    found = wds.WebDataset([str(p) for p in paths], shardshuffle=False, empty_check=False)
    return list(found.decode())


@pytest.mark.parametrize("name", MODELS)
def test_webdataset_reads_the_shards(name, tmp_path, load):
    gt = load(name)
    samples = samples_of(write_shards(gt, tmp_path / "shards"))
    assert len(samples) == len(set(gt.image_path.tolist()))
    moved = gt.to_camera_space()
    rows = []
    for sample in samples:
        assert {k for k in sample if not k.startswith("__")} == {"json", "npz"}
        about, arrays = sample["json"], sample["npz"]
        assert about["model"] == gt.model
        assert about["space"] == "camera"
        mine = np.flatnonzero(gt.image_path == about["image_path"])
        assert (arrays["annotation_id"] == gt.ids[mine]).all()
        assert about["people"] == len(mine)
        for parameter, values in moved.params.items():
            assert arrays[f"param_{parameter}"].dtype == values.dtype
            assert (arrays[f"param_{parameter}"] == values[mine]).all()
        rows += mine.tolist()
    assert sorted(rows) == list(range(len(gt)))


def test_shards_hold_the_images(tmp_path):
    gt = load_pseudo_gt(PHOTOGRAPH / "MSCOCO_train_SMPL_NeuralAnnot.json")
    paths = write_shards(gt, tmp_path / "shards", images=PHOTOGRAPH)
    (sample,) = samples_of(paths)
    assert sample["png"] == (PHOTOGRAPH / gt.image_path[0]).read_bytes()
    with tarfile.open(paths[0]) as tar:
        member = tar.extractfile("000000000.png")
        assert member.read() == (PHOTOGRAPH / gt.image_path[0]).read_bytes()


def test_images_that_are_missing_are_counted_or_left_out(tmp_path, load):
    gt = load("mscoco-smpl")
    images = tmp_path / "images"
    (images / "train2017").mkdir(parents=True)
    first = gt.image_path[0]
    shutil.copy(PHOTOGRAPH / "train2017/astronaut.png", images / first)
    with pytest.raises(FileNotFoundError, match="2 of 3 images are not there"):
        write_shards(gt, tmp_path / "a", images=images)
    assert not (tmp_path / "a").exists()
    with pytest.warns(UserWarning, match=r"2 of 3 images are not there.*left out"):
        paths = write_shards(gt, tmp_path / "a", images=images, drop_incomplete=True)
    with tarfile.open(paths[0]) as tar:
        assert len([n for n in tar.getnames() if n.endswith(".json")]) == 1


def outside(tmp_path, name):
    """The photograph's people, said to be in an image beside the folder of images; that folder."""
    images = tmp_path / "images"
    shutil.copytree(PHOTOGRAPH, images, ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copy(PHOTOGRAPH / "train2017/astronaut.png", tmp_path / "secret.png")
    notes = images / "person_keypoints_train2017.json"
    content = json.loads(notes.read_text())
    for image in content["images"]:
        image["file_name"] = name.format(str(tmp_path).strip("/"))
    notes.write_text(json.dumps(content))
    return load_pseudo_gt(images / "MSCOCO_train_SMPL_NeuralAnnot.json"), images


@pytest.mark.parametrize("name", ["../secret.png", "/{}/secret.png", "train2017/../../secret.png"])
def test_no_file_outside_the_image_folder_is_handed_on(tmp_path, name):
    gt, images = outside(tmp_path, name)
    with pytest.raises(ValueError, match="leads out of the image folder"):
        write_shards(gt, tmp_path / "shards", images=images)
    picture = picture_of(gt, str(gt.image_path[0]), images)
    assert picture.pixels is None
    assert "leads out of the image folder" in picture.problem


def test_shards_are_no_larger_than_asked(tmp_path, walk):
    paths = write_shards(walk, tmp_path / "shards", max_bytes=150_000)
    assert len(paths) > 3
    assert all(p.stat().st_size <= 150_000 for p in paths)
    index = json.loads((tmp_path / "shards" / INDEX).read_text())
    assert index["complete"]
    assert [s["bytes"] for s in index["shards"]] == [p.stat().st_size for p in paths]
    assert sum(s["samples"] for s in index["shards"]) == 96
    ids = [int(s["npz"]["annotation_id"][0]) for s in samples_of(paths)]
    assert ids == walk.ids.tolist()  # one image each, in order
    alone = write_shards(walk, tmp_path / "small", max_bytes=1)
    assert len(alone) == 96  # none is lost


def test_a_run_that_was_stopped_goes_on(tmp_path, walk, monkeypatch):
    whole = write_shards(walk, tmp_path / "whole", max_bytes=150_000)
    from neuralannot.formats import shards

    written = []
    original = shards._write_tar

    def stops(path, shard):
        if len(written) == 2:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(path)
        original(path, shard)

    monkeypatch.setattr(shards, "_write_tar", stops)
    with pytest.raises(KeyboardInterrupt):
        write_shards(walk, tmp_path / "resumed", max_bytes=150_000)
    names = sorted(p.name for p in (tmp_path / "resumed").iterdir())
    assert names == ["000000.tar", "000001.tar", INDEX]
    before = [(tmp_path / "resumed" / n).stat().st_mtime_ns for n in names[:2]]
    monkeypatch.setattr(shards, "_write_tar", original)
    again = write_shards(walk, tmp_path / "resumed", max_bytes=150_000)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in whole]
    assert before == [p.stat().st_mtime_ns for p in again[:2]]  # not written anew
    # A shard that went missing is written again, and those after it.
    again[2].unlink()
    assert [p.read_bytes() for p in write_shards(walk, tmp_path / "resumed", max_bytes=150_000)] == [
        p.read_bytes() for p in whole
    ]


def test_shards_of_other_images_are_left_alone(tmp_path):
    """An image that was written anew, as large as before, is another one."""
    images = tmp_path / "images"
    shutil.copytree(PHOTOGRAPH, images, ignore=shutil.ignore_patterns("*.safetensors"))
    gt = load_pseudo_gt(images / "MSCOCO_train_SMPL_NeuralAnnot.json")
    paths = write_shards(gt, tmp_path / "shards", images=images)
    before = paths[0].stat().st_mtime_ns
    assert write_shards(gt, tmp_path / "shards", images=images) == paths
    assert paths[0].stat().st_mtime_ns == before
    image = images / gt.image_path[0]
    content = bytearray(image.read_bytes())
    content[-20] ^= 1
    stamp = image.stat().st_mtime_ns + 1
    image.write_bytes(content)
    os.utime(image, ns=(stamp, stamp))
    with pytest.raises(ValueError, match="holds shards of other rows, images or options"):
        write_shards(gt, tmp_path / "shards", images=images)


def test_shards_of_other_rows_are_left_alone(tmp_path, walk):
    write_shards(walk, tmp_path / "shards")
    with pytest.raises(ValueError, match="holds shards of other rows, images or options"):
        write_shards(walk[:5], tmp_path / "shards")
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "000000.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds tars without shards\.json"):
        write_shards(walk, strange)
    (tmp_path / "shards" / INDEX).write_text("{")
    with pytest.raises(ValueError, match="not an index of shards"):
        write_shards(walk, tmp_path / "shards")


def test_shards_of_no_rows_and_of_bare_fits(tmp_path, walk, released):
    assert write_shards(walk[:0], tmp_path / "none") == []
    fits = load_pseudo_gt(released("mscoco-smpl").path, annotations=False)
    samples = samples_of(write_shards(fits, tmp_path / "fits"))
    assert [int(s["npz"]["annotation_id"][0]) for s in samples] == fits.ids.tolist()
    with pytest.raises(ValueError, match="images= needs image paths"):
        write_shards(fits, tmp_path / "x", images=tmp_path)
