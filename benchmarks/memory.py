"""Memory of a session that has nothing to do: live, and put away. In processes of its own, so that nothing else is counted."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tracemalloc
from pathlib import Path

from benchmarks import raw
from benchmarks.asks import echo
from benchmarks.report import Figure
from holdfast import Runtime


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _measure(sessions: int, traced: bool) -> dict[str, float]:
    """Bytes a session: while it is live and idle after one turn, and once it was put away."""

    def now() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] if traced else _rss()

    async def fill(runtime: Runtime, first: int, count: int) -> None:
        for start in range(first, first + count, 250):
            handles = await asyncio.gather(*(runtime.spawn(echo, id=f"s-{n:06}") for n in range(start, start + 250)))
            await asyncio.gather(*(handle.ask("hello") for handle in handles))

    with raw.scratch() as directory:
        idle_s = 3600.0
        async with Runtime(f"sqlite:///{directory}/memory.db", [echo], idle_s=idle_s) as runtime:
            await fill(runtime, 0, 1000)  # what is made once: caches, pools, statements
            if traced:
                tracemalloc.start()
            before = now()
            await fill(runtime, 1000, sessions)
            live = now() - before
            assert runtime.statistics()["live"] == sessions + 1000, runtime.statistics()
            # The idle sweep, at once instead of in an hour.
            registry = runtime._running().sessions
            for actor in list(registry.live.values())[1000:]:
                actor.touched = float("-inf")
            del actor
            registry._put_idle_away()
            assert runtime.statistics()["live"] == 1000, runtime.statistics()
            away = now() - before
    return {"live": live / sessions, "away": away / sessions}


def _child(sessions: int, traced: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", str(sessions), str(int(traced))]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def run(quick: bool) -> list[Figure]:
    """By Python's own count of allocated bytes, and by the process's resident memory (which counts the database's page cache too)."""
    sessions, repeats = (2_000, 1) if quick else (10_000, 3)
    traced = [_child(sessions, True) for _ in range(repeats)]
    resident = [_child(sessions, False) for _ in range(repeats)]

    def figure(name: str, key: str, runs: list[dict[str, float]], most_kb: float | None) -> Figure:
        values = [each[key] / 1024 for each in runs]
        value = statistics.median(values)
        text, ok = ("", None) if most_kb is None else (f"<= {most_kb:g} KB", value <= most_kb)
        return Figure(name, "KB", value, limit_text=text, ok=ok, blocks={"ours": values})

    return [
        figure("live idle session, allocated", "live", traced, 3.0),
        figure("live idle session, resident", "live", resident, 3.0),
        figure("session put away, allocated", "away", traced, 0.05),
    ]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure(int(sys.argv[1]), sys.argv[2] == "1"))))
