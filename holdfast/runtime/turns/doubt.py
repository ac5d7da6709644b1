"""Effects in doubt: how their outcome is found and recorded. Also, which failed steps run again when a turn restarts.

`reconcile` is asked only when the earlier attempt can no longer take effect: in this process its task or its thread has ended; after a
crash the deadline in its record has passed, and the tool's `settles_s` after it.
"""

from __future__ import annotations

import asyncio

import msgspec

from holdfast import events
from holdfast.calls.call import UNKNOWN, Call, StepContext, Unknown
from holdfast.errors import NotDone
from holdfast.policies.budget import ZERO, Usage
from holdfast.runtime.turns.failures import CUT, describe, state_of
from holdfast.runtime.turns.journal import cost
from holdfast.runtime.turns.node import Known
from holdfast.runtime.turns.turn import Turn
from holdfast.stores.ops import DropSteps
from holdfast.stores.records import Failure, Outcome, Park, Step, StepState, in_doubt

Finding = Outcome | None | Unknown
"""The answer of reconcile: the effect's outcome, None if it certainly did not happen, UNKNOWN if reconcile cannot tell."""


async def reconcile(turn: Turn, call: Call, context: StepContext) -> Finding:
    """Ask the call's `reconcile`; the node limits how many run at once.

    Where reconcile fails or takes longer than the call's own timeout, the effect stays in doubt: a person has to resolve it.
    """
    if call.reconcile is None:
        return UNKNOWN
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    try:
        async with turn.node.reconciles, asyncio.timeout(call.timeout_s):
            value = await call.reconcile(context)
        # It has to read back as what the effect returns: recorded, it could not be taken back.
        found: Finding = UNKNOWN if isinstance(value, Unknown) else Outcome(call.codec.round_trip(value)[0])
    except NotDone:
        found = None
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > before:
            raise
        # This task was not cancelled: reconcile awaited a cancelled task. The error would end the session's task unseen.
        events.log.warning("reconcile of %s in %s was cancelled from within: %s", call.name, context.session, describe(error))
        return UNKNOWN
    except Exception as error:
        events.log.warning("reconcile of %s in %s failed: %s", call.name, context.session, describe(error))
        return UNKNOWN
    if not isinstance(found, Unknown):
        turn.emit(events.DoubtSettled, call.name, "not done" if found is None else "done", "reconcile")
    return found


async def prepare(turn: Turn) -> None:
    """Before the handler runs: resolve every doubt, or park the turn; drop the failures that no record follows."""
    await write_what_is_known(turn)
    await settle_all(turn)
    stale = turn.journal.trailing_failures()
    if stale and turn.interruption is None:
        await ask_again(turn, stale)
    turn.journal.rewind()


async def write_what_is_known(turn: Turn) -> None:
    """Write the records in hand that are not in the store after all; drop those of effects that did not happen. Then they are forgotten."""
    for key in list(turn.in_hand()):
        if turn.interruption is None:
            await _write_if_known(turn, key)


async def _write_if_known(turn: Turn, key: bytes) -> None:
    if key not in turn.in_hand():
        return
    known, step = turn.in_hand()[key], turn.journal.records.get(key)
    if step is not None:
        await _write_known(turn, step, known)
    if turn.interruption is None and turn.in_hand().get(key) is known:  # its thread may have ended meanwhile
        turn.forget_in_hand(key)


async def _write_known(turn: Turn, step: Step, known: Known) -> None:
    if known is None:
        if in_doubt(step):
            await drop(turn, [step])
        return
    state, record = known
    if step.record.cut and in_doubt(step):
        record = msgspec.structs.replace(record, ended=step.record.ended)  # its caller saw its end at that place
    # An outcome in the store stays, such as that of a person; but the one in hand also has whether its caller saw it.
    if record != step.record and step.record.outcome in (None, record.outcome):
        turn.journal.order.known(record)
        await turn.outcome(turn.submit(step.key, state, record))


async def ask_again(turn: Turn, failures: list[Step]) -> None:
    """Let failed steps that no record follows run again. A paid call that was cut is open again: it may have been paid."""
    paid = [step for step in failures if _was_paid_for_nothing(step)]
    for step in paid:
        record = msgspec.structs.replace(step.record, outcome=None, closed=0.0, ended=0, cut=False)
        await turn.outcome(turn.submit(step.key, StepState.OPEN, record))
    free = [step for step in failures if step not in paid]
    if free and turn.interruption is None:
        await drop(turn, free)


async def reopen(turn: Turn, path: str) -> None:
    """The function of a step runs again: it can claim the records of its own steps again; failures that no record follows are dropped.

    Args:
        path: path of the inside of the step. No effect in it is in doubt.
    """
    stale = turn.journal.reopen(path)
    if stale:
        await ask_again(turn, stale)


def _was_paid_for_nothing(step: Step) -> bool:
    record, failure = step.record, None if step.record.outcome is None else step.record.outcome.failure
    cut = failure is not None and (failure.type, failure.message) == (CUT.type, CUT.message)
    return cut and record.effect == "read" and bool(record.used.microusd or record.used.tokens)


async def drop(turn: Turn, steps: list[Step]) -> None:
    """Drop the records of steps; their cost stays charged."""
    keys = tuple(step.key for step in steps)
    charge = sum((cost(step) for step in steps), Usage())
    op = DropSteps(turn.owner.id, turn.owner.epoch, turn.number, keys, charge)
    if await turn.outcome(turn.node.group.submit(op, keep=True)) is not None:
        turn.journal.drop(keys)


async def settle_all(turn: Turn) -> None:
    """While the handler does not run: resolve each doubt, or park the session on the first that cannot be resolved."""
    for step in turn.journal.in_doubt():
        if turn.interruption is None:
            park = await settle(turn, step.key)
            if park is not None and turn.interruption is None:
                turn.interrupt("park", park)


async def ask_about_all(turn: Turn, *, threads: bool = True) -> None:
    """Before the turn is given up: write what is known, and resolve the doubts that `reconcile` can decide; the others stay.

    Args:
        threads: whether to wait for attempts that still run in a thread.
    """
    await write_what_is_known(turn)
    for step in turn.journal.in_doubt():
        if threads or turn.place_of(step.key) not in turn.node.remains:
            await settle(turn, step.key)


async def settle(turn: Turn, key: bytes, call: Call | None = None) -> Park | None:
    """Resolve one doubt: close an effect that happened. One that did not happen may run again, or has failed where its caller cancelled it.

    Args:
        call: the call of the step, where it is at hand; else it is made from the record, which needs the tool among those of the agent.

    Returns:
        The park for an effect that stays in doubt; None where it is resolved (or the turn was interrupted meanwhile).
    """
    found = await find_out(turn, key, call)
    if isinstance(found, Park):
        return found
    step = turn.journal.records.get(key)
    if step is None or not in_doubt(step):
        return None  # another line resolved it meanwhile
    if found is not None:
        await _close(turn, step, found)
    elif step.record.cut:
        # Its caller saw it cancelled: on replay the caller must see the same, not an effect that begins.
        failure = Failure("StepError", step.record.name, "NotDone", "reconcile found that it did not happen")
        await _close(turn, step, Outcome(failure=failure))
    else:
        await drop(turn, [step])
    return None


async def find_out(turn: Turn, key: bytes, call: Call | None = None) -> Park | Outcome | None:
    """The outcome of an effect in doubt; None if it certainly did not happen; a park where the outcome stays unknown for now."""
    await turn.written()
    remains = turn.node.remains.get(turn.place_of(key))
    if remains is not None:
        await asyncio.wait((remains,))  # a thread that its step left; if it returns the result, the doubt is over
        await _write_if_known(turn, key)
    step = turn.journal.records.get(key)
    if step is None:
        return None
    record = step.record
    if not in_doubt(step):
        return record.outcome
    call = call or turn.owner.agent.recall(record)
    if call is None or call.reconcile is None:
        return _unsettled(turn, step, call)
    until = await _until(turn, step, call)
    if until is not None:
        return Park("reconcile", f"asks reconcile of {record.name} once the earlier attempt can no longer take effect", until)
    found = await reconcile(turn, call, StepContext(turn.owner.id, turn.name_of(key), record.attempts))
    return _unsettled(turn, step, call) if isinstance(found, Unknown) else found


async def _until(turn: Turn, step: Step, call: Call) -> float | None:
    """The store time until which the attempt may still take effect; None where it no longer can.

    Never later than the attempt could take: a deadline that lies further away, because the clock was set back, is written anew.
    """
    deadline, now = step.record.deadline, turn.node.clock.time()
    if not deadline or deadline + call.settles_s == turn.owner.waited_until:
        return None
    if deadline > now + call.timeout_s + 0.001:
        deadline = now + call.timeout_s
        await turn.outcome(turn.submit(step.key, step.state, msgspec.structs.replace(step.record, deadline=deadline)))
    until = deadline + call.settles_s
    return until if until > now + 0.001 else None


async def _close(turn: Turn, step: Step, outcome: Outcome) -> None:
    closed = msgspec.structs.replace(
        step.record, outcome=outcome, used=cost(step), reserved=ZERO, closed=turn.node.clock.time(), deadline=0.0, note="",
        ended=step.record.ended or turn.journal.order.place(),  # a caller that cancelled it saw its end at that place
    )  # fmt: skip
    await turn.outcome(turn.submit(step.key, state_of(outcome), closed))


def _unsettled(turn: Turn, step: Step, call: Call | None) -> Park:
    """The park on this step: why, and what to do."""
    name, missing = step.record.name, ""
    cause = step.record.note or "the process died before it could record the outcome"
    if call is None and name in turn.owner.agent.tools:
        missing = "; its tool takes other arguments by now"
    elif call is None:
        missing = f"; {name} is not in tools= of its agent, so no reconcile could be asked"
    return Park("doubt", f"outcome of {name} unknown ({cause}{missing}); resolve it: done, retry or fail")
