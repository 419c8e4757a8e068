"""Pictures for training: crops from their cache beside whole frames that are decoded and cut."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.grids import OURS, Table
from benchmarks.options import Options, say
from benchmarks.timing import Times, alternate, digits_of, machine, spread, times_faster

TITLE = "Pictures for training"
TEXT = """\
Crops of 256 pixels out of frames of 1000x1000 pixels, as Human3.6M's are, to uint8 tensors: the crop
cache beside a data set that decodes the frame and cuts it, as the release's loaders do. Frames are noise
of all scales, saved as JPEGs as large as a camera's. Both hand out the same crops in the same order,
those of the cache as they are after JPEG at quality 95; before anything is timed they must agree to 3 of
255 on average. *A core*: batches in a loop, one thread; *loader*: batches from worker processes in their
second and later epochs. What building costs is in the second table, by one process."""

_WHOLE = "frames decoded"
_FRAME, _SIZE, _BATCH = 1000, 256, 64


def run(options: Options) -> Iterator[Table]:
    """A table of crops a second, and one of what the cache costs."""
    import cv2

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield from _tables(Path(folder), options)
    finally:
        cv2.setNumThreads(threads)


def _tables(folder: Path, options: Options) -> Iterator[Table]:
    from neuralannot.train.crop_cache import build_crop_cache
    from neuralannot.train.crops import crops_of

    frames, count = options.of(None, 64, 4), options.of(options.count, 1024, 16)
    frame = options.of(None, _FRAME, 300)
    say(f"{TITLE}: writing {frames} frames")
    write_frames(folder / "frames", frames, frame)
    rng = np.random.default_rng(0)
    width = rng.uniform(0.25, 0.6, count) * frame
    boxes = np.stack([*rng.uniform(0, 0.4 * frame, (2, count)), width, width], 1)
    crops = crops_of(
        SimpleNamespace(box_xywh=boxes, image_size=np.full((count, 2), frame), side=None), size=_SIZE
    )
    # As in MoCap: a frame has one crop, and neighbours are not in the same batch.
    paths = [f"{number % frames}.jpg" for number in range(count)]

    def build() -> Any:
        return build_crop_cache(
            folder / "cache",
            images=folder / "frames",
            image_path=paths,
            crops=crops,
            workers=0,
        )

    cache, whole = build(), Frames(folder / "frames", paths, crops)
    _check_agree(cache, whole, range(min(16, count)))

    order = rng.permutation(count)[: options.of(None, 512, 16)]
    batch = options.batches((_BATCH,))[0]
    workers = options.of(options.workers, 2, 1)
    table = Table(
        f"{TITLE}, {_SIZE} px out of {frame}x{frame}, batches of {batch}, crops a second",
        ("", OURS, _WHOLE, "neuralannot is faster"),
        machine(),
    )
    say(f"{TITLE}: a core")
    sides = {OURS: _through(cache, order, batch), _WHOLE: _through(whole, order, batch)}
    _add(table, "a core", alternate(sides, repeats=options.repeated(7), warmup=1), len(order))
    say(f"{TITLE}: loaders")
    sides = {OURS: _loaded(cache, batch, workers), _WHOLE: _loaded(whole, batch, workers)}
    times = alternate(sides, repeats=options.repeated(5), warmup=1)
    _add(table, f"loader, {workers} workers", times, count)
    yield table

    say(f"{TITLE}: building")
    seconds = alternate({OURS: lambda: _built(folder, build)}, repeats=options.repeated(3), warmup=1).seconds
    size = sum(file.stat().st_size for file in (folder / "cache").glob("*.jpegs")) / count
    frame_size = sum(file.stat().st_size for file in (folder / "frames").glob("*.jpg")) / frames
    table = Table(f"The crop cache, {count} crops out of {frames} frames", ("", "figure"), machine())
    table.add("crops made a second, one process", _rate([count / s for s in seconds[OURS]]))
    table.add("a crop, kB", f"{size / 1e3:.1f}")
    table.add("a frame, kB", f"{frame_size / 1e3:.0f}")
    yield table


def _built(folder: Path, build: Callable[[], Any]) -> None:
    # Without its index nothing of a cache is taken as finished.
    (folder / "cache" / "index.columns.safetensors").unlink()
    build()


class Frames:
    """Crops from frames: read, decoded and cut each time. Stands where a `CropCache` does."""

    def __init__(self, folder: Path, paths: list[str], crops: Any) -> None:
        self._folder, self._paths, self._affine, self.size = folder, paths, crops.affine, crops.size
        self.usable = np.ones(len(paths), bool)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> np.ndarray:
        import cv2

        data = np.fromfile(self._folder / self._paths[row], np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        assert image is not None, self._paths[row]
        return cv2.warpAffine(image, self._affine[row], (self.size, self.size))

    def batch(self, rows: Any) -> Any:
        import torch

        return torch.from_numpy(np.stack([self[int(row)] for row in rows])).permute(0, 3, 1, 2)


def write_frames(folder: Path, count: int, width: int, seed: int = 0) -> None:
    """`count` JPEGs, `width` px wide and high, of noise of all scales in the proportions of photographs."""
    import cv2

    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(count):
        image = np.full((width, width, 3), 128, np.float32)
        for scale in (1, 2, 4, 8, 16, 32, 64, 128):
            few = rng.normal(0, 2.5 * scale**0.6, (width // scale + 1, width // scale + 1, 3)).astype(
                np.float32
            )
            image += cv2.resize(few, (width, width), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number}.jpg"), np.clip(image, 0, 255).astype(np.uint8))


def _check_agree(cache: Any, whole: Frames, rows: range) -> None:
    for row in rows:
        apart = np.abs(cache[row].astype(int) - whole[row]).mean()
        if apart > 3:
            raise RuntimeError(f"crop {row} of the cache is {apart:.1f} of 255 from the one out of its frame")


def _through(cache: Any, order: np.ndarray, batch: int) -> Callable[[], None]:
    def read() -> None:
        for first in range(0, len(order), batch):
            cache.batch(order[first : first + batch])

    return read


class Batches:
    """Batches of an order, as a map-style data set of either side: a worker decodes a batch."""

    def __init__(self, cache: Any, batch: int) -> None:
        self._cache, order = cache, np.random.default_rng(0).permutation(len(cache))
        self._rows = [order[first : first + batch] for first in range(0, len(order), batch)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Any:
        return self._cache.batch(self._rows[number])


def _loaded(cache: Any, batch: int, workers: int) -> Callable[[], None]:
    from torch.utils.data import DataLoader

    # Started afresh: what uses opencv's threads may wait for ever in processes that were forked.
    loader: DataLoader[Any] = DataLoader(
        Batches(cache, batch),  # type: ignore[arg-type]
        batch_size=None,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
    )

    def read() -> None:
        for _ in loader:
            pass

    return read


def _add(table: Table, name: str, times: Times, crops: int) -> None:
    rates = {side: [crops / s for s in seconds] for side, seconds in times.seconds.items()}
    table.add(name, _rate(rates[OURS]), _rate(rates[_WHOLE]), times_faster(times.ratios(_WHOLE, OURS)))


def _rate(rates: list[float]) -> str:
    return spread(rates, digits_of(float(np.median(rates))))
