"""The arguments that say which files a command reads, and the annotations that they name."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuralannot.pseudo_gt import PseudoGT

__all__ = [
    "add_body_models_argument",
    "add_companion_arguments",
    "add_file_arguments",
    "load_named",
    "named_files",
]


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `file`, `--release`, `--annotations`, `--no-annotations` and `--cameras`."""
    parser.add_argument("file", nargs="+", help="a released file, several subjects of Human3.6M, or a folder")
    add_companion_arguments(parser)


def add_companion_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--release`, `--annotations`, `--no-annotations` and `--cameras`: all but the file."""
    parser.add_argument("--release", help="its name, where the file's name does not tell")
    companions = parser.add_mutually_exclusive_group()
    companions.add_argument("--annotations", nargs="+", help="COCO-format file(s) (default: beside the file)")
    companions.add_argument("--no-annotations", action="store_true", help="rows are the bare fits")
    parser.add_argument("--cameras", nargs="+", help="camera file(s) (default: beside the file)")


def add_body_models_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--body-models`."""
    parser.add_argument(
        "--body-models",
        metavar="DIR",
        help="official files (default: NEURALANNOT_BODY_MODELS, or the open body)",
    )


def named_files(options: argparse.Namespace) -> str | list[str]:
    """`file` as the library takes it: one path, or several."""
    named: str | list[str] = options.file if len(options.file) > 1 else options.file[0]
    return named


def load_named(options: argparse.Namespace) -> PseudoGT:
    """What the options of `add_file_arguments` name."""
    from neuralannot.loading import load_pseudo_gt

    return load_pseudo_gt(
        named_files(options),
        release=options.release,
        annotations=False if options.no_annotations else options.annotations,
        cameras=options.cameras,
    )
