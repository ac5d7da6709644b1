"""Drift: after a crash the code asks for something slightly different than what its journal has a record of."""

from __future__ import annotations

import msgspec

from holdfast import events
from holdfast.runtime.steps.step import Step
from holdfast.runtime.turns.order import SLACK_S
from holdfast.stores.records import Outcome


async def another_way(step: Step) -> None:
    """Where an effect on record has not been asked for, and the code asks for another one in its place, the session parks before it runs:
    with both of them done, the code's own either-or would not hold.

    In tasks of the handler's own that holds for `once` effects: what a task did since a sibling failed (in a `finally`, say) may come after
    what it does when the sibling is asked again. The tasks can have changed places, too (`asyncio.as_completed`): other code is given time
    to ask for it first.
    """
    turn, branch = step.turn, step.claim.branch
    if step.effect == "read" or (branch.line and step.effect != "once"):
        return
    while (old := turn.journal.passed_over(branch)) is not None:
        if branch.line and await turn.journal.order.asked_elsewhere(old, SLACK_S):
            continue
        if old.record.name == step.name:
            text = f"{step.name} was called with other arguments than before the crash: deploy code that repeats the old call, then resume"
        else:
            text = f"{step.name} was asked for where {old.record.name} is on record: deploy code that repeats the old call, then resume"
        await turn.park_here(step.lane, "drift", text)


async def drift(step: Step) -> Outcome | None:
    """What an unclaimed record of the same branch, kind and name says, if there is one.

    A read gets the old answer, and its record counts it. Anything else parks before it runs: whether the old effect should count for the
    new call is for a person to say.
    """
    turn, claim = step.turn, step.claim
    old = turn.journal.drift(claim, step.kind, step.name)
    if old is None:
        return None
    if old.record.digest == claim.digest:
        turn.journal.take(claim, old)
        return old.record.outcome
    if step.effect != "read":
        text = f"{step.name} was called with other arguments than before the crash: deploy code that repeats the old call, then resume"
        await turn.park_here(step.lane, "drift", text)
    turn.journal.take(claim, old)
    turn.emit(events.Drifted, step.kind, step.name)
    if old.record.outcome is not None:
        record = msgspec.structs.replace(old.record, drifted=old.record.drifted + 1)
        await turn.acknowledged(turn.submit(old.key, old.state, record))
    return old.record.outcome
