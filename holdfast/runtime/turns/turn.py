"""One run of a handler over one message: its steps' admission, writes and waits, and how it ends.

A turn runs again, over the same journal, until it is committed or given up. A run ends in one of three ways: the handler returned, it
raised, or it was interrupted (parked, drained, fenced, ended). In each case the steps in flight end before the run is over, in whatever
task they run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Any, NoReturn

import msgspec

from holdfast import events
from holdfast.errors import RuntimeStopped, StoreError, StoreLost, WriteRefused
from holdfast.runtime.agents.ids import turn_id
from holdfast.runtime.turns import branches, tasks
from holdfast.runtime.turns.branches import Branch, Gathered, enclosing, here
from holdfast.runtime.turns.failures import describe, refused, state_of
from holdfast.runtime.turns.flight import Flight, Lane
from holdfast.runtime.turns.journal import Journal
from holdfast.runtime.turns.node import Known, Node, Place
from holdfast.runtime.turns.outbox import Outbox
from holdfast.runtime.turns.owner import Owner
from holdfast.runtime.turns.parking import SETTLE_S, Parking
from holdfast.runtime.turns.timers import advance
from holdfast.runtime.turns.unstarted import Unstarted
from holdfast.runtime.turns.verdict import GENTLE, Crashed, Interrupted, Returned, Verdict, Why
from holdfast.runtime.turns.waits import Waits
from holdfast.stores.ops import Op, Result, Status, WriteStep
from holdfast.stores.records import Message, Outcome, Park, Step, StepRecord, StepState

_MANY = 32
"""Above so many tasks in a run, replay moves only the timeouts of the calling task and of the handler (see Turn.skip)."""


_MANY_LATE, _LATE_S = 1_000, 1.0
"""So many steps that are asked for once a run is over are refused at once; code that asks for more waits so many seconds each time."""


class Turn:
    """The open turn of a live session, for one run. Steps enter through `admit`; their writes leave through `submit`.

    Attributes:
        outbox: the messages that leave when the turn commits.
        never_awaited: the steps that the handler asked for and did not await, once it has ended.
        over: no more steps are admitted: the handler has ended, or is being ended.
        refused: whether the handler got BudgetExhausted.
        replaying: whether every step so far had a record.
        once: the `once` steps under way, by name and arguments.
        insides: the open steps that asked for steps themselves, by the path of those.
        left_gathers: each `session.gather` that its caller cancelled.
        let_go: writes of cancelled steps, which no code waits for.
        unsure: why a write of a step has an unknown outcome; "" where none has. The turn is read again once it is left.
        root: the handler's own branch.
    """

    __slots__ = (
        "_endings", "_gone", "_late_asks", "_left", "_parking", "_prefix", "ending", "finishing", "flight", "insides", "interruption",
        "journal", "left_gathers", "let_go", "message", "never_awaited", "node", "number", "once", "outbox", "over", "owner", "refused",
        "replaying", "result", "root", "started", "unstarted", "unsure", "waits",
    )  # fmt: skip

    def __init__(self, owner: Owner, node: Node, message: Message, journal: Journal) -> None:
        self.owner, self.node, self.message, self.journal = owner, node, message, journal
        self.number = owner.turn + 1
        self.started = node.clock.time()
        self.outbox = Outbox()
        self.finishing, self.result = False, None
        self.over = self.refused = False
        self.replaying = True
        self.interruption: Interrupted | None = None
        self.ending: asyncio.Future[None] | None = None
        self._endings = self._late_asks = 0
        self.unsure = ""
        self.once: dict[tuple[str, bytes], list[Any]] = {}
        self.let_go: list[asyncio.Future[Result]] = []
        self.insides: dict[str, Any] = {}
        self.left_gathers: list[Gathered] = []
        self.waits = Waits(node.loop, node.clock)
        self._prefix = turn_id(owner.id, self.number)
        self.flight = Flight(node.loop, node.clock.monotonic, self._prefix, journal.order, self._all_waiting)
        self.root = Branch(self.flight, "")
        self.unstarted = Unstarted()
        self.never_awaited: list[str] = []
        self._left: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._parking: Parking | None = None

    # ------------------------------------------------------------ one run

    async def run(self, handler: Callable[[], Coroutine[Any, Any, Any]]) -> Verdict:
        """Run `handler` to its end or to an interruption, and end all that it started."""
        left = self._left = self.node.loop.create_future()
        # The handler sees the context variables that observers set for the turn, such as its trace.
        context = copy_context() if self.node.observers.all else Context()
        context.run(branches.enter, self.root)
        running = self.flight.handler = tasks.start(tasks.contained(handler), f"turn {self.owner.id}/{self.number}", context)
        self.root.task = running
        running.add_done_callback(lambda _: None if left.done() else left.set_result(None))
        try:
            await left
        finally:
            finished = running.done()
            self.over = True
            if self._parking is not None:
                self._parking.forget()
                self._parking = None
            if self._gone is not None:
                self._gone.set_result(None)
            ended = self.flight.all_ended or await self.flight.end(self.node.settings.quarantine_s, self.stuck)
        self.never_awaited = self.unstarted.close()
        if self.let_go:
            await self.written()
        if self.unsure and (self.interruption is None or self.interruption.why in GENTLE):
            self.interruption = Interrupted("lost", cause=self.unsure)
        if ended:
            self.flight.close()
            self.root.task = None
        else:
            self.interruption = self.interruption or Interrupted("lost", cause="its handler did not end when it was cancelled")
        if finished and self.interruption is not None and self.interruption.why in GENTLE:
            self.interruption = None  # it does not concern a handler that had ended by itself
        if self.interruption is not None:
            if finished and not running.cancelled():
                running.exception()  # retrieved: the end of the session, say, comes before the error of its handler
            return self.interruption
        if running.cancelled():
            return Crashed(asyncio.CancelledError("the handler was cancelled from within"))
        error = running.exception()
        return Crashed(error) if error is not None else Returned(running.result())

    @contextmanager
    def about_to_end(self) -> Iterator[None]:
        """While the end of its session is being written: no effect begins before the result of that write is known."""
        ending = self.ending = self.ending or self.node.loop.create_future()
        self._endings += 1
        try:
            yield
        finally:
            self._endings -= 1
            if self._endings == 0:
                self.ending = None
                ending.set_result(None)

    async def unless_left(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` while the handler does not run; cancelled where the turn is left meanwhile."""
        self._left = self.node.loop.create_future()
        task = tasks.start(work, f"before or after turn {self._prefix}")
        try:
            await asyncio.wait((task, self._left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = task.done()
            if not await tasks.end(task, self.node.settings.quarantine_s):
                self.stuck(task)
        if ended:
            task.result()

    def interrupt(self, why: Why, park: Park | None = None, cause: str = "") -> None:
        """Leave the turn: no more steps are admitted, and the handler is cancelled. A gentle interruption waits until no step is in
        flight, and does nothing where the handler has ended already."""
        gentle = why in GENTLE
        if self.over and gentle:
            return
        self.flight.awaited += 1
        if self.interruption is None or not (gentle or self.interruption.why == "ended"):
            self.interruption = Interrupted(why, park, cause)  # "ended" stays: a write fenced by the end is no lost ownership
        if not gentle or self.flight.busy == 0:
            self._leave()

    def _leave(self) -> None:
        if self._left is not None and not self._left.done():
            self._left.set_result(None)

    def stuck(self, task: asyncio.Future[Any]) -> None:
        """A task or thread of this turn did not end when it was cancelled: it counts as stuck, and blocks only this turn."""
        self.node.mark_stuck(task)
        self.node.emit(events.SessionStuck(self.owner.id, self.number))

    async def written(self) -> None:
        """Wait for the records of cancelled steps: then the journal in memory has them, and a restart finds them."""
        while self.let_go:
            write = self.let_go[0]
            await asyncio.wait((write,))
            await self.outcome(write)
            if write in self.let_go:  # another waiter may have removed it
                self.let_go.remove(write)

    async def never(self) -> NoReturn:
        """Wait until the turn, which is being left, cancels the calling code, in whatever task that runs."""
        if not self.over:
            self._gone = self._gone or self.node.loop.create_future()
            await asyncio.wait((self._gone,))
        raise asyncio.CancelledError("its turn was left")

    # ------------------------------------------------------------ steps

    async def closed(self) -> NoReturn:
        """The result of a step that is asked for while the run is being ended, or after that.

        Raises:
            asyncio.CancelledError: the caller is part of the run.
            RuntimeStopped: the caller is other code that kept the session object.
        """
        # Code that swallows even this in a loop must not block the event loop, nor take a processor for as long as the process lives.
        self._late_asks += 1
        await asyncio.sleep(0 if self._late_asks < _MANY_LATE else _LATE_S)
        if here(self.flight) is None:
            raise RuntimeStopped("this session object belongs to a turn that has ended: do not keep it")
        raise asyncio.CancelledError("its turn is being left: no step begins any more")

    async def admit(self, branch: Branch) -> None:
        """Admit a step to its live part. Once the turn is being left, only steps inside a step in flight are admitted."""
        if self.replaying:
            self.replaying = False
            self.node.peers.recovered(self.owner.id)
        await self.begins()
        if self.interruption is not None and not enclosing(branch.path):
            await self.never()

    async def begins(self) -> None:
        """The last check before an effect begins. It does not begin once its session has ended, or its turn is left for a cause that does
        not wait for steps in flight."""
        while self.ending is not None:
            await asyncio.wait((self.ending,))
        if self.interruption is not None and self.interruption.why not in GENTLE:
            await self.never()

    def submit(self, key: bytes, state: StepState, record: StepRecord, outbox: tuple[Op, ...] = ()) -> asyncio.Future[Result]:
        """Write a step's record until it is written. Memory has it when the write is acknowledged, also where no code waits for that."""
        try:
            body = self.node.encode(record)
        except (ValueError, TypeError, OverflowError) as error:
            failed: asyncio.Future[Result] = self.node.loop.create_future()
            failed.set_exception(WriteRefused(f"the record of {record.name} cannot be encoded: {error}"))
            failed.exception()  # a waiter that is gone must not make the loop complain
            return failed
        op = WriteStep(self.owner.id, self.owner.epoch, self.number, key, state, body, outbox)
        return self.node.group.submit(op, partial(self._written, op, record), keep=True)

    def _written(self, op: WriteStep, record: StepRecord, result: Result) -> None:
        if result.status is Status.DONE:
            self.journal.put(Step(op.key, op.state, record, op.turn))
            if op.outbox:
                self.node.peers.dispatch(op.outbox, result.outbox)

    def name_of(self, key: bytes) -> str:
        """A step's key for the outside: the same on every run, and unique over all turns and sessions."""
        return f"{self._prefix}{key.hex()}"

    def place_of(self, key: bytes) -> Place:
        """The key of a step among those of all sessions."""
        return self.owner.id, self.number, key

    def keep_in_hand(self, key: bytes, known: Known) -> None:
        """Keep what is known of a step for the next activation."""
        self.node.in_hand.setdefault((self.owner.id, self.number), {})[key] = known

    def in_hand(self) -> dict[bytes, Known]:
        """What an earlier activation kept for this turn."""
        return self.node.in_hand.get((self.owner.id, self.number), {})

    def forget_in_hand(self, key: bytes) -> None:
        """Forget what is kept of a step: it is written."""
        kept = self.in_hand()
        kept.pop(key, None)
        if not kept:
            self.node.in_hand.pop((self.owner.id, self.number), None)

    async def outcome(self, write: asyncio.Future[Result], lane: Lane | None = None) -> Result | None:
        """The result of a write that took effect; None if this activation lost the session, or the outcome of the write is unknown.

        Args:
            lane: the lane of the step that the write is of, if other steps may end before the turn is left: where the outcome is unknown,
                this waits for that. None where it has to be left at once.
        """
        try:
            result = await write
        except StoreError as error:
            cause = describe(error)
            self.node.emit(events.StoreFailed(self.owner.id, cause))
            if isinstance(error, WriteRefused):
                self.interrupt("lost", refused(cause, self.node.clock.time()), cause)
                return None
            if lane is not None and not self.over and not isinstance(error, StoreLost):
                await self._others_end(lane, cause)
        else:
            if result.status is Status.DONE:
                return result
            cause = "another activation of the session owns it: this one is fenced"
        self.interrupt("lost", cause=cause)
        return None

    async def acknowledged(self, write: asyncio.Future[Result], lane: Lane | None = None) -> Result:
        """As `outcome`, for a handler's step: where the turn lost its session, this does not return."""
        return await self.outcome(write, lane) or await self.never()

    async def _others_end(self, lane: Lane, cause: str) -> NoReturn:
        """A write of the step in this lane has an unknown outcome: the turn is left once no other step runs, so that no effect is cut."""
        self.unsure = cause
        self.interrupt("unsure")
        self.flight.pause(lane)
        try:
            await self.never()
        finally:
            self.flight.resume(lane)

    # ------------------------------------------------------------ waits

    async def pause(self, lane: Lane, until: float, reason: str, text: str) -> None:
        """Wait inside a step until a store time; a long wait parks the session."""
        seconds = until - self.node.clock.time()
        hold_s = 0.0 if seconds > self.owner.agent.park_after_s else seconds + 60.0
        await self.wait(lane, object(), Park(reason, text, until), hold_s)

    async def park_here(self, lane: Lane, reason: str, text: str) -> NoReturn:
        """Wait for a person inside a step: the session parks, and this does not return."""
        await self.wait(lane, object(), Park(reason, text), SETTLE_S)
        await self.never()

    async def wait(self, lane: Lane, key: object, park: Park, hold_s: float) -> Outcome | None:
        """Wait inside a step for an answer, or until `park.until`. After `hold_s`, if each step in flight waits, the turn parks."""
        if self.waits.over(park):
            return None
        future = self.waits.begin(key, park, hold_s)
        self.flight.awaited += 1
        self.flight.pause(lane)
        try:
            outcome = await future
            if self.interruption is not None:
                await self.never()  # while it still counts as waiting: it must not delay the interruption
        finally:
            self.waits.end(key)
            self.flight.awaited -= 1
            self.flight.resume(lane)
        return outcome

    def answered(self, key: bytes, outcome: Outcome) -> None:
        """An answer to a waiting step was written: put it into memory, and wake the code that waits for it."""
        step = self.journal.records.get(key)
        if step is not None and step.state is StepState.WAITING:
            record = msgspec.structs.replace(step.record, outcome=outcome, closed=self.node.clock.time())
            self.journal.put(Step(key, state_of(outcome), record, step.turn))
        self.waits.answer(key, outcome)

    async def skip(self, seconds: float, within_s: float) -> None:
        """The calling task gets the outcome of a step at once that took so long before: timeouts of the handler's own around it pass so
        much earlier. In a run with many tasks, those of the calling task and of the handler.

        Args:
            within_s: none of them passes before that: until then the outcome reaches the code.
        """
        moved: asyncio.Future[None] = self.node.loop.create_future()
        task = asyncio.current_task()
        assert task is not None
        self.node.loop.call_soon(self._skip, seconds, within_s, task, moved)  # frames can be read once it waits
        await moved

    def _skip(self, seconds: float, within_s: float, task: asyncio.Task[Any], moved: asyncio.Future[None]) -> None:
        tasks = self.flight.tasks()
        if len(tasks) > _MANY:
            tasks = {each for each in (task, self.flight.handler) if each is not None}
        advance({*tasks, task}, seconds, self.node.loop.time() + within_s)
        if not moved.done():
            moved.set_result(None)

    def _all_waiting(self) -> None:
        """No step in flight is running: leave the turn, or consider a park."""
        if self.interruption is not None:
            if self.flight.busy == 0:
                self._leave()
        elif self.waits.held:
            self._parking = self._parking or Parking(self.node.loop, self.waits, self.flight, partial(self.interrupt, "park"))
            self._parking.consider()
        # Else a step ended as usual: the handler asks for the next one.

    def emit(self, event: type[events.Event], *fields: Any) -> None:
        """Emit an event about this turn; nothing is built when there is no observer."""
        if self.node.observers:
            self.node.observers.emit(event(self.owner.id, self.number, *fields))  # type: ignore[call-arg]
