"""The wake times of parked sessions: one heap and one timer for all of them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from holdfast.clock import TIMER_S, Clock

_AT_ONCE, _A_SECOND, _SPREAD_MAX_S = 100, 1000, 10.0
"""Where more than `_AT_ONCE` alarms are due at once, the others ring at random times: `_A_SECOND` a second, but all within this time."""


class Alarms:
    """Calls `ring(id)` at the store time set last for an id; at most a minute late where the machine was suspended.

    Many that are due at once ring one after another, so that what all of them wait for (a provider that comes back) is not called by all at
    once.

    Args:
        ring: called with the id.
        uniform: a random number between two others.
    """

    __slots__ = ("_at", "_clock", "_heap", "_loop", "_ring", "_timer", "_uniform")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Clock, ring: Callable[[str], None], uniform: Callable[[float, float], float]
    ) -> None:
        self._loop, self._clock, self._ring, self._uniform = loop, clock, ring, uniform
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
        now, due = self._clock.time() + 0.001, list[str]()
        while self._heap and self._heap[0][0] <= now:
            at, id = heapq.heappop(self._heap)
            if self._at.get(id) == at:
                del self._at[id]
                due.append(id)
        spread_s = min(len(due) / _A_SECOND, _SPREAD_MAX_S)
        for id in due[_AT_ONCE:]:
            self._at[id] = now + self._uniform(0.0, spread_s)
            heapq.heappush(self._heap, (self._at[id], id))
        for id in due[:_AT_ONCE]:
            self._ring(id)
        self._arm()
