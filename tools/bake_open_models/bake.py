"""The whole bake, into a new folder that replaces the old one only when nothing is broken."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools.bake_open_models.invariants import broken
from tools.bake_open_models.manifest import MANIFEST, broken_manifest, make_manifest, write_manifest
from tools.bake_open_models.models import build_models
from tools.bake_open_models.packing import (
    CORRESPONDENCE,
    FILES,
    REGRESSORS,
    pack_models,
    read_models,
    read_npz,
    write_npz,
)
from tools.bake_open_models.regressors import broken_regressors, fit_regressors
from tools.bake_open_models.source import read_source
from tools.bake_open_models.topology import make_topology
from tools.bake_open_models.vertices import make_layouts
from tools.bake_open_models.wheel import Wheel

BAKED = (*FILES.values(), CORRESPONDENCE, REGRESSORS)


class BrokenBakeError(ValueError):
    """Files that break what they promise, or that could not be put in place; nothing was replaced."""


def bake(wheel: Wheel, out: Path, *, say: Callable[[str], None] = lambda _: None) -> dict[str, object]:
    """Bake all files into `out` and give the manifest; files there are replaced, but only by good ones.

    `say` is told of each step. Raises BrokenBakeError that names what does not hold.
    """
    out.mkdir(parents=True, exist_ok=True)
    # Inside `out`, so that files of both lie on one file system and are renamed, not copied.
    with tempfile.TemporaryDirectory(dir=out, prefix=".bake-") as place:
        new = Path(place)
        bake_models(wheel, new, say=say)
        say("fitting joint sets")
        regressors, errors = fit_regressors(new)
        write_npz(new / REGRESSORS, regressors)
        for key, apart in errors.items():
            mean_mm, most_mm = apart[:, 0].mean() * 1000, apart[:, 1].max() * 1000
            say(f"    {key}: {mean_mm:.1f} mm in the mean, {most_mm:.1f} at most")
        manifest = make_manifest(new, wheel.requirement, wheel.sha256, wheel.members)
        write_manifest(new, manifest)
        check_and_replace(new, out, say=say)
    return manifest


def bake_models(wheel: Wheel, folder: Path, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Write the model files and `correspondence.npz`, unchecked."""
    say(f"reading {wheel.requirement}")
    source = read_source(wheel)
    say("decimating")
    topology = make_topology(source)
    layouts = make_layouts(source, topology)
    models = {}
    for kind, gender, arrays in build_models(source, topology, layouts):
        say(f"made {FILES[kind, gender]}")
        models[kind, gender] = arrays
    for name, arrays in pack_models(models, layouts.subsets).items():
        write_npz(folder / FILES[name], arrays)
    write_npz(folder / CORRESPONDENCE, layouts.subsets)


def check_and_replace(new: Path, out: Path, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Put the files of `new` in the place of those of `out` if they keep what they promise.

    Raises BrokenBakeError, and leaves `out` as it is, if they do not, or if one cannot be put in place.
    """
    problems = check(new)
    if problems:
        listed = "\n".join(f"    {problem}" for problem in problems)
        raise BrokenBakeError(
            f"the bake breaks {len(problems)} invariants, {out} is left as it was:\n{listed}"
        )
    say(f"all invariants hold; replacing files in {out}")
    _replace(new, out)


def _replace(new: Path, out: Path) -> None:
    """All of the files, or none: those that were there are kept aside until the last one is in place.

    The manifest goes first and comes last. So where all is broken off halfway, `check` says that the files
    are not of one bake; what was there lies in `.before-*`.
    """
    aside = Path(tempfile.mkdtemp(dir=out, prefix=".before-"))
    there = [file for file in (MANIFEST, *BAKED) if (out / file).exists()]
    try:
        for file in there:
            _move(out / file, aside / file)
        for file in (*BAKED, MANIFEST):
            _move(new / file, out / file)
    except BaseException as error:
        for file in (*BAKED, MANIFEST):
            if (aside / file).exists():
                _move(aside / file, out / file)
            elif file not in there:
                (out / file).unlink(missing_ok=True)
        shutil.rmtree(aside)
        if isinstance(error, OSError):
            raise BrokenBakeError(
                f"the files could not be put in place, {out} is left as it was: {error}"
            ) from error
        raise
    shutil.rmtree(aside)


def _move(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    os.replace(file, to)


def check(folder: Path) -> list[str]:
    """What does not hold of the files in a folder."""
    missing = [file for file in (*BAKED, MANIFEST) if not (folder / file).is_file()]
    if missing:
        return [f"{file} is missing" for file in missing]
    # Files that are not those of the manifest may be of two bakes, or no npz at all: they are not looked at.
    problems = broken_manifest(folder, BAKED)
    if problems:
        return problems
    problems = broken(read_models(folder), read_npz(folder / CORRESPONDENCE))
    return problems + [f"{REGRESSORS}: {p}" for p in broken_regressors(read_npz(folder / REGRESSORS))]
