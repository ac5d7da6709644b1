"""The codec of what providers answer, used by model clients only: stored as it came, and built unchecked, as a provider's own SDK does.

Compatible servers leave fields out, add their own, and send what JSON can have and no store can: halves of surrogate pairs, whole numbers
of any length. None of that is a reason to refuse an answer that is paid for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from holdfast.codec.encoding import decode, encode, encoded
from holdfast.codec.models import dumped, is_base_model
from holdfast.codec.numbers import extension
from holdfast.codec.typed import Codec
from holdfast.errors import NotJournalable

_FIRST_HALVES = ("\ud800", "\udbff")


class AsItCame(Codec):
    """The base of codecs whose `encode` alone decides what is kept: its bytes are not compared with the value."""

    __slots__ = ()

    def encode_anyhow(self, value: Any) -> bytes:
        return self.encode(value)

    def round_trip(self, value: Any) -> tuple[bytes, Any]:
        data = self.encode(value)
        return data, self.decode(data)


class AnswerCodec(AsItCame):
    """The codec of an SDK's model: its bytes are the fields that the provider sent."""

    __slots__ = ("_fields_of",)

    def __init__(self, type_: Any, fields_of: Callable[[Any], dict[str, Any]]) -> None:
        """`fields_of` gives the fields of an answer that the provider sent, as plain data."""
        super().__init__(type_, self._decode)
        self._fields_of = fields_of

    def encode(self, value: Any) -> bytes:
        return encode_answer(self._fields_of(value))

    def _decode(self, data: bytes) -> Any:
        return self.type.model_construct(**decode(data))


def encode_answer(value: Any) -> bytes:
    """The bytes of an answer. Raises NotJournalable where it has what JSON cannot have."""
    try:
        return encode(value)
    except NotJournalable as error:
        if not isinstance(error.__cause__, UnicodeError):
            raise
        return encode(_storable(msgspec.to_builtins(value)))


def answer_decoder(type_: Any) -> Callable[[bytes], Any]:
    """The decoder of a type whose untyped parts are parts of an answer."""
    decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(type_, ext_hook=extension).decode
    return decode


def _storable(value: Any) -> Any:
    """As MessagePack can hold it: with U+FFFD for half of a surrogate pair."""
    if isinstance(value, str):
        return joined(value)
    if isinstance(value, dict):
        return {_storable(key): _storable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(each) for each in value]
    return value


def joined(text: str) -> str:
    """`text` with each two halves of a surrogate pair as their character, and U+FFFD for each half alone."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class Halves:
    """Joins the halves of surrogate pairs in the chunks of a streamed answer: a tokenizer can cut an emoji, and the halves come in two
    chunks. The first half waits for the text that comes next at the same place."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[tuple[Any, ...], str] = {}

    def take(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """The next chunk, as text can hold it. Raises NotJournalable where it has what JSON cannot have."""
        if not self._waiting:
            try:
                encode(chunk)
                return chunk
            except NotJournalable as error:
                if not isinstance(error.__cause__, UnicodeError):
                    raise
        whole: dict[str, Any] = self._joined(chunk, ())
        return whole

    def _joined(self, value: Any, place: tuple[Any, ...]) -> Any:
        if isinstance(value, dict):
            return {joined(key): self._joined(each, (*place, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self._joined(each, (*place, _index_of(each, at))) for at, each in enumerate(value)]
        if not isinstance(value, str) or not value:
            return value
        text = self._waiting.pop(place, "") + value
        if _FIRST_HALVES[0] <= text[-1] <= _FIRST_HALVES[1]:
            self._waiting[place], text = text[-1], text[:-1]
        return joined(text)


def _index_of(item: Any, at: int) -> int | str:
    """The place of an item among those of the whole answer, by what it says itself; a server can send anything there."""
    index = item.get("index") if isinstance(item, dict) else None
    return index if isinstance(index, int | str) else at


def _as_sent(value: Any) -> Any:
    if is_base_model(type(value)):
        # As an SDK sends it, so that people see what the model saw.
        return value.model_dump(mode="json", exclude_unset=True, warnings=False)
    return dumped(value)


_canonical = msgspec.msgpack.Encoder(enc_hook=_as_sent, order="sorted")


def request_bytes(value: Any) -> bytes:
    """A request to a provider as MessagePack with sorted keys: of an SDK's models the fields that it sends. Raises NotJournalable."""
    return encoded(_canonical, value)
