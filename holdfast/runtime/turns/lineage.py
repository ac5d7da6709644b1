"""Tasks that a handler makes itself, told apart: each counts what it names (gathers, uuids, spawns) for itself.

Which of two tasks comes first is chance, and another one after a crash. The order in which they are made is the code's own. So a loop with
a Runtime on it has a task factory that gives each task of a turn a branch of its own, numbered as it is made: the same for asyncio.gather,
TaskGroup, create_task and what frameworks use. A factory that was there before makes the tasks; what passes a `context=` is left alone.

`asyncio.as_completed` makes its tasks in the order of a set: steps in them are found by what they ask for, names that are counted are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

from holdfast.runtime.turns import branches

Factory = Callable[..., Any]


class TaskFactory:
    """The factory of one loop, over the one that was there before."""

    def __init__(self, before: Factory | None) -> None:
        self.before, self.users = before, 0

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **given: Any) -> Any:
        make: Factory = asyncio.Task if self.before is None else self.before
        first = {"loop": loop} if self.before is None else {}
        arguments = (coro,) if self.before is None else (loop, coro)
        if given.get("context") is None:
            made_in = branches.of_a_new_task()
            if made_in is not None:
                context = copy_context()
                context.run(branches.enter, made_in)
                task = context.run(make, *arguments, **first, **given)
                made_in.run.task_made(task, made_in)
                return task
        return make(*arguments, **first, **given)


def install(loop: asyncio.AbstractEventLoop) -> None:
    """Let tasks that are made on `loop` be told apart, until each who asked for it has called `remove`."""
    factory: Any = loop.get_task_factory()
    if not isinstance(factory, TaskFactory):
        factory = TaskFactory(factory)
        loop.set_task_factory(factory)
    factory.users += 1


def remove(loop: asyncio.AbstractEventLoop) -> None:
    """No longer needed; where another factory was put over this one meanwhile, it stays below that."""
    factory: Any = loop.get_task_factory()
    if isinstance(factory, TaskFactory):
        factory.users -= 1
        if factory.users == 0:
            loop.set_task_factory(factory.before)
