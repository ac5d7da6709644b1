"""The store in Postgres: one process writes, any number may read.

The writing process holds an advisory lock on a connection of its own: a second writer is refused at once, and a killed one does not block
the next. The lock does not protect the data; the incarnation in the row of `nodes` does. It grows whenever the store is opened, and each
batch is one statement that writes nothing where the row has another incarnation. After a batch whose outcome is unknown the incarnation
grows too, before the next read: a statement still under way commits before that, or never.
"""

from __future__ import annotations

import asyncio
import os
import socket
import zlib
from collections.abc import Sequence
from typing import Any, NoReturn

import asyncpg

from holdfast.clock import Clock, SystemClock
from holdfast.errors import ConfigError, NotWritten, OutcomeUnknown, StoreError, StoreLocked, StoreLost, WriteRefused
from holdfast.events import log
from holdfast.stores.ops import Op, Result
from holdfast.stores.postgres import schema
from holdfast.stores.postgres.interpreter import Interpreter, Statements, Write
from holdfast.stores.postgres.link import ERRORS, Address, Readers, disconnect, is_gone, passes, text_of
from holdfast.stores.postgres.reads import Reads
from holdfast.stores.records import Owner

LOCK_CLASS = 0x686F6C64  # "hold": the first of the two numbers of the advisory lock


class PostgresStore(Reads):
    """A store in one schema of a Postgres database.

    Args:
        url: as in postgres.link.Address.
        schema: the schema that holds the tables; default the URL's, else "holdfast".
        readonly: take no ownership and change nothing, to read a store that another process runs.

    Attributes:
        overlaps: True: the server writes in another process, so group commit gains by gathering ops while a batch is under way.
    """

    overlaps = True

    def __init__(self, url: str, *, schema: str | None = None, readonly: bool = False, clock: Clock | None = None) -> None:
        self.address = Address(url, schema)
        self.clock = clock or SystemClock()
        self.readonly = readonly
        self._statements = Statements(self.address.schema)
        super().__init__(self.address.schema, LOCK_CLASS, zlib.crc32(self.address.schema.encode()))
        self._token = b""
        self._unclean = False
        self._lock: asyncpg.Connection | None = None
        self._locked_by: int | None = None
        self._writer: asyncpg.Connection | None = None
        self._interpreter: Interpreter | None = None
        self._readers: Readers | None = None
        self._lost = ""
        self._mending = asyncio.Lock()

    @property
    def unclean(self) -> bool:
        return self._unclean

    # ------------------------------------------------------------ ownership

    async def open(self) -> None:
        """Take the lock and the node's row, bring the tables up to date. Raises as Store.open, and StoreError if it cannot be reached."""
        if self._readers is not None:
            raise StoreLocked(f"{self.address.display} is open already: close it first")
        try:
            self._lost = ""
            if self.readonly:
                await self._open_readonly()
            else:
                await self._take()
            self._readers = Readers(self.address)
        except ERRORS as error:
            await self._drop_all()
            raise StoreError(f"cannot open {self.address.display}: {text_of(error)}") from error
        except BaseException:
            # Unconditional clean-up, then re-raise: the lock must not stay with a store that is not open.
            await self._drop_all()
            raise

    async def _open_readonly(self) -> None:
        dev = self.address.dev
        if dev is not None and not dev.data.exists():
            raise StoreError(f"{self.address.display} has no database in {dev.folder}: start holdfast on it first")
        connection = await self.address.connect("reader", reads_only=True)
        try:
            version = await schema.version_of(connection, self.address.schema, self.address.display)
        finally:
            await disconnect(connection)
        if version == 0:
            raise StoreError(f"{self.address.display} has no holdfast tables: check the URL, or start holdfast on it first")
        if version < len(schema.MIGRATIONS):
            raise StoreError(f"{self.address.display} is of an older holdfast (schema {version}): start holdfast run on it once")

    async def _take(self) -> None:
        lock, taken = await self._ask_for_lock()
        if not taken:
            try:
                owner = await self._owner_by(lock)
            finally:
                await disconnect(lock)
            who = f"process {owner.process} on {owner.host}" if owner.process else "another process"
            raise StoreLocked(f"{self.address.display} is in use by {who}: stop it first, or name another database or ?schema=NAME")
        self._lock = lock
        self._token = os.urandom(16)
        self._writer = await self.address.connect("writer", plan_for_growth=True)
        await schema.migrate(self._writer, self.address.schema, self.address.display)
        node = await self._writer.fetchrow(
            f"UPDATE {self._nodes} new SET incarnation = new.incarnation + 1, token = $1, process = $2, host = $3, clean = false"
            f" FROM {self._nodes} old WHERE new.id = 1 AND old.id = 1 RETURNING new.incarnation, old.clean",
            self._token,
            os.getpid(),
            socket.gethostname(),
        )
        if node is None:
            raise StoreError(f"{self.address.display} has lost the row of its node: restore the database from a backup")
        self._unclean = not node[1]
        self._interpreter = await self._interpreter_at(self._writer, node[0])

    async def _interpreter_at(self, writer: asyncpg.Connection, incarnation: int) -> Interpreter:
        """An interpreter for a new incarnation: statements of earlier incarnations have committed by now, or never will."""
        arrivals = await writer.fetchval(f"SELECT coalesce(max(seq), 0) FROM {schema.quoted(self.address.schema)}.messages")
        return Interpreter(self._statements, incarnation, arrivals)

    async def _ask_for_lock(self) -> tuple[asyncpg.Connection, bool]:
        """A new connection, and whether it holds the lock, which lasts as long as the connection. On an error the connection is dropped."""
        connection = await self.address.connect("lock")
        try:
            kind = ""
            if self.address.pooled:
                # A pooler gives a connection away at the end of a transaction, so the lock belongs to a transaction that never ends. That
                # transaction has no snapshot and no id, so it does not hold up vacuum.
                await connection.execute("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0")
                kind = "xact_"
            taken = await connection.fetchval(f"SELECT pg_try_advisory_{kind}lock($1, $2)", LOCK_CLASS, self._signed_key)
            if taken:
                self._locked_by = await connection.fetchval("SELECT pg_backend_pid()")
        except BaseException:
            connection.terminate()
            raise
        return connection, bool(taken)

    @property
    def _signed_key(self) -> int:
        return self._lock_key - (1 << 32) if self._lock_key >= 1 << 31 else self._lock_key

    @property
    def _nodes(self) -> str:
        return f"{schema.quoted(self.address.schema)}.nodes"

    async def close(self) -> None:
        """Write the clean-shutdown marker, close the connections, give up the lock. Idempotent."""
        writer, self._interpreter = self._writer, None
        try:
            if writer is not None and not self._lost:
                await writer.execute(f"UPDATE {self._nodes} SET clean = true WHERE id = 1 AND token = $1", self._token)
        except ERRORS as error:
            log.warning("%s: could not write the clean-shutdown marker: %s", self.address.display, text_of(error))
        finally:
            await self._drop_all()

    async def _drop_all(self) -> None:
        readers, self._readers = self._readers, None
        writer, self._writer = self._writer, None
        lock, self._lock = self._lock, None
        self._interpreter = None
        try:
            if readers is not None:
                await readers.close()
            await disconnect(writer)
            await disconnect(lock)
        finally:
            for connection in (writer, lock):
                if connection is not None and not connection.is_closed():
                    connection.terminate()
            if self.address.dev is not None:
                self.address.dev.leave()

    # ------------------------------------------------------------ reconnecting

    async def _mend(self) -> None:
        """Open lost connections again; for a lost writer the incarnation grows first. Raises NotWritten, and the errors in ERRORS."""
        async with self._mending:
            if self._lost:
                raise StoreLost(self._lost)
            opening = self._still_open(self._readers)
            if self._lock is None or self._lock.is_closed():
                await self._take_lock_again(opening)
            if self._writer is not None and not self._writer.is_closed():
                return
            self._writer, writer = None, await self.address.connect("writer", plan_for_growth=True)
            try:
                incarnation = await writer.fetchval(
                    f"UPDATE {self._nodes} SET incarnation = incarnation + 1 WHERE id = 1 AND token = $1 RETURNING incarnation", self._token
                )
                if incarnation is None:
                    self._lose()
                interpreter = await self._interpreter_at(writer, incarnation)
                self._still_open(opening)
            except BaseException:
                writer.terminate()
                raise
            # Both at once, and last: a batch that finds a writer does not wait for this method to end.
            self._writer, self._interpreter = writer, interpreter

    def _still_open(self, opening: Readers | None) -> Readers:
        """The readers, which identify this opening of the store; NotWritten where the store has been closed meanwhile."""
        if opening is None or self._readers is not opening:
            raise NotWritten(f"{self.address.display} is not open: nothing was written", passing=False)
        return opening

    async def _take_lock_again(self, opening: Readers) -> None:
        stale = self._locked_by
        connection, taken = await self._ask_for_lock()
        try:
            if not taken:
                # The server may not have noticed yet that our old connection is gone; we end it, since it is ours.
                await connection.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = $1"
                    " AND classid::bigint = $2 AND objid::bigint = $3",
                    *(stale, LOCK_CLASS, self._lock_key),
                )
            # Also where the lock is free: a process that owned the store meanwhile left its own token, and our writes are fenced.
            if await connection.fetchval(f"SELECT token FROM {self._nodes} WHERE id = 1") != self._token:
                self._lose()
            if not taken:
                raise NotWritten(f"the lock of {self.address.display} was lost and is held by another: nothing was written")
            self._still_open(opening)
            self._lock = connection
        finally:
            if self._lock is not connection:
                await disconnect(connection)

    def _lose(self) -> NoReturn:
        """Another process owns the store, for good: close the connections that might block it or a later owner."""
        self._lost = (
            f"lost ownership of {self.address.display} to another process: nothing was written; this process is fenced and cannot write"
        )
        for connection in (self._writer, self._lock):
            if connection is not None:
                connection.terminate()
        self._writer = self._lock = self._interpreter = None
        raise StoreLost(self._lost)

    def _drop_writer(self) -> None:
        """Drop the writer after a call that was cancelled or failed half-way: its connection is in an unknown state."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.terminate()

    # ------------------------------------------------------------ writes

    async def apply(self, ops: Sequence[Op]) -> list[Result]:
        """One statement that writes, after those that read the rows it needs.

        If cancelled, the outcome is unknown and the connection is dropped.
        """
        if self.readonly:
            raise NotWritten(f"{self.address.display} is open for reading only: nothing was written", passing=False)
        try:
            writer, interpreter = await self._mended()
            write = await interpreter.prepare(writer, ops) if ops else None
        except ERRORS as error:
            if is_gone(error):
                self._drop_writer()
            raise self._not_written(error) from error
        except (StoreError, ConfigError):
            raise
        except Exception as error:
            raise self._refused(error) from error
        except BaseException:
            self._drop_writer()
            raise
        if write is None:
            return []
        await self._send(writer, interpreter, write)
        return write.results

    async def _mended(self) -> tuple[asyncpg.Connection, Interpreter]:
        """The writer, and the interpreter of the incarnation that it began."""
        writer, lock = self._writer, self._lock
        if self._lost or writer is None or writer.is_closed() or lock is None or lock.is_closed():
            await self._mend()
        assert self._interpreter is not None
        return self._writer, self._interpreter

    async def _send(self, writer: asyncpg.Connection, interpreter: Interpreter, write: Write) -> None:
        try:
            ours = await write.send(writer)
        except ERRORS as error:
            interpreter.forget()
            if is_gone(error):
                self._drop_writer()
                raise OutcomeUnknown(f"{self.address.display}: the write may have happened: {text_of(error)}") from error
            raise self._not_written(error) from error
        except (ValueError, TypeError, OverflowError) as error:
            # An argument cannot be encoded: nothing was sent.
            interpreter.forget()
            raise self._refused(error) from error
        except BaseException:
            self._drop_writer()
            raise
        if not ours:
            self._lose()

    def _not_written(self, error: BaseException) -> NotWritten:
        text = f"{self.address.display}: nothing was written: {text_of(error)}"
        return NotWritten(text) if passes(error) or is_gone(error) else WriteRefused(text)

    def _refused(self, error: BaseException) -> WriteRefused:
        return WriteRefused(f"{self.address.display}: nothing was written: {type(error).__name__}: {error}")

    def release(self, session: str) -> None:
        """Drop a passivated session from the cache."""
        if self._interpreter is not None:
            self._interpreter.release(session)

    # ------------------------------------------------------------ reads

    async def _fetch(self, sql: str, *values: Any) -> list[Any]:
        readers = self._readers
        if readers is None:
            raise StoreError(f"{self.address.display} is not open")
        if not self.readonly and self._writer is None and not self._lost:
            # A batch has an unknown outcome: a read must not come before a commit that may still happen.
            try:
                await self._mend()
            except StoreLost:
                raise
            except (*ERRORS, NotWritten) as error:
                raise StoreError(f"{self.address.display} cannot be read: {text_of(error)}") from error
        return await readers.run(lambda connection: connection.fetch(sql, *values))

    async def owner(self) -> Owner:
        """Which process runs this store: the one that its row names, if any process holds the lock."""
        return self._owner_of(await self._fetch(self._owner_sql))

    async def _owner_by(self, connection: asyncpg.Connection | None) -> Owner:
        assert connection is not None
        try:
            return self._owner_of(await connection.fetch(self._owner_sql))
        except asyncpg.PostgresError:
            return Owner(None, "", True)  # the process that holds the lock is still creating the tables
