"""Merging body, hands and face: wrists come back, hands lie where MANO has them, what is absent says so."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from neuralannot import PseudoGT, load_pseudo_gt
from neuralannot.body_models import load_body_model
from neuralannot.joint_sets import JOINT_SETS
from neuralannot.train.released import pseudo_gt_of, save_release
from neuralannot.train.whole_body import local_wrists, merge_whole_body

pytestmark = pytest.mark.filterwarnings("ignore:no official body models")

SIDES = ("left", "right")


def camera(count: int) -> dict[str, np.ndarray]:
    return {"focal": np.full((count, 2), 4000.0), "princpt": np.full((count, 2), 200.0)}


def angles(rng: np.random.Generator, count: int, joints: int, sigma: float = 0.3) -> np.ndarray:
    return rng.normal(0, sigma, (count, joints, 3)).astype(np.float32)


def bodies(rng: np.random.Generator, ids: list[int], **more: Any) -> PseudoGT:
    n = len(ids)
    params = {
        "global_orient": Rotation.random(n, random_state=rng).as_rotvec().reshape(n, 3),
        "body_pose": angles(rng, n, 21),
        "betas": np.zeros((n, 10)),
        "transl": rng.uniform(-0.2, 0.2, (n, 3)) + np.array([0, 0, 8]),
    }
    return pseudo_gt_of("mscoco-smplx", params | more, ids=np.array(ids, int), **camera(n))


@functools.cache
def smplx_parents() -> list[int]:
    return load_body_model("smplx").parents.tolist()


def wrist_frames(body: PseudoGT) -> np.ndarray:
    """(N, 2, 3, 3) global rotations of the wrists, by walking the model's own tree."""
    parents = smplx_parents()
    found = np.zeros((len(body), 2, 3, 3))
    for row in range(len(body)):
        pose = np.concatenate([body.params["global_orient"][row][None], body.params["body_pose"][row]])
        for place, side in enumerate(SIDES):
            joint = JOINT_SETS["smplx"].joints.index(f"{side}_wrist")
            R = np.eye(3)
            while joint >= 0:
                R = Rotation.from_rotvec(pose[joint]).as_matrix() @ R
                joint = parents[joint]
            found[row, place] = R
    return found


def hands_of(rng: np.random.Generator, body: PseudoGT, rows: list[tuple[int, str]]) -> PseudoGT:
    """MANO fits that hang on these bodies' wrists."""
    frames = wrist_frames(body)
    n = len(rows)
    R = np.array([frames[row, SIDES.index(side)] for row, side in rows]).reshape(n, 3, 3)
    params = {
        "global_orient": Rotation.from_matrix(R).as_rotvec() if n else np.zeros((0, 3)),
        "hand_pose": angles(rng, n, 15),
        "betas": np.zeros((n, 10)),
        "transl": np.ones((n, 3)),
    }
    ids = np.array([body.ids[row] for row, _ in rows], int)
    sides = np.array([side for _, side in rows], dtype="<U5")
    return pseudo_gt_of("mscoco-mano", params, ids=ids, side=sides, **camera(n))


def faces(rng: np.random.Generator, ids: list[int]) -> PseudoGT:
    n = len(ids)
    params = {
        "global_orient": rng.normal(size=(n, 3)),
        "jaw_pose": angles(rng, n, 1, 0.1)[:, 0],
        "expression": rng.normal(size=(n, 10)),
        "betas": rng.normal(size=(n, 10)),
    }
    return pseudo_gt_of("mscoco-flame", params, ids=np.array(ids, int), **camera(n))


def differ(a: np.ndarray, b: np.ndarray) -> float:
    """The largest angle between two sets of rotation vectors, radians."""
    one, other = (Rotation.from_rotvec(v.reshape(-1, 3)) for v in (a, b))
    return float((one.inv() * other).magnitude().max(initial=0))


# --- wrists


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 3))
def test_known_wrists_come_back(seed: int, count: int) -> None:
    """Of a body whose wrists were lost, the hands that hung on it give them back."""
    rng = np.random.default_rng(seed)
    truth = bodies(rng, list(range(10, 10 + count)))
    hands = hands_of(rng, truth, [(row, side) for row in range(count) for side in SIDES])
    pose = np.array(truth.params["body_pose"])
    pose[:, 19:] = rng.normal(size=(count, 2, 3))
    lost = pseudo_gt_of("mscoco-smplx", {**truth.params, "body_pose": pose}, ids=truth.ids, **camera(count))
    merged = merge_whole_body(lost, hands)
    assert differ(merged.gt.params["body_pose"], truth.params["body_pose"]) < 3e-6
    for name in ("global_orient", "betas", "transl"):
        np.testing.assert_array_equal(merged.gt.params[name], truth.params[name])
    for place, side in enumerate(SIDES):
        mine = hands.rows(hands.side == side)
        np.testing.assert_array_equal(merged.gt.params[f"{side}_hand_pose"], mine.params["hand_pose"])
        wanted = Rotation.from_rotvec(truth.params["body_pose"][:, 19 + place]).magnitude()
        np.testing.assert_allclose(merged.wrist_angle[:, place], wanted, atol=3e-6)
    np.testing.assert_array_equal(lost.params["body_pose"], pose.astype(np.float32))  # not written to


def test_turning_everything_leaves_the_wrists() -> None:
    rng = np.random.default_rng(0)
    body, R = bodies(rng, [1, 2]), Rotation.random(random_state=rng)
    hand = rng.normal(size=(2, 3))
    root = body.params["global_orient"]
    before = local_wrists(root, body.params["body_pose"], hand, "left")
    turned = [(R * Rotation.from_rotvec(v)).as_rotvec() for v in (root, hand)]
    assert differ(local_wrists(turned[0], body.params["body_pose"], turned[1], "left"), before) < 1e-6
    with pytest.raises(ValueError, match=r"^side must be 'left' or 'right', got 'Left'$"):
        local_wrists(root, body.params["body_pose"], hand, "Left")


@pytest.mark.parametrize("side", SIDES)
def test_the_merged_hand_is_manos(side: str) -> None:
    """Vertex by vertex, up to a translation; the open hand's vertices are some of the open whole body's."""
    rng = np.random.default_rng(7)
    body = bodies(rng, [3, 4], body_pose=angles(rng, 2, 21, 0.2))
    hands = hands_of(rng, body, [(0, side), (1, side)])
    wild = np.array(body.params["body_pose"])
    wild[:, 19:] += 1
    lost = pseudo_gt_of("mscoco-smplx", {**body.params, "body_pose": wild}, ids=body.ids, **camera(2))
    whole, hand = load_body_model("smplx"), load_body_model("mano", side=side)
    index = hand_vertices(whole, hand, side)
    wrist = JOINT_SETS["smplx"].joints.index(f"{side}_wrist")
    # Those that nothing but the hand moves: near the cut the forearm pulls, which MANO does not have.
    fingers = list(range(25, 40)) if side == "left" else list(range(40, 55))
    mine = whole.lbs_weights[index][:, [wrist, *fingers]].sum(1) > 0.9999
    assert mine.sum() > 600
    wanted = hands.forward().vertices[:, mine].numpy()
    off = []
    for gt in (merge_whole_body(lost, hands).gt, merge_whole_body(lost).gt):
        found = gt.forward().vertices[:, index][:, mine].numpy()
        shift = found - wanted
        off.append(np.linalg.norm(shift - shift.mean(axis=1, keepdims=True), axis=-1))
    assert off[0].max() < 0.002  # the bodies' correctives at the wrist
    assert off[0].mean() < 0.0005
    assert off[1].mean() > 0.02


def hand_vertices(whole, hand, side: str) -> np.ndarray:  # type: ignore[no-untyped-def]
    """(778,) the whole body's vertices that are the hand's: the nearest at rest, one on the other."""
    rest, template = whole.v_template.numpy(), hand.v_template.numpy()
    wrist = JOINT_SETS["smplx"].joints.index(f"{side}_wrist")
    shift = (
        whole.rest_root(torch.zeros(1, 10)) * 0 + whole.joints(betas=torch.zeros(1, 10))[:, wrist]
    ).numpy()
    shift = shift - hand.rest_root(torch.zeros(1, 10)).numpy()
    tree = cKDTree(rest)
    for _ in range(10):
        distance, index = tree.query(template + shift)
        shift = np.median(rest[index] - template, axis=0)
    assert distance.max() < 1e-5
    assert len(set(index.tolist())) == len(index)
    return index


# --- who has what


def test_absent_parts_are_zero_and_not_valid(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    own = {"left_hand_pose": angles(rng, 4, 15), "right_hand_pose": angles(rng, 4, 15)}
    own |= {"jaw_pose": np.ones((4, 3)), "expression": np.ones((4, 10))}
    body = bodies(rng, [40, 7, 99, 8], **own)
    hands = hands_of(rng, body, [(1, "right"), (2, "left"), (0, "right"), (0, "left")])
    face = faces(rng, [99, 40])
    merged = merge_whole_body(body, hands, face)
    gt = merged.gt
    assert gt.ids.tolist() == [40, 7, 99, 8]
    flags = {part: gt.valid[part].tolist() for part in gt.valid}
    assert flags == {
        "body": [True] * 4,
        "left_hand": [True, False, True, False],
        "right_hand": [True, True, False, False],
        "face": [True, False, True, False],
    }
    for part, names in {"face": ("jaw_pose", "expression"), "left_hand": ("left_hand_pose",)}.items():
        for name in names:
            assert not gt.params[name][~gt.valid[part]].any()
            assert gt.params[name][gt.valid[part]].any(axis=tuple(range(1, gt.params[name].ndim))).all()
    np.testing.assert_array_equal(gt.params["expression"][[2, 0]], face.params["expression"])
    np.testing.assert_array_equal(gt.params["jaw_pose"][[2, 0]], face.params["jaw_pose"])
    np.testing.assert_array_equal(gt.params["body_pose"][3], body.params["body_pose"][3])
    np.testing.assert_array_equal(
        np.isnan(merged.wrist_angle), ~np.stack([flags["left_hand"], flags["right_hand"]], 1)
    )

    path = tmp_path / "MSCOCO_train_SMPLX_all_NeuralAnnot.json"
    merged.save(path)
    back = load_pseudo_gt(path, cache=False)
    for name in gt.view.names():
        assert back.view.column(name).tobytes() == gt.view.column(name).tobytes(), name
    content = json.loads(path.read_text())
    assert {"lhand_pose", "jaw_pose", "expr"} <= set(content["40"]["smplx_param"])
    assert not {"lhand_pose", "rhand_pose", "jaw_pose", "expr"} & set(content["8"]["smplx_param"])


def test_what_has_no_body_is_listed() -> None:
    rng = np.random.default_rng(2)
    others = bodies(rng, [5, 6, 7])
    hands = hands_of(rng, others, [(0, "right"), (0, "left"), (2, "left"), (1, "right")])
    merged = merge_whole_body(others.rows([1]), hands, faces(rng, [7, 6, 4]))
    assert merged.hands_without_body.tolist() == [[5, 0], [7, 0], [5, 1]]
    assert merged.faces_without_body.tolist() == [7, 4]
    assert str(merged) == (
        "1 bodies: 0 with a left hand, 1 with a right one, 1 with a face\n"
        "wrists turned more than 90 degrees, kept: 0 left, 0 right\n"
        "left out, no body of their id: 3 hands, 2 faces"
    )


def test_implausible_wrists_are_kept_and_counted() -> None:
    rng = np.random.default_rng(3)
    pose = angles(rng, 2, 21, 0.1)
    pose[1, 20] = [0, 2.5, 0]
    body = bodies(rng, [1, 2], body_pose=pose)
    merged = merge_whole_body(body, hands_of(rng, body, [(r, s) for r in (0, 1) for s in SIDES]))
    assert merged.implausible.tolist() == [[False, False], [False, True]]
    assert merged.gt.valid["right_hand"].all()
    assert differ(merged.gt.params["body_pose"][1, 20], pose[1, 20]) < 1e-5
    assert "kept: 0 left, 1 right" in str(merged)
    assert not merge_whole_body(body, limit=3.0).implausible.any()


def test_nothing_to_merge() -> None:
    rng = np.random.default_rng(4)
    body = bodies(rng, [1, 2])
    alone = merge_whole_body(body)
    assert not any(alone.gt.valid[part].any() for part in ("left_hand", "right_hand", "face"))
    np.testing.assert_array_equal(alone.gt.params["body_pose"], body.params["body_pose"])
    none = merge_whole_body(body.rows([]), hands_of(rng, body, []), faces(rng, []))
    assert len(none) == 0
    assert none.gt.model == "smplx"


def test_another_layout_and_gender(tmp_path: Path) -> None:
    body = bodies(np.random.default_rng(5), [1, 2])
    gender = np.array(["male", "female"])
    gendered = pseudo_gt_of("mpii-smplx", dict(body.params), ids=body.ids, gender=gender, **camera(2))
    gt = merge_whole_body(gendered).gt
    assert (gt.release, gt.gender.tolist()) == ("mpii-smplx", ["male", "female"])
    path = save_release(merge_whole_body(gendered, release="mscoco-smplx").gt, tmp_path)[0]
    assert path.name == "MSCOCO_train_SMPLX_all_NeuralAnnot.json"


def test_what_cannot_be_merged() -> None:
    rng = np.random.default_rng(6)
    body = bodies(rng, [1, 2])
    hands = hands_of(rng, body, [(0, "right")])
    with pytest.raises(ValueError, match=r"^body must be smplx fits, got mscoco-mano, which are mano's$"):
        merge_whole_body(hands)
    with pytest.raises(ValueError, match=r"^hands must be mano fits, got mscoco-smplx, which are smplx's$"):
        merge_whole_body(body, body)
    with pytest.raises(ValueError, match=r"^body: annotation 1 is in more than one row; merge one fit$"):
        merge_whole_body(body.rows([0, 0]))
    with pytest.raises(ValueError, match=r"^hands: annotation 1 is in more than one row"):
        merge_whole_body(body, hands.rows([0, 0]))
    world = pseudo_gt_of("mpi-inf-3dhp-smplx", dict(body.params), keys=[[1, 1, 0], [1, 1, 5]])
    with pytest.raises(
        ValueError, match=r"^body: mpi-inf-3dhp-smplx is in world space; only fits of one image"
    ):
        merge_whole_body(world)
