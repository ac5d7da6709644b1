"""The child of the supervision tree that serves the control API over its socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from holdfast.console.api.app import build
from holdfast.console.api.control import Control, problem
from holdfast.console.wire import identity
from holdfast.console.wire.problems import Problem
from holdfast.console.wire.socket import ControlSocket, chosen, default_path, listen, peer
from holdfast.runtime.runtime import Runtime
from holdfast.supervisors import ChildSpec

_END_S = 3.0
"""How long answers that are under way may take once the process ends."""


class _Checked(H11Protocol):
    """A connection of this user or of root; anyone else is told so, whatever they ask."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        other = peer(transport.get_extra_info("socket"))
        self.client = (f"uid={other.uid}", other.pid)
        if not allowed(other.uid):
            self.app = _forbidden


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
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        # A listener of its own, since the server closes it: whoever connects while this child is started again waits in the queue.
        await server.startup(sockets=[own.listener.dup()])
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            control.closing.set()
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _END_S + 1):
                # Shielded, within a deadline: whoever waits for an answer is told that the process ends.
                await _end(server)

    return ChildSpec("control", serve, stop_s=_END_S + 2.0)


async def _end(server: uvicorn.Server) -> None:
    """Accept nothing more, and let the answers that are under way be sent; the server's own way takes a tenth of a second at least."""
    for listener in server.servers:
        listener.close()
    state = server.server_state
    for connection in list(state.connections):
        connection.shutdown()
    if state.tasks:
        _, late = await asyncio.wait(state.tasks, timeout=_END_S)
        for task in late:
            task.cancel()


@contextmanager
def controlled(runtime: Runtime, path: str | None = None) -> Iterator[str]:
    """Have a Runtime answer at its control socket, from when it is opened to when it is closed; the path of the socket.

    Args:
        runtime: it, not yet open.
        path: of the socket; None is what the environment says, or else follows from the store.

    Raises:
        ConfigError: it cannot listen there: the text says why and what to do.
    """
    where = chosen(path) or default_path(identity.of_store(runtime.store))
    own = listen(where)
    try:
        control = Control(runtime, identity.url_of(runtime.store).removeprefix("sqlite:///"))
        runtime.supervise(service(control, own))
        yield own.path
    finally:
        own.close()
