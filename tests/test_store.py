"""Columns on disk: what is written comes back, whatever happens in between."""

from __future__ import annotations

import errno
import json
import mmap
import os
import pickle
import signal
import stat
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from layouts import Written, write_release

from neuralannot import load_pseudo_gt, store
from neuralannot.store import SUFFIX, StoreError, Table, cached_table, derived_table, open_table, write_table

DTYPES = [np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_]
COLUMNS = {
    "a/f": np.arange(6, dtype=np.float32).reshape(2, 3),
    "id": np.array([7, -8]),
    "b": np.array([True]),
}


def equal(table: Table, columns: Mapping[str, np.ndarray]) -> None:
    """The same columns, bit by bit."""
    assert set(table) == set(columns)
    for name, values in columns.items():
        assert table[name].dtype == values.dtype
        assert table[name].shape == values.shape
        assert table[name].tobytes() == values.tobytes()


def rooted_in(values: np.ndarray) -> object:
    """What holds the memory of an array."""
    base: object = values
    while isinstance(base, np.ndarray):
        base = base.base
    return base.obj if isinstance(base, memoryview) else base


# --- one file


arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda n: n[:2] != "__"
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    columns=st.dictionaries(names, arrays, max_size=6),
    meta=st.dictionaries(names, st.text(max_size=5), max_size=2),
)
def test_what_is_written_comes_back(
    columns: dict[str, np.ndarray], meta: dict[str, str], tmp_path: Path
) -> None:
    write_table(tmp_path / "t", columns, meta)
    table = open_table(tmp_path / "t")
    equal(table, columns)
    assert {k: table.meta[k] for k in meta if k not in ("format", "version", "build")} == {
        k: v for k, v in meta.items() if k not in ("format", "version", "build")
    }
    assert os.listdir(tmp_path) == ["t"]


def test_the_safetensors_library_reads_it(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    columns = {np.dtype(d).name: np.arange(5).astype(d) for d in DTYPES} | {"empty": np.zeros((0, 3))}
    write_table(tmp_path / "t", columns, {"said": "ü"})
    read = load_file(tmp_path / "t")
    assert set(read) == set(columns)
    for name, values in columns.items():
        np.testing.assert_array_equal(read[name], values)
        assert read[name].dtype == values.dtype
    with safe_open(tmp_path / "t", "np") as file:
        assert file.metadata()["said"] == "ü"


def test_columns_are_mapped_and_aligned(tmp_path: Path) -> None:
    columns = {
        "b": np.array([True]),
        "u": np.zeros(3, np.uint8),
        "f": np.ones(3, np.float32),
        "i": np.arange(2),
    }
    write_table(tmp_path / "t", columns, {})
    table = open_table(tmp_path / "t")
    for name in columns:
        assert isinstance(rooted_in(table[name]), mmap.mmap)
        assert table[name].flags.aligned
        assert not table[name].flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            table[name][0] = 0
    with pytest.raises(TypeError, match="does not support item assignment"):
        table.columns["f"] = np.zeros(3)  # type: ignore[index]


def test_arrays_that_do_not_lie_in_a_row(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    columns = {"t": values.T, "s": values[::-2, 1:4]}
    write_table(tmp_path / "t", columns, {})
    table = open_table(tmp_path / "t")
    for name in columns:
        np.testing.assert_array_equal(table[name], columns[name])


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    """A data folder is shared: the file has the permissions that any new file has."""
    (tmp_path / "plain").touch()
    write_table(tmp_path / "t", COLUMNS, {})
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize(
    "values", [np.zeros(2, np.float16), np.array(["a"]), np.array([None]), np.zeros(1, ">f4")]
)
def test_types_without_a_column(values: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"column 'x' is of .*; expected one of float64, float32, int64"):
        write_table(tmp_path / "t", {"x": values}, {})
    assert not os.listdir(tmp_path)


def test_cut_at_every_byte(tmp_path: Path) -> None:
    write_table(tmp_path / "whole", COLUMNS, {})
    whole = (tmp_path / "whole").read_bytes()
    path = tmp_path / "t"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=f"^{path}: "):
            open_table(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(StoreError, match=f"cut short: expected {len(whole)} bytes, got {len(whole) + 1}"):
        open_table(path)
    path.write_bytes(whole)
    equal(open_table(path), COLUMNS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"__metadata__": {}}, "written as None version None; expected neuralannot-columns version"),
        (
            {"__metadata__": {"format": "neuralannot-columns", "version": "0"}},
            "columns version 0; expected neural",
        ),
        ({"x": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, "not a whole columns file: 'BF16'"),
        (
            {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
            r"a column of shape \(2,\) in 4 bytes",
        ),
        (
            {"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}},
            "not a whole columns file: buffer is sm",
        ),
        (
            {"x": {"dtype": "F32", "shape": [1], "data_offsets": [-9, -5]}},
            "not a whole columns file",
        ),
        ({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}, "not a whole columns file"),
        ({"x": 5}, "not a whole columns file"),
        ({"__metadata__": 5}, "not a whole columns file"),
    ],
)
def test_headers_that_do_not_fit(change: dict, message: str, tmp_path: Path) -> None:
    meta = {"format": store.FORMAT, "version": store.VERSION, "build": "1"}
    text = json.dumps({"__metadata__": meta, **change}).encode()
    path = tmp_path / "t"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(StoreError, match=f"^{path}: .*({message})"):
        open_table(path)


def test_files_of_others(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "t"
    save_file({"x": np.zeros(3)}, path)
    with pytest.raises(StoreError, match="written as None version None"):
        open_table(path)
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(StoreError, match="not a columns file: header of 67324752 bytes in a file of 104"):
        open_table(path)
    with pytest.raises(FileNotFoundError):
        open_table(tmp_path / "none")


# --- pickling


def test_a_table_pickles_as_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_table("t", {"x": np.zeros((1000, 1000))}, {})
    sent = pickle.dumps(open_table("t"))
    assert len(sent) < 500
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")  # the path was relative
    table = pickle.loads(sent)
    assert isinstance(rooted_in(table["x"]), mmap.mmap)


def test_a_table_in_memory_pickles_whole() -> None:
    table = Table(COLUMNS, {"k": "v"})
    back = pickle.loads(pickle.dumps(table))
    equal(back, COLUMNS)
    assert back.meta == {"k": "v"}
    assert "id" in back
    assert "other" not in back


def test_a_file_that_was_rewritten_after_pickling(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write_table(path, COLUMNS, {})
    table = open_table(path)
    sent = pickle.dumps(table)
    write_table(path, {"id": np.arange(3)}, {})
    with pytest.raises(
        ValueError, match=f"^{path}: rewritten since it was opened; load the pseudo ground truth"
    ):
        pickle.loads(sent)
    equal(table, COLUMNS)  # who has it open keeps it


# --- the cache


class Source:
    """A file whose columns are cached, and how often it was read."""

    def __init__(self, path: Path) -> None:
        self.path, self.reads = path, 0
        path.parent.mkdir(exist_ok=True)
        self.write("1 2 3 4")

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def read(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        self.reads += 1
        return {"x": np.array(self.path.read_text().split(), np.int64)}, {"said": "so"}

    def open(self, **options: bool) -> Table:
        return cached_table(self.path, self.read, key="k", **options)

    @property
    def cache(self) -> Path:
        return self.path.with_name(f"{self.path.name}.k{store.SUFFIX}")

    def left(self) -> list[str]:
        return sorted(set(os.listdir(self.path.parent)) - {self.path.name})


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder for data folders that cannot be written; not there yet."""
    folder = tmp_path / "away" / "deeper"
    monkeypatch.setenv(store.CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture
def source(tmp_path: Path, away: Path) -> Source:
    return Source(tmp_path / "data" / "fits.json")


def test_read_once(source: Source) -> None:
    for _ in range(3):
        table = source.open()
        assert table["x"].tolist() == [1, 2, 3, 4]
        assert table.meta["said"] == "so"
        assert table.path == source.cache
    assert source.reads == 1
    assert source.left() == [source.cache.name]


def test_without_a_cache_nothing_is_written_or_used(source: Source, away: Path) -> None:
    for reads in (1, 2):
        table = source.open(cache=False)
        assert table["x"].tolist() == [1, 2, 3, 4]
        assert table.path is None
        assert not table["x"].flags.writeable  # as with one
        assert source.reads == reads
    assert source.left() == []
    assert not away.exists()


def test_one_file_read_two_ways_has_two_caches(source: Source) -> None:
    source.open()
    other = cached_table(source.path, lambda: ({"y": np.zeros(1)}, {}), key="other")
    assert list(other) == ["y"]
    assert list(source.open()) == ["x"]
    assert source.reads == 1


def changed_in_place(path: Path) -> None:
    """Other content of the same size under the same times, as far as a user can set them."""
    old = path.stat()
    path.write_text("1 2 3 5")
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


def replaced(path: Path) -> None:
    old = path.stat()
    fresh = path.with_name("fresh")
    fresh.write_text("1 2 3 5")
    os.utime(fresh, ns=(old.st_atime_ns, old.st_mtime_ns))
    fresh.replace(path)


def grown(path: Path) -> None:
    path.write_text("1 2 3 5 ")


@pytest.mark.parametrize("change", [changed_in_place, replaced, grown])
def test_a_changed_file_is_read_again(change: Callable[[Path], None], source: Source) -> None:
    before = source.open()
    change(source.path)
    assert source.open()["x"].tolist() == [1, 2, 3, 5]
    assert source.reads == 2
    assert before["x"].tolist() == [1, 2, 3, 4]
    assert source.left() == [source.cache.name]


def test_content_counts_where_nothing_else_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without inodes or honest times: the sampled blocks still tell."""
    real = os.fstat

    class Same:
        st_size, st_mtime_ns, st_ctime_ns, st_ino = 3_000_000, 1, 1, 1

    path = tmp_path / "f"
    path.write_bytes(bytes(3_000_000))
    monkeypatch.setattr(store.os, "fstat", lambda number: Same() if number else real(number))
    before = store.fingerprint(path)
    assert store.fingerprint(path) == before
    for place in (0, 2_999_999, 10_000):  # its ends, and a block between
        content = bytearray(3_000_000)
        content[place] = 1
        path.write_bytes(content)
        assert store.fingerprint(path) != before


def test_a_cache_cut_short_is_rebuilt(source: Source) -> None:
    source.open()
    whole = source.cache.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # silently
        for reads, length in enumerate(np.linspace(0, len(whole) - 1, 25).astype(int), 2):
            source.cache.write_bytes(whole[:length])
            assert source.open()["x"].tolist() == [1, 2, 3, 4]
            assert source.reads == reads
            assert len(source.cache.read_bytes()) == len(whole)


def test_a_cache_of_another_version_is_rebuilt(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "VERSION", "0")
    source.open()
    monkeypatch.undo()
    assert source.open()["x"].tolist() == [1, 2, 3, 4]
    assert source.open().meta["version"] == store.VERSION
    assert source.reads == 2


def test_a_folder_in_the_caches_place(source: Source, away: Path) -> None:
    source.cache.mkdir()
    assert source.open()["x"].tolist() == [1, 2, 3, 4]
    assert source.open().path == next(away.iterdir())
    assert source.reads == 1


def test_a_file_that_changes_while_it_is_read(source: Source) -> None:
    def read() -> tuple[dict[str, np.ndarray], dict[str, str]]:
        columns = source.read()
        source.write("9 9")
        return columns

    with pytest.raises(ValueError, match=f"^{source.path}: changed while it was being read; load again when"):
        cached_table(source.path, read, key="k")
    assert source.left() == []


def test_a_reader_that_fails_leaves_nothing(source: Source, away: Path) -> None:
    source.write("1 x")
    with pytest.raises(ValueError, match="x"):
        source.open()
    assert source.left() == []
    assert not away.exists()


# --- folders that cannot be written


def refuse(monkeypatch: pytest.MonkeyPatch, *folders: Path, number: int = errno.EACCES) -> None:
    """Writing to these folders fails, as for a user without the right to (root has every right)."""
    real = store._write_columns

    def write(file, columns, meta) -> None:  # type: ignore[no-untyped-def]
        if Path(file.name).parent in folders:
            file.write(b"half of it")
            file.flush()
            raise OSError(number, os.strerror(number), file.name)
        real(file, columns, meta)

    monkeypatch.setattr(store, "_write_columns", write)


def test_a_folder_that_cannot_be_written(source: Source, away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, source.path.parent)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            table = source.open()
            assert table["x"].tolist() == [1, 2, 3, 4]
            assert table.path is not None
            assert table.path.parent == away
    assert source.reads == 1
    assert source.left() == []
    # A file of the same name in another folder has a cache of its own.
    twin = Source(source.path.parent.with_name("twin") / source.path.name)
    refuse(monkeypatch, source.path.parent, twin.path.parent)
    twin.write("5")
    assert twin.open()["x"].tolist() == [5]
    assert source.open()["x"].tolist() == [1, 2, 3, 4]
    assert len(list(away.iterdir())) == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(source: Source, away: Path) -> None:
    source.path.parent.chmod(0o555)
    try:
        assert source.open().path in away.iterdir()
        assert source.open()["x"].tolist() == [1, 2, 3, 4]
    finally:
        source.path.parent.chmod(0o755)
    assert source.reads == 1
    assert source.left() == []


def test_a_cache_folder_without_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(store.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.cache_folder() == tmp_path / "neuralannot"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert store.cache_folder() == tmp_path / "home" / ".cache" / "neuralannot"


def test_a_full_disk(source: Source, away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, source.path.parent, away, number=errno.ENOSPC)
    with pytest.warns(
        UserWarning, match=r"columns are kept in memory.*No space left.*set NEURALANNOT_CACHE to a"
    ):
        table = source.open()
    assert table["x"].tolist() == [1, 2, 3, 4]
    assert table.path is None
    assert not table["x"].flags.writeable
    assert source.left() == []
    assert not list(away.iterdir())
    monkeypatch.undo()
    assert source.open()["x"].tolist() == [1, 2, 3, 4]
    assert source.left() == [source.cache.name]


def run(code: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_system_refuses_to_write_more(tmp_path: Path) -> None:
    """Not simulated: a limit on the size of files, as a disk that fills while the columns are written."""
    child = run(
        """
        import os, resource, signal, sys
        import numpy as np
        from neuralannot.store import write_table
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_table(sys.argv[1] + "/t", {"x": np.zeros(1_000_000)}, {})
        except OSError as error:
            print(error.errno, os.listdir(sys.argv[1]))
        """,
        tmp_path,
    )
    out, err = child.communicate(timeout=60)
    assert out == f"{errno.EFBIG} []\n", err


# --- killed, and ten at once


KILLED = """
    import sys, time
    from neuralannot import load_pseudo_gt, store
    real = store._write_columns
    def slow(file, columns, meta):
        real(file, columns, meta)
        file.flush()
        file.truncate(100)
        print("writing", flush=True)
        time.sleep(60)
    store._write_columns = slow
    load_pseudo_gt(sys.argv[1], annotations=False)
"""


def test_a_kill_while_the_cache_is_written(tmp_path: Path) -> None:
    written = write_release(tmp_path / "data", "mscoco-smpl")
    child = run(KILLED, written.path)
    assert child.stdout is not None
    assert child.stdout.readline() == "writing\n"
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)
    (left,) = written.path.parent.glob(".*.tmp")
    assert not list(written.path.parent.glob(f"*{store.SUFFIX}"))

    gt = load_pseudo_gt(written.path, annotations=False)
    assert gt.ids.tolist() == [row.id for row in written.rows]
    assert left.exists()  # it might be another's that is still writing
    old = time.time() - 2 * store._STALE_SECONDS
    os.utime(left, (old, old))
    other = left.with_name(f".other{left.name}")
    other.touch()
    os.utime(other, (old, old))
    next(written.path.parent.glob(f"*{store.SUFFIX}")).unlink()
    load_pseudo_gt(written.path, annotations=False)
    assert not left.exists()
    assert other.exists()  # another file's


def test_names_with_wild_cards_are_swept_too(tmp_path: Path) -> None:
    left = tmp_path / ".fits[1]*.json.1-0.tmp"
    left.touch()
    os.utime(left, (1, 1))
    other = tmp_path / ".fits1.json.1-0.tmp"
    other.touch()
    os.utime(other, (1, 1))
    write_table(tmp_path / "fits[1]*.json", COLUMNS, {})
    assert not left.exists()
    assert other.exists()


TOGETHER = """
    import sys, time
    from neuralannot import load_pseudo_gt
    import neuralannot.loading  # so that all are as quick once they are told
    print("ready", flush=True)
    sys.stdin.readline()
    gt = load_pseudo_gt(sys.argv[1])
    print(gt.params["body_pose"].tobytes().hex()[:4000], gt.ids.tolist(), gt.image_path.tolist())
"""


def test_ten_processes_open_a_fresh_file_at_once(tmp_path: Path) -> None:
    written: Written = write_release(tmp_path / "data", "mpi-inf-3dhp-smpl")
    names = sorted(os.listdir(written.path.parent))
    children = []
    for _ in range(10):
        command = [sys.executable, "-c", textwrap.dedent(TOGETHER), str(written.path)]
        pipe = subprocess.PIPE
        children.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=60) for child in children]
    gt = load_pseudo_gt(written.path, cache=False)
    wanted = f"{gt.params['body_pose'].tobytes().hex()[:4000]} {gt.ids.tolist()} {gt.image_path.tolist()}\n"
    for out, err in answers:
        assert out == wanted, err
    # One valid cache each of the fits, the annotations and their join remains, and nothing else.
    left = sorted(set(os.listdir(written.path.parent)) - set(names))
    assert len(left) == 3
    for name in left:
        assert open_table(written.path.parent / name).path is not None


# --- columns made from others


def test_derived_columns_are_kept_while_their_sources_hold(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"x": np.arange(len(made))}

    place = tmp_path / "join"
    assert derived_table(place, "a|b", make)["x"].tolist() == [0]
    assert derived_table(place, "a|b", make)["x"].tolist() == [0]
    assert derived_table(place, "a|c", make)["x"].tolist() == [0, 1]
    assert derived_table(place, "a|c", make).path == place
    assert len(made) == 2


def test_derived_columns_stay_in_memory_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, tmp_path)
    table = derived_table(tmp_path / "join", "a", lambda: {"x": np.arange(2)})
    assert table["x"].tolist() == [0, 1]
    assert table.path is None
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("cache", [True, False])
def test_nothing_is_written_beside_the_json_without_a_cache(cache: bool, tmp_path: Path) -> None:
    for name in ("interhand26m-mano", "mscoco-smpl", "human36m-smpl"):
        written = write_release(tmp_path / name, name)
        before = set(os.listdir(written.path.parent))
        gt = load_pseudo_gt(written.path, cache=cache)
        assert len(gt) == len(written.rows)
        new = set(os.listdir(written.path.parent)) - before
        assert {n.endswith(store.SUFFIX) for n in new} == ({True} if cache else set())


def test_what_another_process_wrote_from_the_same_file_is_the_same(tmp_path):
    """Ten ranks that open a fresh file each write its columns: what all but one of them mapped stays good."""
    source = tmp_path / "source.json"
    source.write_text("{}")
    columns = {"a": np.arange(5)}
    place = tmp_path / f"source.json.k{SUFFIX}"
    table = cached_table(source, lambda: (columns, {}), key="k")
    frozen = pickle.dumps(table)
    write_table(place, columns, {"source": table.meta["source"]})
    np.testing.assert_array_equal(pickle.loads(frozen)["a"], columns["a"])
    source.write_text("{ }")
    cached_table(source, lambda: (columns, {}), key="k")
    with pytest.raises(ValueError, match="rewritten since it was opened"):
        pickle.loads(frozen)


def test_saved_columns_are_told_apart_by_what_is_in_them(tmp_path):
    path = tmp_path / f"saved{SUFFIX}"
    write_table(path, {"a": np.arange(5)}, {})
    frozen = pickle.dumps(open_table(path))
    write_table(path, {"a": np.arange(5)}, {})
    np.testing.assert_array_equal(pickle.loads(frozen)["a"], np.arange(5))
    write_table(path, {"a": np.arange(5)[::-1].copy()}, {})
    with pytest.raises(ValueError, match="rewritten since it was opened"):
        pickle.loads(frozen)
