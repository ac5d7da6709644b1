"""Plain functions in threads. The limits count the threads that run, not the callers that wait (`places`).

A thread cannot be killed. When its caller is cancelled, the thread runs to its end, and is counted as abandoned until then.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from holdfast.calls.call import StepContext
from holdfast.calls.tools.places import Places


class _Pool:
    """The threads of one event loop."""

    def __init__(self) -> None:
        self.places = Places()
        # anyio frees the place of a cancelled call while its thread still runs, so this module counts `places` itself.
        self.unbounded = anyio.CapacityLimiter(float("inf"))


_pool: anyio.lowlevel.RunVar[_Pool] = anyio.lowlevel.RunVar("holdfast.calls.tools.threads")


def _of_this_loop() -> _Pool:
    pool = _pool.get(None)
    if pool is None:
        pool = _Pool()
        _pool.set(pool)
    return pool


def abandoned() -> int:
    """How many threads of this event loop still run after their callers were cancelled."""
    return _of_this_loop().places.abandoned


def statistics() -> dict[str, int]:
    """The threads of this event loop: those that run for a caller, those that were abandoned, how many of these still take up a place, and
    the calls that wait for a place."""
    places = _of_this_loop().places
    return {
        "threads_running": places.running,
        "threads_abandoned": places.abandoned,
        "threads_lost": places.lost,
        "threads_waiting": places.waiting,
    }


async def in_thread(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], step: StepContext) -> Any:
    """Call `function` in a thread and return its result. `step.begun` is whether the thread has called it.

    If cancelled before the thread has called it, the function is not called. Otherwise it runs to its end, is counted as abandoned, and
    `step.remains` has its outcome.
    """
    pool, loop = _of_this_loop(), asyncio.get_running_loop()
    # The first to get `turn` decides: the thread calls the function, or the cancelled caller sees that it will not be called.
    turn, outcome = threading.Lock(), loop.create_future()
    left = ended = False

    def over(value: Any, error: BaseException | None) -> None:
        nonlocal ended
        ended = True
        pool.places.leave(step.session, abandoned=left)
        if left:
            outcome.set_exception(error) if error is not None else outcome.set_result(value)
            outcome.exception()  # retrieved, since no other code looks at it once the turn has ended

    def work() -> Any:
        if not turn.acquire(blocking=False):
            return None
        step.begun = True
        value, error = None, None
        try:
            value = function(*args, **kwargs)
            return value
        except BaseException as raised:
            error = raised if isinstance(raised, Exception) else RuntimeError(f"{type(raised).__name__} was raised: {raised}")
            raise error from None
        finally:
            try:
                loop.call_soon_threadsafe(over, value, error)
            except RuntimeError:
                pass  # the loop is closed, and its limit no longer exists

    step.begun = False
    await pool.places.enter(step.session)
    try:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=pool.unbounded)
    except BaseException:
        # `over` runs before an exception of the function arrives here, so only a cancelled caller finds it still running.
        if turn.acquire(blocking=False):
            over(None, None)
        elif not ended:
            left = True
            pool.places.abandon()
            step.remains = outcome
        raise
