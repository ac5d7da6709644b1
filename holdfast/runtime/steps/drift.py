"""Drift: after a crash the code asks for a step that differs slightly from the one on record."""

from __future__ import annotations

from typing import NoReturn

import msgspec

from holdfast import events
from holdfast.runtime.steps.step import Step
from holdfast.runtime.turns.order import SLACK_S
from holdfast.stores.records import Outcome
from holdfast.stores.records import Step as Record


async def another_way(step: Step) -> None:
    """Park the session before an effect runs in place of an unclaimed effect on record: with both done, an either-or of the code would
    not hold.

    In the handler's own tasks this holds only for `once` effects: the effects of a task after a sibling failed (in a `finally`, say) may
    come after those that it performs when the sibling runs again. The tasks may also have changed places (`asyncio.as_completed`): other
    code gets time to ask for the recorded effect first.
    """
    turn, branch = step.turn, step.claim.branch
    if step.effect == "read" or (branch.line and step.effect != "once"):
        return
    while (old := turn.journal.passed_over(branch)) is not None:
        if branch.line and await turn.journal.order.asked_elsewhere(old, SLACK_S):
            continue
        await _park(step, old)


async def _park(step: Step, old: Record) -> NoReturn:
    """Park the session: a person decides whether the effect on record counts for the one that the code asks for."""
    if old.record.name == step.name:
        cause = f"{step.name} was called with other arguments than before the crash"
    else:
        cause = f"{step.name} was asked for where {old.record.name} is on record"
    await step.turn.park_here(step.lane, "drift", f"{cause}: deploy code that repeats the old call, then resume")


async def drift(step: Step) -> Outcome | None:
    """The outcome of an unclaimed record of the same branch, kind and name; None if there is none.

    A read gets the old answer, and its record counts that. Any other step parks before it runs: a person decides whether the old effect
    counts for the new call.
    """
    turn, claim = step.turn, step.claim
    old = turn.journal.drift(claim, step.kind, step.name)
    if old is None:
        return None
    if old.record.digest == claim.digest:
        turn.journal.take(claim, old)
        return old.record.outcome
    if step.effect != "read":
        await _park(step, old)
    turn.journal.take(claim, old)
    turn.emit(events.Drifted, step.kind, step.name)
    if old.record.outcome is not None:
        record = msgspec.structs.replace(old.record, drifted=old.record.drifted + 1)
        await turn.acknowledged(turn.submit(old.key, old.state, record))
    return old.record.outcome
