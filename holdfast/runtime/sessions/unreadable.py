"""Which of a session's rows do not decode, as text: pure."""

from __future__ import annotations

from holdfast import codec
from holdfast.stores.records import Loaded, Message


def unreadable(loaded: Loaded) -> str:
    """The first row of the open turn or of the last commit that does not decode; "" for none."""
    if loaded.checkpoint.unreadable:
        return f"the row of turn {loaded.checkpoint.turn} does not decode ({loaded.checkpoint.unreadable})"
    step = next((step for step in loaded.steps if step.unreadable), None)
    if step is not None and not step.key:
        return f"its open turn cannot be read ({step.unreadable})"
    return "" if step is None else f"record {step.key.hex()} of turn {step.turn} does not decode ({step.unreadable})"


def unreadable_message(message: Message) -> str:
    """Why a message cannot be read; "" where it can. A body with the right digest can be read, also one of a wrong type."""
    if message.unreadable:
        return f"the row of message {message.id!r} does not decode ({message.unreadable})"
    return "" if codec.digest(message.body) == message.digest else f"the body of message {message.id!r} does not match its digest"
