"""The callers outside any session that wait for the answer to a message."""

from __future__ import annotations

import asyncio

from holdfast.errors import HoldfastError, SessionError
from holdfast.stores.records import Outcome


class Waiters:
    """Futures by (session, message id)."""

    __slots__ = ("_loop", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiters: dict[tuple[str, str], list[asyncio.Future[Outcome]]] = {}

    def add(self, session: str, message: str) -> asyncio.Future[Outcome]:
        """A future for the answer to a message. Cancel it when you stop waiting."""
        key = (session, message)
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._waiters.setdefault(key, []).append(future)
        future.add_done_callback(lambda done: self._gave_up(key, done) if done.cancelled() else None)
        return future

    def answer(self, session: str, message: str, outcome: Outcome) -> None:
        """The message is done or dead."""
        for waiter in self._waiters.pop((session, message), ()):
            if not waiter.done():
                waiter.set_result(outcome)

    def refuse(self, session: str, error: SessionError) -> None:
        """All that wait for this session get the error that it cannot answer for; the messages stay."""
        for _, message in self.of(session):
            for waiter in self._waiters.pop((session, message)):
                if not waiter.done():
                    waiter.set_exception(error)

    def close(self, error: HoldfastError) -> None:
        """No answer will come any more: all that still wait get the error."""
        waiting, self._waiters = self._waiters, {}
        for waiters in waiting.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error)

    def of(self, session: str) -> list[tuple[str, str]]:
        """The messages of a session whose answers are waited for."""
        return [key for key in self._waiters if key[0] == session]

    def __contains__(self, key: object) -> bool:
        return key in self._waiters

    def _gave_up(self, key: tuple[str, str], future: asyncio.Future[Outcome]) -> None:
        waiters = self._waiters.get(key, [])
        if future in waiters:
            waiters.remove(future)
        if not waiters:
            self._waiters.pop(key, None)
