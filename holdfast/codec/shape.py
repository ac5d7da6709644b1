"""The shape of a type: a fingerprint that changes with it, and what of stored data a changed type would lose."""

from __future__ import annotations

import enum
import typing
from hashlib import blake2b
from typing import Any

from holdfast.codec.kinds import bare, hints_of
from holdfast.codec.models import is_model


def fingerprint_of(type_: Any) -> int:
    """A number of 63 bits, never 0, of the names and types of all fields; a type with other defaults has the same.

    Two types with the same fingerprint read data alike. Types with different ones may, too: `lost` finds out for the data at hand.
    """
    digest = blake2b(_shape(type_, []).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1 or 1


def _shape(type_: Any, around: list[Any]) -> str:
    type_ = bare(type_)
    origin, args = typing.get_origin(type_), typing.get_args(type_)
    cls: Any = origin or type_
    parts = "".join(f"[{_shape(each, around) if not _is_value(each) else repr(each)}]" for each in args)
    name = f"{getattr(cls, '__module__', '')}.{getattr(cls, '__qualname__', repr(cls))}{parts}"
    if not isinstance(cls, type) or any(cls is each for each in around):
        return name
    if issubclass(cls, enum.Enum):
        return f"{name}({','.join(repr(each.value) for each in cls)})"
    fields = _fields(cls)
    if not fields:
        return name
    inner = ",".join(f"{key}:{_shape(hint, [*around, cls])}" for key, hint in sorted(fields, key=lambda field: field[0]))
    return f"{parts}{{{inner}}}"


def _fields(cls: Any) -> list[tuple[str, Any]]:
    return [(key, field.annotation) for key, field in cls.__pydantic_fields__.items()] if is_model(cls) else list(hints_of(cls))


def _is_value(part: Any) -> bool:
    """Whether it is a value of a Literal, or no type for another reason."""
    return part is Ellipsis or isinstance(part, str | bytes | int | enum.Enum | list) or part is None


def lost(stored: Any, again: Any, value: Any) -> str:
    """The first part of `stored` that a type does not keep; "" where it keeps all.

    Args:
        stored: the plain data.
        again: what `value` is encoded to, as plain data.
        value: what the type made of `stored`.
    """
    waiting: list[tuple[Any, Any, Any, str]] = [(stored, again, value, "")]
    while waiting:
        stored, again, value, path = waiting.pop()
        if isinstance(stored, dict) and isinstance(again, dict):
            for key, each in stored.items():
                at = f"{path}.{key}" if path else str(key)
                if key in again:
                    waiting.append((each, again[key], _part(value, key), at))
                elif not _omitted(value, key):
                    return f"the field {at!r}"
        elif isinstance(stored, list) and isinstance(again, list):
            if isinstance(value, set | frozenset):
                stored, again, value = sorted(stored, key=repr), sorted(again, key=repr), ()
            if len(stored) > len(again):
                return f"{len(stored)} items in {path!r}"
            parts = list(value) if isinstance(value, list | tuple) and len(value) == len(again) else [None] * len(again)
            waiting += ((a, b, part, f"{path}[{at}]") for at, (a, b, part) in enumerate(zip(stored, again, parts, strict=False)))
        elif type(stored) is not type(again) and stored != again:
            return f"a {type(stored).__qualname__} in {path!r}"
    return ""


def _part(value: Any, key: Any) -> Any:
    """The field or item of `value` that is stored under `key`; None where it is not found."""
    if isinstance(value, dict):
        return value.get(key)
    return getattr(value, _names(value).get(key, key), None) if isinstance(key, str) else None


def _omitted(value: Any, key: Any) -> bool:
    """Whether a Struct leaves the field out since it has its default."""
    return key in _names(value)


def _names(value: Any) -> dict[Any, str]:
    """The fields of a Struct, by the names under which they are stored."""
    return dict(zip(getattr(value, "__struct_encode_fields__", ()), getattr(value, "__struct_fields__", ()), strict=True))
