"""The life of a session in memory as one table: (state, signal) to (state, action)."""

from __future__ import annotations

from enum import IntEnum, auto
from typing import Literal

import msgspec

from holdfast.runtime.turns.verdict import Why


class Life(IntEnum):
    """The states of a session in memory. (The hash of an IntEnum costs a tenth of that of an Enum, and each turn looks into the table.)"""

    IDLE = auto()  # it has no task: it has no work, or must not do any
    RUNNING = auto()  # its task handles messages
    WOKEN = auto()  # the same, and the answer that its turn is about to park for came meanwhile
    BACKING_OFF = auto()  # its turn crashed, and is restarted after a pause
    HOLDING = auto()  # a person pauses it: it parks as soon as no step is in flight
    DROPPING = auto()  # a person gives its turn up
    STALE = auto()  # the store may have more than its memory: it is read again when its task has ended
    ENDED = auto()  # cancelled, killed or finished


class Signal(IntEnum):
    """The events in the life of a session."""

    KICK = auto()  # there is a message, or its wake time has come
    BEGIN = auto()  # it begins to handle a message
    ANSWER = auto()  # the answer that its turn is about to park for has come
    CRASH = auto()  # its turn crashed
    RESTART = auto()  # the pause after that is over
    HOLD = auto()  # a person pauses it
    DROP = auto()  # a person gives its turn up
    UNSURE = auto()  # a write that concerns it has an unknown outcome
    DRAIN = auto()  # the process will stop once no step is in flight
    STOP = auto()  # the process stops now
    END = auto()  # the session has ended
    OVER = auto()  # its task has ended


class GiveUp(msgspec.Struct, frozen=True):
    """A person's request to give up the turn of this message."""

    message: str
    cause: str


Action = Literal["", "start", "leave", "reread", "wake"]
"""start: begin a task. leave: interrupt the turn. wake: cut the pause short. reread: drop it from memory and read it again."""

L, S = Life, Signal
WORKING = (L.RUNNING, L.WOKEN)
WHY: dict[Signal, Why] = {
    S.HOLD: "pause", S.UNSURE: "unsure", S.DROP: "dropped", S.DRAIN: "drain", S.STOP: "stopped", S.END: "ended",
}  # fmt: skip
"""Why the turn is left at a signal."""

_MOVES: dict[tuple[Life, Signal], tuple[Life, Action]] = {
    (L.IDLE, S.KICK): (L.RUNNING, "start"),
    (L.IDLE, S.HOLD): (L.HOLDING, "start"),
    (L.IDLE, S.DROP): (L.DROPPING, "start"),
    (L.IDLE, S.UNSURE): (L.STALE, "reread"),
    (L.RUNNING, S.ANSWER): (L.WOKEN, ""),
    (L.RUNNING, S.CRASH): (L.BACKING_OFF, ""),
    (L.RUNNING, S.HOLD): (L.HOLDING, "leave"),
    (L.RUNNING, S.DROP): (L.DROPPING, "leave"),
    (L.RUNNING, S.UNSURE): (L.STALE, "leave"),
    (L.RUNNING, S.DRAIN): (L.RUNNING, "leave"),
    (L.RUNNING, S.STOP): (L.RUNNING, "leave"),
    (L.WOKEN, S.BEGIN): (L.RUNNING, ""),
    (L.BACKING_OFF, S.RESTART): (L.RUNNING, ""),
    (L.BACKING_OFF, S.HOLD): (L.HOLDING, "wake"),
    (L.BACKING_OFF, S.DROP): (L.DROPPING, "wake"),
    (L.BACKING_OFF, S.UNSURE): (L.STALE, "wake"),
    (L.BACKING_OFF, S.DRAIN): (L.RUNNING, "wake"),
    (L.BACKING_OFF, S.STOP): (L.RUNNING, "wake"),
    (L.HOLDING, S.HOLD): (L.HOLDING, "leave"),
    (L.HOLDING, S.DROP): (L.DROPPING, "leave"),
    (L.HOLDING, S.UNSURE): (L.STALE, "leave"),
    (L.HOLDING, S.DRAIN): (L.HOLDING, "leave"),
    (L.HOLDING, S.STOP): (L.HOLDING, "leave"),
    (L.DROPPING, S.UNSURE): (L.STALE, ""),
    (L.DROPPING, S.STOP): (L.DROPPING, "leave"),
    (L.STALE, S.DRAIN): (L.STALE, "leave"),
    (L.STALE, S.STOP): (L.STALE, "leave"),
    **{(life, S.OVER): (L.IDLE, "") for life in L if life is not L.ENDED},
    **{(life, S.END): (L.ENDED, "leave") for life in L if life not in (L.IDLE, L.BACKING_OFF)},
    (L.IDLE, S.END): (L.ENDED, ""),
    (L.BACKING_OFF, S.END): (L.ENDED, "wake"),
}


def move(life: Life, signal: Signal) -> tuple[Life, Action]:
    """The next state and the action; a pair that is not in the table changes nothing."""
    found = _MOVES.get((life, signal))
    if found is not None:
        return found
    if life is L.WOKEN:  # all other moves are those of RUNNING; where they stay in RUNNING, it stays WOKEN
        after, action = _MOVES.get((L.RUNNING, signal), (L.WOKEN, ""))
        return (L.WOKEN if after is L.RUNNING else after), action
    return life, ""
