"""The ops that end turns and sessions, made from their results."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.codec import Codec, encode
from holdfast.errors import NotJournalable
from holdfast.policies.budget import ZERO
from holdfast.runtime.turns.failures import CUT
from holdfast.runtime.turns.journal import Journal, cost
from holdfast.runtime.turns.node import Node
from holdfast.runtime.turns.owner import Owner
from holdfast.runtime.turns.turn import Turn
from holdfast.stores.ops import CommitTurn, FailTurn, Op, Reply
from holdfast.stores.records import Failure, Message, Outcome, Park, SessionStatus, StepState

_FINISHED = Outcome(failure=Failure("SessionEnded", "", "finished", "the session has finished"))
_LEFT_OPEN = "it was under way when its process died, and the code did not ask for it again"


def commit(turn: Turn, state: Any, value: Any) -> CommitTurn:
    """The handler returned `value` and left `state`. Raises NotJournalable where either cannot be stored."""
    owner, node, agent = turn.owner, turn.node, turn.owner.agent
    data = _checked("session.state", agent.state, state)  # a state that does not read back would lose the session
    reply = node.encode(Outcome(_checked("the reply", agent.reply, value)))
    result = node.encode(Outcome(encode(turn.result))) if turn.finishing else None
    status: SessionStatus = "finished" if turn.finishing else "unfinished" if turn.refused else "idle"
    now = node.clock.time()
    outbox = (*turn.outbox.all(), *_answer(turn.message, reply, now), *(owner.unspent() if turn.finishing else ()))
    return CommitTurn(
        owner.id, owner.epoch, turn.number, turn.message.id, data, agent.version, reply, status, turn.journal.spent(), turn.started, now,
        stored_gates(owner, node), result, node.encode(_FINISHED) if turn.finishing else None, outbox,
        agent.state.fingerprint,
    )  # fmt: skip


def _checked(what: str, codec: Codec, value: Any) -> bytes:
    try:
        return codec.round_trip(value)[0]
    except NotJournalable as error:
        raise NotJournalable(f"{what}: {error}") from error


def close_unended(turn: Turn) -> None:
    """Close the steps that a committed turn leaves open: they were under way at a crash, and the code did not ask for them again."""
    for step in turn.journal.unended():
        failure = msgspec.structs.replace(CUT, step=step.record.name, message=_LEFT_OPEN)
        closed = turn.node.clock.time()
        record = msgspec.structs.replace(step.record, outcome=Outcome(failure=failure), used=cost(step), reserved=ZERO, closed=closed)
        turn.submit(step.key, StepState.FAILED, record)


def fail(turn: Turn, cause: str) -> FailTurn:
    """Give up the message: it becomes a dead letter."""
    owner, node = turn.owner, turn.node
    done, in_doubt, failed = turn.journal.effects()
    failure = Failure("TurnFailed", "", "TurnFailed", cause, effects=done, in_doubt=in_doubt, failed=failed)
    reply, now = node.encode(Outcome(failure=failure)), node.clock.time()
    return FailTurn(
        owner.id, owner.epoch, turn.number, turn.message.id, cause, done, reply, now, _answer(turn.message, reply, now),
        in_doubt=in_doubt, failed=failed,
    )  # fmt: skip


def doubt_left(journal: Journal) -> Park | None:
    """The work left for a person on an ended session: effects whose outcome is unknown; None for none."""
    names = ", ".join(step.record.name for step in journal.in_doubt())
    return Park("doubt", f"ended while the outcome of {names} was unknown; resolve it: done, retry or fail") if names else None


def stored_gates(owner: Owner, node: Node) -> bytes:
    """The state of a session's gates, encoded."""
    stored = owner.gates.snapshot()
    return node.encode(stored) if stored else b""


def _answer(message: Message, outcome: bytes, now: float) -> tuple[Op, ...]:
    return () if message.reply_to is None else (Reply(message.reply_to, outcome, now),)
