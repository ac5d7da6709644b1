"""One registry of the deadlines of all attempts under way, swept, instead of a cancel scope for each (0.6 µs against 12).

Where an attempt passes its deadline, the sweep cancels its task; the step takes the cancellation back (`taken_back`) and counts a timeout.
A deadline fires up to one period of the sweep late. Time during which the loop was blocked does not count: answers that arrived meanwhile
are handled first.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any, Protocol

PERIOD_S = 0.1
AGAIN_S = 1.0
"""The pause before an attempt that still runs is cancelled again, in seconds."""


class Timed(Protocol):
    """The step of a deadline, as people see it."""

    @property
    def session(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def effect(self) -> str: ...
    @property
    def branch(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def opened(self) -> float: ...
    def overdue(self, deadline: Deadline, seconds: float) -> None:
        """The attempt still runs, so many seconds after it was cancelled."""


class Deadline:
    """One attempt's deadline, in the loop's time.

    Attributes:
        by_person: a person ended it before its time.
        cancels: how often it has cancelled the attempt's task so far; each second again while the attempt still runs.
        before: how many cancellations the task had not taken back when the attempt began, as in asyncio.timeout.
        hangs: done once an attempt that ran long past its deadline has ended.
    """

    by_person = False
    cancels = 0
    first = 0.0
    hangs: asyncio.Future[None] | None = None

    def __init__(self, task: asyncio.Task[Any], at: float, of: Timed) -> None:
        self.task, self.at, self.of, self.before = task, at, of, task.cancelling()

    @property
    def passed(self) -> bool:
        return self.cancels > 0

    def taken_back(self) -> bool:
        """The attempt has ended: take back the cancellations by this deadline. True if it cancelled the task and nothing else did."""
        self.at = math.inf
        if not self.cancels:
            return False
        for _ in range(self.cancels):
            self.task.uncancel()
        return self.task.cancelling() <= self.before


class Deadlines:
    """All deadlines of a node. It sweeps only while there are any."""

    __slots__ = ("_due", "_entries", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._entries: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Deadline]:
        return iter(self._entries)

    def add(self, task: asyncio.Task[Any], seconds: float, of: Timed) -> Deadline:
        """Cancel `task` in `seconds` from now unless the deadline is removed first."""
        entry = Deadline(task, self._loop.time() + seconds, of)
        self._entries[entry] = None
        if self._timer is None:
            self._sweep_later()
        return entry

    def remove(self, entry: Deadline) -> None:
        """The attempt has ended."""
        self._entries.pop(entry, None)
        if entry.hangs is not None:
            entry.hangs.set_result(None)

    def expire(self, session: str, name: str | None = None) -> int:
        """End the attempts of a session now, as their timeouts would; only those of `name`, if given. Returns how many there were."""
        found = [e for e in self._entries if e.of.session == session and name in (None, e.of.name) and e.at < math.inf]
        for entry in found:
            entry.by_person = entry.by_person or not entry.passed
            self._fire(entry)
        return len(found)

    def _sweep_later(self) -> None:
        self._due = self._loop.time() + PERIOD_S
        self._timer = self._loop.call_at(self._due, self._sweep)

    def _sweep(self) -> None:
        now = self._loop.time()
        blocked_s = now - self._due
        if blocked_s > PERIOD_S:
            for entry in self._entries:
                entry.at += blocked_s
        for entry in [entry for entry in self._entries if entry.at <= now]:
            self._fire(entry)
        self._timer = None
        if self._entries:
            self._sweep_later()

    def _fire(self, entry: Deadline) -> None:
        now = self._loop.time()
        entry.first = entry.first or now
        entry.cancels += 1
        entry.at = now + AGAIN_S
        entry.task.cancel()
        if entry.cancels > 1:
            entry.of.overdue(entry, now - entry.first)

    def close(self) -> None:
        """Stop sweeping."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
