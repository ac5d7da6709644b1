"""Every change to durable state, as a value.

Group commit gathers ops from all sessions and hands them to `Store.apply`, which applies them in one transaction and gives each its
own result. An op that changes a session's own data names the epoch it was written under. Where the session has a newer epoch, the op
changes nothing and its result is FENCED; the rest of the batch is not affected. An op that changes records of a turn names the turn too.
It is FENCED where that turn is not the open one (the turn after the last that was committed or dropped).

An `outbox` leaves with its op, in order, in the same transaction, if the op itself is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Protocol, TypeAlias

import msgspec

from holdfast.policies.budget import ZERO, Budget, Usage
from holdfast.stores.records import Address, Message, MessageKind, Park, SessionStatus, StepState


class Status(IntEnum):
    DONE = 1
    DUPLICATE = 2
    FENCED = 3
    REFUSED = 4


class Result(msgspec.Struct, frozen=True, gc=False):
    """The result of one op. `value` depends on the op; `outbox` has the results of the ops that left with it."""

    status: Status
    value: Any = None
    outbox: tuple[Result, ...] = ()


DONE = Result(Status.DONE)
FENCED = Result(Status.FENCED)


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The result of ending a session: its new `epoch`, under which records of its open turn are still written, and the messages that
    were `answered` (with their new state and reply, and without `reply_to` where that step waits no more; once for each step, where several
    wait for one)."""

    epoch: int
    answered: list[Message]


class CreateSession(msgspec.Struct, frozen=True, gc=False):
    """Make a session if the id is free.

    DONE with the new row, or DUPLICATE with the row that has the id (whatever its agent: the caller compares).
    """

    id: str
    agent: str
    tenant: str
    user: str
    version: int
    state: bytes
    budget: Budget
    seed: bytes
    now: float
    parent: Address | None = None
    detached: bool = False
    fingerprint: int = 0


class Enqueue(msgspec.Struct, frozen=True, gc=False):
    """Put a message into a mailbox.

    DONE with None; DUPLICATE with the stored Message where the id came before with the same digest; REFUSED with "unknown" (no such
    session), "ended" (value is the pair ("ended", Session)), "full" (as many `queued` as `limit`; None is no limit), "conflict" (the
    id came before with another digest) or "unreadable" (the session's row does not decode). All REFUSED values but "ended" are plain
    strings. A `watch` sent to an ended session is refused as "ended" too: the row has the result. A watch is not counted against the
    limit nor in `pending`. `context` is the sender's trace (holdfast.telemetry.context); it is no part of the message's identity.

    A duplicate while the message is still queued, with another `reply_to`: that step waits for the answer too (`Message.also`).
    """

    session: str
    id: str
    body: bytes
    digest: bytes
    now: float
    kind: MessageKind = "message"
    reply_to: Address | None = None
    limit: int | None = None
    context: str = ""


class Activate(msgspec.Struct, frozen=True, gc=False):
    """Take ownership: the epoch grows by one, which fences every write of an earlier activation.

    DONE with Loaded; REFUSED with "unknown", or the reason why its row cannot be loaded. An ended session is loaded too.

    `count_crash` means that the last activation of the session was not stopped cleanly: the session's `crashes` grows by one, or starts
    again at one where the open turn has a different number of records than at the last count. `alone` is kept with such a count: see
    `records.Runnable`.
    """

    session: str
    now: float
    count_crash: bool = False
    alone: bool = False


class WriteStep(msgspec.Struct, frozen=True, gc=False):
    """Write the record of a step: its first (open, waiting, or closed at once) or the one that replaces it.

    DONE, or FENCED where the epoch is not the session's or the turn not its open one; an ended session has an open turn, too. (session,
    turn, key) is unique: the later write wins, within one epoch.
    """

    session: str
    epoch: int
    turn: int
    key: bytes
    state: StepState
    body: bytes
    outbox: tuple[Op, ...] = ()


class DropSteps(msgspec.Struct, frozen=True, gc=False):
    """Delete the records of steps of the open turn. Their cost stays: `charge` is added to the session's usage, unless none of the steps
    had a record any more. DONE, or FENCED as WriteStep."""

    session: str
    epoch: int
    turn: int
    keys: tuple[bytes, ...]
    charge: Usage = ZERO


class CommitTurn(msgspec.Struct, frozen=True, gc=False):
    """End a turn, whole: checkpoint, message done with its reply, `usage` (of this turn) added to the session's, notes cleared, crashes 0,
    outbox.

    DONE or FENCED. With an ended `status`, every message still queued becomes DEAD with `rest` (an encoded Outcome) as its reply, every
    watch becomes DONE with `result` (an encoded Outcome too). A message is answered at the steps that wait for it too. The op ignores the
    done message's own `reply_to`: its answer is a Reply in the outbox.

    The value is the list of all these Messages (with their new state and reply), where several steps were answered once for each, with its
    address as `reply_to`; None where no message was answered but the done one at its own `reply_to`, and the session lives on.
    """

    session: str
    epoch: int
    turn: int
    message: str
    state: bytes
    version: int
    reply: bytes
    status: SessionStatus
    usage: Usage
    started: float
    now: float
    gates: bytes = b""
    result: bytes | None = None
    rest: bytes | None = None
    outbox: tuple[Op, ...] = ()
    fingerprint: int = 0


class FailTurn(msgspec.Struct, frozen=True, gc=False):
    """Give up on a message: it becomes a dead letter with `reply` as its answer, the session `failed`; the turn's journal stays.

    A second FailTurn for the same turn replaces the letter, and the message keeps its first reply. A session that has ended keeps its
    status and its park. DONE or FENCED; the value is as that of CommitTurn.

    `effects` were done, the outcome of those `in_doubt` is unknown, `failed` were tried and not done.
    """

    session: str
    epoch: int
    turn: int
    message: str
    cause: str
    effects: tuple[str, ...]
    reply: bytes
    now: float
    outbox: tuple[Op, ...] = ()
    in_doubt: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class RetryLetter(msgspec.Struct, frozen=True, gc=False):
    """Put the session's dead letter back at the head of its mailbox (same turn, same journal); the session is idle again.

    DONE with the Message, FENCED, or REFUSED with "none" where it has no dead letter of the turn after its last committed one.
    """

    session: str
    epoch: int
    now: float


class DropLetter(msgspec.Struct, frozen=True, gc=False):
    """Give the dead letter up: its turn ends with the state unchanged, its usage is kept, its effects become the session's `notes`.

    The turn's row is marked as `dropped`: its children that have not ended become orphans. `usage`, that of the open turn, is added to
    the session's. DONE with None, FENCED, or REFUSED with "none".
    """

    session: str
    epoch: int
    usage: Usage
    now: float


class Rewind(msgspec.Struct, frozen=True, gc=False):
    """Bring an earlier checkpoint back as that of a turn of its own, which handled no message: later turns keep their rows.

    `effects`, those of the turns since, become the session's `notes`. `status` is "idle", or "parked" with its `park`. DONE or FENCED,
    also where `turn` is not the open one.
    """

    session: str
    epoch: int
    turn: int
    state: bytes
    version: int
    fingerprint: int
    effects: tuple[str, ...]
    now: float
    status: SessionStatus = "idle"
    park: Park | None = None


class UpdateSession(msgspec.Struct, frozen=True, gc=False):
    """Set the fields that are not None in a session's row. Any status but "parked" clears `park`, and on an ended session also
    `unresolved`, which `park` sets there.

    `settled=True` sets crashes to 0; `passed=True` counts a pass: see `records.Runnable`. DONE or FENCED. REFUSED with "answered",
    with no change, where a step that `park.keys` names is no longer WAITING.
    """

    session: str
    epoch: int
    now: float
    status: SessionStatus | None = None
    park: Park | None = None
    budget: Budget | None = None
    gates: bytes | None = None
    settled: bool = False
    passed: bool = False


class Reply(msgspec.Struct, frozen=True, gc=False):
    """Answer a waiting step with an encoded Outcome: the record becomes CLOSED or FAILED, and a session parked on a wait wakes.

    The answering session writes it, under no epoch: it takes effect only while the record is WAITING. DONE, or DUPLICATE where it is not.
    A parked session's wake time (`park.until`) becomes `now` if its park reason is "wait".
    """

    to: Address
    outcome: bytes
    now: float


class ReturnBudget(msgspec.Struct, frozen=True, gc=False):
    """Return to a parent the budget that its ended child did not spend.

    The amount is subtracted from the parent's usage, which may become negative: the child's reservation can still be in the journal of the
    parent's open turn. Where a parent has ended too, the amount passes up to its own parent, and so on to the first that lives, or that got
    no share from its parent.

    Under no epoch. DONE, also where there is no such session. The value has each session that got an amount, as pairs of id and amount.

    Attributes:
        session: the parent.
        left: see `records.Returns`: the store adds what the child got back from its own children, also after this op was made.
    """

    session: str
    child: str
    left: Usage


class EndSession(msgspec.Struct, frozen=True, gc=False):
    """Cancel or kill: the epoch grows first (the running activation is fenced), then as in CommitTurn with an ended status.

    DONE with Ended, DUPLICATE where it had ended, REFUSED with "unknown". `outcome` is the encoded answer to all queued messages (watches
    DONE, the others DEAD) and the session's result. Steps stay as they are: a doubt can still be inspected, and resolved under the new
    epoch. The row keeps `park` as `unresolved`, without its wake time: the work that a person still has to do about the session.
    """

    session: str
    status: SessionStatus
    outcome: bytes
    now: float
    outbox: tuple[Op, ...] = ()
    park: Park | None = None


class Touch(msgspec.Struct, frozen=True, gc=False):
    """A health check of the store: write a meaningless value to the disk. DONE; a store that cannot be written fails the batch."""


Op: TypeAlias = (
    CreateSession
    | Enqueue
    | Activate
    | WriteStep
    | DropSteps
    | CommitTurn
    | FailTurn
    | RetryLetter
    | DropLetter
    | Rewind
    | UpdateSession
    | Reply
    | ReturnBudget
    | EndSession
    | Touch
)


def concerns(op: Op) -> Iterator[str]:
    """The sessions whose rows an op changes, itself or by its outbox."""
    if isinstance(op, CreateSession):
        yield op.id
    elif isinstance(op, Reply):
        yield op.to.session
    elif isinstance(op, Touch):
        return
    else:
        yield op.session
        if isinstance(op, ReturnBudget):
            yield op.child
    for sent in getattr(op, "outbox", ()):
        yield from concerns(sent)


class EpochOp(Protocol):
    """An op that names the epoch it was written under."""

    @property
    def session(self) -> str: ...
    @property
    def epoch(self) -> int: ...


class TurnOp(EpochOp, Protocol):
    """An op on records of a turn, which has to be the open one."""

    @property
    def turn(self) -> int: ...
