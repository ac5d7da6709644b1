"""The gateway of this process: from a Handle directly to the live sessions and the store."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, NoReturn

import msgspec

from holdfast import codec, errors, events, redact
from holdfast.clock import Timer
from holdfast.given import brief
from holdfast.policies.budget import Budget
from holdfast.runtime.agents.definition import Agent
from holdfast.runtime.agents.ids import check_id, new_id
from holdfast.runtime.lifecycle import check_loop
from holdfast.runtime.live import Live, live, under_way
from holdfast.runtime.sessions.registry import Sessions, missing_agent
from holdfast.runtime.sessions.rewinding import Rewound
from holdfast.runtime.sessions.verbs import Verbs
from holdfast.runtime.sessions.waiters import END, Waiter, expire
from holdfast.runtime.turns.node import Node
from holdfast.stores.ops import CreateSession, Enqueue, Op, Result, Status
from holdfast.stores.records import ENDED, Outcome, Session
from holdfast.stores.unreadable import FAULTS, UNREADABLE, cannot_load
from holdfast.telemetry.context import carried

_plain = codec.codec_for(Any)
_MAX_NAMES = 1_000
_decode_outcome = msgspec.msgpack.Decoder(Outcome).decode


class LocalGateway:
    """Implements Gateway over the sessions of this process."""

    def __init__(self, node: Node, sessions: Sessions) -> None:
        self._node, self._sessions, self._own_verbs = node, sessions, Verbs(node, sessions)
        self._names: dict[str, str] = {}  # agent names of addressed sessions, which may not be in memory yet

    async def spawn(self, agent: Agent, id: str, tenant: str, user: str, state: Any, budget: Budget | None) -> Session:
        """Get or create. Raises SessionConflict where the id belongs to another agent or tenant."""
        check_loop(self._node.loop)
        check_id("id", id)
        check_id("tenant", tenant)
        check_id("user", user, empty=True)
        if budget is not None and not isinstance(budget, Budget):
            raise errors.ConfigError(f"budget is {brief(budget)}: give a Budget")
        first, _ = agent.state.round_trip(agent.first_state() if state is None else state)
        op = CreateSession(
            id,
            agent.name,
            tenant,
            user,
            agent.version,
            first,
            agent.budget if budget is None else budget.filled(agent.budget),
            self._node.random.randbytes(8),
            self._node.clock.time(),
            fingerprint=agent.state.fingerprint,
        )
        result = await self._submit(op)
        row: Session = result.value
        self._check_readable(row)
        if row.agent != agent.name or row.tenant != tenant:
            raise errors.SessionConflict(id, f"session {id!r} belongs to agent {row.agent!r} of tenant {row.tenant!r}: use another id")
        self._named(row)
        if result.status is Status.DONE and self._node.observers:
            self._node.emit(events.Spawned(id, agent.name))
        return row

    async def tell(self, session: str, message: Any, id: str | None) -> str:
        check_loop(self._node.loop)
        id = new_id() if id is None else id
        await self._enqueue(session, await self._agent(session), message, id)
        return id

    async def ask(self, session: str, message: Any, id: str | None, timeout_s: float) -> Any:
        check_loop(self._node.loop)
        id = new_id() if id is None else id
        agent = await self._agent(session)
        waiter = self._sessions.waiters.add(session, id)
        try:
            before = await self._enqueue(session, agent, message, id)
            if before is not None:
                return self._value(agent.reply, session, id, before)
            outcome = await self._answered(waiter, timeout_s)
            if outcome is None:
                raise errors.ReplyTimeout(session, id, timeout_s, _why_not_handling(await self.row(session)))
            return self._value(agent.reply, session, id, outcome)
        finally:
            self._sessions.waiters.forget(session, id, waiter)

    async def result(self, session: str, timeout_s: float | None) -> Any:
        check_loop(self._node.loop)
        self._check_accepting()
        waiter = self._sessions.waiters.add(session, END)  # before the read of the row: the session may end meanwhile
        try:
            row = await self.row(session)
            self._check_readable(row)
            if row.status in ENDED:
                if row.result is None:
                    raise errors.SessionEnded(session, f"session {session!r} is {row.status}")
                return self._value(_plain, session, END, _decode_outcome(row.result))
            outcome = await self._answered(waiter, timeout_s)
            if outcome is None:
                raise errors.ReplyTimeout(session, END, timeout_s or 0.0)
            return self._value(_plain, session, END, outcome)
        finally:
            self._sessions.waiters.forget(session, END, waiter)

    async def end(self, session: str, status: str, reason: str) -> bool:
        check_loop(self._node.loop)
        return await self._sessions.endings.end(check_id("session", session), status, redact.text(reason))  # type: ignore[arg-type]

    async def row(self, session: str) -> Session:
        return await self._verbs.row(session)

    # ------------------------------------------------------------ verbs of people

    @property
    def _verbs(self) -> Verbs:
        check_loop(self._node.loop)
        return self._own_verbs

    async def live(self, session: str) -> Live | None:
        check_loop(self._node.loop)
        actor = self._sessions.find(check_id("session", session))
        if actor is None:
            await self.row(session)
            return None
        return live(actor, under_way(self._node).get(session, []), os.getpid())

    async def pause(self, session: str, reason: str) -> None:
        await self._verbs.pause(session, reason)

    async def resume(self, session: str) -> None:
        await self._verbs.resume(session)

    async def interrupt(self, session: str, step: str | None) -> int:
        return await self._verbs.interrupt(session, step)

    async def raise_budget(self, session: str, by: Budget) -> None:
        await self._verbs.raise_budget(session, by)

    async def resolve(self, session: str, verdict: str, step: str | None, result: Any) -> int:
        return await self._verbs.resolve(session, verdict, step, result)

    async def retry(self, session: str) -> None:
        await self._verbs.retry(session)

    async def drop(self, session: str, reason: str, keep_letter: bool) -> None:
        await self._verbs.drop(session, reason, keep_letter)

    async def rewind(self, session: str, turn: int, reason: str, dry_run: bool) -> Rewound:
        return await self._verbs.rewind(session, turn, reason, dry_run)

    # ------------------------------------------------------------ the way in

    def _check_accepting(self) -> None:
        if self._sessions.draining:
            raise errors.RuntimeStopped("the runtime is draining and not accepting work: send it again when it runs")

    async def _submit(self, op: Op) -> Result:
        self._check_accepting()
        return await self._node.group.submit(op)

    async def _enqueue(self, session: str, agent: Agent, message: Any, id: str) -> Outcome | None:
        """Put a message into the mailbox; returns its outcome if it was handled before."""
        check_id("message id", id)
        body = codec.body_of(message)
        try:
            got = agent.message.decode(body)
        except (msgspec.ValidationError, ValueError, TypeError, RecursionError) as error:
            raise errors.MessageRefused(session, f"agent {agent.name!r} does not take this message: {error}") from error
        if why := agent.message.why_lost(message, got):
            raise errors.NotJournalable(why)
        op = Enqueue(session, id, body, codec.digest(body), self._node.clock.time(), limit=agent.mailbox, context=carried())
        self._check_accepting()
        result = await self._node.group.submit(op, lambda done: self._sessions.dispatch((op,), (done,)))
        if result.status is Status.DUPLICATE:
            if result.value.reply is None:
                self._sessions.wake(session)
                return None
            try:
                return _decode_outcome(result.value.reply)
            except FAULTS as error:
                raise errors.StateError(
                    session, f"the reply to message {id!r} does not decode ({error}): restore its row from a backup"
                ) from error
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
        if why == UNREADABLE:
            raise cannot_load(session, "its row does not decode")
        raise errors.SessionEnded(session, f"session {session!r} is {why[1].status}: spawn another")

    def _unknown(self, session: str) -> NoReturn:
        raise errors.SessionNotFound(session, f"no session {session!r}: check the id, or spawn it")

    async def _agent(self, session: str) -> Agent:
        """The agent of a session; read from the store the first time. Only its limits can change."""
        live = self._sessions.agent_of(session)
        if live is not None:
            return live
        name = self._names.get(session)
        if name is None:
            row = await self.row(session)
            self._check_readable(row)
            name = self._named(row)
        agent = self._node.settings.agents.get(name)
        if agent is None:
            raise missing_agent(session, name)
        return agent

    @staticmethod
    def _check_readable(row: Session) -> None:
        if row.unreadable:
            raise cannot_load(row.id, row.unreadable)

    def _named(self, row: Session) -> str:
        if len(self._names) >= _MAX_NAMES:
            self._names.clear()
        self._names[row.id] = row.agent
        return row.agent

    async def _answered(self, waiter: Waiter, timeout_s: float | None) -> Outcome | None:
        """The answer; None where it did not come in time."""
        if timeout_s is None:
            return await waiter
        timer = Timer(self._node.loop, self._node.clock, self._node.clock.time() + timeout_s, partial(expire, waiter))
        try:
            return await waiter
        finally:
            timer.cancel()

    def _value(self, decoder: codec.Codec, session: str, id: str, outcome: Outcome) -> Any:
        failure = outcome.failure
        if failure is None:
            return decoder.decode(outcome.value)
        if failure.error == "SessionEnded":
            raise errors.SessionEnded(session, f"session {session!r} is {failure.type}: {failure.message}")
        raise errors.TurnFailed(session, id, failure.message, failure.effects, failure.in_doubt, failure.failed)


def _why_not_handling(row: Session) -> str:
    """Why a session does not handle its messages; "" if it does."""
    if row.status == "failed":
        return "it has failed, and handles nothing until its dead letter is retried or dropped"
    return f"it is parked ({row.park.reason}): {row.park.text}" if row.status == "parked" and row.park is not None else ""
