"""The task factory of a loop with a Runtime: it gives each task that a handler makes a line of its own, with its own counters for names.

Which of two tasks runs first is chance, and may differ after a crash. The order in which the code makes them does not change. So the
factory numbers the tasks of a turn as they are made, by asyncio.gather, TaskGroup, create_task or a framework. An earlier factory of the
loop still makes the tasks; a task with a `context=` of its own gets no line.

`asyncio.as_completed` makes its tasks in the order of a set: steps in them are found by content, but counted names (gathers, uuids, spawns)
may differ after a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from holdfast.runtime.turns import branches

Factory = Callable[..., Any]


class TaskFactory:
    """The factory of one loop, on top of the factory that the loop had before."""

    def __init__(self, before: Factory | None) -> None:
        self.before, self.users = before, 0
        self._make: Factory = before or _plain

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **given: Any) -> Any:
        line = branches.of_a_new_task() if given.get("context") is None else None
        if line is None:
            return self._make(loop, coro, **given)
        context = copy_context()
        context.run(branches.enter, line)
        task = context.run(self._make, loop, coro, **given)
        line.run.task_made(task, line)
        return task


def _plain(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **given: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **given)


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Number the tasks that handlers make on `loop`, until each caller of `install` has called `remove`."""
    factory: Any = loop.get_task_factory()
    if not isinstance(factory, TaskFactory):
        factory = TaskFactory(factory)
        loop.set_task_factory(factory)
    factory.users += 1


def remove(loop: asyncio.AbstractEventLoop) -> None:
    """Undo one `install`; where another factory was set on top of this one meanwhile, this one stays below it."""
    factory: Any = loop.get_task_factory()
    if isinstance(factory, TaskFactory):
        factory.users -= 1
        if factory.users == 0:
            loop.set_task_factory(factory.before)
