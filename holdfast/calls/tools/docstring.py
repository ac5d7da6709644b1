"""The descriptions in the Google docstring of a function."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

_SECTION = re.compile(r"^(Args|Arguments|Returns|Raises|Yields|Attributes|Examples?|Notes?):\s*$")
_ENTRY = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


def read_docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The description of a function and of each argument in its Google docstring."""
    lines = (inspect.getdoc(function) or "").splitlines()
    sections = [at for at, line in enumerate(lines) if _SECTION.match(line)]
    description = "\n".join(lines[: sections[0]] if sections else lines).strip()
    arguments: dict[str, str] = {}
    for at in sections:
        if lines[at].startswith("Arg"):
            after = [later for later in sections if later > at]
            arguments.update(_entries(lines[at + 1 : after[0] if after else len(lines)]))
    return description, arguments


def _entries(lines: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    name, depth = "", None
    for line in lines:
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if not text:
            continue
        if depth is None:
            depth = indent
        entry = _ENTRY.match(text) if indent <= depth else None
        if entry is not None:
            name = entry[1]
            found[name] = entry[2]
        elif name:
            found[name] = f"{found[name]} {text}".strip()
    return found
