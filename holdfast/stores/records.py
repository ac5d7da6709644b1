"""Durable rows as msgspec structs, the same for every store. A step's body is one MessagePack blob, so a new field never needs a migration
of the table: only values that a store searches by have columns of their own."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal, Protocol

import msgspec

from holdfast.policies.budget import ZERO, Budget, Usage


class StepState(IntEnum):
    """The durable states of a step; a step without a record is `free`. The table in docs/semantics.md has the allowed transitions."""

    OPEN = 1
    CLOSED = 2
    FAILED = 3
    DOUBT = 4
    WAITING = 5


class MessageState(IntEnum):
    QUEUED = 1
    DONE = 2
    DEAD = 3


SessionStatus = Literal["idle", "parked", "failed", "unfinished", "finished", "cancelled", "killed"]
ENDED: frozenset[str] = frozenset({"finished", "cancelled", "killed"})

MessageKind = Literal["message", "watch"]
"""A `watch` is never delivered: it is answered with the session's result when the session ends."""


class Failure(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A final error as data; `error` names its class in holdfast.errors.

    `effects` were done before it, the outcome of those `in_doubt` is unknown, `failed` were tried and not done. `dependency`: whether it
    says that a dependency is down. `message_id`: of an ask that timed out, the message to ask again with. `kind`, `status`, `of`, `then`
    and `until` are those of a StepError.
    """

    error: str
    step: str
    type: str
    message: str
    category: str = "permanent"
    effects: tuple[str, ...] = ()
    in_doubt: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    dependency: bool = False
    message_id: str = ""
    kind: str = ""
    status: int | None = None
    of: str = ""
    then: str = ""
    until: float | None = None


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A result: `value` (MessagePack) where `failure` is None."""

    value: bytes = b"\xc0"
    failure: Failure | None = None


class StepRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One step in the journal.

    Attributes:
        kind: "step", "tool", "model", "sleep", "ask", "spawn", "decide", "now", ...
        branch: the numbered gather branch it ran in; "" for the handler's own.
        digest: of its arguments; with kind, name, branch and nth it is the step's identity.
        nth: how many steps of the same identity came before it in the turn.
        effect: "read", "idempotent" or "once".
        args: the arguments (MessagePack), for people and for `reconcile`.
        reserved: the most the open attempt can cost; charged in full if the step is never closed.
        used: the cost of its ended attempts.
        opened, closed: store time, seconds since the epoch.
        until: for a wait, the store time at which it is over; None waits for ever.
        target: for an ask or a watch, the session waited for.
        maybe_paid: attempts that were in flight at a crash and were made again.
        drifted: how often it answered a step that asked for something slightly different.
        note: for a doubt, how its attempt ended.
        overlapped: it began while another step of its branch was under way, so its place in the order has no meaning.
        cut: its caller cancelled it while it ran: replay waits until the caller cancels it again.
        deadline: store time after which its last attempt can no longer take effect; 0 where it has none.
        strayed: recorded after the code had diverged from older records of its branch, while some of these were still unclaimed.
        ended: its place in the order of outcomes of the turn's steps, over all runs; 0 where that is not known (another session answered
            it).
        seen: the last of those places that its code had seen when it asked for the step; 0 in old records.
        line: the handler's own task that asked for it (see runtime.turns.lineage); "" for the branch's own.
        since: the places at which that task, and the tasks that it descends from, were made.
        heard: answers of other sessions that reached the code since the record before: the keys of their steps, and their places.
        cut_after_s: for a cut one, the seconds from the start of its run to the cut: a timeout that cut it was no longer than that.
        waits_s: for a wait, the seconds it still had to wait when this was written: its longest wait, whatever a clock reads.
    """

    kind: str
    name: str
    branch: str
    digest: bytes
    nth: int
    effect: str
    outcome: Outcome | None = None
    args: bytes = b""
    reserved: Usage = ZERO
    used: Usage = ZERO
    attempts: int = 1
    opened: float = 0.0
    closed: float = 0.0
    until: float | None = None
    target: str | None = None
    maybe_paid: int = 0
    overlapped: bool = False
    drifted: int = 0
    note: str = ""
    cut: bool = False
    deadline: float = 0.0
    strayed: bool = False
    ended: int = 0
    seen: int = 0
    line: str = ""
    since: tuple[int, ...] = ()
    cut_after_s: float = 0.0
    heard: tuple[tuple[bytes, int], ...] = ()
    waits_s: float = 0.0


class Step(msgspec.Struct, frozen=True, gc=False):
    """A step's row: key, state and record. `unreadable`: why the record does not decode; the record is a stand-in then."""

    key: bytes
    state: StepState
    record: StepRecord
    turn: int = 0
    unreadable: str = ""


def in_doubt(step: Step) -> bool:
    """Whether the outcome of its effect is unknown: a doubt, or a `once` effect that is open though its handler is gone. Not a record that
    does not decode: a person's resolution could not be recorded in it."""
    if step.unreadable:
        return False
    return step.state is StepState.DOUBT or (step.state is StepState.OPEN and step.record.effect == "once")


class Address(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A waiting step: where an answer goes."""

    session: str
    turn: int
    key: bytes


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message in the mailbox. `body` and `reply` are MessagePack; `seq` grows with arrival; `context`: the sender's trace.

    `also`: the other steps that wait for its answer: they asked with its id. `unreadable`: why a column of its row does not decode; that
    field is empty then.
    """

    session: str
    id: str
    body: bytes
    digest: bytes
    kind: MessageKind = "message"
    reply_to: Address | None = None
    state: MessageState = MessageState.QUEUED
    reply: bytes | None = None
    created: float = 0.0
    done: float | None = None
    seq: int = 0
    context: str = ""
    unreadable: str = ""
    also: tuple[Address, ...] = ()


def due(until: float, since: float, now: float) -> float:
    """When a wait that began at `since` is over: at `until`; after its own length at the latest, where the clock was set back."""
    return min(until, now + max(until - since, 0.0)) if since else until


class Park(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Why a session is parked and how it resumes.

    Attributes:
        reason: one of PARK_REASONS.
        text: one line for a person: what happened and what to do.
        until: store time at which it resumes by itself; None where it waits for a person or an answer.
        since: store time at which it was parked; 0 in old rows. A clock set back since then does not make the wait longer.
        waits_on: ids of the sessions it waits for (the wait-for graph).
        keys: the steps of the open turn that wait; where one of them has its answer already, the session must not park.
        dependency: the dependency that it waits for; "" for none.
    """

    reason: str
    text: str
    until: float | None = None
    waits_on: tuple[str, ...] = ()
    keys: tuple[bytes, ...] = ()
    since: float = 0.0
    dependency: str = ""

    def due(self, now: float) -> float | None:
        """Store time at which it is over; None where it waits for a person or an answer."""
        return None if self.until is None else due(self.until, self.since, now)


class Returns(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The account of a session with its parent: unspent budget that its own children returned.

    Attributes:
        back: the sum that its children returned so far.
        left: the rest of its parent's share when it ended, without `back`; negative where it had given out and used more. None while it
            lives, and where no parent gave it a share.
        share: the part of its parent's budget that it was given; None where no parent gave it one, and in old rows.
    """

    back: Usage = ZERO
    left: Usage | None = None
    share: Usage | None = None

    def due(self) -> Usage:
        """The sum that is due to its parent by now."""
        return ZERO if self.left is None else (self.left + self.back).clamp()


class Session(msgspec.Struct, frozen=True, gc=False):
    """A session's row, without its state (that is the checkpoint, in the row of its last turn).

    Attributes:
        park: why it is parked, and what it waits for.
        unresolved: for an ended session, the work left for a person: effects whose outcome is unknown. The session never resumes.
        returns: the budget that its children returned, and the part of it that is due to its parent.
        unreadable: which columns of its row do not decode, and why; "" for none. These fields have stand-ins then, and `park` has the
            reason. Such a session runs no code, and its row is not changed.
    """

    id: str
    agent: str
    tenant: str
    user: str
    status: SessionStatus
    epoch: int
    turn: int
    pending: int
    budget: Budget
    usage: Usage = ZERO
    seed: bytes = b""
    parent: Address | None = None
    detached: bool = False
    park: Park | None = None
    gates: bytes = b""
    notes: tuple[str, ...] = ()
    result: bytes | None = None
    crashes: int = 0
    created: float = 0.0
    updated: float = 0.0
    unresolved: Park | None = None
    returns: Returns = Returns()
    unreadable: str = ""


ASKS_A_PERSON: frozenset[str] = frozenset({"doubt", "budget", "drift", "unclaimed", "state", "crashes", "repair"})
"""The park reasons that only a person can resolve."""

PARK_REASONS = (
    *("doubt", "budget", "drift", "unclaimed", "state", "crashes", "repair", "paused"),  # for a person
    *("wait", "retry", "breaker", "provider", "reconcile", "reserved", "store"),  # for a time or an answer
)
"""Every reason to park. Stored reasons are not checked: an old row always loads."""

TRIED_AGAIN: frozenset[str] = frozenset({"state", "reserved"})
"""The park reasons of sessions that run again at each activation: what they wait for may have changed in the store."""

DISPLAY_STATUSES = ("failed", "parked", "working", "unfinished", "idle", *sorted(ENDED))


RANK_PERSON, RANK_ENDED = 1, 6
"""The ranks of a session that needs a person, running or ended, and of one that has ended and does not."""


class Ranked(Protocol):
    """What decides on the place of a session in lists: a part of a Session, and of a Listed."""

    @property
    def status(self) -> SessionStatus: ...

    @property
    def pending(self) -> int: ...

    @property
    def park(self) -> Park | None: ...

    @property
    def unresolved(self) -> Park | None: ...


def display_status(session: Ranked) -> str:
    """The status as people see it: a session that has a message and may handle it is "working"."""
    return "working" if session.pending > 0 and session.status in ("idle", "unfinished") else session.status


def rank(session: Ranked) -> int:
    """A session's place in lists for people: needs a person (0, 1), waits for something else (2), working, unfinished, idle, ended.

    An ended session that left a doubt behind needs a person like a parked one.
    """
    status = display_status(session)
    if status == "parked":
        return RANK_PERSON if session.park is not None and session.park.reason in ASKS_A_PERSON else 2
    if session.unresolved is not None and session.unresolved.reason == "doubt":
        return RANK_PERSON
    return {"failed": 0, "working": 3, "unfinished": 4, "idle": 5}.get(status, RANK_ENDED)


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """The state of a session after a turn, and what the turn cost; turn 0 is the state it was spawned with.

    `dropped`: the turn's dead letter was dropped; the state is that of the turn before. `unreadable`: why a column of its row does not
    decode; that field is empty then. `fingerprint`: of the state's type; 0 if not known.
    """

    turn: int
    state: bytes
    version: int
    message: str | None = None
    started: float = 0.0
    ended: float = 0.0
    usage: Usage = ZERO
    dropped: bool = False
    unreadable: str = ""
    fingerprint: int = 0


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A message that could not be handled: the `effects` that were done before it failed, those `in_doubt`, and those that `failed`.

    A list that does not decode is empty; `cause` has the reason.
    """

    session: str
    message: str
    turn: int
    cause: str
    effects: tuple[str, ...]
    created: float
    in_doubt: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class Loaded(msgspec.Struct, frozen=True, gc=False):
    """All that an activation needs: the session at its new epoch, its checkpoint, its mailbox and its open turn's journal."""

    session: Session
    checkpoint: Checkpoint
    messages: list[Message]
    steps: list[Step]


class Owner(msgspec.Struct, frozen=True, gc=False):
    """Who runs a store.

    Attributes:
        process: the id of the process that has it open for writing; None if none does.
        host: the name of the machine it runs on.
        clean: whether the last process that ran it stopped cleanly.
    """

    process: int | None
    host: str
    clean: bool


class Runnable(msgspec.Struct, frozen=True, gc=False):
    """A session that has work at a start: now (`wake_at` None or past) or at a time.

    Attributes:
        since: store time at which it was parked.
        crashes: its count, as `Activate` left it; 0 where that makes it no suspect, or the open turn has another number of records since.
        passes: how often it has `passed` meanwhile.
        alone: the `alone` of the last Activate; False where it has `passed` since.
    """

    id: str
    wake_at: float | None
    waits_on: tuple[str, ...] = ()
    since: float = 0.0
    crashes: int = 0
    passes: int = 0
    alone: bool = False

    def due(self, now: float) -> float:
        """Store time from which on it has work."""
        return now if self.wake_at is None else due(self.wake_at, self.since, now)
