"""Errors as colours."""

from __future__ import annotations

import numpy as np

from neuralannot.web_page import plain

__all__ = ["FIT", "OTHER", "TRUTH", "UNKNOWN", "error_colours", "legend"]

#: RGB of a file's bodies, of the other's, of what a data set annotates, and of what has no error.
FIT, OTHER, TRUTH, UNKNOWN = (142, 182, 226), (238, 160, 132), (40, 130, 60), (150, 150, 150)
# From none to the limit and beyond: steps that people who see no red and green tell apart.
_STEPS = np.array(
    [(49, 84, 168), (116, 173, 209), (224, 243, 248), (254, 224, 144), (244, 109, 67), (165, 0, 38)], float
)


def error_colours(errors: np.ndarray, limit: float) -> np.ndarray:
    """(N,) errors -> (N, 3) uint8 RGB: blue for none, dark red from `limit` on, grey for NaN.

    Raises ValueError for a limit that is not positive.
    """
    if not limit > 0:
        raise ValueError(f"the limit of the colours must be positive, got {limit!r}")
    values = np.asarray(errors, float)
    known = ~np.isnan(values)
    place = np.clip(np.where(known, values, 0) / limit, 0, 1)
    steps = np.linspace(0, 1, len(_STEPS))
    colours = np.stack([np.interp(place, steps, _STEPS[:, k]) for k in range(3)], axis=-1)
    colours[~known] = UNKNOWN
    found: np.ndarray = np.rint(colours).astype(np.uint8)
    return found


def legend(what: str, limit: float, unit: str) -> str:
    """A strip of the colours as HTML, with what they mean."""
    stops = ", ".join(f"rgb({r:.0f},{g:.0f},{b:.0f})" for r, g, b in _STEPS.tolist())
    return (
        f'<div style="height:10px;border-radius:3px;background:linear-gradient(to right, {stops})"></div>'
        f'<div style="display:flex;justify-content:space-between"><span>0</span><span>{plain(what)}</span>'
        f"<span>{plain(f'{limit:g} {unit}')}</span></div>"
    )
