"""Drift: after a crash the code asks for something slightly different than what its journal has a record of."""

from __future__ import annotations

import msgspec

from holdfast import events
from holdfast.runtime.steps.step import Step
from holdfast.stores.records import Outcome


async def another_way(step: Step) -> None:
    """Where an effect on record has not been asked for, and the code asks for another one in its place, the session parks before it runs:
    with both of them done, the code's own either-or would not hold."""
    old = None if step.effect == "read" else step.turn.journal.passed_over(step.claim)
    if old is not None:
        text = f"{step.name} was asked for where {old.record.name} is on record: deploy code that repeats the old call, then resume"
        await step.turn.park_here(step.lane, "drift", text)


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
