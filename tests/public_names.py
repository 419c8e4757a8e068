"""Every public name of the package with its signature, a line each, as `tests/public_names.txt` keeps them.

    make names    # writes the file anew; its diff is the change of the interface

Public is what a module lists in `__all__`, and what of it does not begin with `_`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import neuralannot

FILE = Path(__file__).with_suffix(".txt")
# Of the methods that Python calls, those by which objects are used.
_SPOKEN = ("__call__", "__contains__", "__getitem__", "__iter__", "__len__")
_PLAIN = (bool, int, float, str, bytes, type(None))


def public_modules() -> Iterator[ModuleType]:
    """The modules that say what of them is public."""
    names = [found.name for found in pkgutil.walk_packages(neuralannot.__path__, "neuralannot.")]
    for name in sorted(["neuralannot", *names]):
        if not name.endswith("__main__"):
            module = importlib.import_module(name)
            if hasattr(module, "__all__"):
                yield module


def lines() -> list[str]:
    """As the file has them, sorted by module and name."""
    found: dict[str, list[str]] = {}
    for module in public_modules():
        for name in module.__all__:
            value = getattr(module, name)
            home = _home(value) or f"{module.__name__}.{name}"
            if home != f"{module.__name__}.{name}":
                found[f"{module.__name__}.{name}"] = [f"{module.__name__}.{name} is {home}"]
            found[home] = _lines_of(home, value)
    return [line for name in sorted(found, key=lambda n: n.rpartition(".")[::2]) for line in found[name]]


def _home(value: object) -> str:
    """Where a class or function is written, "" for other values."""
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return ""
    return f"{value.__module__}.{value.__qualname__}"


def _lines_of(name: str, value: object) -> list[str]:
    if inspect.isfunction(value):
        return [name + _signature(value)]
    if inspect.isclass(value):
        return [_class_line(name, value), *_member_lines(name, value)]
    kind = type(value).__name__
    if isinstance(value, Mapping):  # a table by name: the names are what others write
        return [f"{name}: {kind} of {', '.join(sorted(map(str, value)))}"]
    return [f"{name}: {kind}"]


def _class_line(name: str, cls: type) -> str:
    bases = [base.__name__ for base in cls.__bases__ if base is not object]
    made = "" if issubclass(cls, Exception) and "__init__" not in vars(cls) else _signature(cls)
    return f"{name}{made}" + (f" is a {', '.join(bases)}" if bases else "")


def _member_lines(name: str, cls: type) -> list[str]:
    members: dict[str, object] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("neuralannot"):
            members |= {n: m for n, m in vars(base).items() if n in _SPOKEN or not n.startswith("_")}
    found = []
    for member, value in sorted(members.items()):
        inner = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if isinstance(inner, property):
            found.append(f"{name}.{member}: {_returned(inner.fget)}")
        elif hasattr(inner, "func") and hasattr(inner, "attrname"):  # functools.cached_property
            found.append(f"{name}.{member}: {_returned(inner.func)}")
        elif inspect.isfunction(inner):
            found.append(f"{name}.{member}{_signature(inner)}")
    return found


def _returned(function: object) -> str:
    return str(inspect.signature(function).return_annotation)  # type: ignore[arg-type]


def _signature(callable_: object) -> str:
    """Without the quotes about annotations, and with defaults that say nothing of an address."""
    try:
        signature = inspect.signature(callable_)  # type: ignore[arg-type]
    except ValueError:
        return "(...)"
    parts, keyword_only = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            parts.append("*")
        keyword_only |= parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        text = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        text += parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {_annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            text += f" = {_default(parameter.default)}"
        parts.append(text)
    end = signature.return_annotation
    returned = "" if end is signature.empty or inspect.isclass(callable_) else f" -> {_annotation(end)}"
    return f"({', '.join(parts)}){returned}"


def _annotation(value: object) -> str:
    return value if isinstance(value, str) else getattr(value, "__name__", str(value))


def _default(value: object) -> str:
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, tuple | list):
        return repr(value) if all(isinstance(one, _PLAIN) for one in value) else "..."
    return "..."


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n")
