"""Connections that are never closed: those of a forked child to its parent's databases, and those to a damaged one.

SQLite forbids even to close a connection in a forked child (sqlite.org/howtocorrupt.html): the close would checkpoint and remove the WAL
of a database that the parent, or its successor, runs. So the child keeps each connection for ever, and closes only what is ours.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Protocol
from weakref import WeakSet

import aiosqlite


class Forkable(Protocol):
    """Something that is open in this process."""

    def forked(self) -> None:
        """Called in a forked child: give up what belongs to the parent."""
        ...


_open: WeakSet[Any] = WeakSet()


def register(open: Forkable) -> None:
    """Call its `forked` in each child that this process forks, as long as it lives."""
    _open.add(open)


def keep_for_ever(kept: object) -> None:
    """Never finalise it, also not at the exit of the interpreter."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


async def abandon(connection: aiosqlite.Connection) -> None:
    """End the thread of a connection without closing it: SQLite would write what it knows of the old file into the one that is there."""
    keep_for_ever(connection._connection)
    connection._connection = None
    stopped = connection.stop()
    if stopped is not None:
        await stopped


def _in_child() -> None:
    for each in list(_open):
        each.forked()


os.register_at_fork(after_in_child=_in_child)
