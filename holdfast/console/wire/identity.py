"""The identity of a store, as one text that its process and every client compute alike: the path of the control socket follows from it."""

from __future__ import annotations

import os
from typing import Any

from holdfast.stores.place import place_of

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://", "postgres:dev")


def of_url(url: str) -> str:
    """The identity of the store that a URL names: its real file, or its server, database and schema; never a user or password.

    For a store that only its process can see, such as one in memory, it is the folder in which the process was started.
    """
    if url.startswith(_SQLITE):
        return f"sqlite:{os.path.realpath(url.removeprefix(_SQLITE))}"
    return place_of(url) if url.startswith(_POSTGRES) else f"{url.partition(':')[0]}:{os.getcwd()}"


def of_store(store: Any) -> str:
    """The identity of a store, the same as that of its URL."""
    place = getattr(getattr(store, "address", None), "place", None)
    return str(place) if place is not None else of_url(url_of(store))


def url_of(store: Any) -> str:
    """The name of a store for people: its URL without a password; for a store that is not holdfast's own, its class."""
    path = getattr(store, "path", None)
    if path is not None:
        return f"{_SQLITE}{path}"
    url = getattr(getattr(store, "address", None), "display", None)
    if url is not None:
        return str(url)
    return "memory:" if type(store).__name__ == "MemoryStore" else f"{type(store).__name__}:"


def can_be_named(store: Any) -> bool:
    """Whether another process can name this store by a URL, and so find the process that runs it."""
    return getattr(store, "path", None) is not None or getattr(getattr(store, "address", None), "place", None) is not None
