"""`Samples`: rows of it, and parts of it put together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralannot.cameras import Camera
from neuralannot.joint_sets import JOINT_SETS, JointSet
from neuralannot.train.samples import REASONS, Samples, Skip, concatenate

JOINTS = JointSet("two", ("left_hip", "right_hip"))


def make(n: int = 4, *, mocap: bool = False, hands: bool = False, first: int = 0, **changes) -> Samples:
    rng = np.random.default_rng(n + first)
    fields = {
        "data_set": "mine",
        "images": Path("images"),
        "image_path": np.array([f"{i + first}.jpg" for i in range(n)], dtype="<U9"),
        "image_size": np.full((n, 2), 100),
        "box_xywh": rng.uniform(1, 20, (n, 4)).astype(np.float32),
        "ids": np.arange(n) + first,
        "keys": np.arange(n)[:, None] + first,
        "joint_set": JOINTS,
        "joints_2d": rng.uniform(0, 99, (n, 2, 2)).astype(np.float32),
        "joints_cam": rng.normal(size=(n, 2, 3)).astype(np.float32) if mocap else None,
        "camera": Camera.from_intrinsics(np.ones((n, 2)), np.zeros((n, 2)), np.full((n, 2), 100))
        if mocap
        else None,
        "side": np.array(["right", "left"])[np.arange(n) % 2] if hands else None,
    }
    return Samples(**(fields | changes))


def same(one: Samples, other: Samples) -> bool:
    def equal(a, b):
        if isinstance(a, Camera):
            return all(
                equal(getattr(a, f), getattr(b, f)) for f in ("focal", "princpt", "R", "t", "image_size")
            )
        if isinstance(a, np.ndarray):
            return a.dtype.kind == b.dtype.kind and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        return a == b

    return all(equal(getattr(one, f), getattr(other, f)) for f in Samples.__dataclass_fields__)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(0, 9), cut=st.integers(0, 9), mocap=st.booleans(), side=st.booleans())
def test_parts_put_together_are_the_whole(n, cut, mocap, side):
    whole = make(n, mocap=mocap, hands=side)
    assert same(concatenate([whole.rows(slice(cut)), whole.rows(slice(cut, None))]), whole)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n=st.integers(1, 9))
def test_rows_of_rows(data, n):
    whole = make(n, mocap=True, hands=True)
    one = data.draw(st.lists(st.integers(0, n - 1), min_size=1))
    two = data.draw(st.lists(st.integers(0, len(one) - 1)))
    assert same(whole.rows(one).rows(two), whole.rows(np.array(one)[np.array(two, int)]))
    mask = np.isin(np.arange(n), one)
    assert same(whole.rows(mask), whole.rows(np.flatnonzero(mask)))


def test_valid_is_where_joints_are_numbers():
    wild, mocap = make(3), make(3, mocap=True)
    wild.joints_2d[1, 0, 1] = np.nan
    mocap.joints_cam[2, 1, 2] = np.nan
    assert wild.valid.tolist() == [[True, True], [False, True], [True, True]]
    assert mocap.valid.tolist() == [[True, True], [True, True], [True, False]]
    assert (wild.is_mocap, mocap.is_mocap) == (False, True)


def test_skips_and_groups_are_kept_and_added():
    skips = (Skip(7, "crowd"), Skip(8, "no box", "left hand"), Skip(9, "crowd"))
    one, two = (
        make(2, groups=({"subject": "1"},), skipped=skips),
        make(1, groups=({"subject": "5"},), first=2),
    )
    both = concatenate([one, two])
    assert both.skipped == skips
    assert both.groups == ({"subject": "1"}, {"subject": "5"})
    assert both.rows([]).skipped == skips
    assert both.skipped_by_reason() == {"crowd": 2, "no box": 1}
    assert list(both.skipped_by_reason()) == [r for r in REASONS if r in ("crowd", "no box")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box_xywh": np.zeros((3, 4))}, r"box_xywh must be \(4, 4\), got \(3, 4\)"),
        ({"keys": np.zeros(4)}, r"keys must be \(4, 'K'\), got \(4,\)"),
        ({"joints_2d": np.zeros((4, 3, 2))}, r"joints_2d must be \(4, 2, 2\)"),
        ({"joint_set": JOINT_SETS["coco-17"]}, r"joints_2d must be \(4, 17, 2\)"),
        ({"joints_cam": np.zeros((4, 2, 3))}, "joints_cam and camera go together"),
        ({"camera": Camera.from_intrinsics(np.ones((3, 2)), np.ones((3, 2)))}, "4 rows with 3 cameras"),
        ({"side": np.array(["right", "left", "Left", "right"])}, "side must be 'right' or 'left'"),
    ],
)
def test_shapes_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_an_unknown_reason_is_refused():
    with pytest.raises(ValueError, match="unknown reason 'bad'; expected one of crowd"):
        Skip(1, "bad")


def test_what_cannot_be_put_together():
    with pytest.raises(ValueError, match="no samples"):
        concatenate([])
    with pytest.raises(ValueError, match="different data_set cannot be one: 'mine' and 'yours'"):
        concatenate([make(), make(data_set="yours")])
    with pytest.raises(ValueError, match="different is_mocap"):
        concatenate([make(), make(mocap=True)])
    with pytest.raises(ValueError, match="some parts have side, some have not"):
        concatenate([make(), make(hands=True)])
