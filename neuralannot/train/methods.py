"""The annotators: what each makes of a data set's samples. All of them answer in the same columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from neuralannot.train.config import TrainConfig
from neuralannot.train.eft import exemplar_estimates
from neuralannot.train.estimates import estimates
from neuralannot.train.method_options import REFINED, WITHOUT_NETWORK, MethodOptions
from neuralannot.train.optimisation import Optimisation, lower_error
from neuralannot.train.parts import Columns, Parts
from neuralannot.train.refinement import Refinement
from neuralannot.train.run import Machinery, TrainingData

__all__ = ["answers"]

_PREPARED = "prepared.safetensors"


def answers(
    method: str,
    options: MethodOptions,
    config: TrainConfig,
    data: TrainingData,
    machinery: Machinery,
    parts: Parts,
    out: Path,
) -> Columns:
    """Columns of all rows by `method`, as `estimates` gives them; what is done is kept in `out`.

    Raises ValueError for a camera of pictures where the data set has GT 3D joints.
    """
    _check_pictured(options, data)
    if method == "eft":
        return parts.made(
            out / "parts-eft",
            lambda chunks: exemplar_estimates(machinery, config, data, chunks, options.eft),
            stamp=repr(options.eft),
        )
    columns = None
    if method not in WITHOUT_NETWORK:
        columns = parts.made(out / "parts", lambda chunks: estimates(machinery, config, data, chunks))
    if method == "smplify":
        return _optimised(Optimisation(machinery, data, options.smplify), parts, out / "parts-smplify")
    if method == "spin":
        optimisation = Optimisation(machinery, data, options.smplify)
        stored = _optimised(optimisation, parts, out / "parts-smplify")
        begun = _optimised(optimisation, parts, out / "parts-spin", columns)
        return lower_error(begun, stored)
    if method in REFINED:
        columns = _refined(
            Refinement(machinery, data, options.refine), parts, out / f"parts-{method}", columns
        )
    assert columns is not None
    return columns


def _check_pictured(options: MethodOptions, data: TrainingData) -> None:
    """That options of pictures are of some: with GT 3D joints nothing is seen through a camera."""
    samples, usual = data.samples[0], MethodOptions()
    for one, other in ((options.refine, usual.refine), (options.smplify, usual.smplify)):
        for name in ("camera", "focal"):
            if samples.is_mocap and getattr(one, name) != getattr(other, name):
                raise ValueError(
                    f"{name} is for pictures; {samples.data_set} has GT 3D joints, which are fitted in "
                    f"space: leave {name}={getattr(one, name)!r} out"
                )


def _optimised(
    optimisation: Optimisation, parts: Parts, folder: Path, start: Columns | None = None
) -> Columns:
    def compute(chunks: Sequence[np.ndarray]) -> Iterable[Columns]:
        for chunk in chunks:
            yield optimisation(chunk, _at(start, parts, chunk))

    return parts.made(folder, compute, stamp=optimisation.stamp)


def _refined(refinement: Refinement, parts: Parts, folder: Path, start: Columns | None) -> Columns:
    def prepared() -> Columns:
        refinement.prepare(parts.rows, start)
        return refinement.prepared

    refinement.take(parts.once(folder / _PREPARED, prepared, stamp=refinement.digest))

    def compute(chunks: Sequence[np.ndarray]) -> Iterable[Columns]:
        for chunk in chunks:
            yield refinement(chunk, _at(start, parts, chunk))

    return parts.made(folder, compute, stamp=refinement.digest)


def _at(columns: Columns | None, parts: Parts, chunk: np.ndarray) -> Columns | None:
    if columns is None:
        return None
    places = parts.places(chunk)
    return {name: value[places] for name, value in columns.items()}
