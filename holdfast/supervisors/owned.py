"""The asyncio tasks that a child started end with it, whatever code made them: create_task, gather, a task group, a framework.

OTP has links for that. In asyncio a task that is not awaited outlives the code that made it, so a restarted child would run next to the
tasks of its life before. Each life has an `Owned` in its context, which its tasks and theirs inherit; the loop's task factory notes each
task there. An earlier factory of the loop still makes the tasks. A task with a `context=` of its own has the owner of that context: with
a fresh `contextvars.Context()` it belongs to no child.

`sys.exit()` in such a task is an error of that task, and so of the child that awaits it.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Coroutine, Generator
from contextvars import Context, ContextVar
from typing import Any

import anyio

from holdfast.supervisors.factory import StackedFactory

_LAST_TURNS = 10


class Owned:
    """The tasks of one life. They are only noted, not kept alive."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: weakref.WeakSet[asyncio.Task[Any]] | None = None

    def add(self, task: asyncio.Task[Any]) -> None:
        """Note a task."""
        if self._tasks is None:
            self._tasks = weakref.WeakSet()
        self._tasks.add(task)

    def running(self) -> list[asyncio.Task[Any]]:
        """Those that have not ended."""
        return [] if self._tasks is None else [task for task in self._tasks if not task.done()]

    async def end(self, scope: anyio.CancelScope) -> tuple[str, ...]:
        """Cancel them, and those that they start meanwhile, and wait for their end. Returns the names of those that still run then.

        Args:
            scope: has the deadline; cancel it to stop waiting.
        """
        with scope:
            asked: set[asyncio.Task[Any]] = set()
            while left := self.running():
                self._cancel(left, asked)
                await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        # Also without time to wait, a task that was cancelled gets a few turns of the loop to end.
        with anyio.CancelScope(shield=True):
            for _ in range(_LAST_TURNS):
                if not (left := self.running()):
                    return ()
                self._cancel(left, asked)
                await asyncio.sleep(0)
        return tuple(sorted(task.get_name() for task in self.running()))

    def cancel(self) -> None:
        """Cancel them, and wait for none."""
        for task in self.running():
            task.cancel()

    def _cancel(self, tasks: list[asyncio.Task[Any]], asked: set[asyncio.Task[Any]]) -> None:
        # Once each: a task that cleans up after its cancellation must not be cancelled in the middle of that.
        for task in tasks:
            if task not in asked:
                asked.add(task)
                task.cancel()


_owner: ContextVar[Owned | None] = ContextVar("holdfast_supervisors_owner", default=None)


def own() -> Owned:
    """From here on, the tasks that the running code makes belong to the result."""
    owned = Owned()
    _owner.set(owned)
    return owned


class _Contained(Coroutine[Any, Any, Any]):
    """A coroutine in which SystemExit and KeyboardInterrupt are errors like any other: asyncio lets them out of a task and the loop.

    It is no wrapping coroutine, which would leave `inner` without a first step where its task is cancelled before that.
    """

    __slots__ = ("_inner",)

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self._inner = inner

    def send(self, value: Any) -> Any:
        try:
            return self._inner.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise _as_error(error) from error

    def throw(self, *error: Any) -> Any:
        try:
            return self._inner.throw(*error)
        except (SystemExit, KeyboardInterrupt) as raised:
            raise _as_error(raised) from raised

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def __getattr__(self, name: str) -> Any:
        # Names and frames, for the names and stacks of tasks.
        return getattr(self._inner, name)


def _as_error(error: BaseException) -> RuntimeError:
    return RuntimeError(f"a task raised {type(error).__name__}: {error}")


class OwnerFactory(StackedFactory):
    """Notes each task of a loop with the life that it belongs to."""

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **given: Any) -> Any:
        """A task for `coro`."""
        context: Context | None = given.get("context")
        owner = _owner.get() if context is None else context.get(_owner)
        if owner is None:
            return self.make(loop, coro, **given)
        task = self.make(loop, _Contained(coro), **given)
        owner.add(task)
        return task
