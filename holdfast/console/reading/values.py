"""Stored values for people: decoded, without secrets and control characters, cut to a length."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from holdfast import codec, redact
from holdfast.stores.excerpt import size_left_out

LARGEST = 1 << 15
"""The largest value that people see, in bytes: a larger one is left out."""

_BLANKS = re.compile(r"\x00+")


def plain(data: bytes | None, most: int | None = LARGEST) -> Any:
    """The value of MessagePack, as plain data with secrets masked; None for no data, a note for data that do not decode.

    A note has the size of a value over `most` bytes (None: no limit), and of one that the store left out.
    """
    if not data:
        return None
    if most is not None and len(data) > most:
        return _too_large(len(data))
    try:
        value = codec.decode(data)
        size = size_left_out(value)
        return masked(value) if size is None else _too_large(size)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return f"({len(data)} bytes that do not decode: {clean(str(error))})"


def _too_large(size: int) -> str:
    return f"({size:,} bytes, left out: show --turn N --whole prints them)"


def masked(value: Any, name: str = "") -> Any:
    """Plain data for JSON, with secrets masked; bytes that are text become that text, other bytes a note of their size.

    What stands under a name such as `password`, in a dict, is a secret whatever it is.
    """
    match value:
        case str():
            return value if len(value) < redact.SHORTEST and not name else redact.text(value, name)
        case bytes():
            # Bytes that are text can hold a secret as well as a text can; other bytes mean nothing to a person.
            try:
                return redact.text(value.decode(), name)
            except UnicodeDecodeError:
                return f"({len(value)} bytes)"
        case list() | tuple():
            return [masked(item, name) for item in value]
        case dict():
            return {_key(key): masked(item, key if isinstance(key, str) else "") for key, item in value.items()}
        case None | bool():
            return value
        case int() | float() if name and redact.is_secret(name):
            return redact.MASK
        case int() if not -(1 << 63) <= value < 1 << 64:
            return str(value)
        case int() | float():
            return value
        case _:
            return redact.text(str(value), name)


def _key(key: Any) -> str:
    return redact.text(key if isinstance(key, str) else str(key))


def compact(value: Any, limit: int) -> str:
    """Plain data as JSON on one line, at most `limit` characters; a bare text has no quotes."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return cut(clean(text), limit)


def clean(text: str) -> str:
    """One line without secrets, and without characters that would move the cursor of a terminal or hide a part of the text."""
    text = redact.text(text)
    if not text.isprintable():
        text = _BLANKS.sub(" ", "".join(letter if letter.isprintable() else "\x00" for letter in text))
    return text.strip()


def legible(text: str) -> str:
    """Text of several lines, without characters that would move the cursor (except line feeds and tabs) or hide a part."""
    return "\n".join(line if line.isprintable() else "".join(map(_legible, line)) for line in text.split("\n"))


def _legible(letter: str) -> str:
    return letter if letter.isprintable() or letter == "\t" else " "


def escaped(text: str) -> str:
    """Equivalent JSON with escapes for all control characters of a terminal: JSON itself requires only those below U+0020."""
    return "\n".join(line if line.isprintable() else "".join(map(_escaped, line)) for line in text.split("\n"))


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return letter
    units = letter.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of a text that is clean already: to cut first could leave half a secret, which `clean` would not
    recognise."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
