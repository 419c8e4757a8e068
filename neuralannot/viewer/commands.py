"""The command `view`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from neuralannot.file_arguments import add_body_models_argument, add_companion_arguments, load_named
from neuralannot.viewer.wish import VIEWS


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `view` to the program's commands; `command` makes one."""
    sub = command(
        "view",
        _view,
        "look at annotations in a browser: 3D bodies, images, cameras, errors, two files beside each other",
        "neuralannot view MSCOCO_train_SMPL_NeuralAnnot.json --images coco",
    )
    sub.add_argument("file", nargs=1, help="a released file, or a folder of one release")
    sub.add_argument("other", nargs="?", help="another file, shown beside it: your own, say")
    add_companion_arguments(sub)
    add_body_models_argument(sub)
    sub.add_argument("--other-release", metavar="NAME", help="of OTHER, where its file's name does not tell")
    sub.add_argument("--images", metavar="DIR", help="image folder (default: no images)")
    sub.add_argument("--id", metavar="ID", help="begin with it: 476384, 476384/right, or a frame key 1/2/1/0")
    sub.add_argument("--from", dest="view", choices=VIEWS, default="camera", help="default: %(default)s")
    sub.add_argument("--columns", metavar="FILE", help="quality columns of `neuralannot quality --columns`")
    sub.add_argument("--port", type=int, default=0, help="default: one that is free")
    sub.add_argument(
        "--host", default="127.0.0.1", help="who may look (default: %(default)s, this machine alone)"
    )


def _view(options: argparse.Namespace) -> None:
    from neuralannot.loading import load_pseudo_gt
    from neuralannot.quality_columns import load_quality
    from neuralannot.viewer.server import require_viser

    # Mistakes that need no file to be found, before minutes of reading.
    try:
        require_viser()
    except ImportError as error:
        raise ValueError(str(error)) from None
    if options.images is not None and not Path(options.images).is_dir():
        raise FileNotFoundError(f"--images: {options.images}: no such folder")
    from neuralannot.viewer.viewer import Viewer

    gt = load_named(options)
    if options.columns is not None:
        gt = load_quality(gt, options.columns)
    other = None
    if options.other is not None:
        other = load_pseudo_gt(
            options.other,
            release=options.other_release,
            annotations=False if options.no_annotations else options.annotations,
            cameras=options.cameras,
        )
    from neuralannot.viewer.listing import Listing

    row = 0 if options.id is None else Listing(gt).find(options.id)
    viewer = Viewer(
        gt,
        other,
        images=options.images,
        names=_names(options.file[0], options.other),
        body_models=options.body_models,
        host=options.host,
        port=options.port,
        row=row,
        view=options.view,
    )
    with viewer:
        sys.stdout.write(f"{gt!r}\nopen {viewer.url} in a browser; Ctrl-C ends it\n")
        sys.stdout.flush()
        viewer.wait()


def _names(file: str, other: str | None) -> tuple[str, str]:
    """What the files are called on the page: their names, with folders where those are the same."""
    first, second = Path(file).resolve(), Path(other or file).resolve()
    if other is None or first.name != second.name:
        return first.name, second.name
    return tuple(f"{path.parent.name}/{path.name}" for path in (first, second))  # type: ignore[return-value]
