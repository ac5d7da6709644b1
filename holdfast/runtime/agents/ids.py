"""New ids, and checks of ids, reasons and time limits: each store, log and terminal must be able to take them."""

from __future__ import annotations

import math
import os
from hashlib import blake2b

from holdfast.errors import ConfigError
from holdfast.given import brief, is_number

MAX_CHARS = 512
MAX_REASON = 2_000
_PARENT_CHARS, _KEPT_CHARS, _NAME_CHARS = 160, 80, 64


def new_id() -> str:
    """A random id of 128 bits, in hex."""
    return os.urandom(16).hex()


def child_id(parent: str, name: str) -> str:
    """The id of the child that a session makes under a name: the parent's id before the name. A long id of the parent is cut, so that the
    ids of a deep chain of children do not grow."""
    return f"{_cut(parent, _PARENT_CHARS)}/{name}"


def turn_id(session: str, turn: int) -> str:
    """The name of a turn among those of all sessions, which the ids of its messages begin with: these are valid ids, too."""
    return f"{_cut(session, MAX_CHARS - _NAME_CHARS)}/{turn}/"


def _cut(id: str, most: int) -> str:
    """`id`; a longer one is cut, and its digest stands for the rest."""
    return id if len(id) <= most else f"{id[:_KEPT_CHARS]}~{blake2b(id.encode(), digest_size=16).hexdigest()}"


def check_id(what: str, value: object, *, empty: bool = False) -> str:
    """`value`, if it is a valid id.

    Raises:
        ConfigError: it is no text, is empty (unless `empty` allows that), is longer than 512 characters or cannot be printed in one line.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{what} is {brief(value)}: give text")
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
    if value is not None and not (value == math.inf or (is_number(value) and value >= 0)):
        raise ConfigError(f"timeout_s is {brief(value)}: give a number of seconds")
