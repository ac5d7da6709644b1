"""Events as values: any part of holdfast may emit them, and any code may observe them.

Sessions never wait for an observer. If an observer raises, the exception is logged and not passed on. Events may be lost; the journal may
not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

log = logging.getLogger("holdfast")


class Event(msgspec.Struct, frozen=True, gc=False, tag=True):
    """The base of all events; `session` is the id of the event's session."""

    session: str


class Spawned(Event, frozen=True):
    """A session was created and is durable; `agent` is the name of its agent."""

    agent: str


class Resumed(Event, frozen=True):
    """A session was loaded into memory; `records` is the number of records of its open turn."""

    epoch: int
    records: int


class TurnStarted(Event, frozen=True):
    """A run of a turn begins, in the task from which the handler's context is copied; a turn may run again after a crash or a park.

    Attributes:
        context: the trace of the message's sender (holdfast.telemetry.context), "" for none.
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
    """The turn is committed; `tokens` and `microusd` are the cost of all its runs."""

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
    """The handler raised. The turn starts again after `delay_s` seconds; if that is None, it is given up."""

    turn: int
    error: str
    delay_s: float | None = None


class StepStarted(Event, frozen=True):
    """A step has no recorded result and is about to run; emitted in its task.

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
    """A step ran and its record is written; emitted in its task.

    Attributes:
        ok: False for a final failure.
        tokens, microusd: the cost of all its attempts.
        error, cause: the type and the text of a failure.
        facts: facts that its call gives about the answer (see holdfast.calls.call.Call.facts); None if it gives none.
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
    """A step was running when its turn was left or its caller let go of it; emitted in its task."""

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
    """Attempt `attempt` (from 1) of a step failed; the next one is made after `delay_s` seconds."""

    turn: int
    name: str
    attempt: int
    cause: str
    delay_s: float


class ThreadAbandoned(Event, frozen=True):
    """The attempt of a plain function was cut, by its deadline or its caller, and its thread runs on: it cannot be ended."""

    turn: int
    name: str


class MaybePaid(Event, frozen=True):
    """A paid call was in flight at a crash and is made again: both calls are charged."""

    turn: int
    name: str


class DoubtRaised(Event, frozen=True):
    """The outcome of this `once` effect is unknown."""

    turn: int
    name: str
    cause: str


class DoubtSettled(Event, frozen=True):
    """`verdict`: "done", "not done", "retry" or "fail"; `by`: "reconcile" or "person"."""

    turn: int
    name: str
    verdict: str
    by: str


class SessionRewound(Event, frozen=True):
    """A person brought the state after the turn `back_to` back, as that of turn `turn`; `effects` are the names of those done since."""

    turn: int
    back_to: int
    effects: str
    reason: str


class Drifted(Event, frozen=True):
    """The code made a slightly different call than before the crash, and got the old record."""

    turn: int
    kind: str
    name: str


class Unclaimed(Event, frozen=True):
    """A record that the replayed code did not claim by the end of the turn."""

    turn: int
    kind: str
    name: str


class SessionParked(Event, frozen=True):
    """A session waits, and uses no memory meanwhile.

    Attributes:
        reason: the reason as one word: "doubt", "budget", "paused", "wait" and others.
        text: the reason as a text for people.
        until: store time at which it resumes by itself, in seconds; None if it waits for a person or for another event.
    """

    reason: str
    text: str
    until: float | None = None


class SessionFailed(Event, frozen=True):
    """A message became a dead letter."""

    message: str
    cause: str


class Undelivered(Event, frozen=True):
    """A message of another session was sent with `tell`, but this session has ended: the message will not be handled."""

    message: str
    why: str


class SessionEndedEvent(Event, frozen=True, tag="SessionEnded"):
    """A session has ended; `status`: "finished", "cancelled" or "killed"."""

    status: str


class SessionStuck(Event, frozen=True):
    """A handler did not end when it was cancelled: it is fenced and abandoned."""

    turn: int


class StoreFailed(Event, frozen=True):
    """A write failed or its outcome is unknown: the session is read again."""

    cause: str


Observer: TypeAlias = Callable[[Event], None]


class Observers:
    """The observers of events. Falsy if there are none, so that an event need not be created."""

    __slots__ = ("all",)

    def __init__(self) -> None:
        self.all: list[Observer] = []

    def __bool__(self) -> bool:
        return bool(self.all)

    def add(self, observer: Observer) -> None:
        """Call `observer` with every event from now on, synchronously: it has to return quickly."""
        self.all.append(observer)

    def remove(self, observer: Observer) -> None:
        """Stop calling `observer`. Raises ValueError if it was never added."""
        self.all.remove(observer)

    def emit(self, event: Event) -> None:
        """Call every observer with the event, in order; an exception of one is logged."""
        for observer in self.all:
            try:
                observer(event)
            except Exception:
                # A bug of an observer must not fail the session: telemetry may be lost, the journal may not.
                log.exception("an observer of events failed")
