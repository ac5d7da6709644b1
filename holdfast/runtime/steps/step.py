"""A step under way: its state so far, the writes of its record, and what it records when its caller cancels it."""

from __future__ import annotations

import asyncio
from enum import IntEnum
from typing import Any

import msgspec

from holdfast import events
from holdfast.calls.call import Call, StepContext
from holdfast.errors import NotDone, StoreError
from holdfast.policies.budget import ZERO, Usage
from holdfast.runtime.steps.asked import Asked, kept
from holdfast.runtime.turns import tasks
from holdfast.runtime.turns.branches import Branch, enclosing, inside_of
from holdfast.runtime.turns.deadlines import Passed
from holdfast.runtime.turns.failures import CUT, describe, state_of
from holdfast.runtime.turns.flight import Lane
from holdfast.runtime.turns.journal import Claim
from holdfast.runtime.turns.observed import step_starts
from holdfast.runtime.turns.turn import Turn
from holdfast.runtime.turns.verdict import GENTLE
from holdfast.stores.ops import FENCED, Op, Result, Status
from holdfast.stores.records import Outcome, StepRecord, StepState

_MAX_ARGS = (
    4096  # larger ones are kept only as their digest, except where `reconcile` needs them (once) and where they are the message (tell)
)


class Phase(IntEnum):
    """The phase of a step: the record of a cancellation depends only on this."""

    BEFORE = 0  # no attempt is under way
    RUNNING = 1  # an attempt is under way
    DOUBTED = 2  # its outcome is unknown and being looked up
    KNOWN = 3  # its outcome is known and being written


_BEFORE, _KNOWN = Phase.BEFORE, Phase.KNOWN


class Step:
    """One step of a run, from its admission to its end.

    Attributes:
        used: the cost of its ended attempts.
        attempts, made: the number of attempts over all runs of the turn, and of those that count against its retries.
        value: the result of the last attempt.
        now: the store time at which it ended, until that is written.
        context: the context of the attempt under way.
        passed, cancelled_before: the state of that attempt's deadline (see Deadlines).
        attempt_over: that attempt has ended: its end cancels the steps inside, and the next attempt asks for them again.
    """

    __slots__ = (
        "_ended", "_heard", "_inside", "_outbox", "_record", "_written", "asked", "attempt_over", "attempts", "cancelled_before",
        "claim", "context", "deadline", "lane", "made", "maybe_paid", "now", "opened", "outcome", "passed", "phase", "seen", "target",
        "task", "turn", "until", "used", "value",
    )  # fmt: skip

    in_step = True
    passed: Passed | None
    cancelled_before: int
    attempt_over: bool

    def __init__(self, turn: Turn, asked: Asked, claim: Claim) -> None:
        self.turn, self.asked, self.claim = turn, asked, claim
        branch = claim.branch
        lane = self.lane = turn.flight.enter()
        task = self.task = lane.task
        claim.overlapped = branch.busy > 0 or branch.apart or task is not branch.task
        branch.busy += 1
        if branch.path:
            turn.flight.nested[self] = branch.path
        self.phase = _BEFORE
        self.opened, self.seen = turn.node.clock.time(), turn.journal.order.seen
        self.used, self.attempts, self.made, self.maybe_paid = ZERO, 0, 0, 0
        self.deadline, self.now, self._ended = 0.0, 0.0, 0
        self._heard: tuple[tuple[bytes, int], ...] = ()
        self.until: float | None = None
        self.target: str | None = None
        self.outcome: Outcome | None = None
        self.context: StepContext | None = None
        self.value: Any = None
        self._inside: Branch | None = None
        self._written: StepState | None = None
        self._record: StepRecord | None = None
        self._outbox: tuple[Op, ...] = ()
        if claim.step is not None:
            self.resume()

    def resume(self) -> None:
        """Resume from a record without an outcome (open or waiting): the most that its attempt could have cost is charged."""
        if self.claim.step is None:
            return
        state, before = self.claim.step.state, self.claim.step.record
        self._written, self._heard, self.seen = state, before.heard, before.seen or self.seen
        self.used, self.attempts, self.maybe_paid = before.used + before.reserved, before.attempts, before.maybe_paid
        if state is StepState.WAITING:  # it resumes between two attempts: the limits on their number and time also hold over a park
            self.opened, self.made, self.until, self.target = before.opened, before.attempts, before.until, before.target
        elif state is StepState.OPEN and self.asked.costs:
            self.maybe_paid += 1

    async def waits_on(self) -> float:
        """The store time until which it still waits, by its record. Where the clock was set back, that is written anew.

        It never waits longer than the rest of the wait when its record was written.
        """
        assert self.claim.step is not None
        record, now = self.claim.step.record, self.turn.node.clock.time()
        until = record.until or 0.0
        if until == self.turn.owner.waited_until:
            return now
        if record.waits_s and until > now + record.waits_s + 0.001:
            until = self.until = now + record.waits_s
            await self.write(StepState.WAITING)
        return until

    # ------------------------------------------------------------ as others see it

    @property
    def session(self) -> str:
        return self.turn.owner.id

    @property
    def kind(self) -> str:
        return self.asked.kind

    @property
    def name(self) -> str:
        return self.asked.name

    @property
    def effect(self) -> str:
        return str(self.asked.effect)

    @property
    def branch(self) -> str:
        return self.claim.branch.path

    @property
    def durable(self) -> bool:
        """Whether it opens with a record, and does not only close with one."""
        return self.asked.costs or self.asked.effect != "read"

    def inside(self) -> Branch:
        """The branch of the steps that its function asks for in the attempt under way."""
        if self._inside is None:
            self._inside = Branch(self.turn.flight, inside_of(self.claim.branch.path, self.claim.key))
            self._inside.task = self.task
            self.turn.insides[self._inside.path] = self
        return self._inside

    def inside_path(self) -> str:
        """The path of the steps inside the attempt under way; "" where it asked for none."""
        return "" if self._inside is None else self._inside.path

    def forget_inside(self) -> str | None:
        """Another attempt begins: returns the path of the steps inside the one before; None if it asked for none."""
        inside, self._inside = self._inside, None
        if inside is None:
            return None
        self.turn.insides.pop(inside.path, None)
        for path in [path for path in self.turn.flight.counts if path.startswith(inside.path)]:
            del self.turn.flight.counts[path]
        return inside.path

    def attempt(self) -> StepContext:
        """Another attempt begins: what its function may know."""
        self.attempts += 1
        self.made += 1
        self.value, self.attempt_over = None, False
        self.context = StepContext(self.turn.owner.id, self.turn.name_of(self.claim.key), self.attempts)
        return self.context

    def begins(self) -> None:
        """It is about to run, without a result on record."""
        if not self.turn.node.observers.all:
            return
        step_starts(self.turn, self.claim, self.asked.kind, self.asked.name, self.asked.effect, self.opened)

    # ------------------------------------------------------------ its record

    async def write(
        self, state: StepState, reserved: Usage = ZERO, *, note: str = "", until: float | None = None, outbox: tuple[Op, ...] = ()
    ) -> Result:
        """Write the state of the step. Where the turn lost its session, this does not return."""
        write = self._submit(state, None, reserved, note=note, until=until, outbox=outbox)
        try:
            result = await write
        except StoreError:
            result = FENCED
        if result.status is not Status.DONE:
            await self.turn.acknowledged(write, self._alone())  # handles the same result again, and leaves the turn
        return result

    async def close(self, outcome: Outcome) -> Outcome:
        """Write its outcome: it is known now, and stays known also where the caller is cancelled."""
        self.outcome, self.phase, self.deadline = outcome, _KNOWN, 0.0
        write, turn = self._submit(state_of(outcome), outcome), self.turn
        try:
            result = await write
        except StoreError:
            result = FENCED
        if result.status is not Status.DONE:
            await turn.acknowledged(write, self._alone())  # as in `write`
        if turn.journal.left or turn.flight.steps > self.lane.steps or turn.journal.order.held:
            await self._comes()
        turn.journal.order.sees(self._ended)
        return outcome

    async def close_with(self, outcome: Outcome, op: Op) -> tuple[Outcome, Result]:
        """The same with an op that leaves in the same transaction; returns also the result of that op."""
        self.outcome, self.phase, self._outbox = outcome, Phase.KNOWN, (op,)
        written = await self.turn.acknowledged(self._submit(state_of(outcome), outcome, outbox=self._outbox), self._alone())
        await self._comes()
        self.turn.journal.order.sees(self._ended)
        return outcome, written.outbox[0]

    async def answered(self, outcome: Outcome) -> Outcome:
        """Another session answered the step and recorded that: the outcome comes to the code."""
        self.outcome = outcome
        await self._comes()
        self.turn.journal.order.heard(self.claim.key)
        return outcome

    async def _comes(self) -> None:
        """Let its recorded outcome come to the code: alone, and after the outcomes before it."""
        turn, claim = self.turn, self.claim
        order = turn.journal.order
        if turn.journal.left and claim.step is not None:
            coming = order.begin(turn.journal.records[claim.key])
            try:
                await order.comes(coming, self.asked.timeout_s)
            finally:
                order.end(coming)
        else:
            if turn.journal.left and not self.durable:
                await order.others_asked(claim.branch, self.asked.timeout_s)
            if turn.flight.steps > self.lane.steps or order.held:
                await order.by_itself(self._ended)

    def _submit(
        self, state: StepState, outcome: Outcome | None, reserved: Usage = ZERO, *, note: str = "", until: float | None = None,
        outbox: tuple[Op, ...] = (), cut: bool = False,
    ) -> asyncio.Future[Result]:  # fmt: skip
        asked, claim, turn = self.asked, self.claim, self.turn
        branch, order, args = claim.branch, turn.journal.order, asked.args
        now, self.now = self.now or turn.node.clock.time(), 0.0
        if len(args) > _MAX_ARGS and asked.effect != "once" and asked.kind != "tell":
            args = b""
        if order.unwritten:
            self._heard += order.take_heard()
        if self._ended:
            order.forgo(self._ended)  # it is written again
        ended = self._ended = order.place_at_once() if cut else 0 if outcome is None else order.place()
        if until is None:
            until = self.until
        # Zero as an int takes one byte of the row; as a float it takes nine.
        record = StepRecord(
            asked.kind, asked.name, branch.path, claim.digest, claim.nth, asked.effect, outcome, args, reserved, self.used,
            self.attempts, self.opened, 0 if outcome is None else now, until, self.target, self.maybe_paid, claim.overlapped, 0, note,
            cut, self.deadline or 0, claim.strayed, ended, self.seen, branch.line, branch.since, now - turn.started if cut else 0,
            self._heard, 0 if until is None or state is not StepState.WAITING else until - now,
        )  # fmt: skip
        self._written, self._record = state, record
        return turn.submit(claim.key, state, record, outbox)

    # ------------------------------------------------------------ its end

    def _alone(self) -> Lane | None:
        """Its lane; None where it is inside another step, which would never end while this one waits."""
        return None if enclosing(self.claim.branch.path) else self.lane

    def leave(self) -> None:
        """End the step: it is no longer in flight."""
        branch, flight = self.claim.branch, self.turn.flight
        branch.busy -= 1
        if self._inside is not None:
            self.turn.insides.pop(self._inside.path, None)
            flight.forget_inside(self._inside.path)
        if branch.path:
            flight.nested.pop(self, None)
        flight.leave(self.lane)

    def let_go(self) -> None:
        """Its task was cancelled, by its caller or because the turn ends: the record gets the same outcome as the caller sees.

        Where the turn is only left (parked, drained, fenced), this writes nothing: the step resumes from its record.
        """
        self._keep_remains()
        left = self.turn.interruption
        resumes = left is not None and left.why not in ("ended", "dropped")
        begun = self.asked.effect == "once" and self.phase in (Phase.RUNNING, Phase.DOUBTED) and self._may_have_happened()
        # Where the turn is read again, no step follows what its caller does now: the next run cancels it again, or does not.
        again = bool(self.turn.unsure) and not begun
        if resumes and left is not None and (self.turn.over or left.why not in GENTLE or again):
            if left.why == "lost" or self.turn.unsure:
                self._keep_in_hand()
            return
        cut = not self.turn.over and (left is None or resumes) and not self._left_by_an_attempt()
        if self.phase is Phase.KNOWN and self.outcome is not None:
            # Written again: the write under way does not record the cut, its future was cancelled with the task, and it may be lost.
            self._last(self._submit(state_of(self.outcome), self.outcome, cut=cut, outbox=self._outbox))
        elif begun:
            self._doubt(cut and not self.turn.unsure)
        elif cut or self._written is not None:
            failure = msgspec.structs.replace(CUT, step=self.asked.name)
            self._last(self._submit(StepState.FAILED, Outcome(failure=failure), cut=cut))

    def _keep_in_hand(self) -> None:
        """Keep what is known of it where its last write may not be in the store: its outcome, or that its effect did not begin."""
        once = self.asked.effect == "once"
        known = self.phase is Phase.KNOWN or (once and (self.phase is Phase.BEFORE or not self._may_have_happened()))
        if type(self.asked) is not Call or self._record is None or not known:
            return  # the record of a message leaves with the message: it is sent again
        assert self._written is not None
        unsettled = self._written in (StepState.OPEN, StepState.DOUBT)
        self.turn.keep_in_hand(self.claim.key, None if unsettled else (self._written, self._record))

    def _left_by_an_attempt(self) -> bool:
        """Whether it is cancelled only because the attempt of an outer step has ended: the next attempt asks for it again."""
        around = (self.turn.insides.get(path) for path in enclosing(self.claim.branch.path))
        return any(step.attempt_over or step.passed is not None for step in around if step is not None)

    def overdue(self, passed: Passed, seconds: float) -> None:
        """Its attempt still runs, so many seconds after its deadline cancelled it: the attempt swallows its cancellations."""
        if passed.hangs is None and seconds >= self.turn.node.settings.quarantine_s:
            passed.hangs = self.turn.node.loop.create_future()
            self.turn.stuck(passed.hangs)

    def _may_have_happened(self) -> bool:
        return self.context is None or self.context.begun

    def _keep_remains(self) -> None:
        """Keep the thread of a `once` effect, which still runs also when the turn is left: reconcile must not run before it has ended."""
        if self.asked.effect != "once" or self.context is None or self.context.remains is None:
            return
        if self.phase not in (Phase.RUNNING, Phase.DOUBTED):
            return
        node, place = self.turn.node, self.turn.place_of(self.claim.key)
        late = node.remains[place] = tasks.start(self._late(self.context.remains), f"remains of {self.asked.name} of {self.session}")
        late.add_done_callback(lambda _: node.remains.pop(place, None))

    def _doubt(self, cut: bool) -> None:
        if self.context is None or self.context.remains is None:
            self.deadline = self.ended_at()
        note = "cancelled by its caller while under way" if cut else "its turn ended while it was under way"
        self._last(self._submit(StepState.DOUBT, None, note=note, cut=cut))
        self.turn.emit(events.DoubtRaised, self.asked.name, note)

    def ended_at(self) -> float:
        """When the attempt ended, if its tool has a `settles_s`, during which the effect may still happen; else 0."""
        return self.turn.node.clock.time() if getattr(self.asked, "settles_s", 0.0) else 0.0

    def _last(self, write: asyncio.Future[Result]) -> None:
        self.turn.journal.order.sees(self._ended)
        self.turn.let_go.append(write)
        write.add_done_callback(self._unless_written)

    def _unless_written(self, write: asyncio.Future[Result]) -> None:
        if not write.cancelled() and isinstance(write.exception(), StoreError):
            self._keep_in_hand()

    async def _late(self, remains: asyncio.Future[Any]) -> None:
        """The thread of a cancelled attempt has ended: if that gives the outcome, write it."""
        await asyncio.wait((remains,))
        step = self.turn.journal.records.get(self.claim.key)
        cut = step is not None and step.record.cut
        error = remains.exception()
        self.deadline = 0.0
        if error is None:
            outcome = kept(self.asked, remains.result())
        elif isinstance(error, NotDone):
            outcome = Outcome(failure=msgspec.structs.replace(CUT, step=self.asked.name, type="NotDone", message=describe(error)))
        else:
            return
        self.outcome, self.phase = outcome, Phase.KNOWN
        write = self._submit(state_of(outcome), outcome, cut=cut)
        self._keep_in_hand()  # where this activation has lost the session, a later one writes it
        if await self.turn.outcome(write) is not None:
            self.turn.forget_in_hand(self.claim.key)
