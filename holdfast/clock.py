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


class SteadyClock:
    """A clock whose `time` never goes back while the process lives: the one that stored times are taken from.

    A wall clock that is set back is not followed: `time` counts on by the monotonic clock until the wall clock has caught up, or the
    process ends. One that is set ahead is followed, since the machine may have slept meanwhile.

    Args:
        clock: the clock of the machine.
    """

    __slots__ = ("_ahead", "monotonic", "wall")

    def __init__(self, clock: Clock) -> None:
        self.monotonic = clock.monotonic
        self.wall = clock.time  # what the wall clock says now, for the eyes of people and of handlers
        self._ahead = clock.time() - clock.monotonic()

    def time(self) -> float:
        """Seconds since the epoch (UTC), never less than before (but for a millisecond)."""
        wall = self.wall()
        monotonic = self.monotonic()
        ahead = wall - monotonic
        if ahead > self._ahead:
            self._ahead = ahead
        elif ahead < self._ahead - 0.001:
            return monotonic + self._ahead
        return wall
