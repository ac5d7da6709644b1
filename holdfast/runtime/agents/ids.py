"""New ids, and checks of ids, reasons and time limits: each store, log and terminal must be able to take them."""

from __future__ import annotations

import os
from hashlib import blake2b

from holdfast.errors import ConfigError

MAX_CHARS = 512
MAX_REASON = 2_000
_PARENT_CHARS, _KEPT_CHARS = 160, 80


def new_id() -> str:
    """A random id of 128 bits, in hex."""
    return os.urandom(16).hex()


def child_id(parent: str, name: str) -> str:
    """The id of the child that a session makes under a name: the parent's id before the name. A long id of the parent is cut, and its
    digest stands for the rest, so that the ids of a deep chain of children do not grow."""
    if len(parent) > _PARENT_CHARS:
        parent = f"{parent[:_KEPT_CHARS]}~{blake2b(parent.encode(), digest_size=16).hexdigest()}"
    return f"{parent}/{name}"


def check_id(what: str, value: object, *, empty: bool = False) -> str:
    """`value`, if it is a valid id.

    Raises:
        ConfigError: it is no text, is empty (unless `empty` allows that), is longer than 512 characters or cannot be printed in one line.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{what} is {value!r}: give text")
    if not value and not empty:
        raise ConfigError(f"{what} is empty: give text")
    if len(value) > MAX_CHARS or not value.isprintable():
        printable = value[:40].encode("ascii", "backslashreplace").decode()
        raise ConfigError(f"{what} is {printable!r}: give at most {MAX_CHARS} printable characters")
    return value


def check_reason(value: object) -> str:
    """A person's reason, as text that can be stored anywhere. Raises ConfigError: it is no text, or longer than 2,000 characters."""
    if not isinstance(value, str) or len(value) > MAX_REASON:
        raise ConfigError(f"reason is no text of at most {MAX_REASON:,} characters")
    return value.encode("utf-8", "backslashreplace").decode()


def check_timeout(value: object) -> None:
    """Raises ConfigError where `value` is neither None nor a number of seconds, 0 or more."""
    # A NaN among a loop's timers would break the order of all of them.
    if value is not None and not (isinstance(value, (int, float)) and value >= 0):
        raise ConfigError(f"timeout_s is {value!r}: give a number of seconds")
