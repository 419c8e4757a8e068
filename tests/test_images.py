"""Image files: what is written is read, and the stored pixels are what is read."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neuralannot.images import is_cut_short, read_image, write_image


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(0, 256, (21, 34, 3), dtype=np.uint8)


def smooth_image() -> np.ndarray:
    y, x = np.mgrid[:60, :80]
    return np.stack([x * 3, y * 4, 255 - x * 2], axis=-1).astype(np.uint8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_png_is_exact(tmp_path, image):
    before = image.copy()
    write_image(tmp_path / "a.png", image)
    read = read_image(tmp_path / "a.png")
    assert read.dtype == np.uint8
    assert read.flags.c_contiguous
    assert (read == image).all()
    assert (image == before).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "A.JPG"])
def test_jpeg_is_close_and_the_channels_keep_their_order(tmp_path, name):
    image = smooth_image()
    write_image(tmp_path / name, image)
    difference = np.abs(read_image(tmp_path / name).astype(int) - image)
    assert difference.mean() < 2
    assert difference.max() < 20
    red = np.zeros((16, 16, 3), dtype=np.uint8)
    red[..., 0] = 255
    write_image(tmp_path / name, red)
    assert read_image(tmp_path / name)[8, 8, 0] > 240
    assert cv2.imread(str(tmp_path / name))[8, 8, 2] > 240


def test_names_in_any_script_and_missing_folders(tmp_path, image):
    path = tmp_path / "données" / "人物 画像" / "ß ü.png"
    write_image(str(path), image)
    assert (read_image(str(path)) == image).all()


def test_views_that_are_not_contiguous(tmp_path, image):
    write_image(tmp_path / "a.png", image[::-2, ::3])
    assert (read_image(tmp_path / "a.png") == image[::-2, ::3]).all()


def test_writing_replaces_and_leaves_nothing_else(tmp_path, image):
    write_image(tmp_path / "a.png", image)
    write_image(tmp_path / "a.png", 255 - image)
    assert (read_image(tmp_path / "a.png") == 255 - image).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_write_that_fails_keeps_the_old_file(tmp_path, image, monkeypatch):
    write_image(tmp_path / "a.png", image)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_image(tmp_path / "a.png", 255 - image)
    assert (read_image(tmp_path / "a.png") == image).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_grey_alpha_and_sixteen_bits(tmp_path, image):
    grey, deep = image[..., 0], image.astype(np.uint16) * 257
    cases = {
        "grey": (grey, np.repeat(grey[..., None], 3, axis=2)),
        "alpha": (np.concatenate([image[..., ::-1], grey[..., None]], axis=2), image),
        "sixteen": (deep[..., ::-1], image),
        "grey sixteen": (deep[..., 0], np.repeat(grey[..., None], 3, axis=2)),
    }
    for name, (stored, expected) in cases.items():
        path = tmp_path / f"{name}.png"
        path.write_bytes(cv2.imencode(".png", stored)[1].tobytes())
        assert (read_image(path) == expected).all(), name


def test_the_stored_pixels_are_read_whatever_the_orientation_says(tmp_path):
    image = smooth_image()
    write_image(tmp_path / "plain.jpg", image)
    data = (tmp_path / "plain.jpg").read_bytes()
    # An EXIF block with one entry: orientation (0x0112), a short, 6 = turn right by 90 degrees.
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    (tmp_path / "turned.jpg").write_bytes(turned)
    assert cv2.imread(str(tmp_path / "turned.jpg")).shape == (80, 60, 3)
    assert (read_image(tmp_path / "turned.jpg") == read_image(tmp_path / "plain.jpg")).all()


def test_a_file_that_is_missing_or_is_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image file at .*none\.jpg"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(FileNotFoundError, match="no image file at"):
        read_image(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_a_file_that_is_not_an_image(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"a\.png is not an image that opencv can read \({len(content)} bytes\)"
    ):
        read_image(tmp_path / "a.png")


def noise(side: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def encoded(kind: str) -> bytes:
    """JPEGs and PNGs of several kinds, of a picture whose bytes hold what looks like markers."""
    options = {
        "progressive.jpg": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        "restarts.jpg": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
        "optimised.jpg": [cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_QUALITY, 100],
        "strong.png": [cv2.IMWRITE_PNG_COMPRESSION, 9],
    }
    data = cv2.imencode(kind[-4:], noise(), options.get(kind, []))[1].tobytes()
    if kind == "preview.jpg":  # with an end of its own
        small = cv2.imencode(".jpg", noise(8))[1].tobytes()
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(small) + 2) + small + data[2:]
    return data


KINDS = [
    "plain.jpg",
    "progressive.jpg",
    "restarts.jpg",
    "optimised.jpg",
    "preview.jpg",
    "a.png",
    "strong.png",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_short_is_an_error_wherever_it_is_cut(tmp_path, kind):
    whole, path = encoded(kind), tmp_path / kind
    path.write_bytes(whole)
    pixels = read_image(path)
    # A PNG's last four bytes are the check sum of nothing; every other byte is missed.
    last = len(whole) - (4 if kind.endswith(".png") else 0)
    for length in sorted({*range(0, last, 97), *range(last - 60, last)}):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"{kind} is (cut short: {length} bytes|not an image)"):
            read_image(path)
    for more in (b"\0", b"MPF" + bytes(3000), b"\xff\xda" * 40, whole[: len(whole) // 2]):
        path.write_bytes(whole + more)
        assert (read_image(path) == pixels).all()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 1 << 20), st.binary(max_size=60))
def test_any_bytes_are_cut_short_or_not(kind, place, other):
    """Whatever a file holds, the question has an answer."""
    whole = encoded(kind)
    place %= len(whole)
    assert is_cut_short(whole[:place] + other + whole[place + len(other) :]) in (True, False)
    assert not is_cut_short(other.lstrip(b"\xff\x89"))
    assert is_cut_short(whole[:8])


@pytest.mark.parametrize(
    ("name", "image", "error", "message"),
    [
        (
            "a.gif",
            np.zeros((4, 4, 3), np.uint8),
            ValueError,
            r"images are written as \.jpg, \.jpeg, \.png, got '\.gif'",
        ),
        ("a", np.zeros((4, 4, 3), np.uint8), ValueError, "got 'no suffix'"),
        ("a.png", np.zeros((4, 4, 3)), TypeError, "image must be uint8 from 0 to 255, got float64"),
        ("a.png", np.zeros((4, 4), np.uint8), ValueError, r"image must be \(H, W, 3\) RGB.*got \(4, 4\)"),
        (
            "a.png",
            np.zeros((4, 4, 4), np.uint8),
            ValueError,
            r"image must be \(H, W, 3\) RGB.*got \(4, 4, 4\)",
        ),
        ("a.png", np.zeros((0, 4, 3), np.uint8), ValueError, r"at least one pixel, got \(0, 4, 3\)"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(tmp_path, name, image, error, message):
    with pytest.raises(error, match=message):
        write_image(tmp_path / "new" / name, image)
    assert not list(tmp_path.iterdir())
