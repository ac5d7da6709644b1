"""The probe of an effect in doubt: asking the outside whether it happened."""

from __future__ import annotations

import asyncio

from holdfast import events
from holdfast.calls.call import UNKNOWN, Call, StepContext, Unknown
from holdfast.errors import NotDone
from holdfast.runtime.failures import describe
from holdfast.stores.records import Outcome

Finding = Outcome | None | Unknown
"""What a probe found: the effect's outcome, None if it certainly did not happen, UNKNOWN if nothing can tell."""


async def probe(call: Call, context: StepContext, slots: asyncio.Semaphore) -> Finding:
    """Run the call's `reconcile`, as many at once as there are `slots`.

    A probe that fails or takes longer than the call's own timeout tells nothing: the doubt stays, and a person is asked.
    """
    if call.reconcile is None:
        return UNKNOWN
    try:
        async with slots, asyncio.timeout(call.timeout_s):
            value = await call.reconcile(context)
        return UNKNOWN if isinstance(value, Unknown) else Outcome(call.codec.encode(value))
    except NotDone:
        return None
    except Exception as error:
        events.log.warning("reconcile of %s in %s failed: %s", call.name, context.session, describe(error))
        return UNKNOWN
