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

    __slots__ = ("_ahead", "_clock", "monotonic")

    def __init__(self, clock: Clock) -> None:
        self._clock, self.monotonic = clock, clock.monotonic
        self._ahead = clock.time() - clock.monotonic()

    def time(self) -> float:
        """Seconds since the epoch (UTC), never less than before (but for a millisecond)."""
        wall = self._clock.time()
        now = self._clock.monotonic() + self._ahead
        if wall < now - 0.001:
            return now
        self._ahead += max(wall - now, 0.0)
        return wall

    def wall(self) -> float:
        """What the wall clock says now, for the eyes of people and of handlers."""
        return self._clock.time()
