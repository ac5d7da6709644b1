"""Recovery after a start: the sessions that have work resume, a few at a time.

Where they are many, the garbage collector pauses meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable

from holdfast.stores.records import Runnable

_MANY = 500
"""From so many sessions on, the garbage collector pauses while they resume: it would look at all of them again and again, for nothing."""

_PAUSE_S = 5.0
"""How long it pauses at most, in seconds."""


class Recovery:
    """The queue of sessions that still have to replay their records.

    Args:
        loop: the loop that the sessions run in.
        wake: makes a session resume.
        most: how many sessions may replay at once.
    """

    __slots__ = ("_collect", "_loop", "_most", "_replaying", "_suspects", "_waiting", "_wake")

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[str], None], most: Callable[[], int]) -> None:
        self._loop, self._wake, self._most = loop, wake, most
        self._collect: asyncio.TimerHandle | None = None
        self._waiting: list[str] = []
        self._replaying: set[str] = set()
        self._suspects: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._replaying)

    def queue(self, rows: Iterable[Runnable], now: float, *, unclean: bool) -> list[tuple[Runnable, float]]:
        """Queue the sessions that have work now; returns the rest, which wait for a time, each with that time.

        Args:
            unclean: the last process did not stop cleanly: that counts as one crash of each queued session.
        """
        later = []
        for row in rows:
            at = row.due(now)
            if at <= now:
                self._waiting.append(row.id)
            else:
                later.append((row, at))
        if unclean:
            self._suspects = set(self._waiting)
        self._waiting.reverse()
        if len(self._waiting) >= _MANY and gc.isenabled():
            gc.disable()
            self._collect = self._loop.call_later(_PAUSE_S, self._collect_again)
        return later

    def _collect_again(self) -> None:
        if self._collect is not None:
            self._collect.cancel()
            self._collect = None
            gc.enable()

    def suspect(self, id: str) -> bool:
        """Whether the activation of this session counts as a crash; True only once for each session."""
        if id not in self._suspects:
            return False
        self._suspects.discard(id)
        return True

    def more(self) -> None:
        """Let sessions resume, up to the limit."""
        while self._waiting and len(self._replaying) < self._most():
            id = self._waiting.pop()
            self._replaying.add(id)
            self._wake(id)

    def done(self, id: str) -> None:
        """A session has replayed its records, or is idle again: the next may resume."""
        if self._replaying:
            self._replaying.discard(id)
            if self._waiting:
                self.more()
            elif not self._replaying:
                self._collect_again()

    def close(self) -> None:
        """The runtime stops."""
        self._collect_again()
