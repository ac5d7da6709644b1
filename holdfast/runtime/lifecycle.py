"""A context manager in a task of its own: any task may open it, and any task may close it.

anyio's cancel scopes, and so its task groups, must be left in the task that entered them. Fixtures, exit stacks, the cells of a notebook
and the lifespans of web frameworks do not promise that. So one task enters and leaves; the other tasks signal it, and wait for it.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio

from holdfast.errors import ConfigError, RuntimeStopped
from holdfast.events import log
from holdfast.runtime.turns import tasks


class OwnTask:
    """Keeps `inside` entered, in a task of its own, from `open` to `close`.

    Args:
        inside: the context manager to enter. Where it fails while it is open, it must cancel the task that entered it, as a task group
            does, and then raise the cause.
        name: the name of the task, also in the log.
    """

    def __init__(self, inside: AbstractAsyncContextManager[Any], name: str) -> None:
        self._inside, self._name = inside, name
        self._opened, self._closing = anyio.Event(), anyio.Event()
        self._task: asyncio.Task[None] | None = None
        self._holder: asyncio.Task[Any] | None = None
        self._failing = self._cancelled_holder = False

    @property
    def ended(self) -> bool:
        """Whether it was left, or could not be entered."""
        return self._task is not None and self._task.done()

    @property
    def failure(self) -> BaseException | None:
        """The error with which it was left, once it has ended; None for none, and where only the end of the loop cancelled the task."""
        task = self._task
        return None if task is None or not task.done() or task.cancelled() else task.exception()

    async def open(self, *, hold: bool) -> None:
        """Enter it; return when it is entered.

        Args:
            hold: where it fails before `close`, cancel the task that calls this; `close` takes that cancellation back.

        Raises:
            Exception: the error of entering it.
        If cancelled, it has been left again before the cancellation is raised.
        """
        task = self._task = tasks.start(self._run(), self._name)
        task.add_done_callback(lambda _: self._opened.set())
        try:
            await self._opened.wait()
        except BaseException:
            task.cancel()
            await _end_of(task)
            raise
        if self._failing or task.done():
            await _end_of(task)
            task.result()
        self._holder = asyncio.current_task() if hold else None

    async def close(self) -> BaseException | None:
        """Leave it, and return when it is left: the error with which it was left, if any. No effect if it has ended.

        Raises:
            RuntimeStopped: it was opened on another event loop, and has not ended.
        If cancelled, it is still left, and the cancellation is raised after that.
        """
        assert self._task is not None
        if not self._task.done():
            _here(self._task)  # before anything changes: from another loop it stays open
        self._closing.set()
        try:
            await _end_of(self._task)
        finally:
            holder, self._holder = self._holder, None
            if self._cancelled_holder and holder is not None and holder is asyncio.current_task():
                holder.uncancel()
        return self.failure

    async def wait(self) -> BaseException | None:
        """Return when it is left: the error with which it was left, if any. If cancelled, only the wait ends."""
        assert self._task is not None
        if not self._task.done():
            await asyncio.wait((_here(self._task),))
        return self.failure

    async def _run(self) -> None:
        try:
            async with self._inside:
                self._opened.set()
                try:
                    await self._closing.wait()
                except asyncio.CancelledError:
                    self._fails()
                    raise
        except Exception as error:
            if self._failing and not self._cancelled_holder and not self._closing.is_set():
                log.critical("%s has ended: %s", self._name, sole(error))
            raise

    def _fails(self) -> None:
        """It failed, or the loop ends: cancel its holder. During `close` the holder waits for its end anyway."""
        self._failing = True
        if self._holder is not None and not self._closing.is_set():
            self._cancelled_holder = self._holder.cancel(f"{self._name} has ended")


def sole(error: BaseException) -> BaseException:
    """The only error of a group; any other error unchanged."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def check_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Raise ConfigError where the calling code runs on another event loop than the Runtime, whose `loop` is given."""
    if asyncio.get_running_loop() is not loop:
        raise ConfigError(
            "this Runtime is open on another event loop: call it there, from another thread with "
            "asyncio.run_coroutine_threadsafe(handle.ask(...), loop)"
        )


async def _end_of(task: asyncio.Task[Any]) -> None:
    """Wait until `task` has ended, even if cancelled meanwhile; that cancellation is raised then."""
    interrupted: BaseException | None = None
    # Shielded: otherwise the store would still be open, and its lock held. Each action of the closing task has a deadline, so this has one.
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait((_here(task),))
            except asyncio.CancelledError as error:
                interrupted = error  # a native cancellation, against which no shield works
    if not task.cancelled():
        task.exception()  # retrieved: its callers read it from the task
    if interrupted is not None:
        try:
            raise interrupted
        finally:
            del interrupted


def _here(task: asyncio.Task[Any]) -> asyncio.Task[Any]:
    """`task`, if it belongs to the running loop: a wait for any other would not end."""
    if task.get_loop() is not asyncio.get_running_loop():
        raise RuntimeStopped("this Runtime was opened on another event loop, and is open there: stop it on that loop")
    return task
