"""Connections to Postgres: what a URL says, how one is opened, a few for reading, and what an error of one means."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode

import asyncpg

from holdfast.errors import ConfigError, StoreError
from holdfast.stores.place import DEFAULT_SCHEMA, place_of
from holdfast.stores.postgres_dev import DevServer

T = TypeVar("T")

CONNECT_S = 10.0
"""How long opening a connection may take, in seconds."""

COMMAND_S = 25.0
"""How long a statement may take, in seconds: less than group commit waits for a batch (30)."""

IDLE_S = 15.0
"""How long a transaction through a pooler may rest between two exchanges, in seconds: less than a statement that waits for it may take."""

ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, EOFError)
"""Everything that asyncpg raises for a server that cannot be reached, has gone, refuses or is late."""

_DIGITS = 4  # of how many prepared statements a connection may keep
# Plans are made once, often while the tables are empty: a plan that reads a whole table would stay after it has grown.
_PLANS = (
    "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;"
    " SET plan_cache_mode = force_generic_plan; SET jit = off"
)


class Address:
    """Where a store is: a URL taken apart.

    `postgresql://user:password@host:port/database?schema=NAME&statement_cache_size=0` (or `postgres://`): `schema` holds the tables,
    default "holdfast"; `statement_cache_size=0` keeps no prepared statements, for a pooler in transaction mode; all else is as in
    libpq. `postgres:dev` and `postgres:dev/FOLDER`: see DevServer.

    Attributes:
        shown: the URL without its password.
        place: server, database and schema, the same for every URL of them (see stores.place).
        pooled: whether nothing may be kept in a connection from one transaction to the next.
        dev: the server to start, if it is one of ours.

    Raises:
        ConfigError: it cannot be understood.
    """

    def __init__(self, url: str, schema: str | None = None) -> None:
        bare, _, query = url.partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        self.schema = schema or options.pop("schema", DEFAULT_SCHEMA)
        options.pop("schema", None)
        self.place = place_of(url, self.schema)
        self._cache = _count(options.pop("statement_cache_size", "100"))
        self.pooled = self._cache == 0
        self.dev: DevServer | None = None
        if bare == "postgres:dev" or bare.startswith("postgres:dev/"):
            self.dev = DevServer(unquote(bare.removeprefix("postgres:dev").removeprefix("/")) or None)
            self.shown, self._dsn = bare, ""
        else:
            self.shown, self._dsn = _shown(url), f"{bare}?{urlencode(options, quote_via=quote)}"
        if self.schema != DEFAULT_SCHEMA:
            self.shown += f"?schema={self.schema}"
        if not all(_is_port(port) for port in _ports(bare, options)):
            # Not left to the system: of a number that is too large it may take the last 16 bits, and reach somebody else.
            raise ConfigError(f"{self.shown} cannot be understood: a port is a number from 1 to 65535")

    async def connect(self, name: str, *, plan_for_growth: bool = False) -> asyncpg.Connection:
        """A new connection; `name` is what the server lists it as. Raises what is in ERRORS.

        Args:
            plan_for_growth: for statements that touch few rows of tables however large: never read a table from end to end.
        """
        dsn = self._dsn if self.dev is None else await self.dev.start()
        try:
            connection = await asyncpg.connect(
                dsn,
                timeout=CONNECT_S,
                command_timeout=COMMAND_S,
                statement_cache_size=self._cache,
                max_cached_statement_lifetime=0,
                server_settings={"application_name": f"holdfast {name}"},
                connection_class=PooledConnection if self.pooled else asyncpg.Connection,
            )
        except (ValueError, OverflowError):  # the latter of a port that there is not
            # Its text may hold a part of the password: a character in it that is not percent-encoded shifts what is taken for what.
            raise ConfigError(
                f"{self.shown} cannot be understood: check its options, and percent-encode what is special in user and password"
            ) from None
        try:
            if plan_for_growth and not self.pooled:
                await connection.execute(_PLANS)
        except BaseException:
            connection.terminate()
            raise
        return connection


class PooledConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection through a pooler, which gives another server's connection to each transaction.

    To asyncpg a statement with arguments is two exchanges: only in a transaction do both meet the same server. One that fails for another
    reason than the server's refusal is left as it is: whoever called drops the connection.
    """

    async def fetch(self, *args: Any, **options: Any) -> Any:
        return await self._together(super().fetch, *args, **options)

    async def fetchrow(self, *args: Any, **options: Any) -> Any:
        return await self._together(super().fetchrow, *args, **options)

    async def fetchval(self, *args: Any, **options: Any) -> Any:
        return await self._together(super().fetchval, *args, **options)

    async def _together(self, call: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
        if self.is_in_transaction():
            return await call(*args, **options)
        # A process that was stopped here would hold up whoever takes over, and this as long as it is stopped: the server ends it.
        await self.execute(f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = '{round(IDLE_S * 1000)}ms'")
        try:
            result = await call(*args, **options)
        except asyncpg.PostgresError:
            if not self.is_closed():
                await self.execute("ROLLBACK")
            raise
        await self.execute("COMMIT")
        return result


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise ConfigError(f"statement_cache_size is {text[:40]!r}: give a number up to {10**_DIGITS - 1}, 0 for none")
    return int(text)


def _ports(bare: str, options: dict[str, str]) -> list[str]:
    hosts = bare.partition("://")[2].partition("/")[0].rpartition("@")[2].split(",")
    return [host.rpartition(":")[2] for host in hosts if ":" in host] + options.get("port", "").split(",")


def _is_port(text: str) -> bool:
    """Whether it may be one; what is no number at all is found when it is used."""
    return not (text.isascii() and text.isdigit()) or (len(text) <= 5 and 0 < int(text) < 1 << 16)


def _shown(url: str) -> str:
    """Without the password, also where one that is not percent-encoded makes it no URL at all."""
    bare = url.partition("?")[0]
    scheme, _, rest = bare.partition("://")
    credentials, at, place = rest.rpartition("@")
    if not at and "@" in url:
        return f"{scheme}://..."
    return f"{scheme}://{credentials.partition(':')[0]}{at}{place}"


def is_gone(error: BaseException) -> bool:
    """Whether the connection, or the server, is gone, rather than a statement refused."""
    if isinstance(error, asyncpg.PostgresError):
        # Connection lost, server shut down or crashed, internal fault, not ready to talk to anybody; 25P03: it rested for too long.
        state = error.sqlstate or ""
        return (state[:2] in ("08", "57", "58", "XX", "") and state != "57014") or state == "25P03"
    return not isinstance(error, ValueError)  # asyncpg's own DataError: an argument that could not be sent


def passes(error: BaseException) -> bool:
    """Whether a write that was refused may go through later: not where it holds what no table can, or breaks a rule of one."""
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return True
    refused = (
        asyncpg.DataError,
        asyncpg.IntegrityConstraintViolationError,
        asyncpg.SyntaxOrAccessError,
        asyncpg.ProgramLimitExceededError,
        ValueError,  # asyncpg's own DataError
    )
    return isinstance(error, ERRORS) and not isinstance(error, refused)


def text_of(error: BaseException) -> str:
    """An error as one line for a person."""
    text = str(error).strip()
    if isinstance(error, TimeoutError) and not text:
        return "no answer in time"
    return text.splitlines()[0] if text else type(error).__name__


class Readers:
    """A few connections for reading. One whose call was cut off is dropped, not used again: cancellation leaves it in an unknown state.

    Args:
        address: where to.
        size: how many at most; who comes when all are taken waits, within its deadline.
        deadline_s: how long a read may take, the wait included.
    """

    def __init__(self, address: Address, *, size: int = 3, deadline_s: float = 15.0) -> None:
        self._address, self._deadline_s = address, deadline_s
        self._slots = asyncio.Semaphore(size)
        self._free: list[asyncpg.Connection] = []
        self._closed = False

    async def run(self, read: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """What `read` gets from a connection; on a new one, where an old one turns out to be dead.

        Raises:
            StoreError: the server cannot be reached, is late, or refuses.
        """
        try:
            async with asyncio.timeout(self._deadline_s), self._slots:
                if self._closed:
                    raise StoreError(f"{self._address.shown} is not open")
                while self._free:
                    try:
                        return await self._on(self._free.pop(), read)
                    except ERRORS as error:
                        if not is_gone(error):
                            raise
                return await self._on(await self._address.connect("reader"), read)
        except ERRORS as error:
            raise StoreError(f"{self._address.shown} cannot be read: {text_of(error)}") from error

    async def _on(self, connection: asyncpg.Connection, read: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        try:
            result = await read(connection)
        except BaseException:
            connection.terminate()
            raise
        if self._closed:
            connection.terminate()
        else:
            self._free.append(connection)
        return result

    async def close(self) -> None:
        """Close them all; one that is in use closes after its call."""
        self._closed = True
        free, self._free = self._free, []
        try:
            for connection in free:
                await put_down(connection)
        finally:
            for connection in free:
                connection.terminate()  # of those that are closed it takes no notice


async def put_down(connection: asyncpg.Connection | None) -> None:
    """Close a connection, by force where it does not take part."""
    if connection is None or connection.is_closed():
        return
    try:
        await connection.close(timeout=2.0)
    except ERRORS:
        connection.terminate()  # the server is gone or busy: it frees its side when it finds out
    except BaseException:
        connection.terminate()
        raise
