"""The command `neuralannot`: arguments in, the library's functions called, one line for a user's mistake."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from neuralannot.catalog import RELEASES
from neuralannot.conversion import commands as conversion_commands
from neuralannot.downloads import commands as download_commands
from neuralannot.downloads.sources import source_of
from neuralannot.file_arguments import add_body_models_argument, add_file_arguments, load_named
from neuralannot.formats import commands as format_commands
from neuralannot.lookup import key_of_text
from neuralannot.quality import commands as quality_commands
from neuralannot.report import commands as report_commands
from neuralannot.synthetic import commands as synthetic_commands
from neuralannot.train import commands as train_commands
from neuralannot.train.evaluation import commands as evaluation_commands
from neuralannot.viewer import commands as viewer_commands


class _Parser(argparse.ArgumentParser):
    """Mistakes in arguments take one line, and exit status 2."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message} (see {self.prog} --help)\n")
        raise SystemExit(2)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse unknown options here, where the known ones are, rather than at the top."""
        known, extra = super().parse_known_args(args, namespace)
        strange = next((text for text in extra if text.startswith("-")), None)
        if strange is not None:
            near = difflib.get_close_matches(strange.split("=")[0], self._option_string_actions, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.error(f"unrecognized arguments: {' '.join(extra)}{hint}")
        return known, extra


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status: 0, or 2 for a user's mistake."""
    options = _parser().parse_args(arguments)
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        options.run(options)
        sys.stdout.flush()  # a pipe that was closed shows here, not when Python ends
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough; what is left must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, KeyError, TypeError, OSError) as error:
        # These say what is wrong with the input; anything else is a bug, and shows its traceback.
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        sys.stderr.write(f"neuralannot: {text}\n")
        return 2
    return 0


def _show_warning(message: Warning | str, *_: object) -> None:
    sys.stderr.write(f"neuralannot: note: {message}\n")


def _print(line: str = "") -> None:
    sys.stdout.write(line + "\n")


# --- commands


def _demo(options: argparse.Namespace) -> None:
    from neuralannot.demo import FILES, run_demo

    for line in run_demo(options.out):
        _print(line)
    _print(f"written to {Path(options.out).resolve()}:")
    for name in FILES:
        _print(f"  {name}")


def _releases(options: argparse.Namespace) -> None:
    wanted = (options.data_set or "").lower()
    chosen = [r for r in RELEASES.values() if wanted in r.data_set.lower() or wanted in r.name]
    if not chosen:
        names = dict.fromkeys(r.data_set for r in RELEASES.values())
        raise ValueError(
            f"no release of a data set called {options.data_set!r}; there are {', '.join(names)}"
        )
    for release in chosen:
        _print(f"{release.name}  ({release.data_set}, {release.model.upper()}, {release.space} space)")
        _print(f"    file         {_shown(release.files)}")
        _print(f"    annotations  {' or '.join(map(_shown, release.annotations))}")
        if release.cameras:
            _print(f"    cameras      {_shown(release.cameras)}")
        if release.joints:
            _print(f"    3D joints    {_shown(release.joints)}")
        for number, link in enumerate(source_of(release).links):
            _print(f"    {'link' if number == 0 else 'older link':<12} {link}")
        _print(f"    page         {release.page}")
        _print(f"    licence      {release.licence}")


def _shown(template: str) -> str:
    for name, text in (("{three}", "ThreeRecipes"), ("{two}", "TwoRecipes")):
        template = template.replace(name, text)
    return template


def _info(options: argparse.Namespace) -> None:
    from neuralannot.summary import summarize

    _print(summarize(load_named(options)))


def _export(options: argparse.Namespace) -> None:
    from neuralannot.exports import export_joints, export_meshes

    if options.regressor and options.to != "npz":
        raise ValueError(f"--regressor is for --to npz; a {options.to} holds the mesh")
    format_commands.check_format_options(options)
    gt = _chosen(load_named(options), options.ids)
    progress = sys.stderr.isatty()
    out = Path(options.out)
    if options.to in format_commands.FORMATS:
        written = format_commands.export_format(gt, options)
        _print(f"{len(gt)} rows: " + (", ".join(map(str, written)) or "nothing to write"))
        return
    if options.to == "npz":
        path = out if out.suffix == ".npz" else out / "joints.npz"
        written = [
            export_joints(
                gt,
                path,
                body_models=options.body_models,
                space=options.space,
                regressor=options.regressor,
                progress=progress,
            )
        ]
    else:
        written = export_meshes(
            gt,
            out,
            suffix=options.to,
            body_models=options.body_models,
            space=options.space,
            progress=progress,
        )
    _print(f"{len(gt)} bodies: {written[0]}" + (f" … {written[-1].name}" if len(written) > 1 else ""))


def _render(options: argparse.Namespace) -> None:
    from neuralannot.images import read_image, write_image
    from neuralannot.lookup import rows_of_image

    gt = load_named(options)
    gt = _chosen(gt, options.ids) if options.ids else gt.rows(rows_of_image(gt.image_path, options.image))
    image = read_image(options.image)
    picture = gt.forward(body_models=options.body_models).overlay(image, opacity=options.opacity)
    write_image(options.out, picture)
    _print(f"{len(gt)} bodies on {options.image}: {options.out}")


def _models_check(options: argparse.Namespace) -> None:
    from neuralannot.body_models.files import check_models

    found = check_models(options.folder)
    for status in found:
        good = status.problem is None and status.path is not None
        state = (
            str(status.path) if good else f"{status.problem or 'missing'}; register at {status.register_at}"
        )
        _print(f"{'ok ' if good else '-- '} {status.model:<6}{status.part:<18}{state}")
    there = sum(s.problem is None and s.path is not None for s in found)
    _print(f"{there} of {len(found)} files are there")


def _models_convert(options: argparse.Namespace) -> None:
    from neuralannot.body_models.files import convert_model

    _print(f"written: {convert_model(options.file, options.out, model=options.model)}")


# --- arguments


def _chosen(gt, ids: list[str] | None):  # type: ignore[no-untyped-def]
    return gt.rows(gt.rows_of([_key(text) for text in ids])) if ids else gt


def _key(text: str) -> int | tuple[int | str, ...]:
    try:
        return key_of_text(text)
    except ValueError as error:
        raise ValueError(f"--ids: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="neuralannot",
        description="NeuralAnnot's pseudo ground truth: read, pose, project, draw, export.",
        epilog="example: neuralannot info MSCOCO_train_SMPL_NeuralAnnot.json",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: object, text: str, example: str, of: argparse._SubParsersAction[_Parser] = commands
    ) -> _Parser:
        shown = f"example: {example}"
        sub = of.add_parser(name, help=text, description=text, epilog=shown)
        sub.set_defaults(run=run)
        return sub

    demo = command("demo", _demo, "run the main job on what ships", "neuralannot demo --out demo_out")
    demo.add_argument("--out", default="demo_out", help="folder to write to (default: %(default)s)")

    releases = command(
        "releases", _releases, "what exists: files, companions, page, licence", "neuralannot releases mscoco"
    )
    releases.add_argument("data_set", nargs="?", help="only data sets whose name holds this")

    info = command(
        "info",
        _info,
        "what a file is: counts, coverage, ranges, missing",
        "neuralannot info MSCOCO_train_SMPL_NeuralAnnot.json",
    )
    add_file_arguments(info)

    export = command(
        "export",
        _export,
        "write meshes, joints and parameters, or a format of other people's code",
        "neuralannot export MSCOCO_train_SMPL_NeuralAnnot.json --ids 476384 --to obj --out meshes",
    )
    add_file_arguments(export)
    _body_arguments(export)
    export.add_argument(
        "--to",
        choices=("obj", "ply", "glb", "npz", *format_commands.FORMATS),
        required=True,
        help="what to write",
    )
    export.add_argument("--out", required=True, help="folder (made if it is not there), or the file")
    export.add_argument("--space", choices=("camera", "world"), default="camera", help="default: %(default)s")
    export.add_argument("--regressor", help="for npz: a (K, V) .npy, or a name such as human36m-17")
    format_commands.add_format_arguments(export)

    render = command(
        "render",
        _render,
        "draw the bodies over their image",
        "neuralannot render MSCOCO_train_SMPL_NeuralAnnot.json --image 000000000785.jpg --out overlay.png",
    )
    add_file_arguments(render)
    _body_arguments(render)
    render.add_argument("--image", required=True, help="the original image")
    render.add_argument("--out", required=True, help="picture to write (.png, .jpg)")
    render.add_argument("--opacity", type=float, default=0.85, help="0 to 1 (default: %(default)s)")

    def group(name: str, text: str, example: str) -> argparse._SubParsersAction[_Parser]:
        sub = commands.add_parser(name, help=text, description=text, epilog=f"example: {example}")
        return sub.add_subparsers(metavar="COMMAND", required=True)

    download_commands.add_commands(command)
    conversion_commands.add_commands(command)
    format_commands.add_commands(command)
    train_commands.add_commands(command, group)
    evaluation_commands.add_commands(command)
    synthetic_commands.add_commands(command)
    quality_commands.add_commands(command)
    report_commands.add_commands(command)
    viewer_commands.add_commands(command)

    of = group("models", "body model files: check, convert", "neuralannot models check human_model_files")
    check = command(
        "check",
        _models_check,
        "what is there, what is missing, where to register",
        "neuralannot models check human_model_files",
        of,
    )
    check.add_argument("folder")
    convert = command(
        "convert",
        _models_convert,
        "write a model file as a plain .npz",
        "neuralannot models convert SMPL_NEUTRAL.pkl SMPL_NEUTRAL.npz",
        of,
    )
    convert.add_argument("file")
    convert.add_argument("out")
    convert.add_argument(
        "--model", choices=("smpl", "smplx", "mano", "flame"), help="default: by what is in the file"
    )
    return parser


def _body_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ids", nargs="+", metavar="ID", help="annotation ids or frame keys (default: all)")
    add_body_models_argument(parser)


if __name__ == "__main__":
    sys.exit(main())
