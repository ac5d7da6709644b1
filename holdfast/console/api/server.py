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
"""How long running answers may take once the process ends, in seconds."""

REQUEST_S = 30.0
"""How long a client may take to send one request, in seconds."""

_MOST = 4096

_BUSY = msgspec.json.encode(Problem(error="RuntimeStopped", message="too many connections to this process: close some, and try again"))
_FULL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_BUSY),
    _BUSY,
)
_FLUSH_S = 0.2
"""How long a reader may take, once the process ends, to make room for the last events of a stream, in seconds."""


class _Checked(H11Protocol):
    """A connection of this user or of root; the requests of other users get an error. A connection without a request is closed."""

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
        """Wait for a whole request, from its first byte or, if there was none yet, from the start of the connection."""
        if self._patience is None:
            self._patience = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _asked(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def most_connections() -> int:
    """The most connections at a time: the rest of the process needs descriptors, too."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if files == resource.RLIM_INFINITY else min(_MOST, files // 2)


def allowed(uid: int) -> bool:
    """Whether a process of this user may use the control API."""
    return uid in (os.geteuid(), 0)


async def _forbidden(scope: Scope, receive: Receive, send: Send) -> None:
    answer = problem(403, Problem(error="NodeUnreachable", message=f"this socket belongs to another user: you are {scope['client'][0]}"))
    answer.headers["connection"] = "close"
    await answer(scope, receive, send)


def service(control: Control, own: ControlSocket) -> ChildSpec:
    """The child that serves at this socket; after a crash it listens at the same socket again."""
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
            # The listener stays open: a client that connects during a restart of this child waits in the queue.
            await accept(own.listener, attach)
        finally:
            control.closing.set()
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _END_S + 1):
                # Shielded, within a deadline: a client that waits gets the answer that the process ends.
                await _end(state)

    return ChildSpec("control", serve, stop_s=_END_S + 2.0)


async def _end(state: ServerState) -> None:
    """Let the server send the running answers."""
    for connection in list(state.connections):
        connection.shutdown()
    if state.tasks:
        _, late = await asyncio.wait(state.tasks, timeout=_FLUSH_S)
        for connection in list(state.connections) if late else ():
            if isinstance(connection, _Checked) and connection.flow.write_paused:
                connection.transport.abort()  # the client does not read
    if state.tasks:
        _, late = await asyncio.wait(state.tasks, timeout=_END_S - _FLUSH_S)
        for task in late:
            task.cancel()


@contextmanager
def controlled(runtime: Runtime, path: str | None = None) -> Iterator[str]:
    """Serve the control API of a Runtime while it is open. Yields the path of the socket.

    It replaces the socket that the Runtime would open itself.

    Args:
        runtime: the Runtime, not yet open.
        path: the path of the socket; None takes that of the Runtime, else that of the environment, else one that follows from the store.

    Raises:
        ConfigError: it cannot listen there; the text has the reason and what to do.
    """
    with _listening(runtime, path or named(runtime.control)) as (own, child):
        runtime.control = False
        runtime.supervise(child)
        yield own.path


@contextmanager
def embedded(runtime: Runtime, path: str | None) -> Iterator[ChildSpec]:
    """The control API that a Runtime opens itself: the entry point `control` of the group `holdfast.services`.

    Args:
        runtime: the Runtime, about to start.
        path: the path of the socket; None takes that of the environment, else one that follows from the store.

    Raises:
        ConfigError: it cannot listen there, or no other process can name the store and there is no path.
    """
    if chosen(path) is None and not identity.can_be_named(runtime.store):
        store = identity.url_of(runtime.store)
        raise ConfigError(
            f"no other process can name the store {store!r}: give the path of the socket, Runtime(..., control='run/app.sock')"
        )
    with _listening(runtime, path) as (_, child):
        yield child


def named(control: bool | str | os.PathLike[str]) -> str | None:
    """The path of the socket in a Runtime's `control`; None if it has none."""
    return None if isinstance(control, bool) else os.fspath(control)


@contextmanager
def _listening(runtime: Runtime, path: str | None) -> Iterator[tuple[ControlSocket, ChildSpec]]:
    own = listen(chosen(path) or default_path(identity.of_store(runtime.store)))
    try:
        _name_in_lock(runtime, own.path)
        yield own, service(Control(runtime, identity.url_of(runtime.store).removeprefix("sqlite:///")), own)
    finally:
        _name_in_lock(runtime, "")
        own.close()


def _name_in_lock(runtime: Runtime, path: str) -> None:
    """Name the socket in the lock file of the store, where it has one: a client finds it there, wherever it is."""
    name_socket = getattr(runtime.store, "name_socket", None)
    if name_socket is not None:
        name_socket(path)
