"""Saving and loading again: the same columns, bit by bit; what a layout cannot hold is refused."""

from __future__ import annotations

import errno
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts import FILE_NAMES, Written, write_release

from neuralannot import PseudoGT, load_pseudo_gt, writers

Released = Callable[[str], Written]


def same(found: PseudoGT, wanted: PseudoGT) -> None:
    """The same rows in every column, bit by bit."""
    assert (found.release, found.space, len(found)) == (wanted.release, wanted.space, len(wanted))
    names = {name for name in wanted.view.names() if not name.startswith("all/")}
    assert {name for name in found.view.names() if not name.startswith("all/")} == names
    for name in names:
        a, b = found.view.column(name), wanted.view.column(name)
        assert (a.dtype, a.shape) == (b.dtype, b.shape), name
        assert a.tobytes() == b.tobytes(), name


def saved(gt: PseudoGT, folder: Path, name: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / (name or FILE_NAMES[gt.release])
    gt.save(path)
    assert os.listdir(folder) == [path.name]
    return path


def bare(path: Path | list[Path]) -> PseudoGT:
    """The fits alone, in memory, from a JSON."""
    return load_pseudo_gt(path, annotations=False, cache=False)


def reloaded(path: Path) -> PseudoGT:
    return bare(path) if path.suffix == ".json" else load_pseudo_gt(path)


# --- round trips


@pytest.mark.parametrize("release", FILE_NAMES)
def test_json_comes_back(release: str, released: Released, tmp_path: Path) -> None:
    gt = bare(released(release).path)
    path = saved(gt, tmp_path / "out")
    back = bare(path)
    same(back, gt)
    assert back.missing == gt.missing
    assert list(back) == list(gt)
    again = bare(saved(back, tmp_path / "again"))
    same(again, gt)


@pytest.mark.parametrize(
    "release", [r for r in FILE_NAMES if r.startswith(("mscoco", "mpii", "ffhq", "3dpw"))]
)
def test_json_of_joined_rows_comes_back(release: str, released: Released, tmp_path: Path) -> None:
    """Where a row is a fit, the JSON holds all of it: the annotations have a file of their own."""
    gt = load_pseudo_gt(released(release).path, cache=False)
    assert gt.joined
    same(bare(saved(gt, tmp_path / "out")), bare(released(release).path))


def test_json_is_the_released_layout(released: Released, tmp_path: Path) -> None:
    """Key by key what the release's own scripts would read, to float32."""
    for release in ("mscoco-smpl", "human36m-smpl", "mpi-inf-3dhp-smplx", "mscoco-mano", "interhand26m-mano"):
        written = released(release)
        gt = bare(written.path)
        content = json.loads(saved(gt, tmp_path / release).read_text())
        compare(content, written.fits)


def compare(found: object, wanted: object) -> None:
    if isinstance(wanted, dict):
        assert isinstance(found, dict)
        # A side's key may be missing in the released files; null says the same.
        assert {k for k, v in found.items() if v is not None} == {
            k for k, v in wanted.items() if v is not None
        }
        for key, value in wanted.items():
            compare(found[key], value)
    elif isinstance(wanted, list):
        np.testing.assert_array_equal(np.array(found, np.float32), np.array(wanted, np.float32))
    else:
        assert found == wanted


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("release", FILE_NAMES)
def test_columns_come_back(release: str, joined: bool, released: Released, tmp_path: Path) -> None:
    gt = load_pseudo_gt(released(release).path, annotations=None if joined else False, cache=False)
    assert gt.joined == joined
    back = load_pseudo_gt(saved(gt, tmp_path / "out", "any name.safetensors"))
    same(back, gt)
    assert list(back) == list(gt)
    assert back.joined == joined
    if gt.camera is not None:
        assert back.camera is not None
        for name in ("focal", "princpt", "R", "t"):
            assert getattr(back.camera, name).tobytes() == getattr(gt.camera, name).tobytes()
    if joined:
        assert back.image_path.tolist() == gt.image_path.tolist()
    same(load_pseudo_gt(saved(back, tmp_path / "again", "x.safetensors")), gt)


@pytest.mark.parametrize("release", ["human36m-smpl", "interhand26m-mano", "3dpw-smplx"])
def test_camera_space_columns_come_back(release: str, released: Released, tmp_path: Path) -> None:
    gt = load_pseudo_gt(released(release).path, cache=False).to_camera_space()
    back = load_pseudo_gt(saved(gt, tmp_path / "out", "x.safetensors"))
    assert back.space == "camera"
    same(back, gt)
    assert back.camera is not None
    np.testing.assert_array_equal(back.camera.R, np.tile(np.eye(3, dtype=np.float32), (len(gt), 1, 1)))


@pytest.mark.parametrize("release", ["mscoco-smplx", "mscoco-mano", "mpi-inf-3dhp-smpl", "interhand26m-mano"])
@pytest.mark.parametrize("name", ["{json}", "x.safetensors"])
def test_some_rows_in_another_order(release: str, name: str, released: Released, tmp_path: Path) -> None:
    """A selection is saved as it stands; in JSON, what shares an outer key comes together."""
    gt = bare(released(release).path)
    part = gt.rows([4, 1, 3])
    back = reloaded(saved(part, tmp_path / "out", name.format(json=FILE_NAMES[release])))
    order = [0, 1, 2]
    if name == "{json}" and len(gt.catalogued.key_names) > 1:
        outer = [key[:-1] for key in part]
        order = sorted(range(3), key=lambda row: outer.index(outer[row]))
    same(back, part.rows(order))


@pytest.mark.parametrize("release", FILE_NAMES)
@pytest.mark.parametrize("name", ["{json}", "x.safetensors"])
def test_no_rows(release: str, name: str, released: Released, tmp_path: Path) -> None:
    gt = bare(released(release).path).rows([])
    back = reloaded(saved(gt, tmp_path / "out", name.format(json=FILE_NAMES[release])))
    same(back, gt)


def test_genders_come_back(tmp_path: Path) -> None:
    for release in ("mpii-smplx", "mpi-inf-3dhp-smpl"):
        written = write_release(tmp_path / release, release, genders=True)
        gt = bare(written.path)
        assert set(gt.gender) == {"neutral", "male", "female"}
        same(bare(saved(gt, tmp_path / f"{release}-out")), gt)


def whole_body_leaf(rng: random.Random) -> dict:
    """Parts there or not, of zeros or not, flagged or not, in numbers of any size."""

    def numbers(count: int) -> list[float]:
        kind = rng.randrange(4)
        if kind == 0:
            return [rng.choice([0.0, -0.0])] * count
        scale = 10 ** rng.uniform(-40, 36) if kind == 1 else 1
        return [rng.gauss(0, scale) for _ in range(count)]

    params: dict = {
        "root_pose": numbers(3),
        "body_pose": numbers(63),
        "shape": numbers(10),
        "trans": numbers(3),
    }
    optional = {"lhand_pose": 45, "rhand_pose": 45, "jaw_pose": 3, "expr": 10}
    params |= {field: numbers(count) for field, count in optional.items() if rng.random() < 0.6}
    flags = ("lhand_valid", "rhand_valid", "face_valid")
    params |= {flag: rng.random() < 0.5 for flag in flags if rng.random() < 0.6}
    if rng.random() < 0.5:
        params["gender"] = rng.choice(["neutral", "male", "female"])
    return {"smplx_param": params, "cam_param": {"focal": [rng.uniform(1, 9), 5], "princpt": numbers(2)}}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_any_whole_body_leaf_comes_back(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    path = tmp_path / FILE_NAMES["mscoco-smplx"]
    path.write_text(json.dumps({str(k): whole_body_leaf(rng) for k in rng.sample(range(99), 4)}))
    gt = load_pseudo_gt(path, cache=False)
    gt.save(path)
    same(load_pseudo_gt(path, cache=False), gt)


def test_numbers_are_short(released: Released, tmp_path: Path) -> None:
    """Nine digits say a float32: the file is no larger than it must be."""
    gt = bare(released("mscoco-smpl").path)
    text = saved(gt, tmp_path / "out").read_text()
    assert (
        max(len(re.sub(r"[-.]|e.*", "", n).lstrip("0")) for n in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text))
        <= 9
    )


# --- what a layout cannot hold


def refused(gt: PseudoGT, path: Path, message: str, error: type[Exception] = ValueError) -> None:
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(error, match=message) as caught:
        gt.save(path)
    assert "\n" not in str(caught.value)
    assert sorted(path.parent.rglob("*")) == before


def test_two_subjects_in_a_file(tmp_path: Path) -> None:
    files = [write_release(tmp_path / "data", "human36m-smpl", subject=s).path for s in (1, 5)]
    gt = bare(files)
    out = tmp_path / "out"
    out.mkdir()
    message = "^human36m-smpl: its layout holds one subject a file, got subjects 1, 5; save each alone$"
    refused(gt, out / "Human36M_subject1_SMPL_NeuralAnnot.json", message)
    same(load_pseudo_gt(saved(gt, out, "x.safetensors")), gt)
    fifth = gt.rows([k for k, key in enumerate(gt.keys) if key[0] == 5])
    (out / "x.safetensors").unlink()
    back = load_pseudo_gt(saved(fifth, out, "Human36M_subject5_SMPL_NeuralAnnot.json"), cache=False)
    same(back, fifth)


def test_a_subject_under_anothers_name(released: Released, tmp_path: Path) -> None:
    gt = bare(released("human36m-smpl").path)
    path = tmp_path / "Human36M_subject11_SMPL_NeuralAnnot.json"
    refused(gt, path, f"^{path}: named as subject 11's, but the fits are subject 1's$")


@pytest.mark.parametrize("release", ["human36m-smplx", "mpi-inf-3dhp-smpl", "interhand26m-mano"])
def test_a_frame_in_several_rows(release: str, released: Released, tmp_path: Path) -> None:
    gt = load_pseudo_gt(released(release).path, cache=False)
    message = rf"^{release}: [\d/]+(/right|/left)? stands in more than one row; its layout holds one \(load"
    refused(gt, tmp_path / FILE_NAMES[release], message)


def test_a_row_twice(released: Released, tmp_path: Path) -> None:
    gt = bare(released("mscoco-mano").path)
    path = tmp_path / FILE_NAMES["mscoco-mano"]
    refused(
        gt.rows([0, 2, 0]), path, "^mscoco-mano: 81/right stands in more than one row; its layout holds one"
    )


@pytest.mark.parametrize(
    "release", ["human36m-smpl", "mpi-inf-3dhp-smplx", "interhand26m-mano", "3dpw-smplx"]
)
def test_camera_space_rows_of_a_world_release(release: str, released: Released, tmp_path: Path) -> None:
    """Loading them would move them by their cameras a second time."""
    gt = load_pseudo_gt(released(release).path, cache=False)
    assert gt.space == "world"
    message = (
        f"^{release}: its layout holds world-space fits; these were moved into camera space, each by its own"
    )
    refused(gt.to_camera_space(), tmp_path / FILE_NAMES[release], message)


def test_3dpw_without_extrinsics_is_as_it_stands(tmp_path: Path) -> None:
    written = write_release(tmp_path / "data", "3dpw-smplx", world=False)
    gt = load_pseudo_gt(written.path, cache=False)
    assert gt.space == "camera"
    moved = gt.to_camera_space()
    same(
        bare(saved(moved, tmp_path / "out")),
        bare(written.path),
    )


@pytest.mark.parametrize("name", ["fits", "fits.npz", "fits.json.gz", "fits.JSON"])
def test_unknown_suffix(name: str, released: Released, tmp_path: Path) -> None:
    gt = bare(released("ffhq-flame").path)
    message = rf"^{tmp_path / name}: cannot tell what to write; expected a \.json or \.safetensors name$"
    refused(gt, tmp_path / name, message)


@pytest.mark.parametrize("name", ["x.json", "x.safetensors"])
def test_no_folder(name: str, released: Released, tmp_path: Path) -> None:
    gt = bare(released("ffhq-flame").path)
    path = tmp_path / "none" / name
    message = f"^{path}: there is no folder {path.parent}; make it first$"
    refused(gt, path, message, FileNotFoundError)


@pytest.mark.parametrize("name", [FILE_NAMES["ffhq-flame"], "x.safetensors"])
def test_a_failing_write_leaves_the_old_file(
    name: str, released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuralannot import store

    def full(file, *rest: object) -> None:  # type: ignore[no-untyped-def]
        file.write("half" if "b" not in file.mode else b"half")
        file.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)

    gt = bare(released("ffhq-flame").path)
    path = tmp_path / name
    monkeypatch.setattr(writers, "_write_nested", full)
    monkeypatch.setattr(store, "_write_columns", full)
    refused(gt, path, "No space left on device", OSError)
    monkeypatch.undo()
    gt.save(path)
    before = path.read_bytes()
    monkeypatch.setattr(writers, "_write_nested", full)
    monkeypatch.setattr(store, "_write_columns", full)
    refused(gt.rows([0]), path, "No space left on device", OSError)
    assert path.read_bytes() == before


def test_saving_over_the_file_that_is_open(released: Released, tmp_path: Path) -> None:
    """The rows are read from the mapped file while the new one is written."""
    gt = bare(released("mscoco-smplx").path)
    path = saved(gt, tmp_path / "out", "x.safetensors")
    mapped = load_pseudo_gt(path)
    mapped.rows([2, 0]).save(path)
    same(load_pseudo_gt(path), gt.rows([2, 0]))
    same(mapped, gt)


def test_columns_of_something_else(tmp_path: Path) -> None:
    from neuralannot.store import write_table

    path = tmp_path / "x.safetensors"
    write_table(path, {"x": np.zeros(1)}, {"release": "mscoco-smpl"})
    with pytest.raises(ValueError, match=f"^{path}: not written by PseudoGT.save; load the JSON instead$"):
        load_pseudo_gt(path)
    path.write_bytes(b"cut")
    with pytest.raises(ValueError, match=f"^{path}: not a columns file: 3 bytes$"):
        load_pseudo_gt(path)
