"""The airline's tables: read-only ones that all sessions share, and what a session sees of them after its own writes."""

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
    """The tables or the recordings are not there. The text says what to give instead."""


def read_json(path: Path) -> Any:
    """What a JSON file holds, gzipped (`.gz`) or not.

    Raises:
        MissingData: it is not there, or is no JSON.
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
    """What all sessions start from. Nobody changes it.

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
            MissingData: one of them is not there.
        """
        return cls(*(_table(directory, name) for name in ("flights", "reservations", "users")))


def _table(directory: Path, name: str) -> Rows:
    plain = directory / f"{name}.json"
    table: Rows = read_json(plain if plain.exists() else directory / f"{name}.json.gz")
    return table


@dataclass(frozen=True)
class Change:
    """What a write does: the rows as they are after it, and what it answers."""

    result: str
    reservations: Rows = field(default_factory=dict)
    users: Rows = field(default_factory=dict)


class View:
    """The tables as one session sees them: the shared ones, and over them the rows that it changed."""

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
        """See the rows of `change` from now on."""
        self._reservations.update(copy.deepcopy(change.reservations))
        self._users.update(copy.deepcopy(change.users))

    def changed(self) -> dict[str, Rows]:
        """All rows that differ from the shared ones, by table."""
        return {"reservations": self._reservations, "users": self._users}
