"""The storms: each gives the URL of a store, and a way to disturb that store for a while."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from benchmarks import raw
from holdfast.stores.postgres.dev import DevServer

Blow = Callable[[], Awaitable[None]]
Storm = Callable[[float], "Iterator[tuple[str, Blow]]"]
"""Takes a scale: 1.0 for the whole storm, less for a trial."""

RESTART_S, FULL_S, LOCKED_S, LONG_S = 5.0, 6.0, 40.0, 40.0
"""The time between two restarts; how long a disk is full; how long a file is locked; how long the other storms last, in seconds."""

_LOCKER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=30.0, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
time.sleep(float(sys.argv[2]))
connection.execute("ROLLBACK")
"""


class Skipped(Exception):
    """This machine cannot make the storm; the text has the reason."""


# ---------------------------------------------------------------- SQLite


def none(scale: float) -> Iterator[tuple[str, Blow]]:
    """Nothing fails: the control."""
    with raw.scratch() as folder:
        yield f"sqlite:///{folder}/storm.db", lambda: asyncio.sleep(LONG_S / 4 * scale)


def locked(scale: float) -> Iterator[tuple[str, Blow]]:
    """Another process holds SQLite's write lock for 40 s."""
    with raw.scratch() as folder:
        command = [sys.executable, "-c", _LOCKER, f"{folder}/storm.db", str(LOCKED_S * scale)]
        yield f"sqlite:///{folder}/storm.db", lambda: asyncio.to_thread(_call, command)


def full(scale: float) -> Iterator[tuple[str, Blow]]:
    """The disk of a SQLite file is full for 6 s, twice."""
    with raw.scratch() as folder, _small_disk(folder, "24m"):

        async def blow() -> None:
            for _ in range(2):
                await asyncio.to_thread(_fill, folder / "filler", FULL_S * scale)
                await asyncio.sleep(FULL_S * scale / 2)

        yield f"sqlite:///{folder}/storm.db", blow


# ---------------------------------------------------------------- Postgres


def restarts(scale: float) -> Iterator[tuple[str, Blow]]:
    """Postgres is stopped and started every 5 s, by turns so that it ends its transactions and so that it recovers from a crash."""
    with _server() as (server, url):

        async def blow() -> None:
            for number in range(max(round(LONG_S / RESTART_S * scale), 2)):
                await asyncio.to_thread(_stop if number % 2 else _crash, server)
                await asyncio.sleep(random.uniform(0.1, 1.0))
                await asyncio.to_thread(server.start_now)
                await asyncio.sleep(RESTART_S)

        yield url, blow


def terminations(scale: float) -> Iterator[tuple[str, Blow]]:
    """Connections of holdfast are ended at random, 20 ms to 0.5 s apart."""
    with _server() as (_, url):

        async def blow() -> None:
            aside, until = await _aside(url), time.monotonic() + LONG_S * scale
            while time.monotonic() < until:
                await aside.execute(
                    "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'holdfast %'"
                    " ORDER BY random() LIMIT 1 + (random() * 2)::int) chosen"
                )
                await asyncio.sleep(random.uniform(0.02, 0.5))
            await aside.close()

        yield url, blow


def timeouts(scale: float) -> Iterator[tuple[str, Blow]]:
    """By turns: no statement may take longer than 2 ms, and another transaction locks the table that each write reads."""
    with _server() as (_, url):

        async def blow() -> None:
            aside, until = await _aside(url), time.monotonic() + LONG_S * scale
            await _set(aside, "lock_timeout", "'100ms'")
            while time.monotonic() < until:
                await _set(aside, "statement_timeout", random.choice(["'1ms'", "'2ms'", "'5ms'"]))
                await asyncio.sleep(random.uniform(0.5, 2.0))
                await _set(aside, "statement_timeout", "0")
                await asyncio.sleep(random.uniform(0.5, 2.0))
                async with aside.transaction():
                    await aside.execute("LOCK TABLE holdfast.nodes IN ACCESS EXCLUSIVE MODE")
                    await asyncio.sleep(random.uniform(0.5, 2.0))
                await asyncio.sleep(random.uniform(0.5, 2.0))
            await _set(aside, "lock_timeout", "0")
            await aside.close()

        yield url, blow


def postgres_locked(scale: float) -> Iterator[tuple[str, Blow]]:
    """Another transaction locks a table of Postgres for 40 s, and no statement has a timeout of the server's."""
    with _server() as (_, url):

        async def blow() -> None:
            aside = await _aside(url)
            async with aside.transaction():
                await aside.execute("LOCK TABLE holdfast.nodes IN ACCESS EXCLUSIVE MODE")
                # Not for less than 28 s: a write waits for its answer for 25.
                await asyncio.sleep(max(LOCKED_S * scale, 28.0))
            await aside.close()

        yield url, blow


def postgres_full(scale: float) -> Iterator[tuple[str, Blow]]:
    """The disk of Postgres is full for 6 s: it stops by itself, and is started again."""
    with raw.scratch() as folder, _small_disk(folder, "160m"), _server(folder) as (server, url):

        async def blow() -> None:
            # Not for less than 3 s: it has some room in files that it made before.
            await asyncio.to_thread(_fill, folder / "filler", max(FULL_S * scale, 3.0))
            await asyncio.to_thread(server.start_now)
            await asyncio.sleep(FULL_S * scale)

        yield url, blow


STORMS: dict[str, Storm] = {
    "none": none, "restarts": restarts, "terminations": terminations, "timeouts": timeouts, "full": full, "postgres-full": postgres_full,
    "locked": locked, "postgres-locked": postgres_locked,
}  # fmt: skip


# ---------------------------------------------------------------- their means


def _call(command: list[str]) -> None:
    subprocess.run(command, check=True)


@contextmanager
def _small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of so many bytes there."""
    if os.geteuid() != 0:
        raise Skipped("to mount a small disk it has to run as root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode != 0:
        raise Skipped(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        _call(["umount", "-l", str(folder)])


def _fill(filler: Path, seconds: float) -> None:
    """Keep the disk of a file full for so long."""
    until, block = time.monotonic() + seconds, bytes(1 << 16)
    with open(filler, "wb", buffering=0) as file:
        while time.monotonic() < until:
            try:
                file.write(block)
            except OSError:
                block = block[: max(len(block) // 2, 512)]
                time.sleep(0.01)
    filler.unlink()


@contextmanager
def _server(folder: Path | None = None) -> Iterator[tuple[DevServer, str]]:
    """A server on the disk of the temporary directory (TMPDIR), or in a folder; and its URL."""
    with raw.scratch() as temporary:
        settings = {"min_wal_size": "32MB", "max_wal_size": "64MB"} if folder is not None else {}
        server = DevServer((folder or temporary) / "server", settings=settings, idle_s=1.0)
        try:
            yield server, server.start_now()
        finally:
            server.leave()
            server.stop_now()


def _stop(server: DevServer) -> None:
    server.stop_now()


def _crash(server: DevServer) -> None:
    """Have it end at once, without a checkpoint."""
    process = int((server.data / "postmaster.pid").read_text().split()[0])
    os.kill(process, signal.SIGQUIT)
    while (server.data / "postmaster.pid").exists():
        time.sleep(0.01)


async def _aside(url: str) -> asyncpg.Connection:
    """A connection that the storm does not reach."""
    mine = {"statement_timeout": "0", "lock_timeout": "0", "application_name": "storm"}
    return await asyncpg.connect(url, server_settings=mine)


async def _set(aside: asyncpg.Connection, name: str, value: str) -> None:
    await aside.execute(f"ALTER SYSTEM SET {name} = {value}")
    await aside.execute("SELECT pg_reload_conf()")
