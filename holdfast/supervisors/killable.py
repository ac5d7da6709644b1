"""An await that can be ended from outside for good: the `kill` of OTP, for coroutines.

asyncio has no kill: a task that swallows its cancellation, or shields itself from it, keeps its task group open and its code
running for ever. A `Killable` stands between the task and the child's coroutine and passes every wait through. Told to kill, it
unwinds the coroutine without waiting for anything that it still awaits, so that the task ends and no line of the child (but for
its `finally` blocks up to their next await) runs again. A thread that it waits for runs on; only a process can be killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

_UNWIND_ATTEMPTS = 100


class _Killed(BaseException):
    """Unwinds a coroutine. It never leaves this module.

    Neither an Exception nor a CancelledError, for those are what a stuck child swallows; nor GeneratorExit, which
    leaves a coroutine that awaits while it unwinds half closed.
    """


class Killable:
    """Awaits what `start` returns, until `kill`.

    Args:
        start: called, and its result awaited, when this is awaited.
    """

    __slots__ = ("_killed", "_relay", "_start", "_task")

    def __init__(self, start: Callable[[], Awaitable[None]]) -> None:
        self._start = start
        self._killed = False
        self._task: asyncio.Task[Any] | None = None
        self._relay: asyncio.Future[None] | None = None

    def kill(self) -> None:
        """Let the await return within the next turns of the loop, whatever the coroutine does about it."""
        self._killed = True
        if self._task is not None:
            # Wakes the task even inside a shield; the request is taken back as soon as it has.
            self._task.cancel()

    def __await__(self) -> Generator[Any, None, None]:
        self._task = asyncio.current_task()
        coroutine = _drive(self._start)
        thrown: BaseException | None = None
        try:
            while True:
                try:
                    waits_for = coroutine.send(None) if thrown is None else coroutine.throw(thrown)
                except StopIteration:
                    return
                thrown = None
                try:
                    yield from self._wait(waits_for)
                except BaseException as error:
                    # Not ours to judge: it goes to the coroutine at the top of the loop, unless that one is killed.
                    thrown = error
                if self._killed:
                    thrown = None
                    self._uncancel()
                    _unwind(coroutine)
                    return
        finally:
            # An error that knows this frame, and a frame that knows the error, would be garbage that only the collector frees.
            thrown = None

    def _wait(self, waits_for: Any) -> Generator[Any, None, None]:
        if waits_for is None or type(waits_for) is asyncio.Future:
            yield waits_for
        else:
            yield from self._wait_for_task(waits_for)

    def _wait_for_task(self, other: asyncio.Future[Any]) -> Generator[Any, None, None]:
        # Cancelling a task that awaits another one (a gather) only passes the request on: if the other one swallows it, nothing
        # wakes this task and no kill arrives. So this waits for a future of its own and passes cancellations on itself.
        other._asyncio_future_blocking = False
        other.add_done_callback(self._wake)
        while not other.done():
            self._relay = other.get_loop().create_future()
            self._relay._asyncio_future_blocking = True
            try:
                yield self._relay
            except asyncio.CancelledError as request:
                if self._killed or not other.cancel(*request.args):
                    raise

    def _wake(self, _done: asyncio.Future[Any]) -> None:
        if self._relay is not None and not self._relay.done():
            self._relay.set_result(None)

    def _uncancel(self) -> None:
        if self._task is not None:
            self._task.uncancel()


async def _drive(start: Callable[[], Awaitable[None]]) -> None:
    await start()


def _unwind(coroutine: Coroutine[Any, Any, None]) -> None:
    """End a coroutine. Each attempt ends at one more await in a `finally`; what catches everything for ever is thrown away."""
    for _ in range(_UNWIND_ATTEMPTS):
        try:
            coroutine.throw(_Killed())
        except BaseException:
            # It has ended: by the signal, by an error of its own, or by returning. A killed child's last words concern nobody.
            return
    try:
        # Here and not when it is collected: outside a task its awaits would raise at once, and its loop catch that without end.
        coroutine.close()
    except BaseException:
        # "coroutine ignored GeneratorExit", once more.
        return
