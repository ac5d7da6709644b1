"""Before a handler runs: effects in doubt, what the outside says of them, and what follows from that; and what is asked again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from holdfast import events
from holdfast.calls.call import UNKNOWN, Call, StepContext, Unknown
from holdfast.errors import NotDone
from holdfast.policies.budget import ZERO, Usage
from holdfast.runtime.failures import describe
from holdfast.runtime.journal import cost
from holdfast.stores.ops import DropSteps
from holdfast.stores.records import Outcome, Park, Step, StepState

if TYPE_CHECKING:
    from holdfast.runtime.turn import Turn

Finding = Outcome | None | Unknown
"""What a probe found: the effect's outcome, None if it certainly did not happen, UNKNOWN if nothing can tell."""


async def probe(turn: Turn, call: Call, context: StepContext) -> Finding:
    """Run the call's `reconcile`, as many at once as the node allows.

    A probe that fails or takes longer than the call's own timeout tells nothing: the doubt stays, and a person is asked.
    """
    if call.reconcile is None:
        return UNKNOWN
    try:
        async with turn.node.reconciles, asyncio.timeout(call.timeout_s):
            value = await call.reconcile(context)
        found: Finding = UNKNOWN if isinstance(value, Unknown) else Outcome(call.codec.encode(value))
    except NotDone:
        found = None
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody cancelled this task: the probe awaited something that somebody else cancelled. It would end the session's task unseen.
        events.log.warning("reconcile of %s in %s was cancelled from within: %s", call.name, context.session, describe(error))
        return UNKNOWN
    except Exception as error:
        events.log.warning("reconcile of %s in %s failed: %s", call.name, context.session, describe(error))
        return UNKNOWN
    if not isinstance(found, Unknown):
        turn.emit(events.DoubtSettled, call.name, "not done" if found is None else "done", "reconcile")
    return found


async def prepare(turn: Turn) -> None:
    """Before the handler runs: every doubt is settled or the turn parks; failures that nothing follows are made free."""
    await settle_all(turn)
    stale = turn.journal.trailing_failures()
    if stale and turn.interruption is None:
        await drop(turn, stale)
    turn.journal.rewind()


async def drop(turn: Turn, steps: list[Step]) -> None:
    """Make steps free again; what they cost stays charged."""
    keys = tuple(step.key for step in steps)
    charge = sum((cost(step) for step in steps), Usage())
    op = DropSteps(turn.actor.id, turn.actor.epoch, turn.number, keys, charge)
    if await turn.outcome(turn.node.group.submit(op)) is not None:
        turn.journal.drop(keys)


async def settle_all(turn: Turn) -> None:
    """While the handler does not run: effects that happened are closed, those that did not are free again; else the session parks."""
    for step in turn.journal.in_doubt():
        if turn.interruption is None:
            await _settle(turn, step)


async def settle_abandoned(turn: Turn) -> None:
    """After the handler returned: `once` effects that its own scope let go of are settled, or the session parks."""
    for write in turn.abandoned:
        await turn.outcome(write)
    if turn.abandoned:
        await settle_all(turn)


async def _settle(turn: Turn, step: Step) -> None:
    record = step.record
    call = turn.actor.agent.recall(record)
    found: Finding = UNKNOWN
    if call is not None:
        found = await probe(turn, call, StepContext(turn.actor.id, turn.name_of(step.key), record.attempts))
    if isinstance(found, Unknown):
        turn.interrupt("park", _unsettled(step))
    elif found is None:
        await drop(turn, [step])
    else:
        closed = msgspec.structs.replace(record, outcome=found, used=cost(step), reserved=ZERO, closed=turn.node.clock.time(), note="")
        await turn.outcome(turn.submit(step.key, StepState.CLOSED, closed))


def _unsettled(step: Step) -> Park:
    """Why a session is parked on this step, and what to do."""
    cause = step.record.note or "the process died while it was under way"
    return Park("doubt", f"{step.record.name} may or may not have happened ({cause}); resolve it: done, retry or fail")
