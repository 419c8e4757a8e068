"""Quality as columns: they follow their rows everywhere, and are found again only for what was measured."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import FILE_NAMES, write_release

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.quality_columns import LIMITS, Limits, load_quality, passing, quality_file, save_quality
from neuralannot.store import StoreError


def columns(count: int) -> dict[str, np.ndarray]:
    return {
        "error": np.arange(count, dtype=np.float32),
        "self_penetration": np.arange(count) % 2 == 0,
        "prior": np.where(np.arange(count) == 1, np.nan, 0.5).astype(np.float32),
    }


def loaded(folder: Path, name: str = "mscoco-smpl") -> tuple[PseudoGT, Path]:
    written = write_release(folder, name)
    return load_pseudo_gt(written.path, cache=False), written.path


def same(one: PseudoGT, other: PseudoGT) -> None:
    assert list(one.quality) == list(other.quality)
    for name in one.quality:
        np.testing.assert_array_equal(one.quality[name], other.quality[name])
        assert one.quality[name].dtype == other.quality[name].dtype


# --- with their rows


def test_none_was_attached(tmp_path: Path) -> None:
    gt, _ = loaded(tmp_path)
    assert len(gt.quality) == 0
    assert dict(gt.with_quality({}).quality) == {}


def test_columns_follow_rows_slices_keys_and_pickles(tmp_path: Path) -> None:
    gt, _ = loaded(tmp_path)
    wanted = columns(len(gt))
    rated = gt.with_quality(wanted)
    assert len(gt.quality) == 0  # the one it was made of has none
    rows = np.array([3, 0, 3])
    for part, index in (
        (rated, np.arange(len(gt))),
        (rated.rows(rows), rows),
        (rated[1:4], np.arange(1, 4)),
        (rated[int(gt.ids[2])], np.array([2])),
        (pickle.loads(pickle.dumps(rated.rows(rows))), rows),
    ):
        np.testing.assert_array_equal(part.ids, gt.ids[index])
        for name, values in wanted.items():
            np.testing.assert_array_equal(part.quality[name], values[index])
    assert rated.quality["self_penetration"].dtype == bool
    # What else rows have is as it was.
    np.testing.assert_array_equal(rated.params["betas"], gt.params["betas"])
    np.testing.assert_array_equal(rated.rows(rows).box_xywh, gt.box_xywh[rows])


def test_columns_of_the_same_name_are_replaced_others_kept(tmp_path: Path) -> None:
    gt, _ = loaded(tmp_path)
    gt = gt.with_quality({"error": np.zeros(len(gt)), "mine": np.ones(len(gt), int)})
    part = gt.rows([2, 1]).with_quality({"error": [5.0, 6.0]})
    np.testing.assert_array_equal(part.quality["error"], [5, 6])
    np.testing.assert_array_equal(part.quality["mine"], [1, 1])
    assert part.quality["mine"].dtype == np.float32


@pytest.mark.parametrize(
    ("given_columns", "error", "message"),
    [
        ({"error": np.zeros(5)}, ValueError, r"must be \(6,\), one value a row, got \(5,\)"),
        ({"Error!": np.zeros(6)}, ValueError, "small letters, digits and _, got 'Error!'"),
        ({"error": np.array(list("abcdef"))}, TypeError, "numbers or flags, got <U1"),
    ],
)
def test_columns_that_cannot_be(tmp_path: Path, given_columns: dict, error: type, message: str) -> None:
    gt, _ = loaded(tmp_path)
    assert len(gt) == 6
    with pytest.raises(error, match=message):
        gt.with_quality(given_columns)


# --- filtering


def test_filter_keeps_what_is_within_all_limits(tmp_path: Path) -> None:
    gt, _ = loaded(tmp_path)
    gt = gt.with_quality(columns(len(gt)))
    assert gt.filter().ids.tolist() == gt.ids.tolist()
    assert gt.filter(max_error=3).quality["error"].tolist() == [0, 1, 2, 3]
    assert gt.filter(max_error=3, plausible=True).quality["error"].tolist() == [1, 3]
    # NaN: not measured, so no limit speaks about it
    assert gt.filter(max_prior=0.6, max_error=2).quality["error"].tolist() == [0, 1, 2]
    assert gt.filter(max_prior=0.6, max_error=2, unmeasured="drop").quality["error"].tolist() == [0, 2]
    assert len(gt.filter(max_prior=0.1, unmeasured="drop")) == 0
    assert len(gt[:0].filter(max_error=1)) == 0
    assert gt.filter(max_error=math.inf).ids.tolist() == gt.ids.tolist()


def test_a_joint_behind_the_camera_is_never_kept(tmp_path: Path) -> None:
    gt, _ = loaded(tmp_path)
    gt = gt.with_quality({"reprojection": [1, np.inf, np.nan, 2, 3, 4]})
    assert gt.filter(max_reprojection=1e30).ids.tolist() == gt.ids[[0, 2, 3, 4, 5]].tolist()


def test_filter_says_what_is_missing(tmp_path: Path) -> None:
    gt, _ = loaded(tmp_path)
    with pytest.raises(
        ValueError, match=r"max_error needs .* 'error'; there are none; .*`neuralannot quality"
    ):
        gt.filter(max_error=0.1)
    rated = gt.with_quality({"prior": np.zeros(6)})
    with pytest.raises(ValueError, match="max_bend needs the quality column 'bend'; there are prior; "):
        rated.filter(max_bend=0.1)
    with pytest.raises(ValueError, match="plausible=True needs the quality column 'implausible_bend'"):
        rated.filter(plausible=True)
    with pytest.raises(ValueError, match="max_prior must be a number of at least 0, got nan"):
        rated.filter(max_prior=float("nan"))
    with pytest.raises(ValueError, match="unmeasured must be 'keep' or 'drop', got 'no'"):
        rated.filter(max_prior=1, unmeasured="no")


def test_every_limit_is_an_option_of_filter(tmp_path: Path) -> None:
    gt, _ = loaded(tmp_path)
    rated = gt.with_quality({name: np.arange(6.0) for name in LIMITS.values()})
    assert list(Limits.__annotations__) == list(LIMITS)
    for option in LIMITS:
        assert len(rated.filter(**{option: 2.5})) == 3  # type: ignore[arg-type]
    assert len(rated.filter(max_error=None)) == 6
    with pytest.raises(ValueError, match=r"^no limit is called 'max_eror'; there are max_reprojection, "):
        rated.filter(max_eror=1)  # type: ignore[call-arg]


_VALUES = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, math.nan, math.inf]), min_size=0, max_size=12)


@given(_VALUES, st.sampled_from([0.0, 0.5, 1.5]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_passing_against_a_slow_twin(values: list[float], limit: float, drop: bool) -> None:
    kept = passing(
        {"error": np.array(values, np.float32)},
        len(values),
        {"max_error": limit},
        plausible=False,
        unmeasured="drop" if drop else "keep",
    )
    assert kept.tolist() == [(not drop) if math.isnan(v) else v <= limit for v in values]


# --- on disk


def test_saved_columns_hold_them(tmp_path: Path) -> None:
    gt, _ = loaded(tmp_path)
    rated = gt.with_quality(columns(6)).rows([4, 1])
    rated.save(tmp_path / "rows.safetensors")
    same(load_pseudo_gt(tmp_path / "rows.safetensors"), rated)


@pytest.mark.parametrize("name", FILE_NAMES)
def test_beside_a_json_of_every_release(name: str, tmp_path: Path) -> None:
    gt, path = loaded(tmp_path / "a", name)
    rated = gt.with_quality(columns(len(gt)))
    place = save_quality(rated, path)
    assert place == path.with_name(path.stem + ".quality.safetensors") == quality_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(load_pseudo_gt(path, cache=False), rated)
        again = load_pseudo_gt(path)  # mapped columns, as users load
    same(pickle.loads(pickle.dumps(again)), rated)
    same(again.rows([1, 0]), rated.rows([1, 0]))


def test_a_filtered_json_takes_its_quality_along(tmp_path: Path) -> None:
    gt, path = loaded(tmp_path / "a", "mscoco-mano")
    kept = gt.with_quality(columns(len(gt))).filter(max_error=2)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    kept.save(tmp_path / "b" / path.name)
    back = load_pseudo_gt(tmp_path / "b" / path.name, cache=False)
    assert len(back) == 3
    same(back, kept)


def test_fewer_rows_or_another_order_than_measured(tmp_path: Path) -> None:
    """The file may hold more: a part of the subjects, rows written anew in another order."""
    gt, path = loaded(tmp_path)
    rated = gt.with_quality(columns(6))
    save_quality(rated.rows([5, 3, 0, 1, 2, 4]), path)
    same(load_pseudo_gt(path, cache=False), rated)
    same(load_quality(gt.rows([4, 2]), path), rated.rows([4, 2]))


def test_stale_is_refused(tmp_path: Path) -> None:
    gt, path = loaded(tmp_path)
    save_quality(gt.with_quality(columns(6)), path)
    content = json.loads(path.read_text())
    key = str(gt.ids[2])
    content[key]["smpl_param"]["pose"][40] += 1e-4
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=rf"stale: the parameters of id {key} are not .* \(1 of 6 rows"):
        back = load_pseudo_gt(path, cache=False)
    assert len(back.quality) == 0
    with pytest.raises(ValueError, match="stale: the parameters of id"):
        load_quality(back, path)
    # another annotation
    content["999999"] = content.pop(key)
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="stale: id 999999 is not among the rows that were measured"):
        load_pseudo_gt(path, annotations=False, cache=False)


def test_two_rows_whose_parameters_changed_places(tmp_path: Path) -> None:
    gt, path = loaded(tmp_path)
    save_quality(gt.with_quality(columns(6)), path)
    content = json.loads(path.read_text())
    a, b = (str(i) for i in gt.ids[:2])
    content[a], content[b] = content[b], content[a]
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="2 of 6 rows differ"):
        load_pseudo_gt(path, cache=False)


def test_measured_joined_and_loaded_by_frame(tmp_path: Path) -> None:
    gt, path = loaded(tmp_path, "human36m-smpl")
    save_quality(gt.with_quality(columns(len(gt))), path)
    with pytest.warns(UserWarning, match=r"measured joined with annotations, .* was loaded by frame key"):
        back = load_pseudo_gt(path, annotations=False, cache=False)
    assert len(back.quality) == 0


def test_damaged_or_another_file(tmp_path: Path) -> None:
    gt, path = loaded(tmp_path)
    place = save_quality(gt.with_quality(columns(6)), path)
    whole = place.read_bytes()
    place.write_bytes(whole[:-3])
    with pytest.warns(UserWarning, match="not a whole columns file"):
        assert len(load_pseudo_gt(path, cache=False).quality) == 0
    gt.save(tmp_path / "rows.safetensors")
    shutil.copy(tmp_path / "rows.safetensors", place)
    with pytest.warns(UserWarning, match="not written by save_quality"):
        load_pseudo_gt(path, cache=False)
    place.unlink()
    with pytest.raises(FileNotFoundError):
        load_quality(gt, path)
    (tmp_path / "x.quality.safetensors").write_bytes(b"no")
    with pytest.raises(StoreError, match="not a columns file"):
        load_quality(gt, tmp_path / "x.quality.safetensors")
    with pytest.raises(ValueError, match="has no quality columns; measure them"):
        save_quality(gt, path)


def test_several_subjects(tmp_path: Path) -> None:
    """Each file has its own; where one lacks it, none is taken."""
    gt, path = loaded(tmp_path, "human36m-smpl")
    other = tmp_path / path.name.replace("subject1", "subject5")
    for file in list(tmp_path.glob("*subject1*.json")):
        text = file.read_text()
        if "data" in file.name:
            data = json.loads(text)
            for image in data["images"]:
                image["subject"] = 5
                image["id"] += 10_000
            for ann in data["annotations"]:
                ann["id"] += 10_000
                ann["image_id"] += 10_000
            text = json.dumps(data)
        (tmp_path / file.name.replace("subject1", "subject5")).write_text(text)
    both = load_pseudo_gt([path, other], cache=False)
    assert len(both) == 2 * len(gt)
    rated = both.with_quality(columns(len(both)))
    save_quality(rated[: len(gt)], path)
    with pytest.warns(UserWarning, match="not every file of human36m-smpl that was loaded has one"):
        assert len(load_pseudo_gt([path, other], cache=False).quality) == 0
    save_quality(rated[len(gt) :], other)
    same(load_pseudo_gt([path, other], cache=False), rated)
    same(load_pseudo_gt(path, cache=False), rated[: len(gt)])


def test_camera_space_rows_keep_theirs(tmp_path: Path) -> None:
    gt, _ = loaded(tmp_path, "human36m-smpl")
    rated = gt.with_quality(columns(len(gt)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(rated.to_camera_space(), rated)
