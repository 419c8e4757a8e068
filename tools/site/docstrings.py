"""How the library's docstrings become Markdown: a griffe extension for the reference pages.

Docstrings here are plain text. Three habits of theirs need a word of explanation to Markdown:

- lines `name: what it is`, with continuations indented, become a list;
- a comment `#: ...` above a constant is its docstring;
- fields of configurations, `name: int = _about(default, "text")`, have the text as docstring and the
  default as value.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ITEM = re.compile(r"(?P<names>[*`]*\w+[*`]*(?:(?:, | and )[*`]*\w+[*`]*)*)(?: \([^()]*\))?: .*")
_UNDERLINED = re.compile(r"^(\w+)\n-{3,}$", re.M)
_SECTIONS = {"Args", "Returns", "Raises", "Yields", "Example", "Examples", "Note", "Warning"}


def as_markdown(text: str, known: set[str]) -> str:
    """A docstring whose lines `name: text` are a Markdown list, where the first name is among `known`.

    Such lines stand together, continuations indented. A sentence that begins like one goes on at the margin,
    and stays a sentence.
    """
    source = _UNDERLINED.sub(r"**\1**\n", text).split("\n")
    lines: list[str] = []
    for number, line in enumerate(source):
        if _is_item(line, known) and _is_item_or_apart((*source, "")[number + 1], known):
            if lines and lines[-1] and not lines[-1].startswith(("- ", " ")):
                lines.append("")
            names, _, said = line.partition(": ")
            shown = names.replace("`", "").replace("*", r"\*")
            lines.append(f"- **{shown}**: {said}")
        else:
            if line and not line.startswith(" ") and lines and _in_list(lines):
                lines.append("")
            lines.append(line)
    return "\n".join(lines)


def _is_item(line: str, known: set[str]) -> bool:
    found = _ITEM.fullmatch(line)
    return found is not None and re.split(r", | and |\W", found["names"].strip("*`"))[0] in known


def _is_item_or_apart(line: str, known: set[str]) -> bool:
    return not line or line.startswith((" ", "Raises ")) or _is_item(line, known)


def _in_list(lines: list[str]) -> bool:
    """Whether the last line is an item's, or one of its continuations."""
    for line in reversed(lines):
        if line.startswith("- "):
            return True
        if not line.startswith(" "):
            return False
    return False


class PlainDocstrings(griffe.Extension):
    """Rewrites docstrings and documents constants, once a package's sources are read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        _visit(pkg)


def _visit(found: griffe.Object | griffe.Alias) -> None:
    if found.is_alias:
        return
    if found.is_attribute:
        _document_constant(found)
    if found.docstring is not None:
        found.docstring.value = as_markdown(found.docstring.value, _known_names(found))
    for member in list(found.members.values()):
        _visit(member)


def _known_names(found: Any) -> set[str]:
    names = set(found.members) if found.is_class or found.is_module else set()
    if found.is_function:
        names |= {parameter.name for parameter in found.parameters}
    if found.is_class and "__init__" in found.members:
        names |= {parameter.name for parameter in found.members["__init__"].parameters}
    return names - _SECTIONS


def _document_constant(found: Any) -> None:
    call = found.value
    if isinstance(call, griffe.ExprCall) and str(call.function) == "_about" and len(call.arguments) == 2:
        text = str(call.arguments[1])
        found.value = call.arguments[0]
        if text[:1] in "'\"":
            found.docstring = griffe.Docstring(text[1:-1], parent=found, lineno=found.lineno)
    elif found.docstring is None and found.lineno is not None:
        source = found.lines_collection[found.filepath]
        comment: list[str] = []
        line = found.lineno - 2
        while line >= 0 and source[line].strip().startswith("#:"):
            comment.insert(0, source[line].strip()[2:].strip())
            line -= 1
        if comment:
            found.docstring = griffe.Docstring(" ".join(comment), parent=found, lineno=line + 2)
