"""The answer of a gate to an attempt: it may go, or has to wait until a time."""

from __future__ import annotations

import msgspec


class Go(msgspec.Struct, frozen=True):
    """The step may proceed. Compare with `is GO`."""


class Wait(msgspec.Struct, frozen=True):
    """The step may ask again later.

    Attributes:
        until: when to ask again, on the clock of the `now` that the gate got.
        reason: one line for `ps` and the trace.
        crowded: more calls wait for the same than may go then: ask a little later, at a random time.
    """

    until: float
    reason: str
    crowded: bool = False


GO = Go()

Verdict = Go | Wait
