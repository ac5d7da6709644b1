"""Steps that wait: for a time, a reply, or the end of a session. A wait is a record, so it survives the process."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from holdfast.codec import canonical
from holdfast.given import brief, is_number
from holdfast.runtime.steps import pipeline
from holdfast.runtime.steps.asked import Ask
from holdfast.runtime.steps.room import spend_step
from holdfast.runtime.steps.step import Step
from holdfast.runtime.turns.turn import Turn
from holdfast.stores.ops import Op, Result
from holdfast.stores.records import Outcome, Park, StepState

_LONGEST_S = 10 * 365 * 86_400.0

Send = Callable[[Step], tuple[Op, ...]]
"""Makes the ops of the message whose answer the step waits for; they leave with its record."""

AtOnce = Callable[[Result], Outcome | None]
"""The outcome of sending the message, where that is the answer already."""


def check_time(what: str, seconds: float) -> None:
    """Raises ValueError where `seconds` is not a valid time to wait."""
    if not is_number(seconds) or seconds > _LONGEST_S:
        raise ValueError(f"{what} is {brief(seconds)}: give a number of seconds, ten years at most")


async def sleep(turn: Turn, seconds: float) -> None:
    """Wait `seconds`; a long one parks the session.

    Raises:
        ValueError: `seconds` is not a valid time to wait.
    """
    check_time("sleep", seconds)
    hold_s = 0.0 if seconds > turn.owner.agent.park_after_s else seconds + 60.0
    asked = Ask(kind="sleep", name="sleep", args=canonical(seconds), timeout_s=max(seconds, 0.0))
    await pipeline.run(turn, asked, partial(_sleep, seconds=seconds, hold_s=hold_s))


async def _sleep(step: Step, *, seconds: float, hold_s: float) -> Outcome:
    await begin(step, seconds)
    if step.claim.step is None or step.until != step.claim.step.record.until:
        await step.write(StepState.WAITING)
    await step.turn.wait(step.lane, step.claim.key, Park("wait", "sleeps", step.until), hold_s)
    return await step.close(Outcome())


async def begin(step: Step, seconds: float | None) -> None:
    """Charge the wait and fix its end. A wait on record lasts no longer than its rest when the record was written, whatever a clock did
    since."""
    now, found = step.turn.node.clock.time(), step.claim.step
    step.begins()
    until = None if seconds is None else now + seconds
    if found is None:
        await spend_step(step)
        step.until = until
    elif step.until is not None and until is not None:
        waited = step.until == step.turn.owner.waited_until
        step.until = now if waited else min(step.until, until, now + (found.record.waits_s or math.inf))


async def wait_for(step: Step, target: str, send: Send, at_once: AtOnce, hold_s: float) -> Outcome | None:
    """Send a message and wait for its outcome; None where the time is over.

    It is sent on every run: the process may have died after the record was written, before it saw the immediate answer.
    """
    step.target = target
    answer = at_once(await step.write(StepState.WAITING, outbox=send(step)))
    if answer is not None:
        return await step.close(answer)
    written = step.turn.journal.records[step.claim.key].record.outcome
    if written is None:
        park = Park("wait", f"waits for {step.kind} {target}", step.until, (target,))
        written = await step.turn.wait(step.lane, step.claim.key, park, hold_s)
    return None if written is None else await step.answered(written)
