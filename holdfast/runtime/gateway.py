"""The gateway of this process: from a Handle straight to the live sessions and the store."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import msgspec

from holdfast import codec, errors, events, redact
from holdfast.policies.budget import Budget, Usage
from holdfast.runtime.sessions.actor import Actor
from holdfast.runtime.agents.definition import Agent
from holdfast.runtime.agents.ids import check_id
from holdfast.runtime.turns.journal import cost
from holdfast.runtime.live import Live, live, under_way
from holdfast.runtime.turns.node import Node
from holdfast.stores.ops import CreateSession, DropLetter, DropSteps, Enqueue, Op, Result, RetryLetter, Status, UpdateSession, WriteStep
from holdfast.stores.records import ENDED, Failure, Outcome, Park, Session, Step, StepState
from holdfast.telemetry.context import carried

_plain = codec.codec_for(Any)
_BY_PERSON = "a person said so"
_MAX_NAMES = 1_000
_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode


def _check_results(actor: Actor, doubts: Sequence[Step], result: Any) -> None:
    """Raises MessageRefused where `result` is not what the effect returns: recorded, it could not be taken back."""
    for doubt in doubts:
        call = actor.agent.recall(doubt.record)
        try:
            if call is not None:
                call.codec.decode(_plain.encode(result))
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            raise errors.MessageRefused(actor.id, f"result= is not what {doubt.record.name} returns: {error}") from error


class LocalGateway:
    """Implements Gateway; the verbs that change a session go through its actor, under its epoch."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._names: dict[str, str] = {}  # of sessions that were addressed and need not be in memory yet

    async def spawn(self, agent: Agent, id: str, tenant: str, user: str, state: Any, budget: Budget | None) -> Session:
        """Get or create. Raises SessionConflict where the id belongs to another agent or tenant."""
        check_id("id", id)
        check_id("tenant", tenant)
        check_id("user", user, empty=True)
        if budget is not None and not isinstance(budget, Budget):
            raise errors.ConfigError(f"budget is {budget!r}: give a Budget")
        first, _ = agent.state.round_trip(agent.first_state() if state is None else state)
        op = CreateSession(
            id,
            agent.name,
            tenant,
            user,
            agent.version,
            first,
            budget or agent.budget,
            self._node.random.randbytes(8),
            self._node.clock.time(),
        )
        result = await self._submit(op)
        row: Session = result.value
        if row.agent != agent.name or row.tenant != tenant:
            raise errors.SessionConflict(id, f"session {id!r} belongs to agent {row.agent!r} of tenant {row.tenant!r}: use another id")
        self._named(row)
        if result.status is Status.DONE and self._node.observers:
            self._node.emit(events.Spawned(id, agent.name))
        return row

    async def tell(self, session: str, message: Any, id: str | None) -> str:
        id = uuid.uuid4().hex if id is None else id
        await self._enqueue(session, message, id)
        return id

    async def ask(self, session: str, message: Any, id: str | None, timeout_s: float) -> Any:
        id = uuid.uuid4().hex if id is None else id
        agent = await self._agent(session)
        waiter = self._node.sessions.waiters.add(session, id)
        try:
            before = await self._enqueue(session, message, id)
            if before is not None:
                return self._value(agent.reply, session, id, before)
            if not await self._answered(waiter, timeout_s):
                raise errors.ReplyTimeout(session, id, timeout_s, _resting(await self.row(session)))
            return self._value(agent.reply, session, id, waiter.result())
        finally:
            waiter.cancel()

    async def result(self, session: str, timeout_s: float | None) -> Any:
        id = f"watch/{uuid.uuid4().hex}"
        waiter = self._node.sessions.waiters.add(session, id)
        try:
            op = Enqueue(session, id, b"", b"", self._node.clock.time(), kind="watch")
            result = await self._submit(op)
            if result.value == "unknown":
                self._unknown(session)
            if isinstance(result.value, tuple):
                ended: Session = result.value[1]
                if ended.result is None:
                    raise errors.SessionEnded(session, f"session {session!r} is {ended.status}")
                return self._value(_plain, session, id, _decode_outcome(ended.result))
            if not await self._answered(waiter, timeout_s):
                raise errors.ReplyTimeout(session, "", timeout_s or 0.0)  # the id is the watch's own: nobody can ask with it
            return self._value(_plain, session, id, waiter.result())
        finally:
            waiter.cancel()

    async def end(self, session: str, status: str, reason: str) -> bool:
        return await self._node.sessions.endings.end(check_id("session", session), status, redact.text(reason))  # type: ignore[arg-type]

    async def row(self, session: str) -> Session:
        row = await self._node.store.session(check_id("session", session))
        return row if row is not None else self._unknown(session)

    # ------------------------------------------------------------ a person's verbs

    async def pause(self, session: str, reason: str) -> None:
        actor = await self._node.sessions.actor(check_id("session", session))
        if actor.status == "failed" or actor.status in ENDED:
            raise errors.SessionError(session, f"session {session!r} is {actor.status}: there is nothing to pause")
        if self._node.sessions.draining:
            raise errors.RuntimeStopped("the runtime is draining: it accepts nothing")
        actor.hold(Park("paused", redact.text(reason)))
        if actor.task is not None:
            await asyncio.wait((actor.task,))
        row = await self.row(session)
        if row.park is None or row.park.reason != "paused":
            raise errors.SessionError(session, f"session {session!r} is {row.status} before it could be paused: look at it again")

    async def live(self, session: str) -> Live | None:
        actor = self._node.sessions.live.get(check_id("session", session))
        if actor is None:
            await self.row(session)
            return None
        return live(actor, under_way(self._node).get(session, []), os.getpid())

    async def resume(self, session: str) -> None:
        actor = await self._resting(session)
        if actor.status != "parked":
            raise errors.SessionError(session, f"session {session!r} is {actor.status}, not parked: there is nothing to resume")
        op = UpdateSession(session, actor.epoch, self._node.clock.time(), status="idle", settled=True)
        await self._write(actor, op, lambda: self._again(actor))

    async def raise_budget(self, session: str, by: Budget) -> None:
        actor = await self._node.sessions.actor(check_id("session", session))
        if actor.status in ENDED:
            raise errors.SessionEnded(session, f"session {session!r} is {actor.status}: its budget cannot be raised")
        actor.gates.raise_(by)  # before the write, so that two at once add up
        waiting = actor.status == "parked" and actor.park is not None and actor.park.reason == "budget"
        now, limits, gates = self._node.clock.time(), actor.ledger.limits, self._node.encode(actor.gates.snapshot())
        op = UpdateSession(session, actor.epoch, now, status="idle" if waiting else None, budget=limits, gates=gates)
        try:
            await self._write(actor, op, lambda: self._again(actor) if waiting else None)
            # Where it is about to park for the old limit, or does so while this is written, it runs again instead.
            actor.woken = actor.task is not None
            if not waiting and actor.status == "parked" and actor.park is not None and actor.park.reason == "budget":
                await self._write(actor, UpdateSession(session, actor.epoch, now, status="idle"), lambda: self._again(actor))
        except errors.StoreError:
            actor.outdate()
            raise

    async def resolve(self, session: str, verdict: str, step: str | None, result: Any) -> int:
        actor = await self._resting(session)
        doubts = [s for s in actor.journal.in_doubt() if step is None or s.record.name == step]
        if verdict == "done":
            _check_results(actor, doubts, result)
        now, ops = self._node.clock.time(), list[Op]()
        for doubt in doubts:
            if verdict == "retry":
                ops.append(DropSteps(session, actor.epoch, doubt.turn, (doubt.key,), cost(doubt)))
            else:
                failure = Failure("StepError", doubt.record.name, "NotDone", "a person said that it did not happen")
                outcome = Outcome(_plain.encode(result)) if verdict == "done" else Outcome(failure=failure)
                record = msgspec.structs.replace(
                    doubt.record,
                    outcome=outcome,
                    used=cost(doubt),
                    reserved=Usage(),
                    closed=now,
                    note=_BY_PERSON,
                )
                state = StepState.CLOSED if verdict == "done" else StepState.FAILED
                ops.append(WriteStep(session, actor.epoch, doubt.turn, doubt.key, state, self._node.encode(record)))
        cut_off = not actor.journal.in_doubt() and actor.park is not None and actor.park.reason == "doubt"
        paused = actor.park is not None and actor.park.reason == "paused"
        if actor.status == "parked" and not paused and (doubts or cut_off):  # cut off: an earlier call that got no further than its doubts
            ops.append(UpdateSession(session, actor.epoch, now, status="idle", settled=True))
        for op in ops[:-1]:
            # Fenced with the last one; where that is not written, the next call finds what was settled, and goes on from there.
            self._node.group.submit(op)
        for op in ops[-1:]:
            await self._write(actor, op, lambda: self._again(actor))
        for doubt in doubts:
            self._node.emit(events.DoubtSettled(session, doubt.turn, doubt.record.name, verdict, "person"))
        return len(doubts)

    async def retry(self, session: str) -> None:
        actor = await self._resting(session)
        op = RetryLetter(session, actor.epoch, self._node.clock.time())
        result = await self._write(actor, op, lambda: self._again(actor))
        if result.status is Status.REFUSED:
            raise errors.SessionError(session, f"session {session!r} has no dead letter")

    async def drop(self, session: str) -> None:
        actor = await self._resting(session)

        def dropped() -> None:
            self._node.sessions.endings.dropped(session, actor.turn + 1)
            self._again(actor)

        result = await self._write(actor, DropLetter(session, actor.epoch, actor.journal.spent(), self._node.clock.time()), dropped)
        if result.status is Status.REFUSED:
            raise errors.SessionError(session, f"session {session!r} has no dead letter")

    async def _resting(self, session: str) -> Actor:
        actor = await self._node.sessions.actor(check_id("session", session))
        if actor.task is not None:
            raise errors.SessionError(session, f"session {session!r} is at work: pause or wait until it rests")
        return actor

    def _again(self, actor: Actor) -> None:
        """What is stored of it was changed: it is read again, and goes on if there is something to do."""
        self._node.sessions.reread(actor)
        self._node.sessions.wake(actor.id)

    async def _write(self, actor: Actor, op: Op, applied: Callable[[], None]) -> Result:
        """`applied` is called once the write is done, whether or not the caller still waits for it."""
        if self._node.sessions.draining:
            raise errors.RuntimeStopped("the runtime is draining: it accepts nothing")
        result = await self._node.group.submit(op, lambda done: applied() if done.status is Status.DONE else None)
        if result.status is Status.FENCED:
            raise errors.SessionError(actor.id, f"session {actor.id!r} was taken over meanwhile: try again")
        return result

    # ------------------------------------------------------------ the way in

    async def _submit(self, op: Op) -> Result:
        if self._node.sessions.draining:
            raise errors.RuntimeStopped("the runtime is draining: it accepts nothing")
        return await self._node.group.submit(op)

    async def _enqueue(self, session: str, message: Any, id: str) -> Outcome | None:
        """Put a message into the mailbox; its outcome if it was handled before."""
        check_id("message id", id)
        agent = await self._agent(session)
        body = codec.encode(message)
        try:
            agent.message.decode(body)
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            raise errors.MessageRefused(session, f"agent {agent.name!r} does not take this message: {error}") from error
        op = Enqueue(session, id, body, codec.digest(body), self._node.clock.time(), limit=agent.mailbox, context=carried())
        if self._node.sessions.draining:
            raise errors.RuntimeStopped("the runtime is draining: it accepts nothing")
        result = await self._node.group.submit(op, lambda done: self._node.sessions.dispatch((op,), (done,)))
        if result.status is Status.DUPLICATE:
            if result.value.reply is None:
                self._node.sessions.wake(session)
                return None
            return _decode_outcome(result.value.reply)
        if result.status is Status.REFUSED:
            self._refused(session, message, id, agent, result.value)
        return None

    def _refused(self, session: str, message: Any, id: str, agent: Agent, why: Any) -> NoReturn:
        if why == "full":
            raise errors.MailboxFull(session, message, agent.mailbox)
        if why == "conflict":
            raise errors.MessageConflict(session, f"message id {id!r} was used before with another body: use a new id")
        if why == "unknown":
            self._unknown(session)
        raise errors.SessionEnded(session, f"session {session!r} is {why[1].status}: spawn another")

    def _unknown(self, session: str) -> NoReturn:
        raise errors.SessionNotFound(session, f"no session {session!r}: check the id, or spawn it")

    async def _agent(self, session: str) -> Agent:
        """The agent of a session; read from the store the first time. It never changes, but for its limits."""
        live = self._node.sessions.live.get(session)
        if live is not None:
            return live.agent
        name = self._names.get(session) or self._named(await self.row(session))
        agent = self._node.settings.agents.get(name)
        if agent is None:
            raise errors.ConfigError(f"session {session!r} runs agent {name!r}, which this Runtime does not have: add it to agents=")
        return agent

    def _named(self, row: Session) -> str:
        if len(self._names) >= _MAX_NAMES:
            self._names.clear()
        self._names[row.id] = row.agent
        return row.agent

    async def _answered(self, waiter: asyncio.Future[Outcome], timeout_s: float | None) -> bool:
        await asyncio.wait((waiter,), timeout=timeout_s)
        return waiter.done()

    def _value(self, decoder: codec.Codec, session: str, id: str, outcome: Outcome) -> Any:
        failure = outcome.failure
        if failure is None:
            return decoder.decode(outcome.value)
        if failure.error == "SessionEnded":
            raise errors.SessionEnded(session, f"session {session!r} is {failure.type}: {failure.message}")
        raise errors.TurnFailed(session, id, failure.message, failure.effects)


def _resting(row: Session) -> str:
    """Why a session does not handle its messages, if it does not."""
    if row.status == "failed":
        return "it is failed, and goes on when its dead letter is retried or dropped"
    return f"it is parked ({row.park.reason}): {row.park.text}" if row.status == "parked" and row.park is not None else ""
