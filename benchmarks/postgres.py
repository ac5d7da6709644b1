"""Durable steps a second on Postgres, next to a bare flusher of the same rows on the same server."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import raw
from benchmarks.report import Figure, alternate, compared
from benchmarks.throughput import SESSIONS, buyer, looker, sample
from holdfast import Runtime
from holdfast.stores.postgres import schema as postgres_schema
from holdfast.stores.postgres.dev import DevServer
from holdfast.stores.postgres.link import Address

_numbers = itertools.count(1)

UPSERT_STEPS = (
    "INSERT INTO {s}.steps (num, session, turn, key, state, body)"
    " SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bytea[], $5::smallint[], $6::bytea[])"
    " ON CONFLICT (session, turn, key) DO UPDATE SET state = excluded.state, body = excluded.body"
)

Row = tuple[int, str, int, bytes, int, bytes]


@contextmanager
def server() -> Iterator[str]:
    """The DSN of a server with the default settings of Postgres, on the disk of the temporary directory (TMPDIR)."""
    with raw.scratch() as folder:
        development = DevServer(folder, idle_s=1.0)
        try:
            yield development.start_now()
        finally:
            development.leave()
            development.stop_now()


class BareFlusher:
    """Only a group commit: all waiting rows go into one statement over arrays. `write` returns a future of the commit."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()

    def write(self, row: Row) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, future))
        self._wake.set()
        return future

    async def run(self, address: Address) -> None:
        connection = await address.connect("bare", plan_for_growth=True)
        await postgres_schema.migrate(connection, address.schema, address.display)
        sql = UPSERT_STEPS.replace("{s}", postgres_schema.quoted(address.schema))
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                batch, self._waiting = self._waiting, []
                await connection.execute(sql, *map(list, zip(*(row for row, _ in batch), strict=True)))
                for _, future in batch:
                    future.set_result(None)
        finally:
            connection.terminate()


def bare(dsn: str, sessions: int, each: int, body: bytes, *, paid: bool) -> float:
    """Steps a second of a bare flusher: one row each, or for paid ones the same row twice."""

    async def measure() -> float:
        flusher = BareFlusher()
        running = asyncio.ensure_future(flusher.run(Address(dsn, f"bare_{next(_numbers)}")))
        keys = [os.urandom(16) for _ in range(sessions * each)]
        numbers = itertools.count(1)

        async def waiter(number: int) -> None:
            for nth in range(each):
                for state in (1, 2) if paid else (2,):
                    await flusher.write((next(numbers), f"s-{number}", 1, keys[number * each + nth], state, body))

        try:
            await flusher.write((0, "first", 1, b"", 2, body))
            began = time.perf_counter()
            await asyncio.gather(*(waiter(number) for number in range(sessions)))
            return sessions * each / (time.perf_counter() - began)
        finally:
            running.cancel()
            await asyncio.wait([running])

    return asyncio.run(measure())


def ours(dsn: str, sessions: int, each: int, *, paid: bool) -> float:
    """Steps a second: every session handles one message of `each` steps, all at once; its delivery and turn commit are in the time."""

    async def measure() -> float:
        which = buyer if paid else looker
        async with Runtime(f"{dsn}&schema=ours_{next(_numbers)}", [which]) as runtime:
            handles = await asyncio.gather(*(runtime.spawn(which, id=f"s-{n}") for n in range(sessions)))
            await asyncio.gather(*(handle.ask(1) for handle in handles))
            gc.collect()
            began = time.perf_counter()
            await asyncio.gather(*(handle.ask(each, timeout_s=600) for handle in handles))
            return sessions * each / (time.perf_counter() - began)

    return asyncio.run(measure())


def run(quick: bool) -> list[Figure]:
    """Free and paid, at each number of sessions."""
    with server() as dsn:
        return [_compare(dsn, sessions, quick, paid=paid) for paid in (False, True) for sessions in SESSIONS]


def _compare(dsn: str, sessions: int, quick: bool, *, paid: bool) -> Figure:
    total = (2_000 if quick else 20_000) if sessions > 1 else (300 if quick else 2_000)
    each, body = max(total // sessions, 20), sample(paid=paid)
    raws, mine = alternate(
        1 if quick else 5, lambda: bare(dsn, sessions, each, body, paid=paid), lambda: ours(dsn, sessions, each, paid=paid)
    )
    name = f"Postgres, {'paid' if paid else 'free read'} steps, {sessions:,} session{'s' * (sessions > 1)}"
    least = 0.4 if sessions == 256 and not paid else None
    return compared(name, "/s", raws, mine, raw_name="bare asyncpg unnest flusher of the same rows", least=least)
