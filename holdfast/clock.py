"""Time as a value that is handed in.

`monotonic` measures durations inside one process; `time` is the wall clock that stored times are in. Both in float seconds.
"""

from __future__ import annotations

import time as _time
from typing import Protocol


class Clock(Protocol):
    """Where every part of holdfast that needs the time takes it from."""

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
