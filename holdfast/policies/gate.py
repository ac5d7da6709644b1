"""The answer of a gate to a step: go, wait until a time, or a refusal with the error that the handler gets."""

from __future__ import annotations

import msgspec


class Go(msgspec.Struct, frozen=True):
    """The step may proceed. Compare with `is GO`."""


class Wait(msgspec.Struct, frozen=True):
    """The step may ask again later.

    Attributes:
        until: when to ask again, on the clock of the `now` that the gate got.
        reason: one line for `ps` and the trace.
    """

    until: float
    reason: str


GO = Go()

Verdict = Go | Wait
