"""The airline's system: the tables as each session sees them. It stores only its ledger; the rest follows from that.

A session's world is the shared tables and the session's writes in the ledger, in their order. After a kill, the next process makes these
writes again and has the same world.
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
    """A write of the ledger, made again, has another answer: the tables are not those on which it was made."""


def attempt(view: View, tool: str, arguments: dict[str, Any]) -> Change:
    """The change of a write.

    Raises:
        Refused: the system refuses it, or the arguments are not valid.
    """
    try:
        return WRITES[tool](view, **arguments)
    except (KeyError, TypeError) as error:
        raise Refused(f"Error: {type(error).__name__}: {error}") from error


class World:
    """One process's access to the system. Its methods may be called from any thread."""

    def __init__(self, tables: Tables, folder: Path) -> None:
        """Read the ledger in `folder`.

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
        """The present view of a session."""
        with self._lock:
            return self._views[session]

    def write(self, session: str, key: str, tool: str, arguments: dict[str, Any]) -> str:
        """Make a write, whether or not it was made before. Returns its answer once the write is on the disk.

        Args:
            session: the session whose world it changes.
            key: the key by which `made` finds it.
            tool: one of WRITES.
            arguments: by name.

        Raises:
            Refused: the system refuses it; no row has changed.
        """
        with self._lock:
            change = attempt(self._views[session], tool, arguments)
            self._ledger.append(sync=True, session=session, key=key, tool=tool, arguments=arguments, result=change.result)
            self._see(session, key, change)
            return change.result

    def made(self, session: str, key: str) -> str | None:
        """The answer of the write of this key; None if it was not made."""
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
