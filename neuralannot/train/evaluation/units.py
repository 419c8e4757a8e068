"""Units of length of what is read from files."""

from __future__ import annotations

#: Unit -> metres.
UNITS = {"m": 1.0, "mm": 0.001}


def metres_per(unit: str) -> float:
    """Metres that one of `unit` is. Raises ValueError for another than `m` and `mm`."""
    if unit not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
    return UNITS[unit]
