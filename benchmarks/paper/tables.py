"""What the tables hold: rows, studies, and the paper's figures beside them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.grids import NOTHING, Table
from benchmarks.paper.annotators import Setup, Size, exemplar, network, optimised, refined, ruled
from benchmarks.paper.measures import Measured
from benchmarks.paper.studies import Study
from neuralannot.train.method_options import EftOptions, RefineOptions

_BOTH: dict[str, Any] = {"inputs": "image+joints"}
_JOINTS: dict[str, Any] = {"inputs": "joints"}
_IMAGE: dict[str, Any] = {"inputs": "image"}
_LATENT = {
    "body": {"outputs": "latent", "prior": "open"},
    "hand": {"outputs": "latent", "prior": "mano-pca:30"},
}
_ROTATION = {"outputs": "rotation6d"}
# The small networks of these sets want a bolder rate than a ResNet-50.
_EFT = EftOptions(steps=20, lr=5e-5)
_OWN, _SHIPPED = RefineOptions(share_shape=False), RefineOptions(adapt=False)
_CROP = RefineOptions(camera="crop", adapt=False)

_SPIN = "SPIN's rule, tuned SMPLify-X"
PUBLISHED, PAPER_S = "SMPLify-X, as published", "network, image + joints (the paper's)"
BEST = "network, image + joints, refined"


@dataclass(frozen=True)
class Row:
    """`name`: what stands in the table; `key`: of its file; `annotate`: does it; `who`: of whom it is."""

    name: str
    key: str
    annotate: Callable[[Setup], Measured]
    who: tuple[str, ...] = ("body", "hand")


def _net(**changes: Any) -> Callable[[Setup], Measured]:
    return partial(network, **changes)


def _latent(setup: Setup, *, then: str = "", options: RefineOptions | None = None, **inputs: Any) -> Measured:
    changes = {**inputs, **_LATENT[setup.study.who]}
    if then == "refined":
        return refined(setup, start=changes, options=options)
    if then == "spin":
        return ruled(setup, start=changes, setting="tuned")
    if then == "eft":
        return exemplar(setup, start=changes, options=_EFT)
    return network(setup, **changes)


def _refined_rows(name: str, key: str, start: Mapping[str, Any]) -> tuple[Row, ...]:
    """What `annotate` does by default from a network (`start`: its changes), and with each option."""
    variants = (
        ("", "", None),
        (", the prior as it ships", "-shipped", _SHIPPED),
        (", rotations within 0.2 rad of its own", "-near", RefineOptions(near=0.2)),
        (", every frame its own shape", "-own", _OWN),
    )
    return tuple(
        Row(f"{name}{said}", f"{key}{tail}", partial(refined, start=start, options=options))
        for said, tail, options in variants
    )


_OPTIMISERS = (
    Row(PUBLISHED, "smplify-published", partial(optimised, setting="published")),
    Row("SMPLify-X, tuned", "smplify-tuned", partial(optimised, setting="tuned")),
)
ROWS_3D = (
    *_OPTIMISERS,
    Row("network, image", "network-image", _net(**_IMAGE, **_ROTATION)),
    Row("network, joints", "network-joints", _net(**_JOINTS, **_ROTATION)),
    Row(PAPER_S, "network-both", _net(**_BOTH, **_ROTATION)),
    *_refined_rows("network, joints, refined", "refined-joints", {**_JOINTS, **_ROTATION}),
    *_refined_rows(BEST, "refined-both", {**_BOTH, **_ROTATION}),
    Row("least squares without network", "fitted", refined),
    Row(
        "least squares without network, the prior as it ships",
        "fitted-shipped",
        partial(refined, options=_SHIPPED),
    ),
    Row(
        "least squares without network, every frame its own shape",
        "fitted-own",
        partial(refined, options=_OWN),
    ),
    Row(
        "least squares without network, one shape, no learnt prior",
        "fitted-rest",
        partial(refined, prior="rest", options=_SHIPPED),
        ("body",),
    ),
    Row(
        "SPIN's rule, tuned SMPLify-X", "spin", partial(ruled, start={**_BOTH, **_ROTATION}, setting="tuned")
    ),
    Row("EFT's rule", "eft", partial(exemplar, start={**_BOTH, **_ROTATION}, options=_EFT)),
)
ROWS_2D = (
    *_OPTIMISERS,
    Row(
        "SMPLify-X, tuned, the image's camera",
        "smplify-tuned-image",
        partial(optimised, setting="tuned", camera="image"),
    ),
    Row("network, image", "network-image", partial(_latent, **_IMAGE)),
    Row("network, 2D joints", "network-joints", partial(_latent, **_JOINTS)),
    Row(PAPER_S, "network-both", partial(_latent, **_BOTH)),
    Row("network, image, refined", "refined-image", partial(_latent, then="refined", **_IMAGE)),
    Row(BEST, "refined-both", partial(_latent, then="refined", **_BOTH)),
    Row(
        f"{BEST}, the prior as it ships",
        "refined-both-shipped",
        partial(_latent, then="refined", options=_SHIPPED, **_BOTH),
    ),
    Row(_SPIN, "spin", partial(_latent, then="spin", **_BOTH)),
    Row("EFT's rule", "eft", partial(_latent, then="eft", **_BOTH)),
    Row("least squares without network", "fitted", refined),
    Row(
        "least squares without network, the prior as it ships",
        "fitted-shipped",
        partial(refined, options=_SHIPPED),
    ),
    Row(
        "least squares without network, the prior as it ships, the crop's camera",
        "fitted-crop",
        partial(refined, options=_CROP),
    ),
)
ROWS_INPUTS = tuple(row for row in ROWS_3D if row.key in ("network-image", "network-joints", "network-both"))
ROWS_INPUTS_2D = tuple(
    row for row in ROWS_2D if row.key in ("network-image", "network-joints", "network-both")
)
ROWS_OUTPUTS = (
    Row("joint rotations", "network-both", _net(**_BOTH, **_ROTATION)),
    Row("low-dimensional pose", "network-both-latent", partial(_latent, **_BOTH)),
)
ROWS_OUTPUTS_2D = (
    Row("joint rotations", "network-both-rotation", _net(**_BOTH, **_ROTATION)),
    Row("low-dimensional pose", "network-both", partial(_latent, **_BOTH)),
)


@dataclass(frozen=True)
class Comparison:
    """One table: `rows` on studies (`cases`: who, joints, condition); `paper`: what stands in the paper, said
    under it."""

    number: int
    title: str
    cases: tuple[tuple[str, int, str], ...]
    rows: tuple[Row, ...]
    paper: tuple[str, ...]

    def studies(self, seed: int) -> Iterator[Study]:
        for who, joints, condition in self.cases:
            yield Study(who, joints, condition, seed)

    def rows_of(self, study: Study) -> Iterator[Row]:
        yield from (row for row in self.rows if study.who in row.who)


_BODIES = tuple(("body", joints, c) for joints in (17, 24) for c in ("clean", "noise", "missing"))
_HANDS = tuple(("hand", 21, c) for c in ("clean", "noise", "missing"))
TABLES = (
    Comparison(
        4,
        "Table 4: fitted to GT 3D joints",
        _BODIES + _HANDS,
        ROWS_3D,
        (
            "The paper, NeuralAnnot over SMPLify-X (MPJPE): Human3.6M 8.5 / 13.1 = 0.65, MPI-INF-3DHP "
            "12.2 / 17.9 = 0.68, 3DPW 10.7 / 19.2 = 0.56 (MPVPE 11.1 / 38.0 = 0.29), InterHand2.6M "
            "5.8 / 10.0 = 0.58, FreiHAND 3.6 / 6.6 = 0.55 (MPVPE 4.0 / 7.3 = 0.55).",
        ),
    ),
    Comparison(
        5,
        "Table 5: fitted to GT 2D joints",
        (("body", 17, "2d"), ("body", 24, "2d"), ("hand", 21, "2d")),
        ROWS_2D,
        (
            "The paper: 3DPW 60.1 / 147.35 = 0.41 (MPVPE 68.3 / 206.62 = 0.33), FreiHAND 7.2 / 8.5 = 0.85 "
            "(MPVPE 7.7 / 9.3 = 0.83).",
        ),
    ),
    Comparison(
        2,
        "Table 2: what the network sees, 3D joints",
        (("hand", 21, "clean"),),
        ROWS_INPUTS,
        ("The paper, InterHand2.6M, MPJPE: image 7.0, 3D joints 8.1, both 5.8.",),
    ),
    Comparison(
        2,
        "Table 2: what the network sees, 2D joints",
        (("body", 17, "2d"),),
        ROWS_INPUTS_2D,
        ("The paper, PA MPJPE of a regressor trained on the result: image 69.6, 2D joints 72.7, both 69.6.",),
    ),
    Comparison(
        3,
        "Table 3: what the network puts out, 3D joints",
        (("hand", 21, "clean"),),
        ROWS_OUTPUTS,
        ("The paper, InterHand2.6M, MPJPE: joint rotations 5.8, low-dimensional pose 10.7.",),
    ),
    Comparison(
        3,
        "Table 3: what the network puts out, 2D joints",
        (("body", 17, "2d"),),
        ROWS_OUTPUTS_2D,
        ("The paper, PA MPJPE of a regressor trained on the result: rotations 117.5, low-dimensional 69.6.",),
    ),
)


def result_file(out: Path, study: Study, row: Row) -> Path:
    return out / study.name / "results" / f"{row.key}.json"


def results(
    out: Path, comparison: Comparison, case: tuple[str, int, str], row: Row, seeds: Sequence[int]
) -> list[Measured]:
    """What has been measured of a row, one each seed."""
    files = [result_file(out, Study(*case, seed), row) for seed in seeds]
    return [Measured(**json.loads(path.read_text())) for path in files if path.is_file()]


def tables(
    out: Path, comparison: Comparison, size: Size, seeds: Sequence[int], machine: str
) -> Iterator[Table]:
    """A table for each case, of what has been measured so far."""
    for case in comparison.cases:
        who, joints, condition = case
        rows = [row for row in comparison.rows if who in row.who]
        found = {row.key: results(out, comparison, case, row, seeds) for row in rows}
        if not any(found.values()):
            continue
        count = max((m.count for some in found.values() for m in some), default=0)
        what = {"2d": "2D only"}.get(condition, condition)
        table = Table(
            f"{comparison.title}: {'bodies' if who == 'body' else 'hands'}, {joints} joints, {what}",
            (
                "",
                "MPJPE",
                "MPVPE",
                "PA MPJPE",
                "given",
                "missing",
                "MPJPE / published",
                "s a sample",
                "training s",
                "seeds",
            ),
            f"mm, root-aligned, {count} samples of {size.images} images, means over seeds, half their range; "
            f"{machine}",
        )
        base = found.get("smplify-published") or []
        for row in rows:
            if found[row.key]:  # the others have not been run yet
                table.add(row.name, *_cells(found[row.key], base))
        table.notes.extend(comparison.paper)
        yield table


def _cells(some: Sequence[Measured], base: Sequence[Measured]) -> list[str]:
    ratio = NOTHING
    if base and len(base) == len(some):
        ratio = f"{_mean(some, 'mpjpe') / _mean(base, 'mpjpe'):.2f}"
    numbers = [_spread(some, name) for name in ("mpjpe", "mpvpe", "pa_mpjpe", "seen", "hidden")]
    training = _mean(some, "training")
    seconds = f"{_mean(some, 'seconds'):.3g}"
    return [*numbers, ratio, seconds, f"{training:.0f}" if training else NOTHING, str(len(some))]


def _mean(some: Sequence[Measured], name: str) -> float:
    return statistics.fmean(getattr(one, name) for one in some)


def _spread(some: Sequence[Measured], name: str) -> str:
    values = [getattr(one, name) for one in some]
    if any(math.isnan(v) for v in values):
        return NOTHING
    mean = statistics.fmean(values)
    digits = 1 if mean >= 1 else 2
    text = f"{mean:.{digits}f}"
    return text if len(values) == 1 else f"{text} ±{(max(values) - min(values)) / 2:.{digits}f}"


def named(numbers: Sequence[int]) -> list[Comparison]:
    """The tables of these numbers, in the order of `TABLES`."""
    return [table for table in TABLES if table.number in numbers]


def plan(numbers: Sequence[int], seeds: Sequence[int]) -> Mapping[Study, list[Row]]:
    """Every study once, with the rows that the tables want of it; a seed after another."""
    found: dict[Study, list[Row]] = {}
    for seed in seeds:
        for table in named(numbers):
            for study in table.studies(seed):
                rows = found.setdefault(study, [])
                rows += [row for row in table.rows_of(study) if row.key not in {r.key for r in rows}]
    return found
