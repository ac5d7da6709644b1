"""Bytes that identify values: equal values have the same, whatever the order of their keys."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from holdfast.codec.encoding import AS_THEY_ARE, MOST_TEXT, SCALARS, with_offsets
from holdfast.codec.models import dumped
from holdfast.errors import NotJournalable
from holdfast.given import text_of

_SHORT = 500
_canonical = msgspec.msgpack.Encoder(enc_hook=dumped, order="sorted")
_as_given = msgspec.msgpack.Encoder(enc_hook=dumped)


def digest(data: bytes) -> bytes:
    """A 16-byte BLAKE2b digest."""
    return blake2b(data, digest_size=16).digest()


def canonical(value: Any) -> bytes:
    """`value` as MessagePack with sorted keys: equal values give equal bytes. Raises NotJournalable."""
    try:
        return _ordered(value)
    except NotJournalable:
        raise
    except Exception as error:  # as in `encode`
        raise NotJournalable(f"the value cannot be journaled: {text_of(error, MOST_TEXT)}") from error


def body_of(message: Any) -> bytes:
    """A message as MessagePack: the same for another order of its keys, unless they cannot be sorted. Raises NotJournalable, also for a
    number over 64 bits."""
    try:
        return _ordered(message)
    except NotJournalable:
        raise
    except Exception as error:  # as in `encode`
        name = type(message).__qualname__
        raise NotJournalable(f"a value of type {name} cannot be journaled: {text_of(error, MOST_TEXT)}") from error


def _ordered(value: Any) -> bytes:
    try:
        return with_offsets(_canonical, value, "deterministic")
    except TypeError:
        return _with_odd_keys(value)


def _with_odd_keys(value: Any) -> bytes:
    try:  # the encoder sorts keys only where all are text
        return with_offsets(_as_given, msgspec.to_builtins(value, builtin_types=AS_THEY_ARE, enc_hook=dumped, order="sorted"))
    except TypeError:  # keys of several types have no order but their own
        return with_offsets(_as_given, value)


def arguments(of: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """The arguments of a call of `of`, as `canonical`. Raises NotJournalable, which names the argument."""
    # A map if there are keyword arguments, so that no two different calls have the same bytes; "" cannot be a name.
    value = args if not kwargs else {"": args, **kwargs} if args else kwargs
    try:
        if not kwargs:
            # The arguments that most are: none needs the bound.
            for each in args:
                if type(each) not in SCALARS and (type(each) is not str or len(each) > _SHORT):
                    break
            else:
                return _canonical.encode(args)
        try:
            return with_offsets(_canonical, value, "deterministic")
        except TypeError:
            return _with_odd_keys(value)
    except Exception as error:  # as in `encode`
        raise NotJournalable(f"{of}: {_refused(args, kwargs) or text_of(error, MOST_TEXT)}") from error


def _refused(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The first argument that cannot be journaled, and why; "" if each can be for itself."""
    for name, value in (*enumerate(args, 1), *kwargs.items()):
        try:
            canonical(value)
        except NotJournalable as error:
            return f"argument {name}: {error}"
    return ""
