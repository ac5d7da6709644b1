"""Connections to Postgres: parsing a URL, opening a connection, a pool of readers, and what an error means."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode

import asyncpg

from holdfast.errors import ConfigError, StoreError
from holdfast.stores.place import DEFAULT_SCHEMA, place_of
from holdfast.stores.postgres.dev import DevServer

T = TypeVar("T")

CONNECT_S = 10.0
"""How long opening a connection may take, in seconds."""

COMMAND_S = 25.0
"""How long a statement may take, in seconds: less than group commit waits for a batch (30)."""

IDLE_S = 15.0
"""How long a transaction through a pooler may be idle between two exchanges, in seconds: less than a statement that waits for it may
take."""

ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, EOFError)
"""The errors that asyncpg raises for a server that cannot be reached, has gone, refuses or is late."""

_DIGITS = 4  # most digits of statement_cache_size
# Plans are made once, often while the tables are empty. A plan that scans a whole table would stay in use after the table has grown.
_PLANS = (
    "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;"
    " SET plan_cache_mode = force_generic_plan; SET jit = off"
)
_READS_ONLY = "SET default_transaction_read_only = on"


class Address:
    """The address of a store: a parsed URL.

    `postgresql://user:password@host:port/database?schema=NAME&statement_cache_size=0` (or `postgres://`): `schema` holds the tables,
    default "holdfast"; `statement_cache_size=0` keeps no prepared statements, for a pooler in transaction mode; all other options are
    those of libpq. `postgres:dev` and `postgres:dev/FOLDER`: see DevServer.

    Attributes:
        display: the URL without its password.
        place: server, database and schema, the same for every URL of them (see stores.place).
        pooled: whether a connection keeps no state from one transaction to the next.
        dev: the development server to start, if the URL names one.

    Raises:
        ConfigError: the URL cannot be parsed.
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
            self.display, self._dsn = bare, ""
        else:
            self.display, self._dsn = _without_password(url), f"{bare}?{urlencode(options, quote_via=quote)}"
        if self.schema != DEFAULT_SCHEMA:
            self.display += f"?schema={self.schema}"
        if not all(_is_port(port) for port in _ports(bare, options)):
            # Checked here: the system may take the last 16 bits of a larger number, and reach another server.
            raise ConfigError(f"{self.display} cannot be understood: a port is a number from 1 to 65535")

    async def connect(self, name: str, *, reads_only: bool = False, plan_for_growth: bool = False) -> asyncpg.Connection:
        """A new connection. Raises one of ERRORS.

        Args:
            name: the application name in the server's list of connections.
            reads_only: the server refuses every write on it.
            plan_for_growth: for statements that touch few rows of large tables: never scan a whole table.
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
                connection_class=asyncpg.Connection if not self.pooled else PooledReader if reads_only else PooledConnection,
            )
        except (ValueError, OverflowError):  # the latter of a port that does not exist
            # The error's text may hold a part of the password: a character that is not percent-encoded shifts the parts of a URL.
            raise ConfigError(
                f"{self.display} cannot be understood: check its options, and percent-encode what is special in user and password"
            ) from None
        try:
            if reads_only and not self.pooled:
                await connection.execute(_READS_ONLY)
            if plan_for_growth and not self.pooled:
                await connection.execute(_PLANS)
        except BaseException:
            connection.terminate()
            raise
        return connection


class PooledConnection(asyncpg.Connection):  # type: ignore[misc]
    """A connection through a pooler, which gives another server connection to each transaction.

    asyncpg sends a statement with arguments in two exchanges: only in a transaction do both reach the same server connection. A
    transaction that fails for another reason than the server's refusal is not rolled back: the caller drops the connection.
    """

    _begin = "BEGIN"

    async def fetch(self, *args: Any, **options: Any) -> Any:
        return await self._together(super().fetch, *args, **options)

    async def fetchrow(self, *args: Any, **options: Any) -> Any:
        return await self._together(super().fetchrow, *args, **options)

    async def fetchval(self, *args: Any, **options: Any) -> Any:
        return await self._together(super().fetchval, *args, **options)

    async def _together(self, call: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
        if self.is_in_transaction():
            return await call(*args, **options)
        # A process suspended here would block the next owner for as long: the server ends its transaction.
        await self.execute(f"{self._begin}; SET LOCAL idle_in_transaction_session_timeout = '{round(IDLE_S * 1000)}ms'")
        try:
            result = await call(*args, **options)
        except asyncpg.PostgresError:
            if not self.is_closed():
                await self.execute("ROLLBACK")
            raise
        await self.execute("COMMIT")
        return result


class PooledReader(PooledConnection):
    """The same, for reads only."""

    _begin = "BEGIN READ ONLY"


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise ConfigError(f"statement_cache_size is {text[:40]!r}: give a number up to {10**_DIGITS - 1}, 0 for none")
    return int(text)


def _ports(bare: str, options: dict[str, str]) -> list[str]:
    hosts = bare.partition("://")[2].partition("/")[0].rpartition("@")[2].split(",")
    return [host.rpartition(":")[2] for host in hosts if ":" in host] + options.get("port", "").split(",")


def _is_port(text: str) -> bool:
    """Whether it may be one; a text that is no number fails when it is used."""
    return not (text.isascii() and text.isdigit()) or (len(text) <= 5 and 0 < int(text) < 1 << 16)


def _without_password(url: str) -> str:
    """The URL without the password, also where a password that is not percent-encoded makes it no URL."""
    bare = url.partition("?")[0]
    scheme, _, rest = bare.partition("://")
    credentials, at, place = rest.rpartition("@")
    if not at and "@" in url:
        return f"{scheme}://..."
    return f"{scheme}://{credentials.partition(':')[0]}{at}{place}"


def is_gone(error: BaseException) -> bool:
    """Whether the connection or the server is gone; False where the server refused a statement."""
    if isinstance(error, asyncpg.PostgresError):
        # Connection lost, server shut down or crashed, internal fault, not ready for connections; 25P03: idle in transaction for too long.
        state = error.sqlstate or ""
        return (state[:2] in ("08", "57", "58", "XX", "") and state != "57014") or state == "25P03"
    return not isinstance(error, ValueError)  # asyncpg's own DataError: an argument that could not be sent


def passes(error: BaseException) -> bool:
    """Whether a refused write may succeed later: not where it has a value that no table can hold, or violates a constraint."""
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
    """A pool of connections for reading. A connection whose call was cancelled is dropped: it is in an unknown state.

    Args:
        address: the address to connect to.
        size: most connections; when all are in use, a read waits for one, within its deadline.
        deadline_s: how long a read may take, in seconds, including the wait.
    """

    def __init__(self, address: Address, *, size: int = 3, deadline_s: float = 15.0) -> None:
        self._address, self._deadline_s = address, deadline_s
        self._slots = asyncio.Semaphore(size)
        self._free: list[asyncpg.Connection] = []
        self._closed = False

    async def run(self, read: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """The result of `read` on a connection; on a new one, where an old one turns out to be dead.

        Raises:
            StoreError: the server cannot be reached, is late, or refuses.
        """
        try:
            async with asyncio.timeout(self._deadline_s), self._slots:
                if self._closed:
                    raise StoreError(f"{self._address.display} is not open")
                while self._free:
                    try:
                        return await self._on(self._free.pop(), read)
                    except ERRORS as error:
                        if not is_gone(error):
                            raise
                return await self._on(await self._address.connect("reader", reads_only=True), read)
        except ERRORS as error:
            raise StoreError(f"{self._address.display} cannot be read: {text_of(error)}") from error

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
                await disconnect(connection)
        finally:
            for connection in free:
                connection.terminate()  # no effect on one that is closed


async def disconnect(connection: asyncpg.Connection | None) -> None:
    """Close a connection, by force where the server does not answer."""
    if connection is None or connection.is_closed():
        return
    try:
        await connection.close(timeout=2.0)
    except ERRORS:
        connection.terminate()  # the server is gone or busy: it frees its side when it notices
    except BaseException:
        connection.terminate()
        raise
