"""Time as an argument: code gets a clock and never reads the system's own.

`monotonic` measures durations inside one process; `time` is the wall clock, on which stored times are. Both are float seconds.
"""

from __future__ import annotations

import time as _time
from typing import Protocol


class Clock(Protocol):
    """The source of time for every part of holdfast."""

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


LOOK_S = 0.001
"""How often the wall clock is read, in seconds; between two looks, time passes by the monotonic clock, which costs half as much."""


class SteadyClock:
    """A clock whose `time` never goes back while the process lives: the one that stored times are taken from.

    A wall clock that is set back is not followed: `time` counts on by the monotonic clock until the wall clock has caught up, or the
    process ends. One that is set ahead is followed, since the machine may have slept meanwhile.

    Args:
        clock: the clock of the machine.
    """

    __slots__ = ("_ahead", "_look_at", "monotonic", "wall")

    def __init__(self, clock: Clock) -> None:
        self.monotonic = clock.monotonic
        self.wall = clock.time  # what the wall clock says now, for the eyes of people and of handlers
        self._ahead = clock.time() - clock.monotonic()
        self._look_at = 0.0

    def time(self) -> float:
        """Seconds since the epoch (UTC), never less than before."""
        now = self.monotonic()
        if now >= self._look_at:
            wall, now = self.wall(), self.monotonic()  # in this order: a pause between the two does not set the clock ahead
            self._look_at, ahead = now + LOOK_S, wall - now
            if ahead > self._ahead:
                self._ahead = ahead
        return now + self._ahead
