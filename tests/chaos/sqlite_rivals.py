"""A program that test_rivals_sqlite runs: processes that compete for one SQLite file, while others kill them and remove their files.

    python -m tests.chaos.sqlite_rivals FOLDER FIRST ROUNDS

Each process becomes the owner of the file if it can, writes for a while, forks now and then, and begins again. The file counts the writes.
While a process owns it, each of its own writes has to find the count that its last one left: otherwise another process wrote in between.
Prints one JSON line a round: how many writes there were, how many owners, and the writes that found another count.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from random import Random

from holdfast.errors import StoreError
from holdfast.stores.ops import Op, Result, Touch
from holdfast.stores.sqlite.store import SqliteStore

PROCESSES = 4
ROUND_S = 0.4


class CountedStore(SqliteStore):
    """A store that looks at the count of writes around each of its own. `report`: a descriptor that takes what happened."""

    def __init__(self, path: Path, report: int) -> None:
        super().__init__(path)
        self._report, self._last = report, -1

    def say(self, what: str) -> None:
        os.write(self._report, f"{what}\n".encode())

    def count(self) -> int:
        return int(self._raw().execute("SELECT touched FROM nodes").fetchone()[0])

    def _prepare(self) -> None:
        super()._prepare()
        self._last = self.count()
        self.say("owner")

    def _transaction(self, ops: Sequence[Op]) -> list[Result]:
        results = super()._transaction(ops)
        now = self.count()
        self.say("write" if now == self._last + 1 else f"BETWEEN {self._last} and {now}")
        self._last = now
        return results


def fork(lives_s: float) -> None:
    """Fork a child that lives for so long."""
    if os.fork() == 0:
        time.sleep(lives_s)
        os._exit(0)


async def life(path: Path, report: int, random: Random) -> None:
    """Own the file for some writes, if it is free."""
    store = CountedStore(path, report)
    try:
        await store.open()
        for _ in range(random.randrange(1, 60)):
            await store.apply([Touch()])
            if random.random() < 0.1:
                await store.check()
            if random.random() < 0.05:
                fork(0.1 * random.random())
            await asyncio.sleep(0.002 * random.random())
    except StoreError as error:
        if "in use by" not in str(error):
            store.say(f"lost: {error}")
    finally:
        await store.close()


def live(path: Path, report: int, random: Random) -> None:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            asyncio.run(life(path, report, random))
            time.sleep(0.003 * random.random())
    except BaseException:
        os.write(report, f"FAULT {traceback.format_exc()!r}\n".encode())
    finally:
        os._exit(1)


def start(path: Path, report: int, random: Random) -> int:
    pid = os.fork()
    if pid == 0:
        live(path, report, random)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def harm(path: Path, random: Random) -> None:
    """Remove or replace the lock file, or move the database away with what belongs to it."""
    match random.choice(("remove", "remove", "replace", "move")):
        case "remove":
            Path(f"{path}.lock").unlink(missing_ok=True)
        case "replace":
            path.with_name("other").write_text("1")
            path.with_name("other").rename(f"{path}.lock")
        case "move":
            for suffix in ("", "-wal", "-shm"):
                try:
                    os.rename(f"{path}{suffix}", f"{path}.moved{suffix}")
                except FileNotFoundError:
                    pass  # SQLite removes the WAL and its index at a close


def play(folder: Path, seed: int) -> dict[str, object]:
    random, path, log = Random(seed), folder / f"{seed}.db", folder / f"{seed}.log"
    report = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    pids = [start(path, report, Random(random.random())) for _ in range(PROCESSES)]
    until = time.monotonic() + ROUND_S
    try:
        while time.monotonic() < until:
            time.sleep(0.06 * random.random())
            if random.random() < 0.5:
                end(pids.pop(random.randrange(len(pids))))
                pids.append(start(path, report, Random(random.random())))
            else:
                harm(path, random)
    finally:
        for pid in pids:
            end(pid)
        os.close(report)
    lines = log.read_text().splitlines()
    wrong = [line for line in lines if line.startswith(("BETWEEN", "FAULT"))]
    return {"seed": seed, "writes": lines.count("write"), "owners": lines.count("owner"), "wrong": wrong}


def main(folder: str, first: int, rounds: int) -> None:
    for seed in range(first, first + rounds):
        print(json.dumps(play(Path(folder), seed)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
