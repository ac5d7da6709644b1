"""What only the SQLite store does: files of an earlier schema, and reading a file beside the process that runs it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import aiosqlite
import msgspec
import pytest

from holdfast.errors import ConfigError, NotWritten, OutcomeUnknown, SchemaTooNew, StoreError, StoreLost, WriteRefused
from holdfast.policies.budget import Budget, Usage
from holdfast.stores import open_store
from holdfast.stores.group import GroupCommit
from holdfast.stores.listed import Filter
from holdfast.stores.ops import Activate, CreateSession, Enqueue, Op, Result, Status, Touch, UpdateSession
from holdfast.stores.records import Outcome, Park
from holdfast.stores.sqlite.schema import APPLICATION_ID, MIGRATIONS
from holdfast.stores.sqlite.store import SqliteStore
from tests.contract.old_rows import ODD_BUDGETS, PLACES, check_odd_rows, check_sound_rows

pytestmark = pytest.mark.anyio

encode = msgspec.msgpack.encode


def create(id: str) -> list[Op]:
    return [CreateSession(id, "agent", "acme", "ann", 1, b"state", Budget(), b"seed", 1.0), Activate(id, 2.0)]


def park(id: str, reason: str, now: float) -> UpdateSession:
    return UpdateSession(id, 1, now, status="parked", park=Park(reason, "why", 70.0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
async def owner(path: Path) -> AsyncIterator[SqliteStore]:
    """The process that has the file open for writing, with one session."""
    store = SqliteStore(path)
    await store.open()
    await store.apply(create("a"))
    yield store
    await store.close()


# ---------------------------------------------------------------- schema


def make_version_1(path: Path) -> None:
    """A database as the first schema left it, put down uncleanly, with a session of each place in the list."""
    db = sqlite3.connect(path)
    db.executescript(f"PRAGMA journal_mode = WAL; {MIGRATIONS[0]} UPDATE schema_version SET version = 1;")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("INSERT INTO nodes VALUES (1, 0)")
    for id, status, park, pending in PLACES:
        db.execute(
            "INSERT INTO sessions (id, agent, tenant, user, status, epoch, turn, pending, budget, usage, seed, detached, park, wake_at,"
            " gates, notes, crashes, crash_mark, created, updated)"
            " VALUES (?, 'agent', 'acme', 'ann', ?, 1, 0, ?, ?, ?, x'', 0, ?, NULL, x'', x'90', 0, 0, 1.0, 2.0)",
            (id, status, pending, encode(Budget()), encode(Usage()), None if park is None else encode(park)),
        )
        db.execute("INSERT INTO turns VALUES (?, 0, x'01', 1, NULL, 1.0, 1.0, ?)", (id, encode(Usage())))
    db.execute(
        "INSERT INTO messages (session, id, body, digest, kind, state, reply, created) "
        " VALUES ('works', 'm', x'02', x'03', 'message', 1, ?, 2.0)",
        (encode(Outcome()),),
    )
    db.execute("INSERT INTO dead_letters VALUES ('failed', 'm', 1, 'a bug', ?, 2.0)", (encode(["refund"]),))
    db.commit()
    db.close()


async def test_a_database_of_the_first_schema_is_brought_forward_with_its_data(path: Path) -> None:
    """The rows that are sound keep what they say."""
    make_version_1(path)
    store = SqliteStore(path)
    await store.open()
    try:
        await check_sound_rows(store)
        assert [s.id for s in await store.sessions(Filter(status="working"))] == ["doubts", "works"]
    finally:
        await store.close()


def make_version(path: Path, version: int) -> None:
    """A database as an earlier schema left it, with limits, parks and addresses that are refused, or do not decode, today."""
    make_version_1(path)
    db = sqlite3.connect(path)
    for name, function in (("park_reason", lambda park: "wait"), ("parent_turn", lambda address: 1)):
        db.create_function(name, 1, function)
    for number in range(1, version):
        db.executescript(f"{MIGRATIONS[number]} UPDATE schema_version SET version = {number + 1};")
    for id, limits in ODD_BUDGETS.items():
        db.execute(
            "INSERT INTO sessions (id, agent, tenant, user, status, epoch, turn, pending, budget, usage, seed, detached, gates, notes,"
            " crashes, crash_mark, created, updated)"
            " VALUES (?, 'agent', 'acme', 'ann', 'idle', 1, 0, 0, ?, ?, x'', 0, x'', x'90', 0, 0, 1.0, 2.0)",
            (id, encode(limits), encode(Usage())),
        )
        db.execute("INSERT INTO turns (session, turn, state, version, started, ended, usage) VALUES (?, 0, x'01', 1, 1, 1, x'80')", (id,))
    db.execute("UPDATE sessions SET park = x'c1' WHERE id = 'waits'")
    db.execute("UPDATE sessions SET parent = 'works', parent_at = x'c1' WHERE id = 'rests'")
    db.commit()
    db.close()


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
async def test_a_database_of_every_schema_opens_with_rows_that_are_refused_today(path: Path, version: int) -> None:
    """Those that are sound hold as they are; one that is not concerns its own session alone."""
    make_version(path, version)
    store = SqliteStore(path)
    await store.open()
    try:
        await check_odd_rows(store)
    finally:
        await store.close()


# ---------------------------------------------------------------- reading beside


async def looking(path: Path) -> SqliteStore:
    store = SqliteStore(path, readonly=True)
    await store.open()
    return store


async def test_a_reader_sees_what_the_owner_wrote_and_whose_it_is(owner: SqliteStore, path: Path) -> None:
    """Without its lock; every read is of what is there by then."""
    reader = await looking(path)
    try:
        assert [s.id for s in await reader.sessions()] == ["a"]
        assert await reader.owner() == await owner.owner()
        assert (await reader.owner()).process == os.getpid()
        await owner.apply(create("b"))
        assert [s.id for s in await reader.sessions()] == ["b", "a"]
        await owner.close()
        assert ((await reader.owner()).process, (await reader.owner()).clean) == (None, True)
    finally:
        await reader.close()
        await reader.close()


async def test_reads_within_a_snapshot_are_of_one_moment(owner: SqliteStore, path: Path) -> None:
    """The owner writes on meanwhile, and the next read after it sees that."""
    reader = await looking(path)
    try:
        async with reader.snapshot():
            before = await reader.counts()
            await owner.apply([*create("b"), park("a", "doubt", 5.0)])
            assert (await reader.counts(), [s.id for s in await reader.sessions()]) == (before, ["a"])
        assert await reader.counts() == {"idle": 1, "parked": 1}
        with pytest.raises(StoreError, match="open for writing"):
            async with owner.snapshot():
                pass
    finally:
        await reader.close()


async def test_a_reader_writes_nothing(owner: SqliteStore, path: Path) -> None:
    """Ops are refused as not written, and the bytes of the file and its WAL stay as they are."""

    def digests() -> list[str]:
        return [hashlib.sha256(Path(f"{path}{suffix}").read_bytes()).hexdigest() for suffix in ("", "-wal")]

    before = digests()
    reader = await looking(path)
    with pytest.raises(NotWritten, match="open for reading only"):
        await reader.apply(create("b"))
    await reader.sessions()
    await reader.close()
    assert digests() == before
    assert not (await owner.owner()).clean


def make_unreadable(path: Path, kind: str) -> None:
    match kind:
        case "a folder":
            path.mkdir()
        case "text":
            path.write_text("no database " * 100)
        case "older":
            make_version_1(path)
        case "foreign" | "newer":
            db = sqlite3.connect(path)
            db.execute("CREATE TABLE schema_version (version)")
            if kind == "newer":
                db.executescript(f"INSERT INTO schema_version VALUES (99); PRAGMA application_id = {APPLICATION_ID};")
            db.close()
        case "empty":
            path.touch()


def contents(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "there is no database"),
        ("a folder", "there is no database"),
        ("text", "is not a SQLite database"),
        ("foreign", "is a database of another program"),
        ("empty", "start it once with holdfast run"),
        ("older", "start it once with holdfast run"),
        ("newer", "upgrade holdfast"),
    ],
)
async def test_a_file_that_cannot_be_read_is_refused_in_one_line(path: Path, kind: str, says: str) -> None:
    """It names the file and says what is wrong; nothing is made, migrated or locked."""
    make_unreadable(path, kind)
    before = contents(path)
    with pytest.raises(SchemaTooNew if kind == "newer" else StoreError, match=says) as refused:
        await looking(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert (contents(path), contents(path.with_name("sessions.db.lock"))) == (before, None)


CELLS = {
    "budget": "x'c1'",
    "usage": "x'81a77365636f6e6473cb7ff8000000000000'",  # seconds: not a number
    "parent_at": "x'c1'",
    "park": "x'c1'",
    "notes": "'text'",
    "returns": "x'c1'",
    "status": "'odd'",
    "epoch": "'odd'",
    "turn": "'odd'",
    "pending": "'odd'",
    "gates": "'odd'",
    "seed": "7",
    "wake_at": "'odd'",
    "created": "'odd'",
    "updated": "x'00'",
    "crashes": "x'00'",
    "agent": "CAST(x'ff' AS TEXT)",
    "tenant": "x'ff'",
}


@pytest.mark.parametrize("column", CELLS)
async def test_each_cell_that_does_not_decode_is_shown_and_is_in_no_others_way(owner: SqliteStore, path: Path, column: str) -> None:
    """Whatever is in the cell: lists show the session as parked on its row, the store opens, other ops of its batch are applied."""
    await owner.apply(create("b"))
    await owner.close()
    db = sqlite3.connect(path)
    db.execute(f"UPDATE sessions SET {column} = {CELLS[column]} WHERE id = 'a'")
    db.commit()
    before = db.execute("SELECT * FROM sessions WHERE id = 'a'" if column != "agent" else "SELECT hex(agent) FROM sessions").fetchone()
    db.close()
    store = SqliteStore(path)
    await store.open()
    try:
        rows = {session.id: session for session in await store.sessions()}
        assert set(rows) == {"a", "b"}
        assert rows["b"].unreadable == ""
        whole = await store.session("a")
        assert whole is not None
        assert (whole.status, whole.park, whole.unreadable) == (rows["a"].status, rows["a"].park, rows["a"].unreadable)
        if column != "agent":  # a text that is no UTF-8 is shown with a sign for each odd byte
            park = rows["a"].park
            assert park is not None
            assert (rows["a"].status, park.reason) == ("parked", "state")
            assert column in park.text
        await store.runnable()
        await store.orphans()
        await store.counts()
        group = GroupCommit(store)
        writer = asyncio.create_task(group.run())
        ops: list[Op] = [Activate("b", 3.0), Enqueue("b", "m", b"", b"", 3.0), Activate("a", 3.0), Enqueue("b", "n", b"", b"", 3.0)]
        results = await asyncio.wait_for(asyncio.gather(*map(group.submit, ops), return_exceptions=True), 10)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        assert [isinstance(each, Result) and each.status is Status.DONE for each in (results[0], results[1], results[3])] == [True] * 3
        refused = results[2]
        assert isinstance(refused, WriteRefused) or (isinstance(refused, Result) and refused.status is Status.REFUSED)
        assert [message.id for message in await store.messages("b")] == ["m", "n"]
    finally:
        await store.close()
    db = sqlite3.connect(path)
    assert (
        db.execute("SELECT * FROM sessions WHERE id = 'a'" if column != "agent" else "SELECT hex(agent) FROM sessions").fetchone() == before
    )
    db.close()


async def test_a_row_that_does_not_decode_is_shown_by_a_reader(owner: SqliteStore, path: Path) -> None:
    """A damaged row is no traceback from a decoder, and does not hide the others."""
    await owner.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE sessions SET budget = x'c1'")
    db.commit()
    db.close()
    reader = await looking(path)
    try:
        (shown,) = await reader.sessions()
        assert shown.unreadable.startswith("its row does not decode: budget")
    finally:
        await reader.close()


async def test_a_url_can_be_opened_for_reading_only(owner: SqliteStore, path: Path) -> None:
    """Of a file; what lives in another process's memory cannot be looked into."""
    reader = open_store(f"sqlite:///{path}", readonly=True)
    await reader.open()
    assert [s.id for s in await reader.sessions()] == ["a"]
    await reader.close()
    with pytest.raises(ConfigError, match="cannot be looked into"):
        open_store("memory:", readonly=True)


def size_of_wal(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


async def test_a_touch_is_written_to_the_file(tmp_path: Path) -> None:
    """A write that SQLite can skip, since nothing changes, would call a full disk well."""
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    await store.open()
    try:
        before = size_of_wal(path)
        await store.apply([Touch()])
        assert size_of_wal(path) > before
    finally:
        await store.close()


async def test_a_file_that_is_removed_under_a_running_process_takes_no_write_any_more(tmp_path: Path) -> None:
    """What would be acknowledged into a file without a name would be gone with the process."""
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    await store.open()
    try:
        await store.apply([Touch()])
        path.unlink()
        with pytest.raises(StoreLost, match="removed or replaced"):
            await store.apply([Touch()])
    finally:
        await store.close()


def modes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


async def test_a_new_database_is_for_nobody_else_to_read(tmp_path: Path) -> None:
    """It holds every conversation; what SQLite keeps beside it takes after it."""
    path = tmp_path / "s.db"
    store = SqliteStore(path)
    await store.open()
    try:
        await store.apply([Touch()])
        assert modes(tmp_path) == dict.fromkeys(("s.db", "s.db-wal", "s.db-shm", "s.db.lock"), 0o600)
    finally:
        await store.close()


async def test_reads_do_not_wait_for_a_write(owner: SqliteStore, path: Path) -> None:
    """A write that waits for the file's lock (another program holds it) keeps no list for people waiting, and a list no write."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    write = asyncio.ensure_future(owner.apply([Touch()]))
    await asyncio.sleep(0)
    assert [session.id for session in await owner.sessions()] == ["a"]
    assert (await owner.counts(), write.done()) == ({"idle": 1}, False)
    other.execute("ROLLBACK")
    assert [result.status for result in await write] == [Status.DONE]
    other.close()


async def test_reads_stay_fresh_after_a_row_that_did_not_decode(owner: SqliteStore, path: Path) -> None:
    """A list that fails half-way leaves no statement open, which would keep every later read at that moment."""
    for id in "bc":
        await owner.apply(create(id))
    other = sqlite3.connect(path)
    other.execute("UPDATE sessions SET seed = 'text', usage = x'c1' WHERE id = 'b'")
    other.commit()
    other.close()
    try:
        listed: object = await owner.sessions()
    except StoreError as error:
        listed = error  # kept, as a log or a debugger keeps it
    await owner.apply(create("d"))
    assert (await owner.session("d")) is not None, listed


class FailsToCommit(sqlite3.Connection):
    """A connection whose commits SQLite fails and rolls back, as of a full disk or a disk that returns errors."""

    code: str | None = None

    def execute(self, sql: str, *args: object) -> sqlite3.Cursor:
        if sql != "COMMIT" or self.code is None:
            return super().execute(sql, *args)  # type: ignore[arg-type]
        super().execute("ROLLBACK")
        error = sqlite3.OperationalError(f"the commit failed: {self.code}")
        error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, self.code), self.code
        raise error


@pytest.mark.parametrize(("code", "kind"), [("SQLITE_FULL", NotWritten), ("SQLITE_IOERR_FSYNC", OutcomeUnknown)])
async def test_a_commit_that_a_full_disk_fails_was_certainly_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: str, kind: type[StoreError]
) -> None:
    """So it is tried again, and no session has to be read again; after an error of the disk the commit may be there."""
    monkeypatch.setattr(aiosqlite, "connect", partial(aiosqlite.connect, factory=FailsToCommit))
    store = SqliteStore(path)
    await store.open()
    monkeypatch.setattr(FailsToCommit, "code", code)
    with pytest.raises(StoreError) as failed:
        await store.apply(create("a"))
    assert type(failed.value) is kind
    assert not isinstance(failed.value, NotWritten) or failed.value.passing
    monkeypatch.setattr(FailsToCommit, "code", None)
    assert [result.status for result in await store.apply(create("a"))] == [Status.DONE, Status.DONE]
    await store.close()
