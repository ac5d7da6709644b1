"""Durable state: changes as values (`ops`), rows (`records`), the `Store` protocol and its implementations."""

from __future__ import annotations

from holdfast.errors import ConfigError
from holdfast.stores.protocol import Store

__all__ = ["Store", "open_store"]


def open_store(url: str) -> Store:
    """The store that a URL names: "sqlite:///relative.db", "sqlite:////absolute.db" or "memory:".

    Raises:
        ConfigError: it names none.
    """
    if url == "memory:":
        from holdfast.stores.memory import MemoryStore

        return MemoryStore()
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        from holdfast.stores.sqlite import SqliteStore

        return SqliteStore(url.removeprefix("sqlite:///"))
    raise ConfigError(f"{url!r} names no store: use sqlite:///path.db or memory:")
