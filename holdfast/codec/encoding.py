"""Any value as MessagePack, by its own type."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from holdfast.codec.bounds import TEXTS, USUAL, bounded
from holdfast.codec.models import dumped
from holdfast.codec.numbers import extended, extension
from holdfast.errors import NotJournalable
from holdfast.given import text_of

NIL = b"\xc0"

MOST_TEXT = 500
"""The most characters of the text of another error in one of this package."""

SCALARS = frozenset({bool, int, float, type(None)})

decode = msgspec.msgpack.Decoder(ext_hook=extension).decode
"""The plain data of any bytes that this package made."""

_encoder = msgspec.msgpack.Encoder(enc_hook=dumped)
_TIMESTAMP = re.compile(rb"[\xd6\xd7]\xff|\xc7\x0c\xff")
AS_THEY_ARE = (bytes, bytearray, memoryview)


def encode(value: Any) -> bytes:
    """`value` as MessagePack.

    Raises:
        NotJournalable: it contains a value that is not data, or text that is no Unicode; or it is over MAX_BYTES.
    """
    return encoded(_encoder, value)


def encoded(encoder: msgspec.msgpack.Encoder, value: Any) -> bytes:
    """As `encode`, with this encoder."""
    try:
        kind = type(value)
        small = kind in SCALARS or (kind in TEXTS and len(value) < USUAL)
        return encoder.encode(value) if small else with_offsets(encoder, value)
    except OverflowError as error:
        return _with_long_numbers(encoder, value, error)
    except NotJournalable:
        raise
    except Exception as error:  # also an exception of a user's own model while it is dumped
        raise NotJournalable(f"a value of type {type(value).__qualname__} cannot be journaled: {text_of(error, MOST_TEXT)}") from error


def _with_long_numbers(encoder: msgspec.msgpack.Encoder, value: Any, error: OverflowError) -> bytes:
    try:
        return bounded(encoder, extended(msgspec.to_builtins(value, builtin_types=AS_THEY_ARE, enc_hook=encoder.enc_hook)))
    except NotJournalable:
        raise
    except Exception:  # something else in it is at fault, too
        raise NotJournalable(f"a value of type {type(value).__qualname__} cannot be journaled: {text_of(error, MOST_TEXT)}") from error


def with_offsets(encoder: msgspec.msgpack.Encoder, value: Any, order: Literal["deterministic"] | None = None) -> bytes:
    """`value` as MessagePack, where an aware datetime keeps its offset: as text. MessagePack's own timestamps are UTC.

    Args:
        order: "deterministic" where the bytes may not depend on the order of a set.
    """
    buffer = bytearray(USUAL)  # as `into`, without a call for the values that most are
    _held = memoryview(buffer)
    try:
        encoder.encode_into(value, buffer)
        data = bytes(buffer)
    except BufferError:
        data = bounded(encoder, value)
    if 0xFF in data and _TIMESTAMP.search(data):  # no text has such a byte; a number can, and is encoded again in vain
        return bounded(encoder, msgspec.to_builtins(value, builtin_types=AS_THEY_ARE, enc_hook=encoder.enc_hook, order=order))
    return data
