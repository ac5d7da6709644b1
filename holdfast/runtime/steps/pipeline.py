"""The pipeline of every kind of step: the one place that finds its record, admits it, and ends it.

    claim (replay) -> admission -> drift -> perform [ see effect, wait, send, spawn ] -> close -> result

The table at the head of docs/semantics.md has the states of a step and their transitions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from holdfast import events
from holdfast.calls.call import Call
from holdfast.errors import RuntimeStopped
from holdfast.runtime.steps.asked import Asked, result
from holdfast.runtime.steps.drift import another_way, drift
from holdfast.runtime.steps.outbox import send_again
from holdfast.runtime.steps.refusal import exhausts
from holdfast.runtime.steps.step import Step
from holdfast.runtime.turns import doubt
from holdfast.runtime.turns.branches import here, inside_of
from holdfast.runtime.turns.failures import CUT
from holdfast.runtime.turns.journal import Claim
from holdfast.runtime.turns.observed import step_over
from holdfast.runtime.turns.order import FAR_S, NEXT_S, ROUNDS_S, SLACK_S, Coming
from holdfast.runtime.turns.turn import Turn
from holdfast.stores.records import Outcome, StepRecord, StepState
from holdfast.stores.records import Step as StoredStep

Perform = Callable[[Step], Awaitable[Outcome]]
"""Performs one kind of step once it is admitted; returns its outcome, which is recorded by then."""

Again = Callable[[Turn, Claim], Awaitable[None]]
"""What one kind of step still has to check when it is answered from its record."""


async def run(turn: Turn, asked: Asked, perform: Perform, again: Again | None = None) -> Any:
    """The result of a step: from its record, or by performing it.

    Raises:
        StepError: it failed for good.
        BudgetExhausted: it could cost more than is left; once in a turn.
    If cancelled, see `Step.let_go`: a step under way is recorded as cut, and replay waits until the caller cancels it again.
    """
    if turn.over:
        await turn.closed()
    branch = here(turn.flight)
    if branch is None:
        return await _for_a_stranger(turn, run(turn, asked, perform, again))
    claim = turn.journal.claim(branch, asked.kind, asked.name, asked.args)
    found = claim.step
    if found is not None and (known := found.record.outcome) is not None:
        _replayed(turn, asked, found)
        if again is not None:
            await again(turn, claim)
        skipped_s = turn.journal.order.arrives(found, in_one_run=_in_one_run(asked, found.record))
        answer = known if skipped_s is None else await _in_its_place(turn, asked, found, known, skipped_s)
        if answer is not None:
            return result(asked, answer)
    if turn.replaying or turn.interruption is not None or turn.ending is not None:
        await turn.admit(claim.branch)
    step = Step(turn, asked, claim)
    try:
        # A `once` effect first checks the steps of the same effect, one at a time (see effect.perform_once).
        outcome = await drifted(step) if found is None and turn.journal.left and asked.effect != "once" else None
        if outcome is None:
            outcome = await perform(step)
    except asyncio.CancelledError:
        step.let_go()
        raise
    finally:
        if claim.started is not None:
            step_over(turn, claim, asked if type(asked) is Call else None, step.value)
        step.leave()
    return result(asked, outcome)


async def drifted(step: Step) -> Outcome | None:
    """The answer of an older record, where the code diverged from its records; None where the step is new."""
    claim, journal = step.claim, step.turn.journal
    if claim.step is not None or not journal.left or (claim.overlapped and not claim.branch.line):
        return None
    outcome = await drift(step) if type(step.asked) is Call and not claim.overlapped else None
    if outcome is None:
        step.resume()
        if claim.step is None:
            await another_way(step)
        claim.strayed = journal.astray(claim.branch)
    return outcome


def _replayed(turn: Turn, asked: Asked, found: StoredStep) -> None:
    """Do for a step that its record answers what it did when it was performed: for the gates, the observers and the outbox."""
    if asked.kind == "tool" and found.record.attempts:
        turn.owner.gates.repetition.note(asked.name, found.record.digest)
    if turn.node.observers.all:
        turn.emit(events.StepReplayed, asked.kind, asked.name)
    if found.state is StepState.FAILED:
        turn.refused = turn.refused or exhausts(found.record.outcome)
    if turn.journal.nested:
        for step in turn.journal.claim_below(found):
            turn.refused = turn.refused or exhausts(step.record.outcome)
            send_again(turn, step)


async def _in_its_place(turn: Turn, asked: Asked, step: StoredStep, outcome: Outcome, skipped_s: float) -> Outcome | None:
    """The outcome on record, after those before it; None for a read that was cut and that the code does not cancel this time: it runs
    again."""
    order, record = turn.journal.order, step.record
    if skipped_s > FAR_S and not record.cut and order.comes_alone(step):
        await turn.skip(skipped_s, NEXT_S)
        skipped_s = 0.0
    if record.cut or not order.comes_alone(step):
        coming = order.begin(step)  # at once: the others count it as asked for
        try:
            if skipped_s > FAR_S or not record.cut:
                await turn.skip(skipped_s, NEXT_S if record.cut else ROUNDS_S)
            await order.comes(coming, asked.timeout_s)
            if record.cut:
                await _let_go_again(turn, asked, record, coming)
        except asyncio.CancelledError:
            if record.cut:
                order.sees(record.ended)
            raise
        finally:
            order.end(coming)
    order.arrived(step)
    if not record.cut or asked.effect != "read" or outcome.failure is None or outcome.failure.type != CUT.type:
        return outcome
    await doubt.reopen(turn, inside_of(record.branch, step.key))
    return None


def _in_one_run(asked: Asked, record: StepRecord) -> bool:
    """Whether the code waited for this outcome in one run: a wait, another attempt, and the resolution of a `once` effect may have been
    after a crash, or by a person."""
    return record.attempts == 1 and type(asked) is Call and asked.effect != "once"


async def _let_go_again(turn: Turn, asked: Asked, record: StepRecord, coming: Coming) -> None:
    """Wait until the caller cancels the step again (by a timeout of its own, say), as it did before; the cancellation arrives here.

    Later outcomes come after it again, but wait for it only until the cancellation is due.
    """
    never, due_s = turn.node.loop.create_future(), record.cut_after_s + SLACK_S
    held_s = max(due_s - (turn.node.clock.time() - turn.started), 0.0)
    await asyncio.wait((never,), timeout=held_s)
    turn.journal.order.end(coming)
    await asyncio.wait((never,), timeout=max(asked.timeout_s - held_s, 0.0))
    if turn.over:
        await turn.closed()


async def _for_a_stranger(turn: Turn, work: Any) -> Any:
    """Run a step in a task of the turn, for code that the turn did not start: a thread that calls back, a task of another module."""
    task = turn.flight.start(work, turn.root)
    try:
        return await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is None or current.cancelling():
            raise
        raise RuntimeStopped("the turn ended before its step did: do not keep its session object") from None
