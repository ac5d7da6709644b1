"""The embedded store: one SQLite file, one process, one connection that makes every write and every checkpoint, and one that only reads.

WAL with `synchronous=FULL`, so an acknowledged turn survives a power cut. `BEGIN IMMEDIATE`, so a transaction never fails half-way because
it lacks the write lock. Each transaction is one function on the database thread, so a cancelled caller cannot leave one open. A lock
(lock.py) keeps a second writer out: SQLite before 3.51.3 can corrupt a WAL file that two processes write. A second reader is safe:
`readonly` takes no lock and changes neither the file nor its WAL, and makes no checkpoint. A process whose files were removed, replaced or
damaged ends (file.py).

Reads have a connection of their own, so that no list for people waits for a write, nor a write for a list. They see each acknowledged one.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

import aiosqlite

from holdfast import forks
from holdfast.clock import Clock, SystemClock
from holdfast.errors import NotWritten, OutcomeUnknown, StoreError, StoreLost, WriteRefused
from holdfast.events import log
from holdfast.stores.ops import Op, Result
from holdfast.stores.records import Owner
from holdfast.stores.sqlite import schema
from holdfast.stores.sqlite.file import WAL_LIMIT, Files, abandon, passes, read_only
from holdfast.stores.sqlite.interpreter import Interpreter
from holdfast.stores.sqlite.lock import FileLock, holder, take_lock
from holdfast.stores.sqlite.reads import Reads
from holdfast.stores.unreadable import FAULTS

T = TypeVar("T")


class SqliteStore(Reads):
    """A store in one SQLite file.

    Args:
        path: the database file; created if missing, its directory too.
        synchronous: "FULL" keeps every acknowledged write through a power cut. "NORMAL" may lose the last ones then (never at a crash of
            the process) and is not faster where many sessions write at once.
        readonly: read it while another process may run it, or after that one died: no lock, no migration, no write. `apply` raises
            NotWritten, and where a file cannot be read, the error of `open` has the reason in one line.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        readonly: bool = False,
        clock: Clock | None = None,
    ) -> None:
        # The messages to a reader name the file as the reader named it.
        self.path = os.fspath(path) if readonly else os.path.abspath(os.fspath(path))
        self.readonly = readonly
        self.synchronous = synchronous
        self.clock = clock or SystemClock()
        self._unclean = False
        self._connection: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None  # `_connection` itself where the store is open for reading
        self._interpreter: Interpreter | None = None
        self._files: Files | None = None
        self._lock: FileLock | None = None
        self._parent: int | None = None
        self._socket = ""

    overlaps = False  # its thread takes the interpreter's lock at every row
    check_s = 1.0

    @property
    def unclean(self) -> bool:
        return self._unclean

    async def open(self) -> None:
        """Take the lock, open the file, bring the schema up to date.

        With `readonly` it only checks that the file can be read without a migration. Raises as Store.open, and StoreError for a file that
        is no holdfast database; with `readonly`, also for a file that is missing or of an older version.
        """
        self._parent = None
        if self.readonly:
            name = read_only(self.path)
        else:
            self._lock = take_lock(self.path, self._socket)
            name = self._lock.real
        forks.register(self)
        try:
            self._connection = await aiosqlite.connect(name, uri=self.readonly, isolation_level=None, cached_statements=256)
            if self.readonly:
                self._reader = self._connection
            else:
                await self._run(self._prepare)
                self._reader = await aiosqlite.connect(read_only(self.path), uri=True, isolation_level=None, cached_statements=256)
            await self._read(self._prepare_to_read)
        except (sqlite3.Error, OSError) as error:
            await self.close()
            raise StoreError(f"cannot open {self.path}: {error}") from error
        except BaseException:
            # Unconditional clean-up, then re-raise: an unclosed connection would hang the interpreter's exit.
            await self.close()
            raise

    def _prepare(self) -> None:
        db = self._raw()
        assert self._lock is not None
        self._lock.check_database()
        schema.check(db, self.path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {self.synchronous}")
        db.execute("PRAGMA busy_timeout = 5000")
        db.execute("PRAGMA cache_size = -65536")
        db.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        schema.migrate(db, self.path)
        row = db.execute("SELECT clean FROM nodes WHERE id = 1").fetchone()
        self._unclean = row is not None and not row[0]
        db.execute("INSERT INTO nodes (id, clean) VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET clean = 0")
        self._files = Files(self._lock, db)
        self._interpreter = Interpreter(db)

    def _prepare_to_read(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA query_only = ON")
        schema.check_readable(db, self.path)

    async def close(self) -> None:
        """Write the clean-shutdown marker, close the file, give up the lock. Idempotent.

        Where the store is lost, it writes no marker, and where a file is damaged or another one, it leaves that as it is.
        """
        connection, self._connection = self._connection, None
        reader, self._reader = self._reader, None
        interpreter, self._interpreter = self._interpreter, None
        files, self._files = self._files, None
        lock, self._lock = self._lock, None
        try:
            if connection is not None and files is not None and interpreter is not None and files.lost is None:
                await connection._execute(_end_clean, files, interpreter)  # type: ignore[no-untyped-call]
        except (sqlite3.Error, StoreError) as error:
            log.warning("%s: could not write the clean-shutdown marker: %s", self.path, error)
        finally:
            # Also where the write failed (a full disk): an unclosed connection would hang the interpreter's exit.
            sound = files is None or files.sound
            try:
                if reader is not None and reader is not connection:
                    await reader.close()
            finally:
                if connection is not None:
                    await (connection.close() if sound else abandon(connection))
                if lock is not None:
                    lock.close(again=sound)

    def forked(self) -> None:
        """In a forked child: the connections and their threads belong to the parent."""
        if self._connection is not None:
            forks.keep_for_ever(self._connection)
            forks.keep_for_ever(self._reader)
            self._parent = os.getppid()
        self._connection = self._reader = self._interpreter = self._files = None

    def name_socket(self, socket: str) -> None:
        """Name the control socket of this process in the lock file, also at later opens, for those that look for it. "" names none."""
        self._socket = socket
        if self._lock is not None:
            self._lock.name_socket(socket)

    async def check(self) -> None:
        """Look whether the files are still those that were opened, and undamaged. If cancelled, nothing has changed.

        Raises:
            StoreLost: they are not: from now on, nothing is written.
            StoreError: they cannot be looked at now.
        """
        if self._files is not None:
            await self._guarded(self._run(self._files.look))

    def _why_closed(self) -> str:
        if self._parent is not None:
            return f"{self.path} belongs to process {self._parent}, from which this one was forked"
        return f"{self.path} is not open"

    def _closed(self) -> NotWritten:
        return NotWritten(f"{self._why_closed()}: nothing was written", passing=False)

    async def apply(self, ops: Sequence[Op]) -> list[Result]:
        """One transaction on the database thread. If cancelled, the transaction still runs to its end: its outcome is unknown."""
        if self.readonly:
            raise NotWritten(f"{self.path} is open for reading only: nothing was written", passing=False)
        return await self._run(self._transaction, ops)

    def _transaction(self, ops: Sequence[Op]) -> list[Result]:
        db, interpreter, files = self._raw(), self._interpreter, self._files
        if interpreter is None or files is None:
            raise self._closed()
        try:
            db.execute("BEGIN IMMEDIATE")
            # Inside: a process that became the owner meanwhile has begun with a write of its own.
            files.check()
            results = interpreter.apply(ops)
        except Exception as error:
            interpreter.forget()
            if db.in_transaction:
                db.execute("ROLLBACK")
            files.note(error)
            if isinstance(error, StoreLost):
                raise
            if passes(error) or files.lost is not None:
                raise NotWritten(f"{self.path}: nothing was written: {error}", passes(error)) from error
            raise WriteRefused(f"{self.path}: nothing was written: {type(error).__name__}: {error}") from error
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            interpreter.forget()
            ended = not db.in_transaction
            if not ended:
                db.execute("ROLLBACK")
                files.note(error)
            # Of a full disk SQLite itself rolls back: the mark of the commit is the last that it writes.
            if not ended or error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise NotWritten(f"{self.path}: nothing was written: {error}", passes(error)) from error
            raise OutcomeUnknown(f"{self.path}: the commit failed; its outcome is unknown: {error}") from error
        return results

    def _raw(self) -> sqlite3.Connection:
        if self._connection is None:
            raise self._closed()
        # aiosqlite has no public way to run one function on its thread. Three awaited calls a transaction would cost a third of the rate,
        # and a cancellation would leave a half-done transaction.
        return self._connection._conn

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        if self._connection is None:
            raise self._closed()
        result: T = await self._connection._execute(function, *args)  # type: ignore[no-untyped-call]
        return result

    def release(self, session: str) -> None:
        """Drop a passivated session from the cache."""
        if self._interpreter is not None:
            self._interpreter.release(session)

    # ------------------------------------------------------------ reads

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[None]:
        """All reads inside see the database as of the first of them. For a store opened `readonly`; keep it short: the WAL grows meanwhile.

        Raises:
            StoreError: the store is open for writing: other reads of its process would be inside, too.
        """
        if not self.readonly:
            raise StoreError(f"{self.path} is open for writing: a snapshot is for a store opened readonly")
        try:
            await self._rows("BEGIN")
            yield
        finally:
            await self._read(lambda db: db.execute("ROLLBACK") if db.in_transaction else None)

    async def _read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run `function` on the reader's thread."""
        reader = self._reader
        if reader is None:
            raise StoreError(self._why_closed())
        result: T = await self._guarded(reader._execute(_tolerantly, function, reader._conn))  # type: ignore[no-untyped-call]
        return result

    async def _guarded(self, work: Awaitable[T]) -> T:
        """Await work on a database thread, with its errors as those of a store."""
        try:
            return await work
        except sqlite3.Error as error:
            if self._files is not None:
                self._files.note(error)
            raise StoreError(f"{self.path} cannot be read: {error}") from error
        except FAULTS as error:
            if self._reader is None:  # its thread had ended before it came to this read
                raise StoreError(self._why_closed()) from error
            raise StoreError(f"{self.path} holds a row that does not decode: {error}") from error

    async def owner(self) -> Owner:
        rows = await self._rows("SELECT clean FROM nodes WHERE id = 1")
        clean = not rows or bool(rows[0][0])
        if not self.readonly:  # a store that is open for writing is its own owner
            return Owner(None if clean else os.getpid(), socket.gethostname(), clean)
        found = None if clean else holder(self.path)
        return Owner(None, socket.gethostname(), clean) if found is None else Owner(found.pid, found.host or socket.gethostname(), clean)


def _end_clean(files: Files, interpreter: Interpreter) -> None:
    """Write what only memory has, and the clean-shutdown marker, in one transaction."""
    files.look()
    interpreter.db.execute("BEGIN IMMEDIATE")
    interpreter.log.save(())
    interpreter.db.execute("UPDATE nodes SET clean = 1 WHERE id = 1")
    interpreter.db.execute("COMMIT")


def _tolerantly(function: Callable[[sqlite3.Connection], T], db: sqlite3.Connection) -> T:
    """`function`; once more with U+FFFD for bytes that are no UTF-8, where a text is damaged."""
    try:
        return function(db)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", None) is not None:
            raise
    try:
        db.text_factory = lambda data: data.decode(errors="replace")
        return function(db)
    finally:
        db.text_factory = str
