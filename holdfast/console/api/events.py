"""Routes of live events: server-sent events of one session or of all.

An observer never waits: a reader that is too slow loses the oldest events, and gets their number.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import msgspec
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from holdfast import events
from holdfast.console.api.control import Control, TooMany
from holdfast.console.api.read import Filter, SessionId, check_names
from holdfast.console.api.routes import Routes
from holdfast.console.reading.values import masked
from holdfast.console.wire.answers import HEARTBEAT_S, Dropped, Happened

BUFFER = 1000
"""The most events that wait for one reader."""

READERS = 32
"""The most readers of live events of one process at a time: each reader costs every step a little time."""

_GATHER_S = 0.05
"""Events within so short a time, in seconds, are sent together."""

_AT_ONCE = 20
"""The most events that are written before other tasks of the loop run again."""

_TEXT = (
    "Server-sent events: the name of the event, and as data a Happened. If a reader was too slow for some, an event `dropped` comes, "
    "and as data a Dropped. A comment comes after a while without an event."
)
_TYPE = ("text/event-stream",)


def routes(control: Control) -> Routes:
    """The routes, about this process."""
    group, hub = Routes("events"), Hub(control.runtime.observers)

    async def tail(id: SessionId) -> Response:
        """The events of a session from now on, as server-sent events. The stream ends with the connection."""
        await control.runtime.session(id).row()  # raises if there is no such session
        hub.check()
        return Stream(control, hub, Feed(session=id))

    async def tail_all(kind: Annotated[list[str] | None, Query(max_length=50)] = None, session: Filter = None) -> Response:
        """The events of all sessions from now on, as server-sent events. The stream ends with the connection."""
        check_names(session=session)
        hub.check()
        return Stream(control, hub, Feed(session=session, kinds=frozenset(kind) if kind else None))

    group.add("GET", "/sessions/{id:session}/events", tail, gives=Happened, problems=(404,), media=_TYPE, description=_TEXT, other=Dropped)
    group.add("GET", "/events", tail_all, gives=Happened, media=_TYPE, description=_TEXT, other=Dropped)
    return group


class Entry:
    """One event and its time; encoded once for all readers."""

    __slots__ = ("_written", "at", "event", "name")

    def __init__(self, event: events.Event) -> None:
        self.event, self.at, self.name = event, time.time(), name_of(event)
        self._written = b""

    def written(self) -> bytes:
        """The event as a server-sent event."""
        if not self._written:
            self._written = _written(self.name, happened(self.event, self.at))
        return self._written


class Hub:
    """The one observer of a process for all live readers; it observes only while there is a reader.

    Args:
        observers: the observers of its Runtime.
        most: the most readers at a time.
    """

    def __init__(self, observers: events.Observers, most: int = READERS) -> None:
        self._observers, self._most = observers, most
        self._feeds: list[Feed] = []

    def __call__(self, event: events.Event) -> None:
        """Observe one event."""
        entry = Entry(event)
        for feed in self._feeds:
            feed.offer(entry)

    def check(self) -> None:
        """Raises TooMany if there are `most` readers already."""
        if len(self._feeds) >= self._most:
            raise TooMany(f"{self._most} read live events already: end one of them, or try again later")

    @contextmanager
    def reading(self, feed: Feed) -> Iterator[None]:
        """Offer all events to `feed`."""
        if not self._feeds:
            self._observers.add(self)
        self._feeds.append(feed)
        try:
            yield
        finally:
            self._feeds.remove(feed)
            if not self._feeds:
                self._observers.remove(self)


class Feed:
    """The events that one reader has not got yet.

    Args:
        session: only events of this session; None for all.
        kinds: only events of these classes, by name; None for all.
        size: how many events are kept.
    """

    def __init__(self, *, session: str | None = None, kinds: frozenset[str] | None = None, size: int = BUFFER) -> None:
        self._session, self._kinds = session, kinds
        self._waiting: deque[Entry] = deque(maxlen=size)
        self._dropped = 0
        self.there = anyio.Event()

    def offer(self, entry: Entry) -> None:
        """Take the event, if the reader wants it."""
        if self._session is not None and entry.event.session != self._session:
            return
        if self._kinds is not None and entry.name not in self._kinds:
            return
        waiting = len(self._waiting)
        self._dropped += waiting == self._waiting.maxlen
        self._waiting.append(entry)
        if not waiting:
            self.there.set()

    def take(self, limit: int = _AT_ONCE) -> bytes:
        """The oldest `limit` events since the last call, as server-sent events; `there` is unset once no more wait."""
        dropped, self._dropped = self._dropped, 0
        parts = [_written("dropped", Dropped(dropped=dropped))] if dropped else []
        parts += [self._waiting.popleft().written() for _ in range(min(limit, len(self._waiting)))]
        if not self._waiting:
            self.there = anyio.Event()
        return b"".join(parts)


def _written(name: str, data: Happened | Dropped) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


def name_of(event: events.Event) -> str:
    """The name of an event for people."""
    tag = type(event).__struct_config__.tag
    return tag if isinstance(tag, str) else type(event).__name__


def happened(event: events.Event, at: float) -> Happened:
    """An event as data, without secrets."""
    fields: dict[str, Any] = {}
    for name in type(event).__struct_fields__:
        value = getattr(event, name)
        if name == "session" or value is None:
            continue
        if isinstance(value, bytes):
            value = value.hex()
        elif isinstance(value, Mapping):
            value = dict(value)
        fields[name] = masked(value)
    return Happened(event=name_of(event), at=at, session=event.session, fields=fields)


class Stream(Response):
    """Server-sent events until the reader goes away or the process ends."""

    media_type = _TYPE[0]

    def __init__(self, control: Control, hub: Hub, feed: Feed) -> None:
        super().__init__(headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._control, self._hub, self._feed = control, hub, feed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            with self._hub.reading(self._feed):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": b": here\n\n", "more_body": True})
                async with anyio.create_task_group() as group:
                    for ending in (self._left(request), self._control.closing.wait()):
                        group.start_soon(_then, ending, group.cancel_scope)
                    await self._send_all(send)
                await send({"type": "http.response.body", "body": self._feed.take(BUFFER)})
        except OSError:
            pass  # the reader went away while an event was sent: the usual end of a stream

    async def _left(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    async def _send_all(self, send: Send) -> None:
        while True:
            with anyio.move_on_after(HEARTBEAT_S):
                await self._feed.there.wait()
            await send({"type": "http.response.body", "body": self._feed.take() or b": here\n\n", "more_body": True})
            for _ in range(BUFFER // _AT_ONCE):
                if not self._feed.there.is_set():
                    break
                await anyio.lowlevel.checkpoint()  # a part at a time: the loop also has other tasks
                await send({"type": "http.response.body", "body": self._feed.take(), "more_body": True})
            await anyio.sleep(_GATHER_S)


async def _then(ending: Any, scope: anyio.CancelScope) -> None:
    await ending
    scope.cancel()
