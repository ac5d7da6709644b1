"""The way of one step: the only place that performs an effect.

    claim (replay) -> admission -> repetition -> attempt [ budget -> breaker -> open -> effect under deadline -> classify ]* -> close

What a step may be in, and what may happen to it there, is the table at the head of docs/semantics.md; the branches below are its rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import msgspec

from holdfast import events
from holdfast.calls.call import Call, StepContext, Unknown
from holdfast.calls.clients import cost_of
from holdfast.errors import NotJournalable, RepetitionDetected, StepError, StoreError
from holdfast.policies import retry
from holdfast.policies.budget import ZERO, Usage
from holdfast.policies.classify import Fault, classify, refused
from holdfast.policies.gate import Wait
from holdfast.runtime.branches import branch_of
from holdfast.runtime.doubt import probe
from holdfast.runtime.drift import drift
from holdfast.runtime.failures import CUT, error_of, failure_of, redacted, was_cut
from holdfast.runtime.gates import Permits
from holdfast.runtime.journal import Claim
from holdfast.runtime.observed import step_starts
from holdfast.runtime.refusal import exhausted, refuse, spend_step, told
from holdfast.runtime.turn import Turn
from holdfast.stores.ops import Result, Status
from holdfast.stores.records import Outcome, StepRecord, StepState

_MAX_ARGS = 4096  # larger ones are kept as their digest alone, but for `once`, whose `reconcile` needs them


async def run_step(turn: Turn, call: Call) -> Any:
    """Run `call` as a step of `turn`, or return what its record says.

    If cancelled by the handler's own scope: a free read leaves no record, a call that costs is closed as cut and charged in full, a
    `once` effect is a doubt and parks the session.
    """
    claim = turn.journal.claim(branch_of(), call.kind, call.name, call.args)
    found = claim.step
    if found is not None and call.kind == "tool" and found.record.attempts:
        turn.actor.gates.repetition.note(call.name, claim.digest)
    if found is not None and found.record.outcome is not None:
        turn.emit(events.StepReplayed, call.kind, call.name)
        turn.refused = turn.refused or told(found.record.outcome)
        if was_cut(found.record.outcome):  # its caller lets go of it again (a timeout of its own, say); if not, it gets the error
            await asyncio.wait((turn.node.loop.create_future(),), timeout=call.timeout_s)
        return _result(call, found.record.outcome)
    if turn.replaying or turn.interruption is not None:
        await turn.admit()
    claim.beside = turn.begin(claim.branch)
    attempts: Attempts | None = None
    try:
        if found is None and turn.journal.loose and not claim.beside:
            drifted = await drift(turn, call, claim)
            if drifted is not None:
                return _result(call, drifted)
        if call.kind == "tool" and claim.step is None:
            repeated = turn.actor.gates.repetition.before(call.name, claim.digest)
            if repeated is not None:
                used, text = await spend_step(turn, claim, call.kind, call.name), f"{repeated}; do something else"
                await refuse(
                    turn, claim, call.kind, call.name, text, RepetitionDetected, category="semantic", effect=call.effect, used=used
                )
        attempts = Attempts(turn, call, claim)
        return await attempts.run()
    finally:
        turn.end(claim, call, None if attempts is None else attempts.value)


def _result(call: Call, outcome: Outcome) -> Any:
    if outcome.failure is not None:
        raise error_of(outcome.failure)
    try:
        return call.codec.decode(outcome.value)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        # The answer is recorded and paid: it is the caller who has to live with what it is.
        raise StepError(call.name, type(error).__name__, f"the recorded result does not fit {call.codec.type!r}: {error}") from error


class Attempts:
    """The attempts of one step, up to its close."""

    __slots__ = ("attempts", "call", "claim", "durable", "failed_cost", "made", "maybe_paid", "opened", "turn", "used", "value")

    def __init__(self, turn: Turn, call: Call, claim: Claim) -> None:
        self.turn, self.call, self.claim = turn, call, claim
        self.durable = call.costs or call.effect != "read"
        self.opened = turn.node.clock.time()
        self.used, self.attempts, self.made, self.maybe_paid = ZERO, 0, 0, 0
        self.failed_cost: Usage | None = None
        self.value: Any = None
        if claim.step is not None:
            # Open when the process died: what it could have cost is charged, and it is made again.
            before = claim.step.record
            self.used, self.attempts, self.maybe_paid = before.used + before.reserved, before.attempts, before.maybe_paid
            if claim.step.state is StepState.WAITING:  # it goes on between two attempts: their number and time are limited over a park, too
                self.opened, self.made = before.opened, before.attempts
            if call.costs and claim.step.state is StepState.OPEN:
                self.maybe_paid += 1

    async def run(self) -> Any:
        turn, call, node = self.turn, self.call, self.turn.node
        found = self.claim.step
        step_starts(turn, self.claim, call.kind, call.name, call.effect, self.opened)
        if found is not None and found.record.maybe_paid < self.maybe_paid:
            turn.emit(events.MaybePaid, call.name)
        if found is not None and found.state is StepState.WAITING:
            await turn.pause(min(found.record.until or 0.0, self.opened + call.retry.total_s), "retry", f"{call.name} is retried")
        while True:
            shared = None if call.dependency is None else node.breaker(call.dependency)
            permits = turn.actor.gates.enter(call, shared, node.clock.time())
            if isinstance(permits, Wait):
                await turn.pause(permits.until, "breaker", permits.reason)
                continue
            if isinstance(permits, str):
                await exhausted(turn, self.claim, call.kind, call.name, permits, effect=call.effect, used=self.used)
            self.attempts += 1
            self.made += 1
            context = StepContext(turn.actor.id, turn.name_of(self.claim.key), self.attempts)
            self.value, fault = await self._attempt(context, permits)
            if fault is None:
                return await self._settled(self._success(self.value))
            if call.effect == "once" and fault.category != "not_done":
                happened = await self._doubt(fault, context)
                if happened is not None:
                    return await self._settled(happened)
                fault = Fault("not_done", fault.type, fault.message)
            elapsed_s = node.clock.time() - self.opened
            wait_s = None if context.settled else retry.delay(call.retry, self.made, elapsed_s, fault, node.random.uniform)
            if wait_s is None:
                return await self._settled(Outcome(failure=failure_of(call.name, fault)))
            turn.emit(events.StepRetried, call.name, self.attempts, fault.message, wait_s)
            until = node.clock.time() + wait_s
            if self.durable or wait_s > turn.actor.agent.park_after_s:
                await self._write(StepState.WAITING, None, until=until)
            await turn.pause(until, "retry", f"{call.name}: {fault.message}")

    async def _attempt(self, context: StepContext, permits: Permits) -> tuple[Any, Fault | None]:
        """Open, perform, settle: the result, or what the attempt failed of."""
        turn, call, clock = self.turn, self.call, self.turn.node.clock
        started, began, ok, cost = False, clock.monotonic(), None, call.most
        try:
            if self.durable:
                await self._write(StepState.OPEN, None, reserved=call.most)
            started, began = True, clock.monotonic()
            value, fault = await self._perform(context)
            cost = self._cost(value, fault)
            ok = True if fault is None else False if fault.dependency else None
            return value, fault
        except asyncio.CancelledError:
            if not started:
                cost = ZERO
            self._abandon(started)
            raise
        finally:
            self.used = cost if self.used is ZERO else self.used + cost
            turn.actor.gates.leave(call, permits, cost, ok, clock.monotonic() - began, clock.time())
            if turn.actor.gates.breaker.spent():
                turn.node.sessions.endings.condemn(turn.actor, f"its breaker opened {turn.actor.gates.breaker.openings} times")

    async def _perform(self, context: StepContext) -> tuple[Any, Fault | None]:
        """The effect, under its deadline."""
        call, node = self.call, self.turn.node
        task = asyncio.current_task()
        assert task is not None
        deadline = node.deadlines.add(task, self.turn.actor.gates.time_left(call.timeout_s), self)
        self.failed_cost = None
        value: Any = None
        try:
            value = await call.run(context)
            if call.check is not None:
                call.check(value)
        except asyncio.CancelledError as error:
            if deadline.passed():
                return None, Fault("transient", "TimeoutError", f"no answer within {call.timeout_s:g} s", dependency=True)
            if task.cancelling():
                raise
            # Nobody cancelled this task: the effect awaited something that somebody else cancelled. That is its own crash.
            return None, Fault("permanent", "CancelledError", f"the effect was cancelled from within: {error}")
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # a tool that calls sys.exit() ends no other session
            deadline.passed()
            self.failed_cost = cost_of(error)
            if self.failed_cost is None and refused(error):
                self.failed_cost = Usage(steps=call.most.steps, tool_calls=call.most.tool_calls)
            return value, redacted(classify(error, node.clock.time()))
        finally:
            node.deadlines.remove(deadline)
        deadline.passed()  # it swallowed its cancellation and has a result all the same: the result counts
        return value, None

    def _cost(self, value: Any, fault: Fault | None) -> Usage:
        """What the attempt came to: metered from its answer, what its error says, a mere step where the other side refused it; else all."""
        call, seconds = self.call, self.turn.active_s()
        cost = call.most
        if value is not None and call.meter is not None:
            cost = call.meter(value)
        elif fault is not None and self.failed_cost is not None:
            cost = self.failed_cost
        return Usage(cost.steps, cost.tokens, cost.microusd, seconds, cost.tool_calls) if seconds else cost

    def _abandon(self, started: bool) -> None:
        """The attempt was cancelled. Where the whole turn goes away, nothing is written: it stays open in the journal. Where only the
        handler's own scope let go of it, what it cost is written; a `once` effect that had begun is a doubt."""
        call = self.call
        if self.turn.interruption is not None or not self.durable:
            return
        if started and call.effect == "once":
            note = "cancelled by its caller while under way"
            self.turn.abandoned.append(self._submit(StepState.DOUBT, None, reserved=call.most, note=note))
            return
        fault = Fault("permanent", "CancelledError", CUT)
        self._submit(StepState.FAILED, Outcome(failure=failure_of(call.name, fault)), charged=call.most if started else ZERO)

    async def _doubt(self, fault: Fault, context: StepContext) -> Outcome | None:
        """Nobody knows whether the effect happened: what the probe found, or None if it certainly did not happen.

        Where nothing can tell, the session parks here until a person does.
        """
        turn, call = self.turn, self.call
        await self._write(StepState.DOUBT, None, note=f"{fault.type}: {fault.message}")
        turn.emit(events.DoubtRaised, call.name, fault.message)
        found = await probe(turn, call, context)
        if isinstance(found, Unknown):
            await turn.park_here("doubt", f"{call.name} may or may not have happened ({fault.type}); resolve it: done, retry or fail")
        return found

    def _success(self, value: Any) -> Outcome:
        try:
            return Outcome(self.call.codec.encode(value))
        except NotJournalable as error:
            return Outcome(failure=failure_of(self.call.name, classify(error, 0.0)))

    async def _settled(self, outcome: Outcome) -> Any:
        """Close the step with its outcome and return it as replay would."""
        turn, call = self.turn, self.call
        write = self._submit(StepState.CLOSED if outcome.failure is None else StepState.FAILED, outcome)
        try:
            written = (await write).status is Status.DONE
        except StoreError:
            written = False
        if not written:
            await turn.acknowledged(write)  # looks at the same answer again, and leaves the turn
        return _result(call, outcome)

    def _write(
        self, state: StepState, outcome: Outcome | None, *, reserved: Usage = ZERO, note: str = "", until: float | None = None
    ) -> Awaitable[Result]:
        return self.turn.acknowledged(self._submit(state, outcome, reserved=reserved, note=note, until=until))

    def _submit(
        self, state: StepState, outcome: Outcome | None, *, reserved: Usage = ZERO, charged: Usage = ZERO, note: str = "",
        until: float | None = None,
    ) -> asyncio.Future[Result]:  # fmt: skip
        call, claim, turn = self.call, self.claim, self.turn
        args = call.args if len(call.args) <= _MAX_ARGS or call.effect == "once" else b""
        closed = 0.0 if outcome is None else turn.node.clock.time()
        used = self.used if charged is ZERO else self.used + charged
        record = StepRecord(
            call.kind, call.name, claim.branch, claim.digest, claim.nth, call.effect, outcome, args, reserved, used,
            self.attempts, self.opened, closed, until, None, self.maybe_paid, claim.beside, 0, note,
        )  # fmt: skip
        return turn.submit(claim.key, state, record)
