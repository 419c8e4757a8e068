"""One page about an annotation file, to look at and to hand on: what is in it, how good, what it looks like.

    from neuralannot.report import write_report

    write_report(gt, "report.html", images="coco")

Stands above `neuralannot.quality` and `neuralannot.train`, whose measures and pictures it shows. Names load
when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralannot.late_names import late_names

if TYPE_CHECKING:
    from neuralannot.report.counts import Coverage, coverage
    from neuralannot.report.page import write_report

_ROOMS = {"Coverage": "counts", "coverage": "counts", "write_report": "page"}

__all__ = ["Coverage", "coverage", "write_report"]

if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = late_names(__name__, _ROOMS)
