"""Plain functions in threads. The limits count the threads that run, not the callers that wait (`places`).

A thread cannot be killed. When its caller is cancelled, the thread runs to its end, and is counted as abandoned until then.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio.lowlevel

from holdfast.calls.call import StepContext
from holdfast.calls.tools.places import Places
from holdfast.calls.tools.workers import Workers
from holdfast.given import text_of
from holdfast.policies.classify import MESSAGE_MAX

_WORKERS = Workers()


class _Pool:
    """The threads of one event loop."""

    def __init__(self) -> None:
        self.places = Places()
        self.of_tools: dict[tuple[str, int], Places] = {}  # of the tools with a limit of their own, by name and limit
        self.late: Counter[str] = Counter()  # abandoned threads by the name of their function


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


def abandoned_by_name() -> dict[str, int]:
    """The same by the name of their function, most first."""
    return dict(_of_this_loop().late.most_common())


def statistics() -> dict[str, int]:
    """The threads of this event loop: those that run for a caller, those that were abandoned, how many of these still take up a place, and
    the calls that wait for a place."""
    pool = _of_this_loop()
    places = pool.places
    return {
        "threads_running": places.running,
        "threads_abandoned": places.abandoned,
        "threads_lost": places.lost,
        "threads_waiting": places.waiting + sum(each.waiting for each in pool.of_tools.values()),
    }


async def in_thread(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    step: StepContext,
    *,
    name: str = "",
    limit: int | None = None,
) -> Any:
    """Call `function` in a thread and return its result. `step.begun` is whether the thread has called it.

    If cancelled before the thread has called it, the function is not called. Otherwise it runs to its end, is counted as abandoned, and
    `step.remains` has its outcome.

    Args:
        name: of the function, for people and for its limit.
        limit: the most threads of this name at once, the abandoned ones counted; None for no limit of its own.
    """
    pool, session = _of_this_loop(), step.session
    limits = [pool.places]
    if limit is not None:
        # The limit of its own comes first: a call that waits for that takes no place from other functions.
        limits.insert(0, pool.of_tools.setdefault((name, limit), Places(limit)))
    step.begun = False
    entered: list[Places] = []
    try:
        for each in limits:
            await each.enter(session)
            entered.append(each)
    except BaseException:
        for each in entered:
            each.leave(session)
        raise
    return await _called(function, args, kwargs, step, pool, limits, name)


async def _called(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    step: StepContext,
    pool: _Pool,
    limits: list[Places],
    name: str,
) -> Any:
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    # The first to get `turn` decides: the thread calls the function, or the cancelled caller sees that it will not be called.
    turn, outcome = threading.Lock(), loop.create_future()
    left = ended = False

    def over(value: Any, error: Exception | None) -> None:
        nonlocal ended
        ended = True
        for each in limits:
            each.leave(step.session, abandoned=left)
        if left:
            pool.late[name] -= 1
            pool.late += Counter()  # without those at 0
            outcome.set_exception(error) if error is not None else outcome.set_result(value)
            outcome.exception()  # retrieved, since no other code looks at it once the turn has ended

    def work() -> tuple[Any, Exception | None]:
        if not turn.acquire(blocking=False):
            return None, None
        step.begun = True
        value: Any = None
        error: Exception | None = None
        try:
            value = context.run(function, *args, **kwargs)
        except BaseException as raised:
            # A future takes no StopIteration, and SystemExit would end the thread.
            if isinstance(raised, Exception) and not isinstance(raised, StopIteration):
                error = raised
            else:
                error = RuntimeError(f"{type(raised).__name__} was raised: {text_of(raised, MESSAGE_MAX)}")
        try:
            loop.call_soon_threadsafe(over, value, error)
        except RuntimeError:
            pass  # the loop is closed, and its limits no longer exist
        return value, error

    try:
        value, error = await loop.run_in_executor(_WORKERS, work)
    except BaseException:
        # `over` runs before the result arrives here, so only a cancelled caller finds the function still running.
        if turn.acquire(blocking=False):
            over(None, None)
        elif not ended:
            left = True
            pool.late[name] += 1
            for each in limits:
                each.abandon()
            step.remains = outcome
        raise
    try:
        if error is not None:
            raise error
        return value
    finally:
        del error  # its traceback has this frame: a cycle
