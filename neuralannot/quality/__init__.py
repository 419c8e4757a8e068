"""How good annotations are: measured row by row, stored as columns, printed, filtered by.

    from neuralannot.quality import measure_quality

    gt = gt.with_quality(measure_quality(gt))
    good = gt.filter(max_error=0.05, plausible=True)

Stands above `neuralannot.train`, whose priors and joints it measures with. Names load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralannot.late_names import late_names

if TYPE_CHECKING:
    from neuralannot.quality.measure import Quality, measure_quality
    from neuralannot.quality.summary import quality_summary

_ROOMS = {"Quality": "measure", "measure_quality": "measure", "quality_summary": "summary"}

__all__ = ["Quality", "measure_quality", "quality_summary"]

if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = late_names(__name__, _ROOMS)
