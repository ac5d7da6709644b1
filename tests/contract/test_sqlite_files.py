"""A SQLite file and its WAL removed, replaced, truncated or damaged under the process that runs them, and the children that it forks."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from holdfast import Runtime, RuntimeStopped, Session, agent
from holdfast.console.reading.target import store_url
from holdfast.errors import ConfigError, StoreError, StoreLost, SupervisorGaveUp
from holdfast.policies.budget import Budget
from holdfast.stores.ops import Activate, CreateSession, Op, Touch
from holdfast.stores.sqlite.lock import FileLock, take_lock
from holdfast.stores.sqlite.store import SqliteStore

pytestmark = pytest.mark.anyio


def create(id: str) -> list[Op]:
    return [CreateSession(id, "agent", "acme", "ann", 1, b"state", Budget(), b"seed", 1.0), Activate(id, 2.0)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "s.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """An open store with a session, whose WAL is partly in the database."""
    store = SqliteStore(path)
    await store.open()
    await store.apply(create("a"))
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint")
    db.close()
    await store.apply(create("b"))
    for _ in range(2):
        await store.check()
    yield store
    await store.close()


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def contents(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, contents: bytes) -> None:
    path.write_bytes(contents)


def overwrite(path: Path, at: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * length)


def replace(path: Path) -> None:
    other = beside(path, ".other")
    shutil.copy(path, other)
    other.rename(path)


def another_program_writes(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("UPDATE nodes SET touched = touched + 1")
    db.commit()
    db.close()


FOUND_AT_ONCE: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "renamed": lambda path: path.rename(beside(path, ".moved")),
    "folder renamed": lambda path: path.parent.rename(path.parent.with_name("elsewhere")),
    "replaced": replace,
    "truncated": lambda path: os.truncate(path, 0),
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 4096),
    "wal removed": lambda path: beside(path, "-wal").unlink(),
    "wal replaced": lambda path: replace(beside(path, "-wal")),
    "wal truncated": lambda path: os.truncate(beside(path, "-wal"), 0),
    "wal cut short": lambda path: os.truncate(beside(path, "-wal"), 4096),
}
FOUND_BY_LOOKING: dict[str, Callable[[Path], object]] = {
    "header damaged": lambda path: overwrite(path, 0, 100),
    "page damaged": lambda path: overwrite(path, 4096, 4096),
    "wal's header damaged": lambda path: overwrite(beside(path, "-wal"), 0, 32),
    "wal's page damaged": lambda path: overwrite(beside(path, "-wal"), 56, 4096),
    "index removed": lambda path: beside(path, "-shm").unlink(),
    "another program wrote": another_program_writes,
}
HARMS = {**FOUND_AT_ONCE, **FOUND_BY_LOOKING}


@pytest.mark.parametrize("harm", FOUND_AT_ONCE)
async def test_a_transaction_is_refused_where_the_files_are_not_those_that_were_opened(store: SqliteStore, path: Path, harm: str) -> None:
    """An acknowledgement would be worth nothing: no later start would find the write."""
    HARMS[harm](path)
    for _ in range(2):
        with pytest.raises(StoreLost, match="while this process ran it"):
            await store.apply([Touch()])


@pytest.mark.parametrize("harm", HARMS)
async def test_harm_is_found_while_nothing_is_written(store: SqliteStore, path: Path, harm: str) -> None:
    """And from then on nothing is acknowledged, even where the file is put right again."""
    HARMS[harm](path)
    with pytest.raises(StoreLost, match="while this process ran it"):
        await store.check()
    with pytest.raises(StoreLost):
        await store.apply([Touch()])
    with pytest.raises(StoreLost):
        await store.check()


async def test_what_is_no_harm_is_none(store: SqliteStore, path: Path) -> None:
    """Readers, a checkpoint by another program, a touched file, other rights, many writes."""
    reader = SqliteStore(path, readonly=True)
    await reader.open()
    assert await reader.counts()
    await reader.close()
    await store.check()
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint")
    db.close()
    await store.check()
    for file in (path, beside(path, "-wal")):
        os.utime(file)
        os.chmod(file, 0o640)
    await store.check()
    for each in range(400):  # long enough for several checkpoints
        await store.apply([Touch(), *create(f"s{each}")])
        if each % 100 == 0:
            await store.check()
    await store.check()


async def test_a_page_that_sqlite_finds_damaged_ends_the_writing(path: Path) -> None:
    """Where a read finds it first, too."""
    first = SqliteStore(path)
    await first.open()
    for each in range(300):
        await first.apply(create(f"s{each}"))
    await first.close()
    size = os.stat(path).st_size
    store = SqliteStore(path)
    await store.open()
    overwrite(path, 8 * 4096, size - 8 * 4096)
    with pytest.raises(StoreError, match="damaged"):
        await store.sessions()
    with pytest.raises(StoreLost, match="is damaged"):
        await store.apply([Touch()])
    await store.close()


async def test_a_damaged_file_is_left_as_it_is(store: SqliteStore, path: Path) -> None:
    """A backup copied over it must not get pages of the old file at the close. This process cannot open it again: SQLite would mix them."""
    backup = contents(path)
    write(beside(path, "-wal"), b"")
    write(path, backup)
    with pytest.raises(StoreLost):
        await store.check()
    await store.close()
    assert contents(path) == backup
    with pytest.raises(StoreError, match="started anew"):
        await store.open()


async def test_a_removed_wal_is_written_into_the_database_at_the_close(store: SqliteStore, path: Path) -> None:
    """What was acknowledged before is not lost with it."""
    beside(path, "-wal").unlink()
    with pytest.raises(StoreLost):
        await store.check()
    await store.close()
    await store.open()
    assert {session.id for session in await store.sessions()} == {"a", "b"}
    assert store.unclean


@pytest.mark.parametrize("gone", [True, False])
async def test_a_file_that_vanishes_during_a_look_is_lost(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """One that merely cannot be read is tried again later."""

    def vanish(wal: str) -> int:
        if gone:
            path.unlink()
        raise FileNotFoundError(2, "No such file or directory", wal)

    await store.apply([Touch()])
    await store.check()
    monkeypatch.setattr("holdfast.stores.sqlite.file._checksum", vanish)
    with pytest.raises(StoreLost if gone else StoreError, match="removed or replaced" if gone else "cannot be checked"):
        await store.check()
    if not gone:
        await store.apply([Touch()])


async def test_a_file_that_is_replaced_while_it_is_opened_gets_no_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is of the file that was there; SQLite opens by name."""

    def take(*args: str) -> FileLock:
        taken = take_lock(*args)
        replace(path)
        return taken

    monkeypatch.setattr("holdfast.stores.sqlite.store.take_lock", take)
    with pytest.raises(StoreError, match="removed or replaced while it was opened"):
        await SqliteStore(path).open()
    assert contents(path) == b""


# ---------------------------------------------------------------- a Runtime


@agent
async def answer(session: Session[None], message: str) -> str:
    return message.upper()


@pytest.mark.parametrize("harm", HARMS)
async def test_an_idle_runtime_ends_within_seconds(path: Path, harm: str) -> None:
    """Nothing is written meanwhile, and nothing is acknowledged after it."""
    store = SqliteStore(path)
    store.check_s = 0.05
    runtime = Runtime(store, [answer])
    await runtime.start()
    session = await runtime.spawn(answer, id="a")
    assert await session.ask("x") == "X"
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint")
    db.close()
    assert await session.ask("y") == "Y"
    await asyncio.sleep(0.2)
    HARMS[harm](path)
    async with asyncio.timeout(5.0):
        with pytest.raises(SupervisorGaveUp) as gave_up:
            await runtime.wait_closed()
    assert isinstance(gave_up.value.__cause__, StoreLost)
    with pytest.raises(RuntimeStopped):
        await session.ask("z")
    with pytest.raises(SupervisorGaveUp):
        await runtime.stop()


# ---------------------------------------------------------------- forks


def in_child(run: Callable[[], object]) -> str:
    """What `run` gives in a forked child: its value, or the error."""
    receiver, sender = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = repr(run())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(sender, text.encode())
        os._exit(0)
    os.close(sender)
    os.waitpid(pid, 0)
    with os.fdopen(receiver) as file:
        return file.read()


def with_a_loop(run: Callable[[], Awaitable[object]]) -> object:
    async def main() -> object:
        return await run()

    asyncio._set_running_loop(None)  # that of the parent, in which the fork happened
    return asyncio.run(main())


async def test_a_forked_child_has_no_part_in_the_store(store: SqliteStore, path: Path) -> None:
    """It neither writes with its parent's connection nor opens the file beside it; the parent notices nothing."""

    def descriptors() -> list[str]:
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        targets = [os.readlink(link) for link in links if os.path.lexists(link)]
        return sorted(Path(target).name for target in targets if target.endswith(".lock"))

    assert descriptors() == ["s.db.lock"]
    assert in_child(descriptors) == "[]"
    refused = in_child(lambda: with_a_loop(lambda: store.apply([Touch()])))
    assert refused.startswith(f"NotWritten: {path} belongs to process {os.getpid()}, from which this one was forked")
    assert in_child(lambda: with_a_loop(SqliteStore(path).open)).startswith(f"StoreLocked: {path} is in use by process {os.getpid()}")
    assert in_child(lambda: with_a_loop(store.close)) == "None"
    await store.apply(create("c"))
    await store.check()
    assert len(await store.sessions()) == 3


PARENT = """
import asyncio, gc, os, sys, time
from holdfast.stores.ops import Touch
from holdfast.stores.sqlite.store import SqliteStore
from holdfast.stores.sqlite.lock import FileLock, take_lock

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    await store.apply([Touch()])
    if os.fork() == 0:
        return store
    print(os.getpid(), flush=True)
    os.kill(os.getpid(), 9)

store = asyncio.run(main())
sys.stdin.read(1)
async def again():
    await SqliteStore(sys.argv[1]).open()
try:
    asyncio.run(again())
except Exception as error:
    print(type(error).__name__, error, flush=True)
del store
gc.collect()
"""


def python(program: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def test_a_child_that_outlives_its_parent_keeps_nobody_out_and_harms_nothing(path: Path) -> None:
    """It does not hold the lock; its exit neither checkpoints nor removes the WAL of the next owner; it cannot become the owner."""
    run = python(PARENT, str(path))
    assert run.stdin is not None
    assert run.stdout is not None
    assert int(run.stdout.readline()) == run.pid
    run.wait()
    store = SqliteStore(path)
    await store.open()
    assert store.unclean
    await store.apply(create("a"))
    run.stdin.write("x")
    run.stdin.close()
    assert "StoreLocked" in run.stdout.readline()
    assert run.stdout.read() == ""  # it has ended
    run.stdout.close()
    await store.check()
    await store.apply(create("b"))
    await store.close()


async def test_a_child_cannot_become_the_owner_of_a_file_that_its_parent_had_open(store: SqliteStore, path: Path) -> None:
    """SQLite would take the locks of its parent's connection for its own."""

    def later() -> object:
        fcntl.flock = fcntl.lockf = lambda *args: None  # the parent's locks are free by then
        return with_a_loop(SqliteStore(path).open)

    assert "was open in the process from which this one was forked: open it in a process that is started anew" in in_child(later)


# ---------------------------------------------------------------- rights


async def test_missing_rights_are_not_a_missing_database(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a reader that names it, and for one that looks into the folder."""
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(os, "access", lambda *args: False)
    with pytest.raises(StoreError, match="this user may not read it"):
        await SqliteStore(path, readonly=True).open()
    with pytest.raises(ConfigError, match=r"no database that can be read \(cannot open .*s.db: this user may not read it\)"):
        store_url(None, None)

    def refuse(name: object, **options: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(name))

    monkeypatch.undo()
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        with pytest.raises(StoreError, match="Permission denied"):
            await SqliteStore(path, readonly=True).open()
