"""The embedded store: one SQLite file, one process, one connection that makes every write and every checkpoint.

WAL with `synchronous=FULL`, so an acknowledged turn survives a power cut; `BEGIN IMMEDIATE`, so a transaction never fails half-way for
want of the write lock; each transaction is one function on the database thread, so a cancelled caller cannot leave one open. A lock file
beside the database keeps a second process out: SQLite before 3.51.3 can corrupt a WAL file that two processes write.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import IO, Any, Literal, TypeVar

import aiosqlite

from holdfast.clock import Clock, SystemClock
from holdfast.errors import NotWritten, OutcomeUnknown, StoreError, StoreLocked
from holdfast.events import log
from holdfast.stores import sqlite_schema as schema
from holdfast.stores.ops import Op, Result
from holdfast.stores.records import Checkpoint, DeadLetter, Message, Runnable, Session, Step
from holdfast.stores.sqlite_ops import Interpreter
from holdfast.stores.sqlite_rows import (
    CHECKPOINT,
    LETTER,
    MESSAGE,
    SESSION,
    STEP,
    checkpoint_of,
    decode_park,
    letter_of,
    message_of,
    session_of,
    step_of,
)

T = TypeVar("T")


class SqliteStore:
    """A store in one SQLite file.

    Args:
        path: the database file; made if it is not there, its directory too.
        synchronous: "FULL" keeps every acknowledged write through a power cut. "NORMAL" may lose the last ones then (never at a crash of
            the process) and is not faster where many sessions write at once.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, synchronous: Literal["FULL", "NORMAL"] = "FULL", clock: Clock | None = None
    ) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.synchronous = synchronous
        self.clock = clock or SystemClock()
        self._unclean = False
        self._connection: aiosqlite.Connection | None = None
        self._interpreter: Interpreter | None = None
        self._lock: IO[str] | None = None

    @property
    def unclean(self) -> bool:
        return self._unclean

    async def open(self) -> None:
        """Take the lock, open the file, bring the schema up to date. Raises as Store.open, and StoreError for a file that is not ours."""
        self._lock = _take_lock(self.path)
        try:
            self._connection = await aiosqlite.connect(self.path, isolation_level=None, cached_statements=256)
            await self._run(self._prepare)
        except (sqlite3.Error, OSError) as error:
            await self.close()
            raise StoreError(f"cannot open {self.path}: {error}") from error
        except BaseException:
            # Unconditional clean-up, then the error goes on: an unclosed connection would hang the interpreter's exit.
            await self.close()
            raise

    def _prepare(self) -> None:
        db = self._raw()
        schema.check(db, self.path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {self.synchronous}")
        db.execute("PRAGMA busy_timeout = 5000")
        db.execute("PRAGMA cache_size = -65536")
        db.execute("PRAGMA journal_size_limit = 67108864")
        schema.migrate(db, self.path)
        row = db.execute("SELECT clean FROM nodes WHERE id = 1").fetchone()
        self._unclean = row is not None and not row[0]
        db.execute("INSERT INTO nodes (id, clean) VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET clean = 0")
        self._interpreter = Interpreter(db)

    async def close(self) -> None:
        """Mark the file as cleanly put down, close it, give up the lock. Idempotent."""
        connection, self._connection = self._connection, None
        interpreter, self._interpreter = self._interpreter, None
        lock, self._lock = self._lock, None
        try:
            if connection is not None and interpreter is not None:
                await connection.execute("UPDATE nodes SET clean = 1 WHERE id = 1")
        except sqlite3.Error as error:
            log.warning("%s could not be marked as cleanly put down: %s", self.path, error)
        finally:
            # Also where that failed (a full disk): an unclosed connection would hang the interpreter's exit.
            if connection is not None:
                await connection.close()
            if lock is not None:
                lock.close()

    async def apply(self, ops: Sequence[Op]) -> list[Result]:
        """One transaction on the database thread. If cancelled, the transaction runs to its end all the same: its outcome is unknown."""
        return await self._run(self._transaction, ops)

    def _transaction(self, ops: Sequence[Op]) -> list[Result]:
        db, interpreter = self._raw(), self._interpreter
        if interpreter is None:
            raise NotWritten(f"{self.path} is not open: nothing was written")
        try:
            db.execute("BEGIN IMMEDIATE")
            results = interpreter.apply(ops)
        except Exception as error:
            interpreter.forget()
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise NotWritten(f"{self.path}: nothing was written: {error}") from error
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            interpreter.forget()
            if db.in_transaction:
                db.execute("ROLLBACK")
                raise NotWritten(f"{self.path}: nothing was written: {error}") from error
            raise OutcomeUnknown(f"{self.path}: the commit failed and may have happened: {error}") from error
        return results

    def _raw(self) -> sqlite3.Connection:
        if self._connection is None:
            raise NotWritten(f"{self.path} is not open: nothing was written")
        # aiosqlite has no public way to run one function on its thread; three awaited calls a transaction would cost a third of the rate
        # and leave a half-done transaction behind at a cancellation.
        return self._connection._conn

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        if self._connection is None:
            raise NotWritten(f"{self.path} is not open: nothing was written")
        result: T = await self._connection._execute(function, *args)  # type: ignore[no-untyped-call]
        return result

    def release(self, session: str) -> None:
        """Forget what is remembered of a session that is put away."""
        if self._interpreter is not None:
            self._interpreter.release(session)

    # ------------------------------------------------------------ reads

    async def _rows(self, sql: str, *values: Any) -> list[Any]:
        try:
            return await self._run(lambda: self._raw().execute(sql, values).fetchall())
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from error

    async def session(self, id: str) -> Session | None:
        rows = await self._rows(f"SELECT {SESSION} FROM sessions WHERE id = ?", id)
        return session_of(rows[0]) if rows else None

    async def sessions(self, *, limit: int = 1000, status: str | None = None) -> list[Session]:
        where, values = ("", ()) if status is None else ("WHERE status = ?", (status,))
        rows = await self._rows(
            f"SELECT {SESSION} FROM sessions {where} ORDER BY CASE status WHEN 'failed' THEN 0 WHEN 'parked' THEN 1 ELSE 2 END,"
            " updated DESC, num LIMIT ?",
            *values,
            limit,
        )
        return [session_of(row) for row in rows]

    async def message(self, session: str, id: str) -> Message | None:
        rows = await self._rows(f"SELECT {MESSAGE} FROM messages WHERE session = ? AND id = ?", session, id)
        return message_of(rows[0]) if rows else None

    async def messages(self, session: str, *, limit: int = 1000) -> list[Message]:
        rows = await self._rows(f"SELECT {MESSAGE} FROM messages WHERE session = ? ORDER BY seq DESC LIMIT ?", session, limit)
        return [message_of(row) for row in reversed(rows)]

    async def steps(self, session: str, turn: int) -> list[Step]:
        rows = await self._rows(f"SELECT {STEP} FROM steps WHERE session = ? AND turn = ? ORDER BY rowid", session, turn)
        return [step_of(row) for row in rows]

    async def checkpoints(self, session: str) -> list[Checkpoint]:
        rows = await self._rows(f"SELECT {CHECKPOINT} FROM turns WHERE session = ? ORDER BY turn", session)
        return [checkpoint_of(row) for row in rows]

    async def dead_letters(self, session: str | None = None) -> list[DeadLetter]:
        where, values = ("", ()) if session is None else ("WHERE session = ?", (session,))
        rows = await self._rows(f"SELECT {LETTER} FROM dead_letters {where} ORDER BY created, session", *values)
        return [letter_of(row) for row in rows]

    async def children(self, session: str) -> list[Session]:
        rows = await self._rows(f"SELECT {SESSION} FROM sessions WHERE parent = ? ORDER BY num", session)
        return [session_of(row) for row in rows]

    async def orphans(self) -> list[str]:
        rows = await self._rows(
            "SELECT child.id FROM sessions child JOIN sessions parent ON parent.id = child.parent WHERE NOT child.detached"
            " AND child.status NOT IN ('finished', 'cancelled', 'killed')"
            " AND parent.status IN ('finished', 'cancelled', 'killed') ORDER BY child.num"
        )
        return [row[0] for row in rows]

    async def runnable(self) -> list[Runnable]:
        rows = await self._rows(
            "SELECT id, wake_at, park FROM sessions WHERE status = 'parked' AND wake_at IS NOT NULL"
            " UNION ALL SELECT id, NULL, NULL FROM sessions WHERE pending > 0 AND status IN ('idle', 'unfinished')"
        )
        return [Runnable(id, wake_at, () if park is None else decode_park(park).waits_on) for id, wake_at, park in rows]


def _take_lock(path: str) -> IO[str]:
    if os.path.exists(path) and not os.path.isfile(path):
        raise StoreError(f"cannot open {path}: it is not a file")
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        lock = open(f"{path}.lock", "a+")  # noqa: SIM115 — held open for as long as the store is
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise StoreLocked(f"{path} is in use by process {owner}: stop it first, or name another file") from None
    try:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    except OSError as error:
        lock.close()
        raise StoreError(f"cannot open {path}: {error.strerror}") from error
    return lock
