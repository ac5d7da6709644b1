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
