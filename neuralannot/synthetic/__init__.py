"""The studio: data sets in released layouts whose true parameters are known.

    from neuralannot.synthetic import make_studio

    report = make_studio("studio", layout="mscoco", count=100)

People of a body model in motion-captured poses are dressed, lit, put before made backgrounds and real
cameras, and drawn; annotations, cameras and joints are written as the data set has them, and the true
parameters as its pseudo ground truth has them, in the folder `truth`. Names load when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralannot.late_names import late_names

if TYPE_CHECKING:
    from neuralannot.synthetic.settings import LAYOUTS
    from neuralannot.synthetic.studio import StudioReport, make_studio

_ROOMS = {"LAYOUTS": "settings", "StudioReport": "studio", "make_studio": "studio"}

__all__ = ["LAYOUTS", "StudioReport", "make_studio"]

if not TYPE_CHECKING:  # a type checker would take every name for one of these
    __getattr__ = late_names(__name__, _ROOMS)
