"""The most bytes of one encoded value, held without the time and memory that a larger one would take."""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec

from holdfast.errors import NotJournalable

MAX_BYTES = 1 << 25
"""The most bytes of one encoded value: as many as a request to a model provider may have. A few such values fit into one transaction of
every store, and none holds up the other sessions for long."""

USUAL = 1 << 12
_MEDIUM, _LARGER = 1 << 16, (1 << 20, 1 << 23, MAX_BYTES)
"""The sizes of the buffers in which a value is encoded, one after another, until it fits."""

_LOOKED_AT = 50_000
"""How many parts of a large value are looked at for its size before it is encoded."""

TEXTS = frozenset({str, bytes, bytearray})


def bounded(encoder: msgspec.msgpack.Encoder, value: Any) -> bytes:
    """`value` as MessagePack, without the time and memory that a value over MAX_BYTES would take.

    Encoding holds the interpreter, and so every other session. So it ends where the value no longer fits: a buffer that a memoryview holds
    cannot grow, and the encoder then raises BufferError.

    Raises:
        NotJournalable: it is over MAX_BYTES.
        Exception: as the encoder.
    """
    if type(value) in TEXTS and len(value) > MAX_BYTES:
        raise NotJournalable(_too_large(value))
    try:
        return into(encoder, value, _MEDIUM)
    except BufferError:
        pass
    for size in () if _least(value) > MAX_BYTES else _LARGER:
        try:
            return into(encoder, value, size)
        except BufferError:
            continue
    raise NotJournalable(_too_large(value))


def into(encoder: msgspec.msgpack.Encoder, value: Any, size: int) -> bytes:
    """`value` as MessagePack. Raises BufferError where that has more than `size` bytes."""
    buffer = bytearray(size)
    _held = memoryview(buffer)
    encoder.encode_into(value, buffer)
    return bytes(buffer)


def is_large(value: Any) -> bool:
    """Whether `value` certainly has over MAX_BYTES. This looks only at its first parts, so that it takes some milliseconds at most."""
    return _least(value) > MAX_BYTES


def _least(value: Any) -> int:
    """Bytes that `value` has at least: the texts and items of its first parts."""
    size, waiting = 0, [value]
    for _ in range(_LOOKED_AT):
        if not waiting or size > MAX_BYTES:
            break
        part = waiting.pop()
        kind = type(part)
        if kind in TEXTS:
            size += len(part)
        elif kind is list or kind is tuple:
            size += len(part)
            waiting += part[:_LOOKED_AT]
        elif kind is dict:
            size += len(part)
            waiting += islice(part, _LOOKED_AT)
            waiting += islice(part.values(), _LOOKED_AT)
        elif isinstance(part, msgspec.Struct):
            waiting += (getattr(part, field) for field in part.__struct_fields__)
        elif hasattr(part, "__dict__"):
            waiting += islice(vars(part).values(), _LOOKED_AT)
    return size


def _too_large(value: Any) -> str:
    name = type(value).__qualname__
    return f"a value of type {name} of over {MAX_BYTES:,} bytes cannot be journaled: give at most so many, or keep it elsewhere"
