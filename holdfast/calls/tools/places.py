"""The places for threads of plain functions: how many run at once, in all, for one session and for one tool, and who is next.

A thread cannot be ended. One that its caller has left is abandoned: it gives its place back, so that a socket that hangs does not stop the
functions of other sessions. Abandoned threads over their own bound keep their places, so the number of threads stays bounded.
"""

from __future__ import annotations

import asyncio

THREADS = 40
"""How many plain functions run at once in one event loop."""

OWN = 20
"""The most threads of one session, the abandoned ones counted: no session can hold all places."""

ABANDONED = 200
"""How many abandoned threads give their places back."""


class Places:
    """The places of one event loop, or of one tool in it. All calls are made on the loop.

    Sessions that wait are served in turn, one place each; the calls of one session are served in their order.

    Attributes:
        running: threads whose callers wait for them.
        abandoned: threads that still run although their callers have left.
    """

    __slots__ = ("_limit", "_of", "_queues", "_ring", "abandoned", "running")

    def __init__(self, limit: int | None = None) -> None:
        """Takes the limit of one tool, which has so many threads at once, the abandoned ones counted; None for those of the loop."""
        self.running = self.abandoned = 0
        self._limit = limit
        self._of: dict[str, int] = {}  # threads by session
        self._queues: dict[str, dict[asyncio.Future[None], None]] = {}  # the calls that wait, by session, in order
        self._ring: dict[str, None] = {}  # the sessions that wait and may have another thread, the next one first

    @property
    def waiting(self) -> int:
        """How many calls wait for a place."""
        return sum(len(queue) for queue in self._queues.values())

    @property
    def lost(self) -> int:
        """How many places are taken by abandoned threads."""
        return self.abandoned if self._limit is not None else max(self.abandoned - ABANDONED, 0)

    async def enter(self, session: str) -> None:
        """Wait for a place. If cancelled, the call holds none."""
        if not self._ring and self._free() and self._below(session):
            return self._give(session)
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(session, {})[turn] = None
        self._line_up(session)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(session)  # the place came together with the cancellation
            else:
                self._take_out(session, turn)
            raise

    def abandon(self) -> None:
        """The caller of a running thread has left it."""
        self.running -= 1
        self.abandoned += 1
        self._hand_over()

    def leave(self, session: str, *, abandoned: bool = False) -> None:
        """A thread of `session` has ended, or never began."""
        if abandoned:
            self.abandoned -= 1
        else:
            self.running -= 1
        self._of[session] -= 1
        if not self._of[session]:
            del self._of[session]
        self._line_up(session)
        self._hand_over()

    def _free(self) -> bool:
        return self.running + self.lost < (THREADS if self._limit is None else self._limit)

    def _below(self, session: str) -> bool:
        return self._limit is not None or self._of.get(session, 0) < OWN

    def _give(self, session: str) -> None:
        self.running += 1
        self._of[session] = self._of.get(session, 0) + 1

    def _line_up(self, session: str) -> None:
        if session in self._queues and self._below(session):
            self._ring.setdefault(session)

    def _hand_over(self) -> None:
        while self._ring and self._free():
            session = next(iter(self._ring))
            turn = next(iter(self._queues[session]))
            self._take_out(session, turn)
            if not turn.done():
                self._give(session)
                turn.set_result(None)
            self._ring.pop(session, None)
            self._line_up(session)  # behind the others

    def _take_out(self, session: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(session, {})
        queue.pop(turn, None)
        if not queue:
            self._queues.pop(session, None)
            self._ring.pop(session, None)
