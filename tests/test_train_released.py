"""Columns made in memory against the reader's own, for every release; names and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import FILE_NAMES, Written, write_release

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.catalog import RELEASES
from neuralannot.train.released import own_release, pseudo_gt_of, save_release

Released = Callable[[str], Written]


def bare(path: Any, **options: Any) -> PseudoGT:
    return load_pseudo_gt(path, annotations=False, cache=False, **options)


def same(found: PseudoGT, wanted: PseudoGT) -> None:
    """Every column, those of the whole file too, bit by bit."""
    assert (found.release, found.space, len(found)) == (wanted.release, wanted.space, len(wanted))
    assert set(found.view.names()) == set(wanted.view.names())
    for name in wanted.view.names():
        if name.startswith("all/"):
            parts = [next(p for p in gt.view.parts if name in p.stack) for gt in (found, wanted)]
            a, b = (part.stack.gather(name) for part in parts)
        else:
            a, b = found.view.column(name), wanted.view.column(name)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), name


def given(gt: PseudoGT) -> dict[str, Any]:
    """What `pseudo_gt_of` takes, from a release that was read."""
    entry = gt.catalogued
    params = {name: np.array(gt.params[name]) for name in gt.params}
    options: dict[str, Any] = {"params": params, "gender": gt.gender, "side": gt.side}
    options["keys"] = gt.ids[:, None] if entry.key_names == ("id",) else np.array(gt.keys)
    if entry.camera == "leaf":
        options |= {"focal": gt.camera.focal, "princpt": gt.camera.princpt}
    if entry.model == "smplx":
        options["valid"] = {part: gt.valid[part] for part in ("left_hand", "right_hand", "face")}
    if "valid/transl" in gt.view:
        params["transl"][~gt.view.column("valid/transl")] = np.nan
    if gt.side is not None:
        options["entries"] = gt.view.parts[0].stack.gather("all/entry")
    options["groups"] = gt.companions.groups
    options["space"] = gt.space
    return options


@pytest.mark.filterwarnings("ignore:.*taken as camera space")
@pytest.mark.parametrize("release", FILE_NAMES)
def test_files_come_back(release: str, released: Released, tmp_path: Path) -> None:
    """Made from a release's numbers, saved and loaded: the columns that the reader gave for these rows."""
    read = bare(released(release).path)
    made = pseudo_gt_of(release, **given(read))
    paths = save_release(made, tmp_path / "new" / "folder")
    assert [p.name for p in paths] == [FILE_NAMES[release]]
    back = bare(paths if release.startswith("human36m") else paths[0])
    same(back, made)
    assert list(back) == list(made)
    assert back.missing == made.missing
    assert set(map(str, made)) == set(map(str, read))
    assert set(map(str, made.missing)) == set(map(str, read.missing))
    if RELEASES[release].layout == "flat":
        same(made, read)
    made.save(tmp_path / "x.safetensors")
    columns = load_pseudo_gt(tmp_path / "x.safetensors")
    for name in columns.view.names():
        assert columns.view.column(name).tobytes() == made.view.column(name).tobytes()


@pytest.mark.parametrize("release", [r for r in FILE_NAMES if RELEASES[r].layout != "flat"])
def test_rows_in_any_order_give_one_file(release: str, released: Released, tmp_path: Path) -> None:
    read = bare(released(release).path)
    options = given(read)
    order = np.random.default_rng(0).permutation(len(read))
    shuffled = {
        k: v[order] if isinstance(v, np.ndarray) and k != "entries" else v for k, v in options.items()
    }
    shuffled["params"] = {k: v[order] for k, v in options["params"].items()}
    if "valid" in options:
        shuffled["valid"] = {k: v[order] for k, v in options["valid"].items()}
    made = pseudo_gt_of(release, **shuffled)
    same(bare(save_release(made, tmp_path)[0]), made)
    same(made, pseudo_gt_of(release, **options))


def test_joins_like_the_released_file(released: Released, tmp_path: Path) -> None:
    written = released("human36m-smpl")
    read = load_pseudo_gt(written.path, cache=False)
    path = save_release(pseudo_gt_of("human36m-smpl", **given(bare(written.path))), tmp_path)
    back = load_pseudo_gt(path, annotations=written.annotations, cameras=written.cameras, cache=False)
    assert back.ids.tolist() == read.ids.tolist()
    np.testing.assert_array_equal(back.params["body_pose"], read.params["body_pose"])


def test_a_file_for_each_subject(tmp_path: Path) -> None:
    files = [write_release(tmp_path / "data", "human36m-smplx", subject=s).path for s in (5, 11)]
    read = bare(files)
    options = given(read) | {"groups": ({"subject": "11"}, {"subject": "5"}, {"subject": "1"})}
    made = pseudo_gt_of("human36m-smplx", **options)
    paths = save_release(made, tmp_path / "out")
    assert [p.name for p in paths] == [f"Human36M_subject{s}_SMPLX_NeuralAnnot.json" for s in (1, 5, 11)]
    assert len(bare(paths[0])) == 0
    back = bare(paths)
    assert back.keys == made.keys
    np.testing.assert_array_equal(back.params["transl"], made.params["transl"])
    with pytest.raises(ValueError, match=r"the subject is in no other place than the file's name"):
        save_release(made, tmp_path / "out", name="mine.json")


@pytest.mark.parametrize("model", ["smpl", "smplx", "mano", "flame"])
def test_own_data_under_its_own_name(model: str, tmp_path: Path) -> None:
    """Written in a release's layout, read with `release=` and the user's annotations."""
    release = own_release(model)
    written = write_release(tmp_path / "data", release)
    made = pseudo_gt_of(release, **given(bare(written.path)))
    path = save_release(made, tmp_path / "out", name="kitchen.json")[0]
    assert path.name == "kitchen.json"
    with pytest.raises(ValueError, match=r"not a released file name; pass release="):
        bare(path)
    back = load_pseudo_gt(path, release=release, annotations=written.annotations, cache=False)
    assert back.joined
    assert list(back) == list(made)
    name = back.image_path[0]
    assert name.endswith(".jpg")
    assert name.startswith("train2017/") == (model == "mano")


def test_no_rows(tmp_path: Path) -> None:
    for release in ("mscoco-smplx", "mscoco-mano", "interhand26m-mano", "mpi-inf-3dhp-smpl"):
        read = bare(write_release(tmp_path / release, release).path).rows([])
        options = given(read) | {"groups": ({"split": "test"},)}
        options["keys"] = np.zeros((0, len(RELEASES[release].key_names)), np.int64)
        options.pop("entries", None)
        made = pseudo_gt_of(release, **options)
        same(bare(save_release(made, tmp_path / "out")[0]), made)


def test_parts_not_given_are_not_valid() -> None:
    params = {"global_orient": np.zeros((2, 3)), "body_pose": np.zeros((2, 63)), "betas": np.zeros((2, 10))}
    params |= {"transl": np.ones((2, 3)), "left_hand_pose": np.zeros((2, 15, 3))}
    made = pseudo_gt_of("mpii-smplx", params, ids=[4, 2], **_CAMERA)
    assert made.ids.tolist() == [4, 2]
    assert made.params["body_pose"].shape == (2, 21, 3)
    flags = {part: made.valid[part].tolist() for part in made.valid}
    assert flags == {
        "body": [True] * 2,
        "left_hand": [True] * 2,
        "right_hand": [False] * 2,
        "face": [False] * 2,
    }
    with pytest.raises(ValueError, match=r"face needs jaw_pose and expression, or none of them"):
        pseudo_gt_of("mpii-smplx", params | {"jaw_pose": np.zeros((2, 3))}, ids=[4, 2], **_CAMERA)


def test_columns_are_copies_that_cannot_be_written() -> None:
    params = {"global_orient": np.zeros((1, 3)), "body_pose": np.zeros((1, 23, 3), np.float32)}
    params |= {"betas": np.zeros((1, 10)), "transl": np.zeros((1, 3))}
    made = pseudo_gt_of("mpi-inf-3dhp-smpl", params, keys=[[1, 1, 0]])
    params["body_pose"][:] = 1
    assert not made.params["body_pose"].any()
    with pytest.raises(ValueError, match=r"read-only"):
        made.params["body_pose"][:] = 1


_BASE = {
    "global_orient": np.zeros((2, 3)),
    "hand_pose": np.zeros((2, 15, 3)),
    "betas": np.zeros((2, 10)),
    "transl": np.zeros((2, 3)),
}
_CAMERA = {"focal": np.ones((2, 2)), "princpt": np.ones((2, 2))}
_HANDS = {"ids": [3, 3], "side": np.array(["right", "left"]), **_CAMERA}


@pytest.mark.parametrize(
    ("release", "change", "options", "message"),
    [
        ("mscoco-man", {}, _HANDS, "unknown release 'mscoco-man'; did you mean 'mscoco-mano'"),
        ("mscoco-mano", {}, _HANDS | {"side": None}, r"side= is missing, \(N,\) of right, left$"),
        (
            "mscoco-mano",
            {},
            _HANDS | {"side": np.array(["right", "x"])},
            r"^side must be \(2,\) of right, left",
        ),
        ("mscoco-mano", {}, _HANDS | {"ids": None}, r"is keyed by \(id\); pass ids= \(N,\), that alone$"),
        ("mscoco-mano", {}, _HANDS | {"ids": [1.5, 2]}, r"ids and keys must be integers, got float64$"),
        ("interhand26m-mano", {}, {"ids": [1, 2]}, r"is keyed by \(capture, frame\); pass keys= \(N, 2\)"),
        ("interhand26m-mano", {}, {"keys": [[1], [2]]}, r"keys must be \(N, 2\) as \(capture, frame\), got"),
        ("mscoco-mano", {}, _HANDS | {"focal": None}, r"every fit has a camera; focal= is missing, \(N, 2\)"),
        (
            "mscoco-mano",
            {},
            _HANDS | {"focal": np.zeros((2, 2))},
            r"row 0 \(key 3\): focal must be positive$",
        ),
        ("mscoco-mano", {}, _HANDS | {"princpt": np.zeros(2)}, r"princpt must be \(2, 2\), got \(2,\)$"),
        ("mscoco-mano", {"jaw_pose": np.zeros((2, 3))}, _HANDS, r"no parameter 'jaw_pose'; there are glo"),
        ("mscoco-mano", {"betas": None}, _HANDS, r"no 'betas' among the parameters; expected \(2, 10\)$"),
        ("mscoco-mano", {"betas": np.zeros((2, 9))}, _HANDS, r"betas must be \(2, 10\), got \(2, 9\)$"),
        (
            "mscoco-mano",
            {"transl": np.array([[0, 0, 0], [0, np.nan, 0]])},
            _HANDS,
            r"row 1 \(key 3\): transl is not finite \(1 such rows\); a file cannot hold it: leave such rows",
        ),
        (
            "mscoco-mano",
            {},
            _HANDS | {"side": np.array(["left", "left"])},
            r"row 0 \(key 3\), left: in more than one row; a file holds one",
        ),
        (
            "mscoco-mano",
            {},
            _HANDS | {"entries": [[4]]},
            "mscoco-mano: 3 has a fit, but is not among entries$",
        ),
        ("mscoco-mano", {}, _HANDS | {"space": "world"}, "its fits are in camera space, not world$"),
        (
            "mscoco-mano",
            {},
            _HANDS | {"valid": {"face": np.ones(2, bool)}},
            "cannot say whether 'face' is val",
        ),
        (
            "interhand26m-mano",
            {},
            {"keys": [[0, 1], [0, 2]], "side": _HANDS["side"], **_CAMERA},
            "its fits have no cameras of their own; leave focal and princpt out$",
        ),
    ],
)
def test_refused(release: str, change: dict, options: dict, message: str) -> None:
    params = {name: values for name, values in (_BASE | change).items() if values is not None}
    with pytest.raises(ValueError, match=message) as caught:
        pseudo_gt_of(release, params, **options)
    assert "\n" not in str(caught.value)


def test_refused_of_bodies(tmp_path: Path) -> None:
    body = {n: v for n, v in _BASE.items() if n != "hand_pose"} | {"body_pose": np.zeros((2, 23, 3))}
    with pytest.raises(ValueError, match=r"smpl has no sides; leave side out$"):
        pseudo_gt_of("mpii-smpl", body, ids=[1, 2], side=_HANDS["side"], **_CAMERA)
    with pytest.raises(ValueError, match=r"only hands' files hold entries without a fit; leave entries out$"):
        pseudo_gt_of("mpii-smpl", body, ids=[1, 2], entries=[[1]], **_CAMERA)
    whole = body | {"body_pose": np.zeros((2, 21, 3))}
    with pytest.raises(ValueError, match=r"pass space='world' where its images' cameras carry R and t"):
        pseudo_gt_of("3dpw-smplx", whole, ids=[1, 2])
    crowd = pseudo_gt_of("crowdpose-smpl", body, ids=[1, 2], **_CAMERA)
    with pytest.raises(ValueError, match=r"its files are called CrowdPose_\{split\}_SMPL.* say which with"):
        save_release(crowd, tmp_path)
    with pytest.raises(ValueError, match=r"^name must be a file name that ends in .json, got '../x.json'$"):
        save_release(crowd, tmp_path, name="../x.json")
    with pytest.raises(ValueError, match=r"valid\['face'\] must be \(2,\) bool, got \(1,\)$"):
        pseudo_gt_of("mpii-smplx", whole, ids=[1, 2], valid={"face": np.ones(1, bool)}, **_CAMERA)
