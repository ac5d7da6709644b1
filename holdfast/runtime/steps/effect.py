"""How an effect is performed: the only place that runs code with effects outside.

same effect before it -> repetition -> attempt [ budget -> breaker -> open -> timeout(effect) -> failure policy ]* -> close
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

import msgspec

from holdfast import events
from holdfast.calls.call import Call, StepContext, cost_of
from holdfast.errors import BudgetExhausted, NotDone, RepetitionDetected
from holdfast.policies import retry
from holdfast.policies.budget import ZERO, Usage
from holdfast.policies.classify import Fault, answers, classify
from holdfast.policies.failures import ALL, NO_RULES, Answers
from holdfast.policies.gate import Wait
from holdfast.policies.stored import bounded
from holdfast.runtime.steps import pipeline
from holdfast.runtime.steps.asked import kept
from holdfast.runtime.steps.refusal import refuse
from holdfast.runtime.steps.room import room, share_time, spend_step, time_for
from holdfast.runtime.steps.step import Phase, Step
from holdfast.runtime.steps.twins import Turnstile, answered_by_twin
from holdfast.runtime.turns import branches, doubt
from holdfast.runtime.turns.failures import failure_of, redacted
from holdfast.runtime.turns.turn import Turn
from holdfast.stores.records import Outcome, Park, StepState

_RUNNING = Phase.RUNNING
_SPREAD, _SPREAD_MAX_S = 0.25, 5.0
"""Where many wait for one breaker, each calls again later by a random part of the wait, at most this one and so many seconds."""

_OUT_OF_TIME = Fault("cancelled", "BudgetExhausted", "the session's active time was used up")
"""The fault of an attempt that the session's own limit in seconds ended."""


_NOT_DONE = ("not_done", "no_thread")
"""The kinds of failure after which the effect certainly did not happen."""


def run_effect(turn: Turn, call: Call) -> Coroutine[Any, Any, Any]:
    """Run `call` as a step of `turn`, or return its recorded result. As pipeline.run."""
    return pipeline.run(turn, call, perform_once if call.effect == "once" else perform)


async def perform_once(step: Step) -> Outcome:
    """As `perform`, but the same effect runs one at a time: it begins only when the outcome of each earlier one in the turn is known."""
    async with Turnstile(step):
        return await answered_by_twin(step) or await pipeline.drifted(step) or await perform(step)


async def perform(step: Step) -> Outcome:
    """Make attempts until one has a final outcome, which is recorded by then.

    All of an attempt is in this one frame, since each coroutine costs a step as much as a gate does.
    """
    turn, call, lane, node = step.turn, _call_of(step), step.lane, step.turn.node
    gates, flight, clock, deadlines = turn.owner.gates, turn.flight, node.clock, node.deadlines
    pinned = call.costs or call.effect == "once"
    if call.kind == "tool":
        await _watch_repetition(step)
    if node.observers.all:
        step.begins()
    if step.claim.step is not None:
        await _resume(step)
    now = step.opened if step.claim.step is None else clock.time()
    while True:
        if gates.timed:
            share_time(step)
        shared = None if call.dependency is None else node.breaker(call.dependency)
        permits = gates.enter(call, shared, now)
        if not isinstance(permits, tuple):
            await _held_up(step, permits)
            now = clock.time()
            continue
        context = step.attempt()
        began, ok, cost, fault, reported, so = math.inf, None, ZERO, None, None, None
        try:
            timeout_s = time_for(step, call) if gates.timed else call.timeout_s
            if step.durable:
                step.deadline = clock.time() + timeout_s if call.effect == "once" else 0.0
                await step.write(StepState.OPEN, call.most)
                if turn.interruption is not None or turn.ending is not None:
                    await turn.begins()  # the end of the session may have been written in the same batch
            began, cost = clock.monotonic(), call.most
            step.phase = _RUNNING
            lane.pinned += pinned
            inside = branches.enter(step)
            deadlines.add(step, began + timeout_s)
            try:
                step.value = await call.run(context)
                if call.check is not None:
                    call.check(step.value)
            except asyncio.CancelledError as error:
                fault = await _cancelled(step, call, context, error, timeout_s)
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # a tool that calls sys.exit() ends no other session
                fault, reported = _failed(step, call, error, timeout_s)
            else:
                if step.passed is not None:
                    deadlines.taken_back(step)  # the attempt swallowed its cancellation but has a result: the result counts
            finally:
                deadlines.remove(step)
                step.attempt_over = step.passed is not None
                branches.leave(inside)
                lane.pinned -= pinned
            if flight.nested and (path := step.inside_path()):
                step.attempt_over = True
                await flight.end_inside(path)
            if fault is not None:
                so = _answers(step, call, fault)
                cost = _cost(step, call, fault, so, reported)
            else:
                ok = True
                if call.meter is not None:
                    cost = bounded(call.meter(step.value))
        except asyncio.CancelledError:
            if flight.nested and (path := step.inside_path()):
                flight.cancel_inside(path)
            raise
        finally:
            ended = clock.monotonic()
            active_s, flight.mark = ended - flight.mark, ended  # concurrent steps share the time
            if not context.begun:
                cost = Usage(steps=call.most.steps, tool_calls=call.most.tool_calls)  # no thread was free for it
            used = Usage(cost.steps, cost.tokens, cost.microusd, active_s, cost.tool_calls)
            step.used = used if step.used is ZERO else step.used + used
            step.now = clock.time()
            if fault is not None and so is not None:
                permits = gates.blame(permits, fault, so, step.now)
                ok = False
            gates.leave(call, permits, cost, active_s, ok, step.now)
            if ok is not True and gates.breaker.spent():
                node.peers.condemn(turn.owner.id, f"its breaker opened {gates.breaker.openings} times")
        if fault is None or so is None:
            return await step.close(kept(call, step.value))
        outcome = await _after_failure(step, call, context, fault, so)
        if outcome is not None:
            return await step.close(outcome)
        now = clock.time()


async def _after_failure(step: Step, call: Call, context: StepContext, fault: Fault, so: Answers) -> Outcome | None:
    """The final outcome of a step whose attempt failed; None after the pause before another attempt."""
    if fault is _OUT_OF_TIME:
        await _out_of_time(step)
        return None
    if call.effect == "once" and fault.kind not in _NOT_DONE:
        happened = await _settled(step, fault)
        if happened is not None:
            return happened
        fault = Fault("not_done", fault.type, fault.message)
        so = _answers(step, call, fault)
    step.phase = Phase.BEFORE
    turn = step.turn
    elapsed_s, attempts = turn.node.clock.time() - step.opened, so.attempts or 1
    if context.settled:
        attempts = 1
    wait_s = retry.delay(call.retry, attempts, step.made, elapsed_s, fault.retry_after_s, turn.node.random.uniform)
    if wait_s is None:
        until = None if fault.retry_after_s is None else step.now + fault.retry_after_s
        return Outcome(failure=failure_of(call.name, fault, so, of=call.dependency or call.name, until=until))
    await _wait_for_retry(step, fault, wait_s)
    return None


def _answers(step: Step, call: Call, fault: Fault) -> Answers:
    """What the failure means: by the rules of holdfast.toml, those of the call, and the table."""
    rules = step.turn.node.settings.failures
    if not rules:
        return answers(fault, (call.failures,), call.retry.attempts)
    named, shared, all_ = rules.get(call.name, NO_RULES), rules.get(call.dependency or "", NO_RULES), rules.get(ALL, NO_RULES)
    return answers(fault, (named, shared, call.failures, all_), call.retry.attempts)


async def _out_of_time(step: Step) -> None:
    """The session's active time ended the attempt: the budget refuses the next one, unless it is raised by then."""
    step.phase = Phase.BEFORE
    await step.write(StepState.WAITING, until=step.turn.node.clock.time())  # with the time it used: a crash does not give that back
    await _begin_anew(step)


def _call_of(step: Step) -> Call:
    assert isinstance(step.asked, Call)
    return step.asked


async def _watch_repetition(step: Step) -> None:
    repetition = step.turn.owner.gates.repetition
    if step.claim.step is not None:
        return repetition.note(step.name, step.claim.digest)
    repeated = repetition.before(step.name, step.claim.digest)
    if repeated is not None:
        await spend_step(step)
        await refuse(step, f"{repeated}; do something else", RepetitionDetected, category="semantic")


async def _resume(step: Step) -> None:
    """The step was open or waiting when its turn was left: make its attempt again, or wait for the rest of its pause."""
    found, call = step.claim.step, _call_of(step)
    assert found is not None
    if found.record.maybe_paid < step.maybe_paid:
        step.turn.emit(events.MaybePaid, call.name)
    if found.state is StepState.WAITING:
        until = min(await step.waits_on(), step.opened + call.retry.total_s)
        await step.turn.pause(step.lane, until, "retry", f"{call.name} is retried")


async def _held_up(step: Step, why: Wait | str) -> None:
    """A gate does not let the attempt through: wait for the breaker, or for room in the budget.

    Raises:
        BudgetExhausted: what it could cost is spent.
    """
    if isinstance(why, Wait):
        until, node = why.until, step.turn.node
        if why.crowded:
            until += node.random.uniform(0.0, min(max(until - node.clock.time(), 0.0) * _SPREAD, _SPREAD_MAX_S))
        await step.turn.pause(step.lane, until, "breaker", why.reason)
    else:
        await room(step, _call_of(step).most)


# ---------------------------------------------------------------- an attempt that failed


async def _cancelled(step: Step, call: Call, context: StepContext, error: asyncio.CancelledError, timeout_s: float) -> Fault | None:
    """The fault of an attempt that was cancelled by its deadline, or from within; one that its caller cancelled is cancelled."""
    if context.remains is not None:
        step.turn.emit(events.ThreadAbandoned, call.name)
    if step.turn.node.deadlines.taken_back(step):
        if _by_person(step):
            return await _timed_out(step, call, context, "ended by a person", at_fault=False)
        if timeout_s < call.timeout_s:
            return _OUT_OF_TIME
        return await _timed_out(step, call, context, f"no answer within {timeout_s:g} s")
    if step.task.cancelling() > step.cancelled_before:
        raise error
    # This task was not cancelled: the effect awaited a cancelled task. That is a crash of the effect.
    return Fault("cancelled", "CancelledError", f"the effect was cancelled from within: {error}")


def _failed(step: Step, call: Call, error: BaseException, timeout_s: float) -> tuple[Fault, Usage | None]:
    """The fault of an attempt that raised, and the cost that its error reports."""
    late = step.turn.node.deadlines.taken_back(step)
    cancelled = step.task.cancelling() > step.cancelled_before
    if cancelled and call.effect != "once":
        raise asyncio.CancelledError from error  # its caller cancelled it, and the effect turned that into an error
    if late and timeout_s < call.timeout_s and not _by_person(step):
        return _OUT_OF_TIME, cost_of(error)
    fault = _fault(error, step.turn.node.clock.wall())
    if cancelled or (late and _by_person(step)):
        fault = msgspec.structs.replace(fault, blameless=True)
    return fault, cost_of(error)


def _by_person(step: Step) -> bool:
    return step.passed is not None and step.passed.by_person


async def _timed_out(step: Step, call: Call, context: StepContext, text: str, *, at_fault: bool = True) -> Fault | None:
    """The deadline passed: the fault of the attempt; None where its thread brought a result after all.

    Args:
        at_fault: whether it counts against the dependency.
    """
    if not context.begun:
        return Fault("no_thread", "ThreadsBusy", f"{text}: no thread was free for it")
    if call.effect == "once" and context.remains is not None:
        # A thread cannot be ended from outside. The outcome of the effect is unknown until it ends, and usually known then.
        step.turn.stuck(context.remains)
        await asyncio.wait((context.remains,))
        error = context.remains.exception()
        if error is None:
            step.value = context.remains.result()
            return None
        if isinstance(error, NotDone):
            return _fault(error, step.turn.node.clock.wall())
    return Fault("timeout", "TimeoutError", text, keys=("TimeoutError", "timeout"), blameless=not at_fault)


def _fault(error: BaseException, now: float) -> Fault:
    """`now` is the time on the wall: a provider names a time by it, too."""
    exhausted = _exhausted(error)
    if exhausted is not None:
        # From a step inside this one: the handler must see the same error.
        return Fault("bug", exhausted.type, exhausted.message, of=exhausted)
    return redacted(classify(error, now))


def _exhausted(error: BaseException) -> BudgetExhausted | None:
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _exhausted(each)) is not None), None)
    return error if isinstance(error, BudgetExhausted) else None


def _cost(step: Step, call: Call, fault: Fault, so: Answers, reported: Usage | None) -> Usage:
    """The cost of an attempt that failed: metered from its answer, if it has one, or as its error reports; else as the table says."""
    if so.charge == "nothing":
        return ZERO
    if call.meter is not None and step.value is not None:
        return bounded(call.meter(step.value))
    if reported is not None:
        return bounded(reported)
    if so.charge == "step" or fault.refused:
        return Usage(steps=call.most.steps, tool_calls=call.most.tool_calls)
    return call.most


async def _settled(step: Step, fault: Fault) -> Outcome | None:
    """Find the outcome of an effect in doubt; None if it certainly did not happen.

    Where the outcome stays unknown, the session parks here until a person resolves it.
    """
    turn = step.turn
    step.phase, step.deadline = Phase.DOUBTED, step.ended_at()
    await step.write(StepState.DOUBT, note=f"{fault.type}: {fault.message}")
    turn.emit(events.DoubtRaised, step.name, fault.message)
    while True:
        found = await doubt.find_out(turn, step.claim.key, _call_of(step))
        if not isinstance(found, Park):
            return found
        if found.until is None:
            await turn.park_here(step.lane, found.reason, found.text)
        await turn.pause(step.lane, found.until or 0.0, found.reason, found.text)


async def _wait_for_retry(step: Step, fault: Fault, wait_s: float) -> None:
    turn = step.turn
    turn.emit(events.StepRetried, step.name, step.attempts, fault.message, wait_s)
    until = turn.node.clock.time() + wait_s
    if step.durable or wait_s > turn.owner.agent.park_after_s:
        await step.write(StepState.WAITING, until=until)
    await turn.pause(step.lane, until, "retry", f"{step.name}: {fault.line}")
    await _begin_anew(step)


async def _begin_anew(step: Step) -> None:
    path = step.forget_inside()
    if path is not None:
        await _reopen(step, path)


async def _reopen(step: Step, path: str) -> None:
    """The next attempt asks for the steps inside again: resolve each doubt among them, and drop their trailing failures."""
    turn = step.turn
    for inner in turn.journal.in_doubt():
        while inner.record.branch.startswith(path) and (park := await doubt.settle(turn, inner.key)) is not None:
            if park.until is None:
                await turn.park_here(step.lane, park.reason, park.text)
            await turn.pause(step.lane, park.until or 0.0, park.reason, park.text)
    await doubt.reopen(turn, path)
