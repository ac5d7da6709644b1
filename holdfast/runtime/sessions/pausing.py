"""A wait that can be cut short: between a crash and the restart that follows it."""

from __future__ import annotations

import asyncio

from holdfast.clock import Clock, Timer


class Pause:
    """At most one wait at a time; `end` cuts it short, and has no effect without a wait."""

    __slots__ = ("_clock", "_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop, self._clock = loop, clock
        self._future: asyncio.Future[None] | None = None

    async def wait(self, seconds: float) -> None:
        """Wait for the time, or until `end`."""
        self._future = self._loop.create_future()
        timer = Timer(self._loop, self._clock, self._clock.time() + seconds, self.end)
        try:
            await self._future
        finally:
            timer.cancel()
            self._future = None

    def end(self) -> None:
        """End the wait now."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)
