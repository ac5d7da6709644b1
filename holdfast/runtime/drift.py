"""Drift: after a crash the code asks for something slightly different than what its journal has a record of."""

from __future__ import annotations

import msgspec

from holdfast import events
from holdfast.calls.call import Call
from holdfast.runtime.journal import Claim
from holdfast.runtime.turn import Turn
from holdfast.stores.records import Outcome


async def drift(turn: Turn, call: Call, claim: Claim) -> Outcome | None:
    """What an unclaimed record of the same branch, kind and name says, if there is one.

    A read gets the old answer, and its record counts it. Anything else parks before it runs: whether the old effect should count for the
    new call is for a person to say.
    """
    old = turn.journal.drift(claim, call.kind, call.name)
    if old is None:
        return None
    if call.effect != "read":
        text = f"{call.name} was called with other arguments than before the crash; put the code right, then resume; or cancel the session"
        await turn.park_here("drift", text)
    turn.journal.take(claim, old)
    turn.emit(events.Drifted, call.kind, call.name)
    if old.record.outcome is not None:
        record = msgspec.structs.replace(old.record, drifted=old.record.drifted + 1)
        await turn.acknowledged(turn.submit(old.key, old.state, record))
    return old.record.outcome
