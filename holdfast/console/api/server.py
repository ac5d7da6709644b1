"""The child of the supervision tree that serves the control API over its socket."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import h11
import msgspec
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from holdfast.console.api.accepting import accept
from holdfast.console.api.app import build
from holdfast.console.api.control import Control, problem
from holdfast.console.wire import identity
from holdfast.console.wire.problems import Problem
from holdfast.console.wire.socket import ControlSocket, chosen, default_path, listen, peer
from holdfast.errors import ConfigError
from holdfast.runtime.runtime import Runtime
from holdfast.supervisors import ChildSpec

_END_S = 3.0
"""How long answers that are under way may take once the process ends."""

REQUEST_S = 30.0
"""How long a client may take to send one request."""

_MOST = 4096

_BUSY = msgspec.json.encode(Problem(error="RuntimeStopped", message="too many connections to this process: close some, and try again"))
_FULL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_BUSY),
    _BUSY,
)
_FLUSH_S = 0.2
"""How long a reader may take then to make room for the last of a stream."""


class _Checked(H11Protocol):
    """A connection of this user or of root; anyone else is told so, whatever they ask. One that asks nothing is closed."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        other = peer(transport.get_extra_info("socket"))
        self.client = (f"uid={other.uid}", other.pid)
        if not allowed(other.uid):
            self.app = _forbidden
        if len(self.connections) > most_connections():
            transport.write(_FULL)
            transport.close()
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._wait()
        else:
            self._asked()

    def connection_lost(self, exc: Exception | None) -> None:
        self._asked()
        super().connection_lost(exc)

    def _wait(self) -> None:
        """For all of a request, from its first byte on or, where there was none yet, from when the connection was made."""
        if self._patience is None:
            self._patience = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _asked(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def most_connections() -> int:
    """How many there may be at a time: the rest of the process needs descriptors, too."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if files == resource.RLIM_INFINITY else min(_MOST, files // 2)


def allowed(uid: int) -> bool:
    """Whether a process of this user may speak to this one."""
    return uid in (os.geteuid(), 0)


async def _forbidden(scope: Scope, receive: Receive, send: Send) -> None:
    answer = problem(403, Problem(error="NodeUnreachable", message=f"this socket belongs to another user: you are {scope['client'][0]}"))
    answer.headers["connection"] = "close"
    await answer(scope, receive, send)


def service(control: Control, own: ControlSocket) -> ChildSpec:
    """The child that answers at this socket; one that crashed listens again at the same one."""
    app = build(control)

    async def serve(*, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        config = uvicorn.Config(
            app,
            http=_Checked,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
        )
        config.load()
        control.closing = anyio.Event()
        state, loop = ServerState(), asyncio.get_running_loop()

        async def attach(connection: socket.socket) -> None:
            await loop.connect_accepted_socket(lambda: _Checked(config=config, server_state=state, app_state={}), connection)

        task_status.started()
        try:
            # The listener stays open: whoever connects while this child is started again waits in the queue.
            await accept(own.listener, attach)
        finally:
            control.closing.set()
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _END_S + 1):
                # Shielded, within a deadline: whoever waits for an answer is told that the process ends.
                await _end(state)

    return ChildSpec("control", serve, stop_s=_END_S + 2.0)


async def _end(state: ServerState) -> None:
    """Let the answers that are under way be sent."""
    for connection in list(state.connections):
        connection.shutdown()
    if state.tasks:
        _, late = await asyncio.wait(state.tasks, timeout=_FLUSH_S)
        for connection in list(state.connections) if late else ():
            if isinstance(connection, _Checked) and connection.flow.write_paused:
                connection.transport.abort()  # nobody reads what is to be sent
    if state.tasks:
        _, late = await asyncio.wait(state.tasks, timeout=_END_S - _FLUSH_S)
        for task in late:
            task.cancel()


@contextmanager
def controlled(runtime: Runtime, path: str | None = None) -> Iterator[str]:
    """Have a Runtime answer at its control socket, from when it is opened to when it is closed; the path of the socket.

    It takes the place of the socket that the Runtime would open itself.

    Args:
        runtime: it, not yet open.
        path: of the socket; None is what the Runtime was given, what the environment says, or else follows from the store.

    Raises:
        ConfigError: it cannot listen there: the text says why and what to do.
    """
    with _listening(runtime, path or named(runtime.control)) as (own, child):
        runtime.control = False
        runtime.supervise(child)
        yield own.path


@contextmanager
def embedded(runtime: Runtime, path: str | None) -> Iterator[ChildSpec]:
    """The control API of a Runtime that opens it itself: the entry point `control` of the group `holdfast.services`.

    Args:
        runtime: it, about to start.
        path: of the socket; None is what the environment says, or else follows from the store.

    Raises:
        ConfigError: it cannot listen there, or the store is one that no other process can name, and no path was given.
    """
    if chosen(path) is None and not identity.can_be_named(runtime.store):
        store = identity.url_of(runtime.store)
        raise ConfigError(
            f"no other process can name the store {store!r}: give the path of the socket, Runtime(..., control='run/app.sock')"
        )
    with _listening(runtime, path) as (_, child):
        yield child


def named(control: bool | str | os.PathLike[str]) -> str | None:
    """The path of the socket that a Runtime was given; None where it was given none."""
    return None if isinstance(control, bool) else os.fspath(control)


@contextmanager
def _listening(runtime: Runtime, path: str | None) -> Iterator[tuple[ControlSocket, ChildSpec]]:
    own = listen(chosen(path) or default_path(identity.of_store(runtime.store)))
    try:
        yield own, service(Control(runtime, identity.url_of(runtime.store).removeprefix("sqlite:///")), own)
    finally:
        own.close()
