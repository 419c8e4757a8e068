"""`make_studio`: from settings to a folder that looks like the data set, with the truth beside it."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

from neuralannot.atomic import whole_file
from neuralannot.synthetic.records import Files
from neuralannot.synthetic.settings import Settings, checked_settings
from neuralannot.threads import one_thread

MARKER = "studio.json"
_FEW = 32  # images that are not worth starting processes for
_VERSION = 2  # of what the settings mean: other code, other pictures


@dataclass(frozen=True)
class StudioReport:
    """A studio that has been made.

    `out`: its folder; `images`: the folder that image paths are relative to; `annotations`, `cameras`,
    `joints`: the data set's files; `truth`: the true parameters in the layout of the pseudo ground truth, for
    `load_pseudo_gt(truth)`, or with `annotations=` and `cameras=` where it was copied;
    `image_count`, `annotation_count`; `seconds` it took, 0 where it was there already; `left_out`: what its
    layout has and it has not, and why.
    """

    out: Path
    layout: str
    images: Path
    annotations: tuple[Path, ...]
    cameras: tuple[Path, ...]
    joints: tuple[Path, ...]
    truth: tuple[Path, ...]
    image_count: int
    annotation_count: int
    seconds: float
    left_out: tuple[str, ...] = ()


def make_studio(
    out: str | os.PathLike[str],
    *,
    layout: str,
    count: int,
    seed: int = 0,
    image_size: int | tuple[int, int] | None = None,
    views: int | None = None,
    noise_mm: float = 0.0,
    noise_px: float = 0.0,
    missing: float = 0.0,
    model: str | None = None,
    body_models: str | os.PathLike[str] | None = None,
    regressor: str | os.PathLike[str] | None = None,
    clips: Sequence[str] = (),
    workers: int | None = None,
    progress: bool = False,
) -> StudioReport:
    """Make a data set in a released layout whose true parameters are known.

    `out`: a folder, new or empty. `layout`: a name of `LAYOUTS`. `count`: images; a multiple of `views` where
    cameras share frames. `seed`: the same settings give the same bytes, whatever the number of workers.
    `image_size`: one number or (width, height) px; by default as the data set's. `views`: cameras a frame, 4
    of human36m and interhand26m. `noise_mm`, `noise_px`: standard deviation of the noise on every coordinate
    of the given joints: 3D in millimetres for human36m and interhand26m, 2D in pixels for mscoco and ffhq.
    `missing`: share of the joints that the data set marks as not there. `model`: whose parameters are the
    truth, `smpl` or `smplx` for human36m. `body_models`: the folder of official files; None for the
    environment variable NEURALANNOT_BODY_MODELS, or else the open body. `regressor`: the data set's own (an
    .npy file, (17, V)) for official bodies, which human36m needs and mscoco may have. `clips`: the motions
    that bodies are drawn from (`load_poses().names`), all by default: a prior is tested on those it was not
    learnt from. `workers`: processes; None for one a core, 1 for none beside this one. They are spawned: a
    script must call this below `if __name__ == "__main__":`. `progress`: a bar on stderr.

    The annotation files are written last and each at once, so that a studio that was broken off has none;
    asked for again with the same settings it is made again, and if it is whole, reported as it stands.

    Raises ValueError for settings that do not fit the layout; FileExistsError for a folder that holds
    something else or a studio of other settings; FileNotFoundError for body model files and the regressor;
    OSError that names the file where writing fails; RuntimeError where a worker process died.
    """
    started = time.perf_counter()
    folder = Path(out)
    settings = checked_settings(
        layout=layout,
        count=count,
        seed=seed,
        image_size=image_size,
        views=views,
        noise_mm=noise_mm,
        noise_px=noise_px,
        missing=missing,
        model=model,
        body_models=_models_folder(body_models),
        regressor=None if regressor is None else os.fspath(Path(regressor).absolute()),
        clips=clips,
    )
    there = _already_there(folder, settings)
    if there is not None:
        return there
    _check_models(settings)
    room = _room(layout)
    try:
        (folder / room.FOLDER).mkdir(parents=True, exist_ok=True)
        _write_json(folder / MARKER, {"version": _VERSION, "settings": settings.as_json(), "complete": False})
    except OSError as error:
        raise type(error)(error.errno, f"cannot write the studio: {error.strerror}", str(folder)) from None
    records = list(
        tqdm(
            _takes(settings, folder, workers),
            total=room.jobs(settings),
            desc=layout,
            unit="job" if settings.views == 1 else "frame",
            disable=not progress,
        )
    )
    return _write_files(settings, folder, room.files(settings, records), time.perf_counter() - started)


def _room(layout: str) -> ModuleType:
    """The layout's module: `jobs`, `take`, `files`, `FOLDER`."""
    return import_module(f"neuralannot.synthetic.{layout}")


def _models_folder(given: str | os.PathLike[str] | None) -> str | None:
    from neuralannot.body_models.model import FOLDER_VARIABLE

    folder = given or os.environ.get(FOLDER_VARIABLE)
    return None if not folder else os.fspath(Path(folder).absolute())


def _check_models(settings: Settings) -> None:
    """Load what will be posed, for the errors and the open body's warning before anything is written."""
    from neuralannot.body_models import joint_regressor, load_body_model

    for side in ("right", "left") if settings.model == "mano" else (None,):
        body = load_body_model(settings.model, folder=settings.body_models, side=side)
    if settings.layout == "human36m" or settings.regressor:
        found = joint_regressor(settings.regressor or "human36m-17", body)
        if len(found.names) != 17:
            raise ValueError(f"{settings.regressor}: {len(found.names)} joints; {settings.layout} has 17")


def _already_there(folder: Path, settings: Settings) -> StudioReport | None:
    """The report of the same studio, whole; None where there is room to make it."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise FileExistsError(f"{folder}: a file; give a folder for the studio")
    marker = folder / MARKER
    if not marker.is_file():
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder}: holds something that is no studio; give a new or empty folder")
        return None
    try:
        noted = json.loads(marker.read_bytes())
        found, complete = noted["settings"], noted["complete"]
    except (ValueError, KeyError, TypeError):
        raise FileExistsError(f"{marker}: not a studio's; delete {folder} or give another folder") from None
    wanted = settings.as_json()
    others = [f"{k}={found.get(k)!r} (asked: {v!r})" for k, v in wanted.items() if found.get(k) != v]
    if noted.get("version") != _VERSION:
        others.append(f"version {noted.get('version')!r} (this is {_VERSION})")
    if others:
        raise FileExistsError(
            f"{folder}: holds a studio of other settings: {', '.join(others)}; delete it or give another "
            "folder"
        )
    return _report(folder, settings, complete, 0.0) if complete else None


def _takes(settings: Settings, folder: Path, workers: int | None) -> Iterator[Any]:
    """The records of all jobs, in order; their images written."""
    count = _room(settings.layout).jobs(settings)
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = 1 if settings.count < _FEW else cores
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if workers == 1:
        with one_thread():
            for job in range(count):
                yield _take(settings, folder, job)
        return
    # A fork would inherit torch's threads half alive.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, count), context, initializer=_start_worker) as pool:
        pending: list[Future[Any]] = []
        try:
            for job in range(count):  # a worker may die before all are handed out
                pending.append(pool.submit(_take, settings, folder, job))
            for one in pending:
                yield one.result()
        except BrokenProcessPool:
            raise RuntimeError(
                f"{folder}: a worker process died (out of memory, or killed); the studio is not whole: ask "
                "for it again, with fewer workers= if memory was short"
            ) from None
        finally:
            for one in pending:
                one.cancel()


def _start_worker() -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _take(settings: Settings, folder: Path, job: int) -> Any:
    """One job: images written, record returned."""
    room = _room(settings.layout)
    done = room.take(settings, job)
    for name, data in done.jpegs.items():
        path = folder / room.FOLDER / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise type(error)(error.errno, f"cannot write an image: {error.strerror}", str(path)) from None
    return done.record


def _write_files(settings: Settings, folder: Path, files: Files, seconds: float) -> StudioReport:
    # MSCOCO has every annotation in two files; subjects have files of their own.
    ids = {ann["id"] for name in files.annotations for ann in files.content[name]["annotations"]}
    try:
        _link(folder)
        for name, content in files.content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _write_json(folder / name, content)
        complete = {
            "annotations": list(files.annotations),
            "cameras": list(files.cameras),
            "joints": list(files.joints),
            "truth": list(files.truth),
            "annotation_count": len(ids),
            "left_out": list(files.left_out),
        }
        noted = {"version": _VERSION, "settings": settings.as_json(), "complete": complete}
        _write_json(folder / MARKER, noted)
    except OSError as error:
        raise type(error)(error.errno, f"cannot write the studio: {error.strerror}", str(folder)) from None
    return _report(folder, settings, complete, seconds)


def _link(folder: Path) -> None:
    """`truth/annotations` leads to `annotations`: `load_pseudo_gt` looks there for a file's companions."""
    (folder / "truth").mkdir(exist_ok=True)
    link = folder / "truth" / "annotations"
    if not link.is_symlink():
        # A file system without links: the companions are to be named, as the report does.
        with suppress(OSError, NotImplementedError):
            link.symlink_to(Path("..") / "annotations", target_is_directory=True)


def _report(folder: Path, settings: Settings, complete: dict[str, Any], seconds: float) -> StudioReport:
    def paths(kind: str) -> tuple[Path, ...]:
        return tuple(folder / name for name in complete[kind])

    return StudioReport(
        out=folder,
        layout=settings.layout,
        images=folder / _room(settings.layout).FOLDER,
        annotations=paths("annotations"),
        cameras=paths("cameras"),
        joints=paths("joints"),
        truth=paths("truth"),
        image_count=settings.count,
        annotation_count=complete["annotation_count"],
        seconds=seconds,
        left_out=tuple(complete["left_out"]),
    )


def _write_json(path: Path, content: Any) -> None:
    with whole_file(path) as part, part.open("w", encoding="ascii") as file:
        json.dump(content, file)
