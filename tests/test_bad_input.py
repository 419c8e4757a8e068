"""Bad files: one clear line that says what, where, expected and got; and nothing left beside the file."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import FILE_NAMES, leaf

from neuralannot import json_chunks, load_pseudo_gt
from neuralannot.catalog import RELEASES


def good(release: str, count: int = 3) -> dict:
    """A small file in the release's layout, its keys 10, 11, 12 under 2, 1, ..."""
    entry = RELEASES[release]
    rng = np.random.default_rng(0)

    def fit() -> dict:
        params = leaf(rng, release)
        if entry.leaf_key is None:
            return params
        return {entry.leaf_key: params, "cam_param": {"focal": [500.5, 501], "princpt": [320, 240]}}

    content: dict = {str(10 + k): fit() for k in range(count)}
    if entry.layout.startswith("hand"):
        content = {key: {"right": value, "left": fit()} for key, value in content.items()}
    for outer in range(len(entry.key_names) - 1 - (entry.data_set == "Human3.6M")):
        content = {str(1 + outer): content}
    return content


def refused(path: Path, error: type[Exception], message: str, **options: Any) -> None:
    """Loading fails with this one-line message, which names the file first, and leaves nothing new behind."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(error, match=message) as caught:
        load_pseudo_gt(path, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert sorted(path.parent.rglob("*")) == before


def written(tmp_path: Path, release: str, content: Any) -> Path:
    path = tmp_path / FILE_NAMES[release]
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# --- not whole, not JSON


@pytest.mark.parametrize("release", ["mscoco-smpl", "mscoco-mano", "human36m-smpl", "interhand26m-mano"])
@pytest.mark.parametrize("window", [500, 1 << 19])
def test_truncated(release: str, window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_chunks, "CHUNK_BYTES", window)
    text = json.dumps(good(release))
    for length in np.linspace(1, len(text) - 1, 25).astype(int):
        path = written(tmp_path, release, text[:length])
        refused(
            path, ValueError, rf"not whole JSON: it ends at byte {length}( after key '\d+')? with braces left"
        )


@pytest.mark.parametrize("release", ["mscoco-smpl", "mpi-inf-3dhp-smplx"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty; expected a JSON object, download it again"),
        ("<html>quota exceeded", "not a JSON object: it begins with '<html>quota exceeded'"),
        ("[]", r"not a JSON object: it begins with '\[\]'; expected '{'"),
        (
            '{"1": {"1": {}}} x',
            "more text after the JSON object's end, from byte 16; download it again",
        ),
    ],
)
def test_not_json(release: str, text: str, message: str, tmp_path: Path) -> None:
    refused(written(tmp_path, release, text), ValueError, message)


def test_broken_in_the_middle_says_which_key(tmp_path: Path) -> None:
    text = json.dumps(good("mscoco-smpl")).replace(
        '"12": {"smpl_param": {"pose": [', '"12": {"smpl_param": {"pose": [1 '
    )
    message = r"not valid JSON at byte \d+, id 12: Expecting ',' delimiter after '.*pose.*'"
    refused(written(tmp_path, "mscoco-smpl", text), ValueError, message)
    path = tmp_path / FILE_NAMES["mscoco-smpl"]
    place = int(re.search(r"byte (\d+)", error_of(path)).group(1))  # type: ignore[union-attr]
    assert text[place - 2 : place] == "1 "


def error_of(path: Path) -> str:
    with pytest.raises(ValueError, match=path.name) as caught:
        load_pseudo_gt(path)
    return str(caught.value)


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAMES["mscoco-smpl"]
    path.write_bytes(b'{"1": {"smpl_param": {"\xff": 1}}}')
    refused(path, ValueError, "not UTF-8 at byte 23")


# --- the wrong file


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "MSCOCO_train_SMPL_NeuralAnnot.json"
    refused(path, FileNotFoundError, "no such file; `neuralannot releases` lists what exists$")
    refused(tmp_path / "x.safetensors", FileNotFoundError, "no such file")


def test_another_name_lists_what_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "fits.json"
    path.write_text(json.dumps(good("mscoco-flame")))
    refused(path, ValueError, "not a released file name; pass release=, one of mscoco-flame, ffhq-flame$")
    assert len(load_pseudo_gt(path, release="ffhq-flame", cache=False)) == 3
    path.write_text(json.dumps(good("mpi-inf-3dhp-smpl")))
    refused(path, ValueError, "pass release=, one of human36m-smpl, human36m-smplx, mpi-inf-3dhp-smpl, ")


def test_named_otherwise_than_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, "mscoco-smpl", good("mscoco-smpl"))
    assert (
        load_pseudo_gt(path, release="mpii-smpl", cache=False).release == "mpii-smpl"
    )  # told goes before named
    refused(
        path, ValueError, "id 10: no 'smplx_param', got smpl_param, cam_param; is this", release="mpii-smplx"
    )
    with pytest.raises(ValueError, match=r"^unknown release 'coco-smpl'; did you mean 'mscoco-smpl'"):
        load_pseudo_gt(path, release="coco-smpl")


def test_subject_that_no_name_says(tmp_path: Path) -> None:
    path = tmp_path / "subject1.json"
    path.write_text(json.dumps(good("human36m-smpl")))
    message = (
        r"the subject is in no other place than the file's name; expected Human36M_subject{subject}_SMPL_Neu"
    )
    refused(path, ValueError, message, release="human36m-smpl")


# What each release's content gives under another's name.
SWAPPED = {
    ("mscoco-smplx", "mscoco-smpl"): (
        "id 10: no 'smpl_param', got smplx_param, cam_param; is this file a mscoco-smpl[?]"
    ),
    ("mscoco-smpl", "mscoco-flame"): "id 10: no 'flame_param', got smpl_param, cam_param; is this file a",
    ("mscoco-mano", "mscoco-smpl"): "id 10: no 'smpl_param', got right, left; is this file a mscoco-smpl",
    (
        "mscoco-smpl",
        "mscoco-mano",
    ): "id 10: expected the keys 'right' and 'left', once each, got smpl_param, cam_param",
    (
        "human36m-smplx",
        "human36m-smpl",
    ): "frame 2/1/10: no 'pose'; expected pose, shape, trans, got root_pose, body",
    (
        "human36m-smpl",
        "human36m-smplx",
    ): "frame 2/1/10: no 'root_pose'; expected root_pose, body_pose, shape, trans",
    ("human36m-smpl", "mscoco-smpl"): "id 2: no 'smpl_param', got 1; is this file a mscoco-smpl",
    (
        "mscoco-smpl",
        "human36m-smpl",
    ): r"key 'smpl_param' is not a number; expected \[subject\]\[action\]\[subaction\]",
    (
        "3dpw-smplx",
        "mscoco-smplx",
    ): "id 10: no 'smplx_param', got root_pose, body_pose, shape, trans; is this file",
    (
        "mscoco-smplx",
        "3dpw-smplx",
    ): "id 10: no 'root_pose'; expected root_pose, .*, got smplx_param, cam_param",
    (
        "mpi-inf-3dhp-smpl",
        "interhand26m-mano",
    ): "frame 2/1: expected the keys 'right' and 'left', once each, got 10, 11, 12",
    (
        "interhand26m-mano",
        "mpi-inf-3dhp-smpl",
    ): r"key 'right' is not a number; expected \[subject\]\[seq\]\[frame\]",
    (
        "interhand26m-mano",
        "mscoco-mano",
    ): "id 1: expected the keys 'right' and 'left', once each, got 10, 11, 12",
    ("mscoco-mano", "interhand26m-mano"): r"key 'right' is not a number; expected \[capture\]\[frame\] keys",
}


@pytest.mark.parametrize(("held", "named"), SWAPPED)
def test_content_of_another_release(held: str, named: str, tmp_path: Path) -> None:
    refused(written(tmp_path, named, good(held)), ValueError, SWAPPED[held, named])


@pytest.mark.parametrize("text", ["abc", "1_0", " 1", "1.0", "", "\u0661", "1" * 30, "0x1"])
@pytest.mark.parametrize("release", ["mscoco-smpl", "mscoco-mano", "interhand26m-mano", "mpi-inf-3dhp-smpl"])
def test_keys_that_are_not_numbers(release: str, text: str, tmp_path: Path) -> None:
    content = json.loads(json.dumps(good(release)).replace('"11":', f"{json.dumps(text)}:"))
    names = re.escape("][".join(RELEASES[release].key_names))
    message = rf"key {re.escape(repr(text))} is not a number; expected \[{names}\] keys of a {release} file"
    refused(written(tmp_path, release, content), ValueError, message)


# --- folders, and several files


def test_folder_with_several_releases(tmp_path: Path) -> None:
    written(tmp_path, "mscoco-smpl", good("mscoco-smpl"))
    written(tmp_path, "mpii-smpl", good("mpii-smpl"))
    refused(tmp_path, ValueError, "holds mpii-smpl, mscoco-smpl; say which with release=")
    assert len(load_pseudo_gt(tmp_path, release="mpii-smpl", cache=False)) == 3


def test_folder_without_a_release(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("{}")
    refused(tmp_path, FileNotFoundError, "no NeuralAnnot files in it; `neuralannot releases` lists the names")
    message = "no FFHQ_FLAME_NeuralAnnot.json in it; `neuralannot releases` lists"
    refused(tmp_path, FileNotFoundError, message, release="ffhq-flame")


def test_several_files_of_a_release_that_is_one(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / f"CrowdPose_{split}_SMPL_NeuralAnnot.json").write_text(json.dumps(good("crowdpose-smpl")))
    message = (
        "^crowdpose-smpl: got .*; pass one of them: only Human3.6M's subjects are loaded together, the ids"
    )
    with pytest.raises(ValueError, match=message):
        load_pseudo_gt(sorted(tmp_path.glob("*.json")))
    with pytest.raises(ValueError, match=message):
        load_pseudo_gt(tmp_path)
    with pytest.raises(ValueError, match="no path given; expected a released file, several, or a folder"):
        load_pseudo_gt([])
    assert not list(tmp_path.glob("*.safetensors"))


def test_subjects_of_two_models(tmp_path: Path) -> None:
    first, twice = (written(tmp_path, r, good(r)) for r in ("human36m-smpl", "human36m-smplx"))
    with pytest.raises(ValueError, match=f"^human36m-smpl: subject 1 twice, {first} and {twice}$"):
        load_pseudo_gt([first, twice])
    other = twice.rename(tmp_path / "Human36M_subject5_SMPLX_NeuralAnnot.json")
    with pytest.raises(
        ValueError, match=f"^{other}: frame 2/1/10: no 'pose'; expected pose, shape, trans, got root"
    ):
        load_pseudo_gt([first, other])


# --- leaves

Change = Callable[[dict], None]


def set_to(field: str, value: Any) -> Change:
    def change(params: dict) -> None:
        params[field] = value

    return change


def drop(field: str) -> Change:
    def change(params: dict) -> None:
        del params[field]

    return change


PLACES = {
    "mscoco-smpl": ("id 11", lambda c: c["11"]),
    "mscoco-mano": ("id 11/left", lambda c: c["11"]["left"]),
    "mpi-inf-3dhp-smpl": ("frame 2/1/11", lambda c: c["2"]["1"]["11"]),
    "human36m-smpl": ("frame 2/1/11", lambda c: c["2"]["1"]["11"]),
    "interhand26m-mano": ("frame 1/11/right", lambda c: c["1"]["11"]["right"]),
}
LEAVES: dict[str, tuple[Change, str]] = {
    "short": (set_to("pose", [0.5] * 45), "'pose' must hold (72|48) numbers, got 45"),
    "long": (set_to("shape", [0.5] * 300), "'shape' must hold 10 numbers, got 300"),
    "empty": (set_to("trans", []), "'trans' must hold 3 numbers, got 0"),
    "string": (set_to("trans", [1, "x", 2]), "'trans' must hold 3 numbers, got a list that holds 'x'"),
    "nested string": (
        set_to("trans", [[1], ["2"], [2]]),
        "'trans' must hold 3 numbers, got a list that holds '2'",
    ),
    "null within": (set_to("trans", [1, None, 2]), "'trans' must hold 3 numbers, got a list that holds null"),
    "bool within": (set_to("trans", [1, True, 2]), "'trans' must hold 3 numbers, got a list that holds true"),
    "object within": (
        set_to("trans", [1, {"x": 1}, 2]),
        "'trans' must hold 3 numbers, got a list that holds an object",
    ),
    "one number": (set_to("trans", 5), "'trans' must hold 3 numbers, got 5"),
    "text": (set_to("trans", "5 5 5"), "'trans' must hold 3 numbers, got '5 5 5'"),
    "null": (set_to("trans", None), "'trans' must hold 3 numbers, got null"),
    "object": (set_to("trans", {"x": 1}), "'trans' must hold 3 numbers, got an object"),
    "nan": (set_to("trans", [1, float("nan"), 2]), "trans holds nan; expected finite numbers"),
    "infinity": (set_to("trans", [1, 2, float("inf")]), "trans holds inf; expected finite numbers"),
    "negative infinity": (set_to("pose", [float("-inf")] * 72), "pose holds -inf; expected finite numbers"),
    "beyond float32": (set_to("trans", [0, 1e39, 2]), "'trans' holds 1e[+]39, beyond what float32 holds"),
    "beyond float64": (set_to("trans", [0, "1e400", 2]), "trans holds inf; expected finite numbers"),
    "huge integer": (set_to("trans", [0, 10**40, 2]), "trans holds the integer 10+; expected finite numbers"),
    "missing": (drop("shape"), "no 'shape'; expected pose, shape, trans, got pose, trans"),
    "gender": (set_to("gender", "femme"), "'gender' must be one of neutral, male, female, got 'femme'"),
    "gender of no type": (set_to("gender", [1]), "'gender' must be one of neutral, male, female, got a list"),
}


@pytest.mark.parametrize("window", [500, 1 << 19])
@pytest.mark.parametrize("release", PLACES)
@pytest.mark.parametrize("case", LEAVES)
def test_bad_leaf(
    case: str, release: str, window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_chunks, "CHUNK_BYTES", window)
    change, message = LEAVES[case]
    where, find = PLACES[release]
    content = good(release)
    holder = find(content)
    change(holder[RELEASES[release].leaf_key] if RELEASES[release].leaf_key else holder)
    text = json.dumps(content).replace('"1e400"', "1e400")
    path = written(tmp_path, release, text)
    if "finite" in message:  # no parser takes these: found before anything is known of the layout
        key = where.split()[1].removesuffix("/left").removesuffix("/right")
        refused(path, ValueError, rf": (id|frame) {key}: (\w+/)*{message}")
    else:
        refused(path, ValueError, f": {where}: {message}")


def test_69_numbers_of_72(tmp_path: Path) -> None:
    content = good("mscoco-smpl")
    content["12"]["smpl_param"]["pose"] = [0.0] * 69
    refused(
        written(tmp_path, "mscoco-smpl", content),
        ValueError,
        "json: id 12: 'pose' must hold 72 numbers, got 69$",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("cam_param"), "id 11: no 'cam_param', got smpl_param; is this file a mscoco-smpl[?]"),
        (set_to("cam_param", None), "id 11: 'cam_param' must be an object, got null"),
        (set_to("cam_param", {"focal": [1, 2]}), "id 11: no 'princpt'; expected focal, princpt, got focal"),
        (set_to("cam_param", {"focal": [1], "princpt": [1, 2]}), "id 11: 'focal' must hold 2 numbers, got 1"),
        (set_to("cam_param", {"focal": 1, "princpt": [1, 2]}), "id 11: 'focal' must hold 2 numbers, got 1"),
        (set_to("smpl_param", None), "id 11: 'smpl_param' must be an object, got null"),
        (set_to("smpl_param", []), "id 11: 'smpl_param' must be an object, got a list"),
        (set_to("smpl_param", {}), "id 11: no 'pose'; expected pose, shape, trans, got nothing"),
    ],
)
def test_bad_entry(change: Change, message: str, tmp_path: Path) -> None:
    content = good("mscoco-smpl")
    change(content["11"])
    refused(written(tmp_path, "mscoco-smpl", content), ValueError, message)


@pytest.mark.parametrize(
    ("release", "value", "message"),
    [
        (
            "mscoco-smpl",
            None,
            "id 11: expected an object with 'smpl_param', got null; only hand files may hold null",
        ),
        ("mscoco-smpl", [1], "id 11: expected an object with 'smpl_param', got a list"),
        ("3dpw-smplx", None, "id 11: expected an object of root_pose, body_pose, shape, trans, got null"),
        ("mpi-inf-3dhp-smpl", None, "frame 2/1/11: expected an object of pose, shape, trans, got null"),
        ("mscoco-mano", 3, "id 11: expected an object with 'right' and 'left', got 3"),
        ("mscoco-mano", {"right": 3}, "id 11/right: expected an object with 'mano_param', got 3"),
        (
            "interhand26m-mano",
            {"middle": None},
            "frame 1/11: expected the keys 'right' and 'left', once each, got middle",
        ),
    ],
)
def test_entry_that_is_no_leaf(release: str, value: Any, message: str, tmp_path: Path) -> None:
    content = good(release)
    holder = content
    while "11" not in holder:
        holder = next(iter(holder.values()))
    holder["11"] = value
    refused(written(tmp_path, release, content), ValueError, message)


@pytest.mark.parametrize("release", ["mscoco-mano", "interhand26m-mano"])
def test_null_is_missing_in_hand_files(release: str, tmp_path: Path) -> None:
    content = good(release)
    holder = content if "11" in content else content["1"]
    holder["10"]["left"] = None
    holder["11"] = {"right": None, "left": None}
    gt = load_pseudo_gt(written(tmp_path, release, content), cache=False)
    lead = () if release == "mscoco-mano" else (1,)
    assert gt.missing == [(*lead, 10, "left"), (*lead, 11, "right"), (*lead, 11, "left")]
    assert len(gt) == 3


def test_flags_that_are_no_flags(tmp_path: Path) -> None:
    for value, said in (("yes", "'yes'"), ([True], "a list that holds true"), (None, "null")):
        content = good("mscoco-smplx")
        content["11"]["smplx_param"]["face_valid"] = value
        message = f"id 11: 'face_valid' must be true or false, got {said}"
        refused(written(tmp_path, "mscoco-smplx", content), ValueError, message)


def test_optional_field_of_the_wrong_length(tmp_path: Path) -> None:
    content = good("mscoco-smplx")
    content["11"]["smplx_param"]["lhand_pose"] = [0.0] * 12
    message = "id 11: 'lhand_pose' must hold 45 numbers, got 12"
    refused(written(tmp_path, "mscoco-smplx", content), ValueError, message)


# --- twice the same


@pytest.mark.parametrize("window", [100, 1 << 19])
@pytest.mark.parametrize(
    ("release", "message"),
    [
        ("mscoco-smpl", "id 11: in the file 2 times; expected once"),
        ("mscoco-mano", "id 11: in the file 2 times; expected once"),
        ("human36m-smpl", "frame 1/2/1/11: in the file 2 times; expected once"),
        ("interhand26m-mano", "frame 1/11: in the file 2 times; expected once"),
    ],
)
def test_duplicate(
    release: str, message: str, window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one chunk and across chunks; a second time by another spelling of the number too."""
    monkeypatch.setattr(json_chunks, "CHUNK_BYTES", window)
    for text in ("11", "011"):
        content = json.dumps(good(release, 4)).replace('"13":', f'"{text}":')
        refused(written(tmp_path, release, content), ValueError, message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"shape":', '"trans": [1, 2, 3], "shape":', "'trans' is there 2 times; expected once"),
        (
            '"cam_param":',
            '"cam_param": {}, "cam_param":',
            "'cam_param' is there 2 times; expected once|no 'focal'",
        ),
        ('"focal":', '"focal": [1, 2], "focal":', "'focal' is there 2 times; expected once"),
    ],
)
def test_field_that_is_there_twice(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = json.dumps(good("mscoco-smpl")).replace(old, new)
    refused(written(tmp_path, "mscoco-smpl", text), ValueError, f"id 10: ({message})")


# --- asking for what is not there


def test_ids_not_in_the_file(tmp_path: Path) -> None:
    gt = load_pseudo_gt(written(tmp_path, "mscoco-smpl", good("mscoco-smpl")), cache=False)
    for ask in (lambda: gt[99], lambda: gt.rows_of([10, 99]), lambda: gt.forward([99], want="joints")):
        with pytest.raises(KeyError, match="id 99: unknown to mscoco-smpl"):
            ask()
    assert 99 not in gt
    gt = load_pseudo_gt(written(tmp_path, "human36m-smpl", good("human36m-smpl")), cache=False)
    with pytest.raises(KeyError, match=r"\(1, 2, 1, 99\): unknown to human36m-smpl"):
        gt[1, 2, 1, 99]
    with pytest.raises(
        KeyError, match=r"\(2, 1\): not a key of human36m-smpl; its keys are \(subject, action, sub"
    ):
        gt[2, 1]


def test_arguments_are_left_alone(tmp_path: Path) -> None:
    """Reading changes neither the JSON nor its times."""
    path = written(tmp_path, "mscoco-smpl", good("mscoco-smpl"))
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    load_pseudo_gt(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert copy.copy(sorted(p.suffix for p in tmp_path.iterdir())) == [".json", ".safetensors"]
