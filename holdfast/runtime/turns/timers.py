"""The timers that a handler's own code has running: `asyncio.timeout`, `asyncio.wait_for`, `asyncio.wait`, `asyncio.sleep`, anyio's scopes.

Code with a running timer waits for more than the session's answer. The frames of the task that made the timer hold it, so it is searched
there: a suspended coroutine refers to all that its frame holds, including the exits of its `async with` blocks (`gc.get_referents`, which
works for every container type of CPython).
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import math
from collections import deque
from collections.abc import Iterable, Iterator
from types import CellType, MethodType
from typing import Any

import anyio

_COMPLETED: Any = getattr(asyncio.tasks, "_AsCompletedIterator", ())
"""What `asyncio.as_completed` returns: it has the timer from Python 3.13 on. A generator before."""

_MOST = 1_000
"""Most frames of one task that are searched."""


def running_until(tasks: Iterable[asyncio.Task[Any]], now: float) -> float:
    """Loop time at which the last timer of these tasks fires, among those that fire after `now`; -inf where there is none."""
    times = (_at(timer) for task in tasks if not task.done() for timer in _timers(task))
    return max((at for at in times if now <= at < math.inf), default=-math.inf)


def advance(tasks: Iterable[asyncio.Task[Any]], seconds: float, earliest: float) -> None:
    """Let the timeouts of these tasks pass so much earlier, but not before the loop's time `earliest`.

    One that is due and has not passed yet, since the loop was busy, waits until then, too. Only scopes can be moved (`asyncio.timeout`,
    those of anyio, and `asyncio.wait_for` from Python 3.12 on): handles of the loop cannot.
    """
    timers = {id(timer): timer for task in tasks if not task.done() for timer in _timers(task)}
    for timer in timers.values():
        at = _at(timer)
        if at == math.inf:
            continue
        if isinstance(timer, anyio.CancelScope) and not timer.cancel_called:
            timer.deadline = max(at - seconds, earliest)
        elif isinstance(timer, asyncio.Timeout) and not timer.expired():
            timer.reschedule(max(at - seconds, earliest))


def _at(timer: Any) -> float:
    """Loop time at which it fires; infinity where it does not."""
    if isinstance(timer, anyio.CancelScope):
        return timer.deadline
    at: float | None = None if _is_handle(timer) and timer.cancelled() else timer.when()
    return math.inf if at is None else at


def _timers(task: asyncio.Task[Any]) -> Iterator[Any]:
    """The timers in the task's frames."""
    frames: list[Any] = [task.get_coro()]
    seen: set[int] = set()
    while frames and len(seen) < _MOST:
        frame = frames.pop()
        if id(frame) in seen:
            continue
        seen.add(id(frame))
        awaited = getattr(frame, "cr_await", None) or getattr(frame, "gi_yieldfrom", None) or getattr(frame, "ag_await", None)
        if awaited is not None:
            frames.append(awaited)
        for held in gc.get_referents(frame):
            if isinstance(held, MethodType):  # the exit of a `with` block, on the frame's stack
                yield from _of_a_context(held.__self__, frames)
            elif _is_code(held):
                frames.append(held)
            elif _is_handle(held):
                yield held
            elif isinstance(held, _COMPLETED):
                yield from _of_a_context(held, frames)


def _is_code(held: object) -> bool:
    """Whether the search goes into it, too: a suspended coroutine or generator, or a variable shared with an inner function."""
    return inspect.isgenerator(held) or inspect.isasyncgen(held) or isinstance(held, CellType)


def _is_handle(held: object) -> bool:
    """Whether it is the handle that `call_later` of any loop returns: asyncio's documentation has its methods."""
    return type(held).__name__ == "TimerHandle"


def _of_a_context(context: object, frames: list[Any]) -> Iterator[Any]:
    """The timers of a context manager: itself, its attributes, and those that it has entered. Its generators are added to `frames`."""
    if isinstance(context, asyncio.Timeout | anyio.CancelScope):
        yield context
        return
    parts: list[Any] = gc.get_referents(context)
    for part in [*parts, *(value for each in parts if type(each) is dict for value in each.values())]:
        if _is_code(part):
            frames.append(part)
        elif isinstance(part, deque):  # an exit stack's
            frames.extend(part)
        elif isinstance(part, asyncio.Timeout | anyio.CancelScope) or _is_handle(part):
            yield part
