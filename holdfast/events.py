"""What happened, as values that anything may emit and anything may observe.

Events leave sideways: nothing waits for an observer, and what an observer raises is logged and goes no further. They may be lost; the
journal may not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

log = logging.getLogger("holdfast")


class Event(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The base of all events; `session` is the id of the session it is about."""

    session: str


class Spawned(Event, frozen=True):
    """A session was made, durable; `agent` is the name of its agent."""

    agent: str


class Resumed(Event, frozen=True):
    """A session was loaded into memory; `records` of its open turn were there."""

    epoch: int
    records: int


class TurnStarted(Event, frozen=True):
    """A run of a turn begins, in the task that its handler's context is copied from; a turn may be run again after a crash or a park.

    Attributes:
        context: the trace of whoever sent the message (holdfast.telemetry.context), "" for none.
        began: store time at which the turn began, on its first run.
    """

    turn: int
    message: str
    restarts: int
    agent: str
    tenant: str
    user: str
    context: str
    began: float


class TurnCommitted(Event, frozen=True):
    """The turn is done; `tokens` and `microusd` are what all of it cost."""

    turn: int
    message: str
    status: str
    tokens: int = 0
    microusd: int = 0


class TurnLeft(Event, frozen=True):
    """A run of a turn was interrupted; it resumes later, or its session has ended. `why`: "park", "pause", "drain", "stopped", "unsure",
    "lost", "dropped" or "ended" (see holdfast.runtime.turns.verdict.Interrupted)."""

    turn: int
    why: str


class TurnCrashed(Event, frozen=True):
    """The handler raised; the turn starts again after `delay_s`, or is given up if that is None."""

    turn: int
    error: str
    delay_s: float | None = None


class StepStarted(Event, frozen=True):
    """A step has no result on record and is about to run, in the task that it runs in.

    Attributes:
        key: its identity within the session, the same on every run of the turn.
        opened: store time at which it began, on its first run.
    """

    turn: int
    key: bytes
    kind: str
    name: str
    effect: str
    opened: float


class StepEnded(Event, frozen=True):
    """A step ran and its record is written, in the task that it ran in.

    Attributes:
        ok: False for a final failure.
        tokens, microusd: what all its attempts cost.
        error, cause: of a failure, its type and its text.
        facts: what its call tells about the answer (see holdfast.calls.call.Call.facts); None where it tells nothing.
    """

    turn: int
    kind: str
    name: str
    effect: str
    ok: bool
    attempts: int
    duration_s: float
    key: bytes = b""
    tokens: int = 0
    microusd: int = 0
    error: str = ""
    cause: str = ""
    facts: Mapping[str, Any] | None = None


class StepLeft(Event, frozen=True):
    """A step was under way when its turn was left or its caller let go of it, in the task that it ran in."""

    turn: int
    key: bytes
    kind: str
    name: str


class StepReplayed(Event, frozen=True):
    """A step had a record: it did not run."""

    turn: int
    kind: str
    name: str


class StepRetried(Event, frozen=True):
    """Attempt `attempt` (from 1) of a step failed; the next one is made after `delay_s`."""

    turn: int
    name: str
    attempt: int
    cause: str
    delay_s: float


class MaybePaid(Event, frozen=True):
    """A call that costs was in flight at a crash and is made again: both are charged."""

    turn: int
    name: str


class DoubtRaised(Event, frozen=True):
    """Nobody knows whether this `once` effect happened."""

    turn: int
    name: str
    cause: str


class DoubtSettled(Event, frozen=True):
    """`verdict`: "done", "not done", "retry" or "fail"; `by`: "reconcile" or "person"."""

    turn: int
    name: str
    verdict: str
    by: str


class Drifted(Event, frozen=True):
    """The code asked for something slightly different than before the crash and got the old record."""

    turn: int
    kind: str
    name: str


class Unclaimed(Event, frozen=True):
    """A record that the code never asked for by the end of the turn."""

    turn: int
    kind: str
    name: str


class SessionParked(Event, frozen=True):
    """A session waits, and takes no memory meanwhile.

    Attributes:
        reason: what for, as one word: "doubt", "budget", "paused", "wait" and others.
        text: the same for people.
        until: store time at which it resumes by itself, in seconds; None if something else has to happen.
    """

    reason: str
    text: str
    until: float | None = None


class SessionFailed(Event, frozen=True):
    """A message became a dead letter."""

    message: str
    cause: str


class Undelivered(Event, frozen=True):
    """A message that was told to this session found it ended when it left; nobody will handle it."""

    message: str
    why: str


class SessionEndedEvent(Event, frozen=True, tag="SessionEnded"):
    """A session has ended; `status`: "finished", "cancelled" or "killed"."""

    status: str


class SessionStuck(Event, frozen=True):
    """A handler did not end when it was cancelled: it is fenced and left behind."""

    turn: int


class StoreFailed(Event, frozen=True):
    """A write failed or its outcome is unknown: the session is read again."""

    cause: str


Observer: TypeAlias = Callable[[Event], None]


class Observers:
    """Who gets the events. Falsy when nobody does, so that an event need not even be made."""

    __slots__ = ("all",)

    def __init__(self) -> None:
        self.all: list[Observer] = []

    def __bool__(self) -> bool:
        return bool(self.all)

    def add(self, observer: Observer) -> None:
        """Call `observer` with every event from now on, synchronously: it has to be quick."""
        self.all.append(observer)

    def remove(self, observer: Observer) -> None:
        """Stop calling `observer`. Raises ValueError if it was never added."""
        self.all.remove(observer)

    def emit(self, event: Event) -> None:
        """Call every observer with the event, in order; what one raises is logged."""
        for observer in self.all:
            try:
                observer(event)
            except Exception:
                # An observer's bug must not become the session's: telemetry may be lost, the journal may not.
                log.exception("an observer of events failed")
