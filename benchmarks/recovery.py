"""From kill -9 to the last of many open turns replayed, against a bare start: the same program on an empty database."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks import raw
from benchmarks.report import Figure, alternate
from holdfast import Runtime, Session, agent, tool
from holdfast.console.process.main import tune

RECORDS = 5
_ran = 0
_replayed = 0


@tool
async def fact(n: int) -> int:
    """One recorded step; counts how often it really ran in this process."""
    global _ran
    _ran += 1
    return n


@tool(timeout_s=3600.0)
async def endless() -> None:
    """The step that is open when the process is killed."""
    await asyncio.get_running_loop().create_future()


@agent
async def opened(session: Session[None], text: str) -> None:
    global _replayed
    for n in range(RECORDS):
        await session.step(fact, n)
    _replayed += 1
    await session.step(endless)


async def _program(database: str, fill: int, expect: int) -> None:
    """Open the runtime; create `fill` sessions with an open turn, or wait until `expect` sessions have replayed; print that, and keep
    running."""
    async with Runtime(f"sqlite:///{database}", [opened]) as runtime:
        for start in range(0, fill, 500):
            handles = await asyncio.gather(*(runtime.spawn(opened, id=f"s-{n}") for n in range(start, min(start + 500, fill))))
            await asyncio.gather(*(handle.tell("go") for handle in handles))
        while _replayed < max(fill, expect) or runtime.statistics()["recovering"]:  # noqa: ASYNC110 — a count has no event to wait for
            await asyncio.sleep(0.005)
        print(f"ready {_ran}", flush=True)
        await asyncio.get_running_loop().create_future()


def _start(database: Path, fill: int, expect: int) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "benchmarks.recovery", str(database), str(fill), str(expect)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline().split()
    if line[:1] != ["ready"]:
        raise RuntimeError(f"the program ended with {process.wait()}")
    return process, int(line[1])


def _kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def run(quick: bool) -> list[Figure]:
    """Seconds, the death and the start of the process included."""
    turns = 1_000 if quick else 10_000
    with raw.scratch() as directory:
        filled = directory / "open.db"
        process, ran = _start(filled, turns, 0)
        _kill(process)
        if ran != turns * RECORDS:
            raise RuntimeError(f"{ran} steps ran where {turns * RECORDS} were asked for")

        def recover() -> float:
            # Each block has a copy of its own: after several unclean ends in a row without a new record, sessions are tried in parts.
            database = directory / f"open-{time.monotonic_ns()}.db"
            for part in ("", "-wal"):
                shutil.copyfile(f"{filled}{part}", f"{database}{part}")
            alive, _ = _start(database, 0, turns)
            began = time.perf_counter()
            _kill(alive)
            alive, again = _start(database, 0, turns)
            took_s = time.perf_counter() - began
            _kill(alive)
            if again:
                raise RuntimeError(f"{again} recorded steps ran again")
            return took_s

        def bare() -> float:
            empty = directory / f"empty-{time.monotonic_ns()}.db"
            began = time.perf_counter()
            process, _ = _start(empty, 0, 0)
            took_s = time.perf_counter() - began
            _kill(process)
            return took_s

        raws, mine = alternate(1 if quick else 5, bare, recover)
    more = median(m - r for m, r in zip(mine, raws, strict=True))
    return [
        Figure(
            f"kill -9 to {turns:,} open turns of {RECORDS} records replayed",
            "s",
            median(mine),
            median(raws),
            "start on an empty database",
            "<= 2 s more than raw",
            more <= 2.0,
            None,
            {"ours": mine, "raw": raws},
            f"{more:.2f} s more than a bare start",
        )
    ]


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    tune()
    asyncio.run(_program(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
