"""The op that a turn ends with, made of what the turn has come to: pure, but for reading the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.codec import encode
from holdfast.stores.ops import CommitTurn, FailTurn, Op, Reply
from holdfast.stores.records import Failure, Message, Outcome, SessionStatus

if TYPE_CHECKING:
    from holdfast.runtime.turn import Turn

_FINISHED = Outcome(failure=Failure("SessionEnded", "", "finished", "the session has finished"))


def commit(turn: Turn, state: Any, value: Any) -> CommitTurn:
    """The handler returned `value` and left `state`. Raises NotJournalable where either cannot be stored."""
    actor, node, agent = turn.actor, turn.node, turn.actor.agent
    data, _ = agent.state.round_trip(state)  # what does not read back would lose the session
    reply = node.encode(Outcome(agent.reply.round_trip(value)[0]))
    result = node.encode(Outcome(encode(turn.result))) if turn.finishing else None
    status: SessionStatus = "finished" if turn.finishing else "unfinished" if turn.refused else "idle"
    now = node.clock.time()
    outbox = (*turn.outbox, *_answer(turn.message, reply, now), *(actor.unspent() if turn.finishing else ()))
    return CommitTurn(
        actor.id, actor.epoch, turn.number, turn.message.id, data, agent.version, reply, status, actor.journal.spent(), turn.started, now,
        actor.stored_gates(), result, node.encode(_FINISHED) if turn.finishing else None, outbox,
    )  # fmt: skip


def fail(turn: Turn, cause: str) -> FailTurn:
    """The message is given up."""
    actor, node = turn.actor, turn.node
    effects = actor.journal.effects()
    reply, now = node.encode(Outcome(failure=Failure("TurnFailed", "", "TurnFailed", cause, effects=effects))), node.clock.time()
    outbox = _answer(turn.message, reply, now)
    return FailTurn(actor.id, actor.epoch, turn.number, turn.message.id, cause, effects, reply, now, outbox)


def _answer(message: Message, outcome: bytes, now: float) -> tuple[Op, ...]:
    return () if message.reply_to is None else (Reply(message.reply_to, outcome, now),)
