"""One session alone: a free read step against one commit by the same database thread, in turn on the same connection."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from typing import Any

from benchmarks import raw
from benchmarks.report import Figure, compared
from benchmarks.throughput import look, sample
from holdfast import Runtime, Session, agent
from holdfast.stores.sqlite.store import SqliteStore


def run(quick: bool) -> list[Figure]:
    """The median of each block."""
    body, block, pairs = sample(paid=False), 50 if quick else 300, 2 if quick else 15
    raws: list[float] = []
    mine: list[float] = []

    async def measure() -> None:
        with raw.scratch() as directory:
            store = SqliteStore(directory / "latency.db")

            async def commits() -> float:
                connection: Any = store._connection

                def one(key: bytes) -> None:
                    database = connection._conn
                    database.execute("BEGIN IMMEDIATE")
                    database.execute(raw.UPSERT_STEP, ("bare", 1, key, 2, body))
                    database.execute("COMMIT")

                times = []
                for _ in range(block):
                    key, began = os.urandom(16), time.perf_counter()
                    await connection._execute(one, key)
                    times.append(time.perf_counter() - began)
                return statistics.median(times) * 1e6

            @agent
            async def alternating(session: Session[None], text: str) -> None:
                # Both from within one handler, so that both see the same loop, thread and file.
                for pair in range(pairs):
                    raws.append(await commits())
                    times = []
                    for n in range(block):
                        began = time.perf_counter()
                        await session.step(look, pair * block + n)
                        times.append(time.perf_counter() - began)
                    mine.append(statistics.median(times) * 1e6)

            async with Runtime(store, [alternating]) as runtime:
                await store._run(lambda: store._raw().execute(raw.JOURNAL))
                await (await runtime.spawn(alternating, id="s")).ask("go", timeout_s=600)

    asyncio.run(measure())
    return [compared("latency of a free read step", "us", raws, mine, raw_name="one commit on the same database thread", most=1.6)]
