"""Files read without running them: what is known is read right, what is not is refused, nothing is run."""

from __future__ import annotations

import base64
import contextlib
import io
import pickle
import struct
import sys
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from neuralannot.safe_pickle import RefusedPickleError, load_joblib, load_npy, load_npz, load_pickle

# Written by Python 2.7 with numpy 1.16, scipy 1.2 and chumpy 0.69, protocol -> zlib in base64.
PYTHON_2 = {
    0: (
        "eNrVV82K40YQvvdThBBiExLT1X9qQWAHcnIODsSwpwUhS22NsrYsJHljQ144b5GqluzxjKalTW45NGP1V1X91W/3LPOas+2i"
        "zdJD2ixYDSyrzsf6uspOjVsdz4euTJsmvbJegtWCLXsJlnfX2rFasuV2sbeoq9iaszWwrtbs99qw5Vqi6Z8Ridhms1n/BMwv"
        "jhKW7baLTxfO3197+wHVYhQEjrYAWLtdVOnRtcRRhEgmjctOVds156xDOXnnWuW9QA0KaREB0MhtR9YMfUV0ikUMcAnaiVnh"
        "XfuNXBP87psAFBVi8O4vAuUr94wkKcV2a87Z8lALOiklOcPSAo9LEY7YDj36QruWZdmpviL34pUDJ4p2jC5kz72zz+yXZ4w3"
        "Z1mS7M4lel0lCTvt/nDkrQS26WopkJ1E4nktFZ6bHNPPLmnrtGkdHiY1I1Z4dJKXTXdNviBA++a10daRxYgtkb+0aOdCQjFR"
        "V5QQ5ROSlB3VjBJs4y262lV5m5wq+klmlSeilBf2THJXeSJqIFKg0YISVdwzowwrfFIUJUW9JGVNgVUob7zuVP3MrT3/MCXw"
        "NAHaCRCmNEE9oeOaXNSA6acC+JWy3ri2PVEgtWCFz3iblZjwPmsr/GK4MH5dU15QSmJl+mRrhQHSmmKsDcajrPIy8y2io7dR"
        "1XaIqo6pOfkQVQqpgaHUS4WqRtxLHSsZRdVDIxs96mRj+kr36YB/kwayF5EF65shTzvqEjMqiIgP1CNqvUg8UI/k11TDZLbd"
        "DEjjS9FR2rM8ppe6KauOtvFk3TdT+5zWVNZR1FeqV7AEYU5q3yXRyC9788uSX/bml6Yd8kuFHXsbZzHzLd/E3RJBq30VfjxX"
        "Je4Y9vFv/BMR6c/oYONc0qW7A7ll7Yh7PHCPaRzE8NKkNDxjcasoGp6xvFdUTBUb64eKis2oouLopaL2+9frvzZ8cMFMhcaW"
        "GMU+9z7LODf9JYQEi8fx3LhTkzssjYJt3cGPZOBwa1XgNJiB+4EIXKGu6fULHOh3Ie2FTC8Ujec3cHubm6g+DGjg/qIcbkqc"
        "zIWfyEU/fQGvy9H4BZDB+Qv4q88tgOcD5nEE+9oGvDD/v2N4Apw0mwXBb4LIt0HkuyDyfRBZBpEfgsiPQWQVRMIBhCAigogM"
        "IuFc6CBigkj05Evb+gLtWzZpu7Q7969GqtXK/el/Y5fs2nF7CfFOewmaVWV+6a0ofMTRS267qBu3d03j8vv4B3zr4RMJEMe+"
        "wUfem1YU9p1WxCHQn0natybzT1DZ76pRh+K4GDrUv/eAHny+Q6HXQ41Yf313zt3aagbXM7idxLsZ7WwSb6a1YcZ3mPEdZnwH"
        "PXN/gNQ+JWZ48e3ahP5v8ggN+ENz6o5l5b+xOlb/AA/6zrM="
    ),
    1: (
        "eNqVldt220QYhe3YsRPFoS6kEEIpoYRWhGLcNG0DFGIop8bgwpSBcAiqDpOMGlvyHo1TG2LK+fQmvAVr8SI8ApfcwYw0xnUK"
        "F8xa8idZWrP37P8faYicTUuJ77Zdgbwf9TrdQc2PBat1em0ZukK4Ayu7bWHKzh6wAjnoMgsFm07tbqDYzDXzEtMEJbtZoPkr"
        "KLdara2/1Eh/mjmJGY/O5NLx5yZmJSyCOToduR2WoPIfso5gfhwlUvR8aWF+JB4F2W3cZ+uZj9G8h6rEcYL77Wbebk5JPMC1"
        "tesbWMisnSB4MLV2iIcmrW1KLHrX6nVrBw/bNO9iiVeZxCMezR/gpO/H3YGysTfhJVZRPGr7Ps9cc+sqt3DKdxyvFyrzkeNY"
        "sXeLadOPtSSWCR4f4rRNK07H3WdO0nVFwvCEVqVzThAKOXAO1H9YmZgjYWqCJ+0dnKH5Ps66EjbBU7TohFJgtUWrTsC6LAoS"
        "J470aYKnhzinZkxVAhYpkWe0CD/L522epVXjKqpnCepZVM2CxHleSq3UcxPjj01z0sgwY1g1XGhgTeKC1/Po3JbOSLAkiQXW"
        "ucom8UMVTbbSmrqy1KF8SRH2LVzkOpZLBJeH2LBpOYyC0Fd98NzY5vPa5gsEV1KbyuSLaUXDdbyUVXSToGGa7eV7mu2VtKK0"
        "kr9rObgq8apHi4ErXbw2VnpdK71B8OZI6ZqJY3Eyht//IbYkmqqdO26/K8JI4q3mGi05CXe7DG/rUIsSLVpSy+qqSl0fa72j"
        "td4lIKnWtMQN3ki1FvTM2u2UOQra8XsSVMW7rS96UYj3t/Wt337BB3R+XwkLxhzpem2G7bHGh1rjI4KPTYHVbvgky24DO1l2"
        "nxI4Jrub92TnZtkt6+vcv4xRpvAkfI/OpstWPZwg4ONNIVgsAqbS2bNusHa6FVha9V2CvSG4zZfU0/xU+l9IcGuI/aMbpJ32"
        "7grXW6AjERHEfLXFVZN3J5scR5tc6AwSAjlqcl2Rnqnrr/+3zTMuGp40XDY8bbhieMbQNlw1PGdYM6wbnjdcM7xguG540fCS"
        "4eUGDiRue7TsJNKVvQR9WojYbQzURpwM8LO7AvzcpsUw6Cc45Ev0WFewXSYEC0zXDtUr7wuCOybfLyfz/SqdZ5glqfrpa344"
        "zvobnfW3BN+lWVckvudOmvPNox1TNJw2NN+D3KxhxXDesGp43HDB8MSoA3+Q+FG/fspe4ugPEn6i5baIZSeM8HOv9jdwkNH0"
    ),
    2: (
        "eNqVlO1y20QYhf0VO1Ec6kIKIRRIS2jVUkyapm2AQNKWzwhcUFkIlKDqY5MVsWWf1SqxoaYt4GR0KdwFM9wIl8BP/sGutWbq"
        "Fn6wM/IjeWf2Pe95j3S/0EfOJOXYd5suR96PklanV/fbnNZbSVOELuduz8i2DRSyfSMQvQ41UCSFnVWUrJyVP8KEjbJpFUl+"
        "DZVGo7H5l1zDHysnMOmRydxw/bmOqUMYNqbJROS2aIzqfxR1OPXbUSx44gsDM7p0FGS7eMLKDXCM5D3UjnDcxpOmlbcKAzzF"
        "pKybq5jNZJ2w8fRQ1l08My5rXWDOS7fxrEnyLuZZjQo855H8Pk76PsskMeMGM/D8uQd4oY8XTVJ1Wu4edeKOy2OKhZRMO0HI"
        "Rc/Zl3/glO84XhLKDiLHMWIqZZ/exksk38WiO8DLNs6QkhMKjrMNUnMC2qFREDvtSN3GMPs4Jw8cVghoJAucT9kim2HDVl9h"
        "ss8LNl4d9mkVD1Fn5ZQs5cbWH+v6ZiPDpGZNc3YDrwkseYlHpjelw7ucxnGb46If+6HsOOusLp8MeUktgoddA8vSgUt9rJik"
        "EkZB6MuxXR4Ju6KEXbWxqoQVB3hdDSBcwRvZAN60saZz8dZjuXjbS0k1/5B+yKlseKQUuMLFtVGJ66rEDRvv6BLvqs7nxjv+"
        "/R/iPYH3ZeBabrfDw0jgA2uZlJ2YuR2KD6V3pUNskrJspCNHYY2KfKSKfGyjoYpMDHCTraVkVh2pBBb0VVQiPxH4VFq4pR6S"
        "KIS9pbZ++wW3yMyerMgpdYTrNSk+G51O1Omf2/giG1/hEFtDn1bxZebTVzZua5++fsynbenTgnrI/csa+YdvBByPTA0blbGM"
        "cWcUZE7bPKDSjF3jFm1S9UK5cqReH77J5pkKeNAHfTTgOyk7xWSEdwdgNkJ2tsFkSL8dD+neQyFtqi5bNiIdUqt0hLYa1q//"
        "N6YZ5zRPai5ontZc1DyjaWqe17ygWddc0ryouax5SXNF87LmFc2rG+gIwCMVJxauSGJwUozoAWL5Io17JrRniUlKYdCNsc/m"
        "ybEOpzuUcxroGB7QAbo2etrS78Yt/T5lB0P7Cke4y/ZH7vaVuz/YuKfcrQ5wn91OyZ1HY1DSnNDUH97clGZVc0azpnlcc1bz"
        "xChWDwR+VB+Mihc76sOPn0ilyduiFUb4Oan/DSdbsJ4="
    ),
}
# FLAME's dynamic embedding is such a file: a 0-d object array that holds a dict.
PYTHON_2_NPY = (
    "eNq1kE9LwzAchpPUv3V+h97awehZRNjNg8FOhBw8SE3SlBb7L2kqFjfwModnv6jfQLM1Q3bwJP4OecnvDc8D+YjI9c0dBE/g"
    "xU9Ey5V/7vnzmT/x/LRWWtEqrlUi1utLWrTC7NuMNsLcg/HEW3h/G/cV8aormz7ktRJh2RU6p0rR3o2V4HXVatVx7Uo4vHKr"
    "ZGglwmBJIFvdSifAcGzrRPeNcOUeQbMzDDA09X6AHQLnURRdfZnZHHiq2fu9PFjIw4CMivIxTikXcZ48y6MMZj/sY8PGCKO3"
    "zCDzLdLdIC92kcAgiQfsQJvIpmNTs8HHYl6bf23lyY5vZH3YWa2N6dZ4+qvxYeB+Tv8rNeuoZuE3qhqStA=="
)

ARRAYS = st.builds(
    lambda dtype, shape, order, seed: np.asarray(
        np.random.default_rng(seed).integers(0, 100, shape).astype(dtype), order=order
    ),
    st.sampled_from(["f8", "f4", "f2", ">f4", "i8", ">i2", "u4", "u1", "?", "c8", "S3", "U2", "O"]),
    st.sampled_from([(), (1,), (0, 3), (4, 3), (2, 3, 4)]),
    st.sampled_from(["C", "F"]),
    st.integers(0, 99),
)


def write(path, data: bytes):
    path.write_bytes(data)
    return path


def assert_same(got, want) -> None:
    if isinstance(want, np.ndarray):
        assert type(got) is np.ndarray
        assert got.dtype == want.dtype.newbyteorder("=")
        assert got.shape == want.shape
        assert got.tolist() == want.tolist()
    elif isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            assert_same(got[key], want[key])
    else:
        assert type(got) is type(want)
        assert got == want


# -- what is read


@pytest.mark.parametrize("protocol", PYTHON_2)
def test_python_2_pickles_with_chumpy_and_scipy(tmp_path, protocol) -> None:
    path = write(tmp_path / "body.pkl", zlib.decompress(base64.b64decode(PYTHON_2[protocol])))
    data = load_pickle(path)
    assert_same(data["shapedirs"], np.arange(24.0).reshape(2, 3, 4)[:, :, :2])  # chumpy.reordering.Select
    assert_same(data["v"], np.arange(6.0).reshape(2, 3))  # chumpy.ch.Ch
    assert sparse.isspmatrix_csc(data["J_regressor"])
    assert_same(data["J_regressor"].toarray(), np.array([[0, 0.5, 0, 0.5], [1, 0, 0, 0]]))
    assert_same(data["kintree_table"], np.array([[2**32 - 1, 0], [0, 1]]))
    assert_same(data["names"], np.array(["a", "b"], object))
    assert data["bs_type"] == "lrotmin"
    assert data["uni"] == "é"
    assert type(data["scalar"]) is np.float64
    assert data["scalar"] == 1.5
    assert "chumpy" not in sys.modules
    data["v"][0] = 7  # arrays are the caller's own


def test_python_2_npy_of_a_dict(tmp_path) -> None:
    path = write(tmp_path / "flame_dynamic_embedding.npy", zlib.decompress(base64.b64decode(PYTHON_2_NPY)))
    want = {"lmk_face_idx": np.arange(4).reshape(2, 2), "lmk_b_coords": np.ones((2, 2, 3))}
    got = load_npy(path)
    assert got.keys() == want.keys()
    for key, value in want.items():
        assert_same(got[key], value)


@settings(max_examples=60, deadline=None)
@given(array=ARRAYS, protocol=st.integers(0, 5))
def test_pickled_arrays_come_back_as_pickle_reads_them(tmp_path_factory, array, protocol) -> None:
    path = tmp_path_factory.mktemp("p") / "a.pkl"
    path.write_bytes(pickle.dumps({"a": array, "same": array}, protocol))
    got = load_pickle(path)
    assert_same(got["a"], array)
    assert got["a"].flags.writeable
    assert got["same"] is got["a"]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_and_scalars(tmp_path, protocol) -> None:
    want = {
        "none": None,
        "bools": [True, False],
        "ints": (0, -1, 255, 2**31, 10**40),
        "float": 0.1,
        "text": "é\n",
        "bytes": b"\xff\x00",
        "empty": b"",
        "set": {1, 2},
        "nested": {"a": [{"b": ()}], 3: 4, (1, "x"): 5},
        "f4": np.float32(2.5),
        "bool_": np.bool_(True),
    }
    path = write(tmp_path / "a.pkl", pickle.dumps({**want, b"key": 1}, protocol))
    assert_same(load_pickle(path), {**want, "key": 1})


@pytest.mark.parametrize("kind", ["csc", "csr", "coo"])
@pytest.mark.parametrize(
    ("made", "old", "protocol"),
    [(made, False, protocol) for made in ("matrix", "array") for protocol in range(6)]
    + [("matrix", True, protocol) for protocol in range(3)],
)
def test_sparse_matrices(tmp_path, kind, made, old, protocol) -> None:
    dense = np.array([[0, 0.5, 0, 0.5], [0, 0, 0, 0], [1, 0, 0, 0]])
    data = pickle.dumps({"m": getattr(sparse, f"{kind}_{made}")(dense), "a": dense}, protocol)
    if old:
        data = data.replace(f"scipy.sparse._{kind}\n".encode(), f"scipy.sparse.{kind}\n".encode())
        data = data.replace(b"numpy._core.", b"numpy.core.")
        assert b"sparse._" not in data
    got = load_pickle(write(tmp_path / "a.pkl", data))
    assert isinstance(got["m"], getattr(sparse, f"{kind}_matrix"))
    assert_same(got["m"].toarray(), dense)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_ordered_dicts_matrices_and_frozensets_become_plain(tmp_path) -> None:
    from collections import OrderedDict

    path = tmp_path / "a.pkl"
    for protocol in range(6):
        path.write_bytes(pickle.dumps([OrderedDict(b=1, a=2), np.matrix([[1.0]]), frozenset({1})], protocol))
        ordered, matrix, items = load_pickle(path)
        assert_same(ordered, {"b": 1, "a": 2})
        assert_same(matrix, np.array([[1.0]]))
        assert items == {1}
    # Python 2 gives the items as a list of lists
    items = b"ccollections\nOrderedDict\n((lp0\n(lp1\nS'b'\naI1\naa(lp2\nS'a'\naI2\naatR."
    assert_same(load_pickle(write(path, items)), {"b": 1, "a": 2})


@settings(max_examples=30, deadline=None)
@given(array=ARRAYS, compressed=st.booleans())
def test_npy_and_npz_come_back_as_numpy_reads_them(tmp_path_factory, array, compressed) -> None:
    folder = tmp_path_factory.mktemp("n")
    np.save(folder / "a.npy", array)
    save = np.savez_compressed if compressed else np.savez
    save(folder / "a.npz", x=array, y=np.arange(3))
    want = array[()] if array.dtype == object and array.shape == () else array
    assert_same(load_npy(folder / "a.npy"), want)
    assert_same(load_npz(folder / "a.npz"), {"x": want, "y": np.arange(3)})


def test_npz_with_a_dict_inside(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", joint2num=np.array({"Pelvis": 0}), parts=np.array([[1], None, "x"], object))
    got = load_npz(tmp_path / "a.npz")
    assert got["joint2num"] == {"Pelvis": 0}
    assert got["parts"].tolist() == [[1], None, "x"]


INSTA = {
    "ann_id": np.arange(5),
    "file_name": np.array(["a/0.jpg", "é.jpg"]),
    "img_shape": np.ones((3, 2), ">f4"),
    "bbox": np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
    "objects": np.array(["x", None, (1, 2)], object),
    "empty": np.zeros((0, 4)),
    "scalar": np.array(3.0),
    "list": [1, "a", (2,)],
}


@pytest.mark.parametrize("compress", [0, 3, "zlib", "gzip", "bz2", "lzma", "xz"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("aligned", [True, False], ids=["joblib 1.2+", "joblib 1.1"])
def test_joblib_files(tmp_path, monkeypatch, compress, protocol, aligned) -> None:
    joblib = pytest.importorskip("joblib", reason="joblib writes the file of this test")
    if not aligned:  # older ones wrote no padding, and wrappers without the attribute

        class OldWrapper(joblib.numpy_pickle.NumpyArrayWrapper):
            def __init__(self, *args, **kwargs) -> None:
                super().__init__(*args, **kwargs)
                del self.numpy_array_alignment_bytes

        OldWrapper.__module__, OldWrapper.__qualname__ = "joblib.numpy_pickle", "NumpyArrayWrapper"
        monkeypatch.setattr(joblib.numpy_pickle, "NumpyArrayWrapper", OldWrapper)
    path = tmp_path / "insta_train_db.pt"
    joblib.dump(INSTA, path, compress=compress, protocol=protocol)
    assert_same(load_joblib(path), INSTA)


def test_joblib_file_is_refused_as_a_plain_pickle(tmp_path) -> None:
    joblib = pytest.importorskip("joblib", reason="joblib writes the file of this test")
    joblib.dump({"a": np.arange(3)}, tmp_path / "a.pt")
    with pytest.raises(RefusedPickleError, match=r"a\.pt asks for joblib\.numpy_pickle\.NumpyArrayWrapper"):
        load_pickle(tmp_path / "a.pt")


def test_joblib_lz4_says_what_to_do(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"a\.pt cannot be read as a joblib file: lz4 .*compress='zlib'"):
        load_joblib(write(tmp_path / "a.pt", b"\x04\x22\x4d\x18" + bytes(20)))


# -- what is refused


def stack_global(module: str, name: str) -> bytes:
    parts = [b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name)]
    return b"\x80\x04" + parts[0] + parts[1] + b"\x93"


def attacks(canary: str) -> dict[str, tuple[bytes, str]]:
    """Name -> pickle that would write the file `canary`, and what it asks for."""
    command = f"touch {canary}"
    code = f"open({canary!r}, 'w')"

    class System:
        def __reduce__(self):
            import os

            return os.system, (command,)

    class Eval:
        def __reduce__(self):
            return eval, (code,)

    class Partial:
        def __reduce__(self):
            import functools

            return functools.partial, (eval, code)

    class Attribute:
        def __reduce__(self):
            return getattr, (np.ndarray, "tofile")

    class Load:
        def __reduce__(self):
            return np.load, (canary,)

    class FromFile:
        def __reduce__(self):
            return np.memmap, (canary, "u1", "w+", 0, (1,))

    array = pickle.dumps(np.zeros(1), 2)[2:-1]
    text = b"\x8c" + bytes([len(canary)]) + canary.encode()
    return {
        "os.system": (pickle.dumps(System(), 2), r"posix\.system|nt\.system"),
        "os.system protocol 0": (pickle.dumps(System(), 0), r"posix\.system|nt\.system"),
        "eval": (pickle.dumps(Eval(), 4), r"builtins\.eval"),
        "eval of Python 2": (pickle.dumps(Eval(), 2), r"__builtin__\.eval"),
        "functools.partial": (pickle.dumps(Partial(), 4), r"functools\.partial"),
        "getattr": (pickle.dumps(Attribute(), 4), r"builtins\.getattr"),
        "numpy.load": (pickle.dumps(Load(), 4), r"numpy(\.lib\._npyio_impl|\.lib\.npyio)?\.load"),
        "numpy.memmap called": (pickle.dumps(FromFile(), 4), r"a call of numpy\.memmap"),
        "dotted name": (
            stack_global("numpy", "ndarray.tofile") + array + text + b"\x86R.",
            r"ndarray\.tofile",
        ),
        "dotted name of a known one": (stack_global("numpy", "core.multiarray._reconstruct") + b".", "core"),
        "a submodule as name": (stack_global("builtins", "object.__subclasses__") + b")R.", "__subclasses__"),
        "INST": (f"(S'{command}'\nios\nsystem\n.".encode(), r"os\.system"),
        "INST of a known class": (f"(S'{command}'\ninumpy\nndarray\n.".encode(), ""),
        "OBJ": (b"(cos\nsystem\nS'" + command.encode() + b"'\no.", r"os\.system"),
        "OBJ of a known class": (b"(cnumpy\nndarray\no.", ""),
        "NEWOBJ": (b"\x80\x02csubprocess\nPopen\n" + f"(S'{command}'\ntp0\n".encode() + b"\x81.", "Popen"),
        "NEWOBJ of ndarray": (b"\x80\x02cnumpy\nndarray\n(I9\ntp0\n\x81.", r"an instance of numpy\.ndarray"),
        "NEWOBJ_EX": (b"\x80\x04cnumpy\nndarray\n)}\x92.", "something outside the file"),
        "EXT1": (b"\x80\x02\x82\x01.", "something outside the file"),
        "EXT2": (b"\x80\x02\x83\x01\x00.", "something outside the file"),
        "EXT4": (b"\x80\x02\x84\x01\x00\x00\x00.", "something outside the file"),
        "persistent id": (b"Pname\n.", "something outside the file"),
        "binary persistent id": (b"S'name'\nQ.", "something outside the file"),
        "out-of-band buffer": (b"\x80\x05\x97.", "something outside the file"),
        "reconstructor of others": (
            b"ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR.",
            r"an instance of numpy\.ndarray",
        ),
        "reconstructor with a base": (
            b"ccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\ncchumpy.ch\nCh\nNtR.",
            r"a call of copy_reg\._reconstructor",
        ),
        "bytes of an object": (b"cbuiltins\nbytes\n(I9999999999\ntR.", r"a call of builtins\.bytes"),
        "calling a string": (b"S'x'\n)R.", "a call of a str"),
        "code hidden in a state": (
            b"\x80\x02cchumpy.ch\nCh\n)\x81}(U\x01xK\x01U\x01y" + pickle.dumps(System(), 2)[2:-1] + b"ub.",
            r"posix\.system|nt\.system",
        ),
    }


ATTACKS = list(attacks("canary"))


@pytest.mark.parametrize("name", ATTACKS)
def test_code_in_a_pickle_is_refused_by_name(tmp_path, name) -> None:
    canary = tmp_path / "canary"
    data, asked = attacks(str(canary))[name]
    path = write(tmp_path / "body.pkl", data)
    with pytest.raises(ValueError, match=r"body\.pkl ") as caught:
        load_pickle(path)
    if asked:
        assert isinstance(caught.value, RefusedPickleError)
        caught.match(rf"body\.pkl asks for .*({asked}).*; only numpy arrays, scipy sparse")
    assert not canary.exists()


@pytest.mark.parametrize("name", ["os.system", "eval", "numpy.memmap called"])
def test_code_inside_object_arrays_is_refused(tmp_path, name) -> None:
    canary = tmp_path / "canary"
    data, asked = attacks(str(canary))[name]
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    member = header.getvalue() + data
    npy = write(tmp_path / "bad.npy", member)
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("good.npy", npy_bytes(np.arange(3)))
        archive.writestr("joint2num.npy", member)
    with pytest.raises(RefusedPickleError, match=rf"bad\.npy asks for .*({asked})"):
        load_npy(npy)
    with pytest.raises(RefusedPickleError, match=rf"bad\.npz \(joint2num\.npy\) asks for .*({asked})"):
        load_npz(tmp_path / "bad.npz")
    with pytest.raises(RefusedPickleError, match=rf"bad\.pt asks for .*({asked})"):
        load_joblib(write(tmp_path / "bad.pt", data))
    with pytest.raises(RefusedPickleError, match=rf"bad\.pt asks for .*({asked})"):
        load_joblib(write(tmp_path / "bad.pt", zlib.compress(data)))
    assert not canary.exists()


def test_code_inside_joblib_object_arrays_is_refused(tmp_path) -> None:
    joblib = pytest.importorskip("joblib", reason="joblib writes the file of this test")

    class Touch:
        def __reduce__(self):
            return open, (str(tmp_path / "canary"), "w")

    joblib.dump({"a": np.array([Touch()], object)}, tmp_path / "a.pt")
    with pytest.raises(RefusedPickleError, match=r"a\.pt asks for (_io|io)\.open"):
        load_joblib(tmp_path / "a.pt")
    assert not (tmp_path / "canary").exists()


def test_named_modules_are_not_imported(tmp_path, monkeypatch) -> None:
    (tmp_path / "canary_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RefusedPickleError, match=r"canary_module\.thing") as caught:
        load_pickle(write(tmp_path / "a.pkl", b"ccanary_module\nthing\n."))
    assert "canary_module" not in sys.modules
    assert caught.value.name == "canary_module.thing"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # crosses processes


# -- what is broken


def npy_bytes(array) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


NATIVE = b"U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"


def array_pickle(dtype: bytes, shape: bytes, data: bytes, state: bytes = NATIVE) -> bytes:
    """A numpy array as protocol 2 writes it, `shape` and the dtype's `state` as instructions."""
    made = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape
    )
    kind = b"cnumpy\ndtype\nU" + bytes([len(dtype)]) + dtype + b"K\x00K\x01\x87R(K\x03" + state + b"tb"
    return made + kind + b"\x89U" + bytes([len(data)]) + data + b"tb."


def doubling() -> bytes:
    """A list of twice a list of twice a list ...: 2^60 items in 300 bytes."""
    level = b"]q\x00(h\x01h\x01e"
    return (
        b"\x80\x02]q\x01"
        + b"".join(level.replace(b"\x00", bytes([i + 1])).replace(b"\x01", bytes([i])) for i in range(1, 60))
        + b"."
    )


def sparse_pickle(**changes) -> bytes:
    matrix = sparse.csc_matrix(np.eye(3))
    state = {"_shape": (3, 3), "data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
    state = {key: value for key, value in {**state, **changes}.items() if value is not None}
    return b"\x80\x02cscipy.sparse.csc\ncsc_matrix\n)\x81" + pickle.dumps(state, 2)[2:-1] + b"b."


def select_pickle(idxs, shape=None) -> bytes:
    made = b"\x80\x02cchumpy.reordering\nSelect\n)\x81}(U\x01acchumpy.ch\nCh\n)\x81}U\x01x"
    array, idxs = pickle.dumps(np.arange(4.0), 2)[2:-1], pickle.dumps(idxs, 2)[2:-1]
    shape = pickle.dumps(shape, 2)[2:-1]
    return made + array + b"sbU\x04idxs" + idxs + b"U\x0fpreferred_shape" + shape + b"ub."


BROKEN = {
    "empty": (b"", "Ran out of input|cut short"),
    "text": (b"<html>not found</html>", "damaged or not one"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "damaged or not one"),
    "no stop": (b"\x80\x02}", "cut short"),
    "stack underflow": (b"\x80\x02R.", "damaged or not one"),
    "missing memo": (b"\x80\x02h\x05.", "damaged or not one|Memo"),
    "bytes beyond the end": (
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 50) + b"x.",
        "bytes are due where 2 are left",
    ),
    "bytearray beyond the end": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 50) + b"x.", "bytes are due where"),
    "frame beyond the end": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 50) + b"N.", "bytes are due where"),
    "array beyond its data": (
        array_pickle(b"f8", b"J\x00\x00\x00\x40\x85", b"8 bytes!"),
        "8589934592 bytes, got 8",
    ),
    "array below its data": (array_pickle(b"f8", b"K\x00\x85", b"8 bytes!"), "takes 0 bytes, got 8"),
    "huge itemsize": (array_pickle(b"S999999999", b"K\x01\x85", b"8 bytes!"), "takes 999999999 bytes"),
    "no itemsize": (array_pickle(b"S0", b"K\x05\x85", b""), "has no width"),
    "negative shape": (array_pickle(b"f8", b"J\xff\xff\xff\xff\x85", b""), "not a tuple of counts"),
    "shape of text": (array_pickle(b"f8", b"U\x01a\x85", b""), "not a tuple of counts"),
    "too many axes": (
        array_pickle(b"f8", b"(" + b"K\x01" * 200 + b"t", b"8 bytes!"),
        "not a tuple of counts",
    ),
    "pointers as numbers": (array_pickle(b"O8", b"K\x01\x85", b"8 bytes!"), "other than 1 items"),
    "void": (array_pickle(b"V8", b"K\x01\x85", b"8 bytes!"), "dtype 'V8' are not read"),
    "dates": (array_pickle(b"M8", b"K\x01\x85", b"8 bytes!"), "dtype 'M8' are not read"),
    "byte order": (
        array_pickle(b"f8", b"K\x01\x85", b"8 bytes!", NATIVE.replace(b"<", b"?")),
        "is no byte order",
    ),
    "records": (
        array_pickle(b"f8", b"K\x01\x85", b"8 bytes!", NATIVE.replace(b"NNN", b"NU\x01a\x85}")),
        "arrays of records are not read",
    ),
    "deep lists": (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "nested deeper than 64"),
    "deep key": (b"\x80\x02}N" + b"\x85" * 100_000 + b"Ns.", "a tuple is used as a key"),
    "deep item of a set": (b"\x80\x04\x8f(N" + b"\x85" * 100_000 + b"\x90.", "a tuple is used as a key"),
    "list as key": (b"\x80\x02}]Ns.", "a list is used as a key"),
    "list in itself": (b"\x80\x02]q\x00h\x00a.", "contains itself"),
    "chumpy in itself": (b"\x80\x02cchumpy.ch\nCh\n)\x81q\x00}U\x01xh\x00sb.", "contains itself"),
    "same bytes again and again": (
        b"\x80\x02X"
        + struct.pack("<I", 1 << 20)
        + b"x" * (1 << 20)
        + b"q\x00c_codecs\nencode\nq\x01]("
        + b"h\x01h\x00X\x06\x00\x00\x00latin1\x86R" * 9
        + b"e.",
        "several times more data than the file holds",
    ),
    "a class as a value": (b"cnumpy\nndarray\n.", r"numpy\.ndarray itself where a value is due"),
    "a dtype as a value": (b"cnumpy\ndtype\n(S'f8'\ntR.", "dtype record where a value is due"),
    "items into a chumpy array": (
        b"\x80\x02cchumpy.ch\nCh\n)\x81K\x01a.",
        "put into a Record as if it were a list",
    ),
    "items into a class": (b"cnumpy\nndarray\nS'a'\nI1\ns.", "put into a Name as if it were a dict"),
    "a state on a dict": (b"}}b.", "a state is set on a dict"),
    "a state twice": (b"\x80\x02cchumpy.ch\nCh\n)\x81}b}b.", "a state is set on a Record"),
    "chumpy without x": (
        b"\x80\x02cchumpy.ch\nCh\n)\x81}U\x01yK\x01sb.",
        r"chumpy\.Ch record has no 'x', only \['y'\]",
    ),
    "chumpy without a state": (b"\x80\x02cchumpy.ch\nCh\n)\x81.", "has no state"),
    "Select out of range": (select_pickle(np.array([0, 4])), "not indices into its 4 values"),
    "Select below zero": (select_pickle(np.array([-1])), "not indices into its 4 values"),
    "Select by floats": (select_pickle(np.array([0.0])), "not indices into its 4 values"),
    "Select of another shape": (select_pickle(np.array([0, 1]), (3,)), "cannot reshape"),
    "sparse without data": (sparse_pickle(data=None), "has no 'data'"),
    "sparse without shape": (sparse_pickle(_shape=None), "not a tuple of counts"),
    "sparse with 3 axes": (sparse_pickle(_shape=(3, 3, 3)), "has shape"),
    "sparse indices too large": (sparse_pickle(indices=np.array([0, 1, 3])), "do not fit its shape"),
    "sparse indices negative": (sparse_pickle(indices=np.array([0, 1, -1])), "do not fit its shape"),
    "sparse indices too few": (sparse_pickle(indices=np.array([0, 1])), "do not fit its shape"),
    "sparse indices of floats": (sparse_pickle(indices=np.zeros(3)), "indices of a csc matrix is not a 1-D"),
    "sparse indptr falls": (sparse_pickle(indptr=np.array([0, 3, 1, 3])), "indptr of a csc matrix"),
    "sparse indptr too far": (sparse_pickle(indptr=np.array([0, 1, 2, 9])), "indptr of a csc matrix"),
    "sparse indptr too short": (sparse_pickle(indptr=np.array([0, 3])), "indptr of a csc matrix"),
    "bytes as UTF-8": (b"c_codecs\nencode\n(Va\nVrot13\ntR.", "another encoding than latin-1"),
    "key without a value": (b"\x80\x02}(K\x01u.", "a key without a value"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pickles_say_file_and_reason(tmp_path, name) -> None:
    data, reason = BROKEN[name]
    with pytest.raises(ValueError, match=rf"body\.pkl cannot be read as a pickle: .*({reason})") as caught:
        load_pickle(write(tmp_path / "body.pkl", data))
    assert len(str(caught.value)) < 500


def test_memo_index_and_shared_lists_cost_nothing(tmp_path) -> None:
    path = tmp_path / "a.pkl"
    assert load_pickle(write(path, b"\x80\x02K\x07r\xff\xff\xff\xff.")) == 7  # the C unpickler takes 64 GB
    got = load_pickle(write(path, doubling()))
    levels = 0
    while got:
        assert got[0] is got[1]
        got, levels = got[0], levels + 1
    assert levels == 59


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
def test_every_cut_and_any_flip_is_a_value_error(tmp_path) -> None:
    path = tmp_path / "a.pkl"
    for protocol, packed in PYTHON_2.items():
        data = zlib.decompress(base64.b64decode(packed))
        for end in range(0, len(data) - 1, 17):
            with pytest.raises(ValueError, match=r"a\.pkl cannot be read|a\.pkl asks for"):
                load_pickle(write(path, data[:end]))
        rng = np.random.default_rng(protocol)
        for _ in range(300):
            flipped = bytearray(data)
            flipped[rng.integers(len(data))] = rng.integers(256)
            with contextlib.suppress(ValueError):  # some flips change a number and no more
                load_pickle(write(path, bytes(flipped)))


def test_cut_npy_npz_and_joblib_files(tmp_path) -> None:
    data = npy_bytes(np.arange(100.0))
    with pytest.raises(
        ValueError, match=r"a\.npy cannot be read as a \.npy file: .*800 bytes are due where 799"
    ):
        load_npy(write(tmp_path / "a.npy", data[:-1]))
    with pytest.raises(ValueError, match=r"a\.npy cannot be read as a \.npy file"):
        load_npy(write(tmp_path / "a.npy", data[:40]))
    np.savez(tmp_path / "a.npz", a=np.arange(100.0))
    whole = (tmp_path / "a.npz").read_bytes()
    with pytest.raises(ValueError, match=r"b\.npz cannot be read as a \.npz archive"):
        load_npz(write(tmp_path / "b.npz", whole[:-30]))
    with pytest.raises(ValueError, match=r"b\.npz cannot be read as a \.npz archive: .*CRC"):
        load_npz(write(tmp_path / "b.npz", whole[:300] + b"\x55" + whole[301:]))
    with pytest.raises(
        ValueError, match=r"a\.pt cannot be read as a joblib file: the compressed data is cut short"
    ):
        load_joblib(write(tmp_path / "a.pt", zlib.compress(pickle.dumps("x" * 99))[:-5]))
    joblib = pytest.importorskip("joblib", reason="joblib writes the file of this test")
    joblib.dump({"a": np.arange(100.0)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt cannot be read as a joblib file: .*due where"):
        load_joblib(write(tmp_path / "a.pt", (tmp_path / "a.pt").read_bytes()[:-300]))


def test_npy_headers_that_lie(tmp_path) -> None:
    def npy(descr, shape, data=b"") -> bytes:
        out = io.BytesIO()
        np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
        return out.getvalue() + data

    path = tmp_path / "a.npy"
    with pytest.raises(ValueError, match="bytes are due where 8 are left"):
        load_npy(write(path, npy("<f8", (1 << 40,), bytes(8))))
    with pytest.raises(ValueError, match="bytes are due where 8 are left"):
        load_npy(write(path, npy("<f8", (1 << 40, 1 << 40), bytes(8))))
    with pytest.raises(ValueError, match="not a tuple of counts"):
        load_npy(write(path, npy("<f8", (-1,), bytes(8))))
    with pytest.raises(ValueError, match="only numbers, strings and objects"):
        load_npy(write(path, npy([("a", "<f8"), ("b", "|O")], (1,), bytes(16))))
    with pytest.raises(ValueError, match=r"not the object array of shape \(2,\) that the header names"):
        load_npy(write(path, npy("|O", (2,), pickle.dumps(np.zeros(1, object), 2))))
    with pytest.raises(ValueError, match=r"version \(3, 0\) is not read, save it again"):
        load_npy(write(path, b"\x93NUMPY\x03\x00" + npy("<f8", ())[8:]))


def test_archives_that_unpack_to_too_much(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("neuralannot.safe_pickle._MAX_UNPACKED", 1 << 20)
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(1 << 18))
    with pytest.raises(
        ValueError, match=r"a\.npz cannot be read as a \.npz archive: it unpacks to more than"
    ):
        load_npz(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a\.pt cannot be read as a joblib file: it unpacks to more than"):
        load_joblib(write(tmp_path / "a.pt", zlib.compress(bytes(1 << 21))))


@pytest.mark.parametrize("load", [load_pickle, load_npy, load_npz, load_joblib])
def test_missing_files_are_missing_files(tmp_path, load) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")
