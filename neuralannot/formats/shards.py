"""WebDataset shards: tars of samples, an image with its people each, for streaming from object stores."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.atomic import whole_file
from neuralannot.formats.everything import all_columns
from neuralannot.images import leads_out
from neuralannot.pseudo_gt import PseudoGT

__all__ = ["INDEX", "write_shards"]

INDEX = "shards.json"
_FORMAT = "neuralannot-shards-1"
_SUFFIXES = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png", ".webp": "webp"}
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class _Sample:
    """`number` among all; the rows (P,) of its people; the image's file, None where none is written."""

    number: int
    rows: np.ndarray
    image: Path | None


def write_shards(
    gt: PseudoGT,
    folder: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    max_bytes: int = 256_000_000,
    space: str = "camera",
    body_models: str | os.PathLike[str] | None = None,
    drop_incomplete: bool = False,
    progress: bool = False,
) -> list[Path]:
    """Write annotations or fits of any model as `000000.tar`, `000001.tar`, ...; returns the paths.

    A sample is an image with its P people (bare fits: one fit), under a number of nine digits:
    `<number>.npz` with the columns of `all_columns`, (P, ...) each; `<number>.json` with `release`, `model`,
    `space`, `keypoint_set`, `image_path`; with `images`, the data set's image folder, the image file as it
    is, `.jpg` or `.png`. Nothing in them is a pickle. Samples are in the order of their first rows.

    A shard is closed before it passes `max_bytes`; one larger sample has a shard of its own. `shards.json`
    says what is in each. A run that was stopped goes on after the last whole shard when it is started again
    with the same rows, options and images (by size and time).

    Raises ValueError where the folder holds other shards, and for other options that do not fit;
    FileNotFoundError that counts the images that are not there unless `drop_incomplete`, which leaves their
    people out with a warning.
    """
    from tqdm import tqdm

    if max_bytes < 1:
        raise ValueError(f"max_bytes must be positive, got {max_bytes}")
    columns, about = all_columns(gt, space=space, body_models=body_models)
    samples = _samples(columns, len(gt), images, drop_incomplete=drop_incomplete)
    folder = Path(folder)
    digest = _digest(columns, about, samples, max_bytes)
    done = _resumed(folder, digest)
    first = sum(shard["samples"] for shard in done)
    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(samples), initial=first, unit="sample", disable=not progress) as bar:
        for shard in _shards(columns, about, samples[first:], max_bytes):
            name = f"{len(done):06d}.tar"
            with whole_file(folder / name) as part:
                _write_tar(part, shard)
            size = (folder / name).stat().st_size
            done.append({"name": name, "samples": len(shard), "bytes": size, "first": shard[0][0]})
            _write_index(folder, digest, about, done, complete=False)
            bar.update(len(shard))
    _write_index(folder, digest, about, done, complete=True)
    return [folder / shard["name"] for shard in done]


_Files = list[tuple[str, bytes]]


def _shards(
    columns: dict[str, np.ndarray], about: dict[str, Any], samples: list[_Sample], max_bytes: int
) -> Iterator[list[tuple[int, _Files]]]:
    shard: list[tuple[int, _Files]] = []
    size = 0
    for sample in samples:
        files = _files(columns, about, sample)
        own = sum(_BLOCK + -(-len(content) // _BLOCK) * _BLOCK for _, content in files)
        if shard and size + own + tarfile.RECORDSIZE > max_bytes:
            yield shard
            shard, size = [], 0
        shard.append((sample.number, files))
        size += own
    if shard:
        yield shard


def _files(columns: dict[str, np.ndarray], about: dict[str, Any], sample: _Sample) -> _Files:
    rows = {name: values[sample.rows] for name, values in columns.items() if name != "image_path"}
    memory = io.BytesIO()
    np.savez(memory, **rows)
    path = str(columns["image_path"][sample.rows[0]]) if "image_path" in columns else ""
    text = json.dumps({**about, "image_path": path, "people": len(sample.rows)})
    files = [("json", text.encode()), ("npz", memory.getvalue())]
    if sample.image is not None:
        files.append((_SUFFIXES[sample.image.suffix.lower()], sample.image.read_bytes()))
    return files


def _write_tar(path: Path, shard: list[tuple[int, _Files]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, files in shard:
            for suffix, content in files:
                entry = tarfile.TarInfo(f"{number:09d}.{suffix}")
                entry.size, entry.mode = len(content), 0o644
                tar.addfile(entry, io.BytesIO(content))


def _samples(
    columns: dict[str, np.ndarray],
    count: int,
    images: str | os.PathLike[str] | None,
    *,
    drop_incomplete: bool,
) -> list[_Sample]:
    if not count:
        return []
    if "image_path" not in columns:
        if images is not None:
            raise ValueError("images= needs image paths: load the fits joined with annotations=")
        return [_Sample(k, np.array([k]), None) for k in range(count)]
    paths = columns["image_path"]
    unique, group = np.unique(paths, return_inverse=True)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    # Rows without an image stand alone.
    groups = [
        part
        for name, rows in zip(unique, members, strict=True)
        for part in ([rows] if name else rows[:, None])
    ]
    groups.sort(key=lambda rows: int(rows[0]))
    files = [_image(images, str(paths[rows[0]])) for rows in groups]
    if images is not None:
        lacking = [k for k, file in enumerate(files) if file is None]
        if lacking:
            example = Path(images) / str(paths[groups[lacking[0]][0]])
            said = f"{len(lacking)} of {len(groups)} images are not there, {example} for one"
            if not drop_incomplete:
                raise FileNotFoundError(
                    f"{said}; give the right --images, or leave them out with --drop-incomplete"
                )
            warnings.warn(f"{said}; left out", stacklevel=3)
            kept = [k for k, file in enumerate(files) if file is not None]
            groups, files = [groups[k] for k in kept], [files[k] for k in kept]
    return [_Sample(k, rows, file) for k, (rows, file) in enumerate(zip(groups, files, strict=True))]


def _image(images: str | os.PathLike[str] | None, name: str) -> Path | None:
    if images is None or not name:
        return None
    if leads_out(name):
        raise ValueError(f"{name}: leads out of the image folder {images}; shards hold what is below it")
    path = Path(images) / name
    if not path.is_file():
        return None
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{path}: shards hold {', '.join(_SUFFIXES)} images; convert it first")
    return path


def _digest(
    columns: dict[str, np.ndarray], about: dict[str, Any], samples: list[_Sample], max_bytes: int
) -> str:
    """What shards of the same content have in common: rows, images by name, size and time, options."""
    digest = hashlib.blake2b(json.dumps([about, max_bytes], sort_keys=True).encode(), digest_size=16)
    for name, values in columns.items():
        digest.update(f"{name}{values.shape}{values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    for sample in samples:
        stat = None if sample.image is None else sample.image.stat()
        stamp = None if stat is None else (stat.st_size, stat.st_mtime_ns)
        digest.update(f"{sample.rows.tolist()}{stamp}".encode())
    return digest.hexdigest()


def _resumed(folder: Path, digest: str) -> list[dict[str, Any]]:
    """The whole shards of an earlier run on the same content."""
    index = folder / INDEX
    if not index.is_file():
        if any(folder.glob("*.tar")):
            raise ValueError(f"{folder}: holds tars without {INDEX}; give an empty folder")
        return []
    try:
        content = json.loads(index.read_text())
        if content["format"] != _FORMAT:
            raise ValueError(content["format"])
        shards = list(content["shards"])
        known = str(content["digest"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index}: not an index of shards: {error}") from None
    if known != digest:
        raise ValueError(f"{folder}: holds shards of other rows, images or options; give an empty folder")
    whole = []
    for shard in shards:  # a shard that is gone, and all after it, are written again
        file = folder / shard["name"]
        if not file.is_file() or file.stat().st_size != shard["bytes"]:
            break
        whole.append(shard)
    return whole


def _write_index(
    folder: Path, digest: str, about: dict[str, Any], shards: list[dict[str, Any]], *, complete: bool
) -> None:
    content = {"format": _FORMAT, "digest": digest, "complete": complete, **about, "shards": shards}
    with whole_file(folder / INDEX) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
