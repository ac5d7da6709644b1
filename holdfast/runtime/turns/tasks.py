"""The one place that makes tasks for turns and their branches.

They are plain asyncio tasks, since starting one through a task group costs five times as much. In exchange this module keeps a strong
reference to each. The caller of `start` ends the task or waits for it, unless it ends by itself, such as the thread of a left attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from holdfast.supervisors.factory import below

T = TypeVar("T")


_running: set[asyncio.Task[Any]] = set()


def start(work: Coroutine[Any, Any, Any], name: str, context: Context | None = None) -> asyncio.Task[Any]:
    """Run `work` as a task, in a fresh context unless one is given: it does not inherit the context of the calling code."""
    loop, context = asyncio.get_running_loop(), Context() if context is None else context
    if below(loop) is None:  # no task that the stacked factories note: neither a handler's code makes it, nor a child of a supervisor
        task = asyncio.Task(work, loop=loop, name=name, context=context)
    else:
        task = loop.create_task(work, name=name, context=context)
    _running.add(task)
    task.add_done_callback(_running.discard)
    return task


async def contained(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await `work()`, with `sys.exit()` as an error like any other: let through, it would end the loop, and every session with it."""
    try:
        return await work()
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"{type(error).__name__} was raised: {error}") from error


async def end(task: asyncio.Task[Any], deadline_s: float) -> bool:
    """Cancel `task` and wait for its end, at most `deadline_s`; False if it swallowed the cancellation and still runs.

    If cancelled, the task has still been cancelled.
    """
    if not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=deadline_s)
    if not task.done():
        return False
    if not task.cancelled():
        task.exception()  # retrieved: its callers read it from the task
    return True
