"""The whole bake, into a new folder that replaces the old one only when nothing is broken."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools.bake_open_models.invariants import broken
from tools.bake_open_models.manifest import MANIFEST, make_manifest, write_manifest
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


class BrokenBakeError(ValueError):
    """Files that break what they promise; nothing was replaced."""


def bake(wheel: Wheel, out: Path, *, say: Callable[[str], None] = lambda _: None) -> dict[str, object]:
    """Bake all files into `out` and give the manifest; files there are replaced, but only by good ones.

    `say` is told of each step. Raises BrokenBakeError that names what does not hold.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.resolve().parent, prefix=".bake-") as place:
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
    """Move the files of `new` over those of `out` if they keep what they promise.

    Raises BrokenBakeError, and leaves `out` as it is, if they do not.
    """
    problems = check(new)
    if problems:
        listed = "\n".join(f"    {problem}" for problem in problems)
        raise BrokenBakeError(
            f"the bake breaks {len(problems)} invariants, {out} is left as it was:\n{listed}"
        )
    say(f"all invariants hold; replacing files in {out}")
    for file in (*FILES.values(), CORRESPONDENCE, REGRESSORS, MANIFEST):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(new / file, out / file)


def check(folder: Path) -> list[str]:
    """What does not hold of the files in a folder."""
    missing = [
        file for file in (*FILES.values(), CORRESPONDENCE, REGRESSORS) if not (folder / file).is_file()
    ]
    if missing:
        return [f"{file} is missing" for file in missing]
    problems = broken(read_models(folder), read_npz(folder / CORRESPONDENCE))
    return problems + [f"{REGRESSORS}: {p}" for p in broken_regressors(read_npz(folder / REGRESSORS))]
