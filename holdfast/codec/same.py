"""What of a value does not come back as it was."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from holdfast.codec.models import is_model
from holdfast.codec.plain import PLAIN, has_fields
from holdfast.given import brief


def difference(sent: Any, got: Any, structured: bool = False) -> str:
    """The first part of `sent` that `got`, which was decoded from its bytes, does not have, and why; "" where it has all.

    A type may make more of plain data than it was (a UUID of a text, a tuple of a list), but not less: no field may be missing, and no
    value that is more than plain data may come back as another. What pydantic excludes from a dump does not count.

    Args:
        structured: whether a structured type may come back as its fields.
    """
    waiting: list[tuple[Any, Any, str]] = [(sent, got, "")]
    while waiting:
        sent, got, path = waiting.pop()
        kind = type(sent)
        if sent is got or kind in PLAIN:
            continue
        if kind is list or kind is tuple:
            if type(got) in (list, tuple):
                waiting += ((a, b, f"{path}[{at}]") for at, (a, b) in enumerate(zip(sent, got, strict=False)))
            continue
        if isinstance(sent, dict) and isinstance(got, dict):
            if len(got) < len(sent):
                missing = next((key for key in sent if key not in got), "")
                return f"{_at(path, missing)}: the type has no such field"
            for (key, a), (other, b) in zip(sent.items(), got.items(), strict=False):
                b, other = (got[key], key) if key in got else (b, other)
                waiting += (key, other, f"the key {brief(key)} of {path or 'it'}"), (a, b, _at(path, key))
        elif kind is type(got) and (names := _fields(kind)) is not None:
            waiting += ((getattr(sent, name, None), getattr(got, name, None), _at(path, name)) for name in names)
            waiting += _unknown(sent, got, path)
        elif (structured and has_fields(kind)) or (isinstance(sent, dict) and has_fields(type(got))):
            continue  # as its fields, or made of them by the type's own rules
        elif not (_equal(sent, got) or (isinstance(sent, Enum) and sent.value == got)):
            came = f"a {type(got).__qualname__}" if type(got) is not kind else f"another {kind.__qualname__}"
            return f"{path or 'it'}: a {kind.__qualname__} would come back as {came}; annotate its type, or use plain data"
    return ""


def _at(path: str, name: Any) -> str:
    return f"{path}.{name}" if path and isinstance(name, str) else name if isinstance(name, str) else f"{path}[{brief(name)}]"


def _fields(kind: Any) -> Iterable[str] | None:
    if is_model(kind):
        return [name for name, field in kind.__pydantic_fields__.items() if not field.exclude]
    if hasattr(kind, "__attrs_attrs__"):
        return [each.name for each in kind.__attrs_attrs__]
    names: Iterable[str] | None = getattr(kind, "__struct_fields__", getattr(kind, "__dataclass_fields__", None))
    return names


def _unknown(sent: Any, got: Any, path: str) -> Iterable[tuple[Any, Any, str]]:
    """The fields that a model allows without knowing them."""
    mine, its = getattr(sent, "__pydantic_extra__", None), getattr(got, "__pydantic_extra__", None)
    return [(mine, its, path)] if mine and isinstance(its, dict) else []


def _equal(sent: Any, got: Any) -> bool:
    try:
        return bool(sent == got) or (type(sent) is type(got) and bool(sent != sent) and bool(got != got))
    except Exception:  # a user's own comparison can raise anything
        return False
