"""The command `quality`: measure a file, print the distribution, write what is good enough."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neuralannot.file_arguments import add_body_models_argument, add_file_arguments, load_named, named_files
from neuralannot.quality_columns import LIMITS, MEASURES, UNMEASURED, load_quality, quality_file, save_quality

if TYPE_CHECKING:
    from neuralannot.pseudo_gt import PseudoGT

_SUBJECT = "{subject}"


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `quality` to the program's commands; `command` makes one."""
    quality = command(
        "quality",
        _quality,
        "how good every annotation of a file is; write those that are good enough",
        "neuralannot quality MSCOCO_train_SMPL_NeuralAnnot.json --max-reprojection-percent 5 --plausible "
        "--out MSCOCO_train_SMPL_NeuralAnnot_filtered.json",
    )
    add_file_arguments(quality)
    add_body_models_argument(quality)
    quality.add_argument(
        "--prior", default="default", help="open, vposer:PATH, mano-pca:N, none (default: by the model)"
    )
    quality.add_argument(
        "--floor", type=float, metavar="M", help="motion capture: its height (default: the feet's)"
    )
    quality.add_argument("--batch-size", type=int, default=1024, help="bodies at once (default: %(default)s)")
    quality.add_argument("--device", help="where to compute (default: cpu)")
    quality.add_argument("--again", action="store_true", help="measure even where the columns are there")
    quality.add_argument(
        "--columns",
        metavar="FILE",
        help="columns to read or write (default: X.quality.safetensors beside X.json)",
    )
    for option, name in LIMITS.items():
        text = f"keep up to: {MEASURES[name].text}, {MEASURES[name].unit}".replace("%", "%%")
        quality.add_argument(f"--{option.replace('_', '-')}", type=float, metavar="X", help=text)
    quality.add_argument("--plausible", action="store_true", help="keep only rows without flags")
    quality.add_argument(
        "--unmeasured",
        choices=UNMEASURED,
        default=UNMEASURED[0],
        help="rows where what is asked for is not known (default: %(default)s)",
    )
    quality.add_argument(
        "--out", metavar="FILTERED", help="write the rows kept (.json, .safetensors; or a folder)"
    )


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def _quality(options: argparse.Namespace) -> None:
    from neuralannot.loading import release_files
    from neuralannot.quality.summary import quality_summary

    limits = {name: getattr(options, name) for name in LIMITS if getattr(options, name) is not None}
    if options.out and not limits and not options.plausible:
        raise ValueError(
            "--out writes the rows that are kept: give a limit (--max-error, ...) or --plausible"
        )
    files = release_files(named_files(options), release=options.release)
    gt = load_named(options)
    if options.out:
        _check_name(gt, Path(options.out))
    gt, left_out = _measured(gt, files, options)
    _print(f"{gt!r}")
    _print(quality_summary(gt.quality, left_out=left_out))
    if not limits and not options.plausible:
        return
    kept = gt.filter(**limits, plausible=options.plausible, unmeasured=options.unmeasured)
    _print(f"kept {len(kept)} of {len(gt)} rows")
    if options.out:
        for path, count in write_filtered(gt, kept, options.out).items():
            _print(f"written: {path}, {count} {'rows' if path.suffix == '.safetensors' else 'fits'}")


def _measured(
    gt: PseudoGT, files: list[Path], options: argparse.Namespace
) -> tuple[PseudoGT, dict[str, str]]:
    """The rows with their quality, that which is there or measured now and written; what was left out."""
    from neuralannot.quality.measure import measure_quality

    places = [quality_file(options.columns)] if options.columns else []
    if places and places[0].is_file() and not options.again:
        gt = load_quality(gt, places)
    elif len(gt.quality) and not options.again and not places:
        places = [quality_file(file) for file in files if file.suffix == ".json"] or files
    else:
        measured = measure_quality(
            gt,
            body_models=options.body_models,
            prior=options.prior,
            floor=options.floor,
            device=options.device,
            batch_size=options.batch_size,
            progress=sys.stderr.isatty(),
        )
        gt = gt.with_quality(measured)
        for path in _write_columns(gt, files, options.columns):
            _print(f"written: {path}")
        return gt, dict(measured.left_out)
    _print(f"columns measured before, of {', '.join(p.name for p in places)}; --again measures anew")
    return gt, {}


def _write_columns(gt: PseudoGT, files: list[Path], columns: str | None) -> list[Path]:
    if columns is not None:
        return [save_quality(gt, quality_file(columns))]
    if files[0].suffix == ".safetensors":  # it holds the rows' columns, these too
        gt.save(files[0])
        return files
    if len(files) == 1:
        return [save_quality(gt, files[0])]
    return [save_quality(rows, file) for file, rows in zip(files, _by_subject(gt, files), strict=True)]


def _by_subject(gt: PseudoGT, files: list[Path]) -> list[PseudoGT]:
    """The rows of each of Human3.6M's files."""
    subjects = gt.view.column("key")[:, 0]
    return [gt.rows(subjects == int(groups["subject"])) for groups in gt.companions.groups]


def write_filtered(gt: PseudoGT, kept: PseudoGT, out: str | Path) -> dict[Path, int]:
    """Write rows `kept` of `gt`, and their quality beside them; path -> how many fits or rows it holds.

    `.safetensors` holds the rows as they are. Released layouts hold fits: of frame-keyed releases joined with
    annotations, where several cameras' rows share a fit, a fit is written if all of its rows were kept.
    Several subjects of Human3.6M go to a folder. Raises ValueError where no row is left, and for a name that
    could not be read back.
    """
    out = Path(out)
    _check_name(gt, out)
    if not len(kept):
        raise ValueError(f"no row of {gt.release} is within the limits: nothing to write to {out}")
    if out.suffix == ".safetensors":
        kept.save(out)
        return {out: len(kept)}
    fits = kept
    if "key" in kept.view and kept.joined:
        kept = _whole_frames(gt, kept)
        if not len(kept):
            raise ValueError(f"no frame of {gt.release} has all of its rows within the limits")
        _, first = np.unique(_frame_keys(kept), axis=0, return_index=True)
        fits = kept.rows(np.sort(first))
    if out.suffix == ".json":
        fits.save(out)
        return {out: len(fits), save_quality(kept, out): len(kept)}
    from neuralannot.train.released import save_release

    written: dict[Path, int] = {}
    for path in save_release(fits, out):
        own, rows = fits, kept
        if _SUBJECT in gt.catalogued.files:
            subject = int((gt.catalogued.match(path.name) or {})["subject"])
            own, rows = (g.rows(g.view.column("key")[:, 0] == subject) for g in (fits, kept))
        written |= {path: len(own), save_quality(rows, path): len(rows)}
    return written


def _check_name(gt: PseudoGT, out: Path) -> None:
    """Human3.6M's files say whose they are in their names alone."""
    if out.suffix == ".json" and _SUBJECT in gt.catalogued.files and gt.catalogued.match(out.name) is None:
        raise ValueError(
            f"{out.name}: the subject is in no other place than the file's name; call it "
            f"{gt.catalogued.files}, or give a folder to write to"
        )


def _whole_frames(gt: PseudoGT, kept: PseudoGT) -> PseudoGT:
    """The rows kept of fits of which every row was kept."""
    keys = _frame_keys(gt)
    ours = _frame_keys(kept)
    unique, number = np.unique(np.concatenate([keys, ours]), axis=0, return_inverse=True)
    number = number.reshape(-1)
    before = np.bincount(number[: len(keys)], minlength=len(unique))
    after = np.bincount(number[len(keys) :], minlength=len(unique))
    return kept.rows((before == after)[number[len(keys) :]])


def _frame_keys(gt: PseudoGT) -> np.ndarray:
    keys = gt.view.column("key")
    return keys if gt.side is None else np.column_stack([keys, gt.side == "left"])
