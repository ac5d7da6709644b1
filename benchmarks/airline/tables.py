"""The airline's tables: read-only ones that all sessions share, and a session's view of them after its own writes."""

from __future__ import annotations

import copy
import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Rows = dict[str, Row]


class MissingData(Exception):
    """The tables or the recordings are missing. The text names the option to give."""


def read_json(path: Path) -> Any:
    """The content of a JSON file, gzipped (`.gz`) or not.

    Raises:
        MissingData: it does not exist, or is no JSON.
    """
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except FileNotFoundError:
        raise MissingData(
            f"{path} is not there: name the directory of the tables with --data, the recordings with --conversations"
        ) from None
    except (OSError, EOFError, ValueError) as error:
        raise MissingData(f"{path} cannot be read: {error}") from error


@dataclass(frozen=True)
class Tables:
    """The tables with which all sessions start. They never change.

    Attributes:
        flights: by flight number, each with its dates.
        reservations: by id.
        users: by id.
    """

    flights: Rows
    reservations: Rows
    users: Rows

    @classmethod
    def load(cls, directory: Path) -> Tables:
        """The tables in `directory`: flights, reservations and users, each as NAME.json.gz or NAME.json.

        Raises:
            MissingData: one of them is missing.
        """
        return cls(*(_table(directory, name) for name in ("flights", "reservations", "users")))


def _table(directory: Path, name: str) -> Rows:
    plain = directory / f"{name}.json"
    table: Rows = read_json(plain if plain.exists() else directory / f"{name}.json.gz")
    return table


@dataclass(frozen=True)
class Change:
    """The result of a write: the rows after it, and its answer."""

    result: str
    reservations: Rows = field(default_factory=dict)
    users: Rows = field(default_factory=dict)


class View:
    """The tables as one session sees them: its own changed rows, and else the shared ones."""

    def __init__(self, tables: Tables) -> None:
        self.flights = tables.flights
        self._tables = tables
        self._reservations: Rows = {}
        self._users: Rows = {}

    def reservation(self, id: str) -> Row | None:
        """A copy of the row, which is the caller's; None if there is none."""
        return copy.deepcopy(self._reservations.get(id) or self._tables.reservations.get(id))

    def user(self, id: str) -> Row | None:
        """A copy of the row, which is the caller's; None if there is none."""
        return copy.deepcopy(self._users.get(id) or self._tables.users.get(id))

    def apply(self, change: Change) -> None:
        """Apply the rows of `change` to this view."""
        self._reservations.update(copy.deepcopy(change.reservations))
        self._users.update(copy.deepcopy(change.users))

    def changed(self) -> dict[str, Rows]:
        """All rows that differ from the shared ones, by table."""
        return {"reservations": self._reservations, "users": self._users}
