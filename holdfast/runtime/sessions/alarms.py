"""The wake times of parked sessions: one heap and one timer for all of them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from holdfast.clock import TIMER_S, Clock


class Alarms:
    """Calls `ring(id)` at the store time set last for an id; at most a minute late where the machine was suspended."""

    __slots__ = ("_at", "_clock", "_heap", "_loop", "_ring", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, ring: Callable[[str], None]) -> None:
        self._loop, self._clock, self._ring = loop, clock, ring
        self._heap: list[tuple[float, str]] = []
        self._at: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._at)

    def set(self, id: str, at: float) -> None:
        """Ring for `id` at `at`, seconds since the epoch; this replaces an earlier time of `id`."""
        self._at[id] = at
        heapq.heappush(self._heap, (at, id))
        if len(self._heap) > 2 * len(self._at) + 64:  # mostly replaced times
            self._heap = [(at, id) for id, at in self._at.items()]
            heapq.heapify(self._heap)
        self._arm()

    def at(self, id: str) -> float | None:
        """The time set for `id`; None for none."""
        return self._at.get(id)

    def cancel(self, id: str) -> None:
        """Do not ring for `id`."""
        self._at.pop(id, None)

    def close(self) -> None:
        """Stop ringing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self.close()
        if self._heap:
            self._timer = self._loop.call_later(min(max(self._heap[0][0] - self._clock.time(), 0.0), TIMER_S), self._due)

    def _due(self) -> None:
        now = self._clock.time() + 0.001
        while self._heap and self._heap[0][0] <= now:
            at, id = heapq.heappop(self._heap)
            if self._at.get(id) == at:
                del self._at[id]
                self._ring(id)
        self._arm()
