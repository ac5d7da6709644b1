"""Plain functions in threads: bounded, and bounded by what really runs, not by what somebody still waits for.

A thread cannot be killed. When its caller is cancelled the thread goes on to its end, keeps its place in the bound until then,
and is counted as abandoned.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

THREADS = 40
"""How many plain functions run at once in one event loop."""


class _Pool:
    """The bound of one event loop."""

    def __init__(self) -> None:
        self.places = anyio.CapacityLimiter(THREADS)
        # anyio gives the place of a cancelled call away while its thread still runs, so `places` is kept by hand.
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
    """How many threads of this event loop run on though nobody waits for them any more."""
    return _of_this_loop().abandoned


async def in_thread(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `function` returns, called in a thread.

    If cancelled before the thread got to it, the function is not called; otherwise it runs on to its end and is counted as
    abandoned.
    """
    pool, loop, place = _of_this_loop(), asyncio.get_running_loop(), object()
    # Whoever gets `turn` first decides: the thread calls the function, or the cancelled caller sees that nobody will.
    turn = threading.Lock()
    left = ended = False

    def give_back() -> None:
        nonlocal ended
        ended = True
        pool.places.release_on_behalf_of(place)
        pool.abandoned -= left

    def work() -> Any:
        if not turn.acquire(blocking=False):
            return None
        try:
            return function(*args, **kwargs)
        finally:
            try:
                loop.call_soon_threadsafe(give_back)
            except RuntimeError:
                pass  # the loop is closed, and its bound gone with it

    await pool.places.acquire_on_behalf_of(place)
    try:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=pool.unbounded)
    except BaseException:
        # `give_back` runs before anything that the function raised gets here, so only a cancelled caller finds it still running.
        if turn.acquire(blocking=False):
            give_back()
        elif not ended:
            left = True
            pool.abandoned += 1
        raise
