"""A live session: its mailbox, budget, breaker and checkpoint in memory, and what becomes of each turn.

It has a task only while it has something to do. What is here is what the store acknowledged; it is changed in `applied` callbacks, and
thrown away, to be read again, whenever that is in question.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from holdfast import events
from holdfast.errors import NotJournalable, StateError, StoreError
from holdfast.policies.budget import Ledger
from holdfast.runtime import conclusion, tasks
from holdfast.runtime.aftermath import after_crash
from holdfast.runtime.doubt import settle_abandoned
from holdfast.runtime.failures import describe, trace, where
from holdfast.runtime.gates import Gates
from holdfast.runtime.journal import Journal
from holdfast.runtime.observed import turn_starts
from holdfast.runtime.pausing import Pause
from holdfast.runtime.session import Session
from holdfast.runtime.turn import Turn
from holdfast.runtime.verdict import Crashed, Interrupted, Returned
from holdfast.stores.ops import CommitTurn, FailTurn, Op, Result, ReturnBudget, Status, UpdateSession
from holdfast.stores.records import ENDED, Loaded, Message, Park, SessionStatus
from holdfast.supervisors.intensity import RestartWindow

if TYPE_CHECKING:
    from holdfast.runtime.agent import Agent
    from holdfast.runtime.node import Node

_STATE_S = 60.0  # how soon a state that did not load is tried again, besides at every message and start
_UNKNOWN = "the outcome of a write is unknown"
_plain = msgspec.msgpack.Decoder(dict[str, Any]).decode


class Actor:
    """One session in memory, at one epoch."""

    __slots__ = (
        "agent", "condemned", "crashes", "current", "epoch", "gates", "held", "id", "journal", "ledger", "mailbox", "node", "notes", "park",
        "pause", "restarts", "row", "stale", "state", "status", "task", "tenant", "touched", "turn", "version", "woken",
    )  # fmt: skip

    def __init__(self, node: Node, agent: Agent, loaded: Loaded) -> None:
        row = loaded.session
        self.node, self.agent, self.row = node, agent, row
        self.id, self.tenant, self.epoch, self.turn = row.id, row.tenant, row.epoch, row.turn
        # What could not be loaded is tried again at each activation: the agent may have been put right meanwhile.
        self.status: SessionStatus = "idle" if row.park is not None and row.park.reason == "state" else row.status
        self.park, self.notes, self.crashes = row.park, row.notes, row.crashes
        self.state, self.version = loaded.checkpoint.state, loaded.checkpoint.version
        self.journal = Journal(loaded.steps)
        self.mailbox: deque[Message] | list[Message] = deque(loaded.messages) if loaded.messages else []
        self.ledger = Ledger(row.budget, row.usage + self.journal.spent())
        self.gates = Gates(agent, row.id, self.ledger, _plain(row.gates) if row.gates else {}, node.clock.time())
        self.restarts = RestartWindow(agent.intensity)
        self.current: Turn | None = None
        self.task: asyncio.Task[None] | None = None
        self.pause = Pause(node.loop)
        self.held: Park | None = None  # what a person wants it parked for, as soon as it can be
        self.woken = self.stale = self.condemned = False
        self.touched = node.clock.monotonic()

    # ------------------------------------------------------------ mailbox and life

    def push(self, message: Message) -> None:
        """A message was accepted."""
        if not isinstance(self.mailbox, deque):
            self.mailbox = deque()
        self.mailbox.append(message)
        self.kick()

    def kick(self) -> None:
        """Go to work if there is any."""
        if self.status == "parked" and self.park is not None and (self.park.until or 1e300) <= self.node.clock.time() + 0.001:
            self.status = "idle"
        if self.task is None and self._runnable():
            self.task = tasks.start(self._work(), f"session {self.id}")

    def outdate(self) -> None:
        """Something about it may be stored that is not known here: it is read again, once what is under way has ended."""
        self.stale = True
        if self.task is None:
            self._lost(_UNKNOWN)

    def _runnable(self) -> bool:
        may = self.status in ("idle", "unfinished") and self.held is None and not self.node.sessions.draining
        return may and bool(self.mailbox)

    async def _work(self) -> None:
        try:
            while self._runnable() and not self.stale:
                await self._handle(self.mailbox[0])
            if self.held is not None and self.status in ("idle", "unfinished", "parked"):
                await self._park(self.held)
            if self.stale:
                self._lost(_UNKNOWN)
        except Exception as error:
            # The store, or a fault of holdfast itself: the session is read again, a fault loudly, and no other session notices.
            if not isinstance(error, StoreError):
                events.log.exception("session %s hit a fault of the runtime", self.id)
            self._lost(describe(error), isinstance(error, StoreError))
        finally:
            self.task, self.current = None, None
            self.touched = self.node.clock.monotonic()
            if not self.mailbox:
                self.mailbox = []  # an empty deque is 600 bytes
            self.node.sessions.rested(self)

    async def _handle(self, message: Message) -> None:
        if self.crashes >= self.agent.crash_limit:
            text = f"the process died {self.crashes} times during this turn without a new record; find out why, then resume"
            return await self._park(Park("crashes", text))
        self.woken = False
        turn = self.current = Turn(self, message, self.journal)
        try:
            body = self.agent.message.decode(message.body)
            session: Session[Any] = Session(turn, self.agent.load_state(self.id, self.state, self.version))
        except StateError as error:
            self.node.sessions.waiters.refuse(self.id, error)
            return await self._park(Park("state", str(error), self.node.clock.time() + _STATE_S))
        except Exception as error:  # also whatever a user's own validator raises
            return await self._fail(turn, f"the message does not decode: {describe(error)}")
        turn_starts(turn)
        match await turn.run(partial(self.agent.handler, session, body)):
            case Returned(value):
                await self._commit(turn, session, value)
            case Crashed(raised):
                await self._crashed(turn, raised)
            case Interrupted() as left:
                await self._interrupted(left)

    async def _interrupted(self, left: Interrupted) -> None:
        """Park, or read again what may have changed; drained or ended, there is nothing to do: `_runnable` says no from now on."""
        if self.current is not None:
            self.current.emit(events.TurnLeft, left.why)
        if left.park is not None:
            await self._park(left.park)
        elif left.why == "lost":
            self._lost("fenced, or the store failed")

    # ------------------------------------------------------------ what becomes of a turn

    async def _commit(self, turn: Turn, session: Session[Any], value: Any) -> None:
        await settle_abandoned(turn)
        if turn.interruption is not None:
            return await self._interrupted(turn.interruption)
        lost = [s.record.name for s in self.journal.unclaimed() if s.record.effect == "once"]
        for step in self.journal.unclaimed():
            turn.emit(events.Unclaimed, step.record.kind, step.record.name)
        if lost:
            text = f"{', '.join(lost)} was done before the crash, and the code never asked for it again; put it right, then resume"
            return await self._park(Park("unclaimed", text))
        try:
            op = conclusion.commit(turn, session.state, value)
        except NotJournalable as error:
            return await self._crashed(turn, error)
        self._check((await self.node.group.submit(op, partial(self._committed, op))).status)

    def _committed(self, op: CommitTurn, result: Result) -> None:
        if result.status is not Status.DONE:
            return
        self.mailbox.popleft()  # type: ignore[union-attr]
        self.turn, self.state, self.version, self.status = op.turn, op.state, op.version, op.status
        self.journal, self.notes, self.park, self.crashes, self.gates.failures = Journal(), (), None, 0, 0
        self.node.sessions.dispatch(op.outbox, result.outbox)
        self.node.sessions.replied(self.id, op.message, op.reply)
        self.node.emit(events.TurnCommitted(self.id, op.turn, op.message, op.status, op.usage.tokens, op.usage.microusd))
        if op.status in ENDED:
            self.node.sessions.endings.ended(self.id, op.status, result.value)

    async def _crashed(self, turn: Turn, error: BaseException) -> None:
        node = self.node
        then = after_crash(error, self.gates, self.restarts, self.agent.backoff, node.clock, node.random.uniform)
        if isinstance(then, Park):
            return await self._park(then)
        cause, place = describe(error), where(error)
        cause = f"{cause} ({place})" if place else cause
        events.log.warning("turn %d of %s crashed: %s\n%s", turn.number, self.id, cause, trace(error))
        turn.emit(events.TurnCrashed, cause, then)
        if then is None:
            await self._fail(turn, cause)
        elif self._runnable():  # else it is about to rest: there is nothing to wait for
            await self.pause.wait(then)

    def interrupt(self, why: Literal["drain", "ended"]) -> None:
        """Leave what is being done: at a drain once no step is in flight, else at once."""
        self.pause.end()
        if self.current is not None:
            self.current.interrupt(why)

    def hold(self, park: Park) -> None:
        """Leave what is being done once no step is in flight, and park."""
        self.held = park
        self.pause.end()
        if self.current is not None:
            self.current.interrupt("pause", park)
        elif self.task is None:
            self.task = tasks.start(self._work(), f"session {self.id}")

    async def _fail(self, turn: Turn, cause: str) -> None:
        op = conclusion.fail(turn, cause)
        self._check((await self.node.group.submit(op, partial(self._failed, op))).status)

    def _failed(self, op: FailTurn, result: Result) -> None:
        if result.status is Status.DONE:
            self.mailbox.popleft()  # type: ignore[union-attr]
            self.status = "failed"
            self.node.sessions.dispatch(op.outbox, result.outbox)
            self.node.sessions.replied(self.id, op.message, op.reply)
            self.node.emit(events.SessionFailed(self.id, op.message, op.cause))

    async def _park(self, park: Park) -> None:
        if self.stale or (self.woken and self.held is None):
            return  # what it waits for may be there already: the turn runs again
        held, now = self.held, self.node.clock.time()
        park = held or park
        op = UpdateSession(self.id, self.epoch, now, status="parked", park=park, gates=self.stored_gates())
        status = (await self.node.group.submit(op, partial(self._parked, park, held))).status
        if status is not Status.REFUSED:  # refused: what it waits for came meanwhile, and the turn runs again
            self._check(status)

    def _parked(self, park: Park, held: Park | None, result: Result) -> None:
        if result.status is not Status.DONE:
            return
        self.status, self.park = "parked", park
        if self.held is held:  # another may have come while this was written: it is next
            self.held = None
        self.node.emit(events.SessionParked(self.id, park.reason, park.text, park.until))
        if self.woken and held is None:
            self.status = "idle"  # what it was parked for came meanwhile

    def unspent(self) -> tuple[Op, ...]:
        """What goes back to the parent when this session ends."""
        if self.row.parent is None or self.row.detached:
            return ()
        rest = self.gates.unspent()
        return (ReturnBudget(self.row.parent.session, rest),) if rest else ()

    def stored_gates(self) -> bytes:
        """What the gates have to remember, encoded."""
        stored = self.gates.snapshot()
        return self.node.encode(stored) if stored else b""

    def _check(self, status: Status) -> bool:
        if status is not Status.DONE:
            self._lost("fenced: the session was taken over")
        return status is Status.DONE

    def _lost(self, cause: str, at_once: bool = True) -> None:
        """What is in memory may not be what is stored: drop it, and read again; after a fault of our own not at once."""
        if self.status not in ENDED:
            self.status = "parked"
            self.node.emit(events.StoreFailed(self.id, cause))
            self.node.sessions.reread(self, at_once)
