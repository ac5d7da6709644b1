"""One run of a handler over one message: its steps' admission, writes and waits, and how it ends.

A turn is run again, over the same journal, until it is committed or given up. A run ends in one of three ways: the handler returned, it
raised, or it was interrupted (parked, drained, fenced, ended). In each of them the steps that are still in flight end first, in whatever
task they run; only then is the run over.
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
from holdfast.errors import RuntimeStopped, StoreError
from holdfast.runtime.turns import branches, tasks
from holdfast.runtime.turns.branches import Branch, Gathered, enclosing, here
from holdfast.runtime.turns.failures import describe, state_of
from holdfast.runtime.turns.flight import Flight, Lane
from holdfast.runtime.turns.journal import Journal
from holdfast.runtime.turns.node import Node, Place
from holdfast.runtime.turns.owner import Owner
from holdfast.runtime.turns.parking import SETTLE_S, Parking
from holdfast.runtime.turns.unstarted import Unstarted
from holdfast.runtime.turns.verdict import GENTLE, Crashed, Interrupted, Returned, Verdict, Why
from holdfast.runtime.turns.waits import Waits
from holdfast.stores.ops import Op, Result, Status, WriteStep
from holdfast.stores.records import Message, Outcome, Park, Step, StepRecord, StepState


class Turn:
    """The open turn of a live session, for one run. Steps come in through `claim` and `admit`; writes go out through `submit`.

    Attributes:
        outbox: what leaves when the turn commits.
        never_awaited: the steps that the handler asked for and did not await, once it has ended.
        over: no step is admitted any more: the handler has ended, or is being ended.
        refused: whether the handler got BudgetExhausted.
        replaying: whether every step so far had a record.
        counts: how often each identity was asked for, by the path of its branch.
        once: the `once` steps under way, by name and arguments.
        insides: the open steps that asked for steps themselves, by the path of those.
        left_gathers: each `session.gather` that its caller let go of.
        let_go: writes of steps that were let go of, which no code waits for.
        root: the handler's own branch.
    """

    __slots__ = (
        "_endings", "_gone", "_left", "_parking", "_prefix", "counts", "ending", "finishing", "flight", "insides", "interruption",
        "journal", "left_gathers", "let_go", "message", "never_awaited", "node", "number", "once", "outbox", "over", "owner", "refused",
        "replaying", "result", "root", "started", "unstarted", "waits",
    )  # fmt: skip

    def __init__(self, owner: Owner, node: Node, message: Message, journal: Journal) -> None:
        self.owner, self.node, self.message, self.journal = owner, node, message, journal
        self.number = owner.turn + 1
        self.started = node.clock.time()
        self.outbox: list[Op] = []
        self.finishing, self.result = False, None
        self.over = self.refused = False
        self.replaying = True
        self.interruption: Interrupted | None = None
        self.ending: asyncio.Future[None] | None = None
        self._endings = 0
        self.once: dict[tuple[str, bytes], list[Any]] = {}
        self.let_go: list[asyncio.Future[Result]] = []
        self.insides: dict[str, Any] = {}
        self.left_gathers: list[Gathered] = []
        self.counts: dict[str, dict[bytes, int]] = {}
        self.root = Branch(self, "")
        self.waits = Waits(node.loop, node.clock)
        self._prefix = f"{owner.id}/{self.number}/"
        self.flight = Flight(node.loop, node.clock.monotonic, self._prefix, self._rested)
        self.unstarted = Unstarted()
        self.never_awaited: list[str] = []
        self._left: asyncio.Future[None] = node.loop.create_future()
        self._gone: asyncio.Future[None] = node.loop.create_future()
        self._parking = Parking(node.loop, self.waits, self.flight, partial(self.interrupt, "park"))

    # ------------------------------------------------------------ one run

    async def run(self, handler: Callable[[], Coroutine[Any, Any, Any]]) -> Verdict:
        """Run `handler` to its end or to an interruption, and end what it started."""
        left = self._left = self.node.loop.create_future()
        # What the observers set for the turn (the trace that it belongs to) is there for its handler.
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
            self._parking.forget()
            if not self._gone.done():
                self._gone.set_result(None)
            ended = await self.flight.end(self.node.settings.quarantine_s, self.stuck)
        self.never_awaited = self.unstarted.close()
        await self.written()
        if not ended:
            self.interruption = self.interruption or Interrupted("lost", cause="its handler did not end when it was cancelled")
        if finished and self.interruption is not None and self.interruption.why in GENTLE:
            self.interruption = None  # a handler that had ended by itself has nothing to do with it
        if self.interruption is not None:
            return self.interruption
        if running.cancelled():
            return Crashed(asyncio.CancelledError("the handler was cancelled from within"))
        error = running.exception()
        return Crashed(error) if error is not None else Returned(running.result())

    @property
    def seen(self) -> int:
        """The last outcome of a step that the code of the run has seen (see Journal)."""
        return self.journal.order.seen

    def task_made(self, task: asyncio.Task[Any], line: Branch) -> None:
        """Code of the handler has made a task by itself, which is a line of its own."""
        self.flight.task_made(task, line)

    @contextmanager
    def about_to_end(self) -> Iterator[None]:
        """The end of its session is being written: what has not begun does not begin before that is known."""
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
        """Do `work` while the handler does not run; cut short where the turn is left meanwhile."""
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
        """Leave the turn: no step is admitted from now on, and the handler is cancelled; gently: once nothing is in flight, and not where
        the handler has ended already."""
        gentle = why in GENTLE
        if self.over and gentle:
            return
        self.flight.awaited += 1
        if self.interruption is None or not (gentle or self.interruption.why == "ended"):
            self.interruption = Interrupted(why, park, cause)  # an end stays an end: what is fenced by it was not lost
        if not gentle or self.flight.busy == 0:
            self._leave()

    def _leave(self) -> None:
        if not self._left.done():
            self._left.set_result(None)

    def stuck(self, task: asyncio.Future[Any]) -> None:
        """A task or thread of this turn did not end when it should have: it counts as stuck, and holds up this turn alone."""
        self.node.strand(task)
        self.node.emit(events.SessionStuck(self.owner.id, self.number))

    async def written(self) -> None:
        """Wait for the records of steps that were let go of: the journal in memory has them then, and a restart finds them."""
        while self.let_go:
            write = self.let_go[0]
            await asyncio.wait((write,))
            await self.outcome(write)
            if write in self.let_go:  # another that waits may have taken it out
                self.let_go.remove(write)

    async def never(self) -> NoReturn:
        """Where code waits whose turn is being left; it is cancelled with it, in whatever task it runs."""
        await asyncio.wait((self._gone,))
        raise asyncio.CancelledError("its turn was left")

    # ------------------------------------------------------------ steps

    async def closed(self) -> NoReturn:
        """What a step comes to that is asked for while the run is being ended, or after it.

        Raises:
            asyncio.CancelledError: the caller is part of the run.
            RuntimeStopped: it is something else that kept the session object.
        """
        await asyncio.sleep(0)  # a loop that swallows even this must not hold up the event loop
        if here(self) is None:
            raise RuntimeStopped("this session object belongs to a turn that has ended: do not keep it")
        raise asyncio.CancelledError("its turn is being left: no step begins any more")

    async def admit(self, branch: Branch) -> None:
        """The gate into the live part of a step: closed once the turn is being left, but for what a step in flight asks for itself."""
        if self.replaying:
            self.replaying = False
            self.node.peers.recovered(self.owner.id)
        await self.begins()
        if self.interruption is not None and not enclosing(branch.path):
            await self.never()

    async def begins(self) -> None:
        """The last look before an effect begins: it does not, once its session has ended, or its turn is left for another cause that
        does not wait for steps in flight."""
        while self.ending is not None:
            await asyncio.wait((self.ending,))
        if self.interruption is not None and self.interruption.why not in GENTLE:
            await self.never()

    def submit(self, key: bytes, state: StepState, record: StepRecord, outbox: tuple[Op, ...] = ()) -> asyncio.Future[Result]:
        """Write a step's record, until it is written; memory has it when the write is acknowledged, whether or not any code waits."""
        op = WriteStep(self.owner.id, self.owner.epoch, self.number, key, state, self.node.encode(record), outbox)
        return self.node.group.submit(op, partial(self._written, op, record), keep=True)

    def _written(self, op: WriteStep, record: StepRecord, result: Result) -> None:
        if result.status is Status.DONE:
            self.journal.put(Step(op.key, op.state, record, op.turn))
            if op.outbox:
                self.node.peers.dispatch(op.outbox, result.outbox)

    def name_of(self, key: bytes) -> str:
        """A step's key as the outside knows it: the same on every run, and like no other of any turn or session."""
        return f"{self._prefix}{key.hex()}"

    def place_of(self, key: bytes) -> Place:
        """Where a step is, among those of all sessions."""
        return self.owner.id, self.number, key

    def forget_in_hand(self) -> None:
        """What is in hand for this turn has been looked at."""
        for place in [place for place in self.node.in_hand if place[:2] == (self.owner.id, self.number)]:
            del self.node.in_hand[place]

    async def outcome(self, write: asyncio.Future[Result]) -> Result | None:
        """The result of a write that was done; None if the session is not ours any more, or it is unknown what is written."""
        try:
            result = await write
        except StoreError as error:
            cause = describe(error)
            self.node.emit(events.StoreFailed(self.owner.id, cause))
        else:
            if result.status is Status.DONE:
                return result
            cause = "another activation of the session owns it: this one is fenced"
        self.interrupt("lost", cause=cause)
        return None

    async def acknowledged(self, write: asyncio.Future[Result]) -> Result:
        """As `outcome`, for a handler's step: a turn that lost its session does not come back from here."""
        return await self.outcome(write) or await self.never()

    # ------------------------------------------------------------ waits

    async def pause(self, lane: Lane, until: float, reason: str, text: str) -> None:
        """Wait inside a step until a store time; parks where that is far away."""
        seconds = until - self.node.clock.time()
        hold_s = 0.0 if seconds > self.owner.agent.park_after_s else seconds + 60.0
        await self.wait(lane, object(), Park(reason, text, until), hold_s)

    async def park_here(self, lane: Lane, reason: str, text: str) -> NoReturn:
        """Wait for a person inside a step: the session parks, and this code does not come back."""
        await self.wait(lane, object(), Park(reason, text), SETTLE_S)
        await self.never()

    async def wait(self, lane: Lane, key: object, park: Park, hold_s: float) -> Outcome | None:
        """Wait inside a step for an answer, or until `park.until`; after `hold_s`, if all that is in flight waits, the turn parks."""
        if self.waits.over(park):
            return None
        future = self.waits.begin(key, park, hold_s)
        self.flight.awaited += 1
        self.flight.pause(lane)
        try:
            outcome = await future
            if self.interruption is not None:
                await self.never()  # while it still counts as waiting: it must not hold up the leaving
        finally:
            self.waits.end(key)
            self.flight.awaited -= 1
            self.flight.resume(lane)
        return outcome

    def answered(self, key: bytes, outcome: Outcome) -> None:
        """An answer to a waiting step was written: memory has it from now on, and what waits for it runs."""
        step = self.journal.records.get(key)
        if step is not None and step.state is StepState.WAITING:
            record = msgspec.structs.replace(step.record, outcome=outcome, closed=self.node.clock.time())
            self.journal.put(Step(key, state_of(outcome), record, step.turn))
        self.waits.answer(key, outcome)

    def _rested(self) -> None:
        """All that is in flight waits."""
        if self.interruption is not None:
            if self.flight.busy == 0:
                self._leave()
        elif self.waits.held:
            self._parking.consider()
        # Else it is the usual end of a step: the handler asks for the next one.

    def emit(self, event: type[events.Event], *fields: Any) -> None:
        """Emit an event about this turn; nothing is built when there is no observer."""
        if self.node.observers:
            self.node.observers.emit(event(self.owner.id, self.number, *fields))  # type: ignore[call-arg]
