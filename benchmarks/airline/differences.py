"""Whether two outputs are equal, and the differences."""

from __future__ import annotations

import json
from typing import Any


def parsed(text: str) -> Any:
    """The value of a text that is JSON; else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def same(ours: str, recorded: str) -> bool:
    """Whether they are equal: as data if both are JSON, else letter for letter."""
    return ours == recorded or parsed(ours) == parsed(recorded)


def difference(ours: str, recorded: str) -> str:
    """The differences, in words that are the same for two differences of one kind: the fields, not their values."""
    return "; ".join(sorted(set(_fields(parsed(recorded), parsed(ours), "")))) or "the text"


def _fields(before: Any, now: Any, path: str) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        gone = [name for name in before if name not in now]
        new = [name for name in now if name not in before]
        if len(gone) == len(new) == 1 and before[gone[0]] == now[new[0]]:
            moved = [f"{_at(path, gone[0])} is called {new[0]} now"]
        else:
            moved = [f"{_at(path, name)} is gone" for name in gone] + [f"{_at(path, name)} is new" for name in new]
        return moved + [line for name in before if name in now for line in _fields(before[name], now[name], _at(path, name))]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [line for first, second in zip(before, now, strict=True) for line in _fields(first, second, f"{path}[]")]
    if before == now:
        return []
    if isinstance(before, list) and isinstance(now, list):
        return [f"{path or 'the list'} has another length"]
    return [f"{path or 'the text'} has another value"]


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
