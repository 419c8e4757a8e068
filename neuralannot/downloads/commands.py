"""The command `download`: the terms shown and asked for, files fetched, companions named."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from neuralannot.catalog import release_named
from neuralannot.downloads.licences import LicenceNotAccepted, licence_text
from neuralannot.downloads.sources import Companion, companions_of, file_names, source_of

__all__ = ["add_commands"]


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `download` to the program's commands; `command` makes one."""
    download = command(
        "download",
        _download,
        "get a release's files: resumed, checked, recorded; says what to do where a link is dead",
        "neuralannot download mscoco-smpl --to data/MSCOCO",
    )
    download.add_argument("release", help="its name, as `neuralannot releases` prints it")
    download.add_argument("--to", metavar="DIR", required=True, help="folder (made if it is not there)")
    download.add_argument(
        "--only", nargs="+", metavar="PART", help="subjects (1 5 11) or splits (train), of several files"
    )
    download.add_argument(
        "--accept-licence", action="store_true", help="you accept the terms; without it they are asked for"
    )
    download.add_argument("--again", action="store_true", help="fetch anew what is there")
    download.add_argument(
        "--mirror",
        metavar="URL",
        help="https address where the files stand by their names (default: the authors')",
    )
    download.add_argument(
        "--show", action="store_true", help="print terms, links and companions; fetch nothing"
    )
    download.add_argument(
        "--loopback", action="store_true", help=argparse.SUPPRESS
    )  # tests: http to this machine


def _download(options: argparse.Namespace) -> None:
    from neuralannot.downloads.getting import download, is_accepted

    release = release_named(options.release)
    names = file_names(release, options.only)
    _print(licence_text(release))
    _print()
    if options.show:
        for name in names:
            _print(f"{name}: {'there' if (Path(options.to) / name).is_file() else 'not there'}")
        for link in source_of(release).links:
            _print(f"    {link}")
        _print(f"    {release.page}")
        _say_needed(companions_of(release, names), "needed beside")
        return
    if not (options.accept_licence or is_accepted(release, options.to)):
        _ask()
    done = download(
        release,
        options.to,
        accept_licence=True,
        only=options.only,
        mirror=options.mirror,
        again=options.again,
        loopback=options.loopback,
        progress=sys.stderr.isatty(),
        say=_say,
    )
    for text, paths in (
        ("downloaded", done.fetched),
        ("there, and as it was recorded", done.verified),
        ("there, checked and recorded", done.adopted),
    ):
        for path in paths:
            _print(f"{path}: {text}, {path.stat().st_size:,} bytes")
    _say_needed(done.absent, "still needed beside")


def _ask() -> None:
    if not sys.stdin.isatty():
        raise LicenceNotAccepted(
            "the terms above are not accepted, and there is no terminal to ask at; nothing was fetched. "
            "Run again with --accept-licence"
        )
    sys.stdout.write("Do you accept these terms? Type yes: ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("yes", "y"):
        raise LicenceNotAccepted("the terms were not accepted; nothing was fetched")


def _say_needed(companions: tuple[Companion, ...], title: str) -> None:
    for number, companion in enumerate(companions):
        if number == 0:
            _print(f"{title}:")
        _print(f"    {companion.kind:<12} {' or '.join(companion.names) or '(the original ones)'}")
        for place in companion.where:
            _print(f"{'':17}{place}")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _print(line: str = "") -> None:
    sys.stdout.write(line + "\n")
