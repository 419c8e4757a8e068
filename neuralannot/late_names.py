"""Names of a package that load when they are first used: importing it alone stays cheap."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["late_names"]


def late_names(package: str, rooms: Mapping[str, str]) -> Callable[[str], Any]:
    """The package's `__getattr__`; `rooms`: name -> the module of the package that has it."""

    def load(name: str) -> Any:
        if name not in rooms:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{rooms[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
