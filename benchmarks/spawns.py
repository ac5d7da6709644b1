"""Sessions spawned a second: each is durable when `spawn` returns."""

from __future__ import annotations

import asyncio
import time

from benchmarks import raw
from benchmarks.asks import echo
from benchmarks.report import Figure, alternate, compared
from holdfast import Runtime

_SESSION = (
    "INSERT INTO sessions (id, agent, tenant, user, status, epoch, turn, pending, budget, usage, seed, detached, gates, notes, crashes,"
    " crash_mark, created, updated) VALUES (?, 'echo', 'default', '', 'idle', 0, 0, 0, x'80', x'80', x'0011223344556677', 0, x'', x'90',"
    " 0, 0, ?, ?)"
)
_TURN = "INSERT INTO turns (session, turn, state, version, message, started, ended, usage) VALUES (?, 0, x'c0', 1, NULL, ?, ?, x'80')"


def ours(callers: int, each: int) -> float:
    """Spawns a second of `callers` that spawn one after the other."""

    async def measure() -> float:
        with raw.scratch() as directory:
            async with Runtime(f"sqlite:///{directory}/ours.db", [echo]) as runtime:

                async def caller(number: int) -> None:
                    for nth in range(each):
                        await runtime.spawn(echo, id=f"s-{number}-{nth}")

                began = time.perf_counter()
                await asyncio.gather(*map(caller, range(callers)))
                return callers * each / (time.perf_counter() - began)

    return asyncio.run(measure())


def bare(callers: int, each: int) -> float:
    """The rows of a session and its first checkpoint."""

    async def spawn(writer: raw.BareWriter, number: int, nth: int) -> None:
        id, now = f"s-{number}-{nth}", time.time()
        await writer.write((_SESSION, (id, now, now)), (_TURN, (id, now, now)))

    return raw.rate(callers, each, spawn)


def run(quick: bool) -> list[Figure]:
    """256 callers at once."""
    each = 8 if quick else 40
    raws, mine = alternate(1 if quick else 5, lambda: bare(256, each), lambda: ours(256, each))
    return [compared("sessions spawned, 256 callers", "/s", raws, mine, raw_name="their rows, bare")]
