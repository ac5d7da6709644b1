"""Plain data: what comes back as it was without a type that says how."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.codec.encoding import SCALARS, encoded
from holdfast.codec.models import is_model
from holdfast.errors import NotJournalable

PLAIN = frozenset({*SCALARS, str, bytes})


def _refuse(value: Any) -> Any:
    raise NotJournalable(_unannotated(type(value)))


_encoder = msgspec.msgpack.Encoder(enc_hook=_refuse)


def encode_plain(value: Any) -> bytes:
    """`value` as MessagePack. Raises NotJournalable where a part of it is not plain data."""
    data = encoded(_encoder, value)  # first, since it has a bound
    if type(value) not in PLAIN:
        check_plain(value)
    return data


def check_plain(value: Any) -> None:
    """Raises NotJournalable where a part of `value` is not plain data."""
    if (odd := odd_part(value)) is not None:
        raise NotJournalable(_unannotated(odd))


def _unannotated(kind: type[Any]) -> str:
    return (
        f"a value of type {kind.__qualname__} cannot be journaled without an annotation of its type (a function's return, "
        "Session[...]): add one, or use plain data (None, bool, int, float, str, bytes, list, dict)"
    )


def why_untyped(message: Any) -> str:
    """Why a message would arrive as something else at a receiver that declares no type for it; "" where it would not. Structured types
    arrive as their fields. For messages that can be encoded: one that contains itself has no end."""
    odd = odd_part(message, structured=True)
    if odd is None:
        return ""
    return (
        f"a {odd.__qualname__} would arrive as something else, since the agent has no annotation for its message: annotate it, or send "
        "plain data (None, bool, int, float, str, bytes, list, dict), a dataclass, a msgspec.Struct or a pydantic model"
    )


def odd_part(value: Any, structured: bool = False) -> type | None:
    """The type of a part of `value` that is not plain data; None if all of it is. Tuples count as lists. `structured`: types with fields
    count as their fields."""
    waiting = [value]  # not by recursion: a value may be nested as deeply as it can be encoded
    add = waiting.append
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind in PLAIN:
            continue
        if kind is dict:
            for item in value.values():
                if type(item) not in PLAIN:
                    add(item)
            for key in value:
                if type(key) not in PLAIN:
                    add(key)
        elif kind is list or kind is tuple:
            for item in value:
                if type(item) not in PLAIN:
                    add(item)
        elif not (structured and has_fields(kind)):
            return kind
    return None


def has_fields(kind: type) -> bool:
    """Whether it is a structured type: a dataclass, a msgspec.Struct, a pydantic model."""
    return hasattr(kind, "__dataclass_fields__") or issubclass(kind, msgspec.Struct) or is_model(kind)
