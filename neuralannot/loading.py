"""`load_pseudo_gt`: from file names to a `PseudoGT`, joined with its annotations and cameras."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralannot.annotations import load_annotations
from neuralannot.cameras import Camera, read_cameras, stack_cameras
from neuralannot.catalog import RELEASES, Release, identify, release_named
from neuralannot.columns import Part, RowView, TableStack
from neuralannot.companions import Companions
from neuralannot.key_index import KeyIndex
from neuralannot.parameters import SIDES
from neuralannot.pseudo_gt import PseudoGT
from neuralannot.quality_columns import load_quality_beside
from neuralannot.readers import read_fits
from neuralannot.store import SUFFIX, Table, cached_table, derived_table, open_table

PathLike = str | os.PathLike[str]


def load_pseudo_gt(
    path: PathLike | Sequence[PathLike],
    *,
    release: str | None = None,
    annotations: Any = None,
    cameras: PathLike | Sequence[PathLike] | None = None,
    cache: bool = True,
) -> PseudoGT:
    """Read a released NeuralAnnot file.

    `path`: a released JSON; several, for the subjects of Human3.6M; a folder in the released layout; or a
    `.safetensors` that `PseudoGT.save` wrote. The release is recognised by file name; `release` names it
    otherwise, and chooses in a folder that holds several (`neuralannot releases` lists the names).
    `annotations`: the COCO-format JSON to join with (a path, several, or a `pycocotools.coco.COCO`);
    `cameras`: the camera file(s) of Human3.6M, MPI-INF-3DHP, InterHand2.6M. When not given both are looked
    for beside the file under their released names. `annotations=False` keeps rows = fits. `cache=False`
    writes no columns.

    Rows are the fits in the file's order. For MoCap releases joined with annotations a row is an annotation
    that has a fit, in the annotation file's order, with its own camera. A companion that is missing is an
    error only when something needs it. Quality columns beside the file (`X.quality.safetensors`) come with it
    where they were measured on these fits; a warning says where they were not.

    Raises FileNotFoundError for a path that is not there; ValueError that names the file, the place, what was
    expected and what to do for anything that is not a whole file of the release.
    """
    paths = _paths("path", path)
    if len(paths) == 1 and paths[0].suffix == ".safetensors":
        if annotations not in (None, False) or cameras is not None:
            raise ValueError(
                f"{paths[0]}: columns that were saved carry their annotations and cameras; "
                "load without annotations= and cameras="
            )
        return _load_columns(paths[0], release)
    entry, files = _resolve(paths, release)
    companions = Companions(
        folders=_folders([file for file, _ in files]),
        groups=tuple(groups for _, groups in files),
        annotations=entry.annotations,
        cameras=entry.cameras,
        joints=entry.joints,
        cache=cache,
    )
    tables = tuple(_load_fits(file, entry, groups, cache) for file, groups in files)
    fits = TableStack(tables, "param/betas")
    if cameras is not None and (entry.camera != "companion" or annotations is False):
        why = "without annotations rows have no camera" if annotations is False else "it has no camera file"
        raise ValueError(f"{entry.name}: cameras= is of no use: {why}")
    noted = _load_annotations(annotations, entry, companions, cache)
    if noted is None:
        space = entry.space
        if space == "image":
            space = "camera"
            if annotations is not False:
                warnings.warn(
                    f"{entry.name}: {companions.annotation_name()} is not beside the file, so whether these "
                    "fits are in world space is not known; taken as camera space",
                    stacklevel=2,
                )
        gt = PseudoGT(RowView(len(fits), (Part(fits),)), entry.name, space=space, companions=companions)
        return load_quality_beside(gt, [file for file, _ in files])
    view = _join(fits, noted, entry, companions, cameras)
    space = entry.space
    if space == "image":
        space = "world" if noted.gather("ann/world").any() else "camera"
    gt = PseudoGT(view, entry.name, space=space, companions=companions)
    return load_quality_beside(gt, [file for file, _ in files])


def release_files(path: PathLike | Sequence[PathLike], *, release: str | None = None) -> list[Path]:
    """The files that `load_pseudo_gt` reads for the same arguments, companions apart, in its order."""
    paths = _paths("path", path)
    if len(paths) == 1 and paths[0].suffix == ".safetensors":
        return paths
    return [file for file, _ in _resolve(paths, release)[1]]


def _paths(name: str, given: Any) -> list[Path]:
    if isinstance(given, (str, os.PathLike)):
        return [Path(given)]
    try:
        return [Path(p) for p in given]
    except TypeError:
        raise TypeError(f"{name} must be a path or several, got {given!r:.60}") from None


def _folders(files: list[Path]) -> tuple[Path, ...]:
    """Where the files are and, of links, where they lead: either may have the companions."""
    places = [place for file in files for place in (file.absolute().parent, file.resolve().parent)]
    return tuple(dict.fromkeys(places))


def _resolve(paths: list[Path], name: str | None) -> tuple[Release, list[tuple[Path, dict[str, str]]]]:
    """The release and its files with the subject or split of each."""
    if not paths:
        raise ValueError("no path given; expected a released file, several, or a folder")
    entry = release_named(name) if name is not None else None
    if len(paths) == 1 and paths[0].is_dir():
        paths = _files_in(paths[0], entry)
    files = []
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; `neuralannot releases` lists what exists")
        found = identify(path)
        if entry is None:
            if found is None:
                raise ValueError(
                    f"{path}: not a released file name; pass release=, one of {', '.join(_candidates(path))}"
                )
            entry = found[0]
        # What the user says it is goes before what it is called; what is in it is checked in any case.
        groups = found[1] if found is not None and found[0].data_set == entry.data_set else {}
        if entry.data_set == "Human3.6M" and "subject" not in groups:
            raise ValueError(
                f"{path}: the subject is in no other place than the file's name; expected {entry.files}"
            )
        files.append((path, groups))
    assert entry is not None
    if len(files) > 1 and entry.data_set != "Human3.6M":
        raise ValueError(
            f"{entry.name}: got {', '.join(str(path) for path, _ in files)}; pass one of them: only "
            "Human3.6M's subjects are loaded together, the ids of splits are not unique"
        )
    subjects: dict[str, Path] = {}
    for path, groups in files:
        subject = groups.get("subject", "")
        if subject in subjects:
            raise ValueError(f"{entry.name}: subject {subject} twice, {subjects[subject]} and {path}")
        subjects[subject] = path
    return entry, files


def _files_in(folder: Path, entry: Release | None) -> list[Path]:
    found: dict[str, list[Path]] = {}
    for pattern in ("*.json", "annotations/*.json", "*/*.json"):
        for path in sorted(folder.glob(pattern)):
            known = identify(path)
            if known is not None and entry in (None, known[0]):
                found.setdefault(known[0].name, []).append(path)
        if found:
            break
    if not found:
        wanted = entry.files if entry else "NeuralAnnot files"
        raise FileNotFoundError(f"{folder}: no {wanted} in it; `neuralannot releases` lists the names")
    if len(found) > 1:
        raise ValueError(f"{folder}: holds {', '.join(found)}; say which with release=")
    return sorted(next(iter(found.values())), key=lambda p: (len(p.name), p.name))


def _candidates(path: Path) -> list[str]:
    """The releases that a file of another name may be, by the parameter names near its beginning."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    said = [r.name for r in RELEASES.values() if r.leaf_key and f'"{r.leaf_key}"'.encode() in head]
    return said or list(RELEASES)


def _load_fits(file: Path, entry: Release, groups: dict[str, str], cache: bool) -> Table:
    meta = {"release": entry.name}
    return cached_table(file, lambda: (read_fits(file, entry, groups), meta), key=entry.name, cache=cache)


def _load_annotations(given: Any, entry: Release, companions: Companions, cache: bool) -> TableStack | None:
    if given is False:
        return None
    if given is None or given is True:
        sources: list[Any] = []
        for template in entry.annotations:
            sources = list(companions.find(template) or ())
            if sources:
                break
        if not sources and given is True:
            raise FileNotFoundError(
                f"{companions.annotation_name()}: not beside the file; pass annotations= its path"
            )
    else:
        sources = list(given) if isinstance(given, (list, tuple)) else [given]
        strange = [s for s in sources if not _is_annotations(s)]
        if strange:
            raise TypeError(
                "annotations must be a COCO-format file, several, its dict, a pycocotools COCO, or False; "
                f"got {strange[0]!r:.60}"
            )
    if not sources:
        return None
    groups = {k: v for k, v in companions.groups[0].items() if k == "split"} if companions.groups else {}
    tables = tuple(load_annotations(source, entry, groups, cache=cache) for source in sources)
    stack = TableStack(tables, "ann/id")
    _check_unique(stack, sources)
    return stack


def _is_annotations(source: Any) -> bool:
    is_coco = hasattr(source, "dataset") and hasattr(source, "imgs")
    is_dict = isinstance(source, dict) and "images" in source
    return is_coco or is_dict or isinstance(source, (str, os.PathLike))


def _check_unique(stack: TableStack, sources: list[Any]) -> None:
    if len(stack.tables) < 2:
        return
    unique, counts = np.unique(stack.gather("ann/id"), return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"annotation {unique[counts > 1][0]}: in more than one of {', '.join(map(str, sources))}; "
            "ids must be unique over all files"
        )


# --- the join


def _join(
    fits: TableStack, noted: TableStack, entry: Release, companions: Companions, cameras: Any
) -> RowView:
    studio = _camera_table(entry, companions, cameras) if entry.camera == "companion" else None
    rows = _join_rows(fits, noted, studio, entry)

    def part(stack: TableStack, name: str) -> Part:
        return Part(stack, rows[name], (rows, name) if rows.path is not None else None)

    if entry.layout in ("flat", "hands"):
        return RowView(len(fits), (Part(fits), part(noted, "ann_row")))
    parts = [part(fits, "fit_row"), part(noted, "ann_row")]
    if studio is not None:
        parts.append(part(studio, "camera_row"))
    return RowView(len(rows["fit_row"]), tuple(parts))


def _join_rows(fits: TableStack, noted: TableStack, studio: TableStack | None, entry: Release) -> Table:
    """The row of annotation, fit and camera at every row, kept beside the fits' columns where those are."""

    def make() -> dict[str, np.ndarray]:
        if entry.layout in ("flat", "hands"):
            ids = fits.gather("id").reshape(-1, 1)
            rows = KeyIndex(noted.gather("ann/id").reshape(-1, 1)).first(ids)
            if len(ids) and (rows < 0).all():
                raise ValueError(
                    f"{entry.name}: none of the {len(ids)} ids of the fits is in the annotations; "
                    f"expected those of {entry.annotations[0]}"
                )
            return {"ann_row": rows}
        keys, wanted = fits.gather("key"), noted.gather("ann/key")
        if entry.layout == "frames":
            found = KeyIndex(keys).first(wanted)[:, None]
        else:
            sides = fits.gather("side")
            found = np.stack([_first_of_side(keys, sides, code, wanted) for code in range(len(SIDES))], 1)
        ann_row, side = np.nonzero(found >= 0)
        columns = {"ann_row": ann_row, "fit_row": found[ann_row, side]}
        if studio is not None:
            columns["camera_row"] = _camera_rows(studio, noted, ann_row, entry)
            _check_camera_size(studio, noted, columns, entry)
        return columns

    tables = (*fits.tables, *noted.tables)
    if any(t.path is None for t in tables):
        return Table(make())
    first = fits.tables[0].path
    assert first is not None
    cameras = (
        b"" if studio is None else b"".join(studio.gather(f"cam/{n}").tobytes() for n in ("key", "princpt"))
    )
    digest = hashlib.blake2b(cameras, digest_size=16).hexdigest()
    names = "|".join([*(str(t.path) for t in tables), digest])
    tag = hashlib.blake2b(names.encode(), digest_size=6).hexdigest()
    place = first.with_name(f"{first.name.removesuffix(SUFFIX)}.join-{tag}{SUFFIX}")
    return derived_table(place, "|".join([*(t.meta["build"] for t in tables), digest]), make)


def _first_of_side(keys: np.ndarray, sides: np.ndarray, code: int, wanted: np.ndarray) -> np.ndarray:
    of_side = np.flatnonzero(sides == code)
    if not len(of_side):
        return np.full(len(wanted), -1, np.int64)
    rows = KeyIndex(keys[of_side]).first(wanted)
    return np.where(rows >= 0, of_side[rows], -1)


def _camera_table(entry: Release, companions: Companions, given: Any) -> TableStack | None:
    """Every camera of the release's camera files as columns `cam/…`; None where there is no file."""
    if given is None:
        files = companions.find(entry.cameras) if entry.cameras else None
    else:
        files = _paths("cameras", given)
    if files is None:
        return None
    found: dict[tuple[int, ...], Camera] = {}
    for file, groups in zip(files, _camera_groups(files, entry, companions), strict=True):
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such camera file")
        found |= read_cameras(file, entry.data_set, groups)
    stacked = stack_cameras(list(found.values()))
    columns = {f"cam/{name}": getattr(stacked, name) for name in ("focal", "princpt", "R", "t")}
    columns["cam/key"] = np.array(list(found), np.int64).reshape(len(found), -1)
    return TableStack((Table(columns, {"file": ", ".join(f.name for f in files)}),), "cam/key")


def _camera_groups(files: list[Path], entry: Release, companions: Companions) -> list[int | None]:
    """The subject of each Human3.6M camera file: by its name, else by its place in the list."""
    if entry.data_set != "Human3.6M":
        return [None] * len(files)
    subjects: list[int | None] = []
    for place, file in enumerate(files):
        named = [
            g
            for g, n in zip(companions.groups, companions.named(entry.cameras or ""), strict=True)
            if n == file.name
        ]
        if not named and len(files) != len(companions.groups):
            raise ValueError(f"{file}: which subject's? expected {entry.cameras}")
        subjects.append(int((named[0] if named else companions.groups[place])["subject"]))
    return subjects


def _camera_rows(cameras: TableStack, noted: TableStack, ann_row: np.ndarray, entry: Release) -> np.ndarray:
    keys = noted.gather("ann/camera_key")[ann_row]
    rows = KeyIndex(cameras.gather("cam/key")).first(keys)
    absent = np.flatnonzero(rows < 0)
    if len(absent):
        id_ = noted.gather("ann/id")[ann_row[absent[0]]]
        names = _CAMERA_KEYS[entry.data_set]
        raise ValueError(
            f"annotation {id_}: camera {tuple(keys[absent[0]].tolist())} ({', '.join(names)}) is not in "
            f"{cameras.tables[0].meta['file']}"
        )
    return rows


def _check_camera_size(
    studio: TableStack, noted: TableStack, rows: Mapping[str, np.ndarray], entry: Release
) -> None:
    """Studio cameras look at the middle of their images: one that does not belongs to another resolution."""
    if entry.data_set == "InterHand2.6M":
        return  # its images are crops
    size = noted.gather("ann/image_size", rows["ann_row"])
    princpt = studio.gather("cam/princpt", rows["camera_row"])
    known = (size > 0).all(axis=1)
    scale = size / np.maximum(2 * princpt, 1)  # about 2 for 2048 px images with the cameras of the 1k ones
    off = known & ((scale > 1.6).all(axis=1) | (scale < 0.625).all(axis=1))
    if off.any():
        row = int(np.flatnonzero(off)[0])
        id_ = noted.gather("ann/id", rows["ann_row"])[row]
        w, h = size[row].tolist()
        x, y = princpt[row].tolist()
        raise ValueError(
            f"annotation {id_}: its image is {w}x{h} px, its camera's principal point "
            f"({x:.0f}, {y:.0f}): they are of different resolutions; "
            f"{entry.cameras} goes with {entry.annotations[0]} and the images of that size only"
        )


_CAMERA_KEYS = {
    "Human3.6M": ("subject", "cam"),
    "MPI-INF-3DHP": ("subject", "seq", "cam"),
    "InterHand2.6M": ("capture", "cam"),
}


# --- columns that were saved


def _load_columns(path: Path, release: str | None) -> PseudoGT:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    table = open_table(path)
    try:
        entry, space = release_named(table.meta["release"]), table.meta["space"]
        groups: list[dict[str, str]] = json.loads(table.meta["groups"])
    except (KeyError, ValueError):
        raise ValueError(f"{path}: not written by PseudoGT.save; load the JSON instead") from None
    companions = Companions(_folders([path]), tuple(groups), entry.annotations, entry.cameras, entry.joints)
    stack = TableStack((table,), "param/betas")
    return PseudoGT(RowView(len(stack), (Part(stack),)), entry.name, space=space, companions=companions)


def saved_meta(gt: PseudoGT) -> Mapping[str, str]:
    """What `_load_columns` needs beside the columns."""
    groups = json.dumps(list(gt.companions.groups))
    return {"release": gt.release, "space": gt.space, "groups": groups}
