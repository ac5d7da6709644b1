"""The task factory of a loop with a Runtime: it gives each task that a handler makes a line of its own, with its own counters for names.

Which of two tasks runs first is chance, and may differ after a crash. The order in which the code makes them does not change. So the
factory numbers the tasks of a turn as they are made, by asyncio.gather, TaskGroup, create_task or a framework. An earlier factory of the
loop still makes the tasks; a task with a `context=` of its own gets no line.

`asyncio.as_completed` makes its tasks in the order of a set: steps in them are found by content, but counted names (gathers, uuids, spawns)
may differ after a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import copy_context
from typing import Any

from holdfast.runtime.turns import branches
from holdfast.supervisors.factory import StackedFactory


class TaskFactory(StackedFactory):
    """Numbers the tasks that handlers make."""

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **given: Any) -> Any:
        """A task for `coro`, with a line if a handler makes it."""
        line = branches.of_a_new_task() if given.get("context") is None else None
        if line is None:
            return self.make(loop, coro, **given)
        context = copy_context()
        context.run(branches.enter, line)
        task = context.run(self.make, loop, coro, **given)
        line.run.task_made(task, line)
        return task
