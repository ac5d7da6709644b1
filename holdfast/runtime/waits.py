"""What the steps of a turn wait for, and from when on the turn may be parked for it.

A short wait is held in memory; once every wait has been held as long as it asked for, and no other step is in flight, the turn has
nothing to do and is parked: its memory goes, one row stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from holdfast.clock import Clock
from holdfast.stores.records import Outcome, Park


class _Wait:
    __slots__ = ("future", "hold_until", "park")

    def __init__(self, future: asyncio.Future[Outcome | None], park: Park, hold_until: float) -> None:
        self.future, self.park, self.hold_until = future, park, hold_until


class Waits:
    """The waits of one run of a turn. `ready` is called when all that is left of the turn is waits that were held long enough.

    Attributes:
        held: what is waited for, by key.
        asking: the sessions that are being asked, from before the question is written: two that ask each other at once must see it.
    """

    __slots__ = ("_clock", "_loop", "_ready", "_timer", "asking", "held")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, ready: Callable[[Park], None]) -> None:
        self._loop, self._clock, self._ready = loop, clock, ready
        self.held: dict[object, _Wait] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.asking: list[str] = []

    async def wait(self, key: object, park: Park, hold_s: float, resting: Callable[[], None]) -> Outcome | None:
        """Wait for `answer(key)`, or until `park.until`, a store time (then None). `resting` is called once the wait is known."""
        if park.until is not None and park.until <= self._clock.time() + 0.001:
            return None  # over already (an alarm rings up to a millisecond early): to park for it would only ring again
        future: asyncio.Future[Outcome | None] = self._loop.create_future()
        timer = None
        if park.until is not None:
            timer = self._loop.call_later(max(park.until - self._clock.time(), 0.0), _pass, future)
        self.held[key] = _Wait(future, park, self._loop.time() + hold_s)
        resting()
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            self.held.pop(key, None)

    def answer(self, key: object, outcome: Outcome) -> None:
        """Whoever waits under `key` goes on."""
        wait = self.held.get(key)
        if wait is not None and not wait.future.done():
            wait.future.set_result(outcome)

    def parks(self) -> tuple[Park, ...]:
        """What is waited for."""
        return tuple(wait.park for wait in self.held.values())

    def review(self, idle: Callable[[], bool]) -> None:
        """Nothing else is in flight: say so through `ready`, now or when the last wait was held long enough and `idle` still holds."""
        self.close()
        if not self.held:
            return
        hold_until = max(wait.hold_until for wait in self.held.values())
        if hold_until > self._loop.time():
            self._timer = self._loop.call_at(hold_until, lambda: self.review(idle) if idle() else None)
            return
        keys = tuple(key for key in self.held if isinstance(key, bytes))
        self._ready(msgspec.structs.replace(_joined(self.parks()), keys=keys))

    def close(self) -> None:
        """Forget a review that is due later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _pass(future: asyncio.Future[Outcome | None]) -> None:
    if not future.done():
        future.set_result(None)


def _joined(parks: tuple[Park, ...]) -> Park:
    """One reason out of all: what needs a person first, resumed at the earliest time of any."""
    first = next((park for park in parks if park.until is None), parks[0])
    times = [park.until for park in parks if park.until is not None]
    targets = tuple(target for park in parks for target in park.waits_on)
    return msgspec.structs.replace(first, until=min(times) if times else None, waits_on=targets)
