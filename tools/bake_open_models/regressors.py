"""The open body's own joint regressors: `regressors.npz`.

The official regressors belong to the official topology. These give the same data sets' joints on the open
body. Each joint is DEFINED below as a combination of the posed skeleton's joints and a few landmark vertices;
the fit then finds at most twelve vertices whose weighted mean follows that point over random shapes and
natural poses, so that reading joints needs about 150 posed vertices and no skeleton.

Format: key `<joint set>/<model>` is a dense float32 array (K, V), non-negative, rows summing to 1, in the
order of `neuralannot.joint_sets.JOINT_SETS[<joint set>].joints`. There are `human36m-17`, `coco-17` and
`mpi-inf-3dhp-17`, each with `/smpl` and `/smplx`, `interhand-21-right/mano` and `interhand-21-left/mano`.
Right joints are the mirror image of left ones: the same weights on mirrored vertices.

The definitions were set against real 3D joints of Human3.6M (subjects 1 and 5) and MPI-INF-3DHP (subject 4).
Against the skeleton, Human3.6M's hips lie 7 cm higher and 2 cm further out, its shoulders 4 cm nearer to the
middle, its nose inside the face and its head top 5 cm under the crown.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neuralannot.joint_sets import JOINT_SETS
from tools.bake_open_models.packing import FILES, read_npz

VERTICES_PER_ROW = 12
CANDIDATES = 400

Definition = dict[str, float]

# Landmark vertices: smplx's `vertex_ids`, which the open body keeps, and the highest vertex of the head.
LANDMARKS = {
    "smpl": {
        "nose": 332,
        "left_eye": 2800,
        "right_eye": 6260,
        "left_ear": 583,
        "right_ear": 4071,
        "crown": 333,
    },
    "smplx": {
        "nose": 9120,
        "left_eye": 9448,
        "right_eye": 9929,
        "left_ear": 6,
        "right_ear": 616,
        "crown": 840,
    },
}
HAND_TIPS = {"thumb": 744, "index": 320, "middle": 443, "ring": 554, "pinky": 671}
MIDDLE_HIP = {"left_hip": 0.5, "right_hip": 0.5}


def combine(*terms: tuple[float, Definition]) -> Definition:
    """The weighted sum of definitions."""
    total: Definition = {}
    for factor, definition in terms:
        for name, weight in definition.items():
            total[name] = total.get(name, 0.0) + factor * weight
    return total


def limbs(*, hip_up: float, hip_out: float, shoulder_in: float) -> dict[str, Definition]:
    """Arm and leg joints by name. Knees, ankles, elbows and wrists are the skeleton's.

    hip_up: how far the hip moves from the skeleton's, in steps of (pelvis joint - middle of the hip joints),
    which is 5 cm up; hip_out: how far outwards, as a part of half the hip width; shoulder_in: how far from
    the shoulder joint towards the inner end of the collar bone, as a part of that distance.
    """
    joints: dict[str, Definition] = {}
    for side in ("left", "right"):
        joints[f"{side}_hip"] = combine(
            (1 + hip_out, {f"{side}_hip": 1.0}), (hip_up, {"pelvis": 1.0}), (-hip_up - hip_out, MIDDLE_HIP)
        )
        joints[f"{side}_shoulder"] = {f"{side}_shoulder": 1 - shoulder_in, f"{side}_collar": shoulder_in}
        for joint in ("knee", "ankle", "elbow", "wrist"):
            joints[f"{side}_{joint}"] = {f"{side}_{joint}": 1.0}
    return joints


def human36m() -> dict[str, Definition]:
    """Human3.6M-17. Subjects 1 and 5: hips 0.27 and 0.24 m apart, shoulders 0.26 and 0.27 m.

    The pelvis is exactly the middle of the hips, the torso lies 47 % of the way from there to the neck and a
    little behind. Nose and head top lie inside the head, 0.12 m from neck and nose.
    """
    limb = limbs(hip_up=1.4, hip_out=0.18, shoulder_in=0.25)
    return {
        "pelvis": combine((0.5, limb["left_hip"]), (0.5, limb["right_hip"])),
        "torso_h36m": {"spine2": 0.6, "spine3": 0.4},
        "neck_h36m": {"neck": 1.0},
        "nose_h36m": {"head": 0.55, "nose": 0.45},
        "head_top_h36m": {"head": 0.34, "crown": 0.66},
        **limb,
    }


def mpi_inf_3dhp() -> dict[str, Definition]:
    """MPI-INF-3DHP-17. Subject 4: hips 0.25 m apart at a femur of 0.38 m, shoulders 0.28 m.

    The pelvis is exactly the middle of the hips, the spine lies half way up the trunk, the neck 2 cm above
    the line of the shoulders, the head a third of the way from the neck to the head top.
    """
    limb = limbs(hip_up=0.0, hip_out=0.12, shoulder_in=0.25)
    return {
        "head_top": {"crown": 1.0},
        "neck_3dhp": {"neck": 0.35, "left_collar": 0.325, "right_collar": 0.325},
        "pelvis": combine((0.5, limb["left_hip"]), (0.5, limb["right_hip"])),
        "spine_3dhp": {"spine2": 1.0},
        "head_3dhp": {"neck": 0.5, "head": 0.5},
        **limb,
    }


def coco() -> dict[str, Definition]:
    """COCO-17: nose, eyes and ears on the surface, limbs as the skeleton has them."""
    face = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
    return {**limbs(hip_up=0.0, hip_out=0.0, shoulder_in=0.0), **{name: {name: 1.0} for name in face}}


def interhand() -> dict[str, Definition]:
    """InterHand2.6M-21, right hand: fingertips are vertices, all other joints the skeleton's."""
    return {name: {name: 1.0} for name in JOINT_SETS["interhand-21-right"].joints}


DEFINITIONS = {
    "human36m-17": human36m,
    "coco-17": coco,
    "mpi-inf-3dhp-17": mpi_inf_3dhp,
    "interhand-21-right": interhand,
}
MODEL_SETS = {
    "smpl": ("human36m-17", "coco-17", "mpi-inf-3dhp-17"),
    "smplx": ("human36m-17", "coco-17", "mpi-inf-3dhp-17"),
    "mano": ("interhand-21-right",),
}
# The skeleton's joints, first in the model's output; what follows them there is read from vertices.
SKELETONS = {"smpl": ("smpl", 24), "smplx": ("smplx", 55), "mano": ("mano-right", 16)}

# Natural poses: least, most usual and greatest angle in degrees about x, y, z for the left joint (the right
# one is its mirror image), in the T-pose frame: x to the person's left, y up, z forward.
POSE_LIMITS = {
    "hip": ((-100, -10, 30), (-25, 0, 25), (-15, 5, 40)),
    "spine1": ((-10, 3, 25), (-15, 0, 15), (-12, 0, 12)),
    "knee": ((0, 15, 125), (-5, 0, 5), (-5, 0, 5)),
    "spine2": ((-10, 3, 25), (-15, 0, 15), (-12, 0, 12)),
    "ankle": ((-25, 0, 40), (-15, 0, 15), (-15, 0, 15)),
    "spine3": ((-10, 3, 25), (-15, 0, 15), (-12, 0, 12)),
    "foot": ((-20, 0, 20), (0, 0, 0), (0, 0, 0)),
    "neck": ((-20, 0, 30), (-30, 0, 30), (-15, 0, 15)),
    "collar": ((-8, 0, 8), (-12, 0, 8), (-12, -4, 20)),
    "head": ((-20, 0, 25), (-35, 0, 35), (-15, 0, 15)),
    "shoulder": ((-45, 0, 45), (-90, -10, 25), (-85, -60, 55)),
    "elbow": ((-30, 0, 30), (-130, -20, 0), (-5, 0, 5)),
    "wrist": ((-40, 0, 40), (-20, 0, 20), (-40, 0, 40)),
}
BODY_JOINTS = JOINT_SETS["smpl"].joints[1:22]


def natural_body_poses(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random natural poses (count, 21, 3), axis-angle in radians: triangular densities over `POSE_LIMITS`."""
    pose = np.zeros((count, len(BODY_JOINTS), 3))
    for column, joint in enumerate(BODY_JOINTS):
        side, _, name = joint.rpartition("_")
        for axis, (least, usual, most) in enumerate(POSE_LIMITS[name]):
            if least < most:
                sign = -1.0 if side == "right" and axis > 0 else 1.0
                pose[:, column, axis] = sign * np.deg2rad(rng.triangular(least, usual, most, size=count))
    return pose


def natural_hand_poses(rng: np.random.Generator, count: int, folder: Path) -> np.ndarray:
    """Random right-hand poses (count, 15, 3) relative to the mean hand, from the model's own statistics."""
    hand = read_npz(folder / FILES["mano_right", "neutral"])
    coefficients = hand["hands_coeffs"][rng.integers(len(hand["hands_coeffs"]), size=count)]
    return (coefficients @ hand["hands_components"]).reshape(count, 15, 3) + rng.normal(
        0, 0.08, (count, 15, 3)
    )


def pose_model(
    model_name: str, seed: int, count: int, *, folder: Path, gender: str = "neutral"
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (count, V, 3) and joints (count, J, 3) in metres of `count` random shapes and natural poses.

    `model_name`: "smpl", "smplx" or "mano" (the right hand) of the files below `folder`; shapes are N(0, 1).
    """
    import torch

    from neuralannot.body_models import load_body_model

    rng = np.random.default_rng(seed)
    arrays = {"betas": rng.normal(size=(count, 10))}
    if model_name == "mano":
        model = load_body_model("mano", side="right", folder=folder)
        arrays["hand_pose"] = natural_hand_poses(rng, count, folder)
    else:
        model = load_body_model(model_name, folder=folder, gender=gender)
        hands = 2 if model_name == "smpl" else 0  # SMPL's two hand joints stay at rest
        arrays["body_pose"] = np.pad(natural_body_poses(rng, count), ((0, 0), (0, hands), (0, 0)))
    tensors = {name: torch.as_tensor(array, dtype=torch.float32) for name, array in arrays.items()}
    vertices, joints = [], []
    with torch.no_grad():
        for start in range(0, count, 50):
            posed = model(**{name: tensor[start : start + 50] for name, tensor in tensors.items()})
            vertices.append(posed.vertices.numpy())
            joints.append(posed.joints.numpy())
    return np.concatenate(vertices), np.concatenate(joints)


def define_targets(
    joint_set: str, model_name: str, vertices: np.ndarray, joints: np.ndarray
) -> dict[str, np.ndarray]:
    """The joints' places by definition, name -> (B, 3), of posed vertices (B, V, 3) and joints (B, J, 3)."""
    skeleton, count = SKELETONS[model_name]
    points = {name: joints[:, i] for i, name in enumerate(JOINT_SETS[skeleton].joints[:count])}
    landmarks = LANDMARKS.get(model_name) or {f"right_{finger}": tip for finger, tip in HAND_TIPS.items()}
    points.update({name: vertices[:, index] for name, index in landmarks.items()})
    definitions = DEFINITIONS[joint_set]()
    return {
        joint: np.sum([weight * points[name] for name, weight in definitions[joint].items()], axis=0)
        for joint in JOINT_SETS[joint_set].joints
    }


def mirror_vertices(template: np.ndarray) -> np.ndarray:
    """(V,) index of each vertex's mirror image under x -> -x; the open body's topology is symmetric."""
    from scipy.spatial import cKDTree

    mirror: np.ndarray = cKDTree(template).query(template * [-1, 1, 1])[1]
    if not np.array_equal(mirror[mirror], np.arange(len(template))):
        raise ValueError("the template is not symmetric: some vertices have no mirror image of their own")
    return mirror


def fit_weights(columns: np.ndarray, target: np.ndarray, most: int) -> np.ndarray:
    """Weights (C,) >= 0 with sum 1, at most `most` of them not 0: columns (C, B, 3) -> target (B, 3).

    Non-negative least squares that drops the smallest fifth until few enough are left. Columns are taken
    relative to the target, so that the system asks for zero.
    """
    from scipy.optimize import nnls

    kept = np.arange(len(columns))
    while True:
        equations = (columns[kept] - target).reshape(len(kept), -1).T
        # A ridge of 0.5 mm per unit weight spreads the weights; the last row holds their sum to one.
        system = np.vstack(
            [equations / np.sqrt(len(target)), np.eye(len(kept)) * 0.0005, np.full(len(kept), 10.0)]
        )
        goal = np.zeros(len(system))
        goal[-1] = 10.0
        q, r = np.linalg.qr(system)
        weights, _ = nnls(r, q.T @ goal)
        used = np.flatnonzero(weights > 1e-3)
        if len(used) <= most:
            break
        keep = np.argsort(-weights)[: max(most, 4 * len(used) // 5)]
        kept = kept[np.sort(keep)]
    result = np.zeros(len(columns))
    result[kept[used]] = weights[used] / weights[used].sum()
    return result


def fit_joint(vertices: np.ndarray, target: np.ndarray, *, mirror: np.ndarray | None = None) -> np.ndarray:
    """One joint's weights (V,) from vertices (B, V, 3) and its places (B, 3).

    With `mirror`, the joint lies in the middle of the body and its weights come in mirrored pairs.
    """
    offsets = np.linalg.norm(vertices - target[:, None], axis=-1)
    near = np.argsort(offsets.mean(0))
    weights = np.zeros(vertices.shape[1])
    if offsets[:, near[0]].max() < 1e-6:  # the joint is a vertex
        weights[near[0]] = 1.0
        return weights
    if mirror is None:
        near = near[:CANDIDATES]
        weights[near] = fit_weights(vertices[:, near].transpose(1, 0, 2), target, VERTICES_PER_ROW)
        return weights
    near = near[: 2 * CANDIDATES]
    near = near[near <= mirror[near]]
    pairs = (vertices[:, near] + vertices[:, mirror[near]]) / 2
    half = fit_weights(pairs.transpose(1, 0, 2), target, VERTICES_PER_ROW // 2) / 2
    np.add.at(weights, near, half)
    np.add.at(weights, mirror[near], half)
    return weights


def fit_regressor(
    joint_set: str, model_name: str, vertices: np.ndarray, joints: np.ndarray, template: np.ndarray
) -> np.ndarray:
    """The regressor (K, V) float32 of a joint set, on posed vertices (B, V, 3) and joints (B, J, 3);
    `template` (V, 3) tells which vertices are mirror images."""
    targets = define_targets(joint_set, model_name, vertices, joints)
    if model_name == "mano":
        return np.stack([fit_joint(vertices, target) for target in targets.values()]).astype(np.float32)
    mirror = mirror_vertices(template)
    rows = {
        name: fit_joint(vertices, target, mirror=None if name.startswith("left_") else mirror)
        for name, target in targets.items()
        if not name.startswith("right_")
    }
    for name in targets:
        if name.startswith("right_"):
            rows[name] = rows[name.replace("right_", "left_", 1)][mirror]
    return np.stack([rows[name] for name in targets]).astype(np.float32)


def joint_errors(
    regressor: np.ndarray, joint_set: str, model_name: str, vertices: np.ndarray, joints: np.ndarray
) -> np.ndarray:
    """Distances (K, B) in metres between regressed joints and their places by definition."""
    used = np.flatnonzero(regressor.any(0))
    regressed = np.einsum("kv,bvc->kbc", regressor[:, used], vertices[:, used])
    targets = define_targets(joint_set, model_name, vertices, joints)
    apart: np.ndarray = np.linalg.norm(regressed - np.stack(list(targets.values())), axis=-1)
    return apart


def fit_regressors(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """All regressors for the models below `folder`, and errors (K, 2) in metres, mean and most, on held-out
    bodies.

    Keys are `<joint set>/<model>`.
    """
    packed: dict[str, np.ndarray] = {}
    errors: dict[str, np.ndarray] = {}
    for model_name, joint_sets in MODEL_SETS.items():
        train, held_out = (pose_model(model_name, s, n, folder=folder) for s, n in ((1, 300), (2, 200)))
        file = FILES["mano_right" if model_name == "mano" else model_name, "neutral"]
        template = read_npz(folder / file)["v_template"]
        for joint_set in joint_sets:
            key = f"{joint_set}/{model_name}"
            packed[key] = fit_regressor(joint_set, model_name, *train, template)
            apart = joint_errors(packed[key], joint_set, model_name, *held_out)
            errors[key] = np.stack([apart.mean(1), apart.max(1)], 1)
    # MANO_LEFT mirrors MANO_RIGHT vertex by vertex.
    packed["interhand-21-left/mano"] = packed["interhand-21-right/mano"]
    return packed, errors


def broken_regressors(found: Mapping[str, np.ndarray]) -> list[str]:
    """What does not hold of `regressors.npz`, a sentence each."""
    problems = []
    for key, (joint_set, vertices) in _expected().items():
        if key not in found:
            problems.append(f"{key} is missing")
            continue
        weights, shape = found[key], (len(JOINT_SETS[joint_set].joints), vertices)
        if weights.shape != shape or weights.dtype != np.float32:
            problems.append(f"{key} must be {shape} of float32, got {weights.shape} of {weights.dtype}")
        elif not (np.isfinite(weights).all() and (weights >= 0).all()):
            problems.append(f"{key} has weights that are negative or no numbers")
        elif np.abs(weights.sum(axis=1, dtype=np.float64) - 1).max() > 1e-5:
            problems.append(f"{key} has rows that do not sum to one")
        elif (weights > 0).sum(axis=1).max() > VERTICES_PER_ROW:
            problems.append(f"{key} has rows of more than {VERTICES_PER_ROW} vertices")
    problems += [f"{key} is none that the library knows" for key in sorted(set(found) - set(_expected()))]
    return problems


def _expected() -> dict[str, tuple[str, int]]:
    """Key -> joint set and vertices."""
    bodies = {
        f"{name}/{model}": (name, count)
        for model, count in (("smpl", 6890), ("smplx", 10475))
        for name in ("human36m-17", "coco-17", "mpi-inf-3dhp-17")
    }
    return bodies | {f"interhand-21-{side}/mano": (f"interhand-21-{side}", 778) for side in ("right", "left")}
