"""Durable steps a second, free and paid, at several numbers of concurrent sessions."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import time

from benchmarks import raw
from benchmarks.report import Figure, alternate, compared
from holdfast import Runtime, Session, Usage, agent, tool

SESSIONS = (1, 64, 256, 1000)


@tool
async def look(n: int) -> int:
    """A step without cost and work: only holdfast's own time is left."""
    return n


@tool(cost=Usage(microusd=1))
async def buy(n: int) -> int:
    """The same, but it can cost money: it is opened with a durable record before it runs."""
    return n


@agent
async def looker(session: Session[None], steps: int) -> int:
    total = 0
    for n in range(steps):
        total += await session.step(look, n)
    return total


@agent
async def buyer(session: Session[None], steps: int) -> int:
    total = 0
    for n in range(steps):
        total += await session.step(buy, n)
    return total


def ours(sessions: int, each: int, *, paid: bool) -> float:
    """Steps a second: every session handles one message of `each` steps, all at once; its delivery and turn commit are in the time."""

    async def measure() -> float:
        with raw.scratch() as directory:
            which = buyer if paid else looker
            async with Runtime(f"sqlite:///{directory}/ours.db", [which]) as runtime:
                handles = await asyncio.gather(*(runtime.spawn(which, id=f"s-{n}") for n in range(sessions)))
                await asyncio.gather(*(handle.ask(1) for handle in handles))
                gc.collect()
                began = time.perf_counter()
                await asyncio.gather(*(handle.ask(each, timeout_s=600) for handle in handles))
                return sessions * each / (time.perf_counter() - began)

    return asyncio.run(measure())


def sample(*, paid: bool) -> bytes:
    """The body of a real step's row: the bare writer writes as large ones."""

    async def one() -> bytes:
        with raw.scratch() as directory:
            which = buyer if paid else looker
            async with Runtime(f"sqlite:///{directory}/one.db", [which]) as runtime:
                await (await runtime.spawn(which, id="s-0")).ask(3)
            connection = sqlite3.connect(directory / "one.db")
            body: bytes = connection.execute("SELECT body FROM steps ORDER BY length(body) DESC").fetchone()[0]
            connection.close()
            return body

    return asyncio.run(one())


def run(quick: bool) -> list[Figure]:
    """Free and paid, at each number of sessions."""
    return [_compare(sessions, quick, paid=paid) for paid in (False, True) for sessions in SESSIONS]


def _compare(sessions: int, quick: bool, *, paid: bool) -> Figure:
    total = (2_000 if quick else 20_000) if sessions > 1 else (300 if quick else 3_000)
    each, body = max(total // sessions, 20), sample(paid=paid)
    raws, mine = alternate(
        1 if quick else 5, lambda: raw.step_rate(sessions, each, body, paid=paid), lambda: ours(sessions, each, paid=paid)
    )
    name = f"{'paid' if paid else 'free read'} steps, {sessions:,} session{'s' * (sessions > 1)}"
    least = 0.4 if sessions == 256 and not paid else None
    return compared(name, "/s", raws, mine, raw_name="bare group commit of the same rows", least=least)
