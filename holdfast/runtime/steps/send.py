"""Messages between sessions: ask, tell, and the watch for an end. A message leaves with a step's record, or with the commit."""

from __future__ import annotations

from functools import partial
from typing import Any, NoReturn

import msgspec

from holdfast.codec import canonical, digest
from holdfast.errors import AskCycle, MailboxFull, NotJournalable, SessionEnded, SessionNotFound
from holdfast.policies.classify import Fault
from holdfast.runtime.agents.definition import Agent
from holdfast.runtime.agents.ids import check_id
from holdfast.runtime.steps import pipeline
from holdfast.runtime.steps.asked import Ask, plain
from holdfast.runtime.steps.message import Sent, message
from holdfast.runtime.steps.outbox import sends
from holdfast.runtime.steps.refusal import refuse
from holdfast.runtime.steps.room import spend_step
from holdfast.runtime.steps.step import Step
from holdfast.runtime.steps.wait import begin, check_time, wait_for
from holdfast.runtime.turns.failures import describe, failure_of
from holdfast.runtime.turns.turn import Turn
from holdfast.stores.ops import Enqueue, Op, Result, Status
from holdfast.stores.records import ENDED, Address, Failure, Outcome, Session
from holdfast.stores.unreadable import UNREADABLE, cannot_load, read
from holdfast.telemetry.context import carried

_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode
_WHY = {
    "unknown": "no session {!r}: check the id, or spawn it",
    "full": "the mailbox of session {!r} is full",
    UNREADABLE: "the row of session {!r} does not decode",
    "conflict": "session {!r} has another message of this id: use a new id",
}
_KINDS = {"unknown": "SessionNotFound", "full": "MailboxFull", "conflict": "MessageConflict", UNREADABLE: "StateError"}


async def ask(turn: Turn, target: str, value: Any, id: str | None, timeout_s: float) -> Any:
    """Send a message and wait for its reply, as plain data; with an `id` that came before, wait for the reply to that message. Raises
    AskCycle, AskTimeout, and StepError for any other failure."""
    check_time("timeout_s", timeout_s)
    sent = message(target, value, id)
    asked = Ask(kind="ask", name=target, args=sent.args, timeout_s=timeout_s)
    return await pipeline.run(turn, asked, partial(_ask, sent=sent, timeout_s=timeout_s))


async def _ask(step: Step, *, sent: Sent, timeout_s: float) -> Outcome:
    turn, target = step.turn, step.name
    turn.waits.asking.append(target)
    try:
        if step.claim.step is None:
            await _refuse_cycle(step, sent.id)
            await _refuse_misfit(step, await _agent_of(turn, target), sent)
        await begin(step, timeout_s)
        send, at_once = partial(_enqueue, sent=sent), partial(_answered_at_once, target=target)
        outcome = await wait_for(step, target, send, at_once, turn.owner.agent.park_after_s)
    finally:
        turn.waits.asking.remove(target)
    if outcome is not None:
        return outcome
    id = message_id(step, sent)
    text = f"no answer within {timeout_s:g} s; ask again with id {id!r}"
    failed = failure_of(target, Fault("no_reply", "AskTimeout", text))
    return await step.close(Outcome(failure=msgspec.structs.replace(failed, error="AskTimeout", message_id=id)))


async def _refuse_cycle(step: Step, id: str | None) -> None:
    node = step.turn.node
    cycle = node.peers.cycle(step.session, step.name)
    if cycle is not None and id is not None:
        earlier = await node.store.message(step.name, id)
        if earlier is not None and earlier.reply is not None:
            return  # it need not wait
    if cycle is not None:
        await spend_step(step)
        await refuse(step, f"circular ask: {' -> '.join((step.session, *cycle))} would wait for itself", AskCycle)


def message_id(step: Step, sent: Sent | None = None) -> str:
    """The id of the message that a step sends: the same on every run of the turn."""
    return step.turn.name_of(step.claim.key) if sent is None or sent.id is None else sent.id


def _enqueue(step: Step, *, sent: Sent) -> tuple[Op, ...]:
    turn, target = step.turn, step.name
    agent = turn.node.peers.agent_of(target)
    limit = _largest_mailbox(turn) if agent is None else agent.mailbox
    to, now = Address(step.session, turn.number, step.claim.key), turn.node.clock.time()
    id, body = message_id(step, sent), sent.body
    op = Enqueue(target, id, body, digest(body), now, reply_to=to, limit=limit, context=carried())
    return (*turn.outbox.take(target), op)  # a message sent earlier arrives earlier


def _largest_mailbox(turn: Turn) -> int | None:
    return max((agent.mailbox for agent in turn.node.settings.agents.values()), default=None)


async def watch(turn: Turn, target: str) -> Any:
    """Wait until a session has ended; its result, as plain data. Raises StepError if it did not finish."""
    check_id("session", target)
    asked = Ask(kind="watch", name=target, args=canonical(target))
    return await pipeline.run(turn, asked, _watch)


async def _watch(step: Step) -> Outcome:
    turn = step.turn
    turn.waits.asking.append(step.name)
    try:
        await begin(step, None)
        outcome = await wait_for(step, step.name, _watching, partial(_answered_at_once, target=step.name), turn.owner.agent.park_after_s)
    finally:
        turn.waits.asking.remove(step.name)
    assert outcome is not None, "a watch has no deadline"
    return outcome


def _watching(step: Step) -> tuple[Op, ...]:
    to = Address(step.session, step.turn.number, step.claim.key)
    sent = Enqueue(step.name, message_id(step), b"", b"", step.turn.node.clock.time(), kind="watch", reply_to=to)
    return (*step.turn.outbox.take(step.name), sent)


async def tell(turn: Turn, target: str, value: Any, id: str | None) -> str:
    """Send a message when the turn commits; returns its id. Now it checks that the session exists and has room; the record keeps the
    result."""
    sent = message(target, value, id)
    asked = Ask(kind="tell", name=target, args=sent.args)
    sent_as: str = await pipeline.run(turn, asked, partial(_tell, sent=sent))
    sends(turn, sent_as, sent)
    return sent_as


async def _tell(step: Step, *, sent: Sent) -> Outcome:
    turn, target = step.turn, step.name
    step.begins()
    row = await turn.node.store.session(target)
    agent = await _agent_of(turn, target, row)
    if not await _sent_before(step, sent):
        await _refuse_undeliverable(step, row, agent, sent.body)
        await _refuse_misfit(step, agent, sent)
    return await step.close(Outcome(plain.encode(message_id(step, sent))))


async def _sent_before(step: Step, sent: Sent) -> bool:
    """Whether another message of this id arrived, or leaves with this commit: the same again changes nothing, another is refused."""
    if sent.id is None:
        return False
    earlier = step.turn.outbox.find(sent.target, sent.id) or await step.turn.node.store.message(sent.target, sent.id)
    if earlier is None:
        return False
    if earlier.digest != digest(sent.body):
        await spend_step(step)
        await refuse(step, _WHY["conflict"].format(sent.target), cause=_KINDS["conflict"])
    return True


async def _refuse_undeliverable(step: Step, row: Session | None, agent: Agent | None, body: bytes) -> None:
    turn, target = step.turn, step.name
    waiting = turn.outbox.count(target)
    limit = _largest_mailbox(turn) if agent is None else agent.mailbox
    error: Exception | None = None
    if row is None:
        error = SessionNotFound(target, f"no session {target!r}")
    elif row.unreadable:
        error = cannot_load(target, row.unreadable)
    elif row.status in ENDED:
        error = SessionEnded(target, f"session {target!r} is {row.status}")
    elif limit is not None and row.pending + waiting >= limit:
        error = MailboxFull(target, plain.decode(body), limit)
    if error is not None:
        await spend_step(step)
        await refuse(step, str(error), cause=type(error).__name__)


async def _agent_of(turn: Turn, target: str, row: Session | None = None) -> Agent | None:
    """The agent of another session; None where it is not known here."""
    live = turn.node.peers.agent_of(target)
    if live is not None:
        return live
    found = await turn.node.store.session(target) if row is None else row
    return None if found is None else turn.node.settings.agents.get(found.agent)


async def _refuse_misfit(step: Step, agent: Agent | None, sent: Sent) -> None:
    """Refuse a message that does not fit the agent's type: it is the sender's fault, and must not fail the receiver's turn."""
    if agent is None:  # the store checks the target when the message is sent
        if why := sent.why_lost(None):
            raise NotJournalable(why)
        return
    try:
        got = agent.message.decode(sent.body)
    except Exception as error:  # a user's own validator can raise any error
        await _misfit(step, f"agent {agent.name!r} does not take this message: {describe(error)}", type(error).__name__)
    if why := sent.why_lost(agent.message, got):
        raise NotJournalable(why)


async def _misfit(step: Step, text: str, cause: str) -> NoReturn:
    await spend_step(step)
    await refuse(step, text, cause=cause, category="semantic")


def _answered_at_once(result: Result, *, target: str) -> Outcome | None:
    """The outcome of a message that the mailbox did not accept; None where it did."""
    if not result.outbox:
        return None
    last = result.outbox[-1]
    if last.status is Status.DUPLICATE and last.value is not None and last.value.reply is not None:
        answer, unreadable = read(lambda: _decode_outcome(last.value.reply), None)
        return answer or Outcome(failure=Failure("StepError", "ask", "StateError", f"the stored reply does not decode: {unreadable}"))
    if last.status is not Status.REFUSED:
        return None
    if isinstance(last.value, tuple):
        ended = last.value[1]
        if ended.result is not None:
            return _decode_outcome(ended.result)
        return Outcome(failure=Failure("StepError", ended.id, "SessionEnded", f"session {ended.id!r} is {ended.status}"))
    kind = "busy" if last.value == "full" else "bug"
    return Outcome(failure=failure_of(target, Fault(kind, _KINDS[last.value], _WHY[last.value].format(target))))
