"""The waits of a turn's steps, and from when on the turn may park for them.

A short wait is held in memory. The turn parks once every wait has been held for as long as it asked for: then its memory is free, and
one row stays.
"""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec

from holdfast.clock import Clock, Timer
from holdfast.stores.records import Outcome, Park


class _Wait:
    __slots__ = ("future", "hold_until", "park")

    def __init__(self, future: asyncio.Future[Outcome | None], park: Park, hold_until: float) -> None:
        self.future, self.park, self.hold_until = future, park, hold_until


class Waits:
    """The waits of one run of a turn.

    Attributes:
        held: the waits, by key.
        asking: the sessions that are being asked, from before the message is written: two that ask each other at once must see it.
    """

    __slots__ = ("_clock", "_loop", "asking", "held")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self._loop, self._clock = loop, clock
        self.held: dict[object, _Wait] = {}
        self.asking: list[str] = []

    def over(self, park: Park) -> bool:
        """Whether its time has come; up to a millisecond early, as alarms ring: otherwise it would park, and the alarm would ring again."""
        return park.until is not None and park.until <= self._clock.time() + 0.001

    def begin(self, key: object, park: Park, hold_s: float) -> asyncio.Future[Outcome | None]:
        """Wait for `answer(key)`, or until `park.until`, a store time (then None). Always call `end` after it."""
        future: asyncio.Future[Outcome | None] = self._loop.create_future()
        if park.until is not None:
            timer = Timer(self._loop, self._clock, park.until, partial(_over, future))
            future.add_done_callback(lambda _: timer.cancel())
        self.held[key] = _Wait(future, park, self._loop.time() + hold_s)
        return future

    def end(self, key: object) -> None:
        """The code stops waiting for it."""
        self.held.pop(key).future.cancel()

    def answer(self, key: object, outcome: Outcome) -> None:
        """Give the wait under `key` its answer."""
        wait = self.held.get(key)
        if wait is not None and not wait.future.done():
            wait.future.set_result(outcome)

    def parks(self) -> tuple[Park, ...]:
        """The parks of all waits."""
        return tuple(wait.park for wait in self.held.values())

    def hold_until(self) -> float:
        """Loop time until which a wait must be held in memory."""
        return max(wait.hold_until for wait in self.held.values())

    def answered(self) -> bool:
        """Whether a wait is over, and its code is about to run."""
        return any(wait.future.done() for wait in self.held.values())

    def joined(self) -> Park:
        """One park for all waits: one for budget, which a raise ends, comes first, then others that need a person; it resumes at the
        earliest time of any."""
        parks = self.parks()
        first = min(parks, key=_urgency)
        times = [park.until for park in parks if park.until is not None]
        targets = tuple(target for park in parks for target in park.waits_on)
        keys = tuple(key for key in self.held if isinstance(key, bytes))
        return msgspec.structs.replace(first, until=min(times) if times else None, waits_on=targets, keys=keys)

    @property
    def for_a_person(self) -> bool:
        """Whether a wait is for a person."""
        return any(park.until is None and not park.waits_on for park in self.parks())


def _over(future: asyncio.Future[Outcome | None]) -> None:
    if not future.done():
        future.set_result(None)


def _urgency(park: Park) -> int:
    if park.until is not None:
        return 3
    return 2 if park.waits_on else 1 if park.reason != "budget" else 0
