"""Plain functions in threads. The limit counts the threads that run, not the callers that wait.

A thread cannot be killed. When its caller is cancelled, the thread runs to its end, counts towards the limit until then, and is counted as
abandoned.
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

THREADS = 40
"""How many plain functions run at once in one event loop."""


class _Pool:
    """The limit of one event loop."""

    def __init__(self) -> None:
        self.places = anyio.CapacityLimiter(THREADS)
        # anyio frees the place of a cancelled call while its thread still runs, so this module counts `places` itself.
        self.unbounded = anyio.CapacityLimiter(float("inf"))
        self.abandoned = 0


_pool: anyio.lowlevel.RunVar[_Pool] = anyio.lowlevel.RunVar("holdfast.calls.threads")


def _of_this_loop() -> _Pool:
    pool = _pool.get(None)
    if pool is None:
        pool = _Pool()
        _pool.set(pool)
    return pool


def abandoned() -> int:
    """How many threads of this event loop still run after their callers were cancelled."""
    return _of_this_loop().abandoned


async def in_thread(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], step: StepContext) -> Any:
    """Call `function` in a thread and return its result. `step.begun` is whether the thread has called it.

    If cancelled before the thread has called it, the function is not called. Otherwise it runs to its end, is counted as abandoned, and
    `step.remains` has its outcome.
    """
    pool, loop, place = _of_this_loop(), asyncio.get_running_loop(), object()
    # The first to get `turn` decides: the thread calls the function, or the cancelled caller sees that it will not be called.
    turn, outcome = threading.Lock(), loop.create_future()
    left = ended = False

    def over(value: Any, error: BaseException | None) -> None:
        nonlocal ended
        ended = True
        pool.places.release_on_behalf_of(place)
        pool.abandoned -= left
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
    await pool.places.acquire_on_behalf_of(place)
    try:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=pool.unbounded)
    except BaseException:
        # `over` runs before an exception of the function arrives here, so only a cancelled caller finds it still running.
        if turn.acquire(blocking=False):
            over(None, None)
        elif not ended:
            left = True
            pool.abandoned += 1
            step.remains = outcome
        raise
