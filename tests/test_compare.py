"""Several annotation files in one table: what is common, what the numbers are."""

from __future__ import annotations

import numpy as np
import pytest
from own_sample import SAMPLE

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.cli import main
from neuralannot.train.evaluation import compare, evaluate

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


@pytest.fixture(scope="module")
def walk() -> PseudoGT:
    return load_pseudo_gt(SAMPLE / "human36m")


def noisy(gt: PseudoGT, sigma: float, seed: int = 0) -> PseudoGT:
    pose = gt.params["body_pose"] + np.random.default_rng(seed).normal(0, sigma, (len(gt), 23, 3))
    view = gt.view.overlaid({"param/body_pose": pose.astype(np.float32)})
    return PseudoGT(view, gt.release, space=gt.space, companions=gt.companions)


def test_the_table_has_what_evaluate_says_of_the_common_rows(walk):
    one, other = noisy(walk, 0.1), noisy(walk.rows(np.arange(20, 96)), 0.3)
    table = compare({"one": one.rows(np.arange(60)), "other": other}, truth=walk)
    common = np.arange(20, 60)
    expected = evaluate(one.rows(common), truth=walk).measured[0]
    rows = {row[0]: dict(zip(table.head, row, strict=True)) for row in table.rows}
    assert rows["one"]["count"] == rows["other"]["count"] == 40
    for column in expected.columns:
        assert rows["one"][f"{column.name} {column.unit}"] == pytest.approx(np.mean(column.values))
    assert rows["one"]["MPVPE mm"] < rows["other"]["MPVPE mm"]
    # The rows' order in a file does not matter.
    again = compare({"one": one.rows(np.arange(60)[::-1]), "other": other[::-1]}, truth=walk)
    for mine, theirs in zip(again.rows, table.rows, strict=True):
        assert mine[0] == theirs[0]
        assert np.allclose(mine[1:], theirs[1:])


def test_what_does_not_compare(walk, released):
    coco = load_pseudo_gt(SAMPLE / "mscoco" / "MSCOCO_train_SMPL_NeuralAnnot.json")
    hands = load_pseudo_gt(released("mscoco-mano").path, annotations=released("mscoco-mano").annotations)
    with pytest.raises(ValueError, match="two files or more, got 1"):
        compare({"one": walk}, truth=walk)
    with pytest.raises(ValueError, match="no annotation is in all of a, b"):
        compare({"a": walk[:5], "b": walk[5:9]}, truth=walk)
    with pytest.raises(ValueError, match="hands do not compare with bodies"):
        compare({"a": coco, "b": hands}, truth=coco)
    bare = load_pseudo_gt(SAMPLE / "human36m", annotations=False)
    with pytest.raises(ValueError, match="neither annotation ids nor frame keys"):
        compare({"a": coco, "b": bare}, truth=coco)


def test_fits_of_the_world_by_their_frames(walk):
    fits = load_pseudo_gt(SAMPLE / "human36m", annotations=False)
    table = compare({"a": fits[:10], "b": fits[5:]}, truth=fits)
    assert [row[1] for row in table.rows] == [5, 5]


def test_smpl_beside_smplx_against_the_joints(tmp_path, capsys):
    files = [str(SAMPLE / "mscoco" / f"MSCOCO_train_{m}_NeuralAnnot.json") for m in ("SMPL", "SMPLX_all")]
    out = tmp_path / "tables" / "table.md"
    arguments = ["--data-set", "mscoco", "--data", str(SAMPLE / "mscoco"), "--markdown", str(out)]
    assert main(["compare", *files, *arguments]) == 0, capsys.readouterr().err
    text = out.read_text()
    assert "reprojection px" in text
    assert len(text.strip().splitlines()) == 6  # title, head, rule, two files
    assert main(["compare", *files]) == 2
    assert "nothing to compare with" in capsys.readouterr().err
