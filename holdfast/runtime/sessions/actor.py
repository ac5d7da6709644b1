"""A live session: its mailbox, budget, breaker and checkpoint in memory, and how each of its turns ends.

It has a task only while it has work. Its memory holds only what the store acknowledged: it changes in `applied` callbacks, and is dropped
and read again whenever it may differ from the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Container, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from holdfast import events, redact
from holdfast.errors import NotAwaited, NotJournalable, SessionError, StateError, StoreError, WriteRefused
from holdfast.policies.budget import ZERO
from holdfast.runtime.agents.definition import Agent
from holdfast.runtime.sessions import conclusion
from holdfast.runtime.sessions.aftermath import after_crash
from holdfast.runtime.sessions.life import WHY, WORKING, GiveUp, Life, Signal, move
from holdfast.runtime.sessions.pausing import Pause
from holdfast.runtime.sessions.unreadable import unreadable, unreadable_message
from holdfast.runtime.steps.session import Session
from holdfast.runtime.turns import doubt, tasks
from holdfast.runtime.turns.failures import STATE_S, describe, refused, trace, where
from holdfast.runtime.turns.journal import Journal
from holdfast.runtime.turns.node import Node
from holdfast.runtime.turns.observed import turn_starts
from holdfast.runtime.turns.owner import Owner
from holdfast.runtime.turns.turn import Turn
from holdfast.runtime.turns.verdict import Crashed, Interrupted, Returned
from holdfast.stores.ops import CommitTurn, FailTurn, Op, Result, Status, UpdateSession
from holdfast.stores.records import ENDED, TRIED_AGAIN, Loaded, Message, Park, SessionStatus
from holdfast.supervisors.intensity import Intensity, Restarts

_UNKNOWN = "the outcome of a write is unknown"


class Host(Protocol):
    """The registry of sessions, as an actor sees it: it gets the actor's reports and requests."""

    @property
    def draining(self) -> bool: ...
    @property
    def held(self) -> Container[str]: ...
    def culprit(self, session: str) -> bool: ...

    def dispatch(self, ops: Sequence[Op], results: Sequence[Result]) -> None:
        """The ops that left with a write are durable."""

    def replied(self, session: str, message: str, outcome: bytes, also: Sequence[Message] = ()) -> None:
        """A message is done or dead; `also` has it once for each step that was answered with it too."""

    def unanswerable(self, session: str, error: SessionError) -> None:
        """The session can answer none of its messages for now."""

    def ended(self, session: str, status: str, result: bytes, answered: list[Message]) -> None:
        """It takes no more messages. `result` is its result, an encoded Outcome; the waiting messages were answered."""

    def idle(self, actor: Actor) -> None:
        """Its task has ended: it has no work for now."""

    def reread(self, actor: Actor, at_once: bool = True) -> None:
        """Its memory may differ from the store: drop it and read it again."""

    async def write_rest(self, actor: Actor) -> None:
        """It was cancelled or killed: what is known of its effects is still to be written, and the doubts that are left."""


class Actor:
    """One session in memory, at one epoch.

    Attributes:
        life: its state; changed only through `signal`.
        unreadable: which of its rows does not decode, and why; "" for none. Otherwise no code of the session runs.
        parking: the park that is being written.
        wish: a person's request to park it, or to give its turn up, as soon as possible.
    """

    __slots__ = (
        "_journal", "begun", "crashes", "current", "fingerprint", "host", "life", "mailbox", "node", "owner", "park", "parking", "pause",
        "restarts", "row", "state", "status", "task", "touched", "unreadable", "version", "wish",
    )  # fmt: skip

    def __init__(self, node: Node, host: Host, agent: Agent | None, loaded: Loaded) -> None:
        row = loaded.session
        self.node, self.host, self.row = node, host, row
        # Tried again at each activation: a new version of the agent may load the state, and children may have returned budget.
        self.status: SessionStatus = "idle" if row.park is not None and row.park.reason in TRIED_AGAIN else row.status
        self.life = Life.ENDED if row.status in ENDED else Life.IDLE
        self.park, self.crashes = row.park or row.unresolved, row.crashes
        self.parking: Park | None = None
        self.state, self.version, self.fingerprint = loaded.checkpoint.state, loaded.checkpoint.version, loaded.checkpoint.fingerprint
        self._journal = Journal(loaded.steps) if loaded.steps else None
        self.mailbox: deque[Message] | list[Message] = deque(loaded.messages) if loaded.messages else []
        self.owner = Owner(loaded, agent, ZERO if self._journal is None else self._journal.spent(), node.clock.time())
        self.unreadable = self.owner.unreadable or unreadable(loaded)
        self.restarts = Restarts(Intensity() if agent is None else agent.intensity)
        self.current: Turn | None = None
        self.begun = 0
        self.task: asyncio.Task[None] | None = None
        self.pause = Pause(node.loop, node.clock)
        self.wish: Park | GiveUp | None = None
        self.touched = node.clock.monotonic()

    @property
    def id(self) -> str:
        return self.owner.id

    @property
    def agent(self) -> Agent:
        return self.owner.agent

    # ------------------------------------------------------------ mailbox and life

    @property
    def journal(self) -> Journal:
        """The records of the open turn; created on first use, so that an idle session uses no memory for them."""
        self._journal = self._journal or Journal()
        return self._journal

    def open_turn(self) -> Turn:
        """Its open turn, while no handler runs. That of an ended session has no message."""
        message = self.mailbox[0] if self.mailbox else Message(self.id, "", b"", b"")
        return Turn(self.owner, self.node, message, self.journal)

    def push(self, message: Message) -> None:
        """A message was accepted."""
        if not isinstance(self.mailbox, deque):
            self.mailbox = deque()
        self.mailbox.append(message)
        self.kick()

    def kick(self, *, due: bool = False) -> None:
        """Start the task if there is work. `due`: the wait that it is parked for is over, whatever the clock reads."""
        until = None if self.park is None or self.status != "parked" else self.park.until
        if until is not None and (due or until <= self.node.clock.time() + 0.001):
            self.status = "idle"
            self.owner.has_waited(until, self.node.clock.time())
        if self._runnable():
            self.signal(Signal.KICK)

    def signal(self, signal: Signal) -> None:
        """Take a signal: change state and act by the table of `life`."""
        self.life, action = move(self.life, signal)
        if self.life is Life.WOKEN and self.status == "parked":
            self.status = "idle"  # the answer that it has just parked for came in the same batch
        if action == "start":
            self.task = tasks.start(self._work(), f"session {self.id}")
        elif action == "reread":
            self._lost(_UNKNOWN)
        elif action:
            self.pause.end()
            if action == "leave" and self.current is not None:
                self.current.interrupt(WHY[signal], self.wish if signal is Signal.HOLD and isinstance(self.wish, Park) else None)

    def hold(self, park: Park) -> None:
        """Leave the turn once no step is in flight, and park."""
        if move(self.life, Signal.HOLD)[0] is Life.HOLDING:  # a session whose turn is being given up is not paused
            self.wish = park
        self.signal(Signal.HOLD)

    def give_up(self, cause: str) -> None:
        """Leave the turn now, and fail it."""
        self.wish = GiveUp(self.mailbox[0].id, cause)
        self.signal(Signal.DROP)

    @property
    def between_turns(self) -> bool:
        """Whether no message is or can be handled now: there is none, or the session is parked, failed or ended."""
        return not self.mailbox or self.status not in ("idle", "unfinished")

    def _runnable(self) -> bool:
        return not self.between_turns and self.owner.known and not self.host.draining and self.id not in self.host.held

    async def _work(self) -> None:
        try:
            await self._handle_messages()
            await self._grant()
        except Exception as error:
            # The store failed, or holdfast has a bug: the session is read again (a bug is logged), and no other session is affected.
            if not isinstance(error, StoreError):
                events.log.exception("session %s hit a fault of the runtime", self.id)
            self._lost(describe(error), isinstance(error, StoreError))
        finally:
            self.signal(Signal.OVER)
            self.task, self.current = None, None
            self.touched = self.node.clock.monotonic()
            if not self.mailbox:
                self.mailbox = []  # an empty deque is 600 bytes
            self.host.idle(self)
            self.kick()  # a person's request may have come too late for its turn, or the next message waits

    async def _handle_messages(self) -> None:
        try:
            while self.life in WORKING and self._runnable():
                await self._handle(self.mailbox[0])
        except WriteRefused as error:  # the write is at fault itself, and would be refused again at once: park the session
            try:
                await self._park(refused(describe(error), self.node.clock.time()))
            except StoreError as again:
                self._lost(describe(again), at_once=False)

    async def _grant(self) -> None:
        """Between turns: grant a person's request, or read the session again."""
        if self.life is Life.HOLDING and isinstance(self.wish, Park) and self.status in ("idle", "unfinished", "parked"):
            await self._hold(self.wish)
        elif self.life is Life.DROPPING and isinstance(self.wish, GiveUp):
            await self._give_up(self.wish)
        elif self.life is Life.STALE:
            self._lost(_UNKNOWN)
        elif self.status in ("cancelled", "killed"):
            await self.host.write_rest(self)

    async def _hold(self, park: Park) -> None:
        """Park it as a person asked, once the outcomes that only this process knows are written: people see no false doubt."""
        turn = self.open_turn()
        await doubt.write_what_is_known(turn)
        if turn.interruption is not None:
            return await self._interrupted(turn, turn.interruption)
        await self._park(park)

    async def _give_up(self, wish: GiveUp) -> None:
        self.wish = None
        if self.current is not None:
            await self.current.written()
        if self.mailbox and self.mailbox[0].id == wish.message and self.status not in ("failed", *ENDED):
            self.current = self.open_turn()
            await self._fail(self.current, wish.cause, threads=False)

    async def _handle(self, message: Message) -> None:
        why = self.unreadable or unreadable_message(message)
        if why:
            text = f"{why}; restore it from a backup, then resume; or drop the turn, or cancel the session"
            return await self._park_unread(StateError(self.id, text))
        if self.crashes >= self.agent.crash_limit and self.host.culprit(self.id):
            text = f"the process died {self.crashes} times during this turn without a new record: find out why, then resume"
            return await self._park(Park("crashes", text))
        self.signal(Signal.BEGIN)
        agent, turn = self.agent, Turn(self.owner, self.node, message, self.journal)
        self.current = turn
        try:
            body = agent.message.decode(message.body)
            session: Session[Any] = Session(turn, agent.load_state(self.id, self.state, self.version, self.fingerprint))
        except StateError as error:
            return await self._park_unread(error)
        except Exception as error:  # a user's own validator can raise any error
            return await self._fail(turn, f"the message does not decode: {describe(error)}")
        if again := turn.number == self.begun:
            self.owner.gates.repetition.clear()  # another run of the same turn notes the recorded calls again
        self.begun = turn.number
        turn_starts(turn, self.restarts.count(self.node.clock.monotonic()))
        if again or not turn.journal.clean or turn.in_hand():
            await turn.unless_left(doubt.prepare(turn))
        match turn.interruption or await turn.run(partial(agent.handler, session, body)):
            case Returned(value):
                await self._commit(turn, session, value)
            case Crashed(raised):
                await self._crashed(turn, raised)
            case Interrupted() as left:
                await self._interrupted(turn, left)

    async def _park_unread(self, error: StateError) -> None:
        """Park a session whose stored data cannot be read: no code of it runs, and its callers get the error."""
        self.host.unanswerable(self.id, error)
        await self._park(Park("state", str(error), self.node.clock.time() + STATE_S))

    async def _interrupted(self, turn: Turn, left: Interrupted) -> None:
        """Park, or read the session again where its rows may have changed; otherwise `life` decides the next action."""
        turn.emit(events.TurnLeft, left.why)
        if left.park is not None and left.why in ("park", "lost"):
            await self._park_turn(turn, left.park)
        elif left.why == "lost":
            self._lost(left.cause)

    # ------------------------------------------------------------ ends of a turn

    async def _commit(self, turn: Turn, session: Session[Any], value: Any) -> None:
        if turn.journal.in_doubt():
            await turn.unless_left(doubt.settle_all(turn))
        if turn.interruption is not None:
            return await self._interrupted(turn, turn.interruption)
        if turn.never_awaited:
            return await self._crashed(turn, NotAwaited(turn.never_awaited))
        lost: list[str] = []
        for step in turn.journal.left.values():
            turn.emit(events.Unclaimed, step.record.kind, step.record.name)
            if step.record.effect == "once":
                lost.append(step.record.name)
        if lost:
            text = f"the replayed code did not call recorded effect {', '.join(lost)}: deploy code that calls it, then resume"
            return await self._park_turn(turn, Park("unclaimed", text))
        try:
            op = conclusion.commit(turn, session.state, value)
        except NotJournalable as error:
            return await self._crashed(turn, error)
        conclusion.close_unended(turn)
        self._check((await self.node.group.submit(op, partial(self._committed, op), keep=True)).status)

    def _committed(self, op: CommitTurn, result: Result) -> None:
        if result.status is not Status.DONE:
            return
        self.mailbox.popleft()  # type: ignore[union-attr]
        self.state, self.version, self.fingerprint, self.status = op.state, op.version, op.fingerprint, op.status
        self.owner.turn, self.owner.notes, self.owner.gates.failures, self.owner.gates.tries = op.turn, (), 0, 0
        self._journal, self.park, self.crashes = None, None, 0
        self.host.dispatch(op.outbox, result.outbox)
        self.host.replied(self.id, op.message, op.reply, () if op.status in ENDED else result.value or ())
        self.node.emit(events.TurnCommitted(self.id, op.turn, op.message, op.status, op.usage.tokens, op.usage.microusd))
        if op.status in ENDED:
            self.life = Life.ENDED
            self.host.ended(self.id, op.status, op.result or b"", result.value)

    async def _crashed(self, turn: Turn, error: BaseException) -> None:
        node, again = self.node, bool(self.journal.trailing_failures())
        then = after_crash(error, self.owner.gates, self.restarts, self.agent.backoff, node.clock, node.random.uniform, asks_again=again)
        if isinstance(then, Park):
            return await self._park(then)
        cause, place = describe(error), where(error)
        cause = f"{cause} ({place})" if place else cause
        events.log.warning("turn %d of %s crashed: %s\n%s", turn.number, self.id, cause, trace(error))
        turn.emit(events.TurnCrashed, cause, then)
        if then is None:
            await self._fail(turn, cause)
        elif self.life in WORKING and self._runnable():  # else its task is about to end, without a restart
            self.signal(Signal.CRASH)
            await self.pause.wait(then)
            self.signal(Signal.RESTART)

    async def _fail(self, turn: Turn, cause: str, *, threads: bool = True) -> None:
        """Give the message up, once the doubts that `reconcile` can decide are resolved. `threads`: as for `ask_about_all`."""
        await turn.unless_left(doubt.ask_about_all(turn, threads=threads))
        if turn.interruption is not None:
            return await self._interrupted(turn, turn.interruption)
        op = conclusion.fail(turn, cause)
        self._check((await self.node.group.submit(op, partial(self._failed, op), keep=True)).status)

    def _failed(self, op: FailTurn, result: Result) -> None:
        if result.status is Status.DONE:
            self.mailbox.popleft()  # type: ignore[union-attr]
            self.status, self.park, self.wish, self.owner.gates.tries = "failed", None, None, 0
            self.host.dispatch(op.outbox, result.outbox)
            self.host.replied(self.id, op.message, op.reply, result.value or ())
            self.node.emit(events.SessionFailed(self.id, op.message, op.cause))

    async def _park_turn(self, turn: Turn, park: Park) -> None:
        """Park the turn. Reads recorded after the code diverged are dropped: an answer for the wrong code is not for the right code."""
        if park.reason in ("drift", "unclaimed") and (strayed := self.journal.strayed()):
            await doubt.drop(turn, strayed)
        await self._park(park)

    async def _park(self, park: Park) -> None:
        if self.life in (Life.STALE, Life.WOKEN, Life.DROPPING, Life.ENDED):
            return  # the answer may be in memory already, and the turn runs again; or the session waits no more
        wish, now = self.wish if isinstance(self.wish, Park) else None, self.node.clock.time()
        park = wish or park
        park = msgspec.structs.replace(park, text=redact.storable(park.text), since=park.since if park.until is None else now)
        gates = None if self.owner.unreadable else conclusion.stored_gates(self.owner, self.node)  # what does not decode stays
        op = UpdateSession(self.id, self.owner.epoch, now, status="parked", park=park, gates=gates)
        self.parking = park
        status = (await self.node.group.submit(op, partial(self._parked, park, wish), keep=True)).status
        if status is not Status.REFUSED:  # refused: the answer came meanwhile, and the turn runs again
            self._check(status)

    def _parked(self, park: Park, wish: Park | None, result: Result) -> None:
        self.parking = None
        if result.status is not Status.DONE:
            return
        self.status, self.park = "parked", park
        if self.wish is wish:  # another request may have come during the write: it is next
            self.wish = None
        self.node.emit(events.SessionParked(self.id, park.reason, park.text, park.until))
        if self.life is Life.WOKEN and wish is None:
            self.status = "idle"  # the answer that it was parked for came meanwhile

    def _check(self, status: Status) -> None:
        if status is not Status.DONE:
            self._lost("another activation of the session owns it: this one is fenced")

    def _lost(self, cause: str, at_once: bool = True) -> None:
        """Memory may differ from the store: drop it, and read it again; after a bug of holdfast not at once."""
        if self.status not in ENDED:
            self.status, self.park = "parked", None  # its next activation handles its wait
            self.node.emit(events.StoreFailed(self.id, cause))
            self.host.reread(self, at_once)
