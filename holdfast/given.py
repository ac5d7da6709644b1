"""What users and models give, before it is known to be sound: as a short line of text, and as a number. No function here ever raises.

The text of an error quotes the value that is wrong. That value can be of any type and size, its `__repr__` can raise, and an integer of
5,000 digits has no text at all. An error that cannot be built would hide the one that it is about.
"""

from __future__ import annotations

import math
import reprlib
from decimal import Decimal
from itertools import islice
from typing import Any, TypeGuard

import msgspec

LARGEST = 10**12
"""The largest count, and the longest time in seconds, of any setting: a larger one would overflow where it is used."""

LONGEST = 200
"""The most characters of a value in the text of an error."""

_PARTS = 2_000
"""The most characters of each argument in the text of an exception."""


class _Short(reprlib.Repr):
    """As `reprlib`, which looks at the first items only, but without sorting all keys for it."""

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        if level <= 0:
            return "{...}"
        items = [f"{self.repr1(key, level - 1)}: {self.repr1(x[key], level - 1)}" for key in islice(x, self.maxdict)]
        return "{" + ", ".join(items + ["..."] * (len(x) > self.maxdict)) + "}"

    def repr_set(self, x: Any, level: int) -> str:
        return f"<{type(x).__name__} of {len(x)} items>"

    repr_frozenset = repr_set

    def repr_instance(self, x: Any, level: int) -> str:
        if isinstance(x, msgspec.Struct):
            fields = (f"{name}={self.repr1(getattr(x, name), level - 1)}" for name in x.__struct_fields__)
            return f"{type(x).__name__}({', '.join(fields)})" if level > 0 else f"{type(x).__name__}(...)"
        try:
            return _cut(repr(x), self.maxother)
        except Exception:  # a user's own `__repr__` can raise anything
            return f"<{type(x).__name__}>"

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x[: self.maxstring])


_short = _Short()
_short.maxstring = _short.maxother = LONGEST
_short.maxlong = 40
_long = _Short()
_long.maxstring = _long.maxother = _PARTS
_long.maxlist = _long.maxtuple = _long.maxdict = 100


def brief(value: object) -> str:
    """`value` as it would stand in code, in one line of at most 200 characters."""
    text = _repr(_short, value)
    return _cut(text if text.isprintable() else text.encode("unicode_escape", "replace").decode("ascii"), LONGEST)


def text_of(error: BaseException, most: int) -> str:
    """The text of an exception, at most `most` characters, where each argument of it counts with its beginning only.

    An exception's own `__str__` is called only where its class defines one.
    """
    how, args = type(error).__str__, error.args
    try:
        if how is KeyError.__str__ and len(args) == 1:
            text = _repr(_long, args[0])
        elif how is BaseException.__str__ or how is KeyError.__str__:
            text = _text(args[0]) if len(args) == 1 else f"({', '.join(_repr(_long, each) for each in args[:10])})" if args else ""
        elif how is BaseExceptionGroup.__str__ and isinstance(error, BaseExceptionGroup):
            many = len(error.exceptions)
            text = f"{error.message[:most]} ({many} sub-exception{'s' if many > 1 else ''})"
        else:
            text = str(error)
    except Exception:  # an exception's own text can raise anything, and the failure that it is about still has to be recorded
        text = "(its text cannot be read)"
    return _cut(text, most)


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    return _repr(_long, value) if isinstance(value, int | bytes | list | tuple | dict | set | frozenset) else str(value)


def is_a(value: object, kind: type) -> bool:
    """As `isinstance`, for an argument of that annotation: a caller can still give another type."""
    return isinstance(value, kind)


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite int or float, and no bool. An int that no float can hold is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def decimal_of(value: object) -> Decimal | None:
    """An amount that is given as a Decimal, a number or a numeric string, as it is printed; None where it is no finite amount."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str) or (isinstance(value, str) and len(value) > LONGEST):
        return None
    try:
        exact = Decimal(str(value))
    except (ArithmeticError, ValueError):  # no number, or an int of too many digits
        return None
    return exact if exact.is_finite() else None


def _repr(short: _Short, value: object) -> str:
    try:
        return short.repr(value)
    except Exception:  # also a ValueError for an int of too many digits, and what a `__repr__` of a user raises
        return f"<{type(value).__name__}>"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
