"""One run of a handler over one message: admission, writes, waits, and how it ends.

A turn is run again, over the same journal, until it is committed or given up. A run ends in one of three ways: the handler returned, it
raised, or it was interrupted (parked, drained, fenced, ended). An interrupted handler admits no step and commits nothing, and what it
had in memory is dropped; one that swallows its cancellation is left behind, fenced and reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from holdfast import events
from holdfast.calls.call import Call
from holdfast.errors import StoreError
from holdfast.runtime import tasks
from holdfast.runtime.branches import Branches
from holdfast.runtime.doubt import prepare
from holdfast.runtime.failures import describe
from holdfast.runtime.journal import Claim, Journal
from holdfast.runtime.observed import step_over
from holdfast.runtime.verdict import GENTLE, Crashed, Interrupted, Returned, Verdict, Why
from holdfast.runtime.waits import Waits
from holdfast.stores.ops import Op, Result, Status, WriteStep
from holdfast.stores.records import Message, Outcome, Park, Step, StepRecord, StepState

if TYPE_CHECKING:
    from holdfast.runtime.actor import Actor

SETTLE_S = 0.02
"""How long a turn that waits for a person is left alone before it parks, so that a sibling between two steps can begin the next."""


class Turn:
    """The open turn of a live session. Steps come in through `admit`, `begin` and `end`; writes go out through `submit`."""

    __slots__ = (
        "_active_mark", "_busy", "_busy_in", "_ended", "_prefix", "abandoned", "actor", "branches", "finishing", "interruption",
        "journal", "message", "node", "number", "outbox", "over", "refused", "replaying", "result", "started", "waits",
    )  # fmt: skip

    def __init__(self, actor: Actor, message: Message, journal: Journal) -> None:
        self.actor, self.node, self.message, self.journal = actor, actor.node, message, journal
        self.number = actor.turn + 1
        self.started = self.node.clock.time()
        self.outbox: list[Op] = []
        self.finishing, self.result = False, None
        self.over = False  # this run's handler has ended
        self.interruption: Interrupted | None = None
        self._prefix = f"{actor.id}/{self.number}/"
        self.refused = False  # whether the handler has been told that its budget is exhausted
        self.abandoned: list[asyncio.Future[Result]] = []
        self.replaying = True
        self.waits = Waits(self.node.loop, self.node.clock, lambda park: self.interrupt("park", park))
        self._busy = 0
        self._busy_in: dict[str, int] = {}
        self.branches = Branches(f"{actor.id}/{self.number}")
        self._active_mark = 0.0
        self._ended: asyncio.Future[None] = self.node.loop.create_future()

    # ------------------------------------------------------------ one run

    async def run(self, handler: Callable[[], Coroutine[Any, Any, Any]]) -> Verdict:
        """Settle what is in doubt, then run `handler` to its end or to an interruption."""
        await prepare(self)
        if self.interruption is not None:
            return self.interruption
        # What the observers set for the turn (the trace that it belongs to) is there for its handler.
        context = copy_context() if self.node.observers.all else None
        running = tasks.start(tasks.contained(handler), f"turn {self.actor.id}/{self.number}", context)
        running.add_done_callback(lambda _: self._leave())
        try:
            await self._ended
        finally:
            finished = running.done()
            await self._end_all(running)
            self.over = self.journal.over = True
        if (left := self._left(finished)) is not None:
            return left
        if running.cancelled():
            return Crashed(asyncio.CancelledError("the handler was cancelled from within"))
        error = running.exception()
        return Crashed(error) if error is not None else Returned(running.result())

    def _left(self, finished: bool) -> Interrupted | None:
        """Why the run was interrupted; a gentle interruption does not undo a handler that had finished by itself."""
        if finished and self.interruption is not None and self.interruption.why in GENTLE:
            self.interruption = None
        return self.interruption

    def _leave(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def _end_all(self, handler: asyncio.Task[Any]) -> None:
        self.waits.close()
        for task in (*reversed(self.branches.running), handler):
            if not await tasks.end(task, self.node.settings.quarantine_s):
                self.interruption = self.interruption or Interrupted("lost")
                self.node.strand(task)
                self.node.emit(events.SessionStuck(self.actor.id, self.number))

    def interrupt(self, why: Why, park: Park | None = None) -> None:
        """Leave the turn: no step is admitted from now on, and the handler is cancelled; gently: once nothing is in flight, and not where
        the handler has ended already."""
        if self.over and why in GENTLE:
            return
        if self.interruption is None or why not in GENTLE:
            self.interruption = Interrupted(why, park)
        if why not in GENTLE or self._busy == 0:
            self._leave()

    async def never(self) -> NoReturn:
        """Where code waits that must not go on; it is cancelled with its turn."""
        await self.node.loop.create_future()
        raise AssertionError("unreachable: the turn is cancelled here")

    # ------------------------------------------------------------ steps

    async def admit(self) -> None:
        """The gate into the live part of a step: closed once the turn is being left."""
        if self.replaying:
            self.replaying = False
            self.node.sessions.recovered(self.actor.id)
        if self.interruption is not None:
            await self.never()

    def begin(self, branch: str) -> bool:
        """A step is in flight; True if it runs beside another of its branch."""
        if self._busy == 0:
            self._active_mark = self.node.clock.monotonic()
        self._busy += 1
        beside = self._busy_in.get(branch, 0)
        self._busy_in[branch] = beside + 1
        return beside > 0

    def end(self, claim: Claim, call: Call | None = None, value: Any = None) -> None:
        """It is not in flight any more; `value` is what its last attempt returned."""
        branch = claim.branch
        if claim.shown is not None:  # asked here, too: it is the way of every step
            step_over(self, claim, call, value)
        self._busy_in[branch] -= 1
        self._busy -= 1
        if self._busy == 0 and (self.interruption is not None or self.waits.held):
            self._rest()

    def active_s(self) -> float:
        """Seconds of activity since this was last asked: steps that run at once share them."""
        now = self.node.clock.monotonic()
        seconds, self._active_mark = now - self._active_mark, now
        return seconds

    def submit(self, key: bytes, state: StepState, record: StepRecord, outbox: tuple[Op, ...] = ()) -> asyncio.Future[Result]:
        """Write a step's record; memory has it when the write is acknowledged, whether or not anybody waits for that."""
        op = WriteStep(self.actor.id, self.actor.epoch, self.number, key, state, self.node.encode(record), outbox)
        return self.node.group.submit(op, partial(self._written, op, record))

    def _written(self, op: WriteStep, record: StepRecord, result: Result) -> None:
        if result.status is Status.DONE:
            self.journal.put(Step(op.key, op.state, record, op.turn))
            if op.outbox:
                self.node.sessions.dispatch(op.outbox, result.outbox)

    def name_of(self, key: bytes) -> str:
        """A step's key as the outside knows it: the same on every run, and like no other of any turn or session."""
        return f"{self._prefix}{key.hex()}"

    async def outcome(self, write: asyncio.Future[Result]) -> Result | None:
        """The result of a write that was done; None if the session is not ours any more, or nobody knows what is written."""
        try:
            result = await write
        except StoreError as error:
            self.node.emit(events.StoreFailed(self.actor.id, describe(error)))
        else:
            if result.status is Status.DONE:
                return result
        self.interrupt("lost")
        return None

    async def acknowledged(self, write: asyncio.Future[Result]) -> Result:
        """As `outcome`, for a handler's step: a turn that lost its session does not come back from here."""
        return await self.outcome(write) or await self.never()

    # ------------------------------------------------------------ waits

    async def pause(self, until: float, reason: str, text: str) -> None:
        """Wait inside a step until a store time; parks where that is far away."""
        seconds = until - self.node.clock.time()
        await self.wait(object(), Park(reason, text, until), 0.0 if seconds > self.actor.agent.park_after_s else seconds + 60.0)

    async def park_here(self, reason: str, text: str) -> NoReturn:
        """Wait for a person inside a step: the session parks, and this code does not go on."""
        await self.wait(object(), Park(reason, text), SETTLE_S)
        await self.never()

    async def wait(self, key: object, park: Park, hold_s: float) -> Outcome | None:
        """Wait inside a step for an answer, or until `park.until`; after `hold_s`, if nothing else is in flight, the turn parks."""
        self._busy -= 1
        try:
            outcome = await self.waits.wait(key, park, hold_s, self._rest)
            await self.admit()  # before it counts again: what is not admitted must not hold up the leaving
        finally:
            if self._busy == 0:
                self._active_mark = self.node.clock.monotonic()
            self._busy += 1
        return outcome

    def answered(self, key: bytes, outcome: Outcome) -> None:
        """An answer to a waiting step was written: memory has it from now on, and whoever waits goes on."""
        step = self.journal.records.get(key)
        if step is not None and step.state is StepState.WAITING:
            state = StepState.CLOSED if outcome.failure is None else StepState.FAILED
            record = msgspec.structs.replace(step.record, outcome=outcome, closed=self.node.clock.time())
            self.journal.put(Step(key, state, record, step.turn))
        self.waits.answer(key, outcome)

    def _rest(self) -> None:
        if self._busy == 0 and self.interruption is None:
            self.waits.review(lambda: self._busy == 0 and self.interruption is None)
        elif self._busy == 0 and self.interruption is not None:
            self._leave()

    def emit(self, event: type[events.Event], *fields: Any) -> None:
        """Emit an event about this turn; nothing is built when nobody observes."""
        if self.node.observers:
            self.node.observers.emit(event(self.actor.id, self.number, *fields))  # type: ignore[call-arg]
