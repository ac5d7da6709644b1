"""The stores that the contract is held against, each with a way to put it down and take it up again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from holdfast.stores.protocol import Store


class Disk(Protocol):
    """Where a store keeps its data: each `store()` is another process's view of the same data."""

    def store(self) -> Store: ...


class MemoryDisk:
    def __init__(self) -> None:
        from holdfast.stores.memory.store import MemoryStore

        self._only = MemoryStore()

    def store(self) -> Store:
        return self._only


class SqliteDisk:
    def __init__(self, path: Path) -> None:
        self._path = path

    def store(self) -> Store:
        from holdfast.stores.sqlite.store import SqliteStore

        return SqliteStore(self._path)


class PostgresDisk:
    def __init__(self, url: str) -> None:
        self._url = url

    def store(self) -> Store:
        from holdfast.stores.postgres.store import PostgresStore

        return PostgresStore(self._url)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    """An empty disk of each kind."""
    if request.param == "postgres":
        return PostgresDisk(request.getfixturevalue("postgres_url"))
    return MemoryDisk() if request.param == "memory" else SqliteDisk(tmp_path / "sessions.db")


@pytest.fixture
async def store(disk: Disk) -> AsyncIterator[Store]:
    """An open store on that disk."""
    store = disk.store()
    await store.open()
    yield store
    await store.close()
