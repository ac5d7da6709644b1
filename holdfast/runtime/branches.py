"""The numbered branches of a turn: what runs beside the handler, under a name that is the same on every run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar, copy_context
from typing import Any

from holdfast.runtime import tasks

_branch: ContextVar[str] = ContextVar("holdfast_branch", default="")


def branch_of() -> str:
    """The branch that the calling code runs in; "" for the handler's own."""
    return _branch.get()


def follows(later: str, branch: str) -> bool:
    """Whether what ran in `later` can be a consequence of what ran in `branch`: siblings of one gather know nothing of each other."""
    for ours, theirs in zip(later.split("/"), branch.split("/"), strict=False):
        if ours != theirs:
            return not ("." in ours and ours.partition(".")[0] == theirs.partition(".")[0])
    return True


class Branches:
    """The branches of one run of a turn; they end with it at the latest."""

    __slots__ = ("_numbers", "_title", "running")

    def __init__(self, title: str) -> None:
        self._title = title
        self._numbers: dict[str, int] = {}
        self.running: list[asyncio.Task[Any]] = []

    def number(self, what: str) -> str:
        """The next name of its kind in the calling branch."""
        name = f"{_branch.get()}{what}"
        nth = self._numbers.get(name, 0)
        self._numbers[name] = nth + 1
        return f"{name}{nth}"

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` as the branch `name`."""
        context = copy_context()
        context.run(_branch.set, f"{name}/")
        task = tasks.start(tasks.contained(lambda: work), f"branch {self._title}/{name}", context)
        self.running.append(task)
        task.add_done_callback(self._left)
        task.add_done_callback(lambda _: work.close())  # one that was cancelled before it began was never awaited
        return task

    def _left(self, task: asyncio.Task[Any]) -> None:
        self.running.remove(task)
        if not task.cancelled():
            task.exception()  # retrieved: where the turn goes away, nobody is left to look at it
