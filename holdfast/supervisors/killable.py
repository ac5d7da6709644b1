"""An await that another task can end by force: the `kill` of OTP, for coroutines.

asyncio has no kill: a task that swallows its cancellation, or shields itself from it, keeps its task group open and its code
running for ever. A `Killable` is between the task and the child's coroutine and passes every wait through. `kill` unwinds the coroutine
without waiting for anything that it still awaits. So the task ends, and no line of the child runs again (except its `finally` blocks up to
their next await). A thread that it waits for keeps running; only a process can be killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

_UNWIND_ATTEMPTS = 100


class _Killed(BaseException):
    """Unwinds a coroutine. It never leaves this module.

    It is no Exception and no CancelledError, since a stuck child swallows these. It is no GeneratorExit either: that leaves a coroutine
    half closed if it awaits while it unwinds.
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
        """Let the await return within the next turns of the loop, whatever the coroutine catches."""
        self._killed = True
        if self._task is not None:
            # Wakes the task even inside a shield; the request is withdrawn as soon as the task is awake.
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
                    # Any error: the top of the loop throws it into the coroutine, unless the coroutine is killed.
                    thrown = error
                if self._killed:
                    thrown = None
                    self._uncancel()
                    _unwind(coroutine)
                    return
        finally:
            self._task = None
            # An error and a frame that refer to each other are a cycle, which only the garbage collector frees.
            thrown = None

    def _wait(self, waits_for: Any) -> Generator[Any, None, None]:
        if waits_for is None or type(waits_for) is asyncio.Future:
            yield waits_for
        else:
            yield from self._wait_for_task(waits_for)

    def _wait_for_task(self, other: asyncio.Future[Any]) -> Generator[Any, None, None]:
        # To cancel a task that awaits another one (a gather) only forwards the request: if the other one swallows it, this task does not
        # wake, and no kill arrives. So this waits for a future of its own and forwards cancellations itself.
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
    """End a coroutine. Each attempt ends at one more await in a `finally`; a coroutine that catches everything is discarded."""
    for _ in range(_UNWIND_ATTEMPTS):
        try:
            coroutine.throw(_Killed())
        except BaseException:
            # It has ended: by the signal, by an error of its own, or by returning. The last error of a killed child is of no interest.
            return
    try:
        # Now and not when it is collected: outside a task its awaits would raise at once, and its loop would catch that without end.
        coroutine.close()
    except BaseException:
        # "coroutine ignored GeneratorExit" again.
        return
