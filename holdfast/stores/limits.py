"""What every store can hold: an op beyond that is refused before it is queued, so that it cannot fail the batch it would be part of."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from holdfast.codec import MAX_BYTES
from holdfast.redact import storable
from holdfast.stores.ops import Op, WriteStep

_LARGEST = 4 * MAX_BYTES
"""The most bytes of a row: the record of a step holds its arguments and its result."""

_FIRST, _LAST = -(1 << 63), (1 << 63) - 1
_encode = msgspec.msgpack.Encoder().encode


def fault_of(op: Op) -> str:
    """Why no store can hold `op` (the field, and what is wrong with it); "" if every store can."""
    if type(op) is WriteStep:  # most ops: the rest of it comes from holdfast itself
        if len(op.body) <= MAX_BYTES and not op.outbox:
            return ""
        return _too_large(op.body) or next(filter(None, map(fault_of, op.outbox)), "")
    for field in _fields(type(op)):
        value = getattr(op, field)
        kind = type(value)
        # Without a call for the values that most fields have: each message and each turn passes here.
        if kind is str:
            if value.isascii() and "\0" not in value:
                continue
        elif kind is bytes:
            if len(value) <= MAX_BYTES:
                continue
        elif kind is int or kind is float:
            if _FIRST <= value <= _LAST:
                continue
        elif value is None or kind is bool:
            continue
        why = _fault(value)
        if why:
            return f"{field} of {type(op).__name__} {why}"
    outbox: tuple[Op, ...] = getattr(op, "outbox", ())
    return next(filter(None, map(fault_of, outbox)), "") if outbox else ""


@lru_cache
def _fields(kind: type[Any]) -> tuple[str, ...]:
    return tuple(field for field in kind.__struct_fields__ if field != "outbox")


def _fault(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return "" if storable(value) is value else "has a NUL or a half of a surrogate pair"
    if kind is bytes:
        return "" if len(value) <= MAX_BYTES else _too_large(value)
    if kind is int:
        return "" if _FIRST <= value <= _LAST else "has over 64 bits"
    if kind is float:
        return "" if value == value else "is not a number"
    if isinstance(value, msgspec.Struct):
        try:
            _encode(value)
        except (ValueError, TypeError, OverflowError) as error:
            return f"cannot be encoded: {error}"
    elif kind is tuple:
        return next(filter(None, map(_fault, value)), "")
    return ""


def _too_large(data: bytes) -> str:
    return f"has {len(data):,} bytes, over {_LARGEST:,}" if len(data) > _LARGEST else ""
