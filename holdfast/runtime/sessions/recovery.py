"""Recovery after a start: the sessions that have work resume, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from holdfast.stores.records import Runnable


class Recovery:
    """The queue of sessions that still have to replay their records.

    Args:
        wake: makes a session resume.
        most: how many sessions may replay at once.
    """

    __slots__ = ("_most", "_replaying", "_suspects", "_waiting", "_wake")

    def __init__(self, wake: Callable[[str], None], most: Callable[[], int]) -> None:
        self._wake, self._most = wake, most
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
        return later

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
