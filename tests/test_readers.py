"""Every layout of every model against a slow twin: json.load, a loop, and numpy."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts import FILE_NAMES

from neuralannot import json_chunks
from neuralannot.catalog import RELEASES, identify
from neuralannot.readers import read_fits

# Field -> (columns, required): what the release's README and demo scripts say of the leaves.
FIELDS: dict[str, dict[str, tuple[dict[str, tuple[int, ...]], bool]]] = {
    "smpl": {
        "pose": ({"global_orient": (3,), "body_pose": (23, 3)}, True),
        "shape": ({"betas": (10,)}, True),
        "trans": ({"transl": (3,)}, True),
    },
    "smplx": {
        "root_pose": ({"global_orient": (3,)}, True),
        "body_pose": ({"body_pose": (21, 3)}, True),
        "lhand_pose": ({"left_hand_pose": (15, 3)}, False),
        "rhand_pose": ({"right_hand_pose": (15, 3)}, False),
        "jaw_pose": ({"jaw_pose": (3,)}, False),
        "shape": ({"betas": (10,)}, True),
        "expr": ({"expression": (10,)}, False),
        "trans": ({"transl": (3,)}, True),
    },
    "mano": {
        "pose": ({"global_orient": (3,), "hand_pose": (15, 3)}, True),
        "shape": ({"betas": (10,)}, True),
        "trans": ({"transl": (3,)}, True),
    },
    "flame": {
        "root_pose": ({"global_orient": (3,)}, True),
        "jaw_pose": ({"jaw_pose": (3,)}, True),
        "shape": ({"betas": (10,)}, True),
        "expr": ({"expression": (10,)}, True),
        "trans": ({"transl": (3,)}, False),
    },
}
PARTS = {"left_hand": ("lhand_pose",), "right_hand": ("rhand_pose",), "face": ("jaw_pose", "expr")}
FLAGS = {"lhand_valid": "left_hand", "rhand_valid": "right_hand", "face_valid": "face"}
GENDERS = ("neutral", "male", "female")


def read(path: Path) -> dict[str, np.ndarray]:
    found = identify(path)
    assert found is not None
    return read_fits(path, *found)


# --- random files


def number(rng: random.Random) -> float | int:
    """Floats of all sizes that float32 holds, with many and few digits, and integers among them."""
    kind = rng.randrange(6)
    if kind == 0:
        return rng.randrange(-3, 4)
    if kind == 1:
        return rng.gauss(0, 1) * 10 ** rng.uniform(-44, 38)
    return round(rng.gauss(0, 1), 3) if kind == 2 else rng.gauss(0, 1)


def width(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(int(np.prod(shape)) for shape in shapes.values())


def random_leaf(rng: random.Random, release: str, *, extra: bool = False) -> dict:
    entry = RELEASES[release]
    params: dict[str, Any] = {}
    for field, (shapes, required) in FIELDS[entry.model].items():
        if required or rng.random() < 0.7:
            values: list = [number(rng) for _ in range(width(shapes))]
            if len(values) % 3 == 0 and rng.random() < 0.2:
                values = [values[k : k + 3] for k in range(0, len(values), 3)]  # (J, 3) instead of flat
            params[field] = values
    if entry.model == "smplx":
        params |= {flag: rng.choice([True, False, 1, 0]) for flag in FLAGS if rng.random() < 0.5}
    if rng.random() < 0.5:
        params["gender"] = rng.choice(GENDERS)
    params = dict(rng.sample(list(params.items()), len(params)))
    if entry.leaf_key is None:
        return params
    camera = {"focal": [abs(number(rng)) + 1, abs(number(rng)) + 1], "princpt": [number(rng), number(rng)]}
    return dict(rng.sample([(entry.leaf_key, params), ("cam_param", camera)], 2))


def random_file(rng: random.Random, release: str) -> dict:
    entry = RELEASES[release]

    def fits(count: int) -> dict:
        keys = rng.sample(range(10**6), count)
        if not entry.layout.startswith("hand"):
            return {str(k): random_leaf(rng, release) for k in keys}
        return {str(k): random_hands(k) for k in keys}

    def random_hands(key: int) -> dict | None:
        hands = {side: random_leaf(rng, release) for side in rng.sample(["left", "right"], 2)}
        for side in list(hands):
            if rng.random() < 0.3:
                hands[side] = None  # type: ignore[assignment]
            elif rng.random() < 0.2:
                del hands[side]
        return hands if key % 7 else None

    depth = len(entry.key_names) - (entry.data_set == "Human3.6M")

    def nest(level: int) -> dict:
        if level == 1:
            return fits(rng.randrange(0, 4))
        return {str(k): nest(level - 1) for k in rng.sample(range(99), rng.randrange(0, 4))}

    return fits(rng.randrange(0, 9)) if depth == 1 else nest(depth)


# --- the slow twin


def twin(content: dict, release: str, subject: int = 1) -> dict[str, np.ndarray]:
    entry = RELEASES[release]
    hands = entry.layout.startswith("hand")
    lead = (subject,) if entry.data_set == "Human3.6M" else ()
    rows: list[tuple[tuple[int, ...], str | None, dict]] = []
    entries = []

    def walk(node: dict, key: tuple[int, ...]) -> None:
        for text, value in node.items():
            inner = (*key, int(text))
            if len(inner) < len(entry.key_names):
                walk(value, inner)
            elif not hands:
                rows.append((inner, None, value))
            else:
                entries.append(inner)
                for side in ("right", "left"):
                    if (value or {}).get(side) is not None:
                        rows.append((inner, side, value[side]))

    walk(content, lead)
    keys = np.array([r[0] for r in rows], np.int64).reshape(len(rows), len(entry.key_names))
    columns = {"key" if entry.layout.endswith("frames") else "id": keys}
    if "id" in columns:
        columns["id"] = keys[:, 0]
    if hands:
        columns["side"] = np.array([r[1] == "left" for r in rows], np.uint8)
        columns["all/entry"] = np.array(entries, np.int64).reshape(-1, len(entry.key_names))
    leaves = [r[2] if entry.leaf_key is None else r[2][entry.leaf_key] for r in rows]
    for field, (shapes, _) in FIELDS[entry.model].items():
        first = 0
        for name, shape in shapes.items():
            size = int(np.prod(shape))
            values = [
                np.ravel(leaf.get(field, np.zeros(first + size)))[first : first + size] for leaf in leaves
            ]
            columns[f"param/{name}"] = np.array(values, np.float32).reshape(len(leaves), *shape)
            first += size
    if entry.leaf_key is not None:
        for name in ("focal", "princpt"):
            values = [r[2]["cam_param"][name] for r in rows]
            columns[name] = np.array(values, np.float32).reshape(len(rows), 2)
    columns["gender"] = np.array([GENDERS.index(leaf.get("gender", "neutral")) for leaf in leaves], np.uint8)
    if entry.model == "mano":
        columns["valid/right_hand"] = columns["side"] == 0
        columns["valid/left_hand"] = columns["side"] == 1
        return columns
    columns["valid/face" if entry.model == "flame" else "valid/body"] = np.ones(len(rows), bool)
    if entry.model == "flame":
        columns["valid/transl"] = np.array(["trans" in leaf for leaf in leaves], bool)
    if entry.model == "smplx":
        for part, fields in PARTS.items():
            flag = next(f for f, p in FLAGS.items() if p == part)
            said = [bool(leaf.get(flag, True)) and all(f in leaf for f in fields) for leaf in leaves]
            columns[f"valid/{part}"] = np.array(said, bool)
    return columns


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """The same columns, bit by bit."""
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype, name
        assert found[name].shape == values.shape, name
        assert found[name].tobytes() == values.tobytes(), name


@pytest.mark.parametrize("release", FILE_NAMES)
def test_columns_are_the_slow_twins(release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / FILE_NAMES[release]

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, 2**32), st.sampled_from([1, 3000, 1 << 19]), st.sampled_from([None, 1]))
    def check(seed: int, window: int, indent: int | None) -> None:
        rng = random.Random(seed)
        monkeypatch.setattr(json_chunks, "CHUNK_BYTES", window)
        content = random_file(rng, release)
        path.write_text(json.dumps(content, indent=indent))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            same(read(path), twin(content, release))

    check()


# --- one thing at a time


def dump(tmp_path: Path, release: str, content: dict) -> Path:
    path = tmp_path / FILE_NAMES[release]
    path.write_text(json.dumps(content))
    return path


def full_leaf(release: str, **more: Any) -> dict:
    """A leaf with every field, numbered 0, 1, 2, ..., in quarters."""
    entry = RELEASES[release]
    params: dict[str, Any] = {}
    for field, (shapes, _) in FIELDS[entry.model].items():
        params[field] = [k / 4 for k in range(width(shapes))]
    params |= more
    if entry.leaf_key is None:
        return params
    return {entry.leaf_key: params, "cam_param": {"focal": [500, 501.5], "princpt": [20.25, 30]}}


def test_parameters_are_cut_in_the_files_order(tmp_path: Path) -> None:
    columns = read(dump(tmp_path, "mscoco-smpl", {"7": full_leaf("mscoco-smpl")}))
    assert columns["param/global_orient"].tolist() == [[0, 0.25, 0.5]]
    assert columns["param/body_pose"][0, 0].tolist() == [0.75, 1, 1.25]
    assert columns["param/body_pose"][0, 22].tolist() == [17.25, 17.5, 17.75]
    assert columns["focal"].tolist() == [[500, 501.5]]
    assert columns["princpt"].tolist() == [[20.25, 30]]
    assert all(values.flags.c_contiguous for values in columns.values())


@pytest.mark.parametrize("release", FILE_NAMES)
def test_a_file_without_fits(release: str, tmp_path: Path) -> None:
    columns = read(dump(tmp_path, release, {}))
    same(columns, twin({}, release))
    assert columns["param/betas"].shape == (0, 10)


def test_the_files_order_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_chunks, "CHUNK_BYTES", 100)
    ids = [900100581904, 3, 77, 5, 0, 12]
    content = {str(i): full_leaf("mpii-smpl", shape=[i % 100] * 10) for i in ids}
    columns = read(dump(tmp_path, "mpii-smpl", content))
    assert columns["id"].tolist() == ids
    assert columns["param/betas"][:, 0].tolist() == [i % 100 for i in ids]


def test_subject_comes_from_the_name(tmp_path: Path) -> None:
    path = tmp_path / "Human36M_subject11_SMPL_NeuralAnnot.json"
    path.write_text(
        json.dumps({"2": {"1": {"0": full_leaf("human36m-smpl"), "4": full_leaf("human36m-smpl")}}})
    )
    assert read(path)["key"].tolist() == [[11, 2, 1, 0], [11, 2, 1, 4]]


def test_hands_right_before_left_and_what_lacks(tmp_path: Path) -> None:
    one = full_leaf("interhand26m-mano")
    frames = {
        "8": {"left": one, "right": one},
        "3": {"right": None, "left": one},
        "5": {"right": one},
        "6": {},
    }
    columns = read(dump(tmp_path, "interhand26m-mano", {"2": frames, "0": {"1": None}}))
    assert columns["key"].tolist() == [[2, 8], [2, 8], [2, 3], [2, 5]]
    assert columns["side"].tolist() == [0, 1, 1, 0]
    assert columns["all/entry"].tolist() == [[2, 8], [2, 3], [2, 5], [2, 6], [0, 1]]
    assert columns["valid/right_hand"].tolist() == [True, False, False, True]
    assert columns["valid/left_hand"].tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("left_out", "flags", "valid"),
    [
        ((), {}, (True, True, True)),
        (("lhand_pose",), {}, (False, True, True)),
        (("lhand_pose",), {"lhand_valid": True}, (False, True, True)),
        (("jaw_pose",), {"face_valid": True}, (True, True, False)),
        (("expr",), {}, (True, True, False)),
        ((), {"lhand_valid": False, "rhand_valid": 1, "face_valid": 0}, (False, True, False)),
        (("lhand_pose", "rhand_pose", "jaw_pose", "expr"), {}, (False, False, False)),
    ],
)
def test_validity_of_parts(left_out: tuple, flags: dict, valid: tuple, tmp_path: Path) -> None:
    one = full_leaf("mscoco-smplx", **flags)
    for field in left_out:
        del one["smplx_param"][field]
    columns = read(dump(tmp_path, "mscoco-smplx", {"1": one}))
    assert tuple(columns[f"valid/{p}"].item() for p in ("left_hand", "right_hand", "face")) == valid
    assert columns["valid/body"].item()
    # As stored, whatever the flags say; zero where absent.
    assert columns["param/left_hand_pose"].any() == ("lhand_pose" not in left_out)
    assert columns["param/expression"].any() == ("expr" not in left_out)


def test_fields_that_no_model_has_are_named_once(tmp_path: Path) -> None:
    content = {str(k): full_leaf("mscoco-smpl", score=0.5, neck=[1]) for k in range(3)}
    content["2"]["note"] = "hello"
    content["2"]["cam_param"]["R"] = [1, 0, 0]
    path = dump(tmp_path, "mscoco-smpl", content)
    with pytest.warns(
        UserWarning, match="hold R, neck, note, score, which mscoco-smpl files are not known to have; left"
    ) as w:
        columns = read(path)
    assert len(w) == 1
    assert str(path) in str(w[0].message)
    content = {k: full_leaf("mscoco-smpl") for k in content}
    same(columns, twin(content, "mscoco-smpl"))


def test_flags_and_hands_are_strange_to_smpl(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="hold lhand_pose, lhand_valid, which"):
        read(
            dump(
                tmp_path,
                "mscoco-smpl",
                {"1": full_leaf("mscoco-smpl", lhand_valid=True, lhand_pose=[0] * 45)},
            )
        )


def test_numbers_at_the_ends_of_float32(tmp_path: Path) -> None:
    ends = [3.4028234663852886e38, -3.4028235e38, 1e-45, 1e-46, -0.0, 0, 5, 2**53 + 1, 1e38, 16777217]
    columns = read(dump(tmp_path, "mscoco-smpl", {"1": full_leaf("mscoco-smpl", shape=ends)}))
    assert columns["param/betas"].tobytes() == np.array([ends], np.float64).astype(np.float32).tobytes()


@pytest.mark.parametrize("focal", [[0, 500], [500, -1.5]])
def test_a_focal_length_that_is_not_positive_names_its_id(focal, tmp_path):
    leaf = {"pose": [0] * 72, "shape": [0] * 10, "trans": [0] * 3}
    content = {
        str(i): {"smpl_param": leaf, "cam_param": {"focal": [1, 1], "princpt": [0, 0]}} for i in (4, 5)
    }
    content["5"]["cam_param"] = {"focal": focal, "princpt": [0, 0]}
    path = tmp_path / "MSCOCO_train_SMPL_NeuralAnnot.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"id 5: 'focal' must be positive, got \["):
        read_fits(path, RELEASES["mscoco-smpl"], {})


def test_a_side_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "MSCOCO_train_MANO_NeuralAnnot.json"
    path.write_text('{"7": {"right": null, "right": null}}')
    with pytest.raises(
        ValueError, match=r"id 7: expected the keys 'right' and 'left', once each, got right, "
    ):
        read_fits(path, RELEASES["mscoco-mano"], {})
