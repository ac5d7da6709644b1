"""Durable state: changes as values (`ops`), rows (`records`), the `Store` protocol and its implementations."""

from __future__ import annotations

from holdfast.errors import ConfigError
from holdfast.given import brief
from holdfast.stores.protocol import Store

__all__ = ["Store", "open_store"]


def open_store(url: str, *, readonly: bool = False) -> Store:
    """The store that a URL names.

    "sqlite:///relative.db" or "sqlite:////absolute.db", "postgresql://user:password@host/database" (see postgres.link.Address for its
    options), "postgres:dev" (a server of its own, see postgres.dev), or "memory:".

    Args:
        readonly: to look into it while another process may run it: `open` takes no ownership and changes nothing, `apply` is refused.

    Raises:
        ConfigError: it names none, or none that can be looked into.
    """
    if url == "memory:":
        if readonly:
            raise ConfigError("'memory:' cannot be looked into from outside: it is in the process that made it")
        from holdfast.stores.memory.store import MemoryStore

        return MemoryStore()
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        from holdfast.stores.sqlite.store import SqliteStore

        return SqliteStore(url.removeprefix("sqlite:///"), readonly=readonly)
    if url.startswith(("postgresql://", "postgres://")) or url.partition("?")[0] == "postgres:dev" or url.startswith("postgres:dev/"):
        from holdfast.stores.postgres.store import PostgresStore

        return PostgresStore(url, readonly=readonly)
    # The rest of a URL may hold a password.
    name = brief(url) if "@" not in url else f"{url.partition('://')[0]}://..."
    raise ConfigError(f"{name} names no store: use sqlite:///path.db, postgresql://user@host/database, postgres:dev or memory:")
