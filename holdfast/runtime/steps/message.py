"""The message of a step that sends one, and the arguments that identify the step: its target, the message, and the id if one was given."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from holdfast.codec import Codec, body_of, canonical, why_untyped
from holdfast.runtime.agents.ids import check_id

_parts = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_text = msgspec.msgpack.Decoder(str).decode


class Sent(NamedTuple):
    """A message that a step sends.

    Attributes:
        target: the session that it is for.
        body: the message, as bytes.
        id: the id that the code gave; None where it is that of the step.
        value: the message; UNSET where the step is answered from its record.
    """

    target: str
    body: bytes
    id: str | None
    value: Any = msgspec.UNSET

    @property
    def args(self) -> bytes:
        """The arguments of its step. An id is part of what the code asked for, so it is part of the step's identity."""
        parts = (self.target, msgspec.Raw(self.body))
        return canonical(parts if self.id is None else (*parts, self.id))

    def why_lost(self, codec: Codec | None, got: Any = None) -> str:
        """Why a receiver of this type, as which the message decodes to `got`, would get something else; "" where it would not. Without a
        codec: one that declares no type."""
        if self.value is msgspec.UNSET:
            return ""
        return why_untyped(self.value) if codec is None else codec.why_lost(self.value, got)


def message(target: str, value: Any, id: str | None) -> Sent:
    """A message to a session.

    Raises:
        ConfigError: `target` or `id` is no id.
        NotJournalable: `value` cannot be encoded.
    """
    check_id("session", target)
    if id is not None:
        check_id("message id", id)
    return Sent(target, body_of(value), id, value)


def read(args: bytes) -> Sent:
    """The message of a step with these arguments."""
    target, body, *id = _parts(args)
    return Sent(_text(target), bytes(body), _text(id[0]) if id else None)
