"""Which store the reading commands mean, by `--db`, `--store` or the current folder, and whom they ask about it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from holdfast.console.reading import inspect, timeline
from holdfast.console.reading.views import Detail, Overview
from holdfast.console.wire.answers import Mailbox, Timeline
from holdfast.errors import ConfigError, NodeUnreachable
from holdfast.events import log
from holdfast.stores import Store, open_store
from holdfast.stores.records import SHOWN_STATUSES

if TYPE_CHECKING:
    from holdfast.console.client.node import Node

T = TypeVar("T")

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://", "postgres:")
_ANSWER_S = 10.0
_SUFFIXES = (".db", ".sqlite", ".sqlite3")


class Source(Protocol):
    """Whoever can say what the sessions of a store are doing."""

    async def overview(
        self, *, ended: bool = False, status: str | None = None, agent: str | None = None, tenant: str | None = None, limit: int = 200
    ) -> Overview:
        """As inspect.overview."""
        ...

    async def detail(self, id: str, *, turn: int | None = None) -> Detail:
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
    """A store that can be read as of one moment."""

    def snapshot(self) -> AbstractAsyncContextManager[None]: ...


class StoreSource:
    """Reads the store itself, without the process that may run it."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name

    async def overview(
        self, *, ended: bool = False, status: str | None = None, agent: str | None = None, tenant: str | None = None, limit: int = 200
    ) -> Overview:
        return await inspect.overview(self._store, self._name, ended=ended, status=status, agent=agent, tenant=tenant, limit=limit)

    async def detail(self, id: str, *, turn: int | None = None) -> Detail:
        return await inspect.detail(self._store, id, self._name, turn=turn)

    async def timeline(self, id: str, *, first: int, turns: int) -> Timeline:
        return await timeline.read(self._store, id, first=first, turns=turns)

    async def mailbox(self, id: str) -> Mailbox:
        return await timeline.mailbox(self._store, id, now=time.time())


class NodeSource:
    """Asks the process that runs the store: its lines also say what each session does right now."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def overview(
        self, *, ended: bool = False, status: str | None = None, agent: str | None = None, tenant: str | None = None, limit: int = 200
    ) -> Overview:
        if status is not None and status not in SHOWN_STATUSES:
            raise ConfigError(f"there is no status {status!r}: use one of {', '.join(SHOWN_STATUSES)}")
        return await self._node.get("/sessions", Overview, all=ended, status=status, agent=agent, tenant=tenant, limit=limit)

    async def detail(self, id: str, *, turn: int | None = None) -> Detail:
        from holdfast.console.client.node import path_of

        return await self._node.get(path_of(id), Detail, turn=turn)

    async def timeline(self, id: str, *, first: int, turns: int) -> Timeline:
        from holdfast.console.client.node import path_of

        return await self._node.get(f"{path_of(id)}/timeline", Timeline, first=first, turns=turns)

    async def mailbox(self, id: str) -> Mailbox:
        from holdfast.console.client.node import path_of

        return await self._node.get(f"{path_of(id)}/mailbox", Mailbox)


async def ask(question: Callable[[Source], Awaitable[T]], *, path: str | None, url: str | None, socket: str | None) -> T:
    """The answer of the process that runs the store, where there is one; else that of the store: the one place where that is chosen.

    Args:
        path, url: of the store, as `--db` and `--store` name it.
        socket: the control socket of the process; then only that will do.

    Raises:
        ConfigError: nothing says which store is meant, or it is none that can be looked into from outside.
        NodeUnreachable: nobody answers at `socket`.
        StoreError: the store is not there, cannot be read, or is not of this holdfast.
    """
    from holdfast.console.client import reach

    if path is not None and url is not None:
        raise ConfigError("give --db or --store, not both")
    listening = reach.find(path, url, socket)
    if listening is not None:
        from holdfast.console.client.node import open_node

        try:
            async with open_node(listening, timeout_s=_ANSWER_S) as node:
                return await question(NodeSource(node))
        except NodeUnreachable as error:
            if socket is not None:
                raise
            # A socket that outlived its process, or a process that is blocked: its store can be read all the same.
            if error.sent:
                log.warning("%s; what follows is read from its store", error)
    async with source(store_url(path, url)) as found:
        return await question(found)


@asynccontextmanager
async def source(url: str) -> AsyncIterator[Source]:
    """A store to read, without the process that may run it.

    Raises:
        ConfigError: the URL names no store that can be looked into from outside.
        StoreError: the store is not there, cannot be read, or is not of this holdfast.
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
    """The URL of the store that is meant: of the file given, the URL given, or the only holdfast database of the current folder.

    Raises:
        ConfigError: both were given, the URL is of nothing that can be looked into, or the folder has none or more than one.
    """
    if path is not None and url is not None:
        raise ConfigError("give --db or --store, not both")
    if url is None:
        return _SQLITE + (_only_one(Path.cwd()) if path is None else path)
    if (url.startswith(_SQLITE) and url != _SQLITE) or url.startswith(_POSTGRES):
        return url
    raise ConfigError(
        f"{name(url)!r} cannot be looked into from outside: use sqlite:///path.db or postgresql://host/database, or --db path.db"
    )


def name(url: str) -> str:
    """A store as a person is told of it: the path of a file, or the URL without user, password and options."""
    if url.startswith(_SQLITE):
        return url.removeprefix(_SQLITE)
    scheme, separator, rest = url.partition("?")[0].partition("#")[0].partition("://")
    return scheme + separator + rest.rpartition("@")[2]


def _only_one(folder: Path) -> str:
    from holdfast.stores.sqlite_file import is_database

    files = (path for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES and path.is_file())
    found = [path.name for path in files if is_database(str(path))]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"this folder has {len(found)} databases ({', '.join(found)}): name one with --db")
    raise ConfigError("this folder has no holdfast database: name one with --db path.db")
