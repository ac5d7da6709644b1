"""From what a person names, or does not, to the control socket of the process that is meant."""

from __future__ import annotations

import os
import stat

from holdfast.console.reading import target
from holdfast.console.wire import identity
from holdfast.console.wire.socket import VARIABLE, candidates, check_path, exists
from holdfast.errors import ConfigError, NodeUnreachable

_URLS = ("sqlite:///", "postgresql://", "postgres://", "postgres:", "memory:")


def find(path: str | None = None, url: str | None = None, socket: str | None = None) -> str | None:
    """The socket that is meant, if its file is there; None where it is not. Whether somebody listens only a connection can tell.

    Args:
        path, url: of the store, as `--db` and `--store` name it; without either the environment decides, then the current folder.
        socket: the socket itself; it need not be there.

    Raises:
        ConfigError: nothing says which store is meant, or the socket's path is too long.
    """
    if socket is None and path is None and url is None:
        socket = os.environ.get(VARIABLE) or None
    if socket is not None:
        return check_path(socket)
    return next((found for found in candidates(_identity(path, url)) if exists(found)), None)


def need(path: str | None = None, url: str | None = None, socket: str | None = None) -> str:
    """The same where only a running process will do. Raises NodeUnreachable, too, where there is none."""
    found = find(path, url, socket)
    if found is None:
        where = next(candidates(_identity(path, url)))
        raise NodeUnreachable(where, "no process runs it: start it with holdfast run, or name its control socket with --socket")
    return found


def of_target(text: str | os.PathLike[str] | None) -> str:
    """The socket that a program means: by its path, by the store's URL or file, or None for that of the current folder.

    Raises:
        ConfigError: nothing says which store is meant.
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


def _identity(path: str | None, url: str | None) -> str:
    if url is not None and url.startswith("memory:"):
        return identity.of_url(url)
    try:
        return identity.of_url(target.store_url(path, url))
    except ConfigError:
        # A process without a file of its own is known by the folder that it was started in.
        if path is None and url is None and any(exists(found) for found in candidates(identity.of_url("memory:"))):
            return identity.of_url("memory:")
        raise
