"""Accepts connections to a listener, one after the other. The others wait in the kernel's queue and take no time of the loop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import anyio

from holdfast.events import log

RETRY_S = 1.0
"""How long to wait, in seconds, after a failed accept, such as when the process has no descriptors left."""


async def accept(listener: socket.socket, attach: Callable[[socket.socket], Awaitable[Any]]) -> NoReturn:
    """Pass each connection to `attach`, until cancelled.

    Without descriptors, the loop's own server would fail once for each connection in its queue, and log each failure.

    Args:
        listener: the listening socket, not blocking. It stays open.
        attach: gets the connection, and owns it afterwards.
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
