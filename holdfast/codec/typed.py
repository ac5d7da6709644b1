"""The codec of users' types: state, messages, replies, arguments and results."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from holdfast.codec.encoding import MOST_TEXT, encode
from holdfast.codec.kinds import kind_of
from holdfast.codec.models import read_model, reader
from holdfast.codec.numbers import extension
from holdfast.codec.plain import check_plain, encode_plain, why_untyped
from holdfast.codec.same import difference
from holdfast.codec.shape import fingerprint_of
from holdfast.errors import NotJournalable
from holdfast.given import text_of


class Codec:
    """Encodes values of one type and decodes them back to it.

    Attributes:
        type: the annotation.
        plain: whether it is Any: takes plain data only, and gives plain data.
        decode: the value of bytes. Raises a ValueError, or what a user's validator raises.
    """

    __slots__ = ("_fingerprint", "decode", "plain", "type")

    decode: Callable[[bytes], Any]

    def __init__(self, type_: Any, decode: Callable[[bytes], Any] | None = None) -> None:
        self.type = type_
        self.plain = type_ is Any
        self._fingerprint = 0
        self.decode = decode or msgspec.msgpack.Decoder(type_, dec_hook=read_model, ext_hook=extension).decode

    @property
    def fingerprint(self) -> int:
        """That of the type: see `shape`."""
        self._fingerprint = self._fingerprint or fingerprint_of(self.type)
        return self._fingerprint

    def encode(self, value: Any) -> bytes:
        """The bytes.

        Raises:
            NotJournalable: `value` is not data, or a part of it that has no type of its own would come back as another value. Only
                `round_trip` checks that it is of the type.
        """
        return encode(value)

    def encode_anyhow(self, value: Any) -> bytes:
        """The bytes, also where a part of `value` comes back as the plain data that it is made of. Raises NotJournalable where it is no
        data at all."""
        return encode(value)

    def round_trip(self, value: Any) -> tuple[bytes, Any]:
        """The bytes, and the value that they decode to. Raises NotJournalable if `value` is not of the type, or would come back as another
        value."""
        data = encode(value)
        try:
            got = self.decode(data)
            if type(value) is type(got) and value == got:
                return data, got
        except Exception:  # also an exception of a user's own validator or comparison
            got = self._decoded(data)
        _check(value, got)
        return data, got

    def why_lost(self, message: Any, got: Any) -> str:
        """Why a message would lose something at a receiver of this type, as which it decodes to `got`; "" where it would not. Structured
        types arrive as their fields, and fields that the receiver does not declare are its own business."""
        return ""

    def _decoded(self, data: bytes) -> Any:
        try:
            return self.decode(data)
        except Exception as error:  # also an exception of a user's own validator
            raise NotJournalable(f"the value does not read back as {self.type!r}: {text_of(error, MOST_TEXT)}") from error


class _Plain(Codec):
    """Without a type: plain data."""

    __slots__ = ()

    def encode(self, value: Any) -> bytes:
        return encode_plain(value)

    def round_trip(self, value: Any) -> tuple[bytes, Any]:
        data = encode_plain(value)
        return data, self._decoded(data)

    def why_lost(self, message: Any, got: Any) -> str:
        return why_untyped(message)


class _Untyped(Codec):
    """A dict or list whose parts have no type, or those of plain data."""

    __slots__ = ()

    def encode(self, value: Any) -> bytes:
        data = encode(value)
        check_plain(value)
        return data

    def round_trip(self, value: Any) -> tuple[bytes, Any]:
        data = self.encode(value)
        return data, self._decoded(data)

    def why_lost(self, message: Any, got: Any) -> str:
        return why_untyped(message)


class _ByValue(Codec):
    """A type of which a part has no type of its own, so that only the value shows whether it comes back."""

    __slots__ = ()

    def encode(self, value: Any) -> bytes:
        data = encode(value)
        try:
            got = self.decode(data)
        except Exception:  # not of the type: for `decode` to tell
            return data
        if not _equal(value, got):
            _check(value, got)
        return data

    def why_lost(self, message: Any, got: Any) -> str:
        return "" if _equal(message, got) else difference(message, got, structured=True)


def _check(value: Any, got: Any) -> None:
    if why := difference(value, got):
        raise NotJournalable(f"the value cannot be journaled: {why}")


def _equal(value: Any, got: Any) -> bool:
    try:
        return type(value) is type(got) and bool(value == got)
    except Exception:  # a user's own comparison can raise anything: the parts are compared
        return False


@lru_cache(maxsize=4096)
def codec_for(type_: Any) -> Codec:
    """The codec of an annotation.

    Raises:
        NotJournalable: values of this type cannot be journaled; the message names the part of it.
    """
    if type_ is None or type_ is type(None):
        return Codec(None)
    if type_ is inspect.Signature.empty or type_ is Any or type_ is object:
        return _Plain(Any)
    kind = kind_of(type_)
    made = _Untyped if kind.untyped else _ByValue if kind.by_value else Codec
    return made(type_, reader(type_) if kind.adapted else None)
