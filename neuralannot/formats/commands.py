"""What `export` writes for other people's code, and the command `import` that reads their fits."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuralannot.file_arguments import add_body_models_argument

if TYPE_CHECKING:
    from neuralannot.pseudo_gt import PseudoGT

__all__ = ["FORMATS", "add_commands", "add_format_arguments", "check_format_options", "export_format"]

#: What `--to` takes beside meshes and joints, and the options that each has.
FORMATS: Mapping[str, tuple[str, ...]] = {
    "hmr": ("box_scale", "drop_incomplete"),
    "hmr2": ("box_scale", "drop_incomplete"),
    "humandata": ("drop_incomplete",),
    "bedlam": ("box_scale", "leave_out", "drop_incomplete"),
    "amass": ("fps", "shape", "leave_out"),
    "coco": ("drop_incomplete",),
    "webdataset": ("space", "images", "max_mb", "drop_incomplete"),
    "parquet": ("space",),
}
_OPTIONS = ("box_scale", "drop_incomplete", "leave_out", "fps", "shape", "images", "max_mb")


def add_format_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `FORMATS`."""
    group = parser.add_argument_group("formats of other code (docs/formats.md)")
    group.add_argument("--box-scale", type=float, help="hmr, hmr2, bedlam: boxes times this (default: 1.2)")
    group.add_argument(
        "--drop-incomplete",
        action="store_true",
        default=None,
        help="leave out rows that the format cannot hold",
    )
    group.add_argument(
        "--leave-out", nargs="+", metavar="PART", help="bedlam, amass: expression; amass: hand-joints of SMPL"
    )
    group.add_argument("--fps", type=float, help="amass: frames a second of the recording (Human3.6M: 50)")
    group.add_argument("--shape", choices=("same", "mean"), help="amass: one shape a file (default: same)")
    group.add_argument("--images", metavar="DIR", help="webdataset: put the images of this folder in")
    group.add_argument("--max-mb", type=float, help="webdataset: size of a shard in MB (default: 256)")


def check_format_options(options: argparse.Namespace) -> None:
    """Raise ValueError for an option that `--to` does not have."""
    mine = FORMATS.get(options.to, ())
    for name in _OPTIONS:
        if getattr(options, name) is not None and name not in mine:
            owners = ", ".join(to for to, names in FORMATS.items() if name in names)
            raise ValueError(f"--{name.replace('_', '-')} is for --to {owners}; not for {options.to}")
    if options.to in FORMATS and options.space == "world" and "space" not in mine and options.to != "amass":
        raise ValueError(f"--space world: {options.to} holds camera space; use --to parquet or webdataset")


def export_format(gt: PseudoGT, options: argparse.Namespace) -> list[Path]:
    """Write `gt` as `options.to`; the paths of what was written."""
    from neuralannot import formats

    given: dict[str, Any] = {"body_models": options.body_models}
    for name in FORMATS[options.to]:
        value = getattr(options, name)
        if value is not None and name != "max_mb":
            given[name] = value
    if options.to == "webdataset":
        if options.max_mb is not None:
            given["max_bytes"] = int(1e6 * options.max_mb)
        return formats.write_shards(gt, options.out, progress=sys.stderr.isatty(), **given)
    if options.to == "amass":
        return formats.write_amass(gt, options.out, **given)
    write: Callable[..., Path] = getattr(formats, f"write_{options.to}")
    try:
        return [write(gt, options.out, **given)]
    except ImportError as error:  # an extra that is not installed is the user's to mend
        raise ValueError(str(error)) from None


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `import` to the program's commands; `command` makes one."""
    sub = command(
        "import",
        _import,
        "read EFT's or SPIN's fits, write them in a release's layout",
        "neuralannot import COCO2014-All-ver01.json --from eft --out eft.safetensors",
    )
    sub.allow_abbrev = False
    sub.add_argument("file", help="EFT's .json; SPIN's .npz or .npy")
    sub.add_argument("--from", dest="source", choices=("eft", "spin"), required=True, help="whose fits")
    sub.add_argument("--out", required=True, help="file to write (.json or .safetensors)")
    sub.add_argument(
        "--annotations", metavar="FILE", help="COCO-format file: finds annotation ids by image and box"
    )
    sub.add_argument("--release", default="mscoco-smpl", help="whose layout and ids (default: %(default)s)")
    sub.add_argument("--within", type=float, help="how far box centres may be apart, in boxes' sides")
    sub.add_argument(
        "--images-file", metavar="NPZ", help="spin: its training file in whose order the fits are"
    )
    sub.add_argument("--all-fits", action="store_true", help="spin: those flagged as bad too")
    add_body_models_argument(sub)


def _import(options: argparse.Namespace) -> None:
    from neuralannot.formats import read_eft, read_spin

    if Path(options.out).suffix not in (".json", ".safetensors"):
        raise ValueError(f"--out {options.out}: give a .json or .safetensors name")
    given: dict[str, Any] = {"annotations": options.annotations, "release": options.release}
    if options.within is not None:
        given["within"] = options.within
    if options.source == "eft":
        if options.images_file is not None or options.all_fits:
            raise ValueError("--images-file and --all-fits are for --from spin")
        gt = read_eft(options.file, **given)
    else:
        gt = read_spin(
            options.file,
            images=options.images_file,
            all_fits=options.all_fits,
            body_models=options.body_models,
            **given,
        )
    gt.save(options.out)
    sys.stdout.write(f"{len(gt)} fits of {options.source} as {gt.release}: {options.out}\n")
