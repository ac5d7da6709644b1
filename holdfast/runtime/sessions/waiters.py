"""The callers outside any session that wait for the answer to a message, or for the end of a session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from holdfast.errors import HoldfastError, SessionError
from holdfast.stores.records import Outcome

END = ""
"""Stands for the session's end in place of a message id (no message id is empty). Such waits are only in memory: a caller may repeat them
without leaving rows."""


Waiter = asyncio.Future[Outcome | None]
"""A wait for an answer; None where its time is over."""


def expire(waiter: Waiter) -> None:
    """Its time is over; an answer that comes in the same round of the loop still counts."""
    waiter.get_loop().call_soon(_end, waiter)


def _end(waiter: Waiter) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Waiters:
    """Futures by session and message id."""

    __slots__ = ("_loop", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # The innermost dict is a set that keeps its order: many may wait for one end, each with its own timeout.
        self._waiters: dict[str, dict[str, dict[Waiter, None]]] = {}

    def add(self, session: str, message: str) -> Waiter:
        """A future for the answer to a message. Always call `forget` after the wait."""
        future: Waiter = self._loop.create_future()
        self._waiters.setdefault(session, {}).setdefault(message, {})[future] = None
        return future

    def answer(self, session: str, message: str, outcome: Outcome) -> None:
        """The message is done or dead."""
        for waiter in self._taken(session, message):
            if not waiter.done():
                waiter.set_result(outcome)

    def refuse(self, session: str, error: SessionError) -> None:
        """All waiters of this session get the error for which it cannot answer; the messages stay."""
        _fail(self._waiters.pop(session, {}), error)

    def close(self, error: HoldfastError) -> None:
        """No more answers will come: all waiters get the error."""
        waiting, self._waiters = self._waiters, {}
        for messages in waiting.values():
            _fail(messages, error)

    def of(self, session: str) -> list[str]:
        """The messages of a session that have waiters."""
        return list(self._waiters.get(session, ()))

    def __contains__(self, key: tuple[str, str]) -> bool:
        session, message = key
        return message in self._waiters.get(session, ())

    def _taken(self, session: str, message: str) -> Iterable[Waiter]:
        messages = self._waiters.get(session, {})
        waiters = messages.pop(message, {})
        if not messages:
            self._waiters.pop(session, None)
        return waiters

    def forget(self, session: str, message: str, waiter: Waiter) -> None:
        """A wait is over: its caller was cancelled, its time is over, or it was answered, and is forgotten already."""
        messages = self._waiters.get(session)
        if messages is None:
            return
        waiters = messages.get(message, {})
        waiters.pop(waiter, None)
        if not waiters:
            self._taken(session, message)


def _fail(messages: Mapping[str, Iterable[Waiter]], error: HoldfastError) -> None:
    for waiters in messages.values():
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)
                waiter.exception()  # a caller that is gone must not make the loop complain
