"""Whole numbers over 64 bits, which MessagePack does not have: an extension of it holds them."""

from __future__ import annotations

from typing import Any

import msgspec

_LONG = 1
"""The code of the extension: the number is big-endian, with its sign."""


def extension(code: int, data: memoryview) -> Any:
    """The hook of decoders. Another extension stays as it is."""
    if code != _LONG:
        return msgspec.msgpack.Ext(code, bytes(data))
    return int.from_bytes(data, "big", signed=True)


def pack(value: Any) -> bytes:
    """Any value that msgspec knows, without a bound: for what is sent and not kept. Raises as msgspec's encoder."""
    try:
        return msgspec.msgpack.encode(value)
    except OverflowError:
        return msgspec.msgpack.encode(extended(msgspec.to_builtins(value, builtin_types=(bytes,))))


def unpack(data: bytes, type: Any = Any) -> Any:
    """What `pack` made, as this type. Raises msgspec.MsgspecError or ValueError."""
    return msgspec.msgpack.decode(data, type=type, ext_hook=extension)


def extended(value: Any) -> Any:
    """Builtins with each long number as an extension."""
    kind = type(value)
    if kind is dict:
        return {extended(key): extended(each) for key, each in value.items()}
    if kind is list or kind is tuple:
        return [extended(each) for each in value]
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return msgspec.msgpack.Ext(_LONG, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    return value
