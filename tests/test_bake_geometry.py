"""The bake's geometry, on small made skeletons, bodies and faces."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tools.bake_open_models import (  # noqa: E402
    correctives,
    invariants,
    joints,
    mouth,
    packing,
    phenotypes,
    shapes,
    tpose,
    trees,
    vertices,
)

OPEN = ROOT / "neuralannot" / "body_models" / "open"
MIRROR = np.array([-1.0, 1, 1])


# The T-pose.


def made_skeleton() -> tuple[tuple[str, ...], tuple[int, ...], np.ndarray]:
    """Two legs, and two arms that hang at 45 degrees with bent fingers; right bones mirror left ones."""
    chains = {
        "upperleg01": ("root", (0.1, -0.1, 0)),
        "lowerleg01": ("upperleg01", (0.06, -0.4, 0.02)),
        "foot": ("lowerleg01", (0.03, -0.4, -0.03)),
        "toe2-1": ("foot", (0.05, -0.05, 0.15)),
        "clavicle": ("root", (0.03, 0.5, 0)),
        "shoulder01": ("clavicle", (0.08, 0.02, -0.01)),
        "upperarm01": ("shoulder01", (0.08, 0, 0)),
        "upperarm02": ("upperarm01", (0.1, -0.1, 0.01)),
        "lowerarm01": ("upperarm02", (0.1, -0.1, 0.02)),
        "lowerarm02": ("lowerarm01", (0.09, -0.09, 0.03)),
        "wrist": ("lowerarm02", (0.09, -0.08, 0.03)),
    }
    for finger, z in zip((2, 3, 4, 5), (0.03, 0.01, -0.01, -0.03), strict=True):
        chains[f"finger{finger}-1"] = ("wrist", (0.06, -0.06, z))
        chains[f"finger{finger}-2"] = (f"finger{finger}-1", (0.03, -0.035, z / 5))
        chains[f"finger{finger}-3"] = (f"finger{finger}-2", (0.01, -0.03, 0))
    names, parents, heads = ["root"], [-1], [np.zeros(3)]
    for side, mirror in (("L", np.ones(3)), ("R", MIRROR)):
        for name, (parent, along) in chains.items():
            number = 0 if parent == "root" else names.index(f"{parent}.{side}")
            names.append(f"{name}.{side}")
            parents.append(number)
            heads.append(heads[number] + mirror * along)
    return tuple(names), tuple(parents), np.array(heads)


def test_the_t_pose_has_straight_arms_level_feet_and_two_sides_alike():
    names, parents, heads = made_skeleton()
    turns = tpose.t_pose(names, parents, heads)
    np.testing.assert_allclose(
        turns @ turns.transpose(0, 2, 1), np.tile(np.eye(3), (len(names), 1, 1)), atol=1e-9
    )
    posed = tpose.posed_heads(parents, turns, heads)

    def along(start: str, end: str) -> np.ndarray:
        way = posed[names.index(end)] - posed[names.index(start)]
        return way / np.linalg.norm(way)

    arm = ("upperarm01", "lowerarm01", "wrist", "finger3-1")
    for start, end in pairwise(arm):
        np.testing.assert_allclose(along(f"{start}.L", f"{end}.L"), [1, 0, 0], atol=2e-3)
    index, pinky = along("wrist.L", "finger2-1.L"), along("wrist.L", "finger5-1.L")
    back = np.cross(index, pinky)
    np.testing.assert_allclose(back / np.linalg.norm(back), [0, 1, 0], atol=1e-6)  # the palm is down
    for finger in (2, 3, 4, 5):
        for k in (1, 2):
            assert abs(along(f"finger{finger}-{k}.L", f"finger{finger}-{k + 1}.L")[1]) < 1e-9
    assert along("upperleg01.L", "lowerleg01.L")[1] < -0.99
    assert abs(along("foot.L", "toe2-1.L")[0]) < 0.2
    left = [number for number, name in enumerate(names) if name.endswith(".L")]
    right = [names.index(f"{names[number][:-1]}R") for number in left]
    np.testing.assert_allclose(posed[right], posed[left] * MIRROR, atol=1e-12)


# Correctives.


def made_limb() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A tube along x with joints at 0, 1 and 2: points (V, 3), joints (3, 3), weights (V, 3)."""
    x, angle = (v.ravel() for v in np.meshgrid(np.linspace(-0.5, 2.5, 61), np.linspace(0, 2 * np.pi, 12)))
    points = np.stack([x, 0.15 * np.cos(angle), 0.15 * np.sin(angle)], 1)
    first, second = (np.clip((x - at) / 0.4 + 0.5, 0, 1) for at in (1, 2))
    return (
        points,
        np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]),
        np.stack([1 - first, first - second, second], 1),
    )


@pytest.mark.parametrize("joint", [1, 2])
def test_correctives_bring_a_bent_limb_to_blended_quaternions(joint):
    points, places, weights = made_limb()
    directions = correctives.pose_directions(points, places, weights, (-1, 0, 1))
    vector = np.array([0.1, 0.3, 1.0])
    matrix = Rotation.from_rotvec(vector).as_matrix()
    share = weights[:, joint:].sum(1)
    goal = correctives.quaternion_goal(points - places[joint], share, vector)
    linear = (1 - share)[:, None, None] * np.eye(3) + share[:, None, None] * matrix

    def apart(at_rest: np.ndarray) -> float:
        return float(np.abs(np.einsum("vij,vj->vi", linear, at_rest - places[joint]) - goal).max())

    columns = slice(9 * (joint - 1), 9 * joint)
    moved = points + directions[:, :, columns] @ (matrix - np.eye(3)).ravel()
    assert apart(points) > 0.01
    assert apart(moved) < 0.6 * apart(points)
    inside = (share > 0.02) & (share < 0.98)
    assert not directions[~inside][:, :, columns].any()


# Joints and shapes.


def test_joints_are_found_in_their_vertices():
    rng = np.random.default_rng(0)
    template, directions = rng.normal(0.5, 0.1, (120, 3)), rng.normal(0, 0.01, (120, 3, 10))
    mixture = np.zeros((2, 120))
    mixture[0, :20], mixture[1, 40:60] = rng.dirichlet(np.ones(20)), rng.dirichlet(np.ones(20))
    space = shapes.ShapeSpace(
        template, mixture @ template, directions, np.einsum("jv,vck->jck", mixture, directions), 1.0
    )
    tree = trees.Tree(("a", "b"), (-1, 0), {})
    found = joints.joint_regressor(space, np.full((120, 2), 0.5), tree)
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_allclose(found @ template, space.joints, atol=1e-3)
    np.testing.assert_allclose(np.einsum("jv,vck->jck", found, directions), space.joint_directions, atol=1e-3)


def test_shape_codes_have_the_spread_of_the_people():
    """With as many codes as blend shapes they say all: covariances are the people's."""
    rng = np.random.default_rng(0)
    tree = trees.TREES["mano_right"]
    bones = (*trees.TREES["mano_right"].bones, "wrist.R")[1:]
    count, points = shapes.COMPONENTS, 40
    made = {
        "people": {"neutral": rng.normal(0.3, 1, (60, count)) @ rng.normal(size=(count, count))},
        "template": rng.normal(size=(points, 3)),
        "shapes": rng.normal(0.1, 1, (count, points, 3)),
        "heads": rng.normal(size=(16, 3)),
        "head_shapes": rng.normal(size=(count, 16, 3)),
    }
    source = SimpleNamespace(**made, bone=bones.index)
    rows = tuple({k: 1.0} for k in range(points))
    layout = vertices.Layout(rows, np.zeros((0, 3), int), points, np.arange(points), np.zeros(points, bool))
    space = shapes.shape_space("mano_right", source, layout, "neutral")

    people = made["people"]["neutral"]
    bodies = made["template"] + np.tensordot(people, made["shapes"], 1)
    skeletons = trees.joint_places(
        "mano_right", source, made["heads"] + np.tensordot(people, made["head_shapes"], 1)
    )
    assert skeletons.shape == (60, len(tree.joints), 3)
    # Laid over each other by the mean of their vertices.
    apart = bodies.mean(1, keepdims=True) - made["template"].mean(0)
    bodies, skeletons = bodies - apart, skeletons - apart
    off = (bodies - bodies.mean(0)).reshape(60, -1)
    joints_off = (skeletons - skeletons.mean(0)).reshape(60, -1)
    directions = space.directions.reshape(-1, count)
    np.testing.assert_allclose(directions @ directions.T, off.T @ off / 59, atol=1e-8)
    both = space.joint_directions.reshape(-1, count) @ directions.T
    np.testing.assert_allclose(both, joints_off.T @ off / 59, atol=1e-8)
    assert space.kept == pytest.approx(1)
    # The mean person, put where the official file has its root.
    mean = made["template"] + np.tensordot(people.mean(0), made["shapes"], 1)
    np.testing.assert_allclose(
        space.template - space.joints[0], mean - skeletons_root(made, source, people), atol=1e-9
    )
    for code in range(count):
        up, down = (np.ptp(space.template[:, 1] + sign * space.directions[:, 1, code]) for sign in (2, -2))
        assert up >= down


def skeletons_root(made: dict, source: SimpleNamespace, people: np.ndarray) -> np.ndarray:
    heads = made["heads"] + np.tensordot(people.mean(0), made["head_shapes"], 1)
    return heads[source.bone("wrist.R")]


def test_people_are_adults():
    people = phenotypes.draw_people(np.random.default_rng(0), None, count=500)
    targets = phenotypes.macro_targets()
    weights = phenotypes.coefficients(people, targets)
    universal = np.array([target.file.startswith("macrodetails/universal-") for target in targets])
    child = universal & np.array(["child" in target.words for target in targets])
    assert weights[:, child].sum(1).max() <= 0.2 + 1e-9


# The mouth.


def test_the_open_mouth_s_rim_is_an_ellipse():
    around = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    rings = [
        np.stack([r * 1.6 * np.cos(around), r * np.sin(around), np.full(40, 0.1)], 1)
        for r in (0.012, 0.018, 0.026, 0.06)
    ]
    template = np.concatenate(rings)
    faces = []
    for ring in range(3):
        for k in range(40):
            a, b = 40 * ring + k, 40 * ring + (k + 1) % 40
            faces += [(a, a + 40, b), (b, a + 40, b + 40)]
    center = np.array([0.0, 0.03, -0.02])
    share = np.clip(0.5 - template[:, 1] / 0.01, 0, 1) * np.clip(1 - np.abs(template[:, 0]) / 0.06, 0, 1)
    rim = np.arange(40)
    directions = mouth.mouth_directions(template, np.array(faces), rim, center, share)
    vector = np.array([np.deg2rad(25), 0, 0])
    matrix = Rotation.from_rotvec(vector).as_matrix()
    opened = correctives.quaternion_goal(template - center, share, vector)
    offsets = correctives.rest_offset(template - center, share, matrix, opened)
    offsets = offsets + directions @ (matrix - np.eye(3)).ravel()
    linear = (1 - share)[:, None, None] * np.eye(3) + share[:, None, None] * matrix
    found = np.einsum("vij,vj->vi", linear, template - center + offsets)
    loop = mouth.ordered_loop(np.array(faces), rim)
    wanted = mouth.on_ellipse(opened[loop])
    assert np.abs(wanted - opened[loop]).max() > 1e-3
    np.testing.assert_allclose(found[loop], wanted, atol=1e-4)
    assert not directions[120:].any()  # the outermost ring is too far away


# What else is broken in a file.


@pytest.fixture(scope="module")
def hand() -> packing.Arrays:
    return packing.read_npz(OPEN / "mano/MANO_RIGHT.npz")


def said(check, *given) -> str:
    return "\n".join(check(*given))


def test_broken_weights_and_joints_are_named(hand):
    weights = hand["weights"].copy()
    weights[5] = 0
    weights[5, :5] = [0.5, 0.125, 0.125, 0.125, 0.125]
    assert said(invariants._of_weights, {**hand, "weights": weights}) == (
        "a vertex must have at most 4 weights, got 5"
    )
    moved = hand["J"] + np.float32(0.001)
    assert "J must be J_regressor times v_template, got 1.0" in said(
        invariants._of_weights, {**hand, "J": moved}
    )


def test_broken_meshes_are_named(hand):
    faces = hand["f"]
    assert said(invariants._of_mesh, "mano_right", hand) == ""
    less = said(invariants._of_mesh, "mano_right", {**hand, "f": faces[:-1]})
    assert "16 edges must be open, got" in less
    edge = faces[0, :2]
    third = np.setdiff1d(np.arange(778), faces[np.isin(faces, edge).any(1)])[0]
    more = np.vstack([faces, [[edge[0], edge[1], third]]])
    assert "1 edges have more than two faces" in said(invariants._of_mesh, "mano_right", {**hand, "f": more})
    lost = faces[~(faces == 744).any(1)]
    assert "1 vertices are in no face" in said(invariants._of_mesh, "mano_right", {**hand, "f": lost})


def test_triangles_without_area_or_turned_over_are_named(hand):
    def shapes_said(**changed) -> str:
        return said(invariants._of_shapes, "mano_right", "neutral", {**hand, **changed})

    assert shapes_said() == ""
    flat = hand["v_template"].copy()
    a, b, c = hand["f"][100]
    flat[a] = (flat[b] + flat[c]) / 2
    assert "triangles have no area" in shapes_said(v_template=flat)
    wild = hand["shapedirs"].copy()
    wild[400] *= 100
    assert "triangles are turned over in 100 random shapes" in shapes_said(shapedirs=wild)


def test_faces_that_do_not_mirror_and_lips_that_roll_are_named():
    flame = packing.read_npz(OPEN / "flame/FLAME_NEUTRAL.npz")
    # The other diagonal of two neighbours on one side.
    faces = flame["f"].astype(int)
    middle = flame["v_template"][faces].mean(1)
    first = int(np.argmax(middle[:, 0]))
    shared = [np.intersect1d(faces[first], face).size for face in faces]
    second = int(np.flatnonzero(np.array(shared) == 2)[0])
    a, b = np.intersect1d(faces[first], faces[second])
    c, d = np.setdiff1d(faces[first], [a, b])[0], np.setdiff1d(faces[second], [a, b])[0]
    faces[[first, second]] = [[a, c, d], [b, d, c]]
    assert "faces must mirror each other" in said(invariants._of_symmetry, "flame", {**flame, "f": faces})
    wild = flame["shapedirs"].copy()
    wild[np.abs(flame["v_template"] - middle[middle[:, 2].argmax()]).max(1) < 0.02] *= 60
    rolled = said(invariants._of_shapes, "flame", "neutral", {**flame, "shapedirs": wild})
    assert "triangles of lips and lids are turned over" in rolled


def test_broken_textures_are_named(hand):
    corners = hand["ft"].copy()
    corners[3, 1] = len(hand["vt"])
    assert said(invariants._of_texture, hand) == ""
    last = len(hand["vt"]) - 1
    assert said(invariants._of_texture, {**hand, "ft": corners}).startswith(
        f"ft must lie in 0..{last}, got 0.."
    )
