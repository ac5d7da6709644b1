"""What a forked child does with the open databases of its parent: it closes what is ours, and never touches SQLite's connections again.

SQLite forbids even to close a connection in a forked child (sqlite.org/howtocorrupt.html): the close would checkpoint and remove the WAL
of a database that the parent, or its successor, runs. So the child keeps each connection for ever.
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
    """Never finalise it, also not at the exit of the interpreter."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


def _in_child() -> None:
    for each in list(_open):
        each.forked()


os.register_at_fork(after_in_child=_in_child)
