"""The record of a streamed step."""

from __future__ import annotations

import msgspec

from holdfast.calls.models.columns import Columns, pack, unpack
from holdfast.calls.models.dialect import Fields, Tokens
from holdfast.codec.answers import AsItCame, answer_decoder, encode_answer


class Streamed(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of a streamed step.

    Attributes:
        chunks: the provider's chunks; of a stream that was left early, those that the consumer had taken. Old records hold them as they
            are.
        cut: whether the consumer left before the end.
        tokens: its tokens, if they are not in the chunks.
        columns: the chunks as columns: all that a record has of them.
        waiting: whether a consumer that left early was cancelled while it waited for the next chunk, by a timeout of its own, say.
    """

    chunks: list[Fields] = []
    cut: bool = False
    tokens: Tokens | None = None
    columns: Columns | None = None
    waiting: bool = False

    def recorded(self) -> list[Fields]:
        """The chunks, of a record too."""
        return self.chunks if self.chunks or self.columns is None else unpack(self.columns)


class StreamCodec(AsItCame):
    """The codec of a streamed step: its record has the chunks as columns."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Streamed, answer_decoder(Streamed))

    def encode(self, value: Streamed) -> bytes:
        """Raises NotJournalable if a chunk has a value that cannot be stored."""
        return encode_answer(msgspec.structs.replace(value, chunks=[], columns=value.columns or pack(value.chunks)))
