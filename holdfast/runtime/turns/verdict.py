"""The ways in which one run of a turn ends: exactly one of these."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from holdfast.stores.records import Park

Why = Literal["park", "drain", "pause", "unsure", "lost", "dropped", "ended", "stopped"]
GENTLE: frozenset[Why] = frozenset({"drain", "pause", "unsure"})
"""Interruptions that wait until no step is in flight, and that do not concern a handler that has ended by itself."""


class Returned(msgspec.Struct, frozen=True):
    value: Any


class Crashed(msgspec.Struct, frozen=True):
    error: BaseException


class Interrupted(msgspec.Struct, frozen=True):
    """The run was left before its end.

    Attributes:
        why: "park" and "pause" (with `park`), "drain", "unsure" (a write may not be there: read again once nothing is
            in flight; where it is one of the turn itself, the run ends as "lost"), "lost" (fenced, or the store failed: read again
            now), "dropped" (a person gives the turn up), "ended" (the session was cancelled or killed) or "stopped" (the process ends
            before the steps in flight do).
        cause: for "lost", the reason as text; with `park` where a write was refused: the store is not read again, the session parks.
    """

    why: Why
    park: Park | None = None
    cause: str = ""


Verdict = Returned | Crashed | Interrupted
