"""The crop cache: what comes out is what was cut, whoever made it, however often it was interrupted."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from neuralannot.images import read_image
from neuralannot.train import crop_building, crop_cache, crop_shards
from neuralannot.train.crop_cache import REASONS, CropCache, build_crop_cache, open_crop_cache
from neuralannot.train.crops import crops_of, cut

IMAGES, ROWS, WIDTH, HEIGHT, SIZE, SHARD = 12, 60, 200, 150, 48, 8


def write_images(folder: Path, count: int = IMAGES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpg"), cv2.resize(coarse, (WIDTH, HEIGHT)))


def samples(count: int = ROWS, images: int = IMAGES, seed: int = 0):
    """Image paths, several rows an image and not in order, and what crops are made from."""
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([rng.uniform(0, 80, (count, 2)), rng.uniform(20, 110, (count, 2))], 1)
    return [f"{n}.jpg" for n in rng.integers(0, images, count)], SimpleNamespace(
        box_xywh=boxes.astype(np.float32),
        image_size=np.tile(np.int64([WIDTH, HEIGHT]), (count, 1)),
        side=rng.choice(["right", "left"], count),
    )


@pytest.fixture
def given(tmp_path):
    """What `build_crop_cache` takes, of a folder of images of the test's own."""
    write_images(tmp_path / "images")
    paths, boxed = samples()
    return {
        "images": tmp_path / "images",
        "image_path": paths,
        "crops": crops_of(boxed, size=SIZE),
        "shard": SHARD,
        "workers": 0,
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.name != ".lock"}


def reading(given) -> dict:
    return {"image_path": given["image_path"], "crops": given["crops"]}


# --- what comes out


def test_every_crop_is_what_is_cut_from_its_image(tmp_path, given):
    cache = build_crop_cache(tmp_path / "cache", **given)
    assert (len(cache), cache.size, cache.quality, cache.skipped) == (ROWS, SIZE, 95, ())
    for row in range(ROWS):
        image = read_image(given["images"] / given["image_path"][row])
        expected = cut(image, given["crops"].affine[row], SIZE).astype(int)
        assert np.abs(cache[row] - expected).mean() < 3  # of 255: JPEG's quality 95
    batch = cache.batch([5, 3, 5, 59])
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch[1], torch.from_numpy(cache[3]).permute(2, 0, 1))
    assert torch.equal(batch[0], batch[2])
    assert np.array_equal(cache[-1], cache[59])
    assert cache.batch(np.zeros(0, int)).shape == (0, 3, SIZE, SIZE)
    # Each is a file that any program reads.
    (tmp_path / "7.jpg").write_bytes(cache.jpeg(7).tobytes())
    assert np.array_equal(read_image(tmp_path / "7.jpg"), cache[7])


def test_without_opencv_s_flag_for_rgb_crops_are_the_same(tmp_path, given, monkeypatch):
    cache = build_crop_cache(tmp_path / "cache", **given)
    before = cache[3], cache.batch([3, 4])
    monkeypatch.delattr(cv2, "IMREAD_COLOR_RGB", raising=False)
    assert np.array_equal(cache[3], before[0])
    assert torch.equal(cache.batch([3, 4]), before[1])


def test_colours_keep_their_resolution(tmp_path, given):
    stripes = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stripes[:, ::2, 0], stripes[:, 1::2, 2] = 200, 200  # red and blue in turns, of the same brightness or so
    cv2.imwrite(str(given["images"] / "0.png"), stripes)
    box = SimpleNamespace(
        box_xywh=np.float32([[20, 20, SIZE + 1, SIZE + 1]]), image_size=np.int64([[0, 0]]), side=None
    )
    given |= {"image_path": ["0.png"], "crops": crops_of(box, size=SIZE, scale=1.0)}
    crop = build_crop_cache(tmp_path / "cache", **given)[0].astype(int)
    assert np.abs(np.diff(crop[..., 0], axis=1)).mean() > 150


def test_an_image_is_decoded_once(tmp_path, given, monkeypatch):
    seen = []
    decoded = crop_shards._decoded
    monkeypatch.setattr(crop_shards, "_decoded", lambda path: seen.append(path) or decoded(path))
    build_crop_cache(tmp_path / "cache", **given)
    assert len(seen) == len(set(seen)) == len(set(given["image_path"]))


def test_shards_hold_whole_images_in_order_of_appearance():
    paths = ["b", "a", "b", "c", "c", "c", "c", "d", "a"]
    shards = crop_shards.shards_of(paths, 3)
    assert [rows.tolist() for rows in shards] == [[0, 2, 1, 8], [3, 4, 5, 6], [7]]
    assert crop_shards.shards_of([], 3) == []
    assert sorted(np.concatenate(crop_shards.shards_of(samples(500)[0], 7))) == list(range(500))


def test_the_exif_orientation_is_not_applied(tmp_path, given):
    data = (given["images"] / "0.jpg").read_bytes()
    tiff = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\0\0" + tiff
    (given["images"] / "1.jpg").write_bytes(data[:2] + turned + data[2:])
    given |= {"image_path": ["0.jpg", "1.jpg"], "crops": given["crops"].rows([0, 0])}
    cache = build_crop_cache(tmp_path / "cache", **given)
    assert np.array_equal(cache[0], cache[1])


def test_no_crops_at_all(tmp_path, given):
    given |= {"image_path": [], "crops": given["crops"].rows([])}
    cache = build_crop_cache(tmp_path / "cache", **given)
    assert (len(cache), cache.skipped) == (0, ())
    assert len(open_crop_cache(tmp_path / "cache", **reading(given))) == 0
    assert cache.batch([]).shape == (0, 3, SIZE, SIZE)
    with pytest.raises(IndexError, match="row 0: the cache has 0"):
        cache[0]


# --- what cannot be had


def test_bad_rows_are_listed_and_the_others_are_cut(tmp_path, given):
    images, crops = given["images"], given["crops"]
    whole = (images / "0.jpg").read_bytes()
    (images / "cut short.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "text.jpg").write_bytes(b"not found")
    (images / "empty.jpg").write_bytes(b"")
    png = cv2.imencode(".png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes()
    (images / "cut short.png").write_bytes(png[:-20])
    cv2.imwrite(str(images / "small.jpg"), np.zeros((10, 20, 3), np.uint8))
    (images / "folder.jpg").mkdir()
    names = [
        "0.jpg",
        "gone.jpg",
        "cut short.jpg",
        "text.jpg",
        "empty.jpg",
        "cut short.png",
        "small.jpg",
        "folder.jpg",
    ]
    names += ["", "0.jpg/x.jpg", "0.jpg"]
    box = crops.box_xywh[: len(names)].copy()
    box[-1] = np.nan
    some = replace(crops.rows(range(len(names))), box_xywh=box, valid=np.isfinite(box).all(1))
    given |= {"image_path": names, "crops": some}

    cache = build_crop_cache(tmp_path / "cache", **given)
    assert cache.usable.tolist() == [True] + [False] * 10
    reasons = {skip.row: skip.reason for skip in cache.skipped}
    missing, unreadable, no_box, size = "image missing", "image unreadable", "no box", "image size"
    assert reasons == {
        1: missing, 2: unreadable, 3: unreadable, 4: unreadable, 5: unreadable, 6: size, 7: missing,
        8: missing, 9: missing, 10: no_box,
    }  # fmt: skip
    assert set(reasons.values()) == set(REASONS)
    details = {skip.row: skip.detail for skip in cache.skipped}
    assert details[2].endswith(f"cut short.jpg: cut short, {len(whole) // 2} bytes")
    assert details[6].endswith("small.jpg: 20 x 10 px, the annotation says 200 x 150")
    assert cache[0].shape == (SIZE, SIZE, 3)
    with pytest.raises(
        ValueError, match=r"row 6 has no crop: image size: .*leave out rows where cache.usable"
    ):
        cache[6]
    with pytest.raises(ValueError, match="row 1 has no crop: image missing"):
        cache.batch(range(len(cache)))
    assert cache.batch(np.flatnonzero(cache.usable)).shape == (1, 3, SIZE, SIZE)
    with pytest.raises(ValueError, match=r"row \d+: (no box|image missing): "):
        build_crop_cache(tmp_path / "strict", strict=True, **given)


def test_images_of_unknown_size_are_taken_as_they_are(tmp_path, given):
    given["crops"] = replace(given["crops"], image_size=given["crops"].image_size * 0)
    assert build_crop_cache(tmp_path / "cache", **given).usable.all()


def test_nothing_usable_is_an_error_and_no_cache(tmp_path, given):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"none of 60 crops can be made; row 0: image missing: .*\.jpg"):
        build_crop_cache(tmp_path / "cache", **given | {"images": tmp_path / "empty"})
    with pytest.raises(FileNotFoundError, match="a crop cache that is not finished; build_crop_cache makes"):
        open_crop_cache(tmp_path / "cache")
    # The right folder, then, is all that it takes.
    assert build_crop_cache(tmp_path / "cache", **given).usable.all()


def test_what_building_refuses(tmp_path, given):
    folder = tmp_path / "cache"
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder of images"):
        build_crop_cache(folder, **given | {"images": tmp_path / "nowhere"})
    with pytest.raises(ValueError, match="image_path must be 60, one a crop, got 2"):
        build_crop_cache(folder, **given | {"image_path": ["0.jpg", "1.jpg"]})
    for option, value in (("quality", 0), ("quality", 101), ("shard", 0), ("workers", -1)):
        with pytest.raises(ValueError, match=f"{option} must be .* got {value}"):
            build_crop_cache(folder, **given | {option: value})
    assert not folder.exists()
    with pytest.raises(FileNotFoundError, match="no crop cache"):
        open_crop_cache(folder)
    folder.mkdir()
    shutil.copy(write_table_of_another_kind(tmp_path), folder / "fits.columns.safetensors")
    with pytest.raises(
        ValueError, match=r"fits.columns.safetensors is not of a crop cache; give the cache a folder"
    ):
        build_crop_cache(folder, replace=True, **given)


def write_table_of_another_kind(folder: Path) -> Path:
    from neuralannot.store import write_table

    write_table(folder / "other", {"ids": np.arange(3)}, {"source": "fits"})
    return folder / "other"


# --- one cache, however it is made


def test_worker_processes_make_the_same_bytes(tmp_path, given):
    (given["images"] / "3.jpg").write_bytes(b"damaged")
    expected = build_crop_cache(tmp_path / "one", **given)
    cache = build_crop_cache(tmp_path / "two", **given | {"workers": 2})
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert cache.skipped == expected.skipped != ()
    with pytest.raises(ValueError, match=r"row .*: image unreadable: .*3.jpg"):
        build_crop_cache(tmp_path / "strict", strict=True, **given | {"workers": 2})


# Without torch, which takes longer to import than all of it to run.
SCRIPT = """
import pickle, signal, sys, time
from pathlib import Path
from neuralannot.train import crop_building
from neuralannot.train.crop_cache import build_crop_cache

def slow(task, **options):
    time.sleep(0.03)
    make_shard(task, **options)

FIRST
if __name__ == "__main__":
    make_shard, crop_building.make_shard = crop_building.make_shard, slow
    folder, given = pickle.loads(Path(sys.argv[1]).read_bytes())
    build_crop_cache(folder, progress=True, **given)
"""


def start(folder: Path, given: dict, first: str = "") -> subprocess.Popen:
    script, arguments = folder.parent / "build.py", folder.parent / "given.pickle"
    script.write_text(SCRIPT.replace("FIRST", first))
    arguments.write_bytes(pickle.dumps((folder, given)))
    paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, str(script), str(arguments)],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
    )


def until(happens, process: subprocess.Popen | None = None, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it did not happen in time"
        assert process is None or process.poll() is None, process.communicate()[1]
        time.sleep(0.002)


def test_a_build_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path, given):
    paths, boxed = samples(400)
    given |= {"image_path": paths, "crops": crops_of(boxed, size=SIZE)}
    build_crop_cache(tmp_path / "whole", **given)
    folder = tmp_path / "killed"
    finished = 0
    for more in (2, 4):
        build = start(folder, given)
        target = finished + more
        until(lambda target=target: len(list(folder.glob("0*.columns.safetensors"))) >= target, build)
        build.send_signal(signal.SIGKILL)
        build.wait()
        finished = len(list(folder.glob("0*.columns.safetensors")))
        assert not (folder / crop_building.INDEX).exists()
    # As a writer leaves it that was killed between two bytes.
    (folder / ".00003.jpegs.1-abc.tmp").write_bytes(b"half")
    before = {file: file.stat().st_mtime_ns for file in folder.glob("*.jpegs")}
    build_crop_cache(folder, **given)
    assert contents(folder) == contents(tmp_path / "whole")
    kept = [file for file, when in before.items() if file.stat().st_mtime_ns == when]
    assert len(kept) >= finished >= 6


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_workers_end_when_the_build_is_killed(tmp_path, given):
    paths, boxed = samples(3000)
    given |= {"image_path": paths, "crops": crops_of(boxed, size=SIZE), "workers": 2}
    build = start(tmp_path / "cache", given)
    until(lambda: len(list((tmp_path / "cache").glob("*.jpegs"))) >= 2, build)
    children = Path(f"/proc/{build.pid}/task/{build.pid}/children").read_text().split()
    assert len(children) >= 2
    build.send_signal(signal.SIGKILL)
    build.wait()
    # Zombies count as ended: it is up to whoever inherits them.
    until(lambda: not any(running(pid) for pid in children), seconds=20)


def running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_builders_of_one_folder_at_once(tmp_path, given):
    build_crop_cache(tmp_path / "alone", **given)
    builds = [start(tmp_path / "cache", given) for _ in range(3)]
    for build in builds:
        _, errors = build.communicate(timeout=60)
        assert build.returncode == 0, errors
    assert contents(tmp_path / "cache") == contents(tmp_path / "alone")


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_said_and_leaves_what_can_be_gone_on_with(tmp_path, given, workers):
    # Who makes the shards may not write files of more than 2 kB: an error of the system's, too.
    limit = f"""
if {workers} == 0 or __name__ == "__mp_main__":
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
"""
    build = start(tmp_path / "cache", given | {"workers": workers}, limit)
    _, errors = build.communicate(timeout=60)
    assert build.returncode == 1
    assert re.search(r"shard \d of \d+: .* File too large; finished shards are kept", errors), errors
    assert not [
        name for name in contents(tmp_path / "cache") if name.endswith((".tmp", "index.columns.safetensors"))
    ]
    build_crop_cache(tmp_path / "whole", **given)
    build_crop_cache(tmp_path / "cache", **given)
    assert contents(tmp_path / "cache") == contents(tmp_path / "whole")


def die(task):
    os._exit(3)


def test_a_worker_that_dies_is_said(tmp_path, given, monkeypatch):
    monkeypatch.setattr(crop_building, "_make_in_worker", die)
    with pytest.raises(RuntimeError, match=r"shard \d of .*a worker process ended: killed, out of memory"):
        build_crop_cache(tmp_path / "cache", **given | {"workers": 2})


# --- whether it still holds


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": 32}, "size 48, asked 32"),
        ({"box_xywh": 1}, "other boxes"),
        ({"flip": True}, "other mirrored"),
        ({"image_size": 0}, "other image sizes"),
        ({"image_path": True}, "other image paths"),
        ({"quality": 80}, "quality 95, asked 80"),
        ({"rows": True}, "crops 60, asked 59; other image paths"),
    ],
)
def test_a_cache_of_other_crops_is_refused(tmp_path, given, change, said):
    build_crop_cache(tmp_path / "cache", **given)
    before = contents(tmp_path / "cache")
    crops, paths = given["crops"], list(given["image_path"])
    (name, value), quality = *change.items(), 95
    if name == "size":
        crops = replace(crops, size=value)
    elif name == "box_xywh":
        crops = replace(crops, box_xywh=crops.box_xywh + np.float32(value))
    elif name == "flip":
        crops = replace(crops, flip=~crops.flip)
    elif name == "image_size":
        crops = replace(crops, image_size=crops.image_size * value)
    elif name == "image_path":
        paths = paths[::-1]
    elif name == "quality":
        quality = value
    else:
        crops, paths = crops.rows(range(59)), paths[:59]
    other = {"image_path": paths, "crops": crops, "quality": quality}
    with pytest.raises(ValueError, match=rf"made from other things: .*{said}.*replace=True"):
        open_crop_cache(tmp_path / "cache", **other)
    with pytest.raises(ValueError, match=rf"made from other things: .*{said}.*delete that folder"):
        build_crop_cache(tmp_path / "cache", **given | other)
    assert contents(tmp_path / "cache") == before
    cache = build_crop_cache(tmp_path / "cache", replace=True, **given | other)
    assert (len(cache), cache.size) == (len(crops), crops.size)
    build_crop_cache(tmp_path / "anew", **given | other)
    assert contents(tmp_path / "cache") == contents(tmp_path / "anew")


def test_an_unfinished_cache_of_other_crops_is_refused_too(tmp_path, given, monkeypatch):
    monkeypatch.setattr(crop_building, "_write_index", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_crop_cache(tmp_path / "cache", **given)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="quality 95, asked 50"):
        build_crop_cache(tmp_path / "cache", quality=50, **given)
    assert build_crop_cache(tmp_path / "cache", quality=50, replace=True, **given).quality == 50


def test_opening_what_is_right(tmp_path, given):
    build_crop_cache(tmp_path / "cache", **given)
    cache = open_crop_cache(tmp_path / "cache", images=given["images"], quality=95, **reading(given))
    assert repr(cache).endswith("60 of 60 crops of 48 px>")
    assert not cache.usable.flags.writeable
    assert open_crop_cache(tmp_path / "cache").size == SIZE
    with pytest.raises(ValueError, match="pass both or none"):
        open_crop_cache(tmp_path / "cache", crops=given["crops"])
    with pytest.raises(ValueError, match="images can be checked only with their image_path"):
        open_crop_cache(tmp_path / "cache", images=given["images"])


@pytest.mark.parametrize("change", ["rewritten", "removed", "added"])
def test_images_that_change_are_noticed_and_cut_again_and_no_others(tmp_path, given, change):
    image, folder = given["images"] / "4.jpg", tmp_path / "cache"
    if change == "added":
        kept = image.read_bytes()
        image.unlink()
    build_crop_cache(folder, **given)
    before = {file: file.stat().st_mtime_ns for file in folder.glob("*.jpegs")}
    if change == "added":
        image.write_bytes(kept)
    elif change == "removed":
        image.unlink()
    else:
        cv2.imwrite(str(image), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    open_crop_cache(folder, **reading(given))  # nobody asked
    with pytest.raises(
        ValueError, match=r"1 images changed since they were cut, '4.jpg' first; build_crop_cache"
    ):
        open_crop_cache(folder, images=given["images"], **reading(given))
    cache = build_crop_cache(folder, **given)
    rows = [row for row, path in enumerate(given["image_path"]) if path == "4.jpg"]
    assert cache.usable[rows].all() == (change != "removed")
    assert cache.usable.sum() == ROWS - len(rows) * (change == "removed")
    assert sum(file.stat().st_mtime_ns != when for file, when in before.items()) == 1
    if change == "rewritten":
        inside = cache[rows[0]][SIZE // 3 : SIZE // 2, SIZE // 3 : SIZE // 2]
        assert np.abs(inside.astype(int) - 90).max() <= 3
    build_crop_cache(tmp_path / "anew", **given)
    assert contents(folder) == contents(tmp_path / "anew")


def test_a_damaged_byte_is_noticed_when_it_is_used_and_made_good(tmp_path, given):
    folder = tmp_path / "cache"
    build_crop_cache(folder, **given)
    before = contents(folder)
    shard = folder / "00002.jpegs"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    cache = open_crop_cache(folder, **reading(given))  # crops are checked when they are used
    rows = crop_shards.shards_of(given["image_path"], SHARD)[2]
    with pytest.raises(
        ValueError, match=rf"00002.jpegs is damaged at row {rows[0]}, bytes 0 to \d+: its check sum"
    ):
        cache[rows[0]]
    assert cache[rows[1]].shape == (SIZE, SIZE, 3)
    shard.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"00002.jpegs: a shard of the crop cache is missing; build_crop"
    ):
        open_crop_cache(folder, **reading(given))
    with pytest.raises(FileNotFoundError, match=r"00002.jpegs: a shard of the crop cache is missing"):
        CropCache(folder)[rows[0]]
    build_crop_cache(folder, **given)
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["00001.jpegs", "index.columns.safetensors"])
def test_files_cut_short_are_noticed_and_made_good(tmp_path, given, name):
    folder = tmp_path / "cache"
    build_crop_cache(folder, **given)
    before = contents(folder)
    (folder / name).write_bytes(before[name][:-7])
    with pytest.raises(ValueError, match=rf"{name}.*build_crop_cache makes what is missing"):
        open_crop_cache(folder, **reading(given))
    if name.endswith(".jpegs"):
        with pytest.raises(ValueError, match=r"00001.jpegs is damaged: expected"):
            CropCache(folder)[crop_shards.shards_of(given["image_path"], SHARD)[1][0]]
    build_crop_cache(folder, **given)
    assert contents(folder) == before


# --- in other processes


def crop_in_worker(cache, row):
    return cache[row]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_cache_goes_to_other_processes_as_its_path(tmp_path, given, context):
    cache = build_crop_cache(tmp_path / "cache", **given)
    before = cache[5]  # some of it mapped already
    assert len(pickle.dumps(cache)) < 300
    if context not in multiprocessing.get_all_start_methods():
        pytest.skip("no such way to start processes here")
    with multiprocessing.get_context(context).Pool(1) as pool:
        assert np.array_equal(pool.apply(crop_in_worker, (cache, 5)), before)


def test_a_cache_built_anew_is_not_mistaken_for_the_one_that_was_pickled(tmp_path, given):
    pickled = pickle.dumps(build_crop_cache(tmp_path / "cache", **given))
    build_crop_cache(tmp_path / "cache", quality=70, replace=True, **given)
    with pytest.raises(ValueError, match="built anew since it was opened; open it again"):
        pickle.loads(pickled)


def test_more_shards_than_may_be_open(tmp_path, given, monkeypatch):
    monkeypatch.setattr(crop_cache, "_MOST_OPEN", 2)
    cache = build_crop_cache(tmp_path / "cache", **given)
    images = [cache[row] for row in range(ROWS)]
    assert len(cache._maps) <= 2
    assert all(np.array_equal(cache[row], images[row]) for row in reversed(range(ROWS)))


# --- in the workers of a loader


class Batches(Dataset):
    """A cache's batches, for a `DataLoader` whose workers decode one each."""

    def __init__(self, cache, batches):
        self.cache, self.batches = cache, batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, number):
        return self.cache.batch(self.batches[number])


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_hand_out_what_the_cache_holds(tmp_path, given, context):
    if context not in multiprocessing.get_all_start_methods():
        pytest.skip("no such way to start processes here")
    cache = build_crop_cache(tmp_path / "cache", **given)
    rows = np.array_split(np.random.default_rng(3).permutation(ROWS), 4)
    loader = DataLoader(
        Batches(cache, rows),
        batch_size=None,
        num_workers=2,
        multiprocessing_context=context,
        persistent_workers=True,
    )
    for again in range(2):
        for images, some in zip(loader, rows, strict=True):
            assert torch.equal(images, cache.batch(some)), again
            assert images.is_contiguous(memory_format=torch.channels_last)
            # The batch came in memory that the worker shares: it was not copied.
            assert images.is_shared()


def test_large_crops_come_from_workers_that_were_forked_after_opencv_used_threads(tmp_path):
    write_images(tmp_path / "images", 2)
    paths, boxed = samples(8, 2)
    cv2.resize(np.zeros((3000, 3000, 3), np.uint8), (100, 100), interpolation=cv2.INTER_AREA)
    cache = build_crop_cache(
        tmp_path / "cache",
        images=tmp_path / "images",
        image_path=paths,
        crops=crops_of(boxed, size=600),
        workers=0,
    )
    rows = np.split(np.arange(8), 2)
    loader = DataLoader(Batches(cache, rows), batch_size=None, num_workers=1)
    assert [tuple(images.shape) for images in loader] == [(4, 3, 600, 600)] * 2


def test_a_row_without_a_crop_is_an_error_in_a_worker_too(tmp_path, given):
    (given["images"] / "0.jpg").unlink()
    cache = build_crop_cache(tmp_path / "cache", **given)
    lost = np.flatnonzero(~cache.usable)
    assert len(lost)
    with pytest.raises(ValueError, match=rf"row {lost[0]} has no crop: image missing"):
        cache.batch(lost)
    loader = DataLoader(Batches(cache, [lost]), batch_size=None, num_workers=1)
    with pytest.raises(ValueError, match=rf"row {lost[0]} has no crop: image missing"):
        next(iter(loader))
    assert len(cache.batch([])) == 0
