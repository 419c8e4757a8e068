"""From nothing to an annotation file whose errors are known: a studio, an annotator trained on it, the rest.

    python -m neuralannot.showcase studio_out
    python -m neuralannot.showcase studio_out --layout mscoco --model flame --minutes 10 --set batch=64

Stands above the studio and the training, which do not know of each other, as the command line does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import types
import typing
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuralannot.atomic import whole_file
from neuralannot.catalog import identify
from neuralannot.loading import load_pseudo_gt
from neuralannot.pseudo_gt import PseudoGT

if TYPE_CHECKING:
    from neuralannot.synthetic import StudioReport
    from neuralannot.train.config import TrainConfig
    from neuralannot.train.evaluation import AnnotationErrors, JointErrors

#: (layout, model) -> the preset that is trained.
RUNS: Mapping[tuple[str, str], str] = types.MappingProxyType(
    {
        ("human36m", "smpl"): "tiny-human36m-smpl",
        ("human36m", "smplx"): "tiny-human36m-smplx",
        ("interhand26m", "mano"): "tiny-interhand-mano",
        ("mscoco", "smpl"): "tiny-mscoco-smpl",
        ("mscoco", "smplx"): "tiny-mscoco-smplx-body",
        ("mscoco", "mano"): "tiny-mscoco-mano",
        ("mscoco", "flame"): "tiny-mscoco-flame",
        ("ffhq", "flame"): "tiny-ffhq-flame",
    }
)
#: What a run leaves in its folder.
FILES = ("report.txt", "overlays.jpg", "loss.png", "train/checkpoint.pt", "train/log.csv")

_FIRST_STEPS = 40  # after which the speed is known
_LOWERED_AT = (0.75, 0.9)  # of the time
_LEAST_SECONDS = 10.0  # not worth starting again for


@dataclass(frozen=True, eq=False)
class Errors:
    """Of annotation files. `truth`: against the true parameters, None where the studio's are of another
    model; `joints`: against the joints that were trained towards."""

    truth: AnnotationErrors | None
    joints: JointErrors


@dataclass(frozen=True, eq=False)
class Showcase:
    """What a run gave.

    `folder`: where `FILES` are; `files`: the annotation files, refined as `annotate` does by default; `steps`
    and `minutes` of training, all starts together; `converged`: the loss had stopped falling; `errors`: the
    files'; `network`: the errors of the network's own estimates, the paper's method.
    """

    folder: Path
    files: tuple[Path, ...]
    steps: int
    minutes: float
    converged: bool
    errors: Errors
    network: Errors


def showcase(
    out: str | Path,
    *,
    layout: str = "human36m",
    model: str | None = None,
    count: int = 400,
    minutes: float = 12.0,
    image_size: int | None = None,
    seed: int = 0,
    pictures: int = 24,
    workers: int | None = None,
    full: bool = False,
    changes: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Showcase:
    """Make a studio, train on it, annotate it, measure the file that came out, and draw it.

    `out`: holds `studio-{layout}...`, which runs of the same layout share, and `{layout}-{model}`, the run's
    folder with `FILES` and `annotations`. `layout`, `model`: of `RUNS`; the layout's first model by default.
    `count`: images; `image_size`: their side, px; `minutes`: of training, which ends when the loss has
    converged, or at this time: then the rate falls after three quarters and after nine tenths of it, as
    often as `lr_drops` has it and it has not by itself. `pictures`: annotations on
    the sheet. `workers`: processes that draw the studio. `full`: train the preset of the paper's size, on a
    GPU, instead of the tiny one. `changes`: fields of `TrainConfig` other than the
    preset has them. Called again, all goes on where it stopped;
    more minutes than before go on at the rate that the training had come to.

    Raises ValueError for a layout and model that are not in `RUNS`, and as `make_studio`, `fit` and
    `annotate` do.
    """
    from neuralannot.synthetic import make_studio
    from neuralannot.train.annotate import annotate
    from neuralannot.train.config import preset
    from neuralannot.train.data import read_samples
    from neuralannot.train.evaluation import joint_errors
    from neuralannot.train.pictures import curve_picture, overlay_sheet

    out = Path(out)
    model = model or next((m for known, m in RUNS if known == layout), "")
    if (layout, model) not in RUNS:
        raise ValueError(
            f"no run of {layout} {model}; there are {', '.join(f'{known} {m}' for known, m in RUNS)}"
        )
    if not minutes > 0:
        raise ValueError(f"minutes must be positive, got {minutes}")
    config = preset(preset_of(layout, model, full=full), **{"seed": seed, **(changes or {})})
    bodies = model if layout == "human36m" else None
    name = "-".join(["studio", layout, *([bodies] if bodies else []), str(count)])
    with warnings.catch_warnings():
        # That the open body serves is what this is about.
        warnings.filterwarnings("ignore", "no official body models given", UserWarning)
        studio = make_studio(
            out / name,
            layout=layout,
            count=count,
            model=bodies,
            image_size=image_size,
            seed=seed,
            workers=workers,
            progress=progress,
        )
        folder = out / f"{layout}-{model}"
        config = replace(config, data=(str(studio.out),), images=(str(studio.images),))
        trained = _train(config, folder / "train", minutes * 60, progress=progress)
        samples = read_samples(
            config.data_set[0], studio.out, model=model, images=studio.images, every=config.every
        )
        measured = {}
        # The network's own first: what it estimated is kept, and refined into files of the same names.
        for method in ("network", "refined"):
            made = annotate(
                folder / "train" / "checkpoint.pt",
                folder / "annotations",
                method=method,
                progress=progress,
                workers=config.workers,
            )
            gt = _loaded(made.files, studio)
            measured[method] = Errors(_against_truth(made.files, studio, model), joint_errors(gt, samples))
        errors = measured["refined"]
        overlay_sheet(gt, samples, errors.joints, folder / "overlays.jpg", count=pictures, seed=seed)
        curve_picture(folder / "train" / "log.csv", folder / "loss.png")
    found = Showcase(
        folder,
        made.files,
        trained.steps,
        trained.seconds / 60,
        trained.converged,
        errors,
        measured["network"],
    )
    with whole_file(folder / "report.txt") as part:
        part.write_text("\n".join(_lines(found, studio, config, full=full)) + "\n")
    return found


def preset_of(layout: str, model: str, *, full: bool) -> str:
    """The name of the preset that is trained, the paper's size where it is to be full."""
    return RUNS[layout, model].removeprefix("tiny-") if full else RUNS[layout, model]


# --- training, for so many minutes


@dataclass(frozen=True)
class _Trained:
    """`fell`: the steps after which the rate was to fall."""

    steps: int = 0
    seconds: float = 0.0
    converged: bool = False
    fell: tuple[int, ...] = ()


def _train(config: TrainConfig, out: Path, budget: float, *, progress: bool) -> _Trained:
    """Train for `budget` seconds, those of earlier starts among them, in a few pieces of known length."""
    from neuralannot.train.fit import CHECKPOINT, fit

    noted = out / "time.json"
    is_begun = noted.is_file() and (out / CHECKPOINT).is_file()
    done = _noted(noted) if is_begun else _Trained()
    if is_begun:  # no step more, but another configuration is refused
        fit(replace(config, max_steps=done.steps), out)
    last = config.max_steps or sys.maxsize
    marks = [budget * share for share in (*_LOWERED_AT, 1.0)]
    passed = sum(done.seconds >= mark for mark in marks)  # of earlier starts
    while not done.converged and done.steps < last and passed < len(marks):
        left = marks[passed] - done.seconds
        if done.steps and left < min(_LEAST_SECONDS, 0.05 * budget):
            passed += 1
            if passed < len(marks):
                done = replace(done, fell=(*done.fell, done.steps))
            continue
        more = int(left * _speed(out / "log.csv", config.batch) * 0.95) if done.steps else _FIRST_STEPS
        begin = time.perf_counter()
        falls = (*config.lr_drop_steps, *done.fell)
        until = min(last, done.steps + max(1, more))
        result = fit(replace(config, max_steps=until, lr_drop_steps=falls), out, progress=progress)
        seconds = done.seconds + time.perf_counter() - begin
        done = _Trained(result.steps, seconds, result.converged, done.fell)
        with whole_file(noted) as part:
            part.write_text(json.dumps(done.__dict__))
    return done


def _noted(path: Path) -> _Trained:
    values = json.loads(path.read_bytes())
    return _Trained(**{**values, "fell": tuple(values["fell"])})


def _speed(log: Path, batch: int) -> float:
    """Steps a second, of the last lines of a log: the first are slower."""
    from neuralannot.train.pictures import log_rows

    rates = [float(row["images_per_second"]) for row in log_rows(log)[-5:]]
    return float(np.median(rates)) / batch if rates else 1.0


# --- measuring


def _loaded(files: Sequence[Path], studio: StudioReport) -> PseudoGT:
    """The annotation files; fits that have no cameras of their own get the studio's, a row each view."""
    entry, _ = _identified(files[0])
    if entry.camera == "leaf":
        return load_pseudo_gt(files, annotations=False)
    # The studio has the subjects of the data set's tests too.
    groups = [_identified(file)[1] for file in files]
    wanted = {template.format(**g) for g in groups for template in (entry.annotations[0], entry.cameras)}
    annotations, cameras = (
        [path for path in paths if path.name in wanted] for paths in (studio.annotations, studio.cameras)
    )
    return load_pseudo_gt(files, annotations=annotations, cameras=cameras)


def _identified(file: Path) -> Any:
    found = identify(file)
    assert found is not None, file
    return found


def _against_truth(files: Sequence[Path], studio: StudioReport, model: str) -> AnnotationErrors | None:
    """The files' errors, one a frame where cameras share it; None where nothing true is of this model."""
    from neuralannot.train.evaluation import annotation_errors

    true = [path for path in studio.truth if _identified(path)[0].model == model]
    if not true:
        return None
    mine, other = (load_pseudo_gt(paths, annotations=False) for paths in (files, true))
    # Bodies are measured at the data set's joints: SMPL-X's own are mostly fingers.
    regressor = "human36m-17" if model in ("smpl", "smplx") else None
    return annotation_errors(mine, other, regressor=regressor)


def _lines(found: Showcase, studio: StudioReport, config: TrainConfig, *, full: bool) -> list[str]:
    """The report."""
    from neuralannot.train.pictures import log_rows

    preset = preset_of(studio.layout, config.model, full=full)
    lines = [
        f"{studio.layout}, {config.model}",
        f"{studio.image_count} images, {studio.annotation_count} annotations",
        f"preset {preset}: {_differences(config, preset)}",
        f"{found.steps} steps of {config.batch} in {found.minutes:.1f} minutes, "
        + ("converged" if found.converged else "ended before it converged"),
        *(f"{path}" for path in found.files),
        *_both(found.errors, "of these files, refined as `annotate` does by default", config),
        *_both(found.network, "of the network's own estimates (`--method network`, the paper's)", config),
        "",
        "losses of the last lines of the log:",
    ]
    rows = log_rows(found.folder / "train" / "log.csv")[-1:]
    return lines + [f"{name} {float(value):.4g}" for row in rows for name, value in row.items()]


def _both(errors: Errors, of: str, config: TrainConfig) -> list[str]:
    return [
        "",
        f"errors {of}",
        "against the true parameters:",
        "the studio's are of another model" if errors.truth is None else str(errors.truth),
        *(["root: how far is not known in the wild, where cameras are virtual"] if config.has_camera else []),
        "against the joints that were given:",
        str(errors.joints),
    ]


def _differences(config: TrainConfig, name: str) -> str:
    from neuralannot.train.config import PRESETS

    changed = [f.name for f in fields(config) if getattr(config, f.name) != getattr(PRESETS[name], f.name)]
    there = [f"{n}={getattr(config, n)}" for n in changed if n not in ("data", "images")]
    return ", ".join(there) or "as it is"


def main(arguments: Sequence[str] | None = None) -> int:
    """From nothing to an annotation file whose errors are known, on a studio data set. OUT: the folder."""
    from neuralannot.train.config import field_types

    parser = argparse.ArgumentParser(prog="python -m neuralannot.showcase", description=main.__doc__)
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--layout", default="human36m", choices=dict.fromkeys(known for known, _ in RUNS))
    parser.add_argument("--model", help="smpl, smplx, mano or flame (default: the layout's first)")
    parser.add_argument("--count", type=int, default=400, help="images (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=12, help="of training (default: %(default)s)")
    parser.add_argument("--image-size", type=int, help="side of an image, px (default: the layout's)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--pictures", type=int, default=24, help="fits on the sheet (default: %(default)s)")
    parser.add_argument("--full", action="store_true", help="the paper's network and batch, for a GPU")
    parser.add_argument("--workers", type=int, help="processes that draw the studio (default: one a core)")
    parser.add_argument(
        "--set",
        dest="changes",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        help="a field of TrainConfig, lists with commas: --set batch=64; may be given again",
    )
    options = vars(parser.parse_args(arguments))
    try:
        options["changes"] = dict(_parsed(entry, field_types()) for entry in options["changes"])
        found = showcase(**options, progress=sys.stderr.isatty())
    except (ValueError, OSError, RuntimeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write((found.folder / "report.txt").read_text())
    return 0


def _parsed(entry: str, kinds: Mapping[str, Any]) -> tuple[str, Any]:
    """`batch=64` -> ("batch", 64), by the field's type."""
    name, separator, value = entry.partition("=")
    name = name.strip().replace("-", "_")
    if not separator:
        raise ValueError(f"--set takes FIELD=VALUE, got {entry!r}")
    kind = kinds.get(name, str)  # an unknown field is `preset`'s to refuse
    if kind is bool:
        if value not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, got {value!r}")
        return name, value == "true"
    item = typing.get_args(kind)[0] if isinstance(kind, types.GenericAlias) else kind
    try:
        several = [item(part) for part in value.split(",")] if item is not kind else []
        return name, several or item(value)
    except ValueError:
        raise ValueError(f"{name} must be {item.__name__}, got {value!r}") from None


if __name__ == "__main__":
    sys.exit(main())
