"""A program that test_faketime runs: sessions that wait in every way, while others set its clock.

    python -m tests.chaos.clock_lives STORE BOOT LENGTH first|again

STORE is a URL, LENGTH how long each wait is, in seconds. BOOT is a file with the seconds for which the machine was suspended: the clock
that counts suspensions is the kernel's, and no library can set it. Each line of its output is one JSON object: "waits" where a wait of that
name begins, "parks" where its session has parked, "over" where it is over. After a line on its input it drains and ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from holdfast import Agent, BreakerSpec, ReplyTimeout, Retry, Runtime, Session, StepError, agent, tool
from holdfast.clock import SystemClock
from holdfast.events import Event, SessionParked

WAITS = ("sleep", "ask", "retry", "retry after a date", "breaker", "breaker of a dependency")
KEPT = ("parked", "in memory")
NAMES = (*(f"{wait}, {kept}" for wait in WAITS for kept in KEPT), "caller")
"""The names of all waits; the last one is that of a caller outside."""


class Machine(SystemClock):
    """The clock of this machine, which was suspended for as long as the file says."""

    def __init__(self, boot: Path) -> None:
        self._boot = boot

    def elapsed(self) -> float:  # type: ignore[override]
        """Seconds since the machine was started."""
        return SystemClock.elapsed() + float(self._boot.read_text())


class Refused(Exception):
    """What a provider answers that is busy, with the seconds or the date after which it may be called again."""

    def __init__(self, retry_after: str) -> None:
        super().__init__("busy")
        self.status_code = 429
        self.response = SimpleNamespace(status_code=429, headers={"retry-after": retry_after})


def say(what: str, **fields: Any) -> None:
    """A line of its output, with the time on the monotonic clock, which nobody sets."""
    print(json.dumps({"what": what, "at": time.monotonic(), **fields}), flush=True)


def waiter(wait: str, kept: str, length_s: float, *, again: bool) -> Agent:
    """An agent that waits once for `length_s`, and says so; `again`: in an earlier process it began to."""
    name = f"{wait}, {kept}"
    calls: list[float] = [0.0] if again else []

    def over() -> str:
        say("over", name=name)
        return "over"

    async def act() -> str:
        calls.append(time.monotonic())
        if len(calls) > 1:
            return over()
        say("waits", name=name)
        if wait == "retry":
            raise Refused(str(length_s))
        if wait == "retry after a date":
            raise Refused(formatdate(time.time() + length_s, usegmt=True))
        raise ConnectionError("cut off")

    call = tool(
        name="act",
        retry=Retry(attempts=2, base_s=0.001, max_s=0.001, total_s=10 * length_s, retry_after_max_s=10 * length_s),
        dependency=name if wait == "breaker of a dependency" else None,
    )(act)

    @agent(
        name=name.replace(", ", "_").replace(" ", "_"),
        tools=[call],
        park_after_s=0.1 if kept == "parked" else 1e9,
        breaker=opens(length_s) if wait == "breaker" else BreakerSpec(),
    )
    async def handler(session: Session[Any], text: str) -> str:
        if wait == "sleep":
            say("waits", name=name)
            await session.sleep(length_s)
            return over()
        if wait != "ask":
            return str(await session.step(call))
        say("waits", name=name)
        try:
            return str(await session.ask("silent", "x", timeout_s=length_s))
        except StepError:
            return over()

    return handler


def opens(length_s: float) -> BreakerSpec:
    """A breaker that opens at the first failure, for so long."""
    return BreakerSpec(minimum=1, failure_ratio=0.01, open_s=length_s, open_max_s=length_s)


async def caller(runtime: Runtime, length_s: float) -> None:
    """A caller outside, with a time limit of its own."""
    say("waits", name="caller")
    try:
        await runtime.session("silent").ask("are you there?", timeout_s=length_s)
    except ReplyTimeout:
        say("over", name="caller")


async def main(store: str, boot: Path, length_s: float, again: bool) -> None:
    @agent(name="silent")
    async def silent(session: Session[Any], text: str) -> None:
        await session.sleep(1e8)

    waiters = [waiter(wait, kept, length_s, again=again) for wait in WAITS for kept in KEPT]
    runtime = Runtime(store, [silent, *waiters], breaker=opens(length_s), clock=Machine(boot))
    names = {each.name: name for each, name in zip(waiters, NAMES, strict=False)}
    runtime.observe(lambda event: say("parks", name=names[event.session]) if _parks(event) else None)
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    _on_a_line(lambda: loop.call_soon_threadsafe(asked.set))
    async with runtime:
        await runtime.spawn(silent, id="silent")
        if not again:
            handles = await asyncio.gather(*(runtime.spawn(each, id=each.name) for each in waiters))
            await asyncio.gather(*(handle.tell("go", id="m") for handle in handles))
        outside = asyncio.ensure_future(caller(runtime, length_s))
        await asked.wait()
        outside.cancel()


def _parks(event: Event) -> bool:
    return isinstance(event, SessionParked) and event.session != "silent"


def _on_a_line(call: Callable[[], object]) -> None:
    """Call it, in a thread, when a line was read, or the input was closed."""

    def read() -> None:
        sys.stdin.readline()
        call()

    threading.Thread(target=read, daemon=True).start()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "again"))
