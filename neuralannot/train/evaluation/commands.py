"""The command `evaluate`."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuralannot.file_arguments import add_body_models_argument, add_file_arguments, load_named

if TYPE_CHECKING:
    from neuralannot.pseudo_gt import PseudoGT
    from neuralannot.train.evaluation.report import Evaluation
    from neuralannot.train.samples import Samples


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `evaluate` and `compare` to the program's commands; `command` makes one."""
    _add_compare(command)
    sub = command(
        "evaluate",
        _evaluate,
        "errors of an annotation file against true parameters, joints, meshes or 3D scans",
        "neuralannot evaluate fits.json --release mpii-smpl --truth true.json --by joint --page errors.html",
    )
    sub.allow_abbrev = False
    add_file_arguments(sub)
    add_body_models_argument(sub)
    sub.add_argument("--device", help="where torch computes (default: the CPU)")

    true = sub.add_argument_group("what is true (one or more)")
    true.add_argument("--truth", nargs="+", metavar="FILE", help="true parameters, in the release's layout")
    true.add_argument(
        "--truth-release", metavar="NAME", help="whose layout --truth has (default: by its name, else FILE's)"
    )
    true.add_argument("--meshes", metavar="FILE", help="true meshes: .npz (vertices, ids or keys) or .npy")
    true.add_argument("--scans", metavar="DIR", help="3D scans, named as `neuralannot export` names meshes")
    true.add_argument("--data-set", metavar="NAME", help="the data set's joints: human36m, mscoco, ...")
    true.add_argument("--data", metavar="DIR", help="with --data-set: folder of its annotation files")
    true.add_argument("--images", metavar="DIR", help="image folder (default: in the data folder)")

    how = sub.add_argument_group("how")
    how.add_argument("--unit", choices=("m", "mm"), help="of --meshes and --scans (default: m)")
    how.add_argument(
        "--align",
        choices=("none", "rigid", "similarity"),
        help="how a mesh may be moved to its scan (default: rigid)",
    )
    how.add_argument("--regressor", help="joints to compare: a (K, V) .npy or a name such as human36m-17")
    how.add_argument(
        "--transfer",
        metavar="DIR",
        help="SMPL-X against SMPL: official transfer matrices (default: in --body-models)",
    )
    how.add_argument("--split", help="of data sets that have several (default: train)")
    how.add_argument("--subjects", nargs="+", type=int, metavar="N", help="MoCap: only these subjects")
    how.add_argument("--views", nargs="+", type=int, metavar="N", help="MoCap: only these camera numbers")
    how.add_argument("--every", type=int, default=1, help="MoCap: every how many-th frame (default: all)")
    how.add_argument(
        "--joint-regressor",
        nargs="+",
        metavar="SET=FILE",
        help="the data set's own regressors for official models",
    )

    out = sub.add_argument_group("what to write")
    out.add_argument("--by", nargs="+", default=[], choices=("joint", "sequence", "subject"))
    out.add_argument("--csv", metavar="FILE", help="all tables as one CSV")
    out.add_argument("--markdown", metavar="FILE", help="all tables as Markdown")
    out.add_argument("--page", metavar="FILE", help="tables, plots and the worst annotations as one .html")
    out.add_argument("--worst", type=int, default=12, help="annotations on the page (default: %(default)s)")


def _add_compare(command: Callable[..., argparse.ArgumentParser]) -> None:
    sub = command(
        "compare",
        _compare,
        "errors of several annotation files in one table, over what all have",
        "neuralannot compare MSCOCO_train_SMPL_NeuralAnnot.json eft.safetensors --data-set mscoco --data .",
    )
    sub.allow_abbrev = False
    sub.add_argument("file", nargs="+", help="two annotation files or more")
    sub.add_argument("--release", help="of files whose names do not tell")
    sub.add_argument("--annotations", nargs="+", help="COCO-format file(s) (default: beside each file)")
    sub.add_argument("--truth", nargs="+", metavar="FILE", help="true parameters, in the release's layout")
    sub.add_argument("--truth-release", metavar="NAME", help="whose layout --truth has")
    sub.add_argument("--data-set", metavar="NAME", help="the data set's joints: human36m, mscoco, ...")
    sub.add_argument("--data", metavar="DIR", help="with --data-set: folder of its annotation files")
    sub.add_argument("--images", metavar="DIR", help="image folder (default: in the data folder)")
    sub.add_argument("--split", help="of data sets that have several (default: train)")
    sub.add_argument("--regressor", help="joints to compare: a (K, V) .npy or a name such as human36m-17")
    sub.add_argument("--transfer", metavar="DIR", help="SMPL-X against SMPL: official transfer matrices")
    sub.add_argument("--joint-regressor", nargs="+", metavar="SET=FILE", help="for official models")
    add_body_models_argument(sub)
    sub.add_argument("--device", help="where torch computes (default: the CPU)")
    sub.add_argument("--csv", metavar="FILE", help="the table as CSV")
    sub.add_argument("--markdown", metavar="FILE", help="the table as Markdown")
    sub.set_defaults(
        **dict.fromkeys(("meshes", "scans", "unit", "align", "page", "subjects", "views", "cameras")),
        every=1,
        worst=0,
        no_annotations=False,
    )


def _compare(options: argparse.Namespace) -> None:
    from neuralannot.atomic import whole_file
    from neuralannot.train.evaluation.comparison import compare

    _check(options)
    gts: dict[str, PseudoGT] = {}
    for file in options.file:
        name = Path(file).stem if Path(file).stem not in gts else file
        columns = Path(file).suffix == ".safetensors"
        own = {"file": [file], "release": None if _says_release(Path(file)) else options.release}
        own |= {"annotations": None} if columns else {}
        gts[name] = load_named(argparse.Namespace(**{**vars(options), **own}))
    first = next(iter(gts.values()))
    samples = _samples(options, first)
    table = compare(
        gts,
        truth=_truth(options, first, samples),
        samples=samples,
        regressor=options.regressor,
        regressors=_regressors(options.joint_regressor),
        body_models=options.body_models,
        transfer=options.transfer,
        device=options.device,
    )
    sys.stdout.write(f"{table.text()}\n")
    for path, text in ((options.csv, table.csv), (options.markdown, table.markdown)):
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as part:
                part.write_text(text(), encoding="utf-8")
            sys.stdout.write(f"written: {path}\n")


def _says_release(path: Path) -> bool:
    """Whether a file says itself what it is: by its name, as columns that were saved, or in a folder."""
    from neuralannot.catalog import identify

    return identify(path) is not None or path.is_dir() or path.suffix == ".safetensors"


def _evaluate(options: argparse.Namespace) -> None:
    from neuralannot.atomic import whole_file
    from neuralannot.train.evaluation.report import evaluate

    _check(options)
    gt = load_named(options)
    samples = _samples(options, gt)
    evaluation = evaluate(
        gt,
        truth=_truth(options, gt, samples),
        samples=samples,
        meshes=_meshes(options),
        scans=options.scans,
        scan_unit=options.unit or "m",
        scan_align=options.align or "rigid",
        by=options.by,
        regressor=options.regressor,
        regressors=_regressors(options.joint_regressor),
        body_models=options.body_models,
        transfer=options.transfer,
        device=options.device,
        progress=sys.stderr.isatty(),
    )
    sys.stdout.write(f"{evaluation}\n")
    for path, text in ((options.csv, evaluation.csv), (options.markdown, evaluation.markdown)):
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as part:
                part.write_text(text(), encoding="utf-8")
            sys.stdout.write(f"written: {path}\n")
    if options.page is not None:
        _write_page(options, evaluation)
        sys.stdout.write(f"written: {options.page}\n")


def _check(options: argparse.Namespace) -> None:
    """Mistakes that need no file to be found, before minutes of work."""
    if not any((options.truth, options.meshes, options.scans, options.data_set)):
        raise ValueError("nothing to compare with: give --truth, --meshes, --scans or --data-set")
    if (options.data_set is None) != (options.data is None):
        raise ValueError("--data-set NAME and --data DIR go together")
    if options.data_set is None:
        for name in ("split", "subjects", "views", "joint_regressor"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} is for --data-set")
        if options.every != 1:
            raise ValueError("--every is for --data-set")
    if options.truth_release is not None and not options.truth:
        raise ValueError("--truth-release is for --truth")
    if options.unit is not None and not (options.meshes or options.scans):
        raise ValueError("--unit is for --meshes and --scans")
    if options.align is not None and not options.scans:
        raise ValueError("--align is for --scans")
    if options.worst < 0:
        raise ValueError(f"--worst must be from 0, got {options.worst}")
    if options.page is not None and Path(options.page).suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--page: {options.page}: a page is written as .html")


def _truth(options: argparse.Namespace, gt: PseudoGT, samples: Samples | None) -> PseudoGT | None:
    """The true parameters: a file, of the same release where its name says no other; of 3DPW its own."""
    if options.truth:
        known = _says_release(Path(options.truth[0]))
        release = options.truth_release or (None if known else gt.release)
        return load_named(argparse.Namespace(**{**vars(options), "file": options.truth, "release": release}))
    if samples is None or samples.data_set != "3DPW":
        return None
    truth = _pw3d(options, samples)
    return truth if gt.model == truth.model or _is_comparable(options, truth) else None


def _is_comparable(options: argparse.Namespace, truth: PseudoGT) -> bool:
    """Whether SMPL-X can be compared with a truth that nobody asked for; a warning that says why not."""
    from neuralannot.train.evaluation.shared_mesh import shared_mesh

    try:
        shared_mesh(
            truth,
            regressor=options.regressor,
            body_models=options.body_models,
            transfer=options.transfer,
        )
    except (ValueError, FileNotFoundError) as error:
        if options.regressor is not None or options.transfer is not None:
            raise  # it was asked for
        warnings.warn(f"3DPW's true parameters are left out: {error}", stacklevel=2)
        return False
    return True


def _pw3d(options: argparse.Namespace, samples: Samples) -> PseudoGT:
    """3DPW's parameters of the samples' annotations, each of its person's gender, in camera space."""
    from neuralannot.train.data import pw3d_truth
    from neuralannot.train.released import own_release, pseudo_gt_of

    truth = pw3d_truth(options.data, split=options.split or "train", ids=samples.ids)
    camera = samples.camera
    assert camera is not None
    return pseudo_gt_of(
        own_release("smpl"),
        truth.parameters,
        ids=truth.ids,
        gender=truth.gender,
        focal=camera.focal,
        princpt=camera.princpt,
    )


def _samples(options: argparse.Namespace, gt: PseudoGT) -> Samples | None:
    if options.data_set is None:
        return None
    from neuralannot.train.data import read_samples

    return read_samples(
        options.data_set,
        options.data,
        model=gt.model,
        images=options.images,
        split=options.split,
        subjects=options.subjects,
        views=options.views,
        every=options.every,
        body_models=options.body_models,
    )


def _meshes(options: argparse.Namespace) -> Any:
    from neuralannot.train.evaluation.meshes import read_meshes

    return None if options.meshes is None else read_meshes(options.meshes, unit=options.unit)


def _regressors(given: list[str] | None) -> dict[str, str]:
    found = {}
    for text in given or ():
        name, separator, path = text.partition("=")
        if not (separator and name and path):
            raise ValueError(f"--joint-regressor takes SET=FILE, got {text!r}")
        found[name] = path
    return found


def _write_page(options: argparse.Namespace, evaluation: Evaluation) -> None:
    from neuralannot.train.evaluation.page import write_page

    write_page(
        options.page,
        evaluation,
        title=f"Errors of {', '.join(Path(f).name for f in options.file)}",
        notes=[repr(evaluation.gt)[1:-1]],
        worst=options.worst,
        images=options.images,
        body_models=options.body_models,
    )
