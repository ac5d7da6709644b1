"""Finds the control socket of a process, from the names that a person gives, or from the environment and the current folder."""

from __future__ import annotations

import os
import stat

from holdfast.console.reading import target
from holdfast.console.wire import identity
from holdfast.console.wire.socket import VARIABLE, candidates, check_path, exists
from holdfast.errors import ConfigError, NodeUnreachable, StoreError
from holdfast.stores.sqlite.holder import State, state
from holdfast.stores.sqlite.lock import holder

_URLS = ("sqlite:///", "postgresql://", "postgres://", "postgres:", "memory:")


def find(path: str | None = None, url: str | None = None, socket: str | None = None) -> str | None:
    """The control socket, if its file exists; else None. Only a connection shows whether a process listens.

    Args:
        path, url: the store, as in `--db` and `--store`; without either the environment decides, then the current folder.
        socket: the socket itself; its file need not exist.

    Raises:
        ConfigError: no option names a store and the folder does not have exactly one, or the socket's path is too long.
    """
    if socket is None and path is None and url is None:
        socket = os.environ.get(VARIABLE) or None
    if socket is not None:
        return check_path(socket)
    identity = _identity(path, url)
    return next((found for found in (*_named(identity), *candidates(identity)) if exists(found)), None)


def need(path: str | None = None, url: str | None = None, socket: str | None = None) -> str:
    """As `find`, for commands that need a running process. Raises NodeUnreachable, too, if there is none."""
    found = find(path, url, socket)
    if found is None:
        store = _identity(path, url)
        raise NodeUnreachable(
            next(candidates(store)),
            f"no process listens for commands on {store}: "
            "start it with holdfast run, give your own Runtime control=True, or name its socket with --socket",
        )
    return found


def of_target(text: str | os.PathLike[str] | None) -> str:
    """The socket that a program names: by its path, by the store's URL or file, or None for that of the current folder.

    Raises:
        ConfigError: `text` and the current folder do not name one store.
        NodeUnreachable: no process runs it.
    """
    if text is None:
        return need()
    named = os.fspath(text)
    if named.startswith(_URLS):
        return need(url=named)
    try:
        is_file = stat.S_ISREG(os.stat(named).st_mode)
    except OSError:
        is_file = False
    except ValueError as error:
        raise ConfigError(f"{named!a} is no path: {error}") from error
    return need(path=named) if is_file else need(socket=named)


def _named(store: str) -> list[str]:
    """The socket that the lock file of a SQLite store names, if a process of this machine holds it."""
    if not store.startswith("sqlite:"):
        return []
    try:
        found = holder(store.removeprefix("sqlite:"))
    except StoreError:
        return []  # another user's: that of the default path is all that there is to try
    return [found.socket] if found is not None and found.socket and state(found) is State.RUNS else []


def _identity(path: str | None, url: str | None) -> str:
    if url is not None and url.startswith("memory:"):
        return identity.of_url(url)
    try:
        return identity.of_url(target.store_url(path, url))
    except ConfigError:
        # The identity of a process without a file of its own is the folder in which it was started.
        if path is None and url is None and any(exists(found) for found in candidates(identity.of_url("memory:"))):
            return identity.of_url("memory:")
        raise
