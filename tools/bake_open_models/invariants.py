"""What the files promise. A bake that breaks any of it replaces nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from smplx.vertex_ids import vertex_ids

from tools.bake_open_models.hands import MIRROR_AXES
from tools.bake_open_models.models import GENDERS, NO_PARENT, Arrays
from tools.bake_open_models.packing import FILES, MIRROR, Models
from tools.bake_open_models.trees import TREES
from tools.bake_open_models.weak_spots import mouth_rim, mouth_roundness, shoulder_slope, wrist_depth

VERTICES = {"smpl": 6890, "smplx": 10475, "mano_right": 778, "mano_left": 778, "flame": 5023}
FACES = {"smpl": 13776, "smplx": 20938, "mano_right": 1538, "mano_left": 1538, "flame": 9994}
# Edges that only one triangle has: the cuts at the wrists and at the neck.
OPEN_EDGES = {"smpl": 0, "smplx": 0, "mano_right": 16, "mano_left": 16, "flame": 42}
# Metres, of a person of random codes.
HEIGHTS = {"neutral": (1.67, 0.10), "female": (1.60, 0.10), "male": (1.74, 0.10)}
_SYMMETRY = 1e-4  # metres: MakeHuman's blend shapes are written to that
# How far both sides may differ. Metres: of joints, whose regressors are fitted one by one, and of landmarks:
# the corners of the mouth come from a painted mask. Of weights. Of directions, metres a unit of code.
_JOINTS_APART, _LANDMARKS_APART, _WEIGHTS_APART, _DIRECTIONS_APART = 3e-3, 6e-3, 0.01, 5e-4
_BODIES = 100
# Triangles turned over, in the mean over random shapes: of lips and lids, which roll over their edges now and
# then, and in the folds of the rest of the body.
_ROLLED, _FOLDED = 5e-4, 1e-5
_KEYS = {
    "v_template",
    "shapedirs",
    "posedirs",
    "J_regressor",
    "weights",
    "f",
    "kintree_table",
    "J",
    "vt",
    "ft",
}
_LANDMARKS = {"lmk_faces_idx", "lmk_bary_coords", "dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords"}
_OWN_KEYS = {
    "smplx": _LANDMARKS | {f"hands_{part}{side}" for part in ("components", "mean") for side in "lr"},
    "flame": _LANDMARKS,
    "mano_right": {"hands_components", "hands_mean", "hands_coeffs"},
    "mano_left": {"hands_components", "hands_mean", "hands_coeffs"},
}


def broken(models: Models, subsets: Mapping[str, np.ndarray]) -> list[str]:
    """What does not hold, a sentence each; empty where all does."""
    found: list[str] = []
    for name in FILES:
        if name not in models:
            found.append(f"{FILES[name]} is missing")
            continue
        found += [f"{FILES[name]}: {problem}" for problem in broken_model(name[0], name[1], models[name])]
    if not found:
        found += _of_subsets(models, subsets)
        found += _of_genders(models)
        found += _of_weak_spots(models)
    return found


def broken_model(kind: str, gender: str, model: Arrays) -> Iterator[str]:
    """What does not hold of one file."""
    problems = list(_of_arrays(kind, model))
    yield from problems
    if problems:
        return
    yield from _of_weights(model)
    yield from _of_mesh(kind, model)
    yield from _of_shapes(kind, gender, model)
    if not kind.startswith("mano"):
        yield from _of_symmetry(kind, model)
    yield from _of_texture(model)
    if "lmk_faces_idx" in model:
        yield from _of_landmarks(model)
    yield from _of_hand_poses(model)
    if kind in ("smpl", "smplx"):
        yield from _of_named_vertices(kind, model)


def _of_arrays(kind: str, model: Arrays) -> Iterator[str]:
    count, tree = VERTICES[kind], TREES[kind]
    joints = len(tree.joints)
    codes = 20 if kind in ("smplx", "flame") else 10
    shapes = {
        "v_template": (count, 3),
        "shapedirs": (count, 3, codes),
        "posedirs": (count, 3, 9 * (joints - 1)),
        "J_regressor": (joints, count),
        "weights": (count, joints),
        "f": (FACES[kind], 3),
        "ft": (FACES[kind], 3),
        "kintree_table": (2, joints),
        "J": (joints, 3),
        "lmk_faces_idx": (51,),
        "lmk_bary_coords": (51, 3),
        "dynamic_lmk_faces_idx": (79, 17),
        "dynamic_lmk_bary_coords": (79, 17, 3),
    }
    for side in ("", "l", "r"):
        shapes |= {f"hands_components{side}": (45, 45), f"hands_mean{side}": (45,)}
    expected = _KEYS | _OWN_KEYS.get(kind, set())
    if set(model) != expected:
        yield f"keys must be {sorted(expected)}, got {sorted(model)}"
        return
    for key, shape in shapes.items():
        if key in model and model[key].shape != shape:
            yield f"{key} must be {shape}, got {model[key].shape}"
    for key, array in model.items():
        if array.dtype != np.float32 and array.dtype.kind not in "iu":
            yield f"{key} must be float32 or whole numbers, got {array.dtype}"
        if not np.isfinite(array).all():
            yield f"{key} holds values that are not finite"
    parents, numbers = model["kintree_table"].astype(np.int64)
    if not np.array_equal(parents, [NO_PARENT, *tree.parents[1:]]) or (numbers != np.arange(joints)).any():
        yield f"kintree_table must be that of {kind}, got parents {parents.tolist()}"
    ends = {"f": count, "lmk_faces_idx": FACES[kind], "dynamic_lmk_faces_idx": FACES[kind]}
    for key, corners in ends.items():
        if key in model and not 0 <= int(model[key].min()) <= int(model[key].max()) < corners:
            yield f"{key} must lie in 0..{corners - 1}, got {model[key].min()}..{model[key].max()}"


def _of_weights(model: Arrays) -> Iterator[str]:
    weights, regressor = model["weights"], model["J_regressor"]
    if weights.min() < 0 or not (weights.sum(1) == 1).all():
        yield "rows of weights must be >= 0 and sum to 1 exactly"
    if (weights > 0).sum(1).max() > 4:
        yield f"a vertex must have at most 4 weights, got {(weights > 0).sum(1).max()}"
    if regressor.min() < 0 or np.abs(regressor.sum(1, dtype=np.float64) - 1).max() > 1e-6:
        yield "rows of J_regressor must be >= 0 and sum to 1"
    apart = np.abs(regressor.astype(np.float64) @ model["v_template"] - model["J"]).max()
    if apart > 1e-6:
        yield f"J must be J_regressor times v_template, got {apart * 1000:.4f} mm apart"


def _of_mesh(kind: str, model: Arrays) -> Iterator[str]:
    faces = model["f"].astype(np.int64)
    if len(np.unique(faces)) != len(model["v_template"]):
        yield f"{len(model['v_template']) - len(np.unique(faces))} vertices are in no face"
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    if len(np.unique(directed, axis=0)) != len(directed):
        yield "two faces run along an edge in the same direction: the mesh is no manifold, or not oriented"
    _, counts = np.unique(np.sort(directed, axis=1), axis=0, return_counts=True)
    if counts.max() > 2:
        yield f"{(counts > 2).sum()} edges have more than two faces"
    if (counts == 1).sum() != OPEN_EDGES[kind]:
        yield f"{OPEN_EDGES[kind]} edges must be open, got {(counts == 1).sum()}"


def double_areas(places: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(..., F, 3) normals as long as twice the triangle's area, of places (..., V, 3)."""
    a, b, c = (places[..., faces[:, k], :] for k in range(3))
    return np.cross(b - a, c - a)


def shape_samples(model: Arrays, count: int = _BODIES) -> np.ndarray:
    """(count, V, 3): the model at rest with random codes, N(0, 1), expressions left out."""
    codes = np.random.default_rng(0).normal(size=(count, 10))
    moved = np.tensordot(codes, model["shapedirs"][:, :, :10].astype(np.float64), axes=(1, 2))
    return model["v_template"] + moved


def _of_shapes(kind: str, gender: str, model: Arrays) -> Iterator[str]:
    faces = model["f"].astype(np.int64)
    bodies = shape_samples(model)
    rest = double_areas(model["v_template"].astype(np.float64), faces)
    if np.linalg.norm(rest, axis=1).min() < 1e-9:
        yield f"{(np.linalg.norm(rest, axis=1) < 1e-9).sum()} triangles have no area"
    turned = np.array([(double_areas(body, faces) * rest).sum(1) <= 0 for body in bodies])
    if not kind.startswith("mano"):
        face = [
            TREES[kind].joints.index(name) for name in ("head", "neck", "jaw") if name in TREES[kind].joints
        ]
        in_face = (model["weights"][:, face].sum(1) > 0.9)[faces].all(1)
        if turned[:, in_face].sum(1).mean() > _ROLLED * len(faces):
            yield f"{turned[:, in_face].sum()} triangles of lips and lids are turned over in {_BODIES} shapes"
        turned = turned[:, ~in_face]
    if turned.mean() > (0 if kind.startswith("mano") else _FOLDED):
        yield f"{turned.sum()} triangles are turned over in {_BODIES} random shapes"
    if kind in ("smpl", "smplx"):
        heights = np.ptp(bodies[..., 1], axis=1)
        mean, deviation = HEIGHTS[gender]
        if abs(heights.mean() - mean) > 0.03 or abs(heights.std() - deviation) > 0.03:
            yield (
                f"heights must be {mean} +- {deviation} m, got {heights.mean():.3f} +- {heights.std():.3f}"
            )


def mirror_partners(template: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each vertex's mirror image under x -> -x, (V,), and how far it is from it, metres."""
    from scipy.spatial import cKDTree

    distance, partner = cKDTree(template).query(template * MIRROR)
    return partner, distance


def _other_side(name: str) -> str:
    """The joint on the other side; of the middle, the same."""
    return {"L_": "R_", "R_": "L_"}.get(name[:2], name[:2]) + name[2:]


def _of_symmetry(kind: str, model: Arrays) -> Iterator[str]:
    template = model["v_template"].astype(np.float64)
    partner, distance = mirror_partners(template)
    if distance.max() > _SYMMETRY or not np.array_equal(partner[partner], np.arange(len(template))):
        yield f"v_template must be symmetric within {_SYMMETRY * 1e6:.0f} um, got {distance.max() * 1e6:.1f}"
        return
    faces = model["f"].astype(np.int64)
    if not np.array_equal(oriented(partner[faces][:, ::-1]), oriented(faces)):
        yield "faces must mirror each other"
    names = TREES[kind].joints
    other = [names.index(_other_side(name)) for name in names]
    mirrored = {
        "J": (model["J"][other] * MIRROR, _JOINTS_APART),
        "weights": (model["weights"][partner][:, other], _WEIGHTS_APART),
        "shapedirs": (model["shapedirs"][partner] * MIRROR[:, None], _DIRECTIONS_APART),
    }
    for key, (image, most) in mirrored.items():
        apart = np.abs(image - model[key]).max()
        if apart > most:
            yield f"{key} of both sides must mirror each other within {most:g}, got {apart:.2g}"


# Of the 51 points, the mirror image of each: brows, nose, eyes, outer and inner edge of the lips.
_LANDMARK_MIRROR = (
    *range(9, -1, -1),
    *range(10, 14),
    *range(18, 13, -1),
    *(28, 27, 26, 25, 30, 29, 22, 21, 20, 19, 24, 23),
    *(37, 36, 35, 34, 33, 32, 31, 42, 41, 40, 39, 38),
    *(47, 46, 45, 44, 43, 50, 49, 48),
)


def _of_landmarks(model: Arrays) -> Iterator[str]:
    """Points on triangles of the face, mirrored like it, the 51 in the order of the mark-up."""
    template, faces = model["v_template"].astype(np.float64), model["f"].astype(np.int64)
    places = {}
    for key in ("lmk", "dynamic_lmk"):
        weights = model[f"{key}_bary_coords"].astype(np.float64)
        if weights.min() < -1e-6 or np.abs(weights.sum(-1) - 1).max() > 1e-6:
            yield f"rows of {key}_bary_coords must be >= 0 and sum to 1"
        corners = template[faces[model[f"{key}_faces_idx"].astype(np.int64)]]
        places[key] = (weights[..., None] * corners).sum(-2)
    points, contour = places["lmk"], places["dynamic_lmk"]
    apart = np.abs(points[list(_LANDMARK_MIRROR)] * MIRROR - points).max()
    if apart > _LANDMARKS_APART:
        yield f"landmarks must mirror each other within {_LANDMARKS_APART:g} m, got {apart:.2g}"
    # The subject's right brow is first, brows lie over eyes, eyes over the mouth; the tip of the nose is
    # foremost.
    height = [points[part, 1].mean() for part in (slice(10), slice(19, 31), slice(31, 51))]
    if points[:5, 0].max() > 0 or height != sorted(height, reverse=True) or points[:, 2].argmax() != 13:
        yield "landmarks must be brows, nose, eyes and lips, from the subject's right to the left"
    # Bins 1 to 39 are turns to the right, the other 39 the same turns to the left.
    right, left = contour[1:40], contour[40:, ::-1] * MIRROR
    if (contour[0, :8, 0] >= 0).any() or np.abs(right - left).max() > _LANDMARKS_APART:
        yield "the face's contour must run from the subject's right to the left, turns mirroring each other"
    across = np.cos(np.deg2rad(39)) * contour[..., 0] + np.sin(np.deg2rad(39)) * contour[..., 2]
    if np.ptp(across[78]) <= np.ptp(across[39]):
        yield "the contour of bin 78 must be that of a head turned by 39 degrees to its left"


def _of_hand_poses(model: Arrays) -> Iterator[str]:
    """Rows of finger poses that are square to each other."""
    for key in sorted(key for key in model if key.startswith("hands_components")):
        rows = model[key].astype(np.float64)
        if np.abs(rows @ rows.T - np.eye(45)).max() > 1e-5:
            yield f"rows of {key} must be unit vectors square to each other"


def oriented(faces: np.ndarray) -> np.ndarray:
    """(F, 3) the same for all ways to write the same triangles, turned the same way round."""
    faces = faces.astype(np.int64)
    start = faces.argmin(1)[:, None]
    rolled = np.take_along_axis(faces, (start + np.arange(3)) % 3, axis=1)
    return rolled[np.lexsort(rolled.T[::-1])]


# Of the left side: the joint that moves a named vertex (SMPL-X's, SMPL's), and the direction in which it lies
# outermost of all that this joint moves; eyes are looked for in front.
_NAMED: Mapping[str, tuple[str, str, tuple[float, float, float]]] = {
    "nose": ("head", "head", (0, 0, 1)),
    "lear": ("head", "head", (1, 0, 0)),
    "leye": ("L_eye", "head", (0, 0, 1)),
    "lthumb": ("L_thumb3", "L_hand", (0.2, 0, 0.98)),
    "lindex": ("L_index3", "L_hand", (0.9, 0, 0.44)),
    "lmiddle": ("L_middle3", "L_hand", (1, 0, 0.1)),
    "lring": ("L_ring3", "L_hand", (0.97, 0, -0.25)),
    "lpinky": ("L_pinky3", "L_hand", (0.5, 0, -0.87)),
    "LBigToe": ("L_foot", "L_foot", (-0.2, 0, 0.8)),
    "LSmallToe": ("L_foot", "L_foot", (0.8, 0, 0.2)),
    "LHeel": ("L_ankle", "L_ankle", (0, 0, -1)),
}
_OUTERMOST = 0.012  # metres
# What the first bake's weak spots have come to, at least: degrees, a share, metres.
_FALL, _FILLED, _INSIDE = 14.0, 0.74, 6e-3


def _of_named_vertices(kind: str, model: Arrays) -> Iterator[str]:
    """The vertices that smplx names are the outermost of their parts."""
    ids = vertex_ids["smplh" if kind == "smpl" else "smplx"]
    template, joints = model["v_template"].astype(np.float64), TREES[kind].joints
    for left, (of_smplx, of_smpl, direction) in _NAMED.items():
        joint = of_smplx if kind == "smplx" else of_smpl
        sides = [(left, 1.0)]
        if left != "nose":
            sides.append(({"l": "r", "L": "R"}[left[0]] + left[1:], -1.0))
        for name, mirror in sides:
            number = joints.index(joint.replace("L_", "R_") if mirror < 0 else joint)
            moved = np.flatnonzero(model["weights"][:, number] > 0.5)
            place, others = template[ids[name]], template[moved]
            others = others[others[:, 0] * mirror > -1e-6]
            if left == "leye":  # the nose is farther out than the eyes
                others = others[np.linalg.norm(others[:, :2] - place[:2], axis=1) < 0.01]
            along = np.array(direction) * [mirror, 1, 1]
            gap = (others @ along).max() - place @ along
            if ids[name] not in moved or place[0] * mirror < -1e-6 or gap > _OUTERMOST:
                yield (
                    f"vertex {ids[name]}, {name}, must be the outermost one that {joints[number]} moves; "
                    f"it lies at {place.round(3).tolist()}, others {gap * 1000:.0f} mm farther out"
                )


def _of_texture(model: Arrays) -> Iterator[str]:
    uv, faces = model["vt"], model["ft"].astype(np.int64)
    if uv.ndim != 2 or uv.shape[1] != 2 or uv.min() < 0 or uv.max() > 1:
        yield f"vt must be (T, 2) in 0..1, got {uv.shape} in {uv.min():.3f}..{uv.max():.3f}"
        return
    if faces.min() < 0 or faces.max() >= len(uv):
        yield f"ft must lie in 0..{len(uv) - 1}, got {faces.min()}..{faces.max()}"


def _of_subsets(models: Models, subsets: Mapping[str, np.ndarray]) -> Iterator[str]:
    pairs = [("flame", gender) for _, gender in FILES if _ == "flame"]
    pairs += [("mano_left", "neutral"), ("mano_right", "neutral")]
    for kind, gender in pairs:
        part, body = models[kind, gender], models["smplx", gender]
        rows = subsets[f"smplx_{kind}"]
        if len(np.unique(rows)) != len(rows) or len(rows) != VERTICES[kind]:
            yield f"smplx_{kind} must name {VERTICES[kind]} different vertices"
            continue
        offset = body["v_template"][rows] - part["v_template"]
        if not (offset == offset[0]).all():
            yield f"{FILES[kind, gender]} must be a subset of SMPL-X, bit for bit"
        place = np.full(VERTICES["smplx"], -1)
        place[rows] = np.arange(len(rows))
        inside = place[body["f"].astype(np.int64)]
        if not np.array_equal(oriented(inside[(inside >= 0).all(1)]), oriented(part["f"])):
            yield f"{FILES[kind, gender]} must have SMPL-X's faces"
        if kind == "flame" and not np.array_equal(
            body["shapedirs"][rows][..., 10:], part["shapedirs"][..., 10:]
        ):
            yield f"{FILES[kind, gender]} must have SMPL-X's expressions"
    right, left = models["mano_right", "neutral"], models["mano_left", "neutral"]
    entries = np.tile(np.outer(MIRROR, MIRROR).ravel(), 15)  # of 15 rotation matrices
    mirrors = {
        "v_template": MIRROR,
        "shapedirs": MIRROR[:, None],
        "posedirs": MIRROR[:, None] * entries,
        "weights": 1,
        "J_regressor": 1,
        "hands_mean": MIRROR_AXES,
        "hands_components": MIRROR_AXES,
        "hands_coeffs": 1,
    }
    for key, mirror in mirrors.items():
        if not np.array_equal(left[key], right[key] * mirror):
            yield f"{key} of the left hand must mirror the right one's, bit for bit"
    for gender in GENDERS:
        for hand, letter in ((left, "l"), (right, "r")):
            for key in ("hands_mean", "hands_components"):
                if not np.array_equal(models["smplx", gender][f"{key}{letter}"], hand[key]):
                    yield f"{FILES['smplx', gender]}: {key}{letter} must be MANO's"


_OF_SHAPE = {"v_template", "shapedirs", "J_regressor", "J"}


def _of_genders(models: Models) -> Iterator[str]:
    """Bodies of all genders share all that is not shape."""
    for (kind, gender), model in models.items():
        neutral = models[kind, "neutral"]
        for key in sorted(set(model) - _OF_SHAPE):
            if not np.array_equal(model[key], neutral[key]):
                yield f"{FILES[kind, gender]}: {key} must be the neutral body's"
        if not np.array_equal(model["shapedirs"][..., 10:], neutral["shapedirs"][..., 10:]):
            yield f"{FILES[kind, gender]}: expressions must be the neutral body's"


def _of_weak_spots(models: Models) -> Iterator[str]:
    """Shoulders, mouth and wrists are no worse than they were."""
    body, face, hand = (models[kind, "neutral"] for kind in ("smpl", "flame", "mano_right"))
    numbers = (
        ("shoulders with the arms down must fall, in degrees", shoulder_slope(body)[0], _FALL),
        ("the open mouth must fill of its box", mouth_roundness(face, mouth_rim(face)), _FILLED),
        ("MANO's wrist must lie inside the cut, in metres", wrist_depth(hand), _INSIDE),
    )
    for words, found, least in numbers:
        if not found >= least:
            yield f"{words}, at least {least:g}, got {found:.3g}"
