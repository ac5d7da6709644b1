"""Forks: a child closes its copies of what its parent has open, and uses none of it.

A descriptor's lock (`flock`) ends when every process that has a copy has closed it, so a child that lives on would hold its parent's locks.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, Protocol
from weakref import WeakSet


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
    """Never finalise it, also not at the exit of the interpreter.

    SQLite forbids even to close a connection in a forked child (sqlite.org/howtocorrupt.html): the close would checkpoint the database that
    the parent, or its successor, runs, and remove its WAL.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


def _in_child() -> None:
    for each in list(_open):
        each.forked()


os.register_at_fork(after_in_child=_in_child)
