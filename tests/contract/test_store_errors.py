"""The errors that the protocol of a store documents: each is provoked, on every store where it can occur."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from holdfast.errors import (
    ConfigError,
    NotWritten,
    OutcomeUnknown,
    SchemaTooNew,
    StoreError,
    StoreLocked,
    StoreLost,
    WriteRefused,
)
from holdfast.policies.budget import Budget
from holdfast.stores import open_store
from holdfast.stores.memory.store import MemoryStore
from holdfast.stores.ops import Activate, CreateSession, Op, Reply, Touch, WriteStep
from holdfast.stores.postgres.link import Address as Url
from holdfast.stores.postgres.schema import quoted
from holdfast.stores.protocol import Checked, Store
from holdfast.stores.records import Address, StepRecord, StepState
from holdfast.stores.sqlite.store import SqliteStore

pytestmark = pytest.mark.anyio

encode = msgspec.msgpack.encode

READS: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "owner": lambda store: store.owner(),
    "sessions": lambda store: store.sessions(),
    "children": lambda store: store.children("s"),
    "family": lambda store: store.family("s"),
    "counts": lambda store: store.counts(),
    "agents": lambda store: store.agents(),
    "similar": lambda store: store.similar("s"),
    "open_steps": lambda store: store.open_steps(["s"]),
    "blocking_letters": lambda store: store.blocking_letters(["s"]),
    "messages": lambda store: store.messages("s"),
    "steps": lambda store: store.steps("s", 1),
    "checkpoints": lambda store: store.checkpoints("s"),
    "dead_letters": lambda store: store.dead_letters(),
    "session": lambda store: store.session("s"),
    "message": lambda store: store.message("s", "m"),
    "living_children": lambda store: store.living_children("s"),
    "orphans": lambda store: store.orphans(),
    "runnable": lambda store: store.runnable(),
}


class Disk(Protocol):
    def store(self) -> Store: ...


def create(id: str = "s") -> Op:
    return CreateSession(id, "agent", "acme", "ann", 1, b"\xc0", Budget(), b"", 1.0)


async def raised(work: Awaitable[Any]) -> type[BaseException]:
    """The class of the error that it raises, not one of its bases."""
    with pytest.raises(StoreError) as found:
        await work
    return found.type


def test_every_read_of_the_protocol_is_among_those_that_are_tried() -> None:
    """A read that is added later has the same rule."""
    others = {"unclean", "overlaps", "open", "close", "apply", "release"}
    assert {name for name in vars(Store) if not name.startswith("_")} == READS.keys() | others


@pytest.mark.parametrize("name", READS)
async def test_a_read_of_a_store_that_is_not_open_is_a_store_error(disk: Disk, name: str) -> None:
    """Before `open`, and after `close`. It is not NotWritten: nobody wrote."""
    store = disk.store()
    assert await raised(READS[name](store)) is StoreError
    await store.open()
    await READS[name](store)  # nothing is there, and that is no error
    await store.close()
    assert await raised(READS[name](store)) is StoreError


async def test_a_store_that_is_not_open_writes_nothing_and_says_that_no_try_helps(disk: Disk) -> None:
    """`close` and `release` raise nothing then."""
    store = disk.store()
    for _ in range(2):
        with pytest.raises(NotWritten, match="not open") as found:
            await store.apply([Touch()])
        assert (found.type, found.value.passing) == (NotWritten, False)
        store.release("s")
        await store.close()
    assert store.unclean is False


async def test_a_store_that_is_open_is_locked(disk: Disk) -> None:
    """For another process, and for this one; who has it open is not disturbed."""
    store = disk.store()
    await store.open()
    try:
        assert await raised(disk.store().open()) is StoreLocked
        assert await raised(store.open()) is StoreLocked
        await store.apply([create()])
    finally:
        await store.close()


async def test_an_op_that_is_at_fault_is_refused_and_the_others_can_be_written(store: Store) -> None:
    """None of its batch took effect; without it the batch is applied."""
    key = WriteStep("s", 1, 1, b"k", StepState.WAITING, encode(StepRecord("ask", "t", "", b"", 0, "read")))
    await store.apply([create(), Activate("s", 2.0), key])
    bad = Reply(Address("s", 1, b"k"), b"\xc1", 3.0)
    with pytest.raises(WriteRefused) as found:
        await store.apply([create("other"), bad])
    assert found.value.passing is False
    assert await store.session("other") is None
    await store.apply([create("other")])
    assert await store.session("other") is not None


async def test_a_read_that_is_cancelled_changes_nothing(store: Store) -> None:
    """The next one is answered."""
    await store.apply([create()])
    for name, read in READS.items():
        task = asyncio.ensure_future(read(store))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await store.session("s") is not None, name


async def test_an_unknown_outcome_is_said_as_such() -> None:
    """Whether the batch was applied or not; Postgres: tests/integration/test_postgres.py and tests/chaos/test_cancellation.py."""
    store = MemoryStore()
    await store.open()

    class Faults:
        async def before_apply(self, n: int, ops: Any) -> None:
            if n == 2:
                raise NotWritten("the disk is full")

        async def after_apply(self, n: int, ops: Any) -> None:
            if n == 1:
                raise OutcomeUnknown("the answer was lost")

    store.faults = Faults()
    assert await raised(store.apply([create()])) is OutcomeUnknown
    assert await store.session("s") is not None
    with pytest.raises(NotWritten) as found:
        await store.apply([create("other")])
    assert found.value.passing
    assert await store.session("other") is None


# ---------------------------------------------------------------- SQLite


async def test_sqlite_tells_a_fault_of_the_disk_from_one_of_an_op(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk passes; nothing was written, and the same write succeeds later."""
    store = SqliteStore(tmp_path / "s.db")
    await store.open()

    def full(*_: Any) -> Any:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    try:
        with monkeypatch.context() as patch:
            patch.setattr("holdfast.stores.sqlite.interpreter.Interpreter.apply", full)
            with pytest.raises(NotWritten, match="disk is full") as found:
                await store.apply([create()])
        assert (found.type, found.value.passing) == (NotWritten, True)
        await store.apply([create()])
    finally:
        await store.close()


async def test_sqlite_is_lost_where_its_file_is_gone(tmp_path: Path) -> None:
    """For writes and for `check`; a closed store has nothing to look at."""
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    assert isinstance(store, Checked)
    await store.check()
    await store.open()
    try:
        path.unlink()
        assert await raised(store.check()) is StoreLost
        assert await raised(store.apply([Touch()])) is StoreLost
    finally:
        await store.close()


async def test_sqlite_that_is_damaged_fails_its_reads(tmp_path: Path) -> None:
    """A reader cannot read it; the process that writes to it has lost it, and writes nothing any more."""
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    await store.open()
    await store.apply([create(f"s{n}") for n in range(500)])
    await store.close()
    owner, reader = SqliteStore(path), SqliteStore(path, readonly=True)
    await owner.open()
    await reader.open()
    try:
        data = bytearray(path.read_bytes())
        for page in range(len(data) // 2 // 4096 * 4096, len(data), 4096):
            data[page : page + 100] = b"\xa5" * 100
        with path.open("r+b") as file:
            file.write(data)
        assert await raised(reader.sessions()) is StoreError
        assert await raised(owner.sessions()) is StoreLost
        assert await raised(owner.apply([create("other")])) is StoreLost
    finally:
        await reader.close()
        await owner.close()


async def test_sqlite_says_what_it_cannot_open(tmp_path: Path) -> None:
    """A newer file, another program's, none at all, one that needs a migration; nothing is held afterwards, and nothing was changed."""
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    await store.open()
    await store.close()
    for version, error in ((99, SchemaTooNew), (1, StoreError)):
        db = sqlite3.connect(path)
        db.execute("UPDATE schema_version SET version = ?", (version,))
        db.commit()
        db.close()
        assert await raised(open_store(f"sqlite:///{path}", readonly=True).open()) is error
    other = tmp_path / "other.db"
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE things (id)")
    db.close()
    for _ in range(2):
        assert await raised(SqliteStore(other).open()) is StoreError
    assert await raised(SqliteStore(tmp_path / "none.db", readonly=True).open()) is StoreError
    with pytest.raises(NotWritten, match="reading only"):
        await SqliteStore(path, readonly=True).apply([Touch()])


# ---------------------------------------------------------------- Postgres


async def test_postgres_says_what_it_cannot_open(postgres_url: str) -> None:
    """A newer schema, an option that is none, a server that does not answer; a reader is refused an older schema, and writes."""
    store = open_store(postgres_url)
    await store.open()
    await store.close()
    address = Url(postgres_url)
    connection = await address.connect("test")
    versions = f"{quoted(address.schema)}.schema_version"
    before = await connection.fetchval(f"SELECT version FROM {versions}")
    try:
        for version, readonly, error in ((99, False, SchemaTooNew), (1, True, StoreError)):
            await connection.execute(f"UPDATE {versions} SET version = {version}")
            assert await raised(open_store(postgres_url, readonly=readonly).open()) is error
    finally:
        await connection.execute(f"UPDATE {versions} SET version = {before}")
        await connection.close()
    again = open_store(postgres_url)  # nothing was held
    await again.open()
    await again.close()
    assert await raised(open_store("postgresql://nobody@127.0.0.1:1/none").open()) is StoreError
    with pytest.raises(ConfigError, match="statement_cache_size"):
        open_store("postgresql://localhost/x?statement_cache_size=many")
    with pytest.raises(NotWritten, match="reading only"):
        await open_store(postgres_url, readonly=True).apply([Touch()])


async def test_postgres_is_lost_where_another_process_owns_it(postgres_url: str) -> None:
    """For good, and for writes alone: a fenced process can still be asked what it knows."""
    store = open_store(postgres_url)
    await store.open()
    address = Url(postgres_url)
    connection = await address.connect("test")
    try:
        await connection.execute(f"UPDATE {quoted(address.schema)}.nodes SET token = 'another', incarnation = incarnation + 1")
        for _ in range(2):
            assert await raised(store.apply([create()])) is StoreLost
        assert await store.session("s") is None
    finally:
        await connection.close()
        await store.close()
