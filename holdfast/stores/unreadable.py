"""Rows that do not decode: a flipped byte, another program's data. Each is loaded as a stand-in that has the reason.

The session of the row parks (reason "state") and runs no code; no other session is affected. No write changes such a row, so that it can
be restored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from holdfast.errors import StateError
from holdfast.stores.records import Step, StepRecord, StepState

T = TypeVar("T")
_decode_record = msgspec.msgpack.Decoder(StepRecord).decode
_STATES: dict[int, StepState] = {int(state): state for state in StepState}

FAULTS = (msgspec.MsgspecError, ValueError, TypeError, ArithmeticError, RecursionError)
"""The errors of reading a row that does not decode: no MessagePack, another type, no UTF-8, an unknown state, too deeply nested."""

UNREADABLE = "unreadable"
"""The value of an Enqueue that is REFUSED because the row of its session does not decode."""


def cannot_load(session: str, why: str) -> StateError:
    """The error of callers of a session that cannot be loaded."""
    return StateError(session, f"session {session!r} cannot be loaded: {why}; restore it from a backup, then start again")


def read(decode: Callable[[], T], instead: T) -> tuple[T, str]:
    """The result of `decode` and ""; where it does not decode, `instead` and the reason."""
    try:
        return decode(), ""
    except FAULTS as error:
        return instead, str(error)


def read_state(state: int) -> StepState:
    """A stored state of a step; OPEN, where its outcome counts as unknown, for one that is none."""
    return _STATES.get(state, StepState.OPEN)


def read_step(key: bytes, state: int, body: bytes, turn: int) -> Step:
    """A step's row. One that does not decode is a stand-in: it may be of any effect, so it is listed with the effects of its turn."""
    try:
        return Step(key, _STATES.get(state) or StepState(state), _decode_record(body), turn)
    except FAULTS as error:
        there = read_state(state)
        name = f"unreadable record {key.hex()}"
        return Step(key, there, StepRecord("unreadable", name, "", b"", 0, "once", note=str(error)), turn, str(error))


def missing_step(num: object) -> Step:
    """The stand-in of a step whose row, of this number, is gone."""
    why = f"row {num} of its steps is missing"
    return Step(b"", StepState.OPEN, StepRecord("unreadable", f"missing record {num}", "", b"", 0, "once", note=why), 0, why)
