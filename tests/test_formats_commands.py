"""`export --to` of other people's formats on the command line, on samples and on a made data set."""

from __future__ import annotations

import json

import numpy as np
import pytest
from foreign_readers import Spin
from own_sample import SAMPLE
from training_runs import studio

from neuralannot import load_pseudo_gt
from neuralannot.cli import main
from neuralannot.formats import __all__ as names
from neuralannot.formats import write_hmr
from neuralannot.formats.commands import FORMATS
from neuralannot.formats.keypoint_orders import places

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

COCO = str(SAMPLE / "mscoco" / "MSCOCO_train_SMPL_NeuralAnnot.json")
WALK = str(SAMPLE / "human36m")


def run(*arguments, capsys):
    try:
        status = main([str(a) for a in arguments])
    except SystemExit as stop:
        status = stop.code
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_writes_where_it_says(to, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    status, said, err = run("export", WALK, "--to", to, "--out", out, capsys=capsys)
    assert status == 0, err
    (written,) = [line.split("96 rows: ")[1] for line in said.splitlines() if "96 rows" in line]
    assert written.startswith(str(out))
    assert all(p.stat().st_size for p in out.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("hmr", "--fps", "50"), "--fps is for --to amass; not for hmr"),
        (("obj", "--images", "."), "--images is for --to webdataset; not for obj"),
        (("parquet", "--drop-incomplete"), "--drop-incomplete is for --to hmr, hmr2, humandata"),
        (("humandata", "--space", "world"), "--space world: humandata holds camera space"),
        (("coco", "--regressor", "human36m-17"), "--regressor is for --to npz"),
        (("bedlam", "--leave-out", "face"), "leave_out takes expression, hand-joints, got 'face'"),
        (("hmr", "--box-scale", "-1"), "box_scale must be positive"),
        (("webdataset", "--max-mb", "0"), "max_bytes must be positive"),
        (("amass",), "MSCOCO's have no frame numbers"),
    ],
)
def test_mistakes_take_one_line(options, message, tmp_path, capsys):
    status, _, err = run("export", COCO, "--to", *options, "--out", tmp_path / "out", capsys=capsys)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_some_ids_and_drop_incomplete(tmp_path, capsys, released):
    written = released("mscoco-smpl")
    fits = json.loads(written.path.read_text())
    content = json.loads(written.annotations.read_text())
    ids = [int(i) for i in fits]
    for ann in content["annotations"]:
        if ann["id"] == ids[3]:
            ann["bbox"] = [0, 0, 0, 0]
    (tmp_path / written.path.name).write_text(json.dumps(fits))
    (tmp_path / written.annotations.name).write_text(json.dumps(content))
    source, out = tmp_path / written.path.name, tmp_path / "out.npz"
    chosen = ("--ids", ids[5], ids[3], ids[0])
    status, _, err = run("export", source, *chosen, "--to", "hmr", "--out", out, capsys=capsys)
    assert status == 2
    assert f"the first is {ids[3]}, without box" in err
    options = (*chosen, "--to", "hmr", "--drop-incomplete", "--out", out)
    status, _, err = run("export", source, *options, capsys=capsys)
    assert status == 0, err
    assert np.load(out)["annotation_id"].tolist() == [ids[5], ids[0]]


def test_a_made_data_set_in_spin_s_crops(tmp_path):
    """The bodies are within the crops that SPIN cuts, and the joints in space are the bodies'."""
    folder = studio("human36m")
    gt = load_pseudo_gt(folder / "truth")
    read = Spin(write_hmr(gt, tmp_path / "studio.npz"))
    bodies = gt.forward(want="joints", regressor="human36m-17")
    pixels = bodies.project().numpy()
    inside = np.abs(pixels - read.center[:, None]) <= 100 * read.scale[:, None, None]
    assert inside.all()
    own = bodies.joints.numpy() - bodies.joints.numpy()[:, :1]
    target = places("spin", "human36m-17")[1]
    assert np.abs(read.pose_3d[:, target, :3] - own).max() < 1e-4


def test_a_made_data_set_streams_with_its_images(tmp_path, capsys):
    webdataset = pytest.importorskip("webdataset")
    folder = studio("mscoco")
    for model in ("SMPLX_all", "MANO", "FLAME"):
        file = folder / "truth" / f"MSCOCO_train_{model}_NeuralAnnot.json"
        out = tmp_path / model
        options = ("--to", "webdataset", "--images", folder / "images", "--max-mb", "0.2", "--out", out)
        status, _, err = run("export", file, *options, capsys=capsys)
        assert status == 0, err
        gt = load_pseudo_gt(file)
        shards = sorted(str(p) for p in out.glob("*.tar"))
        samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
        assert {s["json"]["image_path"] for s in samples} == set(gt.image_path.tolist())
        for sample in samples:
            image = folder / "images" / sample["json"]["image_path"]
            assert sample["jpg"] == image.read_bytes()
        betas = np.concatenate([s["npz"]["param_betas"] for s in samples])
        ids = np.concatenate([s["npz"]["annotation_id"] for s in samples])
        order = np.argsort(ids, kind="stable"), np.argsort(gt.ids, kind="stable")
        assert (betas[order[0]] == gt.params["betas"][order[1]]).all()


def test_every_public_name_loads():
    import neuralannot.formats as formats

    for name in names:
        assert getattr(formats, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'write_spin'"):
        _ = formats.write_spin
