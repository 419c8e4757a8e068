"""Views of one frame: grouped, the best of them, all of them; against loops over frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from neuralannot.joint_sets import JOINT_SETS
from neuralannot.train import views
from neuralannot.train.placing import place_by_joints, pose_joints
from neuralannot.train.views import KeyGroups, best_view, fuse_views, group_views

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


def body_params(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    params = {
        "global_orient": Rotation.random(count, random_state=rng).as_rotvec().reshape(-1, 3),
        "body_pose": rng.normal(0, 0.3, (count, 23, 3)),
        "betas": rng.normal(0, 1, (count, 10)),
        "transl": rng.uniform(-2, 2, (count, 3)),
    }
    return {name: values.astype(np.float32) for name, values in params.items()}


def human36m(params, rows):  # type: ignore[no-untyped-def]
    return pose_joints("smpl", params, JOINT_SETS["human36m-17"])


def some_point(params, rows):  # type: ignore[no-untyped-def]
    return params["transl"][:, None]


# --- groups and the best view


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 12), hands=st.booleans())
def test_groups_and_best_against_loops(seed: int, count: int, hands: bool) -> None:
    rng = np.random.default_rng(seed)
    keys = rng.integers(-2, 2, (count, 2))
    side = rng.choice(["right", "left"], count) if hands else None
    error = rng.choice([0.01, 0.02, np.nan], count)
    camera = rng.permutation(count)
    groups = group_views(keys, side)
    names = [(*key, "rl".index(s[0])) for key, s in zip(keys.tolist(), side, strict=True)] if hands else None
    names = names or [tuple(key) for key in keys.tolist()]
    wanted = sorted(set(names))
    found = [tuple(key) for key in groups.keys.tolist()]
    if groups.side is not None:
        found = [(*key, "rl".index(s[0])) for key, s in zip(found, groups.side, strict=True)]
    assert found == wanted
    assert [wanted[g] for g in groups.of_row] == names
    best = best_view(groups, error, camera)
    for group, name in enumerate(wanted):
        rows = [r for r in range(count) if names[r] == name and np.isfinite(error[r])]
        expected = min(rows, key=lambda r: (error[r], camera[r]), default=-1)
        assert best[group] == expected


def test_equal_errors_take_the_lower_camera_then_the_earlier_row() -> None:
    groups = group_views(np.array([[7], [7], [7]]))
    assert best_view(groups, np.full(3, 0.02), np.array([4, 1, 3])).tolist() == [1]
    assert best_view(groups, np.full(3, 0.02)).tolist() == [0]
    assert best_view(groups, np.array([0.02, 0.03, 0.01]), np.array([1, 2, 3])).tolist() == [2]
    assert best_view(groups, np.full(3, np.nan)).tolist() == [-1]


# --- fused views


def chordal(vectors: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(vectors).mean(weight).as_rotvec()  # scipy: the chordal mean, by quaternions


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_fused_against_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys = np.repeat([[1, 2], [1, 5], [3, 0]], [4, 1, 2], axis=0)
    params = body_params(rng, 7)
    error = rng.uniform(0, 0.02, 7)
    order = rng.permutation(7)
    keys, groups = keys[order], group_views(keys[order])
    target = rng.normal(size=(7, 1, 3))
    fused = fuse_views(params, groups, error, joints_world=target, joints_of=some_point)
    weight = 1 / np.maximum(error, 0.001) ** 2
    for g in range(3):
        rows = np.flatnonzero(groups.of_row == g)
        np.testing.assert_allclose(
            fused.params["betas"][g], np.average(params["betas"][rows], 0, weight[rows]), atol=1e-5
        )
        for found, given_ in (
            (fused.params["global_orient"][g], params["global_orient"][rows]),
            (fused.params["body_pose"][g, 20], params["body_pose"][rows, 20]),
        ):
            a, b = Rotation.from_rotvec(found), Rotation.from_rotvec(chordal(given_, weight[rows]))
            assert (a.inv() * b).magnitude() < 1e-4
        np.testing.assert_allclose(fused.params["transl"][g], target[rows, 0].mean(0), atol=1e-6)
    assert fused.used.tolist() == [4, 1, 2]
    assert fused.rows.tolist() == best_view(groups, error).tolist()


def test_one_view_or_equal_views_give_that_fit_back() -> None:
    rng = np.random.default_rng(0)
    truth = body_params(rng, 3)
    target = human36m(truth, None)
    rows = np.repeat(np.arange(3), [1, 4, 2])
    several = {name: values[rows] for name, values in truth.items()}
    several["transl"] = rng.normal(size=several["transl"].shape)  # of no interest
    fused = fuse_views(
        several,
        group_views(rows[:, None]),
        rng.uniform(0, 1, 7),
        joints_world=target[rows],
        joints_of=human36m,
    )
    for name in ("betas", "transl", "body_pose"):
        np.testing.assert_allclose(fused.params[name], truth[name], atol=1e-5)
    np.testing.assert_allclose(human36m(fused.params, None), target, atol=1e-5)
    assert fused.error.max() < 1e-5


def test_turning_the_world_turns_the_fit() -> None:
    rng = np.random.default_rng(1)
    params, R = body_params(rng, 6), Rotation.random(random_state=rng)
    target = rng.normal(size=(6, 17, 3))
    groups, error = group_views(np.array([[0], [0], [0], [1], [1], [1]])), rng.uniform(0.001, 0.02, 6)
    before = fuse_views(params, groups, error, joints_world=target, joints_of=human36m)
    turned = {**params, "global_orient": (R * Rotation.from_rotvec(params["global_orient"])).as_rotvec()}
    after = fuse_views(turned, groups, error, joints_world=target @ R.as_matrix().T, joints_of=human36m)
    wanted = R * Rotation.from_rotvec(before.params["global_orient"])
    assert (wanted.inv() * Rotation.from_rotvec(after.params["global_orient"])).magnitude().max() < 1e-5
    np.testing.assert_allclose(after.params["body_pose"], before.params["body_pose"], atol=1e-6)


def test_noisy_views_of_one_pose_fuse_to_less_error() -> None:
    """What the option is for: views that err independently."""
    rng = np.random.default_rng(2)
    truth = body_params(rng, 8)
    rows = np.repeat(np.arange(8), 4)
    target = human36m(truth, None)[rows]
    several = {name: values[rows].copy() for name, values in truth.items()}
    several["body_pose"] += rng.normal(0, 0.1, several["body_pose"].shape).astype(np.float32)
    several, error = place_by_joints(several, target, None, human36m)
    groups = group_views(rows[:, None])
    fused = fuse_views(several, groups, error, joints_world=target, joints_of=human36m)
    best = best_view(groups, error)
    one = {name: values[best] for name, values in several.items()}

    def off(params: dict[str, np.ndarray]) -> float:
        a, b = (Rotation.from_rotvec(p["body_pose"].reshape(-1, 3)) for p in (params, truth))
        return float((a.inv() * b).magnitude().mean())

    assert off(fused.params) < 0.7 * off(one)
    assert fused.error.mean() < error[best].mean()


def test_opposite_views_take_the_best() -> None:
    """Half a turn apart and equally good: no mean rotation is nearer than another."""
    params = body_params(np.random.default_rng(3), 2)
    params["global_orient"] = np.array([[0, 0, 0], [0, np.pi, 0]], np.float32)
    fused = fuse_views(
        params,
        group_views(np.zeros((2, 1), int)),
        np.full(2, 0.01),
        joints_world=np.zeros((2, 1, 3)),
        joints_of=some_point,
        camera=np.array([2, 1]),
    )
    np.testing.assert_allclose(fused.params["global_orient"], params["global_orient"][[1]], atol=1e-6)


def test_what_cannot_be_judged_does_not_count() -> None:
    params = body_params(np.random.default_rng(4), 4)
    groups = group_views(np.array([[5], [5], [6], [6]]))
    error = np.array([0.01, np.nan, np.nan, np.nan])
    params["body_pose"][1:] = np.nan
    target = np.ones((4, 2, 3))
    target[0, 1] = np.nan  # valid in the other view
    target[:2, 0, 0] = [0, 4]
    seen = []

    def two_points(given, rows):  # type: ignore[no-untyped-def]
        seen.extend(rows.tolist())
        return np.repeat(given["transl"][:, None], 2, axis=1)

    fused = fuse_views(params, groups, error, joints_world=target, joints_of=two_points)
    np.testing.assert_allclose(fused.params["body_pose"][0], params["body_pose"][0], atol=1e-6)
    np.testing.assert_allclose(fused.params["transl"][0], [1.5, 1, 1], atol=1e-6)
    assert np.isnan(fused.params["body_pose"][1]).all()
    assert np.isnan(fused.error[1])
    assert (fused.rows.tolist(), fused.used.tolist(), seen) == ([0, -1], [1, 0], [0])


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    params, keys = body_params(rng, 20), rng.integers(0, 7, (20, 1))
    options = {"joints_world": rng.normal(size=(20, 1, 3)), "joints_of": some_point}
    error = rng.uniform(0.001, 0.02, 20)
    whole = fuse_views(params, group_views(keys), error, **options)
    monkeypatch.setattr(views, "_CHUNK", 2)
    parts = fuse_views(params, group_views(keys), error, **options)
    for name in params:
        np.testing.assert_array_equal(parts.params[name], whole.params[name])


def test_nothing_to_fuse() -> None:
    params = body_params(np.random.default_rng(0), 0)
    groups = group_views(np.zeros((0, 3), int))
    fused = fuse_views(params, groups, np.zeros(0), joints_world=np.zeros((0, 17, 3)), joints_of=human36m)
    assert {name: values.shape for name, values in fused.params.items()} == {
        name: values.shape for name, values in params.items()
    }
    assert (len(groups), len(fused.error), len(best_view(groups, np.zeros(0)))) == (0, 0, 0)


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"^keys must be \(N, K\) integers, got float64 \(2, 1\)$"):
        group_views(np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"^side must be \(2,\) of right, left, got"):
        group_views(np.zeros((2, 1), int), np.array(["right"]))
    groups: KeyGroups = group_views(np.zeros((2, 1), int))
    with pytest.raises(ValueError, match=r"^error must be \(2,\), one an estimate, got \(3,\)$"):
        best_view(groups, np.zeros(3))
    with pytest.raises(ValueError, match=r"^camera must be \(2,\) like the errors, got \(1,\)$"):
        best_view(groups, np.zeros(2), np.zeros(1))
    with pytest.raises(ValueError, match=r"^errors are distances, got -1.0$"):
        best_view(groups, np.array([-1.0, 0]))
    params = body_params(np.random.default_rng(0), 3)
    with pytest.raises(ValueError, match=r"^global_orient must have 2 rows like the errors, got 3$"):
        fuse_views(params, groups, np.zeros(2), joints_world=np.zeros((2, 1, 3)), joints_of=some_point)
    with pytest.raises(ValueError, match=r"^floor must be a positive number of metres, got 0$"):
        fuse_views(params, groups, np.zeros(2), joints_world=[], joints_of=some_point, floor=0)
