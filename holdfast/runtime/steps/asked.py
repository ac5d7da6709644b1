"""A step as the handler asks for it, and the conversions between a value and its record."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from holdfast import redact
from holdfast.codec import Codec, codec_for
from holdfast.errors import NotJournalable, StepError
from holdfast.given import text_of
from holdfast.policies.classify import MESSAGE_MAX, classify
from holdfast.runtime.turns.failures import NOT_KEPT, error_of, failure_of
from holdfast.stores.records import Failure, Outcome

plain = codec_for(Any)


class Asked(Protocol):
    """A step as the handler asks for it: a Call to the outside, or an Ask."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def effect(self) -> Any: ...
    @property
    def args(self) -> bytes: ...
    @property
    def codec(self) -> Codec: ...
    @property
    def timeout_s(self) -> float: ...
    @property
    def costs(self) -> bool: ...


class Ask(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A step that performs no effect outside: a wait, a message, a spawn. The other fields are those of a Call.

    Attributes:
        target: the session that it waits for or makes.
    """

    kind: str
    name: str
    args: bytes
    effect: str = "read"
    codec: Codec = plain
    timeout_s: float = 60.0
    costs: bool = False
    target: str | None = None


def kept(asked: Asked, value: Any) -> Outcome:
    """The outcome of a step whose effect returned `value`.

    A value that the journal cannot hold fails a `read`, which may run again. Another effect still counts as done: its outcome records that,
    and that the result is lost. What of it can be kept, is: as the plain data that a part without a type of its own is made of.
    """
    try:
        if asked.effect == "read":
            return Outcome(asked.codec.encode(value))
        data = asked.codec.encode_anyhow(value)
        asked.codec.decode(data)
        return Outcome(data)
    except Exception as error:  # a user's own type can raise any error; no error may keep an effect from being recorded as done
        if asked.effect == "read":
            if isinstance(error, NotJournalable):
                return Outcome(failure=failure_of(asked.name, classify(error, 0.0)))
            raise
        text = f"{asked.name} was done, and its result cannot be stored: {error}"
        return Outcome(failure=Failure("StepError", asked.name, NOT_KEPT, redact.storable(text)[:2_000]))


def result(asked: Asked, outcome: Outcome) -> Any:
    """The value that a step with this outcome returns, live and replayed. Raises StepError or a subclass."""
    if outcome.failure is not None:
        raise error_of(outcome.failure)
    try:
        return asked.codec.decode(outcome.value)
    except Exception as error:  # also what a user's own type raises where it checks its fields
        # The answer is recorded and paid: the caller has to handle it.
        text = text_of(error, MESSAGE_MAX)
        raise StepError(asked.name, type(error).__name__, f"the recorded result does not fit {asked.codec.type!r}: {text}") from error
