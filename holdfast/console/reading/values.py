"""Stored values as a person may see them: decoded, without secrets, without control characters, cut to a length."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from holdfast import redact

_decode = msgspec.msgpack.Decoder().decode
# Control characters would let a stored text move the cursor of whoever looks at it.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def plain(data: bytes | None) -> Any:
    """What MessagePack holds, as plain data with secrets masked; None for nothing, a note for what does not decode."""
    if not data:
        return None
    try:
        return masked(_decode(data))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return f"({len(data)} bytes that do not decode: {clean(str(error))})"


def masked(value: Any) -> Any:
    """Plain data that JSON can hold, with secrets masked; bytes that are text as that text, others as a note of their size."""
    match value:
        case str():
            return redact.text(value)
        case bytes():
            # Bytes that are text could hold a secret as well as a text could; others say nothing to a person.
            try:
                return redact.text(value.decode())
            except UnicodeDecodeError:
                return f"({len(value)} bytes)"
        case list() | tuple():
            return [masked(item) for item in value]
        case dict():
            return {_key(key): masked(item) for key, item in value.items()}
        case int() if not -(1 << 63) <= value < 1 << 64:
            return str(value)
        case None | bool() | int() | float():
            return value
        case _:
            return redact.text(str(value))


def _key(key: Any) -> str:
    return redact.text(key if isinstance(key, str) else str(key))


def compact(value: Any, limit: int) -> str:
    """Plain data as JSON on one line, at most `limit` characters; a bare text stays without its quotes."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return cut(clean(text), limit)


def clean(text: str) -> str:
    """One line without secrets and without control characters."""
    text = redact.text(text)
    return (text if text.isprintable() else _CONTROL.sub(" ", text)).strip()


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of a text that is clean already: to cut first could leave half a secret, which nothing recognises."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
