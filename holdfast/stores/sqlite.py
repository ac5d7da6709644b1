"""The embedded store: one SQLite file, one process, one connection that makes every write and every checkpoint.

WAL with `synchronous=FULL`, so an acknowledged turn survives a power cut. `BEGIN IMMEDIATE`, so a transaction never fails half-way because
it lacks the write lock. Each transaction is one function on the database thread, so a cancelled caller cannot leave one open. A lock file
next to the database keeps a second writer out: SQLite before 3.51.3 can corrupt a WAL file that two processes write. A second reader is
safe: `readonly` takes no lock and changes neither the file nor its WAL, and makes no checkpoint.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import IO, Any, Literal, TypeVar

import aiosqlite
import msgspec

from holdfast.clock import Clock, SystemClock
from holdfast.errors import NotWritten, OutcomeUnknown, StoreError, StoreLost
from holdfast.events import log
from holdfast.stores import sqlite_schema as schema
from holdfast.stores.ops import Op, Result
from holdfast.stores.records import RANK_ENDED, RANK_PERSON, Checkpoint, DeadLetter, Message, Owner, Runnable, Session, Step
from holdfast.stores.sqlite_file import holder, identity, passes, read_only, take_lock
from holdfast.stores.sqlite_ops import Interpreter
from holdfast.stores.sqlite_rows import (
    CHECKPOINT,
    LETTER,
    MESSAGE,
    SESSION,
    STEP,
    charges,
    checkpoint_of,
    letter_of,
    message_of,
    runnable_of,
    session_of,
    step_of,
)

T = TypeVar("T")
_STEP = ", ".join(f"steps.{column}" for column in STEP.split(", "))

_CHARGES = charges("steps")
_FOR_PEOPLE = "ORDER BY rank, updated DESC, num DESC"
_RANKS = {"failed": (0, 0), "parked": (1, 2), "working": (3, 3), "unfinished": (4, 4), "idle": (5, 5)}
_NEWEST = 2**62


class SqliteStore:
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
        self._interpreter: Interpreter | None = None
        self._identity: tuple[int, int] | None = None
        self._lock: IO[str] | None = None

    overlaps = False  # its thread takes the interpreter's lock at every row

    @property
    def unclean(self) -> bool:
        return self._unclean

    async def open(self) -> None:
        """Take the lock, open the file, bring the schema up to date.

        With `readonly` it only checks that the file can be read without a migration. Raises as Store.open, and StoreError for a file that
        is no holdfast database; with `readonly`, also for a file that is missing or of an older version.
        """
        if self.readonly:
            name = read_only(self.path)
        else:
            name, self._lock = self.path, take_lock(self.path)
        try:
            self._connection = await aiosqlite.connect(name, uri=self.readonly, isolation_level=None, cached_statements=256)
            await self._run(self._prepare_to_read if self.readonly else self._prepare)
        except (sqlite3.Error, OSError) as error:
            await self.close()
            raise StoreError(f"cannot open {self.path}: {error}") from error
        except BaseException:
            # Unconditional clean-up, then re-raise: an unclosed connection would hang the interpreter's exit.
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
        self._identity = identity(self.path)

    def _prepare_to_read(self) -> None:
        db = self._raw()
        db.execute("PRAGMA query_only = ON")
        schema.check_readable(db, self.path)

    async def close(self) -> None:
        """Write the clean-shutdown marker, close the file, give up the lock. Idempotent."""
        connection, self._connection = self._connection, None
        interpreter, self._interpreter = self._interpreter, None
        lock, self._lock = self._lock, None
        try:
            if connection is not None and interpreter is not None:
                await connection.execute("UPDATE nodes SET clean = 1 WHERE id = 1")
        except sqlite3.Error as error:
            log.warning("%s: could not write the clean-shutdown marker: %s", self.path, error)
        finally:
            # Also where the write failed (a full disk): an unclosed connection would hang the interpreter's exit.
            if connection is not None:
                await connection.close()
            if lock is not None:
                lock.close()

    async def apply(self, ops: Sequence[Op]) -> list[Result]:
        """One transaction on the database thread. If cancelled, the transaction still runs to its end: its outcome is unknown."""
        if self.readonly:
            raise NotWritten(f"{self.path} is open for reading only: nothing was written", passing=False)
        return await self._run(self._transaction, ops)

    def _transaction(self, ops: Sequence[Op]) -> list[Result]:
        db, interpreter = self._raw(), self._interpreter
        if interpreter is None:
            raise NotWritten(f"{self.path} is not open: nothing was written", passing=False)
        if identity(self.path) != self._identity:
            # A file without a name is deleted when the process ends, with all acknowledged writes.
            raise StoreLost(
                f"{self.path} was removed or replaced while this process ran it: this process cannot write any more; start it again"
            )
        try:
            db.execute("BEGIN IMMEDIATE")
            results = interpreter.apply(ops)
        except Exception as error:
            interpreter.forget()
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise NotWritten(f"{self.path}: nothing was written: {error}", passes(error)) from error
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            interpreter.forget()
            if db.in_transaction:
                db.execute("ROLLBACK")
                raise NotWritten(f"{self.path}: nothing was written: {error}", passes(error)) from error
            raise OutcomeUnknown(f"{self.path}: the commit failed; its outcome is unknown: {error}") from error
        return results

    def _raw(self) -> sqlite3.Connection:
        if self._connection is None:
            raise NotWritten(f"{self.path} is not open: nothing was written", passing=False)
        # aiosqlite has no public way to run one function on its thread. Three awaited calls a transaction would cost a third of the rate,
        # and a cancellation would leave a half-done transaction.
        return self._connection._conn

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        if self._connection is None:
            raise NotWritten(f"{self.path} is not open: nothing was written", passing=False)
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
            StoreError: the store is open for writing: its one connection writes between two reads.
        """
        if not self.readonly:
            raise StoreError(f"{self.path} is open for writing: a snapshot is for a store opened readonly")
        try:
            await self._rows("BEGIN")
            yield
        finally:
            await self._run(self._end_snapshot)

    def _end_snapshot(self) -> None:
        if self._raw().in_transaction:
            self._raw().execute("ROLLBACK")

    async def _rows(self, sql: str, *values: Any) -> list[Any]:
        return await self._read(lambda: self._raw().execute(sql, values).fetchall())

    async def _all(self, make: Callable[[Any], T], sql: str, *values: Any) -> list[T]:
        """Rows as records, made on the database thread: a long list does not block the loop."""
        return await self._read(lambda: [make(row) for row in self._raw().execute(sql, values)])

    async def _read(self, function: Callable[[], T]) -> T:
        try:
            return await self._run(function)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from error
        except msgspec.MsgspecError as error:
            raise StoreError(f"{self.path} holds a row that does not decode: {error}") from error

    async def session(self, id: str) -> Session | None:
        found = await self._all(session_of, f"SELECT {SESSION} FROM sessions WHERE id = ?", id)
        return found[0] if found else None

    async def sessions(
        self, *, limit: int = 1000, status: str | None = None, ended: bool = True, agent: str | None = None, tenant: str | None = None
    ) -> list[Session]:
        where: dict[str, Any] = {}
        if status in _RANKS:
            where = dict(zip(("rank >= ?", "rank <= ?"), _RANKS[status], strict=True))
        elif status is not None:
            where = {f"rank IN ({RANK_PERSON}, ?)": RANK_ENDED}
        elif not ended:
            where = {"rank < ?": RANK_ENDED}
        if status is not None and (status == "parked" or status not in _RANKS):
            where["status = ?"] = status
        if agent is not None:
            where["agent = ?"] = agent
        if tenant is not None:
            where["tenant = ?"] = tenant
        condition = f"WHERE {' AND '.join(where)}" if where else ""
        return await self._all(session_of, f"SELECT {SESSION} FROM sessions {condition} {_FOR_PEOPLE} LIMIT ?", *where.values(), limit)

    async def counts(self) -> dict[str, int]:
        display = "CASE WHEN rank = 3 THEN 'working' ELSE status END AS display"
        return dict(await self._rows(f"SELECT {display}, count(*) FROM sessions INDEXED BY sessions_for_people GROUP BY display"))

    async def agents(self) -> dict[str, int]:
        not_ended = f"rank < {RANK_ENDED} AND status NOT IN ('finished', 'cancelled', 'killed')"
        return dict(await self._rows(f"SELECT agent, count(*) FROM sessions WHERE {not_ended} GROUP BY agent ORDER BY agent"))

    async def open_steps(self, sessions: Sequence[str]) -> dict[str, list[Step]]:
        sql = (
            f"SELECT sessions.id, {_STEP} FROM json_each(?) AS wanted CROSS JOIN sessions ON sessions.id = wanted.value"
            " CROSS JOIN steps ON steps.session = sessions.id AND steps.turn = sessions.turn + 1 ORDER BY steps.rowid"
        )

        def read() -> dict[str, list[Step]]:
            found: dict[str, list[Step]] = {}
            for id, *row in self._raw().execute(sql, (msgspec.json.encode(sessions).decode(),)):
                found.setdefault(id, []).append(step_of(row))
            return found

        return await self._read(read)

    async def similar(self, text: str, *, limit: int = 3) -> list[str]:
        rows = await self._rows("SELECT id FROM sessions WHERE instr(id, ?) > 0 ORDER BY num LIMIT ?", text, limit)
        return [row[0] for row in rows]

    async def owner(self) -> Owner:
        rows = await self._rows("SELECT clean FROM nodes WHERE id = 1")
        clean = not rows or bool(rows[0][0])
        # A store that is open for writing is its own owner.
        process = None if clean else holder(self.path) if self.readonly else os.getpid()
        return Owner(process, socket.gethostname(), clean)

    async def message(self, session: str, id: str) -> Message | None:
        found = await self._all(message_of, f"SELECT {MESSAGE} FROM messages WHERE session = ? AND id = ?", session, id)
        return found[0] if found else None

    async def messages(self, session: str, *, limit: int = 1000) -> list[Message]:
        sql = f"SELECT {MESSAGE} FROM messages WHERE session = ? ORDER BY seq DESC LIMIT ?"
        return (await self._all(message_of, sql, session, limit))[::-1]

    async def steps(self, session: str, turn: int) -> list[Step]:
        return await self._all(step_of, f"SELECT {STEP} FROM steps WHERE session = ? AND turn = ? ORDER BY rowid", session, turn)

    async def checkpoints(self, session: str, *, first: int = 0, last: int | None = None) -> list[Checkpoint]:
        sql = f"SELECT {CHECKPOINT} FROM turns WHERE session = ? AND turn BETWEEN ? AND ? ORDER BY turn"
        return await self._all(checkpoint_of, sql, session, first, _NEWEST if last is None else last)

    async def dead_letters(self, session: str | None = None) -> list[DeadLetter]:
        where, values = ("", ()) if session is None else ("WHERE session = ?", (session,))
        return await self._all(letter_of, f"SELECT {LETTER} FROM dead_letters {where} ORDER BY created, session", *values)

    async def children(self, session: str) -> list[Session]:
        return await self._all(session_of, f"SELECT {SESSION} FROM sessions WHERE parent = ? ORDER BY num", session)

    async def orphans(self) -> list[str]:
        rows = await self._rows(
            "SELECT child.id FROM sessions child JOIN sessions parent ON parent.id = child.parent WHERE NOT child.detached"
            " AND child.status NOT IN ('finished', 'cancelled', 'killed') AND (parent.status IN ('finished', 'cancelled', 'killed')"
            " OR EXISTS (SELECT 1 FROM turns WHERE turns.session = child.parent AND turns.turn = child.parent_turn AND turns.dropped))"
            " ORDER BY child.num"
        )
        return [row[0] for row in rows]

    async def runnable(self) -> list[Runnable]:
        rows = await self._rows(
            f"SELECT id, wake_at, park, {_CHARGES} FROM sessions s"
            " WHERE rank BETWEEN 1 AND 2 AND status = 'parked' AND wake_at IS NOT NULL"
            f" UNION ALL SELECT id, NULL, NULL, {_CHARGES} FROM sessions s WHERE pending > 0 AND status IN ('idle', 'unfinished')"
        )
        return [runnable_of(row) for row in rows]
