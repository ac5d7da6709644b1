"""`session.gather`: coroutines of a handler that run concurrently, each as a numbered branch."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from holdfast.errors import StepError
from holdfast.runtime.turns.branches import Gathered, here
from holdfast.runtime.turns.turn import Turn


async def gather(turn: Turn, work: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run `work` until all of it has ended; the results in order, or the first failure by position.

    If cancelled, all branches are cancelled, and their last records are written before the caller sees the cancellation.
    """
    for each in work:
        if not asyncio.iscoroutine(each):
            raise TypeError(_refusal(each))
    if turn.over:
        for each in work:
            each.close()
        await turn.closed()
    within = here(turn.flight) or turn.root
    name = within.below("g")
    branches = [within.beneath(f"{name}.{position}/") for position in range(len(work))]
    running = [turn.flight.start(each, branch, gathered=True) for each, branch in zip(work, branches, strict=True)]
    if running:
        await _all_ended(turn, running, Gathered(f"{name}.", within.line))
    if turn.interruption is not None:
        await turn.never()  # the turn ended the branches: the handler must not see their cancellations
    for position, task in enumerate(running):
        if task.cancelled():
            raise StepError("gather", "CancelledError", f"its branch {position} was cancelled from within")
    errors = [error for task in running if (error := task.exception()) is not None]
    if errors:
        raise errors[0]
    return [task.result() for task in running]


def _refusal(given: object) -> str:
    is_list = isinstance(given, list | tuple)
    instead = "give its items one by one, gather(*items)" if is_list else "call the async functions, and do not await them"
    return f"gather takes coroutines, not a {type(given).__name__}: {instead}"


async def _all_ended(turn: Turn, running: list[asyncio.Task[Any]], gathered: Gathered) -> None:
    turn.flight.gathering(True)
    try:
        await asyncio.wait(running)
    except asyncio.CancelledError:
        turn.left_gathers.append(gathered)
        for task in running:
            task.cancel()
        # The last records of the branches are in the journal before the handler resumes, so the order is the same on every run.
        await asyncio.wait(running, timeout=turn.node.settings.quarantine_s)
        raise
    finally:
        turn.flight.gathering(False)
