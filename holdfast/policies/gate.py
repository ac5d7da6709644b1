"""What a gate answers when a step asks to pass: go, wait until a time, or a refusal with the error that the handler gets."""

from __future__ import annotations

import msgspec


class Go(msgspec.Struct, frozen=True):
    """The step may go on. Compare with `is GO`."""


class Wait(msgspec.Struct, frozen=True):
    """The step may ask again later.

    Attributes:
        until: when to ask again, on the clock that the gate was given.
        reason: one line for `ps` and the trace.
    """

    until: float
    reason: str


GO = Go()

Verdict = Go | Wait
