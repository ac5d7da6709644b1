"""Task factories that stand on top of each other: a loop has one task factory, and several parts of a program want to see its tasks."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

Factory = Callable[..., Any]


class StackedFactory:
    """A task factory on top of the one that the loop had before, which still makes the tasks. Each subclass stands once on a loop."""

    def __init__(self, before: Factory | None) -> None:
        self.before, self.users = before, 0
        self.make: Factory = _maker(before)

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **given: Any) -> Any:
        """As asyncio asks for: a task for `coro`."""
        raise NotImplementedError

    @classmethod
    def install(cls, loop: asyncio.AbstractEventLoop) -> None:
        """Use it on `loop` until each caller of `install` has called `remove`."""
        found = cls._of(loop)
        if found is None:
            top: Any = loop.get_task_factory()
            found = cls(top)
            made: Any = found
            loop.set_task_factory(made)
        found.users += 1

    @classmethod
    def remove(cls, loop: asyncio.AbstractEventLoop) -> None:
        """Undo one `install`. One that is not used and has another on top stays below it, until that one is removed."""
        found = cls._of(loop)
        if found is not None:
            found.users -= 1
        top: Any = loop.get_task_factory()
        while isinstance(top, StackedFactory) and top.users == 0:
            top = top.before
            loop.set_task_factory(top)

    @classmethod
    def _of(cls, loop: asyncio.AbstractEventLoop) -> StackedFactory | None:
        # It need not be the top one: others may have been set since.
        factory: Any = loop.get_task_factory()
        while factory is not None and not isinstance(factory, cls):
            factory = getattr(factory, "before", None)
        return factory


def below(loop: asyncio.AbstractEventLoop) -> Factory | None:
    """The task factory of a loop without the stacked ones; None where it makes plain tasks."""
    factory: Any = loop.get_task_factory()
    while isinstance(factory, StackedFactory):
        factory = factory.before
    return factory  # type: ignore[no-any-return]


_EAGER = getattr(getattr(asyncio, "eager_task_factory", None), "__code__", None)
"""The code of asyncio's eager task factories, from Python 3.12 on; None before."""


def _maker(before: Factory | None) -> Factory:
    """What makes the tasks of a stacked factory on top of `before`.

    An eager factory of asyncio does not start them early: anyio's scopes need a task that has not begun when it is made. anyio knows such
    a factory, and starts its own tasks as usual, but not where another one stands on top.
    """
    if before is None:
        return _plain
    if _EAGER is None or getattr(before, "__code__", None) is not _EAGER:
        return before
    constructor = inspect.getclosurevars(before).nonlocals["custom_task_constructor"]
    return lambda loop, coro, **given: constructor(coro, loop=loop, **given)


def _plain(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **given: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **given)
