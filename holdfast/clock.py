"""Time as an argument: code gets a clock and never reads the system's own.

`monotonic` measures durations inside one process; `time` is the wall clock, on which stored times are. Both are float seconds.
"""

from __future__ import annotations

import asyncio
import sys
import time as _time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """The source of time for every part of holdfast.

    A clock may have another method, `elapsed`: as `monotonic`, but the time for which the machine was suspended counts.
    """

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes back."""
        ...

    def time(self) -> float:
        """Seconds since the epoch (UTC)."""
        ...


class SystemClock:
    """The clock of this machine."""

    monotonic = staticmethod(_time.monotonic)
    time = staticmethod(_time.time)

    @staticmethod
    def elapsed() -> float:
        """As `monotonic`, but the time for which the machine was suspended counts."""
        return _elapsed()


def _with_suspensions() -> Callable[[], float]:
    # Linux stops CLOCK_MONOTONIC while it is suspended; on macOS it is time.monotonic that stops.
    id = getattr(_time, "CLOCK_BOOTTIME", None)
    if id is None and sys.platform == "darwin":
        id = _time.CLOCK_MONOTONIC
    if id is None:
        return _time.monotonic
    try:
        _time.clock_gettime(id)
    except OSError:  # a sandbox does not let it through
        return _time.monotonic
    return lambda: _time.clock_gettime(id)


_elapsed = _with_suspensions()


LOOK_S = 0.001
"""How often a clock looks whether the machine was suspended, in seconds; between two looks it reads one clock, at half the cost."""

_SUSPENDED_S = 0.5
"""The least difference of the two clocks that counts as a suspension, in seconds."""


class SteadyClock:
    """A clock whose `time` passes as fast as time does while the process lives: the one that stored times are taken from.

    It starts with the wall clock, and does not follow it when it is set, back or ahead: no wait becomes longer or shorter by that. The time
    for which the machine was suspended has passed, if the clock tells it (`elapsed`).

    Args:
        clock: the clock of the machine.
    """

    __slots__ = ("_ahead", "_elapsed", "_look_at", "_suspended", "monotonic", "wall")

    def __init__(self, clock: Clock) -> None:
        self.monotonic = clock.monotonic
        self.wall = clock.time  # what the wall clock says now, for the eyes of people and of handlers
        self._elapsed: Callable[[], float] = getattr(clock, "elapsed", clock.monotonic)
        self._ahead = clock.time() - clock.monotonic()
        self._suspended = self._elapsed() - clock.monotonic()
        self._look_at = 0.0

    def time(self) -> float:
        """Seconds since the epoch (UTC), never less than before."""
        now = self.monotonic()
        if now >= self._look_at:
            elapsed, now = self._elapsed(), self.monotonic()  # in this order: a pause of the thread in between must not count
            self._look_at = now + LOOK_S
            suspended_s = elapsed - now - self._suspended
            if suspended_s > _SUSPENDED_S:
                self._suspended += suspended_s
                self._ahead += suspended_s
        return now + self._ahead


TIMER_S = 60.0
"""The longest time for which a timer of a loop is armed, in seconds: it stops while the machine is suspended, so the clock is read then."""


class Timer:
    """Calls `ring` at a time of a steady clock; up to a minute late where the machine was suspended."""

    __slots__ = ("_clock", "_handle", "_loop", "_ring", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, until: float, ring: Callable[[], object]) -> None:
        self._loop, self._clock, self._until, self._ring = loop, clock, until, ring
        self._handle = self._arm(max(until - clock.time(), 0.0))

    def cancel(self) -> None:
        """Do not ring."""
        self._handle.cancel()

    def _arm(self, left_s: float) -> asyncio.TimerHandle:
        return self._loop.call_later(min(left_s, TIMER_S), self._look, left_s <= TIMER_S)

    def _look(self, last: bool) -> None:
        left_s = 0.0 if last else self._until - self._clock.time()
        if left_s <= 0.001:
            self._ring()
        else:
            self._handle = self._arm(left_s)
