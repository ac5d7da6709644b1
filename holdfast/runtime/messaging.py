"""Steps that wait or talk to other sessions: sleep, ask, tell, spawn, watch. A wait is a record; what is sent leaves with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from holdfast import events
from holdfast.codec import canonical, codec_for, digest
from holdfast.errors import AskCycle, MailboxFull, SessionEnded, SessionNotFound
from holdfast.policies.budget import Budget, Usage
from holdfast.runtime.branches import branch_of
from holdfast.runtime.failures import describe, error_of
from holdfast.runtime.ids import check_id
from holdfast.runtime.journal import Claim
from holdfast.runtime.observed import step_starts
from holdfast.runtime.refusal import refuse, spend_step, told
from holdfast.runtime.turn import Turn
from holdfast.stores.ops import CreateSession, Enqueue, Op, Result, Status
from holdfast.stores.records import ENDED, Address, Failure, Outcome, Park, StepRecord, StepState
from holdfast.telemetry.context import carried, linked

if TYPE_CHECKING:
    from holdfast.runtime.agent import Agent

_LONGEST_S = 10 * 365 * 86_400.0
_plain = codec_for(Any)
_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode


def message_id(turn: Turn, key: bytes) -> str:
    """The id of what a step sends: the same on every run of the turn."""
    return f"{turn.actor.id}/{turn.number}/{key.hex()}"


async def sleep(turn: Turn, seconds: float) -> None:
    """Wait `seconds`; a long one parks the session. Raises ValueError if that is no time to wait."""
    _check_time("sleep", seconds)
    patient = turn.actor.agent.park_after_s
    hold_s = 0.0 if seconds > patient else seconds + 60.0
    await _wait_step(turn, "sleep", "sleep", canonical(seconds), seconds, None, lambda _: (), hold_s)


async def ask(turn: Turn, target: str, message: Any, timeout_s: float) -> Any:
    """Send a message and wait for its reply, as plain data. Raises AskCycle, AskTimeout, and StepError for whatever it failed of."""
    check_id("session", target)
    _check_time("timeout_s", timeout_s)
    body = _plain.encode(message)

    def outbox(claim: Claim) -> tuple[Op, ...]:
        to = Address(turn.actor.id, turn.number, claim.key)
        limit = turn.node.sessions.mailbox_of(target)
        now = turn.node.clock.time()
        return (
            *_pending_tells(turn, target),
            Enqueue(target, message_id(turn, claim.key), body, digest(body), now, reply_to=to, limit=limit, context=carried()),
        )

    args = canonical([target, message])
    outcome = await _wait_step(turn, "ask", target, args, timeout_s, target, outbox, turn.actor.agent.park_after_s, body)
    return _plain.decode(outcome.value)


async def watch(turn: Turn, target: str) -> Any:
    """Wait until a session has ended; its result, as plain data. Raises StepError if it did not finish."""

    def outbox(claim: Claim) -> tuple[Op, ...]:
        to = Address(turn.actor.id, turn.number, claim.key)
        watching = Enqueue(target, message_id(turn, claim.key), b"", b"", turn.node.clock.time(), kind="watch", reply_to=to)
        return (*_pending_tells(turn, target), watching)

    outcome = await _wait_step(turn, "watch", target, canonical(target), None, target, outbox, turn.actor.agent.park_after_s)
    return _plain.decode(outcome.value)


async def tell(turn: Turn, target: str, message: Any) -> None:
    """Send a message when the turn commits. That there is such a session, with room, is found out now: a refusal is a record."""
    check_id("session", target)
    body = _plain.encode(message)
    claim = turn.journal.claim(branch_of(), "tell", target, canonical([target, message]))
    if claim.step is not None and claim.step.record.outcome is not None:
        _raise_if_failed(claim.step.record.outcome)
    if not turn.replaying or not turn.journal.unclaimed():
        row = await turn.node.store.session(target)
        agent = None if row is None else turn.node.settings.agents.get(row.agent)
        limit = turn.node.sessions.mailbox_of(target) if agent is None else agent.mailbox
        waiting = sum(1 for op in turn.outbox if isinstance(op, Enqueue) and op.session == target)
        error: Exception | None = None
        if row is None:
            error = SessionNotFound(target, f"no session {target!r}")
        elif row.status in ENDED:
            error = SessionEnded(target, f"session {target!r} is {row.status}")
        elif limit is not None and row.pending + waiting >= limit:
            error = MailboxFull(target, message, limit)
        if error is not None:
            await turn.admit()
            used = await spend_step(turn, claim, "tell", target)
            await refuse(turn, claim, "tell", target, str(error), cause=type(error).__name__, used=used)
        misfit = await _misfit(turn, target, body)
        if misfit is not None:
            await turn.admit()
            await _refuse_misfit(turn, claim, "tell", target, misfit)
    turn.outbox.append(Enqueue(target, message_id(turn, claim.key), body, digest(body), turn.node.clock.time(), context=linked()))


async def spawn(turn: Turn, agent: Agent, state: bytes, part: Budget | None, id: str | None, detached: bool) -> str:
    """Make a child; its id derives from this step. It leaves with the step's record."""
    name = agent.name
    agent = turn.node.settings.agents.get(name, agent)
    if id is not None:
        check_id("id", id)
    claim = turn.journal.claim(branch_of(), "spawn", name, canonical([name, id, detached]) + state)
    if claim.step is not None and claim.step.record.outcome is not None:
        turn.refused = turn.refused or told(claim.step.record.outcome)
        child = str(_value(claim.step.record.outcome))
        # The process may have died between the record and finding out that the id is somebody else's.
        row = None if id is None else await turn.node.store.session(child)
        if row is None or row.parent == Address(turn.actor.id, turn.number, claim.key):
            return child
        await refuse(turn, claim, "spawn", name, _taken(child), cause="SessionConflict", used=claim.step.record.used)
    await turn.admit()
    turn.begin(claim.branch)
    try:
        ledger, now, actor = turn.actor.ledger, turn.node.clock.time(), turn.actor
        child = id or f"{actor.id}/{turn.number}.{claim.digest.hex()[:12]}.{claim.nth}"
        limits, share = agent.budget, Usage()
        cost = await spend_step(turn, claim, "spawn", name)
        if not detached:
            # The child's own limits, cut to what is left here: all of it is charged now, and what is not spent comes back at its end.
            limits = _share(ledger.carve(Budget()), part or agent.budget)
            share = ledger.part(limits)
            ledger.charge(share)
            cost = cost + share
        parent = Address(actor.id, turn.number, claim.key)
        create = CreateSession(
            child,
            agent.name,
            actor.tenant,
            actor.row.user,
            agent.version,
            state,
            limits,
            turn.node.random.randbytes(8),
            now,
            parent,
            detached,
        )
        step_starts(turn, claim, "spawn", name, "idempotent", now)
        record = StepRecord(
            "spawn", name, claim.branch, claim.digest, claim.nth, "idempotent", Outcome(_plain.encode(child)), used=cost, opened=now,
            closed=now, target=child,
        )  # fmt: skip
        result = await turn.acknowledged(turn.submit(claim.key, StepState.CLOSED, record, (create,)))
        made = result.outbox[0]
        if made.status is Status.DUPLICATE and made.value.parent != parent:
            ledger.credit(share)
            await refuse(turn, claim, "spawn", name, _taken(child), cause="SessionConflict", used=Usage(steps=1))
        return child
    finally:
        turn.end(claim)


def _check_time(what: str, seconds: float) -> None:
    if not math.isfinite(seconds) or seconds > _LONGEST_S:
        raise ValueError(f"{what} is {seconds!r}: give a number of seconds, ten years at most")


def _taken(child: str) -> str:
    return f"session {child!r} exists and is not a child of this step: use another id"


def _share(left: Budget, part: Budget) -> Budget:
    """A child's limits: `part` cut to what is left; where it asks for nothing in particular, half of that, so that the parent can go on."""

    def least(rest: Any, wanted: Any, half: Any) -> Any:
        return wanted if rest is None else half if wanted is None else min(rest, wanted)

    return Budget(
        steps=least(left.steps, part.steps, (left.steps or 0) // 2),
        tokens=least(left.tokens, part.tokens, (left.tokens or 0) // 2),
        usd=least(left.usd, part.usd, (left.usd or 0) / 2),
        seconds=least(left.seconds, part.seconds, (left.seconds or 0.0) / 2),
        tool_calls=least(left.tool_calls, part.tool_calls, (left.tool_calls or 0) // 2),
    )


async def _misfit(turn: Turn, target: str, body: bytes) -> tuple[str, str] | None:
    """Why the other's agent does not take this message, and the class of that error; None where it does, or where nobody knows it here."""
    live = turn.node.sessions.live.get(target)
    if live is None:
        row = await turn.node.store.session(target)
        agent = None if row is None else turn.node.settings.agents.get(row.agent)
    else:
        agent = live.agent
    if agent is None:
        return None  # sending it will tell
    try:
        agent.message.decode(body)
    except Exception as error:  # also whatever a user's own validator raises
        return f"agent {agent.name!r} does not take this message: {describe(error)}", type(error).__name__
    return None


async def _refuse_misfit(turn: Turn, claim: Claim, kind: str, target: str, misfit: tuple[str, str]) -> NoReturn:
    """What does not fit is the sender's fault: it must not put the other out of service."""
    text, cause = misfit
    used = await spend_step(turn, claim, kind, target)
    await refuse(turn, claim, kind, target, text, cause=cause, category="semantic", used=used)


def _pending_tells(turn: Turn, target: str) -> tuple[Op, ...]:
    """Take the tells to the same target out of the outbox: what was said first arrives first. Their ids make a second sending a no-op."""
    mine = tuple(op for op in turn.outbox if isinstance(op, Enqueue) and op.session == target)
    turn.outbox = [op for op in turn.outbox if op not in mine]
    return mine


async def _wait_step(
    turn: Turn,
    kind: str,
    name: str,
    args: bytes,
    seconds: float | None,
    target: str | None,
    outbox: Callable[[Claim], tuple[Op, ...]],
    hold_s: float,
    body: bytes | None = None,
) -> Outcome:
    """A step whose effect is to wait: for an answer under its key, or for the time to pass."""
    claim = turn.journal.claim(branch_of(), kind, name, args)
    found = claim.step
    if found is not None and found.record.outcome is not None:
        # Tells that left with it stay in the outbox: in a gather others may have got there by now, and a second sending is a no-op.
        turn.emit(events.StepReplayed, kind, name)
        return _raise_if_failed(found.record.outcome)
    await turn.admit()
    turn.begin(claim.branch)
    asking = [] if target is None else turn.waits.asking
    try:
        now = turn.node.clock.time()
        if kind == "ask" and found is None:
            cycle = turn.node.sessions.cycle(turn.actor.id, name)
            if cycle is not None:
                text = f"asking {name!r} would wait for itself: {' -> '.join((turn.actor.id, *cycle))}"
                await refuse(turn, claim, kind, name, text, AskCycle, used=await spend_step(turn, claim, kind, name))
        step_starts(turn, claim, kind, name, "read", now if found is None else found.record.opened)
        asking.append(name)
        if body is not None and found is None:
            misfit = await _misfit(turn, name, body)
            if misfit is not None:
                await _refuse_misfit(turn, claim, kind, name, misfit)
        until = None if seconds is None else now + seconds
        if found is None:
            used = await spend_step(turn, claim, kind, name)
            record = StepRecord(
                kind, name, claim.branch, claim.digest, claim.nth, "read", used=used, opened=now, until=until, target=target
            )
        else:
            record = found.record
            if record.until is not None and until is not None:
                until = min(record.until, until)  # a clock that jumped must not make it wait longer than it ever could
        if found is None or target is not None:
            # Sent again on every run: the process may have died between the record and the answer that sending it got at once.
            answer = _answered_at_once(await turn.acknowledged(turn.submit(claim.key, StepState.WAITING, record, outbox(claim))))
            if answer is not None:
                return await _close(turn, claim, record, answer)
        written = turn.journal.records[claim.key]
        if written.record.outcome is not None:
            return _raise_if_failed(written.record.outcome)
        park = Park("wait", f"waits for {kind} {name}" if target else "sleeps", until, (target,) if target else ())
        outcome = await turn.wait(claim.key, park, hold_s)
        if outcome is not None:
            return _raise_if_failed(outcome)
        if kind == "ask":
            text = f"no answer within {seconds:g} s; ask again with id {message_id(turn, claim.key)!r}"
            return await _close(turn, claim, record, Outcome(failure=Failure("AskTimeout", name, "AskTimeout", text, "transient")))
        return await _close(turn, claim, record, Outcome())
    finally:
        if name in asking:
            asking.remove(name)
        turn.end(claim)


def _answered_at_once(result: Result) -> Outcome | None:
    """What a message that was not taken into the mailbox came to."""
    if not result.outbox:
        return None
    last = result.outbox[-1]
    if last.status is Status.DUPLICATE and last.value is not None and last.value.reply is not None:
        return _decode_outcome(last.value.reply)
    if last.status is not Status.REFUSED:
        return None
    if isinstance(last.value, tuple):
        ended = last.value[1]
        if ended.result is not None:
            return _decode_outcome(ended.result)
        return Outcome(failure=Failure("StepError", ended.id, "SessionEnded", f"session {ended.id!r} is {ended.status}"))
    kinds = {"unknown": "SessionNotFound", "full": "MailboxFull", "conflict": "MessageConflict"}
    category = "transient" if last.value == "full" else "permanent"
    return Outcome(failure=Failure("StepError", "ask", kinds[last.value], f"the message was refused: {last.value}", category))


async def _close(turn: Turn, claim: Claim, record: StepRecord, outcome: Outcome) -> Outcome:
    record = msgspec.structs.replace(record, outcome=outcome, closed=turn.node.clock.time())
    state = StepState.CLOSED if outcome.failure is None else StepState.FAILED
    await turn.acknowledged(turn.submit(claim.key, state, record))
    return _raise_if_failed(outcome)


def _raise_if_failed(outcome: Outcome) -> Outcome:
    if outcome.failure is not None:
        raise error_of(outcome.failure)
    return outcome


def _value(outcome: Outcome) -> Any:
    return _plain.decode(_raise_if_failed(outcome).value)
