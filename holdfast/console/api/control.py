"""The common parts of all routes of the control API: the Runtime, the client, and waits that end when the client or the process ends."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio
import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from holdfast import codec, redact
from holdfast.console.wire.bodies import MAX_BODY
from holdfast.console.wire.problems import MSGPACK, Problem
from holdfast.errors import ConfigError, RuntimeStopped
from holdfast.runtime.runtime import Runtime
from holdfast.telemetry.context import parse

T = TypeVar("T")
_audit = logging.getLogger("holdfast.audit")


class TooLarge(ConfigError):
    """The body of a request has more bytes than one may have."""


class TooMany(RuntimeStopped):
    """The limit of this process for such requests is reached."""


class Gone(Exception):
    """The client has gone: an answer would not be read."""


class Control:
    """One running Runtime, seen from its control API.

    Args:
        runtime: the Runtime.
        store: the name of its store for people, without secrets.

    Attributes:
        closing: set when the process is about to end: then all waits end.
        started: store time, seconds since the epoch.
    """

    def __init__(self, runtime: Runtime, store: str) -> None:
        self.runtime, self.store = runtime, store
        self.closing = anyio.Event()
        self.started = self.now()

    def now(self) -> float:
        """Store time, seconds since the epoch."""
        return self.runtime.time()

    def audit(self, request: Request, verb: str, sessions: Sequence[str], reason: str) -> None:
        """Log who did what to which sessions, and why."""
        who = "unknown" if request.client is None else f"{request.client.host} pid={request.client.port}"
        named = ", ".join(repr(id) for id in sessions[:20]) + (f" and {len(sessions) - 20} more" if len(sessions) > 20 else "")
        _audit.info(
            "%s by %s of %s: %s",
            verb,
            who,
            redact.text(named),
            redact.text(" ".join(reason.split())) or "(no reason given)",
            extra={"verb": verb, "who": who, "sessions": list(sessions), "reason": redact.text(reason)},
        )

    async def wait(self, request: Request, work: Callable[[], Awaitable[T]], again: str, *, alone: bool = False) -> T:
        """The result of `work`. It is given up if the client goes away or the process is about to end.

        Args:
            alone: continue if the client goes away: the work must not be left half done.

        Raises:
            RuntimeStopped: the process is about to end; `again` tells the client how to continue.
            Gone: the client has gone.
        """
        result: list[T] = []
        failure: list[Exception] = []

        async def left() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            failure.append(Gone())
            group.cancel_scope.cancel()

        async def closed() -> None:
            await self.closing.wait()
            failure.append(RuntimeStopped(f"the process ends: {again}"))
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            if not alone:
                group.start_soon(left)
            group.start_soon(closed)
            try:
                result.append(await work())
            except Exception as error:
                # Raised outside the group, so that no exception group wraps it; the watchers are not needed any more.
                failure.insert(0, error)
            group.cancel_scope.cancel()
        if result:
            return result[0]
        raise failure[0]


# ---------------------------------------------------------------- bodies


class Json(Response):
    """An answer: a struct, or any value that msgspec can encode; as MessagePack for a client that accepts it.

    Args:
        content: the value.
        json: returns the value to encode as JSON; default the same.
    """

    def __init__(self, content: Any, json: Callable[[], Any] | None = None, *, status_code: int = 200) -> None:
        super().__init__(status_code=status_code)
        self._content, self._json = content, json

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        packed = MSGPACK in Headers(scope=scope).get("accept", "")
        body = codec.pack(self._content) if packed else msgspec.json.encode(self._content if self._json is None else self._json())
        self.headers["content-type"] = MSGPACK if packed else "application/json"
        self.headers["content-length"] = str(len(body))
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body})


def problem(status: int, problem: Problem) -> Json:
    """An answer that is an error."""
    return Json(problem, status_code=status)


async def body(request: Request, kind: type[T]) -> T:
    """The body of the request, decoded as `kind`.

    Raises:
        ConfigError: it is not JSON, or not of that kind; the text names the place.
        TooLarge: it has too many bytes.
        Gone: the client has gone.
    """
    data = bytearray()
    while True:
        part = await request.receive()
        if part["type"] == "http.disconnect":
            raise Gone
        data += part.get("body", b"")
        if len(data) > MAX_BODY:
            raise TooLarge(f"the body of the request has more than {MAX_BODY} bytes")
        if not part.get("more_body", False):
            break
    try:
        if request.headers.get("content-type") == MSGPACK:
            packed: T = codec.unpack(bytes(data), type=kind)
            return packed
        return msgspec.json.decode(bytes(data) or b"{}", type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(f"the body of the request is not what this takes: {redact.text(str(error))}") from error


@contextmanager
def traced(request: Request) -> Iterator[None]:
    """Make the sender's trace the current one, so that a message carries it; does nothing if this process does no tracing."""
    carried = parse(request.headers.get("traceparent", ""))
    trace = sys.modules.get("opentelemetry.trace")
    if carried is None or trace is None:
        yield
        return
    from opentelemetry import context

    flags = trace.TraceFlags(int(carried.sampled))
    sender = trace.SpanContext(carried.trace_id, carried.span_id, is_remote=True, trace_flags=flags)
    token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(sender)))
    try:
        yield
    finally:
        context.detach(token)
