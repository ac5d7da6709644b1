"""Memory of an idle session: live, and passivated. Each is measured in a process of its own, so that no other memory counts."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

from benchmarks import raw
from benchmarks.asks import echo
from benchmarks.report import Figure
from holdfast import Runtime
from holdfast.runtime.agents.limits import Limits, RuntimeLimits

_IDLE_S = 3600.0

FEW, MANY = 1_000, 100_000
_AT_ONCE = 500


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _fill(runtime: Runtime, first: int, count: int) -> None:
    """Sessions that each handled one message and are idle."""
    for start in range(first, first + count, _AT_ONCE):
        handles = await asyncio.gather(*(runtime.spawn(echo, id=f"s-{n:06}") for n in range(start, start + _AT_ONCE)))
        await asyncio.gather(*(handle.ask("hello") for handle in handles))


def _passivate(runtime: Runtime) -> None:
    """Passivate idle sessions at once instead of in an hour: a change of limits begins the sweep anew."""
    time.sleep(0.02)
    for idle_s in (0.01, _IDLE_S):
        runtime.reconfigure(Limits(runtime=RuntimeLimits(idle_s=idle_s)))
    assert runtime.statistics()["live"] == 0, runtime.statistics()


async def _live(sessions: int, traced: bool) -> dict[str, float]:
    """Bytes a session while it is live, idle after one turn."""

    def now() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] if traced else _rss()

    with raw.scratch() as directory:
        async with Runtime(f"sqlite:///{directory}/memory.db", [echo], idle_s=_IDLE_S) as runtime:
            await _fill(runtime, 0, 1000)  # created once: caches, pools, statements
            if traced:
                tracemalloc.start()
            before = now()
            await _fill(runtime, 1000, sessions)
            live = now() - before
            assert runtime.statistics()["live"] == sessions + 1000, runtime.statistics()
    return {"live": live / sessions}


async def _left(many: int) -> dict[str, float]:
    """The growth from 1,000 passivated sessions to `many`: blocks that Python has allocated, and resident bytes."""

    def now() -> tuple[int, int]:
        gc.collect()
        return sys.getallocatedblocks(), _rss()

    with raw.scratch() as directory:
        async with Runtime(f"sqlite:///{directory}/memory.db", [echo], idle_s=_IDLE_S) as runtime:

            async def passivated(first: int, count: int) -> None:
                for start in range(first, first + count, FEW):
                    await _fill(runtime, start, FEW)
                    _passivate(runtime)

            await passivated(0, FEW)
            blocks, resident = now()
            await passivated(FEW, many - FEW)
            then_blocks, then_resident = now()
    return {"blocks": then_blocks - blocks, "resident": then_resident - resident}


def _child(what: str, sessions: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.memory", what, str(sessions)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def run(quick: bool) -> list[Figure]:
    """By Python's own count of allocated bytes, and by the process's resident memory (which counts the database's page cache too)."""
    sessions, repeats, many = (2_000, 1, 5_000) if quick else (10_000, 3, MANY)
    traced = [_child("traced", sessions) for _ in range(repeats)]
    resident = [_child("resident", sessions) for _ in range(repeats)]
    return [
        _live_figure("live idle session, allocated", traced),
        _live_figure("live idle session, resident", resident),
        _left_figure(many, _child("left", many)),
    ]


def _live_figure(name: str, runs: list[dict[str, float]], most_kb: float = 3.0) -> Figure:
    values = [each["live"] / 1024 for each in runs]
    value = statistics.median(values)
    return Figure(name, "KB", value, limit_text=f"<= {most_kb:g} KB", ok=value <= most_kb, blocks={"ours": values})


def _left_figure(many: int, left: dict[str, float], most: int = 5_000) -> Figure:
    """One block for each session, such as its id in some table, would be twenty times the limit."""
    return Figure(
        f"growth, {FEW:,} to {many:,} passivated sessions",
        "blocks",
        left["blocks"],
        limit_text=f"<= {most:,} blocks in all",
        ok=left["blocks"] <= most,
        blocks={"ours": [left["blocks"]]},
        notes=f"resident memory grew by {left['resident'] / 1024:,.0f} KB",
    )


def _main(what: str, sessions: int) -> dict[str, float]:
    return asyncio.run(_left(sessions) if what == "left" else _live(sessions, what == "traced"))


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv[1], int(sys.argv[2]))))
