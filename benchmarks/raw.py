"""The bare limits: the same rows in the same tables, with only the schema of holdfast."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from holdfast.stores.sqlite import schema as sqlite_schema

JOURNAL = """
    CREATE TABLE IF NOT EXISTS journal (
        session TEXT NOT NULL, turn INTEGER NOT NULL, key BLOB NOT NULL, state INTEGER NOT NULL, body BLOB NOT NULL,
        UNIQUE (session, turn, key)
    )
"""
"""A journal as one would write it: a row for each step, found by its key."""

INSERT_STEP = "INSERT INTO journal (session, turn, key, state, body) VALUES (?, ?, ?, ?, ?)"
UPSERT_STEP = INSERT_STEP + " ON CONFLICT (session, turn, key) DO UPDATE SET state = excluded.state, body = excluded.body"

Statement = tuple[str, tuple[Any, ...]]


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for databases, on the disk of the temporary directory (TMPDIR)."""
    with TemporaryDirectory(prefix="holdfast-bench-") as directory:
        yield Path(directory)


def connect(path: Path) -> sqlite3.Connection:
    """A database with holdfast's tables and settings, and a plain journal."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -65536")
    sqlite_schema.migrate(connection, str(path))
    connection.execute(JOURNAL)
    return connection


class BareWriter:
    """Only a group commit: a thread that writes all waiting rows in one transaction, one `executemany` a statement.

    `write` takes the rows of one logical write, as (SQL, values), and gives a future that is resolved after the commit.
    """

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[tuple[Statement, ...], asyncio.Future[None]]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="bare writer")
        self._thread.start()

    def write(self, *statements: Statement) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((statements, future))
        self._wake.set()
        return future

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait()
            self._wake.clear()
            batch = []
            while self._waiting:
                batch.append(self._waiting.popleft())
            if batch:
                self._commit(batch)

    def _commit(self, batch: list[tuple[tuple[Statement, ...], asyncio.Future[None]]]) -> None:
        by_sql: dict[str, list[tuple[Any, ...]]] = {}
        for statements, _ in batch:
            for sql, values in statements:
                by_sql.setdefault(sql, []).append(values)
        self._connection.execute("BEGIN IMMEDIATE")
        for sql, rows in by_sql.items():
            self._connection.executemany(sql, rows)
        self._connection.execute("COMMIT")
        self._loop.call_soon_threadsafe(_resolve, [future for _, future in batch])


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def rate(waiters: int, each: int, writes: Callable[[BareWriter, int, int], Awaitable[object]], prepare: tuple[str, ...] = ()) -> float:
    """Logical writes a second of `waiters` coroutines that each make `each`, one after the other.

    Args:
        writes: makes the nth write of a waiter and waits for it.
        prepare: SQL that fills the tables first, run once for each waiter with its number as the only value.
    """

    async def measure() -> float:
        with scratch() as directory:
            path = directory / "raw.db"
            if prepare:
                first = connect(path)
                first.execute("BEGIN")
                for sql in prepare:
                    first.executemany(sql, [(number,) for number in range(waiters)])
                first.execute("COMMIT")
                first.close()
            writer = BareWriter(path)

            async def waiter(number: int) -> None:
                for nth in range(each):
                    await writes(writer, number, nth)

            try:
                began = time.perf_counter()
                await asyncio.gather(*(waiter(number) for number in range(waiters)))
                return waiters * each / (time.perf_counter() - began)
            finally:
                writer.close()

    return asyncio.run(measure())


def step_rate(waiters: int, each: int, body: bytes, *, paid: bool) -> float:
    """Steps a second of a bare writer: one row each, or for paid ones the same row twice (open, then closed)."""
    ids = [f"s-{number}" for number in range(waiters)]
    keys = [os.urandom(16) for _ in range(waiters * each)]

    async def free(writer: BareWriter, number: int, nth: int) -> None:
        await writer.write((UPSERT_STEP, (ids[number], 1, keys[number * each + nth], 2, body)))

    async def twice(writer: BareWriter, number: int, nth: int) -> None:
        key = keys[number * each + nth]
        await writer.write((UPSERT_STEP, (ids[number], 1, key, 1, body)))
        await writer.write((UPSERT_STEP, (ids[number], 1, key, 2, body)))

    return rate(waiters, each, twice if paid else free)
