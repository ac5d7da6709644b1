"""The effect of a misbehaving session on the others: the 99th percentile of their step time with it and without it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks import deliberate, raw
from benchmarks.report import Figure, alternate, percentile
from holdfast import Agent, Backoff, Handle, HoldfastError, Intensity, Runtime, Session, agent, tool

NORMAL = 50
_STEP_S = 0.01
_FOREVER = Intensity(1_000_000, float("inf"))
_SOON = Backoff(base_s=0.005, max_s=0.01)


@tool
async def call(n: int) -> int:
    """A call to a service that answers after 10 ms."""
    await asyncio.sleep(_STEP_S)
    return n


@agent(intensity=_FOREVER, backoff=_SOON)
async def raises(session: Session[None], text: str) -> None:
    """Raises for ever."""
    raise RuntimeError("always")


@agent(intensity=_FOREVER, backoff=_SOON)
async def recurses(session: Session[None], text: str) -> None:
    """Recurses to the interpreter's limit, for ever."""

    def down(depth: int) -> int:
        return down(depth + 1) + 1

    down(0)


@agent
async def swallows(session: Session[None], text: str) -> None:
    """Does not end when it is cancelled; each new one is cancelled by the driver."""
    until = time.monotonic() + 5.0
    while time.monotonic() < until:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            pass


@agent(mailbox=1000)
async def floods(session: Session[None], text: str) -> None:
    """Fills its own mailbox, as fast as it can."""
    for n in range(20):
        try:
            await session.tell(session.id, f"more {n}")
        except HoldfastError:
            await asyncio.sleep(0.001)


@agent
async def asks_itself(session: Session[None], text: str) -> None:
    """Asks itself, which is refused as a circular ask."""
    for _ in range(200):
        try:
            await session.ask(session.id, "me", timeout_s=1.0)
        except HoldfastError:
            pass


async def _once(runtime: Runtime) -> None:
    for bad in (raises, recurses):
        if bad.name in runtime.agents:
            await (await runtime.spawn(bad, id="bad")).tell("go")


async def _flood(runtime: Runtime) -> None:
    await (await runtime.spawn(floods, id="bad")).tell("go")


async def _ask_itself(runtime: Runtime) -> None:
    handle = await runtime.spawn(asks_itself, id="bad")
    while True:
        await handle.ask("go")


async def _swallow(runtime: Runtime) -> None:
    for n in range(1_000_000):
        handle = await runtime.spawn(swallows, id=f"bad-{n}")
        await handle.tell("go")
        await asyncio.sleep(0.05)
        await handle.cancel()


BAD: dict[str, tuple[Agent, Callable[[Runtime], Coroutine[Any, Any, None]]]] = {
    "raises for ever": (raises, _once),
    "swallows cancellation": (swallows, _swallow),
    "floods its mailbox": (floods, _flood),
    "recurses": (recurses, _once),
    "asks itself": (asks_itself, _ask_itself),
}


def p99(seconds: float, bad: str | None) -> float:
    """The 99th percentile, in ms, of the steps of 50 normal sessions within `seconds`; none of them may be lost."""
    times: list[float] = []

    @agent
    async def normal(session: Session[None], until: float) -> int:
        n = 0
        while time.monotonic() < until:
            began = time.perf_counter()
            await session.step(call, n)
            times.append((time.perf_counter() - began) * 1e3)
            n += 1
        return n

    async def measure() -> float:
        with raw.scratch() as directory:
            agents = [normal] if bad is None else [normal, BAD[bad][0]]
            async with Runtime(f"sqlite:///{directory}/isolation.db", agents, quarantine_s=0.1, drain_s=1.0) as runtime:
                handles: list[Handle] = await asyncio.gather(*(runtime.spawn(normal, id=f"n-{n}") for n in range(NORMAL)))
                await asyncio.gather(*(handle.ask(0.0) for handle in handles))
                driver = asyncio.ensure_future(BAD[bad][1](runtime)) if bad is not None else None
                await asyncio.sleep(0.3)
                until = time.monotonic() + seconds
                counts = await asyncio.gather(*(handle.ask(until, timeout_s=seconds + 60) for handle in handles))
                if driver is not None:
                    if driver.done():
                        driver.result()
                    driver.cancel()
                    await asyncio.wait((driver,))
                if min(counts) < seconds / _STEP_S / 20 or sum(counts) != len(times):
                    raise RuntimeError(f"with {bad}: a normal session was held up: {min(counts)} steps in {seconds} s")
                return percentile(times, 0.99)

    with deliberate.failures("RuntimeError: always", "RecursionError: maximum recursion depth exceeded"):
        return asyncio.run(measure())


def run(quick: bool) -> list[Figure]:
    """Five alternating pairs for each way to misbehave; the median of their ratios."""
    figures = []
    for bad in BAD:
        pairs, seconds = (1, 0.5) if quick else (5, 2.0)
        without, with_it = alternate(pairs, lambda: p99(seconds, None), lambda: p99(seconds, bad))  # noqa: B023 — called at once
        ratio = statistics.median(w / wo for w, wo in zip(with_it, without, strict=True))
        figures.append(
            Figure(
                f"p99 step of the others: one {bad}", "ms", statistics.median(with_it), statistics.median(without), "the same without it",
                "<= 2 x without", ratio <= 2.0, ratio, {"ours": with_it, "raw": without},
            )
        )  # fmt: skip
    return figures
