"""The airline's system: the tables as each session sees them. What it keeps is its ledger; the rest follows from that.

A session's state of the world is the shared tables and, in their order, the writes that the ledger has of it. A process that was killed
comes back to the same world by making them again.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.airline.books import LEDGER, Book, read
from benchmarks.airline.tables import Change, Tables, View
from benchmarks.airline.writes import WRITES, Refused


class LedgerMismatch(Exception):
    """A write of the ledger, made again, does not answer what it answered then: the tables are not those that it was made on."""


def attempt(view: View, tool: str, arguments: dict[str, Any]) -> Change:
    """What a write would do.

    Raises:
        Refused: the system does not do it, or cannot make sense of the arguments.
    """
    try:
        return WRITES[tool](view, **arguments)
    except (KeyError, TypeError) as error:
        raise Refused(f"Error: {type(error).__name__}: {error}") from error


class World:
    """One process's door to the system. Its methods may be called from any thread."""

    def __init__(self, tables: Tables, folder: Path) -> None:
        """Reads the ledger in `folder` back.

        Raises:
            LedgerMismatch: it does not fit the tables.
        """
        self._tables = tables
        self._views: defaultdict[str, View] = defaultdict(lambda: View(tables))
        self._made: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        for line in read(folder / LEDGER):
            self._see(line["session"], line["key"], self._again(line))
        self._ledger = Book(folder / LEDGER)

    def view(self, session: str) -> View:
        """What a session sees now."""
        with self._lock:
            return self._views[session]

    def write(self, session: str, key: str, tool: str, arguments: dict[str, Any]) -> str:
        """Make a write, whether or not it was made before; its answer. When this returns, it is on the disk.

        Args:
            session: whose world it changes.
            key: what `made` finds it by.
            tool: one of WRITES.
            arguments: by name.

        Raises:
            Refused: nothing was changed.
        """
        with self._lock:
            change = attempt(self._views[session], tool, arguments)
            self._ledger.append(sync=True, session=session, key=key, tool=tool, arguments=arguments, result=change.result)
            self._see(session, key, change)
            return change.result

    def made(self, session: str, key: str) -> str | None:
        """What the write of this key answered; None if it was not made."""
        with self._lock:
            return self._made.get((session, key))

    def close(self) -> None:
        self._ledger.close()

    def _see(self, session: str, key: str, change: Change) -> None:
        self._views[session].apply(change)
        self._made[session, key] = change.result

    def _again(self, line: dict[str, Any]) -> Change:
        change = attempt(self._views[line["session"]], line["tool"], line["arguments"])
        if change.result != line["result"]:
            raise LedgerMismatch(f"{line['tool']} of {line['session']} answered {line['result']!r}, and now {change.result!r}")
        return change
