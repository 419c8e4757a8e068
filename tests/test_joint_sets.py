"""Joint sets: order against smplx and annotation files, maps as index algebra, geometry of real joints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from smplx import joint_names as smplx_names

from neuralannot.joint_sets import (
    JOINT_SETS,
    JointSet,
    convert_joints,
    get_joint_set,
    map_joints,
    mirror_index,
)

SET_NAMES = list(JOINT_SETS)
set_names = st.sampled_from(SET_NAMES)


@pytest.fixture
def data_folder():
    folder = os.environ.get("NEURALANNOT_TEST_DATA")
    if not folder:
        pytest.skip("NEURALANNOT_TEST_DATA names no folder of real data")
    return Path(folder)


def read_json(path):
    if not path.exists():
        pytest.skip(f"{path.name} is not in NEURALANNOT_TEST_DATA")
    return json.loads(path.read_text())


def leaves(tree):
    """The lists at the bottom of nested dictionaries."""
    if not isinstance(tree, dict):
        return [tree]
    return [leaf for value in tree.values() for leaf in leaves(value)]


# --- order and names


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("smpl", 45),
        ("smplx", 127),
        ("mano-right", 16),
        ("mano-left", 16),
        ("flame", 56),
        ("coco-17", 17),
        ("coco-wholebody-133", 133),
        ("coco-wholebody-face-68", 68),
        ("coco-wholebody-hand-21-left", 21),
        ("coco-wholebody-hand-21-right", 21),
        ("human36m-17", 17),
        ("mpi-inf-3dhp-17", 17),
        ("mpii-16", 16),
        ("interhand-21-right", 21),
        ("interhand-21-left", 21),
        ("interhand-42", 42),
    ],
)
def test_counts_and_keys(name, count):
    assert len(JOINT_SETS[name]) == count
    assert JOINT_SETS[name].name == name


def test_model_sets_are_smplx_own_order():
    names = tuple(smplx_names.JOINT_NAMES)
    hands = smplx_names.SMPLH_JOINT_NAMES
    assert JOINT_SETS["smplx"].joints == names[:127]
    # SMPL is SMPL-H with one joint per hand instead of its fingers.
    body, appended = hands[: hands.index("left_index1")], hands[hands.index("nose") :]
    assert JOINT_SETS["smpl"].joints == (*body, "left_hand", "right_hand", *appended)
    for side in ("left", "right"):
        start = names.index(f"{side}_index1")
        assert JOINT_SETS[f"mano-{side}"].joints == (f"{side}_wrist", *names[start : start + 15])
    assert JOINT_SETS["flame"].joints[2:5] == ("jaw", "left_eye_smplhf", "right_eye_smplhf")
    assert JOINT_SETS["flame"].joints[5:] == names[76:127]


def test_coco_face_is_contour_then_the_landmarks_of_the_models():
    face = JOINT_SETS["coco-wholebody-133"].joints[23:91]
    assert face[:17] == tuple(smplx_names.JOINT_NAMES[127:])
    assert face[17:] == JOINT_SETS["flame"].joints[5:]


def test_names_outside_smplx_are_the_documented_ones():
    known = {*smplx_names.JOINT_NAMES, "left_hand", "right_hand"}
    others = {joint for s in JOINT_SETS.values() for joint in s.joints} - known
    assert others == {
        *("torso_h36m", "neck_h36m", "nose_h36m", "head_top_h36m"),
        *("neck_3dhp", "spine_3dhp", "head_3dhp", "head_top", "thorax_mpii", "neck_mpii"),
        "neck_crowdpose",
        *("root_flame", "neck_flame", "left_hand_root", "right_hand_root"),
    }


def test_coco_order_and_skeleton_equal_the_annotation_file(data_folder):
    (category,) = read_json(data_folder / "coco" / "person_keypoints.json")["categories"]
    coco = JOINT_SETS["coco-17"]
    assert list(coco.joints) == category["keypoints"]
    assert {frozenset(edge) for edge in coco.skeleton} == {
        frozenset((a - 1, b - 1)) for a, b in category["skeleton"]
    }


# --- skeletons and mirroring


@pytest.mark.parametrize("name", SET_NAMES)
def test_skeleton_has_no_loose_or_repeated_edge_and_is_symmetric(name):
    joint_set = JOINT_SETS[name]
    edges = {frozenset(edge) for edge in joint_set.skeleton}
    assert len(edges) == len(joint_set.skeleton)
    assert all(len(edge) == 2 for edge in edges)
    drawn = {i for edge in edges for i in edge}
    assert drawn == set(range(len(joint_set)))
    mirror = mirror_index(name)
    assert {frozenset(int(mirror[i]) for i in edge) for edge in edges} == edges


@pytest.mark.parametrize("name", SET_NAMES)
def test_mirror_is_an_involution_that_swaps_the_sides(name):
    joint_set = JOINT_SETS[name]
    mirror = mirror_index(joint_set)
    assert mirror.dtype == np.int64
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(joint_set)))
    sides = {joint.split("_")[0] for joint in joint_set.joints}
    one_hand = ("left" in sides) != ("right" in sides)
    for joint, i in zip(joint_set.joints, mirror, strict=True):
        other = joint
        if not one_hand:
            other = joint.replace("left_", "right_") if "left_" in joint else joint.replace("right_", "left_")
        assert joint_set.joints[i] == other


def test_flip_pairs_of_coco_are_the_published_ones():
    pairs = JOINT_SETS["coco-17"].flip_pairs
    assert pairs == ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))
    face = {
        (min(p), max(p)) for p in JOINT_SETS["coco-wholebody-133"].flip_pairs if all(23 <= i < 91 for i in p)
    }
    contour = {(23 + i, 39 - i) for i in range(8)}
    brows = {(40 + i, 49 - i) for i in range(5)}
    # Index pairs of the 68-point scheme, from 23: eye corners 36-45 and 39-42, mouth corners 48-54.
    assert contour | brows | {(59, 68), (62, 65), (71, 77)} <= face
    assert len(face) == 29


def test_mirrored_hand_is_the_other_hand_in_the_same_order():
    for left, right in (("mano-left", "mano-right"), ("interhand-21-left", "interhand-21-right")):
        swapped = tuple(joint.replace("left_", "right_") for joint in JOINT_SETS[left].joints)
        assert swapped == JOINT_SETS[right].joints


# --- maps


@given(set_names, set_names)
def test_map_finds_equal_names_and_nothing_else(src, dst):
    joint_map = map_joints(src, dst)
    source, target = JOINT_SETS[src].joints, JOINT_SETS[dst].joints
    wrist = {"left_hand_root": "left_wrist", "right_hand_root": "right_wrist"}
    assert joint_map.index.dtype == np.int64
    assert joint_map.valid.dtype == bool
    for joint, i, valid in zip(target, joint_map.index, joint_map.valid, strict=True):
        # A slow twin: the exact name, else the other name of the same wrist.
        candidates = [j for j, other in enumerate(source) if other == joint] or [
            j for j, other in enumerate(source) if wrist.get(other, other) == wrist.get(joint, joint)
        ]
        assert i == (candidates[-1] if candidates else -1)
        assert valid == bool(candidates)


@given(set_names, set_names, st.integers(0, 3))
def test_round_trip_keeps_the_joints_that_both_sets_have(src, dst, batch):
    joints = np.random.default_rng(0).normal(size=(batch, len(JOINT_SETS[src]), 3)).astype(np.float32)
    there, _ = convert_joints(joints, src, dst)
    back, back_valid = convert_joints(there, dst, src)
    names = JOINT_SETS[src].joints
    for k, joint in enumerate(names):
        if joint in JOINT_SETS[dst].joints:
            assert back_valid[k]
            np.testing.assert_array_equal(back[:, k], joints[:, k])
        elif not back_valid[k]:
            assert np.isnan(back[:, k]).all()


@pytest.mark.parametrize("name", SET_NAMES)
def test_map_to_itself_is_identity(name):
    joint_map = map_joints(name, name)
    np.testing.assert_array_equal(joint_map.index, np.arange(len(JOINT_SETS[name])))
    assert joint_map.valid.all()


@pytest.mark.parametrize(
    ("src", "dst", "absent"),
    [
        ("smplx", "coco-17", []),
        ("smpl", "coco-17", []),
        ("smplx", "human36m-17", ["torso_h36m", "neck_h36m", "nose_h36m", "head_top_h36m"]),
        ("smplx", "mpi-inf-3dhp-17", ["head_top", "neck_3dhp", "spine_3dhp", "head_3dhp"]),
        ("smpl", "mpii-16", ["thorax_mpii", "neck_mpii", "head_top"]),
        ("mpii-16", "mpi-inf-3dhp-17", ["neck_3dhp", "spine_3dhp", "head_3dhp"]),
        ("smplx", "interhand-42", []),
        ("smplx", "flame", ["root_flame", "neck_flame"]),
        ("interhand-21-right", "mano-right", []),
        ("coco-wholebody-133", "mano-left", []),
        (
            "mano-right",
            "interhand-21-right",
            [f"right_{f}" for f in ("thumb", "index", "middle", "ring", "pinky")],
        ),
        ("smplx", "coco-wholebody-133", smplx_names.JOINT_NAMES[127:]),
    ],
)
def test_what_is_absent(src, dst, absent):
    valid = map_joints(src, dst).valid
    missing = [joint for joint, ok in zip(JOINT_SETS[dst].joints, valid, strict=True) if not ok]
    assert missing == list(absent)


def test_hand_joints_correspond_anatomically():
    # InterHand2.6M: 4, 3, 2, 1 from the tip; COCO-WholeBody: base to tip; MANO: base to last joint, no tip,
    # fingers ordered index, middle, pinky, ring, thumb.
    interhand_to_mano = map_joints("interhand-21-right", "mano-right").index.tolist()
    assert interhand_to_mano == [20, 7, 6, 5, 11, 10, 9, 19, 18, 17, 15, 14, 13, 3, 2, 1]
    coco_to_interhand = map_joints("coco-wholebody-133", "interhand-21-left").index.tolist()
    # The body's wrist (9) has the exact name and is preferred to the hand's root (91).
    assert coco_to_interhand == [91 + 4 * f + j for f in range(5) for j in (4, 3, 2, 1)] + [9]
    assert map_joints("coco-wholebody-133", "coco-wholebody-133").index[[91, 112]].tolist() == [91, 112]
    assert map_joints("smplx", "coco-wholebody-133").index[[91, 112]].tolist() == [20, 21]


def test_maps_are_read_only():
    joint_map = map_joints("smplx", "coco-17")
    with pytest.raises(ValueError, match="read-only"):
        joint_map.index[0] = 1


# --- conversion of arrays


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3)])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_convert_any_batch_shape_in_numpy_and_torch(shape, width):
    joints = np.random.default_rng(1).normal(size=(*shape, 127, width)).astype(np.float32)
    out, valid = convert_joints(joints, "smplx", "mpii-16", fill=-7.0)
    assert out.shape == (*shape, 16, width)
    assert out.dtype == np.float32
    assert (out[..., ~valid, :] == -7.0).all()
    np.testing.assert_array_equal(out[..., 1, :], joints[..., 5, :])
    torch_out, torch_valid = convert_joints(torch.from_numpy(joints), "smplx", "mpii-16", fill=-7.0)
    assert isinstance(torch_valid, torch.Tensor)
    np.testing.assert_array_equal(torch_out.numpy(), out)
    np.testing.assert_array_equal(torch_valid.numpy(), valid)


def test_convert_passes_gradients_to_the_joints_it_takes_only():
    joints = torch.zeros(2, 127, 3, dtype=torch.float64, requires_grad=True)
    out, valid = convert_joints(joints, "smplx", "human36m-17")
    out[:, valid].sum().backward()
    taken = np.zeros(127, dtype=bool)
    taken[map_joints("smplx", "human36m-17").index[valid.numpy()]] = True
    np.testing.assert_array_equal(joints.grad.abs().sum((0, 2)).numpy() > 0, taken)
    assert out.dtype == torch.float64


def test_convert_does_not_touch_its_input_or_the_cached_map():
    joints = np.ones((1, 17, 2), dtype=np.float32)
    out, valid = convert_joints(joints, "coco-17", "smplx")
    out[:], valid[:] = 5, True
    assert (joints == 1).all()
    assert not map_joints("coco-17", "smplx").valid.all()


def test_custom_set_maps_like_the_named_ones():
    mine = JointSet("mine", ("right_knee", "head_top", "tail"), skeleton=((0, 1),))
    assert map_joints("mpii-16", mine).index.tolist() == [1, 9, -1]
    assert get_joint_set(mine) is mine
    assert mine.index("head_top") == 1
    np.testing.assert_array_equal(mirror_index(mine), [0, 1, 2])


# --- errors and import


def test_unknown_set_lists_the_names_and_the_nearest():
    with pytest.raises(
        ValueError, match=r"unknown joint set 'human3.6m'; did you mean 'human36m-17'\?; known"
    ):
        map_joints("human3.6m", "smpl")
    with pytest.raises(ValueError, match=r"unknown joint set 'zzz'; known sets: smpl, smplx, .*interhand-42"):
        mirror_index("zzz")


def test_unknown_joint_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"'coco-17' has no joint 'left_hp'; did you mean 'left_hip'\?"):
        JOINT_SETS["coco-17"].index("left_hp")


def test_wrong_count_and_integer_joints_are_refused():
    with pytest.raises(ValueError, match=r"joints of 'coco-17' must be \(…, 17, C\), got \(2, 16, 3\)"):
        convert_joints(np.zeros((2, 16, 3)), "coco-17", "smpl")
    with pytest.raises(ValueError, match=r"got \(17,\)"):
        convert_joints(torch.zeros(17), "coco-17", "smpl")
    for integers in (np.zeros((17, 2), dtype=int), torch.zeros(17, 2, dtype=torch.int64)):
        with pytest.raises(TypeError, match=r"floating dtype, got .*int64; convert them to float32"):
            convert_joints(integers, "coco-17", "smpl")


def test_invalid_sets_are_refused():
    with pytest.raises(ValueError, match=r"joint set 'twice' names nose more than once"):
        JointSet("twice", ("nose", "nose"))
    with pytest.raises(
        ValueError, match=r"skeleton of joint set 'short' has \(0, 1\); indices must be in \[0, 1\)"
    ):
        JointSet("short", ("nose",), skeleton=((0, 1),))
    with pytest.raises(ValueError, match=r"flip_pairs of joint set 'short' has \(-1, 0\)"):
        JointSet("short", ("nose",), flip_pairs=((-1, 0),))


def test_import_does_not_pay_for_torch():
    modules = "neuralannot.joint_sets, neuralannot.metrics, neuralannot.boxes"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


# --- real joints


def limb_ratios(name, joints):
    """Left over right length of the rigid bones that the mirror pairs up; a shrug moves the shoulders."""
    joint_set = JOINT_SETS[name]
    mirror = mirror_index(name)
    lengths = {frozenset(e): np.linalg.norm(joints[e[0]] - joints[e[1]]) for e in joint_set.skeleton}
    return {
        joint_set.joints[a] + "-" + joint_set.joints[b]: lengths[frozenset((a, b))]
        / lengths[frozenset((int(mirror[a]), int(mirror[b])))]
        for a, b in joint_set.skeleton
        if joint_set.joints[b].startswith("left_") and joint_set.joints[b] != "left_shoulder"
    }


def test_real_human36m_joints_have_equal_limbs_and_a_head_above_the_neck(data_folder):
    joint_set = JOINT_SETS["human36m-17"]
    for subject in (1, 5):
        path = data_folder / "human36m" / "annotations" / f"Human36M_subject{subject}_joint_3d.json"
        for joints in map(np.asarray, leaves(read_json(path))):
            ratios = limb_ratios("human36m-17", joints)
            assert len(ratios) == 5
            assert ratios == pytest.approx(dict.fromkeys(ratios, 1.0), abs=0.05)
            up = joints[joint_set.index("neck_h36m")] - joints[joint_set.index("pelvis")]
            heights = [
                joints[joint_set.index(j)] @ up
                for j in ("pelvis", "torso_h36m", "neck_h36m", "head_top_h36m")
            ]
            assert heights == sorted(heights)
            # Left and right are not swapped: up x forward is left, and the nose is in front of the head.
            neck, nose, top = (joints[joint_set.index(f"{j}_h36m")] for j in ("neck", "nose", "head_top"))
            left = joints[joint_set.index("left_shoulder")] - joints[joint_set.index("right_shoulder")]
            assert np.cross(up, nose - (neck + top) / 2) @ left > 0


def test_real_mpi_inf_3dhp_joints_have_equal_limbs_and_a_head_above_the_neck(data_folder):
    joint_set = JOINT_SETS["mpi-inf-3dhp-17"]
    for joints in map(
        np.asarray, leaves(read_json(data_folder / "mpi_inf_3dhp" / "MPI-INF-3DHP_joint_3d.json"))
    ):
        ratios = limb_ratios("mpi-inf-3dhp-17", joints)
        assert len(ratios) == 5
        assert ratios == pytest.approx(dict.fromkeys(ratios, 1.0), abs=0.05)
        up = joints[joint_set.index("neck_3dhp")] - joints[joint_set.index("pelvis")]
        heights = [
            joints[joint_set.index(j)] @ up
            for j in ("pelvis", "spine_3dhp", "neck_3dhp", "head_3dhp", "head_top")
        ]
        assert heights == sorted(heights)


def test_real_interhand_fingers_run_from_tip_to_base(data_folder):
    tree = read_json(data_folder / "interhand26m" / "InterHand2.6M_test_joint_3d.json")
    frames = [frame for capture in tree.values() for frame in capture.values()]
    seen = 0
    for frame in frames:
        world, valid = np.asarray(frame["world_coord"]), np.asarray(frame["joint_valid"]).reshape(-1) > 0
        for side in ("right", "left"):
            name = f"interhand-21-{side}"
            joint_map = map_joints("interhand-42", name)
            assert joint_map.valid.all()
            if not valid[joint_map.index].all():
                continue
            seen += 1
            hand, index = world[joint_map.index], JOINT_SETS[name].index
            wrist = hand[index(f"{side}_wrist")]
            for finger in ("thumb", "index", "middle", "ring", "pinky"):
                chain = hand[[index(f"{side}_{finger}{i}") for i in (1, 2, 3, "")]]
                bones = np.linalg.norm(np.diff(chain, axis=0), axis=-1)
                # Metacarpal bone 7 to 10 cm (the thumb's carpal 3 to 5), then phalanges that never grow.
                base = np.linalg.norm(chain[0] - wrist)
                assert 25 < base < 50 if finger == "thumb" else 65 < base < 105
                assert (bones > 12).all()
                assert bones[1] < bones[0]
    assert seen >= 2


def test_parts_of_the_whole_body_are_slices_of_it():
    whole = JOINT_SETS["coco-wholebody-133"].joints
    assert JOINT_SETS["coco-wholebody-face-68"].joints == whole[23:91]
    assert JOINT_SETS["coco-wholebody-hand-21-left"].joints == whole[91:112]
    assert JOINT_SETS["coco-wholebody-hand-21-right"].joints == whole[112:]
