"""Joint regressors: what is taken for one, and what is refused."""

from __future__ import annotations

import os

import numpy as np
import pytest

from neuralannot import JointRegressor, load_body_model
from neuralannot.body_models import BodyModel, joint_regressor
from neuralannot.body_models.joints import interhand_regressor

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


@pytest.fixture(scope="module")
def smpl() -> BodyModel:
    return load_body_model("smpl")


@pytest.mark.parametrize(
    ("weights", "names", "body", "message"),
    [
        (np.ones((2, 9)), ("a",), "open", r"a regressor of 1 joints must be \(1, V\), got \(2, 9\)"),
        (np.ones(9), ("a",), "open", r"must be \(1, V\), got \(9,\)"),
        (np.full((1, 9), np.nan), ("a",), "open", "weights must be finite"),
        (np.ones((1, 9)), ("a",), "mine", "body must be 'official' or 'open', got 'mine'"),
    ],
)
def test_what_is_no_regressor(weights, names, body, message):
    with pytest.raises(ValueError, match=message):
        JointRegressor(weights, names, body)


def test_equal_are_those_of_equal_weights_names_and_topology():
    weights = np.eye(2, 9)
    one = JointRegressor(weights, ("a", "b"))
    assert {one, JointRegressor(weights.copy(), ("a", "b"))} == {one}
    for other in (
        JointRegressor(weights * 2, ("a", "b")),
        JointRegressor(weights, ("a", "c")),
        JointRegressor(weights, ("a", "b"), body="open"),
        weights,
    ):
        assert not np.any(one == other)


def test_weights_are_the_regressor_s_own():
    weights = np.eye(2, 9, dtype=np.float32)
    made = JointRegressor(weights, ("a", "b"))
    weights[:] = 0
    assert made.weights.sum() == 2
    with pytest.raises(ValueError, match="read-only"):
        made.weights[0, 0] = 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (np.ones((2, 3, 4)), r"a regressor must be \(K, 6890\), got \(2, 3, 4\)"),
        (np.ones((2, 778)), r"a regressor for smpl must be \(K, 6890\), got \(2, 778\)"),
        (np.ones((2, 6890)), "garbage on the open body.*human36m-17"),
        ([5, 6890], "vertex 6890 is not there; vertices are 0 to 6889"),
        ([-1], "vertex -1 is not there"),
        ("interhand-21", "no interhand-21-right regressor for the open smpl; there are .*human36m-17"),
        ("mpii-16", "no mpii-16 regressor for the open smpl"),
    ],
)
def test_what_does_not_fit_the_model(asked, message, smpl):
    with pytest.raises(ValueError, match=message):
        joint_regressor(asked, smpl)


def test_files(smpl, tmp_path):
    path = tmp_path / "mine.npy"
    with pytest.raises(FileNotFoundError, match=r"mine.npy: no such regressor file; nor is it .*human36m-17"):
        joint_regressor(path, smpl)
    np.save(path, np.ones((2, 3, 6890)))
    with pytest.raises(ValueError, match=r"mine.npy: a regressor must be \(K, V\), got \(2, 3, 6890\)"):
        joint_regressor(path, smpl)
    # One that was replaced is read again.
    for count in (2, 3):
        np.save(path, np.ones((count, 778)))
        os.utime(path, ns=(count, count))
        with pytest.raises(ValueError, match=rf"must be \(K, 6890\), got \({count}, 778\)"):
            joint_regressor(str(path), smpl)
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"mine\.npy"):
        joint_regressor(path, smpl)


def test_hands_joints_are_those_of_hands(smpl):
    with pytest.raises(ValueError, match="interhand-21 is a hand's; got smpl"):
        interhand_regressor(smpl)
    for side in ("right", "left"):
        found = interhand_regressor(load_body_model("mano", side=side))
        assert (found.weights.shape, found.body) == ((21, 778), "open")
        assert found == joint_regressor("interhand-21", load_body_model("mano", side=side))
