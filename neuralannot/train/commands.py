"""The commands of training: `train`, `annotate` and `merge-whole-body`."""

from __future__ import annotations

import argparse
import os
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from neuralannot.train.config import ANNOTATING, PRESETS, TrainConfig, config_with, field_types
from neuralannot.train.method_options import (
    CAMERAS,
    JOINTS,
    METHODS,
    SETTINGS,
    EftOptions,
    MethodOptions,
    RefineOptions,
    SmplifyOptions,
)

Command = Callable[..., argparse.ArgumentParser]


def add_commands(command: Command, new_group: Callable[..., Any]) -> None:
    """Add the commands to the program's: `command` makes one, `new_group` one that has its own commands."""
    group = new_group(
        "train",
        "train an annotator, look at its data",
        "neuralannot train check human36m --data human36m --model smpl --out human36m.jpg",
    )
    fit = command(
        "fit",
        _fit,
        "train an annotator on a data set",
        "neuralannot train fit human36m-smpl --data human36m --images human36m/images --out runs/human36m",
        group,
    )
    fit.add_argument("preset", choices=PRESETS, metavar="PRESET", help=", ".join(PRESETS))
    fit.add_argument("--out", required=True, help="folder of checkpoint, log and crops; a run goes on there")
    _field_arguments(fit, [f.name for f in fields(TrainConfig)])
    check = command(
        "check",
        _check,
        "read a data set, draw its crops and joints, count what is unusable and why",
        "neuralannot train check human36m --data human36m --model smpl --out human36m.jpg",
        group,
    )
    check.add_argument("data_set", help="human36m, mscoco, coco-format, ... (an unknown name lists them)")
    check.add_argument("--data", required=True, help="folder with the annotation files")
    check.add_argument("--images", help="image folder (default: in the data folder)")
    check.add_argument("--annotations", metavar="FILE", help="annotation file, where it has another name")
    check.add_argument("--model", required=True, choices=("smpl", "smplx", "mano", "flame"))
    check.add_argument("--split", help="of data sets that have several (default: train)")
    check.add_argument("--subjects", nargs="+", type=int, metavar="N", help="MoCap: only these subjects")
    check.add_argument("--views", nargs="+", type=int, metavar="N", help="MoCap: only these camera numbers")
    check.add_argument("--every", type=int, default=1, help="MoCap: every how many-th frame (default: all)")
    check.add_argument(
        "--min-joints", type=int, default=1, help="leave out samples with fewer valid joints (default: 1)"
    )
    check.add_argument("--joint-set", help="your own data: its joint set, where the file does not say")
    check.add_argument("--name", help="your own data: what to call it")
    check.add_argument(
        "--body-models", metavar="DIR", help="official files (3DPW's joints are posed by them)"
    )
    check.add_argument("--count", type=int, default=48, help="crops on the sheet (default: %(default)s)")
    check.add_argument("--out", required=True, help="picture to write (.jpg, .png)")

    annotate = command(
        "annotate",
        _annotate,
        "annotate a data set with a trained annotator",
        "neuralannot annotate runs/human36m/checkpoint.pt --out annotations",
    )
    annotate.add_argument("checkpoint", help="of a run; for fitted and smplify a preset's name will do")
    annotate.add_argument("--out", required=True, help="folder for the annotation files")
    annotate.add_argument(
        "--views", choices=("best", "fuse"), default="best", help="frames seen by several cameras"
    )
    _method_arguments(annotate)
    _field_arguments(annotate, ANNOTATING)

    merge = command(
        "merge-whole-body",
        _merge,
        "SMPL-X bodies, MANO hands and FLAME faces of the same annotations as one SMPL-X file",
        "neuralannot merge-whole-body --body body.json --hands hands.json --face face.json --out all.json",
    )
    merge.add_argument("--body", required=True, help="SMPL-X annotations")
    merge.add_argument("--hands", help="MANO annotations of the same ids")
    merge.add_argument("--face", help="FLAME annotations of the same ids")
    merge.add_argument("--out", required=True, help="file to write (.json)")


def _method_arguments(annotate: argparse.ArgumentParser) -> None:
    listed = "; ".join(f"{name}: {text}" for name, text in METHODS.items())
    annotate.add_argument("--method", choices=METHODS, default="refined", help=f"{listed} (default: refined)")
    of = annotate.add_argument_group("refined and fitted")
    of.add_argument(
        "--noise", type=float, help="of the joints: m in 3D, px of 256 px crops (default: measured)"
    )
    of.add_argument(
        "--near", type=float, help="refined: radians by which the network's rotations are off (default: any)"
    )
    of.add_argument(
        "--smooth", type=float, help="radians that rotations stray from consecutive frames' (0.1, say)"
    )
    of.add_argument("--own-shapes", action="store_true", help="every frame a shape of its own")
    of.add_argument("--no-adapt", action="store_true", help="the pose prior as it ships, not the data set's")
    of = annotate.add_argument_group("refined, fitted and smplify, in pictures")
    listed = "; ".join(f"{name}: {text}" for name, text in CAMERAS.items())
    of.add_argument("--camera", choices=CAMERAS, help=f"{listed} (default: image; of smplify crop)")
    of.add_argument("--focal", type=float, help="of the image's camera, px (default: the image's diagonal)")
    of = annotate.add_argument_group("smplify and spin")
    of.add_argument("--setting", choices=SETTINGS, default="published", help="(default: published)")
    of.add_argument("--joints-are", choices=JOINTS, default="clean", help="of tuned (default: clean)")
    of.add_argument("--latents", default="", metavar="PRIOR", help="in pictures: as --prior of train fit")
    of = annotate.add_argument_group("eft")
    of.add_argument("--eft-steps", type=int, default=20, help="steps on a sample (default: %(default)s)")
    of.add_argument("--eft-lr", type=float, default=5e-6, help="their rate (default: %(default)s)")


def _field_arguments(parser: argparse.ArgumentParser, names: typing.Iterable[str]) -> None:
    """An option for each field of `TrainConfig`; what is not given stays as the preset has it."""
    parser.allow_abbrev = False  # a misspelt field must not become another
    kinds = field_types()
    known = {f.name: f for f in fields(TrainConfig)}
    for name in names:
        option, kind = f"--{name.replace('_', '-')}", kinds[name]
        text = _help(known[name].metadata["help"], known[name].default)
        if kind is bool:
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif isinstance(kind, types.GenericAlias):
            parser.add_argument(option, nargs="+", type=typing.get_args(kind)[0], help=text)
        else:
            parser.add_argument(option, type=kind, help=text)


def _help(text: str, default: Any) -> str:
    """The field's line, with what it is where no preset says otherwise."""
    if default in ("", ()) or "default" in text:
        return text
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default).lower()
    return f"{text} (default: {shown}, unless the preset says otherwise)"


def _changes(options: argparse.Namespace) -> dict[str, Any]:
    return {n: v for n, v in vars(options).items() if n in field_types() and v is not None}


def _print(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        sys.stdout.write(line + "\n")


def _fit(options: argparse.Namespace) -> None:
    from neuralannot.train.distributed import leave_world
    from neuralannot.train.fit import fit

    try:
        result = fit(config_with(PRESETS[options.preset], _changes(options)), options.out, progress=True)
    finally:
        leave_world()
    losses = ", ".join(f"{name} {value:.4g}" for name, value in result.losses.items())
    _print(f"{result.steps} steps{', converged' if result.converged else ''}: {losses}")
    _print(f"{result.checkpoint}")


def _check(options: argparse.Namespace) -> None:
    from neuralannot.train.check import check_samples
    from neuralannot.train.data import read_samples

    samples = read_samples(
        options.data_set,
        options.data,
        model=options.model,
        images=options.images,
        annotations=options.annotations,
        split=options.split,
        subjects=options.subjects,
        views=options.views,
        every=options.every,
        min_joints=options.min_joints,
        joint_set=options.joint_set,
        name=options.name,
        body_models=options.body_models,
    )
    _print(str(check_samples(samples, options.out, count=options.count, progress=sys.stderr.isatty())))
    _print(f"{options.out}")


def _annotate(options: argparse.Namespace) -> None:
    from neuralannot.train.annotate import annotate
    from neuralannot.train.distributed import leave_world

    shared = not options.own_shapes
    given = {name: getattr(options, name) for name in ("camera", "focal")}
    taken = {name: value for name, value in given.items() if value is not None}
    if taken and options.method in ("network", "eft"):  # `image` is what least squares have by default
        raise ValueError(
            f"the method {options.method} sees pictures through the release's camera of the crop; "
            f"leave --{next(iter(taken))} out"
        )
    optimises = options.method in ("smplify", "spin")
    chosen = MethodOptions(
        refine=RefineOptions(
            options.noise,
            shared,
            options.near,
            options.smooth,
            not options.no_adapt,
            **({} if optimises else taken),
        ),
        smplify=SmplifyOptions(
            options.setting, options.joints_are, options.latents, **(taken if optimises else {})
        ),
        eft=EftOptions(steps=options.eft_steps, lr=options.eft_lr),
    )
    try:
        result = annotate(
            options.checkpoint,
            options.out,
            method=options.method,
            options=chosen,
            views=options.views,
            progress=True,
            **_changes(options),
        )
    finally:
        leave_world()
    for reason, count in result.unusable.items():
        _print(f"without a fit: {count} ({reason})")
    if result.unusable:
        _print(f"listed in {result.listed}")
    error = f"{1000 * result.error:.1f} mm" if result.is_mocap else f"{result.error:.2f} px of 256 px crops"
    _print(f"{result.count} fits of {result.samples} samples, joint error {error}:")
    for path in result.files:
        _print(f"{path}")


def _merge(options: argparse.Namespace) -> None:
    from neuralannot.loading import load_pseudo_gt
    from neuralannot.train.whole_body import merge_whole_body

    def load(path: str | None, release: str) -> Any:
        return None if path is None else load_pseudo_gt(path, release=release, annotations=False)

    merged = merge_whole_body(
        load(options.body, "mscoco-smplx"),
        load(options.hands, "mscoco-mano"),
        load(options.face, "mscoco-flame"),
    )
    merged.save(options.out)
    _print(f"{merged}: {options.out}")
