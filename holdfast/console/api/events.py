"""Routes that tell what happens, as it happens: server-sent events of one session or of all.

An observer never waits: whoever reads too slowly loses the oldest events and is told how many.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Annotated, Any

import anyio
import msgspec
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from holdfast import events
from holdfast.console.api.control import Control
from holdfast.console.api.read import Filter, SessionId, check_names
from holdfast.console.api.routes import Routes
from holdfast.console.reading.values import masked
from holdfast.console.wire.answers import Happened

BUFFER = 1000
"""Events that wait for one reader."""

HEARTBEAT_S = 10.0
_TYPE = "text/event-stream"


def routes(control: Control) -> Routes:
    """The routes, about this process."""
    group = Routes("events")

    async def tail(id: SessionId) -> Response:
        """What happens to a session from now on, as server-sent events. It ends with the connection."""
        await control.runtime.session(id).row()  # that there is such a session
        return Stream(control, session=id)

    async def tail_all(kind: Annotated[list[str] | None, Query(max_length=50)] = None, session: Filter = None) -> Response:
        """What happens to all sessions from now on, as server-sent events. It ends with the connection."""
        check_names(session=session)
        return Stream(control, session=session, kinds=frozenset(kind) if kind else None)

    group.add("GET", "/sessions/{id:session}/events", tail, gives=Happened, problems=(404,), media=_TYPE)
    group.add("GET", "/events", tail_all, gives=Happened, media=_TYPE)
    return group


class Feed:
    """The events that one reader has not been given yet.

    Args:
        session: only those of this one; None for all.
        kinds: only these classes, by name; None for all.
        size: how many are kept.
    """

    def __init__(self, *, session: str | None = None, kinds: frozenset[str] | None = None, size: int = BUFFER) -> None:
        self._session, self._kinds = session, kinds
        self._waiting: deque[tuple[float, events.Event]] = deque(maxlen=size)
        self._dropped = 0
        self.there = anyio.Event()

    def __call__(self, event: events.Event) -> None:
        """Observe one event."""
        if self._session is not None and event.session != self._session:
            return
        if self._kinds is not None and name_of(event) not in self._kinds:
            return
        self._dropped += len(self._waiting) == self._waiting.maxlen
        self._waiting.append((time.time(), event))
        self.there.set()

    def take(self) -> bytes:
        """What has come since the last time, as server-sent events."""
        self.there = anyio.Event()
        dropped, self._dropped = self._dropped, 0
        parts = [f'event: dropped\ndata: {{"dropped":{dropped}}}\n\n'.encode()] if dropped else []
        while self._waiting:
            at, event = self._waiting.popleft()
            parts.append(b"event: %b\ndata: %b\n\n" % (name_of(event).encode(), msgspec.json.encode(happened(event, at))))
        return b"".join(parts)


def name_of(event: events.Event) -> str:
    """What people call an event."""
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

    media_type = _TYPE

    def __init__(self, control: Control, *, session: str | None = None, kinds: frozenset[str] | None = None) -> None:
        super().__init__(headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._control = control
        self._feed = Feed(session=session, kinds=kinds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, observers = Request(scope, receive), self._control.runtime.observers
        observers.add(self._feed)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b": here\n\n", "more_body": True})
            async with anyio.create_task_group() as group:
                for ending in (self._left(request), self._control.closing.wait()):
                    group.start_soon(_then, ending, group.cancel_scope)
                await self._send_all(send)
            await send({"type": "http.response.body", "body": b""})
        except OSError:
            pass  # the reader went away while something was sent, which is how most of them end
        finally:
            observers.remove(self._feed)

    async def _left(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    async def _send_all(self, send: Send) -> None:
        while True:
            with anyio.move_on_after(HEARTBEAT_S):
                await self._feed.there.wait()
            await send({"type": "http.response.body", "body": self._feed.take() or b": here\n\n", "more_body": True})


async def _then(ending: Any, scope: anyio.CancelScope) -> None:
    await ending
    scope.cancel()
