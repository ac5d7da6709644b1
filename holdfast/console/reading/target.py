"""The store of the reading commands, by `--db`, `--store` or the current folder, and how they read it without its process."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from holdfast.console.reading import inspect, timeline
from holdfast.console.reading.timeline import Mailbox, Timeline
from holdfast.console.reading.views import Detail, Overview
from holdfast.errors import ConfigError, StoreError
from holdfast.stores import Store, open_store

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://", "postgres:")
_SUFFIXES = (".db", ".sqlite", ".sqlite3")


class Source(Protocol):
    """Answers what the sessions of a store do."""

    async def overview(
        self,
        *,
        ended: bool = False,
        status: str | None = None,
        agent: str | None = None,
        tenant: str | None = None,
        limit: int = 200,
        after: str | None = None,
    ) -> Overview:
        """As inspect.overview."""
        ...

    async def detail(self, id: str, *, turn: int | None = None, whole: bool = False) -> Detail:
        """As inspect.detail."""
        ...

    async def timeline(self, id: str, *, first: int, turns: int) -> Timeline:
        """As timeline.read."""
        ...

    async def mailbox(self, id: str) -> Mailbox:
        """As timeline.mailbox."""
        ...


@runtime_checkable
class Snapshots(Protocol):
    """A store that can be read in one consistent snapshot."""

    def snapshot(self) -> AbstractAsyncContextManager[None]: ...


class StoreSource:
    """Reads the store itself, without the process that may run it."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name

    async def overview(
        self,
        *,
        ended: bool = False,
        status: str | None = None,
        agent: str | None = None,
        tenant: str | None = None,
        limit: int = 200,
        after: str | None = None,
    ) -> Overview:
        return await inspect.overview(
            self._store, self._name, ended=ended, status=status, agent=agent, tenant=tenant, limit=limit, after=after
        )

    async def detail(self, id: str, *, turn: int | None = None, whole: bool = False) -> Detail:
        return await inspect.detail(self._store, id, self._name, turn=turn, whole=whole)

    async def timeline(self, id: str, *, first: int, turns: int) -> Timeline:
        return await timeline.read(self._store, id, first=first, turns=turns)

    async def mailbox(self, id: str) -> Mailbox:
        return await timeline.mailbox(self._store, id, now=time.time())


@asynccontextmanager
async def source(url: str) -> AsyncIterator[Source]:
    """A store to read, without the process that may run it.

    Raises:
        ConfigError: the URL names no store that can be read from outside.
        StoreError: the store does not exist, cannot be read, or is of another version of holdfast.
    """
    store = open_store(url, readonly=True)
    try:
        await store.open()
        if isinstance(store, Snapshots):
            async with store.snapshot():
                yield StoreSource(store, name(url))
        else:
            yield StoreSource(store, name(url))
    finally:
        await store.close()


def store_url(path: str | None, url: str | None) -> str:
    """The URL of the store: that of the file, the given URL, or that of the only holdfast database in the current folder.

    Raises:
        ConfigError: both are given, the URL names no store that can be read from outside, or the folder does not have exactly one database.
    """
    if path is not None and url is not None:
        raise ConfigError("give --db or --store, not both")
    if url is None:
        return _SQLITE + (_only_one(Path.cwd()) if path is None else path)
    if (url.startswith(_SQLITE) and url != _SQLITE) or url.startswith(_POSTGRES):
        return url
    known = "sqlite:///path.db, postgresql://host/database or postgres:dev, or --db path.db"
    raise ConfigError(f"{name(url)!r} cannot be read from outside: use {known}")


def name(url: str) -> str:
    """The name of a store for people: the path of a file, or the URL without user, password and options."""
    if url.startswith(_SQLITE):
        return url.removeprefix(_SQLITE)
    scheme, separator, rest = url.partition("?")[0].partition("#")[0].partition("://")
    return scheme + separator + rest.rpartition("@")[2]


def _only_one(folder: Path) -> str:
    from holdfast.stores.postgres.dev import DEFAULT_FOLDER
    from holdfast.stores.sqlite.file import is_database

    try:
        files = [path for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES and path.is_file()]
    except OSError as error:
        raise ConfigError(f"cannot read this folder ({error.strerror}): name a database with --db path.db") from error
    found, unreadable = list[str](), list[str]()
    for path in files:
        try:
            if is_database(str(path)):
                found.append(path.name)
        except StoreError as error:
            unreadable.append(str(error))
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"this folder has {len(found)} databases ({', '.join(found)}): name one with --db")
    if unreadable:
        raise ConfigError(f"this folder has no database that can be read ({'; '.join(unreadable)}): name one with --db path.db")
    if (folder / DEFAULT_FOLDER).is_dir():
        raise ConfigError("this folder has no SQLite file of holdfast: name its Postgres with --store postgres:dev")
    raise ConfigError("this folder has no holdfast database: name one with --db path.db or --store URL")
