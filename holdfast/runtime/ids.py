"""What may be an id: text that every store, log and terminal can take."""

from __future__ import annotations

from holdfast.errors import ConfigError

MAX_CHARS = 512


def check_id(what: str, value: object, *, empty: bool = False) -> str:
    """`value`, if it can be an id.

    Raises:
        ConfigError: it is no text, is empty (unless `empty` allows that), is longer than 512 characters or cannot be printed in one line.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{what} is {value!r}: give text")
    if not value and not empty:
        raise ConfigError(f"{what} is empty: give text")
    if len(value) > MAX_CHARS or not value.isprintable():
        shown = value[:40].encode("ascii", "backslashreplace").decode()
        raise ConfigError(f"{what} is {shown!r}: give at most {MAX_CHARS} printable characters")
    return value
