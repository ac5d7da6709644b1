"""Connections to a listener, one after the other: whoever comes waits in the kernel's queue, and no more of the loop is taken than that."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import anyio

from holdfast.events import log

RETRY_S = 1.0
"""After which time a connection is accepted where none could be, such as where the process has no descriptors left."""


async def accept(listener: socket.socket, attach: Callable[[socket.socket], Awaitable[Any]]) -> NoReturn:
    """Hand each connection to `attach`, until this is cancelled.

    The loop's own server would try as many times in vain as its queue is long where descriptors run out, and log each of them.

    Args:
        listener: it, not blocking. It stays open.
        attach: takes the connection over.
    """
    loop, well = asyncio.get_running_loop(), True
    while True:
        try:
            connection, _ = await loop.sock_accept(listener)
        except OSError as error:
            if error.errno == errno.ECONNABORTED:
                continue
            if well:
                log.warning("the control socket accepts no connection for now: %s", error.strerror or error)
            well = False
            await anyio.sleep(RETRY_S)
            continue
        well = True
        try:
            await attach(connection)
        except OSError as error:
            connection.close()
            log.warning("a connection to the control socket failed: %s", error.strerror or error)
